/* Products on the tensor unit; constant weights are stored as rows of outputs. */
#include "backend/mlu/gens.h"
#include "backend/mlu/product.h"

bool gen_mlu_matmul_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    struct mm p;
    return mm_match(m, cx, n, &p, reason);
}

/* Stored in the type of the product, [n][k] when it is a matrix; a vector is its own only row or column. */
static int32_t operand(struct emit *e, const struct mm *p)
{
    const enum dtype t = p->b->type->dtype;
    const bool turn = p->weight && p->weight_trans;
    if (t == p->in && !turn && p->n_stack <= 1)
        return emit_tensor(e, p->b);
    return mm_weight_tensor(e, p, t == p->in ? WF_COPY : WF_CAST, turn);
}

enum npuc_status gen_mlu_matmul_emit(struct emit *e, struct node *n)
{
    struct mm p;
    const char *why = NULL;
    if (!mm_match(e->m, e->cx, n, &p, &why))
        return node_error(e->cx, n, D_VERIFY, "a product was placed on the matrix unit that it cannot do: %s",
                          why ? why : "");
    struct mm_tensors t = {
        .a = emit_tensor(e, p.a), .b = operand(e, &p), .c = emit_tensor(e, p.c), .bias = mm_bias_tensor(e, &p)};
    if (p.ends) {
        t.index = emit_tensor(e, p.index);
        t.ends = emit_tensor(e, p.ends);
    }
    return product_emit(e, &p, &t, n->op == OP_Fused ? "FusedMatMul" : op_table[n->op]->name);
}
