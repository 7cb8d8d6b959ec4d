/* A dense feature map in the order of L1: [batch*group][cin/c0][plane][c0], channels of each group filled up with zeros
 * to whole lines. Blocks of up to c0 rows of positions are turned in UB. */
#include "backend/ascend/conv.h"
#include "base/size.h"

#include <stdio.h>

#define POSITIONS 1024 /* of a block; a line of L2 holds 128 f32 */

struct pack {
    struct emit *e;
    const struct conv *p;
    struct tile_kernel *k;
    struct expr_pool *x;
    struct tile_builder b;
    struct kparams params;
    int64_t c0, c1;
    expr maps, plane;
    int32_t from, to, rows, lines;
};

static expr num(struct pack *c, int64_t v)
{
    return expr_const(c->x, v);
}

/* Block `at` of the maps: channels first.., positions p0... */
static void turn(struct pack *c, expr at)
{
    struct expr_pool *x = c->x;
    const int32_t t = (int32_t)c->p->in;
    const expr z = num(c, 0), one = num(c, 1), c0 = num(c, c->c0), pitch = num(c, POSITIONS);
    const expr blocks = expr_ceildiv(x, c->plane, pitch);
    const expr stripe = expr_floordiv(x, at, blocks), map = expr_floordiv(x, stripe, num(c, c->c1));
    const expr first = expr_mul_const(x, expr_mod(x, stripe, num(c, c->c1)), c->c0);
    const expr p0 = expr_mul_const(x, expr_mod(x, at, blocks), POSITIONS);
    const expr n = expr_min(x, pitch, expr_sub(x, c->plane, p0));
    const expr rows = expr_min(x, c0, expr_sub(x, num(c, c->p->cin), first));
    const expr channel = expr_add(x, expr_mul_const(x, map, c->p->cin), first);
    tile_note(&c->b, "channels of a line, one row each");
    if (c->p->cin % c->c0) {
        tile_if(&c->b, expr_cmp(x, EXPR_LT, rows, c0));
        TILE(&c->b, FILL, t, expr_sub(x, c0, rows), n, c->rows, expr_mul(x, rows, pitch), pitch, tile_float_bits(0));
        tile_end(&c->b);
    }
    TILE(&c->b, LOAD, c->rows, z, c->from, expr_add(x, expr_mul(x, channel, c->plane), p0), t, one, one, rows, n, z, z,
         c->plane, one, z, z, pitch, one);
    tile_note(&c->b, "turned: the channels of a position are a line");
    TILE(&c->b, TRANSP, t, c0, n, c->lines, z, c0, c->rows, z, pitch);
    const expr off = expr_mul_const(x, expr_add(x, expr_mul(x, stripe, c->plane), p0), c->c0);
    TILE(&c->b, STORE, c->to, off, c->lines, z, t, one, one, one, expr_mul_const(x, n, c->c0), z, z, z, one, z, z, z,
         one);
}

static void body(struct pack *c)
{
    struct expr_pool *x = c->x;
    const int64_t bytes = POSITIONS * c->e->m->c0_bytes;
    const expr blocks = expr_ceildiv(x, c->plane, num(c, POSITIONS));
    const expr items = expr_mul(x, expr_mul_const(x, c->maps, c->c1), blocks);
    c->k->blocks = expr_max(x, num(c, 1), expr_min(x, num(c, c->e->m->n_vector), items));
    tile_section_begin(&c->b, TCORE_VECTOR);
    c->rows = tile_buf(&c->b, "rows", TS_UB, c->p->in, 2, bytes);
    c->lines = tile_buf(&c->b, "lines", TS_UB, c->p->in, 2, bytes);
    const expr block = expr_sym(x, c->k->sym_block);
    const expr i = tile_loop(&c->b, "i", expr_ceildiv(x, expr_sub(x, items, block), c->k->blocks));
    turn(c, expr_add(x, block, expr_mul(x, i, c->k->blocks)));
    tile_end(&c->b);
}

enum npuc_status conv_pack(struct emit *e, const struct conv *p, int32_t *packed)
{
    char name[32];
    struct expr_pool *ir = &e->cx->exprs;
    expr plane = expr_const(ir, 1);
    for (int i = 0; i < CONV_AXES; i++)
        plane = expr_mul(ir, plane, p->size[i]);
    const expr maps = expr_mul_const(ir, p->batch, p->group);
    struct pack c = {.e = e, .p = p, .c0 = e->m->c0_bytes / dtype_size(p->in)};
    c.c1 = size_ceil_div(p->cin, c.c0);
    *packed =
        emit_temp(e, "packed map", p->in, 4, (const expr[]){maps, expr_const(ir, c.c1), plane, expr_const(ir, c.c0)});
    snprintf(name, sizeof name, "pack_%s", dtype_table[p->in].name);
    c.k = tile_kernel_new(e->arena, &e->plan->strings, name);
    c.x = &c.k->exprs;
    c.b = (struct tile_builder){.k = c.k, .arena = e->arena};
    c.params = (struct kparams){.e = e, .k = c.k};
    c.maps = kparam(&c.params, "maps", maps);
    c.plane = kparam(&c.params, "plane", plane);
    tile_params_done(c.k);
    c.from = tile_tensor(c.k, e->arena, "map", p->in, true, false);
    c.to = tile_tensor(c.k, e->arena, "packed", p->in, false, true);
    body(&c);
    return emit_launch(e, c.k, (const int32_t[]){emit_tensor(e, p->x), *packed}, c.params.bound, EXPR_INVALID,
                       "TransData");
}
