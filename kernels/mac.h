/* Multiply-accumulate: the arithmetic of the matrix units.
 *
 * Definition (DESIGN section 7): for every (m, n), acc starts at the given value; for k ascending
 * acc = fma(a[m][k], b[k][n], acc) in f32, where f16, bf16 and narrower floats are widened exactly; integers
 * accumulate in int32 (wrapping). Padding with zeros at the end of K leaves the bits unchanged (except -0 + 0).
 * All forms below give the same bits, SIMD or scalar (scalar uses fmaf). */
#ifndef KERNELS_MAC_H
#define KERNELS_MAC_H

#include "base/dtype.h"

/* Fractal operands, as in the L0 buffers of an Ascend core (C0 = 32 bytes / element size; f32: 8, f16: 16, i8: 32):
 *   a: zZ   [M1][K1][16][C0]   element (m,k) at ((m/16*K1 + k/C0)*16 + m%16)*C0 + k%C0
 *   b: nZ   [K1][N1][16][C0]   element (k,n) at ((k/C0*N1 + n/16)*16 + n%16)*C0 + k%C0
 *   c: NZ   [N1][M1*16][16]    element (m,n) at (n/16*M1*16 + m)*16 + n%16, f32 or i32
 * m, n, k are the real extents; M1, N1, K1 their fractal counts. Rows m..M1*16 of a may hold anything (they are not
 * computed); k..K1*C0 must not be read as values. Columns n..N1*16 are computed from whatever b holds there. */
struct k_mac_args {
    enum dtype dtype; /* of a and b: F32, F16, BF16, I8 (acc i32), F8E4M3FN ... */
    int64_t m, n, k;
    const void *a, *b;
    void *c;
    bool init;       /* true: acc starts at 0; false: at c */
    int64_t b_pitch; /* elements from one k1 of b to the next; 0: N1*16*C0 */
};
bool k_mac_supports(enum dtype t);
bool k_mac_takes_rows(enum dtype t); /* by k_matmul on rows: those, and i16 */
void k_mac_fractal(const struct k_mac_args *g);

/* Codes with block scales: element (row, k) of an operand is its code times 2^(scale - 127), a scale byte (f8e8m0) for
 * every `block` codes of a row along K; 255 is NaN. The product with the power is exact in f32 but for what exceeds its
 * range, which is infinite; from there on the definition above holds. Both types from k_mac_takes_scales: f8e4m3fn,
 * f8e5m2, f4e2m1 (two codes to a byte, low bits first; C0 = 64 codes). Scales lie in fractals of 16 rows x 2, scale j
 * of row r at ((r/16*ceil(J/2) + j/2)*16 + r%16)*2 + j%2 with J = ceil(k/block). g->dtype is the type of a; b_pitch is
 * 0. */
struct k_mac_scales {
    enum dtype b_dtype; /* of as many bits as a's */
    int64_t block;      /* divides C0, or C0 divides it */
    const uint8_t *a, *b;
};
bool k_mac_takes_scales(enum dtype t);
bool k_mac_takes_codes(enum dtype t); /* without scales: those and hif8 */
void k_mac_scaled(const struct k_mac_args *g, const struct k_mac_scales *s);
/* v[i] of n elements of a row, from element `first` on, times the scale of its block. */
void k_scale_blocks(float *v, int64_t first, int64_t n, const uint8_t *scales, int64_t step, int64_t block);

/* The same on strided matrices: a[m*a_row + k*a_col], b[k*b_row + n*b_col], c[m*c_row + n] = sum (f32 or i32, no
 * narrowing). The reference form, also used by host operators. bias: NULL or n starting values of c's type.
 * Besides the dtypes above: f64 (c double), 16- and 32-bit integers (c 32 bits), 64-bit integers (c 64 bits). */
struct k_matmul_args {
    enum dtype dtype;
    int64_t m, n, k;
    const void *a, *b;
    int64_t a_row, a_col, b_row, b_col;
    void *c;
    int64_t c_row;
    const void *bias;
    bool adds; /* the starting values are those in c; without bias */
};
struct pool;
void k_matmul(const struct k_matmul_args *g, struct pool *pool);

/* Sums as they leave a matrix unit of rows: n elements of to(f32(sum) * factor + bias), sums f32 or i32, `to` a float,
 * bias n floats or NULL; f32 after each step. A factor of 1 is no step. */
void k_mac_out(enum dtype to, void *dst, enum dtype sum, const void *c, int64_t n, float factor, const float *bias);

/* Layout changes between a dense matrix and the C1-R-C0 form ("NZ": [ceil(cols/c0)][rows_pad][c0], element (r,c) at
 * (c/c0*rows_pad + r)*c0 + c%c0). `size` bytes per element (1, 2, 4). Padding (cols to c0, rows to rows_pad) is zeroed.
 */
void k_nd_to_nz(void *dst, int64_t rows_pad, const void *src, int64_t src_row, int64_t src_col, int64_t rows,
                int64_t cols, int64_t c0, int size);
void k_nz_to_nd(void *dst, int64_t dst_row, const void *src, int64_t rows_pad, int64_t rows, int64_t cols, int64_t c0,
                int size);

/* Block-quantised weights (com.microsoft MatMulNBits, GatherBlockQuantized): n codes, packed low bits first, of a type
 * from k_dequant_takes: u2, u4, u8 or a float of 8 bits or less with a sign; value = (q - zero) * scale in f32. */
bool k_dequant_takes(enum dtype code);
enum dtype k_code_of_bits(int bits); /* the unsigned type of 2, 4 or 8 bits */
void k_dequant_block(float *y, const uint8_t *codes, int64_t first, int64_t n, enum dtype code, float scale,
                     float zero);
/* Rows of such codes: element c of a row is code first + c, of block (first + c) / block. Pointers are those of row 0
 * at code, scale and zero 0; steps from row to row in bytes. */
enum k_zero {
    K_ZERO_MIDDLE,
    K_ZERO_CODES,
    K_ZERO_VALUES
}; /* of the range; packed like the codes; of the scales' type */
struct k_code_rows {
    enum dtype to, code, scale_type; /* `to` and scale_type: floats of at least a byte */
    enum k_zero zero;
    int64_t rows, cols, first, block;
    const uint8_t *codes, *scales, *zeros;
    int64_t code_row, scale_row, zero_row;
    uint8_t *dst;
    int64_t dst_row;
    int64_t group, group_step; /* columns that lie together, bytes from group to group; group 0: all lie together */
};
void k_dequant_rows(const struct k_code_rows *g);

/* One row times a weight that is still codes: g->m is 1, g->b is not read. Columns n0 .. n0 + rows of b are rows `row`
 * .. row + rows of a part's codes, element k its column k0 + k; dst and group do not count. The parts cover all of
 * g->n, have the same types and blocks, and `to` is g->dtype. The bits are those of k_dequant_rows and
 * k_mac_fractal; but values live in registers, so that codes are all that is read. */
struct k_code_part {
    const struct k_code_rows *w;
    int64_t n0, rows, row, k0;
};
/* Is that faster than making the values first? first: the column of w that k begins at. */
bool k_mac_takes_code_rows(const struct k_code_rows *w, int64_t first, int64_t k);
/* n runs of bytes, `pitch` apart: codes and scales that are read soon, too scattered for the hardware to foresee. */
void k_ask_for(const uint8_t *at, int64_t run, int64_t n, int64_t pitch);
void k_mac_codes(const struct k_mac_args *g, const struct k_code_part *parts, int n);

#endif
