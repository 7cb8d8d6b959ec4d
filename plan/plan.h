/* A plan in memory: what the compiler writes, the runtime executes, `npuc inspect` prints. plan/format.h has the bytes.
 *
 * Symbols and expressions over them live in one pool. Tensors are declared with symbolic dims; steps run in order when
 * their guard holds. Offsets in GM are computed when shapes are bound (plan/memory.h), from sizes and lifetimes. */
#ifndef PLAN_PLAN_H
#define PLAN_PLAN_H

#include "base/file.h"
#include "plan/tile.h"

#define PLAN_VERSION 5

enum plan_tensor_kind {
    PT_WEIGHT, /* bytes in the weights section */
    PT_INPUT,
    PT_OUTPUT,
    PT_TEMP,  /* lives from first to last step */
    PT_CACHE, /* persists between calls: KV cache */
    PT_ALIAS, /* the same bytes as `base` (+ offset), other dims */
    PT_OBJECT /* no tensor of numbers with a known rank: kept on the host, only host steps and control flow touch it */
};
enum { PLAN_TENSOR_KINDS = PT_OBJECT + 1 };
/* What an object holds, in `axis`. dtype is the element type of all tensors within. */
enum plan_object { PO_TENSOR /* of text, dims known */, PO_ANY_RANK, PO_SEQUENCE, PO_OPTIONAL };
/* Storage as in ir/type.h: ND, NZ (of the last two axes), NZ of the transpose, cache with capacity. */
enum plan_layout { PL_ND, PL_NZ, PL_NZ_T, PL_NC1HWC0, PL_FRACTAL_Z, PL_NHWC, PL_CACHE };

struct plan_tensor {
    sym name;
    uint8_t kind, dtype, layout;
    int8_t axis; /* PL_CACHE: padded axis; PT_OBJECT: enum plan_object */
    int32_t c0;
    int32_t rank;
    const expr *dims;    /* logical */
    expr capacity;       /* PL_CACHE: rows allocated on axis */
    expr size;           /* bytes of storage, incl. padding */
    int32_t base;        /* PT_ALIAS: tensor; else -1 */
    expr base_offset;    /* PT_ALIAS: bytes */
    int32_t first, last; /* PT_TEMP: steps between which the bytes must be kept */
    /* PT_TEMP: 0, or the number of clusters whose shared memory holds it, each an equal part: it takes no bytes of GM's
     * bandwidth. Only launches of as many copies touch it. */
    int32_t parts;
    int64_t window; /* PT_TEMP, while the plan is made: bytes of a part that are alive at a time; 0: all */
    bool in_memory; /* PT_TEMP, while the plan is made: a kernel that reads it can do so from GM alone */
    int64_t data_offset, data_size; /* PT_WEIGHT: within the weights section; data_size < 0: declared without bytes */
};

enum plan_step_kind {
    PS_LAUNCH, /* tile kernel on the cores */
    PS_HOST,   /* operator kernel (kernels/ops.def) on the host */
    PS_SIZES,  /* output tensor = expressions, as integers */
    /* Control flow. The steps of a body follow their step directly; bodies nest. */
    PS_IF,    /* in: condition. The first n_body[0] steps run when it holds, the n_body[1] behind them when not */
    PS_LOOP,  /* in: trip count, condition before the first turn, condition after a turn (-1: none); out: number of
               * the turn, condition (-1: nobody reads them). n_body[0] steps per turn. */
    PS_COPY,  /* out = in */
    PS_MOVE,  /* out = in, and in has no value any more: storage may change hands instead of bytes */
    PS_APPEND /* row params[0] of out = in */
};
enum { PLAN_STEP_KINDS = PS_APPEND + 1 };
static inline bool plan_step_nests(uint8_t kind)
{
    return kind == PS_IF || kind == PS_LOOP;
}
struct plan_attr { /* attribute of a host operator; mirrors struct k_attr */
    sym name;
    uint8_t kind;
    int64_t len;
    union {
        int64_t i;
        float f;
        sym s;
        const int64_t *ints;
        const float *floats;
        const sym *strings;
        int32_t tensor; /* a PT_WEIGHT tensor */
    } v;
};
enum { PLAN_APART = -1 }; /* in place of a number of copies */
struct plan_step {
    uint8_t kind;
    expr guard;          /* EXPR_INVALID: always */
    int32_t kernel;      /* PS_LAUNCH */
    sym op;              /* PS_HOST: kernel name; else operator label for reports ("MatMul", "AddRmsNorm") */
    int32_t n_in, n_out; /* tensors: inputs then outputs, -1 absent; PS_LAUNCH: in the order of the kernel's tensors */
    const int32_t *tensors; /* PS_LAUNCH: n_in = all of them, n_out = 0 */
    int32_t n_params;
    /* PS_LAUNCH: values of the kernel's parameters; PS_SIZES: the elements; PS_LOOP: the most turns, when it is a size;
     * PS_APPEND: the row */
    const expr *params;
    int32_t n_attrs;
    const struct plan_attr *attrs;
    /* PS_HOST, PS_COPY, PS_MOVE, PS_APPEND: symbols bound from the dims of a result: triples (output, axis, symbol).
     * PS_LOOP: (-1, -1, symbol): all are 0 when the loop begins; the first is the number of the turn, the others are
     * sizes of results without a turn. */
    int32_t n_binds;
    const int32_t *binds;
    int32_t source; /* index into sources, -1 none */
    sym reason;     /* PS_HOST: why not on the NPU; PS_LAUNCH: why it converts a layout, 0: it does not */
    double macs;    /* useful multiply-accumulates are params-dependent: an expression */
    expr work;      /* MACs (matrix kernels) as expression, or EXPR_INVALID */
    /* PS_LAUNCH: 0: the kernel runs once, neighbouring blocks on one cluster. PLAN_APART: once, block i on cluster i
     * modulo their number, so that few blocks have more ways to memory; not for kernels that load for a cluster. Else
     * it runs `copies` times side by side, each on the cores of a cluster; of tensor i where divided[i] is set a copy
     * sees one of `copies` equal parts in their order. */
    int32_t copies;
    const uint8_t *divided;
    int32_t n_body[2]; /* PS_IF, PS_LOOP: steps of the bodies, with what is nested in them */
};
struct plan_source { /* ONNX nodes behind a step */
    sym label;       /* "l0.qkv"-like short name or the first node's name */
    sym fused_as;    /* vendor's fused operator, or 0 */
    int32_t n;
    const sym *nodes;
};
struct plan_cache {
    int32_t tensor;                /* PT_CACHE */
    sym input, output;             /* graph names of the past and present value */
    int32_t in_tensor, out_tensor; /* views with the logical dims (PT_ALIAS of tensor, PL_CACHE layout) */
    int8_t axis;
    expr past, present; /* valid rows before and after */
    bool grows;         /* false: fixed size cache (TensorScatter), copied whole */
    bool placed;        /* new rows go where the inputs say, per sequence; else behind the past ones */
    /* Rows of codes (kernels/cache_code.h): past and present are tensors of floats without bytes in memory. The scales
     * are a cache of their own, with neither input nor output. */
    uint8_t code;   /* enum dtype; DT_NONE: rows are values, or the scales of others */
    bool shifted;   /* codes have zero points */
    int32_t scales; /* number of that cache in the entry; -1: none */
    /* PT_WEIGHT, f32 [heads, size, size]: rows of floats are multiplied by turn before they are coded, by back after
     * they are decoded; -1: neither is. */
    int32_t turn, back;
    /* Pages: `tensor` is a pool [pages, .., page, ..] and row r of sequence b lies in its page table[b][r / page]. Page
     * 0 belongs to no sequence. past and present are tensors without bytes, as those of codes. */
    int64_t page;  /* rows; 0: the cache is one piece */
    int32_t table; /* PT_CACHE, i32[sequences, pages of a sequence]; -1: none */
    /* A ring has pages and no table: `ring` rows, whole pages, are each sequence's own, row r lies in row r mod ring of
     * them. Nobody reads more than the last `window` rows up to its own; a sequence may have `capacity` rows. 0: none.
     */
    int64_t ring, window, capacity;
};
struct plan_shape { /* of an input, in the model's own dimensions; n 0: as its tensor says */
    int32_t n;
    const expr *dims;
};
struct plan_fixed { /* a dimension of the model that an entry is compiled for */
    int32_t symbol;
    int64_t value;
};
/* Several entries are gears: the same model, compiled for different values of the same dimensions. They agree in
 * inputs, outputs and caches; sizes choose the entry. */
struct plan_entry {
    sym name; /* "main" */
    int32_t first_step, n_steps;
    int32_t n_inputs, n_outputs;
    const int32_t *inputs, *outputs; /* tensors, names are the graph's */
    const uint8_t *input_optional;   /* has a default (initializer also in inputs) */
    const struct plan_shape *shapes; /* n_inputs; NULL: as the tensors say */
    int32_t n_fixed;
    const struct plan_fixed *fixed;
    int32_t n_caches;
    const struct plan_cache *caches;
};
struct plan_pair {
    sym key, value;
};
struct plan {
    struct arena arena;
    struct strtab strings;
    struct expr_pool exprs; /* symbols: the model's dimensions */
    VEC(struct plan_tensor) tensors;
    VEC(struct tile_kernel *) kernels;
    VEC(struct plan_step) steps;
    VEC(struct plan_entry) entries;
    VEC(struct plan_source) sources;
    VEC(struct plan_pair) target; /* snapshot of every constant: key -> "value unit" */
    VEC(struct plan_pair) record; /* build record: version, flags, model hash; no time, path or host name */
    sym target_name, model_name;
    const uint8_t *weights; /* mapped; NULL in a plan being built */
    int64_t weights_size;
    struct file_map map; /* when read from a file */
};

void plan_init(struct plan *p);
void plan_free(struct plan *p);

/* Writing. Weights are streamed: `weight` is called for each PT_WEIGHT tensor in order and puts exactly data_size
 * bytes. */
struct plan_weight_source {
    enum npuc_status (*put)(void *user, int32_t tensor, struct file_writer *w);
    void *user;
};
NPUC_MUST_CHECK enum npuc_status plan_write(struct plan *p, const char *path, const struct plan_weight_source *src,
                                            struct diag *d);
/* Reads, checks structure (bounds, overlap, alignment, counts, checksums) and then meaning (plan_verify). */
NPUC_MUST_CHECK enum npuc_status plan_read(struct plan *p, const char *path, struct diag *d);
/* Meaning: every index, type, space size, flag pairing, loop nesting, expression symbol, alias range. */
NPUC_MUST_CHECK enum npuc_status plan_verify(const struct plan *p, const char *file, struct diag *d);
NPUC_MUST_CHECK enum npuc_status tile_verify(const struct tile_kernel *k, const struct plan *p, const char *file,
                                             struct diag *d);
/* Text of a plan (npuc inspect). what: "summary", "entries", "symbols", "tensors", "steps", "kernels", "target", "all";
 * NULL for another. */
const char *plan_text(struct plan *p, const char *what, struct arena *a);

#endif
