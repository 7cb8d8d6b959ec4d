/* Time that passes, for progress and reports: no result depends on it. */
#ifndef BASE_STOPWATCH_H
#define BASE_STOPWATCH_H

#include <stdint.h>
#include <time.h>

/* Nanoseconds of a clock that only goes forward; its zero means nothing. */
static inline int64_t stopwatch_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
/* Seconds since stopwatch_ns gave `start`. */
static inline double stopwatch_since(int64_t start)
{
    return 1e-9 * (double)(stopwatch_ns() - start);
}

#endif
