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
#define BEND        2  /* operations of PRelu per element */
#define MAX_LINES   (1 << 16)

static const int64_t extents_m[] = {1, 4, 8, 16, 28, 32, 49, 56, 64, 98, 112, 128, 196, 224, 256, 392, 512};
static const int64_t extents_n[] = {16, 32, 64, 128, 192, 256, 384, 512};

enum { D = CONV_D, H = CONV_H, W = CONV_W };

struct search {
    const struct machine *m;
    const struct ir_ctx *cx;
    const struct conv *p;
    const struct tiling *wish;
    bool in_turn; /* filters and windows: none of the next tile's filters while windows pass by */
    int64_t es, os, size_w, out_h, out_w; /* bytes of elements; constants, or -1 */
    double batch, planes, positions, row; /* typical: members, planes of windows, windows of a plane, of a row */
    bool near_x, near_y;                  /* the map, the result: in the SRAM of the cluster */
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
    if (t->straight)
        return t->strips || (s->out_w > 0 && t->m % s->out_w == 0);
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

int64_t mlu_conv_taps(const struct conv *p)
{
    return p->kernel[D] * conv_plane_taps(p);
}

bool mlu_conv_by_channel(const struct conv *p)
{
    return p->scale && !p->uniform;
}

bool mlu_conv_low_binds(const struct conv *p)
{
    const struct conv_tail *t = &p->tail;
    const bool positive = (t->added ? t->relu : p->relu) && t->factor > 0 && t->low <= 0;
    return !positive && t->low > -128;
}

bool mlu_conv_converts(const struct conv *p)
{
    const struct conv_tail *t = &p->tail;
    return mlu_conv_codes(p) == DT_I8 && t->low == rintf(t->low) && t->high == rintf(t->high) && t->low <= t->high &&
           t->low <= 127 && t->high >= -128;
}

/* One more than in WRAM where a tile's filters come in blocks: memory is then asked for the third while the second lies
 * there and the first is moved on. */
int32_t mlu_conv_shared(const struct mlu_conv_tile *t)
{
    return t->ahead ? 1 : t->on.runs || t->w_slots == 1 ? t->w_slots : t->w_slots + 1;
}

/* The unit's windows have two axes. Those of three are gathered by IO-DMA, position by position of the kernel: what
 * lies under one comes from memory, is multiplied and accumulated before the next comes. Stages beside each other are
 * those of different images, as the vendor's guide divides a kernel by images first: a kernel of one image has none. */
static bool is_volume(const struct conv *p)
{
    return p->kernel[D] > 1;
}

/* Are the elements under one position rows as they lie? Those below a granule of memory are better gathered in NRAM. */
static bool is_straight(const struct conv *p, int64_t es)
{
    return is_volume(p) && p->cin * es >= ROW_BYTES && p->step[D] == 1 && p->step[H] == 1 && p->step[W] == 1;
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
    const int64_t map = t->straight || (p->direct && p->lines) ? 0 : (p->direct ? t->m : t->lines) * t->kb * s->es,
                  rows = t->m * t->pitch * s->es;
    const int64_t cells = t->m * t->n, all = cells * s->os, turned = p->out_lines ? 0 : all;
    const int64_t acc = mlu_conv_steps(p, t) > 1 && p->out != DT_I32 ? cells * 4 : 0;
    const int64_t made = all + (mlu_conv_by_channel(p) && s->os < 4 ? cells * 4 : 0);
    const int64_t code = p->tail.codes ? dtype_size(mlu_conv_codes(p)) : 0,
                  codes = p->tail.codes ? cells * (2 * code * t->sums + s->os) : 0,
                  added = p->tail.added ? t->sums * all : 0;
    const int64_t rows_n = t->sums * t->n * ((p->bias ? 8 : 0) + (mlu_conv_by_channel(p) ? 4 : 0) + (p->slope ? 4 : 0)),
                  rounding = 10 * s->m->align[TS_UB];
    const int64_t weights = t->w_slots * t->n * t->w_pitch * s->es;
    return t->slots * (map + rows) + t->sums * (made + turned) + acc + codes + added + rows_n + rounding <=
               s->m->size[TS_UB] &&
           weights <= s->m->size[TS_L0B] &&
           (t->on.lanes == 1 || mlu_conv_shared(t) * (weights / t->w_slots) <= s->m->size[TS_L1]);
}

/* Channels of a block; all unless a block is one kernel position. */
static bool fit_channels(const struct search *s, struct mlu_conv_tile *t)
{
    const int64_t unit = ROW_BYTES / s->es;
    for (int64_t parts = 1;; parts *= 2) {
        t->kb = parts == 1 ? s->p->cin : size_align(size_ceil_div(s->p->cin, parts), unit);
        t->pitch = size_align(t->taps * t->kb, unit);
        t->w_pitch = t->on.runs ? size_align(mlu_conv_taps(s->p) * s->p->cin, unit) : t->pitch;
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
    return (s->near_x ? 0 : map * again_x) + filters * again_w;
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

/* A tile in cycles of each unit: filters from memory to SRAM or WRAM, from SRAM on; the rest for all blocks of K. */
struct figures {
    double shared, moved;
    double load, gather, mac, end, turn, store; /* load: the map */
    double blocks, bytes;                       /* of K; of GDRAM for the whole kernel */
    double tail;                                /* operators behind the sums */
};

static double epilogue_of(const struct search *s, double cells, struct figures *f)
{
    const struct conv *p = s->p;
    const struct mlu_rates *r = &s->r;
    const double by_channel = mlu_conv_by_channel(p) ? 1 + (p->bias != NULL) + (s->os < 4) : 0;
    const double turned = p->out_lines ? 0 : r->turn / 4 * (double)s->os * cells / r->vec;
    f->tail = p->relu + (p->slope ? BEND : 0) + (p->tail.added ? 1 + p->tail.relu : 0) + (p->tail.codes ? 2 : 0);
    return cells * (4 * by_channel + (double)s->os * f->tail) / r->vec + (by_channel + f->tail + 1) * r->fixed + turned;
}

/* Bursts per kernel position of a window: those of a row lie together where lines are dense. */
static double bursts_of(const struct conv *p, const struct mlu_conv_tile *t)
{
    const bool together = t->taps >= p->kernel[W] && t->kb == p->cin && p->dilation[W] == 1 && p->step[W] == 1;
    return together ? 1 / (double)p->kernel[W] : 1;
}

static struct figures figures_of(const struct search *s, const struct mlu_conv_tile *t, const struct mlu_spread *v,
                                 double tiles)
{
    const struct mlu_rates *r = &s->r;
    const struct conv *p = s->p;
    const double taps = (double)mlu_conv_taps(p), cin = (double)p->cin, es = (double)s->es, os = (double)s->os;
    const double cout = (double)p->cout, group = (double)p->group, n = (double)t->n;
    const double im = fmin((double)t->m, t->strips ? s->row : s->positions), in = fmin(n, cout), nt = ceil(cout / n);
    const double kb = fmin((double)t->kb, cin), k = (double)t->taps * kb, filters = in * taps * cin * es;
    struct figures f = {.blocks = taps / (double)t->taps * ceil(cin / kb)};
    const double maps = t->whole ? (double)p->kernel[D] : f.blocks;
    const double map =
        maps * (t->straight ? line_bytes(im, p->stride[W] > 1 ? 1 : fmin(im, s->row), kb, cin * group, es, false)
                : p->lines  ? line_bytes(p->direct ? im : (double)t->lines, p->direct ? im : (double)t->line, kb,
                                        cin * group, es, false)
                : p->direct ? kb * row_bytes(im * es, false)
                            : (double)t->lines * kb * es);
    f.shared = fmax(filters / t->on.lanes / r->core, t->on.clusters > 1 ? filters / r->link : 0);
    f.moved = t->on.lanes == 1 ? 0 : filters / r->move;
    f.mac = f.blocks * im * ceil(in / r->columns) * r->columns * ceil(k / r->k0) * r->k0 / r->mac;
    f.gather =
        p->direct || t->straight ? 0 : im * fmax(taps * cin * es / r->gather, bursts_of(p, t) * taps * ceil(cin / kb));
    f.load = map / (s->near_x ? r->gather : r->core);
    f.store = (p->out_lines ? line_bytes(im, im, in, cout * group, os, true) : in * row_bytes(im * os, true)) /
              (s->near_y ? r->gather : r->core);
    f.end = epilogue_of(s, im * in, &f);
    f.turn = p->direct && !p->lines ? r->turn / 4 * es * im * cin / r->vec : 0;
    f.bytes = missed(s, v, tiles * map * group, filters * nt * group, nt) +
              (s->near_y ? 0 : s->batch * s->planes * s->positions * cout * group * os);
    return f;
}

/* A tile of windows; filters take part where each comes with its own. */
static double window_cycles(const struct search *s, const struct mlu_conv_tile *t, const struct figures *f)
{
    const struct mlu_rates *r = &s->r;
    const bool each = !t->on.runs;
    const double barrier = each && t->on.lanes > 1 ? r->barrier * f->blocks : 0;
    const double load = f->load + (each ? f->shared + barrier : 0), move = f->gather + (each ? f->moved : 0),
                 vec = f->end + f->turn, waits = r->latency * (t->whole ? (double)s->p->kernel[D] : f->blocks);
    /* a slot is free again when what it brought has been used */
    const double chain = fmax((load + waits + f->gather + f->mac) / t->slots, (f->mac + f->end + f->store) / t->sums);
    const double reach = f->shared + barrier + f->blocks * r->latency + f->moved,
                 ring = each ? reach / (t->on.lanes > 1 ? mlu_conv_shared(t) : t->w_slots) : 0;
    const double most = fmax(fmax(fmax(load, f->store), fmax(f->mac, move)), vec), apart = t->sums > 1 ? 0 : f->end;
    const double serial = f->load + waits + f->store + f->mac + f->gather + vec + (each ? reach : 0);
    return (t->slots > 1 ? fmax(fmax(chain, ring), most) + apart : serial) +
           STEP_CYCLES * f->blocks * (s->p->direct ? 1 : 2);
}

/* An item whose filters stay while `steps` tiles of windows pass by, with the way of the next ones. Instructions are
 * handed out in order, as far ahead as queues have room: unless those filters are asked for first, when few are left.
 */
static double run_cycles(const struct search *s, const struct mlu_conv_tile *t, const struct figures *f, double steps,
                         double window)
{
    const struct mlu_rates *r = &s->r;
    const double entries = 5 + 2 * f->tail, lead = fmax(1, floor(r->queue / entries));
    const double reach = f->shared + r->latency + f->moved + (t->on.lanes > 1 ? r->barrier : 0), pass = steps * window;
    if (t->ahead)
        return fmax(pass + fmax(0, f->moved - window), reach);
    if (t->w_slots == 1)
        return pass + reach;
    const double units = fmax(f->shared + steps * f->load, f->moved + steps * f->gather);
    return fmax(fmax(pass, fmax(units, reach / 2)), fmax(0, steps - lead) * window + reach);
}

static double cycles_of(const struct search *s, const struct mlu_conv_tile *t)
{
    const struct mlu_rates *r = &s->r;
    const struct conv *p = s->p;
    const double nt = ceil((double)p->cout / (double)t->n), m = (double)t->m;
    const double mt = t->strips ? s->positions / s->row * ceil(s->row / m) : ceil(s->positions / m);
    const double tiles = s->batch * s->planes * mt;
    const struct mlu_spread v = mlu_spread_of(s->m, &t->on, tiles, (double)p->group * nt);
    const struct figures f = figures_of(s, t, &v, tiles);
    const double parts = t->on.runs ? 1 : f.blocks, window = window_cycles(s, t, &f);
    const double item = t->on.runs ? run_cycles(s, t, &f, v.steps, window) : window;
    /* one of the first windows' two stages is not beside anything else */
    const double fill = t->slots > 1 ? fmin(f.gather, f.mac) / f.blocks : 0;
    const double first = (f.shared + f.moved + f.load) / parts + r->latency + STEP_CYCLES + fill;
    const double last = f.store + f.end;
    return fmax(v.rounds * item + first + last, f.bytes / r->memory + first + f.store);
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

/* Do the filters of a tile come before its windows, and none ahead? Copies of the kernel on other clusters read the
 * same filters: one read of memory serves them all while they keep step, so they take them together. Alone, SRAM is in
 * two halves for filters, one in use and one that is filled: what exceeds a half comes in turn. */
static bool takes_turns(const struct search *s, bool copied)
{
    const struct conv *p = s->p;
    const double all = (double)p->group * (double)p->cout * (double)mlu_conv_taps(p) * (double)p->cin * (double)s->es;
    return copied || all > (double)s->m->size[TS_L1] / 2;
}

/* All depths of rings, ways to bring the filters, and whether they and the map stay. */
static void try_depths(struct search *s, struct mlu_conv_tile t)
{
    for (int i = 0; i < MLU_LANES; i++) {
        if (!mlu_lanes_of(s->m, i, &t.on))
            continue;
        for (int f = 0; f < 32; f++) {
            t.slots = t.sums = f & 1 ? 1 : 2;
            t.w_slots = f & 2 ? 1 : 2;
            t.on.runs = (f & 4) != 0;
            t.whole = (f & 8) != 0;
            t.ahead = (f & 16) != 0;
            if ((t.ahead && (!t.on.runs || t.on.lanes == 1)) || (s->in_turn && (t.ahead || t.w_slots > 1)))
                continue;
            const bool once = t.taps == conv_plane_taps(s->p) || s->p->direct;
            if (is_volume(s->p) && ((t.slots > 1 && s->batch < 2) || t.whole))
                continue;
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
    const int first = is_volume(p) ? 2 : 0;
    const bool straight = is_straight(p, s->es);
    if (straight && !strips && s->out_w > 0 && m > s->out_w)
        m -= m % s->out_w; /* whole rows */
    for (int i = first; i < 3; i++)
        if (i == first || taps[i] != taps[i - 1])
            try_depths(s, (struct mlu_conv_tile){.m = m,
                                                 .n = size_min(n, size_align(p->cout, 4)),
                                                 .taps = taps[i],
                                                 .strips = strips,
                                                 .straight = straight});
}

static bool allowed(int64_t extent, int64_t before, int64_t wish, double size)
{
    return wish > 0 ? extent == wish : before == 0 || (double)before < size;
}

static const struct value *result_of(const struct conv *p)
{
    return !p->scale ? p->y : p->tail.y ? p->tail.y : p->tail.codes;
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

/* In the SRAM of the cluster, as a whole or while bands of it pass through. */
static bool is_near(const struct emit *e, const struct value *v)
{
    return v && ((e->near && e->near[v->id]) || (e->band && e->band->stays[v->id]));
}

static struct search search_for(const struct emit *e, const struct conv *p, const struct tiling *w)
{
    struct search s = search_of(e->m, e->cx, p, w);
    const struct type *t = p->x->type;
    s.in_turn = takes_turns(&s, e->copies > 1);
    s.near_x = !is_volume(p) && is_near(e, p->lines ? p->lines : p->x);
    s.near_y = is_near(e, result_of(p));
    if (!e->band)
        return s;
    s.batch = (double)e->band->images;
    if (p->direct)
        s.row = size_typical(e->cx, t->dims[t->rank - 1], TYPICAL) * (double)e->band->most;
    s.positions = p->direct ? s.row : s.row * (double)e->band->most;
    return s;
}

struct mlu_conv_tile mlu_conv_choose_tile(const struct emit *e, const struct conv *p)
{
    struct search s = search_for(e, p, e->tiling);
    try_all(&s, false);
    if (s.best.m > 0 || !e->tiling)
        return s.best;
    s = search_for(e, p, NULL);
    try_all(&s, false);
    return s.best;
}
