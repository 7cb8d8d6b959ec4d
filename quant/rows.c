#include "quant/rows.h"

#include <string.h>

#include "base/size.h"
#include "kernels/mac.h"
#include "quant/grid.h"

enum { BLOCK = 128 }; /* columns whose errors are fed to all later ones by one product */

int64_t quant_rows_scratch(int64_t k)
{
    return 2 * QUANT_ROWS_AT_ONCE * k + k;
}

int64_t quant_scale_index(const struct quant_operand *o, const struct quant_codes *c, int64_t r, int64_t i)
{
    return (o->per == QUANT_PER_TENSOR ? 0 : r * c->groups) + (o->per == QUANT_PER_GROUP ? i / o->group : 0);
}

static struct quant_scale scale_at(const struct quant_rows *t, int64_t r, int64_t i)
{
    const int64_t at = quant_scale_index(t->o, t->out, r, i);
    return (struct quant_scale){t->out->scales[at], t->out->zeros ? t->out->zeros[at] : 0};
}

/* c[rows][n] += a[rows][k] b[k][n] */
static void add_product(const struct quant_rows *t, const float *a, const float *b, int64_t k, int64_t n, float *c)
{
    const struct k_matmul_args g = {.dtype = DT_F32,
                                    .m = t->n,
                                    .n = n,
                                    .k = k,
                                    .a = a,
                                    .a_row = t->w->k,
                                    .a_col = 1,
                                    .b = b,
                                    .b_row = t->w->k,
                                    .b_col = 1,
                                    .c = c,
                                    .c_row = t->w->k,
                                    .adds = true};
    k_matmul(&g, NULL);
}

/* ---- feeding errors */

/* Columns [first, last) of the order for row r: codes, their errors, what they feed to later columns of the block. */
static void feed_row(const struct quant_rows *t, int64_t r, int64_t first, int64_t last, float *fed, float *error)
{
    const int64_t k = t->w->k;
    const float *w = t->w->data + (t->first + r) * k;
    int16_t *codes = t->out->codes + (t->first + r) * k;
    for (int64_t i = first; i < last; i++) {
        const int64_t at = t->m->order[i];
        const struct quant_scale s = scale_at(t, t->first + r, at);
        const int code = quant_code(t->o, s, w[at] + fed[i]);
        const float e = w[at] - quant_decode(t->o, s, code), *feed = t->m->feed + i * k;
        codes[at] = (int16_t)code;
        error[i] = e;
        for (int64_t j = i + 1; j < last; j++)
            fed[j] += e * feed[j];
    }
}

void quant_feed_errors(const struct quant_rows *t)
{
    const int64_t k = t->w->k;
    float *fed = t->scratch, *error = fed + t->n * k;
    memset(fed, 0, (size_t)(t->n * k) * sizeof *fed);
    for (int64_t first = 0; first < k; first += BLOCK) {
        const int64_t last = size_min(first + BLOCK, k);
        for (int64_t r = 0; r < t->n; r++)
            feed_row(t, r, first, last, fed + r * k, error + r * k);
        if (last < k)
            add_product(t, error + first, t->m->feed + first * k + last, last - first, k - last, fed + last);
    }
}

/* ---- descent */

/* Errors of the rows and, behind them, their products with h. */
static float *pull_of_errors(const struct quant_rows *t, float **error)
{
    const int64_t k = t->w->k;
    float *e = t->scratch, *pull = e + t->n * k;
    for (int64_t r = 0; r < t->n; r++)
        for (int64_t i = 0; i < k; i++) {
            const int64_t at = (t->first + r) * k + i;
            e[r * k + i] = t->w->data[at] - quant_decode(t->o, scale_at(t, t->first + r, i), t->out->codes[at]);
        }
    memset(pull, 0, (size_t)(t->n * k) * sizeof *pull);
    add_product(t, e, t->m->h, k, k, pull);
    *error = e;
    return pull;
}

/* pull -= d * row: an element whose decoding grew by d. */
static void move_pull(float *pull, const float *row, float d, int64_t k)
{
    for (int64_t j = 0; j < k; j++)
        pull[j] -= d * row[j];
}

/* What the code of x stands for. */
static float nearest(const struct quant_operand *o, struct quant_scale s, float x)
{
    if (!dtype_is_float(o->codes))
        return quant_decode(o, s, quant_code(o, s, x));
    float q = x / s.scale;
    quant_nearest(o->codes, &q, 1, &q);
    return q * s.scale;
}

/* Does any code of the row change? */
static bool descend_row(const struct quant_rows *t, int64_t r, float *pull)
{
    const int64_t k = t->w->k;
    int16_t *codes = t->out->codes + r * k;
    bool changed = false;
    for (int64_t i = 0; i < k; i++) {
        const int64_t at = t->m->order[i];
        const float *h = t->m->h + at * k;
        const struct quant_scale s = scale_at(t, r, at);
        const float now = quant_decode(t->o, s, codes[at]), wanted = now + pull[at] / h[at];
        const float d = nearest(t->o, s, wanted) - now;
        /* the cost changes by d^2 h - 2 d pull, which rounding may leave no better */
        if (d == 0 || d * (d * h[at] - 2 * pull[at]) >= 0)
            continue;
        codes[at] = (int16_t)quant_code(t->o, s, wanted);
        move_pull(pull, h, d, k);
        changed = true;
    }
    return changed;
}

void quant_descend(const struct quant_rows *t, int turns)
{
    float *error, *pull = pull_of_errors(t, &error);
    for (int64_t r = 0; r < t->n; r++)
        for (int i = 0; i < turns && descend_row(t, t->first + r, pull + r * t->w->k); i++)
            ;
}

/* ---- scales */

/* The scale of elements [first, last) of row r; unit: scratch for k numbers. */
static void refit_part(const struct quant_rows *t, int64_t r, int64_t first, int64_t last, float *pull, float *unit)
{
    const int64_t k = t->w->k;
    const struct quant_scale s = scale_at(t, r, first), one = {1, s.zero};
    float *scale = &t->out->scales[quant_scale_index(t->o, t->out, r, first)];
    double dot = 0, square = 0;
    memset(unit, 0, (size_t)k * sizeof *unit);
    for (int64_t i = first; i < last; i++) {
        const float q = quant_decode(t->o, one, t->out->codes[r * k + i]);
        dot += (double)q * (double)pull[i];
        if (q != 0)
            move_pull(unit, t->m->h + i * k, -q, k);
    }
    for (int64_t i = first; i < last; i++)
        square += (double)quant_decode(t->o, one, t->out->codes[r * k + i]) * (double)unit[i];
    const double wanted = square > 0 ? (double)s.scale + dot / square : 0;
    if (!(wanted > 0))
        return;
    const float now = quant_usable_scale(t->w->scale_type, wanted);
    const double d = (double)now - (double)s.scale;
    if (d * (d * square - 2 * dot) >= 0)
        return;
    *scale = now;
    move_pull(pull, unit, (float)d, k);
}

void quant_refit_scales(const struct quant_rows *t)
{
    const int64_t k = t->w->k, step = t->o->per == QUANT_PER_GROUP ? t->o->group : k;
    float *error, *pull = pull_of_errors(t, &error), *unit = pull + t->n * k;
    if (t->o->per == QUANT_PER_TENSOR)
        return;
    for (int64_t r = 0; r < t->n; r++)
        for (int64_t first = 0; first < k; first += step)
            refit_part(t, t->first + r, first, size_min(first + step, k), pull + r * k, unit);
}

double quant_rows_cost(const struct quant_rows *t)
{
    float *error, *pull = pull_of_errors(t, &error);
    double sum = 0;
    for (int64_t i = 0; i < t->n * t->w->k; i++)
        sum += (double)error[i] * (double)pull[i];
    return sum;
}
