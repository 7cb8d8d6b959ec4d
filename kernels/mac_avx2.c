/* AVX2 forms of kernels/mac_priv.h. Registers are spelled out by macros: arrays of vectors would live in memory. */
#include "kernels/mac_priv.h"

#include <immintrin.h>

#define ROWS1(X) X(0)
#define ROWS2(X) ROWS1(X) X(1)
#define ROWS3(X) ROWS2(X) X(2)
#define ROWS4(X) ROWS3(X) X(3)
#define ROWS5(X) ROWS4(X) X(4)
#define ROWS6(X) ROWS5(X) X(5)

#define ROW_START(r)                                                                                                   \
    __m256 lo##r = t->init ? _mm256_setzero_ps() : _mm256_loadu_ps(t->c + (r)*t->c_row);                               \
    __m256 hi##r = t->init ? _mm256_setzero_ps() : _mm256_loadu_ps(t->c + (r)*t->c_row + 8);
#define ROW_STEP(r)                                                                                                    \
    {                                                                                                                  \
        const __m256 v = _mm256_broadcast_ss(a + (r)*t->c0);                                                           \
        lo##r = _mm256_fmadd_ps(v, b0, lo##r);                                                                         \
        hi##r = _mm256_fmadd_ps(v, b1, hi##r);                                                                         \
    }
#define ROW_END(r)                                                                                                     \
    _mm256_storeu_ps(t->c + (r)*t->c_row, lo##r);                                                                      \
    _mm256_storeu_ps(t->c + (r)*t->c_row + 8, hi##r);

#define TILE(R)                                                                                                        \
    static void tile##R(const struct k_tile *t)                                                                        \
    {                                                                                                                  \
        ROWS##R(ROW_START) const float *b = t->b, *block = t->a;                                                       \
        for (int64_t k = 0; k < t->k; block += t->a_step) {                                                            \
            const float *a = block;                                                                                    \
            const int64_t end = k + t->c0 < t->k ? k + t->c0 : t->k;                                                   \
            for (; k < end; k++, a++, b += K_TILE_N) {                                                                 \
                const __m256 b0 = _mm256_loadu_ps(b), b1 = _mm256_loadu_ps(b + 8);                                     \
                ROWS##R(ROW_STEP)                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
        ROWS##R(ROW_END)                                                                                               \
    }
TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)

static void tile_avx2(const struct k_tile *t, int rows)
{
    static void (*const by_rows[K_TILE_M])(const struct k_tile *) = {tile1, tile2, tile3, tile4, tile5, tile6};
    by_rows[rows - 1](t);
}

/* Columns k..k+7 of 8 rows `row` floats apart, as 8 vectors over the rows. Halves of rows i and i + 4 are joined while
 * loading, so that two shuffles per vector finish the transpose. */
static inline __m256 pair(const float *p, int64_t row)
{
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + 4 * row), 1);
}
static inline void half_transpose(__m256 y[4], const float *x, int64_t row)
{
    const __m256 r0 = pair(x, row), r1 = pair(x + row, row), r2 = pair(x + 2 * row, row), r3 = pair(x + 3 * row, row);
    const __m256 t0 = _mm256_unpacklo_ps(r0, r1), t1 = _mm256_unpackhi_ps(r0, r1);
    const __m256 t2 = _mm256_unpacklo_ps(r2, r3), t3 = _mm256_unpackhi_ps(r2, r3);
    y[0] = _mm256_shuffle_ps(t0, t2, 0x44);
    y[1] = _mm256_shuffle_ps(t0, t2, 0xee);
    y[2] = _mm256_shuffle_ps(t1, t3, 0x44);
    y[3] = _mm256_shuffle_ps(t1, t3, 0xee);
}

static void transpose_avx2(float *y, const float *x, int64_t c0)
{
    for (int64_t k = 0; k < c0; k += 4)
        for (int n = 0; n < K_TILE_N; n += 8) {
            __m256 v[4];
            half_transpose(v, x + n * c0 + k, c0);
            _mm256_storeu_ps(y + k * K_TILE_N + n, v[0]);
            _mm256_storeu_ps(y + (k + 1) * K_TILE_N + n, v[1]);
            _mm256_storeu_ps(y + (k + 2) * K_TILE_N + n, v[2]);
            _mm256_storeu_ps(y + (k + 3) * K_TILE_N + n, v[3]);
        }
}

#define FOUR(acc, v, at)                                                                                               \
    acc = _mm256_fmadd_ps(_mm256_broadcast_ss(a + (at)), (v)[0], acc);                                                 \
    acc = _mm256_fmadd_ps(_mm256_broadcast_ss(a + (at) + 1), (v)[1], acc);                                             \
    acc = _mm256_fmadd_ps(_mm256_broadcast_ss(a + (at) + 2), (v)[2], acc);                                             \
    acc = _mm256_fmadd_ps(_mm256_broadcast_ss(a + (at) + 3), (v)[3], acc);
static inline void row_fractal(float *c, const float *a, const float *b)
{
    __m256 lo = _mm256_loadu_ps(c), hi = _mm256_loadu_ps(c + 8), v[4], w[4];
    half_transpose(v, b, 8);
    half_transpose(w, b + 64, 8);
    FOUR(lo, v, 0)
    FOUR(hi, w, 0)
    half_transpose(v, b + 4, 8);
    half_transpose(w, b + 68, 8);
    FOUR(lo, v, 4)
    FOUR(hi, w, 4)
    _mm256_storeu_ps(c, lo);
    _mm256_storeu_ps(c + 8, hi);
}

/* Weights come from main memory, in runs too short for the hardware to follow: the fractal some groups ahead is asked
 * for, also beyond the end, where the next call goes on. */
static inline void ask_for(uintptr_t at)
{
    for (int line = 0; line < 8; line++)
        _mm_prefetch((const char *)(at + (uintptr_t)line * 64), _MM_HINT_T0);
}

static void row_avx2(const struct k_row *g)
{
    const int64_t ahead = g->b_step * (g->n1 >= 8 ? 1 : 8 / g->n1) * (int64_t)sizeof(float);
    int64_t k = 0;
    for (const float *b = g->b; k + 8 <= g->k; k += 8, b += g->b_step)
        for (int64_t n = 0; n < g->n1; n++) {
            ask_for((uintptr_t)(b + n * 128) + (uintptr_t)ahead);
            row_fractal(g->c + n * g->c_step, g->a + k, b + n * 128);
        }
    if (k < g->k) {
        struct k_row rest = *g;
        rest.a += k;
        rest.b += k / 8 * g->b_step;
        rest.k -= k;
        k_mac_scalar.row(&rest);
    }
}

static int32_t dot_avx2(const int8_t *x, const int8_t *y, int64_t n)
{
    __m256i s = _mm256_setzero_si256();
    for (int64_t i = 0; i < n; i += 16) {
        const __m256i a = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(x + i)));
        const __m256i b = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(y + i)));
        s = _mm256_add_epi32(s, _mm256_madd_epi16(a, b));
    }
    __m128i h = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    h = _mm_add_epi32(h, _mm_shuffle_epi32(h, 0x4e));
    h = _mm_add_epi32(h, _mm_shuffle_epi32(h, 0xb1));
    return _mm_cvtsi128_si32(h);
}

static void transpose8_avx2(uint32_t *y, int64_t y_row, const uint32_t *x, int64_t x_row)
{
    const float *xf = (const float *)(const void *)x;
    float *yf = (float *)(void *)y;
    for (int k = 0; k < 8; k += 4) {
        __m256 v[4];
        half_transpose(v, xf + k, x_row);
        for (int i = 0; i < 4; i++)
            _mm256_storeu_ps(yf + (k + i) * y_row, v[i]);
    }
}

const struct k_mac_impl k_mac_avx2 = {tile_avx2, transpose_avx2, row_avx2, dot_avx2, transpose8_avx2};
