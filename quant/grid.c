#include "quant/grid.h"

#include <string.h>

/* Formats with one length of the mantissa: its bits, the exponent of the least normal number, the largest number. */
struct grid {
    int bits, least;
    float most;
};
static const struct grid grids[DT_COUNT] = {
    [DT_F8E4M3FN] = {3, -6, 448}, [DT_F8E5M2] = {2, -14, 57344}, [DT_F6E2M3] = {3, 0, 7.5f},
    [DT_F6E3M2] = {2, -2, 28},    [DT_F4E2M1] = {1, 0, 6},
};

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* Adding and taking away 1.5 * 2^23 steps leaves a whole number of them, halves to even; below the least normal number
 * steps no longer shrink. */
static void to_grid(const struct grid *g, const float *x, int64_t n, float *to)
{
    const float least = float_of((uint32_t)(g->least + 127) << 23), lift = 1.5f * (float)(1 << (23 - g->bits));
    for (int64_t i = 0; i < n; i++) {
        const float low = x[i] < -g->most ? -g->most : x[i], v = low > g->most ? g->most : low;
        const float binade = float_of(bits_of(v) & 0x7f800000), big = (binade < least ? least : binade) * lift;
        to[i] = (v + big) - big;
    }
}

/* HiF8: 3 bits of mantissa up to 2^3 on either side of 1, 2 to 2^7, 1 to 2^15, powers of two alone from 2^-22 to 2^-16;
 * halves away from zero; half of the least number becomes it. */
static float to_tapered(float x)
{
    const uint32_t u = bits_of(x), sign = u & 0x80000000, size = u & 0x7fffffff;
    const int e = (int)(size >> 23) - 127, far = e < 0 ? -e : e;
    const int bits = far <= 3 ? 3 : far <= 7 ? 2 : far <= 15 ? 1 : 0;
    const uint32_t half = UINT32_C(1) << (22 - bits), most = (uint32_t)(15 + 127) << 23, least = (127 - 22) << 23;
    const uint32_t near = (size + half) & ~(2 * half - 1);
    if (e < -23)
        return 0;
    return float_of(sign | (near > most || e > 15 ? most : near < least ? least : near));
}

void quant_nearest(enum dtype t, const float *x, int64_t n, float *to)
{
    if (t != DT_HIF8) {
        to_grid(&grids[t], x, n, to);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        to[i] = to_tapered(x[i]);
}
