/* Conversions between the float types; round to nearest even, NaN stays NaN (quiet, payload dropped to the
 * canonical NaN of the narrow type). Scalar forms are the definition; array forms give the same bits with SIMD. */
#ifndef BASE_HALF_H
#define BASE_HALF_H

#include "base/dtype.h"

float half_f16_to_f32(uint16_t h);
uint16_t half_f32_to_f16(float f);      /* overflow gives infinity */
uint16_t half_f64_to_f16(double d);     /* one rounding */
float half_bf16_to_f32(uint16_t h);
uint16_t half_f32_to_bf16(float f);
/* Any of the 8-, 6- and 4-bit float types, one code in the low bits. saturate: out of range gives the largest
 * finite value instead of infinity or NaN (ONNX Cast's `saturate`). */
float half_small_to_f32(enum dtype t, uint8_t code);
uint8_t half_f32_to_small(enum dtype t, float f, bool saturate);

void half_f16_to_f32_n(float *y, const uint16_t *x, int64_t n);
void half_f32_to_f16_n(uint16_t *y, const float *x, int64_t n);
void half_bf16_to_f32_n(float *y, const uint16_t *x, int64_t n);
void half_f32_to_bf16_n(uint16_t *y, const float *x, int64_t n);

#endif
