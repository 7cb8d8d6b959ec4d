/* Codes to nearest, part by part, with a way to fit scales (quant/fit.h). */
#ifndef QUANT_ENCODE_H
#define QUANT_ENCODE_H

#include "quant/fit.h"

struct pool;
struct quant_task {
    const struct quant_operand *o;
    const struct quant_matrix *w;
    struct quant_codes *out; /* its arrays are there */
    quant_fit_fn *fit;
    struct pool *pool;     /* NULL: this thread alone */
    struct arena *scratch; /* for what is released again */
};
/* Scales, zeros and codes of all of the weight, codes to nearest. importance: [k] or NULL. */
void quant_fit_codes(const struct quant_task *t, const float *importance);

#endif
