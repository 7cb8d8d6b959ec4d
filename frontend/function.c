/* Model-local functions: their bodies are imported in place of each call. Identity is (domain, name, overload). */
#include <inttypes.h>
#include <string.h>

#include "frontend/priv.h"

static uint64_t function_key(sym domain, sym op, sym overload)
{
    const uint32_t parts[3] = {domain, op, overload};
    return map_hash_bytes(parts, (int64_t)sizeof parts);
}

enum npuc_status functions_index(struct import *im)
{
    for (size_t i = 0; i < im->pb->n_functions; i++) {
        const Onnx__FunctionProto *f = im->pb->functions[i];
        const sym name = bytes_sym(im, f->name), domain = domain_sym(im, f->domain);
        if (!name)
            return name_fail(im, 0, D_MODEL, "function #%zu has no name", i);
        const uint64_t key = function_key(domain, name, bytes_sym(im, f->overload));
        if (map_find(&im->functions, key))
            return name_fail(im, name, D_MODEL, "the function '%s' of domain '%s' is defined twice", sym_text(im, name),
                             sym_text(im, domain));
        map_put(&im->functions, key, i + 1);
    }
    return NPUC_OK;
}

const Onnx__FunctionProto *function_find(struct import *im, sym domain, sym op, sym overload)
{
    const uint64_t *i = map_find(&im->functions, function_key(domain, op, overload));
    return i ? im->pb->functions[*i - 1] : NULL;
}

static enum npuc_status check_call(struct import *im, struct onode *n, const Onnx__FunctionProto *fn)
{
    const char *name = sym_text(im, n->op);
    for (const struct call *c = n->scope->call; c; c = c->caller)
        if (c->fn == fn)
            return onode_fail(im, n, D_MODEL, "the function '%s' calls itself", name);
    if (++im->depth > IMPORT_MAX_DEPTH)
        return onode_fail(im, n, D_LIMIT, "calls of functions and subgraphs are nested deeper than the limit of %d",
                          IMPORT_MAX_DEPTH);
    im->n_inlined += (int64_t)fn->n_node;
    if (im->n_inlined > im->o.max_inlined)
        return onode_fail(im, n, D_LIMIT, "inlining functions makes more nodes than the limit of %" PRId64,
                          im->o.max_inlined);
    if (n->n_in > (int)fn->n_input || n->n_out > (int)fn->n_output)
        return onode_fail(im, n, D_ARITY, "has %d inputs and %d outputs, the function '%s' has %zu and %zu", n->n_in,
                          n->n_out, name, fn->n_input, fn->n_output);
    return NPUC_OK;
}

static enum npuc_status bind_results(struct import *im, struct onode *n, const struct scope *body,
                                     const Onnx__FunctionProto *fn)
{
    for (int i = 0; i < n->n_out; i++) {
        struct value *v = NULL;
        const sym name = bytes_sym(im, fn->output[i]);
        if (!n->out[i])
            continue;
        if (!scope_find(body, name, &v) || !v)
            return onode_fail(im, n, D_MODEL, "output '%s' of the function is produced by no node", sym_text(im, name));
        bool is_input = false;
        for (int k = 0; k < n->n_in; k++)
            is_input |= n->in[k] == v;
        if (v->def && !is_input)
            v->name = 0; /* known to the caller by its name, not the function's */
        onode_bind(im, n, i, v);
    }
    return NPUC_OK;
}

enum npuc_status function_inline(struct import *im, struct onode *n, const Onnx__FunctionProto *fn)
{
    enum npuc_status s = check_call(im, n, fn);
    struct opset_list opsets = *n->scope->opsets;
    if (s == NPUC_OK && fn->n_opset_import)
        s = opsets_read(im, fn->opset_import, (int64_t)fn->n_opset_import, &opsets);
    if (s != NPUC_OK)
        return s;
    struct scope body;
    scope_init(im, &body, NULL, n->scope->graph);
    const struct call call = {.caller = n->scope->call, .fn = fn, .site = n->pb, .name = n->b.loc->names[0]};
    body.call = &call;
    body.opsets = &opsets;
    for (size_t i = 0; s == NPUC_OK && i < fn->n_input; i++)
        s = scope_define(im, &body, bytes_sym(im, fn->input[i]), (int)i < n->n_in ? n->in[i] : NULL);
    if (s == NPUC_OK)
        s = nodes_import(im, &body, fn->node, (int64_t)fn->n_node);
    if (s == NPUC_OK)
        s = bind_results(im, n, &body, fn);
    else
        diag_note(im->cx->diag, "in function '%.100s', called by '%.100s'", sym_text(im, n->op),
                  sym_text(im, call.name));
    im->depth--;
    return s;
}
