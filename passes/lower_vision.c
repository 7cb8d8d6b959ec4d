/* Vision operators as operators that have kernels on the cores; the bits are those of the operators' own kernels.
 *
 *   %y = CenterCropPad %x, [20, 8] {axes=[2,3]} : f32[n,3,20,8]          (%x: f32[n,3,16,16])
 * becomes
 *   %c = Slice %x, [4], [12], [3];  %y = Pad %c, [2, 0, 2, 0], , [2, 3]
 *
 *   %y = AffineGrid %theta, [n, c, h, w] : f32[n,h,w,2]
 * becomes
 *   %s = theta[:,:,0:1] * %u + theta[:,:,1:2] * %v + theta[:,:,2:3];  %y = Reshape (Transpose %s)
 *
 * where %u, %v are rows of coordinates [1,1,h*w]: an AffineGrid of a constant identity, which folding computes.
 *
 *   %y = Col2Im %x, image, block : f32[n,c,h,w]
 * becomes, for each position of the block in ascending order, its blocks spread by the strides and shifted by Pad,
 * added up
 *
 * Requirements: (1) only sizes that are known move or cut; what is cut or filled must not depend on a symbol; (2) sums
 * in f32, where operators round as the kernels do; (3) an AffineGrid of a constant stays, so it terminates; (4) no more
 * than MAX_TAPS positions and MAX_POINTS coordinates, beyond which the graph or the constant would be out of
 * proportion. Everything else is left to the host. */
#include "passes/pass.h"

#include <string.h>

enum { MAX_TAPS = 64, MAX_POINTS = 1 << 22 };

static bool constant_dim(struct pass_ctx *px, const struct value *v, int axis, int64_t *d)
{
    return expr_is_const(&px->cx->exprs, v->type->dims[axis], d);
}

/* v[from, to) on the last axes given. */
static struct value *cut(struct builder *b, struct value *v, const int64_t *from, const int64_t *to,
                         const int64_t *axes, int n)
{
    if (!v || n == 0)
        return v;
    struct value *const in[] = {v, ir_const_i64(b, from, n), ir_const_i64(b, to, n), ir_const_i64(b, axes, n)};
    struct node *slice = ir_new(b, OP_Slice, 4, in, 1);
    return ir_infer(slice) == NPUC_OK ? &slice->out[0] : NULL;
}
static struct value *cut_one(struct builder *b, struct value *v, int64_t at, int64_t axis)
{
    return cut(b, v, &at, (const int64_t[]){at + 1}, &axis, 1);
}

/* pads: before of all given axes, then behind. */
static struct value *pad(struct builder *b, struct value *v, const int64_t *pads, const int64_t *axes, int n)
{
    if (!v || n == 0)
        return v;
    struct value *const in[] = {v, ir_const_i64(b, pads, 2 * (int64_t)n), NULL, ir_const_i64(b, axes, n)};
    struct node *padded = ir_new(b, OP_Pad, 4, in, 1);
    return ir_infer(padded) == NPUC_OK ? &padded->out[0] : NULL;
}

static enum npuc_status replace(struct pass_ctx *px, struct node *n, struct value *y, enum pass_stat stat)
{
    if (!y)
        return pass_failure(px);
    NPUC_ASSERT(y->type == n->out[0].type);
    ir_replace_all(&n->out[0], y);
    pass_count(px, stat, 1);
    return NPUC_OK;
}

/* ---- CenterCropPad */

struct crop {
    int n_cut, n_pad;
    int64_t from[IR_MAX_RANK], to[IR_MAX_RANK], cut_axes[IR_MAX_RANK];
    int64_t pads[2 * IR_MAX_RANK], pad_axes[IR_MAX_RANK];
};

static bool crop_of(struct pass_ctx *px, const struct node *n, struct crop *c)
{
    const struct value *x = node_in(n, 0), *y = &n->out[0];
    int64_t before[IR_MAX_RANK], behind[IR_MAX_RANK];
    *c = (struct crop){0};
    for (int i = 0; i < y->type->rank; i++) {
        int64_t have, want;
        if (x->type->dims[i] == y->type->dims[i])
            continue;
        if (!constant_dim(px, x, i, &have) || !constant_dim(px, y, i, &want))
            return false;
        if (want < have) {
            c->from[c->n_cut] = (have - want) / 2;
            c->to[c->n_cut] = (have - want) / 2 + want;
            c->cut_axes[c->n_cut++] = i;
        } else {
            before[c->n_pad] = (want - have) / 2;
            behind[c->n_pad] = want - have - (want - have) / 2;
            c->pad_axes[c->n_pad++] = i;
        }
    }
    for (int i = 0; i < c->n_pad; i++) {
        c->pads[i] = before[i];
        c->pads[c->n_pad + i] = behind[i];
    }
    return true;
}

static enum npuc_status lower_crop(struct pass_ctx *px, struct node *n)
{
    struct crop c;
    if (n->out[0].type->rank < 0 || !crop_of(px, n, &c) || !ir_may_rewrite(px->cx))
        return NPUC_OK;
    struct builder b = ir_at(n);
    struct value *y = cut(&b, node_in(n, 0), c.from, c.to, c.cut_axes, c.n_cut);
    return replace(px, n, pad(&b, y, c.pads, c.pad_axes, c.n_pad), STAT_lower_vision_cropped);
}

/* ---- AffineGrid */

/* Coordinates [1, axes, points] of the grid as folding will compute them. */
static struct value *coordinates(struct builder *b, const struct node *n, const int64_t *size, int axes, int64_t points)
{
    float identity[12] = {0};
    int64_t whole[5] = {1, 1};
    const int64_t rows[3] = {1, axes, axes + 1}, perm[3] = {0, 2, 1};
    for (int i = 0; i < axes; i++) {
        identity[i * (axes + 1) + i] = 1;
        whole[i + 2] = size[i];
    }
    struct value *theta = ir_const(b, DT_F32, 3, rows, identity, axes * (axes + 1) * (int64_t)sizeof(float));
    struct value *const in[] = {theta, ir_const_i64(b, whole, axes + 2)};
    struct node *grid = ir_new(b, OP_AffineGrid, 2, in, 1);
    ir_set_int(grid, "align_corners", node_attr_int(n, "align_corners", 0));
    if (ir_infer(grid) != NPUC_OK)
        return NULL;
    const expr flat[3] = {expr_const(&b->cx->exprs, 1), expr_const(&b->cx->exprs, points),
                          expr_const(&b->cx->exprs, axes)};
    struct value *v = ir_reshape(b, &grid->out[0], 3, flat);
    return v ? ir_transpose(b, v, perm) : NULL;
}

/* The sum over the axes of theta's column times the coordinate, and the last column: [N, axes, points]. */
static struct value *transform(struct builder *b, struct value *theta, struct value *grid, int axes)
{
    struct value *sum = NULL;
    for (int k = 0; k < axes; k++) {
        struct value *column = cut_one(b, theta, k, 2), *row = cut_one(b, grid, k, 1);
        struct value *term = column && row ? ir_op2(b, OP_Mul, column, row) : NULL;
        sum = !term ? NULL : sum ? ir_op2(b, OP_Add, sum, term) : k == 0 ? term : NULL;
        if (!sum)
            return NULL;
    }
    struct value *shift = cut_one(b, theta, axes, 2);
    return shift ? ir_op2(b, OP_Add, sum, shift) : NULL;
}

static enum npuc_status lower_affine(struct pass_ctx *px, struct node *n)
{
    struct value *theta = node_in(n, 0), *y = &n->out[0];
    const int axes = y->type->rank - 2;
    int64_t size[3], points = 1;
    if (value_const(theta) || theta->type->dtype != DT_F32 || y->type->rank < 4 || theta->type->rank != 3)
        return NPUC_OK;
    for (int i = 0; i < axes; i++) {
        if (!constant_dim(px, y, i + 1, &size[i]) || size[i] < 1 || size[i] > MAX_POINTS / points)
            return NPUC_OK;
        points *= size[i];
    }
    if (!ir_may_rewrite(px->cx))
        return NPUC_OK;
    struct builder b = ir_at(n);
    struct value *grid = coordinates(&b, n, size, axes, points);
    struct value *v = grid ? transform(&b, theta, grid, axes) : NULL;
    v = v ? ir_transpose(&b, v, (const int64_t[]){0, 2, 1}) : NULL;
    return replace(px, n, v ? ir_reshape(&b, v, y->type->rank, y->type->dims) : NULL, STAT_lower_vision_grids);
}

/* ---- Col2Im */

struct image {
    int axes;
    int64_t size[IR_MAX_RANK], block[IR_MAX_RANK], cols[IR_MAX_RANK], stride[IR_MAX_RANK], dilation[IR_MAX_RANK],
        before[IR_MAX_RANK];
    int64_t taps;
};

static int64_t entry(const struct node *n, const char *attr, int i, int64_t otherwise)
{
    const struct attr *a = node_attr(n, attr);
    return a && a->kind == ATTR_INTS && a->len > i ? a->v.ints[i] : otherwise;
}

/* Sizes small enough that no sum of them overflows. */
static bool image_of(struct pass_ctx *px, const struct node *n, struct image *m)
{
    const struct value *x = node_in(n, 0), *y = &n->out[0];
    int64_t blocks, product = 1;
    *m = (struct image){.axes = y->type->rank - 2, .taps = 1};
    if (x->type->dtype != DT_F32 || x->type->rank != 3 || m->axes < 1 || 2 * m->axes + 2 > IR_MAX_RANK ||
        !constant_dim(px, x, 2, &blocks))
        return false;
    for (int i = 0; i < m->axes; i++) {
        const expr e = value_elem(px->cx, node_in(n, 2), i);
        m->stride[i] = entry(n, "strides", i, 1);
        m->dilation[i] = entry(n, "dilations", i, 1);
        m->before[i] = entry(n, "pads", i, 0);
        const int64_t behind = entry(n, "pads", i + m->axes, 0);
        if (!e || !expr_is_const(&px->cx->exprs, e, &m->block[i]) || !constant_dim(px, y, i + 2, &m->size[i]) ||
            m->stride[i] < 1 || m->dilation[i] < 1 || m->before[i] < 0 || behind < 0 || m->block[i] < 1 ||
            m->size[i] > 1 << 20 || m->stride[i] > 1 << 20 || m->dilation[i] > 1 << 20 || m->before[i] > 1 << 20 ||
            behind > 1 << 20 || m->block[i] > MAX_TAPS / m->taps)
            return false;
        m->taps *= m->block[i];
        const int64_t room = m->size[i] + m->before[i] + behind - m->dilation[i] * (m->block[i] - 1) - 1;
        m->cols[i] = room / m->stride[i] + 1;
        if (room < 0 || m->cols[i] > blocks / product)
            return false;
        product *= m->cols[i];
    }
    return product == blocks && expr_mul_const(&px->cx->exprs, y->type->dims[1], m->taps) == x->type->dims[1];
}

/* Blocks [N, C, cols ...] with stride - 1 zeros behind each element: [N, C, cols * stride ...]. */
static struct value *spread(struct builder *b, const struct image *m, struct value *v)
{
    expr dims[IR_MAX_RANK] = {v->type->dims[0], v->type->dims[1]}, wide[IR_MAX_RANK] = {dims[0], dims[1]};
    int64_t pads[2 * IR_MAX_RANK] = {0}, axes[IR_MAX_RANK];
    bool any = false;
    for (int i = 0; i < m->axes; i++) {
        dims[2 + 2 * i] = expr_const(&b->cx->exprs, m->cols[i]);
        dims[3 + 2 * i] = expr_const(&b->cx->exprs, 1);
        wide[2 + i] = expr_const(&b->cx->exprs, m->cols[i] * m->stride[i]);
        axes[i] = 3 + 2 * i;
        pads[m->axes + i] = m->stride[i] - 1;
        any = any || m->stride[i] > 1;
    }
    if (!any)
        return v;
    v = pad(b, ir_reshape(b, v, 2 + 2 * m->axes, dims), pads, axes, m->axes);
    return v ? ir_reshape(b, v, 2 + m->axes, wide) : NULL;
}

/* The elements that position `tap` of the block has, where they belong in the image. */
static struct value *placed(struct builder *b, const struct image *m, struct value *v, int64_t tap)
{
    int64_t pads[2 * IR_MAX_RANK], axes[IR_MAX_RANK];
    for (int i = m->axes - 1; i >= 0; i--) {
        pads[i] = tap % m->block[i] * m->dilation[i] - m->before[i];
        pads[m->axes + i] = m->size[i] - m->cols[i] * m->stride[i] - pads[i];
        axes[i] = 2 + i;
        tap /= m->block[i];
    }
    v = spread(b, m, v);
    return v ? pad(b, v, pads, axes, m->axes) : NULL;
}

static enum npuc_status lower_col2im(struct pass_ctx *px, struct node *n)
{
    struct image m;
    struct value *x = node_in(n, 0), *y = &n->out[0], *sum = NULL;
    if (y->type->rank < 3 || !image_of(px, n, &m) || !ir_may_rewrite(px->cx))
        return NPUC_OK;
    struct builder b = ir_at(n);
    expr dims[IR_MAX_RANK] = {x->type->dims[0], y->type->dims[1], expr_const(&px->cx->exprs, m.taps)};
    for (int i = 0; i < m.axes; i++)
        dims[3 + i] = expr_const(&px->cx->exprs, m.cols[i]);
    struct value *blocks = ir_reshape(&b, x, 3 + m.axes, dims);
    dims[2] = dims[1], dims[1] = dims[0]; /* without the positions: dims + 1 */
    for (int64_t tap = 0; blocks && tap < m.taps; tap++) {
        struct value *v = cut_one(&b, blocks, tap, 2);
        v = v ? ir_reshape(&b, v, 2 + m.axes, dims + 1) : NULL;
        v = v ? placed(&b, &m, v, tap) : NULL;
        sum = !v ? NULL : sum ? ir_op2(&b, OP_Add, sum, v) : ir_op2(&b, OP_Add, v, ir_scalar_like(&b, v, 0));
        if (!sum)
            return pass_failure(px);
    }
    return replace(px, n, sum, STAT_lower_vision_images);
}

static const struct lowering {
    enum op op;
    enum npuc_status (*fn)(struct pass_ctx *px, struct node *n);
} lowerings[] = {
    {OP_CenterCropPad, lower_crop},
    {OP_AffineGrid, lower_affine},
    {OP_Col2Im, lower_col2im},
};

static enum npuc_status lower_graph(struct pass_ctx *px, struct graph *g)
{
    for_each_node_safe(n, g) for (int64_t i = 0; i < NPUC_ARRAY_LEN(lowerings); i++)
    {
        if (n->op != lowerings[i].op)
            continue;
        const enum npuc_status s = lowerings[i].fn(px, n);
        if (s != NPUC_OK)
            return s;
        break;
    }
    return NPUC_OK;
}

enum npuc_status lower_vision(struct pass_ctx *px, struct graph *g)
{
    return pass_each_graph(px, g, lower_graph);
}
