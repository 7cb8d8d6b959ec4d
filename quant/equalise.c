#include "quant/equalise.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ir/hadamard.h"
#include "kernels/mac.h"
#include "quant/grid.h"
#include "quant/weight.h"

/* ---- rows of the table */

static const char *const names[QUANT_EQUALISERS] = {
#define EQUALISER(nm, ...) #nm,
#include "quant/equalise.def"
#undef EQUALISER
};

int quant_equalisers_read(const char *text)
{
    int bits = 0;
    if (strcmp(text, "none") == 0)
        return 0;
    while (*text) {
        const size_t n = strcspn(text, ",");
        int row = 0;
        while (row < QUANT_EQUALISERS && (strlen(names[row]) != n || strncmp(names[row], text, n) != 0))
            row++;
        if (row == QUANT_EQUALISERS)
            return -1;
        bits |= 1 << row;
        text += n;
        if (*text == ',' && !*++text)
            return -1;
    }
    return bits;
}

/* ---- weights */

bool quant_face_make(struct quant_face *f, const struct quant_matrix *w, int64_t taps, const struct quant_operand *o,
                     struct arena *a)
{
    const int64_t rows = w->channels * taps, n = rows < QUANT_FACE_CHANNELS ? rows : QUANT_FACE_CHANNELS,
                  k = w->k / taps;
    *f = (struct quant_face){.weight = o, .scale_type = w->scale_type, .channels = w->channels, .n = n, .k = k};
    f->w = ARENA_ARRAY(a, float, n *k + 1);
    f->top = ARENA_ARRAY(a, float, k + 1);
    if (!f->w || !f->top)
        return false;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < k; j++)
            f->w[i * k + j] = w->data[i * w->channels / n * w->k + j * taps + i % taps];
    for (int64_t c = 0; c < w->channels; c++)
        for (int64_t j = 0; j < w->k; j++)
            f->top[j / taps] = fmaxf(f->top[j / taps], fabsf(w->data[c * w->k + j]));
    return true;
}

/* ---- the search */

/* Input and weights as they would be coded, and what their errors do. While factors are searched those of one half of
 * the rows are tried on the other: the more a factor follows the largest element of its channel, the likelier a row
 * that nobody has seen exceeds it. */
struct trial {
    const struct quant_statistics *s;
    const float *top; /* [k]: largest magnitudes of channels: of all rows, or of the half that is not tried */
    int half;         /* whose rows are tried; -1: of both */
    int64_t uniform;  /* rows of the sample among x; extreme ones behind them */
    const struct quant_operand *input;
    const struct quant_face *faces;
    int64_t n_faces, rows, k;
    float *x;        /* [rows][k] */
    float *error;    /* [k], of a row */
    float *w;        /* [QUANT_FACE_CHANNELS][k] */
    float *weigh;    /* [faces][k]: squares of w summed over channels */
    float *noise;    /* [faces][rows]: what errors of the weight do to each row */
    float *signal;   /* [faces][rows]: squares of the output, with a floor */
    float *scratch;  /* [k] */
    double lo, hi;   /* extremes of x */
    bool exact;      /* the weight has no codes: what is left is what codes of the input add */
    struct arena *a; /* for codes, released after each use */
};

static double sum_squares(const float *v, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)v[i] * (double)v[i];
    return sum;
}

static int by_size(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

/* Squares of the output of each row. Rows with next to none count as if they had a hundredth of the median more. */
static void find_signal(struct trial *t)
{
    for (int64_t p = 0; p < t->n_faces; p++) {
        const struct quant_face *f = &t->faces[p];
        const struct arena_mark mark = arena_mark(t->a);
        float *y = ARENA_ARRAY(t->a, float, t->rows * f->n + 1), *to = t->signal + p * t->rows;
        const struct k_matmul_args g = {.dtype = DT_F32,
                                        .m = t->rows,
                                        .n = f->n,
                                        .k = t->k,
                                        .a = t->x,
                                        .a_row = t->k,
                                        .a_col = 1,
                                        .b = f->w,
                                        .b_row = 1,
                                        .b_col = t->k,
                                        .c = y,
                                        .c_row = f->n};
        k_matmul(&g, NULL);
        for (int64_t r = 0; r < t->rows; r++)
            to[r] = (float)sum_squares(y + r * f->n, f->n);
        memcpy(y, to, (size_t)t->rows * sizeof *y);
        qsort(y, (size_t)t->rows, sizeof *y, by_size);
        for (int64_t r = 0; r < t->rows; r++)
            to[r] += 0.01f * y[t->rows / 2] + 1e-30f;
        arena_release(t->a, mark);
    }
}

static void turn_rows(const struct trial *t, float *rows, int64_t n, const float *factor, bool divides,
                      const struct rotation *r)
{
    for (int64_t i = 0; factor && i < n; i++)
        for (int64_t j = 0; j < t->k; j++)
            rows[i * t->k + j] = divides ? rows[i * t->k + j] / factor[j] : rows[i * t->k + j] * factor[j];
    if (r)
        rotation_apply(r, rows, n, t->scratch);
}

/* Errors of the weight's codes, squared and summed over channels. */
static bool add_losses(struct trial *t, const struct quant_face *f, float *loss)
{
    const struct quant_matrix m = {.data = t->w, .channels = f->n, .k = t->k, .scale_type = f->scale_type};
    struct quant_operand o = *f->weight;
    struct quant_codes c;
    o.by = NULL;
    o.data = false;
    if (quant_encode_weight(&o, &m, &c, t->a))
        return false;
    for (int64_t i = 0; i < f->n; i++)
        for (int64_t j = 0; j < t->k; j++) {
            const int64_t at =
                o.per == QUANT_PER_TENSOR ? 0 : i * c.groups + (o.per == QUANT_PER_GROUP ? j / o.group : 0);
            const struct quant_scale s = {c.scales[at], c.zeros ? c.zeros[at] : 0};
            const float d = quant_decode(&o, s, c.codes[i * t->k + j]) - t->w[i * t->k + j];
            loss[j] += d * d;
        }
    return true;
}

/* The weight's squares and what its errors do to the rows. */
static bool add_weight(struct trial *t, int64_t p)
{
    const struct quant_face *f = &t->faces[p];
    float *weigh = t->weigh + p * t->k, *loss = t->error;
    memset(weigh, 0, (size_t)t->k * sizeof *weigh);
    memset(loss, 0, (size_t)t->k * sizeof *loss);
    if (!t->exact && !add_losses(t, f, loss))
        return false;
    for (int64_t i = 0; i < f->n; i++)
        for (int64_t j = 0; j < t->k; j++)
            weigh[j] += t->w[i * t->k + j] * t->w[i * t->k + j];
    for (int64_t r = 0; r < t->rows; r++) {
        float sum = 0;
        for (int64_t j = 0; j < t->k; j++)
            sum += t->x[r * t->k + j] * t->x[r * t->k + j] * loss[j];
        t->noise[p * t->rows + r] = sum;
    }
    return true;
}

static int64_t take_half(const struct trial *t, int64_t at, const float *from, const uint8_t *half, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (t->half < 0 || half[i] == t->half)
            memcpy(t->x + at++ * t->k, from + i * t->k, (size_t)t->k * sizeof *t->x);
    return at;
}

/* The rows that are tried. */
static void take_rows(struct trial *t)
{
    const struct quant_statistics *s = t->s;
    t->uniform = take_half(t, 0, s->sample, s->sample_half, s->n_sample);
    t->rows = take_half(t, t->uniform, s->extreme, s->extreme_half, s->n_extreme);
}

/* Sets x, weigh and noise for these factors. */
static bool set_trial(struct trial *t, const float *factor, const struct rotation *r)
{
    take_rows(t);
    turn_rows(t, t->x, t->rows, factor, true, r);
    t->lo = t->hi = 0;
    for (int64_t i = 0; i < t->rows * t->k; i++) {
        t->lo = fmin(t->lo, (double)t->x[i]);
        t->hi = fmax(t->hi, (double)t->x[i]);
    }
    /* magnitudes of channels are known of more rows */
    double top = 0;
    for (int64_t j = 0; j < t->k; j++)
        top = fmax(top, (double)(t->top[j] / (factor ? factor[j] : 1)));
    if (!t->input->shifted && !r) {
        t->lo = -top;
        t->hi = top;
    }
    for (int64_t p = 0; p < t->n_faces; p++) {
        const struct quant_face *f = &t->faces[p];
        const struct arena_mark mark = arena_mark(t->a);
        memcpy(t->w, f->w, (size_t)(f->n * t->k) * sizeof *t->w);
        turn_rows(t, t->w, f->n, factor, false, r);
        const bool done = add_weight(t, p);
        arena_release(t->a, mark);
        if (!done)
            return false;
    }
    return true;
}

/* Steps of integer codes: x = steps * scale within [least, most]. Adding and taking away 1.5 * 2^23 rounds halves to
 * even. */
static void nearest_integers(const struct quant_operand *o, struct quant_scale s, const float *x, int64_t n, float *q)
{
    const float magic = 12582912, inverse = 1 / s.scale, zero = (float)s.zero;
    const int bits = dtype_table[o->codes].bits;
    const bool is_signed = dtype_table[o->codes].cls == DTC_INT;
    const float least = (is_signed ? -ldexpf(1, bits - 1) : 0) - zero, most = least + ldexpf(1, bits) - 1;
    for (int64_t j = 0; j < n; j++) {
        float v = x[j] * inverse;
        v = v < least ? least : v > most ? most : v;
        q[j] = (v + magic) - magic;
    }
}

/* Squared errors of the codes of what shares a scale. */
static void code_part(const struct quant_operand *o, struct quant_scale s, const float *x, int64_t n, float *error)
{
    if (dtype_is_float(o->codes)) {
        for (int64_t j = 0; j < n; j++)
            error[j] = x[j] / s.scale;
        quant_nearest(o->codes, error, n, error);
    } else {
        nearest_integers(o, s, x, n, error);
    }
    for (int64_t j = 0; j < n; j++) {
        const float d = error[j] * s.scale - x[j];
        error[j] = d * d;
    }
}

static float row_top(const float *x, int64_t k)
{
    float top = 0;
    for (int64_t j = 0; j < k; j++)
        top = fmaxf(top, fabsf(x[j]));
    return top;
}

static void code_row(const struct trial *t, const float *x, struct quant_scale fixed, float *error)
{
    const struct quant_operand *o = t->input;
    const enum dtype scales = o->scales != DT_NONE ? o->scales : DT_F32;
    const int64_t part = o->per == QUANT_PER_GROUP ? o->group : t->k;
    for (int64_t j = 0; j < t->k; j += part) {
        const int64_t n = part < t->k - j ? part : t->k - j;
        const double top = o->dynamic ? (double)row_top(x + j, n) : 0;
        code_part(o, o->dynamic ? quant_cover(o, scales, -top, top) : fixed, x + j, n, error + j);
    }
}

static struct quant_scale scale_of(const struct trial *t, double clip)
{
    const struct quant_scale as_it_is = {1, 0};
    return t->input->cast ? as_it_is : quant_cover(t->input, DT_F32, t->lo * clip, t->hi * clip);
}

/* The relative error of the outputs with a scale that covers the part `clip` of the range. */
static double error_of(struct trial *t, double clip)
{
    const int64_t uniform = t->uniform;
    const struct quant_scale fixed = scale_of(t, clip);
    double sum = 0, worst = 0, all = 0;
    for (int64_t p = 0; p < t->n_faces; p++)
        all += (double)t->faces[p].channels;
    for (int64_t r = 0; r < t->rows; r++) {
        const float *x = t->x + r * t->k;
        double of_row = 0;
        code_row(t, x, fixed, t->error);
        for (int64_t p = 0; p < t->n_faces; p++) {
            const float *weigh = t->weigh + p * t->k;
            float e = t->noise[p * t->rows + r];
            for (int64_t j = 0; j < t->k; j++)
                e += t->error[j] * weigh[j];
            of_row += (double)t->faces[p].channels / all * fmin((double)(e / t->signal[p * t->rows + r]), 1);
        }
        sum += r < uniform ? of_row : 0;
        worst = r < uniform ? worst : fmax(worst, of_row);
    }
    return 0.875 * (uniform ? sum / (double)uniform : worst) + 0.125 * worst;
}

/* Does calibration choose its scale? */
static bool has_range(const struct quant_operand *input)
{
    return !input->dynamic && !input->cast;
}

/* The best part of the range, from the whole downwards until it has grown worse twice. Few rows say too little of what
 * else there may be: they are covered. */
static double search_clip(struct trial *t, double *clip)
{
    enum { FEW_ROWS = 2048 };
    static const double parts[] = {0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.32, 0.25, 0.2, 0.15, 0.1, 0.07, 0.05};
    double least = error_of(t, 1);
    *clip = 1;
    const bool may = has_range(t->input) && t->s->rows >= FEW_ROWS;
    for (int64_t i = 0, worse = 0; may && i < NPUC_ARRAY_LEN(parts) && worse < 2; i++) {
        const double e = error_of(t, parts[i]);
        worse = e < least ? 0 : worse + 1;
        if (e < least) {
            least = e;
            *clip = parts[i];
        }
    }
    return least;
}

/* top(x)^alpha / top(w)^(1 - alpha), their geometric mean 1. Channels that are always 0 keep factor 1. */
static void factors_for(const struct trial *t, double alpha, float *to)
{
    double sum = 0;
    int64_t n = 0;
    for (int64_t j = 0; j < t->k; j++) {
        double w = 0;
        for (int64_t p = 0; p < t->n_faces; p++)
            w = fmax(w, (double)t->faces[p].top[j]);
        const double x = (double)t->top[j];
        to[j] = x > 0 && w > 0 ? (float)(alpha * log(x) - (1 - alpha) * log(w)) : NAN;
        if (!isnan(to[j])) {
            sum += (double)to[j];
            n++;
        }
    }
    for (int64_t j = 0; j < t->k; j++)
        to[j] = isnan(to[j]) ? 1 : (float)exp(fmin(fmax((double)to[j] - sum / (double)n, -11), 11));
}

static void take(struct trial *t, struct quant_equalised *out, double error, double clip)
{
    const struct quant_scale s = scale_of(t, clip);
    out->after = error;
    out->clip = clip;
    out->scale = (double)s.scale;
    out->zero = s.zero;
}

static bool make_trial(struct trial *t, struct arena *a)
{
    const int64_t k = t->k, rows = t->rows, n = t->n_faces;
    t->a = a;
    t->x = ARENA_ARRAY(a, float, rows *k + 1);
    t->error = ARENA_ARRAY(a, float, k + 1);
    t->w = ARENA_ARRAY(a, float, QUANT_FACE_CHANNELS *k + 1);
    t->weigh = ARENA_ARRAY(a, float, n *k + 1);
    t->noise = ARENA_ARRAY(a, float, n *rows + 1);
    t->signal = ARENA_ARRAY(a, float, n *rows + 1);
    t->scratch = ARENA_ARRAY(a, float, k + 1);
    return t->x && t->error && t->w && t->weigh && t->noise && t->signal && t->scratch;
}

/* From here on rows of that half are tried with what the other half says, or for -1 all of them with what all say. */
static bool try_half(struct trial *t, int half)
{
    t->half = half;
    t->top = half < 0 ? t->s->seen.channel : t->s->half_top[1 - half];
    if (!set_trial(t, NULL, NULL))
        return false;
    find_signal(t);
    return true;
}

enum { STRENGTHS = 11, FEW_OF_HALF = 8 };

/* Adds the errors that strengths 0, 0.1 .. 1 leave, behind them that of no factors. */
static bool add_errors(struct trial *t, int half, float *factor, double e[STRENGTHS + 1])
{
    double clip;
    if (!try_half(t, half))
        return false;
    e[STRENGTHS] += search_clip(t, &clip);
    for (int i = 0; i < STRENGTHS; i++) {
        factors_for(t, i / (STRENGTHS - 1.0), factor);
        if (!set_trial(t, factor, NULL))
            return false;
        e[i] += search_clip(t, &clip);
    }
    return true;
}

/* Smoothing counts when it takes away a quarter of the error at least. Of a few rows nothing is concluded. */
static bool search_smooth(struct trial *t, struct quant_equalised *out, struct arena *a)
{
    float *factor = ARENA_ARRAY(a, float, t->k + 1);
    double e[STRENGTHS + 1] = {0}, clip;
    int64_t n = 0;
    int best = 0;
    for (int64_t i = 0; i < t->s->n_sample; i++)
        n += t->s->sample_half[i];
    if (n < FEW_OF_HALF || t->s->n_sample - n < FEW_OF_HALF)
        return true;
    for (int half = 0; half < 2; half++)
        if (!factor || !add_errors(t, half, factor, e))
            return false;
    for (int i = 1; i < STRENGTHS; i++)
        best = e[i] <= e[best] ? i : best;
    if (!try_half(t, -1))
        return false;
    if (e[best] > 0.75 * e[STRENGTHS])
        return true;
    factors_for(t, best / (STRENGTHS - 1.0), factor);
    if (!set_trial(t, factor, NULL))
        return false;
    const double after = search_clip(t, &clip);
    if (after > out->after)
        return true;
    out->smooth = factor;
    out->alpha = best / (STRENGTHS - 1.0);
    take(t, out, after, clip);
    return true;
}

/* Codes without a scale are most precise around some size: a power of two for all channels brings the input there.
 * It counts when it takes away a tenth of the error at least. */
static bool search_level(struct trial *t, struct quant_equalised *out, struct arena *a)
{
    enum { FAR = 8 };
    float *factor = ARENA_ARRAY(a, float, t->k + 1), *best = ARENA_ARRAY(a, float, t->k + 1);
    double least = 0.9 * out->after;
    bool found = false;
    if (!factor || !best)
        return false;
    for (int e = -FAR; e <= FAR; e++) {
        for (int64_t j = 0; j < t->k; j++)
            factor[j] = ldexpf(out->smooth ? out->smooth[j] : 1, e);
        if (!set_trial(t, factor, NULL))
            return false;
        const double after = error_of(t, 1);
        if (after >= least)
            continue;
        memcpy(best, factor, (size_t)t->k * sizeof *best);
        least = after;
        found = true;
    }
    if (!found)
        return true;
    out->smooth = best;
    take(t, out, least, 1);
    return true;
}

/* Turned with the factors found so far; it costs two small products when the model runs, so it must halve the error. */
static bool search_rotate(struct trial *t, struct quant_equalised *out, struct arena *a)
{
    struct rotation r;
    double clip;
    if (!rotation_possible(t->k))
        return true;
    if (!rotation_make(&r, t->k, a) || !set_trial(t, out->smooth, &r))
        return false;
    const double e = search_clip(t, &clip);
    if (e > out->after * 0.5)
        return true;
    out->rotate = QUANT_HADAMARD;
    take(t, out, e, clip);
    return true;
}

/* What codes of the input add to what those of the weight do anyway: the input as it is, and as it was chosen. */
static bool find_added(struct trial *t, struct quant_equalised *out, struct arena *a)
{
    struct rotation r, *turn = out->rotate == QUANT_HADAMARD ? &r : NULL;
    t->exact = true;
    if (!set_trial(t, NULL, NULL))
        return false;
    out->before = error_of(t, 1);
    if ((turn && !rotation_make(turn, t->k, a)) || !set_trial(t, out->smooth, turn))
        return false;
    out->added = error_of(t, out->clip);
    return true;
}

bool quant_equalise(const struct quant_statistics *s, const struct quant_operand *input, const struct quant_face *faces,
                    int64_t n_faces, unsigned allowed, struct quant_equalised *out, struct arena *a)
{
    struct trial t = {.s = s, .input = input, .faces = faces, .n_faces = n_faces, .k = s->k};
    t.rows = s->n_sample + s->n_extreme;
    *out = (struct quant_equalised){.clip = 1};
    if (t.rows == 0 || t.k == 0 || !s->sample || !make_trial(&t, a))
        return false;
    double clip;
    if (!try_half(&t, -1))
        return false;
    const double e = search_clip(&t, &clip);
    take(&t, out, e, clip);
    if (allowed & 1u << QUANT_EQUALISER_smooth &&
        (!search_smooth(&t, out, a) || (input->cast && !search_level(&t, out, a))))
        return false;
    return (!(allowed & 1u << QUANT_EQUALISER_rotate) || search_rotate(&t, out, a)) && find_added(&t, out, a);
}

/* ---- statistics behind it */

bool quant_statistics_turn(struct quant_statistics *s, const float *smooth, enum quant_rotation rotate, struct arena *a)
{
    struct trial t = {.s = s, .k = s->k};
    struct rotation r, *turn = rotate == QUANT_HADAMARD ? &r : NULL;
    t.scratch = ARENA_ARRAY(a, float, s->k + 1);
    if (!t.scratch || (turn && !rotation_make(turn, s->k, a)))
        return false;
    if (s->sample)
        turn_rows(&t, s->sample, s->n_sample, smooth, true, turn);
    if (s->extreme)
        turn_rows(&t, s->extreme, s->n_extreme, smooth, true, turn);
    s->n_cross = 0; /* cross is of rows that nobody turned: it no longer fits */
    if (s->gram && smooth && !turn && s->pairs != s->k) {
        quant_statistics_divide(s, smooth);
        return true;
    }
    if (!s->gram || (!smooth && !turn))
        return true;
    quant_statistics_turned(s);
    /* G becomes R' S G S R: rows, then, as it is symmetric, columns as rows */
    for (int side = 0; side < 2; side++) {
        turn_rows(&t, s->gram, s->k, smooth, true, turn);
        for (int64_t i = 0; i < s->k; i++)
            for (int64_t j = 0; j < i; j++) {
                const float v = s->gram[i * s->k + j];
                s->gram[i * s->k + j] = s->gram[j * s->k + i];
                s->gram[j * s->k + i] = v;
            }
    }
    return true;
}
