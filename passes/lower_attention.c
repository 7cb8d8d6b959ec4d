/* Attention operators become matrix products, a masked softmax and explicit caches.
 *
 *   %y, %pk, %pv = Attention %q, %k, %v, _, %past_k, %past_v {is_causal=1}
 * becomes
 *   %pk = CacheAppend %past_k, %k;  %pv = CacheAppend %past_v, %v
 *   %s  = FusedMatMul %q, %pk {transB=1};  ... softmax ...;  %y = MatMul %p, %pv
 *
 * One reader per operator (table at the end) brings it to struct attention; attention_expand writes the products.
 * Requirements: (1) a reader that meets a form it does not know, or heads of unknown size where that gives the scale,
 * leaves the node, which then runs on the host; (2) no reader makes an operator of the table, so it terminates. Left
 * alone: quantised caches, scores as a result of com.microsoft's operators. */
#include <math.h>

#include "base/half.h"
#include "passes/attention.h"

/* What a reader gives besides the attention itself. */
struct reading {
    struct attention a;
    bool rank3; /* output is [B,S,N*H] */
    struct value *present_k, *present_v;
    struct value *stage[4]; /* of the scores; ai.onnx Attention gives one of them */
};
typedef bool reader(struct node *n, struct builder *b, struct reading *r);

static struct expr_pool *pool(const struct builder *b)
{
    return &b->cx->exprs;
}

static bool has(const struct node *n, int i)
{
    return node_in(n, i) != NULL;
}

static struct value *append(struct builder *b, int axis, struct value *const in[4])
{
    struct node *n = ir_new(b, OP_CacheAppend, in[3] ? 4 : in[2] ? 3 : 2, in, 1);
    ir_set_int(n, "axis", axis);
    return ir_infer(n) == NPUC_OK ? &n->out[0] : NULL;
}

static struct value *unsqueeze(struct builder *b, struct value *x, const int64_t *axes, int64_t n)
{
    return ir_op2(b, OP_Unsqueeze, x, ir_const_i64(b, axes, n));
}

static struct value *and_mask(struct builder *b, struct value *x, struct value *y)
{
    return x && y ? ir_op2(b, OP_And, x, y) : x ? x : y;
}

/* Default scale 1/sqrt(size of a head); 0 when that is not known before run time. */
static float scale_of(const struct node *n, const struct builder *b, const struct value *q)
{
    int64_t size = 0;
    float given = node_attr_float(n, "scale", 0.0f);
    if (given != 0.0f || !expr_is_const(pool(b), q->type->dims[3], &size) || size <= 0)
        return given;
    return 1.0f / sqrtf((float)size);
}

/* keep[row, key] = key <= row + offset, and key > row + offset - window where there is a window. `offset`: int64,
 * broadcast to [batch, 1, 1, 1]. */
static struct value *causal_mask(struct builder *b, expr rows, expr total, struct value *offset, int64_t left,
                                 int64_t right)
{
    const int64_t to_column[] = {1};
    struct value *row = unsqueeze(b, positions(b, rows), to_column, 1), *key = positions(b, total);
    struct value *at = offset ? ir_op2(b, OP_Add, row, offset) : row, *keep = NULL;
    if (right >= 0) {
        struct value *last = right > 0 ? ir_op2(b, OP_Add, at, ir_const_i64(b, &right, 1)) : at;
        keep = ir_op2(b, OP_LessOrEqual, key, last);
    }
    if (left >= 0)
        keep = and_mask(b, keep, ir_op2(b, OP_GreaterOrEqual, key, ir_op2(b, OP_Sub, at, ir_const_i64(b, &left, 1))));
    return keep;
}

/* ---- ai.onnx Attention ---- */

static bool attention_heads(struct node *n, struct builder *b, struct reading *r)
{
    struct attention *a = &r->a;
    a->q = node_in(n, 0);
    a->k = node_in(n, 1);
    a->v = node_in(n, 2);
    r->rank3 = a->q->type->rank == 3;
    if (!r->rank3)
        return a->q->type->rank == 4 && a->k->type->rank == 4 && a->v->type->rank == 4;
    int64_t heads = node_attr_int(n, "q_num_heads", 0), kv = node_attr_int(n, "kv_num_heads", 0);
    if (heads <= 0 || kv <= 0)
        return false;
    a->q = heads_split(b, a->q, expr_const(pool(b), heads));
    a->k = heads_split(b, a->k, expr_const(pool(b), kv));
    a->v = heads_split(b, a->v, expr_const(pool(b), kv));
    return true;
}

/* The mask over exactly the keys: cut to them, and filled with "masked" behind its end. */
static struct value *mask_to_length(struct builder *b, struct value *m, expr total)
{
    const int64_t zero = 0, last = m->type->rank - 1;
    struct value *in[4] = {m, ir_const_i64(b, &zero, 1), ir_sizes(b, &total, 1, false), ir_const_i64(b, &last, 1)};
    struct node *cut = ir_new(b, OP_Slice, 4, in, 1);
    if (ir_infer(cut) != NPUC_OK)
        return NULL;
    const bool whole = cut->out[0].type == m->type;
    struct value *v = whole ? m : &cut->out[0];
    expr pads[2 * IR_MAX_RANK];
    for (int i = 0; i < 2 * m->type->rank; i++)
        pads[i] = expr_const(pool(b), 0);
    pads[2 * m->type->rank - 1] = expr_sub(pool(b), total, v->type->dims[last]);
    const bool no = false;
    struct value *fill =
        m->type->dtype == DT_BOOL ? ir_const(b, DT_BOOL, 0, NULL, &no, sizeof no) : ir_scalar_like(b, m, -INFINITY);
    struct value *padded = ir_op3(b, OP_Pad, v, ir_sizes(b, pads, 2 * m->type->rank, false), fill);
    return padded && padded->type->dims[last] == total ? padded : NULL;
}

/* Exporters mask with the most negative finite number; as a row of nothing else counts as masked, it becomes -inf. */
static struct value *strict_mask(struct builder *b, struct value *m)
{
    if (!m || m->type->dtype == DT_BOOL)
        return m;
    struct value *masked = ir_op2(b, OP_LessOrEqual, m, ir_scalar_like(b, m, (double)half_lowest(m->type->dtype)));
    return ir_op3(b, OP_Where, masked, ir_scalar_like(b, m, -INFINITY), m);
}

/* Broadcast from the right to the scores, save along the keys, where a shorter mask masks the rest. */
static bool attention_mask(const struct node *n, struct builder *b, struct attention *a, expr total)
{
    struct value *m = node_in(n, 3);
    if (!m)
        return true;
    if (m->type->rank < 2 || m->type->rank > 4)
        return false;
    if (m->type->dims[m->type->rank - 1] != total)
        m = mask_to_length(b, m, total);
    m = strict_mask(b, m);
    if (!m)
        return false;
    *(m->type->dtype == DT_BOOL ? &a->keep : &a->bias) = m;
    return true;
}

static bool read_attention(struct node *n, struct builder *b, struct reading *r)
{
    struct attention *a = &r->a;
    if (!attention_heads(n, b, r))
        return false;
    expr past = expr_const(pool(b), 0), rows = a->q->type->dims[2];
    if (has(n, 4) != has(n, 5))
        return false;
    if (has(n, 4)) {
        past = node_in(n, 4)->type->dims[2];
        a->k = append(b, 2, (struct value *const[4]){node_in(n, 4), a->k});
        a->v = append(b, 2, (struct value *const[4]){node_in(n, 5), a->v});
    }
    r->present_k = a->k;
    r->present_v = a->v;
    expr total = a->k->type->dims[2];
    if (!attention_mask(n, b, a, total))
        return false;
    a->scale = scale_of(n, b, a->q);
    a->softcap = node_attr_float(n, "softcap", 0.0f);
    const int64_t expand[] = {1, 2, 3};
    struct value *offset = ir_sizes(b, &past, 1, false), *length = NULL;
    if (has(n, 6)) {
        length = unsqueeze(b, ir_cast(b, node_in(n, 6), DT_I64), expand, 3);
        offset = ir_op2(b, OP_Sub, length, ir_sizes(b, &rows, 1, false));
        a->keep = and_mask(b, a->keep, ir_op2(b, OP_Less, positions(b, total), length));
    }
    int64_t left = node_attr_int(n, "left_window_size", -1), right = node_attr_int(n, "right_window_size", -1);
    if (node_attr_int(n, "is_causal", 0) != 0)
        right = 0;
    if (left >= 0 || right >= 0)
        a->keep = and_mask(b, a->keep, causal_mask(b, rows, total, offset, left, right));
    return true;
}

/* ---- com.microsoft GroupQueryAttention ---- */

static bool split_packed(struct node *n, struct builder *b, struct value *out[3])
{
    int64_t heads = node_attr_int(n, "num_heads", 0), kv = node_attr_int(n, "kv_num_heads", 0), width;
    struct value *q = node_in(n, 0);
    if (heads <= 0 || kv <= 0 || !expr_is_const(pool(b), q->type->dims[2], &width))
        return false;
    int64_t size = width / (heads + 2 * kv);
    const int64_t parts[3] = {heads * size, kv * size, kv * size};
    struct value *in[2] = {q, ir_const_i64(b, parts, 3)};
    struct node *split = ir_new(b, OP_Split, 2, in, 3);
    ir_set_int(split, "axis", 2);
    if (ir_infer(split) != NPUC_OK)
        return false;
    for (int i = 0; i < 3; i++)
        out[i] = &split->out[i];
    return true;
}

static struct value *rms_norm(struct builder *b, struct value *x, struct value *weight, float epsilon)
{
    struct value *in[2] = {x, weight};
    struct node *n = ir_new(b, OP_RMSNormalization, 2, in, 1);
    ir_set_float(n, "epsilon", epsilon);
    return ir_infer(n) == NPUC_OK ? &n->out[0] : NULL;
}

static struct value *rotate(struct builder *b, const struct node *n, struct value *x, struct value *pos)
{
    struct value *in[4] = {x, ir_cast(b, node_in(n, 7), x->type->dtype), ir_cast(b, node_in(n, 8), x->type->dtype),
                           pos};
    struct node *r = ir_new(b, OP_RotaryEmbedding, 4, in, 1);
    int64_t half;
    const struct type *t = node_in(n, 7)->type;
    if (!expr_is_const(pool(b), t->dims[t->rank - 1], &half))
        return NULL;
    ir_set_int(r, "interleaved", node_attr_int(n, "rotary_interleaved", 0));
    ir_set_int(r, "rotary_embedding_dim", 2 * half);
    return ir_infer(r) == NPUC_OK ? &r->out[0] : NULL;
}

static bool gqa_plain(const struct node *n, const struct builder *b)
{
    sym none = str_internz(&b->cx->strings, "NONE");
    return !node_out(n, 3) && has(n, 5) && has(n, 3) == has(n, 4) && node_attr_str(n, "k_quant_type", none) == none &&
           node_attr_str(n, "v_quant_type", none) == none && node_attr_int(n, "sliding_window_cache", 0) == 0 &&
           node_attr_int(n, "causal", 1) != 0 && has(n, 1) == has(n, 2);
}

/* q, k, v as heads, normalised and rotated; `first` [batch]: position of the first new row. */
static bool gqa_operands(struct node *n, struct builder *b, struct attention *a, struct value *first)
{
    struct value *in[3] = {node_in(n, 0), node_in(n, 1), node_in(n, 2)};
    int64_t heads = node_attr_int(n, "num_heads", 0), kv = node_attr_int(n, "kv_num_heads", 0);
    if (!has(n, 1) && !split_packed(n, b, in))
        return false;
    a->q = heads_split(b, in[0], expr_const(pool(b), heads));
    a->k = heads_split(b, in[1], expr_const(pool(b), kv));
    a->v = heads_split(b, in[2], expr_const(pool(b), kv));
    float eps = node_attr_float(n, "qk_norm_epsilon", 1e-6f);
    if (has(n, 14))
        a->q = rms_norm(b, a->q, node_in(n, 14), eps);
    if (has(n, 15))
        a->k = rms_norm(b, a->k, node_in(n, 15), eps);
    if (node_attr_int(n, "do_rotary", 0) != 0) {
        const int64_t column[] = {1};
        struct value *pos = has(n, 9)
                                ? node_in(n, 9)
                                : ir_op2(b, OP_Add, unsqueeze(b, first, column, 1), positions(b, a->q->type->dims[2]));
        if (!has(n, 7) || !has(n, 8))
            return false;
        a->q = rotate(b, n, a->q, pos);
        a->k = rotate(b, n, a->k, pos);
    }
    return a->q && a->k;
}

static void gqa_caches(struct node *n, struct builder *b, struct reading *r, struct value *first)
{
    struct attention *a = &r->a;
    if (has(n, 3)) {
        const struct value *out = node_out(n, 1);
        expr total = out ? out->type->dims[2] : expr_add(pool(b), node_in(n, 3)->type->dims[2], a->k->type->dims[2]);
        struct value *length = ir_sizes(b, &total, 1, true);
        a->k = append(b, 2, (struct value *const[4]){node_in(n, 3), a->k, first, length});
        a->v = append(b, 2, (struct value *const[4]){node_in(n, 4), a->v, first, length});
    }
    r->present_k = a->k;
    r->present_v = a->v;
}

static bool read_gqa(struct node *n, struct builder *b, struct reading *r)
{
    struct attention *a = &r->a;
    if (!gqa_plain(n, b))
        return false;
    r->rank3 = true;
    expr rows = node_in(n, 0)->type->dims[1], less_one = expr_sub(pool(b), rows, expr_const(pool(b), 1));
    struct value *last = ir_cast(b, node_in(n, 5), DT_I64); /* valid rows per batch entry, less one */
    const expr flat[1] = {node_in(n, 0)->type->dims[0]};
    last = value_dims(b, last, 1, flat);
    const int64_t zero = 0, expand[] = {1, 2, 3};
    struct value *first =
        ir_op2(b, OP_Max, ir_op2(b, OP_Sub, last, ir_sizes(b, &less_one, 1, false)), ir_const_i64(b, &zero, 1));
    if (!gqa_operands(n, b, a, first))
        return false;
    gqa_caches(n, b, r, first);
    if (!a->k || !a->v)
        return false;
    a->scale = scale_of(n, b, a->q);
    a->softcap = node_attr_float(n, "softcap", 0.0f);
    int64_t window = node_attr_int(n, "local_window_size", -1);
    a->keep =
        causal_mask(b, rows, a->k->type->dims[2], unsqueeze(b, first, expand, 3), window > 0 ? window - 1 : -1, 0);
    a->bias = node_in(n, 10);
    if (has(n, 11)) {
        const int64_t axes[] = {0, 2, 3};
        a->sink = ir_cast(b, unsqueeze(b, node_in(n, 11), axes, 3), DT_F32);
    } else if (node_attr_int(n, "smooth_softmax", 0) != 0) {
        a->sink = ir_scalar_f32(b, 0.0f);
    }
    return true;
}

/* ---- com.microsoft MultiHeadAttention ---- */

/* Part i of the bias [3 * width], added to x [B,S,width]. */
static struct value *add_bias(struct node *n, struct builder *b, struct value *x, int64_t from)
{
    int64_t width;
    if (!has(n, 3) || !expr_is_const(pool(b), x->type->dims[2], &width))
        return x;
    const int64_t start = from, end = from + width, axis = 0;
    struct value *in[4] = {node_in(n, 3), ir_const_i64(b, &start, 1), ir_const_i64(b, &end, 1),
                           ir_const_i64(b, &axis, 1)};
    struct node *slice = ir_new(b, OP_Slice, 4, in, 1);
    return ir_infer(slice) == NPUC_OK ? ir_op2(b, OP_Add, x, &slice->out[0]) : NULL;
}

static bool mha_operands(struct node *n, struct builder *b, struct attention *a)
{
    expr heads = expr_const(pool(b), node_attr_int(n, "num_heads", 1));
    struct value *q = node_in(n, 0), *k = node_in(n, 1), *v = node_in(n, 2);
    int64_t wq = 0, wk = 0;
    if (!k || !v || q->type->rank != 3 || k->type->rank != v->type->rank)
        return false;
    if (has(n, 3) && !expr_is_const(pool(b), q->type->dims[2], &wq))
        return false;
    a->q = heads_split(b, add_bias(n, b, q, 0), heads);
    if (k->type->rank == 4) {
        a->k = k;
        a->v = v;
        return !has(n, 3);
    }
    if (k->type->rank != 3 || (has(n, 3) && !expr_is_const(pool(b), k->type->dims[2], &wk)))
        return false;
    a->k = heads_split(b, add_bias(n, b, k, wq), heads);
    a->v = heads_split(b, add_bias(n, b, v, wq + wk), heads);
    return true;
}

static bool read_mha(struct node *n, struct builder *b, struct reading *r)
{
    struct attention *a = &r->a;
    bool key_mask = has(n, 4) && (node_in(n, 4)->type->rank != 2);
    if (node_out(n, 3) || key_mask || has(n, 8) || has(n, 9) || !mha_operands(n, b, a))
        return false;
    r->rank3 = true;
    expr past = expr_const(pool(b), 0);
    if (has(n, 6) && has(n, 7)) {
        past = node_in(n, 6)->type->dims[2];
        a->k = append(b, 2, (struct value *const[4]){node_in(n, 6), a->k});
        a->v = append(b, 2, (struct value *const[4]){node_in(n, 7), a->v});
    }
    r->present_k = a->k;
    r->present_v = a->v;
    a->scale = scale_of(n, b, a->q);
    a->bias = node_in(n, 5);
    float filler = node_attr_float(n, "mask_filter_value", -10000.0f);
    if (has(n, 4)) {
        const int64_t axes[] = {1, 2};
        const int32_t zero = 0;
        struct value *off = ir_op2(b, OP_Equal, node_in(n, 4), ir_const(b, DT_I32, 0, NULL, &zero, sizeof zero));
        struct value *add =
            ir_op3(b, OP_Where, unsqueeze(b, off, axes, 2), ir_scalar_f32(b, filler), ir_scalar_f32(b, 0.0f));
        a->bias = a->bias ? ir_op2(b, OP_Add, ir_cast(b, a->bias, DT_F32), add) : add;
    }
    if (node_attr_int(n, "unidirectional", 0) != 0)
        a->keep = causal_mask(b, a->q->type->dims[2], a->k->type->dims[2], ir_sizes(b, &past, 1, false), -1, 0);
    return true;
}

static const struct {
    enum op op;
    reader *read;
} readers[] = {
    {OP_Attention, read_attention},
    {OP_GroupQueryAttention, read_gqa},
    {OP_MultiHeadAttention, read_mha},
};

static reader *find_reader(const struct node *n)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(readers); i++)
        if (readers[i].op == (enum op)n->op)
            return readers[i].read;
    return NULL;
}

static bool known_ranks(const struct node *n)
{
    for (int i = 0; i < n->n_in; i++)
        if (node_in(n, i) && (node_in(n, i)->type->kind != TYPE_TENSOR || node_in(n, i)->type->rank < 0))
            return false;
    return true;
}

/* The types and order of the steps in ONNX's function body, for those who compare step by step. */
static void literal(const struct node *n, struct attention *a)
{
    const enum dtype t = a->q->type->dtype, soft = dtype_from_onnx(node_attr_int(n, "softmax_precision", 0));
    a->score = t;
    a->soft = soft == DT_NONE ? t : soft;
    a->split_scale = true;
}

/* Likewise: a Softmax of 16-bit floats is one of steps that are rounded each. */
static bool softmax_literal(struct pass_ctx *px, struct node *n)
{
    if (!px->options.strict || n->op != OP_Softmax || dtype_table[n->out[0].type->dtype].bits != 16 ||
        !ir_may_rewrite(px->cx))
        return false;
    struct builder b = ir_at(n);
    struct value *y = softmax_steps(&b, node_in(n, 0), node_attr_int(n, "axis", -1));
    if (y)
        ir_replace_all(&n->out[0], y);
    return y != NULL;
}

static void replace(struct node *n, int i, struct value *with)
{
    if (node_out(n, i) && with)
        ir_replace_all(&n->out[i], with);
}

enum npuc_status lower_attention(struct pass_ctx *px, struct graph *g)
{
    for_each_node_safe(n, g)
    {
        reader *read = find_reader(n);
        if (softmax_literal(px, n))
            continue;
        if (!read || !known_ranks(n) || !ir_may_rewrite(px->cx))
            continue;
        struct builder b = ir_at(n);
        struct reading r = {.a = {.b = &b, .score = DT_F32, .soft = DT_F32}};
        if (!read(n, &b, &r) || !(r.a.scale != 0)) {
            pass_count(px, STAT_lower_attention_kept, 1);
            continue;
        }
        if (px->options.strict && n->op == OP_Attention)
            literal(n, &r.a);
        r.a.stage = r.stage;
        struct value *y = attention_expand(&r.a);
        if (y && r.rank3)
            y = heads_join(&b, y);
        if (!y)
            return NPUC_E_INTERNAL;
        replace(n, 0, ir_cast(&b, y, n->out[0].type->dtype));
        replace(n, 1, r.present_k);
        replace(n, 2, r.present_v);
        if (n->op == OP_Attention && node_out(n, 3))
            replace(n, 3, ir_cast(&b, r.stage[node_attr_int(n, "qk_matmul_output_mode", 0)], n->out[3].type->dtype));
        ir_erase(n);
        pass_count(px, STAT_lower_attention_lowered, 1);
    }
    ir_dce(g);
    return NPUC_OK;
}
