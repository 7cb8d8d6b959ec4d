/* IM2COL: windows of a feature map against plain loops, what it refuses, its time and its text. */
#include "tests/unit/emu_unit.h"

enum { H = 5, W = 7, CHANNELS = 11, N = 24, LINES = 40 };

struct windows {
    int stride[2], step[2], y0, x0, first, cols;
    float pad;
};

static float map_at(int c, int y, int x)
{
    return (float)(1 + c * 100 + y * 10 + x);
}

static float element(const struct windows *w, int c, int p)
{
    const int q = w->first + p, y = w->y0 + q / w->cols * w->stride[0], x = w->x0 + q % w->cols * w->stride[1];
    if (y < 0 || x < 0 || y % w->step[0] || x % w->step[1] || y / w->step[0] >= H || x / w->step[1] >= W)
        return w->pad;
    return map_at(c, y / w->step[0], x / w->step[1]);
}

static int64_t bits_of(float v)
{
    int32_t i;
    memcpy(&i, &v, sizeof i);
    return i;
}

/* The map is [2][LINES][8] in GM already; ones times the windows, so that a row of the result is a sum over channels.
 */
static void program(struct emu_unit *u, const struct windows *w, const int32_t t[3], int64_t h)
{
    const expr z = num(u, 0), one = num(u, 1);
    const int32_t map = unit_buf(u, TS_L1, 1, 2 * LINES * 32), ones = unit_buf(u, TS_L1, 1, 2 * 16 * 32);
    const int32_t l0a = unit_buf(u, TS_L0A, 1, 4096), l0b = unit_buf(u, TS_L0B, 1, 4096),
                  c = unit_buf(u, TS_L0C, 1, 4096);
    unit_load(u, map, 0, t[0], 0, DT_F32, 2 * LINES * 8);
    unit_load(u, ones, 0, t[1], 0, DT_F32, 2 * 16 * 8);
    unit_flag(u, TU_MTE2, TU_MTE1, 0);
    TILE(&u->b, COPY_L0A, l0a, ones, z, num(u, 16), DT_F32, one, num(u, CHANNELS), 0);
    TILE(&u->b, IM2COL, l0b, map, z, num(u, LINES), num(u, W), DT_F32, num(u, N), num(u, CHANNELS), num(u, h),
         num(u, W), num(u, w->y0), num(u, w->x0), num(u, w->first), num(u, w->cols), w->stride[0], w->stride[1],
         w->step[0], w->step[1], num(u, bits_of(w->pad)));
    unit_flag(u, TU_MTE1, TU_M, 0);
    TILE(&u->b, MAC, c, l0a, l0b, -1, DT_F32, one, num(u, N), num(u, CHANNELS), one);
    unit_flag(u, TU_M, TU_FIX, 0);
    TILE(&u->b, FIXP, t[2], z, num(u, N), c, num(u, 16), DT_F32, DT_F32, one, num(u, N), 0, -1, z);
}

static void begin(struct emu_unit *u, const struct windows *w, int64_t h, float *y)
{
    static float map[2 * LINES * 8], ones[2 * 16 * 8];
    for (int i = 0; i < 2 * LINES * 8; i++) {
        const int c = i / (LINES * 8) * 8 + i % 8, at = i / 8 % LINES;
        map[i] = c < CHANNELS && at < H * W ? map_at(c, at / W, at % W) : 0;
    }
    for (int i = 0; i < 2 * 16 * 8; i++)
        ones[i] = 1;
    unit_begin(u, TCORE_CUBE);
    const int32_t t[3] = {unit_tensor(u, DT_F32, map, sizeof map), unit_tensor(u, DT_F32, ones, sizeof ones),
                          unit_tensor(u, DT_F32, y, N * sizeof *y)};
    program(u, w, t, h);
}

static void check(const struct windows *w)
{
    struct emu_unit u;
    float y[N];
    begin(&u, w, H, y);
    if (unit_run(&u, 1, true) != NPUC_OK)
        fail_msg("%s", u.error);
    for (int p = 0; p < N; p++) {
        float sum = 0;
        for (int c = 0; c < CHANNELS; c++)
            sum += element(w, c, p);
        assert_true(y[p] == sum);
    }
    unit_end(&u);
}

static void fails(struct emu_unit *u, const char *with)
{
    assert_int_not_equal(unit_run(u, 1, false), NPUC_OK);
    assert_non_null(strstr(u->error, with));
}

static void test_windows(void **state)
{
    (void)state;
    check(&(struct windows){.stride = {1, 1}, .step = {1, 1}, .cols = W});
    check(&(struct windows){.stride = {1, 1}, .step = {1, 1}, .y0 = -1, .x0 = -2, .first = 3, .cols = 9});
    check(&(struct windows){.stride = {2, 3}, .step = {1, 1}, .y0 = -1, .x0 = 1, .cols = 4, .pad = 0.5f});
    check(&(struct windows){.stride = {1, 1}, .step = {2, 3}, .y0 = -2, .x0 = -1, .first = 1, .cols = 13});
    check(&(struct windows){.stride = {1, 1}, .step = {1, 1}, .y0 = -100, .cols = 2, .pad = 1.0f});
}

static void test_beyond_the_map_is_refused(void **state)
{
    (void)state;
    const struct windows w = {.stride = {1, 1}, .step = {1, 1}, .cols = W};
    struct emu_unit u;
    float y[N];
    begin(&u, &w, 2 * H + 2, y); /* more rows than the buffer holds */
    fails(&u, "IM2COL");
    unit_end(&u);
    const struct windows none = {.stride = {1, 1}, .step = {1, 1}, .cols = 0};
    begin(&u, &none, H, y);
    fails(&u, "24 windows of 11 channels");
    unit_end(&u);
}

static void test_text(void **state)
{
    (void)state;
    const struct windows w = {.stride = {2, 1}, .step = {1, 1}, .cols = W};
    struct emu_unit u;
    float y[N];
    begin(&u, &w, H, y);
    const char *text = tile_kernel_text(u.b.k, &u.arena);
    assert_non_null(strstr(text, "im2col.f32"));
    unit_end(&u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_beyond_the_map_is_refused),
        cmocka_unit_test(test_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
