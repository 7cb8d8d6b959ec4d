/* Forms of casts for AVX2: see kernels/cast_avx2.c. */
#ifndef KERNELS_CAST_PRIV_H
#define KERNELS_CAST_PRIV_H

#include <stdint.h>

int64_t k_cast_i32_f32_avx2(float *y, const int32_t *x, int64_t n);
int64_t k_scale_f32_avx2(float *y, const float *scale, int64_t n); /* y *= scale */
int64_t k_trunc_32_avx2(int32_t *y, const float *x, int64_t n);
int64_t k_trunc_16_avx2(uint16_t *y, const float *x, int64_t n);
int64_t k_trunc_8_avx2(uint8_t *y, const float *x, int64_t n);

#endif
