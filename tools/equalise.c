#include "tools/equalise.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ir/hadamard.h"
#include "quant/correct.h"
#include "tools/faces.h"
#include "tools/table.h"

bool equalise_takes(const struct quant_operand *input)
{
    return input->codes != DT_NONE;
}

/* Products of a source that are coded alike. */
static int64_t coded(const struct quantization *q, const struct quant_source *s)
{
    int64_t n = 0;
    for (int64_t i = 0; i < s->products.len; i++)
        n += q->products.data[s->products.data[i]].keep == NULL;
    return n;
}

static bool takes(const struct quantization *q, const struct quant_found *f, const struct quant_source *s)
{
    (void)q;
    return !f->keep && equalise_takes(&f->form.input) && s->stats.n_sample > 0;
}

/* Not convolutions in groups. */
static bool fits(const struct quant_source *s, const struct quant_matrix *w)
{
    return s->stats.groups == 1 && w->k == s->stats.pairs;
}

/* ---- what becomes of an input */

static bool is_map(const struct quant_source *s)
{
    return s->first->op == OP_Conv;
}

/* All weights of a source. */
struct looked {
    const struct quant_face *face;
    int64_t n;
    struct arena *a;
};

/* Maps are not turned, and divided only where factors may go into what makes them. */
static bool try_form(const struct quantization *q, const struct quant_source *s, const struct looked *l,
                     const struct quant_operand *input, struct quant_equalised *out)
{
    unsigned allowed = q->ask.equalise;
    if (is_map(s))
        allowed &= value_has_one_use(node_in(s->first, 0)) ? 1u << QUANT_EQUALISER_smooth : 0;
    return quant_equalise(&s->stats, input, l->face, l->n, allowed, out, l->a);
}

/* Takes the outcome over into all products of the source. */
static bool settle(struct quantization *q, struct quant_source *s, const struct quant_operand *input,
                   const struct quant_equalised *e)
{
    const int64_t k = s->stats.k;
    float *smooth = e->smooth ? arena_copy(q->arena, e->smooth, k * (int64_t)sizeof *e->smooth) : NULL;
    for (int64_t i = 0; i < s->products.len; i++) {
        struct quant_found *f = &q->products.data[s->products.data[i]];
        if (f->keep)
            continue;
        f->settled = true;
        f->form.input = *input;
        if (!input->dynamic && !input->cast && input->codes != DT_NONE) {
            f->form.input.scale = e->scale;
            f->form.input.zero = e->zero;
            f->form.input.by = "output";
        }
        f->form.rotate = e->rotate;
        f->why = s->why;
        quantize_smooth(q, f, smooth, k);
    }
    s->before = e->before;
    s->after = e->added;
    return quant_statistics_turn(&s->stats, smooth, e->rotate, q->arena);
}

static void keep_wide(struct quantization *q, struct quant_source *s, double error)
{
    s->why = arena_printf(q->arena, "the input stays in 16 bits: codes leave an error of %.2g of the output", error);
    for (int64_t i = 0; i < s->products.len; i++) {
        struct quant_found *f = &q->products.data[s->products.data[i]];
        f->form.input = (struct quant_operand){0};
        f->why = s->why;
    }
    s->wide = true;
}

/* The form of the input, as the products ask for it that are not kept. */
static struct quant_operand input_of(const struct quantization *q, const struct quant_source *s)
{
    int64_t i = 0;
    while (i + 1 < s->products.len && q->products.data[s->products.data[i]].keep)
        i++;
    return q->products.data[s->products.data[i]].form.input;
}

/* Factors for the input; where they leave too much, a scale per token; where that does too, no codes. */
static bool choose(struct quantization *q, struct quant_source *s, const struct quant_face *face, int64_t n,
                   struct arena *a)
{
    const struct looked l = {face, n, a};
    struct quant_equalised as_asked, by_token;
    const struct quant_operand input = input_of(q, s);
    if (!try_form(q, s, &l, &input, &as_asked))
        return false;
    if (!q->ask.equalise) {
        s->before = s->after = as_asked.before;
        return true;
    }
    if (as_asked.added <= q->ask.input_error || q->ask.keep_outliers >= 0)
        return settle(q, s, &input, &as_asked);
    const struct quant_operand token = {.codes = DT_I8, .per = QUANT_PER_TOKEN, .dynamic = true};
    if (!input.dynamic && input.codes == DT_I8 && !is_map(s)) {
        if (!try_form(q, s, &l, &token, &by_token))
            return false;
        if (by_token.added <= q->ask.input_error) {
            by_token.before = as_asked.before;
            s->why = arena_printf(q->arena, "a scale per token: one for all leaves an error of %.2g of the output",
                                  as_asked.added);
            s->tokens = true;
            return settle(q, s, &token, &by_token);
        }
    }
    const double error = as_asked.added;
    as_asked.smooth = NULL;
    as_asked.rotate = QUANT_UNROTATED;
    if (!settle(q, s, &input, &as_asked))
        return false;
    keep_wide(q, s, error);
    s->after = 0;
    return true;
}

/* ---- depthwise convolutions */

/* Each output channel has one of the input's, and its weight a scale of its own: factors that bring all channels to one
 * size take nothing from the weight. Of inputs with zero points only those that are never negative. */
static bool is_depthwise(const struct quantization *q, const struct quant_source *s, const struct quant_found *f)
{
    const struct quant_operand *o = &f->form.input;
    return s->products.len == 1 && !f->keep && s->stats.groups == s->stats.k && s->stats.k > 1 && s->stats.rows > 0 &&
           is_map(s) && (q->ask.equalise & 1u << QUANT_EQUALISER_smooth) && value_has_one_use(node_in(s->first, 0)) &&
           o->codes == DT_I8 && !o->dynamic && !o->cast && f->form.weight.per == QUANT_PER_CHANNEL &&
           (!o->shifted || s->stats.seen.lo >= 0);
}

/* Factors of geometric mean 1, within a thousandth of the largest; *top: what all channels then reach at most. Returns
 * how much larger the squared step of a channel is without them, relative to its size: the mean over channels. */
static double level(const float *channel, int64_t k, float *factor, double *top)
{
    const double least = 1e-3;
    double sum = 0, most = 0, steps = 0;
    for (int64_t j = 0; j < k; j++)
        most = fmax(most, (double)channel[j]);
    if (most == 0)
        return 0;
    for (int64_t j = 0; j < k; j++)
        sum += log(fmax((double)channel[j], most * least));
    *top = exp(sum / (double)k);
    for (int64_t j = 0; j < k; j++) {
        const double size = fmax((double)channel[j], most * least);
        factor[j] = (float)(size / *top);
        steps += channel[j] > 0 ? most / size * (most / size) / (double)k : 0;
    }
    return steps;
}

/* Where they make steps of channels half as large, for they may cost a multiplication. */
static enum npuc_status equalise_depthwise(struct quantization *q)
{
    enum { WORTH = 4 };
    for (int64_t i = q->first; i < q->last; i++) {
        struct quant_source *s = &q->sources.data[i];
        struct quant_found *f = &q->products.data[s->products.data[0]];
        if (!is_depthwise(q, s, f))
            continue;
        const int64_t k = s->stats.k;
        float *factor = ARENA_ARRAY(q->arena, float, k);
        double top;
        if (!factor)
            return diag_error(&q->c.diag, NULL, D_HOST_MEMORY);
        if (level(s->stats.seen.channel, k, factor, &top) < WORTH)
            continue;
        const struct quant_scale scale = quant_cover(&f->form.input, DT_F32, s->stats.seen.lo < 0 ? -top : 0, top);
        f->settled = true;
        f->form.input.scale = (double)scale.scale;
        f->form.input.zero = scale.zero;
        f->form.input.by = "output";
        quantize_smooth(q, f, factor, k);
        if (!quant_statistics_turn(&s->stats, factor, QUANT_UNROTATED, q->arena))
            return diag_error(&q->c.diag, NULL, D_HOST_MEMORY);
    }
    return NPUC_OK;
}

enum npuc_status equalise_inputs(struct quantization *q)
{
    const struct faces faces = {takes, fits, coded, choose, "there is no memory to equalise its input", q->ask.shows};
    const enum npuc_status s = faces_walk(q, &faces);
    return s == NPUC_OK ? equalise_depthwise(q) : s;
}

/* ---- corrections */

/* Averages of the input as it is multiplied: divided and turned. */
static const double *means_of(const struct quant_source *s, const struct quant_product *form, struct arena *a)
{
    const int64_t k = s->stats.k;
    double *to = ARENA_ARRAY(a, double, k + 1);
    float *row = ARENA_ARRAY(a, float, k + 1), *scratch = ARENA_ARRAY(a, float, k + 1);
    if (!to || !row || !scratch)
        return NULL;
    for (int64_t i = 0; i < k; i++)
        row[i] = (float)(s->stats.sum[i] / (double)s->stats.rows) /
                 (form->smooth.data ? form->smooth.data[i % form->smooth.n] : 1);
    struct rotation r;
    if (form->rotate != QUANT_UNROTATED) {
        if (!rotation_make(&r, k, a))
            return NULL;
        rotation_apply(&r, row, 1, scratch);
    }
    for (int64_t i = 0; i < k; i++)
        to[i] = (double)row[i];
    return to;
}

/* The factor of element i of channel c of a weight with m's groups. */
static float factor_of(const struct quant_product *form, const struct quant_matrix *w, const struct quant_means *m,
                       int64_t c, int64_t i)
{
    const int64_t of_group = form->smooth.n > m->inputs ? c / (w->channels / m->groups) * m->inputs : 0;
    return form->smooth.data[of_group + i / (w->k / m->inputs)];
}

/* The weight as it is coded. */
static const float *turned_weight(const struct quant_product *form, const struct quant_matrix *w,
                                  const struct quant_means *m, struct arena *a)
{
    float *to = ARENA_ARRAY(a, float, w->channels * w->k + 1), *scratch = ARENA_ARRAY(a, float, w->k + 1);
    struct rotation r;
    if (!to || !scratch)
        return NULL;
    for (int64_t i = 0; i < w->channels * w->k; i++)
        to[i] = w->data[i] * (form->smooth.data ? factor_of(form, w, m, i / w->k, i % w->k) : 1);
    if (form->rotate != QUANT_UNROTATED) {
        if (!rotation_make(&r, w->k, a))
            return NULL;
        rotation_apply(&r, to, w->channels, scratch);
    }
    return to;
}

static const struct quant_product *correct_product(void *user, const struct node *n, const char *name)
{
    static const struct quant_product nothing;
    const struct quantization *q = user;
    const struct quant_found *f = quantize_found(q, n);
    (void)name;
    const bool now = f && !f->keep && f->source >= q->first && f->source < q->last && quantize_needs(&f->form) == 0;
    return now && q->sources.data[f->source].stats.rows > 0 ? &nothing : NULL;
}

static const char *correct(void *user, const char *name, const struct quant_matrix *w)
{
    struct quantization *q = user;
    const uint64_t *at = map_find(&q->by_name, str_internz(&q->names, name));
    struct quant_found *f = &q->products.data[*at - 1];
    const struct quant_source *s = &q->sources.data[f->source];
    const bool conv = f->n->op == OP_Conv;
    struct quant_means m = {.groups = conv ? node_attr_int(f->n, "group", 1) : 1};
    struct quant_matrix turned = *w;
    struct arena a;
    m.inputs = s->stats.k / m.groups;
    arena_init(&a, NULL);
    m.mean = means_of(s, &f->form, &a);
    turned.data = m.mean ? turned_weight(&f->form, w, &m, &a) : NULL;
    float *to = ARENA_ARRAY(q->arena, float, w->channels + 1);
    const char *why = turned.data && to ? quant_correct(&f->form.weight, &turned, &m, to, &a)
                                        : "there is no memory to correct its output";
    arena_free(&a);
    if (why)
        return why;
    f->form.correct = (struct quant_vector){to, w->channels};
    f->has_correct = true;
    quantize_put(q, name, "correct", to, w->channels);
    return NULL;
}

enum npuc_status equalise_outputs(struct quantization *q)
{
    const struct quantiser looks = {.user = q, .product = correct_product, .look = correct};
    return quantize_walk(q, &looks);
}

/* ---- outliers */

static int by_error(const void *a, const void *b)
{
    const struct quant_source *x = *(const struct quant_source *const *)a, *y = *(const struct quant_source *const *)b;
    return x->after > y->after ? -1 : x->after < y->after ? 1 : x < y ? -1 : x > y;
}

void equalise_keep(struct quantization *q)
{
    const struct quant_source **order = ARENA_ARRAY(q->arena, const struct quant_source *, q->sources.len + 1);
    int64_t n = 0;
    for (int64_t i = 0; i < q->sources.len; i++)
        if (q->sources.data[i].after > 0)
            order[n++] = &q->sources.data[i];
    if (n > 0)
        qsort(order, (size_t)n, sizeof *order, by_error);
    for (int64_t i = 0; i < n && i < q->ask.keep_outliers; i++)
        keep_wide(q, &q->sources.data[order[i] - q->sources.data], order[i]->after);
}

/* How far the largest element is above what all but 0.1 % of them are below. */
static double ratio_of(const struct quant_source *s)
{
    const struct quant_range r = quant_range_without(&s->stats.seen, 0.001);
    const double most = fmax(-s->stats.seen.lo, s->stats.seen.hi), usual = fmax(-r.lo, r.hi);
    return usual > 0 ? most / usual : 1;
}

/* Channels with an element above a quarter of the largest. */
static int64_t ruling_channels(const struct quant_source *s)
{
    const struct observer *o = &s->stats.seen;
    const double most = fmax(-o->lo, o->hi);
    int64_t n = 0;
    for (int64_t j = 0; j < s->stats.k; j++)
        n += (double)o->channel[j] > most / 4;
    return n;
}

static bool is_outlier(const struct quantization *q, const struct quant_source *s)
{
    return s->before > q->ask.input_error || s->wide || s->tokens;
}

static const char *what_was_done(const struct quantization *q, const struct quant_source *s)
{
    const struct quant_product *form = &q->products.data[s->products.data[0]].form;
    return s->wide                             ? "kept in 16 bits"
           : s->tokens && form->smooth.data    ? "a scale per token, smoothed"
           : s->tokens                         ? "a scale per token"
           : form->rotate && form->smooth.data ? "smoothed and rotated"
           : form->rotate                      ? "rotated"
           : form->smooth.data                 ? "smoothed"
                                               : "clipped";
}

void equalise_report(const struct quantization *q, FILE *f)
{
    struct table t;
    table_init(&t, q->arena, "lrrrrl");
    const char *const head[] = {"input of", "largest/usual", "channels", "error before", "after", "what was done"};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(head); i++)
        table_put(&t, head[i]);
    int64_t n = 0;
    for (int64_t i = 0; i < q->sources.len; i++) {
        const struct quant_source *s = &q->sources.data[i];
        if (!is_outlier(q, s))
            continue;
        n++;
        table_put(&t, q->products.data[s->products.data[0]].name);
        table_put(&t, arena_printf(q->arena, "%.1f", ratio_of(s)));
        table_put(&t, arena_printf(q->arena, "%" PRId64 " of %" PRId64, ruling_channels(s), s->stats.k));
        table_put(&t, arena_printf(q->arena, "%.2g %%", 100 * s->before));
        table_put(&t, arena_printf(q->arena, "%.2g %%", 100 * s->after));
        table_put(&t, what_was_done(q, s));
    }
    if (n == 0)
        return;
    fprintf(f, "Inputs that few channels or rows rule:\n\n");
    table_text(&t, f);
}

json_t *equalise_json(const struct quantization *q)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < q->sources.len; i++) {
        const struct quant_source *s = &q->sources.data[i];
        if (!is_outlier(q, s))
            continue;
        json_t *j = json_object();
        json_put(j, "product", json_text(q->products.data[s->products.data[0]].name));
        json_put(j, "largest_by_usual", json_number(ratio_of(s)));
        json_put(j, "ruling_channels", json_integer(ruling_channels(s)));
        json_put(j, "channels", json_integer(s->stats.k));
        json_put(j, "error_before", json_number(s->before));
        json_put(j, "error_after", json_number(s->after));
        json_put(j, "done", json_text(what_was_done(q, s)));
        (void)json_array_append_new(list, j);
    }
    return list;
}
