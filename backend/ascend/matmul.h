/* Matrix products as the cube core runs them: c[b][m][n] = start + a[b][m][k] x b[b][k][n]. */
#ifndef BACKEND_ASCEND_MATMUL_H
#define BACKEND_ASCEND_MATMUL_H

#include "backend/matrix/mm.h"
#include "backend/matrix/mm_dims.h"
#include "backend/vector/vregion_priv.h"

/* Does a tile of this product fit, and which is best? All extents are multiples of a fractal. */
struct mm_tile {
    int64_t m, n;   /* of L0C */
    int64_t kb, k0; /* K extent of a block in L1, of a step in L0 */
    int32_t acc_slots;
    int64_t group; /* blocks of K whose source a feed loads at once */
    /* Order of tiles: bands of `band` columns of tiles (by_rows: rows), row by row (column by column) within a band. */
    int64_t band;
    bool by_rows;
    int64_t grid_m, grid_n; /* instead, on request: each core a rectangle of tiles, of a grid of so many; 0: no */
    /* The tiles of a last round that leaves cores idle are divided into last_m x last_n equal parts, when so many
     * cores are there; 1 x 1 or 0: not. */
    int64_t last_m, last_n;
};
/* Rows and columns of a tile, or of a part of one, are a multiple of this. */
int64_t mm_extent_unit(const struct machine *m, const struct mm *p);
static inline int64_t mm_last_parts(const struct mm_tile *t)
{
    return t->last_m * t->last_n;
}
/* A part of b that a vector core makes: columns n0 .., rows k0 .. of K. Expressions of the kernel. */
struct mm_part {
    expr which; /* product of the group */
    expr n0, in, k0, ik;
    expr done; /* K of the loaded group before k0 */
    int32_t tensor;
    expr off; /* of the part in the tensor, which has [k/c0][t.n][c0] */
};

/* Vector cores make b block by block in a workspace of a few slots per block of cores, in the order of L1. The cube
 * core tells when a slot is free again. */
struct mm_feed {
    int32_t slots; /* at most 15: events between cores count to that */
    int32_t n_tensors, tensors[3 * MM_MAX_GROUP];
    /* Largest kb up to `most` that a vector core can make for a tile of t->n columns, with group; false: none. */
    bool (*fit)(const struct mm_feed *f, const struct machine *m, int64_t most, struct mm_tile *t);
    double (*cycles)(const struct mm_feed *f, const struct machine *m, const struct mm_tile *t); /* of a block */
    /* One form of the kernel: tensors; buffers; source of a group to UB; one block of it; that block to the workspace.
     */
    void (*declare)(struct mm_feed *f, struct emit *e, struct tile_builder *b);
    void (*begin)(struct mm_feed *f, const struct machine *m, const struct mm_tile *t);
    void (*load)(struct mm_feed *f, const struct mm_part *p);
    void (*make)(struct mm_feed *f, const struct mm_part *p);
    void (*store)(struct mm_feed *f, const struct mm_part *p);
};

/* The block scales of one operand on their way: buffers and what a tile takes. */
struct mm_scale_side {
    int32_t tensor, l1, l0;
    int64_t extent;         /* of the tile */
    expr off, first, count; /* offset of the codes, rows of the tile (a) or columns (b) */
    expr row;               /* between rows of codes as stored */
    bool k_major;           /* K is not along the rows of storage */
};
/* Bytes of L1 for the scales of a row of kb elements of K, and of L0 for a tile's rows of k0. */
int64_t mm_scale_row(const struct mm *p, int64_t kb);
int64_t mm_scale_l0(const struct mm *p, int64_t rows, int64_t k0);
/* Position and length of a block of K, or of a step of it: elements of K. */
struct mm_span_k {
    expr at, len, all; /* all: K */
};
void mm_scale_load(struct tile_builder *b, const struct mm *p, const struct mm_scale_side *s, const struct mm_span_k *k,
                   int64_t kb);
void mm_scale_copy(struct tile_builder *b, const struct mm *p, const struct mm_scale_side *s, const struct mm_span_k *k,
                   int64_t kb);

/* Vector operators on the product's result: a region of passes/fuse_product.c. The cube core leaves each tile in a slot
 * of a workspace, its two vector cores take pieces of it in turn while the cube core makes the next tiles. */
struct mm_tail {
    const struct node *fused;                  /* the whole region, in the graph */
    const struct node *products[MM_MAX_GROUP]; /* in it: the product and its peers, or the Fused nodes around them */
    int n_products;
    struct mm peers[MM_MAX_GROUP - 1];
    int32_t slots; /* at most MM_MOST_SLOTS: events between cores count to that */
};
#define MM_MOST_SLOTS 15
/* The vector cores' side of one form of the kernel. */
struct mm_tail_code {
    struct vr_form f;
    expr rows, cols; /* of a piece at most, constants */
    int64_t pitch;   /* of a tile in the workspace */
    int n_tiles;     /* in a slot of it, of as many products */
};
/* Is the node such a region? Fills the product and what follows it. */
bool mm_tail_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct mm *p, struct mm_tail *tail,
                   const char **reason);
/* Parameters and tensors of the region, the kernel's last parameters; the workspace is its view 0. The kernel and its
 * builder are those of `k`, `params` so far. NULL after an error. */
struct mm_tail_code *mm_tail_open(struct emit *e, const struct mm *p, const struct mm_tile *t, int32_t workspace,
                                  struct kparams *params);
/* Code for the tile at m0, n0 of im x in elements of batch member `batch`, found at `slot` of the workspace. */
struct mm_tail_tile {
    expr batch, m0, n0, im, in, slot;
};
void mm_tail_tile(struct mm_tail_code *c, const struct mm_tail_tile *t);

/* m is 0 when not even the smallest tile fits. */
struct mm_tile mm_choose_tile(const struct machine *m, const struct mm *p, const struct mm_sizes *s,
                              const struct tiling *t);
/* The product's operands as plan tensors: constant weights in the order of L0B, others as they are. */
struct mm_tensors mm_operands(struct emit *e, const struct mm *p);
/* What a tile takes: ranks candidates. */
double mm_tile_cycles(const struct machine *m, const struct mm *p, const struct mm_sizes *s, const struct mm_tile *t);
/* Emits the product with its peers, `t` having tensors for each: one launch, or one per part of the sizes when they are
 * not known. */
NPUC_MUST_CHECK enum npuc_status mm_emit(struct emit *e, const struct mm *p, const struct mm_tensors *t,
                                         const char *label);

#endif
