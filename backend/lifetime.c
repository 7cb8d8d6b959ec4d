/* First and last step of every temporary: the steps that touch it or one of its aliases. A tensor that no step touches
 * gets an empty place at step 0. */
#include "backend/emit_priv.h"

static void touch(struct plan *p, int32_t tensor, int32_t step)
{
    struct plan_tensor *t = &p->tensors.data[tensor];
    if (t->kind == PT_ALIAS)
        t = &p->tensors.data[t->base];
    if (t->kind != PT_TEMP)
        return;
    if (t->first < 0)
        t->first = step;
    t->last = step;
}

void plan_lifetimes(struct plan *p)
{
    for (int64_t i = 0; i < p->tensors.len; i++)
        p->tensors.data[i].first = p->tensors.data[i].last = p->tensors.data[i].kind == PT_TEMP ? -1 : 0;
    for (int64_t i = 0; i < p->steps.len; i++) {
        const struct plan_step *s = &p->steps.data[i];
        for (int32_t j = 0; j < s->n_in + s->n_out; j++)
            if (s->tensors[j] >= 0)
                touch(p, s->tensors[j], (int32_t)i);
    }
    for (int64_t i = 0; i < p->tensors.len; i++)
        if (p->tensors.data[i].first < 0)
            p->tensors.data[i].first = p->tensors.data[i].last = 0;
}
