/* Scheduling of one kernel: flags between units from dependencies, ring rotation, placement of buffers.
 *
 * What a generator must keep: it emits moves and computation in an order that is right when executed serially, declares
 * buffers with the number of ring slots it would like, and writes no SET, WAIT or NEXT. Data carried from one iteration
 * to the next lives in a buffer that is also touched outside that loop, or that has one slot. Order between cores
 * (XSET, XWAIT, BARRIER) and through GM is the generator's: XSET stands behind, XWAIT before the work of its unit in
 * that unit's queue.
 *
 * When a pair of units has too few events, edges are merged more freely, then rings are shortened, then buffers are
 * ordered as if they were one, which needs fewer events and overlaps less. Alternative refused: one barrier between all
 * units per tile, which is simple and serialises loads with computation. */
#include "backend/schedule_priv.h"

static enum npuc_status broken(struct sched *s, const char *what, const char *detail)
{
    const char *text =
        arena_printf(s->arena, "kernel '%s': %s%s", str_text(s->kernel->exprs.strings, s->kernel->name), what, detail);
    return diag_error_text(s->cx->diag, NULL, D_VERIFY, text);
}

/* Fills end, parent and loop; false when LOOP and IF do not nest. */
static bool index_code(struct sched *s)
{
    const struct tile_section *sec = s->section;
    int32_t open = -1;
    for (int32_t i = 0; i < (int32_t)sec->code.len; i++) {
        const uint16_t op = sec->code.data[i].op;
        const bool closes = op == TILE_ENDLOOP || op == TILE_ENDIF;
        if (closes && (open < 0 || (sec->code.data[open].op == TILE_LOOP) != (op == TILE_ENDLOOP)))
            return false;
        if (closes) {
            s->end[open] = i;
            open = s->parent[open];
        }
        s->end[i] = -1;
        s->parent[i] = open;
        s->loop[i] = open < 0 ? -1 : sec->code.data[open].op == TILE_LOOP ? open : s->loop[open];
        tile_insn_access(&sec->code.data[i], &s->access[i]);
        if (op == TILE_LOOP || op == TILE_IF)
            open = i;
    }
    return open < 0;
}

static void sched_init(struct sched *s)
{
    const int64_t n = s->section->code.len;
    s->end = ARENA_ARRAY(s->arena, int32_t, n + 1);
    s->parent = ARENA_ARRAY(s->arena, int32_t, n + 1);
    s->loop = ARENA_ARRAY(s->arena, int32_t, n + 1);
    s->access = ARENA_ARRAY(s->arena, struct tile_access, n + 1);
    s->home = ARENA_ARRAY(s->arena, int32_t, s->section->bufs.len + 1);
    s->group = ARENA_ARRAY(s->arena, int32_t, s->section->bufs.len + 1);
    for (int32_t b = 0; b < (int32_t)s->section->bufs.len; b++)
        s->group[b] = b;
}

/* Takes one slot from the buffer with the longest ring among those ordered between the two units. */
static bool shorten_ring(struct sched *s, uint8_t src, uint8_t dst)
{
    int32_t best = -1;
    for (int64_t i = 0; i < s->edges.len; i++) {
        const struct edge *e = &s->edges.data[i];
        if (e->src != src || e->dst != dst || e->slots < 2)
            continue;
        for (int32_t b = 0; b < (int32_t)s->section->bufs.len; b++)
            if ((e->bufs.bits[b / 64] >> (b % 64) & 1) != 0 &&
                (best < 0 || s->section->bufs.data[b].slots >= s->section->bufs.data[best].slots))
                best = b;
    }
    if (best >= 0)
        s->section->bufs.data[best].slots--;
    return best >= 0;
}

static bool edge_orders(const struct sched *s, int32_t buf, uint8_t src, uint8_t dst)
{
    for (int64_t i = 0; i < s->edges.len; i++) {
        const struct edge *e = &s->edges.data[i];
        if (e->src == src && e->dst == dst && (e->bufs.bits[buf / 64] >> (buf % 64) & 1) != 0)
            return true;
    }
    return false;
}

/* Orders the last two buffers between the two units as one. */
static bool join_buffers(struct sched *s, uint8_t src, uint8_t dst)
{
    int32_t last = -1, other = -1;
    for (int32_t b = 0; b < (int32_t)s->section->bufs.len; b++)
        if (s->group[b] == b && edge_orders(s, b, src, dst)) {
            other = last;
            last = b;
        }
    if (other < 0)
        return false;
    for (int32_t b = 0; b < (int32_t)s->section->bufs.len; b++)
        if (s->group[b] == last)
            s->group[b] = other;
    s->section->bufs.data[last].slots = s->section->bufs.data[other].slots = 1;
    return true;
}

static enum npuc_status schedule_section(struct sched *s)
{
    if (s->section->bufs.len > SCHED_MAX_BUFS)
        return broken(s, "more on-chip buffers than the scheduler orders", "");
    sched_init(s);
    if (!index_code(s))
        return broken(s, "LOOP and IF do not nest", "");
    for (;;) {
        uint8_t src = 0, dst = 0;
        sched_edges(s);
        if (sched_events(s, &src, &dst))
            break;
        if (!s->merge_all[src][dst])
            s->merge_all[src][dst] = true;
        else if (!shorten_ring(s, src, dst) && !join_buffers(s, src, dst))
            return broken(s, "too many orderings between two units: ", arena_printf(s->arena, "%d to %d", src, dst));
    }
    sched_insert(s);
    return NPUC_OK;
}

enum npuc_status schedule_kernel(struct ir_ctx *cx, const struct machine *m, struct tile_kernel *k)
{
    for (int core = 0; core < TCORE_COUNT; core++) {
        if (!k->has[core])
            continue;
        const struct arena_mark mark = arena_mark(&cx->scratch);
        struct sched s = {.cx = cx, .kernel = k, .section = &k->section[core], .arena = &cx->scratch};
        const enum npuc_status st = schedule_section(&s);
        arena_release(&cx->scratch, mark);
        if (st != NPUC_OK)
            return st;
    }
    return place_buffers(cx, m, k);
}
