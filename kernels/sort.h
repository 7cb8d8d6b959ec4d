/* Order of the elements of a row: what TopK and the sorting unit share. */
#ifndef KERNELS_SORT_H
#define KERNELS_SORT_H

#include "kernels/tensor.h"

/* Does element a of t come before element b? Largest first if `largest`, else smallest first; NaN is above all. */
bool k_before(const struct k_tensor *t, int64_t a, int64_t b, bool largest);
/* Merge sort of the n element numbers in v, stable: of equal elements the one that was first stays first. tmp: n. */
void k_sort_numbers(const struct k_tensor *t, int64_t *v, int64_t *tmp, int64_t n, bool largest);

#endif
