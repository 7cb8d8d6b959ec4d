/* Calibrators that walk histograms: KL, OCTAV, HFMG, IFMR. Published forms differ in what they keep of the data; here
 * all of them read the observer's bins and its exact extremes, so that memory is bounded. Formats of floats lose
 * nothing at their small end: they take the whole range. */
#include <math.h>
#include <string.h>

#include "quant/calibrate.h"
#include "quant/weight.h"

enum { BINS = 2048 };

static bool is_codes_of_floats(const struct quant_operand *o)
{
    return dtype_is_float(o->codes);
}

static struct quant_range whole(const struct observer *seen)
{
    return (struct quant_range){seen->lo, seen->hi};
}

static struct quant_range clipped(const struct observer *seen, double size)
{
    return (struct quant_range){fmax(seen->lo, -size), fmin(seen->hi, size)};
}

/* Elements are all of one sign and the codes have a zero point: all codes are on one side. */
static bool is_one_sided(const struct observer *seen, const struct quant_operand *o)
{
    return o->shifted && (seen->lo >= 0 || seen->hi <= 0);
}

/* Codes for magnitudes: half of them, or all on one side. */
static int levels_of(const struct observer *seen, const struct quant_operand *o)
{
    return 1 << (dtype_table[o->codes].bits - (is_one_sided(seen, o) ? 0 : 1));
}

/* ---- histograms of magnitudes */

double quant_magnitudes(const struct observer *seen, double *bin, int n)
{
    const double top = fmax(-seen->lo, seen->hi), width = top / n;
    memset(bin, 0, (size_t)n * sizeof *bin);
    for (int64_t i = 0; i < OBSERVE_BINS && top > 0; i++) {
        const double low = observer_bin_low(seen, i), high = observer_bin_low(seen, i + 1);
        const double a = fmin(low < 0 ? -high : low, top), b = fmin(low < 0 ? -low : high, top);
        if (seen->count[i] == 0)
            continue;
        const double per_length = b > a ? (double)seen->count[i] / (b - a) : 0;
        int at = (int)fmin(floor(a / width), n - 1);
        if (b <= a)
            bin[at] += (double)seen->count[i];
        for (; b > a && at < n && width * at < b; at++)
            bin[at] += per_length * fmax(fmin(b, width * (at + 1)) - fmax(a, width * at), 0);
    }
    return top;
}

/* ---- KL */

/* Divergence of the first n bins, what lies beyond added to the last, from the same bins in `levels` equal groups whose
 * elements are spread evenly over the bins that hold any. An empty bin counts as 1e-4 elements. */
static double divergence(const double *bin, int n, int levels, double beyond)
{
    double total = beyond, sum = 0;
    for (int i = 0; i < n; i++)
        total += bin[i];
    const double kept = total - beyond;
    for (int level = 0; level < levels && kept > 0; level++) {
        const int from = (int)((int64_t)level * n / levels), to = (int)((int64_t)(level + 1) * n / levels);
        double mass = 0;
        int filled = 0;
        for (int i = from; i < to; i++) {
            mass += bin[i];
            filled += bin[i] > 0;
        }
        for (int i = from; i < to; i++) {
            const double p = bin[i] + (i == n - 1 ? beyond : 0), q = bin[i] > 0 ? mass / filled : 1e-4;
            if (p > 0)
                sum += p / total * log(p / total * (kept / q));
        }
    }
    return kept > 0 ? sum : (double)INFINITY;
}

struct quant_range quant_calibrate_kl(const struct observer *seen, const struct quant_operand *o)
{
    double bin[BINS], beyond = 0, least = INFINITY;
    if (is_codes_of_floats(o))
        return whole(seen);
    const double top = quant_magnitudes(seen, bin, BINS);
    const int levels = levels_of(seen, o);
    int best = BINS;
    for (int n = BINS; n >= levels && n > 0; n--) {
        const double d = divergence(bin, n, levels, beyond);
        if (d < least) {
            least = d;
            best = n;
        }
        beyond += bin[n - 1];
    }
    return clipped(seen, fmin(top, (best + 0.5) * top / BINS));
}

/* ---- OCTAV */

/* Sakr et al., 2022: the clip s at which the derivative of clipping and rounding error together is 0,
 *   s = sum of |x| > s / (4^-bits / 3 * how many 0 < |x| <= s + how many |x| > s),
 * from the mean magnitude upwards. Codes of one side are twice as dense. Exact zeros count as other small elements. */
struct quant_range quant_calibrate_octav(const struct observer *seen, const struct quant_operand *o)
{
    enum { STEPS = 50 };
    double bin[BINS];
    if (is_codes_of_floats(o))
        return whole(seen);
    const double top = quant_magnitudes(seen, bin, BINS), width = top / BINS;
    const double levels = 2 * levels_of(seen, o), rounding = 1 / (3 * levels * levels);
    double s = 0;
    for (int step = 0; step < STEPS && top > 0; step++) {
        double sum = 0, above = 0, below = 0;
        for (int i = 0; i < BINS; i++) {
            /* the part of the bin above s, its elements evenly spread */
            const double from = fmin(fmax(s, width * i), width * (i + 1)), share = (i + 1) - from / width;
            above += bin[i] * share;
            below += bin[i] * (1 - share);
            sum += bin[i] * share * (from + width * (i + 1)) / 2;
        }
        const double next = above > 0 ? sum / (rounding * below + above) : s;
        const bool done = fabs(next - s) <= 1e-5 * s;
        s = fmin(next, top);
        if (done)
            break;
    }
    return clipped(seen, s > 0 ? s : top);
}

/* ---- HFMG */

/* A histogram, counts of equal bins from 0 on. */
struct bins {
    const double *count;
    int n;
};

/* The integral of (x - middle of x's code)^2 over bins of density 1: (v^3 - u^3) / 3 between offsets u and v. */
static double cube(double v)
{
    return v * v * v / 3;
}

/* Error of coding all bins with `codes` equal intervals over the bins first..last; in units of bins. */
static double coding_error(const struct bins *h, int first, int last, int codes)
{
    const double width = (double)(last - first + 1) / codes, half = width / 2;
    double sum = 0;
    for (int i = 0; i < h->n; i++) {
        if (h->count[i] == 0)
            continue;
        const double begin = i - first, end = begin + 1;
        const double from = fmin(fmax(floor(begin / width), 0), codes - 1);
        const double to = fmin(fmax(floor(end / width), 0), codes - 1);
        const double u = begin - (from + 0.5) * width, v = end - (to + 0.5) * width;
        sum +=
            h->count[i] * (cube(half) - cube(u) + (to - from - 1) * (cube(half) - cube(-half)) + cube(v) - cube(-half));
    }
    return sum;
}

/* The bins first..last with the least error, from all of them down to a quarter: each step takes a 100,000th of the
 * elements from the end where that frees more bins (at the upper end alone when `mirrored`). */
static void shed(const struct bins *h, int codes, bool mirrored, int *first, int *last)
{
    double total = 0, low = 0, high = 0, least;
    int l = *first, r = *last;
    const int stop = r - l + 1 > 4 ? (r - l + 1) / 4 : 1;
    for (int i = 0; i < h->n; i++)
        total += h->count[i];
    const double step = fmax(1, ceil(total / 100000));
    double below = 0, above = 0; /* elements outside l..r */
    least = coding_error(h, l, r, codes);
    while (r - l + 1 > stop) {
        int nl = l, nr = r;
        double nb = below, na = above;
        while (!mirrored && nl < r && nb + h->count[nl] <= low + step)
            nb += h->count[nl++];
        while (nr > l && na + h->count[nr] <= high + step)
            na += h->count[nr--];
        const bool at_low = nl - l > r - nr;
        if (at_low) {
            low += step;
            below = nb;
        } else {
            high += step;
            above = na;
        }
        if (nl - l == 0 && r - nr == 0) {
            low += mirrored ? 0 : step;
            continue;
        }
        if (at_low)
            l = nl;
        else
            r = nr;
        const double e = l < r ? coding_error(h, l, r, codes) : (double)INFINITY;
        if (e < least) {
            least = e;
            *first = l;
            *last = r;
        }
    }
}

static struct quant_range shed_magnitudes(const struct observer *seen, const struct quant_operand *o)
{
    double count[BINS];
    const double top = quant_magnitudes(seen, count, BINS);
    int first = 0, last = BINS - 1;
    if (top > 0)
        shed(&(struct bins){count, BINS}, levels_of(seen, o), true, &first, &last);
    return clipped(seen, top * (last + 1) / BINS);
}

struct quant_range quant_calibrate_hfmg(const struct observer *seen, const struct quant_operand *o)
{
    double count[OBSERVE_BINS];
    if (is_codes_of_floats(o) || seen->n == 0)
        return whole(seen);
    if (!o->shifted || is_one_sided(seen, o))
        return shed_magnitudes(seen, o);
    int first = OBSERVE_BINS, last = -1;
    for (int i = 0; i < OBSERVE_BINS; i++) {
        count[i] = (double)seen->count[i];
        first = count[i] > 0 && i < first ? i : first;
        last = count[i] > 0 ? i : last;
    }
    shed(&(struct bins){count, OBSERVE_BINS}, 2 * levels_of(seen, o), false, &first, &last);
    return (struct quant_range){fmax(observer_bin_low(seen, first), seen->lo),
                                fmin(observer_bin_low(seen, last + 1), seen->hi)};
}

/* ---- IFMR */

/* AMCT searches the upper end with the lower one fixed where codes have a zero point, else the magnitude. */
struct quant_range quant_calibrate_ifmr(const struct observer *seen, const struct quant_operand *o)
{
    const struct quant_range start = quant_range_without(seen, 1e-6);
    struct quant_range best = start;
    double least = INFINITY;
    for (int i = 70; i <= 130; i++) {
        const double f = i / 100.0;
        const struct quant_range r = {o->shifted ? fmin(start.lo, 0) : start.lo * f, fmax(start.hi, 0) * f};
        const double e = quant_range_error(seen, o, r);
        if (e < least) {
            least = e;
            best = r;
        }
    }
    return best;
}
