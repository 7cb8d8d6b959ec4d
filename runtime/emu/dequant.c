/* Dequantisation on UB. Codes, scales and zero points are read where they are: views of GM stay views. What is made
 * waits for the instruction that comes next: a store of it lets the result be made in GM, and UB shows that. With
 * hazard checks nothing waits. */
#include "runtime/emu/emu_priv.h"

#include "base/size.h"
#include "kernels/mac.h"

#include <string.h>

static bool dequant_valid(struct emu_data *d, const struct emu_op *op)
{
    const struct emu_DEQUANT *a = EMU_ARGS(DEQUANT, op);
    if (!k_dequant_takes((enum dtype)a->code) || a->block <= 0 || a->first < 0 || a->zero_kind < 0 ||
        a->zero_kind > 2 || (a->zero_kind != 0) != (a->zero >= 0) || a->first > INT32_MAX || a->cols > INT32_MAX ||
        a->group < 0)
        return emu_fault(d, op, "codes of type %s, blocks of %lld, zero kind %lld", dtype_table[a->code].name,
                         (long long)a->block, (long long)a->zero_kind);
    return (dtype_is_float((enum dtype)a->to) || a->to == DT_I8) &&
                   (dtype_is_float((enum dtype)a->sdtype) || a->sdtype == DT_U8)
               ? true
               : emu_fault(d, op, "scale or result is of another type");
}

/* Steps are not multiplied where nothing is stepped over: then no check has seen them. */
static int64_t bytes(int64_t n, int64_t step, int32_t size)
{
    return n > 1 ? step * size : 0;
}

/* The first byte of rows in a buffer, and how many bytes they are apart; NULL after a fault. */
static const uint8_t *rows_of(struct emu_data *d, const struct emu_op *op, int field, const struct emu_span *s,
                              int64_t *pitch)
{
    const uint8_t *there = emu_buf_unsettled(d, op, field, s, false);
    *pitch = there ? bytes(s->n[2], s->stride[2], s->size) : 0;
    if (!there || !d->views)
        return there;
    const struct emu_groups g = {s->off * s->size, s->n[3] * s->size, s->n[2], *pitch};
    int64_t shown_pitch;
    const uint8_t *shown = emu_view_read(d, op, field, &g, &shown_pitch);
    if (!shown) {
        emu_view_settle(d, op, field);
        return there;
    }
    *pitch = shown_pitch;
    return shown;
}

/* Is it weights that are read in place? */
static bool is_fixed(const struct emu_data *d, const uint8_t *p)
{
    for (int64_t i = 0; i < d->launch->kernel->tensors.len; i++) {
        const struct emu_tensor *t = &d->launch->tensors[i];
        if (t->read_only && t->data && p >= t->data && p < t->data + t->size)
            return true;
    }
    return false;
}

/* Everything but the result's place. */
static bool sources(struct emu_data *d, const struct emu_op *op, struct k_code_rows *g)
{
    const struct emu_DEQUANT *a = EMU_ARGS(DEQUANT, op);
    const int32_t size = emu_esize(d, op, a->sdtype);
    if (!size || !dequant_valid(d, op))
        return false;
    const int bits = dtype_table[a->code].bits;
    const int64_t end = a->first + a->cols, code = a->first * bits / 8;
    const int64_t b0 = a->first / a->block, blocks = size_ceil_div(end, a->block) - b0;
    const bool packed = a->zero_kind == 1;
    const int64_t z0 = packed ? b0 * bits / 8 : b0 * size;
    const int64_t zeros = packed ? size_ceil_div((b0 + blocks) * bits, 8) - z0 : blocks * size;
    const struct emu_span codes =
        emu_rows(a->src_off + code, a->rows, a->src_row, size_ceil_div(end * bits, 8) - code, 1, 1);
    const struct emu_span scale = emu_rows(a->scale_off + b0, a->rows, a->scale_row, blocks, 1, size);
    const struct emu_span zero = emu_rows(a->zero_off + z0, a->rows, a->zero_row, zeros, 1, 1);
    int64_t x_row = 0, s_row = 0, z_row = 0;
    const uint8_t *x = rows_of(d, op, EMU_FIELD(DEQUANT, src), &codes, &x_row);
    const uint8_t *s = x ? rows_of(d, op, EMU_FIELD(DEQUANT, scale), &scale, &s_row) : NULL;
    const uint8_t *z = s && a->zero >= 0 ? rows_of(d, op, EMU_FIELD(DEQUANT, zero), &zero, &z_row) : s;
    if (!z)
        return false;
    *g = (struct k_code_rows){.to = (enum dtype)a->to,
                              .code = (enum dtype)a->code,
                              .scale_type = (enum dtype)a->sdtype,
                              .zero = (enum k_zero)a->zero_kind,
                              .rows = a->rows,
                              .cols = a->cols,
                              .first = a->first,
                              .block = a->block,
                              .codes = x - code,
                              .scales = s - b0 * size,
                              .zeros = z - z0,
                              .code_row = x_row,
                              .scale_row = s_row,
                              .zero_row = z_row,
                              .group = a->group};
    return true;
}

/* The result in UB: whole groups of columns, then the rest. */
static uint8_t *place(struct emu_data *d, const struct emu_op *op)
{
    const struct emu_DEQUANT *a = EMU_ARGS(DEQUANT, op);
    const int32_t size = emu_esize(d, op, a->to);
    const int64_t group = a->group > 0 ? a->group : a->cols, whole = a->cols / group, rest = a->cols % group;
    const struct emu_span body = {a->dst_off, {1, whole, a->rows, group}, {0, a->dst_group, a->dst_row, 1}, size};
    struct emu_span tail = {a->dst_off, {1, whole + 1, a->rows, rest}, {0, a->dst_group, a->dst_row, 1}, size};
    if (!size || (rest && !emu_buf(d, op, EMU_FIELD(DEQUANT, dst), &tail, true)))
        return NULL;
    return whole ? emu_buf(d, op, EMU_FIELD(DEQUANT, dst), &body, true)
                 : emu_buf(d, op, EMU_FIELD(DEQUANT, dst), &tail, true);
}

static bool make(struct emu_data *d, const struct emu_op *op)
{
    struct k_code_rows g;
    if (!sources(d, op, &g))
        return false;
    const struct emu_DEQUANT *a = EMU_ARGS(DEQUANT, op);
    const int32_t size = dtype_size(g.to);
    g.dst = place(d, op);
    if (!g.dst)
        return false;
    g.dst_row = bytes(a->rows, a->dst_row, size);
    g.group_step = a->group > 0 && a->cols > a->group ? a->dst_group * size : 0;
    k_dequant_rows(&g);
    return true;
}

bool emu_do_dequant(struct emu_data *d, struct emu_op *op)
{
    const struct emu_DEQUANT *a = EMU_ARGS(DEQUANT, op);
    bool empty;
    if (!emu_extents(d, op, 2, &a->rows, &empty) || empty)
        return !d->error[0];
    if (d->hazard || !d->views)
        return make(d, op);
    d->waiting = *op;
    d->waits = true;
    return true;
}

bool emu_dequant_end(struct emu_data *d)
{
    const bool waits = d->waits;
    d->waits = false;
    return !waits || make(d, &d->waiting);
}

/* Does the STORE take all of what the DEQUANT makes, group after group? */
static bool takes_all(const struct emu_op *made, const struct emu_op *op)
{
    const struct emu_DEQUANT *q = EMU_ARGS(DEQUANT, made);
    const struct emu_STORE *a = EMU_ARGS(STORE, op);
    return a->src == q->dst && op->slot[EMU_FIELD(STORE, src)] == made->slot[EMU_FIELD(DEQUANT, dst)] &&
           a->dtype == q->to && a->src_off == q->dst_off && q->group > 0 && q->cols % q->group == 0 &&
           q->dst_row == q->group && a->n0 == 1 && a->n1 == q->cols / q->group && a->n2 == 1 &&
           a->n3 == q->rows * q->group && a->s1 == q->dst_group && a->s3 == 1 && a->d3 == 1;
}

/* Nobody changes the codes, and nobody misses the values at the end. */
static bool can_wait(const struct emu_data *d, const struct emu_op *op, const struct k_code_rows *g)
{
    const struct emu_tensor *t = &d->launch->tensors[op->arg[EMU_FIELD(STORE, dst)]];
    return t->brief && emu_made_fits(d->block, g) &&
           k_mac_takes_code_rows(g, g->first, g->group % 16 == 0 ? g->group : 16) && is_fixed(d, g->codes) &&
           is_fixed(d, g->scales) && (g->zero == K_ZERO_MIDDLE || is_fixed(d, g->zeros));
}

bool emu_dequant_store(struct emu_data *d, const struct emu_op *op, bool *done)
{
    const struct emu_op *made = &d->waiting;
    const struct emu_STORE *a = EMU_ARGS(STORE, op);
    struct k_code_rows g;
    *done = takes_all(made, op) && emu_view_takes(d, op, EMU_FIELD(STORE, src));
    if (!*done)
        return emu_dequant_end(d);
    d->waits = false;
    const int32_t size = dtype_size((enum dtype)a->dtype);
    const struct emu_span to = {a->dst_off, {1, a->n1, 1, a->n3}, {0, a->d1, 0, 1}, size};
    const struct emu_span from = {a->src_off, {1, a->n1, 1, a->n3}, {0, a->s1, 0, 1}, size};
    if (!sources(d, made, &g) || !emu_buf_unsettled(d, op, EMU_FIELD(STORE, src), &from, false))
        return false;
    g.dst_row = g.group * size;
    g.group_step = bytes(a->n1, a->d1, size);
    const bool late = can_wait(d, op, &g);
    g.dst = (late ? emu_gm_unmade : emu_gm)(d, op, EMU_FIELD(STORE, dst), &to, true);
    if (!g.dst)
        return false;
    if (late)
        g.dst = emu_made_put_off(d->block, &g);
    else
        k_dequant_rows(&g);
    const int64_t run = a->n3 * size, step = a->n1 > 1 ? a->s1 * size : run;
    const struct emu_view v = {g.dst, g.group_step, a->src_off * size, run, a->n1, step};
    emu_view_written(d, op, EMU_FIELD(STORE, src), &v, late);
    return true;
}
