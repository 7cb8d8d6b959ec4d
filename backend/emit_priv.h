/* Within plan emission: the state generators need not see. */
#ifndef BACKEND_EMIT_PRIV_H
#define BACKEND_EMIT_PRIV_H

#include "backend/backend.h"
#include "backend/expr_copy.h"

struct band_plan;
struct shared_use;
struct emitter {
    struct emit e;             /* first: generators hold a pointer to it */
    const struct graph *graph; /* the function being emitted */
    struct expr_copier exprs;  /* ir expression -> plan expression */
    struct map sources;        /* address of a struct loc -> index into plan->sources */
    struct map variants;       /* key of a space of sizes -> its struct found (variants.c) */
    struct map cache_of;       /* value id of a cache state -> its PT_CACHE tensor */
    VEC(bool) bound;           /* ir symbol number -> its value is known when the next step runs */
    struct plan_entry *entry;
    const struct shared_use *shared;
    struct band_plan *bands; /* of the nodes being emitted (emit_bands.c) */
    VEC(uint32_t) sizes;     /* ids of values whose tensor of sizes was made when a step asked for it */
    VEC(int32_t) outputs;    /* tensors of the entry's outputs */
    VEC(struct plan_cache) caches;
    VEC(int32_t) cores; /* by step: of the part of the machine that a launch runs on; 0: no launch */
};

/* emit_pages.c: caches in pages of a pool. */
enum npuc_status paged_cache(struct emitter *em, struct value *past, struct plan_cache *out);
static inline struct emitter *emitter_of(struct emit *e)
{
    return (struct emitter *)(void *)e;
}

/* emit.c */
enum npuc_status emit_node(struct emitter *em, struct node *n);
/* The value whose bytes v shows: through views; NULL when those are an input's or a constant's. */
struct value *computed_value(struct value *v);

/* emit_part.c: a Slice or Split whose results are pieces of the operand's bytes, as views */
bool is_part_of_input(const struct emitter *em, const struct node *n);
enum npuc_status emit_parts(struct emitter *em, struct node *n);

/* emit_concat.c: operands of Concats get their place in the result. After outputs are claimed, before any step */
void emit_claim_parts(struct emitter *em);
/* emit.c: a map in blocks that a view of other dimensions shows */
bool is_shown(const struct value *v);

/* emit_control.c */
enum npuc_status emit_if(struct emitter *em, struct node *n);
enum npuc_status emit_loop(struct emitter *em, struct node *n);

/* emit_tensor.c */
sym emit_sym(struct emit *e, sym ir);         /* interned in the plan's strings */
expr emit_symbol(void *user, int64_t symbol); /* of the ir, in the plan; user: struct emit */
int32_t tensor_new(struct emit *e, enum plan_tensor_kind kind, const struct type *t, sym name);
int32_t tensor_alias(struct emit *e, int32_t of, const struct type *t, sym name); /* same bytes, type t */
void bind_type_symbols(struct emitter *em, const struct type *t);
bool expr_is_bound(const struct emitter *em, expr ir);
bool type_is_bound(const struct emitter *em, const struct type *t);

/* emit_launch.c */
/* emit_copies.c: g->emit(e, n), of as many equal parts of axis 0 as `copies` says, side by side. */
enum npuc_status emit_copies(struct emit *e, const struct gen *g, struct node *n, int32_t copies);
/* Can the node be taken apart along axis 0 into `copies` equal parts? emit_may_divide does not ask where operands lie.
 */
bool emit_may_divide(struct emit *e, struct node *n, int32_t copies);
bool emit_divides(struct emit *e, struct node *n, int32_t copies);
/* emit_bands.c: if a run of nodes that is better made band by band begins with n, emits it and returns its last node;
 * else NULL. */
struct node *emit_bands(struct emitter *em, struct node *n, enum npuc_status *st);
/* residency.c: what may stay in shared memory from step `first` to step `last`, and whether it does. `used`: bytes of a
 * cluster by step, beside which there is room for so many in all; those that live shortest come first. */
struct stay {
    int32_t id, first, last;
    int64_t bytes;
    bool kept;
};
void residency_keep(struct stay *list, int64_t n, int64_t *used, int64_t room);
/* near.c: e->near and em->shared, what residency will do as far as nodes tell before there are steps. */
struct shared_use {
    int32_t *first, *last; /* by value: nodes that touch it, counted from 1; 0: none */
    int64_t *used;         /* by node: bytes of a cluster's shared memory */
};
void emit_mark_near(struct emitter *em);
/* residency.c: temporaries that stay in the shared memory of clusters. Behind plan_lifetimes. */
void plan_residency(struct plan *p, const struct plan_entry *entry, int64_t first_tensor, const struct machine *m,
                    struct arena *a);
struct plan_step *step_new(struct emit *e, enum plan_step_kind kind, const struct node *n);
/* The number of a kernel with this content, adding it when there is none yet. */
int32_t kernel_number(struct emit *e, struct tile_kernel *k);

/* emit_host.c */
/* Copies a dense tensor of type t: on the cores where they can, else on the host for the reason given. */
enum npuc_status emit_copy(struct emit *e, int32_t from, int32_t to, const struct type *t, const char *reason);
bool has_known_elems(const struct emitter *em, const struct node *n); /* an integer tensor of bound expressions */
enum npuc_status emit_text(struct emit *e, struct node *n);           /* a Constant of strings */
enum npuc_status emit_contents(struct emit *e, struct node *n);       /* binds symbols to the operand's elements */
void emit_sizes(struct emit *e, struct node *n);                      /* its tensor exists */

/* emit_cache.c */
enum npuc_status cache_input(struct emitter *em, struct value *v);
enum npuc_status cache_append(struct emitter *em, struct node *n); /* and CacheAppendCoded */
/* Is the node one of those whose rows a CacheAppend makes itself (emit_appended)? */
bool emit_is_appended(const struct node *n);
enum npuc_status cache_encode(struct emitter *em, struct node *n);
enum npuc_status cache_decode(struct emitter *em, struct node *n);
bool is_coded_cache(const struct value *v); /* an input whose rows are kept as codes */
/* The tensor of such an input, or of its present value: it has dims, but no bytes. */
int32_t cache_interface(struct emitter *em, enum plan_tensor_kind kind, const struct value *v);
/* The buffer of that name, which all gears share; -1: that of an earlier one has other sizes, cache_of_gears says so.
 */
int32_t cache_store(struct emit *e, const char *name, const struct type *t);
enum npuc_status cache_of_gears(struct emit *e, const char *name, const char *option);

/* weights.c */
enum npuc_status weight_put(void *user, int32_t tensor, struct file_writer *w);

/* family.c: the first generator that takes the node; else *reason is the last constraint that was named */
const struct gen *find_gen(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason);

/* join.c: launches that do not need each other as one. Behind the last step of the entry, before plan_lifetimes */
void emit_join(struct emitter *em);
/* join_kernel.c: one kernel that does the work of several, side by side on blocks of their own. */
struct join_member {
    const struct tile_kernel *kernel;
    const struct plan_step *step;
    expr first, blocks; /* of its blocks in the joint kernel, and how many; over the plan's symbols */
};
struct joint {
    struct tile_kernel *kernel; /* NULL: an expression would be too large */
    const int32_t *tensors;
    const uint8_t *divided; /* as in struct plan_step */
    const expr *params;
};
struct joint join_kernels(struct emit *e, const struct join_member *members, int n);

/* lifetime.c: first and last step of every PT_TEMP of an entry, which has the tensors from first_tensor on; a: for its
 * own use */
void plan_lifetimes(struct plan *p, const struct plan_entry *e, int64_t first_tensor, struct arena *a);

#endif
