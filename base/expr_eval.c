/* Values and substitution. */
#include "base/expr_priv.h"

struct values {
    const struct expr_pool *p;
    const int64_t *of_symbol;
};

static bool eval(const struct values *v, expr e, int64_t *out);

static bool eval_sum(const struct values *v, const struct expr_node *n, int64_t *out)
{
    int64_t sum = n->value;
    for (int32_t i = 0; i < n->n; i++) {
        int64_t x;
        if (!eval(v, n->arg[i], &x) || __builtin_mul_overflow(x, n->coef[i], &x) ||
            __builtin_add_overflow(sum, x, &sum))
            return false;
    }
    *out = sum;
    return true;
}

static bool eval_product(const struct values *v, const struct expr_node *n, int64_t *out)
{
    int64_t product = 1;
    for (int32_t i = 0; i < n->n; i++) {
        int64_t x;
        if (!eval(v, n->arg[i], &x) || __builtin_mul_overflow(product, x, &product))
            return false;
    }
    *out = product;
    return true;
}

static bool divides(int64_t a, int64_t b)
{
    return b != 0 && !(a == INT64_MIN && b == -1);
}

static bool eval_binary(enum expr_op op, int64_t a, int64_t b, int64_t *out)
{
    switch (op) {
    case EXPR_FLOORDIV: *out = divides(a, b) ? expr_floor_div(a, b) : 0; return divides(a, b);
    case EXPR_MOD: *out = b != 0 && b != -1 ? expr_floor_mod(a, b) : 0; return b != 0;
    case EXPR_MIN: *out = a < b ? a : b; return true;
    case EXPR_MAX: *out = a > b ? a : b; return true;
    case EXPR_EQ: *out = a == b; return true;
    case EXPR_LT: *out = a < b; return true;
    case EXPR_LE: *out = a <= b; return true;
    default: return false;
    }
}

static bool eval(const struct values *v, expr e, int64_t *out)
{
    const struct expr_node *n = expr_at(v->p, e);
    int64_t a, b;
    switch ((enum expr_op)n->op) {
    case EXPR_CONST: *out = n->value; return e != EXPR_INVALID;
    case EXPR_SYM: *out = v->of_symbol[n->value]; return true;
    case EXPR_SUM: return eval_sum(v, n, out);
    case EXPR_PROD: return eval_product(v, n, out);
    case EXPR_SELECT: return eval(v, n->arg[0], &a) && eval(v, n->arg[a ? 1 : 2], out);
    default: return eval(v, n->arg[0], &a) && eval(v, n->arg[1], &b) && eval_binary((enum expr_op)n->op, a, b, out);
    }
}

bool expr_eval(const struct expr_pool *p, expr e, const int64_t *values, int64_t *out)
{
    return eval(&(struct values){p, values}, e, out);
}

struct replacement {
    const expr *by_symbol;
    int32_t n;
};

static expr subst(struct expr_pool *p, expr e, const struct replacement *r);

static expr subst_sum(struct expr_pool *p, const struct expr_node *n, const struct replacement *r)
{
    expr sum = expr_const(p, n->value);
    for (int32_t i = 0; i < n->n; i++)
        sum = expr_add(p, sum, expr_mul_const(p, subst(p, n->arg[i], r), n->coef[i]));
    return sum;
}

static expr subst_product(struct expr_pool *p, const struct expr_node *n, const struct replacement *r)
{
    expr product = expr_const(p, 1);
    for (int32_t i = 0; i < n->n; i++)
        product = expr_mul(p, product, subst(p, n->arg[i], r));
    return product;
}

static expr rebuild(struct expr_pool *p, enum expr_op op, const expr *x)
{
    switch (op) {
    case EXPR_FLOORDIV: return expr_floordiv(p, x[0], x[1]);
    case EXPR_MOD: return expr_mod(p, x[0], x[1]);
    case EXPR_MIN: return expr_min(p, x[0], x[1]);
    case EXPR_MAX: return expr_max(p, x[0], x[1]);
    case EXPR_SELECT: return expr_select(p, x[0], x[1], x[2]);
    default: return expr_cmp(p, op, x[0], x[1]);
    }
}

static expr subst(struct expr_pool *p, expr e, const struct replacement *r)
{
    const struct expr_node n = *expr_at(p, e); /* a copy: the nodes move */
    if (n.op == EXPR_CONST)
        return e;
    if (n.op == EXPR_SYM)
        return n.value < r->n && r->by_symbol[n.value] ? r->by_symbol[n.value] : e;
    if (n.op == EXPR_SUM)
        return subst_sum(p, &n, r);
    if (n.op == EXPR_PROD)
        return subst_product(p, &n, r);
    expr x[3] = {0};
    for (int32_t i = 0; i < n.n; i++)
        x[i] = subst(p, n.arg[i], r);
    return rebuild(p, (enum expr_op)n.op, x);
}

expr expr_subst(struct expr_pool *p, expr e, const expr *by_symbol, int32_t n)
{
    return e ? subst(p, e, &(struct replacement){by_symbol, n}) : EXPR_INVALID;
}
