/* Where an output position of Resize lies in the input, and the weights of the positions around it. */
#include "kernels/resize.h"

#include "base/compiler.h"

#include <math.h>
#include <string.h>

/* --- coordinates --- */

typedef double coordinate_fn(const struct k_resize_axis *a, double y);
/* The length of the result before it was rounded to whole elements. */
static double exact_out(const struct k_resize_axis *a)
{
    return a->scale * (double)a->in;
}

/* A sum, difference or quotient of two floats, computed in double and rounded once more, is what float arithmetic
 * gives. */
static double rounded(const struct k_resize_axis *a, double x)
{
    return a->narrow ? (double)(float)x : x;
}

static double half_pixel(const struct k_resize_axis *a, double y)
{
    return rounded(a, rounded(a, rounded(a, y + 0.5) / a->scale) - 0.5);
}
static double half_pixel_symmetric(const struct k_resize_axis *a, double y)
{
    const double center = (double)a->in / 2;
    return center * (1 - (double)a->out / exact_out(a)) + half_pixel(a, y);
}
static double pytorch_half_pixel(const struct k_resize_axis *a, double y)
{
    return rounded(a, exact_out(a)) == 1 ? -0.5 : half_pixel(a, y);
}
static double asymmetric(const struct k_resize_axis *a, double y)
{
    return rounded(a, y / a->scale);
}
static double align_corners(const struct k_resize_axis *a, double y)
{
    return exact_out(a) == 1 ? 0 : y * (double)(a->in - 1) / (exact_out(a) - 1);
}
static double crop_and_resize(const struct k_resize_axis *a, double y)
{
    const double last = (double)(a->in - 1), span = (a->roi[1] - a->roi[0]) * last;
    return (exact_out(a) == 1 ? span / 2 : y * span / (exact_out(a) - 1)) + a->roi[0] * last;
}
/* dyadic: fractions as short as those of the scale. */
static const struct coordinates {
    const char *name;
    coordinate_fn *fn;
    bool dyadic;
} coordinate_modes[] = {
    {"half_pixel", half_pixel, true},
    {"half_pixel_symmetric", half_pixel_symmetric, false},
    {"pytorch_half_pixel", pytorch_half_pixel, true},
    {"asymmetric", asymmetric, true},
    {"align_corners", align_corners, false},
    {"tf_crop_and_resize", crop_and_resize, false},
};
static const struct coordinates *find_coordinates(const char *name)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(coordinate_modes); i++)
        if (!strcmp(coordinate_modes[i].name, name))
            return &coordinate_modes[i];
    return NULL;
}
/* Is it a power of two from 1/16 to 16? */
static bool is_short(double scale)
{
    int exponent;
    return frexp(scale, &exponent) == 0.5 && exponent >= -3 && exponent <= 5;
}

/* --- taps --- */

static double nearest_to(const struct k_resize_rule *r, const struct k_resize_axis *a, double x)
{
    if (!strcmp(r->nearest, "floor"))
        return floor(x);
    if (!strcmp(r->nearest, "ceil"))
        return ceil(x);
    return !strcmp(r->nearest, "round_prefer_ceil") ? floor(rounded(a, x + 0.5)) : ceil(rounded(a, x - 0.5));
}
static bool is_mode(const struct k_resize_rule *r, const char *mode)
{
    return strcmp(r->mode, mode) == 0;
}
static double linear_weight(double distance)
{
    return distance < 1 ? 1 - distance : 0;
}
static double cubic_weight(double a, double d)
{
    if (d <= 1)
        return ((a + 2) * d - (a + 3)) * d * d + 1;
    return d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0;
}

/* The taps around x: n positions from `first`, stretched by the scale when it shrinks and antialias is on. */
static void weigh(const struct k_resize_rule *r, const struct k_resize_axis *a, double x, int64_t *at, double *weight)
{
    const bool cubic = is_mode(r, "cubic");
    const double stretch = r->antialias && a->scale < 1 ? a->scale : 1;
    const double next = ceil(x); /* next - 1 < x <= next */
    double sum = 0;
    for (int64_t i = 0; i < a->n; i++) {
        const double p = rounded(a, next + (double)(i - a->n / 2)), distance = rounded(a, fabs(p - x)) * stretch;
        weight[i] = cubic ? cubic_weight(r->cubic_a, distance) : rounded(a, linear_weight(distance));
        if (r->exclude_outside && (p < 0 || p > (double)(a->in - 1)))
            weight[i] = 0;
        sum = rounded(a, sum + weight[i]);
        at[i] = (int64_t)p;
    }
    for (int64_t i = 0; (r->exclude_outside || r->antialias) && sum != 0 && i < a->n; i++)
        weight[i] = rounded(a, weight[i] / sum);
}

bool k_resize_prepare(const struct k_resize_rule *r, struct k_resize_axis *a)
{
    const struct coordinates *const rule = find_coordinates(r->coordinates);
    const bool nearest = is_mode(r, "nearest"), cubic = is_mode(r, "cubic");
    if (!rule || (!nearest && !cubic && !is_mode(r, "linear")))
        return false;
    const double reach = cubic ? 2 : 1, stretch = r->antialias && a->scale < 1 ? a->scale : 1;
    a->n = nearest ? 1 : 2 * (int64_t)ceil(reach / stretch);
    a->narrow = rule->dyadic && is_short(a->scale) && !cubic && !r->antialias && !r->exclude_outside;
    return true;
}

bool k_resize_place(const struct k_resize_rule *r, const struct k_resize_axis *a, int64_t o, int64_t *at,
                    double *weight)
{
    const struct coordinates *const rule = find_coordinates(r->coordinates);
    const double x = rule->fn(a, rounded(a, (double)o)), last = (double)(a->in - 1);
    /* Far outside only the end counts; a NaN from an infinite roi does too. */
    const double near = x >= -4e9 ? (x <= 4e9 ? x : 4e9) : -4e9;
    if (is_mode(r, "nearest"))
        at[0] = (int64_t)nearest_to(r, a, near);
    else
        weigh(r, a, near, at, weight);
    return rule->fn != crop_and_resize || (x >= 0 && x <= last);
}
