/* AVX2 form of k_dequant_rows for codes of 4 bits: 16 codes of one block at a time. */
#include "kernels/quant_priv.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

static inline float element(enum dtype t, const uint8_t *p, int64_t at)
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

static inline float zero_of(const struct k_code_rows *g, int64_t row, int64_t block)
{
    if (g->zero == K_ZERO_CODES)
        return (float)(g->zeros[row * g->zero_row + block / 2] >> (block % 2 * 4) & 15);
    return g->zero == K_ZERO_VALUES ? element(g->scale_type, g->zeros + row * g->zero_row, block) : 8;
}

/* The 16 codes at x as floats. */
static inline void unpack(__m256 y[2], const uint8_t *x)
{
    const __m128i q = _mm_loadl_epi64((const __m128i *)(const void *)x), low = _mm_set1_epi8(15);
    const __m128i codes = _mm_unpacklo_epi8(_mm_and_si128(q, low), _mm_and_si128(_mm_srli_epi16(q, 4), low));
    y[0] = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(codes));
    y[1] = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(codes, 8)));
}

/* Elements i .. i + 15 of row r. A finite scale and zero make no NaN, so that the conversion alone narrows as k_narrow
 * does; false otherwise. */
static inline bool sixteen(const struct k_code_rows *g, int64_t r, int64_t i)
{
    const int64_t at = g->first + i, block = at / g->block;
    const float scale = element(g->scale_type, g->scales + r * g->scale_row, block), zero = zero_of(g, r, block);
    const __m256 s = _mm256_set1_ps(scale), z = _mm256_set1_ps(zero);
    __m256 v[2];
    if (!isfinite(scale) || !isfinite(zero))
        return false;
    unpack(v, g->codes + r * g->code_row + at / 2);
    v[0] = _mm256_mul_ps(_mm256_sub_ps(v[0], z), s);
    v[1] = _mm256_mul_ps(_mm256_sub_ps(v[1], z), s);
    if (g->to == DT_F32) {
        float *y = (float *)(void *)(g->dst + r * g->dst_row) + i;
        _mm256_storeu_ps(y, v[0]);
        _mm256_storeu_ps(y + 8, v[1]);
    } else {
        __m128i *y = (__m128i *)(void *)(g->dst + r * g->dst_row + i * 2);
        _mm_storeu_si128(y, _mm256_cvtps_ph(v[0], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
        _mm_storeu_si128(y + 1, _mm256_cvtps_ph(v[1], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
    return true;
}

bool k_dequant_rows_avx2(const struct k_code_rows *g)
{
    if (g->code != DT_U4 || (g->to != DT_F16 && g->to != DT_F32) || g->cols % 16 || g->first % 16 || g->block % 16 ||
        (g->scale_type != DT_F16 && g->scale_type != DT_F32))
        return false;
    for (int64_t r = 0; r < g->rows; r++) {
        bool finite = true;
        for (int64_t i = 0; finite && i < g->cols; i += 16)
            finite = sixteen(g, r, i);
        if (!finite)
            k_dequant_row(g, r);
    }
    return true;
}
