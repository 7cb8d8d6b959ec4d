/* Rows that choose their matrix, as exporters spell them out.
 *
 *   %m = Gather %w, %i : f32[r,n,k]           (%w f32[e,n,k], %i of the places that a TopK gives; or GatherND)
 *   %y = Squeeze (MatMul %m, (Unsqueeze %x, -1)), -1
 * becomes
 *   %y = GroupedMatMul %x, %i, %w {transB=1}
 *
 * and the same for rows on the left, MatMul (Unsqueeze %x, 1), %m with %w f32[e,k,n]. No row has a matrix of its own
 * then. Experts that are all computed, or that gather their tokens, are in recover_experts.c. Requirements: (1) %i are
 * places of a TopK over at most e elements, so that each names a matrix; (2) the product is of one row, so it
 * terminates. Sums are the same, so are the bits. */
#include "passes/experts.h"

/* v behind views that keep the order of elements, and casts between integers. */
static struct value *same_elements(struct value *v)
{
    while (v && v->def &&
           (v->def->op == OP_Reshape || v->def->op == OP_Unsqueeze || v->def->op == OP_Squeeze ||
            v->def->op == OP_Flatten || v->def->op == OP_Identity))
        v = node_in(v->def, 0);
    return v;
}

const struct node *expert_choice(const struct value *index, int64_t *experts, int64_t *top)
{
    const struct value *v = same_elements((struct value *)(uintptr_t)index);
    const struct node *n = v ? v->def : NULL;
    if (!n || n->op != OP_TopK || v != node_out(n, 1) || v->type->rank < 1)
        return NULL;
    const struct type *from = node_in(n, 0)->type;
    const struct expr_pool *x = &n->graph->module->cx->exprs;
    const int64_t axis = node_attr_int(n, "axis", -1);
    if ((axis != -1 && axis != from->rank - 1) || !expr_is_const(x, from->dims[from->rank - 1], experts) ||
        !expr_is_const(x, v->type->dims[v->type->rank - 1], top) || *top < 1)
        return NULL;
    return n;
}

/* Matrices [e, .., ..] that a row each is gathered from; *index is the gather's, of one dim. */
static struct value *gathered_matrices(struct builder *b, struct value *m, struct value **index)
{
    const struct node *n = m->def;
    if (!n || (n->op != OP_Gather && n->op != OP_GatherND) || m->type->rank != 3)
        return NULL;
    struct value *w = node_in(n, 0), *i = node_in(n, 1);
    const bool by_row = n->op == OP_Gather ? node_attr_int(n, "axis", 0) == 0 && i->type->rank == 1
                                           : node_attr_int(n, "batch_dims", 0) == 0 && i->type->rank == 2;
    if (!by_row || w->type->rank != 3)
        return NULL;
    if (i->type->rank == 2 && i->def && i->def->op == OP_Unsqueeze && node_in(i->def, 0)->type->rank == 1)
        i = node_in(i->def, 0);
    else if (i->type->rank == 2)
        i = ir_reshape(b, i, 1, m->type->dims);
    *index = i;
    return w;
}

/* The rows x [r, k] that v [r, k, 1], or [r, 1, k], holds. */
static struct value *rows_of(struct builder *b, struct value *v, int one)
{
    const struct type *t = v->type;
    if (t->rank != 3 || !expr_is_one(&b->cx->exprs, t->dims[one]))
        return NULL;
    struct value *x = v->def && (v->def->op == OP_Unsqueeze || v->def->op == OP_Reshape) ? node_in(v->def, 0) : NULL;
    const expr dims[2] = {t->dims[0], t->dims[one == 1 ? 2 : 1]};
    if (x && x->type->rank == 2 && x->type->dims[0] == dims[0] && x->type->dims[1] == dims[1])
        return x;
    return ir_reshape(b, v, 2, dims);
}

/* The product of one row each, of which `left` says whether the row is on the left. */
static struct node *one_row(struct pass_ctx *px, struct node *n, bool left)
{
    struct value *m = node_in(n, left ? 1 : 0), *v = node_in(n, left ? 0 : 1), *index = NULL;
    struct ir_ctx *cx = px->cx;
    int64_t experts = 0, top = 0, matrices = 0;
    struct builder b = ir_at(n);
    if (!m || !v || m->type->rank != 3 || v->type->rank != 3 || !expr_is_one(&cx->exprs, v->type->dims[left ? 1 : 2]) ||
        m->type->dims[0] != v->type->dims[0] || !m->def || (m->def->op != OP_Gather && m->def->op != OP_GatherND) ||
        !expert_choice(node_in(m->def, 1), &experts, &top))
        return NULL;
    const struct value *w = node_in(m->def, 0);
    if (w->type->rank != 3 || !expr_is_const(&cx->exprs, w->type->dims[0], &matrices) || experts > matrices ||
        !ir_may_rewrite(cx))
        return NULL;
    struct value *all = gathered_matrices(&b, m, &index), *x = rows_of(&b, v, left ? 1 : 2);
    if (!all || !x || !index)
        return NULL;
    struct node *y = ir_new(&b, OP_GroupedMatMul, 3, (struct value *[]){x, index, all}, 1);
    ir_set_int(y, "transB", !left);
    ir_set_int(y, "top", top);
    return ir_infer(y) == NPUC_OK ? y : NULL;
}

/* Views of the result as rows take it; others see it as it was. */
static enum npuc_status put_rows(struct pass_ctx *px, struct node *n, struct value *rows)
{
    struct value *y = &n->out[0];
    struct use *next = NULL;
    for (struct use *u = y->uses; u; u = next) {
        next = u->next;
        struct node *user = u->user;
        const bool view = (user->op == OP_Squeeze || user->op == OP_Reshape) && node_in(user, 0) == y;
        if (view && user->out[0].type == rows->type)
            ir_replace_all(&user->out[0], rows);
    }
    if (y->uses) {
        struct builder b = ir_at(n);
        struct value *old = ir_reshape(&b, rows, y->type->rank, y->type->dims);
        if (!old)
            return NPUC_E_INTERNAL;
        ir_replace_all(y, old);
    }
    pass_count(px, STAT_recover_moe_rows, 1);
    return NPUC_OK;
}

enum npuc_status recover_moe(struct pass_ctx *px, struct graph *g)
{
    for_each_node_safe(n, g)
    {
        if (n->op != OP_MatMul)
            continue;
        struct node *made = one_row(px, n, false);
        made = made ? made : one_row(px, n, true);
        const enum npuc_status s = made ? put_rows(px, n, &made->out[0]) : NPUC_OK;
        if (s != NPUC_OK)
            return s;
    }
    return recover_experts(px, g);
}
