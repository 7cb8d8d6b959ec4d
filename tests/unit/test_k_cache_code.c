/* Rows of KV caches as codes: literal rows, and what holds for any row. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"
#include "kernels/cache_code.h"

enum { SIZE = 96 };

struct row {
    uint8_t codes[SIZE];
    uint16_t scales[SIZE];
    float back[SIZE], work[2 * SIZE];
};

static void there_and_back(const struct k_cache_form *f, const float *x, struct row *r)
{
    memset(r, 0xa5, sizeof *r);
    k_cache_encode(f, x, r->codes, r->scales, r->work);
    k_cache_decode(f, r->codes, r->scales, r->back);
}

/* max 12.7: the scale is 0.1 as f16 has it, codes are whole tenths of it. */
static void test_symmetric(void **state)
{
    (void)state;
    const float x[4] = {12.7f, -3.04f, 0.26f, -12.7f};
    const struct k_cache_form f = k_cache_form_of(DT_I8, false, 4, 0, DT_F16);
    struct row r;
    there_and_back(&f, x, &r);
    const float s = half_f16_to_f32(r.scales[0]);
    assert_true(fabsf(s - 0.1f) < 1e-4f);
    const int8_t want[4] = {127, -30, 3, -127};
    assert_memory_equal(r.codes, want, 4);
    assert_true(r.back[1] == -30 * s && r.back[2] == 3 * s);
}

/* Two groups of 4 bits with zero points; the halves of the row share bytes. */
static void test_packed(void **state)
{
    (void)state;
    const float x[4] = {1.0f, 2.5f, -8.0f, 7.0f};
    const struct k_cache_form f = k_cache_form_of(DT_I4, true, 4, 2, DT_F16);
    struct row r;
    there_and_back(&f, x, &r);
    assert_int_equal(k_cache_row(&f), 2);
    assert_int_equal(k_cache_scales(&f), 4);
    assert_int_equal(r.codes[0], 0 | 0 << 4);   /* the lowest of either group */
    assert_int_equal(r.codes[1], 15 | 15 << 4); /* and the highest */
    assert_true(half_f16_to_f32(r.scales[1]) == 1.0f && half_f16_to_f32(r.scales[3]) == 8.0f);
    for (int i = 0; i < 4; i++)
        assert_true(fabsf(r.back[i] - x[i]) < 0.01f);
}

static void test_groups(void **state)
{
    (void)state;
    assert_int_equal(k_cache_form_of(DT_I4, true, 96, 32, DT_F16).group, 16);
    assert_int_equal(k_cache_form_of(DT_I8, false, 96, 32, DT_F16).group, 32);
    assert_int_equal(k_cache_form_of(DT_I4, true, 32, 32, DT_F16).group, 32);
    assert_int_equal(k_cache_form_of(DT_I8, false, 64, 0, DT_F16).group, 64);
    assert_false(k_cache_takes(DT_I4, false, 15));
    assert_false(k_cache_takes(DT_F8E4M3FN, true, 16));
    assert_false(k_cache_takes(DT_F32, false, 16));
}

/* Rows of zeros, of one value far from zero, of tiny and of huge numbers stay what they are, within half a step. */
static void test_extremes(void **state)
{
    (void)state;
    const float levels[] = {0, 1000.0f, -3.5f, 1e-6f, -2e5f};
    const struct {
        enum dtype code;
        bool shifted;
        float steps; /* between the extremes of a group */
    } forms[] = {
        {DT_I8, false, 127}, {DT_I8, true, 255}, {DT_I4, false, 7}, {DT_I4, true, 15}, {DT_F8E4M3FN, false, 8}};
    for (size_t k = 0; k < sizeof forms / sizeof *forms; k++)
        for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
            const struct k_cache_form f = k_cache_form_of(forms[k].code, forms[k].shifted, SIZE, 32, DT_F16);
            float x[SIZE];
            struct row r;
            for (int j = 0; j < SIZE; j++)
                x[j] = levels[i] * (1 + 0.01f * (float)(j % 7));
            there_and_back(&f, x, &r);
            for (int j = 0; j < SIZE; j++)
                assert_true(fabsf(r.back[j] - x[j]) <= fabsf(x[j]) / forms[k].steps + 2e-6f);
        }
}

/* Coding what was decoded gives the same codes, so that a cache can leave and come back. */
static void test_idempotent(void **state)
{
    (void)state;
    const enum dtype codes[] = {DT_I8, DT_I4, DT_F8E4M3FN, DT_F8E5M2};
    uint32_t seed = 7;
    for (int k = 0; k < 4; k++)
        for (int n = 0; n < 200; n++) {
            const struct k_cache_form f = k_cache_form_of(codes[k], false, SIZE, n % 2 ? 32 : 0, DT_F16);
            float x[SIZE];
            struct row a, b;
            for (int j = 0; j < SIZE; j++) {
                seed = seed * 1664525u + 1013904223u;
                x[j] = ldexpf((float)(int32_t)seed, -31 + n % 9);
            }
            there_and_back(&f, x, &a);
            there_and_back(&f, a.back, &b);
            assert_memory_equal(a.back, b.back, sizeof a.back);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_symmetric), cmocka_unit_test(test_packed),
                                       cmocka_unit_test(test_groups), cmocka_unit_test(test_extremes),
                                       cmocka_unit_test(test_idempotent)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
