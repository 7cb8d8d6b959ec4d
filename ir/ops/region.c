/* Constant, Yield, Unsupported, and Fused: a region of nodes that becomes one kernel. */
#include "ir/ops/infer.h"

#include "ir/build.h"

static enum npuc_status constant_infer(struct ir_ctx *cx, struct node *n)
{
    const struct attr *a = node_attr(n, "value");
    if (!a || !a->v.t.type)
        return node_error(cx, n, D_ATTRIBUTE, "attribute 'value' is missing");
    n->out[0].type = a->v.t.type;
    return NPUC_OK;
}

/* Stands in a survey for a node that could not be imported: its types are what the file notes. */
static enum npuc_status unsupported_infer(struct ir_ctx *cx, struct node *n)
{
    (void)cx;
    (void)n;
    return NPUC_OK;
}

static enum npuc_status yield_infer(struct ir_ctx *cx, struct node *n)
{
    (void)cx;
    (void)n;
    return NPUC_OK;
}

/* Operands enter as the region's inputs, its results are the node's. */
static enum npuc_status fused_infer(struct ir_ctx *cx, struct node *n)
{
    const struct attr *a = node_attr(n, "body");
    struct graph *g = a ? a->v.graph : NULL;
    const struct node *yield = g ? graph_yield(g) : NULL;
    if (!yield || g->n_inputs != n->n_in || yield->n_in != n->n_out)
        return node_error(cx, n, D_ARITY, "the body does not fit the %d inputs and %d outputs", n->n_in, n->n_out);
    for (int i = 0; i < n->n_in; i++) {
        if (!infer_has(n, i))
            return node_error(cx, n, D_ARITY, "input %d is missing", i);
        g->inputs[i]->type = n->in[i].value->type;
        g->inputs[i]->elems = n->in[i].value->elems;
        g->inputs[i]->n_elems = n->in[i].value->n_elems;
    }
    for_each_node (inner, g) {
        const enum npuc_status s = ir_infer(inner);
        if (s != NPUC_OK)
            return s;
    }
    for (int i = 0; i < n->n_out; i++) {
        const struct value *r = yield->in[i].value;
        n->out[i].type = r->type;
        n->out[i].elems = r->elems;
        n->out[i].n_elems = r->n_elems;
    }
    return NPUC_OK;
}

/* Work of the nodes inside, traffic of the outside. */
static void fused_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    cost_bytes(cx, n, symbols, c);
    const struct attr *a = node_attr(n, "body");
    if (!a)
        return;
    for_each_node (inner, a->v.graph) {
        struct cost part = {.alu = inner->n_out ? cost_count(cx, &inner->out[0], symbols) : 0};
        if (op_table[inner->op]->cost)
            op_table[inner->op]->cost(cx, inner, symbols, &part);
        c->macs += part.macs;
        c->alu += part.alu;
    }
}

#include "ir/ops/rows.h"

#include "ir/ops/region.def"
