/* Constants and the common operators in one call each. */
#include <stdio.h>
#include <string.h>

#include "ir/build.h"
#include "kernels/tensor.h"

static struct value *op_n(struct builder *b, enum op op, int n_in, struct value *const *in)
{
    struct node *n = ir_new(b, op, n_in, in, 1);
    return ir_infer(n) == NPUC_OK ? &n->out[0] : NULL;
}

struct value *ir_op1(struct builder *b, enum op op, struct value *a)
{
    return op_n(b, op, 1, (struct value *[]){a});
}

struct value *ir_op2(struct builder *b, enum op op, struct value *x, struct value *y)
{
    return op_n(b, op, 2, (struct value *[]){x, y});
}

struct value *ir_op3(struct builder *b, enum op op, struct value *x, struct value *y, struct value *z)
{
    return op_n(b, op, 3, (struct value *[]){x, y, z});
}

struct value *ir_const_blob(struct builder *b, const struct type *t, const struct blob *blob)
{
    struct node *n = ir_new(b, OP_Constant, 0, NULL, 1);
    ir_set_attr(n, "value", (struct attr){.kind = ATTR_TENSOR, .v.t = {t, blob}});
    n->out[0].type = t;
    n->out[0].name = blob->origin;
    NPUC_ASSERT(ir_infer(n) == NPUC_OK);
    return &n->out[0];
}

struct value *ir_const(struct builder *b, enum dtype t, int rank, const int64_t *dims, const void *data, int64_t size)
{
    struct ir_ctx *cx = b->cx;
    struct arena *a = &b->graph->module->arena;
    expr e[IR_MAX_RANK];
    NPUC_ASSERT(rank >= 0 && rank <= IR_MAX_RANK);
    for (int i = 0; i < rank; i++)
        e[i] = expr_const(&cx->exprs, dims[i]);
    struct blob *blob = ARENA_NEW(a, struct blob);
    blob->data = arena_copy(a, data, size);
    blob->size = size;
    return ir_const_blob(b, type_tensor(cx, t, rank, e), blob);
}

struct value *ir_const_i64(struct builder *b, const int64_t *v, int64_t n)
{
    return ir_const(b, DT_I64, 1, &n, v, n * (int64_t)sizeof *v);
}

struct value *ir_scalar_f32(struct builder *b, float v)
{
    return ir_const(b, DT_F32, 0, NULL, &v, (int64_t)sizeof v);
}

struct value *ir_scalar_like(struct builder *b, const struct value *x, double v)
{
    union {
        double align;
        uint8_t bytes[16];
    } cell = {0};
    int64_t size = 0;
    const enum dtype_class cls = dtype_table[x->type->dtype].cls;
    if (cls == DTC_TEXT || cls == DTC_COMPLEX || cls == DTC_NONE) {
        const struct diag_loc loc = {.file = b->cx->file, .index = -1};
        (void)diag_error(
            b->cx->diag, &loc, D_TYPE_MISMATCH,
            arena_printf(&b->cx->arena, "a tensor of numbers is needed, found %s", type_text(b->cx, x->type)));
        return NULL;
    }
    NPUC_ASSERT(dtype_bytes(x->type->dtype, 1, &size) && size <= (int64_t)sizeof cell);
    struct k_tensor t = {.dtype = x->type->dtype, .data = cell.bytes, .size = size};
    k_set_f64(&t, 0, v);
    return ir_const(b, x->type->dtype, 0, NULL, cell.bytes, size);
}

/* All of the expressions as numbers in the module's arena, or NULL. */
static const int64_t *all_const(struct builder *b, const expr *e, int64_t n)
{
    int64_t *v = ARENA_ARRAY(&b->graph->module->arena, int64_t, n ? n : 1);
    for (int64_t i = 0; i < n; i++)
        if (!expr_is_const(&b->cx->exprs, e[i], &v[i]))
            return NULL;
    return v;
}

struct value *ir_sizes(struct builder *b, const expr *e, int64_t n, bool scalar)
{
    NPUC_ASSERT(n >= 0 && (!scalar || n == 1));
    const int64_t *v = all_const(b, e, n);
    if (v)
        return ir_const(b, DT_I64, scalar ? 0 : 1, &n, v, n * (int64_t)sizeof *v);
    sym *text = ARENA_ARRAY(&b->cx->arena, sym, n ? n : 1);
    const struct arena_mark mark = arena_mark(&b->cx->scratch);
    for (int64_t i = 0; i < n; i++)
        text[i] = str_internz(&b->cx->strings, expr_text(&b->cx->exprs, e[i], &b->cx->scratch));
    arena_release(&b->cx->scratch, mark);
    struct node *node = ir_new(b, OP_SizeOf, 0, NULL, 1);
    ir_set_attr(node, "exprs", (struct attr){.kind = ATTR_STRINGS, .len = n, .v.strings = text});
    ir_set_int(node, "scalar", scalar);
    NPUC_ASSERT(ir_infer(node) == NPUC_OK);
    return &node->out[0];
}

struct value *ir_reshape(struct builder *b, struct value *x, int rank, const expr *dims)
{
    return ir_op2(b, OP_Reshape, x, ir_sizes(b, dims, rank, rank < 0));
}

struct value *ir_transpose(struct builder *b, struct value *x, const int64_t *perm)
{
    struct node *n = ir_new(b, OP_Transpose, 1, &x, 1);
    ir_set_ints(n, "perm", perm, x->type->rank);
    return ir_infer(n) == NPUC_OK ? &n->out[0] : NULL;
}

struct value *ir_cast(struct builder *b, struct value *x, enum dtype t)
{
    if (x->type->dtype == t)
        return x;
    struct node *n = ir_new(b, OP_Cast, 1, &x, 1);
    ir_set_int(n, "to", dtype_table[t].onnx);
    return ir_infer(n) == NPUC_OK ? &n->out[0] : NULL;
}
