/* If, Loop and Scan. The bodies are inferred here too, so that a type that changes outside reaches the inside. */
#include "ir/ops/infer.h"

#include "ir/build.h"

static struct graph *body_of(const struct node *n, const char *attr)
{
    const struct attr *a = node_attr(n, attr);
    return a && a->kind == ATTR_GRAPH && a->v.graph && graph_yield(a->v.graph) ? a->v.graph : NULL;
}

static enum npuc_status infer_body(const struct graph *g)
{
    for_each_node (inner, g) {
        const enum npuc_status s = ir_infer(inner);
        if (s != NPUC_OK)
            return s;
    }
    return NPUC_OK;
}

static enum npuc_status no_body(struct ir_ctx *cx, const struct node *n, const char *attr)
{
    return node_error(cx, n, D_ATTRIBUTE, "attribute '%s' is missing or has no results", attr);
}

/* Output i can be of type a or of type b: what they share, symbols for the rest. */
static enum npuc_status out_merged(struct ir_ctx *cx, struct node *n, int i, const struct type *a, const struct type *b)
{
    if (a == b || a->kind != TYPE_TENSOR || b->kind != TYPE_TENSOR) {
        const struct type *both = type_join(cx, a, b);
        if (!both)
            return node_error(cx, n, D_TYPE_MISMATCH, "output %d is %s on one path and %s on the other", i,
                              type_text(cx, a), type_text(cx, b));
        n->out[i].type = both;
        return NPUC_OK;
    }
    if (a->dtype != b->dtype)
        return node_error(cx, n, D_TYPE_MISMATCH, "output %d has element type %s on one path and %s on the other", i,
                          dtype_table[a->dtype].name, dtype_table[b->dtype].name);
    if (a->rank != b->rank || a->rank < 0)
        return infer_out_unknown(cx, n, i, a->dtype);
    struct shape s = {.rank = a->rank};
    for (int k = 0; k < s.rank; k++)
        s.d[k] = a->dims[k] == b->dims[k] ? a->dims[k] : infer_fresh(cx, n, i, k);
    return infer_out(cx, n, i, a->dtype, &s);
}

static enum npuc_status if_infer(struct ir_ctx *cx, struct node *n)
{
    const struct graph *yes = body_of(n, "then_branch"), *no = body_of(n, "else_branch");
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK && (!yes || !no))
        s = no_body(cx, n, yes ? "else_branch" : "then_branch");
    if (s == NPUC_OK)
        s = infer_dtype_is(cx, n, 0, DT_BOOL, DT_BOOL);
    if (s == NPUC_OK)
        s = infer_body(yes);
    if (s == NPUC_OK)
        s = infer_body(no);
    if (s != NPUC_OK)
        return s;
    const struct node *a = graph_yield(yes), *b = graph_yield(no);
    if (a->n_in != n->n_out || b->n_in != n->n_out)
        return node_error(cx, n, D_ARITY, "%d outputs, but the branches have %d and %d results", n->n_out, a->n_in,
                          b->n_in);
    for (int i = 0; i < n->n_out && s == NPUC_OK; i++)
        s = out_merged(cx, n, i, a->in[i].value->type, b->in[i].value->type);
    return s;
}

/* ---- Loop: trip count, condition, carried values -> carried values, stacked scan outputs */

/* A carried value whose size changes from one iteration to the next has a symbol for it inside, its own for each. */
static enum npuc_status widen(struct ir_ctx *cx, struct value *carried, const struct type *next, bool *changed)
{
    const struct type *t = carried->type;
    struct shape s = {.rank = t->rank};
    if (t != next && (t->kind != TYPE_TENSOR || next->kind != TYPE_TENSOR)) {
        const struct type *both = type_join(cx, t, next);
        if (!both)
            return node_error(cx, carried->graph->owner, D_TYPE_MISMATCH,
                              "a carried value enters as %s and leaves as %s", type_text(cx, t), type_text(cx, next));
        *changed |= both != t;
        carried->type = both;
        return NPUC_OK;
    }
    if (t == next || t->kind != TYPE_TENSOR || next->kind != TYPE_TENSOR || t->dtype != next->dtype || t->rank < 0)
        return NPUC_OK;
    bool differs = t->rank != next->rank;
    if (differs)
        s.rank = -1;
    for (int k = 0; k < s.rank; k++) {
        s.d[k] = t->dims[k];
        int64_t c;
        /* A symbol stands for any size already. */
        if (t->dims[k] == next->dims[k] ||
            (!expr_is_const(&cx->exprs, t->dims[k], &c) && cx->exprs.nodes.data[t->dims[k]].op == EXPR_SYM &&
             str_text(&cx->strings, cx->exprs.symbols.data[cx->exprs.nodes.data[t->dims[k]].value].name)[0] == '_'))
            continue;
        const struct node none = {.n_out = 0};
        s.d[k] = infer_fresh(cx, &none, 0, k);
        differs = true;
    }
    if (differs)
        carried->type = type_tensor(cx, t->dtype, s.rank, s.d);
    carried->elems = NULL;
    *changed |= differs;
    return NPUC_OK;
}

/* Body inputs first.. take the types of the node's operands; then the body is inferred until nothing widens. */
static enum npuc_status infer_carried(struct ir_ctx *cx, struct node *n, struct graph *g, int first_in, int first_yield,
                                      int n_carried)
{
    const int offset = g->n_inputs - n_carried; /* the carried values are the last inputs of a Loop body */
    const struct node *y = graph_yield(g);
    const int base = n->op == OP_Loop ? offset : 0;
    for (int i = 0; i < n_carried; i++) {
        struct value *inner = g->inputs[base + i];
        if (!infer_has(n, first_in + i))
            return node_error(cx, n, D_ARITY, "input %d is missing", first_in + i);
        const struct type *outer = n->in[first_in + i].value->type;
        const bool wider = inner->type && inner->type->kind == outer->kind && inner->type->dtype == outer->dtype &&
                           (inner->type->rank < 0 || inner->type->rank == outer->rank);
        const struct type *both = inner->type && type_is_object(inner->type) ? type_join(cx, inner->type, outer) : NULL;
        if (both && outer->kind != TYPE_TENSOR)
            inner->type = both;
        else if (!wider)
            inner->type = outer;
    }
    bool changed = true;
    for (int round = 0; round < 3 && changed; round++) {
        changed = false;
        enum npuc_status s = infer_body(g);
        for (int i = 0; i < n_carried && s == NPUC_OK; i++)
            s = widen(cx, g->inputs[base + i], y->in[first_yield + i].value->type, &changed);
        if (s != NPUC_OK)
            return s;
    }
    return NPUC_OK;
}

/* ---- which sizes of a body's results are sizes outside as well */

static void mark_symbols(const struct expr_pool *p, expr e, bool *marked)
{
    const struct expr_node *x = &p->nodes.data[e];
    if (x->op == EXPR_SYM)
        marked[x->value] = true;
    for (int32_t i = 0; x->op != EXPR_SYM && x->op != EXPR_CONST && i < x->n; i++)
        mark_symbols(p, x->arg[i], marked);
}

static void mark_value(const struct ir_ctx *cx, const struct value *v, bool *marked)
{
    for (int i = 0; v->type->kind == TYPE_TENSOR && i < v->type->rank; i++)
        mark_symbols(&cx->exprs, v->type->dims[i], marked);
    for (int64_t i = 0; v->elems && i < v->n_elems; i++)
        if (v->elems[i])
            mark_symbols(&cx->exprs, v->elems[i], marked);
}

static bool is_within(const struct graph *g, const struct graph *body)
{
    while (g && g != body)
        g = g->parent;
    return g == body;
}

/* Symbols of values from outside that the body reads. */
static void mark_captured(const struct ir_ctx *cx, const struct graph *g, const struct graph *body, bool *marked)
{
    for_each_node (n, g) {
        for (int i = 0; i < n->n_in; i++)
            if (n->in[i].value && !is_within(n->in[i].value->graph, body))
                mark_value(cx, n->in[i].value, marked);
        for_each_region(r, n) mark_captured(cx, r, body, marked);
    }
}

/* Symbols that the operands of n and what its body reads from outside mention, by number. */
static const bool *outer_symbols(struct ir_ctx *cx, const struct node *n, const struct graph *body)
{
    bool *marked = ARENA_ARRAY(&cx->scratch, bool, cx->exprs.symbols.len + 1);
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i].value)
            mark_value(cx, n->in[i].value, marked);
    mark_captured(cx, body, body, marked);
    return marked;
}

static bool is_outer(const struct ir_ctx *cx, expr e, const bool *outer)
{
    const struct expr_node *x = &cx->exprs.nodes.data[e];
    if (x->op == EXPR_SYM || x->op == EXPR_CONST)
        return x->op == EXPR_CONST || outer[x->value];
    for (int32_t i = 0; i < x->n; i++)
        if (!is_outer(cx, x->arg[i], outer))
            return false;
    return true;
}

/* The symbol that axis k of output i has already, or a new one. */
static expr fresh_size(struct ir_ctx *cx, const struct node *n, int i, int k)
{
    const struct type *old = n->out[i].type;
    const bool has =
        old && old->kind == TYPE_TENSOR && k < old->rank && cx->exprs.nodes.data[old->dims[k]].op == EXPR_SYM;
    const struct node none = {.n_out = 0};
    return has ? old->dims[k] : infer_fresh(cx, &none, i, k);
}

/* Output i: `count` results of type t along axis. A size that only the body knows gets a symbol of its own: that of the
 * body changes from turn to turn. */
static enum npuc_status out_stacked(struct ir_ctx *cx, struct node *n, int i, const struct type *t, expr count,
                                    int64_t axis, const bool *outer)
{
    if (t->kind != TYPE_TENSOR || t->rank < 0)
        return infer_out_unknown(cx, n, i, t->dtype);
    if (t->rank >= IR_MAX_RANK)
        return node_error(cx, n, D_LIMIT, "output %d has too many axes", i);
    struct shape s = {.rank = t->rank + 1};
    int at;
    const enum npuc_status st = infer_axis(cx, n, "scan output axis", axis, s.rank, &at);
    if (st != NPUC_OK)
        return st;
    for (int k = 0; k < s.rank; k++)
        if (k == at)
            s.d[k] = count ? count : fresh_size(cx, n, i, k);
        else
            s.d[k] = is_outer(cx, t->dims[k > at ? k - 1 : k], outer) ? t->dims[k > at ? k - 1 : k]
                                                                      : fresh_size(cx, n, i, k);
    return infer_out(cx, n, i, t->dtype, &s);
}

/* Iterations when only the trip count decides. */
static expr trip_count(struct ir_ctx *cx, const struct node *n, const struct graph *g)
{
    const struct value *again = graph_yield(g)->in[0].value;
    const expr e = again ? value_elem(cx, again, 0) : EXPR_INVALID,
               start = infer_has(n, 1) ? value_elem(cx, n->in[1].value, 0) : expr_const(&cx->exprs, 1);
    const bool passes = g->n_inputs > 1 && again == g->inputs[1]; /* the condition is handed through */
    if (!infer_has(n, 0) || !start || !infer_dim_is(cx, start, 1) || (!passes && (!e || !infer_dim_is(cx, e, 1))))
        return EXPR_INVALID;
    const expr count = value_elem(cx, n->in[0].value, 0);
    return count ? infer_max(cx, count, expr_const(&cx->exprs, 0)) : EXPR_INVALID;
}

static enum npuc_status loop_begin(struct ir_ctx *cx, struct node *n, struct graph **g)
{
    *g = body_of(n, "body");
    if (!*g)
        return no_body(cx, n, "body");
    const int n_carried = n->n_in - 2, n_results = graph_yield(*g)->n_in;
    if (n_carried < 0 || (*g)->n_inputs != n_carried + 2 || n_results < n_carried + 1 || n->n_out != n_results - 1)
        return node_error(cx, n, D_ARITY,
                          "the body has %d inputs and %d results, which do not fit %d inputs and %d outputs",
                          (*g)->n_inputs, n_results, n->n_in, n->n_out);
    const struct shape scalar = {.rank = 0};
    (*g)->inputs[0]->type = type_tensor(cx, DT_I64, 0, scalar.d);
    (*g)->inputs[1]->type = type_tensor(cx, DT_BOOL, 0, scalar.d);
    return NPUC_OK;
}

static enum npuc_status loop_infer(struct ir_ctx *cx, struct node *n)
{
    struct graph *g;
    enum npuc_status s = loop_begin(cx, n, &g);
    const int n_carried = n->n_in - 2;
    if (s == NPUC_OK)
        s = infer_carried(cx, n, g, 2, 1, n_carried);
    if (s != NPUC_OK)
        return s;
    const struct node *y = graph_yield(g);
    for (int i = 0; i < n_carried && s == NPUC_OK; i++)
        s = out_merged(cx, n, i, n->in[2 + i].value->type, y->in[1 + i].value->type);
    const expr count = trip_count(cx, n, g);
    const struct arena_mark mark = arena_mark(&cx->scratch);
    const bool *outer = n->n_out > n_carried ? outer_symbols(cx, n, g) : NULL;
    for (int i = n_carried; i < n->n_out && s == NPUC_OK; i++)
        s = out_stacked(cx, n, i, y->in[1 + i].value->type, count, 0, outer);
    arena_release(&cx->scratch, mark);
    return s;
}

/* ---- Scan: states, sequences -> states, stacked outputs */

static int64_t nth(const struct node *n, const char *attr, int i)
{
    const struct attr *a = node_attr(n, attr);
    return a && i < a->len ? a->v.ints[i] : 0;
}

/* Sequence inputs enter the body without their scan axis; *count is its size. */
static enum npuc_status scan_slices(struct ir_ctx *cx, struct node *n, const struct graph *g, int n_state, expr *count)
{
    *count = EXPR_INVALID;
    for (int i = n_state; i < n->n_in; i++) {
        const struct shape x = infer_shape(n, i);
        struct shape slice = {.rank = 0};
        int axis;
        if (x.rank < 0) {
            g->inputs[i]->type = type_tensor(cx, infer_dtype(n, i), -1, NULL);
            continue;
        }
        const enum npuc_status s =
            infer_axis(cx, n, "scan input axis", nth(n, "scan_input_axes", i - n_state), x.rank, &axis);
        if (s != NPUC_OK)
            return s;
        for (int k = 0; k < x.rank; k++)
            if (k != axis)
                slice.d[slice.rank++] = x.d[k];
        g->inputs[i]->type = type_tensor(cx, infer_dtype(n, i), slice.rank, slice.d);
        const expr both = *count ? infer_dim_same(cx, *count, x.d[axis]) : x.d[axis];
        if (!both)
            return node_error(cx, n, D_SHAPE_MISMATCH, "input %d has %s steps, expected %s", i,
                              infer_dim_text(cx, x.d[axis]), infer_dim_text(cx, *count));
        *count = both;
    }
    return NPUC_OK;
}

static enum npuc_status scan_infer(struct ir_ctx *cx, struct node *n)
{
    struct graph *g = body_of(n, "body");
    enum npuc_status s = infer_begin(cx, n);
    const int64_t n_scan = node_attr_int(n, "num_scan_inputs", 0);
    if (s == NPUC_OK && !g)
        s = no_body(cx, n, "body");
    if (s != NPUC_OK)
        return s;
    const struct node *y = graph_yield(g);
    if (n_scan < 1 || n_scan > n->n_in || g->n_inputs != n->n_in || y->n_in != n->n_out || n->n_in - n_scan > n->n_out)
        return node_error(cx, n, D_ARITY,
                          "the body has %d inputs and %d results, which do not fit %d inputs and %d outputs",
                          g->n_inputs, y->n_in, n->n_in, n->n_out);
    const int n_state = n->n_in - (int)n_scan;
    expr count;
    s = scan_slices(cx, n, g, n_state, &count);
    if (s == NPUC_OK)
        s = infer_carried(cx, n, g, 0, 0, n_state);
    for (int i = 0; i < n_state && s == NPUC_OK; i++)
        s = out_merged(cx, n, i, n->in[i].value->type, y->in[i].value->type);
    const struct arena_mark mark = arena_mark(&cx->scratch);
    const bool *outer = outer_symbols(cx, n, g);
    for (int i = n_state; i < n->n_out && s == NPUC_OK; i++)
        s = out_stacked(cx, n, i, y->in[i].value->type, count, nth(n, "scan_output_axes", i - n_state), outer);
    arena_release(&cx->scratch, mark);
    return s;
}

#include "ir/ops/rows.h"

#include "ir/ops/control.def"
