/* Sizes of sliding windows, and the matrix of their elements (im2col). */
#include "kernels/window.h"

#include <string.h>

#include "base/pool.h"
#include "base/size.h"

int64_t k_window_taps(const struct k_window *w)
{
    return w->kernel[0] * w->kernel[1] * w->kernel[2];
}
int64_t k_plane_in(const struct k_window *w)
{
    return w->in[0] * w->in[1] * w->in[2];
}
int64_t k_plane_out(const struct k_window *w)
{
    return w->out[0] * w->out[1] * w->out[2];
}

bool k_auto_pad_is(const struct k_call *c, const char *name)
{
    return !strcmp(k_attr_str(c, "auto_pad", "NOTSET"), name);
}

bool k_window_list(struct k_call *c, const char *name, int n, int64_t otherwise, int64_t *v)
{
    const struct k_attr *a = k_attr_find(c, name);
    const bool given = a && a->kind == K_ATTR_INTS && a->len > 0;
    bool fits = !given || a->len == n;
    for (int i = 0; fits && i < n; i++) {
        v[i] = given ? a->v.ints[i] : otherwise;
        fits = v[i] >= otherwise && v[i] <= INT32_MAX;
    }
    if (!fits)
        k_fail(c, NPUC_E_INVALID, "attribute %s needs %d entries of at least %lld", name, n, (long long)otherwise);
    return fits;
}

void k_window_split(struct k_window *w, int axis, int64_t total, bool upper)
{
    const int64_t pads = total > 0 ? total : 0;
    w->before[axis] = upper ? pads / 2 : pads - pads / 2;
    w->after[axis] = pads - w->before[axis];
}

bool k_window_read(struct k_call *c, const struct k_tensor *x, const int64_t *kernel, struct k_window *w)
{
    const int n = x->rank - 2, skip = K_AXES - n;
    int64_t pads[2 * K_AXES], given[K_AXES];
    if (n < 1 || n > K_AXES) {
        k_fail(c, NPUC_E_UNSUPPORTED, "%d spatial axes, expected 1 to %d", n, K_AXES);
        return false;
    }
    *w = (struct k_window){.n = n};
    for (int i = 0; i < skip; i++)
        w->in[i] = w->out[i] = w->kernel[i] = w->stride[i] = w->dilation[i] = 1;
    if (!k_window_list(c, "kernel_shape", n, 1, given) || !k_window_list(c, "strides", n, 1, w->stride + skip) ||
        !k_window_list(c, "dilations", n, 1, w->dilation + skip) || !k_window_list(c, "pads", 2 * n, 0, pads))
        return false;
    const struct k_attr *shape = k_attr_find(c, "kernel_shape");
    const bool has_shape = shape && shape->len > 0, use_pads = k_auto_pad_is(c, "NOTSET");
    for (int i = 0; i < n; i++) {
        w->in[skip + i] = x->dims[2 + i];
        w->kernel[skip + i] = kernel ? kernel[i] : given[i];
        w->before[skip + i] = use_pads ? pads[i] : 0;
        w->after[skip + i] = use_pads ? pads[n + i] : 0;
        if (w->kernel[skip + i] < 1 || w->kernel[skip + i] > INT32_MAX ||
            (kernel && has_shape && kernel[i] != given[i]) || w->in[skip + i] > INT32_MAX) {
            k_fail(c, NPUC_E_INVALID, "kernel_shape does not fit the weight or the input on spatial axis %d", i);
            return false;
        }
    }
    if (!kernel && !has_shape)
        k_fail(c, NPUC_E_INVALID, "attribute kernel_shape is missing");
    return kernel || has_shape;
}

static int64_t floor_div(int64_t a, int64_t b)
{
    return a >= 0 ? a / b : -((-a + b - 1) / b);
}

bool k_window_of(struct k_call *c, const struct k_tensor *x, const int64_t *kernel, struct k_window *w)
{
    if (!k_window_read(c, x, kernel, w))
        return false;
    const bool upper = k_auto_pad_is(c, "SAME_UPPER"), same = upper || k_auto_pad_is(c, "SAME_LOWER");
    const bool up = k_attr_int(c, "ceil_mode", 0) != 0;
    for (int i = K_AXES - w->n; i < K_AXES; i++) {
        const int64_t extent = w->dilation[i] * (w->kernel[i] - 1) + 1, stride = w->stride[i];
        if (same) {
            w->out[i] = size_ceil_div(w->in[i], stride);
            k_window_split(w, i, (w->out[i] - 1) * stride + extent - w->in[i], upper);
            continue;
        }
        const int64_t room = w->in[i] + w->before[i] + w->after[i] - extent;
        w->out[i] = floor_div(up ? room + stride - 1 : room, stride) + 1;
        /* Rounded up, but no window starts in the padding behind the data. */
        const int64_t starts = size_ceil_div(w->in[i] + w->before[i], stride);
        if (up && w->out[i] > starts)
            w->out[i] = starts;
        if (w->out[i] < 0) {
            k_fail(c, NPUC_E_INVALID, "the window does not fit into the input on spatial axis %d", i - (K_AXES - w->n));
            return false;
        }
    }
    return true;
}

void k_window_dims(const struct k_window *w, const struct k_tensor *x, int64_t channels, int64_t dims[K_MAX_RANK])
{
    dims[0] = x->dims[0];
    dims[1] = channels;
    for (int i = 0; i < w->n; i++)
        dims[2 + i] = w->out[K_AXES - w->n + i];
}

void k_window_valid(int64_t start, int64_t stride, int64_t in, int64_t out, int64_t *from, int64_t *to)
{
    *from = start < 0 ? (-start + stride - 1) / stride : 0;
    *to = in > start ? (in - start + stride - 1) / stride : 0;
    *from = *from > out ? out : *from;
    *to = *to > out ? out : *to < *from ? *from : *to;
}

void k_tap_split(const struct k_window *w, int64_t tap, int64_t k[K_AXES])
{
    k[2] = tap % w->kernel[2];
    k[1] = tap / w->kernel[2] % w->kernel[1];
    k[0] = tap / w->kernel[2] / w->kernel[1];
}

/* n elements `stride` apart. */
static void pick(void *dst, const void *src, int64_t stride, int64_t n, int size)
{
#define PICK(T)                                                                                                        \
    for (int64_t i = 0; i < n; i++)                                                                                    \
        ((T *)dst)[i] = ((const T *)src)[i * stride];
    if (stride == 1) {
        memcpy(dst, src, (size_t)(n * size));
    } else if (size == 1) {
        PICK(uint8_t)
    } else if (size == 2) {
        PICK(uint16_t)
    } else if (size == 4) {
        PICK(uint32_t)
    } else {
        PICK(uint64_t)
    }
#undef PICK
}

/* An output row whose elements stand `step` apart in a line of x; `start`: where window 0 looks, in steps of 1. */
static void spread(char *y, const char *line, const struct k_im2col *g, int64_t start)
{
    const struct k_window *w = g->w;
    memset(y, 0, (size_t)(w->out[2] * g->size));
    for (int64_t o = 0; o < w->out[2]; o++) {
        const int64_t at = start + o * w->stride[2];
        if (at >= 0 && at % g->step[2] == 0 && at / g->step[2] < w->in[2])
            memcpy(y + o * g->size, line + at / g->step[2] * g->size, (size_t)g->size);
    }
}

/* Index into x of position `at` on an axis, or -1 where there is none. */
static int64_t on_axis(const struct k_im2col *g, int axis, int64_t at)
{
    return at >= 0 && at % g->step[axis] == 0 && at / g->step[axis] < g->w->in[axis] ? at / g->step[axis] : -1;
}

static void one_tap(void *arg, int64_t item, int worker)
{
    (void)worker;
    const struct k_im2col *g = arg;
    const struct k_window *w = g->w;
    const int64_t n = w->out[2];
    int64_t k[K_AXES], from, to;
    k_tap_split(w, item / g->channels, k);
    const char *x = (const char *)g->x + item % g->channels * k_plane_in(w) * g->size;
    char *y = (char *)g->y + item * g->rows * n * g->size;
    const int64_t start = k_tap_start(w, 2, k[2]);
    k_window_valid(start, w->stride[2], w->in[2], n, &from, &to);
    for (int64_t r = g->first; r < g->first + g->rows; r++, y += n * g->size) {
        const int64_t i0 = on_axis(g, 0, r / w->out[1] * w->stride[0] + k_tap_start(w, 0, k[0]));
        const int64_t i1 = on_axis(g, 1, r % w->out[1] * w->stride[1] + k_tap_start(w, 1, k[1]));
        if (i0 < 0 || i1 < 0) {
            memset(y, 0, (size_t)(n * g->size));
            continue;
        }
        const int64_t line = (i0 * w->in[1] + i1) * w->in[2];
        if (g->step[2] > 1) {
            spread(y, x + line * g->size, g, start);
            continue;
        }
        memset(y, 0, (size_t)(from * g->size));
        memset(y + to * g->size, 0, (size_t)((n - to) * g->size));
        if (from < to)
            pick(y + from * g->size, x + (line + start + from * w->stride[2]) * g->size, w->stride[2], to - from,
                 g->size);
    }
}

void k_im2col(const struct k_im2col *g, struct pool *pool)
{
    struct k_im2col job = *g;
    pool_for(pool, g->channels * k_window_taps(g->w), one_tap, &job);
}
