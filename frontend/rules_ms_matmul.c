/* Matrix products of com.microsoft: with activations, of 8-bit operands, of block-quantised weights in several codes.
 */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "frontend/expand.h"

/* The activation attributes; what is not given is NAN, which stands for the activation's default. */
static const char *take_activation(struct import *im, struct onode *n, float params[3])
{
    static const char *const names[3] = {"activation_alpha", "activation_beta", "activation_gamma"};
    for (int i = 0; i < 3; i++) {
        params[i] = onode_float(im, n, names[i], NAN);
        onode_drop(im, n, names[i]);
    }
    const char *name = onode_str(im, n, "activation", "");
    onode_drop(im, n, "activation");
    return name;
}

enum npuc_status rule_fused_gemm(struct import *im, struct onode *n)
{
    float params[3];
    struct value *y;
    const char *name = take_activation(im, n, params);
    const float alpha = onode_float(im, n, "alpha", 1.0f), beta = onode_float(im, n, "beta", 1.0f);
    enum npuc_status s = onode_needs(im, n, 2);
    if (s != NPUC_OK)
        return s;
    struct value *c = onode_in(n, 2);
    if (alpha != 1.0f) { /* outside of the product, where the vector cores do it */
        onode_drop(im, n, "alpha");
        onode_drop(im, n, "beta");
        n->n_in = 2;
    }
    s = onode_emit(im, n, "Gemm", &y);
    if (s == NPUC_OK && alpha != 1.0f)
        y = x_add_opt(&n->b, x_scaled(&n->b, y, (double)alpha), beta == 1.0f ? c : x_scaled(&n->b, c, (double)beta),
                      c != NULL);
    return s == NPUC_OK ? onode_done(im, n, x_activation(im, n, name, params, y)) : s;
}

enum npuc_status rule_gemm_fast_gelu(struct import *im, struct onode *n)
{
    const enum npuc_status s = onode_needs(im, n, 2);
    struct value *bias = onode_in(n, 2);
    if (s != NPUC_OK)
        return s;
    struct value *y = x_product(&n->b, n->in[0], n->in[1], false);
    return onode_done(im, n, x_op1(&n->b, OP_GeluTanh, x_add_opt(&n->b, y, bias, bias != NULL)));
}

/* transBatch moves dim 0 behind the batch dims: [S, B.., H] to [B.., S, H]. */
static struct value *operand(struct onode *n, int i, bool batch, bool trans)
{
    struct value *v = n->in[i];
    const int rank = v->type->rank;
    int64_t perm[IR_MAX_RANK];
    if (rank < 2 || (!batch && !trans))
        return v;
    for (int k = 0; k < rank; k++)
        perm[k] = k;
    for (int k = 0; batch && k < rank - 1; k++)
        perm[k] = k == rank - 2 ? 0 : k + 1;
    if (trans) {
        const int64_t last = perm[rank - 1];
        perm[rank - 1] = perm[rank - 2];
        perm[rank - 2] = last;
    }
    return ir_transpose(&n->b, v, perm);
}

static enum npuc_status product(struct import *im, struct onode *n, struct value **y)
{
    enum npuc_status s = onode_needs(im, n, 2);
    for (int i = 0; i < 2 && s == NPUC_OK; i++)
        s = onode_rank(im, n, i, 1, IR_MAX_RANK);
    if (s != NPUC_OK)
        return s;
    struct value *a = operand(n, 0, onode_int(im, n, "transBatchA", 0) != 0, onode_int(im, n, "transA", 0) != 0);
    struct value *w = operand(n, 1, onode_int(im, n, "transBatchB", 0) != 0, onode_int(im, n, "transB", 0) != 0);
    const float alpha = onode_float(im, n, "alpha", 1.0f);
    *y = x_op2(&n->b, OP_MatMul, a, w);
    if (alpha != 1.0f)
        *y = x_scaled(&n->b, *y, (double)alpha);
    return NPUC_OK;
}

enum npuc_status rule_fused_matmul(struct import *im, struct onode *n)
{
    struct value *y;
    const enum npuc_status s = product(im, n, &y);
    return s == NPUC_OK ? onode_done(im, n, y) : s;
}

enum npuc_status rule_fused_matmul_activation(struct import *im, struct onode *n)
{
    float params[3];
    struct value *y;
    const char *name = take_activation(im, n, params);
    const enum npuc_status s = product(im, n, &y);
    if (s != NPUC_OK)
        return s;
    if (strcmp(name, "Softmax") == 0)
        return onode_done(im, n, x_softmax(&n->b, y, (int)onode_int(im, n, "activation_axis", -1)));
    return onode_done(im, n, x_activation(im, n, name, params, y));
}

/* ---- 8-bit operands */

enum npuc_status rule_dynamic_quantize_matmul(struct import *im, struct onode *n)
{
    struct builder *b = &n->b;
    const enum npuc_status s = onode_needs(im, n, 3);
    if (s != NPUC_OK)
        return s;
    struct node *q = ir_new(b, OP_DynamicQuantizeLinear, 1, n->in, 3);
    struct value *codes = x_out(q);
    if (!codes)
        return onode_done(im, n, NULL);
    struct value *y = x_integer_product(b, codes, n->in[1], &q->out[2], onode_scalar(im, n, 3));
    y = x_op2(b, OP_Mul, y, x_op2(b, OP_Mul, &q->out[1], onode_scalar(im, n, 2)));
    return onode_done(im, n, x_add_opt(b, y, onode_in(n, 4), onode_in(n, 4) != NULL));
}

/* A, B, their scales, their zero points, bias. */
enum npuc_status rule_matmul_integer_to_float(struct import *im, struct onode *n)
{
    struct builder *b = &n->b;
    const enum npuc_status s = onode_needs(im, n, 4);
    if (s != NPUC_OK)
        return s;
    struct value *scale = x_op2(b, OP_Mul, onode_scalar(im, n, 2), onode_scalar(im, n, 3));
    struct value *y = x_integer_product(b, n->in[0], n->in[1], onode_scalar(im, n, 4), onode_scalar(im, n, 5));
    y = scale ? x_op2(b, OP_Mul, x_cast(b, y, scale->type->dtype), scale) : NULL;
    return onode_done(im, n, x_add_opt(b, y, onode_in(n, 6), onode_in(n, 6) != NULL));
}

enum npuc_status rule_matmul_integer16(struct import *im, struct onode *n)
{
    struct builder *b = &n->b;
    const enum npuc_status s = onode_needs(im, n, 2);
    return s == NPUC_OK
               ? onode_done(im, n, x_op2(b, OP_MatMul, x_cast(b, n->in[0], DT_I32), x_cast(b, n->in[1], DT_I32)))
               : s;
}

/* A, its zero point, B, its zero point; the product in int32. */
enum npuc_status rule_mul_integer(struct import *im, struct onode *n)
{
    struct builder *b = &n->b;
    struct value *part[2];
    if (!onode_in(n, 0) || !onode_in(n, 2))
        return onode_fail(im, n, D_ARITY, "inputs 0 and 2 are required");
    for (int i = 0; i < 2; i++) {
        struct value *zero = onode_in(n, 2 * i + 1);
        part[i] = x_cast(b, n->in[2 * i], DT_I32);
        if (zero)
            part[i] = x_op2(b, OP_Sub, part[i], x_cast(b, zero, DT_I32));
    }
    return onode_done(im, n, x_op2(b, OP_Mul, part[0], part[1]));
}

enum npuc_status rule_reduce_sum_integer(struct import *im, struct onode *n)
{
    const enum npuc_status s = onode_needs(im, n, 1);
    if (s != NPUC_OK)
        return s;
    struct value *in[2] = {x_cast(&n->b, n->in[0], DT_I32), onode_ints_input(im, n, "axes")};
    struct node *sum = x_node(&n->b, OP_ReduceSum, 1, 2, in, 1);
    if (sum)
        ir_set_int(sum, "keepdims", onode_int(im, n, "keepdims", 1));
    return onode_done(im, n, x_out(sum));
}

/* ---- weights in codes */

/* uint8 [n] to its two halves [n, 2]: the high one first when `high`. */
static struct value *nibbles(struct builder *b, struct value *x, bool high)
{
    const int64_t axis[] = {1};
    const uint8_t four = 4, mask = 15;
    struct value *hi = x_op2(b, OP_BitShiftRight, x, ir_const(b, DT_U8, 0, NULL, &four, 1));
    struct value *lo = x_op2(b, OP_BitwiseAnd, x, ir_const(b, DT_U8, 0, NULL, &mask, 1));
    struct value *in[2] = {x_unsqueeze(b, high ? hi : lo, 1, axis), x_unsqueeze(b, high ? lo : hi, 1, axis)};
    return x_concat(b, 1, 2, in);
}

/* Values of the 16 codes: blockwise_quant_block_bnb4.h of onnxruntime, after bitsandbytes. */
static const float bnb4_codes[2][16] = {
    {0.0f, 5.208333333e-03f, 0.66666667f, 1.0f, 0.33333333f, 0.5f, 0.16666667f, 0.25f, -0.0f, -5.208333333e-03f,
     -0.66666667f, -1.0f, -0.33333333f, -0.5f, -0.16666667f, -0.25f},
    {-1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f,
     -0.18477343022823334f, -0.09105003625154495f, 0.0f, 0.07958029955625534f, 0.16093020141124725f,
     0.24611230194568634f, 0.33791524171829224f, 0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f}};

/* The codes lie in row-major order of the weight, which is [N, K] (transB) or [K, N]; a block is block_size of them. */
enum npuc_status rule_matmul_bnb4(struct import *im, struct onode *n)
{
    struct builder *b = &n->b;
    struct expr_pool *p = &im->cx->exprs;
    int64_t k, cols, block, type;
    const int64_t limit = INT32_MAX;
    enum npuc_status s = onode_needs(im, n, 3);
    if (s == NPUC_OK)
        s = onode_int_in(im, n, "K", 0, 1, limit, &k);
    if (s == NPUC_OK)
        s = onode_int_in(im, n, "N", 0, 1, limit, &cols);
    if (s == NPUC_OK)
        s = onode_int_in(im, n, "block_size", 0, 1, limit, &block);
    if (s == NPUC_OK)
        s = onode_int_in(im, n, "quant_type", 1, 0, 1, &type);
    if (s == NPUC_OK && onode_int(im, n, "training_mode", 0) != 0)
        s = onode_bad_attr(im, n, "training_mode", "only inference is supported");
    if (s == NPUC_OK && (k * cols) % 2)
        s = onode_fail(im, n, D_UNSUPPORTED, "a weight of %" PRId64 " values: an odd number", k * cols);
    if (s != NPUC_OK)
        return s;
    const int64_t sixteen = 16, column[] = {1};
    const bool transposed = onode_int(im, n, "transB", 1) != 0;
    const expr count = x_num(b, k * cols), blocks = expr_ceildiv(p, count, x_num(b, block));
    const expr spread[2] = {blocks, x_num(b, block)},
               dims[2] = {x_num(b, transposed ? cols : k), x_num(b, transposed ? k : cols)};
    struct value *table = ir_const(b, DT_F32, 1, &sixteen, bnb4_codes[type], 64);
    struct value *codes = x_flat(b, nibbles(b, x_flat(b, n->in[1]), true));
    struct value *w = x_gather(b, table, x_cast(b, codes, DT_I32), 0);
    struct value *scale = x_cast(b, x_unsqueeze(b, x_flat(b, n->in[2]), 1, column), DT_F32);
    scale = x_slice(b, x_flat(b, x_expand(b, scale, 2, spread)), 0, x_num(b, 0), count);
    w = x_reshape(b, x_op2(b, OP_Mul, w, scale), 2, dims);
    w = x_cast(b, w, n->in[0]->type->dtype);
    return onode_done(im, n, x_product(b, n->in[0], transposed ? x_swap(b, w) : w, false));
}

/* Weight [N, K] in codes that have a value of their own; scale [N, ceil(K / block)] repeated along K. */
static struct value *spread_scale(struct builder *b, struct value *scale, int64_t block, expr k)
{
    const int64_t axis[] = {2};
    if (!scale)
        return NULL;
    const expr rows = x_dim(scale, 0), wide[3] = {rows, x_dim(scale, 1), x_num(b, block)};
    const expr flat[2] = {rows, expr_mul(&b->cx->exprs, wide[1], wide[2])};
    struct value *v = x_reshape(b, x_expand(b, x_unsqueeze(b, scale, 1, axis), 3, wide), 2, flat);
    return x_slice(b, v, 1, x_num(b, 0), k);
}

static enum npuc_status code_product(struct import *im, struct onode *n, struct value *a, struct value *w, int bias)
{
    struct builder *b = &n->b;
    struct value *y = a && w ? x_product(b, a, x_swap(b, x_cast(b, w, a->type->dtype)), false) : NULL;
    return onode_done(im, n, x_add_opt(b, y, onode_in(n, bias), onode_in(n, bias) != NULL));
}

/* Codes and their scales are matrices; the first `need` inputs are there. */
static enum npuc_status code_operands(struct import *im, struct onode *n, int need, int64_t usual, int64_t *block)
{
    enum npuc_status s = onode_needs(im, n, need);
    for (int i = 1; i <= 2 && s == NPUC_OK; i++)
        s = onode_rank(im, n, i, 2, 2);
    return s == NPUC_OK ? onode_int_in(im, n, "block_size", usual, 1, INT32_MAX, block) : s;
}

/* A, B float8e4m3fn [N, K], scale, optional scale of A (then A is rounded to float8 as well), bias. */
enum npuc_status rule_matmul_fp8_weight(struct import *im, struct onode *n)
{
    struct builder *b = &n->b;
    int64_t block;
    const enum npuc_status s = code_operands(im, n, 3, 128, &block);
    if (s != NPUC_OK)
        return s;
    struct value *a = n->in[0], *scale = onode_scalar(im, n, 3);
    if (scale) {
        a = x_op2(b, OP_Div, x_cast(b, a, DT_F32), scale);
        a = x_op2(b, OP_Mul, x_cast(b, x_cast(b, a, DT_F8E4M3FN), DT_F32), scale);
        a = x_cast(b, a, n->in[0]->type->dtype);
    }
    struct value *w = x_cast(b, n->in[1], DT_F32);
    w = x_op2(b, OP_Mul, w, spread_scale(b, n->in[2], block, x_dim(n->in[1], 1)));
    return code_product(im, n, a, w, 4);
}

/* A, B uint8 [N, K/2] of float4e2m1 (low half first), scale float8e4m3fn as bytes, one scale for all, (A's), bias. */
enum npuc_status rule_matmul_fp4_weight(struct import *im, struct onode *n)
{
    static const float values[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                     -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
    struct builder *b = &n->b;
    int64_t block;
    const enum npuc_status s = code_operands(im, n, 4, 16, &block);
    if (s != NPUC_OK)
        return s;
    const int64_t sixteen = 16;
    const expr dims[2] = {x_dim(n->in[1], 0), expr_mul_const(&im->cx->exprs, x_dim(n->in[1], 1), 2)};
    struct value *w = nibbles(b, x_flat(b, n->in[1]), false);
    w = x_gather(b, ir_const(b, DT_F32, 1, &sixteen, values, 64), x_cast(b, x_flat(b, w), DT_I32), 0);
    struct node *bits = ir_new(b, OP_BitCast, 1, &n->in[2], 1);
    ir_set_int(bits, "to", dtype_table[DT_F8E4M3FN].onnx);
    struct value *scale = n->in[2]->type->dtype == DT_F8E4M3FN ? n->in[2] : x_out(bits);
    scale = x_op2(b, OP_Mul, x_cast(b, scale, DT_F32), onode_scalar(im, n, 3));
    w = x_op2(b, OP_Mul, x_reshape(b, w, 2, dims), spread_scale(b, scale, block, dims[1]));
    return code_product(im, n, n->in[0], w, 5);
}

/* ---- MatMulNBits and what is made of several */

static enum npuc_status no_prepacked(struct import *im, struct onode *n)
{
    const int64_t packed = onode_int(im, n, "weight_prepacked", 0);
    if (packed == 0)
        return NPUC_OK;
    return onode_fail(im, n, D_UNSUPPORTED,
                      "weight_prepacked is %" PRId64 ": the weights are in the layout of one GPU family; export with "
                      "weight_prepacked 0",
                      packed);
}

enum npuc_status rule_matmul_nbits(struct import *im, struct onode *n)
{
    return no_prepacked(im, n);
}

/* RMS norm of A, or of A + skip; the sum is bound to output `sum_out`. */
static struct value *normed(struct import *im, struct onode *n, int sum_out)
{
    struct builder *b = &n->b;
    struct value *x = n->in[0], *skip = onode_in(n, 1), *scale = onode_in(n, 2);
    x = x_add_opt(b, x, skip, skip != NULL);
    if (x && skip)
        onode_bind(im, n, sum_out, x);
    return scale ? x_norm(b, OP_RMSNormalization, x, scale, NULL, onode_float(im, n, "epsilon", 1e-5f)) : x;
}

/* a times the weight at inputs i (codes) and i + 1 (scales), plus the bias at i + 2. */
static struct value *nbits(struct import *im, struct onode *n, struct value *a, int i, int64_t cols)
{
    struct value *in[6] = {a, onode_in(n, i), onode_in(n, i + 1), NULL, NULL, onode_in(n, i + 2)};
    struct node *node = x_node(&n->b, OP_MatMulNBits, 3, 6, in, 1);
    if (!node)
        return NULL;
    static const char *const same[] = {"K", "bits", "block_size", "accuracy_level"};
    for (int64_t k = 0; k < NPUC_ARRAY_LEN(same); k++)
        ir_set_int(node, same[k], onode_int(im, n, same[k], k == 1 ? 4 : 0));
    ir_set_int(node, "N", cols);
    return x_out(node);
}

enum npuc_status rule_nbits_mlp(struct import *im, struct onode *n)
{
    const float none[3] = {NAN, NAN, NAN};
    int64_t cols;
    enum npuc_status s = onode_in(n, 0) && onode_in(n, 3) && onode_in(n, 4) && onode_in(n, 6) && onode_in(n, 7)
                             ? onode_int_in(im, n, "N", 0, 1, INT32_MAX, &cols)
                             : onode_fail(im, n, D_ARITY, "inputs 0, 3, 4, 6 and 7 are required");
    if (s != NPUC_OK)
        return s;
    struct value *a = normed(im, n, 1);
    struct value *gate = nbits(im, n, a, 3, cols), *up = nbits(im, n, a, 6, cols);
    gate = x_activation(im, n, onode_str(im, n, "activation", ""), none, gate);
    return onode_done(im, n, x_op2(&n->b, OP_Mul, gate, up));
}

enum npuc_status rule_nbits_qkv(struct import *im, struct onode *n)
{
    int64_t cols[3];
    enum npuc_status s = onode_in(n, 0) ? NPUC_OK : onode_needs(im, n, 1);
    for (int i = 0; i < 6 && s == NPUC_OK; i++)
        if (!onode_in(n, 3 + i / 2 * 3 + i % 2))
            s = onode_fail(im, n, D_ARITY, "required input %d is missing", 3 + i / 2 * 3 + i % 2);
    if (s == NPUC_OK)
        s = onode_int_in(im, n, "Nq", 0, 1, INT32_MAX, &cols[0]);
    if (s == NPUC_OK)
        s = onode_int_in(im, n, "Nkv", 0, 1, INT32_MAX, &cols[1]);
    if (s != NPUC_OK)
        return s;
    cols[2] = cols[1];
    struct value *a = normed(im, n, 3), *out[3];
    for (int i = 0; i < 3; i++) {
        out[i] = nbits(im, n, a, 3 + 3 * i, cols[i]);
        if (out[i])
            onode_bind(im, n, i, out[i]);
    }
    return onode_done(im, n, out[1] && out[2] ? out[0] : NULL);
}

/* ---- GatherBlockQuantized: data, indices, scales, zero points */

/* Scales of size 1 on another axis than the quantised one count for all of it. */
static struct value *whole_scales(struct onode *n, int quantised)
{
    struct value *scale = n->in[2];
    const struct type *t = n->in[0]->type;
    expr dims[IR_MAX_RANK];
    bool same = true;
    for (int i = 0; i < t->rank; i++) {
        dims[i] = i == quantised ? scale->type->dims[i] : t->dims[i];
        same &= dims[i] == scale->type->dims[i];
    }
    return same ? scale : x_expand(&n->b, scale, t->rank, dims);
}

static struct value *in_blocks(struct builder *b, struct value *x, struct value *scale, struct value *zero, int axis,
                               int64_t block)
{
    struct node *node = x_node(b, OP_DequantizeLinear, 2, 3, (struct value *[]){x, scale, zero}, 1);
    if (!node)
        return NULL;
    ir_set_int(node, "axis", axis);
    ir_set_int(node, "block_size", block);
    return x_out(node);
}

/* Rows of tables quantised along the last axis are the operator itself; of any other form data, scales and zero points
 * are gathered one by one, or all is dequantised first when the gathered axis is the quantised one. */
enum npuc_status rule_gather_block(struct import *im, struct onode *n)
{
    struct builder *b = &n->b;
    enum npuc_status s = onode_needs(im, n, 3);
    if (s == NPUC_OK)
        s = onode_rank(im, n, 0, 1, IR_MAX_RANK);
    if (s != NPUC_OK || n->in[0]->type->dtype == DT_U8)
        return s;
    const int rank = n->in[0]->type->rank;
    int64_t g = onode_int(im, n, "gather_axis", 0), q = onode_int(im, n, "quantize_axis", 1), size;
    g += g < 0 ? rank : 0;
    q += q < 0 ? rank : 0;
    if (g < 0 || g >= rank || q < 0 || q >= rank)
        return onode_bad_attr(im, n, "quantize_axis", "it or gather_axis is out of range for %d dims", rank);
    s = onode_rank(im, n, 2, rank, rank);
    if (s != NPUC_OK)
        return s;
    struct value *scale = whole_scales(n, (int)q), *zero = onode_in(n, 3);
    if (!scale)
        return onode_done(im, n, NULL);
    n->in[2] = scale;
    if (g == 0 && q == rank - 1)
        return NPUC_OK;
    int64_t block = onode_int(im, n, "block_size", 128);
    if (block == 0 && expr_is_const(&im->cx->exprs, x_dim(n->in[0], (int)q), &size))
        block = size;
    if (block < 1)
        return onode_bad_attr(im, n, "block_size", "it is %" PRId64 ", expected a positive size", block);
    if (g == q)
        return onode_done(im, n, x_gather(b, in_blocks(b, n->in[0], scale, zero, (int)q, block), n->in[1], (int)g));
    const int axis = (int)(q > g ? q + n->in[1]->type->rank - 1 : q);
    struct value *part[3] = {n->in[0], scale, zero};
    for (int i = 0; i < 3; i++)
        part[i] = part[i] ? x_gather(b, part[i], n->in[1], (int)g) : NULL;
    return onode_done(im, n, in_blocks(b, part[0], part[1], part[2], axis, block));
}
