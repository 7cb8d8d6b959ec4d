/* Checks of one node that readers and the verifier share. */
#ifndef IR_CHECK_H
#define IR_CHECK_H

#include "ir/graph.h"

/* Arity, required attributes and attribute kinds against the operator's row: NULL, or what is wrong (in scratch
 * memory). */
const char *node_schema_fault(struct ir_ctx *cx, const struct node *n);
/* Is `stored` a type that output types of n may have where inference says `inferred`? Sizes that inference cannot know
 * (symbols that no operand mentions) fit anything; layout and quantisation of `stored` are free unless inference sets
 * them. */
bool type_fits(struct ir_ctx *cx, const struct node *n, const struct type *inferred, const struct type *stored);

#endif
