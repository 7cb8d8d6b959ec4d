/* Building blocks of the multiply-accumulate forms, with an implementation per level of SIMD that give the same bits.
 */
#ifndef KERNELS_MAC_PRIV_H
#define KERNELS_MAC_PRIV_H

#include "kernels/mac.h"

enum {
    K_TILE_N = 16,   /* columns of a tile: one fractal */
    K_TILE_M = 16,   /* most rows of a tile: one fractal */
    K_BLOCK_K = 256, /* cells along K at a time: b of a tile packed is 16 KiB, which stay in the L1 cache */
    K_BLOCK_M = 64   /* rows of a converted at a time where K_BLOCK_K cells of each are: 64 KiB */
};

/* c[r][0..16) (+)= sum over k of a(r, k) * b[k][0..16), rows 1..K_TILE_M, k ascending. a(r, k) is at
 * a[k/c0*a_step + r*c0 + k%c0]: a row block of a fractal operand. Cells of 4 bytes: floats, or, for integers of 8 bits,
 * pairs of int16 along K (k and c0 count pairs) whose sums are int32, or four signed bytes along K, those of a plus
 * 128; there row k of b starts the sums: end_quads. */
struct k_tile {
    const void *a;
    int64_t a_step;
    int64_t c0;
    const void *b;
    int64_t k;
    void *c;
    int64_t c_row;
    bool init;
};

/* One row times fractals as they lie: c[n*c_step + 0..16) (+)= a[0..k) * b for n < n1; the fractal of column block n
 * and group i along K begins at b + i*b_step + n*512 bytes. Groups of k outermost: b is read in the order in which it
 * lies. a: floats (f32, f16, bf16), or int16 up to the end of the last group, zeros beyond k (i8). */
enum k_row_type { K_ROW_F32, K_ROW_F16, K_ROW_BF16, K_ROW_I8, K_ROW_TYPES };
struct k_row {
    const void *a;
    const char *b;
    int64_t b_step, n1, k;
    void *c;
    int64_t c_step; /* elements */
};

/* The same with codes: 16 rows of them are the columns c[0..16), wherever they lie; a: k floats. */
enum { K_STRIP_K = 1024 }; /* most elements along K */
struct k_strip {
    const struct k_code_rows *w;                       /* types and blocks */
    const uint8_t *codes[16], *scales[16], *zeros[16]; /* rows at code, scale and zero 0 */
    int64_t first, k;                                  /* codes first .. first + k of each */
    const float *a;
    float *c;
};

struct k_mac_impl {
    void (*tile)(const struct k_tile *t, int rows);
    /* y[k][16] = x[n][k] for 16 rows of c0 cells, k < c0; c0 a multiple of 8 */
    void (*transpose)(float *y, const float *x, int64_t c0);
    void (*tile_pairs)(const struct k_tile *t, int rows);
    /* NULL where pairs take their place. quads_of: n cells of a, a multiple of 16; end_quads: b[k][n] = -128 * the sum
     * of the bytes of b[0..k)[n] */
    void (*tile_quads)(const struct k_tile *t, int rows);
    void (*quads_of)(void *y, const void *x, int64_t n);
    void (*end_quads)(int32_t *b, int64_t k);
    /* y[k][16] of a fractal as it is stored, floats widened, bytes in fours; NULL: widen and transpose */
    void (*turn[K_ROW_TYPES])(void *y, const void *x);
    void (*row[K_ROW_TYPES])(const struct k_row *g);
    void (*widen_i8)(int16_t *y, const int8_t *x, int64_t n); /* n a multiple of 32 */
    /* sum of x[i]*y[i] as int32, n a multiple of 32 */
    int32_t (*dot_i8)(const int8_t *x, const int8_t *y, int64_t n);
    /* y[c][8 rows] blocks: 8x8 transposes of 32-bit elements, cols a multiple of 8; see kernels/nz.c */
    void (*transpose8)(uint32_t *y, int64_t y_row, const uint32_t *x, int64_t x_row);
};
extern const struct k_mac_impl k_mac_scalar, k_mac_avx2, k_mac_avx512;
enum k_row_type k_row_type(enum dtype t); /* K_ROW_TYPES: fractals of it have no forms of their own */
bool k_is_whole(enum dtype t);            /* 8-bit integers: pairs in cells */
const struct k_mac_impl *k_mac_impl(void);
/* Forms that higher levels take over. */
void k_tile_avx2(const struct k_tile *t, int rows);
void k_tile_pairs_avx2(const struct k_tile *t, int rows);
void k_transpose_avx2(float *y, const float *x, int64_t c0);
void k_widen_i8_avx2(int16_t *y, const int8_t *x, int64_t n);
int32_t k_dot_avx2(const int8_t *x, const int8_t *y, int64_t n);
void k_transpose8_avx2(uint32_t *y, int64_t y_row, const uint32_t *x, int64_t x_row);
void k_row_f32_avx2(const struct k_row *g);
void k_row_f16_avx2(const struct k_row *g);
void k_row_bf16_avx2(const struct k_row *g);
void k_row_i8_avx2(const struct k_row *g);
void k_row_f16_avx512(const struct k_row *g);
void k_row_bf16_avx512(const struct k_row *g);
void k_row_i8_avx512(const struct k_row *g);
/* false: a scale or zero point is not finite, and c stays as it is. */
bool k_strip_avx2(const struct k_strip *g);
/* One strip, or two of the same rows and k; false: c stays as it is, another form is to be used. */
bool k_strips_avx512(const struct k_strip *s, int n);

#endif
