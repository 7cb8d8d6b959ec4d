/* Hadamard matrices: rows are orthogonal, exactly; rotations: orthogonal up to rounding, the same as their factors. */
#include "unit.h"

#include <math.h>
#include <stdlib.h>

#include "ir/hadamard.h"

static void assert_near(double found, double wanted, double within)
{
    if (!(fabs(found - wanted) <= within))
        fail_msg("found %.9g, expected %.9g", found, wanted);
}

/* H H^T = n I in integers. */
static bool is_exact(const int8_t *h, int n)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            int dot = 0;
            for (int k = 0; k < n; k++)
                dot += h[i * n + k] * h[j * n + k];
            if (dot != (i == j ? n : 0) || abs(h[i * n + j]) != 1)
                return false;
        }
    return true;
}

static void test_exact(void **state)
{
    (void)state;
    static int8_t h[160 * 160];
    int known = 0;
    for (int n = 1; n <= 160; n++)
        if (hadamard_known(n)) {
            assert_true(hadamard_fill(h, n));
            if (!is_exact(h, n))
                fail_msg("order %d", n);
            known++;
        }
    assert_int_equal(known, 37);
    const int wanted[] = {1, 2, 4, 12, 16, 20, 24, 28, 36, 40, 44, 60, 76, 84, 140, 148};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(wanted); i++)
        assert_true(hadamard_known(wanted[i]));
    const int none[] = {-4, 0, 3, 6, 10, 92, 1 << 20};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(none); i++)
        assert_false(hadamard_known(none[i]) || hadamard_fill(h, none[i]));
}

static void check_rotation(int64_t k, int outer, int inner, bool hadamard)
{
    struct arena a;
    struct rotation r;
    arena_init(&a, NULL);
    assert_true(rotation_make(&r, k, &a));
    assert_int_equal(r.outer, outer);
    assert_int_equal(r.inner, inner);
    assert_int_equal(r.hadamard, hadamard);
    /* two rows with one element each: lengths stay, their product stays 0, and all elements are spread */
    float *x = ARENA_ARRAY(&a, float, 2 * k), *scratch = ARENA_ARRAY(&a, float, k);
    x[k / 3] = x[k + k / 2] = 1;
    rotation_apply(&r, x, 2, scratch);
    double size = 0, dot = 0, most = 0;
    for (int64_t i = 0; i < k; i++) {
        size += (double)x[i] * (double)x[i];
        dot += (double)x[i] * (double)x[k + i];
        most = fmax(most, fabs((double)x[i]));
        assert_near((double)x[i],
                    (double)(r.outer_factor[k / 3 / inner * outer + i / inner] *
                             r.inner_factor[k / 3 % inner * inner + i % inner]),
                    1e-6);
    }
    assert_near(size, 1, 1e-5);
    assert_near(dot, k / 3 == k / 2 ? 1 : 0, 1e-5);
    if (hadamard)
        assert_near(most * sqrt((double)k), 1, 1e-5);
    arena_free(&a);
}

static void test_rotation(void **state)
{
    (void)state;
    check_rotation(576, 24, 24, true);
    check_rotation(1536, 32, 48, true);
    check_rotation(64, 8, 8, true);
    check_rotation(43 * 8, 8, 43, false); /* 43 and 86 have none, 172 none known */
    check_rotation(7, 1, 7, false);
    check_rotation(1, 1, 1, true);
}

static void test_limits(void **state)
{
    (void)state;
    struct arena a;
    struct rotation r;
    arena_init(&a, NULL);
    assert_false(rotation_make(&r, 0, &a));
    assert_false(rotation_make(&r, 8209, &a)); /* a prime */
    assert_false(rotation_make(&r, INT64_MAX, &a));
    arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_exact), cmocka_unit_test(test_rotation),
                                       cmocka_unit_test(test_limits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
