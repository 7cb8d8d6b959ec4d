/* The expression engine: normal forms by example, then random expressions against direct evaluation. */
#include "unit.h"

#include "base/expr.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct expr_range positive = {1, INT64_MAX, 1};

struct fixture {
    struct arena arena;
    struct strtab strings;
    struct expr_pool pool;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    if (!f)
        return -1;
    unit_arena(&f->arena);
    strtab_init(&f->strings, &f->arena);
    expr_pool_init(&f->pool, &f->arena, &f->strings);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    arena_free(&f->arena);
    free(f);
    return 0;
}

static expr parse(struct fixture *f, const char *text)
{
    return expr_parse(&f->pool, text, (int64_t)strlen(text), positive);
}

static void define(struct fixture *f, const char *name, int64_t min, int64_t max, int64_t multiple)
{
    (void)expr_symbol_new(&f->pool, str_internz(&f->strings, name), (struct expr_range){min, max, multiple});
}

/* Text and what it prints as. */
static const struct {
    const char *in, *out;
} canonical[] = {
    {"past + seq", "past + seq"},
    {"seq + past", "past + seq"},
    {"2*seq*batch + 1", "2*batch*seq + 1"},
    {"2*(a+1)", "2*a + 2"},
    {"x - x", "0"},
    {"5 - x", "5 - x"},
    {"-x", "-x"},
    {"-(x//y)*2 - 1", "-(x//y)*2 - 1"},
    {"(a+b)*(a - b)", "a*a - b*b"},
    {"ceil(8*x/4)", "2*x"},
    {"8*x/4", "2*x"},
    {"(seq + 15)//16*16", "(seq + 15)//16*16"},
    {"ceil(seq/16)*16", "(seq + 15)//16*16"},
    {"align(seq, 16)", "(seq + 15)//16*16"},
    {"(16*seq + 31)//16", "seq + 1"},
    {"5*x//4", "x + x//4"},
    {"(2*x + 1)//4", "x//2"},
    {"x//4//8", "x//32"},
    {"(x//4 + 3)//8", "(x + 12)//32"},
    {"x // -4", "-x//4"},
    {"x % -4", "-(-x % 4)"},
    {"(x + 8) % 4", "x % 4"},
    {"(6*x + 1) % 4", "(x % 2)*2 + 1"},
    {"x // 4 * 4 + x % 4", "x"},
    {"2*h*(x // 4 * 4 + x % 4)", "2*h*x"},
    {"(batch*past*4096 + batch*seq*4096) // (past + seq)", "4096*batch"},
    {"batch*seq*4096 // (batch*32)", "128*seq"},
    {"batch*seq // (16*batch)", "seq//16"},
    {"(a*b + b) // (a + 1)", "b"},
    {"(seq + block - 1)//block", "(seq - 1)//block + 1"},
    {"x // x", "1"},
    {"x % x", "0"},
    {"x % (x + 1)", "x"},
    {"min(a, a + 1)", "a"},
    {"max(a, a + 1)", "a + 1"},
    {"min(b, a)", "min(a, b)"},
    {"min(5, x)", "min(x, 5)"},
    {"min(min(x, 5), 3)", "min(x, 3)"},
    {"max(0, x)", "x"},
    {"min(x, 9223372036854775807)", "x"},
    {"a < b", "a < b"},
    {"a + 1 <= b", "a < b"},
    {"a > b", "b < a"},
    {"2*a <= 2*b + 1", "a <= b"},
    {"seq == 1", "seq == 1"},
    {"1 == seq", "seq == 1"},
    {"2*x == 7", "0"},
    {"x >= 128", "128 <= x"},
    {"x > 0", "1"},
    {"x < 1", "0"},
    {"select(a < b, a, b)", "select(a < b, a, b)"},
    {"select(1, a, b)", "a"},
    {"select(a < b, 1, 0)", "a < b"},
    {"(a < b)*3", "3*(a < b)"},
    {"floor(s/2 - 1/2)", "(s + 1)//2 - 1"},
    {"Max(1, s0)", "s0"},
    {"batch-size + 1", "batch-size + 1"},
    {"n-1", "n - 1"},
    {"\"two words\"*2", "2*\"two words\""},
    {"-9223372036854775808", "-9223372036854775808"},
    {"3 // 2 % 5 - -4", "5"},
};

static void canonical_forms(void **state)
{
    struct fixture *f = *state;
    int n_wrong = 0;
    for (size_t i = 0; i < sizeof canonical / sizeof canonical[0]; i++) {
        const expr e = parse(f, canonical[i].in);
        const char *text = expr_text(&f->pool, e, &f->arena);
        if (!strcmp(text, canonical[i].out) && parse(f, text) == e)
            continue;
        print_error("%s: found %s, expected %s\n", canonical[i].in, text, canonical[i].out);
        n_wrong++;
    }
    assert_int_equal(n_wrong, 0);
}

static const char *const refused[] = {
    "",
    " ",
    "a b",
    "2x",
    "a +",
    "(a",
    "a)",
    "foo(a)",
    "min(a)",
    "s/2",
    "a//0",
    "a % 0",
    "9223372036854775808",
    "9223372036854775807 + 1",
    "4611686018427387904*2*a",
    "a < b < c",
    "a, b",
    "\"open",
    "\"bad\\q\"",
    "?",
    "a**2",
};

static void refused_texts(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        assert_int_equal(parse(f, refused[i]), EXPR_INVALID);
        assert_int_equal(f->pool.symbols.len, 0);
    }
    char deep[4096];
    memset(deep, '(', sizeof deep);
    assert_int_equal(expr_parse(&f->pool, deep, sizeof deep, positive), EXPR_INVALID);
    memset(deep, '-', sizeof deep);
    assert_int_equal(expr_parse(&f->pool, deep, sizeof deep, positive), EXPR_INVALID);
}

static void large_products_are_refused(void **state)
{
    struct fixture *f = *state;
    expr e = expr_const(&f->pool, 1);
    for (int i = 0; i < 12 && e; i++) {
        char text[64];
        snprintf(text, sizeof text, "a%d + b%d + c%d + d%d", i, i, i, i);
        e = expr_mul(&f->pool, e, parse(f, text));
    }
    assert_int_equal(e, EXPR_INVALID);
    e = parse(f, "x");
    for (int i = 0; i < 100 && e; i++)
        e = expr_select(&f->pool, parse(f, "x < y"), e, expr_add(&f->pool, e, parse(f, "y")));
    assert_int_equal(e, EXPR_INVALID);
}

static void ranges_simplify(void **state)
{
    struct fixture *f = *state;
    define(f, "s", 1, 4096, 16);
    define(f, "t", 0, 15, 1);
    assert_string_equal(expr_text(&f->pool, parse(f, "ceil(s/16)*16"), &f->arena), "s");
    assert_string_equal(expr_text(&f->pool, parse(f, "(s + 24)//16*16"), &f->arena), "s + 16");
    assert_string_equal(expr_text(&f->pool, parse(f, "t // 16"), &f->arena), "0");
    assert_string_equal(expr_text(&f->pool, parse(f, "t % 16"), &f->arena), "t");
    assert_string_equal(expr_text(&f->pool, parse(f, "(s + t) // 16"), &f->arena), "(s + t)//16");
    assert_string_equal(expr_text(&f->pool, parse(f, "min(s, 5000)"), &f->arena), "s");
    const struct expr_range r = expr_range_of(&f->pool, parse(f, "2*s*t + 4"));
    assert_int_equal(r.min, 4);
    assert_int_equal(r.max, 2 * 4096 * 15 + 4);
    assert_int_equal(r.multiple, 4);
    assert_true(expr_divisible(&f->pool, parse(f, "3*s + 32"), 16));
    assert_false(expr_divisible(&f->pool, parse(f, "s + t"), 16));
    assert_true(expr_divisible(&f->pool, parse(f, "0"), 7));
}

/* With s, p in [0, 4096], n in [1, 8], h, k >= 1. */
static const struct {
    const char *a, *b;
    bool proven;
} proofs[] = {
    {"s", "(s + 15)//16*16", true},
    {"h*s", "h*((s + 15)//16*16)", true},
    {"(s + 15)//16*16", "s + 15", true},
    {"(s + 15)//16*16", "s + 14", false},
    {"s//16*16", "s", true},
    {"s + p", "8192", true},
    {"s*h", "4096*h", true},
    {"p*h + s*h", "8192*h", true},
    {"h", "h*k", true},
    {"h*k*4", "h*h*k*4", true},
    {"s*h + n*k", "4096*h + 8*k", true},
    {"min(s, p)", "p", true},
    {"min(s, p) + n", "max(s, p) + 8", true},
    {"s", "max(p, s)", true},
    {"max(s, p)", "s + p", true},
    {"max(s, p)", "s", false},
    {"s % k", "k - 1", true},
    {"s % k", "s", true},
    {"s // k", "s", true},
    {"select(s < p, s, p)", "s + p", true},
    {"s - p", "s", true},
    {"p", "s", false},
    {"(s + 127)//128*128*k", "4096*k", true},
    {"min(s, 100)*k", "100*k", true},
    {"(s + k - 1)//k*k", "s + k - 1", true},
    {"s", "(s + k - 1)//k*k", true},
    {"x", "x", true},
    {"x", "y", false},
    {"x*x", "0", false},
    {"0", "x*x", true},
};

static void proves_inequalities(void **state)
{
    struct fixture *f = *state;
    define(f, "s", 0, 4096, 1);
    define(f, "p", 0, 4096, 1);
    define(f, "n", 1, 8, 1);
    define(f, "h", 1, INT64_MAX, 1);
    define(f, "k", 1, INT64_MAX, 1);
    define(f, "x", INT64_MIN, INT64_MAX, 1);
    define(f, "y", INT64_MIN, INT64_MAX, 1);
    for (size_t i = 0; i < sizeof proofs / sizeof proofs[0]; i++) {
        const expr a = parse(f, proofs[i].a), b = parse(f, proofs[i].b);
        if (expr_proves_le(&f->pool, a, b) != proofs[i].proven)
            fail_msg("%s <= %s: expected %d", proofs[i].a, proofs[i].b, proofs[i].proven);
    }
}

static void substitutes(void **state)
{
    struct fixture *f = *state;
    const expr e = parse(f, "min(a*b + 1, (b + 15)//16*16)");
    const expr by[2] = {parse(f, "4"), EXPR_INVALID};
    assert_int_equal(expr_subst(&f->pool, e, by, 2), parse(f, "min(4*b + 1, (b + 15)//16*16)"));
    const expr both[2] = {parse(f, "4"), parse(f, "33")};
    assert_int_equal(expr_subst(&f->pool, e, both, 2), parse(f, "48"));
    assert_true(expr_uses_symbol(&f->pool, e, 0));
    assert_false(expr_uses_symbol(&f->pool, parse(f, "b"), 0));
    int64_t v;
    assert_false(expr_eval(&f->pool, EXPR_INVALID, NULL, &v));
    assert_false(expr_eval(&f->pool, parse(f, "a*a*b"), (const int64_t[]){INT64_C(1) << 40, 1}, &v));
    assert_false(expr_eval(&f->pool, parse(f, "a//b"), (const int64_t[]){1, 0}, &v));
}

/* A random expression is built twice: as an expr and as its value at each of N_POINTS points. */
enum { N_SYMBOLS = 5, N_POINTS = 24, N_CASES = 2500 };

static const struct {
    const char *name;
    int64_t min, max, multiple;
} random_symbols[N_SYMBOLS] = {
    {"b", 1, 8, 1}, {"s", 0, 96, 8}, {"past", 0, 31, 1}, {"z", -7, 9, 1}, {"h", 1, INT64_MAX, 4},
};

struct sample {
    expr e;
    int64_t value[N_POINTS];
    bool defined[N_POINTS];
};

struct random_case {
    struct fixture *f;
    uint64_t seed;
    int64_t point[N_POINTS][N_SYMBOLS];
};

static int64_t below(struct random_case *c, int64_t n)
{
    return (int64_t)(unit_random(&c->seed) % (uint64_t)n);
}

static void choose_points(struct random_case *c)
{
    for (int i = 0; i < N_POINTS; i++) {
        for (int k = 0; k < N_SYMBOLS; k++) {
            const int64_t max = random_symbols[k].max < 100 ? random_symbols[k].max : 100;
            const int64_t min = random_symbols[k].min, m = random_symbols[k].multiple;
            const int64_t low = min + (m - min % m) % m;
            const int64_t pick = below(c, 4);
            const int64_t steps = (max - low) / m;
            c->point[i][k] = low + m * (pick == 0 ? 0 : pick == 1 ? steps : below(c, steps + 1));
        }
    }
}

static bool floor_div(int64_t a, int64_t b, int64_t *out)
{
    if (b == 0)
        return false;
    *out = a / b;
    if (a % b != 0 && (a < 0) != (b < 0))
        --*out;
    return true;
}

enum {
    MAKE_ADD,
    MAKE_SUB,
    MAKE_MUL,
    MAKE_DIV,
    MAKE_MOD,
    MAKE_MIN,
    MAKE_MAX,
    MAKE_EQ,
    MAKE_LT,
    MAKE_LE,
    MAKE_SELECT,
    N_MAKE
};

static bool direct(int op, int64_t a, int64_t b, int64_t c, int64_t *out)
{
    int64_t q;
    switch (op) {
    case MAKE_ADD: *out = a + b; return true;
    case MAKE_SUB: *out = a - b; return true;
    case MAKE_MUL: *out = a * b; return true;
    case MAKE_DIV: return floor_div(a, b, out);
    case MAKE_MOD:
        if (!floor_div(a, b, &q))
            return false;
        *out = a - b * q;
        return true;
    case MAKE_MIN: *out = a < b ? a : b; return true;
    case MAKE_MAX: *out = a > b ? a : b; return true;
    case MAKE_EQ: *out = a == b; return true;
    case MAKE_LT: *out = a < b; return true;
    case MAKE_LE: *out = a <= b; return true;
    default: *out = c ? a : b; return true;
    }
}

static expr build(struct expr_pool *p, int op, expr a, expr b, expr c)
{
    switch (op) {
    case MAKE_ADD: return expr_add(p, a, b);
    case MAKE_SUB: return expr_sub(p, a, b);
    case MAKE_MUL: return expr_mul(p, a, b);
    case MAKE_DIV: return expr_floordiv(p, a, b);
    case MAKE_MOD: return expr_mod(p, a, b);
    case MAKE_MIN: return expr_min(p, a, b);
    case MAKE_MAX: return expr_max(p, a, b);
    case MAKE_EQ: return expr_cmp(p, EXPR_EQ, a, b);
    case MAKE_LT: return expr_cmp(p, EXPR_LT, a, b);
    case MAKE_LE: return expr_cmp(p, EXPR_LE, a, b);
    default: return expr_select(p, c, a, b);
    }
}

static struct sample random_leaf(struct random_case *c)
{
    struct sample s = {0};
    const int64_t k = below(c, N_SYMBOLS + 3), v = below(c, 4) ? below(c, 9) - 2 : 16;
    s.e = k < N_SYMBOLS ? expr_sym(&c->f->pool, (int32_t)k) : expr_const(&c->f->pool, v);
    for (int i = 0; i < N_POINTS; i++) {
        s.value[i] = k < N_SYMBOLS ? c->point[i][k] : v;
        s.defined[i] = true;
    }
    return s;
}

static struct sample random_sample(struct random_case *c, int depth)
{
    if (depth == 0 || below(c, 6) == 0)
        return random_leaf(c);
    const int op = (int)(below(c, 3) ? below(c, MAKE_MOD + 1) : below(c, N_MAKE));
    const struct sample a = random_sample(c, depth - 1), b = random_sample(c, depth - 1);
    const struct sample cond = op == MAKE_SELECT ? random_sample(c, depth - 1) : a;
    struct sample s = {.e = build(&c->f->pool, op, a.e, b.e, cond.e)};
    for (int i = 0; i < N_POINTS; i++) {
        s.defined[i] = a.defined[i] && b.defined[i] && cond.defined[i] && llabs(a.value[i]) < (1 << 25) &&
                       llabs(b.value[i]) < (1 << 25) && direct(op, a.value[i], b.value[i], cond.value[i], &s.value[i]);
    }
    return s;
}

static void check_sample(struct random_case *c, const struct sample *s)
{
    struct expr_pool *p = &c->f->pool;
    const char *text = expr_text(p, s->e, &c->f->arena);
    const struct expr_range r = expr_range_of(p, s->e);
    for (int i = 0; i < N_POINTS; i++) {
        int64_t v;
        if (!s->defined[i])
            continue;
        if (!expr_eval(p, s->e, c->point[i], &v) || v != s->value[i])
            fail_msg("%s: expected %lld", text, (long long)s->value[i]);
        if (v < r.min || v > r.max || v % r.multiple)
            fail_msg("%s: range %lld..%lld step %lld, value %lld", text, (long long)r.min, (long long)r.max,
                     (long long)r.multiple, (long long)v);
    }
    if (expr_parse(p, text, (int64_t)strlen(text), positive) != s->e)
        fail_msg("%s: reads back as %s", text,
                 expr_text(p, expr_parse(p, text, (int64_t)strlen(text), positive), &c->f->arena));
}

static void check_pair(struct random_case *c, const struct sample *a, const struct sample *b)
{
    struct expr_pool *p = &c->f->pool;
    if (!expr_proves_le(p, a->e, b->e))
        return;
    for (int i = 0; i < N_POINTS; i++)
        if (a->defined[i] && b->defined[i] && a->value[i] > b->value[i])
            fail_msg("'proved' %s <= %s", expr_text(p, a->e, &c->f->arena), expr_text(p, b->e, &c->f->arena));
}

static void define_random(struct fixture *f)
{
    for (int k = 0; k < N_SYMBOLS; k++)
        define(f, random_symbols[k].name, random_symbols[k].min, random_symbols[k].max, random_symbols[k].multiple);
}

static void random_expressions(void **state)
{
    struct fixture *f = *state;
    define_random(f);
    struct random_case c = {.f = f, .seed = 1};
    const char *more = getenv("NPUC_TEST_SEED");
    if (more)
        c.seed = strtoull(more, NULL, 10);
    choose_points(&c);
    struct sample before = random_leaf(&c);
    for (int i = 0; i < N_CASES; i++) {
        const struct sample s = random_sample(&c, (int)below(&c, 5));
        if (!s.e)
            continue;
        check_sample(&c, &s);
        check_pair(&c, &before, &s);
        check_pair(&c, &s, &before);
        before = s;
    }
}

/* The text does not depend on the pool's history. */
static void text_is_independent_of_ids(void **state)
{
    struct fixture *f = *state;
    define_random(f);
    struct random_case c = {.f = f, .seed = 7};
    choose_points(&c);
    for (int i = 0; i < 200; i++) {
        const struct sample s = random_sample(&c, 3);
        if (!s.e)
            continue;
        const char *text = expr_text(&f->pool, s.e, &f->arena);
        void *other_state;
        assert_int_equal(setup(&other_state), 0);
        struct fixture *other = other_state;
        for (int k = N_SYMBOLS - 1; k >= 0; k--)
            define(other, random_symbols[k].name, random_symbols[k].min, random_symbols[k].max,
                   random_symbols[k].multiple);
        const expr again = parse(other, text);
        assert_string_equal(expr_text(&other->pool, again, &other->arena), text);
        assert_int_equal(teardown(&other_state), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(canonical_forms, setup, teardown),
        cmocka_unit_test_setup_teardown(refused_texts, setup, teardown),
        cmocka_unit_test_setup_teardown(large_products_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(ranges_simplify, setup, teardown),
        cmocka_unit_test_setup_teardown(proves_inequalities, setup, teardown),
        cmocka_unit_test_setup_teardown(substitutes, setup, teardown),
        cmocka_unit_test_setup_teardown(random_expressions, setup, teardown),
        cmocka_unit_test_setup_teardown(text_is_independent_of_ids, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
