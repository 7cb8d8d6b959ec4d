/* Rows that choose their matrix are brought into the order of matrices, where the cores multiply them group by group.
 *
 *   %y = GroupedMatMul %x, %index, %w0, %w1 : f32[r,n]
 * becomes
 *   %from, %sorted, %ends, %place = GroupOrder %index {groups=2}
 *   %z = GroupedMatMul (Gather %x, %from), %sorted, %w0, %w1, %ends {sorted=1}
 *   %y = Gather %z, %place
 *
 * Bits stand: a row is multiplied by the same matrix. Between products of the same index nothing goes back: elementwise
 * operators, casts, slices and splits of columns and rows that the index picks (a bias for each matrix) are written
 * again on sorted rows. Rows that repeat those of a smaller value (Expand of [t,1,d] to [t,k,d]) are gathered from
 * that. Requirements: (1) a target, whose cores or host take sorted rows; (2) the product is not sorted, so it
 * terminates. What is written twice and then unused dce takes. */
#include "passes/match.h"

enum { ROWS, INDEX, WEIGHTS, NBITS_ENDS = 5 };
#define MOST_DEPTH 16 /* operators between two products */

struct order {
    const struct value *index;
    int64_t groups, repeat;
    struct node *node; /* GroupOrder */
};
struct pair {
    const struct value *plain, *index;
    struct value *sorted;
};
struct sorter {
    struct pass_ctx *px;
    struct value *index; /* of the product under consideration */
    int64_t groups;
    struct builder b;
    VEC(struct order) orders;
    VEC(struct pair) known; /* values that are there in both orders */
};
enum { FROM, SORTED, ENDS, PLACE };

/* Output `out` of the order of the index; FROM counts rows that repeat so often as one. It stands behind the index. */
static struct value *order_of(struct sorter *s, int64_t repeat, int out)
{
    for (int64_t i = 0; i < s->orders.len; i++) {
        const struct order *o = &s->orders.data[i];
        if (o->index == s->index && o->groups == s->groups && (o->repeat == repeat || out != FROM))
            return &o->node->out[out];
    }
    struct builder b = s->b;
    b.before = s->index->def ? s->index->def->next : b.graph->first;
    struct order o = {s->index, s->groups, repeat, ir_new(&b, OP_GroupOrder, 1, &s->index, 4)};
    ir_set_int(o.node, "groups", s->groups);
    ir_set_int(o.node, "repeat", repeat);
    if (ir_infer(o.node) != NPUC_OK)
        return NULL;
    vec_push(&s->px->arena, &s->orders, o);
    return &o.node->out[out];
}

static struct value *find(const struct sorter *s, const struct value *plain)
{
    for (int64_t i = 0; i < s->known.len; i++)
        if (s->known.data[i].plain == plain && s->known.data[i].index == s->index)
            return s->known.data[i].sorted;
    return NULL;
}

static struct value *learn(struct sorter *s, const struct value *plain, struct value *sorted)
{
    if (sorted)
        vec_push(&s->px->arena, &s->known, ((struct pair){plain, s->index, sorted}));
    return sorted;
}

static bool is_rows(const struct sorter *s, const struct value *v)
{
    return v->type->kind == TYPE_TENSOR && v->type->rank == 2 && v->type->dims[0] == s->index->type->dims[0];
}

/* The same for all rows. */
static bool is_common(const struct sorter *s, const struct value *v)
{
    return v->type->kind == TYPE_TENSOR && v->type->rank >= 0 &&
           (v->type->rank < 2 || (v->type->rank == 2 && expr_is_one(&s->px->cx->exprs, v->type->dims[0])));
}

/* Does it cut columns, along one axis that is known? */
static bool cuts_columns(const struct node *n)
{
    int64_t axis = node_attr_int(n, "axis", 0);
    if (n->op != OP_Split && !match_int(node_in(n, 3), &axis))
        return false;
    return axis == 1 || axis == -1;
}

/* The operands of n that have a row for each row of its results; 0: it is no operator on rows. */
static int row_operands(const struct node *n)
{
    if (n->op == OP_Slice || n->op == OP_Split)
        return cuts_columns(n) ? 1 : 0;
    return op_has((enum op)n->op, T_ELEMENTWISE) || n->op == OP_Cast ? n->n_in : 0;
}

/* Is v made of sorted rows by operators on rows? */
static bool derives(const struct sorter *s, const struct value *v, int depth)
{
    if (find(s, v))
        return true;
    if (!v->def || !is_rows(s, v) || depth == MOST_DEPTH)
        return false;
    bool some = false;
    for (int i = 0; i < row_operands(v->def); i++) {
        const struct value *x = node_in(v->def, i);
        if (!x || (!is_rows(s, x) && !is_common(s, x)))
            return false;
        some = some || (is_rows(s, x) && derives(s, x, depth + 1));
    }
    return some;
}

/* x where v repeats each of its rows `*times` times. */
static struct value *repeated(struct value *v, int64_t *times)
{
    const struct node *flat = match_def(v, OP_Reshape), *wide = flat ? match_def(node_in(flat, 0), OP_Expand) : NULL,
                      *deep = wide ? match_def(node_in(wide, 0), OP_Unsqueeze) : NULL;
    struct value *x = deep ? node_in(deep, 0) : NULL;
    const struct expr_pool *pool = &v->graph->module->cx->exprs;
    if (!x || x->type->rank != 2 || node_in(wide, 0)->type->rank != 3 || wide->out[0].type->rank != 3)
        return NULL;
    const expr *d = wide->out[0].type->dims, *e = node_in(wide, 0)->type->dims;
    const bool same =
        d[0] == x->type->dims[0] && d[2] == x->type->dims[1] && expr_is_one(pool, e[1]) && v->type->dims[1] == d[2];
    return same && expr_is_const(pool, d[1], times) && *times > 0 && *times <= 65536 ? x : NULL;
}

static struct value *gathered(struct sorter *s, struct value *v)
{
    struct node *n = v->def;
    int64_t times = 1;
    if (n && n->op == OP_Gather && node_in(n, 1) == s->index && node_attr_int(n, "axis", 0) == 0)
        return ir_op2(&s->b, OP_Gather, node_in(n, 0), order_of(s, 1, SORTED));
    struct value *x = repeated(v, &times);
    return ir_op2(&s->b, OP_Gather, x ? x : v, order_of(s, x ? times : 1, FROM));
}

/* The rows of v in the order of matrices. */
static struct value *sorted_of(struct sorter *s, struct value *v)
{
    struct value *have = find(s, v);
    if (have || !is_rows(s, v))
        return have ? have : v;
    if (!derives(s, v, 0))
        return learn(s, v, gathered(s, v));
    const struct node *n = v->def;
    struct value **in = ARENA_ARRAY(&s->px->arena, struct value *, n->n_in);
    for (int i = 0; i < n->n_in; i++) {
        in[i] = i < row_operands(n) ? sorted_of(s, node_in(n, i)) : node_in(n, i);
        if (!in[i] && node_in(n, i))
            return NULL;
    }
    struct node *made = ir_new(&s->b, (enum op)n->op, n->n_in, in, n->n_out);
    ir_copy_attrs(made, n);
    if (ir_infer(made) != NPUC_OK)
        return NULL;
    for (int i = 0; i < n->n_out; i++)
        learn(s, &n->out[i], &made->out[i]);
    return find(s, v);
}

static enum npuc_status sort_rows(struct sorter *s, struct node *n)
{
    const int last = n->op == OP_GroupedMatMul ? n->n_in : NBITS_ENDS;
    struct value **in = ARENA_ARRAY(&s->px->arena, struct value *, last + 1);
    for (int i = WEIGHTS; i < last; i++)
        in[i] = node_in(n, i);
    in[ROWS] = sorted_of(s, node_in(n, ROWS));
    in[INDEX] = order_of(s, 1, SORTED);
    in[last] = order_of(s, 1, ENDS);
    if (!in[ROWS] || !in[INDEX] || !in[last])
        return NPUC_E_INTERNAL;
    struct node *made = ir_new(&s->b, (enum op)n->op, last + 1, in, 1);
    ir_copy_attrs(made, n);
    ir_set_int(made, "sorted", 1);
    if (ir_infer(made) != NPUC_OK)
        return NPUC_E_INTERNAL;
    struct value *back = ir_op2(&s->b, OP_Gather, &made->out[0], order_of(s, 1, PLACE));
    if (!back)
        return NPUC_E_INTERNAL;
    learn(s, back, &made->out[0]);
    ir_replace_all(&n->out[0], back);
    ir_erase(n);
    pass_count(s->px, STAT_sort_groups_sorted, 1);
    return NPUC_OK;
}

/* How many matrices there are, -1 when that is not known. */
static int64_t groups_of(struct ir_ctx *cx, const struct node *n)
{
    const struct type *w = node_in(n, WEIGHTS)->type;
    int64_t groups = n->n_in - WEIGHTS;
    const bool one = n->op == OP_GroupedMatMulNBits || w->rank == 3; /* tensor for all */
    return one && !expr_is_const(&cx->exprs, w->dims[0], &groups) ? -1 : groups;
}

enum npuc_status sort_groups(struct pass_ctx *px, struct graph *g)
{
    struct sorter s = {.px = px};
    if (!px->target)
        return NPUC_OK;
    for_each_node_safe(n, g)
    {
        if ((n->op != OP_GroupedMatMul && n->op != OP_GroupedMatMulNBits) || node_attr_int(n, "sorted", 0) != 0 ||
            node_in(n, ROWS)->type->rank != 2 || node_in(n, INDEX)->type->rank != 1)
            continue;
        s.index = node_in(n, INDEX);
        s.groups = groups_of(px->cx, n);
        s.b = ir_at(n);
        if (s.groups < 1 || s.groups > 65536 || s.index->type->dims[0] != node_in(n, ROWS)->type->dims[0] ||
            !ir_may_rewrite(px->cx))
            continue;
        const enum npuc_status st = sort_rows(&s, n);
        if (st != NPUC_OK)
            return st;
    }
    return NPUC_OK;
}
