/* Whole blocks of 64 lanes and their tree in AVX2. */
#ifndef KERNELS_REDUCE_PRIV_H
#define KERNELS_REDUCE_PRIV_H

#include "kernels/vec.h"

/* n is a multiple of K_LANES; x[0] goes into lane 0. */
void k_red_blocks_avx2(enum k_red op, float *acc, const float *x, int64_t n);
/* Combines lane j with lane j + 32, then 16 ... as long as there are whole registers, for SUM, MAX, MIN and PROD;
 * returns the next step. */
int k_red_tree_avx2(enum k_red op, float *v);

#endif
