/* Whole experts on different devices (expert parallel): the graph of one of them.
 *
 *   %from, %sorted, %ends, %place = GroupOrder %i {groups=64}
 *   %y = Gather (GroupedMatMul (Gather %x, %from), %sorted, %w, %ends {sorted=1}), %place      (%w f32[64,n,k])
 * becomes, for 8 groups of devices,
 *   %s = AllToAll (Gather %x, %from) {ranks=8}
 *   _, %own, %upto, _ = GroupOrder %sorted {groups=8}
 *   %y = Gather (AllToAll (GroupedMatMul %s, %own, %w', %upto {sorted=1, ranks=8}) {ranks=8}), %place
 *
 * with %w' an eighth of the matrices. Every group has tokens of its own; their rows go to where the expert is and come
 * back, what lies between the products stays there. A device gets as many rows as it sends: routing is even. Rows are
 * received in the order of the matrices, as the dispatch kernels of vendors leave them; the order is counted anew for
 * the time of it. Requirements: (1) weights need no bytes: the result is for times and memory, not for data; (2) the
 * number of matrices is divisible, else they stay whole on each device, with the reason; (3) ranks is set on what was
 * divided, so it terminates. */
#include "passes/shard.h"

enum { ROWS, INDEX, WEIGHTS, NBITS_ENDS = 5 };
enum { FROM, SORTED, ENDS, PLACE };

struct divided {
    const struct value *index; /* of the choice, before rows were sorted */
    int64_t groups;
    struct node *order; /* of the rows received */
};
struct experts {
    struct pass_ctx *px;
    struct division *d;
    VEC(struct divided) all;
    int64_t whole, whole_groups; /* choices that stay as they are, and among how many */
};

static bool is_grouped(const struct node *n)
{
    return (n->op == OP_GroupedMatMul || n->op == OP_GroupedMatMulNBits) && node_attr_int(n, "sorted", 0) != 0;
}

static int ends_at(const struct node *n)
{
    return n->op == OP_GroupedMatMul ? n->n_in - 1 : NBITS_ENDS;
}

/* The order whose output `out` operand i is. */
static struct node *order_of(const struct node *n, int i, int out)
{
    const struct value *v = node_in(n, i);
    return v && v->def && v->def->op == OP_GroupOrder && v == node_out(v->def, out) ? v->def : NULL;
}

static const struct divided *find(const struct experts *e, const struct node *order)
{
    for (int64_t i = 0; order && i < e->all.len; i++)
        if (e->all.data[i].index == node_in(order, 0) && e->all.data[i].groups == node_attr_int(order, "groups", 0))
            return &e->all.data[i];
    return NULL;
}

static bool has_constant_weights(const struct node *n)
{
    for (int i = WEIGHTS; i < ends_at(n); i++)
        if (node_in(n, i) && !shard_is_weight(node_in(n, i)))
            return false;
    return true;
}

/* The order of received rows stands behind the one that sorts those that are sent. */
static enum npuc_status divide_choice(struct experts *e, const struct node *product)
{
    struct node *order = order_of(product, INDEX, SORTED);
    const int64_t groups = order ? node_attr_int(order, "groups", 0) : 0;
    if (!order || find(e, order) || !has_constant_weights(product))
        return NPUC_OK;
    if (groups % e->d->expert != 0) {
        e->whole++;
        e->whole_groups = groups;
        return NPUC_OK;
    }
    struct builder b = ir_at(order->next);
    struct value *sorted = node_out(order, SORTED);
    struct divided one = {node_in(order, 0), groups, ir_new(&b, OP_GroupOrder, 1, &sorted, 4)};
    ir_set_int(one.order, "groups", groups / e->d->expert);
    vec_push(&e->px->arena, &e->all, one);
    return ir_infer(one.order);
}

/* Over the links to the devices of the other groups, for all who read v. */
static struct value *exchange(struct experts *e, struct builder *b, struct value *v)
{
    struct node *n = ir_new(b, OP_AllToAll, 1, &v, 1);
    ir_set_int(n, "ranks", e->d->expert);
    e->d->collectives++;
    pass_count(e->px, STAT_spread_experts_exchanges, 1);
    return ir_infer(n) == NPUC_OK ? &n->out[0] : NULL;
}

static enum npuc_status send(struct experts *e, struct node *gather)
{
    struct builder b = ir_at(gather->next);
    struct value *y = exchange(e, &b, &gather->out[0]);
    if (!y)
        return pass_failure(e->px);
    ir_replace_all(&gather->out[0], y);
    ir_set_input(y->def, 0, &gather->out[0]);
    return NPUC_OK;
}

static enum npuc_status bring_back(struct experts *e, struct node *gather)
{
    struct builder b = ir_at(gather);
    struct value *y = exchange(e, &b, node_in(gather, 0));
    if (!y)
        return pass_failure(e->px);
    ir_set_input(gather, 0, y);
    return NPUC_OK;
}

/* A tensor of all matrices is cut along its first axis, of several tensors the first ones are left. */
static enum npuc_status divide_weights(struct experts *e, struct node *n, const struct divided *own)
{
    struct shard s = {.px = e->px, .d = e->d};
    struct builder b = ir_at(n);
    const bool apart = n->op == OP_GroupedMatMul && node_in(n, WEIGHTS)->type->rank == 2;
    const int last = ends_at(n), kept = apart ? WEIGHTS + (last - WEIGHTS) / (int)e->d->expert : last;
    const struct cut by_matrix = {.kind = CUT_SPLIT, .axis = 0, .ways = e->d->expert, .seed = -1};
    struct value **in = ARENA_ARRAY(&e->px->arena, struct value *, last + 1);
    in[ROWS] = node_in(n, ROWS);
    in[INDEX] = node_out(own->order, SORTED);
    for (int i = WEIGHTS; i < kept; i++) {
        struct value *v = node_in(n, i);
        in[i] = apart || !v ? v : shard_weight(&s, &b, v, &by_matrix);
        if (v && !in[i])
            return pass_failure(e->px);
    }
    in[kept] = node_out(own->order, ENDS);
    struct node *made = ir_new(&b, (enum op)n->op, kept + 1, in, 1);
    ir_copy_attrs(made, n);
    ir_set_int(made, "ranks", e->d->expert);
    if (ir_infer(made) != NPUC_OK)
        return pass_failure(e->px);
    ir_replace_all(&n->out[0], &made->out[0]);
    ir_erase(n);
    e->d->spread++;
    pass_count(e->px, STAT_spread_experts_divided, 1);
    return NPUC_OK;
}

static enum npuc_status divide_node(struct experts *e, struct node *n)
{
    const struct divided *own;
    if (n->op == OP_Gather && find(e, order_of(n, 1, FROM)))
        return send(e, n);
    if (n->op == OP_Gather && find(e, order_of(n, 1, PLACE)))
        return bring_back(e, n);
    if (is_grouped(n) && (own = find(e, order_of(n, INDEX, SORTED))) && has_constant_weights(n))
        return divide_weights(e, n, own);
    return NPUC_OK;
}

static void note_whole(struct experts *e)
{
    const char *text = NULL;
    if (e->whole > 0)
        text = arena_printf(
            e->d->arena, "%lld choice%s among %lld experts, not divisible by %lld: whole on each device",
            (long long)e->whole, e->whole > 1 ? "s" : "", (long long)e->whole_groups, (long long)e->d->expert);
    else if (e->all.len == 0)
        text = "no product has rows that choose their matrix: expert parallel groups share nothing";
    if (text)
        vec_push(e->d->arena, &e->d->notes, text);
}

enum npuc_status spread_experts(struct pass_ctx *px, struct graph *g)
{
    struct experts e = {.px = px, .d = px->options.division};
    enum npuc_status st = NPUC_OK;
    if (!e.d || e.d->expert < 2 || g->owner || !ir_may_rewrite(px->cx))
        return NPUC_OK;
    for_each_node_safe(n, g)
    {
        if (st == NPUC_OK && is_grouped(n) && node_attr_int(n, "ranks", 1) == 1)
            st = divide_choice(&e, n);
    }
    for_each_node_safe(n, g)
    {
        if (st == NPUC_OK)
            st = divide_node(&e, n);
    }
    note_whole(&e);
    return st;
}
