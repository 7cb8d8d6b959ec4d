/* AWQ: activation-aware scales. Channels of an input with large elements get factors that the weight's rows along K are
 * multiplied with before they are coded, so that their codes are finer; the input is divided by them. */
#ifndef QUANT_AWQ_H
#define QUANT_AWQ_H

#include "quant/equalise.h"

struct quant_awq {
    double strength; /* a in factor = mean |x|^a, from 0 to 1 in twentieths */
    double before,
        after; /* squared error of the outputs over their squares, sampled rows: without factors, with them */
};
/* Factors [k], the product of the largest and the smallest 1, with the least error of the products `faces` whose input
 * is seen (QUANT_ROWS). Each pair of strength and codes is tried: codes as `weight` says, to nearest by scales that
 * mind the squares of the input. False: there is no memory, or nothing is known of the input. */
NPUC_MUST_CHECK bool quant_awq_search(const struct quant_statistics *seen, const struct quant_face *faces,
                                      int64_t n_faces, float *factor, struct quant_awq *found, struct arena *a);

/* Row of weights.def: codes to nearest by scales that mind the squares of the sampled rows. */
struct quant_task;
const char *quant_choose_awq(const struct quant_task *t);

#endif
