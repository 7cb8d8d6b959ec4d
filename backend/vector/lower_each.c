/* Elementwise operators that are more than one formula: Sum and Mean of any number of operands, SwiGLU. */
#include "backend/vector/lower.h"

static int lower_arg(struct lower *l, struct node *n, int i)
{
    return lower_operand(l, node_in(n, i));
}

bool lower_check_sum(struct ir_ctx *cx, const struct node *n, const char **reason)
{
    (void)cx;
    *reason = "a sum of more than 16 operands does not fit into UB at once";
    return n->n_in <= 16;
}

int lower_sum(struct lower *l, struct node *n)
{
    int v = lower_arg(l, n, 0);
    for (int i = 1; i < n->n_in; i++)
        v = vr_vec2(&l->r, K_FN_Add, v, lower_arg(l, n, i));
    return n->op == OP_Mean ? vr_vec2(&l->r, K_FN_Div, v, vr_imm(&l->r, l->r.values[v].dtype, (float)n->n_in)) : v;
}

bool lower_check_swiglu(struct ir_ctx *cx, const struct node *n, const char **reason)
{
    (void)cx;
    *reason = "needs float elements";
    return k_fn_supports(K_FN_Swish, node_in(n, 0)->type->dtype);
}

int lower_swiglu(struct lower *l, struct node *n)
{
    const int x = lower_arg(l, n, 0);
    const float alpha[3] = {node_attr_float(n, "alpha", 1.0f)};
    const int gate = vr_vec(&l->r, K_FN_Swish, l->r.values[x].dtype, (const int[3]){x, -1, -1}, alpha);
    return vr_vec2(&l->r, K_FN_Mul, gate, lower_arg(l, n, 1));
}
