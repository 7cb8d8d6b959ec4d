/* Softmax of scores and their product with values, key chunk by key chunk: what attention kernels compute. Chunks are
 * ATTEND_CHUNK keys of absolute position; ATTEND_PART keys are a part, which knows nothing of the others. Within a
 * part, chunks ascending, beginning with T the lowest finite float and 64 lanes of zeros L (key i of a chunk in lane i
 * mod 64):
 *
 *   m = max(scores of the chunk)      T' = max(T, m*scale), a = exp(T - T')
 *   e = exp(fma(s, scale, -T'))       L = fma(L, a, lanes of the sum of e), in the first chunk those lanes,  T = T'
 *   C = sum over the chunk's keys ascending of fma(p, v), p = e rounded to the type of v
 *   O = fma(O, a, C), in the first chunk C
 *
 * and at its end l = L as one number, by the tree of all sums. Then parts are merged, ascending, the first as it is:
 *
 *   T' = max(T, Tp), a = exp(T - T'), b = exp(Tp - T');  l = fma(lp, b, l*a);  O = fma(Op, b, O*a);  T = T'
 *   with a sink: T' = max(T, sink), a = exp(T - T');  l = l*a + exp(sink - T');  O = O*a
 *   r = 1/l;  y = (O + 0)*r, rounded once
 *
 * Kernels hold -T, which fma takes as it is. A chunk whose scores are all -inf changes nothing, and may be left out;
 * so may a part. (Where values are infinite or NaN, 0 times such a value counts only in chunks that are not left out.)
 * Everything is float; 0 < scale <= 1. */
#ifndef KERNELS_ATTEND_CHUNKS_H
#define KERNELS_ATTEND_CHUNKS_H

#include <stdbool.h>
#include <stdint.h>

enum { ATTEND_CHUNK = 256, ATTEND_PART_CHUNKS = 8, ATTEND_PART = ATTEND_CHUNK * ATTEND_PART_CHUNKS };

/* Rows of a page of keys or values that can be read chunk by chunk: a chunk is a few pages, or a page whole chunks. */
static inline bool attend_takes_pages(int64_t page)
{
    return (page >= 32 && ATTEND_CHUNK % page == 0) || (page > 0 && page % ATTEND_CHUNK == 0);
}

/* Rows in which no key has a score above -inf: NaN as softmax gives, zeros, or zeros for rows with NaN, too. */
enum attend_empty { ATTEND_EMPTY_NAN, ATTEND_EMPTY_ZERO, ATTEND_EMPTY_OR_NAN_ZERO };

#endif
