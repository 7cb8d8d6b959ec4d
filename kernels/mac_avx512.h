/* Turning rows of fractals in AVX-512 registers. */
#ifndef KERNELS_MAC_AVX512_H
#define KERNELS_MAC_AVX512_H

#include <immintrin.h>

#include "kernels/mac_priv.h"
#include "kernels/mac_rows.h"

static inline __m512i cells(const int32_t *p)
{
    return _mm512_loadu_si512(p);
}
static inline __m512i join(__m512i x, __m512i y, const int32_t *of)
{
    return _mm512_permutex2var_epi32(x, cells(of), y);
}
/* v0 .. v7: cells 0 .. 7 of 16 rows of 8 at x. Pairs of rows are joined to the even (e) or odd (o) cells of four, those
 * to two cells of eight (f: 0 and 4, g: 2 and 6; h: 1 and 5, i: 3 and 7), and those to one of all. */
static const int32_t even[16] = {0, 8, 16, 24, 2, 10, 18, 26, 4, 12, 20, 28, 6, 14, 22, 30};
static const int32_t odd[16] = {1, 9, 17, 25, 3, 11, 19, 27, 5, 13, 21, 29, 7, 15, 23, 31};
static const int32_t low[16] = {0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27};
static const int32_t high[16] = {4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31};
#define FOUR_ROWS(n)                                                                                                   \
    const __m512i e##n = join(cells(x + (n)*32), cells(x + (n)*32 + 16), even);                                        \
    const __m512i o##n = join(cells(x + (n)*32), cells(x + (n)*32 + 16), odd);
#define TWO_CELLS(p, q, four)                                                                                          \
    const __m512i p##0 = join(four##0, four##1, low), p##1 = join(four##2, four##3, low);                              \
    const __m512i q##0 = join(four##0, four##1, high), q##1 = join(four##2, four##3, high);
#define ONE_CELL(k, l, two)                                                                                            \
    const __m512i v##k = _mm512_shuffle_i64x2(two##0, two##1, 0x44);                                                   \
    const __m512i v##l = _mm512_shuffle_i64x2(two##0, two##1, 0xee);
#define TURN_CELLS                                                                                                     \
    ROWS4(FOUR_ROWS)                                                                                                   \
    TWO_CELLS(f, g, e)                                                                                                 \
    TWO_CELLS(h, i, o)                                                                                                 \
    ONE_CELL(0, 4, f)                                                                                                  \
    ONE_CELL(1, 5, h)                                                                                                  \
    ONE_CELL(2, 6, g)                                                                                                  \
    ONE_CELL(3, 7, i)
static inline void k_turn_cells(__m512i y[8], const int32_t *x)
{
    TURN_CELLS
#define KEEP(k) y[k] = v##k;
    ROWS8(KEEP)
}

#endif
