/* Floor division and modulus. What divides exactly leaves the quotient:
 *   (d*A + R) // d  = A + R // d          terms of the dividend that the divisor divides
 *   (g*R + c) // (g*d) = (R + c//g) // d  for a common factor g
 *   (x // a + c) // b = (x + a*c) // (a*b)
 *   (batch*past + batch*seq) // (past + seq) = batch   by division of polynomials, when nothing remains
 * and the same for %. A negative constant divisor is made positive. */
#include "base/expr_priv.h"

#include "base/size.h"

#include <string.h>

enum { MAX_DIVISION_STEPS = 64 };

/* Moves what d divides from y to q; remaining coefficients are in (-d, d), the constant in [0, d). */
static void split_multiples(const struct expr_pool *p, struct poly *y, int64_t d, struct poly *q)
{
    struct poly rest = {.n = 0};
    q->n = 0;
    q->bad = false;
    q->constant = expr_floor_div(y->constant, d);
    rest.constant = expr_floor_mod(y->constant, d);
    for (int32_t i = 0; i < y->n; i++) {
        poly_add_term(p, q, y->term[i], y->coef[i] / d);
        poly_add_term(p, &rest, y->term[i], y->coef[i] % d);
    }
    memcpy(y, &rest, sizeof *y);
}

/* gcd of d and of all values that the terms of y can take. */
static int64_t step_of_terms(struct expr_pool *p, const struct poly *y, int64_t d)
{
    struct poly terms = *y;
    terms.constant = 0;
    const expr e = poly_value(p, &terms);
    return e ? size_gcd(expr_range_of(p, e).multiple, d) : 1;
}

/* The quotient's one value over the range of y / d, if there is one. */
static bool quotient_from_range(const struct expr_pool *p, expr y, int64_t d, int64_t *q)
{
    const struct expr_range r = expr_range_of(p, y);
    if (r.min == INT64_MIN || r.max == INT64_MAX)
        return false;
    *q = expr_floor_div(r.min, d);
    return *q == expr_floor_div(r.max, d);
}

/* (x // a + c) // d with a > 0; EXPR_INVALID when y is of another form. */
static expr merge_nested(struct expr_pool *p, const struct poly *y, int64_t d)
{
    int64_t a, factor, add;
    if (y->n != 1 || y->coef[0] != 1 || expr_at(p, y->term[0])->op != EXPR_FLOORDIV)
        return EXPR_INVALID;
    const struct expr_node *inner = expr_at(p, y->term[0]);
    const expr x = inner->arg[0];
    if (!expr_is_const(p, inner->arg[1], &a) || a <= 0 || __builtin_mul_overflow(a, d, &factor) ||
        __builtin_mul_overflow(a, y->constant, &add))
        return EXPR_INVALID;
    return expr_floordiv(p, expr_add(p, x, expr_const(p, add)), expr_const(p, factor));
}

static expr floordiv_by_constant(struct expr_pool *p, struct poly *y, int64_t d)
{
    struct poly q;
    int64_t value;
    split_multiples(p, y, d, &q);
    y->constant -= y->constant % step_of_terms(p, y, d);
    const int64_t g = size_gcd(poly_content(y), d);
    y->constant -= y->constant % g;
    poly_divide_exact(y, g);
    d /= g;
    const expr whole = poly_build(p, &q);
    if (y->n == 0)
        return expr_add(p, whole, expr_const(p, y->constant / d)); /* 0 <= constant */
    const expr nested = merge_nested(p, y, d);
    if (nested || d == 1)
        return expr_add(p, whole, nested ? nested : poly_build(p, y));
    const int32_t n_terms = y->n;
    const expr rest = poly_build(p, y);
    if (!rest)
        return EXPR_INVALID;
    if (y->n != n_terms) /* simplified: other rules may apply now */
        return expr_add(p, whole, expr_floordiv(p, rest, expr_const(p, d)));
    if (quotient_from_range(p, rest, d, &value))
        return expr_add(p, whole, expr_const(p, value));
    return expr_add(p, whole, expr_make(p, EXPR_FLOORDIV, rest, expr_const(p, d)));
}

/* x % m inside (... + k*(x % m)) % d is x when d divides k*m. */
static expr unwrap_mods(struct expr_pool *p, const struct poly *y, int64_t d)
{
    struct poly out = {.constant = y->constant};
    for (int32_t i = 0; i < y->n; i++) {
        const struct expr_node *n = expr_at(p, y->term[i]);
        int64_t m, all;
        const bool drops = n->op == EXPR_MOD && expr_is_const(p, n->arg[1], &m) &&
                           !__builtin_mul_overflow(y->coef[i], m, &all) && all % d == 0;
        struct poly term;
        poly_from(p, &term, drops ? n->arg[0] : y->term[i]);
        poly_add(p, &out, &term, y->coef[i]);
    }
    return poly_build(p, &out);
}

/* y % d; a common factor is taken out: (g*R) % (g*m) = g*(R % m). */
static expr mod_of_remainder(struct expr_pool *p, struct poly *y, int64_t d)
{
    const int64_t g = size_gcd(poly_content(y), d), m = d / g;
    int64_t q;
    poly_divide_exact(y, g);
    const int32_t n_terms = y->n;
    const expr rest = poly_build(p, y);
    if (!rest)
        return EXPR_INVALID;
    expr mod;
    if (m == 1)
        mod = expr_const(p, 0);
    else if (y->n != n_terms) /* simplified: other rules may apply now */
        mod = expr_mod(p, rest, expr_const(p, m));
    else if (quotient_from_range(p, rest, m, &q) && !__builtin_mul_overflow(q, m, &q))
        mod = expr_sub(p, rest, expr_const(p, q));
    else
        mod = expr_make(p, EXPR_MOD, rest, expr_const(p, m));
    return expr_mul_const(p, mod, g);
}

static expr mod_by_constant(struct expr_pool *p, expr a, int64_t d)
{
    struct poly y, q;
    for (int step = 0; step < MAX_DIVISION_STEPS; step++) { /* unwrapping may expose terms that d divides */
        poly_from(p, &y, a);
        if (y.bad)
            return EXPR_INVALID;
        split_multiples(p, &y, d, &q);
        const expr unwrapped = unwrap_mods(p, &y, d);
        if (!unwrapped || unwrapped == poly_value(p, &y))
            break;
        a = unwrapped;
    }
    if (y.n == 0)
        return expr_const(p, y.constant);
    /* with all terms multiples of g, the constant's rest modulo g passes through */
    const int64_t low = y.constant % step_of_terms(p, &y, d);
    y.constant -= low;
    return expr_add(p, mod_of_remainder(p, &y, d), expr_const(p, low));
}

static bool divisible_by_atom(struct expr_pool *p, const struct poly *y, expr atom)
{
    expr q;
    for (int32_t i = 0; i < y->n; i++)
        if (!term_divide(p, y->term[i], atom, &q))
            return false;
    return y->constant == 0;
}

static void divide_by_atom(struct expr_pool *p, struct poly *y, expr atom)
{
    struct poly q = {.n = 0};
    for (int32_t i = 0; i < y->n; i++) {
        expr term;
        if (term_divide(p, y->term[i], atom, &term) && term)
            poly_add_term(p, &q, term, y->coef[i]);
        else
            poly_add_constant(&q, y->coef[i]);
    }
    memcpy(y, &q, sizeof *y);
}

/* Both or none. */
static bool poly_divide_by_atom(struct expr_pool *p, struct poly *a, struct poly *b, expr atom)
{
    if (!divisible_by_atom(p, a, atom) || !divisible_by_atom(p, b, atom))
        return false;
    divide_by_atom(p, a, atom);
    divide_by_atom(p, b, atom);
    return true;
}

/* Divides y by b as polynomials: y = q*b + rest, rest's terms not divisible by b's first term. */
static bool poly_divide(struct expr_pool *p, struct poly *y, const struct poly *b, struct poly *q)
{
    struct poly rest = {.n = 0};
    for (int step = 0; y->n && !y->bad; step++) {
        const expr term = y->term[0];
        const int64_t coef = y->coef[0];
        expr by;
        if (step == MAX_DIVISION_STEPS)
            return false;
        if (coef % b->coef[0] || !term_divide(p, term, b->term[0], &by)) {
            poly_add_term(p, &rest, term, coef);
            poly_add_term(p, y, term, -coef);
            continue;
        }
        const int64_t c = coef / b->coef[0];
        if (by)
            poly_add_term(p, q, by, c);
        else
            poly_add_constant(q, c);
        poly_add_product(p, y, b, by, -c);
    }
    rest.constant = y->constant;
    if (y->bad || q->bad || rest.bad)
        return false;
    memcpy(y, &rest, sizeof *y);
    return true;
}

/* a and b divided by a factor they share, which is returned: the atoms of b's first term as far as they divide every
 * term of both, and the greatest common integer, with b's sign. */
static expr cancel_common(struct expr_pool *p, struct poly *a, struct poly *b)
{
    int64_t g = size_gcd(size_gcd(poly_content(a), a->constant), size_gcd(poly_content(b), b->constant));
    if (a->constant == INT64_MIN || b->constant == INT64_MIN || g == 0)
        return EXPR_INVALID;
    if (b->coef[0] < 0)
        g = -g;
    poly_divide_exact(a, g);
    poly_divide_exact(b, g);
    expr factor = expr_const(p, g);
    const expr first = b->term[0], *atoms;
    const int32_t n = term_atoms(p, &first, &atoms);
    for (int32_t i = 0; i < n; i++)
        if (poly_divide_by_atom(p, a, b, atoms[i]))
            factor = expr_mul(p, factor, atoms[i]);
    return factor;
}

/* What a symbolic divisor leaves: a = quotient*b + factor*rest, with b = factor*divisor. */
struct reduced {
    expr quotient, factor, rest, divisor;
};

/* The quotient of polynomials is taken out when nothing remains, or when the divisor is a single term. */
static bool reduce_symbolic(struct expr_pool *p, expr a, expr b, struct reduced *r)
{
    struct poly y, d, rest, q = {.n = 0};
    poly_from(p, &y, a);
    poly_from(p, &d, b);
    rest = y;
    r->quotient = expr_const(p, 0);
    const bool single = d.n == 1 && d.constant == 0;
    if (poly_divide(p, &rest, &d, &q) && (single || (rest.n == 0 && rest.constant == 0))) {
        r->quotient = poly_build(p, &q);
        y = rest;
    }
    r->factor = cancel_common(p, &y, &d);
    r->rest = poly_build(p, &y);
    r->divisor = poly_build(p, &d);
    return r->quotient && r->factor && r->rest && r->divisor;
}

/* 0 <= a < b, proven: a // b is 0 and a % b is a. */
static bool is_below(struct expr_pool *p, expr a, expr b)
{
    const expr room = expr_sub(p, expr_sub(p, b, a), expr_const(p, 1));
    return room && expr_range_of(p, a).min >= 0 && expr_proves_nonneg(p, room, EXPR_QUICK_PROOF);
}

/* Both operands negated when the constant divisor is negative; false for an impossible division. */
static bool constant_divisor(struct expr_pool *p, expr *a, int64_t *d)
{
    if (*d == 0 || *d == INT64_MIN)
        return false;
    if (*d < 0) {
        *d = -*d;
        *a = expr_mul_const(p, *a, -1);
    }
    return *a != EXPR_INVALID;
}

expr expr_floordiv(struct expr_pool *p, expr a, expr b)
{
    int64_t d;
    struct reduced r;
    if (!a || !b)
        return EXPR_INVALID;
    if (expr_is_const(p, b, &d)) {
        struct poly y;
        if (!constant_divisor(p, &a, &d))
            return EXPR_INVALID;
        poly_from(p, &y, a);
        return floordiv_by_constant(p, &y, d);
    }
    if (!reduce_symbolic(p, a, b, &r))
        return EXPR_INVALID;
    if ((expr_is_const(p, r.rest, &d) && d == 0) || is_below(p, r.rest, r.divisor))
        return r.quotient;
    const bool constant = expr_is_const(p, r.divisor, &d);
    return expr_add(p, r.quotient,
                    constant ? expr_floordiv(p, r.rest, r.divisor) : expr_make(p, EXPR_FLOORDIV, r.rest, r.divisor));
}

expr expr_ceildiv(struct expr_pool *p, expr a, expr b)
{
    return expr_floordiv(p, expr_add(p, a, expr_sub(p, b, expr_const(p, 1))), b);
}

expr expr_mod(struct expr_pool *p, expr a, expr b)
{
    int64_t d;
    struct reduced r;
    if (!a || !b)
        return EXPR_INVALID;
    if (expr_is_const(p, b, &d)) {
        const int64_t sign = d < 0 ? -1 : 1;
        if (!constant_divisor(p, &a, &d))
            return EXPR_INVALID;
        return expr_mul_const(p, mod_by_constant(p, a, d), sign);
    }
    if (!reduce_symbolic(p, a, b, &r))
        return EXPR_INVALID;
    expr mod = r.rest;
    if (expr_is_const(p, r.divisor, &d))
        mod = expr_mod(p, r.rest, r.divisor);
    else if (!(expr_is_const(p, r.rest, &d) && d == 0) && !is_below(p, r.rest, r.divisor))
        mod = expr_make(p, EXPR_MOD, r.rest, r.divisor);
    return expr_mul(p, mod, r.factor);
}
