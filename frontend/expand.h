/* What rules are written with: core operators in one call each.
 *
 * Every function returns NULL when an operand is NULL or when the node was refused, which has been reported then; so a
 * rule may nest calls and test the last result only. Operands are tensors of known rank (onode_rank). */
#ifndef FRONTEND_EXPAND_H
#define FRONTEND_EXPAND_H

#include "frontend/rules.h"

/* Input i, if present, is a tensor of lo..hi dims; an absent one passes. */
NPUC_MUST_CHECK enum npuc_status onode_rank(struct import *im, struct onode *n, int i, int lo, int hi);
/* Attribute `name` in lo..hi. */
NPUC_MUST_CHECK enum npuc_status onode_int_in(struct import *im, struct onode *n, const char *name, int64_t otherwise,
                                              int64_t lo, int64_t hi, int64_t *out);
/* Builds the node as it stands, with its own name in the newest opset; *out its first output. The node is not done yet.
 */
NPUC_MUST_CHECK enum npuc_status onode_emit(struct import *im, struct onode *n, const char *op, struct value **out);
/* x, or NULL when the input is absent: as a scalar when it has one element. */
struct value *onode_scalar(struct import *im, struct onode *n, int i);

static inline expr x_dim(const struct value *v, int axis)
{
    return v->type->dims[axis < 0 ? axis + v->type->rank : axis];
}
expr x_num(struct builder *b, int64_t v);

struct value *x_op1(struct builder *b, enum op op, struct value *x);
struct value *x_op2(struct builder *b, enum op op, struct value *x, struct value *y);
struct value *x_op3(struct builder *b, enum op op, struct value *x, struct value *y, struct value *z);
/* A node with attributes to be set; NULL operands before the first `need` fail, later ones are absent. */
struct node *x_node(struct builder *b, enum op op, int need, int n_in, struct value *const *in, int n_out);
struct value *x_out(struct node *n); /* infers; output 0 */

struct value *x_add_opt(struct builder *b, struct value *x, struct value *y, bool given); /* x + y, or x */
struct value *x_scaled(struct builder *b, struct value *x, double factor);                /* x * constant */
struct value *x_plus(struct builder *b, struct value *x, double term);                    /* x + constant */
struct value *x_cast(struct builder *b, struct value *x, enum dtype t);
struct value *x_int(struct builder *b, int64_t v); /* int64 scalar */
struct value *x_range(struct builder *b, expr n);  /* int64 [n]: 0, 1, .. */
struct value *x_size(struct builder *b, expr n);   /* int64 scalar */
struct value *x_zeros(struct builder *b, enum dtype t, int rank, const expr *dims);

struct value *x_reshape(struct builder *b, struct value *x, int rank, const expr *dims);
struct value *x_flat(struct builder *b, struct value *x); /* one dim */
struct value *x_transpose(struct builder *b, struct value *x, const int64_t *perm);
struct value *x_swap(struct builder *b, struct value *x); /* the last two dims */
/* [N, ..., C] to [N, C, ...], or back; less than 3 dims stay. */
struct value *x_channels(struct builder *b, struct value *x, bool to_last);
struct value *x_unsqueeze(struct builder *b, struct value *x, int n, const int64_t *axes);
struct value *x_squeeze(struct builder *b, struct value *x, int axis);
struct value *x_expand(struct builder *b, struct value *x, int rank, const expr *dims);
struct value *x_slice(struct builder *b, struct value *x, int axis, expr from, expr to);
struct value *x_every(struct builder *b, struct value *x, int axis, int64_t from, int64_t step); /* every step-th */
struct value *x_element(struct builder *b, struct value *x, int axis, int64_t at);               /* one, axis removed */
struct value *x_concat(struct builder *b, int axis, int n, struct value *const *in);
struct value *x_gather(struct builder *b, struct value *x, struct value *indices, int axis);
struct value *x_reduce(struct builder *b, enum op op, struct value *x, int axis, bool keep);
struct value *x_softmax(struct builder *b, struct value *x, int axis);
struct value *x_product(struct builder *b, struct value *x, struct value *y, bool transpose_y);
struct value *x_norm(struct builder *b, enum op op, struct value *x, struct value *scale, struct value *shift,
                     float epsilon);
/* To float32 and back; zero may be NULL when `type` says what to make. scale: scalar, or vector along axis. */
struct value *x_dequantize(struct builder *b, struct value *x, struct value *scale, struct value *zero, int axis);
struct value *x_quantize(struct builder *b, struct value *x, struct value *scale, struct value *zero, enum dtype type);
/* float32 of the integer product of 8-bit a and b, less their zero points (NULL: 0). */
struct value *x_integer_product(struct builder *b, struct value *x, struct value *y, struct value *x_zero,
                                struct value *y_zero);
/* Tokens [total, D] to [B, S, D] with zeros at padding, by their offsets [B, S]; and back. */
struct value *x_unpack(struct builder *b, struct value *tokens, struct value *offset);
struct value *x_pack(struct builder *b, struct value *x, struct value *offset, expr total);
/* The activation that a fused node names; params[3] are its numbers. NULL after a report about an unknown one. */
struct value *x_activation(struct import *im, struct onode *n, const char *name, const float *params, struct value *x);

#endif
