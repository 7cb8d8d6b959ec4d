/* Building blocks of the multiply-accumulate forms, with a scalar and an AVX2 implementation that give the same bits.
 */
#ifndef KERNELS_MAC_PRIV_H
#define KERNELS_MAC_PRIV_H

#include "kernels/mac.h"

enum {
    K_TILE_N = 16,   /* columns of a tile: one fractal */
    K_TILE_M = 6,    /* most rows of a tile: 12 AVX2 accumulators, 2 operands, 1 broadcast */
    K_BLOCK_K = 256, /* b of a tile packed: 16 KiB, stays in the L1 cache */
    K_BLOCK_M = 64   /* rows of a converted at a time: 64 KiB */
};

/* c[r][0..16) (+)= sum over k of a(r, k) * b[k][0..16), rows 1..K_TILE_M, k ascending. a(r, k) is at
 * a[k/c0*a_step + r*c0 + k%c0]: a row block of a fractal operand. */
struct k_tile {
    const float *a;
    int64_t a_step;
    int64_t c0;
    const float *b;
    int64_t k;
    float *c;
    int64_t c_row;
    bool init;
};

/* One row times fractals of f32 with c0 = 8: c[n*c_step + 0..16) (+)= a[0..k) * b for n < n1; the fractal of column
 * block n and k block i begins at b + i*b_step + n*128. Groups of k outermost: b is read in the order in which it lies.
 */
struct k_row {
    const float *a, *b;
    int64_t b_step, n1, k;
    float *c;
    int64_t c_step;
};

struct k_mac_impl {
    void (*tile)(const struct k_tile *t, int rows);
    /* y[k][16] = x[n][k] for 16 rows of c0 floats, k < c0; c0 a multiple of 8 */
    void (*transpose)(float *y, const float *x, int64_t c0);
    void (*row)(const struct k_row *g);
    /* sum of x[i]*y[i] as int32, n a multiple of 32 */
    int32_t (*dot_i8)(const int8_t *x, const int8_t *y, int64_t n);
    /* y[c][8 rows] blocks: 8x8 transposes of 32-bit elements, cols a multiple of 8; see kernels/nz.c */
    void (*transpose8)(uint32_t *y, int64_t y_row, const uint32_t *x, int64_t x_row);
};
extern const struct k_mac_impl k_mac_scalar, k_mac_avx2;
const struct k_mac_impl *k_mac_impl(void);

#endif
