/* The product of kernels/conv.h: the elements of a few rows of windows as columns of a matrix, then k_matmul. */
#include "kernels/conv.h"

#include <string.h>

#include "base/pool.h"
#include "kernels/mac.h"

/* --- y[m][0..n) = sum over k of weight[m][k] * columns[k][0..n) --- */

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
static void multiply(const struct k_conv *v, const struct product *p, struct pool *pool)
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
static bool is_pointwise(const struct k_conv *v)
{
    const struct k_window *w = &v->w;
    bool plain = v->type != DT_I32;
    for (int i = 0; i < K_AXES; i++)
        plain = plain && w->kernel[i] == 1 && w->stride[i] == 1 && w->before[i] == 0 && w->in[i] == w->out[i] &&
                v->step[i] == 1;
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

enum npuc_status k_conv_run(struct k_call *c, const struct k_conv *v)
{
    const struct k_window *w = &v->w;
    const int64_t in = v->channels / v->group, m = v->outs / v->group, k = in * k_window_taps(w);
    const int64_t plane = k_plane_out(w), all_rows = w->out[0] * w->out[1], step = rows_at_once(w, k);
    const int size = dtype_size(v->type), sum_size = dtype_size(v->sum);
    const bool direct = is_pointwise(v);
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
            k_im2col(&(struct k_im2col){w, x, columns, in, r, rows, {v->step[0], v->step[1], v->step[2]}, size},
                     c->pool);
            p.columns = columns;
            p.y = y + r * w->out[2] * sum_size;
            p.n = p.b_row = rows * w->out[2];
            multiply(v, &p, c->pool);
        }
    }
    return NPUC_OK;
}

enum npuc_status k_conv_finish(struct k_call *c, const struct k_conv *v, const struct k_tensor *bias, void *y)
{
    const int64_t plane = k_plane_out(&v->w), n = v->batch * v->outs * plane;
    const int size = dtype_size(v->sum);
    void *b = bias ? k_scratch(c, v->outs, size) : NULL;
    if (bias && !b)
        return k_no_memory(c);
    if (bias)
        k_cast(v->sum, b, v->type, bias->data, v->outs, true);
    for (int64_t i = 0; b && i < v->batch && n > 0; i++) {
        char *at = (char *)v->y + i * v->outs * plane * size;
        const struct k_rows arg[3] = {{at, plane, 1}, {b, 1, 0}};
        k_vec(K_FN_Add, v->sum, v->outs, plane, at, plane, arg, NULL);
    }
    if (v->y != y)
        k_cast(v->type, y, v->sum, v->y, n, true);
    return NPUC_OK;
}
