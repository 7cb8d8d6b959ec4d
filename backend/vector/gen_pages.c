/* Rows of caches in pages: CacheAppend moves dense rows into the pages of their sequences, TransData moves the rows of
 * all pages to dense ones.
 *
 *   pool [pages, heads, P, size]           row r of sequence b lies in row r mod P of page table[b][r / P]
 *
 * A unit of work is a page of a sequence, or a part of it: the scalar unit reads the page's number, the DMA moves its
 * rows of several heads at once, each head's in one burst of the pool. Dimensions between the sequence and the rows
 * count as heads, those behind the rows as the row's size. The rows outside of the pool may be a view in which heads
 * and rows have changed places. */
#include "backend/vector/gens.h"

#define PIECE_BYTES 32768 /* doubled, it fits the smallest UB */

struct paging {
    const struct value *cache, *rows, *at; /* at: first row of each sequence, NULL: that of all */
    int axis;
    bool append;
    int64_t page, size;             /* size: elements of a row */
    int64_t ring;                   /* pages that a sequence has and takes in turn; 0: the block table says */
    int64_t heads, piece;           /* of what is moved at once: heads, and rows of each */
    expr seq_step, head_step, step; /* ir: elements between sequences, heads and rows outside of the pool */
    bool together;                  /* rows lie side by side there, too */
};

/* Do dimensions [first, last) of the rows lie as one? *step: between its elements. */
static bool as_one(struct expr_pool *x, const struct type *t, const expr *strides, int first, int last, expr *step)
{
    *step = last > first ? strides[last - 1] : expr_const(x, 0);
    for (int i = first; i + 1 < last; i++)
        if (strides[i] != expr_mul(x, strides[i + 1], t->dims[i + 1]))
            return false;
    return true;
}

static bool read_steps(struct ir_ctx *cx, struct paging *p)
{
    struct expr_pool *x = &cx->exprs;
    const struct type *t = p->rows->type;
    expr strides[IR_MAX_RANK], inner;
    if (!value_strides(cx, p->rows, strides) || !as_one(x, t, strides, 1, p->axis, &p->head_step) ||
        !as_one(x, t, strides, p->axis + 1, t->rank, &inner) || (p->axis + 1 < t->rank && inner != expr_const(x, 1)))
        return false;
    p->seq_step = strides[0];
    p->step = strides[p->axis];
    p->together = p->step == expr_const(x, p->size);
    return true;
}

static bool read_paging(struct ir_ctx *cx, const struct node *n, struct paging *p)
{
    *p = (struct paging){.append = n->op == OP_CacheAppend};
    if (!p->append && n->op != OP_TransData)
        return false;
    p->cache = p->append ? node_out(n, 0) : node_in(n, 0);
    p->rows = p->append ? node_in(n, 1) : node_out(n, 0);
    p->at = p->append ? node_in(n, 2) : NULL;
    if (!p->cache || !p->rows || !p->cache->type->layout.page || p->rows->type->layout.kind != LAYOUT_ND)
        return false;
    const struct type *t = p->cache->type;
    p->axis = t->layout.axis;
    p->page = t->layout.page;
    p->ring = t->layout.ring / p->page;
    p->size = 1;
    for (int i = p->axis + 1; i < t->rank; i++) {
        int64_t d;
        if (!expr_is_const(&cx->exprs, t->dims[i], &d) || d < 1 || d > PIECE_BYTES)
            return false;
        p->size *= d;
        if (p->size > PIECE_BYTES)
            return false;
    }
    const int64_t all = PIECE_BYTES / (dtype_table[t->dtype].bits / 8) / p->size;
    p->piece = p->page < all ? p->page : all;
    p->heads = all > 0 ? all / p->piece : 0;
    return all > 0 && read_steps(cx, p);
}

bool gen_pages_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    struct paging p;
    const struct value *v = n->n_in > 0 ? node_in(n, 0) : NULL;
    if ((n->op != OP_CacheAppend && n->op != OP_TransData) || !v || v->type->kind != TYPE_TENSOR ||
        !v->type->layout.page)
        return false;
    const int bits = dtype_table[v->type->dtype].bits;
    *reason = "rows of pages are whole bytes of a known size";
    if (bits < 8 || bits > 64 || 2 * PIECE_BYTES > m->size[TS_UB] || !read_paging(cx, n, &p))
        return false;
    *reason = "positions must be one 32- or 64-bit integer per batch entry";
    return !p.at || (p.at->type->rank == 1 && (p.at->type->dtype == DT_I64 || p.at->type->dtype == DT_I32));
}

/* ---- program ---------------------------------------------------------------------------------------------- */

struct code {
    const struct paging *p;
    struct expr_pool *x;
    struct tile_builder b;
    enum dtype type;
    expr seq_step, head_step, step;
    expr batch, heads, rows, start, width, last, top; /* of the dense side; columns of the table; the last
                                                       * first row; the last page */
    int32_t table, at, from, to, buf;
};
struct unit {
    expr seq, head, part;  /* first head; first of the rows */
    expr paged, row, rows; /* where the page's rows begin in the pool, and among those of the sequence; their number */
};

static expr num(struct code *c, int64_t v)
{
    return expr_const(c->x, v);
}

static expr load_number(struct code *c, const char *name, int32_t tensor, enum dtype t, const expr at[3])
{
    const int32_t var = tile_var(&c->b, name, (struct expr_range){0, INT32_MAX, 1});
    TILE(&c->b, SLOAD, var, tensor, (int32_t)t, at[0], num(c, 0), at[1], at[2]);
    return expr_sym(c->x, var);
}

/* Page j of a sequence. */
static expr page_number(struct code *c, expr sequence, expr j)
{
    struct expr_pool *x = c->x;
    if (c->p->ring)
        return expr_add(x, expr_mul_const(x, sequence, c->p->ring), expr_mod(x, j, num(c, c->p->ring)));
    const expr column = expr_min(x, j, expr_sub(x, c->width, num(c, 1)));
    const expr at = expr_add(x, expr_mul(x, sequence, c->width), column);
    tile_note(&c->b, "where the page lies");
    return load_number(c, "page", c->table, DT_I32, (const expr[]){at, c->top, expr_add(x, at, num(c, 1))});
}

/* The number of a unit says: sequence, page among those that the rows touch, group of heads, part of a page. */
static struct unit locate(struct code *c, expr i, expr pages, expr groups, int64_t parts)
{
    struct expr_pool *x = c->x;
    const struct paging *p = c->p;
    struct unit u;
    u.part = expr_mul_const(x, expr_mod(x, i, num(c, parts)), p->piece);
    i = expr_floordiv(x, i, num(c, parts));
    u.head = expr_mul_const(x, expr_mod(x, i, groups), p->heads);
    i = expr_floordiv(x, i, groups);
    expr j = expr_mod(x, i, pages);
    u.seq = tile_let(&c->b, "seq", expr_floordiv(x, i, pages));
    expr start = c->start;
    if (p->at) {
        tile_note(&c->b, "the row that the sequence's new ones begin with");
        start = load_number(c, "start", c->at, p->at->type->dtype, (const expr[]){u.seq, c->last, c->last});
    }
    const expr end = expr_add(x, start, c->rows), page = num(c, p->page);
    j = tile_let(&c->b, "j", expr_add(x, j, expr_floordiv(x, start, page)));
    const expr first = expr_mul(x, j, page);
    const expr lo = tile_let(&c->b, "lo", expr_max(x, start, first));
    const expr hi = tile_let(&c->b, "hi", expr_max(x, lo, expr_min(x, end, expr_add(x, first, page))));
    u.paged = page_number(c, u.seq, j);
    u.paged = expr_add(x, expr_mul(x, u.paged, expr_mul_const(x, c->heads, p->page * p->size)),
                       expr_mul_const(x, expr_sub(x, lo, first), p->size));
    u.rows = expr_sub(x, hi, lo);
    u.row = expr_sub(x, lo, start);
    return u;
}

static void move(struct code *c, const struct unit *u)
{
    struct expr_pool *x = c->x;
    const struct paging *p = c->p;
    const int32_t t = (int32_t)c->type;
    const expr z = num(c, 0), one = num(c, 1), size = num(c, p->size), piece = num(c, p->piece * p->size);
    const expr n = tile_let(&c->b, "n", expr_max(x, z, expr_min(x, num(c, p->piece), expr_sub(x, u->rows, u->part))));
    const expr heads = expr_min(x, num(c, p->heads), expr_sub(x, c->heads, u->head));
    const expr stride = num(c, p->page * p->size), run = expr_mul(x, n, size);
    const expr row = expr_mul(x, expr_add(x, u->row, u->part), c->step);
    const expr pool = expr_add(x, u->paged, expr_add(x, expr_mul(x, u->head, stride), expr_mul(x, u->part, size)));
    const expr beside =
        expr_add(x, row, expr_add(x, expr_mul(x, u->seq, c->seq_step), expr_mul(x, u->head, c->head_step)));
    /* {heads, rows, elements} outside of the pool */
    const expr n1 = p->together ? one : heads, n2 = p->together ? heads : n, n3 = p->together ? run : size;
    const expr s1 = p->together ? z : c->head_step, s2 = p->together ? c->head_step : c->step;
    const expr d1 = p->together ? z : piece, d2 = p->together ? piece : size;
    if (p->append) {
        TILE(&c->b, LOAD, c->buf, z, c->from, beside, t, one, n1, n2, n3, z, s1, s2, one, z, d1, d2, one);
        TILE(&c->b, STORE, c->to, pool, c->buf, z, t, one, one, heads, run, z, z, piece, one, z, z, stride, one);
    } else {
        TILE(&c->b, LOAD, c->buf, z, c->from, pool, t, one, one, heads, run, z, z, stride, one, z, z, piece, one);
        TILE(&c->b, STORE, c->to, beside, c->buf, z, t, one, n1, n2, n3, z, d1, d2, one, z, s1, s2, one);
    }
}

static void body(struct code *c, struct tile_kernel *k, int64_t cores)
{
    struct expr_pool *x = c->x;
    const struct paging *p = c->p;
    const expr one = num(c, 1), page = num(c, p->page);
    const int64_t parts = (p->page + p->piece - 1) / p->piece;
    /* rows that begin anywhere within a page touch one more than they fill */
    const expr spread =
        p->append ? expr_add(x, expr_ceildiv(x, expr_sub(x, c->rows, one), page), one) : expr_ceildiv(x, c->rows, page);
    const expr pages = expr_max(x, one, spread), groups = expr_max(x, one, expr_ceildiv(x, c->heads, num(c, p->heads)));
    const expr units = expr_mul_const(x, expr_mul(x, expr_mul(x, c->batch, pages), groups), parts);
    k->blocks = expr_max(x, one, expr_min(x, num(c, cores), units));
    tile_section_begin(&c->b, TCORE_VECTOR);
    c->buf = tile_buf(&c->b, "rows", TS_UB, c->type, 2, PIECE_BYTES);
    const expr own = expr_sym(x, k->sym_block);
    const expr i = tile_loop(&c->b, "i", expr_ceildiv(x, expr_sub(x, units, own), k->blocks));
    const struct unit u = locate(c, expr_add(x, own, expr_mul(x, i, k->blocks)), pages, groups, parts);
    move(c, &u);
    tile_end(&c->b);
}

enum npuc_status gen_pages_emit(struct emit *e, struct node *n)
{
    struct expr_pool *x = emit_pool(e);
    struct paging p;
    struct kparams params = {.e = e};
    if (!read_paging(e->cx, n, &p))
        return node_error(e->cx, n, D_VERIFY, "rows of pages were placed that do not have a known size");
    const struct type *t = p.rows->type;
    const struct emit_pages at = emit_pages(e, p.append ? &n->out[0] : node_in(n, 0));
    if (at.pool < 0)
        return node_error(e->cx, n, D_VERIFY, "a cache in pages that is no input of the model");
    struct code c = {.p = &p, .type = t->dtype};
    params.k = emit_kernel(e, p.append ? "append_pages" : "read_pages", &c.b, &params);
    c.x = &params.k->exprs;
    expr heads = expr_const(x, 1);
    for (int i = 1; i < p.axis; i++)
        heads = expr_mul(x, heads, t->dims[i]);
    c.batch = kparam(&params, "batch", t->dims[0]);
    c.heads = kparam(&params, "heads", heads);
    c.rows = kparam(&params, "rows", t->dims[p.axis]);
    c.start = kparam(&params, "start", p.append ? node_in(n, 0)->type->dims[p.axis] : expr_const(x, 0));
    c.width = kparam(&params, "width", expr_floordiv(x, p.cache->type->layout.capacity, expr_const(x, p.page)));
    c.last = kparam(&params, "last",
                    expr_max(x, expr_const(x, 0), expr_sub(x, p.cache->type->dims[p.axis], t->dims[p.axis])));
    c.seq_step = kparam(&params, "seq_step", p.seq_step);
    c.head_step = kparam(&params, "head_step", p.head_step);
    c.step = kparam(&params, "step", p.step);
    c.top = kparam(&params, "top", expr_sub(x, at.pages, expr_const(x, 1)));
    tile_params_done(params.k);
    if (!p.ring)
        c.table = tile_tensor(params.k, e->arena, "table", DT_I32, true, false);
    if (p.at)
        c.at = tile_tensor(params.k, e->arena, "at", p.at->type->dtype, true, false);
    c.from = tile_tensor(params.k, e->arena, "x", c.type, true, false);
    c.to = tile_tensor(params.k, e->arena, "y", c.type, false, true);
    body(&c, params.k, e->m->n_vector);
    int32_t tensors[4], k = 0;
    if (!p.ring)
        tensors[k++] = at.table;
    if (p.at)
        tensors[k++] = emit_tensor(e, node_in(n, 2));
    tensors[k++] = p.append ? emit_tensor(e, node_in(n, 1)) : at.pool;
    tensors[k++] = p.append ? at.pool : emit_tensor(e, &n->out[0]);
    return emit_launch(e, params.k, tensors, params.bound, EXPR_INVALID, op_table[n->op]->name);
}
