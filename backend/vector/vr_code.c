/* The program of a vector region: loads, one vector instruction per value, stores.
 *
 * Buffers: an input has a ring of two slots per pass that reads it (MTE2 runs ahead); an output a ring of two (MTE3
 * lags behind); temporaries are single buffers touched by V alone and reused when dead. COL and ONE values have small
 * buffers outside the chunk loop. What is computed in a pass of the chunked form is the closure of that pass's
 * reductions. */
#include <stdio.h>

#include "base/size.h"
#include "backend/vector/vregion_priv.h"

#define LANES_SIZE ((int64_t)sizeof(union k_lanes))

/* What one pass computes and where its FULL and ROW temporaries live. */
struct pass {
    bool need[VR_MAX_VALUES];
    int temp[VR_MAX_VALUES]; /* index of the temporary, -1: none (input, output, COL, ONE) */
    int over[VR_MAX_VALUES]; /* the input that the value is written over, -1: none */
    int n_temps;
    int temp_size[VR_MAX_VALUES]; /* element size of each temporary */
};

static bool is_wide(const struct vr_value *v)
{
    return v->cls == VC_FULL || v->cls == VC_ROW;
}

/* An input that is turned on its way into its buffer. */
static bool is_turned(const struct vr *r, int i)
{
    return r->values[i].kind == VR_INPUT && r->values[i].cls == VC_FULL && r->turned[r->values[i].view];
}

static int output_of(const struct vr *r, int value)
{
    for (int i = 0; i < r->n_outputs; i++)
        if (r->outputs[i].value == value)
            return i;
    return -1;
}

/* An output that is not stored, but left in the buffer of its value. */
static bool stays(const struct vr *r, int o)
{
    return o >= 0 && r->outputs[o].view.tensor < 0;
}

static int n_levels(const struct vr *r)
{
    int n = 0;
    for (int i = 0; i < r->n_values; i++)
        if (r->values[i].kind == VR_RED && r->values[i].level > n)
            n = r->values[i].level;
    return n;
}

/* A pass has one goal: the reduction `red`, or the outputs when red is -1. Values per row that earlier passes left
 * behind are ready (chunked form). */
static void mark_needed(const struct vr *r, bool chunked, int red, struct pass *out)
{
    for (int o = 0; o < r->n_outputs && red < 0; o++)
        out->need[r->outputs[o].value] = true;
    for (int i = r->n_values - 1; i >= 0; i--) {
        const struct vr_value *v = &r->values[i];
        out->need[i] = out->need[i] || i == red;
        bool ready = chunked && !is_wide(v) && i != red;
        for (int a = 0; out->need[i] && !ready && a < 3 && v->arg[a] >= 0; a++)
            out->need[v->arg[a]] = true;
    }
}

static int last_use(const struct vr *r, const struct pass *ps, int value)
{
    int last = stays(r, output_of(r, value)) ? r->n_values : value;
    for (int i = value + 1; i < r->n_values && last < r->n_values; i++)
        for (int a = 0; ps->need[i] && a < 3; a++)
            if (r->values[i].arg[a] == value)
                last = i;
    return last;
}

/* May value i be written over value `over`, which it reads last? Where the region's result stays on chip, room is worth
 * more than freedom of order. */
static bool in_place(const struct vr *r, int i, int over)
{
    const struct vr_value *v = &r->values[i];
    return r->n_outputs > 0 && stays(r, 0) && v->kind == VR_VEC && v->cls == r->values[over].cls &&
           v->dtype == r->values[over].dtype;
}

/* The input whose buffer value i can take from an operand, -1: none. */
static int input_under(const struct vr *r, const struct pass *ps, int i)
{
    for (int a = 0; a < 3; a++) {
        const int v = r->values[i].arg[a];
        const int root = v < 0 ? -1 : r->values[v].kind == VR_INPUT ? v : ps->over[v];
        if (root >= 0 && in_place(r, i, v) && last_use(r, ps, v) == i)
            return root;
    }
    return -1;
}

/* Linear scan: a temporary is free again after the last use of the value it holds. */
static void assign_temps(const struct vr *r, struct pass *ps)
{
    int busy_until[VR_MAX_VALUES], holds[VR_MAX_VALUES];
    ps->n_temps = 0;
    for (int i = 0; i < r->n_values; i++) {
        const struct vr_value *v = &r->values[i];
        ps->temp[i] = ps->over[i] = -1;
        const int o = output_of(r, i);
        if (!ps->need[i] || !is_wide(v) || v->kind == VR_INPUT || v->kind == VR_IMM || (o >= 0 && !stays(r, o)))
            continue;
        ps->over[i] = input_under(r, ps, i);
        if (ps->over[i] >= 0)
            continue;
        int size = dtype_size(v->dtype), t = 0;
        while (t < ps->n_temps &&
               (ps->temp_size[t] != size || busy_until[t] > i || (busy_until[t] == i && !in_place(r, i, holds[t]))))
            t++;
        if (t == ps->n_temps)
            ps->temp_size[ps->n_temps++] = size;
        busy_until[t] = last_use(r, ps, i);
        holds[t] = i;
        ps->temp[i] = t;
    }
}

static void make_pass(const struct vr *r, bool chunked, int red, struct pass *out)
{
    *out = (struct pass){0};
    mark_needed(r, chunked, red, out);
    assign_temps(r, out);
}

/* Does output o need a copy that spreads its value over rows and columns? */
static bool output_spreads(const struct vr *r, int o)
{
    const struct vr_value *v = &r->values[r->outputs[o].value];
    expr zero = expr_const(&r->e->cx->exprs, 0);
    bool wide = r->outputs[o].view.stride[r->rank - 1] != zero;
    return v->kind == VR_IMM || (wide ? v->cls != VC_FULL : v->cls == VC_ONE || v->cls == VC_ROW);
}

static bool reduction_spreads(const struct vr *r, const struct vr_value *v)
{
    return v->kind == VR_RED && r->values[v->arg[0]].cls != VC_FULL;
}

static int max_size(const struct vr *r)
{
    int size = 1;
    for (int i = 0; i < r->n_values; i++)
        size = dtype_size(r->values[i].dtype) > size ? dtype_size(r->values[i].dtype) : size;
    return size;
}

/* Bytes per element of the wide inputs and temporaries of one pass. */
static int64_t pass_width(const struct vr *r, bool chunked, int red)
{
    struct pass ps;
    int64_t wide = 0;
    make_pass(r, chunked, red, &ps);
    for (int t = 0; t < ps.n_temps; t++)
        wide += ps.temp_size[t];
    for (int i = 0; i < r->n_values; i++)
        if (ps.need[i] && r->values[i].kind == VR_INPUT && is_wide(&r->values[i]))
            wide += (is_turned(r, i) ? 3 : 2) * dtype_size(r->values[i].dtype);
    return wide;
}

void vr_footprint(const struct vr *r, bool chunked, int64_t max_rows, int64_t *per_element, int64_t *fixed)
{
    int64_t wide = pass_width(r, chunked, -1), narrow = 0;
    bool spread = false;
    for (int i = 0; i < r->n_values; i++) {
        const struct vr_value *v = &r->values[i];
        if (chunked && v->kind == VR_RED)
            wide += pass_width(r, true, i);
        if (!is_wide(v) && v->kind != VR_IMM)
            narrow += 2 * size_align(max_rows * dtype_size(v->dtype), 64);
        spread = spread || reduction_spreads(r, v);
    }
    for (int o = 0; o < r->n_outputs; o++)
        wide += stays(r, o) ? 0 : (r->turned[r->n_views + o] ? 4 : 2) * dtype_size(r->outputs[o].view.dtype);
    *per_element = wide + (spread ? max_size(r) : 0);
    *fixed = narrow + (r->has_red ? max_rows * LANES_SIZE : 0) + 256;
}

bool vr_over_input(const struct vr *r, int value)
{
    struct pass ps;
    make_pass(r, false, -1, &ps);
    return is_wide(&r->values[value]) && (r->values[value].kind == VR_INPUT || ps.over[value] >= 0);
}

/* ---- emission ---- */

static int32_t ex(const struct vr_form *f, int64_t v)
{
    return expr_const(&f->k->exprs, v);
}

static int32_t new_buf(struct vr_form *f, const char *stem, int number, enum dtype t, int slots, int64_t elems)
{
    char name[32];
    snprintf(name, sizeof name, "%s%d", stem, number);
    return tile_buf(&f->b, name, TS_UB, t, slots, size_align(elems * dtype_size(t), 64));
}

/* Extents of a value of the class on the tile: rows and columns of the instruction that makes it. */
static void extents(const struct vr_form *f, enum vr_class c, expr *rows, expr *cols)
{
    expr one = ex(f, 1);
    *rows = c == VC_FULL ? f->n_rows : one;
    *cols = c == VC_FULL || c == VC_ROW ? f->n_cols : c == VC_COL ? f->n_rows : one;
}

struct operand {
    int32_t buf, off, row, col;
};

/* How an instruction making a value of class `into` reads value v. */
static struct operand operand(const struct vr_form *f, int v, enum vr_class into)
{
    int32_t zero = ex(f, 0);
    if (v < 0)
        return (struct operand){-1, 0, zero, 0};
    const struct vr_value *w = &f->r->values[v];
    if (w->kind == VR_IMM)
        return (struct operand){-1, tile_float_bits(w->imm), zero, 0};
    struct operand o = {f->buf[v], zero, zero, 0};
    if (w->cls == VC_FULL) {
        o.row = f->pitch;
        o.col = 1;
    } else if (w->cls == VC_ROW) {
        o.col = 1;
    } else if (w->cls == VC_COL) {
        o.row = into == VC_COL ? zero : ex(f, 1); /* a COL result is one row of n_rows elements */
        o.col = into == VC_COL;
    }
    return o;
}

static const struct vr_view *view_number(const struct vr_form *f, int i)
{
    return i < f->r->n_views ? &f->r->views[i] : &f->r->outputs[i - f->r->n_views].view;
}

/* Offset of the tile's outer indices in view i; an indexed view reads its part from memory. */
static expr outer_offset(struct vr_form *f, int i)
{
    struct expr_pool *x = &f->k->exprs;
    const struct vr_view *v = view_number(f, i);
    expr off = f->offset[i];
    if (f->base[i] != EXPR_INVALID)
        off = expr_add(x, off, f->base[i]);
    if (f->r->planes)
        off = expr_add(x, off, expr_mul(x, f->plane0, f->stride[i][f->r->rank - 3]));
    for (int d = 0; d + 2 + f->r->planes < f->r->rank; d++)
        off = expr_add(x, off, expr_mul(x, f->outer[d], f->stride[i][d]));
    if (!v->indexed)
        return off;
    char name[24];
    snprintf(name, sizeof name, "at%d_%lld", i, (long long)f->b.at->code.len);
    sym text = str_internz(x->strings, name);
    int32_t var = expr_symbol_new(x, text, (struct expr_range){0, INT32_MAX, 1});
    TILE(&f->b, SLOAD, var, f->index_tensor[i], (int32_t)v->index_dtype, f->outer[0], ex(f, 0), f->index_max[i],
         f->index_max[i]);
    return expr_add(x, off, expr_mul(x, expr_sym(x, var), f->index_stride[i]));
}

/* A FULL or COL value whose rows are `plane_rows` rows in each of `n_planes` planes, one after the other. */
static void load_planes(struct vr_form *f, int v, expr off)
{
    struct expr_pool *x = &f->k->exprs;
    const struct vr_value *w = &f->r->values[v];
    const expr *s = &f->stride[w->view][f->r->rank - 3];
    expr one = ex(f, 1), zero = ex(f, 0);
    if (w->cls == VC_FULL)
        TILE(&f->b, LOAD, f->buf[v], zero, f->view_tensor[w->view], off, (int32_t)w->dtype, one, f->n_planes,
             f->plane_rows, f->n_cols, zero, s[0], s[1], s[2], zero, expr_mul(x, f->plane_rows, f->pitch), f->pitch,
             one);
    else
        TILE(&f->b, LOAD, f->buf[v], zero, f->view_tensor[w->view], off, (int32_t)w->dtype, one, one, f->n_planes,
             f->plane_rows, zero, zero, s[0], s[1], zero, zero, f->plane_rows, one);
}

static void emit_load(struct vr_form *f, int v)
{
    struct expr_pool *x = &f->k->exprs;
    const struct vr_value *w = &f->r->values[v];
    int last = f->r->rank - 1, i = w->view;
    expr one = ex(f, 1), zero = ex(f, 0), off = outer_offset(f, i);
    expr srow = last > 0 ? f->stride[i][last - 1] : zero, scol = f->stride[i][last];
    off = expr_add(x, off, expr_add(x, expr_mul(x, f->row0, srow), expr_mul(x, f->col0, scol)));
    bool tall = w->cls == VC_FULL, flat = w->cls == VC_COL;
    if (f->r->planes && (tall || flat)) {
        load_planes(f, v, off);
        return;
    }
    if (tall && f->r->turned[i]) {
        vr_load_turned(f, v, off);
        return;
    }
    expr n2 = tall ? f->n_rows : one, n3 = w->cls == VC_ONE ? one : flat ? f->n_rows : f->n_cols;
    TILE(&f->b, LOAD, f->buf[v], zero, f->view_tensor[i], off, (int32_t)w->dtype, one, one, n2, n3, zero, zero, srow,
         flat ? srow : scol, zero, zero, f->pitch, one);
}

/* flat: buf holds one element per row, side by side. */
static void emit_store(struct vr_form *f, int o, int32_t buf, bool flat)
{
    struct expr_pool *x = &f->k->exprs;
    int i = f->r->n_views + o, last = f->r->rank - 1;
    expr one = ex(f, 1), zero = ex(f, 0), off = outer_offset(f, i);
    expr drow = last > 0 ? f->stride[i][last - 1] : zero, dcol = f->stride[i][last];
    off = expr_add(x, off, expr_add(x, expr_mul(x, f->row0, drow), expr_mul(x, f->col0, dcol)));
    if (f->r->turned[i] && !flat) {
        vr_store_turned(f, o, buf, new_buf(f, "lines", o, f->r->outputs[o].view.dtype, 2, f->cap), off);
        return;
    }
    if (f->r->planes) {
        TILE(&f->b, STORE, f->view_tensor[i], off, buf, zero, (int32_t)f->r->outputs[o].view.dtype, one, f->n_planes,
             f->plane_rows, f->n_cols, zero, expr_mul(x, f->plane_rows, f->pitch), f->pitch, one, zero,
             f->stride[i][last - 2], drow, dcol);
        return;
    }
    const bool single = f->r->outputs[o].view.stride[last] == expr_const(&f->r->e->cx->exprs, 0);
    TILE(&f->b, STORE, f->view_tensor[i], off, buf, zero, (int32_t)f->r->outputs[o].view.dtype, one, one,
         flat ? one : f->n_rows,
         flat     ? f->n_rows
         : single ? one
                  : f->n_cols,
         zero, zero, flat ? zero : f->pitch, one, zero, zero, drow, flat ? drow : dcol);
}

/* Numbers of the tile's elements. */
static void emit_iota(struct vr_form *f, int v)
{
    struct expr_pool *x = &f->k->exprs;
    const struct vr_value *w = &f->r->values[v];
    const int last = f->r->rank - 1, i = w->view;
    expr zero = ex(f, 0), rows, cols;
    const expr srow = last > 0 ? f->stride[i][last - 1] : zero, scol = f->stride[i][last];
    expr start = expr_add(x, outer_offset(f, i), expr_add(x, expr_mul(x, f->row0, srow), expr_mul(x, f->col0, scol)));
    extents(f, w->cls, &rows, &cols);
    TILE(&f->b, IOTA, (int32_t)w->dtype, rows, cols, f->buf[v], zero, w->cls == VC_FULL ? f->pitch : zero, start,
         w->cls == VC_COL ? srow : scol, w->cls == VC_FULL ? srow : zero);
}

/* dst (FULL) = value v repeated over rows and columns. */
static void emit_spread(struct vr_form *f, int v, int32_t dst, enum dtype t)
{
    const struct vr_value *w = &f->r->values[v];
    if (w->kind == VR_IMM) {
        TILE(&f->b, FILL, (int32_t)t, f->n_rows, f->n_cols, dst, ex(f, 0), f->pitch, tile_float_bits(w->imm));
        return;
    }
    struct operand a = operand(f, v, VC_FULL);
    TILE(&f->b, COPY_UB, (int32_t)t, f->n_rows, f->n_cols, dst, ex(f, 0), f->pitch, a.buf, a.off, a.row, a.col);
}

static void emit_reduction(struct vr_form *f, const struct vr_value *v, expr init)
{
    int32_t src = f->buf[v->arg[0]], zero = ex(f, 0);
    if (reduction_spreads(f->r, v)) {
        emit_spread(f, v->arg[0], f->spread, v->op_dtype);
        src = f->spread;
    }
    TILE(&f->b, RED_ADD, v->op, (int32_t)v->op_dtype, f->n_rows, f->n_cols, f->acc, zero, src, zero, f->pitch, f->col0,
         init);
}

static void emit_reduction_end(struct vr_form *f, int i)
{
    const struct vr_value *v = &f->r->values[i];
    TILE(&f->b, RED_END, v->op, (int32_t)v->op_dtype, f->n_rows, f->buf[i], ex(f, 0), ex(f, 1), f->acc, ex(f, 0));
}

static void emit_value(struct vr_form *f, int i)
{
    const struct vr_value *v = &f->r->values[i];
    expr rows, cols;
    if (v->kind == VR_IOTA) {
        emit_iota(f, i);
        return;
    }
    extents(f, v->cls, &rows, &cols);
    int32_t zero = ex(f, 0), pitch = v->cls == VC_FULL ? f->pitch : zero;
    struct operand a = operand(f, v->arg[0], v->cls), b = operand(f, v->arg[1], v->cls),
                   c = operand(f, v->arg[2], v->cls);
    if (v->kind == VR_CAST)
        TILE(&f->b, CAST, (int32_t)v->dtype, (int32_t)v->op_dtype, rows, cols, f->buf[i], zero, pitch, a.buf, a.off,
             a.row, a.col, v->nearest ? TILE_NEAREST : !v->wraps);
    else
        TILE(&f->b, VEC, v->op, (int32_t)v->op_dtype, rows, cols, f->buf[i], zero, pitch, a.buf, a.off, a.row, a.col,
             b.buf, b.off, b.row, b.col, c.buf, c.off, c.row, c.col, tile_float_bits(v->param[0]),
             tile_float_bits(v->param[1]), tile_float_bits(v->param[2]));
}

/* Buffers of the inputs and temporaries of one pass. */
static void declare_pass(struct vr_form *f, int red, const struct pass *ps)
{
    int32_t temp[VR_MAX_VALUES];
    int base = (red + 1) * 100; /* buffers of different passes have different names */
    for (int t = 0; t < ps->n_temps; t++) {
        static const enum dtype by_size[9] = {[1] = DT_U8, [2] = DT_F16, [4] = DT_F32, [8] = DT_I64};
        temp[t] = new_buf(f, "t", base + t, by_size[ps->temp_size[t]], 1, f->cap);
    }
    for (int i = 0; i < f->r->n_values; i++) {
        const struct vr_value *v = &f->r->values[i];
        if (!ps->need[i] || !is_wide(v))
            continue;
        if (is_turned(f->r, i))
            f->line[i] = new_buf(f, "line", base + i, v->dtype, 2, f->cap);
        if (v->kind == VR_INPUT)
            f->buf[i] = new_buf(f, "in", base + i, v->dtype, is_turned(f->r, i) ? 1 : 2, f->cap);
        else if (ps->temp[i] >= 0)
            f->buf[i] = temp[ps->temp[i]];
        else if (ps->over[i] >= 0)
            f->buf[i] = f->buf[ps->over[i]];
    }
}

static void declare_fixed(struct vr_form *f)
{
    const struct vr *r = f->r;
    for (int i = 0; i < r->n_values; i++) {
        const struct vr_value *v = &r->values[i];
        f->buf[i] = -1;
        if (v->kind != VR_IMM && !is_wide(v))
            f->buf[i] = new_buf(f, "c", i, v->dtype, v->kind == VR_INPUT || output_of(r, i) >= 0 ? 2 : 1, f->max_rows);
        else if (v->kind != VR_IMM && v->kind != VR_INPUT && output_of(r, i) >= 0 && !stays(r, output_of(r, i)))
            f->buf[i] = new_buf(f, "out", output_of(r, i), v->dtype, 2, f->cap);
    }
    f->acc = r->has_red ? tile_buf(&f->b, "acc", TS_UB, DT_F32, 1, f->max_rows * LANES_SIZE) : -1;
}

static void store_output(struct vr_form *f, int o)
{
    const struct vr_output *out = &f->r->outputs[o];
    int32_t buf = f->buf[out->value];
    const bool spreads = output_spreads(f->r, o);
    if (spreads) {
        buf = new_buf(f, "spread", o, out->view.dtype, 2, f->cap);
        emit_spread(f, out->value, buf, out->view.dtype);
    }
    emit_store(f, o, buf, !spreads && f->r->values[out->value].cls == VC_COL);
}

static int32_t spread_buffer(struct vr_form *f)
{
    static const enum dtype by_size[9] = {[1] = DT_U8, [2] = DT_F16, [4] = DT_F32, [8] = DT_I64};
    for (int i = 0; i < f->r->n_values; i++)
        if (reduction_spreads(f->r, &f->r->values[i]))
            return new_buf(f, "wide", 0, by_size[max_size(f->r)], 1, f->cap);
    return -1;
}

static void resident_tile(struct vr_form *f)
{
    struct pass ps;
    make_pass(f->r, false, -1, &ps);
    declare_pass(f, -1, &ps);
    for (int i = 0; i < f->r->n_values; i++)
        if (ps.need[i] && f->r->values[i].kind == VR_INPUT)
            emit_load(f, i);
    for (int i = 0; i < f->r->n_values; i++) {
        const struct vr_value *v = &f->r->values[i];
        if (!ps.need[i] || v->kind == VR_INPUT || v->kind == VR_IMM)
            continue;
        if (v->kind == VR_RED) {
            emit_reduction(f, v, ex(f, 1));
            emit_reduction_end(f, i);
        } else {
            emit_value(f, i);
        }
    }
    for (int o = 0; o < f->r->n_outputs; o++)
        if (!stays(f->r, o))
            store_output(f, o);
}

/* Values per row that follow from the reductions of `level`, in order; level 0 also loads the narrow inputs. */
static void narrow_values(struct vr_form *f, int level)
{
    for (int i = 0; i < f->r->n_values; i++) {
        const struct vr_value *v = &f->r->values[i];
        if (is_wide(v) || v->kind == VR_IMM || v->kind == VR_RED || v->level != level)
            continue;
        if (v->kind == VR_INPUT)
            emit_load(f, i);
        else
            emit_value(f, i);
    }
}

static void chunk_body(struct vr_form *f, const struct pass *ps, int red, expr init)
{
    for (int i = 0; i < f->r->n_values; i++)
        if (ps->need[i] && is_wide(&f->r->values[i]) && f->r->values[i].kind == VR_INPUT)
            emit_load(f, i);
    for (int i = 0; i < f->r->n_values; i++) {
        const struct vr_value *v = &f->r->values[i];
        if (!ps->need[i] || v->kind == VR_INPUT || v->kind == VR_IMM)
            continue;
        if (i == red)
            emit_reduction(f, v, init);
        else if (is_wide(v))
            emit_value(f, i);
    }
}

static bool is_row_output(const struct vr_form *f, int o)
{
    return f->r->outputs[o].view.stride[f->r->rank - 1] == expr_const(&f->r->e->cx->exprs, 0);
}

/* One walk over the columns for one reduction, or for the outputs (red -1). */
static void chunk_pass(struct vr_form *f, int red)
{
    struct pass ps;
    struct expr_pool *x = &f->k->exprs;
    make_pass(f->r, true, red, &ps);
    declare_pass(f, red, &ps);
    expr c = tile_loop(&f->b, "c", expr_ceildiv(x, f->cols, ex(f, f->cap)));
    f->col0 = expr_mul_const(x, c, f->cap);
    f->n_cols = expr_min(x, ex(f, f->cap), expr_sub(x, f->cols, f->col0));
    chunk_body(f, &ps, red, expr_cmp(x, EXPR_EQ, c, ex(f, 0)));
    for (int o = 0; red < 0 && o < f->r->n_outputs; o++)
        if (!is_row_output(f, o))
            store_output(f, o);
    tile_end(&f->b);
    if (red >= 0)
        emit_reduction_end(f, red);
}

static void chunked_tile(struct vr_form *f)
{
    int levels = n_levels(f->r);
    f->col0 = ex(f, 0);
    narrow_values(f, 0);
    for (int p = 1; p <= levels; p++) {
        for (int i = 0; i < f->r->n_values; i++)
            if (f->r->values[i].kind == VR_RED && f->r->values[i].level == p)
                chunk_pass(f, i);
        narrow_values(f, p);
    }
    chunk_pass(f, -1);
    for (int o = 0; o < f->r->n_outputs; o++)
        if (is_row_output(f, o))
            store_output(f, o);
}

/* Splits tile number t into column tile, row tile and outer indices. */
static void locate_tile(struct vr_form *f, expr t)
{
    struct expr_pool *x = &f->k->exprs;
    expr ct = expr_mod(x, t, f->n_col_tiles), rest = expr_floordiv(x, t, f->n_col_tiles);
    expr rt = expr_mod(x, rest, f->n_row_tiles);
    rest = expr_floordiv(x, rest, f->n_row_tiles);
    for (int d = f->r->rank - 3; d >= 0; d--) {
        expr size = expr_max(x, ex(f, 1), f->dims[d]); /* a divisor, also when there is nothing to do */
        f->outer[d] = d == 0 ? rest : expr_mod(x, rest, size);
        rest = d == 0 ? rest : expr_floordiv(x, rest, size);
    }
    f->row0 = expr_mul(x, rt, f->tile_rows);
    f->n_rows = expr_min(x, f->tile_rows, expr_sub(x, f->rows, f->row0));
    f->col0 = expr_mul(x, ct, f->tile_cols);
    f->n_cols = expr_min(x, f->tile_cols, expr_sub(x, f->cols, f->col0));
}

void vr_code_buffers(struct vr_form *f)
{
    declare_fixed(f);
    f->spread = spread_buffer(f);
}

void vr_code_tile(struct vr_form *f)
{
    if (f->chunked)
        chunked_tile(f);
    else
        resident_tile(f);
}

void vr_code(struct vr_form *f)
{
    struct expr_pool *x = &f->k->exprs;
    f->b = (struct tile_builder){.k = f->k, .arena = f->r->e->arena};
    tile_section_begin(&f->b, TCORE_VECTOR);
    vr_code_buffers(f);
    expr block = expr_sym(x, f->k->sym_block);
    tile_note(&f->b, "tiles of this core");
    expr it = tile_loop(&f->b, "i", expr_ceildiv(x, expr_sub(x, f->n_tiles, block), f->k->blocks));
    locate_tile(f, expr_add(x, block, expr_mul(x, it, f->k->blocks)));
    vr_code_tile(f);
    tile_end(&f->b);
}
