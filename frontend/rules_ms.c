/* com.microsoft, and the operators of onnxruntime that exporters write into ai.onnx: as core operators. */
#include <inttypes.h>
#include <string.h>

#include "frontend/expand.h"
#include "frontend/rules.h"

/* A norm over the last axis: RMSNormalization, or LayerNormalization, which has mean and inverse deviation as well. */
static struct value *last_axis_norm(struct onode *n, enum op op, struct value *const *in, int n_in, float epsilon)
{
    struct node *node = ir_new(&n->b, op, n_in, in, op == OP_LayerNormalization ? 3 : 1);
    ir_set_int(node, "axis", -1);
    ir_set_float(node, "epsilon", epsilon);
    return ir_infer(node) == NPUC_OK ? &node->out[0] : NULL;
}

/* 1 / sqrt(mean of squares over the axes from `axis` + epsilon), float. */
static struct value *inverse_rms(struct builder *b, struct value *x, int64_t axis, float epsilon)
{
    struct value *wide = x_cast(b, x, DT_F32), *mean = x_op2(b, OP_Mul, wide, wide);
    for (int64_t i = axis < 0 ? axis + x->type->rank : axis; mean && i < x->type->rank; i++)
        mean = x_reduce(b, OP_ReduceMean, mean, (int)i, true);
    return x_op1(b, OP_Reciprocal, x_op1(b, OP_Sqrt, x_plus(b, mean, (double)epsilon)));
}

enum npuc_status rule_simplified_norm(struct import *im, struct onode *n)
{
    for (int i = 2; i < n->n_out; i++)
        if (n->out[i])
            return onode_no_output(im, n, i);
    if (onode_wants(n, 1)) {
        enum npuc_status s = onode_needs(im, n, 2);
        if (s == NPUC_OK)
            s = onode_rank(im, n, 0, 1, IR_MAX_RANK);
        if (s != NPUC_OK)
            return s;
        const int rank = n->in[0]->type->rank;
        int64_t axis = onode_int(im, n, "axis", -1);
        if (axis < -rank || axis >= rank)
            return onode_bad_attr(im, n, "axis", "it is %" PRId64 " for an input of rank %d", axis, rank);
        struct value *inverse = inverse_rms(&n->b, n->in[0], axis, onode_float(im, n, "epsilon", 1e-5f));
        if (!inverse)
            return onode_done(im, n, NULL);
        onode_bind(im, n, 1, inverse);
    }
    n->n_out = n->n_out > 1 ? 1 : n->n_out;
    onode_rename(im, n, "RMSNormalization");
    return NPUC_OK;
}

/* Inputs x, skip, gamma, (beta,) bias; outputs norm, mean, deviation, sum. */
enum npuc_status rule_skip_norm(struct import *im, struct onode *n)
{
    enum npuc_status s = onode_needs(im, n, 3);
    const bool rms = strcmp(sym_text(im, n->op), "SkipSimplifiedLayerNormalization") == 0;
    if (s == NPUC_OK && (n->n_in > (rms ? 4 : 5) || n->n_out > 4))
        s = onode_fail(im, n, D_ARITY, "has %d inputs and %d outputs, expected at most %d and 4", n->n_in, n->n_out,
                       rms ? 4 : 5);
    if (s == NPUC_OK && rms && onode_wants(n, 1))
        s = onode_no_output(im, n, 1);
    if (s != NPUC_OK)
        return s;
    struct value *bias = onode_in(n, rms ? 3 : 4), *beta = rms ? NULL : onode_in(n, 3);
    struct value *sum = ir_op2(&n->b, OP_Add, n->in[0], n->in[1]);
    if (sum && bias)
        sum = ir_op2(&n->b, OP_Add, sum, bias);
    if (!sum)
        return onode_done(im, n, NULL);
    onode_bind(im, n, 3, sum);
    struct value *in[] = {sum, n->in[2], beta};
    const float epsilon = onode_float(im, n, "epsilon", 1e-12f);
    struct value *y = last_axis_norm(n, rms ? OP_RMSNormalization : OP_LayerNormalization, in, beta ? 3 : 2, epsilon);
    for (int i = 1; y && i <= 2; i++) {
        struct value *statistic = !onode_wants(n, i) ? y : rms ? inverse_rms(&n->b, sum, -1, epsilon) : y + i;
        if (!statistic)
            return onode_done(im, n, NULL);
        if (onode_wants(n, i))
            onode_bind(im, n, i, statistic);
    }
    return onode_done(im, n, y);
}

/* op(x + bias); the bias may be absent. */
static enum npuc_status biased(struct import *im, struct onode *n, enum op op)
{
    const enum npuc_status s = onode_needs(im, n, 1);
    if (s != NPUC_OK)
        return s;
    struct value *bias = onode_in(n, 1), *x = bias ? ir_op2(&n->b, OP_Add, n->in[0], bias) : n->in[0];
    return onode_done(im, n, x ? ir_op1(&n->b, op, x) : NULL);
}

enum npuc_status rule_bias_gelu(struct import *im, struct onode *n)
{
    return biased(im, n, OP_Gelu);
}

enum npuc_status rule_fast_gelu(struct import *im, struct onode *n)
{
    return biased(im, n, OP_GeluTanh);
}

enum npuc_status rule_ms_gelu(struct import *im, struct onode *n)
{
    onode_rename(im, n, "Gelu");
    return NPUC_OK;
}

enum npuc_status rule_quick_gelu(struct import *im, struct onode *n)
{
    const float alpha = onode_float(im, n, "alpha", 1.702f);
    onode_set(im, n, "alpha", (struct attr){.kind = ATTR_FLOAT, .v.f = alpha});
    onode_rename(im, n, "Swish");
    return NPUC_OK;
}

/* As in ai.onnx 21, but an absent axis there means per tensor, which the shape of the scale says as well. */
enum npuc_status rule_ms_quantize(struct import *im, struct onode *n)
{
    (void)im;
    n->domain = 0;
    return NPUC_OK;
}

/* A scale or zero point of shape [1] is one value for the whole tensor, as onnxruntime reads it. */
enum npuc_status rule_quantize(struct import *im, struct onode *n)
{
    if (onode_int(im, n, "block_size", 0) != 0)
        return NPUC_OK;
    for (int i = 1; i <= 2 && i < n->n_in; i++) {
        if (!n->in[i] || n->in[i]->type->rank != 1 || type_const_count(im->cx, n->in[i]->type) != 1)
            continue;
        n->in[i] = ir_reshape(&n->b, n->in[i], 0, NULL);
        if (!n->in[i])
            return onode_done(im, n, NULL);
    }
    return NPUC_OK;
}

/* The genai builder leaves the head size of the caches open ("kv_cache_dim"); the query's width tells it. */
enum npuc_status rule_group_query(struct import *im, struct onode *n)
{
    const struct value *q = onode_in(n, 0);
    const int64_t heads = onode_int(im, n, "num_heads", 0), kv_heads = onode_int(im, n, "kv_num_heads", 0);
    int64_t width;
    if (!q || q->type->rank != 3 || heads < 1 || kv_heads < 1 || heads > INT32_MAX || kv_heads > INT32_MAX ||
        onode_int(im, n, "kv_cache_bit_width", 0) || !expr_is_const(&im->cx->exprs, q->type->dims[2], &width))
        return NPUC_OK;
    const int64_t parts = onode_in(n, 1) ? heads : heads + 2 * kv_heads, head = width / parts;
    for (int i = 3; i <= 4; i++) {
        const struct value *past = onode_in(n, i);
        if (past && past->type->rank == 4 && head > 0 && width % parts == 0)
            type_fix_symbol(im, past->type->dims[3], head);
    }
    return NPUC_OK;
}

/* Position ids [B, S] from the offset form [1]: offset + 0, 1, ... S - 1 for every row. */
static struct value *spread_offset(struct onode *n, struct value *offset)
{
    const struct type *x = n->in[0]->type;
    const expr sizes[2] = {x->dims[0], x->dims[x->rank - 2]};
    const int64_t zero = 0, one = 1;
    struct value *start = ir_const(&n->b, DT_I64, 0, NULL, &zero, 8), *step = ir_const(&n->b, DT_I64, 0, NULL, &one, 8);
    struct value *row = ir_op3(&n->b, OP_Range, start, ir_sizes(&n->b, &sizes[1], 1, true), step);
    row = row ? ir_op2(&n->b, OP_Add, row, offset) : NULL;
    return row ? ir_op2(&n->b, OP_Expand, row, ir_sizes(&n->b, sizes, 2, false)) : NULL;
}

/* Heads of a 3-D input; 0 when the file does not say and the sizes do not tell. */
static int64_t rotary_heads(struct import *im, const struct onode *n)
{
    const int64_t heads = onode_int(im, n, "num_heads", 0);
    const struct type *x = n->in[0]->type, *cos = n->in[2]->type;
    int64_t width, half;
    if (heads || x->rank != 3 || cos->rank != 2 || !expr_is_const(&im->cx->exprs, x->dims[2], &width) ||
        !expr_is_const(&im->cx->exprs, cos->dims[1], &half))
        return heads;
    return half > 0 && width % (2 * half) == 0 ? width / (2 * half) : 0;
}

/* Inputs x, position_ids, cos, sin here; x, cos, sin, position_ids in ai.onnx. */
enum npuc_status rule_ms_rotary(struct import *im, struct onode *n)
{
    const enum npuc_status s = onode_needs(im, n, 4);
    if (s != NPUC_OK)
        return s;
    if (onode_int(im, n, "is_packed_batching", 0) || onode_float(im, n, "scale", 1.0f) != 1.0f)
        return onode_fail(im, n, D_UNSUPPORTED, "is_packed_batching and scale are not supported");
    onode_drop(im, n, "is_packed_batching");
    onode_drop(im, n, "scale");
    if (n->in[0]->type->rank != 3 && n->in[0]->type->rank != 4)
        return onode_fail(im, n, D_SHAPE_MISMATCH, "input 0 is %s, expected 3 or 4 dims",
                          type_text(im->cx, n->in[0]->type));
    onode_set_int(im, n, "num_heads", rotary_heads(im, n));
    struct value *pos = n->in[1];
    if (pos->type->rank != 2)
        pos = spread_offset(n, pos);
    if (!pos)
        return onode_done(im, n, NULL);
    n->in[1] = n->in[2];
    n->in[2] = n->in[3];
    n->in[3] = pos;
    onode_rename(im, n, "RotaryEmbedding");
    return NPUC_OK;
}
