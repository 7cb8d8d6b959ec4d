/* One node of the file: resolved, rewritten to the newest meaning (opset.def), checked against the operator's schema,
 * built. */
#include <string.h>

#include "frontend/priv.h"

void onode_rename(struct import *im, struct onode *n, const char *op)
{
    const enum op core = op_by_name(op); /* may be one of our own, such as GeluTanh */
    n->op = str_internz(&im->cx->strings, op);
    n->domain = str_internz(&im->cx->strings, core == OP_none ? "" : op_table[core]->domain);
}

void onode_set_in(struct import *im, struct onode *n, int i, struct value *v)
{
    if (i >= n->cap_in) {
        const int cap = i + 4;
        struct value **grown = ARENA_ARRAY(&im->tmp, struct value *, cap);
        if (n->n_in)
            memcpy(grown, n->in, sizeof *grown * (size_t)n->n_in);
        n->in = grown;
        n->cap_in = cap;
    }
    while (n->n_in <= i)
        n->in[n->n_in++] = NULL;
    n->in[i] = v;
}

/* Inlined nodes and their values carry the call's name in front. */
static sym prefixed(struct import *im, const struct scope *s, sym name)
{
    if (!s->call || !s->call->name || !name)
        return name;
    return str_internz(&im->cx->strings,
                       arena_printf(&im->tmp, "%s/%s", sym_text(im, s->call->name), sym_text(im, name)));
}

void onode_bind(struct import *im, struct onode *n, int i, struct value *v)
{
    if (i >= n->n_out || !n->out[i])
        return;
    if (!v->name && v->def)
        v->name = prefixed(im, n->scope, n->out[i]);
    map_put(&n->scope->names, n->out[i], (uint64_t)(uintptr_t)v);
}

static const struct loc *make_loc(struct import *im, const struct onode *n)
{
    struct loc *l = ARENA_NEW(&im->m->arena, struct loc);
    sym name = bytes_sym(im, n->pb->name);
    if (!name)
        name = str_internz(&im->cx->strings, arena_printf(&im->tmp, "%.100s#%d", sym_text(im, n->op), (int)n->index));
    l->names = ARENA_NEW(&im->m->arena, sym);
    l->names[0] = prefixed(im, n->scope, name);
    l->n = 1;
    l->index = n->index;
    l->op_type = n->op;
    l->domain = n->domain;
    return l;
}

static enum npuc_status resolve_inputs(struct import *im, struct onode *n)
{
    n->cap_in = (int)n->pb->n_input + 4;
    n->in = ARENA_ARRAY(&im->tmp, struct value *, n->cap_in);
    for (size_t i = 0; i < n->pb->n_input; i++) {
        const sym name = bytes_sym(im, n->pb->input[i]);
        struct value *v = NULL;
        if (name && !scope_find(n->scope, name, &v)) {
            const struct diag_loc loc = onode_loc(im, n);
            return diag_error(im->cx->diag, &loc, D_UNDEFINED_VALUE, sym_text(im, name));
        }
        n->in[n->n_in++] = v;
    }
    return NPUC_OK;
}

/* Outputs are new names: a second definition in the same graph is an error, one of an enclosing graph is hidden. */
static enum npuc_status declare_outputs(struct import *im, struct onode *n)
{
    n->out = ARENA_ARRAY(&im->tmp, sym, (int64_t)n->pb->n_output + 1);
    n->n_out = (int)n->pb->n_output;
    if (n->n_out == 0)
        return onode_fail(im, n, D_ARITY, "the node has no outputs");
    for (int i = 0; i < n->n_out; i++) {
        n->out[i] = bytes_sym(im, n->pb->output[i]);
        bool twice = n->out[i] && map_find(&n->scope->names, n->out[i]);
        for (int k = 0; k < i && n->out[i]; k++)
            twice |= n->out[k] == n->out[i];
        if (twice)
            return onode_fail(im, n, D_MODEL, "output '%s' is already defined: names are unique within a graph",
                              sym_text(im, n->out[i]));
    }
    for (int i = 0; i < n->n_out; i++)
        if (!map_find(&im->used, n->out[i]))
            n->out[i] = 0;
    return NPUC_OK;
}

static enum npuc_status check_inputs(struct import *im, struct onode *n, const struct op_def *d)
{
    while (n->n_in > d->min_in && !n->in[n->n_in - 1] && !(d->traits & T_REGION))
        n->n_in--;
    if (n->n_in < d->min_in || (d->max_in >= 0 && n->n_in > d->max_in))
        return onode_fail(im, n, D_ARITY, "has %d inputs, expected %d%s%d", n->n_in, d->min_in,
                          d->max_in < 0 ? " or more: " : " to ", d->max_in < 0 ? d->min_in : d->max_in);
    for (int i = 0; i < n->n_in; i++)
        if (!n->in[i] && (op_needs_input(d, i) || (d->max_in < 0 && !(d->traits & T_REGION))))
            return onode_fail(im, n, D_ARITY, "required input %d is empty", i);
    return NPUC_OK;
}

static enum npuc_status check_outputs(struct import *im, struct onode *n, const struct op_def *d)
{
    if (d->n_out >= 0 && n->n_out > d->n_out)
        return onode_fail(im, n, D_ARITY, "has %d outputs, expected at most %d", n->n_out, d->n_out);
    while (n->n_out > 1 && !n->out[n->n_out - 1] && d->n_out >= 0)
        n->n_out--;
    return NPUC_OK;
}

static enum npuc_status set_attr(struct import *im, struct onode *n, struct node *node, const struct oattr *a)
{
    const struct op_def *d = op_table[node->op];
    const char *name = sym_text(im, a->name);
    const int i = attr_index(d, name);
    struct attr v = a->a;
    if (i < 0 && *d->domain)
        return onode_fail(im, n, D_UNSUPPORTED, "attribute '%s' of %s is not supported", name, d->name);
    if (i < 0)
        return onode_bad_attr(im, n, name, "%s has no such attribute in opset %d", sym_text(im, n->op),
                              (int)n->version);
    if (v.kind == ATTR_INT && d->attrs[i].kind == ATTR_FLOAT)
        v = (struct attr){.kind = ATTR_FLOAT, .v.f = (float)v.v.i};
    if (a->graph || (int)v.kind != d->attrs[i].kind)
        return onode_bad_attr(im, n, name, "its value is of another type than the operator's schema says");
    ir_set_attr(node, name, v);
    return NPUC_OK;
}

static enum npuc_status set_attrs(struct import *im, struct onode *n, struct node *node)
{
    const struct op_def *d = op_table[node->op];
    for (int i = 0; i < n->n_attrs; i++) {
        const enum npuc_status s =
            n->attrs[i].graph && (d->traits & T_REGION) ? NPUC_OK : set_attr(im, n, node, &n->attrs[i]);
        if (s != NPUC_OK)
            return s;
    }
    for (int i = 0; i < d->n_attrs; i++)
        if (d->attrs[i].required && node->attrs[i].kind == ATTR_NONE && d->attrs[i].kind != ATTR_GRAPH)
            return onode_bad_attr(im, n, d->attrs[i].name, "it is required");
    return NPUC_OK;
}

enum npuc_status onode_build(struct import *im, struct onode *n, struct node **out)
{
    const enum op op = operator_find(im, n->domain, n->op);
    if (op == OP_none)
        return onode_fail(im, n, D_UNSUPPORTED_OP, "operator %s is not supported", sym_text(im, n->op));
    const struct op_def *d = op_table[op];
    enum npuc_status s = check_inputs(im, n, d);
    if (s == NPUC_OK)
        s = check_outputs(im, n, d);
    if (s != NPUC_OK)
        return s;
    *out = ir_new(&n->b, op, n->n_in, n->in, n->n_out);
    return set_attrs(im, n, *out);
}

enum npuc_status onode_finish(struct import *im, struct onode *n, struct node *node)
{
    const struct op_def *d = op_table[node->op];
    for (int i = 0; i < n->n_out; i++)
        node->out[i].name = n->out[i] ? prefixed(im, n->scope, n->out[i]) : 0;
    enum npuc_status s = d->legal ? d->legal(im->cx, node) : NPUC_OK;
    if (s == NPUC_OK)
        s = ir_infer(node);
    for (int i = 0; s == NPUC_OK && i < n->n_out; i++)
        onode_bind(im, n, i, &node->out[i]);
    return s;
}

static enum npuc_status to_core(struct import *im, struct onode *n)
{
    enum npuc_status s = attrs_read(im, n);
    if (s == NPUC_OK)
        s = opset_apply(im, n);
    if (s != NPUC_OK || n->done)
        return s;
    const enum op op = operator_find(im, n->domain, n->op);
    if (op != OP_none && op_has(op, T_REGION))
        return control_import(im, n);
    struct node *node;
    s = onode_build(im, n, &node);
    return s == NPUC_OK ? onode_finish(im, n, node) : s;
}

static enum npuc_status import_known(struct import *im, struct onode *n)
{
    enum npuc_status s = resolve_inputs(im, n);
    if (s == NPUC_OK)
        s = declare_outputs(im, n);
    if (s != NPUC_OK)
        return s;
    if (operator_known(im, n->domain, n->op))
        return to_core(im, n);
    const Onnx__FunctionProto *fn = function_find(im, n->domain, n->op, bytes_sym(im, n->pb->overload));
    if (fn)
        return function_inline(im, n, fn);
    return onode_fail(im, n, D_UNSUPPORTED_OP, "operator %s is not supported", sym_text(im, n->op));
}

enum npuc_status node_import(struct import *im, struct scope *scope, const Onnx__NodeProto *pb, int32_t index)
{
    struct onode n = {.pb = pb, .index = index, .scope = scope, .b = ir_at_end(scope->graph)};
    n.op = bytes_sym(im, pb->op_type);
    n.domain = domain_sym(im, pb->domain);
    n.version = opset_version(im, scope->opsets, n.domain);
    n.b.loc = make_loc(im, &n);
    if (stand_in_is_due(im, scope, pb))
        return stand_in_import(im, &n);
    const int depth = im->depth;
    const enum npuc_status s = import_known(im, &n);
    if (!stand_in_heals(im, s))
        return s;
    im->depth = depth;
    return stand_in_import(im, &n);
}
