/* Rotary embeddings spelled out by exporters become RotaryEmbedding nodes.
 *
 *   %lo = Slice %x, 0:h;  %hi = Slice %x, h:2h;  %r = Concat (Neg %hi), %lo;  %y = Add (Mul %x, %cos), (Mul %r, %sin)
 * becomes
 *   %c = Slice %cos, 0:h;  %s = Slice %sin, 0:h;  %y = RotaryEmbedding %x, %c, %s
 *
 * with the halves of cos and sin known to be equal: both are elementwise results of a Concat of one value with itself.
 *
 * Halves may be turned apart, by angles that have half of the columns:
 *   %y = Concat (Sub (Mul %lo, %c), (Mul %hi, %s)), (Add (Mul %hi, %c), (Mul %lo, %s))
 *
 * Pairs of neighbours may be turned, by angles that stand twice beside each other (interleaved):
 *   %e = Slice %x, 0:2h:2;  %o = Slice %x, 1:2h:2;  %r = Reshape (Concat (Unsqueeze (Neg %o)), (Unsqueeze %e)
 * {axis=-1}) with %y as at first, and every second column of cos and sin.
 *
 * The slices of the angles are shared by all layers (cse). x1*cos + (-x2)*sin and cos*x1 - sin*x2 are the same bits in
 * f32; narrower types round once instead of after each operator.
 * Requirements: (1) x is [batch, heads, rows, 2h], cos and sin [batch or 1, 1, rows, 2h]; (2) the equality of halves or
 * neighbours is proven, never assumed; (3) every rewrite removes an Add whose operands are Mul and Mul, so it
 * terminates. Left alone: partial rotations. */
#include "passes/match.h"

struct rope {
    struct value *x, *cos, *sin;
    int64_t half;
    bool apart; /* cos and sin have half of the columns */
    bool pairs; /* neighbours are turned and not halves */
};

static struct node *def_of(const struct value *v, enum op op)
{
    return v && v->def && v->def->op == op ? v->def : NULL;
}

/* x[..., from : to] along the last axis with step 1. */
static bool is_slice(struct ir_ctx *cx, const struct value *v, const struct value *x, int64_t from, int64_t to)
{
    struct node *n = def_of(v, OP_Slice);
    int64_t start, end, axis = 0, step = 1;
    struct expr_pool *p = &cx->exprs;
    if (!n || n->in[0].value != x || value_n_elems(cx, node_in(n, 1)) != 1)
        return false;
    if (!expr_is_const(p, value_elem(cx, node_in(n, 1), 0), &start) ||
        !expr_is_const(p, value_elem(cx, node_in(n, 2), 0), &end))
        return false;
    if (node_in(n, 3) && !expr_is_const(p, value_elem(cx, node_in(n, 3), 0), &axis))
        return false;
    if (node_in(n, 4) && !expr_is_const(p, value_elem(cx, node_in(n, 4), 0), &step))
        return false;
    return step == 1 && (axis == -1 || axis == x->type->rank - 1) && start == from && (end >= to);
}

/* Part `i` of a Split of x in two equal halves. */
static bool is_split_half(const struct value *v, const struct value *x, uint32_t i)
{
    struct node *n = def_of(v, OP_Split);
    int64_t axis = n ? node_attr_int(n, "axis", 0) : 0;
    return n && n->in[0].value == x && n->n_out == 2 && v->index == i && (axis == -1 || axis == x->type->rank - 1) &&
           n->out[0].type == n->out[1].type;
}

static bool is_rotated(struct ir_ctx *cx, const struct value *v, const struct value *x, int64_t half)
{
    struct node *cat = def_of(v, OP_Concat);
    if (!cat || cat->n_in != 2)
        return false;
    int64_t axis = node_attr_int(cat, "axis", 0);
    struct node *neg = def_of(cat->in[0].value, OP_Neg);
    if (!neg || (axis != -1 && axis != v->type->rank - 1))
        return false;
    const struct value *hi = neg->in[0].value, *lo = cat->in[1].value;
    return (is_slice(cx, lo, x, 0, half) && is_slice(cx, hi, x, half, 2 * half)) ||
           (is_split_half(lo, x, 0) && is_split_half(hi, x, 1));
}

static bool is_scalar(const struct value *v)
{
    return value_const(v) && v->type->rank == 0;
}

/* One step towards what the last axis of v is made of, elementwise; NULL when it is something else. */
static const struct value *upwards(struct ir_ctx *cx, const struct value *v)
{
    struct node *n = v->def;
    int64_t d;
    if (!n || v->type->rank < 1)
        return NULL;
    if (n->op == OP_Cast || (op_table[n->op]->fn && n->n_in == 1))
        return n->in[0].value;
    if (n->op == OP_Mul || n->op == OP_Add) {
        bool right = is_scalar(n->in[1].value) ||
                     (type_const_count(cx, n->in[1].value->type) == 1 && value_const(n->in[1].value));
        bool left = is_scalar(n->in[0].value);
        return right ? n->in[0].value : left ? n->in[1].value : NULL;
    }
    bool view = op_has((enum op)n->op, T_VIEW) && n->n_in > 0;
    const struct type *from = view ? n->in[0].value->type : NULL;
    if (!view || from->rank < 1 || !expr_is_const(&cx->exprs, v->type->dims[v->type->rank - 1], &d))
        return NULL;
    return from->dims[from->rank - 1] == v->type->dims[v->type->rank - 1] ? n->in[0].value : NULL;
}

/* Are the two halves of the last axis equal for certain? */
static bool halves_equal(struct ir_ctx *cx, const struct value *v)
{
    for (int depth = 0; v && depth < 32; depth++) {
        struct node *cat = def_of(v, OP_Concat);
        int64_t axis = cat ? node_attr_int(cat, "axis", 0) : 0;
        if (cat && cat->n_in == 2 && (axis == -1 || axis == v->type->rank - 1))
            return cat->in[0].value == cat->in[1].value;
        v = upwards(cx, v);
    }
    return false;
}

/* ---- neighbours ---- */

/* GatherND of rows 2k and 2k + 1, both the same for certain: their places differ along axes alone that were expanded.
 */
static bool gathers_twice(struct ir_ctx *cx, const struct node *n)
{
    const struct node *wide = n->n_in == 2 ? def_of(n->in[0].value, OP_Expand) : NULL;
    const struct value *at = wide ? n->in[1].value : NULL;
    int64_t rows, width, one;
    if (!at || !value_const(at) || at->type->rank != 2 || node_attr_int(n, "batch_dims", 0) != 0 ||
        !expr_is_const(&cx->exprs, at->type->dims[0], &rows) || !expr_is_const(&cx->exprs, at->type->dims[1], &width) ||
        rows % 2 != 0)
        return false;
    const struct type *from = wide->in[0].value->type, *to = wide->out[0].type;
    for (int64_t i = 0; i < rows * width; i++) {
        const int64_t axis = i % width - (to->rank - from->rank), next = i + width;
        double a, b;
        if (i / width % 2 != 0)
            continue;
        if (!value_const_f64(at, i, &a) || !value_const_f64(at, next, &b))
            return false;
        if (a != b && axis >= 0 && (!expr_is_const(&cx->exprs, from->dims[axis], &one) || one != 1))
            return false;
    }
    return true;
}

/* [.., h, 1] expanded to [.., h, 2], or joined with itself, whose last two axes become one. */
static bool joins_twice(struct ir_ctx *cx, const struct node *n)
{
    const struct value *v = op_has((enum op)n->op, T_VIEW) && n->n_in > 0 ? n->in[0].value : NULL;
    const struct node *twice = v ? v->def : NULL;
    const int rank = v ? v->type->rank : 0, to = n->out[0].type->rank;
    int64_t h, two, columns, one;
    if (!twice || rank < 2 || to < 1 || !expr_is_const(&cx->exprs, v->type->dims[rank - 2], &h) ||
        !expr_is_const(&cx->exprs, v->type->dims[rank - 1], &two) || two != 2 ||
        !expr_is_const(&cx->exprs, n->out[0].type->dims[to - 1], &columns) || columns != 2 * h)
        return false;
    const struct type *single = node_in(twice, 0)->type;
    if (single->rank < 1 || !expr_is_const(&cx->exprs, single->dims[single->rank - 1], &one) || one != 1)
        return false;
    const int64_t axis = node_attr_int(twice, "axis", 0);
    return twice->op == OP_Expand || (twice->op == OP_Concat && twice->n_in == 2 && (axis == -1 || axis == rank - 1) &&
                                      twice->in[0].value == twice->in[1].value);
}

/* Are columns 2k and 2k + 1 of the last axis equal for certain? */
static bool neighbours_equal(struct ir_ctx *cx, const struct value *v)
{
    int64_t axis = v->type->rank - 1;
    for (int depth = 0; v && v->def && depth < 32; depth++) {
        const struct node *n = v->def;
        const bool last = axis == v->type->rank - 1;
        if ((last && joins_twice(cx, n)) || (axis == 0 && n->op == OP_GatherND && gathers_twice(cx, n)))
            return true;
        const struct attr *perm = n->op == OP_Transpose ? node_attr(n, "perm") : NULL;
        if (perm && perm->len == v->type->rank)
            axis = perm->v.ints[axis];
        v = perm || n->op == OP_Cast || (op_table[n->op]->fn && n->n_in == 1) ? n->in[0].value
            : last                                                            ? upwards(cx, v)
                                                                              : NULL;
        axis = last && !perm && v ? v->type->rank - 1 : axis;
    }
    return false;
}

/* x[..., from::2] along the last axis, behind an axis of one. */
static bool is_every_second(struct ir_ctx *cx, const struct value *v, const struct value *x, int64_t half, int64_t from)
{
    const struct node *n = def_of(v, OP_Slice);
    int64_t at[4] = {0, 0, 0, 1};
    for (int i = 0; n && i < 4; i++)
        if (node_in(n, i + 1) && (value_n_elems(cx, node_in(n, i + 1)) != 1 ||
                                  !expr_is_const(&cx->exprs, value_elem(cx, node_in(n, i + 1), 0), &at[i])))
            return false;
    return n && n->in[0].value == x && at[0] == from && at[1] >= 2 * half && at[3] == 2 &&
           (at[2] == -1 || at[2] == x->type->rank - 1);
}

/* What stands behind a new last axis of one. */
static const struct value *single(struct ir_ctx *cx, const struct value *v, int64_t half)
{
    const struct value *x = v->def && op_has((enum op)v->def->op, T_VIEW) ? node_in(v->def, 0) : NULL;
    int64_t one, size;
    const struct type *t = v->type;
    return x && t->rank == 5 && x->type->rank == 4 && expr_is_const(&cx->exprs, t->dims[4], &one) && one == 1 &&
                   expr_is_const(&cx->exprs, t->dims[3], &size) && size == half && x->type->dims[3] == t->dims[3]
               ? x
               : NULL;
}

/* -x1, x0, -x3, x2, .. */
static bool is_swapped(struct ir_ctx *cx, const struct value *v, const struct value *x, int64_t half)
{
    const struct node *view = v->def && op_has((enum op)v->def->op, T_VIEW) && v->type == x->type ? v->def : NULL;
    const struct node *cat = view ? def_of(node_in(view, 0), OP_Concat) : NULL;
    const int64_t axis = cat ? node_attr_int(cat, "axis", 0) : 0;
    if (!cat || cat->n_in != 2 || cat->out[0].type->rank != 5 || (axis != -1 && axis != 4))
        return false;
    const struct value *odd = single(cx, cat->in[0].value, half), *even = single(cx, cat->in[1].value, half);
    const struct node *neg = def_of(odd, OP_Neg);
    return neg && even && is_every_second(cx, neg->in[0].value, x, half, 1) && is_every_second(cx, even, x, half, 0);
}

static bool is_angle(struct ir_ctx *cx, const struct value *v, const struct rope *r, const struct value *x)
{
    int64_t one;
    const struct type *t = v->type;
    return t->rank == 4 && expr_is_const(&cx->exprs, t->dims[1], &one) && one == 1 && t->dims[2] == x->type->dims[2] &&
           t->dims[3] == x->type->dims[3] && t->dtype == x->type->dtype &&
           (r->pairs ? neighbours_equal(cx, v) : halves_equal(cx, v));
}

/* Mul of x with an angle, in either order. */
static bool is_product(struct ir_ctx *cx, const struct node *mul, struct rope *r, bool rotated)
{
    for (int i = 0; i < 2; i++) {
        struct value *x = mul->in[i].value, *angle = mul->in[1 - i].value;
        bool fits = rotated ? (r->pairs ? is_swapped : is_rotated)(cx, x, r->x, r->half) && is_angle(cx, angle, r, r->x)
                            : x->type->rank == 4 && is_angle(cx, angle, r, x);
        if (!fits)
            continue;
        if (!rotated)
            r->x = x;
        *(rotated ? &r->sin : &r->cos) = angle;
        return true;
    }
    return false;
}

static bool match(struct ir_ctx *cx, const struct node *add, struct rope *r)
{
    for (int i = 0; i < 4 && add->op == OP_Add; i++) {
        struct node *plain = def_of(add->in[i % 2].value, OP_Mul), *turned = def_of(add->in[1 - i % 2].value, OP_Mul);
        r->pairs = i >= 2;
        if (!plain || !turned || !is_product(cx, plain, r, false))
            continue;
        int64_t size;
        if (!expr_is_const(&cx->exprs, r->x->type->dims[3], &size) || size % 2 != 0)
            continue;
        r->half = size / 2;
        if (is_product(cx, turned, r, true))
            return true;
    }
    return false;
}

/* ---- halves apart ---- */
static bool is_half(struct ir_ctx *cx, const struct value *v, const struct value *x, int64_t half, int i)
{
    return is_slice(cx, v, x, i * half, (i + 1) * half) || is_split_half(v, x, (uint32_t)i);
}

/* Mul of half i of r->x with an angle, in either order: the angle. */
static struct value *angle_of_half(struct ir_ctx *cx, const struct value *v, const struct rope *r, int i)
{
    const struct node *mul = def_of(v, OP_Mul);
    for (int k = 0; mul && k < 2; k++)
        if (is_half(cx, mul->in[k].value, r->x, r->half, i))
            return mul->in[1 - k].value;
    return NULL;
}

static bool is_half_angle(struct ir_ctx *cx, const struct value *v, const struct rope *r)
{
    const struct type *t = v->type;
    int64_t one, size;
    return t->rank == 4 && expr_is_const(&cx->exprs, t->dims[1], &one) && one == 1 &&
           t->dims[2] == r->x->type->dims[2] && expr_is_const(&cx->exprs, t->dims[3], &size) && size == r->half &&
           t->dtype == r->x->type->dtype;
}

static bool match_halves(struct ir_ctx *cx, const struct node *cat, struct rope *r)
{
    int64_t size;
    const struct type *t = cat->out[0].type;
    if (cat->op != OP_Concat || cat->n_in != 2 || t->rank != 4 || !expr_is_const(&cx->exprs, t->dims[3], &size) ||
        size % 2 != 0)
        return false;
    const int64_t axis = node_attr_int(cat, "axis", 0);
    const struct node *sub = def_of(cat->in[0].value, OP_Sub), *add = def_of(cat->in[1].value, OP_Add);
    const struct node *mul = sub ? def_of(sub->in[0].value, OP_Mul) : NULL;
    r->half = size / 2;
    r->apart = true;
    for (int i = 0; mul && add && (axis == -1 || axis == 3) && i < 2; i++) {
        const struct node *part = mul->in[i].value->def;
        if (!part || part->n_in < 1 || (r->x = part->in[0].value)->type != t)
            continue;
        r->cos = angle_of_half(cx, sub->in[0].value, r, 0);
        r->sin = angle_of_half(cx, sub->in[1].value, r, 1);
        if (!r->cos || !r->sin || !is_half_angle(cx, r->cos, r) || !is_half_angle(cx, r->sin, r))
            continue;
        for (int k = 0; k < 2; k++)
            if (angle_of_half(cx, add->in[k].value, r, 1) == r->cos &&
                angle_of_half(cx, add->in[1 - k].value, r, 0) == r->sin)
                return true;
    }
    return false;
}

/* [b,1,s,2h] or [b,1,s,h] -> [b,s,h]: the first half of the columns, or every second one. */
static struct value *half_angle(struct builder *b, struct value *v, const struct rope *r)
{
    const int64_t zero = 0, last = -1, step = 2, end = r->pairs ? 2 * r->half : r->half;
    if (!r->apart) {
        struct value *in[5] = {v, ir_const_i64(b, &zero, 1), ir_const_i64(b, &end, 1), ir_const_i64(b, &last, 1),
                               r->pairs ? ir_const_i64(b, &step, 1) : NULL};
        struct node *n = ir_new(b, OP_Slice, r->pairs ? 5 : 4, in, 1);
        if (ir_infer(n) != NPUC_OK)
            return NULL;
        v = &n->out[0];
    }
    const expr dims[3] = {v->type->dims[0], v->type->dims[2], v->type->dims[3]};
    return ir_reshape(b, v, 3, dims);
}

/* The angles of a batch of one serve every batch entry. */
static bool batch_fits(struct ir_ctx *cx, const struct rope *r)
{
    int64_t one;
    expr b = r->cos->type->dims[0];
    return b == r->sin->type->dims[0] && (b == r->x->type->dims[0] || (expr_is_const(&cx->exprs, b, &one) && one == 1));
}

enum npuc_status recover_rope(struct pass_ctx *px, struct graph *g)
{
    for_each_node_safe(n, g)
    {
        struct rope r = {0};
        const bool found = n->op == OP_Concat ? match_halves(px->cx, n, &r) : match(px->cx, n, &r);
        if (!found || !batch_fits(px->cx, &r) || !ir_may_rewrite(px->cx))
            continue;
        struct builder b = ir_at(n);
        struct value *in[3] = {r.x, half_angle(&b, r.cos, &r), half_angle(&b, r.sin, &r)};
        struct node *rotary = ir_new(&b, OP_RotaryEmbedding, 3, in, 1);
        ir_set_int(rotary, "interleaved", r.pairs);
        if (!in[1] || !in[2] || ir_infer(rotary) != NPUC_OK)
            return NPUC_E_INTERNAL;
        pass_count(px, STAT_recover_rope_absorbed, match_replace(px, n, rotary));
        pass_count(px, STAT_recover_rope_recovered, 1);
    }
    return NPUC_OK;
}
