/* The verifier: what must hold between passes. It trusts nothing but the memory of nodes and values itself, so that a
 * pass that forgot a link is found here and not as a wrong result later. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "ir/build.h"
#include "ir/check.h"
#include "ir/text_priv.h"

enum { MAX_FINDINGS = 20 };

struct verifier {
    struct ir_ctx *cx;
    const struct module *m;
    const char *after;
    int findings;
    uint8_t *defined;  /* by value id: visible at the node under inspection */
    int64_t *uses;     /* by value id: operands found in nodes */
    int64_t n_visited; /* nodes, against cyclic lists */
};

/* n may be NULL (a finding about a graph). */
NPUC_PRINTF(3, 4) static void finding(struct verifier *v, const struct node *n, const char *fmt, ...)
{
    if (v->findings++ >= MAX_FINDINGS)
        return;
    char message[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(message, sizeof message, fmt, ap);
    va_end(ap);
    const char *after = v->after ? v->after : "reading";
    if (n && n->op > OP_none && n->op < OP_count) {
        node_error(v->cx, n, D_VERIFY, "after %s: %s", after, message);
        return;
    }
    char whole[640];
    snprintf(whole, sizeof whole, "after %s: %s", after, message);
    diag_error_text(v->cx->diag, &(struct diag_loc){.file = v->cx->file, .index = -1}, D_VERIFY, whole);
}

static const char *name_of(const struct verifier *v, const struct value *x)
{
    if (x->name)
        return str_text(&v->cx->strings, x->name);
    return arena_printf(&v->cx->scratch, "#%u", x->id);
}

/* ---- values and their uses */

static void check_value(struct verifier *v, const struct node *n, const struct value *x, const struct graph *g)
{
    if (x->id >= v->m->n_values) {
        finding(v, n, "value %s has an id beyond the module's", name_of(v, x));
        return;
    }
    if (x->graph != g)
        finding(v, n, "value %s says it belongs to another graph", name_of(v, x));
    if (v->defined[x->id])
        finding(v, n, "value %s is defined twice (id %u)", name_of(v, x), x->id);
    v->defined[x->id] = 1;
    struct use *const *link = &x->uses;
    for (const struct use *u = x->uses; u; link = &u->next, u = u->next) {
        if (u->value != x || u->link != link || !u->user) {
            finding(v, n, "the use list of %s is broken", name_of(v, x));
            break;
        }
        v->uses[x->id]--;
    }
}

/* The body between the user and the definition that must not see enclosing values, or NULL. */
static const struct graph *sealed_between(const struct graph *from, const struct graph *to)
{
    for (; from && from != to; from = from->parent)
        if (graph_is_isolated(from))
            return from;
    return NULL;
}

static void check_operand(struct verifier *v, const struct node *n, int i)
{
    const struct use *u = &n->in[i];
    if (u->user != n) {
        finding(v, n, "operand %d names another user", i);
        return;
    }
    if (!u->value)
        return;
    const struct value *x = u->value;
    if (!u->link || *u->link != u)
        finding(v, n, "operand %d (%s) is not linked into its value's use list", i, name_of(v, x));
    if (x->id >= v->m->n_values || !v->defined[x->id]) {
        finding(v, n, "operand %d (%s) is used before its definition", i, name_of(v, x));
        return;
    }
    v->uses[x->id]++;
    if (sealed_between(n->graph, x->graph))
        finding(v, n, "operand %d (%s) comes from outside a Fused region", i, name_of(v, x));
    if (x->type && x->type->kind == TYPE_NONE)
        finding(v, n, "operand %d (%s) is an output that does not exist", i, name_of(v, x));
}

/* ---- types */

static void check_layout(struct verifier *v, const struct node *n, const struct value *x)
{
    const struct type *t = x->type;
    const struct layout *l = &t->layout;
    if (t->kind != TYPE_TENSOR || l->kind == LAYOUT_ND)
        return;
    const bool blocked = l->kind == LAYOUT_NZ || l->kind == LAYOUT_NZ_T;
    if (blocked && (t->rank < 2 || l->c0 <= 0))
        finding(v, n, "%s: layout %s needs two axes and a block size, type is %s", name_of(v, x), layout_names[l->kind],
                type_text(v->cx, t));
    const bool image = l->kind == LAYOUT_NC1HWC0 || l->kind == LAYOUT_FRACTAL_Z;
    if (image && (t->rank < 3 || l->c0 <= 0))
        finding(v, n, "%s: layout %s needs image axes and a block size, type is %s", name_of(v, x),
                layout_names[l->kind], type_text(v->cx, t));
    if (l->kind == LAYOUT_CACHE && (l->axis < 0 || l->axis >= t->rank || l->capacity == EXPR_INVALID))
        finding(v, n, "%s: a cache needs an axis and a capacity, type is %s", name_of(v, x), type_text(v->cx, t));
    if (l->page && (l->kind != LAYOUT_CACHE || l->axis < 1 || l->page < 0))
        finding(v, n, "%s: pages are rows of a cache behind the axis of sequences, type is %s", name_of(v, x),
                type_text(v->cx, t));
    if (l->ring && (l->page <= 0 || l->ring < 0 || l->ring % l->page != 0 || l->window < 1 || l->window > l->ring))
        finding(v, n, "%s: a ring is whole pages and holds its window, type is %s", name_of(v, x), type_text(v->cx, t));
    if (t->quant && t->quant->axis >= t->rank)
        finding(v, n, "%s: quantised along axis %d, type is %s", name_of(v, x), t->quant->axis, type_text(v->cx, t));
}

struct stored {
    const struct type *type;
    const expr *elems;
    int64_t n_elems;
};

/* Inference is run again on the node's present operands; what it writes is undone. */
static void check_types(struct verifier *v, struct node *n)
{
    struct ir_ctx *cx = v->cx;
    struct stored *old = ARENA_ARRAY(&cx->scratch, struct stored, n->n_out + 1);
    for (int i = 0; i < n->n_out; i++)
        old[i] = (struct stored){n->out[i].type, n->out[i].elems, n->out[i].n_elems};
    const int32_t n_fresh = cx->n_fresh;
    const enum npuc_status s = ir_infer(n);
    for (int i = 0; i < n->n_out; i++) {
        const struct type *inferred = n->out[i].type;
        n->out[i].type = old[i].type;
        n->out[i].elems = old[i].elems;
        n->out[i].n_elems = old[i].n_elems;
        if (s == NPUC_OK && !type_fits(cx, n, inferred, old[i].type))
            finding(v, n, "output %d (%s) has type %s, expected %s", i, name_of(v, &n->out[i]),
                    type_text(cx, old[i].type), type_text(cx, inferred));
    }
    cx->n_fresh = n_fresh;
    if (s != NPUC_OK)
        finding(v, n, "its operands contradict each other");
}

static void check_constant(struct verifier *v, const struct node *n)
{
    const struct attr *a = node_attr(n, "value");
    if (n->op != OP_Constant || !a)
        return;
    int64_t size;
    const int64_t count = type_const_count(v->cx, a->v.t.type);
    if (count < 0 || !a->v.t.blob)
        finding(v, n, "a constant without sizes or bytes");
    else if (a->v.t.type->layout.kind == LAYOUT_ND && a->v.t.type->dtype != DT_STRING &&
             (!dtype_bytes(a->v.t.type->dtype, count, &size) || size != a->v.t.blob->size))
        finding(v, n, "the constant has %" PRId64 " bytes, its type is %s", a->v.t.blob->size,
                type_text(v->cx, a->v.t.type));
}

/* ---- nodes and graphs */

static void check_graph(struct verifier *v, const struct graph *g);

static void undefine(struct verifier *v, const struct graph *g)
{
    for (int i = 0; i < g->n_inputs; i++)
        v->defined[g->inputs[i]->id] = 0;
    for_each_node (n, g)
        for (int i = 0; i < n->n_out; i++)
            v->defined[n->out[i].id] = 0;
}

static void check_regions(struct verifier *v, const struct node *n)
{
    for_each_region(r, n)
    {
        if (r->owner != n || r->parent != n->graph)
            finding(v, n, "a body does not know its owner");
        else
            check_graph(v, r);
    }
}

static void check_links(struct verifier *v, const struct node *n, const struct graph *g)
{
    if (n->graph != g)
        finding(v, n, "the node says it belongs to another graph");
    if ((n->prev ? n->prev->next : g->first) != n || (n->next ? n->next->prev : g->last) != n)
        finding(v, n, "the node list is broken");
    if (op_has((enum op)n->op, T_TERMINATOR) != (n == g->last))
        finding(v, n, n == g->last ? "a graph must end with Yield" : "Yield within a graph");
    for (int i = 0; i < n->n_out; i++) {
        if (n->out[i].def != n || n->out[i].index != (uint32_t)i)
            finding(v, n, "output %d does not know its node", i);
        if (!n->out[i].type)
            finding(v, n, "value %s has no type", name_of(v, &n->out[i]));
    }
}

static void check_node(struct verifier *v, struct node *n, const struct graph *g)
{
    const struct arena_mark mark = arena_mark(&v->cx->scratch);
    const int before = v->findings;
    check_links(v, n, g);
    for (int i = 0; i < n->n_in; i++)
        check_operand(v, n, i);
    const char *fault = node_schema_fault(v->cx, n);
    if (fault)
        finding(v, n, "%s", fault);
    if (v->findings == before)
        check_regions(v, n);
    if (v->findings == before) {
        check_types(v, n);
        check_constant(v, n);
        if (op_table[n->op]->legal && op_table[n->op]->legal(v->cx, n) != NPUC_OK)
            finding(v, n, "the attributes are not legal");
    }
    for (int i = 0; i < n->n_out; i++) {
        check_value(v, n, &n->out[i], g);
        if (n->out[i].type)
            check_layout(v, n, &n->out[i]);
    }
    arena_release(&v->cx->scratch, mark);
}

/* Uses are complete only when the whole graph with its bodies was seen. */
static void check_uses(struct verifier *v, const struct node *n, const struct value *x)
{
    if (x->id < v->m->n_values && v->uses[x->id] != 0)
        finding(v, n, "value %s: %s", name_of(v, x),
                v->uses[x->id] > 0 ? "an operand is missing in its use list"
                                   : "its use list names a user that is gone");
}

static void check_graph(struct verifier *v, const struct graph *g)
{
    if (g->module != v->m)
        finding(v, g->owner, "a graph of another module");
    if (!g->last) {
        finding(v, g->owner, "an empty graph: a graph must end with Yield");
        return;
    }
    for (int i = 0; i < g->n_inputs; i++) {
        check_value(v, g->owner, g->inputs[i], g);
        if (!g->inputs[i]->type)
            finding(v, g->owner, "input %s has no type", name_of(v, g->inputs[i]));
        else
            check_layout(v, g->owner, g->inputs[i]);
    }
    for_each_node (n, g) {
        if (++v->n_visited > (int64_t)v->m->n_nodes || n->op <= OP_none || n->op >= OP_count) {
            finding(v, g->owner, "a node list that does not end");
            return;
        }
        check_node(v, n, g);
    }
    for (int i = 0; i < g->n_inputs; i++)
        check_uses(v, g->owner, g->inputs[i]);
    for_each_node (n, g)
        for (int i = 0; i < n->n_out; i++)
            check_uses(v, n, &n->out[i]);
    undefine(v, g);
}

enum npuc_status ir_verify(const struct module *m, const char *after)
{
    struct ir_ctx *cx = m->cx;
    const struct arena_mark mark = arena_mark(&cx->scratch);
    struct verifier v = {.cx = cx, .m = m, .after = after};
    v.defined = ARENA_ARRAY(&cx->scratch, uint8_t, (int64_t)m->n_values + 1);
    v.uses = ARENA_ARRAY(&cx->scratch, int64_t, (int64_t)m->n_values + 1);
    if (!m->funcs.len)
        finding(&v, NULL, "a module without functions");
    for (int64_t i = 0; i < m->funcs.len; i++)
        check_graph(&v, m->funcs.data[i]);
    arena_release(&cx->scratch, mark);
    return v.findings ? NPUC_E_INTERNAL : NPUC_OK;
}
