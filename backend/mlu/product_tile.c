/* Choice of tile extents for a product: every candidate that fits is timed with the closed form of the clock. Per tile
 * the slowest of the way to memory, Move-DMA, tensor and vector unit counts, times the tiles of the busiest core, and
 * the whole takes no less than its bytes of GDRAM. Extents change no bits: K is walked in ascending order in one chain
 * of accumulation. */
#include "backend/mlu/product.h"
#include "base/size.h"

#include <math.h>

#define ROW_BYTES   64 /* rows of operands begin on whole rows of the tensor unit */
#define STEP_CYCLES 64 /* start-up, flags and latency per block of K: ranks candidates, measures nothing */

static const int64_t extents_m[] = {1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512};
static const int64_t extents_n[] = {64, 128, 192, 256, 384, 512, 768, 1024};

struct search {
    const struct machine *m;
    const struct mm *p;
    const struct mm_sizes *s;
    const struct tiling *wish;
    struct mlu_rates r;
    int64_t whole_k; /* rounded up; 0: K is not known when the kernel is made */
    struct product_tile best;
    double cycles;
};

static bool b_has_rows(const struct mm *p)
{
    return p->weight || p->b_trans;
}

/* The largest block of K for given m, n and rings; false when not even one row of the tensor unit fits. */
static bool fit_k(const struct search *s, struct product_tile *t)
{
    const struct mm *p = s->p;
    const int64_t es = dtype_size(p->in), unit = ROW_BYTES / es, align = s->m->align[TS_UB];
    const int64_t whole = size_align(s->s->k < 1 ? 1 : (int64_t)fmin(s->s->k, 1e9), unit);
    const int64_t narrow = p->out != mm_sum(p->in) ? dtype_size(p->out) : 0;
    const int64_t sums = size_align(t->m * t->n * 4, align) + size_align(t->m * t->n * narrow, align);
    const int64_t bias = p->bias ? t->slots * size_align(t->n * 4, align) : 0;
    const int64_t rows = t->slots * t->m * (p->a_trans ? 2 : 1), turned = b_has_rows(p) ? 0 : (t->b_slots + 1) * t->n;
    const int64_t left = s->m->size[TS_UB] - t->sums * sums - bias - 4 * align; /* rounding of the slots */
    const int64_t in_nram = left <= 0 ? 0 : left / ((rows + turned) * es) / unit * unit;
    const int64_t room =
        t->on.lanes > 1 && s->m->size[TS_L1] < s->m->size[TS_L0B] ? s->m->size[TS_L1] : s->m->size[TS_L0B];
    const int64_t in_wram = room / (t->b_slots * t->n * es) / unit * unit;
    const int64_t most = in_nram < in_wram ? in_nram : in_wram;
    if (most < unit || (t->on.runs && (s->whole_k == 0 || most < s->whole_k)))
        return false;
    t->k = t->on.runs ? s->whole_k : size_align(size_ceil_div(whole, size_ceil_div(whole, most)), unit);
    return true;
}

/* Bytes from GDRAM: a is there again for each column of tiles that does not run beside another one, unless it stays in
 * the cache; so is b for each run of rows, unless what all cores move of it at a time fits there: then those that take
 * the same block beside each other share one read. */
static double missed(const struct search *s, const struct product_tile *t, const struct mlu_spread *v)
{
    const double es = dtype_size(s->p->in), a = s->s->m * s->s->k * es, b = s->s->n * s->s->k * es;
    const double again_a = a <= s->r.cache ? 1 : ceil(ceil(s->s->n / (double)t->n) / v->beside),
                 shared = v->units * t->b_slots * (double)t->n * (double)t->k * es <= s->r.cache
                              ? fmin(v->units, v->runs)
                              : 1,
                 again_b = b <= s->r.cache ? 1 : ceil(v->runs / shared);
    return s->s->batch * (a * again_a + b * again_b);
}

static double cycles_of(const struct search *s, const struct product_tile *t)
{
    const struct mlu_rates *r = &s->r;
    const struct mm *p = s->p;
    const double rights = s->s->batch * ceil(s->s->n / (double)t->n);
    const struct mlu_spread v = mlu_spread_of(s->m, &t->on, ceil(s->s->m / (double)t->m), rights);
    const double im = fmin((double)t->m, s->s->m), in = fmin((double)t->n, s->s->n);
    const double es = dtype_size(p->in), k = s->s->k, blocks = t->on.runs ? 1 : ceil(k / (double)t->k);
    const double a = im * k * es / r->core, b = in * k * es / r->core / t->on.lanes;
    const double move = t->on.lanes > 1 || !b_has_rows(p) ? in * k * es / r->move : 0;
    const double link = t->on.clusters > 1 ? in * k * es / r->link : 0, bring = fmax(fmax(b, link), move);
    const double mac = im * ceil(in / r->columns) * r->columns * ceil(k / r->k0) * r->k0 / r->mac;
    const double store = im * in * dtype_size(p->out) / r->core;
    const double turn_a = p->a_trans ? im * k * es * r->turn / r->vec : 0;
    const double turn_b = b_has_rows(p) ? 0 : in * k * es * r->turn / r->vec;
    const double end = (p->relu + (p->out != mm_sum(p->in)) + (p->bias != NULL)) * im * in * 4 / r->vec;
    const double each = t->on.runs ? 0 : 1; /* b comes with every tile */
    const double load = a + each * b, vec = turn_a + each * turn_b + end;
    const double apart = t->sums > 1 ? 0 : end + (p->out == mm_sum(p->in) ? store : 0); /* the next sums wait for it */
    /* a slot is free again when what it brought has been used */
    const double late = r->latency * blocks,
                 chain = fmax((load + late + mac) / t->slots, (mac + end + store) / t->sums);
    const double overlap = fmax(chain, fmax(fmax(load, mac), fmax(fmax(store, vec), each * fmax(move, link)))) + apart;
    const double serial = load + late + mac + vec + store + each * move;
    const double step = (t->slots > 1 ? overlap : serial) + STEP_CYCLES * blocks;
    const double first = (bring + a) / blocks + STEP_CYCLES;
    const double item = v.steps * step + (t->on.runs && t->b_slots == 1 ? bring + turn_b : 0);
    const double cores = v.rounds * fmax(item, t->on.runs ? bring + turn_b : 0) + first + end + store;
    const double memory = (missed(s, t, &v) + s->s->batch * s->s->m * s->s->n * dtype_size(p->out)) / r->memory;
    return fmax(cores, memory + first + store);
}

static void limit_k(const struct search *s, struct product_tile *t)
{
    const struct tiling *w = s->wish;
    const int64_t wish = w ? size_align(w->k, ROW_BYTES / dtype_size(s->p->in)) : 0;
    if (wish > 0 && wish < t->k && !t->on.runs)
        t->k = wish;
}

static void try_tile(struct search *s, struct product_tile t)
{
    if (!fit_k(s, &t))
        return;
    limit_k(s, &t);
    const double v = cycles_of(s, &t);
    if (v < s->cycles) {
        s->best = t;
        s->cycles = v;
    }
}

/* All depths of rings and ways to bring b for given extents. */
static void try_extents(struct search *s, int64_t m, int64_t n)
{
    const int64_t stages = s->wish ? s->wish->stages : 0;
    struct product_tile t = {.m = m, .n = n};
    for (int i = 0; i < MLU_LANES; i++) {
        if (!mlu_lanes_of(s->m, i, &t.on) || (i > 0 && (s->p->ends || !b_has_rows(s->p))))
            continue;
        for (int f = 0; f < 16; f++) {
            t.slots = f & 1 ? 1 : 2;
            t.b_slots = f & 2 ? 1 : 2;
            t.sums = f & 4 ? 1 : 2;
            t.on.runs = (f & 8) != 0;
            const bool serial = t.slots == 1 && t.sums == 1 && t.b_slots == 1;
            if ((t.b_slots == 1 && t.slots > 1 && !t.on.runs) || (t.on.runs && s->p->ends) ||
                (stages == 1 && !serial) || (stages > 1 && t.slots == 1))
                continue;
            try_tile(s, t);
        }
    }
}

/* No larger than the product needs. */
static bool allowed(int64_t extent, int64_t before, double size)
{
    return (double)before < size || extent == before;
}

static void try_all(struct search *s)
{
    const struct tiling *w = s->wish;
    if (w && w->m > 0 && w->n > 0)
        try_extents(s, w->m, w->n);
    if (s->best.m > 0)
        return;
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(extents_m); i++)
        for (int64_t j = 0; j < NPUC_ARRAY_LEN(extents_n); j++)
            if (allowed(extents_m[i], i ? extents_m[i - 1] : 0, s->s->m) &&
                allowed(extents_n[j], j ? extents_n[j - 1] : 0, s->s->n))
                try_extents(s, extents_m[i], extents_n[j]);
}

struct product_tile product_choose_tile(const struct machine *m, const struct ir_ctx *cx, const struct mm *p,
                                        const struct mm_sizes *z, const struct tiling *w)
{
    int64_t k;
    struct search s = {.m = m, .p = p, .s = z, .wish = w, .r = mlu_rates_of(m, p->in), .cycles = INFINITY};
    if (expr_is_const(&cx->exprs, p->k, &k) && k < 1 << 20)
        s.whole_k = size_align(k < 1 ? 1 : k, ROW_BYTES / dtype_size(p->in));
    try_all(&s);
    return s.best;
}

double product_cycles(const struct machine *m, const struct mm *p, const struct mm_sizes *z,
                      const struct product_tile *t)
{
    const struct search s = {.m = m, .p = p, .s = z, .r = mlu_rates_of(m, p->in)};
    return t->m > 0 ? cycles_of(&s, t) : (double)INFINITY;
}
