#include "tools/ops/wire.h"

#include <string.h>

enum { VARINT = 0, BYTES = 2, FIXED32 = 5 };

static void varint(struct wire *w, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        vec_push(w->arena, &w->bytes, (uint8_t)(v | 0x80));
    vec_push(w->arena, &w->bytes, (uint8_t)v);
}

static void raw(struct wire *w, const void *p, int64_t size)
{
    for (int64_t i = 0; i < size; i++)
        vec_push(w->arena, &w->bytes, ((const uint8_t *)p)[i]);
}

static void key(struct wire *w, int field, int kind)
{
    varint(w, (uint64_t)field << 3 | (uint64_t)kind);
}

void wire_int(struct wire *w, int field, int64_t v)
{
    key(w, field, VARINT);
    varint(w, (uint64_t)v);
}

void wire_float(struct wire *w, int field, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    const uint8_t le[4] = {(uint8_t)bits, (uint8_t)(bits >> 8), (uint8_t)(bits >> 16), (uint8_t)(bits >> 24)};
    key(w, field, FIXED32);
    raw(w, le, sizeof le);
}

void wire_bytes(struct wire *w, int field, const void *p, int64_t size)
{
    key(w, field, BYTES);
    varint(w, (uint64_t)size);
    raw(w, p, size);
}

void wire_text(struct wire *w, int field, const char *text)
{
    wire_bytes(w, field, text, (int64_t)strlen(text));
}

void wire_message(struct wire *w, int field, const struct wire *inner)
{
    wire_bytes(w, field, inner->bytes.data, inner->bytes.len);
}
