/* Depthwise convolutions on the vector unit: one channel per group would leave most of a fractal empty.
 *
 *   for each tile of this core: channels, rows and columns of windows
 *     the map under them, rows and columns sorted by their remainder modulo the strides     mte2, vector
 *     acc = 0; for each kernel position: acc = fma(map shifted, weight of the channel, acc) vector
 *     bias, Relu, narrowed, stored                                                          vector, mte3
 *
 * Sorted that way the elements for one kernel position and neighbouring windows are neighbours, whatever the stride. A
 * row of an instruction is one channel: all rows of windows at the pitch of the map, so that some results between the
 * rows are of no use. Kernel positions ascend with one fma each: the bits of the product on the matrix unit. */
#include "backend/matrix/conv.h"
#include "backend/vector/gens.h"
#include "base/size.h"
#include "kernels/vec.h"

#include <math.h>
#include <stdio.h>

enum { D, H, W, MOST_TAPS = 81, LINE = 16 /* elements: rows of the map begin on whole blocks of UB in any type */ };

/* Extents of a tile: channels, rows and columns of windows; rows of the map per remainder, elements between them. */
struct extent {
    int64_t channels, rows, cols, map_rows, pitch;
};

struct code {
    struct emit *e;
    const struct conv *p;
    struct extent t;
    struct tile_kernel *k;
    struct expr_pool *x;
    struct tile_builder b;
    struct kparams params;
    expr batch, size[CONV_AXES], out[CONV_AXES], before[CONV_AXES];
    int32_t tx, tw, tbias, ty;
    int32_t map, sorted, weights, bias, acc, result; /* buffers; sorted, result: the one before when nothing changes */
    int32_t raw_w, raw_bias;
    expr member, c0, nc, r0, nr, q0, nq; /* batch entry; first and number of channels, rows, columns of windows */
};

static expr num(struct code *c, int64_t v)
{
    return expr_const(c->x, v);
}

static int64_t taps_of(const struct conv *p)
{
    return p->kernel[H] * p->kernel[W];
}

/* Elements of the map of one tile. */
static int64_t map_size(const struct conv *p, const struct extent *t)
{
    return p->stride[H] * p->stride[W] * t->channels * t->map_rows * t->pitch;
}

/* ---- extents ------------------------------------------------------------------------------------------------ */

static struct extent extent_of(const struct conv *p, int64_t channels, int64_t rows, int64_t cols)
{
    const int64_t high = (rows - 1) * p->stride[H] + (p->kernel[H] - 1) * p->dilation[H] + 1,
                  wide = (cols - 1) * p->stride[W] + (p->kernel[W] - 1) * p->dilation[W] + 1;
    return (struct extent){channels, rows, cols, size_ceil_div(high, p->stride[H]),
                           size_align(size_ceil_div(wide, p->stride[W]), LINE)};
}

static bool changes(const struct conv *p)
{
    return p->in != DT_F32 || p->stride[W] > 1;
}

static bool fits(const struct machine *m, const struct conv *p, const struct extent *t)
{
    const int64_t es = dtype_size(p->in), map = map_size(p, t), acc = t->channels * t->rows * t->pitch;
    const int64_t small = t->channels * (taps_of(p) + 1) * (4 + 2 * es) + (int64_t)8 * 512;
    const int64_t wide = p->in != DT_F32 ? map * 4 : 0, turned = p->stride[W] > 1 ? map * 4 : 0;
    return 2 * map * es + wide + turned + 2 * acc * 4 + (p->out != DT_F32 ? 2 * acc * es : 0) + small <= m->size[TS_UB];
}

static double cycles_of(const struct machine *m, const struct ir_ctx *cx, const struct conv *p, const struct extent *t)
{
    const double fixed = target_num(m->target, TK_VEC_FIXED), bytes = target_num(m->target, TK_VEC_BYTES);
    const double rows = fmin((double)t->rows, size_typical(cx, p->out_size[H], 64)),
                 cols = fmin((double)t->cols, size_typical(cx, p->out_size[W], 64));
    const double items = size_typical(cx, p->batch, 1) * ceil((double)p->group / (double)t->channels) *
                         ceil(size_typical(cx, p->out_size[H], 64) / (double)t->rows) *
                         ceil(size_typical(cx, p->out_size[W], 64) / (double)t->cols);
    const double repeats = ceil(((rows - 1) * (double)t->pitch + cols) * 4 / bytes), channels = (double)t->channels;
    const double fma = fixed * fmin(channels, repeats) + channels * repeats + fixed + channels * 32 / bytes;
    const double map = (double)map_size(p, t) * 4 / bytes * (changes(p) ? 4 : 1) + 4 * fixed;
    const double loads = (double)map_size(p, t) * dtype_size(p->in) / target_num(m->target, TK_MTE2_COLD_RATE);
    return ceil(items / m->n_vector) * (fmax((double)taps_of(p) * fma + map, loads) + 200);
}

/* channels = 0: nothing fits. */
static struct extent choose(const struct machine *m, const struct ir_ctx *cx, const struct conv *p,
                            const struct tiling *w)
{
    static const int64_t steps[] = {1, 2, 4, 7, 8, 14, 16, 28, 32, 56, 64, 112, 128, 256, 512};
    struct extent best = {0};
    double least = INFINITY;
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(steps); i++)
        for (int64_t j = 0; j < NPUC_ARRAY_LEN(steps); j++)
            for (int64_t k = 0; k < NPUC_ARRAY_LEN(steps); k++) {
                if (w && ((w->m > 0 && steps[i] > w->m) || (w->rows > 0 && steps[j] > w->rows) ||
                          (w->n > 0 && steps[k] > w->n)))
                    continue;
                const struct extent t = extent_of(p, steps[i], steps[j], steps[k]);
                if (!fits(m, p, &t))
                    continue;
                const double cycles = cycles_of(m, cx, p, &t);
                if (cycles < least) {
                    least = cycles;
                    best = t;
                }
            }
    return best;
}

/* ---- match -------------------------------------------------------------------------------------------------- */

static bool match(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct conv *p, const char **reason)
{
    return conv_match(m, cx, n, p, reason) && p->group > 1 && !p->lines && !p->out_lines && p->cin == 1 &&
           p->cout == 1 && !p->transposed && dtype_is_float(p->in) && p->kernel[D] == 1 &&
           expr_is_one(&cx->exprs, p->size[D]) && expr_is_one(&cx->exprs, p->out_size[D]) && taps_of(p) <= MOST_TAPS &&
           choose(m, cx, p, NULL).channels > 0;
}

bool gen_depthwise_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    struct conv p;
    return match(m, cx, n, &p, reason);
}

/* ---- the program -------------------------------------------------------------------------------------------- */

static void declare(struct code *c)
{
    const struct conv *p = c->p;
    static const char *const names[3][2] = {{"in_h", "in_w"}, {"out_h", "out_w"}, {"pad_h", "pad_w"}};
    c->batch = kparam(&c->params, "batch", p->batch);
    for (int i = H; i <= W; i++) {
        c->size[i] = kparam(&c->params, names[0][i - H], p->size[i]);
        c->out[i] = kparam(&c->params, names[1][i - H], p->out_size[i]);
        c->before[i] = kparam(&c->params, names[2][i - H], p->before[i]);
    }
    tile_params_done(c->k);
    c->tx = tile_tensor(c->k, c->e->arena, "X", p->in, true, false);
    c->tw = tile_tensor(c->k, c->e->arena, "W", p->in, true, false);
    c->ty = tile_tensor(c->k, c->e->arena, "Y", p->out, false, true);
    c->tbias = p->bias ? tile_tensor(c->k, c->e->arena, "bias", p->in, true, false) : -1;
}

static int32_t buffer(struct code *c, const char *name, enum dtype t, int32_t slots, int64_t n)
{
    return tile_buf(&c->b, name, TS_UB, t, slots, size_align(n * dtype_size(t), c->e->m->align[TS_UB]));
}

static void buffers(struct code *c)
{
    const struct conv *p = c->p;
    const bool wide = p->in == DT_F32;
    const int64_t map = map_size(p, &c->t), acc = c->t.channels * c->t.rows * c->t.pitch;
    c->map = buffer(c, "map", p->in, 2, map);
    c->raw_w = buffer(c, "raw weights", p->in, 2, c->t.channels * taps_of(p));
    c->weights = wide ? c->raw_w : buffer(c, "weights", DT_F32, 1, c->t.channels * taps_of(p));
    c->raw_bias = p->bias ? buffer(c, "raw bias", p->in, 2, c->t.channels) : -1;
    c->bias = !p->bias || wide ? c->raw_bias : buffer(c, "bias", DT_F32, 1, c->t.channels);
    c->acc = buffer(c, "acc", DT_F32, 2, acc);
    c->result = p->out == DT_F32 ? c->acc : buffer(c, "result", p->out, 2, acc);
}

static void open_tiles(struct code *c)
{
    struct expr_pool *x = c->x;
    const struct extent *t = &c->t;
    const expr ct = num(c, size_ceil_div(c->p->group, t->channels)), rt = expr_ceildiv(x, c->out[H], num(c, t->rows)),
               qt = expr_ceildiv(x, c->out[W], num(c, t->cols));
    const expr tiles = expr_mul(x, expr_mul(x, c->batch, ct), expr_mul(x, rt, qt));
    c->k->blocks = expr_max(x, num(c, 1), expr_min(x, num(c, c->e->m->n_vector), tiles));
    const expr block = expr_sym(x, c->k->sym_block);
    const expr i = tile_loop(&c->b, "i", expr_ceildiv(x, expr_sub(x, tiles, block), c->k->blocks));
    const expr at = expr_add(x, block, expr_mul(x, i, c->k->blocks)), rest = expr_floordiv(x, at, qt);
    const expr maps = expr_floordiv(x, rest, rt);
    c->q0 = expr_mul_const(x, expr_mod(x, at, qt), t->cols);
    c->r0 = expr_mul_const(x, expr_mod(x, rest, rt), t->rows);
    c->c0 = expr_mul_const(x, expr_mod(x, maps, ct), t->channels);
    c->member = expr_floordiv(x, maps, ct);
    c->nq = expr_min(x, num(c, t->cols), expr_sub(x, c->out[W], c->q0));
    c->nr = expr_min(x, num(c, t->rows), expr_sub(x, c->out[H], c->r0));
    c->nc = expr_min(x, num(c, t->channels), expr_sub(x, num(c, c->p->group), c->c0));
}

/* A dense run of `n` elements of a small operand, widened. */
static void load_small(struct code *c, int32_t raw, int32_t wide, int32_t tensor, expr first, expr n)
{
    const expr z = num(c, 0), one = num(c, 1);
    TILE(&c->b, LOAD, raw, z, tensor, first, c->p->in, one, one, one, n, z, z, z, one, z, z, z, one);
    if (wide != raw)
        TILE(&c->b, CAST, DT_F32, c->p->in, one, n, wide, z, z, raw, z, z, 1, 1);
}

/* Rows f, f + stride, ... of the map under the tile. */
static void load_rows(struct code *c, int64_t f)
{
    struct expr_pool *x = c->x;
    const struct conv *p = c->p;
    const int64_t sh = p->stride[H], line = c->t.pitch * p->stride[W], plane = c->t.map_rows * line;
    const expr z = num(c, 0), one = num(c, 1), step = num(c, sh);
    const expr top = expr_add(x, expr_sub(x, expr_mul(x, c->r0, step), c->before[H]), num(c, f));
    const expr left = expr_sub(x, expr_mul_const(x, c->q0, p->stride[W]), c->before[W]);
    const expr high = expr_min(x, num(c, c->t.map_rows), expr_ceildiv(x, expr_sub(x, c->size[H], top), step));
    const expr wide = expr_min(x, num(c, line), expr_sub(x, c->size[W], left));
    const expr j0 = expr_max(x, z, expr_ceildiv(x, expr_sub(x, z, top), step)),
               i0 = expr_max(x, z, expr_sub(x, z, left));
    const expr rows = expr_max(x, z, expr_sub(x, high, j0)), cols = expr_max(x, z, expr_sub(x, wide, i0));
    const expr channel = expr_add(x, expr_mul_const(x, c->member, p->group), c->c0);
    expr from = expr_add(x, expr_mul(x, channel, c->size[H]), expr_add(x, top, expr_mul(x, j0, step)));
    from = expr_add(x, expr_mul(x, from, c->size[W]), expr_add(x, left, i0));
    const expr to = expr_add(x, num(c, f * c->t.channels * plane), expr_add(x, expr_mul_const(x, j0, line), i0));
    const expr some = expr_mul(x, expr_cmp(x, EXPR_LT, z, rows), expr_cmp(x, EXPR_LT, z, cols));
    tile_if(&c->b, some);
    TILE(&c->b, LOAD, c->map, to, c->tx, from, p->in, one, c->nc, rows, cols, z, expr_mul(x, c->size[H], c->size[W]),
         expr_mul(x, c->size[W], step), one, z, num(c, plane), num(c, line), one);
    tile_end(&c->b);
}

/* The map as f32, columns by their remainder. */
static void sort_map(struct code *c)
{
    const struct conv *p = c->p;
    const expr z = num(c, 0), one = num(c, 1), n = num(c, map_size(p, &c->t));
    const int64_t sw = p->stride[W];
    c->sorted = c->map;
    if (p->in != DT_F32) {
        const int32_t wide = buffer(c, "map f32", DT_F32, 1, map_size(p, &c->t));
        tile_note(&c->b, "widened");
        TILE(&c->b, CAST, DT_F32, p->in, one, n, wide, z, z, c->sorted, z, z, 1, 1);
        c->sorted = wide;
    }
    if (sw > 1) {
        const int32_t turned = buffer(c, "columns", DT_F32, 1, map_size(p, &c->t));
        const expr rows = num(c, map_size(p, &c->t) / sw);
        tile_note(&c->b, "columns by their remainder modulo the stride");
        TILE(&c->b, TRANSP, DT_F32, rows, num(c, sw), turned, z, rows, c->sorted, z, num(c, sw));
        c->sorted = turned;
    }
}

static void multiply(struct code *c)
{
    struct expr_pool *x = c->x;
    const struct conv *p = c->p;
    const int64_t group =
        c->t.channels * c->t.map_rows * c->t.pitch; /* elements of one remainder of rows and columns */
    const expr z = num(c, 0), acc_row = num(c, c->t.rows * c->t.pitch), map_row = num(c, c->t.map_rows * c->t.pitch);
    const expr cols = expr_add(x, expr_mul_const(x, expr_sub(x, c->nr, num(c, 1)), c->t.pitch), c->nq);
    for (int64_t tap = 0; tap < taps_of(p); tap++) {
        const int64_t y = tap / p->kernel[W] * p->dilation[H], at = tap % p->kernel[W] * p->dilation[W];
        const int64_t off = (at % p->stride[W] * p->stride[H] + y % p->stride[H]) * group +
                            y / p->stride[H] * c->t.pitch + at / p->stride[W];
        TILE(&c->b, VEC, K_FN_Fma, DT_F32, c->nc, cols, c->acc, z, acc_row, c->sorted, num(c, off), map_row, 1,
             c->weights, num(c, tap), num(c, taps_of(p)), 0, tap > 0 ? c->acc : -1, tap > 0 ? z : tile_float_bits(0.0f),
             tap > 0 ? acc_row : z, tap > 0, 0, 0, 0);
    }
    if (p->bias)
        TILE(&c->b, VEC, K_FN_Add, DT_F32, c->nc, cols, c->acc, z, acc_row, c->acc, z, acc_row, 1, c->bias, z,
             num(c, 1), 0, -1, tile_float_bits(0.0f), z, 0, 0, 0, 0);
    if (p->relu)
        TILE(&c->b, VEC, K_FN_Relu, DT_F32, c->nc, cols, c->acc, z, acc_row, c->acc, z, acc_row, 1, -1,
             tile_float_bits(0.0f), z, 0, -1, tile_float_bits(0.0f), z, 0, 0, 0, 0);
    if (c->result != c->acc)
        TILE(&c->b, CAST, p->out, DT_F32, c->nc, cols, c->result, z, acc_row, c->acc, z, acc_row, 1, 1);
}

static void tile_body(struct code *c)
{
    struct expr_pool *x = c->x;
    const struct conv *p = c->p;
    const expr z = num(c, 0), one = num(c, 1);
    tile_note(&c->b, "map under the windows, zero outside");
    TILE(&c->b, FILL, p->in, one, num(c, map_size(p, &c->t)), c->map, z, z, tile_float_bits(0.0f));
    for (int64_t f = 0; f < p->stride[H]; f++)
        load_rows(c, f);
    tile_note(&c->b, "weights of the channels");
    load_small(c, c->raw_w, c->weights, c->tw, expr_mul_const(x, c->c0, taps_of(p)),
               expr_mul_const(x, c->nc, taps_of(p)));
    if (p->bias)
        load_small(c, c->raw_bias, c->bias, c->tbias, c->c0, c->nc);
    sort_map(c);
    tile_note(&c->b, "kernel positions in ascending order");
    multiply(c);
    const expr channel = expr_add(x, expr_mul_const(x, c->member, p->group), c->c0);
    expr off = expr_add(x, expr_mul(x, channel, c->out[H]), c->r0);
    off = expr_add(x, expr_mul(x, off, c->out[W]), c->q0);
    tile_note(&c->b, "store");
    TILE(&c->b, STORE, c->ty, off, c->result, z, p->out, one, c->nc, c->nr, c->nq, z, num(c, c->t.rows * c->t.pitch),
         num(c, c->t.pitch), one, z, expr_mul(x, c->out[H], c->out[W]), c->out[W], one);
}

enum npuc_status gen_depthwise_emit(struct emit *e, struct node *n)
{
    struct conv p;
    const char *why = NULL;
    char name[48];
    if (!match(e->m, e->cx, n, &p, &why))
        return node_error(e->cx, n, D_VERIFY, "a convolution was placed on the vector unit that it cannot do: %s",
                          why ? why : "");
    struct code c = {.e = e, .p = &p, .t = choose(e->m, e->cx, &p, e->tiling)};
    if (c.t.channels == 0)
        c.t = choose(e->m, e->cx, &p, NULL);
    snprintf(name, sizeof name, "depthwise_%s_%lldx%lldx%lld", dtype_table[p.in].name, (long long)c.t.channels,
             (long long)c.t.rows, (long long)c.t.cols);
    c.k = emit_kernel(e, name, &c.b, &c.params);
    c.x = &c.k->exprs;
    declare(&c);
    tile_section_begin(&c.b, TCORE_VECTOR);
    buffers(&c);
    open_tiles(&c);
    tile_body(&c);
    tile_end(&c.b);
    struct expr_pool *x = &e->cx->exprs;
    const enum weight_form form = p.w->type->dtype == p.in ? WF_COPY : WF_CAST;
    const int32_t weights = p.constant ? emit_weight(e, p.w, form, p.in, false) : emit_tensor(e, p.w);
    const expr windows = expr_mul(x, p.batch, expr_mul(x, p.out_size[H], p.out_size[W]));
    return emit_launch(
        e, c.k,
        (const int32_t[]){emit_tensor(e, p.x), weights, emit_tensor(e, p.y), p.bias ? emit_tensor(e, p.bias) : -1},
        c.params.bound, emit_expr(e, expr_mul_const(x, windows, p.group * taps_of(&p))),
        n->op == OP_Fused ? "FusedConv" : op_table[n->op]->name);
}
