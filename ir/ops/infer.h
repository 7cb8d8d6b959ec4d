/* What the infer, fold and cost hooks of all families share.
 *
 * An infer hook is total: sizes it cannot know become symbols. A symbol made for a dimension is found again when the
 * hook runs a second time on the same node, so that inference is idempotent. Layout and quantisation that a pass
 * has put on an output are kept as long as dtype and dims agree. */
#ifndef IR_OPS_INFER_H
#define IR_OPS_INFER_H

#include "ir/graph.h"

#define INFER_MAX_ELEMS 64 /* longest content that is followed element by element */

struct shape {
    int rank; /* -1: unknown */
    expr d[IR_MAX_RANK];
};
#define SHAPE_UNKNOWN ((struct shape){.rank = -1})

/* First call of a hook: required inputs are there, every input that is there is a typed tensor. */
NPUC_MUST_CHECK enum npuc_status infer_begin(struct ir_ctx *cx, const struct node *n);
bool infer_has(const struct node *n, int i);           /* input i is present */
struct shape infer_shape(const struct node *n, int i); /* unknown for an absent input */
enum dtype infer_dtype(const struct node *n, int i);   /* DT_NONE for an absent input */
enum npuc_status infer_rank_error(struct ir_ctx *cx, const struct node *n, int i, const char *expected);
/* Inputs a and b have one element type. */
NPUC_MUST_CHECK enum npuc_status infer_same_dtype(struct ir_ctx *cx, const struct node *n, int a, int b);
/* Input i, if present, is of type a or b. */
/* u8 or i8; or i16, which ONNX does not multiply and some matrix units do. */
NPUC_MUST_CHECK enum npuc_status infer_is_factor(struct ir_ctx *cx, const struct node *n, int i);
NPUC_MUST_CHECK enum npuc_status infer_dtype_is(struct ir_ctx *cx, const struct node *n, int i, enum dtype a,
                                                enum dtype b);
NPUC_MUST_CHECK enum npuc_status infer_is_float(struct ir_ctx *cx, const struct node *n, int i);

/* Does the node have output i? (An unused one in the middle is typed like the others.) */
bool infer_wants(const struct node *n, int i);
/* Types output i and forgets its content. Returns NPUC_OK, or the error of a size beyond 64 bits. */
enum npuc_status infer_out(struct ir_ctx *cx, struct node *n, int i, enum dtype t, const struct shape *s);
enum npuc_status infer_out_unknown(struct ir_ctx *cx, struct node *n, int i, enum dtype t); /* unknown rank */
/* Output i has the type of input k; content is passed on. */
enum npuc_status infer_out_like(struct ir_ctx *cx, struct node *n, int i, int k);
/* Output i has the shape of input k and elements of type t. */
enum npuc_status infer_out_shaped(struct ir_ctx *cx, struct node *n, int i, int k, enum dtype t);
/* A symbol for axis `axis` of output i, the one of the last run if there was one. */
expr infer_fresh(struct ir_ctx *cx, const struct node *n, int i, int axis);
struct shape infer_fresh_shape(struct ir_ctx *cx, const struct node *n, int i, int rank);
/* Content of output i; nothing is set when all elements are EXPR_INVALID or there are too many. */
void infer_set_elems(struct ir_ctx *cx, struct node *n, int i, const expr *e, int64_t len);
/* Content of input i into e[INFER_MAX_ELEMS]; false when its length is unknown. Unknown elements are EXPR_INVALID. */
bool infer_elems(struct ir_ctx *cx, const struct node *n, int i, expr *e, int64_t *len);
/* Content of a value of any rank, through nodes that move elements alone; false when it comes from elsewhere. */
bool infer_follow(struct ir_ctx *cx, const struct value *v, expr *e, int64_t *len);
/* What a float of one element computed from sizes (Cast, Div, Ceil, Mul...) gives as an integer; EXPR_INVALID: unknown.
 */
expr infer_follow_float(struct ir_ctx *cx, const struct value *v);
/* Content of output i when it is that of input k (views). */
void infer_pass_elems(struct ir_ctx *cx, struct node *n, int i, int k);
bool infer_tracks(enum dtype t); /* types whose content is followed */
/* Constant integers of input i; false when absent or not all constant. */
bool infer_ints(struct ir_ctx *cx, const struct node *n, int i, int64_t *v, int64_t *len);
/* Number of elements of the rank-1 input i, -1 when unknown. */
int64_t infer_len(struct ir_ctx *cx, const struct node *n, int i);

/* *axis brought into [0, rank). `what` names where it came from. */
NPUC_MUST_CHECK enum npuc_status infer_axis(struct ir_ctx *cx, const struct node *n, const char *what, int64_t axis,
                                            int rank, int *out);
NPUC_MUST_CHECK enum npuc_status infer_axis_attr(struct ir_ctx *cx, const struct node *n, const char *attr, int rank,
                                                 int *out);
/* Attribute holding an ONNX element type number; `otherwise` when absent or 0. */
NPUC_MUST_CHECK enum npuc_status infer_dtype_attr(struct ir_ctx *cx, const struct node *n, const char *attr,
                                                  enum dtype otherwise, enum dtype *out);
bool infer_attr_is(struct ir_ctx *cx, const struct node *n, const char *attr, const char *value);
/* The string attribute is one of the given words, separated by spaces. */
NPUC_MUST_CHECK enum npuc_status infer_attr_in(struct ir_ctx *cx, const struct node *n, const char *attr,
                                               const char *words);

/* Dimensions (infer_dim.c) */
/* Notes for surveys that inference takes an open size to be this constant. */
void infer_claim(struct ir_ctx *cx, expr size, int64_t value);
/* The dimension that a and b both are: the constant or simpler one; EXPR_INVALID when they differ for sure. */
expr infer_dim_same(struct ir_ctx *cx, expr a, expr b);
expr infer_dim_broadcast(struct ir_ctx *cx, expr a, expr b); /* the same for numpy broadcasting */
bool infer_broadcast(struct ir_ctx *cx, const struct shape *a, const struct shape *b, struct shape *out);
/* The same for Expand: where nothing proves the sizes equal, the target's. */
bool infer_expand(struct ir_ctx *cx, const struct shape *x, const struct shape *target, struct shape *out);
expr infer_product(struct ir_ctx *cx, const expr *d, int n);
expr infer_div_exact(struct ir_ctx *cx, expr a, expr b); /* a/b when b divides a as a polynomial, else EXPR_INVALID */
/* x with num[] = x * den[] as products; equal factors cancel. EXPR_INVALID: constants that do not divide, or overflow.
 */
expr infer_quotient(struct ir_ctx *cx, const expr *num, int n_num, const expr *den, int n_den);
bool infer_dim_is(const struct ir_ctx *cx, expr e, int64_t value);
bool infer_may_be_negative(const struct ir_ctx *cx, expr e);
expr infer_min(struct ir_ctx *cx, expr a, expr b); /* simplified by what ranges prove */
expr infer_max(struct ir_ctx *cx, expr a, expr b);
const char *infer_dim_text(struct ir_ctx *cx, expr e); /* for messages */

/* Hooks that several families use */
struct value *same_type_fold(struct ir_ctx *cx, struct node *n); /* input 0 when output 0 has its type */
/* All elements of the small constant v equal x (and its sign). */
bool infer_const_is(const struct value *v, double x);

/* Costs: bytes of all operands, elements of a value. */
void cost_bytes(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c);
double cost_count(struct ir_ctx *cx, const struct value *v, const int64_t *symbols);
double cost_dim(struct ir_ctx *cx, const struct value *v, int axis,
                const int64_t *symbols); /* axis < 0: from the end */

#endif
