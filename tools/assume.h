/* Sizes for dimensions that nobody fixed, where a time needs some: stated, never silent. */
#ifndef TOOLS_ASSUME_H
#define TOOLS_ASSUME_H

#include "base/expr.h"

/* By the name's meaning: 1 for batches, 2048 for tokens that are there already, 128 for new ones, 224 for images, else
 * 16; within the range. */
int64_t assume_size(const char *name, int64_t min, int64_t max, int64_t multiple);
/* One per symbol of the pool. */
const int64_t *assume_symbols(const struct expr_pool *p, const struct strtab *strings, struct arena *a);

#endif
