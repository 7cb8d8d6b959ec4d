/* QuantizeLinear, DequantizeLinear (one scale, per axis, blocked) and DynamicQuantizeLinear as vector regions. Types of
 * less than a byte pass through a temporary of bytes. */
#include "backend/vector/gens.h"
#include "backend/vector/packed.h"
#include "backend/vector/views.h"

/* The operand as an iteration space; a quantised axis in blocks becomes two dimensions. */
struct qspace {
    int rank;
    expr dims[IR_MAX_RANK];
    int axis;      /* of the operand; -1: one scale */
    int64_t block; /* 0: one scale per place on the axis */
};

static bool is_blocked(const struct node *n)
{
    return node_attr_int(n, "block_size", 0) > 0;
}

static bool quant_of(struct ir_ctx *cx, const struct node *n, struct qspace *q)
{
    struct expr_pool *x = &cx->exprs;
    const struct type *t = node_in(n, 0)->type, *s = node_in(n, 1)->type;
    const int64_t block = node_attr_int(n, "block_size", 0), scales = type_const_count(cx, s);
    int64_t dim;
    *q = (struct qspace){.rank = t->rank, .axis = -1};
    for (int i = 0; i < t->rank; i++)
        q->dims[i] = t->dims[i];
    if (scales == 1 || s->rank == 0)
        return true;
    q->axis = view_axis(n, "axis", 1, t->rank);
    if (block <= 0)
        return scales >= 0 || s->rank == 1;
    if (!expr_is_const(x, t->dims[q->axis], &dim) || dim % block != 0 || t->rank + 1 > IR_MAX_RANK)
        return false;
    q->block = block;
    for (int i = t->rank; i > q->axis; i--)
        q->dims[i] = q->dims[i - 1];
    q->dims[q->axis] = expr_const(x, dim / block);
    q->dims[q->axis + 1] = expr_const(x, block);
    q->rank++;
    return true;
}

static struct vr_view dense_view(struct emit *e, const struct qspace *q, int32_t tensor, enum dtype t)
{
    return view_dense(e, tensor, t, q->rank, q->dims);
}

/* A scale or zero point of every element. */
static struct vr_view scale_view(struct emit *e, const struct qspace *q, int32_t tensor, const struct type *t)
{
    struct expr_pool *x = emit_pool(e);
    const expr zero = expr_const(x, 0);
    struct vr_view w = {.tensor = tensor, .dtype = t->dtype, .offset = zero};
    for (int i = 0; i < IR_MAX_RANK; i++)
        w.stride[i] = zero;
    if (q->axis >= 0 && q->block == 0)
        w.stride[q->axis] = expr_const(x, 1);
    for (int i = 0; q->axis >= 0 && q->block > 0 && i < q->rank; i++)
        if (i != q->axis + 1)
            w.stride[i] = view_product(x, t->dims, i < q->axis + 1 ? i + 1 : i, t->rank);
    return w;
}

/* The tensor of a value, unpacked into bytes or floats where it is packed. */
static enum npuc_status unpacked(struct emit *e, struct value *v, int32_t *tensor, enum dtype *t)
{
    *tensor = emit_tensor(e, v);
    *t = v->type->dtype;
    if (!packed_type(*t))
        return NPUC_OK;
    const enum dtype_class c = dtype_table[*t].cls;
    const int32_t packed = *tensor;
    *t = c == DTC_INT ? DT_I8 : c == DTC_UINT ? DT_U8 : DT_F32;
    *tensor = emit_temp(e, "unpacked", *t, v->type->rank, v->type->dims);
    const struct packed_cast p = {.in = packed,
                                  .out = *tensor,
                                  .from = v->type->dtype,
                                  .to = *t,
                                  .saturate = true,
                                  .n = view_product(emit_pool(e), v->type->dims, 0, v->type->rank)};
    return emit_packed_cast(e, &p, "unpack");
}

/* Operand i as a value of the region; `each`: it has an element per element, else it is like the scales. */
static enum npuc_status operand(struct vr *r, const struct qspace *q, struct value *v, bool each, int *out)
{
    struct emit *e = r->e;
    int32_t tensor;
    enum dtype t;
    struct type like = *v->type;
    const enum npuc_status s = unpacked(e, v, &tensor, &t);
    like.dtype = t;
    const struct vr_view w = each ? dense_view(e, q, tensor, t) : scale_view(e, q, tensor, &like);
    *out = vr_input(r, &w);
    return s;
}

/* The region's result into the node's, packed where its type is. */
static enum npuc_status finish(struct vr *r, const struct qspace *q, struct node *n, int v, bool saturate)
{
    struct emit *e = r->e;
    const struct type *t = n->out[0].type;
    const char *label = op_table[n->op]->name;
    int32_t tensor = emit_tensor(e, &n->out[0]);
    if (!packed_type(t->dtype)) {
        const struct vr_view w = dense_view(e, q, tensor, t->dtype);
        vr_output(r, vr_cast_as(r, t->dtype, v, saturate), &w);
        return vr_launch(r, "quant", label);
    }
    const enum dtype wide = r->values[v].dtype;
    const struct packed_cast p = {.in = emit_temp(e, "codes", wide, t->rank, t->dims),
                                  .out = tensor,
                                  .from = wide,
                                  .to = t->dtype,
                                  .saturate = saturate,
                                  .n = view_product(emit_pool(e), t->dims, 0, t->rank)};
    const struct vr_view w = dense_view(e, q, p.in, wide);
    vr_output(r, v, &w);
    const enum npuc_status s = vr_launch(r, "quant", label);
    return s == NPUC_OK ? emit_packed_cast(e, &p, label) : s;
}

/* The region of a node and its operands: x, scale and zero point; zero is -1 where there is none. */
static enum npuc_status operands(struct vr *r, struct qspace *q, struct emit *e, struct node *n, int *x, int *scale,
                                 int *zero)
{
    if (!quant_of(e->cx, n, q))
        return node_error(e->cx, n, D_UNSUPPORTED, "the quantised axis is no whole number of blocks");
    vr_init(r, e, q->rank, q->dims);
    *zero = -1;
    enum npuc_status s = operand(r, q, node_in(n, 0), true, x);
    if (s == NPUC_OK)
        s = operand(r, q, node_in(n, 1), false, scale);
    if (s == NPUC_OK && node_in(n, 2))
        s = operand(r, q, node_in(n, 2), false, zero);
    return s;
}

static enum npuc_status emit_dequantize(struct emit *e, struct node *n)
{
    struct qspace q;
    struct vr *r = ARENA_NEW(e->arena, struct vr);
    int x, scale, zero;
    const enum npuc_status s = operands(r, &q, e, n, &x, &scale, &zero);
    if (s != NPUC_OK)
        return s;
    x = vr_cast(r, DT_F32, x);
    if (zero >= 0)
        x = vr_vec2(r, K_FN_Sub, x, vr_cast(r, DT_F32, zero));
    return finish(r, &q, n, vr_vec2(r, K_FN_Mul, x, vr_cast(r, DT_F32, scale)), true);
}

/* v brought into the range of the integer type t. */
static int clamped(struct vr *r, int v, enum dtype t)
{
    const int bits = dtype_table[t].bits;
    const bool is_signed = dtype_table[t].cls == DTC_INT;
    const float lo = is_signed ? -(float)(1 << (bits - 1)) : 0, hi = (float)((1 << (bits - is_signed)) - 1);
    return vr_vec(r, K_FN_Clip, DT_F32, (const int[3]){v, vr_imm(r, DT_F32, lo), vr_imm(r, DT_F32, hi)}, NULL);
}

static enum dtype work_type(const struct node *n)
{
    const int64_t precision = node_attr_int(n, "precision", 0);
    return precision ? dtype_from_onnx(precision) : DT_F32;
}

static enum npuc_status emit_quantize(struct emit *e, struct node *n)
{
    struct qspace q;
    struct vr *r = ARENA_NEW(e->arena, struct vr);
    int x, scale, zero;
    const enum npuc_status s = operands(r, &q, e, n, &x, &scale, &zero);
    if (s != NPUC_OK)
        return s;
    const enum dtype work = work_type(n), t = n->out[0].type->dtype;
    int v = vr_cast(r, DT_F32, vr_vec2(r, K_FN_Div, vr_cast(r, work, x), vr_cast(r, work, scale)));
    if (!dtype_is_float(t))
        v = vr_vec1(r, K_FN_Round, v);
    if (zero >= 0)
        v = vr_vec2(r, K_FN_Add, v, vr_cast(r, DT_F32, zero));
    if (dtype_is_float(t))
        return finish(r, &q, n, v, node_attr_int(n, "saturate", 1) != 0);
    v = clamped(r, v, t);
    if (packed_type(t))
        v = vr_cast(r, dtype_table[t].cls == DTC_INT ? DT_I8 : DT_U8, v);
    return finish(r, &q, n, v, true);
}

/* scale = (max(x, 0) - min(x, 0)) / 255, zero point = round(-min / scale); one row of all elements. */
static enum npuc_status emit_dynamic(struct emit *e, struct node *n)
{
    struct expr_pool *x = emit_pool(e);
    const struct type *t = node_in(n, 0)->type;
    struct vr *r = ARENA_NEW(e->arena, struct vr);
    const expr dims[1] = {view_product(x, t->dims, 0, t->rank)};
    const struct qspace q = {.rank = 1, .dims = {dims[0]}, .axis = -1};
    vr_init(r, e, 1, dims);
    const struct vr_view src = dense_view(e, &q, emit_tensor(e, node_in(n, 0)), t->dtype);
    const struct vr_view dst = dense_view(e, &q, emit_tensor(e, &n->out[0]), DT_U8);
    const int v = vr_cast(r, DT_F32, vr_input(r, &src)), none = vr_imm(r, DT_F32, 0);
    const int known = view_where(r, vr_vec1(r, K_FN_IsNaN, v), none, v);
    const int hi = vr_vec2(r, K_FN_Max, vr_reduce(r, K_RED_MAX, known), none);
    const int lo = vr_vec2(r, K_FN_Min, vr_reduce(r, K_RED_MIN, known), none);
    const int scale = vr_vec2(r, K_FN_Div, vr_vec2(r, K_FN_Sub, hi, lo), vr_imm(r, DT_F32, 255));
    const int flat = vr_vec2(r, K_FN_Equal, scale, none);
    const int zero =
        view_where(r, flat, none, vr_vec1(r, K_FN_Round, vr_vec2(r, K_FN_Div, vr_vec1(r, K_FN_Neg, lo), scale)));
    const int zp = clamped(r, zero, DT_U8);
    const int code =
        clamped(r, vr_vec2(r, K_FN_Add, vr_vec1(r, K_FN_Round, vr_vec2(r, K_FN_Div, v, scale)), zp), DT_U8);
    vr_output(r, vr_cast(r, DT_U8, view_where(r, flat, zp, code)), &dst);
    if (node_out(n, 1)) {
        const struct vr_view w = view_element(e, &n->out[1], expr_const(x, 0));
        vr_output(r, scale, &w);
    }
    if (node_out(n, 2)) {
        const struct vr_view w = view_element(e, &n->out[2], expr_const(x, 0));
        vr_output(r, vr_cast(r, DT_U8, zp), &w);
    }
    return vr_launch(r, "quant", "DynamicQuantizeLinear");
}

static bool dense_number(const struct value *v)
{
    return v->type->kind == TYPE_TENSOR && v->type->rank >= 0 && packed_number(v->type->dtype) &&
           v->type->layout.kind == LAYOUT_ND;
}

bool gen_quant_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    struct qspace q;
    (void)m;
    if (n->op != OP_QuantizeLinear && n->op != OP_DequantizeLinear && n->op != OP_DynamicQuantizeLinear)
        return false;
    *reason = "the vector unit quantises dense numbers, no 64-bit floats";
    for (int i = 0; i < n->n_in; i++)
        if (node_in(n, i) && !dense_number(node_in(n, i)))
            return false;
    if (!dense_number(&n->out[0]))
        return false;
    if (n->op == OP_DynamicQuantizeLinear)
        return true;
    *reason = "the vector unit does not round to powers of two or to integers of more than 16 bits";
    const enum dtype t = n->out[0].type->dtype, work = work_type(n);
    if (t == DT_F8E8M0 || (n->op == OP_QuantizeLinear && !dtype_is_float(t) && dtype_table[t].bits > 16) ||
        work == DT_F64)
        return false;
    *reason = is_blocked(n) ? "the quantised axis is no whole number of blocks known at compile time"
                            : "the number of scales is not known at compile time";
    return quant_of(cx, n, &q);
}

enum npuc_status gen_quant_emit(struct emit *e, struct node *n)
{
    if (n->op == OP_DynamicQuantizeLinear)
        return emit_dynamic(e, n);
    return n->op == OP_QuantizeLinear ? emit_quantize(e, n) : emit_dequantize(e, n);
}
