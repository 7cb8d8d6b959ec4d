#include "tools/tensor_io.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/size.h"
#include "frontend/onnx.h"
#include "tools/npz.h"

static enum npuc_status bad(struct diag *d, const char *path, const char *what)
{
    return diag_error(d, &(struct diag_loc){.file = path, .index = -1}, D_INPUT_FILE, what);
}

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && strcmp(s + n - m, suffix) == 0;
}

static enum npuc_status read_pb(const char *path, struct arena *a, struct diag *d, struct k_tensor *out)
{
    struct onnx_tensor t;
    enum npuc_status s = onnx_read_tensor(a, path, d, &t);
    if (s != NPUC_OK)
        return s;
    if (t.rank > K_MAX_RANK)
        return bad(d, path, "the tensor has more than 16 axes");
    *out = (struct k_tensor){.dtype = t.dtype, .rank = t.rank, .data = (void *)(uintptr_t)t.data, .size = t.size};
    memcpy(out->dims, t.dims, (size_t)t.rank * sizeof *t.dims);
    return NPUC_OK;
}

static bool parse_shape(const char *s, struct k_tensor *out)
{
    out->rank = 0;
    while (*s) {
        char *end;
        long long v = strtoll(s, &end, 10);
        if (end == s || v < 0 || out->rank == K_MAX_RANK || (*end && *end != 'x'))
            return false;
        out->dims[out->rank++] = v;
        s = *end ? end + 1 : end;
    }
    return true;
}

/* FILE:dtype:AxB */
static enum npuc_status read_raw(const char *spec, struct arena *a, struct diag *d, struct k_tensor *out)
{
    const char *shape = strrchr(spec, ':'), *type = shape;
    while (type && type > spec && *--type != ':')
        ;
    if (!shape || !type || type == spec || *type != ':')
        return bad(d, spec,
                   "unknown kind of file: expected .npy, .npz, .pb, or raw bytes as FILE:TYPE:AxB (x.bin:f32:1x8)");
    const char *path = arena_strndup(a, spec, type - spec);
    int64_t count = 1, size;
    out->dtype = dtype_from_name(type + 1, shape - type - 1);
    if (out->dtype == DT_NONE || out->dtype == DT_STRING || !parse_shape(shape + 1, out))
        return bad(d, spec, "raw bytes need a known type and a shape: FILE:f32:1x8");
    for (int i = 0; i < out->rank; i++)
        if (!size_mul(count, out->dims[i], &count))
            return bad(d, spec, "the shape is too large");
    struct file_map m;
    enum npuc_status s = file_map_open(&m, path, d);
    if (s != NPUC_OK)
        return s;
    if (!dtype_bytes(out->dtype, count, &size) || size != m.size) {
        s = bad(
            d, path,
            arena_printf(a, "%lld bytes, expected %lld for this type and shape", (long long)m.size, (long long)size));
    } else {
        out->data = arena_copy(a, size ? (const void *)m.data : "", size ? size : 1);
        out->size = size;
    }
    file_map_close(&m);
    return s;
}

enum npuc_status tensor_read(const char *spec, const char *name, struct arena *a, struct diag *d, struct k_tensor *out)
{
    *out = (struct k_tensor){.dtype = DT_NONE};
    if (ends_with(spec, ".npy"))
        return npy_read(spec, a, d, out);
    if (ends_with(spec, ".npz"))
        return npz_read(spec, name, a, d, out);
    if (ends_with(spec, ".pb"))
        return read_pb(spec, a, d, out);
    const char *member = strstr(spec, ".npz:");
    if (member)
        return npz_read(arena_strndup(a, spec, member + 4 - spec), member + 5, a, d, out);
    return read_raw(spec, a, d, out);
}

/* ---- TensorProto ---- */

static void put_varint(struct file_writer *w, uint64_t v)
{
    uint8_t bytes[10];
    int n = 0;
    do {
        bytes[n] = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
        v >>= 7;
        n++;
    } while (v);
    file_writer_put(w, bytes, n);
}

/* Fields: dims = 1, data_type = 2, string_data = 6, name = 8, raw_data = 9. */
static void put_tensor_proto(struct file_writer *w, const char *name, const struct k_tensor *t)
{
    for (int i = 0; i < t->rank; i++) {
        put_varint(w, 1 << 3);
        put_varint(w, (uint64_t)t->dims[i]);
    }
    put_varint(w, 2 << 3);
    put_varint(w, (uint64_t)dtype_table[t->dtype].onnx);
    put_varint(w, 8 << 3 | 2);
    put_varint(w, strlen(name));
    file_writer_put(w, name, (int64_t)strlen(name));
    for (int64_t i = 0; t->dtype == DT_STRING && i < k_count(t); i++) {
        const struct k_string s = ((const struct k_string *)t->data)[i];
        put_varint(w, 6 << 3 | 2);
        put_varint(w, (uint64_t)s.len);
        file_writer_put(w, s.text, s.len);
    }
    if (t->dtype == DT_STRING)
        return;
    put_varint(w, 9 << 3 | 2);
    put_varint(w, (uint64_t)t->size);
    file_writer_put(w, t->data, t->size);
}

enum npuc_status tensor_write(const char *path, enum tensor_format format, const char *name, const struct k_tensor *t,
                              struct arena *a, struct diag *d)
{
    struct file_writer *w;
    if (format == TENSOR_NPY)
        return npy_write(path, t, d);
    w = ARENA_NEW(a, struct file_writer);
    enum npuc_status s = file_writer_open(w, path, d);
    if (s != NPUC_OK)
        return s;
    put_tensor_proto(w, name, t);
    s = file_writer_commit(w, d);
    if (s != NPUC_OK)
        file_writer_abort(w);
    return s;
}
