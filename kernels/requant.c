/* Int32 sums back to 8 bits, as the fixpipe of a matrix unit does it. */
#include <math.h>

#include "kernels/op.h"

void k_requant(const struct k_requant *q, void *y, int64_t at, const int32_t *sums, int64_t n)
{
    const bool is_signed = q->type == DT_I8;
    const float lo = is_signed ? -128 : 0, hi = is_signed ? 127 : 255, zero = (float)q->zero;
    for (int64_t i = 0; i < n; i++) {
        float v = rintf((float)sums[i] * q->scale) + zero;
        v = v < lo ? lo : v > hi ? hi : v;
        v = v == v ? v : 0; /* from a scale of 0 / 0: what a cast makes of NaN */
        if (is_signed)
            ((int8_t *)y)[at + i] = (int8_t)v;
        else
            ((uint8_t *)y)[at + i] = (uint8_t)v;
    }
}
