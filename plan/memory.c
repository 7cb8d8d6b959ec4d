/* Placement of buffers with known lifetimes in one pool: greedy, one item at a time into the best gap among those
 * already placed that live at the same time (lowest waste, then lowest offset). The order decides the quality, so a few
 * are tried and the one with the lowest peak is kept. Refused: exact search (lifetimes of language models are short
 * chains, where greedy by size meets the bound), and first-fit on a time line (fragments when long-lived items come
 * late). */
#include "plan/memory.h"

#include "base/size.h"

#include <stdlib.h>
#include <string.h>

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
        peak = top > peak ? top : peak;
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

static int64_t live_bound(const struct mem_item *items, int64_t n, struct arena *scratch)
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

struct mem_result mem_place(struct mem_item *items, int64_t n, int64_t align, struct arena *scratch)
{
    struct mem_result r = {0, 0};
    if (n == 0)
        return r;
    const struct arena_mark mark = arena_mark(scratch);
    struct order_key *keys = ARENA_ARRAY(scratch, struct order_key, n);
    struct placer p = {.items = items, .align = align};
    p.offset = ARENA_ARRAY(scratch, int64_t, n);
    p.placed = ARENA_ARRAY(scratch, int64_t, n);
    r.lower_bound = live_bound(items, n, scratch);
    r.peak = r.lower_bound < 0 || !keys || !p.offset || !p.placed ? -1 : INT64_MAX;
    for (int64_t o = 0; o < NPUC_ARRAY_LEN(orders) && r.peak > r.lower_bound; o++) {
        for (int64_t i = 0; i < n; i++)
            keys[i] = (struct order_key){orders[o].primary(&items[i]), orders[o].secondary(&items[i]), i};
        qsort(keys, (size_t)n, sizeof *keys, compare_keys);
        const int64_t peak = place_in_order(&p, keys, n);
        if (peak >= r.peak)
            continue;
        r.peak = peak;
        for (int64_t i = 0; i < n; i++)
            items[i].offset = p.offset[i];
    }
    arena_release(scratch, mark);
    return r;
}
