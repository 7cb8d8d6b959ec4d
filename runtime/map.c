/* The map of global memory for given sizes, and what a machine that is too small is told. */
#include "runtime/rt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the map ---- */

static int compare_places(const void *pa, const void *pb)
{
    const struct rt_place *a = pa, *b = pb;
    if (a->address != b->address)
        return a->address < b->address ? -1 : 1;
    return (a->tensor > b->tensor) - (a->tensor < b->tensor);
}

static bool has_place(const npurt_session *s, int64_t i)
{
    const struct plan_tensor *t = &s->plan->tensors.data[i];
    const struct rt_tensor *r = &s->tensors[i];
    if (t->kind == PT_ALIAS || t->kind == PT_OBJECT)
        return false;
    if (t->kind == PT_WEIGHT)
        return rt_weight_size(s, t) > 0;
    return s->in_entry[i] && r->known && r->size > 0 && (t->kind == PT_CACHE || s->placed_size[i] >= 0);
}

static struct rt_place place_of(const npurt_session *s, int64_t i)
{
    const struct plan_tensor *t = &s->plan->tensors.data[i];
    const int32_t begin = s->entry->first_step, end = begin + s->entry->n_steps - 1;
    const bool temporary = t->kind == PT_TEMP;
    return (struct rt_place){.tensor = (int32_t)i,
                             .address = s->tensors[i].address,
                             .size = t->kind == PT_WEIGHT ? rt_weight_size(s, t) : s->tensors[i].size,
                             .first = (temporary ? t->first : begin) - begin,
                             .last = (temporary ? t->last : end) - begin};
}

enum npuc_status rt_map(npurt_session *s, struct arena *a, struct rt_map *out)
{
    const int64_t n = s->plan->tensors.len;
    enum npuc_status st = rt_bind(s);
    if (st == NPUC_OK)
        st = rt_place(s);
    *out = (struct rt_map){.places = ARENA_ARRAY(a, struct rt_place, n + 1)};
    if (st != NPUC_OK)
        return st;
    if (!out->places)
        return rt_fail(s, D_HOST_MEMORY, "out of host memory");
    for (int64_t i = 0; i < n; i++)
        if (has_place(s, i))
            out->places[out->n++] = place_of(s, i);
    qsort(out->places, (size_t)out->n, sizeof *out->places, compare_places);
    return NPUC_OK;
}

/* ---- too little memory ---- */

static const char *amount(npurt_session *s, double bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    int64_t u = 0;
    for (; bytes >= 1024 && u + 1 < NPUC_ARRAY_LEN(units); u++)
        bytes /= 1024;
    const char *text = arena_printf(&s->scratch, u ? "%.1f %s" : "%.0f %s", bytes, units[u]);
    return text ? text : "";
}

/* The largest temporary, input or output, and the step where its life begins. */
static const char *largest(npurt_session *s)
{
    int64_t best = -1;
    for (int64_t i = 0; i < s->plan->tensors.len; i++)
        if (s->placed_size[i] >= 0 && (best < 0 || s->tensors[i].size > s->tensors[best].size))
            best = i;
    if (best < 0)
        return "";
    const char *text = arena_printf(&s->scratch, ", the largest '%s' %s", rt_name(s, s->plan->tensors.data[best].name),
                                    amount(s, (double)s->tensors[best].size));
    return text ? text : "";
}

enum npuc_status rt_too_little(npurt_session *s, double gm, int64_t caches)
{
    const double weights = (double)s->weights_size, pool = (double)s->pool_size, need = weights + (double)caches + pool;
    const bool dynamic = s->plan->exprs.symbols.len > 0;
    const char *change =
        weights >= (double)caches && weights >= pool
            ? "weights take the most: --precision fp16, a quantised model, or a target with more memory"
        : (double)caches >= pool ? "caches take the most: a smaller --kv-capacity or batch"
        : dynamic ? "activations take the most: a smaller batch or shorter sequence (-D), or --precision fp16"
                  : "activations take the most: a model with smaller inputs, or --precision fp16";
    return rt_fail(
        s, D_MEMORY_FULL,
        "%s of global memory are needed and %s has %s: %s too much (weights %s, caches %s, activations %s%s); "
        "%s",
        amount(s, need), s->target.name, amount(s, gm), amount(s, need - gm), amount(s, weights),
        amount(s, (double)caches), amount(s, pool), largest(s), change);
}
