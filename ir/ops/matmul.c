/* Matrix products, also of block-quantised weights, and the gather from a block-quantised table. */
#include "ir/ops/infer.h"
#include "kernels/mac.h"

/* ---- MatMul and its relatives */

static enum npuc_status inner_mismatch(struct ir_ctx *cx, struct node *n, expr a, expr b)
{
    return node_error(cx, n, D_SHAPE_MISMATCH,
                      "input 0 of type %s and input 1 of type %s do not multiply: %s columns, %s rows",
                      type_text(cx, n->in[0].value->type), type_text(cx, n->in[1].value->type), infer_dim_text(cx, a),
                      infer_dim_text(cx, b));
}

/* numpy matmul of shapes a and b: batch axes broadcast, a vector is a row (column) that disappears. */
static enum npuc_status matmul_shape(struct ir_ctx *cx, struct node *n, struct shape a, struct shape b,
                                     struct shape *out)
{
    const bool row = a.rank == 1, col = b.rank == 1;
    if (a.rank == 0 || b.rank == 0)
        return infer_rank_error(cx, n, a.rank == 0 ? 0 : 1, "rank 1 or more");
    if (row)
        a = (struct shape){.rank = 2, .d = {expr_const(&cx->exprs, 1), a.d[0]}};
    if (col)
        b = (struct shape){.rank = 2, .d = {b.d[0], expr_const(&cx->exprs, 1)}};
    const expr m = a.d[a.rank - 2], k = a.d[a.rank - 1], k2 = b.d[b.rank - 2], cols = b.d[b.rank - 1];
    if (!infer_dim_same(cx, k, k2))
        return inner_mismatch(cx, n, k, k2);
    a.rank -= 2;
    b.rank -= 2;
    if (!infer_broadcast(cx, &a, &b, out))
        return node_error(cx, n, D_SHAPE_MISMATCH,
                          "batch axes of input 0 of type %s and input 1 of type %s do not broadcast",
                          type_text(cx, n->in[0].value->type), type_text(cx, n->in[1].value->type));
    if (!row)
        out->d[out->rank++] = m;
    if (!col)
        out->d[out->rank++] = cols;
    return NPUC_OK;
}

static enum npuc_status matmul_out(struct ir_ctx *cx, struct node *n, const struct shape *a, const struct shape *b,
                                   enum dtype t)
{
    struct shape out;
    if (a->rank < 0 || b->rank < 0)
        return infer_out_unknown(cx, n, 0, t);
    const enum npuc_status s = matmul_shape(cx, n, *a, *b, &out);
    return s == NPUC_OK ? infer_out(cx, n, 0, t, &out) : s;
}

static enum npuc_status matmul_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_same_dtype(cx, n, 0, 1);
    const struct shape a = infer_shape(n, 0), b = infer_shape(n, 1);
    return s == NPUC_OK ? matmul_out(cx, n, &a, &b, infer_dtype(n, 0)) : s;
}

static enum npuc_status matmul_integer_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    for (int i = 0; i < 2 && s == NPUC_OK; i++)
        s = infer_is_factor(cx, n, i);
    for (int i = 0; i < 2 && s == NPUC_OK; i++)
        s = infer_same_dtype(cx, n, i, i + 2);
    const struct shape a = infer_shape(n, 0), b = infer_shape(n, 1);
    return s == NPUC_OK ? matmul_out(cx, n, &a, &b, DT_I32) : s;
}

/* transBatch moves axis 0 behind the other batch axes; trans swaps the last two. */
static struct shape fused_operand(const struct node *n, int i, bool trans, bool batch)
{
    struct shape x = infer_shape(n, i);
    if (batch && x.rank > 2) {
        const expr first = x.d[0];
        for (int k = 0; k + 2 < x.rank; k++)
            x.d[k] = x.d[k + 1];
        x.d[x.rank - 2] = first;
    }
    if (trans && x.rank >= 2) {
        const expr last = x.d[x.rank - 1];
        x.d[x.rank - 1] = x.d[x.rank - 2];
        x.d[x.rank - 2] = last;
    }
    return x;
}

static enum npuc_status fused_matmul_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_same_dtype(cx, n, 0, 1);
    const struct shape a =
        fused_operand(n, 0, node_attr_int(n, "transA", 0) != 0, node_attr_int(n, "transBatchA", 0) != 0);
    const struct shape b =
        fused_operand(n, 1, node_attr_int(n, "transB", 0) != 0, node_attr_int(n, "transBatchB", 0) != 0);
    return s == NPUC_OK ? matmul_out(cx, n, &a, &b, infer_dtype(n, 0)) : s;
}

static enum npuc_status gemm_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    for (int i = 1; i < 3 && s == NPUC_OK; i++)
        s = infer_same_dtype(cx, n, 0, i);
    if (s != NPUC_OK)
        return s;
    const struct shape a = infer_shape(n, 0), b = infer_shape(n, 1), c = infer_shape(n, 2);
    for (int i = 0; i < 2; i++)
        if (infer_shape(n, i).rank >= 0 && infer_shape(n, i).rank != 2)
            return infer_rank_error(cx, n, i, "rank 2");
    if (a.rank < 0 || b.rank < 0) {
        const struct shape fresh = infer_fresh_shape(cx, n, 0, 2);
        return infer_out(cx, n, 0, infer_dtype(n, 0), &fresh);
    }
    const bool ta = node_attr_int(n, "transA", 0) != 0, tb = node_attr_int(n, "transB", 0) != 0;
    if (!infer_dim_same(cx, a.d[!ta], b.d[tb]))
        return inner_mismatch(cx, n, a.d[!ta], b.d[tb]);
    const struct shape out = {.rank = 2, .d = {a.d[ta], b.d[!tb]}};
    struct shape all;
    if (c.rank > 2 || (c.rank >= 0 && !infer_broadcast(cx, &out, &c, &all)))
        return node_error(cx, n, D_SHAPE_MISMATCH, "input 2 has type %s, which does not broadcast to the product",
                          type_text(cx, n->in[2].value->type));
    return infer_out(cx, n, 0, infer_dtype(n, 0), &out);
}

/* MACs: result elements times the inner size, which is the last axis of input 0 unless that is transposed. */
static void matmul_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    cost_bytes(cx, n, symbols, c);
    const int inner = node_attr_int(n, "transA", 0) ? -2 : -1;
    c->macs = cost_count(cx, &n->out[0], symbols) * cost_dim(cx, node_in(n, 0), inner, symbols);
    if (n->op == OP_Gemm && infer_has(n, 2))
        c->alu = cost_count(cx, &n->out[0], symbols);
}

/* ---- ScaledMatMul: op(a) op(b) (+ bias row) of small floats with block scales along K */

static enum npuc_status scaled_matmul_legal(struct ir_ctx *cx, struct node *n)
{
    const int64_t block = node_attr_int(n, "block_size", 32);
    enum dtype t;
    if (block < 16 || block > 65536 || (block & (block - 1)))
        return node_error(cx, n, D_ATTRIBUTE, "attribute 'block_size' is %lld, expected a power of two, at least 16",
                          (long long)block);
    const enum npuc_status s = infer_dtype_attr(cx, n, "output_dtype", DT_F32, &t);
    if (s == NPUC_OK && t != DT_F32 && t != DT_F16 && t != DT_BF16)
        return node_error(cx, n, D_ATTRIBUTE, "attribute 'output_dtype' is %s, expected f32, f16 or bf16",
                          dtype_table[t].name);
    return s;
}

/* Types and scales of operand i, whose K is the last axis or the one before. */
static enum npuc_status scaled_operand(struct ir_ctx *cx, struct node *n, int i, bool k_last)
{
    const enum dtype t = infer_dtype(n, i);
    const struct shape x = infer_shape(n, i), s = infer_shape(n, i + 2);
    if (t != DT_NONE && !(infer_has(n, i + 2) ? k_mac_takes_scales(t) : k_mac_takes_codes(t)))
        return node_error(cx, n, D_TYPE_MISMATCH,
                          "input %d has type %s, expected f8e4m3fn, f8e5m2 or f4e2m1, without scales also hif8", i,
                          type_text(cx, n->in[i].value->type));
    if (x.rank >= 0 && x.rank < 2)
        return infer_rank_error(cx, n, i, "rank 2 or more");
    if (!infer_has(n, i + 2))
        return NPUC_OK;
    const enum npuc_status st = infer_dtype_is(cx, n, i + 2, DT_F8E8M0, DT_F8E8M0);
    if (st != NPUC_OK || x.rank < 0 || s.rank < 0)
        return st;
    if (s.rank != x.rank)
        return infer_rank_error(cx, n, i + 2, "the rank of its codes");
    const int axis = x.rank - (k_last ? 1 : 2);
    const expr block = expr_const(&cx->exprs, node_attr_int(n, "block_size", 32));
    for (int d = 0; d < x.rank; d++)
        if (!infer_dim_same(cx, s.d[d], d == axis ? expr_ceildiv(&cx->exprs, x.d[d], block) : x.d[d]))
            return node_error(cx, n, D_SHAPE_MISMATCH, "input %d of type %s does not scale input %d of type %s", i + 2,
                              type_text(cx, n->in[i + 2].value->type), i, type_text(cx, n->in[i].value->type));
    return NPUC_OK;
}

static enum npuc_status scaled_matmul_infer(struct ir_ctx *cx, struct node *n)
{
    const bool ta = node_attr_int(n, "transA", 0) != 0, tb = node_attr_int(n, "transB", 0) != 0;
    enum dtype t = DT_F32;
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = scaled_matmul_legal(cx, n);
    if (s == NPUC_OK)
        s = scaled_operand(cx, n, 0, !ta);
    if (s == NPUC_OK)
        s = scaled_operand(cx, n, 1, tb);
    if (s == NPUC_OK)
        s = infer_dtype_attr(cx, n, "output_dtype", DT_F32, &t);
    const struct shape a = fused_operand(n, 0, ta, false), b = fused_operand(n, 1, tb, false);
    return s == NPUC_OK ? matmul_out(cx, n, &a, &b, t) : s;
}

/* ---- MatMulNBits: Y = A W^T (+ bias), W of N x K stored in blocks of block_size along K */

static enum npuc_status matmul_nbits_legal(struct ir_ctx *cx, struct node *n)
{
    const int64_t bits = node_attr_int(n, "bits", 4), block = node_attr_int(n, "block_size", 0);
    if (node_attr_int(n, "weight_prepacked", 0))
        return node_error(
            cx, n, D_UNSUPPORTED,
            "weights are in a device-specific packed layout (weight_prepacked); export them with weight_prepacked = 0");
    const int64_t code = node_attr_int(n, "code_type", 0), out = node_attr_int(n, "output_dtype", 0);
    const enum dtype t = code ? dtype_from_onnx(code) : DT_NONE;
    if (!code && bits != 2 && bits != 4 && bits != 8)
        return node_error(cx, n, D_ATTRIBUTE, "attribute 'bits' is %lld, expected 2, 4 or 8", (long long)bits);
    if (block < 16 || block > 65536 || (block & (block - 1)))
        return node_error(cx, n, D_ATTRIBUTE, "attribute 'block_size' is %lld, expected a power of two, at least 16",
                          (long long)block);
    if (out && dtype_from_onnx(out) != DT_F32)
        return node_error(cx, n, D_ATTRIBUTE, "attribute 'output_dtype' is %lld, expected 1 (f32) or none",
                          (long long)out);
    if (code && (!dtype_is_float(t) || !k_dequant_takes(t) || dtype_table[t].bits != bits))
        return node_error(cx, n, D_ATTRIBUTE, "attribute 'code_type' is %lld, expected a small float of %lld bits",
                          (long long)code, (long long)bits);
    if (code && infer_has(n, 3))
        return node_error(cx, n, D_ATTRIBUTE, "input 3 (zero points) is given, which codes of type %s do not have",
                          dtype_table[t].name);
    for (int i = 0; i < 2; i++) {
        const int64_t size = node_attr_int(n, i ? "N" : "K", 0);
        if (size < 1 || size > INT32_MAX)
            return node_error(cx, n, D_ATTRIBUTE, "attribute '%s' is %lld, expected a positive size", i ? "N" : "K",
                              (long long)size);
    }
    return NPUC_OK;
}

static enum npuc_status nbits_count(struct ir_ctx *cx, struct node *n, int i, int64_t expected, int64_t other)
{
    const int64_t have = infer_has(n, i) ? type_const_count(cx, n->in[i].value->type) : -1;
    if (have < 0 || have == expected || have == other)
        return NPUC_OK;
    return node_error(cx, n, D_SHAPE_MISMATCH, "input %d of type %s has %lld elements, expected %lld", i,
                      type_text(cx, n->in[i].value->type), (long long)have, (long long)expected);
}

static enum npuc_status nbits_operands(struct ir_ctx *cx, struct node *n, int64_t k, int64_t cols)
{
    const int64_t bits = node_attr_int(n, "bits", 4), block = node_attr_int(n, "block_size", 0);
    const int64_t blocks = (k + block - 1) / block;
    enum npuc_status s = infer_dtype_is(cx, n, 1, DT_U8, DT_U8);
    if (s == NPUC_OK)
        s = nbits_count(cx, n, 1, cols * blocks * (block * bits / 8), -1);
    const enum dtype scale = infer_dtype(n, 2);
    if (s == NPUC_OK && infer_dtype(n, 0) == DT_I8)
        s = infer_dtype_is(cx, n, 2, DT_U8, DT_U8);
    else if (s == NPUC_OK && scale != DT_F8E8M0 && scale != DT_F8E4M3FN && scale != DT_U8)
        s = infer_same_dtype(cx, n, 0, 2);
    if (s == NPUC_OK)
        s = nbits_count(cx, n, 2, cols * blocks, -1);
    const bool packed = infer_dtype(n, 3) == DT_U8;
    if (s == NPUC_OK && !packed)
        s = infer_same_dtype(cx, n, 0, 3);
    if (s == NPUC_OK)
        s = nbits_count(cx, n, 3, packed ? cols * ((blocks * bits + 7) / 8) : cols * blocks,
                        packed ? cols * blocks : -1);
    if (s == NPUC_OK)
        s = infer_dtype_is(cx, n, 4, DT_I32, DT_I32);
    if (s == NPUC_OK)
        s = nbits_count(cx, n, 4, k, blocks * block);
    return s == NPUC_OK ? nbits_count(cx, n, 5, cols, -1) : s;
}

static enum npuc_status matmul_nbits_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = matmul_nbits_legal(cx, n);
    if (s == NPUC_OK)
        s = infer_dtype(n, 0) == DT_I8 ? NPUC_OK : infer_is_float(cx, n, 0);
    const int64_t k = node_attr_int(n, "K", 0), cols = node_attr_int(n, "N", 0);
    if (s == NPUC_OK)
        s = nbits_operands(cx, n, k, cols);
    if (s != NPUC_OK)
        return s;
    struct shape out = infer_shape(n, 0);
    const enum dtype a = infer_dtype(n, 0);
    const enum dtype t = a == DT_I8 ? DT_I32 : node_attr_int(n, "output_dtype", 0) ? DT_F32 : a;
    if (out.rank < 0)
        return infer_out_unknown(cx, n, 0, t);
    if (out.rank == 0 || !infer_dim_same(cx, out.d[out.rank - 1], expr_const(&cx->exprs, k)))
        return node_error(cx, n, D_SHAPE_MISMATCH, "input 0 has type %s, expected %lld columns (attribute 'K')",
                          type_text(cx, n->in[0].value->type), (long long)k);
    out.d[out.rank - 1] = expr_const(&cx->exprs, cols);
    return infer_out(cx, n, 0, t, &out);
}

/* ---- GatherBlockQuantized: rows of a quantised table, dequantised */

static enum npuc_status gather_block_legal(struct ir_ctx *cx, struct node *n)
{
    const int64_t bits = node_attr_int(n, "bits", 4), block = node_attr_int(n, "block_size", 128);
    if (bits != 2 && bits != 4 && bits != 8)
        return node_error(cx, n, D_ATTRIBUTE, "attribute 'bits' is %lld, expected 2, 4 or 8", (long long)bits);
    if (block != 0 && (block < 16 || block > 65536 || (block & (block - 1))))
        return node_error(cx, n, D_ATTRIBUTE, "attribute 'block_size' is %lld, expected a power of two, at least 16",
                          (long long)block);
    return NPUC_OK;
}

static enum npuc_status gather_block_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = gather_block_legal(cx, n);
    if (s == NPUC_OK)
        s = infer_dtype_is(cx, n, 1, DT_I64, DT_I32);
    if (s == NPUC_OK)
        s = infer_is_float(cx, n, 2);
    if (s != NPUC_OK)
        return s;
    struct shape x = infer_shape(n, 0), out = {.rank = 0};
    const struct shape at = infer_shape(n, 1);
    int axis;
    if (x.rank < 0 || at.rank < 0)
        return infer_out_unknown(cx, n, 0, infer_dtype(n, 2));
    s = infer_axis_attr(cx, n, "gather_axis", x.rank, &axis);
    if (s != NPUC_OK)
        return s;
    if (x.rank + at.rank - 1 > IR_MAX_RANK)
        return infer_rank_error(cx, n, 1, "a lower rank");
    if (infer_dtype(n, 0) == DT_U8 && x.rank > 0) /* several elements in a byte, along the last axis */
        x.d[x.rank - 1] = expr_mul_const(&cx->exprs, x.d[x.rank - 1], 8 / node_attr_int(n, "bits", 4));
    for (int i = 0; i < axis; i++)
        out.d[out.rank++] = x.d[i];
    for (int i = 0; i < at.rank; i++)
        out.d[out.rank++] = at.d[i];
    for (int i = axis + 1; i < x.rank; i++)
        out.d[out.rank++] = x.d[i];
    return infer_out(cx, n, 0, infer_dtype(n, 2), &out);
}

#include "ir/ops/rows.h"

#include "ir/ops/matmul.def"
