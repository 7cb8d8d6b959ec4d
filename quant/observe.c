#include "quant/observe.h"

#include <math.h>
#include <string.h>

#define HALF (0.5 * OBSERVE_BINS)

void observer_init(struct observer *o, struct arena *a)
{
    *o = (struct observer){.count = ARENA_ARRAY(a, int64_t, OBSERVE_BINS)};
}

double observer_bin_low(const struct observer *o, int64_t bin)
{
    return o->reach * ((double)bin / HALF - 1);
}

/* Doubles the reach until it is above `size`. */
static void widen(struct observer *o, double size)
{
    if (o->reach == 0) {
        o->reach = ldexp(1, size > 0 ? ilogb(size) + 1 : -20);
        return;
    }
    while (size >= o->reach) {
        int64_t merged[OBSERVE_BINS] = {0};
        for (int64_t i = 0; i < OBSERVE_BINS; i++)
            merged[OBSERVE_BINS / 4 + i / 2] += o->count[i];
        memcpy(o->count, merged, sizeof merged);
        o->reach *= 2;
    }
}

static void add(struct observer *o, double v)
{
    if (!isfinite(v)) {
        o->bad++;
        return;
    }
    if (fabs(v) >= o->reach)
        widen(o, fabs(v));
    const int64_t bin = (int64_t)floor((v / o->reach + 1) * HALF);
    o->count[bin]++;
    o->lo = fmin(o->lo, v);
    o->hi = fmax(o->hi, v);
    o->sum += v;
    o->squares += v * v;
    o->n++;
}

bool observe(struct observer *o, const struct k_tensor *t, int axis, struct arena *a)
{
    const int64_t n = k_count(t), channels = t->rank > 0 ? t->dims[axis] : 1;
    int64_t inner = 1;
    for (int i = axis + 1; i < t->rank; i++)
        inner *= t->dims[i];
    if (!o->channel)
        o->channel = ARENA_ARRAY(a, float, (o->n_channels = channels) + 1);
    if (!o->channel || !o->count || channels != o->n_channels)
        return false;
    double lo = 0, hi = 0;
    for (int64_t i = 0; i < n; i++) {
        const double v = t->dtype == DT_F32 ? (double)((const float *)t->data)[i] : k_get_f64(t, i);
        float *top = &o->channel[i / inner % channels];
        add(o, v);
        if (isfinite(v)) {
            *top = fmaxf(*top, (float)fabs(v));
            lo = fmin(lo, v);
            hi = fmax(hi, v);
        }
    }
    o->ema_lo = o->batches ? 0.99 * o->ema_lo + 0.01 * lo : lo;
    o->ema_hi = o->batches ? 0.99 * o->ema_hi + 0.01 * hi : hi;
    o->batches++;
    return true;
}
