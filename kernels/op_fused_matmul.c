/* FusedMatMul (com.microsoft): alpha * op(A) op(B), where transA and transB swap the last two axes. The operands are
 * brought into order and handed to MatMul, so the sums are those of MatMul. */
#include "kernels/op.h"

/* t, or its copy with the last two axes swapped. */
static bool ordered(struct k_call *c, const struct k_tensor *t, bool swap, struct k_tensor *out)
{
    *out = *t;
    if (!swap || t->rank < 2)
        return true;
    struct k_nd d = {.rank = t->rank, .n = 2};
    const int r = t->rank;
    for (int i = 0; i < r; i++)
        d.dims[i] = out->dims[i] = t->dims[i >= r - 2 ? 2 * r - 3 - i : i];
    k_nd_dense(&d, 0);
    for (int i = 0; i < r; i++)
        d.stride[1][i] = k_stride(t, i >= r - 2 ? 2 * r - 3 - i : i);
    out->data = k_scratch(c, k_count(t), dtype_size(t->dtype));
    if (!out->data)
        return false;
    k_nd_copy(d, out->data, t->data, dtype_size(t->dtype));
    return true;
}

enum npuc_status k_op_fused_mat_mul(struct k_call *c)
{
    struct k_tensor a, b;
    const float alpha = k_attr_float(c, "alpha", 1.0f);
    if (!k_has(c, 2, 1))
        return k_no_memory(c);
    if (k_attr_int(c, "transBatchA", 0) != 0 || k_attr_int(c, "transBatchB", 0) != 0)
        return k_fail(c, NPUC_E_UNSUPPORTED, "transposed batch axes are not supported");
    if (!ordered(c, c->in[0], k_attr_int(c, "transA", 0) != 0, &a) ||
        !ordered(c, c->in[1], k_attr_int(c, "transB", 0) != 0, &b))
        return k_no_memory(c);
    const struct k_tensor *in[3] = {&a, &b, k_in(c, 2)}, *const *kept = c->in;
    c->in = in;
    const enum npuc_status s = k_op_mat_mul(c);
    c->in = kept;
    if (s != NPUC_OK || alpha == 1.0f)
        return s;
    for (int64_t i = 0, n = k_count(&c->out[0]); i < n; i++)
        k_set_f64(&c->out[0], i, (double)((float)k_get_f64(&c->out[0], i) * alpha));
    return NPUC_OK;
}
