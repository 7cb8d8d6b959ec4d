/* k_matmul: strided matrices of any dtype. Floats of up to 32 bits go through the register tile of kernels/mac_priv.h;
 * double and integers, which only host operators need, through plain loops in the same order. */
#include <math.h>
#include <string.h>

#include "base/pool.h"
#include "base/size.h"
#include "kernels/mac_priv.h"
#include "kernels/wide.h"

enum { STRIP_N = 64, LINE = 32 }; /* columns of one work item; bytes of a fractal's row */

struct work {
    const struct k_matmul_args *g;
    const struct k_mac_impl *impl;
};

/* n elements `stride` apart as float. */
static void gather(float *y, enum dtype t, const void *x, int64_t at, int64_t n, int64_t stride)
{
    if (stride == 1) {
        k_load_f32(y, t, x, at, n);
    } else if (t == DT_F32) {
        for (int64_t i = 0; i < n; i++)
            y[i] = ((const float *)x)[at + i * stride];
    } else {
        for (int64_t i = 0; i < n; i++)
            k_load_f32(y + i, t, x, at + i * stride, 1);
    }
}

/* Elements of a fractal's row; 0: they are no whole bytes. */
static int64_t step_k(enum dtype t)
{
    const int size = dtype_size(t);
    return size > 0 ? LINE / size : 0;
}

/* y[k][16] of 16 columns of b from element `at` on, a fractal's row of each. */
static void pack_fractal(const struct work *w, float *y, int64_t at)
{
    const struct k_matmul_args *g = w->g;
    const enum k_row_type type = k_row_type(g->dtype);
    const int size = dtype_size(g->dtype);
    uint8_t lines[K_TILE_N * LINE];
    float wide[K_TILE_N * LINE];
    for (int n = 0; n < K_TILE_N; n++)
        memcpy(lines + n * LINE, (const uint8_t *)g->b + (at + n * g->b_col) * size, LINE);
    if (type != K_ROW_TYPES && w->impl->turn[type]) {
        w->impl->turn[type](y, lines);
    } else {
        k_widen(wide, g->dtype, lines, 0, sizeof lines / (size_t)size);
        w->impl->transpose(y, wide, LINE / size);
    }
}

/* y[k][16], columns n0.. (fewer than 16: zeros), k0 <= k < k0 + len */
static void pack_b(const struct work *w, float *y, int64_t n0, int64_t k0, int64_t len)
{
    const struct k_matmul_args *g = w->g;
    const int64_t width = g->n - n0 < K_TILE_N ? g->n - n0 : K_TILE_N;
    if (g->b_row == 1 && width == K_TILE_N) { /* columns are contiguous */
        int64_t k = 0;
        for (const int64_t step = step_k(g->dtype); step > 0 && k + step <= len; k += step)
            pack_fractal(w, y + k * K_TILE_N, n0 * g->b_col + k0 + k);
        for (; k < len; k++)
            gather(y + k * K_TILE_N, g->dtype, g->b, n0 * g->b_col + k0 + k, K_TILE_N, g->b_col);
        return;
    }
    for (int64_t k = 0; k < len; k++) {
        float *row = y + k * K_TILE_N;
        gather(row, g->dtype, g->b, (k0 + k) * g->b_row + n0 * g->b_col, width, g->b_col);
        for (int64_t n = width; n < K_TILE_N; n++)
            row[n] = 0;
    }
}

/* Rows m0.. of a for the block: fractals of 8 columns, 16 rows, as k_tile reads them. */
static void pack_a(const struct work *w, float *y, int64_t m0, int64_t rows, int64_t k0, int64_t len)
{
    const struct k_matmul_args *g = w->g;
    const int64_t blocks = size_ceil_div(len, 8);
    float row[K_BLOCK_K];
    for (int64_t m = 0; m < rows; m++) {
        gather(row, g->dtype, g->a, (m0 + m) * g->a_row + k0 * g->a_col, len, g->a_col);
        float *at = y + (m / 16 * blocks * 16 + m % 16) * 8;
        for (int64_t k = 0; k < len; k++)
            at[k / 8 * 128 + k % 8] = row[k];
    }
}

/* 16 columns from n0 for the packed rows; partial sums rest in c. */
static void columns(const struct work *w, const float *at, int64_t m0, int64_t rows, const float *bt, int64_t n0,
                    int64_t k0, int64_t len)
{
    const struct k_matmul_args *g = w->g;
    const int64_t width = g->n - n0 < K_TILE_N ? g->n - n0 : K_TILE_N, blocks = size_ceil_div(len, 8);
    for (int64_t m = 0; m < rows; m += K_TILE_M) {
        const int64_t count = rows - m < K_TILE_M ? rows - m : K_TILE_M;
        float c[K_TILE_M * K_TILE_N];
        const bool continues = k0 > 0 || g->adds;
        float *out = (float *)g->c + (m0 + m) * g->c_row + n0;
        for (int64_t r = 0; r < count; r++) {
            const float *from = continues ? out + r * g->c_row : g->bias ? (const float *)g->bias + n0 : NULL;
            memset(c + r * K_TILE_N + width, 0, (size_t)(K_TILE_N - width) * sizeof *c);
            if (from)
                memcpy(c + r * K_TILE_N, from, (size_t)width * sizeof *c);
        }
        struct k_tile t = {.a = at + m * blocks * 8,
                           .a_step = 128,
                           .c0 = 8,
                           .b = bt,
                           .k = len,
                           .c = c,
                           .c_row = K_TILE_N,
                           .init = !continues && !g->bias};
        w->impl->tile(&t, (int)count);
        for (int64_t r = 0; r < count; r++)
            memcpy(out + r * g->c_row, c + r * K_TILE_N, (size_t)width * sizeof *c);
    }
}

static void strip(void *arg, int64_t item, int worker)
{
    (void)worker;
    const struct work *w = arg;
    const struct k_matmul_args *g = w->g;
    float bt[K_BLOCK_K * K_TILE_N], at[K_BLOCK_M * K_BLOCK_K];
    const int64_t n_end = (item + 1) * STRIP_N < g->n ? (item + 1) * STRIP_N : g->n;
    for (int64_t m0 = 0; m0 < g->m; m0 += K_BLOCK_M) {
        const int64_t rows = g->m - m0 < K_BLOCK_M ? g->m - m0 : K_BLOCK_M;
        for (int64_t k0 = 0; k0 == 0 || k0 < g->k; k0 += K_BLOCK_K) {
            const int64_t len = g->k - k0 < K_BLOCK_K ? g->k - k0 : K_BLOCK_K;
            pack_a(w, at, m0, rows, k0, len);
            for (int64_t n0 = item * STRIP_N; n0 < n_end; n0 += K_TILE_N) {
                pack_b(w, bt, n0, k0, len);
                columns(w, at, m0, rows, bt, n0, k0, len);
            }
        }
    }
}

static void row_f64(const struct k_matmul_args *g, int64_t m)
{
    double *c = (double *)g->c + m * g->c_row;
    const double *a = g->a, *b = g->b;
    for (int64_t n = 0; n < g->n; n++) {
        double s = g->adds ? c[n] : g->bias ? ((const double *)g->bias)[n] : 0;
        for (int64_t k = 0; k < g->k; k++)
            s = fma(a[m * g->a_row + k * g->a_col], b[k * g->b_row + n * g->b_col], s);
        c[n] = s;
    }
}
static uint64_t whole_at(enum dtype t, const void *x, int64_t at)
{
    uint64_t v;
    k_widen(&v, t, x, at, 1);
    return v;
}
static uint64_t start_whole(const struct k_matmul_args *g, int64_t m, int64_t n, bool wide)
{
    const void *from = g->adds ? g->c : g->bias;
    const int64_t at = g->adds ? m * g->c_row + n : n;
    if (!from)
        return 0;
    return wide ? ((const uint64_t *)from)[at] : ((const uint32_t *)from)[at];
}
static void row_whole(const struct k_matmul_args *g, int64_t m)
{
    const bool wide = dtype_size(g->dtype) == 8;
    for (int64_t n = 0; n < g->n; n++) {
        uint64_t s = start_whole(g, m, n, wide);
        for (int64_t k = 0; k < g->k; k++)
            s += whole_at(g->dtype, g->a, m * g->a_row + k * g->a_col) *
                 whole_at(g->dtype, g->b, k * g->b_row + n * g->b_col);
        if (wide)
            ((uint64_t *)g->c)[m * g->c_row + n] = s;
        else
            ((uint32_t *)g->c)[m * g->c_row + n] = (uint32_t)s;
    }
}
/* Signed bytes whose K lies together on both sides. */
static void row_i8(const struct work *w, int64_t m)
{
    const struct k_matmul_args *g = w->g;
    const int8_t *a = (const int8_t *)g->a + m * g->a_row;
    const int64_t whole = g->k / 32 * 32;
    for (int64_t n = 0; n < g->n; n++) {
        const int8_t *b = (const int8_t *)g->b + n * g->b_col;
        uint32_t s = (uint32_t)start_whole(g, m, n, false) + (uint32_t)w->impl->dot_i8(a, b, whole);
        for (int64_t k = whole; k < g->k; k++)
            s += (uint32_t)(a[k] * b[k]);
        ((uint32_t *)g->c)[m * g->c_row + n] = s;
    }
}
static void rows(void *arg, int64_t item, int worker)
{
    (void)worker;
    const struct work *w = arg;
    if (w->g->dtype == DT_F64)
        row_f64(w->g, item);
    else if (w->g->dtype == DT_I8 && w->g->a_col == 1 && w->g->b_row == 1)
        row_i8(w, item);
    else
        row_whole(w->g, item);
}

void k_matmul(const struct k_matmul_args *g, struct pool *pool)
{
    struct work w = {g, k_mac_impl()};
    if (g->m <= 0 || g->n <= 0)
        return;
    if (k_wide_of(g->dtype) == K_WIDE_F32)
        pool_for(pool, size_ceil_div(g->n, STRIP_N), strip, &w);
    else
        pool_for(pool, g->m, rows, &w);
}
