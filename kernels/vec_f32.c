/* Formulas on float, scalar: the definition, and the form for machines without AVX2. */
#include "kernels/simd_scalar.h"

#include "kernels/fmath.h"

#define LOOPS_TABLE k_loops_f32
#define LOOPS_SPAN  k_span_f32
#define LOOPS_FN    k_loop_f32
#include "kernels/loops.inc"

float k_exp(float x)
{
    return v_exp(x);
}
float k_log(float x)
{
    return v_log(x);
}
float k_tanh(float x)
{
    return v_tanh(x);
}
float k_erf(float x)
{
    return v_erf(x);
}
float k_sin(float x)
{
    return fabsf(x) <= K_TRIG_MAX ? v_sin(x) : k_sin_far(x, 0);
}
float k_cos(float x)
{
    return fabsf(x) <= K_TRIG_MAX ? v_cos(x) : k_sin_far(x, 1);
}
