/* Checked size arithmetic. Every size that comes from a file goes through these. */
#ifndef BASE_SIZE_H
#define BASE_SIZE_H

#include "base/compiler.h"

/* *out = a * b (a + b); false when an operand is negative or the result exceeds INT64_MAX. */
NPUC_MUST_CHECK static inline bool size_mul(int64_t a, int64_t b, int64_t *out)
{
    return a >= 0 && b >= 0 && !__builtin_mul_overflow(a, b, out);
}
NPUC_MUST_CHECK static inline bool size_add(int64_t a, int64_t b, int64_t *out)
{
    return a >= 0 && b >= 0 && !__builtin_add_overflow(a, b, out);
}
/* The one range predicate: [off, off + len) lies within [0, size). */
NPUC_MUST_CHECK static inline bool size_in(int64_t off, int64_t len, int64_t size)
{
    return off >= 0 && len >= 0 && len <= size && off <= size - len;
}
static inline int64_t size_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}
static inline int64_t size_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}
static inline int64_t size_align(int64_t a, int64_t to)
{
    return size_ceil_div(a, to) * to;
}
/* Of magnitudes; gcd(0, x) is |x|. */
static inline int64_t size_gcd(int64_t a, int64_t b)
{
    uint64_t x = a < 0 ? -(uint64_t)a : (uint64_t)a, y = b < 0 ? -(uint64_t)b : (uint64_t)b;
    while (y) {
        const uint64_t t = x % y;
        x = y;
        y = t;
    }
    return x > INT64_MAX ? 1 : (int64_t)x; /* 2^63 has no int64; 1 divides everything */
}

#endif
