/* Convolutions: windows over up to three spatial axes of x [batch][group*cin][spatial], as the cube core runs them:
 * y[b][g*cout + m][position] = sum over k of w[g*cout + m][k] * element k of the window at the position, with k
 * ascending over (kernel position, channel) (kernels/conv.h). Rows of the product are output channels, columns
 * positions, so that results are written as they are stored. */
#ifndef BACKEND_ASCEND_CONV_H
#define BACKEND_ASCEND_CONV_H

#include "backend/backend.h"

enum { CONV_AXES = 3 };

/* A convolution without tensors. Sizes are ir expressions, in elements. Fewer spatial axes use the last ones. */
struct conv {
    enum dtype in, out; /* of the operands, of the result */
    struct value *x, *w, *bias, *y;
    struct value *lines; /* x lies in memory as the packed map does, as this value: [batch][cin/c0][spatial][c0] */
    bool constant;       /* w is stored in the order of L1: [group][position][cin/c0][cout][c0] */
    bool transposed;     /* w is [channel][out of the group][position], positions backwards */
    bool relu;
    bool direct; /* every window is one element and the next one its neighbour: x is the right operand as it is */
    int64_t group, cin, cout; /* channels of one group */
    int64_t kernel[CONV_AXES], stride[CONV_AXES], dilation[CONV_AXES];
    int64_t step[CONV_AXES]; /* elements of x stand so far apart, zeros between */
    expr batch, size[CONV_AXES], out_size[CONV_AXES], before[CONV_AXES];
};

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

/* conv_match.c: the pattern, or false with *reason set when it is a convolution. */
bool conv_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct conv *out,
                const char **reason);
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
