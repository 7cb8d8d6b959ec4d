/* Transposes in AVX2 registers, for the *_avx2.c files of multiply-accumulate. */
#ifndef KERNELS_MAC_TRANSPOSE_H
#define KERNELS_MAC_TRANSPOSE_H

#include <immintrin.h>

#include "kernels/mac_priv.h"

/* Columns k..k+3 of 8 rows `row` floats apart, as 4 vectors over the rows. Halves of rows i and i + 4 are joined while
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

/* Columns k..k+7 of 16 rows of 16-bit elements, `row` elements apart, as 8 vectors over the rows. */
static inline __m256i pair16(const uint16_t *p, int64_t row)
{
    const __m128i lo = _mm_loadu_si128((const __m128i *)(const void *)p);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(lo),
                                   _mm_loadu_si128((const __m128i *)(const void *)(p + 8 * row)), 1);
}
static inline void transpose16(__m256i y[8], const uint16_t *x, int64_t row)
{
    __m256i r[8], t[8];
    for (int i = 0; i < 8; i += 2) {
        const __m256i even = pair16(x + i * row, row), odd = pair16(x + (i + 1) * row, row);
        r[i] = _mm256_unpacklo_epi16(even, odd);
        r[i + 1] = _mm256_unpackhi_epi16(even, odd);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            t[i + 2 * j] = _mm256_unpacklo_epi32(r[i + j], r[i + 2 + j]);
            t[i + 2 * j + 1] = _mm256_unpackhi_epi32(r[i + j], r[i + 2 + j]);
        }
    for (int j = 0; j < 4; j++) {
        y[2 * j] = _mm256_unpacklo_epi64(t[j], t[4 + j]);
        y[2 * j + 1] = _mm256_unpackhi_epi64(t[j], t[4 + j]);
    }
}

#endif
