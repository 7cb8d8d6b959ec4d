/* SoftmaxMatMul: rows of scores and values to the result of attention, see attend_chunks.h. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/pool.h"
#include "kernels/attend.h"
#include "kernels/attend_chunks.h"
#include "kernels/mac.h"
#include "kernels/op.h"
#include "kernels/rows.h"

enum { BLOCK = 64 }; /* rows that a worker works on at once */

struct product {
    const float *s, *v, *sink;
    float *y, *scratch;
    const struct k_tensor *st; /* scores [batch .., rows, total] */
    int64_t rows, total, size;
    struct k_nd batch;  /* s, v and sink over the batch, in elements */
    int64_t plane_rows; /* rows that are one of `group` heads; the sink has its own rows and planes of them */
    int64_t sink_plane, sink_row;
    int64_t v_row, v_col;
    float scale;
    enum dtype type; /* of v */
    enum attend_empty empty;
};

/* A worker's scratch: of the part at hand (neg is -T) and of all before it. */
struct block {
    float p[BLOCK * ATTEND_CHUNK], lanes[BLOCK * K_LANES];
    float neg[BLOCK], sum[BLOCK], old[BLOCK], all_neg[BLOCK], all_sum[BLOCK];
    float o[]; /* BLOCK x size each: all parts, one part, one chunk */
};

static int64_t block_floats(int64_t size)
{
    return (int64_t)(sizeof(struct block) / sizeof(float)) + 3 * BLOCK * size;
}

/* The sum of a chunk's exponentials joins that of its part; with the last chunk it is one number. */
static void add_sum(struct block *w, int64_t i, int64_t cols, bool first, bool last)
{
    float *held = w->lanes + i * K_LANES;
    union k_lanes lanes;
    k_red_init(K_RED_SUM, DT_F32, &lanes);
    k_red_add(K_RED_SUM, DT_F32, &lanes, w->p + i * ATTEND_CHUNK, cols, 0);
    for (int j = 0; j < K_LANES; j++)
        held[j] = lanes.f[j] = first ? lanes.f[j] : fmaf(held[j], w->old[i], lanes.f[j]);
    if (last)
        k_red_finish(K_RED_SUM, DT_F32, &lanes, &w->sum[i]);
}

/* Probabilities of `cols` scores of a row. */
static void soften(const struct product *a, struct block *w, int64_t i, const float *s, int64_t cols)
{
    float *p = w->p + i * ATTEND_CHUNK, neg;
    const float max = k_row_reduce(K_RED_MAX, s, cols);
    k_row_scalar(K_FN_Min, &neg, &w->neg[i], max * -a->scale, 1);
    w->old[i] = k_exp(neg - w->neg[i]);
    w->neg[i] = neg;
    for (int64_t c = 0; c < cols; c++)
        p[c] = fmaf(s[c], a->scale, neg);
    k_row_unary(K_FN_Exp, p, p, cols);
}

/* A chunk joins its part. */
static void join_chunk(const struct product *a, struct block *w, int64_t i, bool first)
{
    float *o = w->o + (BLOCK + i) * a->size;
    const float *oc = w->o + (2 * BLOCK + i) * a->size;
    for (int64_t c = 0; c < a->size; c++)
        o[c] = first ? oc[c] : fmaf(o[c], w->old[i], oc[c]);
}

/* A part joins those before it. */
static void join_part(const struct product *a, struct block *w, int64_t i, bool first)
{
    float *o = w->o + i * a->size, neg;
    const float *op = w->o + (BLOCK + i) * a->size;
    if (first) {
        w->all_neg[i] = w->neg[i];
        w->all_sum[i] = w->sum[i];
        memcpy(o, op, (size_t)a->size * sizeof *o);
        return;
    }
    k_row_scalar(K_FN_Min, &neg, &w->all_neg[i], w->neg[i], 1);
    const float old = k_exp(neg - w->all_neg[i]), new = k_exp(neg - w->neg[i]);
    w->all_neg[i] = neg;
    w->all_sum[i] = fmaf(w->sum[i], new, w->all_sum[i] * old);
    for (int64_t c = 0; c < a->size; c++)
        o[c] = fmaf(op[c], new, o[c] * old);
}

static void finish(const struct product *a, struct block *w, int64_t i, const float *sink, float *y)
{
    float *o = w->o + i * a->size, sum = w->all_sum[i], neg;
    if (sink) {
        k_row_scalar(K_FN_Min, &neg, &w->all_neg[i], -*sink, 1);
        const float old = k_exp(neg - w->all_neg[i]);
        sum = sum * old + k_exp(neg - -*sink);
        k_row_scalar(K_FN_Mul, o, o, old, a->size);
    }
    if (a->total == 0)
        sum = 1;
    if (a->empty == ATTEND_EMPTY_ZERO)
        k_row_scalar(K_FN_Max, &sum, &sum, 1, 1);
    const bool none = a->empty == ATTEND_EMPTY_OR_NAN_ZERO && !(sum > 0);
    const float r = 1.0f / sum;
    for (int64_t c = 0; c < a->size; c++)
        y[c] = none ? 0.0f : (o[c] + 0.0f) * r;
}

/* Keys [k, k + cols) of rows that begin at at[0] of the scores; values of the batch member begin at at[1]. */
static void run_chunk(const struct product *a, struct block *w, const int64_t at[2], int64_t rows, int64_t k)
{
    const int64_t cols = a->total - k < ATTEND_CHUNK ? a->total - k : ATTEND_CHUNK;
    const bool first = k % ATTEND_PART == 0,
               last = k % ATTEND_PART == ATTEND_PART - ATTEND_CHUNK || k + cols == a->total;
    for (int64_t i = 0; i < rows; i++) {
        w->neg[i] = first ? FLT_MAX : w->neg[i];
        soften(a, w, i, a->s + at[0] + i * a->total + k, cols);
        add_sum(w, i, cols, first, last);
        k_round_to(a->type, w->p + i * ATTEND_CHUNK, cols);
    }
    k_matmul(&(struct k_matmul_args){.dtype = DT_F32,
                                     .m = rows,
                                     .n = a->size,
                                     .k = cols,
                                     .a = w->p,
                                     .a_row = ATTEND_CHUNK,
                                     .a_col = 1,
                                     .b = a->v + at[1] + k * a->v_row,
                                     .b_row = a->v_row,
                                     .b_col = a->v_col,
                                     .c = w->o + 2 * BLOCK * a->size,
                                     .c_row = a->size},
             NULL);
    for (int64_t i = 0; i < rows; i++) {
        join_chunk(a, w, i, first);
        if (last)
            join_part(a, w, i, k < ATTEND_PART);
    }
}

static void run_block(const struct product *a, struct block *w, const int64_t at[2], int64_t rows)
{
    for (int64_t i = 0; i < rows; i++)
        w->all_neg[i] = FLT_MAX;
    memset(w->all_sum, 0, sizeof w->all_sum);
    memset(w->o, 0, (size_t)(rows * a->size) * sizeof *w->o);
    for (int64_t k = 0; k < a->total; k += ATTEND_CHUNK)
        run_chunk(a, w, at, rows, k);
}

static const float *sink_of(const struct product *a, int64_t off, int64_t row)
{
    return a->sink ? a->sink + off + row / a->plane_rows * a->sink_plane + row % a->plane_rows * a->sink_row : NULL;
}

static void member(void *arg, int64_t item, int worker)
{
    const struct product *a = arg;
    struct block *w = (struct block *)(void *)(a->scratch + worker * block_floats(a->size));
    int64_t off[3] = {0, 0, 0}, rest = item;
    for (int d = a->batch.rank - 1; d >= 0; d--) {
        const int64_t i = rest % a->batch.dims[d];
        rest /= a->batch.dims[d];
        for (int k = 0; k < 3; k++)
            off[k] += i * a->batch.stride[k][d];
    }
    for (int64_t r = 0; r < a->rows; r += BLOCK) {
        const int64_t rows = a->rows - r < BLOCK ? a->rows - r : BLOCK;
        run_block(a, w, (const int64_t[]){off[0] + r * a->total, off[1]}, rows);
        for (int64_t i = 0; i < rows; i++)
            finish(a, w, i, sink_of(a, off[2], r + i), a->y + (item * a->rows + r + i) * a->size);
    }
}

/* The sink over [batch .., heads * group, rows / group, 1]. */
static bool sink_strides(struct k_call *c, struct product *a, const struct k_tensor *sink, int64_t group)
{
    const int rank = a->st->rank;
    struct k_nd d = {.n = 1, .rank = rank};
    memcpy(d.dims, a->st->dims, sizeof d.dims);
    if (group < 1 || a->rows % group != 0 || (group > 1 && rank < 3)) {
        k_fail(c, NPUC_E_INVALID, "%lld rows are not those of %lld heads", (long long)a->rows, (long long)group);
        return false;
    }
    a->plane_rows = a->rows / group > 0 ? a->rows / group : 1;
    if (!sink)
        return true;
    d.dims[rank - 1] = 1;
    d.dims[rank - 2] = a->rows / group;
    if (rank > 2)
        d.dims[rank - 3] *= group;
    k_nd_broadcast(&d, 0, sink);
    a->sink_row = d.stride[0][rank - 2];
    a->sink_plane = rank > 2 ? d.stride[0][rank - 3] : 0;
    for (int i = 0; i < rank - 2; i++)
        a->batch.stride[2][i] = d.stride[0][i] * (i == rank - 3 ? group : 1);
    return true;
}

/* v may have one of any batch axis. */
static bool set_strides(struct k_call *c, struct product *a, const struct k_tensor *v)
{
    const struct k_tensor *s = a->st;
    const int outer = s->rank - 2;
    int64_t step[2] = {a->rows * a->total, a->total * a->size};
    a->batch = (struct k_nd){.n = 3, .rank = outer > 0 ? outer : 1, .dims = {1}};
    for (int d = outer - 1; d >= 0; d--) {
        if (v->dims[d] != s->dims[d] && v->dims[d] != 1) {
            k_fail(c, NPUC_E_INVALID, "scores and values do not fit each other");
            return false;
        }
        a->batch.dims[d] = s->dims[d];
        a->batch.stride[0][d] = step[0];
        a->batch.stride[1][d] = v->dims[d] == 1 ? 0 : step[1];
        step[0] *= s->dims[d];
        step[1] *= v->dims[d];
    }
    return true;
}

enum npuc_status k_op_softmax_mat_mul(struct k_call *c)
{
    if (!k_has(c, 2, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *s = c->in[0], *v = c->in[1], *sink = k_in(c, 2);
    const bool trans = k_attr_int(c, "transB", 0) != 0;
    if (s->rank < 2 || v->rank != s->rank || v->dims[s->rank - (trans ? 1 : 2)] != s->dims[s->rank - 1] ||
        !dtype_is_float(s->dtype) || !dtype_is_float(v->dtype))
        return k_fail(c, NPUC_E_INVALID, "scores and values do not fit each other");
    struct product a = {.st = s,
                        .rows = s->dims[s->rank - 2],
                        .total = s->dims[s->rank - 1],
                        .size = v->dims[s->rank - (trans ? 2 : 1)],
                        .scale = k_attr_float(c, "scale", 1.0f),
                        .type = v->dtype,
                        .empty = (enum attend_empty)k_attr_int(c, "empty", 0)};
    a.v_row = trans ? 1 : a.size;
    a.v_col = trans ? a.total : 1;
    if (!set_strides(c, &a, v) || !sink_strides(c, &a, sink, k_attr_int(c, "group", 1)))
        return NPUC_E_INVALID;
    struct k_tensor y = *s;
    y.dims[s->rank - 1] = a.size;
    a.s = k_floats(c, s);
    a.v = k_floats(c, v);
    a.sink = sink ? k_floats(c, sink) : NULL;
    a.y = k_scratch(c, k_count(&y), sizeof *a.y);
    a.scratch = k_scratch(c, pool_threads(c->pool) * block_floats(a.size), sizeof *a.scratch);
    if (!a.s || !a.v || (sink && !a.sink) || !a.y || !a.scratch)
        return k_no_memory(c);
    pool_for(c->pool, k_dims_count(s->rank - 2, s->dims), member, &a);
    return k_out_floats(c, 0, v->dtype, &y, a.y);
}
