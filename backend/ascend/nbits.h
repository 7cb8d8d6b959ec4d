/* Block-quantised weights as the feed of a product on the cube core. */
#ifndef BACKEND_ASCEND_NBITS_H
#define BACKEND_ASCEND_NBITS_H

#include "backend/ascend/matmul.h"
#include "backend/matrix/nbits.h"

/* nbits_feed.c: the weight as a product's feed. feed.fit with 16 columns tells whether there is a kernel. */
struct nbits_feed {
    struct mm_feed feed;   /* first */
    const struct nbits *q; /* those of a group, one after the other */
    int n;
    int64_t wish_k; /* of a block; 0: free */
    struct nbits_tile tile;
    int64_t c0, kb, pitch; /* elements of a line; extents of the tile in UB and the workspace */
    int32_t out;
};
void nbits_feed_init(struct nbits_feed *f, const struct nbits *q, int n, const struct machine *m,
                     const struct tiling *w);
uint64_t nbits_feed_key(const struct nbits_feed *f); /* of what fit and cycles depend on */

#endif
