/* Sums of products: the normal form and its arithmetic. Terms are kept sorted while a sum is built; products of sums
 * are multiplied out. poly_build also undoes divisions: m*(x//m) + x%m is x, and m*(x//m) is x when m divides x. */
#include "base/expr_priv.h"

#include "base/size.h"

int64_t expr_floor_div(int64_t a, int64_t b)
{
    const int64_t q = a / b;
    return q - (a % b != 0 && (a < 0) != (b < 0));
}

int64_t expr_floor_mod(int64_t a, int64_t b)
{
    const int64_t r = a % b;
    return r && (r < 0) != (b < 0) ? r + b : r;
}

int32_t term_atoms(const struct expr_pool *p, const expr *term, const expr **atoms)
{
    const struct expr_node *n = expr_at(p, *term);
    if (n->op == EXPR_PROD) {
        *atoms = n->arg;
        return n->n;
    }
    *atoms = term;
    return 1;
}

static void poly_clear(struct poly *y)
{
    y->constant = 0;
    y->n = 0;
    y->bad = false;
}

void poly_add_constant(struct poly *y, int64_t c)
{
    if (__builtin_add_overflow(y->constant, c, &y->constant))
        y->bad = true;
}

static void poly_insert(struct poly *y, int32_t at, expr term, int64_t coef)
{
    if (y->n == EXPR_MAX_TERMS) {
        y->bad = true;
        return;
    }
    for (int32_t i = y->n++; i > at; i--) {
        y->term[i] = y->term[i - 1];
        y->coef[i] = y->coef[i - 1];
    }
    y->term[at] = term;
    y->coef[at] = coef;
}

static void poly_remove(struct poly *y, int32_t at)
{
    y->n--;
    for (int32_t i = at; i < y->n; i++) {
        y->term[i] = y->term[i + 1];
        y->coef[i] = y->coef[i + 1];
    }
}

/* Negating a coefficient is always possible: INT64_MIN counts as overflow. */
void poly_add_term(const struct expr_pool *p, struct poly *y, expr term, int64_t coef)
{
    if (!term || coef == INT64_MIN)
        y->bad = true;
    if (!coef || y->bad)
        return;
    int32_t lo = 0, hi = y->n; /* first place whose term is not greater */
    while (lo < hi) {
        const int32_t mid = (lo + hi) / 2;
        if (expr_compare_terms(p, y->term[mid], term) > 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == y->n || y->term[lo] != term) {
        poly_insert(y, lo, term, coef);
        return;
    }
    if (__builtin_add_overflow(y->coef[lo], coef, &y->coef[lo]) || y->coef[lo] == INT64_MIN)
        y->bad = true;
    if (!y->coef[lo])
        poly_remove(y, lo);
}

void poly_from(const struct expr_pool *p, struct poly *y, expr e)
{
    poly_clear(y);
    const struct expr_node *n = expr_at(p, e);
    if (!e) {
        y->bad = true;
    } else if (n->op == EXPR_CONST) {
        y->constant = n->value;
    } else if (n->op != EXPR_SUM) {
        y->n = 1;
        y->term[0] = e;
        y->coef[0] = 1;
    } else {
        y->constant = n->value;
        y->n = n->n;
        for (int32_t i = 0; i < n->n; i++) {
            y->term[i] = n->arg[i];
            y->coef[i] = n->coef[i];
        }
    }
}

void poly_add(const struct expr_pool *p, struct poly *y, const struct poly *x, int64_t factor)
{
    int64_t c;
    if (x->bad || __builtin_mul_overflow(x->constant, factor, &c))
        y->bad = true;
    else
        poly_add_constant(y, c);
    for (int32_t i = 0; i < x->n && !y->bad; i++) {
        if (__builtin_mul_overflow(x->coef[i], factor, &c))
            y->bad = true;
        else
            poly_add_term(p, y, x->term[i], c);
    }
}

int64_t poly_content(const struct poly *y)
{
    int64_t g = 0;
    for (int32_t i = 0; i < y->n; i++)
        g = size_gcd(g, y->coef[i]);
    return g;
}

void poly_divide_exact(struct poly *y, int64_t by)
{
    y->constant /= by;
    for (int32_t i = 0; i < y->n; i++)
        y->coef[i] /= by;
}

static expr term_make(struct expr_pool *p, const expr *atoms, int32_t n)
{
    if (n == 1)
        return atoms[0];
    return expr_intern(p, &(struct expr_node){.op = EXPR_PROD, .n = n, .arg = atoms});
}

static expr term_mul(struct expr_pool *p, expr a, expr b)
{
    const expr *x, *y;
    const int32_t nx = term_atoms(p, &a, &x), ny = term_atoms(p, &b, &y);
    expr atoms[2 * EXPR_MAX_DEGREE];
    if (nx + ny > EXPR_MAX_DEGREE)
        return EXPR_INVALID;
    for (int32_t i = 0, j = 0; i + j < nx + ny;) {
        const bool first = j == ny || (i < nx && expr_compare_atoms(p, x[i], y[j]) <= 0);
        atoms[i + j] = first ? x[i] : y[j];
        i += first;
        j += !first;
    }
    return term_make(p, atoms, nx + ny);
}

expr term_without(struct expr_pool *p, expr term, int32_t skip)
{
    const expr *x;
    const int32_t n = term_atoms(p, &term, &x);
    expr atoms[EXPR_MAX_DEGREE];
    for (int32_t i = 0, to = 0; i < n; i++)
        if (i != skip)
            atoms[to++] = x[i];
    return n == 1 ? EXPR_INVALID : term_make(p, atoms, n - 1);
}

bool term_divide(struct expr_pool *p, expr term, expr divisor, expr *q)
{
    const expr *x, *y;
    const int32_t nx = term_atoms(p, &term, &x), ny = term_atoms(p, &divisor, &y);
    expr atoms[EXPR_MAX_DEGREE];
    int32_t n = 0, j = 0;
    for (int32_t i = 0; i < nx; i++) {
        if (j < ny && x[i] == y[j])
            j++;
        else
            atoms[n++] = x[i];
    }
    if (j < ny)
        return false;
    *q = n ? term_make(p, atoms, n) : EXPR_INVALID;
    return true;
}

void poly_add_product(struct expr_pool *p, struct poly *y, const struct poly *x, expr term, int64_t coef)
{
    int64_t c;
    if (!term) {
        poly_add(p, y, x, coef);
        return;
    }
    if (__builtin_mul_overflow(x->constant, coef, &c))
        y->bad = true;
    poly_add_term(p, y, term, c);
    for (int32_t i = 0; i < x->n && !y->bad; i++) {
        if (__builtin_mul_overflow(x->coef[i], coef, &c))
            y->bad = true;
        else
            poly_add_term(p, y, term_mul(p, x->term[i], term), c);
    }
}

static void poly_mul(struct expr_pool *p, struct poly *y, const struct poly *a, const struct poly *b)
{
    poly_clear(y);
    poly_add(p, y, a, b->constant);
    for (int32_t j = 0; j < b->n && !y->bad; j++)
        poly_add_product(p, y, a, b->term[j], b->coef[j]);
}

/* x // m or x % m by a constant m > 0? */
static bool is_by_constant(const struct expr_pool *p, expr atom, enum expr_op op, int64_t *m)
{
    const struct expr_node *n = expr_at(p, atom);
    return n->op == op && expr_is_const(p, n->arg[1], m) && *m > 0;
}

/* Coefficient of (rest * (x // m)) in y, or 0. */
static int64_t coefficient_of_quotient(struct expr_pool *p, const struct poly *y, expr rest,
                                       const struct expr_node *mod)
{
    const expr quotient = expr_make(p, EXPR_FLOORDIV, mod->arg[0], mod->arg[1]);
    const expr term = !quotient || !rest ? quotient : term_mul(p, rest, quotient);
    for (int32_t i = 0; i < y->n && term; i++)
        if (y->term[i] == term)
            return y->coef[i];
    return 0;
}

/* The sum that replaces `coef * term` when its i-th atom can be undone; EXPR_INVALID when it cannot. For the pair
 * k*m*(x//m) + k*(x%m), the quotient's part is taken out of y here. */
static expr undo_division(struct expr_pool *p, struct poly *y, int32_t at, int32_t i)
{
    const expr term = y->term[at], *atoms;
    const int64_t coef = y->coef[at];
    int64_t m, want;
    (void)term_atoms(p, &term, &atoms);
    const expr atom = atoms[i];
    if (is_by_constant(p, atom, EXPR_FLOORDIV, &m)) {
        const expr x = expr_at(p, atom)->arg[0];
        if (coef % m || !expr_divisible(p, x, m))
            return EXPR_INVALID;
        return expr_scaled_product(p, coef / m, term_without(p, term, i), x);
    }
    if (!is_by_constant(p, atom, EXPR_MOD, &m) || __builtin_mul_overflow(coef, m, &want))
        return EXPR_INVALID;
    const struct expr_node mod = *expr_at(p, atom);
    const expr rest = term_without(p, term, i);
    if (coefficient_of_quotient(p, y, rest, &mod) != want)
        return EXPR_INVALID;
    const expr quotient = expr_make(p, EXPR_FLOORDIV, mod.arg[0], mod.arg[1]);
    poly_add_term(p, y, rest ? term_mul(p, rest, quotient) : quotient, -want);
    return expr_scaled_product(p, coef, rest, mod.arg[0]);
}

/* One replacement; false when none applies. Each lowers the number of divisions, so repeating ends. */
static bool simplify_divisions(struct expr_pool *p, struct poly *y)
{
    for (int32_t at = 0; at < y->n; at++) {
        const expr term = y->term[at], *atoms;
        const int64_t coef = y->coef[at];
        const int32_t n = term_atoms(p, &term, &atoms);
        for (int32_t i = 0; i < n; i++) {
            const expr by = undo_division(p, y, at, i);
            if (!by)
                continue;
            struct poly replacement;
            poly_from(p, &replacement, by);
            poly_add_term(p, y, term, -coef);
            poly_add(p, y, &replacement, 1);
            return !y->bad;
        }
    }
    return false;
}

expr poly_build(struct expr_pool *p, struct poly *y)
{
    while (!y->bad && simplify_divisions(p, y))
        ;
    if (y->bad)
        return EXPR_INVALID;
    if (y->n == 0)
        return expr_const(p, y->constant);
    if (y->n == 1 && y->coef[0] == 1 && y->constant == 0)
        return y->term[0];
    return expr_intern(
        p, &(struct expr_node){.op = EXPR_SUM, .n = y->n, .value = y->constant, .arg = y->term, .coef = y->coef});
}

expr poly_value(struct expr_pool *p, const struct poly *y)
{
    struct poly copy = *y;
    return poly_build(p, &copy);
}

expr expr_add(struct expr_pool *p, expr a, expr b)
{
    struct poly x, y;
    poly_from(p, &x, a);
    poly_from(p, &y, b);
    poly_add(p, &x, &y, 1);
    return poly_build(p, &x);
}

expr expr_sub(struct expr_pool *p, expr a, expr b)
{
    struct poly x, y;
    poly_from(p, &x, a);
    poly_from(p, &y, b);
    poly_add(p, &x, &y, -1);
    return poly_build(p, &x);
}

expr expr_mul(struct expr_pool *p, expr a, expr b)
{
    struct poly x, y, product;
    poly_from(p, &x, a);
    poly_from(p, &y, b);
    if (x.bad || y.bad)
        return EXPR_INVALID;
    poly_mul(p, &product, &x, &y);
    return poly_build(p, &product);
}

expr expr_mul_const(struct expr_pool *p, expr a, int64_t c)
{
    return expr_mul(p, a, expr_const(p, c));
}

expr expr_scaled_product(struct expr_pool *p, int64_t c, expr a, expr b)
{
    expr e = expr_const(p, c);
    if (a)
        e = expr_mul(p, e, a);
    return b ? expr_mul(p, e, b) : e;
}
