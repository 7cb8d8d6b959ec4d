/* Choice of extents for a convolution: every candidate that fits is timed with the closed form of the clock (per tile
 * the slowest of loads, L0 copies and MACs) and multiplied by the rounds of the busiest core. Extents change no bits: K
 * is walked in one order in one chain of accumulation. */
#include "backend/ascend/conv.h"
#include "base/size.h"

#include <math.h>

#define FRACTAL     16
#define STEP_CYCLES 8  /* flags and issue per step of K: a rank between equal tiles, not a measurement */
#define TYPICAL     64 /* windows along an axis of unknown extent */
#define MAX_LINES   (1 << 14)

static const int64_t extents_m[] = {16, 32, 48, 64, 96, 128, 160, 192, 256};
static const int64_t extents_n[] = {16, 32, 48, 64, 96, 112, 128, 160, 192, 224, 256, 384, 512};

enum { D, H, W };

struct search {
    const struct machine *m;
    const struct ir_ctx *cx;
    const struct conv *p;
    const struct tiling *wish;
    int64_t es, c0, unit;                 /* bytes of an element; elements of a line; granularity of K in L0 */
    int64_t size_w, out_h, out_w;         /* constants, or -1 */
    double batch, planes, positions, row; /* typical: members, planes of windows, windows of a plane, of a row */
    struct conv_tile best;
    double cycles;
};

/* The part of x that a block shows, in lines; false when it is too long. */
static bool fit_map(const struct search *s, struct conv_tile *t)
{
    const struct conv *p = s->p;
    const int64_t taps_h = t->taps > p->kernel[W] ? p->kernel[H] : 1, taps_w = t->taps > 1 ? p->kernel[W] : 1;
    if (p->direct) {
        t->strips = true;
        t->lines = t->line = 0;
        return true;
    }
    if (t->strips) {
        t->line = conv_under(p, W, t->n, taps_w);
        if (s->size_w >= 0)
            t->line = size_min(t->line, s->size_w > 0 ? s->size_w : 1);
        t->lines = t->line * conv_under(p, H, 1, taps_h);
        return t->lines <= MAX_LINES;
    }
    if (s->out_w < 1 || s->size_w < 1)
        return false;
    int64_t rows = (s->out_w - 1 + t->n - 1) / s->out_w + 1;
    if (s->out_h >= 0)
        rows = size_min(rows, s->out_h > 0 ? s->out_h : 1);
    rows = conv_under(p, H, rows, taps_h);
    const int64_t all = size_known(s->cx, p->size[H]);
    if (all >= 0)
        rows = size_min(rows, all > 0 ? all : 1);
    t->line = s->size_w;
    t->lines = rows * t->line;
    return rows <= MAX_LINES && t->lines <= MAX_LINES;
}

static int64_t map_bytes(const struct search *s, const struct conv_tile *t)
{
    if (s->p->direct)
        return size_align(t->n, s->c0) * t->kb * s->es;
    return size_ceil_div(t->kb, s->c0) * s->c0 * t->lines * s->es;
}

static int64_t weight_bytes(const struct search *s, const struct conv_tile *t)
{
    return t->m * t->taps * size_align(t->kb, s->c0) * s->es;
}

/* Everything but the L1 blocks: accumulators and L0. */
static bool fit_l0(const struct search *s, struct conv_tile *t)
{
    const struct machine *m = s->m;
    const int64_t acc = t->m * t->n * 4, whole = size_align(s->p->cin, s->unit);
    if (acc > m->size[TS_L0C])
        return false;
    t->acc_slots = 2 * acc <= m->size[TS_L0C] ? 2 : 1;
    const int64_t a = s->p->out_lines ? t->n : t->m, b = s->p->out_lines ? t->m : t->n;
    t->k0 = size_min(m->size[TS_L0A] / (2 * a * s->es), m->size[TS_L0B] / (2 * b * s->es)) / s->unit * s->unit;
    t->k0 = size_min(t->k0, whole);
    if (s->wish && s->wish->k > 0)
        t->k0 = size_min(t->k0, size_align(s->wish->k, s->unit));
    return t->k0 >= s->unit;
}

/* Channels of a block; all unless a block is one kernel position. */
static bool fit_l1(const struct search *s, struct conv_tile *t)
{
    const int64_t bias = s->p->bias ? 2 * t->m * s->m->c0_bytes : 0, room = s->m->size[TS_L1] - bias;
    const int64_t whole = size_align(s->p->cin, s->unit);
    for (int64_t parts = 1;; parts++) {
        t->kb = size_align(size_ceil_div(whole, parts), t->k0);
        if (2 * (map_bytes(s, t) + weight_bytes(s, t)) <= room)
            return true;
        if (t->taps > 1 || t->kb <= t->k0)
            return false;
    }
}

static bool is_resident(const struct search *s, const struct conv_tile *t)
{
    const struct conv *p = s->p;
    return p->group == 1 && t->m >= p->cout && t->kb >= p->cin && t->taps == p->kernel[D] * p->kernel[H] * p->kernel[W];
}

static double cycles_of(const struct search *s, const struct conv_tile *t)
{
    const struct target *g = s->m->target;
    const struct conv *p = s->p;
    const bool wide = p->in == DT_F32, whole = p->in == DT_I8;
    const double k0 = target_num(g, wide ? TK_MAC_F32_K0 : whole ? TK_MAC_I8_K0 : TK_MAC_F16_K0);
    const double rate = target_num(g, wide ? TK_MAC_F32 : whole ? TK_MAC_I8 : TK_MAC_F16);
    const double taps = (double)(p->kernel[D] * p->kernel[H] * p->kernel[W]), cin = (double)p->cin;
    const double mt = ceil((double)p->cout / (double)t->m);
    const double nt =
        t->strips ? s->positions / s->row * ceil(s->row / (double)t->n) : ceil(s->positions / (double)t->n);
    const double items = s->batch * (double)p->group * s->planes * mt * nt, cores = fmin(items, s->m->n_cube);
    const double im = fmin((double)t->m, (double)p->cout), in = fmin((double)t->n, t->strips ? s->row : s->positions);
    const double m16 = ceil(im / FRACTAL) * FRACTAL, n16 = ceil(in / FRACTAL) * FRACTAL;
    const double steps = taps * ceil(cin / (double)t->k0), blocks = taps / (double)t->taps * ceil(cin / (double)t->kb);
    const double padded = ceil(cin / (double)s->c0) * (double)s->c0 * (double)s->es;
    const double mac = steps * m16 * n16 * ceil(fmin(cin, (double)t->k0) / k0) * k0 / rate;
    const double mte1 = taps * padded *
                            ((p->out_lines ? n16 : m16) / target_num(g, TK_MTE1_L0A_RATE) +
                             (p->out_lines ? m16 : n16) / target_num(g, TK_MTE1_L0B_RATE)) +
                        2 * steps * target_num(g, TK_MTE1_LATENCY);
    const double l2 =
        fmin(target_num(g, TK_MTE2_CUBE_RATE), target_num(g, TK_HBM_BANDWIDTH) * 2 / target_num(g, TK_CLOCK) / cores);
    const double map = p->direct
                           ? in * cin * (double)s->es * target_num(g, TK_MTE2_ND2NZ)
                           : blocks * (double)t->lines * fmin((double)t->kb, padded / (double)s->es) * (double)s->es;
    const double weights = t->resident ? 0 : im * taps * padded;
    const double mte2 = (map + weights) / l2 + blocks * 2 * target_num(g, TK_MTE2_FLOOR);
    const double fix = im * in / target_num(g, TK_FIX_ELEMENTS);
    const double work = fmax(mte2, fmax(mte1, mac)) + STEP_CYCLES * steps;
    const double tile = t->acc_slots > 1 ? fmax(work, fix) : work + fix + target_num(g, TK_FIX_TURNROUND);
    return ceil(items / s->m->n_cube) * tile + mte2 / blocks + fix;
}

static void try_blocks(struct search *s, int64_t m, int64_t n, bool strips)
{
    const struct conv *p = s->p;
    const int64_t taps[3] = {p->kernel[H] * p->kernel[W], p->kernel[W], 1};
    for (int i = 0; i < 3; i++) {
        struct conv_tile t = {.m = m, .n = n, .taps = taps[i], .strips = strips};
        if ((i > 0 && taps[i] == taps[i - 1]) || !fit_l0(s, &t) || !fit_map(s, &t) || !fit_l1(s, &t))
            continue;
        t.resident = is_resident(s, &t);
        const double cycles = cycles_of(s, &t);
        if (cycles < s->cycles) {
            s->best = t;
            s->cycles = cycles;
        }
    }
}

static bool allowed(int64_t extent, int64_t wish, double size)
{
    return wish > 0 ? extent == wish : extent == FRACTAL || (double)(extent - FRACTAL) < size;
}

struct conv_tile conv_choose_tile(const struct machine *m, const struct ir_ctx *cx, const struct conv *p,
                                  const struct tiling *w)
{
    const int64_t es = dtype_size(p->in), c0 = m->c0_bytes / es;
    struct search s = {.m = m, .cx = cx, .p = p, .wish = w, .es = es, .c0 = c0, .cycles = INFINITY};
    s.unit = c0 > FRACTAL ? c0 : FRACTAL;
    s.size_w = size_known(cx, p->size[W]);
    s.out_h = size_known(cx, p->out_size[H]);
    s.out_w = size_known(cx, p->out_size[W]);
    s.batch = size_typical(cx, p->batch, 1);
    s.planes = size_typical(cx, p->out_size[D], TYPICAL);
    s.row = size_typical(cx, p->out_size[W], TYPICAL);
    s.positions = s.row * size_typical(cx, p->out_size[H], TYPICAL);
    const int64_t want_m = w && w->m > 0 ? size_align(w->m, FRACTAL) : 0,
                  want_n = w && w->n > 0 ? size_align(w->n, FRACTAL) : 0;
    const int64_t block = p->out_lines && p->y->type->layout.c0 > FRACTAL ? p->y->type->layout.c0 : FRACTAL;
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(extents_m); i++)
        for (int64_t j = 0; j < NPUC_ARRAY_LEN(extents_n); j++)
            for (int strips = 0; strips < 2; strips++)
                if (extents_m[i] % block == 0 &&
                    allowed(extents_m[i], block == FRACTAL ? want_m : 0, (double)p->cout) &&
                    allowed(extents_n[j], want_n, strips ? s.row : s.positions))
                    try_blocks(&s, extents_m[i], extents_n[j], strips);
    if (s.best.m == 0 && w)
        return conv_choose_tile(m, cx, p, NULL);
    return s.best;
}
