/* Matrix products as the cube core runs them: c[b][m][n] = start + a[b][m][k] x b[b][k][n]. */
#ifndef BACKEND_ASCEND_MATMUL_H
#define BACKEND_ASCEND_MATMUL_H

#include "backend/backend.h"

struct mm_feed;

/* A product without tensors: what match finds out. Sizes and strides are ir expressions, in elements. */
struct mm {
    enum dtype in, out; /* of the operands, of the result */
    struct value *a, *b, *c;
    struct value *bias; /* one row of n starting values, or NULL */
    expr m, n, k;
    expr a_row, b_row, c_row; /* between rows as stored */
    bool a_trans;             /* a is stored [k, m] */
    bool b_trans;             /* b is stored [n, k] */
    bool weight;              /* b is constant: stored in NZ, rows are n */
    bool weight_trans;        /* the constant is [k, n]: the transpose is stored */
    bool relu;
    struct mm_feed *feed; /* makes b while the product runs; NULL: b is a tensor. Then n and k are constants */
    int n_batch;
    expr batch[IR_MAX_RANK], a_batch[IR_MAX_RANK], b_batch[IR_MAX_RANK], c_batch[IR_MAX_RANK]; /* sizes, strides */
};
/* Does a tile of this product fit, and which is best? All extents are multiples of a fractal. */
struct mm_tile {
    int64_t m, n;   /* of L0C */
    int64_t kb, k0; /* K extent of a block in L1, of a step in L0 */
    int32_t acc_slots;
    int64_t group; /* blocks of K whose source a feed loads at once */
};
/* Sizes to plan for: constants, or typical values of symbols. */
struct mm_sizes {
    double batch, m, n, k;
    double cores; /* that run: set by the choice of tiles */
};

/* A part of b that a vector core makes: columns n0 .., rows k0 .. of K. Expressions of the kernel. */
struct mm_part {
    expr n0, in, k0, ik;
    expr done; /* K of the loaded group before k0 */
    int32_t tensor;
    expr off; /* of the part in the tensor, which has [k/c0][t.n][c0] */
};

/* Vector cores make b block by block in a workspace of a few slots per block of cores, in the order of L1. The cube
 * core tells when a slot is free again. */
struct mm_feed {
    int32_t slots; /* at most 15: events between cores count to that */
    int32_t n_tensors, tensors[3];
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

/* Type of the accumulators. */
static inline enum dtype mm_sum(enum dtype in)
{
    return dtype_is_integer(in) ? DT_I32 : DT_F32;
}

struct mm_tensors {
    int32_t a, b, c, bias; /* plan tensors, bias -1; b of no meaning with a feed */
};

bool mm_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct mm *out, const char **reason);
struct mm_tile mm_choose_tile(const struct machine *m, const struct mm *p, const struct mm_sizes *s,
                              const struct tiling *t);
/* Emits the product: one launch, or one for at most 16 rows and one for more when m is not known. */
NPUC_MUST_CHECK enum npuc_status mm_emit(struct emit *e, const struct mm *p, const struct mm_tensors *t,
                                         const char *label);

#endif
