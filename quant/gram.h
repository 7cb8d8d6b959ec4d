/* What an error in a weight costs: for rows d = w - coded w of a product y = x w', sum over the seen rows x of
 * (x d')^2 = d H d' with H = sum x x', the Gram matrix of the input. Here H is damped, so that it is positive definite,
 * and factored for algorithms that choose codes one column after the other. */
#ifndef QUANT_GRAM_H
#define QUANT_GRAM_H

#include "base/arena.h"

struct pool;
struct quant_metric {
    int64_t k;
    float *h;          /* [k][k], scaled so that its mean diagonal element is 1, plus the damping */
    float *importance; /* [k]: its diagonal */
    int64_t *order;    /* [k]: columns in the order in which codes are chosen */
    /* feed[i][j], i < j, in that order: an error e in column i is made up for by adding e * feed[i][j] to column j,
     * j = i + 1.. in turn: GPTQ's update. With h = A A', A upper triangular, feed[i][j] = A[i][j] / A[j][j]: the
     * errors' cost is the sum over j of A[j][j]^2 (e[j] + sum over i < j of e[i] feed[i][j])^2, so rounding column j
     * with the feed of all before it leaves each term as small as it can be. The inverse of h, which GPTQ is usually
     * written with, is not needed: the rows of its Cholesky factor are those of the inverse of A. */
    float *feed;
};
/* Of a Gram matrix [k][k]. Without any rows (all zeros) errors count alike. Everything is in `a`; false: no memory. */
struct quant_gram {
    const float *gram;
    int64_t k;
    double damping; /* added to the diagonal, in mean diagonal elements */
    double trust;   /* of elements off the diagonal, 0 to 1: what they count (quant_statistics_trust) */
    bool in_order;  /* columns as they lie; else those with the largest diagonal elements first (act-order) */
};
NPUC_MUST_CHECK bool quant_metric_make(struct quant_metric *m, const struct quant_gram *g, struct arena *a,
                                       struct pool *pool);

/* b[rows][k] becomes b times the inverse of h, [k][k], which is positive definite and is destroyed. false: it is not.
 */
NPUC_MUST_CHECK bool quant_solve(double *h, int64_t k, double *b, int64_t rows, struct pool *pool);

#endif
