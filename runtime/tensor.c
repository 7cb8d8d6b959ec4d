/* Tensors as the user and host operators see them: dense. A view of a cache has the capacity between its rows'
 * neighbours. */
#include "runtime/rt.h"

#include "base/size.h"

#include <string.h>

bool rt_find_runs(const npurt_session *s, int32_t tensor, struct rt_runs *r)
{
    const struct plan_tensor *t = &s->plan->tensors.data[tensor];
    int64_t dims[NPURT_MAX_RANK], capacity, bytes = dtype_size((enum dtype)t->dtype), row;
    if (!rt_dims(s, t, dims) || bytes == 0 || t->axis < 0 || t->axis >= t->rank || !rt_value(s, t->capacity, &capacity))
        return false;
    r->outer = 1;
    for (int32_t i = 0; i < t->axis; i++)
        if (!size_mul(r->outer, dims[i], &r->outer))
            return false;
    for (int32_t i = t->axis + 1; i < t->rank; i++)
        if (!size_mul(bytes, dims[i], &bytes))
            return false;
    row = bytes;
    return size_mul(row, dims[t->axis], &r->bytes) && size_mul(row, capacity, &r->stride) && r->bytes <= r->stride;
}

bool rt_is_dense(const npurt_session *s, int32_t tensor)
{
    const struct plan_tensor *t = &s->plan->tensors.data[tensor];
    return t->layout == PL_ND || t->layout == PL_NHWC;
}

enum npuc_status rt_dense(npurt_session *s, int32_t tensor, uint8_t *dense, bool to_dense)
{
    const struct plan_tensor *t = &s->plan->tensors.data[tensor];
    const struct rt_tensor *x = &s->tensors[tensor];
    struct rt_runs r;
    int64_t span, left = x->data ? s->tensors[x->root].size - (x->data - s->tensors[x->root].data) : 0;
    if (t->layout != PL_CACHE || !rt_find_runs(s, tensor, &r))
        return rt_fail(s, D_RUN_FAULT, "tensor '%s' has a layout that only the NPU reads", rt_name(s, t->name));
    if (r.outer == 0 || r.bytes == 0)
        return NPUC_OK;
    if (!x->data || !size_mul(r.outer - 1, r.stride, &span) || !size_in(span, r.bytes, left))
        return rt_fail(s, D_RUN_FAULT, "tensor '%s' lies outside of its cache", rt_name(s, t->name));
    for (int64_t i = 0; i < r.outer; i++) {
        if (to_dense)
            memcpy(dense + i * r.bytes, x->data + i * r.stride, (size_t)r.bytes);
        else
            memcpy(x->data + i * r.stride, dense + i * r.bytes, (size_t)r.bytes);
    }
    return NPUC_OK;
}
