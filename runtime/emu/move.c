/* Moves between GM and the scratchpads. */
#include "runtime/emu/emu_priv.h"

#include "base/size.h"
#include "kernels/mac.h"

#include <string.h>

/* LOADC as well, whose operands are those of LOAD and one more: every core has an image of its cluster's memory, the
 * same in all of them because all load the same. */
_Static_assert(offsetof(struct emu_LOADC, d3) == offsetof(struct emu_LOAD, d3), "LOADC begins as LOAD does");

bool emu_do_load(struct emu_data *d, struct emu_op *op)
{
    const struct emu_LOAD *a = EMU_ARGS(LOAD, op);
    const int32_t size = emu_esize(d, op, a->dtype);
    bool empty;
    if (!size || !emu_extents(d, op, 4, &a->n0, &empty) || empty)
        return size && !d->error[0]; /* an empty move is a move */
    const struct emu_span src = {a->src_off, {a->n0, a->n1, a->n2, a->n3}, {a->s0, a->s1, a->s2, a->s3}, size};
    const struct emu_span dst = {a->dst_off, {a->n0, a->n1, a->n2, a->n3}, {a->d0, a->d1, a->d2, a->d3}, size};
    const uint8_t *x = emu_gm_unmade(d, op, EMU_FIELD(LOAD, src), &src, false);
    uint8_t *y = x ? emu_buf_unsettled(d, op, EMU_FIELD(LOAD, dst), &dst, true) : NULL;
    if (!y)
        return false;
    if (emu_view_load(d, op, &dst, x, &src))
        return true;
    if (d->block->made_from && !emu_gm(d, op, EMU_FIELD(LOAD, src), &src, false))
        return false;
    emu_view_settle(d, op, EMU_FIELD(LOAD, dst));
    emu_copy(y, dst.stride, x, src.stride, src.n, size);
    return true;
}

bool emu_do_store(struct emu_data *d, struct emu_op *op)
{
    const struct emu_STORE *a = EMU_ARGS(STORE, op);
    const int32_t size = emu_esize(d, op, a->dtype);
    bool empty;
    if (!size || !emu_extents(d, op, 4, &a->n0, &empty) || empty)
        return size && !d->error[0];
    const struct emu_span src = {a->src_off, {a->n0, a->n1, a->n2, a->n3}, {a->s0, a->s1, a->s2, a->s3}, size};
    const struct emu_span dst = {a->dst_off, {a->n0, a->n1, a->n2, a->n3}, {a->d0, a->d1, a->d2, a->d3}, size};
    const uint8_t *x = emu_buf(d, op, EMU_FIELD(STORE, src), &src, false);
    uint8_t *y = x ? emu_gm(d, op, EMU_FIELD(STORE, dst), &dst, true) : NULL;
    if (!y)
        return false;
    emu_copy(y, dst.stride, x, src.stride, src.n, size);
    return true;
}

/* One group of c0 columns at a time when the block is part of a taller one. */
static void to_nz(uint8_t *dst, int64_t pitch, const uint8_t *src, const struct emu_LOAD_NZ *a, int32_t size)
{
    const int64_t c0 = 32 / size, padded = size_align(a->rows, 16);
    const int64_t rows = padded < pitch ? padded : pitch;
    if (rows == pitch) {
        k_nd_to_nz(dst, pitch, src, a->src_row, a->src_col, a->rows, a->cols, c0, size);
        return;
    }
    for (int64_t c = 0; c < a->cols; c += c0)
        k_nd_to_nz(dst + c * pitch * size, rows, src + c * a->src_col * size, a->src_row, a->src_col, a->rows,
                   a->cols - c < c0 ? a->cols - c : c0, c0, size);
}

bool emu_do_load_nz(struct emu_data *d, struct emu_op *op)
{
    const struct emu_LOAD_NZ *a = EMU_ARGS(LOAD_NZ, op);
    const int32_t size = emu_esize(d, op, a->dtype);
    bool empty;
    if (!size || !emu_extents(d, op, 2, &a->rows, &empty) || empty)
        return size && !d->error[0];
    if (size > 4)
        return emu_fault(d, op, "elements of %d bytes have no fractal form", size);
    if (a->pitch < a->rows || a->rows > INT32_MAX || a->cols > INT32_MAX)
        return emu_fault(d, op, "%lld rows at a pitch of %lld", (long long)a->rows, (long long)a->pitch);
    const int64_t c0 = 32 / size, padded = size_align(a->rows, 16);
    const struct emu_span src = emu_rows(a->src_off, a->rows, a->src_row, a->cols, a->src_col, size);
    const struct emu_span dst = {a->dst_off,
                                 {1, 1, size_ceil_div(a->cols, c0), c0 * (padded < a->pitch ? padded : a->pitch)},
                                 {0, 0, a->pitch > INT32_MAX ? INT64_MAX : a->pitch * c0, 1},
                                 size};
    const uint8_t *x = emu_gm(d, op, EMU_FIELD(LOAD_NZ, src), &src, false);
    uint8_t *y = x ? emu_buf(d, op, EMU_FIELD(LOAD_NZ, dst), &dst, true) : NULL;
    if (!y)
        return false;
    to_nz(y, a->pitch, x, a, size);
    return true;
}

/* An index as it stands in memory, counted from the end when negative; -1 after a fault. */
static int64_t row_index(struct emu_data *d, const struct emu_op *op, const uint8_t *idx, int64_t i, int64_t dtype,
                         int64_t n_rows)
{
    int64_t v;
    if (dtype == DT_I64) {
        memcpy(&v, idx + i * 8, sizeof v);
    } else {
        int32_t narrow;
        memcpy(&narrow, idx + i * 4, sizeof narrow);
        v = narrow;
    }
    const int64_t at = v < 0 ? v + n_rows : v;
    if (at >= 0 && at < n_rows)
        return at;
    emu_fault(d, op, "index %lld (number %lld) is outside of [-%lld, %lld)", (long long)v, (long long)i,
              (long long)n_rows, (long long)n_rows);
    return -1;
}

static const uint8_t *index_rows(struct emu_data *d, const struct emu_op *op, int field, int64_t off, int64_t rows,
                                 int64_t dtype)
{
    if (dtype != DT_I64 && dtype != DT_I32) {
        emu_fault(d, op, "indices of type %s", dtype_table[dtype].name);
        return NULL;
    }
    const struct emu_span s = emu_rows(off, 1, 0, rows, 1, dtype_size((enum dtype)dtype));
    return emu_buf(d, op, field, &s, false);
}

/* Row `number` of a matrix in GM. */
struct row {
    int64_t off, number, stride, cols;
    int32_t size;
};
static void *gm_row(struct emu_data *d, const struct emu_op *op, int field, const struct row *r, bool write)
{
    const double at = (double)r->number * (double)r->stride;
    if (at < -0x1p56 || at > 0x1p56) {
        emu_fault(d, op, "row %lld at a stride of %lld is out of range", (long long)r->number, (long long)r->stride);
        return NULL;
    }
    const int64_t first = r->number * r->stride; /* |off| is checked with the span */
    const struct emu_span s = emu_rows(r->off > INT64_MAX / 2 ? r->off : r->off + first, 1, 0, r->cols, 1, r->size);
    return emu_gm(d, op, field, &s, write);
}

bool emu_do_loadx(struct emu_data *d, struct emu_op *op)
{
    const struct emu_LOADX *a = EMU_ARGS(LOADX, op);
    const int32_t size = emu_esize(d, op, a->dtype);
    bool empty;
    if (!size || !emu_extents(d, op, 2, &a->rows, &empty) || empty)
        return size && !d->error[0];
    const uint8_t *idx = index_rows(d, op, EMU_FIELD(LOADX, idx), a->idx_off, a->rows, a->idx_dtype);
    const struct emu_span dst = emu_rows(a->dst_off, a->rows, a->dst_row, a->cols, 1, size);
    uint8_t *y = idx ? emu_buf(d, op, EMU_FIELD(LOADX, dst), &dst, true) : NULL;
    for (int64_t r = 0; y && r < a->rows; r++) {
        const int64_t at = row_index(d, op, idx, r, a->idx_dtype, a->n_rows);
        if (at < 0)
            return false;
        const uint8_t *x =
            gm_row(d, op, EMU_FIELD(LOADX, src), &(struct row){a->src_off, at, a->src_row, a->cols, size}, false);
        if (!x)
            return false;
        memcpy(y + r * a->dst_row * size, x, (size_t)(a->cols * size));
    }
    return y != NULL;
}

bool emu_do_storex(struct emu_data *d, struct emu_op *op)
{
    const struct emu_STOREX *a = EMU_ARGS(STOREX, op);
    const int32_t size = emu_esize(d, op, a->dtype);
    bool empty;
    if (!size || !emu_extents(d, op, 2, &a->rows, &empty) || empty)
        return size && !d->error[0];
    const uint8_t *idx = index_rows(d, op, EMU_FIELD(STOREX, idx), a->idx_off, a->rows, a->idx_dtype);
    const struct emu_span src = emu_rows(a->src_off, a->rows, a->src_row, a->cols, 1, size);
    const uint8_t *x = idx ? emu_buf(d, op, EMU_FIELD(STOREX, src), &src, false) : NULL;
    for (int64_t r = 0; x && r < a->rows; r++) {
        const int64_t at = row_index(d, op, idx, r, a->idx_dtype, a->n_rows);
        if (at < 0)
            return false;
        uint8_t *y =
            gm_row(d, op, EMU_FIELD(STOREX, dst), &(struct row){a->dst_off, at, a->dst_row, a->cols, size}, true);
        if (!y)
            return false;
        memcpy(y, x + r * a->src_row * size, (size_t)(a->cols * size));
    }
    return x != NULL;
}

bool emu_do_sload(struct emu_data *d, struct emu_op *op)
{
    const struct emu_SLOAD *a = EMU_ARGS(SLOAD, op);
    if (a->dtype != DT_I64 && a->dtype != DT_I32)
        return emu_fault(d, op, "a scalar of type %s", dtype_table[a->dtype].name);
    const struct emu_span s = emu_rows(a->off, 1, 0, 1, 1, dtype_size((enum dtype)a->dtype));
    const void *p = emu_gm(d, op, EMU_FIELD(SLOAD, tensor), &s, false);
    if (!p)
        return false;
    int32_t narrow;
    if (a->dtype == DT_I64) {
        memcpy(&op->value, p, sizeof op->value);
    } else {
        memcpy(&narrow, p, sizeof narrow);
        op->value = narrow;
    }
    return true;
}
