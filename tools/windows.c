#include "tools/windows.h"

#include <string.h>

#include "base/size.h"

int64_t windows_taps(const struct node *n)
{
    const struct type *w = n->n_in > 1 && node_in(n, 1) ? node_in(n, 1)->type : NULL;
    int64_t taps = 1, size;
    for (int i = 2; n->op == OP_Conv && w && i < w->rank; i++)
        taps *= expr_is_const(&n->graph->module->cx->exprs, w->dims[i], &size) ? size : 1;
    return taps;
}

static int64_t entry(const struct node *n, const char *name, int i, int64_t otherwise)
{
    const struct attr *a = node_attr(n, name);
    return a && i < a->len ? a->v.ints[i] : otherwise;
}

bool windows_of(const struct node *conv, const struct k_tensor *x, const struct k_tensor *weight, struct k_window *w)
{
    const struct attr *mode = node_attr(conv, "auto_pad");
    const char *pads = mode ? str_text(&conv->graph->module->cx->strings, mode->v.s) : "NOTSET";
    const int n = x->rank - 2, skip = K_AXES - n;
    const bool upper = strcmp(pads, "SAME_UPPER") == 0, same = upper || strcmp(pads, "SAME_LOWER") == 0,
               given = strcmp(pads, "NOTSET") == 0;
    *w = (struct k_window){.n = n};
    if (n < 1 || n > K_AXES || weight->rank != x->rank)
        return false;
    for (int i = 0; i < K_AXES; i++) {
        const int at = i - skip;
        w->in[i] = at < 0 ? 1 : x->dims[2 + at];
        w->kernel[i] = at < 0 ? 1 : weight->dims[2 + at];
        w->stride[i] = at < 0 ? 1 : entry(conv, "strides", at, 1);
        w->dilation[i] = at < 0 ? 1 : entry(conv, "dilations", at, 1);
        w->before[i] = at < 0 || !given ? 0 : entry(conv, "pads", at, 0);
        w->after[i] = at < 0 || !given ? 0 : entry(conv, "pads", n + at, 0);
        const int64_t extent = w->dilation[i] * (w->kernel[i] - 1) + 1;
        w->out[i] = same ? size_ceil_div(w->in[i], w->stride[i])
                         : (w->in[i] + w->before[i] + w->after[i] - extent) / w->stride[i] + 1;
        if (same && at >= 0)
            k_window_split(w, i, (w->out[i] - 1) * w->stride[i] + extent - w->in[i], upper);
        if (w->out[i] < 1)
            return false;
    }
    return true;
}
