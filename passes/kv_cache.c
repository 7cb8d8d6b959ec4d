/* KV caches in place: a cache that enters the model, grows by the new rows and leaves it becomes one persistent buffer
 * with room for `capacity` rows.
 *
 *   func @main(%past: f32[b,2,p,16], ...) { %present = Concat %past, %new {axis=2}; ... Yield %present }
 * becomes
 *   func @main(%past: f32[b,2,p,16] cache, ...) { %present = CacheAppend %past, %new {axis=2 capacity=C}; ... }
 *
 * A cache of fixed size that TensorScatter writes at given rows becomes one likewise; its capacity is its size.
 * Input and output keep their names: the runtime copies a given past into the buffer and a wanted present out of it.
 * Requirements: (1) the cache input is used once, by the append, so no one sees the old content after the write; (2)
 * the result leaves the model, else nothing persists; (3) both follow from the graph alone, no names are looked at.
 * Left alone: caches that are transformed before they are appended to, those of a past of fixed length unless a recipe
 * codes caches, and all of them when the capacity is 0. */
#include "passes/pass.h"

static bool leaves_graph(const struct value *v)
{
    for_each_use (u, v)
        if (u->user->op == OP_Yield)
            return true;
    return false;
}

/* An input of the function that is used once, as operand 0 of `n`. */
static struct value *cache_input(const struct graph *g, const struct node *n)
{
    struct value *v = node_in(n, 0);
    bool plain = v && !v->def && v->graph == g && v->type->kind == TYPE_TENSOR && v->type->layout.kind == LAYOUT_ND;
    return plain && value_has_one_use(v) && leaves_graph(&n->out[0]) ? v : NULL;
}

static int axis_of(const struct node *n)
{
    int64_t axis = node_attr_int(n, "axis", -2);
    return (int)(axis < 0 ? axis + n->out[0].type->rank : axis);
}

/* capacity 0: that of the operand's layout. */
static struct node *as_append(struct node *n, int64_t capacity)
{
    struct builder b = ir_at(n);
    struct value *in[4] = {node_in(n, 0), node_in(n, 1), NULL, NULL};
    int n_in = 2;
    if (n->op != OP_Concat && node_in(n, 2)) {
        in[2] = node_in(n, 2);
        in[3] = n->op == OP_CacheAppend ? node_in(n, 3) : ir_sizes(&b, &n->out[0].type->dims[axis_of(n)], 1, true);
        n_in = in[3] ? 4 : 3;
    }
    struct node *made = ir_new(&b, OP_CacheAppend, n_in, in, 1);
    ir_set_int(made, "axis", axis_of(n));
    ir_set_int(made, "capacity", capacity);
    return made;
}

static bool grows_from(const struct node *n)
{
    return (n->op == OP_Concat && n->n_in == 2) || (n->op == OP_CacheAppend && node_attr_int(n, "capacity", 0) == 0);
}

/* Sizes that the new rows tell, such as the length of a head, are those of the past as well, given or not. */
static const struct type *told_by_rows(struct ir_ctx *cx, const struct type *past, const struct type *present, int axis)
{
    expr dims[IR_MAX_RANK];
    for (int i = 0; i < past->rank; i++) {
        const struct expr_node *e = &cx->exprs.nodes.data[past->dims[i]];
        int64_t size;
        dims[i] = i == axis ? past->dims[i] : present->dims[i];
        if (dims[i] != past->dims[i] && e->op == EXPR_SYM && expr_is_const(&cx->exprs, dims[i], &size))
            expr_symbol_narrow(&cx->exprs, (int32_t)e->value,
                               (struct expr_range){.min = size, .max = size, .multiple = 1});
    }
    return type_tensor(cx, past->dtype, past->rank, dims);
}

static enum npuc_status convert(struct pass_ctx *px, struct node *n, struct value *past, int64_t capacity)
{
    struct ir_ctx *cx = px->cx;
    int axis = axis_of(n);
    struct layout l = {.kind = LAYOUT_CACHE, .axis = axis, .capacity = expr_const(&cx->exprs, capacity)};
    struct node *made = as_append(n, capacity);
    past->type = type_with_layout(cx, told_by_rows(cx, past->type, n->out[0].type, axis), l);
    enum npuc_status s = ir_infer(made);
    if (s != NPUC_OK)
        return s;
    ir_replace_all(&n->out[0], &made->out[0]);
    ir_erase(n);
    pass_count(px, STAT_kv_cache_grown, 1);
    return NPUC_OK;
}

/* A fixed buffer written at given rows is a cache whose capacity is its size. */
static bool fixed_cache(const struct pass_ctx *px, const struct node *n)
{
    return n->op == OP_TensorScatter && node_in(n, 2) &&
           node_attr_str(n, "mode", 0) == str_internz(&px->cx->strings, "linear");
}

static enum npuc_status convert_fixed(struct pass_ctx *px, struct node *n, struct value *past)
{
    int axis = axis_of(n);
    const struct type *plain = past->type;
    past->type = type_with_layout(px->cx, plain,
                                  (struct layout){.kind = LAYOUT_CACHE, .axis = axis, .capacity = plain->dims[axis]});
    struct node *made = as_append(n, 0);
    enum npuc_status s = ir_infer(made);
    if (s != NPUC_OK)
        return s;
    ir_replace_all(&n->out[0], &made->out[0]);
    ir_erase(n);
    pass_count(px, STAT_kv_cache_fixed, 1);
    return NPUC_OK;
}

/* Rows to allocate; 0: the append stays as it is. With as many past rows at every call nothing grows from one to the
 * next: such a past is kept only where it becomes codes. */
static int64_t rows_of(const struct pass_ctx *px, const struct node *n, const struct value *past)
{
    const struct quantiser *q = px->options.quantiser;
    const int axis = axis_of(n);
    int64_t before, rows;
    if (!expr_is_const(&px->cx->exprs, past->type->dims[axis], &before))
        return px->options.cache_capacity;
    const bool coded = before > 0 && q && q->cache && q->cache(q->user, str_text(&px->cx->strings, past->name), false);
    return coded && expr_is_const(&px->cx->exprs, n->out[0].type->dims[axis], &rows) ? rows : 0;
}

enum npuc_status kv_cache(struct pass_ctx *px, struct graph *g)
{
    if (px->options.cache_capacity <= 0 || g->owner)
        return NPUC_OK;
    for_each_node_safe(n, g)
    {
        bool is_fixed = fixed_cache(px, n);
        struct value *past = is_fixed || grows_from(n) ? cache_input(g, n) : NULL;
        if (past && is_fixed && ir_may_rewrite(px->cx)) {
            enum npuc_status s = convert_fixed(px, n, past);
            if (s != NPUC_OK)
                return s;
            continue;
        }
        const int64_t capacity = past && past->type->rank >= 2 ? rows_of(px, n, past) : 0;
        if (capacity == 0 || !ir_may_rewrite(px->cx))
            continue;
        enum npuc_status s = convert(px, n, past, capacity);
        if (s != NPUC_OK)
            return s;
    }
    return NPUC_OK;
}
