/* Keys and values that are caches of codes (kernels/cache_code.h). Each vector core of a block decodes half of the rows
 * of a step's chunk into a workspace, from where the cube core takes them like floats:
 *
 *   codes and scales to UB          as they lie in the cache, long runs
 *   widened, halves of packed rows  side by side
 *   less the zero points, times the scales, narrowed to the type of the product
 *   store; a flag for the cube core
 *
 * Refused: scaling scores and probabilities instead, which groups within a row do not allow. */
#include "backend/ascend/attention.h"
#include "base/size.h"

#include <stdio.h>

#define MOST_BYTES (24 * 1024) /* of UB for tiles of an operand: enough for long moves, little beside the scores */
#define MOST_ROWS  64

bool att_is_coded(const struct att *a)
{
    return a->coded[ATT_KEYS].codes || a->coded[ATT_VALUES].codes;
}

/* The type that a decoded operand has. */
static enum dtype type_of(const struct att *a, int operand)
{
    return operand == ATT_KEYS ? a->in : a->prob;
}

/* Bytes per row of a tile, all slots of its buffers. */
static int64_t row_bytes(const struct att *a, int operand)
{
    const struct k_cache_form *f = &a->coded[operand].f;
    const enum dtype t = type_of(a, operand);
    const int64_t scales = k_cache_scales(f), low = k_cache_packed(f) ? f->size / 2 * 4 : 0;
    const int64_t out = t == DT_F32 ? 0 : f->size * dtype_size(t);
    return 2 * (k_cache_row(f) + 2 * scales + f->size * 4 + out) + 4 * scales + low;
}

static int64_t tile_rows(const struct att *a, int operand)
{
    const int64_t rows = MOST_BYTES / row_bytes(a, operand) / 8 * 8;
    return rows < 8 ? 8 : rows > MOST_ROWS ? MOST_ROWS : rows;
}

int64_t att_code_bytes(const struct att *a)
{
    int64_t n = 0;
    for (int i = 0; i < ATT_CODED; i++)
        if (a->coded[i].codes)
            n += tile_rows(a, i) * row_bytes(a, i) + 10 * 64;
    return n;
}

/* ---- declarations ---- */

void att_code_params(struct att_kernel *k)
{
    const struct att *a = k->a;
    char name[32];
    for (int i = 0; i < ATT_CODED; i++) {
        const struct att_codes *c = &a->coded[i];
        struct att_decoder *d = &k->decoder[i];
        const char stem = i == ATT_KEYS ? 'k' : 'v';
        if (!c->codes)
            continue;
        snprintf(name, sizeof name, "%c_codes_row", stem);
        d->row = kparam(&k->f.p, name, c->row);
        snprintf(name, sizeof name, "%c_scales_row", stem);
        d->s_row = kparam(&k->f.p, name, c->s_row);
        for (int b = 0; b < a->n_batch; b++) {
            snprintf(name, sizeof name, "%c_codes_batch%d", stem, b);
            d->batch[b] = kparam(&k->f.p, name, c->batch[b]);
            snprintf(name, sizeof name, "%c_scales_batch%d", stem, b);
            d->s_batch[b] = kparam(&k->f.p, name, c->s_batch[b]);
        }
    }
}

void att_code_tensors(struct att_kernel *k)
{
    for (int i = 0; i < ATT_CODED; i++) {
        const struct att_codes *c = &k->a->coded[i];
        if (!c->codes)
            continue;
        k->decoder[i].codes = vr_declare_tensor(&k->f, emit_tensor(k->e, c->codes), k_cache_stored(&c->f), false);
        k->decoder[i].scales = vr_declare_tensor(&k->f, emit_tensor(k->e, c->scales), c->f.scale, false);
    }
}

static void buffers(struct att_kernel *k, int operand)
{
    const struct k_cache_form *f = &k->a->coded[operand].f;
    const enum dtype t = type_of(k->a, operand);
    const int64_t n = tile_rows(k->a, operand), scales = n * k_cache_scales(f);
    struct att_unpack *u = &k->unpack[operand];
    struct tile_builder *b = &k->f.b;
    u->max = n;
    u->codes = tile_buf(b, "codes", TS_UB, k_cache_stored(f), 2, size_align(n * k_cache_row(f), 64));
    u->scales = tile_buf(b, "scales", TS_UB, f->scale, 2, size_align(scales * 2, 64));
    u->wide = tile_buf(b, "wide", TS_UB, DT_F32, 1, size_align(scales * 4, 64));
    u->low = k_cache_packed(f) ? tile_buf(b, "packed", TS_UB, DT_F32, 1, size_align(n * f->size / 2 * 4, 64)) : -1;
    u->rows = tile_buf(b, "rows", TS_UB, DT_F32, 2, size_align(n * f->size * 4, 64));
    u->out = t == DT_F32 ? u->rows : tile_buf(b, "narrow", TS_UB, t, 2, size_align(n * f->size * dtype_size(t), 64));
}

expr att_code_slot(struct att_kernel *k, int operand, const struct att_step *s)
{
    struct expr_pool *x = &k->f.k->exprs;
    const int64_t slots = operand == ATT_KEYS ? ATT_KEY_SLOTS : ATT_VALUE_SLOTS, size = k->a->coded[operand].f.size;
    const expr number = expr_add(x, expr_mul_const(x, expr_sym(x, k->f.k->sym_block), slots),
                                 expr_mod(x, s->number, expr_const(x, slots)));
    return expr_mul_const(x, number, ATTEND_CHUNK * size);
}

/* ---- program ---- */

/* A tile of rows of one operand. */
struct tile {
    const struct att_unpack *u;
    struct expr_pool *x;
    struct tile_builder *b;
    const struct k_cache_form *f;
    expr n; /* rows */
};

static expr num(const struct tile *t, int64_t v)
{
    return expr_const(t->x, v);
}

/* rows x cols at `from` of a tensor to UB, one run where rows are neighbours. */
static void load(const struct tile *t, int32_t buf, int32_t tensor, enum dtype type, expr from, int64_t cols, expr row)
{
    const expr z = num(t, 0), one = num(t, 1), c = num(t, cols);
    if (row == c)
        TILE(t->b, LOAD, buf, z, tensor, from, type, one, one, one, expr_mul(t->x, t->n, c), z, z, z, one, z, z, z,
             one);
    else
        TILE(t->b, LOAD, buf, z, tensor, from, type, one, one, t->n, c, z, z, row, one, z, z, c, one);
}

static void widen(const struct tile *t, int32_t to, int32_t from, enum dtype type, int64_t cols)
{
    const expr z = num(t, 0), n = expr_mul_const(t->x, t->n, cols);
    TILE(t->b, CAST, DT_F32, type, num(t, 1), n, to, z, z, from, z, z, 1, 1);
}

/* y = fn(a, b, c) on columns of rows of f32; an operand with buffer -1 is a number. */
struct columns {
    int32_t buf, off, row, col;
};

static expr row_of(const struct tile *t, const struct columns *o)
{
    return o->buf < 0 ? num(t, 0) : o->row;
}

static void apply(const struct tile *t, enum k_fn fn, int64_t cols, const struct columns o[4])
{
    TILE(t->b, VEC, (int32_t)fn, DT_F32, t->n, num(t, cols), o[0].buf, o[0].off, o[0].row, o[1].buf, o[1].off,
         row_of(t, &o[1]), o[1].col, o[2].buf, o[2].off, row_of(t, &o[2]), o[2].col, o[3].buf, o[3].off,
         row_of(t, &o[3]), o[3].col, 0, 0, 0);
}

static struct columns imm(const struct tile *t, float v)
{
    return (struct columns){-1, tile_float_bits(v), num(t, 0), 0};
}

/* Bytes of two codes: the high one is byte / 16 without its fraction, the low one what is left. */
static void unpack(const struct tile *t)
{
    const struct att_unpack *u = t->u;
    const int64_t half = t->f->size / 2;
    const struct columns byte = {u->low, num(t, 0), num(t, half), 1}, low = {u->rows, num(t, 0), num(t, t->f->size), 1},
                         high = {u->rows, num(t, half), num(t, t->f->size), 1}, none = {-1, 0, 0, 0};
    widen(t, u->low, u->codes, k_cache_stored(t->f), half);
    apply(t, K_FN_Mul, half, (const struct columns[4]){high, byte, imm(t, 0x1p-4f), none});
    apply(t, K_FN_Floor, half, (const struct columns[4]){high, high, none, none});
    apply(t, K_FN_Fma, half, (const struct columns[4]){low, high, imm(t, -16), byte});
}

/* (code - zero) * scale, group by group. */
static void scale(const struct tile *t)
{
    const struct att_unpack *u = t->u;
    const struct k_cache_form *f = t->f;
    const int64_t groups = f->size / f->group, scales = k_cache_scales(f);
    const struct columns none = {-1, 0, 0, 0};
    for (int64_t g = 0; g < groups; g++) {
        const struct columns v = {u->rows, num(t, g * f->group), num(t, f->size), 1},
                             s = {u->wide, num(t, g), num(t, scales), 0},
                             z = {u->wide, num(t, groups + g), num(t, scales), 0};
        const float middle = k_cache_middle(f);
        if (f->shifted || middle != 0)
            apply(t, K_FN_Sub, f->group, (const struct columns[4]){v, v, f->shifted ? z : imm(t, middle), none});
        apply(t, K_FN_Mul, f->group, (const struct columns[4]){v, v, s, none});
    }
}

static void decode_tile(const struct tile *t, enum dtype type)
{
    const struct att_unpack *u = t->u;
    const expr z = num(t, 0), one = num(t, 1);
    if (k_cache_packed(t->f))
        unpack(t);
    else
        widen(t, u->rows, u->codes, k_cache_stored(t->f), t->f->size);
    widen(t, u->wide, u->scales, t->f->scale, k_cache_scales(t->f));
    scale(t);
    if (u->out != u->rows)
        TILE(t->b, CAST, type, DT_F32, one, expr_mul_const(t->x, t->n, t->f->size), u->out, z, z, u->rows, z, z, 1, 1);
}

static void decode_operand(struct att_kernel *k, int operand, const struct att_step *s, expr when)
{
    struct expr_pool *x = &k->f.k->exprs;
    const struct att_decoder *d = &k->decoder[operand];
    const enum dtype type = type_of(k->a, operand);
    struct tile t = {.u = &k->unpack[operand], .x = x, .b = &k->f.b, .f = &k->a->coded[operand].f};
    const expr half = num(&t, ATTEND_CHUNK / 2), z = num(&t, 0), one = num(&t, 1), rows = num(&t, t.u->max);
    const expr begin = expr_mul(x, expr_sym(x, k->f.k->sym_sub), half);
    const expr mine = expr_max(x, z, expr_min(x, half, expr_sub(x, s->keys, begin)));
    tile_note(t.b, operand == ATT_KEYS ? "keys of a chunk from codes" : "values of a chunk from codes");
    const expr i = tile_loop(t.b, operand == ATT_KEYS ? "kr" : "vr", expr_mul(x, when, expr_ceildiv(x, mine, rows)));
    const expr first = expr_mul(x, i, rows), in_chunk = expr_add(x, begin, first), row = expr_add(x, s->key0, in_chunk);
    t.n = expr_min(x, rows, expr_sub(x, mine, first));
    load(&t, t.u->codes, d->codes, k_cache_stored(t.f),
         expr_add(x, att_batch_offset(k, s->it.batch, d->batch), expr_mul(x, row, d->row)), k_cache_row(t.f), d->row);
    load(&t, t.u->scales, d->scales, t.f->scale,
         expr_add(x, att_batch_offset(k, s->it.batch, d->s_batch), expr_mul(x, row, d->s_row)), k_cache_scales(t.f),
         d->s_row);
    decode_tile(&t, type);
    const expr to = expr_add(x, att_code_slot(k, operand, s), expr_mul_const(x, in_chunk, t.f->size));
    TILE(t.b, STORE, operand == ATT_KEYS ? k->tk : k->tv, to, t.u->out, z, type, one, one, one,
         expr_mul_const(x, t.n, t.f->size), z, z, z, one, z, z, z, one);
    tile_end(t.b);
    tile_note(t.b, "the cube core may read them");
    tile_if(t.b, when);
    TILE(t.b, XSET, TU_MTE3, operand == ATT_KEYS ? ATT_KEYS_READY : ATT_VALUES_READY);
    tile_end(t.b);
}

void att_decode(struct att_kernel *k, expr step, expr when)
{
    if (!att_is_coded(k->a))
        return;
    const struct att_step s = att_locate(k, step);
    for (int i = 0; i < ATT_CODED; i++) {
        if (!k->a->coded[i].codes)
            continue;
        buffers(k, i);
        decode_operand(k, i, &s, expr_mul(&k->f.k->exprs, s.active, when));
    }
}
