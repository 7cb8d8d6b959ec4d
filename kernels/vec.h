/* Elementwise formulas and row reductions on strided rows: the arithmetic of the vector units, and what the
 * elementwise operators mean. One table of formulas (kernels/formula.def) feeds this header, the loops, the operator
 * rows of ir/ and the vector instructions of a plan, so they cannot disagree.
 *
 * Rounding: f16, bf16 and the narrower floats are widened to f32, computed, and rounded once per formula.
 * f64 is computed in double. Integers wrap. Scalar and SIMD builds give the same bits; no libm function is
 * used for f32 (DESIGN section 7), contraction is off. */
#ifndef KERNELS_VEC_H
#define KERNELS_VEC_H

#include "base/dtype.h"

/* FORMULA(number, Name, arity, result, types, ...): see kernels/formula.def for the columns.
 * The numbers are part of the plan format. */
enum k_fn {
    K_FN_none = 0,
#define FORMULA(number, nm, ...) K_FN_##nm = number,
#include "kernels/formula.def"
#undef FORMULA
    K_FN_end = 256
};
enum k_fn_result { K_RESULT_SAME, K_RESULT_BOOL }; /* dtype of the result: that of the operands, or bool */

struct k_fn_info {
    const char *name; /* ONNX operator name where one exists */
    int arity;        /* 1..3; Where has (bool, T, T) */
    enum k_fn_result result;
    int n_params; /* float attributes, 0..3, passed as params[] */
    int alu;      /* vector ALU operations per element (cost model) */
    bool commutative;
};
const struct k_fn_info *k_fn_info(enum k_fn fn); /* NULL for an unused number */
bool k_fn_supports(enum k_fn fn, enum dtype t);  /* t: dtype of the operands (of the T operands for Where) */

/* rows x cols elements; element (r, c) at p + (r*row + c*col)*size. col is 1, or 0 for a value per row. */
struct k_rows {
    const void *p;
    int64_t row;
    int64_t col;
};
/* dst[r*dst_row + c] = fn(a, b, c). dst may equal an operand exactly (in place) but not overlap otherwise. */
void k_vec(enum k_fn fn, enum dtype t, int64_t rows, int64_t cols, void *dst, int64_t dst_row,
           const struct k_rows arg[3], const float *params);

/* dst[i] = (to)src[i], n contiguous elements; ONNX Cast semantics: float to float rounds to nearest even, float to
 * int truncates (out of range and NaN as numpy on x86-64), to bool is != 0; `saturate` as in ONNX for 8-bit floats.
 * dst may be src where elements do not grow. */
void k_cast(enum dtype to, void *dst, enum dtype from, const void *src, int64_t n, bool saturate);
/* f32, f16 or bf16 to the nearest integers of i8 or u8, ties to even, beyond their range to its end: Round, Clip and
 * Cast in one. */
void k_cast_nearest(enum dtype to, void *dst, enum dtype from, const void *src, int64_t n);
void k_scale_f32(float *y, const float *scale, int64_t n); /* y *= scale */

/* Row reductions. 64 lanes: element with absolute index i of the row is accumulated into lane i mod 64 in ascending
 * order, then lanes are combined by a fixed tree (lane j with j+32, then 16, 8, 4, 2, 1). So the result does not depend
 * on how the row is cut into chunks. Accumulators: float for all float types but f64 (double); int64 for integers. */
enum k_red { K_RED_SUM = 1, K_RED_MAX = 2, K_RED_MIN = 3, K_RED_PROD = 4, K_RED_SUMSQ = 5, K_RED_ABSSUM = 6 };
#define K_LANES 64
union k_lanes {
    float f[K_LANES];
    double d[K_LANES];
    int64_t i[K_LANES];
};
void k_red_init(enum k_red op, enum dtype t, union k_lanes *acc);
/* n elements of type t starting at row index `first`. MAX and MIN propagate NaN. */
void k_red_add(enum k_red op, enum dtype t, union k_lanes *acc, const void *x, int64_t n, int64_t first);
/* Combines the lanes and stores one element of type t. */
void k_red_finish(enum k_red op, enum dtype t, const union k_lanes *acc, void *y);

/* The f32 functions behind the formulas, with their maximum error in ULP (measured by tests/kernels exhaustively or on
 * a grid): exp 1, log 1, tanh 2, erf 2, sin and cos 2 (any finite argument), pow 2. */
float k_exp(float x);
float k_log(float x);
float k_tanh(float x);
float k_erf(float x);
float k_sin(float x);
float k_cos(float x);
float k_pow(float x, float y);

#endif
