/* Conv, ConvInteger and QLinearConv. The order of accumulation is that of kernels/conv.h; the bias is added after the
 * sum, which is then rounded to the type of the result. */
#include <math.h>
#include <string.h>

#include "base/pool.h"
#include "base/size.h"
#include "kernels/conv.h"

/* Positions of x and the weight among the inputs, of their zero points, and of the bias; NOT_AN_INPUT is always absent.
 */
enum { NOT_AN_INPUT = 16 };
struct inputs {
    int x, weight, x_zero, w_zero, bias;
};

static bool conv_of(struct k_call *c, const struct inputs *at, struct k_conv *v)
{
    const struct k_tensor *x = k_in(c, at->x), *weight = k_in(c, at->weight), *bias = k_in(c, at->bias);
    *v = (struct k_conv){.step = {1, 1, 1}, .group = k_attr_int(c, "group", 1)};
    if (x->rank < 3 || weight->rank != x->rank || v->group < 1 || weight->dims[0] % v->group || x->dims[1] % v->group ||
        weight->dims[1] != x->dims[1] / v->group) {
        k_fail(c, NPUC_E_INVALID, "ranks, channels and group of input and weight do not fit each other");
        return false;
    }
    v->batch = x->dims[0];
    v->channels = x->dims[1];
    v->outs = weight->dims[0];
    if (bias && k_count(bias) != v->outs) {
        k_fail(c, NPUC_E_INVALID, "the bias has %lld elements, expected %lld", (long long)k_count(bias),
               (long long)v->outs);
        return false;
    }
    return k_window_of(c, x, weight->dims + 2, &v->w);
}

/* The weight [out][channel][position] as [out][position][channel]; itself where that is the same. */
static const void *by_position(struct k_call *c, const struct k_conv *v, const void *weight)
{
    const int64_t taps = k_window_taps(&v->w), in = v->channels / v->group;
    const int size = dtype_size(v->type);
    if (taps == 1 || in == 1 || !weight)
        return weight;
    char *y = k_scratch(c, v->outs * taps * in, size);
    struct k_nd d = {.rank = 3, .n = 2, .dims = {v->outs, taps, in}};
    k_nd_dense(&d, 0);
    d.stride[1][0] = taps * in;
    d.stride[1][1] = 1;
    d.stride[1][2] = taps;
    if (y && v->outs > 0)
        k_nd_copy(d, y, weight, size);
    return y;
}

/* --- the operators --- */

enum npuc_status k_op_conv(struct k_call *c)
{
    const struct inputs at = {0, 1, NOT_AN_INPUT, NOT_AN_INPUT, 2};
    struct k_conv v;
    int64_t dims[K_MAX_RANK];
    if (!k_has(c, 2, 1) || !conv_of(c, &at, &v))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0], *bias = k_in(c, 2);
    v.type = x->dtype;
    v.sum = v.type == DT_F64 ? DT_F64 : DT_F32;
    if (!dtype_is_float(v.type) || dtype_size(v.type) < 2 || c->in[1]->dtype != v.type ||
        (bias && bias->dtype != v.type))
        return k_fail(c, NPUC_E_UNSUPPORTED, "types %s and %s", dtype_table[v.type].name,
                      dtype_table[c->in[1]->dtype].name);
    k_window_dims(&v.w, x, v.outs, dims);
    void *y = k_out(c, 0, v.type, x->rank, dims);
    v.x = x->data;
    v.weight = by_position(c, &v, c->in[1]->data);
    v.y = y && v.sum != v.type ? k_scratch(c, k_count(&c->out[0]), dtype_size(v.sum)) : y;
    if (!y || !v.y || (!v.weight && k_count(c->in[1]) > 0))
        return k_no_memory(c);
    K_TRY(k_conv_run(c, &v));
    return k_conv_finish(c, &v, bias, y);
}

/* Input i less its zero point: one, or one per entry of axis 0. */
static int32_t *centred(struct k_call *c, int i, int zero)
{
    const struct k_tensor *x = k_in(c, i), *z = k_in(c, zero);
    const int64_t n = k_count(x), zeros = z ? k_count(z) : 1;
    if ((x->dtype != DT_I8 && x->dtype != DT_U8 && x->dtype != DT_I16) || (z && z->dtype != x->dtype) ||
        (zeros != 1 && (x->rank < 1 || zeros != x->dims[0]))) {
        k_fail(c, NPUC_E_INVALID, "input %d must have 8-bit integers or i16 and a zero point of its type and axis 0",
               i);
        return NULL;
    }
    int32_t *y = k_scratch(c, n, sizeof *y);
    if (!y)
        return NULL;
    k_cast(DT_I32, y, x->dtype, x->data, n, true);
    const int64_t per_zero = zeros > 0 ? n / zeros : 0;
    for (int64_t g = 0; z && g < zeros; g++) {
        const int32_t zero_point = (int32_t)k_get_i64(z, g);
        for (int64_t k = 0; k < per_zero; k++)
            y[g * per_zero + k] -= zero_point;
    }
    return y;
}
/* The sums of an integer convolution, in y or in fresh memory when y is NULL. */
static enum npuc_status integer_sums(struct k_call *c, const struct inputs *at, struct k_conv *v, int32_t *y)
{
    v->type = v->sum = DT_I32;
    v->x = centred(c, at->x, at->x_zero);
    v->weight = by_position(c, v, centred(c, at->weight, at->w_zero));
    v->y = y ? y : k_scratch(c, v->batch * v->outs * k_plane_out(&v->w), sizeof *y);
    return v->x && v->weight && v->y ? k_conv_run(c, v) : k_no_memory(c);
}

enum npuc_status k_op_conv_integer(struct k_call *c)
{
    const struct inputs at = {0, 1, 2, 3, NOT_AN_INPUT};
    struct k_conv v;
    int64_t dims[K_MAX_RANK];
    if (!k_has(c, 2, 1) || !conv_of(c, &at, &v))
        return NPUC_E_INVALID;
    k_window_dims(&v.w, c->in[0], v.outs, dims);
    int32_t *y = k_out(c, 0, DT_I32, c->in[0]->rank, dims);
    return y ? integer_sums(c, &at, &v, y) : k_no_memory(c);
}

/* y = saturate(rint(sum * (x_scale * w_scale[m] / y_scale)) + y_zero), the factor and the product rounded to f32. */
enum npuc_status k_op_qlinear_conv(struct k_call *c)
{
    const struct inputs at = {0, 3, 2, 5, 8};
    struct k_conv v;
    int64_t dims[K_MAX_RANK];
    if (!k_has(c, 8, 1) || !conv_of(c, &at, &v))
        return NPUC_E_INVALID;
    const struct k_tensor *w_scale = c->in[4], *zero = c->in[7], *bias = k_in(c, 8);
    const int64_t scales = k_count(w_scale), plane = k_plane_out(&v.w);
    if ((scales != 1 && scales != v.outs) || k_count(c->in[1]) != 1 || k_count(c->in[6]) != 1 || k_count(zero) != 1 ||
        (zero->dtype != DT_I8 && zero->dtype != DT_U8) || (bias && bias->dtype != DT_I32))
        return k_fail(c, NPUC_E_INVALID, "scales, zero points or the bias do not fit the weight");
    k_window_dims(&v.w, c->in[0], v.outs, dims);
    void *y = k_out(c, 0, zero->dtype, c->in[0]->rank, dims);
    if (!y)
        return k_no_memory(c);
    K_TRY(integer_sums(c, &at, &v, NULL));
    struct k_requant q = {.type = zero->dtype, .zero = (int32_t)k_get_i64(zero, 0)};
    const float x_scale = (float)k_get_f64(c->in[1], 0), y_scale = (float)k_get_f64(c->in[6], 0);
    for (int64_t i = 0; i < v.batch * v.outs; i++) {
        const int64_t m = i % v.outs;
        int32_t *sums = (int32_t *)v.y + i * plane;
        const uint32_t add = bias ? ((const uint32_t *)bias->data)[m] : 0;
        for (int64_t k = 0; k < plane; k++)
            sums[k] = (int32_t)((uint32_t)sums[k] + add);
        q.scale = x_scale * (float)k_get_f64(w_scale, scales == 1 ? 0 : m) / y_scale;
        k_requant(&q, y, i * plane, sums, plane);
    }
    return NPUC_OK;
}
