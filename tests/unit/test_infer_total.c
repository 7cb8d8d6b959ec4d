/* Every operator's infer hook is total: whatever the number, types and shapes of the inputs, it types all outputs or
 * reports, and a second run changes nothing. */
#include "infer_unit.h"

#include <limits.h>

static struct value *random_input(struct infer_unit *f, uint64_t *r)
{
    static const enum dtype types[] = {DT_F32, DT_F32,  DT_F32, DT_F32, DT_I64,   DT_I64,
                                       DT_I32, DT_BOOL, DT_U8,  DT_F16, DT_STRING};
    static const char *const shapes[] = {"",
                                         "1",
                                         "2",
                                         "4",
                                         "n",
                                         "2, 4",
                                         "n, 4",
                                         "batch, seq, 8",
                                         "1, 2, 8",
                                         "batch, 4, seq, 8",
                                         "0, 4",
                                         "2, 3, 8, 8",
                                         "batch, seq, 2, 3, 8"};
    static const int64_t values[] = {0, 1, -1, 2, 3, 8, -9, INT64_MAX, INT64_MIN, 64};
    const uint64_t kind = unit_random(r) % 8;
    if (kind == 0)
        return NULL;
    if (kind == 1)
        return ir_input_new(f->g, type_tensor(&f->cx, types[unit_random(r) % NPUC_ARRAY_LEN(types)], -1, NULL), 0);
    if (kind <= 3) {
        int64_t v[4];
        const int64_t n = (int64_t)(unit_random(r) % 5);
        for (int64_t i = 0; i < n; i++)
            v[i] = values[unit_random(r) % NPUC_ARRAY_LEN(values)];
        return kind == 2 && n ? int_scalar(f, v[0]) : ints(f, n, v);
    }
    return in(f, types[unit_random(r) % NPUC_ARRAY_LEN(types)], shapes[unit_random(r) % NPUC_ARRAY_LEN(shapes)]);
}

static void random_attrs(struct node *n, uint64_t *r)
{
    static const int64_t values[] = {0, 1, 2, -1, 3, 4, 7, 16, 32, INT64_MAX, INT64_MIN};
    const struct op_def *d = op_table[n->op];
    for (int i = 0; i < d->n_attrs; i++) {
        if (d->attrs[i].kind == ATTR_INT && unit_random(r) % 2)
            ir_set_int(n, d->attrs[i].name, values[unit_random(r) % NPUC_ARRAY_LEN(values)]);
        if (d->attrs[i].kind == ATTR_INTS && unit_random(r) % 3 == 0) {
            int64_t v[6];
            const int64_t len = (int64_t)(unit_random(r) % 6);
            for (int64_t k = 0; k < len; k++)
                v[k] = values[unit_random(r) % NPUC_ARRAY_LEN(values)];
            ir_set_ints(n, d->attrs[i].name, v, len);
        }
    }
}

/* Operators whose results have the types that their maker gave them: infer keeps those. */
static const enum op typed_by_maker[] = {OP_Unsupported};

static void give_types(struct infer_unit *f, struct node *n)
{
    for (int64_t k = 0; k < NPUC_ARRAY_LEN(typed_by_maker); k++)
        for (int i = 0; i < n->n_out && typed_by_maker[k] == n->op; i++)
            n->out[i].type = type_tensor(&f->cx, DT_F32, -1, NULL);
}

static int try_op(struct infer_unit *f, enum op op, uint64_t *r)
{
    const struct op_def *d = op_table[op];
    struct value *v[8];
    int n_in = d->min_in + (int)(unit_random(r) % 3) - (unit_random(r) % 8 == 0);
    n_in = n_in < 0 ? 0 : n_in > 8 ? 8 : n_in;
    for (int i = 0; i < n_in; i++)
        v[i] = random_input(f, r);
    struct node *n = node(f, op, d->n_out >= 0 ? d->n_out : 2, n_in, v);
    random_attrs(n, r);
    give_types(f, n);
    if (d->legal)
        (void)d->legal(&f->cx, n);
    if (ir_infer(n) != NPUC_OK)
        return 0;
    for (int i = 0; i < n->n_out; i++)
        if (n->out[i].type->kind == TYPE_NONE)
            fail_msg("%s leaves output %d without a type", d->name, i);
    const struct type *first = n->n_out ? n->out[0].type : NULL;
    if (ir_infer(n) != NPUC_OK)
        fail_msg("%s: %s, then %s", d->name, type_text(&f->cx, first), f->last);
    if (first && first != n->out[0].type)
        fail_msg("%s: %s, then %s", d->name, type_text(&f->cx, first), type_text(&f->cx, n->out[0].type));
    if (d->fold && d->n_out == 1 && d->fold(&f->cx, n))
        assert_int_equal(d->fold(&f->cx, n)->type->dtype, n->out[0].type->dtype);
    int64_t symbols[64] = {0};
    struct cost c;
    const bool owned = f->cx.exprs.symbols.len <= 64;
    if (d->cost && owned)
        d->cost(&f->cx, n, symbols, &c);
    return 1;
}

static void every_operator(void **state)
{
    struct infer_unit *f = *state;
    uint64_t r = 1;
    f->diag.max_errors = INT_MAX;
    for (int op = OP_none + 1; op < OP_count; op++) {
        int typed = 0;
        for (int i = 0; i < 60; i++)
            typed += try_op(f, (enum op)op, &r);
        (void)typed;
    }
}

static void rows_are_well_formed(void **state)
{
    (void)state;
    for (int op = OP_none + 1; op < OP_count; op++) {
        const struct op_def *d = op_table[op];
        assert_non_null(d->infer);
        assert_true(d->max_in == -1 || d->max_in >= d->min_in);
        assert_null(d->attrs[d->n_attrs].name);
        for (int i = 0; i < d->n_attrs; i++)
            assert_int_equal(attr_index(d, d->attrs[i].name), i);
        assert_int_equal(op_find(d->domain, d->name), op);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(nm) cmocka_unit_test_setup_teardown(nm, infer_unit_setup, infer_unit_teardown)
        TEST(rows_are_well_formed),
        TEST(every_operator),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
