/* Strided walks and copies over N dimensions, and the packing of sub-byte elements around them. */
#include <string.h>

#include "kernels/op.h"

void k_nd_dense(struct k_nd *d, int operand)
{
    int64_t step = 1;
    for (int i = d->rank - 1; i >= 0; i--) {
        d->stride[operand][i] = step;
        step *= d->dims[i];
    }
}
void k_nd_broadcast(struct k_nd *d, int operand, const struct k_tensor *t)
{
    int64_t step = 1;
    for (int i = d->rank - 1; i >= 0; i--) {
        const int at = i - (d->rank - t->rank);
        const int64_t dim = at >= 0 ? t->dims[at] : 1;
        d->stride[operand][i] = dim == 1 ? 0 : step;
        step *= dim;
    }
}

void k_nd_collapse(struct k_nd *d)
{
    int rank = 0; /* dims kept so far, outermost first */
    for (int i = 0; i < d->rank; i++) {
        const int64_t dim = d->dims[i];
        if (dim == 1)
            continue;
        bool merge = rank > 0;
        for (int o = 0; merge && o < d->n; o++)
            merge = d->stride[o][rank - 1] == d->stride[o][i] * dim;
        if (!merge)
            d->dims[rank++] = 1; /* may be dims[i] itself */
        d->dims[rank - 1] *= dim;
        for (int o = 0; o < d->n; o++)
            d->stride[o][rank - 1] = d->stride[o][i];
    }
    if (rank == 0) {
        d->dims[0] = 1;
        for (int o = 0; o < d->n; o++)
            d->stride[o][0] = 0;
        rank = 1;
    }
    d->rank = rank;
}

void k_nd_each(const struct k_nd *d, int inner, k_nd_fn *fn, void *arg)
{
    const int outer = d->rank - inner;
    int64_t index[K_MAX_RANK] = {0}, offset[K_ND_OPERANDS] = {0};
    for (int i = 0; i < d->rank; i++)
        if (d->dims[i] == 0)
            return;
    for (;;) {
        fn(arg, offset);
        int i = outer - 1;
        for (; i >= 0; i--) {
            for (int o = 0; o < d->n; o++)
                offset[o] += d->stride[o][i];
            if (++index[i] < d->dims[i])
                break;
            for (int o = 0; o < d->n; o++)
                offset[o] -= d->stride[o][i] * d->dims[i];
            index[i] = 0;
        }
        if (i < 0)
            return;
    }
}

struct copy {
    const struct k_nd *d;
    char *dst;
    const char *src;
    int64_t size;
};
#define COPY(T)                                                                                                        \
    for (int64_t r = 0; r < rows; r++)                                                                                 \
        for (int64_t i = 0; i < n; i++)                                                                                \
            ((T *)dst)[r * dr + i * ds] = ((const T *)src)[r * sr + i * ss];
static void copy_block(void *arg, const int64_t *offset)
{
    const struct copy *j = arg;
    const struct k_nd *d = j->d;
    const int last = d->rank - 1;
    const int64_t rows = d->dims[last - 1], n = d->dims[last];
    const int64_t dr = d->stride[0][last - 1], sr = d->stride[1][last - 1], ds = d->stride[0][last],
                  ss = d->stride[1][last];
    void *dst = j->dst + offset[0] * j->size;
    const void *src = j->src + offset[1] * j->size;
    if (ds == 1 && ss == 1) {
        for (int64_t r = 0; r < rows; r++)
            memcpy((char *)dst + r * dr * j->size, (const char *)src + r * sr * j->size, (size_t)(n * j->size));
    } else if (j->size == 1) {
        COPY(uint8_t)
    } else if (j->size == 2) {
        COPY(uint16_t)
    } else if (j->size == 4) {
        COPY(uint32_t)
    } else if (j->size == 8) {
        COPY(uint64_t)
    } else {
        for (int64_t r = 0; r < rows; r++)
            for (int64_t i = 0; i < n; i++)
                memcpy((char *)dst + (r * dr + i * ds) * j->size, (const char *)src + (r * sr + i * ss) * j->size,
                       (size_t)j->size);
    }
}

void k_nd_copy(struct k_nd d, void *dst, const void *src, int64_t size)
{
    d.n = 2;
    k_nd_collapse(&d);
    if (d.rank == 1) { /* the loop wants rows */
        d.dims[1] = d.dims[0];
        d.dims[0] = 1;
        for (int o = 0; o < 2; o++) {
            d.stride[o][1] = d.stride[o][0];
            d.stride[o][0] = 0;
        }
        d.rank = 2;
    }
    k_nd_each(&d, 2, copy_block, &(struct copy){&d, dst, src, size});
}

int64_t k_move_size(enum dtype t)
{
    if (t == DT_STRING)
        return (int64_t)sizeof(struct k_string);
    return dtype_table[t].bits < 8 ? 1 : dtype_size(t);
}
const void *k_move_in(struct k_call *c, const struct k_tensor *t)
{
    if (t->dtype == DT_STRING || dtype_table[t->dtype].bits >= 8)
        return t->data;
    const int64_t n = k_count(t);
    uint8_t *y = k_scratch(c, n, 1);
    for (int64_t i = 0; y && i < n; i++)
        y[i] = k_code_get(t->dtype, t->data, i);
    return y;
}
void *k_move_out(struct k_call *c, int i, enum dtype t, int rank, const int64_t *dims)
{
    void *y = k_out(c, i, t, rank, dims);
    if (!y || t == DT_STRING || dtype_table[t].bits >= 8)
        return y;
    return k_scratch(c, k_count(&c->out[i]), 1);
}
void k_move_done(struct k_call *c, int i, const void *moved)
{
    struct k_tensor *t = &c->out[i];
    if (moved == t->data)
        return;
    memset(t->data, 0, (size_t)t->size);
    const int64_t n = k_count(t);
    for (int64_t k = 0; k < n; k++)
        k_code_set(t->dtype, t->data, k, ((const uint8_t *)moved)[k]);
}
