/* CenterCropPad, Col2Im, MaxUnpool: elements of an image moved, Col2Im adds those that meet. */
#include <string.h>

#include "base/pool.h"
#include "base/size.h"
#include "kernels/window.h"

/* Zero elements of the type; a string without characters. */
static void clear(void *y, enum dtype t, int64_t n)
{
    memset(y, 0, (size_t)(n * k_move_size(t)));
    for (int64_t i = 0; t == DT_STRING && i < n; i++)
        ((struct k_string *)y)[i].text = "";
}

/* Each axis keeps its middle or gets as much before as behind; what is left over is behind. */
/* Where what stays of x begins in x and in the result, and the result's dims. */
struct crop {
    int64_t dims[K_MAX_RANK], from[K_MAX_RANK], to[K_MAX_RANK];
};

static enum npuc_status crop_of(struct k_call *c, const struct k_tensor *x, struct crop *p)
{
    int64_t n;
    const int64_t *size = k_whole(c, 1, &n);
    const struct k_attr *axes = k_attr_find(c, "axes");
    const bool some = axes && axes->kind == K_ATTR_INTS && axes->len > 0;
    if (!size)
        return k_no_memory(c);
    if (n != (some ? axes->len : x->rank) || n > x->rank)
        return k_fail(c, NPUC_E_INVALID, "%lld sizes do not fit the axes", (long long)n);
    *p = (struct crop){0};
    memcpy(p->dims, x->dims, sizeof p->dims);
    for (int i = 0; i < n; i++) {
        int axis;
        if (!k_axis(c, some ? axes->v.ints[i] : i, x->rank, &axis))
            return NPUC_E_INVALID;
        if (size[i] < 0)
            return k_fail(c, NPUC_E_INVALID, "size %lld of axis %d is negative", (long long)size[i], axis);
        const int64_t more = size[i] - x->dims[axis];
        p->from[axis] = more < 0 ? -more / 2 : 0;
        p->to[axis] = more > 0 ? more / 2 : 0;
        p->dims[axis] = size[i];
    }
    return NPUC_OK;
}

enum npuc_status k_op_center_crop_pad(struct k_call *c)
{
    struct crop p;
    if (!k_has(c, 2, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    K_TRY(crop_of(c, x, &p));
    const char *src = k_move_in(c, x);
    char *y = k_move_out(c, 0, x->dtype, x->rank, p.dims);
    if (!src || !y)
        return k_no_memory(c);
    clear(y, x->dtype, k_dims_count(x->rank, p.dims));
    struct k_nd d = {.rank = x->rank, .n = 2};
    int64_t at_x = 0, at_y = 0, step_x = 1, step_y = 1;
    for (int i = x->rank - 1; i >= 0; i--) {
        d.dims[i] = p.dims[i] < x->dims[i] ? p.dims[i] : x->dims[i];
        d.stride[0][i] = step_y;
        d.stride[1][i] = step_x;
        at_y += p.to[i] * step_y;
        at_x += p.from[i] * step_x;
        step_y *= p.dims[i];
        step_x *= x->dims[i];
    }
    const int64_t size_of = k_move_size(x->dtype);
    k_nd_copy(d, y + at_y * size_of, src + at_x * size_of, size_of);
    k_move_done(c, 0, y);
    return NPUC_OK;
}

/* ---- Col2Im: x [N][C][taps][blocks] added into y [N][C][image] */

struct col2im {
    int axes;
    int64_t image[K_MAX_RANK], block[K_MAX_RANK], cols[K_MAX_RANK];
    int64_t stride[K_MAX_RANK], dilation[K_MAX_RANK], before[K_MAX_RANK];
    int64_t taps, blocks, pixels;
    enum k_wide wide;
    const void *x;
    void *y;
};

#define ADD(T) ((T *)m->y)[y] += ((const T *)m->x)[x]
static void add_at(const struct col2im *m, int64_t y, int64_t x)
{
    switch (m->wide) {
    case K_WIDE_F32: ADD(float); break;
    case K_WIDE_F64: ADD(double); break;
    case K_WIDE_I64:
    case K_WIDE_U64: ADD(uint64_t); break; /* wraps */
    case K_WIDE_NONE: break;
    }
}

/* One plane: taps ascending, then blocks ascending. */
static void add_plane(void *arg, int64_t plane, int worker)
{
    (void)worker;
    const struct col2im *m = arg;
    int64_t x = plane * m->taps * m->blocks, tap[K_MAX_RANK] = {0}, col[K_MAX_RANK] = {0};
    for (int64_t t = 0; t < m->taps; t++) {
        for (int64_t b = 0; b < m->blocks; b++, x++) {
            int64_t at = 0;
            bool inside = true;
            for (int i = 0; i < m->axes; i++) {
                const int64_t p = col[i] * m->stride[i] - m->before[i] + tap[i] * m->dilation[i];
                inside = inside && p >= 0 && p < m->image[i];
                at = at * m->image[i] + p;
            }
            if (inside)
                add_at(m, plane * m->pixels + at, x);
            for (int i = m->axes - 1; i >= 0 && ++col[i] == m->cols[i]; i--)
                col[i] = 0;
        }
        for (int i = m->axes - 1; i >= 0 && ++tap[i] == m->block[i]; i--)
            tap[i] = 0;
    }
}

static enum npuc_status col2im_sizes(struct k_call *c, struct col2im *m)
{
    int64_t n, n_block, pads[2 * K_MAX_RANK];
    const int64_t *image = k_whole(c, 1, &n), *block = k_whole(c, 2, &n_block);
    if (!image || !block)
        return k_no_memory(c);
    if (n < 1 || n != n_block || n > K_MAX_RANK - 2)
        return k_fail(c, NPUC_E_INVALID, "image_shape has %lld elements, block_shape %lld", (long long)n,
                      (long long)n_block);
    *m = (struct col2im){.axes = (int)n, .taps = 1, .blocks = 1, .pixels = 1};
    if (!k_window_list(c, "strides", m->axes, 1, m->stride) ||
        !k_window_list(c, "dilations", m->axes, 1, m->dilation) || !k_window_list(c, "pads", 2 * m->axes, 0, pads))
        return NPUC_E_INVALID;
    for (int i = 0; i < m->axes; i++) {
        if (image[i] < 0 || image[i] > INT32_MAX || block[i] < 1 || block[i] > INT32_MAX)
            return k_fail(c, NPUC_E_INVALID, "image_shape or block_shape is out of range on axis %d", i);
        m->image[i] = image[i];
        m->block[i] = block[i];
        m->before[i] = pads[i];
        const int64_t room = image[i] + pads[i] + pads[m->axes + i] - m->dilation[i] * (block[i] - 1) - 1;
        m->cols[i] = room < 0 ? 0 : room / m->stride[i] + 1;
        if (!size_mul(m->taps, block[i], &m->taps) || !size_mul(m->blocks, m->cols[i], &m->blocks) ||
            !size_mul(m->pixels, image[i], &m->pixels))
            return k_fail(c, NPUC_E_LIMIT, "the image or the block is too large");
    }
    return NPUC_OK;
}

enum npuc_status k_op_col2im(struct k_call *c)
{
    struct col2im m;
    int64_t dims[K_MAX_RANK];
    if (!k_has(c, 3, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    K_TRY(col2im_sizes(c, &m));
    m.wide = k_wide_of(x->dtype);
    if (m.wide == K_WIDE_NONE)
        return k_fail(c, NPUC_E_UNSUPPORTED, "type %s is not supported", dtype_table[x->dtype].name);
    if (x->rank != 3 || x->dims[1] % m.taps || x->dims[2] != m.blocks)
        return k_fail(c, NPUC_E_INVALID, "the input must be [N, C * %lld, %lld]", (long long)m.taps,
                      (long long)m.blocks);
    dims[0] = x->dims[0];
    dims[1] = x->dims[1] / m.taps;
    memcpy(dims + 2, m.image, (size_t)m.axes * sizeof *dims);
    void *y = k_out(c, 0, x->dtype, m.axes + 2, dims);
    const int64_t n = y ? k_count(&c->out[0]) : 0;
    void *wide = k_scratch(c, k_count(x), k_wide_size(m.wide));
    m.x = wide;
    m.y = k_scratch(c, n, k_wide_size(m.wide));
    if (!y || !wide || !m.y)
        return k_no_memory(c);
    k_widen(wide, x->dtype, x->data, 0, k_count(x));
    if (n > 0)
        pool_for(c->pool, dims[0] * dims[1], add_plane, &m);
    k_narrow(x->dtype, y, 0, m.y, n, true);
    return NPUC_OK;
}

/* ---- MaxUnpool */

/* The size that kernel, strides and pads give; indices count in it. */
static enum npuc_status unpooled(struct k_call *c, int64_t *dims)
{
    const struct k_tensor *x = c->in[0];
    const int axes = x->rank - 2;
    int64_t kernel[K_MAX_RANK], stride[K_MAX_RANK], pads[2 * K_MAX_RANK];
    if (axes < 1 || k_count(x) != k_count(c->in[1]))
        return k_fail(c, NPUC_E_INVALID, "data and indices must have one shape of rank 3 or more");
    if (!k_window_list(c, "kernel_shape", axes, 1, kernel) || !k_window_list(c, "strides", axes, 1, stride) ||
        !k_window_list(c, "pads", 2 * axes, 0, pads))
        return NPUC_E_INVALID;
    memcpy(dims, x->dims, 2 * sizeof *dims);
    for (int i = 0; i < axes; i++) {
        if (!size_mul(x->dims[i + 2] - 1, stride[i], &dims[i + 2]) && x->dims[i + 2] > 0)
            return k_fail(c, NPUC_E_LIMIT, "the result is too large");
        dims[i + 2] = (x->dims[i + 2] - 1) * stride[i] + kernel[i] - pads[i] - pads[axes + i];
        if (dims[i + 2] < 0)
            return k_fail(c, NPUC_E_INVALID, "axis %d would have a negative size", i + 2);
    }
    return NPUC_OK;
}

/* Where element `at` of a tensor of shape `from` stands in one of shape `to`, which is at least as large. */
static int64_t placed(int64_t at, int rank, const int64_t *from, const int64_t *to)
{
    int64_t y = 0, step = 1;
    for (int i = rank - 1; i >= 0; i--) {
        y += at % from[i] * step;
        at /= from[i];
        step *= to[i];
    }
    return y;
}

enum npuc_status k_op_max_unpool(struct k_call *c)
{
    int64_t dims[K_MAX_RANK], inner[K_MAX_RANK], n = 0, n_at;
    if (!k_has(c, 2, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    K_TRY(unpooled(c, inner));
    memcpy(dims, inner, sizeof dims);
    const int64_t *given = k_in(c, 2) ? k_whole(c, 2, &n) : NULL, *at = k_whole(c, 1, &n_at);
    if (!at || (k_in(c, 2) && !given))
        return k_no_memory(c);
    for (int i = 0; given && i < x->rank; i++) {
        if (n != x->rank || given[i] < inner[i])
            return k_fail(c, NPUC_E_INVALID, "output_shape must have %d elements, each as large as the pooled image",
                          x->rank);
        dims[i] = given[i];
    }
    const char *src = k_move_in(c, x);
    char *y = k_move_out(c, 0, x->dtype, x->rank, dims);
    if (!src || !y)
        return k_no_memory(c);
    const int64_t size = k_move_size(x->dtype), total = k_dims_count(x->rank, inner);
    clear(y, x->dtype, k_dims_count(x->rank, dims));
    for (int64_t i = 0; i < n_at; i++) {
        if (at[i] < 0 || at[i] >= total)
            return k_fail(c, NPUC_E_INVALID, "index %lld is out of range for %lld elements", (long long)at[i],
                          (long long)total);
        memcpy(y + placed(at[i], x->rank, inner, dims) * size, src + i * size, (size_t)size);
    }
    k_move_done(c, 0, y);
    return NPUC_OK;
}
