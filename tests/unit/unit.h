/* What every unit test needs: cmocka with its required headers, and an arena that fails loudly. */
#ifndef TESTS_UNIT_UNIT_H
#define TESTS_UNIT_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/arena.h"

static inline void unit_oom(void *user)
{
    (void)user;
    fail_msg("out of memory");
    npuc_assert_failed(__FILE__, __LINE__, "out of memory");
}

static inline void unit_arena(struct arena *a)
{
    arena_init(a, NULL);
    a->on_oom = unit_oom;
}

/* A fixed pseudo-random sequence (splitmix64). */
static inline uint64_t unit_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

#endif
