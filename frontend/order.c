/* Order of execution. ONNX asks producers to sort the nodes; several do not. A list that is in order stays as it is. */
#include "frontend/priv.h"

/* Names that a node's subgraphs take from outside: every input and output name of the subgraphs that they do not
 * define. */
struct walk {
    struct import *im;
    const struct map *producers; /* name -> node index + 1 */
    int32_t node;
    VEC(int32_t) deps;
};

static void add_dep(struct walk *w, sym name)
{
    const uint64_t *p = name ? map_find(w->producers, name) : NULL;
    if (p)
        vec_push(&w->im->tmp, &w->deps, (int32_t)*p - 1);
}

struct shadow {
    const struct shadow *outer;
    struct map names;
};

static bool is_hidden(const struct shadow *s, sym name)
{
    for (; s; s = s->outer)
        if (map_find(&s->names, name))
            return true;
    return false;
}

static void define_all(struct import *im, struct shadow *s, const Onnx__GraphProto *g)
{
    for (size_t i = 0; i < g->n_input; i++)
        map_put(&s->names, bytes_sym(im, g->input[i]->name), 1);
    for (size_t i = 0; i < g->n_initializer; i++)
        map_put(&s->names, bytes_sym(im, g->initializer[i]->name), 1);
    for (size_t i = 0; i < g->n_node; i++)
        for (size_t k = 0; k < g->node[i]->n_output; k++)
            map_put(&s->names, bytes_sym(im, g->node[i]->output[k]), 1);
}

/* Depth is bounded by the scan. */
static void walk_graph(struct walk *w, const Onnx__GraphProto *g, const struct shadow *outer)
{
    struct import *im = w->im;
    struct shadow s = {.outer = outer};
    map_init(&s.names, &im->tmp);
    define_all(im, &s, g);
    for (size_t i = 0; i < g->n_node; i++) {
        const Onnx__NodeProto *n = g->node[i];
        for (size_t k = 0; k < n->n_input; k++)
            if (!is_hidden(&s, bytes_sym(im, n->input[k])))
                add_dep(w, bytes_sym(im, n->input[k]));
        for (size_t k = 0; k < n->n_attribute; k++)
            if (n->attribute[k]->g)
                walk_graph(w, n->attribute[k]->g, &s);
    }
    for (size_t i = 0; i < g->n_output; i++)
        if (!is_hidden(&s, bytes_sym(im, g->output[i]->name)))
            add_dep(w, bytes_sym(im, g->output[i]->name));
}

static void collect(struct walk *w, const Onnx__NodeProto *n)
{
    for (size_t k = 0; k < n->n_input; k++)
        add_dep(w, bytes_sym(w->im, n->input[k]));
    for (size_t k = 0; k < n->n_attribute; k++)
        if (n->attribute[k]->g)
            walk_graph(w, n->attribute[k]->g, NULL);
}

struct edges {
    int32_t *first; /* first[i] .. first[i + 1]: what waits for node i */
    int32_t *user;
    int32_t *waits; /* producers that node i still waits for */
};

static struct edges build_edges(struct import *im, const int32_t *starts, const int32_t *deps, int64_t n)
{
    struct edges e = {ARENA_ARRAY(&im->tmp, int32_t, n + 2), ARENA_ARRAY(&im->tmp, int32_t, starts[n] + 1),
                      ARENA_ARRAY(&im->tmp, int32_t, n + 1)};
    for (int32_t i = 0; i < starts[n]; i++)
        e.first[deps[i] + 2]++;
    for (int64_t i = 0; i <= n; i++)
        e.first[i + 1] += e.first[i];
    for (int64_t i = 0; i < n; i++) {
        e.waits[i] = starts[i + 1] - starts[i];
        for (int32_t k = starts[i]; k < starts[i + 1]; k++)
            e.user[e.first[deps[k] + 1]++] = (int32_t)i;
    }
    return e;
}

static enum npuc_status sort(struct import *im, Onnx__NodeProto *const *nodes, int64_t n, const struct edges *e,
                             const int32_t **order)
{
    int32_t *queue = ARENA_ARRAY(&im->tmp, int32_t, n + 1);
    int64_t head = 0, tail = 0;
    for (int64_t i = 0; i < n; i++)
        if (e->waits[i] == 0)
            queue[tail++] = (int32_t)i;
    for (; head < tail; head++) {
        const int32_t p = queue[head];
        for (int32_t k = e->first[p]; k < e->first[p + 1]; k++)
            if (--e->waits[e->user[k]] == 0)
                queue[tail++] = e->user[k];
    }
    *order = queue;
    for (int64_t i = 0; tail < n && i < n; i++) {
        if (e->waits[i] == 0)
            continue;
        const Onnx__NodeProto *bad = nodes[i];
        const sym out = bad->n_output ? bytes_sym(im, bad->output[0]) : 0;
        const struct diag_loc loc = {.file = im->path,
                                     .node = bad->name.len ? sym_text(im, bytes_sym(im, bad->name)) : NULL,
                                     .op = sym_text(im, bytes_sym(im, bad->op_type)),
                                     .index = i};
        return diag_error(im->cx->diag, &loc, D_GRAPH_CYCLE,
                          arena_printf(&im->tmp, "the node is part of a cycle (through '%.200s')", sym_text(im, out)));
    }
    return NPUC_OK;
}

enum npuc_status nodes_order(struct import *im, Onnx__NodeProto *const *nodes, int64_t n, const int32_t **order)
{
    struct map producers;
    map_init(&producers, &im->tmp);
    for (int64_t i = n - 1; i >= 0; i--) /* the first of two definitions counts; the second is refused later */
        for (size_t k = 0; k < nodes[i]->n_output; k++)
            map_put(&producers, bytes_sym(im, nodes[i]->output[k]), (uint64_t)i + 1);
    struct walk w = {.im = im, .producers = &producers};
    int32_t *starts = ARENA_ARRAY(&im->tmp, int32_t, n + 1);
    bool sorted = true;
    for (int64_t i = 0; i < n; i++) {
        collect(&w, nodes[i]);
        starts[i + 1] = (int32_t)w.deps.len;
        for (int32_t k = starts[i]; k < starts[i + 1]; k++)
            sorted &= w.deps.data[k] < i;
    }
    *order = NULL;
    if (sorted)
        return NPUC_OK;
    const struct edges e = build_edges(im, starts, w.deps.data, n);
    return sort(im, nodes, n, &e, order);
}
