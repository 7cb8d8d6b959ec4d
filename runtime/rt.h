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

/* What changes with a symbol that is bound while steps run. */
struct rt_dependents {
    const expr *exprs; /* operands before their users */
    const int32_t *tensors;
    int32_t n_exprs, n_tensors;
};
struct rt_tensor {
    uint8_t *data;         /* NULL: none (yet) */
    int64_t size, address; /* valid when `known` */
    int32_t root;          /* the tensor whose bytes these are; itself unless PT_ALIAS */
    int32_t next_view;     /* of a root: its first view; of a view: the next of the same root; -1 none */
    bool known;            /* size evaluated */
    bool read_only;
    uint8_t *own; /* storage of a tensor outside of the pool */
    int64_t own_size;
    struct rt_object *object; /* value of a PT_OBJECT; NULL: none yet */
    double touched;           /* traffic counter at the last use of the root's bytes; < 0 never */
};
struct rt_input { /* what the user has set */
    bool set;
    bool void_given; /* no elements, though other inputs tell that there are some: it may be given, not read */
    enum dtype dtype;
    int rank;
    int64_t dims[NPURT_MAX_RANK];
    const void *data;
};
struct rt_cache {
    uint8_t *data;
    int64_t size, address;
    int64_t outer, inner; /* what the rows mean: outer x capacity x inner bytes */
    int64_t capacity;     /* rows */
    int64_t page;         /* rows of one, which `runs` runs of as many make; 0: not in pages */
    int64_t runs;         /* of a sequence, when in pages */
    int64_t ring;         /* rows that a sequence has in a ring; 0: it is none */
};
/* Pages of a pool (caches in pages have one table): which are whose. Page 0 is nobody's, tables begin with it. */
struct rt_pages {
    int32_t *table; /* [sequences][width]: pages, in the order of rows */
    int32_t *held;  /* [sequences]: pages of each */
    int32_t *users; /* [total]: sequences that have the page */
    int64_t sequences, width, total, page;
    int64_t used;
    int64_t lowest; /* no page below is free */
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
    int32_t *told_by;      /* per symbol: the input whose shape told it, -1 */
    int32_t telling;       /* while binding: the input whose shape is looked at, -1 */
    int64_t *bound_symbol; /* symbols of the last complete binding */
    int64_t *value;        /* per expression */
    bool *value_known;
    struct rt_dependents **dependents; /* per symbol; NULL until first bound by a step */
    bool bound;                        /* value, tensors and placement belong to bound_symbol */

    struct rt_tensor *tensors;
    bool *in_entry;     /* per tensor: the entry that runs uses it */
    uint8_t *pool_data; /* emulated GM of temporaries, inputs and outputs */
    int64_t pool_size, pool_room, pool_lower_bound;
    int64_t *placed_size; /* per tensor: bytes reserved by the placement; -1 not placed */
    int64_t *pool_offset;
    bool placed;
    int64_t weights_size, weights_address_end;
    int64_t own_total;       /* bytes of tensors outside of the pool */
    struct rt_cache *caches; /* entry->n_caches */
    int64_t cache_length;
    int64_t *written; /* [n_written]: rows that each sequence has ever had in rings, which keep the last of them */
    int64_t n_written;
    struct rt_pages pages;
    const int64_t *begins; /* of a call with tokens: rows that each sequence has before; NULL: all the past ones */
    int64_t n_begins;      /* sequences of that call */
    const struct k_attr **attrs;          /* per step of the plan; NULL until first needed */
    const struct npurt_step **step_names; /* the same: names for reports */

    struct map timings;       /* hash -> struct emu_timing */
    struct rt_known *sharing; /* what sessions of the same plan and target have timed; NULL: this one alone */
    struct map counts;        /* hash -> struct emu_counted: of launches that differ in what is dirty alone */
    double dirty;             /* bytes in L2 that memory does not have yet */
    double traffic;           /* bytes moved so far: the clock of L2 residency */
    double ahead;             /* bytes of weights to come that memory had time to bring to L2 */
    VEC(struct npurt_step) report_steps;
    int64_t *record_of;       /* per step of the plan: its place in report_steps, -1: has not run */
    struct npurt_step *note;  /* of the step that runs */
    struct npurt_step *trial; /* takes the times of a branch that is tried; NULL: none is */
    uint8_t *choice;          /* per step: the branch that costs more, plus 1; 0: not known. Clock without data */
    int32_t depth;            /* bodies around the step that runs */
    struct npurt_report report;
    struct {
        uint8_t *data;
        int64_t size;
    } out,                /* dense copy of a cache's view */
        fed;              /* what npurt_run_tokens gave the inputs */
    struct arena views;   /* lists of the last object handed to the user */
    int64_t object_total; /* bytes of all objects */
    atomic_int cancel;
    bool ran;
    char error[1200];
};

/* Sets the session's message "plan: error E0602: ..." and returns the code's status. */
enum npuc_status rt_fail(npurt_session *s, enum diag_code code, const char *fmt, ...) NPUC_PRINTF(3, 4);
const char *rt_name(const npurt_session *s, sym name);                       /* printable, in the scratch arena */
const char *rt_source(const npurt_session *s, const struct plan_step *step); /* first ONNX node behind it, printable */
int rt_find_input(const npurt_session *s, const char *name);                 /* -1 */

/* entry.c: which entry runs. */
void rt_enter(npurt_session *s, const struct plan_entry *e);
void rt_learn_fixed(npurt_session *s); /* dimensions that have one value only */
/* The entry for the values of the symbols; fails with a message that names the gears. */
NPUC_MUST_CHECK enum npuc_status rt_choose_entry(npurt_session *s);
bool rt_is_gear(const npurt_session *s, int64_t symbol, int64_t value); /* or the symbol is not fixed */
const char *rt_gears_text(npurt_session *s, int64_t symbol);            /* "128, 512"; NULL: it has none */

/* bind.c: symbols from shapes, values of all expressions. */
NPUC_MUST_CHECK enum npuc_status rt_bind(npurt_session *s);
NPUC_MUST_CHECK bool rt_value(const npurt_session *s, expr e, int64_t *out); /* false: not known or overflow */
void rt_evaluate(npurt_session *s);                                          /* all expressions */
/* A step binds a symbol: what depends on it is evaluated anew, tensors whose size or place changes lose theirs. Fails
 * with the message "WHAT makes SYMBOL = ..." when the plan was not compiled for the value. */
NPUC_MUST_CHECK enum npuc_status rt_rebind(npurt_session *s, int32_t symbol, int64_t value, const char *what);
NPUC_MUST_CHECK bool rt_dims(const npurt_session *s, const struct plan_tensor *t, int64_t *dims);

/* memory.c: bytes of tensors. */
NPUC_MUST_CHECK enum npuc_status rt_place(npurt_session *s);
/* Storage and place of a tensor whose size, or whose place in another, steps tell; nothing to do for others. */
NPUC_MUST_CHECK enum npuc_status rt_place_late(npurt_session *s, int32_t tensor);
/* The same for a tensor that grows by rows: keeps the bytes it has, takes room for more at once. */
NPUC_MUST_CHECK enum npuc_status rt_place_grown(npurt_session *s, int32_t tensor);
/* Two roots of `size` bytes trade their storage, so that `to` has the value of `from`; false: they cannot. */
NPUC_MUST_CHECK bool rt_exchange(npurt_session *s, int32_t from, int32_t to, int64_t size);
void rt_memory_free(npurt_session *s);

/* map.c: where the tensors are for the sizes that the session has. */
struct rt_place {
    int32_t tensor;
    int32_t first, last; /* steps of the entry between which it holds a value */
    int64_t address, size;
};
struct rt_map {
    struct rt_place *places; /* by address */
    int64_t n;
};
/* Binds and places without running; the list is in `a`. */
NPUC_MUST_CHECK enum npuc_status rt_map(npurt_session *s, struct arena *a, struct rt_map *out);
/* The message of a machine with `gm` bytes of global memory, which are too few. */
NPUC_MUST_CHECK enum npuc_status rt_too_little(npurt_session *s, double gm, int64_t caches);
int64_t rt_weight_size(const npurt_session *s, const struct plan_tensor *t); /* bytes in global memory */

/* cache.c */
NPUC_MUST_CHECK enum npuc_status rt_cache_place(npurt_session *s);
NPUC_MUST_CHECK enum npuc_status rt_cache_load(npurt_session *s); /* given past values into the caches */
int rt_cache_of_input(const npurt_session *s, int input);         /* -1 */

NPUC_MUST_CHECK bool rt_cache_capacity(const npurt_session *s, const struct plan_cache *c, int64_t *rows);
/* Row `row` of run `outer` of cache i, and how many rows lie behind one another from there on. */
uint8_t *rt_cache_row(const npurt_session *s, int32_t i, int64_t outer, int64_t row, int64_t *n);
/* Rows [first, rows) of a cache, all runs, to dense bytes; and from them. */
void rt_cache_get(const npurt_session *s, int32_t i, int64_t first, int64_t rows, uint8_t *dense);
void rt_cache_set(const npurt_session *s, int32_t i, int64_t first, int64_t rows, const uint8_t *dense);
int32_t rt_paged_output(const npurt_session *s, const struct plan_tensor *t); /* the cache whose present it is; -1 */

/* rings.c: caches of sliding windows */
/* The first row that the cache has of all sequences; 0 when it is no ring. */
int64_t rt_ring_first(const npurt_session *s, const struct plan_cache *c);
/* The rows to come: fails, with nothing changed, where a ring has no room for as many, or no longer what they read.
 * given: past rows come with them. */
NPUC_MUST_CHECK enum npuc_status rt_rings_take(npurt_session *s, bool given);
/* Can sequences of `from` be cut to `length` rows? The message is that of `s`. */
NPUC_MUST_CHECK enum npuc_status rt_rings_check(npurt_session *s, const npurt_session *from, int64_t length);
/* n sequences have had so many rows; NULL: none. */
NPUC_MUST_CHECK enum npuc_status rt_rings_note(npurt_session *s, const int64_t *written, int64_t n);
NPUC_MUST_CHECK enum npuc_status rt_rings_spread(npurt_session *s, int64_t sequences);
void rt_rings_free(npurt_session *s);

/* pages.c: caches in pages */
bool rt_past_is_given(const npurt_session *s);
/* A call with tokens tells lengths of as many sequences as caches have. */
NPUC_MUST_CHECK enum npuc_status rt_begins_fit(npurt_session *s, int64_t sequences);
const struct plan_cache *rt_paged_cache(const npurt_session *s); /* one of them; NULL: there are none */
/* The table for the sizes that are bound; what it holds stays when they do. */
NPUC_MUST_CHECK enum npuc_status rt_pages_place(npurt_session *s, int64_t *address);
/* Pages for the rows of the call to come, none of them anyone else's; fails with nothing changed. */
NPUC_MUST_CHECK enum npuc_status rt_pages_take(npurt_session *s);
/* The same for `rows` rows of each of so many sequences, outside of a call. */
NPUC_MUST_CHECK enum npuc_status rt_pages_hold(npurt_session *s, int64_t sequences, int64_t rows);
void rt_pages_release(npurt_session *s, int64_t rows); /* what lies behind the first rows of each sequence */
void rt_pages_free(npurt_session *s);

/* cache_code.c: caches of codes. `given` and `out` are dense floats of the past and the present value. */
NPUC_MUST_CHECK enum npuc_status rt_cache_encode(npurt_session *s, const struct plan_cache *c, enum dtype type,
                                                 const void *given);
NPUC_MUST_CHECK enum npuc_status rt_cache_decode(npurt_session *s, const struct plan_cache *c, enum dtype type,
                                                 void *out);

/* tensor.c */
struct rt_runs { /* a tensor with one padded axis: `outer` runs of `bytes`, `stride` apart */
    int64_t outer, bytes, stride;
};
NPUC_MUST_CHECK bool rt_find_runs(const npurt_session *s, int32_t tensor, struct rt_runs *r);
/* A dense copy (to_dense) or the way back between a strided tensor and dense bytes. */
NPUC_MUST_CHECK enum npuc_status rt_dense(npurt_session *s, int32_t tensor, uint8_t *dense, bool to_dense);
NPUC_MUST_CHECK bool rt_is_dense(const npurt_session *s, int32_t tensor);

/* object.c: values that are no tensor of numbers with a known rank */
bool rt_is_object(const npurt_session *s, int32_t tensor);
/* A copy of v becomes the tensor's value; v may be within what it replaces. Fails when v is not of its type. */
NPUC_MUST_CHECK enum npuc_status rt_object_write(npurt_session *s, int32_t tensor, const struct k_tensor *v);
/* *out points into the object until that is written again. */
NPUC_MUST_CHECK enum npuc_status rt_object_read(npurt_session *s, int32_t tensor, struct k_tensor *out);
/* to = from, and from has no value any more. */
NPUC_MUST_CHECK enum npuc_status rt_object_move(npurt_session *s, int32_t from, int32_t to);
NPUC_MUST_CHECK enum npuc_status rt_object_set(npurt_session *s, int input, const struct npurt_tensor *v);
NPUC_MUST_CHECK enum npuc_status rt_object_get(npurt_session *s, int32_t tensor, struct npurt_tensor *out);
void rt_objects_free(npurt_session *s);

/* Any tensor as a dense value: objects as they are, others over their bytes or a copy in the scratch arena. */
NPUC_MUST_CHECK enum npuc_status rt_operand(npurt_session *s, int32_t tensor, struct k_tensor *out);
/* The way back; `what` names who gives the value, for messages. */
NPUC_MUST_CHECK enum npuc_status rt_result(npurt_session *s, int32_t tensor, const struct k_tensor *v,
                                           const char *what);

/* A step that is not computed, in mode clock: the dimensions it would tell are as large as they can be. */
NPUC_MUST_CHECK enum npuc_status rt_assume(npurt_session *s, const struct plan_step *step);

/* timing.c: times of launches that several sessions of one plan and target find, each timed once. The sessions'
 * `sharing` has to be NULL again before it is freed. */
struct rt_known *rt_known_new(void); /* NULL: out of memory */
void rt_known_free(struct rt_known *k);

/* host.c, dispatch.c, timing.c */
NPUC_MUST_CHECK enum npuc_status rt_host(npurt_session *s, const struct plan_step *step);
NPUC_MUST_CHECK enum npuc_status rt_sizes(npurt_session *s, const struct plan_step *step);
NPUC_MUST_CHECK enum npuc_status rt_dispatch(npurt_session *s);
NPUC_MUST_CHECK enum npuc_status rt_steps(npurt_session *s, int64_t first, int64_t n); /* and what is nested in them */
/* control.c */
NPUC_MUST_CHECK enum npuc_status rt_if(npurt_session *s, const struct plan_step *step);
NPUC_MUST_CHECK enum npuc_status rt_loop(npurt_session *s, const struct plan_step *step);
NPUC_MUST_CHECK enum npuc_status rt_transfer(npurt_session *s, const struct plan_step *step);
NPUC_MUST_CHECK enum npuc_status rt_append(npurt_session *s, const struct plan_step *step);
NPUC_MUST_CHECK enum npuc_status rt_time_launch(npurt_session *s, const struct plan_step *step, struct emu_launch *l);
void rt_time_host(npurt_session *s, const struct plan_step *step);
void rt_time_bytes(npurt_session *s, const struct plan_step *step, double bytes); /* a host step that moves them */
/* L2 and the placement of memory are as before the session's first run, so that the next run has the times and the
 * sizes of a fresh session's; timed launches stay. */
void rt_forget(npurt_session *s);
void rt_note_step(npurt_session *s, const struct plan_step *step); /* without times */
void rt_report_begin(npurt_session *s);
void rt_report_end(npurt_session *s);

#endif
