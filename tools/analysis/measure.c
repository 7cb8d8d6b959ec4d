#include "tools/analysis/measure.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ir/eval.h"
#include "tools/term.h"

/* A product may run several times, in a loop: its results in turn. */
struct results {
    VEC(struct k_tensor) list;
    int64_t next;
};
/* One run of the data through the model as it is and a variant. */
struct walk {
    struct analysis *an;
    struct comparison *c; /* NULL: outputs alone */
    struct variant *v;
    enum variant_part part;
    bool outputs_only;
    struct results *results; /* of the model as it is, by product */
    struct arena kept;       /* what outlives a run of the interpreter */
    int *exit_code;
};

/* ---- runs */

static void progress(const struct analysis *an, const char *what, int64_t done, int64_t of)
{
    if (an->shows)
        fprintf(stderr, "\r\033[K  %s  %" PRId64 " of %" PRId64 " ", what, done + 1, of);
}

static void progress_end(const struct analysis *an)
{
    if (an->shows)
        fprintf(stderr, "\r\033[K");
}

static struct k_tensor copied(const struct k_tensor *t, struct arena *a)
{
    struct k_tensor to = *t;
    to.data = t->kind == K_TENSOR && t->dtype != DT_STRING ? arena_copy(a, t->data ? t->data : "", t->size) : NULL;
    return to;
}

/* Outputs of run i in `keep`. */
static bool run_one(struct walk *w, struct variant *v, int64_t i, const struct ir_watch *watch, struct k_tensor *out)
{
    struct analysis *an = w->an;
    struct arena a;
    arena_init(&a, NULL);
    struct k_tensor *in = ARENA_ARRAY(&a, struct k_tensor, variant_graph(v)->n_inputs + 1);
    enum npuc_status s = calib_inputs(&an->data, i, in, &a);
    if (s == NPUC_OK)
        s = ir_eval_watched(&v->c.cx, variant_graph(v), in, out, &a, watch);
    for (int k = 0; s == NPUC_OK && k < an->outputs.n; k++)
        out[k] = copied(&out[k], &w->kept);
    arena_free(&a);
    *w->exit_code = diag_exit_code(s);
    return s == NPUC_OK;
}

static const struct k_tensor *ids_of(const struct analysis *an, int64_t run, struct k_tensor *t)
{
    if (!an->data.by_tokens)
        return NULL;
    const struct k_tensor *all = &an->data.tokens;
    const int64_t n = all->dims[all->rank - 1];
    *t = (struct k_tensor){.dtype = all->dtype, .rank = 1, .dims = {n}, .size = n * dtype_size(all->dtype)};
    t->data = (char *)all->data + run * t->size;
    return t;
}

/* ---- what is seen of products */

static enum npuc_status see_plain(void *user, const struct node *n, const struct k_tensor *const *in,
                                  const struct k_tensor *out)
{
    struct walk *w = user;
    struct analysis *an = w->an;
    const uint64_t *at = map_find(&an->plain.by_end, n->id);
    if (!at)
        return NPUC_OK;
    const int64_t place = (int64_t)*at - 1;
    struct product_figures *f = &w->c->products[place];
    const bool conv = n->op == OP_Conv;
    if (!an->observed && !observe(&an->inputs[place], in[0], conv ? 1 : in[0]->rank - 1, an->arena))
        return node_error(&an->plain.c.cx, n, D_RUN_FAULT, "its rows have another length than in the run before");
    if (w->part == PART_ALL) {
        const struct k_tensor t = copied(out, &w->kept);
        vec_push(&w->kept, &w->results[place].list, t);
    }
    if (!f->coded || w->v->want.other)
        return NPUC_OK;
    struct arena a;
    struct variant_result r;
    arena_init(&a, NULL);
    if (variant_local(w->v, place, n, in, &r, &a)) {
        f->has_local[w->part] = metric_add(&f->local[w->part], out, &r.y);
        f->clipped.n += w->part == PART_ALL ? r.clipped.n : 0;
        f->clipped.of += w->part == PART_ALL ? r.clipped.of : 0;
    }
    arena_free(&a);
    return NPUC_OK;
}

static enum npuc_status see_variant(void *user, const struct node *n, const struct k_tensor *const *in,
                                    const struct k_tensor *out)
{
    struct walk *w = user;
    const uint64_t *at = map_find(&w->v->by_end, n->id);
    struct results *r = at ? &w->results[*at - 1] : NULL;
    (void)in;
    if (r && r->next < r->list.len) {
        struct product_figures *f = &w->c->products[*at - 1];
        f->has_cumulative = metric_add(&f->cumulative, &r->list.data[r->next++], out);
    }
    return NPUC_OK;
}

static bool fail_shapes(struct walk *w)
{
    term_error("%s: its outputs have other shapes than those of %s; only models with the same outputs can be compared",
               w->c ? w->c->path : w->an->model, w->an->model);
    *w->exit_code = diag_exit_code(NPUC_E_INVALID);
    return false;
}

/* Run i through both. */
static bool walk_run(struct walk *w, int64_t i, struct effect *e)
{
    struct analysis *an = w->an;
    const struct ir_watch plain = {.result = see_plain, .user = w}, variant = {.result = see_variant, .user = w};
    struct k_tensor ids;
    arena_init(&w->kept, NULL);
    struct k_tensor *x = ARENA_ARRAY(&w->kept, struct k_tensor, an->outputs.n + 1);
    struct k_tensor *y = ARENA_ARRAY(&w->kept, struct k_tensor, an->outputs.n + 1);
    w->results = ARENA_ARRAY(&w->kept, struct results, an->list.names.len + 1);
    bool ok = run_one(w, &an->plain, i, w->outputs_only ? NULL : &plain, x) &&
              run_one(w, w->v, i, w->part == PART_ALL && !w->outputs_only ? &variant : NULL, y);
    if (ok && !effect_add(e, &an->outputs, x, y, ids_of(an, i, &ids)))
        ok = fail_shapes(w);
    arena_free(&w->kept);
    return ok;
}

static bool walk_part(struct analysis *an, struct comparison *c, const char *model, const struct variant_want *want,
                      int *exit_code)
{
    struct variant *v = ARENA_NEW(an->arena, struct variant);
    struct walk w = {.an = an, .c = c, .v = v, .part = want->part, .exit_code = exit_code};
    w.outputs_only = want->caches;
    bool ok = variant_open(v, model, an->args, &an->list, want, exit_code);
    if (ok && c->recipe && want->part == PART_ALL && (want->caches || !quant_recipe_has_caches(c->recipe))) {
        *exit_code = diag_exit_code(quant_recipe_check_used(c->recipe, &v->c.diag));
        ok = *exit_code == 0;
    }
    if (ok && graph_yield(variant_graph(v))->n_in != an->outputs.n)
        ok = fail_shapes(&w);
    effect_init(&c->effects[want->part], &an->outputs, an->arena);
    for (int64_t i = 0; ok && i < an->runs; i++) {
        progress(an, arena_printf(an->arena, "%s: %s, run", c->path, variant_part_names[want->part]), i, an->runs);
        ok = walk_run(&w, i, &c->effects[want->part]);
    }
    progress_end(an);
    an->observed = an->observed || ok;
    c->parts[want->part] = effect_summarise(&c->effects[want->part], &an->outputs);
    c->has_part[want->part] = ok;
    variant_close(v);
    return ok;
}

/* ---- one product in, one product out */

static bool outputs_of(struct analysis *an, const struct variant_want *want, struct k_tensor *const *plain,
                       int64_t runs, struct effect_summary *out, int *exit_code)
{
    struct variant *v = ARENA_NEW(an->arena, struct variant);
    struct walk w = {.an = an, .v = v, .exit_code = exit_code};
    struct effect e;
    struct arena a;
    arena_init(&a, NULL);
    bool ok = variant_open(v, an->model, an->args, &an->list, want, exit_code);
    effect_init(&e, &an->outputs, &a);
    for (int64_t i = 0; ok && i < runs; i++) {
        struct k_tensor ids;
        arena_init(&w.kept, NULL);
        struct k_tensor *y = ARENA_ARRAY(&w.kept, struct k_tensor, an->outputs.n + 1);
        ok = run_one(&w, v, i, NULL, y);
        if (ok && !effect_add(&e, &an->outputs, plain[i], y, ids_of(an, i, &ids)))
            ok = fail_shapes(&w);
        arena_free(&w.kept);
    }
    if (ok)
        *out = effect_summarise(&e, &an->outputs);
    arena_free(&a);
    variant_close(v);
    return ok;
}

/* Outputs of the model as it is for the first runs, in w->kept. */
static struct k_tensor **plain_outputs(struct analysis *an, struct walk *w, int64_t runs)
{
    struct k_tensor **x = ARENA_ARRAY(&w->kept, struct k_tensor *, runs + 1);
    for (int64_t i = 0; i < runs; i++) {
        x[i] = ARENA_ARRAY(&w->kept, struct k_tensor, an->outputs.n + 1);
        if (!run_one(w, &an->plain, i, NULL, x[i]))
            return NULL;
    }
    return x;
}

static bool walk_each(struct analysis *an, struct comparison *c, int *exit_code)
{
    struct walk w = {.an = an, .exit_code = exit_code};
    const struct quantiser base = quant_recipe_quantiser(c->recipe);
    arena_init(&w.kept, NULL);
    bool *alone = ARENA_ARRAY(&w.kept, bool, an->list.names.len + 1);
    bool *others = ARENA_ARRAY(&w.kept, bool, an->list.names.len + 1);
    memset(others, true, (size_t)an->list.names.len);
    struct k_tensor **x = plain_outputs(an, &w, an->each_runs);
    bool ok = x != NULL;
    for (int64_t i = 0; ok && i < an->list.names.len; i++) {
        struct product_figures *f = &c->products[i];
        progress(an, arena_printf(an->arena, "%s: isolated and inverse, product", c->path), i, an->list.names.len);
        if (!f->coded)
            continue;
        alone[i] = !(others[i] = false);
        ok = outputs_of(an, &(struct variant_want){.base = &base, .on = alone}, x, an->each_runs, &f->isolated,
                        exit_code) &&
             outputs_of(an, &(struct variant_want){.base = &base, .on = others}, x, an->each_runs, &f->inverse,
                        exit_code);
        others[i] = !(alone[i] = false);
    }
    progress_end(an);
    c->has_each = ok;
    arena_free(&w.kept);
    return ok;
}

bool analysis_outputs(struct analysis *an, const struct variant_want *want, int64_t runs, struct effect_summary *out,
                      int *exit_code)
{
    if (!an->plain_outputs) {
        struct walk w = {.an = an, .exit_code = exit_code};
        an->plain_outputs = plain_outputs(an, &w, an->runs);
        an->kept = w.kept;
    }
    return an->plain_outputs && outputs_of(an, want, an->plain_outputs, runs, out, exit_code);
}

/* ---- what is compared */

static struct comparison *add(struct analysis *an, const char *path, struct quant_recipe *r)
{
    struct comparison *c = ARENA_NEW(an->arena, struct comparison);
    *c = (struct comparison){.path = path, .recipe = r, .scheme = r ? r->scheme : NULL};
    c->products = ARENA_ARRAY(an->arena, struct product_figures, an->list.names.len + 1);
    vec_push(an->arena, &an->comparisons, c);
    return c;
}

bool analysis_add(struct analysis *an, struct quant_recipe *r, const char *path, int *exit_code)
{
    struct comparison *c = add(an, path, r);
    bool weights = false, inputs = false;
    for (int64_t i = 0; i < an->list.names.len; i++) {
        const struct quant_entry *e = c->products[i].entry = quant_recipe_find(r, an->list.names.data[i]);
        if (!e || e->keep)
            continue;
        c->products[i].coded = true;
        weights = weights || e->form.weight.codes != DT_NONE;
        inputs = inputs || e->form.input.codes != DT_NONE;
    }
    const struct quantiser base = quant_recipe_quantiser(r);
    const bool caches = quant_recipe_has_caches(r), split = weights && inputs && !an->totals_alone;
    const bool whole = !caches || !an->totals_alone; /* else the run with caches has all totals */
    const bool wanted[PART_COUNT] = {whole, split || (whole && caches && weights), split || (whole && caches && inputs),
                                     whole && caches};
    for (enum variant_part p = PART_ALL; p < PART_COUNT; p++) {
        const struct variant_want want = {.base = &base, .part = p, .caches = p == PART_CACHES};
        if (wanted[p] && !walk_part(an, c, an->model, &want, exit_code))
            return false;
    }
    if (caches && !walk_part(an, c, an->model, &(struct variant_want){.base = &base, .caches = true}, exit_code))
        return false;
    return an->each_runs == 0 || walk_each(an, c, exit_code);
}

bool analysis_add_recipe(struct analysis *an, const char *path, int *exit_code)
{
    struct quant_recipe *r = ARENA_NEW(an->arena, struct quant_recipe);
    const enum npuc_status s = quant_recipe_read(r, path, an->arena, &an->plain.c.diag);
    *exit_code = diag_exit_code(s);
    if (s == NPUC_OK)
        return analysis_add(an, r, path, exit_code);
    quant_recipe_close(r);
    return false;
}

bool analysis_add_model(struct analysis *an, const char *path, int *exit_code)
{
    struct comparison *c = add(an, path, NULL);
    const struct variant_want want = {.other = true};
    return walk_part(an, c, path, &want, exit_code);
}

bool analysis_open(struct analysis *an, const struct args *a, const char *model, const char *data, int *exit_code)
{
    an->args = a;
    an->model = model;
    an->list.arena = an->arena;
    map_init(&an->list.by_name, an->arena);
    if (!variant_open(&an->plain, model, a, &an->list, &VARIANT_PLAIN, exit_code))
        return false;
    const struct graph *g = variant_graph(&an->plain);
    const enum npuc_status s = calib_open(&an->data, data, g, an->arena, &an->plain.c.diag);
    *exit_code = diag_exit_code(s);
    if (s != NPUC_OK)
        return false;
    an->runs = an->runs < an->data.n_runs ? an->runs : an->data.n_runs;
    an->each_runs = an->each_runs < an->runs ? an->each_runs : an->runs;
    outputs_find(&an->outputs, g, &an->data, an->arena);
    an->inputs = ARENA_ARRAY(an->arena, struct observer, an->list.names.len + 1);
    for (int64_t i = 0; i < an->list.names.len; i++)
        observer_init(&an->inputs[i], an->arena);
    return true;
}

void analysis_close(struct analysis *an)
{
    for (int64_t i = 0; i < an->comparisons.len; i++)
        if (an->comparisons.data[i]->recipe)
            quant_recipe_close(an->comparisons.data[i]->recipe);
    arena_free(&an->kept);
    variant_close(&an->plain);
}
