/* Formulas on float, eight at a time. Built with -mavx2 -mfma -mf16c; empty in a scalar-only build. */
#if defined(__AVX2__) && !defined(NPUC_SCALAR_ONLY)
#include "kernels/simd_avx2.h"

#include "kernels/fmath.h"

#define LOOPS_TABLE k_loops_f32_avx2
#define LOOPS_SPAN k_span_f32
#define LOOPS_FN k_loop_f32
#include "kernels/loops.inc"
#else
#include "kernels/loops.h"
k_loop_f32 *const k_loops_f32_avx2[K_FN_end] = {0};
#endif
