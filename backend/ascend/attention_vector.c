/* The vector cores of a block: from scores to probabilities, as a vector region whose tiles are runs of an item's rows.
 * Both take pieces of the item in turn; each piece is rows of several planes, or of one.
 *
 * The region's views of masks and other operands walk the whole space; those of the workspaces count rows from the
 * item's first. */
#include "backend/ascend/attention.h"

static struct value *outside(const struct att *a, struct value *v)
{
    return v && !v->def ? node_in(a->fused, (int)v->index) : v;
}

/* Rows of the workspace are those of an item; a plane is plane_rows rows, whatever part of them the item has. */
static struct vr_view workspace_view(struct emit *e, const struct att *a, const struct att_split *s, int32_t tensor)
{
    struct expr_pool *x = &e->cx->exprs;
    const int rank = a->space.rank;
    struct vr_view v = {.tensor = tensor, .offset = expr_const(x, 0)};
    for (int i = 0; i < rank; i++)
        v.stride[i] = expr_const(x, 0);
    v.stride[rank - 1] = expr_const(x, 1);
    v.stride[rank - 2] = s->pitch;
    if (a->heads_split)
        v.stride[rank - 3] = expr_mul(x, a->plane_rows, s->pitch);
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
        if (n->op == OP_Constant || n->op == OP_Yield || n == a->qk || n == a->pv)
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

struct lower *att_lower(struct emit *e, const struct att *a, const struct att_split *s, const int32_t workspace[2])
{
    struct lower *l = ARENA_NEW(e->arena, struct lower);
    l->sp = a->space;
    lower_begin(l, e);
    struct vr_view scores = workspace_view(e, a, s, workspace[0]), probs = workspace_view(e, a, s, workspace[1]);
    scores.dtype = a->score;
    probs.dtype = a->prob;
    const int first = vr_input(&l->r, &scores); /* view 0, output 0 */
    map_put(&l->value, a->qk->out[0].id, (uint64_t)first);
    lower_region(l, a);
    vr_output(&l->r, lower_operand(l, node_in(a->pv, 0)), &probs);
    split_dims(&l->r, a);
    pin_batch(&l->r, &l->r.views[0]);
    pin_batch(&l->r, &l->r.outputs[0].view);
    vr_classify(&l->r);
    return l;
}

/* ---- program ---------------------------------------------------------------------------------------------- */

/* Batch member number `index` as indices of the region's outer dimensions. */
static void locate_outer(struct vr_form *f, expr index)
{
    struct expr_pool *x = &f->k->exprs;
    for (int d = f->r->rank - 4; d >= 0; d--) {
        const expr size = expr_max(x, expr_const(x, 1), f->dims[d]);
        f->outer[d] = d == 0 ? index : expr_mod(x, index, size);
        index = expr_floordiv(x, index, size);
    }
}

struct pieces {
    expr planes, rows; /* of a piece */
    expr per_plane, count;
};

/* Pieces that fit into UB, and at least two where there are two rows. */
static struct pieces cut(struct att_kernel *k, const struct att_item *it)
{
    struct vr_form *f = &k->f;
    struct expr_pool *x = &f->k->exprs;
    const expr one = expr_const(x, 1), two = expr_const(x, 2);
    const expr most =
        f->chunked
            ? one
            : expr_max(x, one,
                       expr_min(x, expr_const(x, f->max_rows), expr_floordiv(x, expr_const(x, f->cap), f->pitch)));
    const expr halves = expr_select(x, expr_cmp(x, EXPR_EQ, it->planes, one), two, one);
    struct pieces p;
    p.rows = expr_max(x, one, expr_min(x, most, expr_ceildiv(x, it->rows, halves)));
    const expr whole = expr_floordiv(x, most, expr_max(x, one, it->rows)); /* planes that fit with all their rows */
    p.planes = expr_max(x, one, expr_min(x, expr_ceildiv(x, it->planes, two), whole));
    p.per_plane = expr_max(x, one, expr_ceildiv(x, it->rows, p.rows));
    p.count = expr_mul(x, expr_ceildiv(x, it->planes, p.planes), expr_ceildiv(x, it->rows, p.rows));
    return p;
}

static void locate_piece(struct att_kernel *k, const struct att_item *it, const struct pieces *p, expr number)
{
    struct vr_form *f = &k->f;
    struct expr_pool *x = &f->k->exprs;
    const expr plane = expr_mul(x, expr_floordiv(x, number, p->per_plane), p->planes);
    const expr row = expr_mul(x, expr_mod(x, number, p->per_plane), p->rows);
    f->plane0 = expr_add(x, it->plane0, plane);
    f->row0 = expr_add(x, it->row0, row);
    f->n_planes = expr_min(x, p->planes, expr_sub(x, it->planes, plane));
    f->plane_rows = expr_min(x, p->rows, expr_sub(x, it->rows, row));
    f->n_rows = expr_mul(x, f->n_planes, f->plane_rows);
    f->col0 = expr_const(x, 0);
    f->n_cols = f->cols;
}

void att_vector_code(struct att_kernel *k)
{
    struct vr_form *f = &k->f;
    struct expr_pool *x = &f->k->exprs;
    const expr two = expr_const(x, 2), sub = expr_sym(x, f->k->sym_sub);
    tile_section_begin(&f->b, TCORE_VECTOR);
    vr_code_buffers(f);
    tile_note(&f->b, "items of this block");
    const expr i = tile_loop(&f->b, "j", att_count(k));
    const struct att_item it = att_locate(k, i);
    locate_outer(f, it.batch);
    for (int v = 0; v < f->r->n_views + f->r->n_outputs; v++)
        f->base[v] = expr_const(x, 0);
    const expr base = expr_sub(x, it.slot, expr_mul(x, it.first, k->s.pitch));
    f->base[0] = f->base[f->r->n_views] = base;
    tile_note(&f->b, "the cube core has written the scores");
    TILE(&f->b, XWAIT, TU_MTE2, ATT_SCORES_READY);
    const struct pieces p = cut(k, &it);
    tile_note(&f->b, "every second piece");
    const expr piece = tile_loop(&f->b, "piece", expr_ceildiv(x, expr_sub(x, p.count, sub), two));
    locate_piece(k, &it, &p, expr_add(x, sub, expr_mul(x, piece, two)));
    vr_code_tile(f);
    tile_end(&f->b);
    tile_note(&f->b, "the cube core may read the probabilities");
    TILE(&f->b, XSET, TU_MTE3, ATT_PROBS_READY);
    tile_end(&f->b);
}
