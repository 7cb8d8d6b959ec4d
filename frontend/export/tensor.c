/* Types and constants as ONNX writes them. */
#include <string.h>

#include "frontend/export/priv.h"
#include "ir/eval.h"

enum { EXTERNAL_LEAST = 1024, EXTERNAL_ALIGN = 4096 };

/* Sizes that npuc invented say nothing to others. */
static bool is_invented(const struct ir_ctx *cx, expr e)
{
    const struct expr_pool *p = &cx->exprs;
    for (int32_t i = 0; i < (int32_t)p->symbols.len; i++)
        if (expr_uses_symbol(p, e, i) && str_text(&cx->strings, p->symbols.data[i].name)[0] == '_')
            return true;
    return false;
}

static struct pb write_shape(struct writer *w, const struct type *t)
{
    struct pb shape = {.arena = w->arena};
    for (int i = 0; i < t->rank; i++) {
        struct pb dim = {.arena = w->arena};
        int64_t size;
        if (t->dims && t->dims[i] && expr_is_const(&w->cx->exprs, t->dims[i], &size))
            pb_int(&dim, 1, size);
        else if (t->dims && t->dims[i] && !is_invented(w->cx, t->dims[i]))
            pb_text(&dim, 2, expr_text(&w->cx->exprs, t->dims[i], w->arena));
        pb_message(&shape, 1, &dim);
    }
    return shape;
}

struct pb write_type(struct writer *w, const struct type *t)
{
    struct pb out = {.arena = w->arena}, inner = {.arena = w->arena};
    if (t->kind == TYPE_SEQUENCE || t->kind == TYPE_OPTIONAL) {
        const struct pb elem = write_type(w, t->elem);
        pb_message(&inner, 1, &elem);
        pb_message(&out, t->kind == TYPE_SEQUENCE ? 4 : 9, &inner);
        return out;
    }
    pb_int(&inner, 1, dtype_table[t->dtype].onnx);
    if (t->kind == TYPE_TENSOR && t->rank >= 0) {
        const struct pb shape = write_shape(w, t);
        pb_message(&inner, 2, &shape);
    }
    pb_message(&out, 1, &inner);
    return out;
}

struct pb write_value_info(struct writer *w, sym name, const struct type *t)
{
    struct pb out = {.arena = w->arena};
    const struct pb type = write_type(w, t);
    pb_bytes(&out, 1, str_text(&w->cx->strings, name), str_len(&w->cx->strings, name));
    pb_message(&out, 2, &type);
    return out;
}

static void entry(struct pb *tensor, const char *key, const char *value)
{
    struct pb e = {.arena = tensor->arena};
    pb_text(&e, 1, key);
    pb_text(&e, 2, value);
    pb_message(tensor, 13, &e);
}

static void write_external(struct writer *w, const struct blob *b, struct pb *out)
{
    const int64_t at = (w->external_size + EXTERNAL_ALIGN - 1) / EXTERNAL_ALIGN * EXTERNAL_ALIGN;
    const struct external x = {b->data, at, b->size};
    vec_push(w->arena, &w->external, x);
    w->external_size = at + b->size;
    entry(out, "location", w->data_name);
    entry(out, "offset", arena_printf(w->arena, "%lld", (long long)at));
    entry(out, "length", arena_printf(w->arena, "%lld", (long long)b->size));
    pb_int(out, 14, 1);
}

enum npuc_status write_tensor(struct writer *w, sym name, const struct type *t, const struct blob *b, struct pb *out)
{
    *out = (struct pb){.arena = w->arena};
    const struct diag_loc loc = {.file = w->cx->file, .node = str_text(&w->cx->strings, name), .index = -1};
    int64_t count = 1;
    for (int i = 0; i < t->rank; i++) {
        int64_t size = 0;
        if (!expr_is_const(&w->cx->exprs, t->dims[i], &size) || t->layout.kind != LAYOUT_ND)
            return diag_error_text(w->cx->diag, &loc, D_UNSUPPORTED, "a constant of this layout has no form in ONNX");
        pb_int(out, 1, size);
        count *= size; /* fits: the data are there */
    }
    if (!b->data && b->size > 0)
        return diag_error_text(w->cx->diag, &loc, D_UNSUPPORTED,
                               "the constant's data file is absent; a model is written with its data");
    pb_int(out, 2, dtype_table[t->dtype].onnx);
    if (name)
        pb_bytes(out, 8, str_text(&w->cx->strings, name), str_len(&w->cx->strings, name));
    if (t->dtype == DT_STRING) {
        const struct k_string *s = b->data;
        for (int64_t i = 0; i < count; i++)
            pb_bytes(out, 6, s[i].text, s[i].len);
    } else if (w->data_name && b->size >= EXTERNAL_LEAST) {
        write_external(w, b, out);
    } else {
        pb_bytes(out, 9, b->data, b->size);
    }
    return NPUC_OK;
}
