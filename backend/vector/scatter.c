/* Rows written to places that an index tensor names, one after the other: the last of several writers of a row stays,
 * and a reduction meets them in their order. So only columns are divided among the cores. */
#include "backend/vector/rows.h"
#include "base/size.h"

#define MAX_INDEX 256 /* rows of a tile */
#define COL_UNIT  64

struct scatter_kernel {
    struct tile_kernel *k;
    struct tile_builder b;
    struct kparams p;
    const struct scatter_rows *d;
    expr n_rows, n_index, row_len, tile_rows, tile_cols, n_col_tiles;
    expr row0, rows, col0, cols; /* of the tile being worked on */
    int64_t cap;
    int32_t out, index, updates;
    int32_t at, fresh, old; /* buffers: indices, rows of updates, a row of the result */
};

static expr num(struct scatter_kernel *g, int64_t v)
{
    return expr_const(&g->k->exprs, v);
}

static void load_updates(struct scatter_kernel *g, expr row, expr rows)
{
    struct expr_pool *x = &g->k->exprs;
    const expr zero = num(g, 0), one = num(g, 1);
    const expr from = expr_add(x, expr_mul(x, row, g->row_len), g->col0);
    TILE(&g->b, LOAD, g->fresh, zero, g->updates, from, (int32_t)g->d->dtype, one, one, rows, g->cols, zero, zero,
         g->row_len, one, zero, zero, g->tile_cols, one);
}

static void put_rows(struct scatter_kernel *g, int32_t buf, expr first, expr rows)
{
    TILE(&g->b, STOREX, g->out, g->col0, g->row_len, g->n_rows, buf, num(g, 0), g->tile_cols, (int32_t)g->d->dtype,
         g->at, first, (int32_t)DT_I64, rows, g->cols);
}

/* One row after the other: read, combine, write back. A single buffer keeps a read behind the write before it. */
static void combine_rows(struct scatter_kernel *g)
{
    struct expr_pool *x = &g->k->exprs;
    const expr zero = num(g, 0), one = num(g, 1);
    const expr i = tile_loop(&g->b, "r", g->rows);
    load_updates(g, expr_add(x, g->row0, i), one);
    TILE(&g->b, LOADX, g->old, zero, g->tile_cols, g->out, g->col0, g->row_len, g->n_rows, (int32_t)g->d->dtype, g->at,
         i, (int32_t)DT_I64, one, g->cols);
    TILE(&g->b, VEC, g->d->fn, (int32_t)g->d->dtype, one, g->cols, g->old, zero, zero, g->old, zero, zero, 1, g->fresh,
         zero, zero, 1, -1, 0, zero, 0, 0, 0, 0);
    put_rows(g, g->old, i, one);
    tile_end(&g->b);
}

static void code(struct scatter_kernel *g)
{
    struct expr_pool *x = &g->k->exprs;
    struct tile_builder *b = &g->b;
    const bool plain = g->d->fn == K_FN_Identity;
    const int size = dtype_size(g->d->dtype);
    const expr zero = num(g, 0), one = num(g, 1), block = expr_sym(x, g->k->sym_block);
    tile_section_begin(b, TCORE_VECTOR);
    g->at = tile_buf(b, "index", TS_UB, DT_I64, 1, MAX_INDEX * 8);
    g->fresh = tile_buf(b, "updates", TS_UB, g->d->dtype, plain ? 2 : 1, size_align(g->cap * size, 64));
    g->old = plain ? -1 : tile_buf(b, "row", TS_UB, g->d->dtype, 1, size_align(g->cap * size, 64));
    expr c = tile_loop(b, "c", expr_ceildiv(x, expr_sub(x, g->n_col_tiles, block), g->k->blocks));
    g->col0 = expr_mul(x, expr_add(x, block, expr_mul(x, c, g->k->blocks)), g->tile_cols);
    g->cols = expr_min(x, g->tile_cols, expr_sub(x, g->row_len, g->col0));
    expr t = tile_loop(b, "t", expr_ceildiv(x, g->n_index, g->tile_rows));
    g->row0 = expr_mul(x, t, g->tile_rows);
    g->rows = expr_min(x, g->tile_rows, expr_sub(x, g->n_index, g->row0));
    TILE(b, LOAD, g->at, zero, g->index, g->row0, (int32_t)DT_I64, one, one, one, g->rows, zero, zero, zero, one, zero,
         zero, zero, one);
    if (plain) {
        load_updates(g, g->row0, g->rows);
        put_rows(g, g->fresh, zero, g->rows);
    } else {
        combine_rows(g);
    }
    tile_end(b);
    tile_end(b);
}

enum npuc_status emit_scatter_rows(struct emit *e, const struct scatter_rows *d, const char *label)
{
    struct scatter_kernel g = {.k = tile_kernel_new(e->arena, &e->plan->strings, "scatter_rows"), .d = d};
    struct expr_pool *x = &g.k->exprs;
    g.p = (struct kparams){.e = e, .k = g.k};
    g.b = (struct tile_builder){.k = g.k, .arena = e->arena};
    g.n_rows = kparam(&g.p, "n_rows", d->n_rows);
    g.n_index = kparam(&g.p, "n_index", d->n_index);
    g.row_len = kparam(&g.p, "row_len", d->row_len);
    tile_params_done(g.k);
    g.out = tile_tensor(g.k, e->arena, "out", d->dtype, true, true);
    g.index = tile_tensor(g.k, e->arena, "index", DT_I64, true, false);
    g.updates = tile_tensor(g.k, e->arena, "updates", d->dtype, true, false);
    g.cap = (e->m->size[TS_UB] - MAX_INDEX * 8 - 512) / (2 * dtype_size(d->dtype)) / COL_UNIT * COL_UNIT;
    if (e->tiling && e->tiling->cols > 0 && e->tiling->cols < g.cap)
        g.cap = size_align(e->tiling->cols, COL_UNIT);
    const expr one = num(&g, 1), cap = num(&g, g.cap), cores = num(&g, e->m->n_vector);
    const expr even = expr_align(x, expr_ceildiv(x, g.row_len, cores), COL_UNIT);
    g.tile_cols = expr_max(x, num(&g, COL_UNIT), expr_min(x, even, cap));
    g.tile_rows = expr_max(x, one, expr_min(x, num(&g, MAX_INDEX), expr_floordiv(x, cap, g.tile_cols)));
    g.n_col_tiles = expr_ceildiv(x, g.row_len, g.tile_cols);
    g.k->blocks = expr_max(x, one, expr_min(x, cores, g.n_col_tiles));
    code(&g);
    return emit_launch(e, g.k, (const int32_t[]){d->out, d->index, d->updates}, g.p.bound, EXPR_INVALID, label);
}
