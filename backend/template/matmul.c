/* Matrix products of the template family: a generator with everything that one has to have, and nothing more.
 *
 *   for each tile t of this core:          t = core + i*cores, m fastest
 *     for each block of K (double):        rows of a to UB, rows of b to L0B         MTE2
 *                                          sums in UB                                M
 *     relu, narrowed                                                                 V
 *     store the rows                                                                 MTE3
 *
 * What a product is, and what may be fused into it, backend/matrix/mm.h says for all families. A program is written as
 * if executed serially: the scheduler places buffers and adds the flags, so that loads of the next block run beside the
 * sums of this one. */
#include "backend/matrix/mm_dims.h"
#include "kernels/vec.h"

/* Extents of a tile and of a block of K: fixed here; a real family chooses (backend/mlu/product_tile.c). */
enum { TILE_M = 32, TILE_N = 64, TILE_K = 128 };

struct code {
    const struct mm *p;
    struct tile_builder b;
    struct expr_pool *x;
    struct mm_dims d;
    bool turn;                                      /* b is stored with K along its columns */
    int32_t a, cols, turned, rows, sum, out, start; /* buffers; rows: of b */
    expr m0, n0, k0, m, n, k;                       /* of the tile and the block: where it begins, how long it is */
    expr off_a, off_b, off_c;                       /* of the batch member */
};
enum { A, B, C, BIAS }; /* tensors of the kernel */

bool gen_template_matmul_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason);
bool gen_template_matmul_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    struct mm p;
    if (!mm_match(m, cx, n, &p, reason))
        return false;
    *reason = "the left operand has to be stored by rows";
    return !p.a_trans;
}

/* rows x cols elements at `off`, `pitch` apart on chip. */
static void load(struct code *c, int32_t buf, int32_t tensor, expr off, expr rows, expr cols, expr row, int pitch)
{
    const expr z = expr_const(c->x, 0), one = expr_const(c->x, 1);
    const enum dtype t = tensor == BIAS ? DT_F32 : c->p->in;
    TILE(&c->b, LOAD, buf, z, tensor, off, t, one, one, rows, cols, z, z, row, one, z, z, expr_const(c->x, pitch), one);
}

static expr place(struct code *c, expr base, expr row, expr stride, expr col)
{
    return expr_add(c->x, expr_add(c->x, base, expr_mul(c->x, row, stride)), col);
}

static void block_of_k(struct code *c, expr first)
{
    struct expr_pool *x = c->x;
    const expr z = expr_const(x, 0), pitch = expr_const(x, TILE_K);
    load(c, c->a, A, place(c, c->off_a, c->m0, c->d.a_row, c->k0), c->m, c->k, c->d.a_row, TILE_K);
    if (c->turn) {
        load(c, c->cols, B, place(c, c->off_b, c->k0, c->d.b_row, c->n0), c->k, c->n, c->d.b_row, TILE_N);
        TILE(&c->b, TRANSP, c->p->in, c->k, c->n, c->turned, z, pitch, c->cols, z, expr_const(x, TILE_N));
        TILE(&c->b, COPY_ROWS, c->rows, z, pitch, c->turned, z, pitch, c->p->in, c->n, c->k);
    } else
        load(c, c->rows, B, place(c, c->off_b, c->n0, c->d.b_row, c->k0), c->n, c->k, c->d.b_row, TILE_K);
    TILE(&c->b, MAC_ROWS, c->sum, z, expr_const(x, TILE_N), c->a, z, pitch, c->rows, z, pitch, c->p->in, c->m, c->n,
         c->k, first);
}

static void finish(struct code *c)
{
    const enum dtype sum = mm_sum(c->p->in);
    const expr z = expr_const(c->x, 0), one = expr_const(c->x, 1), pitch = expr_const(c->x, TILE_N);
    if (c->p->relu)
        TILE(&c->b, VEC, K_FN_Relu, sum, c->m, c->n, c->sum, z, pitch, c->sum, z, pitch, 1, -1, 0, z, 0, -1, 0, z, 0, 0,
             0, 0);
    if (c->out != c->sum)
        TILE(&c->b, CAST, c->p->out, sum, c->m, c->n, c->out, z, pitch, c->sum, z, pitch, 1, 1);
    TILE(&c->b, STORE, C, place(c, c->off_c, c->m0, c->d.c_row, c->n0), c->out, z, c->p->out, one, one, c->m, c->n, z,
         z, pitch, one, z, z, c->d.c_row, one);
}

/* One tile of the result: its bias as the start of every row, the blocks of K in ascending order, what follows. */
static void tile(struct code *c)
{
    struct expr_pool *x = c->x;
    const expr z = expr_const(x, 0), one = expr_const(x, 1), kb = expr_const(x, TILE_K);
    if (c->p->bias) {
        load(c, c->start, BIAS, c->n0, one, c->n, z, 0);
        TILE(&c->b, COPY_UB, DT_F32, c->m, c->n, c->sum, z, expr_const(x, TILE_N), c->start, z, z, 1);
    }
    const expr j = tile_loop(&c->b, "kb", expr_max(x, one, expr_ceildiv(x, c->d.k, kb))); /* K = 0 still writes */
    c->k0 = expr_mul(x, j, kb);
    c->k = expr_min(x, kb, expr_sub(x, c->d.k, c->k0));
    block_of_k(c, c->p->bias ? z : expr_cmp(x, EXPR_EQ, j, z));
    tile_end(&c->b);
    finish(c);
}

static void buffers(struct code *c)
{
    const enum dtype in = c->p->in, sum = mm_sum(in), out = c->p->out;
    const int64_t es = dtype_size(in);
    c->a = tile_buf(&c->b, "a", TS_UB, in, 2, TILE_M * TILE_K * es);
    c->cols = c->turn ? tile_buf(&c->b, "b_cols", TS_UB, in, 2, TILE_K * TILE_N * es) : -1;
    c->turned = c->turn ? tile_buf(&c->b, "b_turned", TS_UB, in, 1, TILE_K * TILE_N * es) : -1;
    c->rows = tile_buf(&c->b, "b", TS_L0B, in, 2, TILE_N * TILE_K * es);
    c->sum = tile_buf(&c->b, "sum", TS_UB, sum, 2, TILE_M * TILE_N * 4);
    c->out = out == sum ? c->sum : tile_buf(&c->b, "out", TS_UB, out, 2, TILE_M * TILE_N * dtype_size(out));
    c->start = c->p->bias ? tile_buf(&c->b, "bias", TS_UB, DT_F32, 2, TILE_N * 4) : -1;
}

/* The loop over this core's tiles. */
static void body(struct code *c, struct tile_kernel *k, int32_t cores)
{
    struct expr_pool *x = c->x;
    const expr tm = expr_const(x, TILE_M), tn = expr_const(x, TILE_N), block = expr_sym(x, k->sym_block);
    const expr mt = expr_ceildiv(x, c->d.m, tm), nt = expr_ceildiv(x, c->d.n, tn);
    const expr tiles = expr_mul(x, mm_batch_count(x, &c->d), expr_mul(x, mt, nt));
    k->blocks = expr_max(x, expr_const(x, 1), expr_min(x, expr_const(x, cores), tiles));
    const expr i = tile_loop(&c->b, "i", expr_ceildiv(x, expr_sub(x, tiles, block), k->blocks));
    const expr t = expr_add(x, block, expr_mul(x, i, k->blocks)), rest = expr_floordiv(x, t, mt);
    const expr member = expr_floordiv(x, rest, nt);
    c->m0 = expr_mul(x, expr_mod(x, t, mt), tm);
    c->n0 = expr_mul(x, expr_mod(x, rest, nt), tn);
    c->m = expr_min(x, tm, expr_sub(x, c->d.m, c->m0));
    c->n = expr_min(x, tn, expr_sub(x, c->d.n, c->n0));
    c->off_a = mm_batch_offset(x, &c->d, member, c->d.a_batch);
    c->off_b = mm_batch_offset(x, &c->d, member, c->d.b_batch);
    c->off_c = mm_batch_offset(x, &c->d, member, c->d.c_batch);
    tile(c);
    tile_end(&c->b);
}

enum npuc_status gen_template_matmul_emit(struct emit *e, struct node *n);
enum npuc_status gen_template_matmul_emit(struct emit *e, struct node *n)
{
    struct mm p;
    const char *why = "";
    if (!mm_match(e->m, e->cx, n, &p, &why))
        return node_error(e->cx, n, D_VERIFY, "a product was placed on the matrix unit that it cannot do: %s", why);
    /* a constant is stored once with K along its rows, in the type of the product */
    const bool as_is = p.b->type->dtype == p.in && !(p.weight && p.weight_trans);
    const int32_t b =
        as_is ? emit_tensor(e, p.b)
              : emit_weight(e, p.b, p.b->type->dtype == p.in ? WF_COPY : WF_CAST, p.in, p.weight && p.weight_trans);
    const int32_t tensors[] = {emit_tensor(e, p.a), b, emit_tensor(e, p.c), mm_bias_tensor(e, &p)};
    struct tile_kernel *k = tile_kernel_new(e->arena, &e->plan->strings, "matmul");
    struct kparams params = {.e = e, .k = k};
    struct code c = {.p = &p, .b = {.k = k, .arena = e->arena}, .x = &k->exprs, .turn = !p.weight && !p.b_trans};
    mm_dims_declare(&c.d, &params, &p);
    c.d.b_row = p.weight ? c.d.k : c.d.b_row;
    tile_params_done(k);
    tile_tensor(k, e->arena, "A", p.in, true, false);
    tile_tensor(k, e->arena, "B", p.in, true, false);
    tile_tensor(k, e->arena, "C", p.out, false, true);
    if (p.bias)
        tile_tensor(k, e->arena, "bias", DT_F32, true, false);
    tile_section_begin(&c.b, TCORE_VECTOR);
    buffers(&c);
    body(&c, k, e->m->n_cube);
    return emit_launch(e, k, tensors, params.bound, mm_macs(e, &p),
                       n->op == OP_Fused ? "FusedMatMul" : op_table[n->op]->name);
}
