/* Protobuf messages being written: a message is a list of pieces, so that large contents are referenced and not copied
 * and a message's length is known before its bytes are. Field order is that of the calls. */
#ifndef FRONTEND_EXPORT_PB_H
#define FRONTEND_EXPORT_PB_H

#include "base/vec.h"

struct pb_piece {
    const void *data;
    int64_t size;
};
struct pb {
    struct arena *arena;
    VEC(struct pb_piece) pieces;
    int64_t size; /* bytes of all pieces */
};

void pb_int(struct pb *p, int field, int64_t v); /* negative values take ten bytes, as int64 and int32 want */
void pb_float(struct pb *p, int field, float v);
void pb_bytes(struct pb *p, int field, const void *data, int64_t size); /* the bytes must outlive the message */
void pb_text(struct pb *p, int field, const char *text);
void pb_message(struct pb *p, int field, const struct pb *child);
void pb_ints(struct pb *p, int field, const int64_t *v, int64_t n); /* unpacked */
void pb_floats(struct pb *p, int field, const float *v, int64_t n); /* unpacked */
struct pb_piece pb_join(const struct pb *p);                        /* all pieces as one, in the arena */

#endif
