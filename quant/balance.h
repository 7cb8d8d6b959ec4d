/* Matrices that make keys of attention easy to code. Codes of a key k leave an error that a query q meets as q d'; with
 * k A and q inverse(A)' instead the product stays, but the error becomes that of the codes of k A. Of all A with equal
 * errors in all elements, which grow with the size of k A, those cost least that make the Gram matrices of k A and of q
 * inverse(A)' the same: A' Gk A = inverse(A) Gq inverse(A)'. Behind that an orthogonal matrix may spread either over
 * all elements alike. */
#ifndef QUANT_BALANCE_H
#define QUANT_BALANCE_H

#include "base/arena.h"

/* Gram matrices of a head. The fewer rows, the less they say of other texts: n / (10 rows) of the mean diagonal element
 * is added to the diagonal, 0.0001 at least. */
struct quant_grams {
    const double *keys, *queries; /* [n][n]: sums over rows of x' x */
    int64_t n;
    int64_t key_rows, query_rows;
};
/* turn: A with the rotation of ir/hadamard.h, scaled so that keys keep their mean size; back: its
 * inverse; both f32 [n][n]. false: no memory, or matrices that are not finite or all zeros. */
NPUC_MUST_CHECK bool quant_balance(const struct quant_grams *g, float *turn, float *back, struct arena *a);
/* Eigenvalues of the symmetric m [n][n], which is destroyed, by Jacobi rotations: vectors [n][n], eigenvector j in
 * column j. */
void quant_eigen(double *m, int64_t n, double *values, double *vectors);

#endif
