#include "tools/rewrite/rewrite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "frontend/export/onnx_write.h"
#include "ir/text.h"
#include "tools/model_args.h"
#include "tools/term.h"

enum when { ALWAYS, HOST };
static const struct row {
    const char *name;
    enum pass_id pass;
    enum when when;
    enum pass_stat rounds;
    const char *what;
} rows[] = {
#define REWRITE(name, pass, when, rounds, op, reason, what) {#name, PASS_##pass, when, STAT_##rounds, what},
#include "tools/rewrite/rewrites.def"
#undef REWRITE
};

static void out_of_memory(void *user)
{
    (void)user;
    term_error("npuc check: out of host memory");
    exit(diag_exit_code(NPUC_E_NOMEM));
}

/* ---- what is on the host ---- */

static const char *name_of(const struct ir_ctx *cx, const struct node *n, struct arena *a)
{
    const struct strtab *st = &cx->strings;
    return n->loc && n->loc->n > 0 ? str_escape(a, str_text(st, n->loc->names[0]), str_len(st, n->loc->names[0]), 200)
                                   : "";
}

static bool not_on_npu(const struct coverage *v, const struct cov_node *n)
{
    for (int t = 0; n && t < v->n_targets; t++)
        if (n->where[t] >= COV_HOST)
            return true;
    return false;
}

/* Passes find what to rewrite by its place. */
static void mark_host(const struct coverage *v, const struct graph *g)
{
    for_each_node (n, g) {
        if (not_on_npu(v, coverage_node(v, name_of(g->module->cx, n, v->arena))))
            n->place = PLACE_HOST;
        for_each_region(r, n) mark_host(v, r);
    }
}

typedef VEC(const char *) names;

static bool holds(const names *list, const char *name)
{
    for (int64_t i = 0; i < list->len; i++)
        if (strcmp(list->data[i], name) == 0)
            return true;
    return false;
}

static void list_host(const struct graph *g, struct arena *a, names *out)
{
    for_each_node (n, g) {
        const char *name = n->place == PLACE_HOST ? name_of(g->module->cx, n, a) : "";
        if (*name && !holds(out, name))
            vec_push(a, out, name);
        for_each_region(r, n) list_host(r, a, out);
    }
}

/* ---- passes ---- */

struct work {
    const struct coverage *v;
    const struct args *args;
    struct arena *a;
    struct compilation *before, *after;
    struct rewriting *r;
    bool exact;
};

static void note_rewritten(struct work *w, const struct row *row, const names *old, const names *new)
{
    struct rewritten add = {.name = row->name, .what = row->what};
    for (int64_t i = 0; i < old->len; i++)
        if (!holds(new, old->data[i]))
            vec_push(w->a, &add.nodes, old->data[i]);
    if (add.nodes.len == 0)
        return;
    vec_push(w->a, &w->r->applied, add);
}

static enum npuc_status run_rows(struct work *w, struct pass_ctx *px)
{
    const struct graph *g = w->after->module->funcs.data[0];
    const struct pass_run quiet = {0};
    names host = {0};
    list_host(g, w->a, &host);
    for (size_t i = 0; i < NPUC_ARRAY_LEN(rows); i++) {
        names left = {0};
        const struct pass_step step = {rows[i].pass, NULL};
        const enum npuc_status s = pass_run_all(px, &step, 1, &quiet);
        if (s != NPUC_OK)
            return s;
        list_host(g, w->a, &left);
        if (rows[i].rounds != STAT_COUNT && px->stats[rows[i].rounds] > 0)
            w->exact = false;
        if (rows[i].when == HOST)
            note_rewritten(w, &rows[i], &host, &left);
        host = left;
    }
    return ir_verify(w->after->module, "rewrites");
}

static enum npuc_status run_passes(struct work *w)
{
    struct pass_ctx px;
    pass_ctx_init(&px, w->after->module, NULL);
    const enum npuc_status s = run_rows(w, &px);
    pass_ctx_free(&px);
    return s;
}

/* ---- steps ---- */

static bool import(const struct work *w, struct compilation *c, int *code)
{
    compilation_init(c);
    if (!model_args(w->args, c, code))
        return false;
    c->options.target = w->v->target[0].id;
    const enum npuc_status s = compilation_import(c, w->v->path);
    *code = diag_exit_code(s);
    if (s == NPUC_OK)
        c->cx.arena.on_oom = c->cx.scratch.on_oom = c->module->arena.on_oom = out_of_memory;
    return s == NPUC_OK;
}

static const char *fixed_sizes(const struct work *w)
{
    const char *text = NULL;
    for (int64_t i = 0; i < w->args->given.len; i++) {
        const struct arg_given *g = &w->args->given.data[i];
        const bool fixes =
            (strcmp(g->option->name, "D") == 0 && !strstr(g->value, "..")) || strcmp(g->option->name, "shape") == 0;
        if (fixes)
            text = arena_printf(w->a, "%s%s%s", text ? text : "", text ? ", " : "", g->value);
    }
    return text;
}

/* Sizes that are fixed in the file that was written have no name any more. */
static void measure(struct work *w)
{
    struct coverage *after = ARENA_NEW(w->a, struct coverage);
    struct args *left = ARENA_NEW(w->a, struct args);
    left->words = w->args->words;
    for (int64_t i = 0; i < w->args->given.len; i++) {
        const struct arg_given g = w->args->given.data[i];
        const bool gone =
            strcmp(g.option->name, "shape") == 0 || (strcmp(g.option->name, "D") == 0 && !strstr(g.value, ".."));
        if (!gone)
            vec_push(w->a, &left->given, g);
    }
    after->arena = w->a;
    after->path = w->r->out;
    for (int t = 0; t < w->v->n_targets; t++)
        coverage_add(after, left, w->v->target[t].id);
    w->r->after = after;
}

static int refuse(struct work *w, const char *why)
{
    w->r->refused = why;
    return diag_exit_code(NPUC_E_NEGATIVE);
}

static int rewrite(struct work *w)
{
    const enum npuc_status s = run_passes(w);
    if (s != NPUC_OK)
        return diag_exit_code(s);
    if (w->r->applied.len == 0 && !w->r->fixed)
        return refuse(w, w->v->target[0].exit_code || coverage_exit_code(w->v)
                             ? "no rewrite fits what is not on the NPU"
                             : "everything runs on the NPU as it is");
    const struct graph *before = w->before->module->funcs.data[0], *after = w->after->module->funcs.data[0];
    if (!verify_same(before, after, w->exact, w->a, &w->r->check))
        return refuse(w, w->r->check.failure);
    const enum npuc_status written = onnx_write(w->after->module, w->r->out, NULL);
    if (written == NPUC_OK)
        measure(w);
    return diag_exit_code(written);
}

static bool same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

int rewrite_model(const struct coverage *v, const struct args *a, const char *out, struct rewriting *r)
{
    struct work w = {.v = v, .args = a, .a = v->arena, .r = r, .exact = true};
    int code = 0;
    *r = (struct rewriting){.out = out};
    if (same_file(v->path, out)) {
        term_error("npuc check: %s: the rewritten model would overwrite the model; give another name", out);
        return diag_exit_code(NPUC_E_USAGE);
    }
    if (v->problems.len > 0)
        return coverage_exit_code(v); /* they have been printed */
    w.before = ARENA_NEW(w.a, struct compilation);
    w.after = ARENA_NEW(w.a, struct compilation);
    compilation_init(w.after);
    r->fixed = fixed_sizes(&w);
    if (import(&w, w.before, &code) && import(&w, w.after, &code)) {
        mark_host(v, w.after->module->funcs.data[0]);
        code = rewrite(&w);
    }
    compilation_free(w.before);
    compilation_free(w.after);
    return code;
}
