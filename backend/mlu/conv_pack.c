/* A dense feature map [batch][channels][positions] as lines of channels, [batch][positions][channels]: blocks of rows
 * of positions are turned in NRAM. */
#include "backend/mlu/conv.h"
#include "base/size.h"

#include <stdio.h>

#define CHANNELS  64  /* of a block */
#define POSITIONS 256 /* four blocks of four bytes take 256 KiB */

struct pack {
    struct emit *e;
    enum dtype t;
    int64_t channels;
    struct tile_kernel *k;
    struct expr_pool *x;
    struct tile_builder b;
    struct kparams params;
    expr batch, plane;
    int32_t from, to, rows, lines;
};

static expr num(struct pack *c, int64_t v)
{
    return expr_const(c->x, v);
}

/* Block `at` of all: positions p0.. of channels first... */
static void turn(struct pack *c, expr at)
{
    struct expr_pool *x = c->x;
    const expr z = num(c, 0), one = num(c, 1), all = num(c, c->channels), pitch = num(c, POSITIONS);
    const expr across = num(c, size_ceil_div(c->channels, CHANNELS)), down = expr_ceildiv(x, c->plane, pitch);
    const expr rest = expr_floordiv(x, at, across), image = expr_floordiv(x, rest, down);
    const expr first = expr_mul_const(x, expr_mod(x, at, across), CHANNELS);
    const expr p0 = expr_mul_const(x, expr_mod(x, rest, down), POSITIONS);
    const expr n = expr_min(x, pitch, expr_sub(x, c->plane, p0)),
               rows = expr_min(x, num(c, CHANNELS), expr_sub(x, all, first));
    const expr base = expr_mul(x, image, expr_mul(x, c->plane, all));
    tile_note(&c->b, "channels, one row each");
    TILE(&c->b, LOAD, c->rows, z, c->from, expr_add(x, base, expr_add(x, expr_mul(x, first, c->plane), p0)), c->t, one,
         one, rows, n, z, z, c->plane, one, z, z, pitch, one);
    tile_note(&c->b, "turned: the channels of a position are a line");
    TILE(&c->b, TRANSP, c->t, rows, n, c->lines, z, num(c, CHANNELS), c->rows, z, pitch);
    TILE(&c->b, STORE, c->to, expr_add(x, base, expr_add(x, expr_mul(x, p0, all), first)), c->lines, z, c->t, one, one,
         n, rows, z, z, num(c, CHANNELS), one, z, z, all, one);
}

static void body(struct pack *c)
{
    struct expr_pool *x = c->x;
    const int64_t bytes = (int64_t)CHANNELS * POSITIONS * dtype_size(c->t);
    const expr down = expr_ceildiv(x, c->plane, num(c, POSITIONS));
    const expr items =
        expr_mul(x, expr_mul_const(x, c->batch, size_ceil_div(c->channels, CHANNELS)), expr_max(x, num(c, 1), down));
    c->k->blocks = expr_max(x, num(c, 1), expr_min(x, num(c, c->e->m->n_vector), items));
    tile_section_begin(&c->b, TCORE_VECTOR);
    c->rows = tile_buf(&c->b, "rows", TS_UB, c->t, 2, bytes);
    c->lines = tile_buf(&c->b, "lines", TS_UB, c->t, 2, bytes);
    const expr block = expr_sym(x, c->k->sym_block);
    const expr i = tile_loop(&c->b, "i", expr_ceildiv(x, expr_sub(x, items, block), c->k->blocks));
    turn(c, expr_add(x, block, expr_mul(x, i, c->k->blocks)));
    tile_end(&c->b);
}

enum npuc_status mlu_conv_pack(struct emit *e, const struct conv *p, int32_t *packed)
{
    char name[32];
    struct expr_pool *ir = &e->cx->exprs;
    expr plane = expr_const(ir, 1);
    for (int i = 0; i < CONV_AXES; i++)
        plane = expr_mul(ir, plane, p->size[i]);
    struct pack c = {.e = e, .t = p->in, .channels = p->group * p->cin};
    *packed = emit_temp(e, "lines of channels", p->in, 3, (const expr[]){p->batch, plane, expr_const(ir, c.channels)});
    snprintf(name, sizeof name, "nhwc_%s", dtype_table[p->in].name);
    c.k = emit_kernel(e, name, &c.b, &c.params);
    c.x = &c.k->exprs;
    c.batch = kparam(&c.params, "batch", p->batch);
    c.plane = kparam(&c.params, "plane", plane);
    tile_params_done(c.k);
    c.from = tile_tensor(c.k, e->arena, "map", p->in, true, false);
    c.to = tile_tensor(c.k, e->arena, "lines", p->in, false, true);
    body(&c);
    return emit_launch(e, c.k, (const int32_t[]){emit_tensor(e, p->x), *packed}, c.params.bound, EXPR_INVALID,
                       "TransData");
}
