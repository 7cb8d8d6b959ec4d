/* Steps that run on the host: operator kernels with their attributes, sizes from symbols, copies. */
#include "backend/emit_priv.h"
#include "kernels/tensor.h"

/* ---- attributes ------------------------------------------------------------------------------------------- */

static const sym *copy_syms(struct emit *e, const sym *s, int64_t n)
{
    sym *out = ARENA_ARRAY(&e->plan->arena, sym, n);
    for (int64_t i = 0; i < n; i++)
        out[i] = emit_sym(e, s[i]);
    return out;
}

/* A tensor attribute becomes a weight of its own, found again by its bytes. */
static int32_t tensor_attr(struct emit *e, const struct attr *a)
{
    struct value v = {.type = a->v.t.type};
    struct attr payload = *a;
    struct node def = {.op = OP_Constant, .n_out = 1, .attrs = &payload, .out = &v};
    v.def = &def;
    return emit_weight(e, &v, WF_COPY, v.type->dtype, false);
}

/* A tensor of text becomes the list of its elements: weights are numbers. */
static bool text_attr(struct emit *e, const struct attr *a, struct plan_attr *out)
{
    struct k_tensor t;
    if (!blob_tensor(e->cx, a->v.t.type, a->v.t.blob, &t))
        return false;
    sym *text = ARENA_ARRAY(&e->plan->arena, sym, k_count(&t) + 1);
    out->len = k_count(&t);
    for (int64_t i = 0; i < out->len; i++)
        text[i] = str_intern(&e->plan->strings, ((const struct k_string *)t.data)[i].text,
                             ((const struct k_string *)t.data)[i].len);
    out->v.strings = text;
    return true;
}

static bool copy_attr(struct emit *e, const char *name, const struct attr *a, struct plan_attr *out)
{
    struct arena *mem = &e->plan->arena;
    *out = (struct plan_attr){.name = str_internz(&e->plan->strings, name), .kind = (uint8_t)a->kind, .len = a->len};
    switch (a->kind) {
    case ATTR_INT: out->v.i = a->v.i; return true;
    case ATTR_FLOAT: out->v.f = a->v.f; return true;
    case ATTR_STRING:
        out->v.s = emit_sym(e, a->v.s);
        out->len = str_len(&e->cx->strings, a->v.s);
        return true;
    case ATTR_INTS: out->v.ints = arena_copy(mem, a->v.ints, a->len * (int64_t)sizeof(int64_t)); return true;
    case ATTR_FLOATS: out->v.floats = arena_copy(mem, a->v.floats, a->len * (int64_t)sizeof(float)); return true;
    case ATTR_STRINGS: out->v.strings = copy_syms(e, a->v.strings, a->len); return true;
    case ATTR_TENSOR:
        if (a->v.t.type->dtype == DT_STRING)
            return text_attr(e, a, out);
        out->v.tensor = tensor_attr(e, a);
        return true;
    case ATTR_NONE:
    case ATTR_GRAPH:
    case ATTR_TYPE: break;
    }
    return false;
}

static const uint8_t attr_kind_of[] = {
    [ATTR_INT] = 0,    [ATTR_FLOAT] = 1,   [ATTR_STRING] = 2, [ATTR_INTS] = 3,
    [ATTR_FLOATS] = 4, [ATTR_STRINGS] = 5, [ATTR_TENSOR] = 6, /* as enum k_attr_kind: plan_attr mirrors it */
};

static const struct plan_attr *copy_attrs(struct emit *e, const struct node *n, int32_t *count)
{
    const struct op_def *d = op_table[n->op];
    struct plan_attr *out = ARENA_ARRAY(&e->plan->arena, struct plan_attr, d->n_attrs);
    *count = 0;
    for (int i = 0; i < d->n_attrs; i++)
        if (copy_attr(e, d->attrs[i].name, &n->attrs[i], &out[*count])) {
            const bool text = n->attrs[i].kind == ATTR_TENSOR && n->attrs[i].v.t.type->dtype == DT_STRING;
            out[*count].kind = attr_kind_of[text ? ATTR_STRINGS : n->attrs[i].kind];
            ++*count;
        }
    return out;
}

/* ---- tensors and data-dependent sizes --------------------------------------------------------------------- */

static const int32_t *step_tensors(struct emit *e, const struct node *n, int32_t *n_in, int32_t *n_out)
{
    int32_t *t = ARENA_ARRAY(&e->plan->arena, int32_t, (int64_t)n->n_in + n->n_out + 1);
    *n_in = n->n_in;
    *n_out = n->n_out;
    while (*n_out > 0 && !node_out(n, *n_out - 1))
        --*n_out;
    for (int i = 0; i < *n_in; i++)
        t[i] = emit_tensor(e, node_in(n, i));
    for (int i = 0; i < *n_out; i++)
        t[*n_in + i] = emit_tensor(e, node_out(n, i));
    return t;
}

struct binds {
    VEC(int32_t) v; /* triples: output, axis, symbol of the plan */
};

/* Symbols first seen in this output get their value from the result. */
static enum npuc_status bind_output(struct emitter *em, const struct node *n, int32_t output, struct binds *b)
{
    struct emit *e = &em->e;
    const struct type *t = node_out(n, output)->type;
    for (int i = 0; i < t->rank; i++) {
        if (expr_is_bound(em, t->dims[i]))
            continue;
        const expr dim = emit_expr(e, t->dims[i]);
        const struct expr_node *x = &e->plan->exprs.nodes.data[dim];
        if (x->op != EXPR_SYM)
            return node_error(e->cx, n, D_UNSUPPORTED,
                              "size %d of output %d, %s, cannot be known before it is computed", i, output,
                              expr_text(&e->plan->exprs, dim, &e->cx->scratch));
        vec_push(e->arena, &b->v, output);
        vec_push(e->arena, &b->v, i);
        vec_push(e->arena, &b->v, (int32_t)x->value);
        const struct type one = {.kind = TYPE_TENSOR, .rank = 1, .dims = &t->dims[i]};
        bind_type_symbols(em, &one);
    }
    return NPUC_OK;
}

static enum npuc_status bind_outputs(struct emitter *em, const struct node *n, struct binds *b)
{
    for (int i = 0; i < n->n_out; i++) {
        const enum npuc_status st = node_out(n, i) ? bind_output(em, n, i, b) : NPUC_OK;
        if (st != NPUC_OK)
            return st;
    }
    return NPUC_OK;
}

enum npuc_status emit_host(struct emit *e, struct node *n)
{
    struct emitter *em = emitter_of(e);
    const struct op_def *d = op_table[n->op];
    if (!op_runs_on_host((enum op)n->op))
        return node_error(e->cx, n, D_UNSUPPORTED_OP, "operator %s can run neither on the NPU nor on the host",
                          d->name);
    struct binds binds = {0};
    const enum npuc_status st = bind_outputs(em, n, &binds);
    if (st != NPUC_OK)
        return st;
    struct plan_step s = {0};
    s.tensors = step_tensors(e, n, &s.n_in, &s.n_out);
    s.attrs = copy_attrs(e, n, &s.n_attrs);
    struct plan_step *step = step_new(e, PS_HOST, n);
    step->op = str_internz(&e->plan->strings, d->kernel ? d->kernel : d->name);
    step->tensors = s.tensors;
    step->n_in = s.n_in;
    step->n_out = s.n_out;
    step->attrs = s.attrs;
    step->n_attrs = s.n_attrs;
    step->n_binds = (int32_t)binds.v.len / 3;
    step->binds = arena_copy(&e->plan->arena, binds.v.data, binds.v.len * (int64_t)sizeof(int32_t));
    step->reason = emit_sym(e, n->reason);
    return NPUC_OK;
}

/* Text is written into the attributes of the step that makes it. */
enum npuc_status emit_text(struct emit *e, struct node *n)
{
    struct arena *mem = &e->plan->arena;
    struct strtab *names = &e->plan->strings;
    struct k_tensor t;
    const struct attr *a = node_attr(n, "value");
    if (!a || !blob_tensor(e->cx, a->v.t.type, a->v.t.blob, &t))
        return node_error(e->cx, n, D_MODEL, "the text of the constant is absent");
    struct plan_attr *attrs = ARENA_ARRAY(mem, struct plan_attr, 2);
    attrs[0] = (struct plan_attr){.name = str_internz(names, "strings"), .kind = K_ATTR_STRINGS};
    (void)text_attr(e, a, &attrs[0]);
    attrs[1] = (struct plan_attr){.name = str_internz(names, "dims"),
                                  .kind = K_ATTR_INTS,
                                  .len = t.rank,
                                  .v.ints = arena_copy(mem, t.dims, t.rank * (int64_t)sizeof *t.dims)};
    const int32_t out = emit_tensor(e, &n->out[0]);
    struct plan_step *step = step_new(e, PS_HOST, n);
    step->op = str_internz(names, "Constant");
    step->tensors = arena_copy(mem, &out, sizeof out);
    step->n_out = 1;
    step->attrs = attrs;
    step->n_attrs = 2;
    step->reason = str_internz(names, "text lives on the host");
    return NPUC_OK;
}

bool has_known_elems(const struct emitter *em, const struct node *n)
{
    const struct value *y = n->n_out == 1 ? node_out(n, 0) : NULL;
    if (!y || !y->elems || y->n_elems <= 0 || y->type->kind != TYPE_TENSOR || !dtype_is_integer(y->type->dtype))
        return false;
    for (int64_t i = 0; i < y->n_elems; i++)
        if (!expr_is_bound(em, y->elems[i]))
            return false;
    return true;
}

enum npuc_status emit_contents(struct emit *e, struct node *n)
{
    struct emitter *em = emitter_of(e);
    struct value *out = &n->out[0];
    const int32_t from = emit_tensor(e, node_in(n, 0));
    int32_t *binds = ARENA_ARRAY(&e->plan->arena, int32_t, 3 * out->n_elems + 1);
    for (int32_t i = 0; i < out->n_elems; i++) {
        const expr element = emit_expr(e, out->elems[i]); /* may move the pool */
        const struct expr_node *x = &e->plan->exprs.nodes.data[element];
        NPUC_ASSERT(x->op == EXPR_SYM);
        binds[3 * i] = 0;
        binds[3 * i + 1] = i;
        binds[3 * i + 2] = (int32_t)x->value;
        const struct type one = {.kind = TYPE_TENSOR, .rank = 1, .dims = &out->elems[i]};
        bind_type_symbols(em, &one);
    }
    struct plan_step *step = step_new(e, PS_SIZES, n);
    step->op = str_internz(&e->plan->strings, op_table[n->op]->name);
    step->tensors = arena_copy(&e->plan->arena, &from, sizeof from);
    step->n_in = 1;
    step->binds = binds;
    step->n_binds = (int32_t)out->n_elems;
    if (e->tensor_of[out->id] < 0)
        e->tensor_of[out->id] = tensor_alias(e, from, out->type, emit_sym(e, out->name));
    return NPUC_OK;
}

/* Do only kernels read v? What takes it as a shape alone reads nothing. */
static bool read_by_cores_alone(const struct value *v)
{
    for_each_use (u, v)
        if (u->user->place == PLACE_HOST || op_has((enum op)u->user->op, T_TERMINATOR))
            return false;
    return true;
}

/* One number that only kernels read is written by a core, whose launch others join: the host would take longer. */
static bool number_on_cores(struct emit *e, struct node *n)
{
    const struct value *out = node_out(n, 0);
    bool done = false;
    if (out->n_elems != 1 || !e->m->family->number || !read_by_cores_alone(out))
        return false;
    const struct emit was = *e;
    e->node = n;
    e->guard = EXPR_INVALID; /* others may read it as well */
    e->copies = 0;
    e->band = NULL;
    const enum npuc_status st = e->m->family->number(e, e->tensor_of[out->id], out->type->dtype, out->elems[0], &done);
    e->node = was.node;
    e->guard = was.guard;
    e->copies = was.copies;
    e->band = was.band;
    return st == NPUC_OK && done;
}

void emit_sizes(struct emit *e, struct node *n)
{
    if (number_on_cores(e, n))
        return;
    const struct value *out = node_out(n, 0);
    int32_t *t = ARENA_NEW(&e->plan->arena, int32_t);
    expr *params = ARENA_ARRAY(&e->plan->arena, expr, out->n_elems);
    *t = e->tensor_of[out->id];
    for (int64_t i = 0; i < out->n_elems; i++)
        params[i] = emit_expr(e, out->elems[i]);
    const expr guard = e->guard;
    e->guard = EXPR_INVALID;
    struct plan_step *step = step_new(e, PS_SIZES, n);
    e->guard = guard;
    step->op = str_internz(&e->plan->strings, op_table[n->op]->name);
    step->tensors = t;
    step->n_out = 1;
    step->params = params;
    step->n_params = (int32_t)out->n_elems;
}

enum npuc_status emit_copy(struct emit *e, int32_t from, int32_t to, const struct type *t, const char *reason)
{
    bool done = false;
    const enum npuc_status st = e->m->family->copy ? e->m->family->copy(e, from, to, t, &done) : NPUC_OK;
    if (done || st != NPUC_OK)
        return st;
    const int32_t pair[2] = {from, to};
    struct plan_step *step = step_new(e, PS_HOST, e->node);
    step->op = str_internz(&e->plan->strings, "Identity");
    step->tensors = arena_copy(&e->plan->arena, pair, sizeof pair);
    step->n_in = 1;
    step->n_out = 1;
    step->reason = str_internz(&e->plan->strings, reason);
    return NPUC_OK;
}
