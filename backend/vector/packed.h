/* Conversions from and to types of less than a byte. */
#ifndef BACKEND_VECTOR_PACKED_H
#define BACKEND_VECTOR_PACKED_H

#include "backend/backend.h"

/* `out` = `in` converted, n elements of dense plan tensors; n is an ir expression. */
struct packed_cast {
    int32_t in, out;
    enum dtype from, to;
    bool saturate;
    expr n;
};
NPUC_MUST_CHECK enum npuc_status emit_packed_cast(struct emit *e, const struct packed_cast *c, const char *label);
/* Numbers of any width up to 32 bits, packed or not: what the vector unit converts. */
bool packed_number(enum dtype t);
/* Less than a byte wide. */
bool packed_type(enum dtype t);

#endif
