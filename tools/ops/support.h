/* What compiles, and where it runs: found out by compiling the example of every operator with every element type,
 * through the importer, the passes and the target's own `supports`. */
#ifndef TOOLS_OPS_SUPPORT_H
#define TOOLS_OPS_SUPPORT_H

#include "backend/backend.h"
#include "frontend/onnx.h"
#include "ir/graph.h"
#include "tools/ops/example.h"

enum { OPS_NEWEST_OPSET = 28, OPS_MAX_TARGETS = 16 };

typedef uint32_t type_set; /* bit t: enum dtype t */

struct ops_reason {
    const char *text;
    type_set types;
};
struct ops_use {
    type_set npu;               /* all work is on the cores */
    type_set view;              /* there is no work */
    type_set host;              /* some or all work is on the host */
    VEC(struct ops_reason) why; /* it is there */
};
struct ops_row {
    const char *domain, *op;       /* "" is ai.onnx; op "*": the whole domain */
    int from, to;                  /* opsets of the domain; to 0: still valid */
    const char *kind;              /* class of operator, or NULL */
    const char *becomes;           /* core operators that import makes of it, when they are others; NULL */
    const char *refused;           /* why it does not compile with any type; NULL */
    const struct example *example; /* n_examples of them: for each type the first counts that takes it */
    int n_examples;
    type_set types; /* those for which it compiles */
    struct ops_use use[OPS_MAX_TARGETS];
};
struct ops_target {
    const char *id;
    struct target target;
    struct machine machine;
    struct target_info info;
    int column; /* targets of one column have the same rows */
};
struct ops_matrix {
    struct arena *arena;
    struct diag *diag;
    int n_targets, n_columns;
    struct ops_target target[OPS_MAX_TARGETS];
    VEC(struct ops_row) rows; /* by domain and name */
};

/* One example with one element type, imported. */
struct trial {
    struct arena arena;
    struct diag diag;
    struct ir_ctx cx;
    struct onnx_model *model;
    struct module *module;
    char error[256]; /* the first one, without its place and code */
};
/* Do the host's kernels take these element types? Runs the example. */
bool trial_computes(struct trial *t);

/* Adds a target; false after a message. */
bool ops_add_target(struct ops_matrix *m, const char *id);
/* Every operator of the tables; names, n_names: only these ones (0: all). */
void ops_list(struct ops_matrix *m, const char *const *names, int64_t n_names);
void ops_try(struct ops_matrix *m); /* fills the rows */
void ops_free(struct ops_matrix *m);

#endif
