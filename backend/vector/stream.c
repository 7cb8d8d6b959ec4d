/* Vendors' streaming samples keep their inputs out of L2, where they would displace results that have not gone to
 * memory yet. An input that fits is left to the cache: the next kernel may want it. */
#include "backend/vector/stream.h"

static expr sum_of(struct expr_pool *x, const struct tile_kernel *k, const struct stream *s, bool written)
{
    expr sum = expr_const(x, 0);
    for (int64_t i = 0; i < k->tensors.len; i++)
        if (s[i].bytes && (written ? k->tensors.data[i].is_output : s[i].once))
            sum = expr_add(x, sum, s[i].bytes);
    return sum;
}

/* Never, always, or by the sizes at launch. */
static expr condition(const struct emit *e, struct tile_kernel *k, const struct stream *s)
{
    struct expr_pool *x = &k->exprs;
    const struct target *t = e->m->target;
    const enum tiling_l2 wish = e->tiling ? e->tiling->l2 : L2_FREE;
    if (target_num(t, TK_L2_BYPASS) != 1 || wish == L2_CACHED)
        return EXPR_INVALID;
    if (wish == L2_BYPASS)
        return expr_const(x, 1);
    const double size = target_num(t, TK_L2_SIZE);
    const expr room = expr_const(x, (int64_t)(size * target_num(t, TK_L2_DIRTY_SHARE)));
    const expr fits = expr_cmp(x, EXPR_LE, sum_of(x, k, s, true), room);
    const expr whole = expr_const(x, (int64_t)size);
    return expr_mul(x, fits, expr_cmp(x, EXPR_LT, whole, sum_of(x, k, s, false)));
}

void stream_mark(struct emit *e, struct tile_kernel *k, const struct stream *s)
{
    const expr when = condition(e, k, s);
    int64_t value = 1;
    if (!when || (expr_is_const(&k->exprs, when, &value) && value == 0))
        return;
    for (int64_t i = 0; i < k->tensors.len; i++)
        if (s[i].once && !k->tensors.data[i].is_output)
            k->tensors.data[i].bypass = when;
}
