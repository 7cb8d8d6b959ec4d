/* Linear probing over indices into the entry array, load at most one half. Nothing is ever removed. */
#include "base/map.h"

#include "base/size.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

void map_init(struct map *m, struct arena *a)
{
    *m = (struct map){.arena = a};
}

/* Keys are often small integers or already hashes; one multiplicative mix serves both. */
static uint64_t mix(uint64_t key)
{
    key ^= key >> 32;
    key *= 0x9e3779b97f4a7c15u;
    return key ^ (key >> 29);
}

/* Slot that holds `key`, or the free slot where it belongs. */
static int64_t slot_of(const struct map *m, uint64_t key)
{
    const uint64_t mask = (uint64_t)m->n_slots - 1;
    uint64_t i = mix(key) & mask;
    while (m->slots[i] && m->entries[m->slots[i] - 1].key != key)
        i = (i + 1) & mask;
    return (int64_t)i;
}

uint64_t *map_find(const struct map *m, uint64_t key)
{
    if (!m->n_slots)
        return NULL;
    const uint32_t at = m->slots[slot_of(m, key)];
    return at ? &m->entries[at - 1].value : NULL;
}

static bool map_grow(struct map *m)
{
    const int64_t cap = m->cap ? 2 * m->cap : 8;
    struct map_entry *entries = arena_array(m->arena, (int64_t)sizeof *entries, cap);
    uint32_t *slots = arena_array(m->arena, (int64_t)sizeof *slots, 2 * cap);
    if (!entries || !slots || cap > UINT32_MAX / 2)
        return false;
    if (m->len)
        memcpy(entries, m->entries, (size_t)m->len * sizeof *entries);
    m->entries = entries;
    m->slots = slots;
    m->cap = cap;
    m->n_slots = 2 * cap;
    for (int64_t i = 0; i < m->len; i++)
        m->slots[slot_of(m, entries[i].key)] = (uint32_t)(i + 1);
    return true;
}

void map_put(struct map *m, uint64_t key, uint64_t value)
{
    uint64_t *have = map_find(m, key);
    if (have) {
        *have = value;
        return;
    }
    if (m->len == m->cap && !map_grow(m))
        return;
    m->entries[m->len++] = (struct map_entry){key, value};
    m->slots[slot_of(m, key)] = (uint32_t)m->len;
}

uint64_t map_hash_bytes(const void *p, int64_t size)
{
    return XXH3_64bits(p, (size_t)size);
}
