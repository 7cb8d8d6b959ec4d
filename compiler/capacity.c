/* Does a plan fit into the target's global memory? What is known at compile time is counted: weights, and of caches and
 * activations the least that their sizes can be. */
#include "base/size.h"
#include "compiler/compile.h"
#include "plan/memory.h"

#define GM_ALIGN 512

static int64_t least(const struct plan *p, const struct plan_tensor *t)
{
    const struct expr_range r = expr_range_of(&p->exprs, t->size);
    return r.min > 0 && r.min < (int64_t)1 << 48 ? size_align(r.min, GM_ALIGN) : 0;
}

static bool is_of(const struct plan_entry *e, const struct plan_tensor *t, int32_t i)
{
    if (t->kind == PT_TEMP)
        return t->first >= e->first_step && t->last < e->first_step + e->n_steps;
    for (int32_t k = 0; k < (t->kind == PT_INPUT ? e->n_inputs : e->n_outputs); k++)
        if ((t->kind == PT_INPUT ? e->inputs : e->outputs)[k] == i)
            return true;
    return false;
}

/* Bytes of inputs, outputs and temporaries that live at once. */
static int64_t activations(const struct plan *p, const struct plan_entry *e, struct arena *scratch)
{
    struct mem_item *items = ARENA_ARRAY(scratch, struct mem_item, p->tensors.len + 1);
    int64_t n = 0;
    for (int32_t i = 0; i < p->tensors.len; i++) {
        const struct plan_tensor *t = &p->tensors.data[i];
        const bool temporary = t->kind == PT_TEMP;
        if ((temporary || t->kind == PT_INPUT || t->kind == PT_OUTPUT) && is_of(e, t, i))
            items[n++] = (struct mem_item){.size = least(p, t),
                                           .first = temporary ? t->first : e->first_step,
                                           .last = temporary ? t->last : e->first_step + e->n_steps};
    }
    return mem_bound(items, n, scratch);
}

static const char *amount(struct compilation *c, int64_t bytes)
{
    return bytes < (int64_t)1 << 30 ? arena_printf(&c->arena, "%.1f MiB", (double)bytes / 1048576)
                                    : arena_printf(&c->arena, "%.2f GiB", (double)bytes / 1073741824);
}

enum npuc_status compilation_fits(struct compilation *c)
{
    const struct plan *p = &c->plan;
    int64_t weights = 0, caches = 0, most = 0;
    for (int64_t i = 0; i < p->tensors.len; i++) {
        const struct plan_tensor *t = &p->tensors.data[i];
        if (t->kind == PT_WEIGHT || t->kind == PT_CACHE)
            *(t->kind == PT_WEIGHT ? &weights : &caches) += least(p, t);
    }
    for (int64_t i = 0; i < p->entries.len; i++) {
        const struct arena_mark mark = arena_mark(&c->arena);
        const int64_t live = activations(p, &p->entries.data[i], &c->arena);
        arena_release(&c->arena, mark);
        most = live > most ? live : most;
    }
    const int64_t need = weights + caches + most, gm = c->machine.gm_bytes;
    if (gm <= 0 || need <= gm)
        return NPUC_OK;
    const char *change =
        weights >= caches && weights >= most
            ? "weights take the most: --precision fp16, a quantised model, or a target with more memory"
        : caches >= most ? "caches take the most: a smaller --kv-capacity or batch"
                         : "activations take the most: a smaller batch or shorter sequence (-D), or "
                           "--precision fp16";
    return diag_error(&c->diag, &(struct diag_loc){.file = c->cx.file, .index = -1}, D_MEMORY_FULL,
                      arena_printf(&c->arena,
                                   "at least %s of global memory are needed and %s has %s: %s too much (weights %s, "
                                   "caches %s, activations %s); %s",
                                   amount(c, need), c->target.name, amount(c, gm), amount(c, need - gm),
                                   amount(c, weights), amount(c, caches), amount(c, most), change));
}
