/* Vector operators behind a convolution of integers: which regions, and the vector cores' part of the kernel.
 *
 * The region's iteration space is [batch][channel][window], or where results lie in blocks of c0 channels
 * [batch][channel / c0][window][c0]. Operands and results are views over it, the sums a view of the workspace that
 * follows the tile. Every element goes through the steps of the separate kernels, hence the bits. */
#include "backend/ascend/conv.h"
#include "backend/matrix/mm.h"
#include "backend/vector/lower.h"
#include "base/size.h"

enum { BATCH, CHANNEL, WINDOW, WITHIN };

static bool refuse(const char **reason, const char *why)
{
    *reason = why;
    return false;
}

static struct value *outside(const struct node *fused, struct value *v)
{
    return v && !v->def ? node_in(fused, (int)v->index) : v;
}

static bool is_member(const struct conv_region *r, const struct node *n)
{
    return n != r->conv && n->op != OP_Constant && n->op != OP_Yield;
}

/* ---- views -------------------------------------------------------------------------------------------------- */

static expr windows_of(struct ir_ctx *cx, const struct type *t)
{
    expr n = expr_const(&cx->exprs, 1);
    for (int i = 2; i < t->rank; i++)
        n = expr_mul(&cx->exprs, n, t->dims[i]);
    return n;
}

/* Stride between windows of a value that broadcasts to c: all spatial axes are there, one behind the other, or none. */
static bool window_stride(struct ir_ctx *cx, const struct type *c, const struct type *t, const expr *own, expr *stride)
{
    struct expr_pool *x = &cx->exprs;
    const int lead = c->rank - t->rank;
    expr step = EXPR_INVALID;
    bool some = false, all = true;
    for (int i = c->rank - 1; i >= 2; i--) {
        const bool absent = i < lead || (expr_is_one(x, t->dims[i - lead]) && !expr_is_one(x, c->dims[i]));
        some |= !absent && !expr_is_one(x, c->dims[i]);
        all &= !absent;
        if (absent || expr_is_one(x, c->dims[i]))
            continue;
        if (step == EXPR_INVALID)
            *stride = own[i - lead];
        else if (own[i - lead] != step)
            return false;
        step = expr_mul(x, own[i - lead], c->dims[i]);
    }
    if (!some)
        *stride = expr_const(x, 0);
    return !some || all;
}

/* Strides of a value that broadcasts to the convolution's result, over the region's space. */
static bool view_strides(struct ir_ctx *cx, const struct conv_region *r, const struct value *v,
                         expr stride[IR_MAX_RANK])
{
    struct expr_pool *x = &cx->exprs;
    const struct type *c = r->conv->out[0].type, *t = v->type;
    const int lead = c->rank - t->rank;
    const expr zero = expr_const(x, 0), c0 = expr_const(x, r->c0 ? r->c0 : 1);
    expr own[IR_MAX_RANK];
    if (t->kind != TYPE_TENSOR || lead < 0)
        return false;
    for (int i = 0; i < t->rank; i++)
        if (!expr_is_one(x, t->dims[i]) && t->dims[i] != c->dims[i + lead])
            return false;
    if (t->layout.kind == LAYOUT_NC1HWC0) {
        if (t->layout.c0 != r->c0 || !type_same_dims(t, c))
            return false;
        const expr plane = expr_mul(x, windows_of(cx, c), c0);
        stride[BATCH] = expr_mul(x, plane, expr_ceildiv(x, c->dims[1], c0));
        stride[CHANNEL] = plane;
        stride[WINDOW] = c0;
        stride[WITHIN] = expr_const(x, 1);
        return true;
    }
    if (!value_strides(cx, v, own) || !window_stride(cx, c, t, own, &stride[WINDOW]))
        return false;
    const expr s = lead > 1 || expr_is_one(x, t->dims[1 - lead]) ? zero : own[1 - lead];
    stride[BATCH] = lead > 0 || expr_is_one(x, t->dims[0]) ? zero : own[0];
    stride[CHANNEL] = r->c0 ? expr_mul(x, s, c0) : s;
    stride[WITHIN] = s;
    return !r->c0 || stride[WINDOW] == zero; /* maps lie as the results do */
}

/* ---- match -------------------------------------------------------------------------------------------------- */

/* Is operand i only an example of a type? */
static bool is_read(const struct node *n, int i)
{
    return node_in(n, i) && !(i == 1 && n->op == OP_CastLike);
}

static bool check_member(struct ir_ctx *cx, const struct conv_region *r, const struct node *n, const char **reason)
{
    expr stride[IR_MAX_RANK];
    if (n->n_out != 1 || op_has((enum op)n->op, T_REDUCE) || op_table[n->op]->cls != CLS_ELEMENTWISE ||
        !type_same_dims(n->out[0].type, r->conv->out[0].type))
        return refuse(reason, "operators behind a convolution that do not work element by element");
    if (!lower_check(cx, n, reason))
        return false;
    for (int i = 0; i < n->n_in; i++) {
        struct value *v = node_in(n, i);
        if (is_read(n, i) && (!v->def || v->def->op == OP_Constant) &&
            !view_strides(cx, r, outside(r->fused, v), stride))
            return refuse(reason, "an operand behind a convolution that does not lie as its result does");
    }
    return true;
}

static bool check_results(struct ir_ctx *cx, const struct conv_region *r, const char **reason)
{
    expr stride[IR_MAX_RANK];
    const struct node *yield = graph_yield(node_region(r->fused, 0));
    for (int i = 0; i < r->fused->n_out; i++) {
        const struct value *v = node_in(yield, i);
        const struct type *t = r->fused->out[i].type;
        if (!v->def || !is_member(r, v->def) || v->def->graph != yield->graph)
            return refuse(reason, "a convolution whose own result is seen beside that of operators behind it");
        if ((t->layout.kind == LAYOUT_NC1HWC0) != (r->c0 > 0) || !view_strides(cx, r, &r->fused->out[i], stride))
            return refuse(reason, "results behind a convolution that lie in different ways");
    }
    return r->fused->n_out <= VR_MAX_OUTPUTS;
}

bool conv_region_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct conv *p,
                       struct conv_region *r, const char **reason)
{
    *r = (struct conv_region){.fused = n};
    if (n->op != OP_Fused || node_attr_str(n, "kind", 0) != str_internz(&cx->strings, MM_TAIL_KIND))
        return false;
    for_each_node (k, node_region(n, 0)) {
        if (op_table[k->op]->cls != CLS_CONV)
            continue;
        if (r->conv || k->op != OP_ConvInteger)
            return refuse(reason, "several convolutions in a region, or one of floats");
        r->conv = k;
    }
    if (!r->conv)
        return false;
    if (!m->mixed || m->vector_per_cube != 2 || m->n_vector < 2 * m->n_cube)
        return refuse(reason, "the target does not run matrix and vector cores in one kernel");
    if (!conv_match_within(m, cx, n, r->conv, p, reason))
        return false;
    r->c0 = p->out_lines ? p->y->type->layout.c0 : 0;
    if (r->c0 && p->cout % r->c0)
        return refuse(reason,
                      "channels that do not fill blocks, which operators behind a convolution would not leave 0");
    for_each_node (k, node_region(n, 0))
        if (is_member(r, k) && !check_member(cx, r, k, reason))
            return false;
    return check_results(cx, r, reason);
}

/* ---- the region --------------------------------------------------------------------------------------------- */

static void take_operand(struct lower *l, const struct conv_region *r, struct value *v)
{
    double number;
    struct value *o = outside(r->fused, v);
    if (map_find(&l->value, v->id) || (type_const_count(l->cx, v->type) == 1 && value_const_f64(v, 0, &number)))
        return; /* made by a member, or an immediate */
    struct vr_view view = {
        .tensor = emit_tensor(l->r.e, o), .dtype = o->type->dtype, .offset = expr_const(&l->cx->exprs, 0)};
    if (view_strides(l->cx, r, o, view.stride))
        map_put(&l->value, v->id, (uint64_t)vr_input(&l->r, &view));
}

static void lower_members(struct lower *l, const struct conv_region *r)
{
    for_each_node (n, node_region(r->fused, 0)) {
        if (!is_member(r, n))
            continue;
        for (int i = 0; i < n->n_in; i++)
            if (is_read(n, i))
                take_operand(l, r, node_in(n, i));
        map_put(&l->value, n->out[0].id, (uint64_t)lower_node(l, n));
    }
}

/* The first view is the tile in the workspace; channels and windows are those of the whole result, see
 * conv_region_pieces. */
static struct vr *lower_region(struct emit *e, const struct conv_region *r, int64_t pitch, int32_t workspace)
{
    struct expr_pool *x = &e->cx->exprs;
    const struct type *c = r->conv->out[0].type;
    struct lower *l = ARENA_NEW(e->arena, struct lower);
    const expr one = expr_const(x, 1), c0 = expr_const(x, r->c0 ? r->c0 : 1);
    space_init(e->cx, &l->sp, r->c0 ? 4 : 3);
    l->sp.shape[BATCH] = c->dims[0];
    l->sp.shape[CHANNEL] = expr_ceildiv(x, c->dims[1], c0);
    l->sp.shape[WINDOW] = windows_of(e->cx, c);
    if (r->c0)
        l->sp.shape[WITHIN] = c0;
    lower_begin(l, e);
    struct vr_view tile = {.tensor = workspace, .dtype = DT_I32, .offset = expr_const(x, 0)};
    tile.stride[BATCH] = expr_const(x, 0);
    tile.stride[CHANNEL] = r->c0 ? c0 : expr_const(x, pitch);
    tile.stride[WINDOW] = r->c0 ? expr_const(x, pitch) : one;
    tile.stride[WITHIN] = one;
    map_put(&l->value, r->conv->out[0].id, (uint64_t)vr_input(&l->r, &tile));
    lower_members(l, r);
    const struct node *yield = graph_yield(node_region(r->fused, 0));
    for (int i = 0; i < r->fused->n_out; i++) {
        struct value *v = &r->fused->out[i];
        struct vr_view view = {.tensor = emit_tensor(e, v), .dtype = v->type->dtype, .offset = expr_const(x, 0)};
        if (view_strides(e->cx, r, v, view.stride))
            vr_output(&l->r, lower_operand(l, node_in(yield, i)), &view);
    }
    vr_classify(&l->r);
    return &l->r;
}

struct conv_region_code *conv_region_open(struct emit *e, const struct conv *p, const struct conv_region *r,
                                          const struct conv_tile *t, int32_t workspace, struct kparams *params)
{
    enum { WHOLE_LANES = 64 };
    struct conv_region_code *c = ARENA_NEW(e->arena, struct conv_region_code);
    struct vr_form *f = &c->f;
    c->r = r;
    c->pitch = p->out_lines ? t->m : size_align(t->n, 16);
    f->r = lower_region(e, r, c->pitch, workspace);
    const int64_t down = r->c0 ? t->n : t->m, across = r->c0 ? r->c0 : size_align(t->n, WHOLE_LANES);
    f->max_rows = size_min(vr_row_limit(f->r, false), size_ceil_div(down, 2));
    f->cap = vr_capacity(f->r, false, f->max_rows);
    if (f->r->overflow || f->cap < WHOLE_LANES) {
        (void)node_error(e->cx, e->node, D_UNSUPPORTED,
                         "a region behind a convolution needs more buffers than UB holds (%lld bytes)",
                         (long long)e->m->size[TS_UB]);
        return NULL;
    }
    c->cols = size_min(across, f->cap / WHOLE_LANES * WHOLE_LANES);
    c->rows = size_min(f->cap / c->cols, f->max_rows);
    f->cap = c->cols * c->rows;
    f->max_rows = c->rows;
    f->k = params->k;
    f->p = *params;
    vr_declare_params(f);
    *params = f->p;
    vr_declare_tensors(f);
    f->cols = f->dims[f->r->rank - 1];
    f->pitch = expr_const(&params->k->exprs, c->cols);
    return c;
}

void conv_region_pieces(struct conv_region_code *c, const struct conv_region_tile *t)
{
    struct vr_form *f = &c->f;
    struct expr_pool *x = &f->k->exprs;
    const int64_t c0 = c->r->c0;
    const expr two = expr_const(x, 2), sub = expr_sym(x, f->k->sym_sub), one = expr_const(x, 1);
    const expr first =
        expr_add(x, expr_mul_const(x, t->channel, c0 ? 1 : c->pitch), expr_mul_const(x, t->p0, c0 ? c->pitch : 1));
    const expr rows = expr_const(x, c->rows), cols = expr_const(x, c->cols);
    const expr down = expr_max(x, one, expr_ceildiv(x, c0 ? t->n : t->channels, rows));
    const expr across = c0 ? expr_floordiv(x, t->channels, expr_const(x, c0)) : expr_ceildiv(x, t->n, cols);
    f->outer[BATCH] = t->batch;
    f->base[0] = expr_sub(x, t->slot, first);
    tile_note(&f->b, "every second piece of the tile");
    const expr turns = expr_ceildiv(x, expr_sub(x, expr_mul(x, across, down), sub), two);
    const expr i = expr_add(x, sub, expr_mul(x, tile_loop(&f->b, "piece", turns), two));
    const expr r = expr_mul(x, expr_mod(x, i, down), rows), a = expr_floordiv(x, i, down);
    if (c0) {
        f->outer[CHANNEL] = expr_add(x, expr_floordiv(x, t->channel, expr_const(x, c0)), a);
        f->row0 = expr_add(x, t->p0, r);
        f->col0 = expr_const(x, 0);
        f->n_rows = expr_min(x, rows, expr_sub(x, t->n, r));
        f->n_cols = cols;
    } else {
        const expr k = expr_mul(x, a, cols);
        f->row0 = expr_add(x, t->channel, r);
        f->col0 = expr_add(x, t->p0, k);
        f->n_rows = expr_min(x, rows, expr_sub(x, t->channels, r));
        f->n_cols = expr_min(x, cols, expr_sub(x, t->n, k));
    }
    vr_code_tile(f);
    tile_end(&f->b);
}
