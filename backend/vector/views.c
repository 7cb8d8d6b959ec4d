/* Views of values over iteration dimensions. */
#include "backend/vector/views.h"

void view_own(struct emit *e, struct value *v, struct vr_view *out)
{
    expr strides[IR_MAX_RANK], zero = expr_const(&e->cx->exprs, 0);
    const bool ok = value_strides(e->cx, v, strides);
    NPUC_ASSERT(ok);
    *out = (struct vr_view){.tensor = emit_tensor(e, v), .dtype = v->type->dtype, .offset = zero};
    for (int i = 0; i < v->type->rank; i++)
        out->stride[i] = expr_is_one(&e->cx->exprs, v->type->dims[i]) ? zero : strides[i];
    if (v->type->rank == 0)
        out->stride[0] = zero;
}

bool view_plain(struct ir_ctx *cx, const struct value *v, const char **reason)
{
    expr strides[IR_MAX_RANK];
    *reason = "elements of less than a byte, strings and blocked layouts are not moved by the DMA";
    return v->type->kind == TYPE_TENSOR && v->type->rank >= 0 && dtype_table[v->type->dtype].bits >= 8 &&
           dtype_table[v->type->dtype].bits <= 64 && dtype_table[v->type->dtype].cls != DTC_TEXT &&
           value_strides(cx, v, strides);
}

struct vr_view view_dense(struct emit *e, int32_t tensor, enum dtype t, int rank, const expr *dims)
{
    struct expr_pool *x = &e->cx->exprs;
    struct vr_view w = {.tensor = tensor, .dtype = t, .offset = expr_const(x, 0)};
    expr stride = expr_const(x, 1);
    w.stride[0] = w.offset;
    for (int i = rank - 1; i >= 0; i--) {
        w.stride[i] = expr_is_one(&e->cx->exprs, dims[i]) ? w.offset : stride;
        stride = expr_mul(x, stride, dims[i]);
    }
    return w;
}

struct vr_view view_element(struct emit *e, struct value *v, expr at)
{
    struct vr_view w = {.tensor = emit_tensor(e, v), .dtype = v->type->dtype, .offset = at};
    for (int i = 0; i < IR_MAX_RANK; i++)
        w.stride[i] = expr_const(&e->cx->exprs, 0);
    return w;
}

enum npuc_status view_copy(struct emit *e, int rank, const expr *dims, const struct vr_view *dst,
                           const struct vr_view *src, const char *label)
{
    struct vr *r = ARENA_NEW(e->arena, struct vr);
    vr_init(r, e, rank, dims);
    vr_output(r, vr_input(r, src), dst);
    return vr_launch(r, "copy", label);
}

int view_size(struct vr *r, enum dtype t, expr size)
{
    expr strides[IR_MAX_RANK];
    for (int i = 0; i < IR_MAX_RANK; i++)
        strides[i] = expr_const(&r->e->cx->exprs, 0);
    return vr_iota(r, t, size, strides);
}

int view_where(struct vr *r, int cond, int b, int c)
{
    return vr_vec(r, K_FN_Where, r->values[b].dtype, (const int[3]){cond, b, c}, NULL);
}

expr view_product(struct expr_pool *x, const expr *dims, int from, int to)
{
    expr n = expr_const(x, 1);
    for (int i = from; i < to; i++)
        n = expr_mul(x, n, dims[i]);
    return n;
}

int view_axis(const struct node *n, const char *attr, int64_t otherwise, int rank)
{
    const int64_t axis = node_attr_int(n, attr, otherwise);
    return (int)(axis < 0 ? axis + rank : axis);
}
