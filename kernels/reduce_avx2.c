/* Lane-wise accumulation of rows, eight vectors of eight lanes; the same bits as kernels/reduce.c. */
#include "kernels/reduce_priv.h"

#include "kernels/simd_avx2.h"

/* a stays when it is NaN or beats x */
static inline vf maximum(vf a, vf x)
{
    return v_sel(v_ne(a, a), a, _mm256_max_ps(a, x));
}
static inline vf minimum(vf a, vf x)
{
    return v_sel(v_ne(a, a), a, _mm256_min_ps(a, x));
}

#define EACH(X)  X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#define START(i) vf a##i = v_load(acc + 8 * (i));
#define END(i)   v_store(acc + 8 * (i), a##i);
#define BLOCKS(name, value)                                                                                            \
    static void name(float *acc, const float *p, int64_t n)                                                            \
    {                                                                                                                  \
        EACH(START)                                                                                                    \
        for (const float *end = p + n; p < end; p += K_LANES) {                                                        \
            EACH(value)                                                                                                \
        }                                                                                                              \
        EACH(END)                                                                                                      \
    }
#define DO_SUM(i)    a##i = v_add(a##i, v_load(p + 8 * (i)));
#define DO_MAX(i)    a##i = maximum(a##i, v_load(p + 8 * (i)));
#define DO_MIN(i)    a##i = minimum(a##i, v_load(p + 8 * (i)));
#define DO_PROD(i)   a##i = v_mul(a##i, v_load(p + 8 * (i)));
#define DO_SUMSQ(i)  a##i = v_fma(v_load(p + 8 * (i)), v_load(p + 8 * (i)), a##i);
#define DO_ABSSUM(i) a##i = v_add(a##i, v_abs(v_load(p + 8 * (i))));
BLOCKS(blocks_sum, DO_SUM)
BLOCKS(blocks_max, DO_MAX)
BLOCKS(blocks_min, DO_MIN)
BLOCKS(blocks_prod, DO_PROD)
BLOCKS(blocks_sumsq, DO_SUMSQ)
BLOCKS(blocks_abssum, DO_ABSSUM)

#define TREE(name, combine)                                                                                            \
    static void name(float *v)                                                                                         \
    {                                                                                                                  \
        for (int half = K_LANES / 2; half >= V_LANES; half /= 2)                                                       \
            for (int i = 0; i < half; i += V_LANES)                                                                    \
                v_store(v + i, combine(v_load(v + i), v_load(v + half + i)));                                          \
    }
TREE(tree_sum, v_add)
TREE(tree_max, maximum)
TREE(tree_min, minimum)
TREE(tree_prod, v_mul)

int k_red_tree_avx2(enum k_red op, float *v)
{
    static void (*const by_op[])(float *) = {
        [K_RED_SUM] = tree_sum, [K_RED_MAX] = tree_max, [K_RED_MIN] = tree_min, [K_RED_PROD] = tree_prod};
    by_op[op](v);
    return V_LANES / 2;
}

void k_red_blocks_avx2(enum k_red op, float *acc, const float *x, int64_t n)
{
    static void (*const by_op[])(float *, const float *, int64_t) = {
        [K_RED_SUM] = blocks_sum,   [K_RED_MAX] = blocks_max,     [K_RED_MIN] = blocks_min,
        [K_RED_PROD] = blocks_prod, [K_RED_SUMSQ] = blocks_sumsq, [K_RED_ABSSUM] = blocks_abssum,
    };
    if (n > 0)
        by_op[op](acc, x, n);
}
