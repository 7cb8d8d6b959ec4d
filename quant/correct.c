#include "quant/correct.h"

#include "quant/weight.h"

const char *quant_correct(const struct quant_operand *o, const struct quant_matrix *w, const struct quant_means *m,
                          float *out, struct arena *a)
{
    struct quant_codes c;
    const char *why = quant_encode_weight(o, w, &c, a);
    if (why)
        return why;
    const int64_t positions = w->k / m->inputs, per_group = w->channels / m->groups;
    for (int64_t r = 0; r < w->channels; r++) {
        const double *mean = m->mean + r / per_group * m->inputs;
        double sum = 0;
        for (int64_t i = 0; i < w->k; i++) {
            const int64_t at =
                o->per == QUANT_PER_TENSOR ? 0 : r * c.groups + (o->per == QUANT_PER_GROUP ? i / o->group : 0);
            const struct quant_scale s = {.scale = c.scales[at], .zero = c.zeros ? c.zeros[at] : 0};
            const double coded = (double)quant_decode(o, s, c.codes[r * w->k + i]);
            sum += ((double)w->data[r * w->k + i] - coded) * mean[i / positions];
        }
        out[r] = (float)sum;
    }
    return NULL;
}
