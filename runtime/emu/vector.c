/* The vector unit: formulas, casts, reductions on UB. The arithmetic is kernels/'s; here are operands
 * and bounds. */
#include "runtime/emu/emu_priv.h"

#include "base/size.h"
#include "kernels/mac.h"
#include "kernels/vec.h"

#include <string.h>

/* An operand of VEC as rows in memory. */
struct operand {
    int field; /* of its buffer; offset, row and column strides follow */
    enum dtype dtype;
    union {
        uint8_t bytes[16];
        double aligned;
    } immediate;
};

static bool operand_rows(struct emu_data *d, const struct emu_op *op, struct operand *o, struct k_rows *out)
{
    const struct emu_VEC *a = EMU_ARGS(VEC, op);
    const int64_t *arg = op->arg + o->field;
    const int64_t off = arg[1], row = arg[2], col = arg[3];
    const int32_t size = dtype_size(o->dtype);
    if (arg[0] < 0) {
        const int32_t bits = (int32_t)off;
        float f;
        memcpy(&f, &bits, sizeof f);
        k_cast(o->dtype, o->immediate.bytes, DT_F32, &f, 1, true);
        *out = (struct k_rows){o->immediate.bytes, 0, 0};
        return true;
    }
    if (col != 0 && col != 1)
        return emu_fault(d, op, "column stride %lld", (long long)col);
    const struct emu_span s = emu_rows(off, a->rows, row, col ? a->cols : 1, 1, size);
    *out = (struct k_rows){emu_buf(d, op, o->field, &s, false), row, col};
    return out->p != NULL;
}

bool emu_do_vec(struct emu_data *d, struct emu_op *op)
{
    const struct emu_VEC *a = EMU_ARGS(VEC, op);
    const struct k_fn_info *info = k_fn_info((enum k_fn)a->fn);
    bool empty;
    if (!info || !k_fn_supports((enum k_fn)a->fn, (enum dtype)a->dtype) || dtype_size((enum dtype)a->dtype) == 0)
        return emu_fault(d, op, "no formula %lld for %s", (long long)a->fn, dtype_table[a->dtype].name);
    if (!emu_extents(d, op, 2, &a->rows, &empty) || empty)
        return !d->error[0];
    const enum dtype t = (enum dtype)a->dtype, result = info->result == K_RESULT_BOOL ? DT_BOOL : t;
    struct operand o[3] = {{EMU_FIELD(VEC, a), a->fn == K_FN_Where ? DT_BOOL : t, {{0}}},
                           {EMU_FIELD(VEC, b), t, {{0}}},
                           {EMU_FIELD(VEC, c), t, {{0}}}};
    struct k_rows rows[3] = {{0}};
    for (int i = 0; i < info->arity; i++)
        if (!operand_rows(d, op, &o[i], &rows[i]))
            return false;
    const struct emu_span s = emu_rows(a->dst_off, a->rows, a->dst_row, a->cols, 1, dtype_size(result));
    void *dst = emu_buf(d, op, EMU_FIELD(VEC, dst), &s, true);
    if (!dst)
        return false;
    const int32_t bits[3] = {(int32_t)a->p0, (int32_t)a->p1, (int32_t)a->p2};
    float params[3];
    memcpy(params, bits, sizeof params);
    k_vec((enum k_fn)a->fn, t, a->rows, a->cols, dst, a->dst_row, rows, params);
    return true;
}

bool emu_do_cast(struct emu_data *d, struct emu_op *op)
{
    const struct emu_CAST *a = EMU_ARGS(CAST, op);
    const int32_t to = emu_esize(d, op, a->to), from = to ? emu_esize(d, op, a->from) : 0;
    bool empty;
    if (!from || !emu_extents(d, op, 2, &a->rows, &empty) || empty)
        return from && !d->error[0];
    if (to > 8 || from > 8 || a->src_col < 0 || a->src_col > 1)
        return emu_fault(d, op, "cast of %s to %s, column stride %lld", dtype_table[a->from].name,
                         dtype_table[a->to].name, (long long)a->src_col);
    const struct emu_span src = emu_rows(a->src_off, a->rows, a->src_row, a->src_col ? a->cols : 1, 1, from);
    const struct emu_span dst = emu_rows(a->dst_off, a->rows, a->dst_row, a->cols, 1, to);
    const uint8_t *x = emu_buf(d, op, EMU_FIELD(CAST, src), &src, false);
    uint8_t *y = x ? emu_buf(d, op, EMU_FIELD(CAST, dst), &dst, true) : NULL;
    if (!y)
        return false;
    for (int64_t r = 0; r < a->rows; r++) {
        uint8_t *row = y + r * a->dst_row * to;
        const uint8_t *given = x + r * a->src_row * from;
        if (a->saturate == TILE_NEAREST)
            k_cast_nearest((enum dtype)a->to, row, (enum dtype)a->from, given, a->src_col ? a->cols : 1);
        else
            k_cast((enum dtype)a->to, row, (enum dtype)a->from, given, a->src_col ? a->cols : 1, a->saturate != 0);
        for (int64_t c = 1; !a->src_col && c < a->cols; c++)
            memcpy(row + c * to, row, (size_t)to);
    }
    return true;
}

static bool can_reduce(struct emu_data *d, const struct emu_op *op, int64_t red, int64_t dtype)
{
    const enum dtype_class c = dtype_table[dtype].cls;
    if (red >= K_RED_SUM && red <= K_RED_ABSSUM && dtype_size((enum dtype)dtype) > 0 && c != DTC_COMPLEX &&
        c != DTC_TEXT)
        return true;
    return emu_fault(d, op, "no reduction %lld of %s", (long long)red, dtype_table[dtype].name);
}

/* The accumulators of `rows` rows, 512 bytes each; acc_off counts elements like every other offset. */
static union k_lanes *accumulators(struct emu_data *d, const struct emu_op *op, int field, struct emu_span *s,
                                   bool write)
{
    if (s->off * s->size % 8 != 0) {
        emu_fault(d, op, "accumulators at the odd byte offset %lld", (long long)(s->off * s->size));
        return NULL;
    }
    s->stride[2] = (int64_t)sizeof(union k_lanes) / s->size;
    s->n[3] = s->stride[2];
    return emu_buf(d, op, field, s, write);
}

bool emu_do_red_add(struct emu_data *d, struct emu_op *op)
{
    const struct emu_RED_ADD *a = EMU_ARGS(RED_ADD, op);
    bool empty;
    if (!can_reduce(d, op, a->op, a->dtype) || !emu_extents(d, op, 1, &a->rows, &empty) || empty)
        return !d->error[0];
    if (a->cols < 0 || a->first < 0)
        return emu_fault(d, op, "columns %lld from %lld", (long long)a->cols, (long long)a->first);
    const int32_t size = dtype_size((enum dtype)a->dtype);
    const struct emu_span src = emu_rows(a->src_off, a->rows, a->src_row, a->cols, 1, size);
    struct emu_span acc = emu_rows(a->acc_off, a->rows, 0, 0, 1, size);
    const uint8_t *x = emu_buf(d, op, EMU_FIELD(RED_ADD, src), &src, false);
    if (!x || (!a->init && !accumulators(d, op, EMU_FIELD(RED_ADD, acc), &acc, false)))
        return false;
    union k_lanes *lanes = accumulators(d, op, EMU_FIELD(RED_ADD, acc), &acc, true);
    for (int64_t r = 0; lanes && r < a->rows; r++) {
        if (a->init)
            k_red_init((enum k_red)a->op, (enum dtype)a->dtype, &lanes[r]);
        k_red_add((enum k_red)a->op, (enum dtype)a->dtype, &lanes[r], x + r * a->src_row * size, a->cols, a->first);
    }
    return lanes != NULL;
}

bool emu_do_red_end(struct emu_data *d, struct emu_op *op)
{
    const struct emu_RED_END *a = EMU_ARGS(RED_END, op);
    bool empty;
    if (!can_reduce(d, op, a->op, a->dtype) || !emu_extents(d, op, 1, &a->rows, &empty) || empty)
        return !d->error[0];
    const int32_t size = dtype_size((enum dtype)a->dtype);
    struct emu_span acc = emu_rows(a->acc_off, a->rows, 0, 0, 1, size);
    const struct emu_span dst = emu_rows(a->dst_off, a->rows, a->dst_row, 1, 1, size);
    const union k_lanes *lanes = accumulators(d, op, EMU_FIELD(RED_END, acc), &acc, false);
    uint8_t *y = lanes ? emu_buf(d, op, EMU_FIELD(RED_END, dst), &dst, true) : NULL;
    for (int64_t r = 0; y && r < a->rows; r++)
        k_red_finish((enum k_red)a->op, (enum dtype)a->dtype, &lanes[r], y + r * a->dst_row * size);
    return y != NULL;
}

bool emu_do_fill(struct emu_data *d, struct emu_op *op)
{
    const struct emu_FILL *a = EMU_ARGS(FILL, op);
    const int32_t size = emu_esize(d, op, a->dtype);
    bool empty;
    if (!size || !emu_extents(d, op, 2, &a->rows, &empty) || empty)
        return size && !d->error[0];
    const struct emu_span s = emu_rows(a->dst_off, a->rows, a->dst_row, a->cols, 1, size);
    uint8_t *y = size <= 8 ? emu_buf(d, op, EMU_FIELD(FILL, dst), &s, true) : NULL;
    if (!y)
        return d->error[0] ? false : emu_fault(d, op, "fill of %s", dtype_table[a->dtype].name);
    const int32_t bits = (int32_t)a->value;
    uint64_t element = 0;
    float f;
    memcpy(&f, &bits, sizeof f);
    k_cast((enum dtype)a->dtype, &element, DT_F32, &f, 1, true);
    const int64_t n[4] = {1, 1, a->rows, a->cols}, to[4] = {0, 0, a->dst_row, 1}, from[4] = {0, 0, 0, 0};
    emu_copy(y, to, (const uint8_t *)&element, from, n, size);
    return true;
}

bool emu_do_iota(struct emu_data *d, struct emu_op *op)
{
    const struct emu_IOTA *a = EMU_ARGS(IOTA, op);
    const int32_t size = emu_esize(d, op, a->dtype);
    bool empty;
    if (!size || !emu_extents(d, op, 2, &a->rows, &empty) || empty)
        return size && !d->error[0];
    const struct emu_span s = emu_rows(a->dst_off, a->rows, a->dst_row, a->cols, 1, size);
    uint8_t *y = size <= 8 ? emu_buf(d, op, EMU_FIELD(IOTA, dst), &s, true) : NULL;
    if (!y)
        return d->error[0] ? false : emu_fault(d, op, "counting in %s", dtype_table[a->dtype].name);
    int64_t *row = (int64_t *)(void *)d->row;
    const int64_t most = EMU_ROW_BYTES / 8;
    for (int64_t r = 0; r < a->rows; r++)
        for (int64_t at = 0; at < a->cols; at += most) {
            const int64_t n = a->cols - at < most ? a->cols - at : most;
            for (int64_t c = 0; c < n; c++)
                row[c] = (int64_t)((uint64_t)a->start + (uint64_t)r * (uint64_t)a->row_step +
                                   (uint64_t)(at + c) * (uint64_t)a->step);
            k_cast((enum dtype)a->dtype, y + (r * a->dst_row + at) * size, DT_I64, row, n, true);
        }
    return true;
}

bool emu_do_transp(struct emu_data *d, struct emu_op *op)
{
    const struct emu_TRANSP *a = EMU_ARGS(TRANSP, op);
    const int32_t size = emu_esize(d, op, a->dtype);
    bool empty;
    if (!size || !emu_extents(d, op, 2, &a->rows, &empty) || empty)
        return size && !d->error[0];
    const struct emu_span src = emu_rows(a->src_off, a->rows, a->src_row, a->cols, 1, size);
    const struct emu_span dst = emu_rows(a->dst_off, a->cols, a->dst_row, a->rows, 1, size);
    const uint8_t *x = emu_buf(d, op, EMU_FIELD(TRANSP, src), &src, false);
    uint8_t *y = x ? emu_buf(d, op, EMU_FIELD(TRANSP, dst), &dst, true) : NULL;
    if (!y)
        return false;
    emu_transpose(y, a->dst_row, x, a->src_row, a->rows, a->cols, size);
    return true;
}

bool emu_do_copy_ub(struct emu_data *d, struct emu_op *op)
{
    const struct emu_COPY_UB *a = EMU_ARGS(COPY_UB, op);
    const int32_t size = emu_esize(d, op, a->dtype);
    bool empty;
    if (!size || !emu_extents(d, op, 2, &a->rows, &empty) || empty)
        return size && !d->error[0];
    if (a->src_col < 0 || a->src_col > 1)
        return emu_fault(d, op, "column stride %lld", (long long)a->src_col);
    const struct emu_span src = emu_rows(a->src_off, a->rows, a->src_row, a->cols, a->src_col, size);
    const struct emu_span dst = emu_rows(a->dst_off, a->rows, a->dst_row, a->cols, 1, size);
    const uint8_t *x = emu_buf(d, op, EMU_FIELD(COPY_UB, src), &src, false);
    uint8_t *y = x ? emu_buf(d, op, EMU_FIELD(COPY_UB, dst), &dst, true) : NULL;
    if (!y)
        return false;
    emu_copy(y, dst.stride, x, src.stride, src.n, size);
    return true;
}
