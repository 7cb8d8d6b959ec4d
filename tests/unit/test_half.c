/* Float conversions: every narrow code, rounding at every boundary between codes, array forms against scalar ones. */
#include "unit.h"

#include "base/half.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double f16_value(uint16_t h)
{
    const int exponent = h >> 10 & 31, mantissa = h & 0x3ff;
    const double v = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
    return h & 0x8000 ? -v : v;
}

static void f16_round_trips(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        const float f = half_f16_to_f32((uint16_t)h);
        if ((h & 0x7fff) > 0x7c00) {
            assert_true(isnan(f));
            assert_int_equal(half_f32_to_f16(f), (h & 0x8000) | 0x7e00);
            assert_int_equal(half_f64_to_f16((double)f), (h & 0x8000) | 0x7e00);
            continue;
        }
        if ((h & 0x7fff) < 0x7c00)
            assert_true((double)f == f16_value((uint16_t)h));
        assert_int_equal(half_f32_to_f16(f), h);
        assert_int_equal(half_f64_to_f16((double)f), h);
    }
}

/* Between neighbours a < b: the middle goes to the even code, what is beside it to the nearer one. */
static void f16_rounds_to_even(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7bff; h++) {
        const float a = half_f16_to_f32((uint16_t)h), b = half_f16_to_f32((uint16_t)(h + 1));
        const float middle = a + (b - a) / 2;
        const uint16_t even = (uint16_t)(h + (h & 1));
        assert_int_equal(half_f32_to_f16(middle), even);
        assert_int_equal(half_f32_to_f16(-middle), even | 0x8000);
        assert_int_equal(half_f32_to_f16(nextafterf(middle, 0)), h);
        assert_int_equal(half_f32_to_f16(nextafterf(middle, INFINITY)), h + 1);
        assert_int_equal(half_f64_to_f16(nextafter((double)middle, 0)), h);
        assert_int_equal(half_f64_to_f16(nextafter((double)middle, INFINITY)), h + 1);
    }
    assert_int_equal(half_f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(half_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(half_f32_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(half_f32_to_f16(0x1p-149f), 0);
}

static void bf16_rounds(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        const float f = half_bf16_to_f32((uint16_t)h);
        assert_int_equal(half_float_bits(f), h << 16);
        const bool nan = (h & 0x7fff) > 0x7f80;
        assert_int_equal(half_f32_to_bf16(f), nan ? (h & 0x8000) | 0x7fc0 : h);
        if ((h & 0x7fff) >= 0x7f80)
            continue;
        assert_int_equal(half_f32_to_bf16(half_bits_float(h << 16 | 0x7fff)), h);
        assert_int_equal(half_f32_to_bf16(half_bits_float(h << 16 | 0x8000)), h + (h & 1));
        assert_int_equal(half_f32_to_bf16(half_bits_float(h << 16 | 0x8001)), h + 1);
    }
    assert_int_equal(half_f32_to_bf16(half_bits_float(0x7f800001)), 0x7fc0);
}

static const enum dtype small_types[] = {DT_F8E4M3FN, DT_F8E4M3FNUZ, DT_F8E5M2, DT_F8E5M2FNUZ,
                                         DT_F6E2M3,   DT_F6E3M2,     DT_F4E2M1};

static void small_types_round_trip(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof small_types / sizeof small_types[0]; i++) {
        const enum dtype t = small_types[i];
        float before = -1;
        uint8_t before_code = 0;
        for (uint32_t code = 0; code < 1u << dtype_table[t].bits; code++) {
            const float f = half_small_to_f32(t, (uint8_t)code);
            if (!isnan(f))
                assert_int_equal(half_f32_to_small(t, f, false), code);
            if (isnan(f) || isinf(f) || signbit(f))
                continue;
            assert_true(f > before);
            if (before >= 0) {
                const float middle = before + (f - before) / 2;
                assert_int_equal(half_f32_to_small(t, middle, true), code & 1 ? before_code : code);
                assert_int_equal(half_f32_to_small(t, nextafterf(middle, 0), true), before_code);
                assert_int_equal(half_f32_to_small(t, nextafterf(middle, 9e9f), true), code);
            }
            before = f;
            before_code = (uint8_t)code;
        }
        assert_int_equal(half_f32_to_small(t, 1e30f, true), before_code);
        assert_int_equal(half_f32_to_small(t, INFINITY, true), before_code);
    }
}

/* Values at the ends, as ml_dtypes has them. */
static const struct {
    enum dtype t;
    float in;
    int plain, saturated;
} special[] = {
    {DT_F8E4M3FN, 464, 0x7e, 0x7e},    {DT_F8E4M3FN, 465, 0x7f, 0x7e},     {DT_F8E4M3FN, -1e9f, 0xff, 0xfe},
    {DT_F8E4M3FNUZ, 1e9f, 0x80, 0x7f}, {DT_F8E4M3FNUZ, -0.0f, 0, 0},       {DT_F8E4M3FNUZ, -1e-30f, 0, 0},
    {DT_F8E5M2, 1e9f, 0x7c, 0x7b},     {DT_F8E5M2, -INFINITY, 0xfc, 0xfb}, {DT_F8E5M2FNUZ, -1e9f, 0x80, 0xff},
    {DT_F6E2M3, -1e9f, 0x3f, 0x3f},    {DT_F6E3M2, 3, 0x12, 0x12},         {DT_F4E2M1, 6, 7, 7},
    {DT_F4E2M1, -2, 0xc, 0xc},         {DT_F8E8M0, 3, 0x81, 0x81},         {DT_F8E8M0, 0.75f, 0x7f, 0x7f},
    {DT_F8E8M0, INFINITY, 0xff, 0xff},
};

static void small_types_at_the_ends(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof special / sizeof special[0]; i++) {
        assert_int_equal(half_f32_to_small(special[i].t, special[i].in, false), special[i].plain);
        assert_int_equal(half_f32_to_small(special[i].t, special[i].in, true), special[i].saturated);
    }
    assert_int_equal(half_f32_to_small(DT_F8E4M3FN, NAN, true), 0x7f);
    assert_int_equal(half_f32_to_small(DT_F8E5M2, -NAN, true), 0xfe);
    assert_int_equal(half_f32_to_small(DT_F8E5M2FNUZ, NAN, true), 0x80);
    assert_int_equal(half_f32_to_small(DT_F4E2M1, -NAN, true), 0);
    assert_true(isnan(half_small_to_f32(DT_F8E5M2, 0x7d)));
    assert_true(isinf(half_small_to_f32(DT_F8E5M2, 0xfc)));
    assert_true(isnan(half_small_to_f32(DT_F8E4M3FN, 0xff)));
    assert_true(isnan(half_small_to_f32(DT_F8E4M3FNUZ, 0x80)));
    assert_true(half_small_to_f32(DT_F8E8M0, 0) == 0x1p-127f);
    assert_true(half_small_to_f32(DT_F8E8M0, 254) == 0x1p127f);
    assert_int_equal(half_f32_to_e8m0(1.25f, HALF_UP, true), 0x80);
    assert_int_equal(half_f32_to_e8m0(1.9f, HALF_DOWN, true), 0x7f);
    assert_int_equal(half_f32_to_e8m0(0x1.8p127f, HALF_UP, true), 0xfe);
    assert_int_equal(half_f32_to_e8m0(0x1.8p127f, HALF_UP, false), 0xff);
    assert_int_equal(half_f32_to_e8m0(0x1p-127f, HALF_UP, true), 0);
    assert_int_equal(half_f32_to_e8m0(0x1.2p-127f, HALF_UP, true), 1);
}

/* HiF8 from its definition: dot, exponent and mantissa fields spelled out bit by bit. */
static double hif8_value(int code)
{
    static const struct {
        int prefix, len, exponent_bits;
    } dots[] = {{3, 2, 4}, {2, 2, 3}, {1, 2, 2}, {1, 3, 1}, {1, 4, 0}};
    const int c = code & 0x7f;
    const double sign = code & 0x80 ? -1 : 1;
    for (size_t i = 0; i < sizeof dots / sizeof dots[0]; i++) {
        if (c >> (7 - dots[i].len) != dots[i].prefix)
            continue;
        const int d = dots[i].exponent_bits, mantissa = 7 - dots[i].len - d;
        int exponent = d ? 1 : 0; /* the leading one of its magnitude is not stored */
        for (int bit = mantissa + d - 2; bit >= mantissa; bit--)
            exponent = 2 * exponent + (c >> bit & 1);
        if (d && c >> (mantissa + d - 1) & 1)
            exponent = -exponent;
        return sign * ldexp(1 + ldexp(c & ((1 << mantissa) - 1), -mantissa), exponent);
    }
    return c ? sign * ldexp(1, c - 23) : 0;
}

static int hif8_by_value(const void *a, const void *b)
{
    const double x = hif8_value(*(const uint8_t *)a), y = hif8_value(*(const uint8_t *)b);
    return (x > y) - (x < y);
}

static void hif8_by_its_definition(void **state)
{
    (void)state;
    uint8_t up[128];
    int n = 0;
    for (int code = 0; code < 128; code++)
        if (code != 0x6f)
            up[n++] = (uint8_t)code;
    qsort(up, (size_t)n, 1, hif8_by_value);
    assert_int_equal(up[0], 0x00);
    assert_int_equal(up[1], 0x01);
    assert_int_equal(up[n - 1], 0x6e);
    for (int i = 0; i < n; i++) {
        const float v = half_small_to_f32(DT_HIF8, up[i]);
        assert_true((double)v == hif8_value(up[i]));
        assert_true(i == 0 || half_small_to_f32(DT_HIF8, up[i] | 0x80) == -v);
        assert_int_equal(half_f32_to_small(DT_HIF8, v, true), up[i]);
        if (i == 0)
            continue;
        /* halfway goes away from zero */
        const float below = half_small_to_f32(DT_HIF8, up[i - 1]), middle = below + (v - below) / 2;
        assert_int_equal(half_f32_to_small(DT_HIF8, middle, true), up[i]);
        assert_int_equal(half_f32_to_small(DT_HIF8, -middle, true), up[i] | 0x80);
        assert_int_equal(half_f32_to_small(DT_HIF8, nextafterf(middle, 0), true), up[i - 1]);
    }
    assert_true(half_small_to_f32(DT_HIF8, 0x6e) == 32768 && half_small_to_f32(DT_HIF8, 0x7e) == 0x1p-15f);
    assert_true(isnan(half_small_to_f32(DT_HIF8, 0x80)) && isinf(half_small_to_f32(DT_HIF8, 0xef)));
    assert_int_equal(half_f32_to_small(DT_HIF8, NAN, true), 0x80);
    assert_int_equal(half_f32_to_small(DT_HIF8, -INFINITY, true), 0xef);
    assert_int_equal(half_f32_to_small(DT_HIF8, -0.0f, true), 0);
    assert_int_equal(half_f32_to_small(DT_HIF8, -1e30f, true), 0xee);
    assert_int_equal(half_f32_to_small(DT_HIF8, 49152, true), 0x6e);
    assert_int_equal(half_f32_to_small(DT_HIF8, 49152, false), 0x6f);
    assert_int_equal(half_f32_to_small(DT_HIF8, 0x1.fffp-24f, true), 0);
}

static void arrays_equal_scalars(void **state)
{
    (void)state;
    enum { N = 4099 };
    static float f[N], wide[N];
    static uint16_t h[N];
    uint64_t seed = 3;
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < N; i++) {
            const uint64_t r = unit_random(&seed);
            const uint32_t near_f16 = (uint32_t)(r >> 32 & 0x8fffffff) + 0x38000000u - (uint32_t)(r & 7) * 0x01000000u;
            f[i] = half_bits_float(r & 8 ? (uint32_t)(r >> 32) : near_f16 & (r & 16 ? 0xfffff000u : ~0u));
        }
        half_f32_to_f16_n(h, f, N);
        for (int i = 0; i < N; i++)
            assert_int_equal(h[i], half_f32_to_f16(f[i]));
        half_f32_to_bf16_n(h, f, N);
        for (int i = 0; i < N; i++)
            assert_int_equal(h[i], half_f32_to_bf16(f[i]));
        half_bf16_to_f32_n(wide, h, N - round);
        for (int i = 0; i < N - round; i++)
            assert_int_equal(half_float_bits(wide[i]), half_float_bits(half_bf16_to_f32(h[i])));
    }
    static uint16_t all[0x10000];
    static float all_wide[0x10000];
    for (uint32_t i = 0; i < 0x10000; i++)
        all[i] = (uint16_t)i;
    half_f16_to_f32_n(all_wide, all, 0x10000);
    for (uint32_t i = 0; i < 0x10000; i++)
        assert_int_equal(half_float_bits(all_wide[i]), half_float_bits(half_f16_to_f32((uint16_t)i)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f16_round_trips),
        cmocka_unit_test(f16_rounds_to_even),
        cmocka_unit_test(bf16_rounds),
        cmocka_unit_test(small_types_round_trip),
        cmocka_unit_test(small_types_at_the_ends),
        cmocka_unit_test(hif8_by_its_definition),
        cmocka_unit_test(arrays_equal_scalars),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
