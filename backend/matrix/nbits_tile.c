/* Codes of a quantised weight in UB: rows as stored, beside the scales and zero points of their blocks. */
#include "backend/matrix/nbits.h"
#include "base/size.h"

static int64_t lcm(int64_t a, int64_t b)
{
    return a / size_gcd(a, b) * b;
}

int64_t nbits_line(const struct nbits *q)
{
    return q->to == DT_I8 ? 32 : 16;
}

int64_t nbits_unit(const struct nbits *q)
{
    const int64_t whole = nbits_line(q);
    if (q->blocks == 1)
        return whole;
    return lcm(q->zero_kind == 1 ? q->block * (8 / q->bits) : q->block, whole);
}

static int64_t scale_size(const struct nbits *q)
{
    return dtype_size(q->scale_type);
}

int64_t nbits_tile_bytes(struct nbits_tile *t)
{
    const struct nbits *q = t->q;
    const int64_t blocks = q->blocks == 1 ? 1 : size_ceil_div(t->cols, q->block);
    t->code_pitch = size_align(size_ceil_div(t->cols * q->bits, 8), 32);
    t->scale_pitch = size_align(blocks * scale_size(q), 32) / scale_size(q);
    t->zero_pitch = q->zero_kind == 1 ? size_align(size_ceil_div(blocks * q->bits, 8), 32)
                    : q->zero_kind    ? t->scale_pitch
                                      : 0;
    return t->rows *
           (t->code_pitch + t->scale_pitch * scale_size(q) + t->zero_pitch * (q->zero_kind == 2 ? scale_size(q) : 1));
}

int32_t nbits_tensor_count(const struct nbits *q)
{
    return q->zero_kind ? 3 : 2;
}

bool nbits_is_peer(const struct nbits *p, const struct nbits *q)
{
    return p->to == q->to && p->out == q->out && p->scale_type == q->scale_type && p->code == q->code && p->k == q->k &&
           p->bits == q->bits && p->block == q->block && p->zero_kind == q->zero_kind && p->groups == 1 &&
           q->groups == 1;
}

void nbits_declare(struct nbits_tile *t, const struct nbits *q, struct tile_builder *b)
{
    const char *text = t->part > 0 ? arena_printf(b->arena, "%d", t->part + 1) : "";
    t->q = q;
    t->b = b;
    t->tensor = tile_tensor(b->k, b->arena, arena_printf(b->arena, "codes%s", text), DT_U8, true, false);
    (void)tile_tensor(b->k, b->arena, arena_printf(b->arena, "scales%s", text), q->scale_type, true, false);
    if (q->zero_kind)
        (void)tile_tensor(b->k, b->arena, arena_printf(b->arena, "zeros%s", text),
                          q->zero_kind == 1 ? DT_U8 : q->scale_type, true, false);
}

void nbits_buffers(struct nbits_tile *t)
{
    const struct nbits *q = t->q;
    const int64_t ss = scale_size(q);
    (void)nbits_tile_bytes(t);
    t->codes = tile_buf(t->b, "codes", TS_UB, DT_U8, 2, t->rows * t->code_pitch);
    t->scales = tile_buf(t->b, "scales", TS_UB, q->scale_type, 2, t->rows * t->scale_pitch * ss);
    t->zeros = -1;
    if (q->zero_kind)
        t->zeros = tile_buf(t->b, "zeros", TS_UB, q->zero_kind == 1 ? DT_U8 : q->scale_type, 2,
                            t->rows * t->zero_pitch * (q->zero_kind == 1 ? 1 : ss));
}

struct rows {
    int32_t buf, tensor;
    enum dtype t;
    int64_t row, pitch; /* elements: of the tensor, in UB */
    expr first, len;
};

static void load_rows(struct nbits_tile *t, const struct rows *r)
{
    struct expr_pool *x = &t->b->k->exprs;
    const expr z = expr_const(x, 0), one = expr_const(x, 1);
    const expr off = expr_add(x, expr_mul_const(x, t->n0, r->row), r->first);
    TILE(t->b, LOAD, r->buf, z, r->tensor, off, r->t, one, one, t->in, r->len, z, z, expr_const(x, r->row), one, z, z,
         expr_const(x, r->pitch), one);
}

void nbits_load(struct nbits_tile *t)
{
    const struct nbits *q = t->q;
    struct expr_pool *x = &t->b->k->exprs;
    const expr bits = expr_const(x, q->bits), eight = expr_const(x, 8), block = expr_const(x, q->block);
    const bool one = q->blocks == 1;
    const expr first = one ? expr_const(x, 0) : expr_floordiv(x, t->k0, block);
    const expr count = one ? expr_const(x, 1) : expr_ceildiv(x, t->ik, block);
    tile_note(t->b, "codes, scales and zero points of the tile");
    load_rows(t, &(struct rows){t->codes, t->tensor, DT_U8, q->code_row, t->code_pitch,
                                expr_floordiv(x, expr_mul(x, t->k0, bits), eight),
                                expr_ceildiv(x, expr_mul(x, t->ik, bits), eight)});
    load_rows(t, &(struct rows){t->scales, t->tensor + 1, q->scale_type, q->blocks, t->scale_pitch, first, count});
    if (q->zero_kind == 1)
        load_rows(t, &(struct rows){t->zeros, t->tensor + 2, DT_U8, q->zero_row, t->zero_pitch,
                                    expr_floordiv(x, expr_mul(x, first, bits), eight),
                                    expr_ceildiv(x, expr_mul(x, count, bits), eight)});
    else if (q->zero_kind == 2)
        load_rows(t, &(struct rows){t->zeros, t->tensor + 2, q->scale_type, q->zero_row, t->zero_pitch, first, count});
}

/* The rest of the last stripe: what a product multiplies with zeros must be numbers. */
static void fill_rest(struct nbits_tile *t, const struct nbits_dst *d, expr stripes)
{
    struct expr_pool *x = &t->b->k->exprs;
    const expr last = expr_sub(x, stripes, expr_const(x, 1)), c0 = expr_const(x, d->c0);
    const expr used = expr_sub(x, d->cols, expr_mul(x, last, c0));
    const expr off = expr_add(x, expr_mul_const(x, last, t->rows * d->c0), used);
    TILE(t->b, FILL, t->q->to, t->in, expr_sub(x, c0, used), d->buf, off, c0, tile_float_bits(0.0f));
}

void nbits_dequant(struct nbits_tile *t, const struct nbits_dst *d)
{
    const struct nbits *q = t->q;
    struct expr_pool *x = &t->b->k->exprs;
    const expr z = expr_const(x, 0), c0 = expr_const(x, d->c0), stripes = expr_ceildiv(x, d->cols, c0);
    const int64_t zero_bytes = q->zero_kind == 2 ? scale_size(q) : 1;
    tile_note(t->b, "dequantise stripes of c0 columns: NZ");
    TILE(t->b, DEQUANT, q->to, q->code, t->in, d->cols, d->first, (int32_t)q->block, d->buf, z, c0, t->codes, z,
         expr_const(x, t->code_pitch), t->scales, z, expr_const(x, t->scale_pitch), q->scale_type, t->zeros, z,
         expr_const(x, t->zero_pitch * zero_bytes), q->zero_kind, (int32_t)d->c0, expr_const(x, t->rows * d->c0));
    if (q->k % d->c0 != 0)
        fill_rest(t, d, stripes);
}

void nbits_dequant_rows(struct nbits_tile *t, int32_t buf, int64_t pitch)
{
    const struct nbits *q = t->q;
    struct expr_pool *x = &t->b->k->exprs;
    const expr z = expr_const(x, 0);
    const int64_t zero_bytes = q->zero_kind == 2 ? scale_size(q) : 1;
    tile_note(t->b, "dequantise");
    TILE(t->b, DEQUANT, q->to, q->code, t->in, t->ik, z, (int32_t)q->block, buf, z, expr_const(x, pitch), t->codes, z,
         expr_const(x, t->code_pitch), t->scales, z, expr_const(x, t->scale_pitch), q->scale_type, t->zeros, z,
         expr_const(x, t->zero_pitch * zero_bytes), q->zero_kind, 0, z);
}
