/* npuc quantize --sensitivity: which products a fresh recipe hurts most. */
#ifndef TOOLS_ANALYSIS_SENSITIVITY_H
#define TOOLS_ANALYSIS_SENSITIVITY_H

#include <jansson.h>

#include "tools/args.h"
#include "tools/quantize.h"

/* Measures the recipe that was just written for `ask` with its calibration data. Prints the ranking, or with --json
 * gives it; with --csv writes it. 0, or an exit code after a message. */
int sensitivity_run(const struct command *cmd, struct args *a, const struct quant_request *ask, json_t **ranking);

#endif
