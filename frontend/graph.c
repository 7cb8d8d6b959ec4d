/* Graphs: inputs, initializers, nodes, results; scopes of names. */
#include <inttypes.h>

#include "frontend/priv.h"

bool scope_find(const struct scope *s, sym name, struct value **out)
{
    for (; s; s = s->parent) {
        const uint64_t *v = map_find(&s->names, name);
        if (v) {
            *out = (struct value *)(uintptr_t)*v;
            return true;
        }
    }
    return false;
}

enum npuc_status scope_define(struct import *im, struct scope *s, sym name, struct value *v)
{
    if (!name)
        return name_fail(im, s->graph->name, D_MODEL, "an input or initializer of the graph has no name");
    if (map_find(&s->names, name))
        return name_fail(im, name, D_MODEL, "the name '%s' is already defined: duplicate input or initializer",
                         sym_text(im, name));
    map_put(&s->names, name, (uint64_t)(uintptr_t)v);
    return NPUC_OK;
}

void scope_init(struct import *im, struct scope *s, struct scope *parent, struct graph *g)
{
    *s = (struct scope){.parent = parent,
                        .graph = g,
                        .opsets = parent ? parent->opsets : &im->opsets,
                        .call = parent ? parent->call : NULL};
    map_init(&s->names, &im->tmp);
}

enum npuc_status nodes_import(struct import *im, struct scope *s, Onnx__NodeProto *const *nodes, int64_t n)
{
    const int32_t *order;
    enum npuc_status st = nodes_order(im, nodes, n, &order);
    if (st == NPUC_OK && order)
        import_warn(im, s->graph->name, "the graph's nodes are not in topological order; they were sorted");
    for (int64_t i = 0; st == NPUC_OK && i < n; i++) {
        const int32_t k = order ? order[i] : (int32_t)i;
        st = node_import(im, s, nodes[k], k);
    }
    return st;
}

/* Do constant dims, ranks and element types that both sides state agree? Symbols are a producer's hint. */
static bool types_agree(struct import *im, const struct type *declared, const struct type *real)
{
    if (!declared || declared->kind != TYPE_TENSOR || real->kind != TYPE_TENSOR)
        return true;
    if (declared->dtype != real->dtype || (real->rank >= 0 && declared->rank >= 0 && declared->rank != real->rank))
        return false;
    for (int i = 0; i < real->rank && declared->rank >= 0; i++) {
        int64_t a, b;
        if (expr_is_const(&im->cx->exprs, declared->dims[i], &a) && expr_is_const(&im->cx->exprs, real->dims[i], &b) &&
            a != b)
            return false;
    }
    return true;
}

static enum npuc_status add_constant(struct import *im, struct scope *s, sym name, const struct tensor_in *t)
{
    struct builder b = ir_at_end(s->graph);
    struct value *v = ir_const_blob(&b, t->type, t->blob);
    if (!v->name)
        v->name = name;
    im->model->info.n_params += type_const_count(im->cx, t->type);
    im->model->info.param_size += t->blob->size;
    return scope_define(im, s, name, v);
}

static enum npuc_status import_initializers(struct import *im, struct scope *s, const Onnx__GraphProto *pb)
{
    enum npuc_status st = NPUC_OK;
    struct tensor_in t;
    for (size_t i = 0; st == NPUC_OK && i < pb->n_initializer; i++) {
        const sym name = bytes_sym(im, pb->initializer[i]->name);
        st = tensor_import(im, pb->initializer[i], name, &t);
        if (st == NPUC_OK)
            st = add_constant(im, s, name, &t);
    }
    for (size_t i = 0; st == NPUC_OK && i < pb->n_sparse_initializer; i++) {
        const Onnx__SparseTensorProto *sp = pb->sparse_initializer[i];
        const sym name = sp->values ? bytes_sym(im, sp->values->name) : 0;
        st = sparse_import(im, sp, name, &t);
        if (st == NPUC_OK)
            st = add_constant(im, s, name, &t);
    }
    return st;
}

/* An input of the main graph; an initializer of the same name is its default and makes it a constant. */
static enum npuc_status import_input(struct import *im, struct scope *s, const Onnx__ValueInfoProto *in,
                                     struct map *seen)
{
    const sym name = bytes_sym(im, in->name);
    const struct type *t;
    enum npuc_status st = type_import(im, in->type, name, &t);
    if (st != NPUC_OK)
        return st;
    if (map_find(seen, name))
        return name_fail(im, name, D_MODEL, "the graph input '%s' is listed twice: duplicate name", sym_text(im, name));
    map_put(seen, name, 1);
    struct value *known;
    if (name && scope_find(s, name, &known)) {
        if (types_agree(im, t, known->type))
            return NPUC_OK;
        return name_fail(im, name, D_SHAPE_MISMATCH, "initializer '%s' is %s, but the graph input of this name is %s",
                         sym_text(im, name), type_text(im->cx, known->type), type_text(im->cx, t));
    }
    if (!t)
        return name_fail(im, name, D_UNSUPPORTED, "graph input '%s' has no type; give it one when exporting",
                         sym_text(im, name));
    return scope_define(im, s, name, ir_input_new(s->graph, t, name));
}

static enum npuc_status import_result(struct import *im, struct scope *s, const Onnx__ValueInfoProto *out,
                                      struct value **v)
{
    const sym name = bytes_sym(im, out->name);
    if (!name || !scope_find(s, name, v) || !*v)
        return name_fail(im, name, D_MODEL, "graph output '%s' is produced by no node", sym_text(im, name));
    const struct type *t;
    const enum npuc_status st = type_import(im, out->type, name, &t);
    if (st != NPUC_OK)
        return st;
    if (!types_agree(im, t, (*v)->type))
        return name_fail(im, name, D_SHAPE_MISMATCH, "graph output '%s' is declared as %s, but is %s",
                         sym_text(im, name), type_text(im->cx, t), type_text(im->cx, (*v)->type));
    if (t && t->kind == TYPE_TENSOR && t->rank >= 0 && (*v)->type->rank < 0 && !s->graph->parent)
        map_put(&im->m->meta, str_internz(&im->cx->strings, arena_printf(&im->tmp, "rank of %s", sym_text(im, name))),
                str_internz(&im->cx->strings, arena_printf(&im->tmp, "%d", t->rank))); /* for who writes the model */
    if ((*v)->name == name)
        return NPUC_OK;
    struct builder b = ir_at_end(s->graph);
    *v = ir_op1(&b, OP_Identity, *v); /* the result keeps its own name */
    if (!*v)
        return NPUC_E_INVALID;
    (*v)->name = name;
    return NPUC_OK;
}

static enum npuc_status import_results(struct import *im, struct scope *s, const Onnx__GraphProto *pb)
{
    struct value **v = ARENA_ARRAY(&im->tmp, struct value *, (int64_t)pb->n_output + 1);
    enum npuc_status st = NPUC_OK;
    int n = 0;
    struct map seen;
    map_init(&seen, &im->tmp);
    for (size_t i = 0; st == NPUC_OK && i < pb->n_output; i++) {
        st = import_result(im, s, pb->output[i], &v[n]);
        const sym name = bytes_sym(im, pb->output[i]->name);
        if (st == NPUC_OK && !s->parent && map_find(&seen, name))
            st = name_fail(im, name, D_MODEL, "graph output '%s' is listed twice", sym_text(im, name));
        map_put(&seen, name, 1);
        n += st == NPUC_OK;
        if (!s->parent && stand_in_heals(im, st))
            st = NPUC_OK; /* a survey does without this result */
    }
    if (st != NPUC_OK)
        return st;
    struct builder b = ir_at_end(s->graph);
    return ir_infer(ir_new(&b, OP_Yield, n, v, 0));
}

/* Producers' own notes on values between nodes: a wrong size, or an empty shape where none was known, is common and
 * harmless, for inference does not read it; a wrong rank or element type is a damaged model. */
static enum npuc_status check_note(struct import *im, struct scope *s, const Onnx__ValueInfoProto *note)
{
    const sym name = bytes_sym(im, note->name);
    const uint64_t *found = map_find(&s->names, name);
    const struct value *v = found ? (const struct value *)(uintptr_t)*found : NULL;
    if (!v || v->type->kind != TYPE_TENSOR || !note->type ||
        note->type->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE)
        return NPUC_OK;
    const Onnx__TypeProto__Tensor *t = note->type->tensor_type;
    if (dtype_from_onnx(t->elem_type) != v->type->dtype)
        return name_fail(im, name, D_TYPE_MISMATCH, "value_info says that '%s' has element type %d, but it is %s",
                         sym_text(im, name), t->elem_type, type_text(im->cx, v->type));
    if (t->shape && t->shape->n_dim > 0 && v->type->rank >= 0 && (int64_t)t->shape->n_dim != v->type->rank)
        return name_fail(im, name, D_SHAPE_MISMATCH, "value_info says that '%s' has rank %lld, but it is %s",
                         sym_text(im, name), (long long)t->shape->n_dim, type_text(im->cx, v->type));
    return NPUC_OK;
}

static enum npuc_status check_value_info(struct import *im, struct scope *s, const Onnx__GraphProto *pb)
{
    enum npuc_status st = NPUC_OK;
    for (size_t i = 0; i < pb->n_value_info && (st == NPUC_OK || stand_in_heals(im, st)); i++) {
        const enum npuc_status one = check_note(im, s, pb->value_info[i]);
        st = st == NPUC_OK ? one : st;
    }
    return st;
}

enum npuc_status graph_import_main(struct import *im)
{
    const Onnx__GraphProto *pb = im->pb->graph;
    struct graph *g = ir_func_new(im->m, str_internz(&im->cx->strings, "main"));
    struct scope s;
    scope_init(im, &s, NULL, g);
    if (pb->n_output == 0)
        return name_fail(im, bytes_sym(im, pb->name), D_MODEL, "the graph has no outputs");
    hints_add(im, pb);
    enum npuc_status st = import_initializers(im, &s, pb);
    struct map seen;
    map_init(&seen, &im->tmp);
    for (size_t i = 0; st == NPUC_OK && i < pb->n_input; i++)
        st = import_input(im, &s, pb->input[i], &seen);
    if (st == NPUC_OK) {
        types_close_inputs(im, g);
        st = nodes_import(im, &s, pb->node, (int64_t)pb->n_node);
    }
    if (st == NPUC_OK)
        st = check_value_info(im, &s, pb);
    return st == NPUC_OK || stand_in_heals(im, st) ? import_results(im, &s, pb) : st;
}

enum npuc_status graph_import_on(struct import *im, struct onode *n, const Onnx__GraphProto *pb, struct graph *g,
                                 struct value *const *in)
{
    if (++im->depth > IMPORT_MAX_DEPTH)
        return onode_fail(im, n, D_LIMIT, "subgraphs and functions are nested deeper than the limit of %d",
                          IMPORT_MAX_DEPTH);
    struct scope s;
    scope_init(im, &s, n->scope, g);
    hints_add(im, pb);
    enum npuc_status st = NPUC_OK;
    for (size_t i = 0; st == NPUC_OK && i < pb->n_input; i++)
        st = scope_define(im, &s, bytes_sym(im, pb->input[i]->name), in[i]);
    if (st == NPUC_OK)
        st = import_initializers(im, &s, pb);
    if (st == NPUC_OK)
        st = nodes_import(im, &s, pb->node, (int64_t)pb->n_node);
    if (st == NPUC_OK)
        st = import_results(im, &s, pb);
    im->depth--;
    return st;
}

enum npuc_status graph_inline(struct import *im, struct onode *n, const Onnx__GraphProto *pb, int n_in,
                              struct value *const *in, int n_out, struct value **out)
{
    struct scope s;
    if (pb->n_input != (size_t)n_in || pb->n_output != (size_t)n_out)
        return onode_fail(im, n, D_ARITY, "its body has %zu inputs and %zu outputs, expected %d and %d", pb->n_input,
                          pb->n_output, n_in, n_out);
    if (++im->depth > IMPORT_MAX_DEPTH)
        return onode_fail(im, n, D_LIMIT, "subgraphs and functions are nested deeper than the limit of %d",
                          IMPORT_MAX_DEPTH);
    scope_init(im, &s, n->scope, n->scope->graph);
    enum npuc_status st = NPUC_OK;
    for (int i = 0; st == NPUC_OK && i < n_in; i++)
        st = scope_define(im, &s, bytes_sym(im, pb->input[i]->name), in[i]);
    if (st == NPUC_OK)
        st = import_initializers(im, &s, pb);
    if (st == NPUC_OK)
        st = nodes_import(im, &s, pb->node, (int64_t)pb->n_node);
    for (int i = 0; st == NPUC_OK && i < n_out; i++) {
        const sym name = bytes_sym(im, pb->output[i]->name);
        if (!name || !scope_find(&s, name, &out[i]) || !out[i])
            st = name_fail(im, name, D_MODEL, "the body's output '%s' is produced by no node", sym_text(im, name));
    }
    im->depth--;
    return st;
}

enum npuc_status graph_import_body(struct import *im, struct onode *n, const Onnx__GraphProto *pb, struct graph *g,
                                   const struct type *const *in_types, int n_in)
{
    if ((int64_t)pb->n_input != n_in)
        return onode_fail(im, n, D_ARITY, "its body has %zu inputs, expected %d", pb->n_input, n_in);
    struct value **in = ARENA_ARRAY(&im->tmp, struct value *, n_in + 1);
    for (int i = 0; i < n_in; i++)
        in[i] = ir_input_new(g, in_types[i], bytes_sym(im, pb->input[i]->name));
    return graph_import_on(im, n, pb, g, in);
}
