/* Passes and the pass manager. A pass is a function over one graph: an entry point of the module, or a body of If, Loop
 * or Scan. It changes the graph through ir/build.h alone and asks ir_may_rewrite before every change (bisection by
 * --max-rewrites). */
#ifndef PASSES_PASS_H
#define PASSES_PASS_H

#include "ir/build.h"
#include "ir/quantiser.h"
#include "ir/target_info.h"
#include "passes/division.h"

enum pass_id {
#define PASS(nm, ...) PASS_##nm,
#include "passes/passes.def"
    PASS_COUNT
};
enum pass_stat {
#define STAT(pass, counter, ...) STAT_##pass##_##counter,
#include "passes/passes.def"
    STAT_COUNT
};

#define PASS_RING_ROOM 512 /* new rows of a call that rings have room for, unless told otherwise */

struct pass_options {
    int64_t cache_capacity; /* rows of a KV cache; 0: the model's own form is kept */
    int64_t cache_page;     /* rows of a page of it; 0: it is one piece */
    int64_t cache_ring;   /* new rows of a call that caches of sliding windows have room for; 0: they are whole; < 0: as
                           * many as that where sizes say that no call has more */
    enum dtype precision; /* element type for floats; DT_NONE: the model's */
    enum dtype integer;   /* of products with constant weights; DT_NONE: floats */
    bool whole;           /* precision is for all operators, also where the target asks for it in products alone */
    int64_t fold_max_size; /* bytes of the largest constant that folding makes */
    bool
        strict; /* round where the steps of the model and of ONNX's function bodies round, also where that costs time */
    const struct quantiser *quantiser;       /* of a recipe; NULL: none */
    const struct quant_reader *quant_reader; /* of strip_codes; NULL: it takes all products, and nobody is told */
    struct division *division;               /* NULL: one device */
    bool plain_maps;                         /* feature maps stay in the order of their dimensions */
};

/* What a user calls a precision: "fp16", "int8-mixed-fp16". */
struct precision_mode {
    const char *name;
    enum dtype precision, integer; /* as in struct pass_options */
    bool whole;
};
#define PRECISION_NAMES "fp32, fp16, bf16, int8-mixed-fp16, int8-mixed-fp32, int16-mixed-fp16 or int16-mixed-fp32"
const struct precision_mode *precision_find(const char *name); /* NULL: none of this name */
struct pass_ctx;
/* Is the precision for every operator, not for products alone? */
bool precision_is_whole(const struct pass_ctx *px);

struct pass_ctx {
    struct ir_ctx *cx;
    struct module *m;
    const struct target_info *target; /* NULL: no target chosen */
    struct pass_options options;
    struct arena arena; /* scratch of the running pass; emptied after it */
    int64_t stats[STAT_COUNT];
    bool changed; /* set by the passes */
};
void pass_ctx_init(struct pass_ctx *px, struct module *m, const struct target_info *target);
void pass_ctx_free(struct pass_ctx *px);

typedef enum npuc_status pass_fn(struct pass_ctx *px, struct graph *g);
struct pass {
    const char *name, *what;
    pass_fn *run;
};
struct pass_stat_info {
    const char *pass, *counter, *what;
};
extern const struct pass pass_table[PASS_COUNT];
extern const struct pass_stat_info pass_stat_table[STAT_COUNT];
int pass_find(const char *name, int64_t len); /* enum pass_id, -1 when unknown */

/* Counts, and notes that the module has changed. */
static inline void pass_count(struct pass_ctx *px, enum pass_stat stat, int64_t n)
{
    px->stats[stat] += n;
    px->changed = px->changed || n > 0;
}
/* fn on g and on all bodies within it, inner ones first. Recursion is bounded by the nesting that readers allow. */
enum npuc_status pass_each_graph(struct pass_ctx *px, struct graph *g, pass_fn *fn);
/* fn on every node of g that is an `op`. */
typedef enum npuc_status pass_node_fn(struct pass_ctx *px, struct node *n);
enum npuc_status pass_each_node(struct pass_ctx *px, struct graph *g, enum op op, pass_node_fn *fn);
/* Symbols that have become known: symbol i is by[i] where that is set, in g and its bodies; what follows is inferred
 * and folded. by[] is completed where one stands for another that went as well. */
enum npuc_status pass_settle_sizes(struct pass_ctx *px, struct graph *g, expr *by, int32_t n_by);
/* What to return when a builder gave NULL: what was reported, if anything. */
static inline enum npuc_status pass_failure(const struct pass_ctx *px)
{
    return px->cx->diag->first != NPUC_OK ? px->cx->diag->first : NPUC_E_INTERNAL;
}

struct pass_step {
    enum pass_id id;
    const char *why; /* why here */
};
const struct pass_step *pass_pipeline(int64_t *n); /* the default order */

/* How a list of passes runs. */
struct pass_run {
    bool verify_each;       /* ir_verify after every pass, and before the first */
    const char *stop_after; /* pass name, or NULL */
    const char *dump_dir;   /* write NN-<pass>.ir there; NULL: do not */
    /* Called after each pass, NULL: not. `ns` is the time it took. */
    void (*after)(void *user, const struct pass_ctx *px, const struct pass *p, int64_t ns);
    void *user;
};
NPUC_MUST_CHECK enum npuc_status pass_run_all(struct pass_ctx *px, const struct pass_step *steps, int64_t n,
                                              const struct pass_run *run);
/* The non-zero counters, one per line: "fold_constants.computed 12". In `a`. */
const char *pass_stats_text(const struct pass_ctx *px, struct arena *a);

/* The passes */
#define PASS(nm, ...) enum npuc_status nm(struct pass_ctx *px, struct graph *g);
#include "passes/passes.def"

#endif
