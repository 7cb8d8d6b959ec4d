/* Attention over block-sparse keys and over paged caches: SparseAttention, PagedAttention. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "frontend/attend.h"

/* ---- SparseAttention: GroupQueryAttention whose mask is made of blocks */

enum { S_PAST_K = 3, S_ROWS = 5, S_COLUMNS = 6, S_TOTAL = 7, S_LENGTHS = 8, S_COS = 9, S_SIN = 10 };

/* The mask of blocks [layouts, n, n] as float 0 or 1 from its compressed rows: entry p of a layout is in row r when
 * rows[r] <= p < rows[r + 1]. A product of both indicators counts the entries of each block. */
static struct value *block_mask(struct onode *n)
{
    struct builder *b = &n->b;
    struct value *rows = x_cast(b, n->in[S_ROWS], DT_I64), *columns = x_cast(b, n->in[S_COLUMNS], DT_I64);
    const int64_t last[] = {2};
    if (!rows || !columns)
        return NULL;
    const expr blocks = expr_sub(&b->cx->exprs, x_dim(rows, 1), x_num(b, 1));
    struct value *entry = x_range(b, x_dim(columns, 1));
    struct value *from = x_unsqueeze(b, x_slice(b, rows, 1, x_num(b, 0), blocks), 1, last);
    struct value *to = x_unsqueeze(b, x_slice(b, rows, 1, x_num(b, 1), x_dim(rows, 1)), 1, last);
    struct value *in_row = x_op2(b, OP_And, x_op2(b, OP_GreaterOrEqual, entry, from), x_op2(b, OP_Less, entry, to));
    struct value *in_column = x_op2(b, OP_Equal, x_unsqueeze(b, columns, 1, last), x_range(b, blocks));
    return x_product(b, x_cast(b, in_row, DT_F32), x_cast(b, in_column, DT_F32), false);
}

/* Term of the scores [B, N, S, keys]: 0 where the block of (position of the query, key) is in the mask of the head. */
static struct value *block_bias(struct import *im, struct onode *n, int64_t heads, int64_t size, expr keys)
{
    struct builder *b = &n->b;
    struct expr_pool *p = &im->cx->exprs;
    const expr rows = x_dim(n->in[0], 1), zero = x_num(b, 0);
    const int64_t column[] = {1}, heads_first[] = {1, 0, 2, 3};
    struct value *mask = block_mask(n), *key = x_op2(b, OP_Div, x_range(b, keys), x_int(b, size));
    if (!mask)
        return NULL;
    const expr last = expr_sub(p, x_dim(mask, 2), x_num(b, 1));
    struct value *length = x_cast(b, x_flat(b, n->in[S_LENGTHS]), DT_I64);
    struct value *first = x_op2(b, OP_Max, x_op2(b, OP_Sub, length, x_size(b, rows)), x_int(b, 0));
    struct value *at = x_op2(b, OP_Add, x_unsqueeze(b, first, 1, column), x_range(b, rows));
    at = x_op2(b, OP_Min, x_op2(b, OP_Div, at, x_int(b, size)), x_size(b, last));
    mask = x_gather(b, mask, x_op2(b, OP_Min, key, x_size(b, last)), 2);
    mask = x_transpose(b, x_gather(b, mask, at, 1), heads_first);
    struct value *layout = x_op2(b, OP_Mod, x_range(b, x_num(b, heads)), x_size(b, mask ? x_dim(mask, 1) : zero));
    mask = x_gather(b, mask, layout, 1);
    return mask ? attend_hidden(b, x_op2(b, OP_Greater, mask, ir_scalar_f32(b, 0.0f)), -INFINITY) : NULL;
}

enum npuc_status rule_sparse_attention(struct import *im, struct onode *n)
{
    struct builder *b = &n->b;
    int64_t heads, size;
    enum npuc_status s = onode_int_in(im, n, "num_heads", 0, 1, 65536, &heads);
    if (s == NPUC_OK)
        s = onode_int_in(im, n, "sparse_block_size", 0, 1, INT32_MAX, &size);
    static const int required[] = {0, 3, 4, 5, 6, 7, 8}, rank[] = {3, 4, 4, 2, 2, 0, 1};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(required) && s == NPUC_OK; i++) {
        s = onode_in(n, required[i]) ? onode_rank(im, n, required[i], rank[i], rank[i] ? rank[i] : 1)
                                     : onode_fail(im, n, D_ARITY, "required input %d is missing", required[i]);
    }
    if (s != NPUC_OK)
        return s;
    struct value *bias = block_bias(im, n, heads, size, x_dim(n->in[S_PAST_K], 2));
    struct value *last = x_cast(b, x_plus(b, n->in[S_LENGTHS], -1), DT_I32);
    if (!bias || !last)
        return onode_done(im, n, NULL);
    /* present is the past buffer itself: as many rows as that has */
    struct value *total = ir_cast(b, x_size(b, x_dim(n->in[S_PAST_K], 2)), DT_I32), *cos = onode_in(n, S_COS),
                 *sin = onode_in(n, S_SIN);
    bias = x_cast(b, bias, n->in[0]->type->dtype);
    onode_drop(im, n, "sparse_block_size");
    onode_set_in(im, n, 5, last);
    onode_set_in(im, n, 6, total);
    onode_set_in(im, n, 7, cos);
    onode_set_in(im, n, 8, sin);
    onode_set_in(im, n, 9, NULL);
    onode_set_in(im, n, 10, bias);
    onode_rename(im, n, "GroupQueryAttention");
    return NPUC_OK;
}

/* ---- PagedAttention: every token is a batch entry that attends to the pages of its sequence */

enum paged_input {
    QUERY,
    KEY,
    VALUE,
    K_CACHE,
    V_CACHE,
    SUMS,
    PAST,
    TABLE,
    COS,
    SIN,
    SLOTS,
    SINK,
    Q_NORM,
    K_NORM,
    K_SCALE,
    V_SCALE
};

struct paged {
    struct import *im;
    struct onode *n;
    struct builder *b;
    int64_t heads, kv_heads, v_size;
    bool latent;
    expr tokens, size, block;          /* size of a head, rows of a page */
    struct value *sequence, *position; /* int64 [tokens] */
    struct value *end;                 /* int64 [tokens]: keys of the sequence */
};

/* Of each token: its sequence, and its position behind the past of that. */
static void places(struct paged *p)
{
    struct builder *b = p->b;
    const int64_t column[] = {1};
    struct value *sums = x_cast(b, p->n->in[SUMS], DT_I64), *past = x_cast(b, p->n->in[PAST], DT_I64);
    const expr batch = x_dim(p->n->in[PAST], 0);
    struct value *ends = x_slice(b, sums, 0, x_num(b, 1), x_dim(p->n->in[SUMS], 0)), *token = x_range(b, p->tokens);
    struct value *before = x_op2(b, OP_LessOrEqual, ends, x_unsqueeze(b, token, 1, column));
    p->sequence = x_reduce(b, OP_ReduceSum, x_cast(b, before, DT_I64), 1, false);
    p->sequence = x_op2(b, OP_Min, p->sequence, x_size(b, expr_sub(&b->cx->exprs, batch, x_num(b, 1))));
    struct value *starts = x_slice(b, sums, 0, x_num(b, 0), batch);
    struct value *shift = x_op2(b, OP_Sub, past, starts), *length = x_op2(b, OP_Add, shift, ends);
    p->position = x_op2(b, OP_Add, token, x_gather(b, shift, p->sequence, 0));
    p->end = x_gather(b, length, p->sequence, 0);
}

/* x [tokens, heads * size] as [1, heads, tokens, size], normalised and rotated. */
static struct value *operand(struct paged *p, struct value *x, int64_t heads, int norm)
{
    struct builder *b = p->b;
    const expr dims[4] = {x_num(b, 1), p->tokens, x_num(b, heads), p->size};
    x = x_transpose(b, x_reshape(b, x, 4, dims), (const int64_t[]){0, 2, 1, 3});
    if (onode_in(p->n, norm))
        x = x_norm(b, OP_RMSNormalization, x, p->n->in[norm], NULL, onode_float(p->im, p->n, "qk_norm_epsilon", 1e-6f));
    if (!x || onode_int(p->im, p->n, "do_rotary", 0) == 0)
        return x;
    const int64_t front[] = {0};
    const expr from = x_num(b, onode_int(p->im, p->n, "rotary_offset", 0)), zero = x_num(b, 0);
    struct value *in[4] = {x_slice(b, x, 3, from, p->size), x_cast(b, p->n->in[COS], x->type->dtype),
                           x_cast(b, p->n->in[SIN], x->type->dtype), x_unsqueeze(b, p->position, 1, front)};
    struct node *r = x_node(b, OP_RotaryEmbedding, 4, 4, in, 1);
    int64_t half;
    if (!r || !expr_is_const(&b->cx->exprs, x_dim(p->n->in[COS], 1), &half))
        return NULL;
    ir_set_int(r, "interleaved", onode_int(p->im, p->n, "rotary_interleaved", 0));
    ir_set_int(r, "rotary_embedding_dim", 2 * half);
    if (from == zero)
        return x_out(r);
    return x_concat(b, 3, 2, (struct value *[]){x_slice(b, x, 3, zero, from), x_out(r)});
}

/* Row of the flat cache that a position of a sequence lies in. */
static struct value *slots(struct paged *p)
{
    struct builder *b = p->b;
    const int64_t column[] = {1};
    if (onode_in(p->n, SLOTS))
        return x_cast(b, p->n->in[SLOTS], DT_I64);
    struct value *table = x_gather(b, x_cast(b, p->n->in[TABLE], DT_I64), p->sequence, 0);
    struct value *page = x_op2(b, OP_Div, p->position, x_size(b, p->block));
    struct node *pick =
        x_node(b, OP_GatherElements, 2, 2, (struct value *[]){table, x_unsqueeze(b, page, 1, column)}, 1);
    if (!pick)
        return NULL;
    ir_set_int(pick, "axis", 1);
    struct value *at = x_op2(b, OP_Mul, x_squeeze(b, x_out(pick), 1), x_size(b, p->block));
    return x_op2(b, OP_Add, at, x_op2(b, OP_Mod, p->position, x_size(b, p->block)));
}

/* cache [pages, rows, Nk, H] with the rows [1, Nk, tokens, H] written; a negative slot is a row behind the cache, which
 * is cut off again. */
static struct value *store(struct paged *p, struct value *cache, struct value *rows, struct value *slot)
{
    struct builder *b = p->b;
    struct expr_pool *e = &b->cx->exprs;
    if (!rows || !slot)
        return NULL;
    const struct type *t = cache->type;
    const expr count = expr_mul(e, t->dims[0], t->dims[1]), flat[3] = {count, t->dims[2], t->dims[3]};
    const expr spare[3] = {x_num(b, 1), t->dims[2], t->dims[3]}, added[3] = {p->tokens, t->dims[2], t->dims[3]};
    const int64_t column[] = {1}, perm[] = {0, 2, 1, 3};
    struct value *wide =
        x_concat(b, 0, 2, (struct value *[]){x_reshape(b, cache, 3, flat), x_zeros(b, t->dtype, 3, spare)});
    slot = x_op3(b, OP_Where, x_op2(b, OP_Less, slot, x_int(b, 0)), x_size(b, count), slot);
    struct value *in[3] = {wide, x_unsqueeze(b, slot, 1, column), x_reshape(b, x_transpose(b, rows, perm), 3, added)};
    wide = x_slice(b, x_out(x_node(b, OP_ScatterND, 3, 3, in, 1)), 0, x_num(b, 0), count);
    return x_reshape(b, wide, 4, t->dims);
}

/* The keys of each token's sequence: [tokens, Nk, pages * rows, H]. */
static struct value *fetch(struct paged *p, struct value *cache)
{
    struct builder *b = p->b;
    struct expr_pool *e = &b->cx->exprs;
    if (!cache)
        return NULL;
    const struct type *t = cache->type;
    const expr pages = x_dim(p->n->in[TABLE], 1),
               all[3] = {expr_mul(e, t->dims[0], t->dims[1]), t->dims[2], t->dims[3]};
    const expr keys[2] = {p->tokens, expr_mul(e, pages, p->block)};
    const int64_t last[] = {2};
    struct value *table = x_op2(b, OP_Max, x_cast(b, p->n->in[TABLE], DT_I64), x_int(b, 0));
    struct value *first = x_op2(b, OP_Mul, x_gather(b, table, p->sequence, 0), x_size(b, p->block));
    struct value *row = x_op2(b, OP_Add, x_unsqueeze(b, first, 1, last), x_range(b, p->block));
    struct value *v = x_gather(b, x_reshape(b, cache, 3, all), x_reshape(b, row, 2, keys), 0);
    return x_transpose(b, v, (const int64_t[]){0, 2, 1, 3});
}

static enum npuc_status paged_begin(struct paged *p)
{
    struct import *im = p->im;
    struct onode *n = p->n;
    p->latent = strcmp(onode_str(im, n, "kv_cache_layout", "SEPARATE"), "LATENT") == 0;
    enum npuc_status s = onode_int_in(im, n, "num_heads", 0, 1, 65536, &p->heads);
    if (s == NPUC_OK)
        s = onode_int_in(im, n, "kv_num_heads", 0, 1, 65536, &p->kv_heads);
    static const int required[] = {QUERY, K_CACHE, SUMS, PAST, TABLE, V_CACHE}, rank[] = {2, 4, 1, 1, 2, 4};
    for (int i = 0; i < (p->latent ? 5 : 6) && s == NPUC_OK; i++)
        s = onode_in(n, required[i]) ? onode_rank(im, n, required[i], rank[i], rank[i])
                                     : onode_fail(im, n, D_ARITY, "required input %d is missing", required[i]);
    static const int optional[] = {KEY, VALUE, COS, SIN, SLOTS, Q_NORM, K_NORM}, wide[] = {2, 2, 2, 2, 1, 1, 1};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(optional) && s == NPUC_OK; i++)
        s = onode_rank(im, n, optional[i], wide[i], wide[i]);
    if (s == NPUC_OK &&
        (onode_in(n, K_SCALE) || onode_in(n, V_SCALE) || n->in[K_CACHE]->type->dtype != n->in[QUERY]->type->dtype))
        s = onode_fail(im, n, D_UNSUPPORTED, "a quantised key or value cache is not supported");
    if (s == NPUC_OK && onode_in(n, SINK))
        s = onode_fail(im, n, D_UNSUPPORTED, "head_sink (input %d) is not supported", SINK);
    if (s == NPUC_OK && onode_int(im, n, "is_causal", 1) == 0 && onode_int(im, n, "local_window_size", -1) > 0)
        s = onode_fail(im, n, D_UNSUPPORTED, "a window (local_window_size) without is_causal is not supported");
    if (s == NPUC_OK && onode_int(im, n, "do_rotary", 0) && (!onode_in(n, COS) || !onode_in(n, SIN)))
        s = onode_fail(im, n, D_ARITY, "do_rotary is 1, but the caches (inputs %d and %d) are missing", COS, SIN);
    if (s != NPUC_OK)
        return s;
    p->tokens = x_dim(n->in[QUERY], 0);
    p->block = x_dim(n->in[K_CACHE], 1);
    p->size = x_dim(n->in[K_CACHE], 3);
    return NPUC_OK;
}

/* query, key and value of the tokens, which may lie side by side in the query. */
static bool paged_rows(struct paged *p, struct value *in[3])
{
    int64_t size;
    for (int i = 0; i < 3; i++)
        in[i] = onode_in(p->n, i);
    if (in[KEY] || p->latent)
        return in[KEY] && (in[VALUE] || p->latent);
    if (!expr_is_const(&p->b->cx->exprs, p->size, &size) || size < 1 || size > 65536)
        return false;
    const int64_t width[3] = {p->heads * size, p->kv_heads * size, p->kv_heads * size};
    return attend_parts(p->b, in[QUERY], 3, width, in);
}

enum npuc_status rule_paged_attention(struct import *im, struct onode *n)
{
    struct paged p = {.im = im, .n = n, .b = &n->b};
    struct builder *b = p.b;
    struct value *in[3], *cache[2] = {NULL, NULL};
    const enum npuc_status s = paged_begin(&p);
    if (s != NPUC_OK)
        return s;
    if (!paged_rows(&p, in))
        return onode_fail(im, n, D_SHAPE_MISMATCH, "key and value are missing and the query does not hold them");
    places(&p);
    struct value *slot = slots(&p), *q = operand(&p, in[QUERY], p.heads, Q_NORM);
    cache[0] = store(&p, n->in[K_CACHE], operand(&p, in[KEY], p.kv_heads, K_NORM), slot);
    if (!p.latent) {
        const expr dims[4] = {x_num(b, 1), p.tokens, x_num(b, p.kv_heads), x_dim(n->in[V_CACHE], 3)};
        struct value *v = x_transpose(b, x_reshape(b, in[VALUE], 4, dims), (const int64_t[]){0, 2, 1, 3});
        cache[1] = store(&p, n->in[V_CACHE], v, slot);
    }
    struct attend a = {.q = x_transpose(b, q, (const int64_t[]){2, 1, 0, 3}),
                       .k = fetch(&p, cache[0]),
                       .causal = onode_int(im, n, "is_causal", 1) != 0,
                       .scale = onode_float(im, n, "scale", 0.0f),
                       .softcap = onode_float(im, n, "softcap", 0.0f),
                       .window = onode_int(im, n, "local_window_size", -1)};
    const int64_t narrow = onode_int(im, n, "v_head_size", 0);
    a.v = !p.latent ? fetch(&p, cache[1]) : narrow > 0 ? x_slice(b, a.k, 3, x_num(b, 0), x_num(b, narrow)) : a.k;
    a.valid = a.causal ? x_plus(b, p.position, 1) : p.end;
    struct value *y = a.valid ? attend(b, &a) : NULL;
    for (int i = 0; y && i < 2; i++)
        if (onode_wants(n, i + 1) && cache[i])
            onode_bind(im, n, i + 1, cache[i]);
    if (!y)
        return onode_done(im, n, NULL);
    const expr dims[2] = {p.tokens, expr_mul(&im->cx->exprs, x_dim(y, 1), x_dim(y, 3))};
    return onode_done(im, n, x_reshape(b, y, 2, dims));
}
