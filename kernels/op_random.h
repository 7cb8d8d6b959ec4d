/* Random numbers by counter: the number of an element and the seed decide. */
#ifndef KERNELS_OP_RANDOM_H
#define KERNELS_OP_RANDOM_H

#include "kernels/tensor.h"

uint64_t k_random_key(const struct k_call *c);     /* from the attribute `seed` */
double k_random_uniform(uint64_t key, int64_t at); /* in [0, 1), 53 bits */

#endif
