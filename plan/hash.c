/* XXH3, compiled into this file and, for AVX2, plan/hash_avx2.c. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "plan/coder_priv.h"

#include "plan/chunk_priv.h"

uint64_t plan_hash(const void *p, int64_t size)
{
#if !defined(NPUC_SCALAR_ONLY) && defined(__x86_64__)
    if (size >= 4096 && npuc_cpu_has_avx2())
        return plan_hash_avx2(p, size);
#endif
    return XXH3_64bits(p, (size_t)size);
}

struct chunk_hasher {
    XXH3_state_t state;
    int64_t filled; /* bytes of the current chunk */
    uint64_t *sums;
    int64_t n_sums, max_sums;
};

struct chunk_hasher *chunk_hasher_new(struct arena *a, int64_t size)
{
    struct chunk_hasher *h = arena_alloc(a, (int64_t)sizeof *h, 64);
    if (!h)
        return NULL;
    h->filled = h->n_sums = 0;
    h->max_sums = (size + PLAN_CHUNK_SIZE - 1) / PLAN_CHUNK_SIZE;
    h->sums = ARENA_ARRAY(a, uint64_t, h->max_sums + 1);
    XXH3_64bits_reset(&h->state);
    return h->sums ? h : NULL;
}

static void chunk_end(struct chunk_hasher *h)
{
    if (h->n_sums < h->max_sums)
        h->sums[h->n_sums++] = XXH3_64bits_digest(&h->state);
    h->filled = 0;
    XXH3_64bits_reset(&h->state);
}

void chunk_hasher_add(void *user, const void *p, int64_t size)
{
    struct chunk_hasher *h = user;
    const uint8_t *from = p;
    while (size > 0) {
        const int64_t room = PLAN_CHUNK_SIZE - h->filled, n = size < room ? size : room;
        XXH3_64bits_update(&h->state, from, (size_t)n);
        h->filled += n;
        from += n;
        size -= n;
        if (h->filled == PLAN_CHUNK_SIZE)
            chunk_end(h);
    }
}

int64_t chunk_hasher_end(struct chunk_hasher *h, const uint64_t **sums)
{
    if (h->filled)
        chunk_end(h);
    *sums = h->sums;
    return h->n_sums;
}
