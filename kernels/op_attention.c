/* Attention of ai.onnx, opsets 23 to 25: 3-D or 4-D operands, grouped heads, cache by past inputs or by
 * nonpad_kv_seqlen. */
#include <math.h>
#include <string.h>

#include "kernels/attend.h"

struct call {
    struct k_attend a;
    int64_t past;         /* rows of the cache before the new keys */
    const int64_t *valid; /* nonpad_kv_seqlen per batch, or NULL */
    struct k_mask mask;
    bool causal;
    int64_t left, right;        /* window, -1 = open */
    struct k_tensor present[2]; /* keys and values, [B][heads][keys][head] */
};

static void bias_row(const void *arg, const int64_t at[3], float *row)
{
    const struct call *t = arg;
    const int64_t keys = t->a.keys, first = t->valid ? t->valid[at[0]] - t->a.seq : t->past, pos = first + at[2];
    if (t->mask.data)
        k_mask_row(&t->mask, at, row, keys);
    else
        memset(row, 0, (size_t)keys * sizeof *row);
    for (int64_t j = 0; j < keys; j++)
        if ((t->causal && j > pos) || (t->valid && j >= t->valid[at[0]]) || (t->left >= 0 && pos - j > t->left) ||
            (t->right >= 0 && j - pos > t->right))
            row[j] = -INFINITY;
}

/* Input i as [B][heads][seq][head] in its own type; heads counts for 3-D inputs only. */
static bool four_dims(struct k_call *c, int i, int64_t heads, struct k_tensor *y)
{
    const struct k_tensor *x = c->in[i];
    *y = *x;
    if (x->rank == 4)
        return true;
    if (x->rank != 3 || heads <= 0 || x->dims[2] % heads || dtype_size(x->dtype) == 0) {
        k_fail(c, NPUC_E_INVALID, "input %d must have rank 4, or rank 3 with a number of heads that divides it", i);
        return false;
    }
    const int64_t head = x->dims[2] / heads;
    struct k_nd d = {.n = 2, .rank = 4, .dims = {x->dims[0], heads, x->dims[1], head}};
    const int64_t stride[4] = {x->dims[1] * x->dims[2], head, x->dims[2], 1};
    memcpy(d.stride[1], stride, sizeof stride);
    y->rank = 4;
    memcpy(y->dims, d.dims, 4 * sizeof *d.dims);
    y->data = k_scratch(c, k_count(x), dtype_size(x->dtype));
    if (!y->data)
        return false;
    k_nd_dense(&d, 0);
    if (k_count(x) > 0)
        k_nd_copy(d, y->data, x->data, dtype_size(x->dtype));
    return true;
}

/* past (may be absent) and the new rows as one tensor, which is output `out` when that is asked for. */
static bool append(struct k_call *c, const struct k_tensor *past, const struct k_tensor *add, int out,
                   struct k_tensor *y)
{
    int64_t dims[4];
    memcpy(dims, add->dims, sizeof dims);
    if (past) {
        if (past->rank != 4 || past->dtype != add->dtype || past->dims[0] != dims[0] || past->dims[1] != dims[1] ||
            past->dims[3] != dims[3]) {
            k_fail(c, NPUC_E_INVALID, "the cache does not fit the new keys or values");
            return false;
        }
        dims[2] += past->dims[2];
    }
    struct k_call inner = *c;
    struct k_tensor fresh = {0};
    inner.out = k_wants(c, out) ? &c->out[out] : &fresh;
    char *p = k_out(&inner, 0, add->dtype, 4, dims);
    if (!p)
        return false;
    const int64_t row = dims[3] * dtype_size(add->dtype), old = past ? past->dims[2] : 0, new = add->dims[2];
    for (int64_t o = 0; o < dims[0] * dims[1]; o++) {
        if (old > 0)
            memmove(p + o * dims[2] * row, (const char *)past->data + o * old * row, (size_t)(old * row));
        memcpy(p + (o * dims[2] + old) * row, (const char *)add->data + o * new *row, (size_t)(new *row));
    }
    *y = inner.out[0];
    return true;
}

static bool setup(struct k_call *c, struct call *t)
{
    struct k_tensor q, k, v;
    const int64_t heads = k_attr_int(c, "q_num_heads", 0), kv_heads = k_attr_int(c, "kv_num_heads", 0);
    int64_t n = 0;
    if (!k_has(c, 3, 1) || !four_dims(c, 0, heads, &q) || !four_dims(c, 1, kv_heads, &k) ||
        !four_dims(c, 2, kv_heads, &v))
        return false;
    if (q.dims[0] != k.dims[0] || q.dims[3] != k.dims[3] || k.dims[0] != v.dims[0] || k.dims[1] != v.dims[1] ||
        k.dims[2] != v.dims[2]) {
        k_fail(c, NPUC_E_INVALID, "Q, K and V do not fit each other");
        return false;
    }
    *t = (struct call){.past = k_in(c, 4) ? c->in[4]->dims[2] : 0,
                       .causal = k_attr_int(c, "is_causal", 0) != 0,
                       .left = k_attr_int(c, "left_window_size", -1),
                       .right = k_attr_int(c, "right_window_size", -1)};
    if (!append(c, k_in(c, 4), &k, 1, &t->present[0]) || !append(c, k_in(c, 5), &v, 2, &t->present[1]))
        return false;
    t->a = (struct k_attend){.batch = q.dims[0],
                             .heads = q.dims[1],
                             .kv_heads = k.dims[1],
                             .seq = q.dims[2],
                             .head = q.dims[3],
                             .keys = t->present[0].dims[2],
                             .v_head = v.dims[3],
                             .type = q.dtype,
                             .bias = bias_row,
                             .bias_arg = t,
                             .softcap = k_attr_float(c, "softcap", 0),
                             .qk_mode = (int)k_attr_int(c, "qk_matmul_output_mode", 0)};
    const float scale = k_attr_float(c, "scale", 0);
    t->a.scale = scale != 0 ? scale : 1.0f / sqrtf((float)t->a.head);
    if (k_in(c, 6)) {
        t->valid = k_whole(c, 6, &n);
        if (!t->valid || n != t->a.batch || k_in(c, 4)) {
            k_fail(c, NPUC_E_INVALID, "nonpad_kv_seqlen must have one entry per batch and excludes a past");
            return false;
        }
    }
    if (k_in(c, 3) && !k_mask_strict(c, &t->mask, c->in[3]))
        return false;
    t->a.q = k_floats(c, &q);
    t->a.k = k_floats(c, &t->present[0]);
    t->a.v = k_floats(c, &t->present[1]);
    t->a.y = k_scratch(c, t->a.batch * t->a.heads * t->a.seq * t->a.v_head, sizeof(float));
    return t->a.q && t->a.k && t->a.v && t->a.y;
}

enum npuc_status k_op_attention(struct k_call *c)
{
    struct call t;
    if (!setup(c, &t))
        return k_no_memory(c);
    const struct k_attend *a = &t.a;
    struct k_tensor scores = {.rank = 4, .dims = {a->batch, a->heads, a->seq, a->keys}};
    if (k_wants(c, 3) && !(t.a.qk = k_scratch(c, k_count(&scores), sizeof(float))))
        return k_no_memory(c);
    K_TRY(k_attend(c, a));
    if (k_wants(c, 3))
        K_TRY(k_out_floats(c, 3, a->type, &scores, a->qk));
    struct k_tensor y = {.rank = 4, .dims = {a->batch, a->heads, a->seq, a->v_head}};
    if (c->in[0]->rank == 4)
        return k_out_floats(c, 0, a->type, &y, a->y);
    const struct k_heads h = {a->batch, a->seq, a->heads, a->v_head, 0};
    float *merged = k_scratch(c, k_count(&y), sizeof *merged);
    if (!merged)
        return k_no_memory(c);
    k_merge_heads(&h, merged, a->y);
    return k_out_floats(c, 0, a->type, &(struct k_tensor){.rank = 3, .dims = {a->batch, a->seq, a->heads * a->v_head}},
                        merged);
}
