/* Sequences and optionals. The element type of a sequence says what all elements share: where their sizes differ a size
 * is absent (EXPR_INVALID, "?"), where their ranks differ the rank is unknown. A sequence that never had an element
 * has an element type of kind none, which joins with any other. */
#include "ir/ops/infer.h"

#include "base/size.h"

/* Arity, and every required input typed; kinds are up to the hook. */
static enum npuc_status begin(struct ir_ctx *cx, const struct node *n)
{
    const struct op_def *d = op_table[n->op];
    for (int i = 0; i < d->min_in; i++)
        if (!infer_has(n, i))
            return node_error(cx, n, D_ARITY, "input %d of %s is missing", i, d->name);
    if (d->max_in >= 0 && n->n_in > d->max_in)
        return node_error(cx, n, D_ARITY, "%s has %d inputs, expected at most %d", d->name, n->n_in, d->max_in);
    return NPUC_OK;
}

static enum npuc_status is_kind(struct ir_ctx *cx, const struct node *n, int i, enum type_kind kind)
{
    const struct type *t = n->in[i].value->type;
    if (t->kind == kind)
        return NPUC_OK;
    return node_error(cx, n, D_TYPE_MISMATCH, "input %d is %s, expected a %s", i, type_text(cx, t),
                      kind == TYPE_SEQUENCE ? "sequence" : "tensor");
}

static enum npuc_status begin_sequence(struct ir_ctx *cx, const struct node *n)
{
    const enum npuc_status s = begin(cx, n);
    return s == NPUC_OK ? is_kind(cx, n, 0, TYPE_SEQUENCE) : s;
}

/* A position: one whole number. */
static enum npuc_status check_position(struct ir_ctx *cx, const struct node *n, int i)
{
    if (!infer_has(n, i))
        return NPUC_OK;
    const struct type *t = n->in[i].value->type;
    if (t->kind == TYPE_TENSOR && (t->dtype == DT_I32 || t->dtype == DT_I64) && t->rank <= 1)
        return NPUC_OK;
    return node_error(cx, n, D_TYPE_MISMATCH, "the position is %s, expected one i32 or i64", type_text(cx, t));
}

static void set_out(struct node *n, const struct type *t)
{
    n->out[0].type = t;
    n->out[0].elems = NULL;
    n->out[0].n_elems = 0;
}

static const struct type *sequence_of(struct ir_ctx *cx, const struct type *elem)
{
    return type_intern(cx, &(struct type){.kind = TYPE_SEQUENCE, .elem = elem});
}

/* Output 0 is one element: absent sizes are symbols of its own. */
static enum npuc_status out_element(struct ir_ctx *cx, struct node *n, const struct type *elem)
{
    if (elem->kind == TYPE_SEQUENCE || elem->kind == TYPE_OPTIONAL) {
        set_out(n, elem);
        return NPUC_OK;
    }
    if (elem->kind == TYPE_NONE || elem->rank < 0)
        return infer_out_unknown(cx, n, 0, elem->dtype);
    struct shape s = {.rank = elem->rank};
    for (int k = 0; k < s.rank; k++)
        s.d[k] = elem->dims[k] ? elem->dims[k] : infer_fresh(cx, n, 0, k);
    return infer_out(cx, n, 0, elem->dtype, &s);
}

/* What an element type and another tensor share; a message when their element types differ. */
static enum npuc_status join(struct ir_ctx *cx, const struct node *n, int i, const struct type *elem,
                             const struct type **out)
{
    const struct type *t = n->in[i].value->type;
    *out = elem->kind == TYPE_NONE && elem->dtype == t->dtype ? t : type_join(cx, elem, t);
    if (*out)
        return NPUC_OK;
    return node_error(cx, n, D_TYPE_MISMATCH, "input %d is %s, the elements of the sequence are %s", i,
                      type_text(cx, t), type_text(cx, elem));
}

static enum npuc_status sequence_construct_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = begin(cx, n);
    const struct type *elem = s == NPUC_OK ? n->in[0].value->type : NULL;
    for (int i = 0; i < n->n_in && s == NPUC_OK; i++) {
        if (!infer_has(n, i))
            return node_error(cx, n, D_ARITY, "input %d is missing", i);
        s = is_kind(cx, n, i, TYPE_TENSOR);
        if (s == NPUC_OK)
            s = join(cx, n, i, elem, &elem);
    }
    if (s == NPUC_OK)
        set_out(n, sequence_of(cx, elem));
    return s;
}

static enum npuc_status sequence_empty_infer(struct ir_ctx *cx, struct node *n)
{
    enum dtype t = DT_F32;
    const enum npuc_status s = infer_dtype_attr(cx, n, "dtype", DT_F32, &t);
    if (s == NPUC_OK)
        set_out(n, sequence_of(cx, type_intern(cx, &(struct type){.kind = TYPE_NONE, .dtype = t})));
    return s;
}

static enum npuc_status sequence_at_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = begin_sequence(cx, n);
    if (s == NPUC_OK)
        s = check_position(cx, n, 1);
    return s == NPUC_OK ? out_element(cx, n, n->in[0].value->type->elem) : s;
}

static enum npuc_status sequence_erase_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = begin_sequence(cx, n);
    if (s == NPUC_OK)
        s = check_position(cx, n, 1);
    if (s == NPUC_OK)
        set_out(n, n->in[0].value->type);
    return s;
}

static enum npuc_status sequence_insert_infer(struct ir_ctx *cx, struct node *n)
{
    const struct type *elem = NULL;
    enum npuc_status s = begin_sequence(cx, n);
    if (s == NPUC_OK)
        s = is_kind(cx, n, 1, TYPE_TENSOR);
    if (s == NPUC_OK)
        s = check_position(cx, n, 2);
    if (s == NPUC_OK)
        s = join(cx, n, 1, n->in[0].value->type->elem, &elem);
    if (s == NPUC_OK)
        set_out(n, sequence_of(cx, elem));
    return s;
}

static enum npuc_status sequence_length_infer(struct ir_ctx *cx, struct node *n)
{
    const enum npuc_status s = begin_sequence(cx, n);
    return s == NPUC_OK ? infer_out(cx, n, 0, DT_I64, &(struct shape){.rank = 0}) : s;
}

/* Length of every piece when there is one for all of them. */
static expr piece_length(struct ir_ctx *cx, const struct node *n, expr dim)
{
    int64_t len[INFER_MAX_ELEMS], count, size;
    if (!infer_has(n, 1))
        return expr_const(&cx->exprs, 1);
    if (!infer_ints(cx, n, 1, len, &count) || count < 1)
        return EXPR_INVALID;
    for (int64_t i = 1; i < count; i++)
        if (len[i] != len[0])
            return EXPR_INVALID;
    const bool whole =
        n->in[1].value->type->rank == 1 || (expr_is_const(&cx->exprs, dim, &size) && len[0] > 0 && size % len[0] == 0);
    return whole && len[0] >= 0 ? expr_const(&cx->exprs, len[0]) : EXPR_INVALID;
}

static enum npuc_status split_to_sequence_infer(struct ir_ctx *cx, struct node *n)
{
    int axis;
    enum npuc_status s = begin(cx, n);
    if (s == NPUC_OK)
        s = is_kind(cx, n, 0, TYPE_TENSOR);
    if (s == NPUC_OK && infer_has(n, 1))
        s = infer_dtype_is(cx, n, 1, DT_I32, DT_I64);
    if (s != NPUC_OK)
        return s;
    const struct shape x = infer_shape(n, 0);
    if (x.rank < 0) {
        set_out(n, sequence_of(cx, n->in[0].value->type));
        return NPUC_OK;
    }
    s = infer_axis_attr(cx, n, "axis", x.rank, &axis);
    if (s != NPUC_OK)
        return s;
    struct shape piece = {.rank = 0};
    const bool drop = !infer_has(n, 1) && !node_attr_int(n, "keepdims", 1);
    for (int k = 0; k < x.rank; k++)
        if (k != axis || !drop)
            piece.d[piece.rank++] = k == axis ? piece_length(cx, n, x.d[k]) : x.d[k];
    set_out(n, sequence_of(cx, type_tensor(cx, infer_dtype(n, 0), piece.rank, piece.d)));
    return NPUC_OK;
}

static enum npuc_status concat_from_sequence_infer(struct ir_ctx *cx, struct node *n)
{
    const enum npuc_status st = begin_sequence(cx, n);
    if (st != NPUC_OK)
        return st;
    const struct type *elem = n->in[0].value->type->elem;
    const bool stack = node_attr_int(n, "new_axis", 0) != 0;
    if (elem->kind != TYPE_TENSOR || elem->rank < 0)
        return infer_out_unknown(cx, n, 0, elem->dtype);
    if (elem->rank + stack > IR_MAX_RANK)
        return node_error(cx, n, D_LIMIT, "the result would have %d axes", elem->rank + stack);
    struct shape s = {.rank = elem->rank + stack};
    int axis;
    const enum npuc_status at = infer_axis_attr(cx, n, "axis", s.rank, &axis);
    if (at != NPUC_OK)
        return at;
    for (int k = 0, from = 0; k < s.rank; k++) {
        const expr dim = stack && k == axis ? EXPR_INVALID : elem->dims[from++];
        s.d[k] = k == axis || !dim ? infer_fresh(cx, n, 0, k) : dim;
    }
    return infer_out(cx, n, 0, elem->dtype, &s);
}

/* ---- optionals */

static enum npuc_status optional_infer(struct ir_ctx *cx, struct node *n)
{
    const struct attr *a = node_attr(n, "type");
    const struct type *t = infer_has(n, 0) ? n->in[0].value->type : a && a->kind == ATTR_TYPE ? a->v.type : NULL;
    if (!t)
        return node_error(cx, n, D_ATTRIBUTE, "without an input attribute 'type' must say what is absent");
    if (t->kind == TYPE_OPTIONAL)
        return node_error(cx, n, D_TYPE_MISMATCH, "an optional of an optional");
    set_out(n, type_intern(cx, &(struct type){.kind = TYPE_OPTIONAL, .elem = t}));
    return NPUC_OK;
}

static enum npuc_status optional_has_element_infer(struct ir_ctx *cx, struct node *n)
{
    const struct value *x = node_in(n, 0);
    const bool known = !infer_has(n, 0) || x->type->kind != TYPE_OPTIONAL || (x->def && x->def->op == OP_Optional);
    const bool has = infer_has(n, 0) && (x->type->kind != TYPE_OPTIONAL || (known && infer_has(x->def, 0)));
    const enum npuc_status s = infer_out(cx, n, 0, DT_BOOL, &(struct shape){.rank = 0});
    const expr e = expr_const(&cx->exprs, has);
    if (s == NPUC_OK && known)
        infer_set_elems(cx, n, 0, &e, 1);
    return s;
}

static enum npuc_status optional_get_element_infer(struct ir_ctx *cx, struct node *n)
{
    const enum npuc_status s = begin(cx, n);
    if (s != NPUC_OK)
        return s;
    const struct type *t = n->in[0].value->type;
    return out_element(cx, n, t->kind == TYPE_OPTIONAL ? t->elem : t);
}

/* The value that went into the optional, or a value that is none. */
static struct value *present_fold(struct ir_ctx *cx, struct node *n)
{
    (void)cx;
    struct value *x = node_in(n, 0);
    if (x->type->kind != TYPE_OPTIONAL)
        return x->type == n->out[0].type ? x : NULL;
    struct value *inner = x->def && x->def->op == OP_Optional ? node_in(x->def, 0) : NULL;
    return inner && inner->type == n->out[0].type ? inner : NULL;
}

#include "ir/ops/rows.h"

#include "ir/ops/sequence.def"
