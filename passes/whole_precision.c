/* The whole network in one float type: what MagicMind calls force_float16, and the second type of its mixed modes.
 *
 *   %y = Conv %x, %w, %b : f32[..];  %z = Sigmoid %y : f32[..]
 * becomes, for fp16,
 *   %y = Conv (Cast %x), (Cast %w), (Cast %b) : f16[..];  %z = Sigmoid %y : f16[..];  Cast %z : f32[..]
 *
 * A node takes operands of the wanted type and its results are cast back; a cast back that meets a cast forth goes, so
 * that what is left stands at the interface and around nodes that stay. Those of constants are done when weights are
 * stored.
 * Requirements: (1) the interface keeps its types; (2) only operators whose float operands have one type, and only
 * where the target has a kernel for the new types; (3) a node made here has operands of the wanted type, so it
 * terminates. Left alone: operators with operands of fixed types (scales of quantisation, boxes), normalisation of
 * instances, control flow. */
#include "passes/pass.h"

enum { MAX_OPERANDS = 64 };

static bool is_model_float(enum dtype t)
{
    return t == DT_F32 || t == DT_F16 || t == DT_BF16;
}

/* A float of another type. */
static bool differs(const struct value *v, enum dtype to)
{
    return v && v->type->kind == TYPE_TENSOR && v->type->dtype != to && is_model_float(v->type->dtype);
}

static bool can_be_cast(const struct value *v)
{
    return v->type->rank >= 0 && v->type->layout.kind == LAYOUT_ND;
}

/* Operators with float operands of a type of their own, and those that keep the model's: normalisation of instances is
 * measured at the same time in every precision (docs/validation.md). */
static const enum op kept[] = {OP_Cast,
                               OP_CastLike,
                               OP_QuantizeLinear,
                               OP_DequantizeLinear,
                               OP_DynamicQuantizeLinear,
                               OP_Range,
                               OP_RoiAlign,
                               OP_MatMulNBits,
                               OP_GroupedMatMulNBits,
                               OP_GatherBlockQuantized,
                               OP_CacheAppend,
                               OP_InstanceNormalization};
/* Operators whose first operand alone has the type of the result. */
static const enum op first_only[] = {OP_Resize};

static bool is_taken(const struct node *n, int operand, enum dtype to)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(first_only); i++)
        if ((enum op)n->op == first_only[i] && operand > 0)
            return false;
    return differs(n->in[operand].value, to);
}

static bool takes(const struct node *n, enum dtype to)
{
    bool any = false;
    const enum op_class cls = op_table[n->op]->cls;
    if (n->n_in > MAX_OPERANDS || n->n_out < 1 ||
        (cls != CLS_ELEMENTWISE && cls != CLS_MATMUL && cls != CLS_CONV && cls != CLS_REDUCE && cls != CLS_NORM &&
         cls != CLS_MOVE && cls != CLS_WINDOW && !op_has((enum op)n->op, T_VIEW)))
        return false;
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(kept); i++)
        if ((enum op)n->op == kept[i])
            return false;
    for (int i = 0; i < n->n_in; i++) {
        if (is_taken(n, i, to) && !can_be_cast(n->in[i].value))
            return false;
        any |= is_taken(n, i, to);
    }
    return any;
}

/* v in the wanted type: what was cast to v's type before, a scalar, or a Cast. */
static struct value *narrowed(struct builder *b, struct value *v, enum dtype to)
{
    double number;
    const struct node *def = v->def;
    const struct value *from = def && def->op == OP_Cast ? node_in(def, 0) : NULL;
    if (from && from->type->dtype == to && dtype_size(to) <= dtype_size(v->type->dtype))
        return node_in(def, 0);
    if (v->type->rank == 0 && value_const_f64(v, 0, &number)) {
        const struct type *t = type_with_dtype(b->cx, v->type, to);
        struct value like = {.type = t};
        return ir_scalar_like(b, &like, number);
    }
    return ir_cast(b, v, to);
}

/* Uses of result v see it cast back to the model's type. */
static enum npuc_status widen(struct node *n, struct value *v, enum dtype model)
{
    struct builder b = ir_at(n->next);
    b.loc = n->loc;
    struct node *back = ir_new(&b, OP_Cast, 1, (struct value *[]){NULL}, 1);
    ir_set_int(back, "to", dtype_table[model].onnx);
    back->out[0].type = type_with_dtype(b.cx, v->type, model);
    ir_replace_all(v, &back->out[0]);
    ir_set_input(back, 0, v);
    return ir_infer(back);
}

static enum npuc_status convert(struct pass_ctx *px, struct node *n, enum dtype to)
{
    struct value *before[MAX_OPERANDS];
    struct builder b = ir_at(n);
    const char *reason = NULL;
    enum dtype model = DT_NONE;
    const bool had = !px->target || px->target->supports(px->target, px->cx, n, &reason);
    for (int i = 0; i < n->n_in; i++) {
        before[i] = node_in(n, i);
        if (!is_taken(n, i, to))
            continue;
        model = before[i]->type->dtype;
        ir_set_input(n, i, narrowed(&b, before[i], to));
    }
    enum npuc_status s = ir_infer(n);
    if (s == NPUC_OK && had && px->target && !op_has((enum op)n->op, T_VIEW) &&
        !px->target->supports(px->target, px->cx, n, &reason)) {
        for (int i = 0; i < n->n_in; i++)
            ir_set_input(n, i, before[i]);
        return ir_infer(n);
    }
    for (int i = 0; i < n->n_out && s == NPUC_OK; i++)
        if (n->out[i].type->kind == TYPE_TENSOR && n->out[i].type->dtype == to)
            s = widen(n, &n->out[i], model);
    pass_count(px, STAT_whole_precision_converted, 1);
    return s;
}

enum npuc_status whole_precision(struct pass_ctx *px, struct graph *g)
{
    const enum dtype to = px->options.precision;
    if (to == DT_NONE || !precision_is_whole(px))
        return NPUC_OK;
    for (struct node *n = g->first, *next; n; n = next) {
        next = n->next;
        if (!takes(n, to) || !ir_may_rewrite(px->cx))
            continue;
        const enum npuc_status s = convert(px, n, to);
        if (s != NPUC_OK)
            return s;
    }
    ir_dce(g);
    return NPUC_OK;
}
