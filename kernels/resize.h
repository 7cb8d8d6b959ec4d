/* Where an output position of Resize lies in the input, and the weights of the positions around it: for the operator
 * and for kernels that do it with regular steps. */
#ifndef KERNELS_RESIZE_H
#define KERNELS_RESIZE_H

#include <stdbool.h>
#include <stdint.h>

struct k_resize_rule { /* attributes of the operator */
    const char *mode, *nearest, *coordinates;
    bool antialias, exclude_outside;
    double cubic_a;
};
struct k_resize_axis {
    int64_t in, out; /* sizes */
    double scale;
    double roi[2];
    /* set by k_resize_prepare */
    int64_t n;   /* taps per output position */
    bool narrow; /* places and weights are floats */
};

/* false: the mode or the coordinates are not known. */
bool k_resize_prepare(const struct k_resize_rule *r, struct k_resize_axis *a);
/* The n taps of output position o and, unless the mode is nearest, their weights. Taps beyond the ends stand for the
 * ends. false: the position takes the extrapolation value. */
bool k_resize_place(const struct k_resize_rule *r, const struct k_resize_axis *a, int64_t o, int64_t *at,
                    double *weight);

#endif
