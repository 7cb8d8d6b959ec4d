/* Mixed precision: for each product the scheme that costs least within a limit on the whole model.
 *
 * Products that read one value decide together, so that they stay one kernel; all KV caches are one unit, whose losses
 * are measured for each scheme, and whose bytes those of the plan. The loss of a choice is what its unit
 * adds to the outputs by itself: measured in the network for the coarsest scheme, for the others in proportion to the
 * error that the unit makes locally, since small errors of independent products add up. From everything kept, the
 * change with the least loss per cost that it saves is made, again and again: a way of points, each cheaper and worse
 * than the one before. The limit picks a point by bisection, and what it limits is measured there, not predicted: the
 * outputs of the whole network, or bytes and time of the plan that compile makes. Equal input gives equal results. */
#ifndef TOOLS_ANALYSIS_SEARCH_H
#define TOOLS_ANALYSIS_SEARCH_H

#include <jansson.h>

#include "tools/args.h"

struct search_request {
    const struct args *args;          /* dimensions; search, schemes, cost, target, context, runs, each, calib */
    const char *model, *calib, *out;  /* files; out: the recipe to write */
    int64_t runs, each_runs, context; /* each_runs: of the data, for units by themselves */
    bool shows;
    /* Writes a recipe of this scheme for all products: 0, or an exit code after a message. */
    int (*make)(void *user, const char *scheme, const char *path);
    void *user;
};
/* *report: everything as JSON when not NULL, else tables on stdout. 0, or an exit code after a message. */
int search_run(const struct search_request *q, struct arena *a, json_t **report);

#endif
