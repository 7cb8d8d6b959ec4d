/* QuantizeLinear to codes of 8 bits or integers of 16, and DequantizeLinear of them, as the steps of their kernels,
 * which join the kernel of what is around them.
 *
 *   %q = QuantizeLinear %x, %s, %z : i8[m,n]                     %x: f32[m,n]; %s, %z: one, [n] or a row's [m,1]
 * becomes
 *   %q = Cast (Clip (Add (Round (Div %x, %s)), Cast %z), -128, 127)
 * for codes that are floats
 *   %q = Cast (Div %x, %s)
 *
 *   %y = DequantizeLinear %q, %s, %z : f32[m,n]
 * becomes
 *   %y = Mul (Sub (Cast %q), Cast %z), %s
 *
 * Requirements: (1) floats of 16 bits are widened first, f32 divides, the quotient is rounded to even before the zero
 * point is added, what is dequantised is narrowed last: the bits are those of kernels/op_quant.c; (2) one scale, one
 * per place on an axis, or one per row where a block is the whole last axis; (3) something beside the node can be in a
 * kernel with it: what makes x or the scale, or a user of the result, is elementwise, reduces or normalises; for what
 * is quantised also a product that makes x; (4) runs after precisions are chosen, which would narrow the division; (5)
 * it makes neither operator, so it terminates. Left alone: constants, other element types, smaller blocks, another
 * precision, and operators on their own, which have a generator. */
#include <math.h>

#include "passes/pass.h"

static bool is_float(const struct value *v)
{
    return v && v->type->kind == TYPE_TENSOR &&
           (v->type->dtype == DT_F32 || v->type->dtype == DT_F16 || v->type->dtype == DT_BF16);
}

static bool is_scale(const struct value *v)
{
    return is_float(v) || (v && v->type->kind == TYPE_TENSOR && v->type->dtype == DT_F8E8M0);
}

static bool is_code(const struct value *v)
{
    const enum dtype t = v && v->type->kind == TYPE_TENSOR ? v->type->dtype : DT_NONE;
    return t == DT_I8 || t == DT_U8 || t == DT_I16 || t == DT_U16 ||
           (dtype_is_float(t) && dtype_table[t].bits == 8 && t != DT_F8E8M0);
}

static bool is_dense(const struct value *v)
{
    return v->type->rank >= 0 && v->type->layout.kind == LAYOUT_ND;
}

/* ---- which */

static bool is_row_operator(const struct node *n)
{
    const enum op_class c = n ? op_table[n->op]->cls : CLS_CONTROL;
    return c == CLS_ELEMENTWISE || c == CLS_REDUCE || c == CLS_NORM;
}

static bool shares_kernel(const struct node *n)
{
    const struct node *maker = node_in(n, 0)->def, *scale = node_in(n, 1)->def;
    if (is_row_operator(maker) || is_row_operator(scale) ||
        (n->op == OP_QuantizeLinear && maker && op_table[maker->op]->cls == CLS_MATMUL))
        return true;
    for_each_use (u, &n->out[0])
        if (is_row_operator(u->user))
            return true;
    return false;
}

/* Is there one scale per row, in a tensor of x's rank? */
static bool is_per_row(const struct expr_pool *p, const struct type *x, const struct type *s, int64_t block)
{
    int64_t width, scales;
    for (int i = 0; i < x->rank - 1; i++)
        if (s->rank != x->rank || s->dims[i] != x->dims[i])
            return false;
    return s->rank == x->rank && x->rank >= 1 && expr_is_const(p, x->dims[x->rank - 1], &width) && width == block &&
           expr_is_const(p, s->dims[x->rank - 1], &scales) && scales == 1;
}

/* The axis of x that scales lie along; -1: they broadcast as they are, -2: a form that is left alone. */
static int axis_of(const struct ir_ctx *cx, const struct node *n)
{
    const struct type *x = node_in(n, 0)->type, *s = node_in(n, 1)->type;
    const int64_t block = node_attr_int(n, "block_size", 0);
    int64_t axis = node_attr_int(n, "axis", 1), one;
    if (s->rank == 0 || (s->rank == 1 && x->rank >= 1 && expr_is_const(&cx->exprs, s->dims[0], &one) && one == 1))
        return -1;
    axis = axis < 0 ? axis + x->rank : axis;
    if (axis < 0 || axis >= x->rank)
        return -2;
    if (block > 0)
        return axis == x->rank - 1 && is_per_row(&cx->exprs, x, s, block) ? -1 : -2;
    return s->rank == 1 && s->dims[0] == x->dims[axis] ? (int)axis : -2;
}

static bool takes(const struct ir_ctx *cx, const struct node *n)
{
    const bool down = n->op == OP_QuantizeLinear;
    const struct value *x = node_in(n, 0), *s = node_in(n, 1), *z = node_in(n, 2);
    const int64_t precision = node_attr_int(n, "precision", 0);
    if (n->n_out != 1 || !is_scale(s) || !(down ? is_float(x) && is_code(&n->out[0]) : is_code(x)) ||
        (!down && !is_float(&n->out[0])) || (precision && dtype_from_onnx(precision) != DT_F32))
        return false;
    if (!is_dense(x) || !is_dense(s) || !is_dense(&n->out[0]) || value_const(x) || (z && !is_dense(z)) ||
        (z && !type_same_dims(z->type, s->type)))
        return false;
    return axis_of(cx, n) >= -1 && shares_kernel(n);
}

/* ---- steps */

static struct value *two(struct builder *b, enum op op, struct value *x, struct value *y)
{
    return x && y ? ir_op2(b, op, x, y) : NULL;
}

/* Operand i in f32, in a shape that broadcasts to x. */
static struct value *operand(struct builder *b, const struct node *n, int i)
{
    const int rank = node_in(n, 0)->type->rank, axis = axis_of(b->cx, n);
    struct value *v = ir_cast(b, node_in(n, i), DT_F32);
    expr dims[IR_MAX_RANK];
    if (!v || axis < 0 || axis == rank - 1)
        return v;
    dims[0] = v->type->dims[0];
    for (int d = 1; d < rank - axis; d++)
        dims[d] = expr_const(&b->cx->exprs, 1);
    return ir_reshape(b, v, rank - axis, dims);
}

/* Is there a zero point other than a constant one of 0? */
static bool has_zero(const struct node *n)
{
    const struct value *z = node_in(n, 2);
    double v;
    return z && !(z->type->rank == 0 && value_const_f64(z, 0, &v) && v == 0);
}

static struct value *narrowed(struct builder *b, const struct node *n, struct value *v)
{
    struct node *c = ir_new(b, OP_Cast, 1, &v, 1);
    ir_set_int(c, "to", dtype_table[n->out[0].type->dtype].onnx);
    ir_set_int(c, "saturate", node_attr_int(n, "saturate", 1));
    return ir_infer(c) == NPUC_OK ? &c->out[0] : NULL;
}

static struct value *quantised(struct builder *b, struct node *n)
{
    const enum dtype t = n->out[0].type->dtype;
    struct value *x = ir_cast(b, node_in(n, 0), DT_F32);
    struct value *v = two(b, OP_Div, x, operand(b, n, 1));
    if (v && dtype_is_float(t))
        return narrowed(b, n, v);
    v = v ? ir_op1(b, OP_Round, v) : NULL;
    if (has_zero(n))
        v = two(b, OP_Add, v, operand(b, n, 2));
    if (!v)
        return NULL;
    const bool is_signed = dtype_table[t].cls == DTC_INT;
    const double steps = ldexp(1, dtype_table[t].bits), least = is_signed ? -steps / 2 : 0;
    struct value *lo = ir_scalar_like(b, v, least), *hi = ir_scalar_like(b, v, least + steps - 1);
    v = lo && hi ? ir_op3(b, OP_Clip, v, lo, hi) : NULL;
    return v ? ir_cast(b, v, t) : NULL;
}

static struct value *dequantised(struct builder *b, struct node *n)
{
    struct value *v = ir_cast(b, node_in(n, 0), DT_F32);
    if (has_zero(n))
        v = two(b, OP_Sub, v, operand(b, n, 2));
    v = two(b, OP_Mul, v, operand(b, n, 1));
    return v ? ir_cast(b, v, n->out[0].type->dtype) : NULL;
}

enum npuc_status lower_quant(struct pass_ctx *px, struct graph *g)
{
    for_each_node_safe(n, g)
    {
        if ((n->op != OP_QuantizeLinear && n->op != OP_DequantizeLinear) || !takes(px->cx, n) ||
            !ir_may_rewrite(px->cx))
            continue;
        struct builder b = ir_at(n);
        struct value *y = n->op == OP_QuantizeLinear ? quantised(&b, n) : dequantised(&b, n);
        if (!y)
            return pass_failure(px);
        if (y->type != n->out[0].type)
            continue;
        ir_replace_all(&n->out[0], y);
        pass_count(px, STAT_lower_quant_lowered, 1);
    }
    return NPUC_OK;
}
