/* Random graphs: what is printed reads back, verifies and prints the same. Damaged text never does harm. Seeded, so
 * that a failure repeats. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ir/build.h"
#include "ir/text.h"

enum { N_GRAPHS = 150, N_DAMAGED = 400, MAX_VALUES = 64 };

static uint64_t random_state;

static uint32_t random_below(uint32_t n)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % n;
}

struct world {
    struct ir_ctx cx;
    struct diag diag;
    struct module *m;
    struct value *v[MAX_VALUES];
    int n;
};

static void count_line(void *user, const char *line)
{
    (void)user;
    (void)line;
}

static void show_line(void *user, const char *line)
{
    (void)user;
    print_error("%s\n", line);
}

static void world_open(struct world *w, diag_sink *sink)
{
    memset(w, 0, sizeof *w);
    diag_init(&w->diag, sink, NULL);
    ir_ctx_init(&w->cx, NULL, &w->diag);
}

static void world_close(struct world *w)
{
    ir_module_free(w->m);
    ir_ctx_free(&w->cx);
}

/* Plain, odd, repeated and missing names. */
static sym random_name(struct world *w)
{
    static const char *const names[] = {"x", "layer.0/add", "a b",      "q\"\\", "\n\x01",
                                        "0", "x.1",         "\xc3\xa9", "loc",   "in"};
    const uint32_t i = random_below(14);
    return i < 10 ? str_internz(&w->cx.strings, names[i]) : 0;
}

static expr random_dim(struct world *w)
{
    static const char *const names[] = {"n", "past", "seq len", "a/b"};
    struct expr_pool *p = &w->cx.exprs;
    if (random_below(2))
        return expr_const(p, 1 + (int64_t)random_below(5));
    const struct expr_range r = {1, random_below(2) ? 4096 : INT64_MAX, 1};
    expr e = expr_sym(p, expr_symbol_new(p, str_internz(&w->cx.strings, names[random_below(4)]), r));
    if (random_below(3) == 0)
        e = expr_add(p, expr_mul_const(p, e, 2), expr_const(p, 1));
    if (random_below(4) == 0)
        e = expr_align(p, e, 16);
    if (random_below(5) == 0)
        e = expr_max(p, e, expr_const(p, 7));
    return e;
}

static const struct loc *random_loc(struct world *w)
{
    if (random_below(2))
        return NULL;
    struct loc *l = ARENA_NEW(&w->m->arena, struct loc);
    l->n = (int32_t)random_below(3);
    l->names = ARENA_ARRAY(&w->m->arena, sym, 3);
    for (int i = 0; i < l->n; i++)
        l->names[i] = random_name(w);
    l->index = (int32_t)random_below(50) - 1;
    l->op_type = random_name(w);
    return l;
}

static struct value *pick(struct world *w)
{
    return w->v[random_below((uint32_t)w->n)];
}

static struct value *random_const(struct builder *b)
{
    float data[40];
    for (int i = 0; i < 40; i++) {
        const uint32_t bits = random_below(8) ? random_below(1000) << 21 : (uint32_t)random_state;
        memcpy(&data[i], &bits, sizeof bits);
    }
    const int64_t len = (int64_t)random_below(41);
    return random_below(4) ? ir_const(b, DT_F32, 0, NULL, data, 4) : ir_const(b, DT_F32, 1, &len, data, 4 * len);
}

static struct value *random_node(struct world *w, struct builder *b)
{
    static const enum op unary[] = {OP_Exp, OP_Neg, OP_LeakyRelu, OP_Sigmoid, OP_Identity};
    static const enum op binary[] = {OP_Add, OP_Mul, OP_Sub, OP_Div};
    struct value *x = pick(w);
    const bool is_float = dtype_is_float(x->type->dtype);
    switch (random_below(6)) {
    case 0: return random_const(b);
    case 1: {
        if (!is_float)
            return x;
        struct node *n = ir_new(b, OP_LeakyRelu, 1, &x, 1);
        ir_set_float(n, "alpha", (float)random_below(1000) / 7.0f);
        assert_int_equal(ir_infer(n), NPUC_OK);
        return &n->out[0];
    }
    case 2: return ir_sizes(b, x->type->dims, x->type->rank, false);
    case 3: return ir_op2(b, binary[random_below(4)], x, ir_cast(b, x, x->type->dtype));
    default: return is_float ? ir_op1(b, unary[random_below(5)], x) : x;
    }
}

/* Some of the elementwise nodes become Fused regions. */
static void fuse_some(struct world *w, struct graph *g)
{
    for_each_node_safe(n, g)
    {
        struct node *next = n->next;
        if (random_below(5) || !next || !op_has((enum op)n->op, T_ELEMENTWISE) ||
            !op_has((enum op)next->op, T_ELEMENTWISE))
            continue;
        struct node *const both[] = {n, next};
        ir_fuse(&w->cx, both, 2, next, random_below(2) ? "pair" : NULL);
        return;
    }
}

static void make_graph(struct world *w)
{
    w->m = ir_module_new(&w->cx);
    struct graph *g = ir_func_new(w->m, random_name(w));
    const int n_in = 1 + (int)random_below(3);
    for (int i = 0; i < n_in; i++) {
        expr dims[3];
        const int rank = (int)random_below(4);
        for (int k = 0; k < rank; k++)
            dims[k] = random_dim(w);
        w->v[w->n++] =
            ir_input_new(g, type_tensor(&w->cx, random_below(4) ? DT_F32 : DT_F16, rank, dims), random_name(w));
    }
    const int n_nodes = (int)random_below(40);
    struct builder b = ir_at_end(g);
    for (int i = 0; i < n_nodes; i++) {
        b.loc = random_loc(w);
        struct value *v = random_node(w, &b);
        assert_non_null(v);
        if (v->def) {
            v->name = random_name(w);
            v->def->place = (uint8_t)random_below(4);
            v->def->reason = random_below(4) ? 0 : random_name(w);
            w->v[w->n++] = v;
        }
    }
    struct value *out[] = {pick(w), w->v[w->n - 1]};
    ir_new(&b, OP_Yield, 1 + (int)random_below(2), out, 0);
    fuse_some(w, g);
}

static void round_trip(const char *text, int64_t len)
{
    static struct world again;
    world_open(&again, show_line);
    assert_int_equal(ir_parse(&again.cx, text, len, &again.m), NPUC_OK);
    assert_int_equal(ir_verify(again.m, "parsing"), NPUC_OK);
    const char *text2;
    int64_t len2;
    ir_print(again.m, &again.m->arena, &text2, &len2);
    assert_string_equal(text2, text);
    assert_int_equal(len2, len);
    world_close(&again);
}

static void random_graphs_round_trip(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= N_GRAPHS; seed++) {
        static struct world w;
        random_state = seed * 7919;
        world_open(&w, show_line);
        make_graph(&w);
        if (ir_verify(w.m, "making") != NPUC_OK)
            fail_msg("seed %d does not verify", (int)seed);
        const char *text;
        int64_t len;
        ir_print(w.m, &w.m->arena, &text, &len);
        round_trip(text, len);
        world_close(&w);
    }
}

static void damaged_text_is_refused_or_verifies(void **state)
{
    (void)state;
    static struct world w, damaged;
    for (uint64_t seed = 1; seed <= N_DAMAGED; seed++) {
        random_state = seed * 104729;
        world_open(&w, show_line);
        make_graph(&w);
        const char *text;
        int64_t len;
        ir_print(w.m, &w.m->arena, &text, &len);
        char *copy = arena_strndup(&w.m->arena, text, len);
        for (uint32_t i = 0; i <= seed % 3; i++)
            copy[random_below((uint32_t)len)] = "{}()[]%,=\"0:x;\n\\-"[random_below(17)];
        if (random_below(4) == 0)
            len = (int64_t)random_below((uint32_t)len);
        world_open(&damaged, count_line);
        const enum npuc_status s = ir_parse(&damaged.cx, copy, len, &damaged.m);
        if (s == NPUC_OK)
            assert_int_equal(ir_verify(damaged.m, "parsing"), NPUC_OK);
        else
            assert_true(damaged.diag.n_errors > 0 && !damaged.m);
        world_close(&damaged);
        world_close(&w);
    }
}

static void large_blobs_use_the_side_file(void **state)
{
    (void)state;
    static struct world w, again;
    world_open(&w, show_line);
    w.m = ir_module_new(&w.cx);
    struct builder b = ir_at_end(ir_func_new(w.m, str_internz(&w.cx.strings, "main")));
    float data[100];
    for (int i = 0; i < 100; i++)
        data[i] = (float)i;
    const int64_t len = 100;
    struct value *v[] = {ir_const(&b, DT_F32, 1, &len, data, sizeof data),
                         ir_const(&b, DT_F32, 1, &len, data, sizeof data)};
    ir_new(&b, OP_Yield, 2, v, 0);
    const char *text;
    const uint8_t *bytes;
    int64_t text_len, size;
    ir_print(w.m, &w.m->arena, &text, &text_len);
    ir_blobs_print(w.m, &w.m->arena, &bytes, &size);
    assert_int_equal(size, 64 + 448); /* once, aligned */
    round_trip(text, text_len);       /* also without the bytes */
    world_open(&again, show_line);
    struct ir_blobs blobs;
    assert_int_equal(ir_blobs_open(&again.cx, bytes, size, &blobs), NPUC_OK);
    assert_int_equal(ir_parse_with(&again.cx, text, text_len, &blobs, &again.m), NPUC_OK);
    const struct blob *blob = value_const(graph_yield(again.m->funcs.data[0])->in[1].value);
    assert_memory_equal(blob->data, data, sizeof data);
    world_close(&again);
    world_open(&again, count_line);
    assert_int_equal(ir_blobs_open(&again.cx, bytes, 100, &blobs), NPUC_E_INVALID);
    world_close(&again);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_graphs_round_trip),
        cmocka_unit_test(damaged_text_is_refused_or_verifies),
        cmocka_unit_test(large_blobs_use_the_side_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
