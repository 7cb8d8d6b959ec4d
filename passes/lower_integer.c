/* 8-bit products with zero points become products of signed bytes, which matrix units have, and corrections in int32.
 *
 *   %y = MatMulInteger %a, %b, %za, %zb                                         : i32[m,n], a u8, b i8
 * becomes
 *   %s = BitCast (BitwiseXor %a, 128);  %p = MatMulInteger %s, %b               (s = a - 128)
 *   %y = %p - (%za - 128) * colsum(%b) - %zb * (rowsum(%s) - k * (%za - 128))   in int32, modulo 2^32
 * and QLinearMatMul, QLinearConv the same with a bias and
 *   y = Cast(Clip(Round(Cast %sum * (%sx * %sw / %sy)) + %zy))
 *
 * Requirements: (1) a sum of products and its corrections are exact modulo 2^32, so that the order does not matter; (2)
 * the requantisation is that of k_requant, operation by operation; (3) sums of weights are products with ones, which
 * fold to constants of one row; (4) padding stands for the zero point: a convolution whose zero point is not 0 gets
 * its padding as data, or where that is computed the weights under the padding are left out of the sum; (5) runs before
 * constants are folded and before cse. Left alone: 8-bit floats, operands of rank 1, zero points of a form that the
 * corrections do not know, and convolutions whose padding or zero point is only known at run time where it matters. */
#include <string.h>

#include "passes/pass.h"

enum { MOST_K = 1 << 20, MOST_MAP = 1 << 24, OFFSET = 128 };

/* One 8-bit operand. */
struct side {
    struct value *q;    /* signed bytes */
    struct value *zero; /* i32; NULL: 0 everywhere */
};
struct lowering {
    struct builder b;
    struct node *n;
    struct side x, w;
    bool failed; /* an error was reported */
};

static struct value *check(struct lowering *l, struct value *v)
{
    l->failed = l->failed || !v;
    return v;
}

static bool is_bytes(const struct value *v)
{
    return v && v->type->kind == TYPE_TENSOR && (v->type->dtype == DT_I8 || v->type->dtype == DT_U8);
}

/* Rank of at least `least`. */
static bool has_rank(const struct value *v, int least)
{
    return v->type->kind == TYPE_TENSOR && v->type->rank >= least;
}

static bool known(const struct ir_ctx *cx, expr e, int64_t *v)
{
    return expr_is_const(&cx->exprs, e, v);
}

/* Number of elements, -1 when not known. */
static int64_t count(const struct ir_ctx *cx, const struct value *v)
{
    int64_t n = 1, d;
    if (v->type->kind != TYPE_TENSOR || v->type->rank < 0)
        return -1;
    for (int i = 0; i < v->type->rank; i++) {
        if (!known(cx, v->type->dims[i], &d) || d > MOST_K || n > MOST_K)
            return -1;
        n *= d;
    }
    return n;
}

static bool is_always(const struct ir_ctx *cx, const struct value *v, double wanted)
{
    const int64_t n = count(cx, v);
    double x;
    for (int64_t i = 0; i < n; i++)
        if (!value_const_f64(v, i, &x) || x != wanted)
            return false;
    return n >= 0;
}

/* ---- pieces ------------------------------------------------------------------------------------------------- */

static struct value *ones(struct lowering *l, int rank, const int64_t *dims)
{
    int64_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= dims[i];
    struct arena *a = &l->b.cx->scratch;
    const struct arena_mark mark = arena_mark(a);
    uint8_t *data = arena_alloc(a, n + 1, 1);
    memset(data, 1, (size_t)n);
    struct value *v = ir_const(&l->b, DT_I8, rank, dims, data, n);
    arena_release(a, mark);
    return check(l, v);
}

static struct value *op2(struct lowering *l, enum op op, struct value *x, struct value *y)
{
    return l->failed || !x || !y ? NULL : check(l, ir_op2(&l->b, op, x, y));
}

static struct value *cast(struct lowering *l, struct value *v, enum dtype t)
{
    return l->failed || !v ? NULL : check(l, ir_cast(&l->b, v, t));
}

static struct value *scalar_like(struct lowering *l, struct value *v, double x)
{
    return l->failed || !v ? NULL : check(l, ir_scalar_like(&l->b, v, x));
}

static struct value *reshape(struct lowering *l, struct value *v, int rank, const int64_t *dims)
{
    expr d[IR_MAX_RANK];
    for (int i = 0; i < rank; i++)
        d[i] = expr_const(&l->b.cx->exprs, dims[i]);
    return l->failed || !v ? NULL : check(l, ir_reshape(&l->b, v, rank, d));
}

static struct value *flip(struct lowering *l, struct value *v)
{
    struct value *flipped = op2(l, OP_BitwiseXor, v, scalar_like(l, v, OFFSET));
    if (!flipped)
        return NULL;
    struct node *n = ir_new(&l->b, OP_BitCast, 1, &flipped, 1);
    ir_set_int(n, "to", dtype_table[DT_I8].onnx);
    return check(l, ir_infer(n) == NPUC_OK ? &n->out[0] : NULL);
}

/* u8 as i8, 128 less: the highest bit flips, where what makes the bytes can do it in its kernel: before a view. */
static struct value *to_signed(struct lowering *l, struct value *v)
{
    const struct node *view = v->def && (v->def->op == OP_Reshape || v->def->op == OP_Flatten) ? v->def : NULL;
    if (v->type->dtype == DT_I8)
        return v;
    if (!view || !v->uses || v->uses->next || node_in(view, 0)->type->dtype != DT_U8)
        return flip(l, v);
    struct value *in[2] = {flip(l, node_in(view, 0)), node_in(view, 1)};
    if (!in[0])
        return NULL;
    struct node *n = ir_new(&l->b, (enum op)view->op, view->n_in > 1 ? 2 : 1, in, 1);
    ir_copy_attrs(n, view);
    return check(l, ir_infer(n) == NPUC_OK ? &n->out[0] : NULL);
}

/* A vector of one value per row, so that it stands before the columns; others as they are. */
static struct value *per_row(struct lowering *l, struct value *v, int trailing)
{
    int64_t dims[IR_MAX_RANK] = {0};
    if (!v || l->failed || v->type->rank != 1 || count(l->b.cx, v) == 1)
        return v;
    for (int i = 1; i <= trailing; i++)
        dims[i] = 1;
    dims[0] = count(l->b.cx, v);
    return reshape(l, v, 1 + trailing, dims);
}

/* The operand and the zero point that goes with its signed form, whose elements stand before `trailing` axes. */
static void take_side(struct lowering *l, struct value *v, struct value *zero, int trailing, struct side *s)
{
    const bool shifted = v->type->dtype == DT_U8;
    const int8_t none = -OFFSET;
    s->q = to_signed(l, v);
    s->zero = NULL;
    if (zero ? is_always(l->b.cx, zero, shifted ? OFFSET : 0) : !shifted)
        return;
    if (zero) {
        s->zero = cast(l, per_row(l, zero, trailing), DT_I32);
        s->zero = shifted ? op2(l, OP_Sub, s->zero, scalar_like(l, s->zero, OFFSET)) : s->zero;
    } else {
        s->zero = cast(l, check(l, ir_const(&l->b, DT_I8, 0, NULL, &none, 1)), DT_I32);
    }
}

/* y - zero * sum */
static struct value *correct(struct lowering *l, struct value *y, struct value *zero, struct value *sum)
{
    return op2(l, OP_Sub, y, op2(l, OP_Mul, sum, zero));
}

/* Sums of one side less what the other side's zero point already took: sum - k * zero. */
static struct value *less_zero(struct lowering *l, struct value *sum, struct value *zero, int64_t k)
{
    return zero ? op2(l, OP_Sub, sum, op2(l, OP_Mul, zero, scalar_like(l, zero, (double)k))) : sum;
}

/* ---- requantisation ----------------------------------------------------------------------------------------- */

/* y = saturate(rint(sum * (sx * sw / sy)) + zero) in the type of `zero`. */
static struct value *requantise(struct lowering *l, struct value *sum, struct value *const scale[3], struct value *zero)
{
    const bool is_signed = zero->type->dtype == DT_I8;
    struct value *factor = op2(l, OP_Mul, cast(l, scale[0], DT_F32), cast(l, scale[1], DT_F32));
    factor = op2(l, OP_Div, factor, cast(l, scale[2], DT_F32));
    struct value *v = op2(l, OP_Mul, cast(l, sum, DT_F32), factor);
    v = l->failed ? NULL : check(l, ir_op1(&l->b, OP_Round, v));
    v = op2(l, OP_Add, v, cast(l, zero, DT_F32));
    struct value *lo = scalar_like(l, v, is_signed ? -128 : 0), *hi = scalar_like(l, v, is_signed ? 127 : 255);
    v = l->failed ? NULL : check(l, ir_op3(&l->b, OP_Clip, v, lo, hi));
    return cast(l, v, zero->type->dtype);
}

static bool is_single(const struct ir_ctx *cx, const struct value *v)
{
    return v && count(cx, v) == 1;
}

static bool is_byte_zero(const struct value *v)
{
    return !v || is_bytes(v);
}

/* ---- matrix products ---------------------------------------------------------------------------------------- */

/* One value, one per row or column as a vector, or of the result's rank. */
static bool is_row_form(const struct ir_ctx *cx, const struct value *v, const struct value *of, bool by_row)
{
    int64_t d;
    const struct type *t = v ? v->type : NULL, *m = of->type;
    if (!v || is_single(cx, v))
        return true;
    if (t->kind != TYPE_TENSOR || t->rank < 1 || t->rank > m->rank)
        return false;
    if (t->rank == 1)
        return count(cx, v) > 0 && t->dims[0] == m->dims[m->rank - (by_row ? 2 : 1)];
    return known(cx, t->dims[t->rank - (by_row ? 1 : 2)], &d) && d == 1 &&
           t->dims[t->rank - (by_row ? 2 : 1)] == m->dims[m->rank - (by_row ? 2 : 1)];
}

static struct value *sum_rows(struct lowering *l, struct value *a)
{
    const int64_t axis = -1;
    struct value *wide = cast(l, a, DT_I32);
    struct node *n =
        wide ? ir_new(&l->b, OP_ReduceSum, 2, (struct value *[]){wide, ir_const_i64(&l->b, &axis, 1)}, 1) : NULL;
    return check(l, n && ir_infer(n) == NPUC_OK ? &n->out[0] : NULL);
}

static struct value *matmul_sums(struct lowering *l, int64_t k)
{
    struct value *y = op2(l, OP_MatMulInteger, l->x.q, l->w.q);
    if (l->x.zero && y) {
        struct value *columns = op2(l, OP_MatMulInteger, ones(l, 2, (const int64_t[]){1, k}), l->w.q);
        y = correct(l, y, l->x.zero, less_zero(l, columns, l->w.zero, k));
    }
    return l->w.zero && y ? correct(l, y, l->w.zero, sum_rows(l, l->x.q)) : y;
}

/* Inputs by number: operands, their zero points, and the rest of QLinearMatMul. */
static bool match_matmul(struct lowering *l, int w, int xz, int wz, int64_t *k)
{
    const struct ir_ctx *cx = l->b.cx;
    const struct node *n = l->n;
    struct value *x = node_in(n, 0), *v = node_in(n, w), *zx = node_in(n, xz), *zw = node_in(n, wz);
    return is_bytes(x) && is_bytes(v) && has_rank(x, 2) && has_rank(v, 2) && is_byte_zero(zx) && is_byte_zero(zw) &&
           known(cx, x->type->dims[x->type->rank - 1], k) && *k > 0 && *k <= MOST_K &&
           is_row_form(cx, zx, &n->out[0], true) && is_row_form(cx, zw, &n->out[0], false);
}

static struct value *lower_matmul_integer(struct lowering *l)
{
    int64_t k;
    struct node *n = l->n;
    struct value *x = node_in(n, 0), *w = node_in(n, 1);
    if (!match_matmul(l, 1, 2, 3, &k) ||
        (!node_in(n, 2) && !node_in(n, 3) && x->type->dtype == DT_I8 && w->type->dtype == DT_I8))
        return NULL;
    take_side(l, x, node_in(n, 2), 1, &l->x);
    take_side(l, w, node_in(n, 3), 0, &l->w);
    return matmul_sums(l, k);
}

static struct value *lower_qlinear_matmul(struct lowering *l)
{
    int64_t k;
    struct node *n = l->n;
    const struct ir_ctx *cx = l->b.cx;
    struct value *sx = node_in(n, 1), *sw = node_in(n, 4), *zero = node_in(n, 7);
    if (!match_matmul(l, 3, 2, 5, &k) || !is_row_form(cx, sx, &n->out[0], true) ||
        !is_row_form(cx, sw, &n->out[0], false) || !is_single(cx, node_in(n, 6)) || !is_single(cx, zero) ||
        !is_bytes(zero))
        return NULL;
    take_side(l, node_in(n, 0), node_in(n, 2), 1, &l->x);
    take_side(l, node_in(n, 3), node_in(n, 5), 0, &l->w);
    struct value *sum = matmul_sums(l, k);
    return requantise(l, sum, (struct value *[]){per_row(l, sx, 1), sw, node_in(n, 6)}, zero);
}

/* ---- convolutions ------------------------------------------------------------------------------------------- */

struct window { /* the convolution's sizes, all known */
    int axes;
    int64_t outs, in, taps, pads[2 * IR_MAX_RANK];
    bool padded, zero_known; /* the zero point of x is a constant */
};

static void copy_attrs(struct node *to, const struct node *from, bool with_pads)
{
    static const char *const names[] = {"dilations", "kernel_shape", "strides"};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(names); i++)
        if (node_attr(from, names[i]))
            ir_set_attr(to, names[i], *node_attr(from, names[i]));
    if (with_pads && node_attr(from, "pads"))
        ir_set_attr(to, "pads", *node_attr(from, "pads"));
    if (with_pads && node_attr(from, "auto_pad"))
        ir_set_attr(to, "auto_pad", *node_attr(from, "auto_pad"));
}

static int64_t entry(const struct node *n, const char *name, int i, int64_t otherwise)
{
    const struct attr *a = node_attr(n, name);
    return a && i < a->len ? a->v.ints[i] : otherwise;
}

/* Padding of axis i as numbers; false when it depends on sizes that are not known. */
static bool read_pads(const struct ir_ctx *cx, const struct node *n, struct window *w, int i, int64_t kernel)
{
    const struct attr *mode = node_attr(n, "auto_pad");
    const char *how = mode ? str_text(&cx->strings, mode->v.s) : "NOTSET";
    int64_t in, out;
    if (strcmp(how, "VALID") == 0)
        return true;
    if (strcmp(how, "NOTSET") == 0) {
        w->pads[2 + i] = entry(n, "pads", i, 0);
        w->pads[2 + w->axes + 2 + i] = entry(n, "pads", w->axes + i, 0);
        return true;
    }
    if (!known(cx, node_in(n, 0)->type->dims[2 + i], &in) || !known(cx, n->out[0].type->dims[2 + i], &out))
        return false;
    const int64_t reach = (out - 1) * entry(n, "strides", i, 1) + (kernel - 1) * entry(n, "dilations", i, 1) + 1;
    const int64_t total = reach > in ? reach - in : 0, less = total / 2;
    const bool upper = strcmp(how, "SAME_UPPER") == 0;
    w->pads[2 + i] = upper ? less : total - less;
    w->pads[2 + w->axes + 2 + i] = upper ? total - less : less;
    return true;
}

static bool read_window(const struct ir_ctx *cx, const struct node *n, const struct value *weight, struct window *w)
{
    const struct type *t = weight->type;
    *w = (struct window){.axes = t->rank - 2, .taps = 1};
    if (node_in(n, 0)->type->rank != t->rank || n->out[0].type->rank != t->rank || !known(cx, t->dims[0], &w->outs) ||
        !known(cx, t->dims[1], &w->in))
        return false;
    for (int i = 0; i < w->axes; i++) {
        int64_t kernel;
        if (!known(cx, t->dims[2 + i], &kernel) || kernel < 1 || kernel > MOST_K || !read_pads(cx, n, w, i, kernel))
            return false;
        w->taps *= kernel;
        w->padded = w->padded || w->pads[2 + i] > 0 || w->pads[4 + w->axes + i] > 0;
        if (w->taps > MOST_K)
            return false;
    }
    return w->in >= 1 && w->outs >= 1 && w->in * w->taps <= MOST_K && w->in <= MOST_K && w->outs <= MOST_K;
}

/* The padding as elements, which are the zero point. */
static struct value *pad(struct lowering *l, const struct window *w, struct value *zero)
{
    struct value *with = cast(l, zero, DT_I8);
    with = with ? reshape(l, with, 0, NULL) : NULL;
    struct value *pads = check(l, ir_const_i64(&l->b, w->pads, 2 * (w->axes + 2)));
    if (l->failed)
        return NULL;
    struct node *n = ir_new(&l->b, OP_Pad, 3, (struct value *[]){l->x.q, pads, with}, 1);
    return check(l, ir_infer(n) == NPUC_OK ? &n->out[0] : NULL);
}

static struct value *convolve(struct lowering *l, struct value *x, struct value *w, int64_t group, bool with_pads)
{
    if (l->failed || !x || !w)
        return NULL;
    struct node *n = ir_new(&l->b, OP_ConvInteger, 2, (struct value *[]){x, w}, 1);
    copy_attrs(n, l->n, with_pads);
    ir_set_int(n, "group", group);
    return check(l, ir_infer(n) == NPUC_OK ? &n->out[0] : NULL);
}

/* Sum of the weights of each output channel, as [outs, 1...]. */
static struct value *sum_weights(struct lowering *l, const struct window *w)
{
    const int64_t k = w->in * w->taps, outs = w->outs;
    struct value *rows = reshape(l, l->w.q, 2, (const int64_t[]){outs, k});
    struct value *sums = op2(l, OP_MatMulInteger, rows, ones(l, 2, (const int64_t[]){k, 1}));
    struct value *flat = reshape(l, sums, 1, &outs);
    return outs == 1 ? flat : per_row(l, flat, w->axes);
}

/* Sum of the elements of each window and group. */
static struct value *sum_windows(struct lowering *l, const struct window *w, struct value *x, int64_t group, bool pads)
{
    int64_t dims[IR_MAX_RANK];
    const struct type *t = l->w.q->type;
    for (int i = 0; i < t->rank; i++)
        (void)known(l->b.cx, t->dims[i], &dims[i]);
    dims[0] = group == 1 ? 1 : w->outs;
    return convolve(l, x, ones(l, t->rank, dims), group, pads);
}

/* What each window adds to the sum of x by its zero point: the weights of its elements that are no padding. */
static struct value *sum_valid_weights(struct lowering *l, const struct window *w, int64_t group)
{
    int64_t dims[IR_MAX_RANK] = {1};
    const struct type *t = l->x.q->type;
    for (int i = 1; i < t->rank; i++)
        (void)known(l->b.cx, t->dims[i], &dims[i]);
    struct value *map = ones(l, t->rank, dims), *sums = convolve(l, map, l->w.q, group, true);
    if (!l->w.zero)
        return sums;
    return op2(l, OP_Sub, sums, op2(l, OP_Mul, sum_windows(l, w, map, group, true), l->w.zero));
}

static struct value *conv_sums(struct lowering *l, const struct window *w)
{
    const int64_t group = node_attr_int(l->n, "group", 1), k = w->in * w->taps;
    const bool as_data = l->x.zero && w->padded && w->zero_known;
    struct value *x = as_data ? pad(l, w, l->x.zero) : l->x.q;
    struct value *y = convolve(l, x, l->w.q, group, !as_data);
    if (l->x.zero && w->padded && !as_data)
        y = correct(l, y, l->x.zero, sum_valid_weights(l, w, group));
    else if (l->x.zero)
        y = correct(l, y, l->x.zero, less_zero(l, sum_weights(l, w), l->w.zero, k));
    return l->w.zero ? correct(l, y, l->w.zero, sum_windows(l, w, x, group, !as_data)) : y;
}

/* Are the sizes of a member known, so that a map of ones can be made? */
static bool known_map(const struct ir_ctx *cx, const struct value *x)
{
    int64_t n = 1, d;
    for (int i = 1; i < x->type->rank; i++) {
        if (!known(cx, x->type->dims[i], &d) || d > MOST_MAP || n * d > MOST_MAP)
            return false;
        n *= d;
    }
    return true;
}

/* One zero point for x; for w one, or one per output channel. */
static bool match_conv(struct lowering *l, int at, int xz, int wz, struct window *w)
{
    const struct ir_ctx *cx = l->b.cx;
    const struct node *n = l->n;
    struct value *x = node_in(n, 0), *v = node_in(n, at), *zx = node_in(n, xz), *zw = node_in(n, wz);
    if (!is_bytes(x) || !is_bytes(v) || !has_rank(x, 3) || !has_rank(v, 3) || !is_byte_zero(zx) || !is_byte_zero(zw) ||
        !read_window(cx, n, v, w) || (zx && !is_single(cx, zx)))
        return false;
    w->zero_known = !zx || value_const(zx);
    if (w->padded && !w->zero_known && !known_map(cx, x))
        return false;
    return !zw || is_single(cx, zw) || (zw->type->rank == 1 && count(cx, zw) == w->outs);
}

static struct value *lower_conv_integer(struct lowering *l)
{
    struct window w;
    struct node *n = l->n;
    if (!match_conv(l, 1, 2, 3, &w) || (!node_in(n, 2) && !node_in(n, 3) && node_in(n, 0)->type->dtype == DT_I8 &&
                                        node_in(n, 1)->type->dtype == DT_I8))
        return NULL;
    take_side(l, node_in(n, 0), node_in(n, 2), 0, &l->x);
    take_side(l, node_in(n, 1), node_in(n, 3), w.axes, &l->w);
    return conv_sums(l, &w);
}

static struct value *lower_qlinear_conv(struct lowering *l)
{
    struct window w;
    struct node *n = l->n;
    const struct ir_ctx *cx = l->b.cx;
    struct value *sx = node_in(n, 1), *sw = node_in(n, 4), *sy = node_in(n, 6), *zero = node_in(n, 7);
    if (!match_conv(l, 3, 2, 5, &w) || !is_single(cx, sx) || !is_single(cx, sy) || !is_single(cx, zero) ||
        !is_bytes(zero) || (!is_single(cx, sw) && (sw->type->rank != 1 || count(cx, sw) != w.outs)))
        return NULL;
    take_side(l, node_in(n, 0), node_in(n, 2), 0, &l->x);
    take_side(l, node_in(n, 3), node_in(n, 5), w.axes, &l->w);
    struct value *sum = conv_sums(l, &w);
    if (node_in(n, 8))
        sum = op2(l, OP_Add, sum, per_row(l, node_in(n, 8), w.axes));
    return requantise(l, sum, (struct value *[]){sx, per_row(l, sw, w.axes), sy}, zero);
}

/* ---- the pass ----------------------------------------------------------------------------------------------- */

static const struct {
    enum op op;
    struct value *(*lower)(struct lowering *l);
} rules[] = {
    {OP_MatMulInteger, lower_matmul_integer},
    {OP_QLinearMatMul, lower_qlinear_matmul},
    {OP_ConvInteger, lower_conv_integer},
    {OP_QLinearConv, lower_qlinear_conv},
};

static enum npuc_status lower(struct pass_ctx *px, struct node *n)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(rules); i++) {
        if (rules[i].op != (enum op)n->op)
            continue;
        struct lowering l = {.b = ir_at(n), .n = n};
        if (n->out[0].type->kind != TYPE_TENSOR || n->out[0].type->rank < 2 || !ir_may_rewrite(px->cx))
            return NPUC_OK;
        struct value *y = rules[i].lower(&l);
        if (l.failed)
            return NPUC_E_INTERNAL;
        if (!y)
            return NPUC_OK;
        ir_replace_all(&n->out[0], y);
        ir_erase(n);
        pass_count(px, STAT_lower_integer_lowered, 1);
        return NPUC_OK;
    }
    return NPUC_OK;
}

enum npuc_status lower_integer(struct pass_ctx *px, struct graph *g)
{
    if (!px->target)
        return NPUC_OK;
    for_each_node_safe(n, g)
    {
        const enum npuc_status s = lower(px, n);
        if (s != NPUC_OK)
            return s;
    }
    return NPUC_OK;
}
