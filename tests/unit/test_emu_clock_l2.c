/* What L2 gives to all cores together, worked out by hand. */
#include "clock_unit.h"

enum { ISSUE = 1 };

/* `blocks` cores that each load 64 KiB of their own from L2, where L2 gives `rate` bytes per cycle to all of them. */
static void load_at(struct emu_unit *u, int64_t blocks, double rate)
{
    unit_begin(u, TCORE_VECTOR);
    u->blocks = blocks;
    u->target.value[TK_L2_BANDWIDTH].number = rate * 1.85e9;
    const int32_t x = tensor(u, blocks * 65536, true), buf = unit_buf(u, TS_UB, 1, 65536);
    const expr at = expr_mul_const(&u->b.k->exprs, expr_sym(&u->b.k->exprs, u->b.k->sym_block), 65536);
    const expr one = num(u, 1), zero = num(u, 0);
    TILE(&u->b, LOAD, buf, zero, x, at, DT_I8, one, one, one, num(u, 65536), zero, zero, zero, one, zero, zero, zero,
         one);
}

/* 48 cores could take 64 bytes per cycle each; L2 has 1, 32 or 100 for each. */
static void cores_share_what_l2_gives(void **state)
{
    static const double each[] = {1, 32, 100}, took[] = {65536, 65536 / 32.0, 65536 / 64.0};
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct emu_unit u;
        load_at(&u, 48, 48 * each[i]);
        close_to(time_of(&u).cycles, ISSUE + took[i]);
        close_to(time_flags(&u, CLOCK_EVERY_BLOCK).cycles, ISSUE + took[i]);
        unit_end(&u);
    }
}

/* As little as L2 may be said to give: a long time, found at once. */
static void a_trickle_takes_long(void **state)
{
    struct emu_unit u;
    (void)state;
    load_at(&u, 48, 1e-9);
    close_to(time_of(&u).cycles, ISSUE + 48 * 65536 / 1e-9);
    unit_end(&u);
}

static void near_to(double got, double want)
{
    if (fabs(got - want) > 128) /* a slot of time */
        fail_msg("%.3f cycles instead of about %.3f", got, want);
}

/* Loads may take 64 bytes per cycle and stores 28; L2 has 46 for each core. The loads are there first. */
static void stores_take_what_loads_leave(void **state)
{
    struct emu_unit u;
    (void)state;
    load_at(&u, 48, 48 * 46);
    const int32_t y = tensor(&u, 65536, true), out = unit_buf(&u, TS_UB, 1, 65536);
    unit_store(&u, y, 0, out, 0, DT_F16, 32768);
    near_to(time_of(&u).cycles, ISSUE + 65536 / 46.0 + 65536 / 28.0);
    unit_end(&u);
}

/* 24 matrix cores at 110 bytes per cycle and 48 vector cores at 64 ask for 5,712 of the 3,784 that there are: each has
 * 0.66 of its rate until the matrix cores have their 64 KiB. */
static void matrix_and_vector_cores_share_l2(void **state)
{
    struct emu_unit u;
    (void)state;
    unit_begin(&u, TCORE_CUBE);
    u.blocks = 24;
    const int32_t x = tensor(&u, 65536, true), l1 = unit_buf(&u, TS_L1, 1, 65536);
    unit_load(&u, l1, 0, x, 0, DT_F16, 32768);
    tile_section_begin(&u.b, TCORE_VECTOR);
    const int32_t ub = unit_buf(&u, TS_UB, 1, 65536);
    unit_load(&u, ub, 0, x, 0, DT_F16, 32768);
    const double part = 7e12 / 1.85e9 / (24 * 110 + 48 * 64), matrix = 65536 / 110.0 / part;
    const struct emu_timing t = time_of(&u);
    close_to(t.core_cycles[TCORE_CUBE], ISSUE + matrix);
    near_to(t.core_cycles[TCORE_VECTOR], ISSUE + matrix + (65536 - matrix * part * 64) / 64);
    unit_end(&u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cores_share_what_l2_gives),
        cmocka_unit_test(a_trickle_takes_long),
        cmocka_unit_test(stores_take_what_loads_leave),
        cmocka_unit_test(matrix_and_vector_cores_share_l2),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
