#include "quant/encode.h"

#include "base/pool.h"

struct encoding {
    const struct quant_task *t;
    const float *importance;
};

/* The part of channel c (all channels for one scale per tensor) under scale g. */
static struct quant_span span_of(const struct encoding *e, int64_t c, int64_t g)
{
    const struct quant_operand *o = e->t->o;
    const struct quant_matrix *w = e->t->w;
    if (o->per == QUANT_PER_TENSOR)
        return (struct quant_span){w->data, w->channels, w->k, w->k};
    const int64_t first = o->per == QUANT_PER_GROUP ? g * o->group : 0;
    const int64_t len = o->per == QUANT_PER_GROUP && o->group < w->k - first ? o->group : w->k - first;
    return (struct quant_span){w->data + c * w->k + first, 1, len, w->k};
}

static void encode_channel(void *arg, int64_t c, int worker)
{
    const struct encoding *e = arg;
    const struct quant_task *t = e->t;
    struct quant_codes *out = t->out;
    (void)worker;
    for (int64_t g = 0; g < out->groups; g++) {
        const struct quant_span p = span_of(e, c, g);
        const int64_t first = t->o->per == QUANT_PER_GROUP ? g * t->o->group : 0;
        const struct quant_fit f = {t->o, t->w->scale_type, p, e->importance ? e->importance + first : NULL};
        const struct quant_scale s = t->fit(&f);
        out->scales[c * out->groups + g] = s.scale;
        if (out->zeros)
            out->zeros[c * out->groups + g] = (int16_t)s.zero;
        int16_t *to = out->codes + (p.data - t->w->data);
        for (int64_t r = 0; r < p.rows; r++)
            quant_codes_of(t->o, s, p.data + r * p.stride, p.cols, to + r * p.stride);
    }
}

void quant_fit_codes(const struct quant_task *t, const float *importance)
{
    struct encoding e = {t, importance};
    pool_for(t->pool, t->o->per == QUANT_PER_TENSOR ? 1 : t->w->channels, encode_channel, &e);
}
