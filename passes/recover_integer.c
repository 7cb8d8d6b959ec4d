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
#include "passes/coded.h"
#include "passes/match.h"

static bool is_code(enum dtype t)
{
    return dtype_is_integer(t) && dtype_table[t].bits <= 8;
}

/* Bytes: narrower codes are widened, which is folded. */
static struct value *as_bytes(struct builder *b, struct value *v)
{
    const enum dtype t = v ? v->type->dtype : DT_NONE;
    return v && dtype_table[t].bits < 8 ? ir_cast(b, v, dtype_table[t].cls == DTC_INT ? DT_I8 : DT_U8) : v;
}

static struct value *integer_sum(struct builder *b, const struct node *n, const struct coded_product *p)
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

static enum npuc_status rewrite(struct pass_ctx *px, struct node *n, const struct coded_product *p)
{
    struct builder b = ir_at(n);
    struct value *sum = integer_sum(&b, n, p), *y = sum ? coded_result(&b, n, p, sum) : NULL;
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
        return value_const(*constant) && !value_const(*computed) && type_const_count(cx, (*computed)->type) == 1 ? i
                                                                                                                 : -1;
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
        struct coded_product p;
        enum npuc_status s = NPUC_OK;
        if (n->op == OP_Mul)
            s = regroup(px, n);
        else if (coded_match(px->cx, n, is_code, &p) && ir_may_rewrite(px->cx))
            s = rewrite(px, n, &p);
        if (s != NPUC_OK)
            return s;
    }
    return NPUC_OK;
}
