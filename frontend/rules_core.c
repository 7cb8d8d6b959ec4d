/* Operators that import takes apart or whose variants are operators of their own here; old forms with other meaning. */
#include <inttypes.h>
#include <string.h>

#include "frontend/rules.h"

static struct value *tensor_value(struct onode *n, const struct type *t, const struct blob *b)
{
    return ir_const_blob(&n->b, t, b);
}

static struct value *string_value(struct import *im, struct onode *n, const sym *text, int64_t len, int rank)
{
    struct str_entry *at = ARENA_ARRAY(&im->m->arena, struct str_entry, len ? len : 1);
    for (int64_t i = 0; i < len; i++) {
        at[i].len = str_len(&im->cx->strings, text[i]);
        at[i].text = arena_strndup(&im->m->arena, sym_text(im, text[i]), at[i].len);
    }
    struct blob *b = ARENA_NEW(&im->m->arena, struct blob);
    *b = (struct blob){.data = at, .size = len * (int64_t)sizeof *at};
    const expr dim = expr_const(&im->cx->exprs, len);
    return tensor_value(n, type_tensor(im->cx, DT_STRING, rank, &dim), b);
}

/* One attribute holds the value; its name says how: value, sparse_value, value_int, value_ints, ... */
enum npuc_status rule_constant(struct import *im, struct onode *n)
{
    if (n->n_attrs != 1 || n->n_in != 0)
        return onode_bad_attr(im, n, "value", "a Constant has one attribute and no inputs");
    const struct attr *a = &n->attrs[0].a;
    struct value *v = NULL;
    switch (a->kind) {
    case ATTR_TENSOR: v = tensor_value(n, a->v.t.type, a->v.t.blob); break;
    case ATTR_INT: v = ir_const(&n->b, DT_I64, 0, NULL, &a->v.i, 8); break;
    case ATTR_FLOAT: v = ir_const(&n->b, DT_F32, 0, NULL, &a->v.f, 4); break;
    case ATTR_INTS: v = ir_const(&n->b, DT_I64, 1, &a->len, a->v.ints, 8 * a->len); break;
    case ATTR_FLOATS: v = ir_const(&n->b, DT_F32, 1, &a->len, a->v.floats, 4 * a->len); break;
    case ATTR_STRING: v = string_value(im, n, &a->v.s, 1, 0); break;
    case ATTR_STRINGS: v = string_value(im, n, a->v.strings, a->len, 1); break;
    case ATTR_NONE:
    case ATTR_GRAPH:
    case ATTR_TYPE: break;
    }
    if (!v)
        return onode_bad_attr(im, n, sym_text(im, n->attrs[0].name), "it is no value of a Constant");
    return onode_done(im, n, v);
}

/* Before opset 7 the second operand was spread only when asked to, from `axis` on. */
static enum npuc_status spread_second(struct import *im, struct onode *n, int64_t axis)
{
    const int rank_x = n->in[0]->type->rank, rank_y = n->in[1]->type->rank;
    if (axis < 0)
        axis += rank_x;
    const int64_t behind = rank_x - rank_y - axis;
    if (behind < 0 || axis < 0)
        return onode_fail(im, n, D_SHAPE_MISMATCH, "second input %s does not fit the first from its axis on",
                          type_text(im->cx, n->in[1]->type));
    int64_t axes[IR_MAX_RANK];
    for (int64_t i = 0; i < behind; i++)
        axes[i] = rank_y + i;
    if (behind == 0)
        return NPUC_OK;
    struct value *v = ir_op2(&n->b, OP_Unsqueeze, n->in[1], ir_const_i64(&n->b, axes, behind));
    if (!v)
        return onode_done(im, n, NULL);
    onode_set_in(im, n, 1, v);
    return NPUC_OK;
}

enum npuc_status rule_old_broadcast(struct import *im, struct onode *n)
{
    const enum npuc_status s = onode_needs(im, n, 2);
    if (s != NPUC_OK)
        return s;
    const bool spread = onode_int(im, n, "broadcast", 0) != 0 && onode_attr(im, n, "axis");
    const int64_t axis = onode_int(im, n, "axis", 0);
    onode_drop(im, n, "broadcast");
    onode_drop(im, n, "axis");
    return spread ? spread_second(im, n, axis) : NPUC_OK;
}

enum npuc_status rule_old_prelu(struct import *im, struct onode *n)
{
    const enum npuc_status s = onode_needs(im, n, 2);
    if (s != NPUC_OK || n->in[1]->type->rank != 1 || n->in[0]->type->rank < 2 ||
        type_const_count(im->cx, n->in[1]->type) == 1)
        return s;
    return spread_second(im, n, 1); /* one slope for each channel */
}

enum npuc_status rule_bit_shift(struct import *im, struct onode *n)
{
    const char *direction = onode_str(im, n, "direction", "");
    const bool left = strcmp(direction, "LEFT") == 0;
    if (!left && strcmp(direction, "RIGHT") != 0)
        return onode_bad_attr(im, n, "direction", "it is '%.40s', expected LEFT or RIGHT", direction);
    onode_drop(im, n, "direction");
    onode_rename(im, n, left ? "BitShiftLeft" : "BitShiftRight");
    return NPUC_OK;
}

enum npuc_status rule_mod(struct import *im, struct onode *n)
{
    if (onode_int(im, n, "fmod", 0) != 0)
        onode_rename(im, n, "FMod");
    onode_drop(im, n, "fmod");
    return NPUC_OK;
}

enum npuc_status rule_gelu(struct import *im, struct onode *n)
{
    const char *how = onode_str(im, n, "approximate", "none");
    const bool tanh = strcmp(how, "tanh") == 0;
    if (!tanh && strcmp(how, "none") != 0)
        return onode_bad_attr(im, n, "approximate", "it is '%.40s', expected none or tanh", how);
    onode_drop(im, n, "approximate");
    onode_rename(im, n, tanh ? "GeluTanh" : "Gelu");
    return NPUC_OK;
}

enum npuc_status rule_old_clip(struct import *im, struct onode *n)
{
    static const char *const names[] = {"min", "max"};
    const enum npuc_status s = onode_needs(im, n, 1);
    if (s != NPUC_OK)
        return s;
    for (int i = 0; i < 2; i++) {
        if (!onode_attr(im, n, names[i]))
            continue;
        const float bound = onode_float(im, n, names[i], 0);
        onode_set_in(im, n, i + 1, ir_scalar_like(&n->b, n->in[0], (double)bound));
        onode_drop(im, n, names[i]);
    }
    return NPUC_OK;
}

/* Clip with one bound is Max or Min. */
enum npuc_status rule_clip(struct import *im, struct onode *n)
{
    const enum npuc_status s = onode_needs(im, n, 1);
    struct value *lo = onode_in(n, 1), *hi = onode_in(n, 2);
    if (s != NPUC_OK || (lo && hi) || n->n_in > 3 || n->n_attrs)
        return s;
    if (!lo && !hi)
        return onode_done(im, n, n->in[0]);
    return onode_done(im, n, ir_op2(&n->b, lo ? OP_Max : OP_Min, n->in[0], lo ? lo : hi));
}

/* Max and Min of any number of inputs, in pairs from the left. */
enum npuc_status rule_pairs(struct import *im, struct onode *n)
{
    const enum npuc_status s = onode_needs(im, n, n->n_in > 0 ? n->n_in : 1);
    if (s != NPUC_OK || n->n_attrs)
        return s;
    const enum op op = operator_find(im, n->domain, n->op);
    struct value *v = n->in[0];
    for (int i = 1; v && i < n->n_in; i++)
        v = ir_op2(&n->b, op, v, n->in[i]);
    return onode_done(im, n, v);
}

/* The exponent may be of another type than the base; the result is of the base's. */
enum npuc_status rule_pow(struct import *im, struct onode *n)
{
    const enum npuc_status s = onode_needs(im, n, 2);
    if (s != NPUC_OK || n->n_in != 2)
        return s;
    const enum dtype base = n->in[0]->type->dtype, power = n->in[1]->type->dtype;
    if (base == power)
        return NPUC_OK;
    if (dtype_is_float(base) || !dtype_is_float(power)) {
        struct value *y = ir_cast(&n->b, n->in[1], base);
        onode_set_in(im, n, 1, y);
        return y ? NPUC_OK : onode_done(im, n, NULL);
    }
    struct value *x = ir_cast(&n->b, n->in[0], power); /* integer to the power of a fraction */
    struct value *y = x ? ir_op2(&n->b, OP_Pow, x, n->in[1]) : NULL;
    return onode_done(im, n, y ? ir_cast(&n->b, y, base) : NULL);
}

/* Softmax before opset 13 works on the matrix [dims before axis, dims from axis on]. */
enum npuc_status rule_old_softmax(struct import *im, struct onode *n)
{
    enum npuc_status s = onode_needs(im, n, 1);
    if (s != NPUC_OK)
        return s;
    struct ir_ctx *cx = im->cx;
    const struct type *t = n->in[0]->type;
    int64_t axis = onode_int(im, n, "axis", 1);
    axis += axis < 0 ? t->rank : 0;
    if (axis < 0 || axis > t->rank || t->rank < 1)
        return onode_bad_attr(im, n, "axis", "it is %" PRId64 ", the input has %d dims", axis, t->rank);
    if (axis == t->rank - 1) {
        onode_set_int(im, n, "axis", -1);
        return NPUC_OK;
    }
    expr flat[2] = {expr_const(&cx->exprs, 1), expr_const(&cx->exprs, 1)};
    for (int i = 0; i < t->rank; i++)
        flat[i >= axis] = expr_mul(&cx->exprs, flat[i >= axis], t->dims[i]);
    struct value *v = ir_reshape(&n->b, n->in[0], 2, flat);
    v = v ? ir_op1(&n->b, operator_find(im, n->domain, n->op), v) : NULL;
    return onode_done(im, n, v ? ir_reshape(&n->b, v, t->rank, t->dims) : NULL);
}

/* Opset 18 had one scale and bias for each group; now one for each channel: [G] -> [G, 1] -> [G, C/G] -> [C]. */
static struct value *per_channel(struct import *im, struct onode *n, struct value *v, expr groups)
{
    struct expr_pool *p = &im->cx->exprs;
    const expr channels = n->in[0]->type->dims[1];
    const expr column[2] = {groups, expr_const(p, 1)}, both[2] = {groups, expr_floordiv(p, channels, groups)};
    v = ir_reshape(&n->b, v, 2, column);
    struct value *sizes = ir_sizes(&n->b, both, 2, false);
    v = v && sizes ? ir_op2(&n->b, OP_Expand, v, sizes) : NULL;
    return v ? ir_reshape(&n->b, v, 1, &channels) : NULL;
}

enum npuc_status rule_old_group_norm(struct import *im, struct onode *n)
{
    const enum npuc_status s = onode_needs(im, n, 3);
    const int64_t groups = onode_int(im, n, "num_groups", 0);
    if (s != NPUC_OK)
        return s;
    if (groups < 1 || n->in[0]->type->rank < 2)
        return onode_bad_attr(im, n, "num_groups", "it is %" PRId64 " for an input of %d dims", groups,
                              n->in[0]->type->rank);
    for (int i = 1; i <= 2; i++) {
        struct value *v = per_channel(im, n, n->in[i], expr_const(&im->cx->exprs, groups));
        if (!v)
            return onode_done(im, n, NULL);
        onode_set_in(im, n, i, v);
    }
    return NPUC_OK;
}
