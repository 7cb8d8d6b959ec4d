/* Collectives (npuc) among `ranks` devices. One device is emulated, and all are taken to hold what it holds: AllReduce
 * is so many times the operand, AllGather so many copies along `axis`, AllToAll the operand itself. */
#include <string.h>

#include "base/size.h"
#include "kernels/op.h"

static bool ranks_of(struct k_call *c, int64_t *ranks)
{
    *ranks = k_attr_int(c, "ranks", 0);
    if (*ranks >= 1 && *ranks <= 65536)
        return true;
    (void)k_fail(c, NPUC_E_INVALID, "%lld ranks, expected 1 to 65536", (long long)*ranks);
    return false;
}

enum npuc_status k_op_all_reduce(struct k_call *c)
{
    int64_t ranks;
    if (!k_has(c, 1, 1) || !ranks_of(c, &ranks))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    const int64_t n = k_count(x);
    if (!k_out_like(c, 0, x))
        return k_no_memory(c);
    for (int64_t i = 0; i < n; i++)
        k_set_f64(&c->out[0], i, k_get_f64(x, i) * (double)ranks);
    return NPUC_OK;
}

enum npuc_status k_op_all_gather(struct k_call *c)
{
    int64_t ranks, dims[K_MAX_RANK];
    int axis;
    if (!k_has(c, 1, 1) || !ranks_of(c, &ranks) || !k_axis(c, k_attr_int(c, "axis", 0), c->in[0]->rank, &axis))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    memcpy(dims, x->dims, sizeof dims);
    if (!size_mul(dims[axis], ranks, &dims[axis]))
        return k_fail(c, NPUC_E_INVALID, "the result has more elements than 64 bits count");
    const char *src = k_move_in(c, x);
    char *y = k_move_out(c, 0, x->dtype, x->rank, dims);
    if (!src || !y)
        return k_no_memory(c);
    const int64_t row = x->dims[axis] * k_stride(x, axis) * k_move_size(x->dtype), outer = k_dims_count(axis, x->dims);
    for (int64_t i = 0; i < outer * ranks && row > 0; i++)
        memcpy(y + i * row, src + i / ranks * row, (size_t)row);
    k_move_done(c, 0, y);
    return NPUC_OK;
}

enum npuc_status k_op_all_to_all(struct k_call *c)
{
    int64_t ranks;
    if (!k_has(c, 1, 1) || !ranks_of(c, &ranks))
        return NPUC_E_INVALID;
    void *y = k_out_like(c, 0, c->in[0]);
    if (!y)
        return k_no_memory(c);
    memcpy(y, c->in[0]->data, (size_t)c->in[0]->size);
    return NPUC_OK;
}
