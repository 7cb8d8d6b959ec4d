/* The leaves of the text form: names, numbers, types, constant tensors, the side file of blobs. */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ir/text_priv.h"
#include "kernels/tensor.h"

const char *const layout_names[LAYOUT_COUNT] = {
    [LAYOUT_ND] = "nd",
    [LAYOUT_NZ] = "nz",
    [LAYOUT_NZ_T] = "nz_t",
    [LAYOUT_NC1HWC0] = "nc1hwc0",
    [LAYOUT_FRACTAL_Z] = "fractal_z",
    [LAYOUT_NHWC] = "nhwc",
    [LAYOUT_CACHE] = "cache",
};
const char *const place_names[4] = {
    [PLACE_NONE] = "anywhere", [PLACE_NPU] = "npu", [PLACE_HOST] = "host", [PLACE_FREE] = "free"};

static void text_bytes(struct text *t, const char *s, int64_t len)
{
    for (int64_t i = 0; i < len; i++)
        vec_push(t->a, &t->buf, s[i]);
}

void text_put(struct text *t, const char *s)
{
    text_bytes(t, s, (int64_t)strlen(s));
}

void text_printf(struct text *t, const char *fmt, ...)
{
    char line[256];
    va_list ap;
    va_start(ap, fmt);
    const int n = vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    NPUC_ASSERT(n >= 0 && n < (int)sizeof line); /* short pieces only */
    text_bytes(t, line, n);
}

void text_string(struct text *t, const char *s, int64_t len)
{
    text_put(t, "\"");
    for (int64_t i = 0; i < len; i++) {
        const unsigned char c = (unsigned char)s[i];
        if (c == '"' || c == '\\')
            text_printf(t, "\\%c", c);
        else if (c == '\n')
            text_put(t, "\\n");
        else if (c < 0x20 || c == 0x7f)
            text_printf(t, "\\x%02x", c);
        else
            vec_push(t->a, &t->buf, (char)c);
    }
    text_put(t, "\"");
}

void text_name(struct text *t, const struct ir_ctx *cx, sym s)
{
    const char *name = str_text(&cx->strings, s);
    const int64_t len = str_len(&cx->strings, s);
    bool bare = len > 0;
    for (int64_t i = 0; i < len; i++)
        bare = bare && is_bare_char(name[i]);
    if (bare)
        text_bytes(t, name, len);
    else
        text_string(t, name, len);
}

/* ---- numbers: the shortest text that reads back as the same value */

void text_float(struct text *t, float f)
{
    char s[32];
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(s, sizeof s, "%.*g", digits, (double)f);
        if (strtof(s, NULL) == f)
            break;
    }
    text_put(t, isnan(f) ? "nan" : s);
}

static void text_double(struct text *t, double d)
{
    char s[40];
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(s, sizeof s, "%.*g", digits, d);
        if (strtod(s, NULL) == d)
            break;
    }
    text_put(t, isnan(d) ? "nan" : s);
}

/* ---- types */

static void text_layout(struct text *t, const struct ir_ctx *cx, const struct layout *l)
{
    if (l->kind == LAYOUT_ND)
        return;
    text_printf(t, " %s", layout_names[l->kind]);
    if (l->kind == LAYOUT_CACHE) {
        text_printf(t, "(%d, ", l->axis);
        text_put(t, expr_text(&cx->exprs, l->capacity, t->a));
        if (l->page)
            text_printf(t, ", %" PRId64, l->page);
        if (l->ring)
            text_printf(t, ", %" PRId64 ", %" PRId64, l->ring, l->window);
        text_put(t, ")");
    } else if (l->c0) {
        text_printf(t, "(%d)", l->c0);
    }
}

static void text_quant(struct text *t, const struct quant *q)
{
    if (!q)
        return;
    text_printf(t, " quant(%s, %d, %" PRId64 "%s)", dtype_table[q->scale_dtype].name, q->axis, q->block,
                q->has_zero ? ", zero" : "");
}

void text_type(struct text *t, const struct ir_ctx *cx, const struct type *type)
{
    switch (type->kind) {
    case TYPE_NONE:
        text_put(t, "none");
        if (type->dtype != DT_NONE)
            text_printf(t, " %s", dtype_table[type->dtype].name);
        return;
    case TYPE_SEQUENCE:
    case TYPE_OPTIONAL:
        text_put(t, type->kind == TYPE_SEQUENCE ? "seq(" : "opt(");
        text_type(t, cx, type->elem);
        text_put(t, ")");
        return;
    case TYPE_TENSOR: break;
    }
    text_put(t, type->dtype == DT_NONE ? "any" : dtype_table[type->dtype].name);
    text_put(t, "[");
    if (type->rank < 0)
        text_put(t, "*");
    for (int i = 0; i < type->rank; i++) {
        text_put(t, i ? "," : "");
        text_put(t, type->dims[i] ? expr_text(&cx->exprs, type->dims[i], t->a) : "?");
    }
    text_put(t, "]");
    text_layout(t, cx, &type->layout);
    text_quant(t, type->quant);
}

const char *type_text(struct ir_ctx *cx, const struct type *t)
{
    struct text out = {.a = &cx->scratch};
    text_type(&out, cx, t);
    vec_push(out.a, &out.buf, '\0');
    return out.buf.data;
}

/* ---- constant tensors */

static void text_element(struct text *t, const struct k_tensor *k, int64_t i)
{
    if (k->dtype == DT_F64)
        text_double(t, k_get_f64(k, i));
    else if (dtype_is_float(k->dtype))
        text_float(t, (float)k_get_f64(k, i));
    else if (dtype_table[k->dtype].cls == DTC_UINT)
        text_printf(t, "%" PRIu64, (uint64_t)k_get_i64(k, i));
    else
        text_printf(t, "%" PRId64, k_get_i64(k, i));
}

/* Are the bytes those that reading the elements' text gives? Not so for NaNs with a payload, bools other than 0 and 1,
 * padding bits. */
static bool is_plain(const struct k_tensor *k)
{
    static const enum dtype plain[] = {DT_F32, DT_F64, DT_F16, DT_BF16, DT_I64, DT_I32, DT_I16,
                                       DT_I8,  DT_U64, DT_U32, DT_U16,  DT_U8,  DT_BOOL};
    bool known = false;
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
        known = known || plain[i] == k->dtype;
    uint64_t copy[IR_INLINE_BYTES / 8] = {0};
    int64_t size;
    if (!known || !dtype_bytes(k->dtype, k_count(k), &size) || size != k->size || size > IR_INLINE_BYTES)
        return false;
    struct k_tensor to = *k;
    to.data = copy;
    for (int64_t i = 0; i < k_count(k); i++) {
        const double real = dtype_is_float(k->dtype) ? k_get_f64(k, i) : 0;
        if (dtype_is_float(k->dtype))
            k_set_f64(&to, i, isnan(real) ? (double)NAN : real);
        else
            k_set_i64(&to, i, k_get_i64(k, i));
    }
    return k->size == 0 || memcmp(copy, k->data, (size_t)size) == 0;
}

static void text_inline(struct text *t, const struct ir_ctx *cx, const struct type *type, const struct blob *b)
{
    struct k_tensor k;
    if (blob_tensor(cx, type, b, &k) && is_plain(&k)) {
        text_put(t, "[");
        for (int64_t i = 0; i < k_count(&k); i++) {
            text_put(t, i ? ", " : "");
            text_element(t, &k, i);
        }
        text_put(t, "]");
        return;
    }
    text_put(t, "x\"");
    for (int64_t i = 0; i < b->size; i++)
        text_printf(t, "%02x", ((const uint8_t *)b->data)[i]);
    text_put(t, "\"");
}

static void text_strings(struct text *t, const struct k_string *s, int64_t n)
{
    text_put(t, "[");
    for (int64_t i = 0; i < n; i++) {
        text_put(t, i ? ", " : "");
        text_string(t, s[i].text, s[i].len);
    }
    text_put(t, "]");
}

void text_tensor(struct text *t, const struct ir_ctx *cx, const struct type *type, const struct blob *b)
{
    text_type(t, cx, type);
    const char *origin = str_text(&cx->strings, b->origin);
    const int64_t origin_len = str_len(&cx->strings, b->origin);
    const bool small = b->size <= IR_INLINE_BYTES && (b->data || b->size == 0);
    text_put(t, " ");
    if (type->dtype == DT_STRING && b->data)
        text_strings(t, b->data, type_const_count(cx, type));
    else if (small)
        text_inline(t, cx, type, b);
    else {
        const uint64_t hash = b->data ? map_hash_bytes(b->data, b->size) : b->hash;
        if (hash)
            text_printf(t, "blob(%016" PRIx64 ", %" PRId64 ")", hash, b->size);
        else
            text_printf(t, "blob(none, %" PRId64 ")", b->size);
    }
    if (origin_len) {
        text_put(t, " from ");
        text_string(t, origin, origin_len);
    }
}

/* ---- the side file: records of hash, size, bytes, each aligned to 64 bytes */

struct blob_file {
    struct arena *a;
    struct map seen;
    VEC(uint8_t) bytes;
};

static void blob_file_pad(struct blob_file *f)
{
    while (f->bytes.len % 64)
        vec_push(f->a, &f->bytes, 0);
}

static void blob_file_add(struct blob_file *f, const struct attr *attr)
{
    const struct blob *b = attr->v.t.blob;
    if (!b->data || b->size <= IR_INLINE_BYTES || attr->v.t.type->dtype == DT_STRING)
        return;
    const uint64_t head[2] = {map_hash_bytes(b->data, b->size), (uint64_t)b->size};
    if (map_find(&f->seen, head[0]))
        return;
    map_put(&f->seen, head[0], 1);
    blob_file_pad(f);
    for (size_t i = 0; i < sizeof head; i++)
        vec_push(f->a, &f->bytes, (uint8_t)(head[i / 8] >> (i % 8 * 8)));
    blob_file_pad(f);
    for (int64_t i = 0; i < b->size; i++)
        vec_push(f->a, &f->bytes, ((const uint8_t *)b->data)[i]);
}

static void blob_file_graph(struct blob_file *f, const struct graph *g)
{
    for_each_node (n, g) {
        for (int i = 0; i < op_table[n->op]->n_attrs; i++)
            if (n->attrs[i].kind == ATTR_TENSOR)
                blob_file_add(f, &n->attrs[i]);
        for_each_region(r, n) blob_file_graph(f, r);
    }
}

void ir_blobs_print(const struct module *m, struct arena *a, const uint8_t **data, int64_t *size)
{
    struct blob_file f = {.a = a};
    map_init(&f.seen, a);
    for (int64_t i = 0; i < m->funcs.len; i++)
        blob_file_graph(&f, m->funcs.data[i]);
    blob_file_pad(&f);
    *data = f.bytes.data;
    *size = f.bytes.len;
}

static uint64_t read_u64(const uint8_t *p)
{
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

enum npuc_status ir_blobs_open(struct ir_ctx *cx, const uint8_t *data, int64_t size, struct ir_blobs *b)
{
    *b = (struct ir_blobs){.data = data, .size = size};
    map_init(&b->by_hash, &cx->arena);
    for (int64_t at = 0; at < size;) {
        const int64_t left = size - at;
        const uint64_t len = left >= 64 ? read_u64(data + at + 8) : UINT64_MAX;
        if (len > (uint64_t)left - 64)
            return diag_error_text(cx->diag, &(struct diag_loc){.file = cx->file, .index = -1}, D_TENSOR_DATA,
                                   "the side file of blobs ends within a record");
        map_put(&b->by_hash, read_u64(data + at), (uint64_t)at);
        at += 64 + ((int64_t)len + 63) / 64 * 64;
    }
    return NPUC_OK;
}

const void *ir_blobs_find(const struct ir_blobs *b, uint64_t hash, int64_t size)
{
    const uint64_t *at = b ? map_find(&b->by_hash, hash) : NULL;
    if (!at || (int64_t)read_u64(b->data + *at + 8) != size)
        return NULL;
    return b->data + *at + 64;
}
