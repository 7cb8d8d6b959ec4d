/* A graph to try infer hooks on: inputs and constants from text, one node at a time, types compared as text. */
#ifndef TESTS_UNIT_INFER_UNIT_H
#define TESTS_UNIT_INFER_UNIT_H

#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ir/build.h"

struct infer_unit {
    struct ir_ctx cx;
    struct diag diag;
    struct module *m;
    struct graph *g;
    struct builder b;
    char last[1024]; /* newest message */
};

static void infer_unit_sink(void *user, const char *line)
{
    struct infer_unit *f = user;
    snprintf(f->last, sizeof f->last, "%s", line);
}

static inline int infer_unit_setup(void **state)
{
    struct infer_unit *f = calloc(1, sizeof *f);
    if (!f)
        return -1;
    diag_init(&f->diag, infer_unit_sink, f);
    ir_ctx_init(&f->cx, NULL, &f->diag);
    f->cx.arena.on_oom = f->cx.scratch.on_oom = unit_oom;
    f->m = ir_module_new(&f->cx);
    f->g = ir_func_new(f->m, str_internz(&f->cx.strings, "main"));
    f->b = ir_at_end(f->g);
    *state = f;
    return 0;
}

static inline int infer_unit_teardown(void **state)
{
    struct infer_unit *f = *state;
    ir_module_free(f->m);
    ir_ctx_free(&f->cx);
    free(f);
    return 0;
}

static inline expr dim(struct infer_unit *f, const char *text)
{
    const expr e = expr_parse(&f->cx.exprs, text, (int64_t)strlen(text), (struct expr_range){0, INT32_MAX, 1});
    assert_int_not_equal(e, EXPR_INVALID);
    return e;
}

/* A graph input: in(f, DT_F32, "batch, seq, 64"); "" is a scalar. */
static inline struct value *in(struct infer_unit *f, enum dtype t, const char *dims)
{
    expr d[IR_MAX_RANK];
    int rank = 0;
    char text[256];
    snprintf(text, sizeof text, "%s", dims);
    for (char *part = strtok(text, ","); part; part = strtok(NULL, ","))
        d[rank++] = dim(f, part);
    return ir_input_new(f->g, type_tensor(&f->cx, t, rank, d), 0);
}

static inline struct value *ints(struct infer_unit *f, int64_t n, const int64_t *v)
{
    return ir_const_i64(&f->b, v, n);
}
#define INTS_OF(f, ...) ints((f), NPUC_ARRAY_LEN(((const int64_t[]){__VA_ARGS__})), (const int64_t[]){__VA_ARGS__})

static inline struct value *int_scalar(struct infer_unit *f, int64_t v)
{
    return ir_const(&f->b, DT_I64, 0, NULL, &v, sizeof v);
}

static inline struct node *node(struct infer_unit *f, enum op op, int n_out, int n_in, struct value *const *v)
{
    return ir_new(&f->b, op, n_in, v, n_out);
}
#define NODE(f, op, n_out, ...)                                                                                        \
    node((f), (op), (n_out), (int)NPUC_ARRAY_LEN(((struct value *[]){__VA_ARGS__})), (struct value *[]){__VA_ARGS__})

/* Infers twice (the second run must change nothing); the first output. */
static inline struct value *infer(struct infer_unit *f, struct node *n)
{
    if (ir_infer(n) != NPUC_OK)
        fail_msg("%s", f->last);
    const struct type *t = n->out[0].type;
    assert_int_equal(ir_infer(n), NPUC_OK);
    assert_ptr_equal(n->out[0].type, t);
    return &n->out[0];
}
#define OP1(f, op, ...) infer((f), NODE((f), (op), 1, __VA_ARGS__))

static inline void check_type(struct infer_unit *f, const struct value *v, const char *expected)
{
    assert_string_equal(type_text(&f->cx, v->type), expected);
}
#define IS(f, v, expected) check_type((f), (v), (expected))

/* Content as text: "batch, 4, ?" */
static inline void check_elems(struct infer_unit *f, const struct value *v, const char *expected)
{
    char text[512] = "";
    const int64_t n = v->elems ? v->n_elems : 0;
    for (int64_t i = 0; i < n; i++) {
        const size_t len = strlen(text);
        const char *e = v->elems[i] ? expr_text(&f->cx.exprs, v->elems[i], &f->cx.scratch) : "?";
        snprintf(text + len, sizeof text - len, "%s%s", i ? ", " : "", e);
    }
    assert_string_equal(text, expected);
}
#define HOLDS(f, v, expected) check_elems((f), (v), (expected))

static inline void check_fails(struct infer_unit *f, struct node *n, const char *part)
{
    f->last[0] = 0;
    assert_int_not_equal(ir_infer(n), NPUC_OK);
    if (!strstr(f->last, part))
        fail_msg("message '%s' lacks '%s'", f->last, part);
}
#define FAILS(f, n, part) check_fails((f), (n), (part))

#endif
