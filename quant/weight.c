#include "quant/weight.h"

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "base/size.h"
#include "quant/statistics.h"

#define WEIGHT(nm, ...) static quant_weight_fn quant_weight_##nm;
#include "quant/weights.def"
#undef WEIGHT

static const struct quant_weight_row rows[] = {
#define WEIGHT(nm, nd, wh) {#nm, nd, wh, quant_weight_##nm},
#include "quant/weights.def"
#undef WEIGHT
};

const struct quant_weight_row *quant_weight_find(const char *name)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(rows); i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    return NULL;
}

/* ---- one number */

static int least_code(enum dtype t)
{
    return dtype_table[t].cls == DTC_INT ? -(1 << (dtype_table[t].bits - 1)) : 0;
}

static int greatest_code(enum dtype t)
{
    return least_code(t) + (1 << dtype_table[t].bits) - 1;
}

double quant_most(enum dtype codes)
{
    return dtype_is_float(codes)
               ? -(double)half_small_to_f32(codes, half_f32_to_small(codes, -INFINITY, true))
               : greatest_code(codes) - (dtype_table[codes].cls == DTC_UINT ? greatest_code(codes) / 2 : 0);
}

static float in_type(enum dtype t, double v)
{
    if (t == DT_F16)
        return half_f16_to_f32(half_f32_to_f16((float)v));
    return t == DT_BF16 ? half_bf16_to_f32(half_f32_to_bf16((float)v)) : (float)v;
}

/* A scale of 0 or below the least normal number of its type would lose what it scales: such parts are all zeros. */
static float usable(enum dtype t, double v)
{
    const float s = in_type(t, v);
    return s >= (t == DT_F16 ? 6.103515625e-05f : 1.17549435e-38f) ? s : 1.0f;
}

struct quant_scale quant_cover(const struct quant_operand *o, enum dtype scale_type, double lo, double hi)
{
    lo = fmin(lo, 0);
    hi = fmax(hi, 0);
    if (dtype_is_float(o->codes) || !o->shifted) {
        const int zero = dtype_table[o->codes].cls == DTC_UINT ? (greatest_code(o->codes) + 1) / 2 : 0;
        return (struct quant_scale){usable(scale_type, fmax(-lo, hi) / quant_most(o->codes)), zero};
    }
    const int least = least_code(o->codes), greatest = greatest_code(o->codes);
    const float s = usable(scale_type, (hi - lo) / (greatest - least));
    const double zero = nearbyint(least - lo / (double)s);
    return (struct quant_scale){s, (int)fmin(fmax(zero, least), greatest)};
}

int quant_code(const struct quant_operand *o, struct quant_scale s, float x)
{
    if (dtype_is_float(o->codes))
        return half_f32_to_small(o->codes, x / s.scale, true);
    const double q = nearbyint((double)(x / s.scale)) + s.zero;
    return (int)fmin(fmax(q, least_code(o->codes)), greatest_code(o->codes));
}

float quant_decode(const struct quant_operand *o, struct quant_scale s, int code)
{
    if (dtype_is_float(o->codes))
        return half_small_to_f32(o->codes, (uint8_t)code) * s.scale;
    return (float)(code - s.zero) * s.scale;
}

/* ---- a weight */

/* The part of channel c (all channels for one scale per tensor) under scale g. */
static struct quant_span span_of(const struct quant_operand *o, const struct quant_matrix *w, int64_t c, int64_t g)
{
    if (o->per == QUANT_PER_TENSOR)
        return (struct quant_span){w->data, w->channels, w->k, w->k};
    const int64_t first = o->per == QUANT_PER_GROUP ? g * o->group : 0;
    const int64_t len = o->per == QUANT_PER_GROUP && o->group < w->k - first ? o->group : w->k - first;
    return (struct quant_span){w->data + c * w->k + first, 1, len, w->k};
}

static const char *quant_weight_minmax(const struct quant_operand *o, const struct quant_matrix *w,
                                       struct quant_codes *out, struct arena *a)
{
    (void)a;
    const int64_t n = o->per == QUANT_PER_TENSOR ? 1 : w->channels;
    for (int64_t c = 0; c < n; c++)
        for (int64_t g = 0; g < out->groups; g++) {
            const struct quant_span p = span_of(o, w, c, g);
            double lo = 0, hi = 0;
            for (int64_t r = 0; r < p.rows; r++)
                for (int64_t i = 0; i < p.cols; i++) {
                    lo = fmin(lo, p.data[r * p.stride + i]);
                    hi = fmax(hi, p.data[r * p.stride + i]);
                }
            const struct quant_scale s = quant_cover(o, w->scale_type, lo, hi);
            out->scales[c * out->groups + g] = s.scale;
            if (out->zeros)
                out->zeros[c * out->groups + g] = (int16_t)s.zero;
            int16_t *to = out->codes + (p.data - w->data);
            for (int64_t r = 0; r < p.rows; r++)
                for (int64_t i = 0; i < p.cols; i++)
                    to[r * p.stride + i] = (int16_t)quant_code(o, s, p.data[r * p.stride + i]);
        }
    return NULL;
}

const char *quant_encode_weight(const struct quant_operand *o, const struct quant_matrix *w, struct quant_codes *out,
                                struct arena *a)
{
    const struct quant_weight_row *row = quant_weight_find(o->by ? o->by : "minmax");
    int64_t count;
    if (!row)
        return "there is no such algorithm for weights";
    if (row->needs && !w->seen)
        return "its algorithm for weights needs calibration data: its codes come from npuc quantize, with `data`";
    if (w->channels < 1 || w->k < 1 || !size_mul(w->channels, w->k, &count))
        return "the weight is empty";
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(w->data[i]))
            return "the weight holds infinities or NaN, which codes cannot stand for";
    const int64_t scales = o->per == QUANT_PER_TENSOR ? 1 : w->channels;
    *out = (struct quant_codes){.groups = o->per == QUANT_PER_GROUP ? size_ceil_div(w->k, o->group) : 1};
    out->codes = ARENA_ARRAY(a, int16_t, count);
    out->scales = ARENA_ARRAY(a, float, scales * out->groups);
    if (o->shifted || dtype_table[o->codes].cls == DTC_UINT)
        out->zeros = ARENA_ARRAY(a, int16_t, scales * out->groups);
    return row->run(o, w, out, a);
}
