/* AVX2 form of k_dequant_rows for codes of 4 and 8 bits: 16 codes of one block at a time. */
#include "kernels/mac_avx2.h"
#include "kernels/quant_priv.h"

#include <string.h>

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

static inline void put_f32(uint8_t *y, __m256 v)
{
    _mm256_storeu_ps((float *)(void *)y, v);
}
static inline void put_f16(uint8_t *y, __m256 v)
{
    _mm_storeu_si128((__m128i *)(void *)y, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

/* Where column i of the first row goes. */
static inline uint8_t *place(const struct k_code_rows *g, int64_t i, int64_t size)
{
    return g->dst + (g->group ? i / g->group * g->group_step + i % g->group * size : i * size);
}

/* Columns i .. i + 15, which are of one block, of all rows. A finite scale and zero make no NaN, so that the conversion
 * alone narrows as k_narrow does; false otherwise. */
#define COLUMNS(CODE, BITS, TO, SIZE)                                                                                  \
    static bool CODE##_to_##TO(const struct k_code_rows *g, int64_t i)                                                 \
    {                                                                                                                  \
        const int64_t at = g->first + i, block = at / g->block;                                                        \
        const uint8_t *codes = g->codes + at * (BITS) / 8, *scales = g->scales, *zeros = g->zeros;                     \
        const enum dtype st = g->scale_type;                                                                           \
        uint8_t *y = place(g, i, SIZE);                                                                                \
        const int64_t half = place(g, i + 8, SIZE) - y;                                                                \
        float rest = 0; /* x - x is 0 for what is finite, NaN otherwise */                                             \
        for (int64_t r = 0; r < g->rows; r++) {                                                                        \
            const float scale = k_number(st, scales, block);                                                           \
            float zero = 1 << ((BITS)-1);                                                                              \
            if (g->zero == K_ZERO_CODES)                                                                               \
                zero = (float)code_##CODE(zeros, block);                                                               \
            else if (g->zero == K_ZERO_VALUES)                                                                         \
                zero = k_number(st, zeros, block);                                                                     \
            rest += (scale - scale) + (zero - zero);                                                                   \
            const __m256 s = _mm256_set1_ps(scale), z = _mm256_set1_ps(zero);                                          \
            const __m128i q = unpack_##CODE(codes);                                                                    \
            const __m256 lo = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(q));                                             \
            const __m256 hi = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(q, 8)));                          \
            put_##TO(y, _mm256_mul_ps(_mm256_sub_ps(lo, z), s));                                                       \
            put_##TO(y + half, _mm256_mul_ps(_mm256_sub_ps(hi, z), s));                                                \
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

/* The 16 values of a block's codes of 4 bits as f16, low and high bytes apart. The scalar form has the same table. */
struct values {
    __m128i low, high;
};
static inline struct values values_f16(__m256 scale, __m256 zero)
{
    const __m256 first = _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7), last = _mm256_setr_ps(8, 9, 10, 11, 12, 13, 14, 15);
    const int near = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    const __m128i a = _mm256_cvtps_ph(_mm256_mul_ps(_mm256_sub_ps(first, zero), scale), near);
    const __m128i b = _mm256_cvtps_ph(_mm256_mul_ps(_mm256_sub_ps(last, zero), scale), near);
    const __m128i byte = _mm_set1_epi16(255);
    return (struct values){_mm_packus_epi16(_mm_and_si128(a, byte), _mm_and_si128(b, byte)),
                           _mm_packus_epi16(_mm_srli_epi16(a, 8), _mm_srli_epi16(b, 8))};
}
static inline void look_up(uint8_t *y, int64_t half, const struct values *v, __m128i codes)
{
    const __m128i low = _mm_shuffle_epi8(v->low, codes), high = _mm_shuffle_epi8(v->high, codes);
    _mm_storeu_si128((__m128i *)(void *)y, _mm_unpacklo_epi8(low, high));
    _mm_storeu_si128((__m128i *)(void *)(y + half), _mm_unpackhi_epi8(low, high));
}

/* Columns i .. i + 31, which are of one block, of all rows, by looking codes up. false: as COLUMNS. */
static bool u4_looked_up(const struct k_code_rows *g, int64_t i)
{
    const int64_t at = g->first + i, block = at / g->block;
    const uint8_t *codes = g->codes + at / 2, *scales = g->scales, *zeros = g->zeros;
    uint8_t *y[2] = {place(g, i, 2), place(g, i + 16, 2)};
    const int64_t half[2] = {place(g, i + 8, 2) - y[0], place(g, i + 24, 2) - y[1]};
    const __m128i nibble = _mm_set1_epi8(15);
    float rest = 0;
    for (int64_t r = 0; r < g->rows; r++) {
        const float scale = k_number(g->scale_type, scales, block);
        float zero = 8;
        if (g->zero == K_ZERO_CODES)
            zero = (float)code_u4(zeros, block);
        else if (g->zero == K_ZERO_VALUES)
            zero = k_number(g->scale_type, zeros, block);
        rest += (scale - scale) + (zero - zero);
        const struct values v = values_f16(_mm256_set1_ps(scale), _mm256_set1_ps(zero));
        const __m128i q = _mm_loadu_si128((const __m128i *)(const void *)codes);
        const __m128i even = _mm_and_si128(q, nibble), odd = _mm_and_si128(_mm_srli_epi16(q, 4), nibble);
        look_up(y[0], half[0], &v, _mm_unpacklo_epi8(even, odd));
        look_up(y[1], half[1], &v, _mm_unpackhi_epi8(even, odd));
        codes += g->code_row;
        scales += g->scale_row;
        zeros += g->zero_row;
        y[0] += g->dst_row;
        y[1] += g->dst_row;
    }
    return rest == 0;
}

bool k_dequant_rows_avx2(const struct k_code_rows *g)
{
    static bool (*const forms[2][2])(const struct k_code_rows *, int64_t) = {{u4_to_f16, u4_to_f32},
                                                                             {u8_to_f16, u8_to_f32}};
    bool finite = true;
    if ((g->code != DT_U4 && g->code != DT_U8) || (g->to != DT_F16 && g->to != DT_F32) || g->cols % 16 ||
        g->first % 16 || g->block % 16 || g->group % 8 || (g->scale_type != DT_F16 && g->scale_type != DT_F32))
        return false;
    const bool look = g->code == DT_U4 && g->to == DT_F16 && g->first % 32 == 0 && g->block % 32 == 0;
    int64_t i = 0;
    for (; look && i + 32 <= g->cols; i += 32)
        finite = u4_looked_up(g, i) && finite;
    for (; i < g->cols; i += 16)
        finite = forms[g->code == DT_U8][g->to == DT_F32](g, i) && finite;
    for (int64_t r = 0; !finite && r < g->rows; r++)
        k_dequant_row(g, r);
    return true;
}
