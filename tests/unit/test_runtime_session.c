/* Sessions over a hand-made plan: y = x + w, x appended to a cache of 32 rows, positions of non-zero elements on the
 * host. */
#include "base/size.h"
#include "kernels/vec.h"
#include "npuc/npurt.h"
#include "plan_unit.h"
#include "runtime/emu/emu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* The clock is tested elsewhere: here every launch takes 1,000 cycles and 200 to start, so that sums can be checked. */
static int n_timed;
enum npuc_status emu_run_clock(struct emu_launch *l, struct emu_timing *out)
{
    n_timed++;
    *out = (struct emu_timing){.cycles = 1000, .launch_cyc = 200, .gm_read = l->tensors[0].size, .bound_by = "launch"};
    return NPUC_OK;
}

static const float weight[8] = {1, 2, 3, 4, 5, 6, 7, 8};
static char plan_path[64], cache_path[64];

static struct tile_kernel *append_kernel(struct plan *p)
{
    struct tile_kernel *k = tile_kernel_new(&p->arena, &p->strings, "add_append");
    struct tile_builder b = {.k = k, .arena = &p->arena};
    struct expr_pool *x = &k->exprs;
    const expr seq = tile_param(k, "seq", (struct expr_range){1, 16, 1}),
               past = tile_param(k, "past", (struct expr_range){0, 31, 1});
    tile_params_done(k);
    const expr zero = expr_const(x, 0), one = expr_const(x, 1), c8 = expr_const(x, 8);
    k->blocks = one;
    const int32_t tx = tile_tensor(k, &p->arena, "x", DT_F32, true, false),
                  tw = tile_tensor(k, &p->arena, "w", DT_F32, true, false);
    const int32_t ty = tile_tensor(k, &p->arena, "y", DT_F32, false, true),
                  tc = tile_tensor(k, &p->arena, "cache", DT_F32, false, true);
    tile_section_begin(&b, TCORE_VECTOR);
    const int32_t bx = tile_buf(&b, "x", TS_UB, DT_F32, 1, 512), bw = tile_buf(&b, "w", TS_UB, DT_F32, 1, 32),
                  by = tile_buf(&b, "y", TS_UB, DT_F32, 1, 512);
    b.at->bufs.data[bx].base = 0;
    b.at->bufs.data[bw].base = 512;
    b.at->bufs.data[by].base = 544;
    TILE(&b, LOAD, bx, zero, tx, zero, DT_F32, one, one, seq, c8, zero, zero, c8, one, zero, zero, c8, one);
    TILE(&b, LOAD, bw, zero, tw, zero, DT_F32, one, one, one, c8, zero, zero, zero, one, zero, zero, zero, one);
    TILE(&b, SET, TU_MTE2, TU_V, 0, -1);
    TILE(&b, WAIT, TU_MTE2, TU_V, 0, -1);
    TILE(&b, VEC, K_FN_Add, DT_F32, seq, c8, by, zero, c8, bx, zero, c8, 1, bw, zero, zero, 1, -1, 0, zero, 0, 0, 0, 0);
    TILE(&b, SET, TU_V, TU_MTE3, 0, -1);
    TILE(&b, WAIT, TU_V, TU_MTE3, 0, -1);
    TILE(&b, SET, TU_MTE2, TU_MTE3, 0, -1);
    TILE(&b, WAIT, TU_MTE2, TU_MTE3, 0, -1);
    TILE(&b, STORE, ty, zero, by, zero, DT_F32, one, one, seq, c8, zero, zero, c8, one, zero, zero, c8, one);
    TILE(&b, STORE, tc, expr_mul_const(x, past, 8), bx, zero, DT_F32, one, one, seq, c8, zero, zero, c8, one, zero,
         zero, c8, one);
    return k;
}

static int32_t add_tensor(struct plan *p, const char *nm, int kind, enum dtype t, expr rows, expr cols)
{
    struct expr_pool *x = &p->exprs;
    const expr dims[2] = {rows, cols};
    const struct plan_tensor v = {.name = name(p, nm),
                                  .kind = (uint8_t)kind,
                                  .dtype = (uint8_t)t,
                                  .rank = 2,
                                  .dims = arena_copy(&p->arena, dims, (int64_t)sizeof dims),
                                  .size = expr_mul_const(x, expr_mul(x, rows, cols), dtype_size(t)),
                                  .base = -1,
                                  .last = 2};
    vec_push(&p->arena, &p->tensors, v);
    return (int32_t)p->tensors.len - 1;
}

static int32_t add_view(struct plan *p, const char *nm, int32_t base, expr rows, expr capacity)
{
    const expr c8 = expr_const(&p->exprs, 8);
    const int32_t v = add_tensor(p, nm, PT_ALIAS, DT_F32, rows, c8);
    struct plan_tensor *t = &p->tensors.data[v];
    t->base = base;
    t->base_offset = expr_const(&p->exprs, 0);
    t->layout = PL_CACHE;
    t->capacity = capacity;
    t->size = p->tensors.data[base].size;
    return v;
}

static void add_steps(struct plan *p, const int32_t t[8], const expr dims[3])
{
    const int32_t launch[4] = {t[0], t[1], t[2], t[5]}, host[2] = {t[2], t[6]}, binds[3] = {0, 1, 2};
    const expr params[2] = {dims[0], dims[1]}, sizes[2] = {dims[0], dims[2]};
    const struct plan_step steps[] = {
        {.kind = PS_LAUNCH,
         .op = name(p, "Add"),
         .n_in = 4,
         .tensors = arena_copy(&p->arena, launch, sizeof launch),
         .n_params = 2,
         .params = arena_copy(&p->arena, params, sizeof params),
         .source = -1},
        {.kind = PS_HOST,
         .op = name(p, "NonZero"),
         .n_in = 1,
         .n_out = 1,
         .tensors = arena_copy(&p->arena, host, sizeof host),
         .n_binds = 1,
         .binds = arena_copy(&p->arena, binds, sizeof binds),
         .source = -1,
         .reason = name(p, "size depends on data")},
        {.kind = PS_SIZES,
         .op = name(p, "Shape"),
         .n_out = 1,
         .tensors = arena_copy(&p->arena, &t[7], sizeof t[7]),
         .n_params = 2,
         .params = arena_copy(&p->arena, sizes, sizeof sizes),
         .source = -1},
    };
    for (int i = 0; i < 3; i++)
        vec_push(&p->arena, &p->steps, steps[i]);
}

static void build_plan(struct plan *p)
{
    plan_init(p);
    add_target(p);
    struct expr_pool *x = &p->exprs;
    const expr seq = expr_sym(x, expr_symbol_new(x, name(p, "seq"), (struct expr_range){1, 16, 1}));
    const expr past = expr_sym(x, expr_symbol_new(x, name(p, "past"), (struct expr_range){0, 31, 1}));
    const expr nnz = expr_sym(x, expr_symbol_new(x, name(p, "nnz"), (struct expr_range){0, 128, 1}));
    const expr c8 = expr_const(x, 8), one = expr_const(x, 1), two = expr_const(x, 2), cap = expr_const(x, 32),
               total = expr_add(x, past, seq);
    int32_t t[8];
    t[0] = add_tensor(p, "x", PT_INPUT, DT_F32, seq, c8);
    t[1] = add_tensor(p, "w", PT_WEIGHT, DT_F32, one, c8);
    p->tensors.data[t[1]].data_size = p->weights_size = 32;
    t[2] = add_tensor(p, "y", PT_OUTPUT, DT_F32, seq, c8);
    t[3] = add_tensor(p, "cache:k", PT_CACHE, DT_F32, cap, c8);
    t[4] = add_view(p, "k", t[3], past, cap);
    t[5] = add_view(p, "k.present", t[3], total, cap);
    t[6] = add_tensor(p, "positions", PT_OUTPUT, DT_I64, two, nnz);
    t[7] = add_tensor(p, "sizes", PT_OUTPUT, DT_I64, one, two);
    p->tensors.data[t[7]].rank = 1;
    p->tensors.data[t[7]].dims++;
    struct tile_kernel *k = append_kernel(p);
    vec_push(&p->arena, &p->kernels, k);
    add_steps(p, t, (expr[]){seq, past, total});
    const int32_t inputs[2] = {t[0], t[4]}, outputs[4] = {t[2], t[5], t[6], t[7]};
    const uint8_t optional[2] = {0, 0};
    const struct plan_cache c = {.tensor = t[3],
                                 .input = name(p, "k"),
                                 .output = name(p, "k.present"),
                                 .in_tensor = t[4],
                                 .out_tensor = t[5],
                                 .past = past,
                                 .present = total,
                                 .grows = true,
                                 .turn = -1,
                                 .back = -1};
    const struct plan_entry e = {.name = name(p, "main"),
                                 .n_steps = 3,
                                 .n_inputs = 2,
                                 .n_outputs = 4,
                                 .inputs = arena_copy(&p->arena, inputs, sizeof inputs),
                                 .outputs = arena_copy(&p->arena, outputs, sizeof outputs),
                                 .input_optional = arena_copy(&p->arena, optional, sizeof optional),
                                 .n_caches = 1,
                                 .caches = arena_copy(&p->arena, &c, sizeof c)};
    vec_push(&p->arena, &p->entries, e);
}

static enum npuc_status put_weight(void *user, int32_t tensor, struct file_writer *w)
{
    (void)user;
    (void)tensor;
    file_writer_put(w, weight, (int64_t)sizeof weight);
    return NPUC_OK;
}

static int make_plan(void **state)
{
    (void)state;
    struct plan p;
    struct diag d;
    diag_init(&d, fail_line, NULL);
    snprintf(plan_path, sizeof plan_path, "test_runtime.%d.plan", (int)getpid());
    snprintf(cache_path, sizeof cache_path, "test_runtime.%d.kv", (int)getpid());
    build_plan(&p);
    const struct plan_weight_source src = {put_weight, NULL};
    const enum npuc_status s = plan_write(&p, plan_path, &src, &d);
    plan_free(&p);
    return s == NPUC_OK ? 0 : -1;
}

static int remove_plan(void **state)
{
    (void)state;
    unlink(plan_path);
    unlink(cache_path);
    return 0;
}

struct bench {
    npurt_plan *plan;
    npurt_session *s;
    float x[16 * 8];
};

static void begin(struct bench *b, const struct npurt_options *o)
{
    if (npurt_plan_open(plan_path, &b->plan) != NPUC_OK)
        print_error("%s\n", npurt_plan_error(b->plan));
    assert_string_equal(npurt_plan_error(b->plan), "");
    assert_int_equal(npurt_session_new(b->plan, o, &b->s), NPUC_OK);
    for (int i = 0; i < 16 * 8; i++)
        b->x[i] = (float)(i % 5);
}

static void end(struct bench *b)
{
    npurt_session_free(b->s);
    npurt_plan_close(b->plan);
}

static enum npuc_status run(struct bench *b, int64_t seq)
{
    assert_int_equal(npurt_set_input(b->s, "x", NPURT_F32, 2, (int64_t[]){seq, 8}, b->x), NPUC_OK);
    return npurt_run(b->s);
}

static void must_run(struct bench *b, int64_t seq)
{
    const enum npuc_status s = run(b, seq);
    if (s != NPUC_OK)
        print_error("%s\n", npurt_session_error(b->s));
    assert_int_equal(s, NPUC_OK);
}

static void check_run(struct bench *b, int64_t seq, int64_t past)
{
    struct npurt_tensor t;
    assert_string_equal(npurt_session_error(b->s), "");
    assert_int_equal(npurt_output(b->s, "y", &t), NPUC_OK);
    assert_int_equal(t.dims[0], seq);
    for (int64_t i = 0; i < seq * 8; i++)
        assert_true(((const float *)t.data)[i] == b->x[i] + weight[i % 8]);
    assert_int_equal(npurt_output(b->s, "sizes", &t), NPUC_OK);
    assert_int_equal(((const int64_t *)t.data)[0], seq);
    assert_int_equal(((const int64_t *)t.data)[1], seq + past);
    assert_int_equal(npurt_output(b->s, "positions", &t), NPUC_OK);
    assert_int_equal(t.dims[1], seq * 8); /* y has no zeros */
    assert_int_equal(((const int64_t *)t.data)[2 * seq * 8 - 1], 7);
    assert_int_equal(npurt_output(b->s, "k.present", &t), NPUC_OK);
    assert_int_equal(t.dims[0], past + seq);
    assert_memory_equal((const float *)t.data + past * 8, b->x, (size_t)seq * 32);
    assert_int_equal(npurt_cache_length(b->s), past + seq);
}

static void test_description(void **state)
{
    (void)state;
    struct bench b;
    begin(&b, NULL);
    assert_int_equal(npurt_plan_inputs(b.plan), 2);
    const struct npurt_value *v = npurt_plan_input(b.plan, 0), *k = npurt_plan_input(b.plan, 1),
                             *out = npurt_plan_output(b.plan, 1);
    assert_string_equal(v->name, "x");
    assert_string_equal(v->dims[0].text, "seq");
    assert_int_equal(v->dims[0].max, 16);
    assert_true(k->cache && !v->cache && out->cache);
    assert_string_equal(out->dims[0].text, "past + seq");
    end(&b);
}

static void test_cache_over_runs(void **state)
{
    (void)state;
    for (int threads = 1; threads < 3; threads++) {
        const struct npurt_options o = {.threads = threads, .check_hazards = threads == 1};
        struct bench b;
        begin(&b, &o);
        must_run(&b, 5);
        check_run(&b, 5, 0);
        for (int64_t past = 5; past < 12; past++) {
            b.x[3] = (float)past;
            must_run(&b, 1);
            check_run(&b, 1, past);
        }
        assert_int_equal(npurt_cache_truncate(b.s, 6), NPUC_OK);
        assert_int_equal(npurt_cache_save(b.s, cache_path), NPUC_OK);
        must_run(&b, 2);
        check_run(&b, 2, 6);
        end(&b);
        begin(&b, &o);
        assert_int_equal(npurt_cache_restore(b.s, cache_path), NPUC_OK);
        must_run(&b, 3);
        check_run(&b, 3, 6);
        struct npurt_tensor t;
        assert_int_equal(npurt_output(b.s, "k.present", &t), NPUC_OK);
        assert_true(((const float *)t.data)[5 * 8 + 3] == 5); /* saved by the other session */
        end(&b);
    }
}

static void test_given_past(void **state)
{
    (void)state;
    struct bench b;
    struct npurt_tensor t;
    float past[3 * 8];
    for (int i = 0; i < 24; i++)
        past[i] = (float)(100 + i);
    begin(&b, NULL);
    assert_int_equal(npurt_set_input(b.s, "k", NPURT_F32, 2, (int64_t[]){3, 8}, past), NPUC_OK);
    must_run(&b, 2);
    check_run(&b, 2, 3);
    assert_int_equal(npurt_output(b.s, "k.present", &t), NPUC_OK);
    assert_memory_equal(t.data, past, sizeof past);
    end(&b);
}

static void expect(struct bench *b, enum npuc_status got, enum npuc_status want, const char *text)
{
    if (got != want || !strstr(npurt_session_error(b->s), text))
        print_error("%s\n", npurt_session_error(b->s));
    assert_int_equal(got, want);
    assert_non_null(strstr(npurt_session_error(b->s), text));
}

static void test_refusals(void **state)
{
    (void)state;
    struct bench b;
    struct npurt_tensor t;
    begin(&b, NULL);
    expect(&b, npurt_run(b.s), NPUC_E_INVALID, "dimension seq (1..16) is not known");
    expect(&b, npurt_set_input(b.s, "q", NPURT_F32, 2, (int64_t[]){1, 8}, b.x), NPUC_E_INVALID,
           "no input 'q'; the plan's inputs are x, k");
    expect(&b, npurt_set_input(b.s, "x", NPURT_I64, 2, (int64_t[]){1, 8}, b.x), NPUC_E_INVALID,
           "input 'x' is i64, expected f32");
    expect(&b, npurt_set_input(b.s, "x", NPURT_F32, 1, (int64_t[]){8}, b.x), NPUC_E_INVALID,
           "has 1 dimensions, expected 2");
    expect(&b, run(&b, 17), NPUC_E_INVALID,
           "input 'x' (axis 0, seq) makes seq = 17, but the plan was compiled for 1..16");
    assert_int_equal(npurt_set_input(b.s, "x", NPURT_F32, 2, (int64_t[]){2, 9}, b.x), NPUC_OK);
    expect(&b, npurt_run(b.s), NPUC_E_INVALID, "input 'x': axis 1 is 9, expected 8");
    expect(&b, npurt_output(b.s, "y", &t), NPUC_E_USAGE, "no finished run");
    must_run(&b, 16);
    must_run(&b, 15);
    expect(&b, run(&b, 2), NPUC_E_LIMIT, "holds 32 rows and 33 are needed");
    expect(&b, npurt_cache_truncate(b.s, 40), NPUC_E_USAGE, "cannot truncate");
    end(&b);
    npurt_plan *p;
    assert_int_not_equal(npurt_plan_open("no-such.plan", &p), NPUC_OK);
    assert_non_null(strstr(npurt_plan_error(p), "no-such.plan"));
    npurt_plan_close(p);
}

/* Two sequences that begin alike; caches of another plan, and damaged ones, leave the session as it was. */
static void test_cache_handed_on(void **state)
{
    (void)state;
    struct bench a, b;
    begin(&a, NULL);
    begin(&b, NULL);
    must_run(&a, 5);
    expect(&b, npurt_cache_fork(b.s, a.s, 6), NPUC_E_USAGE, "cannot take over 6 rows of a cache of 5");
    assert_int_equal(npurt_cache_fork(b.s, a.s, 4), NPUC_OK);
    must_run(&b, 3);
    check_run(&b, 3, 4);
    assert_int_equal(npurt_cache_save(a.s, cache_path), NPUC_OK);
    FILE *f = fopen(cache_path, "r+b");
    assert_non_null(f);
    uint8_t head[24]; /* the plan's checksum from byte 16 on */
    assert_int_equal(fread(head, 1, sizeof head, f), sizeof head);
    head[16] ^= 1;
    rewind(f);
    assert_int_equal(fwrite(head, 1, sizeof head, f), sizeof head);
    fclose(f);
    expect(&b, npurt_cache_restore(b.s, cache_path), NPUC_E_INVALID, "another plan");
    assert_int_equal(npurt_cache_length(b.s), 7);
    must_run(&b, 2);
    check_run(&b, 2, 7);
    end(&a);
    end(&b);
}

static int stop_at_once(void *user, int64_t step, int64_t n)
{
    (void)user;
    return step == 1 && n == 3;
}

static void test_cancel(void **state)
{
    (void)state;
    const struct npurt_options o = {.progress = stop_at_once};
    struct bench b;
    begin(&b, &o);
    expect(&b, run(&b, 1), NPUC_E_CANCELLED, "cancelled");
    assert_int_equal(npurt_cache_length(b.s), 0);
    end(&b);
}

static void test_clock_without_data(void **state)
{
    (void)state;
    const struct npurt_options o = {.mode = NPURT_CLOCK};
    struct bench b;
    begin(&b, &o);
    n_timed = 0;
    assert_int_equal(npurt_set_symbol(b.s, "seq", 4), NPUC_OK);
    assert_int_equal(npurt_set_symbol(b.s, "past", 8), NPUC_OK);
    for (int i = 0; i < 3; i++)
        assert_int_equal(npurt_run(b.s), NPUC_OK);
    const struct npurt_report *r = npurt_report(b.s);
    assert_int_equal(r->n_steps, 3);
    assert_int_equal(r->n_host, 2);
    assert_true(r->steps[0].cycles == 1200);
    assert_true(r->us > r->npu_us && r->npu_us > 0);
    assert_int_equal(n_timed, 2); /* cold, then warm; the third is known */
    assert_string_equal(r->steps[1].reason, "size depends on data");
    struct npurt_tensor t;
    assert_int_equal(npurt_output(b.s, "y", &t), NPUC_OK);
    assert_null(t.data);
    assert_int_equal(t.dims[0], 4);
    end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_description),        cmocka_unit_test(test_cache_over_runs),
        cmocka_unit_test(test_cache_handed_on),    cmocka_unit_test(test_given_past),
        cmocka_unit_test(test_refusals),           cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_clock_without_data),
    };
    return cmocka_run_group_tests(tests, make_plan, remove_plan);
}
