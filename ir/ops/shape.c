/* Shape, views of a tensor under other dims, and tensors made from sizes. */
#include "ir/ops/infer.h"

#include "kernels/tensor.h"

/* ---- Shape, Size, SizeOf */

static enum npuc_status out_i64(struct ir_ctx *cx, struct node *n, int rank, int64_t len)
{
    const struct shape s = {.rank = rank, .d = {expr_const(&cx->exprs, len)}};
    return infer_out(cx, n, 0, DT_I64, &s);
}

static int64_t clamp(int64_t v, int64_t rank)
{
    if (v < 0)
        v += rank;
    return v < 0 ? 0 : v > rank ? rank : v;
}

static enum npuc_status shape_infer(struct ir_ctx *cx, struct node *n)
{
    const enum npuc_status s = infer_begin(cx, n);
    if (s != NPUC_OK)
        return s;
    const struct shape x = infer_shape(n, 0);
    if (x.rank < 0) {
        const struct shape out = infer_fresh_shape(cx, n, 0, 1);
        return infer_out(cx, n, 0, DT_I64, &out);
    }
    const int64_t start = clamp(node_attr_int(n, "start", 0), x.rank),
                  end = clamp(node_attr_int(n, "end", x.rank), x.rank);
    const int64_t len = end > start ? end - start : 0;
    const enum npuc_status st = out_i64(cx, n, 1, len);
    infer_set_elems(cx, n, 0, x.d + start, len);
    return st;
}

static enum npuc_status size_infer(struct ir_ctx *cx, struct node *n)
{
    const enum npuc_status s = infer_begin(cx, n);
    if (s != NPUC_OK)
        return s;
    const struct shape x = infer_shape(n, 0);
    const enum npuc_status st = out_i64(cx, n, 0, 1);
    const expr count = x.rank < 0 ? EXPR_INVALID : infer_product(cx, x.d, x.rank);
    infer_set_elems(cx, n, 0, &count, 1);
    return st;
}

static enum npuc_status size_of_infer(struct ir_ctx *cx, struct node *n)
{
    const struct attr *a = node_attr(n, "exprs");
    const bool scalar = node_attr_int(n, "scalar", 0) != 0;
    if (!a || (scalar && a->len != 1))
        return node_error(cx, n, D_ATTRIBUTE, "attribute 'exprs' is missing or, with 'scalar', not one expression");
    const enum npuc_status st = out_i64(cx, n, scalar ? 0 : 1, a->len);
    expr e[INFER_MAX_ELEMS];
    const struct expr_range any = {.min = INT64_MIN, .max = INT64_MAX, .multiple = 1};
    for (int64_t i = 0; i < a->len && i < INFER_MAX_ELEMS; i++) {
        const sym text = a->v.strings[i];
        e[i] = expr_parse(&cx->exprs, str_text(&cx->strings, text), str_len(&cx->strings, text), any);
        if (!e[i])
            return node_error(cx, n, D_ATTRIBUTE, "element %d of attribute 'exprs' is no expression", (int)i);
    }
    if (a->len <= INFER_MAX_ELEMS)
        infer_set_elems(cx, n, 0, e, a->len);
    return st;
}

/* Of a constant: itself. */
static struct value *contents_fold(struct ir_ctx *cx, struct node *n)
{
    (void)cx;
    return value_const(node_in(n, 0)) ? node_in(n, 0) : NULL;
}

/* A small integer tensor whose elements are symbols from here on: `names`. */
static enum npuc_status contents_infer(struct ir_ctx *cx, struct node *n)
{
    const struct attr *a = node_attr(n, "names");
    enum npuc_status s = infer_begin(cx, n);
    if (s != NPUC_OK)
        return s;
    const int64_t len = value_n_elems(cx, n->in[0].value);
    if (!a || a->len != len || len > INFER_MAX_ELEMS || !dtype_is_integer(infer_dtype(n, 0)))
        return node_error(cx, n, D_ATTRIBUTE, "attribute 'names' does not name each of the integers of input 0");
    s = infer_out_like(cx, n, 0, 0);
    expr e[INFER_MAX_ELEMS];
    const struct expr_range any = {.min = -INT32_MAX, .max = INT32_MAX, .multiple = 1};
    for (int64_t i = 0; i < len; i++) {
        const int32_t known = expr_symbol_find(&cx->exprs, a->v.strings[i]);
        e[i] = expr_sym(&cx->exprs, known >= 0 ? known : expr_symbol_new(&cx->exprs, a->v.strings[i], any));
    }
    infer_set_elems(cx, n, 0, e, len);
    return s;
}

/* ---- Reshape */

/* Target sizes with 0 replaced; *unknown counts those that are not known, *at is the place of -1 or of the last
 * unknown. */
static enum npuc_status reshape_target(struct ir_ctx *cx, struct node *n, const struct shape *x, struct shape *out,
                                       int *at)
{
    const bool allow_zero = node_attr_int(n, "allowzero", 0) != 0;
    int n_open = 0;
    *at = -1;
    for (int i = 0; i < out->rank; i++) {
        expr e = value_elem(cx, n->in[1].value, i);
        int64_t v = 1;
        const bool is_const = e && expr_is_const(&cx->exprs, e, &v);
        if (is_const && v < -1)
            return node_error(cx, n, D_SHAPE_MISMATCH, "element %d of the target shape is %lld, expected at least -1",
                              i, (long long)v);
        if (is_const && v == 0 && !allow_zero) {
            if (x->rank >= 0 && i >= x->rank)
                return node_error(cx, n, D_SHAPE_MISMATCH,
                                  "element %d of the target shape is 0 (copy), but the input has rank %d", i, x->rank);
            e = x->rank < 0 ? EXPR_INVALID : x->d[i];
        }
        if (!e || (is_const && v == -1)) {
            if (is_const && v == -1 && *at >= 0 && n_open == 1 && out->d[*at] == expr_const(&cx->exprs, -1))
                return node_error(cx, n, D_SHAPE_MISMATCH, "the target shape holds -1 more than once");
            n_open++;
            *at = i;
        }
        out->d[i] = e ? e : EXPR_INVALID;
    }
    if (n_open > 1)
        *at = -2; /* several unknown ones cannot be solved */
    return NPUC_OK;
}

/* Known counts must agree. */
static enum npuc_status reshape_check(struct ir_ctx *cx, struct node *n, const struct shape *x, const struct shape *out)
{
    int64_t a, b;
    const expr from = infer_product(cx, x->d, x->rank), to = infer_product(cx, out->d, out->rank);
    const bool known = from && expr_is_const(&cx->exprs, from, &a), wanted = to && expr_is_const(&cx->exprs, to, &b);
    if (from && wanted && !known)
        infer_claim(cx, from, b);
    if (known && wanted && a != b)
        return node_error(cx, n, D_SHAPE_MISMATCH, "input 0 of type %s has %lld elements, the target shape has %lld",
                          type_text(cx, n->in[0].value->type), (long long)a, (long long)b);
    return NPUC_OK;
}

/* Size on axis `at` from the number of elements. */
static enum npuc_status reshape_solve(struct ir_ctx *cx, struct node *n, const struct shape *x, struct shape *out,
                                      int at)
{
    expr rest[IR_MAX_RANK];
    int n_rest = 0;
    for (int i = 0; i < out->rank; i++)
        if (i != at)
            rest[n_rest++] = out->d[i];
    const expr den = infer_product(cx, rest, n_rest);
    out->d[at] = infer_quotient(cx, x->d, x->rank, rest, n_rest);
    if (out->d[at])
        return NPUC_OK;
    if (den && infer_dim_is(cx, den, 0)) { /* nothing to divide */
        out->d[at] = infer_fresh(cx, n, 0, at);
        return NPUC_OK;
    }
    return node_error(cx, n, D_SHAPE_MISMATCH, "input 0 of type %s cannot be divided into rows of %s elements for -1",
                      type_text(cx, n->in[0].value->type), infer_dim_text(cx, den));
}

/* A target of which elements may turn out to be -1 or 0 when they are read. */
static bool reshape_read(struct ir_ctx *cx, const struct node *n, const struct shape *x, struct shape *out)
{
    struct expr_pool *p = &cx->exprs;
    const expr zero = expr_const(p, 0), one = expr_const(p, 1), open = expr_const(p, -1);
    expr rest = one;
    bool any = false;
    for (int i = 0; i < out->rank; i++) {
        expr e = value_elem(cx, n->in[1].value, i);
        if (!e || x->rank < 0)
            return false;
        any |= expr_range_of(p, e).min < 0 && expr_range_of(p, e).max > 0;
        if (i < x->rank && node_attr_int(n, "allowzero", 0) == 0)
            e = expr_select(p, expr_cmp(p, EXPR_EQ, e, zero), x->d[i], e);
        out->d[i] = e;
        rest = expr_mul(p, rest, expr_select(p, expr_cmp(p, EXPR_EQ, e, open), one, e));
    }
    const expr count = infer_product(cx, x->d, x->rank);
    if (!any || !count)
        return false;
    for (int i = 0; i < out->rank; i++)
        out->d[i] = expr_select(p, expr_cmp(p, EXPR_EQ, out->d[i], open),
                                expr_floordiv(p, count, expr_max(p, one, rest)), out->d[i]);
    return true;
}

static enum npuc_status reshape_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_dtype_is(cx, n, 1, DT_I64, DT_I64);
    if (s == NPUC_OK && infer_shape(n, 1).rank >= 0 && infer_shape(n, 1).rank != 1)
        s = infer_rank_error(cx, n, 1, "rank 1");
    if (s != NPUC_OK)
        return s;
    const struct shape x = infer_shape(n, 0);
    const int64_t len = infer_len(cx, n, 1);
    if (len < 0)
        return infer_out_unknown(cx, n, 0, infer_dtype(n, 0));
    if (len > IR_MAX_RANK)
        return node_error(cx, n, D_LIMIT, "the target shape has rank %lld, at most %d is supported", (long long)len,
                          IR_MAX_RANK);
    struct shape out = {.rank = (int)len};
    int at;
    if (reshape_read(cx, n, &x, &out))
        return infer_out(cx, n, 0, infer_dtype(n, 0), &out);
    s = reshape_target(cx, n, &x, &out, &at);
    if (s == NPUC_OK && at == -1 && x.rank >= 0)
        s = reshape_check(cx, n, &x, &out);
    else if (s == NPUC_OK && at >= 0 && x.rank >= 0)
        s = reshape_solve(cx, n, &x, &out, at);
    if (s != NPUC_OK)
        return s;
    for (int i = 0; i < out.rank; i++)
        if (!out.d[i] || infer_dim_is(cx, out.d[i], -1))
            out.d[i] = infer_fresh(cx, n, 0, i);
    s = infer_out(cx, n, 0, infer_dtype(n, 0), &out);
    if (s == NPUC_OK)
        infer_pass_elems(cx, n, 0, 0);
    return s;
}

/* ---- Squeeze, Unsqueeze, Flatten */

/* Marks the axes of input 1 in `mark`; *known is false when they are not constant. */
static enum npuc_status axes_of(struct ir_ctx *cx, struct node *n, int rank, bool *mark, bool *known, int *count)
{
    int64_t axes[INFER_MAX_ELEMS], len = 0;
    *known = infer_ints(cx, n, 1, axes, &len);
    *count = (int)len;
    for (int64_t i = 0; *known && i < len; i++) {
        int axis;
        const enum npuc_status s = infer_axis(cx, n, "axis", axes[i], rank, &axis);
        if (s != NPUC_OK)
            return s;
        if (mark[axis])
            return node_error(cx, n, D_SHAPE_MISMATCH, "axis %d is given twice", axis);
        mark[axis] = true;
    }
    return NPUC_OK;
}

static enum npuc_status squeeze_out(struct ir_ctx *cx, struct node *n, const struct shape *x, const bool *mark)
{
    struct shape out = {.rank = 0};
    for (int i = 0; i < x->rank; i++) {
        int64_t v;
        const bool is_const = expr_is_const(&cx->exprs, x->d[i], &v);
        const bool drop = infer_has(n, 1) ? mark[i] : is_const && v == 1;
        if (drop && is_const && v != 1)
            return node_error(cx, n, D_SHAPE_MISMATCH, "axis %d of input 0 has size %lld, expected 1 to squeeze it", i,
                              (long long)v);
        if (!drop)
            out.d[out.rank++] = x->d[i];
    }
    const enum npuc_status s = infer_out(cx, n, 0, infer_dtype(n, 0), &out);
    infer_pass_elems(cx, n, 0, 0);
    return s;
}

/* Axes that are data, but whose number is known: with as many axes that can be 1 the result is known, else its rank. */
static enum npuc_status squeeze_counted(struct ir_ctx *cx, struct node *n, const struct shape *x, bool *mark)
{
    const struct shape axes = infer_shape(n, 1);
    int64_t count;
    if (axes.rank != 1 || !expr_is_const(&cx->exprs, axes.d[0], &count))
        return infer_out_unknown(cx, n, 0, infer_dtype(n, 0));
    int candidates = 0;
    for (int i = 0; i < x->rank; i++) {
        int64_t v;
        mark[i] = !expr_is_const(&cx->exprs, x->d[i], &v) || v == 1;
        candidates += mark[i];
    }
    if (candidates < count)
        return node_error(cx, n, D_SHAPE_MISMATCH, "%lld axes are to be squeezed, input 0 has %d that can have size 1",
                          (long long)count, candidates);
    if (candidates == count)
        return squeeze_out(cx, n, x, mark);
    const struct shape out = infer_fresh_shape(cx, n, 0, x->rank - (int)count);
    return infer_out(cx, n, 0, infer_dtype(n, 0), &out);
}

static enum npuc_status squeeze_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s != NPUC_OK)
        return s;
    const struct shape x = infer_shape(n, 0);
    bool mark[IR_MAX_RANK] = {false}, known = true;
    int count = 0;
    if (x.rank >= 0 && infer_has(n, 1))
        s = axes_of(cx, n, x.rank, mark, &known, &count);
    if (s != NPUC_OK)
        return s;
    if (x.rank >= 0 && !known)
        return squeeze_counted(cx, n, &x, mark);
    return x.rank < 0 ? infer_out_unknown(cx, n, 0, infer_dtype(n, 0)) : squeeze_out(cx, n, &x, mark);
}

/* Sizes where the axes are followed: 1 at each of them, else the next of x. */
static bool unsqueeze_followed(struct ir_ctx *cx, const struct node *n, const struct shape *x, int64_t len,
                               struct shape *out)
{
    struct expr_pool *p = &cx->exprs;
    const expr zero = expr_const(p, 0), one = expr_const(p, 1);
    expr before = zero, axes[INFER_MAX_ELEMS];
    if (!infer_elems(cx, n, 1, axes, &len))
        return false;
    for (int i = 0; i < out->rank; i++) {
        expr hit = zero;
        for (int64_t k = 0; k < len; k++) {
            if (axes[k] == EXPR_INVALID)
                return false;
            const expr at = expr_select(p, expr_cmp(p, EXPR_LT, axes[k], zero),
                                        expr_add(p, axes[k], expr_const(p, out->rank)), axes[k]);
            hit = expr_max(p, hit, expr_cmp(p, EXPR_EQ, at, expr_const(p, i)));
        }
        out->d[i] = one;
        for (int k = 0; k < x->rank; k++)
            out->d[i] = expr_select(p, expr_cmp(p, EXPR_EQ, before, expr_const(p, k)), x->d[k], out->d[i]);
        out->d[i] = expr_select(p, hit, one, out->d[i]);
        before = expr_add(p, before, expr_sub(p, one, hit));
    }
    return true;
}
static enum npuc_status unsqueeze_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s != NPUC_OK)
        return s;
    const struct shape x = infer_shape(n, 0);
    const int64_t len = infer_len(cx, n, 1);
    if (x.rank < 0 || len < 0)
        return infer_out_unknown(cx, n, 0, infer_dtype(n, 0));
    if (x.rank + len > IR_MAX_RANK)
        return node_error(cx, n, D_LIMIT, "the result has rank %lld, at most %d is supported",
                          (long long)(x.rank + len), IR_MAX_RANK);
    struct shape out = {.rank = x.rank + (int)len};
    bool mark[IR_MAX_RANK] = {false}, known;
    int count;
    s = axes_of(cx, n, out.rank, mark, &known, &count);
    if (s != NPUC_OK)
        return s;
    const bool followed = !known && unsqueeze_followed(cx, n, &x, len, &out);
    for (int i = 0, k = 0; i < out.rank && !followed; i++)
        out.d[i] = !known ? infer_fresh(cx, n, 0, i) : mark[i] ? expr_const(&cx->exprs, 1) : x.d[k++];
    s = infer_out(cx, n, 0, infer_dtype(n, 0), &out);
    infer_pass_elems(cx, n, 0, 0);
    return s;
}

static enum npuc_status flatten_infer(struct ir_ctx *cx, struct node *n)
{
    const enum npuc_status s = infer_begin(cx, n);
    if (s != NPUC_OK)
        return s;
    const struct shape x = infer_shape(n, 0);
    struct shape out = {.rank = 2};
    if (x.rank < 0) {
        out = infer_fresh_shape(cx, n, 0, 2);
        return infer_out(cx, n, 0, infer_dtype(n, 0), &out);
    }
    int64_t axis = node_attr_int(n, "axis", 1);
    if (axis < -x.rank || axis > x.rank)
        return node_error(cx, n, D_SHAPE_MISMATCH, "axis is %lld, expected %d..%d", (long long)axis, -x.rank, x.rank);
    axis += axis < 0 ? x.rank : 0;
    out.d[0] = infer_product(cx, x.d, (int)axis);
    out.d[1] = infer_product(cx, x.d + axis, x.rank - (int)axis);
    return infer_out(cx, n, 0, infer_dtype(n, 0), &out);
}

/* ---- Expand, ConstantOfShape, Range, EyeLike */

/* Sizes held by input i as a shape; unknown elements become symbols of output 0, which has at least min_rank axes. */
static struct shape shape_from(struct ir_ctx *cx, struct node *n, int i, int min_rank)
{
    const int64_t len = infer_len(cx, n, i);
    struct shape s = SHAPE_UNKNOWN;
    if (len < 0 || len > IR_MAX_RANK)
        return s;
    s.rank = (int)len;
    const int in_front = min_rank > s.rank ? min_rank - s.rank : 0;
    for (int k = 0; k < s.rank; k++) {
        const expr e = value_elem(cx, n->in[i].value, k);
        s.d[k] = e ? e : infer_fresh(cx, n, 0, in_front + k);
    }
    return s;
}

static void repeat_elem(struct ir_ctx *cx, struct node *n, expr e)
{
    const int64_t len =
        n->out[0].type->rank >= 0 && n->out[0].type->rank <= 1 ? type_const_count(cx, n->out[0].type) : -1;
    expr all[INFER_MAX_ELEMS];
    if (!e || len < 0 || len > INFER_MAX_ELEMS)
        return;
    for (int64_t i = 0; i < len; i++)
        all[i] = e;
    infer_set_elems(cx, n, 0, all, len);
}

static enum npuc_status expand_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s != NPUC_OK)
        return s;
    const struct shape x = infer_shape(n, 0), to = shape_from(cx, n, 1, x.rank);
    struct shape out;
    if (!infer_expand(cx, &x, &to, &out))
        return node_error(cx, n, D_SHAPE_MISMATCH, "input 0 of type %s does not broadcast to the target shape",
                          type_text(cx, n->in[0].value->type));
    if (out.rank < 0)
        return infer_out_unknown(cx, n, 0, infer_dtype(n, 0));
    s = infer_out(cx, n, 0, infer_dtype(n, 0), &out);
    if (s == NPUC_OK && value_n_elems(cx, n->in[0].value) == 1)
        repeat_elem(cx, n, infer_tracks(infer_dtype(n, 0)) ? value_elem(cx, n->in[0].value, 0) : EXPR_INVALID);
    else if (s == NPUC_OK && out.rank == 1)
        infer_pass_elems(cx, n, 0, 0);
    return s;
}

/* Value of the one-element TENSOR attribute as an integer expression. */
static expr fill_elem(struct ir_ctx *cx, const struct attr *a)
{
    if (!a)
        return expr_const(&cx->exprs, 0);
    struct k_tensor t = {.dtype = a->v.t.type->dtype, .rank = 1, .dims = {1}, .size = a->v.t.blob->size};
    int64_t need;
    if (!infer_tracks(t.dtype) || !a->v.t.blob->data || !dtype_bytes(t.dtype, 1, &need) || t.size < need)
        return EXPR_INVALID;
    if (t.dtype == DT_I64) {
        int64_t v = 0;
        for (int i = 7; i >= 0; i--)
            v = (int64_t)((uint64_t)v << 8 | ((const uint8_t *)a->v.t.blob->data)[i]);
        return expr_const(&cx->exprs, v);
    }
    uint32_t v = 0;
    for (int64_t i = need - 1; i >= 0; i--)
        v = v << 8 | ((const uint8_t *)a->v.t.blob->data)[i];
    return expr_const(&cx->exprs, t.dtype == DT_BOOL ? v != 0 : (int32_t)v);
}

static enum npuc_status constant_of_shape_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s != NPUC_OK)
        return s;
    const struct attr *a = node_attr(n, "value");
    const enum dtype t = a ? a->v.t.type->dtype : DT_F32;
    const struct shape out = shape_from(cx, n, 0, 0);
    for (int i = 0; i < out.rank; i++)
        if (expr_range_of(&cx->exprs, out.d[i]).max < 0)
            return node_error(cx, n, D_SHAPE_MISMATCH, "element %d of the shape is %s, expected at least 0", i,
                              infer_dim_text(cx, out.d[i]));
    if (out.rank < 0)
        return infer_out_unknown(cx, n, 0, t);
    s = infer_out(cx, n, 0, t, &out);
    if (s == NPUC_OK && infer_tracks(t))
        repeat_elem(cx, n, fill_elem(cx, a));
    return s;
}

/* max(ceil((limit - start) / delta), 0) */
static expr range_count(struct ir_ctx *cx, expr start, expr limit, expr delta)
{
    struct expr_pool *p = &cx->exprs;
    int64_t step;
    if (!start || !limit || !delta || !expr_is_const(p, delta, &step) || step == 0 || step == INT64_MIN)
        return EXPR_INVALID;
    const expr span = step > 0 ? expr_sub(p, limit, start) : expr_sub(p, start, limit);
    const expr count = expr_ceildiv(p, span, expr_const(p, step > 0 ? step : -step));
    return count ? infer_max(cx, expr_const(p, 0), count) : EXPR_INVALID;
}

static expr range_float_count(struct ir_ctx *cx, const struct node *n)
{
    double v[3];
    for (int i = 0; i < 3; i++)
        if (!value_const_f64(n->in[i].value, 0, &v[i]))
            return EXPR_INVALID;
    if (v[2] == 0)
        return EXPR_INVALID;
    const double exact = (v[1] - v[0]) / v[2];
    if (!(exact < 9e15))
        return EXPR_INVALID;
    int64_t count = exact > 0 ? (int64_t)exact : 0;
    count += exact > 0 && (double)count < exact;
    return expr_const(&cx->exprs, count);
}

static enum npuc_status range_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    for (int i = 1; i < 3 && s == NPUC_OK; i++)
        s = infer_same_dtype(cx, n, 0, i);
    if (s != NPUC_OK)
        return s;
    const enum dtype t = infer_dtype(n, 0);
    expr e[3];
    for (int i = 0; i < 3; i++)
        e[i] = dtype_is_integer(t) ? value_elem(cx, n->in[i].value, 0) : EXPR_INVALID;
    if (e[2] && infer_dim_is(cx, e[2], 0))
        return node_error(cx, n, D_SHAPE_MISMATCH, "input 2 (delta) is 0");
    double v;
    for (int i = 0; i < 3 && dtype_is_float(t); i++)
        if (value_const_f64(n->in[i].value, 0, &v) && (v != v || (i == 2 && v == 0)))
            return node_error(cx, n, D_SHAPE_MISMATCH, "input %d is %s", i,
                              v != v ? "NaN" : "0, a step that leads nowhere");
    expr count = dtype_is_integer(t) ? range_count(cx, e[0], e[1], e[2]) : range_float_count(cx, n);
    if (!count)
        count = infer_fresh(cx, n, 0, 0);
    const struct shape out = {.rank = 1, .d = {count}};
    s = infer_out(cx, n, 0, t, &out);
    int64_t len;
    expr all[INFER_MAX_ELEMS];
    if (s != NPUC_OK || !e[0] || !e[2] || !expr_is_const(&cx->exprs, count, &len) || len > INFER_MAX_ELEMS)
        return s;
    for (int64_t i = 0; i < len; i++)
        all[i] = expr_add(&cx->exprs, e[0], expr_mul_const(&cx->exprs, e[2], i));
    infer_set_elems(cx, n, 0, all, len);
    return s;
}

static enum npuc_status eye_like_infer(struct ir_ctx *cx, struct node *n)
{
    enum dtype t;
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_dtype_attr(cx, n, "dtype", infer_dtype(n, 0), &t);
    if (s != NPUC_OK)
        return s;
    struct shape x = infer_shape(n, 0);
    if (x.rank < 0)
        x = infer_fresh_shape(cx, n, 0, 2);
    if (x.rank != 2)
        return infer_rank_error(cx, n, 0, "rank 2");
    return infer_out(cx, n, 0, t, &x);
}

#include "ir/ops/rows.h"

#include "ir/ops/shape.def"
