#include "quant/distance.h"

#include <math.h>
#include <stdlib.h>

static void add_pair(struct metric_error *e, double x, double y)
{
    if (!isfinite(x) || !isfinite(y)) {
        e->bad++;
        return;
    }
    const double d = y - x;
    e->n++;
    e->xx += x * x;
    e->yy += y * y;
    e->xy += x * y;
    e->ee += d * d;
    e->most = fmax(e->most, fabs(d));
}

void metric_add_floats(struct metric_error *e, const float *x, const float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        add_pair(e, (double)x[i], (double)y[i]);
}

bool metric_add(struct metric_error *e, const struct k_tensor *x, const struct k_tensor *y)
{
    const int64_t n = k_count(x);
    if (x->kind != K_TENSOR || y->kind != K_TENSOR || x->rank != y->rank || x->dtype == DT_STRING ||
        y->dtype == DT_STRING)
        return false;
    for (int i = 0; i < x->rank; i++)
        if (x->dims[i] != y->dims[i])
            return false;
    if (x->dtype == DT_F32 && y->dtype == DT_F32)
        metric_add_floats(e, x->data, y->data, n);
    else
        for (int64_t i = 0; i < n; i++)
            add_pair(e, k_get_f64(x, i), k_get_f64(y, i));
    return true;
}

void metric_join(struct metric_error *e, const struct metric_error *other)
{
    e->n += other->n;
    e->bad += other->bad;
    e->xx += other->xx;
    e->yy += other->yy;
    e->xy += other->xy;
    e->ee += other->ee;
    e->most = fmax(e->most, other->most);
}

double metric_noise(const struct metric_error *e)
{
    return e->ee > 0 ? e->ee / e->xx : 0;
}

double metric_sqnr(const struct metric_error *e)
{
    return e->ee > 0 ? 10 * log10(e->xx / e->ee) : (double)INFINITY;
}

double metric_cosine(const struct metric_error *e)
{
    const double size = sqrt(e->xx) * sqrt(e->yy);
    if (size > 0)
        return fmin(1, e->xy / size);
    return e->ee > 0 ? 0 : 1;
}

double metric_mse(const struct metric_error *e)
{
    return e->n > 0 ? e->ee / (double)e->n : 0;
}

/* ---- distributions */

static int64_t largest(const float *x, int64_t n)
{
    int64_t at = 0;
    for (int64_t i = 1; i < n; i++)
        at = x[i] > x[at] ? i : at;
    return at;
}

static double log_sum_below(const float *x, int64_t n, double most)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += exp((double)x[i] - most);
    return log(sum) + most;
}

double metric_log_sum(const float *x, int64_t n)
{
    return log_sum_below(x, n, (double)x[largest(x, n)]);
}

struct metric_words metric_softmax(const float *x, const float *y, int64_t n)
{
    struct metric_words w = {.top = largest(x, n), .best = largest(y, n)};
    w.x_log_sum = log_sum_below(x, n, (double)x[w.top]);
    w.y_log_sum = log_sum_below(y, n, (double)y[w.best]);
    for (int64_t i = 0; i < n; i++) {
        const double p = (double)x[i] - w.x_log_sum;
        if (p > -700) /* below, exp(p) adds nothing, and a word that is masked in both has no difference */
            w.kl += exp(p) * (p - ((double)y[i] - w.y_log_sum));
    }
    w.kl = fmax(w.kl, 0); /* rounding: the sum of terms of either sign */
    return w;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double metric_quantile(double *values, int64_t n, double share)
{
    if (n < 1)
        return 0;
    qsort(values, (size_t)n, sizeof *values, by_size);
    const int64_t at = (int64_t)ceil(share * (double)n) - 1;
    return values[at < 0 ? 0 : at < n ? at : n - 1];
}
