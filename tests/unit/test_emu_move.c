/* Moves, control and faults of the emulated cores. */
#include "tests/unit/emu_unit.h"

static void test_copy_through_ub(void **state)
{
    (void)state;
    struct emu_unit u;
    float x[64], y[64] = {0};
    for (int i = 0; i < 64; i++)
        x[i] = (float)i;
    unit_begin(&u, TCORE_VECTOR);
    const int32_t tx = unit_tensor(&u, DT_F32, x, sizeof x), ty = unit_tensor(&u, DT_F32, y, sizeof y);
    const int32_t ub = unit_buf(&u, TS_UB, 1, 256);
    unit_load(&u, ub, 0, tx, 0, DT_F32, 64);
    unit_flag(&u, TU_MTE2, TU_MTE3, 0);
    unit_store(&u, ty, 0, ub, 0, DT_F32, 64);
    assert_int_equal(unit_run(&u, 1, true), NPUC_OK);
    assert_memory_equal(x, y, sizeof x);
    unit_end(&u);
}

/* A 3-d permutation of 16-bit elements: dst[k][i][j] = src[i][j][k]. */
static void test_strided_load(void **state)
{
    (void)state;
    struct emu_unit u;
    uint16_t x[3 * 5 * 7], y[3 * 5 * 7];
    for (int i = 0; i < 105; i++)
        x[i] = (uint16_t)(i * 3 + 1);
    unit_begin(&u, TCORE_VECTOR);
    const int32_t tx = unit_tensor(&u, DT_U16, x, sizeof x), ty = unit_tensor(&u, DT_U16, y, sizeof y);
    const int32_t ub = unit_buf(&u, TS_UB, 1, 256);
    const expr one = num(&u, 1), zero = num(&u, 0);
    TILE(&u.b, LOAD, ub, zero, tx, zero, DT_U16, one, num(&u, 3), num(&u, 5), num(&u, 7), zero, num(&u, 35), num(&u, 7),
         one, zero, num(&u, 5), one, num(&u, 15));
    unit_flag(&u, TU_MTE2, TU_MTE3, 0);
    unit_store(&u, ty, 0, ub, 0, DT_U16, 105);
    assert_int_equal(unit_run(&u, 1, true), NPUC_OK);
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 5; j++)
            for (int k = 0; k < 7; k++)
                assert_int_equal(y[k * 15 + i * 5 + j], x[i * 35 + j * 7 + k]);
    unit_end(&u);
}

/* Ring of two slots over 4 tiles, in a loop with flags per slot; blocks take different parts. */
static void ring_program(struct emu_unit *u, const int32_t t[2], bool with_wait)
{
    const int32_t ub = unit_buf(u, TS_UB, 2, 64);
    const expr one = num(u, 1), zero = num(u, 0), n = num(u, 16);
    struct expr_pool *p = &u->b.k->exprs;
    const expr block = expr_sym(p, u->b.k->sym_block);
    for (int i = 0; i < 2; i++) {
        TILE(&u->b, SET, TU_MTE3, TU_MTE2, 0, ub);
        TILE(&u->b, NEXT, ub);
    }
    const expr i = tile_loop(&u->b, "i", num(u, 4));
    const expr at = expr_add(p, expr_mul_const(p, block, 64), expr_mul_const(p, i, 16));
    if (with_wait)
        TILE(&u->b, WAIT, TU_MTE3, TU_MTE2, 0, ub);
    TILE(&u->b, LOAD, ub, zero, t[0], at, DT_I32, one, one, one, n, zero, zero, zero, one, zero, zero, zero, one);
    TILE(&u->b, SET, TU_MTE2, TU_MTE3, 2, ub);
    TILE(&u->b, WAIT, TU_MTE2, TU_MTE3, 2, ub);
    TILE(&u->b, STORE, t[1], at, ub, zero, DT_I32, one, one, one, n, zero, zero, zero, one, zero, zero, zero, one);
    if (with_wait)
        TILE(&u->b, SET, TU_MTE3, TU_MTE2, 0, ub);
    TILE(&u->b, NEXT, ub);
    tile_end(&u->b);
    for (int k = 0; k < 2; k++) {
        TILE(&u->b, WAIT, TU_MTE3, TU_MTE2, 0, ub);
        TILE(&u->b, NEXT, ub);
    }
}

static void test_ring_and_threads(void **state)
{
    (void)state;
    static int32_t x[24 * 64], y[24 * 64];
    for (int i = 0; i < 24 * 64; i++)
        x[i] = i * 7;
    for (int threads = 1; threads <= 3; threads++) {
        struct emu_unit u;
        memset(y, 0, sizeof y);
        unit_begin(&u, TCORE_VECTOR);
        const int32_t t[2] = {unit_tensor(&u, DT_I32, x, sizeof x), unit_tensor(&u, DT_I32, y, sizeof y)};
        ring_program(&u, t, true);
        u.blocks = 24;
        assert_int_equal(unit_run(&u, threads, threads == 2), NPUC_OK);
        assert_memory_equal(x, y, sizeof x);
        unit_end(&u);
    }
}

static void test_missing_flag_is_found(void **state)
{
    (void)state;
    static int32_t x[64], y[64];
    struct emu_unit u;
    unit_begin(&u, TCORE_VECTOR);
    const int32_t t[2] = {unit_tensor(&u, DT_I32, x, sizeof x), unit_tensor(&u, DT_I32, y, sizeof y)};
    ring_program(&u, t, false);
    assert_int_equal(unit_run(&u, 1, false), NPUC_OK); /* the data are right all the same */
    assert_int_equal(unit_run(&u, 1, true), NPUC_E_INVALID);
    assert_non_null(strstr(u.error, "a read of the same bytes by unit MTE3"));
    unit_end(&u);
}

static void test_flags_are_checked(void **state)
{
    (void)state;
    struct emu_unit u;
    unit_begin(&u, TCORE_VECTOR);
    TILE(&u.b, SET, TU_MTE2, TU_V, 3, -1);
    assert_int_equal(unit_run(&u, 1, true), NPUC_E_INVALID);
    assert_non_null(strstr(u.error, "flag MTE2 -> V, event 3 is still set"));
    TILE(&u.b, SET, TU_MTE2, TU_V, 3, -1);
    unit_end(&u);
    unit_begin(&u, TCORE_VECTOR);
    TILE(&u.b, WAIT, TU_MTE2, TU_V, 3, -1);
    assert_int_equal(unit_run(&u, 1, true), NPUC_E_INVALID);
    assert_non_null(strstr(u.error, "which is not set"));
    unit_end(&u);
}

static void test_uninitialised_read(void **state)
{
    (void)state;
    struct emu_unit u;
    float y[8];
    unit_begin(&u, TCORE_VECTOR);
    const int32_t ty = unit_tensor(&u, DT_F32, y, sizeof y), ub = unit_buf(&u, TS_UB, 1, 64);
    unit_store(&u, ty, 0, ub, 0, DT_F32, 8);
    assert_int_equal(unit_run(&u, 1, true), NPUC_E_INVALID);
    assert_non_null(strstr(u.error, "nothing has written"));
    unit_end(&u);
}

static void test_out_of_bounds(void **state)
{
    (void)state;
    static const struct {
        int64_t buf_off, gm_off, n;
        const char *what;
    } cases[] = {
        {0, 0, 17, "outside of buffer"},
        {15, 0, 2, "outside of buffer"},
        {-1, 0, 1, "outside of buffer"},
        {0, 31, 2, "outside of tensor"},
        {0, -1, 1, "outside of tensor"},
        {0, INT64_MAX, 1, "outside of tensor"},
        {INT64_MAX / 2, 0, 1, "outside of buffer"},
        {0, 0, -1, "negative extent"},
    };
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(cases); i++) {
        struct emu_unit u;
        float x[32] = {0};
        unit_begin(&u, TCORE_VECTOR);
        const int32_t tx = unit_tensor(&u, DT_F32, x, sizeof x), ub = unit_buf(&u, TS_UB, 1, 64);
        unit_load(&u, ub, cases[i].buf_off, tx, cases[i].gm_off, DT_F32, cases[i].n);
        assert_int_equal(unit_run(&u, 1, false), NPUC_E_INVALID);
        assert_non_null(strstr(u.error, cases[i].what));
        assert_non_null(strstr(u.error, "kernel 'k'"));
        unit_end(&u);
    }
}

/* Huge strides times huge extents must not wrap around to something that looks valid. */
static void test_overflowing_strides(void **state)
{
    (void)state;
    struct emu_unit u;
    float x[32] = {0};
    unit_begin(&u, TCORE_VECTOR);
    const int32_t tx = unit_tensor(&u, DT_F32, x, sizeof x), ub = unit_buf(&u, TS_UB, 1, 64);
    const expr one = num(&u, 1), zero = num(&u, 0);
    TILE(&u.b, LOAD, ub, zero, tx, zero, DT_F32, one, one, num(&u, 5), one, zero, zero, num(&u, (int64_t)1 << 62), one,
         zero, zero, zero, one);
    assert_int_equal(unit_run(&u, 1, false), NPUC_E_INVALID);
    unit_end(&u);
}

static void test_load_nz(void **state)
{
    (void)state;
    struct emu_unit u;
    float x[5 * 11], y[2 * 16 * 8];
    for (int i = 0; i < 55; i++)
        x[i] = (float)(i + 1);
    unit_begin(&u, TCORE_VECTOR); /* UB stands in for L1: the move is the same */
    const int32_t tx = unit_tensor(&u, DT_F32, x, sizeof x), ty = unit_tensor(&u, DT_F32, y, sizeof y);
    const int32_t ub = unit_buf(&u, TS_UB, 1, 1024);
    TILE(&u.b, LOAD_NZ, ub, num(&u, 0), num(&u, 16), tx, num(&u, 0), DT_F32, num(&u, 5), num(&u, 11), num(&u, 11),
         num(&u, 1));
    unit_flag(&u, TU_MTE2, TU_MTE3, 0);
    unit_store(&u, ty, 0, ub, 0, DT_F32, 256);
    assert_int_equal(unit_run(&u, 1, true), NPUC_OK);
    for (int r = 0; r < 16; r++)
        for (int c = 0; c < 16; c++) {
            const float want = r < 5 && c < 11 ? x[r * 11 + c] : 0;
            assert_true(y[(c / 8 * 16 + r) * 8 + c % 8] == want);
        }
    unit_end(&u);
}

static void test_indirect_rows(void **state)
{
    (void)state;
    struct emu_unit u;
    int64_t idx[3] = {2, -1, 0};
    float x[4 * 3], y[3 * 3], z[4 * 3] = {0};
    for (int i = 0; i < 12; i++)
        x[i] = (float)i;
    unit_begin(&u, TCORE_VECTOR);
    const int32_t ti = unit_tensor(&u, DT_I64, idx, sizeof idx), tx = unit_tensor(&u, DT_F32, x, sizeof x);
    const int32_t ty = unit_tensor(&u, DT_F32, y, sizeof y), tz = unit_tensor(&u, DT_F32, z, sizeof z);
    const int32_t bi = unit_buf(&u, TS_UB, 1, 64), bx = unit_buf(&u, TS_UB, 1, 64);
    const expr zero = num(&u, 0), three = num(&u, 3), four = num(&u, 4);
    unit_load(&u, bi, 0, ti, 0, DT_I64, 3);
    TILE(&u.b, LOADX, bx, zero, three, tx, zero, three, four, DT_F32, bi, zero, DT_I64, three, three);
    unit_flag(&u, TU_MTE2, TU_MTE3, 0);
    unit_store(&u, ty, 0, bx, 0, DT_F32, 9);
    TILE(&u.b, STOREX, tz, zero, three, four, bx, zero, three, DT_F32, bi, zero, DT_I64, three, three);
    assert_int_equal(unit_run(&u, 1, true), NPUC_OK);
    const float want[9] = {6, 7, 8, 9, 10, 11, 0, 1, 2}, scattered[12] = {0, 1, 2, 0, 0, 0, 6, 7, 8, 9, 10, 11};
    assert_memory_equal(y, want, sizeof want);
    assert_memory_equal(z, scattered, sizeof scattered);
    idx[0] = 4;
    assert_int_equal(unit_run(&u, 1, false), NPUC_E_INVALID);
    assert_non_null(strstr(u.error, "index 4 (number 0) is outside of [-4, 4)"));
    unit_end(&u);
}

/* A loop bound from memory, clamped. */
static void test_sload(void **state)
{
    (void)state;
    for (int64_t bound = 0; bound <= 9; bound += 3) {
        struct emu_unit u;
        int64_t n = bound;
        int32_t y[8] = {0};
        unit_begin(&u, TCORE_VECTOR);
        const int32_t tn = unit_tensor(&u, DT_I64, &n, sizeof n), ty = unit_tensor(&u, DT_I32, y, sizeof y);
        const int32_t ub = unit_buf(&u, TS_UB, 1, 64);
        const expr zero = num(&u, 0), one = num(&u, 1);
        TILE(&u.b, FILL, DT_I32, one, num(&u, 8), ub, zero, num(&u, 8), tile_float_bits(5));
        unit_flag(&u, TU_V, TU_MTE3, 0);
        const int32_t var = tile_var(&u.b, "n", (struct expr_range){0, 8, 1});
        TILE(&u.b, SLOAD, var, tn, DT_I64, zero, zero, num(&u, 8), zero);
        const expr i = tile_loop(&u.b, "i", expr_sym(&u.b.k->exprs, var));
        TILE(&u.b, STORE, ty, i, ub, zero, DT_I32, one, one, one, one, zero, zero, zero, one, zero, zero, zero, one);
        tile_end(&u.b);
        assert_int_equal(unit_run(&u, 1, true), NPUC_OK);
        for (int k = 0; k < 8; k++)
            assert_int_equal(y[k], k < bound ? 5 : 0);
        unit_end(&u);
    }
}

/* A name for what two operands are computed from, anew in every turn. */
static void test_let(void **state)
{
    struct emu_unit u;
    int32_t y[8] = {0};
    (void)state;
    unit_begin(&u, TCORE_VECTOR);
    const int32_t ty = unit_tensor(&u, DT_I32, y, sizeof y), ub = unit_buf(&u, TS_UB, 1, 64);
    const expr zero = num(&u, 0), one = num(&u, 1);
    struct expr_pool *x = &u.b.k->exprs;
    TILE(&u.b, FILL, DT_I32, one, num(&u, 8), ub, zero, num(&u, 8), tile_float_bits(5));
    unit_flag(&u, TU_V, TU_MTE3, 0);
    const expr i = tile_loop(&u.b, "i", num(&u, 3)), at = tile_let(&u.b, "at", expr_mul_const(x, i, 2));
    const expr twice = tile_let(&u.b, "at", expr_add(x, at, one));
    TILE(&u.b, STORE, ty, at, ub, zero, DT_I32, one, one, one, one, zero, zero, zero, one, zero, zero, zero, one);
    TILE(&u.b, STORE, ty, expr_add(x, twice, one), ub, zero, DT_I32, one, one, one,
         expr_cmp(x, EXPR_EQ, twice, num(&u, 5)), zero, zero, zero, one, zero, zero, zero, one);
    tile_end(&u.b);
    assert_int_equal(unit_run(&u, 1, true), NPUC_OK);
    for (int k = 0; k < 8; k++)
        assert_int_equal(y[k], k % 2 == 0 ? 5 : 0);
    unit_end(&u);
}

/* Cube core hands rows to both vector cores through GM and waits for their answer. */
static void mixed_program(struct emu_unit *u, int32_t t, bool answer)
{
    const expr zero = num(u, 0);
    tile_section_begin(&u->b, TCORE_CUBE);
    TILE(&u->b, XSET, TU_FIX, 1);
    TILE(&u->b, XWAIT, TU_MTE2, 2);
    tile_section_begin(&u->b, TCORE_VECTOR);
    struct expr_pool *p = &u->b.k->exprs;
    const int32_t ub = unit_buf(u, TS_UB, 1, 64);
    const expr one = num(u, 1), sub = expr_sym(p, u->b.k->sym_sub), block = expr_sym(p, u->b.k->sym_block);
    const expr at = expr_add(p, expr_mul_const(p, block, 2), sub);
    TILE(&u->b, XWAIT, TU_V, 1);
    TILE(&u->b, IOTA, DT_I32, one, num(u, 8), ub, zero, num(u, 8), at, zero, zero);
    unit_flag(u, TU_V, TU_MTE3, 0);
    TILE(&u->b, STORE, t, at, ub, zero, DT_I32, one, one, one, one, zero, zero, zero, one, zero, zero, zero, one);
    if (answer)
        TILE(&u->b, XSET, TU_MTE3, 2);
}

static void test_mixed_block(void **state)
{
    (void)state;
    struct emu_unit u;
    int32_t y[8] = {0};
    for (int answer = 0; answer < 2; answer++) {
        unit_begin(&u, TCORE_CUBE);
        const int32_t t = unit_tensor(&u, DT_I32, y, sizeof y);
        mixed_program(&u, t, answer != 0);
        u.blocks = 4;
        const enum npuc_status s = unit_run(&u, 2, true);
        assert_int_equal(s, answer ? NPUC_OK : NPUC_E_INVALID);
        if (answer)
            for (int i = 0; i < 8; i++)
                assert_int_equal(y[i], i);
        else
            assert_non_null(strstr(u.error, "cube core 0.0 waits forever at instruction 1 (XWAIT, event 2)"));
        unit_end(&u);
    }
}

/* Every block writes its number, all meet, every block adds up all numbers. */
static void test_barrier(void **state)
{
    (void)state;
    struct emu_unit u;
    int32_t x[6 * 8] = {0}, y[6 * 8] = {0};
    unit_begin(&u, TCORE_VECTOR);
    const int32_t tx = unit_tensor(&u, DT_I32, x, sizeof x), ty = unit_tensor(&u, DT_I32, y, sizeof y);
    const int32_t mine = unit_buf(&u, TS_UB, 1, 32), other = unit_buf(&u, TS_UB, 1, 32),
                  sum = unit_buf(&u, TS_UB, 1, 32);
    struct expr_pool *p = &u.b.k->exprs;
    const expr zero = num(&u, 0), one = num(&u, 1), eight = num(&u, 8), block = expr_sym(p, u.b.k->sym_block);
    TILE(&u.b, IOTA, DT_I32, one, eight, mine, zero, eight, block, zero, zero);
    TILE(&u.b, FILL, DT_I32, one, eight, sum, zero, eight, 0);
    unit_flag(&u, TU_V, TU_MTE3, 0);
    TILE(&u.b, STORE, tx, expr_mul_const(p, block, 8), mine, zero, DT_I32, one, one, one, eight, zero, zero, zero, one,
         zero, zero, zero, one);
    tile_emit(&u.b, TILE_BARRIER, 0, NULL);
    const expr i = tile_loop(&u.b, "i", num(&u, 6));
    TILE(&u.b, LOAD, other, zero, tx, expr_mul_const(p, i, 8), DT_I32, one, one, one, eight, zero, zero, zero, one,
         zero, zero, zero, one);
    unit_flag(&u, TU_MTE2, TU_V, 0);
    TILE(&u.b, VEC, 64, DT_I32, one, eight, sum, zero, eight, sum, zero, eight, 1, other, zero, eight, 1, -1, 0, zero,
         0, 0, 0, 0);
    unit_flag(&u, TU_V, TU_MTE2, 0);
    tile_end(&u.b);
    unit_flag(&u, TU_V, TU_MTE3, 0);
    TILE(&u.b, STORE, ty, expr_mul_const(p, block, 8), sum, zero, DT_I32, one, one, one, eight, zero, zero, zero, one,
         zero, zero, zero, one);
    u.blocks = 6;
    for (int threads = 1; threads < 4; threads++) {
        memset(y, 0, sizeof y);
        assert_int_equal(unit_run(&u, threads, true), NPUC_OK);
        for (int k = 0; k < 48; k++)
            assert_int_equal(y[k], 15);
    }
    unit_end(&u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copy_through_ub),
        cmocka_unit_test(test_strided_load),
        cmocka_unit_test(test_ring_and_threads),
        cmocka_unit_test(test_missing_flag_is_found),
        cmocka_unit_test(test_flags_are_checked),
        cmocka_unit_test(test_uninitialised_read),
        cmocka_unit_test(test_out_of_bounds),
        cmocka_unit_test(test_overflowing_strides),
        cmocka_unit_test(test_load_nz),
        cmocka_unit_test(test_indirect_rows),
        cmocka_unit_test(test_sload),
        cmocka_unit_test(test_let),
        cmocka_unit_test(test_mixed_block),
        cmocka_unit_test(test_barrier),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
