/* What the interpreter's files share. */
#ifndef IR_EVAL_PRIV_H
#define IR_EVAL_PRIV_H

#include "ir/eval.h"

/* A run of one function: values by id, symbols by number (INT64_MIN: not bound). */
struct frame {
    struct ir_ctx *cx;
    struct arena *a;
    struct k_tensor *val;
    bool *has;
    int64_t *symbols; /* may be NULL: nothing is bound, SizeOf cannot be computed */
    int64_t n_symbols;
    const struct ir_watch *watch; /* may be NULL */
    struct pool *pool;            /* may be NULL */
};

/* One node; its results become values of the frame. */
NPUC_MUST_CHECK enum npuc_status frame_node(struct frame *f, const struct node *n);
/* What the graph's Yield takes, once its nodes have run. */
NPUC_MUST_CHECK enum npuc_status frame_results(struct frame *f, const struct graph *g, struct k_tensor *out);
/* frame_graph for the graph of a run: memory of results that no node behind needs is given back. */
NPUC_MUST_CHECK enum npuc_status frame_function(struct frame *f, const struct graph *g, struct k_tensor *out);

/* The nodes of a graph whose inputs are set; results into out. */
NPUC_MUST_CHECK enum npuc_status frame_graph(struct frame *f, const struct graph *g, struct k_tensor *out);
/* A body with its inputs: symbols that the body binds are forgotten afterwards. */
NPUC_MUST_CHECK enum npuc_status frame_body(struct frame *f, const struct graph *g, const struct k_tensor *const *in,
                                            struct k_tensor *out);
NPUC_MUST_CHECK enum npuc_status eval_if(struct frame *f, const struct node *n, const struct k_tensor *const *in,
                                         struct k_tensor *out);
NPUC_MUST_CHECK enum npuc_status eval_loop(struct frame *f, const struct node *n, const struct k_tensor *const *in,
                                           struct k_tensor *out);
NPUC_MUST_CHECK enum npuc_status eval_scan(struct frame *f, const struct node *n, const struct k_tensor *const *in,
                                           struct k_tensor *out);

#endif
