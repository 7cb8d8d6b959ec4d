/* Proofs of e >= 0, tried in order of cost:
 *   1. the interval of e;
 *   2. for products: every atom x with a finite bound is written as bound + x' or bound - x' with x' >= 0, after which
 *      s*s - s with s >= 1, or 4096*h - s*h with s <= 4096, has no negative term;
 *   3. one atom is replaced by something weaker and simpler, and the rest is proven again:
 *      x//m by (x - m + 1)/m or x/m (times m), x%m by its bound or by x - m*(x//m), min, max and select by their arms.
 * Before that, what is negative at one of a few points of the symbols' ranges is given up. Steps are counted, so a
 * failing proof ends soon; "not proven" says nothing. */
#include "base/expr_priv.h"

#include <string.h>

enum {
    MAX_DEPTH = 5,
    MAX_ATOMS = 8, /* distinct atoms in step 2 */
    MAX_MONOS = 48,
    MAX_CHOICES = 3,   /* atoms for which both bounds are tried */
    MAX_SYMBOLS = 128, /* of a pool for which points are tried */
    MAX_SHIFTS = 8,    /* tries of step 2 in one proof: it costs a hundred times step 1 */
    CORNERS = 4,       /* of the symbols' ranges */
    POINTS = 24,       /* at which a refutation is looked for, corners first */
    NEAR = 15
};

#define FAR ((int64_t)1 << 20)

/* Step 2: monomials with one exponent per atom. */
struct mono {
    int64_t coef;
    uint8_t power[MAX_ATOMS];
};
struct monos {
    int32_t n, n_atoms;
    bool bad;
    expr atom[MAX_ATOMS];
    struct expr_range range[MAX_ATOMS];
    struct mono m[MAX_MONOS];
};

static void monos_add(struct monos *to, const struct mono *m)
{
    for (int32_t i = 0; i < to->n; i++) {
        if (!memcmp(to->m[i].power, m->power, sizeof m->power)) {
            if (__builtin_add_overflow(to->m[i].coef, m->coef, &to->m[i].coef))
                to->bad = true;
            return;
        }
    }
    if (to->n == MAX_MONOS)
        to->bad = true;
    else
        to->m[to->n++] = *m;
}

static int32_t monos_atom(const struct expr_pool *p, struct monos *s, expr atom)
{
    for (int32_t i = 0; i < s->n_atoms; i++)
        if (s->atom[i] == atom)
            return i;
    if (s->n_atoms == MAX_ATOMS)
        return -1;
    s->atom[s->n_atoms] = atom;
    s->range[s->n_atoms] = expr_range_of(p, atom);
    return s->n_atoms++;
}

static bool monos_from(const struct expr_pool *p, const struct poly *y, struct monos *s)
{
    memset(s, 0, sizeof *s);
    monos_add(s, &(struct mono){.coef = y->constant});
    for (int32_t i = 0; i < y->n && !s->bad; i++) {
        struct mono m = {.coef = y->coef[i]};
        const expr *atoms;
        const int32_t n = term_atoms(p, &y->term[i], &atoms);
        for (int32_t j = 0; j < n; j++) {
            const int32_t a = monos_atom(p, s, atoms[j]);
            if (a < 0)
                return false;
            m.power[a]++;
        }
        monos_add(s, &m);
    }
    return !s->bad;
}

/* Substitutes atom a = base + sign * a'. Multiplies out one power at a time: (base + sign*a')^k by Horner's rule. */
static void monos_shift(struct monos *s, int32_t a, int64_t base, int64_t sign)
{
    struct monos out = {.n = 0};
    for (int32_t i = 0; i < s->n; i++) {
        const int32_t k = s->m[i].power[a];
        int64_t c[EXPR_MAX_DEGREE + 1] = {s->m[i].coef};
        for (int32_t step = 0; step < k; step++) {
            for (int32_t j = step + 1; j >= 0; j--) {
                int64_t low, high;
                if (__builtin_mul_overflow(j ? c[j - 1] : 0, sign, &high) ||
                    __builtin_mul_overflow(j <= step ? c[j] : 0, base, &low) ||
                    __builtin_add_overflow(low, high, &c[j]))
                    out.bad = true;
            }
        }
        for (int32_t j = 0; j <= k; j++) {
            struct mono m = s->m[i];
            m.coef = c[j];
            m.power[a] = (uint8_t)j;
            if (m.coef == INT64_MIN)
                out.bad = true;
            if (m.coef)
                monos_add(&out, &m);
        }
    }
    s->n = out.n;
    s->bad = s->bad || out.bad;
    memcpy(s->m, out.m, sizeof s->m);
}

/* All atoms lie in [0, width]: the least value of each monomial. */
static bool monos_nonneg(const struct monos *s, const int64_t *width)
{
    int64_t sum = 0;
    for (int32_t i = 0; i < s->n; i++) {
        int64_t least = s->m[i].coef;
        for (int32_t a = 0; a < s->n_atoms; a++) {
            for (int k = 0; k < s->m[i].power[a]; k++) {
                if (least > 0)
                    least = 0;
                if (least < 0 && (width[a] == INT64_MAX || __builtin_mul_overflow(least, width[a], &least)))
                    return false;
            }
        }
        if (__builtin_add_overflow(sum, least, &sum))
            return false;
    }
    return sum >= 0;
}

struct proof {
    struct expr_pool *p;
    int32_t steps, shifts; /* left */
};

/* Bit i of `high`: the i-th atom that has both bounds is measured from its upper one. */
static bool proves_shifted(const struct monos *from, uint32_t high)
{
    struct monos s = *from;
    int64_t width[MAX_ATOMS];
    int choice = 0;
    for (int32_t a = 0; a < s.n_atoms; a++) {
        const struct expr_range r = s.range[a];
        const bool has_min = r.min != INT64_MIN, has_max = r.max != INT64_MAX;
        if ((!has_min && !has_max) || (has_min && r.min == INT64_MAX) || (has_max && r.max == INT64_MIN))
            return false;
        bool from_max = !has_min;
        if (has_min && has_max && choice < MAX_CHOICES)
            from_max = high >> choice++ & 1;
        if (!has_min || !has_max || __builtin_sub_overflow(r.max, r.min, &width[a]))
            width[a] = INT64_MAX;
        monos_shift(&s, a, from_max ? r.max : r.min, from_max ? -1 : 1);
        if (s.bad)
            return false;
    }
    return monos_nonneg(&s, width);
}

static bool proves_by_shifting(struct proof *f, const struct poly *y)
{
    const struct expr_pool *p = f->p;
    struct monos s;
    bool has_product = false;
    for (int32_t i = 0; i < y->n; i++)
        has_product = has_product || expr_at(p, y->term[i])->op == EXPR_PROD;
    if (!has_product || !monos_from(p, y, &s))
        return false; /* without products the interval was exact */
    int bounded = 0;
    for (int32_t a = 0; a < s.n_atoms; a++) {
        const bool has_min = s.range[a].min != INT64_MIN, has_max = s.range[a].max != INT64_MAX;
        if (!has_min && !has_max)
            return false;
        bounded += has_min && has_max;
    }
    f->shifts--;
    const int choices = bounded < MAX_CHOICES ? bounded : MAX_CHOICES;
    for (uint32_t high = 0; high < 1u << choices; high++)
        if (proves_shifted(&s, high))
            return true;
    return false;
}

/* Step 3. The atom under consideration: e = others + coef * rest * atom, `rest` EXPR_INVALID for 1; sign is that of
 * coef * rest, 0 when unknown. */
struct spot {
    const struct expr_node *atom;
    expr others, rest;
    int64_t coef;
    int sign;
};

static bool prove(struct proof *f, expr e, int depth);

/* others + coef * rest * by */
static expr put_back(struct proof *f, const struct spot *s, expr by)
{
    return by ? expr_add(f->p, s->others, expr_scaled_product(f->p, s->coef, s->rest, by)) : EXPR_INVALID;
}

/* m*e >= m*others + coef*rest*(x [- m + 1]) for m >= 1; m*e > -m suffices since e is an integer. */
static bool prove_floordiv(struct proof *f, const struct spot *s, int depth)
{
    const expr x = s->atom->arg[0], m = s->atom->arg[1];
    if (!s->sign || expr_range_of(f->p, m).min < 1)
        return false;
    const expr slack = expr_sub(f->p, m, expr_const(f->p, 1));
    const expr bound = s->sign > 0 ? expr_sub(f->p, x, slack) : x;
    if (!bound || !slack)
        return false;
    const expr scaled =
        expr_add(f->p, expr_mul(f->p, m, s->others), expr_scaled_product(f->p, s->coef, s->rest, bound));
    return prove(f, expr_add(f->p, scaled, slack), depth);
}

static bool prove_mod(struct proof *f, const struct spot *s, int depth)
{
    const expr x = s->atom->arg[0], m = s->atom->arg[1];
    if (s->sign < 0 && expr_range_of(f->p, m).min >= 1 &&
        prove(f, put_back(f, s, expr_sub(f->p, m, expr_const(f->p, 1))), depth))
        return true;
    const expr quotient = expr_floordiv(f->p, x, m);
    return prove(f, put_back(f, s, expr_sub(f->p, x, expr_mul(f->p, m, quotient))), depth);
}

/* Both arms bound the atom on one side, so there either suffices; else both must hold. */
static bool prove_arms(struct proof *f, const struct spot *s, int depth)
{
    const int32_t last = s->atom->n - 1;
    const expr a = put_back(f, s, s->atom->arg[last - 1]), b = put_back(f, s, s->atom->arg[last]);
    const int one_suffices = s->atom->op == EXPR_MIN ? -1 : s->atom->op == EXPR_MAX ? 1 : 0;
    if (s->sign && s->sign == one_suffices)
        return prove(f, a, depth) || prove(f, b, depth);
    return prove(f, a, depth) && prove(f, b, depth);
}

static bool prove_spot(struct proof *f, const struct spot *s, int depth)
{
    switch ((enum expr_op)s->atom->op) {
    case EXPR_FLOORDIV: return prove_floordiv(f, s, depth);
    case EXPR_MOD: return prove_mod(f, s, depth);
    case EXPR_MIN:
    case EXPR_MAX:
    case EXPR_SELECT: return prove_arms(f, s, depth);
    default: return false;
    }
}

static int sign_of(const struct expr_pool *p, int64_t coef, expr rest)
{
    const struct expr_range r = rest ? expr_range_of(p, rest) : (struct expr_range){1, 1, 1};
    if (r.min < 0 && r.max > 0)
        return 0;
    return (r.min >= 0) == (coef > 0) ? 1 : -1;
}

static bool prove_by_replacing(struct proof *f, const struct poly *y, int depth)
{
    for (int32_t i = 0; i < y->n; i++) {
        const expr *atoms;
        const int32_t n = term_atoms(f->p, &y->term[i], &atoms);
        for (int32_t j = 0; j < n; j++) {
            const struct expr_node atom = *expr_at(f->p, atoms[j]);
            if (atom.op < EXPR_FLOORDIV)
                continue;
            struct poly others = *y;
            poly_add_term(f->p, &others, y->term[i], -y->coef[i]);
            const struct spot s = {&atom, poly_build(f->p, &others), term_without(f->p, y->term[i], j), y->coef[i],
                                   sign_of(f->p, y->coef[i], term_without(f->p, y->term[i], j))};
            if (s.others && prove_spot(f, &s, depth))
                return true;
        }
    }
    return false;
}

static bool prove(struct proof *f, expr e, int depth)
{
    if (!e || f->steps-- <= 0)
        return false;
    const struct expr_range r = expr_range_of(f->p, e);
    if (r.min >= 0 || r.max < 0)
        return r.min >= 0;
    struct poly y;
    poly_from(f->p, &y, e);
    if (f->shifts > 0 && proves_by_shifting(f, &y))
        return true;
    return depth > 0 && prove_by_replacing(f, &y, depth - 1);
}

/* Values of a symbol: from + i * step for i <= last. */
struct values {
    int64_t from, step;
    uint64_t last;
};

/* false: none near enough to be tried. */
static bool values_of(const struct expr_range *r, struct values *v)
{
    const int64_t least = r->min > -FAR ? r->min : r->max < FAR ? r->max : 0;
    v->step = r->multiple > 0 ? r->multiple : 1;
    v->from = least + expr_floor_mod(-least, v->step);
    const int64_t to = r->max < FAR ? r->max : v->from + FAR;
    v->last = to > v->from ? (uint64_t)(to - v->from) / (uint64_t)v->step : 0;
    return v->from >= r->min && v->from <= r->max;
}

/* Of the first four points each is a corner: symbol i at its least value where bit i % 2 of `point` is set, else at its
 * greatest. The others mix corners, values near the least and values from anywhere, the same ones every time. */
static uint64_t choose(const struct values *v, int32_t i, int point, uint32_t *state)
{
    if (point < CORNERS)
        return point >> i % 2 & 1 ? 0 : v->last;
    *state = *state * 1664525u + 1013904223u;
    const uint32_t draw = *state >> 4;
    const uint64_t range = draw % 8 < 5 && v->last > NEAR ? NEAR : v->last;
    return draw % 8 == 0 ? 0 : draw % 8 == 1 ? v->last : (range + 1) * (draw >> 4) >> 24;
}

/* Is e < 0 for some values of the symbols? Of what is asked and does not hold, half fails in a corner and most of the
 * rest at one of a few other points, which is found ten to a hundred times faster than that there is no proof. */
static bool is_refuted(const struct expr_pool *p, expr e)
{
    struct values of[MAX_SYMBOLS];
    int64_t values[MAX_SYMBOLS], v;
    uint32_t state = 1;
    const int32_t n = (int32_t)p->symbols.len;
    if (n > MAX_SYMBOLS)
        return false;
    for (int32_t i = 0; i < n; i++)
        if (!values_of(&p->symbols.data[i].range, &of[i]))
            return false;
    for (int point = 0; point < POINTS; point++) {
        for (int32_t i = 0; i < n; i++)
            values[i] = of[i].from + (int64_t)choose(&of[i], i, point, &state) * of[i].step;
        if (expr_eval(p, e, values, &v) && v < 0)
            return true;
    }
    return false;
}

bool expr_proves_nonneg(struct expr_pool *p, expr e, int32_t steps)
{
    if (!e || p->proving)
        return e && expr_range_of(p, e).min >= 0;
    const struct expr_range r = expr_range_of(p, e);
    if (r.min >= 0 || r.max < 0 || is_refuted(p, e))
        return r.min >= 0;
    struct proof f = {p, steps, MAX_SHIFTS};
    p->proving = true;
    const bool proven = prove(&f, e, MAX_DEPTH);
    p->proving = false;
    return proven;
}

bool expr_proves_le(struct expr_pool *p, expr a, expr b)
{
    int64_t v;
    if ((expr_is_const(p, b, &v) && v == INT64_MAX) || (expr_is_const(p, a, &v) && v == INT64_MIN))
        return a && b;
    return expr_proves_nonneg(p, expr_sub(p, b, a), EXPR_FULL_PROOF);
}
