/* Global pooling of maps whose channels are neighbours (NHWC, NC1HWC0). A line is the channels of one position, or a
 * block of them, and a row of the vector unit.
 *
 *   for each tile of this core: channels of a line
 *     acc = 64 rows of zeros (largest: of -inf)
 *     for every 64 positions: row i = row i + line i                        mte2, vector
 *     rows 32.. onto rows 0.., then 16.. and so on                          vector
 *     quotient, narrowed, stored as the channels of an image                vector, mte3
 *
 * Row i is lane i of the row reductions (kernels/vec.h), so results have the bits of the form for dense maps
 * (gen_pool.c). Lanes that no position reaches hold what changes nothing and are left out. */
#include "backend/vector/gens.h"
#include "backend/vector/line_tiles.h"
#include "base/size.h"
#include "kernels/vec.h"

#include <math.h>
#include <stdio.h>

enum { UNIT = 16 };      /* elements: lines begin on whole blocks of UB */
enum { MOST = 1 << 20 }; /* positions */

struct global {
    bool max;
    enum dtype t;
    struct value *x, *y;
    int64_t channels, line, stripes; /* of the map; of a line; lines of a position */
    int64_t count;                   /* positions */
    expr batch;
};

struct code {
    struct emit *e;
    const struct global *v;
    int64_t pitch; /* elements between rows */
    struct tile_kernel *k;
    struct expr_pool *x;
    struct tile_builder b;
    struct kparams params;
    int32_t tx, ty, map, wide, acc, result;
    struct line_place at;
};

static expr num(struct code *c, int64_t v)
{
    return expr_const(c->x, v);
}

static bool match(struct ir_ctx *cx, const struct node *n, struct global *v)
{
    if (n->op != OP_GlobalAveragePool && n->op != OP_GlobalMaxPool)
        return false;
    *v = (struct global){.max = n->op == OP_GlobalMaxPool, .x = node_in(n, 0), .y = node_out(n, 0)};
    const struct type *x = v->x->type, *y = v->y->type;
    const bool rows = x->layout.kind == LAYOUT_NHWC, blocks = x->layout.kind == LAYOUT_NC1HWC0;
    if ((!rows && !blocks) || y->layout.kind != LAYOUT_ND || !dtype_is_float(x->dtype) || dtype_size(x->dtype) > 4 ||
        x->rank < 3 || !expr_is_const(&cx->exprs, x->dims[1], &v->channels) || v->channels < 1)
        return false;
    v->t = x->dtype;
    v->line = blocks ? x->layout.c0 : v->channels;
    v->stripes = size_ceil_div(v->channels, v->line);
    v->batch = x->dims[0];
    v->count = 1;
    for (int i = 2; i < x->rank; i++) {
        int64_t size;
        if (!expr_is_const(&cx->exprs, x->dims[i], &size) || size < 1 || size > MOST)
            return false;
        v->count *= size;
    }
    return v->batch != EXPR_INVALID && v->count <= MOST;
}

bool gen_global_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    struct global v;
    (void)m;
    (void)reason;
    return match(cx, n, &v);
}

static struct line_map map_of(const struct global *v)
{
    return (struct line_map){v->line, v->stripes, {1, 1}, v->batch};
}

struct search {
    const struct machine *m;
    const struct ir_ctx *cx;
    const struct global *v;
};

static int64_t pitch_of(int64_t channels)
{
    return size_align(channels, UNIT);
}

/* Of 64 positions: their lines, lines of f32 and sums; the result. */
static bool fits(const struct machine *m, const struct global *v, int64_t pitch)
{
    const int64_t es = dtype_size(v->t), wide = es < 4 ? 4 : 0;
    return pitch * (K_LANES * (2 * es + wide + 4) + 2 * es) + 16 * 512 <= m->size[TS_UB];
}

static double cycles_of(const void *user, const struct line_tile *t)
{
    const struct search *s = user;
    const struct target *g = s->m->target;
    const struct line_map map = map_of(s->v);
    const double lanes = K_LANES, bytes = target_num(g, TK_VEC_BYTES);
    const double row = ceil((double)t->channels * 4 / bytes), es = dtype_size(s->v->t);
    if (!fits(s->m, s->v, pitch_of(t->channels)))
        return (double)INFINITY;
    const double load = lanes * ceil((double)t->channels * es / target_num(g, TK_MTE2_COLD_RATE));
    const double vec = lanes * row * (es < 4 ? 4 : 2) + 10 * target_num(g, TK_VEC_FIXED);
    return ceil(line_tiles(s->cx, &map, t) / s->m->n_vector) * (load + vec);
}

static int64_t choose(const struct machine *m, const struct ir_ctx *cx, const struct global *v, const struct tiling *w)
{
    static const int64_t one[] = {1};
    const struct search s = {m, cx, v};
    const struct line_map map = map_of(v);
    return line_tile_choose(&map, one, 1, w, cycles_of, &s).channels;
}

/* ---- the program -------------------------------------------------------------------------------------------- */

static int32_t buffer(struct code *c, const char *name, enum dtype t, int32_t slots, int64_t rows)
{
    const int64_t bytes = rows * c->pitch * dtype_size(t);
    return tile_buf(&c->b, name, TS_UB, t, slots, size_align(bytes, c->e->m->align[TS_UB]));
}

/* The first `rows` rows of acc: fn of them and of those of `with` from `from` on. */
static void combine(struct code *c, expr rows, int32_t with, expr from)
{
    const expr z = num(c, 0), pitch = num(c, c->pitch);
    TILE(&c->b, VEC, c->v->max ? K_FN_Max : K_FN_Add, DT_F32, rows, c->at.nc, c->acc, z, pitch, c->acc, z, pitch, 1,
         with, from, pitch, 1, -1, 0, z, 0, 0, 0, 0);
}

/* Up to 64 positions from `first` on. */
static void take_lines(struct code *c, expr first)
{
    struct expr_pool *x = c->x;
    const struct global *v = c->v;
    const expr z = num(c, 0), one = num(c, 1), line = num(c, v->line), pitch = num(c, c->pitch),
               positions = num(c, v->count);
    const expr n = expr_min(x, num(c, K_LANES), expr_sub(x, positions, first));
    const expr at = expr_add(x, expr_mul(x, c->at.stripe, positions), first);
    tile_note(&c->b, "lines of up to 64 positions");
    TILE(&c->b, LOAD, c->map, z, c->tx, expr_add(x, expr_mul(x, at, line), c->at.c0), v->t, one, one, n, c->at.nc, z, z,
         line, one, z, z, pitch, one);
    if (c->wide != c->map)
        TILE(&c->b, CAST, DT_F32, v->t, n, c->at.nc, c->wide, z, pitch, c->map, z, pitch, 1, 1);
    combine(c, n, c->wide, z);
}

static void finish(struct code *c)
{
    struct expr_pool *x = c->x;
    const struct global *v = c->v;
    const expr z = num(c, 0), one = num(c, 1), pitch = num(c, c->pitch);
    const int64_t lanes = size_min(v->count, K_LANES);
    tile_note(&c->b, "64 rows become one");
    for (int64_t half = K_LANES / 2; half > 0; half /= 2)
        if (lanes > half)
            combine(c, num(c, size_min(half, lanes - half)), c->acc, num(c, half * c->pitch));
    if (!v->max)
        TILE(&c->b, VEC, K_FN_Div, DT_F32, one, c->at.nc, c->acc, z, pitch, c->acc, z, pitch, 1, -1,
             tile_float_bits((float)v->count), z, 0, -1, 0, z, 0, 0, 0, 0);
    if (c->result != c->acc)
        TILE(&c->b, CAST, v->t, DT_F32, one, c->at.nc, c->result, z, pitch, c->acc, z, pitch, 1, 1);
    const expr stripes = num(c, v->stripes), image = expr_floordiv(x, c->at.stripe, stripes);
    const expr channel = expr_add(x, expr_mul_const(x, expr_mod(x, c->at.stripe, stripes), v->line), c->at.c0);
    const expr n = expr_min(x, c->at.nc, expr_sub(x, num(c, v->channels), channel));
    TILE(&c->b, STORE, c->ty, expr_add(x, expr_mul_const(x, image, v->channels), channel), c->result, z, v->t, one, one,
         one, n, z, z, z, one, z, z, z, one);
}

static void body(struct code *c)
{
    struct expr_pool *x = c->x;
    const expr z = num(c, 0), one = num(c, 1);
    TILE(&c->b, FILL, DT_F32, one, num(c, K_LANES * c->pitch), c->acc, z, z,
         tile_float_bits(c->v->max ? -INFINITY : 0.0f));
    const int64_t chunks = size_ceil_div(c->v->count, K_LANES);
    const expr i = chunks > 1 ? tile_loop(&c->b, "positions", num(c, chunks)) : z;
    take_lines(c, expr_mul_const(x, i, K_LANES));
    if (chunks > 1)
        tile_end(&c->b);
    finish(c);
}

enum npuc_status gen_global_emit(struct emit *e, struct node *n)
{
    struct global v;
    char name[64];
    if (!match(e->cx, n, &v))
        return node_error(e->cx, n, D_VERIFY, "pooling over lines was placed that the vector unit cannot do");
    struct code c = {.e = e, .v = &v};
    int64_t channels = choose(e->m, e->cx, &v, e->tiling);
    channels = channels > 0 ? channels : choose(e->m, e->cx, &v, NULL);
    c.pitch = pitch_of(channels);
    snprintf(name, sizeof name, "global_%s_%s_%lld", v.max ? "max" : "mean", dtype_table[v.t].name,
             (long long)channels);
    c.k = emit_kernel(e, name, &c.b, &c.params);
    c.x = &c.k->exprs;
    const expr batch = kparam(&c.params, "batch", v.batch);
    tile_params_done(c.k);
    c.tx = tile_tensor(c.k, e->arena, "x", v.t, true, false);
    c.ty = tile_tensor(c.k, e->arena, "y", v.t, false, true);
    tile_section_begin(&c.b, TCORE_VECTOR);
    c.map = buffer(&c, "lines", v.t, 2, K_LANES);
    c.wide = v.t == DT_F32 ? c.map : buffer(&c, "lines f32", DT_F32, 1, K_LANES);
    c.acc = buffer(&c, "acc", DT_F32, 1, K_LANES);
    c.result = v.t == DT_F32 ? c.acc : buffer(&c, "result", v.t, 2, 1);
    const struct line_map map = map_of(&v);
    const struct kband all = kband_all(c.x, batch, expr_const(c.x, 1));
    c.at = line_tiles_open(e->m, &c.b, &map, &(struct line_tile){channels, {1, 1}}, &all);
    body(&c);
    tile_end(&c.b);
    const int32_t tensors[] = {emit_tensor(e, v.x), emit_tensor(e, v.y)};
    return emit_launch(e, c.k, tensors, c.params.bound, EXPR_INVALID, op_table[n->op]->name);
}
