/* Block-quantised weights. */
#include "kernels/quant_priv.h"

#include "kernels/loops.h"
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

static float scale_of(const struct k_code_rows *g, int64_t row, int64_t block)
{
    float s;
    k_load_f32(&s, g->scale_type, g->scales + row * g->scale_row, block, 1);
    return s;
}
static float zero_of(const struct k_code_rows *g, int64_t row, int64_t block)
{
    const int bits = dtype_table[g->code].bits;
    float z = dtype_is_float(g->code) ? 0 : (float)(1 << (bits - 1));
    if (g->zero == K_ZERO_CODES)
        z = (float)(g->zeros[row * g->zero_row + block * bits / 8] >> (block * bits % 8) & ((1 << bits) - 1));
    else if (g->zero == K_ZERO_VALUES)
        k_load_f32(&z, g->scale_type, g->zeros + row * g->zero_row, block, 1);
    return z;
}

void k_dequant_row(const struct k_code_rows *g, int64_t row)
{
    float part[256];
    const uint8_t *codes = g->codes + row * g->code_row;
    for (int64_t done = 0; done < g->cols;) { /* block by block */
        const int64_t at = g->first + done, block = at / g->block, left = g->cols - done;
        int64_t n = (block + 1) * g->block - at;
        n = n < left ? n : left;
        n = n < NPUC_ARRAY_LEN(part) ? n : NPUC_ARRAY_LEN(part);
        uint8_t *y = g->dst + row * g->dst_row;
        int64_t to = done;
        if (g->group) {
            const int64_t room = g->group - done % g->group;
            y += done / g->group * g->group_step;
            to = done % g->group;
            n = n < room ? n : room;
        }
        k_dequant_block(part, codes, at, n, g->code, scale_of(g, row, block), zero_of(g, row, block));
        if (dtype_is_float(g->to))
            k_narrow(g->to, y, to, part, n, true);
        else /* whole numbers: bytes for a product of integers */
            k_cast(g->to, y + to * dtype_size(g->to), DT_F32, part, n, true);
        done += n;
    }
}

void k_dequant_rows(const struct k_code_rows *g)
{
#ifndef NPUC_SCALAR_ONLY
    if (k_simd() && k_dequant_rows_avx2(g))
        return;
#endif
    for (int64_t r = 0; r < g->rows; r++)
        k_dequant_row(g, r);
}
