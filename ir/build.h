/* The only way to change a graph. All functions keep use lists and order. */
#ifndef IR_BUILD_H
#define IR_BUILD_H

#include "ir/graph.h"

/* A place to insert: before `before`, or at the end (before the Yield if there is one) when NULL. */
struct builder {
    struct ir_ctx *cx;
    struct graph *graph;
    struct node *before;
    const struct loc *loc; /* given to new nodes */
};
struct builder ir_at(struct node *before); /* loc of `before` */
struct builder ir_at_end(struct graph *g);

struct graph *ir_func_new(struct module *m, sym name);
struct graph *ir_region_new(struct node *owner, sym name); /* the attribute slot is set by the caller */
struct value *ir_input_new(struct graph *g, const struct type *t, sym name);

/* A new node with default attributes and untyped outputs; set attributes, then call ir_infer. in[i] may be NULL. */
struct node *ir_new(struct builder *b, enum op op, int n_in, struct value *const *in, int n_out);
void ir_set_int(struct node *n, const char *attr, int64_t v);
void ir_set_float(struct node *n, const char *attr, float v);
void ir_set_str(struct node *n, const char *attr, const char *v);
void ir_set_ints(struct node *n, const char *attr, const int64_t *v, int64_t len);
void ir_set_graph(struct node *n, const char *attr, struct graph *g);
void ir_set_attr(struct node *n, const char *attr, struct attr v); /* payload is copied into the module's arena */
void ir_copy_attrs(struct node *n, const struct node *from); /* those that both operators have and `from` has set */
enum npuc_status ir_infer(struct node *n);                   /* infer hook: types and known elements of the outputs */
/* ir_new + infer for the common case of one output; NULL after a reported error. */
struct value *ir_op1(struct builder *b, enum op op, struct value *a);
struct value *ir_op2(struct builder *b, enum op op, struct value *x, struct value *y);
struct value *ir_op3(struct builder *b, enum op op, struct value *x, struct value *y, struct value *z);
struct value *ir_reshape(struct builder *b, struct value *x, int rank, const expr *dims); /* Reshape with known dims */
struct value *ir_transpose(struct builder *b, struct value *x, const int64_t *perm);
struct value *ir_cast(struct builder *b, struct value *x, enum dtype t); /* x itself when the type fits */
/* Constants: the bytes are copied into the module's arena (const_blob: referenced). */
struct value *ir_const(struct builder *b, enum dtype t, int rank, const int64_t *dims, const void *data, int64_t size);
struct value *ir_const_blob(struct builder *b, const struct type *t, const struct blob *blob);
struct value *ir_const_i64(struct builder *b, const int64_t *v, int64_t n); /* rank 1 */
struct value *ir_scalar_f32(struct builder *b, float v);
/* A constant scalar of x's dtype. */
struct value *ir_scalar_like(struct builder *b, const struct value *x, double v);
/* int64 rank-1 (rank 0) tensor whose elements are the expressions: Constant where all are constant, else a node of
 * operator SizeOf (computed on the host at bind time). */
struct value *ir_sizes(struct builder *b, const expr *e, int64_t n, bool scalar);

/* All uses. Results of a function keep their names: `with` takes the name of `old`, or an Identity is put between where
 * it cannot (`with` is an input or a result already; an `old` that is such an Identity keeps that use). */
void ir_replace_all(struct value *old, struct value *with);
bool ir_can_replace(const struct value *old, const struct value *with); /* would ir_replace_all change anything? */
void ir_set_input(struct node *n, int i, struct value *v);
void ir_erase(struct node *n); /* outputs must be unused */
void ir_move_before(struct node *n, struct node *before);
void ir_move_to_end(struct node *n, struct graph *g);
/* A node like `n`, before it, with other numbers of inputs and outputs (empty, untyped); bodies move to it. */
struct node *ir_resized(struct node *n, int n_in, int n_out);
struct graph *ir_clone_region(const struct graph *g, struct node *owner); /* deep copy */
/* Copies the nodes of g (not its Yield) to where b inserts: inputs[i] stands for its input i, results[i] is what its
 * Yield gives. Types are inferred anew; sizes that the copy invents are its own. */
enum npuc_status ir_clone_into(struct builder *b, const struct graph *g, struct value *const *inputs,
                               struct value **results);
/* Symbol s is by[s] where that is set: in the types of all values of g and its bodies and in its SizeOf nodes. Infer
 * again after it. */
void ir_substitute(struct graph *g, const expr *by, int32_t n);
void ir_substitute_inputs(struct graph *g, const expr *by,
                          int32_t n); /* of a function, which the above leaves as they are */
/* Fused node replacing a set of nodes of one graph, given in order: makes the region, its inputs (external values
 * used, in order of first use) and outputs (values used outside); inserted before `at`. Constants of at most 16 bytes
 * move into the region, unless it is one of attention and they are several floats. Returns the new node. */
bool ir_moves_in(const struct value *v); /* such a constant? */
struct node *ir_fuse(struct ir_ctx *cx, struct node *const *nodes, int64_t n, struct node *at, const char *kind);
/* The opposite: the region's nodes go back to where the Fused node stands, which goes. */
void ir_unfuse(struct node *fused);
const struct loc *ir_merge_loc(struct module *m, const struct loc *a, const struct loc *b);
void ir_sort(struct graph *g);          /* restores topological order; a cycle is an internal error */
int64_t ir_dce(struct graph *g);        /* erases unused nodes without side effects, also in bodies; returns how many */
bool ir_may_rewrite(struct ir_ctx *cx); /* counts a rewrite; false after --max-rewrites */

#endif
