/* Choice of extents for a convolution: every candidate that fits is timed with the closed form of the clock (per tile
 * the slowest of IO-DMA, Move-DMA, tensor and vector unit) and multiplied by the rounds of the busiest core. Extents
 * change no bits: K is walked in one order in one chain of accumulation. */
#include "backend/matrix/conv_walk.h"
#include "backend/mlu/conv.h"
#include "base/size.h"

#include <math.h>

#define ROW_BYTES   64 /* rows of operands begin on whole rows of the tensor unit */
#define STEP_CYCLES 64 /* start-up and flags per instruction of a block: ranks candidates, measures nothing */
#define TYPICAL     64 /* windows along an axis of unknown extent */
#define MAX_LINES   (1 << 16)

static const int64_t extents_m[] = {1, 4, 8, 16, 28, 32, 49, 56, 64, 98, 112, 128, 196, 224, 256, 392, 512};
static const int64_t extents_n[] = {16, 32, 64, 128, 192, 256, 384, 512};

enum { D = CONV_D, H = CONV_H, W = CONV_W };

struct search {
    const struct machine *m;
    const struct ir_ctx *cx;
    const struct conv *p;
    const struct tiling *wish;
    int64_t es, os, size_w, out_h, out_w; /* bytes of elements; constants, or -1 */
    double batch, planes, positions, row; /* typical: members, planes of windows, windows of a plane, of a row */
    struct mlu_rates r;
    struct mlu_conv_tile best;
    double cycles;
};

/* Lines of a map of which only `most` exist (-1: unknown). */
static int64_t bounded(int64_t lines, int64_t most)
{
    return most < 0 ? lines : size_min(lines, most > 0 ? most : 1);
}

/* The part of x that a block shows, in lines; false when it is too long. */
static bool fit_map(const struct search *s, struct mlu_conv_tile *t)
{
    const struct conv *p = s->p;
    const int64_t taps_h = t->whole || t->taps > p->kernel[W] ? p->kernel[H] : 1,
                  taps_w = t->whole || t->taps > 1 ? p->kernel[W] : 1;
    if (p->direct) {
        t->strips = true;
        return true;
    }
    if (t->strips) {
        t->line = bounded(conv_under(p, W, t->m, taps_w), s->size_w);
        t->lines = t->line * conv_under(p, H, 1, taps_h);
        return t->lines <= MAX_LINES;
    }
    if (s->out_w < 1 || s->size_w < 1)
        return false;
    const int64_t windows = bounded((s->out_w - 1 + t->m - 1) / s->out_w + 1, s->out_h);
    const int64_t rows = bounded(conv_under(p, H, windows, taps_h), size_known(s->cx, p->size[H]));
    t->line = s->size_w;
    t->lines = rows * t->line;
    return rows <= MAX_LINES && t->lines <= MAX_LINES;
}

static int64_t all_taps(const struct conv *p)
{
    return p->kernel[D] * conv_plane_taps(p);
}

bool mlu_conv_by_channel(const struct conv *p)
{
    return p->scale && !p->uniform;
}

static int64_t plane_blocks(const struct conv *p, const struct mlu_conv_tile *t)
{
    return conv_plane_taps(p) / t->taps;
}

int64_t mlu_conv_steps(const struct conv *p, const struct mlu_conv_tile *t)
{
    return p->kernel[D] * plane_blocks(p, t) * size_ceil_div(p->cin, t->kb);
}

int64_t mlu_conv_last(const struct conv *p, const struct mlu_conv_tile *t)
{
    return p->kernel[D] + plane_blocks(p, t) + size_ceil_div(p->cin, t->kb) - 3;
}

static bool fits(const struct search *s, const struct mlu_conv_tile *t)
{
    const struct conv *p = s->p;
    const int64_t map = p->direct && p->lines ? 0 : (p->direct ? t->m : t->lines) * t->kb * s->es,
                  rows = t->m * t->pitch * s->es;
    const int64_t cells = t->m * t->n, all = cells * s->os, turned = p->out_lines ? 0 : all;
    const int64_t acc = mlu_conv_steps(p, t) > 1 && p->out != DT_I32 ? cells * 4 : 0;
    const int64_t made = all + (mlu_conv_by_channel(p) && s->os < 4 ? cells * 4 : 0);
    const int64_t codes = p->tail.codes ? cells * (2 * t->sums + s->os) : 0, added = p->tail.added ? t->sums * all : 0;
    const int64_t rows_n = t->sums * t->n * ((p->bias ? 8 : 0) + (mlu_conv_by_channel(p) ? 4 : 0)),
                  rounding = 10 * s->m->align[TS_UB];
    const int64_t weights = t->w_slots * t->n * t->w_pitch * s->es;
    return t->slots * (map + rows) + t->sums * (made + turned) + acc + codes + added + rows_n + rounding <=
               s->m->size[TS_UB] &&
           weights <= s->m->size[TS_L0B] && (t->on.lanes == 1 || weights <= s->m->size[TS_L1]);
}

/* Channels of a block; all unless a block is one kernel position. */
static bool fit_channels(const struct search *s, struct mlu_conv_tile *t)
{
    const int64_t unit = ROW_BYTES / s->es;
    for (int64_t parts = 1;; parts *= 2) {
        t->kb = parts == 1 ? s->p->cin : size_align(size_ceil_div(s->p->cin, parts), unit);
        t->pitch = size_align(t->taps * t->kb, unit);
        t->w_pitch = t->on.runs ? size_align(all_taps(s->p) * s->p->cin, unit) : t->pitch;
        if (fits(s, t))
            return true;
        if (t->taps > 1 || t->whole || t->kb <= unit)
            return false;
    }
}

/* Bytes of x and of the filters that come from GDRAM: x again for each tile of channels that is not walked beside
 * another one, filters for each run, unless they stay in the cache. */
static double missed(const struct search *s, const struct mlu_spread *v, double map, double filters, double nt)
{
    const double beside = fmax(1, v->beside / (double)s->p->group);
    const double again_x = map <= s->r.cache ? 1 : ceil(nt / beside);
    const double again_w = filters <= s->r.cache ? 1 : ceil(v->runs / fmin(v->units, v->runs));
    return map * again_x + filters * again_w;
}

/* What a row of bytes counts as on its way from or to memory: granules begun; a part of one is read before it is
 * written. */
static double row_bytes(double bytes, bool write)
{
    const double whole = ceil(bytes / ROW_BYTES) * ROW_BYTES;
    return whole > bytes ? whole + (write ? 1 : 0.5) * ROW_BYTES : whole;
}

/* Bytes on the way for a map of lines of `all` channels of which `some` are moved: lines one by one, or as many as lie
 * together. */
static double line_bytes(double lines, double together, double some, double all, double bytes, bool write)
{
    return some < all ? lines * row_bytes(some * bytes, write)
                      : lines / together * row_bytes(together * all * bytes, write);
}

static double cycles_of(const struct search *s, const struct mlu_conv_tile *t)
{
    const struct mlu_rates *r = &s->r;
    const struct conv *p = s->p;
    const double taps = (double)all_taps(p), cin = (double)p->cin, es = (double)s->es, group = (double)p->group;
    const double nt = ceil((double)p->cout / (double)t->n), positions = s->positions, row = s->row;
    const double mt = t->strips ? positions / row * ceil(row / (double)t->m) : ceil(positions / (double)t->m);
    const double tiles = s->batch * s->planes * mt;
    const struct mlu_spread v = mlu_spread_of(s->m, &t->on, tiles, group * nt);
    const double im = fmin((double)t->m, t->strips ? row : positions), in = fmin((double)t->n, (double)p->cout);
    const double kb = fmin((double)t->kb, cin), k = (double)t->taps * kb,
                 blocks = taps / (double)t->taps * ceil(cin / kb);
    const double maps = t->whole ? (double)p->kernel[D] : blocks;
    const double mac = blocks * im * ceil(in / r->columns) * r->columns * ceil(k / r->k0) * r->k0 / r->mac;
    const double gather = p->direct ? 0 : im * taps * cin * es / r->gather;
    const double map = maps * (p->lines    ? line_bytes(p->direct ? im : (double)t->lines,
                                                        p->direct ? im : (double)t->line, kb, cin * group, es, false)
                               : p->direct ? kb * row_bytes(im * es, false)
                                           : (double)t->lines * kb * es),
                 filters = in * taps * cin * es;
    /* to SRAM once for all lanes, then to the WRAM of each: one after the other where there is one slot of each */
    const double shared = fmax(filters / t->on.lanes / r->core, t->on.clusters > 1 ? filters / r->link : 0),
                 moved = t->on.lanes == 1 ? 0 : filters / r->move,
                 bring = t->w_slots == 1 ? shared + moved : fmax(shared, moved);
    const double each = t->on.runs ? 0 : 1;
    const double load = map / r->core + each * filters / t->on.lanes / r->core,
                 store = (p->out_lines ? line_bytes(im, im, in, (double)p->cout * group, (double)s->os, true)
                                       : in * row_bytes(im * (double)s->os, true)) /
                         r->core;
    const double by_channel = mlu_conv_by_channel(p) ? 1 + (p->bias != NULL) + (s->os < 4) : 0;
    const double tail = p->relu + (p->tail.added ? 1 + p->tail.relu : 0) + (p->tail.codes ? 2 : 0);
    const double turned = p->out_lines ? 0 : r->turn / 4 * (double)s->os * im * in / r->vec;
    const double turn_x = p->direct && !p->lines ? r->turn / 4 * es * im * cin / r->vec : 0;
    const double end = im * in * (4 * by_channel + (double)s->os * tail) / r->vec + (by_channel + tail + 1) * r->fixed +
                       turned,
                 vec = end + turn_x;
    const double steps = STEP_CYCLES * blocks * (p->direct ? 1 : 2);
    const double apart = t->sums > 1 ? 0 : end;
    /* a slot is free again when what it brought has been used */
    const double chain = fmax((load + r->latency + gather + mac) / t->slots, (mac + end + store) / t->sums);
    const double move = gather + each * moved; /* both are moves within the core */
    const double overlap = fmax(chain, fmax(fmax(load, store), fmax(fmax(mac, move), vec))) + apart;
    const double serial = load + r->latency + store + mac + gather + vec + each * bring;
    const double work = t->slots > 1 ? overlap : serial;
    /* filters that stay come the same two ways as what passes by */
    const double run = t->on.runs ? fmax(shared + v.steps * load, moved + v.steps * gather) : 0,
                 item = v.steps * (work + steps) + (t->w_slots == 1 && t->on.runs ? bring : 0);
    const double first = (bring + load) / (t->on.runs ? 1 : blocks) + STEP_CYCLES;
    const double bytes = missed(s, &v, tiles * map * group, filters * nt * group, nt) +
                         s->batch * s->planes * positions * (double)p->cout * group * (double)s->os;
    return fmax(v.rounds * fmax(item, run) + first + store + end, bytes / r->memory + first + store);
}

static void try_tile(struct search *s, struct mlu_conv_tile t)
{
    if (!fit_map(s, &t) || !fit_channels(s, &t))
        return;
    const double cycles = cycles_of(s, &t);
    if (cycles < s->cycles) {
        s->best = t;
        s->cycles = cycles;
    }
}

/* All depths of rings, ways to bring the filters, and whether they and the map stay. */
static void try_depths(struct search *s, struct mlu_conv_tile t)
{
    for (int i = 0; i < MLU_LANES; i++) {
        if (!mlu_lanes_of(s->m, i, &t.on))
            continue;
        for (int f = 0; f < 16; f++) {
            t.slots = t.sums = f & 1 ? 1 : 2;
            t.w_slots = f & 2 ? 1 : 2;
            t.on.runs = (f & 4) != 0;
            t.whole = (f & 8) != 0;
            const bool once = t.taps == conv_plane_taps(s->p) || s->p->direct;
            if ((t.w_slots == 1 && t.slots > 1 && !t.on.runs) || (t.whole && once))
                continue;
            try_tile(s, t);
        }
    }
}

static void try_blocks(struct search *s, int64_t m, int64_t n, bool strips)
{
    const struct conv *p = s->p;
    const int64_t taps[3] = {conv_plane_taps(p), p->kernel[W], 1};
    for (int i = 0; i < 3; i++)
        if (i == 0 || taps[i] != taps[i - 1])
            try_depths(s, (struct mlu_conv_tile){.m = m, .n = n, .taps = taps[i], .strips = strips});
}

static bool allowed(int64_t extent, int64_t before, int64_t wish, double size)
{
    return wish > 0 ? extent == wish : before == 0 || (double)before < size;
}

static struct search search_of(const struct machine *m, const struct ir_ctx *cx, const struct conv *p,
                               const struct tiling *w)
{
    struct search s = {.m = m,
                       .cx = cx,
                       .p = p,
                       .wish = w,
                       .es = dtype_size(p->in),
                       .os = dtype_size(p->out),
                       .size_w = size_known(cx, p->size[W]),
                       .out_h = size_known(cx, p->out_size[H]),
                       .out_w = size_known(cx, p->out_size[W]),
                       .batch = size_typical(cx, p->batch, 1),
                       .planes = size_typical(cx, p->out_size[D], TYPICAL),
                       .row = size_typical(cx, p->out_size[W], TYPICAL),
                       .r = mlu_rates_of(m, p->in),
                       .cycles = INFINITY};
    s.positions = s.row * size_typical(cx, p->out_size[H], TYPICAL);
    return s;
}

/* All candidates, or up to the first that fits. */
static void try_all(struct search *s, bool first)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(extents_m); i++)
        for (int64_t j = 0; j < NPUC_ARRAY_LEN(extents_n); j++)
            for (int strips = 0; strips < 2 && !(first && s->best.m > 0); strips++)
                if (allowed(extents_m[i], i ? extents_m[i - 1] : 0, s->wish ? s->wish->m : 0,
                            strips ? s->row : s->positions) &&
                    allowed(extents_n[j], j ? extents_n[j - 1] : 0, s->wish ? s->wish->n : 0, (double)s->p->cout))
                    try_blocks(s, extents_m[i], extents_n[j], strips);
}

bool mlu_conv_fits(const struct machine *m, const struct ir_ctx *cx, const struct conv *p)
{
    struct search s = search_of(m, cx, p, NULL);
    try_all(&s, true);
    return s.best.m > 0;
}

struct mlu_conv_tile mlu_conv_choose_tile(const struct machine *m, const struct ir_ctx *cx, const struct conv *p,
                                          const struct tiling *w)
{
    struct search s = search_of(m, cx, p, w);
    try_all(&s, false);
    if (s.best.m == 0 && w)
        return mlu_conv_choose_tile(m, cx, p, NULL);
    return s.best;
}
