/* Operators that are recipes over core operators (kernels/recipes.def), written as those.
 *
 *   %y = Einsum %a, %b {equation="bij,bjk->bik"} : f32[b,i,k]
 * becomes
 *   %y = MatMul %a, %b : f32[b,i,k]
 *
 * The operator's kernel runs the same recipe, so the bits stand. A walk over steps (RNN, GRU, LSTM, LinearAttention) is
 * written step by step where there are few, else as a Scan. Requirements: (1) only operands of known rank and of float
 * types that the cores have; (2) what a recipe must know (the axis and length of a DFT, a hidden size, ..) is known;
 * (3) recipes use core operators without one of their own, so it terminates. Left alone: everything else; the kernel
 * then runs on the host. */
#include "ir/recipe.h"
#include "passes/pass.h"

enum { UNROLLED_STEPS = 16 };

/* Doubles and integers would only be scattered over the host. */
static bool suits(const struct node *n)
{
    for (int i = 0; i < n->n_in; i++) {
        const struct value *v = node_in(n, i);
        if (v && (v->type->kind != TYPE_TENSOR || v->type->rank < 0 || v->type->dtype == DT_F64))
            return false;
    }
    return n->n_in > 0 && node_in(n, 0) && dtype_is_float(node_in(n, 0)->type->dtype);
}

static enum npuc_status lower_graph(struct pass_ctx *px, struct graph *g)
{
    const struct recipe_limits limits = {.unroll = UNROLLED_STEPS, .scan = true};
    for_each_node_safe(n, g)
    {
        const char *why;
        if (!ir_has_recipe(n) || !suits(n) || !ir_may_rewrite(px->cx))
            continue;
        const struct arena_mark mark = arena_mark(&px->cx->scratch);
        const bool done = ir_write_recipe(n, &limits, &why);
        arena_release(&px->cx->scratch, mark);
        pass_count(px, done ? STAT_lower_recipe_lowered : STAT_lower_recipe_kept, 1);
        if (done)
            ir_erase(n);
    }
    ir_dce(g);
    return NPUC_OK;
}

enum npuc_status lower_recipe(struct pass_ctx *px, struct graph *g)
{
    return pass_each_graph(px, g, lower_graph);
}
