/* MaxPool, AveragePool, LpPool over windows; GlobalMaxPool, GlobalAveragePool, GlobalLpPool over whole channels.
 *
 * f64 is computed in double, every other type in float and rounded once. Windows add their elements in row-major order;
 * the global forms are row reductions by 64 lanes (kernels/vec.h), as the vector units do them. */
#include <math.h>

#include "base/pool.h"
#include "kernels/fmath_wide.h"
#include "kernels/window.h"

enum pool_kind { POOL_MAX, POOL_AVERAGE, POOL_NORM };
struct pooling {
    struct k_window w;
    enum pool_kind kind;
    const void *x; /* planes in the carrier type */
    void *y;
    int64_t *index;    /* of the largest elements in x, or NULL */
    bool column_major; /* indices count the first spatial axis fastest */
    bool count_pads;   /* AveragePool: padding counts as elements */
    int64_t p;         /* LpPool: the norm */
    float lowest;      /* MaxPool: of a window without elements */
};

/* The input positions of one window on one axis: from, from + step ... below to. */
struct taps {
    int64_t from, to, step;
    int64_t inside, padded; /* how many; how many with the padding (but not what lies behind it) */
};
static int64_t count_below(int64_t start, int64_t step, int64_t n, int64_t end)
{
    const int64_t count = end > start ? (end - start + step - 1) / step : 0;
    return count < n ? count : n;
}
static struct taps taps_of(const struct k_window *w, int axis, int64_t o)
{
    const int64_t start = o * w->stride[axis] - w->before[axis], step = w->dilation[axis], n = w->kernel[axis];
    const int64_t before = count_below(start, step, n, 0), all = count_below(start, step, n, w->in[axis]);
    return (struct taps){.from = start + before * step,
                         .to = start + all * step,
                         .step = step,
                         .inside = all - before,
                         .padded = count_below(start, step, n, w->in[axis] + w->after[axis])};
}
static int64_t flat_index(const struct pooling *p, int64_t plane, int64_t at)
{
    const struct k_window *w = &p->w;
    const int64_t base = plane * k_plane_in(w);
    if (!p->column_major || at < 0)
        return at < 0 ? -1 : base + at;
    const int64_t i2 = at % w->in[2], i1 = at / w->in[2] % w->in[1], i0 = at / w->in[2] / w->in[1];
    return base + (i2 * w->in[1] + i1) * w->in[0] + i0;
}

static float root_f32(float sum, int64_t p)
{
    return p == 1 ? sum : p == 2 ? sqrtf(sum) : k_pow(sum, 1.0f / (float)p);
}
static double root_f64(double sum, int64_t p)
{
    return p == 1 ? sum : p == 2 ? sqrt(sum) : k_exp_wide(k_log_wide(sum) / (double)p);
}

#define REAL    float
#define NAME(x) x##_f32
#include "kernels/pool.inc"
#undef REAL
#undef NAME
#define REAL    double
#define NAME(x) x##_f64
#include "kernels/pool.inc"
#undef REAL
#undef NAME

static enum dtype carrier(enum dtype t)
{
    return t == DT_F64 ? DT_F64 : DT_F32;
}

/* Input 0 in its carrier type. */
static const void *carried(struct k_call *c)
{
    const struct k_tensor *x = c->in[0];
    const enum dtype t = carrier(x->dtype);
    if (x->dtype == t)
        return x->data;
    void *y = k_scratch(c, k_count(x), dtype_size(t));
    if (y)
        k_cast(t, y, x->dtype, x->data, k_count(x), true);
    return y;
}
/* Output 0, and where its carrier values go: the output itself when the types agree. */
static void *carried_out(struct k_call *c, const int64_t *dims)
{
    const struct k_tensor *x = c->in[0];
    void *y = k_out(c, 0, x->dtype, x->rank, dims);
    return y && carrier(x->dtype) != x->dtype ? k_scratch(c, k_count(&c->out[0]), dtype_size(carrier(x->dtype))) : y;
}
static enum npuc_status store(struct k_call *c, const void *y)
{
    const struct k_tensor *out = &c->out[0];
    if (y != out->data)
        k_cast(out->dtype, out->data, carrier(out->dtype), y, k_count(out), true);
    return NPUC_OK;
}

static bool pool_types(struct k_call *c, bool whole)
{
    if (!k_has(c, 1, 1))
        return false;
    const struct k_tensor *x = c->in[0];
    const bool fits = dtype_is_float(x->dtype) || (whole && (x->dtype == DT_I8 || x->dtype == DT_U8));
    if (!fits)
        k_fail(c, NPUC_E_UNSUPPORTED, "type %s is not supported", dtype_table[x->dtype].name);
    else if (x->rank < 3)
        k_fail(c, NPUC_E_INVALID, "the input must have rank 3 or more");
    return fits && x->rank >= 3;
}

static enum npuc_status pool_op(struct k_call *c, struct pooling *p)
{
    if (!pool_types(c, p->kind == POOL_MAX) || !k_window_of(c, c->in[0], NULL, &p->w))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    int64_t dims[K_MAX_RANK];
    k_window_dims(&p->w, x, x->dims[1], dims);
    p->x = carried(c);
    p->y = carried_out(c, dims);
    if (p->kind == POOL_MAX && k_wants(c, 1) && !(p->index = k_out(c, 1, DT_I64, x->rank, dims)))
        return k_no_memory(c);
    if (!p->x || !p->y)
        return k_no_memory(c);
    if (k_count(&c->out[0]) > 0)
        pool_for(c->pool, dims[0] * dims[1], x->dtype == DT_F64 ? plane_f64 : plane_f32, p);
    return store(c, p->y);
}

enum npuc_status k_op_max_pool(struct k_call *c)
{
    const enum dtype t = k_in(c, 0) ? c->in[0]->dtype : DT_F32;
    struct pooling p = {.kind = POOL_MAX,
                        .column_major = k_attr_int(c, "storage_order", 0) != 0,
                        .lowest = t == DT_I8   ? -128.0f
                                  : t == DT_U8 ? 0.0f
                                               : -INFINITY};
    return pool_op(c, &p);
}
enum npuc_status k_op_average_pool(struct k_call *c)
{
    struct pooling p = {.kind = POOL_AVERAGE, .count_pads = k_attr_int(c, "count_include_pad", 0) != 0};
    return pool_op(c, &p);
}
enum npuc_status k_op_lp_pool(struct k_call *c)
{
    struct pooling p = {.kind = POOL_NORM, .p = k_attr_int(c, "p", 2)};
    if (p.p < 1)
        return k_fail(c, NPUC_E_INVALID, "attribute p is %lld, expected at least 1", (long long)p.p);
    return pool_op(c, &p);
}

/* --- global forms --- */

struct global {
    enum k_red red;
    enum dtype type;
    const char *x;
    char *y;
    int64_t n; /* elements of a channel */
};
static void one_channel(void *arg, int64_t item, int worker)
{
    (void)worker;
    const struct global *g = arg;
    const int size = dtype_size(g->type);
    union k_lanes acc;
    k_red_init(g->red, g->type, &acc);
    k_red_add(g->red, g->type, &acc, g->x + item * g->n * size, g->n, 0);
    k_red_finish(g->red, g->type, &acc, g->y + item * size);
}

/* Reduces every channel; the results are in *y, of the carrier type. */
static enum npuc_status global_op(struct k_call *c, struct global *g)
{
    const struct k_tensor *x = c->in[0];
    int64_t dims[K_MAX_RANK] = {x->dims[0], x->dims[1]};
    for (int i = 2; i < x->rank; i++)
        dims[i] = 1;
    g->type = carrier(x->dtype);
    g->n = k_dims_count(x->rank - 2, x->dims + 2);
    g->x = g->x ? g->x : carried(c);
    g->y = carried_out(c, dims);
    if (!g->x || !g->y)
        return k_no_memory(c);
    pool_for(c->pool, dims[0] * dims[1], one_channel, g);
    return NPUC_OK;
}

enum npuc_status k_op_global_max_pool(struct k_call *c)
{
    struct global g = {.red = K_RED_MAX};
    if (!pool_types(c, false))
        return NPUC_E_INVALID;
    K_TRY(global_op(c, &g));
    return store(c, g.y);
}
enum npuc_status k_op_global_average_pool(struct k_call *c)
{
    struct global g = {.red = K_RED_SUM};
    if (!pool_types(c, false))
        return NPUC_E_INVALID;
    K_TRY(global_op(c, &g));
    for (int64_t i = 0; i < k_count(&c->out[0]); i++) {
        if (g.type == DT_F64)
            ((double *)(void *)g.y)[i] /= (double)g.n;
        else
            ((float *)(void *)g.y)[i] /= (float)g.n;
    }
    return store(c, g.y);
}
enum npuc_status k_op_global_lp_pool(struct k_call *c)
{
    const int64_t p = k_attr_int(c, "p", 2);
    struct global g = {.red = p == 1 ? K_RED_ABSSUM : p == 2 ? K_RED_SUMSQ : K_RED_SUM};
    if (!pool_types(c, false) || p < 1)
        return k_fail(c, NPUC_E_INVALID, "the input needs rank 3 or more, attribute p at least 1");
    const int64_t n = k_count(c->in[0]);
    const bool wide = carrier(c->in[0]->dtype) == DT_F64;
    if (p > 2) {
        const void *x = carried(c);
        char *powers = k_scratch(c, n, wide ? sizeof(double) : sizeof(float));
        if (!x || !powers)
            return k_no_memory(c);
        for (int64_t i = 0; i < n; i++) {
            if (wide)
                ((double *)(void *)powers)[i] = power_f64(((const double *)x)[i], p);
            else
                ((float *)(void *)powers)[i] = power_f32(((const float *)x)[i], p);
        }
        g.x = powers;
    }
    K_TRY(global_op(c, &g));
    for (int64_t i = 0; i < k_count(&c->out[0]); i++) {
        if (wide)
            ((double *)(void *)g.y)[i] = root_f64(((double *)(void *)g.y)[i], p);
        else
            ((float *)(void *)g.y)[i] = root_f32(((float *)(void *)g.y)[i], p);
    }
    return store(c, g.y);
}
