/* Arithmetic on dimensions: which of two sizes to believe, exact division, bounds.
 *
 * Two different expressions where ONNX demands one size are taken as equal: the model's author promises it and
 * binding checks it. Only two different constants are a contradiction. The simpler expression is kept, because what
 * follows (memory sizes, loop bounds) is computed from it. */
#include "ir/ops/infer.h"

bool infer_dim_is(const struct ir_ctx *cx, expr e, int64_t value)
{
    int64_t v;
    return expr_is_const(&cx->exprs, e, &v) && v == value;
}

bool infer_may_be_negative(const struct ir_ctx *cx, expr e)
{
    return expr_range_of(&cx->exprs, e).min < 0;
}

const char *infer_dim_text(struct ir_ctx *cx, expr e)
{
    return e == EXPR_INVALID ? "?" : expr_text(&cx->exprs, e, &cx->scratch);
}

/* Invented symbols start with an underscore: a named size is worth more than an anonymous one. */
static int64_t weight(const struct ir_ctx *cx, expr e, int depth)
{
    const struct expr_node *x = &cx->exprs.nodes.data[e];
    if (depth == 0)
        return 1000;
    if (x->op == EXPR_SYM)
        return str_text(&cx->strings, cx->exprs.symbols.data[x->value].name)[0] == '_' ? 50 : 1;
    int64_t w = x->op == EXPR_SUM || x->op == EXPR_PROD || x->op == EXPR_CONST ? 1 : 20;
    for (int32_t i = 0; i < x->n && w < 1000; i++)
        w += weight(cx, x->arg[i], depth - 1);
    return w;
}

void infer_claim(struct ir_ctx *cx, expr size, int64_t value)
{
    if (!cx->claims)
        return;
    const struct ir_claim c = {size, value, cx->inferring ? cx->inferring->loc : NULL};
    vec_push(cx->claims->arena, &cx->claims->list, c);
}

expr infer_dim_same(struct ir_ctx *cx, expr a, expr b)
{
    int64_t va, vb;
    if (a == b)
        return a;
    if (a == EXPR_INVALID || b == EXPR_INVALID)
        return EXPR_INVALID;
    const bool ca = expr_is_const(&cx->exprs, a, &va), cb = expr_is_const(&cx->exprs, b, &vb);
    if (ca && cb)
        return EXPR_INVALID;
    if (ca || cb) {
        infer_claim(cx, ca ? b : a, ca ? va : vb);
        return ca ? a : b;
    }
    return weight(cx, b, 8) < weight(cx, a, 8) ? b : a;
}

expr infer_dim_broadcast(struct ir_ctx *cx, expr a, expr b)
{
    if (infer_dim_is(cx, a, 1))
        return b;
    if (infer_dim_is(cx, b, 1))
        return a;
    if (a == EXPR_INVALID || b == EXPR_INVALID || a == b)
        return infer_dim_same(cx, a, b);
    const bool zero = infer_dim_is(cx, a, 0);
    if (zero || infer_dim_is(cx, b, 0)) { /* beside it only 0 and 1 are possible, and both give 0 */
        int64_t other;
        return expr_is_const(&cx->exprs, zero ? b : a, &other) ? EXPR_INVALID : zero ? a : b;
    }
    if (expr_range_of(&cx->exprs, a).max <= 1) /* at most 1: the other decides, as it does for 1 */
        return b;
    if (expr_range_of(&cx->exprs, b).max <= 1)
        return a;
    return infer_dim_same(cx, a, b);
}

/* Of two sizes that nothing proves equal, that of the target: models expand what may be 1, not what may be more. */
static expr infer_dim_expand(struct ir_ctx *cx, expr x, expr target)
{
    int64_t value;
    const expr d = infer_dim_broadcast(cx, x, target);
    if (d != x || x == target || expr_range_of(&cx->exprs, target).max <= 1)
        return d;
    if (expr_is_const(&cx->exprs, x, &value) || weight(cx, target, 8) >= 50) /* known better; invented */
        return d;
    return target;
}

typedef expr join_fn(struct ir_ctx *cx, expr a, expr b);

static bool join_shapes(struct ir_ctx *cx, const struct shape *a, const struct shape *b, join_fn *join,
                        struct shape *out)
{
    if (a->rank < 0 || b->rank < 0) {
        *out = SHAPE_UNKNOWN;
        return true;
    }
    struct shape r = {.rank = a->rank > b->rank ? a->rank : b->rank};
    for (int i = 1; i <= r.rank; i++) {
        const expr x = i <= a->rank ? a->d[a->rank - i] : EXPR_INVALID;
        const expr y = i <= b->rank ? b->d[b->rank - i] : EXPR_INVALID;
        const expr d = !x ? y : !y ? x : join(cx, x, y);
        if (!d)
            return false;
        r.d[r.rank - i] = d;
    }
    *out = r;
    return true;
}

bool infer_broadcast(struct ir_ctx *cx, const struct shape *a, const struct shape *b, struct shape *out)
{
    return join_shapes(cx, a, b, infer_dim_broadcast, out);
}

bool infer_expand(struct ir_ctx *cx, const struct shape *x, const struct shape *target, struct shape *out)
{
    return join_shapes(cx, x, target, infer_dim_expand, out);
}

expr infer_product(struct ir_ctx *cx, const expr *d, int n)
{
    expr p = expr_const(&cx->exprs, 1);
    for (int i = 0; i < n && p; i++)
        p = d[i] ? expr_mul(&cx->exprs, p, d[i]) : EXPR_INVALID;
    return p;
}

/* Sum view of an expression: term i is coef * the product of the atoms of `term`; the constant is term EXPR_INVALID. */
static int32_t n_terms(const struct expr_node *x)
{
    return x->op == EXPR_SUM ? x->n + (x->value != 0) : 1;
}
static expr term_of(const struct expr_node *x, expr self, int32_t i, int64_t *coef)
{
    *coef = x->op == EXPR_CONST ? x->value : 1;
    if (x->op != EXPR_SUM)
        return x->op == EXPR_CONST ? EXPR_INVALID : self;
    *coef = i < x->n ? x->coef[i] : x->value;
    return i < x->n ? x->arg[i] : EXPR_INVALID;
}

static int32_t atoms_of(const struct expr_pool *p, expr term, const expr **atoms, const expr *self)
{
    if (term == EXPR_INVALID)
        return 0;
    const struct expr_node *x = &p->nodes.data[term];
    *atoms = x->op == EXPR_PROD ? x->arg : self;
    return x->op == EXPR_PROD ? x->n : 1;
}

/* (ca * ta) / (cb * tb), or EXPR_INVALID when tb's atoms are not all among ta's. */
static expr term_div(struct expr_pool *p, int64_t ca, expr ta, int64_t cb, expr tb)
{
    const expr *a = NULL, *b = NULL;
    const int32_t na = atoms_of(p, ta, &a, &ta), nb = atoms_of(p, tb, &b, &tb);
    if (cb == 0 || cb == -1 || ca % cb != 0 || na > 64)
        return EXPR_INVALID;
    uint64_t used = 0;
    for (int32_t j = 0; j < nb; j++) {
        int32_t i = 0;
        while (i < na && (a[i] != b[j] || (used >> i & 1)))
            i++;
        if (i == na)
            return EXPR_INVALID;
        used |= (uint64_t)1 << i;
    }
    expr q = expr_const(p, ca / cb);
    expr rest[64];
    int32_t n_rest = 0;
    for (int32_t i = 0; i < na; i++)
        if (!(used >> i & 1))
            rest[n_rest++] = a[i];
    for (int32_t i = 0; i < n_rest && q; i++)
        q = expr_mul(p, q, rest[i]);
    return q;
}

/* Quotient under the guess that it does not contain the atoms of b's term `lead`; the caller multiplies back. */
static expr div_by_lead(struct expr_pool *p, expr a, int64_t cb, expr lead, bool every)
{
    const struct expr_node x = p->nodes.data[a];
    expr q = expr_const(p, 0);
    for (int32_t i = 0; i < n_terms(&x) && q; i++) {
        int64_t ca;
        const expr ta = term_of(&x, a, i, &ca);
        const expr part = term_div(p, ca, ta, cb, lead);
        if (part)
            q = expr_add(p, q, part);
        else if (every)
            return EXPR_INVALID;
    }
    return q;
}

expr infer_div_exact(struct ir_ctx *cx, expr a, expr b)
{
    struct expr_pool *p = &cx->exprs;
    if (a == EXPR_INVALID || b == EXPR_INVALID || infer_dim_is(cx, b, 0))
        return EXPR_INVALID;
    if (a == b)
        return expr_const(p, 1);
    if (infer_dim_is(cx, b, 1))
        return a;
    const struct expr_node y = p->nodes.data[b];
    const bool single = n_terms(&y) == 1;
    for (int32_t i = 0; i < n_terms(&y) && i < 16; i++) {
        int64_t cb;
        const expr lead = term_of(&y, b, i, &cb);
        const expr q = div_by_lead(p, a, cb, lead, single);
        if (q && !infer_dim_is(cx, q, 0) && expr_mul(p, q, b) == a)
            return q;
    }
    return infer_dim_is(cx, a, 0) ? a : EXPR_INVALID;
}

/* Removes pairs of equal factors. */
static void cancel(expr *a, int *na, expr *b, int *nb)
{
    for (int i = 0; i < *na; i++)
        for (int j = 0; j < *nb; j++)
            if (a[i] == b[j]) {
                a[i--] = a[--*na];
                b[j] = b[--*nb];
                break;
            }
}

expr infer_quotient(struct ir_ctx *cx, const expr *num, int n_num, const expr *den, int n_den)
{
    expr a[IR_MAX_RANK], b[IR_MAX_RANK];
    for (int i = 0; i < n_num; i++)
        a[i] = num[i];
    for (int i = 0; i < n_den; i++)
        b[i] = den[i];
    cancel(a, &n_num, b, &n_den);
    const expr x = infer_product(cx, a, n_num), y = infer_product(cx, b, n_den);
    const expr q = infer_div_exact(cx, x, y);
    int64_t c;
    if (q || x == EXPR_INVALID || y == EXPR_INVALID || infer_dim_is(cx, y, 0))
        return q;
    if (expr_is_const(&cx->exprs, x, &c) && expr_is_const(&cx->exprs, y, &c))
        return EXPR_INVALID;
    return expr_floordiv(&cx->exprs, x, y);
}

expr infer_min(struct ir_ctx *cx, expr a, expr b)
{
    if (expr_proves_le(&cx->exprs, a, b))
        return a;
    if (expr_proves_le(&cx->exprs, b, a))
        return b;
    return expr_min(&cx->exprs, a, b);
}

expr infer_max(struct ir_ctx *cx, expr a, expr b)
{
    if (expr_proves_le(&cx->exprs, a, b))
        return b;
    if (expr_proves_le(&cx->exprs, b, a))
        return a;
    return expr_max(&cx->exprs, a, b);
}
