/* Operators that choose by an element's place or by the order of a row: Trilu, EyeLike, OneHot, ArgMax, ArgMin,
 * Hardmax. Places are numbers counted on the vector unit, so nothing is read but the operands. */
#include <math.h>

#include "backend/vector/gens.h"
#include "backend/vector/views.h"

struct selector {
    enum op op;
    bool (*check)(struct ir_ctx *cx, const struct node *n, const char **reason); /* NULL: always */
    enum npuc_status (*emit)(struct emit *e, struct node *n);
};

static void no_strides(const struct emit *e, expr strides[IR_MAX_RANK])
{
    for (int i = 0; i < IR_MAX_RANK; i++)
        strides[i] = expr_const(emit_pool(e), 0);
}

static struct vr *region_over(struct emit *e, const struct type *t)
{
    struct vr *r = ARENA_NEW(e->arena, struct vr);
    vr_init(r, e, t->rank, t->dims);
    return r;
}

/* Column minus row of the last two axes, as i64. */
static int diagonal(struct vr *r, int rank)
{
    expr strides[IR_MAX_RANK];
    no_strides(r->e, strides);
    strides[rank - 1] = expr_const(emit_pool(r->e), 1);
    strides[rank - 2] = expr_const(emit_pool(r->e), -1);
    return vr_iota(r, DT_I64, expr_const(emit_pool(r->e), 0), strides);
}

static enum npuc_status emit_trilu(struct emit *e, struct node *n)
{
    struct value *x = node_in(n, 0), *k = node_in(n, 1);
    struct vr *r = region_over(e, x->type);
    struct vr_view src, dst, at;
    view_own(e, x, &src);
    view_own(e, &n->out[0], &dst);
    int edge;
    if (k) {
        at = view_element(e, k, expr_const(emit_pool(e), 0));
        edge = vr_input(r, &at);
    } else {
        edge = vr_imm(r, DT_I64, 0);
    }
    const enum k_fn side = node_attr_int(n, "upper", 1) ? K_FN_GreaterOrEqual : K_FN_LessOrEqual;
    const int keep = vr_vec2(r, side, diagonal(r, x->type->rank), edge);
    const int zero = vr_imm(r, x->type->dtype, 0);
    vr_output(r, view_where(r, keep, vr_input(r, &src), zero), &dst);
    return vr_launch(r, "trilu", "Trilu");
}

static enum npuc_status emit_eye(struct emit *e, struct node *n)
{
    const struct type *t = n->out[0].type;
    struct vr *r = region_over(e, t);
    struct vr_view dst;
    view_own(e, &n->out[0], &dst);
    const int k = view_size(r, DT_I64, expr_const(emit_pool(e), node_attr_int(n, "k", 0)));
    const int hit = vr_vec2(r, K_FN_Equal, diagonal(r, 2), k);
    vr_output(r, vr_cast(r, t->dtype, hit), &dst);
    return vr_launch(r, "eye", "EyeLike");
}

static bool check_not_f64(struct ir_ctx *cx, const struct node *n, const char **reason)
{
    (void)cx;
    *reason = "the vector unit has no 64-bit floats";
    return node_in(n, 0)->type->dtype != DT_F64 && n->out[0].type->dtype != DT_F64 &&
           dtype_table[node_in(n, 0)->type->dtype].cls != DTC_COMPLEX;
}

/* ---- OneHot: out[.., d, ..] = index == d ? on : off ---- */

static bool check_one_hot(struct ir_ctx *cx, const struct node *n, const char **reason)
{
    return check_not_f64(cx, n, reason) && view_plain(cx, node_in(n, 2), reason);
}

static enum npuc_status emit_one_hot(struct emit *e, struct node *n)
{
    struct expr_pool *x = emit_pool(e);
    const struct type *t = n->out[0].type;
    const int axis = view_axis(n, "axis", -1, t->rank);
    struct vr *r = region_over(e, t);
    struct vr_view own, src, dst, off = view_element(e, node_in(n, 2), expr_const(x, 0)),
                                  on = view_element(e, node_in(n, 2), expr_const(x, 1));
    expr strides[IR_MAX_RANK];
    view_own(e, node_in(n, 0), &own);
    src = own;
    for (int i = 0; i < t->rank; i++)
        src.stride[i] = i == axis ? expr_const(x, 0) : own.stride[i < axis ? i : i - 1];
    view_own(e, &n->out[0], &dst);
    no_strides(e, strides);
    strides[axis] = expr_const(x, 1);
    const int index = vr_cast(r, DT_I64, vr_input(r, &src)), zero = vr_imm(r, DT_I64, 0);
    const int from_end = vr_vec2(r, K_FN_Add, index, view_size(r, DT_I64, t->dims[axis]));
    const int place = view_where(r, vr_vec2(r, K_FN_Less, index, zero), from_end, index);
    const int hit = vr_vec2(r, K_FN_Equal, place, vr_iota(r, DT_I64, expr_const(x, 0), strides));
    vr_output(r, view_where(r, hit, vr_input(r, &on), vr_input(r, &off)), &dst);
    return vr_launch(r, "one_hot", "OneHot");
}

/* ---- the first or last place of a row's extreme ---- */

/* Views with `axis` as the last iteration dimension. */
static void axis_last(struct vr_view *v, int axis, int rank)
{
    const expr s = v->stride[axis];
    for (int i = axis; i + 1 < rank; i++)
        v->stride[i] = v->stride[i + 1];
    v->stride[rank - 1] = s;
}

static struct vr *rows_along(struct emit *e, const struct type *t, int axis, int32_t *rank)
{
    expr dims[IR_MAX_RANK];
    struct vr *r = ARENA_NEW(e->arena, struct vr);
    for (int i = 0, d = 0; i < t->rank; i++)
        if (i != axis)
            dims[d++] = t->dims[i];
    dims[t->rank - 1] = t->dims[axis];
    *rank = t->rank;
    vr_init(r, e, t->rank, dims);
    return r;
}

/* Place (i32) of the extreme of each row: NaN is above all numbers, so the largest, and the smallest of NaN alone. */
static int extreme_place(struct vr *r, int x, bool largest, bool last)
{
    struct expr_pool *pool = emit_pool(r->e);
    const enum dtype t = r->values[x].dtype;
    const expr n = r->dims[r->rank - 1], final = expr_sub(pool, n, expr_const(pool, 1));
    expr strides[IR_MAX_RANK];
    no_strides(r->e, strides);
    strides[r->rank - 1] = expr_const(pool, 1);
    const int place = vr_iota(r, DT_I32, expr_const(pool, 0), strides);
    int hit;
    if (dtype_is_float(t)) {
        const int v = vr_cast(r, DT_F32, x), nan = vr_vec1(r, K_FN_IsNaN, v);
        const int number = view_where(r, nan, vr_imm(r, DT_F32, INFINITY), v);
        const int best = vr_reduce(r, largest ? K_RED_MAX : K_RED_MIN, largest ? v : number);
        hit = vr_vec2(r, K_FN_Equal, v, best);
        if (largest) /* the maximum is NaN when one is in the row */
            hit = vr_vec2(r, K_FN_Or, hit, vr_vec2(r, K_FN_And, nan, vr_vec1(r, K_FN_IsNaN, best)));
    } else {
        hit = vr_vec2(r, K_FN_Equal, x, vr_reduce(r, largest ? K_RED_MAX : K_RED_MIN, x));
    }
    const int none = view_size(r, DT_I32, last ? expr_const(pool, -1) : n);
    const int found = vr_reduce(r, last ? K_RED_MAX : K_RED_MIN, view_where(r, hit, place, none));
    const int otherwise =
        last ? view_size(r, DT_I32, expr_max(pool, final, expr_const(pool, 0))) : vr_imm(r, DT_I32, 0);
    /* rows of nothing give the neutral element, beyond `none`, and place 0 */
    const int absent = vr_vec2(r, last ? K_FN_LessOrEqual : K_FN_GreaterOrEqual, found, none);
    return view_where(r, absent, otherwise, found);
}

static bool check_arg(struct ir_ctx *cx, const struct node *n, const char **reason)
{
    const struct type *t = node_in(n, 0)->type;
    if (!check_not_f64(cx, n, reason))
        return false;
    *reason = "the rows hold 2^31 elements or more, or there are none";
    if (t->rank < 1)
        return false;
    const int axis = view_axis(n, "axis", n->op == OP_Hardmax ? -1 : 0, t->rank);
    return expr_range_of(&cx->exprs, t->dims[axis]).max <= INT32_MAX;
}

static enum npuc_status emit_arg(struct emit *e, struct node *n)
{
    const struct type *t = node_in(n, 0)->type;
    const int axis = view_axis(n, "axis", 0, t->rank);
    const bool keep = node_attr_int(n, "keepdims", 1) != 0;
    int32_t rank;
    struct vr *r = rows_along(e, t, axis, &rank);
    struct vr_view src, dst;
    view_own(e, node_in(n, 0), &src);
    axis_last(&src, axis, rank);
    view_own(e, &n->out[0], &dst);
    if (keep)
        axis_last(&dst, axis, rank);
    dst.stride[rank - 1] = expr_const(emit_pool(e), 0);
    const int place =
        extreme_place(r, vr_input(r, &src), n->op == OP_ArgMax, node_attr_int(n, "select_last_index", 0) != 0);
    vr_output(r, vr_cast(r, DT_I64, place), &dst);
    return vr_launch(r, "arg", op_table[n->op]->name);
}

static enum npuc_status emit_hardmax(struct emit *e, struct node *n)
{
    const struct type *t = n->out[0].type;
    const int axis = view_axis(n, "axis", -1, t->rank);
    int32_t rank;
    struct vr *r = rows_along(e, t, axis, &rank);
    struct vr_view src, dst;
    expr strides[IR_MAX_RANK];
    view_own(e, node_in(n, 0), &src);
    view_own(e, &n->out[0], &dst);
    axis_last(&src, axis, rank);
    axis_last(&dst, axis, rank);
    no_strides(e, strides);
    strides[rank - 1] = expr_const(emit_pool(e), 1);
    const int best = extreme_place(r, vr_input(r, &src), true, false);
    const int place = vr_iota(r, DT_I32, expr_const(emit_pool(e), 0), strides);
    vr_output(r, vr_cast(r, t->dtype, vr_vec2(r, K_FN_Equal, place, best)), &dst);
    return vr_launch(r, "hardmax", "Hardmax");
}

static const struct selector selectors[] = {
    {OP_Trilu, NULL, emit_trilu},     {OP_EyeLike, check_not_f64, emit_eye}, {OP_OneHot, check_one_hot, emit_one_hot},
    {OP_ArgMax, check_arg, emit_arg}, {OP_ArgMin, check_arg, emit_arg},      {OP_Hardmax, check_arg, emit_hardmax},
};

static const struct selector *find_selector(const struct node *n)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(selectors); i++)
        if (selectors[i].op == (enum op)n->op)
            return &selectors[i];
    return NULL;
}

bool gen_select_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    const struct selector *s = find_selector(n);
    (void)m;
    if (!s)
        return false;
    if ((n->op != OP_EyeLike && !view_plain(cx, node_in(n, 0), reason)) || !view_plain(cx, &n->out[0], reason))
        return false;
    return !s->check || s->check(cx, n, reason);
}

enum npuc_status gen_select_emit(struct emit *e, struct node *n)
{
    return find_selector(n)->emit(e, n);
}
