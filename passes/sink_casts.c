/* Widening casts go behind operators that keep or choose elements, where narrowing ones meet and cancel them.
 *
 *   %a = Cast %x {to=f32};  %b = Relu %a;  %c = Cast %b {to=f16}      %x, %c : f16
 * becomes
 *   %c = Relu %x
 *
 * And a narrowing cast behind a Reshape of turned rows goes in front of it, where it reads the rows as they lie and
 * leaves nothing for the Transpose to move (place):
 *
 *   %t = Transpose %x {perm=[0,2,1,3]};  %r = Reshape %t;  %c = Cast %r {to=f16}
 * becomes
 *   %t = Transpose %x {perm=[0,2,1,3]};  %n = Cast %t {to=f16};  %c = Reshape %n
 *
 * Requirements: (1) what the operator gives is one of its operands' elements or zero, so the bits stay; (2) all
 * operands are widened from the same type; (3) results of the graph keep their node. Nodes are visited in order, so
 * casts travel through chains; each moves towards the results, so it terminates. */
#include "passes/pass.h"

static bool keeps_elements(const struct node *n)
{
    return n->op == OP_Relu || n->op == OP_Concat || (n->op == OP_MaxPool && (n->n_out == 1 || !node_out(n, 1)));
}

/* The value before a cast from a 16-bit float to f32, or NULL. */
static struct value *narrow_of(const struct value *v)
{
    const struct node *n = v && v->def && v->def->op == OP_Cast ? v->def : NULL;
    struct value *x = n ? node_in(n, 0) : NULL;
    return x && v->type->dtype == DT_F32 && (x->type->dtype == DT_F16 || x->type->dtype == DT_BF16) ? x : NULL;
}

static bool can_sink(const struct node *n)
{
    const struct value *first = n->n_in > 0 ? narrow_of(node_in(n, 0)) : NULL;
    for (int i = 0; i < n->n_in; i++) {
        const struct value *x = narrow_of(node_in(n, i));
        if (!first || !x || x->type->dtype != first->type->dtype)
            return false;
    }
    for_each_use (u, &n->out[0])
        if (op_has((enum op)u->user->op, T_TERMINATOR) || u->user->graph != n->graph)
            return false;
    return n->n_in > 0 && n->next;
}

static enum npuc_status sink(struct pass_ctx *px, struct node *n)
{
    const enum dtype wide = n->out[0].type->dtype;
    for (int i = 0; i < n->n_in; i++)
        ir_set_input(n, i, narrow_of(node_in(n, i)));
    if (ir_infer(n) != NPUC_OK)
        return NPUC_E_INTERNAL;
    struct use *u = n->out[0].uses, *next;
    struct builder b = ir_at(n->next);
    struct value *back = ir_cast(&b, &n->out[0], wide);
    if (!back)
        return NPUC_E_INTERNAL;
    for (; u; u = next) {
        next = u->next;
        ir_set_input(u->user, (int)(u - u->user->in), back);
    }
    back->def->loc = n->loc;
    pass_count(px, STAT_sink_casts_sunk, 1);
    return NPUC_OK;
}

/* The Reshape between a narrowing cast and a Transpose that keeps rows whole and images apart, read by nobody else; or
 * NULL. */
static struct node *turned_before(const struct node *n)
{
    const enum dtype to = n->op == OP_Cast ? n->out[0].type->dtype : DT_NONE;
    if ((to != DT_F16 && to != DT_BF16) || node_in(n, 0)->type->dtype != DT_F32)
        return NULL;
    struct node *r = node_in(n, 0)->def;
    const struct node *t = r && r->op == OP_Reshape ? node_in(r, 0)->def : NULL;
    const struct attr *perm = t && t->op == OP_Transpose ? node_attr(t, "perm") : NULL;
    const int rank = t ? t->out[0].type->rank : 0;
    const bool rows = perm && rank > 2 && perm->v.ints[0] == 0 && perm->v.ints[rank - 1] == rank - 1;
    return rows && r->graph == n->graph && value_has_one_use(&r->out[0]) && value_has_one_use(&t->out[0]) ? r : NULL;
}

static enum npuc_status cast_rows(struct pass_ctx *px, struct node *n, struct node *reshape)
{
    struct builder b = ir_at(reshape);
    b.loc = n->loc;
    struct value *narrow = ir_cast(&b, node_in(reshape, 0), n->out[0].type->dtype);
    if (!narrow)
        return NPUC_E_INTERNAL;
    ir_set_input(reshape, 0, narrow);
    if (ir_infer(reshape) != NPUC_OK)
        return NPUC_E_INTERNAL;
    ir_replace_all(&n->out[0], &reshape->out[0]);
    pass_count(px, STAT_sink_casts_raised, 1);
    return NPUC_OK;
}

enum npuc_status sink_casts(struct pass_ctx *px, struct graph *g)
{
    for_each_node_safe(n, g)
    {
        if (keeps_elements(n) && can_sink(n) && ir_may_rewrite(px->cx)) {
            const enum npuc_status s = sink(px, n);
            if (s != NPUC_OK)
                return s;
        }
        struct node *turned = turned_before(n);
        if (turned && ir_may_rewrite(px->cx) && cast_rows(px, n, turned) != NPUC_OK)
            return NPUC_E_INTERNAL;
        struct value *same = n->op == OP_Cast ? op_table[OP_Cast]->fold(px->cx, n) : NULL;
        if (same && ir_can_replace(&n->out[0], same) && ir_may_rewrite(px->cx))
            ir_replace_all(&n->out[0], same);
    }
    ir_dce(g);
    return NPUC_OK;
}
