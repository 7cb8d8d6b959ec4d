/* Convolutions on an MLU core: maps as lines of channels (NHWC), weights [out][kernel position][channel] in WRAM. Rows
 * of the product are windows, gathered in NRAM, columns output channels; results are turned to rows of channels before
 * they are stored. */
#ifndef BACKEND_MLU_CONV_H
#define BACKEND_MLU_CONV_H

#include "backend/matrix/conv.h"
#include "backend/mlu/items.h"

/* Extents of a tile of windows and output channels, and of a block of K. */
struct mlu_conv_tile {
    int64_t m, n;                 /* windows, output channels; 0: nothing fits */
    int64_t taps;                 /* kernel positions of a block: all of a plane, of a row, or one */
    int64_t kb;                   /* channels of a block; all of them when taps > 1 */
    int64_t pitch, w_pitch;       /* elements between rows of windows, of weights */
    bool strips;                  /* windows of one row; else of any number of rows, whose lines are loaded whole */
    bool whole;                   /* the map under all positions of a plane is loaded at once, with all channels */
    bool straight;                /* elements of windows come from memory as rows, position by position of the kernel */
    int64_t lines, line;          /* of the map in NRAM; between its rows */
    int32_t slots, w_slots, sums; /* of the rings of windows, of weights, of sums */
    bool ahead;                   /* filters of the next item come to SRAM while windows of this one pass by */
    struct mlu_lanes on;          /* with runs the filters of a tile stay in WRAM while windows pass by */
};

/* Sums of integers that have a factor for each channel: the unit's way out knows one for all. */
bool mlu_conv_by_channel(const struct conv *p);
/* Does the lower end of the codes bind, given the lowest byte and what relu leaves? */
bool mlu_conv_low_binds(const struct conv *p);
/* Are the ends of the codes whole numbers? The conversion to bytes, nearest, may then come behind them. */
bool mlu_conv_converts(const struct conv *p);
int64_t mlu_conv_taps(const struct conv *p);            /* kernel positions of all planes */
int32_t mlu_conv_shared(const struct mlu_conv_tile *t); /* slots of filters in SRAM */
/* Integers of the result; where there are any. */
static inline enum dtype mlu_conv_codes(const struct conv *p)
{
    return p->tail.codes->type->dtype;
}
/* What leaves the tensor unit: sums of integers as they are, or with a factor for each channel still to come. */
static inline enum dtype mlu_conv_made(const struct conv *p)
{
    return mlu_conv_by_channel(p) ? DT_F32 : p->out;
}
/* Does the float leave the kernel? */
static inline bool mlu_conv_seen(const struct conv *p)
{
    return !p->scale || p->tail.y;
}
int64_t mlu_conv_steps(const struct conv *p, const struct mlu_conv_tile *t); /* of K */
int64_t mlu_conv_last(const struct conv *p, const struct mlu_conv_tile *t); /* sum of the loops' counters in the last */
/* Does any tile fit? Without looking for the best one. */
bool mlu_conv_fits(const struct machine *m, const struct ir_ctx *cx, const struct conv *p);
/* For what is being emitted. */
struct mlu_conv_tile mlu_conv_choose_tile(const struct emit *e, const struct conv *p);
/* conv_pack.c: x as [batch][positions][channels] in a temporary of the plan. */
NPUC_MUST_CHECK enum npuc_status mlu_conv_pack(struct emit *e, const struct conv *p, int32_t *packed);
struct mlu_conv_tensors {
    int32_t x, w, bias, y, scale; /* plan tensors; x packed unless direct; -1: none but x and w */
    int32_t added, codes, slope;
    struct emit_line y_line, codes_line; /* where results are lines of channels */
};
NPUC_MUST_CHECK enum npuc_status mlu_conv_emit(struct emit *e, const struct conv *p, const struct mlu_conv_tensors *t,
                                               const char *label);

#endif
