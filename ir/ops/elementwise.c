/* Elementwise operators that are no formula: conversions, and sums of any number of inputs. */
#include "ir/ops/infer.h"

#include <math.h>

/* ---- Cast */

/* Content survives a conversion between followed types; a float constant with integral value gives its integer. */
static void cast_elems(struct ir_ctx *cx, struct node *n, enum dtype to)
{
    expr e[INFER_MAX_ELEMS];
    int64_t len;
    const enum dtype from = infer_dtype(n, 0);
    if (!infer_tracks(to) || !infer_elems(cx, n, 0, e, &len))
        return;
    for (int64_t i = 0; i < len; i++) {
        double v;
        if (dtype_is_float(from)) {
            const bool exact = value_const_f64(n->in[0].value, i, &v) && fabs(v) < 1e15 && floor(v) == v;
            e[i] = exact ? expr_const(&cx->exprs, (int64_t)v) : EXPR_INVALID;
        }
        int64_t c;
        const bool is_const = e[i] && expr_is_const(&cx->exprs, e[i], &c);
        if (to == DT_BOOL && e[i] && from != DT_BOOL)
            e[i] = is_const                                  ? expr_const(&cx->exprs, c != 0)
                   : expr_range_of(&cx->exprs, e[i]).min > 0 ? expr_const(&cx->exprs, 1)
                                                             : EXPR_INVALID;
        if (to == DT_I32 && is_const && (c < INT32_MIN || c > INT32_MAX))
            e[i] = EXPR_INVALID;
    }
    if (len == 1 && !e[0] && to != DT_BOOL)
        e[0] = infer_follow_float(cx, n->in[0].value);
    infer_set_elems(cx, n, 0, e, len);
}

static enum npuc_status cast_to(struct ir_ctx *cx, struct node *n, enum dtype to)
{
    const struct shape x = infer_shape(n, 0);
    if (x.rank < 0)
        return infer_out_unknown(cx, n, 0, to);
    const enum npuc_status s = infer_out(cx, n, 0, to, &x);
    if (s == NPUC_OK)
        cast_elems(cx, n, to);
    return s;
}

static enum npuc_status cast_infer(struct ir_ctx *cx, struct node *n)
{
    enum dtype to;
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_dtype_attr(cx, n, "to", DT_NONE, &to);
    return s == NPUC_OK ? cast_to(cx, n, to) : s;
}

static enum npuc_status cast_like_infer(struct ir_ctx *cx, struct node *n)
{
    const enum npuc_status s = infer_begin(cx, n);
    return s == NPUC_OK ? cast_to(cx, n, infer_dtype(n, 1)) : s;
}

/* To its own type; or back to the type of x after a conversion that lost nothing. */
static struct value *cast_fold(struct ir_ctx *cx, struct node *n)
{
    struct value *x = same_type_fold(cx, n);
    if (x)
        return x;
    x = node_in(n, 0);
    const struct node *inner = x->def;
    if (!inner || inner->op != OP_Cast || !node_in(inner, 0) || node_in(inner, 0)->type != n->out[0].type)
        return NULL;
    const enum dtype wide = x->type->dtype, t = n->out[0].type->dtype;
    const bool lossless = (wide == DT_F32 && (t == DT_F16 || t == DT_BF16)) ||
                          (wide == DT_F64 && (t == DT_F32 || t == DT_F16 || t == DT_BF16)) ||
                          (wide == DT_I64 && (t == DT_I32 || t == DT_BOOL)) || (wide == DT_I32 && t == DT_BOOL) ||
                          (dtype_is_float(wide) && t == DT_BOOL && dtype_table[wide].bits >= 16);
    return lossless ? node_in(inner, 0) : NULL;
}

static enum npuc_status cast_legal(struct ir_ctx *cx, struct node *n)
{
    return infer_attr_in(cx, n, "round_mode", "up down nearest");
}

static enum npuc_status bit_cast_infer(struct ir_ctx *cx, struct node *n)
{
    enum dtype to;
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_dtype_attr(cx, n, "to", DT_NONE, &to);
    if (s != NPUC_OK)
        return s;
    if (dtype_table[to].bits != dtype_table[infer_dtype(n, 0)].bits)
        return node_error(cx, n, D_TYPE_MISMATCH, "input 0 has element type %s, whose width differs from that of %s",
                          dtype_table[infer_dtype(n, 0)].name, dtype_table[to].name);
    const struct shape x = infer_shape(n, 0);
    return x.rank < 0 ? infer_out_unknown(cx, n, 0, to) : infer_out(cx, n, 0, to, &x);
}

/* ---- Sum, Mean, SwiGLU */

static enum npuc_status variadic_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    struct shape out = infer_shape(n, 0);
    for (int i = 1; i < n->n_in && s == NPUC_OK; i++) {
        const struct shape x = infer_shape(n, i);
        s = infer_same_dtype(cx, n, 0, i);
        if (s == NPUC_OK && !infer_broadcast(cx, &out, &x, &out))
            s = node_error(cx, n, D_SHAPE_MISMATCH,
                           "input %d has type %s, which does not broadcast with the inputs before it", i,
                           type_text(cx, n->in[i].value->type));
    }
    if (s != NPUC_OK)
        return s;
    return out.rank < 0 ? infer_out_unknown(cx, n, 0, infer_dtype(n, 0)) : infer_out(cx, n, 0, infer_dtype(n, 0), &out);
}

static struct value *variadic_fold(struct ir_ctx *cx, struct node *n)
{
    return n->n_in == 1 ? same_type_fold(cx, n) : NULL;
}

/* ---- Dropout: outside of training it copies and keeps everything */

/* Is the training flag absent or known to be false? */
static bool is_inference(struct ir_ctx *cx, const struct node *n)
{
    int64_t training[INFER_MAX_ELEMS], len;
    return !infer_has(n, 2) || (infer_ints(cx, n, 2, training, &len) && len == 1 && !training[0]);
}

static enum npuc_status dropout_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    const struct shape x = infer_shape(n, 0), flag = infer_shape(n, 2);
    if (s != NPUC_OK)
        return s;
    if (infer_has(n, 2) && (infer_dtype(n, 2) != DT_BOOL || flag.rank > 0))
        return node_error(cx, n, D_TYPE_MISMATCH, "input 2 (training_mode) has type %s, expected one bool",
                          type_text(cx, n->in[2].value->type));
    s = infer_out_like(cx, n, 0, 0);
    if (s != NPUC_OK)
        return s;
    return x.rank < 0 ? infer_out_unknown(cx, n, 1, DT_BOOL) : infer_out(cx, n, 1, DT_BOOL, &x);
}

static struct value *dropout_fold(struct ir_ctx *cx, struct node *n)
{
    return is_inference(cx, n) ? same_type_fold(cx, n) : NULL;
}

#include "ir/ops/rows.h"

#include "ir/ops/elementwise.def"
