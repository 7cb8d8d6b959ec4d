/* Algorithms for weights that have seen what the weight is multiplied with: they need its Gram matrix. */
#include <math.h>
#include <string.h>

#include "base/pool.h"
#include "base/size.h"
#include "kernels/mac.h"
#include "quant/encode.h"
#include "quant/rows.h"
#include "quant/statistics.h"

/* Damping of the Gram matrix, in mean diagonal elements: GPTQ's. */
static const double damping = 0.01;

struct solver {
    void (*run)(const struct quant_rows *t);
    int64_t (*scratch)(int64_t k); /* elements that it takes */
};
struct solving {
    const struct quant_rows *whole;
    const struct solver *solver;
    float *scratch; /* of all workers */
    int64_t size;   /* of one worker's */
};

static void solve(void *arg, int64_t item, int worker)
{
    const struct solving *s = arg;
    struct quant_rows part = *s->whole;
    part.first = item * QUANT_ROWS_AT_ONCE;
    part.n = size_min(QUANT_ROWS_AT_ONCE, part.w->channels - part.first);
    part.scratch = s->scratch + worker * s->size;
    s->solver->run(&part);
}

/* Codes and scales in turn: each of the two steps lowers the cost. */
static void feed_and_descend(const struct quant_rows *t)
{
    enum { TURNS = 3, CODES = 4 };
    quant_feed_errors(t);
    for (int i = 0; i < TURNS; i++) {
        quant_refit_scales(t);
        quant_descend(t, CODES);
    }
}

/* Sums over what a weight is multiplied with. */
struct pairs {
    const float *gram, *cross; /* [k][k]; cross NULL: nothing before it is coded */
    double trust;              /* of what is off the diagonal */
    double moved;              /* with cross: sum of |x0 - x|^2 */
    int64_t n;                 /* rows in it */
};

/* How far a weight follows what its rows have become: as far as the change and what x says of it are correlated in
 * other rows, too. x0 - x = x B' leaves 1 - R2 of |x0 - x|^2 of the n rows that B was fitted to, k numbers for each
 * element; R2 less what that alone explains is Ezekiel's adjusted R2, its root the correlation. All the way would be
 * best for these rows; on other texts, and behind layers that add to what else has changed, it is worse than half of
 * it. b: [k][k], B. */
static double follows(const struct pairs *g, const double *b, int64_t k)
{
    double explained = 0;
    for (int64_t i = 0; i < k * k; i++)
        explained += b[i] * ((double)g->cross[i] - (double)g->gram[i]);
    const double left = explained < g->moved ? 1 - explained / g->moved : 0;
    return g->n > k + 1 ? sqrt(fmax(1 - left * (double)(g->n - 1) / (double)(g->n - k - 1), 0)) : 0;
}

/* What the weight should be, so that its products with what is there now are those of the model as it was: the least of
 * |x0 w' - x t'|^2 over the rows, x0 as they were, is t = w C H^-1 = w + w (C - H) H^-1 with C = sum x0 x', damped
 * towards w, and a share of that change. false: no memory. */
static bool retarget(const struct quant_task *t, const struct pairs *g, float *to)
{
    const int64_t k = t->w->k;
    double *h = ARENA_ARRAY(t->scratch, double, k *k + 1), *b = ARENA_ARRAY(t->scratch, double, k *k + 1), trace = 0;
    float *change = ARENA_ARRAY(t->scratch, float, k *k + 1);
    if (!h || !b || !change)
        return false;
    for (int64_t i = 0; i < k; i++)
        trace += (double)g->gram[i * k + i];
    for (int64_t i = 0; i < k * k; i++) {
        const double share = i % (k + 1) == 0 ? 1 : g->trust;
        h[i] = (double)g->gram[i] * share;
        b[i] = ((double)g->cross[i] - (double)g->gram[i]) * g->trust;
    }
    for (int64_t i = 0; i < k; i++)
        h[i * k + i] += damping * trace / (double)k;
    memcpy(to, t->w->data, (size_t)(t->w->channels * k) * sizeof *to);
    if (!quant_solve(h, k, b, k, t->pool))
        return true;
    const double share = follows(g, b, k);
    for (int64_t i = 0; i < k * k; i++)
        change[i] = (float)(b[i] * share);
    const struct k_matmul_args product = {.dtype = DT_F32,
                                          .m = t->w->channels,
                                          .n = k,
                                          .k = k,
                                          .a = t->w->data,
                                          .a_row = k,
                                          .a_col = 1,
                                          .b = change,
                                          .b_row = k,
                                          .b_col = 1,
                                          .c = to,
                                          .c_row = k,
                                          .adds = true};
    k_matmul(&product, t->pool);
    return true;
}

static const char no_memory[] = "there is no memory for the Gram matrix of its input";

/* Scales that mind the importance of columns, then the solver on parts of the rows. */
static const char *with_metric(const struct quant_task *given, const struct pairs *g, const struct solver *solver)
{
    const int64_t k = given->w->k;
    struct quant_metric m;
    struct quant_matrix w = *given->w;
    struct quant_task target = *given;
    const struct quant_task *t = &target;
    const struct arena_mark mark = arena_mark(t->scratch);
    if (g->cross) {
        float *to = ARENA_ARRAY(t->scratch, float, w.channels *k + 1);
        if (!to || !retarget(given, g, to))
            return no_memory;
        w.data = to;
        target.w = &w;
    }
    float *scratch = ARENA_ARRAY(t->scratch, float, pool_threads(t->pool) * solver->scratch(k));
    const bool made = scratch && quant_metric_make(&m, &(struct quant_gram){g->gram, k, damping, g->trust, false},
                                                   t->scratch, t->pool);
    if (made) {
        if (t->fit)
            quant_fit_codes(t, m.importance);
        const struct quant_rows whole = {.o = t->o, .w = t->w, .m = &m, .out = t->out};
        struct solving s = {&whole, solver, scratch, solver->scratch(k)};
        pool_for(t->pool, size_ceil_div(t->w->channels, QUANT_ROWS_AT_ONCE), solve, &s);
    }
    arena_release(t->scratch, mark);
    return made ? NULL : no_memory;
}

/* Pairs that are chance for the most part count less; else damping does what there is to do: to take a little away from
 * what algorithms live on costs more than it saves. Groups of a convolution's channels have a Gram matrix each. A scale
 * for all of them is fitted before. */
static const char *by_groups(const struct quant_task *t, const struct solver *solver)
{
    const struct quant_statistics *seen = t->w->seen;
    const int64_t k = t->w->k, groups = seen->groups, channels = t->w->channels / groups, table = k * k;
    const bool one_scale = t->o->per == QUANT_PER_TENSOR && groups > 1,
               moved = seen->cross && seen->n_cross == seen->n_gram && seen->n_gram > 0;
    const char *why = NULL;
    if (!seen->gram || seen->pairs != k || t->w->channels % groups)
        return "what calibration saw of its input has another length than its rows";
    const double believed = quant_statistics_trust(seen), trust = believed < 0.5 ? believed : 1;
    if (one_scale)
        quant_fit_codes(t, NULL);
    for (int64_t g = 0; !why && g < groups; g++) {
        struct quant_matrix w = *t->w;
        struct quant_codes out = *t->out;
        struct quant_task part = *t;
        w.data += g * channels * k;
        w.channels = channels;
        out.codes += g * channels * k;
        out.scales += one_scale ? 0 : g * channels * out.groups;
        out.zeros += !out.zeros || one_scale ? 0 : g * channels * out.groups;
        part.w = &w;
        part.out = &out;
        part.fit = one_scale ? NULL : t->fit;
        const struct pairs p = {seen->gram + g * table, moved ? seen->cross + g * table : NULL, trust,
                                moved && seen->moved ? seen->moved[g] : 0, seen->n_gram};
        why = with_metric(&part, &p, solver);
    }
    return why;
}

const char *quant_choose_gptq(const struct quant_task *t)
{
    return by_groups(t, &(struct solver){quant_feed_errors, quant_rows_scratch});
}

const char *quant_choose_adaround(const struct quant_task *t)
{
    if (dtype_is_float(t->o->codes))
        return "adaround chooses codes of integers; this format has float codes";
    return by_groups(t, &(struct solver){quant_round_adaptively, quant_adaround_scratch});
}

const char *quant_choose_descent(const struct quant_task *t)
{
    return by_groups(t, &(struct solver){feed_and_descend, quant_rows_scratch});
}
