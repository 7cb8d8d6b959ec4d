/* Resize as gathers and weighted sums, with the bits of its kernel.
 *
 *   %y = Resize %x, , [1, 1, 2, 2.5] {mode=linear} : f32[n,c,20,25]        (%x: f32[n,c,10,10])
 * becomes, for each axis that changes,
 *   %p = (Range(0, 20) + 0.5) / 2 - 0.5,  %c = Ceil %p                     places of the result in %x, folded
 *   %at0 = Cast (Clip %c - 1) : i32[20],  %w0 = 1 - |%c - 1 - %p|          and so for every tap
 *   %s = %w0 * Gather(%x, %at0) + %w1 * Gather(%x, %at1)
 *
 *   %y = Resize %x, , [1, 1, 2, 2] {mode=nearest} : f32[n,c,2*h,2*w]
 * becomes
 *   %a = Reshape %x, [n, c, h, 1, w, 1];  %b = Expand %a, [n, c, h, 2, w, 2];  %y = Reshape %b, [n, c, 2*h, 2*w]
 *
 * Requirements: (1) scales and roi are constants, sizes known or read when shapes are bound, so that the result's size
 * does not depend on the node; (2) places and weights are computed by the formulas of kernels/op_resize.c in its order,
 * in f64: constants where sizes are known, else a few elements on the host. A scale that is a power of two lets f32
 * hold them exactly, which the cores compute; (3) sums are taken in the order of taps in f32, so weighted modes are for
 * floats and integers of at most 16 bits; their scales are numbers, since an axis of scale 1 is left alone; (4) the
 * aspect ratio may change: a common scale makes sizes of its own; (5) whole factors repeat elements where the rule
 * takes element i from i // factor. More than MAX_TAPS taps (antialiasing by large factors) stay on the host. Left
 * alone: what the target has a kernel for, in a graph with convolutions. */
#include "passes/pass.h"

#include <math.h>

enum { MAX_TAPS = 16, MAX_FACTOR = 16, MAX_CROPPED = 1 << 20, MAX_ROI = 1000 };

struct side {
    int axis; /* of the data */
    expr in, out;
    double scale; /* 0: only known when shapes are bound */
    double roi[2];
};
struct resize {
    struct builder *b;
    struct node *n;
    enum { NEAREST, LINEAR, CUBIC } mode;
    bool crops;
    int n_sides; /* in the order in which the kernel takes them */
    struct side sides[IR_MAX_RANK];
    enum dtype work; /* of places and weights of the axis at hand: f64 or f32 */
};

static bool is_word(const struct resize *r, const char *attr, const char *word)
{
    return node_attr_str(r->n, attr, 0) == str_internz(&r->b->cx->strings, word);
}

/* ---- what is asked for */

static int axis_of(const struct resize *r, int64_t i, int rank)
{
    const struct attr *axes = node_attr(r->n, "axes");
    const int64_t axis = axes && axes->len > 0 ? axes->v.ints[i] : i;
    return (int)(axis < 0 ? axis + rank : axis);
}

static bool scale_of_sizes(struct expr_pool *p, struct side *s)
{
    int64_t in, out;
    if (expr_is_const(p, s->in, &in) && expr_is_const(p, s->out, &out)) {
        s->scale = in > 0 ? (double)out / (double)in : 1;
        return in > 0 && out > 0;
    }
    for (int64_t f = 1; f <= MAX_FACTOR && s->scale == 0; f++)
        s->scale = expr_mul_const(p, s->in, f) == s->out   ? (double)f
                   : expr_mul_const(p, s->out, f) == s->in ? 1 / (double)f
                                                           : 0;
    return true;
}

/* Is the size of the result an expression over other sizes? As ir/ops/window.c makes it. */
static bool scale_of_scales(struct expr_pool *p, const struct value *scales, int64_t i, struct side *s)
{
    int64_t in;
    if (!value_const_f64(scales, i, &s->scale) || !(s->scale > 0))
        return false;
    const double inverse = 1 / s->scale;
    return expr_is_const(p, s->in, &in) || s->scale == floor(s->scale) || inverse == floor(inverse);
}

static bool read_side(struct resize *r, int64_t i, int64_t count, struct side *s)
{
    struct ir_ctx *cx = r->b->cx;
    const struct type *x = node_in(r->n, 0)->type;
    const struct value *roi = node_in(r->n, 1), *sizes = node_in(r->n, 3);
    int64_t in;
    *s = (struct side){.axis = axis_of(r, i, x->rank), .roi = {0, 1}};
    s->in = x->dims[s->axis];
    s->out = r->n->out[0].type->dims[s->axis];
    if (r->crops) {
        for (int k = 0; k < 2; k++)
            if (!roi || !value_const_f64(roi, k * count + i, &s->roi[k]) || !(fabs(s->roi[k]) <= MAX_ROI))
                return false;
        if (!expr_is_const(&cx->exprs, s->in, &in) || in > MAX_CROPPED)
            return false;
    }
    if (sizes ? value_elem(cx, sizes, i) != s->out || !scale_of_sizes(&cx->exprs, s)
              : !scale_of_scales(&cx->exprs, node_in(r->n, 2), i, s))
        return false;
    return s->scale > 0 || r->mode == NEAREST;
}

static bool type_fits(const struct resize *r)
{
    const enum dtype t = node_in(r->n, 0)->type->dtype;
    if (r->mode == NEAREST)
        return t != DT_STRING;
    return (dtype_is_float(t) && t != DT_F64) || (dtype_is_integer(t) && dtype_table[t].bits <= 16);
}

static bool resize_of(struct builder *b, struct node *n, struct resize *r)
{
    *r = (struct resize){.b = b, .n = n};
    const struct attr *axes = node_attr(n, "axes");
    const struct type *x = node_in(n, 0)->type, *y = n->out[0].type;
    r->mode = is_word(r, "mode", "nearest") ? NEAREST : is_word(r, "mode", "linear") ? LINEAR : CUBIC;
    r->crops = is_word(r, "coordinate_transformation_mode", "tf_crop_and_resize");
    if (x->rank < 1 || y->rank != x->rank || y->dtype != x->dtype || !type_fits(r) ||
        !is_word(r, "keep_aspect_ratio_policy", "stretch") || (node_in(n, 3) == NULL) == (node_in(n, 2) == NULL))
        return false;
    r->n_sides = axes && axes->len > 0 ? (int)axes->len : x->rank;
    if (r->n_sides > x->rank)
        return false;
    for (int i = 0; i < r->n_sides; i++)
        if (!read_side(r, i, r->n_sides, &r->sides[i]))
            return false;
    return true;
}

/* ---- operators that pass on an error reported before */

static struct value *two(struct resize *r, enum op op, struct value *x, struct value *y)
{
    return x && y ? ir_op2(r->b, op, x, y) : NULL;
}
static struct value *one(struct resize *r, enum op op, struct value *x)
{
    return x ? ir_op1(r->b, op, x) : NULL;
}
static struct value *with(struct resize *r, enum op op, struct value *x, double v)
{
    return x ? ir_op2(r->b, op, x, ir_scalar_like(r->b, x, v)) : NULL;
}
static struct value *choose(struct resize *r, struct value *c, struct value *x, struct value *y)
{
    return c && x && y ? ir_op3(r->b, OP_Where, c, x, y) : NULL;
}
static struct value *cast(struct resize *r, struct value *x, enum dtype t)
{
    return x ? ir_cast(r->b, x, t) : NULL;
}
/* A size as a number. */
static struct value *size(struct resize *r, expr e)
{
    return cast(r, ir_sizes(r->b, &e, 1, true), r->work);
}
static struct value *number(struct resize *r, double v)
{
    return cast(r, ir_const(r->b, DT_F64, 0, NULL, &v, sizeof v), r->work);
}

/* ---- places, in elements of the data; the names and formulas are those of kernels/op_resize.c */

static struct value *scale_of(struct resize *r, const struct side *s)
{
    return s->scale > 0 ? number(r, s->scale) : two(r, OP_Div, size(r, s->out), size(r, s->in));
}
static struct value *exact_out(struct resize *r, const struct side *s)
{
    return two(r, OP_Mul, scale_of(r, s), size(r, s->in));
}
static struct value *is_single(struct resize *r, const struct side *s)
{
    return with(r, OP_Equal, exact_out(r, s), 1);
}
static struct value *half_pixel(struct resize *r, const struct side *s, struct value *o)
{
    return with(r, OP_Sub, two(r, OP_Div, with(r, OP_Add, o, 0.5), scale_of(r, s)), 0.5);
}
static struct value *half_pixel_symmetric(struct resize *r, const struct side *s, struct value *o)
{
    struct value *center = with(r, OP_Div, size(r, s->in), 2);
    struct value *ratio = two(r, OP_Div, size(r, s->out), exact_out(r, s));
    center = two(r, OP_Mul, center, two(r, OP_Sub, number(r, 1), ratio));
    return two(r, OP_Add, center, half_pixel(r, s, o));
}
static struct value *pytorch_half_pixel(struct resize *r, const struct side *s, struct value *o)
{
    return choose(r, is_single(r, s), number(r, -0.5), half_pixel(r, s, o));
}
static struct value *asymmetric(struct resize *r, const struct side *s, struct value *o)
{
    return two(r, OP_Div, o, scale_of(r, s));
}
static struct value *align_corners(struct resize *r, const struct side *s, struct value *o)
{
    struct value *p = two(r, OP_Mul, o, with(r, OP_Sub, size(r, s->in), 1));
    p = two(r, OP_Div, p, with(r, OP_Sub, exact_out(r, s), 1));
    return choose(r, is_single(r, s), number(r, 0), p);
}
static struct value *crop_and_resize(struct resize *r, const struct side *s, struct value *o)
{
    struct value *last = with(r, OP_Sub, size(r, s->in), 1);
    struct value *span = two(r, OP_Sub, number(r, s->roi[1]), number(r, s->roi[0]));
    span = two(r, OP_Mul, span, last);
    struct value *p = two(r, OP_Div, two(r, OP_Mul, o, span), with(r, OP_Sub, exact_out(r, s), 1));
    p = choose(r, is_single(r, s), with(r, OP_Div, span, 2), p);
    return two(r, OP_Add, p, two(r, OP_Mul, number(r, s->roi[0]), last));
}

/* dyadic: as there. */
static const struct {
    const char *name;
    struct value *(*fn)(struct resize *r, const struct side *s, struct value *o);
    bool dyadic;
} rules[] = {
    {"half_pixel", half_pixel, true},
    {"half_pixel_symmetric", half_pixel_symmetric, false},
    {"pytorch_half_pixel", pytorch_half_pixel, true},
    {"asymmetric", asymmetric, true},
    {"align_corners", align_corners, false},
    {"tf_crop_and_resize", crop_and_resize, false},
};

static int64_t rule_of(const struct resize *r)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(rules); i++)
        if (is_word(r, "coordinate_transformation_mode", rules[i].name))
            return i;
    return -1;
}

/* Where the kernel rounds places and weights to f32 (is_short there). */
static enum dtype work_type(const struct resize *r, const struct side *s)
{
    int exponent;
    const bool is_short = s->scale > 0 && frexp(s->scale, &exponent) == 0.5 && exponent >= -3 && exponent <= 5;
    const bool plain =
        r->mode != CUBIC && node_attr_int(r->n, "antialias", 0) == 0 && node_attr_int(r->n, "exclude_outside", 0) == 0;
    return is_short && plain && rules[rule_of(r)].dyadic ? DT_F32 : DT_F64;
}

static struct value *places(struct resize *r, const struct side *s)
{
    const int64_t zero = 0, step = 1;
    struct value *const from = ir_const(r->b, DT_I64, 0, NULL, &zero, sizeof zero);
    struct value *const by = ir_const(r->b, DT_I64, 0, NULL, &step, sizeof step);
    struct value *to = ir_sizes(r->b, &s->out, 1, true);
    struct value *o = to ? cast(r, ir_op3(r->b, OP_Range, from, to, by), r->work) : NULL;
    return o ? rules[rule_of(r)].fn(r, s, o) : NULL;
}

/* ---- one axis */

/* Whole places as an index inside of the data. */
static struct value *index_of(struct resize *r, const struct side *s, struct value *at)
{
    struct expr_pool *p = &r->b->cx->exprs;
    const expr last = expr_sub(p, s->in, expr_const(p, 1));
    at = cast(r, with(r, OP_Max, at, 0), DT_I32);
    return two(r, OP_Min, at, cast(r, ir_sizes(r->b, &last, 1, true), DT_I32));
}

static struct value *gather(struct resize *r, const struct side *s, struct value *x, struct value *at)
{
    struct value *index = at ? index_of(r, s, at) : NULL;
    if (!index)
        return NULL;
    struct node *g = ir_new(r->b, OP_Gather, 2, (struct value *const[]){x, index}, 1);
    ir_set_int(g, "axis", s->axis);
    return ir_infer(g) == NPUC_OK ? &g->out[0] : NULL;
}

/* [out] along the axis of the data. */
static struct value *along(struct resize *r, const struct side *s, struct value *v, int rank)
{
    expr dims[IR_MAX_RANK];
    dims[0] = s->out;
    for (int i = 1; i < rank - s->axis; i++) /* of the axes after it */
        dims[i] = expr_const(&r->b->cx->exprs, 1);
    return v ? ir_reshape(r->b, v, rank - s->axis, dims) : NULL;
}

static struct value *nearest_to(struct resize *r, struct value *p)
{
    if (is_word(r, "nearest_mode", "floor"))
        return one(r, OP_Floor, p);
    if (is_word(r, "nearest_mode", "ceil"))
        return one(r, OP_Ceil, p);
    return is_word(r, "nearest_mode", "round_prefer_ceil") ? one(r, OP_Floor, with(r, OP_Add, p, 0.5))
                                                           : one(r, OP_Ceil, with(r, OP_Sub, p, 0.5));
}

static struct value *linear_weight(struct resize *r, struct value *d)
{
    return choose(r, with(r, OP_Less, d, 1), two(r, OP_Sub, number(r, 1), d), number(r, 0));
}
/* Near: ((a + 2) d - (a + 3)) d d + 1; far: ((a d - 5 a) d + 8 a) d - 4 a. */
static struct value *cubic_weight(struct resize *r, struct value *d)
{
    const double a = (double)node_attr_float(r->n, "cubic_coeff_a", -0.75F);
    struct value *near = with(r, OP_Sub, two(r, OP_Mul, number(r, a + 2), d), a + 3);
    near = with(r, OP_Add, two(r, OP_Mul, two(r, OP_Mul, near, d), d), 1);
    struct value *far = with(r, OP_Sub, two(r, OP_Mul, number(r, a), d), 5 * a);
    far = two(r, OP_Mul, with(r, OP_Add, two(r, OP_Mul, far, d), 8 * a), d);
    far = choose(r, with(r, OP_Less, d, 2), with(r, OP_Sub, far, 4 * a), number(r, 0));
    return choose(r, with(r, OP_LessOrEqual, d, 1), near, far);
}

struct taps {
    int64_t n;
    struct value *at[MAX_TAPS], *weight[MAX_TAPS];
};

static double stretch_of(const struct resize *r, const struct side *s)
{
    return node_attr_int(r->n, "antialias", 0) != 0 && s->scale < 1 ? s->scale : 1;
}
static int64_t count_taps(const struct resize *r, const struct side *s)
{
    const double n = 2 * ceil((r->mode == CUBIC ? 2 : 1) / stretch_of(r, s));
    return n <= MAX_TAPS ? (int64_t)n : MAX_TAPS + 1;
}

static bool weigh(struct resize *r, const struct side *s, struct value *p, struct taps *t)
{
    const bool inner = node_attr_int(r->n, "exclude_outside", 0) != 0;
    const bool normal = inner || node_attr_int(r->n, "antialias", 0) != 0;
    struct value *base = one(r, OP_Ceil, p), *sum = NULL, *last = with(r, OP_Sub, size(r, s->in), 1);
    t->n = count_taps(r, s);
    for (int64_t i = 0; i < t->n; i++) {
        t->at[i] = with(r, OP_Add, base, (double)(i - t->n / 2));
        struct value *d = one(r, OP_Abs, two(r, OP_Sub, t->at[i], p));
        d = with(r, OP_Mul, d, stretch_of(r, s));
        struct value *w = r->mode == CUBIC ? cubic_weight(r, d) : linear_weight(r, d);
        struct value *out =
            inner ? two(r, OP_Or, with(r, OP_Less, t->at[i], 0), two(r, OP_Greater, t->at[i], last)) : NULL;
        t->weight[i] = inner ? choose(r, out, number(r, 0), w) : w;
        sum = i == 0 ? t->weight[i] : two(r, OP_Add, sum, t->weight[i]);
        if (!sum)
            return false;
    }
    struct value *none = normal ? with(r, OP_Equal, sum, 0) : NULL;
    for (int64_t i = 0; normal && i < t->n; i++)
        t->weight[i] = choose(r, none, t->weight[i], two(r, OP_Div, t->weight[i], sum));
    return true;
}

static struct value *mixed(struct resize *r, const struct side *s, struct value *x, struct value *p)
{
    struct taps t;
    struct value *sum = NULL;
    if (!p || !weigh(r, s, p, &t))
        return NULL;
    for (int64_t i = 0; i < t.n; i++) {
        struct value *w = along(r, s, cast(r, t.weight[i], DT_F32), x->type->rank);
        struct value *v = two(r, OP_Mul, w, gather(r, s, x, t.at[i]));
        sum = i == 0 ? v : two(r, OP_Add, sum, v);
    }
    return sum;
}

/* Places outside of the data take the extrapolation value. */
static struct value *filled(struct resize *r, const struct side *s, struct value *p, struct value *y)
{
    struct value *last = with(r, OP_Sub, size(r, s->in), 1);
    struct value *inside = two(r, OP_And, with(r, OP_GreaterOrEqual, p, 0), two(r, OP_LessOrEqual, p, last));
    struct value *fill = ir_scalar_f32(r->b, node_attr_float(r->n, "extrapolation_value", 0));
    if (!y || !inside)
        return NULL;
    return choose(r, along(r, s, inside, y->type->rank), y, cast(r, fill, y->type->dtype));
}

static bool keeps(const struct side *s)
{
    return s->in == s->out && s->scale > 0 && fabs(s->scale - 1) <= 1e-9 && s->roi[0] == 0 && s->roi[1] == 1;
}

/* Rows are moved at once, elements of the last axis one by one: it is the last but one while it changes. */
static struct value *swapped(struct resize *r, struct value *x)
{
    int64_t perm[IR_MAX_RANK];
    const int rank = x ? x->type->rank : 0;
    for (int i = 0; i < rank; i++)
        perm[i] = i < rank - 2 ? i : 2 * rank - 3 - i;
    return x ? ir_transpose(r->b, x, perm) : NULL;
}

static struct value *one_axis(struct resize *r, struct side s, struct value *x)
{
    const bool last = s.axis > 0 && s.axis == x->type->rank - 1;
    if (last) {
        x = swapped(r, x);
        s.axis--;
    }
    r->work = work_type(r, &s);
    struct value *p = places(r, &s);
    if (!x || !p)
        return NULL;
    struct value *y = r->mode == NEAREST ? gather(r, &s, x, nearest_to(r, p)) : mixed(r, &s, x, p);
    y = r->crops ? filled(r, &s, p, y) : y;
    return last ? swapped(r, y) : y;
}

static struct value *by_taps(struct resize *r)
{
    struct value *x = node_in(r->n, 0), *y = x;
    const enum dtype t = x->type->dtype;
    if (r->mode != NEAREST)
        y = cast(r, y, DT_F32);
    for (int i = 0; y && i < r->n_sides; i++)
        if (!keeps(&r->sides[i]))
            y = one_axis(r, r->sides[i], y);
    if (r->mode == NEAREST || !dtype_is_integer(t))
        return cast(r, y, t);
    const int bits = dtype_table[t].bits;
    const bool is_signed = dtype_table[t].cls == DTC_INT;
    y = with(r, OP_Max, one(r, OP_Round, y), is_signed ? -ldexp(1, bits - 1) : 0);
    return cast(r, with(r, OP_Min, y, ldexp(1, bits - is_signed) - 1), t);
}

/* ---- whole factors */

/* Is element i of the result element i // factor, for whole factors? At half pixels every rounding to the nearest tells
 * that, since no place lies half-way; without them the rounding has to be down. */
static bool repeats(const struct resize *r, int64_t *factor)
{
    const bool nearest =
        is_word(r, "nearest_mode", "round_prefer_floor") || is_word(r, "nearest_mode", "round_prefer_ceil");
    const bool fits =
        (is_word(r, "coordinate_transformation_mode", "asymmetric") && is_word(r, "nearest_mode", "floor")) ||
        (is_word(r, "coordinate_transformation_mode", "half_pixel") && nearest);
    int rank = node_in(r->n, 0)->type->rank;
    for (int i = 0; i < r->n_sides; i++) {
        const struct side *s = &r->sides[i];
        if (s->scale < 1 || s->scale != floor(s->scale) || s->scale > MAX_FACTOR)
            return false;
        factor[s->axis] = (int64_t)s->scale;
        rank += s->scale > 1;
    }
    return r->mode == NEAREST && fits && rank <= IR_MAX_RANK;
}

static struct value *by_repetition(struct resize *r, const int64_t *factor)
{
    const struct type *t = node_in(r->n, 0)->type;
    struct expr_pool *p = &r->b->cx->exprs;
    expr thin[IR_MAX_RANK], wide[IR_MAX_RANK];
    int rank = 0;
    for (int i = 0; i < t->rank; i++) {
        thin[rank] = wide[rank] = t->dims[i];
        rank++;
        if (factor[i] <= 1)
            continue;
        thin[rank] = expr_const(p, 1);
        wide[rank++] = expr_const(p, factor[i]);
    }
    struct value *y = ir_reshape(r->b, node_in(r->n, 0), rank, thin);
    y = two(r, OP_Expand, y, ir_sizes(r->b, wide, rank, false));
    return y ? ir_reshape(r->b, y, t->rank, r->n->out[0].type->dims) : NULL;
}

/* ---- */

static bool few_taps(const struct resize *r)
{
    for (int i = 0; r->mode != NEAREST && i < r->n_sides; i++)
        if (count_taps(r, &r->sides[i]) > MAX_TAPS)
            return false;
    return rule_of(r) >= 0;
}

/* Between convolutions a map lies in lines of channels (layout_maps), where the target may have a kernel for it. */
static bool stays(const struct pass_ctx *px, const struct node *n)
{
    const char *reason = NULL;
    if (!px->target || !px->target->map_layout || px->options.plain_maps ||
        !px->target->supports(px->target, px->cx, n, &reason))
        return false;
    for_each_node (m, n->graph)
        if (op_table[m->op]->cls == CLS_CONV)
            return true;
    return false;
}

static enum npuc_status lower(struct pass_ctx *px, struct node *n)
{
    struct builder b = ir_at(n);
    struct resize r;
    int64_t factor[IR_MAX_RANK] = {0};
    if (stays(px, n))
        return NPUC_OK;
    if (!resize_of(&b, n, &r) || !few_taps(&r) || !ir_may_rewrite(px->cx))
        return NPUC_OK;
    struct value *y = repeats(&r, factor) ? by_repetition(&r, factor) : by_taps(&r);
    if (y && y->type != n->out[0].type) /* sizes that were found on another way may be written differently */
        y = ir_reshape(&b, y, n->out[0].type->rank, n->out[0].type->dims);
    if (!y)
        return pass_failure(px);
    ir_replace_all(&n->out[0], y);
    pass_count(px, STAT_lower_resize_lowered, 1);
    return NPUC_OK;
}

static enum npuc_status lower_graph(struct pass_ctx *px, struct graph *g)
{
    return pass_each_node(px, g, OP_Resize, lower);
}

enum npuc_status lower_resize(struct pass_ctx *px, struct graph *g)
{
    return pass_each_graph(px, g, lower_graph);
}
