/* Nodes: operators and attributes as ONNX has them. */
#include <stdlib.h>
#include <string.h>

#include "frontend/export/priv.h"

/* AttributeProto.AttributeType */
enum { A_FLOAT = 1, A_INT, A_STRING, A_TENSOR, A_GRAPH, A_FLOATS, A_INTS, A_STRINGS, A_TYPE = 13 };

static const struct twin {
    enum op op;
    const char *name, *attr;
    int kind;
    const char *value;
} twins[] = {
#define TWIN(op, name, attr, kind, value) {OP_##op, name, attr, ATTR_##kind, value},
#define CHAIN(...)
#include "frontend/export/twins.def"
#undef TWIN
#undef CHAIN
};

static const struct chain {
    enum op op;
    const char *first;
    int n_first;
    const char *second;
} chains[] = {
#define TWIN(...)
#define CHAIN(op, first, n_first, second) {OP_##op, first, n_first, second},
#include "frontend/export/twins.def"
#undef TWIN
#undef CHAIN
};

static const struct newer {
    const char *op, *attr;
    enum dtype type;
    int64_t opset;
} newer[] = {
#define NEWER(op, attr, type, opset) {op, attr, DT_##type, opset},
#include "frontend/export/newer.def"
#undef NEWER
};

/* ---- building ---- */

static void put_sym(struct writer *w, struct pb *p, int field, sym s)
{
    pb_bytes(p, field, str_text(&w->cx->strings, s), str_len(&w->cx->strings, s));
}

struct pb write_begin(struct writer *w, const char *op, sym name, int n_in, const sym *in, int n_out, const sym *out)
{
    struct pb p = {.arena = w->arena};
    while (n_in > 0 && !in[n_in - 1])
        n_in--;
    while (n_out > 1 && !out[n_out - 1])
        n_out--;
    for (int i = 0; i < n_in; i++)
        put_sym(w, &p, 1, in[i]);
    for (int i = 0; i < n_out; i++)
        put_sym(w, &p, 2, out[i]);
    if (name)
        put_sym(w, &p, 3, name);
    pb_text(&p, 4, op);
    return p;
}

void write_end(struct writer *w, const struct pb *node)
{
    pb_message(&w->scope->pb, 1, node);
}

static struct pb attr_begin(struct writer *w, const char *name, int type)
{
    struct pb a = {.arena = w->arena};
    pb_text(&a, 1, name);
    pb_int(&a, 20, type);
    return a;
}

void write_attr_int(struct pb *node, const char *name, int64_t v)
{
    struct pb a = {.arena = node->arena};
    pb_text(&a, 1, name);
    pb_int(&a, 20, A_INT);
    pb_int(&a, 3, v);
    pb_message(node, 5, &a);
}

sym write_simple(struct writer *w, const char *op, int n_in, const sym *in)
{
    const sym out = write_fresh(w);
    const struct pb n = write_begin(w, op, 0, n_in, in, 1, &out);
    write_end(w, &n);
    return out;
}

/* ---- attributes ---- */

static bool is_default(const struct ir_ctx *cx, const struct attr_def *d, const struct attr *a)
{
    if (a->kind == ATTR_NONE)
        return true;
    if (d->required || !d->has_default)
        return false;
    switch (a->kind) {
    case ATTR_INT: return a->v.i == d->i;
    case ATTR_FLOAT: return memcmp(&a->v.f, &d->f, sizeof d->f) == 0;
    case ATTR_STRING: return strcmp(str_text(&cx->strings, a->v.s), d->s ? d->s : "") == 0;
    default: return false;
    }
}

static enum npuc_status attr_write(struct writer *w, const char *name, const struct attr *a, struct pb *node)
{
    static const int types[] = {
        [ATTR_INT] = A_INT,       [ATTR_FLOAT] = A_FLOAT,   [ATTR_STRING] = A_STRING,
        [ATTR_INTS] = A_INTS,     [ATTR_FLOATS] = A_FLOATS, [ATTR_STRINGS] = A_STRINGS,
        [ATTR_TENSOR] = A_TENSOR, [ATTR_GRAPH] = A_GRAPH,   [ATTR_TYPE] = A_TYPE,
    };
    struct pb p = attr_begin(w, name, types[a->kind]), inner;
    enum npuc_status s = NPUC_OK;
    switch (a->kind) {
    case ATTR_INT: pb_int(&p, 3, a->v.i); break;
    case ATTR_FLOAT: pb_float(&p, 2, a->v.f); break;
    case ATTR_STRING: put_sym(w, &p, 4, a->v.s); break;
    case ATTR_INTS: pb_ints(&p, 8, a->v.ints, a->len); break;
    case ATTR_FLOATS: pb_floats(&p, 7, a->v.floats, a->len); break;
    case ATTR_STRINGS:
        for (int64_t i = 0; i < a->len; i++)
            put_sym(w, &p, 9, a->v.strings[i]);
        break;
    case ATTR_TENSOR: s = write_tensor(w, 0, a->v.t.type, a->v.t.blob, &inner); break;
    case ATTR_GRAPH: s = write_graph(w, a->v.graph, &inner); break;
    case ATTR_TYPE: inner = write_type(w, a->v.type); break;
    case ATTR_NONE: break;
    }
    if (s == NPUC_OK && a->kind == ATTR_TENSOR)
        pb_message(&p, 5, &inner);
    if (s == NPUC_OK && a->kind == ATTR_GRAPH)
        pb_message(&p, 6, &inner);
    if (s == NPUC_OK && a->kind == ATTR_TYPE)
        pb_message(&p, 14, &inner);
    pb_message(node, 5, &p);
    return s;
}

static enum npuc_status attrs_write(struct writer *w, const struct node *n, struct pb *node)
{
    const struct op_def *d = op_table[n->op];
    enum npuc_status s = NPUC_OK;
    if (strcmp(d->domain, "npuc") == 0)
        return NPUC_OK;
    for (int i = 0; i < d->n_attrs && s == NPUC_OK; i++)
        if (!is_default(w->cx, &d->attrs[i], &n->attrs[i]))
            s = attr_write(w, d->attrs[i].name, &n->attrs[i], node);
    return s;
}

/* ---- versions ---- */

static bool has_dtype(const struct node *n, enum dtype t)
{
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i].value && n->in[i].value->type->dtype == t)
            return true;
    for (int i = 0; i < n->n_out; i++)
        if (n->out[i].type->dtype == t)
            return true;
    return t == DT_NONE;
}

static bool has_attr(const struct writer *w, const struct node *n, const char *name)
{
    const struct op_def *d = op_table[n->op];
    const int i = *name ? attr_index(d, name) : -1;
    return !*name || (i >= 0 && !is_default(w->cx, &d->attrs[i], &n->attrs[i]));
}

static void need_opset(struct writer *w, const struct node *n)
{
    for (size_t i = 0; i < NPUC_ARRAY_LEN(newer); i++) {
        const struct newer *r = &newer[i];
        const bool same = *r->op == '*' || strcmp(r->op, op_table[n->op]->name) == 0;
        if (same && r->opset > w->opset && has_dtype(n, r->type) && has_attr(w, n, r->attr))
            w->opset = r->opset;
    }
}

/* ---- nodes ---- */

/* Of several nodes that come from one of the file, how much n is that one. */
static int likeness(const struct writer *w, const struct node *n)
{
    const enum op_class c = op_table[n->op]->cls;
    const char *type = n->loc->op_type ? str_text(&w->cx->strings, n->loc->op_type) : "";
    return strcmp(type, op_table[n->op]->name) == 0 ? 2 : c == CLS_MATMUL || c == CLS_CONV ? 1 : 0;
}

void write_claim_names(struct writer *w, const struct graph *g)
{
    struct map best; /* name -> likeness of its owner */
    map_init(&best, w->arena);
    for_each_node (n, g) {
        for_each_region(r, n) write_claim_names(w, r);
        if (!n->loc || n->loc->n < 1)
            continue;
        const uint64_t *known = map_find(&best, n->loc->names[0]);
        const int l = likeness(w, n);
        if (known && (int)*known >= l)
            continue;
        map_put(&best, n->loc->names[0], (uint64_t)l);
        map_put(&w->owners, n->loc->names[0], n->id);
    }
}

/* The name of the first node of the file behind it; others than the owner of the name get a number. */
static sym node_name(struct writer *w, const struct node *n)
{
    if (!n->loc || n->loc->n < 1)
        return 0;
    const uint64_t *owner = map_find(&w->owners, n->loc->names[0]);
    sym s = n->loc->names[0];
    for (int k = 2; map_find(&w->used_nodes, s) || (k == 2 && owner && *owner != n->id); k++)
        s = str_internz(&w->cx->strings,
                        arena_printf(w->arena, "%.200s_%d", str_text(&w->cx->strings, n->loc->names[0]), k));
    map_put(&w->used_nodes, s, 1);
    return s;
}

static const struct twin *twin_of(const struct node *n)
{
    for (size_t i = 0; i < NPUC_ARRAY_LEN(twins); i++)
        if (twins[i].op == n->op)
            return &twins[i];
    return NULL;
}

static void twin_attr(struct writer *w, const struct twin *t, struct pb *node)
{
    if (!*t->attr)
        return;
    if (t->kind == ATTR_INT) {
        write_attr_int(node, t->attr, strtoll(t->value, NULL, 10));
        return;
    }
    struct pb a = attr_begin(w, t->attr, A_STRING);
    pb_text(&a, 4, t->value);
    pb_message(node, 5, &a);
}

/* Two nodes for one: the first's result and the operands left over enter the second. */
static bool chain_write(struct writer *w, const struct node *n, const sym *in, sym out)
{
    for (size_t i = 0; i < NPUC_ARRAY_LEN(chains); i++) {
        const struct chain *c = &chains[i];
        if (c->op != n->op)
            continue;
        sym rest[4] = {write_simple(w, c->first, c->n_first, in)};
        for (int k = c->n_first; k < n->n_in; k++)
            rest[k - c->n_first + 1] = in[k];
        const struct pb p = write_begin(w, c->second, node_name(w, n), n->n_in - c->n_first + 1, rest, 1, &out);
        write_end(w, &p);
        return true;
    }
    return false;
}

/* ONNX's Clip takes scalars. */
static bool clip_write(struct writer *w, const struct node *n, const sym *in, sym out)
{
    if (n->op != OP_Clip || (n->in[1].value->type->rank == 0 && n->in[2].value->type->rank == 0))
        return false;
    const sym low[2] = {write_simple(w, "Max", 2, in), in[2]};
    const struct pb p = write_begin(w, "Min", node_name(w, n), 2, low, 1, &out);
    write_end(w, &p);
    return true;
}

static enum npuc_status plain_write(struct writer *w, const struct node *n, const sym *in, const sym *out)
{
    const struct op_def *d = op_table[n->op];
    const struct twin *t = twin_of(n);
    if (!t && strcmp(d->domain, "npuc") == 0)
        return node_error(w->cx, n, D_UNSUPPORTED, "%s has no form in ONNX: models are written before passes make it",
                          d->name);
    struct pb p = write_begin(w, t ? t->name : d->name, node_name(w, n), n->n_in, in, n->n_out, out);
    if (!t && *d->domain) {
        pb_text(&p, 7, d->domain);
        const sym domain = str_internz(&w->cx->strings, d->domain);
        const uint64_t *known = map_find(&w->domains, domain);
        map_put(&w->domains, domain, known && *known > (uint64_t)d->since ? *known : (uint64_t)d->since);
    }
    if (t)
        twin_attr(w, t, &p);
    const enum npuc_status s = attrs_write(w, n, &p);
    write_end(w, &p);
    return s;
}

/* The region's nodes stand where the node stands; its names are those of what enters and leaves. */
static enum npuc_status fused_write(struct writer *w, const struct node *n)
{
    const struct graph *g = node_region(n, 0);
    const struct node *yield = graph_yield(g);
    for (int i = 0; i < g->n_inputs; i++)
        w->names[g->inputs[i]->id] = write_name(w, n->in[i].value);
    for (int i = 0; i < yield->n_in; i++) {
        const struct value *v = yield->in[i].value;
        if (v->def && v->def->op != OP_Constant && !w->names[v->id])
            w->names[v->id] = write_name(w, &n->out[i]);
    }
    const enum npuc_status s = write_nodes(w, g);
    for (int i = 0; s == NPUC_OK && i < yield->n_in; i++) {
        const sym from = write_name(w, yield->in[i].value), to = write_name(w, &n->out[i]);
        if (from == to)
            continue;
        const struct pb p = write_begin(w, "Identity", 0, 1, &from, 1, &to);
        write_end(w, &p);
    }
    return s;
}

static enum npuc_status constant_write(struct writer *w, const struct node *n)
{
    const struct attr *a = node_attr(n, "value");
    struct pb t;
    if (!n->out[0].uses)
        return NPUC_OK;
    const enum npuc_status s = write_tensor(w, write_name(w, &n->out[0]), a->v.t.type, a->v.t.blob, &t);
    if (s == NPUC_OK)
        pb_message(&w->scope->pb, 5, &t);
    return s;
}

enum npuc_status write_node(struct writer *w, const struct node *n)
{
    need_opset(w, n);
    if (n->op == OP_Constant)
        return constant_write(w, n);
    if (n->op == OP_Fused)
        return fused_write(w, n);
    if (n->op == OP_SizeOf)
        return write_sizes(w, n);
    sym *in = ARENA_ARRAY(w->arena, sym, n->n_in + 1), *out = ARENA_ARRAY(w->arena, sym, n->n_out + 1);
    for (int i = 0; i < n->n_in; i++)
        in[i] = n->in[i].value ? write_name(w, n->in[i].value) : 0;
    for (int i = 0; i < n->n_out; i++)
        out[i] = n->out[i].type->kind == TYPE_NONE ? 0 : write_name(w, &n->out[i]);
    if (chain_write(w, n, in, out[0]) || clip_write(w, n, in, out[0]))
        return NPUC_OK;
    return plain_write(w, n, in, out);
}
