/* Which keys a row of attention can see at all, from how its mask is computed: in Where(keep, scores, -inf), `keep` is
 * a comparison of the key's number with the row's, or several of them joined. Chunks outside of the band change nothing
 * (kernels/attend_chunks.h) and are left out; masks from data leave the band as wide as it is. */
#include "backend/ascend/attention.h"

#include <math.h>

#define MOST_STEPS 64 /* operators followed back from a mask: bounds time and recursion */
#define MOST_RAMP  65536
#define MOST_MASK  (1 << 22) /* elements of a constant mask that are looked at */

/* Integers that grow by one along one dimension: index + first. axis: from the last, 0 and 1; -1: one number. */
struct ramp {
    int axis;
    expr first;
};

struct reader {
    struct ir_ctx *cx;
    expr rows; /* of a plane */
    int steps;
};

/* The value as the graph around a region sees it, or as the region that computes it does. */
static const struct value *origin(const struct value *v)
{
    for (;;) {
        const struct node *owner = v->graph ? v->graph->owner : NULL;
        if (!v->def && owner && owner->op == OP_Fused && (int)v->index < owner->n_in)
            v = node_in(owner, (int)v->index);
        else if (v->def && v->def->op == OP_Fused)
            v = node_in(graph_yield(node_region(v->def, 0)), (int)v->index);
        else if (v->def && (v->def->op == OP_Identity || (v->def->op == OP_Cast && dtype_is_integer(v->type->dtype) &&
                                                          dtype_size(v->type->dtype) >= 4)))
            v = node_in(v->def, 0);
        else
            return v;
    }
}

/* The only dimension that is not one, from the last; -1 none, -2 several. */
static int only_axis(struct ir_ctx *cx, const struct type *t)
{
    int axis = -1;
    for (int i = 0; i < t->rank; i++)
        if (!expr_is_one(&cx->exprs, t->dims[t->rank - 1 - i]))
            axis = axis == -1 ? i : -2;
    return axis;
}

static bool constant_ramp(struct ir_ctx *cx, const struct value *v, struct ramp *out)
{
    int64_t n;
    double first, at;
    if (!expr_is_const(&cx->exprs, v->type->dims[v->type->rank - 1 - out->axis], &n) || n > MOST_RAMP ||
        !value_const_f64(v, 0, &first) || fabs(first) > 0x1p50)
        return false;
    for (int64_t i = 1; i < n; i++)
        if (!value_const_f64(v, i, &at) || at != first + (double)i)
            return false;
    out->first = expr_const(&cx->exprs, (int64_t)first);
    return true;
}

static bool read_ramp(struct reader *r, const struct value *v, struct ramp *out);

static bool sum(struct reader *r, const struct node *n, struct ramp *out)
{
    struct expr_pool *x = &r->cx->exprs;
    struct ramp a, b;
    if (!read_ramp(r, node_in(n, 0), &a) || !read_ramp(r, node_in(n, 1), &b))
        return false;
    const bool minus = n->op == OP_Sub;
    if ((a.axis >= 0 && b.axis >= 0) || (minus && b.axis >= 0))
        return false;
    *out = (struct ramp){a.axis >= 0 ? a.axis : b.axis,
                         minus ? expr_sub(x, a.first, b.first) : expr_add(x, a.first, b.first)};
    return true;
}

/* Is the value an integer ramp? A view keeps the order of elements, so that the only long dimension tells where it
 * lies. */
static bool read_ramp(struct reader *r, const struct value *v, struct ramp *out)
{
    struct ir_ctx *cx = r->cx;
    v = origin(v);
    out->axis = v->type->kind == TYPE_TENSOR ? only_axis(cx, v->type) : -2;
    if (r->steps++ > MOST_STEPS || out->axis == -2 || out->axis > 1 || !dtype_is_integer(v->type->dtype))
        return false;
    if (out->axis == -1 && value_n_elems(cx, v) == 1) {
        out->first = value_elem(cx, v, 0);
        return out->first != EXPR_INVALID;
    }
    const struct node *n = v->def;
    if (!n)
        return false;
    if (n->op == OP_Constant)
        return out->axis >= 0 && constant_ramp(cx, v, out);
    if (n->op == OP_Add || n->op == OP_Sub)
        return sum(r, n, out);
    if (n->op == OP_Range) {
        out->first = value_elem(cx, origin(node_in(n, 0)), 0);
        return out->first != EXPR_INVALID && value_elem(cx, origin(node_in(n, 2)), 0) == expr_const(&cx->exprs, 1);
    }
    if (!op_has((enum op)n->op, T_VIEW))
        return false;
    const int axis = out->axis;
    const bool known = read_ramp(r, node_in(n, 0), out) && (out->axis >= 0) == (axis >= 0);
    out->axis = axis;
    return known;
}

/* Both bounds of `by` hold, too. */
static void narrow(struct ir_ctx *cx, struct att_band *b, const struct att_band *by)
{
    struct expr_pool *x = &cx->exprs;
    if (by->has_last)
        b->last = b->has_last ? expr_min(x, b->last, by->last) : by->last;
    if (by->has_first)
        b->first = b->has_first ? expr_max(x, b->first, by->first) : by->first;
    b->has_last |= by->has_last;
    b->has_first |= by->has_first;
}

/* Keys of either. */
static void widen(struct ir_ctx *cx, struct att_band *b, const struct att_band *by)
{
    struct expr_pool *x = &cx->exprs;
    b->has_last = b->has_last && by->has_last;
    b->has_first = b->has_first && by->has_first;
    if (b->has_last)
        b->last = expr_max(x, b->last, by->last);
    if (b->has_first)
        b->first = expr_min(x, b->first, by->first);
}

/* low <= high, or low < high. Where one of them is a number, row 0 has the widest band to the right, the last row to
 * the left. */
static void compare(struct reader *r, const struct value *low, const struct value *high, bool strictly,
                    struct att_band *out)
{
    struct expr_pool *x = &r->cx->exprs;
    const expr one = expr_const(x, 1);
    struct ramp a, b;
    if (!read_ramp(r, low, &a) || !read_ramp(r, high, &b))
        return;
    const expr less = expr_const(x, strictly ? 1 : 0), apart = expr_sub(x, expr_sub(x, b.first, a.first), less);
    if (a.axis == 0 && b.axis != 0) { /* key + a <= row + b */
        out->has_last = true;
        out->last = apart;
    }
    if (a.axis != 0 && b.axis == 0) { /* row + a <= key + b */
        out->has_first = true;
        out->first = expr_sub(x, a.axis == 1 ? expr_const(x, 0) : expr_sub(x, one, r->rows), apart);
    }
}

/* The widest band of a mask that is known as a whole. */
static void scan(struct reader *r, const struct value *v, struct att_band *out)
{
    struct expr_pool *x = &r->cx->exprs;
    const struct type *t = v->type;
    int64_t rows, cols, first = INT64_MAX, last = INT64_MIN;
    double kept;
    if (t->rank < 2 || !expr_is_const(x, t->dims[t->rank - 2], &rows) ||
        !expr_is_const(x, t->dims[t->rank - 1], &cols) || rows > MOST_RAMP || cols > MOST_RAMP ||
        rows * cols > MOST_MASK || type_const_count(r->cx, t) != rows * cols || t->dims[t->rank - 2] != r->rows)
        return;
    for (int64_t i = 0; i < rows * cols; i++) {
        if (!value_const_f64(v, i, &kept))
            return;
        const int64_t apart = i % cols - i / cols;
        first = kept != 0 && apart < first ? apart : first;
        last = kept != 0 && apart > last ? apart : last;
    }
    if (last < first)
        return;
    *out = (struct att_band){true, true, expr_const(x, first), expr_const(x, last)};
}

/* A view that adds or drops dimensions in front of the rows. */
static bool keeps_rows(const struct node *n)
{
    const struct type *from = node_in(n, 0)->type, *to = n->out[0].type;
    return op_has((enum op)n->op, T_VIEW) && from->rank >= 2 && to->rank >= 2 &&
           from->dims[from->rank - 1] == to->dims[to->rank - 1] && from->dims[from->rank - 2] == to->dims[to->rank - 2];
}

static struct att_band read_keep(struct reader *r, const struct value *v)
{
    struct att_band band = {.has_last = false}, other;
    v = origin(v);
    const struct node *n = v->def;
    if (!n || r->steps++ > MOST_STEPS || v->type->dtype != DT_BOOL)
        return band;
    switch (n->op) {
    case OP_Constant: scan(r, v, &band); break;
    case OP_LessOrEqual:
    case OP_Less: compare(r, node_in(n, 0), node_in(n, 1), n->op == OP_Less, &band); break;
    case OP_GreaterOrEqual:
    case OP_Greater: compare(r, node_in(n, 1), node_in(n, 0), n->op == OP_Greater, &band); break;
    case OP_Equal:
        compare(r, node_in(n, 0), node_in(n, 1), false, &band);
        compare(r, node_in(n, 1), node_in(n, 0), false, &band);
        break;
    case OP_And:
    case OP_Or:
        band = read_keep(r, node_in(n, 0));
        other = read_keep(r, node_in(n, 1));
        (n->op == OP_And ? narrow : widen)(r->cx, &band, &other);
        break;
    default: band = keeps_rows(n) ? read_keep(r, node_in(n, 0)) : band; break;
    }
    return band;
}

static bool is_minus_infinity(const struct value *v)
{
    double number;
    v = origin(v);
    return value_const_f64(v, 0, &number) && isinf(number) && number < 0;
}

struct att_band att_read_band(struct ir_ctx *cx, const struct att *a)
{
    struct reader r = {.cx = cx, .rows = a->plane_rows};
    struct att_band band = {.has_last = false};
    const struct value *v = node_in(a->soft, 0);
    while (v->def && v->def != a->qk && v->graph == node_region(a->fused, 0)) {
        const struct node *n = v->def;
        const struct type *t = n->out[0].type;
        const bool view = op_has((enum op)n->op, T_VIEW) || n->op == OP_Identity || n->op == OP_Cast;
        const bool mask = n->op == OP_Where && t->rank >= 2 && t->dims[t->rank - 2] == a->plane_rows &&
                          t->dims[t->rank - 1] == a->total && type_const_count(cx, node_in(n, 2)->type) == 1 &&
                          is_minus_infinity(node_in(n, 2));
        if (!view && !mask)
            break;
        if (mask) {
            const struct att_band by = read_keep(&r, node_in(n, 0));
            narrow(cx, &band, &by);
        }
        v = node_in(n, mask ? 1 : 0);
    }
    return band;
}
