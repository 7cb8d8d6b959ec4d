#include "quant/store.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"

/* Arrays of a node; bytes of a header's entry beside the name; bytes that JSON needs for a byte of a name. */
enum { PARTS = 5, ENTRY = 160, ESCAPED = 6, MAX_NAME = 4096, ALIGN = 64 };

static const struct {
    const char *name;
    enum dtype dtype;
} types[] = {{"F32", DT_F32}, {"F16", DT_F16}, {"BF16", DT_BF16}, {"I16", DT_I16}, {"I8", DT_I8}, {"U8", DT_U8}};

static enum dtype type_of(const char *name)
{
    for (int64_t i = 0; name && i < NPUC_ARRAY_LEN(types); i++)
        if (strcmp(types[i].name, name) == 0)
            return types[i].dtype;
    return DT_NONE;
}

static const char *name_of(enum dtype t)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(types); i++)
        if (types[i].dtype == t)
            return types[i].name;
    return NULL;
}

/* ---- reading */

static enum npuc_status wrong(const struct quant_store *s, struct diag *d, const char *what)
{
    return diag_error_text(d, &(struct diag_loc){.file = s->path, .index = -1}, D_INPUT_FILE, what);
}

/* An entry of the header; data offsets count from the first byte behind it. */
static bool read_entry(const struct quant_store *s, const json_t *e, int64_t base, struct k_tensor *t)
{
    const json_t *shape = json_object_get(e, "shape"), *span = json_object_get(e, "data_offsets");
    const int64_t from = json_integer_value(json_array_get(span, 0)), to = json_integer_value(json_array_get(span, 1));
    int64_t count = 1;
    *t = (struct k_tensor){.dtype = type_of(json_string_value(json_object_get(e, "dtype")))};
    if (t->dtype == DT_NONE || !json_is_array(shape) || json_array_size(shape) > K_MAX_RANK ||
        json_array_size(span) != 2)
        return false;
    t->rank = (int)json_array_size(shape);
    for (int i = 0; i < t->rank; i++) {
        t->dims[i] = json_integer_value(json_array_get(shape, (size_t)i));
        if (t->dims[i] < 0 || !size_mul(count, t->dims[i], &count))
            return false;
    }
    if (!dtype_bytes(t->dtype, count, &t->size) || from < 0 || to < from || to > s->map.size - base ||
        to - from != t->size)
        return false;
    t->data = (void *)(uintptr_t)(s->map.data + base + from);
    if ((uintptr_t)t->data % (uintptr_t)dtype_size(t->dtype) != 0) /* other writers do not pad their header */
        t->data = memcpy(arena_alloc(s->arena, t->size > 0 ? t->size : 1, 8), t->data, (size_t)t->size);
    return true;
}

static enum npuc_status read_header(struct quant_store *s, const json_t *header, int64_t base, struct diag *d)
{
    const char *name;
    json_t *entry;
    json_object_foreach((json_t *)(uintptr_t)header, name, entry)
    {
        struct k_tensor t;
        if (strcmp(name, "__metadata__") == 0)
            continue;
        if (!read_entry(s, entry, base, &t))
            return wrong(
                s, d,
                arena_printf(s->arena,
                             "tensor '%s': expected dtype F32, F16, BF16, I16, I8 or U8 and offsets within the "
                             "file that hold its shape",
                             str_escape(s->arena, name, (int64_t)strlen(name), 80)));
        vec_push(s->arena, &s->tensors, t);
        map_put(&s->by_name, str_internz(&s->names, name), (uint64_t)s->tensors.len);
    }
    return NPUC_OK;
}

enum npuc_status quant_store_open(struct quant_store *s, const char *path, struct arena *a, struct diag *d)
{
    *s = (struct quant_store){.arena = a, .path = arena_strndup(a, path, (int64_t)strlen(path))};
    strtab_init(&s->names, a);
    map_init(&s->by_name, a);
    enum npuc_status status = file_map_open(&s->map, path, d);
    if (status != NPUC_OK)
        return status;
    uint64_t len = 0;
    for (int i = 7; i >= 0 && s->map.size >= 8; i--)
        len = len << 8 | s->map.data[i];
    json_error_t why;
    json_t *header = s->map.size >= 8 && len <= (uint64_t)s->map.size - 8
                         ? json_loadb((const char *)s->map.data + 8, len, JSON_REJECT_DUPLICATES, &why)
                         : NULL;
    status =
        json_is_object(header)
            ? read_header(s, header, 8 + (int64_t)len, d)
            : wrong(s, d, "expected the layout of safetensors: 8 bytes of length and a JSON header; found neither");
    json_decref(header);
    if (status != NPUC_OK)
        quant_store_close(s);
    return status;
}

void quant_store_close(struct quant_store *s)
{
    if (s->map.base)
        file_map_close(&s->map);
    s->map = (struct file_map){0};
}

const struct k_tensor *quant_store_find(struct quant_store *s, const char *node, const char *part)
{
    char name[MAX_NAME];
    if (!s->map.data || snprintf(name, sizeof name, "%s.%s", node, part) >= (int)sizeof name)
        return NULL;
    const uint64_t *at = map_find(&s->by_name, str_internz(&s->names, name));
    return at ? &s->tensors.data[*at - 1] : NULL;
}

/* ---- writing */

enum npuc_status quant_store_create(struct quant_store_writer *w, const char *path, int64_t nodes, int64_t name_bytes,
                                    struct diag *d)
{
    static const char zeros[4096];
    *w = (struct quant_store_writer){.room = (nodes * ENTRY + ESCAPED * name_bytes) * PARTS + 64};
    const enum npuc_status s = file_writer_open(&w->file, path, d);
    if (s != NPUC_OK)
        return s;
    w->room = size_align(w->room + 8, ALIGN) - 8;
    w->header = json_object();
    w->open = true;
    for (int64_t left = w->room + 8; left > 0; left -= (int64_t)sizeof zeros)
        file_writer_put(&w->file, zeros, size_min(left, sizeof zeros));
    return NPUC_OK;
}

void quant_store_put(struct quant_store_writer *w, const char *node, const char *part, const struct k_tensor *t)
{
    char name[MAX_NAME];
    if (snprintf(name, sizeof name, "%s.%s", node, part) >= (int)sizeof name || !name_of(t->dtype)) {
        w->full = true;
        return;
    }
    file_writer_pad(&w->file, ALIGN);
    const int64_t from = w->file.pos - w->room - 8;
    json_t *shape = json_array();
    for (int i = 0; i < t->rank; i++)
        json_array_append_new(shape, json_integer(t->dims[i]));
    json_object_set_new(w->header, name,
                        json_pack("{s:s, s:o, s:[I, I]}", "dtype", name_of(t->dtype), "shape", shape, "data_offsets",
                                  (json_int_t)from, (json_int_t)(from + t->size)));
    file_writer_put(&w->file, t->data, t->size);
}

enum npuc_status quant_store_commit(struct quant_store_writer *w, struct diag *d)
{
    char *text = json_dumps(w->header, JSON_COMPACT);
    const int64_t len = text ? (int64_t)strlen(text) : 0;
    uint8_t *head = malloc((size_t)w->room + 8);
    enum npuc_status s = NPUC_OK;
    if (w->full || !text || !head || len > w->room)
        s = diag_error(d, NULL, D_HOST_MEMORY);
    if (s == NPUC_OK) {
        for (int i = 0; i < 8; i++)
            head[i] = (uint8_t)((uint64_t)w->room >> 8 * i);
        memcpy(head + 8, text, (size_t)len);
        memset(head + 8 + len, ' ', (size_t)(w->room - len));
        file_writer_patch(&w->file, 0, head, w->room + 8);
        s = file_writer_commit(&w->file, d);
    }
    free(head);
    free(text);
    quant_store_abort(w);
    return s;
}

void quant_store_abort(struct quant_store_writer *w)
{
    if (w->open)
        file_writer_abort(&w->file);
    json_decref(w->header);
    *w = (struct quant_store_writer){0};
}
