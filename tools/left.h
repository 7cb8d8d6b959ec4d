/* Products with constant weights that no scheme codes: the recipe keeps them by name and says why. */
#ifndef TOOLS_LEFT_H
#define TOOLS_LEFT_H

#include "tools/quantize.h"

/* Fills q->left, when q->products has been. */
void left_note(struct quantization *q);

#endif
