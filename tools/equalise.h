/* Equalising inputs while a recipe is made (quant/equalise.h): factors and scales of inputs, what happens to those that
 * codes cannot hold, and the report about them. */
#ifndef TOOLS_EQUALISE_H
#define TOOLS_EQUALISE_H

#include <stdio.h>

#include "tools/json.h"
#include "tools/quantize.h"

/* Can it do something for inputs of this form? */
bool equalise_takes(const struct quant_operand *input);
/* Chooses for the sources of this walk, whose statistics hold rows. Inputs whose error stays above ask.input_error get
 * a scale per token, or no codes where that does not help. */
NPUC_MUST_CHECK enum npuc_status equalise_inputs(struct quantization *q);
/* Corrects outputs of the products of this walk whose weights are coded when the model is compiled. */
NPUC_MUST_CHECK enum npuc_status equalise_outputs(struct quantization *q);
/* The ask.keep_outliers inputs with the largest errors lose their codes. */
void equalise_keep(struct quantization *q);
/* Inputs that few channels or rows rule, and what was done. */
void equalise_report(const struct quantization *q, FILE *f);
json_t *equalise_json(const struct quantization *q);

#endif
