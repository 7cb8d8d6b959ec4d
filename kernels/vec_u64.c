/* Formulas on unsigned integers and bool. */
#define N        uint64_t
#define N_SIGNED 0
#include <stdint.h>
#define LOOPS_TABLE k_loops_u64
#include "kernels/vec_int.inc"
