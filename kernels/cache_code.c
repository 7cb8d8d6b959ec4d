/* See kernels/cache_code.h. */
#include "kernels/cache_code.h"

#include <string.h>

#include "base/half.h"
#include "base/size.h"
#include "kernels/rows.h"

bool k_cache_packed(const struct k_cache_form *f)
{
    return dtype_table[f->code].bits == 4;
}

bool k_cache_takes(enum dtype code, bool shifted, int64_t size)
{
    const bool is_float = code == DT_F8E4M3FN || code == DT_F8E5M2;
    const bool is_int = code == DT_I8 || code == DT_U8 || code == DT_I4 || code == DT_U4;
    return size > 0 && size < 1 << 20 && (is_int || (is_float && !shifted)) &&
           (dtype_table[code].bits == 8 || size % 2 == 0);
}

static int64_t common_divisor(int64_t a, int64_t b)
{
    while (b > 0) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

struct k_cache_form k_cache_form_of(enum dtype code, bool shifted, int64_t size, int64_t group, enum dtype scale)
{
    struct k_cache_form f = {.code = code, .scale = scale, .size = size, .group = size, .shifted = shifted};
    if (group > 0 && group < size)
        f.group = common_divisor(k_cache_packed(&f) ? size / 2 : size, group);
    return f;
}

enum dtype k_cache_stored(const struct k_cache_form *f)
{
    if (dtype_is_float(f->code))
        return f->code;
    return k_cache_packed(f) || f->shifted ? DT_U8 : DT_I8;
}

int64_t k_cache_row(const struct k_cache_form *f)
{
    return k_cache_packed(f) ? f->size / 2 : f->size;
}

int64_t k_cache_scales(const struct k_cache_form *f)
{
    return f->size / f->group * (f->shifted ? 2 : 1);
}

float k_cache_most(const struct k_cache_form *f)
{
    if (dtype_is_float(f->code))
        return half_small_shape(f->code).most;
    const int bits = dtype_table[f->code].bits;
    return (float)((1 << (f->shifted ? bits : bits - 1)) - 1);
}

float k_cache_tiny(const struct k_cache_form *f)
{
    return f->scale == DT_F16 ? 0x1p-24f : 0x1p-126f;
}

float k_cache_middle(const struct k_cache_form *f)
{
    return k_cache_packed(f) ? 8.0f : 0.0f;
}

/* v rounded to the type of scales, and stored as number i of them. */
static float put(const struct k_cache_form *f, void *scales, int64_t i, float v)
{
    k_cast(f->scale, (uint16_t *)scales + i, DT_F32, &v, 1, true);
    k_cast(DT_F32, &v, f->scale, (const uint16_t *)scales + i, 1, true);
    return v;
}

static float get(const struct k_cache_form *f, const void *scales, int64_t i)
{
    float v;
    k_cast(DT_F32, &v, f->scale, (const uint16_t *)scales + i, 1, true);
    return v;
}

static float one(enum k_fn fn, float a, float b)
{
    float y;
    k_row_scalar(fn, &y, &a, b, 1);
    return y;
}

/* Group g of the row to codes in floats. */
static void encode_group(const struct k_cache_form *f, int64_t g, const float *x, void *scales, float *to)
{
    const int64_t n = f->group;
    const float most = k_cache_most(f), tiny = k_cache_tiny(f);
    if (!f->shifted) {
        k_row_unary(K_FN_Abs, to, x, n);
        const float top = k_row_reduce(K_RED_MAX, to, n);
        const float s = put(f, scales, g, one(K_FN_Max, one(K_FN_Div, top, most), tiny));
        k_row_scalar(K_FN_Div, to, x, s, n);
        if (dtype_is_float(f->code))
            return;
        k_row_unary(K_FN_Round, to, to, n);
        k_row_scalar(K_FN_Max, to, to, -most - 1, n);
        k_row_scalar(K_FN_Min, to, to, most, n);
        k_row_scalar(K_FN_Add, to, to, k_cache_middle(f), n);
        return;
    }
    const float hi = k_row_reduce(K_RED_MAX, x, n), lo = k_row_reduce(K_RED_MIN, x, n), low = one(K_FN_Sub, 0, lo);
    const float far = one(K_FN_Mul, one(K_FN_Max, hi, low), 0x1p-10f),
                step = one(K_FN_Div, one(K_FN_Sub, hi, lo), most);
    const float s = put(f, scales, g, one(K_FN_Max, one(K_FN_Max, step, far), tiny));
    const float z = put(f, scales, f->size / n + g, one(K_FN_Div, low, s));
    k_row_scalar(K_FN_Div, to, x, s, n);
    k_row_scalar(K_FN_Add, to, to, z, n);
    k_row_unary(K_FN_Round, to, to, n);
    k_row_scalar(K_FN_Max, to, to, 0, n);
    k_row_scalar(K_FN_Min, to, to, most, n);
}

void k_cache_encode(const struct k_cache_form *f, const float *x, void *codes, void *scales, float *work)
{
    const int64_t half = f->size / 2;
    for (int64_t g = 0; g < f->size / f->group; g++)
        encode_group(f, g, x + g * f->group, scales, work + g * f->group);
    if (k_cache_packed(f)) {
        k_row_scalar(K_FN_Mul, work + half, work + half, 16, half);
        k_row_binary(K_FN_Add, work, work, work + half, half);
    }
    k_cast(k_cache_stored(f), codes, DT_F32, work, k_cache_row(f), true);
}

void k_cache_decode(const struct k_cache_form *f, const void *codes, const void *scales, float *y)
{
    const int64_t half = f->size / 2, groups = f->size / f->group;
    k_cast(DT_F32, y, k_cache_stored(f), codes, k_cache_row(f), true);
    for (int64_t j = 0; k_cache_packed(f) && j < half; j++) {
        const int byte = (int)y[j];
        y[j + half] = (float)(byte >> 4);
        y[j] = (float)(byte & 15);
    }
    for (int64_t g = 0; g < groups; g++) {
        const float zero = f->shifted ? get(f, scales, groups + g) : k_cache_middle(f);
        if (zero != 0)
            k_row_scalar(K_FN_Sub, y + g * f->group, y + g * f->group, zero, f->group);
        k_row_scalar(K_FN_Mul, y + g * f->group, y + g * f->group, get(f, scales, g), f->group);
    }
}

void k_cache_turn(const float *x, const float *matrix, int64_t size, float *y)
{
    for (int64_t j = 0; j < size; j++)
        y[j] = 0;
    for (int64_t i = 0; i < size; i++)
        for (int64_t j = 0; j < size; j++)
            y[j] += x[i] * matrix[i * size + j];
}
