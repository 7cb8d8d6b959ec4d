/* The text form read back: modules, graphs, nodes. Recursive in bodies only, to a bounded depth. */
#include <inttypes.h>
#include <string.h>

#include "ir/build.h"
#include "ir/check.h"
#include "ir/text_priv.h"

/* Names of one graph; the body of control flow also sees those of the enclosing graphs. */
struct scope {
    struct map names; /* sym -> struct value * */
    const struct scope *up;
};

static struct value *scope_find(const struct scope *s, sym name)
{
    for (; s; s = s->up) {
        const uint64_t *v = map_find(&s->names, name);
        if (v)
            return (struct value *)(uintptr_t)*v;
    }
    return NULL;
}

static bool scope_add(struct parser *p, struct scope *s, struct value *v)
{
    if (scope_find(s, v->name))
        return parse_fail(p, "%%%s is defined twice", str_text(&p->cx->strings, v->name));
    map_put(&s->names, v->name, (uint64_t)(uintptr_t)v);
    return true;
}

static bool parse_graph(struct parser *p, struct graph *g, const struct scope *up);

/* ---- the parts of a node */

struct node_text {
    const char *op;
    VEC(sym) results; /* 0: unused */
    VEC(struct value *) in;
};

static bool parse_results(struct parser *p, struct node_text *t)
{
    do {
        sym name = 0;
        if (parse_accept(p, "%")) {
            if (!parse_name(p, &name))
                return false;
        } else if (!parse_expect(p, "_")) {
            return false;
        }
        vec_push(&p->cx->scratch, &t->results, name);
    } while (parse_accept(p, ","));
    return parse_expect(p, "=");
}

/* Operands stand on the line of the operator: the next node may begin with '%' too. */
static bool has_operand(struct parser *p)
{
    while (p->pos < p->len && p->text[p->pos] == ' ')
        p->pos++;
    return p->pos < p->len && (p->text[p->pos] == '%' || p->text[p->pos] == '_');
}

static bool parse_operands(struct parser *p, const struct scope *s, struct node_text *t)
{
    if (!has_operand(p))
        return true;
    do {
        struct value *v = NULL;
        sym name;
        if (parse_accept(p, "%")) {
            if (!parse_name(p, &name))
                return false;
            v = scope_find(s, name);
            if (!v)
                return parse_fail(p, "%%%s is not defined", str_text(&p->cx->strings, name));
        } else if (!parse_expect(p, "_")) {
            return false;
        }
        vec_push(&p->cx->scratch, &t->in, v);
    } while (parse_accept(p, ","));
    return true;
}

static bool parse_attr_graph(struct parser *p, struct node *n, const char *attr, const struct scope *s)
{
    sym name = 0;
    if (parse_accept(p, "@") && !parse_name(p, &name))
        return false;
    struct graph *region = ir_region_new(n, name);
    ir_set_graph(n, attr, region);
    return parse_graph(p, region, n->op == OP_Fused ? NULL : s);
}

static bool parse_attr(struct parser *p, struct node *n, const struct scope *s)
{
    const struct op_def *d = op_table[n->op];
    sym name;
    if (!parse_name(p, &name) || !parse_expect(p, "="))
        return false;
    const int i = attr_index(d, str_text(&p->cx->strings, name));
    if (i < 0)
        return parse_fail(p, "%s has no attribute '%s'", d->name, str_text(&p->cx->strings, name));
    if (d->attrs[i].kind == ATTR_GRAPH)
        return parse_attr_graph(p, n, d->attrs[i].name, s);
    struct attr a;
    if (!parse_attr_value(p, d->attrs[i].kind, &a))
        return false;
    n->attrs[i] = a;
    return true;
}

static bool parse_attrs(struct parser *p, struct node *n, const struct scope *s)
{
    if (!parse_accept(p, "{"))
        return true;
    do {
        if (!parse_attr(p, n, s))
            return false;
    } while (parse_accept(p, ","));
    return parse_expect(p, "}");
}

static bool parse_place(struct parser *p, struct node *n)
{
    for (int i = 0; i < (int)NPUC_ARRAY_LEN(place_names); i++) {
        if (!parse_accept(p, place_names[i]))
            continue;
        n->place = (uint8_t)i;
        if (parse_accept(p, "("))
            return parse_string(p, &n->reason) && parse_expect(p, ")");
    }
    return true;
}

static bool parse_loc(struct parser *p, struct node *n)
{
    if (!parse_accept(p, "loc("))
        return true;
    struct loc *l = ARENA_NEW(&p->m->arena, struct loc);
    l->index = -1;
    VEC(sym) names = {0};
    while (parse_peek(p) == '"') {
        sym name;
        if (!parse_string(p, &name))
            return false;
        vec_push(&p->m->arena, &names, name);
        if (!parse_accept(p, ","))
            break;
    }
    l->names = names.data;
    l->n = (int32_t)names.len;
    if (parse_accept(p, "op")) {
        int64_t index;
        if (!parse_name(p, &l->op_type) || !parse_int(p, &index))
            return false;
        l->index = (int32_t)index;
    }
    n->loc = l;
    return parse_expect(p, ")");
}

/* ---- nodes */

static bool node_fail(struct parser *p, int64_t at, const char *text)
{
    p->pos = at;
    return parse_fail(p, "%s", text);
}

/* The types in the text win: they may say more than inference can know (a size that a pass has proven). */
static bool apply_types(struct parser *p, struct node *n, int64_t at, const struct type *const *type)
{
    struct arena *scratch = &p->cx->scratch;
    for (int i = 0; type && i < n->n_out; i++)
        n->out[i].type = type[i];
    const enum npuc_status s = ir_infer(n);
    if (s != NPUC_OK) {
        node_fail(p, at, arena_printf(scratch, "%s does not fit its operands", op_table[n->op]->name));
        p->status = s;
        return false;
    }
    for (int i = 0; type && i < n->n_out; i++) {
        if (!type_fits(p->cx, n, n->out[i].type, type[i]))
            return node_fail(p, at,
                             arena_printf(scratch, "output %d of %s is %s, its operands give %s", i,
                                          op_table[n->op]->name, type_text(p->cx, type[i]),
                                          type_text(p->cx, n->out[i].type)));
        n->out[i].type = type[i];
    }
    return true;
}

static bool parse_node_types(struct parser *p, struct node *n, int64_t at)
{
    if (!parse_accept(p, ":"))
        return apply_types(p, n, at, NULL);
    const struct type **type = ARENA_ARRAY(&p->m->arena, const struct type *, n->n_out + 1);
    for (int i = 0; i < n->n_out; i++)
        if ((i && !parse_expect(p, ",")) || !parse_type(p, &type[i]))
            return false;
    return apply_types(p, n, at, type);
}

static bool parse_op(struct parser *p, enum op *op)
{
    const char *word;
    int64_t len;
    char name[80] = {0};
    if (!parse_word(p, &word, &len))
        return parse_fail(p, "expected an operator");
    if (len < (int64_t)sizeof name)
        memcpy(name, word, (size_t)len);
    *op = op_by_name(name);
    if (*op != OP_none)
        return true;
    p->pos -= len;
    return parse_fail(p, "unknown operator '%.*s'", (int)(len < 80 ? len : 80), word);
}

static bool define_results(struct parser *p, struct node *n, struct scope *s, const struct node_text *t)
{
    for (int i = 0; i < n->n_out; i++) {
        n->out[i].name = t->results.data[i];
        if (t->results.data[i] && !scope_add(p, s, &n->out[i]))
            return false;
    }
    return true;
}

static bool parse_node_in(struct parser *p, struct graph *g, struct scope *s)
{
    struct node_text t = {0};
    enum op op;
    const char c = parse_peek(p);
    if ((c == '%' || c == '_') && !parse_results(p, &t))
        return false;
    parse_space(p);
    const int64_t at = p->pos;
    if (!parse_op(p, &op) || !parse_operands(p, s, &t))
        return false;
    if (t.results.len > UINT16_MAX || graph_yield(g))
        return parse_fail(p, graph_yield(g) ? "a node after Yield" : "too many results");
    struct builder b = ir_at_end(g);
    struct node *n = ir_new(&b, op, (int)t.in.len, t.in.data, (int)t.results.len);
    if (!parse_attrs(p, n, s))
        return false;
    const char *fault = node_schema_fault(p->cx, n);
    if (fault)
        return node_fail(p, at, fault);
    return parse_node_types(p, n, at) && parse_place(p, n) && parse_loc(p, n) && define_results(p, n, s, &t);
}

static bool parse_node(struct parser *p, struct graph *g, struct scope *s)
{
    const struct arena_mark mark = arena_mark(&p->cx->scratch);
    const bool ok = parse_node_in(p, g, s);
    arena_release(&p->cx->scratch, mark);
    return ok;
}

/* ---- graphs */

struct param {
    sym name;
    const struct type *type;
};
struct params {
    VEC(struct param) list;
};

static bool parse_params(struct parser *p, struct params *out)
{
    if (!parse_expect(p, "("))
        return false;
    while (parse_peek(p) != ')') {
        struct param one;
        if ((out->list.len && !parse_expect(p, ",")) || !parse_expect(p, "%") || !parse_name(p, &one.name) ||
            !parse_expect(p, ":") || !parse_type(p, &one.type))
            return false;
        vec_push(&p->m->arena, &out->list, one);
    }
    return parse_expect(p, ")");
}

static bool parse_body(struct parser *p, struct graph *g, struct scope *s)
{
    if (!parse_expect(p, "{"))
        return false;
    while (parse_peek(p) != '}')
        if (!parse_node(p, g, s))
            return false;
    if (!graph_yield(g))
        return parse_fail(p, "the body does not end with Yield");
    return parse_expect(p, "}");
}

static bool check_results(struct parser *p, const struct graph *g, const struct params *results)
{
    const struct node *yield = graph_yield(g);
    if (results->list.len != yield->n_in)
        return parse_fail(p, "Yield has %d operands, the function %d results", (int)yield->n_in,
                          (int)results->list.len);
    for (int i = 0; i < yield->n_in; i++) {
        const struct param *r = &results->list.data[i];
        const struct value *v = yield->in[i].value;
        if (!v || v->name != r->name || v->type != r->type)
            return parse_fail(p, "result %d is %%%s of type %s, the function says %%%s of type %s", i,
                              v ? str_text(&p->cx->strings, v->name) : "_", v ? type_text(p->cx, v->type) : "none",
                              str_text(&p->cx->strings, r->name), type_text(p->cx, r->type));
    }
    return true;
}

static bool parse_graph(struct parser *p, struct graph *g, const struct scope *up)
{
    if (++p->depth > IR_MAX_NESTING)
        return parse_fail(p, "bodies are nested more than %d deep", IR_MAX_NESTING);
    struct params in = {0}, results = {0};
    struct scope s = {.up = up};
    map_init(&s.names, &p->m->arena);
    if (!parse_params(p, &in))
        return false;
    for (int64_t i = 0; i < in.list.len; i++)
        if (!scope_add(p, &s, ir_input_new(g, in.list.data[i].type, in.list.data[i].name)))
            return false;
    const bool function = !g->owner;
    if (function && (!parse_expect(p, "->") || !parse_params(p, &results)))
        return false;
    if (!parse_body(p, g, &s) || (function && !check_results(p, g, &results)))
        return false;
    p->depth--;
    return true;
}

/* ---- modules */

static bool parse_symbol(struct parser *p)
{
    sym name;
    struct expr_range r = {INT64_MIN, INT64_MAX, 1};
    if (!parse_name(p, &name) || !parse_expect(p, "in"))
        return false;
    if (parse_peek(p) != '.' && !parse_int(p, &r.min))
        return false;
    if (!parse_expect(p, ".."))
        return false;
    const char c = parse_peek(p);
    if ((c == '-' || (c >= '0' && c <= '9')) && !parse_int(p, &r.max))
        return false;
    if (parse_accept(p, "multiple") && !parse_int(p, &r.multiple))
        return false;
    if (r.min > r.max || r.multiple < 1)
        return parse_fail(p, "symbol %s has an empty range", str_text(&p->cx->strings, name));
    expr_symbol_new(&p->cx->exprs, name, r);
    return true;
}

static bool parse_meta(struct parser *p)
{
    sym key, value;
    if (!parse_string(p, &key) || !parse_expect(p, "=") || !parse_string(p, &value))
        return false;
    map_put(&p->m->meta, key, value);
    return true;
}

static bool parse_func(struct parser *p)
{
    sym name;
    if (!parse_expect(p, "@") || !parse_name(p, &name))
        return false;
    for (int64_t i = 0; i < p->m->funcs.len; i++)
        if (p->m->funcs.data[i]->name == name)
            return parse_fail(p, "function @%s is defined twice", str_text(&p->cx->strings, name));
    return parse_graph(p, ir_func_new(p->m, name), NULL);
}

static bool parse_module(struct parser *p)
{
    if (!parse_expect(p, "module") || (parse_peek(p) == '"' && !parse_string(p, &p->m->name)) || !parse_expect(p, "{"))
        return false;
    bool ok = true;
    while (ok && !parse_accept(p, "}")) {
        if (parse_accept(p, "sym"))
            ok = parse_symbol(p);
        else if (parse_accept(p, "meta"))
            ok = parse_meta(p);
        else if (parse_accept(p, "func"))
            ok = parse_func(p);
        else
            ok = parse_fail(p, "expected 'sym', 'meta', 'func' or '}'");
    }
    if (ok && p->m->funcs.len == 0)
        ok = parse_fail(p, "the module has no function");
    if (ok && parse_peek(p))
        ok = parse_fail(p, "text after the module");
    return ok;
}

enum npuc_status ir_parse_with(struct ir_ctx *cx, const char *text, int64_t len, const struct ir_blobs *blobs,
                               struct module **out)
{
    struct parser p = {.cx = cx, .m = ir_module_new(cx), .text = text, .len = len, .blobs = blobs};
    p.m->path = cx->file;
    *out = NULL;
    if (!parse_module(&p)) {
        NPUC_ASSERT(p.status != NPUC_OK);
        ir_module_free(p.m);
        return p.status;
    }
    *out = p.m;
    return NPUC_OK;
}

enum npuc_status ir_parse(struct ir_ctx *cx, const char *text, int64_t len, struct module **out)
{
    return ir_parse_with(cx, text, len, NULL, out);
}
