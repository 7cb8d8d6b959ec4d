/* The clock against measurements: kernels whose source or profile is public, rebuilt as tile programs with the tiling
 * that their authors state, on the machines they were measured on. docs/clock.md names the sources and discusses the
 * rows.
 *
 * Rows give the time of the whole task in microseconds. A test fails when the mean error of a class is larger than what
 * the model reaches today with some room; constants are fitted to hardware knobs, never to a row. Rows with millions of
 * instructions run when NPUC_ALL_ROWS is set. */
#include "emu_unit.h"

#include "kernels/vec.h"
#include "runtime/emu/clock_priv.h"

#include <math.h>
#include <stdio.h>

static struct {
    double sum, signed_sum;
    int n;
} errors;

static bool all_rows(void)
{
    return getenv("NPUC_ALL_ROWS") != NULL;
}

static void begin(struct emu_unit *u, const char *target, enum tile_core core)
{
    struct diag d;
    unit_begin(u, core);
    emu_machine_free(u->machine);
    target_free(&u->target);
    diag_init(&d, ignore_line, NULL);
    assert_int_equal(target_load(&u->target, target, &d), NPUC_OK);
    u->machine = emu_machine_new(&u->target);
}

static int32_t tensor(struct emu_unit *u, int64_t size)
{
    const int32_t t = unit_tensor(u, DT_F16, NULL, (size_t)size);
    u->tensors[t].address = (int64_t)(t + 1) << 36;
    return t;
}

static void finish(struct emu_unit *u, const char *id, double measured_us)
{
    struct emu_timing t;
    struct emu_launch l = {.kernel = u->b.k,
                           .params = u->params,
                           .tensors = u->tensors,
                           .blocks = u->blocks,
                           .target = &u->target,
                           .machine = u->machine};
    if (emu_run_clock(&l, &t) != NPUC_OK)
        fail_msg("%s: %s", id, l.error);
    const double us = (t.cycles + t.launch_cyc) / target_num(&u->target, TK_CLOCK) * 1e6, error = us / measured_us - 1;
    print_message("%-28s measured %10.2f us, predicted %10.2f us  %+6.1f %%  %s\n", id, measured_us, us, 100 * error,
                  t.bound_by);
    errors.sum += fabs(error);
    errors.signed_sum += error;
    errors.n++;
    unit_end(u);
}

static void conclude(const char *what, double most)
{
    const double mape = 100 * errors.sum / errors.n;
    print_message("%s: %d rows, mean error %.1f %%, bias %+.1f %%\n", what, errors.n, mape,
                  100 * errors.signed_sum / errors.n);
    memset(&errors, 0, sizeof errors);
    assert_true(mape <= most);
}

/* ---- copies of a matrix of f16, tile by tile ---- */
struct copy {
    const char *id, *target;
    bool cube;
    int64_t cores, rows, cols, tile_rows, tile_cols;
    int64_t parts, passes; /* the matrix in column parts, each read several times */
    double measured_us;
};
static const struct copy copies[] = {
    {"910b1_ub_1x64", "ascend-910b1", false, 48, 12288, 12288, 1, 64, 1, 1, 564.84},
    {"910b1_ub_64x1024", "ascend-910b1", false, 48, 12288, 12288, 64, 1024, 1, 1, 215.82},
    {"910b1_ub_64x1024_n12287", "ascend-910b1", false, 48, 12288, 12287, 64, 1024, 1, 1, 275.3},
    {"950pr_ub_1x64", "ascend-950pr", false, 64, 12288, 12288, 1, 64, 1, 1, 884.06},
    {"950pr_ub_64x64", "ascend-950pr", false, 64, 12288, 12288, 64, 64, 1, 1, 208.64},
    {"910b1_l1_64x64", "ascend-910b1", true, 24, 12288, 12288, 64, 64, 1, 1, 300.7},
    {"910b1_l1_64x256_n12287", "ascend-910b1", true, 24, 12288, 12287, 64, 256, 1, 1, 438.76},
    {"950pr_l1_64x256", "ascend-950pr", true, 32, 12288, 12288, 64, 256, 1, 1, 190.52},
    {"910b1_ub_rep4_whole", "ascend-910b1", false, 48, 12288, 12288, 64, 1024, 1, 4, 828.06},
    {"910b1_ub_rep4_quarter", "ascend-910b1", false, 48, 12288, 12288, 64, 1024, 4, 4, 365.74},
    {"950pr_l1_rep4_whole", "ascend-950pr", true, 32, 12288, 12288, 64, 1024, 1, 4, 732.809},
};

static void run_copy(const struct copy *p)
{
    struct emu_unit u;
    begin(&u, p->target, p->cube ? TCORE_CUBE : TCORE_VECTOR);
    struct expr_pool *x = &u.b.k->exprs;
    const int64_t part = p->cols / p->parts, across = (part + p->tile_cols - 1) / p->tile_cols,
                  down = p->rows / p->tile_rows;
    const int32_t t = tensor(&u, p->rows * p->cols * 2);
    const int32_t buf = unit_buf(&u, p->cube ? TS_L1 : TS_UB, 1, p->tile_rows * p->tile_cols * 2);
    const expr one = num(&u, 1), zero = num(&u, 0), rows = num(&u, p->tile_rows), pitch = num(&u, p->cols);
    u.blocks = p->cores;
    const expr q = tile_loop(&u.b, "part", num(&u, p->parts));
    (void)tile_loop(&u.b, "pass", num(&u, p->passes));
    const expr block = expr_sym(x, u.b.k->sym_block);
    const expr i = tile_loop(&u.b, "i", expr_ceildiv(x, expr_sub(x, num(&u, across * down), block), num(&u, p->cores)));
    const expr n = expr_add(x, block, expr_mul_const(x, i, p->cores)),
               col = expr_mul_const(x, expr_mod(x, n, num(&u, across)), p->tile_cols);
    const expr cols = expr_min(x, num(&u, p->tile_cols), expr_sub(x, num(&u, part), col));
    expr off = expr_mul_const(x, expr_floordiv(x, n, num(&u, across)), p->tile_rows * p->cols);
    off = expr_add(x, off, expr_add(x, col, expr_mul_const(x, q, part)));
    if (p->cube)
        TILE(&u.b, LOAD_NZ, buf, zero, rows, t, off, DT_F16, rows, cols, pitch, one);
    else
        TILE(&u.b, LOAD, buf, zero, t, off, DT_F16, one, one, rows, cols, zero, zero, pitch, one, zero, zero,
             num(&u, p->tile_cols), one);
    for (int l = 0; l < 3; l++)
        tile_end(&u.b);
    finish(&u, p->id, p->measured_us);
}

static void copies_of_a_matrix(void **state)
{
    (void)state;
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(copies); i++)
        if (copies[i].tile_rows > 1 || all_rows())
            run_copy(&copies[i]);
    conclude("copies", 6);
}

/* ---- elementwise streams ---- */
struct stream {
    const char *id, *target;
    enum dtype dtype;
    int64_t cores, n, tile; /* elements */
    int inputs, slots;
    bool bypass; /* the inputs are not kept in L2 */
    enum k_fn fn;
    double measured_us;
};
#define AREA ((int64_t)8192 * 8192)
static const struct stream streams[] = {
    {"V1_1", "ascend-910b1", DT_F16, 1, AREA, 4096, 2, 1, false, K_FN_Add, 6909.6},
    {"V1_2", "ascend-910b1", DT_F16, 48, AREA, 4096, 2, 1, false, K_FN_Add, 306.58},
    {"V1_3", "ascend-910b1", DT_F16, 48, AREA, 16384, 2, 1, false, K_FN_Add, 268.5},
    {"V1_4", "ascend-910b1", DT_F16, 48, AREA, 16384, 2, 2, false, K_FN_Add, 264.02},
    {"V1_5", "ascend-910b1", DT_F16, 48, AREA, 16384, 2, 2, true, K_FN_Add, 187.68},
    {"V1_6", "ascend-910b1", DT_F16, 48, AREA, 16256, 2, 2, true, K_FN_Add, 184.52},
    {"V3_0", "ascend-950pr", DT_F32, 64, AREA, 8192, 1, 2, false, K_FN_GeluTanh, 351.53},
    {"V3_2", "ascend-950pr", DT_F32, 64, AREA, 8192, 1, 2, false, K_FN_GeluTanh, 344.44},
    {"V7b_0", "ascend-950pr", DT_F32, 64, AREA, 8192, 1, 2, false, K_FN_GeluTanh, 334.44},
    {"V7b_3", "ascend-950pr", DT_F32, 64, AREA, 8192, 1, 2, false, K_FN_GeluTanh, 324.75},
};

static void linear(struct emu_unit *u, bool load, int32_t buf, int32_t t, const expr at[2], enum dtype dt)
{
    const expr one = num(u, 1), zero = num(u, 0);
    if (load)
        TILE(&u->b, LOAD, buf, zero, t, at[0], (int32_t)dt, one, one, one, at[1], zero, zero, zero, one, zero, zero,
             zero, one);
    else
        TILE(&u->b, STORE, t, at[0], buf, zero, (int32_t)dt, one, one, one, at[1], zero, zero, zero, one, zero, zero,
             zero, one);
}

/* Gives the other side every slot of a ring at the start. */
static void grant(struct emu_unit *u, enum tile_unit from, enum tile_unit to, int slots)
{
    for (int s = 0; s < slots; s++)
        TILE(&u->b, SET, (int32_t)from, (int32_t)to, s, -1);
}

static void pass(struct emu_unit *u, enum tile_unit from, enum tile_unit to, int32_t ring)
{
    TILE(&u->b, SET, (int32_t)from, (int32_t)to, 0, ring);
    TILE(&u->b, WAIT, (int32_t)from, (int32_t)to, 0, ring);
}

static void run_stream(const struct stream *p)
{
    struct emu_unit u;
    begin(&u, p->target, TCORE_VECTOR);
    struct expr_pool *x = &u.b.k->exprs;
    const int64_t size = dtype_size(p->dtype), tiles = (p->n + p->tile - 1) / p->tile;
    const int32_t a = tensor(&u, p->n * size), b = tensor(&u, p->n * size), y = tensor(&u, p->n * size);
    if (p->bypass)
        u.b.k->tensors.data[a].bypass = u.b.k->tensors.data[b].bypass = num(&u, 1);
    const int32_t in = unit_buf(&u, TS_UB, p->slots, p->tile * size),
                  in2 = unit_buf(&u, TS_UB, p->slots, p->inputs > 1 ? p->tile * size : 32);
    const int32_t out = unit_buf(&u, TS_UB, p->slots, p->tile * size);
    u.blocks = p->cores;
    grant(&u, TU_V, TU_MTE2, p->slots);
    grant(&u, TU_MTE3, TU_V, p->slots);
    const expr block = expr_sym(x, u.b.k->sym_block), one = num(&u, 1), zero = num(&u, 0);
    const expr i = tile_loop(&u.b, "i", expr_ceildiv(x, expr_sub(x, num(&u, tiles), block), num(&u, p->cores)));
    const expr at = expr_mul_const(x, expr_add(x, block, expr_mul_const(x, i, p->cores)), p->tile);
    const expr n = expr_min(x, num(&u, p->tile), expr_sub(x, num(&u, p->n), at)), where[2] = {at, n};
    TILE(&u.b, WAIT, TU_V, TU_MTE2, 0, in);
    linear(&u, true, in, a, where, p->dtype);
    if (p->inputs > 1)
        linear(&u, true, in2, b, where, p->dtype);
    pass(&u, TU_MTE2, TU_V, in);
    TILE(&u.b, WAIT, TU_MTE3, TU_V, 0, out);
    TILE(&u.b, VEC, (int32_t)p->fn, (int32_t)p->dtype, one, n, out, zero, n, in, zero, n, 1, p->inputs > 1 ? in2 : -1,
         zero, n, 1, -1, 0, zero, 0, 0, 0, 0);
    TILE(&u.b, SET, TU_V, TU_MTE2, 0, in);
    pass(&u, TU_V, TU_MTE3, out);
    linear(&u, false, out, y, where, p->dtype);
    TILE(&u.b, SET, TU_MTE3, TU_V, 0, out);
    TILE(&u.b, NEXT, in);
    TILE(&u.b, NEXT, in2);
    TILE(&u.b, NEXT, out);
    tile_end(&u.b);
    finish(&u, p->id, p->measured_us);
}

static void elementwise_streams(void **state)
{
    (void)state;
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(streams); i++)
        run_stream(&streams[i]);
    conclude("streams", 6);
}

/* A thousand additions of 4096 elements in place: the sources apart by `apart` bytes and a bank, as the result would
 * meet the second source otherwise. */
static void run_bank(const char *id, int64_t apart, double measured_us)
{
    struct emu_unit u;
    begin(&u, "ascend-910b1", TCORE_VECTOR);
    u.target.value[TK_LAUNCH].number = u.target.value[TK_LAUNCH_CORE].number = 0; /* the counter is read on the core */
    const int32_t buf = unit_buf(&u, TS_UB, 1, 131072);
    const expr one = num(&u, 1), n = num(&u, 4096), zero = num(&u, 0);
    (void)tile_loop(&u.b, "i", num(&u, 1000));
    TILE(&u.b, VEC, K_FN_Add, DT_F32, one, n, buf, zero, n, buf, zero, n, 1, buf, num(&u, (65536 + apart) / 4), n, 1,
         -1, 0, zero, 0, 0, 0, 0);
    tile_end(&u.b);
    finish(&u, id, measured_us);
}

static void bank_conflicts(void **state)
{
    (void)state;
    run_bank("UB_A2_1 (apart)", 256, 47.8);
    run_bank("UB_A2_2 (same bank)", 0, 83.34);
    conclude("banks", 5);
}

/* ---- products ---- */
enum layout_b { B_ND, B_ND_T, B_NZ };
struct gemm {
    const char *id, *target;
    int64_t cores, m, k, n, tile_m, tile_n, tile_k;
    int64_t kb; /* K of a block in L1 */
    int l1_slots;
    int64_t single_m, single_n; /* part of one core; 0: tiles in order, core by core */
    enum layout_b b;
    enum dtype out;
    double measured_us;
};
static const struct gemm gemms[] = {
    {"G1", "ascend-910b1", 1, 8192, 8192, 8192, 128, 256, 64, 64, 1, 8192, 8192, B_ND_T, DT_F16, 249467},
    {"G3", "ascend-910b1", 24, 8192, 8192, 8192, 128, 256, 64, 64, 1, 2048, 1536, B_ND_T, DT_F16, 12283.8},
    {"G4", "ascend-910b1", 24, 8192, 8192, 8192, 128, 256, 64, 128, 2, 2048, 1536, B_ND_T, DT_F16, 5039.86},
    {"G7", "ascend-910b1", 24, 8192, 8192, 8192, 128, 256, 64, 256, 2, 2048, 1536, B_ND_T, DT_F16, 4053.44},
    {"MG_A2_matmul", "ascend-910b1", 24, 8192, 8192, 8192, 128, 256, 64, 256, 2, 2048, 1536, B_ND_T, DT_F32, 4227.6},
    {"H1", "ascend-950pr", 1, 8192, 8192, 8192, 256, 256, 64, 64, 1, 8192, 8192, B_ND_T, DT_F16, 130560},
    {"PTO_A3_1536", "ascend-910c", 24, 1536, 1536, 1536, 128, 256, 64, 256, 2, 384, 256, B_ND, DT_F32, 38.8},
    {"PTO_A3_6144", "ascend-910c", 24, 6144, 6144, 6144, 128, 256, 64, 256, 2, 1536, 1024, B_ND, DT_F32, 1506},
    {"PTO_gemm_ar_910b", "ascend-910b1", 24, 5504, 6144, 1536, 128, 256, 64, 256, 2, 0, 0, B_ND_T, DT_F16, 368.1},
    {"CAT_1024x6144x576_24blk", "ascend-910b3", 20, 1024, 6144, 576, 128, 256, 64, 256, 2, 0, 0, B_ND_T, DT_F16, 72.5},
    {"CAT_1024x6144x576_20blk", "ascend-910b3", 20, 1024, 6144, 576, 256, 128, 64, 256, 2, 0, 0, B_ND_T, DT_F16, 48.6},
    {"CAT_20x16384x6144_zN_24blk", "ascend-910b3", 20, 20, 16384, 6144, 128, 256, 64, 256, 2, 0, 0, B_NZ, DT_F16,
     181.4},
    {"CAT_20x16384x6144_zN_20blk", "ascend-910b3", 20, 20, 16384, 6144, 32, 320, 32, 128, 2, 0, 0, B_NZ, DT_F16, 139.6},
    {"CAT_aswt_1024x1024x1024", "ascend-950pr", 32, 1024, 1024, 1024, 256, 256, 64, 128, 2, 0, 0, B_ND, DT_F32, 14.95},
    {"CAT_aswt_2208x1024x2048", "ascend-950pr", 32, 2208, 1024, 2048, 256, 256, 64, 128, 2, 0, 0, B_ND, DT_F32, 38.15},
    {"CAT_aswt_1024x512x2368", "ascend-950pr", 32, 1024, 512, 2368, 256, 256, 64, 128, 2, 0, 0, B_ND, DT_F32, 16.02},
};
struct gemm_code {
    struct emu_unit u;
    const struct gemm *p;
    int32_t a, b, c, l1a, l1b, l0a, l0b, acc;
    expr m0, n0, m, n;
};

static void gemm_loads(struct gemm_code *g, expr k0, expr k)
{
    struct emu_unit *u = &g->u;
    struct expr_pool *x = &u->b.k->exprs;
    const struct gemm *p = g->p;
    const expr one = num(u, 1), zero = num(u, 0);
    TILE(&u->b, LOAD_NZ, g->l1a, zero, num(u, p->tile_m), g->a, expr_add(x, expr_mul_const(x, g->m0, p->k), k0), DT_F16,
         g->m, k, num(u, p->k), one);
    if (p->b == B_ND_T)
        TILE(&u->b, LOAD_NZ, g->l1b, zero, num(u, p->tile_n), g->b, expr_add(x, expr_mul_const(x, g->n0, p->k), k0),
             DT_F16, g->n, k, num(u, p->k), one);
    else if (p->b == B_ND)
        TILE(&u->b, LOAD_NZ, g->l1b, zero, num(u, p->kb), g->b, expr_add(x, expr_mul_const(x, k0, p->n), g->n0), DT_F16,
             k, g->n, num(u, p->n), one);
    else
        TILE(&u->b, LOAD, g->l1b, zero, g->b, expr_add(x, expr_mul_const(x, k0, p->n), expr_mul_const(x, g->n0, 16)),
             DT_F16, one, expr_ceildiv(x, k, num(u, 16)), one, expr_mul_const(x, g->n, 16), zero, num(u, p->n * 16),
             zero, one, zero, num(u, p->tile_n * 16), zero, one);
}

static void gemm_block(struct gemm_code *g)
{
    struct emu_unit *u = &g->u;
    struct expr_pool *x = &u->b.k->exprs;
    const struct gemm *p = g->p;
    const expr zero = num(u, 0);
    TILE(&u->b, WAIT, TU_FIX, TU_M, 0, g->acc);
    const expr j = tile_loop(&u->b, "kb", num(u, (p->k + p->kb - 1) / p->kb)), k0 = expr_mul_const(x, j, p->kb);
    const expr kb = expr_min(x, num(u, p->kb), expr_sub(x, num(u, p->k), k0));
    TILE(&u->b, WAIT, TU_MTE1, TU_MTE2, 0, g->l1a);
    gemm_loads(g, k0, kb);
    pass(u, TU_MTE2, TU_MTE1, g->l1a);
    const expr l = tile_loop(&u->b, "k0", expr_ceildiv(x, kb, num(u, p->tile_k)));
    const expr k = expr_min(x, num(u, p->tile_k), expr_sub(x, kb, expr_mul_const(x, l, p->tile_k)));
    TILE(&u->b, WAIT, TU_M, TU_MTE1, 0, g->l0a);
    TILE(&u->b, COPY_L0A, g->l0a, g->l1a, zero, num(u, p->tile_m), DT_F16, g->m, k, 0);
    TILE(&u->b, COPY_L0B, g->l0b, g->l1b, zero, num(u, p->tile_n), DT_F16, g->n, k, 0);
    pass(u, TU_MTE1, TU_M, g->l0a);
    TILE(&u->b, MAC, g->acc, g->l0a, g->l0b, -1, DT_F16, g->m, g->n, k, zero);
    TILE(&u->b, SET, TU_M, TU_MTE1, 0, g->l0a);
    TILE(&u->b, NEXT, g->l0a);
    tile_end(&u->b);
    TILE(&u->b, SET, TU_MTE1, TU_MTE2, 0, g->l1a);
    TILE(&u->b, NEXT, g->l1a);
    tile_end(&u->b);
    pass(u, TU_M, TU_FIX, g->acc);
    TILE(&u->b, FIXP, g->c, expr_add(x, expr_mul_const(x, g->m0, p->n), g->n0), num(u, p->n), g->acc, num(u, p->tile_m),
         DT_F32, (int32_t)p->out, g->m, g->n, 0, -1, zero);
    TILE(&u->b, SET, TU_FIX, TU_M, 0, g->acc);
    TILE(&u->b, NEXT, g->acc);
}

static void gemm_buffers(struct gemm_code *g)
{
    struct emu_unit *u = &g->u;
    const struct gemm *p = g->p;
    const int64_t m = p->tile_m, n = p->tile_n, acc = m * n * 4;
    const int acc_slots = 2 * acc <= u->machine->size[TS_L0C] ? 2 : 1;
    g->a = tensor(u, p->m * p->k * 2);
    g->b = tensor(u, p->n * p->k * 2);
    g->c = tensor(u, p->m * p->n * dtype_size(p->out));
    g->l1a = unit_buf(u, TS_L1, p->l1_slots, m * p->kb * 2);
    g->l1b = unit_buf(u, TS_L1, p->l1_slots, n * p->kb * 2);
    g->l0a = unit_buf(u, TS_L0A, 2, m * p->tile_k * 2);
    g->l0b = unit_buf(u, TS_L0B, 2, n * p->tile_k * 2);
    g->acc = unit_buf(u, TS_L0C, acc_slots, acc);
    grant(u, TU_FIX, TU_M, acc_slots);
    grant(u, TU_MTE1, TU_MTE2, p->l1_slots);
    grant(u, TU_M, TU_MTE1, 2);
}

/* Tiles of this core: its part of the matrix, or every cores-th tile of all. */
static int gemm_tiles(struct gemm_code *g)
{
    struct emu_unit *u = &g->u;
    struct expr_pool *x = &u->b.k->exprs;
    const struct gemm *p = g->p;
    const expr block = expr_sym(x, u->b.k->sym_block), m = num(u, p->m), n = num(u, p->n);
    expr end_m = m, end_n = n;
    if (p->single_m) {
        const int64_t down = (p->m + p->single_m - 1) / p->single_m;
        const expr first_m = expr_mul_const(x, expr_mod(x, block, num(u, down)), p->single_m);
        const expr first_n = expr_mul_const(x, expr_floordiv(x, block, num(u, down)), p->single_n);
        end_m = expr_min(x, m, expr_add(x, first_m, num(u, p->single_m)));
        end_n = expr_min(x, n, expr_add(x, first_n, num(u, p->single_n)));
        const expr j = tile_loop(&u->b, "n", expr_ceildiv(x, expr_sub(x, end_n, first_n), num(u, p->tile_n)));
        const expr i = tile_loop(&u->b, "m", expr_ceildiv(x, expr_sub(x, end_m, first_m), num(u, p->tile_m)));
        g->m0 = expr_add(x, first_m, expr_mul_const(x, i, p->tile_m));
        g->n0 = expr_add(x, first_n, expr_mul_const(x, j, p->tile_n));
    } else {
        const int64_t down = (p->m + p->tile_m - 1) / p->tile_m, tiles = down * ((p->n + p->tile_n - 1) / p->tile_n);
        const expr i = tile_loop(&u->b, "i", expr_ceildiv(x, expr_sub(x, num(u, tiles), block), num(u, p->cores)));
        const expr t = expr_add(x, block, expr_mul_const(x, i, p->cores));
        g->m0 = expr_mul_const(x, expr_mod(x, t, num(u, down)), p->tile_m);
        g->n0 = expr_mul_const(x, expr_floordiv(x, t, num(u, down)), p->tile_n);
    }
    g->m = expr_min(x, num(u, p->tile_m), expr_sub(x, end_m, g->m0));
    g->n = expr_min(x, num(u, p->tile_n), expr_sub(x, end_n, g->n0));
    return p->single_m ? 2 : 1;
}

static void products(void **state)
{
    (void)state;
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(gemms); i++) {
        struct gemm_code g = {.p = &gemms[i]};
        if (g.p->kb < 256 && g.p->k >= 8192 && !all_rows())
            continue;
        begin(&g.u, g.p->target, TCORE_CUBE);
        g.u.blocks = g.p->cores;
        gemm_buffers(&g);
        const int loops = gemm_tiles(&g);
        gemm_block(&g);
        for (int l = 0; l < loops; l++)
            tile_end(&g.u.b);
        finish(&g.u, g.p->id, g.p->measured_us);
    }
    conclude("products", 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_of_a_matrix),
        cmocka_unit_test(elementwise_streams),
        cmocka_unit_test(bank_conflicts),
        cmocka_unit_test(products),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
