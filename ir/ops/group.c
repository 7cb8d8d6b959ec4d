/* Products whose rows choose their matrix (mixtures of experts), and the order that brings rows of one matrix together.
 */
#include "ir/ops/infer.h"

enum { ROWS, INDEX, WEIGHTS };

static enum npuc_status count_legal(struct ir_ctx *cx, struct node *n, const char *name, int64_t otherwise)
{
    const int64_t v = node_attr_int(n, name, otherwise);
    if (v >= 1 && v <= 65536)
        return NPUC_OK;
    return node_error(cx, n, D_ATTRIBUTE, "attribute '%s' is %lld, expected 1 to 65536", name, (long long)v);
}

/* ---- GroupOrder: index i64[R] -> rows in the order of their groups: where from (i / repeat), which group; the place
 * behind the last row of each group; and the place of every row */

static enum npuc_status group_order_legal(struct ir_ctx *cx, struct node *n)
{
    const enum npuc_status s = count_legal(cx, n, "groups", 0);
    return s == NPUC_OK ? count_legal(cx, n, "repeat", 1) : s;
}

static enum npuc_status group_order_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = group_order_legal(cx, n);
    if (s == NPUC_OK)
        s = infer_dtype_is(cx, n, 0, DT_I64, DT_I64);
    const struct shape x = infer_shape(n, 0),
                       ends = {.rank = 1, .d = {expr_const(&cx->exprs, node_attr_int(n, "groups", 1))}};
    if (s == NPUC_OK && x.rank >= 0 && x.rank != 1)
        s = infer_rank_error(cx, n, 0, "rank 1");
    for (int i = 0; i < 4 && s == NPUC_OK; i++)
        s = i == 2       ? infer_out(cx, n, i, DT_I64, &ends)
            : x.rank < 0 ? infer_out_unknown(cx, n, i, DT_I64)
                         : infer_out(cx, n, i, DT_I64, &x);
    return s;
}

/* ---- GroupedMatMul: rows [R, K], index i64[R], matrices [E, K, N] or E of [K, N] (transB: [N, K]) -> [R, N]. With
 * `sorted` the rows are in the order of their matrix, and those of matrix e stand before element e of the last input,
 * i64[E]. For estimates: top rows of one token, whose matrices differ; ranks groups of devices have so many matrices
 * each, among all of which tokens choose. */

static int matrices_end(const struct node *n)
{
    return n->n_in - (node_attr_int(n, "sorted", 0) ? 1 : 0);
}

static enum npuc_status grouped_legal(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = count_legal(cx, n, "top", 1);
    if (s == NPUC_OK)
        s = count_legal(cx, n, "ranks", 1);
    if (s == NPUC_OK && matrices_end(n) <= WEIGHTS)
        return node_error(cx, n, D_ARITY, "it has %d inputs: the matrices are missing", n->n_in);
    return s;
}

/* All matrices are of one type and shape; *one is that shape. */
static enum npuc_status grouped_matrices(struct ir_ctx *cx, struct node *n, struct shape *one)
{
    *one = infer_shape(n, WEIGHTS);
    const bool stacked = one->rank == 3;
    if (one->rank >= 0 && one->rank != 2 && !stacked)
        return infer_rank_error(cx, n, WEIGHTS, "rank 2 or 3");
    if (stacked && matrices_end(n) > WEIGHTS + 1)
        return infer_rank_error(cx, n, WEIGHTS, "rank 2, being one of several matrices");
    for (int i = WEIGHTS; i < matrices_end(n); i++) {
        const struct shape s = infer_shape(n, i);
        const enum npuc_status st = infer_same_dtype(cx, n, ROWS, i);
        if (st != NPUC_OK || s.rank < 0 || one->rank < 0)
            return st;
        for (int d = 0; d < s.rank || s.rank != one->rank; d++)
            if (s.rank != one->rank || !infer_dim_same(cx, s.d[d], one->d[d]))
                return node_error(cx, n, D_SHAPE_MISMATCH, "input %d has type %s, but input %d has type %s", i,
                                  type_text(cx, n->in[i].value->type), WEIGHTS,
                                  type_text(cx, n->in[WEIGHTS].value->type));
    }
    return NPUC_OK;
}

static enum npuc_status grouped_rows(struct ir_ctx *cx, struct node *n, const struct shape *x)
{
    const bool sorted = node_attr_int(n, "sorted", 0) != 0;
    const int last = n->n_in - 1;
    const struct shape index = infer_shape(n, INDEX);
    enum npuc_status s = infer_dtype_is(cx, n, INDEX, DT_I64, DT_I64);
    if (s == NPUC_OK && sorted)
        s = infer_dtype_is(cx, n, last, DT_I64, DT_I64);
    if (s == NPUC_OK)
        s = infer_is_float(cx, n, ROWS);
    if (s == NPUC_OK && x->rank >= 0 && x->rank != 2)
        s = infer_rank_error(cx, n, ROWS, "rank 2");
    if (s == NPUC_OK && index.rank >= 0 && index.rank != 1)
        s = infer_rank_error(cx, n, INDEX, "rank 1");
    if (s == NPUC_OK && sorted && infer_shape(n, last).rank >= 0 && infer_shape(n, last).rank != 1)
        s = infer_rank_error(cx, n, last, "rank 1");
    if (s == NPUC_OK && x->rank == 2 && index.rank == 1 && !infer_dim_same(cx, x->d[0], index.d[0]))
        s = node_error(cx, n, D_SHAPE_MISMATCH, "input 1 of type %s does not say a matrix for each row of input 0, %s",
                       type_text(cx, n->in[INDEX].value->type), type_text(cx, n->in[ROWS].value->type));
    return s;
}

static enum npuc_status grouped_infer(struct ir_ctx *cx, struct node *n)
{
    const bool trans = node_attr_int(n, "transB", 0) != 0;
    struct shape w = SHAPE_UNKNOWN;
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = grouped_legal(cx, n);
    const struct shape x = infer_shape(n, ROWS);
    if (s == NPUC_OK)
        s = grouped_rows(cx, n, &x);
    if (s == NPUC_OK)
        s = grouped_matrices(cx, n, &w);
    if (s != NPUC_OK)
        return s;
    if (x.rank < 0 || w.rank < 0)
        return infer_out_unknown(cx, n, 0, infer_dtype(n, ROWS));
    const expr k = w.d[w.rank - (trans ? 1 : 2)];
    if (!infer_dim_same(cx, x.d[1], k))
        return node_error(cx, n, D_SHAPE_MISMATCH, "rows of input 0 of type %s and matrices of type %s do not multiply",
                          type_text(cx, n->in[ROWS].value->type), type_text(cx, n->in[WEIGHTS].value->type));
    return infer_out(cx, n, 0, infer_dtype(n, ROWS),
                     &(struct shape){.rank = 2, .d = {x.d[0], w.d[w.rank - (trans ? 2 : 1)]}});
}

/* ---- GroupedMatMulNBits: rows [R, K], index i64[R], codes u8[E, ..], scales [E, ..], zero points or none, and with
 * `sorted` i64[E] -> [R, N]; a matrix as MatMulNBits has it */

enum { CODES = 2, SCALES, ZEROS, PLACES };

static enum npuc_status grouped_nbits_legal(struct ir_ctx *cx, struct node *n)
{
    const int64_t bits = node_attr_int(n, "bits", 4), block = node_attr_int(n, "block_size", 0);
    if (bits != 2 && bits != 4 && bits != 8)
        return node_error(cx, n, D_ATTRIBUTE, "attribute 'bits' is %lld, expected 2, 4 or 8", (long long)bits);
    if (block < 16 || block > 65536 || (block & (block - 1)))
        return node_error(cx, n, D_ATTRIBUTE, "attribute 'block_size' is %lld, expected a power of two, at least 16",
                          (long long)block);
    for (int i = 0; i < 2; i++) {
        const int64_t size = node_attr_int(n, i ? "N" : "K", 0);
        if (size < 1 || size > INT32_MAX)
            return node_error(cx, n, D_ATTRIBUTE, "attribute '%s' is %lld, expected a positive size", i ? "N" : "K",
                              (long long)size);
    }
    if (node_attr_int(n, "sorted", 0) != 0 && !infer_has(n, PLACES))
        return node_error(cx, n, D_ARITY, "input %d (where the rows of a matrix end) is missing", PLACES);
    return NPUC_OK;
}

/* Operand i has `each` elements for every matrix. */
static enum npuc_status packed_size(struct ir_ctx *cx, struct node *n, int i, int64_t each)
{
    const struct shape s = infer_shape(n, i);
    int64_t matrices = 0;
    const int64_t have = infer_has(n, i) ? type_const_count(cx, n->in[i].value->type) : -1;
    if (have < 0 || s.rank < 1 || !expr_is_const(&cx->exprs, infer_shape(n, CODES).d[0], &matrices) ||
        have == matrices * each)
        return NPUC_OK;
    return node_error(cx, n, D_SHAPE_MISMATCH, "input %d of type %s has %lld elements, expected %lld", i,
                      type_text(cx, n->in[i].value->type), (long long)have, (long long)(matrices * each));
}

static enum npuc_status grouped_nbits_infer(struct ir_ctx *cx, struct node *n)
{
    const int64_t k = node_attr_int(n, "K", 0), cols = node_attr_int(n, "N", 0), bits = node_attr_int(n, "bits", 4),
                  block = node_attr_int(n, "block_size", 16);
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = grouped_nbits_legal(cx, n);
    const struct shape x = infer_shape(n, ROWS);
    const int64_t blocks = (k + block - 1) / (block > 0 ? block : 1);
    if (s == NPUC_OK)
        s = grouped_rows(cx, n, &x);
    if (s == NPUC_OK)
        s = infer_dtype_is(cx, n, CODES, DT_U8, DT_U8);
    if (s == NPUC_OK)
        s = infer_same_dtype(cx, n, ROWS, SCALES);
    if (s == NPUC_OK)
        s = packed_size(cx, n, CODES, cols * blocks * (block * bits / 8));
    if (s == NPUC_OK)
        s = packed_size(cx, n, SCALES, cols * blocks);
    if (s == NPUC_OK)
        s = packed_size(cx, n, ZEROS,
                        infer_dtype(n, ZEROS) == DT_U8 ? cols * ((blocks * bits + 7) / 8) : cols * blocks);
    if (s != NPUC_OK || x.rank < 0)
        return s == NPUC_OK ? infer_out_unknown(cx, n, 0, infer_dtype(n, ROWS)) : s;
    if (!infer_dim_same(cx, x.d[1], expr_const(&cx->exprs, k)))
        return node_error(cx, n, D_SHAPE_MISMATCH, "input 0 has type %s, expected %lld columns (attribute 'K')",
                          type_text(cx, n->in[ROWS].value->type), (long long)k);
    return infer_out(cx, n, 0, infer_dtype(n, ROWS),
                     &(struct shape){.rank = 2, .d = {x.d[0], expr_const(&cx->exprs, cols)}});
}

static void grouped_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    cost_bytes(cx, n, symbols, c);
    c->macs = cost_count(cx, &n->out[0], symbols) * cost_dim(cx, node_in(n, ROWS), -1, symbols);
}

#include "ir/ops/rows.h"

#include "ir/ops/group.def"
