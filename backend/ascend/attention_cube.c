/* The cube core of a block:
 *
 *   for each item i, and once more:
 *     if there is an item i:       scores of item i to the workspace         q stays in L1; k in chunks of n rows
 *     if there was an item i - 1:  wait for its probabilities; y of it       probabilities and v in blocks of K
 *
 * so that the scores of the next item are made while the vector cores work. The conditions are LOOPs of at most one
 * turn: rings of buffers turn over from item to item. K ascends in one chain of accumulation, as in any product. */
#include "backend/ascend/attention.h"

/* An operand on its way from memory through L1 to L0. */
struct side {
    int32_t tensor, l1, l0;
    enum dtype dtype;
    bool k_major;  /* stored with one row per step of K: turned on the way to L0 */
    int64_t pitch; /* rows of the block in L1 */
    expr off, row; /* of the matrix */
};
struct cube {
    struct att_kernel *k;
    struct expr_pool *x;
    struct tile_builder *b;
    struct side q, key, p, v;
    int32_t acc_s, acc_y;
};

static expr num(struct cube *c, int64_t v)
{
    return expr_const(c->x, v);
}

static expr at_least_one(struct cube *c, expr n)
{
    return expr_max(c->x, num(c, 1), n);
}

/* L1: rows x k elements, doubled; L0: rows x k0. */
static void side_buffers(struct cube *c, struct side *s, const char *names[2], enum tile_space l0,
                         const int64_t extent[3])
{
    const int64_t rows = extent[0], k = extent[1], k0 = extent[2], size = dtype_size(s->dtype);
    s->pitch = s->k_major ? k : rows;
    s->l1 = tile_buf(c->b, names[0], TS_L1, s->dtype, 2, rows * k * size);
    s->l0 = tile_buf(c->b, names[1], l0, s->dtype, 2, rows * k0 * size);
}

static void buffers(struct cube *c)
{
    const struct att_tile *t = &c->k->tile;
    side_buffers(c, &c->q, (const char *[]){"q", "l0q"}, TS_L0A, (const int64_t[]){t->m, t->size_pad, t->k0});
    side_buffers(c, &c->key, (const char *[]){"k", "l0k"}, TS_L0B, (const int64_t[]){t->n, t->size_pad, t->k0});
    side_buffers(c, &c->p, (const char *[]){"p", "l0p"}, TS_L0A, (const int64_t[]){t->m, t->pkb, t->pk0});
    side_buffers(c, &c->v, (const char *[]){"v", "l0v"}, TS_L0B, (const int64_t[]){t->pn, t->pkb, t->pk0});
    c->acc_s = tile_buf(c->b, "scores", TS_L0C, DT_F32, 2, t->m * t->n * 4);
    c->acc_y = tile_buf(c->b, "acc", TS_L0C, DT_F32, 1, t->m * t->pn * 4);
}

/* Rows [first, first + count) and K [k0, k0 + ik) of a matrix to L1. at: first, count, k0, ik. */
static void load_side(struct cube *c, const struct side *s, const expr at[4])
{
    struct expr_pool *x = c->x;
    const expr across = s->k_major ? at[2] : at[0], along = s->k_major ? at[0] : at[2];
    const expr off = expr_add(x, s->off, expr_add(x, expr_mul(x, across, s->row), along));
    TILE(c->b, LOAD_NZ, s->l1, num(c, 0), num(c, s->pitch), s->tensor, off, s->dtype, s->k_major ? at[3] : at[1],
         s->k_major ? at[1] : at[3], s->row, num(c, 1));
}

/* acc (m x n) += a x b over the block of K in L1; begins afresh when `block`, the number of the block, is 0. size: m,
 * n, ik. */
static void multiply(struct cube *c, const struct side *a, const struct side *b, int32_t acc, const expr size[3],
                     expr block, int64_t k0)
{
    struct expr_pool *x = c->x;
    const int64_t c0 = c->k->e->m->c0_bytes / dtype_size(a->dtype);
    const expr l = tile_loop(c->b, "k0", at_least_one(c, expr_ceildiv(x, size[2], num(c, k0))));
    const expr kl = expr_mul_const(x, l, k0), il = expr_min(x, num(c, k0), expr_sub(x, size[2], kl));
    TILE(c->b, COPY_L0A, a->l0, a->l1, expr_mul_const(x, kl, a->k_major ? c0 : a->pitch), num(c, a->pitch), a->dtype,
         size[0], il, a->k_major);
    TILE(c->b, COPY_L0B, b->l0, b->l1, expr_mul_const(x, kl, b->k_major ? c0 : b->pitch), num(c, b->pitch), b->dtype,
         size[1], il, b->k_major);
    TILE(c->b, MAC, acc, a->l0, b->l0, -1, a->dtype, size[0], size[1], il,
         expr_cmp(x, EXPR_EQ, expr_add(x, block, l), num(c, 0)));
    tile_end(c->b);
}

static void store(struct cube *c, int32_t tensor, const expr to[2], int32_t acc, const enum dtype t, const expr size[2])
{
    TILE(c->b, FIXP, tensor, to[0], to[1], acc, expr_align(c->x, size[0], 16), DT_F32, t, size[0], size[1], 0, -1,
         num(c, 0));
}

/* Offset of a batch member. */
static expr batch_offset(struct att_kernel *k, expr index, const expr *stride)
{
    struct expr_pool *x = &k->f.k->exprs;
    expr off = expr_const(x, 0);
    for (int i = k->a->n_batch - 1; i >= 0; i--) {
        const expr size = expr_max(x, expr_const(x, 1), k->batch[i]);
        off = expr_add(x, off, expr_mul(x, i > 0 ? expr_mod(x, index, size) : index, stride[i]));
        index = expr_floordiv(x, index, size);
    }
    return off;
}

static void emit_scores(struct cube *c, const struct att_item *it)
{
    struct att_kernel *k = c->k;
    struct expr_pool *x = c->x;
    const expr zero = num(c, 0), size = num(c, k->a->size), n = num(c, k->tile.n);
    c->q.off = batch_offset(k, it->batch, k->q_batch);
    c->key.off = batch_offset(k, it->batch, k->k_batch);
    tile_note(c->b, "scores: the item's rows of q stay in L1");
    load_side(c, &c->q, (const expr[4]){it->first, it->count, zero, size});
    const expr j = tile_loop(c->b, "n", expr_ceildiv(x, k->total, n));
    const expr n0 = expr_mul(x, j, n), in = expr_min(x, n, expr_sub(x, k->total, n0));
    tile_note(c->b, "a chunk of keys");
    load_side(c, &c->key, (const expr[4]){n0, in, zero, size});
    multiply(c, &c->q, &c->key, c->acc_s, (const expr[3]){it->count, in, size}, zero, k->tile.k0);
    tile_note(c->b, "to the workspace");
    store(c, k->ts, (const expr[2]){expr_add(x, it->slot, n0), k->s.pitch}, c->acc_s, k->a->score,
          (const expr[2]){it->count, in});
    tile_end(c->b);
    tile_note(c->b, "the vector cores may read them");
    TILE(c->b, XSET, TU_FIX, ATT_SCORES_READY);
}

static void emit_product(struct cube *c, const struct att_item *it)
{
    struct att_kernel *k = c->k;
    struct expr_pool *x = c->x;
    const expr kb = num(c, k->tile.pkb), n = num(c, k->tile.pn), v_size = num(c, k->a->v_size);
    c->p.off = it->slot;
    c->v.off = batch_offset(k, it->batch, k->v_batch);
    tile_note(c->b, "both vector cores have written the probabilities");
    TILE(c->b, XWAIT, TU_MTE2, ATT_PROBS_READY);
    const expr j = tile_loop(c->b, "vn", expr_ceildiv(x, v_size, n));
    const expr n0 = expr_mul(x, j, n), in = expr_min(x, n, expr_sub(x, v_size, n0));
    const expr block = tile_loop(c->b, "kb", at_least_one(c, expr_ceildiv(x, k->total, kb)));
    const expr k0 = expr_mul(x, block, kb), ik = expr_min(x, kb, expr_sub(x, k->total, k0));
    tile_note(c->b, "a block of probabilities, and of values");
    load_side(c, &c->p, (const expr[4]){num(c, 0), it->count, k0, ik});
    load_side(c, &c->v, (const expr[4]){n0, in, k0, ik});
    multiply(c, &c->p, &c->v, c->acc_y, (const expr[3]){it->count, in, ik}, block, k->tile.pk0);
    tile_end(c->b);
    const expr row = expr_add(x, batch_offset(k, it->batch, k->y_batch), expr_mul(x, it->first, k->y_row));
    tile_note(c->b, "the item's rows of the result");
    store(c, k->ty, (const expr[2]){expr_add(x, row, n0), k->y_row}, c->acc_y, k->a->out,
          (const expr[2]){it->count, in});
    tile_end(c->b);
}

void att_cube_code(struct att_kernel *k)
{
    struct cube c = {.k = k, .x = &k->f.k->exprs, .b = &k->f.b};
    const struct att *a = k->a;
    c.q = (struct side){.tensor = k->tq, .dtype = a->in, .row = k->q_row};
    c.key = (struct side){.tensor = k->tk, .dtype = a->in, .row = k->k_row, .k_major = !a->k_rows};
    c.p = (struct side){.tensor = k->tp, .dtype = a->prob, .row = k->s.pitch};
    c.v = (struct side){.tensor = k->tv, .dtype = a->prob, .row = k->v_row, .k_major = a->v_rows};
    tile_section_begin(c.b, TCORE_CUBE);
    buffers(&c);
    const expr count = att_count(k), one = num(&c, 1), zero = num(&c, 0);
    tile_note(c.b, "items of this block, scores one ahead");
    const expr i = tile_loop(c.b, "i", expr_add(c.x, count, one));
    (void)tile_loop(c.b, "ahead", expr_cmp(c.x, EXPR_LT, i, count));
    const struct att_item next = att_locate(k, i);
    emit_scores(&c, &next);
    tile_end(c.b);
    (void)tile_loop(c.b, "behind", expr_cmp(c.x, EXPR_LT, zero, i));
    const struct att_item done = att_locate(k, expr_sub(c.x, i, one));
    emit_product(&c, &done);
    tile_end(c.b);
    tile_end(c.b);
}
