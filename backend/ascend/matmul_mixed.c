/* Products in which vector cores take part: a feed makes b before them, a tail goes on with their tiles. */
#include "backend/ascend/matmul_priv.h"
#include "base/size.h"

enum { FEED_READY, FEED_FREE, FEED_DONE };
enum { TAIL_READY, TAIL_FREE };

/* ---- b from a feed ---------------------------------------------------------------------------------------- */

static int64_t blocks_of_k(const struct mm_kernel *c)
{
    int64_t k = 0;
    (void)expr_is_const(c->x, c->d.k, &k); /* a feed knows it */
    return size_ceil_div(k, c->t.kb);
}

/* Number of block j of the tile among all that the vector cores of this block of cores make. */
static expr turn_of(struct mm_kernel *c, expr j)
{
    return expr_add(c->x, expr_mul_const(c->x, c->round, blocks_of_k(c)), j);
}

static expr slot_offset(struct mm_kernel *c, expr turn)
{
    struct expr_pool *x = c->x;
    const expr slots = num(c, c->p->feed->slots), block = expr_sym(x, c->k->sym_block);
    return expr_mul_const(x, expr_add(x, expr_mul(x, block, slots), expr_mod(x, turn, slots)), c->t.n * c->t.kb);
}

void mm_load_made(struct mm_kernel *c, expr j)
{
    struct expr_pool *x = c->x;
    const expr z = num(c, 0), one = num(c, 1), turn = turn_of(c, j);
    const expr line = num(c, c->t.n * c->c0), rows = expr_mul_const(x, expr_align(x, c->in, 16), c->c0);
    tile_note(&c->b, "weights: made by the vector cores in the order of L1");
    TILE(&c->b, XWAIT, TU_MTE2, FEED_READY);
    TILE(&c->b, LOAD, c->l1b, z, c->parts[0].tb, slot_offset(c, turn), c->p->in, one,
         expr_ceildiv(x, c->ik, num(c, c->c0)), one, rows, z, line, z, one, z, line, z, one);
    const expr all = expr_mul_const(x, c->rounds, blocks_of_k(c));
    tile_if(&c->b, expr_cmp(x, EXPR_LT, expr_add(x, turn, num(c, c->p->feed->slots)), all));
    TILE(&c->b, XSET, TU_MTE2, FEED_FREE);
    tile_end(&c->b);
}

/* The half of the tile's columns that this vector core makes. */
static struct mm_part own_part(struct mm_kernel *c)
{
    struct expr_pool *x = c->x;
    const expr half = expr_ceildiv(x, c->in, num(c, 2)), first = expr_mul(x, expr_sym(x, c->k->sym_sub), half);
    const expr row = c->p->ends ? expr_add(x, c->n0, expr_mul(x, c->groups.which, c->d.n)) : c->n0;
    return (struct mm_part){.which = c->which,
                            .n0 = expr_add(x, row, first),
                            .in = expr_min(x, half, expr_sub(x, c->in, first)),
                            .done = num(c, 0),
                            .tensor = c->parts[0].tb,
                            .off = expr_mul_const(x, first, c->c0)};
}

static void make_block(struct mm_kernel *c, const struct mm_part *group, expr j0, expr j)
{
    struct expr_pool *x = c->x;
    const struct mm_feed *f = c->p->feed;
    struct mm_part p = *group;
    const expr turn = turn_of(c, expr_add(x, j0, j));
    p.done = expr_mul_const(x, j, c->t.kb);
    p.k0 = expr_add(x, group->k0, p.done);
    p.ik = expr_min(x, num(c, c->t.kb), expr_sub(x, c->d.k, p.k0));
    p.off = expr_add(x, slot_offset(c, turn), group->off);
    f->make(c->p->feed, &p);
    tile_note(&c->b, "to a free slot of the workspace");
    tile_if(&c->b, expr_cmp(x, EXPR_LE, num(c, f->slots), turn));
    TILE(&c->b, XWAIT, TU_MTE3, FEED_FREE);
    tile_end(&c->b);
    f->store(c->p->feed, &p);
    TILE(&c->b, XSET, TU_MTE3, FEED_READY);
}

void mm_feed_body(struct mm_kernel *c)
{
    struct expr_pool *x = c->x;
    const struct mm_feed *f = c->p->feed;
    tile_section_begin(&c->b, TCORE_VECTOR);
    f->begin(c->p->feed, c->e->m, &c->t);
    mm_open_tiles(c);
    struct mm_part group = own_part(c);
    const int64_t n_blocks = blocks_of_k(c), at_once = c->t.group;
    const expr g = tile_loop(&c->b, "group", num(c, size_ceil_div(n_blocks, at_once)));
    const expr j0 = expr_mul_const(x, g, at_once);
    group.k0 = expr_mul_const(x, j0, c->t.kb);
    group.ik = expr_min(x, num(c, at_once * c->t.kb), expr_sub(x, c->d.k, group.k0));
    f->load(c->p->feed, &group);
    const expr j = tile_loop(&c->b, "kb", expr_min(x, num(c, at_once), expr_sub(x, num(c, n_blocks), j0)));
    make_block(c, &group, j0, j);
    tile_end(&c->b);
    tile_end(&c->b);
    mm_close_tiles(c);
}

/* Slots are counted anew for the rows of each matrix: nobody goes on before all of them are free. */
static void meet(struct mm_kernel *c)
{
    tile_if(&c->b, expr_cmp(c->x, EXPR_LT, num(c, 0), c->rounds));
    if (c->b.at->core == TCORE_CUBE)
        TILE(&c->b, XSET, TU_MTE2, FEED_DONE);
    else
        TILE(&c->b, XWAIT, TU_MTE3, FEED_DONE);
    tile_end(&c->b);
}

void mm_close_tiles(struct mm_kernel *c)
{
    tile_end(&c->b);
    if (c->p->ends && c->p->feed)
        meet(c);
    if (c->p->ends)
        tile_end(&c->b);
}

/* ---- vector operators behind the product -------------------------------------------------------------------- */

static expr tail_slot(struct mm_kernel *c)
{
    struct expr_pool *x = c->x;
    const expr slots = num(c, c->p->tail->slots), block = expr_sym(x, c->k->sym_block);
    return expr_mul_const(x, expr_add(x, expr_mul(x, block, slots), expr_mod(x, c->round, slots)),
                          c->t.m * c->t.n * c->n_parts);
}

/* Opens the parts of a tile for the vector cores. */
void mm_open_slot(struct mm_kernel *c)
{
    struct expr_pool *x = c->x;
    tile_note(&c->b, "a free slot of the workspace");
    tile_if(&c->b, expr_cmp(x, EXPR_LE, num(c, c->p->tail->slots), c->round));
    TILE(&c->b, XWAIT, TU_FIX, TAIL_FREE);
    tile_end(&c->b);
    if (c->n_parts > 1)
        c->which = tile_loop(&c->b, "part", num(c, c->n_parts));
}

void mm_close_slot(struct mm_kernel *c)
{
    if (c->n_parts > 1)
        tile_end(&c->b);
    tile_note(&c->b, "the tile is there for the vector cores");
    TILE(&c->b, XSET, TU_FIX, TAIL_READY);
}

static void store_part(struct mm_kernel *c, const struct mm_one *q)
{
    const expr at = expr_add(c->x, tail_slot(c), expr_mul_const(c->x, c->which, c->t.m * c->t.n));
    tile_note(&c->b, "store to the workspace");
    mm_fixp(c, q, at, num(c, c->t.n));
}

void mm_store_for_tail(struct mm_kernel *c)
{
    bool factors = false;
    for (int i = 0; i < c->n_parts; i++)
        factors = factors || c->parts[i].tfactor >= 0;
    if (factors)
        mm_for_part(c, store_part);
    else
        store_part(c, c->parts);
}

void mm_tail_body(struct mm_kernel *c)
{
    struct expr_pool *x = c->x;
    struct vr_form *f = &c->tail->f;
    tile_section_begin(&c->b, TCORE_VECTOR);
    f->b = c->b;
    vr_code_buffers(f);
    mm_open_tiles(c);
    tile_note(&f->b, "the cube core has stored the tile");
    TILE(&f->b, XWAIT, TU_MTE2, TAIL_READY);
    mm_tail_tile(c->tail, &(struct mm_tail_tile){c->batch, c->m0, c->n0, c->im, c->in, tail_slot(c)});
    tile_note(&f->b, "its slot may be filled again");
    tile_if(&f->b, expr_cmp(x, EXPR_LT, expr_add(x, c->round, num(c, c->p->tail->slots)), c->rounds));
    TILE(&f->b, XSET, TU_MTE2, TAIL_FREE);
    tile_end(&f->b);
    tile_end(&f->b);
}
