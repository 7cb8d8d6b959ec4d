/* Data movement: transposition, depth and space, triangles, cache growth, layout conversion; the rows of the family. */
#include "ir/ops/move_priv.h"

#include <string.h>

/* ---- Transpose */

bool transpose_perm(const struct node *n, int rank, int *perm)
{
    const struct attr *a = node_attr(n, "perm");
    uint32_t seen = 0;
    for (int i = 0; i < rank; i++) {
        const int64_t p = a ? (i < a->len ? a->v.ints[i] : -1) : rank - 1 - i;
        if (p < 0 || p >= rank || (seen >> p & 1))
            return false;
        seen |= 1u << p;
        perm[i] = (int)p;
    }
    return !a || a->len == rank;
}

static enum npuc_status transpose_infer(struct ir_ctx *cx, struct node *n)
{
    const enum npuc_status s = infer_begin(cx, n);
    if (s != NPUC_OK)
        return s;
    const struct shape x = infer_shape(n, 0);
    if (x.rank < 0)
        return infer_out_unknown(cx, n, 0, infer_dtype(n, 0));
    int perm[IR_MAX_RANK];
    if (!transpose_perm(n, x.rank, perm))
        return node_error(cx, n, D_ATTRIBUTE, "attribute 'perm' is no permutation of the %d axes of input 0", x.rank);
    struct shape out = {.rank = x.rank};
    for (int i = 0; i < x.rank; i++)
        out.d[i] = x.d[perm[i]];
    return infer_out(cx, n, 0, infer_dtype(n, 0), &out);
}

/* The identity, also of axes of size 1 among each other; and two that undo each other. */
static struct value *transpose_fold(struct ir_ctx *cx, struct node *n)
{
    struct value *x = node_in(n, 0);
    int perm[IR_MAX_RANK], inner[IR_MAX_RANK];
    if (x->type->rank < 0 || !transpose_perm(n, x->type->rank, perm))
        return NULL;
    int last = -1;
    bool moved = false;
    for (int i = 0; i < x->type->rank; i++) {
        if (infer_dim_is(cx, x->type->dims[perm[i]], 1))
            continue;
        moved |= perm[i] < last;
        last = perm[i];
    }
    if (!moved && x->type == n->out[0].type)
        return x;
    if (!x->def || x->def->op != OP_Transpose || node_in(x->def, 0)->type != n->out[0].type ||
        !transpose_perm(x->def, x->type->rank, inner))
        return NULL;
    for (int i = 0; i < x->type->rank; i++)
        if (inner[perm[i]] != i)
            return NULL;
    return node_in(x->def, 0);
}

/* ---- DepthToSpace, SpaceToDepth, Trilu and others of unchanged shape */

/* Rank 4, or *x of unknown rank and the output typed. */
static enum npuc_status depth_begin(struct ir_ctx *cx, struct node *n, struct shape *x)
{
    const enum npuc_status s = infer_begin(cx, n);
    *x = infer_shape(n, 0);
    if (s == NPUC_OK && x->rank < 0) {
        const struct shape out = infer_fresh_shape(cx, n, 0, 4);
        return infer_out(cx, n, 0, infer_dtype(n, 0), &out);
    }
    return s == NPUC_OK && x->rank != 4 ? infer_rank_error(cx, n, 0, "rank 4") : s;
}

static enum npuc_status not_divisible(struct ir_ctx *cx, struct node *n, int axis)
{
    return node_error(cx, n, D_SHAPE_MISMATCH, "input 0 of type %s is not divisible on axis %d",
                      type_text(cx, n->in[0].value->type), axis);
}

static expr divided(struct ir_ctx *cx, expr d, int64_t by)
{
    int64_t c;
    if (expr_is_const(&cx->exprs, d, &c) && c % by)
        return EXPR_INVALID;
    return expr_floordiv(&cx->exprs, d, expr_const(&cx->exprs, by));
}

static enum npuc_status depth_legal(struct ir_ctx *cx, struct node *n)
{
    const int64_t b = node_attr_int(n, "blocksize", 0);
    if (b < 1 || b > 32768)
        return node_error(cx, n, D_ATTRIBUTE, "attribute 'blocksize' is %lld, expected 1..32768", (long long)b);
    return infer_attr_in(cx, n, "mode", "DCR CRD");
}

static enum npuc_status depth_to_space_infer(struct ir_ctx *cx, struct node *n)
{
    struct shape x;
    enum npuc_status s = depth_legal(cx, n);
    if (s == NPUC_OK)
        s = depth_begin(cx, n, &x);
    if (s != NPUC_OK || x.rank < 0)
        return s;
    const int64_t b = node_attr_int(n, "blocksize", 1);
    const expr depth = divided(cx, x.d[1], b * b);
    if (!depth)
        return not_divisible(cx, n, 1);
    const struct shape out = {
        .rank = 4, .d = {x.d[0], depth, expr_mul_const(&cx->exprs, x.d[2], b), expr_mul_const(&cx->exprs, x.d[3], b)}};
    return infer_out(cx, n, 0, infer_dtype(n, 0), &out);
}

static enum npuc_status space_to_depth_infer(struct ir_ctx *cx, struct node *n)
{
    struct shape x;
    enum npuc_status s = depth_legal(cx, n);
    if (s == NPUC_OK)
        s = depth_begin(cx, n, &x);
    if (s != NPUC_OK || x.rank < 0)
        return s;
    const int64_t b = node_attr_int(n, "blocksize", 1);
    const expr h = divided(cx, x.d[2], b), w = divided(cx, x.d[3], b);
    if (!h || !w)
        return not_divisible(cx, n, h ? 3 : 2);
    const struct shape out = {.rank = 4, .d = {x.d[0], expr_mul_const(&cx->exprs, x.d[1], b * b), h, w}};
    return infer_out(cx, n, 0, infer_dtype(n, 0), &out);
}

static enum npuc_status same_infer(struct ir_ctx *cx, struct node *n)
{
    const enum npuc_status s = infer_begin(cx, n);
    const struct shape x = infer_shape(n, 0);
    if (s != NPUC_OK)
        return s;
    return x.rank < 0 ? infer_out_unknown(cx, n, 0, infer_dtype(n, 0)) : infer_out(cx, n, 0, infer_dtype(n, 0), &x);
}

static enum npuc_status trilu_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_dtype_is(cx, n, 1, DT_I64, DT_I64);
    const int rank = infer_shape(n, 0).rank;
    if (s == NPUC_OK && (rank == 0 || rank == 1))
        return infer_rank_error(cx, n, 0, "rank 2 or more");
    return s == NPUC_OK ? same_infer(cx, n) : s;
}

/* ---- CacheAppend: rows of input 1 behind those of the cache (or at the positions of input 2), in the cache's own
 * memory. Input 3 is the number of rows of the result, at least those of the cache; without it old and new rows add up.
 */

static enum npuc_status cache_append_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_same_dtype(cx, n, 0, 1);
    if (s != NPUC_OK)
        return s;
    struct shape out = infer_shape(n, 0);
    const struct shape up = infer_shape(n, 1);
    int axis;
    if (out.rank < 0 || up.rank != out.rank)
        return infer_rank_error(cx, n, 1, "the rank of input 0");
    s = infer_axis_attr(cx, n, "axis", out.rank, &axis);
    if (s != NPUC_OK)
        return s;
    for (int i = 0; i < out.rank; i++) {
        const expr d = i == axis ? expr_add(&cx->exprs, out.d[i], up.d[i]) : infer_dim_same(cx, out.d[i], up.d[i]);
        if (!d && i != axis)
            return node_error(cx, n, D_SHAPE_MISMATCH, "input 1 has size %s on axis %d, expected %s",
                              infer_dim_text(cx, up.d[i]), i, infer_dim_text(cx, out.d[i]));
        out.d[i] = d;
    }
    if (infer_has(n, 3)) {
        const expr length = value_elem(cx, n->in[3].value, 0);
        out.d[axis] = length ? infer_max(cx, infer_shape(n, 0).d[axis], length) : infer_fresh(cx, n, 0, axis);
    }
    s = infer_out(cx, n, 0, infer_dtype(n, 0), &out);
    const int64_t capacity = node_attr_int(n, "capacity", 0);
    struct layout l = n->in[0].value->type->layout;
    if (capacity > 0)
        l = (struct layout){.kind = LAYOUT_CACHE,
                            .axis = axis,
                            .capacity = expr_const(&cx->exprs, capacity),
                            .page = l.page,
                            .ring = l.ring,
                            .window = l.window};
    if (s == NPUC_OK && l.kind == LAYOUT_CACHE)
        n->out[0].type = type_with_layout(cx, n->out[0].type, l);
    return s;
}

/* ---- TransData: the same tensor in another storage order */

static enum npuc_status trans_data_legal(struct ir_ctx *cx, struct node *n)
{
    return infer_attr_in(cx, n, "layout", "ND NZ NZ_T NC1HWC0 FRACTAL_Z NHWC");
}

static enum npuc_status trans_data_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = trans_data_legal(cx, n);
    if (s != NPUC_OK)
        return s;
    struct layout l = {.c0 = (int)node_attr_int(n, "c0", 0)};
    for (int k = 0; k < LAYOUT_CACHE; k++)
        if (infer_attr_is(cx, n, "layout", layout_words[k]))
            l.kind = (enum layout_kind)k;
    n->out[0].type = type_with_layout(cx, n->in[0].value->type, l);
    return NPUC_OK;
}

#include "ir/ops/rows.h"

#include "ir/ops/move.def"
