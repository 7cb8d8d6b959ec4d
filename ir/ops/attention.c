/* Attention and rotary embedding. Inside, every operand is seen as [batch, heads, rows, head size]; the 3-D forms
 * [batch, rows, heads * head size] are split by the head counts in the attributes. */
#include "ir/ops/infer.h"
#include "kernels/attend_chunks.h"

struct heads {
    expr batch, heads, rows, size; /* EXPR_INVALID: unknown */
};

/* View of input i; heads is needed for rank 3 only. */
static enum npuc_status read_heads(struct ir_ctx *cx, struct node *n, int i, int64_t heads, struct heads *h)
{
    const struct shape x = infer_shape(n, i);
    *h = (struct heads){0};
    if (x.rank < 0)
        return NPUC_OK;
    if (x.rank == 4) {
        *h = (struct heads){x.d[0], x.d[1], x.d[2], x.d[3]};
        return NPUC_OK;
    }
    if (x.rank != 3)
        return infer_rank_error(cx, n, i, "rank 3 or 4");
    int64_t width;
    if (heads < 1)
        return node_error(cx, n, D_ATTRIBUTE, "input %d has rank 3, which needs the number of heads as an attribute",
                          i);
    if (expr_is_const(&cx->exprs, x.d[2], &width) && width % heads)
        return node_error(cx, n, D_SHAPE_MISMATCH, "input %d of type %s is not divisible into %lld heads", i,
                          type_text(cx, n->in[i].value->type), (long long)heads);
    const expr count = expr_const(&cx->exprs, heads);
    *h = (struct heads){x.d[0], count, x.d[1], expr_floordiv(&cx->exprs, x.d[2], count)};
    return NPUC_OK;
}

static expr or_fresh(struct ir_ctx *cx, struct node *n, int out, int axis, expr e)
{
    return e ? e : infer_fresh(cx, n, out, axis);
}

static enum npuc_status out_4d(struct ir_ctx *cx, struct node *n, int i, enum dtype t, const struct heads *h)
{
    if (!infer_wants(n, i))
        return NPUC_OK;
    const struct shape s = {.rank = 4,
                            .d = {or_fresh(cx, n, i, 0, h->batch), or_fresh(cx, n, i, 1, h->heads),
                                  or_fresh(cx, n, i, 2, h->rows), or_fresh(cx, n, i, 3, h->size)}};
    return infer_out(cx, n, i, t, &s);
}

static enum npuc_status out_3d(struct ir_ctx *cx, struct node *n, int i, enum dtype t, const struct heads *h)
{
    const expr width = h->heads && h->size ? expr_mul(&cx->exprs, h->heads, h->size) : EXPR_INVALID;
    const struct shape s = {
        .rank = 3,
        .d = {or_fresh(cx, n, i, 0, h->batch), or_fresh(cx, n, i, 1, h->rows), or_fresh(cx, n, i, 2, width)}};
    return infer_out(cx, n, i, t, &s);
}

/* a and b are one size; *a becomes the better of the two. */
static enum npuc_status agree(struct ir_ctx *cx, struct node *n, const char *what, expr *a, expr b)
{
    if (!*a || !b) {
        *a = *a ? *a : b;
        return NPUC_OK;
    }
    const expr d = infer_dim_same(cx, *a, b);
    if (!d)
        return node_error(cx, n, D_SHAPE_MISMATCH, "%s is %s in one input and %s in another", what,
                          infer_dim_text(cx, *a), infer_dim_text(cx, b));
    *a = d;
    return NPUC_OK;
}

static enum npuc_status check_groups(struct ir_ctx *cx, struct node *n, expr q_heads, expr kv_heads)
{
    int64_t q, kv;
    if (!q_heads || !kv_heads || !expr_is_const(&cx->exprs, q_heads, &q) || !expr_is_const(&cx->exprs, kv_heads, &kv))
        return NPUC_OK;
    if (kv < 1 || q % kv)
        return node_error(cx, n, D_SHAPE_MISMATCH, "%lld query heads are no multiple of %lld key heads", (long long)q,
                          (long long)kv);
    return NPUC_OK;
}

/* ---- Attention (ONNX) */

/* The mask broadcasts to [batch, heads, rows, total]; its last axis may be shorter. */
static enum npuc_status check_mask(struct ir_ctx *cx, struct node *n, int i, const struct heads *q)
{
    const struct shape m = infer_shape(n, i);
    if (m.rank < 0)
        return NPUC_OK;
    if (m.rank < 2 || m.rank > 4)
        return infer_rank_error(cx, n, i, "rank 2 to 4");
    const expr rows = m.d[m.rank - 2];
    if (q->rows && !infer_dim_broadcast(cx, rows, q->rows))
        return node_error(cx, n, D_SHAPE_MISMATCH, "input %d (mask) has %s rows, expected %s", i,
                          infer_dim_text(cx, rows), infer_dim_text(cx, q->rows));
    const expr want[2] = {q->heads, q->batch};
    for (int k = 0; k < m.rank - 2; k++) {
        const expr have = m.d[m.rank - 3 - k];
        if (want[k] && !infer_dim_is(cx, have, 1) && !infer_dim_same(cx, have, want[k]))
            return node_error(cx, n, D_SHAPE_MISMATCH, "input %d (mask) is for %s %s, expected 1 or %s", i,
                              infer_dim_text(cx, have), k ? "batch entries" : "heads", infer_dim_text(cx, want[k]));
    }
    return NPUC_OK;
}

/* Rows of caches are copied as bytes. */
static enum npuc_status takes_floats(struct ir_ctx *cx, const struct node *n)
{
    const enum npuc_status s = infer_is_float(cx, n, 0);
    if (s != NPUC_OK || dtype_size(infer_dtype(n, 0)) > 0)
        return s;
    return node_error(cx, n, D_TYPE_MISMATCH, "input 0 is of %s, expected floats of at least 8 bits",
                      dtype_table[infer_dtype(n, 0)].name);
}

static enum npuc_status attention_legal(struct ir_ctx *cx, struct node *n)
{
    const int64_t mode = node_attr_int(n, "qk_matmul_output_mode", 0);
    if (mode < 0 || mode > 3)
        return node_error(cx, n, D_ATTRIBUTE, "attribute 'qk_matmul_output_mode' is %lld, expected 0..3",
                          (long long)mode);
    if (infer_has(n, 6) && (infer_has(n, 4) || infer_has(n, 5)))
        return node_error(cx, n, D_ARITY, "past_key (input 4) and nonpad_kv_seqlen (input 6) exclude each other");
    if (infer_has(n, 4) != infer_has(n, 5))
        return node_error(cx, n, D_ARITY, "past_key (input 4) and past_value (input 5) come together");
    return NPUC_OK;
}

/* q, k, v as heads, and total: the rows of past and new keys together. */
struct attention {
    struct heads q, k, v;
    expr total;
};

static enum npuc_status attention_operands(struct ir_ctx *cx, struct node *n, struct attention *a)
{
    const int64_t q_heads = node_attr_int(n, "q_num_heads", 0), kv_heads = node_attr_int(n, "kv_num_heads", 0);
    struct heads past;
    enum npuc_status s = read_heads(cx, n, 0, q_heads, &a->q);
    if (s == NPUC_OK)
        s = read_heads(cx, n, 1, kv_heads, &a->k);
    if (s == NPUC_OK)
        s = read_heads(cx, n, 2, kv_heads, &a->v);
    if (s == NPUC_OK)
        s = read_heads(cx, n, 4, kv_heads, &past);
    if (s == NPUC_OK)
        s = agree(cx, n, "batch", &a->q.batch, a->k.batch);
    if (s == NPUC_OK)
        s = agree(cx, n, "head size of query and key", &a->q.size, a->k.size);
    if (s == NPUC_OK)
        s = agree(cx, n, "number of key rows", &a->k.rows, a->v.rows);
    if (s == NPUC_OK)
        s = agree(cx, n, "number of key heads", &a->k.heads, a->v.heads);
    if (s == NPUC_OK && infer_has(n, 4))
        s = agree(cx, n, "number of key heads", &a->k.heads, past.heads);
    if (s == NPUC_OK)
        s = check_groups(cx, n, a->q.heads, a->k.heads);
    a->total = !infer_has(n, 4)         ? a->k.rows
               : past.rows && a->k.rows ? expr_add(&cx->exprs, past.rows, a->k.rows)
                                        : EXPR_INVALID;
    return s;
}

static enum npuc_status attention_infer(struct ir_ctx *cx, struct node *n)
{
    struct attention a;
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = takes_floats(cx, n);
    if (s == NPUC_OK)
        s = attention_legal(cx, n);
    if (s == NPUC_OK)
        s = attention_operands(cx, n, &a);
    if (s == NPUC_OK)
        s = check_mask(cx, n, 3, &a.q);
    if (s != NPUC_OK)
        return s;
    const struct heads y = {a.q.batch, a.q.heads, a.q.rows, a.v.size};
    const struct heads key = {a.q.batch, a.k.heads, a.total, a.q.size},
                       value = {a.q.batch, a.k.heads, a.total, a.v.size};
    const struct heads scores = {a.q.batch, a.q.heads, a.q.rows, a.total};
    const enum dtype t = infer_dtype(n, 0);
    s = infer_shape(n, 0).rank == 3 ? out_3d(cx, n, 0, t, &y) : out_4d(cx, n, 0, t, &y);
    if (s == NPUC_OK)
        s = out_4d(cx, n, 1, infer_dtype(n, 1), &key);
    if (s == NPUC_OK)
        s = out_4d(cx, n, 2, infer_dtype(n, 2), &value);
    return s == NPUC_OK ? out_4d(cx, n, 3, t, &scores) : s;
}

/* Two products of q_rows x total x size per head, softmax between them. */
static void attention_work(double queries, double total, double width, struct cost *c)
{
    c->macs = 2 * queries * total * width;
    c->alu = 15 * queries * total;
}

static void attention_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    const struct value *q = node_in(n, 0), *k = node_in(n, 1), *past = node_in(n, 4);
    cost_bytes(cx, n, symbols, c);
    const bool flat = q->type->rank == 3;
    const double heads = flat ? (double)node_attr_int(n, "q_num_heads", 1) : cost_dim(cx, q, 1, symbols);
    const double size = flat ? cost_dim(cx, q, 2, symbols) / heads : cost_dim(cx, q, 3, symbols);
    const double total = cost_dim(cx, k, -2, symbols) + (past ? cost_dim(cx, past, -2, symbols) : 0);
    attention_work(cost_dim(cx, q, 0, symbols) * heads * cost_dim(cx, q, -2, symbols), total, size, c);
}

/* ---- RotaryEmbedding (ONNX): X, cos, sin, optional positions */

static enum npuc_status rotary_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    const struct shape x = infer_shape(n, 0);
    if (s == NPUC_OK)
        s = infer_is_float(cx, n, 0);
    if (s == NPUC_OK)
        s = infer_dtype_is(cx, n, 3, DT_I64, DT_I64);
    struct heads h;
    if (s == NPUC_OK)
        s = read_heads(cx, n, 0, node_attr_int(n, "num_heads", 0), &h);
    for (int i = 1; i < 3 && s == NPUC_OK; i++) {
        const struct shape c = infer_shape(n, i);
        const int rank = infer_has(n, 3) ? 2 : 3;
        if (c.rank >= 0 && c.rank != rank)
            return infer_rank_error(
                cx, n, i, infer_has(n, 3) ? "rank 2 (positions are given)" : "rank 3 (no positions are given)");
    }
    if (s != NPUC_OK)
        return s;
    return x.rank < 0 ? infer_out_unknown(cx, n, 0, infer_dtype(n, 0)) : infer_out(cx, n, 0, infer_dtype(n, 0), &x);
}

/* ---- GroupQueryAttention (com.microsoft) */

static enum npuc_status gqa_legal(struct ir_ctx *cx, struct node *n)
{
    const int64_t q = node_attr_int(n, "num_heads", 0), kv = node_attr_int(n, "kv_num_heads", 0);
    if (q < 1 || kv < 1 || q % kv || q > 65536)
        return node_error(cx, n, D_ATTRIBUTE,
                          "%lld query heads (num_heads) are no multiple of %lld key heads (kv_num_heads)", (long long)q,
                          (long long)kv);
    if (infer_has(n, 1) != infer_has(n, 2))
        return node_error(cx, n, D_ARITY, "key (input 1) and value (input 2) come together");
    if (node_attr_int(n, "do_rotary", 0) && (!infer_has(n, 7) || !infer_has(n, 8)))
        return node_error(cx, n, D_ARITY, "do_rotary is 1, but the caches (inputs 7 and 8) are missing");
    if (!infer_attr_is(cx, n, "k_quant_type", "NONE") || !infer_attr_is(cx, n, "v_quant_type", "NONE"))
        return node_error(cx, n, D_UNSUPPORTED,
                          "a quantised key or value cache (k_quant_type, v_quant_type) is not supported");
    return NPUC_OK;
}

/* Rows of present: max(total_sequence_length, rows of the past buffer). For a growing cache that is past + new; for a
 * buffer given at its full size (past rows = present rows at run time) it is the buffer. Known total wins. */
static expr gqa_total(struct ir_ctx *cx, struct node *n, const struct heads *past, expr rows)
{
    const expr total = infer_has(n, 6) ? value_elem(cx, n->in[6].value, 0) : EXPR_INVALID;
    const expr buffer = past->rows;
    if (total)
        return buffer ? infer_max(cx, total, buffer) : total;
    return buffer && rows ? expr_add(&cx->exprs, buffer, rows) : buffer ? EXPR_INVALID : rows;
}

static enum npuc_status gqa_infer(struct ir_ctx *cx, struct node *n)
{
    struct heads past = {0};
    enum npuc_status s =
        n->n_in < 7 ? node_error(cx, n, D_ARITY, "GroupQueryAttention has %d inputs, expected 7 to 16", n->n_in)
                    : NPUC_OK;
    if (s == NPUC_OK)
        s = gqa_legal(cx, n);
    if (s == NPUC_OK && !infer_has(n, 0))
        s = node_error(cx, n, D_ARITY, "input 0 (query) is missing");
    if (s == NPUC_OK)
        s = takes_floats(cx, n);
    if (s != NPUC_OK)
        return s;
    const struct shape q = infer_shape(n, 0);
    const int64_t heads = node_attr_int(n, "num_heads", 1), kv = node_attr_int(n, "kv_num_heads", 1);
    if (q.rank >= 0 && q.rank != 3)
        return infer_rank_error(cx, n, 0, "rank 3");
    struct heads h;
    s = read_heads(cx, n, 0, infer_has(n, 1) ? heads : heads + 2 * kv, &h);
    if (s == NPUC_OK)
        s = read_heads(cx, n, 3, kv, &past);
    if (s == NPUC_OK)
        s = agree(cx, n, "head size", &h.size, past.size);
    if (s == NPUC_OK)
        s = infer_dtype_is(cx, n, 5, DT_I32, DT_I32);
    if (s != NPUC_OK)
        return s;
    h.heads = expr_const(&cx->exprs, heads);
    s = out_3d(cx, n, 0, infer_dtype(n, 0), &h);
    const enum dtype cache = infer_has(n, 3) ? infer_dtype(n, 3) : infer_dtype(n, 0);
    const expr total = gqa_total(cx, n, &past, h.rows);
    const struct heads present = {h.batch, expr_const(&cx->exprs, kv), total, h.size};
    for (int i = 1; i < 3 && s == NPUC_OK; i++)
        s = out_4d(cx, n, i, cache, &present);
    const struct heads scores = {h.batch, h.heads, h.rows, total};
    return s == NPUC_OK ? out_4d(cx, n, 3, infer_dtype(n, 0), &scores) : s;
}

static void gqa_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    const struct value *q = node_in(n, 0), *present = node_out(n, 1), *past = node_in(n, 3);
    cost_bytes(cx, n, symbols, c);
    const double heads = (double)node_attr_int(n, "num_heads", 1), rows = cost_dim(cx, q, 1, symbols);
    const double total =
        present ? cost_dim(cx, present, 2, symbols) : rows + (past ? cost_dim(cx, past, 2, symbols) : 0);
    const double width = cost_dim(cx, &n->out[0], 2, symbols) / heads;
    attention_work(cost_dim(cx, q, 0, symbols) * heads * rows, total, width, c);
}

/* ---- MultiHeadAttention (com.microsoft) */

/* Packed forms: query [B,S,N,3,H]; key [B,L,N,2,H]; a 4-D key is a finished cache [B,N,L,H]. */
static enum npuc_status mha_operands(struct ir_ctx *cx, struct node *n, struct attention *a)
{
    const int64_t heads = node_attr_int(n, "num_heads", 0);
    const struct shape q = infer_shape(n, 0), k = infer_shape(n, 1);
    if (heads < 1 || heads > 65536)
        return node_error(cx, n, D_ATTRIBUTE, "attribute 'num_heads' is %lld, expected a positive number",
                          (long long)heads);
    if (q.rank == 5) {
        a->q = a->k = a->v = (struct heads){q.d[0], q.d[2], q.d[1], q.d[4]};
        return NPUC_OK;
    }
    enum npuc_status s = read_heads(cx, n, 0, heads, &a->q);
    if (s != NPUC_OK)
        return s;
    if (k.rank == 5) {
        a->k = a->v = (struct heads){k.d[0], k.d[2], k.d[1], k.d[4]};
        return NPUC_OK;
    }
    s = read_heads(cx, n, 1, heads, &a->k);
    if (s == NPUC_OK)
        s = read_heads(cx, n, 2, heads, &a->v);
    if (s == NPUC_OK)
        s = agree(cx, n, "head size of query and key", &a->q.size, a->k.size);
    return s == NPUC_OK ? agree(cx, n, "number of key rows", &a->k.rows, a->v.rows) : s;
}

/* The bias is that of the query, the key and the value, one after the other. */
static enum npuc_status mha_bias(struct ir_ctx *cx, struct node *n)
{
    const struct shape q = infer_shape(n, 0), k = infer_shape(n, 1), v = infer_shape(n, 2), bias = infer_shape(n, 3);
    if (bias.rank >= 0 && bias.rank != 1)
        return infer_rank_error(cx, n, 3, "rank 1");
    if (bias.rank < 0 || q.rank != 3 || k.rank != 3 || v.rank != 3)
        return NPUC_OK;
    const expr sum = expr_add(&cx->exprs, q.d[2], expr_add(&cx->exprs, k.d[2], v.d[2]));
    if (!infer_dim_same(cx, bias.d[0], sum))
        return node_error(cx, n, D_SHAPE_MISMATCH, "input 3 (bias) has %s values, expected %s",
                          infer_dim_text(cx, bias.d[0]), infer_dim_text(cx, sum));
    return NPUC_OK;
}

static enum npuc_status mha_infer(struct ir_ctx *cx, struct node *n)
{
    struct attention a = {0};
    struct heads past = {0};
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = takes_floats(cx, n);
    if (s == NPUC_OK)
        s = mha_operands(cx, n, &a);
    if (s == NPUC_OK)
        s = read_heads(cx, n, 6, 0, &past);
    if (s == NPUC_OK)
        s = mha_bias(cx, n);
    const expr batches[] = {a.k.batch, a.v.batch, past.batch};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(batches) && s == NPUC_OK; i++)
        s = agree(cx, n, "batch", &a.q.batch, batches[i]);
    if (s != NPUC_OK)
        return s;
    const expr heads = expr_const(&cx->exprs, node_attr_int(n, "num_heads", 1));
    a.total = !infer_has(n, 6)        ? a.k.rows
              : past.rows && a.k.rows ? expr_add(&cx->exprs, past.rows, a.k.rows)
                                      : EXPR_INVALID;
    if (infer_has(n, 8)) /* past_sequence_length: the past buffer has its full size and is shared */
        a.total = past.rows;
    const enum dtype t = infer_dtype(n, 0);
    const struct heads y = {a.q.batch, heads, a.q.rows, a.v.size};
    const struct heads key = {a.q.batch, heads, a.total, a.q.size}, value = {a.q.batch, heads, a.total, a.v.size};
    const struct heads scores = {a.q.batch, heads, a.q.rows, a.total};
    s = out_3d(cx, n, 0, t, &y);
    if (s == NPUC_OK)
        s = out_4d(cx, n, 1, t, &key);
    if (s == NPUC_OK)
        s = out_4d(cx, n, 2, t, &value);
    return s == NPUC_OK ? out_4d(cx, n, 3, t, &scores) : s;
}

static void mha_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    const struct value *q = node_in(n, 0), *k = node_in(n, 1), *past = node_in(n, 6), *y = &n->out[0];
    cost_bytes(cx, n, symbols, c);
    const double heads = (double)node_attr_int(n, "num_heads", 1), rows = cost_dim(cx, y, 1, symbols);
    double total = past ? cost_dim(cx, past, 2, symbols) : 0;
    total += !k ? rows : k->type->rank == 4 ? cost_dim(cx, k, 2, symbols) : cost_dim(cx, k, 1, symbols);
    attention_work(cost_dim(cx, q, 0, symbols) * heads * rows, total, cost_dim(cx, y, 2, symbols) / heads, c);
}

/* ---- SoftmaxMatMul (own): scores [batch .., rows, total], values [batch .., total, size], sink */

static enum npuc_status softmax_matmul_legal(struct ir_ctx *cx, struct node *n)
{
    const int64_t empty = node_attr_int(n, "empty", 0), group = node_attr_int(n, "group", 1);
    if (empty < ATTEND_EMPTY_NAN || empty > ATTEND_EMPTY_OR_NAN_ZERO)
        return node_error(cx, n, D_ATTRIBUTE, "attribute 'empty' is %lld, expected 0..2", (long long)empty);
    if (group < 1)
        return node_error(cx, n, D_ATTRIBUTE, "attribute 'group' is %lld, expected a positive number",
                          (long long)group);
    const float scale = node_attr_float(n, "scale", 1.0f);
    if (!(scale > 0 && scale <= 1)) /* larger ones overflow where a row is masked */
        return node_error(cx, n, D_ATTRIBUTE, "attribute 'scale' is %g, expected more than 0 and at most 1",
                          (double)scale);
    return NPUC_OK;
}

static enum npuc_status softmax_matmul_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status st = infer_begin(cx, n);
    if (st == NPUC_OK)
        st = softmax_matmul_legal(cx, n);
    if (st == NPUC_OK)
        st = infer_is_float(cx, n, 0);
    if (st == NPUC_OK)
        st = infer_is_float(cx, n, 1);
    if (st != NPUC_OK)
        return st;
    struct shape s = infer_shape(n, 0);
    const struct shape v = infer_shape(n, 1);
    if (s.rank < 0 || v.rank < 0)
        return infer_out_unknown(cx, n, 0, infer_dtype(n, 1));
    if (s.rank < 2)
        return infer_rank_error(cx, n, 0, "rank 2 or more");
    const int trans = node_attr_int(n, "transB", 0) != 0;
    if (v.rank != s.rank || !infer_dim_same(cx, v.d[v.rank - 2 + trans], s.d[s.rank - 1]))
        return node_error(cx, n, D_SHAPE_MISMATCH, "scores of type %s and values of type %s do not multiply",
                          type_text(cx, n->in[0].value->type), type_text(cx, n->in[1].value->type));
    for (int i = 0; i < s.rank - 2; i++)
        if (!infer_dim_is(cx, v.d[i], 1) && !infer_dim_same(cx, s.d[i], v.d[i]))
            return node_error(cx, n, D_SHAPE_MISMATCH, "values of type %s are not for the batch of scores of type %s",
                              type_text(cx, n->in[1].value->type), type_text(cx, n->in[0].value->type));
    s.d[s.rank - 1] = v.d[v.rank - 1 - trans];
    return infer_out(cx, n, 0, infer_dtype(n, 1), &s);
}

static void softmax_matmul_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    const struct value *s = node_in(n, 0);
    double rows = 1;
    cost_bytes(cx, n, symbols, c);
    for (int i = 0; i + 1 < s->type->rank; i++)
        rows *= cost_dim(cx, s, i, symbols);
    const double total = cost_dim(cx, s, -1, symbols);
    c->macs = rows * total * cost_dim(cx, &n->out[0], -1, symbols);
    c->alu = 15 * rows * total;
}

#include "ir/ops/rows.h"

#include "ir/ops/attention.def"
