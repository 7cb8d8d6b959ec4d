/* MatMul, Gemm and FusedMatMul on the matrix unit, alone or in a Fused node with a bias row, Relu and a final Cast.
 *
 * Batch dimensions are merged where strides allow and folded into m where b does not change along them; so a projection
 * is one product whatever the rank of its input, and the query heads that share a key-value head are rows of one
 * product. */
#include "backend/matrix/mm_grouped.h"

/* The nodes of a product with its epilogue. */
struct pattern {
    const struct node *outer; /* the Fused node, or the product itself */
    const struct node *product;
    struct value *bias, *factor; /* as values outside of the region */
    struct value *result;
    bool relu;
};

static bool refuse(const char **reason, const char *why)
{
    *reason = why;
    return false;
}

static bool is_product(const struct node *n)
{
    return n->op == OP_MatMul || n->op == OP_Gemm || n->op == OP_FusedMatMul || n->op == OP_MatMulInteger ||
           n->op == OP_ScaledMatMul;
}

struct value *mm_outside(struct value *v)
{
    while (v && !v->def && v->graph->owner && v->graph->owner->op == OP_Fused)
        v = node_in(v->graph->owner, (int)v->index);
    return v;
}

/* ---- recognising the pattern ------------------------------------------------------------------------------ */

/* TransData keeps the content. */
struct value *mm_constant_of(struct value *v, bool *trans)
{
    while (v && v->def && (v->def->op == OP_TransData || weight_is_cast(v)))
        v = node_in(v->def, 0);
    if (v && v->def && v->def->op == OP_Transpose && v->type->rank == 2 && node_in(v->def, 0) &&
        value_const(node_in(v->def, 0))) {
        *trans = !*trans;
        v = node_in(v->def, 0);
    }
    return v && value_const(v) ? v : NULL;
}

static bool is_row_of(const struct value *bias, expr n)
{
    int64_t d;
    struct ir_ctx *cx = bias->graph->module->cx;
    if (bias->type->kind != TYPE_TENSOR || bias->type->rank < 1 || bias->type->layout.kind != LAYOUT_ND)
        return false;
    for (int i = 0; i < bias->type->rank - 1; i++)
        if (!expr_is_const(&cx->exprs, bias->type->dims[i], &d) || d != 1)
            return false;
    return bias->type->dims[bias->type->rank - 1] == n;
}

static bool take_add(struct pattern *p, const struct node *n, const struct value *sum)
{
    const int at = node_in(n, 0) == sum ? 1 : 0;
    struct value *b = mm_outside(node_in(n, at));
    if (p->bias || p->relu || node_in(n, 1 - at) != sum || !b || sum->type->rank < 1 ||
        !is_row_of(b, sum->type->dims[sum->type->rank - 1]))
        return false;
    p->bias = b;
    return true;
}

/* Behind a product of integers: Cast to f32, Mul by a constant row, perhaps Cast to a narrower float. */
static bool take_scaled(struct pattern *p, const struct node *n, const struct value *sum, int step)
{
    const enum dtype to = n->out[0].type->dtype;
    if (step != 2)
        return n->op == OP_Cast && node_in(n, 0) == sum && (step == 1 ? to == DT_F32 : to == DT_F16 || to == DT_BF16);
    struct value *f = n->op == OP_Mul ? mm_outside(node_in(n, node_in(n, 0) == sum ? 1 : 0)) : NULL;
    if (!f || !value_const(f) || f->type->dtype != DT_F32 || sum->type->rank < 1 ||
        !is_row_of(f, sum->type->dims[sum->type->rank - 1]))
        return false;
    p->factor = f;
    return true;
}

static bool match_scaled(struct pattern *p, const struct graph *g)
{
    struct value *last = NULL;
    int step = 0;
    for_each_node (n, g) {
        if (n->op == OP_Constant)
            continue;
        if (n->op == OP_Yield)
            return p->factor && n->n_in == 1 && node_in(n, 0) == last;
        if (step > 3 || n->n_out != 1 || (step == 0 ? n->op != OP_MatMulInteger : !take_scaled(p, n, last, step)))
            return false;
        p->product = step == 0 ? n : p->product;
        last = node_out(n, 0);
        step++;
    }
    return false;
}

/* Product, then at most Add of a row, Relu, Cast in this order, in one chain. */
static bool match_chain(struct pattern *p, const struct graph *g)
{
    struct value *last = NULL;
    bool cast = false;
    for_each_node (n, g) {
        if (n->op == OP_Constant)
            continue;
        if (n->op == OP_Yield)
            return last && n->n_in == 1 && node_in(n, 0) == last;
        if (!last ? !is_product(n) : cast || n->n_in == 0)
            return false;
        if (!last)
            p->product = n;
        else if (n->op == OP_Add) {
            if (!take_add(p, n, last))
                return false;
        } else if (n->op == OP_Relu && node_in(n, 0) == last)
            p->relu = true;
        else if (n->op == OP_Cast && node_in(n, 0) == last)
            cast = true;
        else
            return false;
        last = node_out(n, 0);
    }
    return false;
}

static bool match_pattern(const struct node *n, struct pattern *p)
{
    *p = (struct pattern){.outer = n, .product = n, .result = node_out(n, 0)};
    if (n->op == OP_Fused)
        return n->n_out == 1 &&
               node_attr_str(n, "kind", 0) != str_internz(&n->graph->module->cx->strings, MM_TAIL_KIND) &&
               node_attr_str(n, "kind", 0) != str_internz(&n->graph->module->cx->strings, MM_GROUP_KIND) &&
               (match_scaled(p, node_region(n, 0)) || match_chain(p, node_region(n, 0)));
    return is_product(n);
}

/* ---- operands --------------------------------------------------------------------------------------------- */

/* A matrix operand: rows x cols as stored, its batch sizes and strides right-aligned to the result's batch. */
struct operand {
    const struct type *type;
    int rank; /* at least 2: a vector has a dimension of 1 added */
    expr dims[IR_MAX_RANK], strides[IR_MAX_RANK];
};

static bool read_operand(struct ir_ctx *cx, const struct value *v, bool is_b, struct operand *o)
{
    *o = (struct operand){.type = v->type, .rank = v->type->rank};
    if (o->rank < 1 || !value_strides(cx, v, o->strides))
        return false;
    for (int i = 0; i < o->rank; i++)
        o->dims[i] = v->type->dims[i];
    if (o->rank == 1) {
        const expr one = expr_const(&cx->exprs, 1);
        o->dims[is_b ? 1 : 0] = one;
        o->dims[is_b ? 0 : 1] = v->type->dims[0];
        o->strides[0] = is_b ? one : v->type->dims[0];
        o->strides[1] = one;
        o->rank = 2;
    }
    return true;
}

/* Stride of an operand along a batch dimension of the result, `from_right` dims before the matrix; false when it is not
 * known whether the operand is broadcast. */
static bool batch_stride(struct ir_ctx *cx, const struct operand *o, int from_right, expr size, expr *stride)
{
    const int axis = o->rank - 3 - from_right;
    *stride = expr_const(&cx->exprs, 0);
    if (axis < 0 || expr_is_one(&cx->exprs, o->dims[axis]))
        return true;
    *stride = o->strides[axis];
    return o->dims[axis] == size;
}

/* The larger of two batch sizes under broadcasting; EXPR_INVALID when that cannot be told. */
static expr batch_size(struct ir_ctx *cx, const struct operand *a, const struct operand *b, int from_right)
{
    const int ia = a->rank - 3 - from_right, ib = b->rank - 3 - from_right;
    if (ia < 0 || expr_is_one(&cx->exprs, a->dims[ia]))
        return ib < 0 ? expr_const(&cx->exprs, 1) : b->dims[ib];
    if (ib < 0 || expr_is_one(&cx->exprs, b->dims[ib]) || a->dims[ia] == b->dims[ib])
        return a->dims[ia];
    return EXPR_INVALID;
}

void mm_drop_batch(struct mm *p, int at)
{
    p->n_batch--;
    for (int i = at; i < p->n_batch; i++) {
        p->batch[i] = p->batch[i + 1];
        p->a_batch[i] = p->a_batch[i + 1];
        p->b_batch[i] = p->b_batch[i + 1];
        p->c_batch[i] = p->c_batch[i + 1];
    }
}

/* Does dimension i continue dimension i+1 in memory? */
static bool continues(struct expr_pool *x, const expr *stride, const expr *size, int i)
{
    int64_t zero;
    if (expr_is_const(x, stride[i], &zero) && zero == 0)
        return expr_is_const(x, stride[i + 1], &zero) && zero == 0;
    return stride[i] == expr_mul(x, stride[i + 1], size[i + 1]);
}

static void merge_batch(struct expr_pool *x, struct mm *p)
{
    for (int i = p->n_batch - 2; i >= 0; i--)
        if (continues(x, p->a_batch, p->batch, i) && continues(x, p->b_batch, p->batch, i) &&
            continues(x, p->c_batch, p->batch, i)) {
            p->batch[i + 1] = expr_mul(x, p->batch[i], p->batch[i + 1]);
            mm_drop_batch(p, i);
        }
}

/* Rows of neighbouring batch members become rows of one product where b is the same for all of them. */
static void fold_rows(struct expr_pool *x, struct mm *p)
{
    int64_t zero = 1;
    const int last = p->n_batch - 1;
    if (last < 0 || p->a_trans || !expr_is_const(x, p->b_batch[last], &zero) || zero != 0)
        return;
    if (p->a_batch[last] != expr_mul(x, p->m, p->a_row) || p->c_batch[last] != expr_mul(x, p->m, p->c_row))
        return;
    p->m = expr_mul(x, p->m, p->batch[last]);
    p->n_batch--;
}

static bool read_batch(struct ir_ctx *cx, struct mm *p, const struct operand *a, const struct operand *b)
{
    struct expr_pool *x = &cx->exprs;
    const int rank = (a->rank > b->rank ? a->rank : b->rank) - 2;
    expr c_stride = expr_mul(x, p->m, p->n);
    for (int i = rank - 1; i >= 0; i--) {
        const int from_right = rank - 1 - i;
        const expr size = batch_size(cx, a, b, from_right);
        if (size == EXPR_INVALID || !batch_stride(cx, a, from_right, size, &p->a_batch[i]) ||
            !batch_stride(cx, b, from_right, size, &p->b_batch[i]))
            return false;
        p->batch[i] = size;
        p->c_batch[i] = c_stride;
        c_stride = expr_mul(x, c_stride, size);
    }
    p->n_batch = rank;
    for (int i = rank - 1; i >= 0; i--)
        if (expr_is_one(&cx->exprs, p->batch[i]))
            mm_drop_batch(p, i);
    merge_batch(x, p);
    fold_rows(x, p);
    merge_batch(x, p);
    return true;
}

/* b constant: stored with rows n, as NZ or row by row. Its batch strides are those of the stored matrices. */
static void read_weight(struct ir_ctx *cx, const struct machine *m, struct mm *p, struct operand *b, bool trans)
{
    struct expr_pool *x = &cx->exprs;
    const int r = b->rank;
    p->weight = true;
    p->weight_trans = !trans;
    expr stride = m->mac_rows
                      ? expr_mul(x, p->n, p->k)
                      : expr_mul(x, expr_align(x, p->n, 16), expr_align(x, p->k, m->c0_bytes / dtype_size(p->in)));
    for (int i = r - 3; i >= 0; i--) {
        b->strides[i] = stride;
        stride = expr_mul(x, stride, b->dims[i]);
    }
}

/* ---- match ------------------------------------------------------------------------------------------------ */

bool mm_has_mac(const struct machine *m, enum dtype t, enum dtype out)
{
    static const struct {
        enum dtype in;
        enum target_key rate;
    } types[] = {
        {DT_F32, TK_MAC_F32}, {DT_F16, TK_MAC_F16}, {DT_BF16, TK_MAC_BF16}, {DT_I8, TK_MAC_I8}, {DT_I16, TK_MAC_I16}};
    const bool is_float = out == DT_F32 || out == DT_F16 || out == DT_BF16;
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(types); i++)
        if (types[i].in == t && (dtype_is_integer(t) ? out == DT_I32 : is_float))
            return target_num(m->target, types[i].rate) > 0;
    return false;
}

/* The rate at which the unit multiplies codes with block scales. */
static enum target_key code_rate(enum dtype t)
{
    return dtype_table[t].bits == 4 ? TK_MAC_F4 : TK_MAC_F8;
}

static bool check_codes(const struct machine *m, const struct pattern *p, const char **reason)
{
    const struct node *n = p->product;
    const enum dtype a = node_in(n, 0)->type->dtype, b = node_in(n, 1)->type->dtype;
    const bool scaled = node_in(n, 2) && node_in(n, 3);
    if (m->mac_rows || !(target_num(m->target, code_rate(a)) > 0))
        return refuse(reason, "the matrix unit does not multiply this type");
    if (!scaled ? a != b || dtype_size(a) == 0 || node_in(n, 2) || node_in(n, 3)
                : dtype_table[a].bits != dtype_table[b].bits)
        return refuse(reason,
                      "the matrix unit takes two operands of one size, both with block scales or 8-bit ones without");
    if (scaled && (m->size[TS_L0A_MX] == 0 || node_attr_int(n, "block_size", 32) != 32))
        return refuse(reason, "the matrix unit takes scales of 32 codes");
    return p->result->type->layout.kind == LAYOUT_ND ? true : refuse(reason, "products are stored row by row");
}

static bool check_types(const struct machine *m, const struct pattern *p, const struct value *a, const struct value *b,
                        const char **reason)
{
    const struct value *y = p->result;
    if (!a || !b || !y || a->type->kind != TYPE_TENSOR || b->type->kind != TYPE_TENSOR || a->type->rank < 1 ||
        b->type->rank < 1)
        return refuse(reason, "operands without a known rank");
    if (p->product->op == OP_MatMulInteger && (node_in(p->product, 2) || node_in(p->product, 3)))
        return refuse(reason, "8-bit operands with zero points of a form that is not taken apart");
    if (p->product->op == OP_ScaledMatMul)
        return check_codes(m, p, reason);
    if (p->factor && m->mac_rows)
        return refuse(reason, "sums of integers are scaled by the vector unit");
    if (b->type->dtype != a->type->dtype || !mm_has_mac(m, a->type->dtype, p->factor ? DT_I32 : y->type->dtype))
        return refuse(reason,
                      "the matrix unit takes two operands of one type, f32, f16 or bf16 into floats or i8 into i32");
    if (y->type->layout.kind != LAYOUT_ND)
        return refuse(reason, "products are stored row by row");
    return true;
}

static bool check_attrs(const struct node *n, const char **reason)
{
    if (node_attr_float(n, "alpha", 1.0f) != 1.0f)
        return refuse(reason, "a product scaled by alpha other than 1");
    if (n->op == OP_Gemm && node_in(n, 2) && node_attr_float(n, "beta", 1.0f) != 1.0f)
        return refuse(reason, "Gemm with beta other than 1");
    if (node_attr_int(n, "transBatchA", 0) != 0 || node_attr_int(n, "transBatchB", 0) != 0)
        return refuse(reason, "transposed batch dimensions");
    return true;
}

bool mm_takes_bias(const struct machine *m)
{
    return m->mac_rows || m->size[TS_BT] > 0;
}

static bool take_bias(const struct machine *m, const struct pattern *p, struct mm *out, const char **reason)
{
    const int at = p->product->op == OP_Gemm ? 2 : p->product->op == OP_ScaledMatMul ? 4 : -1;
    struct value *c = at >= 0 ? mm_outside(node_in(p->product, at)) : NULL;
    if (c && p->bias)
        return refuse(reason, "two bias operands");
    out->bias = c ? c : p->bias;
    if (!out->bias)
        return true;
    if (!is_row_of(out->bias, out->n))
        return refuse(reason, "the bias is not one row of the result");
    if (out->bias->type->dtype != DT_F32 && !value_const(out->bias) && !weight_is_rounded(out->bias))
        return refuse(reason, "a computed bias must be f32");
    return mm_takes_bias(m) ? true : refuse(reason, "the target has no bias table");
}

static bool set_matrix(struct ir_ctx *cx, struct mm *p, const struct operand *a, const struct operand *b)
{
    struct expr_pool *x = &cx->exprs;
    const bool ta = p->a_trans, tb = p->b_trans;
    p->m = a->dims[a->rank - (ta ? 1 : 2)];
    p->k = a->dims[a->rank - (ta ? 2 : 1)];
    p->n = b->dims[b->rank - (tb ? 2 : 1)];
    p->a_row = a->strides[a->rank - 2];
    p->b_row = b->strides[b->rank - 2];
    p->c_row = p->n;
    return p->k == b->dims[b->rank - (tb ? 1 : 2)] || expr_is_const(x, p->k, &(int64_t){0}) ||
           expr_is_const(x, b->dims[b->rank - (tb ? 1 : 2)], &(int64_t){0});
}

/* Is the size known and whole multiple of `unit`? */
static bool divides(const struct ir_ctx *cx, int64_t unit, expr size)
{
    int64_t v;
    return expr_is_const(&cx->exprs, size, &v) && v % unit == 0;
}

/* Does the value lie in memory row by row, as its type says? */
static bool is_dense(struct ir_ctx *cx, const struct value *v)
{
    expr strides[IR_MAX_RANK], stride = expr_const(&cx->exprs, 1);
    if (!value_strides(cx, v, strides))
        return false;
    for (int i = v->type->rank - 1; i >= 0; i--) {
        if (strides[i] != stride && !expr_is_one(&cx->exprs, v->type->dims[i]))
            return false;
        stride = expr_mul(&cx->exprs, stride, v->type->dims[i]);
    }
    return true;
}

/* Scales of both operands; K and strides of codes of 4 bits become bytes. */
static bool take_scales(struct ir_ctx *cx, const struct pattern *p, struct mm *out, const char **reason)
{
    if (p->product->op != OP_ScaledMatMul || !node_in(p->product, 2))
        return true;
    out->a_scale = mm_outside(node_in(p->product, 2));
    out->b_scale = mm_outside(node_in(p->product, 3));
    out->code = out->a->type->dtype;
    out->b_code = out->b->type->dtype;
    out->block = node_attr_int(p->product, "block_size", 32);
    if (!is_dense(cx, out->a) || !is_dense(cx, out->b) || !is_dense(cx, out->a_scale) || !is_dense(cx, out->b_scale))
        return refuse(reason, "codes or scales that do not lie row by row");
    if (!divides(cx, out->block, out->k))
        return refuse(reason, "K is not known to be a multiple of the block of a scale");
    if (mm_pack(out) == 1)
        return true;
    if ((out->a_trans && !divides(cx, 2, out->m)) || (!out->b_trans && !divides(cx, 2, out->n)))
        return refuse(reason, "rows of codes are not known to begin with a byte");
    const expr two = expr_const(&cx->exprs, 2);
    expr *const halves[] = {&out->k, &out->a_row, &out->b_row};
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(halves); i++)
        *halves[i] = expr_floordiv(&cx->exprs, *halves[i], two);
    for (int i = 0; i < out->n_batch; i++) {
        out->a_batch[i] = expr_floordiv(&cx->exprs, out->a_batch[i], two);
        out->b_batch[i] = expr_floordiv(&cx->exprs, out->b_batch[i], two);
    }
    out->in = DT_U8;
    return true;
}

bool mm_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct mm *out, const char **reason)
{
    struct pattern p;
    struct operand a, b;
    if (n->op == OP_GroupedMatMul)
        return mm_match_grouped(m, cx, n, out, reason);
    if (!match_pattern(n, &p))
        return false;
    bool trans_b = node_attr_int(p.product, "transB", 0) != 0;
    struct value *va = mm_outside(node_in(p.product, 0)), *vb = mm_outside(node_in(p.product, 1));
    if (!check_types(m, &p, va, vb, reason) || !check_attrs(p.product, reason))
        return false;
    *out = (struct mm){.in = va->type->dtype,
                       .out = p.result->type->dtype,
                       .a = va,
                       .c = p.result,
                       .relu = p.relu,
                       .factor = p.factor};
    out->a_trans = node_attr_int(p.product, "transA", 0) != 0;
    const bool scaled = p.product->op == OP_ScaledMatMul && node_in(p.product, 2);
    struct value *constant = scaled ? NULL : mm_constant_of(vb, &trans_b); /* with its scales, which lie as it does */
    out->b = constant ? constant : vb;
    out->b_trans = trans_b;
    if (!read_operand(cx, va, false, &a) || !read_operand(cx, out->b, true, &b))
        return refuse(reason, "an operand in a blocked layout");
    if (!set_matrix(cx, out, &a, &b))
        return refuse(reason, "K of the two operands is not known to be equal");
    if (constant && out->b->type->rank >= 2)
        read_weight(cx, m, out, &b, trans_b);
    if (!read_batch(cx, out, &a, &b))
        return refuse(reason, "it is not known which batch dimension is broadcast");
    return take_scales(cx, &p, out, reason) && take_bias(m, &p, out, reason);
}

bool mm_is_peer(const struct ir_ctx *cx, const struct mm *p, const struct mm *q)
{
    int64_t n;
    return p->a == q->a && p->a_trans == q->a_trans && p->a_row == q->a_row && p->m == q->m && p->k == q->k &&
           p->in == q->in && p->out == q->out && p->relu == q->relu && p->weight && q->weight && !p->block &&
           !q->block && p->n_batch == 0 && q->n_batch == 0 && p->c_row == p->n && q->c_row == q->n &&
           expr_is_const(&cx->exprs, p->n, &n) && expr_is_const(&cx->exprs, q->n, &n) && n > 0;
}

/* ---- for the programs -------------------------------------------------------------------------------------- */

int32_t mm_bias_tensor(struct emit *e, const struct mm *p)
{
    if (!p->bias)
        return -1;
    if (!value_const(p->bias))
        return weight_is_rounded(p->bias) ? emit_rounded(e, p->bias) : emit_tensor(e, p->bias);
    return emit_weight(e, p->bias, p->bias->type->dtype == DT_F32 ? WF_COPY : WF_CAST, DT_F32, false);
}

int32_t mm_factor_tensor(struct emit *e, const struct mm *p)
{
    return p->factor ? emit_weight(e, p->factor, WF_COPY, DT_F32, false) : -1;
}

int32_t mm_weight_tensor(struct emit *e, const struct mm *p, enum weight_form form, bool transpose)
{
    return p->n_stack > 1 ? emit_weights(e, p->n_stack, p->stack, form, p->in, transpose)
                          : emit_weight(e, p->b, form, p->in, transpose);
}

expr mm_macs(struct emit *e, const struct mm *p)
{
    struct expr_pool *x = &e->cx->exprs;
    expr macs = expr_mul(x, p->m, expr_mul(x, p->n, p->k));
    for (int i = 0; i < p->n_batch; i++)
        macs = expr_mul(x, macs, p->batch[i]);
    for (int i = 0; i < p->n_peers; i++)
        macs = expr_add(x, macs, expr_mul(x, p->m, expr_mul(x, p->peers[i].n, p->k)));
    macs = expr_mul_const(x, macs, mm_pack(p));
    return emit_expr(e, macs);
}
