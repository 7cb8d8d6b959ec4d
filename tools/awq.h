/* AWQ while a recipe is made (quant/awq.h): factors of inputs, where they cost nothing. */
#ifndef TOOLS_AWQ_H
#define TOOLS_AWQ_H

#include "tools/quantize.h"

/* Chooses factors for the sources of this walk whose products are coded by awq and have none yet. They must go into
 * what makes the input; where they do not, codes alone mind the input. */
NPUC_MUST_CHECK enum npuc_status awq_inputs(struct quantization *q);

#endif
