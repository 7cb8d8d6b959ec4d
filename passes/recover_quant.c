/* Products with weights that the model dequantises become products with block-quantised weights.
 *
 *   %w = DequantizeLinear %codes, %scales {axis=0, block_size=32};  %y = MatMul %x, %w      (%codes, %scales constant)
 * becomes
 *   %y = MatMulNBits %x, %codes2, %scales2 {K=.., N=.., bits=4, block_size=32}
 *
 * with codes and scales in the order [N, K] (passes/packed.h): the weight stays as small as the model has it, and the
 * cores dequantise what they need next. Scales of one byte (f8e8m0, f8e4m3fn) stay bytes; of scales that are codes
 * times one number for the tensor, the sums are multiplied by that number.
 * Requirements: (1) codes of 2, 4, 6 or 8 bits, scales and zero points are constants, the scales of the product's type
 * or of one byte; (2) a scale serves whole blocks along K of at least 16 codes, else the same blocks cut into powers of
 * two; (3) under --strict the number for the tensor is a power of two; (4) each rewrite removes a product of float
 * weights, so it terminates; what becomes unused is left to dce. Left alone: scales along K without blocks, weights of
 * a rank other than 2, products with alpha, beta or a transposed left operand. The dequantised values are the same; for
 * f16 and bf16 their rounding is up to MatMulNBits. */
#include <math.h>

#include "passes/match.h"
#include "passes/packed.h"

static bool is_row(struct ir_ctx *cx, const struct value *c, const struct packed *w)
{
    return c->type->rank >= 1 && c->type->rank <= 2 && type_const_count(cx, c->type) == w->n &&
           c->type->dims[c->type->rank - 1] == expr_const(&cx->exprs, w->n) &&
           (value_const(c) || c->type->dtype == DT_F32);
}

/* Plain products of a [.., K] and the right operand; *trans: that one is [N, K]. */
static bool is_product(const struct node *n, bool *trans)
{
    if (n->op != OP_MatMul && n->op != OP_Gemm && n->op != OP_FusedMatMul)
        return false;
    *trans = node_attr_int(n, "transB", 0) != 0;
    return node_in(n, 0)->type->kind == TYPE_TENSOR && node_in(n, 0)->type->rank >= 2 &&
           node_attr_float(n, "alpha", 1.0f) == 1.0f && node_attr_int(n, "transA", 0) == 0 &&
           node_attr_int(n, "transBatchA", 0) == 0 && node_attr_int(n, "transBatchB", 0) == 0;
}

static bool match(struct ir_ctx *cx, const struct node *n, struct packed *w)
{
    bool trans;
    if (!is_product(n, &trans) || !packed_read(cx, node_in(n, 1), trans, w))
        return false;
    const struct value *a = node_in(n, 0), *c = n->op == OP_Gemm ? node_in(n, 2) : NULL;
    if (c && (node_attr_float(n, "beta", 1.0f) != 1.0f || !is_row(cx, c, w)))
        return false;
    return a->type->dtype == w->value_type && a->type->dims[a->type->rank - 1] == expr_const(&cx->exprs, w->k);
}

/* Factors of the sums: exact only for powers of two. */
static bool unit_is_exact(const struct pass_ctx *px, const struct packed *w)
{
    double unit;
    int exponent;
    return !w->unit || !px->options.strict ||
           (type_const_count(px->cx, w->unit->type) == 1 && value_const_f64(w->unit, 0, &unit) &&
            frexp(unit, &exponent) == 0.5);
}

/* The sums times the number for the tensor or the column, plus the bias, in f32; then of the product's type. */
static struct value *finish(struct builder *b, const struct packed *w, struct value *sums, struct value *bias)
{
    struct value *unit = ir_cast(b, w->unit, DT_F32);
    if (unit && type_const_count(b->cx, unit->type) == 1)
        unit = ir_reshape(b, unit, 0, NULL);
    struct value *v = unit ? ir_op2(b, OP_Mul, sums, unit) : NULL;
    bias = bias ? ir_cast(b, bias, DT_F32) : NULL;
    v = v && bias ? ir_op2(b, OP_Add, v, bias) : v;
    return v ? ir_cast(b, v, w->value_type) : NULL;
}

static enum npuc_status rewrite(struct pass_ctx *px, struct node *n, const struct packed *w)
{
    struct builder b = ir_at(n);
    struct value *bias = n->op == OP_Gemm ? node_in(n, 2) : NULL;
    struct node *y = packed_product(px, &b, w, node_in(n, 0), w->unit ? NULL : bias, w->unit != NULL);
    struct value *v = y && w->unit ? finish(&b, w, &y->out[0], bias) : y ? &y->out[0] : NULL;
    if (!v)
        return pass_failure(px);
    pass_count(px, STAT_recover_quant_absorbed, match_replace(px, n, v->def));
    pass_count(px, STAT_recover_quant_recovered, 1);
    return NPUC_OK;
}

enum npuc_status recover_quant(struct pass_ctx *px, struct graph *g)
{
    for_each_node_safe(n, g)
    {
        struct packed w;
        if (!match(px->cx, n, &w) || !unit_is_exact(px, &w) || !ir_may_rewrite(px->cx))
            continue;
        const enum npuc_status s = rewrite(px, n, &w);
        if (s != NPUC_OK)
            return s;
    }
    return NPUC_OK;
}
