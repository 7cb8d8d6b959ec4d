/* Softmax and the second product of a region of attention become one SoftmaxMatMul, whose arithmetic goes through the
 * keys in chunks (kernels/attend_chunks.h).
 *
 *   %p = Softmax %m;  %y = MatMul %p, %v                                   %y = SoftmaxMatMul %m, %v
 *   %x = ReduceMax %m; [Max with a sink]; [0 for -inf]; Sub; Exp; ReduceSum; [Add exp(sink - max)]; [1 for 0]; Div;
 * MatMul %w = Softmax %m; %p = Where(IsNaN %w, 0, %w); MatMul
 *
 *   %m = Mul %a, 0.125; [Where %keep, %m, -inf]; SoftmaxMatMul %m, %v    SoftmaxMatMul %a, %v {scale=0.125}
 *   %a = FusedMatMul %q, %k : f16;  Cast %a to f32     FusedMatMul of %q and %k cast to f32: nothing is rounded between
 *
 * Views and casts may stand before the product; the views are those of the scores then. Probabilities are rounded to
 * the type of v either way. Left alone: any other way to a probability, and a softmax whose steps round to 16 bits. */
#include <math.h>

#include "passes/attention.h"
#include "passes/match.h"

#define MAX_VIEWS   8
#define LARGEST_OFF 65504.0 /* a number in the place of minus infinity that a factor may still follow */

struct found {
    struct node *product;          /* the second one */
    struct value *scores, *sink;   /* sink: one more score per row or NULL */
    struct value *view[MAX_VIEWS]; /* shapes of views between probabilities and product, from the product back */
    int n_views;
    enum attend_empty empty;
};

static bool is_number(const struct value *v, double number)
{
    double x;
    return match_scalar(v, &x) && x == number;
}

/* What `v` is when the rows without probability are set to `number` in it; v itself otherwise. */
static struct value *unguarded(struct value *v, double number, bool *guarded)
{
    const struct node *n = match_def(v, OP_Where);
    if (!n || !is_number(node_in(n, 1), number) || !match_def(node_in(n, 0), OP_Equal))
        return v;
    *guarded = true;
    return node_in(n, 2);
}

/* The operand of a commutative node beside the one that `is` names. */
static struct value *other(const struct node *n, const struct value *is)
{
    return node_in(n, 0) == is ? node_in(n, 1) : node_in(n, 1) == is ? node_in(n, 0) : NULL;
}

static struct node *row_reduction(struct value *v, enum op op, const struct value *of)
{
    struct node *n = match_def(v, op);
    return n && node_in(n, 0) == of ? n : NULL;
}

/* The maximum that the scores are reduced by, with or without a sink. */
static bool read_max(struct value *max, struct found *f, bool *guarded)
{
    max = unguarded(max, 0, guarded);
    if (row_reduction(max, OP_ReduceMax, f->scores))
        return true;
    const struct node *both = match_def(max, OP_Max);
    if (!both || both->n_in != 2)
        return false;
    for (int i = 0; i < 2; i++)
        if (row_reduction(node_in(both, i), OP_ReduceMax, f->scores))
            f->sink = node_in(both, 1 - i);
    return f->sink != NULL;
}

static bool read_sum(struct value *sum, struct found *f, const struct value *e, const struct value *max, bool *guarded)
{
    sum = unguarded(sum, 1, guarded);
    if (!f->sink)
        return row_reduction(sum, OP_ReduceSum, e) != NULL;
    const struct node *add = match_def(sum, OP_Add);
    for (int i = 0; add && i < 2; i++) {
        const struct node *last = match_def(node_in(add, i), OP_Exp);
        const struct node *less = last ? match_def(node_in(last, 0), OP_Sub) : NULL;
        if (less && node_in(less, 0) == f->sink && node_in(less, 1) == max)
            return row_reduction(other(add, node_in(add, i)), OP_ReduceSum, e) != NULL;
    }
    return false;
}

/* Steps in f32: x - max, exp, sum, divide. */
static bool read_steps(const struct node *div, struct found *f)
{
    bool max_guarded = false, sum_guarded = false;
    const struct node *e = match_def(node_in(div, 0), OP_Exp), *d = e ? match_def(node_in(e, 0), OP_Sub) : NULL;
    if (!d || div->out[0].type->dtype != DT_F32)
        return false;
    f->scores = node_in(d, 0);
    if (!read_max(node_in(d, 1), f, &max_guarded) ||
        !read_sum(node_in(div, 1), f, &e->out[0], node_in(d, 1), &sum_guarded) || max_guarded != sum_guarded)
        return false;
    f->empty = max_guarded ? ATTEND_EMPTY_ZERO : ATTEND_EMPTY_NAN;
    return true;
}

static bool read_softmax(const struct node *n, struct found *f)
{
    const int64_t axis = node_attr_int(n, "axis", -1);
    f->scores = node_in(n, 0);
    return axis == -1 || axis == f->scores->type->rank - 1;
}

static bool read_probabilities(struct value *p, struct found *f)
{
    const struct node *where = match_def(p, OP_Where), *nan = where ? match_def(node_in(where, 0), OP_IsNaN) : NULL;
    if (nan && is_number(node_in(where, 1), 0) && node_in(nan, 0) == node_in(where, 2)) {
        const struct node *s = match_def(node_in(where, 2), OP_Softmax);
        f->empty = ATTEND_EMPTY_OR_NAN_ZERO;
        return s && read_softmax(s, f);
    }
    if (match_def(p, OP_Softmax))
        return read_softmax(p->def, f);
    return match_def(p, OP_Div) && read_steps(p->def, f);
}

static bool find(struct graph *body, struct found *f)
{
    const struct node *yield = graph_yield(body);
    *f = (struct found){.product = yield->n_in == 1 ? node_in(yield, 0)->def : NULL};
    if (!f->product || (f->product->op != OP_MatMul && f->product->op != OP_FusedMatMul))
        return false;
    const struct node *n = f->product;
    struct value *p = node_in(n, 0);
    if (node_attr_float(n, "alpha", 1.0f) != 1.0f || node_attr_int(n, "transA", 0) || p->type->rank < 2 ||
        node_in(n, 1)->type->rank != p->type->rank)
        return false;
    while (p->def && (p->def->op == OP_Cast || op_has((enum op)p->def->op, T_VIEW) || p->def->op == OP_Identity)) {
        if (op_has((enum op)p->def->op, T_VIEW)) {
            if (f->n_views == MAX_VIEWS)
                return false;
            f->view[f->n_views++] = &p->def->out[0];
        }
        p = node_in(p->def, 0);
    }
    return read_probabilities(p, f);
}

/* Rows of the product that belong to one row of the sink: 1, or the query heads that share a key head; 0: neither. */
static int64_t group_of(struct ir_ctx *cx, const struct found *f)
{
    struct expr_pool *x = &cx->exprs;
    const struct type *s = f->scores->type, *p = node_in(f->product, 0)->type;
    const int r = p->rank;
    int64_t group = 1;
    if (s->rank != r)
        return 0;
    for (int i = 0; i < r - 3; i++)
        if (s->dims[i] != p->dims[i])
            return 0;
    if (r < 3 || s->dims[r - 3] == p->dims[r - 3])
        return s->dims[r - 2] == p->dims[r - 2];
    if (!expr_is_const(x, expr_floordiv(x, s->dims[r - 3], p->dims[r - 3]), &group) || group < 1 ||
        expr_mul_const(x, p->dims[r - 3], group) != s->dims[r - 3] ||
        expr_mul_const(x, s->dims[r - 2], group) != p->dims[r - 2])
        return 0;
    return group;
}

/* `v` seen as in the given views, from the last one back. */
static struct value *viewed(struct builder *b, struct value *v, struct value *const *view, int n_views)
{
    for (int i = n_views - 1; v && i >= 0; i--) {
        const struct node *old = view[i]->def;
        struct value *in[4] = {v};
        for (int k = 1; k < old->n_in && k < 4; k++)
            in[k] = node_in(old, k);
        struct node *n = ir_new(b, (enum op)old->op, old->n_in, in, 1);
        for (int k = 0; k < op_table[old->op]->n_attrs; k++)
            n->attrs[k] = old->attrs[k];
        n->place = old->place;
        v = ir_infer(n) == NPUC_OK ? &n->out[0] : NULL;
    }
    return v;
}

/* Operand i of a product in f32. */
static struct value *widened(struct builder *b, const struct node *product, int i)
{
    struct value *v = ir_cast(b, node_in(product, i), DT_F32);
    if (v && v != node_in(product, i))
        v->def->place = product->place;
    return v;
}

/* Scores that are cast to f32 are not rounded before: the matrix unit has them in f32. The product of widened operands
 * says so. */
static void keep_wide(struct graph *body)
{
    for_each_node_safe(cast, body)
    {
        struct value *view[MAX_VIEWS], *v = node_in(cast, 0);
        int n_views = 0;
        if (cast->op != OP_Cast || cast->out[0].type->dtype != DT_F32)
            continue;
        while (v->def && op_has((enum op)v->def->op, T_VIEW) && n_views < MAX_VIEWS) {
            view[n_views++] = v;
            v = node_in(v->def, 0);
        }
        const struct node *product = v->def;
        if (!product || product->op != OP_FusedMatMul || !value_has_one_use(v) || dtype_size(v->type->dtype) != 2)
            continue;
        struct builder b = ir_at(cast);
        struct value *in[2] = {widened(&b, product, 0), widened(&b, product, 1)};
        struct node *n = in[0] && in[1] ? ir_new(&b, OP_FusedMatMul, 2, in, 1) : NULL;
        for (int k = 0; n && k < op_table[n->op]->n_attrs; k++)
            n->attrs[k] = product->attrs[k];
        if (!n || ir_infer(n) != NPUC_OK)
            return;
        n->place = product->place;
        struct value *wide = viewed(&b, &n->out[0], view, n_views);
        if (!wide)
            return;
        ir_replace_all(&cast->out[0], wide);
    }
}

/* The operand beside a positive number of at most one that a product's scores are multiplied by (divided by its
 * inverse); NULL for anything else. */
static struct value *scaled(const struct node *n, float *scale)
{
    double x = 0;
    if ((n->op != OP_Mul && n->op != OP_Div) || n->out[0].type->dtype != DT_F32)
        return NULL;
    for (int i = n->op == OP_Div; i < 2; i++) {
        const struct value *c = node_in(n, i);
        struct value *v = node_in(n, 1 - i);
        if (v->type != n->out[0].type || !value_const(c) || type_const_count(n->graph->module->cx, c->type) != 1 ||
            !value_const_f64(c, 0, &x))
            continue;
        *scale = (float)(n->op == OP_Div ? 1 / x : x);
        return *scale > 0 && *scale <= 1 ? v : NULL;
    }
    return NULL;
}

/* Are these scores of a product, with nothing added that may be a large number for minus infinity? Where a row is all
 * such numbers, its exponents would be what rounding leaves of them once they are scaled, not zero. */
static bool are_moderate(const struct value *v)
{
    double x;
    for (const struct node *n; (n = v->def);) {
        const bool same = op_has((enum op)n->op, T_VIEW) || n->op == OP_Identity || n->op == OP_Cast;
        const bool chosen = n->op == OP_Where && node_in(n, 1)->type == n->out[0].type &&
                            match_scalar(node_in(n, 2), &x) && (isinf(x) || fabs(x) <= LARGEST_OFF);
        const bool times = (n->op == OP_Mul || n->op == OP_Div) && match_scalar(node_in(n, 1), &x);
        if (!same && !chosen && !times)
            return n->op == OP_MatMul || n->op == OP_FusedMatMul || n->op == OP_Tanh;
        v = node_in(n, chosen);
    }
    return false;
}

/* The factor of the scores goes into the exponent, behind views and masks of -inf, which a factor does not change. */
static void take_scale(struct node *soft)
{
    struct value *v = node_in(soft, 0), *from;
    float scale;
    while (v->def && value_has_one_use(v)) {
        struct node *n = v->def;
        if ((from = scaled(n, &scale))) {
            if (!are_moderate(from))
                return;
            ir_set_float(soft, "scale", scale);
            ir_replace_all(v, from);
            return;
        }
        if (op_has((enum op)n->op, T_VIEW) || n->op == OP_Identity)
            v = node_in(n, 0);
        else if (n->op == OP_Where && is_number(node_in(n, 2), -INFINITY) && node_in(n, 1)->type == n->out[0].type)
            v = node_in(n, 1);
        else
            return;
    }
}

bool attention_chunks(struct graph *body)
{
    struct ir_ctx *cx = body->module->cx;
    struct found f;
    if (!find(body, &f))
        return false;
    const int64_t group = group_of(cx, &f);
    if (f.sink && group == 0)
        return false;
    struct builder b = ir_at(f.product);
    struct value *in[3] = {viewed(&b, f.scores, f.view, f.n_views), node_in(f.product, 1), f.sink};
    if (!in[0] || in[0]->type->rank != node_in(f.product, 0)->type->rank)
        return false;
    struct node *n = ir_new(&b, OP_SoftmaxMatMul, f.sink ? 3 : 2, in, 1);
    ir_set_int(n, "transB", node_attr_int(f.product, "transB", 0));
    ir_set_int(n, "group", f.sink ? group : 1);
    ir_set_int(n, "empty", f.empty);
    n->place = f.product->place;
    if (ir_infer(n) != NPUC_OK || n->out[0].type->dtype != f.product->out[0].type->dtype)
        return false;
    n->out[0].name = f.product->out[0].name;
    ir_replace_all(&f.product->out[0], &n->out[0]);
    keep_wide(body);
    ir_dce(body);
    take_scale(n);
    ir_dce(body);
    return true;
}
