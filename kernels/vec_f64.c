/* Formulas on double. */
#include "kernels/simd_f64.h"

#define LOOPS_TABLE k_loops_f64
#define LOOPS_SPAN  k_span_f64
#define LOOPS_FN    k_loop_f64
#include "kernels/loops.inc"
