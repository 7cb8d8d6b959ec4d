/* Matrix products as graphs have them: c[b][m][n] = start + a[b][m][k] x b[b][k][n]. What a matrix unit does of them,
 * and how operands lie in memory; the families write the programs. */
#ifndef BACKEND_MATRIX_MM_H
#define BACKEND_MATRIX_MM_H

#include "backend/backend.h"

struct mm_feed; /* of a family */
struct mm_tail;
struct nbits;

/* Kind of a Fused node that is a product with vector operators behind it (passes/fuse_product.c). */
#define MM_TAIL_KIND "matmul_vector"
/* And of one that is products of one left operand with constant weights (passes/group_products.c). */
#define MM_GROUP_KIND "matmul_group"
#define MM_MAX_GROUP  4

/* A product without tensors: what match finds out. Sizes and strides are ir expressions, in elements. */
struct mm {
    enum dtype in, out; /* of the operands as they move, of the result */
    /* With block scales: an element is worth code * 2^(scale - 127), a scale (f8e8m0) for every `block` codes along K,
     * stored as the codes are. Codes of 4 bits move as bytes of two along the rows of storage: k and the strides count
     * bytes, m and n codes. */
    struct value *a_scale, *b_scale;
    enum dtype code, b_code;
    int64_t block; /* 0: no scales */
    struct value *a, *b, *c;
    struct value *bias;   /* one row of n starting values, or NULL */
    struct value *factor; /* integers: one f32 row of n that the sums are multiplied by on the way out, or NULL */
    expr m, n, k;
    expr a_row, b_row, c_row; /* between rows as stored */
    bool a_trans;             /* a is stored [k, m] */
    bool b_trans;             /* b is stored [n, k] */
    bool weight;              /* b is constant: stored as the machine likes it, rows are n */
    bool weight_trans;        /* the constant is [k, n]: the transpose is stored */
    bool relu;
    struct mm_feed *feed;       /* makes b while the product runs; NULL: b is a tensor. Then n and k are constants */
    uint64_t feed_key;          /* of all that tiles depend on of it */
    const struct mm_tail *tail; /* vector operators behind the product, in its kernel; NULL: c is what the graph gets */
    const struct mm *peers; /* products done with this one: the same a, m, k and types, constant weights, no batch */
    int n_peers;
    /* Rows that choose their matrix (mm_grouped.h): which they choose, in ascending order, and where the rows of each
     * of `groups` end; every b_group elements a matrix. NULL: one matrix. Constants: n_stack values of two dims, or one
     * of three. */
    struct value *index, *ends;
    struct value *const *stack;
    int n_stack;
    int64_t groups, top; /* top: rows of one token, which choose different matrices */
    int64_t ranks;       /* groups of devices that have as many matrices each, for tokens of all to choose among */
    expr b_group;
    int64_t all_n;             /* columns of all matrices where they are stored as one; 0: each for itself */
    bool by_rows;              /* the kernel walks rows, being few, and no matrices */
    const struct nbits *codes; /* what a launch before the product dequantises; NULL outside of it */
    int n_batch;
    expr batch[IR_MAX_RANK], a_batch[IR_MAX_RANK], b_batch[IR_MAX_RANK], c_batch[IR_MAX_RANK]; /* sizes, strides */
};

/* Type of the accumulators. */
static inline enum dtype mm_sum(enum dtype in)
{
    return dtype_is_integer(in) ? DT_I32 : DT_F32;
}

/* What the matrix unit multiplies. */
static inline enum dtype mm_code(const struct mm *p)
{
    return p->block ? p->code : p->in;
}

/* Codes in an element of K: 2 when they move in pairs. */
static inline int64_t mm_pack(const struct mm *p)
{
    return p->block && dtype_table[p->code].bits == 4 ? 2 : 1;
}

struct mm_tensors {
    int32_t a, b, c, bias;    /* plan tensors, bias -1; b of no meaning with a feed */
    int32_t a_scale, b_scale; /* of no meaning without block scales */
    int32_t factor;           /* -1 without; of no meaning to families that refuse it */
    int32_t index, ends;      /* of no meaning to a product of one matrix */
};

/* The constant behind a value, whose dims it has but for the last two, which *trans swaps when the constant has them
 * the other way round; NULL: none. A Cast between float types is done when the weight is stored. */
struct value *mm_constant_of(struct value *v, bool *trans);
/* A value of a Fused node's region, or of one within it, as the surrounding graph sees it. */
struct value *mm_outside(struct value *v);
/* The constant weight as stored: of one matrix, or of all that rows choose from. */
int32_t mm_weight_tensor(struct emit *e, const struct mm *p, enum weight_form form, bool transpose);
void mm_drop_batch(struct mm *p, int at); /* one dimension of the batch goes */
/* Can the two products be done by one kernel, side by side? */
bool mm_is_peer(const struct ir_ctx *cx, const struct mm *p, const struct mm *q);
bool mm_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct mm *out, const char **reason);
/* Does the matrix unit multiply operands of type t into results of type `out`? */
bool mm_has_mac(const struct machine *m, enum dtype t, enum dtype out);
/* Can a product start from a row of values? */
bool mm_takes_bias(const struct machine *m);
/* The f32 row of starting values as a plan tensor, -1 without one. */
int32_t mm_bias_tensor(struct emit *e, const struct mm *p);
/* The f32 row of factors as a plan tensor, -1 without one. */
int32_t mm_factor_tensor(struct emit *e, const struct mm *p);
/* Multiply-accumulates of the product, over the plan's symbols. */
expr mm_macs(struct emit *e, const struct mm *p);
/* Sizes to plan for. */
struct mm_sizes {
    double batch, m, n, k;
    double cores; /* that run: set by the choice of tiles */
};

#endif
