/* A node against its operator's row, and types against what inference says. */
#include "ir/check.h"

#include <string.h>

#include "ir/text_priv.h"

static const char *const kind_names[] = {
    [ATTR_NONE] = "nothing",  [ATTR_INT] = "an integer", [ATTR_FLOAT] = "a float",   [ATTR_STRING] = "a string",
    [ATTR_INTS] = "integers", [ATTR_FLOATS] = "floats",  [ATTR_STRINGS] = "strings", [ATTR_TENSOR] = "a tensor",
    [ATTR_GRAPH] = "a graph", [ATTR_TYPE] = "a type",
};

static const char *arity_fault(struct ir_ctx *cx, const struct node *n, const struct op_def *d)
{
    const int n_in = n->n_in, n_out = n->n_out;
    if (n_in < d->min_in)
        return arena_printf(&cx->scratch, "%s has %d inputs, expected at least %d", d->name, n_in, d->min_in);
    if (d->max_in >= 0 && n_in > d->max_in)
        return arena_printf(&cx->scratch, "%s has %d inputs, expected at most %d", d->name, n_in, d->max_in);
    for (int i = 0; i < d->min_in; i++)
        if (!n->in[i].value && op_needs_input(d, i))
            return arena_printf(&cx->scratch, "required input %d of %s is absent", i, d->name);
    if (d->n_out >= 0 && n_out > d->n_out)
        return arena_printf(&cx->scratch, "%s has %d outputs, expected at most %d", d->name, n_out, d->n_out);
    if (n_out == 0 && d->n_out > 0)
        return arena_printf(&cx->scratch, "%s has no output", d->name);
    return NULL;
}

const char *node_schema_fault(struct ir_ctx *cx, const struct node *n)
{
    const struct op_def *d = op_table[n->op];
    const char *fault = arity_fault(cx, n, d);
    for (int i = 0; !fault && i < d->n_attrs; i++) {
        const struct attr_def *def = &d->attrs[i];
        const enum attr_kind kind = n->attrs[i].kind;
        if (kind == ATTR_NONE && def->required)
            fault = arena_printf(&cx->scratch, "%s needs attribute '%s'", d->name, def->name);
        else if (kind != ATTR_NONE && (int)kind != def->kind)
            fault = arena_printf(&cx->scratch, "attribute '%s' of %s is %s, expected %s", def->name, d->name,
                                 kind_names[kind], kind_names[def->kind]);
    }
    return fault;
}

static bool type_mentions(const struct ir_ctx *cx, const struct type *t, int32_t symbol)
{
    for (int i = 0; i < t->rank; i++)
        if (expr_uses_symbol(&cx->exprs, t->dims[i], symbol))
            return true;
    return false;
}

static bool operand_mentions(const struct ir_ctx *cx, const struct node *n, int32_t symbol)
{
    for (int i = 0; i < n->n_in; i++) {
        const struct value *v = n->in[i].value;
        if (!v)
            continue;
        if (type_mentions(cx, v->type, symbol))
            return true;
        for (int64_t k = 0; v->elems && k < v->n_elems; k++)
            if (v->elems[k] != EXPR_INVALID && expr_uses_symbol(&cx->exprs, v->elems[k], symbol))
                return true;
    }
    return false;
}

/* Does the size hold a symbol that the operands do not determine? */
static bool is_invented(const struct ir_ctx *cx, const struct node *n, expr e)
{
    for (int32_t s = 0; s < (int32_t)cx->exprs.symbols.len; s++)
        if (expr_uses_symbol(&cx->exprs, e, s) && !operand_mentions(cx, n, s))
            return true;
    return false;
}

bool type_fits(struct ir_ctx *cx, const struct node *n, const struct type *inferred, const struct type *stored)
{
    if (inferred == stored)
        return true;
    if (inferred->kind != stored->kind)
        return inferred->kind == TYPE_NONE || stored->kind == TYPE_NONE; /* an output that nobody uses */
    if (inferred->kind != TYPE_TENSOR)
        return inferred->elem && stored->elem && type_fits(cx, n, inferred->elem, stored->elem);
    if (inferred->dtype != stored->dtype && inferred->dtype != DT_NONE && stored->dtype != DT_NONE)
        return false;
    if (inferred->layout.kind != LAYOUT_ND && inferred->layout.kind != stored->layout.kind)
        return false;
    if (inferred->rank < 0 || stored->rank < 0)
        return true;
    if (inferred->rank != stored->rank)
        return false;
    for (int i = 0; i < stored->rank; i++)
        if (inferred->dims[i] != stored->dims[i] && inferred->dims[i] && stored->dims[i] &&
            !is_invented(cx, n, inferred->dims[i]) && !is_invented(cx, n, stored->dims[i]))
            return false;
    return true;
}
