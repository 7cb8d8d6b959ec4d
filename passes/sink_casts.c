/* Widening casts go behind operators that keep or choose elements, where narrowing ones meet and cancel them.
 *
 *   %a = Cast %x {to=f32};  %b = Relu %a;  %c = Cast %b {to=f16}      %x, %c : f16
 * becomes
 *   %c = Relu %x
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

enum npuc_status sink_casts(struct pass_ctx *px, struct graph *g)
{
    for_each_node_safe(n, g)
    {
        if (keeps_elements(n) && can_sink(n) && ir_may_rewrite(px->cx)) {
            const enum npuc_status s = sink(px, n);
            if (s != NPUC_OK)
                return s;
        }
        struct value *same = n->op == OP_Cast ? op_table[OP_Cast]->fold(px->cx, n) : NULL;
        if (same && ir_can_replace(&n->out[0], same) && ir_may_rewrite(px->cx))
            ir_replace_all(&n->out[0], same);
    }
    ir_dce(g);
    return NPUC_OK;
}
