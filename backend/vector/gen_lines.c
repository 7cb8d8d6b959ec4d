/* Windows over maps whose channels are neighbours (NHWC, NC1HWC0): MaxPool, AveragePool, depthwise convolutions. A
 * line is the channels of one position, or a block of them; every line is a row of the vector unit.
 *
 *   for each tile of this core: a stripe of lines, rows and columns of windows, channels
 *     the map under them, the padding outside                               mte2, vector
 *     for each row of windows, kernel position: acc = max, sum or fma of lines the stride apart     vector
 *     quotient or bias, Relu, narrowed, stored                              vector, mte3
 *
 * Kernel positions ascend, sums are f32: the bits of the forms for other layouts (gen_pool.c, gen_depthwise.c). */
#include "backend/matrix/conv.h"
#include "backend/vector/gens.h"
#include "backend/vector/line_tiles.h"
#include "base/size.h"
#include "kernels/vec.h"

#include <math.h>
#include <stdio.h>

enum { H, W, MOST_TAPS = 225, UNIT = 16 /* elements, 32 of bytes: lines begin on whole blocks of UB */ };
enum kind { WIN_MAX, WIN_SUM, WIN_FMA };

struct windows {
    enum kind kind;
    enum dtype in, out;
    bool relu;
    struct value *x, *y, *w, *bias;  /* w: constant */
    int64_t channels, line, stripes; /* of the map; of a line; lines of a position */
    int64_t size[2], count[2], before[2], kernel[2], stride[2], dilation[2];
    float share; /* WIN_SUM: elements of every window */
    expr batch;
};

/* Channels, rows and columns of windows of a tile; elements between lines; the map under it. */
struct extent {
    int64_t channels, rows, cols, pitch, map_rows, map_cols;
};

struct code {
    struct emit *e;
    const struct windows *v;
    struct extent t;
    struct tile_kernel *k;
    struct expr_pool *x;
    struct tile_builder b;
    struct kparams params;
    struct kband band;
    int32_t tx, ty, tw, tbias;
    int32_t map, wide, acc, result, raw_w, weights, raw_bias, bias;
    struct line_place at; /* first and n: windows */
};

static expr num(struct code *c, int64_t v)
{
    return expr_const(c->x, v);
}

static int64_t taps_of(const struct windows *v)
{
    return v->kernel[H] * v->kernel[W];
}

/* ---- match -------------------------------------------------------------------------------------------------- */

static bool read_map(const struct ir_ctx *cx, struct windows *v)
{
    const struct type *x = v->x->type, *y = v->y->type;
    const bool rows = x->layout.kind == LAYOUT_NHWC, blocks = x->layout.kind == LAYOUT_NC1HWC0;
    if ((!rows && !blocks) || x->rank != 4 || y->layout.kind != x->layout.kind || y->layout.c0 != x->layout.c0 ||
        !(dtype_is_float(x->dtype) || (v->kind == WIN_MAX && x->dtype == DT_I8)) || dtype_size(x->dtype) > 4 ||
        dtype_size(y->dtype) > 4 || !expr_is_const(&cx->exprs, x->dims[1], &v->channels) || v->channels < 1)
        return false;
    for (int i = H; i <= W; i++)
        if (!expr_is_const(&cx->exprs, x->dims[2 + i], &v->size[i]) || v->size[i] < 1 ||
            !expr_is_const(&cx->exprs, y->dims[2 + i], &v->count[i]) || v->count[i] < 1)
            return false;
    v->in = x->dtype;
    v->out = y->dtype;
    v->line = blocks ? x->layout.c0 : v->channels;
    if (blocks && v->kind == WIN_FMA && v->line * dtype_size(v->in) != 32) /* those of stored weights */
        return false;
    v->stripes = size_ceil_div(v->channels, v->line);
    v->batch = x->dims[0];
    return v->batch != EXPR_INVALID;
}

static int64_t entry(const struct node *n, const char *name, int i, int64_t otherwise)
{
    const struct attr *a = node_attr(n, name);
    return a && a->kind == ATTR_INTS && i < a->len ? a->v.ints[i] : otherwise;
}

static int64_t reach_of(const struct windows *v, int i)
{
    return (v->count[i] - 1) * v->stride[i] + (v->kernel[i] - 1) * v->dilation[i] + 1;
}

/* Every window of a mean has the same number of elements that count. */
static bool counts_all(const struct node *n, const struct windows *v)
{
    const bool pads = node_attr_int(n, "count_include_pad", 0) != 0;
    for (int i = H; i <= W; i++) {
        const int64_t after = entry(n, "pads", 2 + i, 0);
        if (reach_of(v, i) > v->before[i] + v->size[i] + (pads ? after : 0) || (!pads && v->before[i] > 0))
            return false;
    }
    return true;
}

static bool match_pool(struct ir_ctx *cx, const struct node *n, struct windows *v)
{
    *v = (struct windows){.kind = n->op == OP_MaxPool ? WIN_MAX : WIN_SUM, .x = node_in(n, 0), .y = node_out(n, 0)};
    if ((n->op != OP_MaxPool && n->op != OP_AveragePool) || !v->y || (n->n_out > 1 && node_out(n, 1)) ||
        node_attr_str(n, "auto_pad", 0) != str_internz(&cx->strings, "NOTSET") || !read_map(cx, v) || v->in != v->out)
        return false;
    for (int i = H; i <= W; i++) {
        v->kernel[i] = entry(n, "kernel_shape", i, 1);
        v->stride[i] = entry(n, "strides", i, 1);
        v->dilation[i] = entry(n, "dilations", i, 1);
        v->before[i] = entry(n, "pads", i, 0);
        if (v->kernel[i] > MOST_TAPS || v->before[i] < 0)
            return false;
    }
    v->share = (float)taps_of(v);
    return n->op == OP_MaxPool || counts_all(n, v);
}

static bool match_depthwise(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct windows *v,
                            const char **reason)
{
    struct conv p;
    if (!conv_match(m, cx, n, &p, reason) || !p.lines || !p.out_lines || p.lines != p.x || p.group < 2 || p.cin != 1 ||
        p.cout != 1 || p.transposed || !p.constant || p.x->type->rank != 4)
        return false;
    *v = (struct windows){.kind = WIN_FMA, .x = p.x, .y = p.y, .w = p.w, .bias = p.bias, .relu = p.relu};
    if (!read_map(cx, v))
        return false;
    for (int i = H; i <= W; i++) {
        const int a = CONV_AXES - 2 + i;
        v->kernel[i] = p.kernel[a];
        v->stride[i] = p.stride[a];
        v->dilation[i] = p.dilation[a];
        if (!expr_is_const(&cx->exprs, p.before[a], &v->before[i]) || v->before[i] < 0)
            return false;
        v->size[i] = v->count[i] = 0;
        if (!expr_is_const(&cx->exprs, p.x->type->dims[2 + i], &v->size[i]) ||
            !expr_is_const(&cx->exprs, p.y->type->dims[2 + i], &v->count[i]))
            return false;
    }
    return true;
}

/* ---- extents ------------------------------------------------------------------------------------------------ */

static struct extent extent_of(const struct windows *v, int64_t channels, int64_t rows, int64_t cols)
{
    struct extent t = {.channels = channels,
                       .rows = rows,
                       .cols = cols,
                       .pitch = size_align(channels, v->in == DT_I8 ? 2 * UNIT : UNIT)};
    t.map_rows = (rows - 1) * v->stride[H] + (v->kernel[H] - 1) * v->dilation[H] + 1;
    t.map_cols = (cols - 1) * v->stride[W] + (v->kernel[W] - 1) * v->dilation[W] + 1;
    return t;
}

static bool is_wide(const struct windows *v)
{
    return v->kind == WIN_MAX || v->in == DT_F32;
}

/* What a window starts from, and its elements outside the map. */
static float least_of(const struct windows *v)
{
    return v->kind != WIN_MAX ? 0.0f : v->in == DT_I8 ? -128.0f : -INFINITY;
}

static enum dtype acc_of(const struct windows *v)
{
    return v->kind == WIN_MAX ? v->in : DT_F32;
}

static bool fits(const struct machine *m, const struct windows *v, const struct extent *t)
{
    const int64_t es = dtype_size(v->in), map = t->map_rows * t->map_cols * t->pitch,
                  acc = t->rows * t->cols * t->pitch;
    const int64_t small = v->kind == WIN_FMA ? t->pitch * (taps_of(v) + 1) * (2 * es + 4) : 0;
    const int64_t out = v->out == acc_of(v) ? 0 : 2 * acc * dtype_size(v->out);
    return 2 * map * es + (is_wide(v) ? 0 : map * 4) + 2 * acc * dtype_size(acc_of(v)) + out + small + 16 * 512 <=
           m->size[TS_UB];
}

static struct line_map map_of(const struct windows *v)
{
    return (struct line_map){v->line, v->stripes, {v->count[H], v->count[W]}, v->batch};
}

static double cycles_of(const struct machine *m, const struct ir_ctx *cx, const struct windows *v,
                        const struct extent *t)
{
    const struct target *g = m->target;
    const struct line_map lines = map_of(v);
    const double items = line_tiles(cx, &lines, &(struct line_tile){t->channels, {t->rows, t->cols}});
    const double fixed = target_num(g, TK_VEC_FIXED), bytes = target_num(g, TK_VEC_BYTES), es = dtype_size(v->in);
    const double line = ceil((double)t->channels * dtype_size(acc_of(v)) / bytes);
    const double rows = fmin((double)t->rows, (double)v->count[H]), cols = fmin((double)t->cols, (double)v->count[W]);
    const double map = (double)(t->map_rows * t->map_cols * t->channels);
    const double vec = rows * (double)taps_of(v) * (fixed + cols * line) + (is_wide(v) ? 0 : 2 * map * 4 / bytes);
    const double load = map * es / target_num(g, TK_MTE2_COLD_RATE) +
                        (t->channels < v->line ? (double)(t->map_rows * t->map_cols) * 4 : (double)t->map_rows * 4);
    return ceil(items / m->n_vector) * (fmax(vec, load) + 100) + load;
}

struct search {
    const struct machine *m;
    const struct ir_ctx *cx;
    const struct windows *v;
};

static double cycles_of_tile(const void *user, const struct line_tile *tile)
{
    const struct search *s = user;
    const struct extent t = extent_of(s->v, tile->channels, tile->count[H], tile->count[W]);
    return fits(s->m, s->v, &t) ? cycles_of(s->m, s->cx, s->v, &t) : (double)INFINITY;
}

/* channels = 0: nothing fits. */
static struct extent choose(const struct machine *m, const struct ir_ctx *cx, const struct windows *v,
                            const struct tiling *w)
{
    static const int64_t steps[] = {1, 2, 3, 4, 7, 8, 14, 16, 28, 32, 56, 64, 112, 128};
    const struct search s = {m, cx, v};
    const struct line_map map = map_of(v);
    const struct line_tile t = line_tile_choose(&map, steps, NPUC_ARRAY_LEN(steps), w, cycles_of_tile, &s);
    return t.channels > 0 ? extent_of(v, t.channels, t.count[H], t.count[W]) : (struct extent){0};
}

static bool match(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct windows *v,
                  const char **reason)
{
    const bool pool = op_table[n->op]->cls == CLS_WINDOW;
    return n->n_in > 0 && n->n_out > 0 && (pool ? match_pool(cx, n, v) : match_depthwise(m, cx, n, v, reason)) &&
           taps_of(v) <= MOST_TAPS && choose(m, cx, v, NULL).channels > 0;
}

bool gen_lines_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    struct windows v;
    return match(m, cx, n, &v, reason);
}

/* ---- the program -------------------------------------------------------------------------------------------- */

static int32_t buffer(struct code *c, const char *name, enum dtype t, int32_t slots, int64_t n)
{
    return tile_buf(&c->b, name, TS_UB, t, slots, size_align(n * dtype_size(t), c->e->m->align[TS_UB]));
}

static void buffers(struct code *c)
{
    const struct windows *v = c->v;
    const struct extent *t = &c->t;
    const int64_t map = t->map_rows * t->map_cols * t->pitch, acc = t->rows * t->cols * t->pitch;
    const bool f32 = v->in == DT_F32;
    c->map = buffer(c, "map", v->in, 2, map);
    c->wide = is_wide(v) ? c->map : buffer(c, "map f32", DT_F32, 1, map);
    c->acc = buffer(c, "acc", acc_of(v), 2, acc);
    c->result = v->out == acc_of(v) ? c->acc : buffer(c, "result", v->out, 2, acc);
    if (v->kind != WIN_FMA)
        return;
    c->raw_w = buffer(c, "raw weights", v->in, 2, t->pitch * taps_of(v));
    c->weights = f32 ? c->raw_w : buffer(c, "weights", DT_F32, 1, t->pitch * taps_of(v));
    c->raw_bias = v->bias ? buffer(c, "raw bias", v->in, 2, t->pitch) : -1;
    c->bias = !v->bias || f32 ? c->raw_bias : buffer(c, "bias", DT_F32, 1, t->pitch);
}

/* The positions of x under `n` windows from `first`: where they begin, where within the tile's, how many. */
static void part_of(struct code *c, int i, expr first, expr n, expr *from, expr *skip, expr *len)
{
    struct expr_pool *x = c->x;
    const struct windows *v = c->v;
    const expr top = expr_sub(x, expr_mul_const(x, first, v->stride[i]), num(c, v->before[i]));
    const expr span = expr_add(x, expr_mul_const(x, expr_sub(x, n, num(c, 1)), v->stride[i]),
                               num(c, (v->kernel[i] - 1) * v->dilation[i] + 1));
    *skip = expr_max(x, num(c, 0), expr_sub(x, num(c, 0), top));
    *from = expr_add(x, top, *skip);
    *len = expr_max(x, num(c, 0), expr_sub(x, expr_min(x, span, expr_sub(x, num(c, v->size[i]), top)), *skip));
}

static bool has_padding(const struct windows *v)
{
    for (int i = H; i <= W; i++)
        if (v->before[i] > 0 || reach_of(v, i) > v->before[i] + v->size[i])
            return true;
    return false;
}

/* Is every byte of the tile's map loaded? */
static bool is_exact(const struct code *c)
{
    const struct windows *v = c->v;
    const struct extent *t = &c->t;
    return !c->e->band && t->channels == t->pitch && v->line % t->channels == 0 && v->count[H] % t->rows == 0 &&
           v->count[W] % t->cols == 0;
}

static void load_map(struct code *c)
{
    struct expr_pool *x = c->x;
    const struct windows *v = c->v;
    const struct extent *t = &c->t;
    const expr z = num(c, 0), one = num(c, 1), line = num(c, v->line);
    const int64_t whole = t->map_rows * t->map_cols * t->pitch, row = t->map_cols * t->pitch;
    expr y, dy, ny, w, dw, nw;
    part_of(c, H, c->at.first[H], c->at.n[H], &y, &dy, &ny);
    part_of(c, W, c->at.first[W], c->at.n[W], &w, &dw, &nw);
    tile_note(&c->b, "the map under the windows");
    const bool fills = has_padding(v) || (c->wide != c->map && !is_exact(c));
    if (fills) {
        const float pad = least_of(v);
        TILE(&c->b, FILL, v->in, one, num(c, whole), c->map, z, z, tile_float_bits(pad));
        tile_if(&c->b, expr_mul(x, expr_cmp(x, EXPR_LT, z, ny), expr_cmp(x, EXPR_LT, z, nw)));
    }
    expr from = expr_add(x, expr_mul_const(x, c->at.stripe, v->size[H]), y);
    from = expr_add(x, expr_mul(x, expr_add(x, expr_mul_const(x, from, v->size[W]), w), line), c->at.c0);
    const expr to = expr_add(x, expr_mul_const(x, dy, row), expr_mul_const(x, dw, t->pitch));
    TILE(&c->b, LOAD, c->map, to, c->tx, from, v->in, one, ny, nw, c->at.nc, z, expr_mul_const(x, line, v->size[W]),
         line, one, z, num(c, row), num(c, t->pitch), one);
    if (fills)
        tile_end(&c->b);
    if (c->wide != c->map)
        TILE(&c->b, CAST, DT_F32, v->in, one, num(c, whole), c->wide, z, z, c->map, z, z, 1, 1);
}

/* Weights [kernel position backwards][line][16 of which one is used][c0], or [position backwards][channel]; the bias in
 * the order of channels. */
static void load_small(struct code *c)
{
    struct expr_pool *x = c->x;
    const struct windows *v = c->v;
    const bool blocks = v->stripes > 1 || !c->e->m->mac_rows;
    const int64_t per_line = blocks ? 16 * v->line : v->line, per_tap = v->stripes * per_line;
    const expr z = num(c, 0), one = num(c, 1), pitch = num(c, c->t.pitch), taps = num(c, taps_of(v));
    const expr stripe = expr_mod(x, c->at.stripe, num(c, v->stripes));
    tile_note(&c->b, "weights of the channels");
    TILE(&c->b, LOAD, c->raw_w, z, c->tw, expr_add(x, expr_mul_const(x, stripe, per_line), c->at.c0), v->in, one, one,
         taps, c->at.nc, z, z, num(c, per_tap), one, z, z, pitch, one);
    if (c->weights != c->raw_w)
        TILE(&c->b, CAST, DT_F32, v->in, taps, c->at.nc, c->weights, z, pitch, c->raw_w, z, pitch, 1, 1);
    if (!v->bias)
        return;
    const expr first = expr_add(x, expr_mul_const(x, stripe, v->line), c->at.c0);
    const expr n = expr_min(x, c->at.nc, expr_sub(x, num(c, v->channels), first));
    if (v->channels % v->line)
        TILE(&c->b, FILL, v->in, one, pitch, c->raw_bias, z, z, tile_float_bits(0.0f));
    TILE(&c->b, LOAD, c->raw_bias, z, c->tbias, first, v->in, one, one, one, n, z, z, z, one, z, z, z, one);
    if (c->bias != c->raw_bias)
        TILE(&c->b, CAST, DT_F32, v->in, one, c->at.nc, c->bias, z, z, c->raw_bias, z, z, 1, 1);
}

/* Where in the map the elements of a kernel position under a row of windows begin. */
static expr place_of(struct code *c, expr row, int64_t tap)
{
    struct expr_pool *x = c->x;
    const struct windows *v = c->v;
    const int64_t y = tap / v->kernel[W] * v->dilation[H], col = tap % v->kernel[W] * v->dilation[W];
    const expr first = expr_mul_const(x, row, v->stride[H] * c->t.map_cols);
    return expr_mul_const(x, expr_add(x, first, num(c, y * c->t.map_cols + col)), c->t.pitch);
}

/* The larger ones of the first two kernel positions need no start. */
static void combine(struct code *c, expr row, int64_t tap)
{
    struct expr_pool *x = c->x;
    const struct windows *v = c->v;
    const struct extent *t = &c->t;
    const bool pair = v->kind == WIN_MAX && taps_of(v) > 1;
    const expr to = expr_mul_const(x, row, t->cols * t->pitch), pitch = num(c, t->pitch), z = num(c, 0);
    const expr from = place_of(c, row, tap), step = num(c, v->stride[W] * t->pitch);
    if (pair && tap == 0)
        return;
    if (v->kind == WIN_FMA)
        TILE(&c->b, VEC, K_FN_Fma, DT_F32, c->at.n[W], c->at.nc, c->acc, to, pitch, c->wide, from, step, 1, c->weights,
             num(c, (taps_of(v) - 1 - tap) * t->pitch), z, 1, tap > 0 ? c->acc : -1,
             tap > 0 ? to : tile_float_bits(0.0f), tap > 0 ? pitch : z, tap > 0, 0, 0, 0);
    else if (pair && tap == 1)
        TILE(&c->b, VEC, K_FN_Max, acc_of(v), c->at.n[W], c->at.nc, c->acc, to, pitch, c->wide, from, step, 1, c->wide,
             place_of(c, row, 0), step, 1, -1, 0, z, 0, 0, 0, 0);
    else
        TILE(&c->b, VEC, v->kind == WIN_MAX ? K_FN_Max : K_FN_Add, acc_of(v), c->at.n[W], c->at.nc, c->acc, to, pitch,
             c->wide, from, step, 1, tap > 0 ? c->acc : -1, tap > 0 ? to : tile_float_bits(least_of(v)),
             tap > 0 ? pitch : z, tap > 0, -1, 0, z, 0, 0, 0, 0);
}

/* acc = fn(acc, operand) on the row of windows at `to`; an operand of -1 is the immediate `off`. */
static void on_row(struct code *c, expr to, enum k_fn fn, int32_t operand, expr off)
{
    const expr z = num(c, 0), pitch = num(c, c->t.pitch);
    TILE(&c->b, VEC, fn, acc_of(c->v), c->at.n[W], c->at.nc, c->acc, to, pitch, c->acc, to, pitch, 1, operand, off, z,
         operand >= 0, -1, 0, z, 0, 0, 0, 0);
}

static void finish_row(struct code *c, expr row)
{
    const struct windows *v = c->v;
    const expr z = num(c, 0), pitch = num(c, c->t.pitch);
    const expr to = expr_mul_const(c->x, row, c->t.cols * c->t.pitch);
    if (v->kind == WIN_SUM)
        on_row(c, to, K_FN_Div, -1, tile_float_bits(v->share));
    if (v->bias)
        on_row(c, to, K_FN_Add, c->bias, z);
    if (v->relu)
        on_row(c, to, K_FN_Relu, -1, z);
    if (c->result != c->acc)
        TILE(&c->b, CAST, v->out, acc_of(v), c->at.n[W], c->at.nc, c->result, to, pitch, c->acc, to, pitch, 1, 1);
}

static void store(struct code *c)
{
    struct expr_pool *x = c->x;
    const struct windows *v = c->v;
    const expr z = num(c, 0), one = num(c, 1), pitch = num(c, c->t.pitch), line = num(c, v->line);
    expr to = expr_add(x, expr_mul_const(x, c->at.stripe, v->count[H]), c->at.first[H]);
    to = expr_add(x, expr_mul(x, expr_add(x, expr_mul_const(x, to, v->count[W]), c->at.first[W]), line), c->at.c0);
    tile_note(&c->b, "store");
    TILE(&c->b, STORE, c->ty, to, c->result, z, v->out, one, c->at.n[H], c->at.n[W], c->at.nc, z,
         num(c, c->t.cols * c->t.pitch), pitch, one, z, expr_mul_const(x, line, v->count[W]), line, one);
}

static void tile_body(struct code *c)
{
    load_map(c);
    if (c->v->kind == WIN_FMA)
        load_small(c);
    tile_note(&c->b, "kernel positions in ascending order");
    const expr row = tile_loop(&c->b, "row", c->at.n[H]);
    for (int64_t tap = 0; tap < taps_of(c->v); tap++)
        combine(c, row, tap);
    finish_row(c, row);
    tile_end(&c->b);
    store(c);
}

/* As if images and rows of the band were all; `typical`: as many as tiles are chosen for. */
static struct windows part_of_map(const struct emit *e, const struct windows *v, bool typical)
{
    struct windows part = *v;
    if (e->band) {
        part.batch = expr_const(&e->cx->exprs, e->band->images);
        part.count[H] = typical ? e->band->most : e->band->rows;
    }
    return part;
}

static struct extent choose_for(const struct emit *e, const struct windows *v)
{
    const struct windows part = part_of_map(e, v, true);
    const struct extent t = choose(e->m, e->cx, &part, e->tiling);
    return t.channels > 0 ? t : choose(e->m, e->cx, &part, NULL);
}

bool gen_lines_rows(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct row_use *out)
{
    struct windows v;
    const char *why = NULL;
    if (!match(m, cx, n, &v, &why) || v.x->type->layout.kind != LAYOUT_NHWC)
        return false;
    const double bytes = (double)(v.channels * v.count[H] * v.count[W] * taps_of(&v) * dtype_size(acc_of(&v)));
    *out = (struct row_use){.windows = v.x,
                            .rows = v.count[H],
                            .from = v.size[H],
                            .stride = v.stride[H],
                            .before = v.before[H],
                            .span = (v.kernel[H] - 1) * v.dilation[H] + 1,
                            .cycles = bytes / target_num(m->target, TK_VEC_BYTES) / m->n_vector};
    return true;
}

static int32_t bias_tensor(struct emit *e, const struct windows *v)
{
    return v->bias ? emit_tensor(e, v->bias) : -1;
}

enum npuc_status gen_lines_emit(struct emit *e, struct node *n)
{
    static const char *const names[] = {"pool_max", "pool_mean", "depthwise"};
    struct windows v;
    const char *why = NULL;
    char name[64];
    if (!match(e->m, e->cx, n, &v, &why))
        return node_error(e->cx, n, D_VERIFY, "windows over lines were placed that the vector unit cannot do");
    struct code c = {.e = e, .v = &v, .t = choose_for(e, &v)};
    snprintf(name, sizeof name, "%s_%s_%lldx%lldx%lld", names[v.kind], dtype_table[v.in].name, (long long)c.t.rows,
             (long long)c.t.cols, (long long)c.t.channels);
    c.k = emit_kernel(e, name, &c.b, &c.params);
    c.x = &c.k->exprs;
    c.band = kparam_band(&c.params, kparam(&c.params, "batch", v.batch), num(&c, v.count[H]));
    tile_params_done(c.k);
    c.tx = tile_tensor(c.k, e->arena, "x", v.in, true, false);
    c.ty = tile_tensor(c.k, e->arena, "y", v.out, false, true);
    c.tw = v.kind == WIN_FMA ? tile_tensor(c.k, e->arena, "w", v.in, true, false) : -1;
    c.tbias = v.bias ? tile_tensor(c.k, e->arena, "bias", v.in, true, false) : -1;
    tile_section_begin(&c.b, TCORE_VECTOR);
    buffers(&c);
    const struct line_map map = map_of(&v);
    c.at = line_tiles_open(e->m, &c.b, &map, &(struct line_tile){c.t.channels, {c.t.rows, c.t.cols}}, &c.band);
    tile_body(&c);
    tile_end(&c.b);
    /* [channel][one][position] is a transposed filter of one result: its channels become neighbours */
    const int32_t weights = v.kind == WIN_FMA ? emit_conv_weight(e, v.w, v.in, 1, true) : -1;
    const int32_t tensors[] = {emit_tensor(e, v.x), emit_tensor(e, v.y), weights, bias_tensor(e, &v)};
    const struct windows made = part_of_map(e, &v, false);
    const expr work = expr_mul_const(emit_pool(e), made.batch, v.channels * made.count[H] * v.count[W] * taps_of(&v));
    return emit_launch(e, c.k, tensors, c.params.bound, v.kind == WIN_FMA ? emit_expr(e, work) : EXPR_INVALID,
                       n->op == OP_Fused ? "FusedConv" : op_table[n->op]->name);
}
