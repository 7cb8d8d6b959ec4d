/* Memory of a run: results of a node lie in a room of their own, which is given back when no node behind needs them.
 * A result may be part of an operand's bytes (views, branches, bodies that pass a value on): then it keeps that
 * operand's room. */
#include <string.h>

#include "ir/eval_priv.h"

enum { NOBODY = -1, FOREVER = INT32_MAX };

struct room {
    struct arena arena;
    int32_t end; /* position of the last node that needs it */
    bool open;
};
struct life {
    struct frame *f;
    const struct graph *g;
    int32_t *position;          /* of nodes of g, by id */
    struct room *rooms;         /* by position */
    int32_t *open, n_open;      /* positions of the open rooms */
    const struct value **alive; /* values whose rooms are open */
    int64_t n_alive;
    int32_t *room_of; /* by value id */
};

/* Position of the node of g that v's last user is or lies in. */
static int32_t last_use(const struct life *l, const struct value *v)
{
    int32_t last = NOBODY;
    for_each_use (u, v) {
        const struct node *n = u->user;
        while (n && n->graph != l->g)
            n = n->graph->owner;
        const int32_t at = n && n != graph_yield(l->g) ? l->position[n->id] : FOREVER;
        last = at > last ? at : last;
    }
    return last;
}

/* The room that holds the tensor's bytes: that of a value they belong to, else `own`. */
static int32_t holder(const struct life *l, const struct k_tensor *t, int32_t own)
{
    const uintptr_t at = (uintptr_t)t->data;
    for (int64_t i = 0; t->size > 0 && i < l->n_alive; i++) {
        const struct k_tensor *o = &l->f->val[l->alive[i]->id];
        if (at >= (uintptr_t)o->data && at - (uintptr_t)o->data < (uint64_t)o->size)
            return l->room_of[l->alive[i]->id];
    }
    return own;
}

static void settle(struct life *l, const struct node *n, int32_t at)
{
    const int64_t before = l->n_alive;
    int64_t added = 0;
    for (int i = 0; i < n->n_out; i++) {
        const struct value *v = &n->out[i];
        if (v->type->kind == TYPE_NONE)
            continue;
        const int32_t held = holder(l, &l->f->val[v->id], at), end = last_use(l, v);
        l->room_of[v->id] = held;
        l->rooms[held].end = end > l->rooms[held].end ? end : l->rooms[held].end;
        l->alive[before + added++] = v;
    }
    l->n_alive = before + added;
}

static void close_rooms(struct life *l, int32_t at)
{
    int32_t rooms = 0;
    int64_t values = 0;
    for (int32_t i = 0; i < l->n_open; i++) {
        struct room *r = &l->rooms[l->open[i]];
        r->open = r->end > at;
        if (r->open)
            l->open[rooms++] = l->open[i];
        else
            arena_free(&r->arena);
    }
    l->n_open = rooms;
    for (int64_t i = 0; i < l->n_alive; i++) {
        const struct value *v = l->alive[i];
        if (l->rooms[l->room_of[v->id]].open)
            l->alive[values++] = v;
        else
            l->f->has[v->id] = false;
    }
    l->n_alive = values;
}

static enum npuc_status run_nodes(struct life *l)
{
    struct arena *all = l->f->a;
    const struct node *yield = graph_yield(l->g);
    int32_t at = 0;
    for (const struct node *n = l->g->first; n && n != yield; n = n->next, at++) {
        struct room *r = &l->rooms[at];
        arena_init(&r->arena, all->hooks);
        r->arena.on_oom = all->on_oom;
        r->arena.oom_user = all->oom_user;
        r->end = NOBODY;
        r->open = true;
        l->open[l->n_open++] = at;
        l->f->a = &r->arena;
        const enum npuc_status s = frame_node(l->f, n);
        l->f->a = all;
        if (s != NPUC_OK)
            return s;
        settle(l, n, at);
        close_rooms(l, at);
    }
    return NPUC_OK;
}

/* Results outlive the rooms. */
static bool keep_results(struct life *l, struct k_tensor *out)
{
    const struct node *yield = graph_yield(l->g);
    for (int i = 0; yield && i < yield->n_in; i++) {
        const struct value *v = yield->in[i].value;
        if (v->def && v->def->graph == l->g && out[i].size > 0)
            out[i].data = arena_copy(l->f->a, out[i].data, out[i].size);
        if (!out[i].data && out[i].size > 0)
            return false;
    }
    return true;
}

/* Texts and the elements of sequences are shared among results. */
static bool is_shared(const struct graph *g)
{
    for (const struct node *n = g->first; n; n = n->next)
        for (int i = 0; i < n->n_out; i++)
            if (n->out[i].type->kind == TYPE_SEQUENCE || n->out[i].type->kind == TYPE_OPTIONAL ||
                n->out[i].type->dtype == DT_STRING)
                return true;
    return false;
}

enum npuc_status frame_function(struct frame *f, const struct graph *g, struct k_tensor *out)
{
    if (is_shared(g))
        return frame_graph(f, g, out);
    struct life l = {.f = f, .g = g};
    int32_t n_nodes = 0;
    l.position = ARENA_ARRAY(f->a, int32_t, (int64_t)g->module->n_nodes + 1);
    for (const struct node *n = g->first; n; n = n->next)
        l.position[n->id] = n_nodes++;
    l.rooms = ARENA_ARRAY(f->a, struct room, (int64_t)n_nodes + 1);
    l.open = ARENA_ARRAY(f->a, int32_t, (int64_t)n_nodes + 1);
    l.alive = ARENA_ARRAY(f->a, const struct value *, (int64_t)g->module->n_values + 1);
    l.room_of = ARENA_ARRAY(f->a, int32_t, (int64_t)g->module->n_values + 1);
    enum npuc_status s = run_nodes(&l);
    if (s == NPUC_OK)
        s = frame_results(f, g, out);
    if (s == NPUC_OK && !keep_results(&l, out))
        s = diag_error(f->cx->diag, NULL, D_HOST_MEMORY);
    close_rooms(&l, FOREVER);
    return s;
}
