/* What the SIMD forms of k_row share. */
#ifndef KERNELS_MAC_ONE_ROW_H
#define KERNELS_MAC_ONE_ROW_H

#include "kernels/mac_priv.h"

enum { FRACTAL = 512 };

/* Weights come from main memory, in runs too short for the hardware to follow: the fractal some groups ahead is asked
 * for, also beyond the end, where the next call goes on. */
static inline void k_row_ask_for(uintptr_t at)
{
    for (int line = 0; line < FRACTAL / 64; line++)
        __builtin_prefetch((const void *)(at + (uintptr_t)line * 64));
}
static inline int64_t k_row_distance(const struct k_row *g)
{
    return g->b_step * (g->n1 >= 8 ? 1 : 8 / g->n1);
}

/* The rest of a row behind k whole groups of c0 elements. */
static inline void k_row_finish(const struct k_row *g, enum k_row_type type, int64_t k, int64_t c0)
{
    struct k_row rest = *g;
    if (k == g->k)
        return;
    rest.a = (const float *)g->a + k;
    rest.b += k / c0 * g->b_step;
    rest.k -= k;
    k_mac_scalar.row[type](&rest);
}

#endif
