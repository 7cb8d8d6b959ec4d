/* TensorProto's typed data fields (float_data, int32_data ...) as packed bytes. One row per element type says which
 * field carries it and how many entries an element takes. */
#include <string.h>

#include "frontend/priv.h"

enum typed_field { FIELD_FLOAT, FIELD_INT32, FIELD_STRING, FIELD_INT64, FIELD_DOUBLE, FIELD_UINT64, FIELD_COUNT };

/* per: elements in one entry; negative: entries of one element (complex numbers). */
static const struct {
    enum typed_field field;
    int per;
} typed_table[DT_COUNT] = {
    [DT_F32] = {FIELD_FLOAT, 1},        [DT_C64] = {FIELD_FLOAT, -2},       [DT_F64] = {FIELD_DOUBLE, 1},
    [DT_C128] = {FIELD_DOUBLE, -2},     [DT_I64] = {FIELD_INT64, 1},        [DT_U64] = {FIELD_UINT64, 1},
    [DT_U32] = {FIELD_UINT64, 1},       [DT_I32] = {FIELD_INT32, 1},        [DT_I16] = {FIELD_INT32, 1},
    [DT_I8] = {FIELD_INT32, 1},         [DT_U16] = {FIELD_INT32, 1},        [DT_U8] = {FIELD_INT32, 1},
    [DT_BOOL] = {FIELD_INT32, 1},       [DT_F16] = {FIELD_INT32, 1},        [DT_BF16] = {FIELD_INT32, 1},
    [DT_F8E4M3FN] = {FIELD_INT32, 1},   [DT_F8E4M3FNUZ] = {FIELD_INT32, 1}, [DT_F8E5M2] = {FIELD_INT32, 1},
    [DT_F8E5M2FNUZ] = {FIELD_INT32, 1}, [DT_F8E8M0] = {FIELD_INT32, 1},     [DT_F6E2M3] = {FIELD_INT32, 1},
    [DT_F6E3M2] = {FIELD_INT32, 1},     [DT_F4E2M1] = {FIELD_INT32, 2},     [DT_I4] = {FIELD_INT32, 2},
    [DT_U4] = {FIELD_INT32, 2},         [DT_I2] = {FIELD_INT32, 4},         [DT_U2] = {FIELD_INT32, 4},
    [DT_STRING] = {FIELD_STRING, 1},
};

static void field_counts(const Onnx__TensorProto *t, int64_t n[FIELD_COUNT])
{
    n[FIELD_FLOAT] = (int64_t)t->n_float_data;
    n[FIELD_INT32] = (int64_t)t->n_int32_data;
    n[FIELD_STRING] = (int64_t)t->n_string_data;
    n[FIELD_INT64] = (int64_t)t->n_int64_data;
    n[FIELD_DOUBLE] = (int64_t)t->n_double_data;
    n[FIELD_UINT64] = (int64_t)t->n_uint64_data;
}

bool typed_any(const Onnx__TensorProto *t)
{
    int64_t n[FIELD_COUNT];
    field_counts(t, n);
    for (int i = 0; i < FIELD_COUNT; i++)
        if (n[i])
            return true;
    return false;
}

static void unpack_int32(const Onnx__TensorProto *t, enum dtype dt, uint8_t *data)
{
    const int64_t n = (int64_t)t->n_int32_data;
    const int bits = dtype_table[dt].bits;
    for (int64_t i = 0; i < n; i++) {
        const uint32_t v = (uint32_t)t->int32_data[i];
        if (bits == 32)
            memcpy(data + 4 * i, &v, 4);
        else if (bits == 16)
            memcpy(data + 2 * i, &(uint16_t){(uint16_t)v}, 2);
        else if (dt == DT_BOOL)
            data[i] = v != 0;
        else if (bits != 6)
            data[i] = (uint8_t)v; /* one element of 8 bits, or one byte of packed ones */
        else
            for (int b = 0; b < 6; b++)
                data[(6 * i + b) / 8] |= (uint8_t)((v >> b & 1) << (6 * i + b) % 8);
    }
}

bool typed_unpack(const Onnx__TensorProto *t, enum dtype dt, int64_t n, uint8_t *data, const char **why)
{
    int64_t have[FIELD_COUNT];
    field_counts(t, have);
    const enum typed_field field = typed_table[dt].field;
    const int per = typed_table[dt].per;
    const int64_t want = per < 0 ? n * -per : n / per + (n % per != 0);
    *why = "its values are in a data field of another type";
    for (int i = 0; i < FIELD_COUNT; i++)
        if (have[i] && i != (int)field)
            return false;
    *why = "the number of values does not fit its dims";
    if (have[field] != want)
        return false;
    const size_t size = (size_t)want;
    if (!want)
        return true;
    switch (field) {
    case FIELD_FLOAT: memcpy(data, t->float_data, 4 * size); break;
    case FIELD_DOUBLE: memcpy(data, t->double_data, 8 * size); break;
    case FIELD_INT64: memcpy(data, t->int64_data, 8 * size); break;
    case FIELD_INT32: unpack_int32(t, dt, data); break;
    case FIELD_UINT64:
        for (size_t i = 0; i < size; i++)
            if (dt == DT_U64)
                memcpy(data + 8 * i, &t->uint64_data[i], 8);
            else
                memcpy(data + 4 * i, &(uint32_t){(uint32_t)t->uint64_data[i]}, 4);
        break;
    case FIELD_STRING:
    case FIELD_COUNT: break; /* strings are no bytes: tensor.c */
    }
    return true;
}
