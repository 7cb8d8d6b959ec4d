/* The time of a product by the equations of docs/clock.md: rows and lines of loads, first touches from memory, L0
 * copies, MACs, stores. What the clock finds by walking addresses (misses, places within lines) is a mean here. */
#include "backend/ascend/matmul_time.h"
#include "base/size.h"

#include <math.h>

#define STEP_CYCLES                                                                                                    \
    8 /* flags and issue per step of K: decides between extents that the units' times do not tell apart */
#define BLOCK_CYCLES  16   /* the same per block in L1; both are ranks, not measurements */
#define RESIDENT_L2   0.75 /* of L2 for operands: results and what cores run ahead take the rest */
#define WALKED_TILES  4    /* tiles in a row whose times are followed; further ones take as long as the last of them */
#define STEP_INSNS    6    /* in the queue of MTE1 for a step of K: copies and their flags */
#define MOST_AHEAD    16
#define WALKED_BLOCKS 24 /* blocks of K of a tile, likewise */

/* How fast the unit multiplies a type; what is not listed is multiplied as f16. */
static const struct {
    enum dtype dtype;
    enum target_key rate, k0;
} macs[] = {
    {DT_F32, TK_MAC_F32, TK_MAC_F32_K0},  {DT_I8, TK_MAC_I8, TK_MAC_I8_K0},   {DT_F8E4M3FN, TK_MAC_F8, TK_MAC_I8_K0},
    {DT_F8E5M2, TK_MAC_F8, TK_MAC_I8_K0}, {DT_HIF8, TK_MAC_F8, TK_MAC_I8_K0}, {DT_F4E2M1, TK_MAC_F4, TK_MAC_I4_K0},
};

struct mm_rates mm_rates_of(const struct machine *m, const struct mm *p)
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
    return (struct mm_rates){
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
        .queue = target_num(g, TK_QUEUE_DEPTH),
        .resident = RESIDENT_L2 * target_num(g, TK_L2_SIZE),
    };
}

double mm_reads(const struct mm_rates *r, double bytes, double bands, double beside)
{
    return bytes + beside <= r->resident ? 1 : bands;
}

/* ---- time ------------------------------------------------------------------------------------------------- */

struct load {             /* one operand of a block */
    double rows, bytes;   /* bursts and their length */
    int64_t step, stride; /* bytes between blocks along a burst, between bursts; stride 0: not known */
    double miss;          /* share of bytes from memory */
    bool nz;              /* stored in fractals */
};

/* Bytes of a burst with what its lines hold beside: the mean over the blocks' places within a line. */
static double touched(const struct mm_rates *r, const struct load *l)
{
    const int64_t rest = (int64_t)l->bytes % r->line;
    int64_t skew = 0, over = 0, n = 0;
    if (l->nz || l->rows <= 1)
        return l->bytes;
    if (l->stride % r->line != 0)
        return l->bytes + mm_least(l->bytes, (double)r->line);
    do {
        over += skew + rest > r->line || (rest == 0 && skew > 0);
        skew = (skew + l->step) % r->line;
        n++;
    } while (skew != 0 && n < r->line);
    return l->bytes + (double)(over * r->line) / (double)n;
}

static double load_cycles(const struct mm_rates *r, const struct load *l, double cores)
{
    const double rate = l->nz ? r->l2 : r->l2 / r->nd2nz, bus = l->rows * touched(r, l), rows = l->rows * r->row;
    const double part = l->bytes / (double)r->line, memory = mm_least(rate, r->hbm / r->clock / cores);
    const double hit = mm_most(bus / rate, rows), lost = part < 1 ? rows * (1 - part) : 0;
    return mm_most(mm_most(r->floor, rows), (1 - l->miss) * hit + l->miss * (lost + bus / memory));
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

/* Shares of the bytes of a and b that come from memory. */
static void misses(const struct mm *p, const struct mm_sizes *s, const struct mm_tile *t, const struct mm_rates *r,
                   double miss[2])
{
    const double es = dtype_size(p->in);
    const double mt = ceil(s->m / (double)t->m), nt = ceil(s->n / (double)t->n), w = (double)t->band;
    const double a = s->m * s->k * es, b = s->n * s->k * es;
    const double bands = ceil((t->by_rows ? mt : nt) / w);
    const double band = w * (double)(t->by_rows ? t->m : t->n) * s->k * es;
    miss[0] = mm_least(1, (t->by_rows ? 1 : mm_reads(r, a, bands, 2 * band)) / nt);
    miss[1] = mm_least(1, (t->by_rows ? mm_reads(r, b, bands, 2 * band) : 1) / mt);
}

/* The loads of a block's scales. */
static double scale_cycles(const struct mm *p, const struct mm_sizes *s, const struct mm_tile *t,
                           const struct mm_rates *r, const double miss[2])
{
    const double n = (double)mm_scale_row(p, t->kb), all = (double)mm_scale_row(p, (int64_t)s->k);
    if (!p->block)
        return 0;
    const double size[2] = {1, all};
    struct load a = operand(mm_least((double)t->m, s->m), n, n, p->a_trans ? (double[2]){1, s->m} : size, p->a_trans);
    struct load b = operand(mm_least((double)t->n, s->n), n, n, !p->b_trans ? (double[2]){1, s->n} : size, !p->b_trans);
    a.miss = miss[0];
    b.miss = miss[1];
    return load_cycles(r, &a, s->cores) + load_cycles(r, &b, s->cores);
}

/* The loads of one block of K for a and b; miss: shares from memory. */
static double block_cycles(const struct mm *p, const struct mm_sizes *s, const struct mm_tile *t,
                           const struct mm_rates *r, const double miss[2])
{
    const struct ir_ctx *cx = p->a->graph->module->cx;
    const double es = dtype_size(p->in), im = mm_least((double)t->m, s->m), in = mm_least((double)t->n, s->n);
    const double k = mm_least((double)t->kb, s->k), cores = s->cores;
    struct load a = operand(im, k, (double)t->kb, (double[]){es, known(cx, p->a_row)}, p->a_trans);
    a.miss = miss[0];
    if (p->feed) /* made a moment ago */
        return load_cycles(r, &a, cores) + in * k * es / r->l2;
    struct load b = operand(in, k, (double)t->kb, (double[]){es, known(cx, p->b_row)}, !p->b_trans);
    if (p->weight)
        b = (struct load){.rows = ceil(k * es / 32), .bytes = ceil(in / MM_FRACTAL) * MM_FRACTAL * 32, .nz = true};
    b.miss = miss[1];
    return load_cycles(r, &a, cores) + load_cycles(r, &b, cores) + scale_cycles(p, s, t, r, miss);
}

/* Cycles of the units for a tile. */
struct tile_units {
    double blocks, steps; /* of K; the last ones count as parts of all */
    double load, made;    /* of a block: by MTE2; by vector cores before it */
    double copy, mac;     /* of a step */
    double fix;           /* of the tile */
    double latency;       /* of a load */
};

/* With s->cores reading. */
static struct tile_units units_of(const struct machine *m, const struct mm *p, const struct mm_sizes *s,
                                  const struct mm_tile *t, const struct mm_rates *r)
{
    double miss[2];
    misses(p, s, t, r, miss);
    const double es = dtype_size(p->in), im = mm_least((double)t->m, s->m), in = mm_least((double)t->n, s->n);
    const double kb = mm_least((double)t->kb, s->k), blocks = mm_most(1, ceil(s->k / (double)t->kb));
    const double filled = mm_least(1, s->k / (blocks * kb)), steps = blocks * ceil(kb / (double)t->k0);
    const double scales = p->block ? (double)mm_scale_row(p, (int64_t)s->k) * (im + in) / r->mx : 0;
    const double m16 = ceil(im / MM_FRACTAL) * MM_FRACTAL, n16 = ceil(in / MM_FRACTAL) * MM_FRACTAL;
    return (struct tile_units){
        .blocks = blocks,
        .steps = steps,
        .load = block_cycles(p, s, t, r, miss) * filled + BLOCK_CYCLES,
        .made = p->feed ? p->feed->cycles(p->feed, m, t) : 0,
        .copy = ((im / r->l0a + in / r->l0b) * s->k * es + scales) / steps + (p->block ? 4 : 2) * r->mte1_latency +
                STEP_CYCLES,
        .mac = m16 * n16 * ceil(s->k / r->mac_k0) * r->mac_k0 / r->mac / steps + STEP_CYCLES,
        .fix = mm_most(im * in / r->fix, im * in * dtype_size(p->out) / r->fix_bytes),
        .latency = r->latency + mm_most(miss[0], miss[1]) * r->miss_latency,
    };
}

/* Whole rounds of all cores, and a last one of tiles or parts that are left, which share memory among fewer. */
struct rounds {
    double whole, left; /* left: cores in the last one */
    struct tile_units all, some;
};

static void divide(const struct machine *m, const struct mm *p, const struct mm_sizes *given, const struct mm_tile *t,
                   const struct mm_rates *r, struct rounds *out)
{
    struct mm_sizes s = *given;
    const double mt = ceil(s.m / (double)t->m), nt = ceil(s.n / (double)t->n), tiles = s.batch * mt * nt;
    const double im = mm_least((double)t->m, s.m), in = mm_least((double)t->n, s.n);
    const double filled = s.m / (mt * im) * s.n / (nt * in); /* tiles of the edge ask for less */
    struct mm_tile last = *t;
    out->whole = floor(tiles / m->n_cube);
    out->left = tiles - out->whole * m->n_cube;
    const double parts = (double)mm_last_parts(t);
    if (parts > 1 && out->left * parts <= m->n_cube) {
        last.m /= t->last_m;
        last.n /= t->last_n;
        out->left *= parts;
    }
    s.cores = mm_most(1, m->n_cube * filled);
    out->all = units_of(m, p, &s, t, r);
    s.cores = mm_most(1, out->left * filled);
    out->some = out->left > 0 ? units_of(m, p, &s, &last, r) : out->all;
}

static double closed_tile(const struct tile_units *u, const struct mm_tile *t, const struct mm_rates *r)
{
    const double mac = u->steps * u->mac + r->mac_head, made = u->blocks * u->made;
    const double store = t->acc_slots > 1 ? mm_most(mac, u->fix) : mac + u->fix + r->turnround;
    return mm_most(mm_most(made, u->blocks * u->load), mm_most(u->steps * u->copy, store));
}

double mm_closed_form(const struct machine *m, const struct mm *p, const struct mm_sizes *s, const struct mm_tile *t,
                      const struct mm_rates *r)
{
    struct rounds n;
    divide(m, p, s, t, r, &n);
    const struct tile_units *u = n.whole > 0 ? &n.all : &n.some;
    const double mac = u->steps * u->mac, tail = t->acc_slots > 1 ? u->fix : 0;
    const double fill = u->load + u->latency + u->made + tail + (u->blocks * u->load > mac ? mac / u->blocks : 0);
    return n.whole * closed_tile(&n.all, t, r) + (n.left > 0 ? closed_tile(&n.some, t, r) : 0) + fill;
}

/* ---- timeline ---------------------------------------------------------------------------------------------- */

struct line {
    const struct mm_rates *r;
    int acc_slots;
    double made, mte2, mte1, mac, fix;  /* when the units are free */
    double l1[2], l0[2], acc[2];        /* and the slots */
    double began[MOST_AHEAD];           /* copies of the last steps, as the scalar unit issued them */
    int64_t ahead;                      /* steps that MTE1's queue holds */
    int64_t n_blocks, n_steps, n_tiles; /* so far */
};

static void walk_block(struct line *x, const struct tile_units *u, double steps, bool first)
{
    double *const l1 = &x->l1[x->n_blocks++ % 2], *const acc = &x->acc[x->n_tiles % x->acc_slots];
    x->made += u->made;
    /* Program order: the load is issued behind the copies of the block before, as far as these find room. */
    const double issue = x->began[x->n_steps % x->ahead];
    x->mte2 = mm_most(mm_most(mm_most(x->mte2, issue), *l1), x->made) + u->load;
    const double there = x->mte2 + u->latency;
    for (double i = 0; i < steps; i++) {
        double *const l0 = &x->l0[x->n_steps % 2];
        const bool starts = first && i == 0;
        x->mte1 = mm_most(mm_most(x->mte1, there), *l0);
        x->began[x->n_steps++ % x->ahead] = x->mte1;
        x->mte1 += u->copy;
        const double begin = mm_most(mm_most(x->mac, x->mte1), starts ? *acc : 0);
        x->mac = begin + (begin > x->mac ? x->r->mac_head : 0) + u->mac;
        *l0 = x->mac;
    }
    *l1 = x->mte1;
}

static void shift(struct line *x, double by)
{
    double *const times[] = {&x->made,  &x->mte2,  &x->mte1,  &x->mac,    &x->fix,   &x->l1[0],
                             &x->l1[1], &x->l0[0], &x->l0[1], &x->acc[0], &x->acc[1]};
    for (int i = 0; i < NPUC_ARRAY_LEN(times); i++)
        *times[i] += by;
    for (int64_t i = 0; i < x->ahead; i++)
        x->began[i] += by;
}

static void walk_tile(struct line *x, const struct tile_units *u)
{
    const double steps = u->steps / u->blocks, walked = mm_least(u->blocks, WALKED_BLOCKS);
    for (double b = 0; b < walked; b++) {
        const double before = x->mac;
        walk_block(x, u, steps, b == 0);
        if (b + 2 == walked && u->blocks > walked)
            shift(x, (u->blocks - walked) * (x->mac - before));
    }
    x->fix = mm_most(x->fix, x->mac) + u->fix;
    x->acc[x->n_tiles++ % x->acc_slots] = x->fix + x->r->turnround;
}

double mm_timeline(const struct machine *m, const struct mm *p, const struct mm_sizes *s, const struct mm_tile *t,
                   const struct mm_rates *r)
{
    struct rounds n;
    struct line x = {.r = r, .acc_slots = t->acc_slots > 1 ? 2 : 1};
    divide(m, p, s, t, r, &n);
    x.ahead = (int64_t)mm_least(MOST_AHEAD, mm_most(1, floor(r->queue / STEP_INSNS)));
    const double walked = mm_least(n.whole, WALKED_TILES);
    for (double i = 0; i < walked; i++) {
        const double before = x.fix;
        walk_tile(&x, &n.all);
        if (i + 1 == walked && n.whole > walked)
            shift(&x, (n.whole - walked) * (x.fix - before));
    }
    if (n.left > 0)
        walk_tile(&x, &n.some);
    return x.fix;
}

double mm_tile_cycles(const struct machine *m, const struct mm *p, const struct mm_sizes *s, const struct mm_tile *t)
{
    const struct mm_rates r = mm_rates_of(m, p);
    return mm_timeline(m, p, s, t, &r);
}
