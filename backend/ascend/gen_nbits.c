/* MatMulNBits: y = a x dequantised(w) + bias, w of N x K in blocks along K.
 *
 * Two launches: the vector cores dequantise the weight into a workspace in NZ, rows n (the form constant weights are
 * stored in), then the cube cores multiply as usual. The workspace lives for these two steps only. */
#include "backend/ascend/matmul.h"
#include "backend/ascend/gens.h"
#include "base/size.h"

#include <stdio.h>

enum { IN_A, IN_CODES, IN_SCALES, IN_ZEROS, IN_GROUP, IN_BIAS };

struct nbits {
    enum dtype to, scale_type;
    int64_t n, k, bits, block, blocks; /* blocks per row */
    int zero_kind;                     /* as DEQUANT */
    int64_t code_row, zero_row;        /* bytes; elements of scale_type when zero_kind is 2 */
};

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
    return m->n_vector > 0 ? read_zeros(cx, n, q, reason) : refuse(reason, "the target has no vector cores");
}

bool gen_nbits_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    struct nbits q;
    return nbits_match(m, cx, n, &q, reason);
}

/* ---- dequantisation --------------------------------------------------------------------------------------- */

struct dequant {
    const struct nbits *q;
    struct tile_kernel *k;
    struct expr_pool *x;
    struct tile_builder b;
    int64_t rows, cols, c0;                      /* of a tile */
    int64_t code_pitch, scale_pitch, zero_pitch; /* in UB: bytes, elements, bytes or elements */
    int32_t codes, scales, zeros, out;           /* buffers */
    expr n0, k0, in, ik;
};

static expr num(struct dequant *d, int64_t v)
{
    return expr_const(d->x, v);
}

static void choose_tile(const struct machine *m, struct dequant *d)
{
    const struct nbits *q = d->q;
    const int64_t unit = size_align(q->block * 8, d->c0); /* whole bytes of codes and of packed zero points */
    d->cols = q->k <= 2048 ? size_align(q->k, d->c0) : size_align(2048, unit);
    const int64_t blocks = size_ceil_div(d->cols, q->block) + 1;
    d->code_pitch = size_align(size_align(d->cols, q->block) * q->bits / 8, 32);
    d->scale_pitch = size_align(blocks, 32);
    d->zero_pitch = size_align(q->zero_kind == 1 ? size_ceil_div(blocks * q->bits, 8) : blocks, 32);
    const int64_t ss = dtype_size(q->scale_type);
    const int64_t per_row = 2 * (d->code_pitch + d->scale_pitch * ss + d->zero_pitch * (q->zero_kind == 2 ? ss : 1) +
                                 d->cols * dtype_size(q->to));
    int64_t rows = m->size[TS_UB] / per_row;
    const int64_t even = size_ceil_div(q->n, m->n_vector);
    rows = rows > even ? even : rows;
    d->rows = rows > 16 ? rows / 16 * 16 : rows < 1 ? 1 : rows;
}

static void buffers(struct dequant *d)
{
    const struct nbits *q = d->q;
    const int64_t ss = dtype_size(q->scale_type);
    d->codes = tile_buf(&d->b, "codes", TS_UB, DT_U8, 2, d->rows * d->code_pitch);
    d->scales = tile_buf(&d->b, "scales", TS_UB, q->scale_type, 2, d->rows * d->scale_pitch * ss);
    d->zeros = -1;
    if (q->zero_kind)
        d->zeros = tile_buf(&d->b, "zeros", TS_UB, q->zero_kind == 1 ? DT_U8 : q->scale_type, 2,
                            d->rows * d->zero_pitch * (q->zero_kind == 1 ? 1 : ss));
    d->out = tile_buf(&d->b, "w", TS_UB, q->to, 2, d->rows * d->cols * dtype_size(q->to));
}

static void open_tiles(struct dequant *d, const struct machine *m)
{
    struct expr_pool *x = d->x;
    const int64_t nt = size_ceil_div(d->q->n, d->rows), kt = size_ceil_div(d->q->k, d->cols), tiles = nt * kt;
    const int64_t blocks = tiles < m->n_vector ? tiles : m->n_vector;
    d->k->blocks = num(d, blocks);
    const expr block = expr_sym(x, d->k->sym_block);
    const expr i = tile_loop(&d->b, "i", expr_ceildiv(x, expr_sub(x, num(d, tiles), block), num(d, blocks)));
    const expr t = expr_add(x, block, expr_mul_const(x, i, blocks));
    d->n0 = expr_mul_const(x, expr_floordiv(x, t, num(d, kt)), d->rows);
    d->k0 = expr_mul_const(x, expr_mod(x, t, num(d, kt)), d->cols);
    d->in = expr_min(x, num(d, d->rows), expr_sub(x, num(d, d->q->n), d->n0));
    d->ik = expr_min(x, num(d, d->cols), expr_sub(x, num(d, d->q->k), d->k0));
}

/* rows of `len` elements from a row-major tensor with `row` elements per row, starting at column `first` */
static void load_rows(struct dequant *d, int32_t buf, int32_t tensor, enum dtype t, const expr at[3],
                      const int64_t pitch[2])
{
    struct expr_pool *x = d->x;
    const expr z = num(d, 0), one = num(d, 1), row = num(d, pitch[0]);
    const expr off = expr_add(x, expr_mul(x, d->n0, row), at[0]);
    TILE(&d->b, LOAD, buf, z, tensor, off, t, one, one, d->in, at[1], z, z, row, one, z, z, num(d, pitch[1]), one);
}

static void load_tile(struct dequant *d)
{
    const struct nbits *q = d->q;
    struct expr_pool *x = d->x;
    const expr block0 = expr_floordiv(x, d->k0, num(d, q->block)), blocks = expr_ceildiv(x, d->ik, num(d, q->block));
    const expr code0 = expr_mul_const(x, block0, q->block * q->bits / 8),
               codes = expr_ceildiv(x, expr_mul_const(x, d->ik, q->bits), num(d, 8));
    tile_note(&d->b, "codes, scales and zero points of the tile");
    load_rows(d, d->codes, 0, DT_U8, (const expr[3]){code0, codes}, (const int64_t[2]){q->code_row, d->code_pitch});
    load_rows(d, d->scales, 1, q->scale_type, (const expr[3]){block0, blocks},
              (const int64_t[2]){q->blocks, d->scale_pitch});
    if (q->zero_kind == 1) {
        const expr first = expr_floordiv(x, expr_mul_const(x, block0, q->bits), num(d, 8));
        const expr len = expr_ceildiv(x, expr_mul_const(x, blocks, q->bits), num(d, 8));
        load_rows(d, d->zeros, 2, DT_U8, (const expr[3]){first, len}, (const int64_t[2]){q->zero_row, d->zero_pitch});
    } else if (q->zero_kind == 2) {
        load_rows(d, d->zeros, 2, q->scale_type, (const expr[3]){block0, blocks},
                  (const int64_t[2]){q->zero_row, d->zero_pitch});
    }
}

static void dequant_tile(struct dequant *d, int32_t out_tensor)
{
    const struct nbits *q = d->q;
    struct expr_pool *x = d->x;
    const expr z = num(d, 0), one = num(d, 1), cols = num(d, d->cols);
    const int64_t n_pad = size_align(q->n, 16), zero_bytes = q->zero_kind == 2 ? dtype_size(q->scale_type) : 1;
    tile_note(&d->b, "dequantise; store stripes of c0 columns: NZ");
    TILE(&d->b, DEQUANT, q->to, (int32_t)q->bits, d->in, d->ik, z, (int32_t)q->block, d->out, z, cols, d->codes, z,
         num(d, d->code_pitch), d->scales, z, num(d, d->scale_pitch), q->scale_type, d->zeros, z,
         num(d, d->zero_pitch * zero_bytes), q->zero_kind);
    const expr off = expr_add(x, expr_mul_const(x, d->k0, n_pad), expr_mul_const(x, d->n0, d->c0));
    const expr c0 = num(d, d->c0), stripe = num(d, n_pad * d->c0), full = expr_floordiv(x, d->ik, c0),
               rest = expr_mod(x, d->ik, c0);
    TILE(&d->b, STORE, out_tensor, off, d->out, z, q->to, one, full, d->in, c0, z, c0, cols, one, z, stripe, c0, one);
    if (q->k % d->c0 != 0) {
        const expr done = expr_mul(x, full, c0);
        TILE(&d->b, STORE, out_tensor, expr_add(x, off, expr_mul(x, full, stripe)), d->out, done, q->to, one, one,
             d->in, rest, z, z, cols, one, z, z, c0, one);
    }
}

static enum npuc_status emit_dequant(struct emit *e, const struct nbits *q, struct node *n, int32_t workspace)
{
    char name[48];
    snprintf(name, sizeof name, "dequant%lld_%s", (long long)q->bits, dtype_table[q->to].name);
    struct dequant d = {.q = q, .c0 = e->m->c0_bytes / dtype_size(q->to)};
    d.k = tile_kernel_new(e->arena, &e->plan->strings, name);
    d.x = &d.k->exprs;
    d.b = (struct tile_builder){.k = d.k, .arena = e->arena};
    choose_tile(e->m, &d);
    tile_params_done(d.k);
    int32_t tensors[4] = {emit_tensor(e, node_in(n, IN_CODES)), emit_tensor(e, node_in(n, IN_SCALES))}, count = 2;
    tile_tensor(d.k, e->arena, "codes", DT_U8, true, false);
    tile_tensor(d.k, e->arena, "scales", q->scale_type, true, false);
    if (q->zero_kind) {
        tile_tensor(d.k, e->arena, "zeros", q->zero_kind == 1 ? DT_U8 : q->scale_type, true, false);
        tensors[count++] = emit_tensor(e, node_in(n, IN_ZEROS));
    }
    const int32_t out = tile_tensor(d.k, e->arena, "W", q->to, false, true);
    tensors[count] = workspace;
    tile_section_begin(&d.b, TCORE_VECTOR);
    buffers(&d);
    open_tiles(&d, e->m);
    load_tile(&d);
    dequant_tile(&d, out);
    tile_end(&d.b);
    return emit_launch(e, d.k, tensors, NULL, EXPR_INVALID, "MatMulNBits");
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

enum npuc_status gen_nbits_emit(struct emit *e, struct node *n)
{
    struct nbits q;
    const char *why = NULL;
    if (!nbits_match(e->m, e->cx, n, &q, &why))
        return node_error(e->cx, n, D_VERIFY, "a block-quantised product was placed on the NPU that it cannot do: %s",
                          why ? why : "");
    struct expr_pool *x = &e->cx->exprs;
    const int64_t c0 = e->m->c0_bytes / dtype_size(q.to);
    const expr dims[3] = {expr_const(x, size_ceil_div(q.k, c0)), expr_const(x, size_align(q.n, 16)), expr_const(x, c0)};
    const int32_t workspace = emit_temp(e, "dequantised", q.to, 3, dims);
    const enum npuc_status st = emit_dequant(e, &q, n, workspace);
    if (st != NPUC_OK)
        return st;
    const struct mm p = product(e, &q, n);
    struct mm_tensors t = {.a = emit_tensor(e, p.a), .b = workspace, .c = emit_tensor(e, p.c), .bias = -1};
    if (p.bias)
        t.bias = value_const(p.bias)
                     ? emit_weight(e, p.bias, p.bias->type->dtype == DT_F32 ? WF_COPY : WF_CAST, DT_F32, false)
                     : emit_tensor(e, p.bias);
    return mm_emit(e, &p, &t, "MatMulNBits");
}
