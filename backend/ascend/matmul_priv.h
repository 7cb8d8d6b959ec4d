/* Within the generator of products: one form of the kernel being written (matmul_code.c), and the vector cores' side
 * of mixed ones (matmul_mixed.c). */
#ifndef BACKEND_ASCEND_MATMUL_PRIV_H
#define BACKEND_ASCEND_MATMUL_PRIV_H

#include "backend/ascend/matmul.h"
#include "backend/matrix/mm_grouped.h"

/* A product of the group: tensors of the kernel, tbias and tfactor -1 without; n and columns of tiles where they are
 * known. */
struct mm_one {
    int32_t tb, tc, tbias, tfactor;
    int64_t n, columns;
};
struct mm_kernel {
    struct emit *e;
    const struct mm *p;
    struct mm_tile t;
    struct tile_kernel *k;
    struct expr_pool *x;
    struct tile_builder b;
    struct kparams params;
    int64_t c0;
    struct mm_dims d;
    int n_parts; /* the product and its peers */
    struct mm_one parts[MM_MAX_GROUP];
    bool has_bias;                               /* some part */
    expr which;                                  /* part of the tile */
    expr n, n_pad, c_row;                        /* of that part: n, in whole fractals, between rows of c */
    int32_t ta;                                  /* tensor of the kernel */
    int32_t l1a, l1b, l1bias, l0a, l0b, acc, bt; /* buffers */
    struct mm_scale_side sa, sb;                 /* with block scales */
    expr m0, n0, im, in, off_a, off_b, off_c;    /* of the tile */
    expr k0, ik;                                 /* of the block in L1 */
    expr batch;                                  /* of the tile */
    expr whole, items;         /* with mm_last_parts above 1: tiles done whole, with the parts of the others */
    expr parted, part;         /* is it a part of a tile (0 or 1), which; with mm_last_parts above 1 */
    expr round, rounds;        /* number of this core's tile, of its tiles */
    struct mm_groups groups;   /* with rows that choose their matrix */
    expr group_step;           /* between matrices */
    struct mm_tail_code *tail; /* NULL: none */
};

static inline expr num(struct mm_kernel *c, int64_t v)
{
    return expr_const(c->x, v);
}

/* Code that names tensors, for the part of the tile: one after the other under conditions. */
void mm_for_part(struct mm_kernel *c, void (*fn)(struct mm_kernel *c, const struct mm_one *q));
/* The tile to q's result: relu, factors, narrowing. */
void mm_fixp(struct mm_kernel *c, const struct mm_one *q, expr off, expr row);

/* Are tiles of the last round done in parts? Then which are not: all, or the full rounds of all cores when the parts of
 * the others find a core each; and the number of both, whole tiles and parts. Parameters, for they are long. */
bool mm_is_parted(const struct mm_kernel *c);
void mm_parts_declare(struct mm_kernel *c);

/* Opens the loop over this core's tiles, on either kind of core; ends it. */
void mm_open_tiles(struct mm_kernel *c);
void mm_close_tiles(struct mm_kernel *c);

/* With a feed: block j of K of the tile, made by the vector cores, to L1; the vector cores' section. */
void mm_load_made(struct mm_kernel *c, expr j);
void mm_feed_body(struct mm_kernel *c);
/* With a tail: waits for a slot and opens the loop over parts; stores the tile of a part; ends it; the vector cores'
 * section. */
void mm_open_slot(struct mm_kernel *c);
void mm_store_for_tail(struct mm_kernel *c);
void mm_close_slot(struct mm_kernel *c);
void mm_tail_body(struct mm_kernel *c);

#endif
