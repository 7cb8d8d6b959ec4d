#include "backend/vector/line_tiles.h"

#include <math.h>

#include "base/size.h"

/* Is step i of an ascending list needed for n elements? The first that holds them all is the last. */
static bool is_needed(const int64_t *list, int64_t i, int64_t n)
{
    return i == 0 || list[i - 1] < n;
}

struct line_tile line_tile_choose(const struct line_map *map, const int64_t *steps, int64_t n_steps,
                                  const struct tiling *wish, line_cycles_fn *cycles, const void *user)
{
    static const int64_t lines[] = {16, 32, 64, 128, 256, 512, 1024};
    const int64_t rows = wish && wish->rows > 0 ? wish->rows : INT64_MAX,
                  cols = wish && wish->n > 0 ? wish->n : INT64_MAX;
    struct line_tile best = {0};
    double least = INFINITY;
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(lines); i++)
        for (int64_t j = 0; j < n_steps; j++)
            for (int64_t k = 0; k < n_steps; k++) {
                if (!is_needed(lines, i, map->line) || !is_needed(steps, j, map->count[LINE_H]) ||
                    !is_needed(steps, k, map->count[LINE_W]) || steps[j] > rows || steps[k] > cols)
                    continue;
                const struct line_tile t = {size_min(lines[i], map->line), {steps[j], steps[k]}};
                const double c = cycles(user, &t);
                if (c < least) {
                    least = c;
                    best = t;
                }
            }
    return best;
}

double line_batch(const struct ir_ctx *cx, const struct line_map *map)
{
    const struct expr_range r = expr_range_of(&cx->exprs, map->batch);
    return r.max < 64 ? (double)r.max : r.min > 1 ? (double)r.min : 1;
}

double line_tiles(const struct ir_ctx *cx, const struct line_map *map, const struct line_tile *t)
{
    return line_batch(cx, map) * (double)map->stripes * (double)size_ceil_div(map->line, t->channels) *
           (double)size_ceil_div(map->count[LINE_H], t->count[LINE_H]) *
           (double)size_ceil_div(map->count[LINE_W], t->count[LINE_W]);
}

struct line_place line_tiles_open(const struct machine *m, struct tile_builder *b, const struct line_map *map,
                                  const struct line_tile *t, const struct kband *band)
{
    struct expr_pool *x = &b->k->exprs;
    struct line_place p;
    const expr one = expr_const(x, 1), ct = expr_const(x, size_ceil_div(map->line, t->channels));
    const expr from[LINE_AXES] = {band->row, expr_const(x, 0)},
               len[LINE_AXES] = {band->rows, expr_const(x, map->count[LINE_W])};
    expr counts[LINE_AXES], tiles = expr_mul(x, expr_mul_const(x, band->images, map->stripes), ct);
    for (int i = LINE_H; i < LINE_AXES; i++) {
        counts[i] = expr_ceildiv(x, len[i], expr_const(x, t->count[i]));
        tiles = expr_mul(x, tiles, counts[i]);
    }
    b->k->blocks = expr_max(x, one, expr_min(x, expr_const(x, m->n_vector), tiles));
    const expr block = expr_sym(x, b->k->sym_block);
    const expr i = tile_loop(b, "i", expr_ceildiv(x, expr_sub(x, tiles, block), b->k->blocks));
    expr at = expr_add(x, block, expr_mul(x, i, b->k->blocks));
    p.c0 = expr_mul_const(x, expr_mod(x, at, ct), t->channels);
    p.nc = expr_min(x, expr_const(x, t->channels), expr_sub(x, expr_const(x, map->line), p.c0));
    at = expr_floordiv(x, at, ct);
    for (int a = LINE_W; a >= LINE_H; a--) {
        const expr each = expr_const(x, t->count[a]), end = expr_add(x, from[a], len[a]);
        p.first[a] = expr_add(x, from[a], expr_mul_const(x, expr_mod(x, at, counts[a]), t->count[a]));
        p.n[a] = expr_min(x, each, expr_sub(x, end, p.first[a]));
        at = expr_floordiv(x, at, counts[a]);
    }
    p.stripe = expr_add(x, at, expr_mul_const(x, band->image, map->stripes));
    return p;
}
