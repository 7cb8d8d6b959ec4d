/* Shared by the two files that judge meaning. */
#ifndef PLAN_VERIFY_PRIV_H
#define PLAN_VERIFY_PRIV_H

#include "plan/format.h"
#include "plan/plan.h"

/* Reports "WHERE: TEXT" as E0403 and returns its status. */
enum npuc_status plan_refuse(const char *file, struct diag *d, const char *where, const char *fmt, ...)
    NPUC_PRINTF(4, 5);
/* A number of the plan's target snapshot; false when absent or not a finite number >= 0. */
NPUC_MUST_CHECK bool plan_target_number(const struct plan *p, const char *key, double *out);

#define TRY(x)                                                                                                         \
    do {                                                                                                               \
        const enum npuc_status s_ = (x);                                                                               \
        if (s_)                                                                                                        \
            return s_;                                                                                                 \
    } while (0)

#endif
