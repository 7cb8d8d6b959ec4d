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
    double core, memory, mac, mac_k0;     /* B/cycle of a core, of all; MAC/cycle, quantum of K */
    struct mlu_conv_tile best;
    double cycles;
};

static int64_t constant(const struct ir_ctx *cx, expr e)
{
    int64_t v;
    return expr_is_const(&cx->exprs, e, &v) ? v : -1;
}

static double typical(const struct ir_ctx *cx, expr e, double otherwise)
{
    const struct expr_range r = expr_range_of(&cx->exprs, e);
    const double v = r.max == INT64_MAX ? otherwise : fmin(otherwise, (double)r.max);
    return fmax(v, r.min == INT64_MIN ? 1 : fmax(1, (double)r.min));
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Elements of x under `windows` windows and `taps` kernel positions of an axis. */
static int64_t under(const struct conv *p, int axis, int64_t windows, int64_t taps)
{
    return ((windows - 1) * p->stride[axis] + (taps - 1) * p->dilation[axis]) / p->step[axis] + 1;
}

/* Lines of a map of which only `most` exist (-1: unknown). */
static int64_t bounded(int64_t lines, int64_t most)
{
    return most < 0 ? lines : least(lines, most > 0 ? most : 1);
}

/* The part of x that a block shows, in lines; false when it is too long. */
static bool fit_map(const struct search *s, struct mlu_conv_tile *t)
{
    const struct conv *p = s->p;
    const int64_t taps_h = t->taps > p->kernel[W] ? p->kernel[H] : 1, taps_w = t->taps > 1 ? p->kernel[W] : 1;
    if (p->direct) {
        t->strips = true;
        return true;
    }
    if (t->strips) {
        t->line = bounded(under(p, W, t->m, taps_w), s->size_w);
        t->lines = t->line * under(p, H, 1, taps_h);
        return t->lines <= MAX_LINES;
    }
    if (s->out_w < 1 || s->size_w < 1)
        return false;
    const int64_t windows = bounded((s->out_w - 1 + t->m - 1) / s->out_w + 1, s->out_h);
    const int64_t rows = bounded(under(p, H, windows, taps_h), constant(s->cx, p->size[H]));
    t->line = s->size_w;
    t->lines = rows * t->line;
    return rows <= MAX_LINES && t->lines <= MAX_LINES;
}

static bool fits(const struct search *s, const struct mlu_conv_tile *t)
{
    const struct conv *p = s->p;
    const int64_t map = p->direct && p->lines ? 0 : (p->direct ? t->m : t->lines) * t->kb * s->es,
                  rows = t->m * t->pitch * s->es;
    const int64_t sums = t->m * t->n * 4, all = t->m * t->n * s->os, narrow = s->os < 4 && !p->out_lines ? all : 0;
    const int64_t out = s->os < 4 || !p->out_lines ? all : 0;
    const int64_t bias = p->bias ? t->n * (s->es + 4) : 0, rounding = 10 * s->m->align[TS_UB];
    return t->slots * (map + rows + sums + out) + narrow + bias + rounding <= s->m->size[TS_UB] &&
           t->slots * t->n * t->pitch * s->es <= s->m->size[TS_L0B];
}

/* Channels of a block; all unless a block is one kernel position. */
static bool fit_channels(const struct search *s, struct mlu_conv_tile *t)
{
    const int64_t unit = ROW_BYTES / s->es;
    for (t->slots = 2; t->slots >= 1; t->slots--)
        for (int64_t parts = 1;; parts *= 2) {
            t->kb = parts == 1 ? s->p->cin : size_align(size_ceil_div(s->p->cin, parts), unit);
            t->pitch = size_align(t->taps * t->kb, unit);
            if (fits(s, t))
                return true;
            if (t->taps > 1 || t->kb <= unit)
                break;
        }
    return false;
}

static bool is_resident(const struct search *s, const struct mlu_conv_tile *t)
{
    const struct conv *p = s->p;
    return p->group == 1 && t->n >= p->cout && t->kb >= p->cin && t->taps == p->kernel[D] * conv_plane_taps(p);
}

static double cycles_of(const struct search *s, const struct mlu_conv_tile *t)
{
    const struct target *g = s->m->target;
    const struct conv *p = s->p;
    const double taps = (double)(p->kernel[D] * conv_plane_taps(p)), cin = (double)p->cin, es = (double)s->es;
    const double nt = ceil((double)p->cout / (double)t->n);
    const double mt =
        t->strips ? s->positions / s->row * ceil(s->row / (double)t->m) : ceil(s->positions / (double)t->m);
    const double items = s->batch * (double)p->group * s->planes * mt * nt, cores = fmin(items, s->m->n_cube);
    const double im = fmin((double)t->m, t->strips ? s->row : s->positions), in = fmin((double)t->n, (double)p->cout);
    const double blocks = taps / (double)t->taps * ceil(cin / (double)t->kb);
    const double k = (double)t->taps * fmin((double)t->kb, cin), columns = target_num(g, TK_MAC_COLUMNS);
    const double mac = blocks * im * ceil(in / columns) * columns * ceil(k / s->mac_k0) * s->mac_k0 / s->mac;
    const double windows = p->direct ? 0 : im * taps * cin * es / target_num(g, TK_MTE1_L0A_RATE);
    const double rate = fmin(s->core, s->memory / cores);
    const double map = (p->direct ? im : (double)t->lines) * blocks * fmin((double)t->kb, cin) * es;
    const double weights = t->resident ? 0 : in * taps * cin * es;
    const double load = (map + weights) / rate, store = im * in * (double)s->os / rate;
    const double turns = (p->direct && !p->lines ? 4 : 0) + (p->out_lines ? 0 : 4);
    const double passes = 2 + (p->bias ? 1 : 0) + target_num(g, TK_VEC_TRANSPOSE) * turns;
    const double vec = im * in * 4 * passes / target_num(g, TK_VEC_BYTES);
    const double steps = STEP_CYCLES * blocks * (p->direct ? 1 : 1 + (double)t->taps);
    const double work =
        t->slots > 1 ? fmax(fmax(load, store), fmax(fmax(mac, windows), vec)) : load + store + mac + windows + vec;
    return ceil(items / s->m->n_cube) * (work + steps) + load / blocks + store + vec;
}

static void try_blocks(struct search *s, int64_t m, int64_t n, bool strips)
{
    const struct conv *p = s->p;
    const int64_t taps[3] = {conv_plane_taps(p), p->kernel[W], 1};
    for (int i = 0; i < 3; i++) {
        struct mlu_conv_tile t = {.m = m, .n = n, .taps = taps[i], .strips = strips};
        if ((i > 0 && taps[i] == taps[i - 1]) || !fit_map(s, &t) || !fit_channels(s, &t))
            continue;
        t.resident = is_resident(s, &t);
        const double cycles = cycles_of(s, &t);
        if (cycles < s->cycles) {
            s->best = t;
            s->cycles = cycles;
        }
    }
}

static bool allowed(int64_t extent, int64_t before, int64_t wish, double size)
{
    return wish > 0 ? extent == wish : before == 0 || (double)before < size;
}

static void read_target(struct search *s)
{
    const struct target *g = s->m->target;
    const double clock = target_num(g, TK_CLOCK);
    const enum dtype t = s->p->in;
    s->core = fmin(target_num(g, TK_MTE2_VECTOR_RATE),
                   target_num(g, TK_CLUSTER_BANDWIDTH) / clock / target_num(g, TK_CORES_CLUSTER));
    s->memory = target_num(g, TK_HBM_BANDWIDTH) / clock;
    s->mac = target_num(g, t == DT_F32 ? TK_MAC_F32 : t == DT_I8 ? TK_MAC_I8 : TK_MAC_F16);
    s->mac_k0 = target_num(g, t == DT_F32 ? TK_MAC_F32_K0 : t == DT_I8 ? TK_MAC_I8_K0 : TK_MAC_F16_K0);
}

struct mlu_conv_tile mlu_conv_choose_tile(const struct machine *m, const struct ir_ctx *cx, const struct conv *p,
                                          const struct tiling *w)
{
    struct search s = {.m = m,
                       .cx = cx,
                       .p = p,
                       .wish = w,
                       .es = dtype_size(p->in),
                       .os = dtype_size(p->out),
                       .size_w = constant(cx, p->size[W]),
                       .out_h = constant(cx, p->out_size[H]),
                       .out_w = constant(cx, p->out_size[W]),
                       .batch = typical(cx, p->batch, 1),
                       .planes = typical(cx, p->out_size[D], TYPICAL),
                       .row = typical(cx, p->out_size[W], TYPICAL),
                       .cycles = INFINITY};
    s.positions = s.row * typical(cx, p->out_size[H], TYPICAL);
    read_target(&s);
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(extents_m); i++)
        for (int64_t j = 0; j < NPUC_ARRAY_LEN(extents_n); j++)
            for (int strips = 0; strips < 2; strips++)
                if (allowed(extents_m[i], i ? extents_m[i - 1] : 0, w ? w->m : 0, strips ? s.row : s.positions) &&
                    allowed(extents_n[j], j ? extents_n[j - 1] : 0, w ? w->n : 0, (double)p->cout))
                    try_blocks(&s, extents_m[i], extents_n[j], strips);
    if (s.best.m == 0 && w)
        return mlu_conv_choose_tile(m, cx, p, NULL);
    return s.best;
}
