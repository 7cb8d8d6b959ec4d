/* GridSample as elementwise operators and one GatherElements per tap, with the bits of its kernel.
 *
 *   %y = GridSample %x, %grid {mode=linear} : f32[n,c,h,w]
 * becomes, for the places %p of each axis, [n,1,points] in pixels, with %f = Floor %p and %r = %p - %f,
 *   %v00 = Where (inside), GatherElements (Reshape %x), (%fy * w + %fx), 0     and so for every tap
 *   %row = (1 - %rx) * %v00 + %rx * %v01,  %s = (1 - %ry) * %row0 + %ry * %row1,  %y = Reshape %s
 *
 * Requirements: (1) f32 data and grid, whose operators round as the kernel does, or mode nearest, which moves; (2)
 * sizes of the image are known and flat places are exact in f32; (3) the sums are those of kernels/grid_sample.inc in
 * their order. Left to the host: more than MAX_TAPS taps (cubic with three axes), other types. */
#include "passes/pass.h"

enum { MAX_PLACES = 1 << 24, MAX_TAPS = 16, MAX_GRID_AXES = 3, MAX_AXIS_TAPS = 4 };

struct sampling {
    struct builder *b;
    int axes, taps; /* taps of each axis */
    bool align, border, reflect, cubic;
    int64_t in[MAX_GRID_AXES];
    struct axis_taps {
        struct value *at[MAX_AXIS_TAPS], *weight[MAX_AXIS_TAPS]; /* [n,1,points]: f32, inside of the data */
        struct value *inside[MAX_AXIS_TAPS];                     /* NULL: always */
    } axis[MAX_GRID_AXES];
    struct value *data; /* [n,c,places] */
    expr wide[3];       /* [n,c,points] */
};

/* Operators that pass on an error reported before. */
static struct value *two(struct sampling *s, enum op op, struct value *x, struct value *y)
{
    return x && y ? ir_op2(s->b, op, x, y) : NULL;
}
static struct value *with(struct sampling *s, enum op op, struct value *x, double v)
{
    return x ? ir_op2(s->b, op, x, ir_scalar_like(s->b, x, v)) : NULL;
}
static struct value *choose(struct sampling *s, struct value *c, struct value *x, struct value *y)
{
    return c && x && y ? ir_op3(s->b, OP_Where, c, x, y) : NULL;
}

/* ((p * t + q) * t + r) * t + last, in this order. */
static struct value *cubic_weight(struct sampling *s, struct value *t, double p, double q, double r, double last)
{
    struct value *v = with(s, OP_Add, with(s, OP_Mul, t, p), q);
    v = two(s, OP_Mul, v, t);
    v = r != 0 ? two(s, OP_Mul, with(s, OP_Add, v, r), t) : two(s, OP_Mul, v, t);
    return with(s, OP_Add, v, last);
}

static void weigh(struct sampling *s, struct axis_taps *t, struct value *rest)
{
    struct value *back = rest ? two(s, OP_Sub, ir_scalar_like(s->b, rest, 1), rest) : NULL;
    if (s->taps == 2) {
        t->weight[0] = back;
        t->weight[1] = rest;
    } else if (s->taps == 4) {
        struct value *far = rest ? two(s, OP_Sub, ir_scalar_like(s->b, rest, 2), rest) : NULL;
        t->weight[0] = cubic_weight(s, with(s, OP_Add, rest, 1), -0.75, 3.75, -6, 3);
        t->weight[1] = cubic_weight(s, rest, 1.25, -2.25, 0, 1);
        t->weight[2] = cubic_weight(s, back, 1.25, -2.25, 0, 1);
        t->weight[3] = cubic_weight(s, far, -0.75, 3.75, -6, 3);
    }
}

/* Pixels of the normalised places `p` on an axis of `len` elements. */
static struct value *denormalised(struct sampling *s, struct value *p, int64_t len)
{
    p = with(s, OP_Add, p, 1);
    if (s->align)
        return with(s, OP_Mul, with(s, OP_Div, p, 2), (double)(len - 1));
    return with(s, OP_Div, with(s, OP_Sub, with(s, OP_Mul, p, (double)len), 1), 2);
}

/* x mirrored at the ends as often as it takes; turns are whole numbers. */
static struct value *reflected(struct sampling *s, struct value *x, int64_t len)
{
    const double edge = s->align ? 0 : 0.5, lo = -edge, hi = (double)(len - 1) + edge;
    if (!x || !(hi > lo))
        return x ? ir_scalar_like(s->b, x, lo) : NULL;
    struct value *below = with(s, OP_Less, x, lo), *outside = two(s, OP_Or, below, with(s, OP_Greater, x, hi));
    struct value *d = choose(s, below, two(s, OP_Sub, ir_scalar_like(s->b, x, lo), x), with(s, OP_Sub, x, hi));
    struct value *turns = with(s, OP_Div, d, hi - lo);
    turns = turns ? ir_op1(s->b, OP_Floor, turns) : NULL;
    struct value *rest = two(s, OP_Sub, d, with(s, OP_Mul, turns, hi - lo));
    struct value *half = with(s, OP_Mul, turns, 0.5);
    half = half ? ir_op1(s->b, OP_Floor, half) : NULL;
    struct value *even = two(s, OP_Equal, with(s, OP_Mul, half, 2), turns);
    struct value *up = with(s, OP_Add, rest, lo);
    struct value *down = rest ? two(s, OP_Sub, ir_scalar_like(s->b, rest, hi), rest) : NULL;
    /* upwards from the lower end: from below after an even number of turns, from above after an odd one */
    struct value *odd = even ? ir_op1(s->b, OP_Not, even) : NULL;
    struct value *y = choose(s, below, choose(s, even, up, down), choose(s, odd, up, down));
    return choose(s, outside, y, x);
}

/* A whole place of a tap, inside of the data. */
static struct value *tap_place(struct sampling *s, struct value *at, int64_t len)
{
    if (s->reflect && at) {
        at = with(s, OP_Max, reflected(s, at, len), 0);
        at = at ? ir_op1(s->b, OP_Floor, at) : NULL;
    }
    return with(s, OP_Min, with(s, OP_Max, at, 0), (double)(len - 1));
}

static void plan_axis(struct sampling *s, int axis, struct value *p)
{
    const double len = (double)s->in[axis], edge = s->align ? 0 : 0.5;
    struct axis_taps *t = &s->axis[axis];
    p = denormalised(s, p, s->in[axis]);
    if (s->taps == 1 && p)
        p = ir_op1(s->b, OP_Round, p);
    if (s->border && !s->cubic && p) {
        p = choose(s, with(s, OP_Greater, p, len - 1 + edge), ir_scalar_like(s->b, p, len - 1), p);
        p = p ? choose(s, with(s, OP_Less, p, -edge), ir_scalar_like(s->b, p, 0), p) : NULL;
    }
    if (s->reflect && !s->cubic && p)
        p = reflected(s, p, s->in[axis]);
    struct value *sane = two(s, OP_And, with(s, OP_Greater, p, -1e9), with(s, OP_Less, p, 1e9));
    p = p ? choose(s, sane, p, ir_scalar_like(s->b, p, -1e9)) : NULL;
    struct value *low = p ? ir_op1(s->b, OP_Floor, p) : NULL;
    weigh(s, t, two(s, OP_Sub, p, low));
    for (int i = 0; i < s->taps; i++) {
        const int shift = i - (s->taps == 4);
        struct value *at = shift ? with(s, OP_Add, low, shift) : low;
        if (!s->border && !s->reflect)
            t->inside[i] = two(s, OP_And, with(s, OP_GreaterOrEqual, at, 0), with(s, OP_Less, at, len));
        t->at[i] = tap_place(s, at, s->in[axis]);
    }
}

/* The elements at tap[axis] of each axis. */
static struct value *tap_value(struct sampling *s, const int *tap)
{
    struct value *flat = NULL, *inside = NULL;
    for (int i = 0; i < s->axes; i++) {
        struct value *at = s->axis[i].at[tap[i]], *in = s->axis[i].inside[tap[i]];
        flat = i == 0 ? at : two(s, OP_Add, with(s, OP_Mul, flat, (double)s->in[i]), at);
        inside = i == 0 ? in : two(s, OP_And, inside, in);
    }
    struct value *index = flat ? ir_cast(s->b, flat, DT_I32) : NULL;
    index = two(s, OP_Expand, index, ir_sizes(s->b, s->wide, 3, false));
    if (!index)
        return NULL;
    struct value *const in[] = {s->data, index};
    struct node *gather = ir_new(s->b, OP_GatherElements, 2, in, 1);
    ir_set_int(gather, "axis", 2);
    if (ir_infer(gather) != NPUC_OK)
        return NULL;
    struct value *v = &gather->out[0];
    return !inside ? v : choose(s, inside, v, ir_scalar_like(s->b, v, 0));
}

/* The weighted sum over the axes from `axis` on. Recursion ends at MAX_GRID_AXES. */
static struct value *weighted(struct sampling *s, int axis, int *tap)
{
    struct value *sum = NULL;
    if (axis == s->axes)
        return tap_value(s, tap);
    for (int i = 0; i < s->taps; i++) {
        tap[axis] = i;
        struct value *v = weighted(s, axis + 1, tap);
        if (s->taps > 1)
            v = two(s, OP_Mul, s->axis[axis].weight[i], v);
        sum = i == 0 ? v : two(s, OP_Add, sum, v);
        if (!sum)
            return NULL;
    }
    return sum;
}

static bool is_word(struct ir_ctx *cx, const struct node *n, const char *attr, const char *word)
{
    return node_attr_str(n, attr, 0) == str_internz(&cx->strings, word);
}

static bool sampling_of(struct pass_ctx *px, const struct node *n, struct sampling *s)
{
    const struct type *x = node_in(n, 0)->type, *grid = node_in(n, 1)->type;
    const bool nearest = is_word(px->cx, n, "mode", "nearest");
    int64_t places = 1;
    *s = (struct sampling){.axes = x->rank - 2,
                           .align = node_attr_int(n, "align_corners", 0) != 0,
                           .border = is_word(px->cx, n, "padding_mode", "border"),
                           .reflect = is_word(px->cx, n, "padding_mode", "reflection"),
                           .cubic = is_word(px->cx, n, "mode", "cubic")};
    s->taps = nearest ? 1 : s->cubic ? 4 : 2;
    if (s->axes < 1 || s->axes > MAX_GRID_AXES || grid->dtype != DT_F32 || x->dtype != DT_F32 ||
        grid->rank != x->rank || grid->dims[0] != x->dims[0])
        return false;
    int taps = 1;
    for (int i = 0; i < s->axes; i++) {
        taps *= s->taps;
        if (!expr_is_const(&px->cx->exprs, x->dims[i + 2], &s->in[i]) || s->in[i] < 1 || s->in[i] > MAX_PLACES / places)
            return false;
        places *= s->in[i];
    }
    if (taps > MAX_TAPS)
        return false;
    s->wide[0] = x->dims[0];
    s->wide[1] = x->dims[1];
    s->wide[2] = expr_const(&px->cx->exprs, 1);
    for (int i = 0; i < s->axes && s->wide[2]; i++)
        s->wide[2] = expr_mul(&px->cx->exprs, s->wide[2], grid->dims[i + 1]);
    return s->wide[2] != EXPR_INVALID;
}

/* Column k of the grid, the coordinate of one axis: [n,1,points]. */
static struct value *column(struct sampling *s, struct value *grid, int64_t k)
{
    struct builder *b = s->b;
    const int64_t last = grid->type->rank - 1, next = k + 1;
    struct value *const in[] = {grid, ir_const_i64(b, &k, 1), ir_const_i64(b, &next, 1), ir_const_i64(b, &last, 1)};
    struct node *slice = ir_new(b, OP_Slice, 4, in, 1);
    const expr dims[3] = {s->wide[0], expr_const(&b->cx->exprs, 1), s->wide[2]};
    return ir_infer(slice) == NPUC_OK ? ir_reshape(b, &slice->out[0], 3, dims) : NULL;
}

static enum npuc_status lower(struct pass_ctx *px, struct node *n)
{
    struct sampling s;
    struct value *x = node_in(n, 0), *y = &n->out[0];
    int64_t places = 1;
    int tap[MAX_GRID_AXES];
    if (x->type->rank < 3 || y->type->rank < 3 || !sampling_of(px, n, &s) || !ir_may_rewrite(px->cx))
        return NPUC_OK;
    struct builder b = ir_at(n);
    s.b = &b;
    for (int i = 0; i < s.axes; i++) { /* the grid names the last axis first */
        places *= s.in[i];
        plan_axis(&s, i, column(&s, node_in(n, 1), s.axes - 1 - i));
    }
    const expr flat[3] = {s.wide[0], s.wide[1], expr_const(&px->cx->exprs, places)};
    s.data = ir_reshape(&b, x, 3, flat);
    struct value *v = s.data ? weighted(&s, 0, tap) : NULL;
    v = v ? ir_reshape(&b, v, y->type->rank, y->type->dims) : NULL;
    if (!v)
        return pass_failure(px);
    NPUC_ASSERT(v->type == y->type);
    ir_replace_all(y, v);
    pass_count(px, STAT_lower_grid_lowered, 1);
    return NPUC_OK;
}

static enum npuc_status lower_graph(struct pass_ctx *px, struct graph *g)
{
    return pass_each_node(px, g, OP_GridSample, lower);
}

enum npuc_status lower_grid(struct pass_ctx *px, struct graph *g)
{
    return pass_each_graph(px, g, lower_graph);
}
