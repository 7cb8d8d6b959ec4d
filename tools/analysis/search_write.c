#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tools/analysis/present.h"
#include "tools/analysis/search_priv.h"
#include "tools/json.h"
#include "tools/table.h"

/* ---- the recipe */

/* Is the choice one for products? */
static bool is_for_products(const struct search *s, int k)
{
    return !s->for_caches[k];
}

static const char *loss_word(const struct search *s)
{
    return s->an.outputs.words >= 0 ? "KL" : "noise";
}

/* Why unit u has its choice: its loss beside those of the others. */
static const char *why(const struct search *s, const struct search_unit *u)
{
    const char *text = arena_printf(s->arena, "search, %s", loss_word(s));
    bool first = true;
    for (int k = 1; k <= s->n_schemes; k++) {
        if (!is_for_products(s, k))
            continue;
        text = arena_printf(s->arena, "%s%s %.2g with %s", text, first ? "" : ",", u->options[k].loss, s->schemes[k]);
        first = false;
    }
    return text;
}

static struct quant_entry entry_of(struct search *s, int64_t product)
{
    const struct search_unit *u = &s->units.data[s->unit_of[product]];
    const char *name = s->an.list.names.data[product];
    struct quant_entry e = {.name = name};
    if (u->choice > 0) {
        const struct quant_entry *from = s->an.comparisons.data[u->choice - 1]->products[product].entry;
        if (from)
            e = *from;
    }
    if (!e.keep && e.form.weight.codes == DT_NONE)
        e.keep = why(s, u);
    else if (!e.keep)
        e.why = why(s, u);
    return e;
}

/* What the data files of the schemes hold of a product goes to that of the recipe. */
static void copy_data(struct search *s, struct quant_store_writer *w, const struct quant_entry *e, int choice)
{
    static const char *const parts[] = {"codes", "scales", "zeros", "smooth", "correct", "turn", "back"};
    struct quant_recipe *from = s->an.comparisons.data[choice - 1]->recipe;
    for (int i = 0; i < (int)NPUC_ARRAY_LEN(parts); i++) {
        const struct k_tensor *t = quant_store_find(&from->store, e->name, parts[i]);
        if (t)
            quant_store_put(w, e->name, parts[i], t);
    }
}

static bool has_data(const struct quant_entry *e)
{
    return !e->keep && (e->form.weight.data || e->smooth || e->correct || e->turns);
}

static enum npuc_status write_data(struct search *s, const struct quant_recipe *r, struct quant_store_writer *w,
                                   struct diag *d)
{
    int64_t bytes = 0;
    for (int64_t i = 0; i < r->entries.len; i++)
        bytes += (int64_t)strlen(r->entries.data[i].name);
    enum npuc_status st =
        quant_store_create(w, arena_printf(s->arena, "%s.safetensors", s->ask->out), r->entries.len, bytes, d);
    for (int64_t i = 0; st == NPUC_OK && i < r->entries.len; i++)
        if (has_data(&r->entries.data[i]))
            copy_data(s, w, &r->entries.data[i],
                      i < s->an.list.names.len ? s->units.data[s->unit_of[i]].choice : search_caches(s)->choice);
    return st == NPUC_OK ? quant_store_commit(w, d) : st;
}

static enum npuc_status write_text(const struct search *s, const struct quant_recipe *r, struct diag *d)
{
    struct file_writer w;
    int64_t len;
    const char *text = quant_recipe_text(r, s->arena, &len);
    if (!text)
        return diag_error(d, NULL, D_HOST_MEMORY);
    const enum npuc_status st = file_writer_open(&w, s->ask->out, d);
    if (st != NPUC_OK)
        return st;
    file_writer_put(&w, text, len);
    return file_writer_commit(&w, d);
}

/* How caches are coded, behind the products; false: one of them has the name of a product. */
static bool add_caches(const struct search *s, struct quant_recipe *r)
{
    const struct search_unit *u = search_caches(s);
    bool ok = true;
    if (!u || u->choice == 0)
        return true;
    const struct quant_recipe *from = s->an.comparisons.data[u->choice - 1]->recipe;
    r->cache = from->cache;
    r->keys = from->keys;
    for (int64_t i = 0; ok && i < from->entries.len; i++)
        if (from->entries.data[i].turns || from->entries.data[i].cache.codes != DT_NONE)
            ok = quant_recipe_add(r, &from->entries.data[i]);
    return ok;
}

bool search_write(struct search *s, int *exit_code)
{
    struct quant_recipe r;
    struct quant_store_writer w = {0};
    struct diag *d = &s->an.plain.c.diag;
    const char *base = strrchr(s->ask->out, '/');
    bool added = true;
    quant_recipe_init(&r, s->arena);
    r.scheme = arena_printf(s->arena, "search %s of %s", args_value(s->ask->args, "search"),
                            args_value(s->ask->args, "schemes"));
    for (int64_t i = 0; i < s->an.list.names.len; i++) {
        const struct quant_entry e = entry_of(s, i);
        added = quant_recipe_add(&r, &e) && added; /* names differ, or no recipe of a scheme had been written */
    }
    enum npuc_status st = added && add_caches(s, &r)
                              ? NPUC_OK
                              : diag_error_text(d, &(struct diag_loc){.file = s->ask->model, .index = -1},
                                                D_UNSUPPORTED, "a node and a cache have the same name");
    for (int64_t i = 0; i < r.entries.len; i++)
        if (has_data(&r.entries.data[i]))
            r.data = arena_printf(s->arena, "%s.safetensors", base ? base + 1 : s->ask->out);
    if (st == NPUC_OK && r.data)
        st = write_data(s, &r, &w, d);
    if (st == NPUC_OK)
        st = write_text(s, &r, d);
    quant_store_abort(&w);
    *exit_code = diag_exit_code(st);
    return st == NPUC_OK;
}

/* ---- reports */

/* Products of each choice at a point; the choice for caches. */
static int count_choices(const struct search *s, int64_t point, int64_t *counts)
{
    int *choice = ARENA_ARRAY(s->arena, int, s->units.len + 1);
    memset(counts, 0, sizeof *counts * (SEARCH_SCHEMES + 1));
    for (int64_t i = 1; i <= point; i++)
        choice[s->way.data[i].unit] = s->way.data[i].after;
    for (int64_t i = 0; i < s->units.len; i++)
        counts[choice[i]] += s->units.data[i].products.len;
    return search_caches(s) ? choice[s->units.len - 1] : 0;
}

/* Points that people see: those looked at, and some between. */
static bool is_shown(const struct search *s, int64_t point)
{
    const int64_t last = s->way.len - 1, each = last / 8 + 1;
    const struct search_point *p = &s->way.data[point];
    return p->measured || p->compiled || point % each == 0 || point == last;
}

static void heading(const struct search *s, struct table *t)
{
    table_put(t, "point");
    for (int k = 0; k <= s->n_schemes; k++)
        if (is_for_products(s, k))
            table_put(t, s->schemes[k]);
    if (search_caches(s))
        table_put(t, "caches");
    table_put(t, arena_printf(s->arena, "expected %s", loss_word(s)));
    table_put(t, loss_word(s));
    table_put(t, s->an.outputs.text ? "perplexity" : "drop");
    table_put(t, "weights");
    if (search_caches(s))
        table_put(t, "cache bytes");
    table_put(t, "us");
    table_put(t, "");
}

static void point_row(const struct search *s, int64_t at, struct table *t)
{
    const struct search_point *p = &s->way.data[at];
    const struct effect_summary *e = &p->effect;
    const bool words = s->an.outputs.words >= 0;
    int64_t counts[SEARCH_SCHEMES + 1];
    char *bytes = ARENA_ARRAY(s->arena, char, BYTES_TEXT), *kv = ARENA_ARRAY(s->arena, char, BYTES_TEXT);
    const int caches = count_choices(s, at, counts);
    table_put(t, arena_printf(s->arena, "%" PRId64, at));
    for (int k = 0; k <= s->n_schemes; k++)
        if (is_for_products(s, k))
            table_put(t, arena_printf(s->arena, "%" PRId64, counts[k]));
    if (search_caches(s))
        table_put(t, s->schemes[caches]);
    table_put(t, arena_printf(s->arena, "%.3g", p->loss));
    table_put(t, p->measured ? arena_printf(s->arena, "%.3g", words ? e->kl : e->noise) : "");
    table_put(t,
              p->measured ? arena_printf(s->arena, "%+.3f %%", 100 * (s->an.outputs.text ? e->change : e->drop)) : "");
    table_put(t, p->compiled ? bytes_text(bytes, (double)p->plan.weight_bytes) : "");
    if (search_caches(s))
        table_put(t, p->compiled ? bytes_text(kv, (double)p->plan.cache_bytes) : "");
    table_put(t, p->compiled ? arena_printf(s->arena, "%.1f", p->plan.us) : "");
    table_put(t, at == s->chosen ? "<- chosen" : "");
}

void search_print(const struct search *s)
{
    struct table t;
    char align[SEARCH_SCHEMES + 11];
    int columns = search_caches(s) ? 9 : 7;
    for (int k = 0; k <= s->n_schemes; k++)
        columns += is_for_products(s, k);
    memset(align, 'r', sizeof align);
    align[columns - 1] = 'l';
    align[columns] = '\0';
    table_init(&t, s->arena, align);
    heading(s, &t);
    for (int64_t i = 0; i < s->way.len; i++)
        if (is_shown(s, i))
            point_row(s, i, &t);
    printf("%s: %" PRId64 " products in %" PRId64 " units, %" PRId64 " points; %s\n", s->ask->model,
           s->an.list.names.len, s->units.len, s->way.len, args_value(s->ask->args, "search"));
    table_text(&t, stdout);
}

static json_t *point_json(const struct search *s, int64_t at)
{
    const struct search_point *p = &s->way.data[at];
    int64_t counts[SEARCH_SCHEMES + 1];
    json_t *j = json_object(), *c = json_object();
    const int caches = count_choices(s, at, counts);
    for (int k = 0; k <= s->n_schemes; k++)
        if (is_for_products(s, k))
            json_put(c, s->schemes[k], json_integer(counts[k]));
    json_put(j, "products", c);
    if (search_caches(s))
        json_put(j, "caches", json_text(s->schemes[caches]));
    json_put(j, "expected_loss", json_number(p->loss));
    json_put(j, search_caches(s) ? "expected_bytes" : "expected_weight_bytes", json_number(p->bytes));
    if (p->measured) {
        json_put(j, s->an.outputs.words >= 0 ? "kl" : "noise",
                 json_number(s->an.outputs.words >= 0 ? p->effect.kl : p->effect.noise));
        json_put(j, "drop", json_number(p->effect.drop));
        if (s->an.outputs.text)
            json_put(j, "change", json_number(p->effect.change));
    }
    if (p->compiled) {
        json_put(j, "weight_bytes", json_integer(p->plan.weight_bytes));
        if (search_caches(s))
            json_put(j, "cache_bytes", json_integer(p->plan.cache_bytes));
        json_put(j, "us", json_number(p->plan.us));
    }
    return j;
}

static json_t *unit_json(const struct search *s, const struct search_unit *u)
{
    json_t *j = json_object(), *names = json_array(), *loss = json_object();
    for (int64_t i = 0; i < u->products.len; i++)
        json_array_append_new(names, json_text(s->an.list.names.data[u->products.data[i]]));
    for (int k = 1; k <= s->n_schemes; k++)
        if (s->for_caches[k] == u->caches)
            json_put(loss, s->schemes[k], json_number(u->options[k].loss));
    json_put(j, u->caches ? "caches" : "products", u->caches ? json_true() : json_incref(names));
    json_decref(names);
    json_put(j, "choice", json_text(s->schemes[u->choice]));
    json_put(j, "loss", loss);
    return j;
}

json_t *search_json(const struct search *s)
{
    json_t *j = json_object(), *points = json_array(), *units = json_array();
    for (int64_t i = 0; i < s->way.len; i++)
        json_array_append_new(points, point_json(s, i));
    for (int64_t i = 0; i < s->units.len; i++)
        json_array_append_new(units, unit_json(s, &s->units.data[i]));
    json_put(j, "recipe", json_text(s->ask->out));
    json_put(j, "limit", json_text(args_value(s->ask->args, "search")));
    json_put(j, "target", json_text(s->way.data[s->chosen].plan.target));
    json_put(j, "chosen", json_integer(s->chosen));
    json_put(j, "points", points);
    json_put(j, "units", units);
    return j;
}
