/* If and Loop: a step that decides, the steps of the bodies behind it, and copies that carry values in and out.
 *
 *   %y = If %c {then=() { %a = Exp %x; Yield %a } else=() { %b = NonZero %x; ... Yield %d }}
 * becomes
 *   if(c)
 *     launch Exp(x -> y)            a result of the node's own type is written in place
 *   else
 *     host NonZero(x -> b) ...
 *     move(d -> y; binds n)         a result whose size the body tells: the node's symbols are bound from it
 *
 * A value carried by a loop has a tensor of its own, which is filled before the loop, read by the body, and takes the
 * body's result at the end of a turn. Results of all turns are rows appended to the node's result. What a body learns
 * (symbols, tensors of sizes) is forgotten where it ends. Scan has been written as a Loop (lower_scan). */
#include "backend/emit_priv.h"

#include <stdio.h>

/* ---- what is known within a body ---- */

struct scope {
    bool *bound;
    int64_t n_bound, n_sizes;
};

static struct scope scope_begin(struct emitter *em)
{
    struct scope sc = {.n_bound = em->bound.len, .n_sizes = em->sizes.len};
    sc.bound = arena_copy(em->e.arena, em->bound.data, em->bound.len * (int64_t)sizeof(bool));
    return sc;
}

static void scope_end(struct emitter *em, const struct scope *sc)
{
    for (int64_t i = 0; i < em->bound.len; i++)
        em->bound.data[i] = i < sc->n_bound && sc->bound[i];
    for (; em->sizes.len > sc->n_sizes; em->sizes.len--)
        em->e.tensor_of[em->sizes.data[em->sizes.len - 1]] = -1;
}

static enum npuc_status emit_nodes(struct emitter *em, const struct graph *g)
{
    enum npuc_status st = NPUC_OK;
    for_each_node (n, g)
        if (st == NPUC_OK)
            st = emit_node(em, n);
    return st;
}

/* ---- sizes that a body tells ---- */

struct binds {
    VEC(int32_t) v; /* triples: output 0, axis, symbol of the plan */
};

/* The dims of type t whose values nobody knows before the body has run. */
static enum npuc_status open_dims(struct emitter *em, const struct node *n, const struct type *t, struct binds *b)
{
    struct emit *e = &em->e;
    for (int i = 0; i < t->rank; i++) {
        if (expr_is_bound(em, t->dims[i]))
            continue;
        const struct expr_node *x = &e->plan->exprs.nodes.data[emit_expr(e, t->dims[i])];
        if (x->op != EXPR_SYM)
            return node_error(e->cx, n, D_UNSUPPORTED, "size %s of a result cannot be known before it is computed",
                              expr_text(&e->cx->exprs, t->dims[i], &e->cx->scratch));
        vec_push(e->arena, &b->v, 0);
        vec_push(e->arena, &b->v, i);
        vec_push(e->arena, &b->v, (int32_t)x->value);
    }
    return NPUC_OK;
}

static struct plan_step *step_with(struct emitter *em, enum plan_step_kind kind, const struct binds *b, int n_in,
                                   int n_out, const int32_t *tensors)
{
    struct arena *mem = &em->e.plan->arena;
    struct plan_step *s = step_new(&em->e, kind, em->e.node);
    s->op = str_internz(&em->e.plan->strings, em->e.node ? op_table[em->e.node->op]->name : "copy");
    s->n_in = n_in;
    s->n_out = n_out;
    s->tensors = arena_copy(mem, tensors, (n_in + n_out) * (int64_t)sizeof *tensors);
    if (b) {
        s->n_binds = (int32_t)b->v.len / 3;
        s->binds = arena_copy(mem, b->v.data, b->v.len * (int64_t)sizeof(int32_t));
    }
    return s;
}

/* to = from, of type t. Where no size is told by it the cores copy as they do elsewhere. */
static enum npuc_status transfer(struct emitter *em, bool move, int32_t from, int32_t to, const struct type *t,
                                 const struct binds *b)
{
    static const char reason[] = "a value enters or leaves the body of control flow";
    const struct plan_tensor *x = em->e.plan->tensors.data;
    const int32_t pair[2] = {from, to};
    const bool dense = t->kind == TYPE_TENSOR && t->rank >= 0 && x[from].kind != PT_OBJECT && x[to].kind != PT_OBJECT;
    if (!move && dense && (!b || !b->v.len))
        return emit_copy(&em->e, from, to, t, reason);
    struct plan_step *s = step_with(em, move ? PS_MOVE : PS_COPY, b, 1, 1, pair);
    s->reason = str_internz(&em->e.plan->strings, reason);
    return NPUC_OK;
}

static int32_t root_of(const struct plan *p, int32_t t)
{
    return p->tensors.data[t].kind == PT_ALIAS ? p->tensors.data[t].base : t;
}

/* Was the tensor made behind `mark`, by nodes of the body, and is it theirs alone? */
static bool is_local(const struct plan *p, int32_t t, int64_t mark)
{
    const int32_t root = root_of(p, t);
    return root >= mark && (p->tensors.data[root].kind == PT_TEMP || p->tensors.data[root].kind == PT_OBJECT);
}

static int32_t new_temp(struct emitter *em, const struct value *v)
{
    return tensor_new(&em->e, PT_TEMP, v->type, emit_sym(&em->e, v->name));
}

/* ---- If ---- */

struct result {
    const struct value *out; /* NULL: nobody reads it */
    int32_t tensor;
    struct binds binds;
};

/* Lets the nodes of a branch write a result in place. */
static void claim(struct emitter *em, const struct graph *g, struct value *v, const struct result *r)
{
    struct emit *e = &em->e;
    if (v->graph != g || v->type != r->out->type || r->binds.v.len)
        return;
    struct value *w = computed_value(v);
    if (!w || w->graph != g || w->def->op == OP_TransData || e->tensor_of[v->id] >= 0 || e->tensor_of[w->id] >= 0)
        return;
    e->tensor_of[v->id] = r->tensor;
    if (w != v)
        e->tensor_of[w->id] = tensor_alias(e, r->tensor, w->type, emit_sym(e, w->name));
}

static bool used_again(const struct plan *p, const int32_t *from, int i, int n)
{
    for (int k = i + 1; k < n; k++)
        if (from[k] >= 0 && root_of(p, from[k]) == root_of(p, from[i]))
            return true;
    return false;
}

static enum npuc_status emit_branch(struct emitter *em, const struct node *n, const struct graph *g, struct result *r)
{
    struct emit *e = &em->e;
    const struct node *yield = graph_yield(g);
    const struct scope sc = scope_begin(em);
    const int64_t mark = e->plan->tensors.len;
    for (int i = 0; i < n->n_out; i++)
        if (r[i].out)
            claim(em, g, node_in(yield, i), &r[i]);
    enum npuc_status st = emit_nodes(em, g);
    e->node = (struct node *)(uintptr_t)n;
    int32_t *from = ARENA_ARRAY(e->arena, int32_t, n->n_out + 1);
    for (int i = 0; st == NPUC_OK && i < n->n_out; i++)
        from[i] = r[i].out ? emit_tensor(e, node_in(yield, i)) : -1;
    for (int i = 0; st == NPUC_OK && i < n->n_out; i++)
        if (from[i] >= 0 && from[i] != r[i].tensor)
            st = transfer(em, is_local(e->plan, from[i], mark) && !used_again(e->plan, from, i, n->n_out), from[i],
                          r[i].tensor, node_in(yield, i)->type, &r[i].binds);
    scope_end(em, &sc);
    return st;
}

enum npuc_status emit_if(struct emitter *em, struct node *n)
{
    struct emit *e = &em->e;
    struct result *r = ARENA_ARRAY(e->arena, struct result, n->n_out + 1);
    for (int i = 0; i < n->n_out; i++) {
        struct value *y = node_out(n, i);
        if (!y || !y->uses)
            continue;
        const enum npuc_status st = open_dims(em, n, y->type, &r[i].binds);
        if (st != NPUC_OK)
            return st;
        r[i].out = y;
        r[i].tensor = emit_tensor(e, y);
    }
    const int32_t cond = emit_tensor(e, node_in(n, 0));
    const int64_t at = e->plan->steps.len;
    step_with(em, PS_IF, NULL, 1, 0, &cond)->reason = emit_sym(e, n->reason);
    for (int b = 0; b < 2; b++) {
        const int64_t start = e->plan->steps.len;
        const enum npuc_status st = emit_branch(em, n, node_region(n, b), r);
        if (st != NPUC_OK)
            return st;
        e->plan->steps.data[at].n_body[b] = (int32_t)(e->plan->steps.len - start);
    }
    for (int i = 0; i < n->n_out; i++)
        if (r[i].out)
            bind_type_symbols(em, r[i].out->type);
    return NPUC_OK;
}

/* ---- Loop ---- */

struct carried {
    struct value *inner, *next, *out; /* the body's input and result; the node's result or NULL */
    int32_t state;                    /* -1: handed through by the body, needs no tensor */
    int32_t from;                     /* tensor of the body's result */
    struct binds binds;
};
struct loop {
    struct emitter *em;
    struct node *n;
    struct graph *body;
    const struct node *yield;
    int n_carried, n_rows;
    struct carried *carried;
    struct result *rows;
    expr turn;           /* number of the turn, in the plan's pool */
    struct binds zeroed; /* symbols of the loop step */
    int32_t operands[5]; /* tensors of the loop step */
    int64_t made, at;    /* tensors before the body, the loop step */
    enum npuc_status st; /* of the copies at the end of a turn */
};

/* A symbol of the plan alone: the number of the turn. */
static void turn_symbol(struct loop *l)
{
    struct expr_pool *p = &l->em->e.plan->exprs;
    char name[32];
    int i = 0;
    do {
        snprintf(name, sizeof name, "turn_%d", i++);
    } while (expr_symbol_find(p, str_internz(p->strings, name)) >= 0);
    const struct expr_range any = {.min = 0, .max = INT64_MAX, .multiple = 1};
    const int32_t symbol = expr_symbol_new(p, str_internz(p->strings, name), any);
    l->turn = expr_sym(p, symbol);
    const int32_t triple[3] = {-1, -1, symbol};
    for (int k = 0; k < 3; k++)
        vec_push(l->em->e.arena, &l->zeroed.v, triple[k]);
}

/* Is the value true whenever the body asks? */
static bool is_true(const struct value *v)
{
    double x;
    return !v || (value_const_f64(v, 0, &x) && x != 0.0);
}

static enum npuc_status begin_carried(struct loop *l, struct carried *c, struct value *init)
{
    struct emitter *em = l->em;
    struct emit *e = &em->e;
    c->from = c->state = -1;
    if (c->next == c->inner && c->inner->type == init->type) {
        e->tensor_of[c->inner->id] = emit_tensor(e, init);
        return NPUC_OK;
    }
    const enum npuc_status st = open_dims(em, l->n, c->inner->type, &c->binds);
    if (st != NPUC_OK)
        return st;
    const bool in_place = c->out && c->out->type == c->inner->type && !c->binds.v.len;
    c->state = in_place ? emit_tensor(e, c->out) : new_temp(em, c->inner);
    e->tensor_of[c->inner->id] = c->state;
    return transfer(em, false, emit_tensor(e, init), c->state, init->type, &c->binds);
}

/* Sizes of a result without a turn are 0; the first row tells the others. */
static enum npuc_status begin_rows(struct loop *l, struct result *r)
{
    struct emit *e = &l->em->e;
    const enum npuc_status st = open_dims(l->em, l->n, r->out->type, &r->binds);
    for (int64_t i = 0; st == NPUC_OK && i < r->binds.v.len; i += 3) {
        vec_push(e->arena, &l->zeroed.v, -1);
        vec_push(e->arena, &l->zeroed.v, -1);
        vec_push(e->arena, &l->zeroed.v, r->binds.v.data[i + 2]);
    }
    r->tensor = emit_tensor(e, (struct value *)(uintptr_t)r->out);
    return st;
}

static int32_t scalar_input(struct loop *l, int i)
{
    struct value *v = l->body->inputs[i];
    return v->uses ? l->em->e.tensor_of[v->id] = new_temp(l->em, v) : -1;
}

static void loop_operands(struct loop *l)
{
    struct emit *e = &l->em->e;
    struct value *trip = node_in(l->n, 0), *go = node_in(l->n, 1);
    l->operands[0] = emit_tensor(e, trip);
    l->operands[1] = is_true(go) ? -1 : emit_tensor(e, go);
    l->operands[2] = -1;
    l->operands[3] = scalar_input(l, 0);
    l->operands[4] = scalar_input(l, 1);
    const expr most = trip ? value_elem(e->cx, trip, 0) : EXPR_INVALID;
    expr *params = ARENA_NEW(&e->plan->arena, expr);
    l->at = e->plan->steps.len;
    struct plan_step *s = step_with(l->em, PS_LOOP, &l->zeroed, 3, 2, l->operands);
    if (most && expr_is_bound(l->em, most)) {
        s->params = params;
        s->n_params = 1;
        *params = emit_expr(e, most);
    }
    s->reason = emit_sym(e, l->n->reason);
}

static void append_rows(struct loop *l)
{
    struct emit *e = &l->em->e;
    for (int i = 0; i < l->n_rows; i++) {
        if (!l->rows[i].out)
            continue;
        const int32_t pair[2] = {emit_tensor(e, node_in(l->yield, 1 + l->n_carried + i)), l->rows[i].tensor};
        struct plan_step *s = step_with(l->em, PS_APPEND, &l->rows[i].binds, 1, 1, pair);
        expr *row = ARENA_NEW(&e->plan->arena, expr);
        *row = l->turn;
        s->params = row;
        s->n_params = 1;
        s->reason = str_internz(&e->plan->strings, "results of all turns of a loop are put together");
    }
}

static bool is_state(const struct loop *l, int32_t tensor)
{
    const struct plan *p = l->em->e.plan;
    for (int i = 0; i < l->n_carried; i++)
        if (l->carried[i].state >= 0 && root_of(p, l->carried[i].state) == root_of(p, tensor))
            return true;
    return false;
}

static bool taken_later(const struct loop *l, int i)
{
    const struct plan *p = l->em->e.plan;
    for (int k = i + 1; k < l->n_carried; k++)
        if (l->carried[k].from >= 0 && root_of(p, l->carried[k].from) == root_of(p, l->carried[i].from))
            return true;
    return false;
}

/* A copy of a body's result that the moves at the end of the turn do not touch. */
static int32_t aside(struct loop *l, const struct value *v, int32_t from)
{
    const int32_t t = new_temp(l->em, v);
    l->st = l->st == NPUC_OK ? transfer(l->em, false, from, t, v->type, NULL) : l->st;
    return t;
}

/* At the end of a turn the results of the body become what it carries. Results that are a carried value, as when two
 * are exchanged, are put aside first; so is the condition. */
static void end_turn(struct loop *l)
{
    struct emit *e = &l->em->e;
    struct value *again = node_in(l->yield, 0); /* handed through: the condition that let this turn begin */
    for (int i = 0; i < l->n_carried; i++) {
        struct carried *c = &l->carried[i];
        if (c->state < 0 || c->next == c->inner)
            continue;
        c->from = emit_tensor(e, c->next);
        if (is_state(l, c->from))
            c->from = aside(l, c->next, c->from);
    }
    if (again != l->body->inputs[1] && !is_true(again)) {
        const int32_t t = emit_tensor(e, again);
        const bool kept = e->plan->tensors.data[root_of(e->plan, t)].kind != PT_TEMP || again->graph != l->body;
        l->operands[2] = kept ? t : aside(l, again, t);
    }
    for (int i = 0; i < l->n_carried; i++) {
        const struct carried *c = &l->carried[i];
        if (c->from >= 0 && l->st == NPUC_OK)
            l->st = transfer(l->em, is_local(e->plan, c->from, l->made) && !taken_later(l, i), c->from, c->state,
                             c->next->type, &c->binds);
    }
    struct plan_step *s = &e->plan->steps.data[l->at];
    s->tensors = arena_copy(&e->plan->arena, l->operands, (int64_t)sizeof l->operands);
    s->n_body[0] = (int32_t)(e->plan->steps.len - l->at - 1);
}

/* The node's results from the carried values. */
static enum npuc_status end_carried(struct loop *l)
{
    struct emit *e = &l->em->e;
    for (int i = 0; i < l->n_carried; i++) {
        const struct carried *c = &l->carried[i];
        struct binds open = {0};
        if (!c->out || e->tensor_of[c->inner->id] == e->tensor_of[c->out->id])
            continue;
        const int32_t state = e->tensor_of[c->inner->id];
        enum npuc_status st = open_dims(l->em, l->n, c->out->type, &open);
        if (st != NPUC_OK)
            return st;
        if (c->state < 0 && e->tensor_of[c->out->id] < 0 && !open.v.len)
            e->tensor_of[c->out->id] = tensor_alias(e, state, c->out->type, emit_sym(e, c->out->name));
        else
            st = transfer(l->em, c->state >= 0, state, emit_tensor(e, c->out), c->out->type, &open);
        if (st != NPUC_OK)
            return st;
    }
    return NPUC_OK;
}

static void find_parts(struct loop *l)
{
    struct arena *a = l->em->e.arena;
    const struct node *n = l->n;
    l->n_carried = n->n_in - 2;
    l->n_rows = n->n_out - l->n_carried;
    l->carried = ARENA_ARRAY(a, struct carried, l->n_carried + 1);
    l->rows = ARENA_ARRAY(a, struct result, l->n_rows + 1);
    for (int i = 0; i < n->n_out; i++) {
        struct value *y = node_out(n, i) && n->out[i].uses ? node_out(n, i) : NULL;
        if (i < l->n_carried)
            l->carried[i] =
                (struct carried){.inner = l->body->inputs[2 + i], .next = node_in(l->yield, 1 + i), .out = y};
        else
            l->rows[i - l->n_carried].out = y;
    }
}

enum npuc_status emit_loop(struct emitter *em, struct node *n)
{
    struct loop l = {.em = em, .n = n, .body = node_region(n, 0), .yield = graph_yield(node_region(n, 0))};
    enum npuc_status st = NPUC_OK;
    find_parts(&l);
    turn_symbol(&l);
    for (int i = 0; st == NPUC_OK && i < l.n_rows; i++)
        st = l.rows[i].out ? begin_rows(&l, &l.rows[i]) : NPUC_OK;
    const struct scope sc = scope_begin(em);
    for (int i = 0; st == NPUC_OK && i < l.n_carried; i++)
        st = begin_carried(&l, &l.carried[i], node_in(n, 2 + i));
    for (int i = 0; st == NPUC_OK && i < l.n_carried; i++)
        bind_type_symbols(em, l.carried[i].inner->type);
    if (st != NPUC_OK)
        return st;
    loop_operands(&l);
    l.made = em->e.plan->tensors.len;
    st = emit_nodes(em, l.body);
    em->e.node = n;
    if (st != NPUC_OK)
        return st;
    append_rows(&l);
    end_turn(&l);
    scope_end(em, &sc);
    st = l.st == NPUC_OK ? end_carried(&l) : l.st;
    for (int i = 0; st == NPUC_OK && i < n->n_out; i++)
        if (node_out(n, i))
            bind_type_symbols(em, node_out(n, i)->type);
    return st;
}
