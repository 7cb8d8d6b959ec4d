/* Writes a Resize that is on the host as products with constant matrices.
 *
 *   %y = Resize %x, , , [n, c, 20, 30] {mode=cubic} : f32[n,c,20,30]        (%x: f32[n,c,10,15])
 * becomes
 *   %rows = Resize [1 at i,i : f32[10,10]], , , [20] {axes=[0], ...} : f32[20,10]
 *   %cols = Resize [1 at i,i : f32[15,15]], , , [30] {axes=[1], ...} : f32[15,30]
 *   %y = MatMul (MatMul %rows, %x), %cols
 *
 * The matrices are what Resize makes of unit matrices, which folding computes: so they are right for every mode and
 * coordinate rule by construction. Requirements: (1) f32, weighted modes: a selection as a product would turn
 * infinities into NaN; (2) only the last two axes change, their sizes and scales are known; (3) no cropping, whose
 * filling is no weighted sum; (4) no matrix beyond MAX_SIDE rows or columns; (5) the Resize of a constant stays, so it
 * terminates. */
#include "passes/pass.h"

#include <string.h>

enum { MAX_SIDE = 2048 };

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

static bool can_write(struct pass_ctx *px, const struct node *n, struct side *s)
{
    const struct type *t = n->in[0].value->type;
    if (n->op != OP_Resize || n->place != PLACE_HOST || t->dtype != DT_F32 || t->rank < 2 ||
        value_const(n->in[0].value))
        return false;
    if (is_text(px, n, "mode", "nearest") || !is_text(px, n, "keep_aspect_ratio_policy", "stretch") ||
        is_text(px, n, "coordinate_transformation_mode", "tf_crop_and_resize"))
        return false;
    for (int i = 0; i + 2 < t->rank; i++)
        if (t->dims[i] != n->out[0].type->dims[i])
            return false;
    return side_of(px, n, t->rank - 2, &s[0]) && side_of(px, n, t->rank - 1, &s[1]);
}

/* The Resize of a unit matrix along its axis `along`. */
static struct value *matrix(struct builder *b, struct node *n, const struct side *s, int along)
{
    const int64_t dims[2] = {s->in, s->in}, axis = along;
    const int64_t size = s->in * s->in * (int64_t)sizeof(float);
    float *unit = arena_zalloc(&b->graph->module->arena, size);
    for (int64_t i = 0; i < s->in; i++)
        unit[i * s->in + i] = 1;
    struct node *r = ir_resized(n, 4, 1);
    ir_set_input(r, 0, ir_const(b, DT_F32, 2, dims, unit, size));
    const float scale = (float)s->scale;
    const int64_t one = 1;
    if (s->scale > 0)
        ir_set_input(r, 2, ir_const(b, DT_F32, 1, &one, &scale, sizeof scale));
    else
        ir_set_input(r, 3, ir_const_i64(b, &s->out, 1));
    ir_set_ints(r, "axes", &axis, 1);
    ir_move_before(r, n);
    r->place = PLACE_NONE;
    return ir_infer(r) == NPUC_OK ? &r->out[0] : NULL;
}

static enum npuc_status rewrite(struct pass_ctx *px, struct node *n, const struct side *s)
{
    struct builder b = ir_at(n);
    struct value *y = n->in[0].value;
    for (int i = 0; i < 2 && y; i++) {
        if (s[i].in == s[i].out && (s[i].scale == 0 || s[i].scale == 1))
            continue;
        struct value *m = matrix(&b, n, &s[i], i);
        y = !m ? NULL : i == 0 ? ir_op2(&b, OP_MatMul, m, y) : ir_op2(&b, OP_MatMul, y, m);
    }
    if (!y || y->type != n->out[0].type)
        return y ? NPUC_OK : NPUC_E_INTERNAL;
    ir_replace_all(&n->out[0], y);
    ir_erase(n);
    pass_count(px, STAT_rewrite_resize_products, 1);
    return NPUC_OK;
}

enum npuc_status rewrite_resize(struct pass_ctx *px, struct graph *g)
{
    enum npuc_status s = NPUC_OK;
    struct side sides[2];
    for_each_node_safe(n, g)
    {
        for_each_region(r, n) s = s == NPUC_OK ? rewrite_resize(px, r) : s;
        if (s == NPUC_OK && can_write(px, n, sides) && ir_may_rewrite(px->cx))
            s = rewrite(px, n, sides);
    }
    return s;
}
