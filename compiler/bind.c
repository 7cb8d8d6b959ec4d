/* --value, -D and --shape: values and dimensions of the model's inputs fixed, dimensions given ranges, after import.
 *
 * A range narrows the symbol; a fixed size replaces the symbol in the types of all inputs and where the import wrote
 * sizes down, and types are inferred anew.
 * An input of one element whose value is given is a constant, and no input any more: what it decides is decided.
 * Of a list of sizes (gears) one compilation takes one; all of them take the range from the least to the largest, so
 * that they agree about the symbols that they share.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/compile.h"
#include "ir/build.h"

static enum npuc_status usage(struct compilation *c, const char *fmt, const char *what)
{
    return diag_error(&c->diag, &(struct diag_loc){.file = c->cx.file, .index = -1}, D_USAGE,
                      arena_printf(&c->arena, "%s: %s", what, fmt));
}

static bool number(const char **s, int64_t *out)
{
    char *end;
    if (**s < '0' || **s > '9')
        return false;
    errno = 0;
    const long long v = strtoll(*s, &end, 10);
    if (errno || v > INT32_MAX)
        return false;
    *out = v;
    *s = end;
    return true;
}

bool dim_parse(const char *text, struct dim_spec *out)
{
    const char *eq = strrchr(text, '=');
    *out = (struct dim_spec){.name_len = eq ? eq - text : 0};
    if (!eq || eq == text)
        return false;
    const char *s = eq + 1;
    do {
        int64_t v;
        if (out->n == DIM_MAX_GEARS || !number(&s, &v))
            return false;
        for (int32_t i = 0; i < out->n; i++)
            if (out->gear[i] == v)
                return false;
        out->lo = out->n == 0 || v < out->lo ? v : out->lo;
        out->hi = out->n == 0 || v > out->hi ? v : out->hi;
        out->gear[out->n++] = v;
    } while (*s == ',' && s++);
    if (out->n == 1 && strncmp(s, "..", 2) == 0) {
        s += 2;
        if (!number(&s, &out->hi))
            return false;
        out->n = out->hi == out->lo ? 1 : 0;
    }
    return *s == '\0' && out->lo <= out->hi;
}

static void substitute(struct compilation *c, const expr *by, int32_t n)
{
    struct graph *g = c->module->funcs.data[0];
    ir_substitute_inputs(g, by, n);
    ir_substitute(g, by, n);
}

static enum npuc_status bind_dims(struct compilation *c, bool *changed)
{
    int32_t n = (int32_t)c->cx.exprs.symbols.len;
    expr *by = ARENA_ARRAY(&c->arena, expr, n);
    bool *seen = ARENA_ARRAY(&c->arena, bool, n);
    c->fixed = ARENA_ARRAY(&c->arena, int32_t, c->options.dims.len);
    c->sizes = ARENA_ARRAY(&c->arena, int64_t, c->options.dims.len);
    c->n_fixed = 0;
    for (int64_t i = 0; i < c->options.dims.len; i++) {
        const char *text = c->options.dims.data[i];
        struct dim_spec d;
        if (!dim_parse(text, &d))
            return usage(c,
                         "expected NAME=SIZE, NAME=MIN..MAX or gears NAME=SIZE,SIZE,... (whole numbers to 2147483647, "
                         "MIN <= MAX, at most 64 gears, none twice)",
                         text);
        int32_t symbol = expr_symbol_find(&c->cx.exprs, str_intern(&c->cx.strings, text, d.name_len));
        if (symbol < 0)
            return usage(c, "the model has no dimension of this name (npuc inspect lists them)", text);
        if (by[symbol] || seen[symbol])
            return usage(c, "this dimension is given twice", text);
        seen[symbol] = true;
        expr_symbol_narrow(&c->cx.exprs, symbol, (struct expr_range){d.lo, d.hi, d.lo == d.hi && d.lo > 0 ? d.lo : 1});
        if (d.n > 0) {
            const int64_t size = d.gear[c->gear && d.n > 1 ? c->gear[i] : 0];
            by[symbol] = expr_const(&c->cx.exprs, size);
            c->fixed[c->n_fixed] = symbol;
            c->sizes[c->n_fixed++] = size;
        }
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

/* Nothing reads the input any more; the others keep their order. */
static void drop_input(struct graph *g, const struct value *v)
{
    int32_t kept = 0;
    for (int32_t i = 0; i < g->n_inputs; i++) {
        if (g->inputs[i] == v)
            continue;
        g->inputs[i]->index = (uint32_t)kept;
        g->inputs[kept++] = g->inputs[i];
    }
    g->n_inputs = kept;
}

static bool one_element(const struct compilation *c, const struct type *t)
{
    const enum dtype_class cls = dtype_table[t->dtype].cls;
    if (t->kind != TYPE_TENSOR || t->rank < 0 ||
        (t->dtype != DT_BOOL && cls != DTC_INT && cls != DTC_UINT && cls != DTC_FLOAT))
        return false;
    for (int d = 0; d < t->rank; d++) {
        int64_t size;
        if (!expr_is_const(&c->cx.exprs, t->dims[d], &size) || size != 1)
            return false;
    }
    return true;
}

/* Does the type hold the number exactly as it was written? Floats round it. */
static bool holds(enum dtype t, double x)
{
    const enum dtype_class cls = dtype_table[t].cls;
    if (cls == DTC_FLOAT)
        return true;
    if (t == DT_BOOL)
        return x == 0.0 || x == 1.0;
    const double most = ldexp(1.0, (int)(8 * dtype_size(t)) - (cls == DTC_INT));
    return x == floor(x) && fabs(x) <= 0x1p53 && x < most && x >= (cls == DTC_INT ? -most : 0.0);
}

/* "use_cache_branch=1" */
static enum npuc_status bind_value(struct compilation *c, const char *text)
{
    struct graph *g = c->module->funcs.data[0];
    const char *eq = strrchr(text, '=');
    struct value *v = eq ? find_input(c, text, eq - text) : NULL;
    char *end;
    if (!v)
        return usage(c, "the model has no such input (expected INPUT=NUMBER)", text);
    const double x = strtod(eq + 1, &end);
    if (end == eq + 1 || *end != '\0' || !isfinite(x))
        return usage(c, "expected INPUT=NUMBER", text);
    if (!one_element(c, v->type))
        return usage(c, "only an input of one number can be given a value at compile time", text);
    if (!holds(v->type->dtype, x))
        return usage(c, arena_printf(&c->arena, "expected a number of type %s", dtype_table[v->type->dtype].name),
                     text);
    struct builder b = {.cx = &c->cx, .graph = g, .before = g->first, .loc = g->first ? g->first->loc : NULL};
    struct value *number = ir_scalar_like(&b, v, x);
    if (number && v->type->rank > 0)
        number = ir_reshape(&b, number, v->type->rank, v->type->dims);
    if (!number)
        return NPUC_E_INTERNAL;
    ir_replace_all(v, number);
    drop_input(g, v);
    return NPUC_OK;
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

/* The shapes of the inputs before sizes are fixed: the runtime names dimensions by them. */
static void keep_shapes(struct compilation *c)
{
    const struct graph *g = c->module->funcs.data[0];
    c->n_inputs = g->n_inputs;
    c->inputs = ARENA_ARRAY(&c->arena, const struct type *, g->n_inputs);
    for (int32_t i = 0; i < g->n_inputs; i++)
        c->inputs[i] = g->inputs[i]->type;
}

enum npuc_status compilation_bind(struct compilation *c)
{
    bool changed = c->options.shapes.len > 0 || c->options.values.len > 0;
    enum npuc_status s = NPUC_OK;
    for (int64_t i = 0; i < c->options.values.len && s == NPUC_OK; i++)
        s = bind_value(c, c->options.values.data[i]);
    if (s != NPUC_OK)
        return s;
    keep_shapes(c);
    s = bind_dims(c, &changed);
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
