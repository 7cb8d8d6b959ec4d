/* Formulas on float, sixteen at a time; not part of a scalar build. */
#include "kernels/simd_avx512.h"

#include "kernels/fmath.h"

#define LOOPS_TABLE k_loops_f32_avx512
#define LOOPS_SPAN  k_span_f32
#define LOOPS_FN    k_loop_f32
#include "kernels/loops.inc"
