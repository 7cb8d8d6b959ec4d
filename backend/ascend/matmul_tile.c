/* Choice of tile extents for a product: every candidate that fits is ranked by a closed form of its time, the best few
 * are followed along the units' queues (matmul_time.c). Extents and the order of tiles change no bits: K is
 * walked in ascending order in one chain of accumulation. Refused: K divided among cores whose sums are added, which
 * rounds floats otherwise. */
#include "backend/ascend/matmul_time.h"
#include "base/size.h"

#include <math.h>

#define MANY_ROUNDS 16 /* full ones, beside which an idle last one is nothing */
#define MOST_PARTS  4  /* of a tile along a side */
#define FINALISTS   12 /* extents that the closed form finds best, of which the timeline chooses */
#define K_PARTS     4
#define TIE         0.01 /* of a launch: what tiles may take more, being wider */
#define EVEN_ROUNDS 8    /* widths of tiles that give every core the same number of columns of tiles, up to so many */

static const int64_t extents_m[] = {16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256};
static const int64_t extents_n[] = {16, 32, 48, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512};

/* A feed chooses the blocks of K; the steps in L0 share them evenly. */
static bool fit_feed(const struct machine *m, const struct mm *p, int64_t most, struct mm_tile *t)
{
    if (!p->feed->fit(p->feed, m, most, t))
        return false;
    const int64_t steps = size_ceil_div(t->kb, t->k0);
    t->k0 = size_align(size_ceil_div(t->kb, steps), MM_FRACTAL);
    return true;
}

static int64_t k_unit(const struct machine *m, const struct mm *p)
{
    const int64_t c0 = m->c0_bytes / dtype_size(p->in);
    return c0 > MM_FRACTAL ? c0 : MM_FRACTAL; /* a transposing copy walks 16 rows of K at a time */
}

/* An operand turned on the way to L0 stands in whole lines. */
int64_t mm_extent_unit(const struct machine *m, const struct mm *p)
{
    return k_unit(m, p) * mm_pack(p);
}

/* The largest step in L0 up to `most` that divides the block kb. */
static int64_t step_of(int64_t kb, int64_t most, int64_t unit)
{
    int64_t k0 = most / unit * unit;
    while (k0 > unit && kb % k0)
        k0 -= unit;
    return k0;
}

/* K extents for given m and n; false when they do not fit. `part`: the block in L1 is the largest (0), or the
 * 2^(part-1) th part of the largest whole number of lines. */
static bool fit_k(const struct machine *m, const struct mm *p, double k, int part, struct mm_tile *t)
{
    const int64_t es = dtype_size(p->in), unit = k_unit(m, p), line = (int64_t)target_num(m->target, TK_MTE2_LINE) / es;
    const int64_t whole_k = size_align(k < 1 ? 1 : (int64_t)k, unit), acc = t->m * t->n * 4;
    const int64_t fixed =
        (p->bias ? 2 * size_align(t->n * 4, m->align[TS_L1]) : 0) + (p->block ? 4 * m->align[TS_L1] : 0);
    if (acc > m->size[TS_L0C] || (p->bias && t->n * 4 > m->size[TS_BT]))
        return false;
    t->acc_slots = 2 * acc <= m->size[TS_L0C] ? 2 : 1;
    const int64_t ka = m->size[TS_L0A] / (2 * t->m * es), kb = m->size[TS_L0B] / (2 * t->n * es);
    t->k0 = (ka < kb ? ka : kb) / unit * unit;
    const int64_t widest = t->m > t->n ? t->m : t->n;
    while (p->block && t->k0 > unit && 2 * mm_scale_l0(p, widest, t->k0) > m->size[TS_L0A_MX])
        t->k0 -= unit;
    if (p->block && 2 * mm_scale_l0(p, widest, t->k0) > m->size[TS_L0A_MX])
        return false;
    if (t->k0 > whole_k)
        t->k0 = whole_k;
    const int64_t part_k = 32 * es + mm_scale_row(p, 32); /* bytes of 32 elements of a row */
    const int64_t room = (m->size[TS_L1] - fixed) * 32 / (2 * (t->m + t->n) * part_k);
    if (t->k0 < unit || room < t->k0)
        return false;
    if (part == 0) {
        const int64_t most = room / t->k0 * t->k0, blocks = size_ceil_div(whole_k, most);
        t->kb = size_align(size_ceil_div(whole_k, blocks), t->k0);
    } else {
        t->kb = line > 0 && line % unit == 0 ? room / line * line >> (part - 1) : 0;
        t->kb = t->kb / line * line;
        if (t->kb < 1 || t->kb >= whole_k)
            return false;
        t->k0 = step_of(t->kb, t->k0, unit);
    }
    return !p->feed || fit_feed(m, p, part == 0 ? room / t->k0 * t->k0 : t->kb, t);
}

/* ---- order of tiles ---------------------------------------------------------------------------------------- */

/* The band whose operands come from memory least; among equal ones that in which the cores of a round make a square,
 * so that they share lines of both operands. */
static void choose_band(const struct machine *m, const struct mm *p, const struct mm_sizes *s, const struct mm_rates *r,
                        struct mm_tile *t)
{
    const double es = dtype_size(p->in), cores = m->n_cube;
    const double side[2] = {s->m * s->k * es, s->n * s->k * es}, tile[2] = {(double)t->m, (double)t->n};
    const double count[2] = {ceil(s->m / tile[0]), ceil(s->n / tile[1])};
    double best = INFINITY;
    t->band = 1;
    for (int across = 1; across >= 0; across--) {
        const double square = sqrt(cores * tile[1 - across] / tile[across]);
        for (int64_t w = 1; (double)w <= mm_least(count[across], cores); w++) {
            const double band = (double)w * tile[across] * s->k * es, n = ceil(count[across] / (double)w);
            const double bytes = side[across] + side[1 - across] * mm_reads(r, side[1 - across], n, 2 * band);
            const double whole = bytes + (band > r->resident / 2 ? bytes : 0);
            if (whole >= best) /* not better, were it square */
                continue;
            const double value = whole * (1 + 0.001 * fabs(log((double)w / square)));
            if (value >= best)
                continue;
            best = value;
            t->band = w;
            t->by_rows = across == 0;
        }
    }
}

/* No larger than the product needs, unless asked for. */
static bool allowed(int64_t extent, int64_t wish, double size, int64_t least)
{
    return wish > 0 ? extent == wish : extent == least || (double)(extent - least) < size;
}

static void override_k(const struct tiling *w, int64_t unit, struct mm_tile *t)
{
    if (!w)
        return;
    const int64_t k = size_align(w->k, unit), room = t->kb;
    if (k > 0 && k < t->k0)
        t->k0 = k;
    if (k > 0 && k < t->kb && !w->l1k)
        t->kb = k / t->k0 * t->k0;
    if (w->l1k > 0 && w->l1k < room / t->k0)
        t->kb = w->l1k * t->k0;
    t->kb = t->kb / t->k0 * t->k0;
}

struct search {
    const struct machine *m;
    const struct mm *p;
    const struct mm_sizes *s;
    struct mm_rates rates;
    int64_t want_m, want_n;
    double slack;                   /* cycles that are no difference */
    bool parts;                     /* tiles may be divided in the last round */
    struct mm_tile best[FINALISTS]; /* the fastest first */
    double cycles[FINALISTS];
    int n;
};

/* Cycles as the finalists are chosen: fewer, wider tiles are fewer instructions to issue and to emulate, so that they
 * go before narrow ones that take as long. */
static double ranked(const struct search *x, double cycles, const struct mm_tile *t)
{
    const double widest = (double)extents_n[NPUC_ARRAY_LEN(extents_n) - 1];
    return cycles + x->slack * log2(widest / (double)t->n) / log2(widest / MM_FRACTAL);
}

/* One of the finalists, if it is as fast; of equal ones the earlier stays in front. */
static void keep(struct search *x, const struct mm_tile *t, double cycles)
{
    int at = x->n;
    for (int i = 0; i < x->n; i++)
        if (x->best[i].m == t->m && x->best[i].n == t->n && x->best[i].last_m == t->last_m &&
            x->best[i].last_n == t->last_n)
            return;
    while (at > 0 && cycles < x->cycles[at - 1])
        at--;
    if (at == FINALISTS)
        return;
    x->n = x->n < FINALISTS ? x->n + 1 : x->n;
    for (int i = x->n - 1; i > at; i--) {
        x->best[i] = x->best[i - 1];
        x->cycles[i] = x->cycles[i - 1];
    }
    x->best[at] = *t;
    x->cycles[at] = cycles;
}

/* The best blocks of K of a finalist; its cycles, INFINITY when none fits. */
static double best_blocks(const struct search *x, struct mm_tile *t)
{
    const struct mm_tile shape = *t;
    double least = INFINITY;
    for (int part = 0; part < K_PARTS; part++) {
        struct mm_tile with = shape;
        if (!fit_k(x->m, x->p, x->s->k, part, &with))
            continue;
        const double cycles = mm_timeline(x->m, x->p, x->s, &with, &x->rates);
        if (cycles < least) {
            least = cycles;
            *t = with;
        }
    }
    return least;
}

/* The fastest of the finalists, or the widest of those that are as fast, with the best blocks of K. */
static struct mm_tile finalist(struct search *x)
{
    double least = INFINITY;
    int best = -1;
    for (int i = 0; i < x->n; i++) {
        x->cycles[i] = best_blocks(x, &x->best[i]);
        least = mm_least(least, x->cycles[i]);
    }
    for (int i = 0; i < x->n; i++) {
        const struct mm_tile *t = &x->best[i], *was = best < 0 ? t : &x->best[best];
        if (x->cycles[i] <= least + x->slack &&
            (best < 0 || t->n > was->n || (t->n == was->n && x->cycles[i] < x->cycles[best])))
            best = i;
    }
    return best < 0 ? (struct mm_tile){.m = 0} : x->best[best];
}

/* Are the parts equal and whole fractals? */
static bool may_part(const struct search *x, const struct mm_tile *t)
{
    const int64_t unit = mm_extent_unit(x->m, x->p);
    return t->m % (t->last_m * unit) == 0 && t->n % (t->last_n * unit) == 0;
}

/* With the blocks of K that the closed form finds best. */
static void try_shape(struct search *x, const struct mm_tile *shape)
{
    double cycles = INFINITY;
    for (int part = 0; part < K_PARTS; part++) {
        struct mm_tile t = *shape;
        if (fit_k(x->m, x->p, x->s->k, part, &t))
            cycles = mm_least(cycles, mm_closed_form(x->m, x->p, x->s, &t, &x->rates));
    }
    if (cycles < (double)INFINITY)
        keep(x, shape, ranked(x, cycles, shape));
}

/* Divides the tiles of the last round among the cores that would be idle. */
static void try_parts(struct search *x, const struct mm_tile *t)
{
    const double tiles = x->s->batch * ceil(x->s->m / (double)t->m) * ceil(x->s->n / (double)t->n);
    const double rounds = floor(tiles / x->m->n_cube), left = tiles - rounds * x->m->n_cube;
    if (!x->parts || rounds > MANY_ROUNDS || left < 1 || 2 * left > x->m->n_cube)
        return;
    const int64_t most = (int64_t)(x->m->n_cube / left);
    for (int64_t m = 1; m <= most && m <= MOST_PARTS; m++) {
        struct mm_tile with = *t;
        with.last_m = m;
        with.last_n = most / m < MOST_PARTS ? most / m : MOST_PARTS;
        if (mm_last_parts(&with) > 1 && may_part(x, &with))
            try_shape(x, &with);
    }
}

static void try_tile(struct search *x, int64_t tile_m, int64_t tile_n)
{
    const int64_t least = mm_extent_unit(x->m, x->p);
    if (tile_m % least || tile_n % least || !allowed(tile_m, x->want_m, x->s->m, least) ||
        !allowed(tile_n, x->want_n, x->s->n, least))
        return;
    struct mm_tile shape = {.m = tile_m, .n = tile_n};
    choose_band(x->m, x->p, x->s, &x->rates, &shape);
    try_shape(x, &shape);
    try_parts(x, &shape);
}

/* Extent that gives every core the same number of tiles along one side. */
static int64_t even(double size, int64_t cores)
{
    return size_align(size_ceil_div((int64_t)mm_least(size, 1e9), cores), MM_FRACTAL);
}

struct mm_tile mm_choose_tile(const struct machine *m, const struct mm *p, const struct mm_sizes *s,
                              const struct tiling *w)
{
    struct search x = {
        .m = m,
        .p = p,
        .s = s,
        .rates = mm_rates_of(m, p),
        .slack = TIE * target_num(m->target, TK_LAUNCH) * target_num(m->target, TK_CLOCK),
        .want_m = w && w->m > 0 ? size_align(w->m, MM_FRACTAL) : 0,
        .want_n = w && w->n > 0 ? size_align(w->n, MM_FRACTAL) : 0,
        .parts = !p->feed && !p->tail && (!w || w->m == 0 || w->parts),
    };
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(extents_m); i++) {
        for (int64_t j = 0; j < NPUC_ARRAY_LEN(extents_n); j++)
            try_tile(&x, extents_m[i], extents_n[j]);
        for (int64_t rounds = 1; rounds <= EVEN_ROUNDS; rounds++) {
            const int64_t wide = even(s->n, m->n_cube * rounds);
            if (wide <= extents_n[NPUC_ARRAY_LEN(extents_n) - 1])
                try_tile(&x, extents_m[i], wide);
        }
    }
    struct mm_tile best = finalist(&x);
    if (best.m == 0) /* the wish is not in the lists, or does not fit */
        return w ? mm_choose_tile(m, p, s, NULL) : best;
    if (!p->feed)
        override_k(w, k_unit(m, p), &best);
    if (w && w->grid_m > 0 && w->grid_n > 0 && w->grid_m <= m->n_cube / w->grid_n) {
        best.grid_m = w->grid_m;
        best.grid_n = w->grid_n;
    }
    return best;
}
