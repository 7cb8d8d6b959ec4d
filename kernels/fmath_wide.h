/* Functions of one float computed in double without libm and rounded once: those that models call rarely, and the wide
 * ranges of sin and cos. */
#ifndef KERNELS_FMATH_WIDE_H
#define KERNELS_FMATH_WIDE_H

#include "kernels/vec.h"

#define K_TRIG_MAX 71476.0625f /* beyond: exact reduction by the bits of 2/pi */

double k_exp_wide(double x);
double k_log_wide(double x);
float k_sin_far(float x, int quarter); /* sin of x + quarter*pi/2 for |x| beyond K_TRIG_MAX, infinity and NaN */
float k_mod(float x, float y);         /* sign of y, as Python's % */
float k_fmod(float x, float y);        /* sign of x, as C's fmod */
float k_tan(float x);
float k_asin(float x);
float k_acos(float x);
float k_atan(float x);
float k_sinh(float x);
float k_cosh(float x);
float k_asinh(float x);
float k_acosh(float x);
float k_atanh(float x);

#endif
