/* Reference interpreter: runs a function with the operators' kernels. Used by folding, differential tests, calibration.
 */
#ifndef IR_EVAL_H
#define IR_EVAL_H

#include "ir/graph.h"
#include "kernels/tensor.h"

/* Computes one node's outputs; in[i] NULL for absent. Results live in `a`. Handles formula operators, kernels, SizeOf
 * (symbols: values per symbol, may be NULL), views, Fused regions, If/Loop/Scan bodies. */
NPUC_MUST_CHECK enum npuc_status ir_eval_node(struct ir_ctx *cx, const struct node *n, const struct k_tensor *const *in,
                                              const int64_t *symbols, struct k_tensor *out, struct arena *a);
/* Runs the function: inputs in order, outputs in the order of its Yield. Binds symbols from the input shapes; a
 * contradiction is a reported error. */
NPUC_MUST_CHECK enum npuc_status ir_eval(struct ir_ctx *cx, const struct graph *g, const struct k_tensor *inputs,
                                         struct k_tensor *outputs, struct arena *a);

/* The same, with a look at every node before it runs and after, in bodies too; either may be NULL. Returning anything
 * but NPUC_OK ends the run. Tensors are valid during the call alone. */
struct ir_watch {
    enum npuc_status (*node)(void *user, const struct node *n, const struct k_tensor *const *in);
    void *user;
    enum npuc_status (*result)(void *user, const struct node *n, const struct k_tensor *const *in,
                               const struct k_tensor *out);
};
NPUC_MUST_CHECK enum npuc_status ir_eval_watched(struct ir_ctx *cx, const struct graph *g,
                                                 const struct k_tensor *inputs, struct k_tensor *outputs,
                                                 struct arena *a, const struct ir_watch *watch);

#endif
