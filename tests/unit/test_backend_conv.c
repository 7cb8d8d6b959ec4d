/* Convolutions on the emulated cores: equal to the reference interpreter, bit for bit, whatever the tile; no hazard. */
#include "backend_unit.h"

#include "ir/eval.h"
#include "kernels/vec.h"

struct conv {
    enum op op;
    enum dtype dtype;
    int axes;
    int64_t batch, group, in, out; /* channels of a group */
    int64_t size[3], kernel[3], stride[3], dilation[3], pads[6], extra[3];
    bool constant, symbolic, bias, relu;
    struct tiling tiling;
};

static void fill(uint8_t *p, enum dtype t, int64_t n, uint64_t *seed)
{
    for (int64_t i = 0; i < n; i++) {
        const float v = (float)((int64_t)(unit_random(seed) % 255) - 127) / (t == DT_I8 ? 1.0f : 64.0f);
        k_cast(t, p + i * dtype_size(t), DT_F32, &v, 1, true);
    }
}

/* [first, second, spatial...]; names of the extents that are symbols. */
static const struct type *map_type(struct infer_unit *f, const struct conv *p, int64_t first, int64_t second,
                                   const int64_t *spatial, bool symbolic)
{
    static const char *const names[] = {"d2", "d3", "d4"};
    expr d[5] = {symbolic ? dim(f, "b") : expr_const(&f->cx.exprs, first), expr_const(&f->cx.exprs, second)};
    for (int i = 0; i < p->axes; i++)
        d[2 + i] = symbolic ? dim(f, names[i]) : expr_const(&f->cx.exprs, spatial[i]);
    return type_tensor(&f->cx, p->dtype, 2 + p->axes, d);
}

static int64_t times(const struct conv *p, const int64_t *v)
{
    int64_t n = 1;
    for (int i = 0; i < p->axes; i++)
        n *= v[i];
    return n;
}

static void weight_dims(const struct conv *p, int64_t d[5])
{
    const bool turned = p->op == OP_ConvTranspose;
    d[0] = p->group * (turned ? p->in : p->out);
    d[1] = turned ? p->out : p->in;
    for (int i = 0; i < p->axes; i++)
        d[2 + i] = p->kernel[i];
}

struct data {
    uint8_t *x, *w, *bias;
    int64_t x_bytes, w_bytes, bias_bytes;
};

static void build(struct infer_unit *f, const struct conv *p, const struct data *v)
{
    int64_t wd[5];
    weight_dims(p, wd);
    const int64_t outs = p->group * p->out;
    struct value *in[3] = {ir_input_new(f->g, map_type(f, p, p->batch, p->group * p->in, p->size, p->symbolic),
                                        str_internz(&f->cx.strings, "x"))};
    if (p->constant) {
        in[1] = ir_const(&f->b, p->dtype, 2 + p->axes, wd, v->w, v->w_bytes);
        in[2] = p->bias ? ir_const(&f->b, p->dtype, 1, &outs, v->bias, v->bias_bytes) : NULL;
    } else {
        const expr n = expr_const(&f->cx.exprs, outs);
        in[1] = ir_input_new(f->g, map_type(f, p, wd[0], wd[1], p->kernel, false), str_internz(&f->cx.strings, "w"));
        in[2] = p->bias ? ir_input_new(f->g, type_tensor(&f->cx, p->dtype, 1, &n), str_internz(&f->cx.strings, "bias"))
                        : NULL;
    }
    struct node *chain[2] = {ir_new(&f->b, p->op, p->bias ? 3 : 2, in, 1)};
    ir_set_int(chain[0], "group", p->group);
    ir_set_ints(chain[0], "strides", p->stride, p->axes);
    ir_set_ints(chain[0], "dilations", p->dilation, p->axes);
    ir_set_ints(chain[0], "pads", p->pads, 2 * p->axes);
    if (p->op == OP_ConvTranspose)
        ir_set_ints(chain[0], "output_padding", p->extra, p->axes);
    assert_int_equal(ir_infer(chain[0]), NPUC_OK);
    struct value *y = &chain[0]->out[0];
    if (p->relu) {
        y = ir_op1(&f->b, OP_Relu, y);
        chain[1] = y->def;
    }
    backend_yield(f, 1, &y);
    if (p->relu)
        y = &ir_fuse(&f->cx, chain, 2, chain[1], "matmul_epilogue")->out[0];
    y->name = str_internz(&f->cx.strings, "y");
}

static struct k_tensor reference(struct infer_unit *f, const struct conv *p, const struct data *v, struct arena *a)
{
    struct k_tensor in[3] = {
        {.dtype = p->dtype, .rank = 2 + p->axes, .dims = {p->batch, p->group * p->in}, .data = v->x},
        {.dtype = p->dtype, .rank = 2 + p->axes, .data = v->w},
        {.dtype = p->dtype, .rank = 1, .dims = {p->group * p->out}, .data = v->bias}};
    struct k_tensor y = {0};
    weight_dims(p, in[1].dims);
    for (int i = 0; i < p->axes; i++)
        in[0].dims[2 + i] = p->size[i];
    assert_int_equal(ir_eval(&f->cx, f->g, in, &y, a), NPUC_OK);
    return y;
}

static void bind(struct backend_unit *u, const struct conv *p)
{
    static const char *const names[] = {"d2", "d3", "d4"};
    backend_bind(u, "b", p->batch);
    for (int i = 0; i < p->axes; i++)
        backend_bind(u, names[i], p->size[i]);
}

static void check(const struct conv *p, uint64_t seed)
{
    void *state = NULL;
    assert_int_equal(infer_unit_setup(&state), 0);
    struct infer_unit *f = state;
    struct backend_unit u;
    struct arena a;
    unit_arena(&a);
    const int64_t es = dtype_size(p->dtype), x_n = p->batch * p->group * p->in * times(p, p->size),
                  w_n = p->group * p->in * p->out * times(p, p->kernel), b_n = p->group * p->out;
    const struct data v = {.x = calloc((size_t)x_n + 1, (size_t)es),
                           .w = calloc((size_t)w_n + 1, (size_t)es),
                           .bias = calloc((size_t)b_n + 1, (size_t)es),
                           .x_bytes = x_n * es,
                           .w_bytes = w_n * es,
                           .bias_bytes = b_n * es};
    fill(v.x, p->dtype, x_n, &seed);
    fill(v.w, p->dtype, w_n, &seed);
    fill(v.bias, p->dtype, b_n, &seed);
    backend_setup(&u, f);
    u.tiling = p->tiling;
    build(f, p, &v);
    const struct k_tensor want = reference(f, p, &v, &a);
    backend_compile(&u);
    if (p->symbolic)
        bind(&u, p);
    backend_allocate(&u);
    memcpy(backend_bytes(&u, "x"), v.x, (size_t)v.x_bytes);
    if (!p->constant) {
        memcpy(backend_bytes(&u, "w"), v.w, (size_t)v.w_bytes);
        if (p->bias)
            memcpy(backend_bytes(&u, "bias"), v.bias, (size_t)v.bias_bytes);
    }
    backend_run(&u);
    assert_memory_equal(backend_bytes(&u, "y"), want.data, (size_t)(k_count(&want) * dtype_size(want.dtype)));
    backend_teardown(&u);
    arena_free(&a);
    infer_unit_teardown(&state);
    free(v.x), free(v.w), free(v.bias);
}

static const struct conv plain = {.op = OP_Conv,
                                  .dtype = DT_F32,
                                  .axes = 2,
                                  .batch = 1,
                                  .group = 1,
                                  .in = 20,
                                  .out = 24,
                                  .size = {13, 11, 5},
                                  .kernel = {3, 3, 2},
                                  .stride = {1, 1, 1},
                                  .dilation = {1, 1, 1},
                                  .pads = {1, 1, 1, 1, 1, 1},
                                  .constant = true,
                                  .bias = true};

static void test_types(void **state)
{
    (void)state;
    static const enum dtype types[] = {DT_F32, DT_F16, DT_BF16};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(types); i++)
        for (int constant = 0; constant < 2; constant++) {
            struct conv p = plain;
            p.dtype = types[i];
            p.constant = constant;
            p.relu = i == 1;
            check(&p, 1);
        }
}

static void test_axes(void **state)
{
    (void)state;
    for (int axes = 1; axes <= 3; axes++) {
        struct conv p = plain;
        p.axes = axes;
        p.batch = 2;
        p.stride[0] = 2;
        p.dilation[axes - 1] = 2;
        check(&p, 2);
        p.symbolic = true;
        check(&p, 3);
    }
}

static void test_groups(void **state)
{
    (void)state;
    struct conv p = plain;
    p.group = 3;
    p.in = 5;
    p.out = 7;
    check(&p, 4);
    p.constant = false;
    check(&p, 5);
    p.group = 19; /* one channel each */
    p.in = p.out = 1;
    check(&p, 6);
    p.constant = true;
    p.out = 2;
    p.stride[1] = 2;
    p.dtype = DT_F16;
    check(&p, 7);
}

static void test_one_element_windows(void **state)
{
    (void)state;
    struct conv p = plain;
    memcpy(p.kernel, (int64_t[]){1, 1, 1}, sizeof p.kernel);
    memset(p.pads, 0, sizeof p.pads);
    p.batch = 2;
    p.in = 70;
    check(&p, 8);
    p.symbolic = true;
    p.constant = false;
    check(&p, 9);
    p.stride[0] = 2; /* the map is packed after all */
    check(&p, 10);
}

static void test_all_padding(void **state)
{
    (void)state;
    struct conv p = plain;
    memcpy(p.size, (int64_t[]){1, 2, 1}, sizeof p.size);
    memcpy(p.pads, (int64_t[]){6, 7, 5, 4}, 4 * sizeof *p.pads);
    check(&p, 11);
    p.axes = 3;
    memcpy(p.pads, (int64_t[]){4, 4, 4, 4, 4, 4}, sizeof p.pads);
    check(&p, 12);
}

static void test_transposed(void **state)
{
    (void)state;
    struct conv p = plain;
    p.op = OP_ConvTranspose;
    for (int axes = 1; axes <= 3; axes++) {
        p.axes = axes;
        p.stride[0] = 2;
        p.stride[axes - 1] = 3;
        p.extra[0] = 1;
        p.constant = axes != 2;
        check(&p, 13);
        p.symbolic = axes == 2;
        p.group = 2;
        p.dtype = DT_F16;
        check(&p, 14);
    }
}

static void test_integers(void **state)
{
    (void)state;
    struct conv p = plain;
    p.op = OP_ConvInteger;
    p.dtype = DT_I8;
    p.bias = false;
    p.in = 70;
    check(&p, 15);
    p.constant = false;
    p.group = 2;
    check(&p, 16);
}

static void test_tiles_change_no_bits(void **state)
{
    (void)state;
    static const struct tiling tilings[] = {
        {.m = 16, .n = 16, .k = 16}, {.m = 32, .n = 64}, {.m = 48, .n = 128, .k = 32}};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(tilings); i++) {
        struct conv p = plain;
        p.in = 45;
        p.out = 70;
        p.tiling = tilings[i];
        check(&p, 17);
        p.op = OP_ConvTranspose;
        check(&p, 18);
        p.op = OP_Conv;
        p.symbolic = true;
        check(&p, 19);
        p.dtype = DT_F16; /* more channels than a block takes of all kernel positions */
        p.symbolic = false;
        p.in = 1500;
        p.out = 20;
        check(&p, 20);
    }
}

static void test_random_shapes(void **state)
{
    (void)state;
    uint64_t seed = 7;
    static const enum dtype types[] = {DT_F32, DT_F16, DT_BF16};
    for (int i = 0; i < 40; i++) {
        struct conv p = {.op = unit_random(&seed) % 3 ? OP_Conv : OP_ConvTranspose,
                         .dtype = types[unit_random(&seed) % 3],
                         .axes = 1 + (int)(unit_random(&seed) % 3),
                         .batch = 1 + (int64_t)(unit_random(&seed) % 2),
                         .group = unit_random(&seed) % 3 ? 1 : 1 + (int64_t)(unit_random(&seed) % 4),
                         .in = 1 + (int64_t)(unit_random(&seed) % 40),
                         .out = 1 + (int64_t)(unit_random(&seed) % 40),
                         .constant = unit_random(&seed) % 2,
                         .symbolic = unit_random(&seed) % 3 == 0,
                         .bias = unit_random(&seed) % 2,
                         .relu = unit_random(&seed) % 3 == 0};
        for (int k = 0; k < p.axes; k++) {
            p.kernel[k] = 1 + (int64_t)(unit_random(&seed) % 4);
            p.stride[k] = 1 + (int64_t)(unit_random(&seed) % 3);
            p.dilation[k] = 1 + (int64_t)(unit_random(&seed) % 2);
            const int64_t reach = (p.kernel[k] - 1) * p.dilation[k] + 1;
            p.size[k] = reach + (int64_t)(unit_random(&seed) % (p.axes == 3 ? 6 : 20));
            p.pads[k] = (int64_t)(unit_random(&seed) % (uint64_t)reach);
            p.pads[k + p.axes] = (int64_t)(unit_random(&seed) % (uint64_t)reach);
        }
        check(&p, seed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),         cmocka_unit_test(test_axes),
        cmocka_unit_test(test_groups),        cmocka_unit_test(test_one_element_windows),
        cmocka_unit_test(test_all_padding),   cmocka_unit_test(test_transposed),
        cmocka_unit_test(test_integers),      cmocka_unit_test(test_tiles_change_no_bits),
        cmocka_unit_test(test_random_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
