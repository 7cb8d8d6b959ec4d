/* Costs that are known from the last time are those that would be calculated: for moves whose places go through a line,
 * whose extents alternate, that run backwards, of several copies of a kernel. */
#include "clock_unit.h"

#include "kernels/vec.h"

enum { BLOCKS = 6 };

static void same_units(const struct emu_timing *a, const struct emu_timing *b)
{
    for (int c = 0; c < TCORE_COUNT; c++)
        for (int i = 0; i < TU_COUNT; i++) {
            assert_true(a->unit[c][i].busy_cyc == b->unit[c][i].busy_cyc);
            assert_int_equal(a->unit[c][i].n_insns, b->unit[c][i].n_insns);
        }
}

/* Every bit. */
static void same_anew(struct emu_unit *u)
{
    u->blocks = BLOCKS;
    const struct emu_timing known = time_flags(u, 0), anew = time_flags(u, CLOCK_ANEW);
    assert_true(known.cycles == anew.cycles);
    same_units(&known, &anew);
    assert_true(known.dirty == anew.dirty);
    assert_int_equal(known.gm_read, anew.gm_read);
    assert_int_equal(known.gm_written, anew.gm_written);
    assert_int_equal(known.l2_miss, anew.l2_miss);
    assert_int_equal(known.macs, anew.macs);
}

static int32_t begin(struct emu_unit *u, enum tile_core core)
{
    unit_begin(u, core);
    return tensor(u, (int64_t)1 << 24, false);
}

static expr block_of(struct emu_unit *u)
{
    return expr_sym(&u->b.k->exprs, u->b.k->sym_block);
}

/* n rows of 96 elements from `off` on, `row` apart. */
static void load_rows(struct emu_unit *u, int32_t buf, int32_t t, expr off, expr n, int64_t row)
{
    TILE(&u->b, LOAD, buf, num(u, 0), t, off, DT_F16, num(u, 1), num(u, 1), n, num(u, 96), num(u, 0), num(u, 0),
         num(u, row), num(u, 1), num(u, 0), num(u, 0), num(u, 96), num(u, 1));
}

/* Steps that are no whole lines: each place in a line has a cost of its own where rows begin at the same. */
static void places_in_lines(void **state)
{
    const int64_t steps[] = {1, 16, 64, 96, 128, 256, 4096};
    (void)state;
    for (int64_t s = 0; s < NPUC_ARRAY_LEN(steps); s++) {
        struct emu_unit u;
        const int32_t t = begin(&u, TCORE_VECTOR), buf = unit_buf(&u, TS_UB, 1, 32768);
        struct expr_pool *x = &u.b.k->exprs;
        const expr from = expr_mul_const(x, block_of(&u), 65536);
        const expr i = tile_loop(&u.b, "i", num(&u, 50));
        load_rows(&u, buf, t, expr_add(x, from, expr_mul_const(x, i, steps[s])), num(&u, 20), 1024);
        load_rows(&u, buf, t, expr_add(x, from, expr_mul_const(x, i, steps[s])), num(&u, 20), 100);
        tile_end(&u.b);
        same_anew(&u);
        unit_end(&u);
    }
}

/* Extents that change with every turn, and backwards. */
static void extents_and_directions(void **state)
{
    struct emu_unit u;
    (void)state;
    const int32_t t = begin(&u, TCORE_VECTOR), buf = unit_buf(&u, TS_UB, 1, 32768);
    struct expr_pool *x = &u.b.k->exprs;
    const expr from = expr_add(x, num(&u, 1 << 20), expr_mul_const(x, block_of(&u), 32768));
    const expr i = tile_loop(&u.b, "i", num(&u, 40));
    const expr rows = expr_min(x, num(&u, 16), expr_sub(x, num(&u, 40), i));
    load_rows(&u, buf, t, expr_add(x, from, expr_mul_const(x, i, 64)), rows, -2048);
    TILE(&u.b, CAST, DT_F32, DT_F16, rows, num(&u, 96), buf, num(&u, 16384), num(&u, 96), buf, num(&u, 0), num(&u, 96),
         1, 0);
    TILE(&u.b, STORE, t, expr_add(x, from, expr_mul_const(x, i, 500)), buf, num(&u, 0), DT_F16, num(&u, 1), num(&u, 1),
         rows, expr_add(x, num(&u, 1), i), num(&u, 0), num(&u, 0), num(&u, 200), num(&u, 1), num(&u, 0), num(&u, 0),
         num(&u, 96), num(&u, 1));
    tile_end(&u.b);
    same_anew(&u);
    unit_end(&u);
}

/* A product: rows to fractals, edges of k, results as rows. */
static void products(void **state)
{
    struct emu_unit u;
    (void)state;
    const int32_t t = begin(&u, TCORE_CUBE), a = unit_buf(&u, TS_L1, 1, 65536), l0a = unit_buf(&u, TS_L0A, 1, 65536),
                  l0b = unit_buf(&u, TS_L0B, 1, 65536), c = unit_buf(&u, TS_L0C, 1, 131072);
    struct expr_pool *x = &u.b.k->exprs;
    const expr tile = tile_loop(&u.b, "tile", num(&u, 12));
    const expr i = tile_loop(&u.b, "i", num(&u, 4));
    const expr k = expr_min(x, num(&u, 128), expr_sub(x, num(&u, 440), expr_mul_const(x, i, 128)));
    const expr at =
        expr_add(x, expr_mul_const(x, expr_add(x, tile, block_of(&u)), 128 * 440), expr_mul_const(x, i, 128));
    TILE(&u.b, LOAD_NZ, a, num(&u, 0), num(&u, 128), t, at, DT_F16, num(&u, 128), k, num(&u, 440), num(&u, 1));
    unit_flag(&u, TU_MTE2, TU_MTE1, 0);
    TILE(&u.b, COPY_L0A, l0a, a, num(&u, 0), num(&u, 128), DT_F16, num(&u, 128), k, 0);
    TILE(&u.b, COPY_L0B, l0b, a, num(&u, 0), num(&u, 128), DT_F16, num(&u, 64), k, 0);
    unit_flag(&u, TU_MTE1, TU_M, 0);
    TILE(&u.b, MAC, c, l0a, l0b, -1, DT_F16, num(&u, 128), num(&u, 64), k, num(&u, 1));
    unit_flag(&u, TU_M, TU_MTE2, 0);
    tile_end(&u.b);
    unit_flag(&u, TU_M, TU_FIX, 1);
    TILE(&u.b, FIXP, t, expr_mul_const(x, tile, 77), num(&u, 640), c, num(&u, 128), DT_F32, DT_F16,
         expr_min(x, num(&u, 128), expr_sub(x, num(&u, 1500), expr_mul_const(x, tile, 128))), num(&u, 64), 0, -1,
         num(&u, 0));
    tile_end(&u.b);
    same_anew(&u);
    unit_end(&u);
}

/* ---- what decides ---- */
static uint64_t drawn = 1;

static int64_t below(int64_t n)
{
    drawn = drawn * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)(drawn >> 33) % n;
}

static int64_t any_operand(enum tile_field_kind kind)
{
    static const enum dtype types[] = {DT_F16, DT_F32, DT_I8, DT_I32};
    switch (kind) {
    case TF_EXPR: return below(3) ? 1 + below(300) : below(2);
    case TF_BUF:
    case TF_BUF_OPT: return below(3);
    case TF_INT: return 1 + below(2);
    case TF_DTYPE: return types[below(NPUC_ARRAY_LEN(types))];
    case TF_FN: return K_FN_Add;
    default: return 0;
    }
}

static void assert_same_cost(const char *name, const struct clock_cost *a, const struct clock_cost *b)
{
    const double x[] = {a->busy, a->head, a->after, a->after_miss, a->hit_cyc, a->miss_cyc, a->bus, a->cap};
    const double y[] = {b->busy, b->head, b->after, b->after_miss, b->hit_cyc, b->miss_cyc, b->bus, b->cap};
    for (int i = 0; i < NPUC_ARRAY_LEN(x); i++)
        if (x[i] != y[i])
            fail_msg("%s: an operand that does not decide changes the cost", name);
    assert_int_equal(a->bytes, b->bytes);
    assert_int_equal(a->macs, b->macs);
    assert_int_equal(a->span.tensor, b->span.tensor);
    for (int i = 0; a->span.tensor >= 0 && i < 4; i++) {
        assert_int_equal(a->span.n[i], b->span.n[i]);
        assert_int_equal(a->span.gm[i], b->span.gm[i]);
    }
}

static void try_instruction(struct clock_cx *cx, int number)
{
    const struct tile_insn_info *info = &tile_insn_table[number];
    const struct tile_insn in = {.op = (uint16_t)number};
    struct emu_op op = {.insn = &in};
    struct clock_cost before = {0}, after = {0};
    for (int f = 0; f < info->n_fields; f++)
        op.arg[f] = any_operand(info->fields[f].kind);
    clock_cost_of(cx, &op, &before);
    for (int f = 0; f < info->n_fields; f++)
        if (info->fields[f].kind == TF_EXPR && !(clock_decides(number) >> f & 1) && f != clock_place(number))
            op.arg[f] = any_operand(TF_EXPR);
    clock_cost_of(cx, &op, &after);
    assert_same_cost(info->name, &before, &after);
}

/* For every instruction, what is not said to decide its cost does not. */
static void all_that_decides(void **state)
{
    struct emu_unit u;
    (void)state;
    (void)begin(&u, TCORE_VECTOR);
    for (int i = 0; i < 3; i++)
        (void)unit_buf(&u, TS_UB, 1, 16384);
    struct emu_launch l = {.kernel = u.b.k, .params = u.params, .tensors = u.tensors, .blocks = 1, .target = &u.target};
    struct clock_rates rates;
    clock_rates_of(&u.target, &rates);
    struct clock_cx cx = {.launch = &l, .rates = &rates, .section = &u.b.k->section[TCORE_VECTOR]};
    for (int number = 1; number < TILE_OP_END; number++)
        for (int i = 0; clock_decides(number) && number != TILE_LOOP && number != TILE_IF && i < 500; i++)
            try_instruction(&cx, number);
    unit_end(&u);
}

/* A place beyond the tensor is found wherever it comes. */
static void beyond_the_tensor(void **state)
{
    struct emu_unit u;
    struct emu_timing t;
    (void)state;
    const int32_t x = begin(&u, TCORE_VECTOR), buf = unit_buf(&u, TS_UB, 1, 32768);
    const expr i = tile_loop(&u.b, "i", num(&u, 100));
    load_rows(&u, buf, x, expr_mul_const(&u.b.k->exprs, i, 1 << 17), num(&u, 16), 128);
    tile_end(&u.b);
    u.blocks = BLOCKS;
    struct emu_launch l = {.kernel = u.b.k,
                           .params = u.params,
                           .tensors = u.tensors,
                           .blocks = u.blocks,
                           .target = &u.target,
                           .machine = u.machine};
    assert_int_equal(clock_run(&l, &t, 0), NPUC_E_INVALID);
    assert_non_null(strstr(l.error, "leaves the tensor"));
    unit_end(&u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(places_in_lines),  cmocka_unit_test(extents_and_directions), cmocka_unit_test(products),
        cmocka_unit_test(all_that_decides), cmocka_unit_test(beyond_the_tensor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
