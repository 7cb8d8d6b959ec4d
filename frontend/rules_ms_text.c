/* Embeddings, positions and padding of com.microsoft's transformer operators. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "frontend/expand.h"

enum embed_input { IDS, SEGMENTS, WORDS, POSITIONS, SEGMENT_TABLE, GAMMA, BETA, MASK, POSITION_IDS };

/* mask_index: the number of words that the mask keeps in each row; zeros without a mask. */
static struct value *kept_words(struct import *im, struct onode *n)
{
    struct builder *b = &n->b;
    struct value *mask = onode_in(n, MASK);
    const expr batch = x_dim(n->in[IDS], 0);
    const int32_t one = 1;
    (void)im;
    if (!mask)
        return x_zeros(b, DT_I32, 1, &batch);
    struct value *kept = x_op2(b, OP_Equal, x_cast(b, mask, DT_I32), ir_const(b, DT_I32, 0, NULL, &one, 4));
    return x_reduce(b, OP_ReduceSum, x_cast(b, kept, DT_I32), 1, false);
}

enum npuc_status rule_embed_layer_norm(struct import *im, struct onode *n)
{
    struct builder *b = &n->b;
    enum npuc_status s = onode_rank(im, n, IDS, 2, 2);
    if (s == NPUC_OK)
        s = onode_rank(im, n, POSITIONS, 2, 2);
    if (s == NPUC_OK && (!onode_in(n, IDS) || !onode_in(n, WORDS) || !onode_in(n, POSITIONS) || !onode_in(n, GAMMA) ||
                         !onode_in(n, BETA) || (onode_in(n, SEGMENTS) && !onode_in(n, SEGMENT_TABLE))))
        s = onode_fail(
            im, n, D_ARITY,
            "ids, word and position tables, gamma and beta are required, and a segment table for segment ids");
    if (s != NPUC_OK)
        return s;
    const bool segments = onode_in(n, SEGMENTS) && onode_in(n, SEGMENT_TABLE);
    struct value *ids = onode_in(n, POSITION_IDS);
    struct value *places = ids ? x_gather(b, n->in[POSITIONS], ids, 0)
                               : x_slice(b, n->in[POSITIONS], 0, x_num(b, 0), x_dim(n->in[IDS], 1));
    struct value *sum = x_op2(b, OP_Add, x_gather(b, n->in[WORDS], n->in[IDS], 0), places);
    if (segments)
        sum = x_op2(b, OP_Add, sum, x_gather(b, n->in[SEGMENT_TABLE], n->in[SEGMENTS], 0));
    struct value *index = onode_wants(n, 1) ? kept_words(im, n) : NULL;
    if (sum && onode_wants(n, 2))
        onode_bind(im, n, 2, sum);
    if (index)
        onode_bind(im, n, 1, index);
    const float epsilon = onode_float(im, n, "epsilon", 1e-12f);
    return onode_done(im, n, x_norm(b, OP_LayerNormalization, sum, n->in[GAMMA], n->in[BETA], epsilon));
}

/* ATen of org.pytorch.aten: the exporter's way out. Only embedding has a core form. */
enum npuc_status rule_aten(struct import *im, struct onode *n)
{
    const char *op = onode_str(im, n, "operator", "");
    if (strcmp(op, "embedding") != 0)
        return onode_fail(im, n, D_UNSUPPORTED,
                          "operator '%.60s' of PyTorch is not supported; export without the ATen fall-back", op);
    const enum npuc_status s = onode_needs(im, n, 2);
    return s == NPUC_OK ? onode_done(im, n, x_gather(&n->b, n->in[0], n->in[1], 0)) : s;
}

enum npuc_status rule_torch_embedding(struct import *im, struct onode *n)
{
    const enum npuc_status s = onode_needs(im, n, 2);
    return s == NPUC_OK ? onode_done(im, n, x_gather(&n->b, n->in[0], n->in[1], 0)) : s;
}

/* ---- T5's relative positions */

/* Bucket of each relative position (key - query): exact up to half of the buckets, then logarithmic. */
static struct value *buckets(struct builder *b, struct value *relative, int64_t count, int64_t max_distance, bool both)
{
    struct value *side = NULL, *distance;
    if (both) {
        count /= 2;
        side = x_op2(b, OP_Mul, x_cast(b, x_op2(b, OP_Greater, relative, x_int(b, 0)), DT_I64), x_int(b, count));
        distance = x_op1(b, OP_Abs, relative);
    } else {
        distance = x_op2(b, OP_Max, x_op1(b, OP_Neg, relative), x_int(b, 0));
    }
    const int64_t exact = count / 2;
    struct value *far = x_cast(b, x_op2(b, OP_Max, distance, x_int(b, 1)), DT_F32);
    const float factor = (float)(count - exact) / logf((float)max_distance / (float)exact);
    far = x_op1(b, OP_Log, x_op2(b, OP_Div, far, ir_scalar_f32(b, (float)exact)));
    far = x_op2(b, OP_Add, x_cast(b, x_op2(b, OP_Mul, far, ir_scalar_f32(b, factor)), DT_I64), x_int(b, exact));
    far = x_op2(b, OP_Min, far, x_int(b, count - 1));
    struct value *bucket = x_op3(b, OP_Where, x_op2(b, OP_Less, distance, x_int(b, exact)), distance, far);
    return side ? x_op2(b, OP_Add, bucket, side) : bucket;
}

/* Table [buckets, heads], length of query and key -> [1, heads, query, key]. */
enum npuc_status rule_relative_position_bias(struct import *im, struct onode *n)
{
    struct builder *b = &n->b;
    int64_t max_distance, count;
    const bool both = onode_int(im, n, "is_bidirectional", 0) != 0;
    enum npuc_status s = onode_needs(im, n, 3);
    if (s == NPUC_OK)
        s = onode_rank(im, n, 0, 2, 2);
    if (s == NPUC_OK)
        s = onode_int_in(im, n, "max_distance", 0, 1, INT32_MAX, &max_distance);
    if (s == NPUC_OK && (!expr_is_const(&im->cx->exprs, x_dim(n->in[0], 0), &count) ||
                         max_distance <= count / (both ? 4 : 2) || count < (both ? 4 : 2)))
        s = onode_fail(im, n, D_UNSUPPORTED, "a table of %s with max_distance %" PRId64 " is not supported",
                       type_text(im->cx, n->in[0]->type), max_distance);
    if (s != NPUC_OK)
        return s;
    const int64_t column[] = {1}, front[] = {0}, perm[] = {2, 0, 1};
    struct value *rows[2];
    for (int i = 0; i < 2; i++)
        rows[i] = x_op3(b, OP_Range, x_int(b, 0), x_cast(b, onode_scalar(im, n, i + 1), DT_I64), x_int(b, 1));
    struct value *relative = x_op2(b, OP_Sub, rows[1], x_unsqueeze(b, rows[0], 1, column));
    struct value *bias = x_gather(b, n->in[0], buckets(b, relative, count, max_distance, both), 0);
    return onode_done(im, n, x_unsqueeze(b, x_transpose(b, bias, perm), 1, front));
}

/* query [B, S, N * H] + bias, as heads; gates u, r = sigmoid of sums of halves of its projection;
 * result (u (r a - 1) + 2) * rel_pos. */
enum npuc_status rule_gated_relative_position_bias(struct import *im, struct onode *n)
{
    struct builder *b = &n->b;
    struct expr_pool *p = &im->cx->exprs;
    int64_t heads;
    enum npuc_status s = onode_needs(im, n, 6);
    if (s == NPUC_OK)
        s = onode_rank(im, n, 0, 3, 3);
    if (s == NPUC_OK)
        s = onode_rank(im, n, 4, 1, 1);
    if (s == NPUC_OK)
        s = onode_int_in(im, n, "num_heads", 0, 1, 65536, &heads);
    if (s == NPUC_OK && onode_in(n, 6))
        s = onode_fail(im, n, D_UNSUPPORTED, "packed tokens (input 6, token_offset) are not supported");
    if (s != NPUC_OK)
        return s;
    const struct type *t = n->in[0]->type;
    const expr head = x_num(b, heads), split[4] = {t->dims[0], t->dims[1], head, expr_floordiv(p, t->dims[2], head)};
    const int64_t perm[] = {0, 2, 1, 3};
    struct value *q = x_reshape(b, x_op2(b, OP_Add, n->in[0], n->in[1]), 4, split);
    q = x_op2(b, OP_Add, x_product(b, x_transpose(b, q, perm), n->in[3], false), n->in[4]);
    const expr pair[5] = {split[0], split[2], split[1], x_num(b, 2), expr_floordiv(p, x_dim(n->in[4], 0), x_num(b, 2))};
    struct value *gates = x_op1(b, OP_Sigmoid, x_reduce(b, OP_ReduceSum, x_reshape(b, q, 5, pair), 4, false));
    struct value *u = x_slice(b, gates, 3, x_num(b, 0), x_num(b, 1)),
                 *r = x_slice(b, gates, 3, x_num(b, 1), x_num(b, 2));
    struct value *gate = x_plus(b, x_op2(b, OP_Mul, u, x_plus(b, x_op2(b, OP_Mul, r, n->in[5]), -1.0)), 2.0);
    return onode_done(im, n, x_op2(b, OP_Mul, gate, n->in[2]));
}

/* ---- Padding on the right side, taken out and put back */

/* [B, S, D], tokens per row -> [total, D], offsets [B, S] (tokens first, then padding), sums [B + 1], longest [1]. */
enum npuc_status rule_remove_padding(struct import *im, struct onode *n)
{
    struct builder *b = &n->b;
    enum npuc_status s = onode_needs(im, n, 2);
    if (s == NPUC_OK)
        s = onode_rank(im, n, 0, 3, 3);
    if (s != NPUC_OK)
        return s;
    const struct type *t = n->in[0]->type;
    const int64_t column[] = {1}, zero = 0;
    const expr rows[2] = {expr_mul(&im->cx->exprs, t->dims[0], t->dims[1]), t->dims[2]};
    struct value *count = x_flat(b, n->in[1]), *places = x_range(b, t->dims[1]);
    struct value *kept = x_op2(b, OP_Less, places, x_unsqueeze(b, x_cast(b, count, DT_I64), 1, column));
    kept = x_flat(b, kept);
    struct node *pick = x_node(b, OP_Compress, 2, 2, (struct value *[]){x_reshape(b, n->in[0], 2, rows), kept}, 1);
    if (pick)
        ir_set_int(pick, "axis", 0);
    struct value *parts[2] = {x_flat(b, x_op1(b, OP_NonZero, kept)),
                              x_flat(b, x_op1(b, OP_NonZero, x_op1(b, OP_Not, kept)))};
    struct value *offset = x_cast(b, x_reshape(b, x_concat(b, 0, 2, parts), 2, t->dims), DT_I32);
    struct node *sums = x_node(b, OP_CumSum, 2, 2, (struct value *[]){count, x_int(b, 0)}, 1);
    struct value *sum[2] = {x_cast(b, ir_const_i64(b, &zero, 1), DT_I32), x_cast(b, x_out(sums), DT_I32)};
    struct value *out[4] = {x_out(pick), offset, x_concat(b, 0, 2, sum),
                            x_cast(b, x_reduce(b, OP_ReduceMax, count, 0, true), DT_I32)};
    for (int i = 0; i < 4; i++)
        if (out[i])
            onode_bind(im, n, i, out[i]);
    return onode_done(im, n, out[1] && out[2] && out[3] ? out[0] : NULL);
}

/* [total, D] and offsets [B, S] -> [B, S, D] with zeros at padding. */
enum npuc_status rule_restore_padding(struct import *im, struct onode *n)
{
    struct builder *b = &n->b;
    enum npuc_status s = onode_needs(im, n, 2);
    for (int i = 0; i < 2 && s == NPUC_OK; i++)
        s = onode_rank(im, n, i, 2, 2);
    if (s != NPUC_OK)
        return s;
    return onode_done(im, n, x_unpack(b, n->in[0], n->in[1]));
}

/* ---- N-grams: a token that would repeat one is given the score -inf */

enum npuc_status rule_ngram_repeat_block(struct import *im, struct onode *n)
{
    struct builder *b = &n->b;
    int64_t size;
    enum npuc_status s = onode_needs(im, n, 2);
    for (int i = 0; i < 2 && s == NPUC_OK; i++)
        s = onode_rank(im, n, i, 2, 2);
    if (s == NPUC_OK)
        s = onode_int_in(im, n, "ngram_size", 0, 1, 64, &size);
    if (s != NPUC_OK)
        return s;
    struct expr_pool *p = &im->cx->exprs;
    const expr length = x_dim(n->in[0], 1), count = expr_max(p, expr_sub(p, length, x_num(b, size - 1)), x_num(b, 0));
    struct value *ids = x_cast(b, n->in[0], DT_I64), *first = x_range(b, count), *match = NULL;
    for (int64_t j = 0; j + 1 < size; j++) { /* word j of the gram at each place against word j of the unfinished one */
        const expr last = expr_max(p, expr_sub(p, length, x_num(b, size - 1 - j)), x_num(b, 0));
        struct value *word = x_gather(b, ids, x_op2(b, OP_Add, first, x_int(b, j)), 1);
        struct value *same = x_op2(b, OP_Equal, word, x_gather(b, ids, ir_sizes(b, &last, 1, false), 1));
        match = match ? x_op2(b, OP_And, match, same) : same;
    }
    struct value *next = x_gather(b, ids, x_op2(b, OP_Add, first, x_int(b, size - 1)), 1), *scores = n->in[1];
    struct value *free = ir_scalar_like(b, scores, INFINITY), *block = ir_scalar_like(b, scores, -INFINITY), *update;
    if (size > 1)
        update = x_op3(b, OP_Where, match, block, free);
    else
        update = next ? x_expand(b, block, 2, next->type->dims) : NULL;
    struct node *put = x_node(b, OP_ScatterElements, 3, 3, (struct value *[]){scores, next, update}, 1);
    if (put) {
        ir_set_int(put, "axis", 1);
        ir_set_str(put, "reduction", "min");
    }
    return onode_done(im, n, x_out(put));
}

/* ---- Rotary embedding by three streams of positions */

/* One table of [B, S, half] from the three: columns of stream i are those that `layout` gives it. */
static struct value *three_streams(struct builder *b, struct value *table, struct value *ids, const int64_t *section,
                                   bool interleaved)
{
    struct value *part[3];
    const int64_t half = section[0] + section[1] + section[2];
    int64_t from = 0;
    for (int i = 0; i < 3; i++) {
        struct value *columns = interleaved ? table : x_slice(b, table, 1, x_num(b, from), x_num(b, from + section[i]));
        part[i] = x_gather(b, columns, x_element(b, ids, 0, i), 0);
        from += section[i];
    }
    if (!interleaved)
        return x_concat(b, 2, 3, part);
    struct value *all = part[0], *column = x_range(b, x_num(b, half)), *third = x_op2(b, OP_Mod, column, x_int(b, 3));
    for (int i = 1; i < 3; i++) {
        struct value *mine = x_op2(b, OP_And, x_op2(b, OP_Equal, third, x_int(b, i)),
                                   x_op2(b, OP_Less, column, x_int(b, 3 * section[i])));
        all = x_op3(b, OP_Where, mine, part[i], all);
    }
    return all;
}

enum npuc_status rule_m_rotary(struct import *im, struct onode *n)
{
    struct builder *b = &n->b;
    int64_t layout;
    enum npuc_status s = onode_needs(im, n, 4);
    if (s == NPUC_OK)
        s = onode_rank(im, n, 0, 3, 4);
    if (s == NPUC_OK)
        s = onode_rank(im, n, 1, 3, 3);
    for (int i = 2; i < 4 && s == NPUC_OK; i++)
        s = onode_rank(im, n, i, 2, 2);
    if (s == NPUC_OK)
        s = onode_int_in(im, n, "mrope_layout", 0, 0, 1, &layout);
    if (s == NPUC_OK && (onode_int(im, n, "is_packed_batching", 0) || onode_float(im, n, "scale", 1.0f) != 1.0f))
        s = onode_fail(im, n, D_UNSUPPORTED, "is_packed_batching and scale are not supported");
    const struct oattr *list = onode_attr(im, n, "mrope_section");
    if (s == NPUC_OK && (!list || list->a.kind != ATTR_INTS || list->a.len != 3))
        s = onode_bad_attr(im, n, "mrope_section", "expected three integers");
    int64_t section[3], half = 0;
    for (int i = 0; i < 3 && s == NPUC_OK; i++) {
        section[i] = list->a.v.ints[i];
        if (section[i] < 0 || section[i] > INT32_MAX)
            s = onode_bad_attr(im, n, "mrope_section", "%" PRId64 " is out of range", section[i]);
        half += section[i];
    }
    if (s != NPUC_OK)
        return s;
    struct value *in[3] = {n->in[0]};
    for (int i = 1; i < 3; i++)
        in[i] = three_streams(b, n->in[i + 1], n->in[1], section, layout == 1);
    struct node *r = x_node(b, OP_RotaryEmbedding, 3, 3, in, 1);
    int64_t heads = onode_int(im, n, "num_heads", 0), width;
    if (heads == 0 && n->in[0]->type->rank == 3 && onode_int(im, n, "rotary_embedding_dim", 0) == 0 && half > 0 &&
        expr_is_const(&im->cx->exprs, x_dim(n->in[0], 2), &width))
        heads = width / (2 * half);
    if (r) {
        ir_set_int(r, "num_heads", heads);
        ir_set_int(r, "interleaved", onode_int(im, n, "interleaved", 0));
        ir_set_int(r, "rotary_embedding_dim", onode_int(im, n, "rotary_embedding_dim", 0));
    }
    return onode_done(im, n, x_out(r));
}
