/* AVX2 forms of kernels/mac_priv.h. */
#include "kernels/mac_avx2.h"
#include "kernels/mac_rows.h"

enum { MOST_ROWS = 6 }; /* of a tile: 12 accumulators, 2 operands, 1 broadcast */
typedef void some_rows(const struct k_tile *t);

/* A tile as tiles of at most MOST_ROWS rows. */
static void in_parts(const struct k_tile *t, int rows, some_rows *const by_rows[MOST_ROWS])
{
    struct k_tile part = *t;
    for (int r = 0; r < rows; r += MOST_ROWS) {
        part.a = (const int32_t *)t->a + r * t->c0;
        part.c = (int32_t *)t->c + r * t->c_row;
        by_rows[(rows - r < MOST_ROWS ? rows - r : MOST_ROWS) - 1](&part);
    }
}

#define ROW_START(r)                                                                                                   \
    __m256 lo##r = t->init ? _mm256_setzero_ps() : _mm256_loadu_ps(c + (r)*t->c_row);                                  \
    __m256 hi##r = t->init ? _mm256_setzero_ps() : _mm256_loadu_ps(c + (r)*t->c_row + 8);
#define ROW_STEP(r)                                                                                                    \
    {                                                                                                                  \
        const __m256 v = _mm256_broadcast_ss(a + (r)*t->c0);                                                           \
        lo##r = _mm256_fmadd_ps(v, b0, lo##r);                                                                         \
        hi##r = _mm256_fmadd_ps(v, b1, hi##r);                                                                         \
    }
#define ROW_END(r)                                                                                                     \
    _mm256_storeu_ps(c + (r)*t->c_row, lo##r);                                                                         \
    _mm256_storeu_ps(c + (r)*t->c_row + 8, hi##r);

#define TILE(R)                                                                                                        \
    static void tile##R(const struct k_tile *t)                                                                        \
    {                                                                                                                  \
        float *c = t->c;                                                                                               \
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

void k_tile_avx2(const struct k_tile *t, int rows)
{
    static some_rows *const by_rows[MOST_ROWS] = {tile1, tile2, tile3, tile4, tile5, tile6};
    in_parts(t, rows, by_rows);
}

/* The same on pairs of int16: products of both are added exactly in int32, the sums wrap. */
static inline __m256i cells(const int32_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}
#define PAIR_START(r)                                                                                                  \
    __m256i lo##r = t->init ? _mm256_setzero_si256() : cells(c + (r)*t->c_row);                                        \
    __m256i hi##r = t->init ? _mm256_setzero_si256() : cells(c + (r)*t->c_row + 8);
#define PAIR_STEP(r)                                                                                                   \
    {                                                                                                                  \
        const __m256i v = _mm256_set1_epi32(a[(r)*t->c0]);                                                             \
        lo##r = _mm256_add_epi32(lo##r, _mm256_madd_epi16(v, b0));                                                     \
        hi##r = _mm256_add_epi32(hi##r, _mm256_madd_epi16(v, b1));                                                     \
    }
#define PAIR_END(r)                                                                                                    \
    _mm256_storeu_si256((__m256i *)(void *)(c + (r)*t->c_row), lo##r);                                                 \
    _mm256_storeu_si256((__m256i *)(void *)(c + (r)*t->c_row + 8), hi##r);

#define PAIRS(R)                                                                                                       \
    static void pairs##R(const struct k_tile *t)                                                                       \
    {                                                                                                                  \
        int32_t *c = t->c;                                                                                             \
        ROWS##R(PAIR_START) const int32_t *b = t->b, *block = t->a;                                                    \
        for (int64_t k = 0; k < t->k; block += t->a_step) {                                                            \
            const int32_t *a = block;                                                                                  \
            const int64_t end = k + t->c0 < t->k ? k + t->c0 : t->k;                                                   \
            for (; k < end; k++, a++, b += K_TILE_N) {                                                                 \
                const __m256i b0 = cells(b), b1 = cells(b + 8);                                                        \
                ROWS##R(PAIR_STEP)                                                                                     \
            }                                                                                                          \
        }                                                                                                              \
        ROWS##R(PAIR_END)                                                                                              \
    }
PAIRS(1)
PAIRS(2)
PAIRS(3)
PAIRS(4)
PAIRS(5)
PAIRS(6)

void k_tile_pairs_avx2(const struct k_tile *t, int rows)
{
    static some_rows *const by_rows[MOST_ROWS] = {pairs1, pairs2, pairs3, pairs4, pairs5, pairs6};
    in_parts(t, rows, by_rows);
}

void k_transpose_avx2(float *y, const float *x, int64_t c0)
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

void k_widen_i8_avx2(int16_t *y, const int8_t *x, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16)
        _mm256_storeu_si256((__m256i *)(void *)(y + i),
                            _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(x + i))));
}

int32_t k_dot_avx2(const int8_t *x, const int8_t *y, int64_t n)
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

void k_transpose8_avx2(uint32_t *y, int64_t y_row, const uint32_t *x, int64_t x_row)
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

const struct k_mac_impl k_mac_avx2 = {.tile = k_tile_avx2,
                                      .transpose = k_transpose_avx2,
                                      .tile_pairs = k_tile_pairs_avx2,
                                      .row = {k_row_f32_avx2, k_row_f16_avx2, k_row_bf16_avx2, k_row_i8_avx2},
                                      .widen_i8 = k_widen_i8_avx2,
                                      .dot_i8 = k_dot_avx2,
                                      .transpose8 = k_transpose8_avx2};
