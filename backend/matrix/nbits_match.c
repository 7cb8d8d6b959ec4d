/* MatMulNBits: y = a x dequantised(w) + bias, w of N x K in blocks along K: what is supported, as a product. */
#include "backend/matrix/nbits.h"
#include "base/size.h"
#include "kernels/mac.h"

/* Operands; those of a product whose rows choose their matrix have an index behind the rows, and no more than zeros. */
enum { IN_A, IN_CODES, IN_SCALES, IN_ZEROS, IN_GROUP, IN_BIAS, IN_ENDS = 5 };

static bool is_grouped(const struct node *n)
{
    return n->op == OP_GroupedMatMulNBits;
}

static struct value *operand(const struct node *n, int i)
{
    if (!is_grouped(n))
        return mm_outside(node_in(n, i));
    return i == IN_A ? node_in(n, i) : i < IN_GROUP ? node_in(n, i + 1) : NULL;
}

static bool refuse(const char **reason, const char *why)
{
    *reason = why;
    return false;
}

static bool read_zeros(struct ir_ctx *cx, const struct node *n, struct nbits *q, const char **reason)
{
    const struct value *z = operand(n, IN_ZEROS);
    if (!z)
        return true;
    const bool packed = z->type->dtype == DT_U8;
    q->zero_kind = packed ? 1 : 2;
    q->zero_row = packed ? size_ceil_div(q->blocks * q->bits, 8) : q->blocks;
    if (type_const_count(cx, z->type) != q->n * q->groups * q->zero_row)
        return refuse(reason, "zero points that are not packed like the codes");
    return packed || z->type->dtype == q->scale_type ? true
                                                     : refuse(reason, "zero points of another type than the scales");
}

bool nbits_choose_tile(const struct machine *m, struct nbits_tile *t)
{
    const struct nbits *q = t->q;
    const int64_t unit = nbits_unit(q), even = size_ceil_div(q->n, m->n_vector);
    t->cols = q->k <= 2048 ? size_align(q->k, nbits_line(q)) : size_align(2048, unit);
    t->rows = 1;
    const int64_t per_row = 2 * (nbits_tile_bytes(t) + t->cols * dtype_size(q->to));
    int64_t rows = m->size[TS_UB] / per_row;
    rows = rows > even ? even : rows;
    t->rows = rows > 16 ? rows / 16 * 16 : rows;
    return rows >= 1;
}

bool nbits_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct nbits *q, const char **reason)
{
    if (n->op != OP_MatMulNBits && !is_grouped(n))
        return false;
    const struct value *a = operand(n, IN_A), *s = operand(n, IN_SCALES), *bias = operand(n, IN_BIAS);
    *q = (struct nbits){.to = a->type->dtype,
                        .out = n->out[0].type->dtype,
                        .scale_type = s->type->dtype,
                        .n = node_attr_int(n, "N", 0),
                        .k = node_attr_int(n, "K", 0),
                        .bits = node_attr_int(n, "bits", 4),
                        .block = node_attr_int(n, "block_size", 0),
                        .groups = 1};
    q->blocks = size_ceil_div(q->k, q->block);
    const int64_t code = node_attr_int(n, "code_type", 0);
    q->code = code ? dtype_from_onnx(code) : k_code_of_bits((int)q->bits);
    q->code_row = q->blocks * (q->block * q->bits / 8);
    if (is_grouped(n) && (node_attr_int(n, "sorted", 0) == 0 ||
                          !expr_is_const(&cx->exprs, operand(n, IN_CODES)->type->dims[0], &q->groups)))
        return refuse(reason, "rows that are not in the order of their matrices, or matrices of unknown number");
    if (operand(n, IN_GROUP))
        return refuse(reason, "weights with a group index (g_idx)");
    if ((q->to != DT_F32 && q->to != DT_F16 && q->to != DT_BF16 && q->to != DT_I8) || a->type->rank < 1 ||
        a->type->layout.kind != LAYOUT_ND)
        return refuse(reason, "block-quantised products take f32, f16, bf16 or i8 of known rank");
    if (dtype_size(q->scale_type) == 1 && q->zero_kind == 2)
        return refuse(reason, "zero points of the type of 8-bit scales");
    if (bias && bias->type->dtype != DT_F32 && !value_const(bias))
        return refuse(reason, "a computed bias must be f32");
    if (!mm_has_mac(m, q->to, q->out))
        return refuse(reason, "the matrix unit does not multiply this type");
    if (bias && !mm_takes_bias(m))
        return refuse(reason, "the target has no bias table");
    if (m->n_vector <= 0)
        return refuse(reason, "the target has no vector cores");
    if (q->n < 1 || q->k < 1 || !read_zeros(cx, n, q, reason))
        return false;
    struct nbits_tile t = {.q = q};
    return nbits_choose_tile(m, &t) ? true : refuse(reason, "blocks of codes that do not fit on chip");
}

struct mm nbits_product(struct emit *e, const struct nbits *q, const struct node *n)
{
    struct expr_pool *x = &e->cx->exprs;
    struct mm p = {.in = q->to,
                   .out = q->out,
                   .a = operand(n, IN_A),
                   .c = node_out(n, 0),
                   .bias = operand(n, IN_BIAS),
                   .weight = true};
    p.m = expr_const(x, 1);
    for (int i = 0; i < p.a->type->rank - 1; i++)
        p.m = expr_mul(x, p.m, p.a->type->dims[i]);
    p.n = p.b_row = p.c_row = expr_const(x, q->n);
    p.k = p.a_row = expr_const(x, q->k);
    if (is_grouped(n)) {
        p.index = node_in(n, 1);
        p.ends = node_in(n, IN_ENDS);
        p.groups = q->groups;
        p.top = node_attr_int(n, "top", 1);
        p.ranks = node_attr_int(n, "ranks", 1);
        p.all_n = q->n * q->groups;
        p.b_group = expr_const(x, q->n * (e->m->mac_rows ? q->k : e->m->c0_bytes / dtype_size(q->to)));
    }
    return p;
}

void nbits_group_tensors(struct emit *e, const struct mm *p, struct mm_tensors *t)
{
    if (p->ends) {
        t->index = emit_tensor(e, p->index);
        t->ends = emit_tensor(e, p->ends);
    }
}

void nbits_take_tensors(struct emit *e, const struct node *n, struct nbits *q)
{
    for (int32_t i = 0; i < nbits_tensor_count(q); i++)
        q->tensors[i] = emit_tensor(e, operand(n, IN_CODES + i));
}
