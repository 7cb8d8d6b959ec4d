/* Normalisations spelled out by exporters become RMSNormalization and LayerNormalization.
 *
 *   %q = Pow %x, 2;  %m = ReduceMean %q, [-1];  %r = Reciprocal (Sqrt (Add %m, eps));  %y = Mul %w, (Mul %x, %r)
 * becomes
 *   %y = RMSNormalization %x, %w {epsilon=eps}
 *
 * and with %x = Sub %z, (ReduceMean %z) LayerNormalization of %z; an Add of a row after it is its bias.
 * Where the file computes it in f32 between two casts, the operator takes the narrow value: it computes in f32 itself
 * and rounds before it scales, as the casts do. A norm of a transposed value whose rows stay whole goes in front of the
 * transpose, with the same bits. Requirements: (1) the statistics are f32; (2) the scale is one row of
 * the last axis; (3) every rewrite removes a Mul or an Add behind a normalisation, so it terminates; (4) results differ
 * in the last bits: the operator multiplies by the reciprocal of the root where the file may divide. Left alone:
 * normalisations without scale, over other axes, and those computed in 16 bits throughout. */
#include "passes/match.h"

struct norm {
    struct value *x; /* what is normalised */
    bool centred;    /* the mean is taken off */
    double epsilon;
};

/* x from its square: Pow(x, 2) or x * x; else NULL. */
static struct value *square_of(struct value *v)
{
    const struct node *pow = match_def(v, OP_Pow), *mul = match_def(v, OP_Mul);
    double e;
    if (pow && match_scalar(node_in(pow, 1), &e) && e == 2.0)
        return node_in(pow, 0);
    if (mul && match_same(node_in(mul, 0), node_in(mul, 1)))
        return node_in(mul, 0);
    return NULL;
}

/* v = mean(x^2) + eps for the rows of x. */
static bool is_variance(struct value *v, const struct value *x, double *epsilon)
{
    struct value *mean;
    if (!match_with_scalar(v, OP_Add, &mean, epsilon) || *epsilon < 0)
        return false;
    struct value *squares = match_row_mean(mean), *of = squares ? square_of(squares) : NULL;
    return of && match_same(of, x);
}

/* The root's argument behind 1/sqrt(v): Reciprocal(Sqrt v), 1 / Sqrt v, Rsqrt v, v^-0.5. */
static struct value *reciprocal_root(struct value *v)
{
    double c;
    const struct node *n = v->def, *rooted = NULL;
    if (!n)
        return NULL;
    if (n->op == OP_Rsqrt)
        return node_in(n, 0);
    if (n->op == OP_Pow && match_scalar(node_in(n, 1), &c) && c == -0.5)
        return node_in(n, 0);
    if (n->op == OP_Reciprocal)
        rooted = match_def(node_in(n, 0), OP_Sqrt);
    else if (n->op == OP_Div && match_scalar(node_in(n, 0), &c) && c == 1.0)
        rooted = match_def(node_in(n, 1), OP_Sqrt);
    return rooted ? node_in(rooted, 0) : NULL;
}

static struct value *root(struct value *v)
{
    double c;
    const struct node *n = v->def;
    if (n && n->op == OP_Pow && match_scalar(node_in(n, 1), &c) && c == 0.5)
        return node_in(n, 0);
    return n && n->op == OP_Sqrt ? node_in(n, 0) : NULL;
}

/* v = x / sqrt(mean(x^2) + eps) */
static bool is_normalised(struct value *v, struct norm *norm)
{
    const struct node *div = match_def(v, OP_Div), *mul = match_def(v, OP_Mul);
    if (v->type->kind != TYPE_TENSOR || v->type->dtype != DT_F32)
        return false;
    for (int i = 0; mul && i < 2; i++) {
        struct value *variance = reciprocal_root(node_in(mul, 1 - i));
        norm->x = node_in(mul, i);
        if (variance && is_variance(variance, norm->x, &norm->epsilon))
            return norm->x->type == v->type;
    }
    struct value *variance = div ? root(node_in(div, 1)) : NULL;
    norm->x = div ? node_in(div, 0) : NULL;
    return variance && norm->x->type == v->type && is_variance(variance, norm->x, &norm->epsilon);
}

/* x = z - mean(z): the norm is one of z around its mean. */
static void take_centre(struct norm *norm)
{
    const struct node *sub = match_def(norm->x, OP_Sub);
    struct value *z = sub ? match_row_mean(node_in(sub, 1)) : NULL;
    norm->centred = z && match_same(z, node_in(sub, 0)) && z->type == norm->x->type;
    if (norm->centred)
        norm->x = z;
}

static bool is_row(const struct value *w, const struct type *of)
{
    return w->type->kind == TYPE_TENSOR && w->type->rank == 1 && of->rank >= 1 &&
           w->type->dims[0] == of->dims[of->rank - 1] && w->type->dtype == of->dtype;
}

static enum npuc_status finish(struct pass_ctx *px, struct node *n, struct node *made)
{
    const enum npuc_status s = ir_infer(made);
    if (s != NPUC_OK)
        return s;
    pass_count(px, STAT_recover_norm_absorbed, match_replace(px, n, made));
    return NPUC_OK;
}

static struct node *make(struct builder *b, const struct norm *norm, struct value *w)
{
    struct value *in[2] = {norm->x, w};
    struct node *made = ir_new(b, norm->centred ? OP_LayerNormalization : OP_RMSNormalization, 2, in, 1);
    ir_set_float(made, "epsilon", (float)norm->epsilon);
    return made;
}

/* n = w * normalised, perhaps narrowed between. */
static bool match_scaled_norm(struct node *n, struct norm *norm, struct value **w)
{
    for (int i = 0; i < 2; i++) {
        struct value *normal = node_in(n, 1 - i);
        const struct node *cast = match_def(normal, OP_Cast);
        *w = node_in(n, i);
        if (!is_row(*w, n->out[0].type) || normal->type != n->out[0].type ||
            !is_normalised(cast ? node_in(cast, 0) : normal, norm))
            continue;
        take_centre(norm);
        const struct node *wide = cast ? match_def(norm->x, OP_Cast) : NULL;
        if (wide)
            norm->x = node_in(wide, 0);
        return norm->x->type == n->out[0].type;
    }
    return false;
}

static enum npuc_status recover_scale(struct pass_ctx *px, struct node *n)
{
    struct norm norm = {0};
    struct value *w;
    if (!match_scaled_norm(n, &norm, &w) || !ir_may_rewrite(px->cx))
        return NPUC_OK;
    struct builder b = ir_at(n);
    pass_count(px, norm.centred ? STAT_recover_norm_layer : STAT_recover_norm_rms, 1);
    return finish(px, n, make(&b, &norm, w));
}

/* n = LayerNormalization(x, w) + row */
static enum npuc_status recover_bias(struct pass_ctx *px, struct node *n)
{
    for (int i = 0; i < 2; i++) {
        struct node *norm = match_def(node_in(n, i), OP_LayerNormalization);
        struct value *bias = node_in(n, 1 - i);
        if (!norm || node_in(norm, 2) || !value_has_one_use(&norm->out[0]) || node_out(norm, 1) || node_out(norm, 2) ||
            !is_row(bias, norm->out[0].type) || norm->out[0].type->dtype != DT_F32 || !ir_may_rewrite(px->cx))
            continue;
        struct builder b = ir_at(n);
        struct value *in[3] = {node_in(norm, 0), node_in(norm, 1), bias};
        struct node *made = ir_new(&b, OP_LayerNormalization, 3, in, 1);
        for (int k = 0; k < op_table[norm->op]->n_attrs; k++)
            made->attrs[k] = norm->attrs[k];
        made->loc = norm->loc;
        pass_count(px, STAT_recover_norm_bias, 1);
        return finish(px, n, made);
    }
    return NPUC_OK;
}

/* n = norm(Transpose(x)) of rows of the last axis, which stays the last: Transpose(norm(x)). The norm then reads what
 * the product wrote, and what the transpose is read by (rotary embeddings, products) walks strides. */
static enum npuc_status take_in_front(struct pass_ctx *px, struct node *n)
{
    struct node *turn = match_def(node_in(n, 0), OP_Transpose);
    const struct attr *perm = turn ? node_attr(turn, "perm") : NULL;
    const int64_t axis = node_attr_int(n, "axis", -1);
    const int rank = n->out[0].type->rank;
    if (!perm || rank < 2 || (axis != -1 && axis != rank - 1) || perm->v.ints[rank - 1] != rank - 1 || node_out(n, 1) ||
        node_out(n, 2) || !value_has_one_use(&turn->out[0]) || !is_row(node_in(n, 1), n->out[0].type) ||
        !ir_may_rewrite(px->cx))
        return NPUC_OK;
    struct builder b = ir_at(n);
    struct value *in[3] = {node_in(turn, 0), node_in(n, 1), n->n_in > 2 ? node_in(n, 2) : NULL};
    struct node *norm = ir_new(&b, (enum op)n->op, n->n_in, in, n->n_out);
    ir_copy_attrs(norm, n);
    if (ir_infer(norm) != NPUC_OK)
        return NPUC_E_INTERNAL;
    struct node *back = ir_new(&b, OP_Transpose, 1, (struct value *[]){&norm->out[0]}, 1);
    ir_copy_attrs(back, turn);
    back->loc = turn->loc;
    if (ir_infer(back) != NPUC_OK)
        return NPUC_E_INTERNAL;
    ir_replace_all(&n->out[0], &back->out[0]);
    ir_erase(n);
    pass_count(px, STAT_recover_norm_turned, 1);
    return NPUC_OK;
}

static enum npuc_status turn_norms(struct pass_ctx *px, struct graph *g)
{
    for_each_node_safe(n, g)
    {
        const enum npuc_status s =
            n->op == OP_RMSNormalization || n->op == OP_LayerNormalization ? take_in_front(px, n) : NPUC_OK;
        if (s != NPUC_OK)
            return s;
    }
    return NPUC_OK;
}

static const struct {
    enum op op; /* last operator of the pattern */
    enum npuc_status (*run)(struct pass_ctx *px, struct node *n);
} rules[] = {
    {OP_Mul, recover_scale},
    {OP_Add, recover_bias},
};

enum npuc_status recover_norm(struct pass_ctx *px, struct graph *g)
{
    for_each_node_safe(n, g)
    {
        for (int64_t i = 0; i < NPUC_ARRAY_LEN(rules); i++) {
            if (rules[i].op != (enum op)n->op)
                continue;
            const enum npuc_status s = rules[i].run(px, n);
            if (s != NPUC_OK)
                return s;
            break;
        }
    }
    return turn_norms(px, g);
}
