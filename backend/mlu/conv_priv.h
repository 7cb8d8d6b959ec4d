/* Parts of the tile program of a convolution, written by conv_code.c and conv_end.c. */
#ifndef BACKEND_MLU_CONV_PRIV_H
#define BACKEND_MLU_CONV_PRIV_H

#include "backend/matrix/conv_walk.h"
#include "backend/mlu/conv.h"

struct mlu_conv_code {
    struct emit *e;
    const struct conv *p;
    struct mlu_conv_tile t;
    struct conv_walk w;
    struct tile_kernel *k;
    struct expr_pool *x;
    struct tile_builder b;
    struct kparams params;
    int32_t tx, tw, ty, tbias, tscale, tcodes, tadded, tslope;
    int32_t map, a, weights, turned, bias, wide_bias; /* buffers */
    int32_t acc, made, out, scale;            /* sums between steps of K; what leaves the unit; narrowed; factors; -1 */
    int32_t codes, added, work, turned_codes; /* integers of the result, what they are made in; the map added; -1 */
    int32_t slope;                            /* of PRelu, a row; -1 */
    int32_t shared;                           /* filters in SRAM */
    struct mlu_items item;
    expr n0, in;   /* output channels of the tile */
    expr k0, ik;   /* channels of the block */
    uint8_t bring; /* ways of filters to take now */
    struct emit_line y_line, codes_line;
};

static inline expr mlu_conv_num(const struct mlu_conv_code *c, int64_t v)
{
    return expr_const(c->x, v);
}
/* What follows the sums of a tile, and its way to memory. */
void mlu_conv_finish(struct mlu_conv_code *c);
/* A row with a number for each channel of the tile, to `buf`. */
void mlu_conv_load_row(struct mlu_conv_code *c, int32_t buf, int32_t tensor, enum dtype t);

#endif
