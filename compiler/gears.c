/* Gears: `-D seq=128,512` compiles the model once per listed size, or per combination of the sizes of several
 * dimensions, into one plan. Each combination is an entry; weights, caches and kernels that are the same are stored
 * once. The runtime takes the entry whose sizes the inputs have. */
#include <string.h>

#include "compiler/compile.h"

struct gear {             /* a combination beyond the first */
    struct compilation c; /* its module and passes; its plan is not used */
    struct plan_weight_source weights;
    int64_t first_tensor; /* of the plan: from here on this combination wrote them */
};
struct gears {
    int64_t n;
    struct gear *all;
    struct plan_weight_source first;
    struct shared_weights shared;
};

enum npuc_status gears_count(struct compilation *c, int64_t *n)
{
    *n = 1;
    for (int64_t i = 0; i < c->options.dims.len; i++) {
        struct dim_spec d;
        if (dim_parse(c->options.dims.data[i], &d) && d.n > 1)
            *n *= d.n;
        if (*n > DIM_MAX_PLANS)
            return diag_error(
                &c->diag, NULL, D_USAGE,
                arena_printf(&c->arena, "the gears have more than %d combinations; list fewer sizes", DIM_MAX_PLANS));
    }
    return NPUC_OK;
}

bool gears_exceed(const struct compilation *c, int64_t size)
{
    bool exceed = false;
    for (int64_t i = 0; i < c->options.dims.len; i++) {
        struct dim_spec d;
        for (int64_t k = 0; dim_parse(c->options.dims.data[i], &d) && d.n > 1 && k < d.n; k++)
            exceed = exceed || d.gear[k] > size;
    }
    return exceed;
}

const char *gears_name(struct compilation *c)
{
    const char *name = "";
    for (int64_t i = 0; c->gears && i < c->options.dims.len; i++) {
        const char *text = c->options.dims.data[i];
        struct dim_spec d;
        if (dim_parse(text, &d) && d.n > 1)
            name = arena_printf(&c->arena, "%s%s%.*s=%lld", name, *name ? "," : "", (int)d.name_len, text,
                                (long long)d.gear[c->gear ? c->gear[i] : 0]);
    }
    return *name ? name : "main";
}

/* Number `index` of the combinations: a digit per option, the last one turns fastest. */
static int32_t *digits(struct compilation *c, int64_t index)
{
    int32_t *gear = ARENA_ARRAY(&c->arena, int32_t, c->options.dims.len);
    for (int64_t i = c->options.dims.len - 1; i >= 0; i--) {
        struct dim_spec d;
        if (!dim_parse(c->options.dims.data[i], &d) || d.n < 2)
            continue;
        gear[i] = (int32_t)(index % d.n);
        index /= d.n;
    }
    return gear;
}

static enum npuc_status emit_one(struct compilation *c, struct compilation *owner, struct plan_weight_source *weights)
{
    const struct backend_options o = {.tiling = c->options.has_tiling ? &c->options.tiling : NULL,
                                      .cache_pool = c->options.cache_pool,
                                      .name = gears_name(c),
                                      .shapes = c->inputs,
                                      .n_shapes = c->n_inputs,
                                      .n_fixed = c->n_fixed,
                                      .fixed = c->fixed,
                                      .sizes = c->sizes,
                                      .weights = owner->gears ? &owner->gears->shared : NULL};
    struct backend_options *kept = arena_copy(&c->arena, &o, (int64_t)sizeof o);
    return backend_emit(&c->cx, c->module, &c->machine, kept, &owner->plan, weights);
}

static enum npuc_status put(void *user, int32_t tensor, struct file_writer *w)
{
    const struct gears *g = user;
    const struct plan_weight_source *from = &g->first;
    for (int64_t i = 0; i < g->n && tensor >= g->all[i].first_tensor; i++)
        from = &g->all[i].weights;
    return from->put(from->user, tensor, w);
}

/* Memory that runs out while a gear's part of the plan is written ends the whole compilation. */
static void share_oom(const struct compilation *owner, struct compilation *c)
{
    struct arena *arenas[] = {&c->arena, &c->cx.arena, &c->cx.scratch, &c->module->arena, &c->px.arena};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(arenas); i++) {
        arenas[i]->on_oom = owner->arena.on_oom;
        arenas[i]->oom_user = owner->arena.oom_user;
    }
}

static enum npuc_status emit_gear(struct compilation *c, const char *model, int64_t index)
{
    struct gear *g = &c->gears->all[index];
    compilation_init(&g->c);
    g->c.options = c->options;
    g->c.diag = c->diag;
    g->c.gears = c->gears;
    g->c.gear = digits(c, index + 1);
    g->first_tensor = c->plan.tensors.len;
    c->gears->n = index + 1;
    enum npuc_status s = compilation_optimise(&g->c, model);
    if (s == NPUC_OK) {
        share_oom(c, &g->c);
        s = emit_one(&g->c, c, &g->weights);
    }
    c->diag = g->c.diag;
    return s;
}

enum npuc_status gears_emit(struct compilation *c, const char *model)
{
    int64_t n;
    enum npuc_status s = gears_count(c, &n);
    if (s != NPUC_OK)
        return s;
    if (n < 2)
        return emit_one(c, c, &c->weights);
    c->gears = ARENA_NEW(&c->arena, struct gears);
    c->gears->all = ARENA_ARRAY(&c->arena, struct gear, n - 1);
    c->gears->shared.arena = &c->arena;
    s = emit_one(c, c, &c->gears->first);
    for (int64_t i = 0; s == NPUC_OK && i < n - 1; i++)
        s = emit_gear(c, model, i);
    c->weights = (struct plan_weight_source){.put = put, .user = c->gears};
    return s;
}

void gears_free(struct compilation *c)
{
    struct gears *g = c->gears;
    if (!g || c->gear)
        return;
    for (int64_t i = 0; i < g->n; i++)
        compilation_free(&g->all[i].c);
}
