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

/* The 16 codes at x as floats. */
static inline void unpack(__m256 y[2], const uint8_t *x)
{
    const __m128i q = _mm_loadl_epi64((const __m128i *)(const void *)x), low = _mm_set1_epi8(15);
    const __m128i codes = _mm_unpacklo_epi8(_mm_and_si128(q, low), _mm_and_si128(_mm_srli_epi16(q, 4), low));
    y[0] = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(codes));
    y[1] = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(codes, 8)));
}

/* Columns i .. i + 15, which are of one block, of all rows. A finite scale and zero make no NaN, so that the conversion
 * alone narrows as k_narrow does; false otherwise. */
static bool columns(const struct k_code_rows *g, int64_t i)
{
    const int64_t at = g->first + i, block = at / g->block;
    const int shift = block % 2 ? 4 : 0;
    const uint8_t *codes = g->codes + at / 2, *scales = g->scales, *zeros = g->zeros;
    uint8_t *y = g->dst + i * (g->to == DT_F32 ? 4 : 2);
    bool finite = true;
    for (int64_t r = 0; r < g->rows; r++) {
        const float scale = element(g->scale_type, scales, block);
        float zero = 8;
        if (g->zero == K_ZERO_CODES)
            zero = (float)(zeros[block / 2] >> shift & 15);
        else if (g->zero == K_ZERO_VALUES)
            zero = element(g->scale_type, zeros, block);
        const __m256 s = _mm256_set1_ps(scale), z = _mm256_set1_ps(zero);
        __m256 v[2];
        finite = finite && isfinite(scale) && isfinite(zero);
        unpack(v, codes);
        v[0] = _mm256_mul_ps(_mm256_sub_ps(v[0], z), s);
        v[1] = _mm256_mul_ps(_mm256_sub_ps(v[1], z), s);
        if (g->to == DT_F32) {
            _mm256_storeu_ps((float *)(void *)y, v[0]);
            _mm256_storeu_ps((float *)(void *)y + 8, v[1]);
        } else {
            __m128i *h = (__m128i *)(void *)y;
            _mm_storeu_si128(h, _mm256_cvtps_ph(v[0], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
            _mm_storeu_si128(h + 1, _mm256_cvtps_ph(v[1], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
        }
        codes += g->code_row;
        scales += g->scale_row;
        zeros += g->zero_row;
        y += g->dst_row;
    }
    return finite;
}

bool k_dequant_rows_avx2(const struct k_code_rows *g)
{
    bool finite = true;
    if (g->code != DT_U4 || (g->to != DT_F16 && g->to != DT_F32) || g->cols % 16 || g->first % 16 || g->block % 16 ||
        (g->scale_type != DT_F16 && g->scale_type != DT_F32))
        return false;
    for (int64_t i = 0; i < g->cols; i += 16)
        finite = columns(g, i) && finite;
    for (int64_t r = 0; !finite && r < g->rows; r++)
        k_dequant_row(g, r);
    return true;
}
