#include "quant/awq.h"

#include <math.h>
#include <string.h>

#include "kernels/mac.h"
#include "quant/encode.h"
#include "quant/weight.h"

enum { STRENGTHS = 20 };

/* Sums of squares of the sampled rows, divided by factors, per channel. */
static void squares_of(const struct quant_statistics *s, const float *factor, float *to)
{
    for (int64_t j = 0; j < s->k; j++) {
        double sum = 0;
        for (int64_t r = 0; r < s->n_sample; r++) {
            const double x = (double)s->sample[r * s->k + j] / (factor ? (double)factor[j] : 1);
            sum += x * x;
        }
        to[j] = (float)sum;
    }
}

const char *quant_choose_awq(const struct quant_task *t)
{
    const struct quant_statistics *seen = t->w->seen;
    const struct arena_mark mark = arena_mark(t->scratch);
    if (!seen->sample || seen->pairs != t->w->k || seen->k != t->w->k) { /* windows: all elements alike */
        quant_fit_codes(t, NULL);
        return NULL;
    }
    float *importance = ARENA_ARRAY(t->scratch, float, t->w->k + 1);
    if (!importance)
        return "there is no memory for what its input weighs";
    squares_of(seen, NULL, importance);
    quant_fit_codes(t, importance);
    arena_release(t->scratch, mark);
    return NULL;
}

/* ---- the search */

struct search {
    const struct quant_statistics *s;
    float *w;     /* [QUANT_FACE_CHANNELS][k]: of a face, multiplied; then what its codes change */
    float *error; /* [rows][QUANT_FACE_CHANNELS] */
    struct arena *a;
};

/* [rows of the sample][n] = sample w' */
static void multiply(const struct search *t, const float *w, int64_t n)
{
    const int64_t k = t->s->k;
    const struct k_matmul_args g = {.dtype = DT_F32,
                                    .m = t->s->n_sample,
                                    .n = n,
                                    .k = k,
                                    .a = t->s->sample,
                                    .a_row = k,
                                    .a_col = 1,
                                    .b = w,
                                    .b_row = 1,
                                    .b_col = k,
                                    .c = t->error,
                                    .c_row = n};
    k_matmul(&g, NULL);
}

static double sum_squares(const float *v, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)v[i] * (double)v[i];
    return sum;
}

/* t->w becomes w - decoded(codes(w * factor)) / factor. */
static bool code_face(struct search *t, const struct quant_face *f, const float *factor)
{
    const int64_t k = f->k;
    struct quant_operand o = *f->weight;
    const struct quant_matrix m = {.data = t->w, .channels = f->n, .k = k, .scale_type = f->scale_type, .seen = t->s};
    struct quant_codes c;
    o.by = "mse";
    o.data = false;
    for (int64_t i = 0; i < f->n * k; i++)
        t->w[i] = f->w[i] * factor[i % k];
    if (quant_encode_weight(&o, &m, &c, t->a))
        return false;
    for (int64_t i = 0; i < f->n * k; i++) {
        const int64_t at = o.per == QUANT_PER_TENSOR  ? 0
                           : o.per == QUANT_PER_GROUP ? i / k * c.groups + i % k / o.group
                                                      : i / k;
        const struct quant_scale s = {c.scales[at], c.zeros ? c.zeros[at] : 0};
        t->w[i] = f->w[i] - quant_decode(&o, s, c.codes[i]) / factor[i % k];
    }
    return true;
}

/* Squared error of the outputs over their squares, all faces; below 0: no memory. */
static double error_of(struct search *t, const struct quant_face *faces, int64_t n_faces, const float *factor)
{
    double error = 0, signal = 0;
    for (int64_t p = 0; p < n_faces; p++) {
        const struct quant_face *f = &faces[p];
        const struct arena_mark mark = arena_mark(t->a);
        const double share = (double)f->channels / (double)f->n;
        multiply(t, f->w, f->n);
        signal += share * sum_squares(t->error, t->s->n_sample * f->n);
        const bool done = code_face(t, f, factor);
        arena_release(t->a, mark);
        if (!done)
            return -1;
        multiply(t, t->w, f->n);
        error += share * sum_squares(t->error, t->s->n_sample * f->n);
    }
    return signal > 0 ? error / signal : 0;
}

/* mean |x|^strength over the root of the largest by the smallest; silent channels count as the smallest that is not. */
static void factors_for(const struct quant_statistics *s, double strength, float *to)
{
    double least = INFINITY, most = 0;
    for (int64_t j = 0; j < s->k; j++)
        if (s->sum_abs[j] > 0) {
            least = fmin(least, s->sum_abs[j]);
            most = fmax(most, s->sum_abs[j]);
        }
    for (int64_t j = 0; j < s->k; j++) {
        const double v = fmax(s->sum_abs[j], least) / sqrt(least * most);
        to[j] = most > 0 ? (float)exp(fmin(fmax(strength * log(v), -11), 11)) : 1;
    }
}

bool quant_awq_search(const struct quant_statistics *seen, const struct quant_face *faces, int64_t n_faces,
                      float *factor, struct quant_awq *found, struct arena *a)
{
    struct search t = {.s = seen, .a = a};
    const int64_t k = seen->k;
    t.w = ARENA_ARRAY(a, float, QUANT_FACE_CHANNELS *k + 1);
    t.error = ARENA_ARRAY(a, float, QUANT_SAMPLE_ROWS *QUANT_FACE_CHANNELS + 1);
    float *trial = ARENA_ARRAY(a, float, k + 1);
    *found = (struct quant_awq){0};
    if (!t.w || !t.error || !trial || !seen->sample || seen->n_sample == 0)
        return false;
    for (int i = 0; i < STRENGTHS; i++) {
        factors_for(seen, i / (double)STRENGTHS, trial);
        const double e = error_of(&t, faces, n_faces, trial);
        if (e < 0)
            return false;
        if (i == 0)
            found->before = found->after = e;
        if (i == 0 || e < found->after) {
            found->after = e;
            found->strength = i / (double)STRENGTHS;
            memcpy(factor, trial, (size_t)k * sizeof *factor);
        }
    }
    return true;
}
