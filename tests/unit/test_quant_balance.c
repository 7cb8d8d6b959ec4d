/* Matrices that turn keys and queries: what makes them what they are, with products written out here; eigenvalues of
 * matrices whose eigenvalues are known. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "quant/balance.h"
#include "unit.h"

enum { MOST = 24 };

struct head {
    int64_t n;
    double keys[MOST * MOST], queries[MOST * MOST];
    float turn[MOST * MOST], back[MOST * MOST];
};

static double draw(uint64_t *state)
{
    *state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (double)(*state >> 11) / (double)(1ULL << 52) - 1;
}

/* Sums over `rows` rows whose channels have very different sizes, which rise or fall, and hang together. */
static void fill(double *gram, int64_t n, int64_t rows, bool falls)
{
    uint64_t seed = falls ? 99 : 1;
    memset(gram, 0, sizeof(double) * (size_t)(n * n));
    for (int64_t r = 0; r < rows; r++) {
        double x[MOST];
        const double common = draw(&seed);
        for (int64_t i = 0; i < n; i++)
            x[i] = (draw(&seed) + common) * (double)(falls ? n - i : i + 1);
        for (int64_t i = 0; i < n * n; i++)
            gram[i] += x[i / n] * x[i % n];
    }
}

static void make(struct head *h, int64_t n, int64_t rows)
{
    struct arena a;
    arena_init(&a, NULL);
    h->n = n;
    fill(h->keys, n, rows, false);
    fill(h->queries, n, rows, true);
    const struct quant_grams g = {h->keys, h->queries, n, rows, rows};
    assert_true(quant_balance(&g, h->turn, h->back, &a));
    arena_free(&a);
}

/* m' g m for floats m, or m g m' when `across`; g with `damping` of its mean diagonal element, which becomes 1. */
static void form(const double *g, const float *m, int64_t n, bool across, double damping, double *out)
{
    double mean = 0;
    for (int64_t i = 0; i < n; i++)
        mean += g[i * n + i] / (double)n;
    for (int64_t r = 0; r < n; r++)
        for (int64_t c = 0; c < n; c++) {
            double sum = 0;
            for (int64_t i = 0; i < n; i++)
                for (int64_t j = 0; j < n; j++) {
                    const double left = (double)(across ? m[r * n + i] : m[i * n + r]);
                    const double right = (double)(across ? m[c * n + j] : m[j * n + c]);
                    sum += left * (g[i * n + j] / mean + (i == j ? damping : 0)) * right;
                }
            out[r * n + c] = sum;
        }
}

static double trace(const double *m, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += m[i * n + i];
    return sum;
}

static void one_head(int64_t n, int64_t rows)
{
    static struct head h;
    static double k[MOST * MOST], q[MOST * MOST];
    const double damping = fmax(1e-4, 0.1 * (double)n / (double)rows);
    make(&h, n, rows);
    for (int64_t i = 0; i < n; i++) /* the product of a key and a query stays */
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t m = 0; m < n; m++)
                sum += (double)h.turn[i * n + m] * (double)h.back[m * n + j];
            assert_true(fabs(sum - (i == j)) < 2e-5);
        }
    form(h.keys, h.turn, n, false, damping, k);
    form(h.queries, h.back, n, true, damping, q);
    const double factor = trace(k, n) / trace(q, n);
    assert_true(fabs(trace(k, n) / (double)n - 1) < 1e-4);
    for (int64_t i = 0; i < n * n; i++)
        assert_true(fabs(k[i] - factor * q[i]) < 1e-4);
    for (int64_t i = 0; n % 4 == 0 && i < n; i++) /* a Hadamard matrix spreads them evenly */
        assert_true(fabs(k[i * n + i] - 1) < 1e-4);
    /* errors in proportion to keys cost less than those of keys as they are, whose two traces are n (1 + damping) */
    const double plain = (double)(n * n) * (1 + damping) * (1 + damping);
    assert_true(trace(k, n) * trace(q, n) < plain * (n > 1 ? 0.999 : 1.001));
}

static void balanced(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1, 2, 4, 8, 12, 16, 18, 24};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(sizes); i++) {
        one_head(sizes[i], 500);
        one_head(sizes[i], 3); /* fewer rows than channels: the damping carries it */
    }
}

/* Diagonal matrices: A is diagonal with (queries / keys)^(1/4), behind it Sylvester's matrix of order 2. */
static void worked_out(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, NULL);
    const double keys[4] = {16e6, 0, 0, 1e6}, queries[4] = {1e6, 0, 0, 16e6};
    float turn[4], back[4];
    const struct quant_grams g = {keys, queries, 2, INT64_C(1) << 40, INT64_C(1) << 40};
    assert_true(quant_balance(&g, turn, back, &a));
    /* A keeps the keys' mean square, (16 + 1) / 2: 16 a^2 + b^2 = 17, b = 4 a */
    const double p = sqrt(17.0 / 32) / sqrt(2), r = 4 * p;
    for (int i = 0; i < 4; i++)
        assert_true(fabs(fabs((double)turn[i]) - (i < 2 ? p : r)) < 1e-3);
    assert_true(fabs(fabs((double)back[0]) - 1 / (2 * p)) < 1e-3);
    arena_free(&a);
}

static void eigenvalues(void **state)
{
    (void)state;
    enum { N = 12 };
    double m[N * N], old[N * N], values[N], vectors[N * N];
    for (int i = 0; i < N * N; i++) /* of min(i, j) + 1: 1 / (4 sin^2((2 k - 1) pi / (4 n + 2))) */
        old[i] = m[i] = (i / N < i % N ? i / N : i % N) + 1;
    quant_eigen(m, N, values, vectors);
    for (int k = 1; k <= N; k++) {
        const double s = sin((2 * k - 1) * acos(-1.0) / (4 * N + 2)), want = 1 / (4 * s * s);
        double nearest = 1e30;
        for (int j = 0; j < N; j++)
            nearest = fmin(nearest, fabs(values[j] - want));
        assert_true(nearest < 1e-10);
    }
    for (int j = 0; j < N; j++)
        for (int i = 0; i < N; i++) {
            double sum = 0;
            for (int k = 0; k < N; k++)
                sum += old[i * N + k] * vectors[k * N + j];
            assert_true(fabs(sum - values[j] * vectors[i * N + j]) < 1e-10);
        }
}

static void refused(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, NULL);
    float turn[4], back[4];
    const double zero[4] = {0}, fine[4] = {1, 0, 0, 1}, wrong[4] = {1, 0, 0, (double)NAN},
                 far[4] = {(double)INFINITY, 0, 0, 1};
    const double *const bad[] = {zero, wrong, far};
    for (int i = 0; i < 3; i++) {
        assert_false(quant_balance(&(struct quant_grams){bad[i], fine, 2, 9, 9}, turn, back, &a));
        assert_false(quant_balance(&(struct quant_grams){fine, bad[i], 2, 9, 9}, turn, back, &a));
    }
    assert_true(quant_balance(&(struct quant_grams){fine, fine, 2, 9, 9}, turn, back, &a));
    arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(balanced), cmocka_unit_test(worked_out),
                                       cmocka_unit_test(eigenvalues), cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
