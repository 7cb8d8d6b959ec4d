/* A file with one TensorProto: samples of inputs and outputs as ONNX keeps them. */
#include <string.h>

#include "base/size.h"
#include "frontend/priv.h"
#include "frontend/scan.h"

static enum npuc_status fail(struct diag *d, const char *path, const char *why)
{
    const struct diag_loc loc = {.file = path, .index = -1};
    return diag_error(d, &loc, D_INPUT_FILE, why);
}

static enum npuc_status read_values(struct arena *a, const char *path, struct diag *d, const Onnx__TensorProto *t,
                                    const struct file_map *map, struct onnx_tensor *out)
{
    int64_t n;
    out->dtype = dtype_from_onnx(t->has_data_type ? t->data_type : 0);
    if (out->dtype == DT_NONE || out->dtype == DT_STRING)
        return fail(d, path, "the tensor's data_type is missing, unknown or STRING");
    if (t->n_dims > IR_MAX_RANK || !dims_count(t->dims, (int64_t)t->n_dims, &n) ||
        !dtype_bytes(out->dtype, n, &out->size))
        return fail(d, path, "the tensor's dims are too many, negative or overflow");
    out->rank = (int)t->n_dims;
    out->dims = arena_copy(a, t->n_dims ? t->dims : &(int64_t){0}, (int64_t)(t->n_dims ? t->n_dims : 1) * 8);
    if (t->data_location == 1 || t->n_external_data)
        return fail(d, path, "the tensor's data is in another file; expected it here");
    /* The file bounds what is allocated: even 2-bit elements take a byte for four of them. */
    if (out->size > 8 * map->size)
        return fail(d, path, "the tensor's dims need more data than the file has");
    uint8_t *data = arena_alloc(a, out->size + 1, 64);
    memset(data, 0, (size_t)out->size);
    out->data = data;
    const char *why = "raw_data has another size than its dims and type need";
    if (!t->has_raw_offset)
        return typed_unpack(t, out->dtype, n, data, &why) ? NPUC_OK : fail(d, path, why);
    if ((int64_t)t->raw_size != out->size)
        return fail(d, path, why);
    if (out->size)
        memcpy(data, map->data + t->raw_offset, (size_t)out->size);
    return NPUC_OK;
}

enum npuc_status onnx_read_tensor(struct arena *a, const char *path, struct diag *d, struct onnx_tensor *out)
{
    struct file_map map;
    enum npuc_status s = file_map_open(&map, path, d);
    if (s != NPUC_OK)
        return s;
    struct arena tmp;
    arena_init(&tmp, a->hooks);
    const struct scan_limits limits = {SCAN_MAX_DEPTH, (INT64_C(16) << 20) + 32 * map.size};
    struct scan_skeleton sk;
    s = scan_message(map.data, map.size, SCAN_TENSOR, &limits, &tmp, d, path, &sk);
    ProtobufCMessage *msg = NULL;
    if (s == NPUC_OK)
        s = skeleton_unpack(&onnx__tensor_proto__descriptor, &sk, &tmp, d, path, &msg);
    if (s == NPUC_OK)
        s = read_values(a, path, d, (const Onnx__TensorProto *)(const void *)msg, &map, out);
    arena_free(&tmp);
    file_map_close(&map);
    return s;
}
