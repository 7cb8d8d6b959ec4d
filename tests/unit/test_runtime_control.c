/* Control flow over a hand-made plan, everything on the host:
 *
 *   state = x[0:0]; for turn in 0..n: t = -x if b else x; state = concat(state, t); rows.append(turn)
 *
 * so that a carried value grows, a branch stands in a loop, and results of all turns are stacked. In the second form
 * the loop goes on while b holds. */
#include "kernels/tensor.h"
#include "npuc/npurt.h"
#include "plan_unit.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { INPUT_N, INPUT_B, INPUT_X, STATE, TURN, NEG, NEXT, OUT, ROWS, EMPTY, N_TENSORS };

static char plan_path[64];

static void add_tensor(struct plan *p, const char *nm, int kind, enum dtype t, expr size)
{
    struct plan_tensor v = {.name = name(p, nm), .kind = (uint8_t)kind, .dtype = (uint8_t)t, .base = -1, .last = 8};
    v.rank = size ? 1 : 0;
    v.dims = arena_copy(&p->arena, &size, (int64_t)sizeof size);
    v.size = expr_mul_const(&p->exprs, size ? size : expr_const(&p->exprs, 1), dtype_size(t));
    vec_push(&p->arena, &p->tensors, v);
}

static struct plan_step *add_step(struct plan *p, int kind, const char *op, int n_in, int n_out, const int32_t *tensors)
{
    struct plan_step s = {.kind = (uint8_t)kind, .kernel = -1, .op = name(p, op), .source = -1, .n_in = n_in};
    s.n_out = n_out;
    s.tensors = arena_copy(&p->arena, tensors, (n_in + n_out) * (int64_t)sizeof *tensors);
    vec_push(&p->arena, &p->steps, s);
    return &p->steps.data[p->steps.len - 1];
}

static void add_binds(struct plan *p, struct plan_step *s, int n, const int32_t *triples)
{
    s->n_binds = n;
    s->binds = arena_copy(&p->arena, triples, n * 3 * (int64_t)sizeof *triples);
}

static void add_steps(struct plan *p, bool while_b, expr turn, const int32_t *symbols)
{
    const struct plan_attr axis = {.name = name(p, "axis")};
    struct plan_step *s = add_step(p, PS_COPY, "Loop", 1, 1, (int32_t[]){EMPTY, STATE});
    add_binds(p, s, 1, (int32_t[]){0, 0, symbols[0]});
    s = add_step(p, PS_LOOP, "Loop", 3, 2, (int32_t[]){while_b ? -1 : INPUT_N, -1, while_b ? INPUT_B : -1, TURN, -1});
    add_binds(p, s, 2, (int32_t[]){-1, -1, symbols[2], -1, -1, symbols[3]});
    s->n_body[0] = 6;
    s = add_step(p, PS_IF, "If", 1, 0, (int32_t[]){INPUT_B});
    s->n_body[0] = s->n_body[1] = 1;
    add_step(p, PS_HOST, "Neg", 1, 1, (int32_t[]){INPUT_X, NEG});
    add_step(p, PS_COPY, "If", 1, 1, (int32_t[]){INPUT_X, NEG});
    s = add_step(p, PS_HOST, "Concat", 2, 1, (int32_t[]){STATE, NEG, NEXT});
    s->n_attrs = 1;
    s->attrs = arena_copy(&p->arena, &axis, (int64_t)sizeof axis);
    s = add_step(p, PS_APPEND, "Loop", 1, 1, (int32_t[]){TURN, ROWS});
    add_binds(p, s, 1, (int32_t[]){0, 0, symbols[3]});
    s->n_params = 1;
    s->params = arena_copy(&p->arena, &turn, (int64_t)sizeof turn);
    s = add_step(p, PS_MOVE, "Loop", 1, 1, (int32_t[]){NEXT, STATE});
    add_binds(p, s, 1, (int32_t[]){0, 0, symbols[0]});
    s = add_step(p, PS_MOVE, "Loop", 1, 1, (int32_t[]){STATE, OUT});
    add_binds(p, s, 1, (int32_t[]){0, 0, symbols[1]});
}

static void build_plan(struct plan *p, bool while_b)
{
    static const char *const names[] = {"m", "carried", "y_size", "turn", "n_rows"};
    expr e[5];
    int32_t symbols[5];
    plan_init(p);
    add_target(p);
    for (int i = 0; i < 5; i++) {
        symbols[i] = expr_symbol_new(&p->exprs, name(p, names[i]), (struct expr_range){0, 1 << 20, 1});
        e[i] = expr_sym(&p->exprs, symbols[i]);
    }
    const expr m = e[0], state = e[1], next = expr_add(&p->exprs, state, m);
    add_tensor(p, "n", PT_INPUT, DT_I64, EXPR_INVALID);
    add_tensor(p, "b", PT_INPUT, DT_BOOL, EXPR_INVALID);
    add_tensor(p, "x", PT_INPUT, DT_F32, m);
    add_tensor(p, "state", PT_TEMP, DT_F32, state);
    add_tensor(p, "turn", PT_TEMP, DT_I64, EXPR_INVALID);
    add_tensor(p, "t", PT_TEMP, DT_F32, m);
    add_tensor(p, "next", PT_TEMP, DT_F32, next);
    add_tensor(p, "y", PT_OUTPUT, DT_F32, e[2]);
    add_tensor(p, "rows", PT_OUTPUT, DT_I64, e[4]);
    add_tensor(p, "empty", PT_TEMP, DT_F32, expr_const(&p->exprs, 0));
    add_steps(p, while_b, e[3], symbols + 1);
    const int32_t inputs[3] = {INPUT_N, INPUT_B, INPUT_X}, outputs[2] = {OUT, ROWS};
    const uint8_t optional[3] = {0};
    const struct plan_entry entry = {.name = name(p, "main"),
                                     .n_steps = (int32_t)p->steps.len,
                                     .n_inputs = 3,
                                     .n_outputs = 2,
                                     .inputs = arena_copy(&p->arena, inputs, sizeof inputs),
                                     .outputs = arena_copy(&p->arena, outputs, sizeof outputs),
                                     .input_optional = arena_copy(&p->arena, optional, sizeof optional)};
    vec_push(&p->arena, &p->entries, entry);
}

struct fixture {
    npurt_plan *plan;
    npurt_session *s;
};

static enum npuc_status no_weight(void *user, int32_t tensor, struct file_writer *w)
{
    (void)user;
    (void)tensor;
    (void)w;
    return NPUC_OK;
}

static struct fixture begin(bool while_b, int mode)
{
    struct plan p;
    struct diag d;
    struct fixture f;
    diag_init(&d, fail_line, NULL);
    snprintf(plan_path, sizeof plan_path, "test_control.%d.plan", (int)getpid());
    build_plan(&p, while_b);
    const struct plan_weight_source src = {no_weight, NULL};
    assert_int_equal(plan_write(&p, plan_path, &src, &d), NPUC_OK);
    plan_free(&p);
    if (npurt_plan_open(plan_path, &f.plan) != NPUC_OK)
        fail_msg("%s", npurt_plan_error(f.plan));
    const struct npurt_options o = {.mode = mode, .threads = 1};
    assert_int_equal(npurt_session_new(f.plan, &o, &f.s), NPUC_OK);
    return f;
}

static void finish(struct fixture f)
{
    npurt_session_free(f.s);
    npurt_plan_close(f.plan);
    unlink(plan_path);
}

static void set_inputs(npurt_session *s, const int64_t *n, const bool *b, const float *x, int64_t m)
{
    enum { ONNX_F32 = 1, ONNX_I64 = 7, ONNX_BOOL = 9 };
    assert_int_equal(npurt_set_input(s, "n", ONNX_I64, 0, NULL, n), NPUC_OK);
    assert_int_equal(npurt_set_input(s, "b", ONNX_BOOL, 0, NULL, b), NPUC_OK);
    assert_int_equal(npurt_set_input(s, "x", ONNX_F32, 1, &m, x), NPUC_OK);
}

static void run(npurt_session *s)
{
    if (npurt_run(s) != NPUC_OK)
        fail_msg("%s", npurt_session_error(s));
}

/* y is x or -x, `turns` times; rows count. */
static void check(npurt_session *s, int64_t turns, bool b, const float *x, int64_t m)
{
    struct npurt_tensor y, rows;
    assert_int_equal(npurt_output(s, "y", &y), NPUC_OK);
    assert_int_equal(npurt_output(s, "rows", &rows), NPUC_OK);
    assert_int_equal(y.dims[0], turns * m);
    assert_int_equal(rows.dims[0], turns);
    for (int64_t i = 0; i < turns; i++)
        assert_int_equal(((const int64_t *)rows.data)[i], i);
    for (int64_t i = 0; i < turns * m; i++)
        assert_true(((const float *)y.data)[i] == (b ? -x[i % m] : x[i % m]));
}

static void test_counts(void **state)
{
    static const int64_t turns[] = {3, 0, 1, -5, 1000, 2};
    static const float x[2] = {1.5f, -2.0f};
    (void)state;
    struct fixture f = begin(false, NPURT_BOTH);
    for (int i = 0; i < 6; i++) {
        const bool b = i % 2 == 0;
        set_inputs(f.s, &turns[i], &b, x, 2);
        run(f.s);
        check(f.s, turns[i] < 0 ? 0 : turns[i], b, x, 2);
    }
    finish(f);
}

static void test_condition(void **state)
{
    static const float x[1] = {4.0f};
    const int64_t unused = 7;
    const bool b = false;
    (void)state;
    struct fixture f = begin(true, NPURT_DATA);
    set_inputs(f.s, &unused, &b, x, 1);
    run(f.s);
    check(f.s, 1, b, x, 1);
    finish(f);
}

/* A step in a loop has one record, with its count and the sums. */
static void test_report(void **state)
{
    static const float x[2] = {1.0f, 2.0f};
    const int64_t n = 5;
    const bool b = true;
    (void)state;
    struct fixture f = begin(false, NPURT_BOTH);
    set_inputs(f.s, &n, &b, x, 2);
    run(f.s);
    const struct npurt_report *r = npurt_report(f.s);
    bool seen = false;
    for (int64_t i = 0; i < r->n_steps; i++) {
        if (strcmp(r->steps[i].op, "Neg") != 0)
            continue;
        seen = true;
        assert_int_equal(r->steps[i].count, 5);
        assert_true(r->steps[i].us > 0);
    }
    assert_true(seen);
    assert_true(r->us > 0);
    finish(f);
}

static void test_clock_without_data(void **state)
{
    (void)state;
    struct fixture f = begin(false, NPURT_CLOCK);
    set_inputs(f.s, NULL, NULL, NULL, 100);
    run(f.s);
    const struct npurt_report *r = npurt_report(f.s);
    bool loop = false;
    for (int64_t i = 0; i < r->n_steps; i++) {
        if (strcmp(r->steps[i].op, "Concat") == 0)
            assert_int_equal(r->steps[i].count, 16);
        loop = loop || (r->steps[i].reason && strstr(r->steps[i].reason, "16 turns are assumed"));
    }
    assert_true(loop);
    assert_true(r->us > 0);
    finish(f);
}

static void *cancel_soon(void *arg)
{
    const struct timespec wait = {.tv_nsec = 50000000};
    npurt_session *s = arg;
    nanosleep(&wait, NULL);
    npurt_cancel(s);
    return NULL;
}

static void test_cancel(void **state)
{
    const int64_t n = INT64_MAX, m = 0;
    const bool b = true;
    pthread_t thread;
    (void)state;
    struct fixture f = begin(false, NPURT_DATA);
    float none = 0;
    set_inputs(f.s, &n, &b, &none, m);
    assert_int_equal(pthread_create(&thread, NULL, cancel_soon, f.s), 0);
    const enum npuc_status st = npurt_run(f.s);
    pthread_join(thread, NULL);
    assert_true(st != NPUC_OK); /* cancelled, or more rows than the plan was compiled for */
    const int64_t two = 2;
    set_inputs(f.s, &two, &b, &none, m);
    run(f.s);
    check(f.s, 2, b, &none, m);
    finish(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts), cmocka_unit_test(test_condition),          cmocka_unit_test(test_report),
        cmocka_unit_test(test_cancel), cmocka_unit_test(test_clock_without_data),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
