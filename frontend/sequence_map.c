/* SequenceMap(s, t, ...) as the loop that its definition writes down: turn i takes element i of every sequence, other
 * operands as they are, and appends its results to sequences that begin empty. */
#include "frontend/rules.h"

/* The body's operands in turn `turn`. */
static struct value **turn_operands(struct import *im, struct onode *n, struct graph *g, struct value *turn)
{
    struct value **in = ARENA_ARRAY(&im->tmp, struct value *, n->n_in + 1);
    for (int i = 0; i < n->n_in; i++) {
        struct builder b = ir_at_end(g);
        b.loc = n->b.loc;
        in[i] = n->in[i]->type->kind == TYPE_SEQUENCE ? ir_op2(&b, OP_SequenceAt, n->in[i], turn) : n->in[i];
        if (!in[i])
            return NULL;
    }
    return in;
}

/* Behind the body's nodes: its results are appended to the carried sequences, the condition is handed on. */
static enum npuc_status append_results(struct import *im, struct onode *n, struct graph *g, struct node *loop)
{
    struct node *old = graph_yield(g), *yield = ir_resized(old, old->n_in + 1, 0);
    struct builder before = ir_at(loop), b = ir_at(yield);
    before.loc = b.loc = n->b.loc;
    ir_set_input(yield, 0, g->inputs[1]);
    for (int i = 0; i < old->n_in; i++) {
        struct value *v = old->in[i].value;
        if (v->type->kind != TYPE_TENSOR)
            return onode_fail(im, n, D_TYPE_MISMATCH, "result %d of its body is %s, expected a tensor", i,
                              type_text(im->cx, v->type));
        struct node *empty = ir_new(&before, OP_SequenceEmpty, 0, NULL, 1);
        ir_set_int(empty, "dtype", dtype_table[v->type->dtype].onnx);
        enum npuc_status s = ir_infer(empty);
        struct value *list = ir_input_new(g, empty->out[0].type, 0);
        struct value *longer = s == NPUC_OK ? ir_op2(&b, OP_SequenceInsert, list, v) : NULL;
        if (!longer)
            return NPUC_E_INVALID;
        list->type = type_join(im->cx, list->type, longer->type);
        s = ir_infer(longer->def);
        if (s != NPUC_OK)
            return s;
        ir_set_input(loop, 2 + i, &empty->out[0]);
        ir_set_input(yield, 1 + i, longer);
    }
    ir_erase(old);
    return ir_infer(yield);
}

enum npuc_status rule_sequence_map(struct import *im, struct onode *n)
{
    const struct oattr *body = onode_attr(im, n, "body");
    if (!body || !body->graph)
        return onode_bad_attr(im, n, "body", "a graph is required");
    const Onnx__GraphProto *pb = body->graph;
    for (int i = 0; i < n->n_in || i < 1; i++)
        if (i >= n->n_in || !n->in[i] || (i == 0 && n->in[0]->type->kind != TYPE_SEQUENCE))
            return onode_fail(im, n, D_TYPE_MISMATCH, "input %d is missing, or the first is no sequence", i);
    if ((int64_t)pb->n_input != n->n_in || (int64_t)pb->n_output != n->n_out)
        return onode_fail(im, n, D_ARITY, "its body has %zu inputs and %zu results, the node %d and %d", pb->n_input,
                          pb->n_output, n->n_in, n->n_out);
    struct value *length = ir_op1(&n->b, OP_SequenceLength, n->in[0]);
    struct value **none = ARENA_ARRAY(&im->tmp, struct value *, 2 + (int64_t)n->n_out);
    struct node *loop = ir_new(&n->b, OP_Loop, 2 + n->n_out, none, n->n_out);
    struct graph *g = ir_region_new(loop, bytes_sym(im, pb->name));
    ir_set_graph(loop, "body", g);
    struct value *turn = ir_input_new(g, type_tensor(im->cx, DT_I64, 0, NULL), 0);
    (void)ir_input_new(g, type_tensor(im->cx, DT_BOOL, 0, NULL), 0);
    struct value **in = length ? turn_operands(im, n, g, turn) : NULL;
    if (!in)
        return NPUC_E_INVALID;
    ir_set_input(loop, 0, length);
    enum npuc_status s = graph_import_on(im, n, pb, g, in);
    if (s == NPUC_OK)
        s = append_results(im, n, g, loop);
    if (s == NPUC_OK)
        s = onode_finish(im, n, loop);
    n->done = true;
    return s;
}
