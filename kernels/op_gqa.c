/* GroupQueryAttention and MultiHeadAttention of com.microsoft. */
#include <math.h>
#include <string.h>

#include "kernels/attend.h"
#include "kernels/rows.h"

enum gqa_input {
    Q,
    K,
    V,
    PAST_K,
    PAST_V,
    SEQLENS,
    TOTAL,
    COS,
    SIN,
    POSITIONS,
    BIAS,
    SINK,
    K_SCALE,
    V_SCALE,
    Q_NORM,
    K_NORM
};

struct gqa {
    struct k_attend a;
    const int64_t *len; /* keys of each batch, the new ones included */
    int64_t total;      /* longest */
    int64_t window;     /* keys that a row sees, itself included; -1 = all */
    bool causal;
    struct k_mask mask;
    struct k_rotary rotary;
    int64_t rows; /* of the caches of cosines */
    const int64_t *positions;
    float *q, *k, *v; /* new rows, [B][heads][S][H] */
};

/* Rows of a batch entry before the new ones. */
static int64_t past_of(const struct gqa *t, int64_t b)
{
    return t->a.seq == t->total ? 0 : t->len[b] - t->a.seq;
}
static void gqa_bias(const void *arg, const int64_t at[3], float *row)
{
    const struct gqa *t = arg;
    const int64_t past = past_of(t, at[0]), pos = past + at[2];
    const int64_t end = t->a.seq == t->total ? t->total : t->len[at[0]];
    if (t->mask.data)
        k_mask_row(&t->mask, at, row, t->a.keys);
    else
        memset(row, 0, (size_t)t->a.keys * sizeof *row);
    for (int64_t j = 0; j < t->a.keys; j++)
        if (j >= end || (t->causal && j > pos) || (t->window > 0 && j <= pos - t->window))
            row[j] = -INFINITY;
}

/* Query, key and value rows as floats, heads apart; packed when the key input is absent. */
static bool operands(struct k_call *c, struct gqa *t)
{
    const struct k_tensor *q = c->in[Q];
    const int64_t n = t->a.heads, kv = t->a.kv_heads;
    const bool packed = !k_in(c, K);
    const int64_t parts = packed ? n + 2 * kv : n;
    if (q->rank != 3 || q->dims[2] % parts) {
        k_fail(c, NPUC_E_INVALID, "the query does not fit the number of heads");
        return false;
    }
    t->a.batch = q->dims[0];
    t->a.seq = q->dims[1];
    t->a.head = t->a.v_head = q->dims[2] / parts;
    t->a.type = q->dtype;
    const int64_t h = t->a.head, pitch = packed ? q->dims[2] : kv * h;
    const float *x = k_floats(c, q);
    if (!x)
        return false;
    const float *xk = x + n * h, *xv = x + (n + kv) * h;
    if (!packed) {
        if (!k_in(c, V) || k_count(c->in[K]) != t->a.batch * t->a.seq * kv * h ||
            k_count(c->in[V]) != k_count(c->in[K])) {
            k_fail(c, NPUC_E_INVALID, "key or value do not fit the query");
            return false;
        }
        xk = k_floats(c, c->in[K]);
        xv = k_floats(c, c->in[V]);
        if (!xk || !xv)
            return false;
    }
    const struct k_heads hq = {t->a.batch, t->a.seq, n, h, q->dims[2]}, hk = {t->a.batch, t->a.seq, kv, h, pitch};
    t->q = k_split_heads(c, &hq, x);
    t->k = k_split_heads(c, &hk, xk);
    t->v = k_split_heads(c, &hk, xv);
    return t->q && t->k && t->v;
}

static enum npuc_status head_norm(struct k_call *c, const struct gqa *t, int input, float *x, int64_t rows)
{
    const struct k_tensor *w = k_in(c, input);
    if (!w)
        return NPUC_OK;
    const float *scale = k_floats(c, w), eps = k_attr_float(c, "qk_norm_epsilon", 1e-6f);
    if (!scale || k_count(w) != t->a.head)
        return k_fail(c, NPUC_E_INVALID, "input %d does not fit the head size", input);
    for (int64_t r = 0; r < rows; r++, x += t->a.head) {
        k_row_rms(x, x, t->a.head, eps);
        k_row_binary(K_FN_Mul, x, x, scale, t->a.head);
    }
    return NPUC_OK;
}
static enum npuc_status rotate(struct k_call *c, const struct gqa *t, float *x, int64_t heads)
{
    for (int64_t b = 0; b < t->a.batch; b++)
        for (int64_t n = 0; n < heads; n++)
            for (int64_t s = 0; s < t->a.seq; s++, x += t->a.head) {
                const int64_t pos = t->positions ? t->positions[b * t->a.seq + s] : past_of(t, b) + s;
                if (pos < 0 || pos >= t->rows)
                    return k_fail(c, NPUC_E_INVALID, "position %lld is outside of the cache of %lld rows",
                                  (long long)pos, (long long)t->rows);
                k_row_rotate(x, x, &t->rotary, pos);
            }
    return NPUC_OK;
}
static enum npuc_status rotary_setup(struct k_call *c, struct gqa *t)
{
    int64_t n = 0;
    if (!k_attr_int(c, "do_rotary", 0))
        return NPUC_OK;
    const struct k_tensor *cosines = k_in(c, COS), *sines = k_in(c, SIN);
    if (!cosines || !sines || cosines->rank != 2 || k_count(sines) != k_count(cosines) ||
        2 * cosines->dims[1] > t->a.head)
        return k_fail(c, NPUC_E_INVALID, "cos_cache and sin_cache do not fit the head size");
    t->rotary = (struct k_rotary){.cos = k_floats(c, cosines),
                                  .sin = k_floats(c, sines),
                                  .half = cosines->dims[1],
                                  .head = t->a.head,
                                  .interleaved = k_attr_int(c, "rotary_interleaved", 0) != 0};
    t->rows = cosines->dims[0];
    if (k_in(c, POSITIONS)) {
        t->positions = k_whole(c, POSITIONS, &n);
        if (!t->positions || n != t->a.batch * t->a.seq)
            return k_fail(c, NPUC_E_INVALID, "position_ids do not fit the query");
    }
    return t->rotary.cos && t->rotary.sin ? NPUC_OK : k_no_memory(c);
}

/* The cache with the new rows behind the past ones, as output `out`; returns it as floats. */
static const float *update_cache(struct k_call *c, const struct gqa *t, int past_in, int out, const float *add)
{
    const struct k_tensor *past = k_in(c, past_in);
    const int64_t kv = t->a.kv_heads, h = t->a.head, dims[4] = {t->a.batch, kv, t->a.keys, h};
    const enum dtype type = t->a.type;
    if (past && (past->rank != 4 || past->dtype != type || past->dims[0] != dims[0] || past->dims[1] != kv ||
                 past->dims[3] != h)) {
        k_fail(c, past->dtype == type ? NPUC_E_INVALID : NPUC_E_UNSUPPORTED,
               "the cache does not fit the keys or values");
        return NULL;
    }
    struct k_tensor fresh = {0};
    struct k_call inner = *c;
    inner.out = k_wants(c, out) ? &c->out[out] : &fresh;
    char *y = k_out(&inner, 0, type, 4, dims);
    if (!y)
        return NULL;
    const int64_t row = h * dtype_size(type), old = past ? past->dims[2] : 0;
    for (int64_t o = 0; o < dims[0] * kv; o++) {
        char *to = y + o * t->a.keys * row;
        if (old > 0 && to != (const char *)past->data + o * old * row)
            memmove(to, (const char *)past->data + o * old * row, (size_t)(old * row));
        if (old < t->a.keys)
            memset(to + old * row, 0, (size_t)((t->a.keys - old) * row));
        k_cast(type, to + past_of(t, o / kv) * row, DT_F32, add + o * t->a.seq * h, t->a.seq * h, true);
    }
    return k_floats(c, &inner.out[0]);
}

static enum npuc_status gqa_setup(struct k_call *c, struct gqa *t)
{
    int64_t n;
    *t = (struct gqa){.window = k_attr_int(c, "local_window_size", -1), .causal = k_attr_int(c, "causal", 1) != 0};
    t->a = (struct k_attend){.heads = k_attr_int(c, "num_heads", 0),
                             .kv_heads = k_attr_int(c, "kv_num_heads", 0),
                             .bias = gqa_bias,
                             .bias_arg = t,
                             .softcap = k_attr_float(c, "softcap", 0)};
    if (!k_in(c, Q) || !k_in(c, SEQLENS) || !k_in(c, TOTAL) || c->n_out < 1 || t->a.heads <= 0 || t->a.kv_heads <= 0)
        return k_fail(c, NPUC_E_INVALID, "inputs or numbers of heads are missing");
    if (k_in(c, K_SCALE) || k_in(c, V_SCALE))
        return k_fail(c, NPUC_E_UNSUPPORTED, "a quantised cache");
    if (!operands(c, t))
        return k_no_memory(c);
    int64_t *len = k_whole(c, SEQLENS, &n);
    if (!len || n != t->a.batch)
        return k_fail(c, NPUC_E_INVALID, "seqlens_k must have one entry per batch");
    t->total = k_get_i64(c->in[TOTAL], 0);
    const int64_t old = k_in(c, PAST_K) && c->in[PAST_K]->rank == 4 ? c->in[PAST_K]->dims[2] : 0;
    t->a.keys = old > t->total ? old : t->total;
    t->len = len;
    for (int64_t b = 0; b < n; b++) {
        len[b]++;
        const int64_t past = past_of(t, b);
        if (past < 0 || past + t->a.seq > t->a.keys || len[b] > t->a.keys)
            return k_fail(c, NPUC_E_INVALID, "seqlens_k[%lld] does not fit total_sequence_length and the cache",
                          (long long)b);
    }
    const float scale = k_attr_float(c, "scale", 0);
    t->a.scale = scale != 0 ? scale : 1.0f / sqrtf((float)t->a.head);
    if (k_in(c, BIAS) && !k_mask_of(c, &t->mask, c->in[BIAS]))
        return k_no_memory(c);
    if (k_in(c, SINK) && k_count(c->in[SINK]) != t->a.heads)
        return k_fail(c, NPUC_E_INVALID, "head_sink must have one entry per head");
    const bool smooth = k_attr_int(c, "smooth_softmax", 0) > 0;
    if (k_in(c, SINK))
        t->a.sink = k_floats(c, c->in[SINK]);
    else if (smooth)
        t->a.sink = k_scratch(c, t->a.heads, sizeof(float));
    if ((smooth || k_in(c, SINK)) && !t->a.sink)
        return k_no_memory(c);
    return rotary_setup(c, t);
}

enum npuc_status k_op_group_query_attention(struct k_call *c)
{
    struct gqa t;
    K_TRY(gqa_setup(c, &t));
    const int64_t rows = t.a.batch * t.a.seq;
    K_TRY(head_norm(c, &t, Q_NORM, t.q, rows * t.a.heads));
    K_TRY(head_norm(c, &t, K_NORM, t.k, rows * t.a.kv_heads));
    if (t.rotary.cos) {
        K_TRY(rotate(c, &t, t.q, t.a.heads));
        K_TRY(rotate(c, &t, t.k, t.a.kv_heads));
    }
    k_round_to(t.a.type, t.q, rows * t.a.heads * t.a.head);
    t.a.q = t.q;
    if (!(t.a.k = update_cache(c, &t, PAST_K, 1, t.k)) || !(t.a.v = update_cache(c, &t, PAST_V, 2, t.v)))
        return k_no_memory(c);
    const struct k_heads h = {t.a.batch, t.a.seq, t.a.heads, t.a.head, 0};
    const struct k_tensor y = {.rank = 3, .dims = {t.a.batch, t.a.seq, t.a.heads * t.a.head}};
    const struct k_tensor qk = {.rank = 4, .dims = {t.a.batch, t.a.heads, t.a.seq, t.a.keys}};
    float *out = k_scratch(c, k_count(&y), sizeof *out);
    t.a.y = k_scratch(c, k_count(&y), sizeof *out);
    if (k_wants(c, 3) && k_attr_int(c, "qk_output", 0)) {
        t.a.qk_mode = k_attr_int(c, "qk_output", 0) == 1 ? 2 : 3; /* before or after softmax */
        t.a.qk = k_scratch(c, k_count(&qk), sizeof *out);
    }
    if (!out || !t.a.y || (k_wants(c, 3) && k_attr_int(c, "qk_output", 0) && !t.a.qk))
        return k_no_memory(c);
    K_TRY(k_attend(c, &t.a));
    if (t.a.qk)
        K_TRY(k_out_floats(c, 3, t.a.type, &qk, t.a.qk));
    k_merge_heads(&h, out, t.a.y);
    return k_out_floats(c, 0, t.a.type, &y, out);
}
