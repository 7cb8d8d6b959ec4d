/* Block-quantised weights. */
#include "kernels/mac.h"
#include "kernels/wide.h"

bool k_dequant_takes(enum dtype code)
{
    return code == DT_U2 || code == DT_U4 || code == DT_U8 ||
           (dtype_is_float(code) && dtype_table[code].bits <= 8 && code != DT_F8E8M0);
}

enum dtype k_code_of_bits(int bits)
{
    return bits == 2 ? DT_U2 : bits == 4 ? DT_U4 : DT_U8;
}

void k_dequant_block(float *y, const uint8_t *codes, int64_t first, int64_t n, enum dtype code, float scale, float zero)
{
    static const uint8_t all[] = {0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe}; /* codes of 4 bits in order */
    const int bits = dtype_table[code].bits;
    const unsigned mask = (1u << bits) - 1;
    const bool whole = !dtype_is_float(code);
    float value[16];
    if (bits <= 4) {
        if (!whole)
            k_load_f32(value, code, all, 0, 16);
        for (unsigned q = 0; q <= mask; q++)
            value[q] = ((whole ? (float)q : value[q]) - zero) * scale;
        for (int64_t i = 0; i < n; i++) {
            const int64_t bit = (first + i) * bits;
            y[i] = value[codes[bit >> 3] >> (bit & 7) & mask];
        }
    } else if (whole) {
        for (int64_t i = 0; i < n; i++)
            y[i] = ((float)codes[first + i] - zero) * scale;
    } else {
        k_load_f32(y, code, codes, first, n);
        for (int64_t i = 0; i < n; i++)
            y[i] = (y[i] - zero) * scale;
    }
}
