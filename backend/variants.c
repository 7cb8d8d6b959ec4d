#include "backend/variants.h"

#include "backend/emit_priv.h"

#include <math.h>
#include <string.h>

#define TOLERANCE     0.02 /* of launch and kernel: what a form may cost more than the best one */
#define FEW           12   /* parts where a size has no bound: nobody says which ones matter */
#define OPEN          4096 /* where sizes without a bound are looked at, at most */
#define COARSE_FEW    16   /* with a slow choice: few and many of the first size, and the others where they are open */
#define COARSE_MANY   1024
#define COARSE_OTHERS 64
#define INNER         8 /* points inside of a part, besides its corners and its middle */
#define POINTS        ((1 << VARIANT_AXES) + 1 + INNER)

struct part {
    int64_t lo[VARIANT_AXES], hi[VARIANT_AXES]; /* inclusive */
    double worst;                               /* the form's cost over the best one's, at the worst point */
    bool whole;                                 /* one point: nothing to divide */
    _Alignas(8) uint8_t form[VARIANT_FORM];
};
struct finder {
    const struct variant_space *s;
    double launch; /* cycles of a launch */
    struct part part[VARIANT_MOST];
    int n, most;
};

int variants_axis(struct variant_space *s, const struct ir_ctx *cx, expr size)
{
    int64_t v;
    if (expr_is_const(&cx->exprs, size, &v))
        return -1;
    for (int i = 0; i < s->n; i++)
        if (s->size[i] == size)
            return i;
    NPUC_ASSERT(s->n < VARIANT_AXES);
    s->size[s->n] = size;
    return s->n++;
}

static double upper(const struct part *p, int axis)
{
    const double top = (double)p->hi[axis], open = fmax(OPEN, 2 * (double)p->lo[axis]);
    return p->hi[axis] >= INT32_MAX ? open : top;
}

/* Between the bounds of the part, evenly over the logarithm. */
static double between(const struct part *p, int axis, double share)
{
    const double lo = (double)p->lo[axis], hi = upper(p, axis), from = fmax(lo, 1);
    if (share <= 0 || hi <= lo)
        return lo;
    return share >= 1 ? hi : fmin(hi, fmax(lo, round(from * pow(hi / from, share))));
}

/* Corners, the middle, points inside that are always the same. */
static int points_of(const struct finder *f, const struct part *p, double at[POINTS][VARIANT_AXES])
{
    const int corners = 1 << f->s->n;
    uint32_t state = 7;
    int n = 0;
    for (int i = 0; i < corners + 1 + INNER; i++, n++)
        for (int k = 0; k < f->s->n; k++) {
            state = state * 1664525U + 1013904223U;
            const double inside = i == corners ? 0.5 : (double)(state >> 8) / (double)(1 << 24);
            at[i][k] = between(p, k, i < corners ? (double)(i >> k & 1) : inside);
        }
    return n;
}

/* The form that is least bad for the part, of those that are best at one of its points. */
static void judge(struct finder *f, struct part *p)
{
    const struct variant_space *s = f->s;
    double at[POINTS][VARIANT_AXES] = {{0}}, best[POINTS];
    _Alignas(8) uint8_t form[POINTS][VARIANT_FORM] = {{0}};
    const int n = points_of(f, p, at);
    p->worst = INFINITY;
    p->whole = true;
    for (int k = 0; k < s->n; k++)
        p->whole = p->whole && p->lo[k] >= p->hi[k];
    for (int i = 0; i < n; i++) {
        s->choose(s->user, at[i], form[i]);
        best[i] = f->launch + s->cycles(s->user, at[i], form[i]);
    }
    for (int i = n - 1; i >= 0; i--) {
        double worst = 1;
        for (int k = 0; k < n && worst < p->worst; k++)
            worst = fmax(worst, (f->launch + s->cycles(s->user, at[k], form[i])) / best[k]);
        if (worst < p->worst) {
            p->worst = worst;
            memcpy(p->form, form[i], sizeof p->form);
        }
    }
}

/* Divides a part along the axis that spans most, at its middle; small sizes exactly, others at whole fractals. */
static void divide(struct finder *f, int which)
{
    struct part *p = &f->part[which], *q = &f->part[f->n++];
    int axis = 0;
    double span = 0;
    for (int k = 0; k < f->s->n; k++) {
        const double r = upper(p, k) / fmax(1, (double)p->lo[k]);
        if (p->lo[k] < p->hi[k] && r > span) {
            span = r;
            axis = k;
        }
    }
    int64_t mid = (int64_t)between(p, axis, 0.5);
    if (mid >= 32 && mid / 16 * 16 > p->lo[axis])
        mid = mid / 16 * 16;
    if (mid >= p->hi[axis])
        mid = p->hi[axis] - 1;
    *q = *p;
    p->hi[axis] = mid;
    q->lo[axis] = mid + 1;
    judge(f, p);
    judge(f, q);
}

static expr guard_of(struct emit *e, const struct variant_space *s, const struct part *p)
{
    struct expr_pool *x = &e->cx->exprs;
    expr g = expr_const(x, 1);
    for (int k = 0; k < s->n; k++) {
        const expr size = s->size[k];
        const struct expr_range r = expr_range_of(x, size);
        if (p->lo[k] > r.min)
            g = expr_mul(x, g, expr_cmp(x, EXPR_LE, expr_const(x, p->lo[k]), size));
        if (p->hi[k] < r.max && p->hi[k] < INT32_MAX)
            g = expr_mul(x, g, expr_cmp(x, EXPR_LE, size, expr_const(x, p->hi[k])));
    }
    return g;
}

/* Parts with the same form are launched under the sum of their guards: parts do not overlap. */
static int collect(struct emit *e, const struct finder *f, const struct variant_space *s,
                   struct variant out[VARIANT_MOST])
{
    struct expr_pool *x = &e->cx->exprs;
    int n = 0;
    for (int i = 0; i < f->n; i++) {
        const expr guard = guard_of(e, s, &f->part[i]);
        int same = 0;
        while (same < n && memcmp(out[same].form, f->part[i].form, (size_t)s->form_size) != 0)
            same++;
        if (same < n) {
            out[same].guard = expr_add(x, out[same].guard, guard);
            continue;
        }
        out[n].guard = guard;
        memcpy(out[n++].form, f->part[i].form, VARIANT_FORM);
    }
    for (int i = 0; i < n; i++)
        out[i].guard = n == 1 ? e->guard : e->guard ? expr_mul(x, e->guard, out[i].guard) : out[i].guard;
    return n;
}

static void judge_at(struct part *p, const struct variant_space *s, double size)
{
    const double at[VARIANT_AXES] = {size, COARSE_OTHERS, COARSE_OTHERS, COARSE_OTHERS};
    s->choose(s->user, at, p->form);
}

/* Few of the first size and more of it, each with the form for one size. */
static void halves(struct finder *f)
{
    struct part *p = f->part;
    const int64_t hi = p->hi[0];
    if (p->lo[0] <= COARSE_FEW && hi > COARSE_FEW) {
        p[1] = p[0];
        p[0].hi[0] = COARSE_FEW;
        p[1].lo[0] = COARSE_FEW + 1;
        f->n = 2;
    }
    for (int i = 0; i < f->n; i++)
        judge_at(&p[i], f->s, p[i].hi[0] <= COARSE_FEW ? (double)p[i].hi[0] : fmin(COARSE_MANY, (double)hi));
}

static void refine(struct finder *f)
{
    judge(f, &f->part[0]);
    while (f->n < f->most) {
        int worst = -1;
        for (int i = 0; i < f->n; i++)
            if (!f->part[i].whole && f->part[i].worst > 1 + TOLERANCE &&
                (worst < 0 || f->part[i].worst > f->part[worst].worst))
                worst = i;
        if (worst < 0)
            break;
        divide(f, worst);
    }
}

static const struct finder *known(struct emit *e, const struct variant_space *s)
{
    const uint64_t *at = s->key ? map_find(&emitter_of(e)->variants, s->key) : NULL;
    return at ? (const struct finder *)(uintptr_t)*at : NULL;
}

int variants_find(struct emit *e, const struct variant_space *s, struct variant out[VARIANT_MOST])
{
    const struct finder *old = known(e, s);
    if (old)
        return collect(e, old, s, out);
    struct finder *f = ARENA_NEW(e->arena, struct finder);
    *f = (struct finder){.s = s,
                         .launch = target_launch(e->m->target, e->m->n_cube) * target_num(e->m->target, TK_CLOCK),
                         .n = 1,
                         .most = VARIANT_MOST};
    for (int k = 0; k < s->n; k++) {
        const struct expr_range r = expr_range_of(&e->cx->exprs, s->size[k]);
        f->part[0].lo[k] = r.min > 0 ? r.min : 0;
        f->part[0].hi[k] = r.max < INT32_MAX ? r.max : INT32_MAX;
        f->most = r.max < INT32_MAX ? f->most : FEW;
    }
    if (s->n == 0)
        judge_at(f->part, s, 0);
    else if (s->coarse)
        halves(f);
    else
        refine(f);
    if (s->key)
        map_put(&emitter_of(e)->variants, s->key, (uint64_t)(uintptr_t)f);
    return collect(e, f, s, out);
}
