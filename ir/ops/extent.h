/* Bounds of Slice and Pad as expressions, for inference and for kernel generators: one meaning. */
#ifndef IR_OPS_EXTENT_H
#define IR_OPS_EXTENT_H

#include "ir/graph.h"

/* Number of elements that [start, end) with a step of either sign, not 0, selects of `dim`; *from is the first
 * position. */
expr slice_extent_any(struct ir_ctx *cx, expr dim, expr start, expr end, expr step, expr *from);
/* Start, end and step of axis i of a Slice of type t, also where axes are known at run time only; false when an element
 * is not followed. */
bool slice_entry(struct ir_ctx *cx, const struct node *n, const struct type *t, int i, expr *start, expr *end,
                 expr *step);
/* Does a Slice take the first elements of every row, and all rows? */
bool slice_takes_columns(struct ir_ctx *cx, const struct node *n);
/* Elements added before and behind axis i of a Pad (negative: taken away); false when pads or axes are not followed. */
bool pad_entry(struct ir_ctx *cx, const struct node *n, int rank, int i, expr *lo, expr *hi);

#endif
