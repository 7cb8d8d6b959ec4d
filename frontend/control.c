/* If, Loop, Scan: nodes with bodies. Bodies see the names of the graphs around them. Types of body inputs come from the
 * node's inputs, not from the file's notes; a loop-carried value whose size changes from turn to turn gets open sizes,
 * found by importing the body again until its results fit its inputs. */
#include <inttypes.h>
#include <string.h>

#include "frontend/priv.h"

#define MAX_TURNS 4 /* first try, sizes opened, what depends on those, and one to spare */

static const Onnx__GraphProto *body_of(struct import *im, const struct onode *n, const char *attr)
{
    const struct oattr *a = onode_attr(im, n, attr);
    return a ? a->graph : NULL;
}

static enum npuc_status add_body(struct import *im, struct onode *n, struct node *node, const char *attr,
                                 const struct type *const *types, int n_types)
{
    const Onnx__GraphProto *pb = body_of(im, n, attr);
    if (!pb)
        return onode_bad_attr(im, n, attr, "a graph is required");
    struct graph *g = ir_region_new(node, bytes_sym(im, pb->name));
    ir_set_graph(node, attr, g);
    return graph_import_body(im, n, pb, g, types, n_types);
}

/* An If whose condition is known: the branch that runs takes its place. The other one may not even be valid for the
 * sizes at hand, such as a Squeeze that is skipped where the axis is longer. */
static enum npuc_status import_taken(struct import *im, struct onode *n, const char *branch)
{
    const Onnx__GraphProto *pb = body_of(im, n, branch);
    if (!pb)
        return onode_bad_attr(im, n, branch, "a graph is required");
    struct value **v = ARENA_ARRAY(&im->tmp, struct value *, n->n_out + 1);
    const enum npuc_status s = graph_inline(im, n, pb, 0, NULL, n->n_out, v);
    for (int i = 0; s == NPUC_OK && i < n->n_out; i++)
        onode_bind(im, n, i, v[i]);
    n->done = s == NPUC_OK;
    return s;
}

static enum npuc_status import_if(struct import *im, struct onode *n)
{
    static const char *const branches[] = {"then_branch", "else_branch"};
    if (n->n_in != 1 || !n->in[0])
        return onode_fail(im, n, D_ARITY, "has %d inputs, expected 1", n->n_in);
    if (n->in[0]->type->dtype != DT_BOOL || n->in[0]->type->rank > 1 || type_const_count(im->cx, n->in[0]->type) > 1)
        return onode_fail(im, n, D_TYPE_MISMATCH, "the condition is %s, expected one bool",
                          type_text(im->cx, n->in[0]->type));
    int64_t holds;
    const expr known = value_elem(im->cx, n->in[0], 0);
    if (known && expr_is_const(&im->cx->exprs, known, &holds))
        return import_taken(im, n, branches[holds == 0]);
    struct node *node;
    enum npuc_status s = onode_build(im, n, &node);
    for (int i = 0; s == NPUC_OK && i < 2; i++) {
        s = add_body(im, n, node, branches[i], NULL, 0);
        if (s == NPUC_OK && graph_yield(node_region(node, i))->n_in != n->n_out)
            s = onode_fail(im, n, D_ARITY, "%s has %d outputs, the node has %d", branches[i],
                           graph_yield(node_region(node, i))->n_in, n->n_out);
    }
    return s == NPUC_OK ? onode_finish(im, n, node) : s;
}

static const struct type *scalar_type(struct import *im, enum dtype dt)
{
    return type_tensor(im->cx, dt, 0, NULL);
}

struct carried {
    const struct type **types;                          /* of the body's inputs */
    int n_types, first_in, first_out, count, n_results; /* n_results: results of the body that are none of the node's */
    VEC(expr) opened;                                   /* sizes that stand for any value */
};

static bool is_open(const struct carried *c, expr size)
{
    for (int64_t i = 0; i < c->opened.len; i++)
        if (c->opened.data[i] == size)
            return true;
    return false;
}

/* The type that holds both; NULL when there is none. */
static const struct type *widen(struct import *im, struct carried *c, const struct type *a, const struct type *b)
{
    if (a == b)
        return a;
    if (a->kind != TYPE_TENSOR || b->kind != TYPE_TENSOR)
        return type_join(im->cx, a, b);
    if (a->dtype != b->dtype)
        return NULL;
    if (a->rank != b->rank || a->rank < 0)
        return type_tensor(im->cx, a->dtype, -1, NULL);
    expr dims[IR_MAX_RANK];
    for (int i = 0; i < a->rank; i++) {
        dims[i] = a->dims[i];
        if (a->dims[i] == b->dims[i] || is_open(c, a->dims[i]))
            continue;
        const sym name = str_internz(&im->cx->strings, arena_printf(&im->tmp, "carried_%d", im->cx->n_fresh++));
        dims[i] = expr_sym(&im->cx->exprs, expr_symbol_new(&im->cx->exprs, name, (struct expr_range){0, INT32_MAX, 1}));
        vec_push(&im->tmp, &c->opened, dims[i]);
    }
    return type_tensor(im->cx, a->dtype, a->rank, dims);
}

/* Opens the types of loop-carried values that leave the body with another type than they enter. */
static enum npuc_status settle(struct import *im, struct onode *n, const struct graph *body, struct carried *c,
                               bool *changed)
{
    const struct node *yield = graph_yield(body);
    *changed = false;
    for (int i = 0; i < c->count; i++) {
        const struct type *in = c->types[c->first_in + i], *out = yield->in[c->first_out + i].value->type;
        const struct type *both = widen(im, c, in, out);
        if (!both)
            return onode_fail(im, n, D_TYPE_MISMATCH, "loop-carried value %d enters as %s and leaves as %s", i,
                              type_text(im->cx, in), type_text(im->cx, out));
        *changed |= both != in;
        c->types[c->first_in + i] = both;
    }
    return NPUC_OK;
}

static enum npuc_status import_loop_body(struct import *im, struct onode *n, struct carried *c)
{
    for (int turn = 0; turn < MAX_TURNS; turn++) {
        struct node *node;
        enum npuc_status s = onode_build(im, n, &node);
        if (s == NPUC_OK)
            s = add_body(im, n, node, "body", c->types, c->n_types);
        if (s != NPUC_OK)
            return s;
        struct graph *body = node_region(node, 0);
        const int results = graph_yield(body)->n_in - c->n_results;
        if (results < c->count || n->n_out > results)
            return onode_fail(im, n, D_ARITY, "its body has %d outputs, expected at least %d", graph_yield(body)->n_in,
                              c->n_results + (n->n_out > c->count ? n->n_out : c->count));
        bool changed;
        s = settle(im, n, body, c, &changed);
        if (s != NPUC_OK)
            return s;
        if (!changed)
            return onode_finish(im, n, node);
        ir_erase(node);
    }
    return onode_fail(im, n, D_UNSUPPORTED, "the sizes of its loop-carried values do not settle");
}

static enum npuc_status import_loop(struct import *im, struct onode *n)
{
    if (n->n_in < 2)
        return onode_fail(im, n, D_ARITY, "has %d inputs, expected at least 2", n->n_in);
    const int count = n->n_in - 2;
    struct carried c = {.n_types = n->n_in, .first_in = 2, .first_out = 1, .count = count, .n_results = 1};
    c.types = ARENA_ARRAY(&im->tmp, const struct type *, n->n_in);
    c.types[0] = scalar_type(im, DT_I64);
    c.types[1] = scalar_type(im, DT_BOOL);
    for (int i = 0; i < count; i++) {
        if (!n->in[2 + i])
            return onode_fail(im, n, D_ARITY, "loop-carried input %d is empty", i);
        c.types[2 + i] = n->in[2 + i]->type;
    }
    return import_loop_body(im, n, &c);
}

/* Type of one slice of a scanned input. */
static const struct type *slice_type(struct import *im, const struct onode *n, const struct type *t, int scan)
{
    const struct oattr *axes = onode_attr(im, n, "scan_input_axes");
    int64_t axis = axes && axes->a.kind == ATTR_INTS && scan < axes->a.len ? axes->a.v.ints[scan] : 0;
    if (axis < 0)
        axis += t->rank;
    if (t->kind != TYPE_TENSOR || t->rank < 1 || axis < 0 || axis >= t->rank)
        return NULL;
    expr dims[IR_MAX_RANK];
    int rank = 0;
    for (int i = 0; i < t->rank; i++)
        if (i != axis)
            dims[rank++] = t->dims[i];
    return type_tensor(im->cx, t->dtype, rank, dims);
}

static enum npuc_status import_scan(struct import *im, struct onode *n)
{
    const int64_t scans = onode_int(im, n, "num_scan_inputs", 0);
    if (scans < 1 || scans > n->n_in)
        return onode_bad_attr(im, n, "num_scan_inputs", "it is %" PRId64 ", expected 1 to the number of inputs, %d",
                              scans, n->n_in);
    const int count = n->n_in - (int)scans;
    struct carried c = {.n_types = n->n_in, .count = count};
    c.types = ARENA_ARRAY(&im->tmp, const struct type *, n->n_in);
    for (int i = 0; i < n->n_in; i++) {
        if (!n->in[i])
            return onode_fail(im, n, D_ARITY, "input %d is empty", i);
        c.types[i] = i < count ? n->in[i]->type : slice_type(im, n, n->in[i]->type, i - count);
        if (!c.types[i])
            return onode_fail(im, n, D_SHAPE_MISMATCH, "scanned input %d is %s: it has no such axis", i - count,
                              type_text(im->cx, n->in[i]->type));
    }
    return import_loop_body(im, n, &c);
}

/* Scan of opset 8 as one of today's, of a batch of one: in the body g, on its inputs; the results leave through the
 * Yield. */
static enum npuc_status import_batch_of_one(struct import *im, const struct onode *n, struct graph *g)
{
    struct onode inner = *n;
    inner.b = (struct builder){.cx = im->cx, .graph = g, .loc = n->b.loc};
    inner.in = g->inputs;
    inner.n_in = g->n_inputs;
    inner.out = ARENA_ARRAY(&im->tmp, sym, n->n_out + 1); /* the names belong to the node around */
    enum npuc_status s = import_scan(im, &inner);
    if (s != NPUC_OK)
        return s;
    const struct node *scan = g->last;
    struct value **results = ARENA_ARRAY(&im->tmp, struct value *, n->n_out + 1);
    for (int i = 0; i < n->n_out; i++)
        results[i] = &scan->out[i];
    return ir_infer(ir_new(&inner.b, OP_Yield, n->n_out, results, 0));
}

/* Opset 8: inputs are the lengths of the sequences of a batch, then states and scanned inputs with the batch in front.
 * It becomes a Scan over the batch around one over the sequence. */
static enum npuc_status import_old_scan(struct import *im, struct onode *n)
{
    if (n->n_in < 2 || n->in[0])
        return onode_fail(im, n, D_UNSUPPORTED,
                          "Scan of opset 8 with lengths of sequences (input 0) is not supported; convert the model to "
                          "opset 9 or later");
    const struct oattr *directions = onode_attr(im, n, "directions");
    if (directions)
        onode_set(im, n, "scan_input_directions", directions->a);
    onode_drop(im, n, "directions");
    struct builder *b = &n->b;
    struct node *batch = ir_new(b, OP_Scan, n->n_in - 1, n->in + 1, n->n_out);
    struct graph *g = ir_region_new(batch, bytes_sym(im, n->pb->name));
    ir_set_graph(batch, "body", g);
    ir_set_int(batch, "num_scan_inputs", n->n_in - 1);
    for (int i = 1; i < n->n_in; i++) {
        const struct type *t = n->in[i] ? n->in[i]->type : type_none(im->cx);
        if (t->kind != TYPE_TENSOR || t->rank < 1)
            return onode_fail(im, n, D_SHAPE_MISMATCH, "input %d is %s, expected a tensor with a batch axis", i,
                              type_text(im->cx, t));
        (void)ir_input_new(g, type_tensor(im->cx, t->dtype, t->rank - 1, t->dims + 1), 0);
    }
    const enum npuc_status s = import_batch_of_one(im, n, g);
    return s == NPUC_OK ? onode_finish(im, n, batch) : s;
}

enum npuc_status control_import(struct import *im, struct onode *n)
{
    const char *op = sym_text(im, n->op);
    if (strcmp(op, "If") == 0)
        return import_if(im, n);
    if (strcmp(op, "Loop") == 0)
        return import_loop(im, n);
    return n->version < 9 ? import_old_scan(im, n) : import_scan(im, n);
}
