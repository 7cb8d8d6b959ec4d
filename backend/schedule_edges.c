/* Which orderings between units a section needs.
 *
 * The home body of a buffer is the innermost LOOP (or the section) that holds all its accesses. In it, the accesses
 * form a sequence of items: an instruction, or a nested LOOP or IF. Where the unit changes from U to V between
 * neighbours, V must wait for U (an edge). In a loop the first unit of the next iteration must also wait for the last
 * of this one, one ring slot later for every slot of the buffer: the back edge.
 *
 * A nested LOOP or IF whose accesses come from several units is closed: inside it the same sequence gets edges, and one
 * more leads from the last unit back to the first at the end of the body. So all its work is ordered before and after
 * its first unit, whether it runs zero, one or many times, and outside it counts as an access by that unit. Flags of a
 * closed body are set and waited for in one iteration, hence balanced. */
#include "backend/schedule_priv.h"

struct span_list {
    VEC(struct span) v;
};

/* Does instruction i access the buffer, or one that is ordered together with it? */
static bool touches(const struct sched *s, int32_t i, int32_t buf)
{
    const struct tile_access *a = &s->access[i];
    for (int j = 0; j < a->n_reads; j++)
        if (s->group[a->reads[j]] == buf)
            return true;
    for (int j = 0; j < a->n_writes; j++)
        if (s->group[a->writes[j]] == buf)
            return true;
    return false;
}

static int32_t loop_depth(const struct sched *s, int32_t loop)
{
    int32_t depth = 0;
    for (; loop >= 0; loop = s->loop[loop])
        depth++;
    return depth;
}

static int32_t common_loop(const struct sched *s, int32_t a, int32_t b)
{
    int32_t da = loop_depth(s, a), db = loop_depth(s, b);
    for (; da > db; da--)
        a = s->loop[a];
    for (; db > da; db--)
        b = s->loop[b];
    for (; a != b; a = s->loop[a])
        b = s->loop[b];
    return a;
}

static int32_t home_body(const struct sched *s, int32_t buf)
{
    int32_t home = -2;
    for (int32_t i = 0; i < (int32_t)s->section->code.len; i++)
        if (touches(s, i, buf))
            home = home == -2 ? s->loop[i] : common_loop(s, home, s->loop[i]);
    return home;
}

static void add_edge(struct sched *s, struct edge e, int32_t buf)
{
    e.bufs.bits[buf / 64] = (uint64_t)1 << (buf % 64);
    e.buf = e.slots > 1 ? buf : -1;
    e.event = -1;
    vec_push(s->arena, &s->edges, e);
}

static struct edge forward_edge(int32_t body, const struct span *from, const struct span *to, int32_t slots)
{
    return (struct edge){.body = body,
                         .set_at = from->last + 1,
                         .wait_at = to->first,
                         .slots = slots,
                         .src = (uint8_t)from->unit,
                         .dst = (uint8_t)to->unit};
}

static void collect(struct sched *s, int32_t buf, int32_t body, struct span_list *out);

/* The span that a nested LOOP or IF counts as; false when it does not touch the buffer. */
static bool nested_span(struct sched *s, int32_t buf, int32_t body, struct span *out)
{
    struct span_list in = {0};
    collect(s, buf, body, &in);
    if (in.v.len == 0)
        return false;
    const struct span *v = in.v.data;
    const struct span *last = &v[in.v.len - 1];
    for (int64_t i = 1; i < in.v.len; i++)
        if (v[i].unit != v[i - 1].unit)
            add_edge(s, forward_edge(body, &v[i - 1], &v[i], 1), buf);
    if (last->unit != v[0].unit) {
        const struct span end = {.first = s->end[body], .unit = v[0].unit};
        add_edge(s, forward_edge(body, last, &end, 1), buf);
    }
    *out = (struct span){.first = body, .last = s->end[body], .unit = v[0].unit};
    return true;
}

/* Items of a body in order. Depth of recursion: nesting of the program, which the builder keeps small. */
static void collect(struct sched *s, int32_t buf, int32_t body, struct span_list *out)
{
    const int32_t stop = body < 0 ? (int32_t)s->section->code.len : s->end[body];
    for (int32_t i = body + 1; i < stop; i++) {
        if (s->end[i] >= 0) {
            struct span sp;
            if (nested_span(s, buf, i, &sp))
                vec_push(s->arena, &out->v, sp);
            i = s->end[i];
        } else if (touches(s, i, buf)) {
            const struct span sp = {i, i, tile_insn_unit(s->section, &s->section->code.data[i])};
            vec_push(s->arena, &out->v, sp);
        }
    }
}

static void buffer_edges(struct sched *s, int32_t buf)
{
    struct tile_buf *b = &s->section->bufs.data[buf];
    const int32_t home = s->home[buf];
    struct span_list items = {0};
    if (home == -2)
        return;
    collect(s, buf, home, &items);
    const struct span *v = items.v.data;
    const struct span *last = &v[items.v.len - 1];
    bool several = false;
    for (int64_t i = 1; i < items.v.len; i++)
        several |= v[i].unit != v[0].unit;
    if (home < 0 || !several)
        b->slots = 1; /* a ring overlaps nothing here */
    const bool back = home >= 0 && last->unit != v[0].unit;
    const int32_t slots = back ? b->slots : 1;
    for (int64_t i = 1; i < items.v.len; i++)
        if (v[i].unit != v[i - 1].unit)
            add_edge(s, forward_edge(home, &v[i - 1], &v[i], slots), buf);
    if (back) {
        struct edge e = forward_edge(home, last, &v[0], slots);
        e.back = true;
        add_edge(s, e, buf);
    }
}

void sched_edges(struct sched *s)
{
    s->edges.len = 0;
    for (int32_t b = 0; b < (int32_t)s->section->bufs.len; b++) {
        s->home[b] = s->group[b] == b ? home_body(s, b) : -2;
        buffer_edges(s, b);
    }
}
