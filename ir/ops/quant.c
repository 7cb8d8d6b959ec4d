/* Quantisation and dequantisation as operators, and the integer matrix product with both around it. */
#include "ir/ops/infer.h"

/* The scale is a scalar, a vector along `axis`, or has one value per block of that axis. */
static enum npuc_status check_scale(struct ir_ctx *cx, struct node *n)
{
    const struct shape x = infer_shape(n, 0), s = infer_shape(n, 1), zero = infer_shape(n, 2);
    const int64_t block = node_attr_int(n, "block_size", 0);
    int axis;
    if (x.rank < 0 || s.rank < 0)
        return NPUC_OK;
    if (zero.rank >= 0 && zero.rank != s.rank)
        return infer_rank_error(cx, n, 2, "the rank of the scale");
    for (int i = 0; i < s.rank && zero.rank >= 0; i++)
        if (!infer_dim_same(cx, zero.d[i], s.d[i]))
            return node_error(cx, n, D_SHAPE_MISMATCH,
                              "input 2 (zero point) has %s values on axis %d, the scale has %s",
                              infer_dim_text(cx, zero.d[i]), i, infer_dim_text(cx, s.d[i]));
    const bool scalar = s.rank == 0 || (s.rank == 1 && infer_dim_is(cx, s.d[0], 1));
    if (block < 0)
        return node_error(cx, n, D_ATTRIBUTE, "attribute 'block_size' is %lld, expected at least 0", (long long)block);
    if (scalar && !block)
        return NPUC_OK;
    const enum npuc_status st = infer_axis_attr(cx, n, "axis", x.rank, &axis);
    if (st != NPUC_OK)
        return st;
    if (block ? s.rank != x.rank : s.rank != 1)
        return infer_rank_error(cx, n, 1, block ? "the rank of input 0 (block_size is given)" : "a scalar or a vector");
    const expr expected = block ? expr_ceildiv(&cx->exprs, x.d[axis], expr_const(&cx->exprs, block)) : x.d[axis];
    const expr have = s.d[block ? axis : 0];
    if (!infer_dim_same(cx, expected, have))
        return node_error(cx, n, D_SHAPE_MISMATCH, "input 1 (scale) has %s values on axis %d, expected %s",
                          infer_dim_text(cx, have), axis, infer_dim_text(cx, expected));
    return NPUC_OK;
}

static enum npuc_status dequantize_infer(struct ir_ctx *cx, struct node *n)
{
    enum dtype t;
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_is_float(cx, n, 1);
    if (s == NPUC_OK)
        s = infer_same_dtype(cx, n, 0, 2);
    if (s == NPUC_OK)
        s = infer_dtype_attr(cx, n, "output_dtype", infer_dtype(n, 1), &t);
    if (s == NPUC_OK)
        s = check_scale(cx, n);
    return s == NPUC_OK ? infer_out_shaped(cx, n, 0, 0, t) : s;
}

static enum npuc_status quantize_infer(struct ir_ctx *cx, struct node *n)
{
    enum dtype t;
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_dtype_attr(cx, n, "output_dtype", infer_has(n, 2) ? infer_dtype(n, 2) : DT_U8, &t);
    if (s == NPUC_OK && infer_has(n, 2))
        s = infer_dtype_is(cx, n, 2, t, t);
    if (s == NPUC_OK)
        s = check_scale(cx, n);
    return s == NPUC_OK ? infer_out_shaped(cx, n, 0, 0, t) : s;
}

static enum npuc_status dynamic_quantize_infer(struct ir_ctx *cx, struct node *n)
{
    const struct shape scalar = {.rank = 0};
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_dtype_is(cx, n, 0, DT_F32, DT_F32);
    if (s == NPUC_OK)
        s = infer_out_shaped(cx, n, 0, 0, DT_U8);
    if (s == NPUC_OK)
        s = infer_out(cx, n, 1, DT_F32, &scalar);
    return s == NPUC_OK ? infer_out(cx, n, 2, DT_U8, &scalar) : s;
}

/* a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero */
static enum npuc_status qlinear_matmul_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_same_dtype(cx, n, 0, 2);
    if (s == NPUC_OK)
        s = infer_same_dtype(cx, n, 3, 5);
    if (s != NPUC_OK)
        return s;
    const struct shape a = infer_shape(n, 0), b = infer_shape(n, 3);
    const enum dtype t = infer_dtype(n, 7);
    if (a.rank < 0 || b.rank < 0)
        return infer_out_unknown(cx, n, 0, t);
    if (a.rank < 2 || b.rank < 2)
        return infer_rank_error(cx, n, a.rank < 2 ? 0 : 3, "rank 2 or more");
    if (!infer_dim_same(cx, a.d[a.rank - 1], b.d[b.rank - 2]))
        return node_error(cx, n, D_SHAPE_MISMATCH, "input 0 has %s columns, input 3 has %s rows",
                          infer_dim_text(cx, a.d[a.rank - 1]), infer_dim_text(cx, b.d[b.rank - 2]));
    struct shape left = a, right = b, out;
    left.rank -= 2;
    right.rank -= 2;
    if (!infer_broadcast(cx, &left, &right, &out))
        return node_error(cx, n, D_SHAPE_MISMATCH, "batch axes of input 0 and input 3 do not broadcast");
    out.d[out.rank++] = a.d[a.rank - 2];
    out.d[out.rank++] = b.d[b.rank - 1];
    return infer_out(cx, n, 0, t, &out);
}

#include "ir/ops/rows.h"

#include "ir/ops/quant.def"
