/* Dequantisation as a launch of its own: the vector cores write the weight to a workspace in the form that constants of
 * products are stored in, NZ or row by row, rows n. The workspace lives until the product. Where rows choose their
 * matrix it has room for all, and the cores dequantise those that were chosen, in the walk of the product
 * (mm_grouped.h): nothing is read of the others. */
#include "backend/matrix/mm_grouped.h"
#include "backend/matrix/nbits.h"
#include "base/size.h"

#include <stdio.h>

struct dequant {
    struct nbits_tile t;
    struct tile_kernel *k;
    struct expr_pool *x;
    const struct mm *p;
    struct mm_groups groups; /* where rows choose their matrix */
    int64_t c0;              /* elements of a line of NZ; 0: row by row */
    int32_t buf;             /* result in UB: rows of t.cols */
};

static expr num(struct dequant *d, int64_t v)
{
    return expr_const(d->x, v);
}

/* Number of a tile of the weight; *first: of the rows of its matrix among all. Opens one loop, two with groups. */
static expr open_walk(struct dequant *d, const struct machine *m, int64_t tiles, expr *first)
{
    struct expr_pool *x = d->x;
    if (d->p->ends) { /* whatever their number, the rows of a group ask for its matrix once */
        const expr t = mm_groups_open(&d->groups, d->t.b, m->n_vector, INT32_MAX, num(d, tiles));
        *first = expr_mul_const(x, d->groups.which, d->t.q->n);
        return t;
    }
    const int64_t blocks = tiles < m->n_vector ? tiles : m->n_vector;
    d->k->blocks = num(d, blocks);
    const expr block = expr_sym(x, d->k->sym_block);
    const expr i = tile_loop(d->t.b, "i", expr_ceildiv(x, expr_sub(x, num(d, tiles), block), num(d, blocks)));
    *first = num(d, 0);
    return expr_add(x, block, expr_mul_const(x, i, blocks));
}

static void open_tiles(struct dequant *d, const struct machine *m)
{
    struct expr_pool *x = d->x;
    struct nbits_tile *v = &d->t;
    const int64_t nt = size_ceil_div(v->q->n, v->rows), kt = size_ceil_div(v->q->k, v->cols);
    expr first;
    const expr t = open_walk(d, m, nt * kt, &first);
    const expr n0 = expr_mul_const(x, expr_floordiv(x, t, num(d, kt)), v->rows);
    v->n0 = expr_add(x, first, n0);
    v->k0 = expr_mul_const(x, expr_mod(x, t, num(d, kt)), v->cols);
    v->in = expr_min(x, num(d, v->rows), expr_sub(x, num(d, v->q->n), n0));
    v->ik = expr_min(x, num(d, v->cols), expr_sub(x, num(d, v->q->k), v->k0));
}

static void dequant_rows(struct dequant *d, int32_t out_tensor)
{
    struct nbits_tile *t = &d->t;
    struct expr_pool *x = d->x;
    const expr z = num(d, 0), one = num(d, 1);
    nbits_dequant_rows(t, d->buf, t->cols);
    const expr off = expr_add(x, expr_mul_const(x, t->n0, t->q->k), t->k0);
    TILE(t->b, STORE, out_tensor, off, d->buf, z, t->q->to, one, one, t->in, t->ik, z, z, num(d, t->cols), one, z, z,
         num(d, t->q->k), one);
}

static void dequant_tile(struct dequant *d, int32_t out_tensor)
{
    struct nbits_tile *t = &d->t;
    struct expr_pool *x = d->x;
    if (d->c0 == 0) {
        dequant_rows(d, out_tensor);
        return;
    }
    const expr z = num(d, 0), one = num(d, 1), c0 = num(d, d->c0);
    const int64_t n_pad = size_align(t->q->n * t->q->groups, 16);
    nbits_dequant(t, &(struct nbits_dst){.buf = d->buf, .c0 = d->c0, .first = z, .cols = t->ik});
    const expr off = expr_add(x, expr_mul_const(x, t->k0, n_pad), expr_mul_const(x, t->n0, d->c0));
    TILE(t->b, STORE, out_tensor, off, d->buf, z, t->q->to, one, expr_ceildiv(x, t->ik, c0), one,
         expr_mul(x, t->in, c0), z, num(d, t->rows * d->c0), z, one, z, num(d, n_pad * d->c0), z, one);
}

static enum npuc_status emit_dequant(struct emit *e, const struct mm *p, const struct mm_tensors *to, const char *label)
{
    const struct nbits *q = p->codes;
    char name[48];
    snprintf(name, sizeof name, "dequant%lld_%s%s", (long long)q->bits, dtype_table[q->to].name,
             p->ends ? "_grouped" : "");
    struct dequant d = {.t = {.q = q}, .p = p, .c0 = e->m->mac_rows ? 0 : e->m->c0_bytes / dtype_size(q->to)};
    struct tile_builder b;
    struct kparams params;
    d.k = emit_kernel(e, name, &b, &params);
    d.x = &d.k->exprs;
    (void)nbits_choose_tile(e->m, &d.t);
    if (p->ends)
        mm_groups_declare(&d.groups, p, &params);
    tile_params_done(d.k);
    nbits_declare(&d.t, q, &b);
    const int32_t out = tile_tensor(d.k, e->arena, "W", q->to, false, true);
    if (p->ends)
        mm_groups_tensors(&d.groups, d.k, e->arena);
    int32_t tensors[6], count = nbits_tensor_count(q);
    for (int32_t i = 0; i < count; i++)
        tensors[i] = q->tensors[i];
    tensors[count] = to->b;
    tensors[count + 1] = to->index;
    tensors[count + 2] = to->ends;
    tile_section_begin(&b, TCORE_VECTOR);
    nbits_buffers(&d.t);
    d.buf = tile_buf(&b, "w", TS_UB, q->to, 2, d.t.rows * d.t.cols * dtype_size(q->to));
    open_tiles(&d, e->m);
    nbits_load(&d.t);
    dequant_tile(&d, out);
    tile_end(&b);
    if (p->ends)
        tile_end(&b);
    return emit_launch(e, d.k, tensors, params.bound, EXPR_INVALID, label);
}

enum npuc_status nbits_dequant_all(struct emit *e, const struct nbits *q, const struct mm *product,
                                   struct mm_tensors *t)
{
    struct expr_pool *x = &e->cx->exprs;
    struct mm p = *product;
    const int64_t c0 = e->m->c0_bytes / dtype_size(q->to), rows = q->n * q->groups;
    expr dims[3] = {expr_const(x, size_ceil_div(q->k, c0)), expr_const(x, size_align(rows, 16)), expr_const(x, c0)};
    if (e->m->mac_rows) {
        dims[0] = expr_const(x, rows);
        dims[1] = expr_const(x, q->k);
        dims[2] = expr_const(x, 1);
    }
    p.codes = q;
    t->b = emit_temp(e, "dequantised", q->to, 3, dims);
    return p.ends ? mm_emit_by_rows(e, &p, t, "MatMulNBits", emit_dequant) : emit_dequant(e, &p, t, "MatMulNBits");
}
