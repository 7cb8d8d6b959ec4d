/* Products on the emulated cube cores: equal to the reference, bit for bit, whatever the tile; no hazard. */
#include "backend_unit.h"

#include "base/half.h"
#include "kernels/mac.h"

struct product {
    enum dtype dtype, out;
    int64_t batch, m, n, k;
    bool constant, symbolic, trans_b, bias, relu;
    struct tiling tiling;
};

static void fill(uint8_t *p, enum dtype t, int64_t n, uint64_t *seed)
{
    for (int64_t i = 0; i < n; i++) {
        const float v = (float)((int64_t)(unit_random(seed) % 2001) - 1000) / 512.0f;
        if (t == DT_F32)
            memcpy(p + 4 * i, &v, 4);
        else
            memcpy(p + 2 * i, &(uint16_t){t == DT_F16 ? half_f32_to_f16(v) : half_f32_to_bf16(v)}, 2);
    }
}

static void narrow(uint8_t *p, enum dtype t, const float *x, int64_t n, bool relu)
{
    for (int64_t i = 0; i < n; i++) {
        const float v = relu && !(x[i] > 0) ? 0.0f : x[i];
        if (t == DT_F32)
            memcpy(p + 4 * i, &v, 4);
        else
            memcpy(p + 2 * i, &(uint16_t){t == DT_F16 ? half_f32_to_f16(v) : half_f32_to_bf16(v)}, 2);
    }
}

static const struct type *matrix_type(struct infer_unit *f, const struct product *p, bool with_batch, const char *r,
                                      int64_t rows, int64_t cols)
{
    expr d[3] = {expr_const(&f->cx.exprs, p->batch), r ? dim(f, r) : expr_const(&f->cx.exprs, rows),
                 expr_const(&f->cx.exprs, cols)};
    return type_tensor(&f->cx, p->dtype, with_batch ? 3 : 2, with_batch ? d : d + 1);
}

/* The graph: [Fused] product of a and b; b constant or an input. */
static void build(struct infer_unit *f, const struct product *p, const uint8_t *b_data, const float *bias)
{
    const bool batched = p->batch > 0;
    const int64_t rows = p->trans_b ? p->n : p->k, cols = p->trans_b ? p->k : p->n, es = dtype_size(p->dtype);
    struct value *a = ir_input_new(f->g, matrix_type(f, p, batched, p->symbolic ? "m" : NULL, p->m, p->k),
                                   str_internz(&f->cx.strings, "a"));
    const int64_t bd[2] = {rows, cols};
    struct value *b = p->constant ? ir_const(&f->b, p->dtype, 2, bd, b_data, rows * cols * es)
                                  : ir_input_new(f->g, matrix_type(f, p, batched && !p->trans_b, NULL, rows, cols),
                                                 str_internz(&f->cx.strings, "b"));
    struct value *c = p->bias ? ir_const(&f->b, DT_F32, 1, &p->n, bias, p->n * 4) : NULL;
    struct node *n =
        ir_new(&f->b, p->trans_b ? OP_Gemm : OP_MatMul, p->trans_b ? 3 : 2, (struct value *[]){a, b, c}, 1);
    if (p->trans_b)
        ir_set_int(n, "transB", 1);
    assert_int_equal(ir_infer(n), NPUC_OK);
    struct value *y = &n->out[0];
    struct node *chain[4] = {n};
    int len = 1;
    if (p->bias && !p->trans_b) {
        y = ir_op2(&f->b, OP_Add, y, c);
        chain[len++] = y->def;
    }
    if (p->relu) {
        y = ir_op1(&f->b, OP_Relu, y);
        chain[len++] = y->def;
    }
    if (p->out != p->dtype) {
        y = ir_cast(&f->b, y, p->out);
        chain[len++] = y->def;
    }
    backend_yield(f, 1, &y);
    if (len > 1)
        y = &ir_fuse(&f->cx, chain, len, chain[len - 1], "matmul_epilogue")->out[0];
    y->name = str_internz(&f->cx.strings, "y");
}

static void reference(const struct product *p, const uint8_t *a, const uint8_t *b, const float *bias, float *c)
{
    const int64_t es = dtype_size(p->dtype), n_batch = p->batch > 0 ? p->batch : 1;
    for (int64_t i = 0; i < n_batch; i++) {
        const bool shared = p->constant || p->trans_b || p->batch == 0;
        const struct k_matmul_args g = {.dtype = p->dtype,
                                        .m = p->m,
                                        .n = p->n,
                                        .k = p->k,
                                        .a = a + i * p->m * p->k * es,
                                        .b = b + (shared ? 0 : i * p->k * p->n * es),
                                        .a_row = p->k,
                                        .a_col = 1,
                                        .b_row = p->trans_b ? 1 : p->n,
                                        .b_col = p->trans_b ? p->k : 1,
                                        .c = c + i * p->m * p->n,
                                        .c_row = p->n,
                                        .bias = bias};
        k_matmul(&g, NULL);
    }
}

static void check(const struct product *p, uint64_t seed)
{
    void *state = NULL;
    assert_int_equal(infer_unit_setup(&state), 0);
    struct infer_unit *f = state;
    struct backend_unit u;
    const int64_t es = dtype_size(p->dtype), n_batch = p->batch > 0 ? p->batch : 1, count = n_batch * p->m * p->n;
    const int64_t b_count = p->k * p->n * (p->constant || p->trans_b ? 1 : n_batch);
    uint8_t *a = calloc((size_t)(n_batch * p->m * p->k + 1), (size_t)es),
            *b = calloc((size_t)(b_count + 1), (size_t)es);
    float *bias = calloc((size_t)p->n + 1, 4), *c = calloc((size_t)count + 1, 4);
    uint8_t *want = calloc((size_t)count + 1, 4);
    fill(a, p->dtype, n_batch * p->m * p->k, &seed);
    fill(b, p->dtype, b_count, &seed);
    fill((uint8_t *)bias, DT_F32, p->n, &seed);
    backend_setup(&u, f);
    u.tiling = p->tiling;
    build(f, p, b, bias);
    backend_compile(&u);
    if (p->symbolic)
        backend_bind(&u, "m", p->m);
    backend_allocate(&u);
    memcpy(backend_bytes(&u, "a"), a, (size_t)(n_batch * p->m * p->k * es));
    if (!p->constant)
        memcpy(backend_bytes(&u, "b"), b, (size_t)(b_count * es));
    backend_run(&u);
    assert_int_equal(u.n_launched, 1);
    reference(p, a, b, p->bias ? bias : NULL, c);
    narrow(want, p->out, c, count, p->relu);
    assert_memory_equal(backend_bytes(&u, "y"), want, (size_t)(count * dtype_size(p->out)));
    backend_teardown(&u);
    infer_unit_teardown(&state);
    free(a), free(b), free(bias), free(c), free(want);
}

static void test_plain(void **state)
{
    (void)state;
    check(&(struct product){.dtype = DT_F32, .out = DT_F32, .m = 37, .n = 50, .k = 70, .constant = true}, 1);
    check(&(struct product){.dtype = DT_F32, .out = DT_F32, .m = 37, .n = 50, .k = 70}, 2);
    check(&(struct product){.dtype = DT_F16, .out = DT_F16, .m = 130, .n = 300, .k = 513, .constant = true}, 3);
    check(&(struct product){.dtype = DT_BF16, .out = DT_BF16, .m = 1, .n = 900, .k = 1100, .constant = true}, 4);
    check(&(struct product){.dtype = DT_F16, .out = DT_F32, .m = 20, .n = 33, .k = 40}, 5);
}

static void test_batch(void **state)
{
    (void)state;
    check(&(struct product){.dtype = DT_F32, .out = DT_F32, .batch = 3, .m = 20, .n = 24, .k = 40}, 1);
    check(&(struct product){.dtype = DT_F16, .out = DT_F16, .batch = 3, .m = 20, .n = 24, .k = 40, .constant = true},
          2);
    check(&(struct product){.dtype = DT_F16, .out = DT_F16, .batch = 2, .m = 70, .n = 40, .k = 17, .symbolic = true},
          3);
}

static void test_rows_known_at_run_time(void **state)
{
    (void)state;
    for (int64_t m = 1; m <= 70; m += 23)
        check(
            &(struct product){
                .dtype = DT_F32, .out = DT_F32, .m = m, .n = 100, .k = 300, .constant = true, .symbolic = true},
            (uint64_t)m);
}

static void test_epilogue(void **state)
{
    (void)state;
    check(&(struct product){.dtype = DT_F32, .out = DT_F32, .m = 37, .n = 70, .k = 50, .constant = true, .bias = true},
          1);
    check(
        &(struct product){
            .dtype = DT_F32, .out = DT_F32, .m = 37, .n = 700, .k = 50, .constant = true, .bias = true, .relu = true},
        2);
    check(&(struct product){.dtype = DT_F32, .out = DT_F16, .m = 5, .n = 70, .k = 50, .constant = true, .relu = true},
          3);
    check(&(struct product){.dtype = DT_F32, .out = DT_F32, .m = 21, .n = 19, .k = 50, .trans_b = true, .bias = true},
          4);
    check(
        &(struct product){
            .dtype = DT_F32, .out = DT_F32, .m = 21, .n = 19, .k = 50, .trans_b = true, .constant = true, .bias = true},
        5);
}

static void test_tiles_change_no_bits(void **state)
{
    (void)state;
    static const struct tiling tilings[] = {
        {.m = 16, .n = 16, .k = 16}, {.m = 32, .n = 64, .k = 48}, {.m = 128, .n = 128}};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(tilings); i++) {
        check(
            &(struct product){
                .dtype = DT_F32, .out = DT_F32, .m = 150, .n = 140, .k = 130, .constant = true, .tiling = tilings[i]},
            7);
        check(&(struct product){.dtype = DT_F16, .out = DT_F16, .m = 150, .n = 140, .k = 130, .tiling = tilings[i]}, 8);
    }
}

/* 24 cores: what is left of the tiles behind whole rounds is done in parts, some of them without elements where sizes
 * are known at run time. */
static void test_last_round_in_parts(void **state)
{
    (void)state;
    static const struct tiling tiling = {.m = 64, .n = 64, .parts = true};
    struct product p = {.dtype = DT_F32, .out = DT_F32, .n = 330, .k = 70, .tiling = tiling};
    for (int i = 0; i < 12; i++) {
        p.m = i % 3 == 0 ? 290 : i % 3 == 1 ? 20 : 321;
        p.constant = i / 3 % 2 == 0;
        p.symbolic = i / 6 == 1;
        p.bias = p.relu = p.constant;
        check(&p, (uint64_t)i);
    }
    p = (struct product){
        .dtype = DT_F32, .out = DT_F32, .m = 100, .n = 200, .k = 90, .trans_b = true, .bias = true, .tiling = tiling};
    check(&p, 20);
    p = (struct product){.dtype = DT_F16, .out = DT_F16, .batch = 3, .m = 100, .n = 200, .k = 33, .tiling = tiling};
    check(&p, 21);
    check(&(struct product){.dtype = DT_F16, .out = DT_F16, .m = 700, .n = 520, .k = 20}, 22);
}

static void test_random_shapes(void **state)
{
    (void)state;
    uint64_t seed = 42;
    static const enum dtype types[] = {DT_F32, DT_F16, DT_BF16};
    for (int i = 0; i < 24; i++) {
        const enum dtype t = types[unit_random(&seed) % 3];
        const struct product p = {.dtype = t,
                                  .out = t,
                                  .m = 1 + (int64_t)(unit_random(&seed) % 90),
                                  .n = 1 + (int64_t)(unit_random(&seed) % 200),
                                  .k = 1 + (int64_t)(unit_random(&seed) % 300),
                                  .batch = (int64_t)(unit_random(&seed) % 3),
                                  .constant = unit_random(&seed) % 2,
                                  .symbolic = unit_random(&seed) % 2};
        check(&p, seed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_batch),
        cmocka_unit_test(test_rows_known_at_run_time),
        cmocka_unit_test(test_epilogue),
        cmocka_unit_test(test_tiles_change_no_bits),
        cmocka_unit_test(test_last_round_in_parts),
        cmocka_unit_test(test_random_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
