/* Graphs, the model around them, and the files. */
#include "frontend/export/priv.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

enum { BASE_OPSET = 24 };

/* IR version of the ONNX release that brought the operator set. */
static int64_t ir_version_of(int64_t opset)
{
    return opset >= 28 ? 14 : opset >= 25 ? 13 : 12;
}

/* ---- names ---- */

sym write_fresh(struct writer *w)
{
    sym s;
    do
        s = str_internz(&w->cx->strings, arena_printf(w->arena, "npuc_%lld", (long long)w->n_made++));
    while (map_find(&w->used, s));
    map_put(&w->used, s, 1);
    return s;
}

/* Inner names hide no outer ones: a name belongs to the first that asks for it. */
sym write_name(struct writer *w, const struct value *v)
{
    sym *name = &w->names[v->id];
    if (*name)
        return *name;
    if (v->name && !map_find(&w->used, v->name)) {
        *name = v->name;
        map_put(&w->used, v->name, 1);
    } else {
        *name = write_fresh(w);
    }
    return *name;
}

void write_defined(struct writer *w, const struct value *v)
{
    if (v->type->kind == TYPE_TENSOR && v->type->rank >= 0)
        write_sources(w, v);
}

/* ---- graphs ---- */

enum npuc_status write_nodes(struct writer *w, const struct graph *g)
{
    for_each_node (n, g) {
        if (n->op == OP_Yield)
            break;
        const enum npuc_status s = write_node(w, n);
        if (s != NPUC_OK)
            return s;
        const bool foreign = *op_table[n->op]->domain && n->op != OP_Fused && n->op != OP_SizeOf;
        for (int i = 0; i < n->n_out && n->op != OP_Constant; i++) {
            if (n->out[i].type->kind == TYPE_NONE)
                continue;
            write_defined(w, &n->out[i]);
            if (!foreign)
                continue;
            const struct pb info = write_value_info(w, write_name(w, &n->out[i]), n->out[i].type);
            pb_message(&w->scope->pb, 13, &info);
        }
    }
    return NPUC_OK;
}

static void open_scope(struct writer *w, struct scope *s)
{
    *s = (struct scope){.up = w->scope, .pb = {.arena = w->arena}};
    map_init(&s->sizes, w->arena);
    w->scope = s;
}

static void write_inputs(struct writer *w, const struct graph *g)
{
    for (int i = 0; i < g->n_inputs; i++) {
        const struct pb info = write_value_info(w, write_name(w, g->inputs[i]), g->inputs[i]->type);
        pb_message(&w->scope->pb, 11, &info);
        write_defined(w, g->inputs[i]);
    }
}

/* Results of a body must be made in it, each once. */
static sym body_result(struct writer *w, const struct graph *g, int i)
{
    const struct node *yield = graph_yield(g);
    const struct value *v = yield->in[i].value;
    bool own = v->def && v->graph == g && v->def->op != OP_Constant;
    for (int k = 0; k < i; k++)
        own = own && yield->in[k].value != v;
    const sym name = write_name(w, v);
    return own ? name : write_simple(w, "Identity", 1, &name);
}

enum npuc_status write_graph(struct writer *w, const struct graph *g, struct pb *out)
{
    struct scope s;
    open_scope(w, &s);
    pb_text(&s.pb, 2, g->name ? str_text(&w->cx->strings, g->name) : "body");
    write_inputs(w, g);
    const enum npuc_status st = write_nodes(w, g);
    const struct node *yield = graph_yield(g);
    for (int i = 0; st == NPUC_OK && i < yield->n_in; i++) {
        const struct pb info = write_value_info(w, body_result(w, g, i), yield->in[i].value->type);
        pb_message(&s.pb, 12, &info);
    }
    w->scope = s.up;
    *out = s.pb;
    return st;
}

/* ONNX wants a shape for every result of a model. Where nothing tells the rank, what the file it came from declares
 * does. */
static const struct type *result_type(struct writer *w, const struct value *v)
{
    if (v->type->kind != TYPE_TENSOR || v->type->rank >= 0)
        return v->type;
    const char *key =
        arena_printf(w->arena, "rank of %s", v->name ? str_text(&w->cx->strings, v->name) : "an unnamed result");
    const uint64_t *rank = map_find(&w->m->meta, str_internz(&w->cx->strings, key));
    static const expr open[IR_MAX_RANK];
    struct type *t = ARENA_NEW(w->arena, struct type);
    *t = *v->type;
    t->dims = open;
    t->rank = rank ? (int)strtol(str_text(&w->cx->strings, (sym)*rank), NULL, 10) : -1;
    return t->rank >= 0 && t->rank <= IR_MAX_RANK ? t : v->type;
}

static enum npuc_status write_main(struct writer *w, const struct graph *g, struct pb *out)
{
    struct scope s;
    const struct node *yield = graph_yield(g);
    open_scope(w, &s);
    pb_text(&s.pb, 2, g->name ? str_text(&w->cx->strings, g->name) : "main");
    write_inputs(w, g);
    for (int i = 0; i < yield->n_in; i++) { /* before inner values take their names */
        const struct pb info =
            write_value_info(w, write_name(w, yield->in[i].value), result_type(w, yield->in[i].value));
        pb_message(&s.pb, 12, &info);
    }
    const enum npuc_status st = write_nodes(w, g);
    w->scope = NULL;
    *out = s.pb;
    return st;
}

static void write_opset(struct pb *model, const char *domain, int64_t version)
{
    struct pb p = {.arena = model->arena};
    if (*domain)
        pb_text(&p, 1, domain);
    pb_int(&p, 2, version);
    pb_message(model, 8, &p);
}

static struct pb write_model(struct writer *w, const struct pb *graph)
{
    struct pb model = {.arena = w->arena};
    pb_int(&model, 1, ir_version_of(w->opset));
    pb_text(&model, 2, "npuc");
    write_opset(&model, "", w->opset);
    for (int64_t i = 0; i < w->domains.len; i++)
        write_opset(&model, str_text(&w->cx->strings, (sym)w->domains.entries[i].key),
                    (int64_t)w->domains.entries[i].value);
    pb_message(&model, 7, graph);
    return model;
}

/* ---- files ---- */

static int64_t constant_bytes(const struct graph *g)
{
    int64_t all = 0;
    for_each_node (n, g) {
        const struct blob *b = n->op == OP_Constant && n->out[0].uses ? value_const(&n->out[0]) : NULL;
        if (b && n->out[0].type->dtype != DT_STRING)
            all += b->size;
        for_each_region(r, n) all += constant_bytes(r);
    }
    return all;
}

static enum npuc_status put_external(struct writer *w, const char *path)
{
    struct file_writer *f = ARENA_NEW(w->arena, struct file_writer);
    const enum npuc_status s = file_writer_open(f, path, w->cx->diag);
    if (s != NPUC_OK)
        return s;
    for (int64_t i = 0, at = 0; i < w->external.len; i++) {
        const struct external *x = &w->external.data[i];
        static const char zeros[4096];
        file_writer_put(f, zeros, x->at - at); /* below the alignment */
        file_writer_put(f, x->data, x->size);
        at = x->at + x->size;
    }
    return file_writer_commit(f, w->cx->diag);
}

static enum npuc_status put_model(struct writer *w, const char *path, const struct pb *model)
{
    struct file_writer *f = ARENA_NEW(w->arena, struct file_writer);
    const enum npuc_status s = file_writer_open(f, path, w->cx->diag);
    if (s != NPUC_OK)
        return s;
    for (int64_t i = 0; i < model->pieces.len; i++)
        file_writer_put(f, model->pieces.data[i].data, model->pieces.data[i].size);
    return file_writer_commit(f, w->cx->diag);
}

static bool exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

/* The data come first: a model never names data that are not there. Data that some other model may need stay. */
static enum npuc_status put_files(struct writer *w, const char *path, const struct pb *model)
{
    const char *data = arena_printf(w->arena, "%s.data", path);
    const struct diag_loc loc = {.file = data, .index = -1};
    if (w->data_name && exists(data) && !exists(path))
        return diag_error(w->cx->diag, &loc, D_FILE_WRITE, "the file exists without the model it would belong to");
    enum npuc_status s = w->data_name ? put_external(w, data) : NPUC_OK;
    if (s != NPUC_OK)
        return s;
    s = put_model(w, path, model);
    if (s != NPUC_OK && w->data_name)
        unlink(data);
    return s;
}

enum npuc_status onnx_write(const struct module *m, const char *path, const struct onnx_write_options *o)
{
    struct arena a;
    arena_init(&a, m->arena.hooks);
    a.on_oom = m->cx->arena.on_oom;
    a.oom_user = m->cx->arena.oom_user;
    struct writer w = {.cx = m->cx, .m = m, .arena = &a, .opset = BASE_OPSET};
    const int64_t limit = o && o->external_limit ? o->external_limit : INT64_C(1) << 30;
    const struct graph *g = m->funcs.data[0];
    w.names = ARENA_ARRAY(&a, sym, (int64_t)m->n_values + 1);
    map_init(&w.used, &a);
    map_init(&w.used_nodes, &a);
    map_init(&w.owners, &a);
    map_init(&w.domains, &a);
    write_claim_names(&w, g);
    if (constant_bytes(g) > limit) {
        const char *slash = strrchr(path, '/');
        w.data_name = arena_printf(&a, "%s.data", slash ? slash + 1 : path);
    }
    struct pb graph;
    enum npuc_status s = write_main(&w, g, &graph);
    if (s == NPUC_OK) {
        const struct pb model = write_model(&w, &graph);
        s = put_files(&w, path, &model);
    }
    arena_free(&a);
    return s;
}
