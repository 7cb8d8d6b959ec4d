/* The verifier: a good plan passes, each planted error of meaning is refused with its message; disassembly; accesses.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "plan_sample.h"

static char message[2048];

static void keep(void *user, const char *line)
{
    (void)user;
    snprintf(message, sizeof message, "%s", line);
}

static struct diag sink(void)
{
    struct diag d;
    message[0] = 0;
    diag_init(&d, keep, NULL);
    return d;
}

static struct tile_insn *insn(struct plan *p, enum tile_core core, enum tile_op op)
{
    struct tile_section *s = &p->kernels.data[0]->section[core];
    for (int64_t i = 0; i < s->code.len; i++)
        if (s->code.data[i].op == op)
            return &s->code.data[i];
    fail_msg("no such instruction");
    return NULL;
}
#define CUBE(p, op)     insn((p), TCORE_CUBE, TILE_##op)
#define VECTOR(p, op)   insn((p), TCORE_VECTOR, TILE_##op)
#define STEP(p, i)      ((p)->steps.data[i])
#define TENSOR(p, i)    ((p)->tensors.data[i])
#define BUF(p, core, i) ((p)->kernels.data[0]->section[core].bufs.data[i])

static struct plan_entry *entry(struct plan *p)
{
    return &p->entries.data[0];
}
static int32_t wrong_list[] = {0, 1, 99};

static void swap_constant(struct plan *p, const char *key, const char *value)
{
    for (int64_t i = 0; i < p->target.len; i++)
        if (strcmp(str_text(&p->strings, p->target.data[i].key), key) == 0)
            p->target.data[i].value = str_internz(&p->strings, value);
}

static void use_loop_variable_outside(struct plan *p)
{
    const int32_t i = CUBE(p, LOOP)->arg[0];
    VECTOR(p, LOAD)->arg[1] = expr_sym(&p->kernels.data[0]->exprs, i);
}

/* Each case plants one error. */
#define CASE(name, plant, text)                                                                                        \
    static void plant_##name(struct plan *p)                                                                           \
    {                                                                                                                  \
        plant;                                                                                                         \
    }
#include "plan_errors.inc"
#undef CASE
static const struct {
    const char *name;
    void (*plant)(struct plan *p);
    const char *text;
} cases[] = {
#define CASE(name, plant, text) {#name, plant_##name, text},
#include "plan_errors.inc"
#undef CASE
};

static void test_good(void **state)
{
    (void)state;
    struct diag d = sink();
    struct plan p;
    sample_plan(&p, &d);
    if (plan_verify(&p, "good.plan", &d))
        fail_msg("%s", message);
    plan_free(&p);
}

static void test_errors(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct diag d = sink();
        struct plan p;
        sample_plan(&p, &d);
        cases[i].plant(&p);
        const enum npuc_status s = plan_verify(&p, "bad.plan", &d);
        if (s != NPUC_E_INVALID || !strstr(message, cases[i].text) ||
            strncmp(message, "bad.plan: error E0403: ", 23) != 0)
            fail_msg("%s: expected '%s', got %d '%s'", cases[i].name, cases[i].text, (int)s, message);
        plan_free(&p);
    }
}

static void test_text(void **state)
{
    (void)state;
    static const char *const want[] = {
        "kernel @sample(m) blocks=((m + 15)//16) of 1 cube and 2 vector cores\n",
        "  in a: f16\n",
        "  inout c: f32\n",
        "    buf l1a: L1 f16 2 x 1024 B at 0\n",
        "    ; one tile of rows\n    for i in 0..1:\n",
        "      load_nz.f16 l1a[0] <- a[(256*block + 16*i), row=16, col=1] pitch=16",
        "      set_flag  mte2 -> mte1, 0 + slot(l1a)\n",
        "      mac.f16     l0c <- l0a, l0b m=16 n=32 k=16 init=1",
        "; mac\n",
        "      next        l1a\n",
        "    n = sload.i32 b[0] in 0..16 assume 16\n    some = ",
        "\n    if some:\n",
        "      vec.f32     Mul ub[0, row=32] <- ub[0, row=32, col=1], #2 rows=16 cols=32",
    };
    struct diag d = sink();
    struct plan p;
    sample_plan(&p, &d);
    const char *text = tile_kernel_text(p.kernels.data[0], &p.arena);
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++)
        if (!strstr(text, want[i]))
            fail_msg("'%s' is not in:\n%s", want[i], text);
    text = tile_kernel_text_of(p.kernels.data[0], "mlu", &p.arena);
    assert_non_null(strstr(text, "    buf l1a: SRAM f16 2 x 1024 B at 0\n"));
    assert_non_null(strstr(text, "      set_flag  io-in -> move, 0 + slot(l1a)\n"));
    assert_non_null(strstr(text, "; tfu\n"));
    plan_free(&p);
}

static void test_access(void **state)
{
    (void)state;
    struct diag d = sink();
    struct plan p;
    struct tile_access a;
    sample_plan(&p, &d);
    const struct tile_section *cube = &p.kernels.data[0]->section[TCORE_CUBE];
    tile_insn_access(CUBE(&p, MAC), &a);
    assert_true(a.n_writes == 1 && a.writes[0] == 4 && a.n_reads == 3 && a.reads[0] == 4 && a.reads[1] == 2 &&
                a.reads[2] == 3);
    tile_insn_access(CUBE(&p, FIXP), &a);
    assert_true(a.n_writes == 0 && a.n_reads == 1 && a.reads[0] == 4);
    tile_insn_access(CUBE(&p, COPY_L0A), &a);
    assert_true(a.n_writes == 1 && a.writes[0] == 2 && a.n_reads == 1 && a.reads[0] == 0);
    tile_insn_access(VECTOR(&p, VEC), &a);
    assert_true(a.n_writes == 1 && a.n_reads == 1);
    tile_insn_access(CUBE(&p, SET), &a);
    assert_true(a.n_writes == 0 && a.n_reads == 0);
    assert_int_equal(tile_insn_unit(cube, CUBE(&p, LOAD_NZ)), TU_MTE2);
    assert_int_equal(tile_insn_unit(cube, CUBE(&p, FIXP)), TU_FIX);
    assert_int_equal(tile_insn_unit(cube, CUBE(&p, NEXT)), TU_S);
    plan_free(&p);
}

static void test_hash(void **state)
{
    (void)state;
    struct diag d = sink();
    struct plan p;
    sample_plan(&p, &d);
    struct tile_kernel *k = p.kernels.data[0];
    const uint64_t h = tile_kernel_hash(k);
    k->name = 0;
    assert_true(tile_kernel_hash(k) == h);
    CUBE(&p, MAC)->arg[5] = expr_const(&k->exprs, 8);
    assert_true(tile_kernel_hash(k) != h);
    plan_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),   cmocka_unit_test(test_errors), cmocka_unit_test(test_text),
        cmocka_unit_test(test_access), cmocka_unit_test(test_hash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
