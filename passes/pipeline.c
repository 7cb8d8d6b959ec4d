/* The order of passes, with the reason for each place. */
#include "passes/pass.h"

static const struct pass_step pipeline[] = {
    {PASS_fold_constants, "shape arithmetic becomes size expressions, so that every later pass sees sizes and not nodes"},
    {PASS_dce, "the shape subgraphs that nobody reads any more go before patterns count uses"},
};

const struct pass_step *pass_pipeline(int64_t *n)
{
    *n = NPUC_ARRAY_LEN(pipeline);
    return pipeline;
}
