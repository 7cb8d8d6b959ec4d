/* AVX2 form of k_dequant_rows for codes of 4 and 8 bits: 16 codes of one block at a time. */
#include "kernels/quant_priv.h"

#include <immintrin.h>
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

/* The 16 codes at x, and code `at` of a row. */
static inline __m128i unpack_u4(const uint8_t *x)
{
    const __m128i q = _mm_loadl_epi64((const __m128i *)(const void *)x), low = _mm_set1_epi8(15);
    return _mm_unpacklo_epi8(_mm_and_si128(q, low), _mm_and_si128(_mm_srli_epi16(q, 4), low));
}
static inline __m128i unpack_u8(const uint8_t *x)
{
    return _mm_loadu_si128((const __m128i *)(const void *)x);
}
static inline int code_u4(const uint8_t *p, int64_t at)
{
    return p[at / 2] >> (at % 2 * 4) & 15;
}
static inline int code_u8(const uint8_t *p, int64_t at)
{
    return p[at];
}

static inline void put_f32(uint8_t *y, const __m256 v[2])
{
    _mm256_storeu_ps((float *)(void *)y, v[0]);
    _mm256_storeu_ps((float *)(void *)y + 8, v[1]);
}
static inline void put_f16(uint8_t *y, const __m256 v[2])
{
    __m128i *h = (__m128i *)(void *)y;
    _mm_storeu_si128(h, _mm256_cvtps_ph(v[0], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    _mm_storeu_si128(h + 1, _mm256_cvtps_ph(v[1], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

/* Columns i .. i + 15, which are of one block, of all rows. A finite scale and zero make no NaN, so that the conversion
 * alone narrows as k_narrow does; false otherwise. */
#define COLUMNS(CODE, BITS, TO, SIZE)                                                                                  \
    static bool CODE##_to_##TO(const struct k_code_rows *g, int64_t i)                                                 \
    {                                                                                                                  \
        const int64_t at = g->first + i, block = at / g->block;                                                        \
        const uint8_t *codes = g->codes + at * (BITS) / 8, *scales = g->scales, *zeros = g->zeros;                     \
        const enum dtype st = g->scale_type;                                                                           \
        uint8_t *y = g->dst + i * (SIZE);                                                                              \
        float rest = 0; /* x - x is 0 for what is finite, NaN otherwise */                                             \
        for (int64_t r = 0; r < g->rows; r++) {                                                                        \
            const float scale = element(st, scales, block);                                                            \
            float zero = 1 << ((BITS)-1);                                                                              \
            if (g->zero == K_ZERO_CODES)                                                                               \
                zero = (float)code_##CODE(zeros, block);                                                               \
            else if (g->zero == K_ZERO_VALUES)                                                                         \
                zero = element(st, zeros, block);                                                                      \
            rest += (scale - scale) + (zero - zero);                                                                   \
            const __m256 s = _mm256_set1_ps(scale), z = _mm256_set1_ps(zero);                                          \
            const __m128i q = unpack_##CODE(codes);                                                                    \
            __m256 v[2] = {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(q)),                                                \
                           _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(q, 8)))};                            \
            v[0] = _mm256_mul_ps(_mm256_sub_ps(v[0], z), s);                                                           \
            v[1] = _mm256_mul_ps(_mm256_sub_ps(v[1], z), s);                                                           \
            put_##TO(y, v);                                                                                            \
            codes += g->code_row;                                                                                      \
            scales += g->scale_row;                                                                                    \
            zeros += g->zero_row;                                                                                      \
            y += g->dst_row;                                                                                           \
        }                                                                                                              \
        return rest == 0;                                                                                              \
    }
COLUMNS(u4, 4, f16, 2)
COLUMNS(u4, 4, f32, 4)
COLUMNS(u8, 8, f16, 2)
COLUMNS(u8, 8, f32, 4)

bool k_dequant_rows_avx2(const struct k_code_rows *g)
{
    static bool (*const forms[2][2])(const struct k_code_rows *, int64_t) = {{u4_to_f16, u4_to_f32},
                                                                             {u8_to_f16, u8_to_f32}};
    bool finite = true;
    if ((g->code != DT_U4 && g->code != DT_U8) || (g->to != DT_F16 && g->to != DT_F32) || g->cols % 16 ||
        g->first % 16 || g->block % 16 || (g->scale_type != DT_F16 && g->scale_type != DT_F32))
        return false;
    for (int64_t i = 0; i < g->cols; i += 16)
        finite = forms[g->code == DT_U8][g->to == DT_F32](g, i) && finite;
    for (int64_t r = 0; !finite && r < g->rows; r++)
        k_dequant_row(g, r);
    return true;
}
