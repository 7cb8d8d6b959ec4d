/* What the matchers of recovery passes share: looking through a graph from a value upwards. All functions are total: on
 * something else they return NULL or false and change nothing. */
#ifndef PASSES_MATCH_H
#define PASSES_MATCH_H

#include "passes/pass.h"

struct node *match_def(const struct value *v, enum op op); /* the node that makes v, when it is an `op` */
/* A constant float tensor of one element. */
bool match_scalar(const struct value *v, double *out);
/* A constant integer, or one-element list of integers, e.g. the axes of a reduction. */
bool match_int(const struct value *v, int64_t *out);
bool match_near(double x, double wanted); /* equal up to the rounding of constants to f16 */
/* v = op(a, scalar) or, for commutative operators, op(scalar, a): *rest is a, of v's type. */
bool match_with_scalar(const struct value *v, enum op op, struct value **rest, double *scalar);
/* v = x * c or x / c with a scalar constant; else v itself and 1. Takes off all such factors. */
struct value *match_scaled(struct value *v, double *factor);
/* ReduceMean over the last axis, kept as 1: its operand. */
struct value *match_row_mean(const struct value *v);
/* Same value, or the same cast of it. */
bool match_same(const struct value *a, const struct value *b);

/* `made` takes n's place: its first result replaces n's, and it comes from n and all nodes that nobody needs any more,
 * which go. Returns how many went, constants left out. */
int64_t match_replace(struct pass_ctx *px, struct node *n, struct node *made);

/* A product taken apart: factors of the Mul, Div by a constant, and Pow with a whole exponent behind a value. */
struct factors {
    struct value *v[8];
    int n;
    double c; /* all constant factors together */
};
/* `whole` is never taken apart, may be NULL. False when there are too many factors. */
bool match_factors(struct value *v, const struct value *whole, struct factors *f);

/* Is the value, moved at most, read by the caller and by operators outside of vector regions alone? Then a cast of it
 * would be a kernel of its own. */
bool match_apart(const struct value *v);
bool match_leaves(const struct value *v); /* by the caller alone? */

#endif
