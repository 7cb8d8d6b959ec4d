/* CacheAppend (npuc): a cache with new rows written behind its last one, or per batch entry at given positions.
 *
 * inputs: cache [.., past, ..], update [.., new, ..], optional positions [batch] (int32 or int64), optional length
 * (scalar): rows of the result on the axis, at least those of the cache. Rows that nothing writes are zero. */
#include <string.h>

#include "kernels/op.h"
#include "kernels/tensor.h"

struct shape3 {
    int64_t outer, rows, inner;
};

static struct shape3 around(const struct k_tensor *t, int axis)
{
    struct shape3 s = {1, t->dims[axis], 1};
    for (int i = 0; i < axis; i++)
        s.outer *= t->dims[i];
    for (int i = axis + 1; i < t->rank; i++)
        s.inner *= t->dims[i];
    return s;
}

static enum npuc_status check(struct k_call *c, int axis, int64_t batch)
{
    const struct k_tensor *cache = c->in[0], *update = c->in[1];
    if (update->rank != cache->rank || update->dtype != cache->dtype || axis < 0 || axis >= cache->rank)
        return k_fail(c, NPUC_E_INVALID, "cache and update differ in rank or type, or the axis is outside of it");
    if (c->n_in > 2 && c->in[2] && k_count(c->in[2]) != batch)
        return k_fail(c, NPUC_E_INVALID, "%lld positions, expected %lld", (long long)k_count(c->in[2]),
                      (long long)batch);
    return NPUC_OK;
}

enum npuc_status k_op_cache_append(struct k_call *c)
{
    const struct k_tensor *cache = c->in[0], *update = c->in[1];
    int64_t a = k_attr_int(c, "axis", -2), dims[K_MAX_RANK], batch = cache->rank > 0 ? cache->dims[0] : 1;
    int axis = (int)(a < 0 ? a + cache->rank : a), size = dtype_size(cache->dtype);
    enum npuc_status s = check(c, axis, batch);
    if (s != NPUC_OK)
        return s;
    memcpy(dims, cache->dims, sizeof dims);
    const struct k_tensor *at = c->n_in > 2 ? c->in[2] : NULL, *length = c->n_in > 3 ? c->in[3] : NULL;
    int64_t want = length ? k_get_i64(length, 0) : cache->dims[axis] + update->dims[axis];
    dims[axis] = want > cache->dims[axis] ? want : cache->dims[axis];
    if (dims[axis] < update->dims[axis])
        return k_fail(c, NPUC_E_INVALID, "%lld new rows do not fit into %lld", (long long)update->dims[axis],
                      (long long)dims[axis]);
    uint8_t *y = k_out(c, 0, cache->dtype, cache->rank, dims);
    if (!y)
        return NPUC_E_NOMEM;
    struct shape3 old = around(cache, axis), add = around(update, axis), out = around(&c->out[0], axis);
    int64_t row = out.inner * size;
    for (int64_t o = 0; o < out.outer; o++) {
        uint8_t *to = y + o * out.rows * row;
        int64_t entry = batch > 0 ? o / (out.outer / batch > 0 ? out.outer / batch : 1) : 0;
        int64_t first = at ? k_get_i64(at, entry) : old.rows;
        first = first < 0 ? 0 : first > out.rows - add.rows ? out.rows - add.rows : first;
        memset(to, 0, (size_t)(out.rows * row));
        memcpy(to, (const uint8_t *)cache->data + o * old.rows * row, (size_t)(old.rows * row));
        memcpy(to + first * row, (const uint8_t *)update->data + o * add.rows * row, (size_t)(add.rows * row));
    }
    return NPUC_OK;
}
