/* Random numbers. */
#include "ir/ops/infer.h"

static enum npuc_status float_attr(struct ir_ctx *cx, struct node *n, enum dtype otherwise, enum dtype *t)
{
    const enum npuc_status s = infer_dtype_attr(cx, n, "dtype", otherwise, t);
    if (s != NPUC_OK || dtype_is_float(*t))
        return s;
    return node_error(cx, n, D_ATTRIBUTE, "the element type of the result is %s, expected a float type",
                      dtype_table[*t].name);
}

static enum npuc_status random_infer(struct ir_ctx *cx, struct node *n)
{
    enum dtype t;
    const enum npuc_status s = float_attr(cx, n, DT_F32, &t);
    const struct attr *a = node_attr(n, "shape");
    if (s != NPUC_OK)
        return s;
    if (!a || a->len > IR_MAX_RANK)
        return node_error(cx, n, D_ATTRIBUTE, "attribute 'shape' has %lld elements, expected at most %d",
                          (long long)(a ? a->len : -1), IR_MAX_RANK);
    struct shape out = {.rank = (int)a->len};
    for (int i = 0; i < out.rank; i++) {
        if (a->v.ints[i] < 0)
            return node_error(cx, n, D_ATTRIBUTE, "element %d of attribute 'shape' is %lld", i,
                              (long long)a->v.ints[i]);
        out.d[i] = expr_const(&cx->exprs, a->v.ints[i]);
    }
    return infer_out(cx, n, 0, t, &out);
}

static enum npuc_status random_like_infer(struct ir_ctx *cx, struct node *n)
{
    enum dtype t;
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = float_attr(cx, n, infer_dtype(n, 0), &t);
    return s == NPUC_OK ? infer_out_shaped(cx, n, 0, 0, t) : s;
}

static enum npuc_status bernoulli_infer(struct ir_ctx *cx, struct node *n)
{
    enum dtype t;
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_is_float(cx, n, 0);
    if (s == NPUC_OK)
        s = infer_dtype_attr(cx, n, "dtype", infer_dtype(n, 0), &t);
    return s == NPUC_OK ? infer_out_shaped(cx, n, 0, 0, t) : s;
}

static enum npuc_status multinomial_infer(struct ir_ctx *cx, struct node *n)
{
    enum dtype t;
    enum npuc_status s = infer_begin(cx, n);
    const struct shape x = infer_shape(n, 0);
    const int64_t samples = node_attr_int(n, "sample_size", 1);
    if (s == NPUC_OK)
        s = infer_is_float(cx, n, 0);
    if (s == NPUC_OK && x.rank >= 0 && x.rank != 2)
        s = infer_rank_error(cx, n, 0, "rank 2: batch, classes");
    if (s == NPUC_OK)
        s = infer_dtype_attr(cx, n, "dtype", DT_I32, &t);
    if (s == NPUC_OK && ((t != DT_I32 && t != DT_I64) || samples < 0 || samples > INT32_MAX))
        s = node_error(cx, n, D_ATTRIBUTE, "dtype is %s, expected i32 or i64; sample_size is %lld", dtype_table[t].name,
                       (long long)samples);
    if (s != NPUC_OK)
        return s;
    const struct shape out = {.rank = 2,
                              .d = {x.rank == 2 ? x.d[0] : infer_fresh(cx, n, 0, 0), expr_const(&cx->exprs, samples)}};
    return infer_out(cx, n, 0, t, &out);
}

/* Ten rounds of four words, and what makes a number of them. */
static void random_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    cost_bytes(cx, n, symbols, c);
    c->alu = 100 * cost_count(cx, &n->out[0], symbols);
}

#include "ir/ops/rows.h"

#include "ir/ops/random.def"
