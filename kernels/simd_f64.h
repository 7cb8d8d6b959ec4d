/* The vector operations of kernels/simd_scalar.h on one double, with libm's functions. */
#ifndef KERNELS_SIMD_F64_H
#define KERNELS_SIMD_F64_H

#include <math.h>
#include <string.h>

#include "base/compiler.h"

typedef double real;
typedef double vf;
typedef bool vm;
#define V_LANES 1

static inline vf v_k(double c)
{
    return c;
}
static inline vf v_inf(void)
{
    return (double)INFINITY;
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
    return fma(x, y, z);
}
static inline vf v_neg(vf x)
{
    return -x;
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
static inline vf v_sel(vm m, vf x, vf y)
{
    return m ? x : y;
}
static inline vf v_max(vf x, vf y)
{
    return x != x ? x : x > y ? x : y;
}
static inline vf v_min(vf x, vf y)
{
    return x != x ? x : x < y ? x : y;
}

static inline vf v_binade(vf x)
{
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    u &= UINT64_C(0xfff0000000000000);
    memcpy(&x, &u, sizeof x);
    return x;
}

#define v_abs   fabs
#define v_sqrt  sqrt
#define v_ceil  ceil
#define v_floor floor
#define v_rint  rint
#define v_exp   exp
#define v_expm1 expm1
#define v_log   log
#define v_erf   erf
#define v_sin   sin
#define v_cos   cos
#define v_tan   tan
#define v_asin  asin
#define v_acos  acos
#define v_atan  atan
#define v_sinh  sinh
#define v_cosh  cosh
#define v_tanh  tanh
#define v_asinh asinh
#define v_acosh acosh
#define v_atanh atanh
#define v_pow   pow
#define v_fmod  fmod
static inline vf v_sigmoid(vf x)
{
    const vf e = exp(-fabs(x));
    return (x < 0 ? e : 1) / (1 + e);
}
static inline vf v_softplus(vf x)
{
    return v_max(x, 0) + log1p(exp(-fabs(x)));
}
static inline vf v_mod(vf x, vf y) /* sign of y, as Python's % */
{
    const vf r = fmod(x, y);
    if (r == 0)
        return copysign(0, y);
    return (r < 0) != (y < 0) ? r + y : r;
}

#endif
