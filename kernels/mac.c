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

enum { FRACTAL = 512, MOST_C0 = 64 }; /* bytes; elements of a row */
enum { CELLS_OF_A = K_BLOCK_M * K_BLOCK_K };

static void tile_scalar(const struct k_tile *t, int rows)
{
    const float *x = t->a, *y = t->b;
    for (int r = 0; r < rows; r++) {
        float acc[K_TILE_N] = {0};
        float *c = (float *)t->c + r * t->c_row;
        if (!t->init)
            memcpy(acc, c, sizeof acc);
        for (int64_t k = 0; k < t->k; k++) {
            const float a = x[k / t->c0 * t->a_step + r * t->c0 + k % t->c0];
            for (int n = 0; n < K_TILE_N; n++)
                acc[n] = fmaf(a, y[k * K_TILE_N + n], acc[n]);
        }
        memcpy(c, acc, sizeof acc);
    }
}
static void tile_pairs_scalar(const struct k_tile *t, int rows)
{
    const int16_t *x = t->a, *y = t->b;
    for (int r = 0; r < rows; r++) {
        uint32_t acc[K_TILE_N] = {0};
        uint32_t *c = (uint32_t *)t->c + r * t->c_row;
        if (!t->init)
            memcpy(acc, c, sizeof acc);
        for (int64_t k = 0; k < t->k; k++) {
            const int16_t *a = x + (k / t->c0 * t->a_step + r * t->c0 + k % t->c0) * 2;
            for (int n = 0; n < K_TILE_N; n++) {
                const int16_t *b = y + (k * K_TILE_N + n) * 2;
                acc[n] += (uint32_t)(a[0] * b[0]) + (uint32_t)(a[1] * b[1]);
            }
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
/* Fractals of floats as they are stored, C0 elements to a row. */
static void row_floats(const struct k_row *g, enum dtype t, int64_t c0)
{
    const float *a = g->a;
    float wide[16 * 16];
    for (int64_t k = 0; k < g->k; k += c0)
        for (int64_t n1 = 0; n1 < g->n1; n1++) {
            float *c = (float *)g->c + n1 * g->c_step;
            k_widen(wide, t, g->b + k / c0 * g->b_step + n1 * FRACTAL, 0, 16 * c0);
            for (int64_t i = 0; i < c0 && k + i < g->k; i++)
                for (int n = 0; n < K_TILE_N; n++)
                    c[n] = fmaf(a[k + i], wide[n * c0 + i], c[n]);
        }
}
static void row_f32_scalar(const struct k_row *g)
{
    row_floats(g, DT_F32, 8);
}
static void row_f16_scalar(const struct k_row *g)
{
    row_floats(g, DT_F16, 16);
}
static void row_bf16_scalar(const struct k_row *g)
{
    row_floats(g, DT_BF16, 16);
}
static void row_i8_scalar(const struct k_row *g)
{
    const int16_t *a = g->a;
    for (int64_t k = 0; k < g->k; k++)
        for (int64_t n = 0; n < g->n1 * 16; n++) {
            const int8_t *b = (const int8_t *)g->b + k / 32 * g->b_step + n * 32 + k % 32;
            ((uint32_t *)g->c)[n / 16 * g->c_step + n % 16] += (uint32_t)(a[k] * *b);
        }
}
static void widen_i8_scalar(int16_t *y, const int8_t *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i];
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
const struct k_mac_impl k_mac_scalar = {.tile = tile_scalar,
                                        .transpose = transpose_scalar,
                                        .tile_pairs = tile_pairs_scalar,
                                        .row = {row_f32_scalar, row_f16_scalar, row_bf16_scalar, row_i8_scalar},
                                        .widen_i8 = widen_i8_scalar,
                                        .dot_i8 = dot_scalar,
                                        .transpose8 = transpose8_scalar};

const struct k_mac_impl *k_mac_impl(void)
{
#ifdef NPUC_SCALAR_ONLY
    return &k_mac_scalar;
#else
    static const struct k_mac_impl *const of_level[K_SIMD_LEVELS] = {&k_mac_scalar, &k_mac_avx2, &k_mac_avx512};
    return of_level[k_simd()];
#endif
}

bool k_is_whole(enum dtype t)
{
    return t == DT_I8 || t == DT_U8;
}
bool k_mac_supports(enum dtype t)
{
    return k_is_whole(t) || (k_wide_of(t) == K_WIDE_F32 && dtype_size(t) > 0 && t != DT_F8E8M0);
}

bool k_mac_takes_rows(enum dtype t)
{
    return k_mac_supports(t) || t == DT_I16;
}

bool k_mac_takes_scales(enum dtype t)
{
    return t == DT_F8E4M3FN || t == DT_F8E5M2 || t == DT_F4E2M1;
}

bool k_mac_takes_codes(enum dtype t)
{
    return k_mac_takes_scales(t) || t == DT_HIF8;
}

/* One call of k_mac_fractal or k_mac_scaled. Extents along K are in cells (struct k_tile) of in_cell elements. */
struct frac {
    const struct k_mac_args *g;
    const struct k_mac_scales *s; /* NULL: none */
    const struct k_mac_impl *impl;
    void (*tile)(const struct k_tile *t, int rows);
    void (*turn)(void *y, const void *x); /* NULL: none for b */
    int64_t in_cell;
    int64_t k, c0, m1, n1, k1;
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
    const int64_t block = f->s->block, left = f->k - k1 * f->c0, len = left < f->c0 ? left : f->c0;
    for (int64_t i = 0; i < len;) {
        const int64_t k = k1 * f->c0 + i, j = k / block, rest = block - k % block, n = rest < len - i ? rest : len - i;
        const uint8_t *s = scales + (r1 * f->s1 + j / 2) * 32 + j % 2;
        for (int r = 0; r < 16; r++)
            k_scale_blocks(v + r * f->c0 + i, 0, n, s + r * 2, 1, n);
        i += n;
    }
}

/* n cells of fractals. */
static void widen(const struct frac *f, void *y, enum dtype t, const void *x, int64_t n)
{
    int16_t *pair = y;
    if (f->in_cell == 4)
        f->impl->quads_of(y, x, n);
    else if (t == DT_I8)
        f->impl->widen_i8(pair, x, 2 * n);
    else if (t == DT_U8)
        for (int64_t i = 0; i < 2 * n; i++)
            pair[i] = ((const uint8_t *)x)[i];
    else
        k_widen(y, t, x, 0, n);
}

/* Bytes of b beyond K become zeros, whatever those of a are. */
static void end_quads(const struct frac *f, int32_t *y, int64_t k0, int64_t len)
{
    if (f->g->k % 4 && k0 + len == f->k)
        for (int n = 0; n < K_TILE_N; n++)
            memset((char *)(y + (len - 1) * K_TILE_N + n) + f->g->k % 4, 0, (size_t)(4 - f->g->k % 4));
    f->impl->end_quads(y, len);
}

/* y[k][16] for k in [k0, k0 + len) of column block n1; k0 is a multiple of c0. */
static void pack_b(const struct frac *f, float *y, int64_t n1, int64_t k0, int64_t len)
{
    float wide[16 * MOST_C0];
    for (int64_t k = 0; k < len; k += f->c0) {
        const char *x = b_at(f, (k0 + k) / f->c0, n1);
        const float *v = (const float *)(const void *)x;
        if (f->turn) {
            f->turn(y + k * K_TILE_N, x);
            continue;
        }
        if (f->b_dtype != DT_F32) {
            widen(f, wide, f->b_dtype, x, 16 * f->c0);
            v = wide;
        }
        if (f->s)
            scale_fractal(f, wide, f->s->b, n1, (k0 + k) / f->c0);
        f->impl->transpose(y + k * K_TILE_N, v, f->c0);
    }
    if (f->in_cell == 4)
        end_quads(f, (int32_t *)(void *)y, k0, len);
}

/* Row blocks [m1, m1_end) of a for block k0 in `at`, [m1][k1][16][c0]. */
static void pack_a(const struct frac *f, float *at, int64_t m1, int64_t m1_end, int64_t k0, int64_t len)
{
    const int64_t kb = size_ceil_div(len, f->c0), frac_len = 16 * f->c0;
    for (int64_t i = m1; i < m1_end; i++) {
        float *to = at + (i - m1) * kb * frac_len;
        widen(f, to, f->g->dtype, a_at(f, i, k0 / f->c0), kb * frac_len);
        for (int64_t j = 0; f->s && j < kb; j++)
            scale_fractal(f, to + j * frac_len, f->s->a, i, k0 / f->c0 + j);
        if (f->in_cell == 2 && f->g->k % 2 && k0 + len == f->k) /* the half of a pair beyond K */
            for (int r = 0; r < 16; r++)
                ((int16_t *)(void *)to)[((len - 1) / f->c0 * frac_len + r * f->c0 + (len - 1) % f->c0) * 2 + 1] = 0;
    }
}

/* Row blocks [m1, m1_end), all n, k in [k0, k0 + len). */
static void block(const struct frac *f, int64_t m1, int64_t m1_end, int64_t k0, int64_t len)
{
    float bt[(K_BLOCK_K + 1) * K_TILE_N], at[CELLS_OF_A];
    const int64_t kb = size_ceil_div(len, f->c0), frac_len = 16 * f->c0;
    const bool direct = f->g->dtype == DT_F32;
    if (!direct)
        pack_a(f, at, m1, m1_end, k0, len);
    for (int64_t n1 = 0; n1 < f->n1; n1++) {
        pack_b(f, bt, n1, k0, len);
        for (int64_t i = m1; i < m1_end; i++) {
            struct k_tile t = {
                .a_step = frac_len, .c0 = f->c0, .b = bt, .k = len, .c_row = 16, .init = f->g->init && k0 == 0};
            const int64_t left = f->g->m - i * 16;
            t.a = direct ? a_at(f, i, k0 / f->c0) : (const void *)(at + (i - m1) * kb * frac_len);
            t.c = c_at(f, i * 16, n1);
            f->tile(&t, (int)(left < K_TILE_M ? left : K_TILE_M));
        }
    }
}

/* The first of 16 lines of n fractals, one after the other. */
static void first_lines(void *y, const char *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        memcpy((char *)y + i * (FRACTAL / 16), x + i * FRACTAL, FRACTAL / 16);
}

/* m = 1: b is read once and in place. */
static void one_row(const struct frac *f, enum k_row_type type)
{
    float a[K_BLOCK_K * 4]; /* cells */
    float lines[NPUC_ARRAY_LEN(a)];
    enum { STEP = NPUC_ARRAY_LEN(a) };
    for (int64_t n1 = 0; f->g->init && n1 < f->n1; n1++)
        memset(c_at(f, 0, n1), 0, 16 * sizeof *a);
    for (int64_t k0 = 0; k0 < f->k; k0 += STEP) {
        const int64_t len = f->k - k0 < STEP ? f->k - k0 : STEP, elems = type == K_ROW_I8 ? 2 * len : len;
        first_lines(lines, a_at(f, 0, k0 / f->c0), size_ceil_div(len, f->c0));
        widen(f, a, f->g->dtype, lines, size_align(len, f->c0));
        if (type == K_ROW_I8 && k0 + len == f->k) {
            const int64_t end = f->g->k - 2 * k0;
            memset((int16_t *)(void *)a + end, 0, (size_t)(size_align(end, 32) - end) * sizeof(int16_t));
        }
        const struct k_row r = {a, b_at(f, k0 / f->c0, 0), f->b_pitch, f->n1, elems, c_at(f, 0, 0), f->m1 * 256};
        f->impl->row[type](&r);
    }
}

enum k_row_type k_row_type(enum dtype t)
{
    static const struct {
        enum dtype t;
        enum k_row_type type;
    } rows[] = {{DT_F32, K_ROW_F32}, {DT_F16, K_ROW_F16}, {DT_BF16, K_ROW_BF16}, {DT_I8, K_ROW_I8}};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(rows); i++)
        if (rows[i].t == t)
            return rows[i].type;
    return K_ROW_TYPES;
}

static void blocks(const struct frac *f)
{
    for (int64_t k0 = 0; k0 < f->k; k0 += K_BLOCK_K) {
        const int64_t left = f->k - k0, len = left < K_BLOCK_K ? left : K_BLOCK_K;
        const int64_t step = CELLS_OF_A / (16 * size_align(len, f->c0)); /* b is packed again for each block of rows */
        for (int64_t m1 = 0; m1 < f->m1; m1 += step)
            block(f, m1, m1 + step < f->m1 ? m1 + step : f->m1, k0, len);
    }
}

static void run(const struct frac *f)
{
    const struct k_mac_args *g = f->g;
    const enum k_row_type type = g->m == 1 && !f->s ? k_row_type(g->dtype) : K_ROW_TYPES;
    if (g->k == 0) {
        for (int64_t n1 = 0; g->init && n1 < f->n1; n1++)
            memset(c_at(f, 0, n1), 0, (size_t)g->m * 16 * sizeof(float));
    } else if (type != K_ROW_TYPES) {
        one_row(f, type);
    } else {
        blocks(f);
    }
}

static struct frac frac_of(const struct k_mac_args *g, const struct k_mac_scales *s)
{
    const struct k_mac_impl *impl = k_mac_impl();
    struct frac f = {.g = g, .s = s, .impl = impl, .b_dtype = s ? s->b_dtype : g->dtype, .in_cell = 1};
    const enum k_row_type stored = s ? K_ROW_TYPES : k_row_type(g->dtype);
    if (k_is_whole(g->dtype))
        f.in_cell = g->dtype == DT_I8 && g->m > 1 && impl->tile_quads ? 4 : 2;
    f.tile = f.in_cell == 1 ? impl->tile : f.in_cell == 2 ? impl->tile_pairs : impl->tile_quads;
    f.turn = stored == K_ROW_TYPES ? NULL : impl->turn[stored];
    f.k = size_ceil_div(g->k, f.in_cell);
    f.c0 = 32 * 8 / dtype_table[g->dtype].bits / f.in_cell;
    f.m1 = size_ceil_div(g->m, 16);
    f.n1 = size_ceil_div(g->n, 16);
    f.k1 = size_ceil_div(f.k, f.c0);
    f.b_pitch = g->b_pitch ? g->b_pitch * dtype_size(g->dtype) : f.n1 * FRACTAL;
    return f;
}

void k_mac_fractal(const struct k_mac_args *g)
{
    NPUC_ASSERT(k_mac_supports(g->dtype));
    const struct frac f = frac_of(g, NULL);
    if (g->m > 0 && g->n > 0)
        run(&f);
}

void k_mac_scaled(const struct k_mac_args *g, const struct k_mac_scales *s)
{
    NPUC_ASSERT(k_mac_takes_scales(g->dtype) && k_mac_takes_scales(s->b_dtype) &&
                dtype_table[g->dtype].bits == dtype_table[s->b_dtype].bits && g->b_pitch == 0);
    struct frac f = frac_of(g, s);
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
