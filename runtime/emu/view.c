/* Moves that are not done: weights on their way from GM through L1 to L0B keep their order, so a slot of a buffer may
 * show where its bytes are instead of holding them. The multiply-accumulate then reads weights in place.
 *
 * Invariant: reading a slot gives, at every byte, what it would hold had every move been a copy. It rests on three
 * rules.
 *  1. A view shows GM or a shadow of it (made.c), never a scratchpad. In a kernel without barriers no other block
 * writes what a block reads, so that only the block's own writes can change it: they settle first what they are about
 * to overwrite (emu_gm). A workspace has more slots than the buffers it feeds, so that a view of it is gone by then.
 * With barriers only read-only tensors are shown.
 *  2. A buffer can have views only when no other buffer of its core shares its memory.
 *  3. Every access that does not understand views settles the slot first, that is, does the copy (emu_buf); a new view
 * lies over older ones, which go on showing what is outside of it. With hazard checks every move copies. */
#include "runtime/emu/emu_priv.h"

#include "base/size.h"

#include <string.h>

static bool overlap(const struct tile_buf *a, const struct tile_buf *b)
{
    return a->space == b->space && a->base < b->base + b->slots * b->slot_size &&
           b->base < a->base + a->slots * a->slot_size;
}

static bool is_alone(const struct tile_section *s, int64_t i)
{
    for (int64_t k = 0; k < s->bufs.len; k++)
        if (k != i && overlap(&s->bufs.data[k], &s->bufs.data[i]))
            return false;
    return true;
}

/* Codes of weights and what is made of them pass through UB once. */
static bool holds_codes(const struct tile_section *s, int64_t buf)
{
    for (int64_t i = 0; i < s->code.len; i++) {
        const struct tile_DEQUANT *q = TILE_AS(DEQUANT, &s->code.data[i]);
        if (s->code.data[i].op == TILE_DEQUANT && (q->dst == buf || q->src == buf || q->scale == buf || q->zero == buf))
            return true;
    }
    return false;
}

bool emu_program_views(struct emu_program *p, struct arena *a)
{
    const struct tile_section *s = p->section;
    p->first_view = ARENA_ARRAY(a, int32_t, s->bufs.len + 1);
    for (int64_t i = 0; p->first_view && i < s->bufs.len; i++) {
        const struct tile_buf *b = &s->bufs.data[i];
        const bool fit = b->space == TS_L1 || b->space == TS_L0B || (b->space == TS_UB && holds_codes(s, i));
        const bool shows = fit && b->slots <= 64 && is_alone(s, i);
        p->first_view[i] = shows ? p->n_views : -1;
        p->n_views += shows ? (int32_t)b->slots * EMU_VIEW_DEPTH : 0;
    }
    return p->first_view != NULL;
}

/* The slot's places for views; NULL: it always copies. */
static struct emu_view *place(const struct emu_data *d, const struct emu_op *op, int field)
{
    const int32_t first = d->views ? d->core->prog->first_view[op->arg[field]] : -1;
    return first >= 0 ? &d->views[first + op->slot[field] * EMU_VIEW_DEPTH] : NULL;
}

/* What the slot shows is copied to where it belongs. */
static void settle(const struct emu_data *d, int64_t buf, int64_t slot, struct emu_view *views)
{
    const struct tile_buf *b = &d->section->bufs.data[buf];
    uint8_t *to = d->mem->at[b->space] + b->base + slot * b->slot_size;
    for (int i = EMU_VIEW_DEPTH - 1; i >= 0; i--) {
        struct emu_view *v = &views[i];
        if (!v->src)
            continue;
        emu_made_now(d->block, &(struct emu_runs){v->src, v->run, v->n, v->pitch});
        for (int64_t g = 0; g < v->n; g++)
            memcpy(to + v->off + g * v->step, v->src + g * v->pitch, (size_t)v->run);
        v->src = NULL;
    }
}

/* The first byte of the runs, and one past the last. */
static void reach(const struct emu_runs *r, const uint8_t *at[2])
{
    const int64_t last = (r->n - 1) * r->pitch;
    at[0] = r->at + (last < 0 ? last : 0);
    at[1] = r->at + (last > 0 ? last : 0) + r->run;
}

bool emu_runs_meet(const struct emu_runs *a, const struct emu_runs *b)
{
    const uint8_t *x[2], *y[2];
    reach(a, x);
    reach(b, y);
    if (x[0] >= y[1] || y[0] >= x[1])
        return false;
    const int64_t pitch = a->n > 1 ? a->pitch : b->pitch;
    if ((a->n == 1 && b->n == 1) || (b->n > 1 && b->pitch != pitch) || pitch < a->run || pitch < b->run)
        return true;
    /* the runs of b begin `off` bytes behind those of a, and end before the next ones of a or do not */
    const int64_t off = ((b->at - a->at) % pitch + pitch) % pitch;
    return off < a->run || off + b->run > pitch;
}

static bool shows(const struct emu_view *views, const struct emu_runs *written)
{
    for (int i = 0; i < EMU_VIEW_DEPTH && views[i].src; i++) {
        const struct emu_view *v = &views[i];
        if (emu_runs_meet(&(struct emu_runs){v->src, v->run, v->n, v->pitch}, written))
            return true;
    }
    return false;
}

void emu_views_settle(struct emu_block *b, const struct emu_runs *written)
{
    for (int c = 0; c < EMU_BLOCK_CORES; c++) {
        const struct emu_data *d = &b->data[c];
        for (int64_t i = 0; d->views && d->section && i < d->section->bufs.len; i++) {
            const int32_t first = d->core->prog->first_view[i];
            for (int64_t s = 0; first >= 0 && s < d->section->bufs.data[i].slots; s++)
                if (shows(&d->views[first + s * EMU_VIEW_DEPTH], written))
                    settle(d, i, s, &d->views[first + s * EMU_VIEW_DEPTH]);
        }
    }
}

void emu_view_settle(struct emu_data *d, const struct emu_op *op, int field)
{
    struct emu_view *views = place(d, op, field);
    if (views && views->src)
        settle(d, op->arg[field], op->slot[field], views);
}

/* Does v show everything that `old` does? */
static bool covers(const struct emu_view *v, const struct emu_view *old)
{
    if (v->step == v->run || v->n == 1)
        return old->off >= v->off && old->off + (old->n - 1) * old->step + old->run <= v->off + v->n * v->run;
    return old->off == v->off && old->step == v->step && old->run <= v->run && old->n <= v->n;
}

/* A ring's last, shorter step leaves the end of an older view to be seen. */
static void replace(struct emu_data *d, const struct emu_op *op, int field, const struct emu_view *v)
{
    struct emu_view *views = place(d, op, field), old[EMU_VIEW_DEPTH + 1];
    int n = 1;
    old[0] = *v;
    for (int i = 0; i < EMU_VIEW_DEPTH && views[i].src; i++)
        if (!covers(v, &views[i]))
            old[n++] = views[i];
    if (n > EMU_VIEW_DEPTH) {
        emu_view_settle(d, op, field);
        n = 1;
    }
    for (int i = 0; i < EMU_VIEW_DEPTH; i++)
        views[i] = i < n ? old[i] : (struct emu_view){NULL};
}

bool emu_view_load(struct emu_data *d, const struct emu_op *op, const struct emu_span *dst, const uint8_t *x,
                   const struct emu_span *src)
{
    const struct emu_LOAD *a = EMU_ARGS(LOAD, op);
    const struct emu_tensor *t = &d->launch->tensors[a->src];
    if (!place(d, op, EMU_FIELD(LOAD, dst)) || (!t->read_only && !d->block->alone) ||
        (uintptr_t)x % (uintptr_t)dst->size != 0)
        return false;
    struct emu_shape m = emu_simplify(dst->stride, src->stride, src->n);
    if (m.n[2] == 1 && m.n[3] > 1 && (m.d[3] != 1 || m.s[3] != 1)) /* rows of one element */
        m = (struct emu_shape){{1, 1, m.n[3], 1}, {0, 0, m.d[3], 1}, {0, 0, m.s[3], 1}};
    const int64_t run = m.n[3] * dst->size, step = m.n[2] == 1 ? run : m.d[2] * dst->size;
    const bool rows = m.d[3] == 1 && m.s[3] == 1 && m.n[0] == 1 && m.n[1] == 1 && step >= run;
    const bool lines = run % 32 == 0 || d->section->bufs.data[op->arg[EMU_FIELD(LOAD, dst)]].space == TS_UB;
    if (!rows || !lines)
        return false;
    struct emu_view v = {x, m.s[2] * dst->size, dst->off * dst->size, run, m.n[2], step};
    const struct emu_runs runs = {v.src, v.run, v.n, v.pitch};
    const uint8_t *shadow = t->brief ? emu_made_find(d->block, &runs) : NULL;
    if (shadow)
        v.src = shadow;
    else
        emu_made_now(d->block, &runs);
    replace(d, op, EMU_FIELD(LOAD, dst), &v);
    if (d->section->bufs.data[op->arg[EMU_FIELD(LOAD, dst)]].space == TS_UB)
        k_ask_for(v.src, v.run, v.n, v.pitch);
    d->block->shows_written |= !t->read_only && !shadow;
    return true;
}

bool emu_view_takes(const struct emu_data *d, const struct emu_op *op, int field)
{
    return d->block->alone && place(d, op, field);
}

void emu_view_written(struct emu_data *d, const struct emu_op *op, int field, const struct emu_view *v, bool shadow)
{
    replace(d, op, field, v);
    d->block->shows_written |= !shadow;
}

/* The groups as a view of what `from` shows: within one run, or the same part of consecutive runs. */
static bool part(const struct emu_view *from, const struct emu_groups *g, struct emu_view *v)
{
    const int64_t at = g->off - from->off;
    if (at < 0 || from->run <= 0)
        return false;
    const int64_t first = at / from->step, inner = at % from->step;
    const uint8_t *src = from->src + first * from->pitch + inner;
    *v = (struct emu_view){src, g->pitch, 0, g->run, g->n, g->run};
    if (first < from->n && inner + (g->n - 1) * g->pitch + g->run <= from->run)
        return true;
    v->pitch = from->pitch;
    return (g->pitch == from->step || g->n == 1) && inner + g->run <= from->run && first + g->n <= from->n;
}

bool emu_view_copy(struct emu_data *d, const struct emu_op *op, int dst, int src, const struct emu_groups *g)
{
    const struct emu_view *from = place(d, op, src);
    struct emu_view v;
    if (!from || !from->src || !place(d, op, dst) || !part(from, g, &v))
        return false;
    replace(d, op, dst, &v);
    return true;
}

const void *emu_view_find(const struct emu_data *d, const struct emu_op *op, int field, const struct emu_groups *g,
                          int64_t *pitch)
{
    const struct emu_view *from = place(d, op, field);
    struct emu_view v;
    *pitch = 0;
    if (!from || !from->src || !part(from, g, &v))
        return NULL;
    *pitch = v.pitch;
    return v.src;
}

const void *emu_view_read(const struct emu_data *d, const struct emu_op *op, int field, const struct emu_groups *g,
                          int64_t *pitch)
{
    const void *p = emu_view_find(d, op, field, g, pitch);
    if (p)
        emu_made_now(d->block, &(struct emu_runs){p, g->run, g->n, *pitch});
    return p;
}
