#include "quant/statistics.h"

#include <math.h>
#include <string.h>

#include "base/size.h"
#include "kernels/mac.h"
#include "kernels/window.h"

enum { ROWS_AT_ONCE = 1024, MOST_WINDOWS = 4096 };

void quant_statistics_init(struct quant_statistics *s, unsigned kinds, int axis, struct arena *a)
{
    *s = (struct quant_statistics){.kinds = kinds, .axis = axis, .draw = 1, .groups = 1, .taps = 1};
    observer_init(&s->seen, a);
}

void quant_statistics_of_windows(struct quant_statistics *s, int64_t groups, int64_t taps)
{
    s->groups = groups;
    s->taps = taps;
}

int64_t quant_statistics_bytes(unsigned kinds, int64_t k, int64_t groups, int64_t taps)
{
    const int64_t tables = (kinds & QUANT_GRAM ? 1 : 0) + (kinds & QUANT_CROSS ? 1 : 0),
                  rows = kinds & QUANT_ROWS ? QUANT_SAMPLE_ROWS + QUANT_EXTREME_ROWS : 0;
    return k * (2 * (int64_t)sizeof(double) +
                (1 + tables * (k / groups * taps) * taps + rows) * (int64_t)sizeof(float)) +
           OBSERVE_BINS * (int64_t)sizeof(int64_t);
}

static float *pair_table(const struct quant_statistics *s, struct arena *a)
{
    int64_t n;
    return size_mul(s->pairs, s->pairs, &n) && size_mul(n, s->groups, &n) ? ARENA_ARRAY(a, float, n + 1) : NULL;
}

static bool begin(struct quant_statistics *s, int64_t k, struct arena *a)
{
    s->k = k;
    s->pairs = k / s->groups * s->taps;
    s->sum = ARENA_ARRAY(a, double, k + 1);
    s->sum_abs = ARENA_ARRAY(a, double, k + 1);
    if (s->kinds & QUANT_GRAM)
        s->gram = pair_table(s, a);
    if (s->kinds & QUANT_CROSS) {
        s->cross = pair_table(s, a);
        s->moved = ARENA_ARRAY(a, double, s->groups + 1);
    }
    if (s->kinds & QUANT_ROWS) {
        s->half_top[0] = ARENA_ARRAY(a, float, k + 1);
        s->half_top[1] = ARENA_ARRAY(a, float, k + 1);
        s->sample = ARENA_ARRAY(a, float, k *QUANT_SAMPLE_ROWS + 1);
        s->extreme = ARENA_ARRAY(a, float, k *QUANT_EXTREME_ROWS + 1);
    }
    return s->sum && s->sum_abs && ((s->cross && s->moved) || !(s->kinds & QUANT_CROSS)) &&
           (s->gram || !(s->kinds & QUANT_GRAM)) &&
           ((s->sample && s->extreme && s->half_top[0] && s->half_top[1]) || !(s->kinds & QUANT_ROWS));
}

/* Of n rows seen each is in the sample with the same probability: the n-th takes a place in it with probability
 * QUANT_SAMPLE_ROWS / n. (Rows at equal distances would be those at the beginnings of windows.) */
static void keep_row(struct quant_statistics *s, const float *x, int half)
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
    s->sample_half[at] = (uint8_t)half;
    memcpy(s->sample + at * s->k, x, (size_t)s->k * sizeof *x);
}

static void keep_extreme(struct quant_statistics *s, const float *x, int half)
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
    s->extreme_half[least] = (uint8_t)half;
    memcpy(s->extreme + least * s->k, x, (size_t)s->k * sizeof *x);
}

static void add_row(struct quant_statistics *s, const float *x)
{
    enum { ROWS_IN_TURN = 16 };
    const int half = s->adds == 1 ? (int)(s->rows / ROWS_IN_TURN % 2) : (int)(s->adds % 2);
    for (int64_t i = 0; i < s->k; i++) {
        s->sum[i] += (double)x[i];
        s->sum_abs[i] += fabs((double)x[i]);
    }
    if (s->sample) {
        keep_row(s, x, half);
        keep_extreme(s, x, half);
        for (int64_t i = 0; i < s->k; i++)
            s->half_top[half][i] = fmaxf(s->half_top[half][i], fabsf(x[i]));
    }
    s->rows++;
}

/* table += x0' x for n rows of k. */
static void add_block(float *table, const float *x0, const float *x, int64_t n, int64_t k, int64_t first, int64_t cols,
                      int64_t rows)
{
    const struct k_matmul_args g = {.dtype = DT_F32,
                                    .m = rows,
                                    .n = cols,
                                    .k = n,
                                    .a = x0,
                                    .a_row = 1,
                                    .a_col = k,
                                    .b = x + first,
                                    .b_row = k,
                                    .b_col = 1,
                                    .c = table + first,
                                    .c_row = k,
                                    .adds = true};
    k_matmul(&g, NULL);
}

/* Pairs of n rows as they were and as they are, and how far they are apart. */
static void add_moved(struct quant_statistics *s, int64_t group, const float *was, const float *now, int64_t n)
{
    const int64_t k = s->pairs;
    double sum = 0;
    for (int64_t i = 0; i < n * k; i++) {
        const double d = (double)was[i] - (double)now[i];
        sum += d * d;
    }
    s->moved[group] += sum;
    add_block(s->cross + group * k * k, was, now, n, k, 0, k, k);
}

static void add_powers(struct quant_statistics *s, const float *x, int64_t n, int64_t k)
{
    for (int64_t r = 0; r < n; r++) {
        double squares = 0;
        for (int64_t i = 0; i < k; i++) {
            const double v = (double)x[r * k + i] * (double)x[r * k + i];
            squares += v;
            s->fourth += v * v;
        }
        s->quartic += squares * squares;
    }
}

/* gram += x' x for n rows: blocks of columns down to the diagonal, which the other triangle repeats. */
static void add_pairs(struct quant_statistics *s, float *gram, const float *x, int64_t n)
{
    enum { BLOCK = 128 };
    const int64_t k = s->pairs;
    add_powers(s, x, n, k);
    for (int64_t first = 0; first < k; first += BLOCK) {
        const int64_t cols = size_min(BLOCK, k - first);
        add_block(gram, x, x, n, k, first, cols, first + cols);
    }
    for (int64_t i = 1; i < k; i++)
        for (int64_t j = 0; j < i; j++)
            gram[i * k + j] = gram[j * k + i];
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

/* ---- windows */

/* A map [batch][channels][plane] under windows. At most MOST_WINDOWS of all its windows count, equally spread. */
struct windowed {
    const struct k_window *w;
    int64_t batch, channels, groups; /* groups of channels */
    int64_t all, n;                  /* windows; those that count */
};

static struct windowed windowed(const struct quant_statistics *s, const struct k_tensor *t, const struct k_window *w)
{
    struct windowed v = {.w = w, .batch = t->dims[0], .channels = t->dims[1], .groups = s->groups};
    v.all = v.batch * k_plane_out(w);
    v.n = size_min(v.all, MOST_WINDOWS);
    return v;
}

/* Element of a channel's plane under a kernel position of a window; -1: padding. */
static int64_t place_of(const struct k_window *w, const int64_t at[K_AXES], const int64_t tap[K_AXES])
{
    int64_t place = 0;
    for (int i = 0; i < K_AXES; i++) {
        const int64_t p = at[i] * w->stride[i] + k_tap_start(w, i, tap[i]);
        if (p < 0 || p >= w->in[i])
            return -1;
        place = place * w->in[i] + p;
    }
    return place;
}

/* Window i of those that count, of the channels of group g: [channel][position of the kernel]. */
static void read_window(const struct windowed *v, const struct k_tensor *t, const float *f32, int64_t i, int64_t g,
                        float *to)
{
    const struct k_window *w = v->w;
    const int64_t taps = k_window_taps(w), plane = k_plane_in(w), outs = k_plane_out(w), per = v->channels / v->groups;
    const int64_t at = v->n < v->all ? i * v->all / v->n : i, o = at % outs;
    const int64_t pos[K_AXES] = {o / w->out[2] / w->out[1], o / w->out[2] % w->out[1], o % w->out[2]};
    const int64_t base = (at / outs * v->channels + g * per) * plane;
    for (int64_t k = 0; k < taps; k++) {
        int64_t tap[K_AXES];
        k_tap_split(w, k, tap);
        const int64_t place = place_of(w, pos, tap);
        for (int64_t c = 0; c < per; c++) {
            const int64_t e = base + c * plane + place;
            to[c * taps + k] = place < 0 ? 0 : f32 ? f32[e] : (float)k_get_f64(t, e);
        }
    }
}

static const float *floats_of(const struct k_tensor *t)
{
    return t->dtype == DT_F32 ? t->data : NULL;
}

/* Pairs of elements of windows: of `t` with itself, or of `was` with it. */
static bool add_windows(struct quant_statistics *s, const float *was, const struct k_tensor *t,
                        const struct k_window *w, struct arena *a)
{
    const struct windowed v = windowed(s, t, w);
    const struct arena_mark mark = arena_mark(a);
    const int64_t k = s->pairs, table = k * k;
    float *rows = ARENA_ARRAY(a, float, ROWS_AT_ONCE *k + 1),
          *before = was ? ARENA_ARRAY(a, float, ROWS_AT_ONCE *k + 1) : rows;
    const bool done = rows && before;
    for (int64_t g = 0; done && g < s->groups; g++)
        for (int64_t first = 0; first < v.n; first += ROWS_AT_ONCE) {
            const int64_t n = size_min(ROWS_AT_ONCE, v.n - first);
            for (int64_t i = 0; i < n; i++) {
                read_window(&v, t, floats_of(t), first + i, g, rows + i * k);
                if (was)
                    read_window(&v, t, was, first + i, g, before + i * k);
            }
            if (was)
                add_moved(s, g, before, rows, n);
            else
                add_pairs(s, s->gram + g * table, rows, n);
        }
    *(was ? &s->n_cross : &s->n_gram) += v.n;
    arena_release(a, mark);
    return done;
}

/* ---- tensors */

const char *quant_statistics_add(struct quant_statistics *s, const struct k_tensor *t, const struct k_window *w,
                                 struct arena *a)
{
    static const char no_memory[] = "there is no memory for its rows";
    const int axis = s->axis < 0 ? t->rank - 1 : s->axis;
    const int64_t n = k_count(t), k = t->rank > 0 ? t->dims[axis] : 1;
    if ((!s->sum && !begin(s, k, a)) || k != s->k || !observe(&s->seen, t, axis, a))
        return "its rows have another length than in the run before";
    if (s->seen.bad > 0)
        return "its input holds infinities or NaN with this calibration data";
    if (!w && s->pairs != k)
        return "its windows are not known";
    const struct arena_mark mark = arena_mark(a);
    float *rows = ARENA_ARRAY(a, float, ROWS_AT_ONCE *k + 1);
    s->adds++;
    const int64_t all = k > 0 ? n / k : 0;
    for (int64_t first = 0; rows && first < all; first += ROWS_AT_ONCE) {
        const int64_t count = size_min(ROWS_AT_ONCE, all - first);
        for (int64_t r = 0; r < count; r++) {
            read_row(t, axis, first + r, rows + r * k);
            add_row(s, rows + r * k);
        }
        if (s->gram && !w) {
            add_pairs(s, s->gram, rows, count);
            s->n_gram += count;
        }
    }
    arena_release(a, mark);
    return !rows || (s->gram && w && !add_windows(s, NULL, t, w, a)) ? no_memory : NULL;
}

bool quant_statistics_compare(struct quant_statistics *s, const float *was, const struct k_tensor *now,
                              const struct k_window *w, struct arena *a)
{
    if (!s->cross || now->dtype != DT_F32)
        return true;
    if (w)
        return add_windows(s, was, now, w, a);
    const int64_t n = k_count(now) / s->k;
    add_moved(s, 0, was, now->data, n);
    s->n_cross += n;
    return true;
}

void quant_statistics_turned(struct quant_statistics *s)
{
    if (s->n_sample < 1 || s->pairs != s->k)
        return;
    s->quartic = s->fourth = 0;
    add_powers(s, s->sample, s->n_sample, s->k);
    s->quartic *= (double)s->n_gram / (double)s->n_sample;
    s->fourth *= (double)s->n_gram / (double)s->n_sample;
}

void quant_statistics_divide(struct quant_statistics *s, const float *factor)
{
    const int64_t k = s->pairs, per = s->k / s->groups;
    s->believed = quant_statistics_trust(s);
    for (int64_t g = 0; g < s->groups; g++)
        for (int64_t i = 0; i < k; i++)
            for (int64_t j = 0; j < k; j++)
                s->gram[(g * k + i) * k + j] /= factor[g * per + i / s->taps] * factor[g * per + j / s->taps];
}

double quant_statistics_trust(const struct quant_statistics *s)
{
    const int64_t k = s->pairs;
    if (s->believed > 0)
        return s->believed;
    double squares = 0; /* of the mean off-diagonal elements */
    const double n = (double)s->n_gram;
    for (int64_t g = 0; s->n_gram > 0 && g < s->groups; g++)
        for (int64_t i = 0; i < k; i++)
            for (int64_t j = 0; j < i; j++) {
                const double v = (double)s->gram[(g * k + i) * k + j] / n;
                squares += 2 * v * v;
            }
    if (squares <= 0 || s->n_gram < 2)
        return 0;
    const double variances = ((s->quartic - s->fourth) / n - squares) / (n - 1);
    return fmin(fmax(1 - variances / squares, 0), 1);
}
