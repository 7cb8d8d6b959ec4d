/* QLinear operators of com.microsoft: to float32, the operator, and back (round half to even, saturating). */
#include <string.h>

#include "frontend/expand.h"

/* Operand i of 8-bit values with scale i + 1 and zero point i + 2, as float32. */
static struct value *opened(struct import *im, struct onode *n, int i)
{
    return x_dequantize(&n->b, onode_in(n, i), onode_scalar(im, n, i + 1), onode_scalar(im, n, i + 2), 0);
}

/* y with scale input i and zero point input i + 1; of the type of input `like` where there is no zero point. */
static enum npuc_status closed(struct import *im, struct onode *n, struct value *y, int i, int like)
{
    struct value *scale = onode_scalar(im, n, i), *zero = onode_scalar(im, n, i + 1);
    return onode_done(im, n, x_quantize(&n->b, y, scale, zero, n->in[like]->type->dtype));
}

static enum npuc_status pairs(struct import *im, struct onode *n, enum op op)
{
    static const int required[] = {0, 1, 3, 4, 6};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(required); i++)
        if (!onode_in(n, required[i]))
            return onode_fail(im, n, D_ARITY, "required input %d is missing", required[i]);
    return closed(im, n, x_op2(&n->b, op, opened(im, n, 0), opened(im, n, 3)), 6, 0);
}

enum npuc_status rule_qlinear_add(struct import *im, struct onode *n)
{
    return pairs(im, n, OP_Add);
}

enum npuc_status rule_qlinear_mul(struct import *im, struct onode *n)
{
    return pairs(im, n, OP_Mul);
}

/* Operators of one operand: X, scale, zero, y scale, y zero. */
static enum npuc_status unary_begin(struct import *im, struct onode *n, struct value **x)
{
    if (!onode_in(n, 0) || !onode_in(n, 1) || !onode_in(n, 3))
        return onode_fail(im, n, D_ARITY, "inputs 0, 1 and 3 (values, their scale and the result's) are required");
    const enum npuc_status s = onode_rank(im, n, 0, 0, IR_MAX_RANK);
    *x = s == NPUC_OK ? opened(im, n, 0) : NULL;
    return s;
}

enum npuc_status rule_qlinear_sigmoid(struct import *im, struct onode *n)
{
    struct value *x;
    const enum npuc_status s = unary_begin(im, n, &x);
    return s == NPUC_OK ? closed(im, n, x_op1(&n->b, OP_Sigmoid, x), 3, 0) : s;
}

enum npuc_status rule_qlinear_leaky_relu(struct import *im, struct onode *n)
{
    struct value *x;
    const enum npuc_status s = unary_begin(im, n, &x);
    const float alpha[3] = {onode_float(im, n, "alpha", 0.01f)};
    return s == NPUC_OK ? closed(im, n, x_activation(im, n, "LeakyRelu", alpha, x), 3, 0) : s;
}

/* The attribute `opset` says which meaning of axis: from 13 on one dim, before it all dims from it on. */
enum npuc_status rule_qlinear_softmax(struct import *im, struct onode *n)
{
    struct value *x;
    enum npuc_status s = unary_begin(im, n, &x);
    if (s != NPUC_OK || !x)
        return s == NPUC_OK ? onode_done(im, n, NULL) : s;
    const bool flat = onode_int(im, n, "opset", 13) < 13;
    const struct type *t = x->type;
    int64_t axis = onode_int(im, n, "axis", flat ? 1 : -1);
    axis += axis < 0 ? t->rank : 0;
    if (axis < 0 || axis >= t->rank)
        return onode_bad_attr(im, n, "axis", "it is out of range for %d dims", t->rank);
    if (flat && axis != t->rank - 1) {
        expr dims[2] = {x_num(&n->b, 1), x_num(&n->b, 1)};
        for (int i = 0; i < t->rank; i++)
            dims[i >= axis] = expr_mul(&im->cx->exprs, dims[i >= axis], t->dims[i]);
        x = x_reshape(&n->b, x_softmax(&n->b, x_reshape(&n->b, x, 2, dims), 1), t->rank, t->dims);
    } else {
        x = x_softmax(&n->b, x, (int)axis);
    }
    return closed(im, n, x, 3, 0);
}

enum npuc_status rule_qlinear_reduce_mean(struct import *im, struct onode *n)
{
    struct value *x;
    const enum npuc_status s = unary_begin(im, n, &x);
    if (s != NPUC_OK)
        return s;
    struct value *in[2] = {x, onode_ints_input(im, n, "axes")};
    struct node *mean = x_node(&n->b, OP_ReduceMean, 1, 2, in, 1);
    if (mean)
        ir_set_int(mean, "keepdims", onode_int(im, n, "keepdims", 1));
    return closed(im, n, x_out(mean), 3, 0);
}

/* x through the operator `core` with the node's attributes. */
static enum npuc_status through(struct import *im, struct onode *n, const char *core, struct value *x, struct value **y)
{
    struct value **in = n->in;
    struct value *one[4] = {x};
    const int count = n->n_in;
    n->in = one;
    n->n_in = 1;
    const enum npuc_status s = onode_emit(im, n, core, y);
    n->in = in;
    n->n_in = count;
    return s;
}

static enum npuc_status pooled(struct import *im, struct onode *n, const char *core)
{
    struct value *x, *y = NULL;
    enum npuc_status s = unary_begin(im, n, &x);
    const bool last = onode_int(im, n, "channels_last", 0) != 0;
    onode_drop(im, n, "channels_last");
    if (s == NPUC_OK)
        s = onode_rank(im, n, 0, 3, 5);
    if (s != NPUC_OK || !x)
        return s == NPUC_OK ? onode_done(im, n, NULL) : s;
    s = through(im, n, core, last ? x_channels(&n->b, x, false) : x, &y);
    return s == NPUC_OK ? closed(im, n, last ? x_channels(&n->b, y, true) : y, 3, 0) : s;
}

enum npuc_status rule_qlinear_average_pool(struct import *im, struct onode *n)
{
    return pooled(im, n, "AveragePool");
}

enum npuc_status rule_qlinear_global_average_pool(struct import *im, struct onode *n)
{
    return pooled(im, n, "GlobalAveragePool");
}

/* y scale, y zero, then (values, scale, zero) of each part. */
enum npuc_status rule_qlinear_concat(struct import *im, struct onode *n)
{
    enum npuc_status s = onode_needs(im, n, n->n_in > 2 ? n->n_in : 3);
    if (s == NPUC_OK && (n->n_in - 2) % 3)
        s = onode_fail(im, n, D_ARITY, "has %d inputs, expected 2 and 3 for each part", n->n_in);
    if (s != NPUC_OK)
        return s;
    const int parts = (n->n_in - 2) / 3;
    struct value **part = ARENA_ARRAY(&im->tmp, struct value *, parts);
    for (int i = 0; i < parts; i++)
        part[i] = opened(im, n, 2 + 3 * i);
    struct value *y = x_concat(&n->b, (int)onode_int(im, n, "axis", 0), parts, part);
    return closed(im, n, y, 0, 2);
}

/* condition, then x, its scale and zero, y, its scale and zero, z's scale and zero. */
enum npuc_status rule_qlinear_where(struct import *im, struct onode *n)
{
    const enum npuc_status s = onode_needs(im, n, 9);
    if (s != NPUC_OK)
        return s;
    return closed(im, n, x_op3(&n->b, OP_Where, n->in[0], opened(im, n, 1), opened(im, n, 4)), 7, 1);
}

/* As in ai.onnx; channels_last puts the channels of x and y last, the weights stay as they are. */
enum npuc_status rule_ms_qlinear_conv(struct import *im, struct onode *n)
{
    enum npuc_status s = onode_needs(im, n, 8);
    if (s == NPUC_OK)
        s = onode_rank(im, n, 0, 3, 5);
    if (s != NPUC_OK)
        return s;
    const bool last = onode_int(im, n, "channels_last", 0) != 0;
    struct value *y = NULL;
    onode_drop(im, n, "channels_last");
    if (last)
        n->in[0] = x_channels(&n->b, n->in[0], false);
    s = n->in[0] ? onode_emit(im, n, "QLinearConv", &y) : NPUC_E_INTERNAL;
    return s == NPUC_OK ? onode_done(im, n, last ? x_channels(&n->b, y, true) : y) : s;
}

/* A, scale, zero, B, scale, zero, C int32, y scale, y zero: the sum in int32, then one product by the scales. */
enum npuc_status rule_qgemm(struct import *im, struct onode *n)
{
    struct builder *b = &n->b;
    enum npuc_status s = onode_rank(im, n, 0, 2, 2);
    if (s == NPUC_OK)
        s = onode_rank(im, n, 3, 2, 2);
    if (s == NPUC_OK && (!onode_in(n, 0) || !onode_in(n, 1) || !onode_in(n, 3) || !onode_in(n, 4)))
        s = onode_fail(im, n, D_ARITY, "inputs 0, 1, 3 and 4 (matrices and their scales) are required");
    if (s != NPUC_OK)
        return s;
    struct value *in[4] = {onode_int(im, n, "transA", 0) ? x_swap(b, n->in[0]) : n->in[0],
                           onode_int(im, n, "transB", 0) ? x_swap(b, n->in[3]) : n->in[3], onode_scalar(im, n, 2),
                           onode_scalar(im, n, 5)};
    struct value *sum = x_out(x_node(b, OP_MatMulInteger, 2, 4, in, 1));
    sum = x_cast(b, x_add_opt(b, sum, onode_in(n, 6), onode_in(n, 6) != NULL), DT_F32);
    struct value *scale = x_op2(b, OP_Mul, onode_scalar(im, n, 1), onode_scalar(im, n, 4));
    const float alpha = onode_float(im, n, "alpha", 1.0f);
    scale = alpha == 1.0f ? scale : x_scaled(b, scale, (double)alpha);
    if (!onode_in(n, 7))
        return onode_done(im, n, x_op2(b, OP_Mul, sum, scale));
    struct value *ratio = x_op2(b, OP_Div, scale, onode_scalar(im, n, 7)), *zero = onode_scalar(im, n, 8);
    struct value *y = x_op2(b, OP_Mul, sum, ratio);
    return onode_done(im, n, x_quantize(b, y, ir_scalar_f32(b, 1.0f), zero, n->in[0]->type->dtype));
}
