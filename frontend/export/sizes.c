/* Size expressions as nodes: int64[1] tensors made of Shape, arithmetic and constants. A symbol is read where a tensor
 * that exists already has it as a dimension (or, of contents that were read, as an element). */
#include "frontend/export/priv.h"

/* offset + factor x symbol, factor > 0? */
static bool is_affine(const struct expr_pool *p, expr e, struct source *out)
{
    const struct expr_node *n = &p->nodes.data[e];
    if (n->op == EXPR_SYM) {
        out->symbol = e;
        out->offset = 0;
        out->factor = 1;
        return true;
    }
    if (n->op != EXPR_SUM || n->n != 1 || n->coef[0] <= 0 || p->nodes.data[n->arg[0]].op != EXPR_SYM)
        return false;
    out->symbol = n->arg[0];
    out->offset = n->value;
    out->factor = n->coef[0];
    return true;
}

static const struct source *find_source(const struct writer *w, expr symbol)
{
    for (const struct scope *s = w->scope; s; s = s->up)
        for (int64_t i = 0; i < s->sources.len; i++)
            if (s->sources.data[i].symbol == symbol)
                return &s->sources.data[i];
    return NULL;
}

static void add_source(struct writer *w, sym name, expr e, int64_t at, bool element)
{
    struct source s = {.name = name, .at = at, .element = element};
    if (e && is_affine(&w->cx->exprs, e, &s) && !find_source(w, s.symbol))
        vec_push(w->arena, &w->scope->sources, s);
}

void write_sources(struct writer *w, const struct value *v)
{
    const struct type *t = v->type;
    if (t->kind != TYPE_TENSOR)
        return;
    const sym name = write_name(w, v);
    for (int i = 0; i < t->rank; i++)
        add_source(w, name, t->dims[i], i, false);
    const bool integer = t->dtype == DT_I64 || t->dtype == DT_I32;
    for (int64_t i = 0; v->elems && integer && i < v->n_elems; i++)
        add_source(w, name, v->elems[i], i, true);
}

sym write_const_i64(struct writer *w, const int64_t *v, int64_t n, bool scalar)
{
    const expr dim = expr_const(&w->cx->exprs, n);
    const struct blob b = {arena_copy(w->arena, v, n * (int64_t)sizeof *v), n * (int64_t)sizeof *v, 0, 0};
    const sym name = write_fresh(w);
    struct pb t;
    if (write_tensor(w, name, type_tensor(w->cx, DT_I64, scalar ? 0 : 1, &dim), &b, &t) == NPUC_OK)
        pb_message(&w->scope->pb, 5, &t);
    return name;
}

static sym number(struct writer *w, int64_t v)
{
    return write_const_i64(w, &v, 1, false);
}

static sym op2(struct writer *w, const char *op, sym a, sym b)
{
    return write_simple(w, op, 2, (const sym[]){a, b});
}

static sym cast(struct writer *w, sym x, enum dtype t)
{
    const sym out = write_fresh(w);
    struct pb n = write_begin(w, "Cast", 0, 1, &x, 1, &out);
    write_attr_int(&n, "to", dtype_table[t].onnx);
    write_end(w, &n);
    return out;
}

static sym symbol_text(struct writer *w, const struct source *s)
{
    sym x = write_fresh(w);
    if (s->element) {
        const int64_t minus_one = -1;
        const sym flat = op2(w, "Reshape", s->name, write_const_i64(w, &minus_one, 1, false));
        x = cast(w, op2(w, "Gather", flat, number(w, s->at)), DT_I64);
    } else {
        struct pb n = write_begin(w, "Shape", 0, 1, &s->name, 1, &x);
        write_attr_int(&n, "start", s->at);
        write_attr_int(&n, "end", s->at + 1);
        write_end(w, &n);
    }
    if (s->offset)
        x = op2(w, "Sub", x, number(w, s->offset));
    return s->factor == 1 ? x : op2(w, "Div", x, number(w, s->factor));
}

static sym size_text(struct writer *w, expr e);

static sym sum_text(struct writer *w, const struct expr_node *n)
{
    sym all = 0;
    for (int32_t i = 0; i < n->n; i++) {
        const sym term = size_text(w, n->arg[i]);
        const sym scaled = n->coef[i] == 1 ? term : op2(w, "Mul", term, number(w, n->coef[i]));
        if (!term)
            return 0;
        all = all ? op2(w, "Add", all, scaled) : scaled;
    }
    return n->value ? op2(w, "Add", all, number(w, n->value)) : all;
}

/* Floor division: ONNX's Div truncates, its Mod has the sign of the divisor. */
static sym floor_text(struct writer *w, const struct expr_node *n, sym a, sym b)
{
    const struct expr_pool *p = &w->cx->exprs;
    if (expr_range_of(p, n->arg[0]).min < 0 || expr_range_of(p, n->arg[1]).min < 0)
        a = op2(w, "Sub", a, op2(w, "Mod", a, b));
    return op2(w, "Div", a, b);
}

static sym operator_text(struct writer *w, const struct expr_node *n)
{
    static const char *const names[] = {
        [EXPR_PROD] = "Mul", [EXPR_MOD] = "Mod", [EXPR_MIN] = "Min",       [EXPR_MAX] = "Max",
        [EXPR_EQ] = "Equal", [EXPR_LT] = "Less", [EXPR_LE] = "LessOrEqual"};
    sym all = 0, in[3] = {0};
    for (int32_t i = 0; i < n->n; i++) {
        const sym x = size_text(w, n->arg[i]);
        if (!x)
            return 0;
        if (i < 3)
            in[i] = x;
        if (n->op == EXPR_PROD)
            all = all ? op2(w, "Mul", all, x) : x;
    }
    if (n->op == EXPR_PROD)
        return all;
    if (n->op == EXPR_FLOORDIV)
        return floor_text(w, n, in[0], in[1]);
    if (n->op == EXPR_SELECT)
        return write_simple(w, "Where", 3, (const sym[]){cast(w, in[0], DT_BOOL), in[1], in[2]});
    const sym out = op2(w, names[n->op], in[0], in[1]);
    return n->op == EXPR_EQ || n->op == EXPR_LT || n->op == EXPR_LE ? cast(w, out, DT_I64) : out;
}

/* Depth is bounded by the weight of expressions. 0: a symbol has no source. */
static sym size_text(struct writer *w, expr e)
{
    for (const struct scope *s = w->scope; s; s = s->up) {
        const uint64_t *known = map_find(&s->sizes, (uint64_t)e);
        if (known)
            return (sym)*known;
    }
    const struct expr_node n = w->cx->exprs.nodes.data[e]; /* a copy: the pool may grow */
    sym out;
    if (n.op == EXPR_CONST) {
        out = number(w, n.value);
    } else if (n.op == EXPR_SYM) {
        const struct source *s = find_source(w, e);
        out = s ? symbol_text(w, s) : 0;
    } else {
        out = n.op == EXPR_SUM ? sum_text(w, &n) : operator_text(w, &n);
    }
    if (out)
        map_put(&w->scope->sizes, (uint64_t)e, out);
    return out;
}

enum npuc_status write_sizes(struct writer *w, const struct node *n)
{
    const struct attr *a = node_attr(n, "exprs");
    const bool scalar = node_attr_int(n, "scalar", 0) != 0;
    const struct expr_range any = {.min = INT64_MIN, .max = INT64_MAX, .multiple = 1};
    sym *parts = ARENA_ARRAY(w->arena, sym, a->len + 1);
    for (int64_t i = 0; i < a->len; i++) {
        const char *text = str_text(&w->cx->strings, a->v.strings[i]);
        const expr e = expr_parse(&w->cx->exprs, text, str_len(&w->cx->strings, a->v.strings[i]), any);
        parts[i] = e ? size_text(w, e) : 0;
        if (!parts[i])
            return node_error(w->cx, n, D_UNSUPPORTED, "no tensor before it tells the size '%s'", text);
    }
    const sym out = write_name(w, &n->out[0]);
    if (scalar) {
        const sym in[2] = {parts[0], write_const_i64(w, (const int64_t[]){0}, 0, false)};
        const struct pb node = write_begin(w, "Reshape", 0, 2, in, 1, &out);
        write_end(w, &node);
        return NPUC_OK;
    }
    struct pb node = write_begin(w, "Concat", 0, (int)a->len, parts, 1, &out);
    write_attr_int(&node, "axis", 0);
    write_end(w, &node);
    return NPUC_OK;
}
