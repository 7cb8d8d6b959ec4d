/* Gather generator: rows addressed by an index buffer (LOADX), for any axis: what lies before the axis is an outer
 * loop, what lies behind it is the row. */
#include "base/size.h"
#include "backend/vector/gens.h"
#include "backend/vector/rows.h"

#define MAX_INDEX 512 /* indices of a tile */
#define ROW_UNIT  32  /* elements: row pitch in UB is a multiple of it */

struct gather_kernel {
    struct tile_kernel *k;
    struct tile_builder b;
    struct kparams p;
    expr outer, n_rows, n_index, row_len;
    expr tile_rows, tile_cols, pitch, n_row_tiles, n_col_tiles, n_tiles;
    int64_t cap;
    int32_t data, index, out;
};

static void choose_tiles(struct gather_kernel *g, const struct machine *m)
{
    struct expr_pool *x = &g->k->exprs;
    expr one = expr_const(x, 1), cores = expr_const(x, m->n_vector), cap = expr_const(x, g->cap);
    g->tile_cols = expr_max(x, one, expr_min(x, g->row_len, cap));
    g->pitch = expr_max(x, expr_const(x, ROW_UNIT), expr_align(x, g->tile_cols, ROW_UNIT));
    expr lines = expr_max(x, one, expr_mul(x, g->outer, g->n_index));
    expr fit = expr_min(x, expr_const(x, MAX_INDEX), expr_floordiv(x, cap, g->pitch));
    g->tile_rows = expr_max(x, one, expr_min(x, fit, expr_ceildiv(x, lines, cores)));
    expr row_tiles = expr_ceildiv(x, g->n_index, g->tile_rows), col_tiles = expr_ceildiv(x, g->row_len, g->tile_cols);
    g->n_tiles = expr_mul(x, g->outer, expr_mul(x, row_tiles, col_tiles));
    g->n_row_tiles = expr_max(x, one, row_tiles); /* divisors, also when there is nothing to gather */
    g->n_col_tiles = expr_max(x, one, col_tiles);
    g->k->blocks = expr_max(x, one, expr_min(x, cores, g->n_tiles));
}

static void code(struct gather_kernel *g, const struct gather_rows *d)
{
    struct expr_pool *x = &g->k->exprs;
    struct tile_builder *b = &g->b;
    tile_section_begin(b, TCORE_VECTOR);
    int32_t idx = tile_buf(b, "index", TS_UB, d->index_dtype, 2, MAX_INDEX * 8);
    int32_t rows = tile_buf(b, "rows", TS_UB, d->dtype, 2, size_align(g->cap * dtype_size(d->dtype), 64));
    expr block = expr_sym(x, g->k->sym_block), one = expr_const(x, 1), zero = expr_const(x, 0);
    expr it = tile_loop(b, "i", expr_ceildiv(x, expr_sub(x, g->n_tiles, block), g->k->blocks));
    expr t = expr_add(x, block, expr_mul(x, it, g->k->blocks));
    expr ct = expr_mod(x, t, g->n_col_tiles), rest = expr_floordiv(x, t, g->n_col_tiles);
    expr rt = expr_mod(x, rest, g->n_row_tiles), o = expr_floordiv(x, rest, g->n_row_tiles);
    expr row0 = expr_mul(x, rt, g->tile_rows), col0 = expr_mul(x, ct, g->tile_cols);
    expr n_rows = expr_min(x, g->tile_rows, expr_sub(x, g->n_index, row0));
    expr n_cols = expr_min(x, g->tile_cols, expr_sub(x, g->row_len, col0));
    TILE(b, LOAD, idx, zero, g->index, row0, (int32_t)d->index_dtype, one, one, one, n_rows, zero, zero, zero, one,
         zero, zero, zero, one);
    expr from = expr_add(x, expr_mul(x, o, expr_mul(x, g->n_rows, g->row_len)), col0);
    TILE(b, LOADX, rows, zero, g->pitch, g->data, from, g->row_len, g->n_rows, (int32_t)d->dtype, idx, zero,
         (int32_t)d->index_dtype, n_rows, n_cols);
    expr to = expr_add(x, expr_mul(x, expr_add(x, expr_mul(x, o, g->n_index), row0), g->row_len), col0);
    TILE(b, STORE, g->out, to, rows, zero, (int32_t)d->dtype, one, one, n_rows, n_cols, zero, zero, g->pitch, one, zero,
         zero, g->row_len, one);
    tile_end(b);
}

enum npuc_status emit_gather_rows(struct emit *e, const struct gather_rows *d, const char *label)
{
    struct gather_kernel g = {.k = tile_kernel_new(e->arena, &e->plan->strings, "gather_rows")};
    g.p = (struct kparams){.e = e, .k = g.k};
    g.b = (struct tile_builder){.k = g.k, .arena = e->arena};
    g.outer = kparam(&g.p, "outer", d->outer);
    g.n_rows = kparam(&g.p, "n_rows", d->n_rows);
    g.n_index = kparam(&g.p, "n_index", d->n_index);
    g.row_len = kparam(&g.p, "row_len", d->row_len);
    tile_params_done(g.k);
    g.data = tile_tensor(g.k, e->arena, "data", d->dtype, true, false);
    g.index = tile_tensor(g.k, e->arena, "index", d->index_dtype, true, false);
    g.out = tile_tensor(g.k, e->arena, "out", d->dtype, false, true);
    int64_t room = e->m->size[TS_UB] - 2 * MAX_INDEX * 8 - 256;
    g.cap = room / (2 * dtype_size(d->dtype)) / 64 * 64;
    if (e->tiling && e->tiling->cols > 0 && e->tiling->cols < g.cap)
        g.cap = size_align(e->tiling->cols, 64);
    choose_tiles(&g, e->m);
    code(&g, d);
    return emit_launch(e, g.k, (const int32_t[]){d->data, d->index, d->out}, g.p.bound, EXPR_INVALID, label);
}

static expr product(struct expr_pool *x, const struct type *t, int from, int to)
{
    expr n = expr_const(x, 1);
    for (int i = from; i < to; i++)
        n = expr_mul(x, n, t->dims[i]);
    return n;
}

bool gen_gather_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    (void)m;
    (void)cx;
    if (n->op != OP_Gather)
        return false;
    const struct type *t = node_in(n, 0)->type, *i = node_in(n, 1)->type;
    *reason = "the DMA gathers dense rows of whole-byte elements by 32- or 64-bit indices";
    return (i->dtype == DT_I64 || i->dtype == DT_I32) && dtype_table[t->dtype].bits >= 8 &&
           dtype_table[t->dtype].bits <= 64 && t->layout.kind == LAYOUT_ND && i->layout.kind == LAYOUT_ND &&
           t->rank > 0;
}

enum npuc_status gen_gather_emit(struct emit *e, struct node *n)
{
    struct expr_pool *x = &e->cx->exprs;
    struct value *data = node_in(n, 0), *index = node_in(n, 1);
    int64_t axis = node_attr_int(n, "axis", 0);
    int a = (int)(axis < 0 ? axis + data->type->rank : axis);
    struct gather_rows g = {.data = emit_tensor(e, data),
                            .index = emit_tensor(e, index),
                            .out = emit_tensor(e, &n->out[0]),
                            .dtype = data->type->dtype,
                            .index_dtype = index->type->dtype,
                            .outer = product(x, data->type, 0, a),
                            .n_rows = data->type->dims[a],
                            .n_index = product(x, index->type, 0, index->type->rank),
                            .row_len = product(x, data->type, a + 1, data->type->rank)};
    return emit_gather_rows(e, &g, "Gather");
}
