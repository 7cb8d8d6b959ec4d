#include "frontend/expand.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum npuc_status onode_rank(struct import *im, struct onode *n, int i, int lo, int hi)
{
    const struct value *v = onode_in(n, i);
    if (!v)
        return NPUC_OK;
    const struct type *t = v->type;
    if (t->kind == TYPE_TENSOR && t->rank >= lo && t->rank <= hi)
        return NPUC_OK;
    return onode_fail(im, n, t->kind == TYPE_TENSOR && t->rank < 0 ? D_UNSUPPORTED : D_SHAPE_MISMATCH,
                      lo == hi ? "input %d is %s, expected %d dims" : "input %d is %s, expected %d to %d dims", i,
                      type_text(im->cx, t), lo, hi);
}

enum npuc_status onode_int_in(struct import *im, struct onode *n, const char *name, int64_t otherwise, int64_t lo,
                              int64_t hi, int64_t *out)
{
    *out = onode_int(im, n, name, otherwise);
    if (*out >= lo && *out <= hi)
        return NPUC_OK;
    return onode_bad_attr(im, n, name, "it is %" PRId64 ", expected %" PRId64 " to %" PRId64, *out, lo, hi);
}

enum npuc_status onode_emit(struct import *im, struct onode *n, const char *op, struct value **out)
{
    struct node *node;
    onode_rename(im, n, op);
    enum npuc_status s = onode_build(im, n, &node);
    if (s != NPUC_OK)
        return s;
    const struct op_def *d = op_table[node->op];
    s = d->legal ? d->legal(im->cx, node) : NPUC_OK;
    if (s == NPUC_OK)
        s = ir_infer(node);
    *out = s == NPUC_OK ? &node->out[0] : NULL;
    return s;
}

struct value *onode_scalar(struct import *im, struct onode *n, int i)
{
    struct value *v = onode_in(n, i);
    if (!v || v->type->kind != TYPE_TENSOR || v->type->rank < 1 || type_const_count(im->cx, v->type) != 1)
        return v;
    return ir_reshape(&n->b, v, 0, NULL);
}

expr x_num(struct builder *b, int64_t v)
{
    return expr_const(&b->cx->exprs, v);
}

struct value *x_op1(struct builder *b, enum op op, struct value *x)
{
    return x ? ir_op1(b, op, x) : NULL;
}

struct value *x_op2(struct builder *b, enum op op, struct value *x, struct value *y)
{
    return x && y ? ir_op2(b, op, x, y) : NULL;
}

struct value *x_op3(struct builder *b, enum op op, struct value *x, struct value *y, struct value *z)
{
    return x && y && z ? ir_op3(b, op, x, y, z) : NULL;
}

struct node *x_node(struct builder *b, enum op op, int need, int n_in, struct value *const *in, int n_out)
{
    for (int i = 0; i < need; i++)
        if (!in[i])
            return NULL;
    while (n_in > need && !in[n_in - 1])
        n_in--;
    return ir_new(b, op, n_in, in, n_out);
}

struct value *x_out(struct node *n)
{
    if (!n)
        return NULL;
    const struct op_def *d = op_table[n->op];
    const enum npuc_status s = d->legal ? d->legal(n->graph->module->cx, n) : NPUC_OK;
    return s == NPUC_OK && ir_infer(n) == NPUC_OK ? &n->out[0] : NULL;
}

struct value *x_add_opt(struct builder *b, struct value *x, struct value *y, bool given)
{
    return given ? x_op2(b, OP_Add, x, y) : x;
}

struct value *x_scaled(struct builder *b, struct value *x, double factor)
{
    return x ? ir_op2(b, OP_Mul, x, ir_scalar_like(b, x, factor)) : NULL;
}

struct value *x_plus(struct builder *b, struct value *x, double term)
{
    return x ? ir_op2(b, OP_Add, x, ir_scalar_like(b, x, term)) : NULL;
}

struct value *x_cast(struct builder *b, struct value *x, enum dtype t)
{
    return x ? ir_cast(b, x, t) : NULL;
}

struct value *x_int(struct builder *b, int64_t v)
{
    return ir_const(b, DT_I64, 0, NULL, &v, (int64_t)sizeof v);
}

struct value *x_size(struct builder *b, expr n)
{
    return ir_sizes(b, &n, 1, true);
}

struct value *x_range(struct builder *b, expr n)
{
    return x_op3(b, OP_Range, x_int(b, 0), x_size(b, n), x_int(b, 1));
}

struct value *x_expand(struct builder *b, struct value *x, int rank, const expr *dims)
{
    return x ? ir_op2(b, OP_Expand, x, ir_sizes(b, dims, rank, false)) : NULL;
}

struct value *x_zeros(struct builder *b, enum dtype t, int rank, const expr *dims)
{
    return x_expand(b, ir_cast(b, ir_scalar_f32(b, 0.0f), t), rank, dims);
}

struct value *x_reshape(struct builder *b, struct value *x, int rank, const expr *dims)
{
    return x ? ir_reshape(b, x, rank, dims) : NULL;
}

struct value *x_flat(struct builder *b, struct value *x)
{
    if (!x)
        return NULL;
    expr n = x_num(b, 1);
    for (int i = 0; i < x->type->rank; i++)
        n = expr_mul(&b->cx->exprs, n, x->type->dims[i]);
    return ir_reshape(b, x, 1, &n);
}

struct value *x_transpose(struct builder *b, struct value *x, const int64_t *perm)
{
    return x ? ir_transpose(b, x, perm) : NULL;
}

struct value *x_swap(struct builder *b, struct value *x)
{
    int64_t perm[IR_MAX_RANK];
    if (!x || x->type->rank < 2)
        return x;
    const int rank = x->type->rank;
    for (int i = 0; i < rank; i++)
        perm[i] = i;
    perm[rank - 1] = rank - 2;
    perm[rank - 2] = rank - 1;
    return ir_transpose(b, x, perm);
}

struct value *x_channels(struct builder *b, struct value *x, bool to_last)
{
    int64_t perm[IR_MAX_RANK] = {0};
    if (!x || x->type->rank < 3)
        return x;
    const int rank = x->type->rank;
    for (int i = 1; i < rank; i++)
        perm[i] = to_last ? (i == rank - 1 ? 1 : i + 1) : i == 1 ? rank - 1 : i - 1;
    return ir_transpose(b, x, perm);
}

struct value *x_unsqueeze(struct builder *b, struct value *x, int n, const int64_t *axes)
{
    return x_op2(b, OP_Unsqueeze, x, ir_const_i64(b, axes, n));
}

struct value *x_squeeze(struct builder *b, struct value *x, int axis)
{
    const int64_t at = axis;
    return x_op2(b, OP_Squeeze, x, ir_const_i64(b, &at, 1));
}

struct value *x_slice(struct builder *b, struct value *x, int axis, expr from, expr to)
{
    const int64_t at = axis;
    struct value *in[4] = {x, ir_sizes(b, &from, 1, false), ir_sizes(b, &to, 1, false), ir_const_i64(b, &at, 1)};
    return x_out(x_node(b, OP_Slice, 4, 4, in, 1));
}

struct value *x_every(struct builder *b, struct value *x, int axis, int64_t from, int64_t step)
{
    const int64_t at = axis, to = INT64_MAX;
    struct value *in[5] = {x, ir_const_i64(b, &from, 1), ir_const_i64(b, &to, 1), ir_const_i64(b, &at, 1),
                           ir_const_i64(b, &step, 1)};
    return x_out(x_node(b, OP_Slice, 5, 5, in, 1));
}

struct value *x_element(struct builder *b, struct value *x, int axis, int64_t at)
{
    return x_squeeze(b, x_slice(b, x, axis, x_num(b, at), x_num(b, at + 1)), axis);
}

struct value *x_concat(struct builder *b, int axis, int n, struct value *const *in)
{
    struct node *node = x_node(b, OP_Concat, n, n, in, 1);
    if (node)
        ir_set_int(node, "axis", axis);
    return x_out(node);
}

struct value *x_gather(struct builder *b, struct value *x, struct value *indices, int axis)
{
    struct node *node = x_node(b, OP_Gather, 2, 2, (struct value *[]){x, indices}, 1);
    if (node)
        ir_set_int(node, "axis", axis);
    return x_out(node);
}

struct value *x_reduce(struct builder *b, enum op op, struct value *x, int axis, bool keep)
{
    const int64_t at = axis;
    struct node *node = x_node(b, op, 1, 2, (struct value *[]){x, ir_const_i64(b, &at, 1)}, 1);
    if (node)
        ir_set_int(node, "keepdims", keep);
    return x_out(node);
}

struct value *x_softmax(struct builder *b, struct value *x, int axis)
{
    struct node *node = x_node(b, OP_Softmax, 1, 1, &x, 1);
    if (node)
        ir_set_int(node, "axis", axis);
    return x_out(node);
}

struct value *x_product(struct builder *b, struct value *x, struct value *y, bool transpose_y)
{
    struct value *in[2] = {x, y};
    struct node *node = x_node(b, transpose_y ? OP_FusedMatMul : OP_MatMul, 2, 2, in, 1);
    if (node && transpose_y)
        ir_set_int(node, "transB", 1);
    return x_out(node);
}

struct value *x_norm(struct builder *b, enum op op, struct value *x, struct value *scale, struct value *shift,
                     float epsilon)
{
    struct node *node = x_node(b, op, 2, 3, (struct value *[]){x, scale, shift}, 1);
    if (!node)
        return NULL;
    ir_set_int(node, "axis", -1);
    ir_set_float(node, "epsilon", epsilon);
    return x_out(node);
}

struct value *x_dequantize(struct builder *b, struct value *x, struct value *scale, struct value *zero, int axis)
{
    struct node *node = x_node(b, OP_DequantizeLinear, 2, 3, (struct value *[]){x, scale, zero}, 1);
    if (node)
        ir_set_int(node, "axis", axis);
    return x_out(node);
}

struct value *x_quantize(struct builder *b, struct value *x, struct value *scale, struct value *zero, enum dtype type)
{
    struct node *node = x_node(b, OP_QuantizeLinear, 2, 3, (struct value *[]){x, scale, zero}, 1);
    if (node && !zero)
        ir_set_int(node, "output_dtype", dtype_table[type].onnx);
    return x_out(node);
}

struct value *x_integer_product(struct builder *b, struct value *x, struct value *y, struct value *x_zero,
                                struct value *y_zero)
{
    struct value *in[4] = {x, y, x_zero, y_zero};
    return x_cast(b, x_out(x_node(b, OP_MatMulInteger, 2, 4, in, 1)), DT_F32);
}

/* The offsets of the tokens, which stand before those of padding: int64 [total]. */
static struct value *token_rows(struct builder *b, struct value *offset, expr total)
{
    return x_cast(b, x_slice(b, x_flat(b, offset), 0, x_num(b, 0), total), DT_I64);
}

struct value *x_unpack(struct builder *b, struct value *tokens, struct value *offset)
{
    if (!tokens || !offset)
        return NULL;
    const int64_t column[] = {1};
    const expr *at = offset->type->dims, width = x_dim(tokens, 1);
    const expr flat[2] = {expr_mul(&b->cx->exprs, at[0], at[1]), width}, full[3] = {at[0], at[1], width};
    struct value *in[3] = {x_zeros(b, tokens->type->dtype, 2, flat),
                           x_unsqueeze(b, token_rows(b, offset, x_dim(tokens, 0)), 1, column), tokens};
    return x_reshape(b, x_out(x_node(b, OP_ScatterND, 3, 3, in, 1)), 3, full);
}

struct value *x_pack(struct builder *b, struct value *x, struct value *offset, expr total)
{
    if (!x || !offset)
        return NULL;
    const expr flat[2] = {expr_mul(&b->cx->exprs, x_dim(x, 0), x_dim(x, 1)), x_dim(x, 2)};
    return x_gather(b, x_reshape(b, x, 2, flat), token_rows(b, offset, total), 0);
}

/* Formulas that take part in fusions: parameters in the order of their attributes, and their defaults. */
static const struct {
    const char *name;
    enum op op;
    const char *attr[2];
} activations[] = {
    {"Elu", OP_Elu, {"alpha"}},       {"Gelu", OP_Gelu, {0}},
    {"FastGelu", OP_GeluTanh, {0}},   {"HardSigmoid", OP_HardSigmoid, {"alpha", "beta"}},
    {"HardSwish", OP_HardSwish, {0}}, {"LeakyRelu", OP_LeakyRelu, {"alpha"}},
    {"Relu", OP_Relu, {0}},           {"Selu", OP_Selu, {"alpha", "gamma"}},
    {"Sigmoid", OP_Sigmoid, {0}},     {"SiLU", OP_Swish, {0}},
    {"Silu", OP_Swish, {0}},          {"Swish", OP_Swish, {0}},
    {"Softplus", OP_Softplus, {0}},   {"Softsign", OP_Softsign, {0}},
    {"Tanh", OP_Tanh, {0}},           {"ThresholdedRelu", OP_ThresholdedRelu, {"alpha"}},
    {"silu", OP_Swish, {0}},          {"relu", OP_Relu, {0}},
    {"gelu", OP_Gelu, {0}},
};

struct value *x_activation(struct import *im, struct onode *n, const char *name, const float *params, struct value *x)
{
    struct builder *b = &n->b;
    if (!x || !*name || strcmp(name, "identity") == 0)
        return x;
    if (strcmp(name, "Clip") == 0)
        return ir_op3(b, OP_Clip, x, ir_scalar_like(b, x, (double)(isnan(params[0]) ? -INFINITY : params[0])),
                      ir_scalar_like(b, x, (double)(isnan(params[1]) ? INFINITY : params[1])));
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(activations); i++) {
        if (strcmp(activations[i].name, name) != 0)
            continue;
        struct node *node = ir_new(b, activations[i].op, 1, &x, 1);
        for (int k = 0; k < 2; k++)
            if (activations[i].attr[k] && !isnan(params[k]))
                ir_set_float(node, activations[i].attr[k], params[k]);
        return x_out(node);
    }
    (void)!onode_bad_attr(im, n, "activation", "'%.40s' is no activation that a fused operator may have", name);
    return NULL;
}
