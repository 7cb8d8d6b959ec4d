/* Old forms of signal and recurrent operators, batch statistics, com.microsoft's linear attention, FlexAttention. */
#include <math.h>
#include <string.h>

#include "frontend/expand.h"

/* Before opset 20 the axis was an attribute. */
enum npuc_status rule_old_dft(struct import *im, struct onode *n)
{
    const int64_t axis = onode_int(im, n, "axis", 1);
    onode_drop(im, n, "axis");
    onode_set_in(im, n, 2, x_int(&n->b, axis));
    return NPUC_OK;
}

/* The first opset could leave out the first output, which is optional in any case. */
enum npuc_status rule_old_recurrent(struct import *im, struct onode *n)
{
    onode_drop(im, n, "output_sequence");
    return NPUC_OK;
}

/* Outside of training it is its input, with a mask that keeps everything. */
enum npuc_status rule_dropout(struct import *im, struct onode *n)
{
    const struct value *training = onode_in(n, 2);
    double flag;
    if (!onode_in(n, 0) || n->in[0]->type->kind != TYPE_TENSOR || n->in[0]->type->rank < 0)
        return NPUC_OK;
    if (training && (!value_const_f64(training, 0, &flag) || flag != 0))
        return NPUC_OK;
    if (onode_wants(n, 1)) {
        const struct type *t = n->in[0]->type;
        const bool kept = true;
        struct value *mask = x_expand(&n->b, ir_const(&n->b, DT_BOOL, 0, NULL, &kept, 1), t->rank, t->dims);
        if (!mask)
            return onode_done(im, n, NULL);
        onode_bind(im, n, 1, mask);
    }
    return onode_done(im, n, n->in[0]);
}

/* ---- BatchNormalization with the statistics of the batch */

/* v [C] as [C, 1, ..] against x. */
static struct value *per_channel(struct builder *b, struct value *v, const struct value *x)
{
    const int64_t axes[IR_MAX_RANK] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return x->type->rank > 2 ? x_unsqueeze(b, v, x->type->rank - 2, axes) : v;
}
/* Mean over all axes but the channels: [C] */
static struct value *channel_mean(struct builder *b, struct value *x)
{
    int64_t axes[IR_MAX_RANK];
    int n = 0;
    for (int i = 0; x && i < x->type->rank; i++)
        if (i != 1)
            axes[n++] = i;
    struct node *node = x ? x_node(b, OP_ReduceMean, 2, 2, (struct value *[]){x, ir_const_i64(b, axes, n)}, 1) : NULL;
    if (node)
        ir_set_int(node, "keepdims", 0);
    return x_out(node);
}

/* y by the batch's mean and variance; outputs 1 and 2: old * momentum + batch's * (1 - momentum). */
enum npuc_status rule_batch_norm(struct import *im, struct onode *n)
{
    if (!onode_int(im, n, "training_mode", 0))
        return NPUC_OK;
    enum npuc_status s = onode_needs(im, n, 5);
    if (s == NPUC_OK)
        s = onode_rank(im, n, 0, 2, IR_MAX_RANK - 1);
    if (s != NPUC_OK)
        return s;
    struct builder *b = &n->b;
    const enum dtype t = n->in[0]->type->dtype, wide = t == DT_F64 ? DT_F64 : DT_F32;
    const double momentum = (double)onode_float(im, n, "momentum", 0.9f);
    struct value *x = x_cast(b, n->in[0], wide), *stat[2];
    stat[0] = channel_mean(b, x);
    struct value *d = stat[0] ? x_op2(b, OP_Sub, x, per_channel(b, stat[0], x)) : NULL;
    stat[1] = channel_mean(b, x_op2(b, OP_Mul, d, d));
    struct value *root = x_op1(b, OP_Sqrt, x_plus(b, stat[1], (double)onode_float(im, n, "epsilon", 1e-5f)));
    struct value *y = root ? x_op2(b, OP_Div, d, per_channel(b, root, x)) : NULL;
    y = y ? x_op2(b, OP_Mul, y, per_channel(b, x_cast(b, n->in[1], wide), x)) : NULL;
    y = y ? x_op2(b, OP_Add, y, per_channel(b, x_cast(b, n->in[2], wide), x)) : NULL;
    for (int i = 0; i < 2 && y; i++) {
        struct value *old = n->in[3 + i];
        struct value *v =
            x_op2(b, OP_Add, x_scaled(b, x_cast(b, old, wide), momentum), x_scaled(b, stat[i], 1 - momentum));
        if (!v)
            return onode_done(im, n, NULL);
        onode_bind(im, n, 1 + i, x_cast(b, v, old->type->dtype));
    }
    return onode_done(im, n, x_cast(b, y, t));
}

/* ---- com.microsoft: what its linear attention has beside ai.onnx */

enum npuc_status rule_ms_linear_attention(struct import *im, struct onode *n)
{
    onode_rename(im, n, "LinearAttention");
    return NPUC_OK;
}

/* Drops an attribute that holds its default; another value is refused. */
static enum npuc_status only_default(struct import *im, struct onode *n, const char *name, int64_t usual)
{
    const int64_t v = onode_int(im, n, name, usual);
    onode_drop(im, n, name);
    return v == usual ? NPUC_OK
                      : onode_fail(im, n, D_UNSUPPORTED, "%s is %lld; only %lld is supported", name, (long long)v,
                                   (long long)usual);
}

enum npuc_status rule_ms_causal_conv(struct import *im, struct onode *n)
{
    static const struct {
        const char *name;
        int64_t usual;
    } extended[] = {{"state_update_capacity", 0},
                    {"state_channels_last", -1},
                    {"state_length", 0},
                    {"input_channel_offset", 0},
                    {"input_channels", 0}};
    enum npuc_status s = NPUC_OK;
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(extended) && s == NPUC_OK; i++)
        s = only_default(im, n, extended[i].name, extended[i].usual);
    onode_rename(im, n, "CausalConvWithState");
    return s;
}

/* decay = decay_scale * Softplus(a + dt_bias), beta = Sigmoid(b), in float. */
enum npuc_status rule_linear_attention_gate(struct import *im, struct onode *n)
{
    const enum npuc_status s = onode_needs(im, n, 3);
    struct builder *b = &n->b;
    if (s != NPUC_OK)
        return s;
    const enum dtype t = n->in[0]->type->dtype;
    struct value *g = x_op1(b, OP_Softplus, x_op2(b, OP_Add, x_cast(b, n->in[0], DT_F32), x_cast(b, n->in[1], DT_F32)));
    g = x_cast(b, x_op2(b, OP_Mul, g, x_cast(b, n->in[2], DT_F32)), t);
    if (g && onode_wants(n, 1)) {
        struct value *rate = onode_in(n, 3);
        if (!rate)
            return onode_fail(im, n, D_ARITY, "output 1 (beta) needs input 3 (b)");
        rate = x_cast(b, x_op1(b, OP_Sigmoid, x_cast(b, rate, DT_F32)), t);
        if (!rate)
            return onode_done(im, n, NULL);
        onode_bind(im, n, 1, rate);
    }
    return onode_done(im, n, g);
}

/* RMS norm of every C elements, times scale, times the activated gate; all in float. */
enum npuc_status rule_gated_rms_norm(struct import *im, struct onode *n)
{
    enum npuc_status s = onode_needs(im, n, 3);
    if (s == NPUC_OK)
        s = onode_rank(im, n, 0, 1, IR_MAX_RANK - 1);
    if (s == NPUC_OK)
        s = onode_rank(im, n, 1, 1, 1);
    if (s != NPUC_OK)
        return s;
    struct builder *b = &n->b;
    const char *act = onode_str(im, n, "activation", "silu");
    const bool plain = strcmp(act, "sigmoid") == 0;
    if (!plain && strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0)
        return onode_bad_attr(im, n, "activation", "it is '%.40s', expected silu, swish or sigmoid", act);
    struct value *x = n->in[0];
    const struct type *t = x->type;
    const expr c = x_dim(n->in[1], 0);
    expr dims[IR_MAX_RANK];
    memcpy(dims, t->dims, sizeof *dims * (size_t)t->rank);
    dims[t->rank - 1] = expr_floordiv(&im->cx->exprs, dims[t->rank - 1], c);
    dims[t->rank] = c;
    struct value *rows = x_reshape(b, x_cast(b, x, DT_F32), t->rank + 1, dims);
    struct value *y =
        x_norm(b, OP_RMSNormalization, rows, x_cast(b, n->in[1], DT_F32), NULL, onode_float(im, n, "epsilon", 1e-5f));
    y = x_reshape(b, y, t->rank, t->dims);
    struct value *gate = x_op1(b, plain ? OP_Sigmoid : OP_Swish, x_cast(b, n->in[2], DT_F32));
    return onode_done(im, n, x_cast(b, x_op2(b, OP_Mul, y, gate), t->dtype));
}

/* ---- GatedDeltaNet: token-major LinearAttention with gates and norms inside */

struct delta_net {
    struct value *q, *k, *v; /* [B, T, heads, size], float */
    struct value *decay, *beta;
    expr batch, tokens;
    int64_t q_heads, heads, dk, dv; /* heads: of values */
};

static bool known(struct import *im, expr e, int64_t *v)
{
    return expr_is_const(&im->cx->exprs, e, v) && *v > 0;
}

/* [N, ..] or [B, S, ..] as [B, T, a, b] */
static struct value *tokens_first(struct onode *n, const struct delta_net *d, struct value *x, int64_t a, int64_t c)
{
    const expr dims[4] = {d->batch, d->tokens, x_num(&n->b, a), x_num(&n->b, c)};
    return x_reshape(&n->b, x_cast(&n->b, x, DT_F32), 4, dims);
}

/* Query, key and value as they are given, or cut from the packed query. */
static enum npuc_status delta_operands(struct import *im, struct onode *n, struct delta_net *d)
{
    struct builder *b = &n->b;
    const struct value *state = onode_in(n, 6), *query = n->in[0];
    const bool packed = !onode_in(n, 1), ranked = query->type->rank == (packed ? 3 : 4);
    int64_t width = 0;
    if (packed != !onode_in(n, 2) || (packed && !state) || (!ranked && !state))
        return onode_fail(im, n, D_ARITY,
                          "key and value go together; without them or a batch axis initial_state is needed");
    const struct value *v = onode_in(n, 2);
    bool sizes = state ? known(im, state->type->dims[1], &d->heads) && known(im, state->type->dims[2], &d->dv) &&
                             known(im, state->type->dims[3], &d->dk)
                       : known(im, x_dim(v, -2), &d->heads) && known(im, x_dim(v, -1), &d->dv) &&
                             known(im, x_dim(query, -1), &d->dk);
    sizes = sizes && known(im, x_dim(query, packed ? -1 : -2), &width);
    d->q_heads = packed ? (width - d->heads * d->dv) / (sizes ? 2 * d->dk : 1) : width;
    if (!sizes || d->q_heads < 1 || d->heads % d->q_heads)
        return onode_fail(im, n, D_SHAPE_MISMATCH, "numbers of heads or their sizes are not known or do not fit");
    d->batch = ranked ? x_dim(query, 0) : state->type->dims[0];
    d->tokens = ranked ? x_dim(query, 1) : expr_floordiv(&im->cx->exprs, x_dim(query, 0), d->batch);
    if (!packed) {
        d->q = tokens_first(n, d, n->in[0], d->q_heads, d->dk);
        d->k = tokens_first(n, d, n->in[1], d->q_heads, d->dk);
        d->v = tokens_first(n, d, n->in[2], d->heads, d->dv);
        return NPUC_OK;
    }
    const int last = query->type->rank - 1;
    const expr one = x_num(b, d->q_heads * d->dk), two = x_num(b, 2 * d->q_heads * d->dk), end = x_num(b, width);
    d->q = tokens_first(n, d, x_slice(b, n->in[0], last, x_num(b, 0), one), d->q_heads, d->dk);
    d->k = tokens_first(n, d, x_slice(b, n->in[0], last, one, two), d->q_heads, d->dk);
    d->v = tokens_first(n, d, x_slice(b, n->in[0], last, two, end), d->heads, d->dv);
    return NPUC_OK;
}

/* x / sqrt(sum(x x) + 1e-6) per head */
static struct value *unit_length(struct builder *b, struct value *x)
{
    struct value *sum = x_reduce(b, OP_ReduceSum, x_op2(b, OP_Mul, x, x), -1, true);
    return x_op2(b, OP_Mul, x, x_op1(b, OP_Rsqrt, x_plus(b, sum, 1e-6)));
}

/* Per head [H] against [.., H, width]: [H, 1]; per key dimension [H, dk] as it is. */
static struct value *gate_vector(struct import *im, struct onode *n, const struct delta_net *d, int i)
{
    struct value *v = onode_in(n, i);
    if (!v)
        return NULL;
    const int64_t count = type_const_count(im->cx, v->type);
    const expr dims[2] = {x_num(&n->b, d->heads), x_num(&n->b, count == d->heads ? 1 : d->dk)};
    return x_reshape(&n->b, x_cast(&n->b, v, DT_F32), 2, dims);
}

static enum npuc_status delta_gates(struct import *im, struct onode *n, struct delta_net *d)
{
    struct builder *b = &n->b;
    const char *gate = onode_str(im, n, "gate_activation", "none");
    struct value *decay = onode_in(n, 4), *beta = onode_in(n, 5);
    if (decay) {
        const bool wide = decay->type->rank == n->in[0]->type->rank + (onode_in(n, 1) ? 0 : 1);
        const int64_t width = wide ? d->dk : 1;
        struct value *x = tokens_first(n, d, decay, d->heads, width);
        struct value *log = gate_vector(im, n, d, 7), *bias = gate_vector(im, n, d, 8);
        const bool soft = strcmp(gate, "softplus") == 0 || strcmp(gate, "qwen") == 0,
                   bounded = strcmp(gate, "sigmoid") == 0 || strcmp(gate, "kda") == 0;
        if (!soft && !bounded && strcmp(gate, "none") != 0)
            return onode_bad_attr(im, n, "gate_activation", "it is '%.40s'", gate);
        if ((soft || bounded) && !log)
            return onode_fail(im, n, D_ARITY, "gate_activation '%s' needs a_log (input 7)", gate);
        if ((soft || bounded) && bias)
            x = x_op2(b, OP_Add, x, bias);
        if (soft)
            x = x_op2(b, OP_Mul, x_op1(b, OP_Neg, x_op1(b, OP_Exp, log)), x_op1(b, OP_Softplus, x));
        if (bounded)
            x = x_scaled(b, x_op1(b, OP_Sigmoid, x_op2(b, OP_Mul, x_op1(b, OP_Exp, log), x)),
                         (double)onode_float(im, n, "gate_lower_bound", -5.0f));
        const expr flat[3] = {d->batch, d->tokens, x_num(b, d->heads * (x && x->type->rank == 4 ? width : 1))};
        d->decay = x_reshape(b, x, 3, flat);
    }
    if (beta) {
        const expr flat[3] = {d->batch, d->tokens, x_num(b, d->heads)};
        struct value *x = x_cast(b, beta, DT_F32);
        if (strcmp(onode_str(im, n, "beta_activation", "none"), "sigmoid") == 0)
            x = x_op1(b, OP_Sigmoid, x);
        d->beta = x_reshape(b, x, 3, flat);
    }
    return NPUC_OK;
}

/* Keys of the query heads for every value head: [B, T, heads * dk] */
static struct value *shared_keys(struct builder *b, const struct delta_net *d)
{
    const int64_t times = d->heads / d->q_heads, axis = 3;
    const expr spread[5] = {d->batch, d->tokens, x_num(b, d->q_heads), x_num(b, times), x_num(b, d->dk)},
               flat[3] = {d->batch, d->tokens, x_num(b, d->heads * d->dk)};
    struct value *k = times > 1 ? x_expand(b, x_unsqueeze(b, d->k, 1, &axis), 5, spread) : d->k;
    return x_reshape(b, k, 3, flat);
}

static enum npuc_status delta_read(struct import *im, struct onode *n, struct delta_net *d)
{
    enum npuc_status s = onode_needs(im, n, 1);
    if (s == NPUC_OK && onode_in(n, 3))
        s = onode_fail(im, n, D_UNSUPPORTED,
                       "cu_seqlens (requests of different lengths in one batch) is not supported; "
                       "export with uniform packing");
    if (s == NPUC_OK)
        s = only_default(im, n, "state_update_capacity", 0);
    if (s == NPUC_OK)
        s = onode_rank(im, n, 0, 2, 4);
    if (s == NPUC_OK)
        s = onode_rank(im, n, 6, 4, 4);
    if (s == NPUC_OK)
        s = delta_operands(im, n, d);
    return s == NPUC_OK ? delta_gates(im, n, d) : s;
}

/* Results y and the state; NULL after a report. */
static struct node *delta_attention(struct import *im, struct onode *n, const struct delta_net *d)
{
    struct builder *b = &n->b;
    const bool unit = onode_int(im, n, "qk_l2_norm", 0) != 0;
    struct delta_net of = *d;
    of.q = unit ? unit_length(b, d->q) : d->q;
    of.k = unit ? unit_length(b, d->k) : d->k;
    const expr q_dims[3] = {d->batch, d->tokens, x_num(b, d->q_heads * d->dk)},
               v_dims[3] = {d->batch, d->tokens, x_num(b, d->heads * d->dv)};
    struct value *state = onode_in(n, 6);
    struct value *in[6] = {x_reshape(b, of.q, 3, q_dims),
                           shared_keys(b, &of),
                           x_reshape(b, d->v, 3, v_dims),
                           state ? x_swap(b, x_cast(b, state, DT_F32)) : NULL,
                           d->decay,
                           d->beta};
    struct node *node = x_node(b, OP_LinearAttention, 3, 6, in, 2);
    if (!node)
        return NULL;
    ir_set_int(node, "q_num_heads", d->q_heads);
    ir_set_int(node, "kv_num_heads", d->heads);
    ir_set_float(node, "scale", onode_float(im, n, "scale", 0));
    ir_set_str(node, "update_rule", onode_str(im, n, "update_rule", "gated_delta"));
    return x_out(node) ? node : NULL;
}

enum npuc_status rule_gated_delta_net(struct import *im, struct onode *n)
{
    struct builder *b = &n->b;
    struct delta_net d = {0};
    const enum npuc_status s = delta_read(im, n, &d);
    if (s != NPUC_OK)
        return s;
    struct node *node = delta_attention(im, n, &d);
    if (!node)
        return onode_done(im, n, NULL);
    onode_bind(im, n, 1, x_swap(b, &node->out[1]));
    expr dims[4];
    const struct type *q = n->in[0]->type;
    const int lead = q->rank - (onode_in(n, 1) ? 2 : 1);
    for (int i = 0; i < lead; i++)
        dims[i] = q->dims[i];
    dims[lead] = x_num(b, d.heads);
    dims[lead + 1] = x_num(b, d.dv);
    return onode_done(im, n, x_cast(b, x_reshape(b, &node->out[0], lead + 2, dims), q->dtype));
}

/* ---- FlexAttention (ai.onnx.preview): the bodies of its attributes stand between products and softmax */

static enum npuc_status modified(struct import *im, struct onode *n, const char *attr, struct value **v)
{
    const struct oattr *a = onode_attr(im, n, attr);
    if (!a || !*v)
        return NPUC_OK;
    if (!a->graph)
        return onode_bad_attr(im, n, attr, "it is no graph");
    const struct type *t = (*v)->type;
    const enum npuc_status s = graph_inline(im, n, a->graph, 1, (struct value *[]){*v}, 1, v);
    if (s != NPUC_OK)
        return s;
    if ((*v)->type->kind == TYPE_TENSOR && (*v)->type->dtype == t->dtype && (*v)->type->rank == t->rank)
        return NPUC_OK;
    return onode_bad_attr(im, n, attr, "its body gives %s, expected %s", type_text(im->cx, (*v)->type),
                          type_text(im->cx, t));
}

enum npuc_status rule_flex_attention(struct import *im, struct onode *n)
{
    enum npuc_status s = onode_needs(im, n, 3);
    for (int i = 0; i < 3 && s == NPUC_OK; i++)
        s = onode_rank(im, n, i, 4, 4);
    if (s != NPUC_OK)
        return s;
    struct builder *b = &n->b;
    struct expr_pool *p = &im->cx->exprs;
    struct value *q = n->in[0], *k = n->in[1], *v = n->in[2];
    const int64_t number = onode_int(im, n, "softmax_precision", 0);
    const enum dtype own = q->type->dtype, t = number ? dtype_from_onnx(number) : own == DT_F64 ? DT_F64 : DT_F32;
    int64_t head = 0;
    if (!dtype_is_float(t))
        return onode_bad_attr(im, n, "softmax_precision", "it is %lld, no float type", (long long)number);
    float scale = onode_float(im, n, "scale", 0);
    if (!onode_attr(im, n, "scale")) {
        if (!known(im, x_dim(q, 3), &head))
            return onode_fail(im, n, D_UNSUPPORTED, "the head size is not known and there is no scale");
        scale = 1.0f / sqrtf((float)head);
    }
    const expr heads = x_dim(k, 1), rows = expr_mul(p, expr_floordiv(p, x_dim(q, 1), heads), x_dim(q, 2));
    const expr grouped[4] = {x_dim(q, 0), heads, rows, x_dim(q, 3)},
               full[4] = {x_dim(q, 0), x_dim(q, 1), x_dim(q, 2), x_dim(k, 2)},
               packed[4] = {x_dim(q, 0), heads, rows, x_dim(k, 2)},
               out[4] = {x_dim(q, 0), x_dim(q, 1), x_dim(q, 2), x_dim(v, 3)};
    struct value *x = x_product(b, x_reshape(b, q, 4, grouped), k, true);
    x = x_scaled(b, x_cast(b, x_reshape(b, x, 4, full), t), (double)scale);
    s = modified(im, n, "score_mod", &x);
    if (s != NPUC_OK)
        return s;
    x = x_softmax(b, x, -1);
    s = modified(im, n, "prob_mod", &x);
    if (s != NPUC_OK)
        return s;
    x = x_product(b, x_reshape(b, x_cast(b, x, own), 4, packed), v, false);
    return onode_done(im, n, x_reshape(b, x, 4, out));
}
