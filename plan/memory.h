/* GM placement at bind time: sizes and lifetimes in, offsets out. Deterministic; the compiler reports with it, the
 * runtime uses it. */
#ifndef PLAN_MEMORY_H
#define PLAN_MEMORY_H

#include "base/arena.h"

struct mem_item {
    int64_t size;        /* bytes */
    int32_t first, last; /* steps, inclusive */
    int64_t offset;      /* result */
};
struct mem_result {
    int64_t peak;        /* bytes of the pool */
    int64_t lower_bound; /* largest sum of live sizes at one step */
};
/* Offsets are multiples of `align`. Items that overlap in time do not overlap in memory. Sizes are >= 0 and their sum
 * fits int64_t; first <= last. peak is -1 when memory for the placement itself is missing. */
struct mem_result mem_place(struct mem_item *items, int64_t n, int64_t align, struct arena *scratch);
/* The lower bound alone; -1 when memory is missing. */
int64_t mem_bound(const struct mem_item *items, int64_t n, struct arena *scratch);

#endif
