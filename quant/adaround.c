/* AdaRound (Nagel and others, 2020): each element goes down or up to one of the two codes beside it, chosen together.
 * A code is floor(w / scale) + h, h = clip(1.2 sigmoid(v) - 0.1, 0, 1); v moves by Adam along the gradient of
 *
 *     cost of the errors (gram.h) / what rounding to nearest costs on average + weight * sum of 1 - |2 h - 1|^beta,
 *
 * whose second term pulls each h to 0 or 1, from a fifth of the turns on, harder as beta falls from 20 to 2. The paper
 * takes batches of inputs; with the Gram matrix a turn sees all of them. Rows are independent: nothing is drawn by
 * chance. */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "kernels/mac.h"
#include "quant/rows.h"

enum { TURNS = 1000, WARM = TURNS / 5 };
static const float stretch = 1.2f, below = 0.1f, rate = 0.03f, pull_to_ends = 1.0f;

struct state {
    const struct quant_rows *t;
    float *v, *first, *second; /* Adam's variables and moments, [n][k] */
    float *error, *slope;      /* [n][k]: w - decoded, and its product with h */
    float unit;                /* of the row: 1 / the cost of rounding per element */
};

int64_t quant_adaround_scratch(int64_t k)
{
    return 5 * QUANT_ROWS_AT_ONCE * k;
}

static float sigmoid(float v)
{
    return 1 / (1 + expf(-v));
}

static float share_of(float v)
{
    return fminf(fmaxf(stretch * sigmoid(v) - below, 0), 1);
}

/* v for which share_of(v) is h, h within [0, 1]. */
static float inverse_share(float h)
{
    const float p = fminf(fmaxf((h + below) / stretch, 1e-3f), 1 - 1e-3f);
    return logf(p / (1 - p));
}

struct element {
    struct quant_scale s;
    float low; /* the steps below w / scale */
    float most, least;
};

static struct element element_at(const struct quant_rows *t, int64_t r, int64_t i)
{
    const int64_t at = quant_scale_index(t->o, t->out, t->first + r, i);
    const struct quant_scale s = {t->out->scales[at], t->out->zeros ? t->out->zeros[at] : 0};
    return (struct element){s, floorf(t->w->data[(t->first + r) * t->w->k + i] / s.scale),
                            (float)(quant_greatest_code(t->o->codes) - s.zero),
                            (float)(quant_least_code(t->o->codes) - s.zero)};
}

static float steps_of(const struct element *e, float h)
{
    return fminf(fmaxf(e->low + h, e->least), e->most);
}

static void begin(const struct state *a)
{
    const struct quant_rows *t = a->t;
    const int64_t k = t->w->k;
    memset(a->first, 0, (size_t)(t->n * k) * sizeof *a->first);
    memset(a->second, 0, (size_t)(t->n * k) * sizeof *a->second);
    for (int64_t r = 0; r < t->n; r++)
        for (int64_t i = 0; i < k; i++) {
            const struct element e = element_at(t, r, i);
            const float x = t->w->data[(t->first + r) * k + i] / e.s.scale;
            a->v[r * k + i] = inverse_share(fminf(fmaxf(x - e.low, 0), 1));
        }
}

static void find_slopes(const struct state *a)
{
    const struct quant_rows *t = a->t;
    const int64_t k = t->w->k;
    for (int64_t r = 0; r < t->n; r++)
        for (int64_t i = 0; i < k; i++) {
            const struct element e = element_at(t, r, i);
            a->error[r * k + i] =
                t->w->data[(t->first + r) * k + i] - steps_of(&e, share_of(a->v[r * k + i])) * e.s.scale;
        }
    const struct k_matmul_args g = {.dtype = DT_F32,
                                    .m = t->n,
                                    .n = k,
                                    .k = k,
                                    .a = a->error,
                                    .a_row = k,
                                    .a_col = 1,
                                    .b = t->m->h,
                                    .b_row = k,
                                    .b_col = 1,
                                    .c = a->slope,
                                    .c_row = k};
    k_matmul(&g, NULL);
}

/* The gradient by v of the element's part of both terms. */
static float gradient(const struct state *a, const struct element *e, int64_t at, int turn)
{
    const float v = a->v[at], p = sigmoid(v), h = stretch * p - below;
    if (h <= 0 || h >= 1)
        return 0;
    const float x = e->low + h;
    float by_h = x < e->least || x > e->most ? 0 : -2 * a->slope[at] * e->s.scale * a->unit;
    if (turn >= WARM) {
        const float beta = 20 - 18 * (float)(turn - WARM) / (TURNS - WARM), d = 2 * h - 1;
        by_h -= pull_to_ends * 2 * beta * copysignf(powf(fabsf(d), beta - 1), d);
    }
    return by_h * stretch * p * (1 - p);
}

static void step(struct state *a, int turn)
{
    const struct quant_rows *t = a->t;
    const int64_t k = t->w->k;
    const float keep1 = 0.9f, keep2 = 0.999f;
    const float whole1 = 1 - powf(keep1, (float)(turn + 1)), whole2 = 1 - powf(keep2, (float)(turn + 1));
    for (int64_t r = 0; r < t->n; r++) {
        double spread = 0; /* of nearest rounding: scale^2 / 12 per element */
        for (int64_t i = 0; i < k; i++) {
            const struct element e = element_at(t, r, i);
            spread += (double)(e.s.scale * e.s.scale * t->m->h[i * k + i]) / 12;
        }
        a->unit = spread > 0 ? (float)((double)k / spread / 12) : 0;
        for (int64_t i = 0; i < k; i++) {
            const struct element e = element_at(t, r, i);
            const int64_t at = r * k + i;
            const float g = gradient(a, &e, at, turn);
            a->first[at] = keep1 * a->first[at] + (1 - keep1) * g;
            a->second[at] = keep2 * a->second[at] + (1 - keep2) * g * g;
            a->v[at] -= rate * (a->first[at] / whole1) / (sqrtf(a->second[at] / whole2) + 1e-8f);
        }
    }
}

static void write_codes(const struct state *a)
{
    const struct quant_rows *t = a->t;
    for (int64_t r = 0; r < t->n; r++)
        for (int64_t i = 0; i < t->w->k; i++) {
            const struct element e = element_at(t, r, i);
            const float h = share_of(a->v[r * t->w->k + i]) >= 0.5f ? 1 : 0;
            t->out->codes[(t->first + r) * t->w->k + i] = (int16_t)((int)steps_of(&e, h) + e.s.zero);
        }
}

void quant_round_adaptively(const struct quant_rows *t)
{
    const int64_t size = t->n * t->w->k;
    struct state a = {.t = t, .v = t->scratch};
    a.first = a.v + size;
    a.second = a.first + size;
    a.error = a.second + size;
    a.slope = a.error + size;
    begin(&a);
    for (int turn = 0; turn < TURNS; turn++) {
        find_slopes(&a);
        step(&a, turn);
    }
    write_codes(&a);
}
