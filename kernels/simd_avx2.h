/* The vector operations of kernels/simd_scalar.h on eight floats. Every operation rounds exactly as its scalar form. */
#ifndef KERNELS_SIMD_AVX2_H
#define KERNELS_SIMD_AVX2_H

#include <immintrin.h>

#include "base/compiler.h"

typedef float real;
typedef __m256 vf;
typedef __m256i vi;
typedef __m256 vm;
#define V_LANES 8

static inline vf v_k(float c)
{
    return _mm256_set1_ps(c);
}
static inline vf v_inf(void)
{
    return _mm256_set1_ps(__builtin_inff());
}
static inline vf v_load(const real *p)
{
    return _mm256_loadu_ps(p);
}
static inline void v_store(real *p, vf x)
{
    _mm256_storeu_ps(p, x);
}
static inline vi v_first_n(int64_t n) /* all bits set in the first n lanes */
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vf v_load_n(const real *p, int64_t n)
{
    return _mm256_maskload_ps(p, v_first_n(n));
}
static inline void v_store_n(real *p, vf x, int64_t n)
{
    _mm256_maskstore_ps(p, v_first_n(n), x);
}

static inline vf v_add(vf x, vf y)
{
    return _mm256_add_ps(x, y);
}
static inline vf v_sub(vf x, vf y)
{
    return _mm256_sub_ps(x, y);
}
static inline vf v_mul(vf x, vf y)
{
    return _mm256_mul_ps(x, y);
}
static inline vf v_div(vf x, vf y)
{
    return _mm256_div_ps(x, y);
}
static inline vf v_fma(vf x, vf y, vf z)
{
    return _mm256_fmadd_ps(x, y, z);
}
static inline vf v_sqrt(vf x)
{
    return _mm256_sqrt_ps(x);
}
static inline vf v_abs(vf x)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
}
static inline vf v_neg(vf x)
{
    return _mm256_xor_ps(_mm256_set1_ps(-0.0f), x);
}
static inline vf v_copysign(vf x, vf s)
{
    const vf sign = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_andnot_ps(sign, x), _mm256_and_ps(sign, s));
}
static inline vf v_ceil(vf x)
{
    return _mm256_ceil_ps(x);
}
static inline vf v_floor(vf x)
{
    return _mm256_floor_ps(x);
}
static inline vf v_rint(vf x)
{
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static inline vm v_eq(vf x, vf y)
{
    return _mm256_cmp_ps(x, y, _CMP_EQ_OQ);
}
static inline vm v_ne(vf x, vf y)
{
    return _mm256_cmp_ps(x, y, _CMP_NEQ_UQ);
}
static inline vm v_lt(vf x, vf y)
{
    return _mm256_cmp_ps(x, y, _CMP_LT_OQ);
}
static inline vm v_le(vf x, vf y)
{
    return _mm256_cmp_ps(x, y, _CMP_LE_OQ);
}
static inline vm v_gt(vf x, vf y)
{
    return _mm256_cmp_ps(x, y, _CMP_GT_OQ);
}
static inline vm v_ge(vf x, vf y)
{
    return _mm256_cmp_ps(x, y, _CMP_GE_OQ);
}
static inline vm m_and(vm a, vm b)
{
    return _mm256_and_ps(a, b);
}
static inline vm m_or(vm a, vm b)
{
    return _mm256_or_ps(a, b);
}
static inline bool m_all(vm a)
{
    return _mm256_movemask_ps(a) == 0xff;
}
static inline vf v_sel(vm m, vf x, vf y)
{
    return _mm256_blendv_ps(y, x, m);
}
/* maxps gives its second operand when either is NaN; the select keeps a NaN in x. */
static inline vf v_max(vf x, vf y)
{
    return v_sel(v_ne(x, x), x, _mm256_max_ps(x, y));
}
static inline vf v_min(vf x, vf y)
{
    return v_sel(v_ne(x, x), x, _mm256_min_ps(x, y));
}

static inline vi v_bits(vf x)
{
    return _mm256_castps_si256(x);
}
static inline vf v_of_bits(vi i)
{
    return _mm256_castsi256_ps(i);
}
static inline vf v_binade(vf x)
{
    return _mm256_and_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32((int32_t)0xff800000)));
}
static inline vi i_k(int32_t c)
{
    return _mm256_set1_epi32(c);
}
static inline vi i_add(vi a, vi b)
{
    return _mm256_add_epi32(a, b);
}
static inline vi i_sub(vi a, vi b)
{
    return _mm256_sub_epi32(a, b);
}
static inline vi i_and(vi a, vi b)
{
    return _mm256_and_si256(a, b);
}
#define i_shl(a, n) _mm256_slli_epi32((a), (n))
#define i_sra(a, n) _mm256_srai_epi32((a), (n))
static inline vm i_eq(vi a, vi b)
{
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(a, b));
}
static inline vi i_of_real(vf x)
{
    return _mm256_cvttps_epi32(x);
}
static inline vf v_of_int(vi a)
{
    return _mm256_cvtepi32_ps(a);
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
