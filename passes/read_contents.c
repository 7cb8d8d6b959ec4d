/* Reads what integer operands hold where sizes, axes or positions depend on it.
 *
 *   %y = ReduceSum %x, %axes : f32[_d0,_d1]
 * becomes
 *   %a = Contents %axes {names=["axes_0"]} : i64[1]
 *   %y = ReduceSum %x, %a : f32[1 + ...]                     with sizes that are expressions of axes_0
 *
 * The runtime reads these few numbers before the steps that need them, as vendors' tiling functions do; then sizes are
 * known and the operator runs on the cores like one with constant operands. Requirements: (1) only operands of the
 * table, of known short length and not known otherwise; (2) one Contents per value, so one symbol per element; (3) all
 * nodes are inferred again behind the first one. Left alone: everything while no target is chosen;
 * bodies of control flow, which bind their sizes turn by turn on the host. */
#include <stdio.h>

#include "passes/pass.h"

#define MAX_LEN 32 /* elements that are followed one by one */

/* Operand `operand` and the range its elements have. */
static const struct {
    enum op op;
    int operand;
    int64_t min, max;
} rows[] = {
#define SIZES  0, INT32_MAX
#define AXES   -IR_MAX_RANK, IR_MAX_RANK - 1
#define PLACES -INT32_MAX, INT32_MAX
    {OP_Reshape, 1, -1, INT32_MAX},
    {OP_Expand, 1, SIZES},
    {OP_ConstantOfShape, 0, SIZES},
    {OP_Tile, 1, SIZES},
    {OP_TopK, 1, SIZES},
    {OP_OneHot, 1, SIZES},
    {OP_Split, 1, SIZES},
    {OP_Slice, 1, PLACES},
    {OP_Slice, 2, PLACES},
    {OP_Slice, 3, AXES},
    {OP_Slice, 4, PLACES},
    {OP_Pad, 1, PLACES},
    {OP_Pad, 3, AXES},
    {OP_Range, 0, PLACES},
    {OP_Range, 1, PLACES},
    {OP_Range, 2, PLACES},
    {OP_Unsqueeze, 1, AXES},
    {OP_CumSum, 1, AXES},
    {OP_CumProd, 1, AXES},
    {OP_Resize, 3, SIZES},
    {OP_ReduceL1, 1, AXES},
    {OP_ReduceL2, 1, AXES},
    {OP_ReduceLogSum, 1, AXES},
    {OP_ReduceLogSumExp, 1, AXES},
    {OP_ReduceMax, 1, AXES},
    {OP_ReduceMean, 1, AXES},
    {OP_ReduceMin, 1, AXES},
    {OP_ReduceProd, 1, AXES},
    {OP_ReduceSum, 1, AXES},
    {OP_ReduceSumSquare, 1, AXES},
};

/* The elements of v that nobody knows: their number, or 0 when they are known or cannot be followed. */
static int64_t unknown_len(struct pass_ctx *px, const struct value *v)
{
    const struct type *t = v->type;
    if (t->kind != TYPE_TENSOR || t->rank < 0 || t->rank > 1 ||
        (t->dtype != DT_I64 && t->dtype != DT_I32 && t->dtype != DT_F32))
        return 0;
    const int64_t len = type_const_count(px->cx, t);
    if (dtype_is_float(t->dtype))
        return len == 1 && !value_const(v) ? 1 : 0;
    for (int64_t i = 0; i < len && len <= MAX_LEN; i++)
        if (value_elem(px->cx, v, i) == EXPR_INVALID)
            return len;
    return 0;
}

static sym fresh_name(struct ir_ctx *cx, const struct value *v, int64_t i)
{
    char name[64];
    const char *stem = v->name ? str_text(&cx->strings, v->name) : "content";
    bool plain = true; /* a name that expressions can spell */
    for (const char *c = stem; *c; c++)
        plain = plain && ((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || *c == '_');
    int64_t n = i;
    do
        snprintf(name, sizeof name, "%.40s_%lld", plain ? stem : "content", (long long)n++);
    while (expr_symbol_find(&cx->exprs, str_internz(&cx->strings, name)) >= 0);
    return str_internz(&cx->strings, name);
}

static struct value *contents_of(struct pass_ctx *px, struct node *user, struct value *v, int64_t len, int row)
{
    struct ir_ctx *cx = px->cx;
    for_each_use (u, v)
        if (u->user->op == OP_Contents && u->user->graph == user->graph)
            return &u->user->out[0];
    struct builder b = ir_at(user);
    sym names[MAX_LEN];
    for (int64_t i = 0; i < len; i++) {
        names[i] = fresh_name(cx, v, i);
        expr_symbol_new(&cx->exprs, names[i], (struct expr_range){rows[row].min, rows[row].max, 1});
    }
    struct node *n = ir_new(&b, OP_Contents, 1, &v, 1);
    ir_set_attr(n, "names", (struct attr){.kind = ATTR_STRINGS, .len = len, .v.strings = names});
    return ir_infer(n) == NPUC_OK ? &n->out[0] : NULL;
}

static enum npuc_status infer_all(struct graph *g)
{
    for_each_node (n, g) {
        const enum npuc_status s = ir_infer(n);
        if (s != NPUC_OK)
            return s;
    }
    return NPUC_OK;
}

enum npuc_status read_contents(struct pass_ctx *px, struct graph *g)
{
    bool changed = false;
    if (!px->target || g != g->module->funcs.data[0]) /* bodies bind their sizes turn by turn, on the host */
        return NPUC_OK;
    for_each_node (n, g)
        for (int r = 0; r < NPUC_ARRAY_LEN(rows); r++) {
            struct value *v = (enum op)n->op == rows[r].op ? node_in(n, rows[r].operand) : NULL;
            const int64_t len = v ? unknown_len(px, v) : 0;
            if (len > 0 && dtype_is_float(v->type->dtype)) { /* a depth may be a float; nothing else may */
                struct builder b = ir_at(n);
                v = n->op == OP_OneHot ? ir_cast(&b, v, DT_I64) : NULL;
            }
            if (len <= 0 || !v || !ir_may_rewrite(px->cx))
                continue;
            struct value *with = contents_of(px, n, v, len, r);
            if (!with)
                return NPUC_E_INTERNAL;
            ir_set_input(n, rows[r].operand, with);
            pass_count(px, STAT_read_contents_read, 1);
            changed = true;
        }
    return changed ? infer_all(g) : NPUC_OK;
}
