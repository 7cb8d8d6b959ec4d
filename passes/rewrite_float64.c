/* Computes 64-bit floats in 32 bits, where an operator on 64-bit floats is on the host.
 *
 *   %y = MatMul %x, %w : f64[n,8]
 * becomes
 *   %a = Cast %x : f32[n,4];  %b = Cast %w : f32[4,8];  %c = MatMul %a, %b : f32[n,8];  %y = Cast %c : f64[n,8]
 *
 * Casts to 32 bits of what was cast from 32 bits, by this pass too, are not made, so that conversions stay only where
 * 64-bit values enter and leave. Requirements: (1) the results lose half of their digits: who runs this pass compares
 * them with those before; (2) an operator whose result would stay 64 bits wide is left (what makes tensors from
 * nothing, what an attribute tells the type of), except Cast, which takes the new type; (3) bodies are rewritten node
 * by node, what they exchange keeps its type; (4) a node made here has no 64-bit operand, so it terminates. Left alone:
 * everything while nothing with 64-bit floats is on the host; control flow, sequences. */
#include "passes/pass.h"

static bool is_f64(const struct value *v)
{
    return v && v->type->kind == TYPE_TENSOR && v->type->dtype == DT_F64;
}

static bool touches(const struct node *n)
{
    for (int i = 0; i < n->n_in; i++)
        if (is_f64(n->in[i].value))
            return true;
    for (int i = 0; i < n->n_out; i++)
        if (is_f64(&n->out[i]))
            return true;
    return false;
}

static bool on_host(const struct graph *g)
{
    for_each_node (n, g) {
        if (n->place == PLACE_HOST && touches(n))
            return true;
        for_each_region(r, n) if (on_host(r)) return true;
    }
    return false;
}

static bool is_cast(const struct node *n, enum dtype to)
{
    return n->op == OP_Cast && n->out[0].type->dtype == to;
}

/* The 32-bit value that v is a Cast of, or NULL. */
static struct value *widened(const struct value *v)
{
    const bool cast = v->def && is_cast(v->def, DT_F64) && v->def->in[0].value->type->dtype == DT_F32;
    return cast ? v->def->in[0].value : NULL;
}

static struct value *narrow(struct builder *b, struct value *v)
{
    if (!is_f64(v))
        return v;
    return widened(v) ? widened(v) : ir_cast(b, v, DT_F32);
}

static bool can_narrow(const struct node *n)
{
    const enum op op = (enum op)n->op;
    const bool fixed = op == OP_Yield || op == OP_Constant || op == OP_BitCast || op_has(op, T_REGION);
    if (fixed || !touches(n) || is_cast(n, DT_F32))
        return false;
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i].value && n->in[i].value->type->kind != TYPE_TENSOR)
            return false;
    for (int i = 0; i < n->n_out; i++)
        if (n->out[i].type->kind != TYPE_TENSOR && n->out[i].type->kind != TYPE_NONE)
            return false;
    return !(op == OP_Cast && n->in[0].value->type->dtype == DT_F32);
}

/* The node with narrow operands; NULL when a result would stay wide. */
static struct node *narrowed(struct node *n)
{
    struct builder b = ir_at(n);
    struct node *with = ir_resized(n, n->n_in, n->n_out);
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i].value)
            ir_set_input(with, i, narrow(&b, n->in[i].value));
    ir_move_before(with, n); /* behind the casts */
    if (is_cast(n, DT_F64))
        ir_set_int(with, "to", dtype_table[DT_F32].onnx);
    bool fits = ir_infer(with) == NPUC_OK;
    for (int i = 0; i < n->n_out && fits; i++)
        fits = !is_f64(&with->out[i]);
    if (!fits)
        ir_erase(with);
    return fits ? with : NULL;
}

static void narrow_node(struct pass_ctx *px, struct node *n)
{
    struct node *with = narrowed(n);
    if (!with)
        return;
    struct builder b = ir_at(n);
    with->place = PLACE_NONE;
    for (int i = 0; i < n->n_out; i++) {
        if (n->out[i].type->kind == TYPE_NONE)
            with->out[i].type = n->out[i].type;
        else if (n->out[i].uses)
            ir_replace_all(&n->out[i], ir_cast(&b, &with->out[i], n->out[i].type->dtype));
    }
    ir_erase(n);
    pass_count(px, STAT_rewrite_float64_narrowed, 1);
}

/* Back to 32 bits: what was widened, where it was. */
static bool comes_back(const struct node *n)
{
    return is_cast(n, DT_F32) && is_f64(n->in[0].value) && widened(n->in[0].value);
}

static void walk(struct pass_ctx *px, struct graph *g)
{
    for_each_node_safe(n, g)
    {
        for_each_region(r, n) walk(px, r);
        const bool back = comes_back(n);
        if ((!back && !can_narrow(n)) || !ir_may_rewrite(px->cx))
            continue;
        if (!back) {
            narrow_node(px, n);
            continue;
        }
        ir_replace_all(&n->out[0], widened(n->in[0].value));
        ir_erase(n);
        px->changed = true;
    }
}

enum npuc_status rewrite_float64(struct pass_ctx *px, struct graph *g)
{
    if (on_host(g))
        walk(px, g);
    return NPUC_OK;
}
