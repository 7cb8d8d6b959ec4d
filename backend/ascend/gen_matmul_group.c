/* Products of one left operand with several constant weights as one kernel: the columns of tiles of one product follow
 * those of the one before, so that all cores have work to the end and the launch is paid once. */
#include "backend/ascend/gens.h"
#include "backend/ascend/matmul.h"

struct group {
    struct mm products[MM_MAX_GROUP];
    struct value *results[MM_MAX_GROUP];
    int n;
};

static bool take(struct ir_ctx *cx, const struct machine *m, const struct node *n, struct group *g, const char **reason)
{
    struct mm *p = &g->products[g->n];
    *reason = "products that share no operand";
    if (n->n_out != 1 || g->n == MM_MAX_GROUP || !mm_match(m, cx, n, p, reason) ||
        (g->n > 0 && !mm_is_peer(cx, g->products, p)))
        return false;
    g->n++;
    return true;
}

static bool match(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct group *g,
                  const char **reason)
{
    if (n->op != OP_Fused || node_attr_str(n, "kind", 0) != str_internz(&cx->strings, MM_GROUP_KIND))
        return false;
    const struct node *yield = graph_yield(node_region(n, 0));
    for_each_node (k, node_region(n, 0)) {
        if (k->op == OP_Constant || k->op == OP_Yield)
            continue;
        if (!take(cx, m, k, g, reason))
            return false;
        for (int i = 0; i < n->n_out; i++)
            if (node_in(yield, i) == &k->out[0])
                g->results[g->n - 1] = &n->out[i];
        if (!g->results[g->n - 1])
            return false;
    }
    return g->n > 1;
}

bool gen_matmul_group_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    struct group g = {.n = 0};
    return match(m, cx, n, &g, reason);
}

enum npuc_status gen_matmul_group_emit(struct emit *e, struct node *n)
{
    struct group g = {.n = 0};
    struct mm_tensors t[MM_MAX_GROUP];
    const char *why = "";
    if (!match(e->m, e->cx, n, &g, &why))
        return node_error(e->cx, n, D_VERIFY, "products were placed on the matrix unit that it cannot do: %s", why);
    for (int i = 0; i < g.n; i++) {
        t[i] = mm_operands(e, &g.products[i]);
        t[i].c = emit_tensor(e, g.results[i]);
    }
    g.products[0].peers = g.products + 1;
    g.products[0].n_peers = g.n - 1;
    return mm_emit(e, g.products, t, "GroupedMatMul");
}
