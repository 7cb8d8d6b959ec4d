/* DeformConv: a convolution whose windows are sampled at places shifted by `offset`, weighted by `mask`.
 *
 * The samples (linear between elements, zero outside) become columns k = (channel, tap), then acc = fma(weight, column,
 * acc) for k ascending from 0, and the bias is added. f64 in double, every other type in float, rounded once. */
#include <math.h>

#include "base/pool.h"
#include "kernels/carried.h"
#include "kernels/window.h"

struct deform {
    struct k_window w;
    int64_t channels, outs, groups, offset_groups, batch;
    const void *x, *weight, *offset, *mask, *bias;
    void *columns, *y;
};

static float fused_f32(float a, float b, float c)
{
    return fmaf(a, b, c);
}
static double fused_f64(double a, double b, double c)
{
    return fma(a, b, c);
}

#define REAL    float
#define NAME(x) x##_f32
#include "kernels/deform.inc"
#undef REAL
#undef NAME
#define REAL    double
#define NAME(x) x##_f64
#include "kernels/deform.inc"
#undef REAL
#undef NAME

/* Does t have the shape [N, channels, windows ...]? */
static bool is_map(const struct deform *d, const struct k_tensor *x, const struct k_tensor *t, int64_t channels)
{
    bool fits = t->rank == x->rank && t->dims[0] == x->dims[0] && t->dims[1] == channels;
    for (int i = 0; fits && i < d->w.n; i++)
        fits = t->dims[i + 2] == d->w.out[K_AXES - d->w.n + i];
    return fits;
}

static enum npuc_status deform_of(struct k_call *c, struct deform *d)
{
    if (!k_has(c, 3, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0], *weight = c->in[1], *offset = c->in[2], *bias = k_in(c, 3), *mask = k_in(c, 4);
    *d = (struct deform){.groups = k_attr_int(c, "group", 1), .offset_groups = k_attr_int(c, "offset_group", 1)};
    if (!dtype_is_float(x->dtype) || x->rank < 3 || weight->rank != x->rank || d->groups < 1 || d->offset_groups < 1 ||
        x->dims[1] % d->groups || x->dims[1] % d->offset_groups || weight->dims[0] % d->groups ||
        weight->dims[1] != x->dims[1] / d->groups)
        return k_fail(c, NPUC_E_INVALID, "ranks, channels and groups of input and weight do not fit each other");
    if (!k_window_of(c, x, weight->dims + 2, &d->w))
        return NPUC_E_INVALID;
    d->channels = x->dims[1];
    d->outs = weight->dims[0];
    const int64_t taps = k_window_taps(&d->w) * d->offset_groups;
    if (!is_map(d, x, offset, taps * d->w.n) || (mask && !is_map(d, x, mask, taps)) ||
        (bias && k_count(bias) != d->outs))
        return k_fail(c, NPUC_E_INVALID, "offset, mask or bias does not fit the windows of the input");
    return NPUC_OK;
}

enum npuc_status k_op_deform_conv(struct k_call *c)
{
    struct deform d;
    int64_t dims[K_MAX_RANK];
    K_TRY(deform_of(c, &d));
    const struct k_tensor *x = c->in[0];
    const enum dtype carrier = x->dtype == DT_F64 ? DT_F64 : DT_F32;
    k_window_dims(&d.w, x, d.outs, dims);
    const void *in[5] = {NULL};
    for (int i = 0; i < 5; i++)
        if (k_in(c, i) && !(in[i] = k_carried(c, c->in[i], carrier)))
            return k_no_memory(c);
    d.x = in[0], d.weight = in[1], d.offset = in[2], d.bias = in[3], d.mask = in[4];
    const bool shaped = k_out(c, 0, x->dtype, x->rank, dims) != NULL;
    d.y = shaped ? k_carried_out(c, carrier) : NULL;
    d.columns = k_scratch(c, k_plane_out(&d.w), d.channels * k_window_taps(&d.w) * dtype_size(carrier));
    if (!d.y || !d.columns)
        return k_no_memory(c);
    for (d.batch = 0; k_count(&c->out[0]) > 0 && d.batch < x->dims[0]; d.batch++) {
        pool_for(c->pool, d.channels, carrier == DT_F64 ? columns_f64 : columns_f32, &d);
        pool_for(c->pool, d.outs, carrier == DT_F64 ? product_f64 : product_f32, &d);
    }
    k_carried_done(c, carrier, d.y);
    return NPUC_OK;
}
