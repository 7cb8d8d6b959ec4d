/* Pooling on the vector cores. The operand (LpPool: its powers) goes into a padded workspace of f32; a kernel walks the
 * taps of the windows in row-major order over whole rows of the result; regions finish the quotient or the root. Global
 * forms are row reductions. */
#include <math.h>

#include "backend/vector/gens.h"
#include "backend/vector/views.h"
#include "base/size.h"

#define AXES     3
#define COL_UNIT 64

/* Spatial axes, the missing ones in front with size and kernel 1. */
struct window {
    expr in[AXES], out[AXES], before[AXES], padded[AXES]; /* padded: of the workspace */
    int64_t kernel[AXES], stride[AXES], dilation[AXES], after[AXES];
    expr planes;
};

static int64_t entry(const struct node *n, const char *name, int i, int64_t otherwise)
{
    const struct attr *a = node_attr(n, name);
    return a && a->kind == ATTR_INTS && i < a->len ? a->v.ints[i] : otherwise;
}

static bool attr_is(struct ir_ctx *cx, const struct node *n, const char *name, const char *value)
{
    return node_attr_str(n, name, 0) == str_internz(&cx->strings, value);
}

static void window_axis(struct ir_ctx *cx, const struct node *n, int i, int spatial, struct window *w)
{
    struct expr_pool *x = &cx->exprs;
    const int a = AXES - spatial + i;
    const expr one = expr_const(x, 1), zero = expr_const(x, 0);
    w->in[a] = node_in(n, 0)->type->dims[2 + i];
    w->out[a] = n->out[0].type->dims[2 + i];
    w->kernel[a] = entry(n, "kernel_shape", i, 1);
    w->stride[a] = entry(n, "strides", i, 1);
    w->dilation[a] = entry(n, "dilations", i, 1);
    const expr span = expr_const(x, (w->kernel[a] - 1) * w->dilation[a] + 1);
    const expr reach = expr_add(x, expr_mul_const(x, expr_sub(x, w->out[a], one), w->stride[a]), span);
    const bool upper = attr_is(cx, n, "auto_pad", "SAME_UPPER"), lower = attr_is(cx, n, "auto_pad", "SAME_LOWER");
    w->after[a] = 0;
    if (upper || lower) {
        const expr total = expr_max(x, zero, expr_sub(x, reach, w->in[a]));
        w->before[a] = upper ? expr_floordiv(x, total, expr_const(x, 2)) : expr_ceildiv(x, total, expr_const(x, 2));
        w->after[a] = -1; /* as far as the windows reach */
    } else {
        const bool given = attr_is(cx, n, "auto_pad", "NOTSET");
        w->before[a] = expr_const(x, given ? entry(n, "pads", i, 0) : 0);
        w->after[a] = given ? entry(n, "pads", spatial + i, 0) : 0;
    }
    w->padded[a] = expr_max(x, reach, expr_add(x, w->before[a], w->in[a]));
}

static void window_of(struct ir_ctx *cx, const struct node *n, struct window *w)
{
    struct expr_pool *x = &cx->exprs;
    const struct type *t = node_in(n, 0)->type;
    const expr one = expr_const(x, 1);
    for (int a = 0; a < AXES; a++) {
        w->in[a] = w->out[a] = w->padded[a] = one;
        w->before[a] = expr_const(x, 0);
        w->kernel[a] = w->stride[a] = w->dilation[a] = 1;
        w->after[a] = 0;
    }
    w->planes = expr_mul(x, t->dims[0], t->dims[1]);
    for (int i = 0; i < t->rank - 2; i++)
        window_axis(cx, n, i, t->rank - 2, w);
}

static bool is_global(const struct node *n)
{
    return n->op == OP_GlobalMaxPool || n->op == OP_GlobalAveragePool || n->op == OP_GlobalLpPool;
}

bool gen_pool_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    (void)m;
    if (n->op != OP_MaxPool && n->op != OP_AveragePool && n->op != OP_LpPool && !is_global(n))
        return false;
    const struct type *t = node_in(n, 0)->type;
    if (!view_plain(cx, node_in(n, 0), reason))
        return false;
    *reason = "pooling runs over at most three spatial axes of dense floats up to 32 bits or bytes";
    if (t->rank < 3 || t->rank > 5 || t->dtype == DT_F64 || t->layout.kind != LAYOUT_ND)
        return false;
    *reason = "indices counted by columns are computed on the host";
    return n->op != OP_MaxPool || !node_out(n, 1) || node_attr_int(n, "storage_order", 0) == 0;
}

/* ---- the kernel: acc = acc + x, or the larger one with its number, over all taps ---- */

struct pool {
    struct tile_kernel *k;
    struct tile_builder b;
    const struct window *w;
    expr planes, out[AXES], padded[AXES];
    expr tile_rows, tile_cols, row0, rows, col0, cols, plane, depth;
    int32_t in, in_at, sum, at; /* tensors: operand, numbers of its elements; results */
    int32_t x, acc, n, best, mask[4];
    int64_t cap;
    bool max;
};

static expr num(struct pool *p, int64_t v)
{
    return expr_const(&p->k->exprs, v);
}

static void vec(struct pool *p, enum k_fn fn, enum dtype t, int32_t dst, int32_t a, int32_t b, int32_t c)
{
    const expr zero = num(p, 0), pitch = p->tile_cols;
    TILE(&p->b, VEC, fn, (int32_t)t, p->rows, p->cols, dst, zero, pitch, a, zero, pitch, 1, b, b < 0 ? 0 : zero, pitch,
         b >= 0, c, c < 0 ? 0 : zero, pitch, c >= 0, 0, 0, 0);
}

static void load(struct pool *p, int32_t buf, int32_t tensor, enum dtype t, const expr tap[AXES])
{
    struct expr_pool *x = &p->k->exprs;
    const struct window *w = p->w;
    const expr zero = num(p, 0), one = num(p, 1);
    const expr d = expr_add(x, expr_mul_const(x, p->depth, w->stride[0]), expr_mul_const(x, tap[0], w->dilation[0]));
    const expr r = expr_add(x, expr_mul_const(x, p->row0, w->stride[1]), expr_mul_const(x, tap[1], w->dilation[1]));
    const expr c = expr_add(x, expr_mul_const(x, p->col0, w->stride[2]), expr_mul_const(x, tap[2], w->dilation[2]));
    expr off = expr_add(x, expr_mul(x, p->plane, p->padded[0]), d);
    off = expr_add(x, expr_mul(x, off, p->padded[1]), r);
    off = expr_add(x, expr_mul(x, off, p->padded[2]), c);
    TILE(&p->b, LOAD, buf, zero, tensor, off, (int32_t)t, one, one, p->rows, p->cols, zero, zero,
         expr_mul_const(x, p->padded[2], w->stride[1]), num(p, w->stride[2]), zero, zero, p->tile_cols, one);
}

/* Larger, or NaN; with numbers also the first element that is no padding. */
static void take_larger(struct pool *p)
{
    const int32_t *m = p->mask;
    vec(p, K_FN_Greater, DT_F32, m[0], p->x, p->acc, -1);
    vec(p, K_FN_IsNaN, DT_F32, m[1], p->x, -1, -1);
    vec(p, K_FN_Or, DT_BOOL, m[0], m[0], m[1], -1);
    if (p->at >= 0) {
        const expr zero = num(p, 0), pitch = p->tile_cols;
        TILE(&p->b, VEC, K_FN_Less, (int32_t)DT_I64, p->rows, p->cols, m[1], zero, pitch, p->best, zero, pitch, 1, -1,
             0, zero, 0, -1, 0, zero, 0, 0, 0, 0);
        TILE(&p->b, VEC, K_FN_GreaterOrEqual, (int32_t)DT_I64, p->rows, p->cols, m[2], zero, pitch, p->n, zero, pitch,
             1, -1, 0, zero, 0, -1, 0, zero, 0, 0, 0, 0);
        vec(p, K_FN_Or, DT_BOOL, m[0], m[0], m[1], -1);
        vec(p, K_FN_And, DT_BOOL, m[0], m[0], m[2], -1);
        vec(p, K_FN_Where, DT_I64, p->best, m[0], p->n, p->best);
    }
    vec(p, K_FN_Where, DT_F32, p->acc, m[0], p->x, p->acc);
}

static void tile_code(struct pool *p, float start)
{
    struct expr_pool *x = &p->k->exprs;
    const expr zero = num(p, 0), one = num(p, 1);
    expr tap[AXES];
    TILE(&p->b, FILL, (int32_t)DT_F32, p->rows, p->cols, p->acc, zero, p->tile_cols, tile_float_bits(start));
    if (p->at >= 0)
        TILE(&p->b, FILL, (int32_t)DT_I64, p->rows, p->cols, p->best, zero, p->tile_cols, tile_float_bits(-1.0f));
    static const char *const names[AXES] = {"kd", "kh", "kw"};
    for (int a = 0; a < AXES; a++)
        tap[a] = tile_loop(&p->b, names[a], num(p, p->w->kernel[a]));
    load(p, p->x, p->in, DT_F32, tap);
    if (p->at >= 0)
        load(p, p->n, p->in_at, DT_I64, tap);
    if (p->max)
        take_larger(p);
    else
        vec(p, K_FN_Add, DT_F32, p->acc, p->acc, p->x, -1);
    for (int a = 0; a < AXES; a++)
        tile_end(&p->b);
    expr to = expr_add(x, expr_mul(x, p->plane, p->out[0]), p->depth);
    to = expr_add(x, expr_mul(x, to, p->out[1]), p->row0);
    to = expr_add(x, expr_mul(x, to, p->out[2]), p->col0);
    TILE(&p->b, STORE, p->sum, to, p->acc, zero, (int32_t)DT_F32, one, one, p->rows, p->cols, zero, zero, p->tile_cols,
         one, zero, zero, p->out[2], one);
    if (p->at >= 0)
        TILE(&p->b, STORE, p->at, to, p->best, zero, (int32_t)DT_I64, one, one, p->rows, p->cols, zero, zero,
             p->tile_cols, one, zero, zero, p->out[2], one);
}

static void buffers(struct pool *p)
{
    static const char *const names[4] = {"m0", "m1", "m2", "m3"};
    p->x = tile_buf(&p->b, "x", TS_UB, DT_F32, 2, p->cap * 4);
    p->acc = tile_buf(&p->b, "acc", TS_UB, DT_F32, 1, p->cap * 4);
    for (int i = 0; p->max && i < 3; i++)
        p->mask[i] = tile_buf(&p->b, names[i], TS_UB, DT_BOOL, 1, p->cap);
    if (p->at < 0)
        return;
    p->n = tile_buf(&p->b, "number", TS_UB, DT_I64, 2, p->cap * 8);
    p->best = tile_buf(&p->b, "best", TS_UB, DT_I64, 1, p->cap * 8);
}

static void code(struct pool *p, const struct machine *m, float start)
{
    struct expr_pool *x = &p->k->exprs;
    const expr one = num(p, 1), cores = num(p, m->n_vector), cap = num(p, p->cap);
    p->tile_cols = expr_max(x, num(p, COL_UNIT), expr_min(x, cap, expr_align(x, p->out[2], COL_UNIT)));
    p->tile_rows = expr_max(x, one, expr_min(x, p->out[1], expr_floordiv(x, cap, p->tile_cols)));
    const expr row_tiles = expr_ceildiv(x, p->out[1], p->tile_rows),
               col_tiles = expr_ceildiv(x, p->out[2], p->tile_cols);
    const expr outer = expr_mul(x, p->planes, p->out[0]),
               n_tiles = expr_mul(x, outer, expr_mul(x, row_tiles, col_tiles));
    p->k->blocks = expr_max(x, one, expr_min(x, cores, n_tiles));
    tile_section_begin(&p->b, TCORE_VECTOR);
    buffers(p);
    const expr block = expr_sym(x, p->k->sym_block);
    const expr i = tile_loop(&p->b, "i", expr_ceildiv(x, expr_sub(x, n_tiles, block), p->k->blocks));
    expr t = expr_add(x, block, expr_mul(x, i, p->k->blocks));
    const expr by_col = expr_max(x, one, col_tiles), by_row = expr_max(x, one, row_tiles),
               deep = expr_max(x, one, p->out[0]);
    p->col0 = expr_mul(x, expr_mod(x, t, by_col), p->tile_cols);
    p->cols = expr_min(x, p->tile_cols, expr_sub(x, p->out[2], p->col0));
    t = expr_floordiv(x, t, by_col);
    p->row0 = expr_mul(x, expr_mod(x, t, by_row), p->tile_rows);
    p->rows = expr_min(x, p->tile_rows, expr_sub(x, p->out[1], p->row0));
    t = expr_floordiv(x, t, by_row);
    p->depth = expr_mod(x, t, deep);
    p->plane = expr_floordiv(x, t, deep);
    tile_code(p, start);
    tile_end(&p->b);
}

/* Plan tensors of one run of the kernel; numbers and at are -1 when no indices are wanted. */
struct run {
    int32_t in, numbers, out, at;
    expr planes;
    bool max;
};

static enum npuc_status run_pool(struct emit *e, const struct window *w, const struct run *d, const char *label)
{
    static const char *const dims[2][AXES] = {{"od", "oh", "ow"}, {"pd", "ph", "pw"}};
    struct pool p = {.k = tile_kernel_new(e->arena, &e->plan->strings, d->max ? "pool_max" : "pool_sum"),
                     .w = w,
                     .in_at = -1,
                     .at = -1,
                     .max = d->max};
    struct kparams params = {.e = e, .k = p.k};
    int32_t tensors[4], n = 0;
    p.b = (struct tile_builder){.k = p.k, .arena = e->arena};
    p.planes = kparam(&params, "planes", d->planes);
    for (int a = 0; a < AXES; a++) {
        p.out[a] = kparam(&params, dims[0][a], w->out[a]);
        p.padded[a] = kparam(&params, dims[1][a], w->padded[a]);
    }
    tile_params_done(p.k);
    tensors[n++] = d->in;
    p.in = tile_tensor(p.k, e->arena, "x", DT_F32, true, false);
    tensors[n++] = d->out;
    p.sum = tile_tensor(p.k, e->arena, "y", DT_F32, false, true);
    if (d->at >= 0) {
        tensors[n++] = d->numbers;
        p.in_at = tile_tensor(p.k, e->arena, "numbers", DT_I64, true, false);
        tensors[n++] = d->at;
        p.at = tile_tensor(p.k, e->arena, "indices", DT_I64, false, true);
    }
    p.cap = (e->m->size[TS_UB] - 1024) / 64 / COL_UNIT * COL_UNIT;
    if (e->tiling && e->tiling->cols > 0 && e->tiling->cols < p.cap)
        p.cap = size_align(e->tiling->cols, COL_UNIT);
    code(&p, e->m, d->max ? -INFINITY : 0.0f);
    return emit_launch(e, p.k, tensors, params.bound, EXPR_INVALID, label);
}

/* ---- workspaces ---- */

/* A workspace of [planes][padded], filled with `fill`, then the region's value inside it. */
struct padded {
    int32_t tensor;
    expr dims[1 + AXES];
    struct vr_view inside;
};
static enum npuc_status padded_new(struct emit *e, const struct window *w, expr planes, enum dtype t, float fill,
                                   struct padded *p, const char *label)
{
    struct vr *r = ARENA_NEW(e->arena, struct vr);
    p->dims[0] = planes;
    for (int a = 0; a < AXES; a++)
        p->dims[1 + a] = w->padded[a];
    p->tensor = emit_temp(e, "padded", t, 1 + AXES, p->dims);
    p->inside = view_dense(e, p->tensor, t, 1 + AXES, p->dims);
    vr_init(r, e, 1 + AXES, p->dims);
    vr_output(r, vr_imm(r, t, fill), &p->inside);
    for (int a = 0; a < AXES; a++)
        p->inside.offset =
            expr_add(emit_pool(e), p->inside.offset, expr_mul(emit_pool(e), w->before[a], p->inside.stride[1 + a]));
    return vr_launch(r, "fill", label);
}

/* |x|^p by squaring, as the reference does. */
static int power(struct vr *r, int v, int64_t p)
{
    int y = -1;
    for (v = vr_vec1(r, K_FN_Abs, v); p > 0; p >>= 1) {
        if (p & 1)
            y = y < 0 ? v : vr_vec2(r, K_FN_Mul, y, v);
        if (p > 1)
            v = vr_vec2(r, K_FN_Mul, v, v);
    }
    return y;
}

static int root(struct vr *r, int v, int64_t p)
{
    if (p == 1)
        return v;
    return p == 2 ? vr_vec1(r, K_FN_Sqrt, v) : vr_vec2(r, K_FN_Pow, v, vr_imm(r, DT_F32, 1.0f / (float)p));
}

static void inside_dims(const struct window *w, expr planes, expr dims[1 + AXES])
{
    dims[0] = planes;
    for (int a = 0; a < AXES; a++)
        dims[1 + a] = w->in[a];
}

static enum npuc_status put_operand(struct emit *e, struct node *n, const struct window *w, struct padded *p)
{
    struct value *v = node_in(n, 0);
    const bool max = n->op == OP_MaxPool;
    expr dims[1 + AXES];
    inside_dims(w, w->planes, dims);
    const enum npuc_status s = padded_new(e, w, w->planes, DT_F32, max ? -INFINITY : 0.0f, p, op_table[n->op]->name);
    if (s != NPUC_OK)
        return s;
    struct vr *r = ARENA_NEW(e->arena, struct vr);
    vr_init(r, e, 1 + AXES, dims);
    const struct vr_view src = view_dense(e, emit_tensor(e, v), v->type->dtype, 1 + AXES, dims);
    int x = vr_cast(r, DT_F32, vr_input(r, &src));
    if (n->op == OP_LpPool)
        x = power(r, x, node_attr_int(n, "p", 2));
    vr_output(r, x, &p->inside);
    return vr_launch(r, "pad", op_table[n->op]->name);
}

/* The numbers of the elements in the operand, -1 in the padding. */
static enum npuc_status put_numbers(struct emit *e, const struct window *w, struct padded *p)
{
    expr dims[1 + AXES];
    inside_dims(w, w->planes, dims);
    const enum npuc_status s = padded_new(e, w, w->planes, DT_I64, -1.0f, p, "MaxPool");
    if (s != NPUC_OK)
        return s;
    struct vr *r = ARENA_NEW(e->arena, struct vr);
    vr_init(r, e, 1 + AXES, dims);
    const struct vr_view own = view_dense(e, -1, DT_I64, 1 + AXES, dims);
    vr_output(r, vr_iota(r, DT_I64, own.offset, own.stride), &p->inside);
    return vr_launch(r, "numbers", "MaxPool");
}

/* How many elements each window averages: the same sums over ones. */
static enum npuc_status put_counts(struct emit *e, struct node *n, const struct window *w, int32_t counts)
{
    struct expr_pool *x = emit_pool(e);
    struct padded p;
    expr dims[1 + AXES];
    const expr one = expr_const(x, 1);
    inside_dims(w, one, dims);
    enum npuc_status s = padded_new(e, w, one, DT_F32, 0, &p, "AveragePool");
    if (s != NPUC_OK)
        return s;
    if (node_attr_int(n, "count_include_pad", 0)) {
        p.inside.offset = expr_const(x, 0);
        for (int a = 0; a < AXES; a++)
            dims[1 + a] = w->after[a] < 0
                              ? w->padded[a]
                              : expr_min(x, w->padded[a],
                                         expr_add(x, expr_add(x, w->before[a], w->in[a]), expr_const(x, w->after[a])));
    }
    struct vr *r = ARENA_NEW(e->arena, struct vr);
    vr_init(r, e, 1 + AXES, dims);
    vr_output(r, vr_imm(r, DT_F32, 1), &p.inside);
    s = vr_launch(r, "ones", "AveragePool");
    const struct run d = {.in = p.tensor, .numbers = -1, .out = counts, .at = -1, .planes = one};
    return s == NPUC_OK ? run_pool(e, w, &d, "AveragePool") : s;
}

static enum npuc_status finish(struct emit *e, struct node *n, const struct window *w, int32_t sums)
{
    const enum dtype t = n->out[0].type->dtype;
    struct vr *r = ARENA_NEW(e->arena, struct vr);
    expr dims[1 + AXES];
    dims[0] = w->planes;
    for (int a = 0; a < AXES; a++)
        dims[1 + a] = w->out[a];
    const struct vr_view src = view_dense(e, sums, DT_F32, 1 + AXES, dims),
                         dst = view_dense(e, emit_tensor(e, &n->out[0]), t, 1 + AXES, dims);
    vr_init(r, e, 1 + AXES, dims);
    int v = vr_input(r, &src);
    if (n->op == OP_AveragePool) {
        const int32_t counts = emit_temp(e, "counts", DT_F32, AXES, w->out);
        const enum npuc_status s = put_counts(e, n, w, counts);
        if (s != NPUC_OK)
            return s;
        struct vr_view c = view_dense(e, counts, DT_F32, 1 + AXES, dims);
        c.stride[0] = expr_const(emit_pool(e), 0);
        v = vr_vec2(r, K_FN_Div, v, vr_input(r, &c));
    } else if (n->op == OP_LpPool) {
        v = root(r, v, node_attr_int(n, "p", 2));
    } else if (!dtype_is_float(t)) {
        v = vr_vec2(r, K_FN_Max, v, vr_imm(r, DT_F32, t == DT_I8 ? -128.0f : 0.0f));
    }
    vr_output(r, vr_cast(r, t, v), &dst);
    return vr_launch(r, "finish", op_table[n->op]->name);
}

static enum npuc_status emit_global(struct emit *e, struct node *n)
{
    struct expr_pool *x = emit_pool(e);
    const struct type *t = node_in(n, 0)->type;
    const int64_t p = node_attr_int(n, "p", 2);
    const expr dims[2] = {expr_mul(x, t->dims[0], t->dims[1]), view_product(x, t->dims, 2, t->rank)};
    struct vr *r = ARENA_NEW(e->arena, struct vr);
    const struct vr_view src = view_dense(e, emit_tensor(e, node_in(n, 0)), t->dtype, 2, dims);
    struct vr_view dst = view_dense(e, emit_tensor(e, &n->out[0]), t->dtype, 1, dims);
    dst.stride[1] = expr_const(x, 0);
    vr_init(r, e, 2, dims);
    int v = vr_cast(r, DT_F32, vr_input(r, &src));
    if (n->op == OP_GlobalMaxPool)
        v = vr_reduce(r, K_RED_MAX, v);
    else if (n->op == OP_GlobalAveragePool)
        v = vr_vec2(r, K_FN_Div, vr_reduce(r, K_RED_SUM, v), view_size(r, DT_F32, dims[1]));
    else
        v = root(r,
                 p > 2 ? vr_reduce(r, K_RED_SUM, power(r, v, p)) : vr_reduce(r, p == 1 ? K_RED_ABSSUM : K_RED_SUMSQ, v),
                 p);
    vr_output(r, vr_cast(r, t->dtype, v), &dst);
    return vr_launch(r, "global_pool", op_table[n->op]->name);
}

enum npuc_status gen_pool_emit(struct emit *e, struct node *n)
{
    struct window w;
    struct padded x, numbers = {.tensor = -1};
    expr dims[1 + AXES];
    if (is_global(n))
        return emit_global(e, n);
    window_of(e->cx, n, &w);
    dims[0] = w.planes;
    for (int a = 0; a < AXES; a++)
        dims[1 + a] = w.out[a];
    const bool index = n->op == OP_MaxPool && node_out(n, 1);
    enum npuc_status s = put_operand(e, n, &w, &x);
    if (s == NPUC_OK && index)
        s = put_numbers(e, &w, &numbers);
    if (s != NPUC_OK)
        return s;
    const struct run d = {.in = x.tensor,
                          .numbers = numbers.tensor,
                          .out = emit_temp(e, "sums", DT_F32, 1 + AXES, dims),
                          .at = index ? emit_tensor(e, &n->out[1]) : -1,
                          .planes = w.planes,
                          .max = n->op == OP_MaxPool};
    s = run_pool(e, &w, &d, op_table[n->op]->name);
    return s == NPUC_OK ? finish(e, n, &w, d.out) : s;
}
