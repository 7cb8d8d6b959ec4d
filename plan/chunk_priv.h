/* Checksums of the weights, chunk by chunk, while they are streamed out. */
#ifndef PLAN_CHUNK_PRIV_H
#define PLAN_CHUNK_PRIV_H

#include "base/arena.h"

struct chunk_hasher;
struct chunk_hasher *chunk_hasher_new(struct arena *a, int64_t size); /* size: all bytes that will be added */
void chunk_hasher_add(void *user, const void *p, int64_t size);       /* a tap of struct file_writer */
int64_t chunk_hasher_end(struct chunk_hasher *h, const uint64_t **sums);

#endif
