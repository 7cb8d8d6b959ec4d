/* Random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011). The
 * counter is the number of the element, the key the bits of the attribute `seed` (those of 0.0f without one), so a
 * result depends on seed and shape alone, never on threads or on what ran before. */
#include "kernels/op_random.h"

#include <math.h>
#include <string.h>

#include "kernels/op.h"

struct words {
    uint32_t w[4];
};

static struct words philox(uint64_t counter, uint64_t key)
{
    struct words c = {{(uint32_t)counter, (uint32_t)(counter >> 32), 0, 0}};
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        const uint64_t a = (uint64_t)0xD2511F53 * c.w[0], b = (uint64_t)0xCD9E8D57 * c.w[2];
        c = (struct words){
            {(uint32_t)(b >> 32) ^ c.w[1] ^ k0, (uint32_t)b, (uint32_t)(a >> 32) ^ c.w[3] ^ k1, (uint32_t)a}};
        k0 += 0x9E3779B9;
        k1 += 0xBB67AE85;
    }
    return c;
}

uint64_t k_random_key(const struct k_call *c)
{
    const float seed = k_attr_float(c, "seed", 0);
    uint32_t bits;
    memcpy(&bits, &seed, sizeof bits);
    return bits;
}
/* In [0, 1): 53 bits. */
double k_random_uniform(uint64_t key, int64_t at)
{
    const struct words w = philox((uint64_t)at, key);
    return (double)(((uint64_t)w.w[0] << 21) | (w.w[1] >> 11)) * 0x1p-53;
}
/* Box and Muller, in float. */
static double normal(uint64_t key, int64_t at)
{
    const struct words w = philox((uint64_t)at, key);
    const float u = (float)((w.w[0] >> 8) + 1) * 0x1p-24f, v = (float)(w.w[1] >> 8) * 0x1p-24f; /* (0, 1], [0, 1) */
    return (double)(sqrtf(-2 * k_log(u)) * k_cos(6.28318530717958647692f * v));
}

/* --- shapes from an attribute or another tensor --- */

static enum npuc_status fill(struct k_call *c, bool gauss, enum dtype t, int rank, const int64_t *dims)
{
    const double a = (double)k_attr_float(c, gauss ? "mean" : "low", 0);
    const double b = (double)k_attr_float(c, gauss ? "scale" : "high", 1), span = gauss ? b : b - a;
    const uint64_t key = k_random_key(c);
    if (!dtype_is_float(t) || !k_out(c, 0, t, rank, dims))
        return k_fail(c, NPUC_E_INVALID, "dtype is no float type, or the result is too large");
    for (int64_t i = 0, n = k_count(&c->out[0]); i < n; i++)
        k_set_f64(&c->out[0], i, a + span * (gauss ? normal(key, i) : k_random_uniform(key, i)));
    return NPUC_OK;
}
static enum npuc_status from_attr(struct k_call *c, bool gauss)
{
    const struct k_attr *shape = k_attr_find(c, "shape");
    if (!shape || shape->kind != K_ATTR_INTS || shape->len > K_MAX_RANK)
        return k_fail(c, NPUC_E_INVALID, "attribute 'shape' is missing or too long");
    for (int64_t i = 0; i < shape->len; i++)
        if (shape->v.ints[i] < 0)
            return k_fail(c, NPUC_E_INVALID, "attribute 'shape' has a negative size");
    return fill(c, gauss, dtype_from_onnx((int)k_attr_int(c, "dtype", 1)), (int)shape->len, shape->v.ints);
}
static enum npuc_status like_input(struct k_call *c, bool gauss)
{
    if (!k_has(c, 1, 1))
        return NPUC_E_INVALID;
    const int64_t want = k_attr_int(c, "dtype", 0);
    return fill(c, gauss, want ? dtype_from_onnx((int)want) : c->in[0]->dtype, c->in[0]->rank, c->in[0]->dims);
}
enum npuc_status k_op_random_normal(struct k_call *c)
{
    return from_attr(c, true);
}
enum npuc_status k_op_random_uniform(struct k_call *c)
{
    return from_attr(c, false);
}
enum npuc_status k_op_random_normal_like(struct k_call *c)
{
    return like_input(c, true);
}
enum npuc_status k_op_random_uniform_like(struct k_call *c)
{
    return like_input(c, false);
}

/* --- draws --- */

enum npuc_status k_op_bernoulli(struct k_call *c)
{
    if (!k_has(c, 1, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *p = c->in[0];
    const int64_t want = k_attr_int(c, "dtype", 0);
    const enum dtype t = want ? dtype_from_onnx((int)want) : p->dtype;
    const uint64_t key = k_random_key(c);
    if (k_wide_of(t) == K_WIDE_NONE || !k_out(c, 0, t, p->rank, p->dims))
        return k_fail(c, NPUC_E_INVALID, "dtype is no number, or the result is too large");
    for (int64_t i = 0, n = k_count(p); i < n; i++)
        k_set_i64(&c->out[0], i, k_random_uniform(key, i) < k_get_f64(p, i));
    return NPUC_OK;
}

/* The class where the running sum of exp(x - max) passes u times the total. */
static int64_t draw(const struct k_tensor *x, int64_t row, int64_t classes, double u)
{
    float max = -INFINITY;
    double total = 0, sum = 0;
    for (int64_t i = 0; i < classes; i++)
        max = fmaxf(max, (float)k_get_f64(x, row * classes + i));
    for (int64_t i = 0; i < classes; i++)
        total += (double)k_exp((float)k_get_f64(x, row * classes + i) - max);
    for (int64_t i = 0; i < classes; i++) {
        sum += (double)k_exp((float)k_get_f64(x, row * classes + i) - max);
        if (u * total < sum)
            return i;
    }
    return classes - 1;
}
enum npuc_status k_op_multinomial(struct k_call *c)
{
    if (!k_has(c, 1, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *x = c->in[0];
    const int64_t samples = k_attr_int(c, "sample_size", 1);
    const enum dtype t = dtype_from_onnx((int)k_attr_int(c, "dtype", 6));
    if (x->rank != 2 || x->dims[1] < 1 || samples < 0 || (t != DT_I32 && t != DT_I64))
        return k_fail(c, NPUC_E_INVALID, "the input must be [batch, classes], dtype int32 or int64");
    const int64_t dims[2] = {x->dims[0], samples};
    const uint64_t key = k_random_key(c);
    if (!k_out(c, 0, t, 2, dims))
        return k_no_memory(c);
    for (int64_t i = 0; i < dims[0] * samples; i++)
        k_set_i64(&c->out[0], i, draw(x, i / samples, x->dims[1], k_random_uniform(key, i)));
    return NPUC_OK;
}
