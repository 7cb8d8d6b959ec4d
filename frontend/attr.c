/* Attributes of a node as the IR's. The reader is tolerant where exporters are sloppy (no `type` field, 0 left out by
 * proto3 writers) and strict where meaning would be guessed (two payloads, a payload of another type, a name twice). */
#include <string.h>

#include "frontend/priv.h"

enum {
    TYPE_FLOAT = 1,
    TYPE_INT,
    TYPE_STRING,
    TYPE_TENSOR_,
    TYPE_GRAPH,
    TYPE_FLOATS,
    TYPE_INTS,
    TYPE_STRINGS,
    TYPE_TENSORS,
    TYPE_GRAPHS,
    TYPE_SPARSE,
    TYPE_SPARSES,
    TYPE_TYPE,
    TYPE_TYPES,
    TYPE_LAST = TYPE_TYPES
};

static const char *const type_names[TYPE_LAST + 1] = {
    "none",    "FLOAT",   "INT",    "STRING",        "TENSOR",         "GRAPH",      "FLOATS",     "INTS",
    "STRINGS", "TENSORS", "GRAPHS", "SPARSE_TENSOR", "SPARSE_TENSORS", "TYPE_PROTO", "TYPE_PROTOS"};

static void payloads(const Onnx__AttributeProto *a, bool has[TYPE_LAST + 1])
{
    memset(has, 0, TYPE_LAST + 1);
    has[TYPE_FLOAT] = a->has_f;
    has[TYPE_INT] = a->has_i;
    has[TYPE_STRING] = a->has_s;
    has[TYPE_TENSOR_] = a->t != NULL;
    has[TYPE_GRAPH] = a->g != NULL;
    has[TYPE_FLOATS] = a->n_floats > 0;
    has[TYPE_INTS] = a->n_ints > 0;
    has[TYPE_STRINGS] = a->n_strings > 0;
    has[TYPE_TENSORS] = a->n_tensors > 0;
    has[TYPE_GRAPHS] = a->n_graphs > 0;
    has[TYPE_SPARSE] = a->sparse_tensor != NULL;
    has[TYPE_SPARSES] = a->n_sparse_tensors > 0;
    has[TYPE_TYPE] = a->tp != NULL;
    has[TYPE_TYPES] = a->n_type_protos > 0;
}

static enum npuc_status attr_type(struct import *im, const struct onode *n, const Onnx__AttributeProto *a,
                                  const char *name, int *type)
{
    bool has[TYPE_LAST + 1];
    payloads(a, has);
    *type = a->has_type ? a->type : 0;
    if (*type < 0 || *type > TYPE_LAST)
        return onode_bad_attr(im, n, name, "its type is %d, expected 1 to %d", *type, TYPE_LAST);
    for (int t = 1; t <= TYPE_LAST; t++) {
        if (!has[t] || t == *type)
            continue;
        if (*type)
            return onode_bad_attr(im, n, name, "its type is %s, but it holds a value of type %s", type_names[*type],
                                  type_names[t]);
        *type = t;
    }
    return NPUC_OK;
}

static void copy_list(struct import *im, const Onnx__AttributeProto *a, int type, struct attr *out)
{
    if (type == TYPE_FLOATS) {
        *out = (struct attr){.kind = ATTR_FLOATS, .len = (int64_t)a->n_floats, .v.floats = a->floats};
    } else if (type == TYPE_INTS) {
        *out = (struct attr){.kind = ATTR_INTS, .len = (int64_t)a->n_ints, .v.ints = a->ints};
    } else {
        sym *s = ARENA_ARRAY(&im->tmp, sym, (int64_t)a->n_strings + 1);
        for (size_t i = 0; i < a->n_strings; i++)
            s[i] = bytes_sym(im, a->strings[i]);
        *out = (struct attr){.kind = ATTR_STRINGS, .len = (int64_t)a->n_strings, .v.strings = s};
    }
}

static enum npuc_status read_tensor(struct import *im, const struct onode *n, const Onnx__AttributeProto *a, int type,
                                    struct attr *out)
{
    const sym origin = n->n_out > 0 && n->out[0] ? n->out[0] : bytes_sym(im, n->pb->name);
    struct tensor_in t;
    enum npuc_status s;
    if (type == TYPE_SPARSE)
        s = a->sparse_tensor ? sparse_import(im, a->sparse_tensor, origin, &t) : NPUC_E_INVALID;
    else
        s = tensor_import(im, a->t, a->t->name.len ? 0 : origin, &t);
    if (s == NPUC_OK)
        *out = (struct attr){.kind = ATTR_TENSOR, .v.t = {t.type, t.blob}};
    return s;
}

/* Where a function body refers to the caller's attribute: that one, or the function's default, or NULL. */
static const Onnx__AttributeProto *resolve(const struct call *call, const Onnx__AttributeProto *a)
{
    while (a && a->ref_attr_name.len) {
        const ProtobufCBinaryData want = a->ref_attr_name;
        if (!call)
            return NULL;
        a = NULL;
        for (size_t i = 0; i < call->site->n_attribute && !a; i++)
            if (call->site->attribute[i]->name.len == want.len &&
                memcmp(call->site->attribute[i]->name.data, want.data, want.len) == 0)
                a = call->site->attribute[i];
        for (size_t i = 0; i < call->fn->n_attribute_proto && !a; i++)
            if (call->fn->attribute_proto[i]->name.len == want.len &&
                memcmp(call->fn->attribute_proto[i]->name.data, want.data, want.len) == 0)
                return call->fn->attribute_proto[i];
        call = call->caller;
    }
    return a;
}

static enum npuc_status attr_value(struct import *im, const struct onode *n, const Onnx__AttributeProto *a,
                                   struct oattr *out)
{
    const char *name = sym_text(im, out->name);
    int type;
    const enum npuc_status s = attr_type(im, n, a, name, &type);
    if (s != NPUC_OK)
        return s;
    switch (type) {
    case TYPE_FLOAT: out->a = (struct attr){.kind = ATTR_FLOAT, .v.f = a->f}; return NPUC_OK;
    case TYPE_INT: out->a = (struct attr){.kind = ATTR_INT, .v.i = a->i}; return NPUC_OK;
    case TYPE_STRING: out->a = (struct attr){.kind = ATTR_STRING, .v.s = bytes_sym(im, a->s)}; return NPUC_OK;
    case TYPE_FLOATS:
    case TYPE_INTS:
    case TYPE_STRINGS: copy_list(im, a, type, &out->a); return NPUC_OK;
    case TYPE_TENSOR_:
        return a->t ? read_tensor(im, n, a, type, &out->a) : onode_bad_attr(im, n, name, "the tensor is missing");
    case TYPE_SPARSE:
        return a->sparse_tensor ? read_tensor(im, n, a, type, &out->a)
                                : onode_bad_attr(im, n, name, "the tensor is missing");
    case TYPE_GRAPH: out->graph = a->g; return a->g ? NPUC_OK : onode_bad_attr(im, n, name, "the graph is missing");
    case TYPE_TYPE:
        out->a.kind = ATTR_TYPE;
        return a->tp ? type_import(im, a->tp, out->name, &out->a.v.type)
                     : onode_bad_attr(im, n, name, "the type is missing");
    case 0: return onode_bad_attr(im, n, name, "it holds no value and has no type");
    default:
        return onode_fail(im, n, D_UNSUPPORTED, "attribute '%s' of type %s is not supported", name, type_names[type]);
    }
}

enum npuc_status attrs_read(struct import *im, struct onode *n)
{
    n->cap_attrs = (int)n->pb->n_attribute + 4;
    n->attrs = ARENA_ARRAY(&im->tmp, struct oattr, n->cap_attrs);
    for (size_t i = 0; i < n->pb->n_attribute; i++) {
        const Onnx__AttributeProto *a = n->pb->attribute[i];
        struct oattr *out = &n->attrs[n->n_attrs];
        *out = (struct oattr){.name = bytes_sym(im, a->name)};
        if (!out->name)
            return onode_bad_attr(im, n, "", "its name is empty");
        for (int k = 0; k < n->n_attrs; k++)
            if (n->attrs[k].name == out->name)
                return onode_bad_attr(im, n, sym_text(im, out->name), "it is present twice");
        if (a->ref_attr_name.len && !n->scope->call)
            return onode_bad_attr(im, n, sym_text(im, out->name),
                                  "it refers to a function's attribute, but is not in a function");
        a = resolve(n->scope->call, a);
        if (!a)
            continue;
        const enum npuc_status s = attr_value(im, n, a, out);
        if (s != NPUC_OK)
            return s;
        n->n_attrs++;
    }
    return NPUC_OK;
}

static struct oattr *find(const struct import *im, const struct onode *n, const char *name)
{
    for (int i = 0; i < n->n_attrs; i++)
        if (strcmp(sym_text(im, n->attrs[i].name), name) == 0)
            return &n->attrs[i];
    return NULL;
}

const struct oattr *onode_attr(const struct import *im, const struct onode *n, const char *name)
{
    return find(im, n, name);
}

int64_t onode_int(const struct import *im, const struct onode *n, const char *name, int64_t otherwise)
{
    const struct oattr *a = find(im, n, name);
    return a && a->a.kind == ATTR_INT ? a->a.v.i : otherwise;
}

float onode_float(const struct import *im, const struct onode *n, const char *name, float otherwise)
{
    const struct oattr *a = find(im, n, name);
    return a && a->a.kind == ATTR_FLOAT ? a->a.v.f : otherwise;
}

const char *onode_str(const struct import *im, const struct onode *n, const char *name, const char *otherwise)
{
    const struct oattr *a = find(im, n, name);
    return a && a->a.kind == ATTR_STRING ? sym_text(im, a->a.v.s) : otherwise;
}

void onode_drop(struct import *im, struct onode *n, const char *name)
{
    struct oattr *a = find(im, n, name);
    if (a)
        *a = n->attrs[--n->n_attrs];
}

void onode_set(struct import *im, struct onode *n, const char *name, struct attr v)
{
    struct oattr *a = find(im, n, name);
    if (!a) {
        if (n->n_attrs == n->cap_attrs) {
            struct oattr *grown = ARENA_ARRAY(&im->tmp, struct oattr, 2 * (int64_t)n->cap_attrs);
            memcpy(grown, n->attrs, sizeof *grown * (size_t)n->n_attrs);
            n->attrs = grown;
            n->cap_attrs *= 2;
        }
        a = &n->attrs[n->n_attrs++];
    }
    *a = (struct oattr){.name = str_internz(&im->cx->strings, name), .a = v};
}

void onode_set_int(struct import *im, struct onode *n, const char *name, int64_t v)
{
    onode_set(im, n, name, (struct attr){.kind = ATTR_INT, .v.i = v});
}

struct value *onode_ints_input(struct import *im, struct onode *n, const char *name)
{
    const struct oattr *a = find(im, n, name);
    if (!a || a->a.kind != ATTR_INTS)
        return NULL;
    struct value *v = ir_const_i64(&n->b, a->a.v.ints, a->a.len);
    onode_drop(im, n, name);
    return v;
}
