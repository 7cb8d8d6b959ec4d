/* The way back from apply_recipe: products whose operands are dequantised become products of floats, and a reader is
 * told what their codes were, so that a recipe can say it.
 *
 *   %y = MatMul (DequantizeLinear (QuantizeLinear %x, %s, %z), %s, %z), (DequantizeLinear %codes, %scales)
 * becomes
 *   %y = MatMul %x, %w                                                               (%w constant, in floats)
 * and Gemm, FusedMatMul, Conv the same; scales of rows as apply_recipe computes them, and DynamicQuantizeLinear, are
 * scales at run time. An input whose zero point is its least code loses what is below 0: where nothing else says so,
 * it becomes Relu %x, which leaves the codes as they are.
 *
 * Requirements: (1) for reading recipes (npuc quantize --from), no part of the pipeline; raise_quant brings other forms
 * into this one; (2) the reader takes the product, by the name of its node; what it does not take, and what a recipe
 * cannot say, stays coded; (3) a product stripped has no dequantised weight any more, so it terminates. Left alone:
 * quantised values that products do not read, weights of other ranks than 2, blocks of filters. */
#include <math.h>
#include <string.h>

#include "ir/eval.h"
#include "passes/match.h"
#include "passes/product_names.h"

/* A weight that is dequantised. */
struct weight {
    const struct node *dq;
    struct k_tensor codes, scales, zeros; /* as stored; zeros.data NULL: none */
    bool channels_first;                  /* as stored */
    int64_t channels, k;
    struct quant_operand form;
};

static bool read_blob(const struct pass_ctx *px, const struct value *v, struct k_tensor *out)
{
    const struct blob *data = v ? value_const(v) : NULL;
    return data && data->data && blob_tensor(px->cx, v->type, data, out);
}

static bool is_code(enum dtype t)
{
    return dtype_table[t].bits <= 8 && (dtype_is_integer(t) || dtype_is_float(t));
}

/* What shares a scale; false for forms that a recipe does not know. */
static bool read_sharing(const struct node *dq, struct weight *w)
{
    const int64_t block = node_attr_int(dq, "block_size", 0), rank = w->codes.rank,
                  given = node_attr_int(dq, "axis", 1);
    const int64_t axis = given < 0 ? given + rank : given, channel_axis = w->channels_first ? 0 : 1;
    const int64_t count = k_count(&w->scales);
    w->form.per = count == 1 ? QUANT_PER_TENSOR : block > 0 ? QUANT_PER_GROUP : QUANT_PER_CHANNEL;
    w->form.group = w->form.per == QUANT_PER_GROUP ? block : 0;
    if (w->zeros.data && k_count(&w->zeros) != count)
        return false;
    if (w->form.per == QUANT_PER_GROUP)
        return rank == 2 && axis == 1 - channel_axis && count == w->channels * ((w->k + block - 1) / block);
    return count == 1 || (axis == channel_axis && count == w->channels);
}

static bool all_positive(const struct k_tensor *t)
{
    for (int64_t i = 0; i < k_count(t); i++)
        if (!(k_get_f64(t, i) > 0) || !isfinite(k_get_f64(t, i)))
            return false;
    return true;
}

static bool all_zero(const struct k_tensor *t)
{
    for (int64_t i = 0; i < k_count(t); i++)
        if (k_get_f64(t, i) != 0)
            return false;
    return true;
}

/* The right operand, through transposes of its two axes; trans: the product reads it turned. */
static bool read_weight(const struct pass_ctx *px, const struct value *v, bool conv, bool trans, struct weight *w)
{
    const struct node *t;
    while (!conv && v->type->rank == 2 && (t = match_def(v, OP_Transpose))) {
        const struct attr *perm = node_attr(t, "perm");
        trans = trans != (!perm || perm->v.ints[0] == 1);
        v = node_in(t, 0);
    }
    *w = (struct weight){.dq = match_def(v, OP_DequantizeLinear), .channels_first = conv || trans};
    if (!w->dq || !read_blob(px, node_in(w->dq, 0), &w->codes) || !read_blob(px, node_in(w->dq, 1), &w->scales) ||
        (node_in(w->dq, 2) && !read_blob(px, node_in(w->dq, 2), &w->zeros)))
        return false;
    const enum dtype code = w->codes.dtype;
    if (!is_code(code) || dtype_is_float(code) != dtype_is_float(w->zeros.data ? w->zeros.dtype : code) ||
        (conv ? w->codes.rank < 3 : w->codes.rank != 2) || w->scales.dtype != v->type->dtype ||
        !all_positive(&w->scales))
        return false;
    if (w->zeros.data && (dtype_is_float(code) || dtype_table[code].cls == DTC_INT) && all_zero(&w->zeros))
        w->zeros = (struct k_tensor){0};
    w->channels = w->codes.dims[w->channels_first ? 0 : 1];
    w->k = w->channels > 0 ? k_count(&w->codes) / w->channels : 0;
    w->form.codes = code;
    w->form.data = true;
    w->form.shifted = w->zeros.data || dtype_table[code].cls == DTC_UINT;
    return w->k > 0 && !(w->form.shifted && dtype_is_float(code)) && read_sharing(w->dq, w);
}

/* Element [c][i] of [channels][cols] in what is stored. */
static int64_t stored_at(const struct weight *w, int64_t cols, int64_t c, int64_t i)
{
    return w->channels_first ? c * cols + i : i * w->channels + c;
}

static int16_t code_of(const struct k_tensor *t, int64_t i)
{
    if (!dtype_is_float(t->dtype))
        return (int16_t)k_get_i64(t, i);
    const int bits = dtype_table[t->dtype].bits;
    return (int16_t)(((const uint8_t *)t->data)[i * bits / 8] >> (i * bits % 8) & ((1 << bits) - 1));
}

/* Codes, scales and zero points as [channels][...]. */
static void read_codes(struct pass_ctx *px, const struct weight *w, struct quant_codes *q)
{
    const int64_t rows = w->form.per == QUANT_PER_TENSOR ? 1 : w->channels;
    *q = (struct quant_codes){.groups = k_count(&w->scales) / rows};
    q->codes = ARENA_ARRAY(&px->arena, int16_t, w->channels * w->k);
    q->scales = ARENA_ARRAY(&px->arena, float, rows * q->groups);
    if (w->form.shifted)
        q->zeros = ARENA_ARRAY(&px->arena, int16_t, rows * q->groups);
    for (int64_t c = 0; c < w->channels; c++)
        for (int64_t i = 0; i < w->k; i++)
            q->codes[c * w->k + i] = code_of(&w->codes, stored_at(w, w->k, c, i));
    for (int64_t c = 0; c < rows; c++)
        for (int64_t g = 0; g < q->groups; g++) {
            const int64_t at = rows == 1 ? g : stored_at(w, q->groups, c, g);
            q->scales[c * q->groups + g] = (float)k_get_f64(&w->scales, at);
            if (q->zeros)
                q->zeros[c * q->groups + g] = w->zeros.data ? (int16_t)k_get_i64(&w->zeros, at) : 0;
        }
}

/* ---- the input */

struct input {
    struct value *x; /* before it is quantised; NULL: it is not, or stays so */
    struct quant_operand form;
};

/* s = Div (Max (ReduceMax (Abs %x)), tiny), most: a scale per row as apply_recipe writes it? */
static bool is_row_scale(const struct value *s, const struct value *x)
{
    double most, tiny;
    struct value *top, *size;
    if (!match_with_scalar(s, OP_Div, &top, &most) || most != 127 || !match_with_scalar(top, OP_Max, &size, &tiny))
        return false;
    const struct node *max = match_def(size, OP_ReduceMax), *abs = max ? match_def(node_in(max, 0), OP_Abs) : NULL;
    return abs && node_in(abs, 0) == x;
}

static bool same_operand(const struct value *a, const struct value *b)
{
    return a == b || (a && b && value_const(a) && value_const(a) == value_const(b));
}

/* Equal constants of one element, or the same value. */
static bool is_pair(const struct pass_ctx *px, const struct value *a, const struct value *b)
{
    struct k_tensor x, y;
    if (same_operand(a, b))
        return true;
    return a && b && read_blob(px, a, &x) && read_blob(px, b, &y) && x.dtype == y.dtype && x.size == y.size &&
           memcmp(x.data, y.data, (size_t)x.size) == 0;
}

static bool read_dynamic(const struct node *dq, const struct node *dyn, struct input *in)
{
    if (node_in(dq, 0) != &dyn->out[0])
        return false;
    in->x = node_in(dyn, 0);
    in->form = (struct quant_operand){.codes = DT_U8, .per = QUANT_PER_TENSOR, .shifted = true, .dynamic = true};
    return true;
}

static void read_input(const struct pass_ctx *px, const struct value *v, bool conv, struct input *in)
{
    const struct node *dq = match_def(v, OP_DequantizeLinear);
    const struct node *q = dq ? match_def(node_in(dq, 0), OP_QuantizeLinear) : NULL;
    struct k_tensor scale, zero = {0};
    *in = (struct input){0};
    if (dq && match_def(node_in(dq, 0), OP_DynamicQuantizeLinear) &&
        read_dynamic(dq, match_def(node_in(dq, 0), OP_DynamicQuantizeLinear), in))
        return;
    if (!q || !is_pair(px, node_in(q, 1), node_in(dq, 1)) ||
        (node_in(q, 2) != node_in(dq, 2) && !is_pair(px, node_in(q, 2), node_in(dq, 2))) ||
        node_in(q, 0)->type != v->type)
        return;
    const enum dtype code = q->out[0].type->dtype;
    in->form = (struct quant_operand){.codes = code};
    const bool rows = node_attr_int(q, "block_size", 0) > 0, one = node_in(q, 1)->type->rank == 0;
    if (code == DT_I8 && !node_in(q, 2) && (conv ? one : rows) && is_row_scale(node_in(q, 1), node_in(q, 0))) {
        in->form.per = QUANT_PER_TOKEN;
        in->form.dynamic = true;
        in->x = node_in(q, 0);
    } else if ((code == DT_I8 || code == DT_U8) && read_blob(px, node_in(q, 1), &scale) && k_count(&scale) == 1 &&
               (!node_in(q, 2) || (read_blob(px, node_in(q, 2), &zero) && k_count(&zero) == 1))) {
        in->form.scale = k_get_f64(&scale, 0);
        in->form.zero = zero.data ? k_get_i64(&zero, 0) : 0;
        in->form.shifted = in->form.zero != 0;
        in->x = in->form.scale > 0 ? node_in(q, 0) : NULL;
    }
}

enum { DEEP = 8 };

static bool is_least_zero(const struct pass_ctx *px, const struct node *dq)
{
    const struct value *z = node_in(dq, 2);
    struct k_tensor zero;
    const enum dtype code = node_in(dq, 0)->type->dtype;
    const int64_t least = code == DT_I8 ? -128 : 0;
    return (code == DT_U8 && !z) || ((code == DT_U8 || code == DT_I8) && read_blob(px, z, &zero) &&
                                     k_count(&zero) == 1 && k_get_i64(&zero, 0) == least);
}

/* Nothing below 0, as far as the operators above tell. */
static bool is_positive(const struct pass_ctx *px, const struct value *v, int depth)
{
    static const enum op positive[] = {OP_Relu, OP_Sigmoid, OP_HardSigmoid, OP_Softmax, OP_Abs};
    static const enum op keep[] = {OP_MaxPool, OP_AveragePool, OP_GlobalAveragePool, OP_GlobalMaxPool, OP_Flatten,
                                   OP_Reshape, OP_Transpose,   OP_Squeeze,           OP_Identity,      OP_ReduceMean};
    const struct node *n = v->def;
    for (int64_t i = 0; n && i < NPUC_ARRAY_LEN(positive); i++)
        if (n->op == positive[i])
            return true;
    for (int64_t i = 0; n && depth < DEEP && i < NPUC_ARRAY_LEN(keep); i++)
        if (n->op == keep[i])
            return is_positive(px, node_in(n, 0), depth + 1);
    return n && n->op == OP_DequantizeLinear && is_least_zero(px, n);
}

/* x, without what its codes cannot tell from 0. */
static struct value *clipped(struct pass_ctx *px, struct builder *b, const struct input *in)
{
    const int64_t least = in->form.codes == DT_I8 ? -128 : 0;
    if (in->form.dynamic || in->form.zero != least || is_positive(px, in->x, 0))
        return in->x;
    return ir_op1(b, OP_Relu, in->x);
}

/* ---- the pass */

static bool is_product(const struct node *n)
{
    return (n->op == OP_MatMul || n->op == OP_Gemm || n->op == OP_FusedMatMul || n->op == OP_Conv) && n->loc &&
           n->loc->n > 0 && node_attr_int(n, "transA", 0) == 0 && node_attr_int(n, "transBatchA", 0) == 0 &&
           node_attr_int(n, "transBatchB", 0) == 0;
}

/* The weight in floats, in the order in which the product reads it. */
static struct value *float_weight(struct pass_ctx *px, struct builder *b, struct value *v)
{
    struct value *inner = match_def(v, OP_Transpose) ? float_weight(px, b, node_in(v->def, 0)) : NULL;
    if (inner) {
        const struct attr *perm = node_attr(v->def, "perm");
        return ir_transpose(b, inner, perm ? perm->v.ints : (const int64_t[]){1, 0});
    }
    struct k_tensor in[3] = {{0}}, out = {0};
    const struct k_tensor *operands[3] = {NULL, NULL, NULL};
    for (int i = 0; i < 3 && node_in(v->def, i); i++) {
        if (!read_blob(px, node_in(v->def, i), &in[i]))
            return NULL;
        operands[i] = &in[i];
    }
    if (ir_eval_node(px->cx, v->def, operands, NULL, &out, &px->arena) != NPUC_OK)
        return NULL;
    return ir_const(b, out.dtype, out.rank, out.dims, out.data, out.size);
}

static enum npuc_status strip(struct pass_ctx *px, struct node *n)
{
    const struct quant_reader *to = px->options.quant_reader;
    const bool conv = n->op == OP_Conv;
    struct weight w;
    struct input in;
    struct quant_codes codes;
    if (!is_product(n) || !read_weight(px, node_in(n, 1), conv, node_attr_int(n, "transB", 0) != 0, &w) ||
        !ir_may_rewrite(px->cx))
        return NPUC_OK;
    read_input(px, node_in(n, 0), conv, &in);
    read_codes(px, &w, &codes);
    const struct quant_product form = {.weight = w.form, .input = in.x ? in.form : (struct quant_operand){0}};
    const struct quant_matrix size = {.channels = w.channels, .k = w.k, .scale_type = w.scales.dtype};
    if (to && !to->product(to->user, str_text(&px->cx->strings, n->loc->names[0]), &form, &size, &codes))
        return NPUC_OK;
    struct builder b = ir_at(n);
    struct value *plain = float_weight(px, &b, node_in(n, 1)), *x = in.x ? clipped(px, &b, &in) : node_in(n, 0);
    if (!plain || !x)
        return pass_failure(px);
    ir_set_input(n, 1, plain);
    ir_set_input(n, 0, x);
    pass_count(px, STAT_strip_codes_stripped, 1);
    return NPUC_OK;
}

enum npuc_status strip_codes(struct pass_ctx *px, struct graph *g)
{
    product_names(px);
    for_each_node_safe(n, g)
    {
        const struct arena_mark mark = arena_mark(&px->arena);
        const enum npuc_status s = strip(px, n);
        arena_release(&px->arena, mark);
        if (s != NPUC_OK)
            return s;
    }
    ir_dce(g);
    return NPUC_OK;
}
