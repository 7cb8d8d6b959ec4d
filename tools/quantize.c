#include "tools/quantize.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "quant/codes.h"
#include "quant/scheme.h"
#include "tools/awq.h"
#include "tools/equalise.h"
#include "tools/left.h"
#include "tools/origin.h"
#include "tools/term.h"
#include "tools/turn.h"
#include "tools/windows.h"

void quantize_init(struct quantization *q, struct arena *a)
{
    *q = (struct quantization){
        .arena = a,
        .ask = {.runs = INT64_MAX, .parts = 1, .memory = (int64_t)1 << 30, .input_error = 0.01, .keep_outliers = -1}};
    compilation_init(&q->c);
    strtab_init(&q->names, a);
    map_init(&q->by_node, a);
    map_init(&q->by_name, a);
    map_init(&q->by_value, a);
    quant_recipe_init(&q->recipe, a);
}

void quantize_free(struct quantization *q)
{
    origin_close(q);
    turn_close(q);
    quant_store_abort(&q->store);
    compilation_free(&q->c);
}

/* ---- the scheme */

/* A scheme has products, caches or both: w8a16, kv8, w8a16+kv8. */
struct scheme_parts {
    struct quant_scheme products; /* name NULL: none */
    const char *cache;            /* as recipes write it; NULL: none */
};

static bool read_scheme(struct quantization *q, const char *scheme, struct scheme_parts *p)
{
    const char *plus = strrchr(scheme, '+');
    *p = (struct scheme_parts){.cache = quant_cache_scheme_find(plus ? plus + 1 : scheme)};
    if (p->cache && !plus)
        return true;
    const char *products = p->cache ? arena_strndup(q->arena, scheme, plus - scheme) : scheme;
    return quant_scheme_find(products, q->arena, &p->products);
}

/* A part of a recipe; an input that ends in " static" waits for its scale. */
static const char *part_of_scheme(struct arena *a, const char *name, const char *weight, const char *input,
                                  const char *activations)
{
    static const char fixed[] = " static";
    const size_t n = strlen(input), m = strlen(fixed);
    const bool waits = n > m && strcmp(input + n - m, fixed) == 0;
    const char *text = arena_printf(a, "[%s]\nweight = %s by=minmax\n", name, weight);
    return n == 0 ? text
                  : arena_printf(a, "%sinput = %.*s%s%s\n", text, (int)(waits ? n - m : n), input,
                                 waits ? " scale=1 by=" : "", waits ? activations : "");
}

static bool is_calibrated(const struct quant_operand *input)
{
    return input->codes != DT_NONE && !input->dynamic && !input->cast;
}

enum npuc_status quantize_scheme(struct quantization *q, const char *scheme, const char *weights,
                                 const char *activations, bool *calibrates)
{
    struct scheme_parts p;
    if (!read_scheme(q, scheme, &p))
        return diag_error_text(&q->c.diag, NULL, D_USAGE, arena_printf(q->arena, "there is no scheme '%s'", scheme));
    const struct quant_scheme *f = &p.products;
    const bool differs = f->name && *f->last_weight;
    const char *text = "version = 1\n", *range = activations ? activations : "minmax";
    if (p.cache)
        text = arena_printf(q->arena, "%skv = %s\n", text, p.cache);
    if (f->name)
        text = arena_printf(q->arena, "%s%s%s", text, part_of_scheme(q->arena, "all", f->weight, f->input, range),
                            differs ? part_of_scheme(q->arena, "last", f->last_weight, f->last_input, range) : "");
    struct quant_recipe one;
    const enum npuc_status s =
        quant_recipe_parse(&one, "the scheme", text, (int64_t)strlen(text), q->arena, &q->c.diag);
    if (s != NPUC_OK)
        return s;
    if (f->name) {
        q->ask.form = one.entries.data[0].form;
        const struct quant_product *form = &q->ask.form;
        q->ask.form.weight.by =
            weights ? weights
                    : quant_weight_default(form->weight.codes, form->input.codes != DT_NONE, q->ask.calib != NULL);
        q->ask.last = differs ? one.entries.data[1].form : q->ask.form;
    }
    *calibrates = is_calibrated(&q->ask.form.input);
    q->recipe.cache = one.cache;
    q->recipe.keys = one.keys;
    q->ask.scheme = scheme;
    return NPUC_OK;
}

/* Inputs are looked at, also where nothing may be done to them, so that outliers are named. */
static bool equalises(const struct quantization *q)
{
    const struct quant_operand *input = &q->ask.form.input;
    return q->ask.calib && equalise_takes(input) && (q->ask.equalise || !input->dynamic);
}

static bool corrects(const struct quantization *q)
{
    return q->ask.calib && (q->ask.equalise & 1u << QUANT_EQUALISER_correct);
}

unsigned quantize_needs(const struct quant_product *form)
{
    const struct quant_weight_row *row = quant_weight_find(form->weight.by ? form->weight.by : "minmax");
    return row ? row->needs : 0;
}

static bool needs_data(const struct quantization *q)
{
    return is_calibrated(&q->ask.form.input) || quantize_needs(&q->ask.form) != 0 || equalises(q) || corrects(q);
}

/* ---- products */

/* Is the result of n an output of the model, but for changes of type and shape? */
static bool makes_output(const struct node *n)
{
    const struct value *v = &n->out[0];
    for (const struct use *u = v->uses; u; u = v->uses) {
        const struct node *user = u->user;
        if (user == graph_yield(user->graph))
            return !user->graph->owner;
        if (u->next || user->n_out != 1 || (user->op != OP_Cast && user->op != OP_Reshape && user->op != OP_Add))
            return false;
        v = &user->out[0];
    }
    return false;
}

/* Length of the rows that n multiplies with its weight [k, n] ([n, k] of a Gemm with transB), or channels of its maps.
 */
static int64_t row_length(const struct quantization *q, const struct node *n)
{
    const struct type *x = node_in(n, 0)->type, *w = node_in(n, 1)->type;
    int64_t k = 1;
    const expr e = n->op == OP_Conv ? x->dims[1] : w->dims[node_attr_int(n, "transB", 0) ? w->rank - 1 : w->rank - 2];
    return expr_is_const(&q->c.cx.exprs, e, &k) ? k : 1;
}

/* Why neither weight nor input can share scales in groups; NULL: they can. */
static const char *why_no_groups(const struct quantization *q, const struct quant_found *f)
{
    const struct quant_operand *input = &f->form.input, *weight = &f->form.weight;
    const bool parts = input->per == QUANT_PER_GROUP;
    if (f->n->op == OP_Conv)
        return parts || weight->per == QUANT_PER_GROUP ? "a convolution has no groups: 8 bits per channel instead"
                                                       : NULL;
    return parts && (row_length(q, f->n) % input->group != 0 || node_in(f->n, 0)->type->rank >= IR_MAX_RANK)
               ? "groups do not divide rows of its input: 8 bits per channel instead"
               : NULL;
}

/* Products without groups get weights of 8 bits per channel; inputs in groups stay. */
static void part_no_groups(const struct quantization *q, struct quant_found *f)
{
    const struct quant_operand wide = {.codes = DT_I8, .per = QUANT_PER_CHANNEL, .by = "minmax"};
    const char *why = why_no_groups(q, f);
    if (!why)
        return;
    f->why = why;
    f->form.weight = wide;
    if (f->form.input.per == QUANT_PER_GROUP)
        f->form.input = (struct quant_operand){0};
}

/* As a quantiser that codes nothing: it notes what could be coded. */
static const struct quant_product *note_product(void *user, const struct node *n, const char *name)
{
    struct quantization *q = user;
    const uint64_t value = node_in(n, 0)->id, *known = map_find(&q->by_value, value);
    struct quant_found f = {.name = arena_strndup(q->arena, name, (int64_t)strlen(name)), .n = n};
    f.form = !q->ask.narrow_last && makes_output(n) ? q->ask.last : q->ask.form;
    part_no_groups(q, &f);
    if (q->ask.keeps && q->ask.keeps(q->ask.user, name))
        f.keep = "asked for by --keep";
    if (known && n->op != OP_Conv && q->sources.data[*known - 1].first->op != OP_Conv) {
        f.source = (int64_t)*known - 1;
    } else {
        struct quant_source s = {.first = n, .value = value};
        f.source = q->sources.len;
        vec_push(q->arena, &q->sources, s);
        map_put(&q->by_value, value, (uint64_t)q->sources.len);
    }
    vec_push(q->arena, &q->sources.data[f.source].products, q->products.len);
    vec_push(q->arena, &q->products, f);
    map_put(&q->by_node, n->id, (uint64_t)q->products.len);
    if (map_find(&q->by_name, str_internz(&q->names, f.name)))
        q->twice = f.name;
    map_put(&q->by_name, str_internz(&q->names, f.name), (uint64_t)q->products.len);
    return NULL;
}

enum npuc_status quantize_walk(struct quantization *q, const struct quantiser *quantiser)
{
    static const struct pass_step step = {PASS_apply_recipe, NULL};
    const struct pass_run run = {0};
    struct pass_ctx px;
    pass_ctx_init(&px, q->c.module, NULL);
    px.options.quantiser = quantiser;
    const enum npuc_status s = pass_run_all(&px, &step, 1, &run);
    pass_ctx_free(&px);
    return s;
}

static enum npuc_status same_name(struct quantization *q, const char *name)
{
    return diag_error_text(
        &q->c.diag, &(struct diag_loc){.file = q->c.cx.file, .index = -1}, D_UNSUPPORTED,
        arena_printf(q->arena, "two products come from nodes named '%s'; a recipe needs different names", name));
}

static enum npuc_status find_products(struct quantization *q)
{
    const struct quantiser notes = {.user = q, .product = note_product};
    const enum npuc_status s = quantize_walk(q, &notes);
    if (s == NPUC_OK && q->twice)
        return same_name(q, q->twice);
    if (s == NPUC_OK)
        left_note(q);
    if (s == NPUC_OK && q->products.len == 0)
        return diag_error_text(
            &q->c.diag, &(struct diag_loc){.file = q->c.cx.file, .index = -1}, D_UNSUPPORTED,
            "the model has no MatMul, Gemm or Conv with a constant float weight: there is nothing to quantise (--from "
            "reads the codes of a model that has some; schemes of KV caches work alone)");
    return s;
}

struct quant_found *quantize_found(const struct quantization *q, const struct node *n)
{
    const uint64_t *at = map_find(&q->by_node, n->id);
    return at ? &q->products.data[*at - 1] : NULL;
}

void quantize_put(struct quantization *q, const char *name, const char *part, const float *data, int64_t n)
{
    const struct k_tensor t = {
        .dtype = DT_F32, .rank = 1, .dims = {n}, .data = (void *)(uintptr_t)data, .size = n * (int64_t)sizeof *data};
    quant_store_put(&q->store, name, part, &t);
}

void quantize_smooth(struct quantization *q, struct quant_found *f, const float *smooth, int64_t k)
{
    f->form.smooth = (struct quant_vector){smooth, smooth ? k : 0};
    f->has_smooth = smooth != NULL;
    if (smooth)
        quantize_put(q, f->name, "smooth", smooth, k);
}

/* ---- walks over the data */

static bool is_wanted(const struct quantization *q, const struct quant_source *s)
{
    for (int64_t i = 0; i < s->products.len; i++)
        if (!q->products.data[s->products.data[i]].keep)
            return true;
    return false;
}

static enum npuc_status watch_node(void *user, const struct node *n, const struct k_tensor *const *in)
{
    struct quantization *q = user;
    const struct quant_found *f = quantize_found(q, n);
    if (!f)
        return NPUC_OK;
    if (f->source >= q->last)
        return NPUC_E_CANCELLED; /* nothing behind it is wanted in this walk */
    struct quant_source *s = &q->sources.data[f->source];
    struct k_window windows;
    if (f->source < q->first || s->first != n || !is_wanted(q, s))
        return NPUC_OK;
    const struct k_window *w = n->op == OP_Conv && windows_of(n, in[0], in[1], &windows) ? &windows : NULL;
    const char *why = quant_statistics_add(&s->stats, in[0], w, q->arena);
    const float *was = q->origin && q->first > 0 && !why ? origin_rows(q, f->source, k_count(in[0])) : NULL;
    if (was && !quant_statistics_compare(&s->stats, was, in[0], w, q->arena))
        why = "there is no memory for its rows";
    return why ? node_error(&q->c.cx, n, D_RUN_FAULT, "%s", why) : NPUC_OK;
}

static enum npuc_status one_run(struct quantization *q, int64_t i)
{
    const struct ir_watch watch = {.node = watch_node, .user = q};
    struct arena a; /* what origin_run reads lives while the run does */
    arena_init(&a, NULL);
    enum npuc_status s = q->origin && q->first > 0 ? origin_run(q, i, &a) : NPUC_OK;
    if (s == NPUC_OK)
        s = calib_run(&q->data, i, &q->c.cx, q->c.module->funcs.data[0], &watch);
    arena_free(&a);
    return s == NPUC_E_CANCELLED ? NPUC_OK : s;
}

/* Statistics of sources [first, last). */
static enum npuc_status calibrate(struct quantization *q)
{
    enum npuc_status s = NPUC_OK;
    for (int64_t i = 0; s == NPUC_OK && i < q->ask.runs; i++) {
        s = one_run(q, i);
        if (q->ask.shows)
            fprintf(stderr,
                    "\r  calibrating  %" PRId64 " of %" PRId64 " runs, products of %" PRId64 " of %" PRId64 " values ",
                    i + 1, q->ask.runs, q->last, q->sources.len);
    }
    if (q->ask.shows)
        fprintf(stderr, "\r\033[K");
    return s;
}

/* Kinds of statistics that the products of a source use. */
static unsigned kinds_of(const struct quantization *q, const struct quant_source *s, unsigned kinds)
{
    for (int64_t i = 0; i < s->products.len; i++) {
        const struct quant_found *f = &q->products.data[s->products.data[i]];
        if (!f->keep && quantize_needs(&f->form) != 0)
            return kinds;
    }
    return kinds & ~(unsigned)(QUANT_GRAM | QUANT_CROSS);
}

static int64_t count_sources_of_codes(const struct quantization *q)
{
    int64_t n = 0;
    for (int64_t i = 0; i < q->sources.len; i++)
        n += kinds_of(q, &q->sources.data[i], QUANT_GRAM) != 0;
    return n;
}

/* The sources from `first` on whose statistics fit into the memory that was asked for, one at least, and that are one
 * of the parts. */
static int64_t last_of_walk(struct quantization *q, unsigned kinds)
{
    const int64_t most = size_ceil_div(count_sources_of_codes(q), q->ask.parts);
    int64_t bytes = 0, i = q->first, n = 0;
    for (; i < q->sources.len; i++) {
        struct quant_source *s = &q->sources.data[i];
        const unsigned own = kinds_of(q, s, kinds);
        const int64_t groups = node_attr_int(s->first, "group", 1), taps = windows_taps(s->first);
        bytes += quant_statistics_bytes(own, row_length(q, s->first), groups, taps);
        n += (own & QUANT_GRAM) != 0;
        if (i > q->first && (bytes > q->ask.memory || ((own & QUANT_GRAM) && n > most)))
            break;
        quant_statistics_init(&s->stats, own, s->first->op == OP_Conv ? 1 : -1, q->arena);
        if (s->first->op == OP_Conv)
            quant_statistics_of_windows(&s->stats, groups, taps);
    }
    return i;
}

/* ---- codes */

static void choose_inputs(struct quantization *q)
{
    for (int64_t i = 0; i < q->products.len; i++) {
        struct quant_found *f = &q->products.data[i];
        const struct quant_statistics *s = &q->sources.data[f->source].stats;
        if (f->keep || f->source < q->first || f->source >= q->last || !needs_data(q))
            continue;
        if (s->rows == 0)
            f->keep = "it did not run with the calibration data";
        else if (is_calibrated(&f->form.input) && !f->settled)
            quant_calibrate(&f->form.input, &s->seen);
    }
}

static const struct quant_product *product_of(void *user, const struct node *n, const char *name)
{
    struct quantization *q = user;
    (void)name;
    struct quant_found *f = quantize_found(q, n);
    const bool now = f && !f->keep && f->source >= q->first && f->source < q->last;
    return now && f->form.weight.data ? &f->form : NULL;
}

static enum npuc_status open_store(struct quantization *q)
{
    const char *base = strrchr(q->ask.recipe, '/');
    int64_t bytes = 0;
    const int64_t caches = turn_caches(q, &bytes);
    for (int64_t i = 0; i < q->products.len; i++)
        bytes += (int64_t)strlen(q->products.data[i].name);
    q->recipe.data = arena_printf(q->arena, "%s.safetensors", base ? base + 1 : q->ask.recipe);
    return quant_store_create(&q->store, arena_printf(q->arena, "%s.safetensors", q->ask.recipe),
                              q->products.len + caches, bytes, &q->c.diag);
}

/* Codes that take an algorithm to find: they go to the data file, so that whoever compiles reads them. */
static const char *encode(void *user, const char *name, const struct quant_operand *o, const struct quant_matrix *w,
                          struct quant_codes *out, struct arena *a)
{
    struct quantization *q = user;
    const uint64_t *at = map_find(&q->by_name, str_internz(&q->names, name));
    struct quant_matrix m = *w;
    m.seen = &q->sources.data[q->products.data[*at - 1].source].stats;
    const char *why = quant_encode_weight(o, &m, out, a);
    if (why)
        return why;
    if (q->ask.shows)
        fprintf(stderr, "\r  weights  %" PRIu64 " of %" PRId64 " ", *at, q->products.len);
    return quant_save_codes(&q->store, name, o, w, out, a) ? NULL : "there is no memory for its codes";
}

/* Chooses codes of weights; the graph then holds them, so that later walks see what they do. */
static enum npuc_status choose_weights(struct quantization *q)
{
    const struct quantiser codes = {.user = q, .product = product_of, .encode = encode};
    const enum npuc_status s = quantize_walk(q, &codes);
    if (q->ask.shows)
        fprintf(stderr, "\r\033[K");
    return s;
}

/* ---- the recipe */

static enum npuc_status write_recipe(struct quantization *q)
{
    struct file_writer w;
    int64_t len;
    const char *text = quant_recipe_text(&q->recipe, q->arena, &len);
    if (!text)
        return diag_error(&q->c.diag, NULL, D_HOST_MEMORY);
    const enum npuc_status s = file_writer_open(&w, q->ask.recipe, &q->c.diag);
    if (s != NPUC_OK)
        return s;
    file_writer_put(&w, text, len);
    return file_writer_commit(&w, &q->c.diag);
}

static enum npuc_status finish(struct quantization *q)
{
    q->recipe.scheme = q->ask.scheme;
    for (int64_t i = 0; i < q->products.len; i++) {
        const struct quant_found *f = &q->products.data[i];
        struct quant_entry e = {.name = f->name, .keep = f->keep, .why = f->why};
        if (!f->keep) {
            e.form = f->form;
            e.smooth = f->has_smooth;
            e.correct = f->has_correct;
        }
        if (!quant_recipe_add(&q->recipe, &e))
            return same_name(q, f->name);
    }
    for (int64_t i = 0; i < q->left.len; i++) {
        const struct quant_entry *e = &q->left.data[i];
        if (!quant_recipe_find(&q->recipe, e->name) && !quant_recipe_add(&q->recipe, e))
            return same_name(q, e->name);
    }
    const enum npuc_status s = q->recipe.data ? quant_store_commit(&q->store, &q->c.diag) : NPUC_OK;
    return s == NPUC_OK ? write_recipe(q) : s;
}

static enum npuc_status open_data(struct quantization *q)
{
    const enum npuc_status s = calib_open(&q->data, q->ask.calib, q->c.module->funcs.data[0], q->arena, &q->c.diag);
    q->ask.runs = q->ask.runs < q->data.n_runs ? q->ask.runs : q->data.n_runs;
    return s;
}

enum npuc_status quantize_run(struct quantization *q)
{
    const unsigned needs = quantize_needs(&q->ask.form), kinds = needs | (equalises(q) ? QUANT_ROWS : 0);
    const bool turns = turn_wanted(q), stores = !quant_weight_is_quick(q->ask.form.weight.by);
    q->ask.form.weight.data = stores;
    if (q->ask.last.weight.by == q->ask.form.weight.by)
        q->ask.last.weight.data = stores;
    enum npuc_status s = compilation_import(&q->c, q->ask.model);
    if (s == NPUC_OK && q->ask.form.weight.codes != DT_NONE)
        s = find_products(q);
    if (s == NPUC_OK && (needs_data(q) || turns))
        s = open_data(q);
    if (s == NPUC_OK && turns)
        s = turn_open(q);
    if (s == NPUC_OK && (stores || turns || (q->ask.calib && q->ask.equalise)))
        s = open_store(q);
    if (s == NPUC_OK && turns)
        s = turn_keys(q, &q->turned);
    if (s == NPUC_OK && (kinds & QUANT_GRAM) && q->ask.parts > 1)
        s = origin_open(q);
    for (q->first = 0; s == NPUC_OK && q->first < q->sources.len; q->first = q->last) {
        q->last = needs_data(q) ? last_of_walk(q, kinds | (q->origin ? QUANT_CROSS : 0)) : q->sources.len;
        if (needs_data(q))
            s = calibrate(q);
        if (s == NPUC_OK && equalises(q))
            s = equalise_inputs(q);
        if (s == NPUC_OK && (needs & QUANT_ROWS))
            s = awq_inputs(q);
        if (s == NPUC_OK && corrects(q))
            s = equalise_outputs(q);
        choose_inputs(q);
        if (s == NPUC_OK && stores)
            s = choose_weights(q);
    }
    equalise_keep(q);
    return s == NPUC_OK ? finish(q) : s;
}
