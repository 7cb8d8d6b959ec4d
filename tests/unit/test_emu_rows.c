/* The matrix path of units that take rows, on the memories of an MLU core: products in steps of K, rows to WRAM,
 * windows. */
#include "emu_unit.h"

#include <math.h>
#include <stdio.h>

#include "base/half.h"

enum { M = 5, N = 70, K = 90, CUT = 33, PITCH = 96 }; /* K in two steps; rows longer than K */

static int64_t value(int64_t i, int64_t seed)
{
    return (i * 7919 + seed * 104729) % 251 - 125;
}

static void fill(void *data, enum dtype t, int64_t n, int64_t seed)
{
    for (int64_t i = 0; i < n; i++) {
        const float v = (float)value(i, seed) / 64.0f;
        if (t == DT_I8)
            ((int8_t *)data)[i] = (int8_t)value(i, seed);
        else if (t == DT_I16)
            ((int16_t *)data)[i] = (int16_t)(value(i, seed) * 61); /* sums stay within 32 bits */
        else if (t == DT_F16)
            ((uint16_t *)data)[i] = half_f32_to_f16(v);
        else
            ((float *)data)[i] = v;
    }
}

static float number(const void *data, enum dtype t, int64_t i)
{
    return t == DT_F16 ? half_f16_to_f32(((const uint16_t *)data)[i]) : ((const float *)data)[i];
}

/* One chain of K, as the unit promises. */
static void reference(void *c, enum dtype t, const void *a, const void *b)
{
    for (int64_t m = 0; m < M; m++)
        for (int64_t n = 0; n < N; n++) {
            float sum = 0;
            int32_t whole = 0;
            for (int64_t k = 0; k < K; k++) {
                if (t == DT_I8)
                    whole += ((const int8_t *)a)[m * K + k] * ((const int8_t *)b)[n * K + k];
                else if (t == DT_I16)
                    whole += ((const int16_t *)a)[m * K + k] * ((const int16_t *)b)[n * K + k];
                else
                    sum = fmaf(number(a, t, m * K + k), number(b, t, n * K + k), sum);
            }
            if (dtype_is_integer(t))
                ((int32_t *)c)[m * N + n] = whole;
            else
                ((float *)c)[m * N + n] = sum;
        }
}

static void load_rows(struct emu_unit *u, int32_t buf, int32_t tensor, enum dtype t, int64_t rows)
{
    const expr one = num(u, 1), z = num(u, 0);
    TILE(&u->b, LOAD, buf, z, tensor, z, (int32_t)t, one, one, num(u, rows), num(u, K), z, z, num(u, K), one, z, z,
         num(u, PITCH), one);
}

static void step(struct emu_unit *u, const int32_t buf[3], enum dtype t, int64_t from, int64_t to, int init)
{
    const expr z = num(u, 0), pitch = num(u, PITCH), at = num(u, from);
    TILE(&u->b, MAC_ROWS, buf[2], z, num(u, N), buf[0], at, pitch, buf[1], at, pitch, (int32_t)t, num(u, M), num(u, N),
         num(u, to - from), num(u, init));
}

/* b goes to WRAM at once, or through NRAM. */
static void check_product(enum dtype t, bool through)
{
    struct emu_unit u;
    const int64_t es = dtype_size(t);
    static float a[M * K], b[N * K];
    float c[M * N], want[M * N];
    fill(a, t, M * K, 1);
    fill(b, t, N * K, 2);
    reference(want, t, a, b);
    unit_begin_on(&u, "mlu370-x4", TCORE_VECTOR);
    const int32_t ta = unit_tensor(&u, t, a, (size_t)(M * K * es)), tb = unit_tensor(&u, t, b, (size_t)(N * K * es)),
                  tc = unit_tensor(&u, DT_F32, c, sizeof c);
    const int32_t buf[3] = {unit_buf(&u, TS_UB, 1, M * PITCH * 4), unit_buf(&u, TS_L0B, 1, N * PITCH * 4),
                            unit_buf(&u, TS_UB, 1, (int64_t)sizeof c + 8)};
    const int32_t rows = through ? unit_buf(&u, TS_UB, 1, N * PITCH * 4) : buf[1];
    load_rows(&u, buf[0], ta, t, M);
    load_rows(&u, rows, tb, t, N);
    unit_flag(&u, TU_MTE2, TU_M, 0);
    if (through) {
        unit_flag(&u, TU_MTE2, TU_MTE1, 0);
        TILE(&u.b, COPY_ROWS, buf[1], num(&u, 0), num(&u, PITCH), rows, num(&u, 0), num(&u, PITCH), (int32_t)t,
             num(&u, N), num(&u, K));
        unit_flag(&u, TU_MTE1, TU_M, 0);
    }
    step(&u, buf, t, 0, CUT, 1);
    step(&u, buf, t, CUT, K, 0);
    unit_flag(&u, TU_M, TU_MTE3, 0);
    unit_store(&u, tc, 0, buf[2], 0, DT_F32, M * N);
    if (unit_run(&u, 1, true) != NPUC_OK)
        fail_msg("%s", u.error);
    assert_memory_equal(c, want, sizeof c);
    unit_end(&u);
}

static void test_products(void **state)
{
    (void)state;
    static const enum dtype types[] = {DT_F32, DT_F16, DT_I8, DT_I16};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(types); i++)
        for (int through = 0; through < 2; through++)
            check_product(types[i], through != 0);
}

static void test_races_are_found(void **state)
{
    (void)state;
    struct emu_unit u;
    float a[M * K] = {0};
    unit_begin_on(&u, "mlu370-x4", TCORE_VECTOR);
    const int32_t ta = unit_tensor(&u, DT_F32, a, sizeof a);
    const int32_t buf[3] = {unit_buf(&u, TS_UB, 1, M * PITCH * 4), unit_buf(&u, TS_L0B, 1, N * PITCH * 4),
                            unit_buf(&u, TS_UB, 1, M * N * 4 + 8)};
    load_rows(&u, buf[0], ta, DT_F32, M);
    step(&u, buf, DT_F32, 0, CUT, 1);
    assert_int_not_equal(unit_run(&u, 1, true), NPUC_OK);
    assert_non_null(strstr(u.error, "MAC_ROWS"));
    unit_end(&u);
}

/* ---- windows ------------------------------------------------------------------------------------------------ */

enum { CHANNELS = 6, MAP_H = 7, MAP_W = 5, COUNT = 24, MOST_TAPS = 9 };

struct windows {
    int64_t top, left, first, cols;
    int32_t stride[2], step[2];
    int32_t taps[2], dilation[2];
};

/* Element c of the row of window p: channel c % CHANNELS of kernel position c / CHANNELS. */
static float element(const struct windows *w, const float *map, int64_t p, int64_t c)
{
    const int64_t q = w->first + p, tap = c / CHANNELS, channel = c % CHANNELS,
                  y = w->top + tap / w->taps[1] * w->dilation[0] + q / w->cols * w->stride[0],
                  x = w->left + tap % w->taps[1] * w->dilation[1] + q % w->cols * w->stride[1];
    const bool inside = y >= 0 && x >= 0 && y % w->step[0] == 0 && x % w->step[1] == 0 && y / w->step[0] < MAP_H &&
                        x / w->step[1] < MAP_W;
    return inside ? map[(y / w->step[0] * MAP_W + x / w->step[1]) * CHANNELS + channel] : 0;
}

static enum npuc_status gather(struct emu_unit *u, const struct windows *w, float *map, float *y)
{
    unit_begin_on(u, "mlu370-x4", TCORE_VECTOR);
    const int64_t n = CHANNELS * MAP_H * MAP_W, width = CHANNELS * w->taps[0] * w->taps[1];
    const int32_t t = unit_tensor(u, DT_F32, map, (size_t)n * sizeof *map),
                  out = unit_tensor(u, DT_F32, y, (size_t)(COUNT * width) * sizeof *y);
    const int32_t x = unit_buf(u, TS_UB, 1, 1024), rows = unit_buf(u, TS_UB, 1, COUNT * width * 4);
    const expr z = num(u, 0), line = num(u, CHANNELS);
    unit_load(u, x, 0, t, 0, DT_F32, n);
    unit_flag(u, TU_MTE2, TU_MTE1, 0);
    TILE(&u->b, WINDOWS, rows, z, num(u, width), x, z, line, num(u, MAP_W), DT_F32, num(u, COUNT), line, num(u, MAP_H),
         num(u, MAP_W), num(u, w->top), num(u, w->left), num(u, w->first), num(u, w->cols), w->taps[0], w->taps[1],
         w->dilation[0], w->dilation[1], w->stride[0], w->stride[1], w->step[0], w->step[1]);
    unit_flag(u, TU_MTE1, TU_MTE3, 0);
    unit_store(u, out, 0, rows, 0, DT_F32, COUNT * width);
    return unit_run(u, 1, true);
}

static void test_windows(void **state)
{
    (void)state;
    static const struct windows cases[] = {
        {.cols = MAP_W, .stride = {1, 1}, .step = {1, 1}, .taps = {1, 1}, .dilation = {1, 1}},
        {.top = -1,
         .left = -2,
         .first = 3,
         .cols = 9,
         .stride = {1, 1},
         .step = {1, 1},
         .taps = {1, 1},
         .dilation = {1, 1}},
        {.top = -1, .left = 1, .cols = 4, .stride = {2, 3}, .step = {1, 1}, .taps = {1, 1}, .dilation = {1, 1}},
        {.top = -2,
         .left = -1,
         .first = 1,
         .cols = 13,
         .stride = {1, 1},
         .step = {2, 3},
         .taps = {3, 2},
         .dilation = {1, 2}},
        {.top = -1, .left = -1, .cols = 5, .stride = {1, 1}, .step = {1, 1}, .taps = {3, 3}, .dilation = {1, 1}},
        {.top = -3,
         .left = -2,
         .first = 2,
         .cols = 4,
         .stride = {2, 1},
         .step = {1, 1},
         .taps = {2, 4},
         .dilation = {3, 2}},
        {.top = -100, .cols = 2, .stride = {1, 1}, .step = {1, 1}, .taps = {1, 1}, .dilation = {1, 1}},
    };
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(cases); i++) {
        struct emu_unit u;
        float map[CHANNELS * MAP_H * MAP_W], y[COUNT * CHANNELS * MOST_TAPS];
        const int64_t width = CHANNELS * cases[i].taps[0] * cases[i].taps[1];
        fill(map, DT_F32, NPUC_ARRAY_LEN(map), i);
        if (gather(&u, &cases[i], map, y) != NPUC_OK)
            fail_msg("%s", u.error);
        for (int64_t p = 0; p < COUNT; p++)
            for (int64_t c = 0; c < width; c++)
                assert_true(y[p * width + c] == element(&cases[i], map, p, c));
        unit_end(&u);
    }
}

static void test_windows_without_columns_are_refused(void **state)
{
    (void)state;
    static const struct windows none = {.stride = {1, 1}, .step = {1, 1}, .taps = {1, 1}, .dilation = {1, 1}};
    struct emu_unit u;
    float map[CHANNELS * MAP_H * MAP_W] = {0}, y[COUNT * CHANNELS * MOST_TAPS];
    assert_int_not_equal(gather(&u, &none, map, y), NPUC_OK);
    assert_non_null(strstr(u.error, "24 windows of 6 channels"));
    unit_end(&u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_races_are_found),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_windows_without_columns_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
