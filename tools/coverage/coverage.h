/* What `npuc check` finds out about a model on one or more targets: where every node of the file would run and why,
 * what that costs, and everything that stands in the way. Weights are not needed. */
#ifndef TOOLS_COVERAGE_H
#define TOOLS_COVERAGE_H

#include <jansson.h>

#include "base/map.h"
#include "base/vec.h"
#include "tools/args.h"

#define COV_MAX_TARGETS 16
#define COV_SCHEMA      1 /* of the JSON form: docs/check.md */

/* GONE: folded at compile time, or a view. BAD: cannot be compiled. Of nodes that became several the worst counts. */
enum cov_where { COV_GONE, COV_NPU, COV_HOST, COV_BAD, COV_WHERES };

struct cov_use { /* one operator type on one target */
    int64_t n[COV_WHERES];
    const char *reason; /* of the first node that is not on the NPU; NULL */
    double us, bytes;   /* of the modelled call, main memory */
};
struct cov_row { /* one operator type of one domain */
    const char *op, *domain;
    int64_t count, opset; /* opset: the model imports it; 0 unknown */
    struct cov_use use[COV_MAX_TARGETS];
};
struct cov_node {
    const char *name;
    int64_t row;
    double work; /* weight in steps that stand for several nodes */
    uint8_t where[COV_MAX_TARGETS];
    const char *reason[COV_MAX_TARGETS];
};
struct cov_target {
    const char *id;
    int exit_code; /* of the compilation; 0: it compiles */
    int64_t n[COV_WHERES];
    bool timed;
    const char *untimed; /* why not, where it compiles; NULL */
    double us, npu_us, host_us, launch_us, bytes;
};
struct coverage {
    struct arena *arena;
    const char *path;
    int64_t n_nodes, n_params, param_size, opset;
    const char *producer;
    int64_t missing;            /* tensors whose data file is absent */
    const char *missing_line;   /* about the first of them; NULL */
    VEC(struct cov_node) nodes; /* in the order of the file */
    VEC(struct cov_row) rows;
    VEC(const char *) problems;  /* one line each: why it cannot be compiled */
    VEC(const char *) surprises; /* one line each: compiles, but not as the file promises */
    const char *assumed;         /* sizes that the times are for: "batch = 1, seq = 128"; NULL: none are open */
    int n_targets;
    struct cov_target target[COV_MAX_TARGETS];
    struct map node_of, row_of; /* hash of the name -> index */
};

/* Compiles the model for one target as far as it goes and adds what was found. */
void coverage_add(struct coverage *v, const struct args *a, const char *target);
/* By the escaped name; NULL: none of the file. */
const struct cov_node *coverage_node(const struct coverage *v, const char *name);
/* 0 fully supported, 1 something runs on the host or data are missing, else the worst exit code of a target. */
int coverage_exit_code(const struct coverage *v);

/* Share of nodes and of time on the NPU, 0..1; compile-time nodes do not count. */
double coverage_node_share(const struct cov_target *t);
double coverage_time_share(const struct cov_target *t);
/* What a person can do about an operator that is not on the NPU (hints.def); NULL: nothing to say. */
const char *coverage_hint(const struct cov_row *r, int target);

void coverage_print_text(const struct coverage *v, bool list_nodes);
void coverage_print_markdown(const struct coverage *v, bool list_nodes);
json_t *coverage_json(const struct coverage *v);

#endif
