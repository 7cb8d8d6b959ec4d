/* Mutation keeps uses, order and names; the verifier accepts what it makes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ir/build.h"
#include "ir/text.h"

struct fixture {
    struct ir_ctx cx;
    struct diag diag;
    struct module *m;
    struct graph *g;
    struct value *x, *y;
};

static void sink(void *user, const char *line)
{
    (void)user;
    print_message("%s\n", line);
}

static sym name(struct fixture *f, const char *s)
{
    return str_internz(&f->cx.strings, s);
}

/* @main(%x: f32[n,4], %y: f32[n,4]) without nodes */
static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    diag_init(&f->diag, sink, NULL);
    ir_ctx_init(&f->cx, NULL, &f->diag);
    f->m = ir_module_new(&f->cx);
    f->g = ir_func_new(f->m, name(f, "main"));
    const struct expr_range r = {1, 100, 1};
    const expr dims[] = {expr_sym(&f->cx.exprs, expr_symbol_new(&f->cx.exprs, name(f, "n"), r)),
                         expr_const(&f->cx.exprs, 4)};
    const struct type *t = type_tensor(&f->cx, DT_F32, 2, dims);
    f->x = ir_input_new(f->g, t, name(f, "x"));
    f->y = ir_input_new(f->g, t, name(f, "y"));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    ir_module_free(f->m);
    ir_ctx_free(&f->cx);
    free(f);
    return 0;
}

static struct builder at_end(struct fixture *f)
{
    return ir_at_end(f->g);
}

static void yield(struct fixture *f, struct value *v)
{
    struct builder b = at_end(f);
    ir_new(&b, OP_Yield, 1, &v, 0);
    assert_int_equal(ir_verify(f->m, "test"), NPUC_OK);
}

static int count_nodes(const struct graph *g)
{
    int n = 0;
    for_each_node (node, g)
        n++;
    return n;
}

static int count_uses(const struct value *v)
{
    int n = 0;
    for_each_use (u, v)
        n++;
    return n;
}

static void types_are_interned(void **state)
{
    struct fixture *f = *state;
    const struct type *a = type_tensor(&f->cx, DT_F32, 2, f->x->type->dims);
    assert_ptr_equal(a, f->x->type);
    assert_ptr_not_equal(type_with_dtype(&f->cx, a, DT_F16), a);
    assert_ptr_equal(type_with_dtype(&f->cx, type_with_dtype(&f->cx, a, DT_F16), DT_F32), a);
    const struct layout nz = {.kind = LAYOUT_NZ, .c0 = 16};
    assert_string_equal(type_text(&f->cx, type_with_layout(&f->cx, a, nz)), "f32[n,4] nz(16)");
    assert_int_equal(type_const_count(&f->cx, a), -1);
    assert_false(type_is_static(&f->cx, a));
    assert_string_equal(expr_text(&f->cx.exprs, type_count(&f->cx, a), &f->cx.scratch), "4*n");
}

static void operators_are_found(void **state)
{
    (void)state;
    assert_int_equal(op_find("", "Add"), OP_Add);
    assert_int_equal(op_find("ai.onnx", "MatMul"), OP_MatMul);
    assert_int_equal(op_find("com.microsoft", "Add"), OP_none);
    assert_int_equal(op_find("", "NoSuchOperator"), OP_none);
    for (int op = OP_none + 1; op < OP_count; op++) {
        assert_int_equal(op_by_name(op_table[op]->name), op);
        for (int i = 0; i < op_table[op]->n_attrs; i++)
            assert_int_equal(attr_index(op_table[op], op_table[op]->attrs[i].name), i);
    }
}

static void uses_follow_replacement(void **state)
{
    struct fixture *f = *state;
    struct builder b = at_end(f);
    struct value *s = ir_op2(&b, OP_Add, f->x, f->y);
    struct value *t = ir_op2(&b, OP_Mul, s, s);
    assert_int_equal(count_uses(s), 2);
    assert_int_equal(count_uses(f->x), 1);
    yield(f, t);
    ir_replace_all(s, f->x);
    assert_int_equal(count_uses(s), 0);
    assert_int_equal(count_uses(f->x), 3);
    ir_erase(s->def);
    assert_int_equal(count_uses(f->x), 2);
    assert_int_equal(ir_verify(f->m, "test"), NPUC_OK);
    ir_set_input(t->def, 1, f->y);
    assert_true(value_has_one_use(f->y));
    assert_int_equal(ir_verify(f->m, "test"), NPUC_OK);
}

static void results_keep_their_names(void **state)
{
    struct fixture *f = *state;
    struct builder b = at_end(f);
    struct value *s = ir_op1(&b, OP_Exp, f->x);
    struct value *t = ir_op1(&b, OP_Neg, s);
    s->name = name(f, "inner");
    t->name = name(f, "result");
    yield(f, t);
    assert_true(ir_can_replace(t, s));
    ir_replace_all(t, s);
    assert_ptr_equal(graph_yield(f->g)->in[0].value, s);
    assert_string_equal(str_text(&f->cx.strings, s->name), "result");
    ir_replace_all(s, f->x); /* an input keeps its own name */
    const struct value *r = graph_yield(f->g)->in[0].value;
    assert_int_equal(r->def->op, OP_Identity);
    assert_string_equal(str_text(&f->cx.strings, r->name), "result");
    assert_string_equal(str_text(&f->cx.strings, f->x->name), "x");
    assert_false(ir_can_replace(r, f->x));
    assert_int_equal(ir_verify(f->m, "test"), NPUC_OK);
}

static void constants_and_sizes(void **state)
{
    struct fixture *f = *state;
    struct builder b = at_end(f);
    const int64_t v[] = {3, -1};
    const struct value *c = ir_const_i64(&b, v, 2);
    assert_int_equal(value_n_elems(&f->cx, c), 2);
    int64_t out = 0;
    assert_true(expr_is_const(&f->cx.exprs, value_elem(&f->cx, c, 1), &out));
    assert_int_equal(out, -1);
    double real = 0;
    assert_true(value_const_f64(ir_scalar_like(&b, f->x, 0.5), 0, &real));
    assert_true(real == 0.5);
    assert_false(value_const_f64(c, 2, &real));
    const struct value *s = ir_sizes(&b, f->x->type->dims, 2, false);
    assert_int_equal(s->def->op, OP_SizeOf);
    assert_int_equal(value_elem(&f->cx, s, 0), f->x->type->dims[0]);
    const expr flat = type_count(&f->cx, f->x->type);
    yield(f, ir_reshape(&b, f->x, 1, &flat));
    assert_ptr_equal(ir_cast(&b, f->x, DT_F32), f->x);
    assert_int_equal(ir_cast(&b, f->x, DT_F16)->type->dtype, DT_F16);
    assert_int_equal(ir_dce(f->g), 4); /* all but the reshape and its sizes */
}

static void sorting_restores_order(void **state)
{
    struct fixture *f = *state;
    struct builder b = at_end(f);
    struct value *s = ir_op1(&b, OP_Exp, f->x), *t = ir_op1(&b, OP_Neg, s), *u = ir_op2(&b, OP_Add, t, s);
    yield(f, u);
    ir_move_before(u->def, s->def);
    ir_move_before(t->def, s->def);
    assert_ptr_equal(f->g->first, u->def);
    ir_sort(f->g);
    assert_ptr_equal(f->g->first, s->def);
    assert_ptr_equal(s->def->next, t->def);
    assert_ptr_equal(t->def->next, u->def);
    assert_int_equal(ir_verify(f->m, "test"), NPUC_OK);
}

static void fusing_makes_a_region(void **state)
{
    struct fixture *f = *state;
    struct builder b = at_end(f);
    struct value *one = ir_scalar_f32(&b, 1.0f);
    struct value *s = ir_op2(&b, OP_Add, f->x, f->y), *t = ir_op2(&b, OP_Mul, s, one), *u = ir_op1(&b, OP_Exp, t);
    struct value *v = ir_op2(&b, OP_Sub, u, s);
    yield(f, v);
    struct node *const nodes[] = {s->def, t->def, u->def};
    struct node *fused = ir_fuse(&f->cx, nodes, 3, u->def, "chain");
    assert_int_equal(ir_verify(f->m, "ir_fuse"), NPUC_OK);
    assert_int_equal(fused->n_in, 2); /* the small constant is within */
    assert_int_equal(fused->n_out, 2);
    assert_int_equal(count_nodes(node_region(fused, 0)), 5);
    assert_ptr_equal(v->def->in[0].value, &fused->out[1]);
    assert_ptr_equal(v->def->in[1].value, &fused->out[0]);
    struct builder at = ir_at(v->def);
    struct node *copy = ir_new(&at, OP_Fused, 2, (struct value *[]){f->y, f->x}, 2);
    ir_set_graph(copy, "body", ir_clone_region(node_region(fused, 0), copy));
    assert_int_equal(ir_infer(copy), NPUC_OK);
    assert_int_equal(ir_verify(f->m, "ir_clone_region"), NPUC_OK);
    assert_int_equal(ir_dce(f->g), 2); /* the copy, the constant outside */
    assert_int_equal(ir_verify(f->m, "ir_dce"), NPUC_OK);
}

static void locations_merge(void **state)
{
    struct fixture *f = *state;
    sym first[] = {name(f, "a"), name(f, "b")}, second[] = {name(f, "b"), name(f, "c")};
    const struct loc a = {.names = first, .n = 2, .index = 7}, b = {.names = second, .n = 2, .index = 3};
    const struct loc *l = ir_merge_loc(f->m, &a, &b);
    assert_int_equal(l->n, 3);
    assert_int_equal(l->names[2], name(f, "c"));
    assert_int_equal(l->index, 3);
    assert_ptr_equal(ir_merge_loc(f->m, NULL, &b), &b);
}

static void rewrites_are_counted(void **state)
{
    struct fixture *f = *state;
    assert_true(ir_may_rewrite(&f->cx));
    f->cx.max_rewrites = 2;
    assert_true(ir_may_rewrite(&f->cx));
    assert_false(ir_may_rewrite(&f->cx));
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(types_are_interned),       TEST(operators_are_found), TEST(uses_follow_replacement),
        TEST(results_keep_their_names), TEST(constants_and_sizes), TEST(sorting_restores_order),
        TEST(fusing_makes_a_region),    TEST(locations_merge),     TEST(rewrites_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
