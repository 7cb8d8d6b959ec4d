/* Multiply-accumulate on fractals and on strided matrices. Both pack 16 columns of b as f32 rows [k][16] for a block of
 * k and run the same register tile over the rows of a; partial sums rest in c (f32, exact), so k stays ascending. A
 * single row of f32 skips the packing: reading b once is all its cost. */
#include "kernels/mac.h"

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "base/pool.h"
#include "base/size.h"
#include "kernels/loops.h"
#include "kernels/mac_priv.h"
#include "kernels/vec.h"
#include "kernels/wide.h"

static void tile_scalar(const struct k_tile *t, int rows)
{
    for (int r = 0; r < rows; r++) {
        float acc[K_TILE_N] = {0};
        float *c = t->c + r * t->c_row;
        if (!t->init)
            memcpy(acc, c, sizeof acc);
        for (int64_t k = 0; k < t->k; k++) {
            const float a = t->a[k / t->c0 * t->a_step + r * t->c0 + k % t->c0];
            for (int n = 0; n < K_TILE_N; n++)
                acc[n] = fmaf(a, t->b[k * K_TILE_N + n], acc[n]);
        }
        memcpy(c, acc, sizeof acc);
    }
}
static void transpose_scalar(float *y, const float *x, int64_t c0)
{
    for (int64_t k = 0; k < c0; k++)
        for (int n = 0; n < K_TILE_N; n++)
            y[k * K_TILE_N + n] = x[n * c0 + k];
}
static void row_scalar(const struct k_row *g)
{
    for (int64_t n1 = 0; n1 < g->n1; n1++)
        for (int64_t i = 0; i < g->k; i++) {
            const float *b = g->b + i / 8 * g->b_step + n1 * 128 + i % 8;
            float *c = g->c + n1 * g->c_step;
            for (int n = 0; n < K_TILE_N; n++)
                c[n] = fmaf(g->a[i], b[n * 8], c[n]);
        }
}
static int32_t dot_scalar(const int8_t *x, const int8_t *y, int64_t n)
{
    uint32_t s = 0;
    for (int64_t i = 0; i < n; i++)
        s += (uint32_t)(x[i] * y[i]);
    return (int32_t)s;
}
static void transpose8_scalar(uint32_t *y, int64_t y_row, const uint32_t *x, int64_t x_row)
{
    for (int r = 0; r < 8; r++)
        for (int c = 0; c < 8; c++)
            y[c * y_row + r] = x[r * x_row + c];
}
const struct k_mac_impl k_mac_scalar = {tile_scalar, transpose_scalar, row_scalar, dot_scalar, transpose8_scalar};

const struct k_mac_impl *k_mac_impl(void)
{
#ifndef NPUC_SCALAR_ONLY
    if (k_simd())
        return &k_mac_avx2;
#endif
    return &k_mac_scalar;
}

static bool is_whole(enum dtype t)
{
    return t == DT_I8 || t == DT_U8;
}
bool k_mac_supports(enum dtype t)
{
    return is_whole(t) || (k_wide_of(t) == K_WIDE_F32 && dtype_size(t) > 0 && t != DT_F8E8M0);
}
bool k_mac_takes_scales(enum dtype t)
{
    return t == DT_F8E4M3FN || t == DT_F8E5M2 || t == DT_F4E2M1;
}

bool k_mac_takes_codes(enum dtype t)
{
    return k_mac_takes_scales(t) || t == DT_HIF8;
}

enum { FRACTAL = 512, MOST_C0 = 64 }; /* bytes; elements of a row */

/* One call of k_mac_fractal or k_mac_scaled. */
struct frac {
    const struct k_mac_args *g;
    const struct k_mac_scales *s; /* NULL: none */
    const struct k_mac_impl *impl;
    int64_t c0, m1, n1, k1;
    int64_t b_pitch; /* bytes */
    int64_t s1;      /* fractals of scales along K */
    enum dtype b_dtype;
};

static const char *a_at(const struct frac *f, int64_t m1, int64_t k1)
{
    return (const char *)f->g->a + (m1 * f->k1 + k1) * FRACTAL;
}
static const char *b_at(const struct frac *f, int64_t k1, int64_t n1)
{
    return (const char *)f->g->b + k1 * f->b_pitch + n1 * FRACTAL;
}
static float *c_at(const struct frac *f, int64_t m, int64_t n1)
{
    return (float *)f->g->c + (n1 * f->m1 * 16 + m) * 16;
}

/* The float elements of fractal (r1, k1) of an operand times their scales, those beyond K left out. */
static void scale_fractal(const struct frac *f, float *v, const uint8_t *scales, int64_t r1, int64_t k1)
{
    const int64_t block = f->s->block, left = f->g->k - k1 * f->c0, len = left < f->c0 ? left : f->c0;
    for (int64_t i = 0; i < len;) {
        const int64_t k = k1 * f->c0 + i, j = k / block, rest = block - k % block, n = rest < len - i ? rest : len - i;
        const uint8_t *s = scales + (r1 * f->s1 + j / 2) * 32 + j % 2;
        for (int r = 0; r < 16; r++)
            k_scale_blocks(v + r * f->c0 + i, 0, n, s + r * 2, 1, n);
        i += n;
    }
}

/* y[k][16] for k in [k0, k0 + len) of column block n1; k0 is a multiple of c0. */
static void pack_b(const struct frac *f, float *y, int64_t n1, int64_t k0, int64_t len)
{
    float wide[16 * MOST_C0];
    for (int64_t k = 0; k < len; k += f->c0) {
        const char *x = b_at(f, (k0 + k) / f->c0, n1);
        const float *v = (const float *)(const void *)x;
        if (f->b_dtype != DT_F32) {
            k_widen(wide, f->b_dtype, x, 0, 16 * f->c0);
            v = wide;
        }
        if (f->s)
            scale_fractal(f, wide, f->s->b, n1, (k0 + k) / f->c0);
        f->impl->transpose(y + k * K_TILE_N, v, f->c0);
    }
}

/* Rows [m1*16, m1*16 + rows) times b packed for block k0. */
static void rows_times(const struct frac *f, struct k_tile *t, int64_t m1, int64_t n1)
{
    const int64_t left = f->g->m - m1 * 16, rows = left < 16 ? left : 16;
    const float *a = t->a;
    for (int64_t r = 0; r < rows; r += K_TILE_M) {
        t->a = a + r * f->c0;
        t->c = c_at(f, m1 * 16 + r, n1);
        f->impl->tile(t, (int)(rows - r < K_TILE_M ? rows - r : K_TILE_M));
    }
    t->a = a;
}

/* Row blocks [m1, m1_end), all n, k in [k0, k0 + len). */
static void block(const struct frac *f, int64_t m1, int64_t m1_end, int64_t k0, int64_t len)
{
    float bt[K_BLOCK_K * K_TILE_N], at[K_BLOCK_M * K_BLOCK_K];
    const int64_t kb = size_ceil_div(len, f->c0), frac_len = 16 * f->c0;
    const bool direct = f->g->dtype == DT_F32;
    if (!direct)
        for (int64_t i = m1; i < m1_end; i++) {
            float *to = at + (i - m1) * kb * frac_len;
            k_widen(to, f->g->dtype, a_at(f, i, k0 / f->c0), 0, kb * frac_len);
            for (int64_t j = 0; f->s && j < kb; j++)
                scale_fractal(f, to + j * frac_len, f->s->a, i, k0 / f->c0 + j);
        }
    for (int64_t n1 = 0; n1 < f->n1; n1++) {
        pack_b(f, bt, n1, k0, len);
        for (int64_t i = m1; i < m1_end; i++) {
            struct k_tile t = {
                .a_step = frac_len, .c0 = f->c0, .b = bt, .k = len, .c_row = 16, .init = f->g->init && k0 == 0};
            t.a = direct ? (const float *)(const void *)a_at(f, i, k0 / f->c0) : at + (i - m1) * kb * frac_len;
            rows_times(f, &t, i, n1);
        }
    }
}

/* m = 1, f32: b is read once and in place. */
static void one_row(const struct frac *f)
{
    float a[K_BLOCK_K * 4];
    for (int64_t k0 = 0; k0 < f->g->k; k0 += K_BLOCK_K * 4) {
        const int64_t left = f->g->k - k0, len = left < K_BLOCK_K * 4 ? left : K_BLOCK_K * 4;
        for (int64_t k = 0; k < len; k += 8)
            memcpy(a + k, a_at(f, 0, (k0 + k) / 8), 8 * sizeof *a);
        for (int64_t n1 = 0; f->g->init && k0 == 0 && n1 < f->n1; n1++)
            memset(c_at(f, 0, n1), 0, 16 * sizeof *a);
        const struct k_row r = {
            a, (const float *)(const void *)b_at(f, k0 / 8, 0), f->b_pitch / 4, f->n1, len, c_at(f, 0, 0), f->m1 * 256};
        f->impl->row(&r);
    }
}

/* 8-bit integers: order does not matter to the wrapping sum, so each (m, n) is a dot product along c0. */
static void whole_numbers(const struct frac *f)
{
    const struct k_mac_args *g = f->g;
    int8_t a[32], b[32];
    for (int64_t n = 0; n < f->n1 * 16; n++)
        for (int64_t m = 0; m < g->m; m++) {
            int32_t *c = (int32_t *)g->c + (n / 16 * f->m1 * 16 + m) * 16 + n % 16;
            uint32_t sum = g->init ? 0 : (uint32_t)*c;
            for (int64_t k = 0; k < g->k; k += 32) {
                const char *x = a_at(f, m / 16, k / 32) + m % 16 * 32, *y = b_at(f, k / 32, n / 16) + n % 16 * 32;
                const int64_t left = g->k - k;
                if (left < 32) {
                    memset(a, 0, sizeof a);
                    memcpy(a, x, (size_t)left);
                    memcpy(b, y, 32);
                    x = (const char *)a, y = (const char *)b;
                }
                if (g->dtype == DT_I8)
                    sum += (uint32_t)f->impl->dot_i8((const int8_t *)x, (const int8_t *)y, 32);
                else
                    for (int i = 0; i < 32; i++)
                        sum += (uint32_t)((const uint8_t *)x)[i] * ((const uint8_t *)y)[i];
            }
            *c = (int32_t)sum;
        }
}

static void run(struct frac *f)
{
    const struct k_mac_args *g = f->g;
    if (g->k == 0) {
        for (int64_t n1 = 0; g->init && n1 < f->n1; n1++)
            memset(c_at(f, 0, n1), 0, (size_t)g->m * 16 * sizeof(float));
    } else if (is_whole(g->dtype)) {
        whole_numbers(f);
    } else if (g->dtype == DT_F32 && g->m == 1) {
        one_row(f);
    } else {
        for (int64_t k0 = 0; k0 < g->k; k0 += K_BLOCK_K)
            for (int64_t m1 = 0; m1 < f->m1; m1 += K_BLOCK_M / 16) {
                const int64_t end = m1 + K_BLOCK_M / 16, left = g->k - k0;
                block(f, m1, end < f->m1 ? end : f->m1, k0, left < K_BLOCK_K ? left : K_BLOCK_K);
            }
    }
}

static struct frac frac_of(const struct k_mac_args *g)
{
    struct frac f = {.g = g, .impl = k_mac_impl(), .b_dtype = g->dtype};
    f.c0 = 32 * 8 / dtype_table[g->dtype].bits;
    f.m1 = size_ceil_div(g->m, 16);
    f.n1 = size_ceil_div(g->n, 16);
    f.k1 = size_ceil_div(g->k, f.c0);
    f.b_pitch = g->b_pitch ? g->b_pitch * dtype_size(g->dtype) : f.n1 * FRACTAL;
    return f;
}

void k_mac_fractal(const struct k_mac_args *g)
{
    NPUC_ASSERT(k_mac_supports(g->dtype));
    struct frac f = frac_of(g);
    if (g->m > 0 && g->n > 0)
        run(&f);
}

void k_mac_scaled(const struct k_mac_args *g, const struct k_mac_scales *s)
{
    NPUC_ASSERT(k_mac_takes_scales(g->dtype) && k_mac_takes_scales(s->b_dtype) &&
                dtype_table[g->dtype].bits == dtype_table[s->b_dtype].bits && g->b_pitch == 0);
    struct frac f = frac_of(g);
    f.s = s;
    f.b_dtype = s->b_dtype;
    f.s1 = size_ceil_div(size_ceil_div(g->k, s->block), 2);
    if (g->m > 0 && g->n > 0)
        run(&f);
}

void k_scale_blocks(float *v, int64_t first, int64_t n, const uint8_t *scales, int64_t step, int64_t block)
{
    for (int64_t i = 0; i < n;) {
        const int64_t j = (first + i) / block, rest = block - (first + i) % block, end = rest < n - i ? i + rest : n;
        const float scale = half_small_to_f32(DT_F8E8M0, scales[j * step]);
        for (; i < end; i++)
            v[i] *= scale;
    }
}

void k_mac_out(enum dtype to, void *dst, enum dtype sum, const void *c, int64_t n, float factor, const float *bias)
{
    float part[256];
    for (int64_t at = 0; at < n; at += NPUC_ARRAY_LEN(part)) {
        const int64_t m = n - at < NPUC_ARRAY_LEN(part) ? n - at : NPUC_ARRAY_LEN(part);
        k_cast(DT_F32, part, sum, (const float *)c + at, m, false);
        for (int64_t i = 0; factor != 1 && i < m; i++)
            part[i] *= factor;
        for (int64_t i = 0; bias && i < m; i++)
            part[i] += bias[at + i];
        k_cast(to, (uint8_t *)dst + at * dtype_size(to), DT_F32, part, m, false);
    }
}
