/* Whole blocks of 64 lanes in AVX2. */
#ifndef KERNELS_REDUCE_PRIV_H
#define KERNELS_REDUCE_PRIV_H

#include "kernels/vec.h"

/* n is a multiple of K_LANES; x[0] goes into lane 0. */
void k_red_blocks_avx2(enum k_red op, float *acc, const float *x, int64_t n);

#endif
