/* A convolution inside of a kernel: which windows a tile has, which part of x lies under them, and the walk over K. */
#ifndef BACKEND_MATRIX_CONV_WALK_H
#define BACKEND_MATRIX_CONV_WALK_H

#include "backend/matrix/conv.h"

enum { CONV_D, CONV_H, CONV_W }; /* axes */

struct conv_walk {
    const struct conv *p;
    struct expr_pool *x;
    int64_t windows; /* of a tile, at most */
    int64_t taps;    /* kernel positions of a block of K: all of a plane, of a row, or one */
    bool strips;     /* windows of one row; else of any number of rows, whose lines are loaded whole */
    /* kernel expressions */
    expr batch, size[CONV_AXES], out[CONV_AXES], before[CONV_AXES];
    struct kband band;                /* images and rows of windows to do */
    expr col, cols;                   /* columns of them: part of a map whose windows are one row */
    expr in_plane, out_plane;         /* elements of a channel of x, of y */
    expr map, group, od;              /* of the tile: map = batch*group + group, plane of windows */
    expr p0, count, row0, col0, rows; /* its windows: first of the plane, number, row and column of the first, rows */
    expr kd, kh, kw;                  /* first kernel position of the block */
    expr lo[CONV_AXES], n[CONV_AXES]; /* the part of x under it */
    expr first[CONV_AXES], seen[CONV_AXES]; /* rows and columns of its windows for which the position lies in x */
};

void conv_walk_declare(struct conv_walk *w, struct kparams *params);
int64_t conv_plane_taps(const struct conv *p);
/* Tiles of one plane of windows. */
expr conv_walk_tiles(struct conv_walk *w);
/* Tile number `at` of plane `plane` of all (batch*group, out plane). */
void conv_walk_place(struct conv_walk *w, expr plane, expr at);
/* Kernel positions of block number `block`. */
void conv_walk_block(struct conv_walk *w, expr block);
/* Number of the first of them. */
expr conv_walk_tap(struct conv_walk *w);
/* Where kernel position k looks for window o, in steps of x. */
expr conv_walk_look(struct conv_walk *w, int axis, expr o, expr k);
/* Fills lo and n. */
void conv_walk_locate(struct conv_walk *w);
/* Fills first and seen, counted in the tile, for elements of x that stand together (step 1): strips, or tiles of whole
 * rows. All padding: seen is 0 along H. */
void conv_walk_see(struct conv_walk *w);
/* The place in x, in elements of a channel of all maps, that the first of them sees. */
expr conv_walk_first(struct conv_walk *w);

#endif
