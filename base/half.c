/* Narrow float types. One routine rounds a double into any of them (a float converts to double exactly, so there is
 * one rounding); f16 and bf16 from f32 have direct forms because they are hot. */
#include "base/half.h"

#include "base/half_priv.h"

#include <float.h>
#include <string.h>

/* Sign, exponent and mantissa fields; code 0 with exponent field 0 is zero, then come subnormals. */
struct small_format {
    int exp_bits, man_bits, bias;
    uint16_t max;      /* code of the largest finite value */
    uint16_t inf;      /* what overflow gives when not saturating; 0: there is none, saturate */
    uint16_t nan;      /* canonical NaN without sign; 0: none */
    bool unsigned_nan; /* NaN is the code of minus zero (FNUZ types); there is no minus zero */
};

static const struct small_format f16_format = {5, 10, 15, 0x7bff, 0x7c00, 0x7e00, false};

static const struct small_format small_formats[DT_COUNT] = {
    [DT_F8E4M3FN] = {4, 3, 7, 0x7e, 0x7f, 0x7f, false}, [DT_F8E4M3FNUZ] = {4, 3, 8, 0x7f, 0x80, 0x80, true},
    [DT_F8E5M2] = {5, 2, 15, 0x7b, 0x7c, 0x7e, false},  [DT_F8E5M2FNUZ] = {5, 2, 16, 0x7f, 0x80, 0x80, true},
    [DT_F6E2M3] = {2, 3, 1, 0x1f, 0, 0, false},         [DT_F6E3M2] = {3, 2, 3, 0x1f, 0, 0, false},
    [DT_F4E2M1] = {2, 1, 1, 0x7, 0, 0, false},
};

/* ---- HiF8: a sign, a prefix code that tells how many bits the exponent has, the exponent (its sign, its magnitude
 * without the leading one), and what is left of the byte as mantissa: more of it the nearer the exponent is to 0.
 *
 *   11 4 bits   10 3 bits   01 2 bits   001 1 bit   0001 none: exponent 0   0000 denormal: 2^(M - 23), M = 1..7
 *
 * 0x00 is the one zero, 0x80 NaN, 0x6f and 0xef are infinite, 0x6e is 2^15, the largest number. */
enum { HIF8_NAN = 0x80, HIF8_INF = 0x6f, HIF8_MAX = 0x6e, HIF8_LEAST = -22, HIF8_NORMAL = -15 };

/* Bits of the magnitude of an exponent. */
static int hif8_width(int exponent)
{
    const int e = exponent < 0 ? -exponent : exponent;
    return e == 0 ? 0 : e < 2 ? 1 : e < 4 ? 2 : e < 8 ? 3 : 4;
}

static int hif8_mantissa_bits(int exponent)
{
    const int d = hif8_width(exponent);
    return d <= 2 ? 3 : 5 - d;
}

/* Code of (1 + m / 2^bits) * 2^exponent without sign; the exponent is one of a normal number. */
static uint8_t hif8_code(int exponent, uint32_t m)
{
    static const uint8_t prefix[] = {1 << 3, 1 << 4, 1 << 5, 2 << 5, 3 << 5};
    const int d = hif8_width(exponent), bits = hif8_mantissa_bits(exponent);
    const uint32_t magnitude = (uint32_t)(exponent < 0 ? -exponent : exponent), top = d ? 1u << (d - 1) : 0;
    const uint32_t field = d ? (exponent < 0 ? top : 0) | (magnitude & ~top) : 0;
    return (uint8_t)(prefix[d] | field << bits | m);
}

static uint8_t hif8_encode(double v, bool saturate)
{
    uint64_t u;
    memcpy(&u, &v, sizeof u);
    const uint8_t sign = (uint8_t)(u >> 56 & 0x80);
    int e = (int)(u >> 52 & 0x7ff) - 1023;
    const uint64_t fraction = u & 0xfffffffffffffu;
    if (v != v)
        return HIF8_NAN;
    if (e == 1024)
        return sign | HIF8_INF;
    if (e < HIF8_LEAST - 1)
        return 0;
    const int bits = e < HIF8_NORMAL ? 0 : e > 15 ? 1 : hif8_mantissa_bits(e);
    uint64_t m = (fraction >> (51 - bits)) + 1; /* one bit more than is kept, and half a unit */
    m >>= 1;
    if (m >> bits) {
        e++;
        m = 0;
    }
    if (e < HIF8_LEAST)
        e = HIF8_LEAST; /* the middle between 0 and the least number */
    if (e < HIF8_NORMAL)
        return sign | (uint8_t)(e + 23);
    if (e > 15 || (e == 15 && m))
        return sign | (saturate ? HIF8_MAX : HIF8_INF);
    return sign | hif8_code(e, (uint32_t)m);
}

static float hif8_decode(uint8_t code)
{
    const uint32_t sign = (uint32_t)(code & 0x80) << 24, c = code & 0x7f;
    if (c == 0)
        return half_bits_float(sign ? 0x7fc00000 : 0);
    if (c == HIF8_INF)
        return half_bits_float(sign | 0x7f800000);
    if (c < 8)
        return half_bits_float(sign | (c - 23 + 127) << 23);
    const int d = c < 16 ? 0 : c < 32 ? 1 : (int)(c >> 5) + 1, bits = d <= 2 ? 3 : 5 - d;
    const uint32_t field = c >> bits & ((1u << d) - 1), top = d ? 1u << (d - 1) : 0;
    const int magnitude = d ? (int)(top | (field & (top - 1))) : 0, e = field & top ? -magnitude : magnitude;
    return half_bits_float(sign | (uint32_t)(e + 127) << 23 | (c & ((1u << bits) - 1)) << (23 - bits));
}

/* m / 2^s rounded to nearest even, 0 <= s; m < 2^53. */
static uint64_t shift_round(uint64_t m, int s)
{
    if (s == 0)
        return m;
    if (s > 54)
        return 0;
    const uint64_t half = UINT64_C(1) << (s - 1);
    const uint64_t rest = m & (2 * half - 1);
    m >>= s;
    return m + (rest > half || (rest == half && (m & 1)));
}

/* Code of |d| for finite d, unbounded above: codes count up through the binades. */
static uint64_t magnitude_code(const struct small_format *f, uint64_t bits)
{
    const int exponent = (int)(bits >> 52 & 0x7ff);
    if (exponent == 0)
        return 0; /* zero or far below every format here */
    const uint64_t mantissa = (bits & 0xfffffffffffffu) | UINT64_C(1) << 52;
    const int e = exponent - 1023 + f->bias; /* exponent field if normal */
    if (e <= 0)
        return shift_round(mantissa, 52 - f->man_bits + 1 - e);
    /* the hidden bit adds one to the exponent field, as a carry does */
    return shift_round(mantissa, 52 - f->man_bits) + ((uint64_t)(e - 1) << f->man_bits);
}

static uint16_t encode(const struct small_format *f, double d, bool saturate)
{
    uint64_t bits;
    memcpy(&bits, &d, sizeof bits);
    const uint16_t sign = (uint16_t)((bits >> 63) << (f->exp_bits + f->man_bits));
    if (d != d && !f->nan)
        return (uint16_t)(sign ^ (1u << (f->exp_bits + f->man_bits))); /* zero, sign inverted as ml_dtypes has it */
    if (d != d)
        return f->unsigned_nan ? f->nan : (uint16_t)(sign | f->nan);
    const bool infinite = (bits >> 52 & 0x7ff) == 0x7ff;
    const uint64_t code = infinite ? UINT64_MAX : magnitude_code(f, bits);
    if (code > f->max) {
        if (saturate || !f->inf)
            return (uint16_t)(sign | f->max);
        return f->unsigned_nan ? f->nan : (uint16_t)(sign | f->inf);
    }
    return f->unsigned_nan && !code ? 0 : (uint16_t)(sign | code);
}

float half_f16_to_f32(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3ff;
    if (exponent == 31)
        return half_bits_float(sign | 0x7f800000 | mantissa << 13 | (mantissa ? 0x400000 : 0));
    if (exponent == 0) {
        const float f = (float)mantissa * 0x1p-24f;
        return sign ? -f : f;
    }
    return half_bits_float(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t half_f32_to_f16(float f)
{
    const uint32_t u = half_float_bits(f), a = u & 0x7fffffff;
    const uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
    if (a > 0x7f800000)
        return sign | 0x7e00;
    if (a >= 0x477ff000) /* halfway between the largest value and the next: rounds to infinity */
        return sign | 0x7c00;
    if (a < 0x38800000) { /* below 2^-14: adding 0.5 aligns the units of 2^-24 with the mantissa's end */
        const uint32_t r = half_float_bits(half_bits_float(a) + 0.5f) - 0x3f000000;
        return (uint16_t)(sign | r);
    }
    const uint32_t rounded = a + 0xfff + (a >> 13 & 1);
    return (uint16_t)(sign | (rounded - (112u << 23)) >> 13);
}

uint16_t half_f64_to_f16(double d)
{
    return encode(&f16_format, d, false);
}

float half_bf16_to_f32(uint16_t h)
{
    return half_bits_float((uint32_t)h << 16);
}

uint16_t half_f32_to_bf16(float f)
{
    const uint32_t u = half_float_bits(f);
    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)((u >> 16 & 0x8000) | 0x7fc0);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

float half_small_to_f32(enum dtype t, uint8_t code)
{
    if (t == DT_F8E8M0)
        return half_bits_float(code == 0xff ? 0x7fc00000 : code ? (uint32_t)code << 23 : 0x400000);
    if (t == DT_HIF8)
        return hif8_decode(code);
    const struct small_format *f = &small_formats[t];
    NPUC_ASSERT(f->exp_bits);
    const int bits = f->exp_bits + f->man_bits;
    const uint32_t sign = (uint32_t)(code >> bits & 1) << 31, magnitude = code & ((1u << bits) - 1);
    if (f->unsigned_nan ? code == f->nan : f->nan && magnitude > f->max)
        return half_bits_float(!f->unsigned_nan && magnitude == f->inf && f->inf != f->nan ? sign | 0x7f800000
                                                                                           : sign | 0x7fc00000);
    const uint32_t exponent = magnitude >> f->man_bits, mantissa = magnitude & ((1u << f->man_bits) - 1);
    const uint32_t scale = (uint32_t)(128 - f->bias - f->man_bits) << 23; /* 2^(1 - bias - man_bits), exact */
    const float subnormal = (float)mantissa * half_bits_float(scale);
    const uint32_t normal = (exponent + 127 - (uint32_t)f->bias) << 23 | mantissa << (23 - f->man_bits);
    return half_bits_float(sign | (exponent ? normal : half_float_bits(subnormal)));
}

uint8_t half_f32_to_e8m0(float f, enum half_round round, bool saturate)
{
    const uint32_t u = half_float_bits(f), exponent = u >> 23 & 0xff, mantissa = u & 0x7fffff;
    if (exponent == 0xff)
        return 0xff;
    /* a tie rounds up, to the even mantissa of the next binade, except out of the subnormals */
    const bool nearest_up = mantissa > 0x400000 || (mantissa == 0x400000 && exponent > 0);
    const bool above = exponent > 0 ? mantissa > 0 : mantissa > 0x400000; /* than the power of two below */
    const bool up = round == HALF_UP ? above : round == HALF_NEAREST && nearest_up;
    return (uint8_t)(exponent + (up && !(saturate && exponent == 0xfe)));
}

uint8_t half_f32_to_small(enum dtype t, float f, bool saturate)
{
    if (t == DT_F8E8M0)
        return half_f32_to_e8m0(f, HALF_NEAREST, saturate);
    if (t == DT_HIF8)
        return hif8_encode((double)f, saturate);
    NPUC_ASSERT(small_formats[t].exp_bits);
    return (uint8_t)encode(&small_formats[t], (double)f, saturate);
}

#ifndef NPUC_SCALAR_ONLY
#define WIDE(call) (npuc_cpu_has_avx2() ? (call) : 0)
#else
#define WIDE(call) 0
#endif

void half_f16_to_f32_n(float *y, const uint16_t *x, int64_t n)
{
    for (int64_t i = WIDE(half_f16_to_f32_avx2(y, x, n)); i < n; i++)
        y[i] = half_f16_to_f32(x[i]);
}

void half_f32_to_f16_n(uint16_t *y, const float *x, int64_t n)
{
    for (int64_t i = WIDE(half_f32_to_f16_avx2(y, x, n)); i < n; i++)
        y[i] = half_f32_to_f16(x[i]);
}

void half_bf16_to_f32_n(float *y, const uint16_t *x, int64_t n)
{
    for (int64_t i = WIDE(half_bf16_to_f32_avx2(y, x, n)); i < n; i++)
        y[i] = half_bf16_to_f32(x[i]);
}

void half_f32_to_bf16_n(uint16_t *y, const float *x, int64_t n)
{
    for (int64_t i = WIDE(half_f32_to_bf16_avx2(y, x, n)); i < n; i++)
        y[i] = half_f32_to_bf16(x[i]);
}

struct half_shape half_small_shape(enum dtype t)
{
    const struct small_format *f = &small_formats[t];
    return (struct half_shape){f->man_bits, 1 - f->bias, half_small_to_f32(t, (uint8_t)f->max)};
}

float half_lowest(enum dtype t)
{
    return t == DT_F16 ? half_f16_to_f32(0xFBFF) : t == DT_BF16 ? half_bf16_to_f32(0xFF7F) : -FLT_MAX;
}
