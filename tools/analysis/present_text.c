#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/analysis/present.h"
#include "tools/table.h"

const char *quant_operand_words(const struct quant_operand *o, struct arena *a)
{
    static const char *const shares[] = {"tensor", "channel", "token"}; /* enum quant_per */
    if (o->codes == DT_NONE)
        return "";
    const char *share = o->per == QUANT_PER_GROUP ? arena_printf(a, "g%" PRId64, o->group) : shares[o->per];
    return arena_printf(a, "%s %s", dtype_table[o->codes].name, share);
}

/* ---- the order */

struct ranked {
    int64_t place;
    double weight;
};

static int by_weight(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->weight != y->weight)
        return x->weight < y->weight ? 1 : -1;
    return x->place < y->place ? -1 : 1;
}

int64_t *analysis_ranking(const struct analysis *an, const struct comparison *c, int64_t *n)
{
    struct ranked *r = ARENA_ARRAY(an->arena, struct ranked, an->list.names.len + 1);
    int64_t *places = ARENA_ARRAY(an->arena, int64_t, an->list.names.len + 1);
    *n = 0;
    for (int64_t i = 0; i < an->list.names.len; i++) {
        const struct product_figures *f = &c->products[i];
        const double alone = an->outputs.words >= 0 ? f->isolated.kl : f->isolated.noise;
        const struct metric_error *seen = f->has_local[PART_ALL] ? &f->local[PART_ALL] : &f->cumulative;
        if (f->coded || !c->recipe)
            r[(*n)++] = (struct ranked){i, c->has_each ? alone : metric_noise(seen)};
    }
    qsort(r, (size_t)*n, sizeof *r, by_weight);
    for (int64_t i = 0; i < *n; i++)
        places[i] = r[i].place;
    return places;
}

/* ---- cells */

static const char *decibel(const struct analysis *an, const struct metric_error *e, bool known)
{
    if (!known)
        return "";
    const double v = metric_sqnr(e);
    return isfinite(v) ? arena_printf(an->arena, "%.1f", v) : "exact";
}

static const char *number(const struct analysis *an, const char *digits, double v)
{
    return arena_printf(an->arena, strcmp(digits, "%") == 0 ? "%.3f %%" : "%.3g", v);
}

/* ---- tables */

static void put_all(struct table *t, int n, const char *const *cells)
{
    for (int i = 0; i < n; i++)
        table_put(t, cells[i]);
}

static double mean_sqnr(double noise)
{
    return noise > 0 ? -10 * log10(noise) : (double)INFINITY;
}

static void effects_table(const struct analysis *an, const struct comparison *c)
{
    struct table t;
    const bool words = an->outputs.words >= 0, text = an->outputs.text;
    table_init(&t, an->arena, "lrrrrrr");
    put_all(&t, 7,
            (const char *const[]){"quantised", "outputs dB", words ? "KL mean" : "", words ? "KL 99 %" : "",
                                  words ? "KL max" : "", words ? "top 1" : "", text ? "perplexity" : ""});
    for (int p = 0; p < PART_COUNT; p++) {
        const struct effect_summary *s = &c->parts[p];
        const double db = mean_sqnr(s->noise);
        if (!c->has_part[p])
            continue;
        table_put(&t, variant_part_names[p]);
        table_put(&t, isfinite(db) ? arena_printf(an->arena, "%.1f", db) : "exact");
        table_put(&t, words ? number(an, "", s->kl) : "");
        table_put(&t, words ? number(an, "", s->kl99) : "");
        table_put(&t, words ? number(an, "", s->kl_most) : "");
        table_put(&t, words ? arena_printf(an->arena, "%.2f %%", 100 * s->agreement) : "");
        table_put(&t, text ? arena_printf(an->arena, "%+.2f %%", 100 * s->change) : "");
    }
    table_text(&t, stdout);
}

static void product_row(const struct analysis *an, const struct comparison *c, int64_t i, struct table *t)
{
    const struct product_figures *f = &c->products[i];
    const struct metric_error *e = f->has_local[PART_ALL] ? &f->local[PART_ALL] : &f->cumulative;
    const bool words = an->outputs.words >= 0;
    table_put(t, an->list.names.data[i]);
    table_put(t, f->entry ? quant_operand_words(&f->entry->form.weight, an->arena) : "");
    table_put(t, f->entry ? quant_operand_words(&f->entry->form.input, an->arena) : "");
    table_put(t, decibel(an, &f->local[PART_ALL], f->has_local[PART_ALL]));
    table_put(t, decibel(an, &f->local[PART_WEIGHTS], f->has_local[PART_WEIGHTS]));
    table_put(t, decibel(an, &f->local[PART_INPUTS], f->has_local[PART_INPUTS]));
    table_put(t, arena_printf(an->arena, "%.6f", metric_cosine(e)));
    table_put(t, number(an, "", e->most));
    table_put(t, f->clipped.of > 0 ? number(an, "%", 100 * (double)f->clipped.n / (double)f->clipped.of) : "");
    table_put(t, decibel(an, &f->cumulative, f->has_cumulative));
    table_put(t, c->has_each ? number(an, "", words ? f->isolated.kl : f->isolated.noise) : "");
    table_put(t, c->has_each ? number(an, "", words ? f->inverse.kl : f->inverse.noise) : "");
}

static void products_table(const struct analysis *an, const struct comparison *c, int64_t top)
{
    int64_t n;
    const int64_t *order = analysis_ranking(an, c, &n);
    if (n == 0)
        return;
    const char *what = an->outputs.words >= 0 ? "KL" : "noise";
    bool local = false, split = false, clips = false;
    for (int64_t i = 0; i < n; i++) {
        local = local || c->products[order[i]].has_local[PART_ALL];
        split = split || c->products[order[i]].has_local[PART_WEIGHTS];
        clips = clips || c->products[order[i]].clipped.of > 0;
    }
    struct table t;
    table_init(&t, an->arena, "lllrrrrrrrrr");
    put_all(&t, 12,
            (const char *const[]){"product", "weight", "input", local ? "local dB" : "", split ? "weights" : "",
                                  split ? "inputs" : "", "cosine", "max error", clips ? "clipped" : "", "cumulative",
                                  c->has_each ? arena_printf(an->arena, "alone %s", what) : "",
                                  c->has_each ? arena_printf(an->arena, "without %s", what) : ""});
    const int64_t shown = top > 0 && top < n ? top : n;
    for (int64_t i = 0; i < shown; i++)
        product_row(an, c, order[i], &t);
    table_text(&t, stdout);
    if (shown < n)
        printf("... and %" PRId64 " products that matter less (--top 0 shows all)\n", n - shown);
}

void analysis_print(const struct analysis *an, int64_t top)
{
    printf("%s: %" PRId64 " products, %" PRId64 " run%s of %s\n", an->model, an->list.names.len, an->runs,
           an->runs == 1 ? "" : "s", an->data.path);
    for (int64_t i = 0; i < an->comparisons.len; i++) {
        const struct comparison *c = an->comparisons.data[i];
        const struct plan_figures *p = &c->plan;
        char bytes[BYTES_TEXT];
        printf("\n%s%s%s\n", c->path, c->scheme ? ": " : "", c->scheme ? c->scheme : "");
        if (p->target)
            printf("%s: %s of weights, %.1f us%s\n", p->target, bytes_text(bytes, (double)p->weight_bytes), p->us,
                   p->prefill_us > 0 ? arena_printf(an->arena, " a step, prefill %.1f us", p->prefill_us) : "");
        effects_table(an, c);
        printf("\n");
        products_table(an, c, top);
    }
}
