/* Takes the bias off a Gemm that is on the host because the bias is more than a row.
 *
 *   %y = Gemm %a, %b, %c {alpha=2, beta=3} : f32[m,n]           (%c: f32[m,n] or f32[m,1])
 * becomes
 *   %p = Gemm %a, %b {alpha=2};  %s = Mul %c, 3;  %y = Add %p, %s
 *
 * Requirements: (1) floats; (2) a Gemm made here has no bias, so it terminates. The sum is rounded once more than in
 * the Gemm. */
#include "passes/pass.h"

static bool is_candidate(const struct node *n)
{
    return n->op == OP_Gemm && n->place == PLACE_HOST && node_in(n, 2) && dtype_is_float(n->out[0].type->dtype) &&
           n->in[2].value->type->rank > 0;
}

static struct value *apart(struct node *n)
{
    struct builder b = ir_at(n);
    struct node *product = ir_resized(n, 2, 1);
    const double beta = (double)node_attr_float(n, "beta", 1);
    struct value *bias = n->in[2].value;
    for (int i = 0; i < 2; i++)
        ir_set_input(product, i, n->in[i].value);
    ir_set_float(product, "beta", 1);
    product->place = PLACE_NONE;
    if (ir_infer(product) != NPUC_OK)
        return NULL;
    if (beta != 1)
        bias = ir_op2(&b, OP_Mul, bias, ir_scalar_like(&b, bias, beta));
    return bias ? ir_op2(&b, OP_Add, &product->out[0], bias) : NULL;
}

enum npuc_status rewrite_gemm(struct pass_ctx *px, struct graph *g)
{
    for_each_node_safe(n, g)
    {
        struct value *y = is_candidate(n) && ir_may_rewrite(px->cx) ? apart(n) : NULL;
        if (!y || y->type != n->out[0].type)
            continue;
        ir_replace_all(&n->out[0], y);
        ir_erase(n);
        pass_count(px, STAT_rewrite_gemm_taken_off, 1);
    }
    return NPUC_OK;
}
