/* Operands whose sizes are not known to agree with the result's are brought to its sizes first.
 *
 *   %y = Add %x, %m : f32[b,4,s,t]                                  (%m: f32[b,1,s,min(u,t)])
 * becomes
 *   %e = Expand %m, [b,1,s,t];  %y = Add %x, %e : f32[b,4,s,t]
 *
 * At run time such a size is the result's, or 1 and repeated; Expand means both. Exporters cut their masks this way,
 * once for all layers: after cse one small Expand is left where every layer had an operator that no kernel takes, since
 * a kernel must know what it repeats. Requirements: (1) the result's type stands, so it is the same assumption that
 * inference made; (2) an operand that was expanded agrees, so it terminates. Left alone: everything while no target is
 * chosen. */
#include "passes/pass.h"

/* The sizes that v needs; false when it has them. */
static bool wanted_dims(const struct ir_ctx *cx, const struct value *v, const struct type *result,
                        expr dims[IR_MAX_RANK])
{
    const struct type *t = v->type;
    bool differs = false;
    if (t->kind != TYPE_TENSOR || t->rank < 1 || t->rank > result->rank)
        return false;
    for (int i = 0; i < t->rank; i++) {
        const expr d = result->dims[result->rank - t->rank + i];
        dims[i] = expr_is_one(&cx->exprs, t->dims[i]) ? t->dims[i] : d;
        differs = differs || dims[i] != t->dims[i];
    }
    return differs;
}

static enum npuc_status expand(struct pass_ctx *px, struct node *n, int i, const expr *dims)
{
    struct builder b = ir_at(n);
    struct value *v = node_in(n, i);
    struct value *wide = ir_op2(&b, OP_Expand, v, ir_sizes(&b, dims, v->type->rank, false));
    if (!wide)
        return NPUC_E_INTERNAL;
    const struct type *before = n->out[0].type;
    ir_set_input(n, i, wide);
    pass_count(px, STAT_expand_operands_expanded, 1);
    const enum npuc_status s = ir_infer(n);
    NPUC_ASSERT(s != NPUC_OK || n->out[0].type == before);
    return s;
}

enum npuc_status expand_operands(struct pass_ctx *px, struct graph *g)
{
    if (!px->target)
        return NPUC_OK;
    for_each_node (n, g) {
        const bool candidate = op_has((enum op)n->op, T_ELEMENTWISE) && n->n_in > 1 &&
                               n->out[0].type->kind == TYPE_TENSOR &&
                               n->op != OP_CastLike; /* its second operand gives a type, not elements */
        for (int i = 0; candidate && i < n->n_in; i++) {
            expr dims[IR_MAX_RANK];
            if (!node_in(n, i) || !wanted_dims(px->cx, node_in(n, i), n->out[0].type, dims) || !ir_may_rewrite(px->cx))
                continue;
            const enum npuc_status s = expand(px, n, i, dims);
            if (s != NPUC_OK)
                return s;
        }
    }
    return NPUC_OK;
}
