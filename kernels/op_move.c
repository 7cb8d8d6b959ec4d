/* Operators that rearrange elements by a fixed rule: strided copies. */
#include <string.h>

#include "base/size.h"
#include "kernels/op.h"

enum npuc_status k_op_transpose(struct k_call *c)
{
    if (!k_has(c, 1, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    const struct k_attr *perm = k_attr_find(c, "perm");
    struct k_nd d = {.n = 2, .rank = x->rank};
    unsigned seen = 0;
    if (perm && perm->len != x->rank)
        return k_fail(c, NPUC_E_INVALID, "perm has %lld entries for rank %d", (long long)perm->len, x->rank);
    for (int i = 0; i < x->rank; i++) {
        int from;
        if (!k_axis(c, perm ? perm->v.ints[i] : x->rank - 1 - i, x->rank, &from))
            return NPUC_E_INVALID;
        seen |= 1u << from;
        d.dims[i] = x->dims[from];
        d.stride[1][i] = k_stride(x, from);
    }
    if (seen != (1u << x->rank) - 1)
        return k_fail(c, NPUC_E_INVALID, "perm is no permutation");
    const void *src = k_move_in(c, x);
    void *y = k_move_out(c, 0, x->dtype, d.rank, d.dims);
    if (!src || !y)
        return k_no_memory(c);
    k_nd_dense(&d, 0);
    k_nd_copy(d, y, src, k_move_size(x->dtype));
    k_move_done(c, 0, y);
    return NPUC_OK;
}

enum npuc_status k_op_concat(struct k_call *c)
{
    int axis;
    if (!k_has(c, c->n_in > 0 ? c->n_in : 1, 1) || !k_axis(c, k_attr_int(c, "axis", 0), c->in[0]->rank, &axis))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    int64_t dims[K_MAX_RANK];
    memcpy(dims, x->dims, sizeof dims);
    for (int i = 1; i < c->n_in; i++) {
        const struct k_tensor *t = c->in[i];
        bool fits = t->rank == x->rank && t->dtype == x->dtype;
        for (int k = 0; fits && k < x->rank; k++)
            fits = k == axis || t->dims[k] == x->dims[k];
        if (!fits || !size_add(dims[axis], t->dims[axis], &dims[axis]))
            return k_fail(c, NPUC_E_INVALID, "input %d does not fit input 0", i);
    }
    char *y = k_move_out(c, 0, x->dtype, x->rank, dims);
    if (!y)
        return k_no_memory(c);
    const int64_t size = k_move_size(x->dtype), inner = k_stride(x, axis) * size, outer = k_dims_count(axis, dims);
    int64_t at = 0;
    for (int i = 0; i < c->n_in; i++) {
        const char *src = k_move_in(c, c->in[i]);
        const int64_t len = c->in[i]->dims[axis] * inner;
        if (!src && len > 0)
            return k_no_memory(c);
        for (int64_t o = 0; o < outer && len > 0; o++)
            memcpy(y + o * dims[axis] * inner + at, src + o * len, (size_t)len);
        at += len;
    }
    k_move_done(c, 0, y);
    return NPUC_OK;
}

enum npuc_status k_op_split(struct k_call *c)
{
    int axis;
    if (!k_has(c, 1, 1) || !k_axis(c, k_attr_int(c, "axis", 0), c->in[0]->rank, &axis))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    const int64_t total = x->dims[axis], parts = k_attr_int(c, "num_outputs", c->n_out);
    int64_t n = 0, *len = NULL;
    if (k_in(c, 1) && !(len = k_whole(c, 1, &n)))
        return k_no_memory(c);
    if (parts <= 0 || (len && n < c->n_out))
        return k_fail(c, NPUC_E_INVALID, "number of outputs and of lengths differ");
    const char *src = k_move_in(c, x);
    if (!src && k_count(x) > 0)
        return k_no_memory(c);
    const int64_t chunk = size_ceil_div(total, parts), inner = k_stride(x, axis) * k_move_size(x->dtype);
    int64_t at = 0, dims[K_MAX_RANK];
    memcpy(dims, x->dims, sizeof dims);
    for (int i = 0; i < c->n_out; i++) {
        dims[axis] = len ? len[i] : total - at < chunk ? total - at : chunk;
        if (!size_in(at, dims[axis], total))
            return k_fail(c, NPUC_E_INVALID, "lengths exceed dimension %lld", (long long)total);
        char *y = k_move_out(c, i, x->dtype, x->rank, dims);
        if (!y)
            return k_no_memory(c);
        for (int64_t o = 0; o < k_dims_count(axis, dims); o++)
            memcpy(y + o * dims[axis] * inner, src + (o * total + at) * inner, (size_t)(dims[axis] * inner));
        k_move_done(c, i, y);
        at += dims[axis];
    }
    return NPUC_OK;
}

struct range {
    int64_t start, step, len;
};
/* Start, end and step as Slice has them: negative from the end, clamped. */
static struct range clamp_range(int64_t start, int64_t end, int64_t step, int64_t dim)
{
    struct range r = {.step = step};
    start = start < 0 ? (start < -dim ? -1 : start + dim) : start;
    end = end < 0 ? (end < -dim ? -1 : end + dim) : end;
    if (step > 0) {
        r.start = start < 0 ? 0 : start > dim ? dim : start;
        end = end < 0 ? 0 : end > dim ? dim : end;
        r.len = end > r.start ? (end - r.start - 1) / step + 1 : 0;
    } else {
        start = start < 0 ? 0 : start;
        r.start = start > dim - 1 ? dim - 1 : start;
        end = end > dim - 1 ? dim - 1 : end;
        r.len = end < r.start ? (int64_t)((uint64_t)(r.start - end - 1) / (0 - (uint64_t)step)) + 1 : 0;
    }
    return r;
}
enum npuc_status k_op_slice(struct k_call *c)
{
    int64_t n, m = 0, k = 0, offset = 0;
    if (!k_has(c, 3, 1))
        return NPUC_E_INVALID;
    const int64_t *starts = k_whole(c, 1, &n), *ends = k_whole(c, 2, &m), *axes = NULL, *steps = NULL;
    if (!starts || !ends || (k_in(c, 3) && !(axes = k_whole(c, 3, &k))) || (k_in(c, 4) && !(steps = k_whole(c, 4, &m))))
        return k_no_memory(c);
    const struct k_tensor *x = c->in[0];
    if ((axes ? k != n : n > x->rank) || m != n)
        return k_fail(c, NPUC_E_INVALID, "starts, ends, axes and steps differ in length");
    struct k_nd d = {.n = 2, .rank = x->rank};
    memcpy(d.dims, x->dims, sizeof d.dims);
    k_nd_dense(&d, 1);
    for (int64_t i = 0; i < n; i++) {
        int axis;
        if (!k_axis(c, axes ? axes[i] : i, x->rank, &axis))
            return NPUC_E_INVALID;
        if (steps && steps[i] == 0)
            return k_fail(c, NPUC_E_INVALID, "step is 0");
        const struct range r = clamp_range(starts[i], ends[i], steps ? steps[i] : 1, x->dims[axis]);
        d.dims[axis] = r.len;
        if (r.len > 0)
            offset += r.start * d.stride[1][axis];
        d.stride[1][axis] *= r.len > 1 ? r.step : 1;
    }
    const char *src = k_move_in(c, x);
    void *y = k_move_out(c, 0, x->dtype, d.rank, d.dims);
    if ((!src && k_count(x) > 0) || !y)
        return k_no_memory(c);
    k_nd_dense(&d, 0);
    if (k_dims_count(d.rank, d.dims) > 0)
        k_nd_copy(d, y, src + offset * k_move_size(x->dtype), k_move_size(x->dtype));
    k_move_done(c, 0, y);
    return NPUC_OK;
}

enum npuc_status k_op_tile(struct k_call *c)
{
    int64_t n, dims[K_MAX_RANK];
    if (!k_has(c, 2, 1))
        return NPUC_E_INVALID;
    const int64_t *reps = k_whole(c, 1, &n);
    if (!reps)
        return k_no_memory(c);
    const struct k_tensor *x = c->in[0];
    if (n != x->rank || 2 * n > K_MAX_RANK)
        return k_fail(c, NPUC_E_INVALID, "%lld repeats for rank %d", (long long)n, x->rank);
    struct k_nd d = {.n = 2, .rank = 2 * x->rank};
    for (int i = 0; i < x->rank; i++) { /* each dimension becomes (repeats, dim) */
        if (!size_mul(x->dims[i], reps[i], &dims[i]))
            return k_fail(c, NPUC_E_INVALID, "repeats are not valid");
        d.dims[2 * i] = reps[i];
        d.dims[2 * i + 1] = x->dims[i];
        d.stride[1][2 * i + 1] = k_stride(x, i);
    }
    const void *src = k_move_in(c, x);
    void *y = k_move_out(c, 0, x->dtype, x->rank, dims);
    if ((!src && k_count(x) > 0) || !y)
        return k_no_memory(c);
    k_nd_dense(&d, 0);
    k_nd_copy(d, y, src, k_move_size(x->dtype));
    k_move_done(c, 0, y);
    return NPUC_OK;
}

/* --- Pad --- */

enum pad_mode { PAD_CONSTANT, PAD_EDGE, PAD_REFLECT, PAD_WRAP };
/* The source index of position i (counted from the first source element), or -1 for the constant. */
static int64_t pad_source(enum pad_mode mode, int64_t i, int64_t dim)
{
    if (i >= 0 && i < dim)
        return i;
    if (mode == PAD_CONSTANT || dim == 0)
        return -1;
    if (mode == PAD_EDGE)
        return i < 0 ? 0 : dim - 1;
    if (mode == PAD_WRAP)
        return (i % dim + dim) % dim;
    const int64_t period = dim > 1 ? 2 * (dim - 1) : 1, at = (i % period + period) % period;
    return at < dim ? at : period - at;
}
struct pad {
    const struct k_tensor *x;
    const struct k_tensor *y;
    const char *src;
    char *dst;
    const char *value;
    const int64_t *before;
    int64_t size;
    enum pad_mode mode;
};
static void pad_all(const struct pad *p)
{
    const int rank = p->y->rank;
    int64_t index[K_MAX_RANK] = {0}, n = k_count(p->y);
    for (int64_t at = 0; at < n; at++) {
        int64_t from = 0;
        for (int i = 0; i < rank && from >= 0; i++) {
            const int64_t s = pad_source(p->mode, index[i] - p->before[i], p->x->dims[i]);
            from = s < 0 ? -1 : from * p->x->dims[i] + s;
        }
        memcpy(p->dst + at * p->size, from < 0 ? p->value : p->src + from * p->size, (size_t)p->size);
        for (int i = rank - 1; i >= 0 && ++index[i] == p->y->dims[i]; i--)
            index[i] = 0;
    }
}
enum npuc_status k_op_pad(struct k_call *c)
{
    int64_t n, k = 0, *axes = NULL, before[K_MAX_RANK] = {0}, dims[K_MAX_RANK];
    if (!k_has(c, 2, 1))
        return NPUC_E_INVALID;
    const int64_t *pads = k_whole(c, 1, &n);
    if (!pads || (k_in(c, 3) && !(axes = k_whole(c, 3, &k))))
        return k_no_memory(c);
    const struct k_tensor *x = c->in[0], *value = k_in(c, 2);
    const int64_t count = axes ? k : x->rank;
    if (n != 2 * count)
        return k_fail(c, NPUC_E_INVALID, "%lld pads for %lld axes", (long long)n, (long long)count);
    memcpy(dims, x->dims, sizeof dims);
    for (int64_t i = 0; i < count; i++) {
        int axis;
        if (!k_axis(c, axes ? axes[i] : i, x->rank, &axis))
            return NPUC_E_INVALID;
        before[axis] = pads[i];
        dims[axis] += pads[i] + pads[count + i];
        if (dims[axis] < 0)
            return k_fail(c, NPUC_E_INVALID, "axis %d would be cut to less than nothing", axis);
    }
    static const char *const names[] = {"constant", "edge", "reflect", "wrap"};
    const char *mode = k_attr_str(c, "mode", "constant");
    int m = 0;
    while (m < 4 && strcmp(names[m], mode))
        m++;
    if (m == 4)
        return k_fail(c, NPUC_E_INVALID, "unknown mode");
    struct pad p = {
        .x = x, .src = k_move_in(c, x), .before = before, .size = k_move_size(x->dtype), .mode = (enum pad_mode)m};
    const struct k_string empty = {.text = ""};
    p.value = value && k_count(value) > 0 ? k_move_in(c, value)
              : x->dtype == DT_STRING     ? (const void *)&empty
                                          : k_scratch(c, 1, p.size);
    p.dst = k_move_out(c, 0, x->dtype, x->rank, dims);
    if ((!p.src && k_count(x) > 0) || !p.value || !p.dst)
        return k_no_memory(c);
    p.y = &c->out[0];
    pad_all(&p);
    k_move_done(c, 0, p.dst);
    return NPUC_OK;
}

enum npuc_status k_op_trilu(struct k_call *c)
{
    if (!k_has(c, 1, 1) || c->in[0]->rank < 2)
        return k_fail(c, NPUC_E_INVALID, "input must have rank 2 or more");
    const struct k_tensor *x = c->in[0];
    const int64_t k = k_in(c, 1) ? k_get_i64(c->in[1], 0) : 0, size = k_move_size(x->dtype);
    const bool upper = k_attr_int(c, "upper", 1);
    const int64_t rows = x->dims[x->rank - 2], cols = x->dims[x->rank - 1], n = rows * cols > 0 ? k_count(x) / cols : 0;
    const char *src = k_move_in(c, x);
    char *y = k_move_out(c, 0, x->dtype, x->rank, x->dims);
    if (!src || !y)
        return k_no_memory(c);
    for (int64_t r = 0; r < n; r++) { /* column r + k is the first that the upper part keeps */
        const int64_t at = r % rows + k + (upper ? 0 : 1), edge = at < 0 ? 0 : at > cols ? cols : at;
        const int64_t from = upper ? edge : 0, to = upper ? cols : edge;
        memset(y + r * cols * size, 0, (size_t)(cols * size));
        for (int64_t i = 0; x->dtype == DT_STRING && i < cols; i++)
            ((struct k_string *)(void *)y)[r * cols + i].text = "";
        memcpy(y + (r * cols + from) * size, src + (r * cols + from) * size, (size_t)((to - from) * size));
    }
    k_move_done(c, 0, y);
    return NPUC_OK;
}
