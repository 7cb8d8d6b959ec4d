/* Equations of Einsum: "bij,bjk->bik", with ellipses, repeated labels and implicit results. */
#ifndef KERNELS_EINSUM_H
#define KERNELS_EINSUM_H

#include "kernels/tensor.h"

enum { EINSUM_MAX_TERMS = 16, EINSUM_LABELS = 52 + K_MAX_RANK };

/* Labels by axis: 0..25 A-Z, 26..51 a-z, then the axes that ellipses stand for, the last of them with the highest
 * number. */
struct einsum_term {
    int n;
    uint8_t label[K_MAX_RANK];
};
struct einsum {
    int n_in;
    struct einsum_term in[EINSUM_MAX_TERMS], out;
};
/* Reads the equation for operands of these ranks; false with a message. */
bool einsum_read(struct einsum *e, const char *equation, int n_in, const int *ranks, const char **why);

#endif
