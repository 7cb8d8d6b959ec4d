/* Matrix products, attention, normalisation, reductions, quantisation, bodies. */
#include <math.h>

#include "infer_unit.h"

static void products(void **state)
{
    struct infer_unit *f = *state;
    struct value *x = in(f, DT_F32, "batch, seq, 64");
    IS(f, OP1(f, OP_MatMul, x, in(f, DT_F32, "64, 256")), "f32[batch,seq,256]");
    IS(f, OP1(f, OP_MatMul, in(f, DT_F32, "batch, 4, seq, 16"), in(f, DT_F32, "batch, 4, 16, total")),
       "f32[batch,4,seq,total]");
    IS(f, OP1(f, OP_MatMul, in(f, DT_F32, "64"), in(f, DT_F32, "64, 3")), "f32[3]");
    IS(f, OP1(f, OP_MatMul, in(f, DT_F32, "64"), in(f, DT_F32, "64")), "f32[]");
    FAILS(f, NODE(f, OP_MatMul, 1, x, in(f, DT_F32, "32, 8")), "64 columns, 32 rows");
    FAILS(f, NODE(f, OP_MatMul, 1, x, in(f, DT_F16, "64, 8")), "element type f16, expected f32");
    struct node *gemm = NODE(f, OP_Gemm, 1, in(f, DT_F32, "seq, 8"), in(f, DT_F32, "5, 8"), in(f, DT_F32, "5"));
    ir_set_int(gemm, "transB", 1);
    IS(f, infer(f, gemm), "f32[seq,5]");
    IS(f, OP1(f, OP_MatMulInteger, in(f, DT_U8, "seq, 8"), in(f, DT_I8, "8, 5")), "i32[seq,5]");
}

static struct node *nbits(struct infer_unit *f, const char *scales)
{
    struct node *n =
        NODE(f, OP_MatMulNBits, 1, in(f, DT_F16, "batch, seq, 64"), in(f, DT_U8, "256, 2, 16"), in(f, DT_F16, scales));
    ir_set_int(n, "K", 64);
    ir_set_int(n, "N", 256);
    ir_set_int(n, "block_size", 32);
    return n;
}

static void block_quantised(void **state)
{
    struct infer_unit *f = *state;
    IS(f, infer(f, nbits(f, "512")), "f16[batch,seq,256]");
    FAILS(f, nbits(f, "256"), "expected 512");
    struct node *packed = nbits(f, "512");
    ir_set_int(packed, "weight_prepacked", 1);
    FAILS(f, packed, "weight_prepacked = 0");
    struct node *table = NODE(f, OP_GatherBlockQuantized, 1, in(f, DT_U8, "256, 32"), in(f, DT_I64, "batch, seq"),
                              in(f, DT_F32, "256, 2"));
    ir_set_int(table, "block_size", 32);
    IS(f, infer(f, table), "f32[batch,seq,64]");
}

static void rows_that_choose(void **state)
{
    struct infer_unit *f = *state;
    struct value *x = in(f, DT_F16, "rows, 8"), *index = in(f, DT_I64, "rows"), *w = in(f, DT_F16, "8, 5");
    IS(f, OP1(f, OP_GroupedMatMul, x, index, w, w, w), "f16[rows,5]");
    struct node *n = NODE(f, OP_GroupedMatMul, 1, x, index, in(f, DT_F16, "4, 5, 8"), in(f, DT_I64, "4"));
    ir_set_int(n, "sorted", 1);
    ir_set_int(n, "transB", 1);
    IS(f, infer(f, n), "f16[rows,5]");
    FAILS(f, NODE(f, OP_GroupedMatMul, 1, x, index, w, in(f, DT_F16, "8, 6")), "but input 2 has type");
    FAILS(f, NODE(f, OP_GroupedMatMul, 1, x, index, in(f, DT_F16, "7, 5")), "do not multiply");
    FAILS(f, NODE(f, OP_GroupedMatMul, 1, x, in(f, DT_I64, "rows, 1"), w), "rank 1");
    struct node *q = NODE(f, OP_GroupedMatMulNBits, 1, in(f, DT_F16, "rows, 64"), index, in(f, DT_U8, "4, 5, 2, 16"),
                          in(f, DT_F16, "4, 5, 2"));
    ir_set_int(q, "K", 64);
    ir_set_int(q, "N", 5);
    ir_set_int(q, "block_size", 32);
    IS(f, infer(f, q), "f16[rows,5]");
    ir_set_int(q, "N", 6);
    FAILS(f, q, "expected 768");
    struct node *o = NODE(f, OP_GroupOrder, 4, index);
    FAILS(f, o, "attribute 'groups'");
    ir_set_int(o, "groups", 4);
    IS(f, infer(f, o), "i64[rows]");
    IS(f, &o->out[2], "i64[4]");
    IS(f, &o->out[3], "i64[rows]");
}

static void attention(void **state)
{
    struct infer_unit *f = *state;
    struct value *q = in(f, DT_F32, "batch, 4, seq, 16"), *kv = in(f, DT_F32, "batch, 2, seq, 16"),
                 *past = in(f, DT_F32, "batch, 2, past, 16");
    struct node *n = NODE(f, OP_Attention, 3, q, kv, kv, in(f, DT_F32, "batch, 1, seq, past + seq"), past, past);
    IS(f, infer(f, n), "f32[batch,4,seq,16]");
    IS(f, &n->out[1], "f32[batch,2,past + seq,16]");
    struct node *flat = NODE(f, OP_Attention, 1, in(f, DT_F32, "batch, seq, 64"), in(f, DT_F32, "batch, total, 32"),
                             in(f, DT_F32, "batch, total, 32"));
    ir_set_int(flat, "q_num_heads", 4);
    ir_set_int(flat, "kv_num_heads", 2);
    IS(f, infer(f, flat), "f32[batch,seq,64]");
    FAILS(f, NODE(f, OP_Attention, 1, q, in(f, DT_F32, "batch, 3, seq, 16"), in(f, DT_F32, "batch, 3, seq, 16")),
          "no multiple of 3");
    FAILS(f, NODE(f, OP_Attention, 1, q, in(f, DT_F32, "batch, 2, seq, 8"), in(f, DT_F32, "batch, 2, seq, 8")),
          "head size");
    struct node *half = NODE(f, OP_Attention, 1, q, kv, kv, NULL, past);
    FAILS(f, half, "come together");
    const int64_t symbols[] = {1, 8, 24};
    assert_int_equal(f->cx.exprs.symbols.len, 4);
    int64_t by_symbol[8] = {0};
    const char *names[] = {"batch", "seq", "past"};
    for (int i = 0; i < 3; i++)
        by_symbol[expr_symbol_find(&f->cx.exprs, str_internz(&f->cx.strings, names[i]))] = symbols[i];
    struct cost c;
    op_table[OP_Attention]->cost(&f->cx, n, by_symbol, &c);
    assert_true(c.macs == 2.0 * 4 * 8 * 32 * 16);
}

static void group_query(void **state)
{
    struct infer_unit *f = *state;
    struct value *past = in(f, DT_F16, "batch, 2, past, 16"), *total = in(f, DT_I32, "");
    struct node *n = NODE(f, OP_GroupQueryAttention, 3, in(f, DT_F16, "batch, seq, 128"), NULL, NULL, past, past,
                          in(f, DT_I32, "batch"), total);
    ir_set_int(n, "num_heads", 4);
    ir_set_int(n, "kv_num_heads", 2);
    IS(f, infer(f, n), "f16[batch,seq,64]");
    IS(f, &n->out[2], "f16[batch,2,past + seq,16]");
    struct value *mask = in(f, DT_I64, "batch, past + seq");
    struct node *cast = NODE(f, OP_Cast, 1, OP1(f, OP_Gather, OP1(f, OP_Shape, mask), int_scalar(f, 1)));
    ir_set_int(cast, "to", dtype_table[DT_I32].onnx);
    struct node *m =
        NODE(f, OP_GroupQueryAttention, 3, in(f, DT_F16, "batch, seq, 64"), in(f, DT_F16, "batch, seq, 32"),
             in(f, DT_F16, "batch, seq, 32"), past, past, in(f, DT_I32, "batch"), infer(f, cast));
    ir_set_int(m, "num_heads", 4);
    ir_set_int(m, "kv_num_heads", 2);
    IS(f, infer(f, m), "f16[batch,seq,64]");
    IS(f, &m->out[1], "f16[batch,2,past + seq,16]");
    ir_set_int(m, "kv_num_heads", 3);
    FAILS(f, m, "no multiple of 3");
}

static void normalisation_and_reduction(void **state)
{
    struct infer_unit *f = *state;
    struct value *x = in(f, DT_F16, "batch, seq, 64");
    IS(f, OP1(f, OP_RMSNormalization, x, in(f, DT_F32, "64")), "f32[batch,seq,64]");
    struct node *ln = NODE(f, OP_LayerNormalization, 3, x, in(f, DT_F16, "64"), in(f, DT_F16, "64"));
    IS(f, infer(f, ln), "f16[batch,seq,64]");
    IS(f, &ln->out[2], "f32[batch,seq,1]");
    FAILS(f, NODE(f, OP_RMSNormalization, 1, x, in(f, DT_F16, "63")), "does not broadcast");
    IS(f, OP1(f, OP_ReduceMean, x, INTS_OF(f, -1)), "f16[batch,seq,1]");
    struct node *flat = NODE(f, OP_ReduceSum, 1, x, INTS_OF(f, 1));
    ir_set_int(flat, "keepdims", 0);
    IS(f, infer(f, flat), "f16[batch,64]");
    IS(f, OP1(f, OP_ReduceMax, x), "f16[1,1,1]");
    IS(f, OP1(f, OP_Softmax, x), "f16[batch,seq,64]");
    IS(f, OP1(f, OP_ArgMax, x), "i64[1,seq,64]");
    FAILS(f, NODE(f, OP_ArgMin, 1, in(f, DT_F32, "0, seq")), "no element on axis 0");
    FAILS(f, NODE(f, OP_Softmax, 1, in(f, DT_I64, "4")), "expected a float type");
}

static void quantisation(void **state)
{
    struct infer_unit *f = *state;
    struct node *n = NODE(f, OP_DequantizeLinear, 1, in(f, DT_I4, "64, 256"), in(f, DT_F16, "2, 256"));
    ir_set_int(n, "axis", 0);
    ir_set_int(n, "block_size", 32);
    IS(f, infer(f, n), "f16[64,256]");
    ir_set_int(n, "block_size", 16);
    FAILS(f, n, "expected 4");
    FAILS(f, NODE(f, OP_DequantizeLinear, 1, in(f, DT_I8, "8, 4"), in(f, DT_F32, "4"), in(f, DT_I8, "3")),
          "3 values on axis 0, the scale has 4");
    struct node *q = NODE(f, OP_DynamicQuantizeLinear, 3, in(f, DT_F32, "seq, 8"));
    IS(f, infer(f, q), "u8[seq,8]");
    IS(f, &q->out[1], "f32[]");
}

static void windows(void **state)
{
    struct infer_unit *f = *state;
    const int64_t pads[] = {1, 1, 1, 1}, strides[] = {2, 2};
    struct node *n =
        NODE(f, OP_Conv, 1, in(f, DT_F32, "batch, 3, 32, 32"), in(f, DT_F32, "8, 3, 3, 3"), in(f, DT_F32, "8"));
    ir_set_ints(n, "pads", pads, 4);
    IS(f, infer(f, n), "f32[batch,8,32,32]");
    struct node *s = NODE(f, OP_Conv, 1, in(f, DT_F32, "batch, 3, 32, 32"), in(f, DT_F32, "8, 3, 3, 3"));
    ir_set_ints(s, "strides", strides, 2);
    IS(f, infer(f, s), "f32[batch,8,15,15]");
    FAILS(f, NODE(f, OP_Conv, 1, in(f, DT_F32, "1, 4, 8, 8"), in(f, DT_F32, "8, 3, 3, 3")), "4 channels");
    struct value *scale = in(f, DT_F32, ""), *zero = in(f, DT_U8, ""), *w = in(f, DT_I8, "8, 3, 3, 3");
    struct value *x = in(f, DT_U8, "batch, 3, 32, 32"), *w_zero = in(f, DT_I8, "8");
    IS(f, OP1(f, OP_QLinearConv, x, scale, zero, w, scale, w_zero, scale, zero), "u8[batch,8,30,30]");
    FAILS(f, NODE(f, OP_QLinearConv, 1, x, scale, zero, w, scale, zero, scale, zero), "i8");
    IS(f, OP1(f, OP_GlobalLpPool, in(f, DT_F16, "batch, 3, h, w")), "f16[batch,3,1,1]");
    struct node *lp = NODE(f, OP_LpPool, 1, in(f, DT_F32, "batch, 3, 32, 32"));
    ir_set_ints(lp, "kernel_shape", strides, 2);
    IS(f, infer(f, lp), "f32[batch,3,31,31]");
}

static void windows_that_do_not_fit(void **state)
{
    struct infer_unit *f = *state;
    FAILS(f, NODE(f, OP_Conv, 1, in(f, DT_F32, "1, 1, 8, 8"), in(f, DT_F32, "1, 1, 9, 9")), "does not fit");
    FAILS(f, NODE(f, OP_Conv, 1, in(f, DT_F32, "1, 3, 8, 8"), in(f, DT_F32, "4, 3, 3, 3"), in(f, DT_F32, "3")),
          "each of 4 channels");
    struct node *t = NODE(f, OP_ConvTranspose, 1, in(f, DT_F32, "1, 3, 8, 8"), in(f, DT_F32, "3, 2, 3, 3"));
    ir_set_int(t, "group", 2);
    FAILS(f, t, "2 groups do not divide");
    struct node *c = NODE(f, OP_Conv, 1, in(f, DT_F32, "1, 2, 8, 8"), in(f, DT_F32, "3, 1, 3, 3"));
    ir_set_int(c, "group", 2);
    FAILS(f, c, "3 output channels");
}

static struct value *scales(struct infer_unit *f, float last)
{
    const int64_t four = 4;
    const float v[4] = {1, 1, 1, last};
    return ir_const(&f->b, DT_F32, 1, &four, v, sizeof v);
}

static void resizes(void **state)
{
    struct infer_unit *f = *state;
    struct value *x = in(f, DT_F32, "n, 3, 8, 8");
    IS(f, OP1(f, OP_Resize, x, NULL, scales(f, 2.5f)), "f32[n,3,8,20]");
    FAILS(f, NODE(f, OP_Resize, 1, x, NULL, scales(f, 0)), "has 0 for axis 3");
    FAILS(f, NODE(f, OP_Resize, 1, x, NULL, scales(f, NAN)), "has nan for axis 3");
    FAILS(f, NODE(f, OP_Resize, 1, x, NULL, scales(f, 1e30f)), "at most");
    FAILS(f, NODE(f, OP_Resize, 1, x, NULL, scales(f, 2), INTS_OF(f, 1, 3, 8, 16)), "expected one of them");
    FAILS(f, NODE(f, OP_Resize, 1, x), "neither");
}

/* body(i, cond, x) -> cond, concat(x, y), x: the carried value grows, the last result is stacked. */
static void loop_with_growing_state(void **state)
{
    struct infer_unit *f = *state;
    const bool yes = true;
    struct value *start = ir_const(&f->b, DT_BOOL, 0, NULL, &yes, sizeof yes);
    struct value *x = in(f, DT_F32, "1, 8"), *y = in(f, DT_F32, "1, 8");
    struct node *n = NODE(f, OP_Loop, 2, int_scalar(f, 5), start, x);
    struct graph *g = ir_region_new(n, 0);
    struct value *none = ir_input_new(g, type_tensor(&f->cx, DT_I64, 0, NULL), 0);
    struct value *again = ir_input_new(g, type_tensor(&f->cx, DT_BOOL, 0, NULL), 0);
    struct value *carried = ir_input_new(g, x->type, 0);
    (void)none;
    struct builder b = ir_at_end(g);
    struct node *cat = ir_new(&b, OP_Concat, 2, (struct value *[]){carried, y}, 1);
    ir_set_int(cat, "axis", 0);
    assert_int_equal(ir_infer(cat), NPUC_OK);
    (void)ir_new(&b, OP_Yield, 3, (struct value *[]){again, &cat->out[0], y}, 0);
    ir_set_graph(n, "body", g);
    struct value *grown = infer(f, n);
    int64_t c;
    assert_int_equal(grown->type->rank, 2);
    assert_false(expr_is_const(&f->cx.exprs, grown->type->dims[0], &c));
    IS(f, &n->out[1], "f32[5,1,8]");
}

static void branches_of_different_size(void **state)
{
    struct infer_unit *f = *state;
    struct value *x = in(f, DT_F32, "1, seq"), *y = in(f, DT_F32, "7, seq");
    struct node *n = NODE(f, OP_If, 1, in(f, DT_BOOL, ""));
    struct value *result[] = {x, y};
    for (int i = 0; i < 2; i++) {
        struct graph *g = ir_region_new(n, 0);
        struct builder b = ir_at_end(g);
        (void)ir_new(&b, OP_Yield, 1, &result[i], 0);
        ir_set_graph(n, i ? "else_branch" : "then_branch", g);
    }
    struct value *v = infer(f, n);
    assert_int_equal(v->type->rank, 2);
    assert_int_equal(v->type->dims[1], dim(f, "seq"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(nm) cmocka_unit_test_setup_teardown(nm, infer_unit_setup, infer_unit_teardown)
        TEST(products),
        TEST(block_quantised),
        TEST(rows_that_choose),
        TEST(attention),
        TEST(group_query),
        TEST(normalisation_and_reduction),
        TEST(quantisation),
        TEST(windows),
        TEST(windows_that_do_not_fit),
        TEST(resizes),
        TEST(loop_with_growing_state),
        TEST(branches_of_different_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
