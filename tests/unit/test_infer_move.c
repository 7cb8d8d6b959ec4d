/* Broadcasting, slicing, joining, gathering and moving under symbolic sizes; neutral elements. */
#include "infer_unit.h"

static void broadcasting(void **state)
{
    struct infer_unit *f = *state;
    struct value *x = in(f, DT_F32, "batch, 4, seq, 16");
    IS(f, OP1(f, OP_Add, x, in(f, DT_F32, "16")), "f32[batch,4,seq,16]");
    IS(f, OP1(f, OP_Mul, in(f, DT_F32, "1, 1, seq, 16"), x), "f32[batch,4,seq,16]");
    IS(f, OP1(f, OP_Add, x, in(f, DT_F32, "batch, 4, 7, 16")), "f32[batch,4,7,16]"); /* the constant is believed */
    IS(f, OP1(f, OP_Greater, x, in(f, DT_F32, "")), "bool[batch,4,seq,16]");
    IS(f, OP1(f, OP_Where, in(f, DT_BOOL, "1, 1, seq, 1"), x, in(f, DT_F32, "")), "f32[batch,4,seq,16]");
    FAILS(f, NODE(f, OP_Add, 1, x, in(f, DT_F32, "8")), "does not broadcast");
    FAILS(f, NODE(f, OP_Add, 1, x, in(f, DT_I64, "16")), "element type i64, expected f32");
    FAILS(f, NODE(f, OP_Where, 1, x, x, x), "element type f32, expected bool");
    FAILS(f, NODE(f, OP_Sin, 1, in(f, DT_I32, "4")), "does not take");
}

static void slicing(void **state)
{
    struct infer_unit *f = *state;
    struct value *x = in(f, DT_F32, "batch, seq, 64");
    struct value *zero = INTS_OF(f, 0), *last = INTS_OF(f, INT64_MAX), *axis1 = INTS_OF(f, 1), *axis2 = INTS_OF(f, 2);
    IS(f, OP1(f, OP_Slice, x, zero, last, axis1), "f32[batch,seq,64]");
    IS(f, OP1(f, OP_Slice, x, INTS_OF(f, -1), last, axis1), "f32[batch,min(seq, 1),64]");
    IS(f, OP1(f, OP_Slice, x, INTS_OF(f, 32), last, axis2), "f32[batch,seq,32]");
    IS(f, OP1(f, OP_Slice, x, zero, INTS_OF(f, -8), axis2), "f32[batch,seq,56]");
    IS(f, OP1(f, OP_Slice, x, zero, INTS_OF(f, 64), axis2, INTS_OF(f, 2)), "f32[batch,seq,32]");
    IS(f, OP1(f, OP_Slice, x, INTS_OF(f, -1), INTS_OF(f, INT64_MIN), axis2, INTS_OF(f, -1)), "f32[batch,seq,64]");
    IS(f, OP1(f, OP_Slice, x, INTS_OF(f, 9), INTS_OF(f, 3), axis2), "f32[batch,seq,0]");
    struct value *mask = in(f, DT_BOOL, "1, past + seq");
    struct value *past = OP1(f, OP_Shape, in(f, DT_F32, "past"));
    struct value *total = OP1(f, OP_Shape, mask);
    struct value *end = OP1(f, OP_Slice, total, axis1, INTS_OF(f, 2));
    HOLDS(f, end, "past + seq");
    IS(f, OP1(f, OP_Slice, mask, past, end, axis1), "bool[1,seq]");
    HOLDS(f, OP1(f, OP_Slice, OP1(f, OP_Shape, x), INTS_OF(f, -1), INTS_OF(f, INT64_MIN), zero, INTS_OF(f, -1)),
          "64, seq, batch");
    FAILS(f, NODE(f, OP_Slice, 1, x, zero, last, INTS_OF(f, 3)), "axis is 3");
    FAILS(f, NODE(f, OP_Slice, 1, x, zero, last, zero, zero), "steps) is 0");
}

static struct value *as_shape(struct infer_unit *f, struct value *x, struct value *shape)
{
    return OP1(f, OP_Reshape, x, shape);
}

/* Exporters write the pads of images axis by axis, from the last one: pairs, turned around, transposed. */
static void elements_of_small_matrices(void **state)
{
    struct infer_unit *f = *state;
    struct value *zero = INTS_OF(f, 0), *one = INTS_OF(f, 1), *back = INTS_OF(f, -1), *all = INTS_OF(f, -1);
    struct value *sizes = OP1(f, OP_Shape, in(f, DT_F32, "batch, seq, past, 64"));
    struct value *pairs = as_shape(f, sizes, INTS_OF(f, -1, 2));
    IS(f, pairs, "i64[2,2]");
    HOLDS(f, as_shape(f, pairs, all), "batch, seq, past, 64");
    struct value *turned = OP1(f, OP_Slice, pairs, back, INTS_OF(f, INT64_MIN + 1), zero, back);
    HOLDS(f, as_shape(f, turned, all), "past, 64, batch, seq");
    struct node *t = NODE(f, OP_Transpose, 1, turned);
    ir_set_ints(t, "perm", (const int64_t[]){1, 0}, 2);
    HOLDS(f, as_shape(f, infer(f, t), all), "past, batch, 64, seq");
    HOLDS(f, as_shape(f, OP1(f, OP_Slice, pairs, one, INTS_OF(f, 2), one), all), "seq, 64");
    struct value *cube = as_shape(f, sizes, INTS_OF(f, 2, 1, 2));
    HOLDS(f, as_shape(f, OP1(f, OP_Slice, OP1(f, OP_Transpose, cube), one, INTS_OF(f, 2), zero), all), "seq, 64");
    HOLDS(f, OP1(f, OP_Squeeze, OP1(f, OP_Slice, pairs, one, INTS_OF(f, 2), zero), zero), "past, 64");
    struct value *open = OP1(f, OP_Slice, pairs, OP1(f, OP_Shape, in(f, DT_F32, "past")), INTS_OF(f, 2), zero);
    assert_null(as_shape(f, open, all)->elems);
    assert_null(as_shape(f, in(f, DT_I64, "2, 2"), all)->elems);
}

static struct value *one_float(struct infer_unit *f, float v)
{
    return ir_const(&f->b, DT_F32, 0, NULL, &v, sizeof v);
}

static struct value *converted(struct infer_unit *f, struct value *x, enum dtype to)
{
    struct node *n = NODE(f, OP_Cast, 1, x);
    ir_set_int(n, "to", to == DT_F32 ? 1 : 7);
    return infer(f, n);
}

/* math.ceil(seq / 2) * 2 of a model in Python. */
static void sizes_computed_in_floats(void **state)
{
    struct infer_unit *f = *state;
    struct value *sizes = OP1(f, OP_Shape, in(f, DT_F32, "batch, seq"));
    struct value *seq = converted(f, OP1(f, OP_Gather, sizes, int_scalar(f, 1)), DT_F32);
    struct value *half = OP1(f, OP_Div, seq, one_float(f, 2));
    struct value *pairs = OP1(f, OP_Mul, OP1(f, OP_Ceil, half), one_float(f, 2));
    HOLDS(f, converted(f, pairs, DT_I64), "(seq + 1)//2*2");
    HOLDS(f, converted(f, OP1(f, OP_Floor, half), DT_I64), "seq//2");
    HOLDS(f, converted(f, half, DT_I64), "seq//2");
    HOLDS(f, converted(f, OP1(f, OP_Add, seq, one_float(f, 3)), DT_I64), "seq + 3");
    struct value *minus = OP1(f, OP_Sub, one_float(f, 1), seq);
    HOLDS(f, converted(f, minus, DT_I64), "1 - seq");
    assert_null(converted(f, OP1(f, OP_Div, minus, one_float(f, 2)), DT_I64)->elems); /* towards zero, not down */
    assert_null(converted(f, OP1(f, OP_Div, seq, one_float(f, 0)), DT_I64)->elems);
    assert_null(converted(f, OP1(f, OP_Mul, half, one_float(f, 2)), DT_I64)->elems); /* half is no integer */
    assert_null(converted(f, OP1(f, OP_Mul, seq, one_float(f, 0.5f)), DT_I64)->elems);
    assert_null(converted(f, OP1(f, OP_Ceil, in(f, DT_F32, "")), DT_I64)->elems);
}

static void joining_and_splitting(void **state)
{
    struct infer_unit *f = *state;
    struct node *cat = NODE(f, OP_Concat, 1, in(f, DT_F32, "batch, 4, past, 16"), in(f, DT_F32, "batch, 4, seq, 16"));
    ir_set_int(cat, "axis", -2);
    IS(f, infer(f, cat), "f32[batch,4,past + seq,16]");
    struct node *bad = NODE(f, OP_Concat, 1, in(f, DT_F32, "2, 3"), in(f, DT_F32, "2, 4"));
    ir_set_int(bad, "axis", 0);
    FAILS(f, bad, "size 4 on axis 1, expected 3");
    struct node *append =
        NODE(f, OP_CacheAppend, 1, in(f, DT_F32, "batch, 4, past, 16"), in(f, DT_F32, "batch, 4, seq, 16"));
    ir_set_int(append, "capacity", 128);
    struct value *cache = infer(f, append);
    assert_int_equal(cache->type->layout.kind, LAYOUT_CACHE);
    assert_int_equal(cache->type->dims[2], dim(f, "past + seq"));
    struct node *split = NODE(f, OP_Split, 3, in(f, DT_F32, "batch, seq, 96"));
    ir_set_int(split, "axis", -1);
    IS(f, infer(f, split), "f32[batch,seq,32]");
    IS(f, &split->out[2], "f32[batch,seq,32]");
    struct node *uneven = NODE(f, OP_Split, 2, in(f, DT_F32, "7"));
    IS(f, infer(f, uneven), "f32[4]");
    IS(f, &uneven->out[1], "f32[3]");
    struct node *sized = NODE(f, OP_Split, 2, in(f, DT_F32, "7"), INTS_OF(f, 5, 1));
    FAILS(f, sized, "add up to 6");
}

static void gathering(void **state)
{
    struct infer_unit *f = *state;
    struct value *ids = in(f, DT_I64, "batch, seq");
    IS(f, OP1(f, OP_Gather, in(f, DT_F32, "256, 64"), ids), "f32[batch,seq,64]");
    IS(f, OP1(f, OP_Gather, in(f, DT_F32, "256, 64"), int_scalar(f, -1)), "f32[64]");
    FAILS(f, NODE(f, OP_Gather, 1, in(f, DT_F32, "4, 64"), int_scalar(f, 4)), "index 4");
    FAILS(f, NODE(f, OP_Gather, 1, in(f, DT_F32, "4"), in(f, DT_F32, "2")), "expected i64 or i32");
    IS(f, OP1(f, OP_GatherND, in(f, DT_F32, "batch, seq, 8"), in(f, DT_I64, "5, 2")), "f32[5,8]");
    IS(f, OP1(f, OP_ScatterND, in(f, DT_F32, "batch, seq, 8"), in(f, DT_I64, "5, 2"), in(f, DT_F32, "5, 8")),
       "f32[batch,seq,8]");
    struct value *found = OP1(f, OP_NonZero, in(f, DT_BOOL, "seq, 8"));
    assert_int_equal(found->type->rank, 2);
    assert_true(expr_range_of(&f->cx.exprs, found->type->dims[1]).min == 0);
    struct node *top = NODE(f, OP_TopK, 2, in(f, DT_F32, "seq, 8"), INTS_OF(f, 2));
    IS(f, infer(f, top), "f32[seq,2]");
    IS(f, &top->out[1], "i64[seq,2]");
}

static void transposition(void **state)
{
    struct infer_unit *f = *state;
    struct value *x = in(f, DT_F32, "batch, seq, 4, 16");
    const int64_t swap[] = {0, 2, 1, 3}, same[] = {0, 1, 2, 3}, bad[] = {0, 1, 1, 3};
    IS(f, OP1(f, OP_Transpose, x), "f32[16,4,seq,batch]");
    struct node *a = NODE(f, OP_Transpose, 1, x);
    ir_set_ints(a, "perm", swap, 4);
    IS(f, infer(f, a), "f32[batch,4,seq,16]");
    struct node *b = NODE(f, OP_Transpose, 1, &a->out[0]);
    ir_set_ints(b, "perm", swap, 4);
    (void)infer(f, b);
    assert_ptr_equal(op_table[OP_Transpose]->fold(&f->cx, b), x);
    assert_null(op_table[OP_Transpose]->fold(&f->cx, a));
    struct node *c = NODE(f, OP_Transpose, 1, x);
    ir_set_ints(c, "perm", same, 4);
    (void)infer(f, c);
    assert_ptr_equal(op_table[OP_Transpose]->fold(&f->cx, c), x);
    ir_set_ints(c, "perm", bad, 4);
    FAILS(f, c, "no permutation");
}

static struct value *folded(struct infer_unit *f, enum op op, struct value *a, struct value *b)
{
    struct node *n = NODE(f, op, 1, a, b);
    (void)infer(f, n);
    return op_table[op]->fold(&f->cx, n);
}

static void neutral_elements(void **state)
{
    struct infer_unit *f = *state;
    struct value *x = in(f, DT_F32, "seq, 8"), *i = in(f, DT_I64, "seq");
    assert_ptr_equal(folded(f, OP_Mul, x, ir_scalar_f32(&f->b, 1)), x);
    assert_ptr_equal(folded(f, OP_Mul, ir_scalar_f32(&f->b, 1), x), x);
    assert_ptr_equal(folded(f, OP_Div, x, ir_scalar_f32(&f->b, 1)), x);
    assert_ptr_equal(folded(f, OP_Sub, x, ir_scalar_f32(&f->b, 0)), x);
    assert_ptr_equal(folded(f, OP_Add, x, ir_scalar_f32(&f->b, -0.0f)), x);
    assert_null(folded(f, OP_Add, x, ir_scalar_f32(&f->b, 0))); /* -0 + 0 is 0 */
    assert_ptr_equal(folded(f, OP_Add, i, int_scalar(f, 0)), i);
    assert_null(folded(f, OP_Mul, ir_scalar_f32(&f->b, 1), ir_scalar_f32(&f->b, 2)) == x ? x : NULL);
    assert_null(folded(f, OP_Mul, x, ir_scalar_f32(&f->b, 2)));
    assert_ptr_equal(folded(f, OP_Reshape, x, INTS_OF(f, -1, 8)), x);
    assert_ptr_equal(folded(f, OP_Expand, x, INTS_OF(f, 1, 8)), x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(nm) cmocka_unit_test_setup_teardown(nm, infer_unit_setup, infer_unit_teardown)
        TEST(broadcasting),
        TEST(slicing),
        TEST(elements_of_small_matrices),
        TEST(sizes_computed_in_floats),
        TEST(joining_and_splitting),
        TEST(gathering),
        TEST(transposition),
        TEST(neutral_elements),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
