/* AVX-512 forms of k_row: a register has one k of the 16 columns of a fractal. */
#include "kernels/mac_avx512.h"
#include "kernels/mac_one_row.h"

/* Elements k and k + 1 of 16 rows: those of both as f32. */
static inline void wide_f16(__m512 y[2], __m512i cells)
{
    static const int8_t sort[64] = {0,  1,  4,  5,  8, 9, 12, 13, 2,  3,  6,  7,  10, 11, 14, 15, 0,  1,  4,  5, 8, 9,
                                    12, 13, 2,  3,  6, 7, 10, 11, 14, 15, 0,  1,  4,  5,  8,  9,  12, 13, 2,  3, 6, 7,
                                    10, 11, 14, 15, 0, 1, 4,  5,  8,  9,  12, 13, 2,  3,  6,  7,  10, 11, 14, 15};
    const __m512i parts = _mm512_shuffle_epi8(cells, _mm512_loadu_si512(sort)); /* 4 of k, 4 of k + 1, and so on */
    const __m512i v = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), parts);
    y[0] = _mm512_cvtph_ps(_mm512_castsi512_si256(v));
    y[1] = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(v, 1));
}
static inline void wide_bf16(__m512 y[2], __m512i cells)
{
    y[0] = _mm512_castsi512_ps(_mm512_slli_epi32(cells, 16));
    y[1] = _mm512_castsi512_ps(_mm512_and_si512(cells, _mm512_set1_epi32((int)0xffff0000u)));
}

#define FRACTAL_16(TYPE)                                                                                               \
    static inline void fractal_##TYPE(float *to, const float *a, const char *b)                                        \
    {                                                                                                                  \
        __m512 c = _mm512_loadu_ps(to), y[2];                                                                          \
        __m512i v[8];                                                                                                  \
        k_turn_cells(v, (const int32_t *)(const void *)b);                                                             \
        for (int k = 0; k < 8; k++) {                                                                                  \
            wide_##TYPE(y, v[k]);                                                                                      \
            c = _mm512_fmadd_ps(_mm512_set1_ps(a[2 * k]), y[0], c);                                                    \
            c = _mm512_fmadd_ps(_mm512_set1_ps(a[2 * k + 1]), y[1], c);                                                \
        }                                                                                                              \
        _mm512_storeu_ps(to, c);                                                                                       \
    }                                                                                                                  \
    void k_row_##TYPE##_avx512(const struct k_row *g)                                                                  \
    {                                                                                                                  \
        const float *a = g->a;                                                                                         \
        const int64_t ahead = k_row_distance(g);                                                                       \
        int64_t k = 0;                                                                                                 \
        for (const char *b = g->b; k + 16 <= g->k; k += 16, b += g->b_step)                                            \
            for (int64_t n = 0; n < g->n1; n++) {                                                                      \
                k_row_ask_for((uintptr_t)(b + n * FRACTAL) + (uintptr_t)ahead);                                        \
                fractal_##TYPE((float *)g->c + n * g->c_step, a + k, b + n * FRACTAL);                                 \
            }                                                                                                          \
        k_row_finish(g, FORM_##TYPE, k, 16);                                                                           \
    }
#define FORM_f16  K_ROW_F16
#define FORM_bf16 K_ROW_BF16
FRACTAL_16(f16)
FRACTAL_16(bf16)

/* Bytes four at a time, those of b as unsigned: what that adds, 128 times the sum of a, is taken off at the end.
 * Integers are exact modulo 2^32 in any order. */
enum { COLUMNS = 16 }; /* column blocks whose partial sums stay in the cache: 8 KiB */
static void add_columns(const struct k_row *g, int64_t n0, int64_t n1)
{
    __m512i part[COLUMNS][8], more = _mm512_setzero_si512();
    const __m512i half = _mm512_set1_epi8((char)128);
    const int64_t ahead = k_row_distance(g);
    const int16_t *a = g->a;
    for (int64_t n = 0; n < n1; n++)
        for (int i = 0; i < 8; i++)
            part[n][i] = _mm512_setzero_si512();
    const char *b = g->b + n0 * FRACTAL;
    for (int64_t k = 0; k < g->k; k += 32, b += g->b_step) {
        const __m512i by = _mm512_broadcast_i64x4(_mm512_cvtepi16_epi8(_mm512_loadu_si512(a + k)));
        more = _mm512_dpbusd_epi32(more, half, by);
        for (int64_t n = 0; n < n1; n++) {
            const char *x = b + n * FRACTAL;
            k_row_ask_for((uintptr_t)x + (uintptr_t)ahead);
            for (int i = 0; i < 8; i++)
                part[n][i] =
                    _mm512_dpbusd_epi32(part[n][i], _mm512_xor_si512(_mm512_loadu_si512(x + i * 64), half), by);
        }
    }
    const __m256i lanes = _mm512_castsi512_si256(more);
    const __m512i off = _mm512_set1_epi32(_mm512_reduce_add_epi32(_mm512_zextsi256_si512(lanes)));
    for (int64_t n = 0; n < n1; n++) {
        int32_t *c = (int32_t *)g->c + (n0 + n) * g->c_step;
        __m512i y[8], s = _mm512_sub_epi32(_mm512_loadu_si512(c), off);
        k_turn_cells(y, (const int32_t *)(const void *)part[n]);
        for (int i = 0; i < 8; i++)
            s = _mm512_add_epi32(s, y[i]);
        _mm512_storeu_si512(c, s);
    }
}

void k_row_i8_avx512(const struct k_row *g)
{
    for (int64_t n = 0; n < g->n1; n += COLUMNS)
        add_columns(g, n, g->n1 - n < COLUMNS ? g->n1 - n : COLUMNS);
}
