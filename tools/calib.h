/* Calibration data from the command line: the inputs of a model, run by run.
 *
 *   TOKENS.npy     integers [windows][tokens] or [tokens]: a language model's input ids, a run per row; masks,
 * positions and empty caches are added by the roles of the inputs (roles.h) INPUTS.npz     one run: a member per input
 *   FOLDER         a run per .npz file in it, in the order of their names; or one run of a NAME.npy per input */
#ifndef TOOLS_CALIB_H
#define TOOLS_CALIB_H

#include "base/vec.h"
#include "ir/eval.h"
#include "kernels/tensor.h"

struct calib {
    const char *path;
    const struct graph *g;
    struct diag *d;
    struct arena *arena;
    int64_t n_runs;
    struct k_tensor tokens; /* of a TOKENS.npy */
    bool by_tokens, by_file;
    VEC(const char *) files; /* .npz, a run each */
};
NPUC_MUST_CHECK enum npuc_status calib_open(struct calib *c, const char *path, const struct graph *g, struct arena *a,
                                            struct diag *d);
/* Inputs of run i, in the order of the graph's; data in `a`. Values that are no numbers are refused. */
NPUC_MUST_CHECK enum npuc_status calib_inputs(const struct calib *c, int64_t i, struct k_tensor *inputs,
                                              struct arena *a);
/* Evaluates the graph on run i; `watch` sees its values. */
NPUC_MUST_CHECK enum npuc_status calib_run(const struct calib *c, int64_t i, struct ir_ctx *cx, const struct graph *g,
                                           const struct ir_watch *watch);

#endif
