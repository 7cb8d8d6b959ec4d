#include "frontend/export/pb.h"

#include <string.h>

enum { WIRE_VARINT = 0, WIRE_BYTES = 2, WIRE_FIXED32 = 5, VARINT_MAX = 10 };

static int64_t varint(uint8_t *out, uint64_t v)
{
    int64_t n = 0;
    for (; v >= 0x80; v >>= 7)
        out[n++] = (uint8_t)(v | 0x80);
    out[n++] = (uint8_t)v;
    return n;
}

static void piece(struct pb *p, const void *data, int64_t size)
{
    const struct pb_piece add = {data, size};
    if (size == 0)
        return;
    vec_push(p->arena, &p->pieces, add);
    p->size += size;
}

/* The tag and, for WIRE_VARINT and WIRE_BYTES, the number behind it. */
static void head(struct pb *p, int field, int wire, uint64_t number)
{
    uint8_t bytes[2 * VARINT_MAX];
    int64_t n = varint(bytes, (uint64_t)field << 3 | (uint64_t)wire);
    if (wire != WIRE_FIXED32)
        n += varint(bytes + n, number);
    piece(p, arena_copy(p->arena, bytes, n), n);
}

void pb_int(struct pb *p, int field, int64_t v)
{
    head(p, field, WIRE_VARINT, (uint64_t)v);
}

void pb_float(struct pb *p, int field, float v)
{
    head(p, field, WIRE_FIXED32, 0);
    piece(p, arena_copy(p->arena, &v, sizeof v), sizeof v);
}

void pb_bytes(struct pb *p, int field, const void *data, int64_t size)
{
    head(p, field, WIRE_BYTES, (uint64_t)size);
    piece(p, data, size);
}

void pb_text(struct pb *p, int field, const char *text)
{
    pb_bytes(p, field, text, (int64_t)strlen(text));
}

void pb_message(struct pb *p, int field, const struct pb *child)
{
    head(p, field, WIRE_BYTES, (uint64_t)child->size);
    for (int64_t i = 0; i < child->pieces.len; i++)
        piece(p, child->pieces.data[i].data, child->pieces.data[i].size);
}

void pb_ints(struct pb *p, int field, const int64_t *v, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        pb_int(p, field, v[i]);
}

void pb_floats(struct pb *p, int field, const float *v, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        pb_float(p, field, v[i]);
}

struct pb_piece pb_join(const struct pb *p)
{
    char *all = arena_alloc(p->arena, p->size, 1);
    int64_t at = 0;
    for (int64_t i = 0; i < p->pieces.len; i++) {
        memcpy(all + at, p->pieces.data[i].data, (size_t)p->pieces.data[i].size);
        at += p->pieces.data[i].size;
    }
    return (struct pb_piece){all, at};
}
