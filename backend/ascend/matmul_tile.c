/* Choice of tile extents for a product: every candidate that fits is timed with the closed form of the clock
 * (docs/clock.md: rows and lines of loads, first touches from memory, L0 copies, MACs, stores hidden when the
 * accumulators are doubled) times the rounds of the busiest core. Extents and the order of tiles change no bits: K is
 * walked in ascending order in one chain of accumulation. Refused: K divided among cores whose sums are added, which
 * rounds floats otherwise. */
#include "backend/ascend/matmul.h"
#include "base/size.h"

#include <math.h>

#define FRACTAL 16
#define STEP_CYCLES                                                                                                    \
    8 /* flags and issue per step of K: decides between extents that the units' times do not tell apart */
#define BLOCK_CYCLES 16 /* the same per block in L1; both are ranks, not measurements */

#define RESIDENT_L2 0.75 /* of L2 for operands: results and what cores run ahead take the rest */
#define EVEN_ROUNDS 8    /* widths of tiles that give every core the same number of columns of tiles, up to so many */

static const int64_t extents_m[] = {16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256};
static const int64_t extents_n[] = {16, 32, 48, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512};

struct rates {
    double l2, hbm, nd2nz, floor, row, latency, miss_latency, l0a, l0b, mx, mte1_latency, mac, mac_k0, mac_head, fix,
        fix_bytes, turnround, clock;
    int64_t line;
};

/* How fast the unit multiplies a type; what is not listed is multiplied as f16. */
static const struct {
    enum dtype dtype;
    enum target_key rate, k0;
} macs[] = {
    {DT_F32, TK_MAC_F32, TK_MAC_F32_K0},  {DT_I8, TK_MAC_I8, TK_MAC_I8_K0},     {DT_F8E4M3FN, TK_MAC_F8, TK_MAC_I8_K0},
    {DT_F8E5M2, TK_MAC_F8, TK_MAC_I8_K0}, {DT_F4E2M1, TK_MAC_F4, TK_MAC_I4_K0},
};

static struct rates rates_of(const struct machine *m, const struct mm *p)
{
    const struct target *g = m->target;
    const enum dtype t = mm_code(p);
    const double pack = (double)mm_pack(p);
    enum target_key rate = TK_MAC_F16, k0 = TK_MAC_F16_K0;
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(macs); i++)
        if (macs[i].dtype == t) {
            rate = macs[i].rate;
            k0 = macs[i].k0;
        }
    return (struct rates){
        .l2 = target_num(g, TK_MTE2_CUBE_RATE),
        .nd2nz = target_num(g, TK_MTE2_ND2NZ),
        .floor = target_num(g, TK_MTE2_FLOOR),
        .row = target_num(g, TK_MTE2_ROW),
        .line = (int64_t)target_num(g, TK_MTE2_LINE),
        .latency = target_num(g, TK_MTE2_LATENCY),
        .miss_latency = target_num(g, TK_MTE2_MISS_LATENCY),
        .l0a = target_num(g, TK_MTE1_L0A_RATE),
        .l0b = target_num(g, TK_MTE1_L0B_RATE),
        .mte1_latency = target_num(g, TK_MTE1_LATENCY),
        .mac = target_num(g, rate) / pack, /* elements of K */
        .mac_k0 = target_num(g, k0) / pack,
        .mx = p->block ? target_num(g, TK_MTE1_MX_RATE) : 1,
        .mac_head = target_num(g, TK_MAC_HEAD),
        .fix = target_num(g, TK_FIX_ELEMENTS),
        .fix_bytes = target_num(g, TK_FIX_RATE),
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

static int64_t k_unit(const struct machine *m, const struct mm *p)
{
    const int64_t c0 = m->c0_bytes / dtype_size(p->in);
    return c0 > FRACTAL ? c0 : FRACTAL; /* a transposing copy walks 16 rows of K at a time */
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

/* ---- time ------------------------------------------------------------------------------------------------- */

struct load {             /* one operand of a block */
    double rows, bytes;   /* bursts and their length */
    int64_t step, stride; /* bytes between blocks along a burst, between bursts; stride 0: not known */
    double miss;          /* share of bytes from memory */
    bool nz;              /* stored in fractals */
};

/* Bytes of a burst with what its lines hold beside: the mean over the blocks' places within a line. */
static double touched(const struct rates *r, const struct load *l)
{
    const int64_t rest = (int64_t)l->bytes % r->line;
    int64_t skew = 0, over = 0, n = 0;
    if (l->nz || l->rows <= 1)
        return l->bytes;
    if (l->stride % r->line != 0)
        return l->bytes + fmin(l->bytes, (double)r->line);
    do {
        over += skew + rest > r->line || (rest == 0 && skew > 0);
        skew = (skew + l->step) % r->line;
        n++;
    } while (skew != 0 && n < r->line);
    return l->bytes + (double)(over * r->line) / (double)n;
}

static double load_cycles(const struct rates *r, const struct load *l, double cores)
{
    const double rate = l->nz ? r->l2 : r->l2 / r->nd2nz, bus = l->rows * touched(r, l), rows = l->rows * r->row;
    const double part = l->bytes / (double)r->line, memory = fmin(rate, r->hbm / r->clock / cores);
    const double hit = fmax(bus / rate, rows), lost = part < 1 ? rows * (1 - part) : 0;
    return fmax(fmax(r->floor, rows), (1 - l->miss) * hit + l->miss * (lost + bus / memory));
}

static double known(const struct ir_ctx *cx, expr e)
{
    int64_t v;
    return expr_is_const(&cx->exprs, e, &v) ? (double)v : 0;
}

static struct load operand(double rows, double k, double block, const double row_bytes[2], bool k_major)
{
    const double es = row_bytes[0], stride = row_bytes[1] * es;
    return (struct load){.rows = k_major ? k : rows,
                         .bytes = (k_major ? rows : k) * es,
                         .step = (int64_t)((k_major ? rows : block) * es),
                         .stride = (int64_t)stride};
}

/* ---- order of tiles ---------------------------------------------------------------------------------------- */

/* How often an operand comes from memory, being read once per band: once when it stays in L2 beside a band of the
 * other. */
static double reads(double bytes, double bands, double beside, double l2)
{
    return bytes + beside <= l2 ? 1 : bands;
}

/* The band whose operands come from memory least; among equal ones that in which the cores of a round make a square,
 * so that they share lines of both operands. */
static void choose_band(const struct machine *m, const struct mm *p, const struct mm_sizes *s, struct mm_tile *t)
{
    const double es = dtype_size(p->in), l2 = RESIDENT_L2 * target_num(m->target, TK_L2_SIZE), cores = m->n_cube;
    const double side[2] = {s->m * s->k * es, s->n * s->k * es}, tile[2] = {(double)t->m, (double)t->n};
    const double count[2] = {ceil(s->m / tile[0]), ceil(s->n / tile[1])};
    double best = INFINITY;
    t->band = 1;
    for (int across = 1; across >= 0; across--) {
        const double square = sqrt(cores * tile[1 - across] / tile[across]);
        for (int64_t w = 1; (double)w <= fmin(count[across], cores); w++) {
            const double band = (double)w * tile[across] * s->k * es, n = ceil(count[across] / (double)w);
            const double bytes = side[across] + side[1 - across] * reads(side[1 - across], n, 2 * band, l2);
            const double value = (bytes + (band > l2 / 2 ? bytes : 0)) * (1 + 0.001 * fabs(log((double)w / square)));
            if (value >= best)
                continue;
            best = value;
            t->band = w;
            t->by_rows = across == 0;
        }
    }
}

/* Shares of the bytes of a and b that come from memory. */
static void misses(const struct machine *m, const struct mm *p, const struct mm_sizes *s, const struct mm_tile *t,
                   double miss[2])
{
    const double es = dtype_size(p->in), l2 = RESIDENT_L2 * target_num(m->target, TK_L2_SIZE);
    const double mt = ceil(s->m / (double)t->m), nt = ceil(s->n / (double)t->n), w = (double)t->band;
    const double a = s->m * s->k * es, b = s->n * s->k * es;
    const double bands = ceil((t->by_rows ? mt : nt) / w);
    const double band = w * (double)(t->by_rows ? t->m : t->n) * s->k * es;
    miss[0] = fmin(1, (t->by_rows ? 1 : reads(a, bands, 2 * band, l2)) / nt);
    miss[1] = fmin(1, (t->by_rows ? reads(b, bands, 2 * band, l2) : 1) / mt);
}

/* The loads of a block's scales. */
static double scale_cycles(const struct mm *p, const struct mm_sizes *s, const struct mm_tile *t, const struct rates *r,
                           const double miss[2])
{
    const double n = (double)mm_scale_row(p, t->kb), all = (double)mm_scale_row(p, (int64_t)s->k);
    if (!p->block)
        return 0;
    const double size[2] = {1, all};
    struct load a = operand(fmin((double)t->m, s->m), n, n, p->a_trans ? (double[2]){1, s->m} : size, p->a_trans);
    struct load b = operand(fmin((double)t->n, s->n), n, n, !p->b_trans ? (double[2]){1, s->n} : size, !p->b_trans);
    a.miss = miss[0];
    b.miss = miss[1];
    return load_cycles(r, &a, s->cores) + load_cycles(r, &b, s->cores);
}

/* The loads of one block of K for a and b; miss: shares from memory. */
static double block_cycles(const struct mm *p, const struct mm_sizes *s, const struct mm_tile *t, const struct rates *r,
                           const double miss[2])
{
    const struct ir_ctx *cx = p->a->graph->module->cx;
    const double es = dtype_size(p->in), im = fmin((double)t->m, s->m), in = fmin((double)t->n, s->n);
    const double k = fmin((double)t->kb, s->k), cores = s->cores;
    struct load a = operand(im, k, (double)t->kb, (double[]){es, known(cx, p->a_row)}, p->a_trans);
    a.miss = miss[0];
    if (p->feed) /* made a moment ago */
        return load_cycles(r, &a, cores) + in * k * es / r->l2;
    struct load b = operand(in, k, (double)t->kb, (double[]){es, known(cx, p->b_row)}, !p->b_trans);
    if (p->weight)
        b = (struct load){.rows = ceil(k * es / 32), .bytes = ceil(in / FRACTAL) * FRACTAL * 32, .nz = true};
    b.miss = miss[1];
    return load_cycles(r, &a, cores) + load_cycles(r, &b, cores) + scale_cycles(p, s, t, r, miss);
}

struct tile_time {
    double tile;     /* in the middle of many */
    double fill_out; /* what the first MAC waits for, and what is left after the last */
};

/* With s->cores running. */
static struct tile_time tile_time(const struct machine *m, const struct mm *p, const struct mm_sizes *given,
                                  const struct mm_tile *t, const struct rates *rates)
{
    const struct rates r = *rates;
    const struct mm_sizes s = *given;
    double miss[2];
    misses(m, p, given, t, miss);
    const double es = dtype_size(p->in), im = fmin((double)t->m, s.m), in = fmin((double)t->n, s.n);
    const double blocks = ceil(s.k / (double)t->kb), steps = ceil(s.k / (double)t->k0);
    const double block = block_cycles(p, &s, t, &r, miss), mte2 = blocks * block + BLOCK_CYCLES * blocks;
    const double scales = (double)mm_scale_row(p, (int64_t)s.k) * (im + in) / r.mx + 2 * r.mte1_latency * steps;
    const double mte1 = (im / r.l0a + in / r.l0b) * s.k * es + 2 * r.mte1_latency * steps + STEP_CYCLES * steps +
                        (p->block ? scales : 0);
    const double m16 = ceil(im / FRACTAL) * FRACTAL, n16 = ceil(in / FRACTAL) * FRACTAL;
    const double mac =
        m16 * n16 * ceil(s.k / r.mac_k0) * r.mac_k0 / r.mac + r.mac_head + STEP_CYCLES * steps + BLOCK_CYCLES * blocks;
    const double fix = fmax(im * in / r.fix, im * in * dtype_size(p->out) / r.fix_bytes);
    const double made = p->feed ? blocks * p->feed->cycles(p->feed, m, t) : 0;
    const double store = t->acc_slots > 1 ? fmax(mac, fix) : mac + fix + r.turnround;
    const double tile = fmax(fmax(made, mte2), fmax(mte1, store));
    const double first = block + r.latency + made / blocks;
    return (struct tile_time){tile, first + fix + (mte2 > mac ? mac / blocks : 0)};
}

/* Whole rounds of all cores, and a last one of those that are left, which share memory among fewer. */
static double product_cycles(const struct machine *m, const struct mm *p, const struct mm_sizes *given,
                             const struct mm_tile *t, const struct rates *r)
{
    struct mm_sizes s = *given;
    const double tiles = s.batch * ceil(s.m / (double)t->m) * ceil(s.n / (double)t->n);
    const double rounds = floor(tiles / m->n_cube), left = tiles - rounds * m->n_cube;
    struct tile_time some = {0, 0}, all = {0, 0};
    if (left > 0) {
        s.cores = left;
        some = tile_time(m, p, &s, t, r);
    }
    if (rounds > 0) {
        s.cores = m->n_cube;
        all = tile_time(m, p, &s, t, r);
    }
    return rounds * all.tile + some.tile + (rounds > 0 ? all.fill_out : some.fill_out);
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
    struct rates rates;
    int64_t want_m, want_n;
    struct mm_tile best;
    double cycles;
};

static void try_tile(struct search *x, int64_t tile_m, int64_t tile_n)
{
    /* An operand turned on the way to L0 stands in whole lines. */
    const int64_t least = k_unit(x->m, x->p) * mm_pack(x->p);
    if (tile_m % least || tile_n % least || !allowed(tile_m, x->want_m, x->s->m, least) ||
        !allowed(tile_n, x->want_n, x->s->n, least))
        return;
    struct mm_tile shape = {.m = tile_m, .n = tile_n};
    choose_band(x->m, x->p, x->s, &shape);
    for (int part = 0; part < 4; part++) {
        struct mm_tile t = shape;
        if (!fit_k(x->m, x->p, x->s->k, part, &t))
            continue;
        const double cycles = product_cycles(x->m, x->p, x->s, &t, &x->rates);
        if (cycles < x->cycles) {
            x->best = t;
            x->cycles = cycles;
        }
    }
}

/* Extent that gives every core the same number of tiles along one side. */
static int64_t even(double size, int64_t cores)
{
    return size_align(size_ceil_div((int64_t)fmin(size, 1e9), cores), FRACTAL);
}

struct mm_tile mm_choose_tile(const struct machine *m, const struct mm *p, const struct mm_sizes *s,
                              const struct tiling *w)
{
    struct search x = {.m = m,
                       .p = p,
                       .s = s,
                       .rates = rates_of(m, p),
                       .want_m = w && w->m > 0 ? size_align(w->m, FRACTAL) : 0,
                       .want_n = w && w->n > 0 ? size_align(w->n, FRACTAL) : 0,
                       .cycles = INFINITY};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(extents_m); i++) {
        for (int64_t j = 0; j < NPUC_ARRAY_LEN(extents_n); j++)
            try_tile(&x, extents_m[i], extents_n[j]);
        for (int64_t rounds = 1; rounds <= EVEN_ROUNDS; rounds++) {
            const int64_t wide = even(s->n, m->n_cube * rounds);
            if (wide <= extents_n[NPUC_ARRAY_LEN(extents_n) - 1])
                try_tile(&x, extents_m[i], wide);
        }
    }
    if (x.best.m == 0) /* the wish is not in the lists, or does not fit */
        return w ? mm_choose_tile(m, p, s, NULL) : x.best;
    if (!p->feed)
        override_k(w, k_unit(m, p), &x.best);
    if (w && w->grid_m > 0 && w->grid_n > 0 && w->grid_m <= m->n_cube / w->grid_n) {
        x.best.grid_m = w->grid_m;
        x.best.grid_n = w->grid_n;
    }
    return x.best;
}

double mm_tile_cycles(const struct machine *m, const struct mm *p, const struct mm_sizes *s, const struct mm_tile *t)
{
    const struct rates r = rates_of(m, p);
    return product_cycles(m, p, s, t, &r);
}
