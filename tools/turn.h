/* Matrices for keys of KV caches (quant/balance.h), from calibration data: what queries and keys are behind their
 * rotary embeddings is seen in the graph as it is compiled, just before caches are coded. */
#ifndef TOOLS_TURN_H
#define TOOLS_TURN_H

#include "tools/quantize.h"

/* Are keys to be coded so that turning them is worth two products per layer? */
bool turn_wanted(const struct quantization *q);
/* Looks for caches of keys in a second import of the model, before the data file is opened: q->turning. */
NPUC_MUST_CHECK enum npuc_status turn_open(struct quantization *q);
void turn_close(struct quantization *q);
/* Were there caches, but none whose keys could be turned? */
bool turn_in_vain(const struct quantization *q);
/* For the room of the data file. */
int64_t turn_caches(const struct quantization *q, int64_t *name_bytes);
/* Runs the data, puts matrices into the data file and entries into the recipe; a cache without finite statistics gets
 * none. *count: caches turned. */
NPUC_MUST_CHECK enum npuc_status turn_keys(struct quantization *q, int64_t *count);

#endif
