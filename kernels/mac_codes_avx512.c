/* AVX-512 form of strips of codes: a vector has 16 columns of one k. Two strips are walked together, because the sums
 * of one are a chain whose steps wait for each other.
 *
 * Rows of codes are read 16 bytes at a time and turned as double words, so that lane n has the bytes of column n.
 * Scales and packed zero points, of which a row has as few bytes, are turned the same way. Values are made as the AVX2
 * form does where it is fastest (mac_codes_avx2.c, value_near): every other case is left to it. */
#include "kernels/mac_priv.h"

#include <immintrin.h>

enum { BLOCKS = K_STRIP_K / 16 + 8, CHUNK = 16 /* bytes of a row */ };

/* Of every block of codes: its 16 columns' scales, and zero points in each of 4 bytes. */
struct factors {
    float scale[BLOCKS][16];
    uint32_t zero[BLOCKS][16];
};

/* The first `bytes` bytes of 4 rows, the others 0 and not read. */
static inline __m512i lanes(const uint8_t *const rows[16], int first, int64_t at, __mmask16 bytes)
{
    __m512i x = _mm512_castsi128_si512(_mm_maskz_loadu_epi8(bytes, rows[first] + at));
    x = _mm512_inserti32x4(x, _mm_maskz_loadu_epi8(bytes, rows[first + 4] + at), 1);
    x = _mm512_inserti32x4(x, _mm_maskz_loadu_epi8(bytes, rows[first + 8] + at), 2);
    return _mm512_inserti32x4(x, _mm_maskz_loadu_epi8(bytes, rows[first + 12] + at), 3);
}
/* Double word j of 16 rows in y[j]. */
static inline void turn_lanes(__m512i y[4], const __m512i x[4])
{
    const __m512i a = _mm512_unpacklo_epi32(x[0], x[1]), b = _mm512_unpackhi_epi32(x[0], x[1]);
    const __m512i c = _mm512_unpacklo_epi32(x[2], x[3]), d = _mm512_unpackhi_epi32(x[2], x[3]);
    y[0] = _mm512_unpacklo_epi64(a, c);
    y[1] = _mm512_unpackhi_epi64(a, c);
    y[2] = _mm512_unpacklo_epi64(b, d);
    y[3] = _mm512_unpackhi_epi64(b, d);
}
static inline void turn_some(__m512i y[4], const uint8_t *const rows[16], int64_t at, int64_t bytes)
{
    const __mmask16 mask = (__mmask16)((1U << (bytes < CHUNK ? bytes : CHUNK)) - 1);
    const __m512i x[4] = {lanes(rows, 0, at, mask), lanes(rows, 1, at, mask), lanes(rows, 2, at, mask),
                          lanes(rows, 3, at, mask)};
    turn_lanes(y, x);
}
static inline __m512i whole_lanes(const uint8_t *const rows[16], int first, int64_t at)
{
    __m512i x = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(const void *)(rows[first] + at)));
    x = _mm512_inserti32x4(x, _mm_loadu_si128((const __m128i *)(const void *)(rows[first + 4] + at)), 1);
    x = _mm512_inserti32x4(x, _mm_loadu_si128((const __m128i *)(const void *)(rows[first + 8] + at)), 2);
    return _mm512_inserti32x4(x, _mm_loadu_si128((const __m128i *)(const void *)(rows[first + 12] + at)), 3);
}
static inline void turn(__m512i y[4], const uint8_t *const rows[16], int64_t at)
{
    const __m512i x[4] = {whole_lanes(rows, 0, at), whole_lanes(rows, 1, at), whole_lanes(rows, 2, at),
                          whole_lanes(rows, 3, at)};
    turn_lanes(y, x);
}

/* Is every scale a number of f16 above 0, and every whole number of codes times it 0 or a normal number of f16? */
static inline bool is_normal(__m512 x)
{
    const __m512 low = _mm512_set1_ps(0x1p-14f), high = _mm512_set1_ps(65504.0f / 255);
    const __m512i rest = _mm512_set1_epi32(0x1fff); /* what f16 has no bits for */
    const __mmask16 in = _mm512_cmp_ps_mask(x, low, _CMP_GE_OQ) & _mm512_cmp_ps_mask(x, high, _CMP_LE_OQ);
    return (in & _mm512_testn_epi32_mask(_mm512_castps_si512(x), rest)) == 0xffff;
}

/* Scales of blocks b0 .. b0 + n; false: they need another form. */
static bool find_scales(struct factors *f, const struct k_strip *g, int64_t b0, int64_t n)
{
    const bool wide = g->w->scale_type == DT_F32;
    const int64_t size = wide ? 4 : 2, step = CHUNK / size;
    bool fits = true;
    for (int64_t i = 0; i < n; i += step) {
        __m512i y[4];
        turn_some(y, g->scales, (b0 + i) * size, (n - i) * size);
        for (int64_t j = 0; j < step && i + j < n; j++) {
            const __m512i at = y[wide ? j : j / 2];
            const __m512i high = !wide && j % 2 ? _mm512_srli_epi32(at, 16) : at;
            const __m512 s = wide ? _mm512_castsi512_ps(at) : _mm512_cvtph_ps(_mm512_cvtepi32_epi16(high));
            fits = fits && is_normal(s);
            _mm512_storeu_ps(f->scale[i + j], s);
        }
    }
    return fits;
}

/* Byte j of every double word, in all its bytes or in the highest one alone. */
static inline __m512i all_bytes(__m512i v, int j)
{
    const __m128i to = _mm_setr_epi8((char)j, (char)j, (char)j, (char)j, (char)(4 + j), (char)(4 + j), (char)(4 + j),
                                     (char)(4 + j), (char)(8 + j), (char)(8 + j), (char)(8 + j), (char)(8 + j),
                                     (char)(12 + j), (char)(12 + j), (char)(12 + j), (char)(12 + j));
    return _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(to));
}
static inline __m512i high_byte(__m512i v, int j)
{
    const __m128i to = _mm_setr_epi8(-1, -1, -1, (char)j, -1, -1, -1, (char)(4 + j), -1, -1, -1, (char)(8 + j), -1, -1,
                                     -1, (char)(12 + j));
    return _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(to));
}

static void find_zeros(struct factors *f, const struct k_strip *g, int64_t b0, int64_t n)
{
    const struct k_code_rows *w = g->w;
    const __m512i nibble = _mm512_set1_epi32(15);
    if (w->zero == K_ZERO_MIDDLE)
        for (int64_t i = 0; i < n; i++)
            _mm512_storeu_si512(f->zero[i], _mm512_set1_epi8(w->code == DT_U4 ? 8 : (char)128));
    for (int64_t i = 0; w->zero != K_ZERO_MIDDLE && i < n; i += 8) {
        __m512i y[4];
        turn_some(y, g->zeros, (b0 + i) / 2, (n - i + 1) / 2 < 4 ? (n - i + 1) / 2 : 4);
        for (int64_t j = 0; j < 8 && i + j < n; j++) {
            _mm512_storeu_si512(f->zero[i + j], all_bytes(_mm512_and_si512(y[0], nibble), 0));
            y[0] = _mm512_srli_epi32(y[0], 4);
        }
    }
}

static bool find_factors(struct factors *f, const struct k_strip *g)
{
    const struct k_code_rows *w = g->w;
    const int64_t b0 = g->first / w->block, n = (g->first + g->k - 1) / w->block - b0 + 1;
    const bool packed = w->zero == K_ZERO_CODES && w->code == DT_U4 && b0 % 2 == 0;
    if (w->to != DT_F16 || !(packed || w->zero == K_ZERO_MIDDLE) || !find_scales(f, g, b0, n))
        return false;
    find_zeros(f, g, b0, n);
    return true;
}

/* What a block's values are made with, of both strips. */
struct block {
    __m512 s8192[2], s8193[2];
    __m512i zero[2];
};
static inline struct block block_of(const struct factors f[2], int64_t n)
{
    const __m512 more = _mm512_set1_ps(8193 * 0x1p-24f), less = _mm512_set1_ps(8192 * 0x1p-24f);
    struct block b;
    for (int i = 0; i < 2; i++) {
        const __m512 s = _mm512_loadu_ps(f[i].scale[n]);
        b.s8193[i] = _mm512_mul_ps(s, more);
        b.s8192[i] = _mm512_mul_ps(s, less);
        b.zero[i] = _mm512_loadu_si512(f[i].zero[n]);
    }
    return b;
}

/* Byte j of d, in both strips, is the next element along K. */
#define STEP(d, j, at)                                                                                                 \
    {                                                                                                                  \
        const __m512 x = _mm512_cvtepi32_ps(high_byte(d[0], j)), y = _mm512_cvtepi32_ps(high_byte(d[1], j));           \
        const __m512 v = _mm512_fnmadd_ps(x, b.s8192[0], _mm512_mul_ps(x, b.s8193[0]));                                \
        const __m512 w = _mm512_fnmadd_ps(y, b.s8192[1], _mm512_mul_ps(y, b.s8193[1]));                                \
        const __m512 by = _mm512_set1_ps(a[at]);                                                                       \
        c0 = _mm512_fmadd_ps(by, v, c0);                                                                               \
        c1 = _mm512_fmadd_ps(by, w, c1);                                                                               \
    }
/* 4 bytes of each row: 8 elements, or 4. */
#define WORD_u4(n)                                                                                                     \
    {                                                                                                                  \
        const __m512i even[2] = {_mm512_sub_epi8(_mm512_and_si512(p[n], nibble), b.zero[0]),                           \
                                 _mm512_sub_epi8(_mm512_and_si512(q[n], nibble), b.zero[1])};                          \
        const __m512i odd[2] = {_mm512_sub_epi8(_mm512_and_si512(_mm512_srli_epi16(p[n], 4), nibble), b.zero[0]),      \
                                _mm512_sub_epi8(_mm512_and_si512(_mm512_srli_epi16(q[n], 4), nibble), b.zero[1])};     \
        STEP(even, 0, 8 * (n))                                                                                         \
        STEP(odd, 0, 8 * (n) + 1)                                                                                      \
        STEP(even, 1, 8 * (n) + 2)                                                                                     \
        STEP(odd, 1, 8 * (n) + 3)                                                                                      \
        STEP(even, 2, 8 * (n) + 4)                                                                                     \
        STEP(odd, 2, 8 * (n) + 5)                                                                                      \
        STEP(even, 3, 8 * (n) + 6)                                                                                     \
        STEP(odd, 3, 8 * (n) + 7)                                                                                      \
    }
#define WORD_u8(n)                                                                                                     \
    {                                                                                                                  \
        const __m512i d[2] = {_mm512_sub_epi8(p[n], b.zero[0]), _mm512_sub_epi8(q[n], b.zero[1])};                     \
        STEP(d, 0, 4 * (n))                                                                                            \
        STEP(d, 1, 4 * (n) + 1)                                                                                        \
        STEP(d, 2, 4 * (n) + 2)                                                                                        \
        STEP(d, 3, 4 * (n) + 3)                                                                                        \
    }
#define STRIPS(CODE, BITS)                                                                                             \
    static void strips_##CODE(const struct k_strip *const g[2], const struct factors f[2])                             \
    {                                                                                                                  \
        const int64_t block = g[0]->w->block, end = g[0]->first + g[0]->k, start = g[0]->first / block;                \
        const __m512i nibble = _mm512_set1_epi8(15);                                                                   \
        const float *a = g[0]->a;                                                                                      \
        __m512 c0 = _mm512_loadu_ps(g[0]->c), c1 = _mm512_loadu_ps(g[1]->c);                                           \
        (void)nibble;                                                                                                  \
        for (int64_t at = g[0]->first; at < end;) {                                                                    \
            const int64_t n = at / block, next = (n + 1) * block, stop = next < end ? next : end;                      \
            const struct block b = block_of(f, n - start);                                                             \
            for (; at < stop; at += CHUNK * 8 / (BITS), a += CHUNK * 8 / (BITS)) {                                     \
                __m512i p[4], q[4];                                                                                    \
                turn(p, g[0]->codes, at *(BITS) / 8);                                                                  \
                turn(q, g[1]->codes, at *(BITS) / 8);                                                                  \
                WORD_##CODE(0) WORD_##CODE(1) WORD_##CODE(2) WORD_##CODE(3)                                            \
            }                                                                                                          \
        }                                                                                                              \
        _mm512_storeu_ps(g[0]->c, c0);                                                                                 \
        if (g[1] != g[0])                                                                                              \
            _mm512_storeu_ps(g[1]->c, c1);                                                                             \
    }
STRIPS(u4, 4)
STRIPS(u8, 8)

bool k_strips_avx512(const struct k_strip *s, int n)
{
    const struct k_strip *const g[2] = {s, s + n - 1};
    const int64_t chunk = CHUNK * 8 / dtype_table[s->w->code].bits;
    struct factors f[2];
    if (s->first % chunk || s->k % chunk || s->w->block % chunk)
        return false;
    for (int i = 0; i < 2; i++)
        if (!find_factors(&f[i], g[i]))
            return false;
    (s->w->code == DT_U8 ? strips_u8 : strips_u4)(g, f);
    return true;
}
