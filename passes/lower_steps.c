/* Operators as the steps that their kernels take, each with the kernel's bits.
 *
 *   %y = Gemm %a, %b, %c {alpha=2, beta=3} : f32[m,n]                       (%c: of any shape that fits)
 * becomes
 *   %p = Gemm %a, %b;  %s = Mul %p, 2;  %t = Mul %c, 3;  %y = Add %s, %t
 *
 *   %y = LRN %x {size=3} : f32[n,c,h,w]
 * becomes
 *   %q = Pad (Mul %x, %x), [1, 1] {axes: 1};  %s = the sum of 3 slices of %q, channels k to k + c, ascending
 *   %y = Div %x, Pow (Add (Mul %s, alpha / 3), bias), beta
 *
 *   %y = BatchNormalization %x, %scale, %bias, %mean, %variance : f32[n,c,h,w]     (constants but %x)
 * becomes
 *   %y = Add (Mul (Sub %x, %mean), Mul (Rsqrt (Add %variance, epsilon)), %scale), %bias     (of constants [c,1,1])
 *
 * Requirements: (1) Gemm of floats of 32 bits, whose sums are not wider than its result; left alone is the one that a
 * matrix unit does at once, without factors and with what may be a row as bias; (2) LRN of floats of at most 32 bits,
 * computed in f32 as in the kernel; the channels that its zeros stand for add nothing to sums of squares; no more than
 * MAX_WINDOW channels; (3) BatchNormalization of floats of at most 32 bits in f32, as in the kernel, whose statistics
 * are given: elementwise steps join what is around them and go through any layout of maps; (4) none makes what it takes
 * apart, so it terminates. */
#include "passes/pass.h"

enum { MAX_WINDOW = 32 };

static struct value *two(struct builder *b, enum op op, struct value *x, struct value *y)
{
    return x && y ? ir_op2(b, op, x, y) : NULL;
}
static struct value *with(struct builder *b, enum op op, struct value *x, double v)
{
    return x ? ir_op2(b, op, x, ir_scalar_like(b, x, v)) : NULL;
}

/* ---- Gemm */

/* May it be one row when shapes are bound? The product then starts from it. */
static bool may_be_row(const struct expr_pool *p, const struct type *bias, const struct type *y)
{
    int64_t len, cols;
    if (bias->rank < 1)
        return false;
    const expr last = bias->dims[bias->rank - 1];
    const bool differs = expr_is_const(p, last, &len) && expr_is_const(p, y->dims[1], &cols) && len != cols;
    return !differs && (bias->rank == 1 || expr_range_of(p, bias->dims[0]).min < 2);
}

static bool takes_gemm(struct ir_ctx *cx, const struct node *n)
{
    const struct type *y = n->out[0].type;
    const struct value *bias = node_in(n, 2);
    if (y->rank != 2 || y->dtype != DT_F32 || (bias && (bias->type->rank < 0 || bias->type->dtype != DT_F32)))
        return false;
    return node_attr_float(n, "alpha", 1) != 1 ||
           (bias && (node_attr_float(n, "beta", 1) != 1 || !may_be_row(&cx->exprs, bias->type, y)));
}

static struct value *gemm(struct builder *b, struct node *n)
{
    const float alpha = node_attr_float(n, "alpha", 1), beta = node_attr_float(n, "beta", 1);
    struct node *product = ir_new(b, OP_Gemm, 2, (struct value *const[]){node_in(n, 0), node_in(n, 1)}, 1);
    ir_set_int(product, "transA", node_attr_int(n, "transA", 0));
    ir_set_int(product, "transB", node_attr_int(n, "transB", 0));
    if (ir_infer(product) != NPUC_OK)
        return NULL;
    struct value *y = &product->out[0], *bias = node_in(n, 2);
    y = alpha == 1 ? y : with(b, OP_Mul, y, (double)alpha);
    if (!bias)
        return y;
    return two(b, OP_Add, y, beta == 1 ? bias : with(b, OP_Mul, bias, (double)beta));
}

/* ---- LRN */

static bool takes_lrn(struct ir_ctx *cx, const struct node *n)
{
    const struct type *x = node_in(n, 0)->type;
    const int64_t size = node_attr_int(n, "size", 0);
    (void)cx;
    return x->rank >= 2 && dtype_is_float(x->dtype) && x->dtype != DT_F64 && size >= 1 && size <= MAX_WINDOW;
}

/* Channels from `from` on, as many as x has. */
static struct value *channels(struct builder *b, struct value *padded, const struct value *x, int64_t from)
{
    const int64_t axis = 1;
    const expr to = expr_add(&b->cx->exprs, x->type->dims[1], expr_const(&b->cx->exprs, from));
    struct value *const in[] = {padded, ir_const_i64(b, &from, 1), ir_sizes(b, &to, 1, false),
                                ir_const_i64(b, &axis, 1)};
    struct node *slice = ir_new(b, OP_Slice, 4, in, 1);
    return ir_infer(slice) == NPUC_OK ? &slice->out[0] : NULL;
}

static struct value *lrn(struct builder *b, struct node *n)
{
    const int64_t size = node_attr_int(n, "size", 1), pads[2] = {(size - 1) / 2, size - 1 - (size - 1) / 2}, axis = 1;
    struct value *x = ir_cast(b, node_in(n, 0), DT_F32), *squares = two(b, OP_Mul, x, x), *sum = NULL;
    if (!squares)
        return NULL;
    struct value *const in[] = {squares, ir_const_i64(b, pads, 2), ir_scalar_like(b, x, 0), ir_const_i64(b, &axis, 1)};
    struct node *padded = ir_new(b, OP_Pad, 4, in, 1);
    if (ir_infer(padded) != NPUC_OK)
        return NULL;
    for (int64_t k = 0; k < size; k++) {
        struct value *part = channels(b, &padded->out[0], x, k);
        sum = k == 0 ? part : two(b, OP_Add, sum, part);
        if (!sum || sum->type != x->type)
            return NULL;
    }
    sum = with(b, OP_Mul, sum, (double)(node_attr_float(n, "alpha", 1e-4F) / (float)size));
    sum = with(b, OP_Add, sum, (double)node_attr_float(n, "bias", 1));
    struct value *y = two(b, OP_Div, x, with(b, OP_Pow, sum, (double)node_attr_float(n, "beta", 0.75F)));
    return y ? ir_cast(b, y, n->out[0].type->dtype) : NULL;
}

/* ---- BatchNormalization */

enum { BN_SCALE = 1, BN_BIAS, BN_MEAN, BN_VARIANCE };

static bool takes_batch_norm(struct ir_ctx *cx, const struct node *n)
{
    const struct type *x = node_in(n, 0)->type;
    (void)cx;
    for (int i = BN_SCALE; i <= BN_VARIANCE; i++)
        if (!value_const(node_in(n, i)) || node_in(n, i)->type->rank != 1 || node_in(n, i)->type->dtype == DT_F64)
            return false;
    return x->rank >= 2 && dtype_is_float(x->dtype) && x->dtype != DT_F64 &&
           node_attr_int(n, "training_mode", 0) == 0 && (n->n_out < 2 || !node_out(n, 1)) &&
           (n->n_out < 3 || !node_out(n, 2));
}

/* Operand i, f32, along the channels of x. */
static struct value *per_channel(struct builder *b, const struct node *n, int i)
{
    const int rank = node_in(n, 0)->type->rank - 1;
    expr dims[IR_MAX_RANK];
    dims[0] = node_in(n, i)->type->dims[0];
    for (int d = 1; d < rank; d++)
        dims[d] = expr_const(&b->cx->exprs, 1);
    struct value *v = ir_cast(b, node_in(n, i), DT_F32);
    return v ? ir_reshape(b, v, rank, dims) : NULL;
}

static struct value *batch_norm(struct builder *b, struct node *n)
{
    struct value *x = ir_cast(b, node_in(n, 0), DT_F32), *variance = per_channel(b, n, BN_VARIANCE);
    struct value *sum = with(b, OP_Add, variance, (double)node_attr_float(n, "epsilon", 1e-5F));
    struct value *factor = sum ? two(b, OP_Mul, ir_op1(b, OP_Rsqrt, sum), per_channel(b, n, BN_SCALE)) : NULL;
    struct value *y = two(b, OP_Mul, two(b, OP_Sub, x, per_channel(b, n, BN_MEAN)), factor);
    y = two(b, OP_Add, y, per_channel(b, n, BN_BIAS));
    return y ? ir_cast(b, y, n->out[0].type->dtype) : NULL;
}

/* ---- */

static const struct {
    enum op op;
    bool (*takes)(struct ir_ctx *cx, const struct node *n);
    struct value *(*write)(struct builder *b, struct node *n);
} rows[] = {
    {OP_Gemm, takes_gemm, gemm},
    {OP_LRN, takes_lrn, lrn},
    {OP_BatchNormalization, takes_batch_norm, batch_norm},
};

static enum npuc_status lower(struct pass_ctx *px, struct node *n, int64_t row)
{
    struct builder b = ir_at(n);
    struct value *y = rows[row].write(&b, n);
    if (!y)
        return pass_failure(px);
    if (y->type != n->out[0].type)
        return NPUC_OK;
    ir_replace_all(&n->out[0], y);
    pass_count(px, STAT_lower_steps_lowered, 1);
    return NPUC_OK;
}

static enum npuc_status lower_graph(struct pass_ctx *px, struct graph *g)
{
    for_each_node_safe(n, g) for (int64_t i = 0; i < NPUC_ARRAY_LEN(rows); i++)
    {
        if (n->op != rows[i].op || !rows[i].takes(px->cx, n) || !ir_may_rewrite(px->cx))
            continue;
        const enum npuc_status s = lower(px, n, i);
        if (s != NPUC_OK)
            return s;
        break;
    }
    return NPUC_OK;
}

enum npuc_status lower_steps(struct pass_ctx *px, struct graph *g)
{
    return pass_each_graph(px, g, lower_graph);
}
