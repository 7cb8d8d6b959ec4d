/* The smallest family works: its target is read, Add runs on its cores, the rest goes to the host with the reason. */
#include "backend_unit.h"

static const char target_text[] = "inherit = ascend-910b1.target\nname = Template\nfamily = template\n";

static void setup(struct backend_unit *u, struct infer_unit *f)
{
    memset(u, 0, sizeof *u);
    u->f = f;
    assert_int_equal(target_read(&u->target, "template-1", target_text, &f->diag), NPUC_OK);
    assert_int_equal(machine_init(&u->machine, &u->target, &f->diag), NPUC_OK);
    u->cores = emu_machine_new(&u->target);
    plan_init(&u->plan);
    u->plan.arena.on_oom = f->m->arena.on_oom = unit_oom;
}

static void test_add(void **state)
{
    struct infer_unit *f = *state;
    struct backend_unit u;
    struct value *x = in(f, DT_F32, "s, 70"), *y = in(f, DT_F32, "s, 70");
    setup(&u, f);
    x->name = str_internz(&f->cx.strings, "x");
    y->name = str_internz(&f->cx.strings, "y");
    struct value *z = ir_op2(&f->b, OP_Add, x, y);
    z->name = str_internz(&f->cx.strings, "z");
    backend_yield(f, 1, &z);
    backend_compile(&u);
    backend_bind(&u, "s", 150);
    backend_allocate(&u);
    float *px = (float *)(void *)backend_bytes(&u, "x"), *py = (float *)(void *)backend_bytes(&u, "y");
    const float *pz = (const float *)(void *)backend_bytes(&u, "z");
    for (int i = 0; i < 150 * 70; i++) {
        px[i] = (float)i;
        py[i] = 0.5f * (float)i;
    }
    backend_run(&u);
    for (int i = 0; i < 150 * 70; i++)
        assert_true(pz[i] == 1.5f * (float)i);
    backend_teardown(&u);
}

static void test_host(void **state)
{
    struct infer_unit *f = *state;
    struct backend_unit u;
    struct target_info info;
    const char *reason = NULL;
    setup(&u, f);
    struct value *x = in(f, DT_F32, "4"), *y = in(f, DT_F32, "1");
    struct value *z = ir_op2(&f->b, OP_Add, x, y);
    z->name = str_internz(&f->cx.strings, "z");
    backend_yield(f, 1, &z);
    backend_target_info(&u.machine, &info);
    assert_false(info.supports(&info, &f->cx, z->def, &reason));
    assert_string_equal(reason, "only two dense f32 tensors of equal shape");
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
        cmocka_unit_test_setup_teardown(test_add, infer_unit_setup, infer_unit_teardown),
        cmocka_unit_test_setup_teardown(test_host, infer_unit_setup, infer_unit_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
