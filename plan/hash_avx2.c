/* XXH3 for long inputs with AVX2: the sums of plan/hash.c, several times as fast as with the baseline's 128-bit
 * vectors. */
#define XXH_INLINE_ALL
#define XXH_VECTOR XXH_AVX2
#include <xxhash.h>

#include "plan/coder_priv.h"

uint64_t plan_hash_avx2(const void *p, int64_t size)
{
    return XXH3_64bits(p, (size_t)size);
}
