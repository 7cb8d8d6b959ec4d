/* exp, log, tanh, erf, sin, cos ... on the vector operations of whichever simd_*.h was included before: one text for
 * the scalar and the SIMD form, hence the same bits. Every multiply-add that is fused is written as v_fma.
 *
 * exp, log, erf and the trigonometric polynomials follow the fused-multiply-add forms published by N. Juffa for
 * single precision; the rest is derived from them. Alternatives refused: libm (bits differ between versions and
 * machines), tables (gathers are slow). Measured errors: kernels/README.md. */
#ifndef KERNELS_FMATH_H
#define KERNELS_FMATH_H

#include "kernels/fmath_wide.h"

/* 2^i for i in [-126, 127] */
static inline vf v_pow2i(vi i)
{
    return v_of_bits(i_shl(i_add(i, i_k(127)), 23));
}

/* x = k*ln2 + r, |r| <= ln2/2; gives r and exp(r) = 1 + r + r*r*q: returns q */
static inline vf v_exp_split(vf x, vf *k, vf *r)
{
    *k = v_rint(v_mul(x, v_k(1.44269504f)));
    *r = v_fma(*k, v_k(-6.93145752e-1f), x);
    *r = v_fma(*k, v_k(-1.42860677e-6f), *r);
    vf q = v_fma(v_k(1.37805939e-3f), *r, v_k(8.37312452e-3f));
    q = v_fma(q, *r, v_k(4.16695364e-2f));
    q = v_fma(q, *r, v_k(1.66664720e-1f));
    return v_fma(q, *r, v_k(4.99999851e-1f));
}

static inline vf v_exp(vf x)
{
    const vf lo = v_max(v_min(x, v_k(89.0f)), v_k(-104.0f));
    vf k, r;
    vf q = v_exp_split(lo, &k, &r);
    q = v_fma(v_fma(q, r, v_k(1)), r, v_k(1));
    const vi e = i_of_real(k), half = i_sra(e, 1);
    const vf y = v_mul(v_mul(q, v_pow2i(half)), v_pow2i(i_sub(e, half)));
    return v_sel(v_ne(x, x), x, y);
}

static inline vf v_expm1(vf x)
{
    const vf lo = v_max(v_min(x, v_k(89.0f)), v_k(-20.0f));
    vf k, r;
    const vf q = v_exp_split(lo, &k, &r);
    const vf p = v_fma(q, v_mul(r, r), r);
    /* 2^k*p + 2^k - 1, halved so that k = 128 does not overflow early */
    const vf s = v_pow2i(i_sub(i_of_real(k), i_k(1)));
    const vf h = v_fma(s, p, v_sub(s, v_k(0.5f)));
    const vf y = v_sel(v_eq(k, v_k(0)), p, v_add(h, h));
    return v_sel(m_or(v_ne(x, x), v_eq(x, v_k(0))), x, y);
}

static inline vf v_log(vf x)
{
    const vm tiny = v_lt(x, v_k(1.175494351e-38f));
    const vf a = v_sel(tiny, v_mul(x, v_k(8388608.0f)), x);
    const vi e = i_and(i_sub(v_bits(a), i_k(0x3f2aaaab)), i_k((int32_t)0xff800000));
    const vf i = v_fma(v_of_int(e), v_k(1.19209290e-7f), v_sel(tiny, v_k(-23.0f), v_k(0)));
    const vf f = v_sub(v_of_bits(i_sub(v_bits(a), e)), v_k(1)); /* [-1/3, 1/3] */
    const vf s = v_mul(f, f);
    vf r = v_fma(v_k(-0.130310059f), f, v_k(0.140869141f));
    const vf t = v_fma(v_k(-0.121489234f), f, v_k(0.139814854f));
    r = v_fma(r, s, t);
    r = v_fma(r, f, v_k(-0.166846126f));
    r = v_fma(r, f, v_k(0.200120345f));
    r = v_fma(r, f, v_k(-0.249996200f));
    r = v_fma(r, f, v_k(0.333331972f));
    r = v_fma(r, f, v_k(-0.500000000f));
    r = v_fma(r, s, f);
    r = v_fma(i, v_k(0.693147182f), r);
    /* negative: NaN (x - x over 0); zero: -inf; inf and NaN: themselves */
    r = v_sel(v_lt(x, v_inf()), r, v_add(x, x));
    r = v_sel(v_eq(x, v_k(0)), v_neg(v_inf()), r);
    return v_sel(v_lt(x, v_k(0)), v_sub(v_inf(), v_inf()), r);
}

/* log(1 + x) for x >= 0 */
static inline vf v_log1p_pos(vf x)
{
    const vf u = v_add(v_k(1), x);
    return v_add(v_log(u), v_div(v_sub(x, v_sub(u, v_k(1))), u));
}

static inline vf v_sigmoid(vf x)
{
    const vf e = v_exp(v_neg(v_abs(x)));
    return v_div(v_sel(v_lt(x, v_k(0)), e, v_k(1)), v_add(v_k(1), e));
}

static inline vf v_softplus(vf x)
{
    return v_add(v_max(x, v_k(0)), v_log1p_pos(v_exp(v_neg(v_abs(x)))));
}

static inline vf v_tanh(vf x)
{
    const vf a = v_abs(x), s = v_mul(x, x);
    /* |x| < 0.6: odd polynomial, fitted for relative error 2^-28 */
    vf p = v_fma(v_k(-0.0058951592f), s, v_k(0.020795973f));
    p = v_fma(p, s, v_k(-0.05378383f));
    p = v_fma(p, s, v_k(0.13331924f));
    p = v_fma(p, s, v_k(-0.33333299f));
    p = v_fma(v_mul(p, s), x, x);
    const vf e = v_exp(v_add(a, a));
    const vf q = v_sub(v_k(1), v_div(v_k(2), v_add(e, v_k(1))));
    return v_sel(v_lt(a, v_k(0.6f)), p, v_copysign(q, x));
}

static inline vf v_erf(vf x)
{
    const vf t = v_abs(x), s = v_mul(x, x);
    vf r = v_fma(v_k(-1.72853470e-5f), t, v_k(3.83197126e-4f));
    const vf u = v_fma(v_k(-3.88396438e-3f), t, v_k(2.42546219e-2f));
    r = v_fma(r, s, u);
    r = v_fma(r, t, v_k(-1.06777877e-1f));
    r = v_fma(r, t, v_k(-6.34846687e-1f));
    r = v_fma(r, t, v_k(-1.28717512e-1f));
    r = v_fma(r, t, v_neg(t));
    r = v_copysign(v_sub(v_k(1), v_exp(r)), x);
    /* the polynomial falls without bound from 3.92 on, where erf is 1 in f32 */
    r = v_sel(v_gt(t, v_k(4.0f)), v_copysign(v_k(1), x), r);
    vf p = v_fma(v_k(-5.96761703e-4f), s, v_k(4.99119423e-3f));
    p = v_fma(p, s, v_k(-2.67681349e-2f));
    p = v_fma(p, s, v_k(1.12819925e-1f));
    p = v_fma(p, s, v_k(-3.76125336e-1f));
    p = v_fma(p, s, v_k(1.28379166e-1f));
    p = v_fma(p, x, x);
    return v_sel(v_ne(x, x), x, v_sel(v_gt(t, v_k(0.921875f)), r, p));
}

/* sin of x + quarter*pi/2 for |x| <= K_TRIG_MAX: three-part reduction by pi/2 */
static inline vf v_sin_near(vf x, int32_t quarter)
{
    const vf j = v_rint(v_mul(x, v_k(0.636619747f)));
    vf a = v_fma(j, v_k(-1.57079601e+00f), x);
    a = v_fma(j, v_k(-3.13916473e-07f), a);
    a = v_fma(j, v_k(-5.39030253e-15f), a);
    const vi i = i_add(i_of_real(j), i_k(quarter));
    const vf s = v_mul(a, a);
    vf c = v_fma(v_k(2.44677067e-5f), s, v_k(-1.38877297e-3f));
    c = v_fma(c, s, v_k(4.16666567e-2f));
    c = v_fma(c, s, v_k(-0.5f));
    c = v_fma(c, s, v_k(1));
    vf r = v_fma(v_k(2.86567956e-6f), s, v_k(-1.98559923e-4f));
    r = v_fma(r, s, v_k(8.33338592e-3f));
    r = v_fma(r, s, v_k(-1.66666672e-1f));
    r = v_fma(r, v_mul(a, s), a);
    r = v_sel(i_eq(i_and(i, i_k(1)), i_k(0)), r, c);
    return v_sel(i_eq(i_and(i, i_k(2)), i_k(0)), r, v_neg(r));
}
static inline vf v_sin(vf x)
{
    return m_all(v_le(v_abs(x), v_k(K_TRIG_MAX))) ? v_sel(v_eq(x, v_k(0)), x, v_sin_near(x, 0)) : v_each(k_sin, x);
}
static inline vf v_cos(vf x)
{
    return m_all(v_le(v_abs(x), v_k(K_TRIG_MAX))) ? v_sin_near(x, 1) : v_each(k_cos, x);
}

static inline vf v_pow(vf x, vf y)
{
    return m_all(v_eq(y, v_k(2))) ? v_mul(x, x) : v_each2(k_pow, x, y);
}
static inline vf v_mod(vf x, vf y)
{
    return v_each2(k_mod, x, y);
}
static inline vf v_fmod(vf x, vf y)
{
    return v_each2(k_fmod, x, y);
}
static inline vf v_tan(vf x)
{
    return v_each(k_tan, x);
}
static inline vf v_asin(vf x)
{
    return v_each(k_asin, x);
}
static inline vf v_acos(vf x)
{
    return v_each(k_acos, x);
}
static inline vf v_atan(vf x)
{
    return v_each(k_atan, x);
}
static inline vf v_sinh(vf x)
{
    return v_each(k_sinh, x);
}
static inline vf v_cosh(vf x)
{
    return v_each(k_cosh, x);
}
static inline vf v_asinh(vf x)
{
    return v_each(k_asinh, x);
}
static inline vf v_acosh(vf x)
{
    return v_each(k_acosh, x);
}
static inline vf v_atanh(vf x)
{
    return v_each(k_atanh, x);
}

#endif
