/* QuantizeLinear, DequantizeLinear (per tensor, per axis, blocked), DynamicQuantizeLinear, GatherBlockQuantized. */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "kernels/mac.h"
#include "kernels/op.h"

/* Which scale belongs to element i of x. */
struct scales {
    int64_t n;          /* of scales */
    int64_t inner, dim; /* elements below the axis; length of the axis */
    int64_t block;      /* elements of the axis that share a scale */
    int64_t per_axis;   /* scales along the axis */
    bool blocked;
};
static bool scales_of(struct k_call *c, struct scales *s, const struct k_tensor *x, const struct k_tensor *scale)
{
    const int64_t block = k_attr_int(c, "block_size", 0);
    int axis = 0;
    *s = (struct scales){.n = k_count(scale), .blocked = block > 0};
    if (s->n == 1)
        return true;
    if (!k_axis(c, k_attr_int(c, "axis", 1), x->rank, &axis))
        return false;
    s->inner = k_stride(x, axis);
    s->dim = x->dims[axis];
    s->block = block > 0 ? block : 1;
    s->per_axis = size_ceil_div(s->dim, s->block);
    const int64_t expected = block > 0 ? k_dims_count(axis, x->dims) * s->per_axis * s->inner : s->dim;
    if (s->n != expected) {
        k_fail(c, NPUC_E_INVALID, "%lld scales, expected %lld", (long long)s->n, (long long)expected);
        return false;
    }
    return true;
}
static int64_t scale_at(const struct scales *s, int64_t i)
{
    if (s->n == 1)
        return 0;
    const int64_t on_axis = i / s->inner % s->dim;
    if (!s->blocked)
        return on_axis;
    return (i / s->inner / s->dim * s->per_axis + on_axis / s->block) * s->inner + i % s->inner;
}

static double round_as(double v, enum dtype t)
{
    int64_t store = 0;
    struct k_tensor one = {.dtype = t, .data = &store};
    k_set_f64(&one, 0, v);
    return k_get_f64(&one, 0);
}
static int64_t clamp_to(enum dtype t, double v)
{
    const int bits = dtype_table[t].bits;
    const bool is_signed = dtype_table[t].cls == DTC_INT;
    const double lo = is_signed ? -ldexp(1, bits - 1) : 0, hi = ldexp(1, bits - is_signed) - 1;
    return (int64_t)(v < lo ? lo : v > hi ? hi : v);
}

enum npuc_status k_op_quantize_linear(struct k_call *c)
{
    struct scales s;
    if (!k_has(c, 2, 1) || !scales_of(c, &s, c->in[0], c->in[1]))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0], *scale = c->in[1], *zp = k_in(c, 2);
    const int64_t out = k_attr_int(c, "output_dtype", 0), precision = k_attr_int(c, "precision", 0);
    const enum dtype t = zp ? zp->dtype : out ? dtype_from_onnx(out) : DT_U8;
    const enum dtype work = precision ? dtype_from_onnx(precision) : scale->dtype == DT_F64 ? DT_F64 : DT_F32;
    const bool saturate = k_attr_int(c, "saturate", 1);
    if (zp && k_count(zp) != s.n)
        return k_fail(c, NPUC_E_INVALID, "scales and zero points differ in number");
    void *y = k_out(c, 0, t, x->rank, x->dims);
    if (!y)
        return k_no_memory(c);
    memset(y, 0, (size_t)c->out[0].size);
    for (int64_t i = 0; i < k_count(x); i++) {
        const int64_t at = scale_at(&s, i);
        double v = round_as(k_get_f64(x, i), work) / round_as(k_get_f64(scale, at), work);
        v = round_as(v, work);
        if (dtype_is_float(t)) {
            const double sum = v + (zp ? k_get_f64(zp, at) : 0);
            const float f = (float)sum;
            k_narrow(t, y, i, t == DT_F64 ? (const void *)&sum : &f, 1, saturate);
        } else {
            const int64_t q = clamp_to(t, rint(v) + (zp ? (double)k_get_i64(zp, at) : 0));
            k_narrow(t, y, i, &q, 1, true);
        }
    }
    return NPUC_OK;
}

enum npuc_status k_op_dequantize_linear(struct k_call *c)
{
    struct scales s;
    if (!k_has(c, 2, 1) || !scales_of(c, &s, c->in[0], c->in[1]))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0], *scale = c->in[1], *zp = k_in(c, 2);
    const int64_t out = k_attr_int(c, "output_dtype", 0), n = k_count(x);
    const enum dtype t = out ? dtype_from_onnx(out) : scale->dtype;
    if (zp && k_count(zp) != s.n)
        return k_fail(c, NPUC_E_INVALID, "scales and zero points differ in number");
    const float *sf = k_floats(c, scale);
    float *v = k_scratch(c, n, sizeof *v), *zf = zp ? k_scratch(c, s.n, sizeof *zf) : NULL;
    if (!sf || !v || (zp && !zf))
        return k_no_memory(c);
    k_load_f32(v, x->dtype, x->data, 0, n);
    if (zp)
        k_load_f32(zf, zp->dtype, zp->data, 0, s.n);
    for (int64_t i = 0; i < n; i++) {
        const int64_t at = scale_at(&s, i);
        const double d = (double)v[i] - (zf ? (double)zf[at] : 0); /* exact for up to 31 bits */
        v[i] = (float)d * sf[at];
    }
    return k_out_floats(c, 0, t, x, v);
}

enum npuc_status k_op_dynamic_quantize_linear(struct k_call *c)
{
    if (!k_has(c, 1, 3))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    const float *v = k_floats(c, x);
    uint8_t *y = k_out(c, 0, DT_U8, x->rank, x->dims), *zp = k_out(c, 2, DT_U8, 0, NULL);
    float *scale = k_out(c, 1, DT_F32, 0, NULL);
    if (!v || !y || !scale || !zp)
        return k_no_memory(c);
    float lo = 0, hi = 0;
    const int64_t n = k_count(x);
    for (int64_t i = 0; i < n; i++) {
        lo = v[i] < lo ? v[i] : lo;
        hi = v[i] > hi ? v[i] : hi;
    }
    *scale = (hi - lo) / 255.0f;
    const float zero = *scale == 0 ? 0 : rintf(-lo / *scale);
    *zp = (uint8_t)clamp_to(DT_U8, (double)zero);
    for (int64_t i = 0; i < n; i++)
        y[i] = *scale == 0 ? *zp : (uint8_t)clamp_to(DT_U8, (double)rintf(v[i] / *scale) + *zp);
    return NPUC_OK;
}

/* --- com.microsoft GatherBlockQuantized --- */

struct table {
    const struct k_tensor *data, *scale, *zero;
    int64_t rows, cols; /* values: the gather axis is 0, the quantised one the last */
    int64_t block, blocks;
    int bits; /* of packed uint8 codes, else 0 */
};
static float table_zero(const struct table *t, int64_t row, int64_t block)
{
    if (!t->zero)
        return t->bits ? (float)(1 << (t->bits - 1)) : 0;
    if (!t->bits || t->bits == 8)
        return (float)k_get_f64(t->zero, row * t->blocks + block);
    const int64_t row_bytes = size_ceil_div(t->blocks * t->bits, 8), bit = block * t->bits;
    return (float)(((const uint8_t *)t->zero->data)[row * row_bytes + bit / 8] >> (bit % 8) & ((1 << t->bits) - 1));
}
static void table_row(const struct table *t, float *y, int64_t row)
{
    for (int64_t b = 0; b < t->blocks; b++) {
        const int64_t at = b * t->block, left = t->cols - at, len = left < t->block ? left : t->block;
        const float scale = (float)k_get_f64(t->scale, row * t->blocks + b), zero = table_zero(t, row, b);
        if (t->bits) {
            const uint8_t *codes = (const uint8_t *)t->data->data + row * (t->cols * t->bits / 8);
            k_dequant_block(y + at, codes, at, len, k_code_of_bits(t->bits), scale, zero);
            continue;
        }
        k_load_f32(y + at, t->data->dtype, t->data->data, row * t->cols + at, len);
        for (int64_t i = at; i < at + len; i++)
            y[i] = (y[i] - zero) * scale;
    }
}
enum npuc_status k_op_gather_block_quantized(struct k_call *c)
{
    int64_t n, dims[K_MAX_RANK];
    if (!k_has(c, 3, 1))
        return NPUC_E_INVALID;
    struct table t = {
        .data = c->in[0], .scale = c->in[2], .zero = k_in(c, 3), .block = k_attr_int(c, "block_size", 128)};
    const int64_t last = t.data->rank - 1, axis = k_attr_int(c, "quantize_axis", 1);
    const struct k_tensor *at = c->in[1];
    const int64_t *index = k_whole(c, 1, &n);
    if (!index)
        return k_no_memory(c);
    if (t.data->rank < 2 || k_attr_int(c, "gather_axis", 0) != 0 || (axis != last && axis != -1) ||
        at->rank + last > K_MAX_RANK)
        return k_fail(c, NPUC_E_UNSUPPORTED, "only gathering on axis 0 and quantisation on the last axis is known");
    t.bits = t.data->dtype == DT_U8 ? (int)k_attr_int(c, "bits", 4) : 0;
    const int64_t last_dim = t.bits ? t.data->dims[last] * 8 / t.bits : t.data->dims[last];
    t.rows = t.data->dims[0];
    t.block = t.block ? t.block : last_dim;
    if (t.block <= 0 || last_dim % t.block != 0 || (t.bits && t.bits != 2 && t.bits != 4 && t.bits != 8))
        return k_fail(c, NPUC_E_UNSUPPORTED, "bits or block_size are outside of what is known");
    t.cols = k_dims_count((int)last - 1, t.data->dims + 1) * last_dim;
    t.blocks = t.cols / t.block;
    if (k_count(t.scale) != t.rows * t.blocks)
        return k_fail(c, NPUC_E_INVALID, "%lld scales, expected %lld", (long long)k_count(t.scale),
                      (long long)(t.rows * t.blocks));
    memcpy(dims, at->dims, (size_t)at->rank * sizeof *dims);
    memcpy(dims + at->rank, t.data->dims + 1, (size_t)last * sizeof *dims);
    struct k_tensor shape = {.rank = at->rank + (int)last};
    dims[shape.rank - 1] = last_dim;
    memcpy(shape.dims, dims, sizeof dims);
    float *y = k_scratch(c, n * t.cols, sizeof *y);
    if (!y)
        return k_no_memory(c);
    for (int64_t i = 0; i < n; i++) { /* rows outside of the table read as zeros */
        const int64_t row = index[i] < 0 ? index[i] + t.rows : index[i];
        if (row >= 0 && row < t.rows)
            table_row(&t, y + i * t.cols, row);
    }
    return k_out_floats(c, 0, t.scale->dtype, &shape, y);
}
