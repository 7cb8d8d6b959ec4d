/* The table of element types and look-ups by the names other formats give them. */
#include "base/dtype.h"

#include "base/size.h"

#include <string.h>

const struct dtype_info dtype_table[DT_COUNT] = {
    [DT_NONE] = {"none", 0, 0, NULL, DTC_NONE},
#define DTYPE(e, text, width, number, descr, class_) [DT_##e] = {text, width, number, descr, DTC_##class_},
#include "base/dtype.def"
#undef DTYPE
};

enum dtype dtype_from_onnx(int64_t number)
{
    for (int t = DT_NONE + 1; t < DT_COUNT; t++)
        if (dtype_table[t].onnx == number)
            return (enum dtype)t;
    return DT_NONE;
}

enum dtype dtype_from_name(const char *name, int64_t len)
{
    for (int t = DT_NONE + 1; t < DT_COUNT; t++)
        if ((int64_t)strlen(dtype_table[t].name) == len && !memcmp(dtype_table[t].name, name, (size_t)len))
            return (enum dtype)t;
    return DT_NONE;
}

enum dtype dtype_from_npy(const char *descr)
{
    for (int t = DT_NONE + 1; t < DT_COUNT; t++) {
        const char *have = dtype_table[t].npy;
        if (!have)
            continue;
        /* numpy writes one-byte types with any of the order marks */
        const bool any_order = dtype_table[t].bits == 8 && descr[0] && strchr("|<>=", descr[0]);
        if (!strcmp(have, descr) || (any_order && !strcmp(have + 1, descr + 1)))
            return (enum dtype)t;
    }
    return DT_NONE;
}

bool dtype_bytes(enum dtype t, int64_t n, int64_t *out)
{
    const int64_t bits = dtype_table[t].bits;
    int64_t whole, rest;
    /* n = 8*q + r keeps the product in range for every size that fits */
    if (n < 0 || !size_mul(n / 8, bits, &whole))
        return false;
    rest = ((n % 8) * bits + 7) / 8;
    return size_add(whole, rest, out);
}
