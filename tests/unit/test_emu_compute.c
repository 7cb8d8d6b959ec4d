/* Matrix and vector instructions of the emulated cores against plain loops. */
#include "tests/unit/emu_unit.h"

#include "kernels/mac.h"
#include "kernels/vec.h"

static void fill(float *x, int64_t n, int seed)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)((i * 37 + seed * 11) % 64 - 31) / 8;
}

struct product {
    int m, n, k;
    bool trans_a, trans_b, bias, relu;
    enum dtype dtype;
};

/* Operands in the dtype of the case, dense. */
static void narrow(enum dtype t, void *dst, const float *x, int64_t n)
{
    k_cast(t, dst, DT_F32, x, n, true);
}

/* One tile: a [m,k] (or [k,m]), b [n,k] (or [k,n]) through L1 and L0, result to GM. */
static void product_program(struct emu_unit *u, const struct product *g, const int32_t t[4])
{
    const int size = dtype_size(g->dtype), c0 = 32 / size;
    const int64_t ra = g->trans_a ? g->k : g->m, ca = g->trans_a ? g->m : g->k, rb = g->trans_b ? g->k : g->n,
                  cb = g->trans_b ? g->n : g->k;
    const int64_t pa = (ra + 15) / 16 * 16, pb = (rb + 15) / 16 * 16, pm = (g->m + 15) / 16 * 16;
    const expr zero = num(u, 0), one = num(u, 1);
    const int32_t a1 = unit_buf(u, TS_L1, 1, (ca + c0 - 1) / c0 * pa * 32),
                  b1 = unit_buf(u, TS_L1, 1, (cb + c0 - 1) / c0 * pb * 32);
    const int32_t s1 = unit_buf(u, TS_L1, 1, 1024), bt = unit_buf(u, TS_BT, 1, 1024);
    const int32_t a0 = unit_buf(u, TS_L0A, 1, 32768), b0 = unit_buf(u, TS_L0B, 1, 32768),
                  c = unit_buf(u, TS_L0C, 1, 65536);
    TILE(&u->b, LOAD_NZ, a1, zero, num(u, pa), t[0], zero, (int32_t)g->dtype, num(u, ra), num(u, ca), num(u, ca), one);
    TILE(&u->b, LOAD_NZ, b1, zero, num(u, pb), t[1], zero, (int32_t)g->dtype, num(u, rb), num(u, cb), num(u, cb), one);
    unit_load(u, s1, 0, t[2], 0, DT_F32, g->n);
    unit_flag(u, TU_MTE2, TU_MTE1, 0);
    TILE(&u->b, COPY_L0A, a0, a1, zero, num(u, pa), (int32_t)g->dtype, num(u, g->m), num(u, g->k), g->trans_a);
    TILE(&u->b, COPY_L0B, b0, b1, zero, num(u, pb), (int32_t)g->dtype, num(u, g->n), num(u, g->k), g->trans_b);
    TILE(&u->b, COPY_BT, bt, s1, zero, DT_F32, num(u, g->n));
    unit_flag(u, TU_MTE1, TU_M, 0);
    TILE(&u->b, MAC, c, a0, b0, bt, (int32_t)g->dtype, num(u, g->m), num(u, g->n), num(u, g->k),
         num(u, g->bias ? 2 : 1));
    unit_flag(u, TU_M, TU_FIX, 0);
    TILE(&u->b, FIXP, t[3], zero, num(u, g->n), c, num(u, pm), DT_F32, DT_F32, num(u, g->m), num(u, g->n), g->relu, -1,
         zero);
}

static void check_product(const struct product *g)
{
    enum { M = 40, N = 70, K = 50 };
    static float fa[M * K], fb[N * K], bias[N], y[M * N], want[M * N];
    static double a[M * K], b[N * K]; /* room for any dtype */
    fill(fa, M * K, 1), fill(fb, N * K, 2), fill(bias, N, 3);
    narrow(g->dtype, a, fa, g->m * g->k), narrow(g->dtype, b, fb, g->n * g->k);
    struct emu_unit u;
    unit_begin(&u, TCORE_CUBE);
    const size_t size = (size_t)dtype_size(g->dtype);
    const int32_t ta = unit_tensor(&u, g->dtype, a, size * (size_t)(g->m * g->k)),
                  tb = unit_tensor(&u, g->dtype, b, size * (size_t)(g->n * g->k));
    const int32_t t[4] = {ta, tb, unit_tensor(&u, DT_F32, bias, sizeof bias),
                          unit_tensor(&u, DT_F32, y, sizeof(float) * (size_t)(g->m * g->n))};
    product_program(&u, g, t);
    const enum npuc_status s = unit_run(&u, 1, true);
    if (s != NPUC_OK)
        print_error("%s\n", u.error);
    assert_int_equal(s, NPUC_OK);
    const struct k_matmul_args r = {.dtype = g->dtype,
                                    .m = g->m,
                                    .n = g->n,
                                    .k = g->k,
                                    .a = a,
                                    .b = b,
                                    .a_row = g->trans_a ? 1 : g->k,
                                    .a_col = g->trans_a ? g->m : 1,
                                    .b_row = g->trans_b ? g->n : 1,
                                    .b_col = g->trans_b ? 1 : g->k,
                                    .c = want,
                                    .c_row = g->n,
                                    .bias = g->bias ? bias : NULL};
    k_matmul(&r, NULL);
    for (int64_t i = 0; i < g->m * g->n; i++)
        assert_true(y[i] == (g->relu && want[i] < 0 ? 0 : want[i]));
    unit_end(&u);
}

static void test_products(void **state)
{
    (void)state;
    static const enum dtype types[] = {DT_F32, DT_F16, DT_BF16};
    static const int shapes[][3] = {{1, 1, 1}, {1, 70, 50}, {16, 16, 16}, {17, 33, 9}, {40, 64, 50}, {5, 24, 40}};
    for (int64_t t = 0; t < NPUC_ARRAY_LEN(types); t++)
        for (int64_t i = 0; i < NPUC_ARRAY_LEN(shapes); i++)
            for (int flags = 0; flags < 16; flags++) {
                const struct product g = {shapes[i][0], shapes[i][1], shapes[i][2], flags & 1,
                                          flags & 2,    flags & 4,    flags & 8,    types[t]};
                check_product(&g);
            }
}

/* Sum of 3 rows in two chunks, then scaled by the sum of each row, an immediate, and a cast on the way out. */
static void test_vector_chain(void **state)
{
    (void)state;
    enum { R = 3, C = 100, PITCH = 104 };
    static float x[R * C];
    uint16_t y[R * C];
    fill(x, R * C, 4);
    struct emu_unit u;
    unit_begin(&u, TCORE_VECTOR);
    const int32_t tx = unit_tensor(&u, DT_F32, x, sizeof x), ty = unit_tensor(&u, DT_F16, y, sizeof y);
    const int32_t in = unit_buf(&u, TS_UB, 1, 2048), acc = unit_buf(&u, TS_UB, 1, 2048),
                  sum = unit_buf(&u, TS_UB, 1, 64), out = unit_buf(&u, TS_UB, 1, 1024);
    const expr zero = num(&u, 0), one = num(&u, 1), r = num(&u, R), c = num(&u, C), pitch = num(&u, PITCH),
               half = num(&u, 60);
    TILE(&u.b, LOAD, in, zero, tx, zero, DT_F32, one, one, r, c, zero, zero, c, one, zero, zero, pitch, one);
    unit_flag(&u, TU_MTE2, TU_V, 0);
    TILE(&u.b, RED_ADD, K_RED_SUM, DT_F32, r, half, acc, zero, in, zero, pitch, zero, one);
    TILE(&u.b, RED_ADD, K_RED_SUM, DT_F32, r, num(&u, C - 60), acc, zero, in, half, pitch, half, zero);
    TILE(&u.b, RED_END, K_RED_SUM, DT_F32, r, sum, zero, one, acc, zero);
    TILE(&u.b, VEC, K_FN_Mul, DT_F32, r, c, in, zero, pitch, in, zero, pitch, 1, sum, zero, one, 0, -1, 0, zero, 0, 0,
         0, 0);
    TILE(&u.b, VEC, K_FN_Add, DT_F32, r, c, in, zero, pitch, in, zero, pitch, 1, -1, tile_float_bits(0.5f), zero, 0, -1,
         0, zero, 0, 0, 0, 0);
    TILE(&u.b, CAST, DT_F16, DT_F32, r, c, out, zero, c, in, zero, pitch, 1, 0);
    unit_flag(&u, TU_V, TU_MTE3, 0);
    unit_store(&u, ty, 0, out, 0, DT_F16, R * C);
    assert_int_equal(unit_run(&u, 1, true), NPUC_OK);
    for (int i = 0; i < R; i++) {
        union k_lanes lanes;
        float s;
        uint16_t want[C];
        k_red_init(K_RED_SUM, DT_F32, &lanes);
        k_red_add(K_RED_SUM, DT_F32, &lanes, x + i * C, C, 0);
        k_red_finish(K_RED_SUM, DT_F32, &lanes, &s);
        for (int j = 0; j < C; j++) {
            const float p = x[i * C + j] * s, q = p + 0.5f;
            k_cast(DT_F16, &want[j], DT_F32, &q, 1, true);
        }
        assert_memory_equal(y + i * C, want, sizeof want);
    }
    unit_end(&u);
}

static void test_transpose_and_copy(void **state)
{
    (void)state;
    enum { R = 19, C = 37 };
    static uint16_t x[R * C], y[C * R], z[R];
    for (int i = 0; i < R * C; i++)
        x[i] = (uint16_t)i;
    struct emu_unit u;
    unit_begin(&u, TCORE_VECTOR);
    const int32_t tx = unit_tensor(&u, DT_U16, x, sizeof x), ty = unit_tensor(&u, DT_U16, y, sizeof y),
                  tz = unit_tensor(&u, DT_U16, z, sizeof z);
    const int32_t in = unit_buf(&u, TS_UB, 1, 1408), out = unit_buf(&u, TS_UB, 1, 1408),
                  copy = unit_buf(&u, TS_UB, 1, 1408);
    const expr zero = num(&u, 0), one = num(&u, 1), r = num(&u, R), c = num(&u, C);
    unit_load(&u, in, 0, tx, 0, DT_U16, R * C);
    unit_flag(&u, TU_MTE2, TU_V, 0);
    TILE(&u.b, TRANSP, DT_U16, r, c, out, zero, r, in, zero, c);
    TILE(&u.b, COPY_UB, DT_U16, one, r, copy, zero, r, in, one, zero, 0);
    unit_flag(&u, TU_V, TU_MTE3, 0);
    unit_store(&u, ty, 0, out, 0, DT_U16, R * C);
    unit_store(&u, tz, 0, copy, 0, DT_U16, R);
    assert_int_equal(unit_run(&u, 1, true), NPUC_OK);
    for (int i = 0; i < R; i++)
        for (int j = 0; j < C; j++)
            assert_int_equal(y[j * R + i], x[i * C + j]);
    for (int i = 0; i < R; i++)
        assert_int_equal(z[i], x[1]);
    unit_end(&u);
}

/* 4-bit codes, blocks of 8, all kinds of zero points; starts in the middle of a row. */
static void test_dequant(void **state)
{
    (void)state;
    uint8_t codes[2][16], zeros[2][2] = {{0x31, 0x75}, {0xa8, 0x0f}};
    float scale[2][4] = {{1, 2, 4, 0.5f}, {3, 5, 7, 9}}, zf[2][4] = {{1, 2, 3, 4}, {5, 6, 7, 8}}, y[2][20];
    for (int i = 0; i < 32; i++)
        codes[i / 16][i % 16] = (uint8_t)(i * 29);
    for (int kind = 0; kind < 3; kind++) {
        struct emu_unit u;
        unit_begin(&u, TCORE_VECTOR);
        const int32_t tc = unit_tensor(&u, DT_U8, codes, sizeof codes),
                      ts = unit_tensor(&u, DT_F32, scale, sizeof scale);
        const int32_t tz =
            unit_tensor(&u, DT_U8, kind == 2 ? (void *)zf : (void *)zeros, kind == 2 ? sizeof zf : sizeof zeros);
        const int32_t ty = unit_tensor(&u, DT_F32, y, sizeof y);
        const int32_t bc = unit_buf(&u, TS_UB, 1, 64), bs = unit_buf(&u, TS_UB, 1, 64), bz = unit_buf(&u, TS_UB, 1, 64),
                      by = unit_buf(&u, TS_UB, 1, 192);
        unit_load(&u, bc, 0, tc, 0, DT_U8, sizeof codes);
        unit_load(&u, bs, 0, ts, 0, DT_F32, 8);
        unit_load(&u, bz, 0, tz, 0, DT_U8, kind == 2 ? sizeof zf : sizeof zeros);
        unit_flag(&u, TU_MTE2, TU_V, 0);
        const expr zero = num(&u, 0), two = num(&u, 2), n = num(&u, 20), first = num(&u, 5);
        TILE(&u.b, DEQUANT, DT_F32, DT_U4, two, n, first, 8, by, zero, n, bc, zero, num(&u, 16), bs, zero, num(&u, 4),
             DT_F32, kind ? bz : -1, zero, num(&u, kind == 2 ? 16 : 2), kind, 0, zero);
        unit_flag(&u, TU_V, TU_MTE3, 0);
        unit_store(&u, ty, 0, by, 0, DT_F32, 40);
        const enum npuc_status s = unit_run(&u, 1, true);
        if (s != NPUC_OK)
            print_error("%s\n", u.error);
        assert_int_equal(s, NPUC_OK);
        for (int r = 0; r < 2; r++)
            for (int c = 0; c < 20; c++) {
                const int i = c + 5, q = codes[r][i / 2] >> (i % 2 * 4) & 15, b = i / 8;
                const float z = kind == 0 ? 8 : kind == 1 ? (float)(zeros[r][b / 2] >> (b % 2 * 4) & 15) : zf[r][b];
                assert_true(y[r][c] == ((float)q - z) * scale[r][b]);
            }
        unit_end(&u);
    }
}

/* Groups of 8 columns, the last one shorter, in UB and on the way to GM: the first STORE takes rows further apart than
 * they are in UB, the second one all that UB holds. With a whole last group the first makes the result itself, unless
 * hazards are checked. */
struct stripes {
    uint8_t codes[48];
    float scale[16], y[8 * 20], all[96];
    int64_t cols, room; /* bytes in UB */
};
static enum npuc_status run_stripes(struct stripes *v, bool check)
{
    enum { ROWS = 2, GROUP = ROWS * 8, PITCH = 20 };
    struct emu_unit u;
    unit_begin(&u, TCORE_VECTOR);
    const int32_t tc = unit_tensor(&u, DT_U8, v->codes, 48), ts = unit_tensor(&u, DT_F32, v->scale, 64);
    const int32_t ty = unit_tensor(&u, DT_F32, v->y, sizeof v->y), ta = unit_tensor(&u, DT_F32, v->all, sizeof v->all);
    const int32_t bc = unit_buf(&u, TS_UB, 1, 64), bs = unit_buf(&u, TS_UB, 1, 64),
                  by = unit_buf(&u, TS_UB, 1, v->room);
    const expr zero = num(&u, 0), one = num(&u, 1), eight = num(&u, 8), group = num(&u, GROUP);
    const expr groups = num(&u, (v->cols + 7) / 8);
    unit_load(&u, bc, 0, tc, 0, DT_U8, 48);
    unit_load(&u, bs, 0, ts, 0, DT_F32, 16);
    unit_flag(&u, TU_MTE2, TU_V, 0);
    TILE(&u.b, FILL, DT_F32, one, num(&u, 96 - (v->room < 384 ? 16 : 0)), by, zero, num(&u, 96), tile_float_bits(0.0f));
    TILE(&u.b, DEQUANT, DT_F32, DT_U4, num(&u, ROWS), num(&u, v->cols), zero, 8, by, zero, eight, bc, zero, num(&u, 24),
         bs, zero, eight, DT_F32, -1, zero, zero, 0, 8, group);
    unit_flag(&u, TU_V, TU_MTE3, 0);
    TILE(&u.b, STORE, ty, zero, by, zero, DT_F32, one, groups, one, group, zero, group, zero, one, zero, num(&u, PITCH),
         zero, one);
    unit_store(&u, ta, 0, by, 0, DT_F32, 80);
    const enum npuc_status s = unit_run(&u, 1, check);
    unit_end(&u);
    return s;
}

static void test_dequant_stripes(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct stripes v = {.cols = i % 2 ? 44 : 48, .room = 384};
        for (int k = 0; k < 48; k++)
            v.codes[k] = (uint8_t)(k * 29);
        fill(v.scale, 16, 7);
        assert_int_equal(run_stripes(&v, i < 2), NPUC_OK);
        for (int r = 0; r < 2; r++)
            for (int c = 0; c < v.cols; c++) {
                const int q = v.codes[r * 24 + c / 2] >> (c % 2 * 4) & 15, at = c / 8 * 16 + r * 8 + c % 8;
                const float wanted = ((float)q - 8) * v.scale[r * 8 + c / 8];
                assert_true(v.y[c / 8 * 20 + r * 8 + c % 8] == wanted);
                assert_true(at >= 80 || v.all[at] == wanted);
            }
        v.room = 320; /* the last group is outside */
        assert_int_not_equal(run_stripes(&v, i < 2), NPUC_OK);
    }
}

/* Scale per column and narrowing on the way out of L0C. */
static void test_fixp_scale(void **state)
{
    (void)state;
    enum { M = 3, N = 20 };
    struct emu_unit u;
    float bias[N], scale[N];
    uint16_t y[M * N];
    float a[M * 8] = {0}, b[N * 8] = {0};
    fill(bias, N, 5), fill(scale, N, 6);
    unit_begin(&u, TCORE_CUBE);
    const int32_t ta = unit_tensor(&u, DT_F32, a, sizeof a), tb = unit_tensor(&u, DT_F32, b, sizeof b),
                  ts = unit_tensor(&u, DT_F32, bias, sizeof bias);
    const int32_t ty = unit_tensor(&u, DT_F32, y, sizeof y), tf = unit_tensor(&u, DT_F32, scale, sizeof scale);
    const struct product g = {M, N, 8, false, false, true, true, DT_F32};
    float dense[M * N];
    const int32_t td = unit_tensor(&u, DT_F32, dense, sizeof dense), t[4] = {ta, tb, ts, td};
    product_program(&u, &g, t);
    const int32_t c = (int32_t)u.b.at->bufs.len - 1;
    TILE(&u.b, FIXP, ty, num(&u, 0), num(&u, N), c, num(&u, 16), DT_F32, DT_F16, num(&u, M), num(&u, N), 1, tf,
         num(&u, 0));
    assert_int_equal(unit_run(&u, 1, true), NPUC_OK);
    for (int i = 0; i < M * N; i++) {
        const float v = (bias[i % N] < 0 ? 0 : bias[i % N]) * scale[i % N];
        uint16_t want;
        k_cast(DT_F16, &want, DT_F32, &v, 1, true);
        assert_int_equal(y[i], want);
    }
    unit_end(&u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products),           cmocka_unit_test(test_vector_chain),
        cmocka_unit_test(test_transpose_and_copy), cmocka_unit_test(test_dequant),
        cmocka_unit_test(test_dequant_stripes),    cmocka_unit_test(test_fixp_scale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
