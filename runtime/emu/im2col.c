/* Elements of sliding windows on their way from a feature map in L1 to L0: an operand of a convolution's product. */
#include "runtime/emu/emu_priv.h"

#include "base/size.h"

#include <string.h>

enum { LINE = 32, MOST = INT32_MAX };

/* The line of the map that window q begins with, or -1 in the padding. */
static int64_t line_of(const struct emu_IM2COL *a, int64_t q)
{
    const int64_t y = a->top + q / a->cols * a->stride_h, x = a->left + q % a->cols * a->stride_w;
    if (y < 0 || x < 0 || y % a->step_h || x % a->step_w || y / a->step_h >= a->h || x / a->step_w >= a->w)
        return -1;
    return y / a->step_h * a->row_pitch + x / a->step_w;
}

static void fill_line(uint8_t line[LINE], uint64_t bits, int32_t size)
{
    for (int32_t i = 0; i < LINE; i += size)
        memcpy(line + i, &bits, (size_t)size); /* the low bytes */
}

/* Line c of window p lies at line c*n16 + p of L0B; in L0A the lines of 16 windows are together. */
static void gather(uint8_t *dst, const uint8_t *map, const struct emu_IM2COL *a, int32_t size, bool rows)
{
    const int64_t c0 = LINE / size, k1 = size_ceil_div(a->k, c0), n16 = rows ? 16 : size_align(a->n, 16);
    uint8_t pad[LINE];
    fill_line(pad, (uint64_t)a->pad, size);
    for (int64_t p = 0; p < a->n; p++) {
        const int64_t at = line_of(a, a->first + p);
        for (int64_t c = 0; c < k1; c++)
            memcpy(dst + (rows ? (p / 16 * k1 + c) * 16 + p % 16 : c * n16 + p) * LINE,
                   at < 0 ? pad : map + (c * a->pitch + at) * LINE, LINE);
    }
}

static bool in_range(const struct emu_IM2COL *a)
{
    const int64_t small[] = {a->n, a->k, a->h, a->w, a->pitch, a->row_pitch, a->first};
    const int64_t large[] = {a->top, a->left};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(small); i++)
        if (small[i] < 0 || small[i] > MOST)
            return false;
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(large); i++)
        if (large[i] < -(int64_t)MOST || large[i] > MOST)
            return false;
    return a->cols >= 1 && a->stride_h >= 1 && a->stride_w >= 1 && a->step_h >= 1 && a->step_w >= 1;
}

bool emu_do_im2col(struct emu_data *d, struct emu_op *op)
{
    const struct emu_IM2COL *a = EMU_ARGS(IM2COL, op);
    const int32_t size = emu_esize(d, op, a->dtype);
    if (!size || size > 4 || !in_range(a))
        return emu_fault(d, op, "%lld windows of %lld channels over a map of %lld x %lld", (long long)a->n,
                         (long long)a->k, (long long)a->h, (long long)a->w);
    if (a->n == 0 || a->k == 0)
        return true;
    const int64_t c0 = LINE / size, k1 = size_ceil_div(a->k, c0);
    const struct emu_span src = {a->src_off, {k1, a->h, a->w, c0}, {a->pitch * c0, a->row_pitch * c0, c0, 1}, size};
    const bool rows = d->section->bufs.data[a->dst].space == TS_L0A;
    const int64_t n16 = size_align(a->n, 16);
    const struct emu_span dst =
        rows ? emu_rows(0, 1, 0, n16 * k1 * c0, 1, size) : emu_rows(0, k1, n16 * c0, a->n * c0, 1, size);
    const uint8_t *x = emu_buf(d, op, EMU_FIELD(IM2COL, src), &src, false);
    uint8_t *y = x ? emu_buf(d, op, EMU_FIELD(IM2COL, dst), &dst, true) : NULL;
    if (y)
        gather(y, x, a, size, rows);
    return y != NULL;
}
