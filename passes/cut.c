/* Minimum cut as maximum flow: levels by breadth, then paths along them until none is left (Dinic). */
#include "passes/cut.h"

void cut_init(struct cut *c, struct arena *a)
{
    *c = (struct cut){.arena = a};
    cut_box_new(c);
    cut_box_new(c);
}

int32_t cut_box_new(struct cut *c)
{
    vec_push(c->arena, &c->boxes, (struct cut_box){0});
    return (int32_t)c->boxes.len - 1;
}

static void edge_new(struct cut *c, int32_t from, int32_t to, int64_t room, int32_t back)
{
    vec_push(c->arena, &c->boxes.data[from].edges, (int32_t)c->edges.len);
    vec_push(c->arena, &c->edges, ((struct cut_edge){.to = to, .back = back, .room = room}));
}

void cut_pay(struct cut *c, int32_t a, int32_t b, int64_t cost)
{
    if (a == b || cost <= 0)
        return;
    const int32_t n = (int32_t)c->edges.len;
    edge_new(c, a, b, cost < CUT_NEVER ? cost : CUT_NEVER, n + 1);
    edge_new(c, b, a, 0, n);
}

/* Levels of what the first side reaches with room; does it reach the second? */
static bool reach(struct cut *c, int32_t *queue)
{
    int64_t head = 0, tail = 0;
    for (int64_t i = 0; i < c->boxes.len; i++)
        c->boxes.data[i].level = -1;
    c->boxes.data[CUT_FIRST].level = 0;
    queue[tail++] = CUT_FIRST;
    while (head < tail) {
        const struct cut_box *b = &c->boxes.data[queue[head++]];
        for (int64_t i = 0; i < b->edges.len; i++) {
            const struct cut_edge *e = &c->edges.data[b->edges.data[i]];
            if (e->room == 0 || c->boxes.data[e->to].level >= 0)
                continue;
            c->boxes.data[e->to].level = b->level + 1;
            queue[tail++] = e->to;
        }
    }
    return c->boxes.data[CUT_SECOND].level >= 0;
}

/* One path along ascending levels, or false. `path`: room for one edge per box. */
static bool push_path(struct cut *c, int32_t *path)
{
    int64_t n = 0;
    int32_t at = CUT_FIRST;
    while (at != CUT_SECOND) {
        struct cut_box *b = &c->boxes.data[at];
        for (; b->next < b->edges.len; b->next++) {
            const struct cut_edge *e = &c->edges.data[b->edges.data[b->next]];
            if (e->room > 0 && c->boxes.data[e->to].level == b->level + 1)
                break;
        }
        if (b->next < b->edges.len) {
            path[n++] = b->edges.data[b->next];
            at = c->edges.data[path[n - 1]].to;
        } else if (n == 0) {
            return false;
        } else { /* a dead end: its way in is not tried again */
            at = c->edges.data[c->edges.data[path[--n]].back].to;
            c->boxes.data[at].next++;
        }
    }
    int64_t least = CUT_NEVER;
    for (int64_t i = 0; i < n; i++)
        least = c->edges.data[path[i]].room < least ? c->edges.data[path[i]].room : least;
    for (int64_t i = 0; i < n; i++) {
        struct cut_edge *e = &c->edges.data[path[i]];
        e->room -= least;
        c->edges.data[e->back].room += least;
    }
    return true;
}

const bool *cut_solve(struct cut *c)
{
    int32_t *queue = ARENA_ARRAY(c->arena, int32_t, c->boxes.len);
    bool *first = ARENA_ARRAY(c->arena, bool, c->boxes.len);
    while (reach(c, queue)) {
        for (int64_t i = 0; i < c->boxes.len; i++)
            c->boxes.data[i].next = 0;
        while (push_path(c, queue))
            ;
    }
    for (int64_t i = 0; i < c->boxes.len; i++)
        first[i] = c->boxes.data[i].level >= 0;
    return first;
}
