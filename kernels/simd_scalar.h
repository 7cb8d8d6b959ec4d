/* The vector operations of the formulas on one float: the portable form and the definition of every bit.
 * kernels/simd_avx2.h has the same names on eight floats; kernels/fmath.h builds the functions from them. */
#ifndef KERNELS_SIMD_SCALAR_H
#define KERNELS_SIMD_SCALAR_H

#include <math.h>
#include <string.h>

#include "base/compiler.h"

typedef float real;
typedef float vf;
typedef int32_t vi;
typedef bool vm;
#define V_LANES 1

static inline vf v_k(float c)
{
    return c;
}
static inline vf v_inf(void)
{
    return INFINITY;
}
static inline vf v_load(const real *p)
{
    return *p;
}
static inline void v_store(real *p, vf x)
{
    *p = x;
}
static inline vf v_load_n(const real *p, int64_t n)
{
    (void)n;
    return *p;
}
static inline void v_store_n(real *p, vf x, int64_t n)
{
    (void)n;
    *p = x;
}

static inline vf v_add(vf x, vf y)
{
    return x + y;
}
static inline vf v_sub(vf x, vf y)
{
    return x - y;
}
static inline vf v_mul(vf x, vf y)
{
    return x * y;
}
static inline vf v_div(vf x, vf y)
{
    return x / y;
}
static inline vf v_fma(vf x, vf y, vf z)
{
    return fmaf(x, y, z);
}
static inline vf v_sqrt(vf x)
{
    return sqrtf(x);
}
static inline vf v_abs(vf x)
{
    return fabsf(x);
}
static inline vf v_neg(vf x)
{
    return -x;
}
static inline vf v_copysign(vf x, vf s)
{
    return copysignf(x, s);
}
static inline vf v_ceil(vf x)
{
    return ceilf(x);
}
static inline vf v_floor(vf x)
{
    return floorf(x);
}
static inline vf v_rint(vf x)
{
    return rintf(x);
}

static inline vm v_eq(vf x, vf y)
{
    return x == y;
}
static inline vm v_ne(vf x, vf y)
{
    return x != y;
}
static inline vm v_lt(vf x, vf y)
{
    return x < y;
}
static inline vm v_le(vf x, vf y)
{
    return x <= y;
}
static inline vm v_gt(vf x, vf y)
{
    return x > y;
}
static inline vm v_ge(vf x, vf y)
{
    return x >= y;
}
static inline vm m_and(vm a, vm b)
{
    return a && b;
}
static inline vm m_or(vm a, vm b)
{
    return a || b;
}
static inline bool m_all(vm a)
{
    return a;
}
static inline vf v_sel(vm m, vf x, vf y)
{
    return m ? x : y;
}
static inline vf v_max(vf x, vf y)
{
    return x != x ? x : x > y ? x : y;
} /* NaN wins */
static inline vf v_min(vf x, vf y)
{
    return x != x ? x : x < y ? x : y;
}

static inline vi v_bits(vf x)
{
    vi i;
    memcpy(&i, &x, sizeof i);
    return i;
}
static inline vf v_of_bits(vi i)
{
    vf x;
    memcpy(&x, &i, sizeof x);
    return x;
}
/* The mantissa's bits cleared: the power of two at or below |x|, with its sign; 0 below the normal numbers. */
static inline vf v_binade(vf x)
{
    return v_of_bits(v_bits(x) & (vi)0xff800000);
}
static inline vi i_k(int32_t c)
{
    return c;
}
static inline vi i_add(vi a, vi b)
{
    return (vi)((uint32_t)a + (uint32_t)b);
}
static inline vi i_sub(vi a, vi b)
{
    return (vi)((uint32_t)a - (uint32_t)b);
}
static inline vi i_and(vi a, vi b)
{
    return a & b;
}
#define i_shl(a, n) ((vi)((uint32_t)(a) << (n)))
#define i_sra(a, n) ((a) >> (n))
static inline vm i_eq(vi a, vi b)
{
    return a == b;
}
static inline vi i_of_real(vf x)
{
    return (vi)x;
} /* of an integral value in range */
static inline vf v_of_int(vi a)
{
    return (vf)a;
}

static inline vf v_each(float (*f)(float), vf x)
{
    return f(x);
}
static inline vf v_each2(float (*f)(float, float), vf x, vf y)
{
    return f(x, y);
}

#endif
