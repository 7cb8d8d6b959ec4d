/* Reading and writing .npy: magic, version, a Python dictionary as text, the elements. */
#include "tools/npy.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/size.h"

NPUC_PRINTF(3, 4) static enum npuc_status npy_error(struct diag *d, const char *path, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return diag_error_text(d, &(struct diag_loc){.file = path, .index = -1}, D_INPUT_FILE, text);
}

/* The text after 'key': in the header, or NULL. */
static const char *header_value(const char *header, const char *key)
{
    char quoted[32];
    snprintf(quoted, sizeof quoted, "'%s'", key);
    const char *p = strstr(header, quoted);
    p = p ? strchr(p + strlen(quoted), ':') : NULL;
    if (!p)
        return NULL;
    p++;
    while (*p == ' ')
        p++;
    return p;
}

/* *width: code points per element of text, else 0. */
static bool parse_descr(const char *header, enum dtype *t, int64_t *width)
{
    const char *p = header_value(header, "descr");
    char descr[16] = {0};
    if (!p || *p != '\'')
        return false;
    for (int i = 0; i < 15 && p[i + 1] && p[i + 1] != '\''; i++)
        descr[i] = p[i + 1];
    *width = 0;
    if (descr[0] == '<' && descr[1] == 'U') {
        *width = strtoll(descr + 2, NULL, 10);
        *t = DT_STRING;
        return *width >= 1 && *width <= INT32_MAX;
    }
    *t = dtype_from_npy(descr);
    return *t != DT_NONE;
}

static bool parse_shape(const char *header, struct k_tensor *t, int64_t *count)
{
    const char *p = header_value(header, "shape");
    if (!p || *p++ != '(')
        return false;
    *count = 1;
    for (;;) {
        while (*p == ' ' || *p == ',')
            p++;
        if (*p == ')')
            return true;
        if (!isdigit((unsigned char)*p) || t->rank == K_MAX_RANK)
            return false;
        char *end;
        const int64_t dim = strtoll(p, &end, 10);
        if (!size_mul(*count, dim, count))
            return false;
        t->dims[t->rank++] = dim;
        p = end;
    }
}

/* Column-major bytes into row-major order. */
static void turn(const struct k_tensor *t, const uint8_t *from, uint8_t *to, int64_t count, int64_t elem)
{
    int64_t at[K_MAX_RANK] = {0};
    for (int64_t i = 0; i < count; i++) {
        int64_t row = 0;
        for (int k = 0; k < t->rank; k++)
            row = row * t->dims[k] + at[k];
        memcpy(to + row * elem, from + i * elem, (size_t)elem);
        for (int k = 0; k < t->rank && ++at[k] == t->dims[k]; k++)
            at[k] = 0;
    }
}

static enum npuc_status parse_header(const char *path, const uint8_t *bytes, int64_t size, struct arena *a,
                                     struct diag *d, int64_t *start, const char **header)
{
    static const char magic[] = "\x93NUMPY";
    if (size < 12 || memcmp(bytes, magic, 6) != 0)
        return npy_error(d, path, "not a .npy file");
    const bool wide = bytes[6] >= 2;
    int64_t len = bytes[8] | bytes[9] << 8;
    if (wide)
        len |= (int64_t)bytes[10] << 16 | (int64_t)bytes[11] << 24;
    *start = wide ? 12 : 10;
    if (!size_in(*start, len, size))
        return npy_error(d, path, "the header is cut short");
    *header = arena_strndup(a, (const char *)bytes + *start, len);
    *start += len;
    return NPUC_OK;
}

enum npuc_status npy_parse(const char *path, const uint8_t *bytes, int64_t size, struct arena *a, struct diag *d,
                           struct k_tensor *out)
{
    int64_t start = 0, count = 0, width = 0;
    const char *header = "";
    *out = (struct k_tensor){0};
    const enum npuc_status s = parse_header(path, bytes, size, a, d, &start, &header);
    if (s != NPUC_OK)
        return s;
    if (!parse_descr(header, &out->dtype, &width))
        return npy_error(d, path,
                         "element type is not supported; expected a little-endian number, bool or"
                         " text (U) type; arrays of objects are refused");
    if (!parse_shape(header, out, &count) || !dtype_bytes(out->dtype, count, &out->size))
        return npy_error(d, path, "broken shape in the header");
    if (out->dtype == DT_STRING && !strstr(header, "'fortran_order': True"))
        return npy_text_read(bytes + start, size - start, width, a, out)
                   ? NPUC_OK
                   : npy_error(d, path, "fewer bytes of text than its shape needs");
    if (out->dtype == DT_STRING)
        return npy_error(d, path, "text in column-major order");
    if (size - start < out->size)
        return npy_error(d, path, "%" PRId64 " bytes of data, expected %" PRId64, size - start, out->size);
    uint8_t *data = arena_alloc(a, out->size + 1, 64);
    out->data = data;
    const char *order = header_value(header, "fortran_order");
    if (order && strncmp(order, "True", 4) == 0)
        turn(out, bytes + start, data, count, dtype_size(out->dtype));
    else
        memcpy(data, bytes + start, (size_t)out->size);
    return NPUC_OK;
}

enum npuc_status npy_read(const char *path, struct arena *a, struct diag *d, struct k_tensor *out)
{
    struct file_map map;
    enum npuc_status s = file_map_open(&map, path, d);
    if (s != NPUC_OK)
        return s;
    s = npy_parse(path, map.data, map.size, a, d, out);
    file_map_close(&map);
    return s;
}

const char *npy_header(const struct k_tensor *t, struct arena *a, int64_t *len)
{
    const char *descr =
        t->dtype == DT_STRING ? arena_printf(a, "<U%" PRId64, npy_text_width(t)) : dtype_table[t->dtype].npy;
    if (!descr)
        return NULL;
    char dims[K_MAX_RANK * 24] = "";
    int n = 0;
    for (int i = 0; i < t->rank; i++)
        n += snprintf(dims + n, sizeof dims - (size_t)n, "%s%" PRId64 "%s", i ? " " : "", t->dims[i],
                      i + 1 < t->rank || t->rank == 1 ? "," : "");
    const char *dict = arena_printf(a, "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", descr, dims);
    const int64_t used = 10 + (int64_t)strlen(dict) + 1;
    *len = size_align(used, 64);
    char *header = arena_alloc(a, *len + 1, 1);
    memset(header, ' ', (size_t)*len);
    const int64_t text = *len - 10;
    const char head[10] = {'\x93', 'N', 'U', 'M', 'P', 'Y', 1, 0, (char)(text & 255), (char)(text >> 8)};
    memcpy(header, head, sizeof head);
    memcpy(header + 10, dict, strlen(dict));
    header[*len - 1] = '\n';
    return header;
}

enum npuc_status npy_write(const char *path, const struct k_tensor *t, struct diag *d)
{
    struct arena a;
    arena_init(&a, NULL);
    int64_t len;
    const char *header = npy_header(t, &a, &len);
    if (!header) {
        arena_free(&a);
        return npy_error(d, path, "numpy has no type %s", dtype_table[t->dtype].name);
    }
    struct file_writer *w = ARENA_NEW(&a, struct file_writer);
    enum npuc_status s = file_writer_open(w, path, d);
    if (s == NPUC_OK) {
        int64_t size;
        const void *data = npy_data(t, &a, &size);
        file_writer_put(w, header, len);
        file_writer_put(w, data, size);
        s = file_writer_commit(w, d);
    }
    arena_free(&a);
    return s;
}
