/* Operators that read or change shapes without touching elements, and generators. */
#include <string.h>

#include "base/size.h"
#include "kernels/op.h"

static enum npuc_status reshaped(struct k_call *c, int rank, const int64_t *dims)
{
    const struct k_tensor *x = c->in[0];
    if (k_dims_count(rank, dims) != k_count(x))
        return k_fail(c, NPUC_E_INVALID, "%lld elements do not fit the new shape", (long long)k_count(x));
    void *y = k_out(c, 0, x->dtype, rank, dims);
    if (!y)
        return k_no_memory(c);
    memmove(y, x->data, (size_t)c->out[0].size);
    return NPUC_OK;
}

enum npuc_status k_op_shape(struct k_call *c)
{
    if (!k_has(c, 1, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    int64_t from = k_attr_int(c, "start", 0), to = k_attr_int(c, "end", x->rank);
    from = from < 0 ? from + x->rank : from;
    to = to < 0 ? to + x->rank : to;
    from = from < 0 ? 0 : from > x->rank ? x->rank : from;
    to = to < from ? from : to > x->rank ? x->rank : to;
    const int64_t n = to - from;
    int64_t *y = k_out(c, 0, DT_I64, 1, &n);
    if (!y)
        return k_no_memory(c);
    memcpy(y, x->dims + from, (size_t)n * sizeof *y);
    return NPUC_OK;
}
enum npuc_status k_op_size(struct k_call *c)
{
    if (!k_has(c, 1, 1))
        return NPUC_E_INVALID;
    int64_t *y = k_out(c, 0, DT_I64, 0, NULL);
    if (!y)
        return k_no_memory(c);
    *y = k_count(c->in[0]);
    return NPUC_OK;
}

enum npuc_status k_op_reshape(struct k_call *c)
{
    int64_t n, dims[K_MAX_RANK], known = 1;
    if (!k_has(c, 2, 1))
        return NPUC_E_INVALID;
    const int64_t *want = k_whole(c, 1, &n);
    if (!want)
        return k_no_memory(c);
    const struct k_tensor *x = c->in[0];
    if (n > K_MAX_RANK)
        return k_fail(c, NPUC_E_LIMIT, "rank %lld", (long long)n);
    int open = -1;
    for (int i = 0; i < n; i++) {
        dims[i] = want[i];
        if (want[i] == 0 && !k_attr_int(c, "allowzero", 0)) {
            if (i >= x->rank)
                return k_fail(c, NPUC_E_INVALID, "0 at position %d has no input dimension", i);
            dims[i] = x->dims[i];
        }
        if (dims[i] == -1 && open < 0)
            open = i;
        else if (!size_mul(known, dims[i], &known))
            return k_fail(c, NPUC_E_INVALID, "target shape is not valid");
    }
    if (open >= 0) {
        if (known == 0 ? k_count(x) != 0 : k_count(x) % known != 0)
            return k_fail(c, NPUC_E_INVALID, "%lld elements do not fit the target shape", (long long)k_count(x));
        dims[open] = known == 0 ? 0 : k_count(x) / known;
    }
    return reshaped(c, (int)n, dims);
}
enum npuc_status k_op_flatten(struct k_call *c)
{
    if (!k_has(c, 1, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    int64_t axis = k_attr_int(c, "axis", 1);
    axis = axis < 0 ? axis + x->rank : axis;
    if (axis < 0 || axis > x->rank)
        return k_fail(c, NPUC_E_INVALID, "axis is out of range");
    const int64_t dims[2] = {k_dims_count((int)axis, x->dims), k_dims_count(x->rank - (int)axis, x->dims + axis)};
    return reshaped(c, 2, dims);
}

enum npuc_status k_op_squeeze(struct k_call *c)
{
    if (!k_has(c, 1, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    bool drop[K_MAX_RANK] = {0};
    if (k_in(c, 1)) {
        int64_t n;
        const int64_t *axes = k_whole(c, 1, &n);
        if (!axes)
            return k_no_memory(c);
        for (int64_t i = 0; i < n; i++) {
            int axis;
            if (!k_axis(c, axes[i], x->rank, &axis))
                return NPUC_E_INVALID;
            drop[axis] = true;
        }
    } else {
        for (int i = 0; i < x->rank; i++)
            drop[i] = x->dims[i] == 1;
    }
    int64_t dims[K_MAX_RANK];
    int rank = 0;
    for (int i = 0; i < x->rank; i++)
        if (!drop[i])
            dims[rank++] = x->dims[i];
    return reshaped(c, rank, dims);
}
enum npuc_status k_op_unsqueeze(struct k_call *c)
{
    int64_t n;
    if (!k_has(c, 2, 1))
        return NPUC_E_INVALID;
    const int64_t *axes = k_whole(c, 1, &n);
    if (!axes)
        return k_no_memory(c);
    const struct k_tensor *x = c->in[0];
    if (x->rank + n > K_MAX_RANK)
        return k_fail(c, NPUC_E_LIMIT, "rank %lld", (long long)(x->rank + n));
    const int rank = x->rank + (int)n;
    bool add[K_MAX_RANK] = {0};
    for (int64_t i = 0; i < n; i++) {
        int axis;
        if (!k_axis(c, axes[i], rank, &axis))
            return NPUC_E_INVALID;
        if (add[axis])
            return k_fail(c, NPUC_E_INVALID, "axis %d is given twice", axis);
        add[axis] = true;
    }
    int64_t dims[K_MAX_RANK];
    for (int i = 0, from = 0; i < rank; i++)
        dims[i] = add[i] ? 1 : x->dims[from++];
    return reshaped(c, rank, dims);
}

/* Shape input i as dims; false with the error set. */
static bool shape_input(struct k_call *c, int i, int64_t dims[K_MAX_RANK], int *rank)
{
    int64_t n;
    const int64_t *v = k_whole(c, i, &n);
    if (!v)
        return false;
    bool fits = n <= K_MAX_RANK;
    for (int64_t d = 0; fits && d < n; d++) {
        dims[d] = v[d];
        fits = v[d] >= 0;
    }
    *rank = (int)n;
    if (!fits)
        k_fail(c, NPUC_E_INVALID, "shape input is not valid");
    return fits;
}

enum npuc_status k_op_constant_of_shape(struct k_call *c)
{
    int64_t dims[K_MAX_RANK];
    int rank;
    if (!k_has(c, 1, 1) || !shape_input(c, 0, dims, &rank))
        return k_no_memory(c);
    const struct k_attr *a = k_attr_find(c, "value");
    const struct k_tensor zero = {.dtype = DT_F32, .data = &(float){0}, .size = 4};
    const struct k_tensor *value = a && a->kind == K_ATTR_TENSOR ? a->v.tensor : &zero;
    const void *x = k_move_in(c, value);
    char *y = k_move_out(c, 0, value->dtype, rank, dims);
    if (!x || !y)
        return k_no_memory(c);
    const int64_t size = k_move_size(value->dtype), n = k_dims_count(rank, dims);
    for (int64_t i = 0; i < n; i++)
        memcpy(y + i * size, x, (size_t)size);
    k_move_done(c, 0, y);
    return NPUC_OK;
}

enum npuc_status k_op_range(struct k_call *c)
{
    if (!k_has(c, 3, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *start = c->in[0], *step = c->in[2];
    const bool real = dtype_is_float(start->dtype);
    int64_t n = 0;
    if (real) {
        const double d = k_get_f64(step, 0), len = (k_get_f64(c->in[1], 0) - k_get_f64(start, 0)) / d;
        if (d == 0 || !(len < 1e15))
            return k_fail(c, NPUC_E_INVALID, "delta is 0 or the range is not finite");
        n = len <= 0 ? 0 : (int64_t)len + (len > (double)(int64_t)len);
    } else {
        const int64_t d = k_get_i64(step, 0), a = k_get_i64(start, 0), b = k_get_i64(c->in[1], 0);
        if (d == 0)
            return k_fail(c, NPUC_E_INVALID, "delta is 0");
        if (d > 0 ? b > a : b < a) {
            const uint64_t span = d > 0 ? (uint64_t)b - (uint64_t)a : (uint64_t)a - (uint64_t)b;
            const uint64_t stride = d > 0 ? (uint64_t)d : 0 - (uint64_t)d;
            n = (int64_t)((span - 1) / stride + 1);
        }
    }
    if (!k_out(c, 0, start->dtype, 1, &n))
        return k_no_memory(c);
    for (int64_t i = 0; i < n; i++) {
        if (real)
            k_set_f64(&c->out[0], i, k_get_f64(start, 0) + (double)i * k_get_f64(step, 0));
        else
            k_set_i64(&c->out[0], i,
                      (int64_t)((uint64_t)k_get_i64(start, 0) + (uint64_t)i * (uint64_t)k_get_i64(step, 0)));
    }
    return NPUC_OK;
}

enum npuc_status k_op_eye_like(struct k_call *c)
{
    if (!k_has(c, 1, 1) || c->in[0]->rank != 2)
        return k_fail(c, NPUC_E_INVALID, "input must have rank 2");
    const struct k_tensor *x = c->in[0];
    const int64_t to = k_attr_int(c, "dtype", 0), k = k_attr_int(c, "k", 0);
    void *y = k_out(c, 0, to ? dtype_from_onnx(to) : x->dtype, 2, x->dims);
    if (!y)
        return k_no_memory(c);
    memset(y, 0, (size_t)c->out[0].size);
    for (int64_t r = 0; r < x->dims[0]; r++)
        if (r + k >= 0 && r + k < x->dims[1])
            k_set_i64(&c->out[0], r * x->dims[1] + r + k, 1);
    return NPUC_OK;
}

enum npuc_status k_op_expand(struct k_call *c)
{
    int64_t want[K_MAX_RANK];
    int rank;
    struct k_nd d = {.n = 2};
    if (!k_has(c, 2, 1) || !shape_input(c, 1, want, &rank))
        return k_no_memory(c);
    const struct k_tensor *x = c->in[0];
    if (!k_broadcast(x->rank, x->dims, rank, want, &d.rank, d.dims))
        return k_fail(c, NPUC_E_INVALID, "the input does not broadcast to the shape");
    const void *src = k_move_in(c, x);
    void *y = k_move_out(c, 0, x->dtype, d.rank, d.dims);
    if (!src || !y)
        return k_no_memory(c);
    k_nd_dense(&d, 0);
    k_nd_broadcast(&d, 1, x);
    k_nd_copy(d, y, src, k_move_size(x->dtype));
    k_move_done(c, 0, y);
    return NPUC_OK;
}
