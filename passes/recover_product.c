/* Matrix products read their operands where they lie: transposes of the right operand become transB, and key or value
 * heads that an exporter repeats for their groups of query heads are no longer repeated.
 *
 *   %kt = Transpose %k {perm=[0,1,3,2]};  %s = MatMul %q, %kt          becomes  %s = FusedMatMul %q, %k {transB=1}
 *
 *   %u = Unsqueeze %v {2};  %e = Expand %u, [b,2,4,t,64];  %r = Reshape %e, [b,8,t,64];  %y = MatMul %p, %r
 * becomes
 *   %g = Reshape %p, [b,2,4*s,t];  %y4 = MatMul %g, %v;  %y = Reshape %y4, [b,8,s,64]
 *
 * So do heads that go into one row and out of it again on the way. A scalar factor on the right operand (torch scales q
 * and k by sqrt(scale) each) moves behind the product: %ks = Mul %kt, 0.5;  %s = MatMul %q, %ks becomes  %s = Mul
 * (MatMul %q, %kt), 0.5. Batch and heads of a cache that are one axis of the product alone (torch.bmm) become two.
 *
 * The first two forms multiply the same numbers in the same order, so results keep their bits; the third rounds once
 * more or less, and is done only where it lets a cache be read in place. Requirements: (1) shapes decide, not names;
 * all sizes involved must be known to agree as expressions; (2) each rewrite removes a Transpose, a repeat or a
 * Reshape from the operand's chain, so it terminates; (3) what becomes unused is left to dce. Left alone: repeats of
 * the left operand, transposes that move batch axes. */
#include "passes/pass.h"

struct operand {
    struct value *v;
    bool trans;    /* the last two axes are swapped in v */
    int64_t group; /* every matrix of v serves this many of the product's, one after another; 1: none */
    double scale;  /* factor taken out of v; 1: none */
    bool flat;     /* the first two axes of v were one axis of the product */
};

static struct expr_pool *pool(const struct pass_ctx *px)
{
    return &px->cx->exprs;
}

static bool swaps_last_two(const struct node *n)
{
    const struct attr *perm = node_attr(n, "perm");
    int rank = n->out[0].type->rank;
    if (n->op != OP_Transpose || rank < 2)
        return false;
    if (!perm)
        return rank == 2;
    for (int i = 0; i < rank - 2; i++)
        if (perm->v.ints[i] != i)
            return false;
    return perm->v.ints[rank - 2] == rank - 1 && perm->v.ints[rank - 1] == rank - 2;
}

static bool is_reshape(const struct value *v)
{
    return v->def && v->def->op == OP_Reshape && v->def->in[0].value->type->rank >= 2 && v->type->rank >= 2;
}

static bool same_matrix(const struct type *a, const struct type *b)
{
    return a->dims[a->rank - 1] == b->dims[b->rank - 1] && a->dims[a->rank - 2] == b->dims[b->rank - 2];
}

/* Transpose, or Reshape - Transpose - Reshape that flattens the batch axes around it (torch's form for any rank). */
static bool peel_transpose(struct operand *o)
{
    struct value *v = o->v;
    if (v->def && swaps_last_two(v->def)) {
        o->v = v->def->in[0].value;
        o->trans = !o->trans;
        return true;
    }
    if (!is_reshape(v))
        return false;
    struct value *inner = v->def->in[0].value;
    if (!inner->def || !swaps_last_two(inner->def) || !same_matrix(inner->type, v->type))
        return false;
    struct value *flat = inner->def->in[0].value;
    if (!is_reshape(flat))
        return false;
    struct value *x = flat->def->in[0].value;
    int r = v->type->rank;
    if (!same_matrix(x->type, flat->type) || x->type->rank != r)
        return false;
    for (int i = 0; i < r - 2; i++)
        if (x->type->dims[i] != v->type->dims[i])
            return false;
    o->v = x;
    o->trans = !o->trans;
    return true;
}

/* Transpose - Reshape - Reshape - Transpose that leads back to the same order, as from heads to one row and again to
 * heads (builders of models between a repeat of heads and an operator that takes rows). */
static bool peel_round_trip(struct operand *o)
{
    const struct value *v = o->v;
    const struct attr *there = v->def && v->def->op == OP_Transpose ? node_attr(v->def, "perm") : NULL;
    struct value *mid = there ? v->def->in[0].value : NULL;
    while (mid && mid->def && mid->def->op == OP_Reshape)
        mid = mid->def->in[0].value;
    const struct attr *back = mid && mid->def && mid->def->op == OP_Transpose ? node_attr(mid->def, "perm") : NULL;
    if (!back || !type_same_dims(mid->type, v->def->in[0].value->type))
        return false;
    for (int i = 0; i < v->type->rank; i++)
        if (back->v.ints[there->v.ints[i]] != i)
            return false;
    o->v = mid->def->in[0].value;
    return true;
}

/* [b,h,t,d] <- Reshape [b,h,g,t,d] <- Expand [b,h,1,t,d] <- Unsqueeze or Reshape [b,h,t,d] */
static bool peel_repeat(struct pass_ctx *px, struct operand *o)
{
    struct value *v = o->v;
    if (v->type->rank != 4 || !v->def || v->def->op != OP_Reshape || o->group != 1)
        return false;
    struct value *e = v->def->in[0].value;
    if (!e->def || e->def->op != OP_Expand || e->type->rank != 5)
        return false;
    struct value *u = e->def->in[0].value;
    bool view = u->def && (u->def->op == OP_Unsqueeze || u->def->op == OP_Reshape) && u->type->rank == 5;
    struct value *x = view ? u->def->in[0].value : NULL;
    if (!x || x->type->rank != 4)
        return false;
    const expr *d = x->type->dims, *out = v->type->dims, one = expr_const(pool(px), 1);
    const expr want_u[5] = {d[0], d[1], one, d[2], d[3]}, want_e[5] = {d[0], d[1], e->type->dims[2], d[2], d[3]};
    const expr want_v[4] = {d[0], expr_mul(pool(px), d[1], e->type->dims[2]), d[2], d[3]};
    for (int i = 0; i < 5; i++)
        if (u->type->dims[i] != want_u[i] || e->type->dims[i] != want_e[i] || (i < 4 && out[i] != want_v[i]))
            return false;
    if (!expr_is_const(pool(px), e->type->dims[2], &o->group) || o->group < 2) {
        o->group = 1;
        return false;
    }
    o->v = x;
    return true;
}

/* [b*h,t,d] <- Reshape [b,h,t,d] (torch.bmm). */
static bool peel_flat(struct pass_ctx *px, struct operand *o)
{
    const struct node *n = o->v->def;
    const struct type *flat = o->v->type;
    struct value *x = n && n->op == OP_Reshape ? node_in(n, 0) : NULL;
    if (!x || flat->rank != 3 || x->type->rank != 4 || !same_matrix(x->type, flat) ||
        expr_mul(pool(px), x->type->dims[0], x->type->dims[1]) != flat->dims[0])
        return false;
    o->v = x;
    o->flat = true;
    return true;
}

/* A factor that is one constant float. */
static bool peel_scale(struct operand *o)
{
    struct node *n = o->v->def;
    double c;
    if (!n || n->op != OP_Mul)
        return false;
    for (int i = 0; i < 2; i++) {
        struct value *factor = n->in[i].value, *rest = n->in[1 - i].value;
        if (type_const_count(n->graph->module->cx, factor->type) != 1 || !dtype_is_float(factor->type->dtype) ||
            !value_const_f64(factor, 0, &c) || rest->type != o->v->type)
            continue;
        o->scale *= c;
        o->v = rest;
        return true;
    }
    return false;
}

/* Takes everything off; true when a transpose or a repeat was among it, or what is left is a cache. */
static bool peel(struct pass_ctx *px, struct operand *o)
{
    bool moved = false;
    for (;;) {
        if (peel_transpose(o) || peel_round_trip(o) || peel_repeat(px, o))
            moved = true;
        else if (!peel_flat(px, o) && (px->options.strict || !peel_scale(o)))
            return moved || (o->flat && o->v->def && o->v->def->op == OP_Concat);
    }
}

static struct value *product(struct builder *b, struct value *a, const struct operand *o)
{
    struct value *in[2] = {a, o->v};
    struct node *n = ir_new(b, o->trans ? OP_FusedMatMul : OP_MatMul, 2, in, 1);
    if (o->trans)
        ir_set_int(n, "transB", 1);
    return ir_infer(n) == NPUC_OK ? &n->out[0] : NULL;
}

/* The left operand with the heads of a group as rows: [b,h*g,s,k] -> [b,h,g*s,k]. */
static struct value *group_rows(struct pass_ctx *px, struct builder *b, struct value *a, const struct operand *o)
{
    const expr *d = a->type->dims;
    const expr dims[4] = {d[0], o->v->type->dims[1], expr_mul_const(pool(px), d[2], o->group), d[3]};
    return ir_reshape(b, a, 4, dims);
}

/* The left operand with batch and heads apart: [b*h,s,k] -> [b,h,s,k]. */
static struct value *part_heads(struct pass_ctx *px, struct builder *b, struct value *a, const struct operand *o)
{
    const expr *d = a->type->dims, heads = expr_mul_const(pool(px), o->v->type->dims[1], o->group);
    const expr dims[4] = {o->v->type->dims[0], heads, d[1], d[2]};
    return ir_reshape(b, a, 4, dims);
}

static enum npuc_status rewrite(struct pass_ctx *px, struct node *n, const struct operand *o)
{
    struct builder b = ir_at(n);
    struct value *a = n->in[0].value, *y;
    if (o->flat)
        a = part_heads(px, &b, a, o);
    if (a && o->group > 1)
        a = group_rows(px, &b, a, o);
    y = a ? product(&b, a, o) : NULL;
    if (y && o->scale != 1.0)
        y = ir_op2(&b, OP_Mul, y, ir_scalar_like(&b, y, o->scale));
    if (y && (o->group > 1 || o->flat))
        y = ir_reshape(&b, y, n->out[0].type->rank, n->out[0].type->dims);
    if (!y || !type_same_dims(y->type, n->out[0].type))
        return NPUC_E_INTERNAL;
    ir_replace_all(&n->out[0], y);
    ir_erase(n);
    pass_count(px, o->group > 1 ? STAT_recover_product_grouped : STAT_recover_product_transposed, 1);
    return NPUC_OK;
}

/* Can the heads of the left operand be seen as rows of the right one's? */
static bool groups_fit(struct pass_ctx *px, const struct node *n, const struct operand *o)
{
    const struct type *a = n->in[0].value->type;
    if (o->flat) {
        const expr heads = expr_mul_const(pool(px), o->v->type->dims[1], o->group);
        return a->rank == 3 && a->dims[0] == expr_mul(pool(px), o->v->type->dims[0], heads);
    }
    return o->group == 1 || (a->rank == 4 && a->dims[0] == o->v->type->dims[0] &&
                             a->dims[1] == expr_mul_const(pool(px), o->v->type->dims[1], o->group));
}

enum npuc_status recover_product(struct pass_ctx *px, struct graph *g)
{
    for_each_node_safe(n, g)
    {
        bool fused = n->op == OP_FusedMatMul && node_attr_float(n, "alpha", 1.0f) == 1.0f &&
                     node_attr_int(n, "transA", 0) == 0 && node_attr_int(n, "transBatchA", 0) == 0 &&
                     node_attr_int(n, "transBatchB", 0) == 0;
        if ((n->op != OP_MatMul && !fused) || n->in[0].value->type->rank < 2 || n->in[1].value->type->rank < 2)
            continue;
        struct operand o = {n->in[1].value, fused && node_attr_int(n, "transB", 0) != 0, 1, 1.0, false};
        if (!peel(px, &o) || !groups_fit(px, n, &o) || !ir_may_rewrite(px->cx))
            continue;
        enum npuc_status s = rewrite(px, n, &o);
        if (s != NPUC_OK)
            return s;
    }
    return NPUC_OK;
}
