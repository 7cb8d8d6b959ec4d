/* F16C ignores the flush-to-zero and denormals-are-zero modes, rounds as asked and quiets NaN, so it equals the
 * scalar forms except that it keeps a NaN's payload when narrowing; NaNs are made canonical before. */
#include "base/half_priv.h"

#include <immintrin.h>

int64_t half_f16_to_f32_avx2(float *y, const uint16_t *x, int64_t n)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(x + i))));
    return i;
}

int64_t half_f32_to_f16_avx2(uint16_t *y, const float *x, int64_t n)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    const __m256 quiet = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000));
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 v = _mm256_loadu_ps(x + i);
        const __m256 nan = _mm256_cmp_ps(v, v, _CMP_UNORD_Q);
        v = _mm256_blendv_ps(v, _mm256_or_ps(_mm256_and_ps(v, sign), quiet), nan);
        _mm_storeu_si128((__m128i *)(void *)(y + i), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
    return i;
}

int64_t half_bf16_to_f32_avx2(float *y, const uint16_t *x, int64_t n)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256i v = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)(x + i)));
        _mm256_storeu_si256((__m256i *)(void *)(y + i), _mm256_slli_epi32(v, 16));
    }
    return i;
}

int64_t half_f32_to_bf16_avx2(uint16_t *y, const float *x, int64_t n)
{
    const __m256i one = _mm256_set1_epi32(1), bias = _mm256_set1_epi32(0x7fff);
    const __m256i sign = _mm256_set1_epi32(INT32_MIN), quiet = _mm256_set1_epi32(0x7fc00000);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 f = _mm256_loadu_ps(x + i);
        const __m256i v = _mm256_castps_si256(f);
        const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(v, 16), one);
        const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(v, bias), odd);
        const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(f, f, _CMP_UNORD_Q));
        const __m256i canonical = _mm256_or_si256(_mm256_and_si256(v, sign), quiet);
        const __m256i bits = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, canonical, nan), 16);
        const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(bits, bits), 0x08);
        _mm_storeu_si128((__m128i *)(void *)(y + i), _mm256_castsi256_si128(packed));
    }
    return i;
}
