/* Operands of recipes as words: "int8 channel by=minmax" (docs/quantization.md). */
#ifndef QUANT_OPERAND_H
#define QUANT_OPERAND_H

#include "ir/quantiser.h"

/* The next word, the first is the format: NULL or what is wrong with it. `word` is cut up; texts are kept in `a`. */
const char *quant_operand_read(struct quant_operand *o, char *word, struct arena *a);
/* Do the words go together, for a weight or an input? NULL or what is wrong. */
const char *quant_operand_check_weight(const struct quant_operand *o);
const char *quant_operand_check_input(struct quant_operand *o);
/* Reads back as the same operand. In `a`. */
const char *quant_operand_text(const struct quant_operand *o, struct arena *a);

#endif
