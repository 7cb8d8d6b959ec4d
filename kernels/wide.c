/* Widening and narrowing; see kernels/wide.h. One loop per storage type, picked by a switch outside the loop. */
#include "kernels/wide.h"

#include <string.h>

#include "base/half.h"

enum k_wide k_wide_of(enum dtype t)
{
    switch (dtype_table[t].cls) {
    case DTC_FLOAT: return t == DT_F64 ? K_WIDE_F64 : K_WIDE_F32;
    case DTC_INT: return K_WIDE_I64;
    case DTC_UINT:
    case DTC_BOOLEAN: return K_WIDE_U64;
    case DTC_NONE:
    case DTC_COMPLEX:
    case DTC_TEXT: break;
    }
    return K_WIDE_NONE;
}
int k_wide_size(enum k_wide w)
{
    return w == K_WIDE_F32 ? 4 : 8;
}

uint8_t k_code_get(enum dtype t, const void *x, int64_t at)
{
    const int bits = dtype_table[t].bits;
    const int64_t bit = at * bits;
    const uint8_t *p = (const uint8_t *)x + bit / 8;
    unsigned v = p[0];
    if (bit % 8 + bits > 8) /* only 6-bit codes cross a byte */
        v |= (unsigned)p[1] << 8;
    return (uint8_t)(v >> (bit % 8) & ((1u << bits) - 1));
}
void k_code_set(enum dtype t, void *y, int64_t at, uint8_t code)
{
    const int bits = dtype_table[t].bits, shift = (int)(at * bits % 8);
    uint8_t *p = (uint8_t *)y + at * bits / 8;
    const unsigned mask = ((1u << bits) - 1) << shift, v = ((unsigned)code << shift) & mask;
    p[0] = (uint8_t)((p[0] & ~mask) | v);
    if (shift + bits > 8)
        p[1] = (uint8_t)((p[1] & ~(mask >> 8)) | v >> 8);
}

void k_codes_load(uint8_t *y, enum dtype t, const void *x, int64_t at, int64_t n)
{
    int64_t i = 0;
    if (dtype_table[t].bits == 8) {
        memcpy(y, (const uint8_t *)x + at, (size_t)n);
        return;
    }
    if (dtype_table[t].bits == 4 && at % 2 == 0)
        for (; i + 2 <= n; i += 2) {
            const uint8_t pair = ((const uint8_t *)x)[(at + i) / 2];
            y[i] = pair & 15;
            y[i + 1] = pair >> 4;
        }
    for (; i < n; i++)
        y[i] = k_code_get(t, x, at + i);
}
void k_codes_store(enum dtype t, void *y, int64_t at, const uint8_t *x, int64_t n)
{
    int64_t i = 0;
    if (dtype_table[t].bits == 8) {
        memcpy((uint8_t *)y + at, x, (size_t)n);
        return;
    }
    if (dtype_table[t].bits == 4 && at % 2 == 0)
        for (; i + 2 <= n; i += 2)
            ((uint8_t *)y)[(at + i) / 2] = (uint8_t)((x[i] & 15) | x[i + 1] << 4);
    for (; i < n; i++)
        k_code_set(t, y, at + i, x[i]);
}

static void widen_f32(float *y, enum dtype t, const uint8_t *x, int64_t at, int64_t n)
{
    if (t == DT_F32)
        memcpy(y, x + at * 4, (size_t)n * 4);
    else if (t == DT_F16)
        half_f16_to_f32_n(y, (const uint16_t *)(const void *)x + at, n);
    else if (t == DT_BF16)
        half_bf16_to_f32_n(y, (const uint16_t *)(const void *)x + at, n);
    else if (dtype_table[t].bits == 8)
        for (int64_t i = 0; i < n; i++)
            y[i] = half_small_to_f32(t, x[at + i]);
    else
        for (int64_t i = 0; i < n; i++)
            y[i] = half_small_to_f32(t, k_code_get(t, x, at + i));
}
static void narrow_f32(enum dtype t, uint8_t *y, int64_t at, const float *x, int64_t n, bool saturate)
{
    if (t == DT_F32)
        memcpy(y + at * 4, x, (size_t)n * 4);
    else if (t == DT_F16)
        half_f32_to_f16_n((uint16_t *)(void *)y + at, x, n);
    else if (t == DT_BF16)
        half_f32_to_bf16_n((uint16_t *)(void *)y + at, x, n);
    else if (dtype_table[t].bits == 8)
        for (int64_t i = 0; i < n; i++)
            y[at + i] = half_f32_to_small(t, x[i], saturate);
    else
        for (int64_t i = 0; i < n; i++)
            k_code_set(t, y, at + i, half_f32_to_small(t, x[i], saturate));
}

#define WIDEN(dt, T, W)                                                                                                \
    case DT_##dt:                                                                                                      \
        for (int64_t i = 0; i < n; i++)                                                                                \
            ((W *)y)[i] = (W)((const T *)x)[at + i];                                                                   \
        return;
static void widen_int(void *y, enum dtype t, const void *x, int64_t at, int64_t n)
{
    switch ((int)t) {
        WIDEN(I64, int64_t, int64_t)
        WIDEN(I32, int32_t, int64_t)
        WIDEN(I16, int16_t, int64_t)
        WIDEN(I8, int8_t, int64_t)
        WIDEN(U64, uint64_t, uint64_t)
        WIDEN(U32, uint32_t, uint64_t)
        WIDEN(U16, uint16_t, uint64_t)
        WIDEN(U8, uint8_t, uint64_t)
        WIDEN(BOOL, uint8_t, uint64_t)
    }
    const int64_t sign = dtype_table[t].cls == DTC_INT ? 1 << (dtype_table[t].bits - 1) : 0;
    for (int64_t i = 0; i < n; i++)
        ((int64_t *)y)[i] = (k_code_get(t, x, at + i) ^ sign) - sign;
}

#define NARROW(dt, T)                                                                                                  \
    case DT_##dt:                                                                                                      \
        for (int64_t i = 0; i < n; i++)                                                                                \
            ((T *)y)[at + i] = (T)((const uint64_t *)x)[i];                                                            \
        return;
static void narrow_int(enum dtype t, void *y, int64_t at, const void *x, int64_t n)
{
    switch ((int)t) {
        NARROW(I64, uint64_t)
        NARROW(I32, uint32_t)
        NARROW(I16, uint16_t)
        NARROW(I8, uint8_t)
        NARROW(U64, uint64_t)
        NARROW(U32, uint32_t)
        NARROW(U16, uint16_t)
        NARROW(U8, uint8_t)
    case DT_BOOL:
        for (int64_t i = 0; i < n; i++)
            ((uint8_t *)y)[at + i] = ((const uint64_t *)x)[i] != 0;
        return;
    }
    for (int64_t i = 0; i < n; i++)
        k_code_set(t, y, at + i, (uint8_t)((const uint64_t *)x)[i]);
}

void k_widen(void *y, enum dtype t, const void *x, int64_t at, int64_t n)
{
    switch (k_wide_of(t)) {
    case K_WIDE_F32: widen_f32(y, t, x, at, n); return;
    case K_WIDE_F64: memcpy(y, (const double *)x + at, (size_t)n * 8); return;
    case K_WIDE_I64:
    case K_WIDE_U64: widen_int(y, t, x, at, n); return;
    case K_WIDE_NONE: NPUC_ASSERT(!"a numeric dtype");
    }
}
void k_narrow(enum dtype t, void *y, int64_t at, const void *x, int64_t n, bool saturate)
{
    switch (k_wide_of(t)) {
    case K_WIDE_F32: narrow_f32(t, y, at, x, n, saturate); return;
    case K_WIDE_F64: memcpy((double *)y + at, x, (size_t)n * 8); return;
    case K_WIDE_I64:
    case K_WIDE_U64: narrow_int(t, y, at, x, n); return;
    case K_WIDE_NONE: NPUC_ASSERT(!"a numeric dtype");
    }
}

enum { CHUNK = 512 };

/* y[i] = carrier values of n <= CHUNK elements, as T */
#define FROM_CARRIER(T)                                                                                                \
    do {                                                                                                               \
        if (w == K_WIDE_F32)                                                                                           \
            for (int64_t i = 0; i < m; i++)                                                                            \
                y[done + i] = (T)buf.f[i];                                                                             \
        else if (w == K_WIDE_F64)                                                                                      \
            for (int64_t i = 0; i < m; i++)                                                                            \
                y[done + i] = (T)buf.d[i];                                                                             \
        else if (w == K_WIDE_I64)                                                                                      \
            for (int64_t i = 0; i < m; i++)                                                                            \
                y[done + i] = (T)buf.i[i];                                                                             \
        else                                                                                                           \
            for (int64_t i = 0; i < m; i++)                                                                            \
                y[done + i] = (T)buf.u[i];                                                                             \
    } while (0)
union carrier {
    float f[CHUNK];
    double d[CHUNK];
    int64_t i[CHUNK];
    uint64_t u[CHUNK];
};

void k_load_f32(float *y, enum dtype t, const void *x, int64_t at, int64_t n)
{
    const enum k_wide w = k_wide_of(t);
    if (w == K_WIDE_F32) {
        widen_f32(y, t, x, at, n);
        return;
    }
    union carrier buf;
    for (int64_t done = 0; done < n; done += CHUNK) {
        const int64_t m = n - done < CHUNK ? n - done : CHUNK;
        k_widen(&buf, t, x, at + done, m);
        FROM_CARRIER(float);
    }
}
void k_load_f64(double *y, enum dtype t, const void *x, int64_t at, int64_t n)
{
    const enum k_wide w = k_wide_of(t);
    union carrier buf;
    for (int64_t done = 0; done < n; done += CHUNK) {
        const int64_t m = n - done < CHUNK ? n - done : CHUNK;
        k_widen(&buf, t, x, at + done, m);
        FROM_CARRIER(double);
    }
}
