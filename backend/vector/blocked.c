/* Values over the dimensions that [n, c, spatial..] has in blocks of channels: [n, c/c0, spatial.., c0]. Operands in
 * blocks are dense there; one without channels is repeated for them; one with channels in the order of its dimensions
 * is walked where whole blocks are full. */
#include "backend/vector/blocked.h"

#include <math.h>

static bool is_blocked(const struct value *v)
{
    return v->type->kind == TYPE_TENSOR && v->type->layout.kind == LAYOUT_NC1HWC0;
}

int64_t blocked_c0(const struct node *n)
{
    return n->n_out > 0 && is_blocked(&n->out[0]) ? n->out[0].type->layout.c0 : 0;
}

/* The value's dimension on axis `axis` of the space; one where it has none. */
static expr dim_on(struct ir_ctx *cx, const struct space *s, const struct value *v, int axis)
{
    const int i = axis - (s->rank - v->type->rank);
    return i < 0 ? expr_const(&cx->exprs, 1) : v->type->dims[i];
}

static bool is_one(const struct ir_ctx *cx, expr e)
{
    return expr_is_one(&cx->exprs, e);
}

static bool fills_blocks(const struct ir_ctx *cx, const struct space *s)
{
    int64_t channels;
    return expr_is_const(&cx->exprs, s->shape[1], &channels) && channels % s->c0 == 0;
}

static bool value_fits(struct ir_ctx *cx, const struct space *s, const struct value *v, bool is_out)
{
    expr strides[IR_MAX_RANK];
    const bool whole = dim_on(cx, s, v, 1) == s->shape[1];
    if (is_blocked(v))
        return v->type->layout.c0 == s->c0 && v->type->rank == s->rank && whole;
    if (is_out || !value_strides(cx, v, strides))
        return false;
    return is_one(cx, dim_on(cx, s, v, 1)) || (whole && fills_blocks(cx, s));
}

/* ---- what fills up the last block ----------------------------------------------------------------------------- */

/* The value in the filling: zero for maps in blocks, itself for a number, NAN where it is not known. */
static float filling_of(struct map *known, const struct value *v)
{
    const uint64_t *f = map_find(known, v->id);
    double number;
    if (f)
        return *f ? NAN : 0.0f;
    if (value_const(v) && value_const_f64(v, 0, &number) && type_const_count(v->graph->module->cx, v->type) == 1)
        return (float)number;
    return is_blocked(v) ? 0.0f : NAN;
}

/* Is the node's result zero in the filling? */
static bool leaves_zero(struct map *known, const struct node *n)
{
    const int fn = op_table[n->op]->fn;
    float in[3] = {0}, out = NAN, param[3] = {0};
    if (n->op == OP_Cast)
        return filling_of(known, node_in(n, 0)) == 0;
    if (fn == K_FN_none || n->op == OP_Where || n->n_in > 3 || k_fn_info((enum k_fn)fn)->result != K_RESULT_SAME ||
        !k_fn_supports((enum k_fn)fn, DT_F32))
        return false;
    for (int i = 0; i < n->n_in; i++)
        if (isnan(in[i] = filling_of(known, node_in(n, i))))
            return false;
    for (int i = 0; i < op_table[n->op]->n_attrs && i < 3; i++)
        param[i] = n->attrs[i].kind == ATTR_FLOAT ? n->attrs[i].v.f : (float)n->attrs[i].v.i;
    const struct k_rows rows[3] = {{&in[0], 1, 1}, {&in[1], 1, 1}, {&in[2], 1, 1}};
    k_vec((enum k_fn)fn, DT_F32, 1, 1, &out, 1, rows, param);
    return out == 0;
}

static bool filling_stays(struct ir_ctx *cx, const struct node *n)
{
    struct map known;
    const struct graph *g = n->op == OP_Fused ? node_attr(n, "body")->v.graph : NULL;
    map_init(&known, &cx->scratch);
    if (!g)
        return leaves_zero(&known, n);
    for (int i = 0; i < g->n_inputs; i++)
        map_put(&known, g->inputs[i]->id, isnan(filling_of(&known, node_in(n, i))) ? 1U : 0U);
    for_each_node (m, g)
        if (m->op != OP_Yield && m->op != OP_Constant)
            map_put(&known, m->out[0].id, leaves_zero(&known, m) ? 0U : 1U);
    const struct node *yield = graph_yield(g);
    for (int i = 0; i < yield->n_in; i++)
        if (filling_of(&known, node_in(yield, i)) != 0)
            return false;
    return true;
}

bool blocked_fits(struct ir_ctx *cx, const struct node *n, const struct space *s, const char **reason)
{
    *reason = "an operand does not lie in blocks of channels as the result does";
    for (int i = 0; i < n->n_in; i++)
        if (node_in(n, i) && !value_fits(cx, s, node_in(n, i), false))
            return false;
    for (int i = 0; i < n->n_out; i++)
        if (node_out(n, i) && !value_fits(cx, s, &n->out[i], true))
            return false;
    *reason = "what fills up the blocks of channels would not stay zero";
    return fills_blocks(cx, s) || filling_stays(cx, n);
}

/* ---- views ---------------------------------------------------------------------------------------------------- */

void blocked_dims(struct ir_ctx *cx, const struct space *s, expr dims[IR_MAX_RANK])
{
    const expr c0 = expr_const(&cx->exprs, s->c0);
    for (int i = 0; i < s->rank; i++)
        dims[i] = s->shape[i];
    dims[1] = expr_ceildiv(&cx->exprs, s->shape[1], c0);
    dims[s->rank] = c0;
}

void blocked_view(struct lower *l, struct value *v, struct vr_view *out)
{
    struct expr_pool *x = &l->cx->exprs;
    const struct space *s = &l->sp;
    const expr zero = expr_const(x, 0), c0 = expr_const(x, s->c0);
    *out = (struct vr_view){.tensor = emit_tensor(l->r.e, v), .dtype = v->type->dtype, .offset = zero};
    if (is_blocked(v)) {
        expr stride = c0;
        out->stride[s->rank] = expr_const(x, 1);
        for (int i = s->rank - 1; i >= 0; i--) {
            const expr dim = i == 1 ? expr_ceildiv(x, v->type->dims[1], c0) : v->type->dims[i];
            out->stride[i] = is_one(l->cx, v->type->dims[i]) ? zero : stride;
            stride = expr_mul(x, stride, dim);
        }
        return;
    }
    expr strides[IR_MAX_RANK];
    const bool ok = value_strides(l->cx, v, strides);
    NPUC_ASSERT(ok);
    for (int i = 0; i < s->rank; i++) {
        const int j = i - (s->rank - v->type->rank);
        out->stride[i] = is_one(l->cx, dim_on(l->cx, s, v, i)) ? zero : strides[j];
    }
    out->stride[s->rank] = out->stride[1];
    out->stride[1] = expr_mul(x, out->stride[1], c0);
}
