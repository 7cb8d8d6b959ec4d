/* Calibrators against values of an implementation of their own in numpy, which keeps all the data. */
#include "unit.h"

#include <math.h>

#include "quant/calibrate.h"

static void assert_near(double found, double wanted, double within)
{
    if (!(fabs(found - wanted) <= within))
        fail_msg("found %.9g, expected %.9g", found, wanted);
}

enum { COUNT = 20000 };

static const struct quant_operand i8 = {.codes = DT_I8}, u8 = {.codes = DT_U8, .shifted = true};
static const struct quant_operand i4 = {.codes = DT_I4}, i8_zero = {.codes = DT_I8, .shifted = true};
static const struct quant_operand e4m3 = {.codes = DT_F8E4M3FN};

static void see(struct observer *o, struct arena *a, float *v, int64_t n)
{
    const struct k_tensor t = {.dtype = DT_F32, .rank = 2, .dims = {n, 1}, .data = v, .size = n * 4};
    unit_arena(a);
    observer_init(o, a);
    assert_true(observe(o, &t, t.rank - 1, a));
}

/* 4 t^3 + t / 4 for t in -1..1, and 20, -12 and 8; magnitudes alone when `positive`. */
static void see_outliers(struct observer *o, struct arena *a, bool positive)
{
    static float v[COUNT + 3];
    for (int i = 0; i < COUNT; i++) {
        const double t = (i + 0.5) / COUNT * 2 - 1;
        v[i] = (float)(4 * t * t * t + 0.25 * t);
    }
    v[COUNT] = 20;
    v[COUNT + 1] = -12;
    v[COUNT + 2] = 8;
    for (int i = 0; positive && i < COUNT + 3; i++)
        v[i] = fabsf(v[i]);
    see(o, a, v, COUNT + 3);
}

/* 8 u^12 - u for u in 0..1: a long upper tail. */
static void see_skewed(struct observer *o, struct arena *a)
{
    static float v[COUNT];
    for (int i = 0; i < COUNT; i++) {
        const double u = (i + 0.5) / COUNT;
        v[i] = (float)(8 * pow(u, 12) - u);
    }
    see(o, a, v, COUNT);
}

static void check(quant_calibrate_fn *by, const struct observer *o, const struct quant_operand *q, double lo, double hi,
                  double within)
{
    const struct quant_range r = by(o, q);
    assert_near(r.lo, lo, within);
    assert_near(r.hi, hi, within);
}

static void test_magnitudes(void **state)
{
    (void)state;
    struct observer o;
    struct arena a;
    double bin[64], sum = 0;
    see_outliers(&o, &a, false);
    assert_near(quant_magnitudes(&o, bin, 64), 20, 0);
    for (int i = 0; i < 64; i++)
        sum += bin[i];
    assert_near(sum, COUNT + 3, 1e-6);
    assert_near(bin[63], 1, 1e-9);
    assert_near(bin[30], 0, 0);
    arena_free(&a);
}

static void test_kl(void **state)
{
    (void)state;
    struct observer o;
    struct arena a;
    see_outliers(&o, &a, false);
    check(quant_calibrate_kl, &o, &i8, -4.253, 4.253, 0.03);
    check(quant_calibrate_kl, &o, &e4m3, -12, 20, 0);
    arena_free(&a);
    see_outliers(&o, &a, true);
    check(quant_calibrate_kl, &o, &u8, 0, 4.253, 0.03);
    arena_free(&a);
}

static void test_octav(void **state)
{
    (void)state;
    struct observer o;
    struct arena a;
    see_outliers(&o, &a, false);
    check(quant_calibrate_octav, &o, &i8, -12, 18.153, 0.02);
    check(quant_calibrate_octav, &o, &i4, -3.955, 3.955, 0.02);
    arena_free(&a);
    see_outliers(&o, &a, true);
    check(quant_calibrate_octav, &o, &u8, 0, 19.504, 0.02);
    arena_free(&a);
}

/* The clips with the least error for a normal distribution, as published: 3.92 (8 bits) and 2.56 (4 bits). */
static void test_octav_normal(void **state)
{
    (void)state;
    static float v[100000];
    struct observer o;
    struct arena a;
    uint64_t seed = 1;
    for (int i = 0; i < NPUC_ARRAY_LEN(v); i += 2) {
        const double u = ((double)(unit_random(&seed) >> 11) + 1) / 9007199254740993.0;
        const double w = (double)(unit_random(&seed) >> 11) / 9007199254740992.0;
        v[i] = (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * w));
        v[i + 1] = (float)(sqrt(-2 * log(u)) * sin(6.283185307179586 * w));
    }
    see(&o, &a, v, NPUC_ARRAY_LEN(v));
    check(quant_calibrate_octav, &o, &i8, -3.92, 3.92, 0.1);
    check(quant_calibrate_octav, &o, &i4, -2.56, 2.56, 0.03);
    arena_free(&a);
}

static void test_hfmg(void **state)
{
    (void)state;
    struct observer o;
    struct arena a;
    see_outliers(&o, &a, false);
    check(quant_calibrate_hfmg, &o, &i8, -12, 20, 0); /* the next step would shed all from 12 on */
    check(quant_calibrate_hfmg, &o, &i4, -4.258, 4.258, 0.02);
    arena_free(&a);
    see_skewed(&o, &a);
    check(quant_calibrate_hfmg, &o, &i8_zero, -0.605, 6.961, 0.02);
    arena_free(&a);
}

static void test_ifmr(void **state)
{
    (void)state;
    struct observer o;
    struct arena a;
    see_outliers(&o, &a, false);
    check(quant_calibrate_ifmr, &o, &i8, -11.04, 18.4, 0.25);
    check(quant_calibrate_ifmr, &o, &i8_zero, -12, 19.4, 0.25);
    arena_free(&a);
    see_skewed(&o, &a);
    check(quant_calibrate_ifmr, &o, &i8_zero, -0.605, 6.998, 0.1);
    arena_free(&a);
}

/* Nothing but zeros, a single value, one end only: a range, and no endless walk. */
static void test_degenerate(void **state)
{
    (void)state;
    int64_t n;
    const struct quant_calibrator *rows = quant_calibrators(&n);
    static float values[][3] = {{0, 0, 0}, {5, 5, 5}, {-1e30f, 0, 0}, {1e-30f, 0, -1e-30f}, {-3, -2, -1}};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(values); i++) {
        struct observer o;
        struct arena a;
        see(&o, &a, values[i], 3);
        for (int64_t k = 0; k < n; k++) {
            const struct quant_operand *forms[] = {&i8, &u8, &i8_zero, &i4};
            for (int64_t f = 0; f < NPUC_ARRAY_LEN(forms); f++) {
                const struct quant_range r = rows[k].run(&o, forms[f]);
                assert_true(isfinite(r.lo) && isfinite(r.hi) && r.lo <= r.hi);
            }
        }
        arena_free(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_magnitudes), cmocka_unit_test(test_kl),
                                       cmocka_unit_test(test_octav),      cmocka_unit_test(test_octav_normal),
                                       cmocka_unit_test(test_hfmg),       cmocka_unit_test(test_ifmr),
                                       cmocka_unit_test(test_degenerate)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
