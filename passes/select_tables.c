/* Rows of a table that an If chooses among constants are looked up in one table that holds all of them.
 *
 *   %t = If %long {then: Yield %a : f32[m,h]; else: Yield %b : f32[n,h]};  %y = Gather %t, %i {axis=0}
 * becomes
 *   %ab = Constant : f32[m+n,h];  %y = Gather %ab, %j     with %j the row of %ab that row %i of the chosen table is
 *
 * Models whose angles depend on the length of the text (longrope) have such tables. The If would move a table, often of
 * megabytes, in every call, and its size would be known only then. An index that the chosen table does not have becomes
 * one that the joined table does not have either, so the same calls fail. Rotary embeddings with positions look rows up
 * in the same way: their positions are rewritten. Requirements: (1) all branches yield constants alone; (2) every use
 * of every result is such a lookup, rotary embeddings having cosine and sine of one If; (3) the If goes with its last
 * use, so the pass ends. */
#include <string.h>

#include "base/size.h"
#include "passes/pass.h"

struct tables {
    struct pass_ctx *px;
    struct node *n;
    struct value **joined; /* per result, NULL: not needed yet */
};

static struct value *yielded(const struct node *n, int branch, int i)
{
    return node_in(graph_yield(node_region(n, branch)), i);
}

/* Rows of the constant that a branch gives for result i; -1: something else. */
static int64_t rows_of(const struct ir_ctx *cx, const struct node *n, int branch, int i)
{
    const struct value *v = yielded(n, branch, i);
    int64_t rows;
    if (!v || !value_const(v) || v->type->rank < 1 || type_const_count(cx, v->type) < 0)
        return -1;
    return expr_is_const(&cx->exprs, v->type->dims[0], &rows) ? rows : -1;
}

static bool is_joinable(const struct ir_ctx *cx, const struct node *n, int i)
{
    const struct type *a = yielded(n, 0, i)->type, *b = yielded(n, 1, i)->type;
    if (rows_of(cx, n, 0, i) < 0 || rows_of(cx, n, 1, i) < 0 || a->rank != b->rank || a->dtype != b->dtype ||
        dtype_size(a->dtype) == 0)
        return false;
    for (int d = 1; d < a->rank; d++)
        if (a->dims[d] != b->dims[d])
            return false;
    return true;
}

static bool is_lookup(const struct use *u, const struct node *n)
{
    const struct node *by = u->user;
    if (by->op == OP_Gather)
        return node_in(by, 0)->def == n && node_in(by, 1)->def != n && node_attr_int(by, "axis", 0) == 0;
    if (by->op != OP_RotaryEmbedding || by->n_in < 4 || !node_in(by, 3) || node_in(by, 0)->def == n)
        return false;
    return node_in(by, 1)->def == n && node_in(by, 2)->def == n && node_in(by, 3)->def != n;
}

static bool match(const struct ir_ctx *cx, const struct node *n)
{
    bool used = false;
    if (n->op != OP_If || !node_region(n, 1))
        return false;
    for (int i = 0; i < n->n_out; i++) {
        if (!is_joinable(cx, n, i) || rows_of(cx, n, 0, i) != rows_of(cx, n, 0, 0) ||
            rows_of(cx, n, 1, i) != rows_of(cx, n, 1, 0))
            return false;
        for_each_use (u, &n->out[i]) {
            if (!is_lookup(u, n))
                return false;
            used = true;
        }
    }
    return used;
}

/* Both constants, one behind the other; bytes that are absent stay so. */
static struct value *join(struct tables *t, int i)
{
    if (t->joined[i])
        return t->joined[i];
    struct ir_ctx *cx = t->px->cx;
    struct builder b = ir_at(t->n);
    const struct value *v[2] = {yielded(t->n, 0, i), yielded(t->n, 1, i)};
    const struct blob *part[2] = {value_const(v[0]), value_const(v[1])};
    struct arena *a = &b.graph->module->arena;
    struct blob *blob = ARENA_NEW(a, struct blob);
    blob->origin = part[0]->origin;
    if (!size_add(part[0]->size, part[1]->size, &blob->size))
        return NULL;
    if (part[0]->data && part[1]->data) {
        char *bytes = arena_alloc(a, blob->size + 1, 64);
        memcpy(bytes, part[0]->data, (size_t)part[0]->size);
        memcpy(bytes + part[0]->size, part[1]->data, (size_t)part[1]->size);
        blob->data = bytes;
    }
    expr dims[IR_MAX_RANK];
    memcpy(dims, v[0]->type->dims, (size_t)v[0]->type->rank * sizeof *dims);
    dims[0] = expr_add(&cx->exprs, dims[0], v[1]->type->dims[0]);
    t->joined[i] = ir_const_blob(&b, type_tensor(cx, v[0]->type->dtype, v[0]->type->rank, dims), blob);
    return t->joined[i];
}

/* long ? a : b */
static struct value *choose(struct builder *b, struct value *is, const struct value *like, int64_t then, int64_t other)
{
    return ir_op3(b, OP_Where, is, ir_scalar_like(b, like, (double)then), ir_scalar_like(b, like, (double)other));
}

/* Row of the joined table for row i of the chosen one. */
static struct value *row_of(struct tables *t, struct builder *b, struct value *i)
{
    const struct ir_ctx *cx = t->px->cx;
    const int64_t m = rows_of(cx, t->n, 0, 0), n = rows_of(cx, t->n, 1, 0);
    struct value *is = node_in(t->n, 0);
    if (is->type->rank != 0)
        is = ir_reshape(b, is, 0, NULL);
    struct value *zero = ir_scalar_like(b, i, 0), *rows = is ? choose(b, is, i, m, n) : NULL;
    struct value *first = is ? choose(b, is, i, 0, m) : NULL;
    if (!rows || !first)
        return NULL;
    struct value *at = ir_op3(b, OP_Where, ir_op2(b, OP_Less, i, zero), ir_op2(b, OP_Add, i, rows), i);
    struct value *below = at ? ir_op2(b, OP_Less, at, zero) : NULL;
    struct value *above = at ? ir_op2(b, OP_GreaterOrEqual, at, rows) : NULL;
    struct value *none = below && above ? ir_op2(b, OP_Or, below, above) : NULL;
    return none ? ir_op3(b, OP_Where, none, ir_scalar_like(b, i, (double)(m + n)), ir_op2(b, OP_Add, at, first)) : NULL;
}

static enum npuc_status look_up(struct tables *t, struct node *by)
{
    const bool gather = by->op == OP_Gather;
    const int index = gather ? 1 : 3, first = gather ? 0 : 1, last = gather ? 0 : 2;
    struct builder b = ir_at(by);
    struct value *row = row_of(t, &b, node_in(by, index));
    if (!row)
        return NPUC_E_INTERNAL;
    ir_set_input(by, index, row);
    for (int i = first; i <= last; i++) {
        struct value *table = join(t, (int)node_in(by, i)->index);
        if (!table)
            return NPUC_E_INTERNAL;
        ir_set_input(by, i, table);
    }
    pass_count(t->px, STAT_select_tables_lookups, 1);
    return ir_infer(by);
}

static enum npuc_status select_table(struct pass_ctx *px, struct node *n)
{
    struct tables t = {px, n, ARENA_ARRAY(&px->arena, struct value *, n->n_out)};
    for (int i = 0; i < n->n_out; i++)
        while (n->out[i].uses) {
            const enum npuc_status s = look_up(&t, n->out[i].uses->user);
            if (s != NPUC_OK)
                return s;
        }
    ir_erase(n);
    return NPUC_OK;
}

enum npuc_status select_tables(struct pass_ctx *px, struct graph *g)
{
    for_each_node_safe(n, g)
    {
        if (!match(px->cx, n) || !ir_may_rewrite(px->cx))
            continue;
        const enum npuc_status s = select_table(px, n);
        if (s != NPUC_OK)
            return s;
    }
    return NPUC_OK;
}
