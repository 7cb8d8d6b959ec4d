#include <math.h>
#include <string.h>

#include "base/file.h"
#include "tools/analysis/present.h"
#include "tools/json.h"
#include "tools/term.h"

enum { SHOWN_BINS = 64, SHOWN_CHANNELS = 64 };

static json_t *error_json(const struct metric_error *e)
{
    json_t *j = json_object();
    json_put(j, "sqnr_db", json_number(metric_sqnr(e)));
    json_put(j, "cosine", json_number(metric_cosine(e)));
    json_put(j, "mse", json_number(metric_mse(e)));
    json_put(j, "max_error", json_number(e->most));
    if (e->bad > 0)
        json_put(j, "not_finite", json_integer(e->bad));
    return j;
}

static json_t *summary_json(const struct effect_summary *s, const struct outputs *o)
{
    json_t *j = json_object();
    json_put(j, "noise", json_number(s->noise));
    if (o->words >= 0) {
        json_t *kl = json_object();
        json_put(kl, "mean", json_number(s->kl));
        json_put(kl, "p99", json_number(s->kl99));
        json_put(kl, "max", json_number(s->kl_most));
        json_put(j, "kl", kl);
        json_put(j, "top1_agreement", json_number(s->agreement));
    }
    if (o->text) {
        json_put(j, "perplexity", json_number(s->perplexity));
        json_put(j, "change", json_number(s->change));
    }
    return j;
}

/* ---- what is known of a product's input */

/* The observer's bins between the extremes, merged to few: {"low", "high", "counts"}. */
static json_t *histogram_json(const struct observer *o)
{
    int64_t first = OBSERVE_BINS, last = 0, counts[SHOWN_BINS] = {0};
    for (int64_t i = 0; i < OBSERVE_BINS; i++)
        if (o->count[i] > 0) {
            first = i < first ? i : first;
            last = i;
        }
    const int64_t each = first > last ? 1 : (last - first) / SHOWN_BINS + 1;
    for (int64_t i = first; i <= last; i++)
        counts[(i - first) / each] += o->count[i];
    json_t *j = json_object(), *list = json_array();
    for (int64_t i = 0; first + i * each <= last && i < SHOWN_BINS; i++)
        json_array_append_new(list, json_integer(counts[i]));
    json_put(j, "low", json_number(observer_bin_low(o, first > last ? 0 : first)));
    json_put(j, "high",
             json_number(observer_bin_low(o, (first > last ? 0 : first) + each * (int64_t)json_array_size(list))));
    json_put(j, "counts", list);
    return j;
}

/* Largest magnitudes: of stretches of channels in order, and the channels with the largest of all. */
static json_t *channels_json(const struct observer *o)
{
    json_t *j = json_object(), *list = json_array(), *top = json_array();
    const int64_t each = (o->n_channels + SHOWN_CHANNELS - 1) / SHOWN_CHANNELS;
    for (int64_t i = 0; i < o->n_channels; i += each) {
        float most = 0;
        for (int64_t k = i; k < i + each && k < o->n_channels; k++)
            most = fmaxf(most, o->channel[k]);
        json_array_append_new(list, json_number((double)most));
    }
    float below = INFINITY;
    for (int64_t n = 0; n < 5 && n < o->n_channels; n++) {
        int64_t at = -1;
        for (int64_t k = 0; k < o->n_channels; k++)
            if (o->channel[k] < below && (at < 0 || o->channel[k] > o->channel[at]))
                at = k;
        if (at < 0)
            break;
        below = o->channel[at];
        json_array_append_new(top, json_pack("{s:I, s:f}", "channel", (json_int_t)at, "most", (double)below));
    }
    json_put(j, "count", json_integer(o->n_channels));
    json_put(j, "most", list);
    json_put(j, "top", top);
    return j;
}

static json_t *input_json(const struct observer *o)
{
    json_t *j = json_object();
    json_put(j, "low", json_number(o->lo));
    json_put(j, "high", json_number(o->hi));
    json_put(j, "rms", json_number(o->n > 0 ? sqrt(o->squares / (double)o->n) : 0));
    json_put(j, "histogram", histogram_json(o));
    if (o->channel)
        json_put(j, "channels", channels_json(o));
    return j;
}

/* ---- a recipe */

static json_t *product_json(const struct analysis *an, const struct comparison *c, int64_t i)
{
    static const char *const local[PART_CACHES] = {"local", "local_weights", "local_inputs"};
    const struct product_figures *f = &c->products[i];
    json_t *j = json_object();
    json_put(j, "name", json_text(an->list.names.data[i]));
    if (f->entry && f->entry->keep)
        json_put(j, "keep", json_text(f->entry->keep));
    if (f->entry && f->entry->form.weight.codes)
        json_put(j, "weight", json_text(quant_operand_words(&f->entry->form.weight, an->arena)));
    if (f->entry && f->entry->form.input.codes)
        json_put(j, "input", json_text(quant_operand_words(&f->entry->form.input, an->arena)));
    for (int p = 0; p < PART_CACHES; p++)
        if (f->has_local[p])
            json_put(j, local[p], error_json(&f->local[p]));
    if (f->has_cumulative)
        json_put(j, "cumulative", error_json(&f->cumulative));
    if (f->clipped.of > 0)
        json_put(j, "clipped", json_number((double)f->clipped.n / (double)f->clipped.of));
    if (c->has_each && f->coded) {
        json_put(j, "isolated", summary_json(&f->isolated, &an->outputs));
        json_put(j, "inverse", summary_json(&f->inverse, &an->outputs));
    }
    return j;
}

static json_t *outputs_json(const struct analysis *an, const struct comparison *c)
{
    json_t *list = json_array();
    for (int i = 0; i < an->outputs.n; i++) {
        json_t *j = error_json(&c->effects[PART_ALL].errors[i]);
        json_put(j, "name", json_text(an->outputs.names[i]));
        json_put(j, "counts", json_boolean(an->outputs.counts[i]));
        json_array_append_new(list, j);
    }
    return list;
}

static json_t *comparison_json(const struct analysis *an, const struct comparison *c)
{
    json_t *j = json_object(), *effects = json_object(), *products = json_array();
    json_put(j, c->recipe ? "recipe" : "model", json_text(c->path));
    json_put(j, "scheme", json_text(c->scheme));
    for (int p = 0; p < PART_COUNT; p++)
        if (c->has_part[p])
            json_put(effects, variant_part_names[p], summary_json(&c->parts[p], &an->outputs));
    json_put(j, "effects", effects);
    json_put(j, "outputs", outputs_json(an, c));
    if (c->plan.target) {
        json_t *p = json_object();
        json_put(p, "target", json_text(c->plan.target));
        json_put(p, "weight_bytes", json_integer(c->plan.weight_bytes));
        json_put(p, "memory_bytes", json_integer(c->plan.memory_bytes));
        json_put(p, "us", json_number(c->plan.us));
        if (c->plan.prefill_us > 0)
            json_put(p, "prefill_us", json_number(c->plan.prefill_us));
        json_put(p, "cycles", json_number(c->plan.cycles));
        json_put(j, "plan", p);
    }
    for (int64_t i = 0; i < an->list.names.len; i++)
        json_array_append_new(products, product_json(an, c, i));
    json_put(j, "products", products);
    int64_t n;
    const int64_t *order = analysis_ranking(an, c, &n);
    json_t *ranking = json_array();
    for (int64_t i = 0; i < n; i++)
        json_array_append_new(ranking, json_text(an->list.names.data[order[i]]));
    json_put(j, "ranking", ranking);
    return j;
}

json_t *analysis_json(const struct analysis *an)
{
    json_t *j = json_object(), *recipes = json_array(), *inputs = json_array();
    json_put(j, "model", json_text(an->model));
    json_put(j, "data", json_text(an->data.path));
    json_put(j, "runs", json_integer(an->runs));
    json_put(j, "each_runs", json_integer(an->each_runs));
    for (int64_t i = 0; i < an->list.names.len; i++) {
        json_t *one = input_json(&an->inputs[i]);
        json_put(one, "product", json_text(an->list.names.data[i]));
        json_array_append_new(inputs, one);
    }
    for (int64_t i = 0; i < an->comparisons.len; i++)
        json_array_append_new(recipes, comparison_json(an, an->comparisons.data[i]));
    json_put(j, "inputs", inputs);
    json_put(j, "comparisons", recipes);
    return j;
}

/* ---- CSV */

static void csv_word(FILE *f, const char *s)
{
    fputc('"', f);
    for (; s && *s; s++)
        fprintf(f, *s == '"' ? "\"\"" : "%c", *s);
    fputc('"', f);
}

static void csv_error(FILE *f, const struct metric_error *e, bool known)
{
    if (known)
        fprintf(f, ",%.6g,%.9g,%.6g,%.6g", metric_sqnr(e), metric_cosine(e), metric_mse(e), e->most);
    else
        fputs(",,,,", f);
}

static void csv_line(FILE *f, const struct analysis *an, const struct comparison *c, int64_t i)
{
    const struct product_figures *p = &c->products[i];
    csv_word(f, c->path);
    fputc(',', f);
    csv_word(f, an->list.names.data[i]);
    fputc(',', f);
    csv_word(f, p->entry ? quant_operand_words(&p->entry->form.weight, an->arena) : "");
    fputc(',', f);
    csv_word(f, p->entry ? quant_operand_words(&p->entry->form.input, an->arena) : "");
    csv_error(f, &p->local[PART_ALL], p->has_local[PART_ALL]);
    csv_error(f, &p->cumulative, p->has_cumulative);
    for (int k = PART_WEIGHTS; k < PART_CACHES; k++)
        fprintf(f, p->has_local[k] ? ",%.6g" : ",", metric_sqnr(&p->local[k]));
    fprintf(f, p->clipped.of > 0 ? ",%.6g" : ",", (double)p->clipped.n / (double)p->clipped.of);
    if (c->has_each && p->coded)
        fprintf(f, ",%.6g,%.6g,%.6g,%.6g\n", p->isolated.noise, p->isolated.kl, p->inverse.noise, p->inverse.kl);
    else
        fputs(",,,,\n", f);
}

int analysis_write_csv(const struct analysis *an, const char *path)
{
    FILE *f = fopen(path, "w");
    if (!f) {
        term_error("%s: cannot be written", path);
        return diag_exit_code(NPUC_E_IO);
    }
    fputs("recipe,product,weight,input,local_sqnr_db,local_cosine,local_mse,local_max_error,cumulative_sqnr_db,"
          "cumulative_cosine,cumulative_mse,cumulative_max_error,weights_sqnr_db,inputs_sqnr_db,clipped,"
          "isolated_noise,isolated_kl,inverse_noise,inverse_kl\n",
          f);
    for (int64_t k = 0; k < an->comparisons.len; k++)
        for (int64_t i = 0; i < an->list.names.len; i++)
            csv_line(f, an, an->comparisons.data[k], i);
    const bool bad = ferror(f) != 0;
    if (fclose(f) == 0 && !bad)
        return 0;
    term_error("%s: cannot be written", path);
    return diag_exit_code(NPUC_E_IO);
}
