/* The clock on small programs whose times are worked out by hand from the constants of ascend-910b1. */
#include "clock_unit.h"

#include "kernels/vec.h"

/* Constants as in targets/ascend-2201.target. */
enum { ISSUE = 1, FLAG = 1, FLOOR = 21, LATENCY = 100, VEC_FIXED = 22 };
#define HBM (1.52e12 / 1.85e9)

static void warm_load_is_bytes_over_rate(void **state)
{
    struct emu_unit u;
    (void)state;
    unit_begin(&u, TCORE_VECTOR);
    const int32_t x = tensor(&u, 65536, true), buf = unit_buf(&u, TS_UB, 1, 65536);
    unit_load(&u, buf, 0, x, 0, DT_F16, 32768);
    const struct emu_timing t = time_of(&u);
    close_to(t.cycles, ISSUE + 65536 / 64.0);
    assert_int_equal(t.l2_hit, 65536);
    assert_int_equal(t.bytes[TS_GM][TS_UB], 65536);
    assert_int_equal(t.peak[TS_UB], 65536);
    assert_string_equal(t.bound_by, "launch");
    unit_end(&u);
}

static void cold_load_of_one_core_has_its_own_cap(void **state)
{
    struct emu_unit u;
    (void)state;
    unit_begin(&u, TCORE_VECTOR);
    const int32_t x = tensor(&u, 65536, false), buf = unit_buf(&u, TS_UB, 1, 65536);
    unit_load(&u, buf, 0, x, 0, DT_F16, 32768);
    const struct emu_timing t = time_of(&u);
    close_to(t.cycles, ISSUE + 65536 / 32.0);
    assert_int_equal(t.l2_miss, 65536);
    unit_end(&u);
}

static void cold_loads_share_memory(void **state)
{
    struct emu_unit u;
    (void)state;
    unit_begin(&u, TCORE_VECTOR);
    const int32_t x = tensor(&u, 48 * 65536, false), buf = unit_buf(&u, TS_UB, 1, 65536);
    const expr block = expr_sym(&u.b.k->exprs, u.b.k->sym_block), one = num(&u, 1), zero = num(&u, 0);
    u.blocks = 48;
    TILE(&u.b, LOAD, buf, zero, x, expr_mul_const(&u.b.k->exprs, block, 32768), DT_F16, one, one, one, num(&u, 32768),
         zero, zero, zero, one, zero, zero, zero, one);
    const struct emu_timing t = time_of(&u);
    close_to(t.cycles, ISSUE + 65536 * 48 / HBM);
    assert_int_equal(t.l2_miss, 48 * 65536);
    assert_int_equal(t.cores[TCORE_VECTOR], 48);
    unit_end(&u);
}

static void small_loads_take_the_floor(void **state)
{
    struct emu_unit u;
    (void)state;
    unit_begin(&u, TCORE_VECTOR);
    const int32_t x = tensor(&u, 65536, true), buf = unit_buf(&u, TS_UB, 1, 65536);
    for (int i = 0; i < 10; i++)
        unit_load(&u, buf, 0, x, 64 * i, DT_F16, 64);
    close_to(time_of(&u).cycles, ISSUE + 10 * FLOOR);
    unit_end(&u);
}

/* Load, add, store: latency before the data can be used, one flag on each side. */
static void flags_chain_units(void **state)
{
    struct emu_unit u;
    (void)state;
    unit_begin(&u, TCORE_VECTOR);
    const int32_t x = tensor(&u, 8192, true), y = tensor(&u, 8192, true), buf = unit_buf(&u, TS_UB, 1, 8192);
    unit_load(&u, buf, 0, x, 0, DT_F16, 4096);
    unit_flag(&u, TU_MTE2, TU_V, 0);
    TILE(&u.b, VEC, K_FN_Relu, DT_F16, num(&u, 1), num(&u, 4096), buf, num(&u, 0), num(&u, 4096), buf, num(&u, 0),
         num(&u, 4096), 1, -1, 0, num(&u, 0), 0, -1, 0, num(&u, 0), 0, 0, 0, 0);
    unit_flag(&u, TU_V, TU_MTE3, 0);
    unit_store(&u, y, 0, buf, 0, DT_F16, 4096);
    const double load = ISSUE + 8192 / 64.0, there = load + LATENCY + FLAG;
    const double add = there + FLAG + VEC_FIXED + 8192 / 256.0;
    close_to(time_of(&u).cycles, add + 2 * FLAG + 8192 / 28.0);
    unit_end(&u);
}

/* Rows with gaps are many machine instructions, which do not wait for each other. */
static void gaps_start_up_once(void **state)
{
    struct emu_unit u;
    (void)state;
    unit_begin(&u, TCORE_VECTOR);
    const int32_t buf = unit_buf(&u, TS_UB, 1, 65536);
    TILE(&u.b, VEC, K_FN_Relu, DT_F16, num(&u, 16), num(&u, 1024), buf, num(&u, 0), num(&u, 2048), buf, num(&u, 0),
         num(&u, 2048), 1, -1, 0, num(&u, 0), 0, -1, 0, num(&u, 0), 0, 0, 0, 0);
    close_to(time_of(&u).cycles, ISSUE + VEC_FIXED + 16 * 2048 / 256.0);
    unit_end(&u);
}

static void product(struct emu_unit *u, int64_t m, int64_t n, int64_t k)
{
    const int32_t a = unit_buf(u, TS_L1, 1, 65536), b = unit_buf(u, TS_L1, 1, 65536);
    const int32_t l0a = unit_buf(u, TS_L0A, 1, 65536), l0b = unit_buf(u, TS_L0B, 1, 65536),
                  c = unit_buf(u, TS_L0C, 1, 131072);
    TILE(&u->b, COPY_L0A, l0a, a, num(u, 0), num(u, m), DT_F16, num(u, m), num(u, k), 0);
    TILE(&u->b, COPY_L0B, l0b, b, num(u, 0), num(u, n), DT_F16, num(u, n), num(u, k), 0);
    unit_flag(u, TU_MTE1, TU_M, 0);
    TILE(&u->b, MAC, c, l0a, l0b, -1, DT_F16, num(u, m), num(u, n), num(u, k), num(u, 1));
}

static void matrix_step(void **state)
{
    struct emu_unit u;
    (void)state;
    unit_begin(&u, TCORE_CUBE);
    product(&u, 128, 256, 64);
    const double copies = ISSUE + 128 * 64 * 2 / 256.0 + 28 + 256 * 64 * 2 / 128.0 + 28;
    const struct emu_timing t = time_of(&u);
    close_to(t.cycles, copies + 2 * FLAG + 21 + 512);
    assert_int_equal(t.macs, 128 * 256 * 64);
    close_to(t.unit[TCORE_CUBE][TU_M].busy_cyc, 533);
    unit_end(&u);
}

/* Elements of windows cost what whole fractals of L0B cost, padding or not. */
static void windows_cost_their_fractals(void **state)
{
    struct emu_unit u;
    (void)state;
    unit_begin(&u, TCORE_CUBE);
    const int32_t map = unit_buf(&u, TS_L1, 1, 65536), l0b = unit_buf(&u, TS_L0B, 1, 65536);
    const expr z = num(&u, 0), one = num(&u, 1);
    TILE(&u.b, IM2COL, l0b, map, z, num(&u, 400), num(&u, 20), DT_F16, num(&u, 100), num(&u, 40), num(&u, 20),
         num(&u, 20), z, z, z, num(&u, 10), 2, 2, 1, 1, one);
    close_to(time_of(&u).cycles, ISSUE + 112 * 48 * 2 / 128.0 + 28);
    unit_end(&u);
}

static void edges_are_rounded_to_fractals(void **state)
{
    struct emu_unit u;
    (void)state;
    unit_begin(&u, TCORE_CUBE);
    product(&u, 1, 17, 3);
    assert_int_equal(time_of(&u).macs, 16 * 32 * 16);
    unit_end(&u);
}

/* A vector core's 128 B bursts from memory: (b / line) (line / R) + (1 - b / line) line / 64. */
static void short_bursts_of_a_vector_core(void **state)
{
    struct emu_unit u;
    (void)state;
    unit_begin(&u, TCORE_VECTOR);
    const int32_t x = tensor(&u, 64 * 24576, false), buf = unit_buf(&u, TS_UB, 1, 65536);
    const expr one = num(&u, 1), zero = num(&u, 0);
    for (int64_t i = 0; i < 4; i++) /* the four loads together touch whole lines */
        TILE(&u.b, LOAD, buf, zero, x, num(&u, 64 * i), DT_F16, one, one, num(&u, 64), num(&u, 64), zero, zero,
             num(&u, 12288), one, zero, zero, num(&u, 64), one);
    close_to(time_of(&u).cycles, ISSUE + 4 * 64 * (128 / 32.0 + 0.75 * 8));
    unit_end(&u);
}

static void unaligned_rows_touch_one_more_line(void **state)
{
    struct emu_unit u;
    (void)state;
    unit_begin(&u, TCORE_CUBE);
    const int32_t x = tensor(&u, 64 * 24574, true), buf = unit_buf(&u, TS_L1, 1, 65536);
    TILE(&u.b, LOAD_NZ, buf, num(&u, 0), num(&u, 64), x, num(&u, 0), DT_F16, num(&u, 64), num(&u, 256), num(&u, 12287),
         num(&u, 1));
    close_to(time_of(&u).cycles, ISSUE + 64 * 1024 * 1.28 / 110);
    unit_end(&u);
}

/* 256 rows of 16 f16 one behind the other are a column of fractals already: one burst, not 256. */
static void rows_of_one_fractal_are_one_burst(void **state)
{
    (void)state;
    for (int gap = 0; gap < 2; gap++) {
        struct emu_unit u;
        unit_begin(&u, TCORE_CUBE);
        const int32_t x = tensor(&u, 65536, true), buf = unit_buf(&u, TS_L1, 1, 65536);
        TILE(&u.b, LOAD_NZ, buf, num(&u, 0), num(&u, 256), x, num(&u, 0), DT_F16, num(&u, 256), num(&u, 16),
             num(&u, 16 + 16 * gap), num(&u, 1));
        close_to(time_of(&u).cycles, ISSUE + (gap ? 256 * 3.4 : 256 * 32 * 1.28 / 110));
        unit_end(&u);
    }
}

/* Rows by number wait for each other; which rows they are is not known, so distinct ones are assumed. */
static void gathered_rows_wait_for_each_other(void **state)
{
    struct emu_unit u;
    (void)state;
    unit_begin(&u, TCORE_VECTOR);
    const int32_t x = tensor(&u, 1000 * 1024, true), buf = unit_buf(&u, TS_UB, 1, 65536),
                  idx = unit_buf(&u, TS_UB, 1, 512);
    const expr zero = num(&u, 0);
    TILE(&u.b, LOADX, buf, zero, num(&u, 512), x, zero, num(&u, 512), num(&u, 1000), DT_F16, idx, zero, DT_I64,
         num(&u, 16), num(&u, 512));
    close_to(time_of(&u).cycles, ISSUE + 16 * (LATENCY + 1024 / 64.0));
    unit_end(&u);
}

/* Extents that no plan should have: a time or a fault, nothing worse. */
static void broken_extents_do_no_harm(void **state)
{
    static const int64_t odd[] = {0, -1, INT64_MIN, INT64_MAX, (int64_t)1 << 62};
    (void)state;
    for (int i = 0; i < 5 * 5; i++) {
        struct emu_unit u;
        struct emu_timing t;
        unit_begin(&u, TCORE_VECTOR);
        const int32_t x = tensor(&u, 65536, false), buf = unit_buf(&u, TS_UB, 1, 65536);
        const expr v = num(&u, odd[i % 5]), w = num(&u, odd[i / 5]), one = num(&u, 1);
        TILE(&u.b, VEC, K_FN_Add, DT_F32, v, w, buf, v, w, buf, v, w, 1, buf, w, v, 1, -1, 0, one, 0, 0, 0, 0);
        TILE(&u.b, TRANSP, DT_F32, v, w, buf, v, w, buf, w, v);
        TILE(&u.b, LOADX, buf, v, w, x, v, w, w, DT_F16, buf, v, DT_I64, w, v);
        TILE(&u.b, STOREX, x, v, w, w, buf, v, w, DT_F16, buf, v, DT_I64, w, v);
        TILE(&u.b, LOAD, buf, v, x, w, DT_F16, v, one, w, one, v, w, v, one, w, v, w, one);
        struct emu_launch l = {.kernel = u.b.k,
                               .params = u.params,
                               .tensors = u.tensors,
                               .blocks = 1,
                               .target = &u.target,
                               .machine = u.machine};
        if (emu_run_clock(&l, &t) == NPUC_OK)
            assert_true(t.cycles >= 0);
        unit_end(&u);
    }
}

/* One core that reads twice as much as the others gets the rest of the bandwidth when they have ended. */
static void uneven_cores(struct emu_unit *u)
{
    unit_begin(u, TCORE_VECTOR);
    u->blocks = 48;
    struct expr_pool *x = &u->b.k->exprs;
    const int32_t t = tensor(u, 49 * 65536, false), buf = unit_buf(u, TS_UB, 2, 65536);
    const expr block = expr_sym(x, u->b.k->sym_block), one = num(u, 1), zero = num(u, 0);
    const expr i = tile_loop(&u->b, "i", expr_max(x, one, expr_sub(x, num(u, 2), block)));
    const expr at = expr_mul_const(x, expr_add(x, block, expr_mul_const(x, i, 48)), 32768);
    TILE(&u->b, LOAD, buf, zero, t, at, DT_F16, one, one, one, num(u, 32768), zero, zero, zero, one, zero, zero, zero,
         one);
    tile_end(&u->b);
}

static void slowest_core_ends_the_kernel(void **state)
{
    struct emu_unit u;
    (void)state;
    uneven_cores(&u);
    close_to(time_of(&u).cycles, ISSUE + 65536 * 48 / HBM + 65536 / 32.0);
    unit_end(&u);
}

static void like_blocks_are_timed_once(void **state)
{
    struct emu_unit u;
    (void)state;
    uneven_cores(&u);
    const struct emu_timing one = time_of(&u), all = time_flags(&u, CLOCK_EVERY_BLOCK);
    close_to(one.cycles, all.cycles);
    close_to(one.unit[TCORE_VECTOR][TU_MTE2].busy_cyc, all.unit[TCORE_VECTOR][TU_MTE2].busy_cyc);
    assert_int_equal(one.unit[TCORE_VECTOR][TU_MTE2].n_insns, 49);
    assert_int_equal(all.unit[TCORE_VECTOR][TU_MTE2].n_insns, 49);
    assert_int_equal(one.bytes[TS_GM][TS_UB], all.bytes[TS_GM][TS_UB]);
    assert_int_equal(one.cores[TCORE_VECTOR], all.cores[TCORE_VECTOR]);
    unit_end(&u);
}

/* `size` bytes read twice by 32 cores; `dirty` bytes of earlier kernels are in L2. */
static struct emu_timing reread(int64_t size, bool past, double dirty)
{
    struct emu_unit u;
    unit_begin(&u, TCORE_VECTOR);
    u.blocks = 32;
    struct expr_pool *x = &u.b.k->exprs;
    const int64_t part = size / 32, step = 65536;
    const int32_t t = tensor(&u, size, false), buf = unit_buf(&u, TS_UB, 1, step);
    const expr block = expr_sym(x, u.b.k->sym_block), one = num(&u, 1), zero = num(&u, 0);
    u.b.k->tensors.data[t].bypass = past ? one : EXPR_INVALID;
    (void)tile_loop(&u.b, "pass", num(&u, 2));
    const expr i = tile_loop(&u.b, "i", num(&u, part / step));
    const expr at = expr_add(x, expr_mul_const(x, block, part), expr_mul_const(x, i, step));
    TILE(&u.b, LOAD, buf, zero, t, at, DT_I8, one, one, one, num(&u, step), zero, zero, zero, one, zero, zero, zero,
         one);
    tile_end(&u.b);
    tile_end(&u.b);
    const struct emu_timing got = time_dirty(&u, 0, dirty);
    unit_end(&u);
    return got;
}

/* 256 MiB: the second pass finds nothing of the first in 192 MiB; 96 MiB are found, unless they pass by. */
static void l2_keeps_what_fits(void **state)
{
    const int64_t small = (int64_t)96 << 20, large = (int64_t)256 << 20;
    (void)state;
    assert_int_equal(reread(small, false, 0).l2_miss, small);
    assert_int_equal(reread(large, false, 0).l2_miss, 2 * large);
    assert_int_equal(reread(small, true, 0).l2_miss, 2 * small);
}

/* 96 MiB read displace part of 64 MiB that an earlier kernel wrote: 16 MiB more than 3/4 of L2 holds; a line read
 * counts 0.7. What passes by displaces nothing. */
static void earlier_writes_go_to_memory(void **state)
{
    const double mib = 1 << 20, back = 16 * mib * 64 / (0.7 * 96 + 64);
    const int64_t size = (int64_t)96 << 20;
    (void)state;
    close_to(reread(size, false, 64 * mib).dirty, 64 * mib - back);
    close_to(reread(size, true, 64 * mib).dirty, 64 * mib);
    assert_true(reread(size, false, 160 * mib).cycles > reread(size, false, 0).cycles);
}

static void more_work_takes_longer(void **state)
{
    double last = 0, first = INFINITY;
    (void)state;
    for (int64_t n = 64; n <= 32768; n *= 2) {
        struct emu_unit u;
        unit_begin(&u, TCORE_VECTOR);
        const int32_t x = tensor(&u, 65536, false), buf = unit_buf(&u, TS_UB, 1, 65536);
        unit_load(&u, buf, 0, x, 0, DT_F16, n);
        unit_flag(&u, TU_MTE2, TU_V, 0);
        TILE(&u.b, VEC, K_FN_Exp, DT_F16, num(&u, 1), num(&u, n), buf, num(&u, 0), num(&u, n), buf, num(&u, 0),
             num(&u, n), 1, -1, 0, num(&u, 0), 0, -1, 0, num(&u, 0), 0, 0, 0, 0);
        const double cycles = time_of(&u).cycles;
        assert_true(n < 1024 ? cycles >= last : cycles > last);
        first = n == 64 ? cycles : first;
        last = cycles;
        unit_end(&u);
    }
    assert_true(last > 10 * first);
}

/* SLOAD reads its assumed value in both walks, whatever the tensor holds. */
static void times_do_not_depend_on_data(void **state)
{
    struct emu_unit u;
    static int32_t count[1] = {7};
    static uint8_t data[65536];
    (void)state;
    unit_begin(&u, TCORE_VECTOR);
    const int32_t n = unit_tensor(&u, DT_I32, count, sizeof count), x = unit_tensor(&u, DT_F16, data, sizeof data);
    u.tensors[n].address = (int64_t)1 << 40;
    const int32_t buf = unit_buf(&u, TS_UB, 1, 65536), var = tile_var(&u.b, "n", (struct expr_range){1, 16, 1});
    TILE(&u.b, SLOAD, var, n, DT_I32, num(&u, 0), num(&u, 1), num(&u, 16), num(&u, 3));
    (void)tile_loop(&u.b, "i", expr_sym(&u.b.k->exprs, var));
    unit_load(&u, buf, 0, x, 0, DT_F16, 32768);
    tile_end(&u.b);
    const struct emu_timing before = time_of(&u);
    assert_int_equal(unit_run(&u, 1, true), NPUC_OK);
    const struct emu_timing after = time_of(&u);
    assert_int_equal(after.unit[TCORE_VECTOR][TU_MTE2].n_insns, 3);
    assert_memory_equal(&before.cycles, &after.cycles, sizeof before.cycles);
    unit_end(&u);
}

/* The cube core sets a flag for both vector cores when its store is done; they load then. */
static void cores_of_a_block_wait_for_each_other(void **state)
{
    struct emu_unit u;
    (void)state;
    unit_begin(&u, TCORE_CUBE);
    const int32_t w = tensor(&u, 65536, true);
    const int32_t c = unit_buf(&u, TS_L0C, 1, 65536);
    TILE(&u.b, FIXP, w, num(&u, 0), num(&u, 128), c, num(&u, 128), DT_F32, DT_F32, num(&u, 128), num(&u, 128), 0, -1,
         num(&u, 0));
    TILE(&u.b, XSET, TU_FIX, 3);
    tile_section_begin(&u.b, TCORE_VECTOR);
    const int32_t buf = unit_buf(&u, TS_UB, 1, 65536);
    TILE(&u.b, XWAIT, TU_MTE2, 3);
    unit_load(&u, buf, 0, w, 0, DT_F32, 16384);
    const struct emu_timing t = time_of(&u);
    const double store = ISSUE + 20 + 65536 / 75.0;
    assert_int_equal(t.cores[TCORE_VECTOR], 2);
    if (128 * 128 / 36.0 < 65536 / 75.0)
        close_to(t.cycles, store + 450 + 241 + FLAG + 65536 / 64.0);
    unit_end(&u);
}

static void a_barrier_waits_for_the_slowest(void **state)
{
    struct emu_unit u;
    (void)state;
    unit_begin(&u, TCORE_VECTOR);
    u.blocks = 2;
    struct expr_pool *x = &u.b.k->exprs;
    const int32_t t = tensor(&u, 65536, true), buf = unit_buf(&u, TS_UB, 1, 65536);
    const expr block = expr_sym(x, u.b.k->sym_block);
    (void)tile_loop(&u.b, "i", expr_add(x, num(&u, 1), expr_mul_const(x, block, 9)));
    unit_load(&u, buf, 0, t, 0, DT_F16, 32768);
    tile_end(&u.b);
    tile_emit(&u.b, TILE_BARRIER, 0, NULL);
    unit_load(&u, buf, 0, t, 0, DT_F16, 32768);
    close_to(time_of(&u).cycles, ISSUE + 10 * 1024 + 482 + 2 * ISSUE + 1024);
    unit_end(&u);
}

/* Chunks of L2 are 64 lines of 512 B: the first of two has come while another launch ran. */
static void bytes_brought_ahead_are_hits(void **state)
{
    struct emu_unit u;
    (void)state;
    unit_begin(&u, TCORE_VECTOR);
    const int32_t x = tensor(&u, 65536, false), buf = unit_buf(&u, TS_UB, 1, 65536);
    u.tensors[x].ahead = 32768;
    unit_load(&u, buf, 0, x, 0, DT_F16, 32768);
    const struct emu_timing t = time_of(&u);
    assert_int_equal(t.l2_hit, 32768);
    assert_int_equal(t.l2_miss, 32768);
    close_to(t.cycles, ISSUE + 0.5 * 65536 / 64.0 + 32768 / 32.0);
    unit_end(&u);
}

/* 64 repeats of an addition of f32 whose result lies `to` elements from its first operand; the second is in another
 * bank. */
static double add_to(int64_t to)
{
    struct emu_unit u;
    unit_begin(&u, TCORE_VECTOR);
    const int32_t buf = unit_buf(&u, TS_UB, 1, 131072);
    const expr one = num(&u, 1), n = num(&u, 4096), zero = num(&u, 0);
    TILE(&u.b, VEC, K_FN_Add, DT_F32, one, n, buf, num(&u, to), n, buf, zero, n, 1, buf, num(&u, 16384 + 64), n, 1, -1,
         0, zero, 0, 0, 0, 0);
    const double cycles = time_of(&u).cycles;
    unit_end(&u);
    return cycles;
}

static void a_result_waits_for_the_bank_that_is_read(void **state)
{
    (void)state;
    close_to(add_to(0), ISSUE + VEC_FIXED + 64);
    close_to(add_to(8192 + 64), ISSUE + VEC_FIXED + 64 * 1.77);
}

static void a_load_beyond_its_tensor_is_a_fault(void **state)
{
    struct emu_unit u;
    struct emu_timing t;
    (void)state;
    unit_begin(&u, TCORE_VECTOR);
    const int32_t x = tensor(&u, 1000, true), buf = unit_buf(&u, TS_UB, 1, 65536);
    unit_load(&u, buf, 0, x, 0, DT_F16, 32768);
    struct emu_launch l = {.kernel = u.b.k,
                           .params = u.params,
                           .tensors = u.tensors,
                           .blocks = 1,
                           .target = &u.target,
                           .machine = u.machine};
    assert_int_equal(emu_run_clock(&l, &t), NPUC_E_INVALID);
    assert_non_null(strstr(l.error, "leaves the tensor"));
    unit_end(&u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(warm_load_is_bytes_over_rate),
        cmocka_unit_test(cold_load_of_one_core_has_its_own_cap),
        cmocka_unit_test(cold_loads_share_memory),
        cmocka_unit_test(small_loads_take_the_floor),
        cmocka_unit_test(flags_chain_units),
        cmocka_unit_test(gaps_start_up_once),
        cmocka_unit_test(matrix_step),
        cmocka_unit_test(windows_cost_their_fractals),
        cmocka_unit_test(edges_are_rounded_to_fractals),
        cmocka_unit_test(short_bursts_of_a_vector_core),
        cmocka_unit_test(unaligned_rows_touch_one_more_line),
        cmocka_unit_test(rows_of_one_fractal_are_one_burst),
        cmocka_unit_test(gathered_rows_wait_for_each_other),
        cmocka_unit_test(broken_extents_do_no_harm),
        cmocka_unit_test(slowest_core_ends_the_kernel),
        cmocka_unit_test(like_blocks_are_timed_once),
        cmocka_unit_test(l2_keeps_what_fits),
        cmocka_unit_test(earlier_writes_go_to_memory),
        cmocka_unit_test(more_work_takes_longer),
        cmocka_unit_test(times_do_not_depend_on_data),
        cmocka_unit_test(cores_of_a_block_wait_for_each_other),
        cmocka_unit_test(a_barrier_waits_for_the_slowest),
        cmocka_unit_test(bytes_brought_ahead_are_hits),
        cmocka_unit_test(a_result_waits_for_the_bank_that_is_read),
        cmocka_unit_test(a_load_beyond_its_tensor_is_a_fault),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
