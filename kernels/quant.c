/* Block-quantised weights. */
#include "kernels/mac.h"

void k_dequant_block(float *y, const uint8_t *codes, int64_t first, int64_t n, int bits, float scale, float zero)
{
    const unsigned mask = (1u << bits) - 1;
    float value[16];
    if (bits <= 4) {
        for (unsigned q = 0; q <= mask; q++)
            value[q] = ((float)q - zero) * scale;
        for (int64_t i = 0; i < n; i++) {
            const int64_t bit = (first + i) * bits;
            y[i] = value[codes[bit >> 3] >> (bit & 7) & mask];
        }
    } else {
        for (int64_t i = 0; i < n; i++)
            y[i] = ((float)codes[first + i] - zero) * scale;
    }
}
