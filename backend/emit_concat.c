/* Operands of a Concat that are made where they belong: the tensor of an operand is a view of the result, so the
 * Concat moves only what has another place already.
 *
 * In one piece: no axis that storage puts before the joined one is longer than 1. Else, of maps in lines of channels,
 * a generator that can is told to write parts of longer lines. A value joined twice has one place; the later Concat
 * gets it, since what encoders hand over is joined late; one that a Concat joins twice is copied. Left
 * alone: inputs, constants, results of the model, values of branches and loops, views of other layouts, sizes. */
#include "backend/emit_priv.h"

static bool is_dense_map(const struct type *t)
{
    return t->kind == TYPE_TENSOR && !type_is_object(t) && t->rank > 0 && dtype_size(t->dtype) > 0 &&
           (t->layout.kind == LAYOUT_ND || t->layout.kind == LAYOUT_NHWC || t->layout.kind == LAYOUT_NC1HWC0);
}

static int joined_axis(const struct node *n)
{
    const int64_t axis = node_attr_int(n, "axis", 0);
    return (int)(axis < 0 ? axis + n->out[0].type->rank : axis);
}

/* Does axis i lie before axis j in storage? */
static bool lies_before(const struct type *t, int i, int j)
{
    if (t->layout.kind != LAYOUT_NHWC)
        return i < j;
    return i != j && (i == 0 || j == 1 || (i != 1 && i < j)); /* channels are neighbours */
}

/* Elements of a step along the axis, where operands of the type lie in one piece each; else EXPR_INVALID. */
static expr step_of(struct ir_ctx *cx, const struct type *t, int axis)
{
    struct expr_pool *x = &cx->exprs;
    expr step = expr_const(x, 1);
    if (t->layout.kind == LAYOUT_NC1HWC0 && axis != 1)
        return EXPR_INVALID;
    for (int i = 0; i < t->rank; i++) {
        if (lies_before(t, i, axis) && !expr_is_one(x, t->dims[i]))
            return EXPR_INVALID;
        if (lies_before(t, axis, i))
            step = expr_mul(x, step, t->dims[i]);
    }
    return step;
}

/* Parts of blocked maps begin with a block. */
static bool begins_block(const struct ir_ctx *cx, const struct type *t, expr before)
{
    int64_t channels;
    return t->layout.kind != LAYOUT_NC1HWC0 ||
           (expr_is_const(&cx->exprs, before, &channels) && channels % t->layout.c0 == 0);
}

static bool is_computed_here(const struct emitter *em, const struct value *v)
{
    const struct node *n = v->def;
    return n && n->graph == em->graph && n->op != OP_Constant && n->op != OP_If && n->op != OP_Loop &&
           n->op != OP_CacheAppend && n->op != OP_Contents && !weight_is_cast(v) && !has_known_elems(em, n) &&
           !is_part_of_input(em, n);
}

static void place_operand(struct emitter *em, struct value *v, struct value *whole, expr at)
{
    struct emit *e = &em->e;
    struct value *w = is_dense_map(v->type) && v->type->layout.kind == LAYOUT_ND ? computed_value(v) : v;
    if (!w || e->tensor_of[v->id] >= 0 || e->tensor_of[w->id] >= 0 || !is_computed_here(em, w) || is_shown(v) ||
        !type_is_bound(em, w->type))
        return;
    const int64_t bytes = dtype_size(v->type->dtype);
    const int32_t part = tensor_alias(e, emit_tensor(e, whole), v->type, emit_sym(e, v->name));
    struct plan_tensor *t = &e->plan->tensors.data[part];
    t->base_offset =
        expr_add(&e->plan->exprs, t->base_offset, expr_mul_const(&e->plan->exprs, emit_expr(e, at), bytes));
    e->tensor_of[v->id] = part;
    if (w != v)
        e->tensor_of[w->id] = tensor_alias(e, part, w->type, emit_sym(e, w->name));
    e->part_of[v->id] = whole;
}

struct emit_line emit_line(const struct emit *e, const struct value *v, int64_t channels)
{
    return e->line_of[v->id].pitch ? e->line_of[v->id] : (struct emit_line){channels, 0};
}

/* Channels of `whole` from `before` on, in whose lines the kernel of v writes them. Nothing else reads v, since others
 * would take its lines for its own. */
static void place_lines(struct emitter *em, struct value *v, struct value *whole, expr before)
{
    struct emit *e = &em->e;
    const struct expr_pool *x = &e->cx->exprs;
    struct emit_line line;
    const char *why = NULL;
    if (e->tensor_of[v->id] >= 0 || !is_computed_here(em, v) || v->def->place != PLACE_NPU || !value_has_one_use(v) ||
        is_shown(v) || !type_is_bound(em, v->type) || !expr_is_const(x, whole->type->dims[1], &line.pitch) ||
        !expr_is_const(x, before, &line.first))
        return;
    const struct gen *g = find_gen(e->m, e->cx, v->def, &why);
    if (!g || !g->lines)
        return;
    e->tensor_of[v->id] = emit_tensor(e, whole);
    e->line_of[v->id] = line;
    e->part_of[v->id] = whole;
}

/* Is operand i the same value as another one? It has one place, so that the other must be copied. */
static bool is_joined_again(const struct node *n, int i)
{
    for (int k = 0; k < n->n_in; k++)
        if (k != i && node_in(n, k) == node_in(n, i))
            return true;
    return false;
}

static void place_operands(struct emitter *em, struct node *n)
{
    struct ir_ctx *cx = em->e.cx;
    struct expr_pool *x = &cx->exprs;
    struct value *whole = &n->out[0];
    const struct type *t = whole->type;
    if (n->place != PLACE_NPU || !is_dense_map(t) || !type_is_bound(em, t))
        return;
    const int axis = joined_axis(n);
    const expr step = step_of(cx, t, axis);
    expr before = expr_const(x, 0);
    for (int i = 0; i < n->n_in; i++) {
        struct value *v = node_in(n, i);
        const bool fits = v->type->layout.kind == t->layout.kind && v->type->layout.c0 == t->layout.c0 &&
                          v->type->dtype == t->dtype && begins_block(cx, t, before) && !is_joined_again(n, i);
        if (fits && step != EXPR_INVALID)
            place_operand(em, v, whole, expr_mul(x, before, step));
        else if (fits && axis == 1 && t->layout.kind == LAYOUT_NHWC)
            place_lines(em, v, whole, before);
        before = expr_add(x, before, v->type->dims[axis]);
    }
}

void emit_claim_parts(struct emitter *em)
{
    VEC(struct node *) joins = {0};
    for_each_node (n, em->graph)
        if (n->op == OP_Concat && n->n_in > 0)
            vec_push(em->e.arena, &joins, n);
    for (int64_t i = joins.len - 1; i >= 0; i--)
        place_operands(em, joins.data[i]);
}

bool emit_is_placed(const struct emit *e, const struct value *v, const struct value *whole)
{
    return e->part_of[v->id] == whole;
}
