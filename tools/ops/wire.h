/* Protobuf bytes, written by field: what a model of one operator needs. */
#ifndef TOOLS_OPS_WIRE_H
#define TOOLS_OPS_WIRE_H

#include "base/vec.h"

struct wire {
    struct arena *arena;
    VEC(uint8_t) bytes;
};
static inline struct wire wire_new(struct arena *a)
{
    return (struct wire){.arena = a};
}
void wire_int(struct wire *w, int field, int64_t v);
void wire_float(struct wire *w, int field, float v);
void wire_bytes(struct wire *w, int field, const void *p, int64_t size);
void wire_text(struct wire *w, int field, const char *text);
void wire_message(struct wire *w, int field, const struct wire *inner);

#endif
