/* MatMulNBits: y = a x dequantised(w) + bias, w of N x K in blocks along K.
 *
 * Where matrix and vector cores can run one kernel, the vector cores dequantise the blocks of the weight that the cube
 * core needs next (nbits_feed.c). Elsewhere there are two launches: the vector cores dequantise the weight into a
 * workspace in NZ, rows n (the form constant weights are stored in), then the cube cores multiply as usual; the
 * workspace lives for these two steps only. Both round the dequantised value to the type of a: the bits are the same.
 */
#include "backend/ascend/nbits.h"
#include "backend/ascend/gens.h"
#include "base/size.h"

#include <stdio.h>

enum { IN_A, IN_CODES, IN_SCALES, IN_ZEROS, IN_GROUP, IN_BIAS };

static bool refuse(const char **reason, const char *why)
{
    *reason = why;
    return false;
}

static bool read_zeros(struct ir_ctx *cx, const struct node *n, struct nbits *q, const char **reason)
{
    const struct value *z = node_in(n, IN_ZEROS);
    if (!z)
        return true;
    const bool packed = z->type->dtype == DT_U8;
    q->zero_kind = packed ? 1 : 2;
    q->zero_row = packed ? size_ceil_div(q->blocks * q->bits, 8) : q->blocks;
    if (type_const_count(cx, z->type) != q->n * q->zero_row)
        return refuse(reason, "zero points that are not packed like the codes");
    return packed || z->type->dtype == q->scale_type ? true
                                                     : refuse(reason, "zero points of another type than the scales");
}

/* Rows by columns in a slot; false when not even one row fits. */
static bool choose_tile(const struct machine *m, struct nbits_tile *t)
{
    const struct nbits *q = t->q;
    const int64_t unit = nbits_unit(q), even = size_ceil_div(q->n, m->n_vector);
    t->cols = q->k <= 2048 ? size_align(q->k, 16) : size_align(2048, unit);
    t->rows = 1;
    const int64_t per_row = 2 * (nbits_tile_bytes(t) + t->cols * dtype_size(q->to));
    int64_t rows = m->size[TS_UB] / per_row;
    rows = rows > even ? even : rows;
    t->rows = rows > 16 ? rows / 16 * 16 : rows;
    return rows >= 1;
}

static bool has_mac(const struct machine *m, enum dtype t)
{
    const enum target_key key = t == DT_F32 ? TK_MAC_F32 : t == DT_F16 ? TK_MAC_F16 : TK_MAC_BF16;
    return target_num(m->target, key) > 0;
}

static bool nbits_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct nbits *q,
                        const char **reason)
{
    if (n->op != OP_MatMulNBits)
        return false;
    const struct value *a = node_in(n, IN_A), *s = node_in(n, IN_SCALES), *bias = node_in(n, IN_BIAS);
    *q = (struct nbits){.to = a->type->dtype,
                        .scale_type = s->type->dtype,
                        .n = node_attr_int(n, "N", 0),
                        .k = node_attr_int(n, "K", 0),
                        .bits = node_attr_int(n, "bits", 4),
                        .block = node_attr_int(n, "block_size", 0)};
    q->blocks = size_ceil_div(q->k, q->block);
    q->code_row = q->blocks * (q->block * q->bits / 8);
    if (node_in(n, IN_GROUP))
        return refuse(reason, "weights with a group index (g_idx)");
    if ((q->to != DT_F32 && q->to != DT_F16 && q->to != DT_BF16) || a->type->rank < 1 ||
        a->type->layout.kind != LAYOUT_ND)
        return refuse(reason, "block-quantised products take f32, f16 or bf16 of known rank");
    if (bias && bias->type->dtype != DT_F32 && !value_const(bias))
        return refuse(reason, "a computed bias must be f32");
    if (!has_mac(m, q->to))
        return refuse(reason, "the matrix unit does not multiply this type");
    if (bias && m->size[TS_BT] <= 0)
        return refuse(reason, "the target has no bias table");
    if (m->n_vector <= 0)
        return refuse(reason, "the target has no vector cores");
    if (q->n < 1 || q->k < 1 || !read_zeros(cx, n, q, reason))
        return false;
    struct nbits_tile t = {.q = q};
    return choose_tile(m, &t) ? true : refuse(reason, "blocks of codes that do not fit on chip");
}

bool gen_nbits_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    struct nbits q;
    return nbits_match(m, cx, n, &q, reason);
}

/* ---- dequantisation as a launch of its own ---------------------------------------------------------------- */

struct dequant {
    struct nbits_tile t;
    struct tile_kernel *k;
    struct expr_pool *x;
    int64_t c0;
    int32_t buf; /* result in UB: rows of t.cols */
};

static expr num(struct dequant *d, int64_t v)
{
    return expr_const(d->x, v);
}

static void open_tiles(struct dequant *d, const struct machine *m)
{
    struct expr_pool *x = d->x;
    struct nbits_tile *v = &d->t;
    const int64_t nt = size_ceil_div(v->q->n, v->rows), kt = size_ceil_div(v->q->k, v->cols), tiles = nt * kt;
    const int64_t blocks = tiles < m->n_vector ? tiles : m->n_vector;
    d->k->blocks = num(d, blocks);
    const expr block = expr_sym(x, d->k->sym_block);
    const expr i = tile_loop(v->b, "i", expr_ceildiv(x, expr_sub(x, num(d, tiles), block), num(d, blocks)));
    const expr t = expr_add(x, block, expr_mul_const(x, i, blocks));
    v->n0 = expr_mul_const(x, expr_floordiv(x, t, num(d, kt)), v->rows);
    v->k0 = expr_mul_const(x, expr_mod(x, t, num(d, kt)), v->cols);
    v->in = expr_min(x, num(d, v->rows), expr_sub(x, num(d, v->q->n), v->n0));
    v->ik = expr_min(x, num(d, v->cols), expr_sub(x, num(d, v->q->k), v->k0));
}

static void dequant_tile(struct dequant *d, int32_t out_tensor)
{
    struct nbits_tile *t = &d->t;
    struct expr_pool *x = d->x;
    const expr z = num(d, 0), one = num(d, 1), c0 = num(d, d->c0);
    const int64_t n_pad = size_align(t->q->n, 16);
    nbits_dequant(t, &(struct nbits_dst){.buf = d->buf, .c0 = d->c0, .first = z, .cols = t->ik});
    const expr off = expr_add(x, expr_mul_const(x, t->k0, n_pad), expr_mul_const(x, t->n0, d->c0));
    TILE(t->b, STORE, out_tensor, off, d->buf, z, t->q->to, one, expr_ceildiv(x, t->ik, c0), one,
         expr_mul(x, t->in, c0), z, num(d, t->rows * d->c0), z, one, z, num(d, n_pad * d->c0), z, one);
}

static enum npuc_status emit_dequant(struct emit *e, const struct nbits *q, int32_t workspace)
{
    char name[48];
    snprintf(name, sizeof name, "dequant%lld_%s", (long long)q->bits, dtype_table[q->to].name);
    struct dequant d = {.t = {.q = q}, .c0 = e->m->c0_bytes / dtype_size(q->to)};
    d.k = tile_kernel_new(e->arena, &e->plan->strings, name);
    d.x = &d.k->exprs;
    struct tile_builder b = {.k = d.k, .arena = e->arena};
    (void)choose_tile(e->m, &d.t);
    tile_params_done(d.k);
    nbits_declare(&d.t, q, &b);
    const int32_t out = tile_tensor(d.k, e->arena, "W", q->to, false, true);
    int32_t tensors[4], count = nbits_tensor_count(q);
    for (int32_t i = 0; i < count; i++)
        tensors[i] = q->tensors[i];
    tensors[count] = workspace;
    tile_section_begin(&b, TCORE_VECTOR);
    nbits_buffers(&d.t);
    d.buf = tile_buf(&b, "w", TS_UB, q->to, 2, d.t.rows * d.t.cols * dtype_size(q->to));
    open_tiles(&d, e->m);
    nbits_load(&d.t);
    dequant_tile(&d, out);
    tile_end(&b);
    return emit_launch(e, d.k, tensors, NULL, EXPR_INVALID, "MatMulNBits");
}

static enum npuc_status dequant_all(struct emit *e, const struct nbits *q, int32_t *workspace)
{
    struct expr_pool *x = &e->cx->exprs;
    const int64_t c0 = e->m->c0_bytes / dtype_size(q->to);
    const expr dims[3] = {expr_const(x, size_ceil_div(q->k, c0)), expr_const(x, size_align(q->n, 16)),
                          expr_const(x, c0)};
    *workspace = emit_temp(e, "dequantised", q->to, 3, dims);
    return emit_dequant(e, q, *workspace);
}

/* ---- product ---------------------------------------------------------------------------------------------- */

static struct mm product(struct emit *e, const struct nbits *q, struct node *n)
{
    struct expr_pool *x = &e->cx->exprs;
    struct mm p = {.in = q->to,
                   .out = q->to,
                   .a = node_in(n, IN_A),
                   .c = node_out(n, 0),
                   .bias = node_in(n, IN_BIAS),
                   .weight = true};
    p.m = expr_const(x, 1);
    for (int i = 0; i < p.a->type->rank - 1; i++)
        p.m = expr_mul(x, p.m, p.a->type->dims[i]);
    p.n = p.b_row = p.c_row = expr_const(x, q->n);
    p.k = p.a_row = expr_const(x, q->k);
    return p;
}

/* The weight while the product runs, in one kernel; false when the machine has no such kernels. */
static bool feeds(const struct machine *m, const struct nbits_feed *f)
{
    struct mm_tile t = {.n = 16};
    return m->mixed && m->vector_per_cube == 2 && m->n_vector >= 2 * m->n_cube &&
           f->feed.fit(&f->feed, m, m->size[TS_L0B] / (2 * 16 * dtype_size(f->q->to)), &t);
}

static void take_tensors(struct emit *e, struct node *n, struct nbits *q)
{
    for (int32_t i = 0; i < nbits_tensor_count(q); i++)
        q->tensors[i] = emit_tensor(e, node_in(n, IN_CODES + i));
}

enum npuc_status gen_nbits_emit(struct emit *e, struct node *n)
{
    struct nbits q;
    struct nbits_feed f;
    const char *why = NULL;
    if (!nbits_match(e->m, e->cx, n, &q, &why))
        return node_error(e->cx, n, D_VERIFY, "a block-quantised product was placed on the NPU that it cannot do: %s",
                          why ? why : "");
    take_tensors(e, n, &q);
    struct mm p = product(e, &q, n);
    struct mm_tensors t = {.a = emit_tensor(e, p.a), .b = -1, .c = emit_tensor(e, p.c), .bias = -1};
    nbits_feed_init(&f, &q, e->m, e->tiling);
    enum npuc_status st = NPUC_OK;
    if (feeds(e->m, &f))
        p.feed = &f.feed;
    else
        st = dequant_all(e, &q, &t.b);
    if (st != NPUC_OK)
        return st;
    if (p.bias)
        t.bias = value_const(p.bias)
                     ? emit_weight(e, p.bias, p.bias->type->dtype == DT_F32 ? WF_COPY : WF_CAST, DT_F32, false)
                     : emit_tensor(e, p.bias);
    return mm_emit(e, &p, &t, "MatMulNBits");
}
