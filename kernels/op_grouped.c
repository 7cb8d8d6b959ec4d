/* Products whose rows choose their matrix, and the order that brings rows of one matrix together (npuc). */
#include <string.h>

#include "kernels/mac.h"
#include "kernels/op.h"

/* --- GroupedMatMul: y[r] = x[r] times the matrix that index[r] names --- */

enum { GROUPED_ROWS, GROUPED_INDEX, GROUPED_WEIGHTS };

struct grouped {
    const struct k_tensor *x;
    const int64_t *index;
    int64_t rows, k, n, matrices;
    bool trans; /* matrices are stored [n, k] */
    float *sum;
};

/* The matrices: one tensor [E, .., ..], or E tensors of two dims, all alike. */
static bool grouped_of(struct k_call *c, struct grouped *g)
{
    const struct k_tensor *w = c->in[GROUPED_WEIGHTS];
    const int n_in = c->n_in - (k_attr_int(c, "sorted", 0) ? 1 : 0); /* the places behind the groups come last */
    int64_t n = 0;
    *g = (struct grouped){.x = c->in[GROUPED_ROWS], .trans = k_attr_int(c, "transB", 0) != 0};
    if (g->x->rank != 2 || (w->rank != 3 && w->rank != 2) || !(g->index = k_whole(c, GROUPED_INDEX, &n)))
        return false;
    const int at = w->rank - 2;
    g->rows = g->x->dims[0];
    g->k = g->x->dims[1];
    g->n = w->dims[at + (g->trans ? 0 : 1)];
    g->matrices = w->rank == 3 ? w->dims[0] : n_in - GROUPED_WEIGHTS;
    for (int i = GROUPED_WEIGHTS; i < n_in; i++) {
        const struct k_tensor *v = k_in(c, i);
        if (!v || v->rank != w->rank || v->dtype != g->x->dtype || v->dims[at] != w->dims[at] ||
            v->dims[at + 1] != w->dims[at + 1])
            return false;
    }
    return n == g->rows && w->dims[at + (g->trans ? 1 : 0)] == g->k && dtype_is_float(w->dtype) && w->dtype != DT_F64 &&
           (w->rank == 2 || n_in == GROUPED_WEIGHTS + 1);
}

static const void *matrix_of(const struct k_call *c, const struct grouped *g, int64_t e)
{
    const struct k_tensor *w = c->in[GROUPED_WEIGHTS];
    if (w->rank == 2)
        return c->in[GROUPED_WEIGHTS + e]->data;
    return (const char *)w->data + e * g->n * g->k * dtype_size(w->dtype);
}

enum npuc_status k_op_grouped_mat_mul(struct k_call *c)
{
    struct grouped g;
    if (!k_has(c, GROUPED_WEIGHTS + 1, 1) || !grouped_of(c, &g))
        return k_fail(c, NPUC_E_INVALID, "rows, index and matrices do not fit");
    if (!(g.sum = k_scratch(c, g.rows * g.n + 1, sizeof *g.sum)))
        return k_no_memory(c);
    const int64_t size = dtype_size(g.x->dtype);
    for (int64_t r = 0, end; r < g.rows; r = end) {
        const int64_t e = g.index[r];
        if (e < 0 || e >= g.matrices)
            return k_fail(c, NPUC_E_INVALID, "row %lld asks for matrix %lld of %lld", (long long)r, (long long)e,
                          (long long)g.matrices);
        for (end = r + 1; end < g.rows && g.index[end] == e;)
            end++;
        k_matmul(&(struct k_matmul_args){.dtype = g.x->dtype,
                                         .m = end - r,
                                         .n = g.n,
                                         .k = g.k,
                                         .a = (const char *)g.x->data + r * g.k * size,
                                         .b = matrix_of(c, &g, e),
                                         .a_row = g.k,
                                         .a_col = 1,
                                         .b_row = g.trans ? 1 : g.n,
                                         .b_col = g.trans ? g.k : 1,
                                         .c = g.sum + r * g.n,
                                         .c_row = g.n},
                 c->pool);
    }
    const struct k_tensor shape = {.rank = 2, .dims = {g.rows, g.n}};
    return k_out_floats(c, 0, g.x->dtype, &shape, g.sum);
}

/* --- GroupedMatMulNBits: rows, index, codes [E, N, blocks, bytes], scales [E, N, blocks], zero points or none --- */

enum { NBITS_CODES = 2, NBITS_SCALES, NBITS_ZEROS, NBITS_OPERANDS };

/* Matrix e of operand i as MatMulNBits has it; false when it does not divide into `matrices`. */
static bool packed_matrix(const struct k_call *c, int i, int64_t matrices, int64_t e, struct k_tensor *out)
{
    const struct k_tensor *x = k_in(c, i);
    const int64_t n = k_count(x), each = matrices > 0 ? n / matrices : 0;
    const int size = dtype_size(x->dtype);
    *out = (struct k_tensor){.dtype = x->dtype, .rank = 1, .dims = {each}, .size = each * size};
    out->data = (char *)(uintptr_t)x->data + e * each * size;
    return size > 0 && each * matrices == n;
}

/* Rows [from, to) through matrix e. */
static enum npuc_status packed_run(struct k_call *c, int64_t matrices, int64_t e, int64_t from, int64_t to)
{
    const struct k_tensor *x = c->in[GROUPED_ROWS];
    const int64_t k = x->dims[1], size = dtype_size(x->dtype);
    struct k_tensor part[NBITS_OPERANDS] = {{.dtype = x->dtype,
                                             .rank = 2,
                                             .dims = {to - from, k},
                                             .data = (char *)(uintptr_t)x->data + from * k * size,
                                             .size = (to - from) * k * size}};
    const struct k_tensor *in[4] = {&part[0]};
    struct k_tensor y = {.data = NULL};
    for (int i = NBITS_CODES; i < NBITS_OPERANDS; i++)
        if (k_in(c, i)) {
            if (!packed_matrix(c, i, matrices, e, &part[i]))
                return k_fail(c, NPUC_E_INVALID, "operand %d holds no %lld matrices", i, (long long)matrices);
            in[i - 1] = &part[i];
        }
    struct k_call one = *c;
    one.in = in;
    one.n_in = 4;
    one.out = &y;
    one.n_out = 1;
    const enum npuc_status s = k_op_mat_mul_nbits(&one);
    if (s != NPUC_OK)
        return k_fail(c, s, "%s", one.error);
    const int64_t n = y.dims[1];
    memcpy((char *)c->out[0].data + from * n * size, y.data, (size_t)((to - from) * n * size));
    return NPUC_OK;
}

enum npuc_status k_op_grouped_mat_mul_nbits(struct k_call *c)
{
    int64_t n = 0;
    if (!k_has(c, NBITS_SCALES + 1, 1) || c->in[0]->rank != 2 || !dtype_is_float(c->in[0]->dtype) ||
        c->in[NBITS_CODES]->rank < 1)
        return k_fail(c, NPUC_E_INVALID, "rows and codes do not fit");
    const int64_t *index = k_whole(c, GROUPED_INDEX, &n), rows = c->in[0]->dims[0],
                  matrices = c->in[NBITS_CODES]->dims[0];
    if (!index || n != rows)
        return k_fail(c, NPUC_E_INVALID, "there is no matrix for every row");
    if (!k_out(c, 0, c->in[0]->dtype, 2, (const int64_t[]){rows, k_attr_int(c, "N", 0)}))
        return k_no_memory(c);
    for (int64_t r = 0, end; r < rows; r = end) {
        if (index[r] < 0 || index[r] >= matrices)
            return k_fail(c, NPUC_E_INVALID, "row %lld asks for matrix %lld of %lld", (long long)r, (long long)index[r],
                          (long long)matrices);
        for (end = r + 1; end < rows && index[end] == index[r];)
            end++;
        K_TRY(packed_run(c, matrices, index[r], r, end));
    }
    return NPUC_OK;
}

/* --- GroupOrder: rows in the order of their groups, equal ones as they came --- */

/* places [groups + 1] of the first row of each group; false when an index is out of range. */
static bool count_groups(const int64_t *index, int64_t n, int64_t groups, int64_t *first)
{
    for (int64_t i = 0; i < n; i++) {
        if (index[i] < 0 || index[i] >= groups)
            return false;
        first[index[i] + 1]++;
    }
    for (int64_t e = 0; e < groups; e++)
        first[e + 1] += first[e];
    return true;
}

enum npuc_status k_op_group_order(struct k_call *c)
{
    const int64_t groups = k_attr_int(c, "groups", 0), repeat = k_attr_int(c, "repeat", 1);
    int64_t n = 0;
    if (!k_has(c, 1, 4) || groups < 1 || repeat < 1)
        return k_fail(c, NPUC_E_INVALID, "groups and repeat are at least 1");
    const int64_t *index = k_whole(c, 0, &n);
    int64_t *first = k_scratch(c, groups + 1, sizeof *first);
    int64_t *from = k_out(c, 0, DT_I64, 1, &n), *sorted = k_out(c, 1, DT_I64, 1, &n),
            *ends = k_out(c, 2, DT_I64, 1, &groups), *place = k_out(c, 3, DT_I64, 1, &n);
    if (!index || !first || !from || !sorted || !ends || !place)
        return k_no_memory(c);
    if (!count_groups(index, n, groups, first))
        return k_fail(c, NPUC_E_INVALID, "an index is not below the number of groups, %lld", (long long)groups);
    memcpy(ends, first + 1, (size_t)groups * sizeof *ends);
    for (int64_t i = 0; i < n; i++) {
        const int64_t to = first[index[i]]++;
        from[to] = i / repeat;
        sorted[to] = index[i];
        place[i] = to;
    }
    return NPUC_OK;
}
