/* Tiles of a product's last round in parts: when that round leaves cores idle, its tiles are divided among more of them
 * (struct mm_tile, last_m and last_n). */
#include "backend/ascend/matmul_priv.h"

bool mm_is_parted(const struct mm_kernel *c)
{
    return c->t.grid_m == 0 && !c->p->feed && !c->p->tail && !c->p->ends && mm_last_parts(&c->t) > 1;
}

/* `fits`, and a result with more than one part of a tile along this side: else the others would start cores for
 * nothing. */
static expr and_reaches(struct expr_pool *x, expr fits, expr extent, int64_t tile, int64_t parts)
{
    return parts > 1 ? expr_min(x, fits, expr_cmp(x, EXPR_LE, expr_const(x, tile / parts + 1), extent)) : fits;
}

void mm_parts_declare(struct mm_kernel *c)
{
    const struct mm *p = c->p;
    struct expr_pool *x = &c->e->cx->exprs;
    const int64_t parts = mm_last_parts(&c->t);
    int64_t n = 0;
    if (!mm_is_parted(c))
        return;
    for (int i = 0; i < c->n_parts; i++)
        n += c->parts[i].columns;
    const expr cores = expr_const(x, c->e->m->n_cube),
               columns = c->n_parts > 1 ? expr_const(x, n) : expr_ceildiv(x, p->n, expr_const(x, c->t.n));
    expr tiles = expr_mul(x, expr_ceildiv(x, p->m, expr_const(x, c->t.m)), columns);
    for (int i = 0; i < p->n_batch; i++)
        tiles = expr_mul(x, tiles, p->batch[i]);
    const expr rest = expr_mod(x, tiles, cores);
    expr fits = expr_cmp(x, EXPR_LE, expr_mul_const(x, rest, parts), cores);
    fits = and_reaches(x, fits, p->m, c->t.m, c->t.last_m);
    if (c->n_parts == 1)
        fits = and_reaches(x, fits, p->n, c->t.n, c->t.last_n);
    const expr whole = expr_select(x, fits, expr_sub(x, tiles, rest), tiles);
    c->whole = kparam(&c->params, "whole", whole);
    c->items = kparam(&c->params, "items",
                      expr_add(x, tiles, expr_select(x, fits, expr_mul_const(x, rest, parts - 1), expr_const(x, 0))));
}
