/* Parts of a batch on the clusters of an MLU: how many copies a kernel runs in, what each sees, and which temporaries
 * stay in the clusters' shared memory. */
#include "backend_unit.h"

static struct value *named(struct infer_unit *f, struct value *v, const char *name)
{
    v->name = str_internz(&f->cx.strings, name);
    return v;
}

static int32_t tensor_named(struct backend_unit *u, const char *name)
{
    const sym want = str_internz(&u->plan.strings, name);
    for (int32_t i = 0; i < (int32_t)u->plan.tensors.len; i++)
        if (u->plan.tensors.data[i].name == want)
            return i;
    fail_msg("no tensor '%s'", name);
    return -1;
}

/* y = |relu(x)| as two launches with a temporary between. */
static void compile(struct backend_unit *u, struct infer_unit *f, const char *dims)
{
    struct value *x = named(f, in(f, DT_F32, dims), "x");
    struct value *a = named(f, ir_op1(&f->b, OP_Relu, x), "a");
    struct value *y = named(f, ir_op1(&f->b, OP_Abs, a), "y");
    backend_yield(f, 1, &y);
    backend_compile(u);
    assert_int_equal(u->plan.steps.len, 2);
    if (plan_verify(&u->plan, "test", &f->diag) != NPUC_OK)
        fail_msg("%s", f->last);
}

static void check_values(struct backend_unit *u)
{
    backend_allocate(u);
    const int32_t x = tensor_named(u, "x"), y = tensor_named(u, "y");
    float *from = (float *)(void *)u->bytes[x];
    const float *to = (const float *)(const void *)u->bytes[y];
    const int64_t n = u->size[x] / (int64_t)sizeof *from;
    for (int64_t i = 0; i < n; i++)
        from[i] = (float)(i % 1001 - 500);
    backend_run(u);
    for (int64_t i = 0; i < n; i++)
        if (to[i] != (from[i] > 0 ? from[i] : 0))
            fail_msg("element %lld is %g", (long long)i, (double)to[i]);
}

/* Eight clusters: as many copies as clusters have images, when these are equally many; without a number of images
 * blocks go round the clusters. */
static void test_division(void **state)
{
    static const struct {
        const char *dims;
        int32_t copies, parts;
    } rows[] = {
        {"8, 1000", 8, 8},       {"16, 1000", 8, 8},   {"12, 1000", 6, 6},
        {"1, 1000", 1, 1},       {"9, 1000", 0, 0},    {"s, 1000", PLAN_APART, 0},
        {"1000", PLAN_APART, 0}, {"8, 3, 5, 7", 8, 8}, {"1, 600000", PLAN_APART, 0},
        {"4, 600000", 4, 4},
    };
    (void)state;
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(rows); i++) {
        void *own = NULL;
        assert_int_equal(infer_unit_setup(&own), 0);
        struct backend_unit u;
        backend_setup(&u, own);
        compile(&u, own, rows[i].dims);
        for (int64_t s = 0; s < u.plan.steps.len; s++)
            assert_int_equal(u.plan.steps.data[s].copies, rows[i].copies);
        assert_int_equal(u.plan.tensors.data[tensor_named(&u, "a")].parts, rows[i].parts);
        if (strchr(rows[i].dims, 's'))
            backend_bind(&u, "s", 5);
        check_values(&u);
        backend_teardown(&u);
        infer_unit_teardown(&own);
    }
}

/* Instances are normalised by a core each, whatever else a cluster could do beside. */
static void test_instances(void **state)
{
    static const struct {
        const char *dims;
        int32_t copies;
        int64_t cores; /* of one copy */
    } rows[] = {{"1, 4, 6, 6", 1, 1}, {"8, 4, 6, 6", 8, 1}, {"16, 4, 6, 6", 8, 2}, {"64, 4, 6, 6", 8, 4}};
    (void)state;
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(rows); i++) {
        void *own = NULL;
        assert_int_equal(infer_unit_setup(&own), 0);
        struct infer_unit *f = own;
        struct backend_unit u;
        backend_setup(&u, f);
        static const float ones[4] = {1, 1, 1, 1};
        struct value *row = ir_const(&f->b, DT_F32, 1, (const int64_t[]){4}, ones, sizeof ones);
        struct value *of[] = {in(f, DT_F32, rows[i].dims), row, row};
        struct node *n = ir_new(&f->b, OP_InstanceNormalization, 3, of, 1);
        assert_int_equal(ir_infer(n), NPUC_OK);
        struct value *y = named(f, &n->out[0], "y");
        backend_yield(f, 1, &y);
        backend_compile(&u);
        for (int64_t s = 0; s < u.plan.steps.len; s++) {
            const struct plan_step *step = &u.plan.steps.data[s];
            const struct tile_kernel *k = u.plan.kernels.data[step->kernel];
            assert_int_equal(step->copies, rows[i].copies);
            assert_int_equal(expr_range_of(&k->exprs, k->blocks).max, rows[i].cores);
        }
        backend_teardown(&u);
        infer_unit_teardown(&own);
    }
}

/* Floats along three axes stay on a cluster per image, however large their filters; along two, filters beyond the
 * WRAM of a cluster take all of them. */
static void test_filters(void **state)
{
    enum { CHANNELS = 512, TAPS = 9 };
    static const struct {
        const char *dims;
        int rank;
        int32_t copies; /* 0: all clusters, next to each other or apart */
    } rows[] = {{"2, 512, 2, 2", 4, 0}, {"2, 512, 1, 2, 2", 5, 2}};
    static const float zeros[CHANNELS * CHANNELS * TAPS];
    (void)state;
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(rows); i++) {
        void *own = NULL;
        assert_int_equal(infer_unit_setup(&own), 0);
        struct infer_unit *f = own;
        struct backend_unit u;
        backend_setup(&u, f);
        const int64_t dims[] = {CHANNELS, CHANNELS, rows[i].rank > 4 ? 1 : 3, 3, 3};
        struct value *of[] = {in(f, DT_F32, rows[i].dims),
                              ir_const(&f->b, DT_F32, rows[i].rank, dims, zeros, sizeof zeros)};
        struct node *n = ir_new(&f->b, OP_Conv, 2, of, 1);
        const int64_t pads[2][6] = {{1, 1, 1, 1}, {0, 1, 1, 0, 1, 1}};
        ir_set_ints(n, "pads", pads[i], 2 * (rows[i].rank - 2));
        assert_int_equal(ir_infer(n), NPUC_OK);
        struct value *y = named(f, &n->out[0], "y");
        backend_yield(f, 1, &y);
        backend_compile(&u);
        const struct plan_step *last = &u.plan.steps.data[u.plan.steps.len - 1];
        assert_int_equal(last->copies == PLAN_APART ? 0 : last->copies, rows[i].copies);
        backend_teardown(&u);
        infer_unit_teardown(&own);
    }
}

/* A part that is larger than the shared memory stays in global memory. */
static void test_budget(void **state)
{
    struct infer_unit *f = *state;
    struct backend_unit u;
    backend_setup(&u, f);
    compile(&u, f, "8, 1048576");
    assert_int_equal(u.plan.steps.data[0].copies, 8);
    assert_int_equal(u.plan.tensors.data[tensor_named(&u, "a")].parts, 0);
    backend_teardown(&u);
}

/* A plan that says otherwise is refused. */
static void test_verified(void **state)
{
    struct infer_unit *f = *state;
    struct backend_unit u;
    backend_setup(&u, f);
    compile(&u, f, "8, 64");
    struct plan_tensor *a = &u.plan.tensors.data[tensor_named(&u, "a")];
    static const int32_t wrong[] = {-1, 4, 1 << 20};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(wrong); i++) {
        a->parts = wrong[i];
        assert_int_not_equal(plan_verify(&u.plan, "test", &f->diag), NPUC_OK);
    }
    a->parts = 8;
    u.plan.steps.data[1].copies = 4;
    assert_int_not_equal(plan_verify(&u.plan, "test", &f->diag), NPUC_OK);
    backend_teardown(&u);
}

/* Blocks that load together stay neighbours, and no other number stands for "apart". */
static void test_apart(void **state)
{
    struct infer_unit *f = *state;
    struct backend_unit u;
    backend_setup(&u, f);
    compile(&u, f, "s, 64");
    struct plan_step *s = &u.plan.steps.data[0];
    assert_int_equal(s->copies, PLAN_APART);
    assert_int_equal(plan_verify(&u.plan, "test", &f->diag), NPUC_OK);
    s->copies = PLAN_APART - 1;
    assert_int_not_equal(plan_verify(&u.plan, "test", &f->diag), NPUC_OK);
    s->copies = PLAN_APART;
    struct tile_kernel *k = u.plan.kernels.data[s->kernel];
    struct tile_section *c = &k->section[k->has[TCORE_CUBE] ? TCORE_CUBE : TCORE_VECTOR];
    assert_false(tile_shares_loads(k));
    c->code.data[0].op = TILE_LOADC;
    assert_true(tile_shares_loads(k));
    backend_teardown(&u);
}

int main(void)
{
    setenv("NPUC_TEST_TARGET", "mlu370-x4", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_division),
        cmocka_unit_test(test_instances),
        cmocka_unit_test(test_filters),
        cmocka_unit_test_setup_teardown(test_budget, infer_unit_setup, infer_unit_teardown),
        cmocka_unit_test_setup_teardown(test_apart, infer_unit_setup, infer_unit_teardown),
        cmocka_unit_test_setup_teardown(test_verified, infer_unit_setup, infer_unit_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
