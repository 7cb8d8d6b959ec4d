/* What calibration keeps of a value that products read: of its elements (observe.h), of each channel and, when asked
 * for, of pairs of channels and of some rows. A row is what a product sums over: the last axis of an operand of MatMul
 * and Gemm, a position of all channels for a convolution. Memory is bounded and known beforehand; the same data in the
 * same order give the same bits. */
#ifndef QUANT_STATISTICS_H
#define QUANT_STATISTICS_H

#include "quant/observe.h"

enum quant_statistic {
    QUANT_GRAM = 1,  /* gram */
    QUANT_ROWS = 2,  /* sample, extreme */
    QUANT_CROSS = 4, /* cross */
};
enum { QUANT_SAMPLE_ROWS = 256, QUANT_EXTREME_ROWS = 8 };
struct quant_statistics {
    unsigned kinds;  /* which of enum quant_statistic */
    int axis;        /* of channels in the value: 1 for convolutions, else the last */
    int64_t k, rows; /* channels; rows seen */
    struct observer seen;
    double *sum, *sum_abs; /* [k], of elements and of their magnitudes */
    float *gram;           /* [k][k]: sum of x x' over rows */
    float *cross;          /* [k][k]: sum of x0 x', x0 the row of the model before any product was coded */
    int64_t n_cross;       /* rows in cross */
    float *sample;         /* [n_sample][k]: rows drawn from those seen, each as likely, at most QUANT_SAMPLE_ROWS */
    int64_t n_sample;
    float *extreme; /* [n_extreme][k]: the rows with the largest magnitudes, at most QUANT_EXTREME_ROWS */
    int64_t n_extreme;
    float reach[QUANT_EXTREME_ROWS]; /* those magnitudes */
    uint64_t draw;                   /* state of the draw; it begins alike for all values */
};
/* axis -1: the last. */
void quant_statistics_init(struct quant_statistics *s, unsigned kinds, int axis, struct arena *a);
/* Adds a float tensor. NULL: done; else why not. */
const char *quant_statistics_add(struct quant_statistics *s, const struct k_tensor *t, struct arena *a);
/* Adds to cross: `was` in the model as it was, `now` with products before it coded; of one shape, channels last. */
void quant_statistics_compare(struct quant_statistics *s, const float *was, const struct k_tensor *now);
/* Bytes that a value of k channels takes. */
int64_t quant_statistics_bytes(unsigned kinds, int64_t k);

#endif
