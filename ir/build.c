/* Creating and changing nodes. Every edge of the graph is linked and unlinked here, so that use lists, order and
 * parents cannot disagree. */
#include "ir/build.h"

#include <string.h>

/* ---- places and graphs */

struct builder ir_at(struct node *before)
{
    return (struct builder){before->graph->module->cx, before->graph, before, before->loc};
}

struct builder ir_at_end(struct graph *g)
{
    return (struct builder){g->module->cx, g, NULL, NULL};
}

static struct graph *graph_new(struct module *m, sym name)
{
    struct graph *g = ARENA_NEW(&m->arena, struct graph);
    g->name = name;
    g->module = m;
    return g;
}

struct graph *ir_func_new(struct module *m, sym name)
{
    struct graph *g = graph_new(m, name);
    vec_push(&m->arena, &m->funcs, g);
    return g;
}

struct graph *ir_region_new(struct node *owner, sym name)
{
    struct graph *g = graph_new(owner->graph->module, name);
    g->owner = owner;
    g->parent = owner->graph;
    return g;
}

struct value *ir_input_new(struct graph *g, const struct type *t, sym name)
{
    struct module *m = g->module;
    const int32_t n = g->n_inputs;
    if ((n & (n - 1)) == 0) { /* capacities are powers of two */
        struct value **grown = ARENA_ARRAY(&m->arena, struct value *, n ? 2 * (int64_t)n : 1);
        if (n)
            memcpy(grown, g->inputs, sizeof *grown * (size_t)n);
        g->inputs = grown;
    }
    struct value *v = ARENA_NEW(&m->arena, struct value);
    *v = (struct value){.type = t, .graph = g, .name = name, .id = m->n_values++, .index = (uint32_t)n};
    g->inputs[g->n_inputs++] = v;
    return v;
}

/* ---- uses */

static void use_link(struct use *u, struct value *v)
{
    u->value = v;
    u->next = NULL;
    u->link = NULL;
    if (!v)
        return;
    u->next = v->uses;
    u->link = &v->uses;
    if (u->next)
        u->next->link = &u->next;
    v->uses = u;
}

static void use_unlink(struct use *u)
{
    if (!u->value)
        return;
    *u->link = u->next;
    if (u->next)
        u->next->link = u->link;
    u->value = NULL;
    u->next = NULL;
    u->link = NULL;
}

void ir_set_input(struct node *n, int i, struct value *v)
{
    NPUC_ASSERT(i >= 0 && i < n->n_in);
    use_unlink(&n->in[i]);
    use_link(&n->in[i], v);
}

/* ---- the list of a graph */

static void node_link(struct node *n, struct graph *g, struct node *before)
{
    NPUC_ASSERT(!before || before->graph == g);
    n->graph = g;
    n->next = before;
    n->prev = before ? before->prev : g->last;
    *(n->prev ? &n->prev->next : &g->first) = n;
    *(before ? &before->prev : &g->last) = n;
    for (int i = 0; i < n->n_out; i++)
        n->out[i].graph = g;
    for_each_region(r, n) r->parent = g;
}

static void node_unlink(struct node *n)
{
    struct graph *g = n->graph;
    *(n->prev ? &n->prev->next : &g->first) = n->next;
    *(n->next ? &n->next->prev : &g->last) = n->prev;
    n->prev = n->next = NULL;
}

void ir_move_before(struct node *n, struct node *before)
{
    if (n == before || n->next == before)
        return;
    node_unlink(n);
    node_link(n, before->graph, before);
}

void ir_move_to_end(struct node *n, struct graph *g)
{
    node_unlink(n);
    node_link(n, g, NULL);
}

/* ---- nodes */

static struct attr attr_default(struct ir_ctx *cx, const struct attr_def *d)
{
    if (!d->has_default)
        return (struct attr){.kind = ATTR_NONE};
    switch (d->kind) {
    case ATTR_INT: return (struct attr){.kind = ATTR_INT, .v.i = d->i};
    case ATTR_FLOAT: return (struct attr){.kind = ATTR_FLOAT, .v.f = d->f};
    case ATTR_STRING: return (struct attr){.kind = ATTR_STRING, .v.s = str_internz(&cx->strings, d->s ? d->s : "")};
    default: /* the length of a list default depends on ranks: left to the operator's hooks */
        return (struct attr){.kind = ATTR_NONE};
    }
}

static struct node *node_alloc(struct module *m, enum op op, int n_in, int n_out)
{
    const int64_t size = (int64_t)sizeof(struct node) + (int64_t)sizeof(struct use) * n_in;
    struct node *n = arena_zalloc(&m->arena, size);
    n->op = (uint16_t)op;
    n->n_in = n_in;
    n->n_out = (uint16_t)n_out;
    n->id = m->n_nodes++;
    n->out = ARENA_ARRAY(&m->arena, struct value, n_out ? n_out : 1);
    for (int i = 0; i < n_out; i++)
        n->out[i] = (struct value){.type = type_none(m->cx), .def = n, .id = m->n_values++, .index = (uint32_t)i};
    for (int i = 0; i < n_in; i++)
        n->in[i].user = n;
    const struct op_def *d = op_table[op];
    n->attrs = ARENA_ARRAY(&m->arena, struct attr, d->n_attrs ? d->n_attrs : 1);
    for (int i = 0; i < d->n_attrs; i++)
        n->attrs[i] = attr_default(m->cx, &d->attrs[i]);
    return n;
}

struct node *ir_new(struct builder *b, enum op op, int n_in, struct value *const *in, int n_out)
{
    NPUC_ASSERT(op > OP_none && op < OP_count && n_out <= UINT16_MAX);
    struct node *n = node_alloc(b->graph->module, op, n_in, n_out);
    n->loc = b->loc;
    struct node *before = b->before;
    if (!before && !op_has(op, T_TERMINATOR))
        before = graph_yield(b->graph);
    node_link(n, b->graph, before);
    for (int i = 0; i < n_in; i++)
        use_link(&n->in[i], in[i]);
    return n;
}

struct node *ir_resized(struct node *n, int n_in, int n_out)
{
    NPUC_ASSERT(n_out <= UINT16_MAX);
    struct module *m = n->graph->module;
    struct node *with = node_alloc(m, (enum op)n->op, n_in, n_out);
    with->loc = n->loc;
    with->place = n->place;
    with->reason = n->reason;
    const int n_attrs = op_table[n->op]->n_attrs;
    for (int i = 0; i < n_attrs; i++) {
        with->attrs[i] = n->attrs[i];
        if (n->attrs[i].kind == ATTR_GRAPH) {
            n->attrs[i].v.graph->owner = with;
            n->attrs[i] = (struct attr){.kind = ATTR_NONE};
        }
    }
    node_link(with, n->graph, n);
    return with;
}

void ir_erase(struct node *n)
{
    for (int i = 0; i < n->n_out; i++)
        NPUC_ASSERT(!n->out[i].uses);
    for (int i = 0; i < n->n_in; i++)
        use_unlink(&n->in[i]);
    for_each_region(r, n) while (r->last) ir_erase(r->last);
    node_unlink(n);
}

/* ---- attributes */

void ir_set_attr(struct node *n, const char *attr, struct attr v)
{
    const struct op_def *d = op_table[n->op];
    const int i = attr_index(d, attr);
    NPUC_ASSERT(i >= 0 && (v.kind == ATTR_NONE || (int)v.kind == d->attrs[i].kind));
    struct arena *a = &n->graph->module->arena;
    if (v.kind == ATTR_INTS)
        v.v.ints = arena_copy(a, v.v.ints, (int64_t)sizeof(int64_t) * v.len);
    else if (v.kind == ATTR_FLOATS)
        v.v.floats = arena_copy(a, v.v.floats, (int64_t)sizeof(float) * v.len);
    else if (v.kind == ATTR_STRINGS)
        v.v.strings = arena_copy(a, v.v.strings, (int64_t)sizeof(sym) * v.len);
    else if (v.kind == ATTR_GRAPH) {
        v.v.graph->owner = n;
        v.v.graph->parent = n->graph;
    }
    n->attrs[i] = v;
}

void ir_copy_attrs(struct node *n, const struct node *from)
{
    const struct op_def *d = op_table[from->op];
    for (int i = 0; i < d->n_attrs; i++) {
        const int at = attr_index(op_table[n->op], d->attrs[i].name);
        if (at >= 0 && from->attrs[i].kind != ATTR_NONE && op_table[n->op]->attrs[at].kind == d->attrs[i].kind)
            ir_set_attr(n, d->attrs[i].name, from->attrs[i]);
    }
}

void ir_set_int(struct node *n, const char *attr, int64_t v)
{
    ir_set_attr(n, attr, (struct attr){.kind = ATTR_INT, .v.i = v});
}

void ir_set_float(struct node *n, const char *attr, float v)
{
    ir_set_attr(n, attr, (struct attr){.kind = ATTR_FLOAT, .v.f = v});
}

void ir_set_str(struct node *n, const char *attr, const char *v)
{
    const sym s = str_internz(&n->graph->module->cx->strings, v);
    ir_set_attr(n, attr, (struct attr){.kind = ATTR_STRING, .v.s = s});
}

void ir_set_ints(struct node *n, const char *attr, const int64_t *v, int64_t len)
{
    ir_set_attr(n, attr, (struct attr){.kind = ATTR_INTS, .len = len, .v.ints = v});
}

void ir_set_graph(struct node *n, const char *attr, struct graph *g)
{
    ir_set_attr(n, attr, (struct attr){.kind = ATTR_GRAPH, .v.graph = g});
}

/* ---- types and replacement */

enum npuc_status ir_infer(struct node *n)
{
    const struct op_def *d = op_table[n->op];
    if (!d->infer)
        return NPUC_OK;
    struct ir_ctx *cx = n->graph->module->cx;
    const struct node *outer = cx->inferring;
    cx->inferring = n;
    const enum npuc_status s = d->infer(cx, n);
    cx->inferring = outer;
    return s;
}

static bool is_result_use(const struct use *u)
{
    return op_has(u->user->op, T_TERMINATOR) && !u->user->graph->owner;
}

static bool is_result(const struct value *v)
{
    for_each_use (u, v)
        if (is_result_use(u))
            return true;
    return false;
}

/* Can `with` become the function result that `old` is, by taking its name? */
static bool can_take_result(const struct value *old, const struct value *with)
{
    return with->def && with->graph == old->graph && !is_result(with);
}

static bool is_result_copy(const struct value *v)
{
    return v->def && v->def->op == OP_Identity;
}

bool ir_can_replace(const struct value *old, const struct value *with)
{
    if (old == with || !old->uses)
        return false;
    if (!is_result_copy(old) || can_take_result(old, with))
        return true;
    for_each_use (u, old)
        if (!is_result_use(u))
            return true;
    return false;
}

void ir_replace_all(struct value *old, struct value *with)
{
    NPUC_ASSERT(old != with);
    const bool result = is_result(old);
    const bool keep = result && !can_take_result(old, with);
    if (result && !keep && old->def) { /* an input keeps its name */
        const sym name = old->name;
        old->name = with->name;
        with->name = name;
    }
    struct use *next;
    for (struct use *u = old->uses; u; u = next) {
        next = u->next;
        if (keep && is_result_use(u))
            continue;
        use_unlink(u);
        use_link(u, with);
    }
    if (!keep || is_result_copy(old))
        return;
    /* A function's results have names of their own: an input, or a value that is a result already, enters through
     * an Identity. */
    struct builder b = ir_at(graph_yield(old->graph));
    struct node *copy = ir_new(&b, OP_Identity, 1, &with, 1);
    copy->out[0].type = old->type;
    copy->out[0].elems = old->elems;
    copy->out[0].n_elems = old->n_elems;
    copy->out[0].name = old->name;
    if (old->def)
        old->name = 0;
    for (struct use *u = old->uses; u; u = next) {
        next = u->next;
        use_unlink(u);
        use_link(u, &copy->out[0]);
    }
}

bool ir_may_rewrite(struct ir_ctx *cx)
{
    if (cx->max_rewrites >= 0 && cx->rewrites >= cx->max_rewrites)
        return false;
    cx->rewrites++;
    return true;
}
