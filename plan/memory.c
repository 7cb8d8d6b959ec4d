/* Placement of buffers with known lifetimes in one pool: greedy, one item at a time into a gap among those already
 * placed that live at the same time: the one with the lowest waste, or the lowest one. The order decides the quality,
 * so a few are tried and the one with the lowest peak is kept. Where that is above the bound, the item that ends
 * highest is placed earlier and all is tried again, a limited number of times. Refused: exact search (lifetimes of
 * language models are short chains, where greedy by size meets the bound), and first-fit on a time line (fragments when
 * long-lived items come late). */
#include "plan/memory.h"

#include "base/size.h"

#include <stdlib.h>
#include <string.h>

#define ROUNDS 8192
#define WORK   (INT64_C(1) << 27) /* pairs of items that all rounds together may look at */

struct order_key {
    int64_t primary, secondary;
    int64_t index;
};
/* Placed items sorted by offset; `hot` narrows to those that overlap the current one in time. */
struct placer {
    struct mem_item *items;
    int64_t *offset; /* candidate placement of this order, by item */
    int64_t *placed; /* item numbers sorted by offset */
    int64_t n_placed, align;
    bool lowest;   /* take the lowest gap, not the one with the least waste */
    int64_t worst; /* place in the order of the item that ends highest */
};

static int compare_keys(const void *pa, const void *pb)
{
    const struct order_key *a = pa, *b = pb;
    if (a->primary != b->primary)
        return a->primary > b->primary ? -1 : 1;
    if (a->secondary != b->secondary)
        return a->secondary > b->secondary ? -1 : 1;
    return (a->index > b->index) - (a->index < b->index);
}

static int64_t span_of(const struct mem_item *it)
{
    return (int64_t)it->last - it->first + 1;
}

/* The orders that are tried; larger comes first. */
static int64_t area(const struct mem_item *it)
{
    int64_t v;
    return size_mul(it->size, span_of(it), &v) ? v : INT64_MAX;
}
static int64_t size(const struct mem_item *it)
{
    return it->size;
}
static int64_t span(const struct mem_item *it)
{
    return span_of(it);
}
static int64_t start(const struct mem_item *it)
{
    return -(int64_t)it->first;
}

static const struct {
    int64_t (*primary)(const struct mem_item *), (*secondary)(const struct mem_item *);
} orders[] = {{size, span}, {area, size}, {span, size}, {start, size}};

static bool alive_together(const struct mem_item *a, const struct mem_item *b)
{
    return a->first <= b->last && b->first <= a->last;
}

static int64_t place_one(const struct placer *p, int64_t item)
{
    const struct mem_item *it = &p->items[item];
    int64_t end = 0, best = -1, best_waste = INT64_MAX;
    for (int64_t i = 0; i < p->n_placed; i++) {
        const int64_t other = p->placed[i];
        if (!alive_together(it, &p->items[other]))
            continue;
        const int64_t gap = p->offset[other] - end;
        if (gap >= it->size && p->lowest)
            return end;
        if (gap >= it->size && gap - it->size < best_waste) {
            best = end;
            best_waste = gap - it->size;
        }
        const int64_t top = size_align(p->offset[other] + p->items[other].size, p->align);
        if (top > end)
            end = top;
    }
    return best >= 0 ? best : end;
}

static void keep_sorted(struct placer *p, int64_t item)
{
    int64_t i = p->n_placed++;
    while (i > 0 && p->offset[p->placed[i - 1]] > p->offset[item]) {
        p->placed[i] = p->placed[i - 1];
        i--;
    }
    p->placed[i] = item;
}

static int64_t place_in_order(struct placer *p, const struct order_key *keys, int64_t n)
{
    int64_t peak = 0;
    p->n_placed = 0;
    for (int64_t i = 0; i < n; i++) {
        const int64_t item = keys[i].index;
        p->offset[item] = 0;
        if (p->items[item].size == 0)
            continue;
        p->offset[item] = place_one(p, item);
        keep_sorted(p, item);
        const int64_t top = p->offset[item] + p->items[item].size;
        if (top > peak) {
            peak = top;
            p->worst = i;
        }
    }
    return peak;
}

struct edge {
    int64_t step, change;
};

static int compare_edges(const void *pa, const void *pb)
{
    const struct edge *a = pa, *b = pb;
    if (a->step != b->step)
        return a->step < b->step ? -1 : 1;
    return (a->change > b->change) - (a->change < b->change); /* ends before starts */
}

int64_t mem_bound(const struct mem_item *items, int64_t n, struct arena *scratch)
{
    struct edge *edges = ARENA_ARRAY(scratch, struct edge, 2 * n);
    if (!edges)
        return -1;
    for (int64_t i = 0; i < n; i++) {
        edges[2 * i] = (struct edge){items[i].first, items[i].size};
        edges[2 * i + 1] = (struct edge){(int64_t)items[i].last + 1, -items[i].size};
    }
    qsort(edges, (size_t)(2 * n), sizeof *edges, compare_edges);
    int64_t live = 0, most = 0;
    for (int64_t i = 0; i < 2 * n; i++) {
        live += edges[i].change;
        most = live > most ? live : most;
    }
    return most;
}

struct search {
    struct placer p;
    struct mem_item *items;
    struct order_key *keys, *best_keys;
    int64_t n;
    struct mem_result r;
    bool best_lowest;
};

static int64_t try_order(struct search *s)
{
    const int64_t peak = place_in_order(&s->p, s->keys, s->n);
    if (peak >= s->r.peak)
        return peak;
    s->r.peak = peak;
    s->best_lowest = s->p.lowest;
    memcpy(s->best_keys, s->keys, (size_t)s->n * sizeof *s->keys);
    for (int64_t i = 0; i < s->n; i++)
        s->items[i].offset = s->p.offset[i];
    return peak;
}

static int64_t good_enough(const struct search *s)
{
    return s->r.lower_bound + s->r.lower_bound / 64;
}

/* Numbers that look random and are the same every time. */
static int64_t below(uint32_t *state, int64_t n)
{
    *state = *state * 1664525U + 1013904223U;
    return n > 0 ? (int64_t)(*state >> 8) % n : 0;
}

/* From the best order: the item that ends highest comes earlier. Orders that are no worse are kept, and a few that are.
 * Rounds are fewer where one takes long. */
static void improve(struct search *s)
{
    const int64_t all = size_ceil_div(WORK, s->n * s->n), rounds = all < ROUNDS ? all : ROUNDS;
    uint32_t state = 1;
    memcpy(s->keys, s->best_keys, (size_t)s->n * sizeof *s->keys);
    s->p.lowest = s->best_lowest;
    int64_t now = place_in_order(&s->p, s->keys, s->n), from = s->p.worst;
    for (int64_t i = 0; i < rounds && s->r.peak > good_enough(s); i++) {
        const int64_t moved = i % 4 == 3 ? below(&state, s->n) : from, to = below(&state, moved);
        const struct order_key key = s->keys[moved];
        memmove(s->keys + to + 1, s->keys + to, (size_t)(moved - to) * sizeof *s->keys);
        s->keys[to] = key;
        const int64_t peak = try_order(s);
        if (peak <= now || below(&state, 16) == 0) {
            now = peak;
            from = s->p.worst;
            continue;
        }
        memmove(s->keys + to, s->keys + to + 1, (size_t)(moved - to) * sizeof *s->keys);
        s->keys[moved] = key;
    }
}

struct mem_result mem_place(struct mem_item *items, int64_t n, int64_t align, struct arena *scratch)
{
    struct search s = {.p = {.items = items, .align = align}, .items = items, .n = n};
    if (n == 0)
        return s.r;
    const struct arena_mark mark = arena_mark(scratch);
    s.keys = ARENA_ARRAY(scratch, struct order_key, n);
    s.best_keys = ARENA_ARRAY(scratch, struct order_key, n);
    s.p.offset = ARENA_ARRAY(scratch, int64_t, n);
    s.p.placed = ARENA_ARRAY(scratch, int64_t, n);
    s.r.lower_bound = mem_bound(items, n, scratch);
    s.r.peak = s.r.lower_bound < 0 || !s.keys || !s.best_keys || !s.p.offset || !s.p.placed ? -1 : INT64_MAX;
    for (int64_t o = 0; o < 2 * NPUC_ARRAY_LEN(orders) && s.r.peak > s.r.lower_bound; o++) {
        const int64_t k = o / 2;
        for (int64_t i = 0; i < n; i++)
            s.keys[i] = (struct order_key){orders[k].primary(&items[i]), orders[k].secondary(&items[i]), i};
        qsort(s.keys, (size_t)n, sizeof *s.keys, compare_keys);
        s.p.lowest = o % 2 != 0;
        (void)try_order(&s);
    }
    if (s.r.peak > good_enough(&s))
        improve(&s);
    arena_release(scratch, mark);
    return s.r;
}
