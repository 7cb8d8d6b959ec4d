/* Old opsets: attributes that became inputs, and other changes that leave the operator what it is. */
#include <string.h>

#include "frontend/rules.h"

enum npuc_status rule_axes_input(struct import *im, struct onode *n)
{
    struct value *axes = onode_ints_input(im, n, "axes");
    if (axes)
        onode_set_in(im, n, 1, axes);
    return NPUC_OK;
}

enum npuc_status rule_old_reshape(struct import *im, struct onode *n)
{
    struct value *shape = onode_ints_input(im, n, "shape");
    if (shape)
        onode_set_in(im, n, 1, shape);
    return NPUC_OK;
}

enum npuc_status rule_old_slice(struct import *im, struct onode *n)
{
    static const char *const names[] = {"starts", "ends", "axes"};
    for (int i = 0; i < 3; i++) {
        struct value *v = onode_ints_input(im, n, names[i]);
        if (!v && i < 2)
            return onode_bad_attr(im, n, names[i], "it is required");
        if (v)
            onode_set_in(im, n, i + 1, v);
    }
    return NPUC_OK;
}

enum npuc_status rule_old_split(struct import *im, struct onode *n)
{
    struct value *sizes = onode_ints_input(im, n, "split");
    if (sizes)
        onode_set_in(im, n, 1, sizes);
    return NPUC_OK;
}

/* Before opset 18 the number of parts was the number of outputs. */
enum npuc_status rule_split_count(struct import *im, struct onode *n)
{
    if (!onode_in(n, 1))
        onode_set_int(im, n, "num_outputs", n->n_out);
    return NPUC_OK;
}

enum npuc_status rule_old_top_k(struct import *im, struct onode *n)
{
    const struct oattr *k = onode_attr(im, n, "k");
    if (!k)
        return NPUC_OK; /* an input since opset 10; arity is checked later */
    if (k->a.kind != ATTR_INT)
        return onode_bad_attr(im, n, "k", "expected an integer");
    const int64_t v = k->a.v.i;
    onode_drop(im, n, "k");
    onode_set_in(im, n, 1, ir_const_i64(&n->b, &v, 1));
    return NPUC_OK;
}

enum npuc_status rule_old_pad(struct import *im, struct onode *n)
{
    const enum npuc_status s = onode_needs(im, n, 1);
    if (s != NPUC_OK)
        return s;
    const float fill = onode_float(im, n, "value", 0);
    struct value *pads = onode_ints_input(im, n, n->version < 2 ? "paddings" : "pads");
    if (!pads)
        return onode_bad_attr(im, n, "pads", "it is required");
    onode_drop(im, n, "value");
    onode_set_in(im, n, 1, pads);
    onode_set_in(im, n, 2, ir_scalar_like(&n->b, n->in[0], (double)fill));
    return NPUC_OK;
}

enum npuc_status rule_old_concat(struct import *im, struct onode *n)
{
    if (!onode_attr(im, n, "axis"))
        onode_set_int(im, n, "axis", 1);
    return NPUC_OK;
}

enum npuc_status rule_old_gemm(struct import *im, struct onode *n)
{
    onode_drop(im, n, "broadcast"); /* C is broadcast in any case */
    return NPUC_OK;
}

enum npuc_status rule_old_batch_norm(struct import *im, struct onode *n)
{
    if (onode_int(im, n, "spatial", 1) != 1)
        return onode_fail(im, n, D_UNSUPPORTED, "attribute 'spatial' 0 is not supported; export with opset 9 or later");
    onode_drop(im, n, "spatial");
    onode_drop(im, n, "is_test");
    for (int i = 1; i < n->n_out; i++)
        if (n->out[i])
            return onode_no_output(im, n, i); /* statistics of training */
    return NPUC_OK;
}

enum npuc_status rule_old_dropout(struct import *im, struct onode *n)
{
    const enum npuc_status s = onode_needs(im, n, 1);
    onode_drop(im, n, "ratio");
    onode_drop(im, n, "is_test");
    if (s != NPUC_OK || onode_wants(n, 1))
        return s; /* with its mask it stays a node */
    return onode_done(im, n, n->in[0]);
}

/* Cast-1 gave the element type as text. */
enum npuc_status rule_old_cast(struct import *im, struct onode *n)
{
    static const char *const names[] = {"UNDEFINED", "FLOAT",  "UINT8",     "INT8",      "UINT16",  "INT16",
                                        "INT32",     "INT64",  "STRING",    "BOOL",      "FLOAT16", "DOUBLE",
                                        "UINT32",    "UINT64", "COMPLEX64", "COMPLEX128"};
    const char *to = onode_str(im, n, "to", "UNDEFINED");
    for (int64_t i = 1; i < NPUC_ARRAY_LEN(names); i++)
        if (strcmp(to, names[i]) == 0) {
            onode_set_int(im, n, "to", i);
            return NPUC_OK;
        }
    return onode_bad_attr(im, n, "to", "'%s' is no element type", to);
}

/* What its second input holds does not matter: as a Cast the node does not wait for it. */
enum npuc_status rule_cast_like(struct import *im, struct onode *n)
{
    const enum npuc_status s = onode_needs(im, n, 2);
    if (s != NPUC_OK || n->in[1]->type->kind != TYPE_TENSOR)
        return s;
    onode_rename(im, n, "Cast");
    onode_set_int(im, n, "to", dtype_table[n->in[1]->type->dtype].onnx);
    n->n_in = 1;
    return NPUC_OK;
}

/* A mask of one axis is one row for all queries. */
enum npuc_status rule_attention_mask(struct import *im, struct onode *n)
{
    struct value *mask = onode_in(n, 3);
    if (!mask || mask->type->kind != TYPE_TENSOR || mask->type->rank != 1)
        return NPUC_OK;
    struct value *row = ir_op2(&n->b, OP_Unsqueeze, mask, ir_const_i64(&n->b, (int64_t[]){0}, 1));
    if (!row)
        return onode_done(im, n, NULL);
    onode_set_in(im, n, 3, row);
    return NPUC_OK;
}

enum npuc_status rule_scatter(struct import *im, struct onode *n)
{
    onode_rename(im, n, "ScatterElements");
    return NPUC_OK;
}

static enum npuc_status old_resize_modes(struct import *im, struct onode *n)
{
    struct value *scales = onode_in(n, 1);
    onode_rename(im, n, "Resize");
    onode_set_in(im, n, 1, NULL);
    onode_set_in(im, n, 2, scales);
    const sym asymmetric = str_internz(&im->cx->strings, "asymmetric"), down = str_internz(&im->cx->strings, "floor");
    onode_set(im, n, "coordinate_transformation_mode", (struct attr){.kind = ATTR_STRING, .v.s = asymmetric});
    onode_set(im, n, "nearest_mode", (struct attr){.kind = ATTR_STRING, .v.s = down});
    return NPUC_OK;
}

enum npuc_status rule_old_resize(struct import *im, struct onode *n)
{
    const enum npuc_status s = onode_needs(im, n, 2);
    return s == NPUC_OK ? old_resize_modes(im, n) : s;
}

enum npuc_status rule_upsample(struct import *im, struct onode *n)
{
    const struct oattr *scales = onode_attr(im, n, "scales");
    if (scales && scales->a.kind == ATTR_FLOATS) {
        const int64_t len = scales->a.len;
        onode_set_in(im, n, 1, ir_const(&n->b, DT_F32, 1, &len, scales->a.v.floats, 4 * len));
        onode_drop(im, n, "scales");
    }
    if (strcmp(onode_str(im, n, "mode", "nearest"), "bilinear") == 0)
        onode_set(im, n, "mode", (struct attr){.kind = ATTR_STRING, .v.s = str_internz(&im->cx->strings, "linear")});
    const enum npuc_status s = onode_needs(im, n, 2);
    return s == NPUC_OK ? old_resize_modes(im, n) : s;
}

/* Opset 11 had no way to leave out roi and scales but an empty tensor. */
enum npuc_status rule_resize(struct import *im, struct onode *n)
{
    for (int i = 1; i <= 2 && i < n->n_in; i++)
        if (n->in[i] && type_const_count(im->cx, n->in[i]->type) == 0)
            onode_set_in(im, n, i, NULL);
    return NPUC_OK;
}
