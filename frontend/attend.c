#include "frontend/attend.h"

#include <inttypes.h>

struct value *attend_split(struct builder *b, struct value *x, int64_t heads)
{
    if (!x)
        return NULL;
    const expr n = x_num(b, heads);
    const expr dims[4] = {x_dim(x, 0), x_dim(x, 1), n, expr_floordiv(&b->cx->exprs, x_dim(x, 2), n)};
    return x_transpose(b, x_reshape(b, x, 4, dims), (const int64_t[]){0, 2, 1, 3});
}

struct value *attend_join(struct builder *b, struct value *x)
{
    x = x_transpose(b, x, (const int64_t[]){0, 2, 1, 3});
    if (!x)
        return NULL;
    const expr dims[3] = {x_dim(x, 0), x_dim(x, 1), expr_mul(&b->cx->exprs, x_dim(x, 2), x_dim(x, 3))};
    return x_reshape(b, x, 3, dims);
}

bool attend_parts(struct builder *b, struct value *x, int n, const int64_t *width, struct value **out)
{
    struct node *split = x ? ir_new(b, OP_Split, 2, (struct value *[]){x, ir_const_i64(b, width, n)}, n) : NULL;
    if (!split)
        return false;
    ir_set_int(split, "axis", x->type->rank - 1);
    if (!x_out(split))
        return false;
    for (int i = 0; i < n; i++)
        out[i] = &split->out[i];
    return true;
}

struct value *attend_hidden(struct builder *b, struct value *kept, float filter)
{
    return x_op3(b, OP_Where, kept, ir_scalar_f32(b, 0.0f), ir_scalar_f32(b, filter));
}

struct value *attend_both(struct builder *b, struct value *x, struct value *y)
{
    x = x_cast(b, x, DT_F32);
    y = x_cast(b, y, DT_F32);
    return x && y ? x_op2(b, OP_Add, x, y) : x ? x : y;
}

/* kept[b, 0, 0, key] = first[b] <= key < end[b]; first may be NULL. */
static struct value *between(struct builder *b, struct value *first, struct value *end, expr total)
{
    const int64_t axes[] = {1, 2, 3};
    struct value *key = x_range(b, total);
    struct value *kept = x_op2(b, OP_Less, key, x_unsqueeze(b, x_cast(b, end, DT_I64), 3, axes));
    if (!first)
        return kept;
    first = x_unsqueeze(b, x_cast(b, first, DT_I64), 3, axes);
    return x_op2(b, OP_And, kept, x_op2(b, OP_GreaterOrEqual, key, first));
}

/* Ends per batch entry; ends and starts; or lengths and sums of lengths (3 B + 2). */
static struct value *index_mask(struct builder *b, struct value *m, expr batch, expr total)
{
    struct expr_pool *p = &b->cx->exprs;
    const expr size = x_dim(m, 0), twice = expr_mul_const(p, batch, 2), zero = x_num(b, 0);
    if (size == batch)
        return between(b, NULL, m, total);
    struct value *end = x_slice(b, m, 0, zero, batch);
    return between(b, size == twice ? x_slice(b, m, 0, batch, twice) : NULL, end, total);
}

struct value *attend_mask(struct import *im, struct onode *n, int i, expr batch, expr rows, expr total, expr past,
                          float filter)
{
    struct builder *b = &n->b;
    struct expr_pool *p = &im->cx->exprs;
    struct value *m = onode_in(n, i), *kept;
    if (m->type->rank == 1) {
        kept = index_mask(b, m, batch, total);
    } else {
        const int64_t head[] = {1}, both[] = {1, 2};
        if (m->type->rank == 4) {
            m = x_slice(b, m, 2, past, expr_add(p, past, rows));
            m = x_slice(b, m, 3, x_num(b, 0), total);
        } else {
            m = x_unsqueeze(b, m, m->type->rank == 2 ? 2 : 1, m->type->rank == 2 ? both : head);
        }
        kept = m ? x_op2(b, OP_Greater, m, ir_scalar_like(b, m, 0)) : NULL;
    }
    return attend_hidden(b, kept, filter);
}

struct value *attend_write(struct builder *b, struct value *buffer, struct value *rows, struct value *first)
{
    return x_out(x_node(b, OP_TensorScatter, 3, 3, (struct value *[]){buffer, rows, first}, 1));
}

struct value *attend(struct builder *b, struct attend *a)
{
    struct value *in[7] = {a->q, a->k, a->v, a->bias, a->past_k, a->past_v, a->valid};
    struct node *n = x_node(b, OP_Attention, 3, 7, in, a->want_scores ? 4 : 3);
    if (!n)
        return NULL;
    ir_set_int(n, "is_causal", a->causal);
    if (a->scale != 0.0f)
        ir_set_float(n, "scale", a->scale);
    ir_set_float(n, "softcap", a->softcap);
    if (a->window > 0)
        ir_set_int(n, "left_window_size", a->window - 1);
    if (a->want_scores)
        ir_set_int(n, "qk_matmul_output_mode", 3);
    struct value *y = x_out(n);
    a->keys = y ? &n->out[1] : NULL;
    a->values = y ? &n->out[2] : NULL;
    a->scores = y && a->want_scores ? &n->out[3] : NULL;
    return y;
}
