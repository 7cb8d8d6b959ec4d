/* Writes a Resize that is on the host as operators that the cores run.
 *
 *   %y = Resize %x, , , [n, c, 20, 30] {mode=cubic} : f32[n,c,20,30]        (%x: f32[n,c,10,15])
 * becomes
 *   %rows = Resize [1 at i,i : f32[10,10]], , , [20] {axes=[0], ...} : f32[20,10]
 *   %cols = Resize [1 at i,i : f32[15,15]], , , [30] {axes=[1], ...} : f32[15,30]
 *   %y = MatMul (MatMul %rows, %x), %cols
 *
 *   %y = Resize %x, , [1, 1, 2, 2] {mode=nearest} : f32[n,c,2*h,2*w]
 * becomes
 *   %a = Reshape %x, [n, c, h, 1, w, 1];  %b = Expand %a, [n, c, h, 2, w, 2];  %y = Reshape %b, [n, c, 2*h, 2*w]
 *
 *   %y = Resize %x, , , [n, c, 7, 15] {mode=nearest}                        (%x: f32[n,c,10,15])
 * becomes
 *   %at = Resize [0, 1, ... 9], , , [7] {axes=[0], ...} : i64[7];  %y = Gather %x, %at {axis=2}
 *
 * The matrices and the places are what Resize makes of unit matrices and of counting, which folding computes: so they
 * are right for every mode and coordinate rule by construction. Requirements: (1) products: f32, weighted modes (a
 * selection as a product would turn infinities into NaN); only the last two axes change, by known sizes, no side beyond
 * MAX_SIDE; (2) repetition: whole factors up to MAX_FACTOR under rules by which element i comes from i // factor; (3)
 * places: known sizes of the axes that change; (4) no cropping, which fills; no common scale of all axes; (5) the
 * Resize of a constant stays, so it terminates. */
#include "passes/pass.h"

#include <string.h>

enum { MAX_SIDE = 2048, MAX_FACTOR = 16 };

struct side {
    int axis; /* of x */
    int64_t in, out;
    double scale; /* 0: given by sizes */
};

static bool is_text(struct pass_ctx *px, const struct node *n, const char *attr, const char *text)
{
    return strcmp(str_text(&px->cx->strings, node_attr_str(n, attr, 0)), text) == 0;
}

/* The number of x's axis among those that the operands speak of; -1: not among them. */
static int64_t place_of(const struct node *n, int axis, int rank)
{
    const struct attr *axes = node_attr(n, "axes");
    if (!axes || axes->len == 0)
        return axis;
    for (int64_t i = 0; i < axes->len; i++)
        if (axes->v.ints[i] == axis || axes->v.ints[i] == axis - rank)
            return i;
    return -1;
}

static bool side_of(struct pass_ctx *px, const struct node *n, int axis, struct side *s)
{
    const struct expr_pool *p = &px->cx->exprs;
    const struct value *x = n->in[0].value, *scales = node_in(n, 2);
    *s = (struct side){.axis = axis};
    if (!expr_is_const(p, x->type->dims[axis], &s->in) || !expr_is_const(p, n->out[0].type->dims[axis], &s->out))
        return false;
    const int64_t at = place_of(n, axis, x->type->rank);
    const bool by_scale = !node_in(n, 3);
    if (by_scale && at >= 0 && !value_const_f64(scales, at, &s->scale))
        return false;
    return s->in > 0 && s->out > 0 && s->in <= MAX_SIDE && s->out <= MAX_SIDE;
}

static bool by_products(struct pass_ctx *px, const struct node *n, struct side *s)
{
    const struct type *t = n->in[0].value->type;
    if (t->dtype != DT_F32 || t->rank < 2)
        return false;
    for (int i = 0; i + 2 < t->rank; i++)
        if (t->dims[i] != n->out[0].type->dims[i])
            return false;
    return side_of(px, n, t->rank - 2, &s[0]) && side_of(px, n, t->rank - 1, &s[1]);
}

/* The Resize of x along `along` as the node does it along s->axis. */
static struct value *resized(struct builder *b, struct node *n, struct value *x, const struct side *s, int64_t along)
{
    struct node *r = ir_resized(n, 4, 1);
    const float scale = (float)s->scale;
    const int64_t one = 1;
    ir_set_input(r, 0, x);
    if (s->scale > 0)
        ir_set_input(r, 2, ir_const(b, DT_F32, 1, &one, &scale, sizeof scale));
    else
        ir_set_input(r, 3, ir_const_i64(b, &s->out, 1));
    ir_set_ints(r, "axes", &along, 1);
    ir_move_before(r, n);
    r->place = PLACE_NONE;
    return ir_infer(r) == NPUC_OK ? &r->out[0] : NULL;
}

static struct value *matrix(struct builder *b, struct node *n, const struct side *s, int along)
{
    const int64_t dims[2] = {s->in, s->in};
    const int64_t size = s->in * s->in * (int64_t)sizeof(float);
    float *unit = arena_zalloc(&b->graph->module->arena, size);
    for (int64_t i = 0; i < s->in; i++)
        unit[i * s->in + i] = 1;
    return resized(b, n, ir_const(b, DT_F32, 2, dims, unit, size), s, along);
}

static struct value *products(struct builder *b, struct node *n, const struct side *s)
{
    struct value *y = n->in[0].value;
    for (int i = 0; i < 2 && y; i++) {
        if (s[i].in == s[i].out && (s[i].scale == 0 || s[i].scale == 1))
            continue;
        struct value *m = matrix(b, n, &s[i], i);
        y = !m ? NULL : i == 0 ? ir_op2(b, OP_MatMul, m, y) : ir_op2(b, OP_MatMul, y, m);
    }
    return y;
}

/* ---- nearest: repeated elements */

/* Is element i of the result element i // factor, for whole factors? At half pixels every rounding to the nearest tells
 * that, since no place lies half-way; without them the rounding has to be down. */
static bool repeats(struct pass_ctx *px, const struct node *n)
{
    const bool down = is_text(px, n, "nearest_mode", "floor");
    const bool nearest =
        is_text(px, n, "nearest_mode", "round_prefer_floor") || is_text(px, n, "nearest_mode", "round_prefer_ceil");
    return (is_text(px, n, "coordinate_transformation_mode", "asymmetric") && down) ||
           (is_text(px, n, "coordinate_transformation_mode", "half_pixel") && nearest);
}

static int64_t factor_of(struct pass_ctx *px, const struct node *n, int axis)
{
    struct expr_pool *p = &px->cx->exprs;
    const expr in = n->in[0].value->type->dims[axis], out = n->out[0].type->dims[axis];
    const int64_t at = place_of(n, axis, n->in[0].value->type->rank);
    double scale;
    for (int64_t f = 1; f <= MAX_FACTOR; f++)
        if (expr_mul_const(p, in, f) == out)
            return node_in(n, 3) || at < 0 || (value_const_f64(node_in(n, 2), at, &scale) && scale == (double)f) ? f
                                                                                                                 : 0;
    return 0;
}

static bool by_repetition(struct pass_ctx *px, const struct node *n, int64_t *factor)
{
    const struct type *t = n->in[0].value->type;
    if (!repeats(px, n) || 2 * t->rank > IR_MAX_RANK)
        return false;
    for (int i = 0; i < t->rank; i++) {
        factor[i] = factor_of(px, n, i);
        if (factor[i] == 0)
            return false;
    }
    return true;
}

static struct value *repetition(struct builder *b, const struct node *n, const int64_t *factor)
{
    const struct type *t = n->in[0].value->type;
    expr thin[IR_MAX_RANK], wide[IR_MAX_RANK];
    int rank = 0;
    for (int i = 0; i < t->rank; i++) {
        thin[rank] = wide[rank] = t->dims[i];
        rank++;
        if (factor[i] == 1)
            continue;
        thin[rank] = expr_const(&b->cx->exprs, 1);
        wide[rank++] = expr_const(&b->cx->exprs, factor[i]);
    }
    struct value *y = ir_reshape(b, n->in[0].value, rank, thin);
    y = y ? ir_op2(b, OP_Expand, y, ir_sizes(b, wide, rank, false)) : NULL;
    return y ? ir_reshape(b, y, t->rank, n->out[0].type->dims) : NULL;
}

/* ---- nearest: places */

static bool by_places(struct pass_ctx *px, const struct node *n, struct side *s)
{
    const struct type *t = n->in[0].value->type;
    for (int i = 0; i < t->rank; i++) {
        s[i] = (struct side){.axis = i};
        if (t->dims[i] != n->out[0].type->dims[i] && !side_of(px, n, i, &s[i]))
            return false;
    }
    return true;
}

static struct value *places(struct builder *b, struct node *n, const struct side *s)
{
    struct value *y = n->in[0].value;
    for (int i = 0; i < n->in[0].value->type->rank && y; i++) {
        if (s[i].in == 0)
            continue;
        int64_t *count = ARENA_ARRAY(&b->graph->module->arena, int64_t, s[i].in);
        for (int64_t k = 0; k < s[i].in; k++)
            count[k] = k;
        struct value *at = resized(b, n, ir_const_i64(b, count, s[i].in), &s[i], 0);
        struct node *g = ir_new(b, OP_Gather, 2, (struct value *const[]){y, at}, 1);
        ir_set_int(g, "axis", i);
        y = at && ir_infer(g) == NPUC_OK ? &g->out[0] : NULL;
    }
    return y;
}

/* ---- */

static bool is_candidate(struct pass_ctx *px, const struct node *n)
{
    return n->op == OP_Resize && n->place == PLACE_HOST && !value_const(n->in[0].value) &&
           n->in[0].value->type->rank > 0 && is_text(px, n, "keep_aspect_ratio_policy", "stretch") &&
           !is_text(px, n, "coordinate_transformation_mode", "tf_crop_and_resize");
}

/* What takes the node's place; NULL: nothing does. */
static struct value *replacement(struct pass_ctx *px, struct node *n)
{
    struct builder b = ir_at(n);
    struct side sides[IR_MAX_RANK];
    int64_t factors[IR_MAX_RANK];
    const bool weighted = !is_text(px, n, "mode", "nearest");
    if (weighted)
        return by_products(px, n, sides) ? products(&b, n, sides) : NULL;
    if (by_repetition(px, n, factors))
        return repetition(&b, n, factors);
    return by_places(px, n, sides) ? places(&b, n, sides) : NULL;
}

enum npuc_status rewrite_resize(struct pass_ctx *px, struct graph *g)
{
    for_each_node_safe(n, g)
    {
        struct value *y = is_candidate(px, n) && ir_may_rewrite(px->cx) ? replacement(px, n) : NULL;
        if (!y || y->type != n->out[0].type)
            continue;
        const bool nearest = is_text(px, n, "mode", "nearest");
        ir_replace_all(&n->out[0], y);
        ir_erase(n);
        pass_count(px, nearest ? STAT_rewrite_resize_moves : STAT_rewrite_resize_products, 1);
    }
    return NPUC_OK;
}
