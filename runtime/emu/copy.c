/* Strided copies. Extents of 1 are dropped and neighbouring dimensions that are contiguous on both sides are merged, so
 * most moves end up as a few runs; what remains strided has loops per element size. */
#include "runtime/emu/emu_priv.h"

#include <string.h>

struct emu_shape emu_simplify(const int64_t d[4], const int64_t s[4], const int64_t n[4])
{
    struct emu_shape out = {.n = {1, 1, 1, 1}};
    int at = 4;
    for (int i = 3; i >= 0; i--) {
        if (n[i] == 1)
            continue;
        if (at < 4 && d[i] == out.d[at] * out.n[at] && s[i] == out.s[at] * out.n[at]) {
            out.n[at] *= n[i];
            continue;
        }
        at--;
        out.n[at] = n[i];
        out.d[at] = d[i];
        out.s[at] = s[i];
    }
    if (at == 4)
        out.d[3] = out.s[3] = 1; /* one element */
    return out;
}

#define STRIDED(T)                                                                                                     \
    {                                                                                                                  \
        T *y = (T *)(void *)dst;                                                                                       \
        const T *x = (const T *)(const void *)src;                                                                     \
        for (int64_t i = 0; i < n; i++)                                                                                \
            y[i * d] = x[i * s];                                                                                       \
    }

static void copy_run(uint8_t *dst, int64_t d, const uint8_t *src, int64_t s, int64_t n, int32_t size)
{
    if (d == 1 && s == 1)
        memmove(dst, src, (size_t)(n * size));
    else if (size == 4)
        STRIDED(uint32_t)
    else if (size == 2)
        STRIDED(uint16_t)
    else if (size == 1)
        STRIDED(uint8_t)
    else if (size == 8)
        STRIDED(uint64_t)
    else
        for (int64_t i = 0; i < n; i++)
            memmove(dst + i * d * size, src + i * s * size, (size_t)size);
}

/* Tiles of 16 x 16 keep both sides within the cache lines they have touched. */
#define TRANSPOSE(T)                                                                                                   \
    {                                                                                                                  \
        T *y = (T *)(void *)dst;                                                                                       \
        const T *x = (const T *)(const void *)src;                                                                     \
        for (int64_t r0 = 0; r0 < rows; r0 += 16)                                                                      \
            for (int64_t c0 = 0; c0 < cols; c0 += 16) {                                                                \
                const int64_t r1 = r0 + 16 < rows ? r0 + 16 : rows;                                                    \
                const int64_t c1 = c0 + 16 < cols ? c0 + 16 : cols;                                                    \
                for (int64_t c = c0; c < c1; c++)                                                                      \
                    for (int64_t r = r0; r < r1; r++)                                                                  \
                        y[c * dst_row + r] = x[r * src_row + c];                                                       \
            }                                                                                                          \
    }

void emu_transpose(uint8_t *dst, int64_t dst_row, const uint8_t *src, int64_t src_row, int64_t rows, int64_t cols,
                   int32_t size)
{
    if (size == 4)
        TRANSPOSE(uint32_t)
    else if (size == 2)
        TRANSPOSE(uint16_t)
    else if (size == 1)
        TRANSPOSE(uint8_t)
    else if (size == 8)
        TRANSPOSE(uint64_t)
    else
        for (int64_t c = 0; c < cols; c++)
            copy_run(dst + c * dst_row * size, 1, src + c * size, src_row, rows, size);
}

void emu_copy(uint8_t *dst, const int64_t d[4], const uint8_t *src, const int64_t s[4], const int64_t n[4],
              int32_t size)
{
    const struct emu_shape m = emu_simplify(d, s, n);
    const bool transposed = m.d[3] == 1 && m.s[3] != 1 && m.s[2] == 1 && m.n[2] > 1;
    for (int64_t i = 0; i < m.n[0]; i++)
        for (int64_t j = 0; j < m.n[1]; j++) {
            uint8_t *y = dst + (i * m.d[0] + j * m.d[1]) * size;
            const uint8_t *x = src + (i * m.s[0] + j * m.s[1]) * size;
            if (transposed) {
                emu_transpose(y, m.d[2], x, m.s[3], m.n[3], m.n[2], size);
                continue;
            }
            for (int64_t k = 0; k < m.n[2]; k++)
                copy_run(y + k * m.d[2] * size, m.d[3], x + k * m.s[2] * size, m.s[3], m.n[3], size);
        }
}
