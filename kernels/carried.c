/* Conversion of whole operands to the type they are computed in, and of results back. */
#include "kernels/carried.h"

const void *k_carried(struct k_call *c, const struct k_tensor *t, enum dtype carrier)
{
    if (t->dtype == carrier)
        return t->data;
    void *y = k_scratch(c, k_count(t), dtype_size(carrier));
    if (y)
        k_cast(carrier, y, t->dtype, t->data, k_count(t), true);
    return y;
}

void *k_carried_out(struct k_call *c, enum dtype carrier)
{
    const struct k_tensor *y = &c->out[0];
    return carrier == y->dtype ? y->data : k_scratch(c, k_count(y), dtype_size(carrier));
}

void k_carried_done(struct k_call *c, enum dtype carrier, const void *y)
{
    const struct k_tensor *out = &c->out[0];
    if (y != out->data)
        k_cast(out->dtype, out->data, carrier, y, k_count(out), true);
}
