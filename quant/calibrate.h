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
#define CALIBRATOR(nm, ...) quant_calibrate_fn quant_calibrate_##nm;
#include "quant/calibrators.def"
#undef CALIBRATOR
const struct quant_calibrator *quant_calibrator_find(const char *name); /* NULL: none of this name */
const struct quant_calibrator *quant_calibrators(int64_t *n);

/* Squared error of coding by the range r what was seen, its elements at the middles of their bins. */
double quant_range_error(const struct observer *seen, const struct quant_operand *o, struct quant_range r);
/* The range without `share` of the elements at either end, to the edge of a bin. */
struct quant_range quant_range_without(const struct observer *seen, double share);
/* Magnitudes of what was seen in n equal bins over [0, top], top the largest magnitude, which is returned: elements of
 * a bin of the observer that lies across several are shared out by length. */
double quant_magnitudes(const struct observer *seen, double *bin, int n);

/* Sets scale and zero of `o` by o->by ("minmax" when NULL). */
void quant_calibrate(struct quant_operand *o, const struct observer *seen);

#endif
