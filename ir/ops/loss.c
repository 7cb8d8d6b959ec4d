/* Losses over class scores. */
#include "ir/ops/infer.h"

static enum npuc_status loss_legal(struct ir_ctx *cx, struct node *n)
{
    return infer_attr_in(cx, n, "reduction", "none mean sum");
}

/* Labels have the dims of the scores [N, C, d...] without the classes; weights one element per class. */
static enum npuc_status check_labels(struct ir_ctx *cx, struct node *n, const struct shape *x, struct shape *out)
{
    const struct shape labels = infer_shape(n, 1), weight = infer_shape(n, 2);
    *out = labels;
    if (x->rank >= 0 && x->rank < 2)
        return infer_rank_error(cx, n, 0, "rank 2 or more: batch, classes");
    if (x->rank >= 0 && labels.rank >= 0 && labels.rank != x->rank - 1)
        return infer_rank_error(cx, n, 1, "one dim less than the scores");
    for (int i = 0; x->rank >= 0 && labels.rank >= 0 && i < labels.rank; i++) {
        out->d[i] = infer_dim_same(cx, labels.d[i], x->d[i ? i + 1 : 0]);
        if (!out->d[i])
            return node_error(cx, n, D_SHAPE_MISMATCH, "input 1 of type %s does not fit the scores of type %s",
                              type_text(cx, n->in[1].value->type), type_text(cx, n->in[0].value->type));
    }
    if (weight.rank >= 0 && x->rank >= 0 && (weight.rank != 1 || !infer_dim_same(cx, weight.d[0], x->d[1])))
        return node_error(cx, n, D_SHAPE_MISMATCH, "input 2 has type %s, expected one weight for each of %s classes",
                          type_text(cx, n->in[2].value->type), infer_dim_text(cx, x->d[1]));
    return NPUC_OK;
}

static enum npuc_status loss_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_is_float(cx, n, 0);
    if (s == NPUC_OK)
        s = infer_dtype_is(cx, n, 1, DT_I32, DT_I64);
    if (s == NPUC_OK && infer_has(n, 2))
        s = infer_same_dtype(cx, n, 0, 2);
    if (s == NPUC_OK)
        s = loss_legal(cx, n);
    const struct shape x = infer_shape(n, 0);
    struct shape labels;
    if (s == NPUC_OK)
        s = check_labels(cx, n, &x, &labels);
    if (s != NPUC_OK)
        return s;
    const enum dtype t = infer_dtype(n, 0);
    if (!infer_attr_is(cx, n, "reduction", "none"))
        s = infer_out(cx, n, 0, t, &(struct shape){.rank = 0});
    else
        s = labels.rank < 0 ? infer_out_unknown(cx, n, 0, t) : infer_out(cx, n, 0, t, &labels);
    return s == NPUC_OK && infer_wants(n, 1) ? infer_out_like(cx, n, 1, 0) : s;
}

static void loss_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    cost_bytes(cx, n, symbols, c);
    c->alu = 15 * cost_count(cx, node_in(n, 0), symbols);
}

#include "ir/ops/rows.h"

#include "ir/ops/loss.def"
