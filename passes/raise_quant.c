/* Products on codes as products of what the codes stand for: QDQ form, the one that strip_codes reads.
 *
 *   %y = QLinearConv %x, %sx, %zx, %w, %sw, %zw, %sy, %zy, %b
 * becomes
 *   %f = Conv (DequantizeLinear %x, %sx, %zx), (DequantizeLinear %w, %sw, %zw), (DequantizeLinear %b, %sx * %sw)
 *   %y = QuantizeLinear %f, %sy, %zy
 * and QLinearMatMul the same without %b;
 *   %y = Mul (Cast (Add (MatMulInteger %x, %w, %zx, %zw), %c)), (Mul %sx, %sw)                    Add or not
 * becomes
 *   %y = Add (MatMul (DequantizeLinear %x, %sx, %zx), (DequantizeLinear %w, %sw, %zw)), (DequantizeLinear %c, %sx *
 * %sw) and ConvInteger the same; MatMulNBits becomes a MatMul whose weight [k, n] is dequantised in blocks along k.
 *
 * Requirements: (1) for reading recipes; no part of the pipeline, where such products stay what they are: results
 * differ by the rounding of the scaling; (2) weights, their scales and zero points are constants, all of the left
 * operand has one scale; (3) what is made is none of the operators read, so it terminates. Left alone: codes by table
 * or float, of other widths than 2, 4 and 8 bits, permuted along k. */
#include "base/size.h"
#include "ir/eval.h"
#include "passes/match.h"

/* Inputs of a product on codes; b: an int32 addend in units of sx * sw. NULL: none. */
struct parts {
    struct value *x, *sx, *zx, *w, *sw, *zw, *b;
    bool conv;
};

static bool is_one(const struct ir_ctx *cx, const struct value *v)
{
    return v && type_const_count(cx, v->type) == 1;
}

/* The constant behind a Transpose, which a Gemm of codes has for transB. */
static struct value *unturned(struct value *w)
{
    const struct node *t = match_def(w, OP_Transpose);
    return t && w->type->rank == 2 ? node_in(t, 0) : w;
}

static bool is_scale(const struct ir_ctx *cx, const struct value *sw, const struct value *zw, struct value *w)
{
    return value_const(unturned(w)) && value_const(sw) && (is_one(cx, sw) || sw->type->rank == 1) &&
           (!zw || (value_const(zw) && type_const_count(cx, zw->type) == type_const_count(cx, sw->type)));
}

/* One element as a scalar, others as they are. */
static struct value *flat(struct builder *b, struct value *v)
{
    return v && is_one(b->cx, v) && v->type->rank > 0 && !value_const(v) ? ir_reshape(b, v, 0, NULL) : v;
}

/* A constant of one element as a scalar constant: readers of scales ask for that. */
static struct value *plain(struct builder *b, struct value *v)
{
    const struct blob *data = v ? value_const(v) : NULL;
    if (!data || !is_one(b->cx, v) || v->type->rank == 0)
        return flat(b, v);
    return ir_const_blob(b, type_tensor(b->cx, v->type->dtype, 0, NULL), data);
}

static struct value *dequantized(struct builder *b, struct value *q, struct value *s, struct value *z, int64_t axis)
{
    struct value *const in[3] = {q, plain(b, s), plain(b, z)};
    if (!in[1])
        return NULL;
    struct node *n = ir_new(b, OP_DequantizeLinear, z ? 3 : 2, in, 1);
    ir_set_int(n, "axis", axis);
    return ir_infer(n) == NPUC_OK ? &n->out[0] : NULL;
}

/* The addend in floats: its codes times sx * sw, one per channel. */
static struct value *addend(struct builder *b, const struct parts *p)
{
    struct value *v = ir_cast(b, p->b, DT_F32), *sx = flat(b, ir_cast(b, p->sx, DT_F32));
    struct value *sw = plain(b, ir_cast(b, p->sw, DT_F32)), *s = sx && sw ? ir_op2(b, OP_Mul, sx, sw) : NULL;
    return v && s ? ir_op2(b, OP_Mul, v, s) : NULL;
}

/* The weight in floats: what is turned is dequantised before. */
static struct value *weight(struct builder *b, const struct parts *p)
{
    struct value *w = unturned(p->w);
    const struct attr *perm = w == p->w ? NULL : node_attr(p->w->def, "perm");
    struct value *y = dequantized(b, w, p->sw, p->zw, p->conv || w != p->w ? 0 : 1);
    return !y || w == p->w ? y : ir_transpose(b, y, perm ? perm->v.ints : (const int64_t[]){1, 0});
}

/* The product in floats. */
static struct value *product(struct builder *b, const struct node *n, const struct parts *p)
{
    struct value *x = dequantized(b, p->x, p->sx, p->zx, 1), *w = weight(b, p), *bias = NULL;
    if (!x || !w || (p->b && !(bias = addend(b, p))))
        return NULL;
    const bool row = bias && p->conv;
    struct value *const in[3] = {x, w, row ? bias : NULL};
    struct node *y = ir_new(b, p->conv ? OP_Conv : OP_MatMul, row ? 3 : 2, in, 1);
    ir_copy_attrs(y, n);
    if (ir_infer(y) != NPUC_OK)
        return NULL;
    return bias && !row ? ir_op2(b, OP_Add, &y->out[0], bias) : &y->out[0];
}

/* ---- QLinearConv, QLinearMatMul */

static enum npuc_status raise_qlinear(struct pass_ctx *px, struct node *n)
{
    const bool conv = n->op == OP_QLinearConv;
    const struct parts p = {.x = node_in(n, 0),
                            .sx = node_in(n, 1),
                            .zx = node_in(n, 2),
                            .w = node_in(n, 3),
                            .sw = node_in(n, 4),
                            .zw = node_in(n, 5),
                            .b = conv ? node_in(n, 8) : NULL,
                            .conv = conv};
    struct value *sy = node_in(n, 6), *zy = node_in(n, 7);
    if (!is_one(px->cx, p.sx) || !is_one(px->cx, sy) || !is_scale(px->cx, p.sw, p.zw, p.w) || !ir_may_rewrite(px->cx))
        return NPUC_OK;
    struct builder b = ir_at(n);
    struct value *f = product(&b, n, &p);
    struct value *const in[3] = {f, plain(&b, sy), plain(&b, zy)};
    if (!f || !in[1])
        return pass_failure(px);
    struct node *q = ir_new(&b, OP_QuantizeLinear, 3, in, 1);
    if (ir_infer(q) != NPUC_OK)
        return pass_failure(px);
    ir_replace_all(&n->out[0], &q->out[0]);
    pass_count(px, STAT_raise_quant_raised, 1);
    return NPUC_OK;
}

/* ---- MatMulInteger, ConvInteger */

/* The integer product below a cast, with what is added to it. */
static struct node *integer_of(const struct value *v, struct value **with)
{
    const struct node *cast = match_def(v, OP_Cast), *add = cast ? match_def(node_in(cast, 0), OP_Add) : NULL;
    struct node *n = cast ? node_in(cast, 0)->def : NULL;
    *with = NULL;
    for (int i = 0; add && i < 2; i++) {
        struct node *m = node_in(add, i)->def;
        if (m && (m->op == OP_MatMulInteger || m->op == OP_ConvInteger)) {
            *with = node_in(add, 1 - i);
            n = m;
        }
    }
    return n && (n->op == OP_MatMulInteger || n->op == OP_ConvInteger) ? n : NULL;
}

/* Is s the scale of the codes x? */
static bool scales(const struct value *s, const struct value *x)
{
    const struct node *q = x->def, *r = s->def;
    while (r && r->op == OP_Reshape) {
        s = node_in(r, 0);
        r = s->def;
    }
    return q && ((q->op == OP_DynamicQuantizeLinear && s == &q->out[1]) ||
                 (q->op == OP_QuantizeLinear && s == node_in(q, 1)));
}

/* y = Mul (Cast sum), (Mul sx, sw): which of the two is whose. */
static bool read_scales(struct ir_ctx *cx, const struct value *t, struct parts *p)
{
    const struct node *mul = match_def(t, OP_Mul);
    if (!mul)
        return false;
    const int x = scales(node_in(mul, 1), p->x) ? 1 : 0;
    p->sx = node_in(mul, x);
    p->sw = node_in(mul, 1 - x);
    return is_one(cx, p->sx) && (!p->zx || is_one(cx, p->zx)) && is_scale(cx, p->sw, p->zw, p->w) &&
           (!p->conv || is_one(cx, p->sw));
}

static enum npuc_status raise_integer(struct pass_ctx *px, struct node *y)
{
    struct parts p = {0};
    for (int i = 0; i < 2; i++) {
        const struct node *n = integer_of(node_in(y, i), &p.b), *ratio = match_def(node_in(y, 1 - i), OP_Div);
        if (!n)
            continue;
        p = (struct parts){.x = node_in(n, 0), .zx = node_in(n, 2), .w = node_in(n, 1), .zw = node_in(n, 3), .b = p.b};
        p.conv = n->op == OP_ConvInteger;
        if ((p.b && p.conv) || !read_scales(px->cx, ratio ? node_in(ratio, 0) : node_in(y, 1 - i), &p) ||
            !ir_may_rewrite(px->cx))
            return NPUC_OK;
        struct builder b = ir_at(y);
        b.loc = n->loc;
        struct value *f = product(&b, n, &p);
        f = f && ratio ? ir_op2(&b, OP_Div, f, node_in(ratio, 1)) : f;
        f = f ? ir_cast(&b, f, y->out[0].type->dtype) : NULL;
        if (!f)
            return pass_failure(px);
        ir_replace_all(&y->out[0], f);
        pass_count(px, STAT_raise_quant_raised, 1);
        return NPUC_OK;
    }
    return NPUC_OK;
}

/* ---- MatMulNBits */

struct nbits {
    int64_t k, n, bits, block, blocks;
    struct k_tensor codes, scales, zeros; /* zeros.data NULL: the middle code */
};

static bool read_blob(const struct pass_ctx *px, const struct value *v, struct k_tensor *out)
{
    const struct blob *data = v ? value_const(v) : NULL;
    return data && data->data && blob_tensor(px->cx, v->type, data, out);
}

static bool read_nbits(const struct pass_ctx *px, const struct node *n, struct nbits *q)
{
    *q = (struct nbits){.k = node_attr_int(n, "K", 0),
                        .n = node_attr_int(n, "N", 0),
                        .bits = node_attr_int(n, "bits", 4),
                        .block = node_attr_int(n, "block_size", 0)};
    const struct value *zero = node_in(n, 3);
    if (q->k < 1 || q->n < 1 || q->block < 1 || node_attr_int(n, "code_type", 0) || node_in(n, 4) ||
        (q->bits != 2 && q->bits != 4 && q->bits != 8) || (zero && zero->type->dtype != DT_U8))
        return false;
    q->blocks = size_ceil_div(q->k, q->block);
    return read_blob(px, node_in(n, 1), &q->codes) && read_blob(px, node_in(n, 2), &q->scales) &&
           (!zero || read_blob(px, zero, &q->zeros));
}

static int code_at(const struct k_tensor *t, int64_t at, int64_t bits)
{
    return ((const uint8_t *)t->data)[at * bits / 8] >> (at * bits % 8) & ((1 << bits) - 1);
}

/* A constant [rows][n] of `bits`: of codes (rows k) or zero points (rows blocks), which are stored [n][..]. */
static struct value *codes_constant(struct pass_ctx *px, struct builder *b, const struct nbits *q, bool zeros)
{
    const enum dtype t = q->bits == 2 ? DT_U2 : q->bits == 4 ? DT_U4 : DT_U8;
    const int64_t rows = zeros ? q->blocks : q->k, dims[2] = {rows, q->n};
    const int64_t stored = zeros ? size_ceil_div(q->blocks * q->bits, 8) * 8 / q->bits : q->blocks * q->block;
    struct k_tensor to = {.dtype = t, .rank = 2, .dims = {rows, q->n}};
    if (!dtype_bytes(t, rows * q->n, &to.size))
        return NULL;
    to.data = arena_zalloc(&px->arena, to.size + 8);
    for (int64_t c = 0; c < q->n; c++)
        for (int64_t i = 0; i < rows; i++) {
            const bool middle = zeros && !q->zeros.data;
            k_set_i64(&to, i * q->n + c,
                      middle ? 1 << (q->bits - 1) : code_at(zeros ? &q->zeros : &q->codes, c * stored + i, q->bits));
        }
    return ir_const(b, t, 2, dims, to.data, to.size);
}

static struct value *scales_constant(struct pass_ctx *px, struct builder *b, const struct nbits *q)
{
    const int64_t dims[2] = {q->blocks, q->n};
    struct k_tensor to = {.dtype = q->scales.dtype, .size = q->blocks * q->n * dtype_size(q->scales.dtype)};
    to.data = arena_zalloc(&px->arena, to.size + 8);
    for (int64_t c = 0; c < q->n; c++)
        for (int64_t i = 0; i < q->blocks; i++)
            k_set_f64(&to, i * q->n + c, k_get_f64(&q->scales, c * q->blocks + i));
    return ir_const(b, to.dtype, 2, dims, to.data, to.size);
}

static enum npuc_status raise_nbits(struct pass_ctx *px, struct node *n)
{
    struct nbits q;
    if (!read_nbits(px, n, &q) || !ir_may_rewrite(px->cx))
        return NPUC_OK;
    struct builder b = ir_at(n);
    struct value *const in[3] = {codes_constant(px, &b, &q, false), scales_constant(px, &b, &q),
                                 codes_constant(px, &b, &q, true)};
    if (!in[0] || !in[1] || !in[2])
        return pass_failure(px);
    struct node *dq = ir_new(&b, OP_DequantizeLinear, 3, in, 1);
    ir_set_int(dq, "axis", 0);
    ir_set_int(dq, "block_size", q.block);
    struct value *y = ir_infer(dq) == NPUC_OK ? ir_op2(&b, OP_MatMul, node_in(n, 0), &dq->out[0]) : NULL;
    y = y && node_in(n, 5) ? ir_op2(&b, OP_Add, y, node_in(n, 5)) : y;
    if (!y)
        return pass_failure(px);
    ir_replace_all(&n->out[0], y);
    pass_count(px, STAT_raise_quant_raised, 1);
    return NPUC_OK;
}

static const struct {
    enum op op;
    enum npuc_status (*raise)(struct pass_ctx *px, struct node *n);
} rules[] = {
    {OP_QLinearConv, raise_qlinear},
    {OP_QLinearMatMul, raise_qlinear},
    {OP_Mul, raise_integer},
    {OP_MatMulNBits, raise_nbits},
};

enum npuc_status raise_quant(struct pass_ctx *px, struct graph *g)
{
    for_each_node_safe(n, g) for (int64_t i = 0; i < NPUC_ARRAY_LEN(rules); i++)
    {
        if (rules[i].op != (enum op)n->op)
            continue;
        const struct arena_mark mark = arena_mark(&px->arena);
        const enum npuc_status s = rules[i].raise(px, n);
        arena_release(&px->arena, mark);
        if (s != NPUC_OK)
            return s;
        break;
    }
    ir_dce(g);
    return NPUC_OK;
}
