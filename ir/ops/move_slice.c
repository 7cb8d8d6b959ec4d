/* Slice, Split, Concat, Pad, Tile: extents along an axis. Bounds follow ONNX's clamping exactly, simplified by what the
 * ranges of the symbols prove. */
#include "ir/ops/extent.h"
#include "ir/ops/move_priv.h"

/* ---- Slice */

/* Starts, ends and steps of the axes given. */
struct slice {
    int n;
    int axis[IR_MAX_RANK];
    expr start[IR_MAX_RANK], end[IR_MAX_RANK], step[IR_MAX_RANK];
};

/* Starts, ends, axes and steps have as many elements each, where that is known. */
static enum npuc_status slice_lengths(struct ir_ctx *cx, const struct node *n, int64_t len)
{
    static const char *const names[] = {"", "starts", "ends", "axes", "steps"};
    for (int i = 2; i < 5; i++) {
        const int64_t other = infer_has(n, i) ? infer_len(cx, n, i) : -1;
        if (len >= 0 && other >= 0 && other != len)
            return node_error(cx, n, D_SHAPE_MISMATCH, "input %d (%s) has %lld elements, expected %lld as starts", i,
                              names[i], (long long)other, (long long)len);
    }
    return NPUC_OK;
}

static enum npuc_status slice_axis(struct ir_ctx *cx, const struct node *n, int64_t axis, int rank, struct slice *s,
                                   int i)
{
    const enum npuc_status st = infer_axis(cx, n, "axis", axis, rank, &s->axis[i]);
    for (int k = 0; k < i && st == NPUC_OK; k++)
        if (s->axis[k] == s->axis[i])
            return node_error(cx, n, D_SHAPE_MISMATCH, "input 3 (axes) names axis %d twice", s->axis[i]);
    return st;
}

static enum npuc_status slice_read(struct ir_ctx *cx, const struct node *n, int rank, struct slice *s)
{
    int64_t axes[INFER_MAX_ELEMS], n_axes = 0;
    const int64_t len = infer_len(cx, n, 1);
    s->n = -1;
    const enum npuc_status same = slice_lengths(cx, n, len);
    if (same != NPUC_OK)
        return same;
    if (infer_has(n, 3) && (!infer_ints(cx, n, 3, axes, &n_axes) || (len >= 0 && n_axes != len)))
        return NPUC_OK;
    if (len < 0)
        return NPUC_OK;
    if (len > rank)
        return node_error(cx, n, D_SHAPE_MISMATCH, "input 1 (starts) has %lld elements, input 0 has rank %d",
                          (long long)len, rank);
    s->n = (int)len;
    for (int i = 0; i < s->n; i++) {
        const enum npuc_status st = slice_axis(cx, n, infer_has(n, 3) ? axes[i] : i, rank, s, i);
        if (st != NPUC_OK)
            return st;
        s->start[i] = value_elem(cx, n->in[1].value, i);
        s->end[i] = value_elem(cx, n->in[2].value, i);
        s->step[i] = infer_has(n, 4) ? value_elem(cx, n->in[4].value, i) : expr_const(&cx->exprs, 1);
        if (s->step[i] && infer_dim_is(cx, s->step[i], 0))
            return node_error(cx, n, D_SHAPE_MISMATCH, "element %d of input 4 (steps) is 0", i);
    }
    return NPUC_OK;
}

/* A negative position counts from the end; one of unknown sign is selected at run time. */
static expr from_end(struct ir_ctx *cx, expr at, expr dim)
{
    struct expr_pool *p = &cx->exprs;
    const struct expr_range r = expr_range_of(p, at);
    int64_t c;
    if (r.min >= 0)
        return at;
    if (expr_is_const(p, at, &c) && c < -INT32_MAX) /* "from the very beginning", spelled INT64_MIN */
        return expr_const(p, -1);
    if (r.max < 0)
        return expr_add(p, at, dim);
    return expr_select(p, expr_cmp(p, EXPR_LT, at, expr_const(p, 0)), expr_add(p, at, dim), at);
}

/* at brought into [low, high]. A constant beyond any size is the end; INT64_MAX - 5 would overflow otherwise. */
static expr clamped(struct ir_ctx *cx, expr at, expr low, expr high)
{
    int64_t c;
    if (expr_is_const(&cx->exprs, at, &c) && c >= INT32_MAX)
        return high;
    return infer_max(cx, low, infer_min(cx, at, high));
}

expr slice_extent(struct ir_ctx *cx, expr dim, expr start, expr end, expr step, expr *from)
{
    struct expr_pool *p = &cx->exprs;
    int64_t k;
    if (!start || !end || !step || !expr_is_const(p, step, &k) || k == 0 || k == INT64_MIN)
        return EXPR_INVALID;
    const expr zero = expr_const(p, 0), last = expr_sub(p, dim, expr_const(p, 1)), before = expr_const(p, -1);
    int64_t c;
    const bool whole_back = k < 0 && expr_is_const(p, end, &c) && c < -INT32_MAX;
    const expr s0 = from_end(cx, start, dim), e0 = whole_back ? before : from_end(cx, end, dim);
    if (!s0 || !e0)
        return EXPR_INVALID;
    const expr s = k > 0 ? clamped(cx, s0, zero, dim) : infer_min(cx, last, clamped(cx, s0, zero, last));
    const expr e = k > 0 ? clamped(cx, e0, zero, dim) : clamped(cx, e0, before, last);
    *from = s;
    if (k == 1 && e == dim && expr_is_const(p, start, &c) && c < 0 && c > -INT32_MAX) /* the last -c of them */
        return infer_min(cx, expr_const(p, -c), dim);
    const expr span = k > 0 ? expr_sub(p, e, s) : expr_sub(p, s, e);
    const expr count = expr_ceildiv(p, span, expr_const(p, k > 0 ? k : -k));
    /* Clamping is monotonic, so an order proven before it holds after it. */
    if (k > 0 ? expr_proves_le(p, s0, e0) : expr_proves_le(p, e0, s0))
        return count;
    return count ? infer_max(cx, zero, count) : EXPR_INVALID;
}

/* Clamped as ONNX says for either sign of the step. */
expr slice_extent_any(struct ir_ctx *cx, expr dim, expr start, expr end, expr step, expr *from)
{
    struct expr_pool *p = &cx->exprs;
    const expr zero = expr_const(p, 0), one = expr_const(p, 1), before = expr_const(p, -1);
    const expr last = expr_sub(p, dim, one), up = expr_cmp(p, EXPR_LT, zero, step);
    const expr s0 = expr_select(p, expr_cmp(p, EXPR_LT, start, zero), expr_add(p, start, dim), start);
    const expr e0 = expr_select(p, expr_cmp(p, EXPR_LT, end, zero), expr_add(p, end, dim), end);
    /* backwards over nothing starts at -1, where it ends */
    const expr s = expr_min(p, expr_select(p, up, dim, last), expr_max(p, zero, s0));
    const expr e = expr_max(p, expr_select(p, up, zero, before), expr_min(p, e0, expr_select(p, up, dim, last)));
    const expr forth = expr_ceildiv(p, expr_sub(p, e, s), expr_max(p, one, step));
    const expr back = expr_ceildiv(p, expr_sub(p, s, e), expr_max(p, one, expr_sub(p, zero, step)));
    *from = s;
    return expr_max(p, zero, expr_select(p, up, forth, back));
}

bool slice_entry(struct ir_ctx *cx, const struct node *n, const struct type *t, int i, expr *start, expr *end,
                 expr *step)
{
    struct expr_pool *p = &cx->exprs;
    const expr zero = expr_const(p, 0), one = expr_const(p, 1), rank = expr_const(p, t->rank);
    const int64_t len = value_n_elems(cx, n->in[1].value);
    *start = zero;
    *end = expr_const(p, INT32_MAX);
    *step = one;
    for (int64_t k = 0; k < len; k++) {
        const expr axis = infer_has(n, 3) ? value_elem(cx, n->in[3].value, k) : expr_const(p, k);
        const expr a = value_elem(cx, n->in[1].value, k), b = value_elem(cx, n->in[2].value, k);
        const expr c = infer_has(n, 4) ? value_elem(cx, n->in[4].value, k) : one;
        if (!axis || !a || !b || !c)
            return false;
        const expr mine = expr_cmp(p, EXPR_EQ, expr_mod(p, axis, rank), expr_const(p, i));
        *start = expr_select(p, mine, a, *start);
        *end = expr_select(p, mine, b, *end);
        *step = expr_select(p, mine, c, *step);
    }
    return len >= 0 && infer_has(n, 2) && value_n_elems(cx, n->in[2].value) == len;
}

bool slice_takes_columns(struct ir_ctx *cx, const struct node *n)
{
    const struct type *t = node_in(n, 0)->type, *part = n->out[0].type;
    for (int i = 0; i < t->rank; i++) {
        expr start, end, step;
        int64_t from;
        if (!slice_entry(cx, n, t, i, &start, &end, &step) || !expr_is_one(&cx->exprs, step) ||
            !expr_is_const(&cx->exprs, start, &from) || from != 0 || (i < t->rank - 1 && part->dims[i] != t->dims[i]))
            return false;
    }
    return t->rank > 0 && part->rank == t->rank;
}

static bool slice_followed(struct ir_ctx *cx, const struct node *n, struct shape *out)
{
    const struct type *t = n->in[0].value->type;
    for (int i = 0; i < out->rank; i++) {
        expr start, end, step, from;
        if (!slice_entry(cx, n, t, i, &start, &end, &step))
            return false;
        out->d[i] = slice_extent_any(cx, t->dims[i], start, end, step, &from);
    }
    return true;
}

static void slice_elems(struct ir_ctx *cx, struct node *n)
{
    expr e[INFER_MAX_ELEMS];
    int64_t len;
    if (infer_tracks(infer_dtype(n, 0)) && n->out[0].type->rank == 1 && infer_follow(cx, &n->out[0], e, &len))
        infer_set_elems(cx, n, 0, e, len);
}

enum npuc_status slice_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status st = infer_begin(cx, n);
    if (st != NPUC_OK)
        return st;
    struct shape out = infer_shape(n, 0);
    struct slice s;
    if (out.rank < 0)
        return infer_out_unknown(cx, n, 0, infer_dtype(n, 0));
    st = slice_read(cx, n, out.rank, &s);
    if (st != NPUC_OK)
        return st;
    expr from = EXPR_INVALID;
    for (int i = 0; i < s.n; i++) {
        int64_t by;
        expr d = slice_extent(cx, out.d[s.axis[i]], s.start[i], s.end[i], s.step[i], &from);
        if (!d && s.start[i] && s.end[i] && s.step[i] && !expr_is_const(&cx->exprs, s.step[i], &by))
            d = slice_extent_any(cx, out.d[s.axis[i]], s.start[i], s.end[i], s.step[i], &from);
        out.d[s.axis[i]] = d ? d : infer_fresh(cx, n, 0, s.axis[i]);
    }
    if (s.n < 0 && !slice_followed(cx, n, &out))
        out = infer_fresh_shape(cx, n, 0, out.rank);
    st = infer_out(cx, n, 0, infer_dtype(n, 0), &out);
    if (st == NPUC_OK)
        slice_elems(cx, n);
    return st;
}

/* Whole axes, forwards: the type is the same and every step is 1. */
struct value *slice_fold(struct ir_ctx *cx, struct node *n)
{
    int64_t v[INFER_MAX_ELEMS], len;
    struct value *x = same_type_fold(cx, n);
    if (!x || !infer_has(n, 4))
        return x;
    if (!infer_ints(cx, n, 4, v, &len))
        return NULL;
    for (int64_t i = 0; i < len; i++)
        if (v[i] != 1)
            return NULL;
    return x;
}

/* ---- Split */

/* Size of part i. */
static expr split_part(struct ir_ctx *cx, const struct node *n, expr dim, int i)
{
    struct expr_pool *p = &cx->exprs;
    if (infer_has(n, 1))
        return value_elem(cx, n->in[1].value, i);
    const int64_t parts = node_attr_int(n, "num_outputs", n->n_out);
    const expr each = expr_ceildiv(p, dim, expr_const(p, parts));
    if (i + 1 < parts && expr_divisible(p, dim, parts))
        return each;
    /* The last part takes what is left; it may be the only one that is smaller. */
    const expr at = expr_mul_const(p, each, i);
    return i + 1 < parts ? each : infer_max(cx, expr_const(p, 0), expr_sub(p, dim, at));
}

static enum npuc_status split_check(struct ir_ctx *cx, const struct node *n, expr dim)
{
    const int64_t given = infer_has(n, 1) ? infer_len(cx, n, 1) : node_attr_int(n, "num_outputs", n->n_out);
    if (given >= 0 && given != n->n_out)
        return node_error(cx, n, D_ARITY, "%d outputs, but the sizes are for %lld", n->n_out, (long long)given);
    int64_t sizes[INFER_MAX_ELEMS], len, total = 0, size;
    if (!infer_ints(cx, n, 1, sizes, &len) || !expr_is_const(&cx->exprs, dim, &size))
        return NPUC_OK;
    for (int64_t i = 0; i < len; i++) {
        if (sizes[i] < 0 || sizes[i] > size - total)
            return node_error(cx, n, D_SHAPE_MISMATCH,
                              "the parts of input 1 do not add up to %lld, the size of the axis", (long long)size);
        total += sizes[i];
    }
    if (total != size)
        return node_error(cx, n, D_SHAPE_MISMATCH, "the parts of input 1 add up to %lld, the axis has %lld",
                          (long long)total, (long long)size);
    return NPUC_OK;
}

enum npuc_status split_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s != NPUC_OK)
        return s;
    const struct shape x = infer_shape(n, 0);
    for (int i = 0; i < n->n_out && x.rank < 0; i++)
        if ((s = infer_out_unknown(cx, n, i, infer_dtype(n, 0))) != NPUC_OK)
            return s;
    int axis;
    if (x.rank < 0)
        return NPUC_OK;
    s = infer_axis_attr(cx, n, "axis", x.rank, &axis);
    if (s == NPUC_OK)
        s = split_check(cx, n, x.d[axis]);
    expr e[INFER_MAX_ELEMS];
    int64_t len, at = 0, size;
    bool follow = s == NPUC_OK && infer_tracks(infer_dtype(n, 0)) && infer_elems(cx, n, 0, e, &len);
    for (int i = 0; i < n->n_out && s == NPUC_OK; i++) {
        struct shape out = x;
        const expr part = split_part(cx, n, x.d[axis], i);
        out.d[axis] = part ? part : infer_fresh(cx, n, i, axis);
        s = infer_out(cx, n, i, infer_dtype(n, 0), &out);
        follow =
            follow && s == NPUC_OK && expr_is_const(&cx->exprs, out.d[axis], &size) && size >= 0 && size <= len - at;
        if (follow) {
            infer_set_elems(cx, n, i, e + at, size);
            at += size;
        }
    }
    return s;
}

struct value *split_fold(struct ir_ctx *cx, struct node *n)
{
    return n->n_out == 1 ? same_type_fold(cx, n) : NULL;
}

/* ---- Concat */

static void concat_elems(struct ir_ctx *cx, struct node *n)
{
    expr all[INFER_MAX_ELEMS], e[INFER_MAX_ELEMS];
    int64_t total = 0, len;
    for (int i = 0; i < n->n_in; i++) {
        if (!infer_has(n, i) || !infer_elems(cx, n, i, e, &len) || len > INFER_MAX_ELEMS - total)
            return;
        for (int64_t k = 0; k < len; k++)
            all[total++] = e[k];
    }
    infer_set_elems(cx, n, 0, all, total);
}

static enum npuc_status concat_join(struct ir_ctx *cx, struct node *n, int i, int axis, struct shape *out)
{
    const struct shape x = infer_shape(n, i);
    if (x.rank != out->rank)
        return node_error(cx, n, D_SHAPE_MISMATCH, "input %d has type %s, expected rank %d as input 0 has", i,
                          type_text(cx, n->in[i].value->type), out->rank);
    for (int k = 0; k < out->rank; k++) {
        const expr d = k == axis ? expr_add(&cx->exprs, out->d[k], x.d[k]) : infer_dim_same(cx, out->d[k], x.d[k]);
        if (!d && k != axis)
            return node_error(cx, n, D_SHAPE_MISMATCH, "input %d has size %s on axis %d, expected %s", i,
                              infer_dim_text(cx, x.d[k]), k, infer_dim_text(cx, out->d[k]));
        out->d[k] = d;
    }
    return NPUC_OK;
}

enum npuc_status concat_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    struct shape out = infer_shape(n, 0);
    bool known = out.rank >= 0;
    int axis = 0;
    for (int i = 1; i < n->n_in && s == NPUC_OK; i++) {
        s = infer_same_dtype(cx, n, 0, i);
        known &= infer_shape(n, i).rank >= 0;
    }
    if (s == NPUC_OK && !known)
        return infer_out_unknown(cx, n, 0, infer_dtype(n, 0));
    if (s == NPUC_OK)
        s = infer_axis_attr(cx, n, "axis", out.rank, &axis);
    for (int i = 1; i < n->n_in && s == NPUC_OK; i++)
        s = concat_join(cx, n, i, axis, &out);
    if (s == NPUC_OK)
        s = infer_out(cx, n, 0, infer_dtype(n, 0), &out);
    if (s == NPUC_OK && out.rank == 1 && infer_tracks(infer_dtype(n, 0)))
        concat_elems(cx, n);
    return s;
}

/* Has it no elements, whatever its open sizes are? */
static bool is_empty(const struct ir_ctx *cx, const struct type *t)
{
    int64_t d;
    for (int i = 0; i < t->rank; i++)
        if (expr_is_const(&cx->exprs, t->dims[i], &d) && d == 0)
            return true;
    return false;
}

/* One input, or all others empty. */
struct value *concat_fold(struct ir_ctx *cx, struct node *n)
{
    struct value *only = NULL;
    for (int i = 0; i < n->n_in; i++) {
        if (is_empty(cx, n->in[i].value->type))
            continue;
        if (only)
            return NULL;
        only = n->in[i].value;
    }
    return only && only->type == n->out[0].type ? only : NULL;
}

/* ---- Pad, Tile */

bool pad_entry(struct ir_ctx *cx, const struct node *n, int rank, int i, expr *lo, expr *hi)
{
    struct expr_pool *p = &cx->exprs;
    const expr zero = expr_const(p, 0);
    const int64_t len = value_n_elems(cx, n->in[1].value), half = len / 2;
    *lo = *hi = zero;
    for (int64_t k = 0; k < half; k++) {
        const expr axis = infer_has(n, 3) ? value_elem(cx, n->in[3].value, k) : expr_const(p, k);
        const expr a = value_elem(cx, n->in[1].value, k), b = value_elem(cx, n->in[1].value, k + half);
        if (!axis || !a || !b)
            return false;
        const expr mine = expr_cmp(p, EXPR_EQ, expr_mod(p, axis, expr_const(p, rank)), expr_const(p, i));
        *lo = expr_select(p, mine, a, *lo);
        *hi = expr_select(p, mine, b, *hi);
    }
    return len >= 0;
}

enum npuc_status pad_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_same_dtype(cx, n, 0, 2);
    if (s != NPUC_OK)
        return s;
    const struct shape x = infer_shape(n, 0);
    if (x.rank < 0)
        return infer_out_unknown(cx, n, 0, infer_dtype(n, 0));
    int64_t axes[INFER_MAX_ELEMS], n_axes = x.rank;
    const bool known = !infer_has(n, 3) || infer_ints(cx, n, 3, axes, &n_axes);
    const int64_t len = infer_len(cx, n, 1);
    if (known && len >= 0 && (len != 2 * n_axes || n_axes > x.rank))
        return node_error(cx, n, D_SHAPE_MISMATCH, "input 1 (pads) has %lld elements, expected %lld", (long long)len,
                          (long long)(2 * n_axes));
    struct shape out = x;
    for (int i = 0; i < x.rank && (!known || len < 0); i++) {
        expr lo, hi;
        out.d[i] = pad_entry(cx, n, x.rank, i, &lo, &hi) /* as one factor: products of sums would grow */
                       ? expr_max(&cx->exprs, expr_const(&cx->exprs, 0),
                                  expr_add(&cx->exprs, x.d[i], expr_add(&cx->exprs, lo, hi)))
                       : infer_fresh(cx, n, 0, i);
    }
    for (int64_t i = 0; known && len >= 0 && i < n_axes; i++) {
        int axis;
        s = infer_axis(cx, n, "axis", infer_has(n, 3) ? axes[i] : i, x.rank, &axis);
        if (s != NPUC_OK)
            return s;
        const expr a = value_elem(cx, n->in[1].value, i), b = value_elem(cx, n->in[1].value, i + n_axes);
        out.d[axis] =
            a && b ? expr_add(&cx->exprs, x.d[axis], expr_add(&cx->exprs, a, b)) : infer_fresh(cx, n, 0, axis);
        if (expr_range_of(&cx->exprs, out.d[axis]).max < 0)
            return node_error(cx, n, D_SHAPE_MISMATCH, "input 1 (pads) cuts more than axis %d has", axis);
    }
    return infer_out(cx, n, 0, infer_dtype(n, 0), &out);
}

struct value *pad_fold(struct ir_ctx *cx, struct node *n)
{
    int64_t v[INFER_MAX_ELEMS], len;
    if (!infer_ints(cx, n, 1, v, &len))
        return NULL;
    for (int64_t i = 0; i < len; i++)
        if (v[i])
            return NULL;
    return same_type_fold(cx, n);
}

enum npuc_status pad_legal(struct ir_ctx *cx, struct node *n)
{
    return infer_attr_in(cx, n, "mode", "constant reflect edge wrap");
}

enum npuc_status tile_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s != NPUC_OK)
        return s;
    struct shape out = infer_shape(n, 0);
    const int64_t len = infer_len(cx, n, 1);
    if (out.rank < 0)
        return infer_out_unknown(cx, n, 0, infer_dtype(n, 0));
    if (len >= 0 && len != out.rank)
        return node_error(cx, n, D_SHAPE_MISMATCH, "input 1 (repeats) has %lld elements, expected %d", (long long)len,
                          out.rank);
    for (int i = 0; i < out.rank; i++) {
        const expr times = value_elem(cx, n->in[1].value, i);
        if (times && expr_range_of(&cx->exprs, times).max < 0)
            return node_error(cx, n, D_SHAPE_MISMATCH, "element %d of input 1 (repeats) is negative", i);
        out.d[i] = times ? expr_mul(&cx->exprs, out.d[i], times) : infer_fresh(cx, n, 0, i);
    }
    return infer_out(cx, n, 0, infer_dtype(n, 0), &out);
}

struct value *tile_fold(struct ir_ctx *cx, struct node *n)
{
    int64_t v[INFER_MAX_ELEMS], len;
    if (!infer_ints(cx, n, 1, v, &len))
        return NULL;
    for (int64_t i = 0; i < len; i++)
        if (v[i] != 1)
            return NULL;
    return same_type_fold(cx, n);
}
