/* Convolutions on the cube core. Rows of the product are output channels, columns positions, so that results are
 * written as they are stored. */
#ifndef BACKEND_ASCEND_CONV_H
#define BACKEND_ASCEND_CONV_H

#include "backend/matrix/conv.h"

/* Extents of a kernel. Multiples of a fractal. */
struct conv_tile {
    int64_t m, n;        /* of L0C: output channels, positions */
    int64_t taps;        /* kernel positions of a block in L1: all of a plane, of a row, or one */
    int64_t kb;          /* channels of a block; all of them when taps > 1 */
    int64_t k0;          /* channels of a step in L0 */
    bool strips;         /* positions of one row of windows; else of any number of rows, whose lines are loaded whole */
    int64_t lines, line; /* lines of c0 elements of the map in L1; between its rows */
    int32_t acc_slots;
    bool resident; /* the weights are loaded once */
};

/* conv_tile.c */
struct conv_tile conv_choose_tile(const struct machine *m, const struct ir_ctx *cx, const struct conv *p,
                                  const struct tiling *w);
/* conv_pack.c: x as [batch*group][cin/c0][plane][c0], made by the vector cores in a temporary of the plan. */
NPUC_MUST_CHECK enum npuc_status conv_pack(struct emit *e, const struct conv *p, int32_t *packed);
/* conv_code.c */
struct conv_tensors {
    int32_t x, w, bias, y; /* plan tensors; x packed unless direct; bias -1 */
    bool bias_column;      /* bias is stored as a column of fractals */
};
NPUC_MUST_CHECK enum npuc_status conv_emit(struct emit *e, const struct conv *p, const struct conv_tensors *t,
                                           const char *label);

#endif
