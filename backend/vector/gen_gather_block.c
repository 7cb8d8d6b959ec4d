/* GatherBlockQuantized: rows of a quantised table chosen by indices, dequantised. Codes, scales and zero points of a
 * row are gathered by the same index buffer (LOADX); the vector core dequantises and stores dense rows. */
#include "backend/vector/gens.h"
#include "backend/matrix/nbits.h"
#include "base/size.h"
#include "kernels/mac.h"

#include <stdio.h>

#define MAX_INDEX 256  /* indices of a tile */
#define MOST_COLS 1024 /* codes of a row at once: full bursts, and several cores for one row */

enum { IN_DATA, IN_INDEX, IN_SCALES, IN_ZEROS };

static bool refuse(const char **reason, const char *why)
{
    *reason = why;
    return false;
}

static bool table_size(struct ir_ctx *cx, const struct node *n, struct nbits *q, const char **reason)
{
    const struct type *t = node_in(n, IN_DATA)->type;
    int64_t last = 0, bytes = 1, d;
    for (int i = 1; i < t->rank; i++) {
        if (!expr_is_const(&cx->exprs, t->dims[i], &d) || !size_mul(bytes, d, &bytes))
            return refuse(reason, "a quantised table whose rows have no known length");
        last = d;
    }
    if (!expr_is_const(&cx->exprs, t->dims[0], &q->n) || q->n < 1 || bytes < 1)
        return refuse(reason, "a quantised table without a known number of rows");
    last = last * 8 / q->bits;
    q->block = q->block ? q->block : last;
    q->code_row = bytes;
    q->k = bytes * 8 / q->bits;
    q->blocks = q->k / q->block;
    return last % q->block == 0 ? true : refuse(reason, "blocks that do not divide the last axis of the table");
}

static bool read_zeros(struct ir_ctx *cx, const struct node *n, struct nbits *q, const char **reason)
{
    const struct value *z = node_in(n, IN_ZEROS);
    if (!z)
        return true;
    q->zero_kind = 1;
    q->zero_row = size_ceil_div(q->blocks * q->bits, 8);
    return z->type->dtype == DT_U8 && type_const_count(cx, z->type) == q->n * q->zero_row
               ? true
               : refuse(reason, "zero points that are not packed like the codes");
}

/* Columns, and rows that fit; false when not even one row does. */
static bool choose_tile(const struct machine *m, struct nbits_tile *t)
{
    const struct nbits *q = t->q;
    const int64_t whole = size_align(q->k, 16);
    t->cols = size_align(MOST_COLS, nbits_unit(q));
    t->cols = t->cols < whole ? t->cols : whole;
    t->rows = 1;
    const int64_t per_row = 2 * (nbits_tile_bytes(t) + t->cols * dtype_size(q->to));
    const int64_t rows = (m->size[TS_UB] - 2 * MAX_INDEX * 8 - 8 * m->align[TS_UB]) / per_row;
    t->rows = rows > MAX_INDEX ? MAX_INDEX : rows;
    return rows >= 1;
}

static bool match(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct nbits *q,
                  const char **reason)
{
    if (n->op != OP_GatherBlockQuantized)
        return false;
    const struct type *t = node_in(n, IN_DATA)->type, *i = node_in(n, IN_INDEX)->type;
    const struct type *s = node_in(n, IN_SCALES)->type;
    const int64_t axis = node_attr_int(n, "quantize_axis", 1);
    *q = (struct nbits){.to = s->dtype,
                        .scale_type = s->dtype,
                        .bits = node_attr_int(n, "bits", 4),
                        .block = node_attr_int(n, "block_size", 128)};
    q->code = k_code_of_bits((int)q->bits);
    if (m->n_vector <= 0)
        return refuse(reason, "the target has no vector cores");
    if (t->rank < 2 || t->dtype != DT_U8 || node_attr_int(n, "gather_axis", 0) != 0 ||
        (axis != t->rank - 1 && axis != -1))
        return refuse(reason, "quantised tables are gathered by rows, with packed uint8 codes along the last axis");
    if ((i->dtype != DT_I64 && i->dtype != DT_I32) || i->rank < 0 || i->layout.kind != LAYOUT_ND)
        return refuse(reason, "the DMA gathers by 32- or 64-bit indices");
    if (s->dtype != DT_F32 && s->dtype != DT_F16 && s->dtype != DT_BF16)
        return refuse(reason, "scales are f32, f16 or bf16");
    if (!table_size(cx, n, q, reason) || !read_zeros(cx, n, q, reason))
        return false;
    if (type_const_count(cx, s) != q->n * q->blocks)
        return refuse(reason, "scales that are not one per block");
    struct nbits_tile v = {.q = q};
    return choose_tile(m, &v) ? true : refuse(reason, "blocks of codes that do not fit on chip");
}

bool gen_gather_block_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    struct nbits q;
    return match(m, cx, n, &q, reason);
}

/* ---- program ---------------------------------------------------------------------------------------------- */

struct table_kernel {
    struct nbits_tile t;
    struct tile_kernel *k;
    struct expr_pool *x;
    enum dtype index_type;
    expr n_index;
    int32_t index, out;        /* tensors */
    int32_t index_buf, result; /* buffers */
};

static expr num(struct table_kernel *g, int64_t v)
{
    return expr_const(g->x, v);
}

/* Opens the loop over this core's tiles: rows of the result (t.n0, t.in) by columns (t.k0, t.ik). */
static void open_tiles(struct table_kernel *g, const struct machine *m)
{
    struct expr_pool *x = g->x;
    struct nbits_tile *t = &g->t;
    const int64_t col_tiles = size_ceil_div(t->q->k, t->cols);
    const expr one = num(g, 1), cores = num(g, m->n_vector), share = expr_ceildiv(x, g->n_index, cores);
    const expr rows = expr_max(x, one, expr_min(x, num(g, t->rows), share));
    const expr tiles = expr_mul_const(x, expr_ceildiv(x, g->n_index, rows), col_tiles);
    g->k->blocks = expr_max(x, one, expr_min(x, cores, tiles));
    const expr block = expr_sym(x, g->k->sym_block);
    const expr i = tile_loop(t->b, "i", expr_ceildiv(x, expr_sub(x, tiles, block), g->k->blocks));
    const expr at = expr_add(x, block, expr_mul(x, i, g->k->blocks));
    t->n0 = expr_mul(x, expr_floordiv(x, at, num(g, col_tiles)), rows);
    t->k0 = expr_mul_const(x, expr_mod(x, at, num(g, col_tiles)), t->cols);
    t->in = expr_min(x, rows, expr_sub(x, g->n_index, t->n0));
    t->ik = expr_min(x, num(g, t->cols), expr_sub(x, num(g, t->q->k), t->k0));
}

struct source {
    int32_t buf, tensor;
    enum dtype t;
    int64_t row, pitch; /* elements: of the tensor, in UB */
    expr first, len;
};

static void gather(struct table_kernel *g, const struct source *s)
{
    TILE(g->t.b, LOADX, s->buf, num(g, 0), num(g, s->pitch), s->tensor, s->first, num(g, s->row), num(g, g->t.q->n),
         s->t, g->index_buf, num(g, 0), g->index_type, g->t.in, s->len);
}

static void gather_rows(struct table_kernel *g)
{
    struct nbits_tile *t = &g->t;
    const struct nbits *q = t->q;
    struct expr_pool *x = g->x;
    const expr bits = num(g, q->bits), eight = num(g, 8), block = num(g, q->block);
    const expr first = expr_floordiv(x, t->k0, block), count = expr_ceildiv(x, t->ik, block);
    tile_note(t->b, "codes, scales and zero points of the rows");
    gather(g, &(struct source){t->codes, t->tensor, DT_U8, q->code_row, t->code_pitch,
                               expr_floordiv(x, expr_mul(x, t->k0, bits), eight),
                               expr_ceildiv(x, expr_mul(x, t->ik, bits), eight)});
    gather(g, &(struct source){t->scales, t->tensor + 1, q->scale_type, q->blocks, t->scale_pitch, first, count});
    if (q->zero_kind)
        gather(g, &(struct source){t->zeros, t->tensor + 2, DT_U8, q->zero_row, t->zero_pitch,
                                   expr_floordiv(x, expr_mul(x, first, bits), eight),
                                   expr_ceildiv(x, expr_mul(x, count, bits), eight)});
}

static void code(struct table_kernel *g, const struct machine *m)
{
    struct nbits_tile *t = &g->t;
    struct expr_pool *x = g->x;
    const expr z = num(g, 0), one = num(g, 1);
    tile_section_begin(t->b, TCORE_VECTOR);
    g->index_buf = tile_buf(t->b, "index", TS_UB, g->index_type, 2, MAX_INDEX * 8);
    nbits_buffers(t);
    g->result = tile_buf(t->b, "rows", TS_UB, t->q->to, 2, t->rows * t->cols * dtype_size(t->q->to));
    open_tiles(g, m);
    TILE(t->b, LOAD, g->index_buf, z, g->index, t->n0, g->index_type, one, one, one, t->in, z, z, z, one, z, z, z, one);
    gather_rows(g);
    nbits_dequant_rows(t, g->result, t->cols);
    const expr row = num(g, t->q->k), to = expr_add(x, expr_mul(x, t->n0, row), t->k0);
    TILE(t->b, STORE, g->out, to, g->result, z, t->q->to, one, one, t->in, t->ik, z, z, num(g, t->cols), one, z, z, row,
         one);
    tile_end(t->b);
}

static expr index_count(struct expr_pool *x, const struct type *t)
{
    expr n = expr_const(x, 1);
    for (int i = 0; i < t->rank; i++)
        n = expr_mul(x, n, t->dims[i]);
    return n;
}

enum npuc_status gen_gather_block_emit(struct emit *e, struct node *n)
{
    struct nbits q;
    const char *why = NULL;
    if (!match(e->m, e->cx, n, &q, &why))
        return node_error(e->cx, n, D_VERIFY, "a quantised table was placed on the NPU that it cannot gather: %s",
                          why ? why : "");
    char name[48];
    snprintf(name, sizeof name, "gather%lld_%s", (long long)q.bits, dtype_table[q.to].name);
    struct table_kernel g = {.t = {.q = &q}, .index_type = node_in(n, IN_INDEX)->type->dtype};
    struct tile_builder b;
    struct kparams params;
    g.k = emit_kernel(e, name, &b, &params);
    g.x = &g.k->exprs;
    (void)choose_tile(e->m, &g.t);
    g.n_index = kparam(&params, "n_index", index_count(&e->cx->exprs, node_in(n, IN_INDEX)->type));
    tile_params_done(g.k);
    g.index = tile_tensor(g.k, e->arena, "index", g.index_type, true, false);
    g.out = tile_tensor(g.k, e->arena, "out", q.to, false, true);
    nbits_declare(&g.t, &q, &b);
    int32_t tensors[5] = {emit_tensor(e, node_in(n, IN_INDEX)), emit_tensor(e, &n->out[0])}, count = 2;
    tensors[count++] = emit_tensor(e, node_in(n, IN_DATA));
    tensors[count++] = emit_tensor(e, node_in(n, IN_SCALES));
    if (q.zero_kind)
        tensors[count++] = emit_tensor(e, node_in(n, IN_ZEROS));
    code(&g, e->m);
    return emit_launch(e, g.k, tensors, params.bound, EXPR_INVALID, "GatherBlockQuantized");
}
