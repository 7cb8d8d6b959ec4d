/* Scales of blocks along the last axis as scales of rows, which vector kernels know; rounding to powers of two.
 *
 *   %q = QuantizeLinear %x, %s {axis=1, block_size=32} : f8e4m3fn[m,64]                         %s: [m,2]
 * becomes
 *   %b = Reshape %x : f32[m,2,32];  %t = Reshape %s : [m,2,1]
 *   %q = Reshape (QuantizeLinear %b, %t {axis=2, block_size=32}) : f8e4m3fn[m,64]
 * and DequantizeLinear the same; a Reshape of x to blocks or of blocks to s that is there already is taken.
 *
 *   %s = Cast %v {to=24, round_mode="down"} : f8e8m0                                              f8e8m0: 2^e
 * becomes
 *   %a = Min (Abs %v), 2^127;  %c = Max (Binade %a), 2^-127
 *   %s = Cast %c {to=24, round_mode="nearest"}                 up: of Where (Greater %a, %c), (Add %c, %c), %c
 *
 * Requirements: (1) blocks divide the axis, whose length is known, and are shorter; the operand is dense; (2) powers of
 * two are exact, so the bits are those of the kernels; saturating casts alone; (3) runs after precisions are chosen,
 * for sizes of blocks are f32, and before lower_quant, which takes the rows; (4) what is made has one scale per row or
 * rounds to nearest, so it terminates. Left alone: zero points, constants, packed codes, which have a generator. */
#include <string.h>

#include "passes/pass.h"

struct blocks {
    struct pass_ctx *px;
    struct map made; /* value id -> its Reshape to blocks, of nodes passed so far */
};

static bool is_dense(const struct value *v)
{
    return v->type->kind == TYPE_TENSOR && v->type->rank >= 1 && v->type->layout.kind == LAYOUT_ND;
}

/* Dims of x with the last axis as [blocks][block]; with one instead of the block for `of_scales`. */
static void block_dims(struct expr_pool *p, const struct type *x, int64_t k, int64_t block, bool of_scales, expr *dims)
{
    const int r = x->rank;
    memcpy(dims, x->dims, (size_t)r * sizeof *dims);
    dims[r - 1] = expr_const(p, k / block);
    dims[r] = expr_const(p, of_scales ? 1 : block);
}

static bool has_dims(const struct value *v, int rank, const expr *dims)
{
    return v->type->kind == TYPE_TENSOR && v->type->rank == rank &&
           memcmp(v->type->dims, dims, (size_t)rank * sizeof *dims) == 0;
}

/* v in those dims: what it is a Reshape of, a Reshape of it that was there, or a new one. */
static struct value *shaped(struct blocks *bl, struct builder *b, struct value *v, int rank, const expr *dims)
{
    const uint64_t *known = map_find(&bl->made, v->id);
    struct value *there = known ? (struct value *)(uintptr_t)*known : NULL;
    if (v->def && v->def->op == OP_Reshape && has_dims(node_in(v->def, 0), rank, dims))
        return node_in(v->def, 0);
    if (there && there->graph == b->graph && has_dims(there, rank, dims))
        return there;
    struct value *y = ir_reshape(b, v, rank, dims);
    if (y && !known)
        map_put(&bl->made, v->id, (uint64_t)(uintptr_t)y);
    return y;
}

/* ---- quantising and dequantising */

static bool takes_blocks(const struct ir_ctx *cx, const struct node *n, int64_t *k, int64_t *block)
{
    if (n->op != OP_QuantizeLinear && n->op != OP_DequantizeLinear)
        return false;
    const struct value *x = node_in(n, 0), *s = node_in(n, 1), *codes = n->op == OP_QuantizeLinear ? &n->out[0] : x;
    *block = node_attr_int(n, "block_size", 0);
    const int64_t axis = node_attr_int(n, "axis", 1);
    const int rank = x->type->kind == TYPE_TENSOR ? x->type->rank : -1;
    return *block > 0 && !node_in(n, 2) && !value_const(x) && is_dense(x) && is_dense(s) && s->type->rank == rank &&
           rank < IR_MAX_RANK && dtype_size(codes->type->dtype) > 0 && (axis < 0 ? axis + rank : axis) == rank - 1 &&
           expr_is_const(&cx->exprs, x->type->dims[rank - 1], k) && *k > *block && *k % *block == 0;
}

static enum npuc_status lower_rows(struct blocks *bl, struct node *n, int64_t k, int64_t block)
{
    struct builder b = ir_at(n);
    struct expr_pool *p = &bl->px->cx->exprs;
    const struct type *t = node_in(n, 0)->type;
    expr dims[IR_MAX_RANK + 1], each[IR_MAX_RANK + 1];
    block_dims(p, t, k, block, false, dims);
    block_dims(p, t, k, block, true, each);
    struct value *x = shaped(bl, &b, node_in(n, 0), t->rank + 1, dims);
    struct value *s = shaped(bl, &b, node_in(n, 1), t->rank + 1, each);
    if (!x || !s)
        return pass_failure(bl->px);
    struct node *rows = ir_new(&b, (enum op)n->op, 2, (struct value *[]){x, s}, 1);
    ir_copy_attrs(rows, n);
    ir_set_int(rows, "axis", t->rank);
    struct value *y = ir_infer(rows) == NPUC_OK ? ir_reshape(&b, &rows->out[0], t->rank, t->dims) : NULL;
    if (!y)
        return pass_failure(bl->px);
    ir_replace_all(&n->out[0], y);
    pass_count(bl->px, STAT_lower_blocks_rows, 1);
    return NPUC_OK;
}

/* ---- powers of two */

static bool takes_scales(const struct node *n)
{
    const struct value *v = n->op == OP_Cast ? node_in(n, 0) : NULL;
    const enum dtype t = v ? v->type->dtype : DT_NONE;
    return v && n->out[0].type->dtype == DT_F8E8M0 && (t == DT_F32 || t == DT_F16 || t == DT_BF16) && !value_const(v) &&
           v->type->kind == TYPE_TENSOR && node_attr_int(n, "saturate", 1) &&
           strcmp(str_text(&n->graph->module->cx->strings, node_attr_str(n, "round_mode", 0)), "nearest") != 0;
}

static struct value *two(struct builder *b, enum op op, struct value *x, struct value *y)
{
    return x && y ? ir_op2(b, op, x, y) : NULL;
}

static enum npuc_status lower_cast(struct blocks *bl, struct node *n)
{
    struct builder b = ir_at(n);
    const char *mode = str_text(&b.cx->strings, node_attr_str(n, "round_mode", 0));
    struct value *v = ir_cast(&b, node_in(n, 0), DT_F32), *size = v ? ir_op1(&b, OP_Abs, v) : NULL;
    struct value *a = size ? two(&b, OP_Min, size, ir_scalar_f32(&b, 0x1p127f)) : NULL;
    struct value *below = a ? ir_op1(&b, OP_Binade, a) : NULL;
    struct value *c = below ? two(&b, OP_Max, below, ir_scalar_f32(&b, 0x1p-127f)) : NULL;
    if (c && strcmp(mode, "down") != 0) {
        struct value *more = two(&b, OP_Greater, a, c), *twice = two(&b, OP_Add, c, c);
        c = more && twice ? ir_op3(&b, OP_Where, more, twice, c) : NULL;
    }
    if (!c)
        return pass_failure(bl->px);
    struct node *y = ir_new(&b, OP_Cast, 1, &c, 1);
    ir_copy_attrs(y, n);
    ir_set_str(y, "round_mode", "nearest");
    if (ir_infer(y) != NPUC_OK)
        return pass_failure(bl->px);
    ir_replace_all(&n->out[0], &y->out[0]);
    pass_count(bl->px, STAT_lower_blocks_scales, 1);
    return NPUC_OK;
}

enum npuc_status lower_blocks(struct pass_ctx *px, struct graph *g)
{
    struct blocks bl = {.px = px};
    map_init(&bl.made, &px->arena);
    for_each_node_safe(n, g)
    {
        int64_t k, block;
        enum npuc_status s = NPUC_OK;
        if (n->op == OP_Reshape)
            map_put(&bl.made, node_in(n, 0)->id, (uint64_t)(uintptr_t)&n->out[0]);
        else if (takes_blocks(px->cx, n, &k, &block) && ir_may_rewrite(px->cx))
            s = lower_rows(&bl, n, k, block);
        else if (takes_scales(n) && ir_may_rewrite(px->cx))
            s = lower_cast(&bl, n);
        if (s != NPUC_OK)
            return s;
    }
    return NPUC_OK;
}
