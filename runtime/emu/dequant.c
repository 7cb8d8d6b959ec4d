/* Dequantisation on UB. Loops over stripes of columns have one short instruction each, so that checking operands costs
 * more than the work: instructions that only go on in the columns and in the destination are joined into a series,
 * whose operands are checked once. It is carried out before the core does anything else, stripe by stripe in program
 * order. With hazard checks every instruction stands alone. */
#include "runtime/emu/emu_priv.h"

#include "base/size.h"
#include "kernels/mac.h"

#include <string.h>

static bool dequant_valid(struct emu_data *d, const struct emu_op *op)
{
    const struct emu_DEQUANT *a = EMU_ARGS(DEQUANT, op);
    if (!k_dequant_takes((enum dtype)a->code) || a->block <= 0 || a->first < 0 || a->zero_kind < 0 ||
        a->zero_kind > 2 || (a->zero_kind != 0) != (a->zero >= 0) || a->first > INT32_MAX || a->cols > INT32_MAX)
        return emu_fault(d, op, "codes of type %s, blocks of %lld, zero kind %lld", dtype_table[a->code].name,
                         (long long)a->block, (long long)a->zero_kind);
    return (dtype_is_float((enum dtype)a->to) || a->to == DT_I8) &&
                   (dtype_is_float((enum dtype)a->sdtype) || a->sdtype == DT_U8)
               ? true
               : emu_fault(d, op, "scale or result is of another type");
}

static bool run(struct emu_data *d, const struct emu_series *v)
{
    const struct emu_op *op = &v->op;
    const struct emu_DEQUANT *a = EMU_ARGS(DEQUANT, op);
    const int32_t to = emu_esize(d, op, a->to), ssize = to ? emu_esize(d, op, a->sdtype) : 0;
    bool empty;
    if (!ssize || !emu_extents(d, op, 2, &a->rows, &empty) || empty)
        return ssize && !d->error[0];
    if (!dequant_valid(d, op))
        return false;
    const int bits = dtype_table[a->code].bits;
    const int64_t end = a->first + v->n * a->cols;
    const int64_t code = a->first * bits / 8, codes = size_ceil_div(end * bits, 8) - code;
    const int64_t b0 = a->first / a->block, blocks = size_ceil_div(end, a->block) - b0;
    const bool packed = a->zero_kind == 1;
    const int64_t z0 = packed ? b0 * bits / 8 : b0 * ssize;
    const int64_t zeros = packed ? size_ceil_div((b0 + blocks) * bits, 8) - z0 : blocks * ssize;
    const struct emu_span src = emu_rows(a->src_off + code, a->rows, a->src_row, codes, 1, 1);
    const struct emu_span scale = emu_rows(a->scale_off + b0, a->rows, a->scale_row, blocks, 1, ssize);
    const struct emu_span zero = emu_rows(a->zero_off + z0, a->rows, a->zero_row, zeros, 1, 1);
    const struct emu_span dst = {a->dst_off, {1, v->n, a->rows, a->cols}, {0, v->step, a->dst_row, 1}, to};
    const uint8_t *x = emu_buf(d, op, EMU_FIELD(DEQUANT, src), &src, false);
    const uint8_t *s = x ? emu_buf(d, op, EMU_FIELD(DEQUANT, scale), &scale, false) : NULL;
    const uint8_t *z = s && a->zero >= 0 ? emu_buf(d, op, EMU_FIELD(DEQUANT, zero), &zero, false) : s;
    uint8_t *y = z ? emu_buf(d, op, EMU_FIELD(DEQUANT, dst), &dst, true) : NULL;
    if (!y)
        return false;
    struct k_code_rows g = {.to = (enum dtype)a->to,
                            .code = (enum dtype)a->code,
                            .scale_type = (enum dtype)a->sdtype,
                            .zero = (enum k_zero)a->zero_kind,
                            .rows = a->rows,
                            .cols = a->cols,
                            .first = a->first,
                            .block = a->block,
                            .codes = x - code,
                            .scales = s - b0 * ssize,
                            .zeros = z - z0,
                            .code_row = a->src_row,
                            .scale_row = a->scale_row * ssize,
                            .zero_row = a->zero_row,
                            .dst = y,
                            .dst_row = a->dst_row * to};
    for (int64_t i = 0; i < v->n; i++, g.first += a->cols, g.dst += v->step * to)
        k_dequant_rows(&g);
    return true;
}

bool emu_do_dequant(struct emu_data *d, struct emu_op *op)
{
    return run(d, &(struct emu_series){*op, 1, 0});
}

static bool same_slot(const struct emu_op *a, const struct emu_op *b, int field)
{
    return a->slot[field] == b->slot[field];
}

/* Is op the next stripe? What differs from the first of the series is `first` and `dst_off`. */
static bool goes_on(const struct emu_series *v, const struct emu_op *op)
{
    const struct emu_DEQUANT *a = EMU_ARGS(DEQUANT, &v->op), *b = EMU_ARGS(DEQUANT, op);
    struct emu_DEQUANT same = *b;
    same.first = a->first;
    same.dst_off = a->dst_off;
    const bool small = a->cols > 0 && a->cols <= INT32_MAX && b->first <= INT32_MAX && a->first >= 0 &&
                       b->dst_off <= INT32_MAX && b->dst_off >= a->dst_off && a->dst_off >= 0;
    return small && v->op.insn == op->insn && memcmp(&same, a, sizeof same) == 0 &&
           b->first == a->first + v->n * a->cols && (v->n == 1 || b->dst_off == a->dst_off + v->n * v->step) &&
           same_slot(&v->op, op, EMU_FIELD(DEQUANT, dst)) && same_slot(&v->op, op, EMU_FIELD(DEQUANT, src)) &&
           same_slot(&v->op, op, EMU_FIELD(DEQUANT, scale)) &&
           (a->zero < 0 || same_slot(&v->op, op, EMU_FIELD(DEQUANT, zero)));
}

bool emu_series_add(struct emu_data *d, const struct emu_op *op)
{
    struct emu_series *v = &d->series;
    if (v->n > 0 && goes_on(v, op)) {
        v->step = v->n == 1 ? EMU_ARGS(DEQUANT, op)->dst_off - EMU_ARGS(DEQUANT, &v->op)->dst_off : v->step;
        v->n++;
        return true;
    }
    if (!emu_series_end(d))
        return false;
    *v = (struct emu_series){*op, 1, 0};
    return true;
}

bool emu_series_end(struct emu_data *d)
{
    struct emu_series *v = &d->series;
    const bool ok = v->n == 0 || run(d, v);
    v->n = 0;
    return ok;
}
