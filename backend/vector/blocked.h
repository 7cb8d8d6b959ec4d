/* Elementwise operators on maps in blocks of channels (NC1HWC0): iteration goes over the dimensions in memory. */
#ifndef BACKEND_VECTOR_BLOCKED_H
#define BACKEND_VECTOR_BLOCKED_H

#include "backend/vector/lower.h"

/* Channels of a block when a result of the node is stored in blocks, else 0. */
int64_t blocked_c0(const struct node *n);
/* Can all tensors of the node be walked over the space's dimensions in memory, and do the zeros that fill up the last
 * block of channels stay zero? Products read them. */
bool blocked_fits(struct ir_ctx *cx, const struct node *n, const struct space *s, const char **reason);
/* The space's dimensions in memory: rank + 1 of them. */
void blocked_dims(struct ir_ctx *cx, const struct space *s, expr dims[IR_MAX_RANK]);
/* A value over them. */
void blocked_view(struct lower *l, struct value *v, struct vr_view *out);

#endif
