#include "quant/grid.h"

#include "base/half.h"

/* Adding and taking away 1.5 * 2^23 steps leaves a whole number of them, halves to even; below the least normal number
 * steps no longer shrink. */
static void to_grid(const struct half_shape *g, const float *x, int64_t n, float *to)
{
    const float least = half_bits_float((uint32_t)(g->least + 127) << 23),
                lift = 1.5f * (float)(1 << (23 - g->mantissa));
    for (int64_t i = 0; i < n; i++) {
        const float low = x[i] < -g->most ? -g->most : x[i], v = low > g->most ? g->most : low;
        const float binade = half_bits_float(half_float_bits(v) & 0x7f800000),
                    big = (binade < least ? least : binade) * lift;
        to[i] = (v + big) - big;
    }
}

/* HiF8: 3 bits of mantissa up to 2^3 on either side of 1, 2 to 2^7, 1 to 2^15, powers of two alone from 2^-22 to 2^-16;
 * halves away from zero; half of the least number becomes it. */
static float to_tapered(float x)
{
    const uint32_t u = half_float_bits(x), sign = u & 0x80000000, size = u & 0x7fffffff;
    const int e = (int)(size >> 23) - 127, far = e < 0 ? -e : e;
    const int bits = far <= 3 ? 3 : far <= 7 ? 2 : far <= 15 ? 1 : 0;
    const uint32_t half = UINT32_C(1) << (22 - bits), most = (uint32_t)(15 + 127) << 23, least = (127 - 22) << 23;
    const uint32_t near = (size + half) & ~(2 * half - 1);
    if (e < -23)
        return 0;
    return half_bits_float(sign | (near > most || e > 15 ? most : near < least ? least : near));
}

void quant_nearest(enum dtype t, const float *x, int64_t n, float *to)
{
    if (t != DT_HIF8) {
        const struct half_shape g = half_small_shape(t);
        to_grid(&g, x, n, to);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        to[i] = to_tapered(x[i]);
}
