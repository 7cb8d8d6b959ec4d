/* Loads and transposes in AVX2 registers, for the *_avx2.c files of multiply-accumulate and codes. */
#ifndef KERNELS_MAC_AVX2_H
#define KERNELS_MAC_AVX2_H

#include <immintrin.h>
#include <string.h>

#include "kernels/mac_priv.h"

/* Number `at` of floats or numbers of f16. */
static inline float k_number(enum dtype t, const uint8_t *p, int64_t at)
{
    float f;
    uint16_t h;
    if (t == DT_F32) {
        memcpy(&f, p + at * 4, sizeof f);
        return f;
    }
    memcpy(&h, p + at * 2, sizeof h);
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(h)));
}

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

#endif
