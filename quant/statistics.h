/* What calibration keeps of a value that products read: of its elements (observe.h), of each channel and, when asked
 * for, of pairs of channels and of some rows. A row is what a product sums over: the last axis of an operand of MatMul
 * and Gemm, a position of all channels for a convolution; pairs there are of elements of its windows. Memory is bounded
 * and known beforehand; the same data in the same order give the same bits. */
#ifndef QUANT_STATISTICS_H
#define QUANT_STATISTICS_H

#include "quant/observe.h"

struct k_window;

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
    /* Windows of a convolution: groups of channels, positions of the kernel. 1 and 1: rows as they are. */
    int64_t groups, taps;
    int64_t pairs;           /* length of what gram and cross hold pairs of: k, or k / groups * taps, channels first */
    float *gram;             /* [groups][pairs][pairs]: sum of x x' over rows or windows */
    float *cross;            /* likewise: sum of x0 x', x0 the row of the model before any product was coded */
    double *moved;           /* [groups], with cross: sum of |x0 - x|^2 */
    int64_t n_gram, n_cross; /* rows or windows in them */
    /* Sums over all rows or windows of (sum of x^2)^2 and of the sum of x^4: how sure the pairs are. */
    double quartic, fourth;
    double believed;    /* what quant_statistics_trust said before the pairs were divided; 0: they were not */
    float *half_top[2]; /* [k]: largest magnitudes in two halves of the rows: every other run, of the first run 16 rows
                         * in turn. What one half says can be tried on the other */
    int64_t adds;       /* tensors seen */
    float *sample;      /* [n_sample][k]: rows drawn from those seen, each as likely, at most QUANT_SAMPLE_ROWS */
    int64_t n_sample;
    uint8_t sample_half[QUANT_SAMPLE_ROWS], extreme_half[QUANT_EXTREME_ROWS];
    float *extreme; /* [n_extreme][k]: the rows with the largest magnitudes, at most QUANT_EXTREME_ROWS */
    int64_t n_extreme;
    float reach[QUANT_EXTREME_ROWS]; /* those magnitudes */
    uint64_t draw;                   /* state of the draw; it begins alike for all values */
};
/* axis -1: the last. */
void quant_statistics_init(struct quant_statistics *s, unsigned kinds, int axis, struct arena *a);
/* Pairs are of windows of a convolution, in `groups` groups of channels under `taps` positions; before the first
 * tensor.
 */
void quant_statistics_of_windows(struct quant_statistics *s, int64_t groups, int64_t taps);
/* Adds a float tensor; w: its windows, where pairs are of windows. NULL: done; else why not. */
const char *quant_statistics_add(struct quant_statistics *s, const struct k_tensor *t, const struct k_window *w,
                                 struct arena *a);
/* Adds to cross: `was` in the model as it was, `now` with products before it coded; of one shape, channels last, or
 * maps under windows. false: no memory. */
NPUC_MUST_CHECK bool quant_statistics_compare(struct quant_statistics *s, const float *was, const struct k_tensor *now,
                                              const struct k_window *w, struct arena *a);
/* The share of a pair's sum that is to be believed: with few rows those of independent elements are not 0 either, and
 * what is fitted to them serves these rows alone. 1 - lambda of Schaefer and Strimmer (2005) for shrinking a covariance
 * to its diagonal: lambda = the sum of the variances of the off-diagonal elements / the sum of their squares. */
double quant_statistics_trust(const struct quant_statistics *s);
/* Behind changes of the sampled rows and the pairs: the sums of powers are taken from the sample. */
void quant_statistics_turned(struct quant_statistics *s);
/* Divides pairs of elements of windows by factors of their channels, float [k]. */
void quant_statistics_divide(struct quant_statistics *s, const float *factor);
/* Bytes that a value of k channels takes, whose windows are in `groups` groups under `taps` positions. */
int64_t quant_statistics_bytes(unsigned kinds, int64_t k, int64_t groups, int64_t taps);

#endif
