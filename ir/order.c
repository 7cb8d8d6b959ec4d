/* Topological order and dead nodes. Operands of nodes within bodies count as operands of the node that owns the body.
 */
#include "ir/build.h"

enum { STATE_NEW, STATE_OPEN, STATE_DONE };

/* Dependencies of the nodes of one graph: of node i, dep[first[i]] .. dep[first[i + 1]]. */
struct deps {
    struct arena *a;
    struct map index; /* node id -> position in the graph */
    struct node **nodes;
    int64_t *first;
    VEC(int64_t) dep;
};

static void add_deps(struct deps *d, const struct graph *g, const struct node *n)
{
    for (int i = 0; i < n->n_in; i++) {
        const struct value *v = n->in[i].value;
        if (v && v->def && v->graph == g)
            vec_push(d->a, &d->dep, (int64_t)*map_find(&d->index, v->def->id));
    }
    for_each_region(r, n) for_each_node (inner, r) add_deps(d, g, inner);
}

static int64_t collect(struct deps *d, const struct graph *g)
{
    map_init(&d->index, d->a);
    int64_t len = 0;
    for_each_node (n, g)
        map_put(&d->index, n->id, (uint64_t)len++);
    d->nodes = ARENA_ARRAY(d->a, struct node *, len);
    d->first = ARENA_ARRAY(d->a, int64_t, len + 1);
    int64_t i = 0;
    for_each_node (n, g) {
        d->nodes[i] = n;
        add_deps(d, g, n);
        d->first[++i] = d->dep.len;
    }
    return len;
}

static bool is_sorted(const struct deps *d, int64_t len)
{
    for (int64_t i = 0; i < len; i++)
        for (int64_t k = d->first[i]; k < d->first[i + 1]; k++)
            if (d->dep.data[k] >= i)
                return false;
    return true;
}

/* Depth first with an explicit stack, roots in the present order: what is in order already stays where it is. */
static void visit(struct deps *d, struct graph *g, int64_t root, uint8_t *state, int64_t *stack, int64_t *at)
{
    int64_t depth = 0;
    stack[depth++] = root;
    state[root] = STATE_OPEN;
    while (depth) {
        const int64_t i = stack[depth - 1];
        if (at[i] < d->first[i + 1]) {
            const int64_t dep = d->dep.data[at[i]++];
            NPUC_ASSERT(state[dep] != STATE_OPEN); /* a cycle */
            if (state[dep] == STATE_NEW) {
                state[dep] = STATE_OPEN;
                stack[depth++] = dep;
            }
            continue;
        }
        state[i] = STATE_DONE;
        ir_move_to_end(d->nodes[i], g);
        depth--;
    }
}

void ir_sort(struct graph *g)
{
    struct arena *scratch = &g->module->cx->scratch;
    const struct arena_mark mark = arena_mark(scratch);
    struct deps d = {.a = scratch};
    const int64_t len = collect(&d, g);
    if (!is_sorted(&d, len)) {
        struct node *yield = graph_yield(g);
        uint8_t *state = ARENA_ARRAY(scratch, uint8_t, len);
        int64_t *stack = ARENA_ARRAY(scratch, int64_t, len);
        int64_t *at = ARENA_ARRAY(scratch, int64_t, len);
        for (int64_t i = 0; i < len; i++)
            at[i] = d.first[i];
        for (int64_t i = 0; i < len; i++)
            if (state[i] == STATE_NEW && d.nodes[i] != yield)
                visit(&d, g, i, state, stack, at);
        if (yield)
            ir_move_to_end(yield, g);
    }
    arena_release(scratch, mark);
}

static bool is_dead(const struct node *n)
{
    if (op_has((enum op)n->op, T_SIDE_EFFECT | T_TERMINATOR))
        return false;
    for (int i = 0; i < n->n_out; i++)
        if (n->out[i].uses)
            return false;
    return true;
}

/* ---- symbols that only a computed result tells: a SizeOf reads them without an edge to the node */

struct wanted {
    struct arena *a;
    VEC(bool) symbol;
};

static void want(struct wanted *w, const struct expr_pool *p, expr e)
{
    const struct expr_node *x = &p->nodes.data[e];
    if (x->op == EXPR_SYM) {
        while (w->symbol.len <= x->value)
            vec_push(w->a, &w->symbol, false);
        w->symbol.data[x->value] = true;
    } else if (x->op != EXPR_CONST) {
        for (int32_t i = 0; i < x->n; i++)
            want(w, p, x->arg[i]);
    }
}

static void want_sizes(struct wanted *w, const struct node *n)
{
    const struct value *v = &n->out[0];
    for (int64_t i = 0; n->op == OP_SizeOf && v->elems && i < v->n_elems; i++)
        if (v->elems[i])
            want(w, &n->graph->module->cx->exprs, v->elems[i]);
}

static bool mentions(const struct expr_pool *p, const struct value *v, int32_t symbol)
{
    for (int i = 0; v->type->kind == TYPE_TENSOR && i < v->type->rank; i++)
        if (expr_uses_symbol(p, v->type->dims[i], symbol))
            return true;
    for (int64_t i = 0; v->elems && i < v->n_elems; i++)
        if (v->elems[i] && expr_uses_symbol(p, v->elems[i], symbol))
            return true;
    return false;
}

/* Is the symbol told by an operand of n or by an input of its function? */
static bool known_before(const struct node *n, int32_t symbol)
{
    const struct expr_pool *p = &n->graph->module->cx->exprs;
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i].value && mentions(p, n->in[i].value, symbol))
            return true;
    for (const struct graph *g = n->graph; g; g = g->parent)
        for (int i = 0; i < g->n_inputs; i++)
            if (mentions(p, g->inputs[i], symbol))
                return true;
    return false;
}

static bool tells_wanted(const struct wanted *w, const struct node *n)
{
    const struct expr_pool *p = &n->graph->module->cx->exprs;
    for (int i = 0; w->symbol.len && i < n->n_out; i++) {
        const struct type *t = n->out[i].type;
        for (int k = 0; t && t->kind == TYPE_TENSOR && k < t->rank; k++) {
            const struct expr_node *x = &p->nodes.data[t->dims[k]];
            if (x->op == EXPR_SYM && x->value < w->symbol.len && w->symbol.data[x->value] &&
                !known_before(n, (int32_t)x->value))
                return true;
        }
    }
    return false;
}

/* Backwards: users are gone before what they used. */
static int64_t dce(struct graph *g, struct wanted *w)
{
    int64_t erased = 0;
    for (struct node *n = g->last, *prev; n; n = prev) {
        prev = n->prev;
        if (is_dead(n) && !tells_wanted(w, n)) {
            ir_erase(n);
            erased++;
            continue;
        }
        want_sizes(w, n);
        for_each_region(r, n) erased += dce(r, w);
    }
    return erased;
}

int64_t ir_dce(struct graph *g)
{
    struct arena *scratch = &g->module->cx->scratch;
    const struct arena_mark mark = arena_mark(scratch);
    struct wanted w = {.a = scratch};
    const int64_t erased = dce(g, &w);
    arena_release(scratch, mark);
    return erased;
}
