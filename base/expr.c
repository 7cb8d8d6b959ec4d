/* Expression nodes: interning, the canonical order, symbols, and the operators that are no sum and no division. */
#include "base/expr.h"

#include "base/expr_priv.h"

#include <string.h>

void expr_pool_init(struct expr_pool *p, struct arena *a, struct strtab *strings)
{
    *p = (struct expr_pool){.arena = a, .strings = strings};
    map_init(&p->index, a);
    map_init(&p->by_name, a);
    const struct expr_node invalid = {.op = EXPR_CONST};
    vec_push(a, &p->nodes, invalid);
    vec_push(a, &p->chain, 0);
}

int32_t expr_symbol_find(const struct expr_pool *p, sym name)
{
    /* an entry may be left from a symbol that a failed parse took back */
    const uint64_t *at = map_find(&p->by_name, name);
    if (!at || (int64_t)*at >= p->symbols.len || p->symbols.data[*at].name != name)
        return -1;
    return (int32_t)*at;
}

int32_t expr_symbol_new(struct expr_pool *p, sym name, struct expr_range r)
{
    const int32_t have = expr_symbol_find(p, name);
    if (have >= 0)
        return have;
    NPUC_ASSERT(p->symbols.len < INT32_MAX);
    if (r.multiple < 1)
        r.multiple = 1;
    const struct expr_symbol s = {name, r};
    vec_push(p->arena, &p->symbols, s);
    map_put(&p->by_name, name, (uint64_t)p->symbols.len - 1);
    return (int32_t)(p->symbols.len - 1);
}

static uint64_t node_hash(const struct expr_node *n)
{
    const int64_t head[3] = {n->op, n->n, n->value};
    uint64_t h = map_hash_bytes(head, (int64_t)sizeof head);
    if (n->n)
        h = h * 31 + map_hash_bytes(n->arg, n->n * (int64_t)sizeof *n->arg);
    if (n->coef)
        h = h * 31 + map_hash_bytes(n->coef, n->n * (int64_t)sizeof *n->coef);
    return h;
}

static bool node_equal(const struct expr_node *a, const struct expr_node *b)
{
    if (a->op != b->op || a->n != b->n || a->value != b->value)
        return false;
    const size_t n = (size_t)a->n;
    return !n || (!memcmp(a->arg, b->arg, n * sizeof *a->arg) &&
                  (!a->coef || !memcmp(a->coef, b->coef, n * sizeof *a->coef)));
}

expr expr_intern(struct expr_pool *p, const struct expr_node *n)
{
    const uint64_t hash = node_hash(n);
    const uint64_t *found = map_find(&p->index, hash);
    const int32_t first = found ? (int32_t)*found : 0;
    for (expr e = first; e; e = p->chain.data[e])
        if (node_equal(expr_at(p, e), n))
            return e;
    struct expr_node copy = *n;
    copy.weight = 1;
    for (int32_t i = 0; i < n->n; i++) {
        if (!n->arg[i])
            return EXPR_INVALID;
        copy.weight += expr_at(p, n->arg[i])->weight;
        if (copy.weight > EXPR_MAX_WEIGHT)
            return EXPR_INVALID;
    }
    NPUC_ASSERT(p->nodes.len < INT32_MAX);
    copy.range = expr_node_range(p, n);
    copy.arg = n->n ? arena_copy(p->arena, n->arg, n->n * (int64_t)sizeof *n->arg) : NULL;
    copy.coef = n->coef ? arena_copy(p->arena, n->coef, n->n * (int64_t)sizeof *n->coef) : NULL;
    const expr e = (expr)p->nodes.len;
    vec_push(p->arena, &p->nodes, copy);
    vec_push(p->arena, &p->chain, first);
    map_put(&p->index, hash, (uint64_t)e);
    return e;
}

expr expr_make(struct expr_pool *p, enum expr_op op, expr a, expr b)
{
    return expr_intern(p, &(struct expr_node){.op = (uint8_t)op, .n = 2, .arg = (const expr[]){a, b}});
}

expr expr_const(struct expr_pool *p, int64_t v)
{
    return expr_intern(p, &(struct expr_node){.op = EXPR_CONST, .value = v});
}

expr expr_sym(struct expr_pool *p, int32_t symbol)
{
    NPUC_ASSERT(symbol >= 0 && symbol < p->symbols.len);
    return expr_intern(p, &(struct expr_node){.op = EXPR_SYM, .value = symbol});
}

bool expr_is_const(const struct expr_pool *p, expr e, int64_t *value)
{
    if (!e || expr_at(p, e)->op != EXPR_CONST)
        return false;
    *value = expr_at(p, e)->value;
    return true;
}

static int compare_int(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

static int compare_symbols(const struct expr_pool *p, int64_t a, int64_t b)
{
    const sym x = p->symbols.data[a].name, y = p->symbols.data[b].name;
    const int64_t nx = str_len(p->strings, x), ny = str_len(p->strings, y);
    const int c = memcmp(str_text(p->strings, x), str_text(p->strings, y), (size_t)(nx < ny ? nx : ny));
    return c ? c : compare_int(nx, ny);
}

/* Nodes with equal ids are equal, so only the first differing operand is entered: linear in the depth. */
int expr_compare_atoms(const struct expr_pool *p, expr a, expr b)
{
    if (a == b)
        return 0;
    const struct expr_node *x = expr_at(p, a), *y = expr_at(p, b);
    if (x->op != y->op)
        return compare_int(x->op, y->op);
    if (x->op == EXPR_SYM)
        return compare_symbols(p, x->value, y->value);
    if (x->n != y->n)
        return compare_int(x->n, y->n);
    for (int32_t i = 0; i < x->n; i++) {
        if (x->arg[i] != y->arg[i])
            return expr_compare_atoms(p, x->arg[i], y->arg[i]);
        if (x->coef && x->coef[i] != y->coef[i])
            return compare_int(x->coef[i], y->coef[i]);
    }
    return compare_int(x->value, y->value);
}

/* Lexicographic order of the exponents, earlier atoms counting more: an order that multiplication keeps, as the
 * division of polynomials needs. */
int expr_compare_terms(const struct expr_pool *p, expr a, expr b)
{
    if (a == b)
        return 0;
    const expr *x, *y;
    const int32_t nx = term_atoms(p, &a, &x), ny = term_atoms(p, &b, &y);
    for (int32_t i = 0; i < nx && i < ny; i++) {
        const int c = expr_compare_atoms(p, x[i], y[i]);
        if (c)
            return -c;
    }
    return compare_int(nx, ny);
}

/* min(min(x, 5), 3): both constants become one. */
static expr extremum_of_constants(struct expr_pool *p, enum expr_op op, expr a, expr b)
{
    int64_t outer, inner;
    const struct expr_node *n = expr_at(p, a);
    if (!expr_is_const(p, b, &outer) || n->op != op)
        return EXPR_INVALID;
    const expr x = n->arg[1], y = n->arg[0];
    const expr rest = expr_is_const(p, x, &inner) ? y : x;
    if (rest == x && !expr_is_const(p, y, &inner))
        return EXPR_INVALID;
    const bool first = op == EXPR_MIN ? inner < outer : inner > outer;
    const expr c = expr_const(p, first ? inner : outer);
    return op == EXPR_MIN ? expr_min(p, rest, c) : expr_max(p, rest, c);
}

/* INT64_MAX and INT64_MIN as "no limit", as slices write it; the range cannot tell them from unknown. */
static bool is_limit(const struct expr_pool *p, expr e, enum expr_op op)
{
    int64_t v;
    return expr_is_const(p, e, &v) && v == (op == EXPR_MIN ? INT64_MAX : INT64_MIN);
}

static expr extremum(struct expr_pool *p, enum expr_op op, expr a, expr b)
{
    if (!a || !b || a == b)
        return a && b ? a : EXPR_INVALID;
    if (is_limit(p, a, op) || is_limit(p, b, op))
        return is_limit(p, a, op) ? b : a;
    const expr d = expr_sub(p, b, a), back = expr_sub(p, a, b);
    if (d && expr_proves_nonneg(p, d, EXPR_QUICK_PROOF))
        return op == EXPR_MIN ? a : b;
    if (back && expr_proves_nonneg(p, back, EXPR_QUICK_PROOF))
        return op == EXPR_MIN ? b : a;
    const bool swap =
        expr_at(p, a)->op == EXPR_CONST || (expr_at(p, b)->op != EXPR_CONST && expr_compare_atoms(p, a, b) > 0);
    const expr x = swap ? b : a, y = swap ? a : b; /* a constant stands last */
    const expr merged = extremum_of_constants(p, op, x, y);
    return merged ? merged : expr_make(p, op, x, y);
}

expr expr_min(struct expr_pool *p, expr a, expr b)
{
    return extremum(p, EXPR_MIN, a, b);
}

expr expr_max(struct expr_pool *p, expr a, expr b)
{
    return extremum(p, EXPR_MAX, a, b);
}

/* Splits d = right - left with only positive coefficients on both sides; the constant of d is left out. */
static void split_sides(struct expr_pool *p, const struct poly *d, struct poly *left, struct poly *right)
{
    left->n = right->n = 0;
    left->bad = right->bad = false;
    left->constant = right->constant = 0;
    for (int32_t i = 0; i < d->n; i++) {
        if (d->coef[i] > 0)
            poly_add_term(p, right, d->term[i], d->coef[i]);
        else if (d->coef[i] > INT64_MIN)
            poly_add_term(p, left, d->term[i], -d->coef[i]);
        else
            left->bad = true;
    }
}

/* d >= 0, as "left <= right" or "left < right" with integers tightened, so that a < b and a + 1 <= b agree. */
static expr compare_order(struct expr_pool *p, struct poly *d)
{
    const int64_t g = poly_content(d);
    struct poly left, right;
    if (g > 1) {
        d->constant = expr_floor_div(d->constant, g) * g;
        poly_divide_exact(d, g);
    }
    split_sides(p, d, &left, &right);
    const int64_t c = d->constant;
    const bool strict = c < 0 && left.n > 0 && c > INT64_MIN;
    if (c == INT64_MIN)
        return EXPR_INVALID;
    poly_add_constant(c >= 0 ? &right : &left, c >= 0 ? c : -c - strict);
    const expr l = poly_build(p, &left), r = poly_build(p, &right);
    return expr_make(p, strict ? EXPR_LT : EXPR_LE, l, r);
}

static expr compare_equal(struct expr_pool *p, struct poly *d)
{
    const int64_t g = poly_content(d);
    struct poly left, right;
    if (g > 1 && d->constant % g)
        return expr_const(p, 0);
    if (g > 1)
        poly_divide_exact(d, g);
    split_sides(p, d, &left, &right);
    const int64_t c = d->constant;
    if (c == INT64_MIN)
        return EXPR_INVALID;
    poly_add_constant(c >= 0 ? &right : &left, c >= 0 ? c : -c);
    const expr l = poly_build(p, &left), r = poly_build(p, &right);
    /* the greatest term, or else what is no constant, stands left */
    const bool swap = l && r && (d->coef[0] > 0);
    return swap ? expr_make(p, EXPR_EQ, r, l) : expr_make(p, EXPR_EQ, l, r);
}

/* -1: not decided, else the truth value. */
static int decide(struct expr_pool *p, enum expr_op op, expr d)
{
    const struct expr_range r = expr_range_of(p, d);
    int64_t v;
    if (op == EXPR_EQ) {
        if (expr_is_const(p, d, &v))
            return v == 0;
        return r.min > 0 || r.max < 0 ? 0 : -1;
    }
    if (expr_proves_nonneg(p, d, EXPR_QUICK_PROOF))
        return 1;
    const expr opposite = expr_sub(p, expr_const(p, -1), d);
    return opposite && expr_proves_nonneg(p, opposite, EXPR_QUICK_PROOF) ? 0 : -1;
}

expr expr_cmp(struct expr_pool *p, enum expr_op op, expr a, expr b)
{
    NPUC_ASSERT(op == EXPR_EQ || op == EXPR_LT || op == EXPR_LE);
    expr d = expr_sub(p, b, a);
    if (op == EXPR_LT)
        d = expr_sub(p, d, expr_const(p, 1));
    if (!d)
        return EXPR_INVALID;
    const int known = decide(p, op, d);
    if (known >= 0)
        return expr_const(p, known);
    struct poly y;
    poly_from(p, &y, d);
    return op == EXPR_EQ ? compare_equal(p, &y) : compare_order(p, &y);
}

expr expr_select(struct expr_pool *p, expr c, expr a, expr b)
{
    if (!c || !a || !b)
        return EXPR_INVALID;
    const struct expr_range r = expr_range_of(p, c);
    if (a == b || r.min > 0 || r.max < 0)
        return a;
    if (r.min == 0 && r.max == 0)
        return b;
    int64_t x, y;
    if (r.min >= 0 && r.max <= 1 && expr_is_const(p, a, &x) && expr_is_const(p, b, &y) && x == 1 && y == 0)
        return c;
    return expr_intern(p, &(struct expr_node){.op = EXPR_SELECT, .n = 3, .arg = (const expr[]){c, a, b}});
}

expr expr_align(struct expr_pool *p, expr a, int64_t to)
{
    return expr_mul_const(p, expr_ceildiv(p, a, expr_const(p, to)), to);
}

bool expr_uses_symbol(const struct expr_pool *p, expr e, int32_t symbol)
{
    const struct expr_node *n = expr_at(p, e);
    if (n->op == EXPR_SYM)
        return n->value == symbol;
    for (int32_t i = 0; i < n->n; i++)
        if (expr_uses_symbol(p, n->arg[i], symbol))
            return true;
    return false;
}
