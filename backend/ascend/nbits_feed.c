/* A quantised weight as a product's feed: each vector core of a block makes half of the columns of the cube core's next
 * block of weights, in the order of L1.
 *
 *   for each group of blocks:   codes, scales, zero points to UB          one long run per row
 *     for each block:           dequantise stripe by stripe of c0 codes   UB then holds [k/c0][rows][c0]
 *                               store                                     long runs, and no 32-byte pieces
 *
 * Groups are wider than blocks because codes are narrow: a block of 256 codes of 4 bits is 128 bytes of a row. Refused:
 * dequantising row by row and storing stripes, where each burst has 32 bytes. */
#include "backend/ascend/nbits.h"
#include "base/size.h"

#include <math.h>

#define WORKSPACE_SLOTS 4    /* two being moved, two on their way between the cores */
#define GOOD_BLOCK      256  /* codes: longer blocks delay the first product, shorter ones cost flags */
#define MOST_GROUP      2048 /* codes */

static const struct nbits_feed *self(const struct mm_feed *f)
{
    return (const struct nbits_feed *)(const void *)f; /* its first member */
}

/* The longest block that fits beside a group, 0 or less: none. */
static int64_t most_block(const struct machine *m, const struct nbits *q, int64_t rows, int64_t group)
{
    struct nbits_tile t = {.q = q, .rows = rows, .cols = group};
    const int64_t slack = 8 * m->align[TS_UB]; /* starts of four rings */
    return ((m->size[TS_UB] - slack) / 2 - nbits_tile_bytes(&t)) / (rows * dtype_size(q->to));
}

/* Full bursts of codes first, then blocks of a good length. */
static double value_of(const struct machine *m, const struct nbits *q, int64_t group, int64_t kb)
{
    const double line = target_num(m->target, TK_MTE2_LINE);
    const double block = (double)kb / GOOD_BLOCK;
    return fmin(1, (double)(group * q->bits) / 8 / line) + fmin(block, 1 / block);
}

static bool feed_fit(const struct mm_feed *base, const struct machine *m, int64_t most, struct mm_tile *t)
{
    const struct nbits_feed *f = self(base);
    const struct nbits *q = f->q;
    const int64_t line = nbits_line(q), whole = size_align(q->k, line), unit = nbits_unit(q), rows = t->n / 2;
    const int64_t step = whole < unit ? whole : unit; /* a row in one cut needs no unit */
    most = f->wish_k > 0 && f->wish_k < most ? size_align(f->wish_k, line) : most;
    double best = 0;
    for (int64_t group = step; group < whole + step && (group <= MOST_GROUP || group == step); group += step) {
        const int64_t room = most_block(m, q, rows, group), limit = room < most ? room : most;
        if (room < line)
            break;
        bool good = false; /* shorter blocks than a good one only get worse */
        for (int64_t n = size_ceil_div(group, limit); !good && group / n >= line; n++) {
            const int64_t kb = group / n;
            if (group % n != 0 || kb % line != 0)
                continue;
            good = kb <= GOOD_BLOCK;
            const double value = value_of(m, q, group, kb);
            if (value <= best)
                continue;
            best = value;
            t->kb = kb;
            t->group = n;
        }
    }
    return best > 0;
}

/* The slowest of the units of one vector core for one block; the closed form of the clock, see docs/clock.md. */
static double feed_cycles(const struct mm_feed *base, const struct machine *m, const struct mm_tile *t)
{
    const struct nbits *q = self(base)->q;
    const struct target *g = m->target;
    const double rows = (double)t->n / 2, kb = (double)t->kb, bytes = dtype_size(q->to);
    const double stripes = kb * bytes / (double)m->c0_bytes;
    const double repeats = ceil(rows * (double)m->c0_bytes / target_num(g, TK_VEC_BYTES));
    const double vec = stripes * (target_num(g, TK_VEC_FIXED) + repeats * target_num(g, TK_VEC_DEQUANT));
    const double out = fmax(rows * kb * bytes / target_num(g, TK_MTE3_RATE), target_num(g, TK_MTE3_FLOOR));
    const double rate = target_num(g, TK_MTE2_COLD_RATE), line = target_num(g, TK_MTE2_LINE);
    const double run = fmax(kb * (double)t->group * (double)q->bits / 8, line) + line * (q->zero_kind ? 2 : 1);
    return fmax(vec, fmax(out, rows * run / rate / (double)t->group));
}

static void feed_declare(struct mm_feed *base, struct emit *e, struct tile_builder *b)
{
    struct nbits_feed *f = (struct nbits_feed *)(void *)base;
    (void)e;
    nbits_declare(&f->tile, f->q, b);
    for (int i = 1; i < f->n; i++) { /* their tensors follow */
        struct nbits_tile other = {.part = i};
        nbits_declare(&other, &f->q[i], b);
    }
}

static void feed_begin(struct mm_feed *base, const struct machine *m, const struct mm_tile *t)
{
    struct nbits_feed *f = (struct nbits_feed *)(void *)base;
    f->c0 = m->c0_bytes / dtype_size(f->q->to);
    f->pitch = t->n;
    f->kb = t->kb;
    f->tile.rows = t->n / 2;
    f->tile.cols = t->kb * t->group;
    nbits_buffers(&f->tile);
    f->out = tile_buf(f->tile.b, "w", TS_UB, f->q->to, 2, f->tile.rows * f->kb * dtype_size(f->q->to));
}

static void feed_load(struct mm_feed *base, const struct mm_part *p)
{
    struct nbits_feed *f = (struct nbits_feed *)(void *)base;
    f->tile.n0 = p->n0;
    f->tile.in = p->in;
    f->tile.k0 = p->k0;
    f->tile.ik = p->ik;
    if (f->n == 1) {
        nbits_load(&f->tile);
        return;
    }
    for (int i = 0; i < f->n; i++) {
        struct tile_builder *b = f->tile.b;
        struct nbits_tile t = f->tile;
        t.tensor += i * nbits_tensor_count(f->q);
        tile_if(b, expr_cmp(&b->k->exprs, EXPR_EQ, p->which, expr_const(&b->k->exprs, i)));
        nbits_load(&t);
        tile_end(b);
    }
}

static void feed_make(struct mm_feed *base, const struct mm_part *p)
{
    struct nbits_feed *f = (struct nbits_feed *)(void *)base;
    nbits_dequant(&f->tile, &(struct nbits_dst){.buf = f->out, .c0 = f->c0, .first = p->done, .cols = p->ik});
}

static void feed_store(struct mm_feed *base, const struct mm_part *p)
{
    struct nbits_feed *f = (struct nbits_feed *)(void *)base;
    struct tile_builder *b = f->tile.b;
    struct expr_pool *x = &b->k->exprs;
    const expr z = expr_const(x, 0), one = expr_const(x, 1), c0 = expr_const(x, f->c0);
    TILE(b, STORE, p->tensor, p->off, f->out, z, f->q->to, one, expr_ceildiv(x, p->ik, c0), one, expr_mul(x, p->in, c0),
         z, expr_const(x, f->tile.rows * f->c0), z, one, z, expr_const(x, f->pitch * f->c0), z, one);
}

void nbits_feed_init(struct nbits_feed *f, const struct nbits *q, int n, const struct machine *m,
                     const struct tiling *w)
{
    const int32_t each = nbits_tensor_count(q);
    *f = (struct nbits_feed){.feed = {.slots = WORKSPACE_SLOTS,
                                      .n_tensors = n * each,
                                      .fit = feed_fit,
                                      .cycles = feed_cycles,
                                      .declare = feed_declare,
                                      .begin = feed_begin,
                                      .load = feed_load,
                                      .make = feed_make,
                                      .store = feed_store},
                             .q = q,
                             .n = n,
                             .wish_k = w ? w->k : 0,
                             .c0 = m->c0_bytes / dtype_size(q->to)};
    for (int32_t i = 0; i < f->feed.n_tensors; i++)
        f->feed.tensors[i] = q[i / each].tensors[i % each];
}

uint64_t nbits_feed_key(const struct nbits_feed *f)
{
    const struct nbits *q = f->q;
    const int64_t k[] = {q->to,     q->scale_type, q->code,     q->n,        q->k,      q->bits,      q->block,
                         q->blocks, q->zero_kind,  q->code_row, q->zero_row, f->wish_k, f->feed.slots};
    return map_hash_bytes(k, (int64_t)sizeof k);
}
