/* Growth of arrays: doubling; an array that lies last in its arena grows in place. */
#include "base/vec.h"

#include "base/size.h"

#include <string.h>

void *vec_grow(struct arena *a, void *data, int64_t len, int64_t *cap, int64_t size)
{
    const int64_t new_cap = *cap ? 2 * *cap : 8;
    int64_t old_bytes, new_bytes;
    if (!size_mul(new_cap, size, &new_bytes) || !size_mul(*cap, size, &old_bytes))
        return arena_array(a, INT64_MAX, 2);
    char *const end = data ? (char *)data + old_bytes : NULL;
    if (end && end == a->next && new_bytes - old_bytes <= a->end - a->next) {
        (void)arena_alloc(a, new_bytes - old_bytes, 1);
        *cap = new_cap;
        return data;
    }
    void *to = arena_alloc(a, new_bytes, (int64_t) _Alignof(max_align_t));
    if (!to)
        return NULL;
    if (len > 0)
        memcpy(to, data, (size_t)(len * size));
    *cap = new_cap;
    return to;
}
