#include "quant/balance.h"

#include <math.h>
#include <string.h>

#include "base/size.h"
#include "ir/hadamard.h"

enum { SWEEPS = 60 };

/* ---- eigenvalues */

/* Turns rows and columns p and q of m, and columns of the vectors, so that m[p][q] becomes 0. */
static void rotate(double *m, double *vectors, int64_t n, int64_t p, int64_t q)
{
    const double theta = (m[q * n + q] - m[p * n + p]) / (2 * m[p * n + q]);
    const double t = (theta >= 0 ? 1.0 : -1.0) / (fabs(theta) + sqrt(theta * theta + 1));
    const double c = 1 / sqrt(t * t + 1), s = t * c;
    for (int64_t i = 0; i < n; i++) {
        const double x = m[i * n + p], y = m[i * n + q], u = vectors[i * n + p], v = vectors[i * n + q];
        m[i * n + p] = c * x - s * y;
        m[i * n + q] = s * x + c * y;
        vectors[i * n + p] = c * u - s * v;
        vectors[i * n + q] = s * u + c * v;
    }
    for (int64_t i = 0; i < n; i++) {
        const double x = m[p * n + i], y = m[q * n + i];
        m[p * n + i] = c * x - s * y;
        m[q * n + i] = s * x + c * y;
    }
}

void quant_eigen(double *m, int64_t n, double *values, double *vectors)
{
    for (int64_t i = 0; i < n * n; i++)
        vectors[i] = i / n == i % n;
    for (int sweep = 0; sweep < SWEEPS; sweep++) {
        bool turned = false;
        for (int64_t p = 0; p < n; p++)
            for (int64_t q = p + 1; q < n; q++) {
                const double off = fabs(m[p * n + q]), own = sqrt(fabs(m[p * n + p])) * sqrt(fabs(m[q * n + q]));
                if (off <= 1e-15 * own || off < 1e-300)
                    continue;
                rotate(m, vectors, n, p, q);
                turned = true;
            }
        if (!turned)
            break;
    }
    for (int64_t i = 0; i < n; i++)
        values[i] = m[i * n + i];
}

/* ---- balance */

/* The lower L with L L' = m; false: m is not positive definite. */
static bool factor(const double *m, int64_t n, double *l)
{
    memset(l, 0, (size_t)(n * n) * sizeof *l);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j <= i; j++) {
            double s = m[i * n + j];
            for (int64_t k = 0; k < j; k++)
                s -= l[i * n + k] * l[j * n + k];
            if (i == j && !(s > 0 && isfinite(s)))
                return false;
            l[i * n + j] = i == j ? sqrt(s) : s / l[j * n + j];
        }
    return true;
}

/* m with the damping, scaled to a mean diagonal element of 1. */
static bool damped(const double *m, int64_t n, int64_t rows, double *out)
{
    const double few = rows > 0 ? 0.1 * (double)n / (double)rows : 1, damping = few > 1e-4 ? few : 1e-4;
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += m[i * n + i];
    const double size = sum / (double)n;
    for (int64_t i = 0; i < n * n; i++)
        out[i] = m[i] / size + (i / n == i % n ? damping : 0);
    return size > 0 && isfinite(size);
}

/* l' g l. */
static void between(const double *l, const double *g, int64_t n, double *work, double *out)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            double s = 0;
            for (int64_t k = j; k < n; k++)
                s += g[i * n + k] * l[k * n + j];
            work[i * n + j] = s;
        }
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            double s = 0;
            for (int64_t k = i; k < n; k++)
                s += l[k * n + i] * work[k * n + j];
            out[i * n + j] = s;
        }
}

/* x = inverse(l') x, columns of [n][n]. */
static void solve_across(const double *l, int64_t n, double *x)
{
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = n - 1; i >= 0; i--) {
            double s = x[i * n + j];
            for (int64_t k = i + 1; k < n; k++)
                s -= l[k * n + i] * x[k * n + j];
            x[i * n + j] = s / l[i * n + i];
        }
}

/* [n][n] of doubles times the rotation: rows of `m` to floats. */
static void spread(const struct rotation *r, const double *m, int64_t n, float *out, float *scratch)
{
    for (int64_t i = 0; i < n * n; i++)
        out[i] = (float)m[i];
    rotation_apply(r, out, n, scratch);
}

bool quant_balance(const struct quant_grams *g, float *turn, float *back, struct arena *a)
{
    const int64_t n = g->n;
    struct rotation r;
    int64_t cells, bytes;
    if (n < 1 || !size_mul(n, n, &cells) || !size_mul(cells, 7 * (int64_t)sizeof(double), &bytes) ||
        !rotation_make(&r, n, a))
        return false;
    double *room = ARENA_ARRAY(a, double, 7 * cells + n);
    float *scratch = ARENA_ARRAY(a, float, cells + n);
    if (!room || !scratch)
        return false;
    double *gk = room, *gq = gk + cells, *l = gq + cells, *work = l + cells, *mid = work + cells, *u = mid + cells,
           *inverse = u + cells, *s = inverse + cells;
    if (!damped(g->keys, n, g->key_rows, gk) || !damped(g->queries, n, g->query_rows, gq) || !factor(gk, n, l))
        return false;
    between(l, gq, n, work, mid);
    quant_eigen(mid, n, s, u);
    for (int64_t j = 0; j < n; j++) { /* eigenvalues are squares of those that both Gram matrices get */
        if (!(s[j] > 0 && isfinite(s[j])))
            return false;
        s[j] = sqrt(sqrt(s[j]));
    }
    double total = 0;
    for (int64_t j = 0; j < n; j++)
        total += s[j] * s[j];
    const double scale = sqrt((double)n / total); /* keys keep their mean square */
    /* inverse(A)' = L U S^-1/2, so that back's rows, turned alike, are its transpose; A = inverse(L)' U S^1/2 */
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            double x = 0;
            for (int64_t k = 0; k <= i; k++)
                x += l[i * n + k] * u[k * n + j];
            inverse[i * n + j] = x / (s[j] * scale);
        }
    for (int64_t i = 0; i < n * n; i++)
        u[i] *= s[i % n] * scale;
    solve_across(l, n, u);
    spread(&r, u, n, turn, scratch);
    spread(&r, inverse, n, scratch + n, scratch);
    for (int64_t i = 0; i < n * n; i++)
        back[i] = scratch[n + i % n * n + i / n];
    return true;
}
