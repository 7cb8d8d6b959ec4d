/* Half-quadratic quantisation (Badri and Shaji, 2023): the least sum of |error|^p with p < 1, which lets a few elements
 * miss so that the many are near. The error is split into what is given up, shrunk towards zero, and the rest, whose
 * squares the zero point (or, without zero points, the scale) makes least; both in turn, the split ever tighter. All
 * of it in units of the scale, so that the same weight in another unit gets the same codes. Zero points move as real
 * numbers and are rounded at the end, since the formats here have whole ones; the scale then follows by least squares.
 */
#include <math.h>

#include "quant/fit.h"

static const double power = 0.7, first_beta = 10, tighter = 1.01;
enum { TURNS = 20 };

struct state {
    double scale, zero; /* steps = code - zero */
};
struct turn {
    const struct quant_fit *f;
    struct state at;
    double beta;
};
/* Sums over the elements of a span. */
struct totals {
    double n, zero, dot, square;
};

static double shrink(double e, double beta)
{
    const double size = fabs(e), left = size > 0 ? size - pow(size, power - 1) / beta : 0;
    return left > 0 ? copysign(left, e) : 0;
}

/* The value next to v, in units of the scale, that a code with a real zero point stands for. */
static double nearest(const struct turn *t, double v)
{
    const struct quant_operand *o = t->f->o;
    if (dtype_is_float(o->codes)) {
        const struct quant_scale one = {1, 0};
        return (double)quant_decode(o, one, quant_code(o, one, (float)v));
    }
    const double q = nearbyint(v + t->at.zero);
    return fmin(fmax(q, quant_least_code(o->codes)), quant_greatest_code(o->codes)) - t->at.zero;
}

static struct totals add_up(const struct turn *t)
{
    struct totals sums = {0};
    const struct quant_span *p = &t->f->span;
    for (int64_t r = 0; r < p->rows; r++)
        for (int64_t i = 0; i < p->cols; i++) {
            const double v = (double)p->data[r * p->stride + i] / t->at.scale, q = nearest(t, v);
            const double kept = v - shrink(v - q, t->beta);
            sums.n++;
            sums.zero += q + t->at.zero - kept;
            sums.dot += kept * q;
            sums.square += q * q;
        }
    return sums;
}

static double error_of(const struct quant_fit *f, struct quant_scale s)
{
    const struct turn t = {f, {(double)s.scale, s.zero}, 0};
    double sum = 0;
    for (int64_t r = 0; r < f->span.rows; r++)
        for (int64_t i = 0; i < f->span.cols; i++) {
            const double v = (double)f->span.data[r * f->span.stride + i] / t.at.scale;
            sum += pow(fabs(v - nearest(&t, v)) * t.at.scale, power);
        }
    return sum;
}

/* After the last turn: the scale for the rounded zero point, when it has the smaller error. */
static struct quant_scale finish(const struct quant_fit *f, struct quant_scale first, struct turn *t)
{
    const double least = quant_least_code(f->o->codes), greatest = quant_greatest_code(f->o->codes);
    struct quant_scale s[2] = {{quant_usable_scale(f->scale_type, t->at.scale), first.zero}};
    if (!dtype_is_float(f->o->codes))
        s[0].zero = (int)fmin(fmax(nearbyint(t->at.zero), least), greatest);
    t->at = (struct state){(double)s[0].scale, s[0].zero};
    const struct totals sums = add_up(t);
    s[1] = s[0];
    if (sums.square > 0 && sums.dot > 0)
        s[1].scale = quant_usable_scale(f->scale_type, t->at.scale * sums.dot / sums.square);
    struct quant_scale best = first;
    double error = error_of(f, first);
    for (int i = 0; i < 2; i++) {
        const double e = error_of(f, s[i]);
        best = e < error ? s[i] : best;
        error = fmin(e, error);
    }
    return best;
}

/* Turns find what is near; where they begin is the best of a few ranges and of the least squares. */
static struct quant_scale start(const struct quant_fit *f)
{
    static const float parts[] = {1, 0.8f, 0.65f, 0.5f, 0.4f};
    const struct quant_scale cover = quant_fit_minmax(f);
    struct quant_scale best = quant_fit_mse(f);
    double error = error_of(f, best);
    for (int i = 0; i < (int)NPUC_ARRAY_LEN(parts); i++) {
        const struct quant_scale s = {quant_usable_scale(f->scale_type, (double)cover.scale * (double)parts[i]),
                                      cover.zero};
        const double e = error_of(f, s);
        best = e < error ? s : best;
        error = fmin(e, error);
    }
    return best;
}

struct quant_scale quant_fit_hqq(const struct quant_fit *f)
{
    const struct quant_scale first = start(f);
    const bool moves_zero = f->o->shifted && !dtype_is_float(f->o->codes);
    struct turn t = {f, {(double)first.scale, first.zero}, first_beta};
    for (int i = 0; i < TURNS; i++, t.beta *= tighter) {
        const struct totals sums = add_up(&t);
        const double before = t.at.zero;
        if (moves_zero)
            t.at.zero = sums.zero / sums.n;
        else if (sums.square > 0 && sums.dot > 0)
            t.at.scale *= sums.dot / sums.square;
        if (moves_zero && fabs(t.at.zero - before) < 1e-7)
            break;
    }
    return finish(f, first, &t);
}
