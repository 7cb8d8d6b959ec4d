/* The vector operations of kernels/simd_scalar.h on sixteen floats. Every operation rounds exactly as its scalar form.
 */
#ifndef KERNELS_SIMD_AVX512_H
#define KERNELS_SIMD_AVX512_H

#include <immintrin.h>

#include "base/compiler.h"

typedef float real;
typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 vm;
#define V_LANES 16

static inline vf v_k(float c)
{
    return _mm512_set1_ps(c);
}
static inline vf v_inf(void)
{
    return _mm512_set1_ps(__builtin_inff());
}
static inline vf v_load(const real *p)
{
    return _mm512_loadu_ps(p);
}
static inline void v_store(real *p, vf x)
{
    _mm512_storeu_ps(p, x);
}
static inline vm v_first_n(int64_t n) /* the first n lanes */
{
    return (vm)((1u << n) - 1);
}
static inline vf v_load_n(const real *p, int64_t n)
{
    return _mm512_maskz_loadu_ps(v_first_n(n), p);
}
static inline void v_store_n(real *p, vf x, int64_t n)
{
    _mm512_mask_storeu_ps(p, v_first_n(n), x);
}

static inline vf v_add(vf x, vf y)
{
    return _mm512_add_ps(x, y);
}
static inline vf v_sub(vf x, vf y)
{
    return _mm512_sub_ps(x, y);
}
static inline vf v_mul(vf x, vf y)
{
    return _mm512_mul_ps(x, y);
}
static inline vf v_div(vf x, vf y)
{
    return _mm512_div_ps(x, y);
}
static inline vf v_fma(vf x, vf y, vf z)
{
    return _mm512_fmadd_ps(x, y, z);
}
static inline vf v_sqrt(vf x)
{
    return _mm512_sqrt_ps(x);
}
static inline vf v_abs(vf x)
{
    return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), x);
}
static inline vf v_neg(vf x)
{
    return _mm512_xor_ps(_mm512_set1_ps(-0.0f), x);
}
static inline vf v_copysign(vf x, vf s)
{
    const vf sign = _mm512_set1_ps(-0.0f);
    return _mm512_or_ps(_mm512_andnot_ps(sign, x), _mm512_and_ps(sign, s));
}
static inline vf v_ceil(vf x)
{
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC);
}
static inline vf v_floor(vf x)
{
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
static inline vf v_rint(vf x)
{
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static inline vm v_eq(vf x, vf y)
{
    return _mm512_cmp_ps_mask(x, y, _CMP_EQ_OQ);
}
static inline vm v_ne(vf x, vf y)
{
    return _mm512_cmp_ps_mask(x, y, _CMP_NEQ_UQ);
}
static inline vm v_lt(vf x, vf y)
{
    return _mm512_cmp_ps_mask(x, y, _CMP_LT_OQ);
}
static inline vm v_le(vf x, vf y)
{
    return _mm512_cmp_ps_mask(x, y, _CMP_LE_OQ);
}
static inline vm v_gt(vf x, vf y)
{
    return _mm512_cmp_ps_mask(x, y, _CMP_GT_OQ);
}
static inline vm v_ge(vf x, vf y)
{
    return _mm512_cmp_ps_mask(x, y, _CMP_GE_OQ);
}
static inline vm m_and(vm a, vm b)
{
    return (vm)(a & b);
}
static inline vm m_or(vm a, vm b)
{
    return (vm)(a | b);
}
static inline bool m_all(vm a)
{
    return a == 0xffff;
}
static inline vf v_sel(vm m, vf x, vf y)
{
    return _mm512_mask_blend_ps(m, y, x);
}
/* maxps gives its second operand when either is NaN; the select keeps a NaN in x. */
static inline vf v_max(vf x, vf y)
{
    return v_sel(v_ne(x, x), x, _mm512_max_ps(x, y));
}
static inline vf v_min(vf x, vf y)
{
    return v_sel(v_ne(x, x), x, _mm512_min_ps(x, y));
}

static inline vi v_bits(vf x)
{
    return _mm512_castps_si512(x);
}
static inline vf v_of_bits(vi i)
{
    return _mm512_castsi512_ps(i);
}
static inline vf v_binade(vf x)
{
    return _mm512_and_ps(x, _mm512_castsi512_ps(_mm512_set1_epi32((int32_t)0xff800000)));
}
static inline vi i_k(int32_t c)
{
    return _mm512_set1_epi32(c);
}
static inline vi i_add(vi a, vi b)
{
    return _mm512_add_epi32(a, b);
}
static inline vi i_sub(vi a, vi b)
{
    return _mm512_sub_epi32(a, b);
}
static inline vi i_and(vi a, vi b)
{
    return _mm512_and_si512(a, b);
}
#define i_shl(a, n) _mm512_slli_epi32((a), (n))
#define i_sra(a, n) _mm512_srai_epi32((a), (n))
static inline vm i_eq(vi a, vi b)
{
    return _mm512_cmpeq_epi32_mask(a, b);
}
static inline vi i_of_real(vf x)
{
    return _mm512_cvttps_epi32(x);
}
static inline vf v_of_int(vi a)
{
    return _mm512_cvtepi32_ps(a);
}

/* Lane by lane, for functions that have a scalar form only. */
static inline vf v_each(float (*f)(float), vf x)
{
    float t[V_LANES];
    v_store(t, x);
    for (int i = 0; i < V_LANES; i++)
        t[i] = f(t[i]);
    return v_load(t);
}
static inline vf v_each2(float (*f)(float, float), vf x, vf y)
{
    float t[V_LANES], u[V_LANES];
    v_store(t, x);
    v_store(u, y);
    for (int i = 0; i < V_LANES; i++)
        t[i] = f(t[i], u[i]);
    return v_load(t);
}

#endif
