/* The AVX2/F16C array forms; each converts a multiple of 8 elements and returns how many it did. */
#ifndef BASE_HALF_PRIV_H
#define BASE_HALF_PRIV_H

#include "base/compiler.h"

int64_t half_f16_to_f32_avx2(float *y, const uint16_t *x, int64_t n);
int64_t half_f32_to_f16_avx2(uint16_t *y, const float *x, int64_t n);
int64_t half_bf16_to_f32_avx2(float *y, const uint16_t *x, int64_t n);
int64_t half_f32_to_bf16_avx2(uint16_t *y, const float *x, int64_t n);

#endif
