/* Within the frontend: the state of one import. */
#ifndef FRONTEND_PRIV_H
#define FRONTEND_PRIV_H

#include "base/file.h"
#include "frontend/onnx.h"
#include "frontend/onnx.pb-c.h"
#include "ir/build.h"

#define IMPORT_MAX_DEPTH    100 /* subgraphs within subgraphs and functions within functions together; ONNX's own cap */
#define IMPORT_MAX_DIM_TEXT 256
#define IMPORT_MAX_DENSE    (INT64_C(256) << 20) /* bytes a sparse tensor may become */

struct onnx_file {
    sym location; /* as in the tensor's entry */
    struct file_map map;
    bool missing;
};
struct onnx_model {
    struct file_map map;
    struct arena arena; /* lives as long as the model: info, list of files */
    VEC(struct onnx_file) files;
    struct import *import; /* while it runs */
    struct onnx_info info;
};

struct opset_list {
    int64_t n;
    const struct opset {
        sym domain; /* "" for ai.onnx */
        int64_t version;
    } * at;
};

struct import {
    struct ir_ctx *cx;
    struct module *m;
    struct onnx_model *model;
    struct onnx_options o;
    const char *path;
    const Onnx__ModelProto *pb;
    struct arena tmp; /* protocol structures and everything else that dies with the import */
    struct opset_list opsets;
    struct map functions; /* hash of (domain, name, overload) -> index + 1 into pb->functions */
    struct map dim_texts; /* sym of a dim_param -> expr */
    struct map operators; /* domain and op_type -> what operator_find and operator_known answer */
    struct map hints;     /* survey: name -> Onnx__TypeProto that the file notes for it */
    struct map guessed;   /* survey: address of a value whose type is not known -> 1 */
    struct map used;      /* names that some node, body or graph result reads: other outputs are not wanted */
    int64_t n_inlined;
    int depth;
};

/* A call of a model-local function that is being inlined. */
struct call {
    const struct call *caller;
    const Onnx__FunctionProto *fn;
    const Onnx__NodeProto *site;
    const struct scope *outer;
    sym name; /* of the calling node, prefix of the inlined nodes' names */
};
/* Names visible in one graph; the parent's are visible too. A function body has no parent. */
struct scope {
    struct scope *parent;
    struct graph *graph;
    struct map names; /* sym -> struct value * */
    const struct opset_list *opsets;
    const struct call *call; /* NULL outside of functions */
};

/* A node on its way to core operators: rules (opset.def) change it or replace it. */
struct onode {
    sym op, domain;
    int64_t version; /* opset of the domain */
    int n_in, n_out, n_attrs, cap_in, cap_attrs;
    struct value **in; /* NULL: absent */
    sym *out;          /* 0: not wanted */
    struct oattr {
        sym name;
        struct attr a; /* graphs stay in the protocol until the node exists */
        const Onnx__GraphProto *graph;
    } * attrs;
    const Onnx__NodeProto *pb;
    int32_t index; /* in its graph */
    struct scope *scope;
    struct builder b;
    bool done; /* all outputs are bound, nothing else to make */
};

/* --- text and errors (names.c) */
sym bytes_sym(struct import *im, ProtobufCBinaryData text);
const char *sym_text(const struct import *im, sym s);
struct diag_loc onode_loc(struct import *im, const struct onode *n);
enum npuc_status onode_fail(struct import *im, const struct onode *n, enum diag_code code, const char *fmt, ...)
    NPUC_PRINTF(4, 5);
enum npuc_status onode_bad_attr(struct import *im, const struct onode *n, const char *attr, const char *fmt, ...)
    NPUC_PRINTF(4, 5);
enum npuc_status name_fail(struct import *im, sym name, enum diag_code code, const char *fmt, ...) NPUC_PRINTF(4, 5);
enum npuc_status tensor_fail(struct import *im, sym tensor, const char *fmt, ...) NPUC_PRINTF(3, 4);
enum npuc_status external_fail(struct import *im, sym tensor, const char *fmt, ...) NPUC_PRINTF(3, 4);
void import_warn(struct import *im, sym name, const char *fmt, ...) NPUC_PRINTF(3, 4);

/* Unpacks a skeleton (unpack.c); the message lives in `a`. */
struct scan_skeleton;
enum npuc_status skeleton_unpack(const ProtobufCMessageDescriptor *kind, const struct scan_skeleton *sk,
                                 struct arena *a, struct diag *d, const char *file, ProtobufCMessage **out);

/* --- tensors (tensor.c, external.c, sparse.c) */
struct tensor_in {
    const struct type *type;
    const struct blob *blob;
};
enum npuc_status tensor_import(struct import *im, const Onnx__TensorProto *t, sym name, struct tensor_in *out);
enum npuc_status sparse_import(struct import *im, const Onnx__SparseTensorProto *t, sym name, struct tensor_in *out);
/* need: bytes wanted. *data NULL with NPUC_OK: the file is absent and that is allowed. */
enum npuc_status external_data(struct import *im, const Onnx__TensorProto *t, sym name, int64_t need,
                               const uint8_t **data);
/* Element count of dims; false when one is negative or the product overflows. */
bool dims_count(const int64_t *dims, int64_t rank, int64_t *n);
/* Typed data fields into packed bytes (typed.c). data has `size` bytes. *why is set on failure. */
bool typed_unpack(const Onnx__TensorProto *t, enum dtype dt, int64_t n, uint8_t *data, const char **why);
bool typed_any(const Onnx__TensorProto *t);

/* --- types (types.c) */
/* *out stays NULL when the file gives no type. */
enum npuc_status type_import(struct import *im, const Onnx__TypeProto *t, sym name, const struct type **out);
/* A dim that is a bare symbol can only have this value: narrows the symbol's range to it. */
void type_fix_symbol(struct import *im, expr e, int64_t value);
/* Dims of the main graph's inputs whose expression cannot be solved from the inputs become symbols of their own. */
void types_close_inputs(struct import *im, struct graph *g);

/* --- nodes (node.c, attr.c) */
enum npuc_status node_import(struct import *im, struct scope *s, const Onnx__NodeProto *pb, int32_t index);
/* The node itself, with its attributes but those that are graphs; then types and names of its outputs. */
enum npuc_status onode_build(struct import *im, struct onode *n, struct node **out);
enum npuc_status onode_finish(struct import *im, struct onode *n, struct node *node);
enum npuc_status attrs_read(struct import *im, struct onode *n);
const struct oattr *onode_attr(const struct import *im, const struct onode *n, const char *name);
int64_t onode_int(const struct import *im, const struct onode *n, const char *name, int64_t otherwise);
float onode_float(const struct import *im, const struct onode *n, const char *name, float otherwise);
const char *onode_str(const struct import *im, const struct onode *n, const char *name, const char *otherwise);
void onode_drop(struct import *im, struct onode *n, const char *name);
void onode_set(struct import *im, struct onode *n, const char *name, struct attr a);
void onode_set_int(struct import *im, struct onode *n, const char *name, int64_t v);
void onode_rename(struct import *im, struct onode *n, const char *op);
void onode_set_in(struct import *im, struct onode *n, int i, struct value *v); /* grows with absent inputs */
void onode_bind(struct import *im, struct onode *n, int i, struct value *v);   /* output i is v */
/* The attribute's integers as a constant int64 input; absent: NULL. *a is dropped from the node. */
struct value *onode_ints_input(struct import *im, struct onode *n, const char *name);

/* --- graphs and functions (graph.c, function.c, order.c) */
/* False: no such name. *out NULL: the name is an absent optional input of a function. */
bool scope_find(const struct scope *s, sym name, struct value **out);
enum npuc_status scope_define(struct import *im, struct scope *s, sym name, struct value *v);
void scope_init(struct import *im, struct scope *s, struct scope *parent, struct graph *g);
enum npuc_status graph_import_main(struct import *im);
/* The body of a control node: in_types gives the types of its inputs (NULL entries: as declared in the file). */
enum npuc_status graph_import_body(struct import *im, struct onode *n, const Onnx__GraphProto *pb, struct graph *g,
                                   const struct type *const *in_types, int n_in);
/* The same with the values that its inputs are. */
enum npuc_status graph_import_on(struct import *im, struct onode *n, const Onnx__GraphProto *pb, struct graph *g,
                                 struct value *const *in);
/* The nodes of a graph with n_in inputs and n_out outputs where the node stands: out are its results for `in`. */
enum npuc_status graph_inline(struct import *im, struct onode *n, const Onnx__GraphProto *pb, int n_in,
                              struct value *const *in, int n_out, struct value **out);
enum npuc_status nodes_import(struct import *im, struct scope *s, Onnx__NodeProto *const *nodes, int64_t n);
/* Order of the nodes in which each comes after what it uses: NULL when they stand so already. */
enum npuc_status nodes_order(struct import *im, Onnx__NodeProto *const *nodes, int64_t n, const int32_t **order);
enum npuc_status functions_index(struct import *im);
const Onnx__FunctionProto *function_find(struct import *im, sym domain, sym op, sym overload);
enum npuc_status function_inline(struct import *im, struct onode *n, const Onnx__FunctionProto *fn);
enum npuc_status control_import(struct import *im, struct onode *n); /* If, Loop, Scan */
enum npuc_status opsets_read(struct import *im, Onnx__OperatorSetIdProto *const *at, int64_t n, struct opset_list *out);
int64_t opset_version(const struct import *im, const struct opset_list *l, sym domain); /* 0 when not imported */
sym domain_sym(struct import *im, ProtobufCBinaryData domain);                          /* "ai.onnx" is "" */

/* --- surveys (stand_in.c) */
void hints_add(struct import *im, const Onnx__GraphProto *pb);
bool stand_in_heals(const struct import *im, enum npuc_status s); /* after such a failure a stand-in takes over */
/* Is this an operator that nobody knows, or does it read a value of unknown type? */
bool stand_in_is_due(struct import *im, const struct scope *s, const Onnx__NodeProto *pb);
enum npuc_status stand_in_import(struct import *im, struct onode *n);

/* --- operators (known.c, opset.c) */
/* Reports every operator of the model that the compiler does not know. */
enum npuc_status operators_check(struct import *im);
bool operator_known(struct import *im, sym domain, sym op);   /* a core operator, or one that a rule makes into such */
enum op operator_find(struct import *im, sym domain, sym op); /* op_find, remembered */
/* Rewrites n to the newest meaning by the rows of opset.def. */
enum npuc_status opset_apply(struct import *im, struct onode *n);

#endif
