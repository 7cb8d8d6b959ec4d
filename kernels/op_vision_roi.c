/* RoiAlign, MaxRoiPool, CropAndResize: features of regions of a map [N][C][H][W], one region after another.
 *
 * f64 is computed in double, every other type in float and rounded once. Samples are added row by row. */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "kernels/carried.h"

struct roi_job {
    struct k_call *c;
    int64_t regions, channels;
    int64_t in[2], pooled[2]; /* height, width */
    const void *x, *rois;     /* in the carrier */
    void *y;
    int64_t *batch; /* map of each region */
    float scale, outside;
    int64_t ratio; /* samples per bin and axis; 0: as many as pixels */
    bool half_pixel, max, nearest;
};
typedef enum npuc_status region_fn(struct roi_job *j, int64_t region);

#define REAL    float
#define NAME(x) x##_f32
#include "kernels/roi.inc"
#undef REAL
#undef NAME
#define REAL    double
#define NAME(x) x##_f64
#include "kernels/roi.inc"
#undef REAL
#undef NAME

/* Shapes of the map and of the regions' table, which has `columns`. */
static enum npuc_status roi_begin(struct k_call *c, struct roi_job *j, int columns)
{
    const struct k_tensor *x = c->in[0], *rois = c->in[1];
    if (!dtype_is_float(x->dtype) || x->dtype != rois->dtype)
        return k_fail(c, NPUC_E_UNSUPPORTED, "data and regions must be of one float type");
    if (x->rank != 4 || rois->rank != 2 || rois->dims[1] != columns)
        return k_fail(c, NPUC_E_INVALID, "expected data [N,C,H,W] and regions [R,%d]", columns);
    if (j->pooled[0] < 1 || j->pooled[1] < 1 || j->pooled[0] > INT32_MAX || j->pooled[1] > INT32_MAX)
        return k_fail(c, NPUC_E_INVALID, "the size of the result must be at least 1");
    j->c = c;
    j->regions = rois->dims[0];
    j->channels = x->dims[1];
    memcpy(j->in, x->dims + 2, sizeof j->in);
    if (j->regions > 0 && (j->in[0] < 1 || j->in[1] < 1 || j->in[0] > INT32_MAX || j->in[1] > INT32_MAX))
        return k_fail(c, NPUC_E_INVALID, "the maps are empty or too large");
    return NPUC_OK;
}

static enum npuc_status roi_run(struct roi_job *j, region_fn *narrow, region_fn *wide)
{
    struct k_call *c = j->c;
    const struct k_tensor *x = c->in[0];
    const enum dtype carrier = x->dtype == DT_F64 ? DT_F64 : DT_F32;
    for (int64_t r = 0; r < j->regions; r++)
        if (j->batch[r] < 0 || j->batch[r] >= x->dims[0])
            return k_fail(c, NPUC_E_INVALID, "region %lld is of map %lld, there are %lld", (long long)r,
                          (long long)j->batch[r], (long long)x->dims[0]);
    const int64_t dims[] = {j->regions, j->channels, j->pooled[0], j->pooled[1]};
    const bool shaped = k_out(c, 0, x->dtype, 4, dims) != NULL;
    j->x = k_carried(c, x, carrier);
    j->rois = k_carried(c, c->in[1], carrier);
    if (!shaped || !j->x || !j->rois)
        return k_no_memory(c);
    j->y = k_carried_out(c, carrier);
    if (!j->y)
        return k_no_memory(c);
    for (int64_t r = 0; r < j->regions; r++) {
        struct arena_mark mark = arena_mark(c->arena);
        const enum npuc_status s = (carrier == DT_F64 ? wide : narrow)(j, r);
        arena_release(c->arena, mark);
        K_TRY(s);
    }
    k_carried_done(c, carrier, j->y);
    return NPUC_OK;
}

/* Input 2: the map of each region. */
static bool read_batches(struct k_call *c, struct roi_job *j)
{
    int64_t n = 0;
    j->batch = k_whole(c, 2, &n);
    if (j->batch && n != j->regions)
        k_fail(c, NPUC_E_INVALID, "%lld batch indices for %lld regions", (long long)n, (long long)j->regions);
    return j->batch && n == j->regions;
}

enum npuc_status k_op_roi_align(struct k_call *c)
{
    if (!k_has(c, 3, 1))
        return NPUC_E_INVALID;
    struct roi_job j = {.pooled = {k_attr_int(c, "output_height", 1), k_attr_int(c, "output_width", 1)},
                        .scale = k_attr_float(c, "spatial_scale", 1),
                        .ratio = k_attr_int(c, "sampling_ratio", 0),
                        .max = !strcmp(k_attr_str(c, "mode", "avg"), "max"),
                        .half_pixel =
                            !strcmp(k_attr_str(c, "coordinate_transformation_mode", "half_pixel"), "half_pixel")};
    K_TRY(roi_begin(c, &j, 4));
    return read_batches(c, &j) ? roi_run(&j, align_region_f32, align_region_f64) : k_no_memory(c);
}

enum npuc_status k_op_max_roi_pool(struct k_call *c)
{
    if (!k_has(c, 2, 1))
        return NPUC_E_INVALID;
    const struct k_attr *pooled = k_attr_find(c, "pooled_shape");
    if (!pooled || pooled->kind != K_ATTR_INTS || pooled->len != 2)
        return k_fail(c, NPUC_E_INVALID, "attribute pooled_shape must have two elements");
    struct roi_job j = {.pooled = {pooled->v.ints[0], pooled->v.ints[1]}, .scale = k_attr_float(c, "spatial_scale", 1)};
    K_TRY(roi_begin(c, &j, 5));
    j.batch = k_scratch(c, j.regions, sizeof *j.batch);
    if (!j.batch)
        return k_no_memory(c);
    for (int64_t r = 0; r < j.regions; r++)
        j.batch[r] = whole_f64(k_get_f64(c->in[1], 5 * r));
    return roi_run(&j, pool_region_f32, pool_region_f64);
}

enum npuc_status k_op_crop_and_resize(struct k_call *c)
{
    int64_t n = 0;
    if (!k_has(c, 4, 1))
        return NPUC_E_INVALID;
    const int64_t *size = k_whole(c, 3, &n);
    if (!size)
        return k_no_memory(c);
    if (n != 2)
        return k_fail(c, NPUC_E_INVALID, "crop_size has %lld elements, expected 2", (long long)n);
    struct roi_job j = {.pooled = {size[0], size[1]},
                        .outside = k_attr_float(c, "extrapolation_value", 0),
                        .nearest = !strcmp(k_attr_str(c, "mode", "bilinear"), "nearest")};
    K_TRY(roi_begin(c, &j, 4));
    return read_batches(c, &j) ? roi_run(&j, crop_region_f32, crop_region_f64) : k_no_memory(c);
}
