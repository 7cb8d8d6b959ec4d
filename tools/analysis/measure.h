/* What a recipe does to a model, measured on calibration data with the reference interpreter.
 *
 * One pass over the runs for each part of the recipe (all of it, weights alone, inputs alone), the model as it is and
 * the changed one in turn:
 *   local       a product computed from the exact operands, its own quantised: what it adds by itself
 *   cumulative  its result in the quantised model, what came before it included
 *   effect      outputs of the quantised model, its KV caches coded where the recipe says so
 * On request, over fewer runs, for every product the outputs when it alone is quantised (isolated) and when it alone is
 * not (inverse): two runs of the model per product and run of the data.
 * Memory holds the model twice, one run, and the products' results of that run. */
#ifndef TOOLS_ANALYSIS_MEASURE_H
#define TOOLS_ANALYSIS_MEASURE_H

#include "quant/observe.h"
#include "tools/analysis/effect.h"
#include "tools/analysis/variant.h"

struct product_figures {
    const struct quant_entry *entry; /* of the recipe; NULL: it says nothing of this product */
    bool coded;                      /* weight or input of it is quantised */
    struct metric_error local[PART_COUNT], cumulative;
    bool has_local[PART_COUNT], has_cumulative;
    struct clipping clipped;
    struct effect_summary isolated, inverse; /* with has_each */
};
/* Times and bytes of the plan; 0: not estimated. */
struct plan_figures {
    const char *target;
    int64_t weight_bytes, cache_bytes, memory_bytes;
    double us, cycles; /* of one call; of a decode step where the model has caches */
    double prefill_us; /* of a prefill where it has */
};
struct comparison {
    const char *path, *scheme; /* of the recipe, or of the other model */
    struct quant_recipe *recipe;
    struct product_figures *products; /* in the order of the list */
    struct effect effects[PART_COUNT];
    struct effect_summary parts[PART_COUNT];
    bool has_part[PART_COUNT], has_each;
    struct plan_figures plan;
};
struct analysis {
    const struct args *args;
    struct arena *arena;
    const char *model;
    struct variant plain;
    struct product_list list;
    struct calib data;
    struct outputs outputs;
    int64_t runs, each_runs; /* each_runs 0: neither isolated nor inverse */
    struct observer *inputs; /* of each product's left operand, [list.names.len] */
    bool observed, shows;
    bool totals_alone;               /* weights and inputs are not measured one without the other */
    struct k_tensor **plain_outputs; /* of all runs, once analysis_outputs was asked; in kept */
    struct arena kept;
    VEC(struct comparison *) comparisons;
};

/* Opens model and data; false after a message. The caller closes in any case. `runs` is cut to what the data hold. */
bool analysis_open(struct analysis *an, const struct args *a, const char *model, const char *data, int *exit_code);
void analysis_close(struct analysis *an);
/* Adds a recipe of the file, one in memory, or another model with the same inputs and outputs. */
bool analysis_add_recipe(struct analysis *an, const char *path, int *exit_code);
bool analysis_add(struct analysis *an, struct quant_recipe *r, const char *path, int *exit_code);
bool analysis_add_model(struct analysis *an, const char *path, int *exit_code);
/* Outputs alone, over the first `runs` runs: what a search asks. */
bool analysis_outputs(struct analysis *an, const struct variant_want *want, int64_t runs, struct effect_summary *out,
                      int *exit_code);

#endif
