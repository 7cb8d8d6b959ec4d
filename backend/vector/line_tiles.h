/* Tiles of results that lie as lines of channels, rows and columns of lines (NHWC, NC1HWC0; a dense map has lines of
 * one element): which extents a tile has, and how tiles are divided among the vector cores. For windows (gen_lines.c)
 * and Resize (gen_resize.c). */
#ifndef BACKEND_VECTOR_LINE_TILES_H
#define BACKEND_VECTOR_LINE_TILES_H

#include "backend/backend.h"

enum { LINE_H, LINE_W, LINE_AXES };
struct line_map {
    int64_t line, stripes;    /* elements of a line; lines of a position */
    int64_t count[LINE_AXES]; /* rows and columns, of lines or of what is done at once */
    expr batch;
};
struct line_tile {
    int64_t channels, count[LINE_AXES]; /* channels 0: nothing fits */
};

/* Cycles of all tiles of this extent; INFINITY: it does not fit on chip. */
typedef double line_cycles_fn(const void *user, const struct line_tile *t);
/* The extents with the fewest cycles: channels of a line or a round part of it, rows and columns of `steps`, which
 * ascend. Those of `wish` are not exceeded; NULL or 0: free. */
struct line_tile line_tile_choose(const struct line_map *map, const int64_t *steps, int64_t n_steps,
                                  const struct tiling *wish, line_cycles_fn *cycles, const void *user);
/* The batch to plan for. */
double line_batch(const struct ir_ctx *cx, const struct line_map *map);
/* Tiles that there are, for that batch. */
double line_tiles(const struct ir_ctx *cx, const struct line_map *map, const struct line_tile *t);

/* The tile of a core in a round. */
struct line_place {
    expr stripe, c0, nc, first[LINE_AXES], n[LINE_AXES];
};
/* Sets the blocks of the kernel and opens the loop over the tiles of a core; rows and images are those of the band. */
struct line_place line_tiles_open(const struct machine *m, struct tile_builder *b, const struct line_map *map,
                                  const struct line_tile *t, const struct kband *band);

#endif
