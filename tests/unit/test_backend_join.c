/* Launches that run as one: how many are left for which sizes, what keeps them apart, and the same bits either way.
 * Each case is a graph as text. */
#include "graph_case.h"

struct join_case {
    struct graph_case graph;
    int launches;
};

static const struct join_case cases[] = {
    {{"siblings",
      HEAD "%x: f32[b,16], %v: f32[b,24]) -> (%y: f32[b,16], %z: f32[b,24]) {\n    %y = Relu %x : f32[b,16]\n"
           "    %z = Exp %v : f32[b,24]\n    Yield %y, %z" TAIL,
      1, 0, 0},
     1},
    {{"one_operand",
      HEAD "%x: f32[b,16]) -> (%y: f32[b,16], %z: f32[b,16], %w: f32[b,16]) {\n    %y = Relu %x : f32[b,16]\n"
           "    %z = Exp %x : f32[b,16]\n    %w = Abs %x : f32[b,16]\n    Yield %y, %z, %w" TAIL,
      1, 0, 0},
     1},
    /* each has more blocks than a share of the cores would be */
    {{"too_many_blocks",
      HEAD "%x: f32[s,160], %v: f32[s,160]) -> (%y: f32[s,160], %z: f32[s,160]) {\n    %y = Relu %x : f32[s,160]\n"
           "    %z = Exp %v : f32[s,160]\n    Yield %y, %z" TAIL,
      0, 900, 0},
     2},
    {{"no_rows",
      HEAD "%x: f32[s,16], %v: f32[s,16]) -> (%y: f32[s,16], %z: f32[s,16]) {\n    %y = Relu %x : f32[s,16]\n"
           "    %z = Exp %v : f32[s,16]\n    Yield %y, %z" TAIL,
      0, 0, 0},
     1},
    {{"known_sizes",
      HEAD "%x: f32[1,16], %v: f32[1,24]) -> (%y: f32[1,16], %z: f32[1,24]) {\n    %y = Relu %x : f32[1,16]\n"
           "    %z = Exp %v : f32[1,24]\n    Yield %y, %z" TAIL,
      1, 0, 0},
     1},
    /* one needs the other */
    {{"chain",
      HEAD "%x: f32[1,16]) -> (%y: f32[1,16]) {\n    %a = Relu %x : f32[1,16]\n    %y = Exp %a : f32[1,16]\n"
           "    Yield %y" TAIL,
      1, 0, 0},
     2},
    /* what stands between needs the first, but not the last, which goes ahead of it */
    {{"past_another",
      HEAD "%x: f32[1,16], %v: f32[1,24]) -> (%y: f32[1,16], %z: f32[1,24]) {\n    %a = Relu %x : f32[1,16]\n"
           "    %y = Exp %a : f32[1,16]\n    %z = Abs %v : f32[1,24]\n    Yield %y, %z" TAIL,
      1, 0, 0},
     2},
    /* two pairs, of which the second needs the first */
    {{"pairs",
      HEAD
      "%x: f32[b,16], %v: f32[b,24]) -> (%y: f32[b,16], %z: f32[b,24]) {\n    %a = Relu %x : f32[b,16]\n"
      "    %y = Exp %a : f32[b,16]\n    %c = Abs %v : f32[b,24]\n    %z = Neg %c : f32[b,24]\n    Yield %y, %z" TAIL,
      1, 0, 0},
     2},
    /* the sum needs both, so it stays behind; rows of reductions keep their lanes */
    {{"both_needed",
      HEAD "%x: f32[1,100], %v: f32[1,100]) -> (%y: f32[1,100]) {\n    %a = Softmax %x : f32[1,100]\n"
           "    %c = Softmax %v : f32[1,100]\n    %y = Add %a, %c : f32[1,100]\n    Yield %y" TAIL,
      1, 0, 0},
     2},
    /* moves and reads through places beside arithmetic */
    {{"kinds",
      HEAD "%x: f32[64,64], %i: i64[3], %v: f32[1,33]) -> (%y: f32[3,64], %z: f32[64,64], %w: f32[1,33]) {\n"
           "    %y = Gather %x, %i {axis=0} : f32[3,64]\n    %z = Transpose %x {perm=[1, 0]} : f32[64,64]\n"
           "    %w = Tanh %v : f32[1,33]\n    Yield %y, %z, %w" TAIL,
      1, 0, 0},
     0},
};

static void test_cases(void **state)
{
    (void)state;
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(cases); i++) {
        const int launches = run_case(&cases[i].graph, (struct tiling){0});
        if (cases[i].launches && launches != cases[i].launches)
            fail_msg("%s: %d launches, expected %d", cases[i].graph.name, launches, cases[i].launches);
    }
}

/* Compiles the text; the caller looks at the plan. */
static void compile(struct backend_unit *u, struct infer_unit *f, const char *text)
{
    if (ir_parse(&f->cx, text, (int64_t)strlen(text), &f->m) != NPUC_OK)
        fail_msg("%s", f->last);
    backend_setup(u, f);
    backend_compile(u);
    u->plan.weights_size = 1 << 20; /* the writer has placed them */
    if (plan_verify(&u->plan, "test", &f->diag) != NPUC_OK)
        fail_msg("%s", f->last);
}

/* Sizes that are known leave one launch and one kernel, named after what it holds, each operator once. */
static void test_names(void **state)
{
    struct infer_unit *f = *state;
    struct module *own = f->m;
    struct backend_unit u;
    compile(&u, f, cases[4].graph.text);
    assert_int_equal(u.plan.steps.len, 1);
    assert_int_equal(u.plan.kernels.len, 1);
    const struct plan_step *s = &u.plan.steps.data[0];
    assert_string_equal(str_text(&u.plan.strings, s->op), "Relu+Exp");
    assert_string_equal(str_text(&u.plan.strings, u.plan.kernels.data[0]->name), "vector");
    assert_int_equal(s->guard, EXPR_INVALID);
    assert_int_equal(s->n_in, 4);
    backend_teardown(&u);
    ir_module_free(f->m);
    f->m = own;
}

/* Sizes that are open: the joint launch and the separate ones, of which one form runs. */
static void test_guards(void **state)
{
    struct infer_unit *f = *state;
    struct module *own = f->m;
    struct backend_unit u;
    compile(&u, f, cases[2].graph.text);
    assert_int_equal(u.plan.steps.len, 3);
    for (int64_t s = 0; s < 200; s += 7) {
        backend_bind(&u, "s", s);
        const bool joint = backend_value(&u, u.plan.steps.data[0].guard) != 0;
        assert_int_equal(backend_value(&u, u.plan.steps.data[1].guard), !joint);
        assert_int_equal(backend_value(&u, u.plan.steps.data[2].guard), !joint);
        assert_true(joint || s > 0);
    }
    backend_teardown(&u);
    ir_module_free(f->m);
    f->m = own;
}

/* Three of which two fit: the largest number of the first ones that does is one launch. */
static void test_fewer(void **state)
{
    static const char text[] =
        HEAD "%x: f32[s,16], %v: f32[s,16], %u: f32[s,16]) -> (%y: f32[s,16], %z: f32[s,16], %w: f32[s,16]) {\n"
             "    %y = Relu %x : f32[s,16]\n    %z = Exp %v : f32[s,16]\n    %w = Abs %u : f32[s,16]\n"
             "    Yield %y, %z, %w" TAIL;
    struct infer_unit *f = *state;
    struct module *own = f->m;
    struct backend_unit u;
    bool seen[4] = {false};
    compile(&u, f, text);
    assert_int_equal(u.plan.steps.len, 5); /* all three; two of them; each alone */
    for (int64_t s = 0; s < 200; s++) {
        bool runs[5];
        backend_bind(&u, "s", s);
        for (int i = 0; i < 5; i++)
            runs[i] = u.plan.steps.data[i].guard == EXPR_INVALID || backend_value(&u, u.plan.steps.data[i].guard) != 0;
        assert_int_equal(runs[0] + runs[1] + runs[2], 1);
        assert_int_equal(runs[3], runs[2]);
        assert_int_equal(runs[4], !runs[0]);
        seen[runs[0] ? 1 : runs[1] ? 2 : 3] = true;
    }
    assert_true(seen[1]);
    backend_teardown(&u);
    ir_module_free(f->m);
    f->m = own;
}

/* A temporary lives over the joint launch. */
static void test_lives(void **state)
{
    struct infer_unit *f = *state;
    struct module *own = f->m;
    struct backend_unit u;
    compile(&u, f, cases[8].graph.text);
    assert_int_equal(u.plan.steps.len, 2);
    for (int64_t i = 0; i < u.plan.tensors.len; i++) {
        const struct plan_tensor *t = &u.plan.tensors.data[i];
        if (t->kind != PT_TEMP)
            continue;
        assert_int_equal(t->first, 0);
        assert_int_equal(t->last, 1);
    }
    backend_teardown(&u);
    ir_module_free(f->m);
    f->m = own;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test_setup_teardown(test_names, infer_unit_setup, infer_unit_teardown),
        cmocka_unit_test_setup_teardown(test_guards, infer_unit_setup, infer_unit_teardown),
        cmocka_unit_test_setup_teardown(test_fewer, infer_unit_setup, infer_unit_teardown),
        cmocka_unit_test_setup_teardown(test_lives, infer_unit_setup, infer_unit_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
