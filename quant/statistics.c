#include "quant/statistics.h"

#include <math.h>
#include <string.h>

#include "kernels/mac.h"

enum { ROWS_AT_ONCE = 1024 };

void quant_statistics_init(struct quant_statistics *s, unsigned kinds, int axis, struct arena *a)
{
    *s = (struct quant_statistics){.kinds = kinds, .axis = axis, .draw = 1};
    observer_init(&s->seen, a);
}

int64_t quant_statistics_bytes(unsigned kinds, int64_t k)
{
    const int64_t gram = (kinds & QUANT_GRAM ? k : 0) + (kinds & QUANT_CROSS ? k : 0),
                  rows = kinds & QUANT_ROWS ? QUANT_SAMPLE_ROWS + QUANT_EXTREME_ROWS : 0;
    return k * (2 * (int64_t)sizeof(double) + (1 + gram + rows) * (int64_t)sizeof(float)) +
           OBSERVE_BINS * (int64_t)sizeof(int64_t);
}

static bool begin(struct quant_statistics *s, int64_t k, struct arena *a)
{
    s->k = k;
    s->sum = ARENA_ARRAY(a, double, k + 1);
    s->sum_abs = ARENA_ARRAY(a, double, k + 1);
    if (s->kinds & QUANT_GRAM)
        s->gram = ARENA_ARRAY(a, float, k *k + 1);
    if (s->kinds & QUANT_CROSS)
        s->cross = ARENA_ARRAY(a, float, k *k + 1);
    if (s->kinds & QUANT_ROWS) {
        s->sample = ARENA_ARRAY(a, float, k *QUANT_SAMPLE_ROWS + 1);
        s->extreme = ARENA_ARRAY(a, float, k *QUANT_EXTREME_ROWS + 1);
    }
    return s->sum && s->sum_abs && (s->cross || !(s->kinds & QUANT_CROSS)) && (s->gram || !(s->kinds & QUANT_GRAM)) &&
           ((s->sample && s->extreme) || !(s->kinds & QUANT_ROWS));
}

/* Of n rows seen each is in the sample with the same probability: the n-th takes a place in it with probability
 * QUANT_SAMPLE_ROWS / n. (Rows at equal distances would be those at the beginnings of windows.) */
static void keep_row(struct quant_statistics *s, const float *x)
{
    int64_t at = s->n_sample;
    if (at == QUANT_SAMPLE_ROWS) {
        s->draw = s->draw * 6364136223846793005u + 1442695040888963407u;
        at = (int64_t)((s->draw >> 33) % (uint64_t)(s->rows + 1));
        if (at >= QUANT_SAMPLE_ROWS)
            return;
    } else {
        s->n_sample++;
    }
    memcpy(s->sample + at * s->k, x, (size_t)s->k * sizeof *x);
}

static void keep_extreme(struct quant_statistics *s, const float *x)
{
    float top = 0;
    for (int64_t i = 0; i < s->k; i++)
        top = fmaxf(top, fabsf(x[i]));
    int64_t least = 0;
    for (int64_t i = 1; i < s->n_extreme; i++)
        least = s->reach[i] < s->reach[least] ? i : least;
    if (s->n_extreme < QUANT_EXTREME_ROWS)
        least = s->n_extreme++;
    else if (top <= s->reach[least])
        return;
    s->reach[least] = top;
    memcpy(s->extreme + least * s->k, x, (size_t)s->k * sizeof *x);
}

static void add_row(struct quant_statistics *s, const float *x)
{
    for (int64_t i = 0; i < s->k; i++) {
        s->sum[i] += (double)x[i];
        s->sum_abs[i] += fabs((double)x[i]);
    }
    if (s->sample) {
        keep_row(s, x);
        keep_extreme(s, x);
    }
    s->rows++;
}

/* gram += x' x for n rows: blocks of columns down to the diagonal, which the other triangle repeats. */
static void add_pairs(struct quant_statistics *s, const float *x, int64_t n)
{
    enum { BLOCK = 128 };
    const int64_t k = s->k;
    for (int64_t first = 0; first < k; first += BLOCK) {
        const int64_t cols = BLOCK < k - first ? BLOCK : k - first;
        const struct k_matmul_args g = {.dtype = DT_F32,
                                        .m = first + cols,
                                        .n = cols,
                                        .k = n,
                                        .a = x,
                                        .a_row = 1,
                                        .a_col = k,
                                        .b = x + first,
                                        .b_row = k,
                                        .b_col = 1,
                                        .c = s->gram + first,
                                        .c_row = k,
                                        .adds = true};
        k_matmul(&g, NULL);
    }
    for (int64_t i = 1; i < k; i++)
        for (int64_t j = 0; j < i; j++)
            s->gram[i * k + j] = s->gram[j * k + i];
}

/* Row r of t in floats. */
static void read_row(const struct k_tensor *t, int axis, int64_t r, float *to)
{
    const int64_t k = t->rank > 0 ? t->dims[axis] : 1;
    int64_t inner = 1;
    for (int i = axis + 1; i < t->rank; i++)
        inner *= t->dims[i];
    for (int64_t i = 0; i < k; i++) {
        const int64_t at = r / inner * inner * k + i * inner + r % inner;
        to[i] = t->dtype == DT_F32 ? ((const float *)t->data)[at] : (float)k_get_f64(t, at);
    }
}

const char *quant_statistics_add(struct quant_statistics *s, const struct k_tensor *t, struct arena *a)
{
    const int axis = s->axis < 0 ? t->rank - 1 : s->axis;
    const int64_t n = k_count(t), k = t->rank > 0 ? t->dims[axis] : 1;
    if ((!s->sum && !begin(s, k, a)) || k != s->k || !observe(&s->seen, t, axis, a))
        return "its rows have another length than in the run before";
    if (s->seen.bad > 0)
        return "its input holds infinities or NaN with this calibration data";
    const struct arena_mark mark = arena_mark(a);
    float *rows = ARENA_ARRAY(a, float, ROWS_AT_ONCE *k + 1);
    const int64_t all = k > 0 ? n / k : 0;
    for (int64_t first = 0; rows && first < all; first += ROWS_AT_ONCE) {
        const int64_t count = ROWS_AT_ONCE < all - first ? ROWS_AT_ONCE : all - first;
        for (int64_t r = 0; r < count; r++) {
            read_row(t, axis, first + r, rows + r * k);
            add_row(s, rows + r * k);
        }
        if (s->gram)
            add_pairs(s, rows, count);
    }
    arena_release(a, mark);
    return rows ? NULL : "there is no memory for its rows";
}

void quant_statistics_compare(struct quant_statistics *s, const float *was, const struct k_tensor *now)
{
    const int64_t k = s->k;
    if (!s->cross || now->dtype != DT_F32)
        return;
    const struct k_matmul_args g = {.dtype = DT_F32,
                                    .m = k,
                                    .n = k,
                                    .k = k_count(now) / k,
                                    .a = was,
                                    .a_row = 1,
                                    .a_col = k,
                                    .b = now->data,
                                    .b_row = k,
                                    .b_col = 1,
                                    .c = s->cross,
                                    .c_row = k,
                                    .adds = true};
    k_matmul(&g, NULL);
    s->n_cross += g.k;
}
