/* From a placed graph to a plan: kernel generators, scheduling, packing of weights, plan assembly.
 *
 * A generator turns one node (or Fused node) into one or more launches. Generators are rows of
 * backend/<family>/gens.def: the first row whose `match` accepts the node emits it; a node that none accepts runs on
 * the host with the last reason. The same `match` answers `supports` for placement and `npuc check`, so what is
 * reported is what is enforced. */
#ifndef BACKEND_BACKEND_H
#define BACKEND_BACKEND_H

#include "ir/graph.h"
#include "ir/target_info.h"
#include "plan/plan.h"
#include "targets/target.h"

/* The machine's numbers that generators need, read once from the target. Sizes in bytes. */
struct family;
struct machine {
    const struct target *target;
    const struct family *family;
    int32_t n_cube, n_vector, vector_per_cube;
    int64_t size[TS_COUNT];  /* of on-chip memories */
    int64_t align[TS_COUNT]; /* start alignment of a buffer */
    int64_t c0_bytes;        /* 32 */
    int64_t gm_bytes;
    bool mixed;    /* cube and vector cores can run one kernel together (2201) */
    bool unified;  /* one core has both (310P) */
    bool mac_rows; /* the matrix unit takes rows from UB and leaves rows there (MLU) */
};

/* A node on a part of the machine: as it is on the cores of m, or, when copies > 0, as so many equal parts of axis 0 of
 * its operands and results, which run side by side, each on the cores of m (backend/emit_copies.c). */
struct machine_part {
    struct machine m;
    int32_t copies;
};

/* How rows of a node's result (along H of maps) follow from rows of what it reads. */
struct row_use {
    struct value *windows, *same; /* operand of which window row r takes rows from r stride - before on; one read at the
                                   * rows of the result; NULL: none */
    int64_t rows, from;           /* of the result, of `windows` */
    int64_t stride, before, span;
    double cycles, weights; /* of the units for an image on the cores of m; bytes that every launch brings */
};
/* Images and rows of a result that a launch makes. */
struct emit_band {
    int64_t image, images, row, rows;
    int64_t most;      /* rows that tiles are chosen for */
    const bool *stays; /* value id: it passes through the shared memory of the cluster */
};

struct emit;
struct gen {
    const char *name;
    /* Can this generator do the node? If not, *reason is the constraint in plain words (may be NULL for "not my kind").
     */
    bool (*match)(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason);
    enum npuc_status (*emit)(struct emit *e, struct node *n);
    bool lines; /* its results in LAYOUT_NHWC lie as emit_line says */
    /* Can it make a band of rows of the node's result (emit.band)? NULL: never. */
    bool (*rows)(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct row_use *out);
};

/* A family of machines: a row of backend/families.def, defined in backend/<name>/. */
struct family {
    const char *name;       /* as target files say it */
    const struct gen *gens; /* in the order of trial, ended by a row without name */
    /* Copies a dense tensor of type t on the cores, from and to plan tensors; NULL, or *done left false: the host does
     * it. */
    enum npuc_status (*copy)(struct emit *e, int32_t from, int32_t to, const struct type *t, bool *done);
    /* Writes one integer, an ir expression, to a plan tensor on the cores; NULL and *done as for copy. */
    enum npuc_status (*number)(struct emit *e, int32_t to, enum dtype dtype, expr number, bool *done);
    /* What passes should know beyond `supports`: weight layout, row length, types of the matrix unit. */
    void (*target_info)(const struct machine *m, struct target_info *out);
    /* Where the launches of a node run; false or NULL: on all of the machine. */
    bool (*part)(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct machine_part *out);
};

/* How lines of channels lie in a tensor: elements from one to the next, and before the first channel. */
struct emit_line {
    int64_t pitch, first;
};

/* State of one compilation. */
struct emit {
    struct ir_ctx *cx;
    struct module *module;
    const struct machine *m;
    struct plan *plan;
    struct arena *arena;          /* lives until the plan is written */
    int32_t *tensor_of;           /* value id -> plan tensor, -1 */
    const struct value **part_of; /* value id -> the Concat's result that holds it, NULL (emit_concat.c) */
    struct emit_line *line_of;    /* value id -> its part of the lines of another tensor; pitch 0: none */
    struct map kernels;           /* content hash -> kernel number */
    struct node *node;            /* being emitted */
    expr guard; /* ir expression: condition (0 or 1) of the launches being appended; EXPR_INVALID: always */
    VEC(struct emit_weight) weights; /* per PT_WEIGHT tensor: how to produce its bytes */
    const struct tiling *tiling;     /* NULL: chosen by the tiler; set by --tile for equality tests */
    const struct backend_options *options;
    int32_t copies; /* of the launches being appended; 0: not divided; PLAN_APART: nor held to a part of the machine */
    VEC(int32_t) divided; /* plan tensors of which a copy sees a part */
    const bool
        *near; /* value id -> it will stay in the shared memory of the clusters that make and use it; NULL: none */
    const struct emit_band *band; /* what the launches being appended make of a result; NULL: all */
};
/* Bytes of a weight: the blob, converted on the way out. */
enum weight_form { WF_COPY, WF_NZ, WF_NZ_T, WF_CAST, WF_CONV };
struct emit_weight {
    int32_t tensor;
    const struct blob *blob;
    const struct type *type; /* of the blob: dims and dtype as in the model */
    uint8_t form, dtype;     /* enum weight_form; dtype to store */
    uint8_t via;             /* f32 elements are rounded to this type, then stored as f32; DT_NONE: not */
    bool transpose; /* blob is [rows, cols] and the transpose is stored; WF_CONV: of a transposed convolution */
    int64_t group;  /* WF_CONV */
    const struct blob *const
        *stack; /* of n_stack > 1 constants of this type, the first being `blob`: one after the other */
    int n_stack;
};
enum tiling_l2 { L2_FREE, L2_CACHED, L2_BYPASS }; /* what streamed operands leave in L2 */
struct tiling {                                   /* --tile m=..,n=..,k=..,rows=..,cols=..: overrides, 0 = free */
    int64_t m, n, k, rows, cols;
    int64_t stages;         /* of software pipelines: 1 does one step after the other, 0 free */
    int64_t l1k;            /* steps of K that one load brings to L1 */
    int64_t grid_m, grid_n; /* products: each core a rectangle of the result, of a grid of so many */
    bool parts;             /* products: tiles of a last round may be divided though their extents are given */
    bool single;            /* every kernel has a launch of its own (backend/join.c) */
    enum tiling_l2 l2;
};

/* ---- sizes to plan for ---- */
int64_t size_known(const struct ir_ctx *cx, expr size); /* when constant, else -1 */
/* One that the range of `size` allows, near `otherwise`; at least 1. */
double size_typical(const struct ir_ctx *cx, expr size, double otherwise);

/* ---- services for generators (backend/emit.c) ---- */
int32_t emit_tensor(struct emit *e,
                    struct value *v); /* plan tensor of a value; constants become ND weights on first use */
/* Plan tensor of result y of node n, which reads each part of operand x no later than it writes the same part of y:
 * that of x, where n is the only one to read it and nothing else has decided where y lies. */
int32_t emit_tensor_over(struct emit *e, const struct node *n, struct value *y, struct value *x);
/* Lines of a result in LAYOUT_NHWC with so many channels: of its own, or a part of those of the map that emit_tensor
 * gives. Only for generators with gen.lines. */
struct emit_line emit_line(const struct emit *e, const struct value *v, int64_t channels);
/* A constant in another storage form (deduplicated by value and form). */
int32_t emit_weight(struct emit *e, struct value *v, enum weight_form form, enum dtype dtype, bool transpose);
/* Several of one type as one: one dimension more, in front. */
int32_t emit_weights(struct emit *e, int n, struct value *const *v, enum weight_form form, enum dtype dtype,
                     bool transpose);
/* The constant weight of a convolution, [out][channel of the group][position], transposed: [channel][out of the
 * group][position], as [group][position][channel/c0][out of the group, to 16][c0], or, where the matrix unit takes
 * rows, [group][out][position][channel]; positions of a transposed one backwards. A row (bias) is a weight of one
 * channel and position. */
int32_t emit_conv_weight(struct emit *e, struct value *v, enum dtype dtype, int64_t group, bool transposed);
/* Is v a Cast of a constant that is done when the weight is stored? Such nodes take no step. */
bool weight_is_cast(const struct value *v);
/* Is it one of f32 to a narrower type? emit_rounded stores the rounded elements as f32, a row for sums of f32. */
bool weight_is_rounded(const struct value *v);
int32_t emit_rounded(struct emit *e, struct value *v);
int32_t emit_temp(struct emit *e, const char *name, enum dtype t, int rank, const expr *dims); /* workspace */
int32_t emit_temp_of(struct emit *e, const char *name, const struct type *t); /* the same, of a type with a layout */
/* The launches appended since step `first` convert a layout: why that is so, for reports. */
void emit_say_why(struct emit *e, int64_t first, const char *why);
/* Finishes a kernel (on-chip placement, flags: backend/schedule.c), deduplicates it by content and appends the launch.
 * tensors in the order of the kernel's tensors; params in the order of its parameters, over the plan's symbols. work:
 * MACs or EXPR_INVALID. */
enum npuc_status emit_launch(struct emit *e, struct tile_kernel *k, const int32_t *tensors, const expr *params,
                             expr work, const char *label);
enum npuc_status emit_host(struct emit *e, struct node *n);
expr emit_expr(struct emit *e, expr ir);                        /* ir expression -> the plan's pool */
static inline struct expr_pool *emit_pool(const struct emit *e) /* of ir expressions */
{
    return &e->cx->exprs;
}
/* Parameter helper: a dimension either folds into the kernel as constant or becomes parameter `name` bound to `ir`. */
struct kparams {
    struct emit *e;
    struct tile_kernel *k;
    expr bound[64]; /* plan expression of each parameter */
    int32_t n;
};
/* A kernel to be filled: *b builds it, *p binds its parameters. */
struct tile_kernel *emit_kernel(struct emit *e, const char *name, struct tile_builder *b, struct kparams *p);
expr kparam(struct kparams *p, const char *name, expr ir); /* kernel expression */
/* Kernel expressions of the band that a launch makes, parameters of their own, so that the bands of a node share a
 * kernel; without a band all of `batch` and of `rows`, which are expressions of the kernel. */
struct kband {
    expr image, images, row, rows;
};
static inline struct kband kband_all(struct expr_pool *x, expr batch, expr rows)
{
    return (struct kband){expr_const(x, 0), batch, expr_const(x, 0), rows};
}
struct kband kparam_band(struct kparams *p, expr batch, expr rows);

/* Element strides of a value's storage per dimension of its type, as ir expressions: ND row-major, or with the capacity
 * of a cache. false for blocked layouts. */
bool value_strides(struct ir_ctx *cx, const struct value *v, expr strides[IR_MAX_RANK]);

/* Where rows of v, a cache in pages, lie: the plan tensors of its pool and of the block table; -1: v is none. */
struct emit_pages {
    int32_t pool, table;
    expr pages; /* ir expression: of the pool */
};
struct emit_pages emit_pages(struct emit *e, const struct value *v);

/* The RotaryEmbedding whose rows CacheAppend n writes to a cache as it computes them: nothing else reads those rows, or
 * what was in the cache. NULL: n copies rows that have a place of their own. */
struct node *emit_appended(const struct node *n);

/* Is v made as a part of `whole`, so that a Concat has nothing to move? */
bool emit_is_placed(const struct emit *e, const struct value *v, const struct value *whole);

/* Inserts SET/WAIT flags and ring preambles, places buffers; fails with an internal error when a program does not fit
 * its space. See backend/schedule.c for the rules a generator must keep. */
NPUC_MUST_CHECK enum npuc_status schedule_kernel(struct ir_ctx *cx, const struct machine *m, struct tile_kernel *k);

/* ---- entry points ---- */
/* A constant that an earlier gear of the plan stores. */
struct stored_weight {
    struct emit_weight how;
    int64_t size;       /* bytes of the blob */
    const char *origin; /* its initializer's name, "": none */
    int32_t rank;
    int64_t dims[IR_MAX_RANK]; /* of the blob */
};
/* What the gears of a plan share while it is built. */
struct shared_weights {
    struct arena *arena;
    VEC(struct stored_weight) all;
};
struct backend_options {
    const struct tiling *tiling;
    const char *name;                 /* of the entry; NULL: "main" */
    const struct type *const *shapes; /* of the inputs as the model has them, before sizes were fixed; NULL */
    int32_t n_shapes, n_fixed;        /* inputs with a shape; dimensions with a size */
    const int32_t *fixed;             /* ir symbols */
    const int64_t *sizes;             /* their values */
    struct shared_weights *weights;   /* NULL: the plan has one entry */
    int64_t cache_pool;               /* pages of a pool of cache rows; 0: as many as the sequences can have */
};
NPUC_MUST_CHECK enum npuc_status machine_init(struct machine *m, const struct target *t, struct diag *d);
void backend_target_info(const struct machine *m, struct target_info *out);
NPUC_MUST_CHECK enum npuc_status backend_emit(struct ir_ctx *cx, struct module *mod, const struct machine *m,
                                              const struct backend_options *o, struct plan *out,
                                              struct plan_weight_source *weights);

#endif
