/* Events for edges, and the instructions themselves.
 *
 * Merging: two edges of one body between the same units with equal rings become one, with SET after the later producer
 * and WAIT before the earlier consumer. That loses nothing where either end coincides; pairs short of events merge
 * wherever SET still stands before WAIT. Sharing: edges of one buffer between the same units use one event, because the
 * buffer's own order makes sure that each is consumed before the next is set. */
#include "backend/schedule_priv.h"

#include <stdlib.h>

static bool sets_meet(const struct buf_set *a, const struct buf_set *b)
{
    for (int i = 0; i < SCHED_MAX_BUFS / 64; i++)
        if (a->bits[i] & b->bits[i])
            return true;
    return false;
}

static bool can_merge(const struct sched *s, const struct edge *a, const struct edge *b)
{
    if (a->body != b->body || a->src != b->src || a->dst != b->dst || a->slots != b->slots || a->back != b->back)
        return false;
    const int32_t set_at = a->set_at > b->set_at ? a->set_at : b->set_at;
    const int32_t wait_at = a->wait_at < b->wait_at ? a->wait_at : b->wait_at;
    if (a->back ? wait_at >= set_at : set_at > wait_at)
        return false;
    return a->set_at == b->set_at || a->wait_at == b->wait_at || s->merge_all[a->src][a->dst];
}

static void merge_into(struct edge *a, const struct edge *b)
{
    if (b->set_at > a->set_at)
        a->set_at = b->set_at;
    if (b->wait_at < a->wait_at)
        a->wait_at = b->wait_at;
    for (int i = 0; i < SCHED_MAX_BUFS / 64; i++)
        a->bufs.bits[i] |= b->bufs.bits[i];
}

static void merge_edges(struct sched *s)
{
    int64_t n = 0;
    for (int64_t i = 0; i < s->edges.len; i++) {
        int64_t j = 0;
        while (j < n && !can_merge(s, &s->edges.data[j], &s->edges.data[i]))
            j++;
        if (j < n)
            merge_into(&s->edges.data[j], &s->edges.data[i]);
        else
            s->edges.data[n++] = s->edges.data[i];
    }
    s->edges.len = n;
}

/* May edge i use the events of edge `owner`: it shares a buffer with every edge that does so already. */
static bool may_share(const struct sched *s, int64_t i, int64_t owner)
{
    const struct edge *e = &s->edges.data[i], *o = &s->edges.data[owner];
    if (e->src != o->src || e->dst != o->dst || e->slots != o->slots)
        return false;
    for (int64_t j = 0; j < i; j++) {
        const struct edge *x = &s->edges.data[j];
        if (x->src == o->src && x->dst == o->dst && x->event == o->event && !sets_meet(&x->bufs, &e->bufs))
            return false;
    }
    return true;
}

bool sched_events(struct sched *s, uint8_t *src, uint8_t *dst)
{
    int32_t used[TU_COUNT][TU_COUNT] = {{0}};
    merge_edges(s);
    for (int64_t i = 0; i < s->edges.len; i++) {
        struct edge *e = &s->edges.data[i];
        for (int64_t j = 0; j < i && e->event < 0; j++)
            if (may_share(s, i, j))
                e->event = s->edges.data[j].event;
        if (e->event >= 0)
            continue;
        int32_t *n = &used[e->src][e->dst];
        e->event = *n;
        *n += e->slots;
        if (*n > TILE_MAX_EVENTS) {
            *src = e->src;
            *dst = e->dst;
            return false;
        }
    }
    return true;
}

static void insert(struct sched *s, int32_t at, enum insert_phase phase, enum tile_op op, const int32_t arg[4])
{
    struct insertion in = {.at = at, .phase = (int32_t)phase, .order = (int32_t)s->inserts.len};
    in.insn.op = (uint16_t)op;
    for (int i = 0; i < tile_insn_table[op].n_fields; i++)
        in.insn.arg[i] = arg[i];
    vec_push(s->arena, &s->inserts, in);
}

static void insert_edge(struct sched *s, const struct edge *e)
{
    const int32_t flag[4] = {e->src, e->dst, e->event, e->buf};
    insert(s, e->set_at, PHASE_SET, TILE_SET, flag);
    insert(s, e->wait_at, PHASE_WAIT, TILE_WAIT, flag);
    for (int32_t slot = 0; e->back && slot < e->slots; slot++) {
        const int32_t one[4] = {e->src, e->dst, e->event + slot, -1};
        insert(s, 0, PHASE_PRESET, TILE_SET, one);
        insert(s, (int32_t)s->section->code.len, PHASE_DRAIN, TILE_WAIT, one);
    }
}

static int by_place(const void *pa, const void *pb)
{
    const struct insertion *a = pa, *b = pb;
    if (a->at != b->at)
        return a->at < b->at ? -1 : 1;
    if (a->phase != b->phase)
        return a->phase < b->phase ? -1 : 1;
    return a->order < b->order ? -1 : a->order > b->order;
}

void sched_insert(struct sched *s)
{
    struct tile_section *sec = s->section;
    const int32_t n = (int32_t)sec->code.len;
    for (int64_t i = 0; i < s->edges.len; i++)
        insert_edge(s, &s->edges.data[i]);
    for (int32_t b = 0; b < (int32_t)sec->bufs.len; b++)
        if (sec->bufs.data[b].slots > 1 && s->home[b] >= 0)
            insert(s, s->end[s->home[b]], PHASE_NEXT, TILE_NEXT, (const int32_t[4]){b});
    if (s->inserts.len == 0)
        return;
    qsort(s->inserts.data, (size_t)s->inserts.len, sizeof s->inserts.data[0], by_place);
    const int64_t total = n + s->inserts.len;
    struct tile_insn *code = ARENA_ARRAY(s->kernel->exprs.arena, struct tile_insn, total);
    int64_t at = 0, j = 0;
    for (int32_t i = 0; i <= n; i++) {
        for (; j < s->inserts.len && s->inserts.data[j].at == i; j++)
            code[at++] = s->inserts.data[j].insn;
        if (i < n)
            code[at++] = sec->code.data[i];
    }
    sec->code.data = code;
    sec->code.len = sec->code.cap = total;
}
