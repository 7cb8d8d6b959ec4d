/* What follows the sums of a convolution: factors and terms of the channels, Relu, another map, integer codes; stores
 * as lines of channels or turned to rows of them. */
#include "backend/mlu/conv_priv.h"
#include "kernels/vec.h"

#include <math.h>

enum { H = CONV_H, W = CONV_W };

/* One formula on the tile in `buf`, with a row per channel or without. */
static void vec(struct mlu_conv_code *c, enum k_fn fn, enum dtype t, int32_t buf, int32_t row)
{
    const expr z = mlu_conv_num(c, 0), pitch = mlu_conv_num(c, c->t.n);
    TILE(&c->b, VEC, fn, t, c->w.count, c->in, buf, z, pitch, buf, z, pitch, 1, row, row < 0 ? 0 : z, z,
         row < 0 ? 0 : 1, -1, 0, z, 0, 0, 0, 0);
}

/* The same with one number. */
static void by_number(struct mlu_conv_code *c, enum k_fn fn, enum dtype t, int32_t buf, float number)
{
    const expr z = mlu_conv_num(c, 0), pitch = mlu_conv_num(c, c->t.n);
    TILE(&c->b, VEC, fn, t, c->w.count, c->in, buf, z, pitch, buf, z, pitch, 1, -1, tile_float_bits(number), z, 0, -1,
         0, z, 0, 0, 0, 0);
}

static void cast(struct mlu_conv_code *c, int32_t to, enum dtype t, int32_t from, enum dtype f, int32_t how)
{
    const expr z = mlu_conv_num(c, 0), pitch = mlu_conv_num(c, c->t.n);
    TILE(&c->b, CAST, t, f, c->w.count, c->in, to, z, pitch, from, z, pitch, 1, how);
}

/* What follows the sums and the unit has not done: factors and terms of the channels, narrowed; relu. */
static void epilogue(struct mlu_conv_code *c)
{
    const struct conv *p = c->p;
    if (mlu_conv_by_channel(p)) {
        tile_note(&c->b, "factors of the channels, bias, narrowed");
        vec(c, K_FN_Mul, DT_F32, c->made, c->scale);
        if (p->bias)
            vec(c, K_FN_Add, DT_F32, c->made, c->wide_bias);
        if (c->out != c->made)
            cast(c, c->out, p->out, c->made, DT_F32, 1);
    }
    if (p->relu)
        vec(c, K_FN_Relu, p->out, c->out, -1);
    if (p->slope && p->one_slope)
        by_number(c, K_FN_PRelu, p->out, c->out, p->slope_number);
    else if (p->slope)
        vec(c, K_FN_PRelu, p->out, c->out, c->slope);
}

/* Where the tile lies in a map as the result is: lines of channels, or rows of channels. */
static expr place_result(struct mlu_conv_code *c, const struct emit_line *line)
{
    struct expr_pool *x = c->x;
    const struct conv *p = c->p;
    expr at = expr_add(x, c->w.p0, expr_mul(x, c->w.od, expr_mul(x, c->w.out[H], c->w.out[W])));
    if (p->out_lines) {
        const expr image = expr_floordiv(x, c->w.map, mlu_conv_num(c, p->group));
        at = expr_add(x, at, expr_mul(x, image, c->w.out_plane));
        const expr channel = expr_add(x, expr_mul_const(x, c->w.group, p->cout), c->n0);
        return expr_add(x, expr_mul_const(x, at, line->pitch), expr_add(x, channel, mlu_conv_num(c, line->first)));
    }
    const expr channel = expr_add(x, expr_mul_const(x, c->w.map, p->cout), c->n0);
    return expr_add(x, at, expr_mul(x, channel, c->w.out_plane));
}

/* The tile in `buf` to its place; `turned` has room for it as rows of channels. */
static void store(struct mlu_conv_code *c, int32_t tensor, int32_t buf, int32_t turned, enum dtype t)
{
    const struct conv *p = c->p;
    const struct emit_line *line = tensor == c->tcodes ? &c->codes_line : &c->y_line;
    const expr z = mlu_conv_num(c, 0), one = mlu_conv_num(c, 1), pitch = mlu_conv_num(c, c->t.n),
               across = mlu_conv_num(c, c->t.m), at = place_result(c, line);
    if (p->out_lines) {
        tile_note(&c->b, "stored as lines of channels");
        TILE(&c->b, STORE, tensor, at, buf, z, t, one, one, c->w.count, c->in, z, z, pitch, one, z, z,
             mlu_conv_num(c, line->pitch), one);
        return;
    }
    tile_note(&c->b, "turned to rows of channels, stored");
    TILE(&c->b, TRANSP, t, c->w.count, c->in, turned, z, across, buf, z, pitch);
    TILE(&c->b, STORE, tensor, at, turned, z, t, one, one, c->in, c->w.count, z, z, across, one, z, z, c->w.out_plane,
         one);
}

/* The map that is added, as the sums lie. */
static void load_added(struct mlu_conv_code *c)
{
    const struct conv *p = c->p;
    const struct emit_line own = {p->group * p->cout, 0};
    const expr z = mlu_conv_num(c, 0), one = mlu_conv_num(c, 1), pitch = mlu_conv_num(c, c->t.n),
               across = mlu_conv_num(c, c->t.m), at = place_result(c, &own);
    tile_note(&c->b, "the map added to the result");
    if (p->out_lines) {
        TILE(&c->b, LOAD, c->added, z, c->tadded, at, p->out, one, one, c->w.count, c->in, z, z,
             mlu_conv_num(c, own.pitch), one, z, z, pitch, one);
        return;
    }
    TILE(&c->b, LOAD, c->turned, z, c->tadded, at, p->out, one, one, c->in, c->w.count, z, z, c->w.out_plane, one, z, z,
         across, one);
    TILE(&c->b, TRANSP, p->out, c->in, c->w.count, c->added, z, pitch, c->turned, z, across);
}

/* Integers of the result. Before the float is stored: the vector unit then waits for no store. */
static void make_codes(struct mlu_conv_code *c)
{
    const struct conv_tail *t = &c->p->tail;
    const expr z = mlu_conv_num(c, 0), pitch = mlu_conv_num(c, c->t.n);
    const enum dtype f = c->p->out;
    const int32_t work = t->y ? c->work : c->out;
    tile_note(&c->b, "integers of the result");
    TILE(&c->b, VEC, K_FN_Mul, f, c->w.count, c->in, work, z, pitch, c->out, z, pitch, 1, -1,
         tile_float_bits(t->factor), z, 0, -1, 0, z, 0, 0, 0, 0);
    if (!mlu_conv_converts(c->p))
        vec(c, K_FN_Round, f, work, -1);
    if (mlu_conv_converts(c->p) && mlu_conv_low_binds(c->p) && t->high >= 127)
        TILE(&c->b, VEC, K_FN_Max, f, c->w.count, c->in, work, z, pitch, work, z, pitch, 1, -1, tile_float_bits(t->low),
             z, 0, -1, 0, z, 0, 0, 0, 0);
    else if (!mlu_conv_converts(c->p) || mlu_conv_low_binds(c->p) || t->high < 127)
        TILE(&c->b, VEC, K_FN_Clip, f, c->w.count, c->in, work, z, pitch, work, z, pitch, 1, -1,
             tile_float_bits(t->low), z, 0, -1, tile_float_bits(t->high), z, 0, 0, 0, 0);
    cast(c, c->codes, mlu_conv_codes(c->p), work, f, mlu_conv_converts(c->p) ? TILE_NEAREST : 1);
}

/* Behind scaled sums, in the order of the graph and in its type. */
static void tail(struct mlu_conv_code *c)
{
    const struct conv_tail *t = &c->p->tail;
    const expr z = mlu_conv_num(c, 0), pitch = mlu_conv_num(c, c->t.n);
    const enum dtype f = c->p->out;
    if (t->added) {
        const int32_t a = t->added_left ? c->added : c->out, b = t->added_left ? c->out : c->added;
        load_added(c);
        TILE(&c->b, VEC, K_FN_Add, f, c->w.count, c->in, c->out, z, pitch, a, z, pitch, 1, b, z, pitch, 1, -1, 0, z, 0,
             0, 0, 0);
        if (t->relu)
            vec(c, K_FN_Relu, f, c->out, -1);
    }
    if (t->codes)
        make_codes(c);
    if (t->y)
        store(c, c->ty, c->out, c->turned, f);
    if (t->codes)
        store(c, c->tcodes, c->codes, c->turned_codes, mlu_conv_codes(c->p));
}

void mlu_conv_finish(struct mlu_conv_code *c)
{
    epilogue(c);
    if (c->p->scale)
        tail(c);
    else
        store(c, c->ty, c->out, c->turned, c->p->out);
}
