/* Steps on one row of floats, shared by normalisations, softmax and attention. */
#ifndef KERNELS_ROWS_H
#define KERNELS_ROWS_H

#include "kernels/vec.h"

float k_row_reduce(enum k_red op, const float *x, int64_t n);
void k_row_scalar(enum k_fn fn, float *y, const float *x, float v, int64_t n); /* y = fn(x, v) */
void k_row_unary(enum k_fn fn, float *y, const float *x, int64_t n);
void k_row_binary(enum k_fn fn, float *y, const float *a, const float *b, int64_t n);
/* x - max, exp, 64-lane sum, divide. */
void k_row_softmax(float *x, int64_t n);
/* y = x * (1 / sqrt(sum(x*x) / n + epsilon)); returns the factor. */
float k_row_rms(float *y, const float *x, int64_t n, float epsilon);

struct k_rotary {
    const float *cos, *sin; /* [positions][half] */
    int64_t half, head;     /* elements rotated in pairs; elements of a head, the rest is copied */
    bool interleaved;       /* pairs (2i, 2i+1), else (i, i + half) */
};
void k_row_rotate(float *y, const float *x, const struct k_rotary *r, int64_t pos_row);

#endif
