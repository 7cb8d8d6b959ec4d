/* Reshape and its relatives under symbolic sizes, and the content of shape tensors. */
#include "infer_unit.h"

static void shape_gives_the_dims(void **state)
{
    struct infer_unit *f = *state;
    struct value *x = in(f, DT_F32, "batch, seq, 64");
    HOLDS(f, OP1(f, OP_Shape, x), "batch, seq, 64");
    struct node *part = NODE(f, OP_Shape, 1, x);
    ir_set_int(part, "start", -2);
    ir_set_int(part, "end", 9);
    HOLDS(f, infer(f, part), "seq, 64");
    struct node *none = NODE(f, OP_Shape, 1, x);
    ir_set_int(none, "start", 2);
    ir_set_int(none, "end", 1);
    IS(f, infer(f, none), "i64[0]");
    HOLDS(f, OP1(f, OP_Size, x), "64*batch*seq");
}

static void reshape_copies_and_solves(void **state)
{
    struct infer_unit *f = *state;
    struct value *x = in(f, DT_F32, "batch, seq, 64");
    IS(f, OP1(f, OP_Reshape, x, INTS_OF(f, 0, 0, 4, 16)), "f32[batch,seq,4,16]");
    IS(f, OP1(f, OP_Reshape, x, INTS_OF(f, 0, -1, 16)), "f32[batch,4*seq,16]");
    IS(f, OP1(f, OP_Reshape, x, INTS_OF(f, -1, 64)), "f32[batch*seq,64]");
    struct value *flat = in(f, DT_F32, "batch*seq, 64");
    struct value *b = in(f, DT_F32, "batch, 1");
    struct value *batch = OP1(f, OP_Slice, OP1(f, OP_Shape, b), INTS_OF(f, 0), INTS_OF(f, 1));
    struct node *cat = NODE(f, OP_Concat, 1, batch, INTS_OF(f, -1, 64));
    ir_set_int(cat, "axis", 0);
    IS(f, OP1(f, OP_Reshape, flat, infer(f, cat)), "f32[batch,seq,64]");
    struct value *grown = in(f, DT_F32, "batch, past + seq, 64");
    IS(f, OP1(f, OP_Reshape, grown, INTS_OF(f, 0, -1, 4, 16)), "f32[batch,past + seq,4,16]");
}

static void reshape_of_unknown_targets(void **state)
{
    struct infer_unit *f = *state;
    struct value *x = in(f, DT_F32, "batch, seq, 64");
    struct value *two = OP1(f, OP_Reshape, x, in(f, DT_I64, "2"));
    assert_int_equal(two->type->rank, 2);
    struct value *any = OP1(f, OP_Reshape, x, in(f, DT_I64, "n"));
    assert_int_equal(any->type->rank, -1);
    struct value *one = OP1(f, OP_Slice, in(f, DT_I64, "5"), INTS_OF(f, 0), INTS_OF(f, 1));
    struct node *cat = NODE(f, OP_Concat, 1, INTS_OF(f, 0), one, INTS_OF(f, 64));
    ir_set_int(cat, "axis", 0);
    IS(f, OP1(f, OP_Reshape, x, infer(f, cat)), "f32[batch,seq,64]"); /* the only unknown one is solved */
}

static void reshape_contradictions(void **state)
{
    struct infer_unit *f = *state;
    struct value *x = in(f, DT_F32, "2, 3, 4");
    FAILS(f, NODE(f, OP_Reshape, 1, x, INTS_OF(f, 5, 5)), "24 elements");
    FAILS(f, NODE(f, OP_Reshape, 1, x, INTS_OF(f, 5, -1)), "cannot be divided");
    FAILS(f, NODE(f, OP_Reshape, 1, x, INTS_OF(f, -1, -1)), "more than once");
    FAILS(f, NODE(f, OP_Reshape, 1, x, INTS_OF(f, 1, 1, 1, 0)), "rank 3");
    FAILS(f, NODE(f, OP_Reshape, 1, x, INTS_OF(f, -2)), "at least -1");
    FAILS(f, NODE(f, OP_Reshape, 1, x, in(f, DT_F32, "2")), "element type f32");
    FAILS(f, NODE(f, OP_Reshape, 1, x, in(f, DT_I64, "2, 2")), "rank 1");
    FAILS(f, NODE(f, OP_Reshape, 1, x), "missing");
    struct node *zero = NODE(f, OP_Reshape, 1, in(f, DT_F32, "0, 3"), INTS_OF(f, 7, 0));
    ir_set_int(zero, "allowzero", 1);
    IS(f, infer(f, zero), "f32[7,0]");
}

static void squeeze_and_unsqueeze(void **state)
{
    struct infer_unit *f = *state;
    struct value *x = in(f, DT_F32, "1, seq, 1, 8");
    IS(f, OP1(f, OP_Squeeze, x), "f32[seq,8]");
    IS(f, OP1(f, OP_Squeeze, x, INTS_OF(f, -2)), "f32[1,seq,8]");
    IS(f, OP1(f, OP_Unsqueeze, x, INTS_OF(f, 0, -1)), "f32[1,1,seq,1,8,1]");
    FAILS(f, NODE(f, OP_Squeeze, 1, x, INTS_OF(f, 3)), "expected 1");
    struct value *one = in(f, DT_I64, "1"), *two = in(f, DT_I64, "2"); /* axes that are data */
    IS(f, OP1(f, OP_Squeeze, in(f, DT_F32, "1, 3, 4"), one), "f32[3,4]");
    IS(f, OP1(f, OP_Squeeze, in(f, DT_F32, "1, 3, seq"), two), "f32[3]");
    assert_int_equal(OP1(f, OP_Squeeze, x, two)->type->rank, 2);
    FAILS(f, NODE(f, OP_Squeeze, 1, in(f, DT_F32, "1, 3, 4"), two), "1 that can have size 1");
    FAILS(f, NODE(f, OP_Unsqueeze, 1, x, INTS_OF(f, 7)), "axis is 7");
    FAILS(f, NODE(f, OP_Unsqueeze, 1, x, INTS_OF(f, 1, 1)), "twice");
    struct node *flat = NODE(f, OP_Flatten, 1, x);
    ir_set_int(flat, "axis", -2);
    IS(f, infer(f, flat), "f32[seq,8]");
}

/* Exporters write the target of Expand as: where(shape == -1, ones, shape), with ones made by ConstantOfShape. */
static void expand_target_with_minus_one(void **state)
{
    struct infer_unit *f = *state;
    struct value *x = in(f, DT_F32, "batch, 4, 1, total, 16");
    struct value *shape = OP1(f, OP_Shape, in(f, DT_F32, "batch, 4, 2, total, 16"));
    struct value *zeros = OP1(f, OP_ConstantOfShape, OP1(f, OP_Shape, shape));
    IS(f, zeros, "f32[5]");
    const int64_t one_dims[] = {1}, one = 1;
    struct node *fill = NODE(f, OP_ConstantOfShape, 1, INTS_OF(f, 5));
    struct value *value = ir_const(&f->b, DT_I64, 1, one_dims, &one, sizeof one);
    ir_set_attr(fill, "value", *node_attr(value->def, "value"));
    struct value *ones = infer(f, fill);
    HOLDS(f, ones, "1, 1, 1, 1, 1");
    struct value *minus = OP1(f, OP_Mul, ones, int_scalar(f, -1));
    struct value *equal = OP1(f, OP_Equal, shape, minus);
    HOLDS(f, equal, "0, 0, 0, 0, 0");
    struct value *target = OP1(f, OP_Where, equal, ones, shape);
    HOLDS(f, target, "batch, 4, 2, total, 16");
    IS(f, OP1(f, OP_Expand, x, target), "f32[batch,4,2,total,16]");
}

static void arithmetic_on_sizes(void **state)
{
    struct infer_unit *f = *state;
    struct value *past = OP1(f, OP_Gather, OP1(f, OP_Shape, in(f, DT_F32, "batch, 4, past, 16")), int_scalar(f, 2));
    struct value *seq = OP1(f, OP_Gather, OP1(f, OP_Shape, in(f, DT_I64, "batch, seq")), int_scalar(f, -1));
    HOLDS(f, past, "past");
    struct value *total = OP1(f, OP_Add, past, seq);
    HOLDS(f, total, "past + seq");
    HOLDS(f, OP1(f, OP_Sub, total, past), "seq");
    HOLDS(f, OP1(f, OP_Abs, total), "past + seq");
    HOLDS(f, OP1(f, OP_Max, total, past), "past + seq");
    HOLDS(f, OP1(f, OP_Div, OP1(f, OP_Mul, total, int_scalar(f, 8)), int_scalar(f, 2)), "4*past + 4*seq");
    HOLDS(f, OP1(f, OP_Less, total, past), "0");
    struct value *range = OP1(f, OP_Range, past, total, int_scalar(f, 1));
    IS(f, range, "i64[seq]");
    HOLDS(f, OP1(f, OP_Range, int_scalar(f, 1), int_scalar(f, 8), int_scalar(f, 3)), "1, 4, 7");
    HOLDS(f, OP1(f, OP_Range, int_scalar(f, 3), int_scalar(f, 0), int_scalar(f, -2)), "3, 1");
    FAILS(f, NODE(f, OP_Range, 1, past, total, int_scalar(f, 0)), "delta");
    struct node *cast = NODE(f, OP_Cast, 1, total);
    ir_set_int(cast, "to", dtype_table[DT_I32].onnx);
    HOLDS(f, infer(f, cast), "past + seq");
    HOLDS(f, OP1(f, OP_ReduceProd, OP1(f, OP_Shape, in(f, DT_I64, "batch, seq"))), "batch*seq");
}

static void size_of_reads_expressions(void **state)
{
    struct infer_unit *f = *state;
    const expr e[] = {dim(f, "past + seq"), dim(f, "2*batch")};
    struct value *v = ir_sizes(&f->b, e, 2, false);
    IS(f, v, "i64[2]");
    HOLDS(f, infer(f, v->def), "past + seq, 2*batch");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(nm) cmocka_unit_test_setup_teardown(nm, infer_unit_setup, infer_unit_teardown)
        TEST(shape_gives_the_dims),   TEST(reshape_copies_and_solves), TEST(reshape_of_unknown_targets),
        TEST(reshape_contradictions), TEST(squeeze_and_unsqueeze),     TEST(expand_target_with_minus_one),
        TEST(arithmetic_on_sizes),    TEST(size_of_reads_expressions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
