#include "tools/qdq.h"

#include <string.h>

#include "frontend/export/onnx_write.h"
#include "quant/codes.h"

static enum npuc_status run_passes(struct compilation *c, const struct pass_step *steps, int64_t n,
                                   const struct pass_options *o)
{
    const struct pass_run run = {.verify_each = c->options.verify_each};
    struct pass_ctx px;
    pass_ctx_init(&px, c->module, NULL);
    px.options.quantiser = o->quantiser;
    px.options.quant_reader = o->quant_reader;
    const enum npuc_status s = pass_run_all(&px, steps, n, &run);
    pass_ctx_free(&px);
    return s;
}

enum npuc_status qdq_export(struct compilation *c, const char *model, const char *out)
{
    static const struct pass_step steps[] = {{PASS_apply_recipe, NULL}, {PASS_dce, NULL}};
    enum npuc_status s = compilation_import(c, model);
    if (s == NPUC_OK)
        s = quant_recipe_read(&c->recipe, c->options.recipe, &c->arena, &c->diag);
    if (s != NPUC_OK)
        return s;
    c->quantiser = quant_recipe_quantiser(&c->recipe);
    s = run_passes(c, steps, NPUC_ARRAY_LEN(steps), &(struct pass_options){.quantiser = &c->quantiser});
    if (s == NPUC_OK)
        s = quant_recipe_check_used(&c->recipe, &c->diag);
    return s == NPUC_OK ? onnx_write(c->module, out, NULL) : s;
}

/* ---- reading */

struct reading {
    struct arena *arena, scratch;
    struct quant_recipe recipe;
    struct quant_store_writer store;
    bool no_memory;
};

static bool take_product(void *user, const char *name, const struct quant_product *form,
                         const struct quant_matrix *size, const struct quant_codes *codes)
{
    struct reading *r = user;
    const struct quant_entry e = {.name = arena_strndup(r->arena, name, (int64_t)strlen(name)), .form = *form};
    if (strpbrk(name, "\n\r") || !quant_recipe_add(&r->recipe, &e))
        return false;
    const struct arena_mark mark = arena_mark(&r->scratch);
    r->no_memory |= !quant_save_codes(&r->store, name, &form->weight, size, codes, &r->scratch);
    arena_release(&r->scratch, mark);
    return true;
}

/* The data file has room for the names of all nodes. */
static enum npuc_status open_store(struct reading *r, const struct compilation *c, const char *recipe, struct diag *d)
{
    const char *base = strrchr(recipe, '/');
    int64_t nodes = 0, bytes = 0;
    for_each_node (n, c->module->funcs.data[0]) {
        nodes++;
        bytes += n->loc && n->loc->n > 0 ? str_len(&c->cx.strings, n->loc->names[0]) : 0;
    }
    r->recipe.data = arena_printf(r->arena, "%s.safetensors", base ? base + 1 : recipe);
    return quant_store_create(&r->store, arena_printf(r->arena, "%s.safetensors", recipe), nodes, bytes, d);
}

static enum npuc_status write_text(const struct quant_recipe *recipe, const char *path, struct arena *a, struct diag *d)
{
    struct file_writer w;
    int64_t len;
    const char *text = quant_recipe_text(recipe, a, &len);
    if (!text)
        return diag_error(d, NULL, D_HOST_MEMORY);
    const enum npuc_status s = file_writer_open(&w, path, d);
    if (s != NPUC_OK)
        return s;
    file_writer_put(&w, text, len);
    return file_writer_commit(&w, d);
}

static enum npuc_status read_products(struct compilation *c, struct reading *r)
{
    static const struct pass_step steps[] = {{PASS_raise_quant, NULL}, {PASS_strip_codes, NULL}, {PASS_dce, NULL}};
    const struct quant_reader to = {.user = r, .product = take_product};
    const struct diag_loc file = {.file = c->cx.file, .index = -1};
    const enum npuc_status s = run_passes(c, steps, NPUC_ARRAY_LEN(steps), &(struct pass_options){.quant_reader = &to});
    if (s == NPUC_OK && r->no_memory)
        return diag_error(&c->diag, NULL, D_HOST_MEMORY);
    if (s == NPUC_OK && r->recipe.entries.len == 0)
        return diag_error_text(&c->diag, &file, D_UNSUPPORTED,
                               "the model has no product whose constant weight is in codes: expected QDQ, QLinear "
                               "operators, MatMulNBits or integer products; for a model of floats give --scheme");
    return s;
}

enum npuc_status qdq_read(struct compilation *c, const struct qdq_request *q, int64_t *products)
{
    struct reading r = {.arena = &c->arena};
    const char *base = strrchr(q->model, '/');
    enum npuc_status s = compilation_import(c, q->model);
    arena_init(&r.scratch, NULL);
    quant_recipe_init(&r.recipe, r.arena);
    r.recipe.scheme = arena_printf(r.arena, "that of %s", base ? base + 1 : q->model);
    if (s == NPUC_OK)
        s = open_store(&r, c, q->recipe, &c->diag);
    if (s == NPUC_OK)
        s = read_products(c, &r);
    if (s == NPUC_OK && q->plain)
        s = onnx_write(c->module, q->plain, NULL);
    if (s == NPUC_OK)
        s = quant_store_commit(&r.store, &c->diag);
    if (s == NPUC_OK)
        s = write_text(&r.recipe, q->recipe, r.arena, &c->diag);
    *products = r.recipe.entries.len;
    quant_store_abort(&r.store);
    arena_free(&r.scratch);
    return s;
}
