/* Contiguous loops behind k_vec: one function per formula and class of arithmetic. */
#ifndef KERNELS_LOOPS_H
#define KERNELS_LOOPS_H

#include "kernels/vec.h"

/* dst[i] = fn(x[i], y[i], z[i]); unused operands may be NULL; dst may equal an operand; p: three parameters.
 * Results that are bool are 1 and 0 of the element type. */
struct k_span_f32 {
    float *dst;
    const float *x, *y, *z;
    int64_t n;
    const float *p;
};
struct k_span_f64 {
    double *dst;
    const double *x, *y, *z;
    int64_t n;
    const float *p;
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
extern k_loop_f64 *const k_loops_f64[K_FN_end];
extern k_loop_int *const k_loops_i64[K_FN_end];
extern k_loop_int *const k_loops_u64[K_FN_end];

/* AVX2, FMA and F16C are there and not disabled (NPUC_SCALAR_ONLY at build time; k_simd_enable at run time, for tests).
 */
bool k_simd(void);
void k_simd_enable(bool on);

#endif
