/* Expressions of one pool written again in another: sums, products and operators are built anew, so that they have the
 * normal form of the other pool. */
#include "backend/expr_copy.h"

static expr copy_sum(struct expr_copier *c, struct expr_node x)
{
    expr sum = expr_const(c->to, x.value);
    for (int32_t i = 0; i < x.n; i++)
        sum = expr_add(c->to, sum, expr_mul_const(c->to, expr_copy(c, x.arg[i]), x.coef[i]));
    return sum;
}

static expr copy_prod(struct expr_copier *c, struct expr_node x)
{
    expr prod = expr_copy(c, x.arg[0]);
    for (int32_t i = 1; i < x.n; i++)
        prod = expr_mul(c->to, prod, expr_copy(c, x.arg[i]));
    return prod;
}

static expr copy_node(struct expr_copier *c, struct expr_node x)
{
    expr a[3] = {0};
    if (x.op == EXPR_CONST)
        return expr_const(c->to, x.value);
    if (x.op == EXPR_SYM)
        return c->symbol(c->user, x.value);
    if (x.op == EXPR_SUM)
        return copy_sum(c, x);
    if (x.op == EXPR_PROD)
        return copy_prod(c, x);
    for (int32_t i = 0; i < x.n && i < 3; i++)
        a[i] = expr_copy(c, x.arg[i]);
    switch ((enum expr_op)x.op) {
    case EXPR_FLOORDIV: return expr_floordiv(c->to, a[0], a[1]);
    case EXPR_MOD: return expr_mod(c->to, a[0], a[1]);
    case EXPR_MIN: return expr_min(c->to, a[0], a[1]);
    case EXPR_MAX: return expr_max(c->to, a[0], a[1]);
    case EXPR_EQ:
    case EXPR_LT:
    case EXPR_LE: return expr_cmp(c->to, (enum expr_op)x.op, a[0], a[1]);
    case EXPR_SELECT: return expr_select(c->to, a[0], a[1], a[2]);
    case EXPR_CONST:
    case EXPR_SYM:
    case EXPR_SUM:
    case EXPR_PROD: break;
    }
    return EXPR_INVALID;
}

/* The node is copied before recursing: building expressions never moves the pool that is read, but reading a moving
 * array through a pointer is a habit to avoid. */
expr expr_copy(struct expr_copier *c, expr e)
{
    if (e == EXPR_INVALID)
        return EXPR_INVALID;
    const uint64_t *known = map_find(&c->known, (uint64_t)e);
    if (known)
        return (expr)*known;
    const expr out = copy_node(c, c->from->nodes.data[e]);
    map_put(&c->known, (uint64_t)e, (uint64_t)out);
    return out;
}
