/* Helpers shared by the operator kernels of this folder. */
#ifndef KERNELS_OP_H
#define KERNELS_OP_H

#include "kernels/tensor.h"
#include "kernels/vec.h"
#include "kernels/wide.h"

/* Input i, or NULL when absent. */
static inline const struct k_tensor *k_in(const struct k_call *c, int i)
{
    return i < c->n_in ? c->in[i] : NULL;
}
static inline bool k_wants(const struct k_call *c, int i)
{
    return i < c->n_out;
}
/* Inputs 0..n-1 are there and outputs 0..m-1 are asked for. */
NPUC_MUST_CHECK bool k_has(struct k_call *c, int n, int m);
enum npuc_status k_no_memory(struct k_call *c);
void *k_scratch(struct k_call *c, int64_t n,
                int64_t size); /* n elements of `size` bytes, zeroed; NULL with the error set */
float *k_floats(struct k_call *c, const struct k_tensor *t); /* all elements as float: t's own data when it is f32 */
/* Input i as int64 values in the arena; NULL (and the error set) when absent or not whole numbers. */
int64_t *k_whole(struct k_call *c, int i, int64_t *n);
/* axis, counted from the end when negative; false with the error set when out of range. */
NPUC_MUST_CHECK bool k_axis(struct k_call *c, int64_t axis, int rank, int *out);
int64_t k_dims_count(int rank, const int64_t *dims);
void *k_out_like(struct k_call *c, int i, const struct k_tensor *like);
/* Stores floats as output i of type t. */
enum npuc_status k_out_floats(struct k_call *c, int i, enum dtype t, const struct k_tensor *shape, const float *x);

/* N-dimensional strided walks over up to four operands; strides in elements of each operand. */
enum { K_ND_OPERANDS = 4 };
struct k_nd {
    int rank, n;
    int64_t dims[K_MAX_RANK];
    int64_t stride[K_ND_OPERANDS][K_MAX_RANK];
};
void k_nd_dense(struct k_nd *d, int operand);                               /* row-major strides of dims */
void k_nd_broadcast(struct k_nd *d, int operand, const struct k_tensor *t); /* t broadcast to dims, right-aligned */
void k_nd_collapse(struct k_nd *d); /* drop 1s, merge what is contiguous; rank >= 1 */
/* Calls fn(arg, offsets) for every index of the dims before the last `inner`, offsets in elements per operand. */
typedef void k_nd_fn(void *arg, const int64_t *offset);
void k_nd_each(const struct k_nd *d, int inner, k_nd_fn *fn, void *arg);
/* dst[...] = src[...] by operands 0 and 1; size bytes per element. */
void k_nd_copy(struct k_nd d, void *dst, const void *src, int64_t size);

/* Moves treat elements as opaque: sub-byte types are spread to one byte each and packed again at the end. */
int64_t k_move_size(enum dtype t);                                 /* bytes per element while moving */
const void *k_move_in(struct k_call *c, const struct k_tensor *t); /* NULL with the error set */
void *k_move_out(struct k_call *c, int i, enum dtype t, int rank, const int64_t *dims);
void k_move_done(struct k_call *c, int i, const void *moved);

/* y[at..at+n) = saturate(rint(sum * scale) + zero), y of type i8 or u8; the product is rounded to f32. */
struct k_requant {
    enum dtype type;
    int32_t zero;
    float scale;
};
void k_requant(const struct k_requant *q, void *y, int64_t at, const int32_t *sums, int64_t n);

enum npuc_status k_elementwise(struct k_call *c, enum k_fn fn);
/* fn over given tensors into output 0. */
enum npuc_status k_apply(struct k_call *c, enum k_fn fn, const struct k_tensor *const *in, const float *params);

#define K_TRY(x)                                                                                                       \
    do {                                                                                                               \
        const enum npuc_status s_ = (x);                                                                               \
        if (s_ != NPUC_OK)                                                                                             \
            return s_;                                                                                                 \
    } while (0)

#define KOP(name, fn) k_op_fn fn;
#include "kernels/ops.def"
#undef KOP

#endif
