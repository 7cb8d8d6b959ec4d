/* What tests of the runtime build plans by hand with. */
#ifndef TESTS_UNIT_PLAN_UNIT_H
#define TESTS_UNIT_PLAN_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "plan/plan.h"
#include "targets/target.h"

static inline void fail_line(void *user, const char *line)
{
    (void)user;
    print_error("%s\n", line);
}

static inline sym name(struct plan *p, const char *s)
{
    return str_internz(&p->strings, s);
}

/* The plan is for ascend-910b1. */
static inline void add_target(struct plan *p)
{
    struct diag d;
    struct target target;
    const char *const *keys, *const *values;
    diag_init(&d, fail_line, NULL);
    assert_int_equal(target_load(&target, "ascend-910b1", &d), NPUC_OK);
    const int64_t n = target_to_pairs(&target, &p->arena, &keys, &values);
    for (int64_t i = 0; i < n; i++) {
        const struct plan_pair pair = {name(p, keys[i]), name(p, values[i])};
        vec_push(&p->arena, &p->target, pair);
    }
    target_free(&target);
    p->target_name = name(p, "ascend-910b1");
}

#endif
