/* Steps of a block: the chunks of its items, one after the other. */
#include "backend/ascend/attention.h"

static expr item_count(struct att_kernel *k)
{
    struct expr_pool *x = &k->f.k->exprs;
    return expr_ceildiv(x, expr_sub(x, k->s.items, expr_sym(x, k->f.k->sym_block)), k->f.k->blocks);
}

expr att_steps(struct att_kernel *k)
{
    return expr_mul(&k->f.k->exprs, item_count(k), k->s.chunks);
}

static struct att_item locate_item(struct att_kernel *k, expr i)
{
    struct expr_pool *x = &k->f.k->exprs;
    const expr t = expr_add(x, expr_sym(x, k->f.k->sym_block), expr_mul(x, i, k->f.k->blocks)),
               rest = expr_floordiv(x, t, k->s.n_row_tiles);
    struct att_item it;
    it.row0 = expr_mul(x, expr_mod(x, t, k->s.n_row_tiles), k->s.tile_rows);
    it.plane0 = expr_mul(x, expr_mod(x, rest, k->s.n_plane_tiles), k->s.tile_planes);
    it.batch = expr_floordiv(x, rest, k->s.n_plane_tiles);
    it.rows = expr_min(x, k->s.tile_rows, expr_sub(x, k->plane_rows, it.row0));
    it.planes = expr_min(x, k->s.tile_planes, expr_sub(x, k->planes, it.plane0));
    it.first = expr_add(x, expr_mul(x, it.plane0, k->plane_rows), it.row0);
    it.count = expr_mul(x, it.planes, it.rows);
    return it;
}

struct att_step att_locate(struct att_kernel *k, expr i)
{
    struct expr_pool *x = &k->f.k->exprs;
    const expr zero = expr_const(x, 0), all = att_steps(k), chunk = expr_const(x, ATTEND_CHUNK);
    const expr last = expr_max(x, zero, expr_sub(x, all, expr_const(x, 1)));
    struct att_step s;
    s.active = expr_mul(x, expr_cmp(x, EXPR_LE, zero, i), expr_cmp(x, EXPR_LT, i, all));
    s.number = expr_max(x, zero, expr_min(x, i, last));
    s.chunk = expr_mod(x, s.number, k->s.chunks);
    s.it = locate_item(k, expr_floordiv(x, s.number, k->s.chunks));
    s.key0 = expr_mul(x, s.chunk, chunk);
    s.keys = expr_mul(x, s.active, expr_min(x, chunk, expr_sub(x, k->total, s.key0)));
    s.it.count = expr_mul(x, s.it.count, s.active);
    return s;
}

/* Offset of a batch member. */
expr att_batch_offset(struct att_kernel *k, expr index, const expr *stride)
{
    struct expr_pool *x = &k->f.k->exprs;
    expr off = expr_const(x, 0);
    for (int i = k->a->n_batch - 1; i >= 0; i--) {
        const expr size = expr_max(x, expr_const(x, 1), k->batch[i]);
        off = expr_add(x, off, expr_mul(x, i > 0 ? expr_mod(x, index, size) : index, stride[i]));
        index = expr_floordiv(x, index, size);
    }
    return off;
}
