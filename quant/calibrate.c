#include "quant/calibrate.h"

#include <math.h>
#include <string.h>

#include "quant/weight.h"

static const struct quant_calibrator rows[] = {
#define CALIBRATOR(nm, wh) {#nm, wh, quant_calibrate_##nm},
#include "quant/calibrators.def"
#undef CALIBRATOR
};

const struct quant_calibrator *quant_calibrators(int64_t *n)
{
    *n = NPUC_ARRAY_LEN(rows);
    return rows;
}

const struct quant_calibrator *quant_calibrator_find(const char *name)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(rows); i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    return NULL;
}

struct quant_range quant_calibrate_minmax(const struct observer *seen, const struct quant_operand *o)
{
    (void)o;
    return (struct quant_range){seen->lo, seen->hi};
}

struct quant_range quant_calibrate_ema(const struct observer *seen, const struct quant_operand *o)
{
    (void)o;
    return (struct quant_range){seen->ema_lo, seen->ema_hi};
}

struct quant_range quant_range_without(const struct observer *seen, double share)
{
    const double most = share * (double)seen->n;
    int64_t first = 0, last = OBSERVE_BINS - 1;
    for (int64_t below = 0; first < last && (double)(below += seen->count[first]) <= most;)
        first++;
    for (int64_t above = 0; last > first && (double)(above += seen->count[last]) <= most;)
        last--;
    return (struct quant_range){fmax(observer_bin_low(seen, first), seen->lo),
                                fmin(observer_bin_low(seen, last + 1), seen->hi)};
}

struct quant_range quant_calibrate_percentile(const struct observer *seen, const struct quant_operand *o)
{
    (void)o;
    return quant_range_without(seen, 0.00005);
}

double quant_range_error(const struct observer *seen, const struct quant_operand *o, struct quant_range r)
{
    const struct quant_scale s = quant_cover(o, DT_F32, r.lo, r.hi);
    const double half = seen->reach / OBSERVE_BINS;
    double sum = 0;
    for (int64_t i = 0; i < OBSERVE_BINS; i++) {
        const double x = observer_bin_low(seen, i) + half;
        if (seen->count[i] == 0)
            continue;
        const double e = x - (double)quant_decode(o, s, quant_code(o, s, (float)x));
        sum += (double)seen->count[i] * e * e;
    }
    return sum;
}

struct quant_range quant_calibrate_mse(const struct observer *seen, const struct quant_operand *o)
{
    enum { STEPS = 100 };
    struct quant_range best = {seen->lo, seen->hi};
    double least = quant_range_error(seen, o, best);
    for (int i = 1; i < STEPS; i++) {
        const double f = 1 - (double)i / STEPS;
        const struct quant_range r = {seen->lo * f, seen->hi * f};
        const double e = quant_range_error(seen, o, r);
        if (e < least) {
            least = e;
            best = r;
        }
    }
    return best;
}

void quant_calibrate(struct quant_operand *o, const struct observer *seen)
{
    const struct quant_calibrator *c = quant_calibrator_find(o->by ? o->by : "minmax");
    const struct quant_range r = c->run(seen, o);
    const struct quant_scale s = quant_cover(o, DT_F32, r.lo, r.hi);
    o->scale = (double)s.scale;
    o->zero = s.zero;
}
