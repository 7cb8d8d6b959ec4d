/* TransData between NCHW and NC1HWC0: [map][channel][position] and [map][channel/c0][position][c0]. Blocks of up to c0
 * rows of positions are turned in UB. */
#include "backend/vector/blocks.h"
#include "backend/vector/gens.h"
#include "base/size.h"

#include <stdio.h>

#define BLOCK_BYTES 32768 /* of rows, of lines: 1024 positions of 32 bytes; each twice */

struct pack {
    struct emit *e;
    const struct map_blocks *m;
    struct tile_kernel *k;
    struct expr_pool *x;
    struct tile_builder b;
    int64_t c0, c1, positions;
    expr maps, plane;
    int32_t from, to, rows, lines;
    /* of the block at work: channels that exist, positions; where its rows and its lines begin */
    expr n_rows, n, row_at, line_at;
};

static expr num(struct pack *c, int64_t v)
{
    return expr_const(c->x, v);
}

static void locate(struct pack *c, expr at)
{
    struct expr_pool *x = c->x;
    const expr blocks = expr_max(x, num(c, 1), expr_ceildiv(x, c->plane, num(c, c->positions)));
    const expr stripe = expr_floordiv(x, at, blocks), map = expr_floordiv(x, stripe, num(c, c->c1));
    const expr first = expr_mul_const(x, expr_mod(x, stripe, num(c, c->c1)), c->c0);
    const expr p0 = expr_mul_const(x, expr_mod(x, at, blocks), c->positions);
    const expr channel = expr_add(x, expr_mul_const(x, map, c->m->channels), first);
    c->n = expr_min(x, num(c, c->positions), expr_sub(x, c->plane, p0));
    c->n_rows = expr_min(x, num(c, c->c0), expr_sub(x, num(c, c->m->channels), first));
    c->row_at = expr_add(x, expr_mul(x, channel, c->plane), p0);
    c->line_at = expr_mul_const(x, expr_add(x, expr_mul(x, stripe, c->plane), p0), c->c0);
}

static void to_lines(struct pack *c)
{
    struct expr_pool *x = c->x;
    const int32_t t = (int32_t)c->m->dtype;
    const expr z = num(c, 0), one = num(c, 1), c0 = num(c, c->c0), pitch = num(c, c->positions);
    tile_note(&c->b, "channels of a line, one row each");
    if (c->m->channels % c->c0) {
        tile_if(&c->b, expr_cmp(x, EXPR_LT, c->n_rows, c0));
        TILE(&c->b, FILL, t, expr_sub(x, c0, c->n_rows), c->n, c->rows, expr_mul(x, c->n_rows, pitch), pitch,
             tile_float_bits(0));
        tile_end(&c->b);
    }
    TILE(&c->b, LOAD, c->rows, z, c->from, c->row_at, t, one, one, c->n_rows, c->n, z, z, c->plane, one, z, z, pitch,
         one);
    tile_note(&c->b, "turned: the channels of a position are a line");
    TILE(&c->b, TRANSP, t, c0, c->n, c->lines, z, c0, c->rows, z, pitch);
    TILE(&c->b, STORE, c->to, c->line_at, c->lines, z, t, one, one, one, expr_mul_const(x, c->n, c->c0), z, z, z, one,
         z, z, z, one);
}

static void to_rows(struct pack *c)
{
    const int32_t t = (int32_t)c->m->dtype;
    const expr z = num(c, 0), one = num(c, 1), c0 = num(c, c->c0), pitch = num(c, c->positions);
    tile_note(&c->b, "lines of channels");
    TILE(&c->b, LOAD, c->lines, z, c->from, c->line_at, t, one, one, one, expr_mul_const(c->x, c->n, c->c0), z, z, z,
         one, z, z, z, one);
    tile_note(&c->b, "turned: channels are rows of positions");
    TILE(&c->b, TRANSP, t, c->n, c0, c->rows, z, pitch, c->lines, z, c0);
    TILE(&c->b, STORE, c->to, c->row_at, c->rows, z, t, one, one, c->n_rows, c->n, z, z, pitch, one, z, z, c->plane,
         one);
}

static void body(struct pack *c)
{
    struct expr_pool *x = c->x;
    const int64_t bytes = BLOCK_BYTES;
    const expr blocks = expr_ceildiv(x, c->plane, num(c, c->positions));
    const expr items = expr_mul(x, expr_mul_const(x, c->maps, c->c1), blocks);
    c->k->blocks = expr_max(x, num(c, 1), expr_min(x, num(c, c->e->m->n_vector), items));
    tile_section_begin(&c->b, TCORE_VECTOR);
    c->rows = tile_buf(&c->b, "rows", TS_UB, c->m->dtype, 2, bytes);
    c->lines = tile_buf(&c->b, "lines", TS_UB, c->m->dtype, 2, bytes);
    const expr block = expr_sym(x, c->k->sym_block);
    const expr i = tile_loop(&c->b, "i", expr_ceildiv(x, expr_sub(x, items, block), c->k->blocks));
    locate(c, expr_add(x, block, expr_mul(x, i, c->k->blocks)));
    if (c->m->back)
        to_rows(c);
    else
        to_lines(c);
    tile_end(&c->b);
}

enum npuc_status emit_map_blocks(struct emit *e, const struct map_blocks *m, const char *label)
{
    char name[32];
    struct pack c = {.e = e, .m = m, .c0 = m->c0, .positions = BLOCK_BYTES / (m->c0 * dtype_size(m->dtype))};
    c.c1 = size_ceil_div(m->channels, c.c0);
    snprintf(name, sizeof name, "%s_%s", m->back ? "unpack" : "pack", dtype_table[m->dtype].name);
    struct kparams params;
    c.k = emit_kernel(e, name, &c.b, &params);
    c.x = &c.k->exprs;
    c.maps = kparam(&params, "maps", m->maps);
    c.plane = kparam(&params, "plane", m->plane);
    tile_params_done(c.k);
    c.from = tile_tensor(c.k, e->arena, "from", m->dtype, true, false);
    c.to = tile_tensor(c.k, e->arena, "to", m->dtype, false, true);
    body(&c);
    return emit_launch(e, c.k, (const int32_t[]){m->from, m->to}, params.bound, EXPR_INVALID, label);
}

bool gen_blocks_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    int64_t channels;
    if (n->op != OP_TransData || !node_in(n, 0) || !node_out(n, 0))
        return false;
    const struct type *from = node_in(n, 0)->type, *to = n->out[0].type;
    const bool there = from->layout.kind == LAYOUT_ND && to->layout.kind == LAYOUT_NC1HWC0,
               back = from->layout.kind == LAYOUT_NC1HWC0 && to->layout.kind == LAYOUT_ND;
    if (!there && !back)
        return false;
    const int size = dtype_size(to->dtype);
    *reason = "blocks of channels are made of elements of one, two or four bytes and a known number of channels";
    return (size == 1 || size == 2 || size == 4) && to->rank >= 3 && (there ? to : from)->layout.c0 >= 8 &&
           (there ? to : from)->layout.c0 <= 32 && expr_is_const(&cx->exprs, to->dims[1], &channels) && channels > 0 &&
           4 * BLOCK_BYTES <= m->size[TS_UB];
}

enum npuc_status gen_blocks_emit(struct emit *e, struct node *n)
{
    const struct type *t = n->out[0].type;
    struct map_blocks m = {.from = emit_tensor(e, node_in(n, 0)),
                           .to = emit_tensor(e, &n->out[0]),
                           .dtype = t->dtype,
                           .back = t->layout.kind == LAYOUT_ND,
                           .maps = t->dims[0],
                           .c0 = (t->layout.kind == LAYOUT_ND ? node_in(n, 0)->type : t)->layout.c0,
                           .plane = expr_const(emit_pool(e), 1)};
    (void)expr_is_const(emit_pool(e), t->dims[1], &m.channels);
    for (int i = 2; i < t->rank; i++)
        m.plane = expr_mul(emit_pool(e), m.plane, t->dims[i]);
    return emit_map_blocks(e, &m, "TransData");
}
