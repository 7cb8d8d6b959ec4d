/* Sampling, regions of interest, box selection, unique elements, small matrices: operators of vision models and their
 * kin that the host runs. Results whose length depends on the data get a symbol, bounded by what the inputs allow. */
#include "ir/ops/infer.h"

static enum npuc_status rank_is(struct ir_ctx *cx, const struct node *n, int i, int rank)
{
    static const char *const text[] = {"a scalar", "rank 1", "rank 2", "rank 3", "rank 4", "rank 5"};
    const struct shape s = infer_shape(n, i);
    return s.rank < 0 || s.rank == rank ? NPUC_OK : infer_rank_error(cx, n, i, text[rank]);
}

/* Sizes a and b of two inputs are one. */
static enum npuc_status sizes_agree(struct ir_ctx *cx, const struct node *n, int i, int axis, expr have, expr want)
{
    if (infer_dim_same(cx, have, want))
        return NPUC_OK;
    return node_error(cx, n, D_SHAPE_MISMATCH, "input %d has size %s on axis %d, expected %s", i,
                      infer_dim_text(cx, have), axis, infer_dim_text(cx, want));
}

/* Element k of the shape tensor i, or a symbol for that axis of output 0. */
static expr size_from(struct ir_ctx *cx, const struct node *n, int i, int64_t k, int axis)
{
    const expr d = value_elem(cx, n->in[i].value, k);
    return d && !(expr_range_of(&cx->exprs, d).max < 0) ? d : infer_fresh(cx, n, 0, axis);
}

/* infer_fresh of a size that is at most `limit`. */
static expr fresh_below(struct ir_ctx *cx, const struct node *n, int i, int axis, expr limit)
{
    const expr d = infer_fresh(cx, n, i, axis);
    const struct expr_node *e = &cx->exprs.nodes.data[d];
    const int64_t most = limit ? expr_range_of(&cx->exprs, limit).max : INT64_MAX;
    if (e->op != EXPR_SYM)
        return d;
    const int32_t symbol = (int32_t)e->value;
    struct expr_range r = cx->exprs.symbols.data[symbol].range;
    if (most >= r.max || most < r.min)
        return d;
    r.max = most;
    expr_symbol_narrow(&cx->exprs, symbol, r);
    return d;
}

/* ---- sampling --------------------------------------------------------------------------------------------- */

static enum npuc_status affine_grid_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_is_float(cx, n, 0);
    if (s == NPUC_OK)
        s = infer_dtype_is(cx, n, 1, DT_I64, DT_I64);
    if (s == NPUC_OK)
        s = rank_is(cx, n, 0, 3);
    if (s != NPUC_OK)
        return s;
    const struct shape theta = infer_shape(n, 0);
    int64_t len = infer_len(cx, n, 1), rows;
    if (len < 0 && theta.rank == 3 && expr_is_const(&cx->exprs, theta.d[1], &rows))
        len = rows + 2;
    if (len < 0)
        return infer_out_unknown(cx, n, 0, infer_dtype(n, 0));
    if (len != 4 && len != 5)
        return node_error(cx, n, D_SHAPE_MISMATCH, "input 1 has %lld elements, expected 4 or 5", (long long)len);
    const int axes = (int)len - 2;
    for (int i = 1; i < 3 && theta.rank == 3; i++) {
        s = sizes_agree(cx, n, 0, i, theta.d[i], expr_const(&cx->exprs, axes + i - 1));
        if (s != NPUC_OK)
            return s;
    }
    struct shape out = {.rank = axes + 2};
    out.d[0] = theta.rank == 3 ? theta.d[0] : size_from(cx, n, 1, 0, 0);
    for (int i = 0; i < axes; i++)
        out.d[i + 1] = size_from(cx, n, 1, i + 2, i + 1);
    out.d[axes + 1] = expr_const(&cx->exprs, axes);
    return infer_out(cx, n, 0, infer_dtype(n, 0), &out);
}

static void affine_grid_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    cost_bytes(cx, n, symbols, c);
    c->alu = cost_count(cx, &n->out[0], symbols) * 2 * cost_dim(cx, node_in(n, 0), 2, symbols);
}

static enum npuc_status grid_sample_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_is_float(cx, n, 1);
    if (s == NPUC_OK)
        s = infer_attr_in(cx, n, "mode", "linear nearest cubic");
    if (s == NPUC_OK)
        s = infer_attr_in(cx, n, "padding_mode", "zeros border reflection");
    if (s != NPUC_OK)
        return s;
    const struct shape x = infer_shape(n, 0), grid = infer_shape(n, 1);
    if (x.rank < 0 || grid.rank < 0)
        return infer_out_unknown(cx, n, 0, infer_dtype(n, 0));
    if (x.rank < 3)
        return infer_rank_error(cx, n, 0, "rank 3 or more");
    if (grid.rank != x.rank)
        return infer_rank_error(cx, n, 1, "the rank of input 0");
    s = sizes_agree(cx, n, 1, 0, grid.d[0], x.d[0]);
    if (s == NPUC_OK)
        s = sizes_agree(cx, n, 1, grid.rank - 1, grid.d[grid.rank - 1], expr_const(&cx->exprs, x.rank - 2));
    if (s != NPUC_OK)
        return s;
    struct shape out = {.rank = x.rank, .d = {infer_dim_same(cx, x.d[0], grid.d[0]), x.d[1]}};
    for (int i = 2; i < x.rank; i++)
        out.d[i] = grid.d[i - 1];
    return infer_out(cx, n, 0, infer_dtype(n, 0), &out);
}

/* Some ten operations for the place of a sample, four for each of its neighbours. */
static void sample_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    cost_bytes(cx, n, symbols, c);
    c->alu = cost_count(cx, &n->out[0], symbols) * 26;
}

/* X, W, offset, B, mask: the offset has the size of the result. */
static enum npuc_status deform_conv_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    for (int i = 0; i < 5 && s == NPUC_OK; i++)
        s = infer_is_float(cx, n, i);
    for (int i = 1; i < 5 && s == NPUC_OK; i++)
        s = infer_same_dtype(cx, n, 0, i);
    if (s != NPUC_OK)
        return s;
    const struct shape x = infer_shape(n, 0), w = infer_shape(n, 1), offset = infer_shape(n, 2);
    if (x.rank < 0 || w.rank < 0 || offset.rank < 0)
        return infer_out_unknown(cx, n, 0, infer_dtype(n, 0));
    if (x.rank < 3)
        return infer_rank_error(cx, n, 0, "rank 3 or more");
    for (int i = 1; i < 3; i++)
        if (infer_shape(n, i).rank != x.rank)
            return infer_rank_error(cx, n, i, "the rank of input 0");
    const int64_t groups = node_attr_int(n, "group", 1);
    if (groups < 1 || node_attr_int(n, "offset_group", 1) < 1)
        return node_error(cx, n, D_ATTRIBUTE, "attributes 'group' and 'offset_group' must be at least 1");
    const expr in = expr_mul_const(&cx->exprs, w.d[1], groups);
    if (!in || !infer_dim_same(cx, x.d[1], in))
        return node_error(cx, n, D_SHAPE_MISMATCH, "input 0 has %s channels, the weight is for %s",
                          infer_dim_text(cx, x.d[1]), infer_dim_text(cx, in));
    struct shape out = {.rank = x.rank, .d = {x.d[0], w.d[0]}};
    for (int i = 2; i < x.rank; i++)
        out.d[i] = offset.d[i];
    return infer_out(cx, n, 0, infer_dtype(n, 0), &out);
}

static void deform_conv_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    cost_bytes(cx, n, symbols, c);
    const struct value *w = node_in(n, 1);
    const double outputs = cost_count(cx, &n->out[0], symbols), channels = cost_dim(cx, w, 0, symbols);
    const double taps = channels > 0 ? cost_count(cx, w, symbols) / channels : 0;
    c->macs = outputs * taps;
    c->alu = channels > 0 ? outputs / channels * taps * 26 : 0;
}

/* ---- regions of interest ---------------------------------------------------------------------------------- */

/* X [N,C,H,W] and rois [R,columns] give [R,C,height,width]; sizes of 0 become symbols. */
static enum npuc_status roi_out(struct ir_ctx *cx, struct node *n, int columns, const expr size[2])
{
    enum npuc_status s = rank_is(cx, n, 0, 4);
    if (s == NPUC_OK)
        s = rank_is(cx, n, 1, 2);
    const struct shape x = infer_shape(n, 0), rois = infer_shape(n, 1);
    if (s == NPUC_OK && rois.rank == 2)
        s = sizes_agree(cx, n, 1, 1, rois.d[1], expr_const(&cx->exprs, columns));
    if (s != NPUC_OK)
        return s;
    struct shape out = {.rank = 4};
    out.d[0] = rois.rank == 2 ? rois.d[0] : infer_fresh(cx, n, 0, 0);
    out.d[1] = x.rank == 4 ? x.d[1] : infer_fresh(cx, n, 0, 1);
    for (int i = 0; i < 2; i++)
        out.d[2 + i] = size[i] ? size[i] : infer_fresh(cx, n, 0, 2 + i);
    return infer_out(cx, n, 0, infer_dtype(n, 0), &out);
}

static enum npuc_status roi_inputs(struct ir_ctx *cx, const struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_is_float(cx, n, 0);
    return s == NPUC_OK ? infer_same_dtype(cx, n, 0, 1) : s;
}

/* The batch index of each region: as many as there are regions. */
static enum npuc_status roi_batches(struct ir_ctx *cx, const struct node *n, enum dtype t)
{
    enum npuc_status s = infer_dtype_is(cx, n, 2, t, t);
    if (s == NPUC_OK)
        s = rank_is(cx, n, 2, 1);
    const struct shape rois = infer_shape(n, 1), at = infer_shape(n, 2);
    return s == NPUC_OK && rois.rank == 2 && at.rank == 1 ? sizes_agree(cx, n, 2, 0, at.d[0], rois.d[0]) : s;
}

static enum npuc_status roi_align_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = roi_inputs(cx, n);
    if (s == NPUC_OK)
        s = roi_batches(cx, n, DT_I64);
    if (s == NPUC_OK)
        s = infer_attr_in(cx, n, "mode", "avg max");
    if (s == NPUC_OK)
        s = infer_attr_in(cx, n, "coordinate_transformation_mode", "half_pixel output_half_pixel");
    if (s != NPUC_OK)
        return s;
    const int64_t h = node_attr_int(n, "output_height", 1), w = node_attr_int(n, "output_width", 1);
    if (h < 1 || w < 1 || h > INT32_MAX || w > INT32_MAX)
        return node_error(cx, n, D_ATTRIBUTE, "output_height and output_width must be at least 1");
    return roi_out(cx, n, 4, (const expr[]){expr_const(&cx->exprs, h), expr_const(&cx->exprs, w)});
}

static void roi_align_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    const int64_t ratio = node_attr_int(n, "sampling_ratio", 0);
    const double samples = ratio > 0 && ratio < 1 << 15 ? (double)(ratio * ratio) : 4;
    cost_bytes(cx, n, symbols, c);
    c->alu = cost_count(cx, &n->out[0], symbols) * 8 * samples;
}

static enum npuc_status max_roi_pool_infer(struct ir_ctx *cx, struct node *n)
{
    const enum npuc_status s = roi_inputs(cx, n);
    const struct attr *pooled = node_attr(n, "pooled_shape");
    if (s != NPUC_OK)
        return s;
    if (!pooled || pooled->len != 2 || pooled->v.ints[0] < 1 || pooled->v.ints[1] < 1)
        return node_error(cx, n, D_ATTRIBUTE, "attribute 'pooled_shape' must have two elements of at least 1");
    return roi_out(
        cx, n, 5, (const expr[]){expr_const(&cx->exprs, pooled->v.ints[0]), expr_const(&cx->exprs, pooled->v.ints[1])});
}

static enum npuc_status crop_and_resize_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = roi_inputs(cx, n);
    if (s == NPUC_OK)
        s = roi_batches(cx, n, DT_I32);
    if (s == NPUC_OK)
        s = infer_dtype_is(cx, n, 3, DT_I32, DT_I32);
    if (s == NPUC_OK)
        s = infer_attr_in(cx, n, "mode", "bilinear nearest");
    const int64_t len = infer_len(cx, n, 3);
    if (s != NPUC_OK)
        return s;
    if (len >= 0 && len != 2)
        return node_error(cx, n, D_SHAPE_MISMATCH, "input 3 has %lld elements, expected 2", (long long)len);
    return roi_out(cx, n, 4, (const expr[]){size_from(cx, n, 3, 0, 2), size_from(cx, n, 3, 1, 3)});
}

/* ---- selection -------------------------------------------------------------------------------------------- */

/* boxes [B,N,4], scores [B,C,N]: at most B*C*min(N, most) rows of (batch, class, box). */
static enum npuc_status non_max_suppression_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    for (int i = 0; i < 5 && s == NPUC_OK; i++)
        s = i == 2 ? infer_dtype_is(cx, n, 2, DT_I64, DT_I64) : infer_dtype_is(cx, n, i, DT_F32, DT_F32);
    for (int i = 0; i < 2 && s == NPUC_OK; i++)
        s = rank_is(cx, n, i, 3);
    const struct shape boxes = infer_shape(n, 0), scores = infer_shape(n, 1);
    if (s == NPUC_OK && boxes.rank == 3)
        s = sizes_agree(cx, n, 0, 2, boxes.d[2], expr_const(&cx->exprs, 4));
    if (s == NPUC_OK && boxes.rank == 3 && scores.rank == 3)
        s = sizes_agree(cx, n, 1, 2, scores.d[2], boxes.d[1]);
    if (s == NPUC_OK && boxes.rank == 3 && scores.rank == 3)
        s = sizes_agree(cx, n, 1, 0, scores.d[0], boxes.d[0]);
    const int64_t kind = node_attr_int(n, "center_point_box", 0);
    if (s == NPUC_OK && kind != 0 && kind != 1)
        s = node_error(cx, n, D_ATTRIBUTE, "attribute 'center_point_box' is %lld, expected 0 or 1", (long long)kind);
    if (s != NPUC_OK)
        return s;
    expr most = infer_has(n, 2) ? value_elem(cx, n->in[2].value, 0) : expr_const(&cx->exprs, 0);
    const expr zero = expr_const(&cx->exprs, 0);
    expr rows = EXPR_INVALID;
    if (scores.rank == 3) {
        most = most ? expr_min(&cx->exprs, expr_max(&cx->exprs, most, zero), scores.d[2]) : scores.d[2];
        rows = most ? expr_mul(&cx->exprs, most, scores.d[1]) : most;
        rows = rows ? expr_mul(&cx->exprs, rows, scores.d[0]) : rows;
    }
    const struct shape out = {.rank = 2, .d = {fresh_below(cx, n, 0, 0, rows), expr_const(&cx->exprs, 3)}};
    return infer_out(cx, n, 0, DT_I64, &out);
}

/* Sorting the scores, then each candidate against the selected ones of its class: some twenty in the mean. */
static void non_max_suppression_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    cost_bytes(cx, n, symbols, c);
    c->alu = cost_count(cx, node_in(n, 1), symbols) * (20 + 20 * 16);
}

static enum npuc_status unique_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    const struct shape x = infer_shape(n, 0);
    const bool flat = !node_attr(n, "axis") || node_attr(n, "axis")->kind != ATTR_INT;
    int axis = 0;
    if (s == NPUC_OK && !flat && x.rank >= 0)
        s = infer_axis_attr(cx, n, "axis", x.rank, &axis);
    if (s != NPUC_OK)
        return s;
    const expr all = x.rank < 0 ? EXPR_INVALID : flat ? infer_product(cx, x.d, x.rank) : x.d[axis];
    struct shape y = x;
    if (flat)
        y.rank = 1;
    if (y.rank < 0) {
        s = infer_out_unknown(cx, n, 0, infer_dtype(n, 0));
        y.d[axis] = infer_fresh(cx, n, infer_wants(n, 1) ? 1 : 0, 0);
    } else {
        y.d[axis] = fresh_below(cx, n, 0, axis, all);
        s = infer_out(cx, n, 0, infer_dtype(n, 0), &y);
    }
    const struct shape found = {.rank = 1, .d = {y.d[axis]}};
    const struct shape inverse = {.rank = 1, .d = {all ? all : infer_fresh(cx, n, 2, 0)}};
    for (int i = 1; i < 4 && s == NPUC_OK; i++)
        s = infer_out(cx, n, i, DT_I64, i == 2 ? &inverse : &found);
    return s;
}

/* A comparison sort: n log2(n) with 2^16 elements in mind. */
static void unique_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    cost_bytes(cx, n, symbols, c);
    c->alu = cost_count(cx, node_in(n, 0), symbols) * 16;
}

/* ---- rearrangement ---------------------------------------------------------------------------------------- */

static enum npuc_status center_crop_pad_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_dtype_is(cx, n, 1, DT_I64, DT_I32);
    struct shape out = infer_shape(n, 0);
    if (s != NPUC_OK)
        return s;
    if (out.rank < 0)
        return infer_out_unknown(cx, n, 0, infer_dtype(n, 0));
    const struct attr *axes = node_attr(n, "axes");
    const bool some = axes && axes->kind == ATTR_INTS && axes->len > 0;
    const int64_t count = some ? axes->len : out.rank, len = infer_len(cx, n, 1);
    if (count > out.rank || (len >= 0 && len != count))
        return node_error(cx, n, D_SHAPE_MISMATCH, "input 1 has %lld elements for %lld axes of rank %d", (long long)len,
                          (long long)count, out.rank);
    for (int i = 0; i < count; i++) {
        int axis;
        s = infer_axis(cx, n, "axis", some ? axes->v.ints[i] : i, out.rank, &axis);
        if (s != NPUC_OK)
            return s;
        out.d[axis] = size_from(cx, n, 1, i, axis);
    }
    return infer_out(cx, n, 0, infer_dtype(n, 0), &out);
}

/* X [N, C*block, L], image_shape, block_shape: [N, C, image]. */
static enum npuc_status col2im_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    for (int i = 1; i < 3 && s == NPUC_OK; i++)
        s = infer_dtype_is(cx, n, i, DT_I64, DT_I64);
    if (s == NPUC_OK)
        s = rank_is(cx, n, 0, 3);
    if (s != NPUC_OK)
        return s;
    const struct shape x = infer_shape(n, 0);
    const int64_t axes = infer_len(cx, n, 1), blocks = infer_len(cx, n, 2);
    const int64_t n_axes = axes >= 0 ? axes : blocks;
    if (n_axes < 0)
        return infer_out_unknown(cx, n, 0, infer_dtype(n, 0));
    if (n_axes < 1 || n_axes > IR_MAX_RANK - 2 || (blocks >= 0 && blocks != n_axes))
        return node_error(cx, n, D_SHAPE_MISMATCH, "image_shape has %lld elements, block_shape %lld", (long long)axes,
                          (long long)blocks);
    expr block = expr_const(&cx->exprs, 1);
    for (int64_t i = 0; i < n_axes && block; i++) {
        const expr e = value_elem(cx, n->in[2].value, i);
        block = e ? expr_mul(&cx->exprs, block, e) : e;
    }
    const expr channels = block && x.rank == 3 ? infer_div_exact(cx, x.d[1], block) : EXPR_INVALID;
    struct shape out = {.rank = (int)n_axes + 2};
    out.d[0] = x.rank == 3 ? x.d[0] : infer_fresh(cx, n, 0, 0);
    out.d[1] = channels ? channels : infer_fresh(cx, n, 0, 1);
    for (int i = 0; i < (int)n_axes; i++)
        out.d[i + 2] = size_from(cx, n, 1, i, i + 2);
    return infer_out(cx, n, 0, infer_dtype(n, 0), &out);
}

static void col2im_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    cost_bytes(cx, n, symbols, c);
    c->alu = cost_count(cx, node_in(n, 0), symbols) * 2;
}

/* X, indices, output_shape: without the last one, the size that the pooling had at least. */
static enum npuc_status max_unpool_infer(struct ir_ctx *cx, struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_dtype_is(cx, n, 1, DT_I64, DT_I64);
    if (s == NPUC_OK)
        s = infer_dtype_is(cx, n, 2, DT_I64, DT_I64);
    struct shape out = infer_shape(n, 0);
    if (s != NPUC_OK)
        return s;
    if (out.rank < 0)
        return infer_out_unknown(cx, n, 0, infer_dtype(n, 0));
    const struct attr *kernel = node_attr(n, "kernel_shape"), *pads = node_attr(n, "pads"),
                      *strides = node_attr(n, "strides");
    const int axes = out.rank - 2;
    if (axes < 1 || !kernel || kernel->len != axes || (pads && pads->len && pads->len != 2 * (int64_t)axes) ||
        (strides && strides->len && strides->len != axes))
        return node_error(cx, n, D_ATTRIBUTE, "kernel_shape, strides or pads do not fit input 0 of rank %d", out.rank);
    const int64_t len = infer_has(n, 2) ? infer_len(cx, n, 2) : -1;
    if (len >= 0 && len != out.rank)
        return node_error(cx, n, D_SHAPE_MISMATCH, "input 2 has %lld elements, expected %d", (long long)len, out.rank);
    for (int i = 0; i < out.rank && infer_has(n, 2); i++)
        out.d[i] = size_from(cx, n, 2, i, i);
    for (int i = 0; i < axes && !infer_has(n, 2); i++) {
        const int64_t stride = strides && strides->len ? strides->v.ints[i] : 1;
        const int64_t pad = pads && pads->len ? pads->v.ints[i] + pads->v.ints[i + axes] : 0;
        if (stride < 1 || stride > INT32_MAX || kernel->v.ints[i] < 1 || kernel->v.ints[i] > INT32_MAX || pad < 0 ||
            pad > INT32_MAX)
            return node_error(cx, n, D_ATTRIBUTE, "kernel_shape, strides or pads are out of range on axis %d", i);
        const expr steps = expr_mul_const(&cx->exprs, out.d[i + 2], stride);
        out.d[i + 2] = expr_add(&cx->exprs, steps, expr_const(&cx->exprs, kernel->v.ints[i] - stride - pad));
    }
    return infer_out(cx, n, 0, infer_dtype(n, 0), &out);
}

/* ---- small matrices, hashes ------------------------------------------------------------------------------- */

/* Input 0 is [..., M, M] of floats. */
static enum npuc_status square(struct ir_ctx *cx, const struct node *n)
{
    enum npuc_status s = infer_begin(cx, n);
    if (s == NPUC_OK)
        s = infer_is_float(cx, n, 0);
    const struct shape x = infer_shape(n, 0);
    if (s != NPUC_OK || x.rank < 0)
        return s;
    if (x.rank < 2)
        return infer_rank_error(cx, n, 0, "rank 2 or more");
    return sizes_agree(cx, n, 0, x.rank - 1, x.d[x.rank - 1], x.d[x.rank - 2]);
}

static enum npuc_status det_infer(struct ir_ctx *cx, struct node *n)
{
    const enum npuc_status s = square(cx, n);
    struct shape out = infer_shape(n, 0);
    if (s != NPUC_OK)
        return s;
    if (out.rank < 0)
        return infer_out_unknown(cx, n, 0, infer_dtype(n, 0));
    out.rank -= 2;
    return infer_out(cx, n, 0, infer_dtype(n, 0), &out);
}

static enum npuc_status inverse_infer(struct ir_ctx *cx, struct node *n)
{
    const enum npuc_status s = square(cx, n);
    return s == NPUC_OK ? infer_out_like(cx, n, 0, 0) : s;
}

static void matrix_cost(struct ir_ctx *cx, const struct node *n, const int64_t *symbols, struct cost *c)
{
    cost_bytes(cx, n, symbols, c);
    c->alu = cost_count(cx, node_in(n, 0), symbols) * cost_dim(cx, node_in(n, 0), -1, symbols) * 2;
}

static enum npuc_status murmur_hash_infer(struct ir_ctx *cx, struct node *n)
{
    const enum npuc_status s = infer_begin(cx, n);
    const enum dtype t = infer_dtype(n, 0), y = node_attr_int(n, "positive", 1) ? DT_U32 : DT_I32;
    const struct shape x = infer_shape(n, 0);
    if (s != NPUC_OK)
        return s;
    if (t != DT_STRING && dtype_table[t].bits != 32 && dtype_table[t].bits != 64)
        return node_error(cx, n, D_TYPE_MISMATCH, "input 0 has element type %s, expected 32 or 64 bits or a string",
                          dtype_table[t].name);
    return x.rank < 0 ? infer_out_unknown(cx, n, 0, y) : infer_out(cx, n, 0, y, &x);
}

#include "ir/ops/rows.h"

#include "ir/ops/vision.def"
