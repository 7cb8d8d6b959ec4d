/* The scheduler: programs with its flags have no hazard on the emulated cores, and every single flag is needed. */
#include "backend_unit.h"

struct unit_kernel {
    struct infer_unit *f;
    struct backend_unit u;
    struct tile_builder b;
    struct expr_pool *x;
    float in[4096], out[4096];
};

static void begin(struct unit_kernel *k)
{
    void *state = NULL;
    memset(k, 0, sizeof *k);
    assert_int_equal(infer_unit_setup(&state), 0);
    k->f = state;
    backend_setup(&k->u, k->f);
    k->b.arena = &k->f->m->arena;
    k->b.k = tile_kernel_new(k->b.arena, &k->u.plan.strings, "unit");
    k->x = &k->b.k->exprs;
    tile_params_done(k->b.k);
    tile_tensor(k->b.k, k->b.arena, "x", DT_F32, true, false);
    tile_tensor(k->b.k, k->b.arena, "y", DT_F32, false, true);
    k->b.k->blocks = expr_const(k->x, 1);
    tile_section_begin(&k->b, TCORE_VECTOR);
    for (int i = 0; i < 4096; i++)
        k->in[i] = (float)i;
}

static void end(struct unit_kernel *k)
{
    void *state = k->f;
    backend_teardown(&k->u);
    infer_unit_teardown(&state);
}

static expr n(struct unit_kernel *k, int64_t v)
{
    return expr_const(k->x, v);
}

static void load(struct unit_kernel *k, int32_t buf, expr off, int64_t len)
{
    const expr z = n(k, 0), one = n(k, 1);
    TILE(&k->b, LOAD, buf, z, 0, off, DT_F32, one, one, one, n(k, len), z, z, z, one, z, z, z, one);
}

static void store(struct unit_kernel *k, int32_t buf, expr off, int64_t len)
{
    const expr z = n(k, 0), one = n(k, 1);
    TILE(&k->b, STORE, 1, off, buf, z, DT_F32, one, one, one, n(k, len), z, z, z, one, z, z, z, one);
}

static void fill(struct unit_kernel *k, int32_t buf, float v, int64_t len)
{
    TILE(&k->b, FILL, DT_F32, n(k, 1), n(k, len), buf, n(k, 0), n(k, 0), tile_float_bits(v));
}

static void copy(struct unit_kernel *k, int32_t dst, int32_t src, int64_t len)
{
    TILE(&k->b, COPY_UB, DT_F32, n(k, 1), n(k, len), dst, n(k, 0), n(k, 0), src, n(k, 0), n(k, 0), 1);
}

static bool run(struct unit_kernel *k, char *error)
{
    const struct emu_tensor t[2] = {
        {.data = (uint8_t *)k->in, .size = sizeof k->in, .dtype = DT_F32},
        {.data = (uint8_t *)k->out, .size = sizeof k->out, .address = 1 << 20, .dtype = DT_F32}};
    struct emu_machine *cores = emu_machine_new(&k->u.target);
    struct emu_launch l = {.kernel = k->b.k, .tensors = t, .blocks = 1, .target = &k->u.target, .machine = cores};
    const bool ok = emu_run_data(&l, NULL, true) == NPUC_OK;
    snprintf(error, sizeof l.error, "%s", l.error);
    emu_machine_free(cores);
    return ok;
}

static void schedule(struct unit_kernel *k)
{
    if (schedule_kernel(&k->f->cx, &k->u.machine, k->b.k) != NPUC_OK)
        fail_msg("%s", k->f->last);
}

static int count(const struct unit_kernel *k, enum tile_op op)
{
    int c = 0;
    const struct tile_section *s = &k->b.k->section[TCORE_VECTOR];
    for (int64_t i = 0; i < s->code.len; i++)
        c += s->code.data[i].op == op;
    return c;
}

static void check_clean(struct unit_kernel *k)
{
    char error[512];
    schedule(k);
    if (!run(k, error))
        fail_msg("%s\n%s", error, tile_kernel_text(k->b.k, k->b.arena));
}

/* Without any one of the flags a hazard, or an unbalanced flag, is found. */
static void check_each_flag_counts(struct unit_kernel *k)
{
    struct tile_section *s = &k->b.k->section[TCORE_VECTOR];
    for (int64_t i = 0; i < s->code.len; i++) {
        char error[512];
        const struct tile_insn kept = s->code.data[i];
        if (kept.op != TILE_SET && kept.op != TILE_WAIT)
            continue;
        memmove(&s->code.data[i], &s->code.data[i + 1], (size_t)(s->code.len - i - 1) * sizeof kept);
        s->code.len--;
        if (run(k, error))
            fail_msg("flag %d is not needed:\n%s", (int)i, tile_kernel_text(k->b.k, k->b.arena));
        memmove(&s->code.data[i + 1], &s->code.data[i], (size_t)(s->code.len - i) * sizeof kept);
        s->code.len++;
        s->code.data[i] = kept;
    }
}

/* load, compute, store per tile: loads of the next tile overlap with this one */
static void test_pipeline(void **state)
{
    (void)state;
    struct unit_kernel k;
    begin(&k);
    const int32_t a = tile_buf(&k.b, "a", TS_UB, DT_F32, 2, 256), c = tile_buf(&k.b, "c", TS_UB, DT_F32, 2, 256);
    const expr i = tile_loop(&k.b, "i", n(&k, 7)), off = expr_mul_const(k.x, i, 64);
    load(&k, a, off, 64);
    copy(&k, c, a, 64);
    store(&k, c, off, 64);
    tile_end(&k.b);
    check_clean(&k);
    assert_memory_equal(k.in, k.out, 7 * 64 * 4);
    assert_int_equal(count(&k, TILE_NEXT), 2);
    assert_int_equal(count(&k, TILE_SET), 4 + 4); /* two forward and two back edges, those set before for both slots */
    check_each_flag_counts(&k);
    end(&k);
}

/* a table loaded once: one flag, outside of the loop */
static void test_loaded_once(void **state)
{
    (void)state;
    struct unit_kernel k;
    begin(&k);
    const int32_t a = tile_buf(&k.b, "a", TS_UB, DT_F32, 1, 256), c = tile_buf(&k.b, "c", TS_UB, DT_F32, 2, 256);
    load(&k, a, n(&k, 64), 64);
    const expr i = tile_loop(&k.b, "i", n(&k, 5));
    copy(&k, c, a, 64);
    store(&k, c, expr_mul_const(k.x, i, 64), 64);
    tile_end(&k.b);
    check_clean(&k);
    for (int j = 0; j < 5; j++)
        assert_memory_equal(k.out + 64 * j, k.in + 64, 256);
    check_each_flag_counts(&k);
    end(&k);
}

/* two units share a buffer inside a nested loop that runs 0, 1, 2 .. times, and use it outside as well */
static void test_nested_sharing(void **state)
{
    (void)state;
    struct unit_kernel k;
    begin(&k);
    const int32_t a = tile_buf(&k.b, "a", TS_UB, DT_F32, 2, 256);
    const expr i = tile_loop(&k.b, "i", n(&k, 4)), off = expr_mul_const(k.x, i, 64);
    load(&k, a, off, 64);
    tile_loop(&k.b, "j", i);
    fill(&k, a, 3.0f, 32);
    store(&k, a, expr_add(k.x, off, n(&k, 1024)), 64);
    tile_end(&k.b);
    store(&k, a, off, 64);
    tile_end(&k.b);
    check_clean(&k);
    assert_memory_equal(k.out, k.in, 256);
    assert_true(k.out[64] == 3.0f && k.out[64 + 32] == 96.0f);
    check_each_flag_counts(&k);
    end(&k);
}

/* accesses under a condition: flags stand outside, or balanced inside */
static void test_conditions(void **state)
{
    (void)state;
    struct unit_kernel k;
    begin(&k);
    const int32_t a = tile_buf(&k.b, "a", TS_UB, DT_F32, 2, 256);
    const expr i = tile_loop(&k.b, "i", n(&k, 6)), off = expr_mul_const(k.x, i, 64);
    load(&k, a, off, 64);
    tile_if(&k.b, expr_mod(k.x, i, n(&k, 2)));
    fill(&k, a, 1.0f, 64);
    tile_end(&k.b);
    tile_if(&k.b, expr_mod(k.x, i, n(&k, 3)));
    store(&k, a, expr_add(k.x, off, n(&k, 2048)), 64);
    fill(&k, a, 2.0f, 64);
    tile_end(&k.b);
    store(&k, a, off, 64);
    tile_end(&k.b);
    check_clean(&k);
    assert_true(k.out[0] == 0.0f && k.out[64] == 2.0f && k.out[3 * 64] == 1.0f && k.out[2048 + 64] == 1.0f);
    check_each_flag_counts(&k);
    end(&k);
}

/* more buffers between two units than there are events: edges merge, rings get shorter, nothing breaks */
static void test_few_events(void **state)
{
    (void)state;
    struct unit_kernel k;
    int32_t a[12], sum;
    begin(&k);
    for (int j = 0; j < 12; j++)
        a[j] = tile_buf(&k.b, "a", TS_UB, DT_F32, 3, 256);
    sum = tile_buf(&k.b, "sum", TS_UB, DT_F32, 1, 256);
    const expr i = tile_loop(&k.b, "i", n(&k, 3)), off = expr_mul_const(k.x, i, 64);
    for (int j = 0; j < 12; j++) {
        load(&k, a[j], expr_add(k.x, off, n(&k, 256 * j)), 64);
        copy(&k, sum, a[j], 64);
        store(&k, sum, expr_add(k.x, off, n(&k, 256 * j)), 64);
    }
    tile_end(&k.b);
    check_clean(&k);
    for (int j = 0; j < 12; j++)
        assert_memory_equal(k.out + 256 * j, k.in + 256 * j, 3 * 256);
    check_each_flag_counts(&k);
    end(&k);
}

static void test_overfull(void **state)
{
    (void)state;
    struct unit_kernel k;
    begin(&k);
    const int32_t a = tile_buf(&k.b, "a", TS_UB, DT_F32, 1, 1 << 20);
    fill(&k, a, 1.0f, 64);
    assert_int_equal(schedule_kernel(&k.f->cx, &k.u.machine, k.b.k), NPUC_E_LIMIT);
    char want[100];
    snprintf(want, sizeof want, "kernel 'unit' needs 1048576 bytes of UB, the target has %lld",
             (long long)k.u.machine.size[TS_UB]);
    assert_non_null(strstr(k.f->last, want));
    end(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pipeline),   cmocka_unit_test(test_loaded_once), cmocka_unit_test(test_nested_sharing),
        cmocka_unit_test(test_conditions), cmocka_unit_test(test_few_events),  cmocka_unit_test(test_overfull),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
