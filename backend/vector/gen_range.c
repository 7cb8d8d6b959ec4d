/* Range of integers whose start and step are known when shapes are bound: written by IOTA, no operand is read. */
#include "backend/vector/gens.h"

#define TILE_LEN 2048 /* elements; a range is short next to everything else */

static bool known(struct ir_ctx *cx, const struct node *n, expr *start, expr *step)
{
    *start = value_elem(cx, node_in(n, 0), 0);
    *step = value_elem(cx, node_in(n, 2), 0);
    return *start != EXPR_INVALID && *step != EXPR_INVALID;
}

bool gen_range_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    expr start, step;
    (void)m;
    if (n->op != OP_Range)
        return false;
    *reason = "start and step are not known before run time, or are no integers";
    return (n->out[0].type->dtype == DT_I64 || n->out[0].type->dtype == DT_I32) && known(cx, n, &start, &step);
}

/* `to` holds `count` integers from `first` on, `delta` apart. */
static enum npuc_status iota(struct emit *e, int32_t to, enum dtype dtype, expr count, expr first, expr delta,
                             const char *label)
{
    struct kparams p;
    struct tile_builder b;
    struct tile_kernel *k = emit_kernel(e, "range", &b, &p);
    struct expr_pool *x = &k->exprs;
    expr len = kparam(&p, "len", count), start = kparam(&p, "start", first), step = kparam(&p, "step", delta);
    tile_params_done(k);
    int32_t out = tile_tensor(k, e->arena, "out", dtype, false, true);
    expr one = expr_const(x, 1), zero = expr_const(x, 0), n_tiles = expr_ceildiv(x, len, expr_const(x, TILE_LEN));
    k->blocks = expr_max(x, one, expr_min(x, expr_const(x, e->m->n_vector), n_tiles));
    tile_section_begin(&b, TCORE_VECTOR);
    int32_t buf = tile_buf(&b, "values", TS_UB, dtype, 2, TILE_LEN * dtype_size(dtype));
    expr block = expr_sym(x, k->sym_block);
    expr i = tile_loop(&b, "i", expr_ceildiv(x, expr_sub(x, n_tiles, block), k->blocks));
    expr at = expr_mul_const(x, expr_add(x, block, expr_mul(x, i, k->blocks)), TILE_LEN);
    expr cols = expr_min(x, expr_const(x, TILE_LEN), expr_sub(x, len, at));
    TILE(&b, IOTA, (int32_t)dtype, one, cols, buf, zero, zero, expr_add(x, start, expr_mul(x, step, at)), step, zero);
    TILE(&b, STORE, out, at, buf, zero, (int32_t)dtype, one, one, one, cols, zero, zero, zero, one, zero, zero, zero,
         one);
    tile_end(&b);
    return emit_launch(e, k, &to, p.bound, EXPR_INVALID, label);
}

enum npuc_status gen_range_emit(struct emit *e, struct node *n)
{
    expr first, delta;
    const struct type *t = n->out[0].type;
    if (!known(e->cx, n, &first, &delta))
        return node_error(e->cx, n, D_UNSUPPORTED, "start and step are not known before run time");
    return iota(e, emit_tensor(e, &n->out[0]), t->dtype, t->dims[0], first, delta, "Range");
}

enum npuc_status vector_number(struct emit *e, int32_t to, enum dtype dtype, expr number, bool *done)
{
    const expr one = expr_const(emit_pool(e), 1);
    *done = dtype == DT_I64 || dtype == DT_I32;
    return *done ? iota(e, to, dtype, one, number, one, "SizeOf") : NPUC_OK;
}
