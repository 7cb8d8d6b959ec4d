/* The driver that carries recipes out on the graph: handles are values, sizes are expressions. */
#include "ir/recipe.h"

#include <string.h>

#include "kernels/recipe.h"

struct writing {
    struct builder b;
    struct recipe_limits limits;
};

static struct builder *builder_of(struct recipe *r)
{
    return &((struct writing *)r->cx)->b;
}
static struct ir_ctx *ctx(struct recipe *r)
{
    return builder_of(r)->cx;
}
static const struct type *type_of(rval v)
{
    return ((const struct value *)v)->type;
}
static struct value *value_of(rval v)
{
    return (struct value *)(uintptr_t)v; /* handles are read only for recipes, not for their driver */
}

static void set_attr(struct node *n, const struct k_attr *a)
{
    switch (a->kind) {
    case K_ATTR_INT: ir_set_int(n, a->name, a->v.i); break;
    case K_ATTR_FLOAT: ir_set_float(n, a->name, a->v.f); break;
    case K_ATTR_STRING: ir_set_str(n, a->name, a->v.s); break;
    case K_ATTR_INTS: ir_set_ints(n, a->name, a->v.ints, a->len); break;
    case K_ATTR_FLOATS:
    case K_ATTR_STRINGS:
    case K_ATTR_TENSOR: NPUC_ASSERT(!"no recipe gives such an attribute");
    }
}

static rval g_node(struct recipe *r, const char *op, int n_in, const rval *in, int n_attrs, const struct k_attr *attrs)
{
    struct value *list[16];
    NPUC_ASSERT(n_in <= (int)NPUC_ARRAY_LEN(list) && op_by_name(op) != OP_none);
    for (int i = 0; i < n_in; i++)
        list[i] = value_of(in[i]);
    struct node *n = ir_new(builder_of(r), op_by_name(op), n_in, list, 1);
    for (int i = 0; i < n_attrs; i++)
        set_attr(n, &attrs[i]);
    if (ir_infer(n) == NPUC_OK)
        return &n->out[0];
    r_fail(r, "step %s was refused", op);
    return NULL;
}

static rval g_constant(struct recipe *r, enum dtype t, int rank, const int64_t *dims, const void *data)
{
    int64_t n = 1, size;
    for (int i = 0; i < rank; i++)
        n *= dims[i];
    if (!dtype_bytes(t, n, &size)) {
        r_fail(r, "a constant is too large");
        return NULL;
    }
    return ir_const(builder_of(r), t, rank, dims, data, size);
}

static rval g_sizes(struct recipe *r, const rdim *d, int n)
{
    expr e[IR_MAX_RANK];
    NPUC_ASSERT(n <= IR_MAX_RANK);
    for (int i = 0; i < n; i++) {
        e[i] = (expr)d[i];
        if (e[i] == EXPR_INVALID) {
            r_fail(r, "a size is out of range");
            return NULL;
        }
    }
    return ir_sizes(builder_of(r), e, n, false);
}

static enum dtype g_type(rval v)
{
    return type_of(v)->dtype;
}
static int g_rank(rval v)
{
    return type_of(v)->rank;
}
static rdim g_dim(struct recipe *r, rval v, int axis)
{
    (void)r;
    return type_of(v)->dims[axis];
}
static bool g_whole(struct recipe *r, rval v, int64_t index, int64_t *out)
{
    const int64_t n = value_n_elems(ctx(r), v);
    const expr e = index < n ? value_elem(ctx(r), v, index) : EXPR_INVALID;
    return e != EXPR_INVALID && expr_is_const(&ctx(r)->exprs, e, out);
}
static bool g_known(struct recipe *r, rdim d, int64_t *out)
{
    return expr_is_const(&ctx(r)->exprs, (expr)d, out);
}
static rdim g_number(struct recipe *r, int64_t v)
{
    return expr_const(&ctx(r)->exprs, v);
}
static rdim g_combine(struct recipe *r, char op, rdim a, rdim b)
{
    struct expr_pool *p = &ctx(r)->exprs;
    const expr x = (expr)a, y = (expr)b;
    return op == '+'   ? expr_add(p, x, y)
           : op == '-' ? expr_sub(p, x, y)
           : op == '*' ? expr_mul(p, x, y)
                       : expr_floordiv(p, x, y);
}

/* --- iterations --- */

static void unroll(struct recipe *r, struct r_scan *s, int64_t steps)
{
    rval *parts = ARENA_ARRAY(r->c->arena, rval, steps * R_MAX_STACKED);
    for (int64_t step = 0; step < steps && r->status == NPUC_OK; step++) {
        const int64_t at = s->reverse ? steps - 1 - step : step;
        rval item[R_MAX_ITEMS] = {NULL}, next[R_MAX_STATE] = {NULL}, stacked[R_MAX_STACKED] = {NULL};
        for (int i = 0; i < s->n_item; i++)
            item[i] = r_squeeze(r, r_slice(r, s->item[i], 0, at, at + 1), 0);
        s->body(r, s->arg, s->state, item, next, stacked);
        memcpy(s->state, next, sizeof *next * (size_t)s->n_state);
        for (int i = 0; i < s->n_stacked; i++)
            parts[i * steps + at] = r_unsqueeze(r, stacked[i], 0);
    }
    for (int i = 0; i < s->n_stacked && r->status == NPUC_OK; i++) {
        struct value **list = ARENA_ARRAY(r->c->arena, struct value *, steps);
        for (int64_t k = 0; k < steps; k++)
            list[k] = value_of(parts[i * steps + k]);
        struct node *n = ir_new(builder_of(r), OP_Concat, (int)steps, list, 1);
        ir_set_int(n, "axis", 0);
        if (ir_infer(n) != NPUC_OK)
            r_fail(r, "results of the steps do not fit together");
        s->stacked[i] = &n->out[0];
    }
}

/* Input of a Scan's body: v, or an item of it. */
static struct value *body_input(struct recipe *r, struct graph *g, rval v, bool item)
{
    const struct type *t = type_of(v);
    return ir_input_new(g, item ? type_tensor(ctx(r), t->dtype, t->rank - 1, t->dims + 1) : t, 0);
}

static void write_body(struct recipe *r, struct r_scan *s, struct graph *g)
{
    struct writing *w = r->cx;
    const struct builder outside = w->b;
    rval state[R_MAX_STATE] = {NULL}, item[R_MAX_ITEMS] = {NULL}, next[R_MAX_STATE] = {NULL},
         stacked[R_MAX_STACKED] = {NULL};
    struct value *yields[R_MAX_STATE + R_MAX_STACKED];
    for (int i = 0; i < s->n_state; i++)
        state[i] = body_input(r, g, s->state[i], false);
    for (int i = 0; i < s->n_item; i++)
        item[i] = body_input(r, g, s->item[i], true);
    w->b = ir_at_end(g);
    w->b.loc = outside.loc;
    s->body(r, s->arg, state, item, next, stacked);
    for (int i = 0; i < s->n_state; i++)
        yields[i] = value_of(next[i]);
    for (int i = 0; i < s->n_stacked; i++)
        yields[s->n_state + i] = value_of(stacked[i]);
    if (r->status == NPUC_OK && ir_infer(ir_new(&w->b, OP_Yield, s->n_state + s->n_stacked, yields, 0)) != NPUC_OK)
        r_fail(r, "the body was refused");
    w->b = outside;
}

static void write_scan(struct recipe *r, struct r_scan *s)
{
    struct value *in[R_MAX_STATE + R_MAX_ITEMS];
    int64_t backwards[R_MAX_ITEMS];
    for (int i = 0; i < s->n_state; i++)
        in[i] = value_of(s->state[i]);
    for (int i = 0; i < s->n_item; i++) {
        in[s->n_state + i] = value_of(s->item[i]);
        backwards[i] = 1;
    }
    struct node *n = ir_new(builder_of(r), OP_Scan, s->n_state + s->n_item, in, s->n_state + s->n_stacked);
    struct graph *g = ir_region_new(n, str_internz(&ctx(r)->strings, "step"));
    ir_set_int(n, "num_scan_inputs", s->n_item);
    if (s->reverse) {
        ir_set_ints(n, "scan_input_directions", backwards, s->n_item);
        ir_set_ints(n, "scan_output_directions", backwards, s->n_stacked);
    }
    ir_set_graph(n, "body", g);
    write_body(r, s, g);
    if (r->status != NPUC_OK || ir_infer(n) != NPUC_OK) {
        r_fail(r, "the walk was refused");
        return;
    }
    for (int i = 0; i < s->n_state; i++)
        s->state[i] = &n->out[i];
    for (int i = 0; i < s->n_stacked; i++)
        s->stacked[i] = &n->out[s->n_state + i];
}

static void g_scan(struct recipe *r, struct r_scan *s)
{
    const struct writing *w = r->cx;
    int64_t steps;
    if (r_size(r, s->item[0], 0, &steps) && steps > 0 && steps <= w->limits.unroll)
        unroll(r, s, steps);
    else if (w->limits.scan)
        write_scan(r, s);
    else
        r_fail(r, "the number of steps is not known or more than %lld", (long long)w->limits.unroll);
}

static const struct r_driver on_graph = {.node = g_node,
                                         .constant = g_constant,
                                         .sizes = g_sizes,
                                         .scan = g_scan,
                                         .type = g_type,
                                         .rank = g_rank,
                                         .dim = g_dim,
                                         .whole = g_whole,
                                         .known = g_known,
                                         .number = g_number,
                                         .combine = g_combine};

/* --- the node --- */

bool ir_has_recipe(const struct node *n)
{
    return recipe_find(op_table[n->op]->name) != NULL;
}

static int read_attrs(struct ir_ctx *cx, const struct node *n, struct k_attr *out)
{
    const struct op_def *d = op_table[n->op];
    int count = 0;
    for (int i = 0; i < d->n_attrs; i++) {
        const struct attr *a = &n->attrs[i];
        struct k_attr k = {.name = d->attrs[i].name, .len = a->len};
        struct k_string *s;
        switch (a->kind) {
        case ATTR_INT: k.kind = K_ATTR_INT, k.v.i = a->v.i; break;
        case ATTR_FLOAT: k.kind = K_ATTR_FLOAT, k.v.f = a->v.f; break;
        case ATTR_STRING: k.kind = K_ATTR_STRING, k.v.s = str_text(&cx->strings, a->v.s); break;
        case ATTR_INTS: k.kind = K_ATTR_INTS, k.v.ints = a->v.ints; break;
        case ATTR_FLOATS: k.kind = K_ATTR_FLOATS, k.v.floats = a->v.floats; break;
        case ATTR_STRINGS:
            s = ARENA_ARRAY(&cx->scratch, struct k_string, a->len + 1);
            for (int64_t j = 0; j < a->len; j++)
                s[j] =
                    (struct k_string){str_text(&cx->strings, a->v.strings[j]), str_len(&cx->strings, a->v.strings[j])};
            k.kind = K_ATTR_STRINGS, k.v.strings = s;
            break;
        default: continue;
        }
        out[count++] = k;
    }
    return count;
}

/* v in the type that users of `old` know: sizes that were found on another way may be written differently. */
static struct value *typed_as(struct writing *w, struct value *v, const struct type *old)
{
    const struct type *t = v->type;
    const bool dims = t->kind == TYPE_TENSOR && old->kind == TYPE_TENSOR && t->dtype == old->dtype &&
                      t->rank == old->rank && t->rank > 0;
    return dims && t != old ? ir_reshape(&w->b, v, old->rank, old->dims) : v;
}

bool ir_write_recipe(struct node *n, const struct recipe_limits *limits, const char **why)
{
    struct writing w = {.b = ir_at(n), .limits = *limits};
    struct ir_ctx *cx = w.b.cx;
    recipe_fn *fn = recipe_find(op_table[n->op]->name);
    struct k_attr *attrs = ARENA_ARRAY(&cx->scratch, struct k_attr, op_table[n->op]->n_attrs + 1);
    struct k_call *c = ARENA_NEW(&cx->scratch, struct k_call);
    *c = (struct k_call){.op = op_table[n->op]->name,
                         .n_in = n->n_in,
                         .n_out = n->n_out,
                         .attrs = attrs,
                         .n_attrs = read_attrs(cx, n, attrs),
                         .arena = &cx->scratch};
    struct recipe r = {.d = &on_graph, .c = c, .cx = &w};
    *why = c->error;
    if (!fn || n->n_in > (int)NPUC_ARRAY_LEN(r.in) || n->n_out > R_MAX_OUT)
        return false;
    for (int i = 0; i < n->n_in; i++)
        r.in[i] = node_in(n, i);
    if (fn(&r) != NPUC_OK || r.status != NPUC_OK)
        return false;
    for (int i = 0; i < n->n_out; i++) {
        struct value *v = node_out(n, i) && r.out[i] ? typed_as(&w, value_of(r.out[i]), n->out[i].type) : NULL;
        if (v)
            ir_replace_all(&n->out[i], v);
        else if (node_out(n, i) && r.out[i])
            return false;
    }
    return true;
}
