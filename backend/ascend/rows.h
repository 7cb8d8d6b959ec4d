/* Gathering rows by an index tensor: shared by Gather and RotaryEmbedding. */
#ifndef BACKEND_ASCEND_ROWS_H
#define BACKEND_ASCEND_ROWS_H

#include "backend/backend.h"

/* out[o][i][:] = data[o][index[i]][:] for o < outer, i < n_index; row_len elements each. Sizes are ir expressions;
 * tensors are plan tensors in ND order. */
struct gather_rows {
    int32_t data, index, out;
    enum dtype dtype, index_dtype;
    expr outer, n_rows, n_index, row_len;
};
NPUC_MUST_CHECK enum npuc_status emit_gather_rows(struct emit *e, const struct gather_rows *g, const char *label);

#endif
