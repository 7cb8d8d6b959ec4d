/* Multiply-accumulate: fractal, strided, scalar and SIMD forms give the bits of a plain loop; layout conversions
 * round-trip. */
#include "unit.h"

#include "base/half.h"
#include "kernels/loops.h"
#include "kernels/mac.h"
#include "kernels/vec.h"
#include "kernels/wide.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct problem {
    enum dtype t;
    int64_t m, n, k, c0, m1, n1, k1;
    int size;
    bool init;
    int64_t rare;           /* see elements_with */
    uint8_t *a, *b, *bt;    /* dense [m][k], [k][n], [n][k] */
    uint8_t *fa, *fb;       /* fractals */
    uint32_t *start, *want; /* [m][n] bits of f32 or i32 */
};

static int64_t random_below(uint64_t *seed, int64_t n)
{
    return (int64_t)(unit_random(seed) % (uint64_t)n);
}

/* One element in `rare` is special (0: none): not finite, subnormal or without a value; of bytes the least. */
static void elements_with(uint8_t *p, enum dtype t, int64_t n, uint64_t *seed, int64_t rare)
{
    static const float special[] = {NAN, INFINITY, -INFINITY, -0.0f, 0x1p-149f, -0x1p-130f, 0x1p-24f, 0x1.fp-16f};
    for (int64_t i = 0; i < n; i++) {
        const bool odd = rare > 0 && random_below(seed, rare) == 0;
        float v = (float)(random_below(seed, 2001) - 1000) / 517.0f;
        if (odd)
            v = special[random_below(seed, NPUC_ARRAY_LEN(special))];
        if (dtype_is_float(t))
            k_cast(t, p + i * dtype_size(t), DT_F32, &v, 1, false);
        else
            p[i] = odd ? 0x80 : (uint8_t)unit_random(seed);
    }
}
static void elements(uint8_t *p, enum dtype t, int64_t n, uint64_t *seed)
{
    elements_with(p, t, n, seed, 0);
}
static void make(struct problem *p, uint64_t *seed)
{
    p->size = dtype_size(p->t);
    p->c0 = 32 / p->size;
    p->m1 = (p->m + 15) / 16;
    p->n1 = (p->n + 15) / 16;
    p->k1 = (p->k + p->c0 - 1) / p->c0;
    p->a = malloc((size_t)(p->m * p->k * p->size));
    p->b = malloc((size_t)(p->k * p->n * p->size));
    p->bt = malloc((size_t)(p->k * p->n * p->size));
    p->fa = malloc((size_t)(p->m1 * p->k1 * 512));
    p->fb = malloc((size_t)(p->n1 * p->k1 * 512));
    p->start = calloc((size_t)(p->m * p->n), 4);
    p->want = malloc((size_t)(p->m * p->n * 4));
    memset(p->fa, 0x7f, (size_t)(p->m1 * p->k1 * 512));
    memset(p->fb, 0x7f, (size_t)(p->n1 * p->k1 * 512));
    elements_with(p->a, p->t, p->m * p->k, seed, p->rare);
    elements_with(p->b, p->t, p->k * p->n, seed, p->rare);
    const size_t s = (size_t)p->size;
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t k = 0; k < p->k; k++)
            memcpy(p->fa + (((i / 16 * p->k1 + k / p->c0) * 16 + i % 16) * p->c0 + k % p->c0) * p->size,
                   p->a + (i * p->k + k) * p->size, s);
    for (int64_t k = 0; k < p->k; k++)
        for (int64_t j = 0; j < p->n; j++) {
            const uint8_t *x = p->b + (k * p->n + j) * p->size;
            memcpy(p->fb + (((k / p->c0 * p->n1 + j / 16) * 16 + j % 16) * p->c0 + k % p->c0) * p->size, x, s);
            memcpy(p->bt + (j * p->k + k) * p->size, x, s);
        }
    for (int64_t j = 0; !p->init && j < p->n; j++) { /* one row of starting values, so that it serves as a bias too */
        const float v = (float)random_below(seed, 100) / 3.0f;
        for (int64_t i = 0; i < p->m; i++)
            memcpy(&p->start[i * p->n + j], &v, 4);
    }
}
static void destroy(struct problem *p)
{
    void *all[] = {p->a, p->b, p->bt, p->fa, p->fb, p->start, p->want};
    for (int i = 0; i < 7; i++)
        free(all[i]);
}

static void plain_loop(const struct problem *p)
{
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++) {
            float sum;
            uint32_t whole = p->start[i * p->n + j];
            memcpy(&sum, &whole, 4);
            for (int64_t k = 0; k < p->k; k++) {
                const uint8_t *x = p->a + (i * p->k + k) * p->size, *y = p->b + (k * p->n + j) * p->size;
                float u = 0, v = 0;
                int64_t q, r;
                if (dtype_is_float(p->t)) {
                    k_cast(DT_F32, &u, p->t, x, 1, true);
                    k_cast(DT_F32, &v, p->t, y, 1, true);
                    sum = fmaf(u, v, sum);
                } else {
                    k_cast(DT_I64, &q, p->t, x, 1, true);
                    k_cast(DT_I64, &r, p->t, y, 1, true);
                    whole += (uint32_t)(q * r);
                }
            }
            if (dtype_is_float(p->t))
                memcpy(&whole, &sum, 4);
            p->want[i * p->n + j] = whole;
        }
}
/* The same bits; which of two NaN a fused step keeps is the compiler's choice, though. */
static void assert_same(const struct problem *p, uint32_t got, uint32_t want)
{
    const uint32_t inf = 0x7f800000, magnitude = 0x7fffffff;
    if (!dtype_is_float(p->t) || (want & magnitude) <= inf || (got & magnitude) <= inf)
        assert_int_equal(got, want);
}
static void check_fractal(const struct problem *p)
{
    uint32_t *c = malloc((size_t)(p->n1 * p->m1 * 1024));
    memset(c, 0, (size_t)(p->n1 * p->m1 * 1024));
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++)
            c[(j / 16 * p->m1 * 16 + i) * 16 + j % 16] = p->start[i * p->n + j];
    k_mac_fractal(&(struct k_mac_args){p->t, p->m, p->n, p->k, p->fa, p->fb, c, p->init, 0});
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++)
            assert_same(p, c[(j / 16 * p->m1 * 16 + i) * 16 + j % 16], p->want[i * p->n + j]);
    free(c);
}
static void check_strided(const struct problem *p, bool transposed)
{
    uint32_t *c = malloc((size_t)(p->m * p->n * 4));
    k_matmul(&(struct k_matmul_args){.dtype = p->t,
                                     .m = p->m,
                                     .n = p->n,
                                     .k = p->k,
                                     .a = p->a,
                                     .b = transposed ? p->bt : p->b,
                                     .a_row = p->k,
                                     .a_col = 1,
                                     .b_row = transposed ? 1 : p->n,
                                     .b_col = transposed ? p->k : 1,
                                     .c = c,
                                     .c_row = p->n,
                                     .bias = p->init ? NULL : p->start},
             NULL);
    for (int64_t i = 0; i < p->m * p->n; i++)
        assert_same(p, c[i], p->want[i]);
    free(c);
}

static void at_all_levels(struct problem *p, uint64_t *seed)
{
    make(p, seed);
    plain_loop(p);
    for (enum k_simd_level simd = K_SIMD_NONE; simd < K_SIMD_LEVELS; simd++) {
        k_simd_limit(simd);
        check_fractal(p);
        check_strided(p, false);
        check_strided(p, true);
    }
    destroy(p);
}

static void test_forms_agree(void **state)
{
    (void)state;
    static const enum dtype types[] = {DT_F32, DT_F16, DT_BF16, DT_I8, DT_U8, DT_F8E4M3FN, DT_F8E5M2};
    uint64_t seed = 5;
    for (int i = 0; i < 70; i++) {
        struct problem p = {.t = types[i % 7],
                            .m = i % 5 ? 1 + random_below(&seed, 40) : 1,
                            .n = 1 + random_below(&seed, i % 5 ? 70 : 300),
                            .k = 1 + random_below(&seed, i % 9   ? 100
                                                         : i % 5 ? 700
                                                                 : 3000),
                            .init = i % 2};
        at_all_levels(&p, &seed);
    }
}

/* Every number of rows of a tile, K beside and at the ends of cells, fractals and blocks. */
static void test_edges_agree(void **state)
{
    (void)state;
    static const enum dtype types[] = {DT_F32, DT_F16, DT_BF16, DT_I8, DT_U8, DT_F8E4M3FN};
    static const int64_t around[] = {1, 8, 16, 32, 256, 512, 1024, 2048};
    uint64_t seed = 11;
    for (int t = 0; t < NPUC_ARRAY_LEN(types); t++)
        for (int64_t m = 1; m <= 18; m++) {
            const int64_t at = around[random_below(&seed, NPUC_ARRAY_LEN(around))];
            struct problem p = {.t = types[t],
                                .m = m,
                                .n = 1 + random_below(&seed, 34),
                                .k = at + random_below(&seed, 6),
                                .init = m % 2,
                                .rare = m % 3 ? 1 + at * 4 : 0};
            at_all_levels(&p, &seed);
        }
    /* rows for more than one block of them, one of K and several */
    for (int t = 0; t < NPUC_ARRAY_LEN(types); t++)
        for (int64_t k = 30; k < 1300; k += 640)
            at_all_levels(&(struct problem){.t = types[t], .m = 300 + t, .n = 17, .k = k, .rare = 300}, &seed);
}

static void test_layouts(void **state)
{
    (void)state;
    uint64_t seed = 9;
    for (int i = 0; i < 60; i++) {
        const int size = 1 << i % 3;
        const int64_t rows = 1 + random_below(&seed, 40), cols = 1 + random_below(&seed, 50), c0 = 32 / size,
                      pad = (rows + 15) / 16 * 16;
        const int64_t c1 = (cols + c0 - 1) / c0, n = c1 * pad * c0;
        const bool transposed = i % 2;
        uint8_t *x = malloc((size_t)(rows * cols * size)), *nz = malloc((size_t)(n * size)),
                *y = malloc((size_t)(rows * cols * size));
        for (int64_t k = 0; k < rows * cols * size; k++)
            x[k] = (uint8_t)unit_random(&seed);
        memset(nz, 0xff, (size_t)(n * size));
        k_nd_to_nz(nz, pad, x, transposed ? 1 : cols, transposed ? rows : 1, rows, cols, c0, size);
        for (int64_t c = 0; c < c1 * c0; c++)
            for (int64_t r = 0; r < pad; r++) {
                static const uint8_t zero[4];
                const bool inside = r < rows && c < cols;
                const uint8_t *want = inside ? x + (transposed ? c * rows + r : r * cols + c) * size : zero;
                assert_memory_equal(nz + ((c / c0 * pad + r) * c0 + c % c0) * size, want, (size_t)size);
            }
        k_nz_to_nd(y, cols, nz, pad, rows, cols, c0, size);
        if (!transposed)
            assert_memory_equal(x, y, (size_t)(rows * cols * size));
        free(x);
        free(nz);
        free(y);
    }
}

static void test_block_codes(void **state)
{
    (void)state;
    const uint8_t codes[2] = {0x3c, 0xf1};
    float y[4];
    k_dequant_block(y, codes, 0, 4, DT_U4, 0.5f, 8.0f);
    assert_memory_equal(y, ((float[]){2.0f, -2.5f, -3.5f, 3.5f}), sizeof y);
    k_dequant_block(y, codes, 1, 3, DT_U2, 2.0f, 1.0f);
    assert_memory_equal(y, ((float[]){4.0f, 4.0f, -2.0f}), 3 * sizeof *y);
    k_dequant_block(y, codes, 0, 4, DT_F4E2M1, 0.5f, 0); /* codes c, 3, 1, f */
    assert_memory_equal(y, ((float[]){-1.0f, 0.75f, 0.25f, -3.0f}), sizeof y);
    k_dequant_block(y, codes, 1, 1, DT_F8E5M2, 2.0f, 0);
    assert_memory_equal(y, ((float[]){-20480.0f}), sizeof *y);
}

/* Rows of codes: SIMD and scalar forms, also where a scale is infinite. */
static void test_code_rows(void **state)
{
    (void)state;
    enum { ROWS = 5, COLS = 96, BLOCKS = 8 };
    uint64_t seed = 3;
    uint8_t codes[ROWS * 128], scales[ROWS * BLOCKS * 4], zeros[ROWS * BLOCKS * 4], y[K_SIMD_LEVELS][ROWS * COLS * 4];
    for (int i = 0; i < 60; i++) {
        const enum dtype st = i % 2 ? DT_F16 : DT_F32;
        for (int64_t k = 0; k < (int64_t)sizeof codes; k++)
            codes[k] = (uint8_t)unit_random(&seed);
        elements(scales, st, ROWS * BLOCKS, &seed);
        elements(zeros, st, ROWS * BLOCKS, &seed);
        if (i % 7 == 0)
            k_cast(st, scales + 2 * dtype_size(st), DT_F32, &(float){INFINITY}, 1, true);
        struct k_code_rows g = {.to = i % 3 ? DT_F16 : DT_F32,
                                .code = i % 5 ? DT_U4 : DT_U8,
                                .scale_type = st,
                                .zero = (enum k_zero)(i % 4 % 3),
                                .rows = ROWS,
                                .cols = i % 11 ? 64 : 59,
                                .first = i % 13 ? 32 : 20,
                                .block = i % 6 ? 32 : 16,
                                .codes = codes,
                                .scales = scales,
                                .zeros = zeros,
                                .code_row = 128,
                                .scale_row = BLOCKS * dtype_size(st),
                                .zero_row = BLOCKS * dtype_size(st),
                                .dst_row = COLS * 4};
        if (i % 9 > 3) { /* stripes */
            g.group = i % 9 > 6 ? 16 : 8;
            g.dst_row = g.group * dtype_size(g.to);
            g.group_step = g.dst_row * ROWS;
        }
        for (enum k_simd_level simd = K_SIMD_NONE; simd < K_SIMD_LEVELS; simd++) {
            memset(y[simd], 0, sizeof *y);
            g.dst = y[simd];
            k_simd_limit(simd);
            k_dequant_rows(&g);
        }
        for (enum k_simd_level simd = K_SIMD_AVX2; simd < K_SIMD_LEVELS; simd++)
            assert_memory_equal(y[0], y[simd], sizeof *y);
    }
}

/* One row times codes: the bits of making them numbers first, from rows that lie in two places. */
static void test_row_times_codes(void **state)
{
    (void)state;
    enum { N = 48, K = 320, MOST = N * K * 4 };
    static uint8_t codes[N * K], scales[N * K], zeros[N * K], made[MOST], lines[K * 64];
    uint64_t seed = 8;
    for (int i = 0; i < 400; i++) {
        const bool usual = i % 2; /* scales and blocks as quantisers make them */
        const enum dtype t = usual || i % 3 ? DT_F16 : DT_F32, st = i % 5 % 2 ? DT_F32 : DT_F16;
        const int64_t c0 = 32 / dtype_size(t), step = usual ? 32 : 16,
                      k = i % 7 ? step * (1 + random_below(&seed, 192 / step)) : 5 + random_below(&seed, 90);
        const int64_t first = step * random_below(&seed, 112 / step), n = 1 + random_below(&seed, N),
                      cut = random_below(&seed, n + 1);
        const struct k_code_rows w = {.to = t,
                                      .code = i % 11 ? i / 2 % 4 ? DT_U4 : DT_U8 : DT_U2,
                                      .scale_type = st,
                                      .zero = (enum k_zero)random_below(&seed, 3),
                                      .rows = n,
                                      .cols = (k + c0 - 1) / c0 * c0,
                                      .first = first,
                                      .block = 16 << i % 5,
                                      .codes = codes,
                                      .scales = scales,
                                      .zeros = zeros,
                                      .code_row = K,
                                      .scale_row = 84,
                                      .zero_row = 84,
                                      .dst = made,
                                      .dst_row = 32,
                                      .group = c0,
                                      .group_step = (n + 15) / 16 * 512};
        struct k_code_rows low = w;
        low.code_row = K;
        float c[2][N * 16];
        for (int64_t j = 0; j < N * K; j++)
            codes[j] = (uint8_t)unit_random(&seed);
        elements(scales, st, N * 84 / 4, &seed);
        for (int64_t j = 0; usual && j < N * 84 / dtype_size(st); j++) { /* of f16, down to its least normal number */
            const float s = half_f16_to_f32((uint16_t)(0x400 + random_below(&seed, 0x5800)));
            k_cast(st, scales + j * dtype_size(st), DT_F32, &s, 1, true);
        }
        for (int64_t j = dtype_size(st) - 1; i / 4 % 2 && j < N * K; j += dtype_size(st))
            scales[j] &= 127; /* none below 0 */
        elements(zeros, st, N * 84 / 4, &seed);
        if (i % 13 == 0) /* beyond f16; subnormal in it */
            k_cast(st, scales + 3 * 84, DT_F32, (float[]){i % 2 ? INFINITY : 60000.0f, 0x1p-20f}, 2, true);
        elements(lines, t, K * 64 / dtype_size(t), &seed);
        for (enum k_simd_level simd = K_SIMD_NONE; simd < K_SIMD_LEVELS; simd++) {
            k_simd_limit(simd);
            elements((uint8_t *)c[0], DT_F32, N * 16, &(uint64_t){(uint64_t)i + 1});
            memcpy(c[1], c[0], sizeof *c);
            k_dequant_rows(&w);
            struct k_mac_args g = {.dtype = t, .m = 1, .n = n, .k = k, .a = lines, .b = made, .c = c[0], .init = i % 2};
            k_mac_fractal(&g);
            const struct k_code_part parts[2] = {{&w, 0, cut, 0, first}, {&low, cut, n - cut, cut, first}};
            g.c = c[1];
            k_mac_codes(&g, parts, 2);
            for (int64_t j = 0; j < n; j++)
                assert_memory_equal(&c[0][j / 16 * 256 + j % 16], &c[1][j / 16 * 256 + j % 16], sizeof **c);
        }
    }
}

/* Element (row, k) of an operand in fractals whose rows of fractals are `step_row` apart, those along K step_k. */
struct coded {
    enum dtype t;
    uint8_t *codes, *scales;
    int64_t step_row, step_k, s1;
};
static float coded_at(const struct coded *c, int64_t row, int64_t k)
{
    const int64_t c0 = 256 / dtype_table[c->t].bits, j = k / 32;
    const int64_t line = (row / 16 * c->step_row + k / c0 * c->step_k) * 16 + row % 16;
    float v;
    k_load_f32(&v, c->t, c->codes, line * c0 + k % c0, 1);
    return v * half_small_to_f32(DT_F8E8M0, c->scales[((row / 16 * c->s1 + j / 2) * 16 + row % 16) * 2 + j % 2]);
}

static void fill_codes(uint8_t *p, int64_t n, uint64_t *seed)
{
    for (int64_t i = 0; i < n; i++)
        p[i] = (uint8_t)unit_random(seed) & 0xb7; /* no NaN, no infinity */
}

static void check_scaled(enum dtype ta, enum dtype tb, int64_t k, uint64_t *seed)
{
    enum { M = 19, N = 37, MOST = 3 * 8 * 512 };
    const int64_t k1 = (k * dtype_table[ta].bits + 255) / 256, s1 = ((k + 31) / 32 + 1) / 2;
    uint8_t codes[2][MOST], scales[2][3 * 8 * 32];
    float c[3 * 32 * 16], want[M][N];
    const struct coded a = {ta, codes[0], scales[0], k1, 1, s1}, b = {tb, codes[1], scales[1], 1, 3, s1};
    for (int i = 0; i < 2; i++) {
        fill_codes(codes[i], MOST, seed);
        for (int64_t j = 0; j < (int64_t)sizeof scales[i]; j++)
            scales[i][j] = (uint8_t)(110 + random_below(seed, 30));
    }
    for (int64_t m = 0; m < M; m++)
        for (int64_t n = 0; n < N; n++) {
            want[m][n] = 0;
            for (int64_t i = 0; i < k; i++)
                want[m][n] = fmaf(coded_at(&a, m, i), coded_at(&b, n, i), want[m][n]);
        }
    for (enum k_simd_level simd = K_SIMD_NONE; simd < K_SIMD_LEVELS; simd++) {
        k_simd_limit(simd);
        k_mac_scaled(
            &(struct k_mac_args){
                .dtype = ta, .m = M, .n = N, .k = k, .a = codes[0], .b = codes[1], .c = c, .init = true},
            &(struct k_mac_scales){tb, 32, scales[0], scales[1]});
        for (int64_t m = 0; m < M; m++)
            for (int64_t n = 0; n < N; n++)
                assert_memory_equal(&c[(n / 16 * 32 + m) * 16 + n % 16], &want[m][n], sizeof **want);
    }
}

static void test_scaled(void **state)
{
    (void)state;
    uint64_t seed = 5;
    for (int64_t k = 1; k <= 256; k += 51) {
        check_scaled(DT_F8E4M3FN, DT_F8E4M3FN, k, &seed);
        check_scaled(DT_F8E5M2, DT_F8E4M3FN, k, &seed);
        check_scaled(DT_F4E2M1, DT_F4E2M1, k, &seed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_forms_agree),    cmocka_unit_test(test_edges_agree),
                                       cmocka_unit_test(test_layouts),        cmocka_unit_test(test_block_codes),
                                       cmocka_unit_test(test_scaled),         cmocka_unit_test(test_code_rows),
                                       cmocka_unit_test(test_row_times_codes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
