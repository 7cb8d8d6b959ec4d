/* Extents of the attention kernel. Operands are doubled on chip where there is room. The rows of an item follow from
 * the shapes at run time: few enough that all cores get work, since a core reads k and v once per item; the numbers
 * below are limits, not measurements. */
#include "backend/ascend/attention.h"
#include "base/size.h"

#define FRACTAL 16
#define MAX_N   128
#define MAX_V   256 /* columns of a load of values */

#define MAX_PIECE 32

static int64_t down(int64_t v, int64_t unit)
{
    return v / unit * unit;
}

static int64_t blocks(int64_t of, int64_t unit)
{
    return size_ceil_div(of, unit);
}

/* How much of k, v and the probabilities stays in L1: as much as fits. Values are loaded in rows as long as may be, but
 * where they do not stay, a load is what one product takes. */
static bool fit_l1(const struct machine *mc, const struct att *a, struct att_tile *t)
{
    const int64_t es = dtype_size(a->in), ps = dtype_size(a->prob), nk = blocks(ATTEND_CHUNK, t->n),
                  per = blocks(ATTEND_CHUNK, t->pk), wide = t->pn > MAX_V ? t->pn : down(MAX_V, t->pn),
                  vn = size_min(wide, size_align(a->v_size, t->pn)), nv = per * blocks(a->v_size, vn),
                  np = per * blocks(a->v_size, t->pn);
    const int64_t q = t->m * t->size_pad * es, p = t->m * ATTEND_CHUNK * ps, key = t->n * t->size_pad * es;
    const struct {
        int64_t key_bufs, v_bufs, vn;
        int ring, prob_slots;
    } all[] = {{nk, nv, vn, 2, 2},
               {nk, nv, vn, 2, 1},
               {nk, nv, vn, 1, 1},
               {size_min(nk, 2), size_min(np, 2), t->pn, 1, 1},
               {1, 1, t->pn, 1, 1}};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(all); i++) {
        t->key_bufs = (int)all[i].key_bufs;
        t->v_bufs = (int)all[i].v_bufs;
        t->vn = all[i].vn;
        t->ring = all[i].ring;
        t->prob_slots = all[i].prob_slots;
        if (t->key_bufs + t->v_bufs <= 16 &&
            q + t->prob_slots * p + t->ring * (t->key_bufs * key + t->v_bufs * t->vn * t->pk * ps) <= mc->size[TS_L1])
            return true;
    }
    return false;
}

static void override(const struct tiling *w, struct att_tile *t)
{
    if (w && w->n > 0) {
        t->n = size_min(t->n, size_align(w->n, FRACTAL));
        t->pn = size_min(t->pn, size_align(w->n, FRACTAL));
    }
    if (w && w->k > 0) {
        t->k0 = size_min(t->k0, size_align(w->k, FRACTAL * 2));
        t->pk = size_min(t->pk, size_align(w->k, FRACTAL * 2));
    }
}

/* As many blocks as of the widest, of about one width. */
static int64_t evenly(int64_t of, int64_t widest)
{
    return size_align(blocks(of, blocks(of, widest)), FRACTAL);
}

/* Blocks of as many columns as L0C has room for `accs` of. */
static bool fit_columns(const struct machine *mc, const struct att *a, int64_t m, int64_t accs, const struct tiling *w,
                        struct att_tile *t)
{
    const int64_t es = dtype_size(a->in), ps = dtype_size(a->prob);
    const int64_t c0 = mc->c0_bytes / (es < ps ? es : ps), unit = c0 > FRACTAL ? c0 : FRACTAL;
    const int64_t wide = mc->size[TS_L0C] / (accs * 4 * m), l0a = mc->size[TS_L0A] / 2, l0b = mc->size[TS_L0B] / 2;
    t->m = m;
    t->n = down(size_min(MAX_N, wide), FRACTAL);
    t->pn = down(size_min(size_align(a->v_size, FRACTAL), wide), FRACTAL);
    if (t->n == 0 || t->pn == 0)
        return false;
    t->n = evenly(ATTEND_CHUNK, t->n);
    t->pn = evenly(a->v_size, t->pn);
    t->size_pad = size_align(a->size, unit);
    t->k0 = down(size_min(t->size_pad, size_min(l0a / (m * es), l0b / (t->n * es))), unit);
    t->pk = down(size_min(ATTEND_CHUNK, size_min(l0a / (m * ps), l0b / (t->pn * ps))), unit);
    override(w, t);
    return t->k0 > 0 && t->pk > 0 &&
           blocks(ATTEND_CHUNK, t->n) * blocks(a->size, t->k0) +
                   blocks(ATTEND_CHUNK, t->pk) * blocks(a->v_size, t->pn) <=
               ATT_MAX_BLOCKS &&
           fit_l1(mc, a, t);
}

static bool fit_rows(const struct machine *mc, const struct att *a, int64_t m, const struct tiling *w,
                     struct att_tile *out)
{
    bool any = false;
    double least = 0;
    for (int64_t room = ATT_MAX_ACCS; room > 0; room--) {
        struct att_tile t = {.accs = 0};
        if (!fit_columns(mc, a, m, room, w, &t))
            continue;
        for (t.accs = (int)room; t.accs > 0; t.accs--) {
            const double cycles = att_step_cycles(mc, a, &t);
            if (!any || cycles < least) {
                least = cycles;
                *out = t;
            }
            any = true;
        }
    }
    return any;
}

bool att_fit(const struct machine *m, const struct att *a, int64_t rows, const struct tiling *w, struct att_tile *out)
{
    if (w && w->m > 0)
        rows = size_min(rows, size_align(w->m, FRACTAL));
    for (; rows >= FRACTAL; rows = down(rows / 2, FRACTAL))
        if (fit_rows(m, a, rows, w, out))
            return true;
    return false;
}

/* Items of several planes have an even number of them, but for small ones, which are best read once. */
static bool splits_evenly(int64_t m)
{
    return m > FRACTAL;
}

int64_t att_state_rows(int64_t m)
{
    return size_align(splits_evenly(m) ? m / 2 : 3 * m / 4, 8);
}

bool att_has_parts(const struct emit *e, const struct att *a)
{
    struct expr_pool *x = &e->cx->exprs;
    return !expr_proves_le(x, a->total, expr_const(x, ATTEND_PART));
}

/* Bytes of UB that a core's rows take from step to step. */
static int64_t held_bytes(const struct emit *e, const struct att *a, int64_t m)
{
    const int64_t state = att_state_rows(m), wide = size_align(a->v_size, 8);
    const int64_t numbers = (9 + 2 * ATT_HELD + ATT_PARTS + (a->sink ? ATT_PARTS : 0)) * size_align(state * 4, 64);
    return att_code_bytes(a) + numbers + state * (K_LANES + wide * (att_has_parts(e, a) ? 2 : 1)) * 4;
}

int64_t att_piece(const struct vr *r, const struct att *a, int64_t m)
{
    const struct tiling *w = r->e->tiling;
    const int64_t held = held_bytes(r->e, a, m), wide = size_align(a->v_size, 8);
    const bool in_place = vr_over_input(r, r->outputs[0].value);
    int64_t rows = size_min(MAX_PIECE, m / 2);
    if (w && w->rows > 0)
        rows = size_min(rows, w->rows);
    for (; rows > 0; rows = rows > 8 ? rows - 8 : rows / 2) {
        int64_t per_element, fixed;
        vr_footprint(r, false, rows, &per_element, &fixed);
        const int64_t probs = in_place ? 0 : ATTEND_CHUNK * dtype_size(a->prob),
                      parts = wide * (4 + dtype_size(a->out));
        if (fixed + rows * (per_element * ATTEND_CHUNK + probs + parts) + held + 512 <= r->e->m->size[TS_UB])
            break;
    }
    return rows;
}

/* Pieces of a vector core's part of an item, all of about one size. */
static void cut(struct expr_pool *x, struct att_split *s, int64_t piece)
{
    const expr one = expr_const(x, 1), two = expr_const(x, 2), most = expr_const(x, piece);
    const expr several = expr_cmp(x, EXPR_LT, one, s->tile_planes);
    s->sub_planes = expr_select(x, several, expr_ceildiv(x, s->tile_planes, two), one);
    s->sub_rows = expr_select(x, several, s->tile_rows, expr_ceildiv(x, s->tile_rows, two));
    s->row_pieces = expr_max(x, one, expr_ceildiv(x, s->sub_rows, most));
    s->piece_rows = expr_max(x, one, expr_ceildiv(x, s->sub_rows, s->row_pieces));
    const expr fit = expr_max(x, one, expr_floordiv(x, most, expr_max(x, one, s->sub_rows)));
    const expr turns = expr_max(x, one, expr_ceildiv(x, s->sub_planes, fit));
    s->piece_planes = expr_max(x, one, expr_ceildiv(x, s->sub_planes, turns));
    s->pieces = expr_mul(x, s->row_pieces, expr_max(x, one, expr_ceildiv(x, s->sub_planes, s->piece_planes)));
}

bool att_in_pairs(const struct att *a)
{
    return a->band.has_last;
}

/* Rows of an item: as many units as keep all cores at work to the end, at the fewest rounds. */
static expr item_rows(struct emit *e, const struct att *a, int64_t rows)
{
    struct expr_pool *x = &e->cx->exprs;
    const expr one = expr_const(x, 1), cores = expr_const(x, e->m->n_cube);
    const expr several = expr_cmp(x, EXPR_LE, expr_const(x, 2 * FRACTAL), a->plane_rows);
    const expr places = att_in_pairs(a) ? expr_mul(x, cores, expr_add(x, one, several)) : cores;
    expr all = a->rows;
    for (int i = 0; i < a->n_batch; i++)
        all = expr_mul(x, all, a->batch[i]);
    const expr rounds = expr_max(x, one, expr_ceildiv(x, all, expr_mul_const(x, places, rows)));
    const expr even = expr_align(x, expr_ceildiv(x, all, expr_mul(x, places, rounds)), 4);
    return expr_min(x, expr_const(x, rows), expr_max(x, expr_const(x, FRACTAL), even));
}

int64_t att_most_rows(struct emit *e, const struct att *a, int64_t rows)
{
    const struct expr_range r = expr_range_of(&e->cx->exprs, item_rows(e, a, rows));
    return size_align(size_min(rows, r.max), FRACTAL);
}

/* Steps of a unit at most: chunks of all keys, or those that a band meets. Of rows r to r + m - 1, chunks up to that of
 * key r + m - 1 + last count; for a pair, the two ends add up. */
static void chunks_of(struct expr_pool *x, const struct att *a, struct att_split *s)
{
    const struct ir_band *b = &a->band;
    const expr zero = expr_const(x, 0), one = expr_const(x, 1), two = expr_const(x, 2),
               chunk = expr_const(x, ATTEND_CHUNK);
    const expr alone = expr_cmp(x, EXPR_LE, s->n_row_tiles, one); /* the unit is one item */
    s->all_chunks = s->chunks = expr_max(x, one, expr_ceildiv(x, a->total, chunk));
    s->band_first = b->has_first ? b->first : zero;
    s->band_last = b->has_last ? b->last : zero;
    if (b->has_first && b->has_last) {
        const expr keys = expr_max(x, zero, expr_add(x, s->tile_rows, expr_sub(x, b->last, b->first)));
        s->chunks = expr_min(x, s->chunks, expr_add(x, expr_ceildiv(x, keys, chunk), one));
    }
    if (!att_in_pairs(a))
        return;
    const expr rows = expr_mul(x, s->tile_rows, expr_add(x, s->n_row_tiles, one));
    const expr ends = expr_add(x, expr_sub(x, rows, two), expr_mul(x, two, expr_max(x, zero, b->last)));
    const expr twice = expr_mul(x, two, s->chunks);
    const expr both =
        b->last_data ? twice : expr_min(x, twice, expr_add(x, two, expr_floordiv(x, expr_max(x, zero, ends), chunk)));
    s->chunks = expr_select(x, alone, s->chunks, both);
}

/* Parts of the keys become units of their own. */
static void take_apart(struct expr_pool *x, struct att_split *s)
{
    const expr most = expr_const(x, ATTEND_PART_CHUNKS);
    s->parts = expr_ceildiv(x, s->all_chunks, most);
    s->units = expr_mul(x, s->units, s->parts);
    s->chunks = expr_min(x, s->chunks, most);
}

struct att_split att_divide(struct emit *e, const struct att *a, int64_t rows, int64_t piece, bool apart)
{
    struct expr_pool *x = &e->cx->exprs;
    const expr one = expr_const(x, 1), cores = expr_const(x, e->m->n_cube);
    expr batch = one;
    for (int i = 0; i < a->n_batch; i++)
        batch = expr_mul(x, batch, a->batch[i]);
    const expr m = item_rows(e, a, rows);
    struct att_split s;
    s.tile_planes = expr_min(x, a->planes, expr_floordiv(x, m, expr_max(x, one, a->plane_rows)));
    if (splits_evenly(rows))
        s.tile_planes = expr_mul_const(x, expr_floordiv(x, s.tile_planes, expr_const(x, 2)), 2);
    s.tile_planes = expr_max(x, one, s.tile_planes);
    s.tile_rows = expr_max(x, one, expr_min(x, a->plane_rows, m));
    const expr plane_tiles = expr_ceildiv(x, a->planes, s.tile_planes),
               row_tiles = expr_ceildiv(x, a->plane_rows, s.tile_rows);
    const expr row_units = att_in_pairs(a) ? expr_ceildiv(x, row_tiles, expr_const(x, 2)) : row_tiles;
    s.units = expr_mul(x, batch, expr_mul(x, plane_tiles, row_units));
    s.row_units = expr_max(x, one, row_units);
    s.n_plane_tiles = expr_max(x, one, plane_tiles); /* divisors, also when there is nothing to do */
    s.n_row_tiles = expr_max(x, one, row_tiles);
    chunks_of(x, a, &s);
    s.parts = one;
    if (apart)
        take_apart(x, &s);
    s.blocks = expr_max(x, one, expr_min(x, cores, s.units));
    s.slot = expr_mul(x, s.tile_planes, s.tile_rows);
    cut(x, &s, piece);
    return s;
}
