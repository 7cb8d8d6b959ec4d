/* Fourier transforms, windows, Einsum. */
#include "ir/ops/infer.h"
#include "kernels/einsum.h"

/* The one whole number in input i; false when absent or not known. */
static bool known_int(struct ir_ctx *cx, const struct node *n, int i, int64_t *v)
{
    int64_t all[INFER_MAX_ELEMS], len;
    if (!infer_has(n, i) || !infer_ints(cx, n, i, all, &len) || len != 1)
        return false;
    *v = all[0];
    return true;
}

static enum npuc_status whole_input(struct ir_ctx *cx, const struct node *n, int i)
{
    const enum dtype t = infer_dtype(n, i);
    if (!infer_has(n, i) || dtype_is_integer(t))
        return NPUC_OK;
    return node_error(cx, n, D_TYPE_MISMATCH, "input %d has element type %s, expected an integer type", i,
                      dtype_table[t].name);
}

/* ---- windows, MelWeightMatrix */

static enum npuc_status number_attr(struct ir_ctx *cx, struct node *n, const char *attr, enum dtype *t)
{
    const enum npuc_status s = infer_dtype_attr(cx, n, attr, DT_F32, t);
    if (s != NPUC_OK || dtype_is_float(*t) || dtype_is_integer(*t))
        return s;
    return node_error(cx, n, D_ATTRIBUTE, "attribute '%s' is %s, expected a float or integer type", attr,
                      dtype_table[*t].name);
}

static enum npuc_status window_infer(struct ir_ctx *cx, struct node *n)
{
    enum dtype t;
    int64_t size;
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = whole_input(cx, n, 0);
    if (s == NPUC_OK)
        s = number_attr(cx, n, "output_datatype", &t);
    if (s != NPUC_OK)
        return s;
    struct shape out = {.rank = 1};
    const expr e = value_n_elems(cx, n->in[0].value) == 1 ? value_elem(cx, n->in[0].value, 0) : EXPR_INVALID;
    if (e && expr_is_const(&cx->exprs, e, &size) && size < 0)
        return node_error(cx, n, D_SHAPE_MISMATCH, "input 0 (size) is %lld, expected at least 0", (long long)size);
    out.d[0] = e && !infer_may_be_negative(cx, e) ? e : infer_fresh(cx, n, 0, 0);
    return infer_out(cx, n, 0, t, &out);
}

/* Two cosines per element, on the host. */
static void window_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    cost_bytes(cx, n, symbols, c);
    c->alu = 40 * cost_count(cx, &n->out[0], symbols);
}

static enum npuc_status mel_infer(struct ir_ctx *cx, struct node *n)
{
    enum dtype t;
    int64_t v;
    enum npuc_status s = infer_begin(cx, n);
    for (int i = 0; i < 3 && s == NPUC_OK; i++)
        s = whole_input(cx, n, i);
    for (int i = 3; i < 5 && s == NPUC_OK; i++)
        s = infer_is_float(cx, n, i);
    if (s == NPUC_OK)
        s = number_attr(cx, n, "output_datatype", &t);
    if (s != NPUC_OK)
        return s;
    struct shape out = {.rank = 2};
    out.d[0] = known_int(cx, n, 1, &v) && v > 0 ? expr_const(&cx->exprs, v / 2 + 1) : infer_fresh(cx, n, 0, 0);
    out.d[1] = known_int(cx, n, 0, &v) && v >= 0 ? expr_const(&cx->exprs, v) : infer_fresh(cx, n, 0, 1);
    return infer_out(cx, n, 0, t, &out);
}

/* ---- DFT, STFT */

static expr half_of(struct ir_ctx *cx, expr n)
{
    return expr_add(&cx->exprs, expr_floordiv(&cx->exprs, n, expr_const(&cx->exprs, 2)), expr_const(&cx->exprs, 1));
}

/* Bins or samples along the axis; `size` is what the input has there. */
static expr dft_size(struct ir_ctx *cx, struct node *n, int axis, expr size)
{
    struct expr_pool *p = &cx->exprs;
    const bool inverse = node_attr_int(n, "inverse", 0) != 0, onesided = node_attr_int(n, "onesided", 0) != 0;
    expr len = inverse && onesided ? expr_mul_const(p, expr_sub(p, size, expr_const(p, 1)), 2) : size;
    if (infer_has(n, 1))
        len = value_n_elems(cx, n->in[1].value) == 1 ? value_elem(cx, n->in[1].value, 0) : EXPR_INVALID;
    if (!len || infer_may_be_negative(cx, len))
        return infer_fresh(cx, n, 0, axis);
    return onesided && !inverse ? half_of(cx, len) : len;
}

static enum npuc_status dft_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_is_float(cx, n, 0);
    for (int i = 1; i < 3 && s == NPUC_OK; i++)
        s = whole_input(cx, n, i);
    if (s != NPUC_OK)
        return s;
    struct shape out = infer_shape(n, 0);
    const enum dtype t = infer_dtype(n, 0);
    const bool inverse = node_attr_int(n, "inverse", 0) != 0, onesided = node_attr_int(n, "onesided", 0) != 0;
    int64_t given = -2, parts;
    int axis = 0;
    if (out.rank < 0)
        return infer_out_unknown(cx, n, 0, t);
    if (out.rank < 2 || (expr_is_const(&cx->exprs, out.d[out.rank - 1], &parts) && parts != 1 && parts != 2))
        return infer_rank_error(cx, n, 0, "rank 2 or more and a last axis of 1 (real) or 2 (complex)");
    const bool known = !infer_has(n, 2) || known_int(cx, n, 2, &given);
    if (known)
        s = infer_axis(cx, n, "axis", given, out.rank, &axis);
    if (s == NPUC_OK && known && axis == out.rank - 1)
        s = node_error(cx, n, D_SHAPE_MISMATCH, "axis is %lld, the one of the complex parts", (long long)given);
    if (s != NPUC_OK)
        return s;
    if (known)
        out.d[axis] = dft_size(cx, n, axis, out.d[axis]);
    else if (onesided || infer_has(n, 1))
        for (int i = 0; i < out.rank - 1; i++)
            out.d[i] = infer_fresh(cx, n, 0, i);
    out.d[out.rank - 1] = expr_const(&cx->exprs, onesided && inverse ? 1 : 2);
    return infer_out(cx, n, 0, t, &out);
}

/* As the product with a matrix that it is. */
static void dft_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    double length = 1;
    cost_bytes(cx, n, symbols, c);
    const struct type *x = node_in(n, 0)->type;
    for (int i = 0; i + 1 < x->rank; i++) /* the axis is the one whose size changes, else the longest */
        if (cost_dim(cx, node_in(n, 0), i, symbols) > length)
            length = cost_dim(cx, node_in(n, 0), i, symbols);
    c->macs =
        cost_count(cx, &n->out[0], symbols) * length * (x->rank > 0 ? cost_dim(cx, node_in(n, 0), -1, symbols) : 1);
}

static enum npuc_status stft_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_is_float(cx, n, 0);
    for (int i = 1; i < 4 && s == NPUC_OK; i += 2)
        s = whole_input(cx, n, i);
    if (s == NPUC_OK && infer_has(n, 2))
        s = infer_same_dtype(cx, n, 0, 2);
    if (s != NPUC_OK)
        return s;
    struct expr_pool *p = &cx->exprs;
    const struct shape x = infer_shape(n, 0), w = infer_shape(n, 2);
    if (x.rank >= 0 && x.rank != 2 && x.rank != 3)
        return infer_rank_error(cx, n, 0, "rank 3: batch, length, 1 (real) or 2 (complex)");
    int64_t step = 0, frame = 0;
    expr length = EXPR_INVALID;
    if (infer_has(n, 3))
        length = known_int(cx, n, 3, &frame) && frame > 0 ? expr_const(p, frame) : EXPR_INVALID;
    else if (w.rank == 1)
        length = w.d[0];
    else if (!infer_has(n, 2) && x.rank >= 0)
        length = x.d[1];
    if (length && w.rank == 1 && !infer_dim_same(cx, length, w.d[0]))
        return node_error(cx, n, D_SHAPE_MISMATCH, "input 2 (window) has %s elements, a frame %s",
                          infer_dim_text(cx, w.d[0]), infer_dim_text(cx, length));
    struct shape out = {.rank = 4};
    const bool known = known_int(cx, n, 1, &step) && step > 0 && length && x.rank >= 0;
    out.d[0] = x.rank >= 0 ? x.d[0] : infer_fresh(cx, n, 0, 0);
    out.d[1] = known ? expr_add(p, expr_floordiv(p, expr_sub(p, x.d[1], length), expr_const(p, step)), expr_const(p, 1))
                     : infer_fresh(cx, n, 0, 1);
    if (known && expr_range_of(p, out.d[1]).max < 0)
        return node_error(cx, n, D_SHAPE_MISMATCH, "a frame of %s samples is longer than the signal of %s",
                          infer_dim_text(cx, length), infer_dim_text(cx, x.d[1]));
    out.d[2] = !length ? infer_fresh(cx, n, 0, 2) : node_attr_int(n, "onesided", 1) ? half_of(cx, length) : length;
    out.d[3] = expr_const(p, 2);
    return infer_out(cx, n, 0, infer_dtype(n, 0), &out);
}

static void stft_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    cost_bytes(cx, n, symbols, c);
    const double bins = cost_dim(cx, &n->out[0], 2, symbols);
    c->macs = cost_count(cx, &n->out[0], symbols) * bins * (node_attr_int(n, "onesided", 1) ? 2 : 1);
}

/* ---- Einsum */

static bool ranks_of(const struct node *n, int *ranks)
{
    bool known = true;
    for (int i = 0; i < n->n_in && i < EINSUM_MAX_TERMS; i++) {
        ranks[i] = infer_shape(n, i).rank;
        known = known && ranks[i] >= 0;
    }
    return known;
}

/* Size of every label; 1 is spread over what else there is. */
static enum npuc_status label_sizes(struct ir_ctx *cx, struct node *n, const struct einsum *e, expr *size)
{
    for (int i = 0; i < e->n_in; i++) {
        const struct shape x = infer_shape(n, i);
        for (int k = 0; k < x.rank; k++) {
            expr *at = &size[e->in[i].label[k]];
            const expr both = *at ? infer_dim_broadcast(cx, *at, x.d[k]) : x.d[k];
            if (!both)
                return node_error(cx, n, D_SHAPE_MISMATCH,
                                  "input %d has %s on axis %d, where the label has %s elsewhere", i,
                                  infer_dim_text(cx, x.d[k]), k, infer_dim_text(cx, *at));
            *at = both;
        }
    }
    return NPUC_OK;
}

static enum npuc_status einsum_infer(struct ir_ctx *cx, struct node *n)
{
    int ranks[EINSUM_MAX_TERMS];
    struct einsum e;
    const char *why;
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK && n->n_in > EINSUM_MAX_TERMS)
        s = node_error(cx, n, D_UNSUPPORTED, "%d operands, at most %d are supported", (int)n->n_in, EINSUM_MAX_TERMS);
    for (int i = 1; i < n->n_in && s == NPUC_OK; i++)
        s = infer_same_dtype(cx, n, 0, i);
    if (s != NPUC_OK)
        return s;
    if (!ranks_of(n, ranks))
        return infer_out_unknown(cx, n, 0, infer_dtype(n, 0));
    const char *text = str_text(&cx->strings, node_attr_str(n, "equation", 0));
    if (!einsum_read(&e, text, n->n_in, ranks, &why))
        return node_error(cx, n, D_ATTRIBUTE, "attribute 'equation' is '%.80s': %s", text, why);
    expr size[EINSUM_LABELS] = {0};
    s = label_sizes(cx, n, &e, size);
    struct shape out = {.rank = e.out.n};
    for (int i = 0; i < e.out.n; i++)
        out.d[i] = size[e.out.label[i]];
    return s == NPUC_OK ? infer_out(cx, n, 0, infer_dtype(n, 0), &out) : s;
}

/* Every combination of labels once per operand after the first. */
static void einsum_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    int ranks[EINSUM_MAX_TERMS];
    double size[EINSUM_LABELS] = {0}, all = 1;
    struct einsum e;
    const char *why, *text = str_text(&cx->strings, node_attr_str(n, "equation", 0));
    cost_bytes(cx, n, symbols, c);
    if (!ranks_of(n, ranks) || !einsum_read(&e, text, n->n_in, ranks, &why))
        return;
    for (int i = 0; i < n->n_in; i++)
        for (int k = 0; k < ranks[i]; k++) {
            const double d = cost_dim(cx, node_in(n, i), k, symbols);
            if (d > size[e.in[i].label[k]])
                size[e.in[i].label[k]] = d;
        }
    for (int i = 0; i < EINSUM_LABELS; i++)
        all *= size[i] > 0 ? size[i] : 1;
    if (n->n_in > 1)
        c->macs = all * (n->n_in - 1);
    else
        c->alu = all;
}

#include "ir/ops/rows.h"

#include "ir/ops/signal.def"
