/* Functions of one float in double precision: polynomial kernels with a relative error below 1e-12, so that the one
 * rounding to float decides. sin and cos of large arguments multiply by a window of the bits of 2/pi (Payne, Hanek). */
#include "kernels/fmath_wide.h"

#include <math.h>
#include <string.h>

#define LN2_HI  0.693147180369123816490
#define LN2_LO  1.90821492927058770002e-10
#define PI_HALF 1.57079632679489661923

static double pow2d(int e) /* e in [-1022, 1023] */
{
    const uint64_t u = (uint64_t)(e + 1023) << 52;
    double d;
    memcpy(&d, &u, sizeof d);
    return d;
}

/* |x| < 700; relative error about 1e-15 */
double k_exp_wide(double x)
{
    const double k = rint(x * 1.44269504088896340736);
    const double r = (x - k * LN2_HI) - k * LN2_LO;
    double p = 1;
    for (int i = 13; i > 0; i--)
        p = 1 + p * r / i;
    return p * pow2d((int)k);
}

/* finite x > 0 */
double k_log_wide(double x)
{
    int e;
    double m = frexp(x, &e);
    if (m < 0.70710678118654752440) {
        m *= 2;
        e--;
    }
    const double s = (m - 1) / (m + 1), t = s * s;
    double p = 0;
    for (int i = 19; i > 0; i -= 2)
        p = p * t + 1.0 / i;
    return e * LN2_HI + (e * LN2_LO + 2 * s * p);
}

/* |r| <= pi/4 and a little */
static double sin_kernel(double r)
{
    double p = 1;
    for (int i = 16; i > 0; i -= 2)
        p = 1 - p * r * r / (i * (i + 1));
    return r * p;
}
static double cos_kernel(double r)
{
    double p = 1;
    for (int i = 15; i > 0; i -= 2)
        p = 1 - p * r * r / (i * (i + 1));
    return p;
}

/* x = n*pi/2 + r, finite x; returns n mod 4 */
static int reduce_far(float x, double *r)
{
    /* 2/pi in 32-bit words, most significant first; enough for exponent 127 and 64 bits beyond */
    static const uint32_t bits[] = {0,          0xa2f9836e, 0x4e441529, 0xfc2757d1, 0xf534ddc0,
                                    0xdb629599, 0x3c439041, 0xfe5163ab, 0xdebbc561};
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    const int shift = (int)(u >> 23 & 0xff) - 127 - 23; /* |x| = m * 2^shift, -7 <= shift <= 104 */
    const uint64_t m = (u & 0x7fffff) | 0x800000;
    const int at = shift + 30; /* first bit of the window: the product's bits above 4 drop out */
    uint64_t hi = 0, lo = 0;
    for (int w = 0; w < 4; w++) { /* 128 bits from bit `at` on */
        const int word = at / 32 + w, off = at % 32;
        const uint64_t pair = (uint64_t)bits[word] << 32 | bits[word + 1];
        const uint64_t v = pair >> (32 - off) & 0xffffffff;
        if (w < 2)
            hi = hi << 32 | v;
        else
            lo = lo << 32 | v;
    }
    /* m * window mod 2^128 has the product times 2^(128 - 2 - 30 + ...): top bits are n mod 4 */
    const uint64_t carry = ((lo >> 32) * m + ((lo & 0xffffffff) * m >> 32)) >> 32;
    const uint64_t prod = hi * m + carry;
    int n = (int)(prod >> 62);
    const int64_t frac = (int64_t)(prod << 2); /* fraction of a quarter turn, as signed */
    if (frac < 0)
        n++;
    *r = (double)frac * (PI_HALF / 18446744073709551616.0);
    if (u >> 31) {
        *r = -*r;
        n = -n;
    }
    return n & 3;
}

static int reduce_quarter(float x, double *r)
{
    if (fabsf(x) > K_TRIG_MAX)
        return reduce_far(x, r);
    const double n = rint((double)x * 0.63661977236758134308);
    *r = ((double)x - n * 1.57079632673412561417) - n * 6.07710050650619224932e-11;
    return (int)n & 3;
}

float k_sin_far(float x, int quarter)
{
    if (!(fabsf(x) < INFINITY))
        return x - x;
    double r;
    const int n = reduce_far(x, &r) + quarter;
    const double v = n & 1 ? cos_kernel(r) : sin_kernel(r);
    return (float)(n & 2 ? -v : v);
}

float k_tan(float x)
{
    if (!(fabsf(x) < INFINITY))
        return x - x;
    if (x == 0)
        return x;
    double r;
    const int n = reduce_quarter(x, &r);
    const double s = sin_kernel(r), c = cos_kernel(r);
    return (float)(n & 1 ? -c / s : s / c);
}

static double atan_wide(double x) /* x >= 0, may be infinite */
{
    double base = 0;
    if (x > 2.41421356237309504880) {
        base = PI_HALF;
        x = -1 / x;
    } else if (x > 0.41421356237309504880) {
        base = PI_HALF / 2;
        x = (x - 1) / (x + 1);
    }
    const double t = x * x;
    double p = 0;
    for (int i = 35; i > 0; i -= 2)
        p = 1.0 / i - p * t;
    return base + x * p;
}

float k_atan(float x)
{
    return x != x || x == 0 ? x : copysignf((float)atan_wide(fabs((double)x)), x);
}
static double asin_wide(double a) /* 0 <= a <= 1 */
{
    return a == 1 ? PI_HALF : atan_wide(a / sqrt((1 - a) * (1 + a)));
}
float k_asin(float x)
{
    const double a = fabs((double)x);
    if (!(a <= 1))
        return (x - x) / (x - x);
    return x == 0 ? x : copysignf((float)asin_wide(a), x);
}
float k_acos(float x)
{
    const double a = fabs((double)x);
    if (!(a <= 1))
        return (x - x) / (x - x);
    /* acos(a) = atan(sqrt(1-a^2) / a) keeps its precision near 1 */
    const double c = a == 0 ? PI_HALF : atan_wide(sqrt((1 - a) * (1 + a)) / a);
    return (float)(x < 0 ? 2 * PI_HALF - c : c);
}

float k_sinh(float x)
{
    const double a = fabs((double)x);
    if (a < 0.5) {
        double p = 1;
        for (int i = 12; i > 0; i -= 2)
            p = 1 + p * a * a / (i * (i + 1));
        return (float)((double)x * p);
    }
    if (!(a < 100))
        return x + x == x ? x : x * 3.0e38f; /* infinite, NaN, or beyond the range */
    const double e = k_exp_wide(a);
    return copysignf((float)(0.5 * (e - 1 / e)), x);
}
float k_cosh(float x)
{
    const double a = fabs((double)x);
    if (!(a < 100))
        return x != x ? x : INFINITY;
    const double e = k_exp_wide(a);
    return (float)(0.5 * (e + 1 / e));
}

/* log(1 + x), |x| not near -1 */
static double log1p_wide(double x)
{
    const double u = 1 + x;
    return u == 1 ? x : k_log_wide(u) * (x / (u - 1));
}
float k_asinh(float x)
{
    const double a = fabs((double)x);
    if (!(a < (double)INFINITY) || x == 0)
        return x;
    return copysignf((float)log1p_wide(a + a * a / (1 + sqrt(1 + a * a))), x);
}
float k_acosh(float x)
{
    if (!(x >= 1))
        return (x - x) / (x - x);
    if (x == INFINITY)
        return x;
    const double t = (double)x - 1;
    return (float)log1p_wide(t + sqrt(t * (t + 2)));
}
float k_atanh(float x)
{
    const double a = fabs((double)x);
    if (!(a < 1))
        return a == 1 ? copysignf(INFINITY, x) : (x - x) / (x - x);
    return x == 0 ? x : copysignf((float)(0.5 * log1p_wide(2 * a / (1 - a))), x);
}

/* The IEEE special cases of pow, as C's Annex F has them; true when *r is the answer. */
static bool pow_special(float x, float y, float *r)
{
    const bool odd = fabsf(y) < 16777216.0f && y == truncf(y) && ((int32_t)y & 1);
    if (y == 0 || x == 1)
        *r = 1;
    else if (x != x || y != y)
        *r = x + y;
    else if (x == -1 && fabsf(y) == INFINITY)
        *r = 1;
    else if (fabsf(y) == INFINITY)
        *r = (fabsf(x) > 1) == (y > 0) ? INFINITY : 0;
    else if (x == 0 || fabsf(x) == INFINITY)
        *r = copysignf((x == 0) == (y < 0) ? INFINITY : 0, odd ? x : 1);
    else if (x < 0 && y != truncf(y))
        *r = (x - x) / (x - x);
    else
        return false;
    return true;
}

float k_pow(float x, float y)
{
    if (y == 2)
        return x * x;
    float r;
    if (pow_special(x, y, &r))
        return r;
    const double l = (double)y * k_log_wide(fabs((double)x));
    const double v = k_exp_wide(l > 200 ? 200 : l < -200 ? -200 : l);
    const bool odd = fabsf(y) < 16777216.0f && y == truncf(y) && ((int32_t)y & 1);
    return (float)(x < 0 && odd ? -v : v);
}

float k_fmod(float x, float y)
{
    return fmodf(x, y);
} /* exact, so the same everywhere */
float k_mod(float x, float y)
{
    const float r = fmodf(x, y);
    if (r == 0)
        return copysignf(0, y);
    return (r < 0) != (y < 0) ? r + y : r;
}
