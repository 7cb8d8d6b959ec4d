/* Contiguous loops behind k_vec: one function per formula and class of arithmetic. */
#ifndef KERNELS_LOOPS_H
#define KERNELS_LOOPS_H

#include "kernels/vec.h"

/* dst[i] = fn(x[i], y[i], z[i]); unused operands may be NULL; dst may equal an operand; p: three parameters.
 * Results that are bool are 1 and 0 of the element type. of[j] of a span of floats is -1, or 0 where all elements of
 * operand j are equal: K_SAME of them are there then. */
enum { K_SAME = 16 };
struct k_span_f32 {
    float *dst;
    const float *x, *y, *z;
    int64_t n;
    const float *p;
    int64_t of[3];
};
struct k_span_f64 {
    double *dst;
    const double *x, *y, *z;
    int64_t n;
    const float *p;
    int64_t of[3];
};
struct k_span_int { /* int64_t or uint64_t elements */
    void *dst;
    const void *x, *y, *z;
    int64_t n;
    const float *p;
};
typedef void k_loop_f32(const struct k_span_f32 *s);
typedef void k_loop_f64(const struct k_span_f64 *s);
typedef void k_loop_int(const struct k_span_int *s);

/* By formula number; NULL for an unused one. */
extern k_loop_f32 *const k_loops_f32[K_FN_end];
extern k_loop_f32 *const k_loops_f32_avx2[K_FN_end];
extern k_loop_f32 *const k_loops_f32_avx512[K_FN_end];
extern k_loop_f64 *const k_loops_f64[K_FN_end];
extern k_loop_int *const k_loops_i64[K_FN_end];
extern k_loop_int *const k_loops_u64[K_FN_end];

/* Forms that a kernel may have, each level with what the ones before it have. AVX2 stands for AVX2, FMA and F16C,
 * AVX512 for npuc_cpu_has_avx512. A kernel without a form of a level has that of the one below. */
enum k_simd_level { K_SIMD_NONE, K_SIMD_AVX2, K_SIMD_AVX512, K_SIMD_LEVELS };
enum k_simd_level k_simd(void);               /* of this CPU and build (NPUC_SCALAR_ONLY), no higher than the limit */
void k_simd_limit(enum k_simd_level at_most); /* for tests, before other threads run */

#endif
