/* The scale and zero point of one part of a weight: what is under one scale. A way is a function; quant_encode_weight
 * rounds to nearest with what it found, gptq and its like choose codes with all of the weight in view. */
#ifndef QUANT_FIT_H
#define QUANT_FIT_H

#include "quant/weight.h"

struct quant_fit {
    const struct quant_operand *o;
    enum dtype scale_type;
    struct quant_span span;
    /* How much an error in each column of the span counts (mean square of what it is multiplied with), [cols]; NULL:
     * all columns alike. */
    const float *importance;
};
typedef struct quant_scale quant_fit_fn(const struct quant_fit *f);

quant_fit_fn quant_fit_minmax; /* covers all elements */
quant_fit_fn quant_fit_mse;    /* least squared error of a grid of ranges, then of neighbours of the best */
quant_fit_fn quant_fit_ssz;    /* codes and (scale, zero) in turn, least squares for one given the other */
quant_fit_fn quant_fit_hqq;    /* half-quadratic: least sum of |error|^0.7, without importance */

/* Sum over the span of importance * |x - decoded|^2 with codes to nearest. */
double quant_fit_error(const struct quant_fit *f, struct quant_scale s);

#endif
