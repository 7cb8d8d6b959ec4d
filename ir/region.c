/* Bodies: deep copies, and making a Fused node from a set of nodes. */
#include <string.h>

#include "ir/build.h"

const struct loc *ir_merge_loc(struct module *m, const struct loc *a, const struct loc *b)
{
    if (!a || !b || a == b)
        return a ? a : b;
    struct loc *l = ARENA_NEW(&m->arena, struct loc);
    *l = *a;
    l->names = ARENA_ARRAY(&m->arena, sym, (int64_t)a->n + b->n + 1);
    l->n = 0;
    const struct loc *part[] = {a, b};
    struct map seen;
    const struct arena_mark mark = arena_mark(&m->cx->scratch);
    map_init(&seen, &m->cx->scratch);
    for (int p = 0; p < 2; p++)
        for (int i = 0; i < part[p]->n; i++)
            if (!map_find(&seen, part[p]->names[i])) {
                map_put(&seen, part[p]->names[i], 1);
                l->names[l->n++] = part[p]->names[i];
            }
    arena_release(&m->cx->scratch, mark);
    if (b->index >= 0 && (a->index < 0 || b->index < a->index))
        l->index = b->index;
    return l;
}

/* ---- deep copy */

static struct value *mapped(const struct map *values, struct value *v)
{
    const uint64_t *to = v ? map_find(values, v->id) : NULL;
    return to ? (struct value *)(uintptr_t)*to : v; /* a captured value stays */
}

static void map_value(struct map *values, struct value *from, struct value *to)
{
    to->type = from->type;
    to->elems = from->elems;
    to->n_elems = from->n_elems;
    to->name = from->name;
    map_put(values, from->id, (uint64_t)(uintptr_t)to);
}

static struct graph *clone_graph(const struct graph *g, struct node *owner, struct map *values);

static struct node *clone_node(struct graph *into, struct node *before, const struct node *n, struct map *values)
{
    struct builder b = {into->module->cx, into, before, n->loc};
    struct value **in = ARENA_ARRAY(values->arena, struct value *, n->n_in + 1);
    for (int i = 0; i < n->n_in; i++)
        in[i] = mapped(values, n->in[i].value);
    struct node *copy = ir_new(&b, (enum op)n->op, n->n_in, in, n->n_out);
    copy->place = n->place;
    copy->reason = n->reason;
    for (int i = 0; i < n->n_out; i++)
        map_value(values, &n->out[i], &copy->out[i]);
    for (int i = 0; i < op_table[n->op]->n_attrs; i++) {
        copy->attrs[i] = n->attrs[i]; /* payloads are immutable: shared */
        if (n->attrs[i].kind == ATTR_GRAPH)
            copy->attrs[i].v.graph = clone_graph(n->attrs[i].v.graph, copy, values);
    }
    return copy;
}

/* Recursion is bounded by the nesting that the readers allow. */
static struct graph *clone_graph(const struct graph *g, struct node *owner, struct map *values)
{
    struct graph *copy = ir_region_new(owner, g->name);
    for (int i = 0; i < g->n_inputs; i++)
        map_value(values, g->inputs[i], ir_input_new(copy, g->inputs[i]->type, g->inputs[i]->name));
    for_each_node (n, g)
        clone_node(copy, NULL, n, values);
    return copy;
}

struct graph *ir_clone_region(const struct graph *g, struct node *owner)
{
    struct arena *scratch = &g->module->cx->scratch;
    const struct arena_mark mark = arena_mark(scratch);
    struct map values;
    map_init(&values, scratch);
    struct graph *copy = clone_graph(g, owner, &values);
    arena_release(scratch, mark);
    return copy;
}

/* ---- copies in another place: sizes there may be other ones */

static const struct type *substituted(struct ir_ctx *cx, const struct type *t, const expr *by, int32_t n)
{
    expr dims[IR_MAX_RANK];
    bool changed = false;
    if (t->kind != TYPE_TENSOR || t->layout.kind != LAYOUT_ND || t->quant)
        return t;
    for (int i = 0; i < t->rank; i++) {
        dims[i] = expr_subst(&cx->exprs, t->dims[i], by, n);
        changed = changed || dims[i] != t->dims[i];
    }
    return changed ? type_tensor(cx, t->dtype, t->rank, dims) : t;
}

static void substitute_sizes(struct node *n, const expr *by, int32_t n_by)
{
    struct ir_ctx *cx = n->graph->module->cx;
    const struct attr *a = node_attr(n, "exprs");
    const struct value *v = &n->out[0];
    if (n->op != OP_SizeOf || !a || !v->elems || v->n_elems != a->len)
        return;
    sym *text = ARENA_ARRAY(&cx->arena, sym, a->len + 1);
    for (int64_t i = 0; i < a->len; i++) {
        const expr e = expr_subst(&cx->exprs, v->elems[i], by, n_by);
        text[i] = e ? str_internz(&cx->strings, expr_text(&cx->exprs, e, &cx->scratch)) : a->v.strings[i];
    }
    ir_set_attr(n, "exprs", (struct attr){.kind = ATTR_STRINGS, .len = a->len, .v.strings = text});
}

void ir_substitute_inputs(struct graph *g, const expr *by, int32_t n)
{
    for (int i = 0; i < g->n_inputs; i++)
        g->inputs[i]->type = substituted(g->module->cx, g->inputs[i]->type, by, n);
}

void ir_substitute(struct graph *g, const expr *by, int32_t n)
{
    struct ir_ctx *cx = g->module->cx;
    if (g->owner)
        ir_substitute_inputs(g, by, n);
    for_each_node (x, g) {
        substitute_sizes(x, by, n);
        for (int i = 0; i < x->n_out; i++)
            x->out[i].type = substituted(cx, x->out[i].type, by, n);
        for_each_region(r, x) ir_substitute(r, by, n);
    }
}

/* What was a symbol of its own in the original is that size in the copy. */
static void note_sizes(const struct ir_ctx *cx, const struct type *from, const struct type *to, expr *by, int64_t n)
{
    if (from->kind != TYPE_TENSOR || to->kind != TYPE_TENSOR || from->rank != to->rank)
        return;
    for (int i = 0; i < from->rank; i++) {
        const struct expr_node *x = &cx->exprs.nodes.data[from->dims[i]];
        if (x->op == EXPR_SYM && from->dims[i] != to->dims[i] && x->value < n && !by[x->value])
            by[x->value] = to->dims[i];
    }
}

static bool is_vaguer(const struct type *t, const struct type *than)
{
    return t->kind != than->kind || (t->kind == TYPE_TENSOR && t->rank < 0 && than->rank >= 0);
}

static enum npuc_status renew_types(struct node *copy, const struct node *from, expr *by, int64_t n_by)
{
    struct ir_ctx *cx = copy->graph->module->cx;
    substitute_sizes(copy, by, (int32_t)n_by);
    for_each_region(r, copy) ir_substitute(r, by, (int32_t)n_by);
    for (int i = 0; i < copy->n_out; i++) {
        copy->out[i].type = type_none(cx);
        copy->out[i].elems = NULL;
        copy->out[i].n_elems = 0;
    }
    const enum npuc_status s = ir_infer(copy);
    for (int i = 0; s == NPUC_OK && i < copy->n_out; i++) {
        if (is_vaguer(copy->out[i].type, from->out[i].type))
            copy->out[i].type = substituted(cx, from->out[i].type, by, (int32_t)n_by);
        note_sizes(cx, from->out[i].type, copy->out[i].type, by, n_by);
    }
    return s;
}

/* Another symbol of the same range. */
static expr own_symbol(struct ir_ctx *cx, int32_t like)
{
    const struct expr_symbol s = cx->exprs.symbols.data[like];
    int k = 0;
    sym name;
    do
        name = str_internz(&cx->strings, arena_printf(&cx->scratch, "%s.%d", str_text(&cx->strings, s.name), ++k));
    while (expr_symbol_find(&cx->exprs, name) >= 0);
    return expr_sym(&cx->exprs, expr_symbol_new(&cx->exprs, name, s.range));
}

/* Sizes read from the elements of an operand: where the copy's operand tells them they are those; else the copy reads
 * into symbols of its own. True: no copy is needed. */
static bool known_contents(struct builder *b, const struct node *n, struct map *values, expr *by, int64_t n_by)
{
    struct value *from = mapped(values, n->in[0].value);
    const struct value *v = &n->out[0];
    bool known = v->elems && value_n_elems(b->cx, from) == v->n_elems;
    for (int64_t i = 0; known && i < v->n_elems; i++)
        known = value_elem(b->cx, from, i) != EXPR_INVALID;
    for (int64_t i = 0; v->elems && i < v->n_elems; i++) {
        const struct expr_node *x = &b->cx->exprs.nodes.data[v->elems[i]];
        if (x->op == EXPR_SYM && x->value < n_by)
            by[x->value] = known ? value_elem(b->cx, from, i) : own_symbol(b->cx, (int32_t)x->value);
    }
    if (known)
        map_put(values, v->id, (uint64_t)(uintptr_t)from);
    return known;
}

static void rename_contents(struct node *copy, const expr *by, int64_t n_by)
{
    struct ir_ctx *cx = copy->graph->module->cx;
    const struct attr *a = node_attr(copy, "names");
    sym *names = ARENA_ARRAY(&cx->arena, sym, a->len + 1);
    for (int64_t i = 0; i < a->len; i++) {
        const int32_t symbol = expr_symbol_find(&cx->exprs, a->v.strings[i]);
        const expr e = symbol >= 0 && symbol < n_by ? by[symbol] : EXPR_INVALID;
        const struct expr_node *x = &cx->exprs.nodes.data[e];
        names[i] = e && x->op == EXPR_SYM ? cx->exprs.symbols.data[x->value].name : a->v.strings[i];
    }
    ir_set_attr(copy, "names", (struct attr){.kind = ATTR_STRINGS, .len = a->len, .v.strings = names});
}

enum npuc_status ir_clone_into(struct builder *b, const struct graph *g, struct value *const *inputs,
                               struct value **results)
{
    struct arena *scratch = &b->cx->scratch;
    const struct arena_mark mark = arena_mark(scratch);
    const int64_t n_by = b->cx->exprs.symbols.len;
    expr *by = ARENA_ARRAY(scratch, expr, n_by + 1);
    enum npuc_status s = NPUC_OK;
    struct map values;
    map_init(&values, scratch);
    for (int i = 0; i < g->n_inputs; i++) {
        map_put(&values, g->inputs[i]->id, (uint64_t)(uintptr_t)inputs[i]);
        note_sizes(b->cx, g->inputs[i]->type, inputs[i]->type, by, n_by);
    }
    const struct node *yield = graph_yield(g);
    for (const struct node *n = g->first; s == NPUC_OK && n != yield; n = n->next) {
        if (n->op == OP_Contents && known_contents(b, n, &values, by, n_by))
            continue;
        struct node *copy = clone_node(b->graph, b->before, n, &values);
        if (n->op == OP_Contents)
            rename_contents(copy, by, n_by);
        s = renew_types(copy, n, by, n_by);
    }
    for (int i = 0; i < yield->n_in; i++)
        results[i] = mapped(&values, yield->in[i].value);
    arena_release(scratch, mark);
    return s;
}

/* ---- Fused */

enum { SMALL_CONST_BYTES = 16, SMALL_CONTENTS = 16 };

struct fusion {
    struct node *const *nodes;
    int64_t n;
    struct map members; /* node id -> 1 */
    struct map inner;   /* id of a value from outside -> value within the region */
    VEC(struct value *) in, out;
    bool attention; /* its kernel reads floats that are more than one number, such as sinks of heads, as operands */
};

bool ir_moves_in(const struct value *v)
{
    const struct blob *b = value_const(v);
    return b && b->data && b->size <= SMALL_CONST_BYTES;
}

static bool moves_in(const struct fusion *f, const struct value *v)
{
    return ir_moves_in(v) &&
           !(f->attention && dtype_is_float(v->type->dtype) && value_const(v)->size > dtype_size(v->type->dtype));
}

static bool is_member(const struct fusion *f, const struct node *n)
{
    return n && map_find(&f->members, n->id) != NULL;
}

/* External operands in order of first use, and values needed outside. */
static void fusion_edges(struct fusion *f, struct arena *a)
{
    for (int64_t k = 0; k < f->n; k++) {
        struct node *n = f->nodes[k];
        for (int i = 0; i < n->n_in; i++) {
            struct value *v = n->in[i].value;
            if (!v || is_member(f, v->def) || moves_in(f, v) || map_find(&f->inner, v->id))
                continue;
            map_put(&f->inner, v->id, 0);
            vec_push(a, &f->in, v);
        }
        for (int i = 0; i < n->n_out; i++) {
            bool outside = false;
            for_each_use (u, &n->out[i])
                outside = outside || !is_member(f, u->user);
            if (outside)
                vec_push(a, &f->out, &n->out[i]);
        }
    }
}

static struct value *fusion_inner(struct fusion *f, struct graph *region, struct value *v)
{
    const uint64_t *known = map_find(&f->inner, v->id);
    if (known)
        return (struct value *)(uintptr_t)*known;
    struct builder b = {region->module->cx, region, NULL, v->def->loc};
    struct value *copy = ir_const_blob(&b, v->type, value_const(v));
    copy->name = v->name;
    map_put(&f->inner, v->id, (uint64_t)(uintptr_t)copy);
    return copy;
}

/* What is known of an operand's elements is known of the region's input: sizes that a Reshape within it reads, say. */
static void fusion_contents(struct value *in, const struct value *v)
{
    struct ir_ctx *cx = in->graph->module->cx;
    const int64_t n = v->elems ? v->n_elems : value_n_elems(cx, v);
    expr e[SMALL_CONTENTS];
    in->elems = v->elems;
    in->n_elems = v->n_elems;
    if (v->elems || !value_const(v) || n < 1 || n > SMALL_CONTENTS)
        return;
    for (int64_t i = 0; i < n; i++)
        if (!(e[i] = value_elem(cx, v, i)))
            return;
    in->elems = arena_copy(&cx->arena, e, n * (int64_t)sizeof *e);
    in->n_elems = n;
}

static void fusion_fill(struct fusion *f, struct graph *region)
{
    for (int64_t i = 0; i < f->in.len; i++) {
        struct value *v = f->in.data[i];
        struct value *in = ir_input_new(region, v->type, v->name);
        fusion_contents(in, v);
        map_put(&f->inner, v->id, (uint64_t)(uintptr_t)in);
    }
    for (int64_t k = 0; k < f->n; k++) {
        struct node *n = f->nodes[k];
        for (int i = 0; i < n->n_in; i++) {
            struct value *v = n->in[i].value;
            if (v && !is_member(f, v->def))
                ir_set_input(n, i, fusion_inner(f, region, v));
        }
        ir_move_to_end(n, region);
    }
}

/* The results of the region become those of the Fused node, with names, and its Yield. */
static void fusion_results(struct fusion *f, struct node *fused, struct graph *region)
{
    for (int64_t i = 0; i < f->out.len; i++) {
        struct value *from = f->out.data[i], *to = &fused->out[i];
        to->type = from->type;
        to->elems = from->elems;
        to->n_elems = from->n_elems;
        to->name = from->name;
        struct use *next;
        for (struct use *u = from->uses; u; u = next) {
            next = u->next;
            if (!is_member(f, u->user))
                ir_set_input(u->user, (int)(u - u->user->in), to);
        }
    }
    struct builder b = ir_at_end(region);
    b.loc = fused->loc;
    ir_new(&b, OP_Yield, (int)f->out.len, f->out.data, 0);
}

struct node *ir_fuse(struct ir_ctx *cx, struct node *const *nodes, int64_t n, struct node *at, const char *kind)
{
    const struct arena_mark mark = arena_mark(&cx->scratch);
    struct fusion f = {.nodes = nodes, .n = n, .attention = kind && strcmp(kind, "attention") == 0};
    map_init(&f.members, &cx->scratch);
    map_init(&f.inner, &cx->scratch);
    struct builder b = ir_at(at);
    b.loc = NULL;
    for (int64_t k = 0; k < n; k++) {
        map_put(&f.members, nodes[k]->id, 1);
        b.loc = ir_merge_loc(at->graph->module, b.loc, nodes[k]->loc);
    }
    fusion_edges(&f, &cx->scratch);
    if (is_member(&f, at)) /* `at` moves into the region: insert where it stands now */
        b.before = at;
    struct node *fused = ir_new(&b, OP_Fused, (int)f.in.len, f.in.data, (int)f.out.len);
    struct graph *region = ir_region_new(fused, 0);
    ir_set_graph(fused, "body", region);
    if (kind)
        ir_set_str(fused, "kind", kind);
    fusion_fill(&f, region);
    fusion_results(&f, fused, region);
    arena_release(&cx->scratch, mark);
    return fused;
}

void ir_unfuse(struct node *fused)
{
    struct graph *body = node_region(fused, 0);
    struct node *yield = graph_yield(body);
    struct value **results = ARENA_ARRAY(&fused->graph->module->arena, struct value *, fused->n_out + 1);
    for (int i = 0; i < fused->n_out; i++)
        results[i] = yield->in[i].value;
    ir_erase(yield);
    for_each_node_safe(n, body) ir_move_before(n, fused);
    for (int i = 0; i < body->n_inputs; i++)
        ir_replace_all(body->inputs[i], fused->in[i].value);
    for (int i = 0; i < fused->n_out; i++) {
        results[i]->name = fused->out[i].name;
        ir_replace_all(&fused->out[i], results[i]);
    }
    ir_erase(fused);
}
