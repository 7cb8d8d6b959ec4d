#include "ir/hadamard.h"

#include <math.h>
#include <string.h>

enum { MOST_ORDER = 1 << 12, MOST_ROW = 1 << 24 };

/* ---- Hadamard matrices */

static bool is_prime(int n)
{
    for (int d = 2; d * d <= n; d++)
        if (n % d == 0)
            return false;
    return n > 1;
}

/* How a matrix of order n is made. */
enum kind { NONE, ONE, DOUBLED, PALEY_ONE, PALEY_TWO };

static enum kind kind_of(int n)
{
    if (n == 1)
        return ONE;
    if (n == 2)
        return DOUBLED;
    if (n < 1 || n > MOST_ORDER || n % 4 != 0)
        return NONE;
    if ((n & (n - 1)) != 0 && is_prime(n - 1)) /* n - 1 is 3 modulo 4 */
        return PALEY_ONE;
    if ((n & (n - 1)) != 0 && is_prime(n / 2 - 1) && (n / 2 - 1) % 4 == 1)
        return PALEY_TWO;
    return kind_of(n / 2) == NONE ? NONE : DOUBLED;
}

bool hadamard_known(int n)
{
    return kind_of(n) != NONE;
}

/* 1 where v is a square modulo p, -1 where not, 0 for 0. */
static int8_t residue(int v, int p)
{
    v = ((v % p) + p) % p;
    for (int64_t i = 1; v != 0 && i <= p / 2; i++)
        if (i * i % p == v)
            return 1;
    return v == 0 ? 0 : -1;
}

/* Paley's conference matrix of order p + 1: border of ones around the residues of column - row. The first row is
 * `sign` times the first column; the diagonal is 0. */
static void conference(int8_t *c, int p, int8_t sign)
{
    const int n = p + 1;
    int8_t of[MOST_ORDER];
    for (int v = 0; v < p; v++)
        of[v] = residue(v, p);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            c[i * n + j] = (int8_t)(i == j ? 0 : i == 0 ? 1 : j == 0 ? sign : of[(j - i + p) % p]);
}

static bool fill_paley_one(int8_t *h, int n)
{
    conference(h, n - 1, -1); /* skew */
    for (int i = 0; i < n; i++)
        h[i * n + i] = 1;
    return true;
}

/* Each element of a symmetric conference matrix becomes a block of two by two. */
static bool fill_paley_two(int8_t *h, int n, int8_t *c)
{
    static const int8_t other[2][2] = {{1, 1}, {1, -1}}, diagonal[2][2] = {{1, -1}, {-1, -1}};
    const int half = n / 2;
    conference(c, half - 1, 1);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            const int8_t e = c[i / 2 * half + j / 2];
            h[i * n + j] = (int8_t)(e ? e * other[i % 2][j % 2] : diagonal[i % 2][j % 2]);
        }
    return true;
}

bool hadamard_fill(int8_t *h, int n)
{
    const int half = n / 2;
    switch (kind_of(n)) {
    case NONE: return false;
    case ONE: h[0] = 1; return true;
    case PALEY_ONE: return fill_paley_one(h, n);
    case PALEY_TWO: {
        struct arena a;
        arena_init(&a, NULL);
        int8_t *c = ARENA_ARRAY(&a, int8_t, (int64_t)half * half);
        const bool done = c && fill_paley_two(h, n, c);
        arena_free(&a);
        return done;
    }
    case DOUBLED: break;
    }
    if (!hadamard_fill(h, half)) /* [half][half] at the beginning, then spread out from the last row upwards */
        return false;
    for (int i = half - 1; i >= 0; i--)
        memmove(h + (int64_t)i * n, h + (int64_t)i * half, (size_t)half);
    for (int i = 0; i < half; i++) {
        int8_t *up = h + (int64_t)i * n, *down = up + (int64_t)half * n;
        for (int j = 0; j < half; j++) {
            up[half + j] = down[j] = up[j];
            down[half + j] = (int8_t)-up[j];
        }
    }
    return true;
}

/* ---- orthogonal matrices of any order */

/* A product of n reflections along seeded vectors, in double: the same on every machine. */
static void fill_seeded(double *m, int n)
{
    uint64_t seed = 0x9e3779b97f4a7c15u ^ (uint64_t)n;
    double v[MOST_ORDER];
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            m[i * n + j] = i == j;
    for (int step = 0; step < n; step++) {
        double size = 0;
        for (int i = 0; i < n; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            v[i] = (double)(int64_t)(seed >> 11) / 4503599627370496.0 - 1;
            size += v[i] * v[i];
        }
        for (int i = 0; i < n; i++) {
            double dot = 0;
            for (int j = 0; j < n; j++)
                dot += m[i * n + j] * v[j];
            for (int j = 0; j < n; j++)
                m[i * n + j] -= 2 * dot / size * v[j];
        }
    }
}

static float *factor(int n, struct arena *a)
{
    float *f = ARENA_ARRAY(a, float, (int64_t)n *n);
    const struct arena_mark mark = arena_mark(a);
    int8_t *h = hadamard_known(n) ? ARENA_ARRAY(a, int8_t, (int64_t)n * n) : NULL;
    double *m = h ? NULL : ARENA_ARRAY(a, double, (int64_t)n *n);
    const double size = 1 / sqrt(n);
    if (f && h && hadamard_fill(h, n))
        for (int64_t i = 0; i < (int64_t)n * n; i++)
            f[i] = (float)(h[i] * size);
    else if (f && m) {
        fill_seeded(m, n);
        for (int64_t i = 0; i < (int64_t)n * n; i++)
            f[i] = (float)m[i];
    } else {
        f = NULL;
    }
    arena_release(a, mark);
    return f;
}

/* Orders of the factors. */
static bool divide(struct rotation *r, int64_t k)
{
    *r = (struct rotation){0};
    if (k < 1 || k > MOST_ROW)
        return false;
    /* Hadamard factors where there are some, then the smallest sum */
    for (int seeded = 0; seeded < 2 && r->inner == 0; seeded++)
        for (int64_t outer = 1; outer <= MOST_ORDER && outer <= k; outer++) {
            const int64_t inner = k / outer;
            if (k % outer != 0 || inner > MOST_ORDER || (r->inner && outer + inner >= r->outer + r->inner))
                continue;
            if (!seeded && (!hadamard_known((int)outer) || !hadamard_known((int)inner)))
                continue;
            r->outer = (int)outer;
            r->inner = (int)inner;
            r->hadamard = !seeded;
        }
    return r->inner != 0;
}

bool rotation_possible(int64_t k)
{
    struct rotation r;
    return divide(&r, k);
}

bool rotation_make(struct rotation *r, int64_t k, struct arena *a)
{
    if (!divide(r, k))
        return false;
    r->outer_factor = factor(r->outer, a);
    r->inner_factor = factor(r->inner, a);
    return r->outer_factor && r->inner_factor;
}

void rotation_apply(const struct rotation *r, float *rows, int64_t n, float *scratch)
{
    const int outer = r->outer, inner = r->inner;
    for (int64_t row = 0; row < n; row++) {
        float *x = rows + row * outer * inner;
        for (int a = 0; a < outer; a++)
            for (int d = 0; d < inner; d++) {
                float sum = 0;
                for (int b = 0; b < inner; b++)
                    sum += x[a * inner + b] * r->inner_factor[b * inner + d];
                scratch[a * inner + d] = sum;
            }
        memset(x, 0, (size_t)outer * (size_t)inner * sizeof *x);
        for (int a = 0; a < outer; a++)
            for (int c = 0; c < outer; c++) {
                const float f = r->outer_factor[a * outer + c];
                for (int d = 0; d < inner; d++)
                    x[c * inner + d] += f * scratch[a * inner + d];
            }
    }
}
