/* Convolutions with activations, and operators whose channels are last, of com.microsoft and com.ms.internal.nhwc. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "frontend/expand.h"

/* Activation and its numbers in the list `activation_params`. */
static const char *take_activation(struct import *im, struct onode *n, float params[3])
{
    const struct oattr *list = onode_attr(im, n, "activation_params");
    for (int i = 0; i < 3; i++)
        params[i] = list && list->a.kind == ATTR_FLOATS && i < list->a.len ? list->a.v.floats[i] : NAN;
    const char *name = onode_str(im, n, "activation", "");
    onode_drop(im, n, "activation");
    onode_drop(im, n, "activation_params");
    return name;
}

/* act(conv(x, w, bias) + z): input 3 is z; with `last` the channels of x, z and the result are last. */
static enum npuc_status fused_conv(struct import *im, struct onode *n, bool last)
{
    float params[3];
    struct value *z = onode_in(n, 3), *y = NULL;
    enum npuc_status s = onode_needs(im, n, 2);
    if (s == NPUC_OK)
        s = onode_rank(im, n, 0, 3, 5);
    if (s != NPUC_OK)
        return s;
    const char *name = take_activation(im, n, params);
    if (last)
        onode_set_in(im, n, 0, x_channels(&n->b, n->in[0], false));
    n->n_in = n->n_in > 3 ? 3 : n->n_in;
    s = n->in[0] ? onode_emit(im, n, "Conv", &y) : NPUC_E_INTERNAL;
    if (s != NPUC_OK)
        return s;
    y = last ? x_channels(&n->b, y, true) : y;
    y = x_add_opt(&n->b, y, z, z != NULL);
    return onode_done(im, n, x_activation(im, n, name, params, y));
}

enum npuc_status rule_fused_conv(struct import *im, struct onode *n)
{
    return fused_conv(im, n, false);
}

enum npuc_status rule_nhwc_conv(struct import *im, struct onode *n)
{
    return fused_conv(im, n, true);
}

/* An operator of ai.onnx of the same version and name whose first input and result have their channels last. */
enum npuc_status rule_nhwc(struct import *im, struct onode *n)
{
    float params[3];
    enum npuc_status s = onode_needs(im, n, 1);
    if (s == NPUC_OK)
        s = onode_rank(im, n, 0, 3, 5);
    if (s != NPUC_OK)
        return s;
    const char *name = take_activation(im, n, params);
    const sym out = n->out[0];
    struct node *node;
    n->domain = 0;
    onode_set_in(im, n, 0, x_channels(&n->b, n->in[0], false));
    s = n->in[0] ? opset_apply(im, n) : NPUC_E_INTERNAL;
    if (s != NPUC_OK)
        return s;
    if (n->done)
        return onode_fail(im, n, D_UNSUPPORTED, "this form of the operator with channels last is not supported");
    s = onode_build(im, n, &node);
    if (s == NPUC_OK && op_table[node->op]->legal)
        s = op_table[node->op]->legal(im->cx, node);
    if (s == NPUC_OK)
        s = ir_infer(node);
    if (s != NPUC_OK)
        return s;
    for (int i = 1; i < n->n_out; i++)
        if (n->out[i])
            return onode_no_output(im, n, i);
    n->out[0] = out;
    struct value *y = x_activation(im, n, name, params, &node->out[0]);
    return onode_done(im, n, x_channels(&n->b, y, true));
}

/* ---- group normalisation: X, gamma, beta, (skip, bias) -> Y, sum */

/* The channels of v, which has one dim or is [N, C], at the place that `last` says, with ones between. */
static struct value *as_channels(struct builder *b, struct value *v, int rank, bool last)
{
    int64_t axes[IR_MAX_RANK];
    if (!v || v->type->rank < 1 || v->type->rank > 2)
        return v;
    const int lead = v->type->rank - 1, fill = rank - v->type->rank;
    int count = 0;
    for (int i = 0; i < rank; i++) {
        const bool is_batch = lead == 1 && i == 0, is_channel = i == (last ? rank - 1 : 1);
        if (!is_batch && !is_channel)
            axes[count++] = i;
    }
    return count == fill ? x_unsqueeze(b, v, count, axes) : NULL;
}

enum npuc_status rule_ms_group_norm(struct import *im, struct onode *n)
{
    struct builder *b = &n->b;
    int64_t groups, activation;
    enum npuc_status s = onode_needs(im, n, 3);
    if (s == NPUC_OK)
        s = onode_rank(im, n, 0, 3, 5);
    for (int i = 3; i <= 4 && s == NPUC_OK; i++)
        s = onode_rank(im, n, i, 1, 5);
    if (s == NPUC_OK)
        s = onode_int_in(im, n, "groups", 0, 1, INT32_MAX, &groups);
    if (s == NPUC_OK)
        s = onode_int_in(im, n, "activation", 0, 0, 1, &activation);
    if (s != NPUC_OK)
        return s;
    const bool last = onode_int(im, n, "channels_last", 1) != 0;
    struct value *x = n->in[0], *skip = onode_in(n, 3), *bias = onode_in(n, 4);
    const int rank = x->type->rank;
    const enum dtype t = x->type->dtype;
    x = x_add_opt(b, x, as_channels(b, skip, rank, last), skip != NULL);
    x = x_add_opt(b, x, as_channels(b, bias, rank, last), bias != NULL);
    if (x && onode_wants(n, 1))
        onode_bind(im, n, 1, x);
    x = x_cast(b, last ? x_channels(b, x, false) : x, DT_F32);
    struct value *in[3] = {x, x_cast(b, n->in[1], DT_F32), x_cast(b, n->in[2], DT_F32)};
    struct node *norm = x_node(b, OP_GroupNormalization, 3, 3, in, 1);
    if (!norm)
        return onode_done(im, n, NULL);
    ir_set_int(norm, "num_groups", groups);
    ir_set_float(norm, "epsilon", onode_float(im, n, "epsilon", 1e-5f));
    struct value *y = x_out(norm);
    y = activation ? x_op1(b, OP_Swish, y) : y;
    return onode_done(im, n, x_cast(b, last ? x_channels(b, y, true) : y, t));
}

/* ---- small fusions of diffusion and transformer models */

enum npuc_status rule_bias_split_gelu(struct import *im, struct onode *n)
{
    struct builder *b = &n->b;
    enum npuc_status s = onode_needs(im, n, 2);
    if (s == NPUC_OK)
        s = onode_rank(im, n, 0, 1, IR_MAX_RANK);
    struct value *x = s == NPUC_OK ? x_op2(b, OP_Add, n->in[0], n->in[1]) : NULL;
    if (!x)
        return s == NPUC_OK ? onode_done(im, n, NULL) : s;
    const int axis = x->type->rank - 1;
    const expr width = x_dim(x, axis), half = expr_floordiv(&im->cx->exprs, width, x_num(b, 2));
    struct value *left = x_slice(b, x, axis, x_num(b, 0), half), *right = x_slice(b, x, axis, half, width);
    return onode_done(im, n, x_op2(b, OP_Mul, left, x_op1(b, OP_Gelu, right)));
}

enum npuc_status rule_bias_add(struct import *im, struct onode *n)
{
    const enum npuc_status s = onode_needs(im, n, 3);
    if (s != NPUC_OK)
        return s;
    return onode_done(im, n, x_op2(&n->b, OP_Add, x_op2(&n->b, OP_Add, n->in[0], n->in[1]), n->in[2]));
}

/* X + Y * gate; with gate_weight the gate is sigmoid(gate . gate_weight), of float32 rounded after each step. */
enum npuc_status rule_gated_add(struct import *im, struct onode *n)
{
    struct builder *b = &n->b;
    const enum npuc_status s = onode_needs(im, n, 3);
    if (s != NPUC_OK)
        return s;
    struct value *gate = n->in[2], *weight = onode_in(n, 3);
    if (weight)
        gate = x_op1(b, OP_Sigmoid, x_product(b, gate, weight, false));
    return onode_done(im, n, x_op2(b, OP_Add, n->in[0], x_op2(b, OP_Mul, n->in[1], gate)));
}

/* data + bias, softmax over the dims from axis on. is_inner_broadcast: the bias has the dims before `axis` of which the
 * last are repeated, and those behind: [d0.., 1.., d_axis..]; else it lacks the first ones, as in numpy. */
enum npuc_status rule_bias_softmax(struct import *im, struct onode *n)
{
    struct builder *b = &n->b;
    enum npuc_status s = onode_needs(im, n, 2);
    for (int i = 0; i < 2 && s == NPUC_OK; i++)
        s = onode_rank(im, n, i, 1, IR_MAX_RANK);
    if (s != NPUC_OK)
        return s;
    struct value *x = n->in[0];
    const int rank = x->type->rank;
    int64_t axis = onode_int(im, n, "axis", 1);
    axis += axis < 0 ? rank : 0;
    if (axis < 0 || axis >= rank)
        return onode_bad_attr(im, n, "axis", "it is out of range for %d dims", rank);
    expr flat[2] = {x_num(b, 1), x_num(b, 1)};
    const expr *dims = x->type->dims;
    for (int i = 0; i < rank; i++)
        flat[i >= axis] = expr_mul(&im->cx->exprs, flat[i >= axis], dims[i]);
    x = x_op2(b, OP_Add, x, n->in[1]);
    if (axis == rank - 1)
        return onode_done(im, n, x_softmax(b, x, rank - 1));
    return onode_done(im, n, x_reshape(b, x_softmax(b, x_reshape(b, x, 2, flat), 1), rank, dims));
}

/* Without training nothing is dropped: data + bias (+ residual); the mask is all true. */
enum npuc_status rule_bias_dropout(struct import *im, struct onode *n)
{
    struct builder *b = &n->b;
    const enum npuc_status s = onode_needs(im, n, 2);
    if (s != NPUC_OK)
        return s;
    struct value *x = x_op2(b, OP_Add, n->in[0], n->in[1]), *in[3] = {x, onode_in(n, 3), onode_in(n, 4)};
    struct node *drop = x_node(b, OP_Dropout, 1, 3, in, onode_wants(n, 1) ? 2 : 1);
    struct value *y = x_out(drop);
    if (y && onode_wants(n, 1))
        onode_bind(im, n, 1, &drop->out[1]);
    return onode_done(im, n, x_add_opt(b, y, onode_in(n, 2), onode_in(n, 2) != NULL));
}

/* ---- complex numbers as pairs, and the Fourier transform of short, known lengths */

static enum npuc_status complex_product(struct import *im, struct onode *n, bool conjugate)
{
    struct builder *b = &n->b;
    struct value *re[2], *at[2], *part[2];
    enum npuc_status s = onode_needs(im, n, 2);
    for (int i = 0; i < 2 && s == NPUC_OK; i++)
        s = onode_rank(im, n, i, 1, IR_MAX_RANK);
    if (s != NPUC_OK)
        return s;
    for (int i = 0; i < 2; i++) {
        const int axis = n->in[i]->type->rank - 1;
        re[i] = x_slice(b, n->in[i], axis, x_num(b, 0), x_num(b, 1));
        at[i] = x_slice(b, n->in[i], axis, x_num(b, 1), x_num(b, 2));
    }
    struct value *rr = x_op2(b, OP_Mul, re[0], re[1]), *ii = x_op2(b, OP_Mul, at[0], at[1]);
    struct value *ir = x_op2(b, OP_Mul, at[0], re[1]), *ri = x_op2(b, OP_Mul, re[0], at[1]);
    part[0] = x_op2(b, conjugate ? OP_Add : OP_Sub, rr, ii);
    part[1] = x_op2(b, conjugate ? OP_Sub : OP_Add, ir, ri);
    return onode_done(im, n, part[0] && part[1] ? x_concat(b, part[0]->type->rank - 1, 2, part) : NULL);
}

enum npuc_status rule_complex_mul(struct import *im, struct onode *n)
{
    return complex_product(im, n, false);
}

enum npuc_status rule_complex_mul_conj(struct import *im, struct onode *n)
{
    return complex_product(im, n, true);
}

enum { FOURIER_MAX = 4096 }; /* the matrix has this many rows at most */

/* cos or sin of 2 pi i j / n as float32 [rows, cols]; i j is reduced modulo n first, so that the angle is exact. */
static struct value *waves(struct builder *b, enum op op, int64_t n, int64_t rows, int64_t cols)
{
    const int64_t column[] = {1};
    struct value *i = x_unsqueeze(b, x_range(b, x_num(b, rows)), 1, column), *j = x_range(b, x_num(b, cols));
    struct value *turn = x_op2(b, OP_Mod, x_op2(b, OP_Mul, i, j), x_int(b, n));
    const double step = 6.283185307179586476925 / (double)n;
    return x_cast(b, x_op1(b, op, x_scaled(b, x_cast(b, turn, DT_F64), step)), DT_F32);
}

static enum npuc_status fourier_size(struct import *im, struct onode *n, int axis, int64_t *size)
{
    enum npuc_status s = onode_needs(im, n, 1);
    if (s == NPUC_OK)
        s = onode_rank(im, n, 0, axis, IR_MAX_RANK - 1);
    if (s == NPUC_OK && (onode_int(im, n, "signal_ndim", 1) != 1 || onode_int(im, n, "onesided", 1) != 1 ||
                         onode_int(im, n, "normalized", 0) != 0))
        s = onode_fail(im, n, D_UNSUPPORTED, "expected signal_ndim 1, onesided 1 and normalized 0");
    if (s == NPUC_OK &&
        (!expr_is_const(&im->cx->exprs, x_dim(n->in[0], -axis), size) || *size < 1 || *size > FOURIER_MAX))
        s = onode_fail(im, n, D_UNSUPPORTED, "the length of the transform is %s, expected a constant of at most %d",
                       type_text(im->cx, n->in[0]->type), FOURIER_MAX);
    return s;
}

/* [.., n] to [.., n/2 + 1, 2]: products with the cosines and the negative sines. */
enum npuc_status rule_rfft(struct import *im, struct onode *n)
{
    struct builder *b = &n->b;
    int64_t size;
    const enum npuc_status s = fourier_size(im, n, 1, &size);
    if (s != NPUC_OK)
        return s;
    struct value *x = n->in[0];
    const int64_t bins = size / 2 + 1, axis[] = {x->type->rank};
    struct value *re = x_product(b, x, waves(b, OP_Cos, size, size, bins), false);
    struct value *at = x_product(b, x, x_op1(b, OP_Neg, waves(b, OP_Sin, size, size, bins)), false);
    struct value *in[2] = {x_unsqueeze(b, re, 1, axis), x_unsqueeze(b, at, 1, axis)};
    return onode_done(im, n, x_concat(b, (int)axis[0], 2, in));
}

/* [.., m, 2] to [.., n] with n = 2 (m - 1): bins but the first and last count twice, for the half that is not given. */
enum npuc_status rule_irfft(struct import *im, struct onode *n)
{
    struct builder *b = &n->b;
    int64_t bins;
    enum npuc_status s = fourier_size(im, n, 2, &bins);
    if (s == NPUC_OK && bins < 2)
        s = onode_fail(im, n, D_UNSUPPORTED, "a transform of one bin is not supported");
    if (s != NPUC_OK)
        return s;
    const int64_t size = 2 * (bins - 1), column[] = {1};
    const int axis = n->in[0]->type->rank - 1;
    struct value *bin = x_range(b, x_num(b, bins)), *edge = x_op2(b, OP_Mod, bin, x_int(b, bins - 1));
    struct value *inner = x_cast(b, x_op2(b, OP_Greater, edge, x_int(b, 0)), DT_F32);
    struct value *weight = x_unsqueeze(b, x_scaled(b, x_plus(b, inner, 1.0), 1.0 / (double)size), 1, column);
    struct value *re = x_element(b, n->in[0], axis, 0), *at = x_element(b, n->in[0], axis, 1);
    re = x_product(b, re, x_op2(b, OP_Mul, waves(b, OP_Cos, size, bins, size), weight), false);
    at = x_product(b, at, x_op2(b, OP_Mul, waves(b, OP_Sin, size, bins, size), weight), false);
    return onode_done(im, n, x_op2(b, OP_Sub, re, at));
}
