/* Products of two operands that are dequantised multiply the codes instead: QDQ models, and what apply_recipe writes.
 *
 *   %y = MatMul (DequantizeLinear %q, %s, %z), (DequantizeLinear %w, %sw) : f32       (%w, %sw constant)
 * becomes
 *   %y = Mul (Cast (MatMulInteger %q, %w, %z) : f32), (Mul %s, %sw)
 * and Gemm, Conv the same, with the bias added behind. A scale that is computed, of all of %q or per row of it
 * (block_size = k), is multiplied last: the constant ones belong to the way out of the matrix unit. So it is with
 * products of integers that the model has:
 *
 *   %y = Mul (Cast (MatMulInteger %q, %w, %z) : f32), (Mul %s, %sw)                        (%s computed, one element)
 * becomes
 *   %y = Mul (Mul (Cast (MatMulInteger ..) : f32), %sw), %s
 *
 * Requirements: (1) codes of 8 bits or less on both sides, the weight's scales are one or one per output channel, the
 * others one or one per row; (2) the sum is exact, so that only its scaling rounds: the result differs from that of the
 * dequantised operands by rounding alone, and not at all under --strict, where nothing is done; (3) the target
 * multiplies bytes; (4) runs before folding, which would dequantise the weights, and before lower_integer, which knows
 * zero points; (5) what is made is no MatMul, Gemm or Conv, so it terminates. Left alone: scales in blocks along k
 * (recover_quant keeps such weights packed), transposed left operands, factors of a Gemm, transposed convolutions. */
#include "passes/match.h"

/* One operand: its DequantizeLinear and what stands between it and the product. */
struct side {
    struct value *q, *scale, *zero;
    bool turned; /* a rank 2 operand whose axes are exchanged */
    bool rows;   /* a scale per row */
};

static bool is_code(const struct value *v)
{
    return v->type->kind == TYPE_TENSOR && v->type->rank >= 2 && dtype_is_integer(v->type->dtype) &&
           dtype_table[v->type->dtype].bits <= 8;
}

static bool is_one(const struct ir_ctx *cx, const struct value *v)
{
    return type_const_count(cx, v->type) == 1;
}

static bool read_dequantize(const struct node *dq, struct side *s)
{
    if (!dq)
        return false;
    s->q = node_in(dq, 0);
    s->scale = node_in(dq, 1);
    s->zero = node_in(dq, 2);
    return is_code(s->q) && dtype_is_float(s->scale->type->dtype);
}

/* Left operand: one scale, or one per row. */
static bool read_left(struct ir_ctx *cx, const struct value *v, bool conv, struct side *s)
{
    const struct node *dq = match_def(v, OP_DequantizeLinear);
    *s = (struct side){0};
    if (!read_dequantize(dq, s) || dtype_table[s->q->type->dtype].bits != 8)
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

/* Right operand: constant codes, one scale or one per output channel, the axis `channels` of the operand. */
static bool read_right(const struct ir_ctx *cx, struct value *v, bool trans, bool conv, struct side *s)
{
    const struct node *t;
    *s = (struct side){.turned = trans};
    while (!conv && v->type->rank == 2 && (t = match_def(v, OP_Transpose))) {
        const struct attr *perm = node_attr(t, "perm");
        s->turned = s->turned != (!perm || perm->v.ints[0] == 1);
        v = node_in(t, 0);
    }
    const struct node *dq = match_def(v, OP_DequantizeLinear);
    if (!read_dequantize(dq, s) || !value_const(s->q) || (conv ? s->q->type->rank < 3 : s->q->type->rank != 2))
        return false;
    const int64_t axis = node_attr_int(dq, "axis", 1), rank = s->q->type->rank;
    const int64_t channels = conv || s->turned ? 0 : 1;
    return is_one(cx, s->scale) || (node_attr_int(dq, "block_size", 0) == 0 && s->scale->type->rank == 1 &&
                                    (axis < 0 ? axis + rank : axis) == channels);
}

struct product {
    struct side x, w;
    bool conv;
};

static bool match(struct ir_ctx *cx, const struct node *n, struct product *p)
{
    const bool gemm = n->op == OP_Gemm;
    p->conv = n->op == OP_Conv;
    if (n->op != OP_MatMul && n->op != OP_FusedMatMul && !gemm && !p->conv)
        return false;
    if (node_attr_int(n, "transA", 0) || node_attr_int(n, "transBatchA", 0) || node_attr_int(n, "transBatchB", 0) ||
        node_attr_float(n, "alpha", 1) != 1 || (gemm && node_in(n, 2) && node_attr_float(n, "beta", 1) != 1))
        return false;
    return read_left(cx, node_in(n, 0), p->conv, &p->x) &&
           read_right(cx, node_in(n, 1), node_attr_int(n, "transB", 0) != 0, p->conv, &p->w);
}

/* ---- */

/* Bytes: narrower codes are widened, which is folded. */
static struct value *as_bytes(struct builder *b, struct value *v)
{
    const enum dtype t = v ? v->type->dtype : DT_NONE;
    return v && dtype_table[t].bits < 8 ? ir_cast(b, v, dtype_table[t].cls == DTC_INT ? DT_I8 : DT_U8) : v;
}

/* [channels][1].. along the channels of a result of that rank; one element stays. */
static struct value *along(struct builder *b, const struct product *p, struct value *v, int rank)
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

static struct value *integer_sum(struct builder *b, const struct node *n, const struct product *p)
{
    static const int64_t exchanged[2] = {1, 0};
    struct value *w = as_bytes(b, p->w.q);
    w = w && p->w.turned ? ir_transpose(b, w, exchanged) : w;
    struct value *const in[4] = {p->x.q, w, p->x.zero, as_bytes(b, p->w.zero)};
    if (!w)
        return NULL;
    struct node *s = ir_new(b, p->conv ? OP_ConvInteger : OP_MatMulInteger, in[3] ? 4 : in[2] ? 3 : 2, in, 1);
    ir_copy_attrs(s, n);
    return ir_infer(s) == NPUC_OK ? &s->out[0] : NULL;
}

static struct value *scaled(struct builder *b, const struct product *p, struct value *sum)
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

static enum npuc_status rewrite(struct pass_ctx *px, struct node *n, const struct product *p)
{
    struct builder b = ir_at(n);
    struct value *bias = n->op == OP_Gemm || n->op == OP_Conv ? node_in(n, 2) : NULL, *sum = integer_sum(&b, n, p);
    struct value *y = sum ? scaled(&b, p, sum) : NULL;
    if (y && bias)
        y = ir_op2(&b, OP_Add, y, along(&b, p, bias, y->type->rank));
    y = y ? ir_cast(&b, y, n->out[0].type->dtype) : NULL;
    if (!y || !y->def)
        return pass_failure(px);
    pass_count(px, STAT_recover_integer_absorbed, match_replace(px, n, y->def));
    pass_count(px, STAT_recover_integer_recovered, 1);
    return NPUC_OK;
}

/* ---- products of integers that the model has */

static bool is_integer_sum(const struct value *v)
{
    const struct node *cast = match_def(v, OP_Cast), *n = cast ? node_in(cast, 0)->def : NULL;
    return n && (n->op == OP_MatMulInteger || n->op == OP_ConvInteger) && v->type->dtype == DT_F32;
}

/* y = Mul sum, (Mul computed, constant): which operand of y the sum is; -1: it is something else. */
static int match_scaled_sum(const struct ir_ctx *cx, const struct node *y, struct value **constant,
                            struct value **computed)
{
    for (int i = 0; i < 2; i++) {
        const struct node *s = match_def(node_in(y, 1 - i), OP_Mul);
        if (!s || !is_integer_sum(node_in(y, i)))
            continue;
        const int c = value_const(node_in(s, 0)) ? 0 : 1;
        *constant = node_in(s, c);
        *computed = node_in(s, 1 - c);
        return value_const(*constant) && !value_const(*computed) && is_one(cx, *computed) ? i : -1;
    }
    return -1;
}

static enum npuc_status regroup(struct pass_ctx *px, struct node *y)
{
    struct value *constant, *computed;
    const int at = match_scaled_sum(px->cx, y, &constant, &computed);
    if (at < 0 || !ir_may_rewrite(px->cx))
        return NPUC_OK;
    struct builder b = ir_at(y);
    struct value *v = ir_op2(&b, OP_Mul, node_in(y, at), constant);
    v = v ? ir_op2(&b, OP_Mul, v, computed) : NULL;
    if (!v || !v->def)
        return pass_failure(px);
    if (v->type != y->out[0].type) /* the scale has more axes than the sum */
        return NPUC_OK;
    pass_count(px, STAT_recover_integer_absorbed, match_replace(px, y, v->def));
    pass_count(px, STAT_recover_integer_regrouped, 1);
    return NPUC_OK;
}

enum npuc_status recover_integer(struct pass_ctx *px, struct graph *g)
{
    if (px->options.strict || !px->target || !px->target->has_mac[DT_I8])
        return NPUC_OK;
    for_each_node_safe(n, g)
    {
        struct product p;
        enum npuc_status s = NPUC_OK;
        if (n->op == OP_Mul)
            s = regroup(px, n);
        else if (match(px->cx, n, &p) && ir_may_rewrite(px->cx))
            s = rewrite(px, n, &p);
        if (s != NPUC_OK)
            return s;
    }
    return NPUC_OK;
}
