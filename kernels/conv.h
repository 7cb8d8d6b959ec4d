/* Convolution as a matrix product over the elements of each window: what Conv, ConvTranspose and the integer forms
 * share.
 *
 * Definition: acc starts at 0; for k ascending over (position in the kernel, row-major; then channel of the group)
 * acc = fma(w[m][k], x[k], acc) in f32 (f64 in double, integers wrap in int32), elements of the padding being 0 and
 * taking part. A cube that gathers its operand position by position gives the same bits. */
#ifndef KERNELS_CONV_H
#define KERNELS_CONV_H

#include "kernels/window.h"

struct k_conv {
    struct k_window w;
    int64_t step[K_AXES];                 /* x stands `step` apart, zeros between its elements; 1: as it is */
    int64_t batch, channels, outs, group; /* channels of x and of the result */
    enum dtype type, sum;                 /* of operands (DT_I32 for all integers) and of y */
    const void *x, *weight;               /* weight: [outs][position][channel of the group] */
    void *y;
};
NPUC_MUST_CHECK enum npuc_status k_conv_run(struct k_call *c, const struct k_conv *v);
/* Adds bias (NULL: none), converted from v->type, and rounds v->y, which is `y` or other memory, to y of v->type. */
NPUC_MUST_CHECK enum npuc_status k_conv_finish(struct k_call *c, const struct k_conv *v, const struct k_tensor *bias,
                                               void *y);

#endif
