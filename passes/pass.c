/* The pass manager: runs a list of passes over the functions of a module, verifies, dumps, times and counts. */
#include "passes/pass.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/stopwatch.h"
#include "ir/text.h"

const struct pass pass_table[PASS_COUNT] = {
#define PASS(nm, text) [PASS_##nm] = {#nm, text, nm},
#include "passes/passes.def"
};

const struct pass_stat_info pass_stat_table[STAT_COUNT] = {
#define STAT(pass, counter, text) [STAT_##pass##_##counter] = {#pass, #counter, text},
#include "passes/passes.def"
};

enum { FOLD_MAX_SIZE = 64 << 20 };

void pass_ctx_init(struct pass_ctx *px, struct module *m, const struct target_info *target)
{
    *px = (struct pass_ctx){.cx = m->cx, .m = m, .target = target, .options = {.fold_max_size = FOLD_MAX_SIZE}};
    arena_init(&px->arena, m->cx->arena.hooks);
    px->arena.on_oom = m->cx->arena.on_oom;
    px->arena.oom_user = m->cx->arena.oom_user;
}

void pass_ctx_free(struct pass_ctx *px)
{
    arena_free(&px->arena);
}

int pass_find(const char *name, int64_t len)
{
    for (int i = 0; i < PASS_COUNT; i++)
        if ((int64_t)strlen(pass_table[i].name) == len && memcmp(pass_table[i].name, name, (size_t)len) == 0)
            return i;
    return -1;
}

enum npuc_status pass_each_graph(struct pass_ctx *px, struct graph *g, pass_fn *fn)
{
    for_each_node (n, g)
        for_each_region(r, n)
        {
            const enum npuc_status s = pass_each_graph(px, r, fn);
            if (s != NPUC_OK)
                return s;
        }
    return fn(px, g);
}

enum npuc_status pass_each_node(struct pass_ctx *px, struct graph *g, enum op op, pass_node_fn *fn)
{
    for_each_node_safe(n, g)
    {
        const enum npuc_status s = (enum op)n->op == op ? fn(px, n) : NPUC_OK;
        if (s != NPUC_OK)
            return s;
    }
    return NPUC_OK;
}

enum npuc_status pass_settle_sizes(struct pass_ctx *px, struct graph *g, expr *by, int32_t n_by)
{
    enum { CHAIN = 8 }; /* a size may stand for one that went as well, which stands for another */
    for (int round = 0; round < CHAIN; round++)
        for (int32_t i = 0; i < n_by; i++)
            if (by[i])
                by[i] = expr_subst(&px->cx->exprs, by[i], by, n_by);
    ir_substitute(g, by, n_by);
    for_each_node (n, g) {
        const enum npuc_status s = ir_infer(n);
        if (s != NPUC_OK)
            return s;
    }
    return fold_constants(px, g);
}

/* Passes that look into bodies themselves. */
static const bool sees_bodies[PASS_COUNT] = {
#define WHOLE(nm) [PASS_##nm] = true,
#include "passes/passes.def"
};

/* p on g and on the bodies of If, Loop and Scan in it, which are graphs like any other; not on Fused regions. Recursion
 * is bounded by the nesting that readers allow. */
static enum npuc_status run_graph(struct pass_ctx *px, const struct pass *p, struct graph *g)
{
    for (struct node *n = sees_bodies[p - pass_table] ? NULL : g->first; n; n = n->next) {
        if (op_table[n->op]->cls != CLS_CONTROL)
            continue;
        for_each_region(r, n)
        {
            const enum npuc_status s = run_graph(px, p, r);
            if (s != NPUC_OK)
                return s;
        }
    }
    return p->run(px, g);
}

static enum npuc_status dump(struct pass_ctx *px, const char *dir, int64_t index, const char *name)
{
    struct file_writer *w = ARENA_NEW(&px->arena, struct file_writer);
    const char *path = arena_printf(&px->arena, "%s/%02" PRId64 "-%s.ir", dir, index, name);
    const char *text;
    int64_t len;
    ir_print(px->m, &px->arena, &text, &len);
    const enum npuc_status s = file_writer_open(w, path, px->cx->diag);
    if (s != NPUC_OK)
        return s;
    file_writer_put(w, text, len);
    return file_writer_commit(w, px->cx->diag);
}

static enum npuc_status run_one(struct pass_ctx *px, const struct pass *p)
{
    for (int64_t i = 0; i < px->m->funcs.len; i++) {
        const enum npuc_status s = run_graph(px, p, px->m->funcs.data[i]);
        if (s != NPUC_OK) {
            diag_note(px->cx->diag, "in pass %s", p->name);
            return s;
        }
    }
    return NPUC_OK;
}

enum npuc_status pass_run_all(struct pass_ctx *px, const struct pass_step *steps, int64_t n, const struct pass_run *run)
{
    enum npuc_status s = run->verify_each ? ir_verify(px->m, "reading") : NPUC_OK;
    for (int64_t i = 0; s == NPUC_OK && i < n; i++) {
        const struct pass *p = &pass_table[steps[i].id];
        const int64_t start = stopwatch_ns();
        s = run_one(px, p);
        const int64_t ns = stopwatch_ns() - start;
        if (s == NPUC_OK && run->verify_each)
            s = ir_verify(px->m, p->name);
        if (run->dump_dir && (s == NPUC_OK || s == NPUC_E_INTERNAL)) { /* a broken graph is worth seeing */
            const enum npuc_status dumped = dump(px, run->dump_dir, i, p->name);
            s = s == NPUC_OK ? dumped : s;
        }
        if (s == NPUC_OK && run->after)
            run->after(run->user, px, p, ns);
        arena_free(&px->arena);
        if (run->stop_after && strcmp(run->stop_after, p->name) == 0)
            break;
    }
    return s;
}

const char *pass_stats_text(const struct pass_ctx *px, struct arena *a)
{
    const char *text = "";
    for (int i = 0; i < STAT_COUNT; i++)
        if (px->stats[i])
            text = arena_printf(a, "%s%s.%s %" PRId64 "\n", text, pass_stat_table[i].pass, pass_stat_table[i].counter,
                                px->stats[i]);
    return text;
}
