/* Products on the cube cores: constant weights in the order of L0B, others as they are. */
#include "backend/ascend/gens.h"
#include "backend/ascend/matmul.h"

bool gen_matmul_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    struct mm p;
    return mm_match(m, cx, n, &p, reason);
}

struct mm_tensors mm_operands(struct emit *e, const struct mm *p)
{
    struct mm_tensors t = {
        .a = emit_tensor(e, p->a), .c = -1, .bias = mm_bias_tensor(e, p), .factor = mm_factor_tensor(e, p)};
    if (p->block) {
        t.b = emit_tensor(e, p->b);
        t.a_scale = emit_tensor(e, p->a_scale);
        t.b_scale = emit_tensor(e, p->b_scale);
    } else if (p->weight)
        t.b = mm_weight_tensor(e, p, p->weight_trans ? WF_NZ_T : WF_NZ, false);
    else
        t.b = p->b->type->dtype == p->in ? emit_tensor(e, p->b) : emit_weight(e, p->b, WF_CAST, p->in, false);
    if (p->ends) {
        t.index = emit_tensor(e, p->index);
        t.ends = emit_tensor(e, p->ends);
    }
    return t;
}

enum npuc_status gen_matmul_emit(struct emit *e, struct node *n)
{
    struct mm p;
    const char *why = NULL;
    if (!mm_match(e->m, e->cx, n, &p, &why))
        return node_error(e->cx, n, D_VERIFY, "a product was placed on the matrix unit that it cannot do: %s",
                          why ? why : "");
    struct mm_tensors t = mm_operands(e, &p);
    t.c = emit_tensor(e, p.c);
    return mm_emit(e, &p, &t, n->op == OP_Fused ? "FusedMatMul" : op_table[n->op]->name);
}
