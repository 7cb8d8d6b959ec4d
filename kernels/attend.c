/* See kernels/attend.h. Items of the parallel loop are (batch, head) pairs; each worker has its own score matrix. */
#include "kernels/attend.h"

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "base/pool.h"
#include "kernels/mac.h"
#include "kernels/rows.h"

enum { ROW_BLOCK = 64 }; /* rows of scores a worker holds */

struct job {
    const struct k_attend *a;
    float *scratch; /* per worker: ROW_BLOCK x keys scores, keys of bias */
};

/* One row of scores (already scaled) to probabilities. */
static void soften(const struct k_attend *a, const int64_t at[3], float *s, float *bias)
{
    const int64_t n = a->keys;
    float *out = a->qk ? a->qk + ((at[0] * a->heads + at[1]) * a->seq + at[2]) * n : NULL;
    if (out && a->qk_mode == 0)
        memcpy(out, s, (size_t)n * sizeof *s);
    if (a->softcap > 0) {
        k_row_scalar(K_FN_Div, s, s, a->softcap, n);
        k_row_unary(K_FN_Tanh, s, s, n);
        k_row_scalar(K_FN_Mul, s, s, a->softcap, n);
    }
    if (out && a->qk_mode == 1)
        memcpy(out, s, (size_t)n * sizeof *s);
    bool masked = n == 0;
    if (a->bias) {
        a->bias(a->bias_arg, at, bias);
        masked = masked || k_row_reduce(K_RED_MAX, bias, n) == -INFINITY;
        k_row_binary(K_FN_Add, s, s, bias, n);
    }
    if (out && a->qk_mode == 2)
        memcpy(out, s, (size_t)n * sizeof *s);
    float max = k_row_reduce(K_RED_MAX, s, n);
    const float sink = a->sink ? a->sink[at[1]] : -INFINITY;
    if (masked || max == -INFINITY) {
        memset(s, 0, (size_t)n * sizeof *s);
    } else {
        max = sink > max ? sink : max;
        k_row_scalar(K_FN_Sub, s, s, max, n);
        k_row_unary(K_FN_Exp, s, s, n);
        float sum = k_row_reduce(K_RED_SUM, s, n);
        if (a->sink)
            sum += k_exp(sink - max);
        k_row_scalar(K_FN_Div, s, s, sum, n);
    }
    if (out && a->qk_mode == 3)
        memcpy(out, s, (size_t)n * sizeof *s);
}

static void head(void *arg, int64_t item, int worker)
{
    const struct job *j = arg;
    const struct k_attend *a = j->a;
    const int64_t b = item / a->heads, n = item % a->heads, kv = b * a->kv_heads + n / (a->heads / a->kv_heads);
    float *s = j->scratch + worker * (ROW_BLOCK + 1) * a->keys, *bias = s + ROW_BLOCK * a->keys;
    for (int64_t r = 0; r < a->seq; r += ROW_BLOCK) {
        const int64_t rows = a->seq - r < ROW_BLOCK ? a->seq - r : ROW_BLOCK;
        k_matmul(&(struct k_matmul_args){.dtype = DT_F32,
                                         .m = rows,
                                         .n = a->keys,
                                         .k = a->head,
                                         .a = a->q + (item * a->seq + r) * a->head,
                                         .b = a->k + kv * a->keys * a->head,
                                         .a_row = a->head,
                                         .a_col = 1,
                                         .b_row = 1,
                                         .b_col = a->head,
                                         .c = s,
                                         .c_row = a->keys},
                 NULL);
        k_row_scalar(K_FN_Mul, s, s, a->scale, rows * a->keys);
        for (int64_t i = 0; i < rows; i++)
            soften(a, (const int64_t[]){b, n, r + i}, s + i * a->keys, bias);
        k_matmul(&(struct k_matmul_args){.dtype = DT_F32,
                                         .m = rows,
                                         .n = a->v_head,
                                         .k = a->keys,
                                         .a = s,
                                         .b = a->v + kv * a->keys * a->v_head,
                                         .a_row = a->keys,
                                         .a_col = 1,
                                         .b_row = a->v_head,
                                         .b_col = 1,
                                         .c = a->y + (item * a->seq + r) * a->v_head,
                                         .c_row = a->v_head},
                 NULL);
    }
}

enum npuc_status k_attend(struct k_call *c, const struct k_attend *a)
{
    if (a->kv_heads <= 0 || a->heads % a->kv_heads)
        return k_fail(c, NPUC_E_INVALID, "%lld query heads do not share %lld key heads", (long long)a->heads,
                      (long long)a->kv_heads);
    struct job j = {a, k_scratch(c, pool_threads(c->pool) * (ROW_BLOCK + 1) * a->keys, sizeof(float))};
    if (!j.scratch)
        return k_no_memory(c);
    pool_for(c->pool, a->batch * a->heads, head, &j);
    return NPUC_OK;
}

static bool mask_load(struct k_call *c, struct k_mask *m, const struct k_tensor *t, float floor)
{
    if (t->rank > 4 || t->rank < 1) {
        k_fail(c, NPUC_E_INVALID, "a mask of rank %d", t->rank);
        return false;
    }
    const int64_t n = k_count(t);
    float *x = k_scratch(c, n, sizeof *x);
    if (!x)
        return false;
    k_load_f32(x, t->dtype, t->data, 0, n);
    for (int64_t i = 0; t->dtype == DT_BOOL && i < n; i++)
        x[i] = x[i] != 0 ? 0 : -INFINITY;
    for (int64_t i = 0; floor > -INFINITY && i < n; i++)
        x[i] = x[i] <= floor ? -INFINITY : x[i];
    *m = (struct k_mask){.data = x, .len = t->dims[t->rank - 1]};
    for (int i = 0; i < 3; i++) {
        const int axis = t->rank - 4 + i;
        m->stride[i] = axis >= 0 && t->dims[axis] > 1 ? k_stride(t, axis) : 0;
    }
    return true;
}

bool k_mask_of(struct k_call *c, struct k_mask *m, const struct k_tensor *t)
{
    return mask_load(c, m, t, -INFINITY);
}

bool k_mask_strict(struct k_call *c, struct k_mask *m, const struct k_tensor *t)
{
    return mask_load(c, m, t, half_lowest(t->dtype));
}

void k_mask_row(const struct k_mask *m, const int64_t at[3], float *row, int64_t keys)
{
    const int64_t n = m->len < keys ? m->len : keys;
    memcpy(row, m->data + at[0] * m->stride[0] + at[1] * m->stride[1] + at[2] * m->stride[2], (size_t)n * sizeof *row);
    for (int64_t i = n; i < keys; i++)
        row[i] = -INFINITY;
}

float *k_split_heads(struct k_call *c, const struct k_heads *h, const float *x)
{
    float *y = k_scratch(c, h->batch * h->seq * h->heads * h->head, sizeof *y);
    for (int64_t b = 0; y && b < h->batch; b++)
        for (int64_t s = 0; s < h->seq; s++)
            for (int64_t n = 0; n < h->heads; n++)
                memcpy(y + ((b * h->heads + n) * h->seq + s) * h->head, x + (b * h->seq + s) * h->pitch + n * h->head,
                       (size_t)h->head * sizeof *y);
    return y;
}
void k_merge_heads(const struct k_heads *h, float *y, const float *x)
{
    for (int64_t b = 0; b < h->batch; b++)
        for (int64_t s = 0; s < h->seq; s++)
            for (int64_t n = 0; n < h->heads; n++)
                memcpy(y + ((b * h->seq + s) * h->heads + n) * h->head, x + ((b * h->heads + n) * h->seq + s) * h->head,
                       (size_t)h->head * sizeof *y);
}
void k_round_to(enum dtype t, float *x, int64_t n)
{
    if (dtype_size(t) >= 4 || !dtype_is_float(t))
        return;
    uint16_t tmp[256];
    for (int64_t i = 0; i < n; i += 256) {
        const int64_t m = n - i < 256 ? n - i : 256;
        k_cast(t, tmp, DT_F32, x + i, m, true);
        k_load_f32(x + i, t, tmp, 0, m);
    }
}
