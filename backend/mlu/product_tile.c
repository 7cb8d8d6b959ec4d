/* Choice of tile extents for a product: every candidate that fits is timed with the closed form of the clock, per tile
 * the slowest of IO-DMA, tensor and vector unit, and multiplied by the rounds of the busiest core. Extents change no
 * bits: K is walked in ascending order in one chain of accumulation. */
#include "backend/mlu/product.h"
#include "base/size.h"

#include <math.h>

#define ROW_BYTES   64 /* rows of operands begin on whole rows of the tensor unit */
#define STEP_CYCLES 64 /* start-up, flags and latency per block of K: ranks candidates, measures nothing */

static const int64_t extents_m[] = {1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512};
static const int64_t extents_n[] = {64, 128, 192, 256, 384, 512, 768, 1024};

struct rates { /* bytes or multiply-accumulates per cycle */
    double core, memory, mac, mac_k0, columns, vec_bytes, vec_turn;
};

static struct rates rates_of(const struct machine *m, enum dtype t)
{
    static const struct {
        enum dtype t;
        enum target_key mac, k0;
    } keys[] = {{DT_F32, TK_MAC_F32, TK_MAC_F32_K0},
                {DT_F16, TK_MAC_F16, TK_MAC_F16_K0},
                {DT_BF16, TK_MAC_BF16, TK_MAC_F16_K0},
                {DT_I8, TK_MAC_I8, TK_MAC_I8_K0}};
    const struct target *g = m->target;
    const double clock = target_num(g, TK_CLOCK), cluster = target_num(g, TK_CLUSTER_BANDWIDTH) / clock,
                 cores = target_num(g, TK_CORES_CLUSTER), own = target_num(g, TK_MTE2_VECTOR_RATE);
    struct rates r = {.core = fmin(own, cluster / cores),
                      .memory = target_num(g, TK_HBM_BANDWIDTH) / clock,
                      .columns = target_num(g, TK_MAC_COLUMNS),
                      .vec_bytes = target_num(g, TK_VEC_BYTES),
                      .vec_turn = target_num(g, TK_VEC_TRANSPOSE) * 4};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(keys); i++)
        if (keys[i].t == t) {
            r.mac = target_num(g, keys[i].mac);
            r.mac_k0 = target_num(g, keys[i].k0);
        }
    return r;
}

static bool b_has_rows(const struct mm *p)
{
    return p->weight || p->b_trans;
}

/* The largest block of K for given m and n; false when not even one row of the tensor unit fits. */
static bool fit_k(const struct machine *m, const struct mm *p, double k, struct product_tile *t)
{
    const int64_t es = dtype_size(p->in), unit = ROW_BYTES / es, align = m->align[TS_UB];
    const int64_t whole_k = size_align(k < 1 ? 1 : (int64_t)fmin(k, 1e9), unit);
    const int64_t narrow = p->out != mm_sum(p->in) ? dtype_size(p->out) : 0;
    const int64_t sums = size_align(t->m * t->n * 4, align) + size_align(t->m * t->n * narrow, align) +
                         (p->bias ? size_align(t->n * 4, align) : 0);
    const int64_t rows = t->m * (p->a_trans ? 2 : 1) + (b_has_rows(p) ? 0 : t->n);
    const int64_t turned = b_has_rows(p) ? 0 : t->n; /* one slot */
    for (t->slots = 2; t->slots >= 1; t->slots--) {
        const int64_t left = m->size[TS_UB] - t->slots * sums - 4 * align; /* rounding of the slots */
        const int64_t in_nram = left / ((t->slots * rows + turned) * es) / unit * unit;
        const int64_t in_wram = m->size[TS_L0B] / (t->slots * t->n * es) / unit * unit;
        const int64_t most = in_nram < in_wram ? in_nram : in_wram;
        if (left <= 0 || most < unit)
            continue;
        t->k = size_align(size_ceil_div(whole_k, size_ceil_div(whole_k, most)), unit);
        return true;
    }
    return false;
}

static double tile_cycles(const struct machine *m, const struct mm *p, const struct mm_sizes *s,
                          const struct product_tile *t)
{
    const struct rates r = rates_of(m, p->in);
    const double es = dtype_size(p->in), out = dtype_size(p->out);
    const double tiles = s->batch * ceil(s->m / (double)t->m) * ceil(s->n / (double)t->n);
    const double cores = fmin(tiles, m->n_cube), rounds = ceil(tiles / m->n_cube);
    const double im = fmin((double)t->m, s->m), in = fmin((double)t->n, s->n);
    const double asked = tiles * (im + in) * s->k, once = (s->m + s->n) * s->k * s->batch;
    const double share = fmin(1, once / asked), slow = fmin(r.core, r.memory / cores);
    const double per_byte = share / slow + (1 - share) / r.core, blocks = ceil(s->k / (double)t->k);
    const double load = (im + in) * s->k * es * per_byte, store = im * in * out / slow;
    const double mac = im * ceil(in / r.columns) * r.columns * ceil(s->k / r.mac_k0) * r.mac_k0 / r.mac;
    const double turned = (p->a_trans ? im : 0) + (b_has_rows(p) ? 0 : in);
    const double vec = (turned * s->k * es * r.vec_turn + 2 * im * in * 4) / r.vec_bytes;
    const double work = fmax(fmax(load, mac), fmax(store, vec)) + STEP_CYCLES * blocks;
    const double serial = t->slots > 1 ? (load + mac) / blocks : load + mac;
    return rounds * (t->slots > 1 ? work : load + mac + vec + STEP_CYCLES * blocks) + serial + vec / blocks + store;
}

static void limit_k(const struct mm *p, const struct tiling *w, struct product_tile *t)
{
    const int64_t wish = w ? size_align(w->k, ROW_BYTES / dtype_size(p->in)) : 0;
    if (wish > 0 && wish < t->k)
        t->k = wish;
}

/* No larger than the product needs. */
static bool allowed(int64_t extent, int64_t before, double size)
{
    return (double)before < size || extent == before;
}

struct product_tile product_choose_tile(const struct machine *m, const struct mm *p, const struct mm_sizes *s,
                                        const struct tiling *w)
{
    struct product_tile best = {0};
    double cycles = INFINITY;
    if (w && w->m > 0 && w->n > 0) {
        best = (struct product_tile){.m = w->m, .n = w->n};
        if (fit_k(m, p, s->k, &best)) {
            limit_k(p, w, &best);
            return best;
        }
        best = (struct product_tile){0};
    }
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(extents_m); i++)
        for (int64_t j = 0; j < NPUC_ARRAY_LEN(extents_n); j++) {
            struct product_tile t = {.m = extents_m[i], .n = extents_n[j]};
            if (!allowed(t.m, i ? extents_m[i - 1] : 0, s->m) || !allowed(t.n, j ? extents_n[j - 1] : 0, s->n) ||
                !fit_k(m, p, s->k, &t))
                continue;
            const double v = tile_cycles(m, p, s, &t);
            if (v < cycles) {
                best = t;
                cycles = v;
            }
        }
    limit_k(p, w, &best);
    return best;
}
