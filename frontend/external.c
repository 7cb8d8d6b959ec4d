/* External data: bytes of a tensor in another file. The file must lie in the model's folder (base/file.h has the
 * rules), and the range within the file; offsets and lengths are plain decimal numbers. A file is mapped once however
 * many tensors use it, and stays mapped with the model. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/size.h"
#include "frontend/priv.h"

struct entries {
    const ProtobufCBinaryData *location, *offset, *length;
};

static bool key_is(ProtobufCBinaryData key, const char *name)
{
    return key.len == strlen(name) && memcmp(key.data, name, key.len) == 0;
}

static enum npuc_status read_entries(struct import *im, const Onnx__TensorProto *t, sym name, struct entries *e)
{
    *e = (struct entries){NULL, NULL, NULL};
    for (size_t i = 0; i < t->n_external_data; i++) {
        const Onnx__StringStringEntryProto *kv = t->external_data[i];
        const ProtobufCBinaryData **slot = key_is(kv->key, "location") ? &e->location
                                           : key_is(kv->key, "offset") ? &e->offset
                                           : key_is(kv->key, "length") ? &e->length
                                                                       : NULL;
        if (key_is(kv->key, "basepath") && kv->value.len)
            return external_fail(im, name, "the key 'basepath' is not allowed; data files lie in the model's folder");
        if (!slot)
            continue; /* checksum and whatever else a producer notes */
        if (*slot)
            return external_fail(im, name, "the key '%.8s' is present twice", (const char *)kv->key.data);
        *slot = &kv->value;
    }
    if (!e->location || !e->location->len)
        return external_fail(im, name, "no location is given");
    if (memchr(e->location->data, 0, e->location->len) || e->location->len > 4000)
        return external_fail(im, name, "the location is no file name (a NUL byte, or more than 4000 bytes)");
    return NPUC_OK;
}

static bool read_decimal(const ProtobufCBinaryData *text, int64_t otherwise, int64_t *out)
{
    *out = otherwise;
    if (!text)
        return true;
    int64_t v = 0;
    for (size_t i = 0; i < text->len; i++) {
        const int digit = text->data[i] - '0';
        if (digit < 0 || digit > 9 || !size_mul(v, 10, &v) || !size_add(v, digit, &v))
            return false;
    }
    *out = v;
    return text->len > 0;
}

static void keep_line(void *user, const char *line)
{
    snprintf(user, 300, "%s", line);
}

static enum npuc_status open_file(struct import *im, sym name, sym location, struct onnx_file *f)
{
    const char *rel = sym_text(im, location), *why = NULL;
    const char *path = file_contained(&im->tmp, im->path, rel, &why);
    if (!path)
        return external_fail(im, name, "location '%s' is refused: %s", rel,
                             why ? why : "not inside the model's folder");
    struct stat st;
    if (lstat(path, &st) != 0 && (errno == ENOENT || errno == ENOTDIR)) {
        f->missing = true;
        return NPUC_OK;
    }
    char line[300] = "cannot open it";
    struct diag quiet;
    diag_init(&quiet, keep_line, line);
    const enum npuc_status s = file_map_open(&f->map, path, &quiet);
    return s == NPUC_OK ? NPUC_OK : external_fail(im, name, "data file: %s", line);
}

static enum npuc_status find_file(struct import *im, sym name, sym location, const struct onnx_file **out)
{
    struct onnx_model *model = im->model;
    for (int64_t i = model->files.len - 1; i >= 0; i--) {
        *out = &model->files.data[i];
        if ((*out)->location == location)
            return NPUC_OK;
    }
    struct onnx_file f = {.location = location};
    const enum npuc_status s = open_file(im, name, location, &f);
    if (s != NPUC_OK)
        return s;
    vec_push(&model->arena, &model->files, f);
    *out = &model->files.data[model->files.len - 1];
    return NPUC_OK;
}

enum npuc_status external_data(struct import *im, const Onnx__TensorProto *t, sym name, int64_t need,
                               const uint8_t **data)
{
    struct entries e;
    enum npuc_status s = read_entries(im, t, name, &e);
    if (s != NPUC_OK)
        return s;
    int64_t offset, length;
    if (!read_decimal(e.offset, 0, &offset))
        return external_fail(im, name, "offset is '%.*s', expected a decimal number",
                             (int)(e.offset->len < 40 ? e.offset->len : 40), (const char *)e.offset->data);
    if (!read_decimal(e.length, need, &length))
        return external_fail(im, name, "length is '%.*s', expected a decimal number",
                             (int)(e.length->len < 40 ? e.length->len : 40), (const char *)e.length->data);
    if (length != need)
        return external_fail(im, name, "length is %" PRId64 " bytes, its dims need %" PRId64, length, need);
    const sym location = bytes_sym(im, *e.location);
    const struct onnx_file *f;
    s = find_file(im, name, location, &f);
    if (s != NPUC_OK)
        return s;
    im->model->info.n_external++;
    im->model->info.external_size += need;
    *data = NULL;
    if (f->missing) {
        if (im->model->info.n_missing++ == 0) {
            im->model->info.missing_tensor =
                arena_strndup(&im->model->arena, sym_text(im, name), (int64_t)strlen(sym_text(im, name)));
            im->model->info.missing_file =
                arena_strndup(&im->model->arena, sym_text(im, location), (int64_t)strlen(sym_text(im, location)));
        }
        return im->o.allow_missing_data ? NPUC_OK
                                        : external_fail(im, name, "the data file '%s' does not exist beside the model",
                                                        sym_text(im, location));
    }
    if (!size_in(offset, length, f->map.size))
        return external_fail(
            im, name, "bytes %" PRId64 " to %" PRId64 " + %" PRId64 " are outside of '%s', which has %" PRId64 " bytes",
            offset, offset, length, sym_text(im, location), f->map.size);
    *data = length ? f->map.data + offset : (const uint8_t *)"";
    return NPUC_OK;
}
