/* Symbols and expression nodes of a pool. Only nodes in use are stored, operands before their users, so a node's number
 * is its place. Reading accepts only nodes in the normal form's shape and refuses repeated ones. */
#include "plan/coder_priv.h"

enum { NODE_MIN_SIZE = 13, SYMBOL_SIZE = 28, OPERAND_SIZE = 4 };

void expr_numbers_begin(struct coder *c, struct expr_pool *pool)
{
    c->exprs = (struct expr_numbers){.pool = pool};
    c->exprs.number = ARENA_ARRAY(c->arena, int32_t, pool->nodes.len + 1);
}

void expr_numbers_assign(struct coder *c)
{
    struct expr_numbers *x = &c->exprs;
    for (int64_t e = x->pool->nodes.len - 1; e > 0; e--) {
        const struct expr_node *n = &x->pool->nodes.data[e];
        for (int32_t i = 0; i < n->n && x->number[e]; i++)
            x->number[n->arg[i]] = 1;
    }
    for (int64_t e = 1; e < x->pool->nodes.len; e++)
        if (x->number[e])
            x->number[e] = ++x->n;
}

static void code_symbol(struct coder *c, struct expr_symbol *s)
{
    code_sym(c, &s->name);
    code_i64(c, &s->range.min);
    code_i64(c, &s->range.max);
    code_i64(c, &s->range.multiple);
}

static void code_symbols(struct coder *c)
{
    struct expr_pool *pool = c->exprs.pool;
    const int64_t n = code_count(c, pool->symbols.len, SYMBOL_SIZE);
    if (n > PLAN_MAX_SYMBOLS)
        code_fail(c, "there are too many symbols");
    for (int64_t i = 0; i < n && !c->error; i++) {
        struct expr_symbol s = code_reading(c) ? (struct expr_symbol){0} : pool->symbols.data[i];
        code_symbol(c, &s);
        if (!code_reading(c) || c->error)
            continue;
        if (s.range.min > s.range.max || s.range.multiple < 1)
            code_fail(c, "a symbol's range is empty");
        else if (expr_symbol_new(pool, s.name, s.range) != i)
            code_fail(c, "a symbol's name is repeated");
    }
}

/* Operands an operator takes; 0: any number (sums and products). */
static int operands_of(uint8_t op)
{
    static const int8_t count[] = {
        [EXPR_CONST] = -1, [EXPR_SYM] = -1, [EXPR_SUM] = 0, [EXPR_PROD] = 0, [EXPR_FLOORDIV] = 2, [EXPR_MOD] = 2,
        [EXPR_MIN] = 2,    [EXPR_MAX] = 2,  [EXPR_EQ] = 2,  [EXPR_LT] = 2,   [EXPR_LE] = 2,       [EXPR_SELECT] = 3,
    };
    return op < NPUC_ARRAY_LEN(count) ? count[op] : -2;
}

/* What the arithmetic of base/expr relies on; NULL when the node is well formed. */
static const char *node_problem(const struct expr_pool *pool, const struct expr_node *n)
{
    const int want = operands_of(n->op);
    if (want == -2)
        return "an expression has an unknown operator";
    if ((want == -1 && n->n != 0) || (want > 0 && n->n != want))
        return "an expression has the wrong number of operands";
    if (n->op == EXPR_SYM && (n->value < 0 || n->value >= pool->symbols.len))
        return "an expression names an unknown symbol";
    if (n->op != EXPR_CONST && n->op != EXPR_SYM && n->op != EXPR_SUM && n->value != 0)
        return "an expression holds a stray value";
    const bool sum = n->op == EXPR_SUM, prod = n->op == EXPR_PROD;
    if ((sum && (n->n < 1 || n->n > EXPR_MAX_TERMS)) || (prod && (n->n < 2 || n->n > EXPR_MAX_DEGREE)))
        return "an expression has the wrong number of operands";
    for (int32_t i = 0; i < n->n; i++) {
        if (n->arg[i] < 1 || n->arg[i] >= pool->nodes.len)
            return "an expression refers to a later one";
        const uint8_t op = pool->nodes.data[n->arg[i]].op;
        if ((sum || prod) && (op == EXPR_SUM || op == EXPR_CONST || (prod && op == EXPR_PROD)))
            return "a sum or product is not in normal form";
        if (sum && (n->coef[i] == 0 || n->coef[i] == INT64_MIN))
            return "a sum has an invalid coefficient";
    }
    return NULL;
}

static void code_node(struct coder *c, struct expr_node *n)
{
    expr args[EXPR_MAX_TERMS];
    int64_t coefs[EXPR_MAX_TERMS];
    code_u8(c, &n->op);
    code_i64(c, &n->value);
    n->n = (int32_t)code_count(c, n->n, OPERAND_SIZE);
    if (n->n > EXPR_MAX_TERMS) {
        code_fail(c, "an expression has too many operands");
        return;
    }
    for (int32_t i = 0; i < n->n; i++) {
        args[i] = code_reading(c) ? 0 : n->arg[i];
        code_expr(c, &args[i]);
    }
    for (int32_t i = 0; i < n->n && n->op == EXPR_SUM; i++) {
        coefs[i] = code_reading(c) ? 0 : n->coef[i];
        code_i64(c, &coefs[i]);
    }
    if (!code_reading(c) || c->error)
        return;
    struct expr_pool *pool = c->exprs.pool;
    n->arg = n->n ? args : NULL;
    n->coef = n->op == EXPR_SUM ? coefs : NULL;
    const char *problem = node_problem(pool, n);
    const expr number = (expr)pool->nodes.len;
    if (problem)
        code_fail(c, problem);
    else if (expr_intern(pool, n) != number)
        code_fail(c, "an expression is repeated or too large");
    n->arg = NULL;
    n->coef = NULL;
}

void code_pool(struct coder *c)
{
    struct expr_numbers *x = &c->exprs;
    code_symbols(c);
    const int64_t n = code_count(c, x->n, NODE_MIN_SIZE);
    if (code_reading(c)) {
        for (int64_t i = 0; i < n && !c->error; i++) {
            struct expr_node node = {0};
            code_node(c, &node);
        }
        return;
    }
    for (int64_t e = 1; e < x->pool->nodes.len; e++) {
        struct expr_node node = x->pool->nodes.data[e];
        if (x->number[e] && c->mode == CODER_WRITE)
            code_node(c, &node);
    }
}
