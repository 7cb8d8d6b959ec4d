#include "tools/awq.h"

#include <string.h>

#include "passes/factors.h"
#include "quant/awq.h"

/* Weights of one source while they are looked at. */
struct look {
    struct arena a;
    struct quant_face *face;
    int64_t n;
};
struct looks {
    struct quantization *q;
    struct look *of; /* per source of the walk */
};

static struct quant_found *found_of(const struct quantization *q, const struct node *n)
{
    const uint64_t *at = map_find(&q->by_node, n->id);
    return at ? &q->products.data[*at - 1] : NULL;
}

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

static const struct quant_product *look_product(void *user, const struct node *n, const char *name)
{
    static const struct quant_product nothing;
    const struct quantization *q = ((const struct looks *)user)->q;
    const struct quant_found *f = found_of(q, n);
    (void)name;
    const bool now = f && f->source >= q->first && f->source < q->last;
    return now && is_open(q, &q->sources.data[f->source]) ? &nothing : NULL;
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
    for (int64_t i = 0; smooth && i < s->products.len; i++) {
        struct quant_found *f = &q->products.data[s->products.data[i]];
        f->form.smooth = (struct quant_vector){smooth, k};
        f->has_smooth = true;
        quant_store_put(
            &q->store, f->name, "smooth",
            &(struct k_tensor){
                .dtype = DT_F32, .rank = 1, .dims = {k}, .data = smooth, .size = k * (int64_t)sizeof *smooth});
    }
    return smooth && quant_statistics_turn(&s->stats, smooth, QUANT_UNROTATED, q->arena);
}

static bool choose(struct quantization *q, struct quant_source *s, const struct look *l, struct arena *a)
{
    const int64_t k = s->stats.k;
    struct quant_awq found;
    float *factor = ARENA_ARRAY(a, float, k + 1);
    if (!factor || !quant_awq_search(&s->stats, l->face, l->n, factor, &found, a))
        return false;
    if (found.strength <= 0 || !would_fold(q, node_in(s->first, 0), factor, k))
        return true;
    return settle(q, s, factor);
}

static const char *see_weight(void *user, const char *name, const struct quant_matrix *w)
{
    struct looks *all = user;
    struct quantization *q = all->q;
    const uint64_t *at = map_find(&q->by_name, str_internz(&q->names, name));
    const struct quant_found *f = &q->products.data[*at - 1];
    struct quant_source *s = &q->sources.data[f->source];
    struct look *l = &all->of[f->source - q->first];
    if (w->k != s->stats.k)
        return NULL;
    if (!l->face) {
        arena_init(&l->a, NULL);
        l->face = ARENA_ARRAY(&l->a, struct quant_face, s->products.len + 1);
    }
    if (!l->face || !quant_face_make(&l->face[l->n++], w, &f->form.weight, &l->a))
        return "there is no memory for its weight";
    if (l->n < s->products.len)
        return NULL;
    const bool done = choose(q, s, l, &l->a);
    arena_free(&l->a);
    l->face = NULL;
    return done ? NULL : "there is no memory for factors of its input";
}

enum npuc_status awq_inputs(struct quantization *q)
{
    struct looks all = {.q = q};
    const struct quantiser looks = {.user = &all, .product = look_product, .look = see_weight};
    all.of = ARENA_ARRAY(q->arena, struct look, q->last - q->first + 1);
    if (!all.of)
        return diag_error(&q->c.diag, NULL, D_HOST_MEMORY);
    const enum npuc_status s = quantize_walk(q, &looks);
    for (int64_t i = 0; i < q->last - q->first; i++)
        if (all.of[i].face) /* products of it that no walk comes to */
            arena_free(&all.of[i].a);
    return s;
}
