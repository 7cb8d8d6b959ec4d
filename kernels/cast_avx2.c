/* AVX2 forms of the casts of kernels/cast.c that are not those of base/half.h. Each does whole registers and returns
 * how many elements that were. */
#include <immintrin.h>

#include "kernels/cast_priv.h"

static inline __m256i whole_at(const void *p)
{
    return _mm256_loadu_si256(p);
}
static inline void put(void *p, __m256i v)
{
    _mm256_storeu_si256(p, v);
}

int64_t k_cast_i32_f32_avx2(float *y, const int32_t *x, int64_t n)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, _mm256_cvtepi32_ps(whole_at(x + i)));
    return i;
}

int64_t k_scale_f32_avx2(float *y, const float *scale, int64_t n)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, _mm256_mul_ps(_mm256_loadu_ps(y + i), _mm256_loadu_ps(scale + i)));
    return i;
}

/* The conversion gives INT32_MIN for NaN and what is out of range, whose lower bits count. */
int64_t k_trunc_32_avx2(int32_t *y, const float *x, int64_t n)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        put(y + i, _mm256_cvttps_epi32(_mm256_loadu_ps(x + i)));
    return i;
}
static inline __m256i trunc_masked(const float *x, int32_t mask)
{
    return _mm256_and_si256(_mm256_cvttps_epi32(_mm256_loadu_ps(x)), _mm256_set1_epi32(mask));
}
static inline __m256i two_16(const float *x, int32_t mask) /* fours of x and of x + 8 in turns */
{
    return _mm256_packus_epi32(trunc_masked(x, mask), trunc_masked(x + 8, mask));
}
int64_t k_trunc_16_avx2(uint16_t *y, const float *x, int64_t n)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        put(y + i, _mm256_permute4x64_epi64(two_16(x + i, 0xffff), 0xd8));
    return i;
}
int64_t k_trunc_8_avx2(uint8_t *y, const float *x, int64_t n)
{
    const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        const __m256i v = _mm256_packus_epi16(two_16(x + i, 0xff), two_16(x + i + 16, 0xff));
        put(y + i, _mm256_permutevar8x32_epi32(v, in_order));
    }
    return i;
}
