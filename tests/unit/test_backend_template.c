/* The template family works: a product in parts runs on its cores, what it has no kernel for goes to the host with the
 * reason. All other tests of generators run on it, too (CMakeLists.txt). */
#include "backend_unit.h"

static void setup(struct backend_unit *u, struct infer_unit *f)
{
    setenv("NPUC_TEST_TARGET", "template", 1);
    backend_setup(u, f);
}

static struct value *named(struct infer_unit *f, struct value *v, const char *name)
{
    v->name = str_internz(&f->cx.strings, name);
    return v;
}

/* Small integers: sums are exact in any order. 150 x 300 by 300 x 70: several tiles and blocks of K, all cut. */
static void test_product(void **state)
{
    struct infer_unit *f = *state;
    struct backend_unit u;
    struct value *x = named(f, in(f, DT_F32, "s, 300"), "x"), *y = named(f, in(f, DT_F32, "300, 70"), "y");
    setup(&u, f);
    struct value *z = named(f, ir_op2(&f->b, OP_MatMul, x, y), "z");
    backend_yield(f, 1, &z);
    backend_compile(&u);
    backend_bind(&u, "s", 150);
    backend_allocate(&u);
    float *px = (float *)(void *)backend_bytes(&u, "x"), *py = (float *)(void *)backend_bytes(&u, "y");
    const float *pz = (const float *)(void *)backend_bytes(&u, "z");
    for (int i = 0; i < 150 * 300; i++)
        px[i] = (float)(i % 7 - 3);
    for (int i = 0; i < 300 * 70; i++)
        py[i] = (float)(i % 5 - 2);
    backend_run(&u);
    for (int i = 0; i < 150; i++)
        for (int j = 0; j < 70; j++) {
            float sum = 0;
            for (int k = 0; k < 300; k++)
                sum += px[i * 300 + k] * py[k * 70 + j];
            assert_true(pz[i * 70 + j] == sum);
        }
    backend_teardown(&u);
}

static void test_host(void **state)
{
    struct infer_unit *f = *state;
    struct backend_unit u;
    struct target_info info;
    const char *reason = NULL;
    setup(&u, f);
    struct value *x = in(f, DT_F32, "8, 4"), *y = in(f, DT_F32, "8, 5");
    struct node *n = ir_new(&f->b, OP_Gemm, 2, (struct value *[]){x, y}, 1);
    ir_set_int(n, "transA", 1);
    assert_int_equal(ir_infer(n), NPUC_OK);
    struct value *z = named(f, &n->out[0], "z");
    backend_yield(f, 1, &z);
    backend_target_info(&u.machine, &info);
    assert_false(info.supports(&info, &f->cx, z->def, &reason));
    assert_string_equal(reason, "the left operand has to be stored by rows");
    backend_compile(&u);
    assert_int_equal(u.plan.steps.len, 1);
    assert_int_equal(u.plan.steps.data[0].kind, PS_HOST);
    assert_string_equal(str_text(&u.plan.strings, u.plan.steps.data[0].reason), reason);
    assert_int_equal(plan_verify(&u.plan, "test", &f->diag), NPUC_OK);
    backend_teardown(&u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_product, infer_unit_setup, infer_unit_teardown),
        cmocka_unit_test_setup_teardown(test_host, infer_unit_setup, infer_unit_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
