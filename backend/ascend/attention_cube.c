/* The cube core of a block:
 *
 *   for each step i, and ATT_AHEAD more:
 *     scores of step i to the workspace             q is loaded with an item's first chunk
 *     wait for the probabilities of step i - ATT_AHEAD; their product with the chunk's values to the workspace
 *
 * Where there is no such step, extents are zero. All blocks of a step are written out one after the other, with buffers
 * taken in turn, so that nothing is drained between steps. K ascends in one chain of accumulation, as in any product.
 */
#include <stdio.h>

#include "backend/ascend/attention.h"

#define MAX_BUFS 16

/* An operand on its way from memory to L1. */
struct side {
    int32_t tensor;
    enum dtype dtype;
    bool k_major;  /* stored with one row per step of K: turned on the way to L0 */
    int64_t pitch; /* rows of the block in L1 */
    expr off, row; /* of the matrix */
    int64_t run;   /* rows that lie side by side, from run_at[row / run] on; 0: all do, from off */
    expr run_at[ATT_MAX_RUNS];
};
struct cube {
    struct att_kernel *k;
    struct expr_pool *x;
    struct tile_builder *b;
    struct side q, key, p, v;
    int32_t l1q, l1p, l1k[MAX_BUFS], l1v[MAX_BUFS], l0a[2], l0b[2], acc[ATT_MAX_ACCS];
    int turn, acc_turn; /* of the L0 buffers */
};
/* m x n x k of a product. */
struct extent {
    expr m, n, k;
};

static expr num(struct cube *c, int64_t v)
{
    return expr_const(c->x, v);
}

/* What is left of `all` behind `from`, at most `most`. */
static expr part(struct cube *c, expr all, int64_t from, int64_t most)
{
    return expr_max(c->x, num(c, 0), expr_min(c->x, num(c, most), expr_sub(c->x, all, num(c, from))));
}

static int64_t more(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static void buffers(struct cube *c)
{
    const struct att_tile *t = &c->k->tile;
    const int64_t es = dtype_size(c->q.dtype), ps = dtype_size(c->p.dtype);
    const int64_t a = more(t->m * t->k0 * es, t->m * t->pk * ps), b = more(t->n * t->k0 * es, t->pn * t->pk * ps);
    char name[24];
    c->key.pitch = c->key.k_major ? t->size_pad : t->n;
    c->q.pitch = c->p.pitch = t->m;
    c->v.pitch = c->v.k_major ? t->pk : t->vn;
    c->l1q = tile_buf(c->b, "q", TS_L1, c->q.dtype, 1, t->m * t->size_pad * es);
    c->l1p = tile_buf(c->b, "p", TS_L1, c->p.dtype, t->prob_slots, t->m * ATTEND_CHUNK * ps);
    for (int i = 0; i < t->key_bufs; i++) {
        snprintf(name, sizeof name, "k%d", i);
        c->l1k[i] = tile_buf(c->b, name, TS_L1, c->key.dtype, t->ring, t->n * t->size_pad * es);
    }
    for (int i = 0; i < t->v_bufs; i++) {
        snprintf(name, sizeof name, "v%d", i);
        c->l1v[i] = tile_buf(c->b, name, TS_L1, c->v.dtype, t->ring, t->vn * t->pk * ps);
    }
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "l0a%d", i);
        c->l0a[i] = tile_buf(c->b, name, TS_L0A, c->q.dtype, 1, a);
        snprintf(name, sizeof name, "l0b%d", i);
        c->l0b[i] = tile_buf(c->b, name, TS_L0B, c->q.dtype, 1, b);
    }
    for (int i = 0; i < t->accs; i++) {
        snprintf(name, sizeof name, "acc%d", i);
        c->acc[i] = tile_buf(c->b, name, TS_L0C, DT_F32, 1, t->m * more(t->n, t->pn) * 4);
    }
}

/* Rows [first, first + count) and K [k0, k0 + ik) of a matrix to L1. at: first, count, k0, ik. */
static void load_side(struct cube *c, const struct side *s, int32_t to, const expr at[4])
{
    struct expr_pool *x = c->x;
    const expr across = s->k_major ? at[2] : at[0], along = s->k_major ? at[0] : at[2];
    const expr off = expr_add(x, s->off, expr_add(x, expr_mul(x, across, s->row), along));
    TILE(c->b, LOAD_NZ, to, num(c, 0), num(c, s->pitch), s->tensor, off, s->dtype, s->k_major ? at[3] : at[1],
         s->k_major ? at[1] : at[3], s->row, num(c, 1));
}

/* Rows of keys or values of a chunk: from `row` on, up to `most`. */
struct rows {
    int64_t row, most;
    expr count, col, cols;
};

static void load_runs(struct cube *c, const struct side *s, int32_t to, const struct rows *r)
{
    struct expr_pool *x = c->x;
    const int64_t c0 = c->k->e->m->c0_bytes / dtype_size(s->dtype), end = r->row + r->most;
    for (int64_t at = r->row; at < end;) {
        const int64_t run = at / s->run, next = more(at, (run + 1) * s->run), stop = next < end ? next : end;
        const expr off = expr_add(x, s->run_at[run], expr_add(x, expr_mul_const(x, s->row, at % s->run), r->col));
        TILE(c->b, LOAD_NZ, to, num(c, (at - r->row) * c0), num(c, s->pitch), s->tensor, off, s->dtype,
             part(c, r->count, at - r->row, stop - at), r->cols, s->row, num(c, 1));
        at = stop;
    }
}

static void load_rows(struct cube *c, const struct side *s, int32_t to, expr key0, const struct rows *r)
{
    const expr first = expr_add(c->x, key0, num(c, r->row));
    if (s->run)
        load_runs(c, s, to, r);
    else if (s == &c->v) /* whose rows are K */
        load_side(c, s, to, (const expr[]){r->col, r->cols, first, r->count});
    else
        load_side(c, s, to, (const expr[]){first, r->count, r->col, r->cols});
}

/* A block in L1, from its K and its row or column on. */
struct block {
    const struct side *s;
    int32_t l1;
    int64_t k0, n0;
};

static expr block_offset(struct cube *c, const struct block *b)
{
    const int64_t c0 = c->k->e->m->c0_bytes / dtype_size(b->s->dtype);
    return num(c, b->k0 * (b->s->k_major ? c0 : b->s->pitch) + b->n0 * (b->s->k_major ? b->s->pitch : c0));
}

/* acc (m x n) += a x b; begins afresh when `fresh`. */
static void multiply(struct cube *c, const struct block *a, const struct block *b, int32_t acc, const struct extent *e,
                     bool fresh)
{
    const int i = c->turn;
    c->turn = 1 - i;
    TILE(c->b, COPY_L0A, c->l0a[i], a->l1, block_offset(c, a), num(c, a->s->pitch), a->s->dtype, e->m, e->k,
         a->s->k_major);
    TILE(c->b, COPY_L0B, c->l0b[i], b->l1, block_offset(c, b), num(c, b->s->pitch), b->s->dtype, e->n, e->k,
         b->s->k_major);
    TILE(c->b, MAC, acc, c->l0a[i], c->l0b[i], -1, a->s->dtype, e->m, e->n, e->k, num(c, fresh));
}

static int32_t next_acc(struct cube *c)
{
    const int i = c->acc_turn;
    c->acc_turn = (i + 1) % c->k->tile.accs;
    return c->acc[i];
}

/* Slot of a workspace with rows of `pitch` elements. */
static expr slot(struct cube *c, const struct att_step *s, int slots, int64_t pitch)
{
    struct expr_pool *x = c->x;
    const expr number =
        expr_add(x, expr_mul_const(x, expr_sym(x, c->k->f.k->sym_block), slots), expr_mod(x, s->number, num(c, slots)));
    return expr_mul_const(x, expr_mul(x, number, c->k->s.slot), pitch);
}

static void store(struct cube *c, int32_t tensor, expr to, int64_t pitch, int32_t acc, const enum dtype t,
                  const expr size[2])
{
    TILE(c->b, FIXP, tensor, to, num(c, pitch), acc, expr_align(c->x, size[0], 16), DT_F32, t, size[0], size[1], 0, -1,
         num(c, 0));
}

static void flag(struct cube *c, expr when, bool wait, enum tile_unit unit, int event)
{
    tile_if(c->b, when);
    if (wait)
        TILE(c->b, XWAIT, (int32_t)unit, event);
    else
        TILE(c->b, XSET, (int32_t)unit, event);
    tile_end(c->b);
}

static void load_query(struct cube *c, const struct att_step *s)
{
    struct expr_pool *x = c->x;
    c->q.off = att_batch_offset(c->k, s->it.batch, c->k->q_batch);
    tile_note(c->b, "an item's rows of q stay in L1");
    tile_if(c->b, expr_mul(x, s->active, expr_cmp(x, EXPR_EQ, s->chunk, s->it.chunk0)));
    load_side(c, &c->q, c->l1q, (const expr[4]){s->it.first, s->it.count, num(c, 0), num(c, c->k->a->size)});
    tile_end(c->b);
}

static void emit_scores(struct cube *c, const struct att_step *s)
{
    struct att_kernel *k = c->k;
    const struct att_tile *t = &k->tile;
    const expr to = slot(c, s, ATT_SLOTS, ATTEND_CHUNK), zero = num(c, 0);
    const bool coded = k->a->coded[ATT_KEYS].codes != NULL;
    const expr key0 = coded ? zero : s->key0;
    load_query(c, s);
    if (c->key.run)
        att_page_runs(k, ATT_KEYS, s, c->key.run_at);
    else
        c->key.off = coded ? att_code_slot(k, ATT_KEYS, s) : att_batch_offset(k, s->it.batch, k->k_batch);
    if (coded)
        flag(c, s->active, true, TU_MTE2, ATT_KEYS_READY);
    tile_note(c->b, "scores of a chunk of keys");
    for (int64_t n = 0, j = 0; n < ATTEND_CHUNK; n += t->n, j++) {
        const int32_t l1 = c->l1k[j % t->key_bufs], acc = next_acc(c);
        const int64_t most = t->n < ATTEND_CHUNK - n ? t->n : ATTEND_CHUNK - n;
        const expr in = part(c, s->keys, n, most);
        load_rows(c, &c->key, l1, key0, &(struct rows){n, most, in, zero, num(c, k->a->size)});
        for (int64_t h = 0; h < k->a->size; h += t->k0) {
            const struct block a = {&c->q, c->l1q, h, 0}, b = {&c->key, l1, h, 0};
            const struct extent e = {s->it.count, in, num(c, h + t->k0 < k->a->size ? t->k0 : k->a->size - h)};
            multiply(c, &a, &b, acc, &e, h == 0);
        }
        store(c, k->ts, expr_add(c->x, to, num(c, n)), ATTEND_CHUNK, acc, k->a->score,
              (const expr[2]){s->it.count, in});
    }
    tile_note(c->b, "the vector cores may read them");
    flag(c, s->active, false, TU_FIX, ATT_SCORES_READY);
}

/* A block of values: columns from n on, keys from h on. */
static void load_values(struct cube *c, const struct att_step *s, int64_t n, int64_t h, int32_t l1)
{
    const struct att_tile *t = &c->k->tile;
    const expr key0 = c->k->a->coded[ATT_VALUES].codes ? num(c, 0) : s->key0;
    const int64_t cols = n + t->vn < c->k->a->v_size ? t->vn : c->k->a->v_size - n;
    const int64_t most = t->pk < ATTEND_CHUNK - h ? t->pk : ATTEND_CHUNK - h;
    load_rows(c, &c->v, l1, key0,
              &(struct rows){h, most, part(c, s->keys, h, t->pk), num(c, n), expr_mul(c->x, s->active, num(c, cols))});
}

static void load_probs(struct cube *c, const struct att_step *s)
{
    c->p.off = slot(c, s, ATT_SLOTS, ATTEND_CHUNK);
    tile_note(c->b, "both vector cores have written the probabilities");
    flag(c, s->active, true, TU_MTE2, ATT_PROBS_READY);
    load_side(c, &c->p, c->l1p, (const expr[4]){num(c, 0), s->it.count, num(c, 0), s->keys});
}

static void emit_product(struct cube *c, const struct att_step *s)
{
    struct att_kernel *k = c->k;
    const struct att_tile *t = &k->tile;
    const int64_t per = (ATTEND_CHUNK + t->pk - 1) / t->pk, loads = per * ((k->a->v_size + t->vn - 1) / t->vn);
    const bool ahead = loads <= t->v_bufs; /* values do not wait for probabilities */
    const expr to = slot(c, s, ATT_PARTS, k->a->v_size);
    const bool coded = k->a->coded[ATT_VALUES].codes != NULL;
    if (c->v.run)
        att_page_runs(k, ATT_VALUES, s, c->v.run_at);
    else
        c->v.off = coded ? att_code_slot(k, ATT_VALUES, s) : att_batch_offset(k, s->it.batch, k->v_batch);
    if (coded)
        flag(c, s->active, true, TU_MTE2, ATT_VALUES_READY);
    for (int64_t i = 0; ahead && i < loads; i++)
        load_values(c, s, i / per * t->vn, i % per * t->pk, c->l1v[i]);
    load_probs(c, s);
    tile_note(c->b, "product with the values of the chunk");
    for (int64_t n = 0; n < k->a->v_size; n += t->pn) {
        const int64_t cols = n + t->pn < k->a->v_size ? t->pn : k->a->v_size - n, from = n / t->vn * t->vn;
        const int32_t acc = next_acc(c);
        for (int64_t j = 0; j < per; j++) {
            const int64_t h = j * t->pk;
            const int32_t l1 = c->l1v[(from / t->vn * per + j) % t->v_bufs];
            if (!ahead)
                load_values(c, s, from, h, l1);
            const struct block a = {&c->p, c->l1p, h, 0}, b = {&c->v, l1, 0, n - from};
            const struct extent e = {s->it.count, num(c, cols), part(c, s->keys, h, t->pk)};
            multiply(c, &a, &b, acc, &e, h == 0);
        }
        store(c, k->to, expr_add(c->x, to, num(c, n)), k->a->v_size, acc, DT_F32,
              (const expr[2]){s->it.count, num(c, cols)});
    }
    tile_note(c->b, "the vector cores may merge it");
    flag(c, s->active, false, TU_FIX, ATT_PART_READY);
}

/* Between rows of keys or values as the cube core reads them. */
static expr row_of(struct att_kernel *k, int operand)
{
    if (k->a->coded[operand].codes)
        return expr_const(&k->f.k->exprs, operand == ATT_KEYS ? k->a->size : k->a->v_size);
    return operand == ATT_KEYS ? k->k_row : k->v_row;
}

void att_cube_code(struct att_kernel *k)
{
    struct cube c = {.k = k, .x = &k->f.k->exprs, .b = &k->f.b};
    const struct att *a = k->a;
    c.q = (struct side){.tensor = k->tq, .dtype = a->in, .row = k->q_row};
    c.key = (struct side){.tensor = k->tk,
                          .dtype = a->in,
                          .row = row_of(k, ATT_KEYS),
                          .k_major = !a->k_rows,
                          .run = att_page_run(a, ATT_KEYS)};
    c.p = (struct side){.tensor = k->tp, .dtype = a->prob, .row = expr_const(c.x, ATTEND_CHUNK)};
    c.v = (struct side){.tensor = k->tv,
                        .dtype = a->prob,
                        .row = row_of(k, ATT_VALUES),
                        .k_major = a->v_rows,
                        .run = att_page_run(a, ATT_VALUES)};
    tile_section_begin(c.b, TCORE_CUBE);
    buffers(&c);
    tile_note(c.b, "steps of this block, scores ahead");
    const expr ahead = num(&c, ATT_AHEAD), i = tile_loop(c.b, "i", expr_add(c.x, att_steps(k), ahead));
    const struct att_step next = att_locate(k, i), done = att_locate(k, expr_sub(c.x, i, ahead));
    emit_scores(&c, &next);
    emit_product(&c, &done);
    tile_end(c.b);
    if (k->apart)
        tile_emit(c.b, TILE_BARRIER, 0, NULL);
}
