/* Products of small floats that the model dequantises become scaled products, where the matrix unit has them.
 *
 *   %p = DequantizeLinear %a, %sa {axis=1, block_size=32} : f16[m,k]     (%a f8e4m3fn, f8e5m2 or f4e2m1, %sa f8e8m0)
 *   %q = DequantizeLinear %b, %sb {axis=0, block_size=32} : f16[k,n]
 *   %y = MatMul %p, %q : f16[m,n]
 * becomes
 *   %y = ScaledMatMul %a, %b, %sa, %sb {output_dtype=10} : f16[m,n]
 *
 * and operands that are Casts of 8-bit floats a ScaledMatMul without scales. Transposes of the last two axes become
 * transA, transB.
 *
 * A scaled product takes codes times powers of two as they are. So does f32; f16 and bf16 round what leaves their range
 * (a value of f8e4m3fn in f16: scales below 2^-15 lose bits, above 2^7 values can become infinite; in bf16 2^-124 and
 * 2^119), and there the scaled product is the more exact one. Strict compilation leaves what could differ.
 * Requirements: (1) both operands with scales of one block size along K, of an element type with no fraction (f8e8m0),
 * and no zero points, or both without scales; (2) the target multiplies the codes, else the nodes stay as they were;
 * (3) a bias of Gemm is one row, which the sums start from there as here; (4) a rewrite removes a product of floats, so
 * it terminates. Left alone: alpha, beta, float scales, which would have to be applied to the sums and round
 * differently. */
#include <inttypes.h>

#include "passes/match.h"

struct side {
    struct value *codes, *scales; /* scales NULL: none */
    int64_t block;
    bool trans; /* as stored */
};
struct product {
    struct side a, b;
    struct value *bias;
    enum dtype type; /* of the model's operands and result */
};

static bool is_code(const struct value *v)
{
    const enum dtype t = v->type->dtype;
    return v->type->kind == TYPE_TENSOR && v->type->rank >= 2 && (t == DT_F8E4M3FN || t == DT_F8E5M2 || t == DT_F4E2M1);
}

/* Does the Transpose swap the last two axes alone? */
static bool swaps(const struct node *t)
{
    const struct attr *perm = node_attr(t, "perm");
    const int r = t->out[0].type->rank;
    if (!perm)
        return r == 2;
    for (int i = 0; i < r; i++)
        if (perm->v.ints[i] != (i < r - 2 ? i : 2 * r - 3 - i))
            return false;
    return r >= 2;
}

static bool read_side(struct value *v, bool trans, bool is_a, struct side *s)
{
    const struct node *n;
    while ((n = match_def(v, OP_Transpose)) && swaps(n)) {
        trans = !trans;
        v = node_in(n, 0);
    }
    *s = (struct side){.trans = trans};
    n = match_def(v, OP_Cast);
    if (n) {
        s->codes = node_in(n, 0);
        return is_code(s->codes) && dtype_size(s->codes->type->dtype) > 0;
    }
    n = match_def(v, OP_DequantizeLinear);
    if (!n || node_in(n, 2) || !is_code(node_in(n, 0)) || node_in(n, 1)->type->dtype != DT_F8E8M0)
        return false;
    s->codes = node_in(n, 0);
    s->scales = node_in(n, 1);
    s->block = node_attr_int(n, "block_size", 0);
    const int rank = s->codes->type->rank;
    const int64_t axis = node_attr_int(n, "axis", 1), k_axis = rank - (trans == is_a ? 2 : 1);
    return s->block > 0 && (axis < 0 ? axis + rank : axis) == k_axis;
}

/* A bias of Gemm that is one row. */
static bool read_bias(struct ir_ctx *cx, const struct node *n, struct product *p)
{
    int64_t one;
    p->bias = n->op == OP_Gemm ? node_in(n, 2) : NULL;
    if (!p->bias)
        return true;
    const struct type *t = p->bias->type, *y = n->out[0].type;
    const bool row = t->rank == 1 || (t->rank == 2 && expr_is_const(&cx->exprs, t->dims[0], &one) && one == 1);
    return row && t->dims[t->rank - 1] == y->dims[y->rank - 1] && node_attr_float(n, "beta", 1.0f) == 1.0f;
}

static bool match(const struct pass_ctx *px, const struct node *n, struct product *p)
{
    if ((n->op != OP_MatMul && n->op != OP_Gemm && n->op != OP_FusedMatMul) ||
        node_attr_float(n, "alpha", 1.0f) != 1.0f || node_attr_int(n, "transBatchA", 0) ||
        node_attr_int(n, "transBatchB", 0) || n->out[0].type->kind != TYPE_TENSOR)
        return false;
    *p = (struct product){.type = n->out[0].type->dtype};
    if (p->type != DT_F32 && p->type != DT_F16 && p->type != DT_BF16)
        return false;
    if (!read_side(node_in(n, 0), node_attr_int(n, "transA", 0) != 0, true, &p->a) ||
        !read_side(node_in(n, 1), node_attr_int(n, "transB", 0) != 0, false, &p->b) || !read_bias(px->cx, n, p))
        return false;
    const bool exact = p->type == DT_F32 || !p->a.scales;
    return p->a.block == p->b.block && (exact || !px->options.strict);
}

static enum npuc_status rewrite(struct pass_ctx *px, struct node *n, const struct product *p, int64_t *kept)
{
    struct builder b = ir_at(n);
    struct value *in[5] = {p->a.codes, p->b.codes, p->a.scales, p->b.scales, p->bias};
    struct node *y = ir_new(&b, OP_ScaledMatMul, p->bias ? 5 : 4, in, 1);
    const char *reason = NULL;
    if (p->a.block)
        ir_set_int(y, "block_size", p->a.block);
    ir_set_int(y, "transA", p->a.trans);
    ir_set_int(y, "transB", p->b.trans);
    ir_set_int(y, "output_dtype", dtype_table[p->type].onnx);
    const enum npuc_status s = ir_infer(y);
    if (s != NPUC_OK)
        return s;
    if (!px->target->supports(px->target, px->cx, y, &reason)) {
        ir_erase(y);
        pass_count(px, STAT_recover_scaled_kept, 1);
        ++*kept;
        return NPUC_OK;
    }
    pass_count(px, STAT_recover_scaled_absorbed, match_replace(px, n, y));
    pass_count(px, STAT_recover_scaled_recovered, 1);
    return NPUC_OK;
}

enum npuc_status recover_scaled(struct pass_ctx *px, struct graph *g)
{
    int64_t kept = 0;
    if (!px->target)
        return NPUC_OK;
    for_each_node_safe(n, g)
    {
        struct product p;
        if (!match(px, n, &p) || !ir_may_rewrite(px->cx))
            continue;
        const enum npuc_status s = rewrite(px, n, &p, &kept);
        if (s != NPUC_OK)
            return s;
    }
    if (kept > 0)
        diag_note(px->cx->diag,
                  "%s multiplies no codes with block scales: %" PRId64
                  " products dequantise them, constant weights as they are loaded",
                  px->target->name, kept);
    return NPUC_OK;
}
