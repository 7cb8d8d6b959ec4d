/* Contexts, modules, and reading a graph: attributes, constants, known elements, messages about nodes. */
#include "ir/graph.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kernels/tensor.h"

void ir_ctx_init(struct ir_ctx *cx, const struct alloc_hooks *hooks, struct diag *d)
{
    *cx = (struct ir_ctx){.diag = d, .max_rewrites = -1};
    arena_init(&cx->arena, hooks);
    arena_init(&cx->scratch, hooks);
    strtab_init(&cx->strings, &cx->arena);
    expr_pool_init(&cx->exprs, &cx->arena, &cx->strings);
    map_init(&cx->types, &cx->arena);
}

void ir_ctx_free(struct ir_ctx *cx)
{
    arena_free(&cx->scratch);
    arena_free(&cx->arena);
}

struct module *ir_module_new(struct ir_ctx *cx)
{
    struct arena arena;
    arena_init(&arena, cx->arena.hooks);
    arena.on_oom = cx->arena.on_oom;
    arena.oom_user = cx->arena.oom_user;
    struct module *m = ARENA_NEW(&arena, struct module);
    m->arena = arena;
    m->cx = cx;
    map_init(&m->meta, &m->arena);
    return m;
}

/* The module lives in its own arena. */
void ir_module_free(struct module *m)
{
    if (!m)
        return;
    struct arena arena = m->arena;
    arena_free(&arena);
}

bool value_used_in_body(const struct value *v)
{
    for_each_use (u, v)
        if (u->user->graph != v->graph)
            return true;
    return false;
}

bool value_has_one_use(const struct value *v)
{
    return v->uses && !v->uses->next;
}

struct node *graph_yield(const struct graph *g)
{
    return g->last && op_has(g->last->op, T_TERMINATOR) ? g->last : NULL;
}

struct graph *node_region(const struct node *n, int i)
{
    const int n_attrs = op_table[n->op]->n_attrs;
    for (int a = 0; a < n_attrs; a++)
        if (n->attrs[a].kind == ATTR_GRAPH && i-- == 0)
            return n->attrs[a].v.graph;
    return NULL;
}

bool graph_is_isolated(const struct graph *g)
{
    return !g->owner || g->owner->op == OP_Fused;
}

int attr_index(const struct op_def *d, const char *name)
{
    for (int i = 0; i < d->n_attrs; i++)
        if (strcmp(d->attrs[i].name, name) == 0)
            return i;
    return -1;
}

const struct attr *node_attr(const struct node *n, const char *name)
{
    const int i = attr_index(op_table[n->op], name);
    return i >= 0 && n->attrs[i].kind != ATTR_NONE ? &n->attrs[i] : NULL;
}

int64_t node_attr_int(const struct node *n, const char *name, int64_t otherwise)
{
    const struct attr *a = node_attr(n, name);
    return a && a->kind == ATTR_INT ? a->v.i : otherwise;
}

float node_attr_float(const struct node *n, const char *name, float otherwise)
{
    const struct attr *a = node_attr(n, name);
    return a && a->kind == ATTR_FLOAT ? a->v.f : otherwise;
}

sym node_attr_str(const struct node *n, const char *name, sym otherwise)
{
    const struct attr *a = node_attr(n, name);
    return a && a->kind == ATTR_STRING ? a->v.s : otherwise;
}

const struct blob *value_const(const struct value *v)
{
    if (!v || !v->def || v->def->op != OP_Constant)
        return NULL;
    const struct attr *a = node_attr(v->def, "value");
    return a && a->kind == ATTR_TENSOR ? a->v.t.blob : NULL;
}

bool blob_tensor(const struct ir_ctx *cx, const struct type *t, const struct blob *b, struct k_tensor *out)
{
    if (!type_is_static(cx, t) || t->rank > K_MAX_RANK || t->layout.kind != LAYOUT_ND || !b || (!b->data && b->size))
        return false;
    *out = (struct k_tensor){.dtype = t->dtype, .rank = t->rank, .size = b->size};
    memcpy(&out->data, &b->data, sizeof out->data); /* readers only; k_tensor has no const form */
    for (int i = 0; i < t->rank; i++)
        if (!expr_is_const(&cx->exprs, t->dims[i], &out->dims[i]))
            return false;
    return true;
}

/* Element `index` of a constant lies within its bytes. */
static bool const_element(const struct value *v, int64_t index, struct k_tensor *t)
{
    const struct blob *b = value_const(v);
    if (!b || !b->data || !blob_tensor(v->graph->module->cx, v->type, b, t))
        return false;
    int64_t need;
    return index >= 0 && index < k_count(t) && dtype_bytes(t->dtype, index + 1, &need) && need <= t->size;
}

static bool is_number(enum dtype t)
{
    return dtype_is_float(t) || dtype_is_integer(t) || t == DT_BOOL;
}

bool value_const_f64(const struct value *v, int64_t index, double *out)
{
    struct k_tensor t;
    if (!v || !is_number(v->type->dtype) || !const_element(v, index, &t))
        return false;
    *out = k_get_f64(&t, index);
    return true;
}

expr value_elem(struct ir_ctx *cx, const struct value *v, int64_t i)
{
    if (!v)
        return EXPR_INVALID;
    if (v->elems)
        return i >= 0 && i < v->n_elems ? v->elems[i] : EXPR_INVALID;
    struct k_tensor t;
    if ((!dtype_is_integer(v->type->dtype) && v->type->dtype != DT_BOOL) || !const_element(v, i, &t))
        return EXPR_INVALID;
    return expr_const(&cx->exprs, k_get_i64(&t, i));
}

int64_t value_n_elems(struct ir_ctx *cx, const struct value *v)
{
    if (v->elems)
        return v->n_elems;
    if (v->type->rank < 0 || v->type->rank > 1)
        return -1;
    return type_const_count(cx, v->type);
}

const void *attr_payload(const struct attr *a, int64_t *size)
{
    *size = 0;
    if (a->kind == ATTR_INTS)
        *size = a->len * (int64_t)sizeof(int64_t);
    else if (a->kind == ATTR_FLOATS)
        *size = a->len * (int64_t)sizeof(float);
    else if (a->kind == ATTR_STRINGS)
        *size = a->len * (int64_t)sizeof(sym);
    return a->v.ints;
}

static bool same_blob(const struct blob *a, const struct blob *b)
{
    if (a == b)
        return true;
    return a->data && b->data && a->size == b->size &&
           (a->data == b->data || (a->size <= IR_SMALL_CONSTANT && memcmp(a->data, b->data, (size_t)a->size) == 0));
}

static bool same_attr(const struct attr *a, const struct attr *b)
{
    int64_t sa, sb;
    if (a->kind != b->kind || a->len != b->len)
        return false;
    switch (a->kind) {
    case ATTR_NONE: return true;
    case ATTR_INT: return a->v.i == b->v.i;
    case ATTR_FLOAT: return memcmp(&a->v.f, &b->v.f, sizeof a->v.f) == 0;
    case ATTR_STRING: return a->v.s == b->v.s;
    case ATTR_TYPE: return a->v.type == b->v.type;
    case ATTR_TENSOR: return a->v.t.type == b->v.t.type && same_blob(a->v.t.blob, b->v.t.blob);
    case ATTR_GRAPH: return false;
    case ATTR_INTS:
    case ATTR_FLOATS:
    case ATTR_STRINGS: break;
    }
    const void *pa = attr_payload(a, &sa), *pb = attr_payload(b, &sb);
    return sa == 0 || memcmp(pa, pb, (size_t)sa) == 0;
}

bool node_same_attrs(const struct node *a, const struct node *b)
{
    if (a->op != b->op)
        return false;
    for (int i = 0; i < op_table[a->op]->n_attrs; i++)
        if (!same_attr(&a->attrs[i], &b->attrs[i]))
            return false;
    return true;
}

const char *node_text(struct ir_ctx *cx, const struct node *n)
{
    const struct loc *l = n->loc;
    const sym name = l && l->n > 0 ? l->names[0] : 0;
    const char *op = l && l->op_type ? str_text(&cx->strings, l->op_type) : op_table[n->op]->name;
    const char *safe = str_escape(&cx->scratch, str_text(&cx->strings, name), str_len(&cx->strings, name), 200);
    if (l && l->index >= 0)
        return arena_printf(&cx->scratch, "'%s' (%s, #%d)", safe, op, (int)l->index);
    return arena_printf(&cx->scratch, "'%s' (%s)", safe, op);
}

enum npuc_status node_error(struct ir_ctx *cx, const struct node *n, enum diag_code code, const char *fmt, ...)
{
    char message[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(message, sizeof message, fmt, ap);
    va_end(ap);
    const struct loc *l = n->loc;
    const struct diag_loc where = {
        .file = cx->file,
        .node = l && l->n > 0 ? str_text(&cx->strings, l->names[0]) : NULL,
        .op = l && l->op_type ? str_text(&cx->strings, l->op_type) : op_table[n->op]->name,
        .index = l ? l->index : -1,
    };
    return diag_error_text(cx->diag, &where, code, message);
}
