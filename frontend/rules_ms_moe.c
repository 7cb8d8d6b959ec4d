/* MoE and QMoE: routing, then a row for each token and expert that it chose, multiplied by that expert's matrices
 * (GroupedMatMul; integer codes stay packed: GroupedMatMulNBits). */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "frontend/expand.h"

enum { FC1, FC2, FC3, PROJECTIONS };

struct projection {
    struct value *weight; /* [E, rows, columns], or codes */
    struct value *scale, *zero, *bias;
    int64_t rows, columns, bits, block; /* bits 0: the weight is of float values; block: codes per scale */
    bool quantised;
};
struct moe {
    struct import *im;
    struct onode *n;
    struct builder *b;
    int64_t experts, top;
    struct projection fc[PROJECTIONS];
    struct value *x;      /* [T, D] */
    struct value *logits; /* [T, E] */
    struct value *routes; /* [T, E]: values to be taken instead of the logits' softmax, or NULL */
    struct value *index;  /* [T, top]: the experts of a token */
    struct value *flat;   /* the same, [T * top] */
};

static bool known(const struct moe *m, const struct value *v, int axis, int64_t *size)
{
    return expr_is_const(&m->im->cx->exprs, x_dim(v, axis), size) && *size > 0;
}

/* ---- routing */

/* The weights of the best `top` logits [T, top]; m->index says which they are. As onnxruntime's CPU kernels do it: MoE
 * takes the softmax of all logits there, divided by its sum when normalize_routing_weights is set, which is the softmax
 * of the chosen ones; QMoE always takes the latter, or the given routes, which it divides by their sum when asked to.
 */
static struct value *top_weights(struct moe *m)
{
    struct builder *b = m->b;
    const bool normalise = onode_int(m->im, m->n, "normalize_routing_weights", 0) != 0;
    struct node *best = ir_new(b, OP_TopK, 2, (struct value *[]){m->logits, ir_const_i64(b, &m->top, 1)}, 2);
    struct value *value = x_out(best);
    if (!value)
        return NULL;
    m->index = &best->out[1];
    if (!m->routes && (m->fc[FC1].quantised || normalise))
        return x_softmax(b, value, 1);
    struct node *pick = x_node(b, OP_GatherElements, 2, 2,
                               (struct value *[]){m->routes ? m->routes : x_softmax(b, m->logits, 1), m->index}, 1);
    if (!pick)
        return NULL;
    ir_set_int(pick, "axis", 1);
    struct value *y = x_out(pick);
    if (!normalise)
        return y;
    struct value *sum = x_reduce(b, OP_ReduceSum, y, 1, true);
    return sum ? x_op2(b, OP_Div, y, x_op2(b, OP_Max, sum, ir_scalar_like(b, sum, 1e-30))) : NULL;
}

/* One choice of the sparse mixer: its weight [T, 1], from a softmax over the logits that are near the best of `left`;
 * *at its expert [T, 1]. After Phi-3.5-MoE with a jitter of 0.01. */
static struct value *mixer_choice(struct moe *m, struct value *left, struct value **at)
{
    struct builder *b = m->b;
    struct node *arg = ir_new(b, OP_ArgMax, 1, &left, 1);
    ir_set_int(arg, "axis", 1);
    *at = x_out(arg);
    struct value *best = x_reduce(b, OP_ReduceMax, left, 1, true);
    struct value *scale = x_op2(b, OP_Max, x_op1(b, OP_Abs, m->logits), best);
    struct value *gap = x_op2(b, OP_Div, x_op2(b, OP_Sub, best, m->logits), scale);
    if (!gap)
        return NULL;
    struct value *far = x_op2(b, OP_Greater, gap, ir_scalar_like(b, gap, 0.02));
    struct value *near = x_op3(b, OP_Where, far, ir_scalar_like(b, gap, -INFINITY), left);
    struct value *sum = x_reduce(b, OP_ReduceSum, x_op1(b, OP_Exp, x_op2(b, OP_Sub, near, best)), 1, true);
    return x_op1(b, OP_Reciprocal, sum);
}

static struct value *sparse_mixer(struct moe *m)
{
    struct builder *b = m->b;
    struct value *at[2], *first = mixer_choice(m, m->logits, &at[0]);
    struct value *taken = x_op2(b, OP_Equal, x_range(b, x_num(b, m->experts)), at[0]);
    struct value *left = taken ? x_op3(b, OP_Where, taken, ir_scalar_like(b, m->logits, -INFINITY), m->logits) : NULL;
    struct value *second = left ? mixer_choice(m, left, &at[1]) : NULL;
    if (!first || !second)
        return NULL;
    m->index = x_concat(b, 1, 2, at);
    return m->index ? x_concat(b, 1, 2, (struct value *[]){first, second}) : NULL;
}

/* ---- experts */

/* One value of a row for each of its blocks: [E, rows] to [E, rows, blocks]; what is there by block stays. */
static struct value *by_block(struct moe *m, const struct projection *p, struct value *v)
{
    const expr dims[3] = {x_num(m->b, m->experts), x_num(m->b, p->rows), x_num(m->b, p->columns / p->block)};
    const int64_t last[] = {2};
    return v && v->type->rank == 2 ? x_expand(m->b, x_unsqueeze(m->b, v, 1, last), 3, dims) : v;
}

/* Rows through the integer codes of the experts that they chose, in blocks of `block` columns. */
static struct value *packed(struct moe *m, const struct projection *p, struct value *x)
{
    struct builder *b = m->b;
    const int64_t blocks = p->columns / p->block;
    const expr codes[4] = {x_num(b, m->experts), x_num(b, p->rows), x_num(b, blocks), x_num(b, p->block * p->bits / 8)};
    struct value *zero = by_block(m, p, p->zero);
    if (zero && zero->type->dtype != DT_U8)
        zero = x_cast(b, zero, x->type->dtype);
    struct value *in[5] = {x, m->flat, x_reshape(b, p->weight, 4, codes),
                           x_cast(b, by_block(m, p, p->scale), x->type->dtype), zero};
    struct node *n = x_node(b, OP_GroupedMatMulNBits, p->zero ? 5 : 4, p->zero ? 5 : 4, in, 1);
    if (!n)
        return NULL;
    ir_set_int(n, "K", p->columns);
    ir_set_int(n, "N", p->rows);
    ir_set_int(n, "bits", p->bits);
    ir_set_int(n, "block_size", p->block);
    ir_set_int(n, "top", m->top);
    return x_out(n);
}

/* Rows through the matrices of the experts that they chose. */
static struct value *grouped(struct moe *m, const struct projection *p, struct value *x)
{
    struct builder *b = m->b;
    struct node *n =
        x_node(b, OP_GroupedMatMul, 3, 3, (struct value *[]){x, m->flat, x_cast(b, p->weight, x->type->dtype)}, 1);
    if (!n)
        return NULL;
    ir_set_int(n, "transB", 1);
    ir_set_int(n, "top", m->top);
    return x_out(n);
}

/* Rows through projection i of the experts that they chose. */
static struct value *project(struct moe *m, int i, struct value *x)
{
    const struct projection *p = &m->fc[i];
    if (!x)
        return NULL;
    struct value *y = p->bits ? packed(m, p, x) : grouped(m, p, x);
    return p->bias ? x_op2(m->b, OP_Add, y, x_gather(m->b, p->bias, m->flat, 0)) : y;
}

/* min(g, limit) * sigmoid(alpha g) * (clip(l, limit) + beta) */
static struct value *swiglu(struct moe *m, struct value *g, struct value *l)
{
    struct builder *b = m->b;
    const float limit = onode_float(m->im, m->n, "swiglu_limit", INFINITY);
    const float alpha[3] = {onode_float(m->im, m->n, "activation_alpha", 1.0f)};
    const float beta = onode_float(m->im, m->n, "activation_beta", 0.0f);
    if (!g || !l)
        return NULL;
    if (limit < INFINITY) {
        g = x_op2(b, OP_Min, g, ir_scalar_like(b, g, (double)limit));
        l = x_op3(b, OP_Clip, l, ir_scalar_like(b, l, -(double)limit), ir_scalar_like(b, l, (double)limit));
    }
    struct node *swish = ir_new(b, OP_Swish, 1, &g, 1);
    ir_set_float(swish, "alpha", alpha[0]);
    return x_op2(b, OP_Mul, x_out(swish), beta == 0.0f ? l : x_plus(b, l, (double)beta));
}

static struct value *hidden(struct moe *m, struct value *x)
{
    const char *name = onode_str(m->im, m->n, "activation_type", "relu");
    const int64_t fusion = onode_int(m->im, m->n, "swiglu_fusion", 0);
    const float none[3] = {NAN, NAN, NAN};
    struct builder *b = m->b;
    struct value *h = project(m, FC1, x), *gate = h, *up = NULL;
    const bool glu = strcmp(name, "swiglu") == 0 || strcmp(name, "geglu") == 0;
    if (!h)
        return NULL;
    const int last = h->type->rank - 1;
    if (m->fc[FC3].weight) {
        up = project(m, FC3, x);
    } else if (glu && fusion == 1) {
        gate = x_every(b, h, last, 0, 2);
        up = x_every(b, h, last, 1, 2);
    } else if (glu) {
        const int64_t half = m->fc[FC1].rows / 2;
        gate = x_slice(b, h, last, x_num(b, 0), x_num(b, half));
        up = x_slice(b, h, last, x_num(b, half), x_num(b, 2 * half));
    }
    if (strcmp(name, "swiglu") == 0)
        return swiglu(m, gate, up);
    const bool gelu =
        strcmp(name, "gelu") == 0 || strcmp(name, "geglu") == 0; /* the tanh form, as onnxruntime's kernels */
    gate = x_activation(m->im, m->n, gelu ? "FastGelu" : name, none, gate);
    return m->fc[FC3].weight || glu ? x_op2(b, OP_Mul, gate, up) : gate;
}

/* A row for each token and expert, weighted and summed over the experts of a token. */
static struct value *chosen_experts(struct moe *m, struct value *weights)
{
    struct builder *b = m->b;
    struct expr_pool *x = &m->im->cx->exprs;
    const int64_t middle[] = {1}, last[] = {2};
    const expr tokens = x_dim(m->x, 0), columns = x_dim(m->x, 1), top = x_num(b, m->top),
               rows = expr_mul(x, tokens, top);
    const expr wide[3] = {tokens, top, columns}, flat[2] = {rows, columns};
    m->flat = x_reshape(b, m->index, 1, &rows);
    struct value *each = x_reshape(b, x_expand(b, x_unsqueeze(b, m->x, 1, middle), 3, wide), 2, flat);
    struct value *y = project(m, FC2, hidden(m, each));
    if (!y)
        return NULL;
    const expr out[3] = {tokens, top, x_dim(y, 1)};
    struct value *w = x_cast(b, x_unsqueeze(b, weights, 1, last), y->type->dtype);
    return x_reduce(b, OP_ReduceSum, x_op2(b, OP_Mul, x_reshape(b, y, 3, out), w), 1, false);
}

static enum npuc_status moe_begin(struct moe *m)
{
    struct import *im = m->im;
    struct onode *n = m->n;
    const char *act = onode_str(im, n, "activation_type", "relu");
    static const char *const names[] = {"relu", "gelu", "silu", "swiglu", "geglu", "identity"};
    bool found = false;
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(names); i++)
        found |= strcmp(act, names[i]) == 0;
    enum npuc_status s = onode_needs(im, n, 3);
    if (s == NPUC_OK && !found)
        s = onode_fail(im, n, D_UNSUPPORTED, "activation_type '%.40s' is not supported", act);
    if (s == NPUC_OK)
        s = onode_rank(im, n, 0, 2, 3);
    if (s == NPUC_OK)
        s = onode_rank(im, n, 1, 2, 3);
    if (s == NPUC_OK)
        s = onode_rank(im, n, 2, 3, 3);
    if (s == NPUC_OK && onode_int(im, n, "swiglu_limit_after_activation", 0) != 0)
        s = onode_bad_attr(im, n, "swiglu_limit_after_activation", "only 0 is supported");
    if (s == NPUC_OK && (!known(m, n->in[1], -1, &m->experts) || m->experts > 65536))
        s = onode_fail(im, n, D_UNSUPPORTED, "the number of experts is unknown: input 1 is %s",
                       type_text(im->cx, n->in[1]->type));
    return s == NPUC_OK ? onode_int_in(im, n, "k", 1, 1, m->experts, &m->top) : s;
}

/* Input i as rows of its last dim. */
static struct value *as_rows(struct moe *m, int i)
{
    struct value *v = m->n->in[i];
    if (v->type->rank == 2)
        return v;
    const expr rows[2] = {expr_mul(&m->im->cx->exprs, x_dim(v, 0), x_dim(v, 1)), x_dim(v, 2)};
    return x_reshape(m->b, v, 2, rows);
}

static enum npuc_status moe_end(struct moe *m)
{
    const struct type *t = m->n->in[0]->type;
    m->x = as_rows(m, 0);
    m->logits = x_cast(m->b, as_rows(m, 1), DT_F32);
    if (!m->x || !m->logits)
        return onode_done(m->im, m->n, NULL);
    const bool mixer = onode_int(m->im, m->n, "use_sparse_mixer", 0) != 0;
    if (mixer && m->top != 2)
        return onode_bad_attr(m->im, m->n, "use_sparse_mixer", "it chooses 2 experts, but k is %" PRId64, m->top);
    struct value *weights = mixer ? sparse_mixer(m) : top_weights(m);
    struct value *y = weights ? chosen_experts(m, weights) : NULL;
    return onode_done(m->im, m->n, x_reshape(m->b, y, t->rank, t->dims));
}

/* Sizes of a projection of float values [E, rows, columns]. */
static enum npuc_status float_sizes(struct moe *m, int i)
{
    struct projection *p = &m->fc[i];
    int64_t experts;
    if (!p->weight)
        return NPUC_OK;
    const struct type *t = p->weight->type;
    if (t->rank == 3 && known(m, p->weight, 0, &experts) && experts == m->experts && known(m, p->weight, 1, &p->rows) &&
        known(m, p->weight, 2, &p->columns))
        return NPUC_OK;
    return onode_fail(m->im, m->n, D_SHAPE_MISMATCH, "weights are %s, expected known sizes for %" PRId64 " experts",
                      type_text(m->im->cx, t), m->experts);
}

/* input, router_probs, then weight and bias of fc1, fc2, fc3 */
enum npuc_status rule_moe(struct import *im, struct onode *n)
{
    struct moe m = {.im = im, .n = n, .b = &n->b};
    enum npuc_status s = moe_begin(&m);
    if (s == NPUC_OK && !onode_in(n, 4))
        s = onode_fail(im, n, D_ARITY, "input 4 (fc2_experts_weights) is missing");
    for (int i = 0; i < PROJECTIONS && s == NPUC_OK; i++) {
        m.fc[i] = (struct projection){.weight = onode_in(n, 2 + 2 * i), .bias = onode_in(n, 3 + 2 * i)};
        s = float_sizes(&m, i);
    }
    return s == NPUC_OK ? moe_end(&m) : s;
}

/* ---- QMoE */

enum qmoe_input { ZERO1 = 11, ROUTES = 14, GLOBAL1 = 15, ACT1 = 17 };

/* Row-wise zero points are packed along the rows: [E, rows * bits / 8] to a value for each row. */
static struct value *row_zeros(struct moe *m, struct value *zero, const struct projection *p)
{
    struct builder *b = m->b;
    if (p->bits == 8)
        return zero;
    const int64_t last[] = {2}, count = 8 / p->bits;
    uint8_t shift[8], mask = (uint8_t)((1 << p->bits) - 1);
    for (int64_t i = 0; i < count; i++)
        shift[i] = (uint8_t)(i * p->bits);
    struct value *codes =
        x_op2(b, OP_BitShiftRight, x_unsqueeze(b, zero, 1, last), ir_const(b, DT_U8, 1, &count, shift, count));
    codes = x_op2(b, OP_BitwiseAnd, codes, ir_const(b, DT_U8, 0, NULL, &mask, 1));
    const expr wide[2] = {x_num(b, m->experts), expr_mul_const(&m->im->cx->exprs, x_dim(zero, 1), count)};
    codes = x_slice(b, x_reshape(b, codes, 2, wide), 1, x_num(b, 0), x_num(b, p->rows));
    return x_cast(b, codes, DT_F32);
}

/* Integer codes: sizes, bits, and a block that MatMulNBits takes. */
static enum npuc_status integer_codes(struct moe *m, int i, int64_t block)
{
    static const char *const own_bits[] = {"fc1_expert_weight_bits", "fc2_expert_weight_bits",
                                           "fc3_expert_weight_bits"};
    struct projection *p = &m->fc[i];
    struct import *im = m->im;
    enum npuc_status s = float_sizes(m, i);
    if (s != NPUC_OK || !p->weight)
        return s;
    p->bits = onode_int(im, m->n, own_bits[i], onode_int(im, m->n, "expert_weight_bits", 4));
    if (p->bits != 2 && p->bits != 4 && p->bits != 8)
        return onode_fail(im, m->n, D_UNSUPPORTED, "expert weights of %" PRId64 " bits, expected 2, 4 or 8", p->bits);
    p->columns *= 8 / p->bits;
    const bool by_row = !p->scale || p->scale->type->rank == 2;
    if (!p->scale || (by_row ? 2 : 3) != p->scale->type->rank)
        return onode_fail(im, m->n, D_ARITY, "the scales of projection %d are missing or not of 2 or 3 dims", i + 1);
    p->block = by_row ? p->columns & -p->columns : block;
    p->block = p->block > 4096 ? 4096 : p->block;
    if (p->block < 16 || p->columns % p->block)
        return onode_fail(im, m->n, D_UNSUPPORTED, "blocks of %" PRId64 " in rows of %" PRId64 " codes", p->block,
                          p->columns);
    if (p->zero && by_row)
        p->zero = row_zeros(m, p->zero, p);
    return NPUC_OK;
}

/* Rows and columns repeated by a block each: scale [E, r, c] to [E, rows, columns]. */
static struct value *square_scale(struct moe *m, struct value *scale, int64_t tall, int64_t wide,
                                  const struct projection *p)
{
    struct builder *b = m->b;
    const int64_t axes[] = {2, 4};
    if (!scale || scale->type->rank != 3)
        return NULL;
    const struct type *t = scale->type;
    const expr five[5] = {t->dims[0], t->dims[1], x_num(b, tall), t->dims[2], x_num(b, wide)};
    const expr three[3] = {t->dims[0], expr_mul(&m->im->cx->exprs, five[1], five[2]),
                           expr_mul(&m->im->cx->exprs, five[3], five[4])};
    struct value *v = x_reshape(b, x_expand(b, x_unsqueeze(b, scale, 2, axes), 5, five), 3, three);
    v = x_slice(b, v, 1, x_num(b, 0), x_num(b, p->rows));
    return x_slice(b, v, 2, x_num(b, 0), x_num(b, p->columns));
}

/* [E] as a factor of [E, rows, columns]. */
static struct value *per_expert(struct builder *b, struct value *v)
{
    const int64_t axes[] = {1, 2};
    return x_unsqueeze(b, x_flat(b, x_cast(b, v, DT_F32)), 2, axes);
}

/* uint8 to pairs of float4e2m1 values, the low half first. */
static struct value *fp4_values(struct moe *m, struct projection *p)
{
    static const float values[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                     -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
    struct builder *b = m->b;
    const int64_t last[] = {3}, sixteen = 16;
    const uint8_t four = 4, mask = 15;
    struct value *lo = x_op2(b, OP_BitwiseAnd, p->weight, ir_const(b, DT_U8, 0, NULL, &mask, 1));
    struct value *hi = x_op2(b, OP_BitShiftRight, p->weight, ir_const(b, DT_U8, 0, NULL, &four, 1));
    struct value *both[2] = {x_unsqueeze(b, lo, 1, last), x_unsqueeze(b, hi, 1, last)};
    p->columns *= 2;
    const expr dims[3] = {x_num(b, m->experts), x_num(b, p->rows), x_num(b, p->columns)};
    struct value *codes = x_reshape(b, x_cast(b, x_concat(b, 3, 2, both), DT_I32), 3, dims);
    return x_gather(b, ir_const(b, DT_F32, 1, &sixteen, values, 64), codes, 0);
}

/* float8 and float4 weights become float values: value * scale of the block * scale of the expert. */
static enum npuc_status float_codes(struct moe *m, int i, const char *type, int64_t block)
{
    struct projection *p = &m->fc[i];
    struct builder *b = m->b;
    struct value *global = i < 2 ? onode_in(m->n, GLOBAL1 + i) : NULL;
    const enum npuc_status s = float_sizes(m, i);
    if (s != NPUC_OK || !p->weight)
        return s;
    struct value *w, *scale = NULL;
    if (strcmp(type, "fp8") == 0) {
        w = x_cast(b, p->weight, DT_F32);
        scale = block > 0 ? square_scale(m, x_cast(b, p->scale, DT_F32), block, block, p) : NULL;
    } else {
        w = fp4_values(m, p);
        scale = square_scale(m, x_cast(b, p->scale, DT_F32), 1, strcmp(type, "nvfp4") == 0 ? 16 : 32, p);
        block = 1;
    }
    if ((block > 0 && !scale) || (block <= 0 && !global))
        return onode_fail(m->im, m->n, D_ARITY, "the scales of projection %d are missing or not of 3 dims", i + 1);
    w = scale ? x_op2(b, OP_Mul, w, scale) : w;
    p->weight = global ? x_op2(b, OP_Mul, w, per_expert(b, global)) : w;
    return p->weight ? NPUC_OK : onode_done(m->im, m->n, NULL);
}

/* input, router_probs, then weight, scale and bias of fc1, fc2, fc3, their zero points, router_weights, global scales
 */
enum npuc_status rule_qmoe(struct import *im, struct onode *n)
{
    struct moe m = {.im = im, .n = n, .b = &n->b, .routes = onode_in(n, ROUTES)};
    const char *type = onode_str(im, n, "quant_type", "int");
    const int64_t block = onode_int(im, n, "block_size", 0), packed = onode_int(im, n, "weights_prepacked", -1);
    const bool integer = strcmp(type, "int") == 0;
    enum npuc_status s = moe_begin(&m);
    if (s == NPUC_OK && packed > 0)
        s = onode_fail(im, n, D_UNSUPPORTED,
                       "weights_prepacked is %" PRId64 ": the weights are in the layout of one GPU "
                       "family; export with weights_prepacked 0",
                       packed);
    if (s == NPUC_OK && !integer && strcmp(type, "fp8") != 0 && strcmp(type, "fp4") != 0 && strcmp(type, "nvfp4") != 0)
        s = onode_bad_attr(im, n, "quant_type", "'%.40s' is not supported: expected int, fp8, fp4 or nvfp4", type);
    if (s == NPUC_OK && !onode_in(n, 5))
        s = onode_fail(im, n, D_ARITY, "input 5 (fc2_experts_weights) is missing");
    for (int i = ACT1; i < ACT1 + 4 && s == NPUC_OK; i++)
        if (onode_in(n, i))
            s = onode_fail(im, n, D_UNSUPPORTED, "scales of activations (input %d) are not supported", i);
    for (int i = 0; i < PROJECTIONS && s == NPUC_OK; i++) {
        m.fc[i] = (struct projection){.weight = onode_in(n, 2 + 3 * i),
                                      .scale = onode_in(n, 3 + 3 * i),
                                      .bias = onode_in(n, 4 + 3 * i),
                                      .zero = onode_in(n, ZERO1 + i),
                                      .quantised = true};
        s = integer ? integer_codes(&m, i, block) : float_codes(&m, i, type, block);
    }
    if (s == NPUC_OK && m.routes) {
        s = onode_rank(im, n, ROUTES, 2, 3);
        m.routes = s == NPUC_OK ? x_cast(&n->b, as_rows(&m, ROUTES), DT_F32) : NULL;
    }
    return s == NPUC_OK ? moe_end(&m) : s;
}
