/* Normalisations. */
#include "ir/ops/infer.h"

static enum npuc_status same_norm_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_is_float(cx, n, 0);
    return s == NPUC_OK ? infer_out_shaped(cx, n, 0, 0, infer_dtype(n, 0)) : s;
}

/* Input i broadcasts to the trailing axes of input 0 that are normalised. */
static enum npuc_status check_scale(struct ir_ctx *cx, struct node *n, int i, const struct shape *x)
{
    const struct shape p = infer_shape(n, i);
    struct shape all;
    if (x->rank < 0 || p.rank < 0)
        return NPUC_OK;
    bool fits = p.rank <= x->rank && infer_broadcast(cx, x, &p, &all);
    for (int k = 1; fits && k <= p.rank; k++) /* one-way: input 0 does not grow */
        fits = infer_dim_is(cx, p.d[p.rank - k], 1) || !infer_dim_is(cx, x->d[x->rank - k], 1);
    if (fits)
        return NPUC_OK;
    return node_error(cx, n, D_SHAPE_MISMATCH, "input %d has type %s, which does not broadcast to input 0 of type %s",
                      i, type_text(cx, n->in[i].value->type), type_text(cx, n->in[0].value->type));
}

static enum npuc_status norm_begin(struct ir_ctx *cx, struct node *n, int *axis)
{
    enum npuc_status s = infer_begin(cx, n);
    const struct shape x = infer_shape(n, 0);
    if (s == NPUC_OK)
        s = infer_is_float(cx, n, 0);
    if (s == NPUC_OK && x.rank >= 0)
        s = infer_axis_attr(cx, n, "axis", x.rank, axis);
    for (int i = 1; i < n->n_in && s == NPUC_OK; i++)
        if (infer_has(n, i))
            s = check_scale(cx, n, i, &x);
    return s;
}

static enum npuc_status layer_norm_infer(struct ir_ctx *cx, struct node *n)
{
    int axis = 0;
    enum dtype stash;
    enum npuc_status s = norm_begin(cx, n, &axis);
    if (s == NPUC_OK)
        s = infer_dtype_attr(cx, n, "stash_type", DT_F32, &stash);
    if (s == NPUC_OK)
        s = infer_out_shaped(cx, n, 0, 0, infer_dtype(n, 0));
    struct shape row = infer_shape(n, 0);
    for (int i = axis; i < row.rank; i++)
        row.d[i] = expr_const(&cx->exprs, 1);
    for (int i = 1; i < 3 && s == NPUC_OK; i++)
        s = row.rank < 0 ? infer_out_unknown(cx, n, i, stash) : infer_out(cx, n, i, stash, &row);
    return s;
}

/* The result has the type of scale, which may differ from that of X. */
static enum npuc_status rms_norm_infer(struct ir_ctx *cx, struct node *n)
{
    int axis;
    enum npuc_status s = norm_begin(cx, n, &axis);
    if (s == NPUC_OK)
        s = infer_is_float(cx, n, 1);
    return s == NPUC_OK ? infer_out_shaped(cx, n, 0, 0, infer_dtype(n, 1)) : s;
}

/* Inputs first.. are vectors over the channels (axis 1) of input 0. */
static enum npuc_status check_channels(struct ir_ctx *cx, struct node *n, int first)
{
    const struct shape x = infer_shape(n, 0);
    if (x.rank >= 0 && x.rank < 2 && !(x.rank == 1 && n->op == OP_BatchNormalization))
        return infer_rank_error(cx, n, 0, "rank 2 or more");
    const expr channels = x.rank >= 2 ? x.d[1] : expr_const(&cx->exprs, 1);
    for (int i = first; i < n->n_in; i++) {
        const struct shape p = infer_shape(n, i);
        if (x.rank < 0 || p.rank < 0)
            continue;
        if (p.rank != 1 || !infer_dim_same(cx, p.d[0], channels))
            return node_error(cx, n, D_SHAPE_MISMATCH,
                              "input %d has type %s, expected one value for each of the %s channels", i,
                              type_text(cx, n->in[i].value->type), infer_dim_text(cx, channels));
    }
    return NPUC_OK;
}

static enum npuc_status channel_norm_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = same_norm_infer(cx, n);
    return s == NPUC_OK ? check_channels(cx, n, 1) : s;
}

static enum npuc_status batch_norm_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = same_norm_infer(cx, n);
    if (s == NPUC_OK)
        s = check_channels(cx, n, 1);
    for (int i = 1; i < n->n_out && s == NPUC_OK; i++)
        s = infer_out_like(cx, n, i, i + 2);
    return s;
}

static enum npuc_status batch_norm_legal(struct ir_ctx *cx, struct node *n)
{
    if (node_attr_int(n, "training_mode", 0))
        return node_error(cx, n, D_UNSUPPORTED, "training_mode is 1; export the model for inference");
    return NPUC_OK;
}

static enum npuc_status group_norm_legal(struct ir_ctx *cx, struct node *n)
{
    const struct shape x = infer_shape(n, 0);
    const int64_t groups = node_attr_int(n, "num_groups", 0);
    int64_t channels;
    if (groups < 1 || (x.rank >= 2 && expr_is_const(&cx->exprs, x.d[1], &channels) && channels % groups))
        return node_error(cx, n, D_ATTRIBUTE,
                          "attribute 'num_groups' is %lld, expected a divisor of the number of channels",
                          (long long)groups);
    return NPUC_OK;
}

/* Two passes over the data, a multiplication and an addition. */
static void norm_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    cost_bytes(cx, n, symbols, c);
    c->alu = 6 * cost_count(cx, node_in(n, 0), symbols);
}

#include "ir/ops/rows.h"

#include "ir/ops/norm.def"
