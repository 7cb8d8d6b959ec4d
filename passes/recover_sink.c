/* A softmax over scores and one more column that is then cut off is one with a sink.
 *
 *   %c = Concat %s, (Expand %sink);  %d = Sub %c, (ReduceMax %c);  %p = Softmax %d;  %y = Slice %p, without the last
 * column becomes %m = Max (ReduceMax %s), %sink;  %e = Exp (Sub %s, %m);  %y = Div %e, (Add (ReduceSum %e), (Exp (Sub
 * %sink, %m)))
 *
 * the steps that attention operators with a sink are lowered to, which fuse_attention takes into its kernel.
 * Requirements: (1) along the last axis; (2) the cut leaves what the scores were; (3) a Softmax goes, so it terminates;
 * (4) results differ in the last bits: the exponents are those of the scores, not of differences that were rounded
 * before. */
#include "passes/match.h"

struct sunk {
    struct value *scores, *sink;
};

static bool is_last(const struct node *n, const char *attr, int64_t otherwise, int rank)
{
    const int64_t axis = node_attr_int(n, attr, otherwise);
    return axis == -1 || axis == rank - 1;
}

/* Slice from 0 along the last axis, step 1. */
static bool cuts_end(const struct node *n)
{
    const int rank = n->out[0].type->rank;
    const struct value *operand[] = {node_in(n, 1), n->n_in > 3 ? node_in(n, 3) : NULL,
                                     n->n_in > 4 ? node_in(n, 4) : NULL};
    int64_t v[3] = {0, 0, 1};
    for (int i = 0; i < 3; i++)
        if (operand[i] && !match_int(operand[i], &v[i]))
            return false;
    return v[0] == 0 && (v[1] == -1 || v[1] == rank - 1) && v[2] == 1;
}

/* The joined scores behind x, which may have its own maximum taken off. */
static const struct node *joined(struct value *x)
{
    const struct node *sub = match_def(x, OP_Sub);
    const struct node *max = sub ? match_def(node_in(sub, 1), OP_ReduceMax) : NULL;
    int64_t axis;
    if (max && node_in(max, 0) == node_in(sub, 0) && node_attr_int(max, "keepdims", 1) == 1 && max->n_in > 1 &&
        match_int(node_in(max, 1), &axis) && (axis == -1 || axis == x->type->rank - 1))
        x = node_in(sub, 0);
    const struct node *cat = match_def(x, OP_Concat);
    return cat && cat->n_in == 2 && is_last(cat, "axis", 0, x->type->rank) ? cat : NULL;
}

static bool match(struct ir_ctx *cx, const struct node *n, struct sunk *found)
{
    const struct node *softmax = n->op == OP_Slice ? match_def(node_in(n, 0), OP_Softmax) : NULL;
    if (!softmax || softmax->out[0].type->rank < 1 || softmax->out[0].type->dtype != DT_F32 ||
        !is_last(softmax, "axis", -1, softmax->out[0].type->rank) || !cuts_end(n))
        return false;
    const struct node *cat = joined(node_in(softmax, 0));
    int64_t columns;
    if (!cat)
        return false;
    found->scores = node_in(cat, 0);
    found->sink = node_in(cat, 1);
    const struct type *t = found->sink->type;
    if (found->scores->type != n->out[0].type || !expr_is_const(&cx->exprs, t->dims[t->rank - 1], &columns) ||
        columns != 1)
        return false;
    const struct node *expand = match_def(found->sink, OP_Expand);
    if (expand && node_in(expand, 0)->type->rank == t->rank)
        found->sink = node_in(expand, 0);
    return true;
}

static struct value *row_reduce(struct builder *b, enum op op, struct value *x)
{
    const int64_t last = -1;
    return ir_op2(b, op, x, ir_const_i64(b, &last, 1));
}

enum npuc_status recover_sink(struct pass_ctx *px, struct graph *g)
{
    for_each_node_safe(n, g)
    {
        struct sunk found;
        if (!match(px->cx, n, &found) || !ir_may_rewrite(px->cx))
            continue;
        struct builder b = ir_at(n);
        struct value *max = ir_op2(&b, OP_Max, row_reduce(&b, OP_ReduceMax, found.scores), found.sink);
        struct value *e = ir_op1(&b, OP_Exp, ir_op2(&b, OP_Sub, found.scores, max));
        struct value *sum = row_reduce(&b, OP_ReduceSum, e),
                     *add = ir_op1(&b, OP_Exp, ir_op2(&b, OP_Sub, found.sink, max));
        struct value *y = ir_op2(&b, OP_Div, e, ir_op2(&b, OP_Add, sum, add));
        if (!y)
            return NPUC_E_INTERNAL;
        ir_replace_all(&n->out[0], y);
        ir_erase(n);
        pass_count(px, STAT_recover_sink_recovered, 1);
    }
    return NPUC_OK;
}
