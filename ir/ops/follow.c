/* Content of small integer tensors followed back through the nodes that only move elements. Contents are kept for rank
 * 0 and 1 alone, where shapes and pads are read; a matrix between two of them is looked through. */
#include "ir/ops/extent.h"
#include "ir/ops/move_priv.h"

#include <math.h>

#define MAX_STEPS 16 /* nodes between two vectors */

/* Places of len elements in the tensor that is looked at. */
struct places {
    int64_t at[INFER_MAX_ELEMS], len;
};

static bool const_dims(struct ir_ctx *cx, const struct type *t, int64_t *d)
{
    for (int i = 0; i < t->rank; i++)
        if (!expr_is_const(&cx->exprs, t->dims[i], &d[i]) || d[i] < 0)
            return false;
    return t->rank >= 0;
}

/* Places in n's output become places in its input: axis i of the output walks along axis[i] of the input, from `from`
 * in steps of `step`. */
static bool rows_back(struct ir_ctx *cx, const struct node *n, const int *axis, const int64_t *from,
                      const int64_t *step, struct places *p)
{
    const struct type *x = node_in(n, 0)->type, *y = n->out[0].type;
    int64_t in[IR_MAX_RANK], out[IR_MAX_RANK], stride[IR_MAX_RANK], width = 1;
    if (y->rank != x->rank || !const_dims(cx, x, in) || !const_dims(cx, y, out))
        return false;
    for (int i = x->rank - 1; i >= 0; i--) {
        stride[i] = width;
        width *= in[i];
    }
    for (int64_t k = 0; k < p->len; k++) {
        int64_t rest = p->at[k], at = 0;
        for (int i = y->rank - 1; i >= 0; i--) {
            const int64_t here = from[i] + rest % out[i] * step[i];
            if (here < 0 || here >= in[axis[i]])
                return false;
            at += here * stride[axis[i]];
            rest /= out[i];
        }
        p->at[k] = at;
    }
    return true;
}

static bool transpose_back(struct ir_ctx *cx, const struct node *n, struct places *p)
{
    int perm[IR_MAX_RANK];
    int64_t from[IR_MAX_RANK], step[IR_MAX_RANK];
    const int rank = node_in(n, 0)->type->rank;
    for (int i = 0; i < rank; i++) {
        from[i] = 0;
        step[i] = 1;
    }
    return rank >= 0 && transpose_perm(n, rank, perm) && rows_back(cx, n, perm, from, step, p);
}

static bool slice_back(struct ir_ctx *cx, const struct node *n, struct places *p)
{
    const struct type *x = node_in(n, 0)->type;
    int axis[IR_MAX_RANK];
    int64_t from[IR_MAX_RANK], step[IR_MAX_RANK];
    for (int i = 0; i < x->rank; i++) {
        expr start, end, by, first = EXPR_INVALID;
        if (!slice_entry(cx, n, x, i, &start, &end, &by) || !slice_extent(cx, x->dims[i], start, end, by, &first) ||
            !first || !expr_is_const(&cx->exprs, first, &from[i]) || !expr_is_const(&cx->exprs, by, &step[i]))
            return false;
        axis[i] = i;
    }
    return x->rank >= 0 && rows_back(cx, n, axis, from, step, p);
}

/* From the output of n to its first input. */
static bool step_back(struct ir_ctx *cx, const struct node *n, struct places *p)
{
    switch ((int)n->op) {
    case OP_Identity:
    case OP_Reshape:
    case OP_Squeeze:
    case OP_Unsqueeze:
    case OP_Flatten: return type_const_count(cx, node_in(n, 0)->type) == type_const_count(cx, n->out[0].type);
    case OP_Transpose: return transpose_back(cx, n, p);
    case OP_Slice: return slice_back(cx, n, p);
    default: return false;
    }
}

bool infer_follow(struct ir_ctx *cx, const struct value *v, expr *e, int64_t *len)
{
    struct places p;
    p.len = v->type->kind == TYPE_TENSOR && v->type->rank >= 0 ? type_const_count(cx, v->type) : -1;
    if (p.len < 0 || p.len > INFER_MAX_ELEMS)
        return false;
    for (int64_t k = 0; k < p.len; k++)
        p.at[k] = k;
    for (int i = 0; i < MAX_STEPS; i++) {
        if (value_const(v) || v->elems) {
            for (int64_t k = 0; k < p.len; k++)
                e[k] = value_elem(cx, v, p.at[k]);
            *len = p.len;
            return true;
        }
        if (!v->def || !infer_has(v->def, 0) || node_in(v->def, 0)->type->kind != TYPE_TENSOR ||
            !step_back(cx, v->def, &p))
            return false;
        v = node_in(v->def, 0);
    }
    return false;
}

/* ---- Sizes computed in floats: math.ceil(height / 2) of a model in Python becomes Cast, Div, Ceil, Cast. The exact
 * quotient is meant; sizes of more than 2^24 alone would be rounded in float32. */

#define MAX_DEPTH 8 /* operations on one size */

static expr whole_of(struct ir_ctx *cx, const struct value *v, int depth);

static bool is_single(struct ir_ctx *cx, const struct value *v)
{
    return v->type->kind == TYPE_TENSOR && v->type->rank >= 0 && v->type->rank <= 1 &&
           type_const_count(cx, v->type) == 1;
}

/* v rounded down, or up; division by a positive constant is exact before it. */
static expr rounded(struct ir_ctx *cx, const struct value *v, bool up, int depth)
{
    struct expr_pool *p = &cx->exprs;
    int64_t by;
    if (!v->def || v->def->op != OP_Div || !is_single(cx, v))
        return whole_of(cx, v, depth);
    const expr a = whole_of(cx, node_in(v->def, 0), depth), b = whole_of(cx, node_in(v->def, 1), depth);
    if (!a || !b || !expr_is_const(p, b, &by) || by <= 0)
        return EXPR_INVALID;
    return up ? expr_ceildiv(p, a, b) : expr_floordiv(p, a, b);
}

/* The integer that a float of one element is. */
static expr whole_of(struct ir_ctx *cx, const struct value *v, int depth)
{
    struct expr_pool *p = &cx->exprs;
    double c;
    if (depth >= MAX_DEPTH || !is_single(cx, v))
        return EXPR_INVALID;
    if (value_const_f64(v, 0, &c))
        return fabs(c) < 1 << 24 && floor(c) == c ? expr_const(p, (int64_t)c) : EXPR_INVALID;
    if (!v->def || !infer_has(v->def, 0))
        return EXPR_INVALID;
    const struct value *x = node_in(v->def, 0);
    if (v->def->op == OP_Cast)
        return infer_tracks(x->type->dtype) && is_single(cx, x) ? value_elem(cx, x, 0) : EXPR_INVALID;
    if (v->def->op == OP_Ceil || v->def->op == OP_Floor)
        return rounded(cx, x, v->def->op == OP_Ceil, depth + 1);
    if (v->def->op != OP_Mul && v->def->op != OP_Add && v->def->op != OP_Sub)
        return EXPR_INVALID;
    const expr a = whole_of(cx, x, depth + 1), b = whole_of(cx, node_in(v->def, 1), depth + 1);
    if (!a || !b)
        return EXPR_INVALID;
    return v->def->op == OP_Mul ? expr_mul(p, a, b) : v->def->op == OP_Add ? expr_add(p, a, b) : expr_sub(p, a, b);
}

/* A conversion to an integer drops the fraction: rounded down where nothing is negative. */
expr infer_follow_float(struct ir_ctx *cx, const struct value *v)
{
    if (v->type->dtype != DT_F32 && v->type->dtype != DT_F64)
        return EXPR_INVALID;
    const expr e = rounded(cx, v, false, 0);
    const bool whole = e && (!v->def || v->def->op != OP_Div);
    return whole || (e && expr_range_of(&cx->exprs, e).min >= 0) ? e : EXPR_INVALID;
}
