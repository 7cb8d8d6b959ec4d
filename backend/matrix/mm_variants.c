#include "backend/matrix/mm_variants.h"
#include "backend/matrix/mm_grouped.h"

#include <math.h>

struct axes {
    struct mm_sizes known; /* sizes that are no axis */
    int batch, m, n, k;    /* axes, -1: known */
    int64_t groups;        /* of rows that choose their matrix; 0: they do not */
    double share;          /* of them that a token has */
};

static double value_of(const struct ir_ctx *cx, expr e)
{
    int64_t v;
    return expr_is_const(&cx->exprs, e, &v) && v > 0 ? (double)v : 1;
}

static uint64_t key_of(const struct mm *p, expr batch, double n)
{
    const int64_t k[] = {p->in,
                         p->out,
                         p->m,
                         p->n,
                         p->k,
                         p->a_row,
                         p->b_row,
                         p->c_row,
                         batch,
                         p->a_trans,
                         p->relu,
                         p->weight,
                         p->b_trans,
                         p->weight_trans,
                         p->bias != NULL,
                         p->tail != NULL,
                         p->code,
                         p->b_code,
                         p->block,
                         (int64_t)n,
                         p->n_peers,
                         p->groups,
                         p->top,
                         p->ranks,
                         p->by_rows,
                         p->feed != NULL,
                         (int64_t)p->feed_key};
    return map_hash_bytes(k, (int64_t)sizeof k);
}

static void find_axes(const struct emit *e, const struct mm *p, struct variant_space *s, struct axes *out)
{
    struct ir_ctx *cx = e->cx;
    expr batch = expr_const(&cx->exprs, 1);
    for (int i = 0; i < p->n_batch; i++)
        batch = expr_mul(&cx->exprs, batch, p->batch[i]);
    *out = (struct axes){.known = {.batch = value_of(cx, batch),
                                   .m = value_of(cx, p->m),
                                   .n = value_of(cx, p->n),
                                   .k = value_of(cx, p->k)},
                         .m = variants_axis(s, cx, p->m),
                         .n = variants_axis(s, cx, p->n),
                         .k = variants_axis(s, cx, p->k),
                         .batch = variants_axis(s, cx, batch),
                         .groups = p->groups,
                         .share = mm_share(p)};
    for (int i = 0; i < p->n_peers; i++) /* their columns follow */
        out->known.n += value_of(cx, p->peers[i].n);
    s->coarse = p->feed != NULL;
    s->key = key_of(p, batch, out->known.n);
}

static struct mm_sizes sizes_at(const struct axes *x, const double *at)
{
    struct mm_sizes s = x->known;
    s.m = x->m < 0 ? s.m : fmax(1, at[x->m]);
    s.n = x->n < 0 ? s.n : fmax(1, at[x->n]);
    s.k = x->k < 0 ? s.k : fmax(1, at[x->k]);
    s.batch = x->batch < 0 ? s.batch : fmax(1, at[x->batch]);
    if (x->groups > 0) { /* as many products as matrices are chosen, each of its share of the rows */
        s.batch = fmin(s.m, mm_expected_groups(x->groups, x->share, s.m));
        s.m = fmax(1, s.m / s.batch);
    }
    return s;
}

struct choice {
    struct emit *e;
    const struct mm *p;
    const struct mm_forms *f;
    struct axes axes;
};

static void choose(void *user, const double *at, void *form)
{
    const struct choice *c = user;
    const struct mm_sizes s = sizes_at(&c->axes, at);
    c->f->choose(c->e, c->p, &s, form);
}

static double cycles(void *user, const double *at, const void *form)
{
    const struct choice *c = user;
    const struct mm_sizes s = sizes_at(&c->axes, at);
    return c->f->cycles(c->e->m, c->p, &s, form);
}

enum npuc_status mm_emit_forms(struct emit *e, const struct mm *p, const struct mm_tensors *t, const char *label,
                               const struct mm_forms *f)
{
    struct choice c = {.e = e, .p = p, .f = f};
    struct variant_space s = {.form_size = f->form_size, .user = &c, .choose = choose, .cycles = cycles};
    struct variant v[VARIANT_MOST];
    const expr outer = e->guard;
    enum npuc_status st = NPUC_OK;
    find_axes(e, p, &s, &c.axes);
    const int n = variants_find(e, &s, v);
    for (int i = 0; i < n && st == NPUC_OK; i++) {
        e->guard = v[i].guard;
        st = f->launch(e, p, t, v[i].form, label);
    }
    e->guard = outer;
    return st;
}

enum npuc_status mm_emit_either(struct emit *e, expr is, const struct mm *p, const struct mm *q,
                                const struct mm_tensors *t, const char *label, mm_emit_fn *emit)
{
    struct expr_pool *x = &e->cx->exprs;
    const expr outer = e->guard, where[2] = {is, expr_sub(x, expr_const(x, 1), is)};
    const struct mm *each[2] = {p, q};
    enum npuc_status st = NPUC_OK;
    for (int i = 0; i < 2 && st == NPUC_OK; i++) {
        int64_t holds = 1;
        if (expr_is_const(x, where[i], &holds) && holds == 0)
            continue;
        e->guard = outer == EXPR_INVALID ? where[i] : expr_mul(x, outer, where[i]);
        if (expr_is_const(x, e->guard, &holds) && holds == 1)
            e->guard = EXPR_INVALID;
        st = emit(e, each[i], t, label);
    }
    e->guard = outer;
    return st;
}

/* The first dimension of the batch along which b stays and a and c go on, as rows. */
static bool batch_as_rows(struct expr_pool *x, const struct mm *p, struct mm *out)
{
    int at = 0;
    int64_t step = 1;
    while (at < p->n_batch && !(expr_is_const(x, p->b_batch[at], &step) && step == 0))
        at++;
    if (at == p->n_batch || p->a_trans || p->tail || p->feed || p->block || p->n_peers > 0)
        return false;
    *out = *p;
    out->m = p->batch[at];
    out->a_row = p->a_batch[at];
    out->c_row = p->c_batch[at];
    mm_drop_batch(out, at);
    return true;
}

enum npuc_status mm_emit_single_rows(struct emit *e, const struct mm *p, const struct mm_tensors *t, const char *label,
                                     mm_emit_fn *emit)
{
    struct expr_pool *x = &e->cx->exprs;
    struct mm rows;
    if (!batch_as_rows(x, p, &rows))
        return emit(e, p, t, label);
    return mm_emit_either(e, expr_cmp(x, EXPR_EQ, p->m, expr_const(x, 1)), &rows, p, t, label, emit);
}
