/* Casts between all numeric dtypes, through the carriers of kernels/wide.h. */
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "kernels/cast_priv.h"
#include "kernels/loops.h"
#include "kernels/vec.h"
#include "kernels/wide.h"

enum { CHUNK = 512 };
union chunk {
    float f[CHUNK];
    double d[CHUNK];
    int64_t i[CHUNK];
    uint64_t u[CHUNK];
};

/* What x86-64's truncating conversions give, spelled out: out of range and NaN are the most negative value of the
 * width the conversion works in, 32 bits for results of up to 32 signed or 16 unsigned bits, else 64. */
static int64_t trunc32(double v)
{
    return v > -2147483649.0 && v < 2147483648.0 ? (int64_t)v : INT32_MIN;
}
static int64_t trunc64(double v)
{
    return v >= -9223372036854775808.0 && v < 9223372036854775808.0 ? (int64_t)v : INT64_MIN;
}
static int64_t whole_of(enum dtype to, double v)
{
    switch ((int)to) {
    case DT_I64:
    case DT_U32: return trunc64(v);
    case DT_U64:
        if (v < 9223372036854775808.0)
            return trunc64(v);
        return (int64_t)((uint64_t)trunc64(v - 9223372036854775808.0) ^ (uint64_t)1 << 63);
    case DT_BOOL: return v != 0;
    default: return trunc32(v);
    }
}

/* In place: the carrier of `from` becomes the carrier of `to`. */
static void convert(enum dtype to, enum dtype from, union chunk *c, int64_t n)
{
    const enum k_wide a = k_wide_of(from), b = k_wide_of(to);
    if (a == b || (b == K_WIDE_U64 && a == K_WIDE_I64) || (b == K_WIDE_I64 && a == K_WIDE_U64))
        return;
    if (b == K_WIDE_I64 || b == K_WIDE_U64) {
        if (a == K_WIDE_F32)
            for (int64_t i = n - 1; i >= 0; i--)
                c->i[i] = whole_of(to, (double)c->f[i]);
        else
            for (int64_t i = 0; i < n; i++)
                c->i[i] = whole_of(to, c->d[i]);
    } else if (b == K_WIDE_F64) {
        if (a == K_WIDE_F32)
            for (int64_t i = n - 1; i >= 0; i--)
                c->d[i] = (double)c->f[i];
        else
            for (int64_t i = 0; i < n; i++)
                c->d[i] = a == K_WIDE_I64 ? (double)c->i[i] : (double)c->u[i];
    } else {
        for (int64_t i = 0; i < n; i++) {
            const float v = a == K_WIDE_F64 ? (float)c->d[i] : a == K_WIDE_I64 ? (float)c->i[i] : (float)c->u[i];
            c->f[i] = v;
        }
    }
}

#ifdef NPUC_SCALAR_ONLY
#define WIDE(call) 0
#else
#define WIDE(call) (k_simd() ? (call) : 0)
#endif

/* Floats to integers of at most 32 bits whose conversion works in 32: what whole_of and k_narrow give, without a
 * carrier of 64. false: another type. */
#define TRUNC(dt, T, wide)                                                                                             \
    case DT_##dt:                                                                                                      \
        for (int64_t i = WIDE(wide(y, x, n)); i < n; i++)                                                              \
            ((T *)y)[i] = (T)(uint32_t)(x[i] >= -2147483648.0f && x[i] < 2147483648.0f ? (int32_t)x[i] : INT32_MIN);   \
        return true;
static bool trunc_f32(enum dtype to, void *y, const float *x, int64_t n)
{
    switch ((int)to) {
        TRUNC(I8, int8_t, k_trunc_8_avx2)
        TRUNC(U8, uint8_t, k_trunc_8_avx2)
        TRUNC(I16, int16_t, k_trunc_16_avx2)
        TRUNC(U16, uint16_t, k_trunc_16_avx2)
        TRUNC(I32, int32_t, k_trunc_32_avx2)
    }
    return false;
}

static void cast_range(enum dtype to, void *dst, enum dtype from, const void *src, int64_t n, bool saturate)
{
    union chunk c;
    for (int64_t at = 0; at < n; at += CHUNK) {
        const int64_t m = n - at < CHUNK ? n - at : CHUNK;
        k_widen(&c, from, src, at, m);
        if (from == DT_F64 && to == DT_F16) { /* through float it would round twice */
            for (int64_t i = 0; i < m; i++)
                ((uint16_t *)dst)[at + i] = half_f64_to_f16(c.d[i]);
            continue;
        }
        if (k_wide_of(from) == K_WIDE_F32 && trunc_f32(to, (uint8_t *)dst + at * dtype_size(to), c.f, m))
            continue;
        convert(to, from, &c, m);
        k_narrow(to, dst, at, &c, m, saturate);
    }
}

void k_cast(enum dtype to, void *dst, enum dtype from, const void *src, int64_t n, bool saturate)
{
    if (to == from && dtype_size(to) > 0)
        memmove(dst, src, (size_t)(n * dtype_size(to)));
    else if (from == DT_F32 && to == DT_F16)
        half_f32_to_f16_n(dst, src, n);
    else if (from == DT_F32 && to == DT_BF16)
        half_f32_to_bf16_n(dst, src, n);
    else if (from == DT_F16 && to == DT_F32)
        half_f16_to_f32_n(dst, src, n);
    else if (from == DT_BF16 && to == DT_F32)
        half_bf16_to_f32_n(dst, src, n);
    else if (from == DT_I32 && to == DT_F32)
        for (int64_t i = WIDE(k_cast_i32_f32_avx2(dst, src, n)); i < n; i++)
            ((float *)dst)[i] = (float)((const int32_t *)src)[i];
    else if (from != DT_F32 || !trunc_f32(to, dst, src, n))
        cast_range(to, dst, from, src, n, saturate);
}

void k_scale_f32(float *y, const float *scale, int64_t n)
{
    for (int64_t i = WIDE(k_scale_f32_avx2(y, scale, n)); i < n; i++)
        y[i] *= scale[i];
}

void k_cast_nearest(enum dtype to, void *dst, enum dtype from, const void *src, int64_t n)
{
    const float ends[2] = {to == DT_U8 ? 0 : -128, to == DT_U8 ? 255 : 127};
    const int64_t size = dtype_size(from);
    float low, high, part[CHUNK]; /* in the type `from` */
    k_cast(from, &low, DT_F32, &ends[0], 1, false);
    k_cast(from, &high, DT_F32, &ends[1], 1, false);
    for (int64_t at = 0; at < n; at += CHUNK) {
        const int64_t m = n - at < CHUNK ? n - at : CHUNK;
        const struct k_rows x[3] = {{(const uint8_t *)src + at * size, m, 1}};
        const struct k_rows whole[3] = {{part, m, 1}, {&low, 0, 0}, {&high, 0, 0}};
        k_vec(K_FN_Round, from, 1, m, part, m, x, NULL);
        k_vec(K_FN_Clip, from, 1, m, part, m, whole, NULL);
        k_cast(to, (uint8_t *)dst + at, from, part, m, false);
    }
}
