/* ScaledMatMul (npuc): op(A) op(B) of small floats with block scales along K, plus a bias row the sums start from. The
 * operands become f32, which is exact (kernels/mac.h), and the sums are those of an f32 MatMul. */
#include "kernels/mac.h"
#include "kernels/op.h"

/* One operand: rows of K after turning. */
struct side {
    const struct k_tensor *codes, *scales; /* scales may be NULL */
    bool k_last;                           /* K is the last axis as stored */
    int64_t block;
};

/* Does every row have its scales, stored as the codes are? */
static bool scales_fit(const struct side *s)
{
    const struct k_tensor *x = s->codes, *w = s->scales;
    const int axis = x->rank - (s->k_last ? 1 : 2);
    if (!w || w->rank != x->rank || w->dtype != DT_F8E8M0 || s->block < 1)
        return !w;
    for (int i = 0; i < x->rank; i++)
        if (w->dims[i] != (i == axis ? (x->dims[i] + s->block - 1) / s->block : x->dims[i]))
            return false;
    return true;
}

/* The operand as f32, its last two axes swapped if told; NULL with the error set. */
static bool widen(struct k_call *c, const struct side *s, bool swap, struct k_tensor *out)
{
    const struct k_tensor *x = s->codes;
    const int r = x->rank;
    const int64_t n = k_count(x), rows = x->dims[r - 2], cols = x->dims[r - 1];
    float *v = k_scratch(c, n, sizeof *v), *y = swap ? k_scratch(c, n, sizeof *y) : v;
    if (!v || !y)
        return false;
    k_load_f32(v, x->dtype, x->data, 0, n);
    const int64_t per_row = s->k_last ? (cols + s->block - 1) / s->block : cols;
    const int64_t per_matrix = s->k_last ? rows : (rows + s->block - 1) / s->block;
    for (int64_t i = 0; s->scales && cols > 0 && i < n / cols; i++) {
        const int64_t row = s->k_last ? i % rows : i % rows / s->block;
        const uint8_t *w = (const uint8_t *)s->scales->data + (i / rows * per_matrix + row) * per_row;
        k_scale_blocks(v + i * cols, 0, cols, w, 1, s->k_last ? s->block : 1);
    }
    *out = *x;
    out->dtype = DT_F32;
    out->data = y;
    out->size = n * (int64_t)sizeof *y;
    if (!swap)
        return true;
    out->dims[r - 2] = cols;
    out->dims[r - 1] = rows;
    for (int64_t i = 0; i < n; i++)
        y[i / (rows * cols) * rows * cols + i % cols * rows + i / cols % rows] = v[i];
    return true;
}

enum npuc_status k_op_scaled_mat_mul(struct k_call *c)
{
    if (!k_has(c, 2, 1))
        return NPUC_E_INVALID;
    const bool ta = k_attr_int(c, "transA", 0) != 0, tb = k_attr_int(c, "transB", 0) != 0;
    const int64_t block = k_attr_int(c, "block_size", 32);
    const enum dtype to = dtype_from_onnx(k_attr_int(c, "output_dtype", 1));
    const struct side a = {c->in[0], k_in(c, 2), !ta, block}, b = {c->in[1], k_in(c, 3), tb, block};
    struct k_tensor wide[2];
    if (a.codes->rank < 2 || b.codes->rank < 2 || !k_mac_takes_codes(a.codes->dtype) ||
        !k_mac_takes_codes(b.codes->dtype) || !scales_fit(&a) || !scales_fit(&b))
        return k_fail(c, NPUC_E_INVALID, "operands do not fit");
    if (!widen(c, &a, ta, &wide[0]) || !widen(c, &b, tb, &wide[1]))
        return k_no_memory(c);
    const struct k_tensor *in[3] = {&wide[0], &wide[1], k_in(c, 4)}, *const *kept = c->in;
    const int n_in = c->n_in;
    c->in = in;
    c->n_in = 3;
    const enum npuc_status s = k_op_mat_mul(c);
    c->in = kept;
    c->n_in = n_in;
    if (s != NPUC_OK || to == DT_F32)
        return s;
    const struct k_tensor sums = c->out[0];
    return k_out_floats(c, 0, to, &sums, sums.data);
}
