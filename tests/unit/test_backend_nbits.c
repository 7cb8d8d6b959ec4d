/* Block-quantised weights on the emulated cores: products and gathered rows equal to the reference, bit for bit,
 * whatever the tile and the form of the kernel; no hazard within or between cores. */
#include "backend_unit.h"

#include "base/half.h"
#include "kernels/loops.h"
#include "kernels/mac.h"

struct weight {
    enum dtype dtype; /* of the scales and the result */
    int64_t n, k, bits, block;
    int zero_kind; /* 0 none, 1 packed, 2 floats */
    int64_t blocks, code_row, zero_row;
    uint8_t *codes, *scales, *zeros, *values; /* values: [n, k] dequantised */
};
struct nbits_case {
    enum dtype dtype;
    int64_t m, n, k, bits, block;
    int zero_kind;
    bool symbolic, bias;
    bool direct; /* one row: codes are multiplied as they lie */
    bool apart;  /* a machine whose matrix and vector cores do not run one kernel */
    struct tiling tiling;
};

static void put(uint8_t *p, enum dtype t, int64_t i, float v)
{
    if (t == DT_F32)
        memcpy(p + 4 * i, &v, 4);
    else
        memcpy(p + 2 * i, &(uint16_t){t == DT_F16 ? half_f32_to_f16(v) : half_f32_to_bf16(v)}, 2);
}

static float get(const uint8_t *p, enum dtype t, int64_t i)
{
    float f = 0;
    uint16_t h = 0;
    if (t == DT_F32)
        memcpy(&f, p + 4 * i, 4);
    else
        memcpy(&h, p + 2 * i, 2);
    return t == DT_F32 ? f : t == DT_F16 ? half_f16_to_f32(h) : half_bf16_to_f32(h);
}

static void fill(uint8_t *p, enum dtype t, int64_t n, uint64_t *seed)
{
    for (int64_t i = 0; i < n; i++)
        put(p, t, i, (float)((int64_t)(unit_random(seed) % 2001) - 1000) / 512.0f);
}

static void dequantise(struct weight *w)
{
    const int64_t mask = (1 << w->bits) - 1;
    for (int64_t i = 0; i < w->n; i++)
        for (int64_t j = 0; j < w->k; j++) {
            const int64_t at = j * w->bits, b = j / w->block, zero_at = b * w->bits;
            const float q = (float)(w->codes[i * w->code_row + at / 8] >> (at % 8) & mask);
            float zero = (float)(1 << (w->bits - 1));
            if (w->zero_kind == 1)
                zero = (float)(w->zeros[i * w->zero_row + zero_at / 8] >> (zero_at % 8) & mask);
            else if (w->zero_kind == 2)
                zero = get(w->zeros, w->dtype, i * w->zero_row + b);
            put(w->values, w->dtype, i * w->k + j, (q - zero) * get(w->scales, w->dtype, i * w->blocks + b));
        }
}

static int64_t zero_count(const struct weight *w)
{
    return w->n * w->zero_row;
}

static void weight_make(struct weight *w, uint64_t *seed)
{
    w->blocks = (w->k + w->block - 1) / w->block;
    w->code_row = w->blocks * w->block * w->bits / 8;
    w->zero_row = w->zero_kind == 1 ? (w->blocks * w->bits + 7) / 8 : w->zero_kind ? w->blocks : 0;
    w->codes = calloc((size_t)(w->n * w->code_row), 1);
    w->scales = calloc((size_t)(w->n * w->blocks), 4);
    w->zeros = calloc((size_t)zero_count(w) + 1, 4);
    w->values = calloc((size_t)(w->n * w->k), 4);
    for (int64_t i = 0; i < w->n * w->code_row; i++)
        w->codes[i] = (uint8_t)unit_random(seed);
    for (int64_t i = 0; i < zero_count(w) && w->zero_kind == 1; i++)
        w->zeros[i] = (uint8_t)unit_random(seed);
    if (w->zero_kind == 2)
        fill(w->zeros, w->dtype, zero_count(w), seed);
    fill(w->scales, w->dtype, w->n * w->blocks, seed);
    dequantise(w);
}

static void weight_free(struct weight *w)
{
    free(w->codes), free(w->scales), free(w->zeros), free(w->values);
}

static struct value *constant(struct infer_unit *f, enum dtype t, const void *data, int64_t rows, int64_t cols)
{
    const int64_t d[2] = {rows, cols};
    return ir_const(&f->b, t, 2, d, data, rows * cols * dtype_size(t));
}

static struct value *zeros_of(struct infer_unit *f, const struct weight *w)
{
    const enum dtype t = w->zero_kind == 1 ? DT_U8 : w->dtype;
    return w->zero_kind ? constant(f, t, w->zeros, w->n, w->zero_row) : NULL;
}

static void build(struct infer_unit *f, const struct nbits_case *p, const struct weight *w, const float *bias)
{
    const expr rows = p->symbolic ? dim(f, "m") : expr_const(&f->cx.exprs, p->m);
    struct value *x =
        ir_input_new(f->g, type_tensor(&f->cx, p->dtype, 2, (expr[]){rows, expr_const(&f->cx.exprs, p->k)}),
                     str_internz(&f->cx.strings, "a"));
    struct value *in[6] = {x, constant(f, DT_U8, w->codes, p->n, w->code_row),
                           constant(f, p->dtype, w->scales, p->n, w->blocks), zeros_of(f, w)};
    if (p->bias) { /* of the operands' type */
        uint8_t *b = calloc((size_t)p->n, 4);
        for (int64_t i = 0; i < p->n; i++)
            put(b, p->dtype, i, bias[i]);
        in[5] = ir_const(&f->b, p->dtype, 1, &p->n, b, p->n * dtype_size(p->dtype));
        free(b);
    }
    struct node *n = ir_new(&f->b, OP_MatMulNBits, p->bias ? 6 : p->zero_kind ? 4 : 3, in, 1);
    ir_set_int(n, "K", p->k);
    ir_set_int(n, "N", p->n);
    ir_set_int(n, "bits", p->bits);
    ir_set_int(n, "block_size", p->block);
    assert_int_equal(ir_infer(n), NPUC_OK);
    n->out[0].name = str_internz(&f->cx.strings, "y");
    backend_yield(f, 1, (struct value *[]){&n->out[0]});
}

/* No temporary grows with the weight: the slots of the workspace of all cores. */
static void check_memory(const struct backend_unit *u)
{
    const int64_t slot = u->machine.size[TS_L1] / 2;
    for (int64_t i = 0; i < u->plan.tensors.len; i++)
        if (u->plan.tensors.data[i].kind == PT_TEMP)
            assert_in_range(u->size[i], 0, u->machine.n_cube * 4 * slot);
}

static void expect(const struct nbits_case *p, const struct weight *w, const uint8_t *a, const float *bias,
                   uint8_t *want)
{
    float *c = calloc((size_t)(p->m * p->n) + 1, 4);
    const struct k_matmul_args g = {.dtype = p->dtype,
                                    .m = p->m,
                                    .n = p->n,
                                    .k = p->k,
                                    .a = a,
                                    .b = w->values,
                                    .a_row = p->k,
                                    .a_col = 1,
                                    .b_row = 1,
                                    .b_col = p->k,
                                    .c = c,
                                    .c_row = p->n,
                                    .bias = p->bias ? bias : NULL};
    k_matmul(&g, NULL);
    for (int64_t i = 0; i < p->m * p->n; i++)
        put(want, p->dtype, i, c[i]);
    free(c);
}

/* Once more without hazard checks, as sessions run: the same bits. One row of codes of 4 or 8 bits is multiplied as
 * it lies: the workspace is not touched. */
static void run_unchecked(struct backend_unit *u, const struct nbits_case *p, const uint8_t *want, int64_t bytes)
{
    const bool direct = u->machine.mixed && p->m == 1 && p->dtype != DT_BF16 && p->bits >= 4 && p->k % 16 == 0 &&
                        p->n % 16 == 0 && p->direct;
    for (enum k_simd_level simd = K_SIMD_NONE; simd < K_SIMD_LEVELS; simd++) {
        for (int64_t i = 0; i < u->plan.tensors.len; i++)
            if (u->plan.tensors.data[i].kind == PT_TEMP)
                memset(u->bytes[i], 0x5a, (size_t)u->size[i]);
        memset(backend_bytes(u, "y"), 0x5a, (size_t)bytes);
        k_simd_limit(simd);
        u->unchecked = true;
        backend_run(u);
        assert_memory_equal(backend_bytes(u, "y"), want, (size_t)bytes);
        for (int64_t i = 0; direct && i < u->plan.tensors.len; i++)
            for (int64_t at = 0; u->plan.tensors.data[i].kind == PT_TEMP && at < u->size[i]; at++)
                assert_int_equal(u->bytes[i][at], 0x5a);
    }
}

static void check(const struct nbits_case *p, uint64_t seed)
{
    void *state = NULL;
    assert_int_equal(infer_unit_setup(&state), 0);
    struct infer_unit *f = state;
    struct backend_unit u;
    struct weight w = {
        .dtype = p->dtype, .n = p->n, .k = p->k, .bits = p->bits, .block = p->block, .zero_kind = p->zero_kind};
    weight_make(&w, &seed);
    const int64_t es = dtype_size(p->dtype);
    uint8_t *a = calloc((size_t)(p->m * p->k), (size_t)es), *want = calloc((size_t)(p->m * p->n) + 1, 4);
    float *bias = calloc((size_t)p->n, 4);
    fill(a, p->dtype, p->m * p->k, &seed);
    fill((uint8_t *)bias, DT_F32, p->n, &seed);
    backend_setup(&u, f);
    u.tiling = p->tiling;
    u.machine.mixed = u.machine.mixed && !p->apart;
    build(f, p, &w, bias);
    backend_compile(&u);
    if (p->symbolic)
        backend_bind(&u, "m", p->m);
    backend_allocate(&u);
    memcpy(backend_bytes(&u, "a"), a, (size_t)(p->m * p->k * es));
    backend_run(&u);
    assert_int_equal(u.n_launched, u.machine.mixed ? 1 : 2);
    check_memory(&u);
    for (int64_t i = 0; i < p->n; i++) /* as stored */
        bias[i] = p->dtype == DT_F16 ? half_f16_to_f32(half_f32_to_f16(bias[i])) : bias[i];
    expect(p, &w, a, bias, want);
    assert_memory_equal(backend_bytes(&u, "y"), want, (size_t)(p->m * p->n * es));
    run_unchecked(&u, p, want, p->m * p->n * es);
    backend_teardown(&u);
    infer_unit_teardown(&state);
    weight_free(&w);
    free(a), free(bias), free(want);
}

static void test_kinds(void **state)
{
    (void)state;
    check(&(struct nbits_case){.dtype = DT_F32, .m = 1, .n = 50, .k = 96, .bits = 4, .block = 32}, 1);
    check(&(struct nbits_case){.dtype = DT_F32, .m = 5, .n = 130, .k = 100, .bits = 4, .block = 16, .zero_kind = 1}, 2);
    check(&(struct nbits_case){.dtype = DT_F16, .m = 40, .n = 33, .k = 2500, .bits = 4, .block = 32, .zero_kind = 1},
          3);
    check(&(struct nbits_case){.dtype = DT_F16, .m = 1, .n = 300, .k = 64, .bits = 8, .block = 32, .zero_kind = 2}, 4);
    check(&(struct nbits_case){.dtype = DT_F32, .m = 3, .n = 20, .k = 4700, .bits = 2, .block = 64, .zero_kind = 2}, 5);
    check(&(struct nbits_case){.dtype = DT_F32, .m = 2, .n = 40, .k = 300, .bits = 2, .block = 16, .zero_kind = 1}, 6);
    check(&(struct nbits_case){.dtype = DT_F32, .m = 2, .n = 24, .k = 5000, .bits = 8, .block = 8192, .zero_kind = 1},
          7);
    check(&(struct nbits_case){.dtype = DT_F16, .m = 4, .n = 1, .k = 17, .bits = 4, .block = 16}, 8);
}

static void test_many_turns_of_the_slots(void **state)
{
    (void)state;
    check(&(struct nbits_case){.dtype = DT_F16, .m = 3, .n = 1700, .k = 1200, .bits = 4, .block = 32}, 1);
    check(&(struct nbits_case){.dtype = DT_F16, .m = 290, .n = 900, .k = 700, .bits = 4, .block = 32, .zero_kind = 1},
          2);
    check(&(struct nbits_case){.dtype = DT_F32, .m = 300, .n = 300, .k = 700, .bits = 8, .block = 128}, 3);
}

static void test_rows_known_at_run_time(void **state)
{
    (void)state;
    for (int64_t m = 1; m <= 300; m = m * 3 + 13)
        check(
            &(struct nbits_case){
                .dtype = DT_F16, .m = m, .n = 200, .k = 320, .bits = 4, .block = 32, .zero_kind = 1, .symbolic = true},
            (uint64_t)m);
}

static void test_bias(void **state)
{
    (void)state;
    check(&(struct nbits_case){.dtype = DT_F32, .m = 3, .n = 700, .k = 96, .bits = 4, .block = 32, .bias = true}, 1);
    check(&(struct nbits_case){.dtype = DT_F16, .m = 30, .n = 70, .k = 96, .bits = 4, .block = 32, .bias = true}, 2);
}

static void test_tiles_change_no_bits(void **state)
{
    (void)state;
    static const struct tiling tilings[] = {
        {.m = 16, .n = 16, .k = 16}, {.m = 32, .n = 64, .k = 48}, {.m = 128, .n = 128}, {.k = 64}};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(tilings); i++) {
        struct nbits_case p = {
            .dtype = DT_F16, .m = 70, .n = 140, .k = 530, .bits = 4, .block = 32, .zero_kind = 1, .tiling = tilings[i]};
        check(&p, 7);
        p.zero_kind = 0;
        p.dtype = DT_F32;
        check(&p, 8);
    }
}

static void test_as_two_launches(void **state)
{
    (void)state;
    check(
        &(struct nbits_case){
            .dtype = DT_F32, .m = 5, .n = 130, .k = 100, .bits = 4, .block = 16, .zero_kind = 1, .apart = true},
        2);
    check(
        &(struct nbits_case){
            .dtype = DT_F16, .m = 40, .n = 33, .k = 2500, .bits = 4, .block = 32, .zero_kind = 1, .apart = true},
        3);
    check(
        &(struct nbits_case){
            .dtype = DT_F32, .m = 3, .n = 20, .k = 4700, .bits = 2, .block = 64, .zero_kind = 2, .apart = true},
        5);
}

static void test_one_row(void **state)
{
    (void)state;
    for (int64_t block = 16; block <= 256; block *= 2)
        for (int zero = 0; zero < 3; zero++) {
            const int64_t n = 16 * (1 + (block / 16 * 7 + zero) % 23), k = 16 * (1 + (block * 5 + zero * 37) % 60);
            struct nbits_case p = {
                .dtype = DT_F16, .m = 1, .n = n, .k = k, .bits = 4, .block = block, .zero_kind = zero, .direct = true};
            check(&p, (uint64_t)block);
            p.k += 5 * zero; /* a rest of a line */
            p.n += 3 * zero;
            p.bits = 8;
            check(&p, (uint64_t)block + 1);
            p.dtype = DT_F32;
            check(&p, (uint64_t)block + 2);
            p.m = 2;
            check(&p, (uint64_t)block + 3);
        }
}

static void test_random_shapes(void **state)
{
    (void)state;
    uint64_t seed = 99;
    static const enum dtype types[] = {DT_F32, DT_F16, DT_BF16};
    for (int i = 0; i < 40; i++) {
        const struct nbits_case p = {.dtype = types[unit_random(&seed) % 3],
                                     .m = 1 + (int64_t)(unit_random(&seed) % (i % 2 ? 8 : 70)),
                                     .n = 1 + (int64_t)(unit_random(&seed) % 400),
                                     .k = 1 + (int64_t)(unit_random(&seed) % 900),
                                     .bits = 2 << unit_random(&seed) % 3,
                                     .block = 16 << unit_random(&seed) % 5,
                                     .zero_kind = (int)(unit_random(&seed) % 3),
                                     .symbolic = unit_random(&seed) % 2};
        check(&p, seed);
    }
}

/* ---- GatherBlockQuantized --------------------------------------------------------------------------------- */

static void check_gather(struct weight w, int64_t n_index, bool wide_index, uint64_t seed)
{
    void *state = NULL;
    assert_int_equal(infer_unit_setup(&state), 0);
    struct infer_unit *f = state;
    struct backend_unit u;
    weight_make(&w, &seed);
    backend_setup(&u, f);
    const expr d[2] = {expr_const(&f->cx.exprs, 1), dim(f, "s")};
    struct value *index = ir_input_new(f->g, type_tensor(&f->cx, wide_index ? DT_I64 : DT_I32, 2, d),
                                       str_internz(&f->cx.strings, "index"));
    struct value *in[4] = {constant(f, DT_U8, w.codes, w.n, w.code_row), index,
                           constant(f, w.dtype, w.scales, w.n, w.blocks), zeros_of(f, &w)};
    struct node *n = ir_new(&f->b, OP_GatherBlockQuantized, w.zero_kind ? 4 : 3, in, 1);
    ir_set_int(n, "bits", w.bits);
    ir_set_int(n, "block_size", w.block);
    assert_int_equal(ir_infer(n), NPUC_OK);
    n->out[0].name = str_internz(&f->cx.strings, "y");
    backend_yield(f, 1, (struct value *[]){&n->out[0]});
    backend_compile(&u);
    backend_bind(&u, "s", n_index);
    backend_allocate(&u);
    const int64_t row = w.k * dtype_size(w.dtype);
    uint8_t *want = calloc((size_t)n_index, (size_t)row), *at = backend_bytes(&u, "index");
    for (int64_t i = 0; i < n_index; i++) {
        const int64_t chosen = (int64_t)(unit_random(&seed) % (uint64_t)w.n), v = i % 3 ? chosen : chosen - w.n;
        if (wide_index)
            memcpy(at + 8 * i, &v, 8);
        else
            memcpy(at + 4 * i, &(int32_t){(int32_t)v}, 4);
        memcpy(want + i * row, w.values + chosen * row, (size_t)row);
    }
    backend_run(&u);
    assert_int_equal(u.n_launched, 1);
    assert_memory_equal(backend_bytes(&u, "y"), want, (size_t)(n_index * row));
    backend_teardown(&u);
    infer_unit_teardown(&state);
    weight_free(&w);
    free(want);
}

static void test_gather(void **state)
{
    (void)state;
    check_gather((struct weight){.dtype = DT_F32, .n = 50, .k = 64, .bits = 4, .block = 32}, 7, true, 1);
    check_gather((struct weight){.dtype = DT_F16, .n = 90, .k = 4064, .bits = 4, .block = 32, .zero_kind = 1}, 1, false,
                 2);
    check_gather((struct weight){.dtype = DT_F16, .n = 30, .k = 2064, .bits = 2, .block = 16, .zero_kind = 1}, 700,
                 true, 3);
    check_gather((struct weight){.dtype = DT_F32, .n = 30, .k = 96, .bits = 8, .block = 32, .zero_kind = 1}, 20000,
                 true, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_many_turns_of_the_slots),
        cmocka_unit_test(test_rows_known_at_run_time),
        cmocka_unit_test(test_bias),
        cmocka_unit_test(test_tiles_change_no_bits),
        cmocka_unit_test(test_as_two_launches),
        cmocka_unit_test(test_one_row),
        cmocka_unit_test(test_random_shapes),
        cmocka_unit_test(test_gather),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
