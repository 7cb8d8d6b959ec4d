/* The clock times one block of each kind, and finds the kinds on a slice of the program. Here: blocks that differ in
 * one operand somewhere, in loops, ifs and edges; timing all of them must say the same. */
#include "clock_unit.h"

#include "kernels/vec.h"

enum { BLOCKS = 12 };

static void kinds_stand_for_all(struct emu_unit *u)
{
    u->blocks = BLOCKS;
    const struct emu_timing one = time_flags(u, 0), all = time_flags(u, CLOCK_EVERY_BLOCK);
    close_to(one.cycles, all.cycles);
    for (int c = 0; c < TCORE_COUNT; c++)
        for (int i = 0; i < TU_COUNT; i++) {
            close_to(one.unit[c][i].busy_cyc, all.unit[c][i].busy_cyc);
            assert_int_equal(one.unit[c][i].n_insns, all.unit[c][i].n_insns);
        }
    assert_int_equal(one.macs, all.macs);
    assert_int_equal(one.bytes[TS_GM][TS_UB], all.bytes[TS_GM][TS_UB]);
}

static int32_t begin(struct emu_unit *u, enum tile_core core)
{
    unit_begin(u, core);
    const int32_t t = unit_tensor(u, DT_F16, NULL, (size_t)1 << 24);
    u->tensors[t].address = (int64_t)1 << 36;
    return t;
}

static expr block_of(struct emu_unit *u)
{
    return expr_sym(&u->b.k->exprs, u->b.k->sym_block);
}

static void relu(struct emu_unit *u, int32_t buf, int32_t other, expr n)
{
    TILE(&u->b, VEC, K_FN_Add, DT_F16, num(u, 1), n, buf, num(u, 0), n, buf, num(u, 0), n, 1, other, num(u, 0), n, 1,
         -1, 0, num(u, 0), 0, 0, 0, 0);
}

/* The edge of the work falls into one block: an extent in a loop without traffic. */
static void edges_in_quiet_loops(void **state)
{
    struct emu_unit u;
    (void)state;
    const int32_t t = begin(&u, TCORE_VECTOR), buf = unit_buf(&u, TS_UB, 1, 32768), b = unit_buf(&u, TS_UB, 1, 32768);
    struct expr_pool *x = &u.b.k->exprs;
    const expr from = expr_mul_const(x, block_of(&u), 640);
    unit_load(&u, buf, 0, t, 0, DT_F16, 8192);
    unit_flag(&u, TU_MTE2, TU_V, 0);
    const expr i = tile_loop(&u.b, "i", num(&u, 5));
    const expr left = expr_sub(x, expr_sub(x, num(&u, 7000), from), expr_mul_const(x, i, 128));
    relu(&u, buf, b, expr_max(x, num(&u, 1), expr_min(x, num(&u, 1280), left)));
    tile_end(&u.b);
    kinds_stand_for_all(&u);
    unit_end(&u);
}

/* Loops whose number of turns depends on the block, with and without traffic inside. */
static void triangles(void **state)
{
    struct emu_unit u;
    (void)state;
    const int32_t t = begin(&u, TCORE_VECTOR), buf = unit_buf(&u, TS_UB, 1, 32768), b = unit_buf(&u, TS_UB, 1, 32768);
    struct expr_pool *x = &u.b.k->exprs;
    (void)tile_loop(&u.b, "i", expr_add(x, num(&u, 1), expr_floordiv(x, block_of(&u), num(&u, 4))));
    unit_load(&u, buf, 0, t, 0, DT_F16, 8192);
    unit_flag(&u, TU_MTE2, TU_V, 0);
    (void)tile_loop(&u.b, "j", expr_add(x, num(&u, 1), expr_floordiv(x, block_of(&u), num(&u, 3))));
    relu(&u, buf, b, num(&u, 1024));
    tile_end(&u.b);
    unit_flag(&u, TU_V, TU_MTE2, 0);
    tile_end(&u.b);
    kinds_stand_for_all(&u);
    unit_end(&u);
}

/* One path or the other, seen in nothing but which instructions run. */
static void paths(void **state)
{
    struct emu_unit u;
    (void)state;
    const int32_t t = begin(&u, TCORE_VECTOR), buf = unit_buf(&u, TS_UB, 1, 32768), b = unit_buf(&u, TS_UB, 1, 32768);
    struct expr_pool *x = &u.b.k->exprs;
    const expr i = tile_loop(&u.b, "i", num(&u, 3));
    unit_load(&u, buf, 0, t, 0, DT_F16, 8192);
    unit_flag(&u, TU_MTE2, TU_V, 0);
    tile_if(&u.b, expr_cmp(x, EXPR_LT, num(&u, 14), expr_add(x, block_of(&u), expr_mul_const(x, i, 3))));
    relu(&u, buf, b, num(&u, 4096));
    tile_end(&u.b);
    unit_flag(&u, TU_V, TU_MTE2, 0);
    tile_end(&u.b);
    kinds_stand_for_all(&u);
    unit_end(&u);
}

/* Products over an edge of k in a loop of its own, of n by block. */
static void products(void **state)
{
    struct emu_unit u;
    (void)state;
    const int32_t t = begin(&u, TCORE_CUBE), a = unit_buf(&u, TS_L1, 1, 65536), b = unit_buf(&u, TS_L1, 1, 65536);
    const int32_t l0a = unit_buf(&u, TS_L0A, 1, 65536), l0b = unit_buf(&u, TS_L0B, 1, 65536),
                  c = unit_buf(&u, TS_L0C, 1, 131072);
    struct expr_pool *x = &u.b.k->exprs;
    const expr n = expr_max(x, num(&u, 16),
                            expr_min(x, num(&u, 128), expr_sub(x, num(&u, 1000), expr_mul_const(x, block_of(&u), 96))));
    (void)tile_loop(&u.b, "tile", num(&u, 40));
    unit_load(&u, a, 0, t, 0, DT_F16, 16384);
    unit_load(&u, b, 0, t, 65536, DT_F16, 16384);
    unit_flag(&u, TU_MTE2, TU_MTE1, 0);
    const expr i = tile_loop(&u.b, "i", num(&u, 4));
    const expr k = expr_min(x, num(&u, 128), expr_sub(x, num(&u, 440), expr_mul_const(x, i, 128)));
    TILE(&u.b, COPY_L0A, l0a, a, num(&u, 0), num(&u, 128), DT_F16, num(&u, 128), k, 0);
    TILE(&u.b, COPY_L0B, l0b, b, num(&u, 0), num(&u, 128), DT_F16, n, k, 0);
    unit_flag(&u, TU_MTE1, TU_M, 0);
    TILE(&u.b, MAC, c, l0a, l0b, -1, DT_F16, num(&u, 128), n, k, num(&u, 1));
    unit_flag(&u, TU_M, TU_MTE1, 0);
    tile_end(&u.b);
    unit_flag(&u, TU_MTE1, TU_MTE2, 1);
    tile_end(&u.b);
    kinds_stand_for_all(&u);
    unit_end(&u);
}

/* Loops without traffic are one instruction, and stay when the block's number is computed with inside. */
static void slices_are_short(void **state)
{
    for (int by_block = 0; by_block < 2; by_block++) {
        struct emu_unit u;
        (void)state;
        const int32_t t = begin(&u, TCORE_VECTOR), buf = unit_buf(&u, TS_UB, 1, 32768);
        struct expr_pool *x = &u.b.k->exprs;
        unit_load(&u, buf, 0, t, 0, DT_F16, 8192);
        unit_flag(&u, TU_MTE2, TU_V, 0);
        const expr i = tile_loop(&u.b, "i", num(&u, 100));
        const expr from = by_block ? expr_add(x, i, block_of(&u)) : i;
        relu(&u, buf, buf, expr_max(x, num(&u, 1), expr_sub(x, num(&u, 100), from)));
        tile_end(&u.b);
        u.blocks = BLOCKS;
        char error[256];
        struct arena arena;
        arena_init(&arena, NULL);
        const struct emu_program *p = emu_program_new(&arena, u.b.k, TCORE_VECTOR, error, sizeof error);
        assert_non_null(p);
        const struct emu_program *slice = clock_slice_new(&arena, p);
        assert_non_null(slice);
        assert_int_equal(slice->n_code, by_block ? 4 : 1);
        arena_free(&arena);
        kinds_stand_for_all(&u);
        unit_end(&u);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(edges_in_quiet_loops),
        cmocka_unit_test(triangles),
        cmocka_unit_test(paths),
        cmocka_unit_test(products),
        cmocka_unit_test(slices_are_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
