/* Convolution, pooling and resizing: output sizes from kernel, stride, dilation and padding. */
#include "ir/ops/infer.h"

#include <math.h>

struct window {
    int n; /* spatial axes */
    int64_t kernel[IR_MAX_RANK], stride[IR_MAX_RANK], dilation[IR_MAX_RANK], before[IR_MAX_RANK], after[IR_MAX_RANK];
};

static enum npuc_status read_list(struct ir_ctx *cx, const struct node *n, const char *name, int want,
                                  int64_t otherwise, int64_t *v)
{
    const struct attr *a = node_attr(n, name);
    if (a && a->len != want && a->len != 0)
        return node_error(cx, n, D_ATTRIBUTE, "attribute '%s' has %lld elements, expected %d", name, (long long)a->len,
                          want);
    for (int i = 0; i < want; i++) {
        v[i] = a && a->len ? a->v.ints[i] : otherwise;
        if (v[i] < otherwise || v[i] > INT32_MAX)
            return node_error(cx, n, D_ATTRIBUTE, "element %d of attribute '%s' is %lld, expected at least %lld", i,
                              name, (long long)v[i], (long long)otherwise);
    }
    return NPUC_OK;
}

/* kernel[] is preset from the weight where there is one. */
static enum npuc_status read_window(struct ir_ctx *cx, const struct node *n, struct window *w)
{
    int64_t pads[2 * IR_MAX_RANK], kernel[IR_MAX_RANK];
    const struct attr *k = node_attr(n, "kernel_shape");
    enum npuc_status s = k ? read_list(cx, n, "kernel_shape", w->n, 1, kernel) : NPUC_OK;
    for (int i = 0; i < w->n && s == NPUC_OK && k && k->len; i++) {
        if (w->kernel[i] > 0 && w->kernel[i] != kernel[i])
            return node_error(cx, n, D_SHAPE_MISMATCH,
                              "attribute 'kernel_shape' is %lld on axis %d, the weight has %lld", (long long)kernel[i],
                              i, (long long)w->kernel[i]);
        w->kernel[i] = kernel[i];
    }
    for (int i = 0; i < w->n && s == NPUC_OK; i++)
        if (w->kernel[i] < 1)
            return node_error(cx, n, D_UNSUPPORTED, "the kernel size on axis %d is not known", i);
    if (s == NPUC_OK)
        s = read_list(cx, n, "strides", w->n, 1, w->stride);
    if (s == NPUC_OK)
        s = read_list(cx, n, "dilations", w->n, 1, w->dilation);
    if (s == NPUC_OK)
        s = read_list(cx, n, "pads", 2 * w->n, 0, pads);
    for (int i = 0; i < w->n && s == NPUC_OK; i++) {
        w->before[i] = pads[i];
        w->after[i] = pads[i + w->n];
    }
    return s == NPUC_OK ? infer_attr_in(cx, n, "auto_pad", "NOTSET SAME_UPPER SAME_LOWER VALID") : s;
}

/* What is left of axis i of size x, with its padding, beside one window. */
static expr window_room(struct ir_ctx *cx, const struct node *n, const struct window *w, int i, expr x)
{
    const bool valid = infer_attr_is(cx, n, "auto_pad", "VALID");
    const int64_t pads = valid ? 0 : w->before[i] + w->after[i], extent = w->dilation[i] * (w->kernel[i] - 1) + 1;
    return expr_add(&cx->exprs, x, expr_const(&cx->exprs, pads - extent));
}

static bool pads_to_same(struct ir_ctx *cx, const struct node *n)
{
    return infer_attr_is(cx, n, "auto_pad", "SAME_UPPER") || infer_attr_is(cx, n, "auto_pad", "SAME_LOWER");
}

/* Windows along axis i of input size x. */
static expr window_count(struct ir_ctx *cx, const struct node *n, const struct window *w, int i, expr x)
{
    struct expr_pool *p = &cx->exprs;
    const expr one = expr_const(p, 1), stride = expr_const(p, w->stride[i]);
    if (pads_to_same(cx, n))
        return expr_ceildiv(p, x, stride);
    const bool valid = infer_attr_is(cx, n, "auto_pad", "VALID");
    const expr room = window_room(cx, n, w, i, x);
    if (!node_attr_int(n, "ceil_mode", 0))
        return expr_add(p, expr_floordiv(p, room, stride), one);
    /* Rounded up, but no window starts in the padding behind the data. */
    const expr up = expr_add(p, expr_ceildiv(p, room, stride), one);
    const expr starts = expr_ceildiv(p, expr_add(p, x, expr_const(p, valid ? 0 : w->before[i])), stride);
    return infer_min(cx, up, starts);
}

static enum npuc_status window_out(struct ir_ctx *cx, struct node *n, const struct window *w, expr channels,
                                   enum dtype t)
{
    const struct shape x = infer_shape(n, 0);
    struct shape out = {.rank = x.rank, .d = {x.d[0], channels}};
    for (int i = 0; i < w->n; i++) {
        out.d[i + 2] = window_count(cx, n, w, i, x.d[i + 2]);
        const expr room = window_room(cx, n, w, i, x.d[i + 2]);
        if (!pads_to_same(cx, n) && room && expr_range_of(&cx->exprs, room).max < 0)
            return node_error(cx, n, D_SHAPE_MISMATCH, "the window does not fit into input 0 of type %s on axis %d",
                              type_text(cx, n->in[0].value->type), i + 2);
    }
    const enum npuc_status s = infer_out(cx, n, 0, t, &out);
    return s == NPUC_OK && n->op == OP_MaxPool ? infer_out(cx, n, 1, DT_I64, &out) : s;
}

static enum npuc_status pool_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s != NPUC_OK)
        return s;
    const struct shape x = infer_shape(n, 0);
    if (x.rank < 0) {
        s = infer_out_unknown(cx, n, 0, infer_dtype(n, 0));
        return s == NPUC_OK ? infer_out_unknown(cx, n, 1, DT_I64) : s;
    }
    if (x.rank < 3)
        return infer_rank_error(cx, n, 0, "rank 3 or more");
    struct window w = {.n = x.rank - 2};
    s = read_window(cx, n, &w);
    return s == NPUC_OK ? window_out(cx, n, &w, x.d[1], infer_dtype(n, 0)) : s;
}

static enum npuc_status global_pool_infer(struct ir_ctx *cx, struct node *n)
{
    const enum npuc_status s = infer_begin(cx, n);
    struct shape x = infer_shape(n, 0);
    if (s != NPUC_OK)
        return s;
    if (x.rank < 0)
        return infer_out_unknown(cx, n, 0, infer_dtype(n, 0));
    if (x.rank < 3)
        return infer_rank_error(cx, n, 0, "rank 3 or more");
    for (int i = 2; i < x.rank; i++)
        x.d[i] = expr_const(&cx->exprs, 1);
    return infer_out(cx, n, 0, infer_dtype(n, 0), &x);
}

/* ---- Conv, ConvInteger, QLinearConv, ConvTranspose */

static int weight_at(const struct node *n)
{
    return n->op == OP_QLinearConv ? 3 : 1;
}

static enum npuc_status conv_legal(struct ir_ctx *cx, struct node *n)
{
    const int64_t group = node_attr_int(n, "group", 1);
    if (group < 1 || group > INT32_MAX)
        return node_error(cx, n, D_ATTRIBUTE, "attribute 'group' is %lld, expected at least 1", (long long)group);
    return NPUC_OK;
}

/* The first axis of the weight is split into the groups; the bias has one element per channel of the result. */
static enum npuc_status check_groups(struct ir_ctx *cx, struct node *n, int at, bool transposed)
{
    const int64_t group = node_attr_int(n, "group", 1);
    const struct shape k = infer_shape(n, at);
    int64_t count;
    if (expr_is_const(&cx->exprs, k.d[0], &count) && count % group != 0)
        return node_error(
            cx, n, D_SHAPE_MISMATCH, "the weight of type %s has %lld %s channels, which %lld groups do not divide",
            type_text(cx, n->in[at].value->type), (long long)count, transposed ? "input" : "output", (long long)group);
    const int bias = n->op == OP_QLinearConv ? 8 : 2;
    if (n->op == OP_ConvInteger || !infer_has(n, bias) || infer_shape(n, bias).rank < 0)
        return NPUC_OK;
    const struct shape b = infer_shape(n, bias);
    const expr channels = transposed ? expr_mul_const(&cx->exprs, k.d[1], group) : k.d[0];
    if (b.rank == 1 && channels && infer_dim_same(cx, b.d[0], channels))
        return NPUC_OK;
    return node_error(cx, n, D_SHAPE_MISMATCH,
                      "input %d (bias) is of type %s, expected one element for each of %s channels", bias,
                      type_text(cx, n->in[bias].value->type), infer_dim_text(cx, channels));
}

/* Ranks, channels and kernel sizes of X and W. The weight is [out, in/group, ...], transposed [in, out/group, ...]. */
static enum npuc_status conv_begin(struct ir_ctx *cx, struct node *n, bool transposed, struct window *w)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = conv_legal(cx, n);
    if (s != NPUC_OK)
        return s;
    const int at = weight_at(n);
    const struct shape x = infer_shape(n, 0), k = infer_shape(n, at);
    *w = (struct window){.n = x.rank < 0 ? k.rank - 2 : x.rank - 2};
    if (x.rank < 0 || k.rank < 0)
        return NPUC_OK;
    if (x.rank < 3)
        return infer_rank_error(cx, n, 0, "rank 3 or more");
    if (k.rank != x.rank)
        return infer_rank_error(cx, n, at, "the rank of input 0");
    const expr in = transposed ? k.d[0] : expr_mul_const(&cx->exprs, k.d[1], node_attr_int(n, "group", 1));
    if (!in || !infer_dim_same(cx, x.d[1], in))
        return node_error(cx, n, D_SHAPE_MISMATCH,
                          "input 0 of type %s has %s channels, the weight of type %s is for %s",
                          type_text(cx, n->in[0].value->type), infer_dim_text(cx, x.d[1]),
                          type_text(cx, n->in[at].value->type), infer_dim_text(cx, in));
    s = check_groups(cx, n, at, transposed);
    for (int i = 0; i < w->n; i++)
        if (!expr_is_const(&cx->exprs, k.d[i + 2], &w->kernel[i]))
            w->kernel[i] = 0;
    return s == NPUC_OK ? read_window(cx, n, w) : s;
}

static enum npuc_status conv_as(struct ir_ctx *cx, struct node *n, enum dtype t)
{
    struct window w;
    const enum npuc_status s = conv_begin(cx, n, false, &w);
    if (s != NPUC_OK)
        return s;
    const struct shape k = infer_shape(n, weight_at(n));
    if (infer_shape(n, 0).rank < 0 || k.rank < 0)
        return infer_out_unknown(cx, n, 0, t);
    return window_out(cx, n, &w, k.d[0], t);
}

static enum npuc_status conv_infer(struct ir_ctx *cx, struct node *n)
{
    for (int i = 1; i < 3; i++) {
        const enum npuc_status s = infer_same_dtype(cx, n, 0, i);
        if (s != NPUC_OK)
            return s;
    }
    return conv_as(cx, n, infer_dtype(n, 0));
}

static enum npuc_status conv_integer_infer(struct ir_ctx *cx, struct node *n)
{
    for (int i = 0; i < 2; i++) {
        const enum npuc_status s = infer_is_factor(cx, n, i);
        if (s != NPUC_OK)
            return s;
    }
    return conv_as(cx, n, DT_I32);
}

/* x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias */
static enum npuc_status qlinear_conv_infer(struct ir_ctx *cx, struct node *n)
{
    static const int bytes[] = {0, 2, 3, 5, 7};
    enum npuc_status s = infer_begin(cx, n);
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(bytes) && s == NPUC_OK; i++)
        s = infer_dtype_is(cx, n, bytes[i], DT_I8, DT_U8);
    if (s == NPUC_OK)
        s = infer_same_dtype(cx, n, 0, 2);
    if (s == NPUC_OK)
        s = infer_same_dtype(cx, n, 3, 5);
    if (s == NPUC_OK && infer_has(n, 8))
        s = infer_dtype_is(cx, n, 8, DT_I32, DT_I32);
    return s == NPUC_OK ? conv_as(cx, n, infer_dtype(n, 7)) : s;
}

static enum npuc_status conv_transpose_infer(struct ir_ctx *cx, struct node *n)
{
    struct window w;
    enum npuc_status s = conv_begin(cx, n, true, &w);
    if (s != NPUC_OK)
        return s;
    struct expr_pool *p = &cx->exprs;
    const struct shape x = infer_shape(n, 0), k = infer_shape(n, 1);
    if (x.rank < 0 || k.rank < 0)
        return infer_out_unknown(cx, n, 0, infer_dtype(n, 0));
    int64_t extra[IR_MAX_RANK], given[IR_MAX_RANK];
    s = read_list(cx, n, "output_padding", w.n, 0, extra);
    if (s == NPUC_OK)
        s = read_list(cx, n, "output_shape", w.n, 0, given);
    if (s != NPUC_OK)
        return s;
    struct shape out = {.rank = x.rank, .d = {x.d[0], expr_mul_const(p, k.d[1], node_attr_int(n, "group", 1))}};
    const bool same = pads_to_same(cx, n), valid = infer_attr_is(cx, n, "auto_pad", "VALID");
    for (int i = 0; i < w.n; i++) {
        const expr strides = expr_mul_const(p, x.d[i + 2], w.stride[i]);
        const int64_t extent = w.dilation[i] * (w.kernel[i] - 1) + 1, pads = valid ? 0 : w.before[i] + w.after[i];
        const expr size = same ? strides : expr_add(p, strides, expr_const(p, extent + extra[i] - w.stride[i] - pads));
        out.d[i + 2] = given[i] ? expr_const(p, given[i]) : size;
    }
    return infer_out(cx, n, 0, infer_dtype(n, 0), &out);
}

static double kernel_size(struct ir_ctx *cx, const struct node *n, const int64_t *symbols)
{
    const struct value *weight = node_in(n, weight_at(n));
    return cost_count(cx, weight, symbols) / cost_dim(cx, weight, 0, symbols);
}

static void conv_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    cost_bytes(cx, n, symbols, c);
    c->macs = cost_count(cx, &n->out[0], symbols) * kernel_size(cx, n, symbols);
}

static void conv_transpose_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    cost_bytes(cx, n, symbols, c);
    c->macs = cost_count(cx, node_in(n, 0), symbols) * kernel_size(cx, n, symbols);
}

static void pool_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    cost_bytes(cx, n, symbols, c);
    const struct attr *k = node_attr(n, "kernel_shape");
    c->alu = cost_count(cx, &n->out[0], symbols);
    for (int64_t i = 0; k && i < k->len; i++)
        c->alu *= (double)k->v.ints[i];
}

/* ---- Resize: X, roi, scales or sizes */

#define MAX_SCALE 1e6 /* larger ones are damage; sizes stay far from overflow */

/* floor(size * scale) for a constant scale; a whole-number scale also for a symbolic size. */
static expr scaled(struct ir_ctx *cx, expr size, double scale)
{
    int64_t c;
    if (expr_is_const(&cx->exprs, size, &c))
        return expr_const(&cx->exprs, (int64_t)floor((double)c * scale));
    if (scale == floor(scale))
        return expr_mul_const(&cx->exprs, size, (int64_t)scale);
    const double inverse = 1 / scale;
    return inverse == floor(inverse) ? expr_floordiv(&cx->exprs, size, expr_const(&cx->exprs, (int64_t)inverse))
                                     : EXPR_INVALID;
}

static enum npuc_status check_scale(struct ir_ctx *cx, const struct node *n, int axis, double scale)
{
    if (scale > 0 && scale <= MAX_SCALE)
        return NPUC_OK;
    return node_error(cx, n, D_SHAPE_MISMATCH,
                      "input 2 (scales) has %g for axis %d, expected more than 0 and at most %g", scale, axis,
                      MAX_SCALE);
}

static bool is_given(struct ir_ctx *cx, const struct node *n, int i)
{
    return infer_has(n, i) && infer_len(cx, n, i) != 0;
}

static enum npuc_status resize_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s != NPUC_OK)
        return s;
    struct shape out = infer_shape(n, 0);
    if (out.rank < 0)
        return infer_out_unknown(cx, n, 0, infer_dtype(n, 0));
    const struct attr *axes = node_attr(n, "axes");
    const bool by_size = infer_has(n, 3);
    const int from = by_size ? 3 : 2;
    const int count = axes ? (int)axes->len : out.rank;
    if (!infer_has(n, from))
        return node_error(cx, n, D_ARITY, "neither scales (input 2) nor sizes (input 3) are given");
    if (is_given(cx, n, 2) && is_given(cx, n, 3))
        return node_error(cx, n, D_ARITY, "both scales (input 2) and sizes (input 3) are given, expected one of them");
    const int64_t len = infer_len(cx, n, from);
    if (count > out.rank || (len >= 0 && len != count))
        return node_error(cx, n, D_SHAPE_MISMATCH, "input %d has %lld elements, expected %d", from, (long long)len,
                          count);
    /* Sizes are exact only if the aspect ratio may change. */
    const bool exact = infer_attr_is(cx, n, "keep_aspect_ratio_policy", "stretch") || !by_size;
    for (int i = 0; i < count; i++) {
        int axis;
        double scale;
        s = infer_axis(cx, n, "axis", axes ? axes->v.ints[i] : i, out.rank, &axis);
        if (s != NPUC_OK)
            return s;
        expr d = EXPR_INVALID;
        if (by_size && exact)
            d = value_elem(cx, n->in[3].value, i);
        else if (!by_size && value_const_f64(n->in[2].value, i, &scale)) {
            s = check_scale(cx, n, axis, scale);
            d = s == NPUC_OK ? scaled(cx, out.d[axis], scale) : d;
        }
        if (s != NPUC_OK)
            return s;
        out.d[axis] = d ? d : infer_fresh(cx, n, 0, axis);
    }
    return infer_out(cx, n, 0, infer_dtype(n, 0), &out);
}

#include "ir/ops/rows.h"

#include "ir/ops/window.def"
