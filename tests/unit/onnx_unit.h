/* Writes ONNX protobuf by hand: small models for the tests of the frontend. Field numbers are those of onnx.proto. */
#ifndef TESTS_UNIT_ONNX_UNIT_H
#define TESTS_UNIT_ONNX_UNIT_H

#include "tests/unit/unit.h"

#include <stdlib.h>
#include <string.h>

struct pb {
    uint8_t data[1 << 14];
    size_t len;
};

static inline void pb_raw(struct pb *b, const void *p, size_t n)
{
    assert_true(b->len + n <= sizeof b->data);
    if (n)
        memcpy(b->data + b->len, p, n);
    b->len += n;
}

static inline void pb_varint(struct pb *b, uint64_t v)
{
    for (; v > 0x7f; v >>= 7)
        pb_raw(b, &(uint8_t){(uint8_t)(v | 0x80)}, 1);
    pb_raw(b, &(uint8_t){(uint8_t)v}, 1);
}

static inline void pb_int(struct pb *b, unsigned field, int64_t v)
{
    pb_varint(b, field << 3);
    pb_varint(b, (uint64_t)v);
}

static inline void pb_f32(struct pb *b, unsigned field, float v)
{
    pb_varint(b, field << 3 | 5);
    pb_raw(b, &v, 4);
}

static inline void pb_bytes(struct pb *b, unsigned field, const void *p, size_t n)
{
    pb_varint(b, field << 3 | 2);
    pb_varint(b, n);
    pb_raw(b, p, n);
}

static inline void pb_text(struct pb *b, unsigned field, const char *s)
{
    pb_bytes(b, field, s, strlen(s));
}

static inline void pb_sub(struct pb *b, unsigned field, const struct pb *sub)
{
    pb_bytes(b, field, sub->data, sub->len);
}

/* Words of `list` separated by spaces, "-" for an empty one, as repeated field. */
static inline void pb_words(struct pb *b, unsigned field, const char *list)
{
    while (*list) {
        const size_t n = strcspn(list, " ");
        pb_bytes(b, field, list, n == 1 && *list == '-' ? 0 : n);
        list += n + (list[n] == ' ');
    }
}

/* NodeProto; more attributes may be added with pb_sub(node, 5, ...). */
static inline struct pb pb_node(const char *op, const char *domain, const char *in, const char *out)
{
    struct pb n = {.len = 0};
    pb_words(&n, 1, in);
    pb_words(&n, 2, out);
    pb_text(&n, 4, op);
    if (*domain)
        pb_text(&n, 7, domain);
    return n;
}

static inline void pb_attr_int(struct pb *node, const char *name, int64_t v)
{
    struct pb a = {.len = 0};
    pb_text(&a, 1, name);
    pb_int(&a, 3, v);
    pb_int(&a, 20, 2);
    pb_sub(node, 5, &a);
}

static inline void pb_attr_float(struct pb *node, const char *name, float v)
{
    struct pb a = {.len = 0};
    pb_text(&a, 1, name);
    pb_f32(&a, 2, v);
    pb_int(&a, 20, 1);
    pb_sub(node, 5, &a);
}

static inline void pb_attr_ints(struct pb *node, const char *name, const int64_t *v, int n)
{
    struct pb a = {.len = 0};
    pb_text(&a, 1, name);
    for (int i = 0; i < n; i++)
        pb_int(&a, 8, v[i]);
    pb_int(&a, 20, 7);
    pb_sub(node, 5, &a);
}

static inline void pb_attr_graph(struct pb *node, const char *name, const struct pb *graph)
{
    struct pb a = {.len = 0};
    pb_text(&a, 1, name);
    pb_sub(&a, 6, graph);
    pb_int(&a, 20, 5);
    pb_sub(node, 5, &a);
}

/* ValueInfoProto; dims: words, numbers or names. NULL: no type. */
static inline struct pb pb_value(const char *name, int dtype, const char *dims)
{
    struct pb shape = {.len = 0}, tensor = {.len = 0}, type = {.len = 0}, v = {.len = 0};
    pb_text(&v, 1, name);
    if (!dims)
        return v;
    while (*dims) {
        const size_t n = strcspn(dims, " ");
        struct pb dim = {.len = 0};
        if (*dims >= '0' && *dims <= '9')
            pb_int(&dim, 1, strtol(dims, NULL, 10));
        else
            pb_bytes(&dim, 2, dims, n);
        pb_sub(&shape, 1, &dim);
        dims += n + (dims[n] == ' ');
    }
    pb_int(&tensor, 1, dtype);
    pb_sub(&tensor, 2, &shape);
    pb_sub(&type, 1, &tensor);
    pb_sub(&v, 2, &type);
    return v;
}

/* TensorProto with raw_data; n dims. */
static inline struct pb pb_tensor(const char *name, int dtype, const int64_t *dims, int n, const void *raw, size_t size)
{
    struct pb t = {.len = 0};
    for (int i = 0; i < n; i++)
        pb_int(&t, 1, dims[i]);
    pb_int(&t, 2, dtype);
    pb_text(&t, 8, name);
    if (raw)
        pb_bytes(&t, 9, raw, size);
    return t;
}

static inline struct pb pb_model(const struct pb *graph, int opset)
{
    struct pb m = {.len = 0}, o = {.len = 0};
    pb_int(&m, 1, 8);
    pb_int(&o, 2, opset);
    pb_sub(&m, 8, &o);
    pb_sub(&m, 7, graph);
    return m;
}

#endif
