/* TopK: whole rows in UB, ordered by the sorting unit; the places of the first k pick the values. */
#include "backend/vector/gens.h"
#include "backend/vector/views.h"
#include "base/size.h"

#define MAX_LEN  4096 /* elements of a row that the sorting unit takes */
#define MAX_ROWS 16
#define ROW_UNIT 32

struct top {
    struct tile_kernel *k;
    struct tile_builder b;
    expr outer, len, inner, keep; /* the operand as [outer][len][inner]; keep: k */
    expr pitch, tile_rows;        /* elements between rows in UB; rows of a tile */
    int32_t in, values, indices;  /* tensors, -1 absent */
    int32_t x, at, y, wide;       /* buffers: rows, places, values, places as i64 */
    enum dtype dtype;
    int64_t cap;
    bool largest;
};

static expr num(struct top *s, int64_t v)
{
    return expr_const(&s->k->exprs, v);
}

bool gen_sort_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    (void)m;
    if (n->op != OP_TopK)
        return false;
    const struct type *t = node_in(n, 0)->type;
    if (!view_plain(cx, node_in(n, 0), reason))
        return false;
    *reason = "the sorting unit takes rows of at most 4096 real numbers of up to 32 bits, or integers";
    return t->rank > 0 && t->dtype != DT_F64 && dtype_table[t->dtype].cls != DTC_COMPLEX &&
           t->layout.kind == LAYOUT_ND &&
           expr_range_of(&cx->exprs, t->dims[view_axis(n, "axis", -1, t->rank)]).max <= MAX_LEN;
}

/* Rows [row0, row0 + rows) of one outer index: neighbours on the inner axes. */
static void tile_code(struct top *s, expr o, expr row0, expr rows)
{
    struct expr_pool *x = &s->k->exprs;
    const expr zero = num(s, 0), one = num(s, 1);
    const expr from = expr_add(x, expr_mul(x, expr_mul(x, o, s->len), s->inner), row0);
    const expr to = expr_add(x, expr_mul(x, expr_mul(x, o, s->keep), s->inner), row0);
    TILE(&s->b, LOAD, s->x, zero, s->in, from, (int32_t)s->dtype, one, one, rows, s->len, zero, zero, one, s->inner,
         zero, zero, s->pitch, one);
    TILE(&s->b, ORDER, (int32_t)s->dtype, rows, s->len, s->at, zero, s->pitch, s->x, zero, s->pitch, s->largest);
    if (s->values >= 0) {
        TILE(&s->b, PICK, (int32_t)s->dtype, rows, s->keep, s->y, zero, s->pitch, s->x, zero, s->pitch, s->len, s->at,
             zero, s->pitch);
        TILE(&s->b, STORE, s->values, to, s->y, zero, (int32_t)s->dtype, one, one, rows, s->keep, zero, zero, s->pitch,
             one, zero, zero, one, s->inner);
    }
    if (s->indices >= 0) {
        TILE(&s->b, CAST, (int32_t)DT_I64, (int32_t)DT_I32, rows, s->keep, s->wide, zero, s->pitch, s->at, zero,
             s->pitch, 1, 1);
        TILE(&s->b, STORE, s->indices, to, s->wide, zero, (int32_t)DT_I64, one, one, rows, s->keep, zero, zero,
             s->pitch, one, zero, zero, one, s->inner);
    }
}

static void code(struct top *s, const struct machine *m)
{
    struct expr_pool *x = &s->k->exprs;
    const expr one = num(s, 1), cores = num(s, m->n_vector);
    const expr lines = expr_mul(x, s->outer, s->inner);
    s->pitch = expr_max(x, num(s, ROW_UNIT), expr_align(x, s->len, ROW_UNIT));
    const expr fit = expr_min(x, num(s, MAX_ROWS), expr_floordiv(x, num(s, s->cap), s->pitch));
    s->tile_rows = expr_max(x, one, expr_min(x, fit, expr_ceildiv(x, lines, cores)));
    const expr per_outer = expr_ceildiv(x, s->inner, s->tile_rows), n_tiles = expr_mul(x, s->outer, per_outer);
    const int64_t size = dtype_size(s->dtype);
    s->k->blocks = expr_max(x, one, expr_min(x, cores, n_tiles));
    tile_section_begin(&s->b, TCORE_VECTOR);
    s->x = tile_buf(&s->b, "x", TS_UB, s->dtype, 2, size_align(s->cap * size, 64));
    s->at = tile_buf(&s->b, "place", TS_UB, DT_I32, 1, s->cap * 4);
    s->y = tile_buf(&s->b, "y", TS_UB, s->dtype, 1, size_align(s->cap * size, 64));
    s->wide = tile_buf(&s->b, "index", TS_UB, DT_I64, 1, s->cap * 8);
    const expr block = expr_sym(x, s->k->sym_block);
    const expr i = tile_loop(&s->b, "i", expr_ceildiv(x, expr_sub(x, n_tiles, block), s->k->blocks));
    const expr t = expr_add(x, block, expr_mul(x, i, s->k->blocks)), safe = expr_max(x, one, per_outer);
    const expr row0 = expr_mul(x, expr_mod(x, t, safe), s->tile_rows);
    tile_code(s, expr_floordiv(x, t, safe), row0, expr_min(x, s->tile_rows, expr_sub(x, s->inner, row0)));
    tile_end(&s->b);
}

enum npuc_status gen_sort_emit(struct emit *e, struct node *n)
{
    struct expr_pool *x = &e->cx->exprs;
    const struct type *t = node_in(n, 0)->type;
    const int axis = view_axis(n, "axis", -1, t->rank);
    struct top s = {.k = tile_kernel_new(e->arena, &e->plan->strings, "top_k"),
                    .dtype = t->dtype,
                    .values = -1,
                    .indices = -1,
                    .largest = node_attr_int(n, "largest", 1) != 0};
    struct kparams p = {.e = e, .k = s.k};
    int32_t tensors[3] = {emit_tensor(e, node_in(n, 0))}, n_tensors = 1;
    s.b = (struct tile_builder){.k = s.k, .arena = e->arena};
    s.outer = kparam(&p, "outer", view_product(x, t->dims, 0, axis));
    s.len = kparam(&p, "len", t->dims[axis]);
    s.inner = kparam(&p, "inner", view_product(x, t->dims, axis + 1, t->rank));
    s.keep = kparam(&p, "k", n->out[0].type->dims[axis]);
    tile_params_done(s.k);
    s.in = tile_tensor(s.k, e->arena, "x", t->dtype, true, false);
    if (node_out(n, 0)) {
        tensors[n_tensors++] = emit_tensor(e, &n->out[0]);
        s.values = tile_tensor(s.k, e->arena, "values", t->dtype, false, true);
    }
    if (node_out(n, 1)) {
        tensors[n_tensors++] = emit_tensor(e, &n->out[1]);
        s.indices = tile_tensor(s.k, e->arena, "indices", DT_I64, false, true);
    }
    s.cap = (e->m->size[TS_UB] - 512) / (3 * dtype_size(t->dtype) + 12) / 64 * 64;
    code(&s, e->m);
    return emit_launch(e, s.k, tensors, p.bound, EXPR_INVALID, "TopK");
}
