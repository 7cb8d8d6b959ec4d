/* TensorProto -> type and blob.
 *
 * Bytes in the model file (raw_data) and in data files are used in place. Only where the file aligns them badly for the
 * element type are they copied, so that every consumer may read typed pointers; exporters align data files, and
 * raw_data is small where it matters. Typed data fields are unpacked into the module's arena. Booleans other than 0 and
 * 1 are normalised in a copy. */
#include <inttypes.h>
#include <string.h>

#include "base/size.h"
#include "frontend/priv.h"

bool dims_count(const int64_t *dims, int64_t rank, int64_t *n)
{
    *n = 1;
    bool empty = false;
    for (int64_t i = 0; i < rank; i++) {
        if (dims[i] == 0)
            empty = true; /* the others must still make sense */
        else if (!size_mul(*n, dims[i], n))
            return false;
    }
    if (empty)
        *n = 0;
    return true;
}

static enum npuc_status read_type(struct import *im, const Onnx__TensorProto *t, sym name, const struct type **type,
                                  int64_t *n)
{
    const enum dtype dt = dtype_from_onnx(t->has_data_type ? t->data_type : 0);
    if (dt == DT_NONE)
        return tensor_fail(im, name, "data_type is %d, expected one of ONNX's element types (1 to 28)", t->data_type);
    if (t->n_dims > IR_MAX_RANK)
        return name_fail(im, name, D_LIMIT, "tensor has %zu dims, the limit is %d", t->n_dims, IR_MAX_RANK);
    expr dims[IR_MAX_RANK];
    for (size_t i = 0; i < t->n_dims; i++) {
        if (t->dims[i] < 0)
            return tensor_fail(im, name, "dim %zu is %" PRId64 ", expected at least 0", i, t->dims[i]);
        dims[i] = expr_const(&im->cx->exprs, t->dims[i]);
    }
    int64_t size;
    if (!dims_count(t->dims, (int64_t)t->n_dims, n) || !dtype_bytes(dt, *n, &size))
        return tensor_fail(im, name, "the size of its dims overflows");
    *type = type_tensor(im->cx, dt, (int)t->n_dims, dims);
    return NPUC_OK;
}

static enum npuc_status read_strings(struct import *im, const Onnx__TensorProto *t, sym name, int64_t n,
                                     struct blob *blob)
{
    if ((int64_t)t->n_string_data != n || t->has_raw_offset || t->data_location == 1)
        return tensor_fail(im, name,
                           "a string tensor of %" PRId64 " elements needs as many entries of string_data, found %zu", n,
                           t->n_string_data);
    struct str_entry *at = ARENA_ARRAY(&im->m->arena, struct str_entry, n ? n : 1);
    for (int64_t i = 0; i < n; i++) {
        const ProtobufCBinaryData s = t->string_data[i];
        at[i].len = (int64_t)s.len;
        at[i].text = arena_strndup(&im->m->arena, s.len ? (const char *)s.data : "", at[i].len);
    }
    blob->data = at;
    blob->size = n * (int64_t)sizeof *at;
    return NPUC_OK;
}

static int64_t dtype_align(enum dtype dt)
{
    const int size = dtype_size(dt);
    return size > 8 ? 8 : size > 1 ? size : 1;
}

/* In place if the consumer may read it so. */
static const void *usable(struct import *im, enum dtype dt, const uint8_t *data, int64_t size)
{
    bool in_place = (uintptr_t)data % (uintptr_t)dtype_align(dt) == 0;
    if (dt == DT_BOOL)
        for (int64_t i = 0; in_place && i < size; i++)
            in_place = data[i] <= 1;
    if (in_place)
        return data;
    uint8_t *copy = arena_alloc(&im->m->arena, size, 64);
    memcpy(copy, data, (size_t)size);
    if (dt == DT_BOOL)
        for (int64_t i = 0; i < size; i++)
            copy[i] = copy[i] != 0;
    return copy;
}

static enum npuc_status read_raw(struct import *im, const Onnx__TensorProto *t, sym name, enum dtype dt,
                                 struct blob *blob)
{
    const int64_t at = (int64_t)t->raw_offset, size = (int64_t)t->raw_size;
    NPUC_ASSERT(size_in(at, size, im->model->map.size)); /* the scan wrote these */
    if (typed_any(t))
        return tensor_fail(im, name, "has both raw_data and a typed data field");
    if (size != blob->size)
        return tensor_fail(im, name, "raw_data has %" PRId64 " bytes, its dims and type %s need %" PRId64, size,
                           dtype_table[dt].name, blob->size);
    blob->data = usable(im, dt, im->model->map.data + at, size);
    return NPUC_OK;
}

static enum npuc_status read_typed(struct import *im, const Onnx__TensorProto *t, sym name, enum dtype dt, int64_t n,
                                   struct blob *blob)
{
    /* Entries bound the memory: 16 bytes of data come from at least one entry. */
    const int64_t entries =
        (int64_t)(t->n_float_data + t->n_int32_data + t->n_int64_data + t->n_double_data + t->n_uint64_data);
    if (blob->size / 16 > entries)
        return tensor_fail(im, name, "its dims need %" PRId64 " bytes of data, the file has %s", blob->size,
                           entries ? "fewer values" : "none");
    uint8_t *data = arena_alloc(&im->m->arena, blob->size + 1, 64);
    memset(data, 0, (size_t)blob->size);
    const char *why;
    if (!typed_unpack(t, dt, n, data, &why))
        return tensor_fail(im, name, "%s (dims make %" PRId64 " elements of %s)", why, n, dtype_table[dt].name);
    blob->data = data;
    return NPUC_OK;
}

static enum npuc_status read_external(struct import *im, const Onnx__TensorProto *t, sym name, enum dtype dt,
                                      struct blob *blob)
{
    if (t->has_raw_offset || typed_any(t))
        return external_fail(im, name, "the tensor has data in the model file too");
    const uint8_t *data;
    const enum npuc_status s = external_data(im, t, name, blob->size, &data);
    if (s == NPUC_OK)
        blob->data = data ? usable(im, dt, data, blob->size) : NULL;
    return s;
}

enum npuc_status tensor_import(struct import *im, const Onnx__TensorProto *t, sym name, struct tensor_in *out)
{
    if (!name)
        name = bytes_sym(im, t->name);
    int64_t n;
    enum npuc_status s = read_type(im, t, name, &out->type, &n);
    if (s != NPUC_OK)
        return s;
    if (t->segment)
        return name_fail(im, name, D_UNSUPPORTED,
                         "tensor is a segment of a larger one; save the model with whole tensors");
    if (t->has_data_location && t->data_location != 0 && t->data_location != 1)
        return tensor_fail(im, name, "data_location is %d, expected 0 (default) or 1 (external)", t->data_location);
    const enum dtype dt = out->type->dtype;
    struct blob *blob = ARENA_NEW(&im->m->arena, struct blob);
    out->blob = blob;
    blob->origin = name;
    if (dt == DT_STRING)
        return read_strings(im, t, name, n, blob);
    if (!dtype_bytes(dt, n, &blob->size))
        return tensor_fail(im, name, "the size of its dims overflows");
    if (t->data_location == 1)
        return read_external(im, t, name, dt, blob);
    if (t->has_raw_offset)
        return read_raw(im, t, name, dt, blob);
    return read_typed(im, t, name, dt, n, blob);
}
