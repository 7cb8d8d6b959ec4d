/* Sums over experts that are computed one by one: each of them on all tokens, with a weight that is 0 where a token did
 * not choose it, or on the tokens that chose it.
 *
 *   %a = Mul (f(%x; w0)), (ReduceSum (Mul %r, (Cast (Equal %i, 0))), -1)        (%i, %r [t,k]: experts, weights)
 *   %b = Mul (f(%x; w1)), (ReduceSum (Mul %r, (Cast (Equal %i, 1))), -1)
 *   %y = Add %a, %b
 * or, with %s, %p the rows of NonZero of where expert 0 stands in %i (slots, tokens),
 *   %a = ScatterElements zeros, %p, (Mul (f(Gather %x, %p; w0)), (Gather %r, %p * k + %s))
 * becomes
 *   %h = f(%x repeated k times; GroupedMatMul .., %i, w0, w1 for every product)
 *   %y = ReduceSum (Mul (Reshape %h : [t,k,n]), %r), 1
 *
 * Requirements: (1) every expert that the TopK chooses from has one term, with the same operators and constants of the
 * same types; (2) f is products with constants, elementwise operators and cuts of columns, on one operand; (3) no term
 * of its kind is left, so it terminates. Weighted results are added in the order of choice and not of experts, so sums
 * may differ by a rounding. */
#include "passes/experts.h"

#include <string.h>

#define MOST_EXPERTS 1024

struct term {
    struct value *y;          /* of f */
    const struct value *rows; /* the tokens' numbers, where f sees only those that chose it */
    struct value *index, *weight;
    int64_t expert;
};
struct made {
    const struct value *from;
    struct value *to;
};
struct mixture {
    struct pass_ctx *px;
    struct builder b;
    int64_t n, experts, top; /* terms */
    struct term *terms;      /* by expert, once all are found */
    struct value *index;     /* of all terms */
    struct value *flat;      /* the same, [t*k]; once building */
    struct value *x;         /* what f reads, [t, d] or more dims */
    struct value *leaf;      /* the same as the first term sees it */
    expr tokens;
    VEC(struct made) known;
};

/* ---- terms --------------------------------------------------------------------------------------------------- */

static const struct value *behind_casts(const struct value *v)
{
    while (v->def && (v->def->op == OP_Cast || v->def->op == OP_Identity))
        v = node_in(v->def, 0);
    return v;
}

/* One row of [t, k] for each expert: is v where `index` names expert *e? *token: the axis of tokens. */
static struct value *mask_of(const struct value *v, int64_t *e, int *token)
{
    const struct node *n = behind_casts(v)->def;
    *token = 0;
    if (n && n->op == OP_Equal)
        return match_int(node_in(n, 1), e) ? node_in(n, 0) : match_int(node_in(n, 0), e) ? node_in(n, 1) : NULL;
    if (!n || n->op != OP_Gather || !match_int(node_in(n, 1), e) || n->out[0].type->rank != 2)
        return NULL;
    int64_t axis = node_attr_int(n, "axis", 0);
    axis += axis < 0 ? 3 : 0;
    const struct node *hot = behind_casts(node_in(n, 0))->def;
    if (hot && hot->op == OP_Transpose) {
        int64_t perm[3] = {2, 1, 0};
        const struct attr *given = node_attr(hot, "perm");
        if (given && given->len != 3)
            return NULL;
        if (given)
            memcpy(perm, given->v.ints, sizeof perm);
        *token = axis == 0 ? perm[1] > perm[2] : axis == 1 ? perm[0] > perm[2] : perm[0] > perm[1];
        axis = perm[axis];
        hot = behind_casts(node_in(hot, 0))->def;
    }
    const bool last = hot && hot->op == OP_OneHot && axis == 2 && hot->out[0].type->rank == 3 &&
                      (node_attr_int(hot, "axis", -1) == -1 || node_attr_int(hot, "axis", -1) == 2);
    const struct value *values = last ? node_in(hot, 2) : NULL;
    return values && value_elem(v->graph->module->cx, values, 0) == expr_const(&v->graph->module->cx->exprs, 0) &&
                   value_elem(v->graph->module->cx, values, 1) == expr_const(&v->graph->module->cx->exprs, 1)
               ? node_in(hot, 0)
               : NULL;
}

/* v [.., 1] = sum over the last axis of weights where the index names an expert. */
static bool dense_weight(struct value *v, struct term *t)
{
    int64_t axis = 0;
    int token = 0;
    const struct node *sum = match_def(v, OP_ReduceSum);
    if (!sum || !node_in(sum, 1) || !match_int(node_in(sum, 1), &axis))
        return false;
    const struct node *mul = match_def(node_in(sum, 0), OP_Mul);
    for (int i = 0; mul && i < 2; i++) {
        t->weight = node_in(mul, i);
        t->index = mask_of(node_in(mul, 1 - i), &t->expert, &token);
        if (t->index && t->index->type == type_with_dtype(v->graph->module->cx, t->weight->type, t->index->type->dtype))
            return axis == -1 || axis == t->index->type->rank - 1;
    }
    return false;
}

/* Row `row` of a NonZero of two rows. */
static const struct node *nonzero_row(const struct value *v, int64_t *row)
{
    while (v->def && (v->def->op == OP_Squeeze || v->def->op == OP_Reshape || v->def->op == OP_Unsqueeze))
        v = node_in(v->def, 0);
    const struct node *n = v->def, *turn;
    int64_t axis;
    if (!n)
        return NULL;
    axis = node_attr_int(n, "axis", 0);
    if (n->op == OP_Gather && match_int(node_in(n, 1), row)) {
        turn = match_def(node_in(n, 0), OP_Transpose);
        return axis == (turn ? 1 : 0) ? match_def(turn ? node_in(turn, 0) : node_in(n, 0), OP_NonZero) : NULL;
    }
    if (n->op != OP_Split || n->n_out != 2)
        return NULL;
    *row = v == &n->out[1];
    turn = match_def(node_in(n, 0), OP_Transpose);
    return (axis == 1 || axis == -1) == (turn != NULL) ? match_def(turn ? node_in(turn, 0) : node_in(n, 0), OP_NonZero)
                                                       : NULL;
}

/* v = weights, flat, at token * k + slot. */
static bool gathered_weight(const struct value *v, const struct node *places, int token, struct term *t)
{
    const struct node *n = v->def;
    int64_t row = 0, k = 0;
    while (n && (n->op == OP_Unsqueeze || n->op == OP_Reshape))
        n = node_in(n, 0)->def;
    if (!n || n->op != OP_Gather || node_attr_int(n, "axis", 0) != 0)
        return false;
    t->weight = node_in(n, 0);
    while (t->weight->def &&
           (t->weight->def->op == OP_Flatten || t->weight->def->op == OP_Reshape || t->weight->def->op == OP_Unsqueeze))
        t->weight = node_in(t->weight->def, 0);
    const struct node *add = match_def(node_in(n, 1), OP_Add);
    for (int i = 0; add && i < 2; i++) {
        const struct node *mul = match_def(node_in(add, i), OP_Mul);
        if (!mul || nonzero_row(node_in(add, 1 - i), &row) != places || row == token)
            continue;
        for (int j = 0; j < 2; j++)
            if (match_int(node_in(mul, j), &k) && nonzero_row(node_in(mul, 1 - j), &row) == places && row == token)
                return t->weight->type->rank == 2 && t->index->type->rank == 2 &&
                       expr_const(&v->graph->module->cx->exprs, k) == t->index->type->dims[1] &&
                       t->weight->type->dims[0] == t->index->type->dims[0] &&
                       t->weight->type->dims[1] == t->index->type->dims[1];
    }
    return false;
}

static bool dense_term(struct value *v, struct term *t)
{
    const struct node *mul = match_def(v, OP_Mul);
    for (int i = 0; mul && i < 2; i++) {
        *t = (struct term){.y = node_in(mul, i)};
        if (dense_weight(node_in(mul, 1 - i), t))
            return true;
    }
    return false;
}

static bool scattered_term(const struct node *n, struct term *t)
{
    int64_t row = 0;
    int token = 0;
    const struct node *wide = match_def(node_in(n, 1), OP_Expand), *mul = match_def(node_in(n, 2), OP_Mul);
    const struct node *places = wide ? nonzero_row(node_in(wide, 0), &row) : NULL;
    struct value *index = places ? mask_of(node_in(places, 0), &t->expert, &token) : NULL;
    if (!mul || !index || row != token || node_attr_int(n, "axis", 0) != 0)
        return false;
    const int64_t expert = t->expert;
    for (int i = 0; i < 2; i++) {
        *t = (struct term){.y = node_in(mul, i), .index = index, .expert = expert, .rows = &places->out[0]};
        if (gathered_weight(node_in(mul, 1 - i), places, token, t))
            return true;
    }
    return false;
}

static bool is_zero(const struct value *v)
{
    const struct node *n = v->def;
    double x = 1;
    if (n && n->op == OP_Expand)
        return is_zero(node_in(n, 0));
    if (n && n->op == OP_ConstantOfShape) {
        const struct attr *a = node_attr(n, "value");
        if (!a || a->kind != ATTR_TENSOR || !a->v.t.blob->data)
            return a == NULL;
        const char *bytes = a->v.t.blob->data;
        for (int64_t i = 0; i < a->v.t.blob->size; i++)
            if (bytes[i])
                return false;
        return true;
    }
    return match_scalar(v, &x) && x == 0;
}

/* A term that n adds to *rest, which is NULL when it adds nothing else. */
static bool take_term(struct value *v, struct term *t, struct value **rest)
{
    struct node *n = v->def;
    *rest = NULL;
    if (!n)
        return false;
    if (n->op == OP_Add) {
        struct value *none = NULL;
        for (int i = 1; i >= 0; i--) {
            struct value *part = node_in(n, i);
            if (part->def && part->def->op != OP_Add && take_term(part, t, &none) && !none) {
                *rest = node_in(n, 1 - i);
                return true;
            }
        }
        return false;
    }
    if (n->op == OP_ScatterElements && scattered_term(n, t)) {
        const bool adds = node_attr_str(n, "reduction", 0) == str_internz(&n->graph->module->cx->strings, "add");
        *rest = is_zero(node_in(n, 0)) ? NULL : node_in(n, 0);
        return adds || !*rest;
    }
    return dense_term(v, t);
}

/* All terms of the sum v, sorted by expert; false when it is something else. */
static bool find_terms(struct mixture *m, struct value *v)
{
    const struct node *chosen = NULL;
    while (v && !is_zero(v)) {
        struct term t;
        struct value *rest;
        if (!take_term(v, &t, &rest))
            return false;
        if (!chosen) {
            chosen = expert_choice(t.index, &m->experts, &m->top);
            if (!chosen || m->experts < 2 || m->experts > MOST_EXPERTS)
                return false;
            m->terms = ARENA_ARRAY(&m->px->arena, struct term, m->experts);
            memset(m->terms, 0, (size_t)m->experts * sizeof *m->terms);
        }
        if (t.expert < 0 || t.expert >= m->experts || m->terms[t.expert].y || (m->index && t.index != m->index))
            return false;
        m->index = t.index;
        m->terms[t.expert] = t;
        m->n++;
        v = rest;
    }
    for (int64_t e = 1; e < m->experts && m->n == m->experts; e++)
        if (m->terms[e].weight != m->terms[0].weight || (m->terms[e].rows != NULL) != (m->terms[0].rows != NULL))
            return false;
    return chosen && m->n == m->experts;
}

/* ---- f --------------------------------------------------------------------------------------------------------- */

/* The tokens that term t reads as v: all of them, or those with the numbers of its rows. */
static struct value *tokens_of(const struct term *t, struct value *v, bool same)
{
    int64_t row = 0;
    int token = 0;
    int64_t expert = 0;
    if (!t->rows)
        return same ? v : NULL;
    struct value *g = v;
    while (g->def && (g->def->op == OP_Reshape || g->def->op == OP_Squeeze))
        g = node_in(g->def, 0);
    const struct node *n = match_def(g, OP_Gather);
    const struct node *places = n ? nonzero_row(node_in(n, 1), &row) : NULL;
    if (!places || &places->out[0] != t->rows || !mask_of(node_in(places, 0), &expert, &token) || row != token ||
        node_in(n, 1)->type->rank != 1)
        return NULL;
    struct value *x = node_in(n, 0);
    if (node_attr_int(n, "axis", 0) == 1 && x->type->rank == 3 && x->def && x->def->op == OP_Unsqueeze)
        x = node_in(x->def, 0);
    else if (node_attr_int(n, "axis", 0) != 0)
        return NULL;
    return x->type->rank == 2 && v->type->rank == 2 && v->type->dims[1] == x->type->dims[1] ? x : NULL;
}

static bool is_matrix(const struct value *v)
{
    if (v && v->def && v->def->op == OP_Transpose && v->type->rank == 2)
        v = node_in(v->def, 0);
    return v && value_const(v) && v->type->rank == 2;
}

/* A product with a matrix of its own for each expert. */
static bool is_product(const struct node *n)
{
    if (n->op == OP_Gemm)
        return node_attr_float(n, "alpha", 1.0f) == 1.0f && node_attr_float(n, "beta", 1.0f) == 1.0f &&
               node_attr_int(n, "transA", 0) == 0 && is_matrix(node_in(n, 1));
    return n->op == OP_MatMul && is_matrix(node_in(n, 1));
}

/* Does n work on each row alike, whatever the number of dims? */
static bool is_rowwise(const struct node *n)
{
    const int rank = n->out[0].type->rank;
    if (n->op == OP_Split) {
        const int64_t axis = node_attr_int(n, "axis", 0);
        return axis == -1 || axis == rank - 1;
    }
    return op_has((enum op)n->op, T_ELEMENTWISE) || n->op == OP_Cast;
}

/* Constants that stand beside rows: one element or a row. */
static bool is_row_constant(const struct value *v)
{
    return value_const(v) && v->type->rank <= 1;
}

static bool same_constant(const struct value *a, const struct value *b)
{
    const struct blob *x = value_const(a), *y = value_const(b);
    return a == b || (a->type == b->type && x->data && y->data && x->size == y->size &&
                      memcmp(x->data, y->data, (size_t)x->size) == 0);
}

/* Are v[e] of all experts the same function f of what the terms read? */
static bool alike(struct mixture *m, struct value *const *v, int depth)
{
    bool same = true, constant = true;
    for (int64_t e = 0; e < m->experts; e++) {
        same = same && v[e] == v[0];
        constant = constant && v[e] && is_row_constant(v[e]) && v[e]->type == v[0]->type;
    }
    if (!v[0] || constant)
        return v[0] ? constant : same;
    struct value *x = tokens_of(&m->terms[0], v[0], same);
    for (int64_t e = 1; x && e < m->experts; e++)
        x = tokens_of(&m->terms[e], v[e], same) == x ? x : NULL;
    if (x) {
        const bool fits = !m->x || (m->x == x && m->leaf == v[0]);
        m->x = x;
        m->leaf = v[0];
        return fits;
    }
    if (depth == 24 || !v[0]->def || (!is_product(v[0]->def) && !is_rowwise(v[0]->def)))
        return false;
    struct value **in = ARENA_ARRAY(&m->px->arena, struct value *, m->experts);
    for (int64_t e = 1; e < m->experts; e++)
        if (!v[e] || !v[e]->def || v[e]->index != v[0]->index || !node_same_attrs(v[e]->def, v[0]->def) ||
            v[e]->def->n_in != v[0]->def->n_in || v[e]->def->n_out != v[0]->def->n_out ||
            is_product(v[e]->def) != is_product(v[0]->def))
            return false;
    for (int i = 0; i < v[0]->def->n_in; i++) {
        const bool matrix = is_product(v[0]->def) && i == 1, sizes = v[0]->def->op == OP_Split && i == 1;
        for (int64_t e = 0; e < m->experts; e++) {
            in[e] = node_in(v[e]->def, i);
            if (matrix && in[e]->type != in[0]->type)
                return false;
        }
        if (!matrix && !sizes && !alike(m, in, depth + 1))
            return false;
    }
    return true;
}

/* ---- the same on rows -------------------------------------------------------------------------------------------- */

static struct value *built(struct mixture *m, struct value *const *v);

/* The constants of all experts, [e, n], by row; or the one that all have. */
static struct value *row_constants(struct mixture *m, struct value *const *v)
{
    bool same = true;
    for (int64_t e = 1; e < m->experts; e++)
        same = same && same_constant(v[e], v[0]);
    if (same)
        return v[0];
    const int64_t zero = 0;
    struct value **rows = ARENA_ARRAY(&m->px->arena, struct value *, m->experts);
    const expr dims[2] = {expr_const(&m->px->cx->exprs, 1),
                          v[0]->type->rank ? v[0]->type->dims[0] : expr_const(&m->px->cx->exprs, 1)};
    for (int64_t e = 0; e < m->experts; e++)
        rows[e] = ir_reshape(&m->b, v[e], 2, dims);
    struct node *all = ir_new(&m->b, OP_Concat, (int)m->experts, rows, 1);
    ir_set_int(all, "axis", zero);
    return ir_infer(all) == NPUC_OK ? ir_op2(&m->b, OP_Gather, &all->out[0], m->flat) : NULL;
}

static struct value *product(struct mixture *m, struct value *const *v)
{
    const struct node *n = v[0]->def;
    struct value **in = ARENA_ARRAY(&m->px->arena, struct value *, m->experts + 2),
                 **side = ARENA_ARRAY(&m->px->arena, struct value *, m->experts);
    for (int64_t e = 0; e < m->experts; e++) {
        side[e] = node_in(v[e]->def, 0);
        in[e + 2] = node_in(v[e]->def, 1);
    }
    in[0] = built(m, side);
    in[1] = m->flat;
    if (!in[0])
        return NULL;
    struct node *y = ir_new(&m->b, OP_GroupedMatMul, (int)m->experts + 2, in, 1);
    ir_set_int(y, "transB", node_attr_int(n, "transB", 0));
    ir_set_int(y, "top", m->top);
    if (ir_infer(y) != NPUC_OK || !node_in(n, 2))
        return y->out[0].type->kind == TYPE_TENSOR ? &y->out[0] : NULL;
    for (int64_t e = 0; e < m->experts; e++)
        side[e] = node_in(v[e]->def, 2);
    struct value *bias = built(m, side);
    return bias ? ir_op2(&m->b, OP_Add, &y->out[0], bias) : NULL;
}

static struct value *row_operator(struct mixture *m, struct value *const *v)
{
    const struct node *n = v[0]->def;
    struct value **in = ARENA_ARRAY(&m->px->arena, struct value *, n->n_in),
                 **side = ARENA_ARRAY(&m->px->arena, struct value *, m->experts);
    for (int i = 0; i < n->n_in; i++) {
        for (int64_t e = 0; e < m->experts; e++)
            side[e] = node_in(v[e]->def, i);
        in[i] = side[0] && !(n->op == OP_Split && i == 1) ? built(m, side) : side[0];
        if (side[0] && !in[i])
            return NULL;
    }
    struct node *y = ir_new(&m->b, (enum op)n->op, n->n_in, in, n->n_out);
    ir_copy_attrs(y, n);
    if (n->op == OP_Split)
        ir_set_int(y, "axis", 1);
    if (ir_infer(y) != NPUC_OK)
        return NULL;
    for (int i = 0; i < n->n_out; i++)
        vec_push(&m->px->arena, &m->known, ((struct made){&n->out[i], &y->out[i]}));
    return &y->out[v[0]->index];
}

static struct value *built(struct mixture *m, struct value *const *v)
{
    for (int64_t i = 0; i < m->known.len; i++)
        if (m->known.data[i].from == v[0])
            return m->known.data[i].to;
    if (is_row_constant(v[0]))
        return row_constants(m, v);
    struct value *y = is_product(v[0]->def) ? product(m, v) : row_operator(m, v);
    if (y)
        vec_push(&m->px->arena, &m->known, ((struct made){v[0], y}));
    return y;
}

/* x with each token once for every expert that it chose, [t*k, d]. */
static struct value *repeat_tokens(struct mixture *m)
{
    struct expr_pool *x = &m->px->cx->exprs;
    const struct type *t = m->x->type;
    const expr top = expr_const(x, m->top), one = expr_const(x, 1), columns = t->dims[t->rank - 1];
    const int64_t middle = 1;
    struct value *tokens = t->rank == 2 ? m->x : ir_reshape(&m->b, m->x, 2, (const expr[]){m->tokens, columns});
    struct value *deep = tokens ? ir_op2(&m->b, OP_Unsqueeze, tokens, ir_const_i64(&m->b, &middle, 1)) : NULL;
    struct value *wide =
        deep ? ir_op2(&m->b, OP_Expand, deep, ir_sizes(&m->b, (const expr[]){one, top, one}, 3, false)) : NULL;
    return wide ? ir_reshape(&m->b, wide, 2, (const expr[]){expr_mul(x, m->tokens, top), columns}) : NULL;
}

static struct value *weighted_sum(struct mixture *m, struct value *h, const struct type *out)
{
    struct expr_pool *x = &m->px->cx->exprs;
    const expr top = expr_const(x, m->top), one = expr_const(x, 1);
    const int64_t middle = 1;
    struct value *w = ir_reshape(&m->b, m->terms[0].weight, 3, (const expr[]){m->tokens, top, one});
    struct value *each = ir_reshape(&m->b, h, 3, (const expr[]){m->tokens, top, h->type->dims[1]});
    struct value *y = w && each ? ir_op2(&m->b, OP_Mul, each, w) : NULL;
    if (!y)
        return NULL;
    struct node *sum = ir_new(&m->b, OP_ReduceSum, 2, (struct value *[]){y, ir_const_i64(&m->b, &middle, 1)}, 1);
    ir_set_int(sum, "keepdims", 0);
    if (ir_infer(sum) != NPUC_OK)
        return NULL;
    return out->rank == 2 ? &sum->out[0] : ir_reshape(&m->b, &sum->out[0], out->rank, out->dims);
}

/* Do tokens, index and weights say the same number of tokens, and is the result one row for each? */
static bool sizes_fit(struct mixture *m, const struct type *out)
{
    struct expr_pool *x = &m->px->cx->exprs;
    const struct type *t = m->x ? m->x->type : NULL, *i = m->index->type;
    if (!t || t->rank < 2 || out->rank < 2 || m->terms[0].weight->type->dtype != out->dtype)
        return false;
    expr counts[3] = {expr_const(x, 1), expr_const(x, 1), expr_const(x, 1)};
    const struct type *const all[3] = {t, i, out};
    for (int k = 0; k < 3; k++)
        for (int d = 0; d < all[k]->rank - 1; d++)
            counts[k] = expr_mul(x, counts[k], all[k]->dims[d]);
    m->tokens = counts[0];
    return counts[0] == counts[1] && counts[0] == counts[2];
}

static enum npuc_status replace_sum(struct mixture *m, struct node *n)
{
    struct value **v = ARENA_ARRAY(&m->px->arena, struct value *, m->experts);
    for (int64_t e = 0; e < m->experts; e++)
        v[e] = m->terms[e].y;
    if (!alike(m, v, 0) || !sizes_fit(m, n->out[0].type) || !ir_may_rewrite(m->px->cx))
        return NPUC_OK;
    m->b = ir_at(n);
    m->flat = ir_reshape(&m->b, m->index, 1, &(const expr){expr_mul_const(&m->px->cx->exprs, m->tokens, m->top)});
    struct value *rows = repeat_tokens(m);
    if (!m->flat || !rows)
        return NPUC_E_INTERNAL;
    vec_push(&m->px->arena, &m->known, ((struct made){m->leaf, rows}));
    struct value *h = built(m, v), *y = h ? weighted_sum(m, h, n->out[0].type) : NULL;
    if (!y)
        return NPUC_E_INTERNAL;
    ir_replace_all(&n->out[0], y);
    pass_count(m->px, STAT_recover_moe_mixtures, 1);
    return NPUC_OK;
}

enum npuc_status recover_experts(struct pass_ctx *px, struct graph *g)
{
    for (struct node *n = g->last, *before; n; n = before) {
        struct mixture m = {.px = px};
        before = n->prev;
        if ((n->op != OP_Add && n->op != OP_ScatterElements) || !n->out[0].uses || !find_terms(&m, &n->out[0]))
            continue;
        const enum npuc_status s = replace_sum(&m, n);
        if (s != NPUC_OK)
            return s;
    }
    return NPUC_OK;
}
