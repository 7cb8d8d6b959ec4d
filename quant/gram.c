#include "quant/gram.h"

#include <math.h>
#include <string.h>

#include "base/pool.h"
#include "base/size.h"

enum { BLOCK = 64, LANES = 8 };

/* ---- h = A A' */

struct factoring {
    double *h; /* [k][k]; the upper triangle becomes A */
    int64_t k, first, last;
};

/* Sum over [from, to) of a[i] * b[i], in LANES parts: the same whatever the compiler makes of it. */
static double dot(const double *a, const double *b, int64_t from, int64_t to)
{
    double sum[LANES] = {0}, all = 0;
    int64_t i = from;
    for (; i + LANES <= to; i += LANES)
        for (int l = 0; l < LANES; l++)
            sum[l] += a[i + l] * b[i + l];
    for (; i < to; i++)
        sum[0] += a[i] * b[i];
    for (int l = 0; l < LANES; l++)
        all += sum[l];
    return all;
}

/* Row r of columns [first, last), from the last to the first; those of rows c in it are known. */
static void solve_row(const struct factoring *f, int64_t r)
{
    double *row = f->h + r * f->k;
    for (int64_t c = f->last - 1; c >= f->first && c > r; c--) {
        const double *other = f->h + c * f->k;
        row[c] = (row[c] - dot(row, other, c + 1, f->last)) / other[c];
    }
}

/* The block on the diagonal; false: a pivot that is not positive. */
static bool factor_block(const struct factoring *f)
{
    for (int64_t c = f->last - 1; c >= f->first; c--) {
        double *row = f->h + c * f->k;
        const double pivot = row[c] - dot(row, row, c + 1, f->last);
        if (!(pivot > 0))
            return false;
        row[c] = sqrt(pivot);
        for (int64_t r = f->first; r < c; r++) {
            double *above = f->h + r * f->k;
            above[c] = (above[c] - dot(above, row, c + 1, f->last)) / row[c];
        }
    }
    return true;
}

static void solve_rows(void *arg, int64_t item, int worker)
{
    const struct factoring *f = arg;
    (void)worker;
    for (int64_t r = item * BLOCK; r < size_min((item + 1) * BLOCK, f->first); r++)
        solve_row(f, r);
}

/* h[r][c] less the part of columns [first, last), for rows r of the item and r <= c < first. */
static void subtract_rows(void *arg, int64_t item, int worker)
{
    const struct factoring *f = arg;
    (void)worker;
    for (int64_t c0 = item * BLOCK; c0 < f->first; c0 += BLOCK)
        for (int64_t r = item * BLOCK; r < size_min((item + 1) * BLOCK, f->first); r++)
            for (int64_t c = c0 > r ? c0 : r; c < size_min(c0 + BLOCK, f->first); c++)
                f->h[r * f->k + c] -= dot(f->h + r * f->k, f->h + c * f->k, f->first, f->last);
}

static bool factor(double *h, int64_t k, struct pool *pool)
{
    struct factoring f = {.h = h, .k = k, .last = k};
    for (; f.last > 0; f.last = f.first) {
        f.first = f.last > BLOCK ? (f.last - 1) / BLOCK * BLOCK : 0;
        if (!factor_block(&f))
            return false;
        pool_for(pool, size_ceil_div(f.first, BLOCK), solve_rows, &f);
        pool_for(pool, size_ceil_div(f.first, BLOCK), subtract_rows, &f);
    }
    return true;
}

struct solving {
    const double *a; /* [k][k], upper triangle */
    int64_t k;
    double *b;
};

/* x A A' = b: first y A' = b from the last column on, then x A = y from the first. */
static void solve_both(void *arg, int64_t r, int worker)
{
    const struct solving *s = arg;
    double *x = s->b + r * s->k;
    (void)worker;
    for (int64_t c = s->k - 1; c >= 0; c--)
        x[c] = (x[c] - dot(x, s->a + c * s->k, c + 1, s->k)) / s->a[c * s->k + c];
    for (int64_t c = 0; c < s->k; c++) {
        const double *row = s->a + c * s->k;
        x[c] /= row[c];
        for (int64_t j = c + 1; j < s->k; j++)
            x[j] -= x[c] * row[j];
    }
}

bool quant_solve(double *h, int64_t k, double *b, int64_t rows, struct pool *pool)
{
    struct solving s = {h, k, b};
    if (!factor(h, k, pool))
        return false;
    pool_for(pool, rows, solve_both, &s);
    return true;
}

/* ---- the metric */

static void sort_columns(struct quant_metric *m)
{
    for (int64_t i = 0; i < m->k; i++)
        m->order[i] = i;
    for (int64_t step = m->k / 2; step > 0; step /= 2) /* larger first; of equal ones the one that lies before */
        for (int64_t i = step; i < m->k; i++) {
            const int64_t moved = m->order[i];
            int64_t j = i;
            for (; j >= step; j -= step) {
                const int64_t other = m->order[j - step];
                const float a = m->importance[moved], b = m->importance[other];
                if (b > a || (b == a && other < moved))
                    break;
                m->order[j] = other;
            }
            m->order[j] = moved;
        }
}

static void set_diagonal(struct quant_metric *m, double unit, double damping)
{
    for (int64_t i = 0; i < m->k; i++)
        m->h[i * m->k + i] = (float)((double)m->importance[i] * unit + damping);
}

/* The factor of h with its columns in order, as doubles. */
static bool try_factor(const struct quant_metric *m, double *work, struct pool *pool)
{
    for (int64_t i = 0; i < m->k; i++)
        for (int64_t j = i; j < m->k; j++)
            work[i * m->k + j] = (double)m->h[m->order[i] * m->k + m->order[j]];
    return factor(work, m->k, pool);
}

bool quant_metric_make(struct quant_metric *m, const struct quant_gram *g, struct arena *a, struct pool *pool)
{
    const float *gram = g->gram;
    const int64_t k = g->k;
    *m = (struct quant_metric){.k = k,
                               .h = ARENA_ARRAY(a, float, k *k + 1),
                               .importance = ARENA_ARRAY(a, float, k + 1),
                               .order = ARENA_ARRAY(a, int64_t, k + 1),
                               .feed = ARENA_ARRAY(a, float, k *k + 1)};
    const struct arena_mark mark = arena_mark(a);
    double *work = ARENA_ARRAY(a, double, k *k + 1), trace = 0;
    if (!m->h || !m->importance || !m->order || !m->feed || !work)
        return false;
    for (int64_t i = 0; i < k; i++)
        trace += (double)gram[i * k + i];
    const double unit = trace > 0 && isfinite(trace) ? (double)k / trace : 0;
    for (int64_t i = 0; i < k * k; i++)
        m->h[i] = unit > 0 ? (float)((double)gram[i] * unit * g->trust) : 0;
    for (int64_t i = 0; i < k; i++)
        m->importance[i] = unit > 0 ? gram[i * k + i] : 1;
    if (!g->in_order)
        sort_columns(m);
    else
        for (int64_t i = 0; i < k; i++)
            m->order[i] = i;
    /* Rounding can leave a matrix of few rows short of positive definite: more damping mends that for certain. */
    for (double d = g->damping;; d = d > 0 ? d * 10 : 1e-6) {
        set_diagonal(m, unit > 0 ? unit : 1, d);
        if (try_factor(m, work, pool))
            break;
    }
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = i + 1; j < k; j++)
            m->feed[i * k + j] = (float)(work[i * k + j] / work[j * k + j]);
    arena_release(a, mark);
    return true;
}
