/* MultiHeadAttention of com.microsoft: separate, packed or cached projections with biases and padding masks. */
#include <math.h>
#include <string.h>

#include "kernels/attend.h"
#include "kernels/rows.h"

enum mha_input { Q, K, V, IN_BIAS, PADDING, BIAS, PAST_K, PAST_V };

struct mha {
    struct k_attend a;
    int64_t past;
    bool causal;
    float filter; /* added where the padding mask is 0 */
    struct k_mask mask;
    const int64_t *padding; /* kept keys: per batch a length, or a 0/1 matrix */
    int64_t padding_row;    /* 0: lengths; else entries per batch */
    bool padding_by_row;    /* [B][S][T] instead of [B][T] */
};

static void mha_bias(const void *arg, const int64_t at[3], float *row)
{
    const struct mha *t = arg;
    const int64_t keys = t->a.keys;
    if (t->mask.data)
        k_mask_row(&t->mask, at, row, keys);
    else
        memset(row, 0, (size_t)keys * sizeof *row);
    for (int64_t j = 0; j < keys; j++) {
        bool keep = true;
        if (t->padding)
            keep = !t->padding_row
                       ? j < t->padding[at[0]]
                       : t->padding[at[0] * t->padding_row + (t->padding_by_row ? at[2] * keys : 0) + j] != 0;
        if (!keep)
            row[j] += t->filter;
        if (t->causal && j > t->past + at[2])
            row[j] = -INFINITY;
    }
}

/* Projection `input` as [B][N][rows][H]: 3-D, a slice of packed 5-D rows, or already 4-D; plus its part of the bias. */
static float *project(struct k_call *c, const struct k_tensor *x, const struct mha *t, int part, int64_t *rows)
{
    const int64_t n = t->a.heads, h = t->a.head, parts = x->rank == 5 ? x->dims[3] : 1;
    const float *v = k_floats(c, x);
    if (!v)
        return NULL;
    *rows = x->rank == 4 ? x->dims[2] : x->dims[1];
    float *y = k_scratch(c, k_count(x) / parts, sizeof *y);
    if (!y)
        return NULL;
    struct k_nd d = {.n = 2, .rank = 4, .dims = {x->dims[0], n, *rows, k_count(x) / parts / (x->dims[0] * n * *rows)}};
    const int64_t width = d.dims[3], pitch = n * parts * width;
    const int64_t apart[4] = {*rows * pitch, parts * width, pitch, 1},
                  dense[4] = {n * *rows * width, *rows * width, width, 1};
    const int which = parts == 3 ? part : parts == 2 ? part - 1 : 0;
    memcpy(d.stride[1], x->rank == 4 ? dense : apart, sizeof apart);
    k_nd_dense(&d, 0);
    if (k_count(x) > 0)
        k_nd_copy(d, y, v + which * width, sizeof *v);
    const struct k_tensor *bias = k_in(c, IN_BIAS);
    if (bias) {
        const float *b = k_floats(c, bias);
        const int64_t from = part * n * h;
        if (!b || k_count(bias) < from + n * width) {
            k_fail(c, NPUC_E_INVALID, "the bias does not fit the projections");
            return NULL;
        }
        for (int64_t i = 0; i < x->dims[0] * n; i++)
            for (int64_t r = 0; r < *rows; r++)
                k_row_binary(K_FN_Add, y + (i * *rows + r) * width, y + (i * *rows + r) * width,
                             b + from + i % n * width, width);
    }
    k_round_to(x->dtype, y, k_count(x) / parts);
    return y;
}

/* past rows, then the new ones; stored as output `out` when asked for. */
static const float *join(struct k_call *c, const struct mha *t, int past_in, int out, const float *add)
{
    const struct k_tensor *past = k_in(c, past_in);
    const int64_t width = past_in == PAST_K ? t->a.head : t->a.v_head, heads = t->a.batch * t->a.heads,
                  added = t->a.keys - t->past;
    const struct k_tensor shape = {.rank = 4, .dims = {t->a.batch, t->a.heads, t->a.keys, width}};
    float *y = k_scratch(c, k_count(&shape), sizeof *y);
    const float *old = past ? k_floats(c, past) : NULL;
    if (!y || (past && !old))
        return NULL;
    if (past && k_count(past) != heads * t->past * width) {
        k_fail(c, NPUC_E_INVALID, "the cache does not fit the keys or values");
        return NULL;
    }
    for (int64_t i = 0; i < heads; i++) {
        if (old)
            memcpy(y + i * t->a.keys * width, old + i * t->past * width, (size_t)(t->past * width) * sizeof *y);
        memcpy(y + (i * t->a.keys + t->past) * width, add + i * added * width, (size_t)(added * width) * sizeof *y);
    }
    if (k_wants(c, out) && k_out_floats(c, out, t->a.type, &shape, y) != NPUC_OK)
        return NULL;
    return y;
}

static enum npuc_status mha_masks(struct k_call *c, struct mha *t)
{
    const struct k_tensor *p = k_in(c, PADDING);
    int64_t n;
    if (k_in(c, BIAS) && !k_mask_of(c, &t->mask, c->in[BIAS]))
        return k_no_memory(c);
    if (!p)
        return NPUC_OK;
    if (!(t->padding = k_whole(c, PADDING, &n)))
        return k_no_memory(c);
    t->padding_by_row = p->rank == 3;
    t->padding_row = p->rank == 1 ? 0 : n / t->a.batch;
    const int64_t expected = p->rank == 1 ? 1 : p->rank == 2 ? t->a.keys : t->a.seq * t->a.keys;
    if (n != t->a.batch * expected)
        return k_fail(c, NPUC_E_UNSUPPORTED, "a key_padding_mask of %lld entries", (long long)n);
    return NPUC_OK;
}

static enum npuc_status mha_setup(struct k_call *c, struct mha *t)
{
    const struct k_tensor *q = k_in(c, Q), *k = k_in(c, K), *v = k_in(c, V);
    const int64_t n = k_attr_int(c, "num_heads", 0);
    int64_t rows = 0, v_rows = 0;
    if (!q || c->n_out < 1 || n <= 0 || (q->rank != 3 && q->rank != 5) || (q->rank == 3 && q->dims[2] % n))
        return k_fail(c, NPUC_E_INVALID, "the query does not fit the number of heads");
    *t = (struct mha){.causal = k_attr_int(c, "unidirectional", 0) != 0,
                      .filter = k_attr_float(c, "mask_filter_value", -10000.0f)};
    t->a = (struct k_attend){.batch = q->dims[0],
                             .heads = n,
                             .kv_heads = n,
                             .seq = q->dims[1],
                             .type = q->dtype,
                             .head = q->rank == 5 ? q->dims[4] : q->dims[2] / n,
                             .bias = mha_bias,
                             .bias_arg = t};
    const struct k_tensor *from_k = q->rank == 5 ? q : k, *from_v = q->rank == 5 ? q : k && k->rank == 5 ? k : v;
    if (!from_k || !from_v || from_k->rank < 3 || from_v->rank < 3 || k_count(from_k) == 0 || k_count(q) == 0)
        return k_fail(c, NPUC_E_INVALID, "key or value is missing");
    t->a.q = project(c, q, t, 0, &rows);
    float *pk = project(c, from_k, t, 1, &rows), *pv = project(c, from_v, t, 2, &v_rows);
    if (!t->a.q || !pk || !pv)
        return k_no_memory(c);
    if (rows != v_rows)
        return k_fail(c, NPUC_E_INVALID, "key and value differ in length");
    t->a.v_head = from_v->rank == 3 ? from_v->dims[2] / n : from_v->dims[from_v->rank - 1];
    t->past = k_in(c, PAST_K) && c->in[PAST_K]->rank == 4 ? c->in[PAST_K]->dims[2] : 0;
    t->a.keys = t->past + rows;
    K_TRY(mha_masks(c, t));
    const float scale = k_attr_float(c, "scale", 0);
    t->a.scale = scale != 0 ? scale : 1.0f / sqrtf((float)t->a.head);
    t->a.k = join(c, t, PAST_K, 1, pk);
    t->a.v = join(c, t, PAST_V, 2, pv);
    return t->a.k && t->a.v ? NPUC_OK : k_no_memory(c);
}

enum npuc_status k_op_multi_head_attention(struct k_call *c)
{
    struct mha t;
    K_TRY(mha_setup(c, &t));
    const struct k_heads h = {t.a.batch, t.a.seq, t.a.heads, t.a.v_head, 0};
    const struct k_tensor y = {.rank = 3, .dims = {t.a.batch, t.a.seq, t.a.heads * t.a.v_head}};
    float *out = k_scratch(c, k_count(&y), sizeof *out);
    t.a.y = k_scratch(c, k_count(&y), sizeof *out);
    if (!out || !t.a.y)
        return k_no_memory(c);
    K_TRY(k_attend(c, &t.a));
    k_merge_heads(&h, out, t.a.y);
    return k_out_floats(c, 0, t.a.type, &y, out);
}
