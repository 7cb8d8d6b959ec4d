/* Gather, scatter and other data-dependent selections. */
#include "ir/ops/move_priv.h"

static enum npuc_status begin_indexed(struct ir_ctx *cx, struct node *n)
{
    const enum npuc_status s = infer_begin(cx, n);
    return s == NPUC_OK ? infer_dtype_is(cx, n, 1, DT_I64, DT_I32) : s;
}

static void gather_elems(struct ir_ctx *cx, struct node *n)
{
    expr e[INFER_MAX_ELEMS], out[INFER_MAX_ELEMS];
    int64_t at[INFER_MAX_ELEMS], len, n_at;
    if (!infer_tracks(infer_dtype(n, 0)) || !infer_elems(cx, n, 0, e, &len) || !infer_ints(cx, n, 1, at, &n_at))
        return;
    for (int64_t i = 0; i < n_at; i++) {
        const int64_t k = at[i] < 0 ? at[i] + len : at[i];
        out[i] = k >= 0 && k < len ? e[k] : EXPR_INVALID;
    }
    infer_set_elems(cx, n, 0, out, n_at);
}

/* Constant indices beyond a constant size are an error of the model. */
static enum npuc_status gather_check(struct ir_ctx *cx, struct node *n, expr dim)
{
    int64_t at[INFER_MAX_ELEMS], n_at, size;
    if (!expr_is_const(&cx->exprs, dim, &size) || !infer_ints(cx, n, 1, at, &n_at))
        return NPUC_OK;
    for (int64_t i = 0; i < n_at; i++)
        if (at[i] < -size || at[i] >= size)
            return node_error(cx, n, D_SHAPE_MISMATCH, "index %lld of input 1 is outside of the axis of size %lld",
                              (long long)at[i], (long long)size);
    return NPUC_OK;
}

enum npuc_status gather_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = begin_indexed(cx, n);
    if (s != NPUC_OK)
        return s;
    const struct shape x = infer_shape(n, 0), at = infer_shape(n, 1);
    int axis;
    if (x.rank < 0 || at.rank < 0)
        return infer_out_unknown(cx, n, 0, infer_dtype(n, 0));
    s = infer_axis_attr(cx, n, "axis", x.rank, &axis);
    if (s == NPUC_OK)
        s = gather_check(cx, n, x.d[axis]);
    if (s != NPUC_OK)
        return s;
    if (x.rank + at.rank - 1 > IR_MAX_RANK)
        return node_error(cx, n, D_LIMIT, "the result has rank %d, at most %d is supported", x.rank + at.rank - 1,
                          IR_MAX_RANK);
    struct shape out = {.rank = 0};
    for (int i = 0; i < axis; i++)
        out.d[out.rank++] = x.d[i];
    for (int i = 0; i < at.rank; i++)
        out.d[out.rank++] = at.d[i];
    for (int i = axis + 1; i < x.rank; i++)
        out.d[out.rank++] = x.d[i];
    s = infer_out(cx, n, 0, infer_dtype(n, 0), &out);
    if (s == NPUC_OK && out.rank <= 1)
        gather_elems(cx, n);
    return s;
}

enum npuc_status gather_elements_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = begin_indexed(cx, n);
    if (s != NPUC_OK)
        return s;
    const struct shape x = infer_shape(n, 0), at = infer_shape(n, 1);
    int axis;
    if (at.rank < 0)
        return infer_out_unknown(cx, n, 0, infer_dtype(n, 0));
    if (x.rank >= 0 && x.rank != at.rank)
        return infer_rank_error(cx, n, 1, "the rank of input 0");
    s = infer_axis_attr(cx, n, "axis", at.rank, &axis);
    return s == NPUC_OK ? infer_out(cx, n, 0, infer_dtype(n, 0), &at) : s;
}

enum npuc_status gather_nd_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = begin_indexed(cx, n);
    if (s != NPUC_OK)
        return s;
    const struct shape x = infer_shape(n, 0), at = infer_shape(n, 1);
    const int64_t batch = node_attr_int(n, "batch_dims", 0);
    int64_t depth;
    if (x.rank < 0 || at.rank < 1 || !expr_is_const(&cx->exprs, at.d[at.rank - 1], &depth))
        return at.rank == 0 ? infer_rank_error(cx, n, 1, "rank 1 or more")
                            : infer_out_unknown(cx, n, 0, infer_dtype(n, 0));
    if (batch < 0 || batch >= at.rank || depth < 1 || depth > x.rank - batch)
        return node_error(cx, n, D_SHAPE_MISMATCH,
                          "indices of %lld positions and %lld batch axes do not fit input 0 of rank %d",
                          (long long)depth, (long long)batch, x.rank);
    const int rest = x.rank - (int)(batch + depth);
    if (at.rank - 1 + rest > IR_MAX_RANK)
        return node_error(cx, n, D_LIMIT, "the result has rank %d, at most %d is supported", at.rank - 1 + rest,
                          IR_MAX_RANK);
    struct shape out = {.rank = 0};
    for (int i = 0; i < at.rank - 1; i++)
        out.d[out.rank++] = at.d[i];
    for (int i = x.rank - rest; i < x.rank; i++)
        out.d[out.rank++] = x.d[i];
    return infer_out(cx, n, 0, infer_dtype(n, 0), &out);
}

enum npuc_status scatter_elements_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = begin_indexed(cx, n);
    if (s == NPUC_OK)
        s = infer_same_dtype(cx, n, 0, 2);
    if (s != NPUC_OK)
        return s;
    const struct shape x = infer_shape(n, 0), at = infer_shape(n, 1);
    int axis;
    if (x.rank >= 0 && at.rank >= 0 && x.rank != at.rank)
        return infer_rank_error(cx, n, 1, "the rank of input 0");
    if (x.rank >= 0 && (s = infer_axis_attr(cx, n, "axis", x.rank, &axis)) != NPUC_OK)
        return s;
    return x.rank < 0 ? infer_out_unknown(cx, n, 0, infer_dtype(n, 0)) : infer_out(cx, n, 0, infer_dtype(n, 0), &x);
}

enum npuc_status scatter_nd_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_dtype_is(cx, n, 1, DT_I64, DT_I64);
    if (s == NPUC_OK)
        s = infer_same_dtype(cx, n, 0, 2);
    if (s != NPUC_OK)
        return s;
    const struct shape x = infer_shape(n, 0), at = infer_shape(n, 1);
    int64_t depth;
    if (x.rank >= 0 && at.rank > 0 && expr_is_const(&cx->exprs, at.d[at.rank - 1], &depth) && depth > x.rank)
        return node_error(cx, n, D_SHAPE_MISMATCH, "indices of %lld positions, input 0 has rank %d", (long long)depth,
                          x.rank);
    return x.rank < 0 ? infer_out_unknown(cx, n, 0, infer_dtype(n, 0)) : infer_out(cx, n, 0, infer_dtype(n, 0), &x);
}

enum npuc_status scatter_legal(struct ir_ctx *cx, struct node *n)
{
    return infer_attr_in(cx, n, "reduction", "none add mul max min");
}

enum npuc_status non_zero_infer(struct ir_ctx *cx, struct node *n)
{
    const enum npuc_status s = infer_begin(cx, n);
    if (s != NPUC_OK)
        return s;
    const struct shape x = infer_shape(n, 0);
    struct shape out = {.rank = 2};
    out.d[0] = x.rank < 0 ? infer_fresh(cx, n, 0, 0) : expr_const(&cx->exprs, x.rank);
    out.d[1] = infer_fresh(cx, n, 0, 1);
    return infer_out(cx, n, 0, DT_I64, &out);
}

enum npuc_status compress_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_dtype_is(cx, n, 1, DT_BOOL, DT_BOOL);
    if (s != NPUC_OK)
        return s;
    struct shape out = infer_shape(n, 0);
    int axis = 0;
    if (!node_attr(n, "axis"))
        out.rank = 1;
    else if (out.rank < 0)
        return infer_out_unknown(cx, n, 0, infer_dtype(n, 0));
    else if ((s = infer_axis_attr(cx, n, "axis", out.rank, &axis)) != NPUC_OK)
        return s;
    out.d[axis] = infer_fresh(cx, n, 0, axis);
    return infer_out(cx, n, 0, infer_dtype(n, 0), &out);
}

enum npuc_status one_hot_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s != NPUC_OK)
        return s;
    const struct shape x = infer_shape(n, 0);
    int axis;
    if (x.rank < 0)
        return infer_out_unknown(cx, n, 0, infer_dtype(n, 2));
    if (x.rank >= IR_MAX_RANK)
        return infer_rank_error(cx, n, 0, "a lower rank");
    s = infer_axis_attr(cx, n, "axis", x.rank + 1, &axis);
    if (s != NPUC_OK)
        return s;
    struct shape out = {.rank = x.rank + 1};
    double depth;
    expr d = value_elem(cx, n->in[1].value, 0);
    if (!d && value_const_f64(n->in[1].value, 0, &depth) && depth >= 0 && depth < 1e15)
        d = expr_const(&cx->exprs, (int64_t)depth);
    for (int i = 0, k = 0; i < out.rank; i++)
        out.d[i] = i != axis ? x.d[k++] : d ? d : infer_fresh(cx, n, 0, i);
    return infer_out(cx, n, 0, infer_dtype(n, 2), &out);
}

enum npuc_status tensor_scatter_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_same_dtype(cx, n, 0, 1);
    if (s == NPUC_OK)
        s = infer_dtype_is(cx, n, 2, DT_I64, DT_I32);
    const struct shape x = infer_shape(n, 0), up = infer_shape(n, 1);
    int axis;
    if (s == NPUC_OK && x.rank >= 0)
        s = infer_axis_attr(cx, n, "axis", x.rank, &axis);
    if (s != NPUC_OK)
        return s;
    if (x.rank >= 0 && up.rank >= 0 && x.rank != up.rank)
        return infer_rank_error(cx, n, 1, "the rank of input 0");
    for (int i = 0; i < x.rank && up.rank >= 0; i++)
        if (i != axis && !infer_dim_same(cx, x.d[i], up.d[i]))
            return node_error(cx, n, D_SHAPE_MISMATCH, "input 1 has size %s on axis %d, expected %s",
                              infer_dim_text(cx, up.d[i]), i, infer_dim_text(cx, x.d[i]));
    return infer_out_like(cx, n, 0, 0);
}

enum npuc_status tensor_scatter_legal(struct ir_ctx *cx, struct node *n)
{
    return infer_attr_in(cx, n, "mode", "linear circular");
}
