/* Move generator: operators that only rearrange elements, as strided copies of vector regions.
 *
 * Each operator is a list of copies: an iteration space, a view of the source and a view of the destination. */
#include "backend/vector/gens.h"
#include "backend/vector/rows.h"
#include "backend/vector/views.h"
#include "ir/ops/extent.h"
#include "kernels/tensor.h"

#include <math.h>

#define BEYOND     ((int64_t)1 << 40) /* elements; outside of every tensor */
#define FILL_LIMIT 0x1p24             /* integers below it are exact in f32 */

struct mover {
    enum op op;
    bool (*check)(struct ir_ctx *cx, const struct node *n, const char **reason);
    enum npuc_status (*emit)(struct emit *e, struct node *n);
};

/* One copy over `rank` dims; strides of dst and src as given. */
static enum npuc_status copy(struct emit *e, int rank, const expr *dims, const struct vr_view *dst,
                             const struct vr_view *src, const char *label)
{
    struct vr *r = ARENA_NEW(e->arena, struct vr);
    vr_init(r, e, rank, dims);
    vr_output(r, vr_input(r, src), dst);
    return vr_launch(r, "copy", label);
}

/* The storage of a value as a view over its own dimensions. */
static void own_view(struct emit *e, struct value *v, struct vr_view *out)
{
    expr strides[IR_MAX_RANK];
    bool ok = value_strides(e->cx, v, strides);
    NPUC_ASSERT(ok);
    *out =
        (struct vr_view){.tensor = emit_tensor(e, v), .dtype = v->type->dtype, .offset = expr_const(emit_pool(e), 0)};
    for (int i = 0; i < v->type->rank; i++)
        out->stride[i] = expr_is_one(&e->cx->exprs, v->type->dims[i]) ? expr_const(emit_pool(e), 0) : strides[i];
    if (v->type->rank == 0)
        out->stride[0] = expr_const(emit_pool(e), 0);
}

static const char *label_of(const struct node *n)
{
    return op_table[n->op]->name;
}

/* ---- Transpose ---- */

static enum npuc_status emit_transpose(struct emit *e, struct node *n)
{
    struct vr_view src, dst, moved;
    const struct attr *perm = node_attr(n, "perm");
    const struct type *t = n->out[0].type;
    own_view(e, node_in(n, 0), &src);
    own_view(e, &n->out[0], &dst);
    moved = src;
    for (int i = 0; i < t->rank; i++)
        moved.stride[i] = src.stride[perm ? perm->v.ints[i] : t->rank - 1 - i];
    return copy(e, t->rank, t->dims, &dst, &moved, label_of(n));
}

/* ---- Expand ---- */

/* A size that is neither one by type nor the result's is one of both when shapes are bound: a step of 0 repeats it. Any
 * other size starts outside of the operand, which the cores report. */
static void repeat_late(struct expr_pool *x, expr from, expr to, struct vr_view *src, int axis)
{
    const expr zero = expr_const(x, 0), outside = expr_const(x, BEYOND);
    const expr is_single = expr_cmp(x, EXPR_EQ, from, expr_const(x, 1)), is_whole = expr_cmp(x, EXPR_EQ, from, to);
    src->stride[axis] = expr_select(x, is_single, zero, src->stride[axis]);
    src->offset = expr_add(x, src->offset, expr_select(x, is_single, zero, expr_select(x, is_whole, zero, outside)));
}

static enum npuc_status emit_expand(struct emit *e, struct node *n)
{
    struct vr *r = ARENA_NEW(e->arena, struct vr);
    struct vr_view src, dst;
    const struct type *from = node_in(n, 0)->type, *t = n->out[0].type;
    const int lead = t->rank - from->rank;
    vr_init(r, e, t->rank, t->dims);
    if (!vr_view_of(r, node_in(n, 0), &src))
        return node_error(e->cx, n, D_UNSUPPORTED, "input has a blocked layout");
    for (int i = 0; i < from->rank; i++)
        if (from->dims[i] != t->dims[lead + i] && !expr_is_one(&e->cx->exprs, from->dims[i]))
            repeat_late(emit_pool(e), from->dims[i], t->dims[lead + i], &src, lead + i);
    own_view(e, &n->out[0], &dst);
    vr_output(r, vr_input(r, &src), &dst);
    return vr_launch(r, "copy", label_of(n));
}

static bool check_expand(struct ir_ctx *cx, const struct node *n, const char **reason)
{
    (void)cx;
    *reason = "the rank of the result is below that of the operand";
    return n->out[0].type->rank >= node_in(n, 0)->type->rank;
}

/* ---- Slice ---- */

struct slice {
    expr start[IR_MAX_RANK], step[IR_MAX_RANK];
};

/* First index on an axis: negative counts from the end, then clamped as ONNX says. */
static expr slice_start(struct expr_pool *x, expr start, expr dim, int64_t step)
{
    expr zero = expr_const(x, 0), top = step > 0 ? dim : expr_sub(x, dim, expr_const(x, 1));
    struct expr_range range = expr_range_of(x, start);
    expr from = start;
    if (range.max < 0)
        from = expr_max(x, zero, expr_add(x, start, dim));
    else if (range.min < 0)
        from = expr_select(x, expr_cmp(x, EXPR_LT, start, zero), expr_max(x, zero, expr_add(x, start, dim)), start);
    return expr_min(x, from, top);
}

/* Entries whose axes and steps are constants. */
static bool slice_of_constants(struct ir_ctx *cx, const struct node *n, struct slice *s)
{
    struct expr_pool *x = &cx->exprs;
    const struct type *t = node_in(n, 0)->type;
    struct value *starts = node_in(n, 1), *axes = node_in(n, 3), *steps = node_in(n, 4);
    int64_t count = value_n_elems(cx, starts);
    for (int i = 0; i < t->rank; i++) {
        s->start[i] = expr_const(x, 0);
        s->step[i] = expr_const(x, 1);
    }
    for (int64_t i = 0; i < count; i++) {
        int64_t axis = i, step = 1;
        if (axes && !expr_is_const(x, value_elem(cx, axes, i), &axis))
            return false;
        axis += axis < 0 ? t->rank : 0;
        if (axis < 0 || axis >= t->rank || (steps && !expr_is_const(x, value_elem(cx, steps, i), &step)))
            return false;
        expr start = value_elem(cx, starts, i);
        if (start == EXPR_INVALID || step == 0)
            return false;
        s->step[axis] = expr_const(x, step);
        s->start[axis] = slice_start(x, start, t->dims[axis], step);
    }
    return count >= 0;
}

static bool slice_of(struct ir_ctx *cx, const struct node *n, struct slice *s)
{
    const struct type *t = node_in(n, 0)->type;
    if (slice_of_constants(cx, n, s))
        return true;
    for (int i = 0; i < t->rank; i++) {
        expr start, end;
        if (!slice_entry(cx, n, t, i, &start, &end, &s->step[i]))
            return false;
        slice_extent_any(cx, t->dims[i], start, end, s->step[i], &s->start[i]);
    }
    return true;
}

static bool check_slice(struct ir_ctx *cx, const struct node *n, const char **reason)
{
    struct slice s;
    *reason = "starts, axes or steps are not known before run time";
    return slice_of(cx, n, &s);
}

static enum npuc_status emit_slice(struct emit *e, struct node *n)
{
    struct expr_pool *x = emit_pool(e);
    struct vr_view src, dst;
    struct slice s;
    const struct type *t = n->out[0].type;
    if (!slice_of(e->cx, n, &s))
        return node_error(e->cx, n, D_UNSUPPORTED, "starts, axes or steps are not known before run time");
    own_view(e, node_in(n, 0), &src);
    own_view(e, &n->out[0], &dst);
    for (int i = 0; i < t->rank; i++) {
        src.offset = expr_add(x, src.offset, expr_mul(x, s.start[i], src.stride[i]));
        src.stride[i] = expr_mul(x, src.stride[i], s.step[i]);
    }
    return copy(e, t->rank, t->dims, &dst, &src, label_of(n));
}

/* ---- Concat and Split: part k of `whole` along an axis ---- */

static int axis_of(const struct node *n, int rank)
{
    int64_t axis = node_attr_int(n, "axis", 0);
    return (int)(axis < 0 ? axis + rank : axis);
}

static enum npuc_status emit_concat(struct emit *e, struct node *n)
{
    struct expr_pool *x = emit_pool(e);
    struct vr_view dst, src;
    int axis = axis_of(n, n->out[0].type->rank);
    own_view(e, &n->out[0], &dst);
    for (int i = 0; i < n->n_in; i++) {
        struct value *v = node_in(n, i);
        enum npuc_status s = NPUC_OK;
        if (!emit_is_placed(e, v, &n->out[0])) {
            own_view(e, v, &src);
            s = copy(e, v->type->rank, v->type->dims, &dst, &src, label_of(n));
        }
        if (s != NPUC_OK)
            return s;
        dst.offset = expr_add(x, dst.offset, expr_mul(x, v->type->dims[axis], dst.stride[axis]));
    }
    return NPUC_OK;
}

static enum npuc_status emit_split(struct emit *e, struct node *n)
{
    struct expr_pool *x = emit_pool(e);
    struct vr_view dst, src;
    int axis = axis_of(n, node_in(n, 0)->type->rank);
    own_view(e, node_in(n, 0), &src);
    for (int i = 0; i < n->n_out; i++) {
        struct value *v = node_out(n, i);
        own_view(e, v, &dst);
        enum npuc_status s = copy(e, v->type->rank, v->type->dims, &dst, &src, label_of(n));
        if (s != NPUC_OK)
            return s;
        src.offset = expr_add(x, src.offset, expr_mul(x, v->type->dims[axis], src.stride[axis]));
    }
    return NPUC_OK;
}

/* ---- Tile: every axis becomes (repeat, size) ---- */

static bool check_tile(struct ir_ctx *cx, const struct node *n, const char **reason)
{
    int rank = node_in(n, 0)->type->rank;
    *reason = "repeats are not known before run time, or the rank is above 8";
    for (int i = 0; i < rank; i++)
        if (value_elem(cx, node_in(n, 1), i) == EXPR_INVALID)
            return false;
    return rank <= IR_MAX_RANK / 2;
}

static enum npuc_status emit_tile(struct emit *e, struct node *n)
{
    struct expr_pool *x = emit_pool(e);
    struct vr_view src, dst, s2, d2;
    const struct type *t = node_in(n, 0)->type;
    expr dims[IR_MAX_RANK];
    own_view(e, node_in(n, 0), &src);
    own_view(e, &n->out[0], &dst);
    s2 = src;
    d2 = dst;
    for (int i = 0; i < t->rank; i++) {
        dims[2 * i] = value_elem(e->cx, node_in(n, 1), i);
        dims[2 * i + 1] = t->dims[i];
        s2.stride[2 * i] = expr_const(x, 0);
        s2.stride[2 * i + 1] = src.stride[i];
        d2.stride[2 * i] = expr_mul(x, dst.stride[i], t->dims[i]);
        d2.stride[2 * i + 1] = dst.stride[i];
    }
    return copy(e, 2 * t->rank, dims, &d2, &s2, label_of(n));
}

/* ---- DepthToSpace, SpaceToDepth: both tensors as [n][block row][block column][depth][row][column] ---- */

/* Strides of a tensor [n][channels][rows][columns] whose channels hold a block; block_first: they count blocks first.
 */
static void depth_strides(struct expr_pool *x, const expr d[6], bool block_first, expr s[6])
{
    s[5] = expr_const(x, 1);
    s[4] = d[5];
    const expr plane = expr_mul(x, d[4], d[5]);
    s[3] = block_first ? plane : expr_mul(x, plane, expr_mul(x, d[1], d[2]));
    s[2] = block_first ? expr_mul(x, plane, d[3]) : plane;
    s[1] = expr_mul(x, s[2], d[2]);
    s[0] = expr_mul(x, plane, expr_mul(x, d[3], expr_mul(x, d[1], d[2])));
}

/* The same of the tensor whose rows and columns hold the block. */
static void space_strides(struct expr_pool *x, const expr d[6], expr s[6])
{
    const expr width = expr_mul(x, d[5], d[2]);
    s[5] = d[2];
    s[4] = expr_mul(x, width, d[1]);
    s[3] = expr_mul(x, s[4], d[4]);
    s[2] = expr_const(x, 1);
    s[1] = width;
    s[0] = expr_mul(x, s[3], d[3]);
}

static bool check_depth(struct ir_ctx *cx, const struct node *n, const char **reason)
{
    (void)cx;
    *reason = "depth and space are exchanged in dense tensors";
    return node_in(n, 0)->type->layout.kind == LAYOUT_ND;
}

static enum npuc_status emit_depth(struct emit *e, struct node *n)
{
    struct expr_pool *x = emit_pool(e);
    const bool to_space = n->op == OP_DepthToSpace;
    const struct type *deep = to_space ? node_in(n, 0)->type : n->out[0].type;
    const int64_t b = node_attr_int(n, "blocksize", 1);
    const expr block = expr_const(x, b);
    const expr dims[6] = {deep->dims[0], block,        block, expr_floordiv(x, deep->dims[1], expr_const(x, b * b)),
                          deep->dims[2], deep->dims[3]};
    struct vr_view src = {.tensor = emit_tensor(e, node_in(n, 0)), .dtype = deep->dtype, .offset = expr_const(x, 0)},
                   dst = src;
    dst.tensor = emit_tensor(e, &n->out[0]);
    const bool block_first = node_attr_str(n, "mode", 0) != str_internz(&e->cx->strings, "CRD");
    depth_strides(x, dims, block_first, to_space ? src.stride : dst.stride);
    space_strides(x, dims, to_space ? dst.stride : src.stride);
    return copy(e, 6, dims, &dst, &src, label_of(n));
}

/* ---- fills ---- */

static enum npuc_status fill(struct emit *e, struct value *v, float with, const char *label)
{
    struct vr *r = ARENA_NEW(e->arena, struct vr);
    struct vr_view dst;
    own_view(e, v, &dst);
    vr_init(r, e, v->type->rank, v->type->dims);
    vr_output(r, vr_imm(r, v->type->dtype, with), &dst);
    return vr_launch(r, "fill", label);
}

/* The fill value of ConstantOfShape: 0 when not given; false when a float immediate cannot hold it. */
static bool fill_value(struct ir_ctx *cx, const struct node *n, float *out)
{
    const struct attr *a = node_attr(n, "value");
    struct k_tensor t;
    *out = 0;
    if (!a)
        return true;
    if (!a->v.t.blob->data || !blob_tensor(cx, a->v.t.type, a->v.t.blob, &t) || k_count(&t) != 1)
        return false;
    if (!dtype_is_float(t.dtype) && !dtype_is_integer(t.dtype) && t.dtype != DT_BOOL)
        return false;
    const double v = k_get_f64(&t, 0);
    *out = (float)v;
    if (dtype_is_float(t.dtype))
        return v == 0 || (dtype_size(t.dtype) <= 4 && (isnan(v) || (double)*out == v));
    return v > -FILL_LIMIT && v < FILL_LIMIT;
}

static bool check_fill(struct ir_ctx *cx, const struct node *n, const char **reason)
{
    float v;
    *reason = "the fill value is not known before run time or needs more than 24 bits";
    return fill_value(cx, n, &v);
}

static enum npuc_status emit_fill(struct emit *e, struct node *n)
{
    float v;
    if (!fill_value(e->cx, n, &v))
        return node_error(e->cx, n, D_UNSUPPORTED, "the fill value is not known before run time");
    return fill(e, &n->out[0], v, label_of(n));
}

/* ---- CacheAppend: the new rows go behind the valid ones, or to the positions given per batch entry ---- */

static bool check_cache_append(struct ir_ctx *cx, const struct node *n, const char **reason)
{
    (void)cx;
    const struct value *at = node_in(n, 2);
    *reason = "positions must be one 32- or 64-bit integer per batch entry";
    return !at || (at->type->rank == 1 && (at->type->dtype == DT_I64 || at->type->dtype == DT_I32));
}

void view_appended(struct emit *e, struct node *n, struct vr_view *out)
{
    struct expr_pool *x = emit_pool(e);
    struct value *old = node_in(n, 0), *update = node_in(n, 1), *at = node_in(n, 2);
    const int axis = axis_of(n, old->type->rank);
    own_view(e, &n->out[0], out);
    if (at) {
        out->indexed = true;
        out->index = emit_tensor(e, at);
        out->index_dtype = at->type->dtype;
        out->index_stride = out->stride[axis];
        out->index_max = expr_sub(x, n->out[0].type->dims[axis], update->type->dims[axis]);
    } else {
        out->offset = expr_mul(x, old->type->dims[axis], out->stride[axis]);
    }
}

static enum npuc_status emit_cache_append(struct emit *e, struct node *n)
{
    struct vr_view src, dst, past;
    struct value *old = node_in(n, 0), *update = node_in(n, 1);
    own_view(e, update, &src);
    if (n->out[0].type->layout.kind != LAYOUT_CACHE) { /* not in place: the old rows first */
        own_view(e, &n->out[0], &dst);
        own_view(e, old, &past);
        enum npuc_status s = copy(e, old->type->rank, old->type->dims, &dst, &past, "CacheAppend");
        if (s != NPUC_OK)
            return s;
    }
    view_appended(e, n, &dst);
    return copy(e, update->type->rank, update->type->dims, &dst, &src, "CacheAppend");
}

static enum npuc_status emit_dense(struct emit *e, struct node *n)
{
    struct vr_view src, dst;
    own_view(e, node_in(n, 0), &src);
    own_view(e, &n->out[0], &dst);
    return copy(e, n->out[0].type->rank, n->out[0].type->dims, &dst, &src, "TransData");
}

/* Elements of less than a byte, or of more than the DMA moves at once, are copied as bytes. */
enum npuc_status vector_copy(struct emit *e, int32_t from, int32_t to, const struct type *t, bool *done)
{
    struct expr_pool *x = emit_pool(e);
    const int bits = dtype_table[t->dtype].bits;
    const bool whole = bits >= 8 && bits <= 64;
    if (t->kind != TYPE_TENSOR || t->rank < 0 || t->layout.kind != LAYOUT_ND || bits <= 0)
        return NPUC_OK;
    expr n = expr_const(x, 1);
    for (int i = 0; i < t->rank; i++)
        n = expr_mul(x, n, t->dims[i]);
    if (!whole)
        n = expr_ceildiv(x, expr_mul_const(x, n, bits), expr_const(x, 8));
    const enum dtype unit = whole ? t->dtype : DT_U8;
    struct vr_view src = {.tensor = from, .dtype = unit, .offset = expr_const(x, 0), .stride = {expr_const(x, 1)}},
                   dst = src;
    dst.tensor = to;
    *done = true;
    return copy(e, 1, &n, &dst, &src, "Identity");
}

static const struct mover movers[] = {
    {OP_Transpose, NULL, emit_transpose},
    {OP_Expand, check_expand, emit_expand},
    {OP_Slice, check_slice, emit_slice},
    {OP_Concat, NULL, emit_concat},
    {OP_Split, NULL, emit_split},
    {OP_Tile, check_tile, emit_tile},
    {OP_DepthToSpace, check_depth, emit_depth},
    {OP_SpaceToDepth, check_depth, emit_depth},
    {OP_ConstantOfShape, check_fill, emit_fill},
    {OP_CacheAppend, check_cache_append, emit_cache_append},
    {OP_TransData, NULL, emit_dense},
};

static const struct mover *find_mover(const struct node *n)
{
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(movers); i++)
        if (movers[i].op == (enum op)n->op)
            return &movers[i];
    return NULL;
}

static bool plain(struct ir_ctx *cx, const struct value *v, const char **reason)
{
    expr strides[IR_MAX_RANK];
    *reason = "elements of less than a byte, strings and blocked layouts are not moved by the DMA";
    return v->type->kind == TYPE_TENSOR && v->type->rank >= 0 && dtype_table[v->type->dtype].bits >= 8 &&
           dtype_table[v->type->dtype].bits <= 64 && value_strides(cx, v, strides);
}

bool gen_move_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    const struct mover *mv = find_mover(n);
    (void)m;
    if (!mv)
        return false;
    int data_inputs = n->op == OP_Concat ? n->n_in : n->op == OP_CacheAppend ? 2 : n->op == OP_ConstantOfShape ? 0 : 1;
    for (int i = 0; i < data_inputs; i++)
        if (!plain(cx, node_in(n, i), reason))
            return false;
    for (int i = 0; i < n->n_out; i++)
        if (!node_out(n, i) || !plain(cx, node_out(n, i), reason))
            return false;
    return !mv->check || mv->check(cx, n, reason);
}

enum npuc_status gen_move_emit(struct emit *e, struct node *n)
{
    return find_mover(n)->emit(e, n);
}
