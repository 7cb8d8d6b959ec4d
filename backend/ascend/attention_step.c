/* Steps of a block: the chunks of its items, one after the other. Items come in units of a fixed number of steps: where
 * later rows see more keys, a unit is two row tiles, one as far from the last as the other from the first, since both
 * together see about as many keys as any other two. A fixed number leaves a step or two without work. */
#include "backend/ascend/attention.h"

/* Units of this block: they go to the blocks in turn. */
static expr unit_count(struct att_kernel *k)
{
    struct expr_pool *x = &k->f.k->exprs;
    return expr_ceildiv(x, expr_sub(x, k->s.units, expr_sym(x, k->f.k->sym_block)), k->f.k->blocks);
}

expr att_steps(struct att_kernel *k)
{
    return expr_mul(&k->f.k->exprs, unit_count(k), k->s.chunks);
}

static expr let(struct att_kernel *k, const char *name, expr value)
{
    return tile_let(&k->f.b, name, value);
}

/* The number that the sequence's band counts from, as far as it makes a difference; 0 where there is none. */
static expr band_from(struct att_kernel *k, const struct att_item *it)
{
    struct expr_pool *x = &k->f.k->exprs;
    const expr zero = expr_const(x, 0), one = expr_const(x, 1);
    if (k->band_data < 0)
        return zero;
    expr sequence = it->batch, inner = one;
    for (int i = 1; i < k->a->n_batch; i++)
        inner = expr_mul(x, inner, expr_max(x, one, k->batch[i]));
    sequence = expr_max(x, zero, expr_min(x, expr_floordiv(x, sequence, inner), expr_sub(x, k->batch[0], one)));
    const int32_t var = tile_var(&k->f.b, "from", (struct expr_range){INT32_MIN, INT32_MAX, 1});
    tile_note(&k->f.b, "the position that the sequence's first row has");
    TILE(&k->f.b, SLOAD, var, k->band_data, (int32_t)k->a->band.first_data->type->dtype, sequence,
         expr_sub(x, zero, k->total), k->total, expr_sub(x, k->total, k->plane_rows));
    return expr_sym(x, var);
}

/* Chunks that meet the band of the item's rows; one at least, since every item has a result. */
static void locate_chunks(struct att_kernel *k, struct att_item *it)
{
    struct expr_pool *x = &k->f.k->exprs;
    const expr zero = expr_const(x, 0), one = expr_const(x, 1), chunk = expr_const(x, ATTEND_CHUNK),
               most = expr_sub(x, k->s.all_chunks, one), from = expr_add(x, band_from(k, it), it->row0);
    it->chunk0 = zero;
    it->chunk1 = most;
    if (k->a->band.has_last) {
        const expr key = expr_add(x, expr_add(x, from, expr_sub(x, it->rows, one)), k->s.band_last);
        it->chunk1 = let(k, "chunk1", expr_min(x, most, expr_floordiv(x, expr_max(x, zero, key), chunk)));
    }
    if (k->a->band.has_first) {
        const expr key = expr_max(x, zero, expr_add(x, from, k->s.band_first));
        it->chunk0 = let(k, "chunk0", expr_min(x, it->chunk1, expr_floordiv(x, key, chunk)));
    }
}

/* Row tile `tile` of what unit `unit` lies in. */
struct att_item att_item_of(struct att_kernel *k, expr unit, expr tile)
{
    struct expr_pool *x = &k->f.k->exprs;
    const expr rest = expr_floordiv(x, unit, k->s.row_units);
    struct att_item it;
    it.row0 = let(k, "row0", expr_mul(x, tile, k->s.tile_rows));
    it.plane0 = expr_mul(x, expr_mod(x, rest, k->s.n_plane_tiles), k->s.tile_planes);
    it.batch = expr_floordiv(x, rest, k->s.n_plane_tiles);
    it.rows = expr_min(x, k->s.tile_rows, expr_sub(x, k->plane_rows, it.row0));
    it.planes = expr_min(x, k->s.tile_planes, expr_sub(x, k->planes, it.plane0));
    it.first = expr_add(x, expr_mul(x, it.plane0, k->plane_rows), it.row0);
    it.count = expr_mul(x, it.planes, it.rows);
    locate_chunks(k, &it);
    return it;
}

/* Steps of a pair: those of the later row tile, then those of the earlier one, then none. */
static void locate_in_pair(struct att_kernel *k, expr unit, expr at, struct att_step *s)
{
    struct expr_pool *x = &k->f.k->exprs;
    unit = let(k, "unit", unit);
    at = let(k, "at", at);
    unit = let(k, "unit", unit);
    at = let(k, "at", at);
    const expr one = expr_const(x, 1), early = expr_mod(x, unit, k->s.row_units),
               late = expr_sub(x, expr_sub(x, k->s.n_row_tiles, one), early);
    const struct att_item first = att_item_of(k, unit, late);
    const expr steps = expr_add(x, expr_sub(x, first.chunk1, first.chunk0), one);
    const expr second = let(k, "second", expr_cmp(x, EXPR_LE, steps, at));
    s->it = att_item_of(k, unit, expr_select(x, second, early, late));
    s->chunk = let(k, "chunk", expr_add(x, s->it.chunk0, expr_sub(x, at, expr_mul(x, second, steps))));
    const expr there = expr_select(x, second, expr_cmp(x, EXPR_LT, early, late), one);
    s->active =
        let(k, "active", expr_mul(x, s->active, expr_mul(x, there, expr_cmp(x, EXPR_LE, s->chunk, s->it.chunk1))));
}

/* Steps of a unit that is one part of an item's keys. Such items are one row tile. */
static void locate_in_part(struct att_kernel *k, expr unit, expr at, struct att_step *s)
{
    struct expr_pool *x = &k->f.k->exprs;
    const expr part = expr_mul_const(x, expr_mod(x, unit, k->s.parts), ATTEND_PART_CHUNKS),
               last = expr_add(x, part, expr_const(x, ATTEND_PART_CHUNKS - 1));
    s->it = att_item_of(k, expr_floordiv(x, unit, k->s.parts), expr_const(x, 0));
    s->it.chunk0 = let(k, "chunk0", expr_max(x, s->it.chunk0, part));
    s->it.chunk1 = let(k, "chunk1", expr_min(x, s->it.chunk1, last));
    s->chunk = let(k, "chunk", expr_add(x, s->it.chunk0, at));
    s->active = let(k, "active", expr_mul(x, s->active, expr_cmp(x, EXPR_LE, s->chunk, s->it.chunk1)));
}

struct att_step att_locate(struct att_kernel *k, expr i)
{
    struct expr_pool *x = &k->f.k->exprs;
    const expr zero = expr_const(x, 0), all = att_steps(k), chunk = expr_const(x, ATTEND_CHUNK);
    const expr last = expr_max(x, zero, expr_sub(x, all, expr_const(x, 1)));
    struct att_step s;
    s.active = expr_mul(x, expr_cmp(x, EXPR_LE, zero, i), expr_cmp(x, EXPR_LT, i, all));
    s.number = expr_max(x, zero, expr_min(x, i, last));
    const expr turn = expr_floordiv(x, s.number, k->s.chunks), at = expr_mod(x, s.number, k->s.chunks);
    const expr unit = expr_add(x, expr_sym(x, k->f.k->sym_block), expr_mul(x, turn, k->f.k->blocks));
    s.unit = unit;
    if (k->apart) {
        locate_in_part(k, unit, at, &s);
    } else if (att_in_pairs(k->a)) {
        locate_in_pair(k, unit, at, &s);
    } else {
        s.it = att_item_of(k, unit, expr_mod(x, unit, k->s.row_units));
        s.chunk = expr_add(x, s.it.chunk0, at);
        if (k->a->band.has_first)
            s.active = expr_mul(x, s.active, expr_cmp(x, EXPR_LE, s.chunk, s.it.chunk1));
    }
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
