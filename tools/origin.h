/* The model as it was, beside the one whose products are being coded from front to back: what its products read in a
 * run of calibration data, so that later products can make up for what the codes of earlier ones changed. */
#ifndef TOOLS_ORIGIN_H
#define TOOLS_ORIGIN_H

#include "tools/quantize.h"

/* A second import of the model. Needed before any product is coded. */
NPUC_MUST_CHECK enum npuc_status origin_open(struct quantization *q);
void origin_close(struct quantization *q);
/* Runs it up to the last source of this walk; what the walk's sources read is kept in `a`. */
NPUC_MUST_CHECK enum npuc_status origin_run(struct quantization *q, int64_t run, struct arena *a);
/* What the source read in that run, rows in floats; NULL: nothing, or not once with `count` elements. */
const float *origin_rows(const struct quantization *q, int64_t source, int64_t count);

#endif
