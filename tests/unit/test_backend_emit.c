/* Emission: views are aliases, results that are not computed are copied, sizes and data-dependent sizes, lifetimes. */
#include "backend_unit.h"

static struct value *named(struct infer_unit *f, struct value *v, const char *name)
{
    v->name = str_internz(&f->cx.strings, name);
    return v;
}

static const struct plan_tensor *tensor_named(struct backend_unit *u, const char *name)
{
    const sym want = str_internz(&u->plan.strings, name);
    for (int64_t i = 0; i < u->plan.tensors.len; i++)
        if (u->plan.tensors.data[i].name == want)
            return &u->plan.tensors.data[i];
    fail_msg("no tensor '%s'", name);
    return NULL;
}

static void compile(struct backend_unit *u, struct infer_unit *f, int n, struct value *const *results)
{
    backend_yield(f, n, results);
    backend_compile(u);
    u->plan.weights_size = 1 << 20; /* the writer has placed them */
    if (plan_verify(&u->plan, "test", &f->diag) != NPUC_OK)
        fail_msg("%s", f->last);
    assert_int_equal(u->plan.entries.len, 1);
    assert_int_equal(u->plan.entries.data[0].n_outputs, n);
}

static void test_views(void **state)
{
    struct infer_unit *f = *state;
    struct backend_unit u;
    backend_setup(&u, f);
    struct value *x = named(f, in(f, DT_F32, "s, 64"), "x");
    struct value *a = named(f, ir_op1(&f->b, OP_Relu, x), "a");
    const expr dims[3] = {dim(f, "s"), dim(f, "4"), dim(f, "16")};
    struct value *v = named(f, ir_reshape(&f->b, a, 3, dims), "v");
    struct value *y = named(f, ir_op1(&f->b, OP_Abs, v), "y");
    compile(&u, f, 1, &y);
    assert_int_equal(tensor_named(&u, "v")->kind, PT_ALIAS);
    assert_int_equal(tensor_named(&u, "a")->kind, PT_TEMP);
    assert_int_equal(tensor_named(&u, "a")->first, 0);
    assert_int_equal(tensor_named(&u, "a")->last, 1);
    assert_int_equal(tensor_named(&u, "y")->kind, PT_OUTPUT);
    assert_int_equal(u.plan.steps.len, 2);
    backend_teardown(&u);
}

/* a result behind a view is computed in place: the node writes through an alias of the output */
static void test_result_is_view(void **state)
{
    struct infer_unit *f = *state;
    struct backend_unit u;
    backend_setup(&u, f);
    struct value *x = named(f, in(f, DT_F32, "s, 64"), "x");
    struct value *a = named(f, ir_op1(&f->b, OP_Relu, x), "a");
    struct value *y = named(f, ir_reshape(&f->b, a, 3, (const expr[3]){dim(f, "s"), dim(f, "4"), dim(f, "16")}), "y");
    compile(&u, f, 1, &y);
    assert_int_equal(tensor_named(&u, "y")->kind, PT_OUTPUT);
    assert_int_equal(tensor_named(&u, "a")->kind, PT_ALIAS);
    assert_int_equal(u.plan.steps.len, 1);
    backend_teardown(&u);
}

/* results that are an input, a constant, a second view, or the same value twice */
static void test_results_without_work(void **state)
{
    struct infer_unit *f = *state;
    struct backend_unit u;
    const float one[2] = {1, 2};
    const int64_t two = 2;
    backend_setup(&u, f);
    struct value *x = named(f, in(f, DT_F32, "s, 64"), "x");
    struct value *c = named(f, ir_const(&f->b, DT_F32, 1, &two, one, sizeof one), "c");
    struct value *a = named(f, ir_op1(&f->b, OP_Relu, x), "a");
    struct value *v = named(f, ir_reshape(&f->b, a, 1, (const expr[1]){dim(f, "64*s")}), "v");
    compile(&u, f, 4, (struct value *[]){x, c, a, v});
    int launches =
        0; /* Relu and three copies; for small s, copies of the input, of the constant or of both beside Relu */
    for (int64_t i = 0; i < u.plan.steps.len; i++)
        launches += u.plan.steps.data[i].kind == PS_LAUNCH;
    assert_int_equal(launches, 6);
    assert_int_equal(u.plan.steps.len, 6);
    const struct plan_entry *e = &u.plan.entries.data[0];
    for (int i = 0; i < 4; i++)
        assert_int_equal(u.plan.tensors.data[e->outputs[i]].kind, PT_OUTPUT);
    backend_teardown(&u);
}

static void test_sizes(void **state)
{
    struct infer_unit *f = *state;
    struct backend_unit u;
    backend_setup(&u, f);
    struct value *x = named(f, in(f, DT_F32, "s, 64"), "x");
    struct value *y = named(f, ir_op1(&f->b, OP_Shape, x), "y");
    compile(&u, f, 1, &y);
    const struct plan_step *s = &u.plan.steps.data[0];
    assert_int_equal(s->kind, PS_SIZES);
    assert_int_equal(s->n_params, 2);
    backend_bind(&u, "s", 7);
    assert_int_equal(backend_value(&u, s->params[0]), 7);
    assert_int_equal(backend_value(&u, s->params[1]), 64);
    backend_teardown(&u);
}

/* a number that kernels alone read is written by one, as often as it is read; the host writes what the host reads */
static void test_number(void **state)
{
    struct infer_unit *f = *state;
    struct backend_unit u;
    backend_setup(&u, f);
    struct value *x = named(f, in(f, DT_I64, "s"), "x");
    const expr both[2] = {dim(f, "2*s"), dim(f, "s")};
    struct value *n = ir_sizes(&f->b, both, 1, false), *two = ir_sizes(&f->b, both, 2, false);
    struct value *y = named(f, ir_op2(&f->b, OP_Add, ir_op2(&f->b, OP_Mul, x, n), n), "y");
    struct value *z = named(f, ir_op2(&f->b, OP_Add, n, two), "z");
    compile(&u, f, 2, (struct value *[]){y, z});
    const struct plan_step *s = u.plan.steps.data;
    int sizes = 0, numbers = 0;
    for (int64_t i = 0; i < u.plan.steps.len; i++) {
        sizes += s[i].kind == PS_SIZES;
        numbers += s[i].kind == PS_LAUNCH && strstr(str_text(&u.plan.strings, s[i].op), "SizeOf") != NULL;
    }
    assert_int_equal(sizes, 1); /* two */
    assert_true(numbers >= 1);
    assert_int_equal(s[0].kind, PS_LAUNCH);
    backend_teardown(&u);
}

/* the number of nonzero elements is bound by the host step that finds it */
static void test_data_dependent_size(void **state)
{
    struct infer_unit *f = *state;
    struct backend_unit u;
    backend_setup(&u, f);
    struct value *x = named(f, in(f, DT_F32, "s"), "x");
    struct value *y = named(f, ir_op1(&f->b, OP_NonZero, x), "y");
    compile(&u, f, 1, &y);
    const struct plan_step *s = &u.plan.steps.data[0];
    assert_int_equal(s->kind, PS_HOST);
    assert_int_equal(s->n_binds, 1);
    assert_int_equal(s->binds[0], 0);
    assert_int_equal(s->binds[1], 1);
    backend_teardown(&u);
}

static void test_weights_are_shared(void **state)
{
    struct infer_unit *f = *state;
    struct backend_unit u;
    float w[16 * 16] = {0};
    const int64_t d[2] = {16, 16};
    backend_setup(&u, f);
    struct value *x = named(f, in(f, DT_F32, "s, 16"), "x");
    struct value *c = named(f, ir_const(&f->b, DT_F32, 2, d, w, sizeof w), "w");
    struct value *y = ir_op2(&f->b, OP_MatMul, ir_op2(&f->b, OP_MatMul, x, c), c);
    named(f, y, "y");
    compile(&u, f, 1, &y);
    int weights = 0;
    for (int64_t i = 0; i < u.plan.tensors.len; i++)
        weights += u.plan.tensors.data[i].kind == PT_WEIGHT;
    assert_int_equal(weights, 1);
    backend_teardown(&u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_views, infer_unit_setup, infer_unit_teardown),
        cmocka_unit_test_setup_teardown(test_result_is_view, infer_unit_setup, infer_unit_teardown),
        cmocka_unit_test_setup_teardown(test_results_without_work, infer_unit_setup, infer_unit_teardown),
        cmocka_unit_test_setup_teardown(test_sizes, infer_unit_setup, infer_unit_teardown),
        cmocka_unit_test_setup_teardown(test_number, infer_unit_setup, infer_unit_teardown),
        cmocka_unit_test_setup_teardown(test_data_dependent_size, infer_unit_setup, infer_unit_teardown),
        cmocka_unit_test_setup_teardown(test_weights_are_shared, infer_unit_setup, infer_unit_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
