/* Windows of signal processing and MelWeightMatrix. */
#include "kernels/op_signal.h"

#include <math.h>

#include "kernels/fmath_wide.h"
#include "kernels/op.h"

#define QUARTER_PI 0.78539816339744830962

/* Taylor's series on [0, pi/4] */
static double series(double x, double first, int from)
{
    double term = first, sum = first;
    for (int i = from; i < from + 18; i += 2) {
        term *= -x * x / (double)(i * (i + 1));
        sum += term;
    }
    return sum;
}

void k_turn(int64_t j, int64_t n, double *cosine, double *sine)
{
    static const struct {
        signed char swap, c, s;
    } octant[8] = {{0, 1, 1}, {1, 1, 1}, {1, -1, 1}, {0, -1, 1}, {0, -1, -1}, {1, -1, -1}, {1, 1, -1}, {0, 1, -1}};
    const int64_t at = j % n * 8, o = at / n, rest = at % n;
    const double x = (double)(o & 1 ? n - rest : rest) / (double)n * QUARTER_PI;
    const double c = series(x, 1, 1), s = series(x, x, 2);
    *cosine = octant[o].c * (octant[o].swap ? s : c);
    *sine = octant[o].s * (octant[o].swap ? c : s);
}

/* --- windows: a0 - a1 cos(2 pi k / N) + a2 cos(4 pi k / N), N the size, or one less when not periodic --- */

static enum npuc_status window(struct k_call *c, double a0, double a1, double a2)
{
    int64_t n, *size = k_has(c, 1, 1) ? k_whole(c, 0, &n) : NULL;
    if (!size || n != 1)
        return size ? k_fail(c, NPUC_E_INVALID, "size has %lld elements, expected one", (long long)n) : NPUC_E_INVALID;
    const enum dtype t = dtype_from_onnx((int)k_attr_int(c, "output_datatype", 1));
    const int64_t len = *size, span = k_attr_int(c, "periodic", 1) ? len : len - 1, period = span > 0 ? span : 1;
    if (len < 0 || k_wide_of(t) == K_WIDE_NONE)
        return k_fail(c, NPUC_E_INVALID, "size is %lld, or the output_datatype is no number", (long long)len);
    if (!k_out(c, 0, t, 1, &len))
        return k_no_memory(c);
    for (int64_t k = 0; k < len; k++) {
        double c1, c2, s;
        k_turn(k, period, &c1, &s);
        k_turn(2 * k, period, &c2, &s);
        k_set_f64(&c->out[0], k, a0 - a1 * c1 + a2 * c2);
    }
    return NPUC_OK;
}
enum npuc_status k_op_hann_window(struct k_call *c)
{
    return window(c, 0.5, 0.5, 0);
}
enum npuc_status k_op_hamming_window(struct k_call *c)
{
    return window(c, 25.0 / 46, 21.0 / 46, 0);
}
enum npuc_status k_op_blackman_window(struct k_call *c)
{
    return window(c, 0.42, 0.5, 0.08);
}

/* --- MelWeightMatrix: triangles on the mel scale, mel(f) = 2595 log10(1 + f / 700) --- */

#define LN10 2.30258509299404568402

static double to_mel(double hertz)
{
    return 2595 * (k_log_wide(1 + hertz / 700) / LN10);
}
static double to_hertz(double mel)
{
    return 700 * (k_exp_wide(mel / 2595 * LN10) - 1);
}

struct mel {
    int64_t bins, length, rate, rows;
    double low, high;
};
/* The bin of the spectrum where triangle edge i lies. */
static double edge(const struct mel *m, int64_t i)
{
    const double low = to_mel(m->low), step = (to_mel(m->high) - low) / (double)(m->bins + 2);
    return floor((double)(m->length + 1) * to_hertz((double)i * step + low) / (double)m->rate);
}

static enum npuc_status mel_column(struct k_call *c, const struct mel *m, int64_t i)
{
    const double at[3] = {edge(m, i), edge(m, i + 1), edge(m, i + 2)};
    for (int k = 0; k < 3; k++)
        if (!(at[k] >= 0 && at[k] <= (double)(k == 2 ? m->rows : m->rows - 1)))
            return k_fail(c, NPUC_E_INVALID, "an edge of triangle %lld is outside of the %lld bins of the spectrum",
                          (long long)i, (long long)m->rows);
    const int64_t low = (int64_t)at[0], mid = (int64_t)at[1], high = (int64_t)at[2];
    struct k_tensor *y = &c->out[0];
    if (mid == low)
        k_set_f64(y, mid * m->bins + i, 1);
    for (int64_t j = low; mid > low && j <= mid; j++)
        k_set_f64(y, j * m->bins + i, (double)(j - low) / (double)(mid - low));
    for (int64_t j = mid; j < high; j++)
        k_set_f64(y, j * m->bins + i, (double)(high - j) / (double)(high - mid));
    return NPUC_OK;
}

enum npuc_status k_op_mel_weight_matrix(struct k_call *c)
{
    int64_t whole[3];
    if (!k_has(c, 5, 1))
        return NPUC_E_INVALID;
    for (int i = 0; i < 5; i++)
        if (k_count(c->in[i]) != 1)
            return k_fail(c, NPUC_E_INVALID, "input %d has %lld elements, expected one", i,
                          (long long)k_count(c->in[i]));
    for (int i = 0; i < 3; i++)
        whole[i] = k_get_i64(c->in[i], 0);
    const struct mel m = {.bins = whole[0],
                          .length = whole[1],
                          .rate = whole[2],
                          .rows = whole[1] / 2 + 1,
                          .low = k_get_f64(c->in[3], 0),
                          .high = k_get_f64(c->in[4], 0)};
    const enum dtype t = dtype_from_onnx((int)k_attr_int(c, "output_datatype", 1));
    if (m.bins < 0 || m.bins > INT32_MAX || m.length < 1 || m.rate < 1 || !(m.low >= 0 && m.high < 1e9) ||
        !(m.low <= m.high) || k_wide_of(t) == K_WIDE_NONE)
        return k_fail(c, NPUC_E_INVALID, "the numbers of bins and samples, the rate or the edges are out of range");
    const int64_t dims[2] = {m.rows, m.bins};
    if (!k_out(c, 0, t, 2, dims))
        return k_no_memory(c);
    for (int64_t i = 0; i < m.rows * m.bins; i++)
        k_set_f64(&c->out[0], i, 0);
    for (int64_t i = 0; i < m.bins; i++)
        K_TRY(mel_column(c, &m, i));
    return NPUC_OK;
}
