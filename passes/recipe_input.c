#include "passes/recipe_input.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "kernels/tensor.h"

struct value *recipe_dequantize(struct builder *b, struct value *const in[3], enum dtype t, int64_t axis, int64_t block)
{
    struct node *n = ir_new(b, OP_DequantizeLinear, in[2] ? 3 : 2, in, 1);
    if (in[1]->type->dtype != t)
        ir_set_int(n, "output_dtype", dtype_table[t].onnx);
    ir_set_int(n, "axis", axis);
    ir_set_int(n, "block_size", block);
    return ir_infer(n) == NPUC_OK ? &n->out[0] : NULL;
}

/* The largest magnitude along the last axis, which stays as one; or of all elements, as a scalar. */
static struct value *largest(struct builder *b, struct value *x, bool all)
{
    struct value *size = ir_op1(b, OP_Abs, x);
    if (!size)
        return NULL;
    struct value *const in[2] = {size, all ? NULL : ir_const_i64(b, (const int64_t[]){-1}, 1)};
    struct node *top = ir_new(b, OP_ReduceMax, all ? 1 : 2, in, 1);
    ir_set_int(top, "keepdims", !all);
    return ir_infer(top) == NPUC_OK ? &top->out[0] : NULL;
}

/* That, by the largest code; never 0, so that rows of zeros have a scale. */
static struct value *row_scales(struct builder *b, struct value *x, double most, bool all)
{
    struct value *top = largest(b, x, all);
    const double tiny = x->type->dtype == DT_F16 ? fmax(6.2e-5, 6.2e-8 * most) : (double)FLT_MIN * most;
    struct value *v = top ? ir_op2(b, OP_Max, top, ir_scalar_like(b, x, tiny)) : NULL;
    return v ? ir_op2(b, OP_Div, v, ir_scalar_like(b, x, most)) : NULL;
}

/* Powers of two. By OCP MX 2^(floor(log2(largest)) - e), 2^e the binade of the largest code; with `ceil` the least one
 * under which no element exceeds that code. */
static struct value *power_scales(struct builder *b, struct value *x, const struct quant_operand *o)
{
    struct value *top = largest(b, x, false);
    int e;
    top = top ? ir_cast(b, top, DT_F32) : NULL;
    (void)frexp(o->most, &e);
    struct value *by = ir_scalar_f32(b, o->ceil ? (float)o->most : ldexpf(1, e - 1));
    struct value *v = top && by ? ir_op2(b, OP_Div, top, by) : NULL;
    if (!v)
        return NULL;
    struct node *s = ir_new(b, OP_Cast, 1, &v, 1);
    ir_set_int(s, "to", dtype_table[DT_F8E8M0].onnx);
    ir_set_str(s, "round_mode", o->ceil ? "up" : "down");
    return ir_infer(s) == NPUC_OK ? &s->out[0] : NULL;
}

/* A scale per group of the last axis, of length k: [.., k / group]. */
static struct value *group_scales(struct builder *b, struct value *x, const struct quant_operand *o, int64_t k)
{
    expr dims[IR_MAX_RANK];
    const int rank = x->type->rank;
    memcpy(dims, x->type->dims, (size_t)rank * sizeof *dims);
    dims[rank - 1] = expr_const(&b->cx->exprs, k / o->group);
    dims[rank] = expr_const(&b->cx->exprs, o->group);
    struct value *v = ir_reshape(b, x, rank + 1, dims);
    if (v)
        v = o->scales == DT_F8E8M0 ? power_scales(b, v, o)
                                   : row_scales(b, v, o->most + (o->divisor == QUANT_DIVISOR_FULL ? 1 : 0), false);
    return v ? ir_reshape(b, v, rank, dims) : NULL;
}

static struct value *code_scalar(struct builder *b, enum dtype t, int64_t v)
{
    int64_t cell = 0;
    struct k_tensor to = {.dtype = t, .data = &cell};
    k_set_i64(&to, 0, v);
    return ir_const(b, t, 0, NULL, &cell, dtype_size(t));
}

static struct value *input_scales(struct builder *b, struct value *x, const struct quant_operand *o, int64_t k)
{
    if (o->per == QUANT_PER_GROUP)
        return group_scales(b, x, o, k);
    const double most = o->most + (o->divisor == QUANT_DIVISOR_FULL ? 1 : 0);
    return o->per == QUANT_PER_TOKEN ? row_scales(b, x, most, k == 0) : ir_scalar_like(b, x, o->cast ? 1 : o->scale);
}

/* Half away from zero, exactly: floor(|v|) + (|v| - floor(|v|) >= 0.5), with v's sign. */
static struct value *round_away(struct builder *b, struct value *v)
{
    struct value *size = ir_op1(b, OP_Abs, v), *floor = size ? ir_op1(b, OP_Floor, size) : NULL;
    struct value *rest = floor ? ir_op2(b, OP_Sub, size, floor) : NULL;
    struct value *up = rest ? ir_op2(b, OP_GreaterOrEqual, rest, ir_scalar_like(b, rest, 0.5)) : NULL;
    struct value *one = up ? ir_cast(b, up, v->type->dtype) : NULL, *sign = one ? ir_op1(b, OP_Sign, v) : NULL;
    struct value *whole = sign ? ir_op2(b, OP_Add, floor, one) : NULL;
    return whole ? ir_op2(b, OP_Mul, whole, sign) : NULL;
}

/* Codes of x by a rule that QuantizeLinear does not have, as steps; s broadcasts to x. */
static struct value *code_steps(struct builder *b, struct value *x, struct value *s, const struct quant_operand *o)
{
    const int bits = dtype_table[o->codes].bits;
    const double least = dtype_table[o->codes].cls == DTC_UINT ? 0 : -ldexp(1, bits - 1), most = least + ldexp(1, bits);
    struct value *v = ir_op2(b, OP_Div, ir_cast(b, x, DT_F32), ir_cast(b, s, DT_F32));
    v = !v ? NULL : o->away ? round_away(b, v) : ir_op1(b, OP_Round, v);
    v = v && o->zero ? ir_op2(b, OP_Add, v, ir_scalar_like(b, v, (double)o->zero)) : v;
    v = v ? ir_op3(b, OP_Clip, v, ir_scalar_like(b, v, least + (o->narrow ? 1 : 0)), ir_scalar_like(b, v, most - 1))
          : NULL;
    return v ? ir_cast(b, v, o->codes) : NULL;
}

/* One scale of all elements at run time, as ONNX has it: of f32, into u8. */
static struct value *code_all(struct builder *b, struct value *x)
{
    struct value *wide = ir_cast(b, x, DT_F32);
    struct node *q = wide ? ir_new(b, OP_DynamicQuantizeLinear, 1, &wide, 3) : NULL;
    if (!q || ir_infer(q) != NPUC_OK)
        return NULL;
    struct value *const in[3] = {&q->out[0], &q->out[1], &q->out[2]};
    struct value *v = recipe_dequantize(b, in, DT_F32, 0, 0);
    return v ? ir_cast(b, v, x->type->dtype) : NULL;
}

static struct value *quantize(struct builder *b, struct value *const in[3], enum dtype codes, int64_t block)
{
    struct node *q = ir_new(b, OP_QuantizeLinear, in[2] ? 3 : 2, in, 1);
    ir_set_int(q, "axis", in[0]->type->rank - 1);
    ir_set_int(q, "block_size", block);
    if (!in[2])
        ir_set_int(q, "output_dtype", dtype_table[codes].onnx);
    return ir_infer(q) == NPUC_OK ? &q->out[0] : NULL;
}

struct value *recipe_code_input(struct builder *b, struct value *x, const struct quant_operand *o, int64_t k)
{
    const bool is_fixed = o->per == QUANT_PER_TENSOR;
    if (o->dynamic && is_fixed)
        return code_all(b, x);
    struct value *s = input_scales(b, x, o, k);
    struct value *z = s && is_fixed && dtype_is_integer(o->codes) ? code_scalar(b, o->codes, o->zero) : NULL;
    if (!s)
        return NULL;
    struct value *const in[3] = {x, s, z};
    const int64_t block = is_fixed ? 0 : o->per == QUANT_PER_TOKEN ? k : o->group; /* k 0: one scale */
    const bool steps = (o->away || o->narrow) && o->per != QUANT_PER_GROUP;
    struct value *q = steps ? code_steps(b, x, s, o) : quantize(b, in, o->codes, block);
    return q ? recipe_dequantize(b, (struct value *const[3]){q, s, z}, x->type->dtype, x->type->rank - 1, block) : NULL;
}
