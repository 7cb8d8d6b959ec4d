/* Rows gathered from and scattered to places that an index tensor names. */
#ifndef BACKEND_VECTOR_ROWS_H
#define BACKEND_VECTOR_ROWS_H

#include "backend/backend.h"
#include "kernels/vec.h"

/* out[o][i][:] = data[o][index[i]][:] for o < outer, i < n_index; row_len elements each. Sizes are ir expressions;
 * tensors are plan tensors in ND order. */
struct gather_rows {
    int32_t data, index, out;
    enum dtype dtype, index_dtype;
    expr outer, n_rows, n_index, row_len;
};
NPUC_MUST_CHECK enum npuc_status emit_gather_rows(struct emit *e, const struct gather_rows *g, const char *label);

/* out[index[i]][:] = fn(out[index[i]][:], updates[i][:]) for i = 0 .. n_index-1 in this order; fn Identity: the update
 * itself. index holds i64; rows of row_len elements; a place outside of n_rows ends the run. */
struct scatter_rows {
    int32_t out, index, updates;
    enum dtype dtype;
    enum k_fn fn;
    expr n_rows, n_index, row_len;
};
NPUC_MUST_CHECK enum npuc_status emit_scatter_rows(struct emit *e, const struct scatter_rows *s, const char *label);

#endif
