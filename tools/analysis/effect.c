#include "tools/analysis/effect.h"

#include <math.h>
#include <string.h>

void outputs_find(struct outputs *o, const struct graph *g, const struct calib *data, struct arena *a)
{
    const struct node *yield = graph_yield(g);
    *o = (struct outputs){.g = g, .n = yield->n_in, .words = -1};
    o->names = ARENA_ARRAY(a, const char *, o->n + 1);
    o->counts = ARENA_ARRAY(a, bool, o->n + 1);
    for (int i = o->n - 1; i >= 0; i--) {
        const struct value *v = node_in(yield, i);
        const bool floats = v && v->type->kind == TYPE_TENSOR && dtype_is_float(v->type->dtype);
        o->names[i] = v ? str_text(&g->module->cx->strings, v->name) : "";
        o->counts[i] = floats;
        if (floats && (strstr(o->names[i], "logits") || (o->words < 0 && i == 0 && data->by_tokens)))
            o->words = i;
    }
    bool none = true;
    for (int i = 0; i < o->n; i++)
        none = none && !o->counts[i];
    for (int i = 0; none && i < o->n; i++)
        o->counts[i] = true;
    o->text = data->by_tokens && o->words >= 0;
    for (int i = 0; o->words >= 0 && i < o->n; i++)
        o->counts[i] = i == o->words;
}

void effect_init(struct effect *e, const struct outputs *o, struct arena *a)
{
    *e = (struct effect){.arena = a, .errors = ARENA_ARRAY(a, struct metric_error, o->n + 1)};
}

static void read_row(const struct k_tensor *t, int64_t row, int64_t n, float *to)
{
    if (t->dtype == DT_F32)
        memcpy(to, (const float *)t->data + row * n, (size_t)n * sizeof *to);
    else
        for (int64_t i = 0; i < n; i++)
            to[i] = (float)k_get_f64(t, row * n + i);
}

/* Rows of logits; where the run is a text of as many tokens, each predicts the next one. */
static void add_words(struct effect *e, const struct k_tensor *x, const struct k_tensor *y, const struct k_tensor *ids)
{
    const int64_t vocab = x->rank > 0 ? x->dims[x->rank - 1] : 0, rows = vocab > 0 ? k_count(x) / vocab : 0;
    const bool text = ids && k_count(ids) == rows;
    float *p = ARENA_ARRAY(e->arena, float, 2 * vocab + 1), *q = p + vocab;
    for (int64_t r = 0; r < rows; r++) {
        read_row(x, r, vocab, p);
        read_row(y, r, vocab, q);
        const struct metric_words w = metric_softmax(p, q, vocab);
        vec_push(e->arena, &e->kl, w.kl);
        e->agree += w.top == w.best;
        const int64_t next = text && r + 1 < rows ? k_get_i64(ids, r + 1) : -1;
        if (next < 0 || next >= vocab)
            continue;
        e->predicted++;
        e->nats_before += w.x_log_sum - (double)p[next];
        e->nats += w.y_log_sum - (double)q[next];
    }
}

bool effect_add(struct effect *e, const struct outputs *o, const struct k_tensor *x, const struct k_tensor *y,
                const struct k_tensor *ids)
{
    for (int i = 0; i < o->n; i++) {
        const struct value *v = node_in(graph_yield(o->g), i);
        if (!v || v->type->kind != TYPE_TENSOR || v->type->dtype == DT_STRING)
            continue;
        if (!metric_add(&e->errors[i], &x[i], &y[i]))
            return false;
        if (i == o->words)
            add_words(e, &x[i], &y[i], o->text ? ids : NULL);
    }
    return true;
}

struct effect_summary effect_summarise(struct effect *e, const struct outputs *o)
{
    struct effect_summary s = {.agreement = 1};
    int64_t counted = 0;
    for (int i = 0; i < o->n; i++) {
        s.noise += o->counts[i] ? metric_noise(&e->errors[i]) : 0;
        counted += o->counts[i];
    }
    s.noise /= counted > 0 ? (double)counted : 1;
    for (int64_t i = 0; i < e->kl.len; i++)
        s.kl += e->kl.data[i] / (double)e->kl.len;
    s.kl99 = metric_quantile(e->kl.data, e->kl.len, 0.99);
    if (e->kl.len > 0) {
        s.kl_most = e->kl.data[e->kl.len - 1];
        s.agreement = (double)e->agree / (double)e->kl.len;
    }
    if (e->predicted > 0) {
        s.perplexity = exp(e->nats / (double)e->predicted);
        s.change = exp((e->nats - e->nats_before) / (double)e->predicted) - 1;
    }
    s.drop = o->words >= 0 ? exp(s.kl) - 1 : sqrt(s.noise);
    return s;
}
