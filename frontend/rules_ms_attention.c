/* Attention, QAttention, MultiHeadAttention and their decoding and packed forms as the core Attention. */
#include <inttypes.h>
#include <string.h>

#include "frontend/attend.h"

/* What the operators share: head counts, widths of the three projections, buffers. */
struct form {
    int64_t heads, width[3];
    float filter;
    expr batch, rows;
};

static enum npuc_status no_rotary(struct import *im, struct onode *n)
{
    if (onode_int(im, n, "do_rotary", 0) == 0)
        return NPUC_OK;
    return onode_fail(im, n, D_UNSUPPORTED,
                      "do_rotary is 1 without tables of cosines; export with GroupQueryAttention or RotaryEmbedding");
}

/* Widths of query, key and value from qkv_hidden_sizes, or thirds of the columns. */
static enum npuc_status widths(struct import *im, struct onode *n, const struct value *weights, struct form *f)
{
    const struct oattr *given = onode_attr(im, n, "qkv_hidden_sizes");
    int64_t columns;
    if (!expr_is_const(&im->cx->exprs, x_dim(weights, -1), &columns) || columns < 3)
        return onode_fail(im, n, D_SHAPE_MISMATCH, "the weights are %s, expected a known number of columns",
                          type_text(im->cx, weights->type));
    int64_t sum = 0;
    for (int i = 0; i < 3; i++) {
        const bool listed = given && given->a.kind == ATTR_INTS && given->a.len == 3;
        f->width[i] = listed ? given->a.v.ints[i] : columns / 3;
        if (f->width[i] < 1 || f->width[i] > columns || f->width[i] % f->heads)
            return onode_fail(im, n, D_SHAPE_MISMATCH, "projection %d has %" PRId64 " columns for %" PRId64 " heads", i,
                              f->width[i], f->heads);
        sum += f->width[i];
    }
    if (sum != columns || f->width[0] != f->width[1])
        return onode_fail(im, n, D_SHAPE_MISMATCH,
                          "query, key and value are %" PRId64 ", %" PRId64 " and %" PRId64 " columns of %" PRId64,
                          f->width[0], f->width[1], f->width[2], columns);
    return NPUC_OK;
}

/* Key and value rows of `past` [2, B, N, P, H], and a tensor like it of new ones. */
static void split_past(struct builder *b, struct value *past, struct value **k, struct value **v)
{
    *k = x_element(b, past, 0, 0);
    *v = x_element(b, past, 0, 1);
}

static struct value *join_present(struct builder *b, struct value *k, struct value *v)
{
    const int64_t front[] = {0};
    return x_concat(b, 0, 2, (struct value *[]){x_unsqueeze(b, k, 1, front), x_unsqueeze(b, v, 1, front)});
}

/* int64 [B] of the scalar input i. */
static struct value *per_batch(struct import *im, struct onode *n, int i, expr batch)
{
    return x_expand(&n->b, x_cast(&n->b, onode_scalar(im, n, i), DT_I64), 1, &batch);
}

/* Buffers with room for more rows: the new rows are written at `first`, and first + rows keys count. */
static void use_buffers(struct builder *b, struct attend *a, struct value *first, expr rows)
{
    a->k = attend_write(b, a->past_k, a->k, first);
    a->v = attend_write(b, a->past_v, a->v, first);
    a->valid = x_op2(b, OP_Add, first, x_size(b, rows));
    a->past_k = a->past_v = NULL;
}

/* Inputs of Attention after the projection, by their places in the operator. */
struct places {
    int mask, past, bias, past_length;
};

/* proj [B, S, D + D + Dv] through the attention; binds output 1 (present). */
static enum npuc_status self_attention(struct import *im, struct onode *n, struct form *f, struct value *proj,
                                       const struct places *at)
{
    struct builder *b = &n->b;
    struct value *part[3], *past = onode_in(n, at->past), *first = NULL;
    if (!attend_parts(b, proj, 3, f->width, part))
        return onode_done(im, n, NULL);
    struct attend a = {.q = attend_split(b, part[0], f->heads),
                       .k = attend_split(b, part[1], f->heads),
                       .v = attend_split(b, part[2], f->heads),
                       .causal = onode_int(im, n, "unidirectional", 0) != 0,
                       .scale = onode_float(im, n, "scale", 0.0f)};
    const bool buffer = past && onode_int(im, n, "past_present_share_buffer", 0) != 0 && onode_in(n, at->past_length);
    expr total = f->rows, before = x_num(b, 0);
    if (past) {
        split_past(b, past, &a.past_k, &a.past_v);
        before = buffer ? x_num(b, 0) : x_dim(past, 3);
        total = buffer ? x_dim(past, 3) : expr_add(&im->cx->exprs, before, f->rows);
    }
    if (buffer) {
        first = per_batch(im, n, at->past_length, f->batch);
        use_buffers(b, &a, first, f->rows);
        a.causal = true;
    }
    struct value *mask = onode_in(n, at->mask), *bias = onode_in(n, at->bias);
    struct value *hide = mask ? attend_mask(im, n, at->mask, f->batch, f->rows, total, before, f->filter) : NULL;
    if (mask && !hide)
        return onode_done(im, n, NULL);
    a.bias = attend_both(b, hide, bias);
    a.bias = a.bias && a.q ? x_cast(b, a.bias, a.q->type->dtype) : a.bias;
    struct value *y = attend_join(b, attend(b, &a));
    if (y && onode_wants(n, 1)) {
        struct value *present = join_present(b, a.keys, a.values);
        if (!present)
            return onode_done(im, n, NULL);
        onode_bind(im, n, 1, present);
    }
    return onode_done(im, n, y);
}

static enum npuc_status attention_begin(struct import *im, struct onode *n, int past, int mask, struct form *f)
{
    enum npuc_status s = onode_needs(im, n, 2);
    if (s == NPUC_OK)
        s = onode_rank(im, n, 0, 3, 3);
    if (s == NPUC_OK)
        s = onode_rank(im, n, 1, 2, 2);
    if (s == NPUC_OK)
        s = onode_rank(im, n, past, 5, 5);
    if (s == NPUC_OK)
        s = onode_rank(im, n, mask, 1, 4);
    if (s == NPUC_OK)
        s = onode_int_in(im, n, "num_heads", 0, 1, 65536, &f->heads);
    if (s == NPUC_OK)
        s = no_rotary(im, n);
    if (s != NPUC_OK)
        return s;
    f->filter = onode_float(im, n, "mask_filter_value", -10000.0f);
    f->batch = x_dim(n->in[0], 0);
    f->rows = x_dim(n->in[0], 1);
    return widths(im, n, n->in[1], f);
}

/* input, weights, bias, mask_index, past, attention_bias, past_sequence_length */
enum npuc_status rule_ms_attention(struct import *im, struct onode *n)
{
    static const struct places at = {3, 4, 5, 6};
    struct form f;
    const enum npuc_status s = attention_begin(im, n, at.past, at.mask, &f);
    if (s != NPUC_OK)
        return s;
    struct value *bias = onode_in(n, 2), *proj = x_product(&n->b, n->in[0], n->in[1], false);
    return self_attention(im, n, &f, x_add_opt(&n->b, proj, bias, bias != NULL), &at);
}

/* As Attention with one query row and its past in a buffer; beam_width and cache_indirection follow. */
enum npuc_status rule_masked_self_attention(struct import *im, struct onode *n)
{
    if (onode_in(n, 8))
        return onode_fail(im, n, D_UNSUPPORTED, "beams that share caches (cache_indirection) are not supported");
    onode_set_int(im, n, "unidirectional", 1);
    return rule_ms_attention(im, n);
}

/* input, weight, bias, scales of both, mask_index, zero points of both, past */
enum npuc_status rule_q_attention(struct import *im, struct onode *n)
{
    static const struct places at = {5, 8, 9, 9};
    struct builder *b = &n->b;
    struct form f;
    enum npuc_status s = onode_needs(im, n, 5);
    if (s == NPUC_OK)
        s = attention_begin(im, n, at.past, at.mask, &f);
    if (s != NPUC_OK)
        return s;
    struct value *scale = x_op2(b, OP_Mul, onode_scalar(im, n, 3), onode_scalar(im, n, 4));
    struct value *proj = x_integer_product(b, n->in[0], n->in[1], onode_scalar(im, n, 6), onode_scalar(im, n, 7));
    proj = x_op2(b, OP_Add, x_op2(b, OP_Mul, proj, x_cast(b, scale, DT_F32)), x_cast(b, n->in[2], DT_F32));
    return self_attention(im, n, &f, x_cast(b, proj, n->in[2]->type->dtype), &at);
}

/* ---- MultiHeadAttention: query, key, value, bias, key_padding_mask, attention_bias, past key and value,
 * past_sequence_length, cache_indirection. The decoding form has its inputs in another order. */

enum mha { QUERY, KEY, VALUE, BIAS, PADDING, SCORE_BIAS, PAST_K, PAST_V, PAST_LENGTH, BEAMS, MHA_INPUTS };

/* Columns from..from + width of the bias, added to x [B, S, width]. */
static struct value *biased(struct builder *b, struct value *x, struct value *bias, int64_t from, int64_t width)
{
    if (!bias)
        return x;
    return x_op2(b, OP_Add, x, x_slice(b, bias, 0, x_num(b, from), x_num(b, from + width)));
}

/* [B, S, N, parts, H] to the parts, each [B, S, N * H]. */
static void unpack(struct builder *b, struct value *x, int parts, struct value **out)
{
    struct expr_pool *p = &b->cx->exprs;
    const expr dims[3] = {x_dim(x, 0), x_dim(x, 1), expr_mul(p, x_dim(x, 2), x_dim(x, 4))};
    for (int i = 0; i < parts; i++)
        out[i] = x_reshape(b, x_element(b, x, 3, i), 3, dims);
}

/* The three operands as heads; a 4-D key or value is a finished cache. */
static enum npuc_status mha_operands(struct import *im, struct onode *n, struct value *const *in, int64_t heads,
                                     struct attend *a)
{
    struct builder *b = &n->b;
    struct value *x[3] = {in[QUERY], in[KEY], in[VALUE]}, **out[3] = {&a->q, &a->k, &a->v};
    if (x[0]->type->rank == 5)
        unpack(b, x[0], 3, x);
    else if (x[1] && x[1]->type->rank == 5)
        unpack(b, x[1], 2, x + 1);
    int64_t from = 0, width;
    for (int i = 0; i < 3; i++) {
        if (!x[i])
            return onode_fail(im, n, D_ARITY, "key and value (inputs 1 and 2) are missing");
        if (x[i]->type->rank == 4) {
            *out[i] = x[i];
            continue;
        }
        if (x[i]->type->rank != 3 || !expr_is_const(&im->cx->exprs, x_dim(x[i], 2), &width) || width < heads ||
            width % heads)
            return onode_fail(im, n, D_SHAPE_MISMATCH,
                              "operand %d is %s, expected 3 dims of which %" PRId64 " heads divide the last", i,
                              type_text(im->cx, x[i]->type), heads);
        *out[i] = attend_split(b, biased(b, x[i], in[BIAS], from, width), heads);
        from += width;
    }
    return NPUC_OK;
}

/* Rows of the past of each beam, which may come from another one: cache [B * beams, N, max, H], indices [B, beams,
 * max]. */
static struct value *follow_beams(struct builder *b, struct value *cache, struct value *beams)
{
    if (!cache || !beams || cache->type->rank != 4 || beams->type->rank != 3)
        return NULL;
    const int64_t axes[] = {2, 4};
    const expr *c = cache->type->dims, *at = beams->type->dims;
    const expr dims[5] = {at[0], at[1], c[1], c[2], c[3]};
    struct value *wide = x_reshape(b, cache, 5, dims);
    struct value *index = x_slice(b, x_cast(b, beams, DT_I64), 2, x_num(b, 0), c[2]);
    index = x_expand(b, x_unsqueeze(b, index, 2, axes), 5, dims);
    struct node *pick = x_node(b, OP_GatherElements, 2, 2, (struct value *[]){wide, index}, 1);
    if (pick)
        ir_set_int(pick, "axis", 1);
    return x_reshape(b, x_out(pick), 4, c);
}

/* Past rows in a buffer; with beams the kept buffer and the one that is attended to differ. */
static void mha_buffers(struct import *im, struct onode *n, struct value *const *in, int length_at, struct attend *a,
                        struct value *kept[2])
{
    struct builder *b = &n->b;
    struct value *first = per_batch(im, n, length_at, x_dim(in[QUERY], 0)), *new_k = a->k, *new_v = a->v;
    const expr rows = a->k ? x_dim(a->k, 2) : x_num(b, 1);
    use_buffers(b, a, first, rows);
    kept[0] = a->k;
    kept[1] = a->v;
    if (!in[BEAMS])
        return;
    a->k = attend_write(b, follow_beams(b, in[PAST_K], in[BEAMS]), new_k, first);
    a->v = attend_write(b, follow_beams(b, in[PAST_V], in[BEAMS]), new_v, first);
}

static enum npuc_status mha(struct import *im, struct onode *n, struct value *const *in, int padding_at, int length_at,
                            bool buffer)
{
    struct builder *b = &n->b;
    int64_t heads;
    enum npuc_status s = onode_int_in(im, n, "num_heads", 0, 1, 65536, &heads);
    struct attend a = {.causal = onode_int(im, n, "unidirectional", 0) != 0,
                       .scale = onode_float(im, n, "scale", 0.0f),
                       .want_scores = onode_wants(n, 3)};
    struct value *kept[2] = {NULL, NULL};
    if (s == NPUC_OK)
        s = mha_operands(im, n, in, heads, &a);
    if (s != NPUC_OK || !a.q || !a.k || !a.v)
        return s == NPUC_OK ? onode_done(im, n, NULL) : s;
    const bool cross = in[KEY] && in[KEY]->type->rank == 4;
    expr before = x_num(b, 0);
    a.past_k = cross ? NULL : in[PAST_K];
    a.past_v = cross ? NULL : in[PAST_V];
    if (buffer && a.past_k) {
        mha_buffers(im, n, in, length_at, &a, kept);
        a.causal = true;
        if (!a.k || !a.v)
            return onode_done(im, n, NULL);
    }
    before = a.past_k ? x_dim(a.past_k, 2) : before;
    const expr total = expr_add(&im->cx->exprs, before, x_dim(a.k, 2)), rows = x_dim(a.q, 2);
    struct value *hide = NULL;
    if (in[PADDING]) {
        const float filter = onode_float(im, n, "mask_filter_value", -10000.0f);
        hide = attend_mask(im, n, padding_at, x_dim(a.q, 0), rows, total, before, filter);
        if (!hide)
            return onode_done(im, n, NULL);
    }
    a.bias = x_cast(b, attend_both(b, hide, in[SCORE_BIAS]), a.q->type->dtype);
    struct value *y = attend_join(b, attend(b, &a));
    for (int i = 0; y && i < 2; i++)
        if (onode_wants(n, i + 1))
            onode_bind(im, n, i + 1, kept[i] ? kept[i] : i ? a.values : a.keys);
    if (y && onode_wants(n, 3))
        onode_bind(im, n, 3, a.scores);
    return onode_done(im, n, y);
}

static enum npuc_status mha_ranks(struct import *im, struct onode *n, const int *place)
{
    static const int lo[MHA_INPUTS] = {3, 3, 3, 1, 1, 4, 4, 4, 0, 3}, hi[MHA_INPUTS] = {5, 5, 4, 1, 4, 4, 4, 4, 1, 3};
    enum npuc_status s = onode_needs(im, n, 1);
    for (int i = 0; i < MHA_INPUTS && s == NPUC_OK; i++)
        s = onode_rank(im, n, place[i], lo[i], hi[i]);
    return s;
}

/* The plain form stays as it is; attention over a packed query or key, with other masks or in buffers is rewritten. */
enum npuc_status rule_multi_head(struct import *im, struct onode *n)
{
    static const int place[MHA_INPUTS] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    const struct value *q = onode_in(n, QUERY), *k = onode_in(n, KEY), *mask = onode_in(n, PADDING);
    const bool plain = q && k && onode_in(n, VALUE) && q->type->rank == 3 && k->type->rank != 5 && !onode_wants(n, 3) &&
                       (!mask || mask->type->rank == 2) && !onode_in(n, PAST_LENGTH) && !onode_in(n, BEAMS);
    if (plain)
        return NPUC_OK;
    const enum npuc_status s = mha_ranks(im, n, place);
    struct value *in[MHA_INPUTS];
    for (int i = 0; i < MHA_INPUTS; i++)
        in[i] = onode_in(n, i);
    return s == NPUC_OK ? mha(im, n, in, PADDING, PAST_LENGTH, in[PAST_LENGTH] != NULL) : s;
}

/* query, key, value, mask_index, attention_bias, past key and value, past length, beam_width, cache_indirection, bias
 */
enum npuc_status rule_masked_multi_head(struct import *im, struct onode *n)
{
    static const int place[MHA_INPUTS] = {0, 1, 2, 10, 3, 4, 5, 6, 7, 9};
    enum npuc_status s = mha_ranks(im, n, place);
    if (s != NPUC_OK)
        return s;
    struct value *in[MHA_INPUTS];
    for (int i = 0; i < MHA_INPUTS; i++)
        in[i] = onode_in(n, place[i]);
    const bool buffer = in[PAST_LENGTH] && onode_int(im, n, "past_present_share_buffer", 0) != 0;
    if (!in[KEY] && in[QUERY]->type->rank == 3) { /* all three side by side */
        int64_t width[3];
        struct form f;
        s = onode_int_in(im, n, "num_heads", 0, 1, 65536, &f.heads);
        if (s == NPUC_OK)
            s = widths(im, n, in[QUERY], &f);
        memcpy(width, f.width, sizeof width);
        if (s != NPUC_OK)
            return s;
        if (!attend_parts(&n->b, in[QUERY], 3, width, in))
            return onode_done(im, n, NULL);
    }
    return mha(im, n, in, place[PADDING], place[PAST_LENGTH], buffer);
}

/* ---- Tokens without padding: attention over the padded form with the lengths as mask, then packed again */

static enum npuc_status packed(struct import *im, struct onode *n, struct value *const part[3], int64_t heads,
                               int offset_at, float filter)
{
    struct builder *b = &n->b;
    struct value *offset = n->in[offset_at], *sums = n->in[offset_at + 1], *head[3];
    const expr total = x_dim(part[0], 0), rows = x_dim(offset, 1), batch = x_dim(offset, 0);
    for (int i = 0; i < 3; i++)
        head[i] = attend_split(b, x_unpack(b, part[i], offset), heads);
    const int64_t axes[] = {1, 2, 3};
    struct value *after = x_slice(b, sums, 0, x_num(b, 1), x_dim(sums, 0));
    struct value *length = x_op2(b, OP_Sub, after, x_slice(b, sums, 0, x_num(b, 0), batch));
    length = x_unsqueeze(b, x_cast(b, x_reshape(b, length, 1, &batch), DT_I64), 3, axes);
    struct value *hide = attend_hidden(b, x_op2(b, OP_Less, x_range(b, rows), length), filter);
    if (!hide || !head[0])
        return onode_done(im, n, NULL);
    struct attend a = {.q = head[0],
                       .k = head[1],
                       .v = head[2],
                       .scale = onode_float(im, n, "scale", 0.0f),
                       .bias = x_cast(b, attend_both(b, hide, onode_in(n, offset_at + 2)), head[0]->type->dtype)};
    return onode_done(im, n, x_pack(b, attend_join(b, attend(b, &a)), offset, total));
}

static enum npuc_status packed_begin(struct import *im, struct onode *n, int offset_at, int64_t *heads)
{
    enum npuc_status s = onode_int_in(im, n, "num_heads", 0, 1, 65536, heads);
    if (s == NPUC_OK && (!onode_in(n, 0) || !onode_in(n, offset_at) || !onode_in(n, offset_at + 1)))
        s = onode_fail(im, n, D_ARITY, "inputs 0, %d and %d are required", offset_at, offset_at + 1);
    if (s == NPUC_OK)
        s = onode_rank(im, n, offset_at, 2, 2);
    return s == NPUC_OK ? onode_rank(im, n, offset_at + 1, 1, 1) : s;
}

/* input [tokens, Din], weights, bias, token_offset, cumulative_sequence_length, attention_bias */
enum npuc_status rule_packed_attention(struct import *im, struct onode *n)
{
    struct form f;
    struct value *part[3];
    enum npuc_status s = packed_begin(im, n, 3, &f.heads);
    for (int i = 0; i < 2 && s == NPUC_OK; i++)
        s = onode_rank(im, n, i, 2, 2);
    if (s == NPUC_OK)
        s = onode_needs(im, n, 3);
    if (s == NPUC_OK)
        s = widths(im, n, n->in[1], &f);
    if (s != NPUC_OK)
        return s;
    struct value *proj = x_op2(&n->b, OP_Add, x_product(&n->b, n->in[0], n->in[1], false), n->in[2]);
    if (!attend_parts(&n->b, proj, 3, f.width, part))
        return onode_done(im, n, NULL);
    return packed(im, n, part, f.heads, 3, -10000.0f);
}

/* query [tokens, D] or [tokens, N, 3, H], key, value, bias, token_offset, cumulative_sequence_length, attention_bias */
enum npuc_status rule_packed_multi_head(struct import *im, struct onode *n)
{
    struct builder *b = &n->b;
    int64_t heads, width, from = 0;
    enum npuc_status s = packed_begin(im, n, 4, &heads);
    if (s == NPUC_OK)
        s = onode_rank(im, n, 0, 2, 4);
    for (int i = 1; i < 3 && s == NPUC_OK; i++)
        s = onode_rank(im, n, i, 2, 2);
    if (s == NPUC_OK && n->in[0]->type->rank != 4 && (!onode_in(n, 1) || !onode_in(n, 2)))
        s = onode_fail(im, n, D_ARITY, "key and value (inputs 1 and 2) are missing");
    if (s != NPUC_OK)
        return s;
    struct value *part[3] = {n->in[0], onode_in(n, 1), onode_in(n, 2)};
    if (n->in[0]->type->rank == 4) {
        const struct type *t = n->in[0]->type;
        const expr dims[2] = {t->dims[0], expr_mul(&im->cx->exprs, t->dims[1], t->dims[3])};
        for (int i = 0; i < 3; i++)
            part[i] = x_reshape(b, x_element(b, n->in[0], 2, i), 2, dims);
    }
    for (int i = 0; i < 3; i++) {
        if (!part[i])
            return onode_done(im, n, NULL);
        if (!expr_is_const(&im->cx->exprs, x_dim(part[i], 1), &width) || width < heads || width % heads)
            return onode_fail(im, n, D_SHAPE_MISMATCH, "operand %d is %s for %" PRId64 " heads", i,
                              type_text(im->cx, part[i]->type), heads);
        part[i] = biased(b, part[i], onode_in(n, 3), from, width);
        if (!part[i])
            return onode_done(im, n, NULL);
        from += width;
    }
    return packed(im, n, part, heads, 4, onode_float(im, n, "mask_filter_value", -10000.0f));
}
