/* Products with weights that the model dequantises become products with block-quantised weights.
 *
 *   %w = DequantizeLinear %codes, %scales {axis=0, block_size=32};  %y = MatMul %x, %w      (%codes, %scales constant)
 * becomes
 *   %y = MatMulNBits %x, %codes2, %scales2 {K=.., N=.., bits=4, block_size=32}
 *
 * with codes and scales in the order [N, K]: the weight stays as small as the model has it, and the cores dequantise
 * what they need next. Scales of a tensor or of an output channel are repeated for every block, which costs little and
 * leaves one form. Signed codes are stored with the middle code as zero.
 * Small floats (f8e4m3fn, f8e5m2, f4e2m1) keep their codes, named by code_type. Powers of two as scales (f8e8m0) become
 * scales of the product's type, which must hold them; codes that are only cast have scales of 1.
 * Requirements: (1) codes of 2, 4 or 8 bits, scales and zero points are constants, the scales of the product's type;
 * (2) a scale serves whole blocks along K of at least 16 codes, else the same blocks cut into powers of two; (3) each
 * rewrite removes a product of float weights, so it terminates; what becomes unused is left to dce. Left alone: scales
 * along K without blocks, weights of a rank other than 2, products with alpha, beta or a transposed left operand. The
 * dequantised values are the same; for f16 and bf16 their rounding is up to MatMulNBits. */
#include "base/half.h"
#include "passes/match.h"

#include <float.h>
#include <string.h>

#define SHARED_BLOCK                                                                                                   \
    128 /* codes of a block where the model has one scale for all of K: padding and scales stay small */
#define LEAST_BLOCK 16

struct weight {
    const struct type *type;                   /* of the codes as the model has them */
    const struct blob *codes, *scales, *zeros; /* zeros NULL: none */
    enum dtype scale_type;                     /* of the result */
    enum dtype given;                          /* of the model's scales */
    int bits;
    bool k_first; /* stored [k, n] */
    int64_t k, n;
    enum { ONE, PER_COLUMN, BLOCKED } kind;
    int64_t scale_block, scale_blocks; /* BLOCKED: codes along K per scale, scales along K */
    int64_t block, blocks;             /* of the result */
    bool absent;                       /* only sizes are known: the model was read without its data */
};

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* The greatest power of two that divides v, at most `most`. */
static int64_t power_in(int64_t v, int64_t most)
{
    int64_t p = 1;
    while (p < most && v % (2 * p) == 0)
        p *= 2;
    return p;
}

static bool is_small_float(enum dtype t)
{
    return t == DT_F8E4M3FN || t == DT_F8E5M2 || t == DT_F4E2M1;
}

static bool is_code_type(enum dtype t, int *bits)
{
    *bits = dtype_table[t].bits;
    return is_small_float(t) || ((dtype_table[t].cls == DTC_INT || dtype_table[t].cls == DTC_UINT) &&
                                 (*bits == 2 || *bits == 4 || *bits == 8));
}

static float scale_at(const struct weight *w, int64_t i)
{
    return half_small_to_f32(DT_F8E8M0, ((const uint8_t *)w->scales->data)[i]);
}

/* Are the scales of the result's type, or powers of two that it holds? */
static bool can_store_scales(const struct weight *w)
{
    if (w->given == w->scale_type)
        return true;
    if (w->scale_type != DT_F32 && w->scale_type != DT_F16 && w->scale_type != DT_BF16)
        return false;
    for (int64_t i = 0; !w->absent && i < w->scales->size; i++) {
        const float s = scale_at(w, i);
        if (!(s <= FLT_MAX) || (w->scale_type == DT_F16 && half_f16_to_f32(half_f32_to_f16(s)) != s))
            return false;
    }
    return true;
}

/* Length of a block where the model has one scale for all of K. */
static int64_t shared_block(const struct weight *w)
{
    int64_t block = LEAST_BLOCK;
    while (block < w->k && block < SHARED_BLOCK)
        block *= 2;
    return block;
}

/* How scales belong to codes; false for forms without blocks along K. */
static bool read_scales(struct ir_ctx *cx, const struct node *dq, struct weight *w)
{
    const struct value *s = node_in(dq, 1), *zero = node_in(dq, 2);
    const int64_t count = type_const_count(cx, s->type), block = node_attr_int(dq, "block_size", 0);
    int64_t axis = node_attr_int(dq, "axis", 1);
    axis = axis < 0 ? axis + 2 : axis;
    const int64_t k_axis = w->k_first ? 0 : 1;
    if (zero && type_const_count(cx, zero->type) != count)
        return false;
    w->block = shared_block(w);
    if (count == 1) {
        w->kind = ONE;
    } else if (block == 0) {
        w->kind = PER_COLUMN;
        if (axis == k_axis || count != w->n)
            return false;
    } else {
        w->kind = BLOCKED;
        w->scale_block = block;
        w->scale_blocks = ceil_div(w->k, block);
        w->block = power_in(block, 65536);
        if (axis != k_axis || count != w->n * w->scale_blocks || w->block < LEAST_BLOCK)
            return false;
    }
    w->blocks = ceil_div(w->k, w->block);
    return true;
}

/* Codes, sizes and the type of the result. */
static bool read_codes(struct ir_ctx *cx, const struct node *n, struct weight *w)
{
    const struct value *x = node_in(n, 0);
    int64_t d[2];
    if (x->type->kind != TYPE_TENSOR || x->type->rank != 2 || !expr_is_const(&cx->exprs, x->type->dims[0], &d[0]) ||
        !expr_is_const(&cx->exprs, x->type->dims[1], &d[1]) || d[0] < 1 || d[1] < 1)
        return false;
    w->type = x->type;
    w->k = w->k_first ? d[0] : d[1];
    w->n = w->k_first ? d[1] : d[0];
    w->scale_type = n->out[0].type->dtype;
    w->codes = value_const(x);
    return w->codes && is_code_type(x->type->dtype, &w->bits) && dtype_size(w->scale_type) > 0;
}

/* A small float that is only cast has a scale of 1. */
static bool read_cast(struct ir_ctx *cx, const struct node *n, struct weight *w)
{
    static const uint8_t one = 127;
    static const struct blob scale = {.data = &one, .size = 1};
    if (!read_codes(cx, n, w) || !is_small_float(w->type->dtype))
        return false;
    w->given = DT_F8E8M0;
    w->scales = &scale;
    w->absent = !w->codes->data;
    w->kind = ONE;
    w->block = shared_block(w);
    w->blocks = ceil_div(w->k, w->block);
    return can_store_scales(w);
}

static bool read_dequantize(struct ir_ctx *cx, const struct node *dq, struct weight *w)
{
    const struct value *s = node_in(dq, 1), *zero = node_in(dq, 2);
    if (!read_codes(cx, dq, w))
        return false;
    w->given = s->type->dtype;
    w->scales = value_const(s);
    w->zeros = zero ? value_const(zero) : NULL;
    const bool known = w->scales && (!zero || w->zeros);
    w->absent = known && (!w->codes->data || !w->scales->data || (zero && !w->zeros->data));
    return known && (w->given == w->scale_type || w->given == DT_F8E8M0) && !(zero && is_small_float(w->type->dtype)) &&
           read_scales(cx, dq, w) && can_store_scales(w);
}

/* The right operand, through transposes of its two axes. */
static bool read_weight(struct ir_ctx *cx, struct value *v, bool trans, struct weight *w)
{
    struct node *t;
    while (v->type->rank == 2 && (t = match_def(v, OP_Transpose))) {
        const struct attr *perm = node_attr(t, "perm");
        trans = trans != (!perm || perm->v.ints[0] == 1);
        v = node_in(t, 0);
    }
    const struct node *dq = match_def(v, OP_DequantizeLinear), *cast = match_def(v, OP_Cast);
    *w = (struct weight){.k_first = !trans};
    return dq ? read_dequantize(cx, dq, w) : cast && read_cast(cx, cast, w);
}

/* ---- the new constants ------------------------------------------------------------------------------------ */

static unsigned code_at(const struct weight *w, const struct blob *b, int64_t i)
{
    const int64_t at = i * w->bits;
    const unsigned raw = (unsigned)((const uint8_t *)b->data)[at / 8] >> (at % 8) & ((1U << w->bits) - 1);
    const bool is_signed = dtype_table[w->type->dtype].cls == DTC_INT;
    return is_signed ? raw ^ 1U << (w->bits - 1) : raw; /* two's complement plus the middle code */
}

static void put_code(const struct weight *w, uint8_t *row, int64_t i, unsigned code)
{
    row[i * w->bits / 8] |= (uint8_t)(code << (i * w->bits % 8));
}

static int64_t scale_index(const struct weight *w, int64_t n, int64_t b)
{
    if (w->kind != BLOCKED)
        return w->kind == ONE ? 0 : n;
    const int64_t kb = b * w->block / w->scale_block;
    return w->k_first ? kb * w->n + n : n * w->scale_blocks + kb;
}

static void fill_codes(const struct weight *w, uint8_t *to)
{
    const int64_t row = w->blocks * (w->block * w->bits / 8);
    for (int64_t n = 0; n < w->n; n++)
        for (int64_t k = 0; k < w->k; k++)
            put_code(w, to + n * row, k, code_at(w, w->codes, w->k_first ? k * w->n + n : n * w->k + k));
}

static void put_scale(const struct weight *w, uint8_t *to, int64_t i)
{
    const int size = dtype_size(w->scale_type);
    if (w->given == w->scale_type) {
        memcpy(to, (const uint8_t *)w->scales->data + i * size, (size_t)size);
        return;
    }
    const float s = scale_at(w, i);
    const uint16_t half = w->scale_type == DT_F16 ? half_f32_to_f16(s) : half_f32_to_bf16(s);
    memcpy(to, size == 4 ? (const void *)&s : (const void *)&half, (size_t)size);
}

static void fill_scales(const struct weight *w, uint8_t *to)
{
    const int64_t size = dtype_size(w->scale_type);
    for (int64_t n = 0; n < w->n; n++)
        for (int64_t i = 0; i < w->blocks; i++)
            put_scale(w, to + (n * w->blocks + i) * size, scale_index(w, n, i));
}

static unsigned middle(const struct weight *w)
{
    return 1U << (w->bits - 1);
}

static unsigned zero_at(const struct weight *w, int64_t n, int64_t block)
{
    const bool is_signed = dtype_table[w->type->dtype].cls == DTC_INT;
    return w->zeros ? code_at(w, w->zeros, scale_index(w, n, block)) : is_signed ? middle(w) : 0;
}

static void fill_zeros(const struct weight *w, uint8_t *to)
{
    const int64_t row = ceil_div(w->blocks * w->bits, 8);
    for (int64_t n = 0; n < w->n; n++)
        for (int64_t i = 0; i < w->blocks; i++)
            put_code(w, to + n * row, i, zero_at(w, n, i));
}

/* Is every zero point the middle code, which needs no tensor? */
static bool zeros_are_middle(const struct weight *w)
{
    if (is_small_float(w->type->dtype))
        return true;
    if (w->absent)
        return !w->zeros && dtype_table[w->type->dtype].cls == DTC_INT;
    for (int64_t n = 0; n < w->n; n++)
        for (int64_t i = 0; i < w->blocks; i++)
            if (zero_at(w, n, i) != middle(w))
                return false;
    return true;
}

struct new_constant {
    enum dtype dtype;
    int64_t cols;
    void (*fill)(const struct weight *w, uint8_t *to);
};

/* A constant [n, cols] that `fill` writes into zeroed bytes. */
static struct value *constant(struct pass_ctx *px, struct builder *b, const struct weight *w,
                              const struct new_constant *c)
{
    const int64_t size = w->n * c->cols * dtype_size(c->dtype), dims[2] = {w->n, c->cols};
    if (w->absent) {
        struct blob *blob = ARENA_ARRAY(&px->m->arena, struct blob, 1);
        *blob = (struct blob){.size = size};
        const expr d[2] = {expr_const(&px->cx->exprs, w->n), expr_const(&px->cx->exprs, c->cols)};
        return ir_const_blob(b, type_tensor(px->cx, c->dtype, 2, d), blob);
    }
    uint8_t *to = ARENA_ARRAY(&px->arena, uint8_t, size);
    memset(to, 0, (size_t)size);
    c->fill(w, to);
    return ir_const(b, c->dtype, 2, dims, to, size);
}

/* ---- the product ------------------------------------------------------------------------------------------ */

static bool is_row(struct ir_ctx *cx, const struct value *c, const struct weight *w)
{
    return c->type->rank >= 1 && c->type->rank <= 2 && type_const_count(cx, c->type) == w->n &&
           c->type->dims[c->type->rank - 1] == expr_const(&cx->exprs, w->n) &&
           (value_const(c) || c->type->dtype == DT_F32);
}

/* Plain products of a [.., K] and the right operand; *trans: that one is [N, K]. */
static bool is_product(const struct node *n, bool *trans)
{
    if (n->op != OP_MatMul && n->op != OP_Gemm && n->op != OP_FusedMatMul)
        return false;
    *trans = node_attr_int(n, "transB", 0) != 0;
    return node_in(n, 0)->type->kind == TYPE_TENSOR && node_in(n, 0)->type->rank >= 2 &&
           node_attr_float(n, "alpha", 1.0f) == 1.0f && node_attr_int(n, "transA", 0) == 0 &&
           node_attr_int(n, "transBatchA", 0) == 0 && node_attr_int(n, "transBatchB", 0) == 0;
}

static bool match(struct ir_ctx *cx, const struct node *n, struct weight *w)
{
    bool trans;
    if (!is_product(n, &trans) || !read_weight(cx, node_in(n, 1), trans, w))
        return false;
    const struct value *a = node_in(n, 0), *c = n->op == OP_Gemm ? node_in(n, 2) : NULL;
    if (c && (node_attr_float(n, "beta", 1.0f) != 1.0f || !is_row(cx, c, w)))
        return false;
    return a->type->dtype == w->scale_type && a->type->dims[a->type->rank - 1] == expr_const(&cx->exprs, w->k);
}

static enum npuc_status rewrite(struct pass_ctx *px, struct node *n, const struct weight *w)
{
    struct builder b = ir_at(n);
    const struct new_constant codes = {DT_U8, w->blocks * (w->block * w->bits / 8), fill_codes},
                              scales = {w->scale_type, w->blocks, fill_scales},
                              zeros = {DT_U8, ceil_div(w->blocks * w->bits, 8), fill_zeros};
    struct value *in[6] = {node_in(n, 0), constant(px, &b, w, &codes), constant(px, &b, w, &scales)};
    if (!zeros_are_middle(w))
        in[3] = constant(px, &b, w, &zeros);
    in[5] = n->op == OP_Gemm ? node_in(n, 2) : NULL;
    struct node *y = ir_new(&b, OP_MatMulNBits, in[5] ? 6 : in[3] ? 4 : 3, in, 1);
    ir_set_int(y, "K", w->k);
    ir_set_int(y, "N", w->n);
    ir_set_int(y, "bits", w->bits);
    if (is_small_float(w->type->dtype))
        ir_set_int(y, "code_type", dtype_table[w->type->dtype].onnx);
    ir_set_int(y, "block_size", w->block);
    const enum npuc_status s = ir_infer(y);
    if (s != NPUC_OK)
        return s;
    pass_count(px, STAT_recover_quant_absorbed, match_replace(px, n, y));
    pass_count(px, STAT_recover_quant_recovered, 1);
    return NPUC_OK;
}

enum npuc_status recover_quant(struct pass_ctx *px, struct graph *g)
{
    for_each_node_safe(n, g)
    {
        struct weight w;
        if (!match(px->cx, n, &w) || !ir_may_rewrite(px->cx))
            continue;
        const enum npuc_status s = rewrite(px, n, &w);
        if (s != NPUC_OK)
            return s;
    }
    return NPUC_OK;
}
