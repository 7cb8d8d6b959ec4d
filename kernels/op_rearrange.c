/* DepthToSpace, SpaceToDepth, ReverseSequence, Compress, Dropout: moves that follow a rule of their own. */
#include <string.h>

#include "base/size.h"
#include "kernels/op.h"
#include "kernels/op_random.h"

/* Both directions view the tensor as [N][b*b*C][H][W] on one side and [N][C][H*b][W*b] on the other. The walk has the
 * six axes N, C, block row, block column, H, W. */
static enum npuc_status depth_space(struct k_call *c, bool to_space)
{
    const int64_t b = k_attr_int(c, "blocksize", 0);
    if (!k_has(c, 1, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    if (x->rank != 4 || b < 1 || b > 32768 || (to_space ? x->dims[1] % (b * b) : x->dims[2] % b || x->dims[3] % b))
        return k_fail(c, NPUC_E_INVALID, "the input must have rank 4 and axes that blocksize %lld divides",
                      (long long)b);
    const bool block_first = !strcmp(k_attr_str(c, "mode", "DCR"), "DCR");
    const int64_t n = x->dims[0], ch = to_space ? x->dims[1] / (b * b) : x->dims[1];
    const int64_t h = to_space ? x->dims[2] : x->dims[2] / b, w = to_space ? x->dims[3] : x->dims[3] / b;
    const int64_t in_channel = block_first ? 1 : b * b, in_block = block_first ? ch : 1; /* steps along the depth */
    struct k_nd d = {.n = 2, .rank = 6, .dims = {n, ch, b, b, h, w}};
    const int64_t deep[6] = {ch * b * b * h * w, in_channel * h * w, in_block * b * h * w, in_block * h * w, w, 1};
    const int64_t wide[6] = {ch * b * b * h * w, h * b * w * b, w * b, 1, b * w * b, b};
    memcpy(d.stride[0], to_space ? wide : deep, sizeof wide);
    memcpy(d.stride[1], to_space ? deep : wide, sizeof deep);
    int64_t channels, dims[4] = {n, ch, h, w};
    if (!size_mul(ch, b * b, &channels) || !size_mul(h, b, &dims[2]) || !size_mul(w, b, &dims[3]))
        return k_fail(c, NPUC_E_LIMIT, "the result is too large");
    if (!to_space) {
        dims[1] = channels;
        dims[2] = h;
        dims[3] = w;
    }
    const void *src = k_move_in(c, x);
    void *y = k_move_out(c, 0, x->dtype, 4, dims);
    if (!src || !y)
        return k_no_memory(c);
    k_nd_copy(d, y, src, k_move_size(x->dtype));
    k_move_done(c, 0, y);
    return NPUC_OK;
}
enum npuc_status k_op_depth_to_space(struct k_call *c)
{
    return depth_space(c, true);
}
enum npuc_status k_op_space_to_depth(struct k_call *c)
{
    return depth_space(c, false);
}

enum npuc_status k_op_reverse_sequence(struct k_call *c)
{
    int64_t n;
    if (!k_has(c, 2, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    const int64_t batch_axis = k_attr_int(c, "batch_axis", 1), time_axis = k_attr_int(c, "time_axis", 0);
    if (x->rank < 2 || batch_axis + time_axis != 1 || batch_axis < 0 || batch_axis > 1)
        return k_fail(c, NPUC_E_INVALID,
                      "batch_axis and time_axis must be 0 and 1 in either order, the rank 2 or more");
    const int64_t *lens = k_whole(c, 1, &n);
    const char *src = k_move_in(c, x);
    char *y = k_move_out(c, 0, x->dtype, x->rank, x->dims);
    if (!lens || !src || !y)
        return k_no_memory(c);
    const int64_t batch = x->dims[batch_axis], time = x->dims[time_axis],
                  block = k_stride(x, 1) * k_move_size(x->dtype);
    const int64_t batch_step = block * (batch_axis == 0 ? x->dims[1] : 1),
                  time_step = block * (time_axis == 0 ? x->dims[1] : 1);
    if (n != batch)
        return k_fail(c, NPUC_E_INVALID, "%lld sequence lengths for a batch of %lld", (long long)n, (long long)batch);
    for (int64_t b = 0; b < batch; b++) {
        if (lens[b] < 0 || lens[b] > time)
            return k_fail(c, NPUC_E_INVALID, "sequence length %lld is not in 0..%lld", (long long)lens[b],
                          (long long)time);
        for (int64_t t = 0; t < time; t++) {
            const int64_t from = t < lens[b] ? lens[b] - 1 - t : t;
            memcpy(y + b * batch_step + t * time_step, src + b * batch_step + from * time_step, (size_t)block);
        }
    }
    k_move_done(c, 0, y);
    return NPUC_OK;
}

/* Without axis the input counts as one row of elements. Conditions may be fewer than positions; the rest is dropped. */
enum npuc_status k_op_compress(struct k_call *c)
{
    if (!k_has(c, 2, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0], *condition = c->in[1];
    const bool flat = !k_attr_find(c, "axis");
    int axis = 0;
    if (!flat && !k_axis(c, k_attr_int(c, "axis", 0), x->rank, &axis))
        return NPUC_E_INVALID;
    const int64_t len = flat ? k_count(x) : x->dims[axis], n = k_count(condition);
    if (condition->dtype != DT_BOOL || n > len)
        return k_fail(c, NPUC_E_INVALID, "the condition must be bool, with at most %lld elements", (long long)len);
    const uint8_t *keep = condition->data;
    int64_t kept = 0, dims[K_MAX_RANK];
    for (int64_t i = 0; i < n; i++)
        kept += keep[i] != 0;
    memcpy(dims, x->dims, sizeof dims);
    dims[axis] = kept;
    const char *src = k_move_in(c, x);
    char *y = k_move_out(c, 0, x->dtype, flat ? 1 : x->rank, dims);
    if (!src || !y)
        return k_no_memory(c);
    const int64_t outer = flat ? 1 : k_dims_count(axis, x->dims);
    const int64_t block = (flat ? 1 : k_stride(x, axis)) * k_move_size(x->dtype);
    char *at = y;
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < n; i++)
            if (keep[i]) {
                memcpy(at, src + (o * len + i) * block, (size_t)block);
                at += block;
            }
    k_move_done(c, 0, y);
    return NPUC_OK;
}

/* y = x / (1 - ratio) where the mask keeps an element, else 0. */
static void drop(const struct k_call *c, const struct k_tensor *x, double ratio, uint8_t *mask)
{
    const uint64_t key = k_random_key(c);
    const double scale = ratio < 1 ? 1 / (1 - ratio) : 0;
    for (int64_t i = 0, n = k_count(x); i < n; i++) {
        mask[i] = k_random_uniform(key, i) >= ratio;
        k_set_f64(&c->out[0], i, mask[i] ? k_get_f64(x, i) * scale : 0);
    }
}

/* Inference: a copy, and a mask that keeps everything. Training: see op_random.c for the numbers. */
enum npuc_status k_op_dropout(struct k_call *c)
{
    if (!k_has(c, 1, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0], *share = k_in(c, 1), *training = k_in(c, 2);
    const bool train = training && k_count(training) == 1 && k_get_i64(training, 0) != 0;
    const double ratio = share && k_count(share) == 1 ? k_get_f64(share, 0) : 0.5;
    if (train && !(ratio >= 0 && ratio <= 1 && dtype_is_float(x->dtype)))
        return k_fail(c, NPUC_E_INVALID, "the ratio is %g, expected 0 to 1", ratio);
    void *y = k_out_like(c, 0, x);
    uint8_t *mask = k_wants(c, 1) ? k_out(c, 1, DT_BOOL, x->rank, x->dims) : k_scratch(c, k_count(x), 1);
    if (!y || !mask)
        return k_no_memory(c);
    memset(mask, 1, (size_t)k_count(x));
    if (train && ratio > 0)
        drop(c, x, ratio, mask);
    else
        memmove(y, x->data, (size_t)c->out[0].size);
    return NPUC_OK;
}
