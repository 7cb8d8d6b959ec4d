/* Bias correction: what codes of a weight add to the output on average, taken away again. */
#ifndef QUANT_CORRECT_H
#define QUANT_CORRECT_H

#include "ir/quantiser.h"

/* Averages of the input that a weight is multiplied with, after smooth and rotate. */
struct quant_means {
    const double *mean;     /* per input channel, of all groups */
    int64_t groups, inputs; /* of a convolution: groups and input channels of one; else 1 and k */
};
/* out[channel] = the sum over i of (w[channel][i] - coded w[channel][i]) * average of what is multiplied with it;
 * positions of a filter have the average of their channel. Codes are those that `o` says. NULL: done; else why not. */
const char *quant_correct(const struct quant_operand *o, const struct quant_matrix *w, const struct quant_means *m,
                          float *out, struct arena *a);

#endif
