/* Control flow that is known at compile time goes; Scan becomes a Loop.
 *
 *   %y = If %true {then_branch=() { %a = Exp %x; Yield %a }, else_branch=...}     becomes   %y = Exp %x
 *
 *   %s, %r = Loop %two, , %x {body=(%i, %c, %v) { %w = Neg %v; Yield %c, %w, %v }}
 * becomes
 *   %w0 = Neg %x;  %s = Neg %w0;  %r = Concat(Unsqueeze %x, Unsqueeze %w0)
 *
 *   %s, %r = Scan %x0, %xs {num_scan_inputs=1 body=(%v, %e) {...; Yield %w, %o}}
 * becomes
 *   %s, %r = Loop %len, , %x0 {body=(%i, %c, %v) { %e = Gather %xs, %i; ...; Yield %c, %w, %o }}
 *
 * with Slice and Transpose behind it where an output is stacked backwards or along another axis: the backend knows one
 * kind of loop. Requirements: (1) a loop is unrolled when nothing but a constant trip count ends it, for at most
 * MAX_TURNS turns and MAX_NODES nodes in all, inner loops first; (2) copies of a body have sizes of their own, and
 * whoever used a size that only the replaced node told uses the one that is known instead: types and SizeOf nodes are
 * rewritten and inferred again; (3) what was inlined is folded before conditions are looked at again, as often as
 * something changes, at most MAX_ROUNDS times. Left alone: loops whose condition is computed, Scan over values of
 * unknown rank, loops without a turn whose stacked results have unknown sizes. */
#include <stdio.h>

#include "passes/pass.h"

enum { MAX_TURNS = 16, MAX_NODES = 512, MAX_ROUNDS = 8 };

struct inliner {
    struct pass_ctx *px;
    expr *by; /* per symbol: the size that stands for it now */
    int32_t n_by;
    bool changed;
};

static enum npuc_status inline_graph(struct inliner *w, struct graph *g);

/* ---- results of the replaced node */

/* A symbol that the replaced node told is the size of what stands for its result. */
static void note_sizes(struct inliner *w, const struct type *from, const struct type *to)
{
    const struct expr_pool *p = &w->px->cx->exprs;
    if (from->kind != TYPE_TENSOR || to->kind != TYPE_TENSOR || from->rank != to->rank)
        return;
    for (int i = 0; i < from->rank; i++) {
        const struct expr_node *x = &p->nodes.data[from->dims[i]];
        if (x->op == EXPR_SYM && from->dims[i] != to->dims[i] && x->value < w->n_by && !w->by[x->value])
            w->by[x->value] = to->dims[i];
    }
}

static void replace_results(struct inliner *w, struct node *n, struct value *const *with)
{
    for (int i = 0; i < n->n_out; i++) {
        if (!n->out[i].uses || !with[i])
            continue;
        note_sizes(w, n->out[i].type, with[i]->type);
        if (!with[i]->name)
            with[i]->name = n->out[i].name;
        ir_replace_all(&n->out[i], with[i]);
    }
    ir_erase(n);
    w->changed = true;
}

/* ---- If */

static bool known_number(struct inliner *w, const struct value *v, int64_t *out)
{
    double x;
    const expr e = v ? value_elem(w->px->cx, v, 0) : EXPR_INVALID;
    if (e && expr_is_const(&w->px->cx->exprs, e, out))
        return true;
    if (!v || !value_const_f64(v, 0, &x))
        return false;
    *out = (int64_t)x;
    return true;
}

static enum npuc_status inline_if(struct inliner *w, struct node *n)
{
    int64_t holds;
    if (!known_number(w, node_in(n, 0), &holds) || !ir_may_rewrite(w->px->cx))
        return NPUC_OK;
    const struct graph *branch = node_region(n, holds ? 0 : 1);
    struct value **results = ARENA_ARRAY(&w->px->arena, struct value *, n->n_out + 1);
    struct builder b = ir_at(n);
    const enum npuc_status s = ir_clone_into(&b, branch, NULL, results);
    if (s != NPUC_OK)
        return s;
    replace_results(w, n, results);
    pass_count(w->px, STAT_inline_control_inlined, 1);
    return NPUC_OK;
}

/* ---- Loop */

static int64_t count_nodes(const struct graph *g)
{
    int64_t count = 0;
    for_each_node (n, g) {
        count += n->op != OP_Constant && n->op != OP_Yield;
        for_each_region(r, n) count += count_nodes(r);
    }
    return count;
}

/* Does the trip count alone end it, and is it small? */
static bool is_short(struct inliner *w, const struct node *n, int64_t *turns)
{
    const struct graph *body = node_region(n, 0);
    const struct value *again = node_in(graph_yield(body), 0);
    int64_t go = 1, on = 1;
    const bool begins = !node_in(n, 1) || known_number(w, node_in(n, 1), &go);
    if (!begins || (go && !known_number(w, node_in(n, 0), turns)))
        return false;
    if (!go || *turns < 0)
        *turns = 0;
    if (*turns > 1 && again != body->inputs[1] && (!known_number(w, again, &on) || !on))
        return false;
    if (*turns > MAX_TURNS || *turns * count_nodes(body) > MAX_NODES)
        return false;
    for (int i = n->n_in - 2; *turns == 0 && i < n->n_out; i++)
        if (n->out[i].uses)
            return false;
    return true;
}

static struct value *stacked(struct builder *b, struct value *const *rows, int64_t n)
{
    struct value **in = ARENA_ARRAY(&b->graph->module->arena, struct value *, n + 1);
    static const int64_t first = 0;
    for (int64_t i = 0; i < n; i++) {
        in[i] = ir_op2(b, OP_Unsqueeze, rows[i], ir_const_i64(b, &first, 1));
        if (!in[i])
            return NULL;
    }
    if (n == 1)
        return in[0];
    struct node *concat = ir_new(b, OP_Concat, (int)n, in, 1);
    ir_set_int(concat, "axis", 0);
    return ir_infer(concat) == NPUC_OK ? &concat->out[0] : NULL;
}

static enum npuc_status unroll(struct inliner *w, struct node *n, int64_t turns)
{
    struct arena *a = &w->px->arena;
    const struct graph *body = node_region(n, 0);
    const int n_carried = n->n_in - 2, n_rows = n->n_out - n_carried;
    struct value **in = ARENA_ARRAY(a, struct value *, n->n_in + 1),
                 **out = ARENA_ARRAY(a, struct value *, n->n_out + 2);
    struct value **rows = ARENA_ARRAY(a, struct value *, n_rows * turns + 1);
    struct value **results = ARENA_ARRAY(a, struct value *, n->n_out + 1);
    struct builder b = ir_at(n);
    for (int i = 0; i < n_carried; i++)
        in[2 + i] = node_in(n, 2 + i);
    for (int64_t k = 0; k < turns; k++) {
        static const bool yes = true;
        in[0] = ir_const(&b, DT_I64, 0, NULL, &k, (int64_t)sizeof k);
        in[1] = ir_const(&b, DT_BOOL, 0, NULL, &yes, 1);
        const enum npuc_status s = ir_clone_into(&b, body, in, out);
        if (s != NPUC_OK)
            return s;
        for (int i = 0; i < n_carried; i++)
            in[2 + i] = out[1 + i];
        for (int i = 0; i < n_rows; i++)
            rows[i * turns + k] = out[1 + n_carried + i];
    }
    for (int i = 0; i < n_carried; i++)
        results[i] = in[2 + i];
    for (int i = 0; i < n_rows && turns; i++) {
        results[n_carried + i] = n->out[n_carried + i].uses ? stacked(&b, rows + i * turns, turns) : NULL;
        if (n->out[n_carried + i].uses && !results[n_carried + i])
            return NPUC_E_INVALID; /* reported: the body's results contradict the node's */
    }
    replace_results(w, n, results);
    pass_count(w->px, STAT_inline_control_unrolled, 1);
    return NPUC_OK;
}

/* ---- Scan */

static int64_t nth(const struct node *n, const char *attr, int i)
{
    const struct attr *a = node_attr(n, attr);
    return a && i < a->len ? a->v.ints[i] : 0;
}

struct scan {
    struct node *n;
    int n_state, n_scan;
    expr length;
};

static bool find_scan(struct node *n, struct scan *sc)
{
    sc->n = n;
    sc->n_scan = (int)node_attr_int(n, "num_scan_inputs", 0);
    sc->n_state = n->n_in - sc->n_scan;
    for (int i = 0; i < n->n_in; i++) {
        const struct type *t = node_in(n, i)->type;
        int64_t axis = i < sc->n_state ? 0 : nth(n, "scan_input_axes", i - sc->n_state);
        if (i < sc->n_state)
            continue;
        if (t->kind != TYPE_TENSOR || t->rank < 1)
            return false;
        sc->length = t->dims[axis < 0 ? axis + t->rank : axis];
    }
    for (int i = sc->n_state; i < n->n_out; i++)
        if (n->out[i].uses && (n->out[i].type->kind != TYPE_TENSOR || n->out[i].type->rank < 1))
            return false;
    return sc->n_scan > 0;
}

/* The element of scanned input i that a turn reads. */
static struct value *scan_element(struct builder *b, const struct scan *sc, int i, struct value *turn)
{
    struct expr_pool *p = &b->cx->exprs;
    struct value *x = node_in(sc->n, sc->n_state + i), *at = turn;
    if (nth(sc->n, "scan_input_directions", i) == 1) {
        const expr last = expr_sub(p, sc->length, expr_const(p, 1));
        at = ir_op2(b, OP_Sub, ir_sizes(b, &last, 1, true), turn);
    }
    struct value *in[2] = {x, at};
    struct node *gather = ir_new(b, OP_Gather, 2, in, 1);
    ir_set_int(gather, "axis", nth(sc->n, "scan_input_axes", i));
    return at && ir_infer(gather) == NPUC_OK ? &gather->out[0] : NULL;
}

/* Rows in order along axis 0 as the Scan wants them. */
static struct value *scan_result(struct builder *b, const struct scan *sc, int i, struct value *v)
{
    int64_t axis = nth(sc->n, "scan_output_axes", i), perm[IR_MAX_RANK];
    const int rank = v->type->rank;
    if (nth(sc->n, "scan_output_directions", i) == 1) {
        static const int64_t first = -1, end = INT64_MIN + 1, along = 0, step = -1;
        struct value *in[5] = {v, ir_const_i64(b, &first, 1), ir_const_i64(b, &end, 1), ir_const_i64(b, &along, 1),
                               ir_const_i64(b, &step, 1)};
        struct node *slice = ir_new(b, OP_Slice, 5, in, 1);
        if (ir_infer(slice) != NPUC_OK)
            return NULL;
        v = &slice->out[0];
    }
    axis += axis < 0 ? rank : 0;
    if (axis == 0)
        return v;
    for (int k = 0; k < rank; k++)
        perm[k] = k < axis ? k + 1 : k == axis ? 0 : k;
    return ir_transpose(b, v, perm);
}

static enum npuc_status fill_body(struct scan *sc, struct graph *g, const struct graph *from, struct arena *a)
{
    struct ir_ctx *cx = g->module->cx;
    struct node *n = sc->n;
    struct value **in = ARENA_ARRAY(a, struct value *, n->n_in + 1),
                 **out = ARENA_ARRAY(a, struct value *, n->n_out + 2);
    struct value *turn = ir_input_new(g, type_tensor(cx, DT_I64, 0, NULL), str_internz(&cx->strings, "turn"));
    out[0] = ir_input_new(g, type_tensor(cx, DT_BOOL, 0, NULL), str_internz(&cx->strings, "go"));
    for (int i = 0; i < sc->n_state; i++)
        in[i] = ir_input_new(g, from->inputs[i]->type, from->inputs[i]->name);
    struct builder b = ir_at_end(g);
    b.loc = n->loc;
    for (int i = 0; i < sc->n_scan; i++) {
        in[sc->n_state + i] = scan_element(&b, sc, i, turn);
        if (!in[sc->n_state + i])
            return NPUC_E_INVALID;
    }
    const enum npuc_status s = ir_clone_into(&b, from, in, out + 1);
    if (s == NPUC_OK)
        ir_new(&b, OP_Yield, n->n_out + 1, out, 0);
    return s;
}

static enum npuc_status scan_to_loop(struct inliner *w, struct node *n)
{
    struct arena *a = &w->px->arena;
    struct scan sc;
    if (!find_scan(n, &sc) || !ir_may_rewrite(w->px->cx))
        return NPUC_OK;
    struct builder b = ir_at(n);
    struct value **in = ARENA_ARRAY(a, struct value *, n->n_in + 2),
                 **with = ARENA_ARRAY(a, struct value *, n->n_out + 1);
    in[0] = ir_sizes(&b, &sc.length, 1, true);
    for (int i = 0; i < sc.n_state; i++)
        in[2 + i] = node_in(n, i);
    struct node *loop = ir_new(&b, OP_Loop, 2 + sc.n_state, in, n->n_out);
    struct graph *g = ir_region_new(loop, node_region(n, 0)->name);
    ir_set_graph(loop, "body", g);
    enum npuc_status s = fill_body(&sc, g, node_region(n, 0), a);
    if (s == NPUC_OK)
        s = ir_infer(loop);
    for (int i = 0; s == NPUC_OK && i < n->n_out; i++) {
        const bool row = i >= sc.n_state && n->out[i].uses;
        with[i] = row ? scan_result(&b, &sc, i - sc.n_state, &loop->out[i]) : &loop->out[i];
        s = with[i] ? NPUC_OK : NPUC_E_INVALID;
    }
    if (s != NPUC_OK)
        return s;
    replace_results(w, n, with);
    pass_count(w->px, STAT_inline_control_scans, 1);
    return NPUC_OK;
}

/* ---- the walk */

static enum npuc_status inline_node(struct inliner *w, struct node *n)
{
    int64_t turns;
    if (n->op == OP_If)
        return inline_if(w, n);
    if (n->op == OP_Scan)
        return scan_to_loop(w, n);
    if (n->op == OP_Loop && is_short(w, n, &turns) && ir_may_rewrite(w->px->cx))
        return unroll(w, n, turns);
    return NPUC_OK;
}

/* Inner bodies first: a body is only copied when there is nothing left to do in it. */
static enum npuc_status inline_graph(struct inliner *w, struct graph *g)
{
    for_each_node_safe(n, g)
    {
        enum npuc_status s = NPUC_OK;
        if (op_table[n->op]->cls != CLS_CONTROL)
            continue;
        for_each_region(r, n) if (s == NPUC_OK) s = inline_graph(w, r);
        if (s == NPUC_OK)
            s = inline_node(w, n);
        if (s != NPUC_OK)
            return s;
    }
    return NPUC_OK;
}

static bool has_control(const struct graph *g)
{
    for_each_node (n, g)
        if (op_table[n->op]->cls == CLS_CONTROL)
            return true;
    return false;
}

enum npuc_status inline_control(struct pass_ctx *px, struct graph *g)
{
    enum npuc_status s = NPUC_OK;
    bool changed = true;
    for (int round = 0; s == NPUC_OK && changed && round < MAX_ROUNDS && has_control(g); round++) {
        struct inliner w = {.px = px, .n_by = (int32_t)px->cx->exprs.symbols.len};
        w.by = ARENA_ARRAY(&px->arena, expr, w.n_by + 1);
        s = inline_graph(&w, g);
        changed = w.changed;
        if (s == NPUC_OK && changed)
            s = pass_settle_sizes(px, g, w.by, w.n_by);
    }
    return s;
}
