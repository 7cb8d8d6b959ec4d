/* Bands of masks: integers that grow by one along rows or keys are followed back from the comparisons. */
#include "ir/band.h"

#include <math.h>

#define MOST_STEPS 64 /* operators followed back from a mask: bounds time and recursion */
#define MOST_RAMP  65536
#define MOST_MASK  (1 << 22) /* elements of a constant mask that are looked at */

/* Integers that grow by one along one dimension: index + first. axis: from the last, 0 and 1; -1: one number. data: a
 * number per sequence is added, in memory; NULL: none is. */
struct ramp {
    int axis;
    expr first;
    struct value *data;
};

struct reader {
    struct ir_ctx *cx;
    expr rows; /* of a plane */
    int rank;  /* of the mask: of numbers per sequence, which broadcasting must leave where they are; 0: none may be */
    int steps;
    bool hides; /* what is true is hidden, not kept */
};

static bool is_wide_cast(const struct node *n)
{
    return n->op == OP_Cast && dtype_is_integer(n->out[0].type->dtype) && dtype_size(n->out[0].type->dtype) >= 4;
}

const struct value *ir_origin(const struct value *v)
{
    for (;;) {
        const struct node *owner = v->graph ? v->graph->owner : NULL;
        if (!v->def && owner && owner->op == OP_Fused && (int)v->index < owner->n_in)
            v = node_in(owner, (int)v->index);
        else if (v->def && v->def->op == OP_Fused)
            v = node_in(graph_yield(node_region(v->def, 0)), (int)v->index);
        else if (v->def && (v->def->op == OP_Identity || is_wide_cast(v->def)))
            v = node_in(v->def, 0);
        else
            return v;
    }
}

/* What a region computes as the graph around it sees it; NULL: it does not. */
static struct value *in_memory(const struct value *v)
{
    const struct node *owner = v->graph ? v->graph->owner : NULL;
    if (!owner || !v->def)
        return v->def ? &v->def->out[v->index] : v->graph->inputs[v->index];
    const struct node *yield = owner->op == OP_Fused ? graph_yield(v->graph) : NULL;
    for (int i = 0; yield && i < yield->n_in; i++)
        if (node_in(yield, i) == v)
            return node_out(owner, i);
    return NULL;
}

static bool one_per_sequence(struct ir_ctx *cx, const struct type *t)
{
    bool ok = t->kind == TYPE_TENSOR && t->rank > 0 && (t->dtype == DT_I64 || t->dtype == DT_I32);
    for (int i = 1; ok && i < t->rank; i++)
        ok = expr_is_one(&cx->exprs, t->dims[i]);
    return ok;
}

struct value *ir_numbers(struct ir_ctx *cx, const struct value *v)
{
    for (int steps = 0; v && one_per_sequence(cx, v->type) && steps < MOST_STEPS; steps++) {
        const struct node *owner = v->graph ? v->graph->owner : NULL, *n = v->def;
        if (!n && owner && owner->op == OP_Fused && (int)v->index < owner->n_in)
            v = node_in(owner, (int)v->index);
        else if (n && (n->op == OP_Identity || is_wide_cast(n) || op_has((enum op)n->op, T_VIEW)) &&
                 one_per_sequence(cx, node_in(n, 0)->type))
            v = node_in(n, 0);
        else
            return value_const(v) ? NULL : in_memory(v);
    }
    return NULL;
}

/* The only one of the last two dimensions that is not one, from the last; -1 none, -2 both. *wide: others are not,
 * either. */
static int only_axis(struct ir_ctx *cx, const struct type *t, bool *wide)
{
    int axis = -1;
    *wide = false;
    for (int i = 0; i < t->rank; i++) {
        if (expr_is_one(&cx->exprs, t->dims[t->rank - 1 - i]))
            continue;
        *wide |= i > 1;
        axis = i > 1 ? axis : axis == -1 ? i : -2;
    }
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
    if ((a.axis >= 0 && b.axis >= 0) || (minus && (b.axis >= 0 || b.data)) || (a.data && b.data))
        return false;
    *out =
        (struct ramp){a.axis >= 0 ? a.axis : b.axis,
                      minus ? expr_sub(x, a.first, b.first) : expr_add(x, a.first, b.first), a.data ? a.data : b.data};
    return true;
}

/* Numbers per sequence that are read as they are. */
static bool read_data(struct reader *r, const struct value *v, struct ramp *out)
{
    const bool placed = v->type->rank > 2 && v->type->rank == r->rank;
    *out = (struct ramp){-1, expr_const(&r->cx->exprs, 0), placed ? ir_numbers(r->cx, v) : NULL};
    return out->data != NULL;
}

static bool follow(struct reader *r, const struct node *n, int axis, struct ramp *out)
{
    struct ir_ctx *cx = r->cx;
    if (n->op == OP_Constant)
        return axis >= 0 && constant_ramp(cx, &n->out[0], out);
    if (n->op == OP_Add || n->op == OP_Sub)
        return sum(r, n, out);
    if (n->op == OP_Range) {
        out->first = value_elem(cx, ir_origin(node_in(n, 0)), 0);
        return out->first != EXPR_INVALID && value_elem(cx, ir_origin(node_in(n, 2)), 0) == expr_const(&cx->exprs, 1);
    }
    const bool known =
        op_has((enum op)n->op, T_VIEW) && read_ramp(r, node_in(n, 0), out) && (out->axis >= 0) == (axis >= 0);
    out->axis = axis;
    return known;
}

/* Is the value an integer ramp? A view keeps the order of elements, so that the only long dimension tells where it
 * lies. */
static bool read_ramp(struct reader *r, const struct value *v, struct ramp *out)
{
    struct ir_ctx *cx = r->cx;
    const struct value *seen = v;
    bool wide = false;
    v = ir_origin(v);
    *out = (struct ramp){.axis = v->type->kind == TYPE_TENSOR ? only_axis(cx, v->type, &wide) : -2};
    if (r->steps++ > MOST_STEPS || out->axis == -2 || !dtype_is_integer(v->type->dtype))
        return false;
    if (out->axis == -1 && !wide && value_n_elems(cx, v) == 1) {
        out->first = value_elem(cx, v, 0);
        if (out->first != EXPR_INVALID)
            return true;
    }
    const int axis = out->axis;
    if (v->def && follow(r, v->def, axis, out))
        return !wide || out->data;
    return axis == -1 && read_data(r, seen, out);
}

/* A bound that is known stays, where another is from data. */
void ir_band_narrow(struct ir_ctx *cx, struct ir_band *b, const struct ir_band *by)
{
    struct expr_pool *x = &cx->exprs;
    const bool last = b->has_last && by->has_last && b->last_data == by->last_data,
               first = b->has_first && by->has_first && b->first_data == by->first_data;
    if (by->has_last && (!b->has_last || last || !by->last_data)) {
        b->last = last ? expr_min(x, b->last, by->last) : by->last;
        b->last_data = by->last_data;
    }
    if (by->has_first && (!b->has_first || first || !by->first_data)) {
        b->first = first ? expr_max(x, b->first, by->first) : by->first;
        b->first_data = by->first_data;
    }
    b->has_last |= by->has_last;
    b->has_first |= by->has_first;
}

/* Keys of either. */
static void widen(struct ir_ctx *cx, struct ir_band *b, const struct ir_band *by)
{
    struct expr_pool *x = &cx->exprs;
    b->has_last = b->has_last && by->has_last && b->last_data == by->last_data;
    b->has_first = b->has_first && by->has_first && b->first_data == by->first_data;
    if (b->has_last)
        b->last = expr_max(x, b->last, by->last);
    if (b->has_first)
        b->first = expr_min(x, b->first, by->first);
}

/* low <= high, or low < high. Where one of them is a number, row 0 has the widest band to the right, the last row to
 * the left. */
static void compare(struct reader *r, const struct value *low, const struct value *high, bool strictly,
                    struct ir_band *out)
{
    struct expr_pool *x = &r->cx->exprs;
    const expr one = expr_const(x, 1);
    struct ramp a, b;
    if (!read_ramp(r, low, &a) || !read_ramp(r, high, &b))
        return;
    const expr less = expr_const(x, strictly ? 1 : 0), apart = expr_sub(x, expr_sub(x, b.first, a.first), less);
    if (a.axis == 0 && b.axis != 0 && !a.data) { /* key + a <= row + b */
        out->has_last = true;
        out->last = apart;
        out->last_data = b.data;
    }
    if (a.axis != 0 && b.axis == 0 && !b.data) { /* row + a <= key + b */
        out->has_first = true;
        out->first_data = a.data;
        out->first = expr_sub(x, a.axis == 1 ? expr_const(x, 0) : expr_sub(x, one, r->rows), apart);
    }
}

/* The comparison n of the key's number with the row's, or its opposite: a <= b hides where b < a keeps. */
static void compare_node(struct reader *r, const struct node *n, struct ir_band *out)
{
    const struct value *a = node_in(n, 0), *b = node_in(n, 1);
    if (n->op == OP_Equal) {
        if (!r->hides) {
            compare(r, a, b, false, out);
            compare(r, b, a, false, out);
        }
        return;
    }
    const bool greater = n->op == OP_GreaterOrEqual || n->op == OP_Greater,
               strictly = n->op == OP_Less || n->op == OP_Greater;
    compare(r, greater == r->hides ? a : b, greater == r->hides ? b : a, strictly != r->hides, out);
}

/* The widest band of a mask that is known as a whole: of booleans, or of what is added to scores. */
static void scan(struct reader *r, const struct value *v, struct ir_band *out)
{
    struct expr_pool *x = &r->cx->exprs;
    const struct type *t = v->type;
    const bool adds = dtype_is_float(t->dtype);
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
        const bool keeps = adds ? !isinf(kept) || kept > 0 : (kept != 0) != r->hides;
        first = keeps && apart < first ? apart : first;
        last = keeps && apart > last ? apart : last;
    }
    if (last < first)
        return;
    *out = (struct ir_band){true, true, expr_const(x, first), expr_const(x, last), NULL, NULL};
}

/* A view that adds or drops dimensions in front of the rows. */
static bool keeps_rows(const struct node *n)
{
    if (!op_has((enum op)n->op, T_VIEW))
        return false;
    const struct type *from = node_in(n, 0)->type, *to = n->out[0].type;
    return from->rank >= 2 && to->rank >= 2 && from->dims[from->rank - 1] == to->dims[to->rank - 1] &&
           from->dims[from->rank - 2] == to->dims[to->rank - 2];
}

static struct ir_band read_keep(struct reader *r, const struct value *v);
static struct ir_band read_opposite(struct reader *r, const struct value *v)
{
    r->hides = !r->hides;
    const struct ir_band band = read_keep(r, v);
    r->hides = !r->hides;
    return band;
}

static struct ir_band read_keep(struct reader *r, const struct value *v)
{
    struct ir_band band = {.has_last = false}, other;
    v = ir_origin(v);
    const struct node *n = v->def;
    if (!n || r->steps++ > MOST_STEPS || v->type->dtype != DT_BOOL)
        return band;
    switch (n->op) {
    case OP_Constant: scan(r, v, &band); break;
    case OP_LessOrEqual:
    case OP_Less:
    case OP_GreaterOrEqual:
    case OP_Greater:
    case OP_Equal: compare_node(r, n, &band); break;
    case OP_Not: return read_opposite(r, node_in(n, 0));
    case OP_And:
    case OP_Or:
        band = read_keep(r, node_in(n, 0));
        other = read_keep(r, node_in(n, 1));
        ((n->op == OP_And) != r->hides ? ir_band_narrow : widen)(r->cx, &band, &other);
        break;
    default:
        if (keeps_rows(n)) {
            r->rank = r->rank == node_in(n, 0)->type->rank ? r->rank : 0;
            band = read_keep(r, node_in(n, 0));
        }
        break;
    }
    return band;
}

bool ir_is_minus_infinity(const struct value *v)
{
    double number;
    v = ir_origin(v);
    return value_const_f64(v, 0, &number) && isinf(number) && number < 0;
}

struct ir_band ir_read_keep(struct ir_ctx *cx, const struct value *keep, expr rows)
{
    struct reader r = {.cx = cx, .rows = rows, .rank = keep->type->rank};
    return read_keep(&r, keep);
}

static bool read_choice(struct reader *r, const struct node *n, const struct value **kept, struct ir_band *band)
{
    for (int i = 1; n->op == OP_Where && i <= 2; i++) {
        const struct value *off = node_in(n, i), *mask = node_in(n, 0);
        if (type_const_count(r->cx, off->type) != 1 || !ir_is_minus_infinity(off))
            continue;
        r->rank = r->rank == mask->type->rank ? r->rank : 0;
        *band = i == 1 ? read_opposite(r, mask) : read_keep(r, mask);
        *kept = node_in(n, 3 - i);
        return true;
    }
    return false;
}

bool ir_read_choice(struct ir_ctx *cx, const struct node *n, expr rows, const struct value **kept, struct ir_band *band)
{
    struct reader r = {.cx = cx, .rows = rows, .rank = n->out[0].type->rank};
    return read_choice(&r, n, kept, band);
}

/* Steps that leave minus infinity where it is: what hides a key in an operand hides it in the sum. */
static struct ir_band read_bias(struct reader *r, const struct value *v)
{
    struct ir_band band = {.has_last = false}, other;
    const struct value *kept;
    v = ir_origin(v);
    const struct node *n = v->def;
    if (!n || r->steps++ > MOST_STEPS || !dtype_is_float(v->type->dtype))
        return band;
    if (n->op == OP_Constant) {
        scan(r, v, &band);
    } else if (read_choice(r, n, &kept, &band)) {
        other = read_bias(r, kept);
        ir_band_narrow(r->cx, &band, &other);
    } else if (n->op == OP_Add) {
        band = read_bias(r, node_in(n, 0));
        other = read_bias(r, node_in(n, 1));
        ir_band_narrow(r->cx, &band, &other);
    } else if (n->op == OP_Cast || keeps_rows(n)) {
        r->rank = r->rank == node_in(n, 0)->type->rank ? r->rank : 0;
        band = read_bias(r, node_in(n, 0));
    }
    return band;
}

struct ir_band ir_read_bias(struct ir_ctx *cx, const struct value *bias, expr rows)
{
    struct reader r = {.cx = cx, .rows = rows, .rank = bias->type->rank};
    return read_bias(&r, bias);
}
