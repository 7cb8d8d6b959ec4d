/* Bytes and times of the plan that a recipe makes of a model, by compiling it and running its clock. */
#ifndef TOOLS_ANALYSIS_PLAN_H
#define TOOLS_ANALYSIS_PLAN_H

#include "tools/analysis/measure.h"

struct plan_request {
    const struct args *args;  /* dimensions */
    const struct calib *data; /* its first run has the sizes of those that args leave open */
    const char *model, *target;
    const struct quantiser *base; /* of the recipe; NULL: none */
    int64_t context;              /* tokens of a prefill, and before the step that is timed */
};
/* `by_product` (may be NULL): microseconds of each product of the list, those of a launch shared equally among the
 * products in it. False after a message. */
bool plan_figures(const struct plan_request *q, struct plan_figures *out, const struct product_list *list,
                  double *by_product, int *exit_code);

#endif
