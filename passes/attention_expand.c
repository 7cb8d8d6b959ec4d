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

static struct value *row_reduce(struct builder *b, enum op op, struct value *x)
{
    const int64_t last = -1;
    struct value *in[2] = {x, ir_const_i64(b, &last, 1)};
    struct node *n = ir_new(b, op, 2, in, 1);
    return ir_infer(n) == NPUC_OK ? &n->out[0] : NULL;
}

static struct value *scores(const struct attention *a, expr grouped_rows)
{
    struct builder *b = a->b;
    const struct type *q = a->q->type, *k = a->k->type;
    const expr packed[4] = {q->dims[0], k->dims[1], grouped_rows, q->dims[3]};
    struct value *s = product(b, value_dims(b, a->q, 4, packed), a->k, true);
    if (!s)
        return NULL;
    const expr full[4] = {q->dims[0], q->dims[1], q->dims[2], k->dims[2]};
    s = ir_cast(b, value_dims(b, s, 4, full), DT_F32);
    if (a->scale != 1.0f)
        s = ir_op2(b, OP_Mul, s, ir_scalar_f32(b, a->scale));
    if (a->softcap > 0) {
        s = ir_op1(b, OP_Tanh, ir_op2(b, OP_Div, s, ir_scalar_f32(b, a->softcap)));
        s = ir_op2(b, OP_Mul, s, ir_scalar_f32(b, a->softcap));
    }
    if (a->bias)
        s = ir_op2(b, OP_Add, s, ir_cast(b, a->bias, DT_F32));
    return a->keep ? ir_op3(b, OP_Where, a->keep, s, ir_scalar_f32(b, -INFINITY)) : s;
}

/* Where a row may be masked out entirely, its maximum is replaced by 0 and its sum by 1: exp gives zeros. */
static struct value *probabilities(const struct attention *a, struct value *s)
{
    struct builder *b = a->b;
    struct value *max = row_reduce(b, OP_ReduceMax, s);
    if (a->sink)
        max = ir_op2(b, OP_Max, max, a->sink);
    bool guarded = (a->keep || a->bias) && !a->sink;
    struct value *empty = guarded ? ir_op2(b, OP_Equal, max, ir_scalar_f32(b, -INFINITY)) : NULL;
    if (guarded)
        max = ir_op3(b, OP_Where, empty, ir_scalar_f32(b, 0.0f), max);
    struct value *e = ir_op1(b, OP_Exp, ir_op2(b, OP_Sub, s, max));
    struct value *sum = row_reduce(b, OP_ReduceSum, e);
    if (a->sink)
        sum = ir_op2(b, OP_Add, sum, ir_op1(b, OP_Exp, ir_op2(b, OP_Sub, a->sink, max)));
    if (guarded)
        sum = ir_op3(b, OP_Where, empty, ir_scalar_f32(b, 1.0f), sum);
    return ir_op2(b, OP_Div, e, sum);
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
    struct value *weights = ir_cast(b, probabilities(a, s), a->v->type->dtype);
    const expr packed[4] = {q->dims[0], k->dims[1], rows, k->dims[2]};
    struct value *y = product(b, value_dims(b, weights, 4, packed), a->v, false);
    if (!y)
        return NULL;
    const expr full[4] = {q->dims[0], q->dims[1], q->dims[2], v->dims[3]};
    return value_dims(b, y, 4, full);
}
