/* The operators on the scores as a vector region of backend/vector. Its views of masks and other operands walk the
 * whole space; that of the workspace counts rows from the item's first. */
#include "backend/ascend/attention.h"

static struct value *outside(const struct att *a, struct value *v)
{
    return v && !v->def ? node_in(a->fused, (int)v->index) : v;
}

/* Rows of the workspace are those of an item; a plane is plane_rows rows, whatever part of them the item has. */
static struct vr_view workspace_view(struct emit *e, const struct att *a, int32_t tensor)
{
    struct expr_pool *x = &e->cx->exprs;
    const int rank = a->space.rank;
    struct vr_view v = {.tensor = tensor, .offset = expr_const(x, 0), .dtype = a->score};
    for (int i = 0; i < rank; i++)
        v.stride[i] = expr_const(x, 0);
    v.stride[rank - 1] = expr_const(x, 1);
    v.stride[rank - 2] = expr_const(x, ATTEND_CHUNK);
    if (a->heads_split)
        v.stride[rank - 3] = expr_mul_const(x, a->plane_rows, ATTEND_CHUNK);
    return v;
}

static struct vr_view *view_at(struct vr *r, int i)
{
    return i < r->n_views ? &r->views[i] : &r->outputs[i - r->n_views].view;
}

/* Brings the dimensions into the order batch, planes, rows, columns. */
static void split_dims(struct vr *r, const struct att *a)
{
    struct expr_pool *x = &r->e->cx->exprs;
    const expr zero = expr_const(x, 0);
    const int at = r->rank - 2; /* of the new dimension */
    r->dims[at + 2] = r->dims[at + 1];
    r->dims[at + 1] = r->dims[at];
    r->dims[at] = a->planes;
    if (a->heads_split)
        r->dims[at - 1] = expr_floordiv(x, r->dims[at - 1], a->planes);
    for (int i = 0; i < r->n_views + r->n_outputs; i++) {
        expr *s = view_at(r, i)->stride;
        s[at + 2] = s[at + 1];
        s[at + 1] = s[at];
        s[at] = a->heads_split ? s[at - 1] : zero;
        if (a->heads_split)
            s[at - 1] = expr_mul(x, s[at - 1], a->planes);
    }
    r->rank++;
    r->planes = r->has_red = true;
}

/* The workspaces hold one batch member's rows. */
static void pin_batch(struct vr *r, struct vr_view *v)
{
    for (int d = 0; d < r->rank - 3; d++)
        v->stride[d] = expr_const(&r->e->cx->exprs, 0);
}

static int region_operand(struct lower *l, const struct att *a, struct value *v)
{
    if (!map_find(&l->value, v->id))
        map_put(&l->value, v->id, (uint64_t)lower_operand(l, outside(a, v)));
    return lower_operand(l, v);
}

static void lower_region(struct lower *l, const struct att *a)
{
    for_each_node (n, node_region(a->fused, 0)) {
        if (n == a->soft)
            break;
        if (n->op == OP_Constant || n == a->qk || att_feeds(a, n))
            continue;
        const bool view = op_has((enum op)n->op, T_VIEW) || n->op == OP_Identity;
        const bool axes = op_has((enum op)n->op, T_REDUCE) && op_table[n->op]->cls != CLS_NORM;
        for (int i = 0; i < n->n_in; i++)
            if (node_in(n, i) && !(i == 1 && axes) && !(i > 0 && view))
                (void)region_operand(l, a, node_in(n, i));
        const int made = view ? lower_operand(l, node_in(n, 0)) : lower_node(l, n);
        map_put(&l->value, n->out[0].id, (uint64_t)made);
    }
}

/* A value that stays on chip. */
static void keep(struct lower *l, int value)
{
    struct vr_view v = {.tensor = -1, .dtype = l->r.values[value].dtype, .offset = expr_const(&l->cx->exprs, 0)};
    for (int i = 0; i < IR_MAX_RANK; i++)
        v.stride[i] = v.offset;
    vr_output(&l->r, value, &v);
}

struct lower *att_lower(struct emit *e, const struct att *a, int32_t scores, int *goal, int *sink)
{
    struct lower *l = ARENA_NEW(e->arena, struct lower);
    l->sp = a->space;
    lower_begin(l, e);
    const struct vr_view from = workspace_view(e, a, scores);
    map_put(&l->value, a->qk->out[0].id, (uint64_t)vr_input(&l->r, &from)); /* view 0 */
    lower_region(l, a);
    *goal = vr_cast(&l->r, DT_F32, lower_operand(l, node_in(a->soft, 0)));
    keep(l, *goal);
    *sink = -1;
    if (a->sink) {
        *sink = vr_cast(&l->r, DT_F32, region_operand(l, a, node_in(a->soft, 2)));
        keep(l, *sink);
    }
    split_dims(&l->r, a);
    pin_batch(&l->r, &l->r.views[0]);
    vr_classify(&l->r);
    return l;
}
