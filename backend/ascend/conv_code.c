/* The tile program of a convolution on the cube cores.
 *
 *   for each tile of this core:                   output channels, positions of one plane of windows
 *     for each block of K in L1 (double):         kernel positions x channels: weights, and the map under them   mte2
 *       for each kernel position, step of K:      weights to L0A, elements of the windows to L0B                 mte1
 *                                                 accumulate in L0C                                              cube
 *     one step of K = 1: bias times one           (the sum first, then the bias)
 *     store the tile, narrowed fixpipe
 *
 * The map is in lines of c0 channels (conv_pack.c); a block holds whole rows of it, or the part under a strip of one
 * row of windows. A direct product loads x as it is, rows of channels, and turns it on the way to L0B. */
#include "backend/ascend/conv.h"
#include "backend/ascend/matmul.h"
#include "base/half.h"
#include "base/size.h"

#include <stdio.h>
#include <string.h>

enum { D, H, W }; /* axes */

struct code {
    struct emit *e;
    const struct conv *p;
    struct conv_tile t;
    bool bias_column;
    struct tile_kernel *k;
    struct expr_pool *x;
    struct tile_builder b;
    struct kparams params;
    int64_t c0, c1; /* elements of a line, lines of the channels of a group */
    expr batch, size[CONV_AXES], out[CONV_AXES], before[CONV_AXES];
    expr in_plane, out_plane; /* elements of a channel of x, of y */
    int32_t tx, tw, tbias, ty;
    int32_t l1w, l1x, l1bias, l0a, l0b, acc;
    expr map, group, m0, im, od, p0, in; /* the tile: map = batch*group + group, position p0 of plane od */
    expr row0, rows, col0;               /* its rows of windows, the column of its first window */
    expr kd, kh, kw, k0, ik;             /* the block: first kernel position, channels k0.. */
    expr lo[CONV_AXES], n[CONV_AXES];    /* the part of x in L1: index on each axis, extents; n[D] is 0 or 1 */
};

static expr num(struct code *c, int64_t v)
{
    return expr_const(c->x, v);
}
static expr product3(struct code *c, const expr v[CONV_AXES])
{
    return expr_mul(c->x, v[0], expr_mul(c->x, v[1], v[2]));
}
static int64_t plane_taps(const struct conv *p)
{
    return p->kernel[H] * p->kernel[W];
}

/* Lines of c0 channels in a block, per position. */
static int64_t block_lines(const struct code *c)
{
    const int64_t lines = size_ceil_div(c->t.kb, c->c0);
    return lines < c->c1 ? lines : c->c1;
}

static void declare(struct code *c)
{
    static const char axis[CONV_AXES] = {'d', 'h', 'w'};
    const struct conv *p = c->p;
    char name[16];
    c->batch = kparam(&c->params, "batch", p->batch);
    for (int i = 0; i < CONV_AXES; i++) {
        const struct {
            const char *stem;
            expr ir;
            expr *to;
        } all[] = {
            {"in", p->size[i], &c->size[i]}, {"out", p->out_size[i], &c->out[i]}, {"pad", p->before[i], &c->before[i]}};
        for (int j = 0; j < 3; j++) {
            snprintf(name, sizeof name, "%s_%c", all[j].stem, axis[i]);
            *all[j].to = kparam(&c->params, name, all[j].ir);
        }
    }
    tile_params_done(c->k);
    c->in_plane = product3(c, c->size);
    c->out_plane = product3(c, c->out);
    c->tx = tile_tensor(c->k, c->e->arena, "X", p->in, true, false);
    c->tw = tile_tensor(c->k, c->e->arena, "W", p->in, true, false);
    c->ty = tile_tensor(c->k, c->e->arena, "Y", p->out, false, true);
    c->tbias = p->bias ? tile_tensor(c->k, c->e->arena, "bias", p->in, true, false) : -1;
}

static void buffers(struct code *c)
{
    const struct conv_tile *t = &c->t;
    const enum dtype in = c->p->in;
    const int64_t line = c->e->m->c0_bytes, kb1 = block_lines(c), k1 = size_ceil_div(t->k0, c->c0);
    const int64_t map = c->p->direct ? size_ceil_div(t->n, c->c0) * t->kb : kb1 * t->lines;
    c->l1w = tile_buf(&c->b, "w", TS_L1, in, t->resident ? 1 : 2, t->m * t->taps * kb1 * line);
    c->l1x = tile_buf(&c->b, "x", TS_L1, in, 2, map * line);
    c->l1bias = c->p->bias ? tile_buf(&c->b, "bias", TS_L1, in, t->resident ? 1 : 2, t->m * line) : -1;
    c->l0a = tile_buf(&c->b, "l0a", TS_L0A, in, 2, t->m * k1 * line);
    c->l0b = tile_buf(&c->b, "l0b", TS_L0B, in, 2, size_align(t->n, 16) * k1 * line);
    c->acc = tile_buf(&c->b, "acc", TS_L0C, mm_sum(c->p->in), t->acc_slots, t->m * t->n * 4);
}

/* ---- tiles ------------------------------------------------------------------------------------------------ */

static expr m_tiles(struct code *c)
{
    return num(c, size_ceil_div(c->p->cout, c->t.m));
}
/* Of one plane of windows. */
static expr n_tiles(struct code *c)
{
    struct expr_pool *x = c->x;
    if (c->t.strips)
        return expr_mul(x, c->out[H], expr_ceildiv(x, c->out[W], num(c, c->t.n)));
    return expr_ceildiv(x, expr_mul(x, c->out[H], c->out[W]), num(c, c->t.n));
}

/* Windows of the tile number `at` of a plane. */
static void place_windows(struct code *c, expr at)
{
    struct expr_pool *x = c->x;
    if (c->t.strips) {
        const expr strips = expr_ceildiv(x, c->out[W], num(c, c->t.n));
        c->row0 = expr_floordiv(x, at, strips);
        c->col0 = expr_mul_const(x, expr_mod(x, at, strips), c->t.n);
        c->p0 = expr_add(x, expr_mul(x, c->row0, c->out[W]), c->col0);
        c->in = expr_min(x, num(c, c->t.n), expr_sub(x, c->out[W], c->col0));
        c->rows = num(c, 1);
        return;
    }
    c->p0 = expr_mul_const(x, at, c->t.n);
    c->in = expr_min(x, num(c, c->t.n), expr_sub(x, expr_mul(x, c->out[H], c->out[W]), c->p0));
    c->row0 = expr_floordiv(x, c->p0, c->out[W]);
    c->col0 = expr_sub(x, c->p0, expr_mul(x, c->row0, c->out[W]));
    const expr last = expr_floordiv(x, expr_add(x, c->p0, expr_sub(x, c->in, num(c, 1))), c->out[W]);
    c->rows = expr_add(x, expr_sub(x, last, c->row0), num(c, 1));
}

/* Opens the loop over this core's tiles, output channels fastest. */
static void open_tiles(struct code *c)
{
    struct expr_pool *x = c->x;
    const expr mt = m_tiles(c), nt = n_tiles(c), maps = expr_mul_const(x, c->batch, c->p->group);
    const expr tiles = expr_mul(x, expr_mul(x, maps, c->out[D]), expr_mul(x, mt, nt));
    const expr block = expr_sym(x, c->k->sym_block);
    const expr i = tile_loop(&c->b, "i", expr_ceildiv(x, expr_sub(x, tiles, block), c->k->blocks));
    const expr t = expr_add(x, block, expr_mul(x, i, c->k->blocks)), rest = expr_floordiv(x, t, mt);
    const expr plane = expr_floordiv(x, rest, nt);
    c->m0 = expr_mul_const(x, expr_mod(x, t, mt), c->t.m);
    c->im = expr_min(x, num(c, c->t.m), expr_sub(x, num(c, c->p->cout), c->m0));
    c->map = expr_floordiv(x, plane, c->out[D]);
    c->od = expr_mod(x, plane, c->out[D]);
    c->group = expr_mod(x, c->map, num(c, c->p->group));
    place_windows(c, expr_mod(x, rest, nt));
}

static void set_blocks(struct code *c)
{
    struct expr_pool *x = c->x;
    const expr maps = expr_mul_const(x, c->batch, c->p->group);
    const expr tiles = expr_mul(x, expr_mul(x, maps, c->out[D]), expr_mul(x, m_tiles(c), n_tiles(c)));
    c->k->blocks = expr_max(x, num(c, 1), expr_min(x, num(c, c->e->m->n_cube), tiles));
}

/* ---- the block of x ----------------------------------------------------------------------------------------- */

/* Elements of x from position lo to hi of an axis, both included, positions counting in steps. */
static void part_of(struct code *c, int axis, expr lo, expr hi)
{
    struct expr_pool *x = c->x;
    const expr z = num(c, 0), step = num(c, c->p->step[axis]);
    const expr first = expr_max(x, z, expr_ceildiv(x, lo, step));
    const expr end = expr_min(x, c->size[axis], expr_add(x, expr_floordiv(x, hi, step), num(c, 1)));
    c->lo[axis] = expr_max(x, z, expr_min(x, first, c->size[axis]));
    c->n[axis] = expr_max(x, z, expr_sub(x, end, c->lo[axis]));
}

/* Position where kernel position k looks for window o. */
static expr look(struct code *c, int axis, expr o, expr k)
{
    struct expr_pool *x = c->x;
    const expr at = expr_add(x, expr_mul_const(x, o, c->p->stride[axis]), expr_mul_const(x, k, c->p->dilation[axis]));
    return expr_sub(x, at, c->before[axis]);
}

static void locate_map(struct code *c)
{
    struct expr_pool *x = c->x;
    const struct conv *p = c->p;
    const bool rows = c->t.taps == plane_taps(p), row = c->t.taps == p->kernel[W];
    const expr kh_last = rows ? num(c, p->kernel[H] - 1) : c->kh,
               kw_last = rows || row ? num(c, p->kernel[W] - 1) : c->kw;
    const expr z = look(c, D, c->od, c->kd);
    part_of(c, D, z, z);
    part_of(c, H, look(c, H, c->row0, c->kh),
            look(c, H, expr_add(x, c->row0, expr_sub(x, c->rows, num(c, 1))), kh_last));
    c->n[H] = expr_mul(x, c->n[H], c->n[D]); /* no plane: all is padding */
    if (c->t.strips) {
        const expr last = expr_add(x, c->col0, expr_sub(x, c->in, num(c, 1)));
        part_of(c, W, look(c, W, c->col0, c->kw), look(c, W, last, kw_last));
    } else {
        c->lo[W] = num(c, 0);
        c->n[W] = c->size[W];
    }
}

static void load_map(struct code *c)
{
    struct expr_pool *x = c->x;
    const expr z = num(c, 0), one = num(c, 1), row = expr_mul_const(x, c->size[W], c->c0);
    const expr k1 = expr_add(x, expr_mul_const(x, c->map, c->c1), expr_floordiv(x, c->k0, num(c, c->c0)));
    locate_map(c);
    expr at = expr_add(x, expr_mul(x, c->lo[D], c->size[H]), c->lo[H]);
    at = expr_add(x, expr_mul(x, at, c->size[W]), c->lo[W]);
    at = expr_mul_const(x, expr_add(x, expr_mul(x, k1, c->in_plane), at), c->c0);
    const expr d_row = c->t.strips ? num(c, c->t.line * c->c0) : row;
    tile_note(&c->b, "map: the lines under the windows");
    TILE(&c->b, LOAD, c->l1x, z, c->tx, at, c->p->in, one, expr_ceildiv(x, c->ik, num(c, c->c0)), c->n[H],
         expr_mul_const(x, c->n[W], c->c0), z, expr_mul_const(x, c->in_plane, c->c0), row, one, z,
         num(c, c->t.lines * c->c0), d_row, one);
}

static void load_direct(struct code *c)
{
    struct expr_pool *x = c->x;
    const expr channel = expr_add(x, expr_mul_const(x, c->map, c->p->cin), c->k0);
    tile_note(&c->b, "x: rows of channels, turned on the way to L0");
    TILE(&c->b, LOAD_NZ, c->l1x, num(c, 0), num(c, c->t.kb), c->tx,
         expr_add(x, expr_mul(x, channel, c->in_plane), c->p0), c->p->in, c->ik, c->in, c->in_plane, num(c, 1));
}

/* ---- weights ------------------------------------------------------------------------------------------------ */

static expr tap_of_block(struct code *c)
{
    struct expr_pool *x = c->x;
    const expr row = expr_add(x, expr_mul_const(x, c->kd, c->p->kernel[H]), c->kh);
    return expr_add(x, expr_mul_const(x, row, c->p->kernel[W]), c->kw);
}

static void load_stored(struct code *c)
{
    struct expr_pool *x = c->x;
    const struct conv *p = c->p;
    const int64_t taps = p->kernel[D] * plane_taps(p), m16 = size_align(p->cout, 16);
    const expr z = num(c, 0), one = num(c, 1), stripe = num(c, m16 * c->c0);
    const expr tap = expr_add(x, expr_mul_const(x, c->group, taps), tap_of_block(c));
    const expr k1 = expr_add(x, expr_mul_const(x, tap, c->c1), expr_floordiv(x, c->k0, num(c, c->c0)));
    const expr off = expr_mul_const(x, expr_add(x, expr_mul_const(x, k1, m16), c->m0), c->c0);
    const expr n = expr_mul_const(x, expr_ceildiv(x, c->ik, num(c, c->c0)), c->t.taps);
    tile_note(&c->b, "weights: stored in the order of L1");
    TILE(&c->b, LOAD, c->l1w, z, c->tw, off, p->in, one, n, one, expr_mul_const(x, c->im, c->c0), z, stripe, z, one, z,
         num(c, c->t.m * c->c0), z, one);
}

/* [out][channel][position], or transposed [channel][out of the group][position], backwards. */
static void load_computed(struct code *c)
{
    struct expr_pool *x = c->x;
    const struct conv *p = c->p;
    const int64_t taps = p->kernel[D] * plane_taps(p), kb1 = block_lines(c);
    const int64_t m_step = p->transposed ? taps : p->cin * taps, k_step = p->transposed ? p->cout * taps : taps;
    const expr outs = expr_add(x, expr_mul_const(x, c->group, p->transposed ? 0 : p->cout), c->m0);
    const expr ins = expr_add(x, expr_mul_const(x, c->group, p->transposed ? p->cin : 0), c->k0);
    tile_note(&c->b, "weights: one kernel position after the other");
    const expr t = tile_loop(&c->b, "t", num(c, c->t.taps));
    expr tap = expr_add(x, tap_of_block(c), t);
    tap = p->transposed ? expr_sub(x, num(c, taps - 1), tap) : tap;
    const expr off = expr_add(x, tap, expr_add(x, expr_mul_const(x, outs, m_step), expr_mul_const(x, ins, k_step)));
    TILE(&c->b, LOAD_NZ, c->l1w, expr_mul_const(x, t, kb1 * c->t.m * c->c0), num(c, c->t.m), c->tw, off, p->in, c->im,
         c->ik, num(c, m_step), num(c, k_step));
    tile_end(&c->b);
}

static void load_weights(struct code *c)
{
    if (c->p->constant)
        load_stored(c);
    else
        load_computed(c);
}

static void load_bias(struct code *c)
{
    struct expr_pool *x = c->x;
    const expr z = num(c, 0), one = num(c, 1);
    const expr first = expr_add(x, expr_mul_const(x, c->group, c->p->cout), c->m0);
    if (!c->p->bias)
        return;
    tile_note(&c->b, "bias: a column");
    if (c->bias_column)
        TILE(&c->b, LOAD, c->l1bias, z, c->tbias, expr_mul_const(x, first, c->c0), c->p->in, one, one, one,
             expr_mul_const(x, c->im, c->c0), z, z, z, one, z, z, z, one);
    else
        TILE(&c->b, LOAD_NZ, c->l1bias, z, num(c, c->t.m), c->tbias, first, c->p->in, c->im, one, one, one);
}

/* ---- steps -------------------------------------------------------------------------------------------------- */

/* Window elements of one kernel position, channels kl.. of the block, to L0B. */
static void gather(struct code *c, expr kh, expr kw, expr kl, expr il)
{
    struct expr_pool *x = c->x;
    const struct conv *p = c->p;
    const expr first = c->t.strips ? num(c, 0) : c->col0, col = c->t.strips ? c->col0 : num(c, 0);
    const expr cols = c->t.strips ? expr_max(x, num(c, 1), c->in) : expr_max(x, num(c, 1), c->out[W]);
    const expr y0 = expr_sub(x, look(c, H, c->row0, kh), expr_mul_const(x, c->lo[H], p->step[H]));
    const expr x0 = expr_sub(x, look(c, W, col, kw), expr_mul_const(x, c->lo[W], p->step[W]));
    const expr off = expr_mul_const(x, kl, c->t.lines);
    TILE(&c->b, IM2COL, c->l0b, c->l1x, off, num(c, c->t.lines), c->t.strips ? num(c, c->t.line) : c->size[W], p->in,
         c->in, il, c->n[H], c->n[W], y0, x0, first, cols, (int32_t)p->stride[H], (int32_t)p->stride[W],
         (int32_t)p->step[H], (int32_t)p->step[W], num(c, 0));
}

/* Steps of kernel position t of the block. `first`: 1 in the first block of the tile. */
static void steps(struct code *c, expr t, expr first)
{
    struct expr_pool *x = c->x;
    const struct conv *p = c->p;
    const expr kh = c->t.taps == plane_taps(p) ? expr_add(x, c->kh, expr_floordiv(x, t, num(c, p->kernel[W]))) : c->kh;
    const expr kw = expr_add(x, c->kw, expr_mod(x, t, num(c, p->kernel[W])));
    const expr s = tile_loop(&c->b, "k0", expr_ceildiv(x, c->ik, num(c, c->t.k0)));
    const expr kl = expr_mul_const(x, s, c->t.k0), il = expr_min(x, num(c, c->t.k0), expr_sub(x, c->ik, kl));
    const int64_t block = block_lines(c) * c->c0;
    const expr at = expr_mul_const(x, expr_add(x, expr_mul_const(x, t, block), kl), c->t.m);
    tile_note(&c->b, "one step of K: fractals to L0, accumulate");
    TILE(&c->b, COPY_L0A, c->l0a, c->l1w, at, num(c, c->t.m), p->in, c->im, il, 0);
    if (p->direct)
        TILE(&c->b, COPY_L0B, c->l0b, c->l1x, expr_mul_const(x, kl, c->c0), num(c, c->t.kb), p->in, c->in, il, 1);
    else
        gather(c, kh, kw, kl, il);
    const expr init = expr_cmp(x, EXPR_EQ, expr_add(x, first, expr_add(x, t, s)), num(c, 0));
    TILE(&c->b, MAC, c->acc, c->l0a, c->l0b, -1, p->in, c->im, c->in, il, init);
    tile_end(&c->b);
}

static int64_t one_of(enum dtype t)
{
    const float one = 1.0f;
    uint32_t bits;
    memcpy(&bits, &one, sizeof bits);
    return t == DT_F32 ? (int64_t)bits : t == DT_F16 ? half_f32_to_f16(one) : half_f32_to_bf16(one);
}

/* bias x 1: a window in padding that is one everywhere. */
static void add_bias(struct code *c)
{
    struct expr_pool *x = c->x;
    const expr z = num(c, 0), one = num(c, 1);
    if (!c->p->bias)
        return;
    tile_note(&c->b, "the bias after the sum: one more step of K, times one");
    TILE(&c->b, COPY_L0A, c->l0a, c->l1bias, z, num(c, c->t.m), c->p->in, c->im, one, 0);
    TILE(&c->b, IM2COL, c->l0b, c->l1x, z, one, one, c->p->in, c->in, one, z, z, z, z, z, expr_max(x, one, c->in), 1, 1,
         1, 1, num(c, one_of(c->p->in)));
    TILE(&c->b, MAC, c->acc, c->l0a, c->l0b, -1, c->p->in, c->im, c->in, one, z);
}

static void store(struct code *c)
{
    struct expr_pool *x = c->x;
    const expr channel = expr_add(x, expr_mul_const(x, c->map, c->p->cout), c->m0);
    expr off = expr_add(x, expr_mul(x, channel, c->out_plane), c->p0);
    off = expr_add(x, off, expr_mul(x, c->od, expr_mul(x, c->out[H], c->out[W])));
    tile_note(&c->b, c->p->relu ? "store: relu, narrowed, NZ to ND" : "store: narrowed, NZ to ND");
    TILE(&c->b, FIXP, c->ty, off, c->out_plane, c->acc, expr_align(x, c->im, 16), mm_sum(c->p->in), c->p->out, c->im,
         c->in, c->p->relu, -1, num(c, 0));
}

/* Kernel positions from the number of the block of positions. */
static void first_tap(struct code *c, expr block)
{
    struct expr_pool *x = c->x;
    const struct conv *p = c->p;
    const int64_t per_plane = plane_taps(p) / c->t.taps;
    const expr at = expr_mul_const(x, expr_mod(x, block, num(c, per_plane)), c->t.taps);
    c->kd = expr_floordiv(x, block, num(c, per_plane));
    c->kh = expr_floordiv(x, at, num(c, p->kernel[W]));
    c->kw = expr_mod(x, at, num(c, p->kernel[W]));
}

static void tile_body(struct code *c)
{
    struct expr_pool *x = c->x;
    const expr blocks = num(c, c->p->kernel[D] * plane_taps(c->p) / c->t.taps);
    const expr j = tile_loop(&c->b, "taps", blocks);
    const expr l = tile_loop(&c->b, "kb", num(c, size_ceil_div(c->p->cin, c->t.kb)));
    first_tap(c, j);
    c->k0 = expr_mul_const(x, l, c->t.kb);
    c->ik = expr_min(x, num(c, c->t.kb), expr_sub(x, num(c, c->p->cin), c->k0));
    if (!c->t.resident)
        load_weights(c);
    if (c->p->direct)
        load_direct(c);
    else
        load_map(c);
    const expr t = tile_loop(&c->b, "tap", num(c, c->t.taps));
    steps(c, t, expr_add(x, j, l));
    tile_end(&c->b);
    tile_end(&c->b);
    tile_end(&c->b);
    add_bias(c);
    store(c);
}

/* All weights are one block: loaded before the first tile. */
static void load_resident(struct code *c)
{
    c->group = c->m0 = c->k0 = c->kd = c->kh = c->kw = num(c, 0);
    c->im = num(c, c->p->cout);
    c->ik = num(c, c->p->cin);
    load_weights(c);
    load_bias(c);
}

enum npuc_status conv_emit(struct emit *e, const struct conv *p, const struct conv_tensors *t, const char *label)
{
    char name[64];
    struct code c = {.e = e, .p = p, .c0 = e->m->c0_bytes / dtype_size(p->in), .bias_column = t->bias_column};
    c.t = conv_choose_tile(e->m, e->cx, p, e->tiling);
    c.c1 = size_ceil_div(p->cin, c.c0);
    snprintf(name, sizeof name, "conv%s_%s_%lldx%lldx%lld", p->bias ? "_bias" : "", dtype_table[p->in].name,
             (long long)c.t.m, (long long)c.t.n, (long long)c.t.k0);
    c.k = tile_kernel_new(e->arena, &e->plan->strings, name);
    c.x = &c.k->exprs;
    c.b = (struct tile_builder){.k = c.k, .arena = e->arena};
    c.params = (struct kparams){.e = e, .k = c.k};
    declare(&c);
    set_blocks(&c);
    tile_section_begin(&c.b, TCORE_CUBE);
    buffers(&c);
    if (c.t.resident)
        load_resident(&c);
    open_tiles(&c);
    if (!c.t.resident)
        load_bias(&c);
    tile_body(&c);
    tile_end(&c.b);
    return emit_launch(e, c.k, (const int32_t[]){t->x, t->w, t->y, t->bias}, c.params.bound, conv_macs(e, p), label);
}
