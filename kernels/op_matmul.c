/* MatMul, Gemm, MatMulInteger, QLinearMatMul, MatMulNBits on k_matmul. */
#include <string.h>

#include "base/size.h"
#include "kernels/mac.h"
#include "kernels/op.h"

/* The type k_matmul leaves its sums in. */
static enum dtype sum_type(enum dtype t)
{
    if (dtype_is_float(t))
        return t == DT_F64 ? DT_F64 : DT_F32;
    return dtype_size(t) == 8 ? DT_I64 : DT_I32;
}

/* numpy's matmul shapes: A as batch x m x k, B as batch x k x n. */
struct shapes {
    int rank; /* of the result */
    int64_t dims[K_MAX_RANK];
    struct k_nd batch; /* operands: 0 a, 1 b; strides in matrices */
    int64_t m, n, k;
    const float *start; /* n values that every row's accumulation starts from, or NULL for zeros */
};
static bool shapes_of(struct k_call *c, struct shapes *s)
{
    struct k_tensor a = *c->in[0], b = *c->in[1];
    const bool row = a.rank == 1, col = b.rank == 1;
    if (a.rank < 1 || b.rank < 1)
        return false;
    if (row) {
        a.dims[1] = a.dims[0];
        a.dims[0] = 1;
        a.rank = 2;
    }
    if (col) {
        b.dims[1] = 1;
        b.rank = 2;
    }
    s->m = a.dims[a.rank - 2];
    s->k = a.dims[a.rank - 1];
    s->n = b.dims[b.rank - 1];
    if (b.dims[b.rank - 2] != s->k)
        return false;
    a.rank -= 2;
    b.rank -= 2;
    s->batch = (struct k_nd){.n = 2};
    if (!k_broadcast(a.rank, a.dims, b.rank, b.dims, &s->batch.rank, s->batch.dims))
        return false;
    k_nd_broadcast(&s->batch, 0, &a);
    k_nd_broadcast(&s->batch, 1, &b);
    s->rank = s->batch.rank;
    memcpy(s->dims, s->batch.dims, sizeof s->dims);
    if (!row)
        s->dims[s->rank++] = s->m;
    if (!col)
        s->dims[s->rank++] = s->n;
    return true;
}

struct batched {
    const struct shapes *s;
    struct k_matmul_args g;
    const char *a, *b;
    char *c;
    int64_t done;
    int in_size, out_size;
    struct pool *pool;
};
static void one_batch(void *arg, const int64_t *offset)
{
    struct batched *j = arg;
    j->g.a = j->a + offset[0] * j->s->m * j->s->k * j->in_size;
    j->g.b = j->b + offset[1] * j->s->k * j->s->n * j->in_size;
    j->g.c = j->c + j->done++ * j->s->m * j->s->n * j->out_size;
    k_matmul(&j->g, j->pool);
}
static void run_batches(struct k_call *c, struct shapes *s, const void *a, const void *b, enum dtype t, void *y)
{
    const int64_t batches = k_dims_count(s->batch.rank, s->batch.dims);
    bool shared = true; /* one B for all: the batches of A are rows of one matrix */
    for (int i = 0; i < s->batch.rank; i++)
        shared = shared && s->batch.stride[1][i] == 0 && (s->batch.stride[0][i] != 0 || s->batch.dims[i] == 1);
    if (shared) {
        s->m *= batches;
        s->batch.rank = 0;
    }
    struct batched j = {.s = s,
                        .a = a,
                        .b = b,
                        .c = y,
                        .in_size = dtype_size(t),
                        .out_size = dtype_size(sum_type(t)),
                        .pool = c->pool,
                        .g = {.dtype = t,
                              .bias = s->start,
                              .m = s->m,
                              .n = s->n,
                              .k = s->k,
                              .a_row = s->k,
                              .a_col = 1,
                              .b_row = s->n,
                              .b_col = 1,
                              .c_row = s->n}};
    if (batches > 0)
        k_nd_each(&s->batch, 0, one_batch, &j);
}

/* A third input is no operand of ONNX but a bias row that matrix units start from: the interpreter gives it
 * (ir/eval.c). */
enum npuc_status k_op_mat_mul(struct k_call *c)
{
    struct shapes s = {.start = NULL};
    const struct k_tensor *row = k_in(c, 2);
    if (!k_has(c, 2, 1))
        return NPUC_E_INVALID;
    const enum dtype t = c->in[0]->dtype, sum = sum_type(t);
    if (c->in[1]->dtype != t || dtype_size(t) == 0 || k_wide_of(t) == K_WIDE_NONE)
        return k_fail(c, NPUC_E_UNSUPPORTED, "types %s and %s", dtype_table[t].name, dtype_table[c->in[1]->dtype].name);
    if (!shapes_of(c, &s) || (row && (k_count(row) != s.n || sum != DT_F32 || !dtype_is_float(row->dtype))))
        return k_fail(c, NPUC_E_INVALID, "shapes do not fit");
    s.start = row ? k_floats(c, row) : NULL;
    if (row && !s.start)
        return k_no_memory(c);
    void *y = k_out(c, 0, t, s.rank, s.dims), *wide = y;
    if (y && dtype_size(sum) != dtype_size(t))
        wide = k_scratch(c, k_count(&c->out[0]), dtype_size(sum));
    if (!y || !wide)
        return k_no_memory(c);
    run_batches(c, &s, c->in[0]->data, c->in[1]->data, t, wide);
    if (wide != y)
        k_cast(t, y, sum, wide, k_count(&c->out[0]), true);
    return NPUC_OK;
}

/* x minus its zero point as int32; zp: one value, or one per row (by_row) or column of the last two dims. */
static int32_t *centred(struct k_call *c, const struct k_tensor *x, const struct k_tensor *zp, bool by_row)
{
    const int64_t n = k_count(x), cols = x->rank > 0 ? x->dims[x->rank - 1] : 1, zps = zp ? k_count(zp) : 0;
    int32_t *y = k_scratch(c, n, sizeof *y);
    for (int64_t i = 0; y && i < n; i++) {
        const int64_t which = zps <= 1 ? 0 : (by_row ? i / cols : i % cols) % zps;
        y[i] = (int32_t)k_get_i64(x, i) - (zps ? (int32_t)k_get_i64(zp, which) : 0);
    }
    return y;
}
enum npuc_status k_op_mat_mul_integer(struct k_call *c)
{
    struct shapes s = {.start = NULL};
    if (!k_has(c, 2, 1))
        return NPUC_E_INVALID;
    if (dtype_size(c->in[0]->dtype) > 2 || dtype_size(c->in[1]->dtype) > 2 || !shapes_of(c, &s))
        return k_fail(c, NPUC_E_INVALID, "types or shapes do not fit");
    const int32_t *a = centred(c, c->in[0], k_in(c, 2), true), *b = centred(c, c->in[1], k_in(c, 3), false);
    void *y = k_out(c, 0, DT_I32, s.rank, s.dims);
    if (!a || !b || !y)
        return k_no_memory(c);
    run_batches(c, &s, a, b, DT_I32, y);
    return NPUC_OK;
}

/* --- QLinearMatMul --- */

/* x minus its zero point in type t, which holds the difference exactly. The zero point: one value, or one per row
 * (by_row) or column of the last two axes. */
static void *centred_as(struct k_call *c, enum dtype t, int i, bool by_row)
{
    const struct k_tensor *x = c->in[i], *zero = c->in[i + 2];
    if (t == DT_I32)
        return centred(c, x, zero, by_row);
    float *y = k_scratch(c, k_count(x), sizeof *y);
    if (y)
        k_load_f32(y, x->dtype, x->data, 0, k_count(x)); /* 8-bit floats have no zero point but 0 */
    return y;
}
/* The value of input i for row or column `at`. */
static float quant_value(const struct k_tensor *t, int64_t at)
{
    const int64_t n = k_count(t);
    return (float)k_get_f64(t, n > 1 ? at % n : 0);
}
static enum npuc_status qlinear_store(struct k_call *c, const struct shapes *s, enum dtype sum, const void *sums)
{
    const struct k_tensor *a = c->in[1], *b = c->in[4], *scale = c->in[6], *zero = c->in[7], *y = &c->out[0];
    const bool per_column = k_count(b) > 1;
    for (int64_t r = 0; s->n > 0 && r < k_count(y) / s->n; r++)
        for (int64_t n = 0; n < s->n; n += per_column ? 1 : s->n) {
            const int64_t len = per_column ? 1 : s->n, at = r * s->n + n;
            const float factor = quant_value(a, r) * quant_value(b, n) / quant_value(scale, r);
            if (sum == DT_I32) {
                const struct k_requant q = {y->dtype, (int32_t)quant_value(zero, r), factor};
                k_requant(&q, y->data, at, (const int32_t *)sums + at, len);
                continue;
            }
            for (int64_t i = at; i < at + len; i++) {
                const float v = ((const float *)sums)[i] * factor;
                k_narrow(y->dtype, y->data, i, &v, 1, true);
            }
        }
    return NPUC_OK;
}
/* Inputs: a, its scale, its zero point, b, ..., the scale and zero point of y. */
enum npuc_status k_op_qlinear_mat_mul(struct k_call *c)
{
    if (!k_has(c, 8, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *zero = c->in[7];
    struct k_call product = *c; /* shapes_of looks at inputs 0 and 1 */
    const struct k_tensor *operands[2] = {c->in[0], c->in[3]};
    product.in = operands;
    const enum dtype sum = dtype_is_float(zero->dtype) ? DT_F32 : DT_I32;
    bool fits = true;
    for (int i = 0; fits && i < 2; i++)
        fits = dtype_size(operands[i]->dtype) == 1 && dtype_is_float(operands[i]->dtype) == (sum == DT_F32);
    struct shapes s = {.start = NULL};
    if (!fits || dtype_size(zero->dtype) != 1 || (sum == DT_I32 && zero->dtype != DT_I8 && zero->dtype != DT_U8) ||
        !shapes_of(&product, &s))
        return k_fail(c, NPUC_E_INVALID, "types or shapes do not fit");
    for (int i = 1; i < 8; i++)
        if (i != 3 && k_count(c->in[i]) == 0)
            return k_fail(c, NPUC_E_INVALID, "input %d is empty", i);
    const int rank = s.rank;
    int64_t dims[K_MAX_RANK];
    memcpy(dims, s.dims, sizeof dims);
    void *y = k_out(c, 0, zero->dtype, rank, dims);
    const void *a = centred_as(c, sum, 0, true), *b = centred_as(c, sum, 3, false);
    void *sums = y ? k_scratch(c, k_count(&c->out[0]), dtype_size(sum)) : NULL;
    if (!a || !b || !sums)
        return k_no_memory(c);
    run_batches(c, &s, a, b, sum, sums);
    return qlinear_store(c, &s, sum, sums);
}

/* A bias of one row, without factors, is what the accumulation of every row starts from: matrix units do that. */
static bool bias_is_start(const struct k_call *c, const struct k_tensor *sum)
{
    const struct k_tensor *bias = k_in(c, 2);
    return bias && sum->dtype == DT_F32 && dtype_is_float(bias->dtype) && bias->rank >= 1 &&
           bias->dims[bias->rank - 1] == sum->dims[1] && k_count(bias) == sum->dims[1] &&
           k_attr_float(c, "alpha", 1.0f) == 1.0f && k_attr_float(c, "beta", 1.0f) == 1.0f;
}

/* y = alpha * sum + beta * bias, each product and the sum rounded; sum is in the type k_matmul leaves. */
static enum npuc_status gemm_finish(struct k_call *c, const struct k_tensor *sum, const struct k_tensor *bias)
{
    const float alpha = k_attr_float(c, "alpha", 1.0f), beta = k_attr_float(c, "beta", 1.0f);
    struct k_nd d = {.n = 2, .rank = 2, .dims = {sum->dims[0], sum->dims[1]}};
    const int64_t n = k_count(sum);
    struct k_tensor scaled = {0};
    if (bias) {
        int rank;
        int64_t dims[K_MAX_RANK];
        if (!k_broadcast(2, sum->dims, bias->rank, bias->dims, &rank, dims) || rank != 2 || dims[0] != sum->dims[0] ||
            dims[1] != sum->dims[1])
            return k_fail(c, NPUC_E_INVALID, "input C does not broadcast to the result");
        scaled = *sum;
        void *spread = k_scratch(c, n, dtype_size(bias->dtype));
        if (!spread || !(scaled.data = k_scratch(c, n, dtype_size(sum->dtype))))
            return k_no_memory(c);
        k_nd_dense(&d, 0);
        k_nd_broadcast(&d, 1, bias);
        k_nd_copy(d, spread, bias->data, dtype_size(bias->dtype));
        k_cast(sum->dtype, scaled.data, bias->dtype, spread, n, true);
    }
    if (dtype_is_float(sum->dtype) || alpha != 1.0f || beta != 1.0f) {
        for (int64_t i = 0; alpha != 1.0f && i < n; i++)
            k_set_f64(sum, i, (double)alpha * k_get_f64(sum, i));
        for (int64_t i = 0; bias && beta != 1.0f && i < n; i++)
            k_set_f64(&scaled, i, (double)beta * k_get_f64(&scaled, i));
    }
    if (bias) {
        const struct k_rows arg[3] = {{sum->data, n, 1}, {scaled.data, n, 1}};
        k_vec(K_FN_Add, sum->dtype, 1, n, sum->data, n, arg, NULL);
    }
    return NPUC_OK;
}
enum npuc_status k_op_gemm(struct k_call *c)
{
    if (!k_has(c, 2, 1))
        return NPUC_E_INVALID;
    const struct k_tensor *a = c->in[0], *b = c->in[1];
    const bool ta = k_attr_int(c, "transA", 0), tb = k_attr_int(c, "transB", 0);
    const enum dtype t = a->dtype;
    if (a->rank != 2 || b->rank != 2 || a->dims[ta ? 0 : 1] != b->dims[tb ? 1 : 0] || b->dtype != t ||
        dtype_size(t) == 0)
        return k_fail(c, NPUC_E_INVALID, "types or shapes do not fit");
    const int64_t m = a->dims[ta ? 1 : 0], n = b->dims[tb ? 0 : 1], k = a->dims[ta ? 0 : 1], dims[2] = {m, n};
    struct k_tensor sum = {.dtype = sum_type(t), .rank = 2, .dims = {m, n}};
    void *y = k_out(c, 0, t, 2, dims);
    if (!y)
        return k_no_memory(c);
    sum.data = dtype_size(sum.dtype) == dtype_size(t) ? y : k_scratch(c, m * n, dtype_size(sum.dtype));
    const bool starts = bias_is_start(c, &sum);
    const float *start = starts ? k_floats(c, k_in(c, 2)) : NULL;
    if (!sum.data || (starts && !start))
        return k_no_memory(c);
    k_matmul(&(struct k_matmul_args){.dtype = t,
                                     .bias = start,
                                     .m = m,
                                     .n = n,
                                     .k = k,
                                     .a = a->data,
                                     .b = b->data,
                                     .a_row = ta ? 1 : k,
                                     .a_col = ta ? m : 1,
                                     .b_row = tb ? 1 : n,
                                     .b_col = tb ? k : 1,
                                     .c = sum.data,
                                     .c_row = n},
             c->pool);
    K_TRY(gemm_finish(c, &sum, starts ? NULL : k_in(c, 2)));
    if (sum.data != y)
        k_cast(t, y, sum.dtype, sum.data, m * n, true);
    return NPUC_OK;
}

/* --- com.microsoft MatMulNBits --- */

struct nbits {
    const uint8_t *codes;
    const float *scales;
    const struct k_tensor *zero;
    const int64_t *group; /* of each column k, or NULL */
    int64_t n, k, block, blocks;
    int bits;
    enum dtype code;
};
static float zero_of(const struct nbits *q, int64_t row, int64_t block)
{
    if (!q->zero)
        return dtype_is_float(q->code) ? 0 : (float)(1 << (q->bits - 1));
    if (q->zero->dtype != DT_U8)
        return (float)k_get_f64(q->zero, row * q->blocks + block);
    const int64_t row_bytes = size_ceil_div(q->blocks * q->bits, 8), bit = block * q->bits;
    return (float)(((const uint8_t *)q->zero->data)[row * row_bytes + bit / 8] >> (bit % 8) & ((1 << q->bits) - 1));
}
static void dequant_row(const struct nbits *q, float *y, int64_t row)
{
    const int64_t bytes = q->blocks * (q->block * q->bits / 8);
    for (int64_t b = 0; b < q->blocks; b++) {
        const int64_t left = q->k - b * q->block, len = left < q->block ? left : q->block;
        if (!q->group) {
            k_dequant_block(y + b * q->block, q->codes + row * bytes, b * q->block, len, q->code,
                            q->scales[row * q->blocks + b], zero_of(q, row, b));
            continue;
        }
        for (int64_t i = b * q->block; i < b * q->block + len; i++)
            k_dequant_block(y + i, q->codes + row * bytes, i, 1, q->code, q->scales[row * q->blocks + q->group[i]],
                            zero_of(q, row, q->group[i]));
    }
}
static bool nbits_of(struct k_call *c, struct nbits *q)
{
    const int64_t prepacked = k_attr_int(c, "weight_prepacked", 0);
    *q = (struct nbits){.n = k_attr_int(c, "N", 0),
                        .k = k_attr_int(c, "K", 0),
                        .block = k_attr_int(c, "block_size", 0),
                        .bits = (int)k_attr_int(c, "bits", 4),
                        .zero = k_in(c, 3)};
    if (prepacked != 0 || q->block < 16 || (q->block & (q->block - 1))) {
        k_fail(c, NPUC_E_UNSUPPORTED, "block_size or weight_prepacked are outside of what is known");
        return false;
    }
    const int64_t code = k_attr_int(c, "code_type", 0);
    q->code = code ? dtype_from_onnx(code) : k_code_of_bits(q->bits);
    if (!k_dequant_takes(q->code) || dtype_table[q->code].bits != q->bits) {
        k_fail(c, NPUC_E_UNSUPPORTED, "bits are outside of what is known, or code_type does not fit them");
        return false;
    }
    q->blocks = size_ceil_div(q->k, q->block);
    q->codes = c->in[1]->data;
    q->scales = k_floats(c, c->in[2]);
    const int64_t zero_len = !q->zero                  ? 0
                             : q->zero->dtype == DT_U8 ? q->n * size_ceil_div(q->blocks * q->bits, 8)
                                                       : q->n * q->blocks;
    int64_t n = 0;
    if (k_in(c, 4) && k_count(k_in(c, 4)) > 0)
        q->group = k_whole(c, 4, &n);
    bool fits = k_count(c->in[1]) == q->n * q->blocks * (q->block * q->bits / 8) &&
                k_count(c->in[2]) == q->n * q->blocks && (!q->zero || k_count(q->zero) == zero_len) &&
                (!q->group || n == q->k);
    for (int64_t i = 0; fits && q->group && i < n; i++)
        fits = q->group[i] >= 0 && q->group[i] < q->blocks;
    if (!fits)
        k_fail(c, NPUC_E_INVALID, "weights, scales, zero points or g_idx do not fit N, K, block_size");
    return fits && q->scales;
}
/* Products of bytes: weights that are whole numbers, sums in i32. */
static enum npuc_status nbits_of_bytes(struct k_call *c, const struct nbits *q, const float *w)
{
    struct k_tensor y = *c->in[0];
    const int64_t m = q->k > 0 ? k_count(&y) / q->k : 0;
    int8_t *b = k_scratch(c, q->n * q->k + 1, sizeof *b);
    y.dims[y.rank - 1] = q->n;
    int32_t *sum = k_out(c, 0, DT_I32, y.rank, y.dims);
    if (!b || !sum)
        return k_no_memory(c);
    k_cast(DT_I8, b, DT_F32, w, q->n * q->k, true);
    k_matmul(&(struct k_matmul_args){.dtype = DT_I8,
                                     .m = m,
                                     .n = q->n,
                                     .k = q->k,
                                     .a = c->in[0]->data,
                                     .b = b,
                                     .a_row = q->k,
                                     .a_col = 1,
                                     .b_row = 1,
                                     .b_col = q->k,
                                     .c = sum,
                                     .c_row = q->n},
             c->pool);
    return NPUC_OK;
}
enum npuc_status k_op_mat_mul_nbits(struct k_call *c)
{
    struct nbits q;
    if (!k_has(c, 3, 1) || !nbits_of(c, &q))
        return k_no_memory(c);
    const struct k_tensor *x = c->in[0], *bias = k_in(c, 5);
    if (x->rank < 1 || x->dims[x->rank - 1] != q.k || (!dtype_is_float(x->dtype) && x->dtype != DT_I8) ||
        (bias && (k_count(bias) != q.n || x->dtype == DT_I8)))
        return k_fail(c, NPUC_E_INVALID, "input A or the bias do not fit N and K");
    struct k_tensor y = *x;
    y.dims[y.rank - 1] = q.n;
    const int64_t m = q.k > 0 ? k_count(x) / q.k : 0;
    float *a = k_floats(c, x), *w = k_scratch(c, q.n * q.k, sizeof *w), *sum = k_scratch(c, m * q.n, sizeof *sum),
          *b = NULL;
    if (!a || !w || !sum || (bias && !(b = k_floats(c, bias))))
        return k_no_memory(c);
    for (int64_t n = 0; n < q.n; n++)
        dequant_row(&q, w + n * q.k, n);
    if (x->dtype == DT_I8)
        return nbits_of_bytes(c, &q, w);
    if (x->dtype == DT_F16 || x->dtype == DT_BF16) { /* the weight that the product multiplies is of A's type */
        void *narrow = k_scratch(c, q.n * q.k, dtype_size(x->dtype));
        if (!narrow)
            return k_no_memory(c);
        k_cast(x->dtype, narrow, DT_F32, w, q.n * q.k, true);
        k_cast(DT_F32, w, x->dtype, narrow, q.n * q.k, true);
    }
    k_matmul(&(struct k_matmul_args){.dtype = DT_F32,
                                     .m = m,
                                     .n = q.n,
                                     .k = q.k,
                                     .a = a,
                                     .b = w,
                                     .a_row = q.k,
                                     .a_col = 1,
                                     .b_row = 1,
                                     .b_col = q.k,
                                     .c = sum,
                                     .c_row = q.n,
                                     .bias = b},
             c->pool);
    return k_out_floats(c, 0, k_attr_int(c, "output_dtype", 0) ? DT_F32 : x->dtype, &y, sum);
}
