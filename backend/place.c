/* On-chip placement: buffers of a section in their order of declaration, one after the other in their space. All of
 * them live for the whole kernel, so there is nothing to share. */
#include "backend/schedule_priv.h"
#include "base/size.h"

static const char *const space_name[TS_COUNT] = {"GM", "L1", "L0A", "L0B", "L0C", "BT", "UB", "L0A_MX", "L0B_MX"};

static enum npuc_status overfull(struct ir_ctx *cx, const struct machine *m, const struct tile_kernel *k, int space,
                                 int64_t need)
{
    const char *text = arena_printf(&cx->scratch, "kernel '%s' needs %lld bytes of %s, the target has %lld",
                                    str_text(k->exprs.strings, k->name), (long long)need, space_name[space],
                                    (long long)m->size[space]);
    return diag_error_text(cx->diag, NULL, D_MEMORY_FULL, text);
}

static enum npuc_status place_section(struct ir_ctx *cx, const struct machine *m, struct tile_kernel *k, int core)
{
    struct tile_section *sec = &k->section[core];
    int64_t used[TS_COUNT] = {0};
    for (int64_t i = 0; i < sec->bufs.len; i++) {
        struct tile_buf *b = &sec->bufs.data[i];
        const int64_t align = m->align[b->space] > 0 ? m->align[b->space] : 1;
        b->slot_size = size_align(b->slot_size > 0 ? b->slot_size : 1, align);
        b->base = used[b->space];
        int64_t ring = 0;
        if (!size_mul(b->slot_size, b->slots, &ring) || !size_add(ring, b->base, &used[b->space]))
            used[b->space] = INT64_MAX;
        if (used[b->space] > m->size[b->space])
            return overfull(cx, m, k, b->space, used[b->space]);
    }
    return NPUC_OK;
}

enum npuc_status place_buffers(struct ir_ctx *cx, const struct machine *m, struct tile_kernel *k)
{
    for (int core = 0; core < TCORE_COUNT; core++) {
        const enum npuc_status st = k->has[core] ? place_section(cx, m, k, core) : NPUC_OK;
        if (st != NPUC_OK)
            return st;
    }
    return NPUC_OK;
}
