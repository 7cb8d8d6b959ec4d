/* The matrix path of machines whose unit takes rows: rows to L0B, windows gathered as rows, and the product. Operands
 * are rows of K on both sides, results rows of f32 or i32. */
#include "runtime/emu/emu_priv.h"

#include "kernels/mac.h"

#include <string.h>

enum { MOST = INT32_MAX };

bool emu_do_mac_rows(struct emu_data *d, struct emu_op *op)
{
    const struct emu_MAC_ROWS *a = EMU_ARGS(MAC_ROWS, op);
    const int32_t size = emu_esize(d, op, a->dtype);
    bool empty;
    if (!size || !emu_extents(d, op, 2, &a->m, &empty) || empty)
        return size && !d->error[0];
    if (!k_mac_supports((enum dtype)a->dtype) || size > 4)
        return emu_fault(d, op, "no multiply-accumulate of %s", dtype_table[a->dtype].name);
    if (a->k < 0 || a->m > MOST || a->n > MOST || a->k > MOST || a->init < 0 || a->init > 1)
        return emu_fault(d, op, "%lld x %lld x %lld, init %lld", (long long)a->m, (long long)a->n, (long long)a->k,
                         (long long)a->init);
    const struct emu_span sa = emu_rows(a->a_off, a->m, a->a_row, a->k, 1, size),
                          sb = emu_rows(a->b_off, a->n, a->b_row, a->k, 1, size),
                          sc = emu_rows(a->c_off, a->m, a->c_row, a->n, 1, 4);
    const void *pa = emu_buf(d, op, EMU_FIELD(MAC_ROWS, a), &sa, false);
    const void *pb = pa ? emu_buf(d, op, EMU_FIELD(MAC_ROWS, b), &sb, false) : NULL;
    if (!pb || (a->init == 0 && !emu_buf(d, op, EMU_FIELD(MAC_ROWS, c), &sc, false)))
        return false;
    void *pc = emu_buf(d, op, EMU_FIELD(MAC_ROWS, c), &sc, true);
    if (!pc)
        return false;
    const struct k_matmul_args g = {.dtype = (enum dtype)a->dtype,
                                    .m = a->m,
                                    .n = a->n,
                                    .k = a->k,
                                    .a = pa,
                                    .b = pb,
                                    .a_row = a->a_row,
                                    .a_col = 1,
                                    .b_row = 1,
                                    .b_col = a->b_row,
                                    .c = pc,
                                    .c_row = a->c_row,
                                    .adds = a->init == 0};
    k_matmul(&g, NULL);
    return true;
}

bool emu_do_copy_rows(struct emu_data *d, struct emu_op *op)
{
    const struct emu_COPY_ROWS *a = EMU_ARGS(COPY_ROWS, op);
    const int32_t size = emu_esize(d, op, a->dtype);
    bool empty;
    if (!size || !emu_extents(d, op, 2, &a->rows, &empty) || empty)
        return size && !d->error[0];
    const struct emu_span src = emu_rows(a->src_off, a->rows, a->src_row, a->cols, 1, size),
                          dst = emu_rows(a->dst_off, a->rows, a->dst_row, a->cols, 1, size);
    const uint8_t *x = emu_buf(d, op, EMU_FIELD(COPY_ROWS, src), &src, false);
    uint8_t *y = x ? emu_buf(d, op, EMU_FIELD(COPY_ROWS, dst), &dst, true) : NULL;
    for (int64_t r = 0; y && r < a->rows; r++)
        memcpy(y + r * a->dst_row * size, x + r * a->src_row * size, (size_t)(a->cols * size));
    return y != NULL;
}

/* The line of the map that window q begins with, or -1 in the padding. */
static int64_t line_of(const struct emu_WINDOWS *a, int64_t q)
{
    const int64_t y = a->top + q / a->cols * a->stride_h, x = a->left + q % a->cols * a->stride_w;
    if (y < 0 || x < 0 || y % a->step_h || x % a->step_w || y / a->step_h >= a->h || x / a->step_w >= a->w)
        return -1;
    return y / a->step_h * a->row_pitch + x / a->step_w;
}

static bool in_range(const struct emu_WINDOWS *a)
{
    const int64_t small[] = {a->n, a->k, a->h, a->w, a->row_pitch, a->first, a->src_row, a->dst_row};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(small); i++)
        if (small[i] < 0 || small[i] > MOST)
            return false;
    return a->top >= -(int64_t)MOST && a->top <= MOST && a->left >= -(int64_t)MOST && a->left <= MOST && a->cols >= 1 &&
           a->stride_h >= 1 && a->stride_w >= 1 && a->step_h >= 1 && a->step_w >= 1;
}

bool emu_do_windows(struct emu_data *d, struct emu_op *op)
{
    const struct emu_WINDOWS *a = EMU_ARGS(WINDOWS, op);
    const int32_t size = emu_esize(d, op, a->dtype);
    if (!size || !in_range(a))
        return emu_fault(d, op, "%lld windows of %lld channels over a map of %lld x %lld", (long long)a->n,
                         (long long)a->k, (long long)a->h, (long long)a->w);
    if (a->n == 0 || a->k == 0)
        return true;
    const struct emu_span src = {
        a->src_off, {1, a->h, a->w, a->k}, {0, a->row_pitch * a->src_row, a->src_row, 1}, size};
    const struct emu_span dst = emu_rows(a->dst_off, a->n, a->dst_row, a->k, 1, size);
    const uint8_t *x = emu_buf(d, op, EMU_FIELD(WINDOWS, src), &src, false);
    uint8_t *y = x ? emu_buf(d, op, EMU_FIELD(WINDOWS, dst), &dst, true) : NULL;
    for (int64_t p = 0; y && p < a->n; p++) {
        const int64_t at = line_of(a, a->first + p);
        uint8_t *row = y + p * a->dst_row * size;
        if (at < 0)
            memset(row, 0, (size_t)(a->k * size));
        else
            memcpy(row, x + at * a->src_row * size, (size_t)(a->k * size));
    }
    return y != NULL;
}
