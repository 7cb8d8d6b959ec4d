#include "quant/weight.h"

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "base/size.h"
#include "base/pool.h"
#include "quant/awq.h"
#include "quant/encode.h"
#include "quant/rows.h"
#include "quant/statistics.h"

enum { WORTH_THREADS = 1 << 16 }; /* elements of a weight that are worth starting threads */

static const struct quant_weight_row rows[] = {
#define WEIGHT(nm, nd, fit, choose, wh) {#nm, nd, wh, fit, choose},
#include "quant/weights.def"
#undef WEIGHT
};

const struct quant_weight_row *quant_weights(int64_t *n)
{
    *n = NPUC_ARRAY_LEN(rows);
    return rows;
}

const struct quant_weight_row *quant_weight_find(const char *name)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(rows); i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    return NULL;
}

const char *quant_weight_default(enum dtype codes, bool coded_input, bool with_data)
{
    const bool wide = dtype_table[codes].bits > 6;
    if (wide && dtype_is_integer(codes) && (coded_input || !with_data))
        return "minmax";
    return !with_data ? "mse" : wide ? "gptq" : "descent";
}

bool quant_weight_is_quick(const char *by)
{
    const struct quant_weight_row *row = quant_weight_find(by ? by : "minmax");
    return !row || (row->fit == quant_fit_minmax && !row->choose);
}

/* ---- one number */

int quant_least_code(enum dtype t)
{
    return dtype_table[t].cls == DTC_INT ? -(1 << (dtype_table[t].bits - 1)) : 0;
}

int quant_greatest_code(enum dtype t)
{
    return quant_least_code(t) + (1 << dtype_table[t].bits) - 1;
}

double quant_most(enum dtype codes)
{
    static const double most[DT_COUNT] = {
#define FORMAT(nm, dt, top, ...) [DT_##dt] = (top),
#include "quant/formats.def"
#undef FORMAT
    };
    return most[codes];
}

/* Whole scales of groups: codes of 4 bits by them, in a channel of at most MOST_SIZE, are bytes. */
enum { MOST_SCALE = 16, MOST_SIZE = 119, MOST_BYTE = 127 };

static float in_type(enum dtype t, double v)
{
    if (t == DT_U8)
        return v > 0 ? (float)fmin(fmax(nearbyint(v), 1), MOST_SCALE) : 0;
    if (t == DT_F16)
        return half_f16_to_f32(half_f32_to_f16((float)v));
    if (dtype_is_float(t) && dtype_size(t) == 1)
        return half_small_to_f32(t, half_f32_to_small(t, (float)v, true));
    return t == DT_BF16 ? half_bf16_to_f32(half_f32_to_bf16((float)v)) : (float)v;
}

/* The least number that is a scale: below the least normal number of a type with few exponents precision is lost. */
static float least_scale(enum dtype t)
{
    return t == DT_F16 ? 6.103515625e-05f : t == DT_F8E4M3FN ? 0x1p-9f : t == DT_F8E8M0 ? 0x1p-120f : 1.17549435e-38f;
}

/* A scale of 0 or too small a one would lose what it scales: such parts are all zeros. */
float quant_usable_scale(enum dtype t, double v)
{
    const float s = in_type(t, v);
    return s >= least_scale(t) ? s : 1.0f;
}

/* Powers of two: by OCP MX floor(log2(size)) - floor(log2(largest code)), so that some elements may exceed it; with
 * `ceil` the least one that exceeds none. */
static struct quant_scale cover_by_power(const struct quant_operand *o, double size)
{
    const double most = quant_most(o->codes);
    int e, top;
    if (o->ceil) {
        const double rest = frexp(size / most, &e);
        e -= rest == 0.5;
    } else {
        (void)frexp(size, &e);
        (void)frexp(most, &top);
        e -= top;
    }
    return (struct quant_scale){quant_usable_scale(DT_F8E8M0, size > 0 ? ldexp(1, e) : 0), 0};
}

static double rounded(const struct quant_operand *o, double v)
{
    return o->away ? round(v) : nearbyint(v);
}

static double symmetric_scale(const struct quant_operand *o, double lo, double hi)
{
    const double most = quant_most(o->codes);
    const bool full = o->divisor == QUANT_DIVISOR_FULL || (o->divisor == QUANT_DIVISOR_SIDE && -lo > hi);
    return fmax(-lo, hi) / (full ? most + 1 : most);
}

struct quant_scale quant_cover(const struct quant_operand *o, enum dtype scale_type, double lo, double hi)
{
    lo = fmin(lo, 0);
    hi = fmax(hi, 0);
    if (scale_type == DT_F8E8M0)
        return cover_by_power(o, fmax(-lo, hi));
    if (dtype_is_float(o->codes) || !o->shifted) {
        const int zero = dtype_table[o->codes].cls == DTC_UINT ? (quant_greatest_code(o->codes) + 1) / 2 : 0;
        return (struct quant_scale){quant_usable_scale(scale_type, symmetric_scale(o, lo, hi)), zero};
    }
    const int least = quant_least_code(o->codes), greatest = quant_greatest_code(o->codes);
    const float s = quant_usable_scale(scale_type, (hi - lo) / (greatest - least));
    const double zero = rounded(o, least - lo / (double)s);
    return (struct quant_scale){s, (int)fmin(fmax(zero, least), greatest)};
}

int quant_code(const struct quant_operand *o, struct quant_scale s, float x)
{
    if (dtype_is_float(o->codes))
        return half_f32_to_small(o->codes, x / s.scale, true);
    const double q = rounded(o, (double)(x / s.scale)) + s.zero;
    return (int)fmin(fmax(q, quant_least_code(o->codes) + (o->narrow ? 1 : 0)), quant_greatest_code(o->codes));
}

/* Adding and taking away 1.5 * 2^23 rounds to the nearest whole number, halves to even; the range is cut before, which
 * its whole ends allow, so that this is exact. */
void quant_codes_of(const struct quant_operand *o, struct quant_scale s, const float *x, int64_t n, int16_t *to)
{
    const float big = 12582912.0f;
    const float least = (float)(quant_least_code(o->codes) + (o->narrow ? 1 : 0) - s.zero);
    const float greatest = (float)(quant_greatest_code(o->codes) - s.zero);
    if (dtype_is_float(o->codes) || o->away) {
        for (int64_t i = 0; i < n; i++)
            to[i] = (int16_t)quant_code(o, s, x[i]);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        const float v = x[i] / s.scale, low = v < least ? least : v, cut = low > greatest ? greatest : low;
        to[i] = (int16_t)((int)((cut + big) - big) + s.zero);
    }
}

float quant_decode(const struct quant_operand *o, struct quant_scale s, int code)
{
    if (dtype_is_float(o->codes))
        return half_small_to_f32(o->codes, (uint8_t)code) * s.scale;
    return (float)(code - s.zero) * s.scale;
}

/* ---- a weight */

/* Scales of few exponents are multiples of a number of the tensor, such that the largest one is in reach: a power of
 * two, by which the weight is divided and its scales are multiplied without rounding. */
static double unit_of_tensor(const struct quant_operand *o, const struct quant_matrix *w)
{
    double size = 0;
    int e;
    for (int64_t i = 0; i < w->channels * w->k; i++)
        size = fmax(size, fabs((double)w->data[i]));
    const double rest = frexp(size / (quant_most(o->codes) * 448), &e);
    return size > 0 ? ldexp(1, rest == 0.5 ? e - 1 : e) : 1;
}

/* Whole scales are multiples of a number of the channel, of 11 bits: f16 holds it, and products with it are exact. */
static double unit_of_channel(const struct quant_matrix *w, int64_t c)
{
    double size = 0;
    int e;
    for (int64_t i = 0; i < w->k; i++)
        size = fmax(size, fabs((double)w->data[c * w->k + i]));
    const double part = frexp(size / MOST_SIZE, &e);
    return size > 0 ? ldexp(ceil(ldexp(part, 11)), e - 11) : 1;
}

/* What scales of each channel are multiples of; NULL: of 1. */
static double *units_of(const struct quant_operand *o, const struct quant_matrix *w, struct arena *a)
{
    if (w->scale_type != DT_F8E4M3FN && w->scale_type != DT_U8)
        return NULL;
    double *units = ARENA_ARRAY(a, double, w->channels);
    const double one = w->scale_type == DT_U8 ? 0 : unit_of_tensor(o, w);
    for (int64_t c = 0; c < w->channels; c++)
        units[c] = w->scale_type == DT_U8 ? unit_of_channel(w, c) : one;
    return units;
}

static const float *divided(const struct quant_matrix *w, const double *units, struct arena *a)
{
    if (!units)
        return w->data;
    float *to = ARENA_ARRAY(a, float, w->channels * w->k);
    for (int64_t c = 0; c < w->channels; c++)
        for (int64_t i = 0; i < w->k; i++)
            to[c * w->k + i] = (float)((double)w->data[c * w->k + i] / units[c]);
    return to;
}

/* A code whose product with its whole scale is no byte moves towards zero until it is. */
static void keep_bytes(const struct quant_operand *o, const struct quant_matrix *w, struct quant_codes *out)
{
    for (int64_t c = 0; c < w->channels; c++)
        for (int64_t i = 0; i < w->k; i++) {
            const int64_t at = c * out->groups + i / o->group;
            const int zero = out->zeros ? out->zeros[at] : 0, most = MOST_BYTE / (int)out->scales[at];
            int16_t *code = &out->codes[c * w->k + i];
            *code = (int16_t)(*code - zero > most ? zero + most : *code - zero < -most ? zero - most : *code);
        }
}

static void multiply_scales(const struct quant_matrix *w, const double *units, struct quant_codes *out)
{
    for (int64_t c = 0; c < w->channels; c++)
        for (int64_t g = 0; g < out->groups; g++)
            out->scales[c * out->groups + g] = (float)((double)out->scales[c * out->groups + g] * units[c]);
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
    struct pool *pool = count >= WORTH_THREADS ? pool_new(pool_processors()) : NULL;
    const double *units = units_of(o, w, a);
    struct quant_matrix m = *w;
    m.data = divided(w, units, a);
    const struct quant_task task = {o, &m, out, row->fit, pool, a};
    const char *why = NULL;
    if (row->choose)
        why = row->choose(&task);
    else
        quant_fit_codes(&task, NULL);
    pool_free(pool);
    if (!why && w->scale_type == DT_U8)
        keep_bytes(o, w, out);
    if (!why && units)
        multiply_scales(w, units, out);
    return why;
}
