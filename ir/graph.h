/* The SSA graph: modules, functions (graphs), nodes, values, uses, attributes.
 *
 * Nodes stand in a doubly linked, topologically ordered list per graph; operands are in line with the node; each
 * value knows its uses by an intrusive list. Bodies of If/Loop/Scan and of Fused nodes are child graphs; If/Loop/Scan
 * bodies may use values of enclosing graphs, a Fused region may not (its values enter as inputs). A graph ends with one
 * Yield node whose operands are its results. Mutation goes through ir/build.h only. */
#ifndef IR_GRAPH_H
#define IR_GRAPH_H

#include "base/diag.h"
#include "ir/op.h"
#include "ir/type.h"

struct node;
struct graph;
struct value;

struct use {
    struct value *value; /* NULL: absent optional input */
    struct node *user;
    struct use *next, **link; /* *link == this */
};

struct value {
    const struct type *type;
    struct node *def;    /* NULL: input of `graph` */
    struct graph *graph; /* where it is defined */
    struct use *uses;
    const expr *elems; /* known content of a small integer tensor (rank 0 or 1), one expression each; or NULL */
    int64_t n_elems;
    sym name;
    uint32_t id;    /* dense within the module */
    uint32_t index; /* output number of def, or input number of graph */
};

/* Constant bytes. data == NULL: declared but absent (external file missing, allowed for estimate and check). */
struct blob {
    const void *data; /* packed elements; mapped or arena memory, never owned by passes */
    int64_t size;     /* bytes */
    sym origin;       /* initializer name */
    uint64_t hash;    /* XXH3 of the bytes, where IR text named them but they are absent; else 0 */
};

enum attr_kind {
    ATTR_NONE,
    ATTR_INT,
    ATTR_FLOAT,
    ATTR_STRING,
    ATTR_INTS,
    ATTR_FLOATS,
    ATTR_STRINGS,
    ATTR_TENSOR,
    ATTR_GRAPH,
    ATTR_TYPE
};
struct attr {
    enum attr_kind kind; /* ATTR_NONE: optional attribute without default, absent */
    int64_t len;
    union {
        int64_t i;
        float f;
        sym s;
        const int64_t *ints;
        const float *floats;
        const sym *strings;
        struct graph *graph;
        const struct type *type;
        struct {
            const struct type *type;
            const struct blob *blob;
        } t; /* ATTR_TENSOR */
    } v;
};

enum placement { PLACE_NONE, PLACE_NPU, PLACE_HOST, PLACE_FREE /* no work: views, constants */ };

/* Where a node comes from: the ONNX nodes behind it, for messages, reports and the source map. */
struct loc {
    sym *names; /* ONNX node names (or op_type#index when unnamed), n of them */
    int32_t n;
    int32_t index; /* position of the first in the file, -1 none */
    sym op_type;   /* as in the file */
    sym domain;    /* the same; 0: ai.onnx */
};

struct node {
    uint16_t op; /* enum op */
    uint16_t n_out;
    int32_t n_in;
    uint32_t id;
    uint8_t place; /* enum placement */
    sym reason;    /* why not on the NPU, or what it became */
    const struct loc *loc;
    struct graph *graph;
    struct node *prev, *next;
    struct attr *attrs; /* in schema order, op_table[op]->n_attrs of them */
    struct value *out;  /* n_out of them; an unused optional output has type TYPE_NONE */
    struct use in[];
};

struct graph {
    sym name;
    struct graph *parent; /* enclosing graph, NULL for a function */
    struct node *owner;   /* node this is a body of */
    struct module *module;
    struct value **inputs;
    int32_t n_inputs;
    struct node *first, *last; /* last is the Yield */
};

struct module {
    struct ir_ctx *cx;
    struct arena arena;
    sym name;
    const char *path;          /* file it came from, as given */
    VEC(struct graph *) funcs; /* funcs.data[0] is the main entry point */
    uint32_t n_values, n_nodes;
    struct map meta; /* sym key -> sym text: producer, opsets ... */
};

/* One per compilation; single-threaded. */
/* A size that the model leaves open, but that an operator needs to be this constant. */
struct ir_claim {
    expr size;
    int64_t value;
    const struct loc *loc; /* of the node; may be NULL */
};
struct ir_claims {
    struct arena *arena;
    VEC(struct ir_claim) list;
};

struct ir_ctx {
    struct arena arena;   /* context lifetime: types, strings, expressions */
    struct arena scratch; /* reset by whoever marks and releases */
    struct strtab strings;
    struct expr_pool exprs;
    struct map types; /* hash -> struct type chain */
    VEC(const struct type *) type_list;
    struct diag *diag;
    const char *file;               /* for messages */
    int32_t n_fresh;                /* counter of invented symbols */
    struct ir_claims *claims;       /* collects them when set */
    const struct node *inferring;   /* whose infer hook runs */
    int64_t rewrites, max_rewrites; /* --max-rewrites bisection; max < 0: no limit */
};

void ir_ctx_init(struct ir_ctx *cx, const struct alloc_hooks *hooks, struct diag *d);
void ir_ctx_free(struct ir_ctx *cx);
struct module *ir_module_new(struct ir_ctx *cx);
void ir_module_free(struct module *m);

static inline struct value *node_in(const struct node *n, int i)
{
    return i < n->n_in ? n->in[i].value : NULL;
}
static inline struct value *node_out(const struct node *n, int i)
{
    return i < n->n_out && n->out[i].type->kind != TYPE_NONE ? &n->out[i] : NULL;
}
/* The i-th body of a node in attribute order, or NULL. */
struct graph *node_region(const struct node *n, int i);
#define for_each_region(r, n)                                                                                          \
    for (int r##_i = 0; r##_i >= 0; r##_i = -1)                                                                        \
        for (struct graph * r; (r = node_region((n), r##_i)) != NULL; r##_i++)
bool graph_is_isolated(const struct graph *g); /* a function or a Fused region: uses no values of enclosing graphs */
bool value_has_one_use(const struct value *v);
bool value_used_in_body(const struct value *v); /* bodies of control flow read values of the graph around them */
struct node *graph_yield(const struct graph *g);
/* The bytes behind a value defined by a Constant node, else NULL. */
const struct blob *value_const(const struct value *v);
/* A tensor over constant bytes, for reading; false when the type is not static and dense or the data absent. */
struct k_tensor;
bool blob_tensor(const struct ir_ctx *cx, const struct type *t, const struct blob *b, struct k_tensor *out);
/* Reads a constant value of any integer or float type as numbers; false when not constant or data absent. */
bool value_const_f64(const struct value *v, int64_t index, double *out);
/* Element `i` of an integer value as an expression: from elems or from constant data; EXPR_INVALID when unknown. */
expr value_elem(struct ir_ctx *cx, const struct value *v, int64_t i);
int64_t value_n_elems(struct ir_ctx *cx, const struct value *v); /* -1 when unknown or not rank 0/1 */

#define for_each_node(n, g) for (struct node *n = (g)->first; n; n = n->next)
/* Safe against erasing n. */
#define for_each_node_safe(n, g)                                                                                       \
    for (struct node *n = (g)->first, *n##_next = n ? n->next : NULL; n; n = n##_next, n##_next = n ? n->next : NULL)
#define for_each_use(u, v) for (struct use *u = (v)->uses; u; u = u->next)

/* Errors about a node: fills the location from it. */
enum npuc_status node_error(struct ir_ctx *cx, const struct node *n, enum diag_code code, const char *fmt, ...)
    NPUC_PRINTF(4, 5);
const char *node_text(struct ir_ctx *cx, const struct node *n); /* "'layer3/conv2' (Conv, #47)" */

/* Attributes by schema index (enum op_<Name>_attr is not generated: use attr_index once, or the name). */
int attr_index(const struct op_def *d, const char *name);             /* -1 when the schema has none */
const struct attr *node_attr(const struct node *n, const char *name); /* NULL: no such attribute or absent */
int64_t node_attr_int(const struct node *n, const char *name, int64_t otherwise);
float node_attr_float(const struct node *n, const char *name, float otherwise);
sym node_attr_str(const struct node *n, const char *name, sym otherwise);

#define IR_SMALL_CONSTANT 4096 /* bytes of a constant that are compared by content; larger ones by their blob */
/* The array behind a list attribute and its bytes; *size is 0 for attributes held in place. */
const void *attr_payload(const struct attr *a, int64_t *size);
/* One operator with equal attributes? Bodies are never equal. */
bool node_same_attrs(const struct node *a, const struct node *b);

#endif
