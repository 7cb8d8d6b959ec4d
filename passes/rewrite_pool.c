/* Writes pools over whole images that are on the host as reductions, whatever the images' sizes.
 *
 *   %y = GlobalAveragePool %x : f32[n,c,1,1]      becomes      %y = ReduceMean %x, [2, 3]
 *   %y = GlobalMaxPool %x                         becomes      %y = ReduceMax %x, [2, 3]
 *
 * Requirements: (1) the rank is known; (2) the result is a Reduce, so it terminates. Sums are taken in another order
 * than the pool's; maxima are the same. */
#include "passes/pass.h"

static enum op reduction(const struct node *n)
{
    static const enum op rows[][2] = {{OP_GlobalAveragePool, OP_ReduceMean}, {OP_GlobalMaxPool, OP_ReduceMax}};
    for (size_t i = 0; i < NPUC_ARRAY_LEN(rows); i++)
        if (rows[i][0] == n->op)
            return rows[i][1];
    return OP_none;
}

enum npuc_status rewrite_pool(struct pass_ctx *px, struct graph *g)
{
    for_each_node_safe(n, g)
    {
        for_each_region(r, n)
        {
            const enum npuc_status s = rewrite_pool(px, r);
            if (s != NPUC_OK)
                return s;
        }
        const enum op op = reduction(n);
        const int rank = op ? n->in[0].value->type->rank : 0;
        if (rank < 3 || n->place != PLACE_HOST || !ir_may_rewrite(px->cx))
            continue;
        struct builder b = ir_at(n);
        int64_t axes[IR_MAX_RANK];
        for (int i = 2; i < rank; i++)
            axes[i - 2] = i;
        struct value *y = ir_op2(&b, op, n->in[0].value, ir_const_i64(&b, axes, rank - 2));
        if (!y)
            return NPUC_E_INTERNAL;
        ir_replace_all(&n->out[0], y);
        ir_erase(n);
        pass_count(px, STAT_rewrite_pool_reductions, 1);
    }
    return NPUC_OK;
}
