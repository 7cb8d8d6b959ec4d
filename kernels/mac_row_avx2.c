/* AVX2 forms of k_row: one row times fractals as they lie in memory, read once. */
#include "kernels/mac_avx2.h"
#include "kernels/mac_one_row.h"

#define FOUR(acc, v, at)                                                                                               \
    acc = _mm256_fmadd_ps(_mm256_broadcast_ss(a + (at)), (v)[0], acc);                                                 \
    acc = _mm256_fmadd_ps(_mm256_broadcast_ss(a + (at) + 1), (v)[1], acc);                                             \
    acc = _mm256_fmadd_ps(_mm256_broadcast_ss(a + (at) + 2), (v)[2], acc);                                             \
    acc = _mm256_fmadd_ps(_mm256_broadcast_ss(a + (at) + 3), (v)[3], acc);
static inline void fractal_f32(float *c, const float *a, const char *at)
{
    const float *b = (const float *)(const void *)at;
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

static inline __m256 wide_f16(__m128i x)
{
    return _mm256_cvtph_ps(x);
}
static inline __m256 wide_bf16(__m128i x)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}

/* Rows n and n + 8 of 16 with 16 elements each, 8 of either. */
static inline __m256i rows_16(const char *b, int n)
{
    const __m128i *x = (const __m128i *)(const void *)b;
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(x + 2 * n)), _mm_loadu_si128(x + 2 * n + 16),
                                   1);
}
#define STEP_16(TYPE, v, at)                                                                                           \
    {                                                                                                                  \
        const __m256 x = _mm256_broadcast_ss(a + (at));                                                                \
        const __m256i t = v;                                                                                           \
        lo = _mm256_fmadd_ps(x, wide_##TYPE(_mm256_castsi256_si128(t)), lo);                                           \
        hi = _mm256_fmadd_ps(x, wide_##TYPE(_mm256_extracti128_si256(t, 1)), hi);                                      \
    }
#define FRACTAL_16(TYPE)                                                                                               \
    static inline void fractal_##TYPE(float *c, const float *a, const char *b)                                         \
    {                                                                                                                  \
        __m256 lo = _mm256_loadu_ps(c), hi = _mm256_loadu_ps(c + 8);                                                   \
        for (const float *end = a + 16; a < end; a += 8, b += 16) {                                                    \
            const __m256i r0 = rows_16(b, 0), r1 = rows_16(b, 1), r2 = rows_16(b, 2), r3 = rows_16(b, 3);              \
            const __m256i r4 = rows_16(b, 4), r5 = rows_16(b, 5), r6 = rows_16(b, 6), r7 = rows_16(b, 7);              \
            const __m256i p0 = _mm256_unpacklo_epi16(r0, r1), p1 = _mm256_unpackhi_epi16(r0, r1);                      \
            const __m256i p2 = _mm256_unpacklo_epi16(r2, r3), p3 = _mm256_unpackhi_epi16(r2, r3);                      \
            const __m256i p4 = _mm256_unpacklo_epi16(r4, r5), p5 = _mm256_unpackhi_epi16(r4, r5);                      \
            const __m256i p6 = _mm256_unpacklo_epi16(r6, r7), p7 = _mm256_unpackhi_epi16(r6, r7);                      \
            const __m256i q0 = _mm256_unpacklo_epi32(p0, p2), q1 = _mm256_unpackhi_epi32(p0, p2);                      \
            const __m256i q2 = _mm256_unpacklo_epi32(p1, p3), q3 = _mm256_unpackhi_epi32(p1, p3);                      \
            const __m256i q4 = _mm256_unpacklo_epi32(p4, p6), q5 = _mm256_unpackhi_epi32(p4, p6);                      \
            const __m256i q6 = _mm256_unpacklo_epi32(p5, p7), q7 = _mm256_unpackhi_epi32(p5, p7);                      \
            STEP_16(TYPE, _mm256_unpacklo_epi64(q0, q4), 0)                                                            \
            STEP_16(TYPE, _mm256_unpackhi_epi64(q0, q4), 1)                                                            \
            STEP_16(TYPE, _mm256_unpacklo_epi64(q1, q5), 2)                                                            \
            STEP_16(TYPE, _mm256_unpackhi_epi64(q1, q5), 3)                                                            \
            STEP_16(TYPE, _mm256_unpacklo_epi64(q2, q6), 4)                                                            \
            STEP_16(TYPE, _mm256_unpackhi_epi64(q2, q6), 5)                                                            \
            STEP_16(TYPE, _mm256_unpacklo_epi64(q3, q7), 6)                                                            \
            STEP_16(TYPE, _mm256_unpackhi_epi64(q3, q7), 7)                                                            \
        }                                                                                                              \
        _mm256_storeu_ps(c, lo);                                                                                       \
        _mm256_storeu_ps(c + 8, hi);                                                                                   \
    }
FRACTAL_16(f16)
FRACTAL_16(bf16)

#define ROW(TYPE, C0, KIND)                                                                                            \
    void k_row_##TYPE##_avx2(const struct k_row *g)                                                                    \
    {                                                                                                                  \
        const float *a = g->a;                                                                                         \
        const int64_t ahead = k_row_distance(g);                                                                       \
        int64_t k = 0;                                                                                                 \
        for (const char *b = g->b; k + (C0) <= g->k; k += (C0), b += g->b_step)                                        \
            for (int64_t n = 0; n < g->n1; n++) {                                                                      \
                k_row_ask_for((uintptr_t)(b + n * FRACTAL) + (uintptr_t)ahead);                                        \
                fractal_##TYPE((float *)g->c + n * g->c_step, a + k, b + n * FRACTAL);                                 \
            }                                                                                                          \
        k_row_finish(g, KIND, k, C0);                                                                                  \
    }
ROW(f32, 8, K_ROW_F32)
ROW(f16, 16, K_ROW_F16)
ROW(bf16, 16, K_ROW_BF16)

/* Sums of the lanes of 4 vectors. */
static inline __m128i sums_of(const __m256i v[4])
{
    const __m256i s = _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3]));
    return _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
}

/* Integers are exact modulo 2^32 in any order: each column has eight partial sums until the row ends. */
enum { COLUMNS = 16 }; /* column blocks whose partial sums stay in the cache: 8 KiB */
static void add_columns(const struct k_row *g, int64_t n0, int64_t n1)
{
    __m256i part[COLUMNS][16];
    const int64_t ahead = k_row_distance(g);
    const __m128i *a = g->a;
    for (int64_t n = 0; n < n1; n++)
        for (int i = 0; i < 16; i++)
            part[n][i] = _mm256_setzero_si256();
    const char *b = g->b + n0 * FRACTAL;
    for (int64_t k = 0; k < g->k; k += 32, b += g->b_step, a += 4) {
        const __m256i a0 = _mm256_loadu_si256((const __m256i *)a), a1 = _mm256_loadu_si256((const __m256i *)(a + 2));
        for (int64_t n = 0; n < n1; n++) {
            const __m128i *x = (const __m128i *)(const void *)(b + n * FRACTAL);
            k_row_ask_for((uintptr_t)x + (uintptr_t)ahead);
            for (int i = 0; i < 16; i++) {
                const __m256i b0 = _mm256_cvtepi8_epi16(_mm_loadu_si128(x + 2 * i));
                const __m256i b1 = _mm256_cvtepi8_epi16(_mm_loadu_si128(x + 2 * i + 1));
                const __m256i s = _mm256_add_epi32(_mm256_madd_epi16(a0, b0), _mm256_madd_epi16(a1, b1));
                part[n][i] = _mm256_add_epi32(part[n][i], s);
            }
        }
    }
    for (int64_t n = 0; n < n1; n++)
        for (int i = 0; i < 16; i += 4) {
            __m128i *c = (__m128i *)(void *)((int32_t *)g->c + (n0 + n) * g->c_step + i);
            _mm_storeu_si128(c, _mm_add_epi32(_mm_loadu_si128(c), sums_of(part[n] + i)));
        }
}

void k_row_i8_avx2(const struct k_row *g)
{
    for (int64_t n = 0; n < g->n1; n += COLUMNS)
        add_columns(g, n, g->n1 - n < COLUMNS ? g->n1 - n : COLUMNS);
}
