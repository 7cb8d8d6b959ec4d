/* Choice of tile extents for a product: every candidate that fits is timed with the closed form of the clock (per tile
 * the slowest of loads, L0 copies and MACs; stores hidden when the accumulators are doubled) and multiplied by the
 * rounds of the busiest core. Extents change no bits: K is walked in ascending order in one chain of accumulation. */
#include "backend/ascend/matmul.h"
#include "base/size.h"

#include <math.h>

#define FRACTAL 16
#define STEP_CYCLES                                                                                                    \
    8 /* flags and issue per step of K: decides between extents that the units' times do not tell apart */
#define BLOCK_CYCLES 16 /* the same per block in L1; both are ranks, not measurements */

static const int64_t extents_m[] = {16, 32, 48, 64, 96, 128, 160, 192, 256};
static const int64_t extents_n[] = {16, 32, 48, 64, 96, 128, 160, 192, 256, 384, 512};

struct rates {
    double l2, hbm, nd2nz, floor, row, l0a, l0b, mte1_latency, mac, mac_k0, mac_head, fix, turnround, clock;
};

static struct rates rates_of(const struct machine *m, enum dtype t)
{
    const struct target *g = m->target;
    const bool wide = t == DT_F32, whole = t == DT_I8;
    return (struct rates){
        .l2 = target_num(g, TK_MTE2_CUBE_RATE),
        .nd2nz = target_num(g, TK_MTE2_ND2NZ),
        .floor = target_num(g, TK_MTE2_FLOOR),
        .row = target_num(g, TK_MTE2_ROW),
        .l0a = target_num(g, TK_MTE1_L0A_RATE),
        .l0b = target_num(g, TK_MTE1_L0B_RATE),
        .mte1_latency = target_num(g, TK_MTE1_LATENCY),
        .mac = target_num(g, wide    ? TK_MAC_F32
                             : whole ? TK_MAC_I8
                                     : TK_MAC_F16),
        .mac_k0 = target_num(g, wide    ? TK_MAC_F32_K0
                                : whole ? TK_MAC_I8_K0
                                        : TK_MAC_F16_K0),
        .mac_head = target_num(g, TK_MAC_HEAD),
        .fix = target_num(g, TK_FIX_ELEMENTS),
        .turnround = target_num(g, TK_FIX_TURNROUND),
        .clock = target_num(g, TK_CLOCK),
        .hbm = target_num(g, TK_HBM_BANDWIDTH),
    };
}

/* A feed chooses the blocks of K; the steps in L0 share them evenly. */
static bool fit_feed(const struct machine *m, const struct mm *p, int64_t most, struct mm_tile *t)
{
    if (!p->feed->fit(p->feed, m, most, t))
        return false;
    const int64_t steps = size_ceil_div(t->kb, t->k0);
    t->k0 = size_align(size_ceil_div(t->kb, steps), FRACTAL);
    return true;
}

/* K extents for given m and n; false when they do not fit. */
static bool fit_k(const struct machine *m, const struct mm *p, double k, struct mm_tile *t)
{
    const int64_t es = dtype_size(p->in), c0 = m->c0_bytes / es;
    const int64_t unit = c0 > FRACTAL ? c0 : FRACTAL; /* a transposing copy walks 16 rows of K at a time */
    const int64_t whole_k = size_align(k < 1 ? 1 : (int64_t)k, unit);
    const int64_t acc = t->m * t->n * 4;
    const int64_t fixed = p->bias ? 2 * size_align(t->n * 4, m->align[TS_L1]) : 0;
    if (acc > m->size[TS_L0C] || (p->bias && t->n * 4 > m->size[TS_BT]))
        return false;
    t->acc_slots = 2 * acc <= m->size[TS_L0C] ? 2 : 1;
    const int64_t ka = m->size[TS_L0A] / (2 * t->m * es), kb = m->size[TS_L0B] / (2 * t->n * es);
    t->k0 = (ka < kb ? ka : kb) / unit * unit;
    if (t->k0 > whole_k)
        t->k0 = whole_k;
    if (t->k0 < unit)
        return false;
    const int64_t most = (m->size[TS_L1] - fixed) / (2 * (t->m + t->n) * es) / t->k0 * t->k0;
    if (most < t->k0)
        return false;
    const int64_t blocks = size_ceil_div(whole_k, most);
    t->kb = size_align(size_ceil_div(whole_k, blocks), t->k0);
    return !p->feed || fit_feed(m, p, most, t);
}

static double load_cycles(const struct rates *r, double rows, double bytes_per_row, double per_byte, bool nz)
{
    const double row = bytes_per_row * per_byte * (nz ? 1 : r->nd2nz);
    const double least = nz ? 0 : r->row;
    return fmax(r->floor, rows * fmax(row, least));
}

static double tile_cycles(const struct machine *m, const struct mm *p, const struct mm_sizes *s,
                          const struct mm_tile *t)
{
    const struct rates r = rates_of(m, p->in);
    const double es = dtype_size(p->in);
    const double tiles = s->batch * ceil(s->m / (double)t->m) * ceil(s->n / (double)t->n);
    const double cores = fmin(tiles, m->n_cube);
    const double rounds = ceil(tiles / m->n_cube);
    const double im = fmin((double)t->m, s->m), in = fmin((double)t->n, s->n);
    const double once = (s->m + s->n) * s->k * s->batch, asked = tiles * (im + in) * s->k;
    const double share = fmin(1, once / asked), slow = fmin(r.l2, r.hbm / r.clock / cores);
    const double per_byte = share / slow + (1 - share) / r.l2;
    const double blocks = ceil(s->k / (double)t->kb), steps = ceil(s->k / (double)t->k0);
    const double width = fmin((double)t->kb, s->k) * es;
    const double b_byte = p->feed ? 1 / r.l2 : per_byte; /* made a moment ago */
    const double mte2 =
        blocks * (load_cycles(&r, im, width, per_byte, false) + load_cycles(&r, in, width, b_byte, p->weight));
    const double mte1 = (im / r.l0a + in / r.l0b) * s->k * es + 2 * r.mte1_latency * steps;
    const double m16 = ceil(im / FRACTAL) * FRACTAL, n16 = ceil(in / FRACTAL) * FRACTAL;
    const double mac = m16 * n16 * ceil(s->k / r.mac_k0) * r.mac_k0 / r.mac + r.mac_head;
    const double fix = im * in / r.fix;
    const double made = p->feed ? blocks * p->feed->cycles(p->feed, m, t) : 0;
    const double work = fmax(fmax(made, mte2), fmax(mte1, mac)) + STEP_CYCLES * steps + BLOCK_CYCLES * blocks;
    const double tile = t->acc_slots > 1 ? fmax(work, fix) : work + fix + r.turnround;
    return rounds * tile + (mte2 + made) / blocks + fix; /* fill and drain */
}

/* No larger than the product needs, unless asked for. */
static bool allowed(int64_t extent, int64_t wish, double size, int64_t least)
{
    return wish > 0 ? extent == wish : extent == least || (double)(extent - least) < size;
}

static void override_k(const struct tiling *w, int64_t unit, struct mm_tile *t)
{
    if (!w || w->k <= 0)
        return;
    const int64_t k = size_align(w->k, unit);
    if (k < t->k0)
        t->k0 = k;
    if (k < t->kb)
        t->kb = k / t->k0 * t->k0;
}

struct search {
    const struct machine *m;
    const struct mm *p;
    const struct mm_sizes *s;
    int64_t want_m, want_n;
    struct mm_tile best;
    double cycles;
};

static void try_tile(struct search *x, int64_t tile_m, int64_t tile_n)
{
    struct mm_tile t = {.m = tile_m, .n = tile_n};
    /* An operand turned on the way to L0 stands in whole lines. */
    const int64_t c0 = x->m->c0_bytes / dtype_size(x->p->in), least = c0 > FRACTAL ? c0 : FRACTAL;
    if (t.m % least || t.n % least || !allowed(t.m, x->want_m, x->s->m, least) ||
        !allowed(t.n, x->want_n, x->s->n, least) || !fit_k(x->m, x->p, x->s->k, &t))
        return;
    const double cycles = tile_cycles(x->m, x->p, x->s, &t);
    if (cycles < x->cycles) {
        x->best = t;
        x->cycles = cycles;
    }
}

struct mm_tile mm_choose_tile(const struct machine *m, const struct mm *p, const struct mm_sizes *s,
                              const struct tiling *w)
{
    struct search x = {.m = m,
                       .p = p,
                       .s = s,
                       .want_m = w && w->m > 0 ? size_align(w->m, FRACTAL) : 0,
                       .want_n = w && w->n > 0 ? size_align(w->n, FRACTAL) : 0,
                       .cycles = INFINITY};
    const int64_t even = size_align(size_ceil_div((int64_t)fmin(s->n, 1e9), m->n_cube), FRACTAL);
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(extents_m); i++) {
        for (int64_t j = 0; j < NPUC_ARRAY_LEN(extents_n); j++)
            try_tile(&x, extents_m[i], extents_n[j]);
        if (p->feed && even <= extents_n[NPUC_ARRAY_LEN(extents_n) - 1]) /* making b twice costs more than odd tiles */
            try_tile(&x, extents_m[i], even);
    }
    if (x.best.m == 0) /* the wish is not in the lists, or does not fit: the smallest always does */
        return w ? mm_choose_tile(m, p, s, NULL) : x.best;
    if (!p->feed)
        override_k(w, m->c0_bytes / dtype_size(p->in) > FRACTAL ? m->c0_bytes / dtype_size(p->in) : FRACTAL, &x.best);
    return x.best;
}
