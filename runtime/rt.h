/* Inside of the runtime: plans and sessions.
 *
 * A session evaluates every expression of the plan once per run (bind.c), gives every tensor bytes and an address
 * (memory.c) and walks the steps (dispatch.c). What a run with the same symbol values would find again is not computed
 * again. */
#ifndef RUNTIME_RT_H
#define RUNTIME_RT_H

#include "kernels/tensor.h"
#include "npuc/npurt.h"
#include "plan/plan.h"
#include "runtime/emu/emu.h"

#include <stdatomic.h>

struct npurt_plan {
    struct plan plan;
    struct target target;
    const char *path;
    bool has_target;
    struct npurt_value *inputs, *outputs;
    struct npurt_dim *symbols;
    struct arena arena;
    char error[1200];
};

struct rt_tensor {
    uint8_t *data;         /* NULL: none (yet) */
    int64_t size, address; /* valid when `known` */
    int32_t root;          /* the tensor whose bytes these are; itself unless PT_ALIAS */
    bool known;            /* size evaluated */
    bool read_only;
    uint8_t *own; /* storage of a tensor outside of the pool */
    int64_t own_size;
    double touched; /* traffic counter at the last use of the root's bytes; < 0 never */
};
struct rt_input { /* what the user has set */
    bool set;
    enum dtype dtype;
    int rank;
    int64_t dims[NPURT_MAX_RANK];
    const void *data;
};
struct rt_cache {
    uint8_t *data;
    int64_t size, address;
    int64_t outer, inner; /* what the rows mean: outer x capacity x inner bytes */
};
struct npurt_session {
    npurt_plan *owner;
    const struct plan *plan;
    const struct plan_entry *entry;
    struct npurt_options options;
    int mode;
    struct target target; /* the plan's, with target_set applied */
    bool has_target;
    struct pool *pool;
    struct emu_machine *machine;
    struct arena arena;   /* lives with the session */
    struct arena scratch; /* reset between steps */

    struct rt_input *inputs; /* entry->n_inputs */
    int64_t *symbol;         /* value per symbol of the plan */
    bool *symbol_known;
    int64_t *user_symbol;  /* set by the user; -1 not */
    bool *late_symbol;     /* known only when a host step has run */
    int64_t *bound_symbol; /* symbols of the last complete binding */
    int64_t *value;        /* per expression */
    bool *value_known;
    bool bound; /* value, tensors and placement belong to bound_symbol */

    struct rt_tensor *tensors;
    uint8_t *pool_data; /* emulated GM of temporaries, inputs and outputs */
    int64_t pool_size, pool_room, pool_lower_bound;
    int64_t *placed_size; /* per tensor: bytes reserved by the placement; -1 not placed */
    int64_t *pool_offset;
    bool placed;
    int64_t weights_size, weights_address_end;
    struct rt_cache *caches; /* entry->n_caches */
    int64_t cache_length;
    const struct k_attr **attrs;          /* per step of the plan; NULL until first needed */
    const struct npurt_step **step_names; /* the same: names for reports */

    struct map timings; /* hash -> struct emu_timing */
    double traffic;     /* bytes moved so far: the clock of L2 residency */
    VEC(struct npurt_step) report_steps;
    struct npurt_report report;
    struct {
        uint8_t *data;
        int64_t size;
    } out; /* dense copy of a cache's view */
    atomic_int cancel;
    bool ran;
    char error[1200];
};

/* Sets the session's message "plan: error E0602: ..." and returns the code's status. */
enum npuc_status rt_fail(npurt_session *s, enum diag_code code, const char *fmt, ...) NPUC_PRINTF(3, 4);
const char *rt_name(const npurt_session *s, sym name);                       /* printable, in the scratch arena */
const char *rt_source(const npurt_session *s, const struct plan_step *step); /* first ONNX node behind it, printable */
int rt_find_input(const npurt_session *s, const char *name);                 /* -1 */

/* bind.c: symbols from shapes, values of all expressions. */
NPUC_MUST_CHECK enum npuc_status rt_bind(npurt_session *s);
NPUC_MUST_CHECK bool rt_value(const npurt_session *s, expr e, int64_t *out); /* false: not known or overflow */
void rt_evaluate(npurt_session *s); /* all expressions, after a symbol changed */
NPUC_MUST_CHECK bool rt_dims(const npurt_session *s, const struct plan_tensor *t, int64_t *dims);

/* memory.c: bytes of tensors. */
NPUC_MUST_CHECK enum npuc_status rt_place(npurt_session *s);
NPUC_MUST_CHECK enum npuc_status rt_place_late(npurt_session *s, int32_t tensor); /* once its size is known */
void rt_memory_free(npurt_session *s);

/* cache.c */
NPUC_MUST_CHECK enum npuc_status rt_cache_place(npurt_session *s);
NPUC_MUST_CHECK enum npuc_status rt_cache_load(npurt_session *s); /* given past values into the caches */
int rt_cache_of_input(const npurt_session *s, int input);         /* -1 */

/* tensor.c */
/* A dense copy (to_dense) or the way back between a strided tensor and dense bytes. */
NPUC_MUST_CHECK enum npuc_status rt_dense(npurt_session *s, int32_t tensor, uint8_t *dense, bool to_dense);
NPUC_MUST_CHECK bool rt_is_dense(const npurt_session *s, int32_t tensor);

/* host.c, dispatch.c, timing.c */
NPUC_MUST_CHECK enum npuc_status rt_host(npurt_session *s, const struct plan_step *step);
NPUC_MUST_CHECK enum npuc_status rt_sizes(npurt_session *s, const struct plan_step *step);
NPUC_MUST_CHECK enum npuc_status rt_dispatch(npurt_session *s);
NPUC_MUST_CHECK enum npuc_status rt_time_launch(npurt_session *s, const struct plan_step *step, struct emu_launch *l);
void rt_time_host(npurt_session *s, const struct plan_step *step);
void rt_note_step(npurt_session *s, const struct plan_step *step); /* without times */
void rt_report_begin(npurt_session *s);
void rt_report_end(npurt_session *s);

#endif
