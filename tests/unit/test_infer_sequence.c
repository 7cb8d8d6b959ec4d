/* Types of sequences, optionals and text, and what two paths share. */
#include "infer_unit.h"

static struct value *empty(struct infer_unit *f)
{
    return infer(f, node(f, OP_SequenceEmpty, 1, 0, NULL));
}

static void sequences(void **state)
{
    struct infer_unit *f = *state;
    struct value *x = in(f, DT_F32, "batch, 4"), *z = in(f, DT_F32, "7, 4"), *one = int_scalar(f, 1);
    struct value *same = OP1(f, OP_SequenceConstruct, x, x), *mixed = OP1(f, OP_SequenceConstruct, x, z);
    IS(f, same, "seq(f32[batch,4])");
    IS(f, mixed, "seq(f32[?,4])");
    IS(f, OP1(f, OP_SequenceConstruct, x, in(f, DT_F32, "4")), "seq(f32[*])");
    IS(f, OP1(f, OP_SequenceAt, same, one), "f32[batch,4]");
    assert_int_equal(OP1(f, OP_SequenceAt, mixed, one)->type->rank, 2);
    IS(f, empty(f), "seq(none f32)");
    IS(f, OP1(f, OP_SequenceInsert, empty(f), x), "seq(f32[batch,4])");
    IS(f, OP1(f, OP_SequenceErase, mixed), "seq(f32[?,4])");
    IS(f, OP1(f, OP_SequenceLength, mixed), "i64[]");
    assert_int_equal(OP1(f, OP_SequenceAt, empty(f), one)->type->rank, -1);
    FAILS(f, NODE(f, OP_SequenceAt, 1, x, one), "expected a sequence");
    FAILS(f, NODE(f, OP_SequenceAt, 1, same, x), "expected one i32 or i64");
    FAILS(f, NODE(f, OP_SequenceInsert, 1, same, in(f, DT_I64, "4")), "the elements of the sequence are");
    FAILS(f, NODE(f, OP_SequenceInsert, 1, same, same), "expected a tensor");
}

static void cutting(void **state)
{
    struct infer_unit *f = *state;
    struct value *x = in(f, DT_F32, "batch, 6");
    struct node *n = NODE(f, OP_SplitToSequence, 1, x, int_scalar(f, 2));
    ir_set_int(n, "axis", 1);
    IS(f, infer(f, n), "seq(f32[batch,2])");
    IS(f, OP1(f, OP_SplitToSequence, x, int_scalar(f, 4)), "seq(f32[?,6])");
    n = NODE(f, OP_SplitToSequence, 1, x);
    ir_set_int(n, "keepdims", 0);
    struct value *rows = infer(f, n);
    IS(f, rows, "seq(f32[6])");
    n = NODE(f, OP_ConcatFromSequence, 1, rows);
    ir_set_int(n, "new_axis", 1);
    ir_set_int(n, "axis", -1);
    assert_int_equal(infer(f, n)->type->rank, 2);
    n = NODE(f, OP_ConcatFromSequence, 1, rows);
    ir_set_int(n, "axis", 1);
    FAILS(f, n, "axis");
}

static void optionals(void **state)
{
    struct infer_unit *f = *state;
    struct value *x = in(f, DT_F32, "batch"), *o = OP1(f, OP_Optional, x);
    IS(f, o, "opt(f32[batch])");
    IS(f, OP1(f, OP_OptionalGetElement, o), "f32[batch]");
    HOLDS(f, OP1(f, OP_OptionalHasElement, o), "1");
    HOLDS(f, infer(f, node(f, OP_OptionalHasElement, 1, 0, NULL)), "0");
    HOLDS(f, OP1(f, OP_OptionalHasElement, ir_input_new(f->g, o->type, 0)), "");
    FAILS(f, node(f, OP_Optional, 1, 0, NULL), "what is absent");
    FAILS(f, NODE(f, OP_Optional, 1, o), "optional of an optional");
}

static const struct type *list(struct infer_unit *f, struct value *v)
{
    return type_intern(&f->cx, &(struct type){.kind = TYPE_SEQUENCE, .elem = v->type});
}

static void joins(void **state)
{
    struct infer_unit *f = *state;
    const struct type *a = list(f, in(f, DT_F32, "batch, 4")), *b = list(f, in(f, DT_F32, "7, 4"));
    const struct type *none = empty(f)->type;
    assert_ptr_equal(type_join(&f->cx, a, a), a);
    assert_string_equal(type_text(&f->cx, type_join(&f->cx, a, b)), "seq(f32[?,4])");
    assert_string_equal(type_text(&f->cx, type_join(&f->cx, none, a)), "seq(f32[?,4])");
    assert_null(type_join(&f->cx, a, list(f, in(f, DT_I64, "7, 4"))));
    const struct type *opt = type_intern(&f->cx, &(struct type){.kind = TYPE_OPTIONAL, .elem = a});
    assert_string_equal(type_text(&f->cx, type_join(&f->cx, opt, b)), "opt(seq(f32[?,4]))");
    assert_true(type_is_object(a) && type_is_object(opt) && type_is_object(in(f, DT_STRING, "4")->type));
    assert_false(type_is_object(in(f, DT_F32, "4")->type));
}

static void text(void **state)
{
    struct infer_unit *f = *state;
    struct value *s = in(f, DT_STRING, "batch, 1"), *t = in(f, DT_STRING, "3");
    IS(f, OP1(f, OP_StringConcat, s, t), "string[batch,3]");
    IS(f, OP1(f, OP_Equal, s, t), "bool[batch,3]");
    IS(f, OP1(f, OP_RegexFullMatch, s), "bool[batch,1]");
    struct node *n = NODE(f, OP_StringSplit, 2, s);
    assert_int_equal(infer(f, n)->type->rank, 3);
    IS(f, &n->out[1], "i64[batch,1]");
    FAILS(f, NODE(f, OP_StringConcat, 1, s, in(f, DT_I64, "3")), "element type i64, expected string");
    FAILS(f, NODE(f, OP_StringNormalizer, 1, in(f, DT_STRING, "1, 2, 3")), "[1, C]");
    FAILS(f, NODE(f, OP_Add, 1, s, t), "does not take");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(sequences, infer_unit_setup, infer_unit_teardown),
        cmocka_unit_test_setup_teardown(cutting, infer_unit_setup, infer_unit_teardown),
        cmocka_unit_test_setup_teardown(optionals, infer_unit_setup, infer_unit_teardown),
        cmocka_unit_test_setup_teardown(joins, infer_unit_setup, infer_unit_teardown),
        cmocka_unit_test_setup_teardown(text, infer_unit_setup, infer_unit_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
