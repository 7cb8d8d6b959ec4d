/* Sampling, regions of interest, selection, small matrices. */
#include "infer_unit.h"

static int64_t most(struct infer_unit *f, const struct value *v, int axis)
{
    return expr_range_of(&f->cx.exprs, v->type->dims[axis]).max;
}

static void sampling(void **state)
{
    struct infer_unit *f = *state;
    struct value *x = in(f, DT_F16, "batch, 3, h, w"), *grid = in(f, DT_F32, "batch, oh, ow, 2");
    IS(f, OP1(f, OP_GridSample, x, grid), "f16[batch,3,oh,ow]");
    IS(f, OP1(f, OP_GridSample, in(f, DT_F32, "1, c, 4, 5, 6"), in(f, DT_F32, "1, 7, 8, 9, 3")), "f32[1,c,7,8,9]");
    FAILS(f, NODE(f, OP_GridSample, 1, x, in(f, DT_F32, "batch, oh, ow, 3")), "size 3 on axis 3, expected 2");
    FAILS(f, NODE(f, OP_GridSample, 1, x, in(f, DT_I32, "batch, oh, ow, 2")), "expected a float type");
    struct node *old = NODE(f, OP_GridSample, 1, x, grid);
    ir_set_str(old, "mode", "bilinear");
    FAILS(f, old, "expected one of: linear nearest cubic");

    const expr size[] = {dim(f, "batch"), dim(f, "3"), dim(f, "h"), dim(f, "8")};
    struct value *theta = in(f, DT_F32, "batch, 2, 3");
    IS(f, OP1(f, OP_AffineGrid, theta, ir_sizes(&f->b, size, 4, false)), "f32[batch,h,8,2]");
    FAILS(f, NODE(f, OP_AffineGrid, 1, theta, INTS_OF(f, 1, 1, 2, 3, 4)), "expected 3");
    FAILS(f, NODE(f, OP_AffineGrid, 1, theta, INTS_OF(f, 1, 1, 2)), "3 elements, expected 4 or 5");

    struct value *w = in(f, DT_F32, "8, 4, 3, 3"), *y = in(f, DT_F32, "batch, 4, h, w"),
                 *offset = in(f, DT_F32, "batch, 18, h - 2, w - 2");
    IS(f, OP1(f, OP_DeformConv, y, w, offset), "f32[batch,8,h - 2,w - 2]");
    FAILS(f, NODE(f, OP_DeformConv, 1, x, w, offset), "element type f32, expected f16");
    FAILS(f, NODE(f, OP_DeformConv, 1, in(f, DT_F32, "batch, 6, h, w"), w, offset), "6 channels, the weight is for 4");
}

static void regions(void **state)
{
    struct infer_unit *f = *state;
    struct value *x = in(f, DT_F32, "batch, 256, h, w"), *rois = in(f, DT_F32, "rois, 4"), *at = in(f, DT_I64, "rois");
    struct node *align = NODE(f, OP_RoiAlign, 1, x, rois, at);
    ir_set_int(align, "output_height", 7);
    IS(f, infer(f, align), "f32[rois,256,7,1]");
    FAILS(f, NODE(f, OP_RoiAlign, 1, x, in(f, DT_F32, "rois, 5"), at), "size 5 on axis 1, expected 4");
    FAILS(f, NODE(f, OP_RoiAlign, 1, x, in(f, DT_F32, "3, 4"), in(f, DT_I64, "4")), "size 4 on axis 0, expected 3");
    struct node *none = NODE(f, OP_RoiAlign, 1, x, rois, at);
    ir_set_int(none, "output_width", 0);
    FAILS(f, none, "must be at least 1");

    struct node *pool = NODE(f, OP_MaxRoiPool, 1, x, in(f, DT_F32, "rois, 5"));
    FAILS(f, pool, "'pooled_shape' must have two elements");
    ir_set_ints(pool, "pooled_shape", (const int64_t[]){6, 5}, 2);
    IS(f, infer(f, pool), "f32[rois,256,6,5]");

    const int32_t crop[] = {14, 15};
    struct value *size = ir_const(&f->b, DT_I32, 1, (const int64_t[]){2}, crop, sizeof crop);
    IS(f, OP1(f, OP_CropAndResize, x, rois, in(f, DT_I32, "rois"), size), "f32[rois,256,14,15]");
}

static void selection(void **state)
{
    struct infer_unit *f = *state;
    struct value *boxes = in(f, DT_F32, "2, 100, 4"), *scores = in(f, DT_F32, "2, 3, 100");
    struct value *y = OP1(f, OP_NonMaxSuppression, boxes, scores, INTS_OF(f, 10));
    assert_int_equal(most(f, y, 0), 60);
    y = OP1(f, OP_NonMaxSuppression, boxes, scores, in(f, DT_I64, "1"));
    assert_int_equal(most(f, y, 0), 600);
    y = OP1(f, OP_NonMaxSuppression, in(f, DT_F32, "batch, n, 4"), in(f, DT_F32, "batch, 1, n"), INTS_OF(f, -3));
    assert_int_equal(most(f, y, 0), 0);
    FAILS(f, NODE(f, OP_NonMaxSuppression, 1, boxes, in(f, DT_F32, "2, 3, 99")), "size 99 on axis 2, expected 100");
    FAILS(f, NODE(f, OP_NonMaxSuppression, 1, in(f, DT_F64, "2, 100, 4"), scores), "expected f32");

    struct node *unique = NODE(f, OP_Unique, 4, in(f, DT_STRING, "4, 6"));
    y = infer(f, unique);
    assert_int_equal(most(f, y, 0), 24);
    assert_true(y->type->rank == 1 && unique->out[3].type->dims[0] == y->type->dims[0]);
    IS(f, &unique->out[2], "i64[24]");
    unique = NODE(f, OP_Unique, 4, in(f, DT_I32, "4, 6"));
    ir_set_int(unique, "axis", -1);
    y = infer(f, unique);
    assert_int_equal(y->type->rank, 2);
    assert_int_equal(most(f, y, 1), 6);
    ir_set_int(unique, "axis", 2);
    FAILS(f, unique, "axis is 2, expected -2..1");
}

static void images(void **state)
{
    struct infer_unit *f = *state;
    struct node *crop = NODE(f, OP_CenterCropPad, 1, in(f, DT_I8, "batch, h, 3"), INTS_OF(f, 20));
    ir_set_ints(crop, "axes", (const int64_t[]){-2}, 1);
    IS(f, infer(f, crop), "i8[batch,20,3]");
    FAILS(f, NODE(f, OP_CenterCropPad, 1, in(f, DT_I8, "batch, h, 3"), INTS_OF(f, 20)), "1 elements for 3 axes");

    IS(f, OP1(f, OP_Col2Im, in(f, DT_F32, "batch, 12, 9"), INTS_OF(f, 7, 6), INTS_OF(f, 2, 3)), "f32[batch,2,7,6]");
    FAILS(f, NODE(f, OP_Col2Im, 1, in(f, DT_F32, "batch, 12, 9"), INTS_OF(f, 7, 6), INTS_OF(f, 2)),
          "2 elements, block_shape 1");

    struct node *unpool = NODE(f, OP_MaxUnpool, 1, in(f, DT_F32, "batch, 1, h, 4"), in(f, DT_I64, "batch, 1, h, 4"));
    ir_set_ints(unpool, "kernel_shape", (const int64_t[]){2, 3}, 2);
    ir_set_ints(unpool, "strides", (const int64_t[]){2, 2}, 2);
    IS(f, infer(f, unpool), "f32[batch,1,2*h,9]");
    FAILS(f, NODE(f, OP_MaxUnpool, 1, in(f, DT_F32, "1, 1, 4, 4"), in(f, DT_I64, "1, 1, 4, 4")), "do not fit");
}

static void matrices(void **state)
{
    struct infer_unit *f = *state;
    IS(f, OP1(f, OP_Det, in(f, DT_F32, "batch, n, n")), "f32[batch]");
    IS(f, OP1(f, OP_Inverse, in(f, DT_F64, "batch, 4, 4")), "f64[batch,4,4]");
    FAILS(f, NODE(f, OP_Det, 1, in(f, DT_F32, "3, 4")), "size 4 on axis 1, expected 3");
    FAILS(f, NODE(f, OP_Inverse, 1, in(f, DT_F32, "3")), "rank 2 or more");
    struct node *hash = NODE(f, OP_MurmurHash3, 1, in(f, DT_STRING, "n"));
    IS(f, infer(f, hash), "u32[n]");
    FAILS(f, NODE(f, OP_MurmurHash3, 1, in(f, DT_F16, "n")), "32 or 64 bits or a string");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(sampling, infer_unit_setup, infer_unit_teardown),
        cmocka_unit_test_setup_teardown(regions, infer_unit_setup, infer_unit_teardown),
        cmocka_unit_test_setup_teardown(selection, infer_unit_setup, infer_unit_teardown),
        cmocka_unit_test_setup_teardown(images, infer_unit_setup, infer_unit_teardown),
        cmocka_unit_test_setup_teardown(matrices, infer_unit_setup, infer_unit_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
