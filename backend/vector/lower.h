/* What operators mean in vector values: the tables of gen_vector.c for other generators with vector parts. */
#ifndef BACKEND_VECTOR_LOWER_H
#define BACKEND_VECTOR_LOWER_H

#include "backend/vector/vregion.h"

/* Iteration dimensions: all axes but the run [red_first, red_last], then the run as one. */
struct space {
    int rank;                /* of the broadcast shape */
    expr shape[IR_MAX_RANK]; /* the broadcast shape */
    int red_first, red_last; /* the row; last axis when nothing reduces */
    int64_t c0;              /* not 0: iteration is over the dimensions in blocks of c0 channels (blocked.h) */
};
struct lower {
    struct vr r;
    struct space sp;
    struct ir_ctx *cx;
    struct map value; /* value id -> region value */
};

/* A space of the rank, all sizes one, rows along the last axis. */
void space_init(struct ir_ctx *cx, struct space *s, int rank);
/* Widens the space by a node's operands and result; false where sizes are not known to agree, or where an operand
 * cannot be walked row by row. */
bool space_add(struct ir_ctx *cx, struct space *s, const struct node *n, const char **reason);

/* Does the vector unit do this node, and does it reduce over nothing or the last axis alone, keeping it? */
bool lower_check(struct ir_ctx *cx, const struct node *n, const char **reason);
/* Starts the region over l->sp; l->cx is set here. */
void lower_begin(struct lower *l, struct emit *e);
/* A value known to the region, else an immediate or a view of the value's tensor. */
int lower_operand(struct lower *l, struct value *v);
/* The node's first result as a region value. */
int lower_node(struct lower *l, struct node *n);

/* Rows of the table of operators (lower_each.c). */
bool lower_check_sum(struct ir_ctx *cx, const struct node *n, const char **reason);
int lower_sum(struct lower *l, struct node *n);
bool lower_check_swiglu(struct ir_ctx *cx, const struct node *n, const char **reason);
int lower_swiglu(struct lower *l, struct node *n);

#endif
