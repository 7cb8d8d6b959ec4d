/* Comparing and ordering elements of any numeric type. */
#include "kernels/sort.h"

#include <string.h>

bool k_before(const struct k_tensor *t, int64_t a, int64_t b, bool largest)
{
    if (dtype_is_float(t->dtype)) {
        const double x = k_get_f64(t, a), y = k_get_f64(t, b);
        if (x != x || y != y)
            return largest ? x != x && y == y : x == x && y != y;
        return largest ? x > y : x < y;
    }
    const int64_t x = k_get_i64(t, a), y = k_get_i64(t, b);
    if (t->dtype == DT_U64)
        return largest ? (uint64_t)x > (uint64_t)y : (uint64_t)x < (uint64_t)y;
    return largest ? x > y : x < y;
}

void k_sort_numbers(const struct k_tensor *t, int64_t *v, int64_t *tmp, int64_t n, bool largest)
{
    for (int64_t width = 1; width < n; width *= 2) {
        for (int64_t lo = 0; lo < n; lo += 2 * width) {
            const int64_t mid = lo + width < n ? lo + width : n, hi = lo + 2 * width < n ? lo + 2 * width : n;
            for (int64_t a = lo, b = mid, k = lo; k < hi; k++)
                tmp[k] = a < mid && (b >= hi || !k_before(t, v[b], v[a], largest)) ? v[a++] : v[b++];
        }
        memcpy(v, tmp, (size_t)n * sizeof *v);
    }
}
