/* Reads that leave nothing in L2. */
#ifndef BACKEND_VECTOR_STREAM_H
#define BACKEND_VECTOR_STREAM_H

#include "backend/backend.h"

/* What a launch does with one tensor of its kernel: bytes in the kernel's expressions, EXPR_INVALID: not known. */
struct stream {
    expr bytes;
    bool once; /* every byte is read at most once, and nothing is written */
};
/* Operands read once pass by L2 when all of them together are more than it holds, so that nobody would find them there,
 * and it has room for the results. --force l2=cached|bypass decides otherwise. s: one per tensor of the kernel. */
void stream_mark(struct emit *e, struct tile_kernel *k, const struct stream *s);

#endif
