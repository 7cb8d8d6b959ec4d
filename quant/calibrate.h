/* The scale of a static activation from what an observer has seen. An algorithm is a row of calibrators.def. */
#ifndef QUANT_CALIBRATE_H
#define QUANT_CALIBRATE_H

#include "ir/quantiser.h"
#include "quant/observe.h"

struct quant_range {
    double lo, hi;
};
typedef struct quant_range quant_calibrate_fn(const struct observer *seen, const struct quant_operand *o);
struct quant_calibrator {
    const char *name, *what;
    quant_calibrate_fn *run;
};
const struct quant_calibrator *quant_calibrator_find(const char *name); /* NULL: none of this name */
const struct quant_calibrator *quant_calibrators(int64_t *n);

/* Sets scale and zero of `o` by o->by ("minmax" when NULL). */
void quant_calibrate(struct quant_operand *o, const struct observer *seen);

#endif
