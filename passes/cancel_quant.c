/* Codes that are dequantised and quantised again in the same way, with nothing but a movement between, are moved as
 * they are: exporters of QDQ models put a pair around every operator.
 *
 *   %q2 = QuantizeLinear (Reshape (DequantizeLinear %q, %s, %z)), %s, %z
 * becomes
 *   %q2 = Reshape %q
 * and Flatten, Transpose, Squeeze, Unsqueeze, Identity the same, or none of them.
 *
 * Requirements: (1) one scale, a constant, and zero points that are equal; codes of 8 bits and f32 between them, so
 * that (q - z) * s / s rounds to q - z: s neither so small that products lose bits nor so large that they overflow; (2)
 * runs before recover_integer, which then sees the codes; (3) it removes a QuantizeLinear, so it terminates. What
 * becomes unused is left to dce. */
#include <float.h>

#include "passes/match.h"

static bool is_movement(const struct node *n)
{
    return n->op == OP_Reshape || n->op == OP_Flatten || n->op == OP_Transpose || n->op == OP_Squeeze ||
           n->op == OP_Unsqueeze || n->op == OP_Identity;
}

/* Constants of one element, of the same type and value; NULL stands for a zero point of 0. */
static bool is_same(const struct ir_ctx *cx, const struct value *a, const struct value *b)
{
    double x = 0, y = 0;
    if (a == b)
        return true;
    if ((a && (type_const_count(cx, a->type) != 1 || !value_const_f64(a, 0, &x))) ||
        (b && (type_const_count(cx, b->type) != 1 || !value_const_f64(b, 0, &y))))
        return false;
    return x == y && (!a || !b || a->type->dtype == b->type->dtype);
}

static bool match(const struct ir_ctx *cx, const struct node *q, const struct node **move, const struct node **dq)
{
    const struct value *x = node_in(q, 0);
    double s;
    *move = x->def && is_movement(x->def) ? x->def : NULL;
    *dq = match_def(*move ? node_in(*move, 0) : x, OP_DequantizeLinear);
    if (!*dq || x->type->dtype != DT_F32 || node_in(*dq, 0)->type->dtype != q->out[0].type->dtype ||
        dtype_table[q->out[0].type->dtype].bits != 8 || !dtype_is_integer(q->out[0].type->dtype))
        return false;
    const struct value *scale = node_in(q, 1);
    return type_const_count(cx, scale->type) == 1 && value_const_f64(scale, 0, &s) && s >= (double)FLT_MIN &&
           s <= (double)FLT_MAX / 512 && is_same(cx, node_in(*dq, 1), scale) &&
           is_same(cx, node_in(*dq, 2), node_in(q, 2));
}

enum npuc_status cancel_quant(struct pass_ctx *px, struct graph *g)
{
    for_each_node_safe(n, g)
    {
        const struct node *move, *dq;
        if (n->op != OP_QuantizeLinear || !match(px->cx, n, &move, &dq) || !ir_may_rewrite(px->cx))
            continue;
        struct builder b = ir_at(n);
        struct value *y = node_in(dq, 0);
        if (move) {
            struct value *in[2] = {y, node_in(move, 1)};
            struct node *m = ir_new(&b, (enum op)move->op, move->n_in > 1 ? 2 : 1, in, 1);
            ir_copy_attrs(m, move);
            y = ir_infer(m) == NPUC_OK ? &m->out[0] : NULL;
        }
        if (!y)
            return pass_failure(px);
        ir_replace_all(&n->out[0], y);
        pass_count(px, STAT_cancel_quant_cancelled, 1);
    }
    return NPUC_OK;
}
