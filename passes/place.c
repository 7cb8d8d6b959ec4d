/* Placement: every node runs on the NPU, on the host with a reason, or costs nothing.
 *
 *   %s = MatMul %x, %w : f32[4,4]
 *   %n = NonZero %s : i64[2,n0]            becomes the same nodes, the second with host("the output size ...")
 *
 * The target's own `supports` decides, the same function that picks kernel generators; its reason is kept on the node
 * for reports and `npuc check`. Views and constants are free where storage is dense: the backend makes aliases of them.
 * So is a Transpose whose users all walk strides.
 * Requirements: (1) runs again after every pass that makes nodes, before the backend; (2) changes no node but place and
 * reason. */
#include "passes/pass.h"

static bool is_blocked(const struct value *v)
{
    return v && v->type->kind == TYPE_TENSOR && v->type->layout.kind == LAYOUT_NC1HWC0;
}

/* A Reshape between a map in blocks and its dimensions in memory, or the Transpose beside it (layout_maps). */
static bool is_boundary(const struct node *n)
{
    if (n->op == OP_Reshape)
        return is_blocked(node_in(n, 0)) || is_blocked(node_out(n, 0));
    if (n->op != OP_Transpose || !n->out[0].uses)
        return false;
    const struct node *split = node_in(n, 0)->def;
    if (split && split->op == OP_Reshape && is_blocked(node_in(split, 0)))
        return true;
    for_each_use (u, &n->out[0])
        if (u->user->op != OP_Reshape || !is_blocked(node_out(u->user, 0)))
            return false;
    return true;
}

/* A cache of codes as the interface shows it: the runtime decodes what is asked for. */
static bool is_present(const struct node *n)
{
    if (n->op != OP_CacheDecode || n->graph->owner || !n->out[0].uses)
        return false;
    for_each_use (u, &n->out[0])
        if (u->user->op != OP_Yield)
            return false;
    return node_in(n, 0)->type->layout.kind == LAYOUT_CACHE;
}

static bool is_free(const struct node *n)
{
    if (is_boundary(n))
        return true;
    if (n->op == OP_Constant || n->op == OP_Yield || n->op == OP_Contents || n->op == OP_CacheEncode || is_present(n))
        return true;
    if (n->op == OP_TransData)
        return node_out(n, 0) && type_lies_alike(n->graph->module->cx, node_in(n, 0)->type, n->out[0].type);
    return op_has((enum op)n->op, T_VIEW) && n->n_in > 0 && n->in[0].value &&
           n->in[0].value->type->layout.kind == LAYOUT_ND && !type_is_object(n->in[0].value->type) &&
           !type_is_object(n->out[0].type);
}

/* Operands that generators walk with strides, so that a Transpose before them needs no data moved. */
static const struct {
    enum op op;
    int operand;
} strided_operands[] = {{OP_RotaryEmbedding, 0}, {OP_CacheAppend, 1}, {OP_CacheAppendCoded, 2}};

static bool takes_strides(struct pass_ctx *px, const struct use *u)
{
    const char *reason;
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(strided_operands); i++)
        if ((enum op)u->user->op == strided_operands[i].op && u == &u->user->in[strided_operands[i].operand])
            return px->target->supports(px->target, px->cx, u->user, &reason);
    return false;
}

/* Does the Transpose leave rows whole, and images apart? */
static bool keeps_rows(const struct node *n)
{
    const struct attr *perm = node_attr(n, "perm");
    const int rank = n->out[0].type->rank;
    return perm && rank > 2 && perm->v.ints[0] == 0 && perm->v.ints[rank - 1] == rank - 1;
}

/* A Cast of rows that lie elsewhere: a vector region of its own reads them where they are. */
static bool casts_rows(struct pass_ctx *px, const struct node *transpose, const struct node *n)
{
    const char *reason;
    return n->op == OP_Cast && keeps_rows(transpose) && dtype_size(n->out[0].type->dtype) == 2 &&
           node_in(n, 0)->type->dtype == DT_F32 && px->target->supports(px->target, px->cx, n, &reason);
}

/* A Transpose of a dense value all of whose users walk strides. */
static bool is_transposed_view(struct pass_ctx *px, const struct node *n)
{
    if (n->op != OP_Transpose || n->in[0].value->type->layout.kind != LAYOUT_ND || value_const(n->in[0].value) ||
        !n->out[0].uses)
        return false;
    for_each_use (u, &n->out[0])
        if (!takes_strides(px, u) && !casts_rows(px, n, u->user))
            return false;
    return true;
}

/* A Transpose whose users see it only as feature maps of convolutions that read the operand's lines themselves. */
static bool is_lines_view(struct pass_ctx *px, const struct node *n)
{
    if (n->op != OP_Transpose || !px->target->takes_lines || !n->out[0].uses)
        return false;
    for_each_use (u, &n->out[0]) {
        if (u->user->op != OP_Reshape || u != &u->user->in[0] || !u->user->out[0].uses)
            return false;
        for_each_use (w, &u->user->out[0])
            if (!px->target->takes_lines(px->target, px->cx, w->user, &u->user->out[0]))
                return false;
    }
    return true;
}

static void place_node(struct pass_ctx *px, struct node *n)
{
    struct ir_ctx *cx = px->cx;
    const char *reason = NULL;
    n->reason = 0;
    if (is_free(n) || is_transposed_view(px, n) || is_lines_view(px, n)) {
        n->place = PLACE_FREE;
        return;
    }
    if (n->op == OP_SizeOf) {
        n->place = PLACE_HOST;
        n->reason = str_internz(&cx->strings, "shape arithmetic");
    } else if (op_table[n->op]->cls == CLS_CONTROL) {
        n->place = PLACE_HOST;
        n->reason = str_internz(&cx->strings, "the host decides which steps run");
    } else if (px->target->supports(px->target, cx, n, &reason)) {
        n->place = PLACE_NPU;
    } else {
        n->place = PLACE_HOST;
        n->reason = str_internz(&cx->strings, reason ? reason : "no kernel for this operator on the target's cores");
    }
    pass_count(px, n->place == PLACE_NPU ? STAT_place_npu : STAT_place_host, 1);
}

enum npuc_status place(struct pass_ctx *px, struct graph *g)
{
    if (!px->target)
        return NPUC_OK;
    for_each_node (n, g)
        place_node(px, n);
    return NPUC_OK;
}
