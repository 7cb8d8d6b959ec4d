/* ConvTranspose: the convolution of x, its elements `strides` apart with zeros between, with the mirrored kernel.
 *
 * Definition: that of kernels/conv.h for this convolution, whose positions run through the kernel backwards; the zeros
 * between take part. Then the bias, then the type of the result. */
#include <string.h>

#include "kernels/conv.h"

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

/* The weight [channel][out of the group][position] as [out][position, backwards][channel of the group]. */
static void *mirrored(struct k_call *c, const struct transposed *v)
{
    const int64_t taps = k_window_taps(&v->w), in = c->in[0]->dims[1] / v->group, outs = v->outs / v->group;
    const int size = dtype_size(v->type);
    char *y = k_scratch(c, v->outs * taps * in, size);
    struct k_nd d = {.rank = 4, .n = 2, .dims = {v->group, outs, taps, in}};
    k_nd_dense(&d, 0);
    d.stride[1][0] = in * outs * taps;
    d.stride[1][1] = taps;
    d.stride[1][2] = -1;
    d.stride[1][3] = outs * taps;
    if (y && v->outs * in > 0)
        k_nd_copy(d, y, (const char *)c->in[1]->data + (taps - 1) * size, size);
    return y;
}

/* in[] and out[] change places, and the padding is what the mirrored kernel reaches beyond x. */
static struct k_window equivalent(const struct k_window *w)
{
    struct k_window e = *w;
    for (int i = 0; i < K_AXES; i++) {
        e.in[i] = w->out[i];
        e.out[i] = w->in[i];
        e.stride[i] = 1;
        e.before[i] = w->dilation[i] * (w->kernel[i] - 1) - w->before[i];
        e.after[i] = 0; /* follows from out[] */
    }
    return e;
}

enum npuc_status k_op_conv_transpose(struct k_call *c)
{
    struct transposed t;
    if (!k_has(c, 2, 1) || !transposed_of(c, &t))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    struct k_conv v = {.w = equivalent(&t.w),
                       .step = {t.w.stride[0], t.w.stride[1], t.w.stride[2]},
                       .batch = x->dims[0],
                       .channels = x->dims[1],
                       .outs = t.outs,
                       .group = t.group,
                       .type = t.type,
                       .sum = t.sum,
                       .x = x->data};
    int64_t dims[K_MAX_RANK];
    k_window_dims(&v.w, x, v.outs, dims);
    void *y = k_out(c, 0, v.type, x->rank, dims);
    v.weight = y ? mirrored(c, &t) : NULL;
    v.y = y && v.sum != v.type ? k_scratch(c, k_count(&c->out[0]), dtype_size(v.sum)) : y;
    if (!y || !v.y || !v.weight)
        return k_no_memory(c);
    K_TRY(k_conv_run(c, &v));
    return k_conv_finish(c, &v, k_in(c, 2), y);
}
