/* Codes and scales of constant weights in the order of MatMulNBits. Scales of a tensor or of an output channel are
 * repeated for every block, which costs little and leaves one form. Signed codes are stored with the middle code as
 * zero. Small floats keep their codes, named by code_type; scales of one byte (f8e8m0, f8e4m3fn) stay bytes. Codes that
 * are only cast have scales of 1. */
#include "passes/packed.h"

#include <string.h>

#include "kernels/mac.h"
#include "kernels/wide.h"
#include "passes/match.h"
#define SHARED_BLOCK                                                                                                   \
    128 /* codes of a block where the model has one scale for all of K: padding and scales stay small */
#define LEAST_BLOCK 16

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
    return dtype_is_float(t) && k_dequant_takes(t);
}

static bool is_code_type(enum dtype t, int *bits)
{
    *bits = dtype_table[t].bits;
    return is_small_float(t) || ((dtype_table[t].cls == DTC_INT || dtype_table[t].cls == DTC_UINT) &&
                                 (*bits == 2 || *bits == 4 || *bits == 8));
}

/* Are scales of the type stored as they are? */
static bool is_scale_type(const struct packed *w)
{
    return w->scale_type == w->value_type || w->scale_type == DT_F8E8M0 || w->scale_type == DT_F8E4M3FN ||
           (w->scale_type == DT_U8 && w->unit);
}

/* Length of a block where the model has one scale for all of K. */
static int64_t shared_block(const struct packed *w)
{
    int64_t block = LEAST_BLOCK;
    while (block < w->k && block < SHARED_BLOCK)
        block *= 2;
    return block;
}

/* How scales belong to codes; false for forms without blocks along K. */
static bool read_scales(struct ir_ctx *cx, const struct node *dq, struct packed *w)
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
        w->kind = PACKED_ONE;
    } else if (block == 0) {
        w->kind = PACKED_PER_COLUMN;
        if (axis == k_axis || count != w->n)
            return false;
    } else {
        w->kind = PACKED_BLOCKED;
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
static bool read_codes(struct ir_ctx *cx, const struct node *n, struct packed *w)
{
    const struct value *x = node_in(n, 0);
    int64_t d[2];
    if (x->type->kind != TYPE_TENSOR || x->type->rank != 2 || !expr_is_const(&cx->exprs, x->type->dims[0], &d[0]) ||
        !expr_is_const(&cx->exprs, x->type->dims[1], &d[1]) || d[0] < 1 || d[1] < 1)
        return false;
    w->type = x->type;
    w->k = w->k_first ? d[0] : d[1];
    w->n = w->k_first ? d[1] : d[0];
    w->value_type = n->out[0].type->dtype;
    w->codes = value_const(x);
    return w->codes && is_code_type(x->type->dtype, &w->bits) && dtype_size(w->value_type) > 0;
}

/* A small float that is only cast has a scale of 1. */
static bool read_cast(struct ir_ctx *cx, const struct node *n, struct packed *w)
{
    static const uint8_t one = 127;
    static const struct blob scale = {.data = &one, .size = 1};
    if (!read_codes(cx, n, w) || !is_small_float(w->type->dtype))
        return false;
    w->scale_type = DT_F8E8M0;
    w->scales = &scale;
    w->absent = !w->codes->data;
    w->kind = PACKED_ONE;
    w->block = shared_block(w);
    w->blocks = ceil_div(w->k, w->block);
    return true;
}

/* Scales that are codes themselves, times one number or one per column. */
static const struct value *read_unit(struct ir_ctx *cx, const struct value *s, struct packed *w)
{
    const struct node *dq = match_def(s, OP_DequantizeLinear);
    const enum dtype t = dq ? node_in(dq, 0)->type->dtype : DT_NONE;
    if (!dq || node_in(dq, 2) || (t != DT_F8E4M3FN && t != DT_U8) || node_attr_int(dq, "block_size", 0) != 0)
        return s;
    const int64_t count = type_const_count(cx, node_in(dq, 1)->type), axis = node_attr_int(dq, "axis", 1);
    if (count != 1 && (count != w->n || (axis < 0 ? axis + 2 : axis) != (w->k_first ? 1 : 0)))
        return s;
    w->unit = node_in(dq, 1);
    return node_in(dq, 0);
}

static bool read_dequantize(struct ir_ctx *cx, const struct node *dq, struct packed *w)
{
    const struct value *zero = node_in(dq, 2);
    if (!read_codes(cx, dq, w))
        return false;
    const struct value *s = read_unit(cx, node_in(dq, 1), w);
    w->scale_type = s->type->dtype;
    w->scales = value_const(s);
    w->zeros = zero ? value_const(zero) : NULL;
    const bool known = w->scales && (!zero || w->zeros);
    w->absent = known && (!w->codes->data || !w->scales->data || (zero && !w->zeros->data));
    return known && is_scale_type(w) && !(zero && is_small_float(w->type->dtype)) && read_scales(cx, dq, w);
}

/* The right operand, through transposes of its two axes. */
bool packed_read(struct ir_ctx *cx, struct value *v, bool trans, struct packed *w)
{
    struct node *t;
    while (v->type->rank == 2 && (t = match_def(v, OP_Transpose))) {
        const struct attr *perm = node_attr(t, "perm");
        trans = trans != (!perm || perm->v.ints[0] == 1);
        v = node_in(t, 0);
    }
    const struct node *dq = match_def(v, OP_DequantizeLinear), *cast = match_def(v, OP_Cast);
    *w = (struct packed){.k_first = !trans};
    return dq ? read_dequantize(cx, dq, w) : cast && read_cast(cx, cast, w);
}

/* ---- the new constants ------------------------------------------------------------------------------------ */

enum { ROWS_AT_ONCE = 64 }; /* rows of the result that are made together when its columns are rows of the constant */

static unsigned code_at(const struct packed *w, const struct blob *b, int64_t i)
{
    const unsigned raw = k_code_get(w->type->dtype, b->data, i);
    const bool is_signed = dtype_table[w->type->dtype].cls == DTC_INT;
    return is_signed ? raw ^ 1U << (w->bits - 1) : raw; /* two's complement plus the middle code */
}

static void put_code(const struct packed *w, uint8_t *row, int64_t i, unsigned code)
{
    k_code_set(w->type->dtype, row, i, (uint8_t)code);
}

static int64_t scale_index(const struct packed *w, int64_t n, int64_t b)
{
    if (w->kind != PACKED_BLOCKED)
        return w->kind == PACKED_ONE ? 0 : n;
    const int64_t kb = b * w->block / w->scale_block;
    return w->k_first ? kb * w->n + n : n * w->scale_blocks + kb;
}

/* Codes of rows n0 .. n0 + count, a byte each in `to`, [count][k]. */
static void read_rows(const struct packed *w, int64_t n0, int64_t count, uint8_t *to)
{
    uint8_t part[ROWS_AT_ONCE];
    const enum dtype t = w->type->dtype;
    if (!w->k_first)
        k_codes_load(to, t, w->codes->data, n0 * w->k, count * w->k);
    for (int64_t k = 0; w->k_first && k < w->k; k++) {
        k_codes_load(part, t, w->codes->data, k * w->n + n0, count);
        for (int64_t n = 0; n < count; n++)
            to[n * w->k + k] = part[n];
    }
    for (int64_t i = 0; dtype_table[t].cls == DTC_INT && i < count * w->k; i++)
        to[i] ^= (uint8_t)(1U << (w->bits - 1)); /* as code_at */
}

static void fill_codes(struct arena *a, const struct packed *w, uint8_t *to)
{
    const int64_t row = w->blocks * (w->block * w->bits / 8);
    uint8_t *codes = ARENA_ARRAY(a, uint8_t, w->k * ROWS_AT_ONCE + 1);
    for (int64_t n0 = 0; n0 < w->n; n0 += ROWS_AT_ONCE) {
        const int64_t count = w->n - n0 < ROWS_AT_ONCE ? w->n - n0 : ROWS_AT_ONCE;
        read_rows(w, n0, count, codes);
        for (int64_t n = 0; n < count; n++)
            k_codes_store(w->type->dtype, to + (n0 + n) * row, 0, codes + n * w->k, w->k);
    }
}

static void fill_scales(struct arena *a, const struct packed *w, uint8_t *to)
{
    (void)a;
    const int64_t size = dtype_size(w->scale_type);
    for (int64_t n = 0; n < w->n; n++)
        for (int64_t i = 0; i < w->blocks; i++)
            memcpy(to + (n * w->blocks + i) * size, (const uint8_t *)w->scales->data + scale_index(w, n, i) * size,
                   (size_t)size);
}

static unsigned middle(const struct packed *w)
{
    return 1U << (w->bits - 1);
}

static unsigned zero_at(const struct packed *w, int64_t n, int64_t block)
{
    const bool is_signed = dtype_table[w->type->dtype].cls == DTC_INT;
    return w->zeros ? code_at(w, w->zeros, scale_index(w, n, block)) : is_signed ? middle(w) : 0;
}

static void fill_zeros(struct arena *a, const struct packed *w, uint8_t *to)
{
    (void)a;
    const int64_t row = ceil_div(w->blocks * w->bits, 8);
    for (int64_t n = 0; n < w->n; n++)
        for (int64_t i = 0; i < w->blocks; i++)
            put_code(w, to + n * row, i, zero_at(w, n, i));
}

/* Is every zero point the middle code, which needs no tensor? */
static bool zeros_are_middle(const struct packed *w)
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
    void (*fill)(struct arena *a, const struct packed *w, uint8_t *to);
};

/* A constant [n, cols] that `fill` writes into zeroed bytes. */
static struct value *constant(struct pass_ctx *px, struct builder *b, const struct packed *w,
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
    const struct arena_mark mark = arena_mark(&px->arena);
    c->fill(&px->arena, w, to);
    arena_release(&px->arena, mark);
    return ir_const(b, c->dtype, 2, dims, to, size);
}

struct node *packed_product(struct pass_ctx *px, struct builder *b, const struct packed *w, struct value *x,
                            struct value *bias, bool wide)
{
    const struct new_constant codes = {DT_U8, w->blocks * (w->block * w->bits / 8), fill_codes},
                              scales = {w->scale_type, w->blocks, fill_scales},
                              zeros = {DT_U8, ceil_div(w->blocks * w->bits, 8), fill_zeros};
    struct value *in[6] = {x, constant(px, b, w, &codes), constant(px, b, w, &scales)};
    if (!zeros_are_middle(w))
        in[3] = constant(px, b, w, &zeros);
    in[5] = bias;
    struct node *y = ir_new(b, OP_MatMulNBits, in[5] ? 6 : in[3] ? 4 : 3, in, 1);
    ir_set_int(y, "K", w->k);
    ir_set_int(y, "N", w->n);
    ir_set_int(y, "bits", w->bits);
    if (is_small_float(w->type->dtype))
        ir_set_int(y, "code_type", dtype_table[w->type->dtype].onnx);
    ir_set_int(y, "block_size", w->block);
    if (wide && dtype_is_float(x->type->dtype) && x->type->dtype != DT_F32)
        ir_set_int(y, "output_dtype", dtype_table[DT_F32].onnx);
    return ir_infer(y) == NPUC_OK ? y : NULL;
}

bool packed_is_bytes(const struct packed *w)
{
    if (w->scale_type != DT_U8 || is_small_float(w->type->dtype) || w->bits > 4)
        return false;
    if (w->absent)
        return true;
    for (int64_t n = 0; n < w->n; n++)
        for (int64_t k = 0; k < w->k; k++) {
            const int64_t block = k / w->block;
            const int steps =
                (int)code_at(w, w->codes, w->k_first ? k * w->n + n : n * w->k + k) - (int)zero_at(w, n, block);
            const int v = steps * ((const uint8_t *)w->scales->data)[scale_index(w, n, block)];
            if (v < INT8_MIN || v > INT8_MAX)
                return false;
        }
    return true;
}
