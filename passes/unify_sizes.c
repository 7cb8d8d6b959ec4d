/* Sizes that have two names but cannot differ become one.
 *
 *   %s = Add %scores, %mask                       : f32[b,h,n,t]      t: of the mask that enters the model
 *   %y = MatMul (Softmax %s), %values             : %values f32[b,h,p + n,d]
 * has p + n for t everywhere, since the product sums over both. So has the bias of MultiHeadAttention.
 *
 * Attention that exporters spell out then finds its scores and values of one length. Requirements: (1) nodes of the
 * function itself alone: those of bodies may never run; (2) both sizes follow from shapes of inputs, which are compared
 * when they are bound: what contradicts is refused there instead of by the product; (3) one of the sizes is a symbol,
 * which the other one does not use: it goes, so this terminates; of two symbols the one that came later. */
#include "passes/match.h"

struct unifier {
    struct pass_ctx *px;
    bool *told; /* per symbol: do shapes of inputs tell it? */
    expr *by;   /* per symbol: the size that stands for it now */
    int32_t n;
};

static bool replaceable(const struct unifier *u, expr what, expr with)
{
    const struct expr_pool *p = &u->px->cx->exprs;
    const struct expr_node *x = &p->nodes.data[what];
    if (x->op != EXPR_SYM || !u->told[x->value])
        return false;
    for (int32_t i = 0; i < u->n; i++)
        if (expr_uses_symbol(p, with, i) && (i == x->value || !u->told[i]))
            return false;
    return true;
}

/* The size that the left operand's rows are summed over and that of the right operand. */
static bool summed(const struct node *n, expr *left, expr *right)
{
    if (n->op != OP_MatMul && n->op != OP_FusedMatMul)
        return false;
    const struct type *a = node_in(n, 0)->type, *b = node_in(n, 1)->type;
    if (a->kind != TYPE_TENSOR || b->kind != TYPE_TENSOR || a->rank < 1 || b->rank < 1)
        return false;
    const bool fused = n->op == OP_FusedMatMul;
    const bool turned_a = fused && a->rank > 1 && node_attr_int(n, "transA", 0) != 0;
    const bool turned_b = fused && node_attr_int(n, "transB", 0) != 0;
    if (fused && (node_attr_int(n, "transBatchA", 0) != 0 || node_attr_int(n, "transBatchB", 0) != 0))
        return false;
    *left = a->dims[a->rank - (turned_a ? 2 : 1)];
    *right = b->dims[b->rank - (b->rank == 1 || turned_b ? 1 : 2)];
    return true;
}

/* The keys that a bias of attention has numbers for and those that there are. */
static bool attended(struct ir_ctx *cx, const struct node *n, expr *left, expr *right)
{
    enum { KEY = 1, BIAS = 5, PAST_KEY = 6 };
    const struct value *key = n->op == OP_MultiHeadAttention && n->n_in > BIAS ? node_in(n, KEY) : NULL;
    const struct value *bias = key ? node_in(n, BIAS) : NULL,
                       *past = bias && n->n_in > PAST_KEY ? node_in(n, PAST_KEY) : NULL;
    if (!bias || bias->type->rank != 4 || key->type->rank < 3 || key->type->rank > 4)
        return false;
    *left = bias->type->dims[3];
    *right = key->type->dims[key->type->rank - 2];
    if (past && past->type->rank == 4 && key->type->rank == 3)
        *right = expr_add(&cx->exprs, past->type->dims[2], *right);
    return !expr_is_one(&cx->exprs, *left);
}

static bool unify(struct unifier *u, expr x, expr y)
{
    struct ir_ctx *cx = u->px->cx;
    if (x == y)
        return false;
    x = expr_subst(&cx->exprs, x, u->by, u->n);
    y = expr_subst(&cx->exprs, y, u->by, u->n);
    if (!x || !y)
        return false;
    const struct expr_node *a = &cx->exprs.nodes.data[x], *b = &cx->exprs.nodes.data[y];
    const bool younger = a->op == EXPR_SYM && b->op == EXPR_SYM && b->value > a->value;
    if (x == y)
        return false;
    if (!replaceable(u, x, y) || younger) {
        const expr swap = x;
        x = y;
        y = swap;
    }
    if (!replaceable(u, x, y) || !ir_may_rewrite(cx))
        return false;
    u->by[cx->exprs.nodes.data[x].value] = y;
    pass_count(u->px, STAT_unify_sizes_unified, 1);
    return true;
}

static void mark_told(struct unifier *u, const struct graph *g)
{
    for (int32_t i = 0; i < g->n_inputs; i++) {
        const struct type *t = g->inputs[i]->type;
        for (int d = 0; t->kind == TYPE_TENSOR && d < t->rank; d++) {
            for (int32_t k = 0; k < u->n; k++)
                u->told[k] = u->told[k] || expr_uses_symbol(&u->px->cx->exprs, t->dims[d], k);
        }
    }
}

enum npuc_status unify_sizes(struct pass_ctx *px, struct graph *g)
{
    struct unifier u = {.px = px, .n = (int32_t)px->cx->exprs.symbols.len};
    expr left, right;
    bool any = false;
    if (g->owner)
        return NPUC_OK;
    u.by = ARENA_ARRAY(&px->arena, expr, u.n);
    u.told = ARENA_ARRAY(&px->arena, bool, u.n);
    mark_told(&u, g);
    for_each_node (x, g)
        any = ((summed(x, &left, &right) || attended(px->cx, x, &left, &right)) && unify(&u, left, right)) || any;
    if (!any)
        return NPUC_OK;
    ir_substitute_inputs(g, u.by, u.n);
    return pass_settle_sizes(px, g, u.by, u.n);
}
