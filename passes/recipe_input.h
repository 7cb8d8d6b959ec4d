/* Inputs of products as a recipe codes them: nodes that quantise and dequantise. */
#ifndef PASSES_RECIPE_INPUT_H
#define PASSES_RECIPE_INPUT_H

#include "passes/pass.h"

/* DequantizeLinear of codes by scales and zero points (NULL: none) to type t; NULL after a reported error. */
struct value *recipe_dequantize(struct builder *b, struct value *const in[3], enum dtype t, int64_t axis,
                                int64_t block);
/* x, rows of k, quantised as `o` says and dequantised; NULL after a reported error. Groups divide k. k 0: x has no rows
 * (a map that a convolution reads), so that a scale at run time is one of all elements. */
struct value *recipe_code_input(struct builder *b, struct value *x, const struct quant_operand *o, int64_t k);

#endif
