/* What codes of inputs do to the outputs of a model: `npuc quantize` looks once more where that is too much. */
#ifndef TOOLS_OUTCOME_H
#define TOOLS_OUTCOME_H

#include "tools/args.h"
#include "tools/quantize.h"

/* The most that codes of all inputs may change the outputs, squared and relative to them: a cosine of 0.99975, as the
 * mean over runs; single ones have several times that. */
#define OUTCOME_MOST 5e-4

/* The inputs alone of the recipe that was written for `ask`, over the first runs of its calibration data: the mean of
 * the outputs' squared errors relative to them. Logits of texts are 0: schemes are judged there by what becomes of
 * probabilities, and single large errors by --input-error. False after a message. */
bool outcome_of_inputs(struct args *a, const struct quant_request *ask, double *noise, int *exit_code);
/* The largest error that a coded input still adds to its products: 0 when none has codes. */
double outcome_largest(const struct quantization *q);

#endif
