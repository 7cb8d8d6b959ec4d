/* Convolutions on the cube core. Rows of the product are output channels, columns positions, so that results are
 * written as they are stored. */
#ifndef BACKEND_ASCEND_CONV_H
#define BACKEND_ASCEND_CONV_H

#include "backend/matrix/conv.h"
#include "backend/vector/vregion_priv.h"

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

/* conv_region.c: vector operators on sums of integers, a region of passes/fuse_product.c. The cube core leaves each
 * tile in a slot of a workspace, its two vector cores take pieces of it in turn while the cube core makes the next one.
 */
enum { CONV_SLOTS = 2 };
struct conv_region {
    const struct node *fused, *conv; /* the whole region; the convolution in it */
    int64_t c0;                      /* results lie in blocks of so many channels; 0: as the model has them */
};
bool conv_region_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct conv *p,
                       struct conv_region *r, const char **reason);
/* The vector cores' side. */
struct conv_region_code {
    struct vr_form f;
    const struct conv_region *r;
    int64_t rows, cols, pitch; /* of a piece at most; elements of the workspace between rows */
};
/* Parameters and tensors of the region, the kernel's last parameters; the workspace is its view 0. NULL after an error.
 */
struct conv_region_code *conv_region_open(struct emit *e, const struct conv *p, const struct conv_region *r,
                                          const struct conv_tile *t, int32_t workspace, struct kparams *params);
/* Code for n windows from p0 of `channels` output channels from `channel`, of one batch entry, found at `slot`. */
struct conv_region_tile {
    expr batch, channel, channels, p0, n, slot;
};
void conv_region_pieces(struct conv_region_code *c, const struct conv_region_tile *t);

/* conv_tile.c */
struct conv_tile conv_choose_tile(const struct machine *m, const struct ir_ctx *cx, const struct conv *p,
                                  const struct tiling *w);
/* conv_pack.c: x as [batch*group][cin/c0][plane][c0], made by the vector cores in a temporary of the plan. */
NPUC_MUST_CHECK enum npuc_status conv_pack(struct emit *e, const struct conv *p, int32_t *packed);
/* conv_code.c */
struct conv_tensors {
    int32_t x, w, bias, y;            /* plan tensors; x packed unless direct; bias -1 */
    bool bias_column;                 /* bias is stored as a column of fractals */
    const struct conv_region *region; /* vector operators that go on with it; y is not used; NULL: none */
};
NPUC_MUST_CHECK enum npuc_status conv_emit(struct emit *e, const struct conv *p, const struct conv_tensors *t,
                                           const char *label);

#endif
