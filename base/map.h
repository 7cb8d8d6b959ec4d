/* Hash map uint64 -> uint64 in an arena; open addressing, insertion order is kept for iteration
 * (so that no output depends on hash order). */
#ifndef BASE_MAP_H
#define BASE_MAP_H

#include "base/arena.h"

struct map_entry {
    uint64_t key, value;
};
struct map {
    struct arena *arena;
    struct map_entry *entries; /* in insertion order, `len` of them */
    int64_t len, cap;
    uint32_t *slots; /* index + 1 into entries; 0 = free */
    int64_t n_slots;
};

void map_init(struct map *m, struct arena *a);
uint64_t *map_find(const struct map *m, uint64_t key);     /* NULL when absent; valid until the next put */
void map_put(struct map *m, uint64_t key, uint64_t value); /* adds or replaces */
uint64_t map_hash_bytes(const void *p, int64_t size);      /* XXH3, seed 0 */

#endif
