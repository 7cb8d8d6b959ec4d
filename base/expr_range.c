/* Interval and divisor of an expression from the ranges of its symbols. INT64_MIN and INT64_MAX stand for minus and
 * plus infinity and every operation saturates to them, which keeps the result conservative. */
#include "base/expr_priv.h"

#include "base/size.h"

#define NEG_INF INT64_MIN
#define POS_INF INT64_MAX

/* Inside, `multiple` 0 means: the value is 0. Outside it becomes a large power of two. */
static const int64_t multiple_of_zero = INT64_C(1) << 62;

static bool is_inf(int64_t v)
{
    return v == NEG_INF || v == POS_INF;
}

/* Of minus and plus infinity, `unknown` wins: NEG_INF for a minimum, POS_INF for a maximum. */
static int64_t sat_add(int64_t a, int64_t b, int64_t unknown)
{
    int64_t r;
    if (is_inf(a) && is_inf(b))
        return a == b ? a : unknown;
    if (is_inf(a))
        return a;
    if (is_inf(b))
        return b;
    return __builtin_add_overflow(a, b, &r) ? (a < 0 ? NEG_INF : POS_INF) : r;
}

static int64_t sat_mul(int64_t a, int64_t b)
{
    int64_t r;
    if (a == 0 || b == 0)
        return 0;
    const int64_t far = (a < 0) == (b < 0) ? POS_INF : NEG_INF;
    return is_inf(a) || is_inf(b) || __builtin_mul_overflow(a, b, &r) ? far : r;
}

/* b != 0 */
static int64_t sat_floor_div(int64_t a, int64_t b)
{
    if (is_inf(a))
        return (a < 0) == (b < 0) ? POS_INF : NEG_INF;
    if (is_inf(b))
        return a == 0 || (a < 0) == (b < 0) ? 0 : -1;
    return expr_floor_div(a, b);
}

static struct expr_range range_over(const int64_t *v, int n, int64_t multiple)
{
    struct expr_range r = {v[0], v[0], multiple};
    for (int i = 1; i < n; i++) {
        r.min = v[i] < r.min ? v[i] : r.min;
        r.max = v[i] > r.max ? v[i] : r.max;
    }
    return r;
}

static int64_t multiple_mul(int64_t a, int64_t b)
{
    int64_t r;
    return size_mul(a, b, &r) ? r : (a > b ? a : b);
}

static struct expr_range range_mul(struct expr_range a, struct expr_range b)
{
    const int64_t corners[4] = {sat_mul(a.min, b.min), sat_mul(a.min, b.max), sat_mul(a.max, b.min),
                                sat_mul(a.max, b.max)};
    return range_over(corners, 4, multiple_mul(a.multiple, b.multiple));
}

static struct expr_range range_add(struct expr_range a, struct expr_range b)
{
    return (struct expr_range){sat_add(a.min, b.min, NEG_INF), sat_add(a.max, b.max, POS_INF),
                               size_gcd(a.multiple, b.multiple)};
}

static struct expr_range range_const(int64_t v)
{
    return (struct expr_range){v, v, size_gcd(v, 0)};
}

static struct expr_range range_neg(struct expr_range a)
{
    return (struct expr_range){sat_mul(a.max, -1), sat_mul(a.min, -1), a.multiple};
}

static struct expr_range range_floordiv(struct expr_range a, struct expr_range b)
{
    if (b.max <= -1)
        return range_floordiv(range_neg(a), range_neg(b));
    if (b.min <= 0 && b.min != 0) { /* the divisor's sign is open, but its magnitude is at least 1 */
        const int64_t low = sat_mul(a.min, -1), far = a.max > low ? a.max : low;
        return (struct expr_range){sat_mul(far, -1), far, 1};
    }
    const int64_t least = b.min < 1 ? 1 : b.min, most = b.max < least ? least : b.max;
    const int64_t corners[4] = {sat_floor_div(a.min, least), sat_floor_div(a.min, most), sat_floor_div(a.max, least),
                                sat_floor_div(a.max, most)};
    const bool exact = least == most && a.multiple % least == 0;
    return range_over(corners, 4, exact ? a.multiple / least : 1);
}

static struct expr_range range_mod(struct expr_range a, struct expr_range b)
{
    if (b.max <= -1)
        return range_neg(range_mod(range_neg(a), range_neg(b)));
    struct expr_range r = {0, sat_add(b.max, -1, POS_INF), size_gcd(a.multiple, b.multiple)};
    if (b.min < 0)
        r.min = sat_add(b.min, 1, NEG_INF);
    else if (a.min >= 0 && a.max < r.max)
        r.max = a.max;
    if (r.max < 0)
        r.max = 0;
    if (b.min > 0 && a.min >= 0 && a.max < b.min)
        r.min = a.min;
    return r;
}

static struct expr_range range_union(struct expr_range a, struct expr_range b)
{
    const int64_t ends[4] = {a.min, a.max, b.min, b.max};
    return range_over(ends, 4, size_gcd(a.multiple, b.multiple));
}

static struct expr_range range_extremum(struct expr_range a, struct expr_range b, bool is_min)
{
    const bool low = is_min ? a.min < b.min : a.min > b.min, high = is_min ? a.max < b.max : a.max > b.max;
    return (struct expr_range){low ? a.min : b.min, high ? a.max : b.max, size_gcd(a.multiple, b.multiple)};
}

static struct expr_range range_inner(const struct expr_pool *p, expr e)
{
    return expr_at(p, e)->range;
}

static struct expr_range range_sum(const struct expr_pool *p, const struct expr_node *n)
{
    struct expr_range r = range_const(n->value);
    for (int32_t i = 0; i < n->n; i++)
        r = range_add(r, range_mul(range_const(n->coef[i]), range_inner(p, n->arg[i])));
    return r;
}

/* Even powers of one atom are not negative. */
static struct expr_range range_product(const struct expr_pool *p, const struct expr_node *n)
{
    struct expr_range r = range_const(1);
    for (int32_t i = 0; i < n->n; i++) {
        struct expr_range atom = range_inner(p, n->arg[i]);
        if (i + 1 < n->n && n->arg[i + 1] == n->arg[i]) {
            const struct expr_range square = range_mul(atom, atom);
            const bool crosses = atom.min < 0 && atom.max > 0;
            atom = (struct expr_range){crosses ? 0 : square.min, square.max, square.multiple};
            if (atom.min < 0)
                atom.min = 0;
            i++;
        }
        r = range_mul(r, atom);
    }
    return r;
}

static struct expr_range range_binary(enum expr_op op, struct expr_range a, struct expr_range b)
{
    switch (op) {
    case EXPR_FLOORDIV: return range_floordiv(a, b);
    case EXPR_MOD: return range_mod(a, b);
    case EXPR_MIN: return range_extremum(a, b, true);
    case EXPR_MAX: return range_extremum(a, b, false);
    default: return (struct expr_range){0, 1, 1};
    }
}

struct expr_range expr_node_range(const struct expr_pool *p, const struct expr_node *n)
{
    switch ((enum expr_op)n->op) {
    case EXPR_CONST: return range_const(n->value);
    case EXPR_SYM: return p->symbols.data[n->value].range;
    case EXPR_SUM: return range_sum(p, n);
    case EXPR_PROD: return range_product(p, n);
    case EXPR_SELECT: return range_union(range_inner(p, n->arg[1]), range_inner(p, n->arg[2]));
    default: return range_binary((enum expr_op)n->op, range_inner(p, n->arg[0]), range_inner(p, n->arg[1]));
    }
}

/* Operands stand before the nodes that use them, so one walk in order suffices. Node 0 is the invalid one. */
void expr_symbol_narrow(struct expr_pool *p, int32_t symbol, struct expr_range r)
{
    p->symbols.data[symbol].range = r;
    for (int64_t e = 1; e < p->nodes.len; e++)
        p->nodes.data[e].range = expr_node_range(p, &p->nodes.data[e]);
}

struct expr_range expr_range_of(const struct expr_pool *p, expr e)
{
    if (!e)
        return (struct expr_range){NEG_INF, POS_INF, 1};
    struct expr_range r = range_inner(p, e);
    if (r.multiple == 0)
        r.multiple = multiple_of_zero;
    return r;
}

bool expr_divisible(const struct expr_pool *p, expr e, int64_t by)
{
    if (!e || by == 0)
        return false;
    return range_inner(p, e).multiple % by == 0;
}
