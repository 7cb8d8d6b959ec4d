/* Vision operators of old opsets and of com.microsoft. */
#include <string.h>

#include "frontend/rules.h"

static void set_text(struct import *im, struct onode *n, const char *attr, const char *text)
{
    onode_set(im, n, attr, (struct attr){.kind = ATTR_STRING, .v.s = str_internz(&im->cx->strings, text)});
}

/* Before opset 20, and in com.microsoft, modes were called as images call them. */
enum npuc_status rule_grid_sample(struct import *im, struct onode *n)
{
    const char *mode = onode_str(im, n, "mode", "bilinear");
    if (strcmp(mode, "bilinear") == 0)
        set_text(im, n, "mode", "linear");
    else if (strcmp(mode, "bicubic") == 0)
        set_text(im, n, "mode", "cubic");
    onode_rename(im, n, "GridSample");
    return NPUC_OK;
}

/* Before opset 16 there was no shift by half a pixel. */
enum npuc_status rule_old_roi_align(struct import *im, struct onode *n)
{
    set_text(im, n, "coordinate_transformation_mode", "output_half_pixel");
    return NPUC_OK;
}

enum npuc_status rule_image_decoder(struct import *im, struct onode *n)
{
    return onode_fail(im, n, D_UNSUPPORTED_OP,
                      "ImageDecoder needs image codecs, which are not part of a plan; decode the image in front of the "
                      "model and make the node's output an input of the model");
}

/* Upsample-1: one scale for the height, one for the width. */
enum npuc_status rule_old_upsample(struct import *im, struct onode *n)
{
    if (!onode_attr(im, n, "height_scale") || !onode_attr(im, n, "width_scale"))
        return onode_bad_attr(im, n, "height_scale", "it and width_scale are required");
    const float scales[4] = {1, 1, onode_float(im, n, "height_scale", 1), onode_float(im, n, "width_scale", 1)};
    const int64_t len = 4;
    onode_drop(im, n, "height_scale");
    onode_drop(im, n, "width_scale");
    onode_set_in(im, n, 1, ir_const(&n->b, DT_F32, 1, &len, scales, sizeof scales));
    return rule_upsample(im, n);
}

/* ---- com.microsoft */

/* Operators that ai.onnx took over as they were: the name without a domain. */
enum npuc_status rule_ms_same(struct import *im, struct onode *n)
{
    onode_rename(im, n, sym_text(im, n->op));
    n->domain = 0;
    return NPUC_OK;
}

/* The step may be left out. */
enum npuc_status rule_ms_range(struct import *im, struct onode *n)
{
    const enum npuc_status s = onode_needs(im, n, 2);
    if (s == NPUC_OK && !onode_in(n, 2))
        onode_set_in(im, n, 2, ir_scalar_like(&n->b, n->in[0], 1));
    return s == NPUC_OK ? rule_ms_same(im, n) : s;
}

enum npuc_status rule_expand_dims(struct import *im, struct onode *n)
{
    const enum npuc_status s = onode_needs(im, n, 2);
    if (s != NPUC_OK)
        return s;
    struct value *axis = ir_cast(&n->b, n->in[1], DT_I64);
    const expr one = expr_const(&im->cx->exprs, 1);
    axis = axis && axis->type->rank != 1 ? ir_reshape(&n->b, axis, 1, &one) : axis;
    return onode_done(im, n, axis ? ir_op2(&n->b, OP_Unsqueeze, n->in[0], axis) : NULL);
}

/* Outputs y, index into y of each element, counts; in the order of first appearance. */
enum npuc_status rule_ms_unique(struct import *im, struct onode *n)
{
    sym *out = ARENA_ARRAY(&im->tmp, sym, 4);
    out[0] = n->n_out > 0 ? n->out[0] : 0;
    out[1] = 0;
    out[2] = n->n_out > 1 ? n->out[1] : 0;
    out[3] = n->n_out > 2 ? n->out[2] : 0;
    n->out = out;
    n->n_out = 4;
    onode_set_int(im, n, "sorted", 0);
    return rule_ms_same(im, n);
}

/* Distances of all rows of A [M,K] to all rows of B [N,K]. */
enum npuc_status rule_cdist(struct import *im, struct onode *n)
{
    const enum npuc_status s = onode_needs(im, n, 2);
    const char *metric = onode_str(im, n, "metric", "sqeuclidean");
    const bool root = strcmp(metric, "euclidean") == 0;
    if (s != NPUC_OK)
        return s;
    if (!root && strcmp(metric, "sqeuclidean") != 0)
        return onode_bad_attr(im, n, "metric", "it is '%.40s', expected euclidean or sqeuclidean", metric);
    const int64_t row = 1, column = 0, last = -1;
    struct value *a = ir_op2(&n->b, OP_Unsqueeze, n->in[0], ir_const_i64(&n->b, &row, 1));
    struct value *b = ir_op2(&n->b, OP_Unsqueeze, n->in[1], ir_const_i64(&n->b, &column, 1));
    struct value *d = a && b ? ir_op2(&n->b, OP_Sub, a, b) : NULL;
    if (!d)
        return onode_done(im, n, NULL);
    struct value *const in[] = {d, ir_const_i64(&n->b, &last, 1)};
    struct node *sum = ir_new(&n->b, OP_ReduceSumSquare, 2, in, 1);
    ir_set_int(sum, "keepdims", 0);
    if (ir_infer(sum) != NPUC_OK)
        return onode_done(im, n, NULL);
    return onode_done(im, n, root ? ir_op1(&n->b, OP_Sqrt, &sum->out[0]) : &sum->out[0]);
}

/* The node between transpositions from and to channels last. */
enum npuc_status rule_nhwc_max_pool(struct import *im, struct onode *n)
{
    enum npuc_status s = onode_needs(im, n, 1);
    if (s != NPUC_OK)
        return s;
    const int rank = n->in[0]->type->rank;
    if (rank < 3)
        return onode_fail(im, n, D_SHAPE_MISMATCH, "input 0 is %s, expected rank 3 or more",
                          type_text(im->cx, n->in[0]->type));
    int64_t first[IR_MAX_RANK] = {0, rank - 1}, last[IR_MAX_RANK] = {0};
    for (int i = 2; i < rank; i++) {
        first[i] = i - 1;
        last[i - 1] = i;
    }
    last[rank - 1] = 1;
    struct value *x = ir_transpose(&n->b, n->in[0], first);
    if (!x)
        return onode_done(im, n, NULL);
    onode_set_in(im, n, 0, x);
    onode_rename(im, n, "MaxPool");
    struct node *pool = NULL;
    s = onode_build(im, n, &pool);
    if (s == NPUC_OK)
        s = ir_infer(pool);
    return s == NPUC_OK ? onode_done(im, n, ir_transpose(&n->b, &pool->out[0], last)) : s;
}
