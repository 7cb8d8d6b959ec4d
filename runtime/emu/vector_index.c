/* The vector unit, what is not arithmetic on rows: packed elements, order of a row, gathers within UB. */
#include "runtime/emu/emu_priv.h"

#include "base/size.h"
#include "kernels/sort.h"
#include "kernels/vec.h"

#include <string.h>

bool emu_do_castp(struct emu_data *d, struct emu_op *op)
{
    const struct emu_CASTP *a = EMU_ARGS(CASTP, op);
    int64_t to, from;
    if (a->n < 0 || !dtype_bytes((enum dtype)a->to, a->n, &to) || !dtype_bytes((enum dtype)a->from, a->n, &from))
        return emu_fault(d, op, "%lld elements", (long long)a->n);
    if (a->n == 0)
        return true;
    const struct emu_span src = emu_rows(a->src_off, 1, 0, from, 1, 1), dst = emu_rows(a->dst_off, 1, 0, to, 1, 1);
    const uint8_t *x = emu_buf(d, op, EMU_FIELD(CASTP, src), &src, false);
    uint8_t *y = x ? emu_buf(d, op, EMU_FIELD(CASTP, dst), &dst, true) : NULL;
    if (!y)
        return false;
    memset(y, 0, (size_t)to);
    k_cast((enum dtype)a->to, y, (enum dtype)a->from, x, a->n, a->saturate != 0);
    return true;
}

bool emu_do_order(struct emu_data *d, struct emu_op *op)
{
    const struct emu_ORDER *a = EMU_ARGS(ORDER, op);
    const int32_t size = emu_esize(d, op, a->dtype);
    bool empty;
    if (!size || !emu_extents(d, op, 2, &a->rows, &empty) || empty)
        return size && !d->error[0];
    if (a->cols > EMU_ROW_BYTES / 16)
        return emu_fault(d, op, "a row of %lld elements", (long long)a->cols);
    const struct emu_span src = emu_rows(a->src_off, a->rows, a->src_row, a->cols, 1, size);
    const struct emu_span dst = emu_rows(a->dst_off, a->rows, a->dst_row, a->cols, 1, 4);
    uint8_t *x = emu_buf(d, op, EMU_FIELD(ORDER, src), &src, false);
    uint8_t *y = x ? emu_buf(d, op, EMU_FIELD(ORDER, dst), &dst, true) : NULL;
    int64_t *v = (int64_t *)(void *)d->row;
    for (int64_t r = 0; y && r < a->rows; r++) {
        const struct k_tensor t = {.dtype = (enum dtype)a->dtype,
                                   .rank = 1,
                                   .dims = {a->cols},
                                   .data = x + r * a->src_row * size,
                                   .size = a->cols * size};
        for (int64_t i = 0; i < a->cols; i++)
            v[i] = i;
        k_sort_numbers(&t, v, v + a->cols, a->cols, a->largest != 0);
        k_cast(DT_I32, y + r * a->dst_row * 4, DT_I64, v, a->cols, true);
    }
    return y != NULL;
}

bool emu_do_pick(struct emu_data *d, struct emu_op *op)
{
    const struct emu_PICK *a = EMU_ARGS(PICK, op);
    const int32_t size = emu_esize(d, op, a->dtype);
    bool empty;
    if (!size || !emu_extents(d, op, 2, &a->rows, &empty) || empty)
        return size && !d->error[0];
    if (a->src_cols < 0)
        return emu_fault(d, op, "negative extent %lld", (long long)a->src_cols);
    const struct emu_span src = emu_rows(a->src_off, a->rows, a->src_row, a->src_cols, 1, size);
    const struct emu_span idx = emu_rows(a->idx_off, a->rows, a->idx_row, a->cols, 1, 4);
    const struct emu_span dst = emu_rows(a->dst_off, a->rows, a->dst_row, a->cols, 1, size);
    const uint8_t *x = emu_buf(d, op, EMU_FIELD(PICK, src), &src, false);
    const uint8_t *at = x ? emu_buf(d, op, EMU_FIELD(PICK, idx), &idx, false) : NULL;
    uint8_t *y = at ? emu_buf(d, op, EMU_FIELD(PICK, dst), &dst, true) : NULL;
    for (int64_t r = 0; y && r < a->rows; r++)
        for (int64_t c = 0; c < a->cols; c++) {
            int32_t from;
            memcpy(&from, at + (r * a->idx_row + c) * 4, sizeof from);
            if (from < 0 || from >= a->src_cols)
                return emu_fault(d, op, "index %d, the row has %lld elements", from, (long long)a->src_cols);
            memcpy(y + (r * a->dst_row + c) * size, x + (r * a->src_row + from) * size, (size_t)size);
        }
    return y != NULL;
}
