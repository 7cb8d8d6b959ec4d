/* The tile program of a product on the cores of an MLU.
 *
 *   for each item of this core:                   batch, columns n, a run of rows
 *     rows of b to WRAM, when they stay            IO-DMA, or Global-DMA to SRAM and Move-DMA from there
 *     for each tile of rows:
 *       for each block of K (double):              rows of a to NRAM, rows of b to WRAM
 *                                                  sums in NRAM                              TFU
 *       relu, narrowed in place                                                              VFU
 *       store the rows                                                                       IO-DMA
 *
 * Lanes are cores of one or more clusters that walk the same items side by side, each with its own rows of a: what they
 * need of b comes once from memory. The tensor unit wants K along the rows of both sides. What is stored otherwise is
 * loaded as it is and turned by the vector unit; b then moves on to WRAM. A bias is copied to every row of the sums
 * before the first step. */
#include "backend/matrix/mm_grouped.h"
#include "backend/matrix/mm_variants.h"
#include "backend/mlu/product.h"
#include "base/size.h"
#include "kernels/vec.h"

#include <stdio.h>
#include <string.h>

struct code {
    struct emit *e;
    const struct mm *p;
    struct product_tile t;
    struct tile_kernel *k;
    struct expr_pool *x;
    struct tile_builder b;
    struct kparams params;
    struct mm_dims d;
    int32_t ta, tb, tc, tbias;         /* tensors of the kernel */
    int32_t a, b_rows, acc, out, bias; /* rows of a; of b in WRAM; sums; narrowed sums; row of starts */
    int32_t a_cols, b_cols, b_turned;  /* operands with K along columns; b turned */
    int32_t b_shared;                  /* rows of b in SRAM; -1 */
    struct mlu_items item;
    struct mm_groups groups;                       /* with rows that choose their matrix */
    expr group_step, tile;                         /* between matrices; number of the tile of rows */
    expr m0, n0, im, in, off_a, off_b, off_c, row; /* the tile; row: between rows of b */
    expr k0, ik;                                   /* of the block of K */
};

static expr num(struct code *c, int64_t v)
{
    return expr_const(c->x, v);
}

/* Is b stored with K along its rows? */
static bool b_has_rows(const struct mm *p)
{
    return p->weight || p->b_trans;
}

static void declare(struct code *c)
{
    const struct mm *p = c->p;
    mm_dims_declare(&c->d, &c->params, p);
    if (p->ends) {
        mm_groups_declare(&c->groups, p, &c->params);
        c->group_step = kparam(&c->params, "b_group", p->b_group);
    }
    tile_params_done(c->k);
    c->row = p->weight ? c->d.k : c->d.b_row;
    c->ta = tile_tensor(c->k, c->e->arena, "A", p->in, true, false);
    c->tb = tile_tensor(c->k, c->e->arena, p->weight ? "W" : "B", p->in, true, false);
    c->tc = tile_tensor(c->k, c->e->arena, "C", p->out, false, true);
    c->tbias = p->bias ? tile_tensor(c->k, c->e->arena, "bias", DT_F32, true, false) : -1;
    if (p->ends)
        mm_groups_tensors(&c->groups, c->k, c->e->arena);
}

static void buffers(struct code *c)
{
    const struct product_tile *t = &c->t;
    const struct mm *p = c->p;
    const int64_t es = dtype_size(p->in);
    c->a_cols = p->a_trans ? tile_buf(&c->b, "a_cols", TS_UB, p->in, t->slots, t->m * t->k * es) : -1;
    c->a = tile_buf(&c->b, "a", TS_UB, p->in, t->slots, t->m * t->k * es);
    if (!b_has_rows(p)) {
        c->b_cols = tile_buf(&c->b, "b_cols", TS_UB, p->in, t->b_slots, t->n * t->k * es);
        c->b_turned = tile_buf(&c->b, "b_turned", TS_UB, p->in, 1, t->n * t->k * es);
    }
    c->b_shared = t->on.lanes > 1 ? tile_buf(&c->b, "b_shared", TS_L1, p->in, t->b_slots, t->n * t->k * es) : -1;
    c->b_rows = tile_buf(&c->b, "b", TS_L0B, p->in, t->b_slots, t->n * t->k * es);
    c->acc = tile_buf(&c->b, "acc", TS_UB, mm_sum(p->in), t->sums, t->m * t->n * 4);
    c->out = p->out != mm_sum(p->in) ? tile_buf(&c->b, "out", TS_UB, p->out, t->sums, t->m * t->n * dtype_size(p->out))
                                     : c->acc;
    c->bias = p->bias ? tile_buf(&c->b, "bias", TS_UB, DT_F32, t->slots, t->n * 4) : -1;
}

static expr at_least_one(struct code *c, expr e)
{
    return expr_max(c->x, num(c, 1), e);
}

/* Tiles of the rows of each matrix, every core for itself; rows fastest. */
static void open_groups(struct code *c)
{
    struct expr_pool *x = c->x;
    struct mm_groups *g = &c->groups;
    const expr nt = expr_ceildiv(x, c->d.n, num(c, c->t.n)), z = num(c, 0);
    const expr t = mm_groups_open(g, &c->b, c->e->m->n_cube, c->t.m, nt);
    const expr mt = at_least_one(c, expr_ceildiv(x, g->n, num(c, c->t.m)));
    c->tile = expr_mod(x, t, mt);
    c->n0 = expr_mul_const(x, expr_floordiv(x, t, mt), c->t.n);
    c->in = expr_min(x, num(c, c->t.n), expr_sub(x, c->d.n, c->n0));
    c->off_a = c->off_c = z;
    c->off_b = expr_mul(x, g->which, c->group_step);
}

static void open_items(struct code *c)
{
    struct expr_pool *x = c->x;
    const expr mt = expr_ceildiv(x, c->d.m, num(c, c->t.m)), nt = expr_ceildiv(x, c->d.n, num(c, c->t.n));
    mlu_open_items(c->e, &c->b, &c->t.on, mt, expr_mul(x, mm_batch_count(x, &c->d), nt), &c->item);
    const expr batch = expr_floordiv(x, c->item.right, nt);
    c->n0 = expr_mul_const(x, expr_mod(x, c->item.right, nt), c->t.n);
    c->in = expr_min(x, num(c, c->t.n), expr_sub(x, c->d.n, c->n0));
    c->off_a = mm_batch_offset(x, &c->d, batch, c->d.a_batch);
    c->off_b = mm_batch_offset(x, &c->d, batch, c->d.b_batch);
    c->off_c = mm_batch_offset(x, &c->d, batch, c->d.c_batch);
}

/* Rows of tile number j of the item; lanes beyond the last row have none. */
static void place_rows(struct code *c, expr j)
{
    struct expr_pool *x = c->x;
    if (c->p->ends) {
        const expr at = expr_mul_const(x, c->tile, c->t.m);
        c->m0 = expr_add(x, c->groups.first, at);
        c->im = expr_min(x, num(c, c->t.m), expr_sub(x, c->groups.n, at));
        return;
    }
    c->m0 = expr_mul_const(x, mlu_item_row(x, &c->item, j), c->t.m);
    c->im = expr_min(x, num(c, c->t.m), expr_sub(x, c->d.m, c->m0));
    if (c->t.on.lanes > 1)
        c->im = expr_max(x, num(c, 0), c->im);
}

struct block { /* of an operand as stored */
    int32_t buf, tensor;
    expr off, rows, cols, row; /* row: between rows in memory */
    int64_t pitch;             /* on chip */
};

static void load(struct code *c, const struct block *v)
{
    const expr z = num(c, 0), one = num(c, 1);
    TILE(&c->b, LOAD, v->buf, z, v->tensor, v->off, c->p->in, one, one, v->rows, v->cols, z, z, v->row, one, z, z,
         num(c, v->pitch), one);
}

static void load_a(struct code *c)
{
    struct expr_pool *x = c->x;
    const struct product_tile *t = &c->t;
    const expr z = num(c, 0), row = c->d.a_row;
    if (!c->p->a_trans) {
        tile_note(&c->b, "a: rows to NRAM");
        const expr off = expr_add(x, expr_add(x, c->off_a, expr_mul(x, c->m0, row)), c->k0);
        load(c, &(struct block){c->a, c->ta, off, c->im, c->ik, row, t->k});
        return;
    }
    tile_note(&c->b, "a: columns to NRAM, turned");
    const expr off = expr_add(x, expr_add(x, c->off_a, expr_mul(x, c->k0, row)), c->m0);
    load(c, &(struct block){c->a_cols, c->ta, off, c->ik, c->im, row, t->m});
    TILE(&c->b, TRANSP, c->p->in, c->ik, c->im, c->a, z, num(c, t->k), c->a_cols, z, num(c, t->m));
}

static void load_b(struct code *c)
{
    struct expr_pool *x = c->x;
    const struct product_tile *t = &c->t;
    const expr z = num(c, 0);
    if (c->t.on.lanes > 1) {
        tile_note(&c->b, "b: rows to SRAM once for all lanes, on to WRAM");
        const expr off = expr_add(x, expr_add(x, c->off_b, expr_mul(x, c->n0, c->row)), c->k0);
        const expr one = num(c, 1), pitch = num(c, t->k);
        TILE(&c->b, LOADC, c->b_shared, z, c->tb, off, c->p->in, one, one, c->in, c->ik, z, z, c->row, one, z, z, pitch,
             one, t->on.clusters);
        TILE(&c->b, COPY_ROWS, c->b_rows, z, pitch, c->b_shared, z, pitch, c->p->in, c->in, c->ik);
        return;
    }
    if (b_has_rows(c->p)) {
        tile_note(&c->b, "b: rows to WRAM");
        const expr off = expr_add(x, expr_add(x, c->off_b, expr_mul(x, c->n0, c->row)), c->k0);
        load(c, &(struct block){c->b_rows, c->tb, off, c->in, c->ik, c->row, t->k});
        return;
    }
    tile_note(&c->b, "b: columns to NRAM, turned, rows to WRAM");
    const expr off = expr_add(x, expr_add(x, c->off_b, expr_mul(x, c->k0, c->row)), c->n0), pitch = num(c, t->k);
    load(c, &(struct block){c->b_cols, c->tb, off, c->ik, c->in, c->row, t->n});
    TILE(&c->b, TRANSP, c->p->in, c->ik, c->in, c->b_turned, z, pitch, c->b_cols, z, num(c, t->n));
    TILE(&c->b, COPY_ROWS, c->b_rows, z, pitch, c->b_turned, z, pitch, c->p->in, c->in, c->ik);
}

static void start_sums(struct code *c)
{
    const expr z = num(c, 0), one = num(c, 1);
    if (!c->p->bias)
        return;
    tile_note(&c->b, "the bias as the start of every row");
    TILE(&c->b, LOAD, c->bias, z, c->tbias, c->n0, DT_F32, one, one, one, c->in, z, z, z, one, z, z, z, one);
    TILE(&c->b, COPY_UB, DT_F32, c->im, c->in, c->acc, z, num(c, c->t.n), c->bias, z, z, 1);
}

static void finish(struct code *c)
{
    struct expr_pool *x = c->x;
    const struct mm *p = c->p;
    const enum dtype sum = mm_sum(p->in);
    const expr z = num(c, 0), one = num(c, 1), pitch = num(c, c->t.n);
    if (p->relu) {
        tile_note(&c->b, "relu");
        TILE(&c->b, VEC, K_FN_Relu, sum, c->im, c->in, c->acc, z, pitch, c->acc, z, pitch, 1, -1, 0, z, 0, -1, 0, z, 0,
             0, 0, 0);
    }
    if (c->out != c->acc) {
        tile_note(&c->b, "narrowed");
        TILE(&c->b, CAST, p->out, sum, c->im, c->in, c->out, z, pitch, c->acc, z, pitch, 1, 1);
    }
    tile_note(&c->b, "store the rows");
    const expr off = expr_add(x, c->off_c, expr_add(x, expr_mul(x, c->m0, c->d.c_row), c->n0));
    TILE(&c->b, STORE, c->tc, off, c->out, z, p->out, one, one, c->im, c->in, z, z, pitch, one, z, z, c->d.c_row, one);
}

/* One block of K that begins at k0. */
static void open_block(struct code *c, expr k0)
{
    c->k0 = k0;
    c->ik = expr_min(c->x, num(c, c->t.k), expr_sub(c->x, c->d.k, k0));
}

static void multiply(struct code *c, expr init)
{
    const expr z = num(c, 0), pitch = num(c, c->t.k);
    load_a(c);
    if (!c->t.on.runs)
        load_b(c);
    tile_note(&c->b, "rows of a times rows of b");
    TILE(&c->b, MAC_ROWS, c->acc, z, num(c, c->t.n), c->a, z, pitch, c->b_rows, z, pitch, c->p->in, c->im, c->in, c->ik,
         c->p->bias ? z : init);
}

static void body(struct code *c)
{
    struct expr_pool *x = c->x;
    const expr z = num(c, 0), one = num(c, 1);
    if (c->p->ends)
        open_groups(c);
    else
        open_items(c);
    open_block(c, z);
    if (c->t.on.runs)
        load_b(c);
    const struct mlu_turns run = mlu_open_turns(&c->b, "rows", c->t.on.runs ? c->item.steps : one);
    place_rows(c, run.i);
    start_sums(c);
    if (c->t.on.runs) {
        multiply(c, one);
    } else { /* K = 0 still writes the starting values */
        const struct mlu_turns j =
            mlu_open_turns(&c->b, "kb", at_least_one(c, expr_ceildiv(x, c->d.k, num(c, c->t.k))));
        open_block(c, expr_mul_const(x, j.i, c->t.k));
        multiply(c, expr_cmp(x, EXPR_EQ, j.i, z));
        mlu_close_turns(&c->b, &j);
    }
    finish(c);
    mlu_close_turns(&c->b, &run);
    tile_end(&c->b);
    if (c->p->ends)
        tile_end(&c->b);
}

static enum npuc_status launch(struct emit *e, const struct mm *p, const struct mm_tensors *t, const void *form,
                               const char *label)
{
    const struct product_tile *tile = form;
    char name[48];
    if (tile->m == 0)
        return node_error(e->cx, p->c->def, D_MEMORY_FULL,
                          "not even the smallest tile of the product fits into NRAM and WRAM of the target");
    snprintf(name, sizeof name, "matmul%s_%s_%lldx%lldx%lld",
             p->bias   ? "_bias"
             : p->ends ? "_grouped"
                       : "",
             dtype_table[p->in].name, (long long)tile->m, (long long)tile->n, (long long)tile->k);
    struct code c = {.e = e, .p = p, .t = *tile};
    c.k = emit_kernel(e, name, &c.b, &c.params);
    c.x = &c.k->exprs;
    declare(&c);
    tile_section_begin(&c.b, TCORE_VECTOR);
    buffers(&c);
    body(&c);
    const int32_t tensors[5] = {t->a, t->b, t->c, p->bias ? t->bias : t->index, t->ends};
    return emit_launch(e, c.k, tensors, c.params.bound, mm_macs(e, p), label);
}

static void choose(struct emit *e, const struct mm *p, const struct mm_sizes *s, void *form)
{
    const struct product_tile t = product_choose_tile(e->m, e->cx, p, s, e->tiling);
    memcpy(form, &t, sizeof t);
}

static double cycles(const struct machine *m, const struct mm *p, const struct mm_sizes *s, const void *form)
{
    return product_cycles(m, p, s, form);
}

static enum npuc_status emit_forms(struct emit *e, const struct mm *p, const struct mm_tensors *t, const char *label)
{
    static const struct mm_forms forms = {
        .form_size = sizeof(struct product_tile), .choose = choose, .cycles = cycles, .launch = launch};
    return mm_emit_forms(e, p, t, label, &forms);
}

enum npuc_status product_emit(struct emit *e, const struct mm *p, const struct mm_tensors *t, const char *label)
{
    return p->ends ? mm_emit_by_rows(e, p, t, label, emit_forms) : mm_emit_single_rows(e, p, t, label, emit_forms);
}
