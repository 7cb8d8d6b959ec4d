#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tools/analysis/search_priv.h"

struct search_unit *search_caches(const struct search *s)
{
    struct search_unit *last = s->units.len > 0 ? &s->units.data[s->units.len - 1] : NULL;
    return last && last->caches ? last : NULL;
}

static void add_units(struct search *s)
{
    const struct search_unit caches = {.caches = true, .coarsest = 1};
    bool any = false;
    struct map by_value;
    const int64_t n = s->an.list.names.len;
    map_init(&by_value, s->arena);
    s->unit_of = ARENA_ARRAY(s->arena, int64_t, n + 1);
    for (int64_t i = 0; i < n; i++) {
        const uint64_t value = node_in(s->an.plain.products[i].n, 0)->id, *known = map_find(&by_value, value);
        if (!known) {
            const struct search_unit u = {.coarsest = 1};
            vec_push(s->arena, &s->units, u);
            map_put(&by_value, value, (uint64_t)s->units.len);
        }
        s->unit_of[i] = known ? (int64_t)*known - 1 : s->units.len - 1;
        vec_push(s->arena, &s->units.data[s->unit_of[i]].products, i);
    }
    for (int k = 1; k <= s->n_schemes; k++)
        any = any || s->for_caches[k];
    if (any)
        vec_push(s->arena, &s->units, caches);
}

/* Bytes of the weight of product i, coded like `o`; NULL or without codes: as the model has it. */
static double weight_bytes(const struct search *s, int64_t i, const struct quant_operand *o)
{
    const struct node *n = s->an.plain.products[i].n;
    const struct type *t = node_in(n, 1)->type;
    const double count = (double)type_const_count(&s->an.plain.c.cx, t);
    int64_t channels = 1;
    const bool first = n->op == OP_Conv || node_attr_int(n, "transB", 0) != 0;
    (void)expr_is_const(&s->an.plain.c.cx.exprs, t->dims[first ? 0 : t->rank - 1], &channels);
    if (!o || o->codes == DT_NONE)
        return count * dtype_table[t->dtype].bits / 8;
    const double scales = o->per == QUANT_PER_GROUP     ? count / (double)o->group
                          : o->per == QUANT_PER_CHANNEL ? (double)channels
                                                        : 1;
    const double zero = o->shifted ? dtype_table[o->codes].bits : 0;
    const enum dtype scale = o->scales ? o->scales : t->dtype;
    return (count * dtype_table[o->codes].bits + scales * (dtype_table[scale].bits + zero)) / 8;
}

/* Errors and bytes of scheme k from its comparison. */
static void read_scheme(struct search *s, int k, const struct comparison *c)
{
    for (int64_t i = 0; i < s->an.list.names.len; i++) {
        const struct product_figures *f = &c->products[i];
        struct search_unit *u = &s->units.data[s->unit_of[i]];
        const struct metric_error *e = f->has_local[PART_ALL] ? &f->local[PART_ALL] : &f->cumulative;
        u->noise[k] += f->coded ? metric_noise(e) : 0;
        u->options[k].bytes += weight_bytes(s, i, f->coded ? &f->entry->form.weight : NULL);
        if (u->noise[k] > u->noise[u->coarsest])
            u->coarsest = k;
    }
}

/* What the plan of scheme k says: times of products, and bytes of caches. Of caches all times are those of the whole
 * plan, since only differences count. */
static bool plan_scheme(struct search *s, int k, int *exit_code)
{
    const struct plan_request q = {.args = s->ask->args,
                                   .data = &s->an.data,
                                   .model = s->ask->model,
                                   .target = args_value(s->ask->args, "target"),
                                   .base = k > 0 ? &s->bases[k] : NULL,
                                   .context = s->ask->context};
    struct plan_figures whole;
    struct search_unit *caches = search_caches(s);
    double *us = ARENA_ARRAY(s->arena, double, s->an.list.names.len + 1);
    if (!plan_figures(&q, &whole, &s->an.list, us, exit_code))
        return false;
    for (int64_t i = 0; i < s->an.list.names.len; i++)
        s->units.data[s->unit_of[i]].options[k].us += us[i];
    if (caches) {
        caches->options[k].us = whole.us;
        caches->options[k].bytes = (double)whole.cache_bytes;
    }
    return true;
}

static double loss_of(const struct search *s, const struct effect_summary *e)
{
    return s->an.outputs.words >= 0 ? e->kl : e->noise;
}

static bool read_schemes(struct search *s, int *exit_code)
{
    struct search_unit *caches = search_caches(s);
    bool ok = true;
    for (int k = 0; ok && k <= s->n_schemes; k++) {
        const char *path = arena_printf(s->arena, "%s/%d.recipe", s->folder, k);
        if (k > 0) {
            *exit_code = s->ask->make(s->ask->user, s->schemes[k], path);
            ok = *exit_code == 0 && analysis_add_recipe(&s->an, path, exit_code);
        }
        if (ok && k > 0) {
            struct comparison *c = s->an.comparisons.data[k - 1];
            s->bases[k] = quant_recipe_quantiser(c->recipe);
            if (s->for_caches[k])
                caches->options[k].loss = loss_of(s, &c->parts[PART_ALL]);
            else
                read_scheme(s, k, c);
        }
        if (ok && (s->by_time || (caches && (k == 0 || s->for_caches[k]))))
            ok = plan_scheme(s, k, exit_code);
    }
    return ok;
}

/* What each unit does to the outputs by itself. */
static bool measure_units(struct search *s, int *exit_code)
{
    bool *on = ARENA_ARRAY(s->arena, bool, s->an.list.names.len + 1), ok = true;
    for (int64_t i = 0; ok && i < s->units.len; i++) {
        struct search_unit *u = &s->units.data[i];
        struct effect_summary e;
        if (s->ask->shows)
            fprintf(stderr, "\r\033[K  each alone  %" PRId64 " of %" PRId64 " ", i + 1, s->units.len);
        if (u->noise[u->coarsest] == 0)
            continue;
        for (int64_t k = 0; k < u->products.len; k++)
            on[u->products.data[k]] = true;
        const struct variant_want want = {.base = &s->bases[u->coarsest], .on = on};
        ok = analysis_outputs(&s->an, &want, s->ask->each_runs, &e, exit_code);
        for (int64_t k = 0; k < u->products.len; k++)
            on[u->products.data[k]] = false;
        for (int k = 1; ok && k <= s->n_schemes; k++)
            u->options[k].loss = loss_of(s, &e) * u->noise[k] / u->noise[u->coarsest];
    }
    if (s->ask->shows)
        fprintf(stderr, "\r\033[K");
    return ok;
}

bool search_make_units(struct search *s, int *exit_code)
{
    add_units(s);
    for (int64_t i = 0; i < s->an.list.names.len; i++)
        s->units.data[s->unit_of[i]].options[0].bytes += weight_bytes(s, i, NULL);
    return read_schemes(s, exit_code) && measure_units(s, exit_code);
}
