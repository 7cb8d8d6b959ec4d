/* Graphs as text, compiled and run on the emulated cores with hazard checks: every result equals the
 * reference interpreter's bit for bit, whatever the tile. Results are y, z and w in this order. */
#ifndef TESTS_UNIT_GRAPH_CASE_H
#define TESTS_UNIT_GRAPH_CASE_H

#include "backend_unit.h"

#include "ir/eval.h"
#include "ir/text.h"

struct graph_case {
    const char *name, *text;
    int64_t b, s, t; /* values of the symbols of these names */
};

#define HEAD "module {\n  sym b in 0..8\n  sym s in 0..4096\n  sym t in 0..100000\n  func @main("
#define TAIL "\n  }\n}\n"

static inline void fill(struct k_tensor *t, uint64_t *seed)
{
    int64_t n = k_count(t);
    for (int64_t i = 0; i < n; i++) {
        const int64_t r = (int64_t)(unit_random(seed) % 2001) - 1000;
        if (dtype_is_float(t->dtype))
            k_set_f64(t, i, (double)r / 256.0);
        else
            k_set_i64(t, i, t->dtype == DT_BOOL ? r & 1 : (r + 1000) % 50);
    }
}

static inline struct k_tensor make_input(struct infer_unit *f, struct arena *a, const struct value *v,
                                         const int64_t *symbols, uint64_t *seed)
{
    struct k_tensor t = {.dtype = v->type->dtype, .rank = v->type->rank};
    int64_t n = 1;
    for (int i = 0; i < t.rank; i++) {
        assert_true(expr_eval(&f->cx.exprs, v->type->dims[i], symbols, &t.dims[i]));
        n *= t.dims[i];
    }
    assert_true(dtype_bytes(t.dtype, n, &t.size));
    t.data = arena_zalloc(a, t.size + 1);
    fill(&t, seed);
    return t;
}

/* The number of launches that ran. */
static inline int run_case(const struct graph_case *c, struct tiling tiling)
{
    void *state = NULL;
    assert_int_equal(infer_unit_setup(&state), 0);
    struct infer_unit *f = state;
    struct backend_unit u;
    struct arena a;
    uint64_t seed = 7;
    struct module *m = NULL;
    if (ir_parse(&f->cx, c->text, (int64_t)strlen(c->text), &m) != NPUC_OK)
        fail_msg("%s: %s", c->name, f->last);
    struct module *own = f->m;
    f->m = m;
    backend_setup(&u, f);
    u.tiling = tiling;
    unit_arena(&a);
    const struct graph *g = m->funcs.data[0];
    int64_t symbols[64] = {0};
    const struct {
        const char *name;
        int64_t v;
    } bound[] = {{"b", c->b}, {"s", c->s}, {"t", c->t}};
    for (int i = 0; i < 3; i++) {
        int32_t s = expr_symbol_find(&f->cx.exprs, str_internz(&f->cx.strings, bound[i].name));
        symbols[s] = bound[i].v;
    }
    struct k_tensor in[8], out[4];
    for (int32_t i = 0; i < g->n_inputs; i++)
        in[i] = make_input(f, &a, g->inputs[i], symbols, &seed);
    if (ir_eval(&f->cx, g, in, out, &a) != NPUC_OK)
        fail_msg("%s: eval: %s", c->name, f->last);
    backend_compile(&u);
    for (int i = 0; i < 3; i++)
        if (expr_symbol_find(&u.plan.exprs, str_internz(&u.plan.strings, bound[i].name)) >= 0)
            backend_bind(&u, bound[i].name, bound[i].v);
    backend_allocate(&u);
    for (int32_t i = 0; i < g->n_inputs; i++)
        memcpy(backend_bytes(&u, str_text(&f->cx.strings, g->inputs[i]->name)), in[i].data, (size_t)in[i].size);
    backend_run(&u);
    static const char *const results[] = {"y", "z", "w"};
    for (int o = 0; o < graph_yield(g)->n_in; o++) {
        const uint8_t *got = backend_bytes(&u, results[o]);
        if (memcmp(got, out[o].data, (size_t)out[o].size) == 0)
            continue;
        int64_t i = 0;
        while (((const uint8_t *)out[o].data)[i] == got[i])
            i++;
        fail_msg("%s (rows %lld, cols %lld): byte %lld of %lld of %s differs", c->name, (long long)tiling.rows,
                 (long long)tiling.cols, (long long)i, (long long)out[o].size, results[o]);
    }
    const int launched = u.n_launched;
    backend_teardown(&u);
    arena_free(&a);
    f->m = own;
    ir_module_free(m);
    infer_unit_teardown(&state);
    return launched;
}

static inline void run_cases(const struct graph_case *cases, int64_t n)
{
    static const struct tiling tilings[] = {{0}, {.rows = 3, .cols = 64}, {.rows = 1, .cols = 192}};
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < NPUC_ARRAY_LEN(tilings); k++)
            run_case(&cases[i], tilings[k]);
}

#endif
