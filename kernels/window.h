/* Sliding windows over up to three spatial axes: what convolution and pooling share. */
#ifndef KERNELS_WINDOW_H
#define KERNELS_WINDOW_H

#include "kernels/op.h"

enum { K_AXES = 3 };
/* Operators with fewer spatial axes use the last ones; the axes before have size, kernel and stride 1. The layout of
 * memory does not change by that, so one set of loops serves all ranks. */
struct k_window {
    int n; /* spatial axes of the operator */
    int64_t in[K_AXES], kernel[K_AXES], stride[K_AXES], dilation[K_AXES], before[K_AXES], after[K_AXES], out[K_AXES];
};
/* Sizes and attributes of a call on x [N][C][spatial]. kernel: the extents of the weight, or NULL when attribute
 * kernel_shape gives them. False with the error set. k_window_read leaves out[] and automatic pads to the caller. */
NPUC_MUST_CHECK bool k_window_read(struct k_call *c, const struct k_tensor *x, const int64_t *kernel,
                                   struct k_window *w);
NPUC_MUST_CHECK bool k_window_of(struct k_call *c, const struct k_tensor *x, const int64_t *kernel, struct k_window *w);
/* Entries of the list attribute, or `otherwise`; each at least `least`. */
NPUC_MUST_CHECK bool k_window_list(struct k_call *c, const char *name, int n, int64_t otherwise, int64_t *v);
/* Splits padding: SAME_UPPER puts the odd element behind the data, everything else before it. */
void k_window_split(struct k_window *w, int axis, int64_t total, bool upper);
bool k_auto_pad_is(const struct k_call *c, const char *name);
int64_t k_window_taps(const struct k_window *w); /* positions of the kernel */
int64_t k_plane_in(const struct k_window *w);    /* elements of one channel */
int64_t k_plane_out(const struct k_window *w);
/* Shape of a result with `channels` channels. */
void k_window_dims(const struct k_window *w, const struct k_tensor *x, int64_t channels, int64_t dims[K_MAX_RANK]);

/* y[k][col] = x[channel][position of tap in window]: k = (tap, channel), col = the windows of the output rows
 * first .. first + rows - 1, where an output row is all windows along the last axis. Padding is zero bits. step: the
 * elements of x stand that far apart, with zeros between. */
struct k_im2col {
    const struct k_window *w;
    const void *x; /* channels * k_plane_in elements */
    void *y;       /* taps * channels * rows * out[2] elements */
    int64_t channels, first, rows;
    int64_t step[K_AXES];
    int size; /* bytes per element: 1, 2, 4, 8 */
};
void k_im2col(const struct k_im2col *g, struct pool *pool);

/* The windows o with 0 <= o*stride + start < in, as [*from, *to). */
void k_window_valid(int64_t start, int64_t stride, int64_t in, int64_t out, int64_t *from, int64_t *to);
/* Where tap k of axis `axis` falls for window 0. */
static inline int64_t k_tap_start(const struct k_window *w, int axis, int64_t k)
{
    return k * w->dilation[axis] - w->before[axis];
}
/* The kernel position of tap `tap` on each axis. */
void k_tap_split(const struct k_window *w, int64_t tap, int64_t k[K_AXES]);

#endif
