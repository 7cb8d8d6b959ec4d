/* Constant factors per channel that go into what makes a value (fold_factors.c). */
#ifndef PASSES_FACTORS_H
#define PASSES_FACTORS_H

#include "passes/pass.h"

/* Positive numbers, broadcast to a value: its axes from the last one backwards, sizes 1 or that of the axis. */
struct factor {
    int rank;
    int64_t dims[IR_MAX_RANK];
    const float *v;
};
/* Makes x the value times the factor, by changing constants behind it: weights of norms, columns of products, scales of
 * codes. All users of x get the new value; whoever calls this has seen to it that they want it. False: some node on the
 * way does not commute with the factor, or its value is read elsewhere; nothing has changed. */
bool factors_fold(struct pass_ctx *px, struct value *x, const struct factor *c);
/* Would it? Nothing changes. */
bool factors_would_fold(struct pass_ctx *px, struct value *x, const struct factor *c);
/* A vector along the last axis of x. */
struct factor factor_of_columns(const struct value *x, const float *v, int64_t n);
/* Constant t (float) times c, both broadcast; a constant made where b inserts. NULL after a reported error. */
struct value *factors_scale_constant(struct pass_ctx *px, struct builder *b, const struct value *t,
                                     const struct factor *c);

#endif
