/* Products with vector operators behind them as one kernel of cube and vector cores. */
#include "backend/ascend/gens.h"
#include "backend/ascend/matmul.h"

bool gen_matmul_tail_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    struct mm p;
    struct mm_tail tail;
    return mm_tail_match(m, cx, n, &p, &tail, reason);
}

enum npuc_status gen_matmul_tail_emit(struct emit *e, struct node *n)
{
    struct mm p;
    struct mm_tail tail;
    const char *why = NULL;
    if (!mm_tail_match(e->m, e->cx, n, &p, &tail, &why))
        return node_error(e->cx, n, D_VERIFY, "a product was placed on the matrix unit that it cannot do: %s",
                          why ? why : "");
    if (e->tiling && e->tiling->stages > 0)
        tail.slots = e->tiling->stages < MM_MOST_SLOTS ? (int32_t)e->tiling->stages : MM_MOST_SLOTS;
    struct mm_tensors t[MM_MAX_GROUP] = {mm_operands(e, &p)};
    for (int i = 0; i < p.n_peers; i++)
        t[i + 1] = mm_operands(e, &p.peers[i]);
    return mm_emit(e, &p, t, "MatMulVector");
}
