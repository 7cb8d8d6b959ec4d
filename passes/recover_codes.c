/* Products of two operands that are dequantised 8-bit floats multiply the codes instead.
 *
 *   %y = MatMul (DequantizeLinear %q, %s), (DequantizeLinear %w, %sw) : f32     (%q, %w f8e4m3fn, f8e5m2, hif8...)
 * becomes, where the matrix unit multiplies the codes,
 *   %y = Mul (ScaledMatMul %q, %w : f32), (Mul %s, %sw)
 * and elsewhere, where codes of the weight are decoded as they are loaded and those of %q before,
 *   %y = Mul (MatMulNBits (Cast %q : f16), %w2, ones {output_dtype=1} : f32), (Mul %s, %sw)
 *
 * Weights of 4 bits in groups with whole scales times a number per channel, beside an input of bytes:
 *   %y = MatMul (DequantizeLinear %q, %s), (DequantizeLinear %w, (DequantizeLinear %t, %u), %z)         (%q i8, %t u8)
 * becomes
 *   %y = Mul (Cast (MatMulNBits %q, %w2, %t2, %z2 : i32)), (Mul %s, %u)
 * where codes less zero points times whole scales are bytes: their sums are exact.
 *
 * f16 holds every number of these types, so both have the same sums, bit for bit. A scale per row of %q is multiplied
 * last, a bias added behind.
 * Requirements: (1) the weight's scales are one or one per output channel, the others one or one per row, of a type
 * with a fraction; powers of two in blocks belong to recover_scaled; (2) the sums of codes are exact products, added in
 * f32: the result differs from that of the dequantised operands by rounding, so nothing is done under --strict; (3) the
 * target takes what is made, else the nodes stay; (4) runs before recover_quant, which would keep the left operand in
 * floats; (5) what is made is no MatMul or Gemm, so it terminates. Left alone: convolutions, transposed left operands,
 * factors of a Gemm. */
#include <inttypes.h>

#include "kernels/mac.h"
#include "passes/coded.h"
#include "passes/match.h"
#include "passes/packed.h"

static bool is_code(enum dtype t)
{
    return dtype_is_float(t) && dtype_table[t].bits == 8 && t != DT_F8E8M0;
}

static bool target_takes(const struct pass_ctx *px, const struct node *n)
{
    const char *reason = NULL;
    return px->target->supports(px->target, px->cx, n, &reason);
}

/* A node that was made for nothing goes, with what only it used. */
static void take_back(struct node *n)
{
    struct value *in[6];
    const int n_in = n->n_in < 6 ? n->n_in : 6;
    for (int i = 0; i < n_in; i++)
        in[i] = node_in(n, i);
    ir_erase(n);
    for (int i = 0; i < n_in; i++)
        if (in[i] && in[i]->def && !in[i]->uses && (in[i]->def->op == OP_Constant || in[i]->def->op == OP_Cast))
            ir_erase(in[i]->def);
}

static struct node *product_of_codes(struct builder *b, const struct coded_product *p)
{
    struct node *y = ir_new(b, OP_ScaledMatMul, 2, (struct value *[]){p->x.q, p->w.q}, 1);
    ir_set_int(y, "transB", p->w.turned);
    return ir_infer(y) == NPUC_OK ? y : NULL;
}

/* The weight packed with scales of one, the left operand in f16. */
static struct node *product_of_halves(struct pass_ctx *px, struct builder *b, const struct coded_product *p)
{
    struct packed w;
    struct value *x = ir_cast(b, p->x.q, DT_F16), *codes = ir_cast(b, p->w.q, DT_F16);
    return x && codes && packed_read(px->cx, codes, p->w.turned, &w) ? packed_product(px, b, &w, x, NULL, true) : NULL;
}

static bool is_byte(enum dtype t)
{
    return t == DT_I8;
}

/* Bytes times 4-bit codes with whole scales. */
static bool match_groups(struct pass_ctx *px, const struct node *n, struct coded_product *p, struct packed *w)
{
    const bool product = n->op == OP_MatMul || n->op == OP_Gemm || n->op == OP_FusedMatMul;
    if (!product || node_attr_int(n, "transA", 0) || node_attr_int(n, "transBatchA", 0) ||
        node_attr_int(n, "transBatchB", 0) || node_attr_float(n, "alpha", 1) != 1 ||
        (n->op == OP_Gemm && node_in(n, 2) && node_attr_float(n, "beta", 1) != 1))
        return false;
    *p = (struct coded_product){0};
    if (!coded_left(px->cx, node_in(n, 0), is_byte, &p->x) || p->x.zero ||
        !packed_read(px->cx, node_in(n, 1), node_attr_int(n, "transB", 0) != 0, w) || !packed_is_bytes(w))
        return false;
    p->w.scale = w->unit;
    return true;
}

/* The product y, which may be missing for want of memory, in place of n: its scales, and what n became. */
static enum npuc_status finish(struct pass_ctx *px, struct node *n, const struct coded_product *p, struct node *y)
{
    struct builder b = ir_at(n);
    struct value *v = y ? coded_result(&b, n, p, &y->out[0]) : NULL;
    if (!v || !v->def)
        return pass_failure(px);
    pass_count(px, STAT_recover_codes_absorbed, match_replace(px, n, v->def));
    pass_count(px, STAT_recover_codes_recovered, 1);
    return NPUC_OK;
}

static enum npuc_status rewrite_groups(struct pass_ctx *px, struct node *n, const struct coded_product *p,
                                       const struct packed *w)
{
    struct builder b = ir_at(n);
    struct node *y = packed_product(px, &b, w, p->x.q, NULL, false);
    if (y && !target_takes(px, y)) {
        take_back(y);
        return NPUC_OK;
    }
    return finish(px, n, p, y);
}

static enum npuc_status rewrite(struct pass_ctx *px, struct node *n, const struct coded_product *p, int64_t *decoded)
{
    struct builder b = ir_at(n);
    const bool same = p->x.q->type->dtype == p->w.q->type->dtype && k_mac_takes_codes(p->x.q->type->dtype);
    struct node *y = same ? product_of_codes(&b, p) : NULL;
    const bool native = y && target_takes(px, y);
    if (!native) {
        if (y)
            take_back(y);
        y = product_of_halves(px, &b, p);
        if (y && !target_takes(px, y)) {
            take_back(y);
            return NPUC_OK;
        }
    }
    pass_count(px, STAT_recover_codes_decoded, !native);
    *decoded += !native;
    return finish(px, n, p, y);
}

enum npuc_status recover_codes(struct pass_ctx *px, struct graph *g)
{
    int64_t decoded = 0;
    if (px->options.strict || !px->target)
        return NPUC_OK;
    for_each_node_safe(n, g)
    {
        struct coded_product p;
        struct packed w;
        enum npuc_status s = NPUC_OK;
        if (n->op != OP_Conv && coded_match(px->cx, n, is_code, &p))
            s = ir_may_rewrite(px->cx) ? rewrite(px, n, &p, &decoded) : NPUC_OK;
        else if (match_groups(px, n, &p, &w))
            s = ir_may_rewrite(px->cx) ? rewrite_groups(px, n, &p, &w) : NPUC_OK;
        if (s != NPUC_OK)
            return s;
    }
    if (decoded > 0)
        diag_note(px->cx->diag,
                  "%s multiplies no codes of these 8-bit floats: %" PRId64
                  " products decode them to f16, weights as they are loaded",
                  px->target->name, decoded);
    return NPUC_OK;
}
