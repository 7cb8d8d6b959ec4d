/* --input-layout, --output-layout: how graph inputs and outputs lie in memory. A blocked tensor is declared with the
 * dimensions that it has in memory; the way to and from the model's dimensions are nodes of the graph, which passes
 * and generators treat like any other:
 *
 *   NZ        [.., m, n]    lies as [.., n/c0, m/16, 16, c0]      rows to 16, columns to c0 filled up
 *   NC1HWC0   [n, c, h, w]  lies as [n, c/c0, h, w, c0]           channels to c0 filled up; any number of spatial axes
 *
 * c0 is 32 bytes. What an input holds in the filling is not looked at, an output has zeros there. */
#include <string.h>

#include "compiler/compile.h"
#include "ir/build.h"

#define ROWS 16

/* A blocked form of a type, as the reshape and the permutation between both. */
struct blocked {
    int n, rank;               /* dimensions in the model, in memory */
    expr dims[IR_MAX_RANK];    /* of the model */
    expr filled[IR_MAX_RANK];  /* of the model, filled up to whole blocks */
    expr split[IR_MAX_RANK];   /* filled dimensions with block and inner index side by side */
    expr memory[IR_MAX_RANK];  /* in memory */
    int64_t to[IR_MAX_RANK];   /* memory dimension i is split dimension to[i] */
    int64_t from[IR_MAX_RANK]; /* and back */
};
enum boundary_layout { PLAIN, NZ, NC1HWC0, UNKNOWN };

static enum boundary_layout layout_of(const char *name)
{
    static const char *const names[] = {[PLAIN] = "ND", [NZ] = "NZ", [NC1HWC0] = "NC1HWC0"};
    int i = 0;
    while (i < UNKNOWN && strcmp(names[i], name) != 0)
        i++;
    return (enum boundary_layout)i;
}

static void split_axis(struct expr_pool *x, struct blocked *b, int axis, int at, int64_t block)
{
    const expr blocks = expr_ceildiv(x, b->dims[axis], expr_const(x, block));
    b->filled[axis] = expr_mul_const(x, blocks, block);
    b->split[at] = blocks;
    b->split[at + 1] = expr_const(x, block);
}

static void order_nz(struct expr_pool *x, struct blocked *b, int64_t c0)
{
    const int m = b->n - 2;
    b->rank = b->n + 2;
    split_axis(x, b, m, m, ROWS);
    split_axis(x, b, m + 1, m + 2, c0);
    for (int i = 0; i < m; i++)
        b->to[i] = i;
    b->to[m] = m + 2;
    b->to[m + 1] = m;
    b->to[m + 2] = m + 1;
    b->to[m + 3] = m + 3;
}

static void order_channels(struct expr_pool *x, struct blocked *b, int64_t c0)
{
    b->rank = b->n + 1;
    split_axis(x, b, 1, 1, c0);
    for (int i = 2; i < b->n; i++)
        b->split[i + 1] = b->dims[i];
    b->to[0] = 0;
    b->to[1] = 1;
    for (int i = 2; i < b->n; i++)
        b->to[i] = i + 1;
    b->to[b->n] = 2;
}

static bool block(struct compilation *c, const struct type *t, enum boundary_layout l, struct blocked *b)
{
    struct expr_pool *x = &c->cx.exprs;
    *b = (struct blocked){.n = t->rank};
    if (t->kind != TYPE_TENSOR || type_is_object(t) || dtype_size(t->dtype) < 1 || t->rank < (l == NZ ? 2 : 3) ||
        t->rank > IR_MAX_RANK - 2)
        return false;
    for (int i = 0; i < t->rank; i++)
        b->dims[i] = b->filled[i] = b->split[i] = t->dims[i];
    const int64_t c0 = c->machine.c0_bytes / dtype_size(t->dtype);
    if (l == NZ)
        order_nz(x, b, c0);
    else
        order_channels(x, b, c0);
    for (int i = 0; i < b->rank; i++) {
        b->memory[i] = b->split[b->to[i]];
        b->from[b->to[i]] = i;
    }
    return true;
}

static bool is_filled(const struct blocked *b)
{
    for (int i = 0; i < b->n; i++)
        if (b->filled[i] != b->dims[i])
            return true;
    return false;
}

/* The value's dimensions cut to those of the model. */
static struct value *cut(struct builder *at, const struct blocked *b, struct value *v)
{
    int64_t zeros[IR_MAX_RANK] = {0};
    struct value *in[] = {v, ir_const_i64(at, zeros, b->n), ir_sizes(at, b->dims, b->n, false)};
    return in[1] && in[2] ? ir_op3(at, OP_Slice, in[0], in[1], in[2]) : NULL;
}

static struct value *fill(struct builder *at, const struct blocked *b, struct value *v)
{
    expr pads[2 * IR_MAX_RANK];
    for (int i = 0; i < b->n; i++) {
        pads[i] = expr_const(&at->cx->exprs, 0);
        pads[b->n + i] = expr_sub(&at->cx->exprs, b->filled[i], b->dims[i]);
    }
    struct value *by = ir_sizes(at, pads, 2 * b->n, false);
    return by ? ir_op2(at, OP_Pad, v, by) : NULL;
}

static bool open_input(struct compilation *c, struct value *v, const struct blocked *b)
{
    struct builder at = v->graph->first ? ir_at(v->graph->first) : ir_at_end(v->graph);
    v->type = type_tensor(&c->cx, v->type->dtype, b->rank, b->memory);
    struct value *turned = ir_transpose(&at, v, b->from);
    struct value *dense = turned ? ir_reshape(&at, turned, b->n, b->filled) : NULL;
    if (dense && is_filled(b))
        dense = cut(&at, b, dense);
    if (!dense)
        return false;
    ir_replace_all(v, dense);
    ir_set_input(turned->def, 0, v);
    return true;
}

static bool close_output(struct value *v, const struct blocked *b)
{
    struct builder at = ir_at_end(v->graph);
    struct value *whole = is_filled(b) ? fill(&at, b, v) : v;
    struct value *split = whole ? ir_reshape(&at, whole, b->rank, b->split) : NULL;
    struct value *memory = split ? ir_transpose(&at, split, b->to) : NULL;
    if (!memory)
        return false;
    struct node *yield = graph_yield(v->graph), *first = whole == v ? split->def : whole->def;
    const sym name = v->name;
    for (int i = 0; i < yield->n_in; i++)
        if (node_in(yield, i) == v)
            ir_set_input(yield, i, memory);
    v->name = memory->name;
    memory->name = name;
    ir_set_input(first, 0, v);
    return true;
}

static struct value *find(struct compilation *c, const char *name, int64_t len, bool output)
{
    struct graph *g = c->module->funcs.data[0];
    const sym s = str_intern(&c->cx.strings, name, len);
    const struct node *yield = graph_yield(g);
    for (int i = 0; i < (output ? yield->n_in : g->n_inputs); i++) {
        struct value *v = output ? node_in(yield, i) : g->inputs[i];
        if (v && v->name == s && (!output || v->def))
            return v;
    }
    return NULL;
}

static enum npuc_status usage(struct compilation *c, const char *text, const char *what)
{
    return diag_error(&c->diag, &(struct diag_loc){.file = c->cx.file, .index = -1}, D_USAGE,
                      arena_printf(&c->arena, "%s: %s", text, what));
}

static enum npuc_status apply(struct compilation *c, const char *text, bool output)
{
    const char *eq = strrchr(text, '=');
    const enum boundary_layout l = eq ? layout_of(eq + 1) : UNKNOWN;
    struct value *v = eq ? find(c, text, eq - text, output) : NULL;
    struct blocked b;
    if (l == UNKNOWN)
        return usage(c, text, "expected NAME=ND, NAME=NZ or NAME=NC1HWC0");
    if (!v)
        return usage(c, text, output ? "the model has no such computed output" : "the model has no such input");
    if (l == PLAIN)
        return NPUC_OK;
    if (!block(c, v->type, l, &b))
        return usage(c, text, "a tensor of this rank or type has no such layout");
    return (output ? close_output(v, &b) : open_input(c, v, &b)) ? NPUC_OK : NPUC_E_INTERNAL;
}

enum npuc_status compilation_boundary(struct compilation *c)
{
    enum npuc_status s = NPUC_OK;
    for (int64_t i = 0; i < c->options.input_layouts.len && s == NPUC_OK; i++)
        s = apply(c, c->options.input_layouts.data[i], false);
    for (int64_t i = 0; i < c->options.output_layouts.len && s == NPUC_OK; i++)
        s = apply(c, c->options.output_layouts.data[i], true);
    return s;
}
