/* --precision: products with constant operands and embedding tables in another float type.
 *
 *   %y = MatMul %x, %w : f32[b,s,64]                       (%w constant)
 * becomes, for fp16,
 *   %y = Cast (MatMul (Cast %x : f16), (Cast %w : f16) : f16) : f32
 *
 * Sums are kept in f32 by the matrix unit whatever the operands' type; norms, softmax and the residual stream keep the
 * model's type, which is what holds accuracy. Casts of activations end up in the vector region before, casts of
 * constants in the plan's weights at compile time. Convolutions likewise, with their bias. The bias of a Gemm is added
 * behind, in the model's type. Of a block-quantised weight the scales are converted; its sums stay in f32 where the
 * cast would be a kernel of its own (other products: fuse_matmul), unless strict. Requirements: (1) the interface
 * keeps its types; (2) only float types of the model that differ from the wanted one are touched; (3) a product made
 * here has operands of the wanted type, so it terminates. Left alone: products of activations (attention), whose
 * operands live in the caches of the interface; everything where the type is meant for the whole network
 * (whole_precision). */
#include "passes/match.h"

#include <string.h>

static const struct precision_mode modes[] = {
    {"keep", DT_NONE, DT_NONE, false},          {"fp32", DT_F32, DT_NONE, false},
    {"fp16", DT_F16, DT_NONE, false},           {"bf16", DT_BF16, DT_NONE, false},
    {"int8-mixed-fp16", DT_F16, DT_I8, true},   {"int8-mixed-fp32", DT_F32, DT_I8, true},
    {"int16-mixed-fp16", DT_F16, DT_I16, true}, {"int16-mixed-fp32", DT_F32, DT_I16, true},
};

const struct precision_mode *precision_find(const char *name)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(modes); i++)
        if (strcmp(modes[i].name, name) == 0)
            return &modes[i];
    return NULL;
}

bool precision_is_whole(const struct pass_ctx *px)
{
    return px->options.whole || (px->target && px->target->whole_precision);
}

static bool wants(const struct pass_ctx *px, const struct value *v)
{
    enum dtype t = v->type->dtype;
    return v->type->kind == TYPE_TENSOR && t != px->options.precision && (t == DT_F32 || t == DT_F16 || t == DT_BF16);
}

/* Operand numbers of what is converted, -1: none. */
struct operands {
    enum op op;
    int weight, activation, bias;
    int zeros; /* or the bias of a convolution: of the weight's type, unless packed codes */
};
static const struct operands converted[] = {
    {OP_MatMul, 1, 0, -1, -1},       {OP_FusedMatMul, 1, 0, -1, -1},   {OP_Gemm, 1, 0, 2, -1},
    {OP_MatMulNBits, 2, 0, 5, 3},    {OP_Gather, 0, -1, -1, -1},       {OP_Conv, 1, 0, -1, 2},
    {OP_ConvTranspose, 1, 0, -1, 2}, {OP_GroupedMatMul, 2, 0, -1, -1}, {OP_GroupedMatMulNBits, 3, 0, -1, 4},
};

/* The row of a node with a constant weight, or NULL. */
static const struct operands *operands_of(const struct node *n)
{
    for (int i = 0; i < (int)NPUC_ARRAY_LEN(converted); i++) {
        const struct operands *o = &converted[i];
        if (o->op != n->op)
            continue;
        const struct value *w = node_in(n, o->weight), *zeros = o->zeros >= 0 ? node_in(n, o->zeros) : NULL;
        const bool scaled = n->op == OP_Gemm && node_in(n, 2) && node_attr_float(n, "beta", 1.0f) != 1.0f;
        return w && value_const(w) && !scaled && (!zeros || value_const(zeros)) ? o : NULL;
    }
    return NULL;
}

static bool is_embedding(const struct node *n)
{
    return n->op != OP_Gather || n->in[0].value->type->rank == 2;
}

/* Uses of the node's result see it cast back to the model's type, and with the bias that was taken off. */
static enum npuc_status widen(struct node *n, enum dtype model, struct value *bias)
{
    struct value *y = &n->out[0];
    struct builder b = ir_at(n->next);
    b.loc = n->loc;
    struct node *back = ir_new(&b, OP_Cast, 1, (struct value *[]){NULL}, 1), *last = back;
    ir_set_int(back, "to", dtype_table[model].onnx);
    if (bias)
        last = ir_new(&b, OP_Add, 2, (struct value *[]){&back->out[0], bias}, 1);
    last->out[0].type = back->out[0].type = type_with_dtype(n->graph->module->cx, y->type, model);
    ir_replace_all(y, &last->out[0]);
    ir_set_input(back, 0, y);
    const enum npuc_status s = ir_infer(back);
    return s == NPUC_OK && bias ? ir_infer(last) : s;
}

static enum npuc_status convert(struct pass_ctx *px, struct node *n, const struct operands *o)
{
    struct builder b = ir_at(n);
    const enum dtype model = n->out[0].type->dtype, wanted = px->options.precision;
    struct value *bias = o->bias >= 0 ? node_in(n, o->bias) : NULL;
    bool wide = n->op == OP_MatMulNBits && model == DT_F32 && !bias && !px->options.strict && match_apart(&n->out[0]);
    if (bias)
        ir_set_input(n, o->bias, NULL);
    if (wants(px, node_in(n, o->weight)))
        ir_set_input(n, o->weight, ir_cast(&b, node_in(n, o->weight), wanted));
    else if (model == DT_F32)
        wide = true; /* scales of a byte: sums may leave f16's range */
    if (wide)
        ir_set_int(n, "output_dtype", dtype_table[DT_F32].onnx);
    for (int i = o->weight + 1; n->op == OP_GroupedMatMul && i < n->n_in; i++) /* matrices alike, then places */
        if (wants(px, node_in(n, i)))
            ir_set_input(n, i, ir_cast(&b, node_in(n, i), wanted));
    if (o->zeros >= 0 && node_in(n, o->zeros) && wants(px, node_in(n, o->zeros)))
        ir_set_input(n, o->zeros, ir_cast(&b, node_in(n, o->zeros), wanted));
    if (o->activation >= 0)
        ir_set_input(n, o->activation, ir_cast(&b, node_in(n, o->activation), wanted));
    const enum npuc_status s = ir_infer(n);
    return s == NPUC_OK && (bias || n->out[0].type->dtype != model) ? widen(n, model, bias) : s;
}

enum npuc_status precision(struct pass_ctx *px, struct graph *g)
{
    if (px->options.precision == DT_NONE || precision_is_whole(px)) /* the pass whole_precision takes all */
        return NPUC_OK;
    for_each_node_safe(n, g)
    {
        const struct operands *o = operands_of(n);
        if (!o || !is_embedding(n) || !wants(px, node_in(n, o->activation >= 0 ? o->activation : o->weight)) ||
            node_attr_int(n, "output_dtype", 0) || !ir_may_rewrite(px->cx))
            continue;
        const enum npuc_status s = convert(px, n, o);
        if (s != NPUC_OK)
            return s;
        pass_count(px, STAT_precision_converted, 1);
    }
    return NPUC_OK;
}
