/* The tile program of a convolution on the cube cores. As written results are rows of channels; where they are stored
 * in NC1HWC0, windows come from L0A and weights from L0B, so that rows of L0C are positions.
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
#include "backend/matrix/conv_walk.h"
#include "base/half.h"
#include "base/size.h"

#include <stdio.h>
#include <string.h>

enum { D = CONV_D, H = CONV_H, W = CONV_W };

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
    struct conv_walk w;
    int32_t tx, tw, tbias, ty;
    int32_t l1w, l1x, l1bias, l0a, l0b, acc;
    expr m0, im;                     /* output channels of the tile */
    expr k0, ik;                     /* channels of the block */
    struct conv_region_code *region; /* NULL: none */
    int32_t workspace;
    expr round, rounds; /* of this block of cores: number of the tile, tiles */
};
enum { REGION_READY, REGION_FREE };

static expr num(struct code *c, int64_t v)
{
    return expr_const(c->x, v);
}
/* Lines of c0 channels in a block, per position. */
static int64_t block_lines(const struct code *c)
{
    const int64_t lines = size_ceil_div(c->t.kb, c->c0);
    return lines < c->c1 ? lines : c->c1;
}

/* With vector operators, tensors are among those of their region. */
static bool declare_region(struct code *c, const struct conv_tensors *t)
{
    c->region = conv_region_open(c->e, c->p, t->region, &c->t, c->workspace, &c->params);
    if (!c->region)
        return false;
    c->tx = vr_declare_tensor(&c->region->f, t->x, c->p->in, false);
    c->tw = vr_declare_tensor(&c->region->f, t->w, c->p->in, false);
    c->ty = vr_declare_tensor(&c->region->f, c->workspace, DT_I32, true);
    c->tbias = -1;
    return true;
}

static bool declare(struct code *c, const struct conv_tensors *t)
{
    const struct conv *p = c->p;
    conv_walk_declare(&c->w, &c->params);
    if (t->region)
        return declare_region(c, t);
    tile_params_done(c->k);
    c->tx = tile_tensor(c->k, c->e->arena, "X", p->in, true, false);
    c->tw = tile_tensor(c->k, c->e->arena, "W", p->in, true, false);
    c->ty = tile_tensor(c->k, c->e->arena, "Y", p->out, false, true);
    c->tbias = p->bias ? tile_tensor(c->k, c->e->arena, "bias", p->in, true, false) : -1;
    return true;
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
    const int64_t filters = t->m * k1 * line, windows = size_align(t->n, 16) * k1 * line;
    c->l0a = tile_buf(&c->b, "l0a", TS_L0A, in, 2, c->p->out_lines ? windows : filters);
    c->l0b = tile_buf(&c->b, "l0b", TS_L0B, in, 2, c->p->out_lines ? filters : windows);
    c->acc = tile_buf(&c->b, "acc", TS_L0C, mm_sum(c->p->in), t->acc_slots, t->m * size_align(t->n, 16) * 4);
}

/* ---- tiles ------------------------------------------------------------------------------------------------ */

static expr m_tiles(struct code *c)
{
    return num(c, size_ceil_div(c->p->cout, c->t.m));
}
/* Opens the loop over this core's tiles, output channels fastest. */
static void open_tiles(struct code *c)
{
    struct expr_pool *x = c->x;
    const expr mt = m_tiles(c), nt = conv_walk_tiles(&c->w), maps = expr_mul_const(x, c->w.batch, c->p->group);
    const expr tiles = expr_mul(x, expr_mul(x, maps, c->w.out[D]), expr_mul(x, mt, nt));
    const expr block = expr_sym(x, c->k->sym_block);
    c->rounds = expr_ceildiv(x, expr_sub(x, tiles, block), c->k->blocks);
    const expr i = c->round = tile_loop(&c->b, "i", c->rounds);
    const expr t = expr_add(x, block, expr_mul(x, i, c->k->blocks)), rest = expr_floordiv(x, t, mt);
    const expr plane = expr_floordiv(x, rest, nt);
    c->m0 = expr_mul_const(x, expr_mod(x, t, mt), c->t.m);
    c->im = expr_min(x, num(c, c->t.m), expr_sub(x, num(c, c->p->cout), c->m0));
    conv_walk_place(&c->w, plane, expr_mod(x, rest, nt));
}

static void set_blocks(struct code *c)
{
    struct expr_pool *x = c->x;
    const expr maps = expr_mul_const(x, c->w.batch, c->p->group);
    const expr tiles = expr_mul(x, expr_mul(x, maps, c->w.out[D]), expr_mul(x, m_tiles(c), conv_walk_tiles(&c->w)));
    c->k->blocks = expr_max(x, num(c, 1), expr_min(x, num(c, c->e->m->n_cube), tiles));
}

/* ---- the block of x ----------------------------------------------------------------------------------------- */

static void load_map(struct code *c)
{
    struct expr_pool *x = c->x;
    const expr z = num(c, 0), one = num(c, 1), row = expr_mul_const(x, c->w.size[W], c->c0);
    const expr k1 = expr_add(x, expr_mul_const(x, c->w.map, c->c1), expr_floordiv(x, c->k0, num(c, c->c0)));
    conv_walk_locate(&c->w);
    expr at = expr_add(x, expr_mul(x, c->w.lo[D], c->w.size[H]), c->w.lo[H]);
    at = expr_add(x, expr_mul(x, at, c->w.size[W]), c->w.lo[W]);
    at = expr_mul_const(x, expr_add(x, expr_mul(x, k1, c->w.in_plane), at), c->c0);
    const expr d_row = c->t.strips ? num(c, c->t.line * c->c0) : row;
    tile_note(&c->b, "map: the lines under the windows");
    TILE(&c->b, LOAD, c->l1x, z, c->tx, at, c->p->in, one, expr_ceildiv(x, c->ik, num(c, c->c0)), c->w.n[H],
         expr_mul_const(x, c->w.n[W], c->c0), z, expr_mul_const(x, c->w.in_plane, c->c0), row, one, z,
         num(c, c->t.lines * c->c0), d_row, one);
}

static void load_direct(struct code *c)
{
    struct expr_pool *x = c->x;
    const expr channel = expr_add(x, expr_mul_const(x, c->w.map, c->p->cin), c->k0);
    tile_note(&c->b, "x: rows of channels, turned on the way to L0");
    TILE(&c->b, LOAD_NZ, c->l1x, num(c, 0), num(c, c->t.kb), c->tx,
         expr_add(x, expr_mul(x, channel, c->w.in_plane), c->w.p0), c->p->in, c->ik, c->w.count, c->w.in_plane,
         num(c, 1));
}

/* ---- weights ------------------------------------------------------------------------------------------------ */

static void load_stored(struct code *c)
{
    struct expr_pool *x = c->x;
    const struct conv *p = c->p;
    const int64_t taps = p->kernel[D] * conv_plane_taps(p), m16 = size_align(p->cout, 16);
    const expr z = num(c, 0), one = num(c, 1), stripe = num(c, m16 * c->c0);
    const expr tap = expr_add(x, expr_mul_const(x, c->w.group, taps), conv_walk_tap(&c->w));
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
    const int64_t taps = p->kernel[D] * conv_plane_taps(p), kb1 = block_lines(c);
    const int64_t m_step = p->transposed ? taps : p->cin * taps, k_step = p->transposed ? p->cout * taps : taps;
    const expr outs = expr_add(x, expr_mul_const(x, c->w.group, p->transposed ? 0 : p->cout), c->m0);
    const expr ins = expr_add(x, expr_mul_const(x, c->w.group, p->transposed ? p->cin : 0), c->k0);
    tile_note(&c->b, "weights: one kernel position after the other");
    const expr t = tile_loop(&c->b, "t", num(c, c->t.taps));
    expr tap = expr_add(x, conv_walk_tap(&c->w), t);
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
    const expr first = expr_add(x, expr_mul_const(x, c->w.group, c->p->cout), c->m0);
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
    const expr first = c->t.strips ? num(c, 0) : c->w.col0, col = c->t.strips ? c->w.col0 : num(c, 0);
    const expr cols = c->t.strips ? expr_max(x, num(c, 1), c->w.count) : expr_max(x, num(c, 1), c->w.out[W]);
    const expr y0 = expr_sub(x, conv_walk_look(&c->w, H, c->w.row0, kh), expr_mul_const(x, c->w.lo[H], p->step[H]));
    const expr x0 = expr_sub(x, conv_walk_look(&c->w, W, col, kw), expr_mul_const(x, c->w.lo[W], p->step[W]));
    const expr off = expr_mul_const(x, kl, c->t.lines);
    TILE(&c->b, IM2COL, c->p->out_lines ? c->l0a : c->l0b, c->l1x, off, num(c, c->t.lines),
         c->t.strips ? num(c, c->t.line) : c->w.size[W], p->in, c->w.count, il, c->w.n[H], c->w.n[W], y0, x0, first,
         cols, (int32_t)p->stride[H], (int32_t)p->stride[W], (int32_t)p->step[H], (int32_t)p->step[W], num(c, 0));
}

/* `il` channels of the filters from `at` of the block to their side of L0. */
static void copy_filters(struct code *c, int32_t from, expr at, expr il)
{
    if (c->p->out_lines)
        TILE(&c->b, COPY_L0B, c->l0b, from, at, num(c, c->t.m), c->p->in, c->im, il, 0);
    else
        TILE(&c->b, COPY_L0A, c->l0a, from, at, num(c, c->t.m), c->p->in, c->im, il, 0);
}

/* Windows of one element each, rows of channels in L1. */
static void copy_direct(struct code *c, expr kl, expr il)
{
    const expr at = expr_mul_const(c->x, kl, c->c0), pitch = num(c, c->t.kb);
    if (c->p->out_lines)
        TILE(&c->b, COPY_L0A, c->l0a, c->l1x, at, pitch, c->p->in, c->w.count, il, 1);
    else
        TILE(&c->b, COPY_L0B, c->l0b, c->l1x, at, pitch, c->p->in, c->w.count, il, 1);
}

static void multiply(struct code *c, expr k, expr init)
{
    const expr m = c->p->out_lines ? c->w.count : c->im, n = c->p->out_lines ? c->im : c->w.count;
    TILE(&c->b, MAC, c->acc, c->l0a, c->l0b, -1, c->p->in, m, n, k, init);
}

/* Steps of kernel position t of the block. `first`: 1 in the first block of the tile. */
static void steps(struct code *c, expr t, expr first)
{
    struct expr_pool *x = c->x;
    const struct conv *p = c->p;
    const expr kh =
        c->t.taps == conv_plane_taps(p) ? expr_add(x, c->w.kh, expr_floordiv(x, t, num(c, p->kernel[W]))) : c->w.kh;
    const expr kw = expr_add(x, c->w.kw, expr_mod(x, t, num(c, p->kernel[W])));
    const expr s = tile_loop(&c->b, "k0", expr_ceildiv(x, c->ik, num(c, c->t.k0)));
    const expr kl = expr_mul_const(x, s, c->t.k0), il = expr_min(x, num(c, c->t.k0), expr_sub(x, c->ik, kl));
    const int64_t block = block_lines(c) * c->c0;
    const expr at = expr_mul_const(x, expr_add(x, expr_mul_const(x, t, block), kl), c->t.m);
    tile_note(&c->b, "one step of K: fractals to L0, accumulate");
    copy_filters(c, c->l1w, at, il);
    if (p->direct)
        copy_direct(c, kl, il);
    else
        gather(c, kh, kw, kl, il);
    const expr init = expr_cmp(x, EXPR_EQ, expr_add(x, first, expr_add(x, t, s)), num(c, 0));
    multiply(c, il, init);
    tile_end(&c->b);
}

static int64_t one_of(enum dtype t)
{
    const float one = 1.0f;
    return t == DT_F32 ? (int64_t)half_float_bits(one) : t == DT_F16 ? half_f32_to_f16(one) : half_f32_to_bf16(one);
}

/* bias x 1: a window in padding that is one everywhere. */
static void add_bias(struct code *c)
{
    struct expr_pool *x = c->x;
    const expr z = num(c, 0), one = num(c, 1);
    if (!c->p->bias)
        return;
    tile_note(&c->b, "the bias after the sum: one more step of K, times one");
    copy_filters(c, c->l1bias, z, one);
    TILE(&c->b, IM2COL, c->p->out_lines ? c->l0a : c->l0b, c->l1x, z, one, one, c->p->in, c->w.count, one, z, z, z, z,
         z, expr_max(x, one, c->w.count), 1, 1, 1, 1, num(c, one_of(c->p->in)));
    multiply(c, one, z);
}

/* Positions are rows of L0C: its blocks of channels are those of NC1HWC0. */
static void store_lines(struct code *c)
{
    struct expr_pool *x = c->x;
    const int64_t c0 = c->p->y->type->layout.c0;
    const expr stripe =
        expr_add(x, expr_mul_const(x, c->w.map, size_ceil_div(c->p->cout, c0)), expr_floordiv(x, c->m0, num(c, c0)));
    expr off = expr_add(x, expr_mul(x, stripe, c->w.out_plane), c->w.p0);
    off = expr_add(x, off, expr_mul(x, c->w.od, expr_mul(x, c->w.out[H], c->w.out[W])));
    tile_note(&c->b, c->p->relu ? "store: relu, narrowed, blocks as they lie" : "store: narrowed, blocks as they lie");
    TILE(&c->b, FIXP_NZ, c->ty, expr_mul_const(x, off, c0), expr_mul_const(x, c->w.out_plane, c0), (int32_t)c0, c->acc,
         expr_align(x, c->w.count, 16), mm_sum(c->p->in), c->p->out, c->w.count, c->im, c->p->relu, -1, num(c, 0));
}

/* ---- vector operators behind it ------------------------------------------------------------------------------ */

static expr slot_of(struct code *c)
{
    struct expr_pool *x = c->x;
    const expr slots = num(c, CONV_SLOTS), block = expr_sym(x, c->k->sym_block);
    return expr_mul_const(x, expr_add(x, expr_mul(x, block, slots), expr_mod(x, c->round, slots)),
                          c->t.m * size_align(c->t.n, 16));
}

/* Windows by channels where results lie in blocks, else channels by windows. */
static void store_sums(struct code *c)
{
    struct expr_pool *x = c->x;
    const bool lines = c->p->out_lines;
    const expr rows = lines ? c->w.count : c->im, cols = lines ? c->im : c->w.count;
    tile_note(&c->b, "a free slot of the workspace");
    tile_if(&c->b, expr_cmp(x, EXPR_LE, num(c, CONV_SLOTS), c->round));
    TILE(&c->b, XWAIT, TU_FIX, REGION_FREE);
    tile_end(&c->b);
    tile_note(&c->b, "store to the workspace");
    TILE(&c->b, FIXP, c->ty, slot_of(c), num(c, c->region->pitch), c->acc, expr_align(x, rows, 16), DT_I32, DT_I32,
         rows, cols, 0, -1, num(c, 0));
    tile_note(&c->b, "the tile is there for the vector cores");
    TILE(&c->b, XSET, TU_FIX, REGION_READY);
}

static void region_body(struct code *c)
{
    struct expr_pool *x = c->x;
    struct vr_form *f = &c->region->f;
    tile_section_begin(&c->b, TCORE_VECTOR);
    f->b = c->b;
    vr_code_buffers(f);
    open_tiles(c);
    tile_note(&f->b, "the cube core has stored the tile");
    TILE(&f->b, XWAIT, TU_MTE2, REGION_READY);
    const expr group = num(c, c->p->group), windows = expr_mul(x, c->w.out[H], c->w.out[W]);
    const struct conv_region_tile t = {
        .batch = expr_floordiv(x, c->w.map, group),
        .channel = expr_add(x, expr_mul_const(x, expr_mod(x, c->w.map, group), c->p->cout), c->m0),
        .channels = c->im,
        .p0 = expr_add(x, expr_mul(x, c->w.od, windows), c->w.p0),
        .n = c->w.count,
        .slot = slot_of(c)};
    conv_region_pieces(c->region, &t);
    tile_note(&f->b, "its slot may be filled again");
    tile_if(&f->b, expr_cmp(x, EXPR_LT, expr_add(x, c->round, num(c, CONV_SLOTS)), c->rounds));
    TILE(&f->b, XSET, TU_MTE2, REGION_FREE);
    tile_end(&f->b);
    tile_end(&f->b);
}

static void store(struct code *c)
{
    struct expr_pool *x = c->x;
    if (c->region) {
        store_sums(c);
        return;
    }
    if (c->p->out_lines) {
        store_lines(c);
        return;
    }
    const expr channel = expr_add(x, expr_mul_const(x, c->w.map, c->p->cout), c->m0);
    expr off = expr_add(x, expr_mul(x, channel, c->w.out_plane), c->w.p0);
    off = expr_add(x, off, expr_mul(x, c->w.od, expr_mul(x, c->w.out[H], c->w.out[W])));
    tile_note(&c->b, c->p->relu ? "store: relu, narrowed, NZ to ND" : "store: narrowed, NZ to ND");
    TILE(&c->b, FIXP, c->ty, off, c->w.out_plane, c->acc, expr_align(x, c->im, 16), mm_sum(c->p->in), c->p->out, c->im,
         c->w.count, c->p->relu, -1, num(c, 0));
}

static void tile_body(struct code *c)
{
    struct expr_pool *x = c->x;
    const expr blocks = num(c, c->p->kernel[D] * conv_plane_taps(c->p) / c->t.taps);
    const expr j = tile_loop(&c->b, "taps", blocks);
    const expr l = tile_loop(&c->b, "kb", num(c, size_ceil_div(c->p->cin, c->t.kb)));
    conv_walk_block(&c->w, j);
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
    c->w.group = c->m0 = c->k0 = c->w.kd = c->w.kh = c->w.kw = num(c, 0);
    c->im = num(c, c->p->cout);
    c->ik = num(c, c->p->cin);
    load_weights(c);
    load_bias(c);
}

/* Slots for all blocks of cores. */
static int32_t workspace(struct code *c)
{
    struct expr_pool *x = &c->e->cx->exprs;
    const int64_t elements = c->t.m * size_align(c->t.n, 16);
    return emit_temp(
        c->e, "sums", DT_I32, 3,
        (const expr[]){expr_const(x, c->e->m->n_cube), expr_const(x, CONV_SLOTS), expr_const(x, elements)});
}

enum npuc_status conv_emit(struct emit *e, const struct conv *p, const struct conv_tensors *t, const char *label)
{
    char name[64];
    struct code c = {.e = e, .p = p, .c0 = e->m->c0_bytes / dtype_size(p->in), .bias_column = t->bias_column};
    c.t = conv_choose_tile(e->m, e->cx, p, e->tiling);
    c.c1 = size_ceil_div(p->cin, c.c0);
    snprintf(name, sizeof name, "conv%s%s_%s_%lldx%lldx%lld", p->bias ? "_bias" : "", t->region ? "_vector" : "",
             dtype_table[p->in].name, (long long)c.t.m, (long long)c.t.n, (long long)c.t.k0);
    c.w = (struct conv_walk){.p = p, .windows = c.t.n, .taps = c.t.taps, .strips = c.t.strips};
    c.k = emit_kernel(e, name, &c.b, &c.params);
    c.x = c.w.x = &c.k->exprs;
    if (t->region)
        c.workspace = workspace(&c);
    if (!declare(&c, t))
        return NPUC_E_UNSUPPORTED;
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
    if (c.region)
        region_body(&c);
    const int32_t own[] = {t->x, t->w, t->y, t->bias};
    return emit_launch(e, c.k, c.region ? c.region->f.tensors : own, c.params.bound, conv_macs(e, p), label);
}
