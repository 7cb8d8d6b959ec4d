/* Hooks of the move family that live in move_slice.c and move_index.c. */
#ifndef IR_OPS_MOVE_PRIV_H
#define IR_OPS_MOVE_PRIV_H

#include "ir/ops/infer.h"

/* Elements that [start, end) with a constant step selects of `dim`; *from is the first position. EXPR_INVALID: unknown.
 */
expr slice_extent(struct ir_ctx *cx, expr dim, expr start, expr end, expr step, expr *from);

/* perm[i] of the node; absent: reversed. false when it is no permutation of `rank`. */
bool transpose_perm(const struct node *n, int rank, int *perm);

typedef enum npuc_status infer_hook(struct ir_ctx *cx, struct node *n);
typedef struct value *fold_hook(struct ir_ctx *cx, struct node *n);

infer_hook slice_infer, split_infer, concat_infer, pad_infer, tile_infer, pad_legal;
fold_hook slice_fold, split_fold, concat_fold, pad_fold, tile_fold;

infer_hook gather_infer, gather_elements_infer, gather_nd_infer, scatter_elements_infer, scatter_nd_infer,
    scatter_legal;
infer_hook non_zero_infer, compress_infer, one_hot_infer, tensor_scatter_infer, tensor_scatter_legal;

#endif
