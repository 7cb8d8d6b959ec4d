/* Formulas on signed integers. */
#define N        int64_t
#define N_SIGNED 1
#include <stdint.h>
#define LOOPS_TABLE k_loops_i64
#include "kernels/vec_int.inc"
