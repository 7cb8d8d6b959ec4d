/* Parts that are no work: a Slice or Split whose results lie in one piece in the operand is a view of its bytes. */
#include "backend/emit_priv.h"
#include "ir/ops/extent.h"

static bool is_dense(const struct type *t)
{
    return t->kind == TYPE_TENSOR && t->rank > 0 && t->layout.kind == LAYOUT_ND && !type_is_object(t) &&
           dtype_table[t->dtype].bits % 8 == 0;
}

/* Where the part begins along the only axis that is cut, and that axis; EXPR_INVALID when there is no such one. */
static expr slice_begin(struct ir_ctx *cx, const struct node *n, int *axis)
{
    struct expr_pool *x = &cx->exprs;
    const struct type *t = node_in(n, 0)->type, *part = n->out[0].type;
    expr begin = EXPR_INVALID;
    for (int i = 0; i < t->rank; i++) {
        expr start, end, step, from;
        int64_t zero = 0;
        if (!slice_entry(cx, n, t, i, &start, &end, &step) || !expr_is_one(x, step))
            return EXPR_INVALID;
        slice_extent_any(cx, t->dims[i], start, end, step, &from);
        if (part->dims[i] == t->dims[i] && expr_is_const(x, from, &zero) && zero == 0)
            continue;
        if (begin != EXPR_INVALID)
            return EXPR_INVALID;
        begin = from;
        *axis = i;
    }
    return begin;
}

static expr split_begin(struct ir_ctx *cx, const struct node *n, int which, int *axis)
{
    const int64_t a = node_attr_int(n, "axis", 0);
    expr begin = expr_const(&cx->exprs, 0);
    *axis = (int)(a < 0 ? a + node_in(n, 0)->type->rank : a);
    for (int i = 0; i < which; i++) {
        if (!node_out(n, i))
            return EXPR_INVALID;
        begin = expr_add(&cx->exprs, begin, n->out[i].type->dims[*axis]);
    }
    return begin;
}

/* Elements before result `which` in the operand, when it is one piece of it. */
static expr part_offset(const struct emitter *em, const struct node *n, int which)
{
    struct ir_ctx *cx = em->e.cx;
    const struct value *x = node_in(n, 0), *y = node_out(n, which);
    int axis = 0;
    if (!x || !y || !is_dense(x->type) || !is_dense(y->type) || x->type->rank != y->type->rank ||
        x->type->dtype != y->type->dtype || !type_is_bound(em, x->type) || !type_is_bound(em, y->type))
        return EXPR_INVALID;
    expr at = n->op == OP_Slice ? slice_begin(cx, n, &axis) : split_begin(cx, n, which, &axis);
    for (int i = 0; at != EXPR_INVALID && i < axis; i++)
        if (!expr_is_one(&cx->exprs, x->type->dims[i]))
            return EXPR_INVALID;
    for (int i = axis + 1; at != EXPR_INVALID && i < x->type->rank; i++)
        at = expr_mul(&cx->exprs, at, x->type->dims[i]);
    return expr_is_bound(em, at) ? at : EXPR_INVALID;
}

bool is_part_of_input(const struct emitter *em, const struct node *n)
{
    if ((n->op != OP_Slice && n->op != OP_Split) || n->n_out < 1 || n->graph != em->graph)
        return false; /* in the body of a loop a part could be moved into what it is a part of */
    for (int i = 0; i < n->n_out; i++)
        if (node_out(n, i) && part_offset(em, n, i) == EXPR_INVALID)
            return false;
    return true;
}

enum npuc_status emit_parts(struct emitter *em, struct node *n)
{
    struct emit *e = &em->e;
    struct expr_pool *p = &e->plan->exprs;
    const int32_t x = emit_tensor(e, node_in(n, 0));
    for (int i = 0; i < n->n_out; i++) {
        struct value *y = node_out(n, i);
        if (!y)
            continue;
        const expr at = emit_expr(e, part_offset(em, n, i));
        const int32_t part = tensor_alias(e, x, y->type, emit_sym(e, y->name));
        struct plan_tensor *t = &e->plan->tensors.data[part];
        t->base_offset = expr_add(p, t->base_offset, expr_mul_const(p, at, dtype_table[y->type->dtype].bits / 8));
        if (e->tensor_of[y->id] < 0) {
            e->tensor_of[y->id] = part;
            continue;
        }
        const enum npuc_status st =
            emit_copy(e, part, e->tensor_of[y->id], y->type, "the result is a part of another tensor");
        if (st != NPUC_OK)
            return st;
    }
    return NPUC_OK;
}
