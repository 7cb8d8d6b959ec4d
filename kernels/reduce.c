/* Row reductions by 64 lanes; see kernels/vec.h. SUM, SUMSQ (fused), ABSSUM and PROD accumulate float in float, MAX and
 * MIN keep NaN. The AVX2 forms are kernels/reduce_avx2.c. */
#include <math.h>
#include <string.h>

#include "kernels/loops.h"
#include "kernels/reduce_priv.h"
#include "kernels/wide.h"

static double start_real(enum k_red op)
{
    switch (op) {
    case K_RED_MAX: return -(double)INFINITY;
    case K_RED_MIN: return (double)INFINITY;
    case K_RED_PROD: return 1;
    case K_RED_SUM:
    case K_RED_SUMSQ:
    case K_RED_ABSSUM: break;
    }
    return 0;
}
/* Lowest and highest value of an integer type, as the carrier's bits. */
static int64_t start_whole(enum k_red op, enum dtype t)
{
    const int bits = dtype_table[t].bits;
    const bool is_signed = dtype_table[t].cls == DTC_INT;
    if (op == K_RED_MAX)
        return is_signed ? (int64_t)(UINT64_MAX << (bits - 1)) : 0;
    if (op == K_RED_MIN)
        return t == DT_BOOL ? 1 : (int64_t)(UINT64_MAX >> (64 - bits + is_signed));
    return op == K_RED_PROD;
}

void k_red_init(enum k_red op, enum dtype t, union k_lanes *acc)
{
    const enum k_wide w = k_wide_of(t);
    for (int i = 0; i < K_LANES; i++) {
        if (w == K_WIDE_F32)
            acc->f[i] = (float)start_real(op);
        else if (w == K_WIDE_F64)
            acc->d[i] = start_real(op);
        else
            acc->i[i] = start_whole(op, t);
    }
}

#define MAXIMUM(a, x) ((a) != (a) || (a) > (x) ? (a) : (x))
#define MINIMUM(a, x) ((a) != (a) || (a) < (x) ? (a) : (x))
#define LOOP(lanes, value)                                                                                             \
    for (int64_t i = 0; i < n; i++) {                                                                                  \
        const int64_t at = (first + i) % K_LANES;                                                                      \
        (lanes)[at] = (value);                                                                                         \
    }                                                                                                                  \
    return;

static void add_f32(enum k_red op, float *acc, const float *x, int64_t n, int64_t first)
{
    switch (op) {
    case K_RED_SUM: LOOP(acc, acc[at] + x[i])
    case K_RED_MAX: LOOP(acc, MAXIMUM(acc[at], x[i]))
    case K_RED_MIN: LOOP(acc, MINIMUM(acc[at], x[i]))
    case K_RED_PROD: LOOP(acc, acc[at] * x[i])
    case K_RED_SUMSQ: LOOP(acc, fmaf(x[i], x[i], acc[at]))
    case K_RED_ABSSUM: LOOP(acc, acc[at] + fabsf(x[i]))
    }
}
static void add_f64(enum k_red op, double *acc, const double *x, int64_t n, int64_t first)
{
    switch (op) {
    case K_RED_SUM: LOOP(acc, acc[at] + x[i])
    case K_RED_MAX: LOOP(acc, MAXIMUM(acc[at], x[i]))
    case K_RED_MIN: LOOP(acc, MINIMUM(acc[at], x[i]))
    case K_RED_PROD: LOOP(acc, acc[at] * x[i])
    case K_RED_SUMSQ: LOOP(acc, fma(x[i], x[i], acc[at]))
    case K_RED_ABSSUM: LOOP(acc, acc[at] + fabs(x[i]))
    }
}
static int64_t wrap_mul(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a * (uint64_t)b);
}
static int64_t wrap_add(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a + (uint64_t)b);
}
static bool whole_less(bool is_signed, int64_t a, int64_t b)
{
    return is_signed ? a < b : (uint64_t)a < (uint64_t)b;
}
static int64_t combine_whole(enum k_red op, bool is_signed, int64_t a, int64_t x)
{
    switch (op) {
    case K_RED_SUM: return wrap_add(a, x);
    case K_RED_MAX: return whole_less(is_signed, a, x) ? x : a;
    case K_RED_MIN: return whole_less(is_signed, x, a) ? x : a;
    case K_RED_PROD: return wrap_mul(a, x);
    case K_RED_SUMSQ: return wrap_add(a, wrap_mul(x, x));
    case K_RED_ABSSUM: return wrap_add(a, is_signed && x < 0 ? wrap_mul(x, -1) : x);
    }
    return a;
}

static void add_range_f32(enum k_red op, float *acc, const float *x, int64_t n, int64_t first)
{
#ifndef NPUC_SCALAR_ONLY
    if (k_simd()) {
        const int64_t to_edge = (K_LANES - first % K_LANES) % K_LANES, head = to_edge < n ? to_edge : n;
        const int64_t body = (n - head) / K_LANES * K_LANES;
        add_f32(op, acc, x, head, first);
        k_red_blocks_avx2(op, acc, x + head, body);
        x += head + body;
        n -= head + body;
        first = head < to_edge ? first + head : 0;
    }
#endif
    add_f32(op, acc, x, n, first);
}

enum { CHUNK = 512 };
void k_red_add(enum k_red op, enum dtype t, union k_lanes *acc, const void *x, int64_t n, int64_t first)
{
    const enum k_wide w = k_wide_of(t);
    if (t == DT_F32) {
        add_range_f32(op, acc->f, x, n, first);
        return;
    }
    if (t == DT_F64) {
        add_f64(op, acc->d, x, n, first);
        return;
    }
    union {
        float f[CHUNK];
        int64_t i[CHUNK];
    } buf;
    for (int64_t at = 0; at < n; at += CHUNK) {
        const int64_t m = n - at < CHUNK ? n - at : CHUNK;
        k_widen(&buf, t, x, at, m);
        if (w == K_WIDE_F32)
            add_range_f32(op, acc->f, buf.f, m, first + at);
        else
            for (int64_t i = 0; i < m; i++) {
                int64_t *lane = &acc->i[(first + at + i) % K_LANES];
                *lane = combine_whole(op, w == K_WIDE_I64, *lane, buf.i[i]);
            }
    }
}

/* The tree combines what lanes hold: sums of squares and of absolute values are added. */
static enum k_red tree_op(enum k_red op)
{
    return op == K_RED_SUMSQ || op == K_RED_ABSSUM ? K_RED_SUM : op;
}

/* Half of the lanes that are still to be combined. */
static int first_half(enum k_red tree, float *v)
{
#ifndef NPUC_SCALAR_ONLY
    if (k_simd())
        return k_red_tree_avx2(tree, v);
#else
    (void)tree, (void)v;
#endif
    return K_LANES / 2;
}

void k_red_finish(enum k_red op, enum dtype t, const union k_lanes *acc, void *y)
{
    const enum k_wide w = k_wide_of(t);
    const enum k_red tree = tree_op(op);
    union k_lanes v = *acc;
    for (int half = w == K_WIDE_F32 ? first_half(tree, v.f) : K_LANES / 2; half > 0; half /= 2) {
        if (w == K_WIDE_F32)
            add_f32(tree, v.f, v.f + half, half, 0);
        else if (w == K_WIDE_F64)
            add_f64(tree, v.d, v.d + half, half, 0);
        else
            for (int i = 0; i < half; i++)
                v.i[i] = combine_whole(tree, w == K_WIDE_I64, v.i[i], v.i[i + half]);
    }
    k_narrow(t, y, 0, &v, 1, true);
}
