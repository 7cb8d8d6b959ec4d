/* Softmax, LogSoftmax, LayerNormalization, RMSNormalization, RotaryEmbedding. All of them compute in float, row by row,
 * with the formulas and 64-lane reductions of kernels/vec.h; the steps are spelled out because fused kernels repeat
 * them. */
#include <string.h>

#include "kernels/op.h"
#include "kernels/rows.h"

float k_row_reduce(enum k_red op, const float *x, int64_t n)
{
    union k_lanes acc;
    float y;
    k_red_init(op, DT_F32, &acc);
    k_red_add(op, DT_F32, &acc, x, n, 0);
    k_red_finish(op, DT_F32, &acc, &y);
    return y;
}
void k_row_scalar(enum k_fn fn, float *y, const float *x, float v, int64_t n)
{
    const struct k_rows arg[3] = {{x, 0, 1}, {&v, 0, 0}};
    k_vec(fn, DT_F32, 1, n, y, 0, arg, NULL);
}
void k_row_unary(enum k_fn fn, float *y, const float *x, int64_t n)
{
    const struct k_rows arg[3] = {{x, 0, 1}};
    k_vec(fn, DT_F32, 1, n, y, 0, arg, NULL);
}
void k_row_binary(enum k_fn fn, float *y, const float *a, const float *b, int64_t n)
{
    const struct k_rows arg[3] = {{a, 0, 1}, {b, 0, 1}};
    k_vec(fn, DT_F32, 1, n, y, 0, arg, NULL);
}

void k_row_softmax(float *x, int64_t n)
{
    const float max = k_row_reduce(K_RED_MAX, x, n);
    k_row_scalar(K_FN_Sub, x, x, max, n);
    k_row_unary(K_FN_Exp, x, x, n);
    k_row_scalar(K_FN_Div, x, x, k_row_reduce(K_RED_SUM, x, n), n);
}
static void row_log_softmax(float *x, int64_t n, float *tmp)
{
    const float max = k_row_reduce(K_RED_MAX, x, n);
    k_row_scalar(K_FN_Sub, x, x, max, n);
    k_row_unary(K_FN_Exp, tmp, x, n);
    k_row_scalar(K_FN_Sub, x, x, k_log(k_row_reduce(K_RED_SUM, tmp, n)), n);
}

static enum npuc_status softmax(struct k_call *c, bool log)
{
    int axis;
    if (!k_has(c, 1, 1) || !k_axis(c, k_attr_int(c, "axis", -1), c->in[0]->rank, &axis))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    if (!dtype_is_float(x->dtype))
        return k_fail(c, NPUC_E_UNSUPPORTED, "type %s is not supported", dtype_table[x->dtype].name);
    const int64_t n = x->dims[axis], inner = k_stride(x, axis), rows = n > 0 ? k_count(x) / n : 0;
    float *y = k_scratch(c, k_count(x), sizeof *y), *row = k_scratch(c, 2 * n, sizeof *row);
    if (!y || !row)
        return k_no_memory(c);
    k_load_f32(y, x->dtype, x->data, 0, k_count(x));
    for (int64_t i = 0; i < rows; i++) {
        float *at = y + i / inner * n * inner + i % inner, *work = inner == 1 ? at : row;
        for (int64_t k = 0; k < n && inner > 1; k++)
            row[k] = at[k * inner];
        if (log)
            row_log_softmax(work, n, row + n);
        else
            k_row_softmax(work, n);
        for (int64_t k = 0; k < n && inner > 1; k++)
            at[k * inner] = row[k];
    }
    return k_out_floats(c, 0, x->dtype, x, y);
}
enum npuc_status k_op_softmax(struct k_call *c)
{
    return softmax(c, false);
}
enum npuc_status k_op_log_softmax(struct k_call *c)
{
    return softmax(c, true);
}

/* --- normalisations --- */

float k_row_rms(float *y, const float *x, int64_t n, float epsilon)
{
    float inv = k_row_reduce(K_RED_SUMSQ, x, n) / (float)n + epsilon;
    k_row_unary(K_FN_Rsqrt, &inv, &inv, 1);
    k_row_scalar(K_FN_Mul, y, x, inv, n);
    return inv;
}

struct norm {
    const struct k_tensor *x;
    int axis;
    int64_t rows, cols;
    float epsilon;
    float *y, *mean, *inv;
};
static bool norm_of(struct k_call *c, struct norm *s)
{
    *s = (struct norm){.x = k_in(c, 0), .epsilon = k_attr_float(c, "epsilon", 1e-5f)};
    if (!k_has(c, 2, 1) || !k_axis(c, k_attr_int(c, "axis", -1), s->x->rank, &s->axis))
        return false;
    if (!dtype_is_float(s->x->dtype)) {
        k_fail(c, NPUC_E_UNSUPPORTED, "type %s is not supported", dtype_table[s->x->dtype].name);
        return false;
    }
    s->rows = k_dims_count(s->axis, s->x->dims);
    s->cols = k_dims_count(s->x->rank - s->axis, s->x->dims + s->axis);
    s->y = k_scratch(c, k_count(s->x), sizeof *s->y);
    s->mean = k_scratch(c, s->rows, sizeof *s->mean);
    s->inv = k_scratch(c, s->rows, sizeof *s->inv);
    if (!s->y || !s->mean || !s->inv)
        return false;
    k_load_f32(s->y, s->x->dtype, s->x->data, 0, k_count(s->x));
    return true;
}
/* y = fn(y, input i broadcast to the shape of x) */
static enum npuc_status with_input(struct k_call *c, const struct norm *s, enum k_fn fn, int i)
{
    const struct k_tensor *p = k_in(c, i);
    struct k_nd d = {.n = 2, .rank = s->x->rank};
    int rank;
    int64_t dims[K_MAX_RANK];
    memcpy(d.dims, s->x->dims, sizeof d.dims);
    if (!k_broadcast(s->x->rank, s->x->dims, p->rank, p->dims, &rank, dims) || rank != s->x->rank ||
        k_dims_count(rank, dims) != k_count(s->x))
        return k_fail(c, NPUC_E_INVALID, "input %d does not broadcast to the data", i);
    const float *v = k_floats(c, p);
    float *spread = k_scratch(c, k_count(s->x), sizeof *spread);
    if (!v || !spread)
        return k_no_memory(c);
    k_nd_dense(&d, 0);
    k_nd_broadcast(&d, 1, p);
    k_nd_copy(d, spread, v, sizeof *v);
    k_row_binary(fn, s->y, s->y, spread, k_count(s->x));
    return NPUC_OK;
}
/* The normalised value has the type of x before scale and bias are applied. */
static void round_to_type(const struct norm *s, void *tmp)
{
    if (s->x->dtype == DT_F32 || s->x->dtype == DT_F64)
        return;
    k_cast(s->x->dtype, tmp, DT_F32, s->y, k_count(s->x), true);
    k_load_f32(s->y, s->x->dtype, tmp, 0, k_count(s->x));
}

enum npuc_status k_op_rms_normalization(struct k_call *c)
{
    struct norm s;
    if (!norm_of(c, &s))
        return k_no_memory(c);
    void *tmp = k_scratch(c, k_count(s.x), sizeof(double));
    if (!tmp)
        return k_no_memory(c);
    for (int64_t r = 0; r < s.rows; r++)
        k_row_rms(s.y + r * s.cols, s.y + r * s.cols, s.cols, s.epsilon);
    round_to_type(&s, tmp);
    K_TRY(with_input(c, &s, K_FN_Mul, 1));
    return k_out_floats(c, 0, c->in[1]->dtype, s.x, s.y);
}

static void row_layer_norm(const struct norm *s, int64_t r)
{
    float *y = s->y + r * s->cols, n = (float)s->cols;
    s->mean[r] = k_row_reduce(K_RED_SUM, y, s->cols) / n;
    k_row_scalar(K_FN_Sub, y, y, s->mean[r], s->cols);
    s->inv[r] = k_row_rms(y, y, s->cols, s->epsilon);
}
enum npuc_status k_op_layer_normalization(struct k_call *c)
{
    struct norm s;
    if (!norm_of(c, &s))
        return k_no_memory(c);
    void *tmp = k_scratch(c, k_count(s.x), sizeof(double));
    if (!tmp)
        return k_no_memory(c);
    for (int64_t r = 0; r < s.rows; r++)
        row_layer_norm(&s, r);
    round_to_type(&s, tmp);
    K_TRY(with_input(c, &s, K_FN_Mul, 1));
    if (k_in(c, 2)) {
        round_to_type(&s, tmp); /* the function body multiplies and adds in the type of x */
        K_TRY(with_input(c, &s, K_FN_Add, 2));
    }
    struct k_tensor stat = *s.x;
    for (int i = s.axis; i < stat.rank; i++)
        stat.dims[i] = 1;
    if (k_wants(c, 1))
        K_TRY(k_out_floats(c, 1, DT_F32, &stat, s.mean));
    if (k_wants(c, 2))
        K_TRY(k_out_floats(c, 2, DT_F32, &stat, s.inv));
    return k_out_floats(c, 0, s.x->dtype, s.x, s.y);
}

/* --- rotary embedding --- */

/* Each product and the sum or difference are rounded to float. */
void k_row_rotate(float *y, const float *x, const struct k_rotary *r, int64_t pos_row)
{
    const int64_t half = r->half;
    const float *cs = r->cos + pos_row * half, *sn = r->sin + pos_row * half;
    for (int64_t i = 0; i < half; i++) {
        const int64_t a = r->interleaved ? 2 * i : i, b = r->interleaved ? 2 * i + 1 : i + half;
        const float xa = x[a], xb = x[b], p = cs[i] * xa, q = sn[i] * xb, u = sn[i] * xa, v = cs[i] * xb;
        y[a] = p - q;
        y[b] = u + v;
    }
    for (int64_t i = 2 * half; y != x && i < r->head; i++)
        y[i] = x[i];
}

/* x [B, S, N, H] or [B, N, S, H] (by_head); rotates in place. pos: row of the caches for (b, s), or NULL: b*S + s,
 * where caches of one batch entry (S rows) serve all. */
struct rotation {
    struct k_rotary r;
    int64_t batch, seq, heads, cache_rows;
    bool by_head;
    const int64_t *pos;
    int64_t n_pos;
};
static enum npuc_status rotate_all(struct k_call *c, const struct rotation *t, float *x)
{
    for (int64_t b = 0; b < t->batch; b++)
        for (int64_t s = 0; s < t->seq; s++) {
            const int64_t flat = b * t->seq + s;
            const int64_t pos = !t->pos         ? (t->cache_rows == t->seq ? s : flat)
                                : t->n_pos == 1 ? t->pos[0] + s
                                                : t->pos[flat % t->n_pos];
            if (pos < 0 || pos >= t->cache_rows)
                return k_fail(c, NPUC_E_INVALID, "position %lld is outside of the cache of %lld rows", (long long)pos,
                              (long long)t->cache_rows);
            for (int64_t n = 0; n < t->heads; n++) {
                float *row = x + (t->by_head ? (b * t->heads + n) * t->seq + s : flat * t->heads + n) * t->r.head;
                k_row_rotate(row, row, &t->r, pos);
            }
        }
    return NPUC_OK;
}
static enum npuc_status rotary(struct k_call *c, int at_cos, int at_pos)
{
    if (!k_has(c, 3, 1) || !k_in(c, at_cos) || !k_in(c, at_cos + 1))
        return k_fail(c, NPUC_E_INVALID, "inputs are missing");
    const struct k_tensor *x = c->in[0], *cosines = c->in[at_cos], *sines = c->in[at_cos + 1];
    if ((x->rank != 3 && x->rank != 4) || cosines->rank < 2 || sines->rank != cosines->rank ||
        k_count(sines) != k_count(cosines))
        return k_fail(c, NPUC_E_INVALID, "the input must have rank 3 or 4, the caches equal shapes");
    struct rotation t = {.batch = x->dims[0], .by_head = x->rank == 4};
    const int64_t half = cosines->dims[cosines->rank - 1], rd = k_attr_int(c, "rotary_embedding_dim", 0);
    int64_t heads = k_attr_int(c, "num_heads", 0);
    if (x->rank == 3 && heads == 0 && rd == 0 && half > 0)
        heads = x->dims[2] / (2 * half);
    t.seq = x->dims[x->rank == 4 ? 2 : 1];
    t.heads = x->rank == 4 ? x->dims[1] : heads;
    if (t.heads <= 0)
        return k_fail(c, NPUC_E_INVALID, "num_heads is needed for an input of rank 3");
    t.r = (struct k_rotary){.head = x->rank == 4 ? x->dims[3] : x->dims[2] / t.heads,
                            .half = half,
                            .interleaved = k_attr_int(c, "interleaved", 0) != 0};
    if (2 * half > t.r.head || (rd > 0 && rd != 2 * half) || (x->rank == 3 && t.r.head * t.heads != x->dims[2]))
        return k_fail(c, NPUC_E_INVALID, "the caches do not fit the head size");
    t.cache_rows = half > 0 ? k_count(cosines) / half : 0;
    if (k_in(c, at_pos) && !(t.pos = k_whole(c, at_pos, &t.n_pos)))
        return k_no_memory(c);
    if (t.pos && t.n_pos != 1 && t.n_pos != t.batch * t.seq)
        return k_fail(c, NPUC_E_INVALID, "position_ids do not fit the input");
    float *y = k_scratch(c, k_count(x), sizeof *y);
    t.r.cos = k_floats(c, cosines);
    t.r.sin = k_floats(c, sines);
    if (!y || !t.r.cos || !t.r.sin)
        return k_no_memory(c);
    k_load_f32(y, x->dtype, x->data, 0, k_count(x));
    K_TRY(rotate_all(c, &t, y));
    return k_out_floats(c, 0, x->dtype, x, y);
}
enum npuc_status k_op_rotary_embedding(struct k_call *c)
{
    return rotary(c, 1, 3);
}
