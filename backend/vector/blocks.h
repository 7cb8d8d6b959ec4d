/* Feature maps into blocks of channels and back. */
#ifndef BACKEND_VECTOR_BLOCKS_H
#define BACKEND_VECTOR_BLOCKS_H

#include "backend/backend.h"

/* [maps][channels][plane] and [maps][channels/c0][plane][c0], channels filled up with zeros. Plan
 * tensors; sizes are ir expressions. */
struct map_blocks {
    int32_t from, to;
    enum dtype dtype;
    bool back; /* from blocks to rows */
    int64_t channels, c0;
    expr maps, plane;
};
NPUC_MUST_CHECK enum npuc_status emit_map_blocks(struct emit *e, const struct map_blocks *b, const char *label);

#endif
