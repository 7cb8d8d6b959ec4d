#include "quant/fit.h"

#include <math.h>
#include <string.h>

#include "quant/grid.h"

/* Elements of a row are handled LANES at a time, so that sums are the same whatever the compiler makes of the loops. */
enum { LANES = 16 };

struct lanes {
    float x[LANES], weight[LANES]; /* weight 0 beyond the row */
};

static void read_lanes(const struct quant_fit *f, int64_t row, int64_t first, struct lanes *to)
{
    const float *x = f->span.data + row * f->span.stride + first;
    const int64_t n = f->span.cols - first < LANES ? f->span.cols - first : LANES;
    if (n < LANES)
        *to = (struct lanes){0};
    memcpy(to->x, x, (size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++)
        to->weight[i] = f->importance ? f->importance[first + i] : 1;
}

/* Steps of integer codes: x = steps * scale, steps = code - zero within [least, most]. */
struct steps {
    float scale, least, most;
};

static struct steps steps_of(const struct quant_operand *o, struct quant_scale s)
{
    return (struct steps){s.scale, (float)(quant_least_code(o->codes) - s.zero),
                          (float)(quant_greatest_code(o->codes) - s.zero)};
}

/* To the nearest whole number, halves to even, for |v| < 2^22: adding and taking away 1.5 * 2^23 leaves no fraction. */
static float whole(float v)
{
    const float big = 12582912.0f;
    return (v + big) - big;
}

static float steps_to(const struct steps *t, float x)
{
    const float v = x / t->scale;
    const float low = v < t->least ? t->least : v;
    return whole(low > t->most ? t->most : low);
}

static void add_error_of_integers(const struct steps *t, const struct lanes *in, double *sum)
{
    for (int i = 0; i < LANES; i++) {
        const float e = in->x[i] - steps_to(t, in->x[i]) * t->scale;
        sum[i] += (double)(e * e * in->weight[i]);
    }
}

static void add_error(const struct quant_fit *f, struct quant_scale s, const struct lanes *in, double *sum)
{
    float q[LANES];
    for (int i = 0; i < LANES; i++)
        q[i] = in->x[i] / s.scale;
    quant_nearest(f->o->codes, q, LANES, q);
    for (int i = 0; i < LANES; i++) {
        const float e = in->x[i] - q[i] * s.scale;
        sum[i] += (double)(e * e * in->weight[i]);
    }
}

double quant_fit_error(const struct quant_fit *f, struct quant_scale s)
{
    const bool is_float = dtype_is_float(f->o->codes);
    const struct steps t = is_float ? (struct steps){0} : steps_of(f->o, s);
    double sum[LANES] = {0}, all = 0;
    struct lanes in;
    for (int64_t r = 0; r < f->span.rows; r++)
        for (int64_t i = 0; i < f->span.cols; i += LANES) {
            read_lanes(f, r, i, &in);
            if (is_float)
                add_error(f, s, &in, sum);
            else
                add_error_of_integers(&t, &in, sum);
        }
    for (int i = 0; i < LANES; i++)
        all += sum[i];
    return all;
}

/* ---- all elements */

struct extremes {
    double lo, hi;
};

static struct extremes extremes_of(const struct quant_fit *f)
{
    struct extremes e = {0, 0};
    for (int64_t r = 0; r < f->span.rows; r++)
        for (int64_t i = 0; i < f->span.cols; i++) {
            const double x = (double)f->span.data[r * f->span.stride + i];
            e.lo = x < e.lo ? x : e.lo;
            e.hi = x > e.hi ? x : e.hi;
        }
    return e;
}

struct quant_scale quant_fit_minmax(const struct quant_fit *f)
{
    const struct extremes e = extremes_of(f);
    return quant_cover(f->o, f->scale_type, e.lo, e.hi);
}

/* ---- least squared error */

struct best {
    struct quant_scale s;
    double error;
};

static bool take_if_better(const struct quant_fit *f, struct quant_scale s, struct best *best)
{
    const double e = quant_fit_error(f, s);
    if (!(e < best->error))
        return false;
    *best = (struct best){s, e};
    return true;
}

static bool is_shifted(const struct quant_operand *o)
{
    return o->shifted && !dtype_is_float(o->codes);
}

/* Scales up to 4 % beside the best, with the zero point or one beside it, until none is better: the error of few
 * elements is rugged, and a little to the side it can be a good deal lower. */
static void climb(const struct quant_fit *f, struct best *best)
{
    enum { TURNS = 8, SIDE = 8 };
    const int least = quant_least_code(f->o->codes), greatest = quant_greatest_code(f->o->codes);
    const int shifts = is_shifted(f->o) ? 1 : 0;
    bool moved = true;
    for (int turn = 0; moved && turn < TURNS; turn++) {
        const struct quant_scale at = best->s;
        moved = false;
        for (int dz = -shifts; dz <= shifts; dz++)
            for (int ds = -SIDE; ds <= SIDE; ds++) {
                const struct quant_scale s = {quant_usable_scale(f->scale_type, (double)at.scale * (1 + 0.005 * ds)),
                                              at.zero + dz};
                if ((dz != 0 || ds != 0) && s.zero >= least && s.zero <= greatest)
                    moved |= take_if_better(f, s, best);
            }
    }
}

/* Ranges whose ends are parts of `of`: both alike, the lower or the upper alone. */
enum ends { BOTH, LOWER, UPPER };
static void try_parts(const struct quant_fit *f, struct extremes of, enum ends ends, struct extremes *range,
                      struct best *best)
{
    /* Clipping pays off with few codes. Ranges beyond the elements are tried too: floats have their best precision
     * anywhere within an octave, and with one end alone the zero point moves. */
    const double most = dtype_is_float(f->o->codes) ? 1.6 : ends == BOTH ? 1.0 : 1.3;
    const double least = ends == BOTH ? 0.3 : 0.1, step = 0.025;
    for (int i = 0; best->error > 0 && most - i * step >= least; i++) {
        const double part = most - i * step;
        const struct extremes r = {ends == UPPER ? of.lo : of.lo * part, ends == LOWER ? of.hi : of.hi * part};
        if (take_if_better(f, quant_cover(f->o, f->scale_type, r.lo, r.hi), best))
            *range = r;
    }
}

struct quant_scale quant_fit_mse(const struct quant_fit *f)
{
    const struct extremes e = extremes_of(f);
    struct extremes range = e;
    struct best best = {quant_cover(f->o, f->scale_type, e.lo, e.hi), 0};
    best.error = quant_fit_error(f, best.s);
    try_parts(f, e, BOTH, &range, &best);
    if (is_shifted(f->o)) {
        try_parts(f, range, LOWER, &range, &best);
        try_parts(f, range, UPPER, &range, &best);
    }
    if (best.error > 0)
        climb(f, &best);
    return best.s;
}

/* ---- codes and scale in turn */

/* Weighted sums over the span, q the steps of its elements: of 1, q, x, q q and q x. */
struct sums {
    double n, q, x, qq, qx;
};

static void add_sums(const struct quant_fit *f, struct quant_scale s, const struct lanes *in, struct sums *to)
{
    for (int i = 0; i < LANES; i++) {
        const double x = (double)in->x[i], w = (double)in->weight[i];
        const double q = (double)quant_decode(f->o, (struct quant_scale){1, s.zero}, quant_code(f->o, s, in->x[i]));
        to->n += w;
        to->q += w * q;
        to->x += w * x;
        to->qq += w * q * q;
        to->qx += w * q * x;
    }
}

static struct sums sums_of(const struct quant_fit *f, struct quant_scale s)
{
    struct sums sums = {0};
    struct lanes in;
    for (int64_t r = 0; r < f->span.rows; r++)
        for (int64_t i = 0; i < f->span.cols; i += LANES) {
            read_lanes(f, r, i, &in);
            add_sums(f, s, &in, &sums);
        }
    return sums;
}

/* x ~ scale * (q - shift) for the steps q that s gives, by least squares; shift is rounded and the scale found for it.
 */
static struct quant_scale least_squares(const struct quant_fit *f, struct quant_scale s)
{
    const struct sums t = sums_of(f, s);
    double shift = 0;
    if (is_shifted(f->o)) {
        const double spread = t.n * t.qq - t.q * t.q, slope = spread > 0 ? (t.n * t.qx - t.q * t.x) / spread : 0;
        shift = slope > 0 && t.n > 0 ? nearbyint((t.q - t.x / slope) / t.n) : 0;
    }
    const double zero = fmin(fmax(s.zero + shift, quant_least_code(f->o->codes)), quant_greatest_code(f->o->codes));
    shift = zero - s.zero;
    const double square = t.qq - 2 * shift * t.q + shift * shift * t.n, dot = t.qx - shift * t.x;
    if (!(square > 0) || !(dot > 0))
        return s;
    return (struct quant_scale){quant_usable_scale(f->scale_type, dot / square), (int)zero};
}

struct quant_scale quant_fit_ssz(const struct quant_fit *f)
{
    enum { MOST = 50 };
    struct best best = {quant_fit_minmax(f), 0};
    best.error = quant_fit_error(f, best.s);
    for (int i = 0; i < MOST && best.error > 0; i++) {
        const double before = best.error;
        if (!take_if_better(f, least_squares(f, best.s), &best) || best.error > before * (1 - 1e-6))
            break;
    }
    return best.s;
}
