/* The tile program of a convolution on the cores of an MLU.
 *
 *   for each item of this core:                   output channels, a run of tiles of windows
 *     all their filters to WRAM, when they stay    IO-DMA, or Global-DMA to SRAM and Move-DMA from there
 *     for each tile of windows:                   of one plane
 *       for each block of K (double):             kernel positions x channels
 *         filters to WRAM, the map under the block IO-DMA
 *         for each kernel position:               elements of the windows to rows            Move-DMA
 *         accumulate; at last biased and narrowed to NRAM                                    TFU
 *       relu, factors of the channels, what else follows, turned to rows of channels         VFU
 *       store                                                                                IO-DMA
 *
 * A direct product loads x as it is, rows of channels, and turns it. */
#include "backend/matrix/mm.h"
#include "backend/mlu/conv_priv.h"
#include "base/size.h"

#include <stdio.h>

enum { D = CONV_D, H = CONV_H, W = CONV_W };
enum { BRING_SHARE = 1, BRING_MOVE = 2 };

/* Of what follows the sums: their own type, or f32 when integers are scaled. */
static enum dtype end_type(const struct conv *p)
{
    return p->scale ? DT_F32 : mm_sum(p->in);
}

static enum dtype bias_type(const struct conv *p)
{
    return p->scale ? DT_F32 : p->in;
}

static bool has_slopes(const struct conv *p)
{
    return p->slope && !p->one_slope;
}

static void declare(struct mlu_conv_code *c)
{
    const struct conv *p = c->p;
    conv_walk_declare(&c->w, &c->params);
    tile_params_done(c->k);
    c->tx = tile_tensor(c->k, c->e->arena, "X", p->in, true, false);
    c->tw = tile_tensor(c->k, c->e->arena, "W", p->in, true, false);
    c->ty = mlu_conv_seen(p) ? tile_tensor(c->k, c->e->arena, "Y", p->out, false, true) : -1;
    c->tbias = p->bias ? tile_tensor(c->k, c->e->arena, "bias", bias_type(p), true, false) : -1;
    c->tscale = mlu_conv_by_channel(p) ? tile_tensor(c->k, c->e->arena, "scale", DT_F32, true, false) : -1;
    c->tadded = p->tail.added ? tile_tensor(c->k, c->e->arena, "added", p->out, true, false) : -1;
    c->tcodes = p->tail.codes ? tile_tensor(c->k, c->e->arena, "codes", mlu_conv_codes(p), false, true) : -1;
    c->tslope = has_slopes(p) ? tile_tensor(c->k, c->e->arena, "slope", p->out, true, false) : -1;
}

static void buffers(struct mlu_conv_code *c)
{
    const struct mlu_conv_tile *t = &c->t;
    const struct conv *p = c->p;
    const int64_t es = dtype_size(p->in), os = dtype_size(p->out), map = p->direct ? t->m : t->lines;
    const bool as_it_lies = t->straight || (p->direct && p->lines);
    const enum dtype sum = mm_sum(p->in);
    c->shared =
        t->on.lanes > 1 ? tile_buf(&c->b, "w_shared", TS_L1, p->in, mlu_conv_shared(t), t->n * t->w_pitch * es) : -1;
    c->weights = tile_buf(&c->b, "w", TS_L0B, p->in, t->w_slots, t->n * t->w_pitch * es);
    c->map = as_it_lies ? -1 : tile_buf(&c->b, "x", TS_UB, p->in, t->slots, map * t->kb * es);
    c->a = tile_buf(&c->b, "windows", TS_UB, p->in, t->slots, t->m * t->pitch * es);
    const bool narrows = mlu_conv_by_channel(p) && p->out != DT_F32;
    c->acc = p->out != DT_I32 && mlu_conv_steps(p, t) > 1 ? tile_buf(&c->b, "acc", TS_UB, sum, 1, t->m * t->n * 4) : -1;
    c->made = tile_buf(&c->b, "sums", TS_UB, mlu_conv_made(p), t->sums, t->m * t->n * dtype_size(mlu_conv_made(p)));
    c->out = narrows ? tile_buf(&c->b, "out", TS_UB, p->out, t->sums, t->m * t->n * os) : c->made;
    c->turned = p->out_lines ? -1 : tile_buf(&c->b, "turned", TS_UB, p->out, t->sums, t->m * t->n * os);
    c->bias = p->bias ? tile_buf(&c->b, "bias", TS_UB, bias_type(p), t->sums, t->n * dtype_size(bias_type(p))) : -1;
    c->wide_bias =
        p->bias && bias_type(p) != end_type(p) ? tile_buf(&c->b, "wide_bias", TS_UB, sum, t->sums, t->n * 4) : c->bias;
    c->scale = mlu_conv_by_channel(p) ? tile_buf(&c->b, "scale", TS_UB, DT_F32, t->sums, t->n * 4) : -1;
    c->slope = has_slopes(p) ? tile_buf(&c->b, "slopes", TS_UB, p->out, t->sums, t->n * os) : -1;
    c->added = p->tail.added ? tile_buf(&c->b, "added", TS_UB, p->out, t->sums, t->m * t->n * os) : -1;
    c->codes = p->tail.codes ? tile_buf(&c->b, "codes", TS_UB, mlu_conv_codes(p), t->sums,
                                        t->m * t->n * dtype_size(mlu_conv_codes(p)))
                             : -1;
    c->work = p->tail.codes && p->tail.y ? tile_buf(&c->b, "work", TS_UB, p->out, 1, t->m * t->n * os) : -1;
    c->turned_codes = p->tail.codes && !p->out_lines ? tile_buf(&c->b, "turned_codes", TS_UB, mlu_conv_codes(p),
                                                                t->sums, t->m * t->n * dtype_size(mlu_conv_codes(p)))
                                                     : -1;
}

/* ---- tiles ------------------------------------------------------------------------------------------------ */

static int64_t tiles_of_channels(const struct mlu_conv_code *c)
{
    return size_ceil_div(c->p->cout, c->t.n);
}

/* The output channels of tile `right` of the filters. */
static void place_filters(struct mlu_conv_code *c, expr right)
{
    struct expr_pool *x = c->x;
    const expr nt = mlu_conv_num(c, tiles_of_channels(c));
    c->w.group = expr_floordiv(x, right, nt);
    c->n0 = expr_mul_const(x, expr_mod(x, right, nt), c->t.n);
    c->in = expr_min(x, mlu_conv_num(c, c->t.n), expr_sub(x, mlu_conv_num(c, c->p->cout), c->n0));
}

static void plan_items(struct mlu_conv_code *c)
{
    struct expr_pool *x = c->x;
    const expr rows = expr_mul(x, expr_mul(x, c->w.band.images, c->w.out[D]), conv_walk_tiles(&c->w));
    mlu_plan_items(c->e, &c->b, &c->t.on, rows, mlu_conv_num(c, c->p->group * tiles_of_channels(c)), &c->item);
}

/* Tile j of the item. A lane behind the last tile walks that one with no windows. */
static void place_windows(struct mlu_conv_code *c, expr j)
{
    struct expr_pool *x = c->x;
    const expr one = mlu_conv_num(c, 1), mt = conv_walk_tiles(&c->w),
               planes = expr_mul(x, c->w.band.images, c->w.out[D]);
    const expr rows = expr_mul(x, planes, mt), row = mlu_item_row(x, &c->item, j);
    const expr at = c->t.on.lanes > 1 ? expr_min(x, row, expr_sub(x, rows, one)) : row;
    const expr skipped = expr_mul(x, c->w.band.image, c->w.out[D]), group = c->w.group;
    const expr plane = expr_add(x, skipped, expr_floordiv(x, at, mt));
    const expr image = expr_add(x, expr_mul_const(x, expr_floordiv(x, plane, c->w.out[D]), c->p->group), group);
    const expr of_all =
        c->p->group == 1 ? plane : expr_add(x, expr_mul(x, image, c->w.out[D]), expr_mod(x, plane, c->w.out[D]));
    conv_walk_place(&c->w, of_all, expr_mod(x, at, mt));
    c->w.group = group;
    if (c->t.on.lanes > 1)
        c->w.count = expr_mul(x, c->w.count, expr_cmp(x, EXPR_LT, row, rows));
}

/* ---- loads ------------------------------------------------------------------------------------------------ */

static void load_map(struct mlu_conv_code *c)
{
    struct expr_pool *x = c->x;
    struct conv_walk *w = &c->w;
    const int64_t channels = c->p->group * c->p->cin;
    const expr z = mlu_conv_num(c, 0), one = mlu_conv_num(c, 1), line = mlu_conv_num(c, channels),
               kb = mlu_conv_num(c, c->t.kb);
    w->taps = c->t.whole ? conv_plane_taps(c->p) : c->t.taps;
    conv_walk_locate(w);
    w->taps = c->t.taps;
    const expr image = expr_floordiv(x, w->map, mlu_conv_num(c, c->p->group));
    expr at = expr_add(x, expr_mul(x, w->lo[D], w->size[H]), w->lo[H]);
    at = expr_add(x, expr_mul(x, at, w->size[W]), w->lo[W]);
    at = expr_mul_const(x, expr_add(x, expr_mul(x, image, w->in_plane), at), channels);
    at = expr_add(x, at, expr_add(x, expr_mul_const(x, w->group, c->p->cin), c->k0));
    const expr row = c->t.strips ? mlu_conv_num(c, c->t.line) : w->size[W];
    tile_note(&c->b, "map: the lines under the windows");
    TILE(&c->b, LOAD, c->map, z, c->tx, at, c->p->in, one, w->n[H], w->n[W], c->ik, z, expr_mul(x, w->size[W], line),
         line, one, z, expr_mul(x, row, kb), kb, one);
}

/* The elements of the windows at one kernel position, by IO-DMA: rows of the product as they come. */
static void load_straight(struct mlu_conv_code *c)
{
    static const char *const first[CONV_AXES] = {NULL, "unseen_h", "unseen_w"};
    static const char *const seen[CONV_AXES] = {NULL, "seen_h", "seen_w"};
    struct expr_pool *x = c->x;
    struct conv_walk *w = &c->w;
    const struct conv *p = c->p;
    const expr z = mlu_conv_num(c, 0), one = mlu_conv_num(c, 1), row = mlu_conv_num(c, c->t.pitch),
               line = mlu_conv_num(c, p->group * p->cin);
    conv_walk_see(w);
    for (int i = H; i <= W; i++) {
        w->first[i] = tile_let(&c->b, first[i], w->first[i]);
        w->seen[i] = tile_let(&c->b, seen[i], w->seen[i]);
    }
    const expr all = expr_mul(x, w->seen[H], w->seen[W]), next = expr_mul(x, w->size[W], line);
    const expr at = expr_mul(x, conv_walk_first(w), line), group = expr_mul_const(x, w->group, p->cin);
    const expr to = expr_add(x, expr_mul(x, w->first[H], w->out[W]), w->first[W]);
    tile_note(&c->b, "padding");
    TILE(&c->b, FILL, p->in, expr_mul(x, w->count, expr_cmp(x, EXPR_LT, all, w->count)), c->ik, c->a, z, row,
         tile_float_bits(0.0f));
    tile_note(&c->b, "windows from memory");
    TILE(&c->b, LOAD, c->a, expr_mul(x, to, row), c->tx, expr_add(x, at, expr_add(x, group, c->k0)), p->in, one,
         w->seen[H], w->seen[W], c->ik, z, expr_mul_const(x, next, p->stride[H]), expr_mul_const(x, line, p->stride[W]),
         one, z, expr_mul(x, w->out[W], row), row, one);
}

static void load_direct(struct mlu_conv_code *c)
{
    struct expr_pool *x = c->x;
    const struct conv_walk *w = &c->w;
    const expr z = mlu_conv_num(c, 0), one = mlu_conv_num(c, 1), pitch = mlu_conv_num(c, c->t.m),
               line = mlu_conv_num(c, c->p->group * c->p->cin);
    if (c->p->lines) {
        const expr image = expr_floordiv(x, w->map, mlu_conv_num(c, c->p->group));
        expr at = expr_mul(x, expr_add(x, expr_mul(x, image, w->in_plane), w->p0), line);
        at = expr_add(x, at, expr_add(x, expr_mul_const(x, w->group, c->p->cin), c->k0));
        tile_note(&c->b, "x: lines of channels");
        TILE(&c->b, LOAD, c->a, z, c->tx, at, c->p->in, one, one, w->count, c->ik, z, z, line, one, z, z,
             mlu_conv_num(c, c->t.pitch), one);
        return;
    }
    const expr channel = expr_add(x, expr_mul_const(x, w->map, c->p->cin), c->k0);
    tile_note(&c->b, "x: rows of channels, turned");
    TILE(&c->b, LOAD, c->map, z, c->tx, expr_add(x, expr_mul(x, channel, w->in_plane), w->p0), c->p->in, one, one,
         c->ik, w->count, z, z, w->in_plane, one, z, z, pitch, one);
    TILE(&c->b, TRANSP, c->p->in, c->ik, w->count, c->a, z, mlu_conv_num(c, c->t.pitch), c->map, z, pitch);
}

/* Kernel positions x rows of filters x channels, by strides in memory. */
struct filters {
    expr off, taps, k; /* k: elements of a row of one step */
    int64_t tap, n, step;
};

/* To WRAM, or to SRAM once for all lanes (BRING_SHARE) and on to WRAM (BRING_MOVE). */
static void bring(struct mlu_conv_code *c, const struct filters *f)
{
    const expr one = mlu_conv_num(c, 1), z = mlu_conv_num(c, 0), tap = mlu_conv_num(c, f->tap),
               n = mlu_conv_num(c, f->n), step = mlu_conv_num(c, f->step);
    const expr pitch = mlu_conv_num(c, c->t.w_pitch), all = expr_mul(c->x, f->taps, f->k);
    const enum dtype t = c->p->in;
    if (c->t.on.lanes == 1) {
        TILE(&c->b, LOAD, c->weights, z, c->tw, f->off, t, one, f->taps, c->in, f->k, z, tap, n, step, z, f->k, pitch,
             one);
        return;
    }
    if (c->bring & BRING_SHARE)
        TILE(&c->b, LOADC, c->shared, z, c->tw, f->off, t, one, f->taps, c->in, f->k, z, tap, n, step, z, f->k, pitch,
             one, c->t.on.clusters);
    if (c->bring & BRING_MOVE)
        TILE(&c->b, COPY_ROWS, c->weights, z, pitch, c->shared, z, pitch, t, c->in, all);
}

/* [group][out][position][channel], rows of a filter as they lie in WRAM. */
static void load_stored(struct mlu_conv_code *c, int64_t taps)
{
    struct expr_pool *x = c->x;
    const struct conv *p = c->p;
    const expr filter = expr_add(x, expr_mul_const(x, c->w.group, p->cout), c->n0);
    struct filters f = {
        .taps = mlu_conv_num(c, 1), .k = expr_mul_const(x, c->ik, taps), .n = mlu_conv_taps(p) * p->cin, .step = 1};
    f.off = expr_add(x, expr_mul_const(x, filter, f.n), c->k0);
    f.off = expr_add(x, f.off, expr_mul_const(x, conv_walk_tap(&c->w), p->cin));
    tile_note(&c->b, "weights: rows of filters");
    bring(c, &f);
}

/* [out][channel][position], or transposed [channel][out of the group][position], backwards. */
static void load_computed(struct mlu_conv_code *c, int64_t taps)
{
    struct expr_pool *x = c->x;
    const struct conv *p = c->p;
    const int64_t all = mlu_conv_taps(p);
    struct filters f = {.taps = mlu_conv_num(c, taps),
                        .k = c->ik,
                        .tap = p->transposed ? -1 : 1,
                        .n = p->transposed ? all : p->cin * all,
                        .step = p->transposed ? p->cout * all : all};
    const expr outs = expr_add(x, expr_mul_const(x, c->w.group, p->transposed ? 0 : p->cout), c->n0);
    const expr ins = expr_add(x, expr_mul_const(x, c->w.group, p->transposed ? p->cin : 0), c->k0);
    const expr tap = p->transposed ? expr_sub(x, mlu_conv_num(c, all - 1), conv_walk_tap(&c->w)) : conv_walk_tap(&c->w);
    f.off = expr_add(x, tap, expr_add(x, expr_mul_const(x, outs, f.n), expr_mul_const(x, ins, f.step)));
    tile_note(&c->b, "weights: gathered to rows of filters");
    bring(c, &f);
}

static void load_weights(struct mlu_conv_code *c, int64_t taps)
{
    if (c->p->constant)
        load_stored(c, taps);
    else
        load_computed(c, taps);
}

void mlu_conv_load_row(struct mlu_conv_code *c, int32_t buf, int32_t tensor, enum dtype t)
{
    struct expr_pool *x = c->x;
    const expr z = mlu_conv_num(c, 0), one = mlu_conv_num(c, 1);
    const expr first = expr_add(x, expr_mul_const(x, c->w.group, c->p->cout), c->n0);
    TILE(&c->b, LOAD, buf, z, tensor, first, t, one, one, one, c->in, z, z, z, one, z, z, z, one);
}

/* The bias of the item's channels, in the type of what follows the sums; their factors. */
static void load_bias(struct mlu_conv_code *c)
{
    const struct conv *p = c->p;
    const expr z = mlu_conv_num(c, 0), one = mlu_conv_num(c, 1);
    if (c->scale >= 0) {
        tile_note(&c->b, "factors of the channels");
        mlu_conv_load_row(c, c->scale, c->tscale, DT_F32);
    }
    if (c->slope >= 0) {
        tile_note(&c->b, "slopes of the channels");
        mlu_conv_load_row(c, c->slope, c->tslope, p->out);
    }
    if (!p->bias)
        return;
    tile_note(&c->b, "bias");
    mlu_conv_load_row(c, c->bias, c->tbias, bias_type(p));
    if (c->wide_bias != c->bias)
        TILE(&c->b, CAST, end_type(p), p->in, one, c->in, c->wide_bias, z, z, c->bias, z, z, 1, 1);
}

/* ---- steps -------------------------------------------------------------------------------------------------- */

/* Window elements of the block's kernel positions to rows. */
static void gather(struct mlu_conv_code *c)
{
    struct expr_pool *x = c->x;
    const struct conv *p = c->p;
    struct conv_walk *w = &c->w;
    const expr one = mlu_conv_num(c, 1), z = mlu_conv_num(c, 0);
    const int64_t taps_w = c->t.taps > 1 ? p->kernel[W] : 1, taps_h = c->t.taps / taps_w;
    const expr first = c->t.strips ? z : w->col0, col = c->t.strips ? w->col0 : z;
    const expr cols = expr_max(x, one, c->t.strips ? w->count : w->out[W]);
    const expr y0 = expr_sub(x, conv_walk_look(w, H, w->row0, w->kh), expr_mul_const(x, w->lo[H], p->step[H]));
    const expr x0 = expr_sub(x, conv_walk_look(w, W, col, w->kw), expr_mul_const(x, w->lo[W], p->step[W]));
    tile_note(&c->b, "windows");
    TILE(&c->b, WINDOWS, c->a, z, mlu_conv_num(c, c->t.pitch), c->map, z, mlu_conv_num(c, c->t.kb),
         c->t.strips ? mlu_conv_num(c, c->t.line) : w->size[W], p->in, w->count, c->ik, w->n[H], w->n[W], y0, x0, first,
         cols, (int32_t)taps_h, (int32_t)taps_w, (int32_t)p->dilation[H], (int32_t)p->dilation[W],
         (int32_t)p->stride[H], (int32_t)p->stride[W], (int32_t)p->step[H], (int32_t)p->step[W]);
}

/* One step of K: the first begins with zero, the last leaves the unit, biased and narrowed where no factors of the
 * channels come between. Plain sums of integers stay where they are made. */
static void multiply(struct mlu_conv_code *c, expr step, expr filters)
{
    struct expr_pool *x = c->x;
    const struct conv *p = c->p;
    const expr z = mlu_conv_num(c, 0), pitch = mlu_conv_num(c, c->t.n), line = mlu_conv_num(c, c->t.pitch),
               w_line = mlu_conv_num(c, c->t.w_pitch);
    const expr k = expr_mul_const(x, c->ik, c->t.taps), init = expr_cmp(x, EXPR_EQ, step, z);
    const expr last = expr_cmp(x, EXPR_EQ, step, mlu_conv_num(c, mlu_conv_last(p, &c->t)));
    const bool by_channel = mlu_conv_by_channel(p);
    tile_note(&c->b, "windows times filters");
    if (mlu_conv_made(p) == DT_I32)
        TILE(&c->b, MAC_ROWS, c->made, z, pitch, c->a, z, line, c->weights, filters, w_line, p->in, c->w.count, c->in,
             k, init);
    else
        TILE(&c->b, MAC_OUT, c->made, z, pitch, c->acc, z, pitch, c->a, z, line, c->weights, filters, w_line,
             by_channel ? -1 : c->wide_bias, z, p->in, mlu_conv_made(p), c->w.count, c->in, k, init, last,
             tile_float_bits(p->scale && !by_channel ? p->factor : 1));
}

static void block_body(struct mlu_conv_code *c, expr step)
{
    struct expr_pool *x = c->x;
    const expr z = mlu_conv_num(c, 0), at = expr_mul_const(x, conv_walk_tap(&c->w), c->p->cin);
    if (!c->t.on.runs)
        load_weights(c, c->t.taps);
    if (c->p->direct) {
        load_direct(c);
    } else if (c->t.straight) {
        load_straight(c);
    } else {
        if (!c->t.whole)
            load_map(c);
        gather(c);
    }
    multiply(c, step, c->t.on.runs ? expr_add(x, at, c->k0) : z);
}

/* One plane of kernel positions. */
static void plane_body(struct mlu_conv_code *c, expr kd)
{
    struct expr_pool *x = c->x;
    const int64_t blocks = conv_plane_taps(c->p) / c->t.taps;
    if (c->t.whole) {
        conv_walk_block(&c->w, expr_mul_const(x, kd, blocks));
        c->k0 = mlu_conv_num(c, 0);
        c->ik = mlu_conv_num(c, c->p->cin);
        load_map(c);
    }
    const struct mlu_turns j = mlu_open_turns(&c->b, "taps", mlu_conv_num(c, blocks));
    const struct mlu_turns l = mlu_open_turns(&c->b, "kb", mlu_conv_num(c, size_ceil_div(c->p->cin, c->t.kb)));
    conv_walk_block(&c->w, expr_add(x, expr_mul_const(x, kd, blocks), j.i));
    c->k0 = expr_mul_const(x, l.i, c->t.kb);
    c->ik = expr_min(x, mlu_conv_num(c, c->t.kb), expr_sub(x, mlu_conv_num(c, c->p->cin), c->k0));
    block_body(c, expr_add(x, kd, expr_add(x, j.i, l.i))); /* 0 first, mlu_conv_last at last */
    mlu_close_turns(&c->b, &l);
    mlu_close_turns(&c->b, &j);
}

/* All filters of the item's output channels. */
static void load_run(struct mlu_conv_code *c, int ways)
{
    c->k0 = c->w.kd = c->w.kh = c->w.kw = mlu_conv_num(c, 0);
    c->ik = mlu_conv_num(c, c->p->cin);
    c->bring = (uint8_t)ways;
    load_weights(c, mlu_conv_taps(c->p));
    c->bring = BRING_SHARE | BRING_MOVE;
}

/* Those in SRAM to WRAM, and then those of the item behind to SRAM. */
static void turn_runs(struct mlu_conv_code *c, bool last)
{
    struct expr_pool *x = c->x;
    load_run(c, BRING_MOVE);
    if (last)
        return;
    place_filters(c, c->item.next_right);
    c->in = expr_mul(x, c->in, c->item.more);
    tile_note(&c->b, "for the next item");
    load_run(c, BRING_SHARE);
    place_filters(c, c->item.right);
}

static void body(struct mlu_conv_code *c)
{
    plan_items(c);
    c->bring = BRING_SHARE | BRING_MOVE;
    if (c->t.ahead) {
        place_filters(c, c->item.right);
        load_run(c, BRING_SHARE);
    }
    const bool last = mlu_loop_items(&c->b, &c->item);
    place_filters(c, c->item.right);
    load_bias(c);
    if (c->t.ahead)
        turn_runs(c, last);
    else if (c->t.on.runs)
        load_run(c, BRING_SHARE | BRING_MOVE);
    const struct mlu_turns run = mlu_open_turns(&c->b, "windows", c->t.on.runs ? c->item.steps : mlu_conv_num(c, 1));
    place_windows(c, run.i);
    const struct mlu_turns plane = mlu_open_turns(&c->b, "plane", mlu_conv_num(c, c->p->kernel[D]));
    plane_body(c, plane.i);
    mlu_close_turns(&c->b, &plane);
    mlu_conv_finish(c);
    mlu_close_turns(&c->b, &run);
    tile_end(&c->b);
}

static expr work_of(struct emit *e, const struct conv *p)
{
    struct expr_pool *x = emit_pool(e);
    const struct type *t = p->x->type;
    struct conv part = *p;
    if (!e->band)
        return conv_macs(e, p);
    part.batch = expr_const(x, e->band->images);
    part.out_size[H] = expr_const(x, e->band->rows);
    if (p->direct)
        part.out_size[W] = t->dims[t->rank - 1];
    return conv_macs(e, &part);
}

enum npuc_status mlu_conv_emit(struct emit *e, const struct conv *p, const struct mlu_conv_tensors *t,
                               const char *label)
{
    char name[64];
    struct mlu_conv_code c = {.e = e, .p = p, .y_line = t->y_line, .codes_line = t->codes_line};
    c.t = mlu_conv_choose_tile(e, p);
    snprintf(name, sizeof name, "conv%s_%s_%lldx%lldx%lld", p->bias ? "_bias" : "", dtype_table[p->in].name,
             (long long)c.t.m, (long long)c.t.n, (long long)c.t.kb);
    c.k = emit_kernel(e, name, &c.b, &c.params);
    c.w = (struct conv_walk){.p = p, .windows = c.t.m, .taps = c.t.taps, .strips = c.t.strips};
    c.x = c.w.x = &c.k->exprs;
    declare(&c);
    tile_section_begin(&c.b, TCORE_VECTOR);
    buffers(&c);
    body(&c);
    const int32_t all[] = {t->x, t->w, t->y, t->bias, t->scale, t->added, t->codes, t->slope};
    int32_t tensors[NPUC_ARRAY_LEN(all)], n = 0; /* as declared: those that exist */
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(all); i++)
        if (all[i] >= 0)
            tensors[n++] = all[i];
    return emit_launch(e, c.k, tensors, c.params.bound, work_of(e, p), label);
}
