/* MatMulNBits: one launch dequantises the weight to rows in a workspace, one multiplies. */
#include "backend/matrix/nbits.h"
#include "backend/mlu/gens.h"
#include "backend/mlu/product.h"

bool gen_mlu_nbits_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    struct nbits q;
    return nbits_match(m, cx, n, &q, reason);
}

enum npuc_status gen_mlu_nbits_emit(struct emit *e, struct node *n)
{
    struct nbits q;
    const char *why = NULL;
    if (!nbits_match(e->m, e->cx, n, &q, &why))
        return node_error(e->cx, n, D_VERIFY, "a block-quantised product was placed on the NPU that it cannot do: %s",
                          why ? why : "");
    nbits_take_tensors(e, n, &q);
    const struct mm p = nbits_product(e, &q, n);
    struct mm_tensors t = {.a = emit_tensor(e, p.a), .b = -1, .c = emit_tensor(e, p.c), .bias = mm_bias_tensor(e, &p)};
    nbits_group_tensors(e, &p, &t);
    const enum npuc_status st = nbits_dequant_all(e, &q, &p, &t);
    return st == NPUC_OK ? product_emit(e, &p, &t, op_table[n->op]->name) : st;
}
