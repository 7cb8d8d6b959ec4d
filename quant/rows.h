/* Codes of a weight with its metric in view (quant/gram.h): rows of the weight, the output channels, are independent
 * of each other, so they are the parts that threads take. */
#ifndef QUANT_ROWS_H
#define QUANT_ROWS_H

#include "quant/gram.h"
#include "quant/weight.h"

enum { QUANT_ROWS_AT_ONCE = 128 };
struct quant_rows {
    const struct quant_operand *o;
    const struct quant_matrix *w;
    const struct quant_metric *m;
    struct quant_codes *out; /* scales and zeros, and codes */
    int64_t first, n;        /* rows of w */
    float *scratch;          /* quant_rows_scratch(k) */
};
int64_t quant_rows_scratch(int64_t k); /* elements */

/* Index in out->scales of the scale of element i of row r. */
int64_t quant_scale_index(const struct quant_operand *o, const struct quant_codes *c, int64_t r, int64_t i);

/* GPTQ: columns in the metric's order, each rounded with the errors of those before it fed in. Scales are fixed. */
void quant_feed_errors(const struct quant_rows *t);
/* Descent: each code in turn becomes what the others make best, `turns` times over all of them or until none changes.
 * It starts from the codes in out and never raises the cost. */
void quant_descend(const struct quant_rows *t, int turns);
/* Each scale in turn becomes what the others and all codes make best, for scales that may be any number. It never
 * raises the cost but by the rounding of scales. */
void quant_refit_scales(const struct quant_rows *t);
/* AdaRound (adaround.c); codes of integers. It takes quant_adaround_scratch(k) elements of scratch. */
void quant_round_adaptively(const struct quant_rows *t);
int64_t quant_adaround_scratch(int64_t k);
/* The sum over the rows of d h d', d = weight - decoded. */
double quant_rows_cost(const struct quant_rows *t);

/* Rows of weights.def. */
struct quant_task;
const char *quant_choose_gptq(const struct quant_task *t);
const char *quant_choose_adaround(const struct quant_task *t);
const char *quant_choose_descent(const struct quant_task *t);

#endif
