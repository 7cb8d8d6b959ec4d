/* Elements of any numeric dtype as float, double or 64-bit integers, and back: the common road of casts, formulas and
 * rare types. Sub-byte elements are packed low bits first; `at` counts elements. */
#ifndef KERNELS_WIDE_H
#define KERNELS_WIDE_H

#include "base/dtype.h"

/* What carries a dtype without loss: K_WIDE_F32 for floats of up to 32 bits, K_WIDE_F64 for f64, K_WIDE_I64 for signed
 * integers, K_WIDE_U64 for unsigned integers and bool. */
enum k_wide { K_WIDE_NONE, K_WIDE_F32, K_WIDE_F64, K_WIDE_I64, K_WIDE_U64 };
enum k_wide k_wide_of(enum dtype t);
int k_wide_size(enum k_wide w); /* bytes per element */

/* y[0..n) = x[at..at+n), of dtype t, in its own carrier. */
void k_widen(void *y, enum dtype t, const void *x, int64_t at, int64_t n);
/* Stores values of the carrier of t: floats round to nearest even (8-bit and smaller floats saturate if told), integers
 * are cut to the width, bool takes x != 0. */
void k_narrow(enum dtype t, void *y, int64_t at, const void *x, int64_t n, bool saturate);
/* One packed code of a sub-byte type. */
uint8_t k_code_get(enum dtype t, const void *x, int64_t at);
void k_code_set(enum dtype t, void *y, int64_t at, uint8_t code);
/* n codes of a type of up to 8 bits from element `at` on, a byte each in y; and back. */
void k_codes_load(uint8_t *y, enum dtype t, const void *x, int64_t at, int64_t n);
void k_codes_store(enum dtype t, void *y, int64_t at, const uint8_t *x, int64_t n);

/* Any numeric dtype as float or double, n elements from `at`. */
void k_load_f32(float *y, enum dtype t, const void *x, int64_t at, int64_t n);
void k_load_f64(double *y, enum dtype t, const void *x, int64_t at, int64_t n);

#endif
