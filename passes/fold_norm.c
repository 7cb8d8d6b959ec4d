/* BatchNormalization goes into the convolution before it. apply_recipe calls it first, so that weights are coded as
 * they are multiplied and calibration sees no values that nobody codes.
 *
 *   %c = Conv %x, %w, %b;  %y = BatchNormalization %c, %scale, %bias, %mean, %variance     (constants but %x)
 * becomes, with f = scale / sqrt(variance + epsilon),
 *   %y = Conv %x, f*%w, f*(%b - mean) + bias
 *
 * Requirements: (1) nobody else reads %c; (2) the statistics are those given, not of the batch, and no other result of
 * the normalisation is used; (3) every factor is finite. The convolution keeps its name. Rounding is that of the new
 * weights, so this is no part of compiling a model in floats. */
#include <math.h>

#include "ir/eval.h"
#include "passes/match.h"

struct folding {
    struct node *conv, *norm;
    int64_t channels;
    double *factor, *offset; /* y = factor * conv + offset, the bias in offset */
};

static bool read_vector(const struct ir_ctx *cx, const struct value *v, int64_t n, double *to)
{
    if (!v || !value_const(v) || type_const_count(cx, v->type) != n)
        return false;
    for (int64_t i = 0; i < n; i++)
        if (!value_const_f64(v, i, &to[i]))
            return false;
    return true;
}

static bool read(struct pass_ctx *px, struct node *n, struct folding *f)
{
    const struct ir_ctx *cx = px->cx;
    *f = (struct folding){.conv = match_def(node_in(n, 0), OP_Conv), .norm = n};
    if (!f->conv || f->conv->graph != n->graph || !value_has_one_use(node_in(n, 0)) ||
        node_attr_int(n, "training_mode", 0) || node_out(n, 1) || !value_const(node_in(f->conv, 1)) ||
        !expr_is_const(&cx->exprs, node_in(f->conv, 1)->type->dims[0], &f->channels) || f->channels < 1)
        return false;
    const int64_t c = f->channels;
    double *v = ARENA_ARRAY(&px->arena, double, 5 * c);
    f->factor = ARENA_ARRAY(&px->arena, double, c);
    f->offset = ARENA_ARRAY(&px->arena, double, c);
    for (int i = 1; i < 5; i++)
        if (!read_vector(cx, node_in(n, i), c, v + i * c))
            return false;
    if (node_in(f->conv, 2) && !read_vector(cx, node_in(f->conv, 2), c, v))
        return false;
    for (int64_t i = 0; i < c; i++) {
        f->factor[i] = v[c + i] / sqrt(v[4 * c + i] + (double)node_attr_float(n, "epsilon", 1e-5f));
        f->offset[i] = f->factor[i] * (v[i] - v[3 * c + i]) + v[2 * c + i];
        if (!isfinite(f->factor[i]) || !isfinite(f->offset[i]))
            return false;
    }
    return true;
}

static struct value *weight(struct pass_ctx *px, struct builder *b, const struct folding *f)
{
    struct k_tensor from, to;
    const struct value *w = node_in(f->conv, 1);
    if (!blob_tensor(px->cx, w->type, value_const(w), &from))
        return NULL;
    to = from;
    to.data = arena_zalloc(&px->arena, to.size + 8);
    const int64_t n = k_count(&from), inner = n / f->channels;
    for (int64_t i = 0; i < n; i++)
        k_set_f64(&to, i, k_get_f64(&from, i) * f->factor[i / inner]);
    return ir_const(b, to.dtype, to.rank, to.dims, to.data, to.size);
}

static struct value *bias(struct pass_ctx *px, struct builder *b, const struct folding *f)
{
    const enum dtype t = f->conv->out[0].type->dtype;
    struct k_tensor to = {.dtype = t, .size = f->channels * dtype_size(t)};
    to.data = arena_zalloc(&px->arena, to.size + 8);
    for (int64_t i = 0; i < f->channels; i++)
        k_set_f64(&to, i, f->offset[i]);
    return ir_const(b, t, 1, &f->channels, to.data, to.size);
}

static enum npuc_status fold(struct pass_ctx *px, const struct folding *f)
{
    struct builder b = ir_at(f->conv);
    struct value *w = weight(px, &b, f), *c = w ? bias(px, &b, f) : NULL;
    if (!c)
        return pass_failure(px);
    struct node *with = ir_resized(f->conv, 3, 1);
    ir_set_input(with, 0, node_in(f->conv, 0));
    ir_set_input(with, 1, w);
    ir_set_input(with, 2, c);
    if (ir_infer(with) != NPUC_OK)
        return pass_failure(px);
    ir_replace_all(&f->norm->out[0], &with->out[0]);
    ir_erase(f->norm);
    ir_erase(f->conv);
    pass_count(px, STAT_fold_norm_folded, 1);
    return NPUC_OK;
}

enum npuc_status fold_norm(struct pass_ctx *px, struct graph *g)
{
    for_each_node_safe(n, g)
    {
        struct folding f;
        const struct arena_mark mark = arena_mark(&px->arena);
        enum npuc_status s = NPUC_OK;
        if (n->op == OP_BatchNormalization && read(px, n, &f) && ir_may_rewrite(px->cx))
            s = fold(px, &f);
        arena_release(&px->arena, mark);
        if (s != NPUC_OK)
            return s;
    }
    return NPUC_OK;
}
