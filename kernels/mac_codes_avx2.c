/* AVX2 form of a strip of codes: values are made in registers, 16 columns of one k at a time, and multiplied there.
 *
 * Rows of codes are joined as row i in the low lane and row i + 4 in the high one; two shuffles per vector then turn 4
 * such pairs so that a double word holds the bytes of 4 columns, and spreading them gives 8 columns in order. */
#include "kernels/mac_avx2.h"

#include <string.h>

enum { BLOCKS = K_STRIP_K / 16 + 1 };

/* Of every block of codes: its 16 columns' scales and zero points. */
struct factors {
    float scale[BLOCKS + 8][16], zero[BLOCKS + 8][16];
    uint8_t byte[BLOCKS + 8][16]; /* the zero points again, where less_near takes them off */
};

/* 8 numbers from `at` on of a row. */
static inline __m256 numbers(enum dtype t, const uint8_t *p, int64_t at)
{
    if (t == DT_F32)
        return _mm256_loadu_ps((const float *)(const void *)p + at);
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p + at * 2)));
}

/* The same of packed codes; `at` is even where two are in a byte. */
static inline __m256 codes_u4(const uint8_t *p, int64_t at)
{
    int32_t packed;
    memcpy(&packed, p + at / 2, sizeof packed);
    const __m256i each = _mm256_srlv_epi32(_mm256_set1_epi32(packed), _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
    return _mm256_cvtepi32_ps(_mm256_and_si256(each, _mm256_set1_epi32(15)));
}
static inline __m256 codes_u8(const uint8_t *p, int64_t at)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(p + at))));
}
static inline float code(enum dtype t, const uint8_t *p, int64_t at)
{
    return (float)(t == DT_U4 ? p[at / 2] >> (at % 2 * 4) & 15 : p[at]);
}

/* 8 rows of 8, turned into columns `half` .. half + 7 of y. */
static inline void turn_part(float (*y)[16], int half, const float x[64])
{
    for (int c = 0; c < 8; c += 4) {
        __m256 v[4];
        half_transpose(v, x + c, 8);
        for (int j = 0; j < 4; j++)
            _mm256_storeu_ps(y[c + j] + half, v[j]);
    }
}

/* Numbers b0 .. b0 + n of 16 rows, turned: y[i][row]. */
static void turn_numbers(float (*y)[16], enum dtype t, const uint8_t *const rows[16], int64_t b0, int64_t n)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int half = 0; half < 16; half += 8) {
            float part[64];
            for (int r = 0; r < 8; r++)
                _mm256_storeu_ps(part + r * 8, numbers(t, rows[half + r], b0 + i));
            turn_part(y + i, half, part);
        }
    for (; i < n; i++)
        for (int r = 0; r < 16; r++)
            y[i][r] = k_number(t, rows[r], b0 + i);
}

static void turn_codes(float (*y)[16], enum dtype t, const uint8_t *const rows[16], int64_t b0, int64_t n)
{
    int64_t i = 0;
    for (; i + 8 <= n && (t == DT_U8 || b0 % 2 == 0); i += 8)
        for (int half = 0; half < 16; half += 8) {
            float part[64];
            for (int r = 0; r < 8; r++)
                _mm256_storeu_ps(part + r * 8,
                                 t == DT_U4 ? codes_u4(rows[half + r], b0 + i) : codes_u8(rows[half + r], b0 + i));
            turn_part(y + i, half, part);
        }
    for (; i < n; i++)
        for (int r = 0; r < 16; r++)
            y[i][r] = code(t, rows[r], b0 + i);
}

/* x - x is 0 for what is finite, NaN otherwise. */
static bool all_finite(float (*v)[16], int64_t n)
{
    __m256 rest = _mm256_setzero_ps();
    for (int64_t i = 0; i < n; i++)
        for (int c = 0; c < 16; c += 8) {
            const __m256 x = _mm256_loadu_ps(v[i] + c);
            rest = _mm256_add_ps(rest, _mm256_sub_ps(x, x));
        }
    return _mm256_movemask_ps(_mm256_cmp_ps(rest, _mm256_setzero_ps(), _CMP_EQ_OQ)) == 255;
}

/* Is every scale a number of f16 above 0, and every whole number of codes times it 0 or a normal number of f16? */
static bool all_normal(const struct factors *f, int64_t n)
{
    const __m256 low = _mm256_set1_ps(0x1p-14f), high = _mm256_set1_ps(65504.0f / 255);
    const __m256i rest = _mm256_set1_epi32(0x1fff); /* what f16 has no bits for */
    int bits = 255;
    for (int64_t i = 0; i < n * 16; i += 8) {
        const __m256 x = _mm256_loadu_ps(f->scale[0] + i);
        const __m256i over = _mm256_and_si256(_mm256_castps_si256(x), rest);
        const __m256 fits = _mm256_castsi256_ps(_mm256_cmpeq_epi32(over, _mm256_setzero_si256()));
        const __m256 in = _mm256_and_ps(_mm256_cmp_ps(x, low, _CMP_GE_OQ), _mm256_cmp_ps(x, high, _CMP_LE_OQ));
        bits &= _mm256_movemask_ps(_mm256_and_ps(in, fits));
    }
    return bits == 255;
}

/* The zero points as bytes. */
static void set_bytes(struct factors *f, int64_t n, bool alike)
{
    if (alike) {
        memset(f->byte, (int)f->zero[0][0], (size_t)(n * 16));
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        const __m256i x = _mm256_cvtps_epi32(_mm256_loadu_ps(f->zero[i]));
        const __m256i y = _mm256_cvtps_epi32(_mm256_loadu_ps(f->zero[i] + 8));
        const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(x, y), 0xd8);
        _mm_storeu_si128((__m128i *)(void *)f->byte[i],
                         _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
    }
}

enum form { TO_F16, TO_F32, TO_NEAR, NO_FORM };
static enum form find_factors(const struct k_strip *g, struct factors *f)
{
    const struct k_code_rows *w = g->w;
    const int64_t b0 = g->first / w->block, n = (g->first + g->k - 1) / w->block - b0 + 1;
    turn_numbers(f->scale, w->scale_type, g->scales, b0, n);
    if (w->zero == K_ZERO_CODES)
        turn_codes(f->zero, w->code, g->zeros, b0, n);
    else if (w->zero == K_ZERO_VALUES)
        turn_numbers(f->zero, w->scale_type, g->zeros, b0, n);
    else
        for (int64_t i = 0; i < n * 16; i += 8)
            _mm256_storeu_ps(f->zero[0] + i, _mm256_set1_ps(w->code == DT_U4 ? 8 : 128));
    const bool whole = w->zero != K_ZERO_VALUES, byte = w->zero == K_ZERO_MIDDLE || (whole && w->code == DT_U4);
    set_bytes(f, byte ? n : 0, w->zero == K_ZERO_MIDDLE);
    if (w->to == DT_F16 && byte && all_normal(f, n))
        return TO_NEAR;
    if (!all_finite(f->scale, n) || (!whole && !all_finite(f->zero, n)))
        return NO_FORM;
    return w->to == DT_F16 ? TO_F16 : TO_F32;
}

/* Four bytes of either lane, from 4j on, each alone in the low or the high end of a double word. */
static inline __m256i low_bytes(__m256i v, int j)
{
    const __m128i to = _mm_setr_epi8((char)(4 * j), -1, -1, -1, (char)(4 * j + 1), -1, -1, -1, (char)(4 * j + 2), -1,
                                     -1, -1, (char)(4 * j + 3), -1, -1, -1);
    return _mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(to));
}
static inline __m256i high_bytes(__m256i v, int j)
{
    const __m128i to = _mm_setr_epi8(-1, -1, -1, (char)(4 * j), -1, -1, -1, (char)(4 * j + 1), -1, -1, -1,
                                     (char)(4 * j + 2), -1, -1, -1, (char)(4 * j + 3));
    return _mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(to));
}

/* (q - zero) * scale, rounded: less_ takes zero points off the bytes or leaves them, value_ does the rest. */
static inline __m256i less_f32(__m256i q, __m256i zero)
{
    (void)zero;
    return q;
}
static inline __m256 value_f32(__m256i q, int j, __m256 zero, __m256 scale)
{
    return _mm256_mul_ps(_mm256_sub_ps(_mm256_cvtepi32_ps(low_bytes(q, j)), zero), scale);
}
#define scale_f32(s)    (s)
#define other_f32(z, s) (z)

static inline __m256i less_f16(__m256i q, __m256i zero)
{
    return less_f32(q, zero);
}
static inline __m256 value_f16(__m256i q, int j, __m256 zero, __m256 scale)
{
    const __m256 v = value_f32(q, j, zero, scale);
    return _mm256_cvtph_ps(_mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
#define scale_f16(s)    (s)
#define other_f16(z, s) (z)

/* The same to f16 where q - zero is a signed byte d and its product with the scale s is 0 or a normal number of f16.
 * s has 11 bits, so that v = ds has at most 19 and 8193s is a float. The last bit of 8193v as a float is worth as much
 * as the last of v in f16, and 8192v is an even number of them: the product is rounded to 8192v plus v rounded to
 * nearest, halves to even, and taking 8192v off is exact. Where 8193v is of the next power of two, its bits are worth
 * twice as much, and v is so near to that power that it becomes it either way.
 * The byte stands for 2^24 as much, the scales for as much less. */
static inline __m256i less_near(__m256i q, __m256i zero)
{
    return _mm256_sub_epi8(q, zero);
}
static inline __m256 value_near(__m256i d, int j, __m256 scale_8192, __m256 scale_8193)
{
    const __m256 x = _mm256_cvtepi32_ps(high_bytes(d, j));
    return _mm256_fnmadd_ps(x, scale_8192, _mm256_mul_ps(x, scale_8193));
}
#define scale_near(s)    _mm256_mul_ps(s, _mm256_set1_ps(8193 * 0x1p-24f))
#define other_near(z, s) _mm256_mul_ps(s, _mm256_set1_ps(8192 * 0x1p-24f))

/* Zero points of 16 columns as the bytes of codes lie: 4 of either lane, again and again. */
static inline __m256i zero_bytes(const uint8_t *p, int first)
{
    int32_t low, high;
    memcpy(&low, p + first, sizeof low);
    memcpy(&high, p + first + 4, sizeof high);
    return _mm256_setr_m128i(_mm_set1_epi32(low), _mm_set1_epi32(high));
}

/* 8 bytes of 8 rows: y[i] has bytes 4i .. 4i + 3 of all. */
static inline __m256i rows_8(const uint8_t *low, const uint8_t *high)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadl_epi64((const __m128i *)(const void *)low)),
                                   _mm_loadl_epi64((const __m128i *)(const void *)high), 1);
}
static inline void turn_8(__m256i y[2], const uint8_t *const rows[8], int64_t at)
{
    const __m256i a = _mm256_unpacklo_epi8(rows_8(rows[0] + at, rows[4] + at), rows_8(rows[1] + at, rows[5] + at));
    const __m256i b = _mm256_unpacklo_epi8(rows_8(rows[2] + at, rows[6] + at), rows_8(rows[3] + at, rows[7] + at));
    y[0] = _mm256_unpacklo_epi16(a, b);
    y[1] = _mm256_unpackhi_epi16(a, b);
}

#define STEP(TO, at, lo, hi, j)                                                                                        \
    {                                                                                                                  \
        const __m256 x = _mm256_broadcast_ss(a + (at));                                                                \
        c0 = _mm256_fmadd_ps(x, value_##TO(lo, j, z0, s0), c0);                                                        \
        c1 = _mm256_fmadd_ps(x, value_##TO(hi, j, z1, s1), c1);                                                        \
    }
/* Codes of 4 bits, two to a byte; of 8 bits: 16 of each row. */
#define CHUNK_u4(TO)                                                                                                   \
    __m256i lo[2], hi[2];                                                                                              \
    const __m256i nibble = _mm256_set1_epi8(15);                                                                       \
    turn_8(lo, g->codes, at / 2);                                                                                      \
    turn_8(hi, g->codes + 8, at / 2);                                                                                  \
    for (int i = 0; i < 2; i++, a += 8) {                                                                              \
        const __m256i lo0 = less_##TO(_mm256_and_si256(lo[i], nibble), b0);                                            \
        const __m256i hi0 = less_##TO(_mm256_and_si256(hi[i], nibble), b1);                                            \
        const __m256i lo1 = less_##TO(_mm256_and_si256(_mm256_srli_epi16(lo[i], 4), nibble), b0);                      \
        const __m256i hi1 = less_##TO(_mm256_and_si256(_mm256_srli_epi16(hi[i], 4), nibble), b1);                      \
        STEP(TO, 0, lo0, hi0, 0)                                                                                       \
        STEP(TO, 1, lo1, hi1, 0)                                                                                       \
        STEP(TO, 2, lo0, hi0, 1)                                                                                       \
        STEP(TO, 3, lo1, hi1, 1)                                                                                       \
        STEP(TO, 4, lo0, hi0, 2)                                                                                       \
        STEP(TO, 5, lo1, hi1, 2)                                                                                       \
        STEP(TO, 6, lo0, hi0, 3)                                                                                       \
        STEP(TO, 7, lo1, hi1, 3)                                                                                       \
    }
#define CHUNK_u8(TO)                                                                                                   \
    for (int i = 0; i < 2; i++, a += 8) {                                                                              \
        __m256i lo[2], hi[2];                                                                                          \
        turn_8(lo, g->codes, at + 8 * i);                                                                              \
        turn_8(hi, g->codes + 8, at + 8 * i);                                                                          \
        for (int h = 0; h < 2; h++) {                                                                                  \
            const __m256i low = less_##TO(lo[h], b0), high = less_##TO(hi[h], b1);                                     \
            STEP(TO, 4 * h, low, high, 0)                                                                              \
            STEP(TO, 4 * h + 1, low, high, 1)                                                                          \
            STEP(TO, 4 * h + 2, low, high, 2)                                                                          \
            STEP(TO, 4 * h + 3, low, high, 3)                                                                          \
        }                                                                                                              \
    }
#define STRIP(CODE, TO)                                                                                                \
    static void CODE##_##TO(const struct k_strip *g, const struct factors *f)                                          \
    {                                                                                                                  \
        const int64_t block = g->w->block, end = g->first + g->k, start = g->first / block;                            \
        const float *a = g->a;                                                                                         \
        __m256 c0 = _mm256_loadu_ps(g->c), c1 = _mm256_loadu_ps(g->c + 8);                                             \
        for (int64_t at = g->first; at < end;) {                                                                       \
            const int64_t n = at / block - start, next = (n + start + 1) * block, stop = next < end ? next : end;      \
            const __m256 left = _mm256_loadu_ps(f->scale[n]), right = _mm256_loadu_ps(f->scale[n] + 8);                \
            const __m256 s0 = scale_##TO(left), z0 = other_##TO(_mm256_loadu_ps(f->zero[n]), left);                    \
            const __m256 s1 = scale_##TO(right), z1 = other_##TO(_mm256_loadu_ps(f->zero[n] + 8), right);              \
            const __m256i b0 = zero_bytes(f->byte[n], 0), b1 = zero_bytes(f->byte[n], 8);                              \
            for (; at < stop; at += 16) {                                                                              \
                CHUNK_##CODE(TO)                                                                                       \
            }                                                                                                          \
        }                                                                                                              \
        _mm256_storeu_ps(g->c, c0);                                                                                    \
        _mm256_storeu_ps(g->c + 8, c1);                                                                                \
    }
STRIP(u4, f16)
STRIP(u4, f32)
STRIP(u8, f16)
STRIP(u8, f32)
STRIP(u4, near)
STRIP(u8, near)

bool k_strip_avx2(const struct k_strip *g)
{
    static void (*const forms[2][NO_FORM])(const struct k_strip *, const struct factors *) = {
        {[TO_F16] = u4_f16, [TO_F32] = u4_f32, [TO_NEAR] = u4_near},
        {[TO_F16] = u8_f16, [TO_F32] = u8_f32, [TO_NEAR] = u8_near}};
    struct factors f;
    const enum form form = find_factors(g, &f);
    if (form == NO_FORM)
        return false;
    forms[g->w->code == DT_U8][form](g, &f);
    return true;
}
