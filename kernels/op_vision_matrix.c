/* Det and Inverse of the last two axes, and MurmurHash3.
 *
 * Matrices are eliminated in double with the largest element of the column as pivot (the first of equal ones), and
 * rounded once. The inverse of a singular matrix has infinities and NaN. */
#include <math.h>
#include <string.h>

#include "base/pool.h"
#include "kernels/carried.h"

struct matrices {
    int64_t n, columns; /* rows; columns of the working copy */
    const double *x;
    double *y;
    double *work; /* [threads][n][columns] */
};

/* Brings the largest element at or below row k of column k to row k. */
static bool pivot(double *a, int64_t n, int64_t columns, int64_t k)
{
    int64_t best = k;
    for (int64_t i = k + 1; i < n; i++)
        if (fabs(a[i * columns + k]) > fabs(a[best * columns + k]))
            best = i;
    for (int64_t j = 0; best != k && j < columns; j++) {
        const double t = a[k * columns + j];
        a[k * columns + j] = a[best * columns + j];
        a[best * columns + j] = t;
    }
    return best != k;
}

/* Row i minus `factor` times row k, from column `from`. */
static void subtract(double *a, int64_t columns, int64_t i, int64_t k, double factor, int64_t from)
{
    for (int64_t j = from; j < columns; j++)
        a[i * columns + j] -= factor * a[k * columns + j];
}

static void one_det(void *arg, int64_t item, int worker)
{
    const struct matrices *m = arg;
    double *a = m->work + worker * m->n * m->columns, det = 1;
    memcpy(a, m->x + item * m->n * m->n, (size_t)(m->n * m->n) * sizeof *a);
    for (int64_t k = 0; k < m->n && det != 0; k++) {
        if (pivot(a, m->n, m->columns, k))
            det = -det;
        const double head = a[k * m->columns + k];
        det *= head;
        for (int64_t i = k + 1; i < m->n && head != 0; i++)
            subtract(a, m->columns, i, k, a[i * m->columns + k] / head, k + 1);
    }
    m->y[item] = det;
}

static void one_inverse(void *arg, int64_t item, int worker)
{
    const struct matrices *m = arg;
    const int64_t n = m->n;
    double *a = m->work + worker * n * m->columns;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < 2 * n; j++)
            a[i * 2 * n + j] = j < n ? m->x[(item * n + i) * n + j] : j == n + i;
    for (int64_t k = 0; k < n; k++) {
        pivot(a, n, 2 * n, k);
        const double head = a[k * 2 * n + k];
        for (int64_t j = 0; j < 2 * n; j++)
            a[k * 2 * n + j] /= head;
        for (int64_t i = 0; i < n; i++)
            if (i != k)
                subtract(a, 2 * n, i, k, a[i * 2 * n + k], 0);
    }
    for (int64_t i = 0; i < n; i++)
        memcpy(m->y + (item * n + i) * n, a + i * 2 * n + n, (size_t)n * sizeof *a);
}

static enum npuc_status matrices_run(struct k_call *c, int out_rank, bool inverse)
{
    const struct k_tensor *x = c->in[0];
    const int64_t n = x->dims[x->rank - 1], count = k_dims_count(x->rank - 2, x->dims);
    struct matrices m = {.n = n, .columns = inverse ? 2 * n : n};
    const bool shaped = k_out(c, 0, x->dtype, out_rank, x->dims) != NULL;
    m.x = k_carried(c, x, DT_F64);
    m.y = shaped ? k_carried_out(c, DT_F64) : NULL;
    m.work = k_scratch(c, pool_threads(c->pool) * n, m.columns * (int64_t)sizeof(double));
    if (!m.x || !m.y || !m.work)
        return k_no_memory(c);
    if (k_count(&c->out[0]) > 0)
        pool_for(c->pool, count, inverse ? one_inverse : one_det, &m);
    k_carried_done(c, DT_F64, m.y);
    return NPUC_OK;
}

static bool are_square(struct k_call *c)
{
    if (!k_has(c, 1, 1))
        return false;
    const struct k_tensor *x = c->in[0];
    const bool fits = dtype_is_float(x->dtype) && x->rank >= 2 && x->dims[x->rank - 1] == x->dims[x->rank - 2] &&
                      x->dims[x->rank - 1] <= INT32_MAX;
    if (!fits)
        k_fail(c, NPUC_E_INVALID, "expected square matrices of floats");
    return fits;
}

enum npuc_status k_op_det(struct k_call *c)
{
    return are_square(c) ? matrices_run(c, c->in[0]->rank - 2, false) : NPUC_E_INVALID;
}
enum npuc_status k_op_inverse(struct k_call *c)
{
    return are_square(c) ? matrices_run(c, c->in[0]->rank, true) : NPUC_E_INVALID;
}

/* ---- MurmurHash3_x86_32 (Appleby, public domain) of the bytes of each element */

static uint32_t rotated(uint32_t x, int by)
{
    return x << by | x >> (32 - by);
}
static uint32_t mixed(uint32_t k)
{
    return rotated(k * 0xcc9e2d51u, 15) * 0x1b873593u;
}
static uint32_t hash_of(const unsigned char *p, int64_t len, uint32_t seed)
{
    uint32_t h = seed, tail = 0;
    const int64_t whole = len / 4 * 4;
    for (int64_t i = 0; i < whole; i += 4) {
        const uint32_t k = p[i] | (uint32_t)p[i + 1] << 8 | (uint32_t)p[i + 2] << 16 | (uint32_t)p[i + 3] << 24;
        h = rotated(h ^ mixed(k), 13) * 5 + 0xe6546b64u;
    }
    for (int64_t i = len - 1; i >= whole; i--)
        tail = tail << 8 | p[i];
    h ^= len > whole ? mixed(tail) : 0;
    h ^= (uint32_t)len;
    h = (h ^ h >> 16) * 0x85ebca6bu;
    h = (h ^ h >> 13) * 0xc2b2ae35u;
    return h ^ h >> 16;
}

enum npuc_status k_op_murmur_hash3(struct k_call *c)
{
    if (!k_has(c, 1, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    const bool text = x->dtype == DT_STRING;
    const int64_t size = text ? 0 : dtype_table[x->dtype].bits / 8;
    if (!text && size != 4 && size != 8)
        return k_fail(c, NPUC_E_UNSUPPORTED, "type %s is not supported", dtype_table[x->dtype].name);
    const uint32_t seed = (uint32_t)k_attr_int(c, "seed", 0);
    uint32_t *y = k_out(c, 0, k_attr_int(c, "positive", 1) ? DT_U32 : DT_I32, x->rank, x->dims);
    if (!y)
        return k_no_memory(c);
    for (int64_t i = 0; i < k_count(x); i++) {
        const struct k_string s =
            text ? ((const struct k_string *)x->data)[i] : (struct k_string){(const char *)x->data + i * size, size};
        y[i] = hash_of((const unsigned char *)s.text, s.len, seed);
    }
    return NPUC_OK;
}
