/* How far values are from those they stand for. All sums are in double, in the order of the elements, so that a figure
 * does not depend on threads or on how a tensor is cut into parts. */
#ifndef QUANT_DISTANCE_H
#define QUANT_DISTANCE_H

#include "kernels/tensor.h"

/* x: what it should be, y: what it is. */
struct metric_error {
    int64_t n;             /* pairs of finite elements */
    int64_t bad;           /* pairs with an infinity or NaN, which are in no sum */
    double xx, yy, xy, ee; /* sums of x^2, y^2, x y and (y - x)^2 */
    double most;           /* largest |y - x| */
};
/* False when the tensors are not of one shape, or no numbers. */
NPUC_MUST_CHECK bool metric_add(struct metric_error *e, const struct k_tensor *x, const struct k_tensor *y);
void metric_add_floats(struct metric_error *e, const float *x, const float *y, int64_t n);
void metric_join(struct metric_error *e, const struct metric_error *other); /* of other elements */
double metric_sqnr(const struct metric_error *e);   /* 10 log10(sum x^2 / sum (y - x)^2), dB; infinite without error */
double metric_cosine(const struct metric_error *e); /* 1 where both are zero */
double metric_mse(const struct metric_error *e);
double metric_noise(const struct metric_error *e); /* sum (y - x)^2 / sum x^2; 0 without error */

/* Two rows of logits as distributions p = softmax(x), q = softmax(y). Natural logarithms. */
struct metric_words {
    double kl;                   /* sum p log(p / q), never below 0 */
    int64_t top, best;           /* the likeliest word of p, of q: the first of equal ones */
    double x_log_sum, y_log_sum; /* log p[i] = x[i] - x_log_sum */
};
struct metric_words metric_softmax(const float *x, const float *y, int64_t n);
double metric_log_sum(const float *x, int64_t n); /* log sum exp x[i] */

/* The smallest of n values that `share` of them do not exceed; sorts them. */
double metric_quantile(double *values, int64_t n, double share);

#endif
