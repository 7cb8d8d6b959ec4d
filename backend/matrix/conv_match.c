/* What the matrix unit does of Conv, ConvTranspose and ConvInteger, alone or in a Fused node with Relu and a Cast to
 * f32. */
#include "backend/matrix/conv.h"
#include "base/size.h"

#include <string.h>

enum { MOST = 1 << 20 }; /* channels, and extents of windows */

enum { CODE_STEPS = 4 };

struct reading {
    struct ir_ctx *cx;
    const struct node *outer, *conv; /* the Fused node, or the convolution itself; the convolution */
    struct value *y;                 /* what is stored: its layout */
    const struct value *made;        /* its type, where that is not y's: vector operators come between */
    const struct node *mul, *add;    /* of a region that scales sums of integers */
    const struct node *added;        /* Add of another map behind them */
    bool added_left, added_relu;
    const struct node *codes[CODE_STEPS]; /* Mul, Round, Clip, Cast to integers; NULL: none */
    const struct value *sum;              /* the float before those */
    const struct node *prelu;             /* in the place of relu */
    bool relu;
};

static bool refuse(const char **reason, const char *why)
{
    *reason = why;
    return false;
}

static bool is_conv(const struct node *n)
{
    return n->op == OP_Conv || n->op == OP_ConvTranspose || n->op == OP_ConvInteger;
}

/* A convolution, then at most Relu, then at most a Cast. */
static bool read_region(struct reading *r, const struct graph *g)
{
    const struct value *last = NULL;
    bool cast = false;
    for_each_node (n, g) {
        if (n->op == OP_Constant)
            continue;
        if (n->op == OP_Yield)
            return last && n->n_in == 1 && node_in(n, 0) == last;
        const bool ends = n->op == OP_Cast;
        const bool bends = n->op == OP_Relu || n->op == OP_PRelu;
        if (!last ? !is_conv(n)
                  : cast || (!bends && !ends) || ((r->relu || r->prelu) && !ends) || node_in(n, 0) != last)
            return false;
        if (!last)
            r->conv = n;
        cast = ends;
        if (cast && r->prelu)
            return false;
        r->relu |= n->op == OP_Relu;
        r->prelu = n->op == OP_PRelu ? n : r->prelu;
        last = node_out(n, 0);
    }
    return false;
}

/* Members of a region that makes sums of integers numbers (passes/fuse_matmul.c). Those from FIRST_FREE on may be
 * missing, the Relu behind an Add with it, integer codes as a whole. */
static const enum op scaled_steps[] = {OP_ConvInteger, OP_Cast, OP_Mul, OP_Add,   OP_Cast, OP_Relu,
                                       OP_Add,         OP_Relu, OP_Mul, OP_Round, OP_Clip, OP_Cast};
enum { ROW_MUL = 2, ROW_ADD = 3, FIRST_FREE = 4, RELU = 5, MAP_ADD = 6, MAP_RELU = 7, CODES = 8 };

static bool is_step(const struct node *n, int64_t step)
{
    return n->op == scaled_steps[step] || (step == RELU && n->op == OP_PRelu);
}

static bool needs_step_before(int64_t step)
{
    return step < FIRST_FREE || step == MAP_RELU || step > CODES;
}

static void take_step(struct reading *r, const struct node *n, int64_t step, const struct value *last)
{
    if (step == 0)
        r->conv = n;
    if (step == ROW_MUL)
        r->mul = n;
    if (step == ROW_ADD)
        r->add = n;
    if (step == MAP_ADD) {
        r->added = n;
        r->added_left = node_in(n, 1) == last;
    }
    r->relu |= step == RELU && n->op == OP_Relu;
    if (n->op == OP_PRelu)
        r->prelu = n;
    r->added_relu |= step == MAP_RELU;
    if (step >= CODES)
        r->codes[step - CODES] = n;
    else
        r->sum = node_out(n, 0);
}

static bool read_scaled(struct reading *r, const struct graph *g)
{
    const struct value *last = NULL;
    int64_t done = -1;
    for_each_node (n, g) {
        if (n->op == OP_Constant)
            continue;
        if (n->op == OP_Yield)
            return done >= ROW_ADD && (done < CODES || r->codes[CODE_STEPS - 1]);
        int64_t at = done + 1;
        while (at >= FIRST_FREE && at < NPUC_ARRAY_LEN(scaled_steps) &&
               (!is_step(n, at) || (at > done + 1 && needs_step_before(at))))
            at++;
        if (at == NPUC_ARRAY_LEN(scaled_steps) || !is_step(n, at) || n->n_out != 1 ||
            (last && node_in(n, 0) != last && (at != MAP_ADD || node_in(n, 1) != last)))
            return false;
        take_step(r, n, at, last);
        last = node_out(n, 0);
        done = at;
    }
    return false;
}

/* Input i of a member as the surrounding graph sees it. */
static struct value *input_of(const struct reading *r, const struct node *n, int i)
{
    struct value *v = node_in(n, i);
    const bool is_input = v && r->outer != r->conv && !v->def && v->graph == r->conv->graph;
    return is_input ? node_in(r->outer, (int)v->index) : v;
}

static struct value *operand(const struct reading *r, int i)
{
    return input_of(r, r->conv, i);
}

static bool is_region(struct reading *r, const struct node *n)
{
    const struct graph *g = node_region(n, 0);
    if (n->n_out == 1 && read_region(r, g))
        return true;
    *r = (struct reading){.cx = r->cx, .outer = n, .y = r->y};
    return read_scaled(r, g);
}

/* A number that all elements share. */
static bool number(const struct node *n, int i, float *out)
{
    double v;
    const struct value *c = node_in(n, i);
    if (!c || value_n_elems(n->graph->module->cx, c) != 1 || !value_const_f64(c, 0, &v))
        return false;
    *out = (float)v;
    return true;
}

/* A constant whose elements are all the same number. */
static bool is_uniform(const struct ir_ctx *cx, const struct value *v, float *out)
{
    double first, other;
    const int64_t n = type_const_count(cx, v->type);
    if (!value_const(v) || !value_const_f64(v, 0, &first))
        return false;
    for (int64_t i = 1; i < n; i++)
        if (!value_const_f64(v, i, &other) || other != first)
            return false;
    *out = (float)first;
    return true;
}

static bool same_map(const struct value *a, const struct value *b)
{
    if (a->type->kind != TYPE_TENSOR || a->type->rank != b->type->rank || a->type->layout.kind != b->type->layout.kind)
        return false;
    for (int i = 0; i < a->type->rank; i++)
        if (a->type->dims[i] != b->type->dims[i])
            return false;
    return true;
}

/* What follows scaled sums: results in the same layout, each the float or its codes. */
static bool read_tail(const struct reading *r, struct conv_tail *t)
{
    const struct node *yield = graph_yield(r->sum->graph), *const *code = r->codes;
    *t = (struct conv_tail){.added_left = r->added_left, .relu = r->added_relu};
    for (int i = 0; i < r->outer->n_out; i++) {
        const struct value *v = node_in(yield, i);
        struct value *out = &r->outer->out[i];
        if (!same_map(out, r->y))
            return false;
        if (v == r->sum)
            t->y = out;
        else if (code[0] && v == &code[CODE_STEPS - 1]->out[0])
            t->codes = out;
        else
            return false;
    }
    if (r->added) {
        t->added = input_of(r, r->added, r->added_left ? 0 : 1);
        if (t->added->def && t->added->graph == r->conv->graph)
            return false; /* made within the region */
        if (!same_map(t->added, r->y) || t->added->type->dtype != r->sum->type->dtype)
            return false;
    }
    if (!code[0])
        return true;
    const enum dtype to = t->codes ? t->codes->type->dtype : DT_NONE;
    return (to == DT_I8 || to == DT_I16) && number(code[0], 1, &t->factor) && number(code[2], 1, &t->low) &&
           number(code[2], 2, &t->high);
}

/* ---- attributes --------------------------------------------------------------------------------------------- */

static void read_list(const struct node *n, const char *name, int axes, int64_t otherwise, int64_t v[CONV_AXES])
{
    const struct attr *a = node_attr(n, name);
    for (int i = 0; i < CONV_AXES; i++)
        v[i] = otherwise;
    for (int i = 0; i < axes && a && a->len >= axes; i++)
        v[CONV_AXES - axes + i] = a->v.ints[i];
}

static bool auto_pad_is(const struct ir_ctx *cx, const struct node *n, const char *what)
{
    const struct attr *a = node_attr(n, "auto_pad");
    return strcmp(a ? str_text(&cx->strings, a->v.s) : "NOTSET", what) == 0;
}

/* Padding before the data when `total` is to be split: all of it but the larger half, or the larger half. */
static expr split(struct expr_pool *x, expr total, bool upper)
{
    const expr pads = expr_max(x, expr_const(x, 0), total), two = expr_const(x, 2);
    return upper ? expr_floordiv(x, pads, two) : expr_ceildiv(x, pads, two);
}

static expr extent_of(struct expr_pool *x, const struct conv *p, int i)
{
    return expr_const(x, p->dilation[i] * (p->kernel[i] - 1) + 1);
}

static void read_pads(struct reading *r, struct conv *p, int axes)
{
    struct expr_pool *x = &r->cx->exprs;
    const bool upper = auto_pad_is(r->cx, r->conv, "SAME_UPPER"),
               same = upper || auto_pad_is(r->cx, r->conv, "SAME_LOWER");
    int64_t pads[CONV_AXES];
    read_list(r->conv, "pads", axes, 0, pads);
    for (int i = 0; i < CONV_AXES; i++) {
        const expr one = expr_const(x, 1);
        const expr reach =
            expr_add(x, expr_mul_const(x, expr_sub(x, p->out_size[i], one), p->stride[i]), extent_of(x, p, i));
        p->before[i] = same && i >= CONV_AXES - axes
                           ? split(x, expr_sub(x, reach, p->size[i]), upper)
                           : expr_const(x, auto_pad_is(r->cx, r->conv, "NOTSET") ? pads[i] : 0);
    }
}

/* The transposed convolution as one of x with zeros between its elements: stride 1, padding up to the kernel's reach.
 */
static void turn_pads(struct reading *r, struct conv *p, int axes)
{
    struct expr_pool *x = &r->cx->exprs;
    const bool upper = auto_pad_is(r->cx, r->conv, "SAME_UPPER"),
               same = upper || auto_pad_is(r->cx, r->conv, "SAME_LOWER");
    int64_t pads[CONV_AXES], extra[CONV_AXES], given[CONV_AXES];
    read_list(r->conv, "pads", axes, 0, pads);
    read_list(r->conv, "output_padding", axes, 0, extra);
    read_list(r->conv, "output_shape", axes, 0, given);
    for (int i = 0; i < CONV_AXES; i++) {
        const expr one = expr_const(x, 1);
        const bool spread = i >= CONV_AXES - axes && (same || given[i] > 0);
        expr full = expr_mul_const(x, expr_sub(x, p->size[i], one), p->stride[i]);
        full = expr_add(x, full, expr_add(x, extent_of(x, p, i), expr_const(x, extra[i])));
        const expr before = spread ? split(x, expr_sub(x, full, p->out_size[i]), upper)
                                   : expr_const(x, auto_pad_is(r->cx, r->conv, "NOTSET") ? pads[i] : 0);
        p->before[i] = expr_sub(x, expr_sub(x, extent_of(x, p, i), one), before);
        p->step[i] = p->stride[i];
        p->stride[i] = 1;
    }
}

/* ---- sizes -------------------------------------------------------------------------------------------------- */

static bool small_const(const struct ir_ctx *cx, expr e, int64_t *v)
{
    return expr_is_const(&cx->exprs, e, v) && *v >= 1 && *v <= MOST;
}

static bool read_sizes(struct reading *r, struct conv *p, int axes, const char **reason)
{
    const struct type *tx = p->x->type, *tw = p->w->type, *ty = r->y->type;
    const expr one = expr_const(&r->cx->exprs, 1);
    int64_t taps = 1;
    p->batch = tx->dims[0];
    for (int i = 0; i < CONV_AXES; i++) {
        const int axis = 2 + i - (CONV_AXES - axes);
        p->size[i] = axis >= 2 ? tx->dims[axis] : one;
        p->out_size[i] = axis >= 2 ? ty->dims[axis] : one;
        if (axis < 2)
            p->kernel[i] = 1;
        else if (!small_const(r->cx, tw->dims[axis], &p->kernel[i]))
            return refuse(reason, "a kernel of unknown or extreme size");
        taps *= p->kernel[i];
        if (p->stride[i] > MOST || p->dilation[i] > MOST || p->kernel[i] * p->dilation[i] > MOST || taps > MOST)
            return refuse(reason, "a window of extreme size");
    }
    int64_t w0, w1;
    if (!small_const(r->cx, tw->dims[0], &w0) || !small_const(r->cx, tw->dims[1], &w1))
        return refuse(reason, "a weight with an unknown, extreme or no number of channels");
    p->cout = p->transposed ? w1 : w0 / p->group;
    p->cin = p->transposed ? w0 / p->group : w1;
    return p->cout > 0 && p->cin > 0 ? true : refuse(reason, "more groups than channels");
}

/* The value in memory behind x = Reshape(Transpose(value)) whose channels are already in lines of c0, or NULL:
 * [n, c1, spatial.., c0] turned into [n, c1, c0, spatial..] and seen as [n, c1*c0, spatial..]. */
static struct value *lines_of(const struct ir_ctx *cx, const struct value *x, int64_t c0)
{
    const struct node *seen = x->def, *turned = seen && seen->op == OP_Reshape ? node_in(seen, 0)->def : NULL;
    struct value *v = turned && turned->op == OP_Transpose ? node_in(turned, 0) : NULL;
    const struct attr *perm = v ? node_attr(turned, "perm") : NULL;
    const int rank = v ? v->type->rank : 0;
    int64_t inner, c1;
    if (!perm || rank != x->type->rank + 1 || v->type->layout.kind != LAYOUT_ND || value_const(v) ||
        !expr_is_const(&cx->exprs, v->type->dims[rank - 1], &inner) || inner != c0 ||
        !expr_is_const(&cx->exprs, v->type->dims[1], &c1) || x->type->dims[0] != v->type->dims[0])
        return NULL;
    for (int i = 0; i < rank; i++)
        if (perm->v.ints[i] != (i < 2 ? i : i == 2 ? rank - 1 : i - 1))
            return NULL;
    for (int i = 2; i < x->type->rank; i++)
        if (x->type->dims[i] != v->type->dims[i])
            return NULL;
    return expr_is_const(&cx->exprs, x->type->dims[1], &inner) && inner == c1 * c0 ? v : NULL;
}

/* One element per window, one window per element: all axes are one. */
static void flatten(struct expr_pool *x, struct conv *p, bool rows)
{
    int64_t pad;
    expr all = expr_const(x, 1);
    bool flat = true;
    for (int i = 0; i < CONV_AXES; i++) {
        flat &= p->kernel[i] == 1 && p->stride[i] == 1 && p->step[i] == 1 && p->size[i] == p->out_size[i] &&
                expr_is_const(x, p->before[i], &pad) && pad == 0;
        all = expr_mul(x, all, p->size[i]);
    }
    p->direct = flat && (rows || !p->lines);
    for (int i = 0; flat && i < CONV_AXES; i++)
        p->size[i] = p->out_size[i] = i == CONV_AXES - 1 ? all : expr_const(x, 1);
}

/* ---- types -------------------------------------------------------------------------------------------------- */

/* The constant behind the weight; a Cast between float types is done when the weight is stored. */
static struct value *constant_of(struct value *v)
{
    while (weight_is_cast(v))
        v = node_in(v->def, 0);
    return value_const(v) ? v : NULL;
}

static bool is_dense(const struct value *v)
{
    return v->type->kind == TYPE_TENSOR && v->type->rank >= 0 && v->type->layout.kind == LAYOUT_ND;
}

/* Maps in the order of the matrix unit (backend/backend.h: NHWC for units of rows, else NC1HWC0). */
static bool is_laid(const struct machine *m, const struct value *v)
{
    return v->type->kind == TYPE_TENSOR && v->type->layout.kind == (m->mac_rows ? LAYOUT_NHWC : LAYOUT_NC1HWC0);
}

/* Where channels of a group fill whole lines, or lines hold those of all groups. */
static bool read_layouts(const struct machine *m, const struct reading *r, struct conv *p, const char **reason)
{
    p->out_lines = is_laid(m, r->y);
    if (is_laid(m, p->x))
        p->lines = p->x;
    if (!m->mac_rows && p->lines && p->x->type->layout.c0 * dtype_size(p->in) != m->c0_bytes)
        return refuse(reason, "blocks of channels that are not those of L1");
    if (!m->mac_rows && p->out_lines && !r->made && r->y->type->layout.c0 != 8 && r->y->type->layout.c0 != 16)
        return refuse(reason, "blocks of channels that are not those of L0C");
    const bool depthwise = p->cin == 1 && p->cout == 1; /* which no matrix unit takes */
    const bool whole =
        m->mac_rows || p->group == 1 || depthwise ||
        ((!p->lines || p->cin % p->x->type->layout.c0 == 0) && (!p->out_lines || p->cout % r->y->type->layout.c0 == 0));
    return whole ? true : refuse(reason, "channels of a group that do not fill the blocks of the layout");
}

static bool check_types(const struct machine *m, const struct reading *r, struct conv *p, const char **reason)
{
    static const struct {
        enum dtype in, out;
        enum target_key rate;
    } types[] = {{DT_F32, DT_F32, TK_MAC_F32}, {DT_F16, DT_F16, TK_MAC_F16},   {DT_BF16, DT_BF16, TK_MAC_BF16},
                 {DT_F16, DT_F32, TK_MAC_F16}, {DT_BF16, DT_F32, TK_MAC_BF16}, {DT_I8, DT_I32, TK_MAC_I8},
                 {DT_I16, DT_I32, TK_MAC_I16}};
    if (!p->x || !p->w || !(is_dense(p->x) || is_laid(m, p->x)) || !is_dense(p->w) ||
        !(is_dense(r->y) || is_laid(m, r->y)) || p->x->type->rank < 3 || p->x->type->rank > 2 + CONV_AXES ||
        p->w->type->rank != p->x->type->rank || r->y->type->rank != p->x->type->rank)
        return refuse(reason, "a convolution over other than one to three axes, or of operands that are not dense");
    p->in = p->x->type->dtype;
    p->out = r->mul ? r->sum->type->dtype : (r->made ? r->made : r->y)->type->dtype;
    if (p->scale && (!m->mac_rows || !dtype_is_float(p->out)))
        return refuse(reason, "sums of integers that are scaled where they leave the matrix unit");
    const enum dtype sum = p->scale ? DT_I32 : p->out;
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(types); i++)
        if (types[i].in == p->in && types[i].out == sum && p->w->type->dtype == p->in &&
            target_num(m->target, types[i].rate) > 0)
            return true;
    return refuse(reason, "the matrix unit convolves f32, f16, bf16, or i8 and i16 without zero points into i32");
}

static bool has_zero_points(const struct node *n)
{
    return n->op == OP_ConvInteger && (node_in(n, 2) || node_in(n, 3));
}

/* Slopes: constants of the type of what they bend, one for all channels or one for each. */
static bool read_slope(const struct reading *r, struct conv *p)
{
    double number;
    const struct type *t = node_in(r->prelu, 0)->type;
    p->slope = input_of(r, r->prelu, 1);
    if (!p->slope || !value_const(p->slope) || p->slope->type->dtype != t->dtype || p->slope->type->rank > t->rank - 1)
        return false;
    const int64_t n = type_const_count(r->cx, p->slope->type);
    p->one_slope = n == 1;
    if (p->one_slope && value_const_f64(p->slope, 0, &number))
        p->slope_number = (float)number;
    int64_t channels;
    return p->one_slope || (p->slope->type->rank == t->rank - 1 && n > 0 &&
                            expr_is_const(&r->cx->exprs, p->slope->type->dims[0], &channels) && channels == n);
}

static bool take(const struct machine *m, const struct reading *given, struct conv *out, const char **reason)
{
    struct reading r = *given;
    struct ir_ctx *cx = r.cx;
    struct value *bias = r.add ? input_of(&r, r.add, 1) : r.conv->op == OP_ConvInteger ? NULL : operand(&r, 2);
    *out = (struct conv){.x = operand(&r, 0),
                         .w = operand(&r, 1),
                         .bias = bias,
                         .y = r.y,
                         .relu = r.relu,
                         .scale = r.mul ? input_of(&r, r.mul, 1) : NULL,
                         .transposed = r.conv->op == OP_ConvTranspose,
                         .group = node_attr_int(r.conv, "group", 1),
                         .step = {1, 1, 1}};
    if (has_zero_points(r.conv))
        return refuse(reason, "8-bit operands with zero points");
    if (out->scale && !read_tail(&r, &out->tail))
        return refuse(reason, "results behind a convolution that its kernel does not make");
    out->uniform = out->scale && is_uniform(cx, out->scale, &out->factor);
    if (!check_types(m, &r, out, reason))
        return false;
    if (out->group < 1 || out->group > MOST)
        return refuse(reason, "an extreme number of groups");
    const int axes = out->x->type->rank - 2;
    read_list(r.conv, "strides", axes, 1, out->stride);
    read_list(r.conv, "dilations", axes, 1, out->dilation);
    if (!read_sizes(&r, out, axes, reason))
        return false;
    if (r.prelu && (!m->mac_rows || (out->group > 1 && out->cin == 1) || !read_slope(&r, out)))
        return refuse(reason, "PRelu behind a convolution that its kernel does not make");
    if (out->scale && out->group > 1 && out->cin == 1)
        return refuse(reason, "channels by themselves are work of the vector unit");
    if (out->transposed)
        turn_pads(&r, out, axes);
    else
        read_pads(&r, out, axes);
    if (!read_layouts(m, &r, out, reason))
        return false;
    if (out->group == 1 && !m->mac_rows && !out->lines) /* units of rows want all channels of a position together */
        out->lines = lines_of(cx, out->x, m->c0_bytes / dtype_size(out->in));
    flatten(&cx->exprs, out, m->mac_rows);
    out->constant = constant_of(out->w) != NULL;
    if (out->constant)
        out->w = constant_of(out->w);
    return true;
}

bool conv_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct conv *out, const char **reason)
{
    struct reading r = {.cx = cx, .outer = n, .conv = n, .y = node_out(n, 0)};
    return (n->op == OP_Fused ? is_region(&r, n) : is_conv(n)) && take(m, &r, out, reason);
}

bool conv_match_within(const struct machine *m, struct ir_ctx *cx, const struct node *fused, const struct node *conv,
                       struct conv *out, const char **reason)
{
    const struct reading r = {
        .cx = cx, .outer = fused, .conv = conv, .y = node_out(fused, 0), .made = node_out(conv, 0)};
    return take(m, &r, out, reason);
}

expr conv_macs(struct emit *e, const struct conv *p)
{
    struct expr_pool *x = &e->cx->exprs;
    expr macs = expr_mul_const(x, p->batch, p->group * p->cin * p->cout);
    for (int i = 0; i < CONV_AXES; i++)
        macs = expr_mul(x, macs, expr_mul_const(x, p->out_size[i], p->kernel[i]));
    return emit_expr(e, macs);
}
