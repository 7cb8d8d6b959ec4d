/* Reductions over axes, ArgMax and ArgMin, TopK, cumulative sums. A reduction first brings the reduced axes last (a
 * copy only when they are not there already), then runs the 64-lane row reductions of kernels/vec.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/op.h"
#include "kernels/sort.h"

/* x as rows of the reduced elements. */
struct reduction {
    const struct k_tensor *x;
    const char *data;
    int64_t rows, cols;
    int rank;
    int64_t dims[K_MAX_RANK]; /* of the result */
};

static bool axes_of(struct k_call *c, bool reduce[K_MAX_RANK], bool *any)
{
    const int rank = c->in[0]->rank;
    const struct k_attr *a = k_attr_find(c, "axes");
    int64_t n = 0;
    const int64_t *axes = NULL;
    if (k_in(c, 1)) {
        if (!(axes = k_whole(c, 1, &n)))
            return false;
    } else if (a && a->kind == K_ATTR_INTS) {
        axes = a->v.ints;
        n = a->len;
    }
    for (int64_t i = 0; i < n; i++) {
        int axis;
        if (!k_axis(c, axes[i], rank, &axis))
            return false;
        reduce[axis] = true;
    }
    *any = n > 0;
    if (n == 0 && !k_attr_int(c, "noop_with_empty_axes", 0))
        for (int i = 0; i < rank; i++)
            reduce[i] = true;
    return true;
}

static enum npuc_status prepare(struct k_call *c, struct reduction *r, const bool *reduce)
{
    const struct k_tensor *x = c->in[0];
    const bool keep = k_attr_int(c, "keepdims", 1);
    *r = (struct reduction){.x = x, .data = x->data, .rows = 1, .cols = 1};
    struct k_nd d = {.n = 2};
    bool trailing = true, seen = false;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < x->rank; i++)
            if (reduce[i] == (pass == 1)) {
                d.dims[d.rank] = x->dims[i];
                d.stride[1][d.rank++] = k_stride(x, i);
                *(pass ? &r->cols : &r->rows) *= x->dims[i];
            }
    for (int i = 0; i < x->rank; i++) {
        if (keep || !reduce[i])
            r->dims[r->rank++] = reduce[i] ? 1 : x->dims[i];
        trailing = trailing && (reduce[i] || !seen);
        seen = seen || reduce[i];
    }
    if (trailing || k_count(x) == 0)
        return NPUC_OK;
    void *copy = k_scratch(c, k_count(x), k_move_size(x->dtype));
    if (!copy)
        return k_no_memory(c);
    k_nd_dense(&d, 0);
    k_nd_copy(d, copy, x->data, k_move_size(x->dtype));
    r->data = copy;
    return NPUC_OK;
}

/* The reductions: lanes by `op`, then a mean or a formula. */
struct kind {
    enum k_red op;
    enum k_fn after; /* formula on the combined value, or none */
    bool mean;
};

static void reduce_row(const struct kind *k, const struct reduction *r, int64_t row, struct k_tensor *y)
{
    const enum dtype t = r->x->dtype;
    union k_lanes acc;
    k_red_init(k->op, t, &acc);
    k_red_add(k->op, t, &acc, r->data + row * r->cols * dtype_size(t), r->cols, 0);
    const bool plain = k->after == K_FN_none && !k->mean;
    if (plain) {
        k_red_finish(k->op, t, &acc, (char *)y->data + row * dtype_size(t));
        return;
    }
    if (t == DT_F64 || !dtype_is_float(t)) {
        int64_t store = 0; /* room for either type */
        struct k_tensor one = {.dtype = t == DT_F64 ? DT_F64 : DT_I64, .data = &store};
        if (t == DT_F64)
            k_red_finish(k->op, t, &acc, one.data);
        else
            k_red_finish(k->op, t == DT_U64 ? DT_U64 : DT_I64, &acc, one.data);
        if (k->mean && t != DT_F64) {
            k_set_i64(y, row, r->cols ? k_get_i64(&one, 0) / r->cols : 0);
            return;
        }
        const double v = k_get_f64(&one, 0);
        k_set_f64(y, row, k->mean ? v / (double)r->cols : k->after == K_FN_Sqrt ? sqrt(v) : log(v));
        return;
    }
    float v; /* of all floats up to 32 bits: rounded to the type once, at the end */
    k_red_finish(k->op, DT_F32, &acc, &v);
    const struct k_rows arg[3] = {{&v, 0, 1}};
    if (k->mean)
        v /= (float)r->cols;
    else
        k_vec(k->after, DT_F32, 1, 1, &v, 0, arg, NULL);
    k_narrow(t, y->data, row, &v, 1, true);
}

static enum npuc_status reduce(struct k_call *c, const struct kind *k)
{
    bool axes[K_MAX_RANK] = {0}, any;
    struct reduction r;
    if (!k_has(c, 1, 1) || !axes_of(c, axes, &any))
        return NPUC_E_INVALID;
    if (dtype_size(c->in[0]->dtype) == 0 || k_wide_of(c->in[0]->dtype) == K_WIDE_NONE)
        return k_fail(c, NPUC_E_UNSUPPORTED, "type %s is not supported", dtype_table[c->in[0]->dtype].name);
    K_TRY(prepare(c, &r, axes));
    if (!k_out(c, 0, r.x->dtype, r.rank, r.dims))
        return k_no_memory(c);
    for (int64_t i = 0; i < r.rows; i++)
        reduce_row(k, &r, i, &c->out[0]);
    return NPUC_OK;
}

#define REDUCE(name, ...)                                                                                              \
    enum npuc_status k_op_reduce_##name(struct k_call *c)                                                              \
    {                                                                                                                  \
        return reduce(c, &(struct kind){__VA_ARGS__});                                                                 \
    }
REDUCE(sum, .op = K_RED_SUM)
REDUCE(mean, .op = K_RED_SUM, .mean = true)
REDUCE(max, .op = K_RED_MAX)
REDUCE(min, .op = K_RED_MIN)
REDUCE(prod, .op = K_RED_PROD)
REDUCE(l1, .op = K_RED_ABSSUM)
REDUCE(l2, .op = K_RED_SUMSQ, .after = K_FN_Sqrt)
REDUCE(log_sum, .op = K_RED_SUM, .after = K_FN_Log)
REDUCE(sum_square, .op = K_RED_SUMSQ)

/* max + log(sum(exp(x - max))), in float (double for f64 and whole numbers, whose result loses its fraction) */
static void log_sum_exp_f32(const struct reduction *r, int64_t row, struct k_tensor *y, float *x)
{
    k_load_f32(x, r->x->dtype, r->data, row * r->cols, r->cols);
    union k_lanes acc;
    float max, sum;
    k_red_init(K_RED_MAX, DT_F32, &acc);
    k_red_add(K_RED_MAX, DT_F32, &acc, x, r->cols, 0);
    k_red_finish(K_RED_MAX, DT_F32, &acc, &max);
    if (fabsf(max) == INFINITY) { /* all -inf, or +inf among them */
        k_set_f64(y, row, (double)max);
        return;
    }
    const struct k_rows sub[3] = {{x, 0, 1}, {&max, 0, 0}}, e[3] = {{x, 0, 1}};
    k_vec(K_FN_Sub, DT_F32, 1, r->cols, x, 0, sub, NULL);
    k_vec(K_FN_Exp, DT_F32, 1, r->cols, x, 0, e, NULL);
    k_red_init(K_RED_SUM, DT_F32, &acc);
    k_red_add(K_RED_SUM, DT_F32, &acc, x, r->cols, 0);
    k_red_finish(K_RED_SUM, DT_F32, &acc, &sum);
    sum = max + k_log(sum);
    k_narrow(y->dtype, y->data, row, &sum, 1, true);
}
static void log_sum_exp_f64(const struct reduction *r, int64_t row, struct k_tensor *y)
{
    struct k_tensor x = *r->x;
    x.data = (void *)(uintptr_t)(r->data + row * r->cols * dtype_size(x.dtype));
    double max = -(double)INFINITY, sum = 0;
    for (int64_t i = 0; i < r->cols; i++) {
        const double v = k_get_f64(&x, i);
        max = v > max || v != v ? v : max;
    }
    for (int64_t i = 0; i < r->cols; i++)
        sum += exp(k_get_f64(&x, i) - max);
    k_set_f64(y, row, fabs(max) == (double)INFINITY ? max : max + log(sum));
}
enum npuc_status k_op_reduce_log_sum_exp(struct k_call *c)
{
    bool axes[K_MAX_RANK] = {0}, any;
    struct reduction r;
    if (!k_has(c, 1, 1) || !axes_of(c, axes, &any))
        return NPUC_E_INVALID;
    const bool wide = c->in[0]->dtype == DT_F64 || !dtype_is_float(c->in[0]->dtype);
    if (dtype_size(c->in[0]->dtype) == 0 || dtype_table[c->in[0]->dtype].cls == DTC_COMPLEX)
        return k_fail(c, NPUC_E_UNSUPPORTED, "type %s is not supported", dtype_table[c->in[0]->dtype].name);
    K_TRY(prepare(c, &r, axes));
    float *x = k_scratch(c, r.cols, sizeof *x);
    if (!x || !k_out(c, 0, r.x->dtype, r.rank, r.dims))
        return k_no_memory(c);
    for (int64_t i = 0; i < r.rows; i++) {
        if (wide)
            log_sum_exp_f64(&r, i, &c->out[0]);
        else
            log_sum_exp_f32(&r, i, &c->out[0], x);
    }
    return NPUC_OK;
}

/* --- order --- */

static enum npuc_status arg_extreme(struct k_call *c, bool largest)
{
    int axis;
    if (!k_has(c, 1, 1) || !k_axis(c, k_attr_int(c, "axis", 0), c->in[0]->rank, &axis))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    const bool keep = k_attr_int(c, "keepdims", 1), last = k_attr_int(c, "select_last_index", 0);
    int64_t dims[K_MAX_RANK];
    int rank = 0;
    for (int i = 0; i < x->rank; i++)
        if (i != axis || keep)
            dims[rank++] = i == axis ? 1 : x->dims[i];
    int64_t *y = k_out(c, 0, DT_I64, rank, dims);
    if (!y)
        return k_no_memory(c);
    const int64_t inner = k_stride(x, axis), n = x->dims[axis], rows = n > 0 ? k_count(x) / n : 0;
    for (int64_t i = 0; i < rows; i++) {
        const int64_t base = i / inner * n * inner + i % inner;
        int64_t best = 0;
        for (int64_t k = 1; k < n; k++) {
            const int64_t a = base + k * inner, b = base + best * inner;
            if (k_before(x, a, b, largest) || (last && !k_before(x, b, a, largest)))
                best = k;
        }
        y[i] = best;
    }
    return NPUC_OK;
}
enum npuc_status k_op_arg_max(struct k_call *c)
{
    return arg_extreme(c, true);
}
enum npuc_status k_op_arg_min(struct k_call *c)
{
    return arg_extreme(c, false);
}

enum npuc_status k_op_top_k(struct k_call *c)
{
    int axis;
    if (!k_has(c, 2, 1) || !k_axis(c, k_attr_int(c, "axis", -1), c->in[0]->rank, &axis))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    const int64_t k = k_get_i64(c->in[1], 0), n = x->dims[axis], inner = k_stride(x, axis),
                  size = k_move_size(x->dtype);
    if (k < 0 || k > n)
        return k_fail(c, NPUC_E_INVALID, "k is %lld for a dimension of %lld", (long long)k, (long long)n);
    int64_t dims[K_MAX_RANK], *order = k_scratch(c, 2 * n, sizeof *order);
    memcpy(dims, x->dims, sizeof dims);
    dims[axis] = k;
    const char *from = k_move_in(c, x);
    char *y = k_move_out(c, 0, x->dtype, x->rank, dims);
    int64_t *index = k_wants(c, 1) ? k_out(c, 1, DT_I64, x->rank, dims) : NULL;
    if (!from || !y || !order || (k_wants(c, 1) && !index))
        return k_no_memory(c);
    const int64_t rows = n > 0 ? k_count(x) / n : 0;
    for (int64_t i = 0; i < rows; i++) {
        const int64_t base = i / inner * n * inner + i % inner, to = i / inner * k * inner + i % inner;
        for (int64_t j = 0; j < n; j++)
            order[j] = base + j * inner;
        k_sort_numbers(x, order, order + n, n, k_attr_int(c, "largest", 1));
        for (int64_t j = 0; j < k; j++) {
            memcpy(y + (to + j * inner) * size, from + order[j] * size, (size_t)size);
            if (index)
                index[to + j * inner] = (order[j] - base) / inner;
        }
    }
    k_move_done(c, 0, y);
    return NPUC_OK;
}

/* --- cumulative sums and products --- */

static enum npuc_status cumulate(struct k_call *c, enum k_fn fn, int64_t neutral)
{
    int axis;
    if (!k_has(c, 2, 1) || !k_axis(c, k_get_i64(c->in[1], 0), c->in[0]->rank, &axis))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    if (!k_fn_supports(fn, x->dtype))
        return k_fail(c, NPUC_E_UNSUPPORTED, "type %s is not supported", dtype_table[x->dtype].name);
    char *y = k_out_like(c, 0, x);
    if (!y)
        return k_no_memory(c);
    const bool reverse = k_attr_int(c, "reverse", 0), exclusive = k_attr_int(c, "exclusive", 0);
    const int64_t n = x->dims[axis], inner = k_stride(x, axis), size = dtype_size(x->dtype),
                  outer = k_dims_count(axis, x->dims);
    const char *src = x->data;
    for (int64_t o = 0; o < outer; o++)
        for (int64_t j = 0; j < n; j++) { /* whole rows of `inner` elements at once */
            const int64_t at = o * n + (reverse ? n - 1 - j : j), prev = reverse ? at + 1 : at - 1;
            const int64_t add = exclusive ? prev : at;
            char *to = y + at * inner * size;
            if (j == 0) {
                for (int64_t i = 0; i < inner && exclusive; i++)
                    k_set_i64(&c->out[0], at * inner + i, neutral);
                if (!exclusive)
                    memcpy(to, src + at * inner * size, (size_t)(inner * size));
                continue;
            }
            const struct k_rows arg[3] = {{y + prev * inner * size, 0, 1}, {src + add * inner * size, 0, 1}};
            k_vec(fn, x->dtype, 1, inner, to, 0, arg, NULL);
        }
    return NPUC_OK;
}
enum npuc_status k_op_cum_sum(struct k_call *c)
{
    return cumulate(c, K_FN_Add, 0);
}
enum npuc_status k_op_cum_prod(struct k_call *c)
{
    return cumulate(c, K_FN_Mul, 1);
}
