/* Operands and results in the float type that carries them: f64 in double, every other type in float or as told. */
#ifndef KERNELS_CARRIED_H
#define KERNELS_CARRIED_H

#include "kernels/op.h"

/* All elements of t as `carrier`: t's own data when it is of that type; NULL with the error set. */
const void *k_carried(struct k_call *c, const struct k_tensor *t, enum dtype carrier);
/* Where carrier values of output 0, which has been shaped, are to go: the output itself when the types agree. */
void *k_carried_out(struct k_call *c, enum dtype carrier);
/* Rounds them into output 0 unless they are there already. */
void k_carried_done(struct k_call *c, enum dtype carrier, const void *y);

#endif
