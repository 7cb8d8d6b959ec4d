/* DFT and STFT as products with matrices of cosines and sines, k ascending: real and imaginary part of a sample follow
 * each other. Computed in float (double for f64). A one-sided forward transform keeps n/2 + 1 bins; a one-sided inverse
 * one reads that many and gives real samples, its 1/n is part of the matrix.
 *
 * Complex inverse transforms, and forward ones beyond length 1024, of composite length n = a b, b the largest divisor
 * up to the square root, go in two stages (Cooley
 * and Tukey, 1965): with t = a t2 + t1 and k = b k1 + k2,
 *   X[k] = sum over t1 of w(n)^(t1 k2) w(a)^(t1 k1) [sum over t2 of w(b)^(t2 k2) x[t]]
 * the inner sum a product, the factor before it a complex multiplication (each product and sum rounded), the outer sum
 * a product. The inverse's result is multiplied by 1/n at the end. */
#include <string.h>

#include "kernels/op_signal.h"
#include "kernels/op.h"
#include "kernels/recipe.h"

enum {
    MAX_MATRIX = 1 << 25, /* elements of the largest matrix that is made */
    LONGEST_DIRECT = 1024 /* of forward transforms */
};

struct dft {
    int64_t n;        /* length of the transform */
    int64_t in, out;  /* samples or bins read, given */
    int parts, given; /* 1 real, 2 complex: of what is read and given */
    bool inverse, halved;
    bool plain; /* without the inverse's 1/n */
};

/* Weight of part p of sample t in part q of bin k. */
static double weight(const struct dft *f, int64_t t, int p, int64_t k, int q)
{
    double c, s;
    k_turn(t * k % f->n, f->n, &c, &s);
    if (!f->inverse)
        return p == q ? c : q == 0 ? s : -s;
    double v = p == q ? c : q == 0 ? -s : s;
    if (f->halved && t > 0 && 2 * t != f->n) /* stands for its mirror too */
        v *= 2;
    return f->plain ? v : v / (double)f->n;
}

/* [in * parts, out * given], or for a convolution [out * given, parts, in] */
static rval matrix(struct recipe *r, const struct dft *f, enum dtype t, bool for_conv)
{
    const int64_t rows = f->in * f->parts, cols = f->out * f->given;
    if (rows > MAX_MATRIX || cols > MAX_MATRIX || rows * cols > MAX_MATRIX) {
        r_fail(r, "a transform of length %lld is too long", (long long)f->n);
        return NULL;
    }
    void *w = k_scratch(r->c, rows * cols, dtype_size(t));
    const struct k_tensor y = {.dtype = t, .data = w};
    if (!w) {
        r_fail(r, "out of memory");
        return NULL;
    }
    for (int64_t i = 0; i < f->in; i++)
        for (int64_t k = 0; k < f->out; k++)
            for (int p = 0; p < f->parts; p++)
                for (int q = 0; q < f->given; q++) {
                    const int64_t row = i * f->parts + p, col = k * f->given + q;
                    const int64_t at = for_conv ? (col * f->parts + p) * f->in + i : row * cols + col;
                    k_set_f64(&y, at, weight(f, i, p, k, q));
                }
    const int64_t flat[2] = {rows, cols}, conv[3] = {cols, f->parts, f->in};
    return r->status == NPUC_OK ? r->d->constant(r, t, for_conv ? 3 : 2, for_conv ? conv : flat, w) : NULL;
}

static bool read_dft(struct recipe *r, struct dft *f, int *axis)
{
    const int rank = r_rank(r, r->in[0]);
    int64_t at = -2, size = 0, parts = 0;
    *f = (struct dft){.inverse = k_attr_int(r->c, "inverse", 0) != 0};
    const bool onesided = k_attr_int(r->c, "onesided", 0) != 0;
    bool known = rank >= 2 && r_size(r, r->in[0], -1, &parts);
    if (r->in[2])
        known = known && r->d->whole(r, r->in[2], 0, &at);
    at += at < 0 ? rank : 0;
    if (!known || at < 0 || at >= rank - 1 || !r_size(r, r->in[0], (int)at, &size) || parts < 1 || parts > 2) {
        r_fail(r, "the axis or its size is not known, or the last axis is not 1 or 2");
        return false;
    }
    f->halved = onesided && f->inverse;
    f->n = f->halved ? 2 * (size - 1) : size;
    if (r->in[1] && !r->d->whole(r, r->in[1], 0, &f->n)) {
        r_fail(r, "dft_length is not known");
        return false;
    }
    if (f->n < 1 || f->n > MAX_MATRIX) {
        r_fail(r, "the length is %lld", (long long)f->n);
        return false;
    }
    const int64_t half = f->n / 2 + 1, take = f->halved ? half : f->n;
    f->in = size < take ? size : take;
    f->out = onesided && !f->inverse ? half : f->n;
    f->parts = (int)parts;
    f->given = f->halved ? 1 : 2;
    *axis = (int)at;
    return true;
}

/* --- one stage: x [.., in * parts] to [.., out, given] --- */

static rval direct(struct recipe *r, const struct dft *f, rval x, rdim *dims, int n)
{
    const enum dtype t = r_type(r, x);
    dims[n] = r->d->number(r, f->in * f->parts);
    const rval y = r2(r, "MatMul", r_shape(r, x, dims, n + 1), matrix(r, f, t, false));
    dims[n] = r->d->number(r, f->out);
    dims[n + 1] = r->d->number(r, f->given);
    return r_shape(r, y, dims, n + 2);
}

/* --- two stages --- */

static int64_t inner_length(int64_t n)
{
    int64_t b = 1;
    for (int64_t k = 2; k * k <= n; k++)
        b = n % k ? b : k;
    return b;
}

/* Cosines (which 0) or sines of the angles between the stages: [a, b, 1] */
static rval twiddles(struct recipe *r, enum dtype t, int64_t a, int64_t b, bool inverse, int which)
{
    const int64_t dims[3] = {a, b, 1};
    void *w = k_scratch(r->c, a * b, dtype_size(t));
    const struct k_tensor y = {.dtype = t, .data = w};
    if (!w) {
        r_fail(r, "out of memory");
        return NULL;
    }
    for (int64_t i = 0; i < a * b; i++) {
        double turn[2];
        k_turn(i / b * (i % b), a * b, &turn[0], &turn[1]);
        k_set_f64(&y, i, which && !inverse ? -turn[1] : turn[which]);
    }
    return r->status == NPUC_OK ? r->d->constant(r, t, 3, dims, w) : NULL;
}

/* Multiplies the complex numbers on the last axis. */
static rval rotated(struct recipe *r, rval x, rval c, rval s)
{
    const rval re = r_slice(r, x, -1, 0, 1), im = r_slice(r, x, -1, 1, 2);
    const rval parts[2] = {r2(r, "Sub", r2(r, "Mul", re, c), r2(r, "Mul", im, s)),
                           r2(r, "Add", r2(r, "Mul", re, s), r2(r, "Mul", im, c))};
    return r_concat(r, parts, 2, -1);
}

/* Swaps axes n and n + 1 of n + 3. */
static rval crossed(struct recipe *r, rval x, int n)
{
    int64_t perm[K_MAX_RANK];
    for (int i = 0; i < n + 3; i++)
        perm[i] = i == n ? n + 1 : i == n + 1 ? n : i;
    return r_perm(r, x, n + 3, perm);
}

/* x [dims[0..n-1], f->n * parts] to [.., f->n, 2] */
static rval two_stages(struct recipe *r, const struct dft *f, int64_t b, rval x, rdim *dims, int n)
{
    const int64_t a = f->n / b;
    const enum dtype t = r_type(r, x);
    const struct dft
        inner = {.n = b, .in = b, .out = b, .parts = f->parts, .given = 2, .inverse = f->inverse, .plain = true},
        outer = {.n = a, .in = a, .out = a, .parts = 2, .given = 2, .inverse = f->inverse, .plain = true};
    dims[n] = r->d->number(r, b);
    dims[n + 1] = r->d->number(r, a);
    dims[n + 2] = r->d->number(r, f->parts);
    x = crossed(r, r_shape(r, x, dims, n + 3), n);
    dims[n] = r->d->number(r, a);
    x = direct(r, &inner, x, dims, n + 1);
    x = rotated(r, x, twiddles(r, t, a, b, f->inverse, 0), twiddles(r, t, a, b, f->inverse, 1));
    dims[n] = r->d->number(r, b);
    x = crossed(r, direct(r, &outer, crossed(r, x, n), dims, n + 1), n);
    dims[n] = r->d->number(r, f->n);
    dims[n + 1] = r->d->number(r, 2);
    x = r_shape(r, x, dims, n + 2);
    return f->inverse ? r2(r, "Mul", x, r_real(r, t, 1.0 / (double)f->n)) : x;
}

/* Zeros behind the samples where the transform is longer: [.., n * parts] */
static rval padded(struct recipe *r, const struct dft *f, rval x, rdim *dims, int n)
{
    dims[n] = r->d->number(r, f->in * f->parts);
    x = r_shape(r, x, dims, n + 1);
    if (f->in == f->n)
        return x;
    dims[n] = r->d->number(r, (f->n - f->in) * f->parts);
    return r_concat(r, (rval[]){x, r_zeros(r, r_type(r, x), dims, n + 1)}, 2, n);
}

enum npuc_status recipe_dft(struct recipe *r)
{
    struct dft f;
    int axis;
    if (!r->in[0] || !read_dft(r, &f, &axis))
        return r_fail(r, "it has no input");
    const int rank = r_rank(r, r->in[0]);
    const enum dtype t = r_type(r, r->in[0]);
    int64_t there[K_MAX_RANK], back[K_MAX_RANK];
    rdim dims[K_MAX_RANK];
    int n = 0;
    for (int i = 0; i < rank; i++)
        if (i != axis && i != rank - 1) {
            dims[n] = r_dim(r, r->in[0], i);
            there[n++] = i;
        }
    there[rank - 2] = axis;
    there[rank - 1] = rank - 1;
    for (int i = 0; i < rank; i++)
        back[there[i]] = i;
    rval x = r_slice(r, r_perm(r, r_cast(r, r->in[0], r_wide(t)), rank, there), rank - 2, 0, f.in);
    const bool staged = f.inverse ? !f.halved : f.n > LONGEST_DIRECT;
    const int64_t b = staged && rank < K_MAX_RANK ? inner_length(f.n) : 1;
    if (b > 1) {
        x = two_stages(r, &f, b, padded(r, &f, x, dims, n), dims, n);
        if (f.out < f.n)
            x = r_slice(r, x, rank - 2, 0, f.out);
    } else {
        x = direct(r, &f, x, dims, n);
    }
    r->out[0] = r_cast(r, r_perm(r, x, rank, back), t);
    return r->status;
}

/* Frames are windows of a convolution whose stride is the step; the window function multiplies the weights. */
enum npuc_status recipe_stft(struct recipe *r)
{
    int64_t step = 0, parts = 1;
    struct dft f = {.given = 2};
    const int rank = r_rank(r, r->in[0]);
    bool known = (rank == 2 || rank == 3) && r->in[1] && r->d->whole(r, r->in[1], 0, &step);
    if (known && r->in[3])
        known = r->d->whole(r, r->in[3], 0, &f.n);
    else if (known)
        known = r->in[2] ? r_size(r, r->in[2], 0, &f.n) : r_size(r, r->in[0], 1, &f.n);
    if (known && rank == 3)
        known = r_size(r, r->in[0], 2, &parts);
    if (!known || step < 1 || f.n < 1 || f.n > MAX_MATRIX || parts < 1 || parts > 2)
        return r_fail(r, "frame_step, frame_length or the signal's form is not known");
    const enum dtype t = r_type(r, r->in[0]), wide = r_wide(t);
    f.in = f.n;
    f.parts = (int)parts;
    f.out = k_attr_int(r->c, "onesided", 1) ? f.n / 2 + 1 : f.n;
    rval w = matrix(r, &f, wide, true), x = r_cast(r, r->in[0], wide);
    if (r->in[2])
        w = r2(r, "Mul", w, r_cast(r, r->in[2], wide));
    x = rank == 2 ? r_unsqueeze(r, x, 1) : r_swap(r, x);
    const struct k_attr strides = {"strides", K_ATTR_INTS, 1, {.ints = &step}};
    const rval y = r_swap(r, r_node(r, "Conv", 2, (rval[]){x, w}, 1, &strides)); /* [B, frames, bins * 2] */
    const rdim dims[4] = {r_dim(r, y, 0), r_dim(r, y, 1), r->d->number(r, f.out), r->d->number(r, 2)};
    r->out[0] = r_cast(r, r_shape(r, y, dims, 4), t);
    return r->status;
}
