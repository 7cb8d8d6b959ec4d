/* Einsum, transforms, recurrent and stateful operators, random numbers, losses. */
#include "infer_unit.h"

static struct node *einsum(struct infer_unit *f, const char *equation, const char *a, const char *b)
{
    struct node *n =
        b ? NODE(f, OP_Einsum, 1, in(f, DT_F32, a), in(f, DT_F32, b)) : NODE(f, OP_Einsum, 1, in(f, DT_F32, a));
    ir_set_str(n, "equation", equation);
    return n;
}

static void equations(void **state)
{
    struct infer_unit *f = *state;
    IS(f, infer(f, einsum(f, "bshd,bthd->bst", "b, s, 4, 8", "b, t, 4, 8")), "f32[b,s,t]");
    IS(f, infer(f, einsum(f, "ij,jk", "3, 4", "4, n")), "f32[3,n]");
    IS(f, infer(f, einsum(f, "...ij->...ji", "b, 2, 3, n", NULL)), "f32[b,2,n,3]");
    IS(f, infer(f, einsum(f, "ii", "4, 4", NULL)), "f32[]");
    IS(f, infer(f, einsum(f, "ij,ij->ij", "1, 4", "3, 4")), "f32[3,4]");
    FAILS(f, einsum(f, "ij,jk->ik", "3, 4", "5, 6"), "input 1 has 5 on axis 0, where the label has 4 elsewhere");
    FAILS(f, einsum(f, "ij->k", "3, 4", NULL), "a label twice or one that no operand has");
    FAILS(f, einsum(f, "ijk->i", "3, 4", NULL), "as many labels as its operand has dims");
    FAILS(f, einsum(f, "i,j->i", "3", NULL), "another number of terms");
    FAILS(f, einsum(f, "i2->i", "3, 4", NULL), "no letter");
}

static void transforms(void **state)
{
    struct infer_unit *f = *state;
    struct node *half = NODE(f, OP_DFT, 1, in(f, DT_F32, "b, n, 1"));
    ir_set_int(half, "onesided", 1);
    IS(f, infer(f, half), "f32[b,n//2 + 1,2]");
    IS(f, OP1(f, OP_DFT, in(f, DT_F32, "9, 3, 2"), int_scalar(f, 16), int_scalar(f, 0)), "f32[16,3,2]");
    FAILS(f, NODE(f, OP_DFT, 1, in(f, DT_F32, "9, 3, 2"), NULL, int_scalar(f, 2)), "the one of the complex parts");
    FAILS(f, NODE(f, OP_DFT, 1, in(f, DT_F32, "9, 3")), "a last axis of 1 (real) or 2 (complex)");
    IS(f, OP1(f, OP_STFT, in(f, DT_F32, "2, n, 1"), int_scalar(f, 8), in(f, DT_F32, "16")), "f32[2,n//8 - 1,9,2]");
    FAILS(f, NODE(f, OP_STFT, 1, in(f, DT_F32, "2, n, 1"), int_scalar(f, 8), in(f, DT_F32, "16"), int_scalar(f, 12)),
          "input 2 (window) has 16 elements, a frame 12");
    IS(f, OP1(f, OP_HannWindow, int_scalar(f, 12)), "f32[12]");
    FAILS(f, NODE(f, OP_HannWindow, 1, int_scalar(f, -1)), "expected at least 0");
}

static void recurrent(void **state)
{
    struct infer_unit *f = *state;
    struct node *n =
        NODE(f, OP_LSTM, 3, in(f, DT_F32, "t, b, 5"), in(f, DT_F32, "2, 16, 5"), in(f, DT_F32, "2, 16, 4"));
    ir_set_str(n, "direction", "bidirectional");
    IS(f, infer(f, n), "f32[t,2,b,4]");
    assert_string_equal(type_text(&f->cx, n->out[2].type), "f32[2,b,4]");
    struct node *first =
        NODE(f, OP_GRU, 2, in(f, DT_F32, "b, t, 5"), in(f, DT_F32, "1, 12, 5"), in(f, DT_F32, "1, 12, 4"));
    ir_set_int(first, "layout", 1);
    IS(f, infer(f, first), "f32[b,t,1,4]");
    assert_string_equal(type_text(&f->cx, first->out[1].type), "f32[b,1,4]");
    FAILS(f, NODE(f, OP_RNN, 2, in(f, DT_F32, "t, b, 5"), in(f, DT_F32, "1, 4, 6"), in(f, DT_F32, "1, 4, 4")),
          "input 1 has 6 on axis 2, expected 5 (input size)");
    FAILS(f, NODE(f, OP_LSTM, 3, in(f, DT_F32, "t, b, 5"), in(f, DT_F32, "1, 12, 5"), in(f, DT_F32, "1, 16, 4")),
          "expected 16 (gates * hidden size)");
    struct node *way = NODE(f, OP_RNN, 2, in(f, DT_F32, "t, b, 5"), in(f, DT_F32, "1, 4, 5"), in(f, DT_F32, "1, 4, 4"));
    ir_set_str(way, "direction", "sideways");
    FAILS(f, way, "direction");
}

static struct node *linear(struct infer_unit *f, const char *rule, struct value *decay)
{
    struct node *n = NODE(f, OP_LinearAttention, 2, in(f, DT_F16, "b, t, 32"), in(f, DT_F16, "b, t, 16"),
                          in(f, DT_F16, "b, t, 12"), NULL, decay);
    ir_set_int(n, "q_num_heads", 4);
    ir_set_int(n, "kv_num_heads", 2);
    ir_set_str(n, "update_rule", rule);
    return n;
}

static void stateful(void **state)
{
    struct infer_unit *f = *state;
    struct node *n = linear(f, "gated", in(f, DT_F16, "b, t, 2"));
    IS(f, infer(f, n), "f16[b,t,24]");
    assert_string_equal(type_text(&f->cx, n->out[1].type), "f16[b,2,8,6]");
    FAILS(f, linear(f, "delta", NULL), "needs no decay (input 4) and a beta (input 5)");
    struct node *conv = NODE(f, OP_CausalConvWithState, 2, in(f, DT_F32, "b, l, 2, 3"), in(f, DT_F32, "6, 1, 4"));
    ir_set_int(conv, "channels_last", 1);
    ir_set_int(conv, "dilation", 2);
    IS(f, infer(f, conv), "f32[b,l,2,3]");
    assert_string_equal(type_text(&f->cx, conv->out[1].type), "f32[b,6,2,3]");
    FAILS(f, NODE(f, OP_CausalConvWithState, 2, in(f, DT_F32, "b, 5, l"), in(f, DT_F32, "6, 1, 4")), "(channels)");
}

static void random_numbers(void **state)
{
    struct infer_unit *f = *state;
    const int64_t shape[] = {2, 3};
    struct node *n = ir_new(&f->b, OP_RandomNormal, 0, NULL, 1);
    ir_set_ints(n, "shape", shape, 2);
    ir_set_int(n, "dtype", 10);
    IS(f, infer(f, n), "f16[2,3]");
    IS(f, OP1(f, OP_RandomUniformLike, in(f, DT_F32, "b, 4")), "f32[b,4]");
    FAILS(f, NODE(f, OP_RandomUniformLike, 1, in(f, DT_I64, "b, 4")), "expected a float type");
    struct node *draws = NODE(f, OP_Multinomial, 1, in(f, DT_F32, "b, 9"));
    ir_set_int(draws, "sample_size", 5);
    IS(f, infer(f, draws), "i32[b,5]");
}

static void losses(void **state)
{
    struct infer_unit *f = *state;
    struct value *x = in(f, DT_F32, "n, 5, d");
    struct node *all = NODE(f, OP_SoftmaxCrossEntropyLoss, 2, x, in(f, DT_I64, "n, d"));
    ir_set_str(all, "reduction", "none");
    IS(f, infer(f, all), "f32[n,d]");
    IS(f, OP1(f, OP_NegativeLogLikelihoodLoss, x, in(f, DT_I32, "n, d"), in(f, DT_F32, "5")), "f32[]");
    FAILS(f, NODE(f, OP_NegativeLogLikelihoodLoss, 1, x, in(f, DT_I64, "n")), "one dim less than the scores");
    FAILS(f, NODE(f, OP_NegativeLogLikelihoodLoss, 1, x, in(f, DT_I64, "n, d"), in(f, DT_F32, "4")),
          "one weight for each of 5 classes");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, infer_unit_setup, infer_unit_teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {TEST(equations), TEST(transforms),     TEST(recurrent),
                                       TEST(stateful),  TEST(random_numbers), TEST(losses)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
