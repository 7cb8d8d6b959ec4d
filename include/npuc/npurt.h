/* npurt: runs a plan on the emulated NPU.
 *
 *     npurt_plan *p;  npurt_session *s;
 *     if (npurt_plan_open("model.plan", &p) != NPUC_OK) puts(npurt_plan_error(p));
 *     npurt_session_new(p, NULL, &s);
 *     npurt_set_input(s, "x", NPURT_F32, 2, (int64_t[]){1, 4}, data);
 *     if (npurt_run(s) != NPUC_OK) puts(npurt_session_error(s));
 *     npurt_output(s, "y", &tensor);
 *
 * A plan may serve several sessions, also in several threads; a session is used by one thread at a time. Nothing is
 * printed. Handles are given out even on failure (but NULL when memory is missing) so that the message can be read;
 * free them all the same. KV caches live in the session: an input that belongs to a cache is copied into it when it is
 * given, and otherwise the rows that earlier runs left are used. */
#ifndef NPUC_NPURT_H
#define NPUC_NPURT_H

#include "npuc/status.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct npurt_plan npurt_plan;
typedef struct npurt_session npurt_session;

/* Element types are ONNX's TensorProto.DataType numbers; the common ones: */
enum {
    NPURT_F32 = 1,
    NPURT_U8 = 2,
    NPURT_I8 = 3,
    NPURT_I32 = 6,
    NPURT_I64 = 7,
    NPURT_BOOL = 9,
    NPURT_F16 = 10,
    NPURT_BF16 = 16
};
#define NPURT_MAX_RANK 16

struct npurt_dim {
    const char *text; /* "seq", "past + seq", "64" */
    int64_t min, max; /* INT64_MAX: unbounded */
};
/* What a value is. Element type 8 (strings) has elements of struct npurt_string. */
enum npurt_kind { NPURT_TENSOR, NPURT_SEQUENCE, NPURT_OPTIONAL };
struct npurt_string {
    const char *text; /* UTF-8; a result's is followed by a zero byte */
    int64_t size;
};
struct npurt_value { /* an input or output of a plan */
    const char *name;
    int dtype;
    int rank; /* -1: not known before a run, or no tensor */
    const struct npurt_dim *dims;
    int optional; /* input with a default */
    int cache;    /* belongs to a KV cache: an input need not be given, see above */
    int kind;     /* enum npurt_kind; dtype is that of the tensors within */
};
/* A sequence has rank 1, dims[0] elements and data that points to as many struct npurt_tensor; an optional value is the
 * same with 0 or 1 of them. */
struct npurt_tensor {
    int dtype;
    int rank;
    int64_t dims[NPURT_MAX_RANK];
    const void *data; /* dense, row-major */
    int64_t size;     /* bytes */
    int kind;         /* enum npurt_kind */
};

/* ---- plans ---- */
enum npuc_status npurt_plan_open(const char *path, npurt_plan **plan); /* reads and verifies; weights stay mapped */
void npurt_plan_close(npurt_plan *p);                                  /* after its sessions */
const char *npurt_plan_error(const npurt_plan *p);                     /* "" when there is none */
const char *npurt_plan_target(const npurt_plan *p);
int npurt_plan_inputs(const npurt_plan *p);
int npurt_plan_outputs(const npurt_plan *p);
const struct npurt_value *npurt_plan_input(const npurt_plan *p, int i); /* NULL when out of range */
const struct npurt_value *npurt_plan_output(const npurt_plan *p, int i);
int npurt_plan_symbols(const npurt_plan *p);
const struct npurt_dim *npurt_plan_symbol(const npurt_plan *p, int i);

/* ---- sessions ---- */
enum npurt_mode { NPURT_DATA = 1, NPURT_CLOCK = 2, NPURT_BOTH = 3 };
/* Called between steps by the thread that runs; a value other than 0 cancels the run. */
typedef int npurt_progress_fn(void *user, int64_t step, int64_t n_steps);
struct npurt_options { /* zeroed: data, one thread */
    int threads;
    int mode;          /* enum npurt_mode; 0: data */
    int check_hazards; /* race and initialisation checks of every tile program; slow */
    npurt_progress_fn *progress;
    void *progress_user;
    const char *const *target_set; /* "hbm.bandwidth=1.8TB/s": changed constants for the clock, n_target_set of them */
    int n_target_set;
};
enum npuc_status npurt_session_new(npurt_plan *p, const struct npurt_options *o, npurt_session **session);
void npurt_session_free(npurt_session *s);
const char *npurt_session_error(const npurt_session *s);

/* The data are used in place and must stay until the run has ended. data NULL: the shape alone, for mode clock. An
 * input stays set for later runs until it is set anew or unset. */
enum npuc_status npurt_set_input(npurt_session *s, const char *name, int dtype, int rank, const int64_t *dims,
                                 const void *data);
/* The same for every kind of value. Text, sequences and optional values, and tensors whose rank the plan does not know,
 * are copied here and now. */
enum npuc_status npurt_set_value(npurt_session *s, const char *name, const struct npurt_tensor *value);
enum npuc_status npurt_unset_input(npurt_session *s, const char *name);
/* A dimension by name, for what no input's shape tells; -1 takes it back. */
enum npuc_status npurt_set_symbol(npurt_session *s, const char *name, int64_t value);
enum npuc_status npurt_run(npurt_session *s);
void npurt_cancel(
    npurt_session *s); /* from any thread or a signal handler: the current run ends with NPUC_E_CANCELLED */
/* The data belong to the session and are valid until its next call, with everything a sequence or optional value holds.
 * In mode clock they are NULL. */
enum npuc_status npurt_output(npurt_session *s, const char *name, struct npurt_tensor *out);

/* ---- KV caches ---- */
int64_t npurt_cache_length(const npurt_session *s); /* valid rows; 0 without caches */
int64_t npurt_cache_capacity(const npurt_session *s);
/* New rows that a call may bring (caches of sliding windows, compiled with --kv-ring); INT64_MAX: any number. */
int64_t npurt_cache_room(const npurt_session *s);
enum npuc_status npurt_cache_truncate(npurt_session *s, int64_t length); /* forget rows from `length` on */
enum npuc_status npurt_cache_save(npurt_session *s, const char *path);
enum npuc_status npurt_cache_restore(npurt_session *s, const char *path); /* of a session with the same plan */
/* Rows [0, length) of the caches of `from`, a session of the same plan, become those of `to`: sequences that begin
 * alike are computed once and continued apart. Neither may be running. */
enum npuc_status npurt_cache_fork(npurt_session *to, const npurt_session *from, int64_t length);

/* Caches in pages (compiled with --kv-page): pages of the pool, how many sequences have; 0: caches in one piece. */
int64_t npurt_cache_pages(const npurt_session *s, int64_t *used);
/* Rows of a page where all caches that grow are in pages or rings, so that sequences can share them; else 0. */
int64_t npurt_cache_page(const npurt_session *s);
/* The one sequence that the caches hold becomes so many, which share its pages until they write to them: what prompts
 * have in common is computed once. The next run has a batch of as many. */
enum npuc_status npurt_cache_spread(npurt_session *s, int64_t sequences);

/* ---- language models ---- */
/* What an input is for, told by its name and kind: token ids, mask over the tokens so far, positions of the new tokens,
 * the cache row that the first of them goes to, the tokens so far as a number, the same less one (the seqlens_k of
 * GroupQueryAttention), those of the longest sequence. */
enum npurt_role {
    NPURT_ROLE_UNKNOWN,
    NPURT_ROLE_TOKENS,
    NPURT_ROLE_MASK,
    NPURT_ROLE_POSITIONS,
    NPURT_ROLE_FIRST_ROW,
    NPURT_ROLE_VALID_ROWS,
    NPURT_ROLE_CACHE,
    NPURT_ROLE_LAST_ROW,
    NPURT_ROLE_TOTAL_ROWS
};
int npurt_input_role(const npurt_plan *p, int i);
int npurt_logits_output(const npurt_plan *p); /* the output that holds logits; -1: no model with caches and logits */
/* How sequences of a batch may differ in length: the model takes one sequence; those of a batch are equally long;
 * shorter ones are filled up in front, which its mask hides; or each has rows of its own in the caches (write_indices,
 * seqlens_k), shorter ones are filled up behind, and what fills is overwritten by the tokens that follow. */
enum npurt_batch { NPURT_BATCH_ONE, NPURT_BATCH_EQUAL, NPURT_BATCH_FILLED, NPURT_BATCH_OWN };
int npurt_batch_form(const npurt_plan *p);
/* One call: new tokens that follow those in the caches. `filling` is for plans of NPURT_BATCH_FILLED, `own` for those
 * of NPURT_BATCH_OWN, where a sequence computes the bits that it has alone. */
struct npurt_tokens {
    const int64_t *ids;     /* [batch][rows]; copied */
    int64_t batch, rows;    /* sequences, new tokens of each */
    int64_t past;           /* rows in the caches: tokens of the longest sequence, filling included */
    const int64_t *filling; /* [batch]: leading tokens of a sequence that only fill; NULL: none */
    const int64_t *own;     /* [batch]: tokens of each in the caches, at most `past`; NULL: past */
};
/* Sets all inputs by their roles and runs. Refused with nothing run or changed in the caches: ids outside of the
 * vocabulary, more tokens than the caches have room for, lengths that the model cannot be told, inputs whose role is
 * not known. */
enum npuc_status npurt_run_tokens(npurt_session *s, const struct npurt_tokens *t);
/* How a token is chosen. Zeroed: the first largest logit. Steps in this order, each on what the one before left: the
 * penalty divides positive logits of tokens that were there before by its value and multiplies negative ones; logits
 * are divided by the temperature; the top_k largest stay (0: all; the smaller id first among equals); of these the
 * fewest that have a share of top_p (0 or 1: all); of these those that are at least min_p times as likely as the
 * likeliest. One of the rest is drawn by its share: the first whose weights, summed over the ids as they are when all
 * stay and over the likeliest first otherwise, exceed the part u of the sum, where u = (x >> 11) / 2^53 and x is number
 * `draw` of the generator SplitMix64 started with `seed`. */
struct npurt_sampling {
    double temperature; /* 0: no drawing */
    int64_t top_k;
    double top_p, min_p;
    double repeat_penalty; /* 0 or 1: none */
    uint64_t seed, draw;
};
/* Chooses by row `row` of the last run's logits seen as [rows][vocabulary]; < 0 counts from the last. `before`: the n
 * tokens for the penalty. NPUC_E_INVALID when no logit is finite or one is NaN. */
enum npuc_status npurt_sample(npurt_session *s, int64_t row, const struct npurt_sampling *how, const int64_t *before,
                              int64_t n, int64_t *token);

/* ---- reports ---- */
#define NPURT_UNITS  7 /* S, MTE2, MTE3, MTE1, M, FIX, V */
#define NPURT_SPACES 9 /* GM, L1, L0A, L0B, L0C, BT, UB, L0A_MX, L0B_MX */
#define NPURT_CORES  2 /* matrix (cube), vector */
struct npurt_step {
    const char *label;        /* short name of what runs */
    const char *op;           /* operator, kernel or vendor's fused name */
    const char *kernel;       /* tile program; NULL on the host */
    const char *const *nodes; /* ONNX nodes */
    int n_nodes;
    int host;           /* 1: not on the NPU */
    const char *reason; /* why on the host; on the NPU: why it converts a layout; NULL */
    double cycles, us;  /* with launch cost */
    double launch_us;
    double busy[NPURT_CORES][NPURT_UNITS]; /* cycles, summed over cores */
    int32_t cores[NPURT_CORES];
    int64_t bytes[NPURT_SPACES][NPURT_SPACES]; /* from, to */
    int64_t gm_read, gm_written, l2_hit, l2_miss;
    int64_t peak[NPURT_SPACES];
    double macs; /* useful; 0 unknown */
    const char *bound_by;
    int64_t count; /* times it ran: several in the body of a loop; times, bytes and macs are sums over them */
};
struct npurt_report {
    const char *target;
    double clock_hz;
    const struct npurt_step *steps; /* those that ran, in the order of their first time */
    int64_t n_steps;
    double us, npu_us, host_us, launch_us, cycles;
    int64_t gm_read, gm_written;
    int64_t weights_size, cache_size, pool_size, pool_lower_bound; /* bytes of emulated GM */
    int64_t peak[NPURT_SPACES];
    int64_t n_host, n_launches;
    const char *const *unit_names, *const *space_names, *const *core_names; /* as the target's family calls them */
};
/* Of the last run; times are there in modes clock and both. Valid until the session's next call. */
const struct npurt_report *npurt_report(npurt_session *s);
const char *npurt_unit_name(int unit);
const char *npurt_space_name(int space);

#ifdef __cplusplus
}
#endif
#endif
