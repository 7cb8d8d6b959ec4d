/* Rings: caches of sliding windows keep the last rows of each sequence (plan/plan.h). `written` says how many rows each
 * has ever had, so that those before the last `ring` of them are gone, also when the sequence has been cut since. */
#include "runtime/rt.h"

#include "base/size.h"

#include <stdlib.h>
#include <string.h>

static const struct plan_cache *next_ring(const npurt_session *s, int32_t *i)
{
    while (*i < s->entry->n_caches)
        if (s->entry->caches[(*i)++].ring)
            return &s->entry->caches[*i - 1];
    return NULL;
}

void rt_rings_free(npurt_session *s)
{
    free(s->written);
    s->written = NULL;
    s->n_written = 0;
}

enum npuc_status rt_rings_note(npurt_session *s, const int64_t *written, int64_t n)
{
    int64_t *made = calloc((size_t)n + 1, sizeof *made);
    if (!made)
        return rt_fail(s, D_HOST_MEMORY, "out of host memory");
    if (written)
        memcpy(made, written, (size_t)n * sizeof *made);
    rt_rings_free(s);
    s->written = made;
    s->n_written = n;
    return NPUC_OK;
}

int64_t rt_ring_first(const npurt_session *s, const struct plan_cache *c)
{
    int64_t most = 0;
    for (int64_t b = 0; b < s->n_written; b++)
        most = s->written[b] > most ? s->written[b] : most;
    return c->ring && most > c->ring ? most - c->ring : 0;
}

/* Is what rows from `length` on of a sequence would read still there? `s` gets the message. */
static enum npuc_status check(npurt_session *s, const struct plan_cache *c, int64_t written, int64_t length)
{
    const int64_t first = written - c->ring, back = c->window - 1;
    if (length == 0 || first <= 0 || length - back >= first)
        return NPUC_OK;
    return rt_fail(s, D_USAGE,
                   "'%s' no longer has rows before %lld, and its sliding window would read %lld rows before row %lld; "
                   "begin anew, or compile with --kv-ring 0",
                   rt_name(s, c->input), (long long)first, (long long)(back < length ? back : length),
                   (long long)length);
}

/* Where sequences have unequal lengths only the call to come says how long each is. */
enum npuc_status rt_rings_check(npurt_session *s, const npurt_session *from, int64_t length)
{
    const struct plan_cache *c;
    enum npuc_status st = NPUC_OK;
    for (int64_t b = 1; b < from->n_written; b++)
        if (from->written[b] != from->written[0])
            return NPUC_OK;
    for (int32_t i = 0; st == NPUC_OK && from->n_written > 0 && (c = next_ring(from, &i));)
        st = check(s, c, from->written[0], length);
    return st;
}

int64_t npurt_cache_room(const npurt_session *s)
{
    const struct plan_cache *c;
    int64_t room = INT64_MAX;
    for (int32_t i = 0; (c = next_ring(s, &i));)
        room = c->ring - c->window + 1 < room ? c->ring - c->window + 1 : room;
    return room;
}

/* The rows that a call brings: `rows` behind `past`, or behind those that `begins` tells for each sequence. */
enum npuc_status rt_rings_take(npurt_session *s, bool given)
{
    int32_t i = 0;
    const struct plan_cache *first = next_ring(s, &i), *c = first;
    int64_t past, present;
    if (!first)
        return NPUC_OK;
    const struct rt_cache *at = &s->caches[first - s->entry->caches];
    const int64_t sequences = at->runs > 0 ? at->outer / at->runs : 0;
    if (!rt_value(s, first->past, &past) || !rt_value(s, first->present, &present) || present < past)
        return rt_fail(s, D_INPUT_BINDING, "the rows of the cache '%s' are not known", rt_name(s, first->input));
    const int64_t rows = given ? present : present - past, room = npurt_cache_room(s);
    if (!given && rows > room)
        return rt_fail(s, D_LIMIT,
                       "%lld new rows, and the ring of '%s' has room for %lld in a call; give them in parts, or "
                       "compile with a larger --kv-ring",
                       (long long)rows, rt_name(s, first->input), (long long)room);
    enum npuc_status st = rt_begins_fit(s, sequences);
    if (st == NPUC_OK && s->n_written != sequences)
        st = rt_rings_note(s, NULL, sequences);
    for (; st == NPUC_OK && c && !given; c = next_ring(s, &i))
        for (int64_t b = 0; st == NPUC_OK && b < sequences; b++)
            st = check(s, c, s->written[b], s->begins ? s->begins[b] : past);
    for (int64_t b = 0; st == NPUC_OK && b < sequences; b++) {
        const int64_t begin = given ? 0 : s->begins ? s->begins[b] : past, end = begin + rows;
        s->written[b] = begin == 0 || end > s->written[b] ? end : s->written[b];
    }
    return st;
}

/* Rings are each sequence's own. The first one's stays where it is. */
static bool spread(struct rt_cache *c, int64_t sequences)
{
    int64_t one, all;
    if (!c->data)
        return true;
    if (!size_mul(c->runs * c->ring, c->inner, &one) || !size_mul(one, sequences, &all) || one > c->size)
        return false;
    uint8_t *made = aligned_alloc(512, (size_t)size_align(all + 1, 512));
    if (!made)
        return false;
    for (int64_t b = 0; b < sequences; b++)
        memcpy(made + b * one, c->data, (size_t)one);
    free(c->data);
    c->data = made;
    c->size = all;
    return true;
}

enum npuc_status rt_rings_spread(npurt_session *s, int64_t sequences)
{
    const struct plan_cache *c;
    const int64_t written = s->n_written > 0 ? s->written[0] : 0;
    for (int32_t i = 0; (c = next_ring(s, &i));)
        if (!spread(&s->caches[c - s->entry->caches], sequences))
            return rt_fail(s, D_HOST_MEMORY, "out of host memory");
    const enum npuc_status st = rt_rings_note(s, NULL, sequences);
    for (int64_t b = 0; st == NPUC_OK && b < sequences; b++)
        s->written[b] = written;
    return st;
}
