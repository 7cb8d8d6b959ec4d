/* Angles of Fourier transforms and windows. */
#ifndef KERNELS_OP_SIGNAL_H
#define KERNELS_OP_SIGNAL_H

#include <stdint.h>

/* cos and sin of 2 pi j / n, n > 0, 0 <= j: within one ulp of double, exact where they are 0, 1 or -1, and with the
 * symmetries of the circle kept to the bit. */
void k_turn(int64_t j, int64_t n, double *cosine, double *sine);

#endif
