/* Sequences whose elements are known at compile time disappear: exporters write them for lists of the source language.
 *
 *   %s = SplitToSequence %x, %two {axis=1}       %x : f32[b,6]
 *   %e = SequenceAt %s, %one : f32[b,2]                          becomes   %p, %e, %q = Split %x, [2, 2, 2] {axis=1}
 *   %t = SequenceConstruct %a, %b
 *   %y = ConcatFromSequence %t {axis=0}                          becomes   %y = Concat %a, %b {axis=0}
 *   %n = SequenceLength %t                                       becomes   %n = 2
 *
 * A sequence is known when it is made by SequenceConstruct, SequenceEmpty or SplitToSequence with known lengths, or
 * from a known one by SequenceInsert or SequenceErase at a known position. Requirements: (1) values of enclosing graphs
 * are visited before bodies that use them, so one round in order finds every list; (2) a symbol that only the replaced
 * node told gives way to the size that stands for it, and all nodes are inferred again; (3) nothing makes sequences, so
 * the pass ends. The operators of lists that nobody reads any more are left to dce. Left alone: positions that data
 * tell, sequences carried by loops, lists of more than MAX_LIST elements. */
#include "passes/pass.h"

enum { MAX_LIST = 1024 };

struct list {
    int64_t n;
    struct value **at;
};
struct lists {
    struct pass_ctx *px;
    struct map known; /* value id -> struct list */
    expr *by;         /* per symbol: the size that stands for it now */
    int32_t n_by;
    bool changed;
};

static const struct list *list_of(const struct lists *w, const struct value *v)
{
    const uint64_t *found = v ? map_find(&w->known, v->id) : NULL;
    return found ? (const struct list *)(uintptr_t)*found : NULL;
}

static struct list *note(struct lists *w, const struct value *v, int64_t n)
{
    struct list *l = ARENA_NEW(&w->px->arena, struct list);
    *l = (struct list){n, ARENA_ARRAY(&w->px->arena, struct value *, n + 1)};
    map_put(&w->known, v->id, (uint64_t)(uintptr_t)l);
    return l;
}

/* Operand i of n as a known number; `otherwise` when it is absent. */
static bool number(struct lists *w, const struct node *n, int i, int64_t otherwise, int64_t *out)
{
    double x;
    struct value *v = node_in(n, i);
    *out = otherwise;
    if (!v)
        return true;
    const expr e = value_elem(w->px->cx, v, 0);
    if (e && expr_is_const(&w->px->cx->exprs, e, out))
        return true;
    if (!value_const_f64(v, 0, &x))
        return false;
    *out = (int64_t)x;
    return true;
}

/* A position within [0, limit), negative ones from the end of a list of `len`. */
static bool position(struct lists *w, const struct node *n, int i, int64_t otherwise, int64_t len, int64_t limit,
                     int64_t *at)
{
    if (!number(w, n, i, otherwise, at))
        return false;
    *at += *at < 0 ? len : 0;
    return *at >= 0 && *at < limit;
}

/* ---- making lists */

static void note_construct(struct lists *w, struct node *n)
{
    if (n->n_in > MAX_LIST)
        return;
    struct list *l = note(w, &n->out[0], n->n_in);
    for (int i = 0; i < n->n_in; i++)
        l->at[i] = n->in[i].value;
}

static void note_empty(struct lists *w, struct node *n)
{
    (void)note(w, &n->out[0], 0);
}

static void note_insert(struct lists *w, struct node *n)
{
    const struct list *x = list_of(w, node_in(n, 0));
    int64_t at;
    if (!x || x->n >= MAX_LIST || !position(w, n, 2, x->n, x->n, x->n + 1, &at))
        return;
    struct list *l = note(w, &n->out[0], x->n + 1);
    for (int64_t i = 0; i < l->n; i++)
        l->at[i] = i == at ? node_in(n, 1) : x->at[i < at ? i : i - 1];
}

static void note_erase(struct lists *w, struct node *n)
{
    const struct list *x = list_of(w, node_in(n, 0));
    int64_t at;
    if (!x || !x->n || !position(w, n, 1, x->n - 1, x->n, x->n, &at))
        return;
    struct list *l = note(w, &n->out[0], x->n - 1);
    for (int64_t i = 0; i < l->n; i++)
        l->at[i] = x->at[i < at ? i : i + 1];
}

/* Lengths of the pieces of a SplitToSequence; 0 when they are not known. */
static int64_t piece_lengths(struct lists *w, struct node *n, int axis, int64_t len[MAX_LIST])
{
    struct value *split = node_in(n, 1);
    const bool one_by_one = split && split->type->rank == 1;
    const int64_t count = one_by_one ? value_n_elems(w->px->cx, split) : 0;
    int64_t dim, chunk = 1, k = 0;
    for (; k < count && count <= MAX_LIST; k++) {
        const expr e = value_elem(w->px->cx, split, k);
        if (!e || !expr_is_const(&w->px->cx->exprs, e, &len[k]))
            return 0;
    }
    if (one_by_one)
        return k;
    if (!expr_is_const(&w->px->cx->exprs, node_in(n, 0)->type->dims[axis], &dim) || !number(w, n, 1, 1, &chunk) ||
        chunk < 1 || dim / chunk >= MAX_LIST)
        return 0;
    for (int64_t at = 0; at < dim; at += chunk)
        len[k++] = dim - at < chunk ? dim - at : chunk;
    return k;
}

static enum npuc_status note_split(struct lists *w, struct node *n)
{
    struct value *x = node_in(n, 0);
    int64_t len[MAX_LIST], axis = node_attr_int(n, "axis", 0);
    axis += axis < 0 && x->type->rank > 0 ? x->type->rank : 0;
    if (x->type->kind != TYPE_TENSOR || axis < 0 || axis >= x->type->rank)
        return NPUC_OK;
    const int64_t count = piece_lengths(w, n, (int)axis, len);
    if (!count || !ir_may_rewrite(w->px->cx))
        return NPUC_OK;
    struct builder b = ir_at(n);
    struct node *split = ir_new(&b, OP_Split, 2, (struct value *[]){x, ir_const_i64(&b, len, count)}, (int)count);
    ir_set_int(split, "axis", axis);
    enum npuc_status s = ir_infer(split);
    struct list *l = note(w, &n->out[0], count);
    const bool drop = !node_in(n, 1) && !node_attr_int(n, "keepdims", 1);
    for (int64_t i = 0; s == NPUC_OK && i < count; i++) {
        l->at[i] = drop ? ir_op2(&b, OP_Squeeze, &split->out[i], ir_const_i64(&b, &axis, 1)) : &split->out[i];
        s = l->at[i] ? NPUC_OK : NPUC_E_INVALID;
    }
    return s;
}

static enum npuc_status note_list(struct lists *w, struct node *n)
{
    static const struct {
        enum op op;
        void (*fn)(struct lists *w, struct node *n);
    } makers[] = {{OP_SequenceConstruct, note_construct},
                  {OP_SequenceEmpty, note_empty},
                  {OP_SequenceInsert, note_insert},
                  {OP_SequenceErase, note_erase}};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(makers); i++)
        if ((enum op)n->op == makers[i].op)
            makers[i].fn(w, n);
    return n->op == OP_SplitToSequence && n->out[0].uses ? note_split(w, n) : NPUC_OK;
}

/* ---- reading them */

static struct value *joined(struct node *n, const struct list *l)
{
    struct builder b = ir_at(n);
    const int64_t axis = node_attr_int(n, "axis", 0);
    struct value *parts[MAX_LIST];
    for (int64_t i = 0; i < l->n; i++) {
        parts[i] = l->at[i];
        if (node_attr_int(n, "new_axis", 0))
            parts[i] = ir_op2(&b, OP_Unsqueeze, l->at[i], ir_const_i64(&b, &axis, 1));
        if (!parts[i])
            return NULL;
    }
    struct node *made = ir_new(&b, OP_Concat, (int)l->n, parts, 1);
    ir_set_int(made, "axis", axis);
    return ir_infer(made) == NPUC_OK ? &made->out[0] : NULL;
}

/* A symbol that the replaced node told is the size of what stands for its result. */
static void note_sizes(struct lists *w, const struct type *from, const struct type *to)
{
    const struct expr_pool *p = &w->px->cx->exprs;
    for (int i = 0; i < from->rank && from->rank == to->rank; i++) {
        const struct expr_node *x = &p->nodes.data[from->dims[i]];
        if (x->op == EXPR_SYM && from->dims[i] != to->dims[i] && x->value < w->n_by && !w->by[x->value])
            w->by[x->value] = to->dims[i];
    }
}

static enum npuc_status read_list(struct lists *w, struct node *n)
{
    const struct list *l = list_of(w, node_in(n, 0));
    const bool at = n->op == OP_SequenceAt, length = n->op == OP_SequenceLength, join = n->op == OP_ConcatFromSequence;
    int64_t place = 0;
    if (!l || (!at && !length && !join) || (at && !position(w, n, 1, 0, l->n, l->n, &place)) || (join && !l->n) ||
        !ir_may_rewrite(w->px->cx))
        return NPUC_OK;
    struct builder b = ir_at(n);
    struct value *with = at       ? l->at[place]
                         : length ? ir_const(&b, DT_I64, 0, NULL, &l->n, (int64_t)sizeof l->n)
                                  : joined(n, l);
    if (!with)
        return NPUC_E_INVALID;
    note_sizes(w, n->out[0].type, with->type);
    ir_replace_all(&n->out[0], with);
    ir_erase(n);
    pass_count(w->px, STAT_recover_sequence_replaced, 1);
    w->changed = true;
    return NPUC_OK;
}

static enum npuc_status visit(struct lists *w, struct graph *g)
{
    for_each_node_safe(n, g)
    {
        enum npuc_status s = note_list(w, n);
        for_each_region(r, n) if (s == NPUC_OK) s = visit(w, r);
        if (s == NPUC_OK)
            s = read_list(w, n);
        if (s != NPUC_OK)
            return s;
    }
    return NPUC_OK;
}

enum npuc_status recover_sequence(struct pass_ctx *px, struct graph *g)
{
    struct lists w = {.px = px, .n_by = (int32_t)px->cx->exprs.symbols.len};
    map_init(&w.known, &px->arena);
    w.by = ARENA_ARRAY(&px->arena, expr, w.n_by + 1);
    const enum npuc_status s = visit(&w, g);
    return s == NPUC_OK && w.changed ? pass_settle_sizes(px, g, w.by, w.n_by) : s;
}
