/* ConvTranspose: the adjoint of a convolution from the result to the input.
 *
 * Definition: for every position t of the kernel p[m, t] = sum over the channels of the group, ascending, by fma from
 * 0; y = sum of p over t ascending (row-major), each addition rounded to f32; then the bias, then the type of the
 * result. */
#include <string.h>

#include "base/pool.h"
#include "kernels/mac.h"
#include "kernels/window.h"

struct transposed {
    struct k_window w;   /* of the adjoint: in[] is the result, out[] is x */
    int64_t outs, group; /* channels of the result */
    enum dtype type, sum;
};

/* in[] of the window becomes the extents of the result, out[] those of x. */
static bool extents(struct k_call *c, const struct k_tensor *x, const struct k_tensor *weight, struct k_window *w)
{
    int64_t extra[K_AXES], given[K_AXES];
    if (!k_window_read(c, x, weight->dims + 2, w) || !k_window_list(c, "output_padding", w->n, 0, extra) ||
        !k_window_list(c, "output_shape", w->n, 0, given))
        return false;
    const bool upper = k_auto_pad_is(c, "SAME_UPPER"), same = upper || k_auto_pad_is(c, "SAME_LOWER");
    for (int i = 0; i < w->n; i++) {
        const int a = K_AXES - w->n + i;
        const int64_t size = w->in[a], extent = w->dilation[a] * (w->kernel[a] - 1) + 1;
        const int64_t full = w->stride[a] * (size - 1) + extra[i] + extent;
        w->out[a] = size;
        w->in[a] = given[i] ? given[i] : same ? size * w->stride[a] : full - w->before[a] - w->after[a];
        if (given[i] || same)
            k_window_split(w, a, full - w->in[a], upper);
        if (w->in[a] < 0) {
            k_fail(c, NPUC_E_INVALID, "pads exceed the result on spatial axis %d", i);
            return false;
        }
    }
    return true;
}

static bool transposed_of(struct k_call *c, struct transposed *v)
{
    const struct k_tensor *x = c->in[0], *weight = c->in[1], *bias = k_in(c, 2);
    *v = (struct transposed){
        .group = k_attr_int(c, "group", 1), .type = x->dtype, .sum = x->dtype == DT_F64 ? DT_F64 : DT_F32};
    if (x->rank < 3 || weight->rank != x->rank || v->group < 1 || v->group > INT32_MAX || x->dims[1] % v->group ||
        weight->dims[0] != x->dims[1]) {
        k_fail(c, NPUC_E_INVALID, "ranks, channels and group of input and weight do not fit each other");
        return false;
    }
    if (!dtype_is_float(v->type) || dtype_size(v->type) < 2 || weight->dtype != v->type ||
        (bias && bias->dtype != v->type)) {
        k_fail(c, NPUC_E_UNSUPPORTED, "types %s and %s", dtype_table[v->type].name, dtype_table[weight->dtype].name);
        return false;
    }
    v->outs = weight->dims[1] * v->group;
    if (bias && k_count(bias) != v->outs) {
        k_fail(c, NPUC_E_INVALID, "the bias has %lld elements, expected %lld", (long long)k_count(bias),
               (long long)v->outs);
        return false;
    }
    return extents(c, x, weight, &v->w);
}

/* Adds the taps of consecutive channels to their planes of the result. */
struct col2im {
    const struct transposed *v;
    const void *taps; /* [channel][tap][position of x] */
    void *y;          /* [channel][position of y] */
};
#define ADD_LINE(T)                                                                                                    \
    for (int64_t o = from; o < to; o++)                                                                                \
        ((T *)y)[at + o * w->stride[2]] += ((const T *)taps)[line + o];
static void add_channel(void *arg, int64_t channel, int worker)
{
    (void)worker;
    const struct col2im *g = arg;
    const struct k_window *w = &g->v->w;
    const int64_t n = k_window_taps(w), plane = k_plane_out(w);
    const int size = dtype_size(g->v->sum);
    char *y = (char *)g->y + channel * k_plane_in(w) * size;
    for (int64_t t = 0; t < n; t++) {
        const char *taps = (const char *)g->taps + (channel * n + t) * plane * size;
        int64_t k[K_AXES], from, to;
        k_tap_split(w, t, k);
        const int64_t start = k_tap_start(w, 2, k[2]);
        k_window_valid(start, w->stride[2], w->in[2], w->out[2], &from, &to);
        for (int64_t r = 0; r < w->out[0] * w->out[1]; r++) {
            const int64_t i0 = r / w->out[1] * w->stride[0] + k_tap_start(w, 0, k[0]);
            const int64_t i1 = r % w->out[1] * w->stride[1] + k_tap_start(w, 1, k[1]);
            if (i0 < 0 || i0 >= w->in[0] || i1 < 0 || i1 >= w->in[1])
                continue;
            const int64_t at = (i0 * w->in[1] + i1) * w->in[2] + start, line = r * w->out[2];
            if (size == 8) {
                ADD_LINE(double)
            } else {
                ADD_LINE(float)
            }
        }
    }
}

enum { TAP_ELEMENTS = 1 << 20 }; /* products kept at once, about 4 MB */
static enum npuc_status run(struct k_call *c, const struct transposed *v, void *y)
{
    const struct k_tensor *x = c->in[0], *weight = c->in[1];
    const int64_t k = x->dims[1] / v->group, m = v->outs / v->group, taps = k_window_taps(&v->w),
                  n = k_plane_out(&v->w);
    const int size = dtype_size(v->type), sum_size = dtype_size(v->sum);
    int64_t step = taps * n > 0 ? TAP_ELEMENTS / (taps * n) : m;
    step = step < 1 ? 1 : step > m ? m : step;
    void *products = k_scratch(c, step * taps * n, sum_size);
    if (!products)
        return k_no_memory(c);
    for (int64_t i = 0; i < x->dims[0] * v->group; i++)
        for (int64_t first = 0; first < m; first += step) {
            const int64_t channels = m - first < step ? m - first : step;
            const char *w = (const char *)weight->data + (i % v->group * k * m + first) * taps * size;
            k_matmul(&(struct k_matmul_args){.dtype = v->type,
                                             .m = channels * taps,
                                             .n = n,
                                             .k = k,
                                             .a = w,
                                             .a_row = 1,
                                             .a_col = m * taps,
                                             .b = (const char *)x->data + i * k * n * size,
                                             .b_row = n,
                                             .b_col = 1,
                                             .c = products,
                                             .c_row = n},
                     c->pool);
            struct col2im add = {v, products, (char *)y + (i * m + first) * k_plane_in(&v->w) * sum_size};
            pool_for(c->pool, channels, add_channel, &add);
        }
    return NPUC_OK;
}

enum npuc_status k_op_conv_transpose(struct k_call *c)
{
    struct transposed v;
    if (!k_has(c, 2, 1) || !transposed_of(c, &v))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0], *bias = k_in(c, 2);
    int64_t dims[K_MAX_RANK] = {x->dims[0], v.outs};
    for (int i = 0; i < v.w.n; i++)
        dims[2 + i] = v.w.in[K_AXES - v.w.n + i];
    void *y = k_out(c, 0, v.type, x->rank, dims);
    if (!y)
        return k_no_memory(c);
    const int64_t n = k_count(&c->out[0]), plane = k_plane_in(&v.w);
    const int size = dtype_size(v.sum);
    char *sums = v.sum == v.type ? y : k_scratch(c, n, size);
    void *b = bias ? k_scratch(c, v.outs, size) : NULL;
    if (!sums || (bias && !b))
        return k_no_memory(c);
    memset(sums, 0, (size_t)(n * size));
    if (n > 0)
        K_TRY(run(c, &v, sums));
    if (bias)
        k_cast(v.sum, b, v.type, bias->data, v.outs, true);
    for (int64_t i = 0; b && i < x->dims[0]; i++) {
        void *at = sums + i * v.outs * plane * size;
        const struct k_rows arg[3] = {{at, plane, 1}, {b, 1, 0}};
        k_vec(K_FN_Add, v.sum, v.outs, plane, at, plane, arg, NULL);
    }
    if (sums != y)
        k_cast(v.type, y, v.sum, sums, n, true);
    return NPUC_OK;
}
