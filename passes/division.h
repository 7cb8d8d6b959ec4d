/* Asking for a model over several devices, without what passes need. */
#ifndef PASSES_DIVISION_H
#define PASSES_DIVISION_H

#include "base/vec.h"

/* A model over several devices: what is asked of `shard`, and what it says of the result. */
struct division {
    int64_t tensor; /* devices that share products, heads and caches */
    int64_t expert; /* groups of devices with whole experts of their own; each has tokens of its own */
    struct arena *arena;
    VEC(const char *) notes; /* what stays whole on each device and why, a line each; in `arena` */
    int64_t divided, whole, collectives;
    int64_t spread; /* products whose matrices are on different groups */
};

#endif
