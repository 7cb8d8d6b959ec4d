/* BatchNormalization, InstanceNormalization, GroupNormalization, LRN, LpNormalization, MeanVarianceNormalization,
 * Hardmax.
 *
 * f64 is computed in double, every other type in float and rounded once at the end, with the formulas and 64-lane
 * reductions of kernels/vec.h. Standardising a row: mean = SUM / n; x - mean; SUMSQ / n + epsilon; times Rsqrt of that.
 */
#include <math.h>
#include <string.h>

#include "kernels/op.h"
#include "kernels/sort.h"

union scalar {
    float f;
    double d;
};
static enum dtype carrier(const struct k_tensor *x)
{
    return x->dtype == DT_F64 ? DT_F64 : DT_F32;
}

/* A copy of t in type `to`. */
static void *copy_as(struct k_call *c, enum dtype to, const struct k_tensor *t)
{
    void *y = k_scratch(c, k_count(t), dtype_size(to));
    if (y)
        k_cast(to, y, t->dtype, t->data, k_count(t), true);
    return y;
}
static enum npuc_status store(struct k_call *c, int i, enum dtype t, const struct k_tensor *like, enum dtype from,
                              const void *x)
{
    void *y = k_out(c, i, t, like->rank, like->dims);
    if (!y)
        return k_no_memory(c);
    k_cast(t, y, from, x, k_count(like), true);
    return NPUC_OK;
}

/* x = fn(x, v) over n elements of type t. */
static void with_scalar(enum dtype t, enum k_fn fn, void *x, double v, int64_t n)
{
    union scalar s;
    if (t == DT_F64)
        s.d = v;
    else
        s.f = (float)v;
    const struct k_rows arg[3] = {{x, 0, 1}, {&s, 0, 0}};
    k_vec(fn, t, 1, n, x, 0, arg, NULL);
}
static void with_row(enum dtype t, enum k_fn fn, void *x, const void *y, int64_t n)
{
    const struct k_rows arg[3] = {{x, 0, 1}, {y, 0, 1}};
    k_vec(fn, t, 1, n, x, 0, arg, NULL);
}
/* rows x cols elements of x with one value of v per row. */
static void per_row(enum dtype t, enum k_fn fn, void *x, const void *v, int64_t rows, int64_t cols)
{
    const struct k_rows arg[3] = {{x, cols, 1}, {v, 1, 0}};
    k_vec(fn, t, rows, cols, x, cols, arg, NULL);
}
static double value_of(enum dtype t, const union k_lanes *acc, enum k_red red)
{
    union scalar s;
    k_red_finish(red, t, acc, &s);
    return t == DT_F64 ? s.d : (double)s.f;
}
static double reduce(enum dtype t, enum k_red red, const void *x, int64_t n)
{
    union k_lanes acc;
    k_red_init(red, t, &acc);
    k_red_add(red, t, &acc, x, n, 0);
    return value_of(t, &acc, red);
}
/* sum / n, in the carrier type. */
static double divide(enum dtype t, double sum, int64_t n)
{
    return t == DT_F64 ? sum / (double)n : (double)((float)sum / (float)n);
}

static bool norm_inputs(struct k_call *c, int n)
{
    if (!k_has(c, n, 1))
        return false;
    for (int i = 0; i < n; i++)
        if (!dtype_is_float(c->in[i]->dtype)) {
            k_fail(c, NPUC_E_UNSUPPORTED, "type %s is not supported", dtype_table[c->in[i]->dtype].name);
            return false;
        }
    return true;
}

/* --- per channel --- */

/* x [N][C][S]; inputs 1 .. n-1 have C elements. */
struct channels {
    int64_t n, c, s;
};
static bool channels_of(struct k_call *c, int inputs, struct channels *d)
{
    if (!norm_inputs(c, inputs))
        return false;
    const struct k_tensor *x = c->in[0];
    bool fits = x->rank >= 1;
    *d = (struct channels){.n = fits ? x->dims[0] : 0,
                           .c = x->rank > 1 ? x->dims[1] : 1,
                           .s = x->rank > 2 ? k_dims_count(x->rank - 2, x->dims + 2) : 1};
    for (int i = 1; fits && i < inputs; i++)
        fits = k_count(c->in[i]) == d->c;
    if (!fits)
        k_fail(c, NPUC_E_INVALID, "every input after the first needs one value per channel");
    return fits;
}

/* Means and variances of the channels of x over batch and space, in type t. */
static bool channel_moments(struct k_call *c, enum dtype t, const struct channels *d, const char *x,
                            struct k_tensor moments[2])
{
    const int size = dtype_size(t);
    char *row = k_scratch(c, d->s, size);
    for (int64_t ch = 0; row && ch < d->c; ch++) {
        union k_lanes sum, squares;
        k_red_init(K_RED_SUM, t, &sum);
        k_red_init(K_RED_SUMSQ, t, &squares);
        for (int64_t n = 0; n < d->n; n++)
            k_red_add(K_RED_SUM, t, &sum, x + (n * d->c + ch) * d->s * size, d->s, n * d->s);
        const double mean = divide(t, value_of(t, &sum, K_RED_SUM), d->n * d->s);
        for (int64_t n = 0; n < d->n; n++) {
            memcpy(row, x + (n * d->c + ch) * d->s * size, (size_t)(d->s * size));
            with_scalar(t, K_FN_Sub, row, mean, d->s);
            k_red_add(K_RED_SUMSQ, t, &squares, row, d->s, n * d->s);
        }
        k_set_f64(&moments[0], ch, mean);
        k_set_f64(&moments[1], ch, divide(t, value_of(t, &squares, K_RED_SUMSQ), d->n * d->s));
    }
    return row != NULL;
}
/* Outputs 1 and 2: running = running * momentum + moment * (1 - momentum). */
static enum npuc_status store_running(struct k_call *c, enum dtype t, const struct k_tensor moments[2])
{
    const double momentum = (double)k_attr_float(c, "momentum", 0.9f);
    for (int i = 0; i < 2; i++) {
        if (!k_wants(c, 1 + i))
            continue;
        const struct k_tensor *old = c->in[3 + i];
        const int64_t n = k_count(old);
        void *running = copy_as(c, t, old), *added = copy_as(c, t, &moments[i]);
        if (!running || !added)
            return k_no_memory(c);
        with_scalar(t, K_FN_Mul, running, momentum, n);
        with_scalar(t, K_FN_Mul, added, 1 - momentum, n);
        with_row(t, K_FN_Add, running, added, n);
        K_TRY(store(c, 1 + i, old->dtype, old, t, running));
    }
    return NPUC_OK;
}

/* y = (x - mean) * (scale * Rsqrt(variance + epsilon)) + bias, the factor computed once per channel. */
enum npuc_status k_op_batch_normalization(struct k_call *c)
{
    struct channels d;
    if (!channels_of(c, 5, &d))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    const enum dtype t = carrier(x);
    char *y = copy_as(c, t, x);
    void *scale = copy_as(c, t, c->in[1]), *bias = copy_as(c, t, c->in[2]);
    struct k_tensor moments[2];
    for (int i = 0; i < 2; i++)
        moments[i] = (struct k_tensor){
            .dtype = t, .rank = 1, .dims = {d.c}, .data = copy_as(c, t, c->in[3 + i]), .size = d.c * dtype_size(t)};
    if (!y || !scale || !bias || !moments[0].data || !moments[1].data)
        return k_no_memory(c);
    if (k_attr_int(c, "training_mode", 0)) {
        if (!channel_moments(c, t, &d, y, moments))
            return k_no_memory(c);
        K_TRY(store_running(c, t, moments));
    }
    void *factor = moments[1].data;
    with_scalar(t, K_FN_Add, factor, (double)k_attr_float(c, "epsilon", 1e-5f), d.c);
    const struct k_rows arg[3] = {{factor, 0, 1}};
    k_vec(K_FN_Rsqrt, t, 1, d.c, factor, 0, arg, NULL);
    with_row(t, K_FN_Mul, factor, scale, d.c);
    for (int64_t n = 0; n < d.n && d.s > 0; n++) {
        void *at = y + n * d.c * d.s * dtype_size(t);
        per_row(t, K_FN_Sub, at, moments[0].data, d.c, d.s);
        per_row(t, K_FN_Mul, at, factor, d.c, d.s);
        per_row(t, K_FN_Add, at, bias, d.c, d.s);
    }
    return store(c, 0, x->dtype, x, t, y);
}

static void standardise(enum dtype t, void *x, int64_t n, double epsilon)
{
    union scalar s;
    with_scalar(t, K_FN_Sub, x, divide(t, reduce(t, K_RED_SUM, x, n), n), n);
    const double variance = divide(t, reduce(t, K_RED_SUMSQ, x, n), n);
    if (t == DT_F64)
        s.d = variance;
    else
        s.f = (float)variance;
    with_scalar(t, K_FN_Add, &s, epsilon, 1);
    const struct k_rows arg[3] = {{&s, 0, 1}};
    k_vec(K_FN_Rsqrt, t, 1, 1, &s, 0, arg, NULL);
    with_scalar(t, K_FN_Mul, x, t == DT_F64 ? s.d : (double)s.f, n);
}
/* Standardises each of `groups` (0: one per channel) parts of the channels, then scales and shifts every channel. */
static enum npuc_status group_norm(struct k_call *c, int64_t groups)
{
    struct channels d;
    if (!channels_of(c, 3, &d))
        return NPUC_E_INVALID;
    if (groups == 0)
        groups = d.c > 0 ? d.c : 1;
    if (groups < 1 || d.c % groups)
        return k_fail(c, NPUC_E_INVALID, "num_groups must divide the %lld channels", (long long)d.c);
    const struct k_tensor *x = c->in[0];
    const enum dtype t = carrier(x);
    const double epsilon = (double)k_attr_float(c, "epsilon", 1e-5f);
    char *y = copy_as(c, t, x);
    void *scale = copy_as(c, t, c->in[1]), *bias = copy_as(c, t, c->in[2]);
    if (!y || !scale || !bias)
        return k_no_memory(c);
    const int64_t cols = d.c / groups * d.s;
    for (int64_t r = 0; r < d.n * groups && cols > 0; r++)
        standardise(t, y + r * cols * dtype_size(t), cols, epsilon);
    for (int64_t n = 0; n < d.n && d.s > 0; n++) {
        void *at = y + n * d.c * d.s * dtype_size(t);
        per_row(t, K_FN_Mul, at, scale, d.c, d.s);
        per_row(t, K_FN_Add, at, bias, d.c, d.s);
    }
    return store(c, 0, x->dtype, x, t, y);
}
enum npuc_status k_op_instance_normalization(struct k_call *c)
{
    return group_norm(c, 0);
}
enum npuc_status k_op_group_normalization(struct k_call *c)
{
    const int64_t groups = k_attr_int(c, "num_groups", -1);
    return group_norm(c, groups > 0 ? groups : -1);
}

/* y = x / (bias + alpha / size * sum of x^2 over the channels around)^beta, the sum ascending. */
enum npuc_status k_op_lrn(struct k_call *c)
{
    struct channels d;
    const int64_t size = k_attr_int(c, "size", 0);
    if (!channels_of(c, 1, &d))
        return NPUC_E_INVALID;
    if (size < 1)
        return k_fail(c, NPUC_E_INVALID, "attribute size is %lld, expected at least 1", (long long)size);
    const struct k_tensor *x = c->in[0];
    const enum dtype t = carrier(x);
    const int64_t bytes = d.s * dtype_size(t), below = (size - 1) / 2, above = size - 1 - below;
    const double alpha = (double)k_attr_float(c, "alpha", 1e-4f), beta = (double)k_attr_float(c, "beta", 0.75f);
    char *y = copy_as(c, t, x), *squares = copy_as(c, t, x), *sum = k_scratch(c, d.s, dtype_size(t));
    if (!y || !squares || !sum)
        return k_no_memory(c);
    with_row(t, K_FN_Mul, squares, y, k_count(x));
    for (int64_t i = 0; i < d.n * d.c; i++) {
        const int64_t ch = i % d.c, from = ch > below ? ch - below : 0,
                      to = above < d.c - 1 - ch ? ch + above : d.c - 1;
        memset(sum, 0, (size_t)bytes);
        for (int64_t k = from; k <= to; k++)
            with_row(t, K_FN_Add, sum, squares + (i - ch + k) * bytes, d.s);
        with_scalar(t, K_FN_Mul, sum, divide(t, alpha, size), d.s);
        with_scalar(t, K_FN_Add, sum, (double)k_attr_float(c, "bias", 1.0f), d.s);
        with_scalar(t, K_FN_Pow, sum, beta, d.s);
        with_row(t, K_FN_Div, y + i * bytes, sum, d.s);
    }
    return store(c, 0, x->dtype, x, t, y);
}

/* --- over chosen axes --- */

/* x with the chosen axes last, as rows. Operand 0 walks the rows, operand 1 the tensor. */
struct rows_of {
    struct k_nd d;
    int64_t rows, cols;
};
static struct rows_of rows_over(const struct k_tensor *x, const bool *chosen)
{
    struct rows_of r = {.d = {.n = 2}, .rows = 1, .cols = 1};
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < x->rank; i++)
            if (chosen[i] == (pass == 1)) {
                r.d.dims[r.d.rank] = x->dims[i];
                r.d.stride[1][r.d.rank++] = k_stride(x, i);
                *(pass ? &r.cols : &r.rows) *= x->dims[i];
            }
    k_nd_dense(&r.d, 0);
    return r;
}

typedef void row_fn(enum dtype t, void *x, int64_t n, int64_t p);
static enum npuc_status by_rows(struct k_call *c, const bool *chosen, row_fn *fn, int64_t p)
{
    const struct k_tensor *x = c->in[0];
    const enum dtype t = carrier(x);
    const int size = dtype_size(t);
    struct rows_of r = rows_over(x, chosen);
    char *y = copy_as(c, t, x), *rows = k_scratch(c, k_count(x), size);
    if (!y || !rows)
        return k_no_memory(c);
    if (k_count(x) == 0)
        return store(c, 0, x->dtype, x, t, y);
    k_nd_copy(r.d, rows, y, size);
    for (int64_t i = 0; i < r.rows; i++)
        fn(t, rows + i * r.cols * size, r.cols, p);
    for (int i = 0; i < r.d.rank; i++) { /* back: the operands change places */
        const int64_t stride = r.d.stride[0][i];
        r.d.stride[0][i] = r.d.stride[1][i];
        r.d.stride[1][i] = stride;
    }
    k_nd_copy(r.d, y, rows, size);
    return store(c, 0, x->dtype, x, t, y);
}

/* A norm of 0 leaves zeros. */
static void lp_row(enum dtype t, void *x, int64_t n, int64_t p)
{
    double norm = reduce(t, p == 1 ? K_RED_ABSSUM : K_RED_SUMSQ, x, n);
    if (p == 2)
        norm = t == DT_F64 ? sqrt(norm) : (double)sqrtf((float)norm);
    if (norm == 0)
        memset(x, 0, (size_t)(n * dtype_size(t)));
    else
        with_scalar(t, K_FN_Div, x, norm, n);
}
enum npuc_status k_op_lp_normalization(struct k_call *c)
{
    bool chosen[K_MAX_RANK] = {false};
    int axis;
    const int64_t p = k_attr_int(c, "p", 2);
    if (!norm_inputs(c, 1) || !k_axis(c, k_attr_int(c, "axis", -1), c->in[0]->rank, &axis))
        return NPUC_E_INVALID;
    if (p != 1 && p != 2)
        return k_fail(c, NPUC_E_INVALID, "attribute p is %lld, expected 1 or 2", (long long)p);
    chosen[axis] = true;
    return by_rows(c, chosen, lp_row, p);
}

/* (x - mean) / (deviation + 1e-9), as the function body of the standard has it. */
static void mean_variance_row(enum dtype t, void *x, int64_t n, int64_t p)
{
    (void)p;
    with_scalar(t, K_FN_Sub, x, divide(t, reduce(t, K_RED_SUM, x, n), n), n);
    const double variance = divide(t, reduce(t, K_RED_SUMSQ, x, n), n);
    const double deviation = t == DT_F64 ? sqrt(variance) + 1e-9 : (double)(sqrtf((float)variance) + 1e-9f);
    with_scalar(t, K_FN_Div, x, deviation, n);
}
enum npuc_status k_op_mean_variance_normalization(struct k_call *c)
{
    static const int64_t usual[] = {0, 2, 3};
    bool chosen[K_MAX_RANK] = {false};
    if (!norm_inputs(c, 1))
        return NPUC_E_INVALID;
    const struct k_attr *a = k_attr_find(c, "axes");
    const bool given = a && a->kind == K_ATTR_INTS && a->len > 0;
    const int64_t *axes = given ? a->v.ints : usual;
    for (int64_t i = 0; i < (given ? a->len : NPUC_ARRAY_LEN(usual)); i++) {
        int axis;
        if (!k_axis(c, axes[i], c->in[0]->rank, &axis))
            return NPUC_E_INVALID;
        chosen[axis] = true;
    }
    return by_rows(c, chosen, mean_variance_row, 0);
}

/* 1 at the first of the largest values (NaN is above all), 0 elsewhere. */
static void hard_row(enum dtype t, void *x, int64_t n, int64_t p)
{
    (void)p;
    struct k_tensor row = {.dtype = t, .rank = 1, .dims = {n}, .data = x};
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (k_before(&row, i, best, true))
            best = i;
    memset(x, 0, (size_t)(n * dtype_size(t)));
    k_set_f64(&row, best, 1);
}
enum npuc_status k_op_hardmax(struct k_call *c)
{
    bool chosen[K_MAX_RANK] = {false};
    int axis;
    if (!norm_inputs(c, 1) || !k_axis(c, k_attr_int(c, "axis", -1), c->in[0]->rank, &axis))
        return NPUC_E_INVALID;
    chosen[axis] = true;
    return by_rows(c, chosen, hard_row, 0);
}
