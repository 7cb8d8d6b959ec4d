/* What is kept of the values of an activation while calibration data passes by: bounded memory, the same whatever the
 * order within a batch. Calibrators (calibrate.h) choose ranges from it. */
#ifndef QUANT_OBSERVE_H
#define QUANT_OBSERVE_H

#include "base/arena.h"
#include "kernels/tensor.h"

enum { OBSERVE_BINS = 4096 };
struct observer {
    int64_t n, batches;    /* finite elements; calls */
    int64_t bad;           /* infinities and NaN */
    double lo, hi;         /* smallest and largest element; 0 before the first */
    double ema_lo, ema_hi; /* moving averages over batches, 0.99 of the old and 0.01 of the new */
    double sum, squares;
    /* Counts of elements in OBSERVE_BINS equal bins over [-reach, reach), reach a power of two. It doubles when an
     * element lies outside; two bins then become one, so that no count is lost. */
    double reach;
    int64_t *count;
    float *channel; /* largest magnitude at each index of the axis of channels, n_channels; NULL before the first */
    int64_t n_channels;
};
void observer_init(struct observer *o, struct arena *a);
/* Elements of a float tensor, its channels along `axis`; false without memory or when that axis has another length than
 * before. */
NPUC_MUST_CHECK bool observe(struct observer *o, const struct k_tensor *t, int axis, struct arena *a);
double observer_bin_low(const struct observer *o, int64_t bin); /* lower edge */

#endif
