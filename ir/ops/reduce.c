/* Reductions over axes, cumulative sums, softmax, selection of extremes. */
#include "ir/ops/infer.h"

static enum npuc_status same_reduce_infer(struct ir_ctx *cx, struct node *n)
{
    const enum npuc_status s = infer_begin(cx, n);
    const struct shape x = infer_shape(n, 0);
    if (s != NPUC_OK)
        return s;
    return x.rank < 0 ? infer_out_unknown(cx, n, 0, infer_dtype(n, 0)) : infer_out(cx, n, 0, infer_dtype(n, 0), &x);
}

/* ---- Reduce* */

/* Marks the reduced axes. *known is false when they are not constant; *none: the operator copies its input. */
static enum npuc_status reduce_axes(struct ir_ctx *cx, struct node *n, int rank, bool *mark, bool *known, bool *none)
{
    int64_t axes[INFER_MAX_ELEMS], len = 0;
    const bool empty = !infer_has(n, 1) || infer_len(cx, n, 1) == 0;
    *none = empty && node_attr_int(n, "noop_with_empty_axes", 0) != 0;
    *known = empty || infer_ints(cx, n, 1, axes, &len);
    for (int i = 0; i < rank; i++)
        mark[i] = empty && !*none;
    for (int64_t i = 0; *known && !empty && i < len; i++) {
        int axis;
        const enum npuc_status s = infer_axis(cx, n, "axis", axes[i], rank, &axis);
        if (s != NPUC_OK)
            return s;
        mark[axis] = true;
    }
    return NPUC_OK;
}

static expr sum(struct ir_ctx *cx, expr a, expr b)
{
    return expr_add(&cx->exprs, a, b);
}
static expr product(struct ir_ctx *cx, expr a, expr b)
{
    return expr_mul(&cx->exprs, a, b);
}
/* Reductions whose result on known integers is an expression. */
static const struct {
    enum op op;
    expr (*combine)(struct ir_ctx *cx, expr a, expr b);
} followed[] = {{OP_ReduceSum, sum}, {OP_ReduceProd, product}, {OP_ReduceMax, infer_max}, {OP_ReduceMin, infer_min}};

/* Of a followed vector that is reduced to one element. */
static void reduce_elems(struct ir_ctx *cx, struct node *n, bool none)
{
    expr e[INFER_MAX_ELEMS];
    int64_t len;
    if (!infer_tracks(infer_dtype(n, 0)) || infer_dtype(n, 0) == DT_BOOL || !infer_elems(cx, n, 0, e, &len))
        return;
    if (none || len == 0) {
        if (none)
            infer_set_elems(cx, n, 0, e, len);
        return;
    }
    for (int64_t k = 0; k < NPUC_ARRAY_LEN(followed); k++) {
        if (followed[k].op != n->op)
            continue;
        expr all = e[0];
        for (int64_t i = 1; i < len && all; i++)
            all = e[i] ? followed[k].combine(cx, all, e[i]) : EXPR_INVALID;
        infer_set_elems(cx, n, 0, &all, 1);
    }
}

/* Sizes where the axes are followed: hit is 1 for a reduced axis; without the reduced axes, place k holds the k-th of
 * the others. false when an axis is not followed. */
static bool reduce_followed_axes(struct ir_ctx *cx, const struct node *n, const struct shape *x, bool keep,
                                 struct shape *out)
{
    struct expr_pool *p = &cx->exprs;
    expr axes[INFER_MAX_ELEMS], hit[IR_MAX_RANK];
    const expr zero = expr_const(p, 0), one = expr_const(p, 1);
    int64_t len;
    if (!infer_elems(cx, n, 1, axes, &len) || len > x->rank)
        return false;
    for (int i = 0; i < x->rank; i++) {
        hit[i] = zero;
        for (int64_t k = 0; k < len; k++) {
            if (axes[k] == EXPR_INVALID)
                return false;
            const expr at = expr_select(p, expr_cmp(p, EXPR_LT, axes[k], zero),
                                        expr_add(p, axes[k], expr_const(p, x->rank)), axes[k]);
            hit[i] = expr_max(p, hit[i], expr_cmp(p, EXPR_EQ, at, expr_const(p, i)));
        }
    }
    out->rank = keep ? x->rank : x->rank - (int)len;
    for (int i = 0; i < out->rank; i++)
        out->d[i] = keep ? expr_select(p, hit[i], one, x->d[i]) : zero;
    expr before = zero;
    for (int i = 0; i < x->rank && !keep; i++) {
        const expr stays = expr_sub(p, one, hit[i]);
        for (int k = 0; k < out->rank; k++)
            out->d[k] = expr_add(
                p, out->d[k],
                expr_select(p, expr_mul(p, stays, expr_cmp(p, EXPR_EQ, before, expr_const(p, k))), x->d[i], zero));
        before = expr_add(p, before, stays);
    }
    return true;
}

static enum npuc_status reduce_unknown_axes(struct ir_ctx *cx, struct node *n, const struct shape *x, bool keep)
{
    const int64_t len = infer_len(cx, n, 1);
    const int rank = x->rank;
    struct shape known;
    if (reduce_followed_axes(cx, n, x, keep, &known))
        return infer_out(cx, n, 0, infer_dtype(n, 0), &known);
    if (!keep && (len < 0 || len > rank))
        return infer_out_unknown(cx, n, 0, infer_dtype(n, 0));
    const struct shape out = infer_fresh_shape(cx, n, 0, keep ? rank : rank - (int)len);
    return infer_out(cx, n, 0, infer_dtype(n, 0), &out);
}

static enum npuc_status reduce_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_dtype_is(cx, n, 1, DT_I64, DT_I64);
    if (s != NPUC_OK)
        return s;
    const struct shape x = infer_shape(n, 0);
    const bool keep = node_attr_int(n, "keepdims", 1) != 0;
    bool mark[IR_MAX_RANK] = {false}, known, none;
    if (x.rank < 0)
        return infer_out_unknown(cx, n, 0, infer_dtype(n, 0));
    s = reduce_axes(cx, n, x.rank, mark, &known, &none);
    if (s != NPUC_OK)
        return s;
    if (!known)
        return reduce_unknown_axes(cx, n, &x, keep);
    struct shape out = {.rank = 0};
    for (int i = 0; i < x.rank; i++)
        if (!mark[i] || keep)
            out.d[out.rank++] = mark[i] ? expr_const(&cx->exprs, 1) : x.d[i];
    s = infer_out(cx, n, 0, infer_dtype(n, 0), &out);
    if (s == NPUC_OK && x.rank <= 1)
        reduce_elems(cx, n, none || (x.rank == 1 && !mark[0]));
    return s;
}

/* Over axes of size 1 only, with the shape kept: a copy (for the sums of squares and the like it is none). */
static struct value *reduce_fold(struct ir_ctx *cx, struct node *n)
{
    struct value *x = same_type_fold(cx, n);
    bool mark[IR_MAX_RANK] = {false}, known, none;
    if (!x || reduce_axes(cx, n, x->type->rank, mark, &known, &none) != NPUC_OK || !known)
        return NULL;
    for (int i = 0; i < x->type->rank; i++)
        if (mark[i] && !infer_dim_is(cx, x->type->dims[i], 1))
            return NULL;
    return x;
}

static void reduce_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    cost_bytes(cx, n, symbols, c);
    c->alu = cost_count(cx, node_in(n, 0), symbols);
}

/* ---- ArgMax, TopK, Softmax */

static enum npuc_status arg_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s != NPUC_OK)
        return s;
    const struct shape x = infer_shape(n, 0);
    int axis;
    if (x.rank < 0)
        return infer_out_unknown(cx, n, 0, DT_I64);
    s = infer_axis_attr(cx, n, "axis", x.rank ? x.rank : 1, &axis);
    if (s != NPUC_OK)
        return s;
    if (x.rank && infer_dim_is(cx, x.d[axis], 0))
        return node_error(cx, n, D_SHAPE_MISMATCH, "input 0 of type %s has no element on axis %d to choose from",
                          type_text(cx, node_in(n, 0)->type), axis);
    const bool keep = node_attr_int(n, "keepdims", 1) != 0;
    struct shape out = {.rank = 0};
    for (int i = 0; i < x.rank; i++)
        if (i != axis || keep)
            out.d[out.rank++] = i == axis ? expr_const(&cx->exprs, 1) : x.d[i];
    return infer_out(cx, n, 0, DT_I64, &out);
}

static enum npuc_status top_k_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_dtype_is(cx, n, 1, DT_I64, DT_I64);
    if (s != NPUC_OK)
        return s;
    struct shape out = infer_shape(n, 0);
    int axis;
    if (out.rank < 0) {
        s = infer_out_unknown(cx, n, 0, infer_dtype(n, 0));
        return s == NPUC_OK ? infer_out_unknown(cx, n, 1, DT_I64) : s;
    }
    s = infer_axis_attr(cx, n, "axis", out.rank, &axis);
    if (s != NPUC_OK)
        return s;
    const expr k = value_elem(cx, n->in[1].value, 0);
    int64_t want, have;
    if (k && expr_is_const(&cx->exprs, k, &want) && expr_is_const(&cx->exprs, out.d[axis], &have) &&
        (want < 0 || want > have))
        return node_error(cx, n, D_SHAPE_MISMATCH, "input 1 (k) is %lld, expected 0..%lld", (long long)want,
                          (long long)have);
    out.d[axis] = k ? k : infer_fresh(cx, n, 0, axis);
    s = infer_out(cx, n, 0, infer_dtype(n, 0), &out);
    return s == NPUC_OK ? infer_out(cx, n, 1, DT_I64, &out) : s;
}

static enum npuc_status softmax_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    const struct shape x = infer_shape(n, 0);
    int axis;
    if (s == NPUC_OK)
        s = infer_is_float(cx, n, 0);
    if (s == NPUC_OK && x.rank > 0)
        s = infer_axis_attr(cx, n, "axis", x.rank, &axis);
    return s == NPUC_OK ? same_reduce_infer(cx, n) : s;
}

/* Maximum, subtraction, exponential (8), sum, division (4). */
static void softmax_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    cost_bytes(cx, n, symbols, c);
    c->alu = 15 * cost_count(cx, node_in(n, 0), symbols);
}

#include "ir/ops/rows.h"

#include "ir/ops/reduce.def"
