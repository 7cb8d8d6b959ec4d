/* The tile program of a product on the cube cores.
 *
 *   for each tile t of this core:                 t = block + i*blocks, in bands: what cores read at a time is shared;
 *                                                 of a last round with idle cores each a part of a tile
 *     for each block of K in L1 (double):         load a, load b                       mte2
 *       for each step of K in L0 (double):        copy a to L0A, b to L0B              mte1
 *                                                 accumulate in L0C                    cube
 *     store the tile, narrowed                                                         fixpipe
 *
 * With a feed, vector cores make b in slots of a workspace: FEED_READY counts blocks made, FEED_FREE slots emptied. The
 * cube core only reports slots that will be used again, so that the counts are zero at the end.
 *
 * With a tail, the cube core stores tiles in slots of a workspace and vector cores go on with them: TAIL_READY counts
 * tiles stored, TAIL_FREE slots read.
 *
 * Peers share a. Without a tail their columns of tiles follow those of the first product; with one, a tile is done for
 * each in turn, into one slot.
 *
 * L1 holds both operands as [k/c0][rows][c0] when K runs along the rows of storage, else [rows/c0][k][c0], which the
 * copy to L0 transposes. Weights come in NZ with rows n, i.e. in the order of L0B. */
#include "backend/ascend/matmul_priv.h"
#include "backend/matrix/mm_variants.h"
#include "base/size.h"

#include <stdio.h>
#include <string.h>

static const struct mm *product_of(const struct mm_kernel *c, int i)
{
    return i == 0 ? c->p : &c->p->peers[i - 1];
}

/* Tensors beside those of the tail's region; `store` is where tiles go. */
static void tail_tensors(struct mm_kernel *c, const struct mm_tensors *t, int32_t store)
{
    struct vr_form *f = &c->tail->f;
    c->ta = vr_declare_tensor(f, t->a, mm_code(c->p), false);
    for (int i = 0; i < c->n_parts; i++) {
        struct mm_one *q = &c->parts[i];
        q->tb = vr_declare_tensor(f, t[i].b, c->p->block ? c->p->b_code : c->p->in, false);
        q->tc = vr_declare_tensor(f, store, c->p->out, true);
        q->tbias = product_of(c, i)->bias ? vr_declare_tensor(f, t[i].bias, DT_F32, false) : -1;
        q->tfactor = product_of(c, i)->factor ? vr_declare_tensor(f, t[i].factor, DT_F32, false) : -1;
    }
    if (c->p->block) {
        c->sa.tensor = vr_declare_tensor(f, t->a_scale, DT_F8E8M0, false);
        c->sb.tensor = vr_declare_tensor(f, t->b_scale, DT_F8E8M0, false);
    }
}

/* Extents of the parts of a group. */
static void size_parts(struct mm_kernel *c)
{
    const struct ir_ctx *cx = c->e->cx;
    c->n_parts = 1 + c->p->n_peers;
    for (int i = 0; i < c->n_parts; i++) {
        struct mm_one *q = &c->parts[i];
        const struct mm *p = product_of(c, i);
        c->has_bias = c->has_bias || p->bias;
        if (expr_is_const(&cx->exprs, p->n, &q->n))
            q->columns = size_ceil_div(q->n, c->t.n);
    }
}

static enum npuc_status declare(struct mm_kernel *c, const struct mm_tensors *t, int32_t workspace)
{
    const struct mm *p = c->p;
    mm_dims_declare(&c->d, &c->params, p);
    size_parts(c);
    mm_parts_declare(c);
    if (p->ends)
        mm_groups_declare(&c->groups, p, &c->params);
    c->group_step = p->ends ? kparam(&c->params, "b_group", p->b_group) : num(c, 0);
    if (p->tail) {
        c->tail = mm_tail_open(c->e, p, &c->t, workspace, &c->params);
        if (!c->tail)
            return NPUC_E_UNSUPPORTED;
        tail_tensors(c, t, workspace);
        return NPUC_OK;
    }
    tile_params_done(c->k);
    struct arena *a = c->e->arena;
    c->ta = tile_tensor(c->k, a, "A", mm_code(p), true, false);
    for (int i = 0; i < c->n_parts; i++) {
        const char *text = i > 0 ? arena_printf(a, "%d", i + 1) : "";
        const char *weight = arena_printf(a, "%s%s", p->weight ? "W" : "B", text);
        struct mm_one *q = &c->parts[i];
        q->tb = p->feed && i > 0 ? c->parts[0].tb /* one workspace */
                                 : tile_tensor(c->k, a, weight, p->block ? p->b_code : p->in, true, p->feed != NULL);
        q->tc = tile_tensor(c->k, a, arena_printf(a, "C%s", text), p->out, false, true);
        q->tbias = -1;
        if (product_of(c, i)->bias)
            q->tbias = tile_tensor(c->k, a, arena_printf(a, "bias%s", text), DT_F32, true, false);
        q->tfactor = -1;
        if (product_of(c, i)->factor)
            q->tfactor = tile_tensor(c->k, a, arena_printf(a, "factor%s", text), DT_F32, true, false);
    }
    if (p->block) {
        c->sa.tensor = tile_tensor(c->k, a, "A_scale", DT_F8E8M0, true, false);
        c->sb.tensor = tile_tensor(c->k, a, "B_scale", DT_F8E8M0, true, false);
    }
    if (p->ends)
        mm_groups_tensors(&c->groups, c->k, a);
    if (p->feed)
        p->feed->declare(p->feed, c->e, &c->b);
    return NPUC_OK;
}

static void scale_buffers(struct mm_kernel *c)
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

static void buffers(struct mm_kernel *c)
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
    if (c->has_bias) {
        c->l1bias = tile_buf(&c->b, "bias", TS_L1, DT_F32, 2, t->n * 4);
        c->bt = tile_buf(&c->b, "bt", TS_BT, DT_F32, 2 * t->n * 4 <= c->e->m->size[TS_BT] ? 2 : 1, t->n * 4);
    }
}

/* Row and column of tile number t of mt x nt. */
static void locate_tile(struct mm_kernel *c, expr t, expr mt, expr nt)
{
    struct expr_pool *x = c->x;
    const expr along = c->t.by_rows ? nt : mt, across = c->t.by_rows ? mt : nt, band = num(c, c->t.band);
    const expr whole = expr_max(x, num(c, 1), expr_mul(x, along, band)), in_band = expr_mod(x, t, whole);
    const expr first = expr_mul(x, expr_floordiv(x, t, whole), band);
    const expr width = expr_max(x, num(c, 1), expr_min(x, band, expr_sub(x, across, first)));
    const expr p = expr_add(x, first, expr_mod(x, in_band, width)), q = expr_floordiv(x, in_band, width);
    c->m0 = expr_mul_const(x, c->t.by_rows ? p : q, c->t.m);
    c->n0 = expr_mul_const(x, c->t.by_rows ? q : p, c->t.n);
}

/* Columns of tiles: those of all parts, unless a tile is done for each in turn. */
static expr tile_columns(struct mm_kernel *c)
{
    int64_t n = 0;
    if (c->n_parts == 1 || c->tail)
        return expr_ceildiv(c->x, c->d.n, num(c, c->t.n));
    for (int i = 0; i < c->n_parts; i++)
        n += c->parts[i].columns;
    return num(c, n);
}

/* The part that n0, counted over the columns of all, falls into; n0 and sizes are then those of the part. */
static void locate_part(struct mm_kernel *c)
{
    struct expr_pool *x = c->x;
    const expr column = c->n0;
    int64_t before = 0;
    c->which = num(c, 0);
    c->n = c->d.n;
    c->c_row = c->d.c_row;
    for (int i = 1; i < c->n_parts && !c->tail; i++) {
        before += c->parts[i - 1].columns * c->t.n;
        const expr is = expr_cmp(x, EXPR_LE, num(c, before), column);
        c->which = expr_add(x, c->which, is);
        c->n0 = expr_sub(x, c->n0, expr_mul_const(x, is, c->parts[i - 1].columns * c->t.n));
        c->n = expr_add(x, c->n, expr_mul_const(x, is, c->parts[i].n - c->parts[i - 1].n));
        c->c_row = c->n;
    }
    c->n_pad = c->p->all_n ? num(c, size_align(c->p->all_n, 16)) : expr_align(x, c->n, 16);
}

void mm_for_part(struct mm_kernel *c, void (*fn)(struct mm_kernel *c, const struct mm_one *q))
{
    for (int i = 0; i < c->n_parts; i++) {
        if (c->n_parts > 1)
            tile_if(&c->b, expr_cmp(c->x, EXPR_EQ, c->which, num(c, i)));
        fn(c, &c->parts[i]);
        if (c->n_parts > 1)
            tile_end(&c->b);
    }
}

/* Tiles in turn over the cores, then the parts of those that are left. */
static void open_bands(struct mm_kernel *c, expr mt, expr nt)
{
    struct expr_pool *x = c->x;
    const expr matrix = expr_max(x, num(c, 1), expr_mul(x, mt, nt)), one = num(c, 1);
    const expr tiles = expr_mul(x, mm_batch_count(x, &c->d), expr_mul(x, mt, nt));
    const expr items = mm_is_parted(c) ? c->items : tiles;
    c->k->blocks = expr_max(x, one, expr_min(x, num(c, c->e->m->n_cube), items));
    const expr block = expr_sym(x, c->k->sym_block);
    c->rounds = expr_ceildiv(x, expr_sub(x, items, block), c->k->blocks);
    c->round = tile_loop(&c->b, "i", c->rounds);
    expr t = expr_add(x, block, expr_mul(x, c->round, c->k->blocks));
    if (mm_is_parted(c)) {
        const expr parts = num(c, mm_last_parts(&c->t)), behind = expr_max(x, num(c, 0), expr_sub(x, t, c->whole));
        c->parted = expr_cmp(x, EXPR_LE, c->whole, t);
        c->part = expr_mod(x, behind, parts);
        t = expr_add(x, expr_min(x, t, c->whole), expr_floordiv(x, behind, parts));
    }
    c->batch = c->d.n_batch > 0 ? expr_floordiv(x, t, matrix) : num(c, 0);
    locate_tile(c, c->d.n_batch > 0 ? expr_mod(x, t, matrix) : t, mt, nt);
}

/* First and number of `tiles` that part `at` of `parts` has. */
static void share_of(struct mm_kernel *c, expr tiles, int64_t parts, expr at, expr out[2])
{
    struct expr_pool *x = c->x;
    const expr each = expr_ceildiv(x, tiles, num(c, parts));
    out[0] = expr_mul(x, at, each);
    out[1] = expr_max(x, num(c, 0), expr_min(x, each, expr_sub(x, tiles, out[0])));
}

/* A rectangle of tiles for each core. */
static void open_grid(struct mm_kernel *c, expr mt, expr nt)
{
    struct expr_pool *x = c->x;
    const expr columns = num(c, c->t.grid_n);
    expr rows[2], cols[2];
    c->k->blocks = num(c, c->t.grid_m * c->t.grid_n);
    const expr block = expr_sym(x, c->k->sym_block);
    share_of(c, mt, c->t.grid_m, expr_floordiv(x, block, columns), rows);
    share_of(c, nt, c->t.grid_n, expr_mod(x, block, columns), cols);
    const expr own = expr_mul(x, rows[1], cols[1]), whole = expr_max(x, num(c, 1), own);
    c->rounds = expr_mul(x, mm_batch_count(x, &c->d), own);
    c->round = tile_loop(&c->b, "i", c->rounds);
    c->batch = c->d.n_batch > 0 ? expr_floordiv(x, c->round, whole) : num(c, 0);
    const expr i = c->d.n_batch > 0 ? expr_mod(x, c->round, whole) : c->round, down = expr_max(x, num(c, 1), rows[1]);
    c->m0 = expr_mul_const(x, expr_add(x, rows[0], expr_mod(x, i, down)), c->t.m);
    c->n0 = expr_mul_const(x, expr_add(x, cols[0], expr_floordiv(x, i, down)), c->t.n);
}

/* Tiles of the rows of each matrix. */
static void open_groups(struct mm_kernel *c, expr nt)
{
    struct mm_groups *g = &c->groups;
    const expr t = mm_groups_open(g, &c->b, c->e->m->n_cube, c->t.m, nt);
    c->round = g->round;
    c->rounds = g->rounds;
    c->batch = num(c, 0);
    locate_tile(c, t, expr_ceildiv(c->x, g->n, num(c, c->t.m)), nt);
}

/* First element and extent of the tile along one side; of part `at` of `n`, if the tile is divided. */
static expr take_part(struct mm_kernel *c, expr *first, expr at, int64_t extent, int64_t n)
{
    struct expr_pool *x = c->x;
    const expr each = expr_select(x, c->parted, num(c, extent / n), num(c, extent));
    *first = expr_add(x, *first, expr_mul(x, at, each));
    return each;
}

void mm_open_tiles(struct mm_kernel *c)
{
    struct expr_pool *x = c->x;
    const expr mt = expr_ceildiv(x, c->d.m, num(c, c->t.m)), nt = tile_columns(c);
    if (c->p->ends)
        open_groups(c, nt);
    else if (c->t.grid_m > 0)
        open_grid(c, mt, nt);
    else
        open_bands(c, mt, nt);
    locate_part(c);
    expr m = num(c, c->t.m), n = num(c, c->t.n);
    if (mm_is_parted(c)) {
        m = take_part(c, &c->m0, expr_mod(x, c->part, num(c, c->t.last_m)), c->t.m, c->t.last_m);
        n = take_part(c, &c->n0, expr_floordiv(x, c->part, num(c, c->t.last_m)), c->t.n, c->t.last_n);
    }
    c->im = expr_min(x, m, expr_sub(x, c->p->ends ? c->groups.n : c->d.m, c->m0));
    c->in = expr_min(x, n, expr_sub(x, c->n, c->n0));
    if (mm_is_parted(c)) { /* beyond the edge of the result */
        c->im = expr_max(x, num(c, 0), c->im);
        c->in = expr_max(x, num(c, 0), c->in);
    }
    c->off_a = mm_batch_offset(x, &c->d, c->batch, c->d.a_batch);
    c->off_b = mm_batch_offset(x, &c->d, c->batch, c->d.b_batch);
    c->off_c = mm_batch_offset(x, &c->d, c->batch, c->d.c_batch);
    if (c->p->ends) {
        c->m0 = expr_add(x, c->m0, c->groups.first);
        c->off_b = expr_mul(x, c->groups.which, c->group_step);
    }
}

static void load_row(struct mm_kernel *c, const struct mm_one *q)
{
    const expr z = num(c, 0), one = num(c, 1);
    if (q->tbias < 0)
        return;
    tile_note(&c->b, "bias row of the tile to the bias table");
    TILE(&c->b, LOAD, c->l1bias, z, q->tbias, c->n0, DT_F32, one, one, one, c->in, z, z, z, one, z, z, z, one);
    TILE(&c->b, COPY_BT, c->bt, c->l1bias, z, DT_F32, c->in);
}

static void load_bias(struct mm_kernel *c)
{
    if (c->has_bias)
        mm_for_part(c, load_row);
}

/* 1 when the part starts from a bias row. */
static expr starts_from_row(struct mm_kernel *c)
{
    expr n = num(c, 0);
    for (int i = 0; i < c->n_parts; i++)
        if (c->parts[i].tbias >= 0)
            n = expr_add(c->x, n, expr_cmp(c->x, EXPR_EQ, c->which, num(c, i)));
    return n;
}

/* Rows x K of an operand whose storage has K along its rows (trans: rows along its rows) to L1. */
static void load_operand(struct mm_kernel *c, int32_t buf, int32_t tensor, expr off, const expr extent[4], bool k_major)
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

static void load_weight(struct mm_kernel *c, const struct mm_one *q)
{
    struct expr_pool *x = c->x;
    const expr z = num(c, 0), one = num(c, 1);
    const expr rows = expr_align(x, c->in, 16);
    expr off = expr_add(x, expr_mul(x, c->k0, c->n_pad), expr_mul_const(x, c->n0, c->c0));
    off = expr_add(x, off, c->off_b);
    tile_note(&c->b, "weights: stored in NZ, a plain copy");
    TILE(&c->b, LOAD, c->l1b, z, q->tb, off, c->p->in, one, expr_ceildiv(x, c->ik, num(c, c->c0)), one,
         expr_mul_const(x, rows, c->c0), z, expr_mul_const(x, c->n_pad, c->c0), z, one, z, num(c, c->t.n * c->c0), z,
         one);
}

static void load_scales(struct mm_kernel *c)
{
    const struct mm_span_k k = {c->k0, c->ik, c->d.k};
    c->sa.off = c->off_a, c->sa.first = c->m0, c->sa.count = c->im, c->sa.row = c->d.a_row;
    c->sb.off = c->off_b, c->sb.first = c->n0, c->sb.count = c->in, c->sb.row = c->d.b_row;
    mm_scale_load(&c->b, c->p, &c->sa, &k, c->t.kb);
    mm_scale_load(&c->b, c->p, &c->sb, &k, c->t.kb);
}

static void load_block(struct mm_kernel *c, expr j)
{
    if (c->p->block)
        load_scales(c);
    tile_note(&c->b, c->p->a_trans ? "a: columns of K rows, transposed on the way to L0" : "a: ND to NZ");
    load_operand(c, c->l1a, c->ta, c->off_a, (const expr[4]){c->m0, c->im, num(c, c->t.m), c->d.a_row}, c->p->a_trans);
    if (c->p->feed) {
        mm_load_made(c, j);
        return;
    }
    if (c->p->weight) {
        mm_for_part(c, load_weight);
        return;
    }
    tile_note(&c->b, c->p->b_trans ? "b: ND to NZ" : "b: columns of K rows, transposed on the way to L0");
    load_operand(c, c->l1b, c->parts[0].tb, c->off_b, (const expr[4]){c->n0, c->in, num(c, c->t.n), c->d.b_row},
                 !c->p->b_trans);
}

/* One step of K through L0. `first`: 1 in the first step of the tile. */
static void step(struct mm_kernel *c, expr l, expr first)
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
         (int32_t)(c->p->block ? c->p->b_code : c->p->in), c->in, ie, tb);
    const expr init = expr_mul(x, first, expr_add(x, num(c, 1), starts_from_row(c)));
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

static expr at_least_one(struct mm_kernel *c, expr n)
{
    return expr_max(c->x, num(c, 1), n); /* K = 0 still writes the starting values */
}

/* Blocks of K of a tile; none of a part beyond the edge of the result. */
static expr blocks_of(struct mm_kernel *c)
{
    struct expr_pool *x = c->x;
    const expr n = at_least_one(c, expr_ceildiv(x, c->d.k, num(c, c->t.kb))), zero = num(c, 0);
    if (!mm_is_parted(c))
        return n;
    return expr_select(x, expr_cmp(x, EXPR_LT, zero, expr_min(x, c->im, c->in)), n, zero);
}

void mm_fixp(struct mm_kernel *c, const struct mm_one *q, expr off, expr row)
{
    struct expr_pool *x = c->x;
    TILE(&c->b, FIXP, q->tc, off, row, c->acc, expr_align(x, c->im, 16), mm_sum(mm_code(c->p)), c->p->out, c->im, c->in,
         c->p->relu, q->tfactor, q->tfactor < 0 ? num(c, 0) : c->n0);
}

static void store_result(struct mm_kernel *c, const struct mm_one *q)
{
    struct expr_pool *x = c->x;
    const expr off = expr_add(x, c->off_c, expr_add(x, expr_mul(x, c->m0, c->c_row), c->n0));
    tile_note(&c->b, c->p->relu ? "store: relu, narrowed, NZ to ND" : "store: narrowed, NZ to ND");
    mm_fixp(c, q, off, c->c_row);
}

static void accumulate(struct mm_kernel *c)
{
    struct expr_pool *x = c->x;
    const expr j = tile_loop(&c->b, "kb", blocks_of(c));
    c->k0 = expr_mul_const(x, j, c->t.kb);
    c->ik = expr_min(x, num(c, c->t.kb), expr_sub(x, c->d.k, c->k0));
    load_block(c, j);
    const expr l = tile_loop(&c->b, "k0", at_least_one(c, expr_ceildiv(x, c->ik, num(c, c->t.k0))));
    step(c, l, expr_cmp(x, EXPR_EQ, expr_add(x, j, l), num(c, 0)));
    tile_end(&c->b);
    tile_end(&c->b);
}

static void body(struct mm_kernel *c)
{
    mm_open_tiles(c);
    if (c->tail)
        mm_open_slot(c);
    load_bias(c);
    accumulate(c);
    if (c->tail) {
        mm_store_for_tail(c);
        mm_close_slot(c);
    } else {
        mm_for_part(c, store_result);
    }
    mm_close_tiles(c);
}

/* Slots for all blocks of cores that run. */
static int32_t workspace(struct emit *e, const struct mm *p, const struct mm_tile *t, const char *name)
{
    struct expr_pool *x = &e->cx->exprs;
    const expr rows_of_tiles = p->ends ? p->m : expr_ceildiv(x, p->m, expr_const(x, t->m));
    expr columns = expr_ceildiv(x, p->n, expr_const(x, t->n));
    for (int i = 0; p->feed && i < p->n_peers; i++)
        columns = expr_add(x, columns, expr_ceildiv(x, p->peers[i].n, expr_const(x, t->n)));
    expr tiles = expr_mul(x, rows_of_tiles, columns);
    for (int i = 0; i < p->n_batch; i++)
        tiles = expr_mul(x, tiles, p->batch[i]);
    tiles = expr_max(x, expr_const(x, 1), expr_min(x, expr_const(x, e->m->n_cube), tiles));
    if (t->grid_m > 0)
        tiles = expr_const(x, t->grid_m * t->grid_n);
    const int64_t slots = p->feed ? p->feed->slots : p->tail->slots;
    const int64_t rows = p->feed ? t->kb : t->m * p->tail->n_products;
    return emit_temp(e, name, p->feed ? p->in : p->out, 3,
                     (const expr[]){tiles, expr_const(x, slots), expr_const(x, t->n * rows)});
}

#define MOST_TENSORS (5 + 7 * MM_MAX_GROUP) /* b, c, bias, factor, what a feed reads */
/* The tensors of a kernel without a tail, in the order of declare(). */
static void list_tensors(const struct mm_kernel *c, const struct mm_tensors *t, int32_t slots,
                         int32_t tensors[MOST_TENSORS])
{
    const struct mm_feed *f = c->p->feed;
    int32_t n = 0;
    tensors[n++] = t->a;
    for (int i = 0; i < c->n_parts; i++) {
        if (!f || i == 0)
            tensors[n++] = f ? slots : t[i].b;
        tensors[n++] = t[i].c;
        if (product_of(c, i)->bias)
            tensors[n++] = t[i].bias;
        if (product_of(c, i)->factor)
            tensors[n++] = t[i].factor;
    }
    if (c->p->block) {
        tensors[n++] = t->a_scale;
        tensors[n++] = t->b_scale;
    }
    if (c->p->ends) {
        tensors[n++] = t->index;
        tensors[n++] = t->ends;
    }
    for (int32_t i = 0; f && i < f->n_tensors; i++)
        tensors[n++] = f->tensors[i];
}

static enum npuc_status launch(struct emit *e, const struct mm *p, const struct mm_tensors *t, const void *form,
                               const char *label)
{
    const struct mm_tile *tile = form;
    if (tile->m == 0)
        return node_error(e->cx, p->c->def, D_MEMORY_FULL,
                          "no tile of the product fits: the target has %lld bytes of L1, %lld of L0A, %lld of L0C",
                          (long long)e->m->size[TS_L1], (long long)e->m->size[TS_L0A], (long long)e->m->size[TS_L0C]);
    char name[48];
    int32_t tensors[MOST_TENSORS];
    snprintf(name, sizeof name, "matmul%s%s%s%s_%s_%lldx%lldx%lld", p->feed ? "_made" : "", p->bias ? "_bias" : "",
             p->n_peers ? "_group"
             : p->ends  ? "_grouped"
                        : "",
             p->tail ? "_vector" : "", dtype_table[mm_code(p)].name, (long long)tile->m, (long long)tile->n,
             (long long)tile->k0);
    struct mm_kernel c = {.e = e, .p = p, .t = *tile, .c0 = e->m->c0_bytes / dtype_size(p->in)};
    c.k = emit_kernel(e, name, &c.b, &c.params);
    c.x = &c.k->exprs;
    const int32_t slots = p->feed   ? workspace(e, p, tile, "weight tiles")
                          : p->tail ? workspace(e, p, tile, "product tiles")
                                    : -1;
    const enum npuc_status st = declare(&c, t, slots);
    if (st != NPUC_OK)
        return st;
    tile_section_begin(&c.b, TCORE_CUBE);
    buffers(&c);
    body(&c);
    if (p->feed)
        mm_feed_body(&c);
    if (p->tail)
        mm_tail_body(&c);
    list_tensors(&c, t, slots, tensors);
    return emit_launch(e, c.k, c.tail ? c.tail->f.tensors : tensors, c.params.bound, mm_macs(e, p), label);
}

static void choose(struct emit *e, const struct mm *p, const struct mm_sizes *s, void *form)
{
    const struct mm_tile t = mm_choose_tile(e->m, p, s, e->tiling);
    memcpy(form, &t, sizeof t);
}

static double cycles(const struct machine *m, const struct mm *p, const struct mm_sizes *s, const void *form)
{
    return mm_tile_cycles(m, p, s, form);
}

static enum npuc_status emit_forms(struct emit *e, const struct mm *p, const struct mm_tensors *t, const char *label)
{
    static const struct mm_forms forms = {
        .form_size = sizeof(struct mm_tile), .choose = choose, .cycles = cycles, .launch = launch};
    return mm_emit_forms(e, p, t, label, &forms);
}

enum npuc_status mm_emit(struct emit *e, const struct mm *p, const struct mm_tensors *t, const char *label)
{
    return p->ends ? mm_emit_by_rows(e, p, t, label, emit_forms) : mm_emit_single_rows(e, p, t, label, emit_forms);
}
