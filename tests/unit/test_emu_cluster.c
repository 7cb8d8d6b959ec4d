/* Loads for a cluster (LOADC): one load from memory, the same bytes for every core of it. */
#include "emu_unit.h"

enum { CORES = 8, N = 4096 };

struct shared {
    struct emu_unit u;
    float x[2 * N], y[CORES * N];
};

/* Every core takes the same N values, through SRAM when `clusters` says for how many clusters, and stores them. Core i
 * begins at element i * skew. */
static void build(struct shared *s, int clusters, int64_t skew)
{
    struct emu_unit *u = &s->u;
    unit_begin_on(u, "mlu370-x4", TCORE_VECTOR);
    u->blocks = CORES;
    for (int i = 0; i < 2 * N; i++)
        s->x[i] = (float)(i % 509);
    memset(s->y, 0, sizeof s->y);
    const int32_t x = unit_tensor(u, DT_F32, s->x, sizeof s->x), y = unit_tensor(u, DT_F32, s->y, sizeof s->y);
    u->tensors[1].address = 1 << 20;
    const int32_t shared = unit_buf(u, TS_L1, 1, sizeof s->x), own = unit_buf(u, TS_UB, 1, sizeof s->x);
    struct expr_pool *p = &u->b.k->exprs;
    const expr z = num(u, 0), one = num(u, 1), n = num(u, N), block = expr_sym(p, u->b.k->sym_block);
    const expr from = expr_mul_const(p, block, skew);
    if (clusters) {
        TILE(&u->b, LOADC, shared, z, x, from, DT_F32, one, one, one, n, z, z, z, one, z, z, z, one, clusters);
        unit_flag(u, TU_FIX, TU_MTE1, 0);
        TILE(&u->b, COPY_ROWS, own, z, n, shared, z, n, DT_F32, one, n);
        unit_flag(u, TU_MTE1, TU_MTE3, 0);
    } else {
        TILE(&u->b, LOAD, own, z, x, from, DT_F32, one, one, one, n, z, z, z, one, z, z, z, one);
        unit_flag(u, TU_MTE2, TU_MTE3, 0);
    }
    TILE(&u->b, STORE, y, expr_mul_const(p, block, N), own, z, DT_F32, one, one, one, n, z, z, z, one, z, z, z, one);
}

static enum npuc_status clock_of(struct emu_unit *u, struct emu_timing *t)
{
    struct emu_launch l = {.kernel = u->b.k,
                           .params = u->params,
                           .tensors = u->tensors,
                           .blocks = u->blocks,
                           .target = &u->target,
                           .machine = u->machine};
    const enum npuc_status st = emu_run_clock(&l, t);
    memcpy(u->error, l.error, sizeof u->error);
    return st;
}

static void test_every_core_has_the_bytes(void **state)
{
    (void)state;
    static struct shared s;
    for (int clusters = 0; clusters <= 2; clusters++) {
        build(&s, clusters, 0);
        if (unit_run(&s.u, 2, true) != NPUC_OK)
            fail_msg("%s", s.u.error);
        for (int i = 0; i < CORES; i++)
            assert_memory_equal(s.y + (size_t)i * N, s.x, N * sizeof(float));
        unit_end(&s.u);
    }
}

static void test_memory_is_read_once(void **state)
{
    (void)state;
    static struct shared s;
    static const int64_t reads[3] = {CORES, 2, 1}; /* every core, each of two clusters, one of them */
    double cycles[3];
    for (int clusters = 0; clusters <= 2; clusters++) {
        struct emu_timing t;
        build(&s, clusters, 0);
        assert_int_equal(clock_of(&s.u, &t), NPUC_OK);
        assert_int_equal(t.gm_read, reads[clusters] * N * (int64_t)sizeof(float));
        cycles[clusters] = t.cycles;
        unit_end(&s.u);
    }
    assert_true(cycles[1] < cycles[0]);
    assert_true(cycles[2] < cycles[0]);
}

/* Cores that ask for different things cannot share a load. */
static void test_different_loads_are_refused(void **state)
{
    (void)state;
    static struct shared s;
    struct emu_timing t;
    build(&s, 1, 16);
    assert_int_equal(clock_of(&s.u, &t), NPUC_E_INVALID);
    assert_non_null(strstr(s.u.error, "other loads of its cluster"));
    unit_end(&s.u);
}

static void test_unordered_use_is_found(void **state)
{
    (void)state;
    static struct shared s;
    build(&s, 1, 0);
    struct tile_section *sec = s.u.b.at;
    for (int64_t i = 0; i < sec->code.len; i++) /* the flag from Global-DMA to Move-DMA becomes one to another unit */
        if (sec->code.data[i].op == TILE_SET || sec->code.data[i].op == TILE_WAIT)
            if (sec->code.data[i].arg[0] == TU_FIX)
                sec->code.data[i].arg[1] = TU_V;
    assert_int_not_equal(unit_run(&s.u, 1, true), NPUC_OK);
    assert_non_null(strstr(s.u.error, "COPY_ROWS"));
    unit_end(&s.u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_core_has_the_bytes),
        cmocka_unit_test(test_memory_is_read_once),
        cmocka_unit_test(test_different_loads_are_refused),
        cmocka_unit_test(test_unordered_use_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
