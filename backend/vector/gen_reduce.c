/* Reductions that need their rows gathered first: over axes that are no neighbours or that are read at run time, of
 * integers and truth values, LogSumExp, means of rows of any length. A first launch copies the operand with the reduced
 * axes last, a second one reduces rows in the order of the reference. Also MeanVarianceNormalization, with a way back.
 */
#include <math.h>

#include "backend/vector/gens.h"
#include "backend/vector/views.h"

/* The operand as rows: 2 * rank dimensions, those that stay and then those that are reduced; one of each pair is 1. */
struct rows {
    int rank;
    expr dims[IR_MAX_RANK], strides[IR_MAX_RANK]; /* of the operand */
    expr n_rows, n_cols;
};

struct reduction {
    enum op op;
    enum k_red red;
    enum k_fn after;
    bool mean, floats_only;
};
static const struct reduction reductions[] = {
    {OP_ReduceSum, K_RED_SUM, K_FN_none, false, false},
    {OP_ReduceMean, K_RED_SUM, K_FN_none, true, false},
    {OP_ReduceMax, K_RED_MAX, K_FN_none, false, false},
    {OP_ReduceMin, K_RED_MIN, K_FN_none, false, false},
    {OP_ReduceProd, K_RED_PROD, K_FN_none, false, false},
    {OP_ReduceSumSquare, K_RED_SUMSQ, K_FN_none, false, false},
    {OP_ReduceL1, K_RED_ABSSUM, K_FN_none, false, false},
    {OP_ReduceL2, K_RED_SUMSQ, K_FN_Sqrt, false, true},
    {OP_ReduceLogSum, K_RED_SUM, K_FN_Log, false, true},
    {OP_ReduceLogSumExp, K_RED_SUM, K_FN_Exp, false, true},
    {OP_MeanVarianceNormalization, K_RED_SUM, K_FN_none, true, true},
};

static const struct reduction *find_reduction(const struct node *n)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(reductions); i++)
        if (reductions[i].op == (enum op)n->op)
            return &reductions[i];
    return NULL;
}

static void mark(struct expr_pool *x, expr *hit, int rank, expr axis)
{
    const expr zero = expr_const(x, 0);
    axis = expr_select(x, expr_cmp(x, EXPR_LT, axis, zero), expr_add(x, axis, expr_const(x, rank)), axis);
    for (int i = 0; i < rank; i++)
        hit[i] = expr_max(x, hit[i], expr_cmp(x, EXPR_EQ, axis, expr_const(x, i)));
}

/* hit[i]: 1 when axis i is reduced, as an expression. false when an axis is not known before its step. */
static bool reduced_axes(struct ir_ctx *cx, const struct node *n, expr *hit)
{
    struct expr_pool *x = &cx->exprs;
    const int rank = node_in(n, 0)->type->rank;
    const bool moments = n->op == OP_MeanVarianceNormalization;
    const struct attr *a = moments ? node_attr(n, "axes") : NULL;
    struct value *axes = moments ? NULL : node_in(n, 1);
    const int64_t count = axes ? value_n_elems(cx, axes) : 0;
    const expr all = expr_const(x, !moments && count == 0);
    for (int i = 0; i < rank; i++)
        hit[i] = all;
    static const int64_t usual[] = {0, 2, 3};
    const bool given = a && a->len > 0;
    for (int64_t i = 0; moments && i < (given ? a->len : NPUC_ARRAY_LEN(usual)); i++)
        mark(x, hit, rank, expr_const(x, given ? a->v.ints[i] : usual[i]));
    for (int64_t i = 0; i < count; i++) {
        const expr axis = value_elem(cx, axes, i);
        if (axis == EXPR_INVALID)
            return false;
        mark(x, hit, rank, axis);
    }
    return count >= 0 && (count > 0 || moments || node_attr_int(n, "noop_with_empty_axes", 0) == 0);
}

static bool rows_of(struct ir_ctx *cx, const struct node *n, struct rows *r)
{
    struct expr_pool *x = &cx->exprs;
    const struct type *t = node_in(n, 0)->type;
    expr hit[IR_MAX_RANK], own[IR_MAX_RANK];
    const expr one = expr_const(x, 1), zero = expr_const(x, 0);
    if (t->rank > IR_MAX_RANK / 2 || !reduced_axes(cx, n, hit) || !value_strides(cx, node_in(n, 0), own))
        return false;
    *r = (struct rows){
        .rank = t->rank ? 2 * t->rank : 1, .dims = {one}, .strides = {zero}, .n_rows = one, .n_cols = one};
    for (int i = 0; i < t->rank; i++) {
        r->dims[i] = expr_select(x, hit[i], one, t->dims[i]);
        r->dims[t->rank + i] = expr_select(x, hit[i], t->dims[i], one);
        r->strides[i] = expr_select(x, hit[i], zero, own[i]);
        r->strides[t->rank + i] = expr_select(x, hit[i], own[i], zero);
        r->n_rows = expr_mul(x, r->n_rows, r->dims[i]);
        r->n_cols = expr_mul(x, r->n_cols, r->dims[t->rank + i]);
    }
    return true;
}

bool gen_reduce_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    struct rows r;
    const struct reduction *d = find_reduction(n);
    (void)m;
    if (!d)
        return false;
    const struct type *t = node_in(n, 0)->type;
    if (!view_plain(cx, node_in(n, 0), reason))
        return false;
    *reason = "the vector unit has no 64-bit floats";
    if (t->dtype == DT_F64 || dtype_table[t->dtype].cls == DTC_COMPLEX)
        return false;
    *reason = "roots and logarithms of integers are computed in 64-bit floats, which the vector unit has not";
    if (d->floats_only && !dtype_is_float(t->dtype))
        return false;
    *reason = "the axes are not known before the step, or the rank is above 8";
    return rows_of(cx, n, &r);
}

/* max + log(sum(exp(x - max))); an infinite maximum is the result. */
static int log_sum_exp(struct vr *r, int x)
{
    const int max = vr_reduce(r, K_RED_MAX, x);
    const int e = vr_vec1(r, K_FN_Exp, vr_vec2(r, K_FN_Sub, x, max));
    const int sum = vr_vec2(r, K_FN_Add, max, vr_vec1(r, K_FN_Log, vr_reduce(r, K_RED_SUM, e)));
    const int end = vr_vec2(r, K_FN_Equal, vr_vec1(r, K_FN_Abs, max), vr_imm(r, DT_F32, INFINITY));
    return view_where(r, end, max, sum);
}

static int float_row(struct vr *r, const struct node *n, const struct reduction *d, int x, expr n_cols)
{
    if (n->op == OP_ReduceLogSumExp)
        return log_sum_exp(r, x);
    const int count = view_size(r, DT_F32, n_cols);
    int v = vr_reduce(r, d->red, x);
    if (d->mean)
        v = vr_vec2(r, K_FN_Div, v, count);
    if (n->op != OP_MeanVarianceNormalization)
        return d->after == K_FN_none ? v : vr_vec1(r, d->after, v);
    const int apart = vr_vec2(r, K_FN_Sub, x, v);
    const int variance = vr_vec2(r, K_FN_Div, vr_reduce(r, K_RED_SUMSQ, apart), count);
    const int deviation = vr_vec2(r, K_FN_Add, vr_vec1(r, K_FN_Sqrt, variance), vr_imm(r, DT_F32, 1e-9f));
    return vr_vec2(r, K_FN_Div, apart, deviation);
}

static int row_value(struct vr *r, const struct node *n, const struct reduction *d, int x, expr n_cols)
{
    const enum dtype t = n->out[0].type->dtype;
    if (dtype_is_float(t))
        return vr_cast(r, t, float_row(r, n, d, vr_cast(r, DT_F32, x), n_cols));
    if (!d->mean)
        return vr_reduce(r, d->red, x);
    const int sum = vr_reduce(r, K_RED_SUM, vr_cast(r, DT_I64, x));
    const expr some = expr_max(&r->e->cx->exprs, n_cols, expr_const(&r->e->cx->exprs, 1));
    return vr_cast(r, t, vr_vec2(r, K_FN_Div, sum, view_size(r, DT_I64, some)));
}

static struct vr_view strided(const struct rows *r, int32_t tensor, enum dtype t, expr offset)
{
    struct vr_view w = {.tensor = tensor, .dtype = t, .offset = offset};
    for (int i = 0; i < r->rank; i++)
        w.stride[i] = r->strides[i];
    return w;
}

enum npuc_status gen_reduce_emit(struct emit *e, struct node *n)
{
    struct expr_pool *x = &e->cx->exprs;
    const struct reduction *d = find_reduction(n);
    const char *label = op_table[n->op]->name;
    const enum dtype t = node_in(n, 0)->type->dtype;
    struct rows rows;
    if (!rows_of(e->cx, n, &rows))
        return node_error(e->cx, n, D_UNSUPPORTED, "the axes are not known before the step");
    const expr zero = expr_const(x, 0), dims[2] = {rows.n_rows, rows.n_cols};
    const bool whole = n->op == OP_MeanVarianceNormalization;
    const int32_t in = emit_temp(e, "rows", t, 2, dims),
                  out = whole ? emit_temp(e, "result", t, 2, dims) : emit_tensor(e, &n->out[0]);
    const struct vr_view src = strided(&rows, emit_tensor(e, node_in(n, 0)), t, zero),
                         dst = view_dense(e, in, t, rows.rank, rows.dims);
    enum npuc_status s = view_copy(e, rows.rank, rows.dims, &dst, &src, label);
    if (s != NPUC_OK)
        return s;
    struct vr *r = ARENA_NEW(e->arena, struct vr);
    vr_init(r, e, 2, dims);
    const struct vr_view row = view_dense(e, in, t, 2, dims);
    struct vr_view result = view_dense(e, out, n->out[0].type->dtype, whole ? 2 : 1, dims);
    if (!whole)
        result.stride[1] = zero;
    vr_output(r, row_value(r, n, d, vr_input(r, &row), rows.n_cols), &result);
    s = vr_launch(r, "reduce", label);
    if (s != NPUC_OK || !whole)
        return s;
    const struct vr_view from = view_dense(e, out, t, rows.rank, rows.dims),
                         back = strided(&rows, emit_tensor(e, &n->out[0]), t, zero);
    return view_copy(e, rows.rank, rows.dims, &back, &from, label);
}
