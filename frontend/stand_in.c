/* Surveys: a model that cannot be compiled is imported all the same, so that one run finds everything that is wrong
 * with it. A node that cannot be imported becomes an Unsupported node whose results have the types that the file's
 * notes give them. Where there is no note the type is a guess, and nodes that read it are replaced as well, without a
 * message: what could be said about them would follow from the guess. */
#include "frontend/priv.h"

void hints_add(struct import *im, const Onnx__GraphProto *pb)
{
    if (!im->o.survey)
        return;
    for (size_t i = 0; i < pb->n_value_info; i++)
        map_put(&im->hints, bytes_sym(im, pb->value_info[i]->name), (uint64_t)(uintptr_t)pb->value_info[i]->type);
    for (size_t i = 0; i < pb->n_output; i++)
        map_put(&im->hints, bytes_sym(im, pb->output[i]->name), (uint64_t)(uintptr_t)pb->output[i]->type);
}

bool stand_in_heals(const struct import *im, enum npuc_status s)
{
    return im->o.survey && (s == NPUC_E_INVALID || s == NPUC_E_UNSUPPORTED);
}

bool stand_in_is_due(struct import *im, const struct scope *s, const Onnx__NodeProto *pb)
{
    const sym domain = domain_sym(im, pb->domain), op = bytes_sym(im, pb->op_type);
    if (!im->o.survey)
        return false;
    if (!operator_known(im, domain, op) && !function_find(im, domain, op, bytes_sym(im, pb->overload)))
        return true; /* reported by operators_check */
    for (size_t i = 0; i < pb->n_input; i++) {
        struct value *v = NULL;
        if (scope_find(s, bytes_sym(im, pb->input[i]), &v) && v && map_find(&im->guessed, (uint64_t)(uintptr_t)v))
            return true;
    }
    return false;
}

/* The type that the file notes for a name; else an unknown shape, marked as a guess. */
static const struct type *type_of(struct import *im, sym name, struct value *v)
{
    const uint64_t *hint = map_find(&im->hints, name);
    const struct type *t = NULL;
    if (hint && *hint && type_import(im, (const Onnx__TypeProto *)(uintptr_t)*hint, name, &t) == NPUC_OK && t)
        return t;
    map_put(&im->guessed, (uint64_t)(uintptr_t)v, 1);
    return type_tensor(im->cx, DT_F32, -1, NULL);
}

enum npuc_status stand_in_import(struct import *im, struct onode *n)
{
    const Onnx__NodeProto *pb = n->pb;
    struct value **in = ARENA_ARRAY(&im->tmp, struct value *, (int64_t)pb->n_input + 1);
    int n_in = 0;
    for (size_t i = 0; i < pb->n_input; i++) {
        struct value *v = NULL;
        if (scope_find(n->scope, bytes_sym(im, pb->input[i]), &v) && v && v->type->kind != TYPE_NONE)
            in[n_in++] = v;
    }
    struct node *node = ir_new(&n->b, OP_Unsupported, n_in, in, (int)pb->n_output);
    ir_set_str(node, "op", sym_text(im, bytes_sym(im, pb->op_type)));
    im->model->info.n_unsupported++;
    for (int i = 0; i < node->n_out; i++) {
        const sym name = bytes_sym(im, pb->output[i]);
        if (!name || !map_find(&im->used, name))
            continue;
        node->out[i].type = type_of(im, name, &node->out[i]);
        node->out[i].name = name;
        map_put(&n->scope->names, name, (uint64_t)(uintptr_t)&node->out[i]);
    }
    return NPUC_OK;
}
