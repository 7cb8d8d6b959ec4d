/* Operators with a state that passes from step to step. */
#include "ir/ops/infer.h"

/* Dimension `axis` of input i is `want`, the size called `what`; *want becomes the better known of the two. */
static enum npuc_status dim_is(struct ir_ctx *cx, struct node *n, int i, int axis, expr *want, const char *what)
{
    const struct shape x = infer_shape(n, i);
    if (x.rank < 0 || axis >= x.rank || *want == EXPR_INVALID) {
        if (*want == EXPR_INVALID && x.rank > axis)
            *want = x.d[axis];
        return NPUC_OK;
    }
    const expr same = infer_dim_same(cx, *want, x.d[axis]);
    if (!same)
        return node_error(cx, n, D_SHAPE_MISMATCH, "input %d has %s on axis %d, expected %s (%s)", i,
                          infer_dim_text(cx, x.d[axis]), axis, infer_dim_text(cx, *want), what);
    *want = same;
    return NPUC_OK;
}

static enum npuc_status rank_is(struct ir_ctx *cx, struct node *n, int i, int rank)
{
    const struct shape x = infer_shape(n, i);
    static const char *const text[] = {"rank 0", "rank 1", "rank 2", "rank 3", "rank 4", "rank 5"};
    return !infer_has(n, i) || x.rank < 0 || x.rank == rank ? NPUC_OK : infer_rank_error(cx, n, i, text[rank]);
}

/* ---- RNN, GRU, LSTM */

static int gates_of(const struct node *n)
{
    return n->op == OP_LSTM ? 4 : n->op == OP_GRU ? 3 : 1;
}

static enum npuc_status recurrent_legal(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_attr_in(cx, n, "direction", "forward reverse bidirectional");
    const int64_t layout = node_attr_int(n, "layout", 0);
    if (s == NPUC_OK && layout != 0 && layout != 1)
        s = node_error(cx, n, D_ATTRIBUTE, "attribute 'layout' is %lld, expected 0 or 1", (long long)layout);
    const struct attr *acts = node_attr(n, "activations");
    const int64_t want = (n->op == OP_LSTM  ? 3
                          : n->op == OP_GRU ? 2
                                            : 1) *
                         (infer_attr_is(cx, n, "direction", "bidirectional") ? 2 : 1);
    if (s == NPUC_OK && acts && acts->len && acts->len != want)
        s = node_error(cx, n, D_ATTRIBUTE, "attribute 'activations' has %lld elements, expected %lld",
                       (long long)acts->len, (long long)want);
    return s;
}

/* Sizes that the inputs share. */
struct recurrent {
    expr steps, batch, input, hidden, directions;
};

static enum npuc_status check_operands(struct ir_ctx *cx, struct node *n, struct recurrent *z)
{
    static const signed char ranks[] = {3, 3, 3, 2, 1, 3, 3, 2};
    const bool batch_first = node_attr_int(n, "layout", 0) != 0;
    struct expr_pool *p = &cx->exprs;
    enum npuc_status s = NPUC_OK;
    for (int i = 0; i < n->n_in && s == NPUC_OK; i++) {
        s = rank_is(cx, n, i, ranks[i]);
        if (s == NPUC_OK && infer_has(n, i) && i != 4)
            s = infer_same_dtype(cx, n, 0, i);
        if (s == NPUC_OK && infer_has(n, i) && i != 0 && i != 4)
            s = dim_is(cx, n, i, batch_first && (i == 5 || i == 6) ? 1 : 0, &z->directions, "directions");
    }
    const struct {
        int input, axis;
        expr *size;
        const char *what;
    } same[] = {
        {0, batch_first, &z->steps, "steps"},  {0, !batch_first, &z->batch, "batch"}, {4, 0, &z->batch, "batch"},
        {5, !batch_first, &z->batch, "batch"}, {6, !batch_first, &z->batch, "batch"}, {0, 2, &z->input, "input size"},
        {1, 2, &z->input, "input size"},       {2, 2, &z->hidden, "hidden size"},     {5, 2, &z->hidden, "hidden size"},
        {6, 2, &z->hidden, "hidden size"}};
    for (int k = 0; k < NPUC_ARRAY_LEN(same) && s == NPUC_OK; k++)
        if (infer_has(n, same[k].input))
            s = dim_is(cx, n, same[k].input, same[k].axis, same[k].size, same[k].what);
    if (s != NPUC_OK || !z->hidden)
        return s;
    expr all = expr_mul_const(p, z->hidden, gates_of(n)), both = expr_mul_const(p, all, 2);
    expr peep = expr_mul_const(p, z->hidden, 3);
    s = dim_is(cx, n, 1, 1, &all, "gates * hidden size");
    if (s == NPUC_OK)
        s = dim_is(cx, n, 2, 1, &all, "gates * hidden size");
    if (s == NPUC_OK && infer_has(n, 3))
        s = dim_is(cx, n, 3, 1, &both, "2 * gates * hidden size");
    return s == NPUC_OK && infer_has(n, 7) ? dim_is(cx, n, 7, 1, &peep, "3 * hidden size") : s;
}

static expr or_fresh(struct ir_ctx *cx, struct node *n, int out, int axis, expr e)
{
    return e ? e : infer_fresh(cx, n, out, axis);
}

static enum npuc_status recurrent_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_is_float(cx, n, 0);
    if (s == NPUC_OK && infer_has(n, 4))
        s = infer_dtype_is(cx, n, 4, DT_I32, DT_I64);
    if (s == NPUC_OK)
        s = recurrent_legal(cx, n);
    if (s != NPUC_OK)
        return s;
    const int64_t size = node_attr_int(n, "hidden_size", 0);
    struct recurrent z = {.directions =
                              expr_const(&cx->exprs, infer_attr_is(cx, n, "direction", "bidirectional") ? 2 : 1),
                          .hidden = size > 0 ? expr_const(&cx->exprs, size) : EXPR_INVALID};
    s = check_operands(cx, n, &z);
    const bool batch_first = node_attr_int(n, "layout", 0) != 0;
    for (int i = 0; i < n->n_out && s == NPUC_OK; i++) {
        const expr all[2][4] = {{z.steps, z.directions, z.batch, z.hidden}, {z.batch, z.steps, z.directions, z.hidden}};
        const expr last[2][3] = {{z.directions, z.batch, z.hidden}, {z.batch, z.directions, z.hidden}};
        struct shape out = {.rank = i == 0 ? 4 : 3};
        for (int k = 0; k < out.rank; k++)
            out.d[k] = or_fresh(cx, n, i, k, i == 0 ? all[batch_first][k] : last[batch_first][k]);
        s = infer_out(cx, n, i, infer_dtype(n, 0), &out);
    }
    return s;
}

/* Products of inputs and states with the weights at every step; about 40 operations per element of a gate. */
static void recurrent_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    cost_bytes(cx, n, symbols, c);
    const double width = cost_dim(cx, node_in(n, 0), -1, symbols),
                 rows = cost_count(cx, node_in(n, 0), symbols) / (width > 0 ? width : 1);
    c->macs = rows * (cost_count(cx, node_in(n, 1), symbols) + cost_count(cx, node_in(n, 2), symbols));
    c->alu = rows * 40 * gates_of(n) * cost_dim(cx, node_in(n, 2), -1, symbols);
}

/* ---- LinearAttention */

static enum npuc_status linear_attention_legal(struct ir_ctx *cx, struct node *n)
{
    const int64_t q = node_attr_int(n, "q_num_heads", 0), kv = node_attr_int(n, "kv_num_heads", 0),
                  window = node_attr_int(n, "state_window", 0);
    if (q < 1 || kv < 1 || q > INT32_MAX || kv > INT32_MAX || (q % kv && kv % q))
        return node_error(cx, n, D_ATTRIBUTE, "q_num_heads is %lld and kv_num_heads %lld, one must divide the other",
                          (long long)q, (long long)kv);
    if (window < 0 || window > 8)
        return node_error(cx, n, D_ATTRIBUTE, "attribute 'state_window' is %lld, expected 0 to 8", (long long)window);
    const enum npuc_status s = infer_attr_in(cx, n, "update_rule", "linear gated delta gated_delta");
    if (s != NPUC_OK)
        return s;
    const bool gated =
                   infer_attr_is(cx, n, "update_rule", "gated") || infer_attr_is(cx, n, "update_rule", "gated_delta"),
               delta =
                   infer_attr_is(cx, n, "update_rule", "delta") || infer_attr_is(cx, n, "update_rule", "gated_delta");
    if (gated == infer_has(n, 4) && delta == infer_has(n, 5))
        return NPUC_OK;
    return node_error(cx, n, D_ARITY, "update_rule '%s' needs %s decay (input 4) and %s beta (input 5)",
                      str_text(&cx->strings, node_attr_str(n, "update_rule", 0)), gated ? "a" : "no",
                      delta ? "a" : "no");
}

static enum npuc_status linear_attention_infer(struct ir_ctx *cx, struct node *n)
{
    const int64_t window = node_attr_int(n, "state_window", 0), q = node_attr_int(n, "q_num_heads", 1),
                  kv = node_attr_int(n, "kv_num_heads", 1);
    struct expr_pool *p = &cx->exprs;
    expr batch = EXPR_INVALID, tokens = EXPR_INVALID;
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = linear_attention_legal(cx, n);
    for (int i = 0; i < n->n_in && s == NPUC_OK; i++) {
        if (!infer_has(n, i))
            continue;
        s = infer_is_float(cx, n, i);
        if (s == NPUC_OK)
            s = rank_is(cx, n, i, i != 3 ? 3 : window > 0 ? 5 : 4);
        if (s == NPUC_OK && i != 3)
            s = dim_is(cx, n, i, 0, &batch, "batch");
        if (s == NPUC_OK && i != 3)
            s = dim_is(cx, n, i, 1, &tokens, "tokens");
    }
    if (s != NPUC_OK)
        return s;
    const struct shape x = infer_shape(n, 0), v = infer_shape(n, 2);
    const expr dk = x.rank == 3 ? expr_floordiv(p, x.d[2], expr_const(p, q)) : EXPR_INVALID,
               dv = v.rank == 3 ? expr_floordiv(p, v.d[2], expr_const(p, kv)) : EXPR_INVALID;
    const struct shape y = {.rank = 3,
                            .d = {or_fresh(cx, n, 0, 0, batch), or_fresh(cx, n, 0, 1, tokens),
                                  dv ? expr_mul_const(p, dv, q > kv ? q : kv) : infer_fresh(cx, n, 0, 2)}};
    s = infer_out(cx, n, 0, infer_dtype(n, 0), &y);
    if (s != NPUC_OK || !infer_wants(n, 1))
        return s;
    struct shape state = {.rank = 0};
    if (window > 0)
        state.d[state.rank++] = expr_const(p, window);
    const expr dims[4] = {batch, expr_const(p, kv), dk, dv};
    for (int k = 0; k < 4; k++, state.rank++)
        state.d[state.rank] = or_fresh(cx, n, 1, state.rank, dims[k]);
    return infer_out(cx, n, 1, infer_dtype(n, infer_has(n, 3) ? 3 : 0), &state);
}

/* Two products and an update of the state for each token. */
static void linear_attention_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    cost_bytes(cx, n, symbols, c);
    const int64_t q = node_attr_int(n, "q_num_heads", 1);
    const double dk = cost_dim(cx, node_in(n, 0), -1, symbols) / (double)(q > 0 ? q : 1);
    c->macs = (cost_count(cx, node_in(n, 2), symbols) + cost_count(cx, &n->out[0], symbols)) * dk;
    c->alu = 4 * cost_count(cx, node_in(n, 2), symbols) * dk;
}

/* ---- CausalConvWithState */

static enum npuc_status causal_conv_legal(struct ir_ctx *cx, struct node *n)
{
    const int64_t dilation = node_attr_int(n, "dilation", 1), ndim = node_attr_int(n, "ndim", 1),
                  window = node_attr_int(n, "state_window", 0);
    const bool last = node_attr_int(n, "channels_last", 0) != 0;
    if (dilation < 1 || dilation > INT32_MAX || window < 0 || window > 8 || ndim < 1 || ndim > 3 || (last && ndim > 1))
        return node_error(
            cx, n, D_ATTRIBUTE,
            "dilation %lld, state_window %lld (0 to 8), ndim %lld (1 to 3; 1 with channels_last) do not fit",
            (long long)dilation, (long long)window, (long long)ndim);
    return infer_attr_in(cx, n, "activation", "none silu swish");
}

static enum npuc_status causal_conv_infer(struct ir_ctx *cx, struct node *n)
{
    const int64_t ndim = node_attr_int(n, "ndim", 1), window = node_attr_int(n, "state_window", 0);
    const bool last = node_attr_int(n, "channels_last", 0) != 0;
    struct expr_pool *p = &cx->exprs;
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_is_float(cx, n, 0);
    for (int i = 1; i < n->n_in && s == NPUC_OK; i++)
        if (infer_has(n, i))
            s = infer_same_dtype(cx, n, 0, i);
    if (s == NPUC_OK)
        s = causal_conv_legal(cx, n);
    if (s == NPUC_OK)
        s = rank_is(cx, n, 1, (int)ndim + 2);
    if (s == NPUC_OK)
        s = rank_is(cx, n, 2, 1);
    const struct shape x = infer_shape(n, 0), w = infer_shape(n, 1);
    if (s == NPUC_OK && x.rank >= 0 && (last ? x.rank < 3 : x.rank != ndim + 2))
        s = infer_rank_error(cx, n, 0, "batch, channels and ndim further axes");
    if (s == NPUC_OK && w.rank >= 0 && x.rank >= 0 && !last) {
        expr channels = x.d[1];
        s = dim_is(cx, n, 1, 0, &channels, "channels");
    }
    if (s == NPUC_OK)
        s = infer_out_like(cx, n, 0, 0);
    if (s != NPUC_OK || !infer_wants(n, 1))
        return s;
    if (x.rank < 0)
        return infer_out_unknown(cx, n, 1, infer_dtype(n, 0));
    struct shape state = {.rank = 0};
    if (window > 0)
        state.d[state.rank++] = expr_const(p, window);
    const int axis = last ? 1 : x.rank - 1;
    for (int i = 0; i < x.rank; i++, state.rank++)
        state.d[state.rank] = i != axis     ? x.d[i]
                              : w.rank >= 0 ? expr_mul_const(p, expr_sub(p, w.d[w.rank - 1], expr_const(p, 1)),
                                                             node_attr_int(n, "dilation", 1))
                                            : infer_fresh(cx, n, 1, state.rank);
    return infer_out(cx, n, 1, infer_dtype(n, 0), &state);
}

static void causal_conv_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    cost_bytes(cx, n, symbols, c);
    const double channels = cost_dim(cx, node_in(n, 1), 0, symbols);
    c->macs =
        cost_count(cx, node_in(n, 0), symbols) * cost_count(cx, node_in(n, 1), symbols) / (channels > 0 ? channels : 1);
}

#include "ir/ops/rows.h"

#include "ir/ops/recurrent.def"
