/* Within export: the state of one file being written. */
#ifndef FRONTEND_EXPORT_PRIV_H
#define FRONTEND_EXPORT_PRIV_H

#include "frontend/export/onnx_write.h"
#include "frontend/export/pb.h"

/* Where a symbol's value is found: dimension `at` of a tensor, or its element `at`; = offset + factor x symbol. */
struct source {
    expr symbol;
    sym name;
    int64_t at, offset, factor;
    bool element;
};
/* A graph on its way into the file. Names of the graphs around it are visible. */
struct scope {
    struct scope *up;
    struct pb pb; /* GraphProto */
    VEC(struct source) sources;
    struct map sizes; /* expr -> sym of an int64[1] */
};
struct external {
    const void *data;
    int64_t at, size;
};
struct writer {
    struct ir_ctx *cx;
    const struct module *m;
    struct arena *arena;
    sym *names;      /* per value id; 0: none yet */
    struct map used; /* names of values that are taken */
    struct map used_nodes;
    struct map owners; /* name of a node of the file -> id of the node that is written with it */
    struct scope *scope;
    int64_t opset;         /* of ai.onnx */
    struct map domains;    /* sym of another domain -> version */
    const char *data_name; /* of the external file, relative to the model; NULL: everything is in the model */
    VEC(struct external) external;
    int64_t external_size;
    int64_t n_made; /* values and nodes that have no name of their own */
};

/* tensor.c */
struct pb write_type(struct writer *w, const struct type *t);                 /* TypeProto */
struct pb write_value_info(struct writer *w, sym name, const struct type *t); /* ValueInfoProto */
enum npuc_status write_tensor(struct writer *w, sym name, const struct type *t, const struct blob *b, struct pb *out);

/* node.c */
enum npuc_status write_node(struct writer *w, const struct node *n);
void write_claim_names(struct writer *w, const struct graph *g); /* before nodes are written */
/* One node of ai.onnx with one result, whose name is returned; attr NULL: none. */
sym write_simple(struct writer *w, const char *op, int n_in, const sym *in);
struct pb write_begin(struct writer *w, const char *op, sym name, int n_in, const sym *in, int n_out, const sym *out);
void write_attr_int(struct pb *node, const char *name, int64_t v);
void write_end(struct writer *w, const struct pb *node);

/* write.c */
enum npuc_status write_graph(struct writer *w, const struct graph *g, struct pb *out); /* a body, as GraphProto */
enum npuc_status write_nodes(struct writer *w, const struct graph *g);                 /* all but the Yield */
sym write_fresh(struct writer *w);                                                     /* a name nobody has */
sym write_name(struct writer *w, const struct value *v);
void write_defined(struct writer *w, const struct value *v); /* v exists from here on: its sizes may be read */

/* sizes.c: the operator SizeOf */
enum npuc_status write_sizes(struct writer *w, const struct node *n);
void write_sources(struct writer *w, const struct value *v);
sym write_const_i64(struct writer *w, const int64_t *v, int64_t n, bool scalar); /* an initializer */

#endif
