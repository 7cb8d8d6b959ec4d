/* Softmax of scores and their product with values, key chunk by key chunk: what attention kernels compute. Chunks are
 * ATTEND_CHUNK keys of absolute position, each by itself; then they are merged in ascending order:
 *
 *   m_c = max(scores of the chunk, lowest finite float)      e = exp(s - m_c)      l_c = sum of e (64 lanes)
 *   O_c = sum over the chunk's keys ascending of fma(p, v), p = e rounded to the type of v
 *   M' = max(M, m_c), a = exp(M - M'), b = exp(m_c - M');  l = fma(l_c, b, l*a);  O = fma(O_c, b, O*a);  M = M'
 *   with a sink: M' = max(M, sink), a = exp(M - M');  l = l*a + exp(sink - M');  O = O*a
 *   r = 1/l;  y = (O + 0)*r, rounded once
 *
 * beginning with M the lowest finite float, l = 0, O = 0. So a chunk whose scores are all -inf changes nothing, and may
 * be left out. Everything is float. */
#ifndef KERNELS_ATTEND_CHUNKS_H
#define KERNELS_ATTEND_CHUNKS_H

#define ATTEND_CHUNK 256

/* Rows in which no key has a score above -inf: NaN as softmax gives, zeros, or zeros for rows with NaN, too. */
enum attend_empty { ATTEND_EMPTY_NAN, ATTEND_EMPTY_ZERO, ATTEND_EMPTY_OR_NAN_ZERO };

#endif
