#include "tools/faces.h"

#include <inttypes.h>
#include <stdio.h>

/* Weights of one source while they are looked at. */
struct look {
    struct arena a;
    struct quant_face *face;
    int64_t n;
};
struct looks {
    struct quantization *q;
    const struct faces *how;
    struct look *of; /* per source of the walk */
};

static const struct quant_product *look_product(void *user, const struct node *n, const char *name)
{
    static const struct quant_product nothing;
    const struct looks *all = user;
    const struct quantization *q = all->q;
    const struct quant_found *f = quantize_found(q, n);
    (void)name;
    const bool now = f && f->source >= q->first && f->source < q->last;
    return now && all->how->takes(q, f, &q->sources.data[f->source]) ? &nothing : NULL;
}

static const char *see_weight(void *user, const char *name, const struct quant_matrix *w)
{
    struct looks *all = user;
    struct quantization *q = all->q;
    const uint64_t *at = map_find(&q->by_name, str_internz(&q->names, name));
    const struct quant_found *f = &q->products.data[*at - 1];
    struct quant_source *s = &q->sources.data[f->source];
    struct look *l = &all->of[f->source - q->first];
    const int64_t wanted = all->how->wanted(q, s);
    if (!all->how->fits(s, w))
        return NULL;
    if (!l->face) {
        arena_init(&l->a, NULL);
        l->face = ARENA_ARRAY(&l->a, struct quant_face, wanted + 1);
    }
    if (!l->face || !quant_face_make(&l->face[l->n++], w, w->k / s->stats.k, &f->form.weight, &l->a))
        return "there is no memory for its weight";
    if (l->n < wanted)
        return NULL;
    const bool done = all->how->choose(q, s, l->face, l->n, &l->a);
    arena_free(&l->a);
    l->face = NULL;
    if (all->how->shows)
        fprintf(stderr, "\r  inputs  %" PRId64 " of %" PRId64 " ", f->source + 1, q->sources.len);
    return done ? NULL : all->how->no_memory;
}

enum npuc_status faces_walk(struct quantization *q, const struct faces *how)
{
    struct looks all = {.q = q, .how = how};
    const struct quantiser looks = {.user = &all, .product = look_product, .look = see_weight};
    all.of = ARENA_ARRAY(q->arena, struct look, q->last - q->first + 1);
    if (!all.of)
        return diag_error(&q->c.diag, NULL, D_HOST_MEMORY);
    const enum npuc_status s = quantize_walk(q, &looks);
    for (int64_t i = 0; i < q->last - q->first; i++)
        if (all.of[i].face) /* products of it that no walk comes to */
            arena_free(&all.of[i].a);
    if (how->shows)
        fprintf(stderr, "\r\033[K");
    return s;
}
