/* Fuses elementwise operators, row reductions and normalisations into Fused "vector" regions: one kernel that reads
 * each operand once and keeps rows on chip.
 *
 *   %s = Add %x, %r : f32[b,s,64]
 *   %n = RMSNormalization %s, %w : f32[b,s,64]
 * becomes
 *   %s, %n = Fused %x, %r, %w {kind="vector" body=(...) { Add; RMSNormalization; Yield }} : f32[b,s,64], f32[b,s,64]
 *
 * A group has one iteration shape; its members have that shape, or it with a last axis of one (values per row). Groups
 * grow along producer-consumer edges in graph order. Requirements: (1) a group stays convex: merging is refused when a
 * path between members leaves the group; (2) members are nodes that the target's vector generator takes one by one; (3)
 * at most MAX_MEMBERS members, MAX_TENSORS operands and results, MAX_RESULTS of them results, MAX_VALUES values; (4)
 * runs after placement; Fused nodes are not fused again, so it terminates. Left alone: producers of another shape
 * (masks broadcast over heads), moves, matrix products.
 */
#include "passes/match.h"

#define MAX_MEMBERS 24
#define MAX_TENSORS 14
#define MAX_RESULTS 8
#define MAX_VALUES  72 /* with its operands, a region has at most 96 values in the vector generator */

struct group {
    int32_t parent; /* union-find */
    int32_t next;   /* ring of the members */
    int32_t n;
    int32_t values; /* intermediate values of its members, constants with them; an upper bound */
    int rank;
    const expr *shape;
    bool has_red;
};
struct fuser {
    struct pass_ctx *px;
    struct graph *g;
    struct node **nodes; /* in order */
    int32_t n_nodes;
    struct map index;     /* node id -> position */
    struct group *groups; /* by position; n == 0: not fusable */
    int32_t *span;        /* by position: where the first group begins that has members before and from here on */
    uint32_t *seen;       /* marks of the reachability walk */
    uint32_t mark;
    int32_t *stack;
};

static int32_t find(struct fuser *f, int32_t i)
{
    while (f->groups[i].parent != i)
        i = f->groups[i].parent = f->groups[f->groups[i].parent].parent;
    return i;
}

/* Does the operator reduce the last axis alone, keeping it? */
static bool reduces_rows(const struct node *n)
{
    const struct type *t = n->in[0].value->type;
    int64_t axis = node_attr_int(n, "axis", -1);
    struct value *axes = op_table[n->op]->max_in == 2 && op_table[n->op]->cls == CLS_REDUCE ? node_in(n, 1) : NULL;
    if (t->rank < 1 || node_attr_int(n, "keepdims", 1) == 0)
        return false;
    if (op_table[n->op]->cls == CLS_REDUCE && !node_attr(n, "axis")) {
        if (!match_int(axes, &axis))
            return false;
    }
    return axis == -1 || axis == t->rank - 1;
}

/* Values that a member may need: a reduction is written out in steps, a sum of many operands as additions. */
static int32_t count_values(const struct node *n)
{
    const int32_t each = op_table[n->op]->cls == CLS_NORM ? 16 : op_has((enum op)n->op, T_REDUCE) ? 8 : 1;
    return each + n->n_in;
}

/* The shape over which a node iterates: that of its widest operand or result. */
static bool node_shape(struct fuser *f, const struct node *n, struct group *out)
{
    struct ir_ctx *cx = f->px->cx;
    const struct op_def *d = op_table[n->op];
    bool red = op_has((enum op)n->op, T_REDUCE);
    if (n->place != PLACE_NPU || n->n_out < 1 || n->n_in < 1 || !n->in[0].value)
        return false;
    for (int i = 1; i < n->n_out; i++)
        if (node_out(n, i))
            return false;
    if (d->cls != CLS_ELEMENTWISE && d->cls != CLS_REDUCE && d->cls != CLS_NORM)
        return false;
    const struct target_info *target = f->px->target;
    if ((red && !reduces_rows(n)) || (target && target->in_region && !target->in_region(target, cx, n)))
        return false;
    const struct type *t = red ? n->in[0].value->type : n->out[0].type;
    *out = (struct group){.n = 1, .values = count_values(n), .rank = t->rank, .shape = t->dims, .has_red = red};
    return t->rank > 0;
}

/* Is b equal to a, or a with the last axis one? */
static bool covers(struct ir_ctx *cx, const struct group *a, const struct group *b)
{
    if (a->rank != b->rank)
        return false;
    for (int i = 0; i < a->rank; i++)
        if (a->shape[i] != b->shape[i] && !(i == a->rank - 1 && expr_is_one(&cx->exprs, b->shape[i])))
            return false;
    return true;
}

static int32_t position(struct fuser *f, const struct value *v)
{
    if (!v || !v->def || v->graph != f->g)
        return -1;
    return (int32_t)*map_find(&f->index, v->def->id);
}

/* Calls fn for the position of every producer of a node; bodies of If, Loop and Scan read values of this graph too.
 * Recursion is bounded by the nesting that readers allow. True when some call was. */
typedef bool producer_fn(struct fuser *f, int32_t position, void *arg);
static bool each_producer(struct fuser *f, const struct node *node, producer_fn *fn, void *arg)
{
    for (int i = 0; i < node->n_in; i++) {
        int32_t p = position(f, node->in[i].value);
        if (p >= 0 && fn(f, p, arg))
            return true;
    }
    if (op_table[node->op]->cls != CLS_CONTROL)
        return false;
    for_each_region(body, node)
    {
        for_each_node (n, body)
            if (each_producer(f, n, fn, arg))
                return true;
    }
    return false;
}

/* The last position, not behind `at`, that no group reaches across: what is before it depends on nothing from there on,
 * every group taken as one node. */
static int32_t floor_of(const struct fuser *f, int32_t at)
{
    while (f->span[at] < at)
        at = f->span[at];
    return at;
}

static void note_span(struct fuser *f, int32_t root)
{
    int32_t first = root, last = root, i = root;
    do {
        first = i < first ? i : first;
        last = i > last ? i : last;
        i = f->groups[i].next;
    } while (i != root);
    for (i = first + 1; i <= last; i++)
        f->span[i] = first < f->span[i] ? first : f->span[i];
}

/* Pushes producers that have not been seen; none before `lowest` can depend on a member. */
struct walk {
    int32_t lowest, *n;
};
static bool push_one(struct fuser *f, int32_t p, void *arg)
{
    struct walk *w = arg;
    if (p >= w->lowest && f->seen[p] != f->mark) {
        f->seen[p] = f->mark;
        f->stack[(*w->n)++] = p;
    }
    return false;
}

static void push_inputs(struct fuser *f, int32_t at, int32_t lowest, int32_t *n)
{
    struct walk w = {lowest, n};
    each_producer(f, f->nodes[at], push_one, &w);
}

/* Marks the members of a group and returns the position of the first. */
static int32_t mark_members(struct fuser *f, int32_t root)
{
    int32_t lowest = root, i = root;
    do {
        f->seen[i] = f->mark;
        lowest = i < lowest ? i : lowest;
        i = f->groups[i].next;
    } while (i != root);
    return lowest;
}

static void push_members(struct fuser *f, int32_t root, int32_t lowest, int32_t *n)
{
    int32_t i = root;
    do {
        push_inputs(f, i, lowest, n);
        i = f->groups[i].next;
    } while (i != root);
}

static bool is_one_of(struct fuser *f, int32_t p, void *arg)
{
    const int32_t *groups = arg;
    int32_t q = f->groups[p].n ? find(f, p) : -1;
    return q >= 0 && (q == groups[0] || q == groups[1]);
}

static bool reads_from(struct fuser *f, int32_t at, int32_t a, int32_t b)
{
    int32_t groups[2] = {a, b};
    return each_producer(f, f->nodes[at], is_one_of, groups);
}

/* Does a path leave the two groups and come back? Walks from their outside producers upwards, every other group as one
 * node. */
static bool leaves_and_returns(struct fuser *f, int32_t a, int32_t b)
{
    int32_t n = 0;
    f->mark++;
    int32_t la = mark_members(f, a), lb = mark_members(f, b), lowest = floor_of(f, la < lb ? la : lb);
    push_members(f, a, lowest, &n);
    push_members(f, b, lowest, &n);
    while (n > 0) {
        int32_t at = f->stack[--n], i = at;
        do {
            if (reads_from(f, i, a, b))
                return true;
            f->seen[i] = f->mark;
            push_inputs(f, i, lowest, &n);
            i = f->groups[i].next;
        } while (i != at);
    }
    return false;
}

static bool is_member(struct fuser *f, int32_t p, int32_t a, int32_t b)
{
    return p >= 0 && f->groups[p].n && (find(f, p) == a || find(f, p) == b);
}

static bool used_outside(struct fuser *f, const struct value *v, int32_t a, int32_t b)
{
    for_each_use (u, v) {
        uint64_t *p = u->user->graph == f->g ? map_find(&f->index, u->user->id) : NULL;
        if (!p || !is_member(f, (int32_t)*p, a, b))
            return true;
    }
    return false;
}

static int count_of(struct fuser *f, int32_t root, int32_t a, int32_t b, struct map *operands)
{
    int32_t i = root;
    int results = 0;
    do {
        const struct node *n = f->nodes[i];
        for (int k = 0; k < n->n_in; k++) {
            const struct value *v = n->in[k].value;
            if (v && !value_const(v) && !is_member(f, position(f, v), a, b))
                map_put(operands, v->id, 1);
        }
        results += used_outside(f, &n->out[0], a, b);
        i = f->groups[i].next;
    } while (i != root);
    return results;
}

/* Are operands from outside and results used outside few enough, were the two groups one? */
static bool few_tensors(struct fuser *f, int32_t a, int32_t b)
{
    struct arena_mark mark = arena_mark(&f->px->arena);
    struct map operands;
    map_init(&operands, &f->px->arena);
    const int results = count_of(f, a, a, b, &operands) + count_of(f, b, a, b, &operands);
    const bool few = results <= MAX_RESULTS && results + (int)operands.len <= MAX_TENSORS;
    arena_release(&f->px->arena, mark);
    return few;
}

static void try_merge(struct fuser *f, int32_t producer, int32_t consumer)
{
    int32_t a = find(f, producer), b = find(f, consumer);
    struct group *x = &f->groups[a], *y = &f->groups[b];
    struct ir_ctx *cx = f->px->cx;
    if (a == b || x->n + y->n > MAX_MEMBERS || x->values + y->values > MAX_VALUES)
        return;
    bool wide = covers(cx, x, y);
    if (!wide && !covers(cx, y, x))
        return;
    if (!few_tensors(f, a, b) || leaves_and_returns(f, a, b))
        return;
    if (!wide) {
        x->shape = y->shape;
        x->rank = y->rank;
    }
    int32_t swap = x->next;
    x->next = y->next;
    y->next = swap;
    x->n += y->n;
    x->values += y->values;
    x->has_red = x->has_red || y->has_red;
    y->parent = a;
    note_span(f, a);
}

static void collect(struct fuser *f)
{
    struct arena *a = &f->px->arena;
    map_init(&f->index, a);
    for_each_node (n, f->g)
        f->n_nodes++;
    f->nodes = ARENA_ARRAY(a, struct node *, f->n_nodes);
    f->groups = ARENA_ARRAY(a, struct group, f->n_nodes);
    f->seen = ARENA_ARRAY(a, uint32_t, f->n_nodes);
    f->span = ARENA_ARRAY(a, int32_t, f->n_nodes);
    f->stack = ARENA_ARRAY(a, int32_t, f->n_nodes);
    int32_t i = 0;
    for_each_node (n, f->g) {
        f->nodes[i] = n;
        map_put(&f->index, n->id, (uint64_t)i);
        if (!node_shape(f, n, &f->groups[i]))
            f->groups[i] = (struct group){0};
        f->groups[i].parent = f->groups[i].next = f->span[i] = i;
        i++;
    }
}

static void grow(struct fuser *f)
{
    for (int32_t i = 0; i < f->n_nodes; i++) {
        if (f->groups[i].n == 0)
            continue;
        for (int k = 0; k < f->nodes[i]->n_in; k++) {
            int32_t p = position(f, f->nodes[i]->in[k].value);
            if (p >= 0 && f->groups[p].n > 0)
                try_merge(f, p, i);
        }
    }
}

static void fuse_group(struct fuser *f, int32_t root)
{
    struct node *members[MAX_MEMBERS];
    int64_t n = 0;
    for (int32_t i = 0; i < f->n_nodes; i++)
        if (f->groups[i].n && find(f, i) == root)
            members[n++] = f->nodes[i];
    struct node *fused = ir_fuse(f->px->cx, members, n, members[n - 1], "vector");
    fused->place = PLACE_NPU;
    pass_count(f->px, STAT_fuse_vector_regions, 1);
    pass_count(f->px, STAT_fuse_vector_fused, n);
}

enum npuc_status fuse_vector(struct pass_ctx *px, struct graph *g)
{
    struct fuser f = {.px = px, .g = g};
    if (!px->target)
        return NPUC_OK;
    collect(&f);
    grow(&f);
    for (int32_t i = 0; i < f.n_nodes; i++)
        if (f.groups[i].n > 1 && f.groups[i].parent == i && ir_may_rewrite(px->cx))
            fuse_group(&f, i);
    ir_sort(g);
    return NPUC_OK;
}
