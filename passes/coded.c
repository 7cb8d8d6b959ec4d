#include "passes/coded.h"

#include "passes/match.h"

static bool is_one(const struct ir_ctx *cx, const struct value *v)
{
    return type_const_count(cx, v->type) == 1;
}

static bool read_dequantize(const struct node *dq, coded_type_fn *takes, struct coded_side *s)
{
    if (!dq)
        return false;
    s->q = node_in(dq, 0);
    s->scale = node_in(dq, 1);
    s->zero = node_in(dq, 2);
    return s->q->type->kind == TYPE_TENSOR && s->q->type->rank >= 2 && takes(s->q->type->dtype) &&
           dtype_is_float(s->scale->type->dtype) && s->scale->type->dtype != DT_F8E8M0;
}

/* Left operand: one scale, or one per row. */
static bool read_left(struct ir_ctx *cx, const struct value *v, bool conv, coded_type_fn *takes, struct coded_side *s)
{
    const struct node *dq = match_def(v, OP_DequantizeLinear);
    *s = (struct coded_side){0};
    if (!read_dequantize(dq, takes, s) || dtype_table[s->q->type->dtype].bits != 8)
        return false;
    if (is_one(cx, s->scale))
        return true;
    const int last = s->q->type->rank - 1;
    int64_t k, axis = node_attr_int(dq, "axis", 1);
    s->rows = expr_is_const(&cx->exprs, s->q->type->dims[last], &k) && node_attr_int(dq, "block_size", 0) >= k &&
              (axis < 0 ? axis + last + 1 : axis) == last && s->scale->type->rank == last + 1 &&
              s->scale->type->dims[last] == expr_const(&cx->exprs, 1);
    return s->rows && !conv && !s->zero;
}

bool coded_left(struct ir_ctx *cx, const struct value *v, coded_type_fn *takes, struct coded_side *s)
{
    return read_left(cx, v, false, takes, s);
}

/* Right operand: constant codes, one scale or one per output channel, the axis `channels` of the operand. */
static bool read_right(const struct ir_ctx *cx, struct value *v, bool conv, coded_type_fn *takes, struct coded_side *s)
{
    const struct node *t;
    while (!conv && v->type->rank == 2 && (t = match_def(v, OP_Transpose))) {
        const struct attr *perm = node_attr(t, "perm");
        s->turned = s->turned != (!perm || perm->v.ints[0] == 1);
        v = node_in(t, 0);
    }
    const struct node *dq = match_def(v, OP_DequantizeLinear);
    if (!read_dequantize(dq, takes, s) || !value_const(s->q) || (conv ? s->q->type->rank < 3 : s->q->type->rank != 2))
        return false;
    const int64_t axis = node_attr_int(dq, "axis", 1), rank = s->q->type->rank;
    const int64_t channels = conv || s->turned ? 0 : 1;
    return is_one(cx, s->scale) || (node_attr_int(dq, "block_size", 0) == 0 && s->scale->type->rank == 1 &&
                                    (axis < 0 ? axis + rank : axis) == channels);
}

bool coded_match(struct ir_ctx *cx, const struct node *n, coded_type_fn *takes, struct coded_product *p)
{
    const bool gemm = n->op == OP_Gemm;
    p->conv = n->op == OP_Conv;
    if (n->op != OP_MatMul && n->op != OP_FusedMatMul && !gemm && !p->conv)
        return false;
    if (node_attr_int(n, "transA", 0) || node_attr_int(n, "transBatchA", 0) || node_attr_int(n, "transBatchB", 0) ||
        node_attr_float(n, "alpha", 1) != 1 || (gemm && node_in(n, 2) && node_attr_float(n, "beta", 1) != 1))
        return false;
    p->w = (struct coded_side){.turned = node_attr_int(n, "transB", 0) != 0};
    return read_left(cx, node_in(n, 0), p->conv, takes, &p->x) && read_right(cx, node_in(n, 1), p->conv, takes, &p->w);
}

/* [channels][1].. along the channels of a result of that rank; one element stays. */
static struct value *along(struct builder *b, const struct coded_product *p, struct value *v, int rank)
{
    expr dims[IR_MAX_RANK];
    v = v ? ir_cast(b, v, DT_F32) : NULL;
    if (!v || !p->conv || is_one(b->cx, v))
        return v;
    dims[0] = v->type->dims[v->type->rank - 1];
    for (int i = 1; i < rank - 1; i++)
        dims[i] = expr_const(&b->cx->exprs, 1);
    return ir_reshape(b, v, rank - 1, dims);
}

static struct value *scaled(struct builder *b, const struct coded_product *p, struct value *sum)
{
    const int rank = sum->type->rank;
    struct value *y = ir_cast(b, sum, DT_F32), *sx = p->x.scale, *sw = along(b, p, p->w.scale, rank);
    sx = ir_cast(b, sx, DT_F32);
    if (!y || !sx || !sw)
        return NULL;
    const bool computed = !value_const(p->x.scale);
    if (sx->type->rank > (computed ? rank : 0))
        sx = ir_reshape(b, sx, 0, NULL);
    if (computed) {
        y = ir_op2(b, OP_Mul, y, sw);
        return y && sx ? ir_op2(b, OP_Mul, y, sx) : NULL;
    }
    struct value *s = sx ? ir_op2(b, OP_Mul, sx, sw) : NULL;
    return s ? ir_op2(b, OP_Mul, y, s) : NULL;
}

struct value *coded_result(struct builder *b, const struct node *n, const struct coded_product *p, struct value *sum)
{
    struct value *bias = n->op == OP_Gemm || n->op == OP_Conv ? node_in(n, 2) : NULL, *y = scaled(b, p, sum);
    if (y && bias)
        y = ir_op2(b, OP_Add, y, along(b, p, bias, y->type->rank));
    return y ? ir_cast(b, y, n->out[0].type->dtype) : NULL;
}
