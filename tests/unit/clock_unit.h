/* Times of hand-made tile programs. */
#ifndef TESTS_CLOCK_UNIT_H
#define TESTS_CLOCK_UNIT_H

#include "emu_unit.h"

#include "runtime/emu/clock_priv.h"

#include <math.h>

static inline void close_to(double got, double want)
{
    if (fabs(got - want) > 1e-9 * fabs(want))
        fail_msg("%.6f cycles instead of %.6f", got, want);
}

/* A tensor of f16 without contents, far from the others; warm: in L2 at launch. */
static inline int32_t tensor(struct emu_unit *u, int64_t size, bool warm)
{
    const int32_t t = unit_tensor(u, DT_F16, NULL, (size_t)size);
    u->tensors[t].address = (int64_t)(t + 1) << 36;
    u->tensors[t].warm = warm;
    return t;
}

/* dirty: bytes of earlier launches that L2 has to write back. */
static inline struct emu_timing time_dirty(struct emu_unit *u, uint32_t flags, double dirty)
{
    struct emu_timing t;
    struct emu_launch l = {.kernel = u->b.k,
                           .params = u->params,
                           .tensors = u->tensors,
                           .blocks = u->blocks,
                           .target = &u->target,
                           .dirty = dirty,
                           .machine = u->machine};
    if (clock_run(&l, &t, flags) != NPUC_OK)
        fail_msg("%s", l.error);
    return t;
}

static inline struct emu_timing time_flags(struct emu_unit *u, uint32_t flags)
{
    return time_dirty(u, flags, 0);
}

static inline struct emu_timing time_of(struct emu_unit *u)
{
    return time_flags(u, 0);
}

#endif
