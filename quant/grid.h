/* Numbers of small float formats near given ones, many at a time: what fits, searches and descents ask over and over.
 * Codes themselves come from base/half.h, with the same numbers. */
#ifndef QUANT_GRID_H
#define QUANT_GRID_H

#include "base/dtype.h"

/* to[i]: the number that the code of x[i] in a float format of formats.def stands for; saturates. x finite; `to` may be
 * x. */
void quant_nearest(enum dtype t, const float *x, int64_t n, float *to);

#endif
