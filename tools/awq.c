#include "tools/awq.h"

#include <string.h>

#include "passes/factors.h"
#include "quant/awq.h"
#include "tools/faces.h"

/* All that reads the value are products by awq, without factors so far. */
static bool is_open(const struct quantization *q, const struct quant_source *s)
{
    const struct value *x = node_in(s->first, 0);
    int64_t uses = 0;
    for_each_use (u, x)
        uses++;
    for (int64_t i = 0; i < s->products.len; i++) {
        const struct quant_found *f = &q->products.data[s->products.data[i]];
        if (f->keep || f->has_smooth || f->form.rotate != QUANT_UNROTATED || f->n->op == OP_Conv ||
            !f->form.weight.by || strcmp(f->form.weight.by, "awq") != 0)
            return false;
    }
    return uses == s->products.len && s->stats.n_sample > 0;
}

static bool takes(const struct quantization *q, const struct quant_found *f, const struct quant_source *s)
{
    (void)f;
    return is_open(q, s);
}

static bool fits(const struct quant_source *s, const struct quant_matrix *w)
{
    return w->k == s->stats.k;
}

static int64_t all_products(const struct quantization *q, const struct quant_source *s)
{
    (void)q;
    return s->products.len;
}

static bool would_fold(struct quantization *q, struct value *x, const float *factor, int64_t k)
{
    struct pass_ctx px;
    const struct factor c = factor_of_columns(x, factor, k);
    pass_ctx_init(&px, q->c.module, NULL);
    const bool folds = factors_would_fold(&px, x, &c);
    pass_ctx_free(&px);
    return folds;
}

/* Takes the factors over into all products of the source. */
static bool settle(struct quantization *q, struct quant_source *s, const float *factor)
{
    const int64_t k = s->stats.k;
    float *smooth = arena_copy(q->arena, factor, k * (int64_t)sizeof *factor);
    for (int64_t i = 0; smooth && i < s->products.len; i++)
        quantize_smooth(q, &q->products.data[s->products.data[i]], smooth, k);
    return smooth && quant_statistics_turn(&s->stats, smooth, QUANT_UNROTATED, q->arena);
}

static bool choose(struct quantization *q, struct quant_source *s, const struct quant_face *face, int64_t n,
                   struct arena *a)
{
    const int64_t k = s->stats.k;
    struct quant_awq found;
    float *factor = ARENA_ARRAY(a, float, k + 1);
    if (!factor || !quant_awq_search(&s->stats, face, n, factor, &found, a))
        return false;
    if (found.strength <= 0 || !would_fold(q, node_in(s->first, 0), factor, k))
        return true;
    return settle(q, s, factor);
}

enum npuc_status awq_inputs(struct quantization *q)
{
    return faces_walk(
        q, &(struct faces){takes, fits, all_products, choose, "there is no memory for factors of its input", false});
}
