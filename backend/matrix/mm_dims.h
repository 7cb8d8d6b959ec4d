/* Sizes and strides of a product inside of a kernel, and the walk over its batch. */
#ifndef BACKEND_MATRIX_MM_DIMS_H
#define BACKEND_MATRIX_MM_DIMS_H

#include "backend/matrix/mm.h"

struct mm_dims { /* kernel expressions, as in struct mm */
    expr m, n, k, a_row, b_row, c_row;
    int n_batch;
    expr batch[IR_MAX_RANK], a_batch[IR_MAX_RANK], b_batch[IR_MAX_RANK], c_batch[IR_MAX_RANK];
};

void mm_dims_declare(struct mm_dims *d, struct kparams *params, const struct mm *p);
expr mm_batch_count(struct expr_pool *x, const struct mm_dims *d);
/* Offset of the batch member whose row-major number is `index`, with d->a_batch, b_batch or c_batch as strides. */
expr mm_batch_offset(struct expr_pool *x, const struct mm_dims *d, expr index, const expr *stride);

#endif
