/* Extents of the attention kernel. Each memory is shared half and half by the two products; operands and the scores'
 * accumulator are doubled. The rows of an item follow from the shapes at run time: few enough that all cores get work,
 * since a core reads k and v once per item; the numbers below are limits, not measurements. */
#include "backend/ascend/attention.h"
#include "base/size.h"

#define FRACTAL  16
#define MAX_N    256
#define MAX_KB   512
#define WS_ALIGN 32 /* elements: rows of the workspace start at whole 32 bytes for all types */

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t down(int64_t v, int64_t unit)
{
    return v / unit * unit;
}

static bool fit_rows(const struct machine *mc, const struct att *a, int64_t m, struct att_tile *t)
{
    const int64_t es = dtype_size(a->in), ps = dtype_size(a->prob);
    const int64_t c0 = mc->c0_bytes / (es < ps ? es : ps), unit = c0 > FRACTAL ? c0 : FRACTAL;
    const int64_t l0c = mc->size[TS_L0C] / 2, l0a = mc->size[TS_L0A] / 4, l0b = mc->size[TS_L0B] / 4;
    t->m = m;
    t->n = down(least(MAX_N, l0c / (2 * 4 * m)), FRACTAL);
    t->pn = down(least(size_align(a->v_size, FRACTAL), l0c / (4 * m)), FRACTAL);
    if (t->n == 0 || t->pn == 0)
        return false;
    t->size_pad = size_align(a->size, unit);
    t->k0 = down(least(t->size_pad, least(l0a / (m * es), l0b / (t->n * es))), unit);
    t->pk0 = down(least(MAX_KB, least(l0a / (m * ps), l0b / (t->pn * ps))), unit);
    if (t->k0 == 0 || t->pk0 == 0)
        return false;
    const int64_t left = mc->size[TS_L1] - 2 * (t->m + t->n) * t->size_pad * es;
    t->pkb = left > 0 ? down(least(MAX_KB, left / (2 * (t->m + t->pn) * ps)), t->pk0) : 0;
    return t->pkb > 0;
}

static void override(const struct tiling *w, struct att_tile *t)
{
    if (w && w->n > 0) {
        t->n = least(t->n, size_align(w->n, FRACTAL));
        t->pn = least(t->pn, size_align(w->n, FRACTAL));
    }
    if (w && w->k > 0) {
        t->k0 = least(t->k0, size_align(w->k, FRACTAL * 2));
        t->pk0 = least(t->pk0, size_align(w->k, FRACTAL * 2));
        t->pkb = least(t->pkb, t->pk0 * 2);
        t->pkb = down(t->pkb, t->pk0);
    }
}

bool att_fit(const struct machine *m, const struct att *a, int64_t rows, const struct tiling *w, struct att_tile *out)
{
    if (w && w->m > 0)
        rows = least(rows, size_align(w->m, FRACTAL));
    for (; rows >= FRACTAL; rows = down(rows / 2, FRACTAL)) {
        if (!fit_rows(m, a, rows, out))
            continue;
        override(w, out);
        return true;
    }
    return false;
}

struct att_split att_divide(struct emit *e, const struct att *a, int64_t rows)
{
    struct expr_pool *x = &e->cx->exprs;
    const expr one = expr_const(x, 1), cores = expr_const(x, e->m->n_cube), unit = expr_const(x, FRACTAL);
    expr batch = one;
    for (int i = 0; i < a->n_batch; i++)
        batch = expr_mul(x, batch, a->batch[i]);
    const expr even = expr_align(x, expr_ceildiv(x, expr_mul(x, batch, a->rows), cores), FRACTAL);
    const expr m = expr_min(x, expr_const(x, rows), expr_max(x, unit, even));
    struct att_split s;
    s.tile_planes = expr_min(x, a->planes, expr_floordiv(x, m, expr_max(x, one, a->plane_rows)));
    s.tile_planes = expr_max(x, one, s.tile_planes);
    s.tile_rows = expr_max(x, one, expr_min(x, a->plane_rows, m));
    const expr plane_tiles = expr_ceildiv(x, a->planes, s.tile_planes),
               row_tiles = expr_ceildiv(x, a->plane_rows, s.tile_rows);
    s.items = expr_mul(x, batch, expr_mul(x, plane_tiles, row_tiles));
    s.n_plane_tiles = expr_max(x, one, plane_tiles); /* divisors, also when there is nothing to do */
    s.n_row_tiles = expr_max(x, one, row_tiles);
    s.blocks = expr_max(x, one, expr_min(x, cores, s.items));
    s.pitch = expr_align(x, expr_max(x, one, a->total), WS_ALIGN);
    s.slot = expr_mul(x, s.pitch, expr_mul(x, s.tile_planes, s.tile_rows));
    return s;
}
