/* Orthogonal matrices that spread outliers over all channels: Hadamard matrices (elements 1 and -1, H H^T = n I) where
 * one of that order is known here, and Kronecker products of small ones for whole rows of activations. */
#ifndef IR_HADAMARD_H
#define IR_HADAMARD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"

/* A Hadamard matrix of order n, [n][n] of 1 and -1: Sylvester for powers of two, Paley's two constructions for p + 1
 * and 2 (p + 1), p prime, and their products with powers of two. False: none known (n = 92, say). */
bool hadamard_fill(int8_t *h, int n);
bool hadamard_known(int n);

/* The orthogonal matrix R of order k = outer * inner: R[a * inner + b][c * inner + d] = outer[a][c] * inner[b][d]. */
struct rotation {
    int outer, inner;                   /* orders of the factors; outer 1 when k is small or has no divisors */
    float *outer_factor, *inner_factor; /* [outer][outer], [inner][inner]: rows of length 1 */
    bool hadamard;                      /* both are Hadamard matrices; else one is a seeded orthogonal matrix */
};
/* The factors for k with the fewest multiplications, in `a`. Always the same for one k; false: k is out of range (1 to
 * 2^24) or has a prime factor above 4,096. */
NPUC_MUST_CHECK bool rotation_make(struct rotation *r, int64_t k, struct arena *a);
bool rotation_possible(int64_t k); /* would rotation_make find factors? */
/* Each of n rows of k floats times R, in place; scratch has k floats. */
void rotation_apply(const struct rotation *r, float *rows, int64_t n, float *scratch);

#endif
