/* AVX-512 forms of kernels/mac_priv.h: a row of a tile is one register, so that 16 rows are 16 sums. */
#include "kernels/mac_avx512.h"
#include "kernels/mac_rows.h"

/* Tiles of a known c0: places of rows are constants then. START, STEP and END: what is done with row r. */
#define TILE(NAME, R, C0, CELL, START, STEP, END)                                                                      \
    static void NAME##_##C0##_##R(const struct k_tile *t)                                                              \
    {                                                                                                                  \
        enum { c0 = C0 };                                                                                              \
        CELL *c = t->c;                                                                                                \
        const CELL *b = t->b, *block = t->a;                                                                           \
        ROWS##R(START) for (int64_t k = 0; k < t->k; block += t->a_step)                                               \
        {                                                                                                              \
            const CELL *a = block;                                                                                     \
            const int64_t end = k + c0 < t->k ? k + c0 : t->k;                                                         \
            for (; k < end; k++, a++, b += K_TILE_N) {                                                                 \
                ROWS##R(STEP)                                                                                          \
            }                                                                                                          \
        }                                                                                                              \
        ROWS##R(END)                                                                                                   \
    }
/* TILES(NAME, C0, CELL, ...): of 1 to 16 rows, BY_ROWS the list of them. */
#define TILES(NAME, ...)                                                                                               \
    TILE(NAME, 1, __VA_ARGS__)                                                                                         \
    TILE(NAME, 2, __VA_ARGS__)                                                                                         \
    TILE(NAME, 3, __VA_ARGS__)                                                                                         \
    TILE(NAME, 4, __VA_ARGS__)                                                                                         \
    TILE(NAME, 5, __VA_ARGS__)                                                                                         \
    TILE(NAME, 6, __VA_ARGS__)                                                                                         \
    TILE(NAME, 7, __VA_ARGS__)                                                                                         \
    TILE(NAME, 8, __VA_ARGS__)                                                                                         \
    TILE(NAME, 9, __VA_ARGS__)                                                                                         \
    TILE(NAME, 10, __VA_ARGS__)                                                                                        \
    TILE(NAME, 11, __VA_ARGS__)                                                                                        \
    TILE(NAME, 12, __VA_ARGS__)                                                                                        \
    TILE(NAME, 13, __VA_ARGS__)                                                                                        \
    TILE(NAME, 14, __VA_ARGS__)                                                                                        \
    TILE(NAME, 15, __VA_ARGS__)                                                                                        \
    TILE(NAME, 16, __VA_ARGS__)
#define BY_ROWS(NAME)                                                                                                  \
    {                                                                                                                  \
        NAME##_1, NAME##_2, NAME##_3, NAME##_4, NAME##_5, NAME##_6, NAME##_7, NAME##_8, NAME##_9, NAME##_10,           \
            NAME##_11, NAME##_12, NAME##_13, NAME##_14, NAME##_15, NAME##_16                                           \
    }
typedef void some_rows(const struct k_tile *t);

#define ROW_START(r) __m512 s##r = t->init ? _mm512_setzero_ps() : _mm512_loadu_ps(c + (r)*t->c_row);
#define ROW_STEP(r)  s##r = _mm512_fmadd_ps(_mm512_set1_ps(a[(r)*c0]), _mm512_loadu_ps(b), s##r);
#define ROW_END(r)   _mm512_storeu_ps(c + (r)*t->c_row, s##r);
TILES(floats, 8, float, ROW_START, ROW_STEP, ROW_END)
TILES(floats, 16, float, ROW_START, ROW_STEP, ROW_END)

static void tile_avx512(const struct k_tile *t, int rows)
{
    static some_rows *const by_rows[2][K_TILE_M] = {BY_ROWS(floats_8), BY_ROWS(floats_16)};
    if (t->c0 > 16)
        k_tile_avx2(t, rows);
    else
        by_rows[t->c0 / 16][rows - 1](t);
}

/* Sums start with row k of b. */
#define QUAD_START(r)                                                                                                  \
    __m512i s##r = cells(b + t->k * K_TILE_N);                                                                         \
    if (!t->init)                                                                                                      \
        s##r = _mm512_add_epi32(s##r, cells(c + (r)*t->c_row));
#define QUAD_STEP(r) s##r = _mm512_dpbusd_epi32(s##r, _mm512_set1_epi32(a[(r)*c0]), cells(b));
#define QUAD_END(r)  _mm512_storeu_si512(c + (r)*t->c_row, s##r);
TILES(quads, 8, int32_t, QUAD_START, QUAD_STEP, QUAD_END)

static void tile_quads_avx512(const struct k_tile *t, int rows)
{
    static some_rows *const by_rows[K_TILE_M] = BY_ROWS(quads_8);
    by_rows[rows - 1](t);
}

static void quads_of_avx512(void *y, const void *x, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16)
        _mm512_storeu_si512((int32_t *)y + i,
                            _mm512_xor_si512(cells((const int32_t *)x + i), _mm512_set1_epi8((char)128)));
}

static void end_quads_avx512(int32_t *b, int64_t k)
{
    __m512i s = _mm512_setzero_si512();
    for (int64_t i = 0; i < k; i++)
        s = _mm512_dpbusd_epi32(s, _mm512_set1_epi8((char)128), cells(b + i * K_TILE_N));
    _mm512_storeu_si512(b + k * K_TILE_N, _mm512_sub_epi32(_mm512_setzero_si512(), s));
}

static void turn_words(void *to, const void *from)
{
    int32_t *y = to;
    const int32_t *x = from;
    TURN_CELLS
#define PUT(k) _mm512_storeu_si512(y + (k)*K_TILE_N, v##k);
    ROWS8(PUT)
}

/* A cell is elements 2k and 2k + 1 of a row. */
static void turn_f16(void *to, const void *from)
{
    static const int16_t apart[32] = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30,
                                      1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
    float *y = to;
    const int32_t *x = from;
    TURN_CELLS
#define PUT_F16(k)                                                                                                     \
    const __m512i w##k = _mm512_permutexvar_epi16(_mm512_loadu_si512(apart), v##k);                                    \
    _mm512_storeu_ps(y + 2 * (k)*K_TILE_N, _mm512_cvtph_ps(_mm512_castsi512_si256(w##k)));                             \
    _mm512_storeu_ps(y + (2 * (k) + 1) * K_TILE_N, _mm512_cvtph_ps(_mm512_extracti64x4_epi64(w##k, 1)));
    ROWS8(PUT_F16)
}
static void turn_bf16(void *to, const void *from)
{
    int32_t *y = to;
    const int32_t *x = from;
    TURN_CELLS
#define PUT_BF16(k)                                                                                                    \
    _mm512_storeu_si512(y + 2 * (k)*K_TILE_N, _mm512_slli_epi32(v##k, 16));                                            \
    _mm512_storeu_si512(y + (2 * (k) + 1) * K_TILE_N, _mm512_and_si512(v##k, _mm512_set1_epi32((int)0xffff0000u)));
    ROWS8(PUT_BF16)
}

const struct k_mac_impl k_mac_avx512 = {
    .tile = tile_avx512,
    .transpose = k_transpose_avx2,
    .tile_pairs = k_tile_pairs_avx2,
    .tile_quads = tile_quads_avx512,
    .quads_of = quads_of_avx512,
    .end_quads = end_quads_avx512,
    .turn = {turn_words, turn_f16, turn_bf16, turn_words},
    .row = {k_row_f32_avx2, k_row_f16_avx512, k_row_bf16_avx512, k_row_i8_avx512},
    .widen_i8 = k_widen_i8_avx2,
    .dot_i8 = k_dot_avx2,
    .transpose8 = k_transpose8_avx2,
};
