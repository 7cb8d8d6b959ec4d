/* Values and expressions of the IR as tensors and expressions of the plan. */
#include "backend/emit_priv.h"

static const uint8_t plan_layout_of[LAYOUT_COUNT] = {
    [LAYOUT_ND] = PL_ND,
    [LAYOUT_NZ] = PL_NZ,
    [LAYOUT_NZ_T] = PL_NZ_T,
    [LAYOUT_NC1HWC0] = PL_NC1HWC0,
    [LAYOUT_FRACTAL_Z] = PL_FRACTAL_Z,
    [LAYOUT_NHWC] = PL_NHWC,
    [LAYOUT_CACHE] = PL_CACHE,
};

sym emit_sym(struct emit *e, sym ir)
{
    return str_intern(&e->plan->strings, str_text(&e->cx->strings, ir), str_len(&e->cx->strings, ir));
}

/* ---- expressions ------------------------------------------------------------------------------------------ */

/* Is the symbol in the shape of an input as the model has it? Gears share those, others are an entry's own. */
static bool is_public(const struct emit *e, int64_t symbol)
{
    for (int32_t i = 0; e->options && i < e->options->n_shapes; i++) {
        const struct type *t = e->options->shapes[i];
        for (int k = 0; t && t->kind == TYPE_TENSOR && k < t->rank; k++)
            if (expr_uses_symbol(&e->cx->exprs, t->dims[k], (int32_t)symbol))
                return true;
    }
    return false;
}

expr emit_symbol(void *user, int64_t symbol)
{
    struct emit *e = user;
    struct plan *p = e->plan;
    const struct expr_symbol s = e->cx->exprs.symbols.data[symbol];
    sym name = emit_sym(e, s.name);
    if (p->entries.len && !is_public(e, symbol))
        name = str_internz(&p->strings,
                           arena_printf(e->arena, "%s@%lld", str_text(&p->strings, name), (long long)p->entries.len));
    return expr_sym(&p->exprs, expr_symbol_new(&p->exprs, name, s.range));
}

expr emit_expr(struct emit *e, expr ir)
{
    return expr_copy(&emitter_of(e)->exprs, ir);
}

static void bind_symbols(struct emitter *em, expr ir)
{
    const struct expr_node *x = &em->e.cx->exprs.nodes.data[ir];
    if (x->op == EXPR_SYM) {
        while (em->bound.len <= x->value)
            vec_push(em->e.arena, &em->bound, false);
        em->bound.data[x->value] = true;
    } else if (x->op != EXPR_CONST) {
        for (int32_t i = 0; i < x->n; i++)
            bind_symbols(em, x->arg[i]);
    }
}

void bind_type_symbols(struct emitter *em, const struct type *t)
{
    for (int i = 0; i < t->rank; i++)
        bind_symbols(em, t->dims[i]);
}

bool expr_is_bound(const struct emitter *em, expr ir)
{
    if (ir == EXPR_INVALID)
        return false;
    const struct expr_node *x = &em->e.cx->exprs.nodes.data[ir];
    if (x->op == EXPR_SYM)
        return x->value < em->bound.len && em->bound.data[x->value];
    if (x->op == EXPR_CONST)
        return true;
    for (int32_t i = 0; i < x->n; i++)
        if (!expr_is_bound(em, x->arg[i]))
            return false;
    return true;
}

bool type_is_bound(const struct emitter *em, const struct type *t)
{
    if (t->kind != TYPE_TENSOR || t->rank < 0)
        return false;
    for (int i = 0; i < t->rank; i++)
        if (!expr_is_bound(em, t->dims[i]))
            return false;
    return true;
}

/* ---- tensors ---------------------------------------------------------------------------------------------- */

static expr storage_dim(struct emit *e, const struct plan_tensor *t, int i)
{
    struct expr_pool *p = &e->plan->exprs;
    const bool nz = t->layout == PL_NZ || t->layout == PL_NZ_T;
    if (t->layout == PL_CACHE && i == t->axis)
        return t->capacity;
    if (t->layout == PL_NC1HWC0 && i == 1)
        return expr_align(p, t->dims[i], t->c0);
    if (!nz || i < t->rank - 2)
        return t->dims[i];
    const bool row = (i == t->rank - 2) == (t->layout == PL_NZ);
    return expr_align(p, t->dims[i], row ? 16 : t->c0);
}

static expr storage_size(struct emit *e, const struct plan_tensor *t)
{
    struct expr_pool *p = &e->plan->exprs;
    expr n = expr_const(p, 1);
    for (int i = 0; i < t->rank; i++)
        n = expr_mul(p, n, storage_dim(e, t, i));
    const int bits = dtype_table[t->dtype].bits;
    return bits % 8 == 0 ? expr_mul_const(p, n, bits / 8)
                         : expr_ceildiv(p, expr_mul_const(p, n, bits), expr_const(p, 8));
}

static int32_t tensor_push(struct emit *e, struct plan_tensor *t, const expr *dims)
{
    expr *copy = ARENA_ARRAY(&e->plan->arena, expr, t->rank);
    for (int i = 0; i < t->rank; i++)
        copy[i] = dims[i];
    t->dims = copy;
    t->size = t->kind == PT_OBJECT ? expr_const(&e->plan->exprs, 0) : storage_size(e, t);
    vec_push(&e->plan->arena, &e->plan->tensors, *t);
    return (int32_t)e->plan->tensors.len - 1;
}

static int32_t object_new(struct emit *e, const struct type *t, sym name)
{
    static const uint8_t forms[] = {
        [TYPE_TENSOR] = PO_TENSOR, [TYPE_SEQUENCE] = PO_SEQUENCE, [TYPE_OPTIONAL] = PO_OPTIONAL};
    expr dims[IR_MAX_RANK];
    struct plan_tensor out = {.name = name, .kind = PT_OBJECT, .base = -1, .layout = PL_ND};
    out.axis = (int8_t)(t->kind == TYPE_TENSOR && t->rank < 0 ? PO_ANY_RANK : forms[t->kind]);
    out.rank = out.axis == PO_TENSOR ? t->rank : 0;
    for (int i = 0; i < out.rank; i++)
        dims[i] = emit_expr(e, t->dims[i]);
    while (t->elem)
        t = t->elem;
    out.dtype = (uint8_t)t->dtype;
    return tensor_push(e, &out, dims);
}

int32_t tensor_new(struct emit *e, enum plan_tensor_kind kind, const struct type *t, sym name)
{
    if (type_is_object(t))
        return object_new(e, t, name);
    expr dims[IR_MAX_RANK];
    struct plan_tensor out = {.name = name,
                              .kind = (uint8_t)kind,
                              .dtype = (uint8_t)t->dtype,
                              .base = -1,
                              .layout = plan_layout_of[t->layout.kind],
                              .axis = (int8_t)t->layout.axis,
                              .c0 = t->layout.c0,
                              .rank = t->rank < 0 ? 0 : t->rank};
    for (int i = 0; i < out.rank; i++)
        dims[i] = emit_expr(e, t->dims[i]);
    if (t->layout.kind == LAYOUT_CACHE)
        out.capacity = emit_expr(e, t->layout.capacity);
    return tensor_push(e, &out, dims);
}

int32_t tensor_alias(struct emit *e, int32_t of, const struct type *t, sym name)
{
    if (e->plan->tensors.data[of].kind == PT_OBJECT)
        return of;
    const int32_t out = tensor_new(e, PT_ALIAS, t, name);
    const struct plan_tensor *base = &e->plan->tensors.data[of];
    struct plan_tensor *alias = &e->plan->tensors.data[out];
    alias->base = base->kind == PT_ALIAS ? base->base : of;
    alias->base_offset = base->kind == PT_ALIAS ? base->base_offset : expr_const(&e->plan->exprs, 0);
    return out;
}

int32_t emit_tensor(struct emit *e, struct value *v)
{
    if (!v)
        return -1;
    int32_t *slot = &e->tensor_of[v->id];
    if (*slot >= 0)
        return *slot;
    if (value_const(v) && !type_is_object(v->type))
        return *slot = emit_weight(e, v, WF_COPY, v->type->dtype, false);
    if (weight_is_cast(v))
        return *slot = emit_weight(e, node_in(v->def, 0), WF_CAST, v->type->dtype, false);
    *slot = tensor_new(e, PT_TEMP, v->type, emit_sym(e, v->name));
    if (v->def && has_known_elems(emitter_of(e), v->def)) {
        emit_sizes(e, v->def);
        vec_push(e->arena, &emitter_of(e)->sizes, v->id);
    }
    return *slot;
}

/* Is where y lies its own matter: no part of a Concat's result, no output? No step has touched it yet. */
static bool lies_alone(const struct emit *e, const struct value *y, const struct plan_tensor *as)
{
    const int32_t at = e->tensor_of[y->id];
    for_each_use (u, y)
        if (u->user->op == OP_Concat)
            return false;
    return at < 0 || (e->plan->tensors.data[at].kind == PT_TEMP && e->plan->tensors.data[at].size == as->size);
}

/* In the body of a loop what one turn leaves could trade places with what the next one reads. */
int32_t emit_tensor_over(struct emit *e, const struct node *n, struct value *y, struct value *x)
{
    const struct emitter *em = emitter_of(e);
    const int32_t at = emit_tensor(e, x);
    const bool alone = x->uses && !x->uses->next && x->def && x->def->graph == n->graph && n->graph == em->graph;
    const struct plan_tensor *t = &e->plan->tensors.data[at];
    if (alone && x->type == y->type && t->kind == PT_TEMP && lies_alone(e, y, t))
        e->tensor_of[y->id] = at;
    return emit_tensor(e, y);
}

int32_t emit_temp(struct emit *e, const char *name, enum dtype t, int rank, const expr *dims)
{
    expr copy[IR_MAX_RANK + 1];
    struct plan_tensor out = {.name = str_internz(&e->plan->strings, name),
                              .kind = PT_TEMP,
                              .dtype = (uint8_t)t,
                              .layout = PL_ND,
                              .rank = rank,
                              .base = -1};
    const int more = e->copies > 0; /* one for each copy */
    if (more)
        copy[0] = expr_const(&e->plan->exprs, e->copies);
    for (int i = 0; i < rank; i++)
        copy[more + i] = emit_expr(e, dims[i]);
    out.rank += more;
    const int32_t number = tensor_push(e, &out, copy);
    if (e->copies > 0)
        vec_push(e->arena, &e->divided, number);
    return number;
}

int32_t emit_temp_of(struct emit *e, const char *name, const struct type *t)
{
    return tensor_new(e, PT_TEMP, t, str_internz(&e->plan->strings, name));
}

/* A Transpose that takes no step: its consumers walk the operand. */
static bool is_transposed_view(const struct value *v)
{
    return v->def && v->def->op == OP_Transpose && v->def->place == PLACE_FREE;
}

bool value_strides(struct ir_ctx *cx, const struct value *v, expr strides[IR_MAX_RANK])
{
    const struct type *t = v->type;
    if (is_transposed_view(v)) {
        expr inner[IR_MAX_RANK];
        const struct attr *perm = node_attr(v->def, "perm");
        if (!value_strides(cx, node_in(v->def, 0), inner))
            return false;
        for (int i = 0; i < t->rank; i++)
            strides[i] = inner[perm ? perm->v.ints[i] : t->rank - 1 - i];
        return true;
    }
    const bool lines = t->layout.kind == LAYOUT_NHWC;
    if (t->kind != TYPE_TENSOR || t->rank < 0 ||
        (t->layout.kind != LAYOUT_ND && t->layout.kind != LAYOUT_CACHE && !lines) || t->layout.page)
        return false;
    expr stride = expr_const(&cx->exprs, 1);
    for (int k = t->rank - 1; k >= 0; k--) {
        const int i = lines && k > 0 ? (k == t->rank - 1 ? 1 : k + 1) : k; /* channels are neighbours */
        strides[i] = stride;
        const bool padded = t->layout.kind == LAYOUT_CACHE && i == t->layout.axis;
        stride = expr_mul(&cx->exprs, stride, padded ? t->layout.capacity : t->dims[i]);
    }
    return true;
}
