/* Which temporaries stay in the shared memory of clusters (SRAM) instead of global memory.
 *
 * A tensor may when every step that touches it is a launch of equally many copies, one per cluster, that divides it in
 * equal parts: a part is then written and read by the cores of one cluster; unless a kernel wants it in memory
 * (struct plan_tensor). Those that live for the fewest steps come
 * first, as long as the parts that are alive at any of their steps fit beside what kernels keep there themselves. Of a
 * map that is made and read in bands (emit_bands.c) the lines between its writer and its last reader count. Others that
 * are larger stay in global memory as a whole. */
#include "backend/emit_priv.h"
#include "base/size.h"

#include <stdlib.h>

struct residency {
    struct plan *p;
    int64_t first_step, n_steps;
    int64_t *used;   /* bytes of a cluster's memory, by step */
    int32_t *copies; /* by tensor: of all launches that touch it; 0: none yet; -1: it cannot stay */
};

/* What a kernel keeps in shared memory. */
static int64_t kernel_bytes(const struct plan *p, const struct plan_step *s)
{
    int64_t bytes = 0;
    if (s->kind != PS_LAUNCH)
        return 0;
    const struct tile_kernel *k = p->kernels.data[s->kernel];
    for (int c = 0; c < TCORE_COUNT; c++)
        for (int64_t i = 0; k->has[c] && i < k->section[c].bufs.len; i++) {
            const struct tile_buf *b = &k->section[c].bufs.data[i];
            bytes += b->space == TS_L1 ? b->slots * b->slot_size : 0;
        }
    return bytes;
}

static void touch(struct residency *r, const struct plan_step *s, int32_t i)
{
    const struct plan_tensor *t = &r->p->tensors.data[s->tensors[i]];
    const int32_t root = t->kind == PT_ALIAS ? t->base : s->tensors[i];
    const bool divides = s->kind == PS_LAUNCH && s->copies > 0 && s->divided[i] && s->guard == EXPR_INVALID;
    if (!divides || (r->copies[root] != 0 && r->copies[root] != s->copies))
        r->copies[root] = -1;
    else
        r->copies[root] = s->copies;
}

static bool part_bytes(const struct residency *r, int32_t tensor, int64_t *bytes)
{
    enum { ROW = 64 };
    const struct plan_tensor *t = &r->p->tensors.data[tensor];
    int64_t size;
    if (t->kind != PT_TEMP || t->in_memory || r->copies[tensor] < 1 || !expr_is_const(&r->p->exprs, t->size, &size) ||
        size < 1 || size % r->copies[tensor] != 0)
        return false;
    *bytes = size_align(t->window > 0 ? t->window : size / r->copies[tensor], ROW);
    return true;
}

static int shorter_first(const void *pa, const void *pb)
{
    const struct stay *a = pa, *b = pb;
    const int32_t spans[] = {a->last - a->first, b->last - b->first};
    if (spans[0] != spans[1])
        return spans[0] < spans[1] ? -1 : 1;
    if (a->bytes != b->bytes)
        return a->bytes < b->bytes ? -1 : 1;
    return (a->id > b->id) - (a->id < b->id);
}

static bool has_room(const struct stay *s, const int64_t *used, int64_t room)
{
    for (int32_t i = s->first; i <= s->last; i++)
        if (used[i] > room - s->bytes)
            return false;
    return true;
}

void residency_keep(struct stay *list, int64_t n, int64_t *used, int64_t room)
{
    qsort(list, (size_t)n, sizeof *list, shorter_first);
    for (int64_t k = 0; k < n; k++) {
        list[k].kept = has_room(&list[k], used, room);
        for (int32_t i = list[k].first; list[k].kept && i <= list[k].last; i++)
            used[i] += list[k].bytes;
    }
}

void plan_residency(struct plan *p, const struct plan_entry *entry, int64_t first_tensor, const struct machine *m,
                    struct arena *a)
{
    struct residency r = {.p = p, .first_step = entry->first_step, .n_steps = entry->n_steps};
    if (!m->family->part)
        return;
    r.used = arena_zalloc(a, (r.n_steps + 1) * (int64_t)sizeof *r.used);
    r.copies = arena_zalloc(a, (p->tensors.len + 1) * (int64_t)sizeof *r.copies);
    for (int64_t i = 0; i < r.n_steps; i++) {
        const struct plan_step *s = &p->steps.data[r.first_step + i];
        r.used[i] = kernel_bytes(p, s);
        for (int32_t j = 0; j < s->n_in + s->n_out; j++)
            if (s->tensors[j] >= 0)
                touch(&r, s, j);
    }
    struct stay *list = ARENA_ARRAY(a, struct stay, p->tensors.len + 1);
    int64_t n = 0;
    for (int32_t i = (int32_t)first_tensor; i < p->tensors.len; i++) {
        const struct plan_tensor *t = &p->tensors.data[i];
        struct stay c = {i, t->first - entry->first_step, t->last - entry->first_step, 0, false};
        if (part_bytes(&r, i, &c.bytes) && c.first >= 0)
            list[n++] = c;
    }
    residency_keep(list, n, r.used, m->size[TS_L1]);
    for (int64_t i = 0; i < n; i++)
        if (list[i].kept)
            p->tensors.data[list[i].id].parts = r.copies[list[i].id];
}
