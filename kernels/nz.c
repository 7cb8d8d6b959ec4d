/* Between dense matrices and the C1-R-C0 form. A strip of c0 columns is contiguous in both forms when src_col is 1; a
 * transposed source (src_row 1, weights stored [n][k]) goes through 8x8 blocks so that both sides are touched a cache
 * line at a time. */
#include <string.h>

#include "kernels/mac_priv.h"

#define COPY_STRIDED(T)                                                                                                \
    for (int64_t r = 0; r < rows; r++)                                                                                 \
        for (int64_t c = 0; c < cols; c++)                                                                             \
            ((T *)dst)[r * c0 + c] = ((const T *)src)[r * src_row + c * src_col];

/* A strip of up to c0 columns. */
struct strip {
    void *dst;
    const void *src;
    int64_t src_row, src_col, rows, cols, c0;
    int size;
};
static void strip_strided(const struct strip *s)
{
    void *dst = s->dst;
    const void *src = s->src;
    const int64_t rows = s->rows, cols = s->cols, c0 = s->c0, src_row = s->src_row, src_col = s->src_col;
    if (s->size == 4) {
        COPY_STRIDED(uint32_t)
    } else if (s->size == 2) {
        COPY_STRIDED(uint16_t)
    } else {
        COPY_STRIDED(uint8_t)
    }
}

/* src_row = 1: columns of the source are contiguous along r. */
static void strip_transposed(const struct strip *s)
{
    const struct k_mac_impl *impl = k_mac_impl();
    const uint32_t *x = s->src;
    uint32_t *y = s->dst;
    const int64_t rows = s->rows - s->rows % 8, cols = s->cols - s->cols % 8;
    for (int64_t r = 0; r < rows; r += 8)
        for (int64_t c = 0; c < cols; c += 8)
            impl->transpose8(y + r * s->c0 + c, s->c0, x + c * s->src_col + r, s->src_col);
    struct strip rest = *s;
    rest.rows = rows;
    rest.cols = s->cols - cols;
    rest.src = x + cols * s->src_col;
    rest.dst = y + cols;
    strip_strided(&rest);
    rest = *s;
    rest.rows = s->rows - rows;
    rest.src = x + rows;
    rest.dst = y + rows * s->c0;
    strip_strided(&rest);
}

static void strip_rows(const struct strip *s)
{
    const size_t len = (size_t)(s->cols * s->size);
    const int64_t dst_step = s->c0 * s->size, src_step = s->src_row * s->size;
    char *y = s->dst;
    const char *x = s->src;
    if (len == 32)
        for (int64_t r = 0; r < s->rows; r++)
            memcpy(y + r * dst_step, x + r * src_step, 32);
    else
        for (int64_t r = 0; r < s->rows; r++)
            memcpy(y + r * dst_step, x + r * src_step, len);
}

/* One row of whole lines of 32 bytes, each at the head of 16 that are zeros otherwise. */
static void one_row(char *dst, const char *src, int64_t lines)
{
    enum { LINE = 32, FRACTAL = 16 * LINE };
    memset(dst, 0, (size_t)(lines * FRACTAL)); /* at once: calls for each would cost more than what they do */
    for (int64_t i = 0; i < lines; i++)
        memcpy(dst + i * FRACTAL, src + i * LINE, LINE);
}

void k_nd_to_nz(void *dst, int64_t rows_pad, const void *src, int64_t src_row, int64_t src_col, int64_t rows,
                int64_t cols, int64_t c0, int size)
{
    if (rows == 1 && rows_pad == 16 && src_col == 1 && c0 * size == 32 && cols % c0 == 0) {
        one_row(dst, src, cols / c0);
        return;
    }
    for (int64_t c = 0; c < cols; c += c0) {
        const int64_t width = cols - c < c0 ? cols - c : c0;
        struct strip s = {.dst = (char *)dst + c * rows_pad * size,
                          .src = (const char *)src + c * src_col * size,
                          .src_row = src_row,
                          .src_col = src_col,
                          .rows = rows,
                          .cols = width,
                          .c0 = c0,
                          .size = size};
        if (width < c0)
            memset(s.dst, 0, (size_t)(rows * c0 * size));
        memset((char *)s.dst + rows * c0 * size, 0, (size_t)((rows_pad - rows) * c0 * size));
        if (src_col == 1)
            strip_rows(&s);
        else if (src_row == 1 && size == 4)
            strip_transposed(&s);
        else
            strip_strided(&s);
    }
}

void k_nz_to_nd(void *dst, int64_t dst_row, const void *src, int64_t rows_pad, int64_t rows, int64_t cols, int64_t c0,
                int size)
{
    for (int64_t c = 0; c < cols; c += c0) {
        const size_t len = (size_t)((cols - c < c0 ? cols - c : c0) * size);
        const char *x = (const char *)src + c * rows_pad * size;
        char *y = (char *)dst + c * size;
        for (int64_t r = 0; r < rows; r++)
            memcpy(y + r * dst_row * size, x + r * c0 * size, len);
    }
}
