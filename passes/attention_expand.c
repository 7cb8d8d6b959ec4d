/* Attention as matrix products around a masked softmax.
 *
 *   scores = q k^T * scale; softcap; + bias; where(keep, ., -inf)
 *   p = exp(scores - max) / sum, with rows that are masked out entirely giving zero
 *   y = p v
 *
 * Query heads that share a key head are rows of one product: q is seen as [batch, kv heads, group * rows, size], which
 * costs no data movement and no repeated keys. The steps and their order are those of the Attention kernel in kernels/,
 * so both give the same bits. */
#include <math.h>

#include "passes/attention.h"

static struct ir_ctx *ctx(const struct builder *b)
{
    return b->cx;
}

struct value *value_dims(struct builder *b, struct value *x, int rank, const expr *dims)
{
    bool same = x->type->rank == rank;
    for (int i = 0; same && i < rank; i++)
        same = x->type->dims[i] == dims[i];
    return same ? x : ir_reshape(b, x, rank, dims);
}

struct value *heads_split(struct builder *b, struct value *x, expr heads)
{
    struct expr_pool *p = &ctx(b)->exprs;
    const struct type *t = x->type;
    const expr dims[4] = {t->dims[0], t->dims[1], heads, expr_floordiv(p, t->dims[2], heads)};
    struct value *split = ir_reshape(b, x, 4, dims);
    return split ? ir_transpose(b, split, (const int64_t[]){0, 2, 1, 3}) : NULL;
}

struct value *heads_join(struct builder *b, struct value *x)
{
    struct expr_pool *p = &ctx(b)->exprs;
    struct value *t = ir_transpose(b, x, (const int64_t[]){0, 2, 1, 3});
    if (!t)
        return NULL;
    const expr dims[3] = {t->type->dims[0], t->type->dims[1], expr_mul(p, t->type->dims[2], t->type->dims[3])};
    return ir_reshape(b, t, 3, dims);
}

struct value *positions(struct builder *b, expr rows)
{
    struct expr_pool *p = &ctx(b)->exprs;
    const expr zero = expr_const(p, 0), one = expr_const(p, 1);
    return ir_op3(b, OP_Range, ir_sizes(b, &zero, 1, true), ir_sizes(b, &rows, 1, true), ir_sizes(b, &one, 1, true));
}

static struct value *product(struct builder *b, struct value *x, struct value *y, bool transpose_y)
{
    struct value *in[2] = {x, y};
    struct node *n = ir_new(b, transpose_y ? OP_FusedMatMul : OP_MatMul, 2, in, 1);
    if (transpose_y)
        ir_set_int(n, "transB", 1);
    return ir_infer(n) == NPUC_OK ? &n->out[0] : NULL;
}

static struct value *axis_reduce(struct builder *b, enum op op, struct value *x, int64_t axis)
{
    struct value *in[2] = {x, ir_const_i64(b, &axis, 1)};
    struct node *n = ir_new(b, op, 2, in, 1);
    return ir_infer(n) == NPUC_OK ? &n->out[0] : NULL;
}

static struct value *row_reduce(struct builder *b, enum op op, struct value *x)
{
    return axis_reduce(b, op, x, -1);
}

static struct value *times(struct builder *b, struct value *x, double factor)
{
    return factor == 1.0 ? x : ir_op2(b, OP_Mul, x, ir_scalar_like(b, x, factor));
}

/* Remembers a value that the operator may give as a result of its own. */
static void note(const struct attention *a, int stage, struct value *v)
{
    if (a->stage)
        a->stage[stage] = v;
}

static struct value *scores(const struct attention *a, expr grouped_rows)
{
    struct builder *b = a->b;
    const struct type *q = a->q->type, *k = a->k->type;
    const expr packed[4] = {q->dims[0], k->dims[1], grouped_rows, q->dims[3]};
    const double each = a->split_scale ? sqrt(a->scale) : 1.0;
    struct value *left = value_dims(b, times(b, a->q, each), 4, packed);
    struct value *s = product(b, left, times(b, a->k, each), true);
    if (!s)
        return NULL;
    const expr full[4] = {q->dims[0], q->dims[1], q->dims[2], k->dims[2]};
    s = ir_cast(b, value_dims(b, s, 4, full), a->score);
    s = times(b, s, a->split_scale ? 1.0 : (double)a->scale);
    note(a, 0, s);
    if (a->softcap > 0) {
        s = ir_op1(b, OP_Tanh, ir_op2(b, OP_Div, s, ir_scalar_like(b, s, a->softcap)));
        s = times(b, s, a->softcap);
    }
    note(a, 1, s);
    if (a->bias)
        s = ir_op2(b, OP_Add, s, ir_cast(b, a->bias, a->score));
    s = a->keep ? ir_op3(b, OP_Where, a->keep, s, ir_scalar_like(b, s, -INFINITY)) : s;
    note(a, 2, s);
    return ir_cast(b, s, a->soft);
}

/* Where a row may be masked out entirely, its maximum is replaced by 0 and its sum by 1: exp gives zeros. */
static struct value *probabilities(const struct attention *a, struct value *s)
{
    struct builder *b = a->b;
    struct value *max = row_reduce(b, OP_ReduceMax, s);
    if (a->sink)
        max = ir_op2(b, OP_Max, max, a->sink);
    bool guarded = (a->keep || a->bias) && !a->sink;
    struct value *empty = guarded ? ir_op2(b, OP_Equal, max, ir_scalar_like(b, max, -INFINITY)) : NULL;
    if (guarded)
        max = ir_op3(b, OP_Where, empty, ir_scalar_like(b, max, 0), max);
    struct value *e = ir_op1(b, OP_Exp, ir_op2(b, OP_Sub, s, max));
    struct value *sum = row_reduce(b, OP_ReduceSum, e);
    if (a->sink)
        sum = ir_op2(b, OP_Add, sum, ir_op1(b, OP_Exp, ir_op2(b, OP_Sub, a->sink, max)));
    if (guarded)
        sum = ir_op3(b, OP_Where, empty, ir_scalar_like(b, sum, 1), sum);
    return ir_op2(b, OP_Div, e, sum);
}

struct value *softmax_steps(struct builder *b, struct value *x, int64_t axis)
{
    struct value *e = ir_op1(b, OP_Exp, ir_op2(b, OP_Sub, x, axis_reduce(b, OP_ReduceMax, x, axis)));
    return ir_op2(b, OP_Div, e, axis_reduce(b, OP_ReduceSum, e, axis));
}

struct value *attention_expand(const struct attention *a)
{
    struct builder *b = a->b;
    struct expr_pool *p = &ctx(b)->exprs;
    const struct type *q = a->q->type, *k = a->k->type, *v = a->v->type;
    expr group = expr_floordiv(p, q->dims[1], k->dims[1]), rows = expr_mul(p, group, q->dims[2]);
    struct value *s = scores(a, rows);
    if (!s)
        return NULL;
    struct value *weights = probabilities(a, s);
    note(a, 3, weights);
    weights = weights ? ir_cast(b, weights, a->v->type->dtype) : NULL;
    if (!weights)
        return NULL;
    const expr packed[4] = {q->dims[0], k->dims[1], rows, k->dims[2]};
    struct value *y = product(b, value_dims(b, weights, 4, packed), a->v, false);
    if (!y)
        return NULL;
    const expr full[4] = {q->dims[0], q->dims[1], q->dims[2], v->dims[3]};
    return value_dims(b, y, 4, full);
}
