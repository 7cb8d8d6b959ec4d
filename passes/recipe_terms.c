/* Smoothing, rotation and correction of products, for apply_recipe.
 *
 *   %y = MatMul %x, %w
 * becomes, smoothed by s,
 *   %y = MatMul (Mul %x, 1/s), s*%w            where 1/s cannot go into what makes %x (fold_factors.c)
 * rotated by the Kronecker product of A [a,a] and B [b,b], a*b = k,
 *   %m = Reshape %x : [..,a,b];  %r = MatMul A', (MatMul %m, B)
 *   %y = MatMul (Reshape %r : [..,k]), R'%w
 * and corrected
 *   %z = Add %y, correct                       or in the constant bias of a Gemm or Conv
 *
 * Requirements: (1) numbers are divided and rotated in float before they are coded; (2) all products of a value that
 * are turned alike share what is made here; (3) a convolution is smoothed per channel and not rotated. */
#include "passes/recipe_terms.h"

#include <math.h>
#include <string.h>

#include "ir/eval.h"
#include "ir/hadamard.h"
#include "passes/factors.h"

static bool same_vector(const struct quant_vector *a, const struct quant_vector *b)
{
    return (a->data != NULL) == (b->data != NULL) && a->n == b->n &&
           (!a->data || memcmp(a->data, b->data, (size_t)a->n * sizeof *a->data) == 0);
}

bool recipe_turns(const struct quant_product *form)
{
    return form->smooth.data != NULL || form->rotate != QUANT_UNROTATED;
}

bool recipe_turns_alike(const struct quant_product *a, const struct quant_product *b)
{
    return a->rotate == b->rotate && same_vector(&a->smooth, &b->smooth);
}

const char *recipe_turn_refusal(const struct quant_product *form, const struct recipe_rows *w)
{
    const int64_t n = form->smooth.n;
    if (form->rotate != QUANT_UNROTATED && w->conv)
        return "a convolution cannot be rotated; expected no rotate line";
    if (form->smooth.data && n != w->group && (n != w->group * w->groups || w->channels % w->groups != 0))
        return "smooth: expected a factor per input channel";
    for (int64_t i = 0; form->smooth.data && i < n; i++)
        if (!(form->smooth.data[i] > 0) || !isfinite(form->smooth.data[i]))
            return "smooth: expected positive numbers";
    if (form->correct.data && form->correct.n != w->channels)
        return "correct: expected a number per output channel";
    if (form->rotate != QUANT_UNROTATED && !rotation_possible(w->k))
        return "rotate: there is no rotation of rows of this length";
    return NULL;
}

bool recipe_turn_weight(struct pass_ctx *px, const struct quant_product *form, float *rows, const struct recipe_rows *w)
{
    struct rotation r;
    const int64_t k = w->k, channels = w->channels;
    for (int64_t c = 0; form->smooth.data && c < channels; c++) {
        const float *factor =
            form->smooth.data + (form->smooth.n > w->group ? c / (channels / w->groups) * w->group : 0);
        for (int64_t i = 0; i < k; i++)
            rows[c * k + i] *= factor[i / (k / w->group)];
    }
    if (form->rotate == QUANT_UNROTATED)
        return true;
    float *scratch = ARENA_ARRAY(&px->arena, float, k + 1);
    if (!scratch || !rotation_make(&r, k, &px->arena))
        return false;
    rotation_apply(&r, rows, channels, scratch);
    return true;
}

/* ---- inputs */

/* 1 / s along the channels of x; s of one group of a convolution stands for those of every group. */
static bool inverse(struct pass_ctx *px, const struct value *x, bool conv, const struct quant_vector *s,
                    struct factor *c)
{
    const int axis = conv ? 1 : x->type->rank - 1;
    int64_t channels;
    if (!expr_is_const(&px->cx->exprs, x->type->dims[axis], &channels) || channels % s->n != 0)
        return false;
    float *v = ARENA_ARRAY(&px->arena, float, channels + 1);
    for (int64_t i = 0; i < channels; i++)
        v[i] = 1 / s->data[i % s->n];
    *c = (struct factor){.rank = x->type->rank, .v = v};
    for (int i = 0; i < c->rank; i++)
        c->dims[i] = i == axis ? channels : 1;
    return true;
}

static struct value *smoothed(struct pass_ctx *px, struct builder *b, struct value *x, bool conv,
                              const struct quant_vector *s, bool alone, bool *folded)
{
    struct factor c;
    if (!inverse(px, x, conv, s, &c))
        return NULL;
    if (alone && factors_fold(px, x, &c)) {
        *folded = true;
        return x;
    }
    /* a vector where it is along the last axis, so that other passes know it */
    const int skip = conv ? 1 : c.rank - 1;
    const int64_t n = c.dims[skip];
    struct k_tensor t = {.dtype = x->type->dtype, .size = n * dtype_size(x->type->dtype)};
    t.data = arena_zalloc(&px->arena, t.size + 8);
    for (int64_t i = 0; i < n; i++)
        k_set_f64(&t, i, (double)c.v[i]);
    struct value *f = ir_const(b, t.dtype, c.rank - skip, c.dims + skip, t.data, t.size);
    return f ? ir_op2(b, OP_Mul, x, f) : NULL;
}

static struct value *factor_constant(struct pass_ctx *px, struct builder *b, enum dtype t, const float *m, int n,
                                     bool turned)
{
    const int64_t dims[2] = {n, n};
    struct k_tensor to = {.dtype = t, .size = dims[0] * dims[1] * dtype_size(t)};
    to.data = arena_zalloc(&px->arena, to.size + 8);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            k_set_f64(&to, (int64_t)i * n + j, (double)(turned ? m[j * n + i] : m[i * n + j]));
    return ir_const(b, t, 2, dims, to.data, to.size);
}

static struct value *rotated(struct pass_ctx *px, struct builder *b, struct value *x)
{
    struct rotation r;
    int64_t k;
    const int rank = x->type->rank;
    const enum dtype t = x->type->dtype;
    expr dims[IR_MAX_RANK];
    if (rank >= IR_MAX_RANK || !expr_is_const(&px->cx->exprs, x->type->dims[rank - 1], &k) ||
        !rotation_make(&r, k, &px->arena))
        return NULL;
    struct value *inner = factor_constant(px, b, t, r.inner_factor, r.inner, false);
    if (r.outer == 1)
        return inner ? ir_op2(b, OP_MatMul, x, inner) : NULL;
    memcpy(dims, x->type->dims, sizeof(expr) * (size_t)rank);
    dims[rank - 1] = expr_const(&px->cx->exprs, r.outer);
    dims[rank] = expr_const(&px->cx->exprs, r.inner);
    struct value *m = ir_reshape(b, x, rank + 1, dims);
    m = m && inner ? ir_op2(b, OP_MatMul, m, inner) : NULL;
    struct value *outer = factor_constant(px, b, t, r.outer_factor, r.outer, true);
    m = m && outer ? ir_op2(b, OP_MatMul, outer, m) : NULL;
    return m ? ir_reshape(b, m, rank, x->type->dims) : NULL;
}

struct value *recipe_turn_input(struct pass_ctx *px, struct builder *b, struct node *n,
                                const struct quant_product *form, bool alone, bool *folded)
{
    struct value *x = node_in(n, 0);
    *folded = false;
    if (form->smooth.data)
        x = smoothed(px, b, x, n->op == OP_Conv, &form->smooth, alone, folded);
    return x && form->rotate != QUANT_UNROTATED ? rotated(px, b, x) : x;
}

/* ---- outputs */

/* [channels], or [channels][1].. in front of the axes of a map. */
static struct value *correction(struct pass_ctx *px, struct builder *b, const struct node *n,
                                const struct quant_vector *v, int rank)
{
    const enum dtype t = n->out[0].type->dtype;
    int64_t dims[IR_MAX_RANK];
    struct k_tensor to = {.dtype = t, .size = v->n * dtype_size(t)};
    to.data = arena_zalloc(&px->arena, to.size + 8);
    for (int64_t i = 0; i < v->n; i++)
        k_set_f64(&to, i, (double)v->data[i]);
    for (int i = 0; i < rank; i++)
        dims[i] = i == 0 ? v->n : 1;
    return ir_const(b, t, rank, dims, to.data, to.size);
}

/* The constant bias of a Gemm or Conv, one number per output channel and not scaled. */
static bool has_bias(const struct ir_ctx *cx, const struct node *n, const struct quant_vector *v)
{
    const struct value *bias = n->op == OP_Gemm || n->op == OP_Conv ? node_in(n, 2) : NULL;
    return bias && value_const(bias) && bias->type->rank == 1 && type_const_count(cx, bias->type) == v->n &&
           node_attr_float(n, "beta", 1) == 1;
}

enum npuc_status recipe_correct(struct pass_ctx *px, struct node *n, const struct quant_product *form)
{
    const struct quant_vector *v = &form->correct;
    const bool in_bias = has_bias(px->cx, n, v);
    struct builder b = in_bias ? ir_at(n) : n->next ? ir_at(n->next) : ir_at_end(n->graph);
    b.loc = n->loc;
    const int rank = n->op == OP_Conv && !in_bias ? n->out[0].type->rank - 1 : 1;
    struct value *c = correction(px, &b, n, v, rank);
    struct value *y = c ? ir_op2(&b, OP_Add, in_bias ? node_in(n, 2) : &n->out[0], c) : NULL;
    if (!y)
        return pass_failure(px);
    if (in_bias) {
        ir_set_input(n, 2, y); /* folded later */
        return NPUC_OK;
    }
    ir_replace_all(&n->out[0], y);
    ir_set_input(y->def, 0, &n->out[0]);
    return NPUC_OK;
}
