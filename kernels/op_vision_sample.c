/* GridSample and AffineGrid.
 *
 * Types of up to 32 bits are computed in float, f64 and integers in double; `nearest` moves elements of any type.
 * Integer results are cut towards zero. AffineGrid: products with the coordinates x, y(, z) and their sums, each
 * rounded, the shift last. */
#include <math.h>
#include <string.h>

#include "base/pool.h"
#include "base/size.h"
#include "kernels/carried.h"

enum grid_mode { MODE_LINEAR, MODE_NEAREST, MODE_CUBIC };
enum grid_padding { PAD_ZEROS, PAD_BORDER, PAD_REFLECTION };
enum { BLOCK = 256 };
struct grid {
    enum grid_mode mode;
    enum grid_padding padding;
    bool align;
    int axes;
    int64_t in[3]; /* the last `axes` are the data's, the others 1 */
    int64_t channels, points, blocks;
    const void *x, *grid; /* in the carrier, x: bytes when moved */
    void *y;
    int64_t moved; /* bytes per element of nearest, else 0 */
};

#define REAL    float
#define NAME(x) x##_f32
#include "kernels/grid_sample.inc"
#undef REAL
#undef NAME
#define REAL    double
#define NAME(x) x##_f64
#include "kernels/grid_sample.inc"
#undef REAL
#undef NAME

/* The index of the attribute's word in the list; -1 with the error set. */
static int word_of(struct k_call *c, const char *attr, const char *otherwise, const char *const *words, int n)
{
    const char *s = k_attr_str(c, attr, otherwise);
    for (int i = 0; i < n; i++)
        if (!strcmp(s, words[i]))
            return i;
    k_fail(c, NPUC_E_INVALID, "attribute %s is '%.40s'", attr, s);
    return -1;
}

static enum npuc_status grid_of(struct k_call *c, struct grid *g, int64_t *dims)
{
    static const char *const modes[] = {"linear", "nearest", "cubic"}, *const paddings[] = {"zeros", "border",
                                                                                            "reflection"};
    if (!k_has(c, 2, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0], *grid = c->in[1];
    const int mode = word_of(c, "mode", "linear", modes, 3), padding = word_of(c, "padding_mode", "zeros", paddings, 3);
    if (mode < 0 || padding < 0)
        return NPUC_E_INVALID;
    if (x->rank < 3 || x->rank > 5)
        return k_fail(c, NPUC_E_UNSUPPORTED, "data of rank %d, expected 3 to 5", x->rank);
    const int axes = x->rank - 2;
    if (grid->rank != x->rank || grid->dims[0] != x->dims[0] || grid->dims[x->rank - 1] != axes ||
        !dtype_is_float(grid->dtype))
        return k_fail(c, NPUC_E_INVALID, "the grid must be floats of shape [batch, points ..., %d]", axes);
    *g = (struct grid){.mode = (enum grid_mode)mode,
                       .padding = (enum grid_padding)padding,
                       .align = k_attr_int(c, "align_corners", 0) != 0,
                       .axes = axes,
                       .in = {1, 1, 1},
                       .channels = x->dims[1],
                       .points = k_dims_count(axes, grid->dims + 1)};
    g->blocks = size_ceil_div(g->points, BLOCK);
    for (int i = 0; i < axes; i++) {
        g->in[3 - axes + i] = x->dims[2 + i];
        if (x->dims[2 + i] < 1 && g->points > 0)
            return k_fail(c, NPUC_E_INVALID, "axis %d of the data has no elements to sample", 2 + i);
        if (x->dims[2 + i] > INT32_MAX)
            return k_fail(c, NPUC_E_LIMIT, "axis %d of the data is too long", 2 + i);
    }
    memcpy(dims, x->dims, 2 * sizeof *dims);
    memcpy(dims + 2, grid->dims + 1, (size_t)axes * sizeof *dims);
    return NPUC_OK;
}

static void run_points(struct k_call *c, struct grid *g, bool wide)
{
    if (g->channels > 0 && g->points > 0)
        pool_for(c->pool, c->in[0]->dims[0] * g->blocks, wide ? points_f64 : points_f32, g);
}

static enum npuc_status sample_moved(struct k_call *c, struct grid *g, const int64_t *dims)
{
    const struct k_tensor *x = c->in[0];
    const bool wide = c->in[1]->dtype == DT_F64;
    g->moved = k_move_size(x->dtype);
    g->x = k_move_in(c, x);
    g->y = k_move_out(c, 0, x->dtype, x->rank, dims);
    g->grid = k_carried(c, c->in[1], wide ? DT_F64 : DT_F32);
    if (!g->x || !g->y || !g->grid)
        return k_no_memory(c);
    memset(g->y, 0, (size_t)(k_count(&c->out[0]) * g->moved));
    run_points(c, g, wide);
    k_move_done(c, 0, g->y);
    return NPUC_OK;
}

enum npuc_status k_op_grid_sample(struct k_call *c)
{
    struct grid g;
    int64_t dims[K_MAX_RANK];
    K_TRY(grid_of(c, &g, dims));
    const struct k_tensor *x = c->in[0];
    if (g.mode == MODE_NEAREST)
        return sample_moved(c, &g, dims);
    if (!dtype_is_float(x->dtype) && !dtype_is_integer(x->dtype))
        return k_fail(c, NPUC_E_UNSUPPORTED, "type %s can only be sampled with mode nearest",
                      dtype_table[x->dtype].name);
    const enum dtype carrier = dtype_is_float(x->dtype) && x->dtype != DT_F64 ? DT_F32 : DT_F64;
    const bool shaped = k_out(c, 0, x->dtype, x->rank, dims) != NULL;
    g.x = k_carried(c, x, carrier);
    g.grid = k_carried(c, c->in[1], carrier);
    if (!shaped || !g.x || !g.grid)
        return k_no_memory(c);
    g.y = k_carried_out(c, carrier);
    if (!g.y)
        return k_no_memory(c);
    run_points(c, &g, carrier == DT_F64);
    k_carried_done(c, carrier, g.y);
    return NPUC_OK;
}

/* ---- AffineGrid: theta [N, axes, axes + 1], size [N, C, (D,) H, W] */

struct affine {
    bool align;
    int axes;
    int64_t size[3], points;
    const void *theta;
    void *y;
};

/* The coordinate of element i of `len`, in -1 .. 1. */
static double coordinate(const struct affine *a, int64_t i, int64_t len)
{
    if (a->align)
        return len > 1 ? -1 + 2.0 / (double)(len - 1) * (double)i : -1;
    return -1 + (2 * (double)i + 1) / (double)len;
}

#define AFFINE(REAL, NAME)                                                                                             \
    static void NAME(void *arg, int64_t batch, int worker)                                                             \
    {                                                                                                                  \
        (void)worker;                                                                                                  \
        const struct affine *a = arg;                                                                                  \
        REAL *y = (REAL *)a->y + batch * a->points * a->axes;                                                          \
        for (int64_t p = 0; p < a->points; p++) {                                                                      \
            const REAL *theta = (const REAL *)a->theta + batch * a->axes * (a->axes + 1);                              \
            REAL at[3];                                                                                                \
            int64_t rest = p;                                                                                          \
            for (int k = 0; k < a->axes; k++) {                                                                        \
                const int64_t len = a->size[a->axes - 1 - k];                                                          \
                at[k] = (REAL)coordinate(a, rest % len, len);                                                          \
                rest /= len;                                                                                           \
            }                                                                                                          \
            for (int i = 0; i < a->axes; i++, theta += a->axes + 1) {                                                  \
                REAL sum = theta[0] * at[0];                                                                           \
                for (int k = 1; k < a->axes; k++)                                                                      \
                    sum += theta[k] * at[k];                                                                           \
                *y++ = sum + theta[a->axes];                                                                           \
            }                                                                                                          \
        }                                                                                                              \
    }
AFFINE(float, affine_f32)
AFFINE(double, affine_f64)

enum npuc_status k_op_affine_grid(struct k_call *c)
{
    int64_t n, dims[5];
    if (!k_has(c, 2, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *theta = c->in[0];
    const int64_t *size = k_whole(c, 1, &n);
    if (!size)
        return k_no_memory(c);
    struct affine a = {.align = k_attr_int(c, "align_corners", 0) != 0, .axes = (int)n - 2, .points = 1};
    if ((n != 4 && n != 5) || theta->rank != 3 || theta->dims[0] != size[0] || theta->dims[1] != a.axes ||
        theta->dims[2] != a.axes + 1 || !dtype_is_float(theta->dtype))
        return k_fail(c, NPUC_E_INVALID, "theta must be floats [N, axes, axes + 1], size N, C and 2 or 3 axes");
    dims[0] = size[0];
    for (int i = 0; i < a.axes; i++) {
        dims[i + 1] = a.size[i] = size[i + 2];
        if (size[i + 2] < 0 || !size_mul(a.points, size[i + 2], &a.points))
            return k_fail(c, NPUC_E_INVALID, "size is out of range on axis %d", i + 2);
    }
    dims[a.axes + 1] = a.axes;
    const enum dtype carrier = theta->dtype == DT_F64 ? DT_F64 : DT_F32;
    const bool shaped = k_out(c, 0, theta->dtype, a.axes + 2, dims) != NULL;
    a.theta = k_carried(c, theta, carrier);
    if (!shaped || !a.theta)
        return k_no_memory(c);
    a.y = k_carried_out(c, carrier);
    if (!a.y)
        return k_no_memory(c);
    if (k_count(&c->out[0]) > 0)
        pool_for(c->pool, dims[0], carrier == DT_F64 ? affine_f64 : affine_f32, &a);
    k_carried_done(c, carrier, a.y);
    return NPUC_OK;
}
