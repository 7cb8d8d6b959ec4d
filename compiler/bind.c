/* -D and --shape: dimensions of the model's inputs fixed or given ranges, after import.
 *
 * A range narrows the symbol; a fixed size replaces the symbol in the types of all inputs, and types are inferred anew.
 */
#include <stdlib.h>
#include <string.h>

#include "compiler/compile.h"

static enum npuc_status usage(struct compilation *c, const char *fmt, const char *what)
{
    return diag_error(&c->diag, &(struct diag_loc){.file = c->cx.file, .index = -1}, D_USAGE,
                      arena_printf(&c->arena, "%s: %s", what, fmt));
}

static bool number(const char **s, int64_t *out)
{
    char *end;
    long long v = strtoll(*s, &end, 10);
    if (end == *s || v < 0)
        return false;
    *out = v;
    *s = end;
    return true;
}

/* "name=4", "name=1..8" */
static bool parse_dim(struct compilation *c, const char *text, sym *name, int64_t *lo, int64_t *hi)
{
    const char *eq = strchr(text, '=');
    if (!eq || eq == text)
        return false;
    *name = str_intern(&c->cx.strings, text, eq - text);
    const char *s = eq + 1;
    if (!number(&s, lo))
        return false;
    *hi = *lo;
    if (strncmp(s, "..", 2) == 0) {
        s += 2;
        if (!number(&s, hi))
            return false;
    }
    return *s == '\0' && *lo <= *hi;
}

static void substitute(struct compilation *c, const expr *by, int32_t n)
{
    struct graph *g = c->module->funcs.data[0];
    for (int32_t i = 0; i < g->n_inputs; i++) {
        const struct type *t = g->inputs[i]->type;
        expr dims[IR_MAX_RANK];
        if (t->kind != TYPE_TENSOR || t->rank < 0)
            continue;
        for (int d = 0; d < t->rank; d++)
            dims[d] = expr_subst(&c->cx.exprs, t->dims[d], by, n);
        g->inputs[i]->type = type_tensor(&c->cx, t->dtype, t->rank, dims);
    }
}

static enum npuc_status bind_dims(struct compilation *c, bool *changed)
{
    int32_t n = (int32_t)c->cx.exprs.symbols.len;
    expr *by = ARENA_ARRAY(&c->arena, expr, n);
    for (int64_t i = 0; i < c->options.dims.len; i++) {
        const char *text = c->options.dims.data[i];
        sym name;
        int64_t lo, hi;
        if (!parse_dim(c, text, &name, &lo, &hi))
            return usage(c, "expected NAME=SIZE or NAME=MIN..MAX", text);
        int32_t symbol = expr_symbol_find(&c->cx.exprs, name);
        if (symbol < 0)
            return usage(c, "the model has no dimension of this name (npuc inspect lists them)", text);
        expr_symbol_narrow(&c->cx.exprs, symbol, (struct expr_range){lo, hi, lo == hi && lo > 0 ? lo : 1});
        if (lo == hi)
            by[symbol] = expr_const(&c->cx.exprs, lo);
        *changed = true;
    }
    substitute(c, by, n);
    return NPUC_OK;
}

static struct value *find_input(struct compilation *c, const char *name, int64_t len)
{
    struct graph *g = c->module->funcs.data[0];
    sym s = str_intern(&c->cx.strings, name, len);
    for (int32_t i = 0; i < g->n_inputs; i++)
        if (g->inputs[i]->name == s)
            return g->inputs[i];
    return NULL;
}

/* "x=1x3x224x224" */
static enum npuc_status bind_shape(struct compilation *c, const char *text)
{
    const char *eq = strrchr(text, '=');
    struct value *v = eq ? find_input(c, text, eq - text) : NULL;
    expr dims[IR_MAX_RANK];
    if (!v)
        return usage(c, "the model has no such input (expected INPUT=AxBxC)", text);
    const char *s = eq + 1;
    for (int d = 0; d < v->type->rank; d++) {
        int64_t size;
        if (!number(&s, &size) || (d + 1 < v->type->rank && *s++ != 'x'))
            return usage(c, "expected one size per axis, separated by x", text);
        dims[d] = expr_const(&c->cx.exprs, size);
    }
    if (*s != '\0')
        return usage(c, "more sizes than the input has axes", text);
    int32_t n = (int32_t)c->cx.exprs.symbols.len;
    expr *all = ARENA_ARRAY(&c->arena, expr, n);
    for (int d = 0; d < v->type->rank; d++) {
        const struct expr_node *e = &c->cx.exprs.nodes.data[v->type->dims[d]];
        if (e->op == EXPR_SYM)
            all[e->value] = dims[d];
    }
    substitute(c, all, n);
    v->type = type_tensor(&c->cx, v->type->dtype, v->type->rank, dims);
    return NPUC_OK;
}

/* A symbol that can have one value only is that value. */
static void substitute_fixed(struct compilation *c, bool *changed)
{
    int32_t n = (int32_t)c->cx.exprs.symbols.len;
    expr *by = ARENA_ARRAY(&c->arena, expr, n);
    bool any = false;
    for (int32_t i = 0; i < n; i++) {
        struct expr_range r = c->cx.exprs.symbols.data[i].range;
        if (r.min == r.max) {
            by[i] = expr_const(&c->cx.exprs, r.min);
            any = true;
        }
    }
    if (any)
        substitute(c, by, n);
    *changed = *changed || any;
}

enum npuc_status compilation_bind(struct compilation *c)
{
    bool changed = c->options.shapes.len > 0;
    enum npuc_status s = bind_dims(c, &changed);
    substitute_fixed(c, &changed);
    for (int64_t i = 0; i < c->options.shapes.len && s == NPUC_OK; i++)
        s = bind_shape(c, c->options.shapes.data[i]);
    if (s != NPUC_OK || !changed)
        return s;
    for_each_node (n, c->module->funcs.data[0]) {
        s = ir_infer(n);
        if (s != NPUC_OK)
            return s;
    }
    return NPUC_OK;
}
