/* Conv, ConvInteger and QLinearConv as a matrix product over the elements of each window.
 *
 * Definition: acc starts at 0; for k ascending over (channel of the group, position in the kernel, row-major)
 * acc = fma(w[m][k], x[k], acc) in f32 (f64 in double, integers wrap in int32), elements of the padding being 0 and
 * taking part; the bias is added after that, then the sum is rounded to the type of the result. A product of matrices
 * with the elements of the windows as columns does just this, so a cube that gathers its operand gives the same bits.
 */
#include <math.h>
#include <string.h>

#include "base/pool.h"
#include "base/size.h"
#include "kernels/mac.h"
#include "kernels/window.h"

struct conv {
    struct k_window w;
    int64_t batch, channels, outs, group; /* channels of x and of the result */
    enum dtype type, sum;                 /* of operands (DT_I32 for all integers) and of y */
    const void *x, *weight;
    void *y;
};

/* Positions of x and the weight among the inputs, of their zero points, and of the bias; NOT_AN_INPUT is always absent.
 */
enum { NOT_AN_INPUT = 16 };
struct inputs {
    int x, weight, x_zero, w_zero, bias;
};

static bool conv_of(struct k_call *c, const struct inputs *at, struct conv *v)
{
    const struct k_tensor *x = k_in(c, at->x), *weight = k_in(c, at->weight), *bias = k_in(c, at->bias);
    *v = (struct conv){.group = k_attr_int(c, "group", 1)};
    if (x->rank < 3 || weight->rank != x->rank || v->group < 1 || weight->dims[0] % v->group || x->dims[1] % v->group ||
        weight->dims[1] != x->dims[1] / v->group) {
        k_fail(c, NPUC_E_INVALID, "ranks, channels and group of input and weight do not fit each other");
        return false;
    }
    v->batch = x->dims[0];
    v->channels = x->dims[1];
    v->outs = weight->dims[0];
    if (bias && k_count(bias) != v->outs) {
        k_fail(c, NPUC_E_INVALID, "the bias has %lld elements, expected %lld", (long long)k_count(bias),
               (long long)v->outs);
        return false;
    }
    return k_window_of(c, x, weight->dims + 2, &v->w);
}

/* --- the product: y[m][0..n) = sum over k of weight[m][k] * columns[k][0..n) --- */

struct i32_rows {
    const int32_t *a, *b;
    int32_t *c;
    int64_t n, k, c_row;
};
static void i32_row(void *arg, int64_t m, int worker)
{
    (void)worker;
    const struct i32_rows *g = arg;
    uint32_t *c = (uint32_t *)g->c + m * g->c_row;
    memset(c, 0, (size_t)g->n * sizeof *c);
    for (int64_t k = 0; k < g->k; k++) {
        const uint32_t a = (uint32_t)g->a[m * g->k + k];
        const int32_t *b = g->b + k * g->n;
        for (int64_t i = 0; i < g->n; i++)
            c[i] += a * (uint32_t)b[i];
    }
}

struct product {
    const void *weight, *columns;
    void *y;
    int64_t m, n, k, b_row, y_row;
};
static void multiply(const struct conv *v, const struct product *p, struct pool *pool)
{
    if (v->type == DT_I32) {
        struct i32_rows rows = {p->weight, p->columns, p->y, p->n, p->k, p->y_row};
        pool_for(pool, p->m, i32_row, &rows);
        return;
    }
    k_matmul(&(struct k_matmul_args){.dtype = v->type,
                                     .m = p->m,
                                     .n = p->n,
                                     .k = p->k,
                                     .a = p->weight,
                                     .a_row = p->k,
                                     .a_col = 1,
                                     .b = p->columns,
                                     .b_row = p->b_row,
                                     .b_col = 1,
                                     .c = p->y,
                                     .c_row = p->y_row},
             pool);
}

/* A window of one element with stride 1: x is the matrix already. */
static bool is_pointwise(const struct k_window *w)
{
    bool plain = true;
    for (int i = 0; i < K_AXES; i++)
        plain = plain && w->kernel[i] == 1 && w->stride[i] == 1 && w->before[i] == 0 && w->after[i] == 0;
    return plain;
}

/* Output rows whose columns fill about 4 MB: they stay near the core and bound the scratch memory. */
enum { COLUMN_ELEMENTS = 1 << 20 };
static int64_t rows_at_once(const struct k_window *w, int64_t k)
{
    const int64_t all = w->out[0] * w->out[1], one = k * w->out[2];
    const int64_t rows = one > 0 ? COLUMN_ELEMENTS / one : all;
    return rows < 1 ? 1 : rows > all ? all : rows;
}

static enum npuc_status run(struct k_call *c, const struct conv *v)
{
    const struct k_window *w = &v->w;
    const int64_t in = v->channels / v->group, m = v->outs / v->group, k = in * k_window_taps(w);
    const int64_t plane = k_plane_out(w), all_rows = w->out[0] * w->out[1], step = rows_at_once(w, k);
    const int size = dtype_size(v->type), sum_size = dtype_size(v->sum);
    const bool direct = is_pointwise(w) && v->type != DT_I32;
    void *columns = direct ? NULL : k_scratch(c, k * step * w->out[2], size);
    if (!direct && !columns)
        return k_no_memory(c);
    for (int64_t i = 0; i < v->batch * v->group && plane > 0; i++) {
        const char *x = (const char *)v->x + i * in * k_plane_in(w) * size;
        struct product p = {
            .weight = (const char *)v->weight + i % v->group * m * k * size, .m = m, .k = k, .y_row = plane};
        char *y = (char *)v->y + i * m * plane * sum_size;
        if (direct) {
            p.columns = x;
            p.y = y;
            p.n = p.b_row = plane;
            multiply(v, &p, c->pool);
            continue;
        }
        for (int64_t r = 0; r < all_rows; r += step) {
            const int64_t rows = all_rows - r < step ? all_rows - r : step;
            k_im2col(&(struct k_im2col){w, x, columns, in, r, rows, size}, c->pool);
            p.columns = columns;
            p.y = y + r * w->out[2] * sum_size;
            p.n = p.b_row = rows * w->out[2];
            multiply(v, &p, c->pool);
        }
    }
    return NPUC_OK;
}

/* --- the operators --- */

enum npuc_status k_op_conv(struct k_call *c)
{
    const struct inputs at = {0, 1, NOT_AN_INPUT, NOT_AN_INPUT, 2};
    struct conv v;
    int64_t dims[K_MAX_RANK];
    if (!k_has(c, 2, 1) || !conv_of(c, &at, &v))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0], *bias = k_in(c, 2);
    v.type = x->dtype;
    v.sum = v.type == DT_F64 ? DT_F64 : DT_F32;
    if (!dtype_is_float(v.type) || dtype_size(v.type) < 2 || c->in[1]->dtype != v.type ||
        (bias && bias->dtype != v.type))
        return k_fail(c, NPUC_E_UNSUPPORTED, "types %s and %s", dtype_table[v.type].name,
                      dtype_table[c->in[1]->dtype].name);
    k_window_dims(&v.w, x, v.outs, dims);
    void *y = k_out(c, 0, v.type, x->rank, dims);
    const int64_t n = y ? k_count(&c->out[0]) : 0, plane = k_plane_out(&v.w);
    v.x = x->data;
    v.weight = c->in[1]->data;
    v.y = y && v.sum != v.type ? k_scratch(c, n, dtype_size(v.sum)) : y;
    void *b = bias ? k_scratch(c, v.outs, dtype_size(v.sum)) : NULL;
    if (!y || !v.y || (bias && !b))
        return k_no_memory(c);
    K_TRY(run(c, &v));
    if (bias) {
        k_cast(v.sum, b, v.type, bias->data, v.outs, true);
        for (int64_t i = 0; i < v.batch && n > 0; i++) {
            char *at_y = (char *)v.y + i * v.outs * plane * dtype_size(v.sum);
            const struct k_rows arg[3] = {{at_y, plane, 1}, {b, 1, 0}};
            k_vec(K_FN_Add, v.sum, v.outs, plane, at_y, plane, arg, NULL);
        }
    }
    if (v.y != y)
        k_cast(v.type, y, v.sum, v.y, n, true);
    return NPUC_OK;
}

/* Input i less its zero point: one, or one per entry of axis 0. */
static int32_t *centred(struct k_call *c, int i, int zero)
{
    const struct k_tensor *x = k_in(c, i), *z = k_in(c, zero);
    const int64_t n = k_count(x), zeros = z ? k_count(z) : 1;
    if ((x->dtype != DT_I8 && x->dtype != DT_U8) || (z && z->dtype != x->dtype) ||
        (zeros != 1 && (x->rank < 1 || zeros != x->dims[0]))) {
        k_fail(c, NPUC_E_INVALID, "input %d must have 8-bit integers and a zero point of its type and axis 0", i);
        return NULL;
    }
    int32_t *y = k_scratch(c, n, sizeof *y);
    if (!y)
        return NULL;
    k_cast(DT_I32, y, x->dtype, x->data, n, true);
    const int64_t per_zero = zeros > 0 ? n / zeros : 0;
    for (int64_t g = 0; z && g < zeros; g++) {
        const int32_t zero_point = (int32_t)k_get_i64(z, g);
        for (int64_t k = 0; k < per_zero; k++)
            y[g * per_zero + k] -= zero_point;
    }
    return y;
}
/* The sums of an integer convolution, in y or in fresh memory when y is NULL. */
static enum npuc_status integer_sums(struct k_call *c, const struct inputs *at, struct conv *v, int32_t *y)
{
    v->type = v->sum = DT_I32;
    v->x = centred(c, at->x, at->x_zero);
    v->weight = centred(c, at->weight, at->w_zero);
    v->y = y ? y : k_scratch(c, v->batch * v->outs * k_plane_out(&v->w), sizeof *y);
    return v->x && v->weight && v->y ? run(c, v) : k_no_memory(c);
}

enum npuc_status k_op_conv_integer(struct k_call *c)
{
    const struct inputs at = {0, 1, 2, 3, NOT_AN_INPUT};
    struct conv v;
    int64_t dims[K_MAX_RANK];
    if (!k_has(c, 2, 1) || !conv_of(c, &at, &v))
        return NPUC_E_INVALID;
    k_window_dims(&v.w, c->in[0], v.outs, dims);
    int32_t *y = k_out(c, 0, DT_I32, c->in[0]->rank, dims);
    return y ? integer_sums(c, &at, &v, y) : k_no_memory(c);
}

/* y = saturate(rint(sum * (x_scale * w_scale[m] / y_scale)) + y_zero), the factor and the product rounded to f32. */
enum npuc_status k_op_qlinear_conv(struct k_call *c)
{
    const struct inputs at = {0, 3, 2, 5, 8};
    struct conv v;
    int64_t dims[K_MAX_RANK];
    if (!k_has(c, 8, 1) || !conv_of(c, &at, &v))
        return NPUC_E_INVALID;
    const struct k_tensor *w_scale = c->in[4], *zero = c->in[7], *bias = k_in(c, 8);
    const int64_t scales = k_count(w_scale), plane = k_plane_out(&v.w);
    if ((scales != 1 && scales != v.outs) || k_count(c->in[1]) != 1 || k_count(c->in[6]) != 1 || k_count(zero) != 1 ||
        (zero->dtype != DT_I8 && zero->dtype != DT_U8) || (bias && bias->dtype != DT_I32))
        return k_fail(c, NPUC_E_INVALID, "scales, zero points or the bias do not fit the weight");
    k_window_dims(&v.w, c->in[0], v.outs, dims);
    void *y = k_out(c, 0, zero->dtype, c->in[0]->rank, dims);
    if (!y)
        return k_no_memory(c);
    K_TRY(integer_sums(c, &at, &v, NULL));
    struct k_requant q = {.type = zero->dtype, .zero = (int32_t)k_get_i64(zero, 0)};
    const float x_scale = (float)k_get_f64(c->in[1], 0), y_scale = (float)k_get_f64(c->in[6], 0);
    for (int64_t i = 0; i < v.batch * v.outs; i++) {
        const int64_t m = i % v.outs;
        int32_t *sums = (int32_t *)v.y + i * plane;
        const uint32_t add = bias ? ((const uint32_t *)bias->data)[m] : 0;
        for (int64_t k = 0; k < plane; k++)
            sums[k] = (int32_t)((uint32_t)sums[k] + add);
        q.scale = x_scale * (float)k_get_f64(w_scale, scales == 1 ? 0 : m) / y_scale;
        k_requant(&q, y, i * plane, sums, plane);
    }
    return NPUC_OK;
}
