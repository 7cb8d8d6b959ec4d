/* Conversions between the float types; round to nearest even, NaN stays NaN: narrowing gives the canonical quiet NaN
 * of the narrow type with the sign kept, widening f16 keeps the payload and sets the quiet bit, widening bf16 keeps
 * all bits. Scalar forms are the definition; array forms give the same bits with SIMD. */
#ifndef BASE_HALF_H
#define BASE_HALF_H

#include "base/dtype.h"

#include <string.h>

static inline uint32_t half_float_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}
static inline float half_bits_float(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

float half_f16_to_f32(uint16_t h);
uint16_t half_f32_to_f16(float f);  /* overflow gives infinity */
uint16_t half_f64_to_f16(double d); /* one rounding */
float half_bf16_to_f32(uint16_t h);
uint16_t half_f32_to_bf16(float f);
/* Any of the 8-, 6- and 4-bit float types, one code in the low bits. saturate: out of range gives the largest
 * finite value instead of infinity or NaN (ONNX Cast's `saturate`); types without both always saturate, and there
 * NaN becomes a zero. F8E8M0 has no sign: the magnitude is converted. HIF8 is rounded half away from zero, as its
 * definition says; infinity stays what it is, saturate or not. */
float half_small_to_f32(enum dtype t, uint8_t code);
uint8_t half_f32_to_small(enum dtype t, float f, bool saturate);
enum half_round { HALF_NEAREST, HALF_UP, HALF_DOWN }; /* ONNX Cast's `round_mode`; UP is away from zero */
uint8_t half_f32_to_e8m0(float f, enum half_round round, bool saturate);

/* Of a small float format with one length of the mantissa: its bits, the exponent of the least normal number, the
 * largest number. */
struct half_shape {
    int mantissa, least;
    float most;
};
struct half_shape half_small_shape(enum dtype t);

float half_lowest(enum dtype t); /* most negative finite number of f16, bf16 or f32; of f64 that of f32 */

void half_f16_to_f32_n(float *y, const uint16_t *x, int64_t n);
void half_f32_to_f16_n(uint16_t *y, const float *x, int64_t n);
void half_bf16_to_f32_n(float *y, const uint16_t *x, int64_t n);
void half_f32_to_bf16_n(uint16_t *y, const float *x, int64_t n);

#endif
