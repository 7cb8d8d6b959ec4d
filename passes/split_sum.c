/* Sums of many operands as sums of few, which fit into the vector memory at once.
 *
 *   %y = Sum %a0, ... %a40     becomes   %p = Sum %a0, ... %a15;  %q = Sum %p, %a16, ... %a30;  %y = Sum %q, %a31, ...
 * %a40 %y = Mean %a0, ... %a40    the same, then Div by 41
 *
 * Operands are added in their order, so the bits stay. Requirements: (1) every Sum made has at most FEW operands; (2)
 * integer means stay as they are: a division of their own would round otherwise. */
#include "passes/pass.h"

#define FEW 16

static struct value *sum_of(struct builder *b, struct node *n)
{
    struct value *in[FEW], *sum = NULL;
    int n_in = 0;
    for (int i = 0; i < n->n_in; i++) {
        in[n_in++] = n->in[i].value;
        if (n_in < FEW && i + 1 < n->n_in)
            continue;
        struct node *part = ir_new(b, OP_Sum, n_in, in, 1);
        if (ir_infer(part) != NPUC_OK)
            return NULL;
        sum = &part->out[0];
        in[0] = sum;
        n_in = 1;
    }
    return sum;
}

enum npuc_status split_sum(struct pass_ctx *px, struct graph *g)
{
    for_each_node_safe(n, g)
    {
        const bool mean = n->op == OP_Mean && dtype_is_float(n->out[0].type->dtype);
        if ((n->op != OP_Sum && !mean) || n->n_in <= FEW || !ir_may_rewrite(px->cx))
            continue;
        struct builder b = ir_at(n);
        struct value *y = sum_of(&b, n);
        if (y && mean)
            y = ir_op2(&b, OP_Div, y, ir_scalar_like(&b, y, n->n_in));
        if (!y)
            return NPUC_E_INTERNAL;
        ir_replace_all(&n->out[0], y);
        ir_erase(n);
        pass_count(px, STAT_split_sum_split, 1);
    }
    return NPUC_OK;
}
