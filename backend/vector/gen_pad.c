/* Pad. Constant: the result is filled, then what stays of the operand is copied inside. Other modes go axis by axis:
 * the vector cores compute which row of the operand each row of the result is, the DMA gathers them. Amounts may be
 * negative and may be read at run time. */
#include "backend/vector/gens.h"
#include "backend/vector/rows.h"
#include "backend/vector/views.h"
#include "ir/ops/extent.h"

enum mode { PAD_CONSTANT, PAD_REFLECT, PAD_EDGE, PAD_WRAP, PAD_MODES };

static enum mode mode_of(struct ir_ctx *cx, const struct node *n)
{
    static const char *const names[PAD_MODES] = {"constant", "reflect", "edge", "wrap"};
    enum mode m = PAD_CONSTANT;
    for (int i = 0; i < PAD_MODES; i++)
        if (node_attr_str(n, "mode", 0) == str_internz(&cx->strings, names[i]))
            m = (enum mode)i;
    return m;
}

bool gen_pad_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    (void)m;
    if (n->op != OP_Pad)
        return false;
    const struct type *t = node_in(n, 0)->type;
    if (!view_plain(cx, node_in(n, 0), reason) || !view_plain(cx, &n->out[0], reason))
        return false;
    *reason = "pads or axes are not known before the step";
    for (int i = 0; i < t->rank; i++) {
        expr lo, hi;
        if (!pad_entry(cx, n, t->rank, i, &lo, &hi))
            return false;
    }
    *reason = "only dense tensors are reflected, repeated or wrapped";
    return mode_of(cx, n) == PAD_CONSTANT || (t->layout.kind == LAYOUT_ND && t->rank > 0);
}

static enum npuc_status pad_constant(struct emit *e, struct node *n)
{
    struct expr_pool *x = &e->cx->exprs;
    struct value *with = node_in(n, 2);
    const struct type *t = node_in(n, 0)->type, *to = n->out[0].type;
    struct vr *r = ARENA_NEW(e->arena, struct vr);
    struct vr_view src, dst;
    expr dims[IR_MAX_RANK];
    const expr zero = expr_const(x, 0);
    view_own(e, node_in(n, 0), &src);
    view_own(e, &n->out[0], &dst);
    vr_init(r, e, to->rank, to->dims);
    if (with) {
        const struct vr_view element = view_element(e, with, zero);
        vr_output(r, vr_input(r, &element), &dst);
    } else {
        vr_output(r, vr_imm(r, t->dtype, 0), &dst);
    }
    const enum npuc_status s = vr_launch(r, "fill", "Pad");
    if (s != NPUC_OK)
        return s;
    for (int i = 0; i < t->rank; i++) {
        expr lo, hi;
        if (!pad_entry(e->cx, n, t->rank, i, &lo, &hi))
            return node_error(e->cx, n, D_UNSUPPORTED, "pads or axes are not known before the step");
        const expr first = expr_max(x, zero, expr_sub(x, zero, lo)), at = expr_max(x, zero, lo);
        const expr left = expr_min(x, expr_sub(x, t->dims[i], first), expr_sub(x, to->dims[i], at));
        dims[i] = expr_max(x, zero, left);
        src.offset = expr_add(x, src.offset, expr_mul(x, first, src.stride[i]));
        dst.offset = expr_add(x, dst.offset, expr_mul(x, at, dst.stride[i]));
    }
    return view_copy(e, t->rank, dims, &dst, &src, "Pad");
}

/* Which row of `len` the row i - lo of the result shows. */
static int source_row(struct vr *r, enum mode mode, expr lo, expr len)
{
    struct expr_pool *x = &r->e->cx->exprs;
    const expr one = expr_const(x, 1), stride[IR_MAX_RANK] = {one};
    const int i = vr_iota(r, DT_I64, expr_sub(x, expr_const(x, 0), lo), stride), zero = vr_imm(r, DT_I64, 0);
    const expr last = expr_sub(x, len, one);
    if (mode == PAD_EDGE)
        return vr_vec2(r, K_FN_Min, vr_vec2(r, K_FN_Max, i, zero), view_size(r, DT_I64, last));
    if (mode == PAD_WRAP)
        return vr_vec2(r, K_FN_Mod, i, view_size(r, DT_I64, expr_max(x, one, len)));
    const int period = view_size(r, DT_I64, expr_max(x, one, expr_mul_const(x, last, 2)));
    const int at = vr_vec2(r, K_FN_Mod, i, period);
    return vr_vec2(r, K_FN_Min, at, vr_vec2(r, K_FN_Sub, period, at));
}

/* One axis: `from` of dims -> the tensor *to, made here unless it is the result. */
static enum npuc_status pad_axis(struct emit *e, struct node *n, int axis, int32_t from, int32_t to, expr *dims,
                                 expr lo)
{
    struct expr_pool *x = &e->cx->exprs;
    const struct type *t = n->out[0].type;
    const expr rows[1] = {t->dims[axis]};
    struct vr *r = ARENA_NEW(e->arena, struct vr);
    const int32_t index = emit_temp(e, "rows", DT_I64, 1, rows);
    const struct vr_view w = view_dense(e, index, DT_I64, 1, rows);
    vr_init(r, e, 1, rows);
    vr_output(r, source_row(r, mode_of(e->cx, n), lo, dims[axis]), &w);
    const enum npuc_status s = vr_launch(r, "places", "Pad");
    const struct gather_rows g = {.data = from,
                                  .index = index,
                                  .out = to,
                                  .dtype = t->dtype,
                                  .index_dtype = DT_I64,
                                  .outer = view_product(x, dims, 0, axis),
                                  .n_rows = dims[axis],
                                  .n_index = t->dims[axis],
                                  .row_len = view_product(x, dims, axis + 1, t->rank)};
    dims[axis] = t->dims[axis];
    return s == NPUC_OK ? emit_gather_rows(e, &g, "Pad") : s;
}

static enum npuc_status pad_axes(struct emit *e, struct node *n)
{
    const struct type *t = node_in(n, 0)->type;
    struct expr_pool *x = &e->cx->exprs;
    expr dims[IR_MAX_RANK], lo[IR_MAX_RANK], hi;
    int last = 0;
    for (int i = 0; i < t->rank; i++) {
        int64_t a, b;
        dims[i] = t->dims[i];
        if (!pad_entry(e->cx, n, t->rank, i, &lo[i], &hi))
            return node_error(e->cx, n, D_UNSUPPORTED, "pads or axes are not known before the step");
        if (!expr_is_const(x, lo[i], &a) || !expr_is_const(x, hi, &b) || a != 0 || b != 0)
            last = i;
        else
            lo[i] = EXPR_INVALID;
    }
    int32_t from = emit_tensor(e, node_in(n, 0));
    for (int i = 0; i <= last; i++) {
        if (lo[i] == EXPR_INVALID && i < last)
            continue;
        expr after[IR_MAX_RANK];
        for (int k = 0; k < t->rank; k++)
            after[k] = k == i ? n->out[0].type->dims[k] : dims[k];
        const int32_t to = i == last ? emit_tensor(e, &n->out[0]) : emit_temp(e, "padded", t->dtype, t->rank, after);
        const enum npuc_status s = pad_axis(e, n, i, from, to, dims, lo[i] == EXPR_INVALID ? expr_const(x, 0) : lo[i]);
        if (s != NPUC_OK)
            return s;
        from = to;
    }
    return NPUC_OK;
}

enum npuc_status gen_pad_emit(struct emit *e, struct node *n)
{
    return mode_of(e->cx, n) == PAD_CONSTANT ? pad_constant(e, n) : pad_axes(e, n);
}
