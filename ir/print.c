/* Modules as text. Names are made unique per function (a Fused region is a scope of its own, the bodies of control
 * flow are not, since they see enclosing values); unnamed values get numbers. So a text read back prints the same. */
#include <inttypes.h>
#include <string.h>

#include "ir/text_priv.h"

struct printer {
    struct text t;
    const struct module *m;
    struct ir_ctx *cx;
    sym *names;        /* by value id */
    struct map *scope; /* names taken in the present function or Fused region -> counter of copies */
    uint32_t next;     /* number tried next for an unnamed value */
    bool *symbols;     /* used, by symbol number */
};

/* ---- names */

typedef void value_fn(struct printer *p, struct value *v);

static bool is_own_scope(const struct graph *g)
{
    return g->owner && graph_is_isolated(g);
}

/* Calls fn for every value of a scope: of the graph and of the bodies in it that are not scopes of their own. */
static void scope_values(struct printer *p, const struct graph *g, value_fn *fn)
{
    for (int i = 0; i < g->n_inputs; i++)
        fn(p, g->inputs[i]);
    for_each_node (n, g) {
        for (int i = 0; i < n->n_out; i++)
            fn(p, &n->out[i]);
        for_each_region(r, n) if (!is_own_scope(r)) scope_values(p, r, fn);
    }
}

static void take_name(struct printer *p, struct value *v)
{
    if (v->name && v->type->kind != TYPE_NONE && !map_find(p->scope, v->name)) {
        map_put(p->scope, v->name, 0);
        p->names[v->id] = v->name;
    }
}

static sym numbered(struct printer *p, sym base, uint64_t number)
{
    const struct arena_mark mark = arena_mark(&p->cx->scratch);
    const char *text = base ? arena_printf(&p->cx->scratch, "%s.%" PRIu64, str_text(&p->cx->strings, base), number)
                            : arena_printf(&p->cx->scratch, "%" PRIu64, number);
    const sym s = str_internz(&p->cx->strings, text);
    arena_release(&p->cx->scratch, mark);
    return s;
}

static void invent_name(struct printer *p, struct value *v)
{
    if (p->names[v->id] || v->type->kind == TYPE_NONE)
        return;
    sym name;
    if (v->name) {
        uint64_t copy = *map_find(p->scope, v->name);
        do
            name = numbered(p, v->name, ++copy);
        while (map_find(p->scope, name));
        map_put(p->scope, v->name, copy);
    } else {
        do
            name = numbered(p, 0, p->next++);
        while (map_find(p->scope, name));
    }
    map_put(p->scope, name, 0);
    p->names[v->id] = name;
}

static void name_scope(struct printer *p, const struct graph *g);

static void name_inner_scopes(struct printer *p, const struct graph *g)
{
    for_each_node (n, g)
        for_each_region(r, n)
        {
            if (is_own_scope(r))
                name_scope(p, r);
            else
                name_inner_scopes(p, r);
        }
}

static void name_scope(struct printer *p, const struct graph *g)
{
    struct map scope;
    map_init(&scope, p->t.a);
    p->scope = &scope;
    p->next = 0;
    scope_values(p, g, take_name);
    scope_values(p, g, invent_name);
    name_inner_scopes(p, g);
}

/* ---- symbols */

static void use_expr(struct printer *p, expr e)
{
    const struct expr_node *n = &p->cx->exprs.nodes.data[e];
    if (n->op == EXPR_SYM && e)
        p->symbols[n->value] = true;
    for (int32_t i = 0; i < n->n; i++)
        use_expr(p, n->arg[i]);
}

static void use_type(struct printer *p, const struct type *t)
{
    for (int i = 0; i < t->rank; i++)
        use_expr(p, t->dims[i]);
    if (t->layout.kind == LAYOUT_CACHE)
        use_expr(p, t->layout.capacity);
    if (t->elem)
        use_type(p, t->elem);
}

static void use_graph(struct printer *p, const struct graph *g)
{
    for (int i = 0; i < g->n_inputs; i++)
        use_type(p, g->inputs[i]->type);
    for_each_node (n, g) {
        for (int i = 0; i < n->n_out; i++) {
            use_type(p, n->out[i].type);
            for (int64_t k = 0; n->op == OP_SizeOf && k < n->out[i].n_elems; k++)
                use_expr(p, n->out[i].elems[k]);
        }
        for_each_region(r, n) use_graph(p, r);
    }
}

static void print_symbols(struct printer *p)
{
    for (int64_t i = 0; i < p->cx->exprs.symbols.len; i++) {
        const struct expr_symbol *s = &p->cx->exprs.symbols.data[i];
        if (!p->symbols[i])
            continue;
        text_put(&p->t, "  sym ");
        text_name(&p->t, p->cx, s->name);
        text_put(&p->t, " in ");
        if (s->range.min != INT64_MIN)
            text_printf(&p->t, "%" PRId64, s->range.min);
        text_put(&p->t, "..");
        if (s->range.max != INT64_MAX)
            text_printf(&p->t, "%" PRId64, s->range.max);
        if (s->range.multiple > 1)
            text_printf(&p->t, " multiple %" PRId64, s->range.multiple);
        text_put(&p->t, "\n");
    }
}

/* ---- nodes */

static void print_graph(struct printer *p, const struct graph *g, int indent);

static void print_value(struct printer *p, const struct value *v)
{
    if (!v || v->type->kind == TYPE_NONE) {
        text_put(&p->t, "_");
        return;
    }
    text_put(&p->t, "%");
    text_name(&p->t, p->cx, p->names[v->id]);
}

static bool is_default(const struct printer *p, const struct attr *a, const struct attr_def *d)
{
    if (a->kind == ATTR_NONE)
        return true;
    if (!d->has_default)
        return false;
    if (a->kind == ATTR_INT)
        return a->v.i == d->i;
    if (a->kind == ATTR_FLOAT)
        return memcmp(&a->v.f, &d->f, sizeof d->f) == 0;
    return a->kind == ATTR_STRING && strcmp(str_text(&p->cx->strings, a->v.s), d->s ? d->s : "") == 0;
}

static void print_symbol_text(struct printer *p, sym s)
{
    text_string(&p->t, str_text(&p->cx->strings, s), str_len(&p->cx->strings, s));
}

static void print_list_item(struct printer *p, const struct attr *a, int64_t i)
{
    if (a->kind == ATTR_INTS)
        text_printf(&p->t, "%" PRId64, a->v.ints[i]);
    else if (a->kind == ATTR_FLOATS)
        text_float(&p->t, a->v.floats[i]);
    else
        print_symbol_text(p, a->v.strings[i]);
}

static void print_attr(struct printer *p, const struct attr *a, int indent)
{
    switch (a->kind) {
    case ATTR_NONE: break;
    case ATTR_INT: text_printf(&p->t, "%" PRId64, a->v.i); break;
    case ATTR_FLOAT: text_float(&p->t, a->v.f); break;
    case ATTR_STRING: print_symbol_text(p, a->v.s); break;
    case ATTR_INTS:
    case ATTR_FLOATS:
    case ATTR_STRINGS:
        text_put(&p->t, "[");
        for (int64_t i = 0; i < a->len; i++) {
            text_put(&p->t, i ? ", " : "");
            print_list_item(p, a, i);
        }
        text_put(&p->t, "]");
        break;
    case ATTR_TENSOR: text_tensor(&p->t, p->cx, a->v.t.type, a->v.t.blob); break;
    case ATTR_GRAPH: print_graph(p, a->v.graph, indent); break;
    case ATTR_TYPE: text_type(&p->t, p->cx, a->v.type); break;
    }
}

static void print_attrs(struct printer *p, const struct node *n, int indent)
{
    const struct op_def *d = op_table[n->op];
    const char *sep = " {";
    for (int i = 0; i < d->n_attrs; i++) {
        if (is_default(p, &n->attrs[i], &d->attrs[i]))
            continue;
        text_put(&p->t, sep);
        text_put(&p->t, d->attrs[i].name);
        text_put(&p->t, "=");
        print_attr(p, &n->attrs[i], indent);
        sep = ", ";
    }
    if (sep[0] == ',')
        text_put(&p->t, "}");
}

static void print_loc(struct printer *p, const struct node *n)
{
    if (n->place != PLACE_NONE || n->reason) {
        text_printf(&p->t, "  %s", place_names[n->place]);
        if (n->reason) {
            text_put(&p->t, "(");
            print_symbol_text(p, n->reason);
            text_put(&p->t, ")");
        }
    }
    const struct loc *l = n->loc;
    if (!l)
        return;
    text_put(&p->t, "  loc(");
    for (int32_t i = 0; i < l->n; i++) {
        text_put(&p->t, i ? ", " : "");
        print_symbol_text(p, l->names[i]);
    }
    if (l->op_type || l->index >= 0) {
        text_put(&p->t, l->n ? ", op " : "op ");
        text_name(&p->t, p->cx, l->op_type);
        text_printf(&p->t, " %d", (int)l->index);
    }
    text_put(&p->t, ")");
}

static void print_indent(struct printer *p, int indent)
{
    for (int i = 0; i < indent; i++)
        text_put(&p->t, "  ");
}

static void print_node(struct printer *p, const struct node *n, int indent)
{
    print_indent(p, indent);
    for (int i = 0; i < n->n_out; i++) {
        text_put(&p->t, i ? ", " : "");
        print_value(p, &n->out[i]);
    }
    if (n->n_out)
        text_put(&p->t, " = ");
    text_put(&p->t, op_table[n->op]->name);
    for (int i = 0; i < n->n_in; i++) {
        text_put(&p->t, i ? ", " : " ");
        print_value(p, n->in[i].value);
    }
    print_attrs(p, n, indent);
    for (int i = 0; i < n->n_out; i++) {
        text_put(&p->t, i ? ", " : " : ");
        text_type(&p->t, p->cx, n->out[i].type);
    }
    print_loc(p, n);
    text_put(&p->t, "\n");
}

/* ---- graphs and modules */

static void print_param(struct printer *p, const struct value *v, int i)
{
    text_put(&p->t, i ? ", " : "");
    print_value(p, v);
    text_put(&p->t, ": ");
    text_type(&p->t, p->cx, v->type);
}

static void print_params(struct printer *p, const struct graph *g)
{
    text_put(&p->t, "(");
    for (int i = 0; i < g->n_inputs; i++)
        print_param(p, g->inputs[i], i);
    text_put(&p->t, ")");
}

static void print_graph(struct printer *p, const struct graph *g, int indent)
{
    if (g->owner && g->name) {
        text_put(&p->t, "@");
        text_name(&p->t, p->cx, g->name);
        text_put(&p->t, " ");
    }
    print_params(p, g);
    if (!g->owner) {
        text_put(&p->t, " -> (");
        const struct node *yield = graph_yield(g);
        for (int i = 0; yield && i < yield->n_in; i++)
            if (yield->in[i].value)
                print_param(p, yield->in[i].value, i);
        text_put(&p->t, ")");
    }
    text_put(&p->t, " {\n");
    for_each_node (n, g)
        print_node(p, n, indent + 1);
    print_indent(p, indent);
    text_put(&p->t, "}");
}

static void print_head(struct printer *p)
{
    const struct module *m = p->m;
    text_put(&p->t, "module ");
    if (m->name) {
        print_symbol_text(p, m->name);
        text_put(&p->t, " ");
    }
    text_put(&p->t, "{\n");
    for (int64_t i = 0; i < m->meta.len; i++) {
        text_put(&p->t, "  meta ");
        print_symbol_text(p, (sym)m->meta.entries[i].key);
        text_put(&p->t, " = ");
        print_symbol_text(p, (sym)m->meta.entries[i].value);
        text_put(&p->t, "\n");
    }
    print_symbols(p);
}

void ir_print(const struct module *m, struct arena *a, const char **text, int64_t *len)
{
    struct printer p = {.t = {.a = a}, .m = m, .cx = m->cx};
    p.names = ARENA_ARRAY(a, sym, (int64_t)m->n_values + 1);
    p.symbols = ARENA_ARRAY(a, bool, m->cx->exprs.symbols.len + 1);
    for (int64_t i = 0; i < m->funcs.len; i++) {
        name_scope(&p, m->funcs.data[i]);
        use_graph(&p, m->funcs.data[i]);
    }
    print_head(&p);
    for (int64_t i = 0; i < m->funcs.len; i++) {
        text_put(&p.t, "  func @");
        text_name(&p.t, p.cx, m->funcs.data[i]->name);
        print_graph(&p, m->funcs.data[i], 1);
        text_put(&p.t, "\n");
    }
    text_put(&p.t, "}\n");
    *len = p.t.buf.len;
    vec_push(a, &p.t.buf, '\0');
    *text = p.t.buf.data;
}
