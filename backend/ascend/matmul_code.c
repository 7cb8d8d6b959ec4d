/* The tile program of a product on the cube cores.
 *
 *   for each tile t of this core:                 t = block + i*blocks, m fastest, so that neighbours share b
 *     for each block of K in L1 (double):         load a, load b                       mte2
 *       for each step of K in L0 (double):        copy a to L0A, b to L0B              mte1
 *                                                 accumulate in L0C                    cube
 *     store the tile, narrowed                                                         fixpipe
 *
 * With a feed, vector cores make b in slots of a workspace: FEED_READY counts blocks made, FEED_FREE slots emptied. The
 * cube core only reports slots that will be used again, so that the counts are zero at the end.
 *
 * L1 holds both operands as [k/c0][rows][c0] when K runs along the rows of storage, else [rows/c0][k][c0], which the
 * copy to L0 transposes. Weights come in NZ with rows n, i.e. in the order of L0B. */
#include "backend/ascend/matmul.h"
#include "backend/matrix/mm_dims.h"
#include "base/size.h"

#include <math.h>
#include <stdio.h>

enum { FEED_READY, FEED_FREE };

struct code {
    struct emit *e;
    const struct mm *p;
    struct mm_tile t;
    struct tile_kernel *k;
    struct expr_pool *x;
    struct tile_builder b;
    struct kparams params;
    int64_t c0;
    struct mm_dims d;
    expr n_pad;                                  /* n in whole fractals */
    int32_t ta, tb, tc, tbias;                   /* tensors of the kernel */
    int32_t l1a, l1b, l1bias, l0a, l0b, acc, bt; /* buffers */
    struct mm_scale_side sa, sb;                 /* with block scales */
    expr m0, n0, im, in, off_a, off_b, off_c;    /* of the tile */
    expr k0, ik;                                 /* of the block in L1 */
    expr round, rounds;                          /* number of this core's tile, of its tiles */
};

static expr num(struct code *c, int64_t v)
{
    return expr_const(c->x, v);
}

static void declare(struct code *c)
{
    const struct mm *p = c->p;
    mm_dims_declare(&c->d, &c->params, p);
    tile_params_done(c->k);
    c->n_pad = expr_align(c->x, c->d.n, 16);
    c->ta = tile_tensor(c->k, c->e->arena, "A", p->block ? p->code : p->in, true, false);
    c->tb = tile_tensor(c->k, c->e->arena, p->weight ? "W" : "B", p->block ? p->b_code : p->in, true, p->feed != NULL);
    c->tc = tile_tensor(c->k, c->e->arena, "C", p->out, false, true);
    c->tbias = p->bias ? tile_tensor(c->k, c->e->arena, "bias", DT_F32, true, false) : -1;
    if (p->block) {
        c->sa.tensor = tile_tensor(c->k, c->e->arena, "A_scale", DT_F8E8M0, true, false);
        c->sb.tensor = tile_tensor(c->k, c->e->arena, "B_scale", DT_F8E8M0, true, false);
    }
    if (p->feed)
        p->feed->declare(p->feed, c->e, &c->b);
}

static void scale_buffers(struct code *c)
{
    const struct mm_tile *t = &c->t;
    c->sa.extent = t->m;
    c->sb.extent = t->n;
    c->sa.k_major = c->p->a_trans;
    c->sb.k_major = !c->p->b_trans;
    c->sa.l1 = tile_buf(&c->b, "a_scale", TS_L1, DT_F8E8M0, 2, t->m * mm_scale_row(c->p, t->kb));
    c->sb.l1 = tile_buf(&c->b, "b_scale", TS_L1, DT_F8E8M0, 2, t->n * mm_scale_row(c->p, t->kb));
    c->sa.l0 = tile_buf(&c->b, "l0a_mx", TS_L0A_MX, DT_F8E8M0, 2, mm_scale_l0(c->p, t->m, t->k0));
    c->sb.l0 = tile_buf(&c->b, "l0b_mx", TS_L0B_MX, DT_F8E8M0, 2, mm_scale_l0(c->p, t->n, t->k0));
}

static void buffers(struct code *c)
{
    const struct mm_tile *t = &c->t;
    const enum dtype in = c->p->in;
    const int64_t es = dtype_size(in);
    c->l1a = tile_buf(&c->b, "a", TS_L1, in, 2, t->m * t->kb * es);
    c->l1b = tile_buf(&c->b, "b", TS_L1, in, 2, t->n * t->kb * es);
    c->l0a = tile_buf(&c->b, "l0a", TS_L0A, in, 2, t->m * t->k0 * es);
    c->l0b = tile_buf(&c->b, "l0b", TS_L0B, in, 2, t->n * t->k0 * es);
    c->acc = tile_buf(&c->b, "acc", TS_L0C, mm_sum(mm_code(c->p)), t->acc_slots, t->m * t->n * 4);
    c->l1bias = c->bt = -1;
    if (c->p->block)
        scale_buffers(c);
    if (c->p->bias) {
        c->l1bias = tile_buf(&c->b, "bias", TS_L1, DT_F32, 2, t->n * 4);
        c->bt = tile_buf(&c->b, "bt", TS_BT, DT_F32, 2 * t->n * 4 <= c->e->m->size[TS_BT] ? 2 : 1, t->n * 4);
    }
}

/* Opens the loop over this core's tiles. */
static void open_tiles(struct code *c)
{
    struct expr_pool *x = c->x;
    const expr mt = expr_ceildiv(x, c->d.m, num(c, c->t.m)), nt = expr_ceildiv(x, c->d.n, num(c, c->t.n));
    const expr tiles = expr_mul(x, mm_batch_count(x, &c->d), expr_mul(x, mt, nt));
    c->k->blocks = expr_max(x, num(c, 1), expr_min(x, num(c, c->e->m->n_cube), tiles));
    const expr block = expr_sym(x, c->k->sym_block);
    c->rounds = expr_ceildiv(x, expr_sub(x, tiles, block), c->k->blocks);
    c->round = tile_loop(&c->b, "i", c->rounds);
    const expr t = expr_add(x, block, expr_mul(x, c->round, c->k->blocks));
    const expr rest = expr_floordiv(x, t, mt), batch = expr_floordiv(x, rest, nt);
    c->m0 = expr_mul_const(x, expr_mod(x, t, mt), c->t.m);
    c->n0 = expr_mul_const(x, expr_mod(x, rest, nt), c->t.n);
    c->im = expr_min(x, num(c, c->t.m), expr_sub(x, c->d.m, c->m0));
    c->in = expr_min(x, num(c, c->t.n), expr_sub(x, c->d.n, c->n0));
    c->off_a = mm_batch_offset(x, &c->d, batch, c->d.a_batch);
    c->off_b = mm_batch_offset(x, &c->d, batch, c->d.b_batch);
    c->off_c = mm_batch_offset(x, &c->d, batch, c->d.c_batch);
}

static void load_bias(struct code *c)
{
    const expr z = num(c, 0), one = num(c, 1);
    if (!c->p->bias)
        return;
    tile_note(&c->b, "bias row of the tile to the bias table");
    TILE(&c->b, LOAD, c->l1bias, z, c->tbias, c->n0, DT_F32, one, one, one, c->in, z, z, z, one, z, z, z, one);
    TILE(&c->b, COPY_BT, c->bt, c->l1bias, z, DT_F32, c->in);
}

/* Rows x K of an operand whose storage has K along its rows (trans: rows along its rows) to L1. */
static void load_operand(struct code *c, int32_t buf, int32_t tensor, expr off, const expr extent[4], bool k_major)
{
    struct expr_pool *x = c->x;
    const expr first = extent[0], count = extent[1], pitch = extent[2], row = extent[3], one = num(c, 1);
    if (k_major) {
        const int64_t pack = mm_pack(c->p);
        const expr k0 = expr_mul_const(x, c->k0, pack), ik = expr_mul_const(x, c->ik, pack), two = num(c, pack);
        off = expr_add(x, off, expr_add(x, expr_mul(x, k0, row), expr_floordiv(x, first, two)));
        TILE(&c->b, LOAD_NZ, buf, num(c, 0), num(c, c->t.kb * pack), tensor, off, c->p->in, ik,
             expr_floordiv(x, count, two), row, one);
    } else {
        off = expr_add(x, off, expr_add(x, expr_mul(x, first, row), c->k0));
        TILE(&c->b, LOAD_NZ, buf, num(c, 0), pitch, tensor, off, c->p->in, count, c->ik, row, one);
    }
}

static void load_weight(struct code *c)
{
    struct expr_pool *x = c->x;
    const expr z = num(c, 0), one = num(c, 1);
    const expr rows = expr_min(x, num(c, c->t.n), expr_sub(x, c->n_pad, c->n0));
    expr off = expr_add(x, expr_mul(x, c->k0, c->n_pad), expr_mul_const(x, c->n0, c->c0));
    off = expr_add(x, off, c->off_b);
    tile_note(&c->b, "weights: stored in NZ, a plain copy");
    TILE(&c->b, LOAD, c->l1b, z, c->tb, off, c->p->in, one, expr_ceildiv(x, c->ik, num(c, c->c0)), one,
         expr_mul_const(x, rows, c->c0), z, expr_mul_const(x, c->n_pad, c->c0), z, one, z, num(c, c->t.n * c->c0), z,
         one);
}

/* ---- b from a feed ---------------------------------------------------------------------------------------- */

static int64_t blocks_of_k(const struct code *c)
{
    int64_t k = 0;
    (void)expr_is_const(c->x, c->d.k, &k); /* a feed knows it */
    return size_ceil_div(k, c->t.kb);
}

/* Number of block j of the tile among all that the vector cores of this block of cores make. */
static expr turn_of(struct code *c, expr j)
{
    return expr_add(c->x, expr_mul_const(c->x, c->round, blocks_of_k(c)), j);
}

static expr slot_offset(struct code *c, expr turn)
{
    struct expr_pool *x = c->x;
    const expr slots = num(c, c->p->feed->slots), block = expr_sym(x, c->k->sym_block);
    return expr_mul_const(x, expr_add(x, expr_mul(x, block, slots), expr_mod(x, turn, slots)), c->t.n * c->t.kb);
}

static void load_made(struct code *c, expr j)
{
    struct expr_pool *x = c->x;
    const expr z = num(c, 0), one = num(c, 1), turn = turn_of(c, j);
    const expr line = num(c, c->t.n * c->c0), rows = expr_mul_const(x, expr_align(x, c->in, 16), c->c0);
    tile_note(&c->b, "weights: made by the vector cores in the order of L1");
    TILE(&c->b, XWAIT, TU_MTE2, FEED_READY);
    TILE(&c->b, LOAD, c->l1b, z, c->tb, slot_offset(c, turn), c->p->in, one, expr_ceildiv(x, c->ik, num(c, c->c0)), one,
         rows, z, line, z, one, z, line, z, one);
    const expr all = expr_mul_const(x, c->rounds, blocks_of_k(c));
    tile_if(&c->b, expr_cmp(x, EXPR_LT, expr_add(x, turn, num(c, c->p->feed->slots)), all));
    TILE(&c->b, XSET, TU_MTE2, FEED_FREE);
    tile_end(&c->b);
}

/* The half of the tile's columns that this vector core makes. */
static struct mm_part own_part(struct code *c)
{
    struct expr_pool *x = c->x;
    const expr half = expr_ceildiv(x, c->in, num(c, 2)), first = expr_mul(x, expr_sym(x, c->k->sym_sub), half);
    return (struct mm_part){.n0 = expr_add(x, c->n0, first),
                            .in = expr_min(x, half, expr_sub(x, c->in, first)),
                            .done = num(c, 0),
                            .tensor = c->tb,
                            .off = expr_mul_const(x, first, c->c0)};
}

static void make_block(struct code *c, const struct mm_part *group, expr j0, expr j)
{
    struct expr_pool *x = c->x;
    const struct mm_feed *f = c->p->feed;
    struct mm_part p = *group;
    const expr turn = turn_of(c, expr_add(x, j0, j));
    p.done = expr_mul_const(x, j, c->t.kb);
    p.k0 = expr_add(x, group->k0, p.done);
    p.ik = expr_min(x, num(c, c->t.kb), expr_sub(x, c->d.k, p.k0));
    p.off = expr_add(x, slot_offset(c, turn), group->off);
    f->make(c->p->feed, &p);
    tile_note(&c->b, "to a free slot of the workspace");
    tile_if(&c->b, expr_cmp(x, EXPR_LE, num(c, f->slots), turn));
    TILE(&c->b, XWAIT, TU_MTE3, FEED_FREE);
    tile_end(&c->b);
    f->store(c->p->feed, &p);
    TILE(&c->b, XSET, TU_MTE3, FEED_READY);
}

static void feed_body(struct code *c)
{
    struct expr_pool *x = c->x;
    const struct mm_feed *f = c->p->feed;
    tile_section_begin(&c->b, TCORE_VECTOR);
    f->begin(c->p->feed, c->e->m, &c->t);
    open_tiles(c);
    struct mm_part group = own_part(c);
    const int64_t n_blocks = blocks_of_k(c), at_once = c->t.group;
    const expr g = tile_loop(&c->b, "group", num(c, size_ceil_div(n_blocks, at_once)));
    const expr j0 = expr_mul_const(x, g, at_once);
    group.k0 = expr_mul_const(x, j0, c->t.kb);
    group.ik = expr_min(x, num(c, at_once * c->t.kb), expr_sub(x, c->d.k, group.k0));
    f->load(c->p->feed, &group);
    const expr j = tile_loop(&c->b, "kb", expr_min(x, num(c, at_once), expr_sub(x, num(c, n_blocks), j0)));
    make_block(c, &group, j0, j);
    tile_end(&c->b);
    tile_end(&c->b);
    tile_end(&c->b);
}

static void load_scales(struct code *c)
{
    const struct mm_span_k k = {c->k0, c->ik, c->d.k};
    c->sa.off = c->off_a, c->sa.first = c->m0, c->sa.count = c->im, c->sa.row = c->d.a_row;
    c->sb.off = c->off_b, c->sb.first = c->n0, c->sb.count = c->in, c->sb.row = c->d.b_row;
    mm_scale_load(&c->b, c->p, &c->sa, &k, c->t.kb);
    mm_scale_load(&c->b, c->p, &c->sb, &k, c->t.kb);
}

static void load_block(struct code *c, expr j)
{
    if (c->p->block)
        load_scales(c);
    tile_note(&c->b, c->p->a_trans ? "a: columns of K rows, transposed on the way to L0" : "a: ND to NZ");
    load_operand(c, c->l1a, c->ta, c->off_a, (const expr[4]){c->m0, c->im, num(c, c->t.m), c->d.a_row}, c->p->a_trans);
    if (c->p->feed) {
        load_made(c, j);
        return;
    }
    if (c->p->weight) {
        load_weight(c);
        return;
    }
    tile_note(&c->b, c->p->b_trans ? "b: ND to NZ" : "b: columns of K rows, transposed on the way to L0");
    load_operand(c, c->l1b, c->tb, c->off_b, (const expr[4]){c->n0, c->in, num(c, c->t.n), c->d.b_row}, !c->p->b_trans);
}

/* One step of K through L0. `first`: 1 in the first step of the tile. */
static void step(struct code *c, expr l, expr first)
{
    struct expr_pool *x = c->x;
    const expr kl = expr_mul_const(x, l, c->t.k0);
    const expr il = expr_min(x, num(c, c->t.k0), expr_sub(x, c->ik, kl));
    const bool ta = c->p->a_trans, tb = !c->p->weight && !c->p->b_trans;
    const int64_t pack = mm_pack(c->p);
    const expr ke = expr_mul_const(x, kl, pack), ie = expr_mul_const(x, il, pack); /* in codes */
    const expr block = expr_mul_const(x, ke, c->c0 * pack), kb = num(c, c->t.kb * pack);
    tile_note(&c->b, "one step of K: fractals to L0, accumulate");
    TILE(&c->b, COPY_L0A, c->l0a, c->l1a, ta ? block : expr_mul_const(x, ke, c->t.m), ta ? kb : num(c, c->t.m),
         mm_code(c->p), c->im, ie, ta);
    TILE(&c->b, COPY_L0B, c->l0b, c->l1b, tb ? block : expr_mul_const(x, ke, c->t.n), tb ? kb : num(c, c->t.n),
         c->p->block ? c->p->b_code : c->p->in, c->in, ie, tb);
    const expr init = c->p->bias ? expr_mul_const(x, first, 2) : first;
    if (!c->p->block) {
        TILE(&c->b, MAC, c->acc, c->l0a, c->l0b, c->bt, c->p->in, c->im, c->in, il, init);
        return;
    }
    const struct mm_span_k k = {kl, il, il};
    mm_scale_copy(&c->b, c->p, &c->sa, &k, c->t.kb);
    mm_scale_copy(&c->b, c->p, &c->sb, &k, c->t.kb);
    TILE(&c->b, MAC_MX, c->acc, c->l0a, c->l0b, c->sa.l0, c->sb.l0, c->bt, c->p->code, c->p->b_code,
         (int32_t)c->p->block, c->im, c->in, ie, init);
}

static expr at_least_one(struct code *c, expr n)
{
    return expr_max(c->x, num(c, 1), n); /* K = 0 still writes the starting values */
}

static void body(struct code *c)
{
    struct expr_pool *x = c->x;
    open_tiles(c);
    load_bias(c);
    const expr j = tile_loop(&c->b, "kb", at_least_one(c, expr_ceildiv(x, c->d.k, num(c, c->t.kb))));
    c->k0 = expr_mul_const(x, j, c->t.kb);
    c->ik = expr_min(x, num(c, c->t.kb), expr_sub(x, c->d.k, c->k0));
    load_block(c, j);
    const expr l = tile_loop(&c->b, "k0", at_least_one(c, expr_ceildiv(x, c->ik, num(c, c->t.k0))));
    step(c, l, expr_cmp(x, EXPR_EQ, expr_add(x, j, l), num(c, 0)));
    tile_end(&c->b);
    tile_end(&c->b);
    tile_note(&c->b, c->p->relu ? "store: relu, narrowed, NZ to ND" : "store: narrowed, NZ to ND");
    const expr off = expr_add(x, c->off_c, expr_add(x, expr_mul(x, c->m0, c->d.c_row), c->n0));
    TILE(&c->b, FIXP, c->tc, off, c->d.c_row, c->acc, expr_align(x, c->im, 16), mm_sum(mm_code(c->p)), c->p->out, c->im,
         c->in, c->p->relu, -1, num(c, 0));
    tile_end(&c->b);
}

/* The slots of all blocks of cores that run. */
static int32_t workspace(struct emit *e, const struct mm *p, const struct mm_tile *t)
{
    struct expr_pool *x = &e->cx->exprs;
    expr tiles = expr_mul(x, expr_ceildiv(x, p->m, expr_const(x, t->m)), expr_ceildiv(x, p->n, expr_const(x, t->n)));
    tiles = expr_max(x, expr_const(x, 1), expr_min(x, expr_const(x, e->m->n_cube), tiles));
    return emit_temp(e, "weight tiles", p->in, 3,
                     (const expr[]){tiles, expr_const(x, p->feed->slots), expr_const(x, t->n * t->kb)});
}

static enum npuc_status launch(struct emit *e, const struct mm *p, const struct mm_tensors *t,
                               const struct mm_tile *tile, const char *label)
{
    char name[48];
    snprintf(name, sizeof name, "matmul%s%s_%s_%lldx%lldx%lld", p->feed ? "_made" : "", p->bias ? "_bias" : "",
             dtype_table[mm_code(p)].name, (long long)tile->m, (long long)tile->n, (long long)tile->k0);
    struct code c = {.e = e, .p = p, .t = *tile, .c0 = e->m->c0_bytes / dtype_size(p->in)};
    c.k = tile_kernel_new(e->arena, &e->plan->strings, name);
    c.x = &c.k->exprs;
    c.b = (struct tile_builder){.k = c.k, .arena = e->arena};
    c.params = (struct kparams){.e = e, .k = c.k};
    declare(&c);
    tile_section_begin(&c.b, TCORE_CUBE);
    buffers(&c);
    body(&c);
    int32_t tensors[7] = {t->a, p->feed ? workspace(e, p, tile) : t->b, t->c}, n = 3;
    if (p->bias)
        tensors[n++] = t->bias;
    if (p->block) {
        tensors[n++] = t->a_scale;
        tensors[n++] = t->b_scale;
    }
    for (int32_t i = 0; p->feed && i < p->feed->n_tensors; i++)
        tensors[n++] = p->feed->tensors[i];
    if (p->feed)
        feed_body(&c);
    return emit_launch(e, c.k, tensors, c.params.bound, mm_macs(e, p), label);
}

enum npuc_status mm_emit(struct emit *e, const struct mm *p, const struct mm_tensors *t, const char *label)
{
    struct expr_pool *x = &e->cx->exprs;
    const struct expr_range r = expr_range_of(x, p->m);
    const expr few = expr_const(x, 16), outer = e->guard;
    const bool both = r.min <= 16 && r.max > 16;
    enum npuc_status st = NPUC_OK;
    if (r.min <= 16) {
        const struct mm_sizes s = mm_sizes_of(e->cx, p, 16);
        const struct mm_tile tile = mm_choose_tile(e->m, p, &s, e->tiling);
        e->guard = both ? expr_cmp(x, EXPR_LE, p->m, few) : outer;
        st = launch(e, p, t, &tile, label);
    }
    if (st == NPUC_OK && r.max > 16) {
        const struct mm_sizes s = mm_sizes_of(e->cx, p, 1024);
        const struct mm_tile tile = mm_choose_tile(e->m, p, &s, e->tiling);
        e->guard = both ? expr_cmp(x, EXPR_LT, few, p->m) : outer;
        st = launch(e, p, t, &tile, label);
    }
    e->guard = outer;
    return st;
}
