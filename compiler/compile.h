/* The compilation as steps, for the commands that stop half-way (check, estimate, inspect): read and import, bind
 * dimensions, passes, plan in memory, file. All state is in struct compilation. */
#ifndef COMPILER_COMPILE_H
#define COMPILER_COMPILE_H

#include "backend/backend.h"
#include "frontend/onnx.h"
#include "npuc/npuc.h"
#include "passes/pass.h"
#include "quant/recipe.h"

struct compile_options {
    const char *target;                     /* id */
    const struct precision_mode *precision; /* NULL: the model's types */
    const char *recipe;                     /* file; NULL: none */
    int64_t cache_capacity;                 /* rows; 0: caches keep the model's form */
    int64_t cache_page, cache_pool;         /* rows of a page, pages of a pool; 0: no pages, as many as can be used */
    int64_t cache_ring;                     /* struct pass_options */
    bool allow_missing_data;                /* weights may be absent (estimate, check) */
    bool survey;                            /* report all that is wrong with the file and go on (check) */
    bool without_weights;                   /* the plan declares weights without bytes: for times alone */
    bool verify_each;
    bool strict, plain_maps; /* struct pass_options */
    const char *dump_dir, *stop_after;
    int64_t max_rewrites; /* < 0: no limit */
    struct tiling tiling;
    bool has_tiling;
    VEC(const char *) dims;          /* "seq=1..4096", "batch=8" */
    VEC(const char *) shapes;        /* "x=1x3x224x224" */
    VEC(const char *) values;        /* "use_cache_branch=1": inputs of one number that are constants */
    VEC(const char *) sets;          /* "hbm.bandwidth=1.8TB/s" */
    struct division *division;       /* over several devices; NULL: one. For times alone */
    int64_t cores, vector_cores;     /* 0: all of the target */
    VEC(const char *) input_layouts; /* "x=NC1HWC0": storage of graph inputs and outputs */
    VEC(const char *) output_layouts;
    const char *refused; /* why the last option was not taken, when there is more to say than what is expected */
};
struct compilation {
    struct arena arena; /* options and reports */
    struct diag diag;
    struct compile_options options;
    npuc_progress_fn *progress;
    void *progress_user;
    void (*on_import)(void *user, const struct graph *g); /* sees the main graph before passes; may be NULL */
    /* Sees it after the passes; another status than NPUC_OK ends the compilation there. May be NULL. */
    enum npuc_status (*on_optimised)(void *user, const struct graph *g);
    void *hook_user;
    struct ir_claims *claims; /* open sizes that import takes to be constants are noted here; may be NULL */
    struct ir_ctx cx;
    struct target target;
    struct machine machine;
    struct target_info info;
    struct onnx_model *model;
    struct module *module;
    struct quant_recipe recipe;
    struct quantiser quantiser; /* of the recipe, or given by the caller before the passes; product NULL: none */
    struct pass_ctx px;
    struct plan plan;
    struct plan_weight_source weights;
    int64_t n_imported; /* nodes after import */
    /* Dimensions (bind.c): inputs before sizes were fixed, symbols that were and their sizes; the gear that this
     * compilation takes of each -D, NULL: the first. */
    const struct type **inputs;
    int32_t n_inputs, n_fixed;
    int32_t *fixed;
    int64_t *sizes;
    int32_t *gear;
    struct gears *gears; /* gears.c: the other combinations of sizes; NULL: there are none */
    int64_t stage_start; /* of stopwatch_ns */
    bool has_cx, has_target, has_px, has_plan;
};

void compilation_init(struct compilation *c);
void compilation_free(struct compilation *c);
NPUC_MUST_CHECK enum npuc_status compilation_set(struct compilation *c, const char *option, const char *value);

/* Each runs the steps before it. They return by the compiler's one longjmp on exhausted memory as NPUC_E_NOMEM. */
NPUC_MUST_CHECK enum npuc_status compilation_import(struct compilation *c, const char *model);
NPUC_MUST_CHECK enum npuc_status compilation_optimise(struct compilation *c, const char *model);
NPUC_MUST_CHECK enum npuc_status compilation_emit(struct compilation *c, const char *model); /* plan in memory */
NPUC_MUST_CHECK enum npuc_status compilation_write(struct compilation *c, const char *model, const char *plan);

/* boundary.c: input and output layouts applied to an imported module. */
NPUC_MUST_CHECK enum npuc_status compilation_boundary(struct compilation *c);

/* force.c: "tile=128x256x64,l1k=4" into o->tiling; false with o->refused. */
bool option_force(struct compilation *c, const char *value);

/* gears.c: how many combinations of sizes the -D options list. The first is this compilation; the others are compiled
 * into its plan when it is emitted. */
NPUC_MUST_CHECK enum npuc_status gears_count(struct compilation *c, int64_t *n);
NPUC_MUST_CHECK enum npuc_status gears_emit(struct compilation *c, const char *model);
void gears_free(struct compilation *c);
const char *gears_name(struct compilation *c);                /* "seq=128,batch=1"; "main" without gears */
bool gears_exceed(const struct compilation *c, int64_t size); /* does a dimension have a larger one? */

/* capacity.c: is the target's global memory large enough for the plan, as far as sizes are known? */
NPUC_MUST_CHECK enum npuc_status compilation_fits(struct compilation *c);

/* bind.c: one -D option. */
enum { DIM_MAX_GEARS = 64, DIM_MAX_PLANS = 100 };
struct dim_spec {
    int64_t name_len; /* bytes of the option before '=' */
    int64_t lo, hi;
    int32_t n; /* sizes listed: 1 fixed, more gears, 0 a range */
    int64_t gear[DIM_MAX_GEARS];
};
bool dim_parse(const char *text, struct dim_spec *out);

/* bind.c: -D and --shape applied to an imported module; types are inferred anew. */
NPUC_MUST_CHECK enum npuc_status compilation_bind(struct compilation *c);

#endif
