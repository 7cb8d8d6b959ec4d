/* Formulas and reductions: scalar equals SIMD, chunks do not matter, types widen and round as said; accuracy against
 * libm. */
#include "unit.h"

#include "base/half.h"
#include "kernels/loops.h"
#include "kernels/vec.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LEN = 1237 }; /* more than two chunks, with a tail */

/* Values of every magnitude, among them 0, -0, infinities and NaN. */
static void fill(float *x, int64_t n, uint64_t *seed)
{
    static const float special[] = {0.0f, -0.0f,  1.0f,    -1.0f,  INFINITY, -INFINITY,
                                    NAN,  1e-40f, 3.4e38f, -88.0f, 2.0f,     0.5f};
    for (int64_t i = 0; i < n; i++) {
        const uint64_t r = unit_random(seed);
        const uint32_t bits = (uint32_t)r;
        if (r >> 60 == 0)
            x[i] = special[(r >> 32) % 12];
        else if (r >> 63)
            memcpy(&x[i], &bits, 4);
        else
            x[i] = ((float)(bits >> 8) / 16777216.0f - 0.5f) * 20.0f;
    }
}
/* Equal bits, or both NaN. */
static bool same(const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], 4) != 0 && !(a[i] != a[i] && b[i] != b[i]))
            return false;
    return true;
}

static void test_simd_equals_scalar(void **state)
{
    (void)state;
    static float x[3][LEN], y[K_SIMD_LEVELS][LEN];
    uint64_t seed = 1;
    const float p[3] = {0.7f, 1.3f, 0.1f};
    for (int fn = 1; fn < K_FN_end; fn++) {
        const struct k_fn_info *info = k_fn_info((enum k_fn)fn);
        if (!info || fn == K_FN_Where || !k_fn_supports((enum k_fn)fn, DT_F32))
            continue;
        const struct k_rows arg[3] = {{x[0], LEN, 1}, {x[1], LEN, 1}, {x[2], 0, 0}};
        for (int i = 0; i < 3; i++)
            fill(x[i], LEN, &seed);
        memset(y, 0, sizeof y);
        for (enum k_simd_level simd = K_SIMD_NONE; simd < K_SIMD_LEVELS; simd++) {
            k_simd_limit(simd);
            k_vec((enum k_fn)fn, DT_F32, 1, LEN, y[simd], LEN, arg, p);
        }
        for (enum k_simd_level simd = K_SIMD_AVX2; simd < K_SIMD_LEVELS; simd++)
            if (info->result == K_RESULT_BOOL ? memcmp(y[0], y[simd], LEN) != 0 : !same(y[0], y[simd], LEN))
                fail_msg("%s differs", info->name);
    }
}

/* Operands of one number for all columns give what rows full of it give, in every class of arithmetic. */
static void test_same_for_all(void **state)
{
    (void)state;
    enum { N = 531 };
    static const enum dtype types[] = {DT_F32, DT_F16, DT_F64, DT_I32, DT_U8, DT_BOOL};
    static uint8_t x[3][N * 8], full[3][N * 8], y[2][N * 8];
    static float v[N];
    uint64_t seed = 21;
    const float p[3] = {0.7f, 1.3f, 0.1f};
    for (int fn = 1; fn < K_FN_end; fn++)
        for (int i = 0; i < NPUC_ARRAY_LEN(types) * 8; i++) {
            const enum dtype t = types[i / 8];
            const int size = dtype_size(t);
            struct k_rows some[3], all[3];
            if (!k_fn_info((enum k_fn)fn) || !k_fn_supports((enum k_fn)fn, t))
                continue;
            for (int j = 0; j < 3; j++) {
                const bool one = i >> j & 1;
                const enum dtype arg = fn == K_FN_Where && j == 0 ? DT_BOOL : t;
                fill(v, N, &seed);
                k_cast(arg, x[j], DT_F32, v, N, true);
                for (int64_t k = 0; k < N; k++)
                    memcpy(full[j] + k * dtype_size(arg), x[j] + (one ? 0 : k) * dtype_size(arg),
                           (size_t)dtype_size(arg));
                some[j] = (struct k_rows){x[j], one ? 0 : N, !one};
                all[j] = (struct k_rows){full[j], N, 1};
            }
            k_simd_limit((enum k_simd_level)(fn % K_SIMD_LEVELS));
            k_vec((enum k_fn)fn, t, 1, N, y[0], N, some, p);
            k_vec((enum k_fn)fn, t, 1, N, y[1], N, all, p);
            const bool flags = k_fn_info((enum k_fn)fn)->result == K_RESULT_BOOL;
            assert_memory_equal(y[0], y[1], (size_t)(N * (flags ? 1 : size)));
        }
}

static void test_rows_and_in_place(void **state)
{
    (void)state;
    float x[6] = {1, 2, 3, 4, 5, 6}, per_row[2] = {10, 20}, y[8] = {0};
    const struct k_rows arg[3] = {{x, 3, 1}, {per_row, 1, 0}};
    k_vec(K_FN_Add, DT_F32, 2, 3, y, 4, arg, NULL);
    assert_memory_equal(y, ((float[]){11, 12, 13, 0, 24, 25, 26, 0}), sizeof y);
    k_vec(K_FN_Mul, DT_F32, 2, 3, x, 3, arg, NULL);
    assert_memory_equal(x, ((float[]){10, 20, 30, 80, 100, 120}), sizeof x);
}

static void test_half_rounds_once(void **state)
{
    (void)state;
    uint16_t x[2] = {half_f32_to_f16(1.0f), half_f32_to_f16(2049.0f)}, y[2], z[2];
    const uint16_t tiny[2] = {half_f32_to_f16(0.00048828125f), half_f32_to_f16(1.0f)};
    const struct k_rows arg[3] = {{x, 2, 1}, {tiny, 2, 1}};
    k_vec(K_FN_Add, DT_F16, 1, 2, y, 2, arg, NULL);
    for (int i = 0; i < 2; i++)
        z[i] = half_f32_to_f16(half_f16_to_f32(x[i]) + half_f16_to_f32(tiny[i]));
    assert_memory_equal(y, z, sizeof y);
}

static void test_integers_wrap(void **state)
{
    (void)state;
    const int8_t a[4] = {127, -128, -7, 7}, b[4] = {1, -1, 3, -3};
    int8_t y[4];
    const struct k_rows arg[3] = {{a, 4, 1}, {b, 4, 1}};
    k_vec(K_FN_Add, DT_I8, 1, 4, y, 4, arg, NULL);
    assert_memory_equal(y, ((int8_t[]){-128, 127, -4, 4}), 4);
    k_vec(K_FN_Div, DT_I8, 1, 4, y, 4, arg, NULL);
    assert_memory_equal(y, ((int8_t[]){127, -128, -2, -2}), 4);
    k_vec(K_FN_Mod, DT_I8, 1, 4, y, 4, arg, NULL);
    assert_memory_equal(y, ((int8_t[]){0, 0, 2, -2}), 4);
    k_vec(K_FN_FMod, DT_I8, 1, 4, y, 4, arg, NULL);
    assert_memory_equal(y, ((int8_t[]){0, 0, -1, 1}), 4);
}

static void test_where_moves_bits(void **state)
{
    (void)state;
    const uint8_t cond[3] = {1, 0, 1};
    const uint16_t a[3] = {0x7e01, 2, 3}, b[1] = {0x1234};
    uint16_t y[3];
    const struct k_rows arg[3] = {{cond, 3, 1}, {a, 3, 1}, {b, 0, 0}};
    k_vec(K_FN_Where, DT_F16, 1, 3, y, 3, arg, NULL);
    assert_memory_equal(y, ((uint16_t[]){0x7e01, 0x1234, 3}), sizeof y);
}

static void test_reduction_ignores_chunks(void **state)
{
    (void)state;
    static float x[LEN];
    uint64_t seed = 7;
    for (int i = 0; i < LEN; i++)
        x[i] = (float)(int64_t)(unit_random(&seed) >> 40) / 65536.0f - 100.0f;
    for (enum k_red op = K_RED_SUM; op <= K_RED_ABSSUM; op++) {
        enum { PARTS = K_SIMD_LEVELS }; /* the highest level, in parts of any length */
        float y[K_SIMD_LEVELS + 1];
        for (int form = 0; form <= PARTS; form++) {
            union k_lanes acc;
            k_simd_limit(form < PARTS ? (enum k_simd_level)form : K_SIMD_LEVELS - 1);
            k_red_init(op, DT_F32, &acc);
            for (int64_t at = 0, n; at < LEN; at += n) {
                n = form < PARTS ? LEN : (int64_t)(unit_random(&seed) % 200);
                n = n > LEN - at ? LEN - at : n;
                k_red_add(op, DT_F32, &acc, x + at, n, at);
            }
            k_red_finish(op, DT_F32, &acc, &y[form]);
        }
        for (int form = 1; form <= PARTS; form++)
            assert_memory_equal(&y[0], &y[form], 4);
    }
}

static void test_extremes_keep_nan(void **state)
{
    (void)state;
    for (int at = 0; at < 200; at += 37) {
        float x[200], y;
        union k_lanes acc;
        for (int i = 0; i < 200; i++)
            x[i] = i == at ? NAN : (float)i;
        k_red_init(K_RED_MAX, DT_F32, &acc);
        k_red_add(K_RED_MAX, DT_F32, &acc, x, 200, 0);
        k_red_finish(K_RED_MAX, DT_F32, &acc, &y);
        assert_true(y != y);
    }
    int64_t whole;
    union k_lanes acc;
    k_red_init(K_RED_MIN, DT_I8, &acc);
    k_red_add(K_RED_MIN, DT_I8, &acc, (const int8_t[]){5, -7, 3}, 3, 0);
    k_red_finish(K_RED_MIN, DT_I8, &acc, &whole);
    assert_int_equal((int8_t)whole, -7);
}

static double ulp_error(double want, float got)
{
    if (want != want || got != got)
        return (want != want) == (got != got) ? 0 : 1e9;
    if (isinf(got) || fabs(want) > 3.4028235e38)
        return isinf(got) && fabs(want) > 3.4028234e38 ? 0 : 1e9;
    int e;
    (void)frexp(want, &e);
    return fabs(want - (double)got) / ldexp(1, (e < -125 ? -125 : e) - 24);
}
static void test_accuracy(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        float (*f)(float);
        double (*ref)(double);
        double bound;
    } rows[] = {{"exp", k_exp, exp, 1}, {"log", k_log, log, 1}, {"tanh", k_tanh, tanh, 2},
                {"erf", k_erf, erf, 2}, {"sin", k_sin, sin, 2}, {"cos", k_cos, cos, 2}};
    for (int r = 0; r < 6; r++)
        for (uint64_t bits = 0; bits < (uint64_t)1 << 32; bits += 20011) {
            const uint32_t u = (uint32_t)bits;
            float x;
            memcpy(&x, &u, 4);
            const double e = ulp_error(rows[r].ref((double)x), rows[r].f(x));
            if (e > rows[r].bound)
                fail_msg("%s(%a): %g ULP", rows[r].name, (double)x, e);
        }
    uint64_t seed = 3;
    for (int i = 0; i < 100000; i++) {
        float v[2];
        fill(v, 2, &seed);
        const double e = ulp_error(pow((double)v[0], (double)v[1]), k_pow(v[0], v[1]));
        if (e > 2)
            fail_msg("pow(%a, %a): %g ULP", (double)v[0], (double)v[1], e);
    }
}

static void test_casts(void **state)
{
    (void)state;
    const float x[6] = {1.9f, -1.9f, 300.0f, -1e20f, NAN, 0.0f};
    int8_t i8[6];
    uint8_t b[6];
    int32_t i32[6];
    k_cast(DT_I8, i8, DT_F32, x, 6, true);
    assert_memory_equal(i8, ((int8_t[]){1, -1, 44, 0, 0, 0}), 6);
    k_cast(DT_I32, i32, DT_F32, x, 6, true);
    assert_memory_equal(i32, ((int32_t[]){1, -1, 300, INT32_MIN, INT32_MIN, 0}), sizeof i32);
    k_cast(DT_BOOL, b, DT_F32, x, 6, true);
    assert_memory_equal(b, ((uint8_t[]){1, 1, 1, 1, 1, 0}), 6);
    uint8_t nibbles[2];
    k_cast(DT_I4, nibbles, DT_I64, (const int64_t[]){-8, 7, -1, 3}, 4, true);
    assert_memory_equal(nibbles, ((uint8_t[]){0x78, 0x3f}), 2);
    int64_t back[4];
    k_cast(DT_I64, back, DT_I4, nibbles, 4, true);
    assert_memory_equal(back, ((int64_t[]){-8, 7, -1, 3}), sizeof back);
    uint8_t six[3];
    float wide[4];
    k_cast(DT_F6E2M3, six, DT_F32, (const float[]){1.0f, -7.5f, 0.125f, 100.0f}, 4, true);
    k_cast(DT_F32, wide, DT_F6E2M3, six, 4, true);
    assert_memory_equal(wide, ((float[]){1.0f, -7.5f, 0.125f, 7.5f}), sizeof wide);
}

/* Every level casts and scales alike, rows of every length beside whole registers, also in place. */
static void test_levels_cast(void **state)
{
    (void)state;
    enum { MOST = 70 };
    static const enum dtype types[] = {DT_I8, DT_U8, DT_I16, DT_U16, DT_I32};
    static const float ends[] = {0x1p31f, 0x1.fffffep30f, -0x1p31f, -0x1.000002p31f, 255.5f, -128.5f, 65535.9f, -0.9f};
    uint64_t seed = 31;
    float x[MOST] = {0}, part[2][MOST];
    int32_t y[K_SIMD_LEVELS][MOST];
    for (int64_t n = 0; n <= MOST; n++)
        for (int i = 0; i < NPUC_ARRAY_LEN(types); i++) {
            fill(x, n, &seed);
            for (int64_t k = 0; k < n; k += 1 + (int64_t)(unit_random(&seed) % 9))
                x[k] = ends[unit_random(&seed) % NPUC_ARRAY_LEN(ends)];
            for (enum k_simd_level simd = K_SIMD_NONE; simd < K_SIMD_LEVELS; simd++) {
                k_simd_limit(simd);
                memcpy(y[simd], x, sizeof x);
                k_cast(types[i], y[simd], DT_F32, types[i] == DT_I32 ? (const void *)y[simd] : x, n, true);
                if (simd == K_SIMD_NONE)
                    continue;
                assert_memory_equal(y[simd], y[K_SIMD_NONE], sizeof *y);
                k_cast(DT_F32, part[0], DT_I32, y[simd], n, true);
                for (int64_t k = 0; k < n; k++)
                    part[1][k] = (float)y[simd][k] * x[k];
                k_scale_f32(part[0], x, n);
                assert_true(same(part[0], part[1], n));
            }
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_simd_equals_scalar),
        cmocka_unit_test(test_same_for_all),
        cmocka_unit_test(test_rows_and_in_place),
        cmocka_unit_test(test_half_rounds_once),
        cmocka_unit_test(test_integers_wrap),
        cmocka_unit_test(test_where_moves_bits),
        cmocka_unit_test(test_reduction_ignores_chunks),
        cmocka_unit_test(test_extremes_keep_nan),
        cmocka_unit_test(test_accuracy),
        cmocka_unit_test(test_casts),
        cmocka_unit_test(test_levels_cast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
