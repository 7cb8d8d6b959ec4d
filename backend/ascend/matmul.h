/* Matrix products as the cube core runs them: c[b][m][n] = start + a[b][m][k] x b[b][k][n]. */
#ifndef BACKEND_ASCEND_MATMUL_H
#define BACKEND_ASCEND_MATMUL_H

#include "backend/backend.h"

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
    int n_batch;
    expr batch[IR_MAX_RANK], a_batch[IR_MAX_RANK], b_batch[IR_MAX_RANK], c_batch[IR_MAX_RANK]; /* sizes, strides */
};
/* Does a tile of this product fit, and which is best? All extents are multiples of a fractal. */
struct mm_tile {
    int64_t m, n;   /* of L0C */
    int64_t kb, k0; /* K extent of a block in L1, of a step in L0 */
    int32_t acc_slots;
};
/* Sizes to plan for: constants, or typical values of symbols. */
struct mm_sizes {
    double batch, m, n, k;
};

struct mm_tensors {
    int32_t a, b, c, bias; /* plan tensors, bias -1 */
};

bool mm_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct mm *out, const char **reason);
struct mm_tile mm_choose_tile(const struct machine *m, const struct mm *p, const struct mm_sizes *s,
                              const struct tiling *t);
/* Emits the product: one launch, or one for at most 16 rows and one for more when m is not known. */
NPUC_MUST_CHECK enum npuc_status mm_emit(struct emit *e, const struct mm *p, const struct mm_tensors *t,
                                         const char *label);

#endif
