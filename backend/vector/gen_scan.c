/* CumSum and CumProd: rows along the axis one after the other, the running value stays on chip. The order is that of
 * the axis, as everywhere; columns and outer rows are divided among the cores. */
#include "backend/vector/gens.h"
#include "backend/vector/views.h"
#include "base/size.h"

#define COL_UNIT 64
#define MAX_ROWS 64 /* outer rows of a tile */

struct scan {
    struct tile_kernel *k;
    struct tile_builder b;
    expr outer, len, inner;            /* the tensor as [outer][len][inner] */
    expr tile_rows, tile_cols;         /* of a tile */
    expr row0, rows, col0, cols;       /* the tile being worked on: outer rows, inner columns */
    int32_t in, out, x, acc, y, dtype; /* tensors, buffers */
    enum k_fn fn;
    bool exclusive, reverse;
};

static expr num(struct scan *s, int64_t v)
{
    return expr_const(&s->k->exprs, v);
}

/* Sizes before, on and after the axis, which may be known only when shapes are bound. */
static bool split_axis(struct ir_ctx *cx, const struct node *n, expr *outer, expr *len, expr *inner)
{
    struct expr_pool *x = &cx->exprs;
    const struct type *t = node_in(n, 0)->type;
    expr axis = value_elem(cx, node_in(n, 1), 0);
    if (axis == EXPR_INVALID)
        return false;
    const expr zero = expr_const(x, 0), one = expr_const(x, 1), rank = expr_const(x, t->rank);
    axis = expr_select(x, expr_cmp(x, EXPR_LT, axis, zero), expr_add(x, axis, rank), axis);
    *outer = *len = *inner = one;
    for (int i = 0; i < t->rank; i++) {
        const expr at = expr_const(x, i);
        *outer = expr_mul(x, *outer, expr_select(x, expr_cmp(x, EXPR_LT, at, axis), t->dims[i], one));
        *len = expr_mul(x, *len, expr_select(x, expr_cmp(x, EXPR_EQ, at, axis), t->dims[i], one));
        *inner = expr_mul(x, *inner, expr_select(x, expr_cmp(x, EXPR_LT, axis, at), t->dims[i], one));
    }
    return true;
}

bool gen_scan_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    expr sizes[3];
    (void)m;
    if (n->op != OP_CumSum && n->op != OP_CumProd)
        return false;
    const enum dtype t = node_in(n, 0)->type->dtype;
    if (!view_plain(cx, node_in(n, 0), reason))
        return false;
    *reason = "the vector unit has no sums or products of this element type";
    if (t == DT_F64 || !k_fn_supports(n->op == OP_CumSum ? K_FN_Add : K_FN_Mul, t))
        return false;
    *reason = "the axis is not known before the shapes are bound";
    return node_in(n, 0)->type->rank > 0 && node_in(n, 0)->type->layout.kind == LAYOUT_ND &&
           split_axis(cx, n, &sizes[0], &sizes[1], &sizes[2]);
}

/* Row `at` of the axis for the tile's outer rows and columns. */
static expr address(struct scan *s, expr at)
{
    struct expr_pool *x = &s->k->exprs;
    const expr row = expr_add(x, expr_mul(x, s->row0, s->len), at);
    return expr_add(x, expr_mul(x, row, s->inner), s->col0);
}

static expr outer_step(struct scan *s)
{
    return expr_mul(&s->k->exprs, s->len, s->inner);
}

static void load_row(struct scan *s, expr at)
{
    const expr zero = num(s, 0), one = num(s, 1);
    TILE(&s->b, LOAD, s->x, zero, s->in, address(s, at), s->dtype, one, one, s->rows, s->cols, zero, zero,
         outer_step(s), one, zero, zero, s->tile_cols, one);
}

static void store_row(struct scan *s, expr at)
{
    const expr zero = num(s, 0), one = num(s, 1);
    TILE(&s->b, COPY_UB, s->dtype, s->rows, s->cols, s->y, zero, s->tile_cols, s->acc, zero, s->tile_cols, 1);
    TILE(&s->b, STORE, s->out, address(s, at), s->y, zero, s->dtype, one, one, s->rows, s->cols, zero, zero,
         s->tile_cols, one, zero, zero, outer_step(s), one);
}

/* Place of step j on the axis. */
static expr place(struct scan *s, expr j)
{
    struct expr_pool *x = &s->k->exprs;
    return s->reverse ? expr_sub(x, expr_sub(x, s->len, num(s, 1)), j) : j;
}

static void tile_code(struct scan *s)
{
    struct expr_pool *x = &s->k->exprs;
    const expr zero = num(s, 0), one = num(s, 1);
    const union {
        float f;
        int32_t i;
    } neutral = {.f = s->fn == K_FN_Mul ? 1.0f : 0.0f};
    tile_if(&s->b, expr_cmp(x, EXPR_LT, zero, s->len));
    if (s->exclusive) {
        TILE(&s->b, FILL, s->dtype, s->rows, s->cols, s->acc, zero, s->tile_cols, neutral.i);
    } else {
        load_row(s, place(s, zero));
        TILE(&s->b, COPY_UB, s->dtype, s->rows, s->cols, s->acc, zero, s->tile_cols, s->x, zero, s->tile_cols, 1);
    }
    store_row(s, place(s, zero));
    tile_end(&s->b);
    const expr j = tile_loop(&s->b, "j", expr_max(x, zero, expr_sub(x, s->len, one)));
    load_row(s, place(s, s->exclusive ? j : expr_add(x, j, one)));
    TILE(&s->b, VEC, s->fn, s->dtype, s->rows, s->cols, s->acc, zero, s->tile_cols, s->acc, zero, s->tile_cols, 1, s->x,
         zero, s->tile_cols, 1, -1, 0, zero, 0, 0, 0, 0);
    store_row(s, place(s, expr_add(x, j, one)));
    tile_end(&s->b);
}

static void code(struct scan *s, const struct machine *m, int64_t cap)
{
    struct expr_pool *x = &s->k->exprs;
    const expr one = num(s, 1), cores = num(s, m->n_vector);
    s->tile_cols = expr_max(x, num(s, COL_UNIT), expr_min(x, num(s, cap), expr_align(x, s->inner, COL_UNIT)));
    const expr fit = expr_min(x, num(s, MAX_ROWS), expr_floordiv(x, num(s, cap), s->tile_cols));
    s->tile_rows = expr_max(x, one, expr_min(x, fit, expr_ceildiv(x, s->outer, cores)));
    const expr col_tiles = expr_ceildiv(x, s->inner, s->tile_cols);
    const expr n_tiles = expr_mul(x, col_tiles, expr_ceildiv(x, s->outer, s->tile_rows));
    const int64_t bytes = size_align(cap * dtype_size((enum dtype)s->dtype), 64);
    s->k->blocks = expr_max(x, one, expr_min(x, cores, n_tiles));
    tile_section_begin(&s->b, TCORE_VECTOR);
    s->x = tile_buf(&s->b, "x", TS_UB, (enum dtype)s->dtype, 2, bytes);
    s->acc = tile_buf(&s->b, "acc", TS_UB, (enum dtype)s->dtype, 1, bytes);
    s->y = tile_buf(&s->b, "y", TS_UB, (enum dtype)s->dtype, 2, bytes);
    const expr block = expr_sym(x, s->k->sym_block);
    const expr i = tile_loop(&s->b, "i", expr_ceildiv(x, expr_sub(x, n_tiles, block), s->k->blocks));
    const expr t = expr_add(x, block, expr_mul(x, i, s->k->blocks)), safe = expr_max(x, one, col_tiles);
    s->row0 = expr_mul(x, expr_floordiv(x, t, safe), s->tile_rows);
    s->rows = expr_min(x, s->tile_rows, expr_sub(x, s->outer, s->row0));
    s->col0 = expr_mul(x, expr_mod(x, t, safe), s->tile_cols);
    s->cols = expr_min(x, s->tile_cols, expr_sub(x, s->inner, s->col0));
    tile_code(s);
    tile_end(&s->b);
}

enum npuc_status gen_scan_emit(struct emit *e, struct node *n)
{
    struct scan s = {.k = tile_kernel_new(e->arena, &e->plan->strings, "scan"),
                     .dtype = (int32_t)n->out[0].type->dtype,
                     .fn = n->op == OP_CumSum ? K_FN_Add : K_FN_Mul,
                     .exclusive = node_attr_int(n, "exclusive", 0) != 0,
                     .reverse = node_attr_int(n, "reverse", 0) != 0};
    struct kparams p = {.e = e, .k = s.k};
    if (!split_axis(e->cx, n, &s.outer, &s.len, &s.inner))
        return node_error(e->cx, n, D_UNSUPPORTED, "the axis is not known before the shapes are bound");
    s.b = (struct tile_builder){.k = s.k, .arena = e->arena};
    s.outer = kparam(&p, "outer", s.outer);
    s.len = kparam(&p, "len", s.len);
    s.inner = kparam(&p, "inner", s.inner);
    tile_params_done(s.k);
    s.in = tile_tensor(s.k, e->arena, "in", n->out[0].type->dtype, true, false);
    s.out = tile_tensor(s.k, e->arena, "out", n->out[0].type->dtype, false, true);
    int64_t cap = (e->m->size[TS_UB] - 512) / (5 * dtype_size(n->out[0].type->dtype)) / COL_UNIT * COL_UNIT;
    if (e->tiling && e->tiling->cols > 0 && e->tiling->cols < cap)
        cap = size_align(e->tiling->cols, COL_UNIT);
    code(&s, e->m, cap);
    return emit_launch(e, s.k, (const int32_t[]){emit_tensor(e, node_in(n, 0)), emit_tensor(e, &n->out[0])}, p.bound,
                       EXPR_INVALID, op_table[n->op]->name);
}
