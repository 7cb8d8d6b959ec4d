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

/* The largest magnitude along the last axis, which stays as one. */
static struct value *largest(struct builder *b, struct value *x)
{
    struct value *size = ir_op1(b, OP_Abs, x);
    if (!size)
        return NULL;
    struct node *top =
        ir_new(b, OP_ReduceMax, 2, (struct value *[]){size, ir_const_i64(b, (const int64_t[]){-1}, 1)}, 1);
    ir_set_int(top, "keepdims", 1);
    return ir_infer(top) == NPUC_OK ? &top->out[0] : NULL;
}

/* That, by the largest code; never 0, so that rows of zeros have a scale. */
static struct value *row_scales(struct builder *b, struct value *x, double most)
{
    struct value *top = largest(b, x);
    const double tiny = x->type->dtype == DT_F16 ? fmax(6.2e-5, 6.2e-8 * most) : (double)FLT_MIN * most;
    struct value *v = top ? ir_op2(b, OP_Max, top, ir_scalar_like(b, x, tiny)) : NULL;
    return v ? ir_op2(b, OP_Div, v, ir_scalar_like(b, x, most)) : NULL;
}

/* Powers of two. By OCP MX 2^(floor(log2(largest)) - e), 2^e the binade of the largest code; with `ceil` the least one
 * under which no element exceeds that code. */
static struct value *power_scales(struct builder *b, struct value *x, const struct quant_operand *o)
{
    struct value *top = largest(b, x);
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
        v = o->scales == DT_F8E8M0 ? power_scales(b, v, o) : row_scales(b, v, o->most);
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
    return o->per == QUANT_PER_TOKEN ? row_scales(b, x, o->most) : ir_scalar_like(b, x, o->cast ? 1 : o->scale);
}

struct value *recipe_code_input(struct builder *b, struct value *x, const struct quant_operand *o, int64_t k)
{
    const bool is_fixed = o->per == QUANT_PER_TENSOR;
    struct value *s = input_scales(b, x, o, k);
    struct value *z = s && is_fixed && dtype_is_integer(o->codes) ? code_scalar(b, o->codes, o->zero) : NULL;
    if (!s)
        return NULL;
    struct value *const in[3] = {x, s, z};
    struct node *q = ir_new(b, OP_QuantizeLinear, z ? 3 : 2, in, 1);
    const int64_t axis = x->type->rank - 1, block = is_fixed ? 0 : o->per == QUANT_PER_TOKEN ? k : o->group;
    ir_set_int(q, "axis", axis);
    ir_set_int(q, "block_size", block);
    if (!z)
        ir_set_int(q, "output_dtype", dtype_table[o->codes].onnx);
    if (ir_infer(q) != NPUC_OK)
        return NULL;
    return recipe_dequantize(b, (struct value *const[3]){&q->out[0], s, z}, x->type->dtype, axis, block);
}
