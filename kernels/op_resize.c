/* Resize: nearest, linear and cubic, one axis after another.
 *
 * Coordinates and weights are computed in double; where a scale that is a power of two makes them short fractions,
 * every result is rounded to float, which is what operators on f32 give (passes/lower_resize.c). An axis maps every
 * output position to a few input positions and their weights; the weighted sum is taken in ascending order in float
 * (double for f64 and integers of 32 bits and more), each product and each addition rounded. Between axes the values
 * stay in that carrier. `nearest` moves elements of any type. */
#include <math.h>
#include <string.h>

#include "base/pool.h"
#include "kernels/op.h"
#include "kernels/resize.h"

enum { AT_X, AT_ROI, AT_SCALES, AT_SIZES };

struct axis {
    int axis; /* of the data */
    struct k_resize_axis of;
    int64_t *at;    /* [out][taps] input positions, inside of the data */
    double *weight; /* [out][taps] */
    bool *outside;  /* [out] takes the extrapolation value */
};
struct resize {
    const struct k_tensor *x;
    int n_axes;
    struct axis axes[K_MAX_RANK];
    struct k_resize_rule rule;
};

/* --- what is asked for --- */

static const struct k_tensor *given(const struct k_call *c, int i)
{
    const struct k_tensor *t = k_in(c, i);
    return t && k_count(t) > 0 ? t : NULL;
}
static bool read_axes(struct k_call *c, struct resize *r)
{
    const struct k_attr *axes = k_attr_find(c, "axes");
    const bool some = axes && axes->kind == K_ATTR_INTS && axes->len > 0;
    unsigned seen = 0;
    r->n_axes = some ? (int)axes->len : r->x->rank;
    bool fits = !some || axes->len <= r->x->rank;
    for (int i = 0; fits && i < r->n_axes; i++) {
        int at;
        if (!k_axis(c, some ? axes->v.ints[i] : i, r->x->rank, &at))
            return false;
        r->axes[i] = (struct axis){.axis = at, .of = {.in = r->x->dims[at], .roi = {0, 1}}};
        fits = !(seen & 1u << at);
        seen |= 1u << at;
    }
    if (!fits)
        k_fail(c, NPUC_E_INVALID, "attribute axes names an axis twice");
    return fits;
}
static bool read_roi(struct k_call *c, struct resize *r)
{
    const struct k_tensor *roi = given(c, AT_ROI);
    if (strcmp(r->rule.coordinates, "tf_crop_and_resize") != 0)
        return true;
    if (!roi || k_count(roi) != 2 * r->n_axes || !dtype_is_float(roi->dtype)) {
        k_fail(c, NPUC_E_INVALID, "roi must have %d elements for tf_crop_and_resize", 2 * r->n_axes);
        return false;
    }
    for (int i = 0; i < r->n_axes; i++) {
        r->axes[i].of.roi[0] = k_get_f64(roi, i);
        r->axes[i].of.roi[1] = k_get_f64(roi, r->n_axes + i);
    }
    return true;
}
static bool read_scales(struct k_call *c, struct resize *r, const struct k_tensor *scales)
{
    bool fits = dtype_is_float(scales->dtype) && k_count(scales) == r->n_axes;
    for (int i = 0; fits && i < r->n_axes; i++) {
        struct axis *a = &r->axes[i];
        a->of.scale = k_get_f64(scales, i);
        fits = a->of.scale > 0 && a->of.scale <= 1e6;
        a->of.out = fits ? (int64_t)floor((double)a->of.in * a->of.scale) : 0;
    }
    if (!fits)
        k_fail(c, NPUC_E_INVALID, "scales must be %d numbers above 0", r->n_axes);
    return fits;
}
static bool read_sizes(struct k_call *c, struct resize *r)
{
    int64_t n = 0;
    const int64_t *sizes = k_whole(c, AT_SIZES, &n);
    const char *policy = k_attr_str(c, "keep_aspect_ratio_policy", "stretch");
    const bool smaller = !strcmp(policy, "not_larger"), larger = !strcmp(policy, "not_smaller");
    bool fits = sizes && n == r->n_axes;
    double common = smaller ? INFINITY : 0;
    for (int i = 0; fits && i < r->n_axes; i++) {
        struct axis *a = &r->axes[i];
        a->of.out = sizes[i];
        fits = a->of.out >= 0 && a->of.out <= INT32_MAX && (a->of.in > 0 || a->of.out == 0);
        a->of.scale = a->of.in > 0 ? (double)a->of.out / (double)a->of.in : 1;
        common = smaller ? fmin(common, a->of.scale) : fmax(common, a->of.scale);
    }
    for (int i = 0; fits && (smaller || larger) && i < r->n_axes; i++) {
        r->axes[i].of.scale = common;
        r->axes[i].of.out = (int64_t)(common * (double)r->axes[i].of.in + 0.5);
    }
    if (!fits)
        k_fail(c, NPUC_E_INVALID, "sizes must be %d whole numbers that the input can be resized to", r->n_axes);
    return fits;
}
static bool resize_of(struct k_call *c, struct resize *r)
{
    if (!k_has(c, 1, 1))
        return false;
    *r = (struct resize){.x = c->in[AT_X],
                         .rule = {.mode = k_attr_str(c, "mode", "nearest"),
                                  .nearest = k_attr_str(c, "nearest_mode", "round_prefer_floor"),
                                  .coordinates = k_attr_str(c, "coordinate_transformation_mode", "half_pixel"),
                                  .antialias = k_attr_int(c, "antialias", 0) != 0,
                                  .exclude_outside = k_attr_int(c, "exclude_outside", 0) != 0,
                                  .cubic_a = (double)k_attr_float(c, "cubic_coeff_a", -0.75f)}};
    const struct k_tensor *scales = given(c, AT_SCALES);
    if (!read_axes(c, r) || !read_roi(c, r))
        return false;
    if (!given(c, AT_SIZES) && !scales && r->n_axes > 0) {
        k_fail(c, NPUC_E_INVALID, "neither scales nor sizes are given");
        return false;
    }
    return r->n_axes == 0 || (given(c, AT_SIZES) ? read_sizes(c, r) : read_scales(c, r, scales));
}

/* --- taps --- */

static enum npuc_status plan_axis(struct k_call *c, const struct resize *r, struct axis *a)
{
    const int64_t last = a->of.in - 1;
    if (!k_resize_prepare(&r->rule, &a->of))
        return k_fail(c, NPUC_E_UNSUPPORTED, "mode %s with coordinates %s is not known", r->rule.mode,
                      r->rule.coordinates);
    const int64_t n = a->of.n;
    a->at = k_scratch(c, a->of.out * n, sizeof *a->at);
    a->weight = k_scratch(c, a->of.out * n, sizeof *a->weight);
    a->outside = k_scratch(c, a->of.out, sizeof *a->outside);
    if (!a->at || !a->weight || !a->outside)
        return k_no_memory(c);
    for (int64_t o = 0; o < a->of.out; o++)
        a->outside[o] = !k_resize_place(&r->rule, &a->of, o, &a->at[o * n], &a->weight[o * n]);
    for (int64_t i = 0; i < a->of.out * n; i++)
        a->at[i] = a->at[i] < 0 ? 0 : a->at[i] > last ? last : a->at[i];
    return NPUC_OK;
}
/* Same length, same positions: nothing to do. */
static bool keeps(const struct axis *a)
{
    return a->of.in == a->of.out && fabs(a->of.scale - 1) <= 1e-9 && a->of.roi[0] == 0 && a->of.roi[1] == 1;
}

/* --- applying one axis: data [outer][in][inner] --- */

struct job {
    const struct axis *a;
    const char *x;
    char *y;
    int64_t inner;
    int64_t size;      /* bytes per element */
    const void *value; /* extrapolation value, as an element */
};
static void move_axis(void *arg, int64_t outer, int worker)
{
    (void)worker;
    const struct job *j = arg;
    const int64_t block = j->inner * j->size;
    const char *x = j->x + outer * j->a->of.in * block;
    char *y = j->y + outer * j->a->of.out * block;
    for (int64_t o = 0; o < j->a->of.out; o++, y += block) {
        for (int64_t i = 0; j->a->outside[o] && i < j->inner; i++)
            memcpy(y + i * j->size, j->value, (size_t)j->size);
        if (!j->a->outside[o])
            memcpy(y, x + j->a->at[o] * block, (size_t)block);
    }
}
#define MIX(REAL, NAME)                                                                                                \
    static void NAME(void *arg, int64_t outer, int worker)                                                             \
    {                                                                                                                  \
        (void)worker;                                                                                                  \
        const struct job *j = arg;                                                                                     \
        const struct axis *a = j->a;                                                                                   \
        const REAL *x = (const REAL *)(const void *)j->x + outer * a->of.in * j->inner;                                \
        REAL *y = (REAL *)(void *)j->y + outer * a->of.out * j->inner;                                                 \
        for (int64_t o = 0; o < a->of.out; o++, y += j->inner) {                                                       \
            for (int64_t t = 0; t < a->of.n; t++) {                                                                    \
                const REAL w = (REAL)a->weight[o * a->of.n + t];                                                       \
                const REAL *row = x + a->at[o * a->of.n + t] * j->inner;                                               \
                for (int64_t i = 0; i < j->inner; i++)                                                                 \
                    y[i] = t == 0 ? w * row[i] : y[i] + w * row[i];                                                    \
            }                                                                                                          \
            for (int64_t i = 0; a->outside[o] && i < j->inner; i++)                                                    \
                y[i] = *(const REAL *)j->value;                                                                        \
        }                                                                                                              \
    }
MIX(float, mix_f32)
MIX(double, mix_f64)

/* Runs all axes; *data and dims are the values before and after. */
static enum npuc_status run_axes(struct k_call *c, struct resize *r, struct job *j, const void **data)
{
    int64_t dims[K_MAX_RANK];
    memcpy(dims, r->x->dims, sizeof dims);
    const bool nearest = !strcmp(r->rule.mode, "nearest");
    for (int i = 0; i < r->n_axes; i++) {
        struct axis *a = &r->axes[i];
        if (keeps(a))
            continue;
        K_TRY(plan_axis(c, r, a));
        const int64_t outer = k_dims_count(a->axis, dims);
        j->inner = k_dims_count(r->x->rank - a->axis - 1, dims + a->axis + 1);
        dims[a->axis] = a->of.out;
        j->a = a;
        j->x = *data;
        j->y = k_scratch(c, k_dims_count(r->x->rank, dims), j->size);
        if (!j->y)
            return k_no_memory(c);
        if (k_dims_count(r->x->rank, dims) > 0)
            pool_for(c->pool, outer, nearest ? move_axis : j->size == 8 ? mix_f64 : mix_f32, j);
        *data = j->y;
    }
    return NPUC_OK;
}

/* Whole numbers: the nearest, no further than the type goes. */
static void store_whole(const struct k_tensor *y, const void *x, enum dtype from)
{
    const int bits = dtype_table[y->dtype].bits;
    const bool is_signed = dtype_table[y->dtype].cls == DTC_INT;
    const double lo = is_signed ? -ldexp(1, bits - 1) : 0, hi = ldexp(1, bits - is_signed);
    for (int64_t i = 0; i < k_count(y); i++) {
        const double v = rint(from == DT_F64 ? ((const double *)x)[i] : (double)((const float *)x)[i]);
        const uint64_t top = is_signed ? UINT64_MAX >> (65 - bits) : UINT64_MAX >> (64 - bits);
        const uint64_t q = v >= hi      ? top
                           : !is_signed ? (v > lo ? (uint64_t)v : 0)
                                        : (uint64_t)(int64_t)(v > lo ? v : lo);
        k_narrow(y->dtype, y->data, i, &q, 1, true);
    }
}

enum npuc_status k_op_resize(struct k_call *c)
{
    struct resize r;
    int64_t dims[K_MAX_RANK];
    if (!resize_of(c, &r))
        return k_no_memory(c);
    const enum dtype t = r.x->dtype;
    const bool nearest = !strcmp(r.rule.mode, "nearest"), whole = dtype_is_integer(t);
    if (!nearest && !whole && !dtype_is_float(t))
        return k_fail(c, NPUC_E_UNSUPPORTED, "type %s in mode %s", dtype_table[t].name, r.rule.mode);
    memcpy(dims, r.x->dims, sizeof dims);
    for (int i = 0; i < r.n_axes; i++)
        dims[r.axes[i].axis] = r.axes[i].of.out;
    const enum dtype work = t == DT_F64 || (whole && dtype_table[t].bits >= 32) ? DT_F64 : DT_F32;
    const float extrapolation = k_attr_float(c, "extrapolation_value", 0);
    union {
        float f;
        double d;
        char element[sizeof(struct k_string)];
    } value = {.element = {0}};
    struct job j = {.size = nearest ? k_move_size(t) : dtype_size(work), .value = &value};
    void *y = nearest ? k_move_out(c, 0, t, r.x->rank, dims) : k_out(c, 0, t, r.x->rank, dims), *wide = NULL;
    const void *data = nearest     ? k_move_in(c, r.x)
                       : t == work ? r.x->data
                                   : (wide = k_scratch(c, k_count(r.x), j.size));
    if (!y || !data)
        return k_no_memory(c);
    if (!nearest)
        k_cast(work, &value, DT_F32, &extrapolation, 1, true);
    else if (t != DT_STRING)
        k_cast(t, &value, DT_F32, &extrapolation, 1, true);
    if (wide)
        k_cast(work, wide, t, r.x->data, k_count(r.x), true);
    K_TRY(run_axes(c, &r, &j, &data));
    const int64_t n = k_count(&c->out[0]);
    if (nearest) {
        memcpy(y, data, (size_t)(n * j.size));
        k_move_done(c, 0, y);
    } else if (whole) {
        store_whole(&c->out[0], data, work);
    } else {
        k_cast(t, y, work, data, n, true);
    }
    return NPUC_OK;
}
