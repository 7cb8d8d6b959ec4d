/* Resize of feature maps whose sizes are known: rows and columns of lines of channels (NHWC, NC1HWC0; a dense map has
 * lines of one element). Places repeat: p results in a row take elements q further on with the same weights, so each of
 * the p phases is a weighted sum of lines at regular steps and nothing is gathered.
 *
 *   for each tile of this core: a stripe of lines, periods of rows and of columns, channels
 *     the map under them; beyond its ends the last row or column once more      mte2
 *     widened to f32                                                            vector
 *     for each period of rows, phase: the sum of rows                           vector
 *       for each phase of columns: the sum of lines, narrowed                   vector
 *     stored                                                                    mte3
 *
 * Rows before columns, taps in ascending order, products and sums rounded: the bits of kernels/op_resize.c. Mode
 * nearest moves elements of any type. */
#include "backend/vector/gens.h"
#include "backend/vector/line_tiles.h"
#include "base/size.h"
#include "kernels/resize.h"
#include "kernels/vec.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    H,
    W,
    AXES = LINE_AXES,
    MOST_PHASES = 32,
    MOST_TAPS = 16,
    MOST_OUT = 1 << 14,
    UNIT = 32 /* bytes: a block of UB */
};

/* Result o is the sum of weight[o % phases][i] times element first[o % phases] + low + o / phases * step + i. */
struct side {
    struct k_resize_axis of;
    bool keeps;
    int64_t phases, step, periods, low, span; /* span: elements under one period */
    int64_t first[MOST_PHASES];
    float weight[MOST_PHASES][MOST_TAPS];
};
struct resize {
    struct value *x, *y;
    enum dtype type;
    bool moves;                      /* mode nearest */
    int64_t channels, line, stripes; /* of the map; of a line; lines of a position */
    struct side side[AXES];
    expr batch;
};
/* Channels and periods of a tile; elements between lines; the map under it. */
struct extent {
    int64_t channels, periods[AXES], pitch, map[AXES];
};

/* ---- match -------------------------------------------------------------------------------------------------- */

static const char *word(const struct ir_ctx *cx, const struct node *n, const char *attr)
{
    return str_text(&cx->strings, node_attr_str(n, attr, 0));
}

/* Taps are neighbours, and those of result o are those of o - p, q further on. */
static bool repeats(const int64_t *at, const double *weight, int64_t taps, int64_t o, int64_t p, int64_t q)
{
    for (int64_t i = 0; i < taps; i++)
        if (at[o * taps + i] != at[(o - p) * taps + i] + q ||
            (float)weight[o * taps + i] != (float)weight[(o - p) * taps + i])
            return false;
    return true;
}

static void take_period(struct side *s, const int64_t *at, const double *weight, int64_t p, int64_t q)
{
    const int64_t taps = s->of.n;
    int64_t high = at[0];
    s->phases = p;
    s->step = q;
    s->periods = size_ceil_div(s->of.out, p);
    s->low = at[0];
    for (int64_t o = 0; o < p; o++) {
        s->low = at[o * taps] < s->low ? at[o * taps] : s->low;
        high = at[o * taps] > high ? at[o * taps] : high;
        for (int64_t i = 0; i < taps; i++)
            s->weight[o][i] = (float)weight[o * taps + i];
    }
    for (int64_t o = 0; o < p; o++)
        s->first[o] = at[o * taps] - s->low;
    s->span = high - s->low + taps;
}

static bool find_period(struct ir_ctx *cx, const struct k_resize_rule *rule, struct side *s)
{
    if (!k_resize_prepare(rule, &s->of) || s->of.n > MOST_TAPS || s->of.in < 1 || s->of.out < 1 || s->of.out > MOST_OUT)
        return false;
    const int64_t taps = s->of.n, out = s->of.out;
    int64_t *at = ARENA_ARRAY(&cx->scratch, int64_t, out * taps);
    double *weight = ARENA_ARRAY(&cx->scratch, double, out *taps);
    for (int64_t o = 0; o < out; o++) {
        if (!k_resize_place(rule, &s->of, o, &at[o * taps], &weight[o * taps]))
            return false;
        for (int64_t i = 1; i < taps; i++)
            if (at[o * taps + i] != at[o * taps] + i)
                return false;
    }
    for (int64_t p = 1; p <= MOST_PHASES && p <= out; p++) {
        const int64_t q = p < out ? at[p * taps] - at[0] : 0;
        int64_t o = p;
        while (o < out && q >= 0 && repeats(at, weight, taps, o, p, q))
            o++;
        if (o == out && q >= 0) {
            take_period(s, at, weight, p, q);
            return true;
        }
    }
    return false;
}

static void keep(struct side *s, int64_t size)
{
    *s = (struct side){.of = {.in = size, .out = size, .n = 1}, .keeps = true, .phases = 1, .step = 1, .span = 1};
    s->periods = size;
    s->weight[0][0] = 1;
}

/* Entry i of the lists of the node, which is about `axis`. */
static bool read_side(struct ir_ctx *cx, const struct node *n, int64_t i, int axis, const struct k_resize_rule *rule,
                      struct resize *v)
{
    const struct value *x = node_in(n, 0), *scales = node_in(n, 2), *sizes = node_in(n, 3);
    struct side s = {.of = {.roi = {0, 1}}};
    const bool known = expr_is_const(&cx->exprs, x->type->dims[axis], &s.of.in) &&
                       expr_is_const(&cx->exprs, n->out[0].type->dims[axis], &s.of.out);
    s.of.scale = known && sizes && s.of.in > 0 ? (double)s.of.out / (double)s.of.in : 0;
    if (!sizes && !value_const_f64(scales, i, &s.of.scale))
        return false;
    if (x->type->dims[axis] == n->out[0].type->dims[axis] && (sizes || fabs(s.of.scale - 1) <= 1e-9))
        return true;
    if (axis < 2 || !known || !(s.of.scale > 0) || !find_period(cx, rule, &s))
        return false;
    v->side[axis - 2] = s;
    return true;
}

static bool read_sides(struct ir_ctx *cx, const struct node *n, struct resize *v)
{
    const struct attr *axes = node_attr(n, "axes");
    const int64_t count = axes && axes->len > 0 ? axes->len : 4;
    const struct k_resize_rule rule = {.mode = word(cx, n, "mode"),
                                       .nearest = word(cx, n, "nearest_mode"),
                                       .coordinates = word(cx, n, "coordinate_transformation_mode"),
                                       .antialias = node_attr_int(n, "antialias", 0) != 0,
                                       .exclude_outside = node_attr_int(n, "exclude_outside", 0) != 0,
                                       .cubic_a = (double)node_attr_float(n, "cubic_coeff_a", -0.75F)};
    int64_t before = -1;
    if (count > 4 || strcmp(rule.coordinates, "tf_crop_and_resize") == 0 ||
        strcmp(word(cx, n, "keep_aspect_ratio_policy"), "stretch") != 0)
        return false;
    for (int i = H; i < AXES; i++) {
        int64_t size;
        if (!expr_is_const(&cx->exprs, v->x->type->dims[2 + i], &size) || size < 1)
            return false;
        keep(&v->side[i], size);
    }
    for (int64_t i = 0; i < count; i++) {
        int64_t axis = axes && axes->len > 0 ? axes->v.ints[i] : i;
        axis += axis < 0 ? 4 : 0;
        if (axis <= before || axis > 3 || !read_side(cx, n, i, (int)axis, &rule, v))
            return false;
        before = axis;
    }
    v->moves = strcmp(rule.mode, "nearest") == 0;
    return true;
}

static bool read_map(const struct ir_ctx *cx, const struct node *n, struct resize *v)
{
    *v = (struct resize){.x = node_in(n, 0), .y = node_out(n, 0)};
    if (!v->x || !v->y || v->x->type->kind != TYPE_TENSOR || v->x->type->rank != 4 || v->y->type->rank != 4)
        return false;
    const struct type *x = v->x->type, *y = v->y->type;
    const bool rows = x->layout.kind == LAYOUT_NHWC, blocks = x->layout.kind == LAYOUT_NC1HWC0;
    const int bits = dtype_table[x->dtype].bits;
    if ((!rows && !blocks && x->layout.kind != LAYOUT_ND) || y->layout.kind != x->layout.kind ||
        y->layout.c0 != x->layout.c0 || y->dtype != x->dtype || bits < 8 || bits > 64 || x->dims[0] == EXPR_INVALID ||
        !expr_is_const(&cx->exprs, x->dims[1], &v->channels) || v->channels < 1)
        return false;
    v->type = x->dtype;
    v->line = blocks ? x->layout.c0 : rows ? v->channels : 1;
    v->stripes = size_ceil_div(v->channels, v->line);
    v->batch = x->dims[0];
    return true;
}

/* ---- extents ------------------------------------------------------------------------------------------------ */

static struct extent extent_of(const struct resize *v, int64_t channels, int64_t rows, int64_t cols)
{
    struct extent t = {.channels = channels, .periods = {rows, cols}};
    t.pitch = size_align(channels, UNIT / dtype_size(v->type));
    for (int i = H; i < AXES; i++)
        t.map[i] = (t.periods[i] - 1) * v->side[i].step + v->side[i].span;
    return t;
}

static bool is_wide(const struct resize *v)
{
    return v->moves || v->type == DT_F32;
}

/* Elements of the buffers of a tile. */
struct sizes {
    int64_t map, wide, row, product, acc, result;
};
static struct sizes sizes_of(const struct resize *v, const struct extent *t)
{
    const int64_t cols = t->periods[W] * v->side[W].phases;
    struct sizes s = {.map = t->map[H] * t->map[W] * t->pitch};
    s.wide = is_wide(v) ? 0 : s.map;
    s.row = v->side[H].keeps || v->side[W].keeps ? 0 : t->map[W] * t->pitch;
    s.product = v->moves ? 0 : (t->map[W] > cols ? t->map[W] : cols) * t->pitch;
    s.acc = is_wide(v) ? 0 : cols * t->pitch;
    s.result = t->periods[H] * v->side[H].phases * cols * t->pitch;
    return s;
}

static bool fits(const struct machine *m, const struct resize *v, const struct extent *t)
{
    const struct sizes s = sizes_of(v, t);
    const int64_t es = dtype_size(v->type), each = v->moves ? es : 4;
    return 2 * (s.map + s.result) * es + (s.wide + s.product + s.acc) * 4 + s.row * each + 8 * m->align[TS_UB] <=
           m->size[TS_UB];
}

/* Periods are what a tile has rows and columns of. */
static struct line_map map_of(const struct resize *v)
{
    return (struct line_map){v->line, v->stripes, {v->side[H].periods, v->side[W].periods}, v->batch};
}

static double cycles_of(const struct machine *m, const struct ir_ctx *cx, const struct resize *v,
                        const struct extent *t)
{
    const struct target *g = m->target;
    const double fixed = target_num(g, TK_VEC_FIXED), es = dtype_size(v->type);
    const double line = ceil((double)t->channels * (v->moves ? es : 4) / target_num(g, TK_VEC_BYTES));
    const struct line_map map = map_of(v);
    const double items = line_tiles(cx, &map, &(struct line_tile){t->channels, {t->periods[H], t->periods[W]}});
    const double rows = (double)(t->periods[H] * v->side[H].phases), width = (double)t->map[W],
                 cols = (double)(t->periods[W] * v->side[W].phases);
    double per_row = is_wide(v) ? 0 : fixed + cols * line;
    if (!v->side[H].keeps)
        per_row += (double)(2 * v->side[H].of.n - 1) * (fixed + width * line);
    if (!v->side[W].keeps || v->side[H].keeps)
        per_row += (double)(2 * v->side[W].of.n - 1) * ((double)v->side[W].phases * fixed + cols * line);
    const double vec = rows * per_row + (is_wide(v) ? 0 : (double)t->map[H] * (fixed + width * line));
    const double bytes = (double)t->channels * es, rate = target_num(g, TK_MTE2_COLD_RATE);
    const double bursts = t->channels < v->line ? 4 : 0;
    const double load = (double)t->map[H] * (width * (bytes / rate + bursts) + 4),
                 store = rows * (cols * (bytes / rate + bursts) + 4);
    return ceil(items / m->n_vector) * (fmax(vec, fmax(load, store)) + 100) + load + store;
}

struct search {
    const struct machine *m;
    const struct ir_ctx *cx;
    const struct resize *v;
};

/* A tile has no more periods than there are. */
static struct extent extent_of_tile(const struct resize *v, const struct line_tile *t)
{
    return extent_of(v, t->channels, size_min(t->count[H], v->side[H].periods),
                     size_min(t->count[W], v->side[W].periods));
}

static double cycles_of_tile(const void *user, const struct line_tile *tile)
{
    const struct search *s = user;
    const struct extent t = extent_of_tile(s->v, tile);
    return fits(s->m, s->v, &t) ? cycles_of(s->m, s->cx, s->v, &t) : (double)INFINITY;
}

/* channels = 0: nothing fits. */
static struct extent choose(const struct machine *m, const struct ir_ctx *cx, const struct resize *v,
                            const struct tiling *w)
{
    static const int64_t steps[] = {1, 2, 3, 4, 5, 7, 8, 10, 14, 16, 20, 28, 32, 40, 56, 64, 80, 112, 128, 160, 256};
    const struct search s = {m, cx, v};
    const struct line_map map = map_of(v);
    const struct line_tile t = line_tile_choose(&map, steps, NPUC_ARRAY_LEN(steps), w, cycles_of_tile, &s);
    return t.channels > 0 ? extent_of_tile(v, &t) : (struct extent){0};
}

static bool match(const struct machine *m, struct ir_ctx *cx, const struct node *n, struct resize *v,
                  const char **reason)
{
    if (n->op != OP_Resize)
        return false;
    *reason = "maps of four dimensions are resized where sizes are known and places repeat after at most 32 results";
    if (!read_map(cx, n, v) || (node_in(n, 2) == NULL) == (node_in(n, 3) == NULL) || !read_sides(cx, n, v))
        return false;
    *reason = "sums of floats of at most 32 bits are taken, other types moved";
    if (!v->moves && v->type != DT_F32 && v->type != DT_F16 && v->type != DT_BF16)
        return false;
    return choose(m, cx, v, NULL).channels > 0;
}

bool gen_resize_match(const struct machine *m, struct ir_ctx *cx, const struct node *n, const char **reason)
{
    struct resize v;
    return match(m, cx, n, &v, reason);
}

/* ---- the program -------------------------------------------------------------------------------------------- */

struct code {
    struct emit *e;
    const struct resize *v;
    struct extent t;
    struct tile_kernel *k;
    struct expr_pool *x;
    struct tile_builder b;
    expr batch;
    int32_t tx, ty;
    int32_t map, wide, row, product, acc, result;
    struct line_place at; /* first and n: periods */
};

static expr num(struct code *c, int64_t v)
{
    return expr_const(c->x, v);
}

static int32_t buffer(struct code *c, const char *name, enum dtype t, int32_t slots, int64_t n)
{
    return n > 0 ? tile_buf(&c->b, name, TS_UB, t, slots, size_align(n * dtype_size(t), c->e->m->align[TS_UB])) : -1;
}

static void buffers(struct code *c)
{
    const struct resize *v = c->v;
    const struct sizes s = sizes_of(v, &c->t);
    c->map = buffer(c, "map", v->type, 2, s.map);
    c->wide = is_wide(v) ? c->map : buffer(c, "map f32", DT_F32, 1, s.wide);
    c->row = buffer(c, "row", v->moves ? v->type : DT_F32, 1, s.row);
    c->product = buffer(c, "product", DT_F32, 1, s.product);
    c->acc = buffer(c, "acc", DT_F32, 1, s.acc);
    c->result = buffer(c, "result", v->type, 2, s.result);
}

/* Positions of the map under the tile along one axis: where on chip, from where, how many, the step between them. */
struct piece {
    expr to, from, n;
    int64_t step;
};

static expr positions(struct code *c, int a)
{
    const expr more = expr_sub(c->x, c->at.n[a], num(c, 1));
    return expr_add(c->x, expr_mul_const(c->x, more, c->v->side[a].step), num(c, c->v->side[a].span));
}

/* What lies inside, then the first and the last position once more for each beyond the ends. */
static int pieces_of(struct code *c, int a, struct piece out[3])
{
    struct expr_pool *x = c->x;
    const struct side *s = &c->v->side[a];
    const expr z = num(c, 0), in = num(c, s->of.in), len = positions(c, a);
    const expr top = expr_add(x, expr_mul_const(x, c->at.first[a], s->step), num(c, s->low));
    const expr before = s->low < 0 ? expr_min(x, len, expr_max(x, z, expr_sub(x, z, top))) : z;
    const bool ends = (s->periods - 1) * s->step + s->low + s->span > s->of.in;
    const expr after = ends ? expr_min(x, len, expr_max(x, z, expr_sub(x, expr_add(x, top, len), in))) : z;
    int n = 0;
    out[n++] = (struct piece){.to = before,
                              .from = s->low < 0 ? expr_max(x, z, top) : top,
                              .n = expr_sub(x, expr_sub(x, len, before), after),
                              .step = 1};
    if (s->low < 0)
        out[n++] = (struct piece){.to = z, .from = z, .n = before};
    if (ends)
        out[n++] = (struct piece){.to = expr_sub(x, len, after), .from = num(c, s->of.in - 1), .n = after};
    return n;
}

static void load_map(struct code *c)
{
    struct expr_pool *x = c->x;
    const struct resize *v = c->v;
    const expr z = num(c, 0), one = num(c, 1), width = num(c, v->side[W].of.in);
    const int64_t row = c->t.map[W] * c->t.pitch, across = v->line * v->side[W].of.in;
    struct piece rows[3], cols[3];
    const int n_rows = pieces_of(c, H, rows), n_cols = pieces_of(c, W, cols);
    tile_note(&c->b, "the map under the results");
    for (int i = 0; i < n_rows; i++)
        for (int j = 0; j < n_cols; j++) {
            const struct piece *r = &rows[i], *q = &cols[j];
            expr from = expr_add(x, expr_mul_const(x, c->at.stripe, v->side[H].of.in), r->from);
            from = expr_add(x, expr_mul_const(x, expr_add(x, expr_mul(x, from, width), q->from), v->line), c->at.c0);
            const expr to = expr_add(x, expr_mul_const(x, r->to, row), expr_mul_const(x, q->to, c->t.pitch));
            const bool some = n_rows > 1 || n_cols > 1;
            if (some)
                tile_if(&c->b, expr_mul(x, expr_cmp(x, EXPR_LT, z, r->n), expr_cmp(x, EXPR_LT, z, q->n)));
            TILE(&c->b, LOAD, c->map, to, c->tx, from, v->type, one, r->n, q->n, c->at.nc, z, num(c, r->step * across),
                 num(c, q->step * v->line), one, z, num(c, row), num(c, c->t.pitch), one);
            if (some)
                tile_end(&c->b);
        }
    if (c->wide == c->map)
        return;
    const expr y = tile_loop(&c->b, "y", positions(c, H)), at = expr_mul_const(x, y, row);
    TILE(&c->b, CAST, DT_F32, v->type, positions(c, W), c->at.nc, c->wide, at, num(c, c->t.pitch), c->map, at,
         num(c, c->t.pitch), 1, 1);
    tile_end(&c->b);
}

/* Lines of a buffer: the first, the step between them. */
struct lines {
    int32_t buf;
    expr off;
    int64_t step;
};

/* dst = the weighted sum of n lines of src, taps `apart` elements from each other. */
static void sum(struct code *c, const struct lines *dst, const struct lines *src, expr n, int64_t apart,
                const struct side *s, int64_t phase)
{
    struct expr_pool *x = c->x;
    const expr z = num(c, 0), to = num(c, dst->step), by = num(c, src->step), pitch = num(c, c->t.pitch);
    for (int64_t i = 0; i < s->of.n; i++) {
        const expr from = expr_add(x, src->off, num(c, (s->first[phase] + i) * apart));
        if (c->v->moves) {
            TILE(&c->b, COPY_UB, c->v->type, n, c->at.nc, dst->buf, dst->off, to, src->buf, from, by, 1);
            continue;
        }
        const bool first = i == 0;
        TILE(&c->b, VEC, K_FN_Mul, DT_F32, n, c->at.nc, first ? dst->buf : c->product, first ? dst->off : z,
             first ? to : pitch, src->buf, from, by, 1, -1, tile_float_bits(s->weight[phase][i]), z, 0, -1, 0, z, 0, 0,
             0, 0);
        if (!first)
            TILE(&c->b, VEC, K_FN_Add, DT_F32, n, c->at.nc, dst->buf, dst->off, to, dst->buf, dst->off, to, 1,
                 c->product, z, pitch, 1, -1, 0, z, 0, 0, 0, 0);
    }
}

/* Row `phase` of period `period` of the tile's rows. */
static void one_row(struct code *c, expr period, int64_t phase)
{
    struct expr_pool *x = c->x;
    const struct resize *v = c->v;
    const struct side *h = &v->side[H], *w = &v->side[W];
    const int64_t pitch = c->t.pitch, in_row = c->t.map[W] * pitch, out_row = c->t.periods[W] * w->phases * pitch;
    const expr z = num(c, 0), width = positions(c, W);
    const expr to = expr_add(x, expr_mul_const(x, period, h->phases * out_row), num(c, phase * out_row));
    struct lines rows = {c->wide, expr_mul_const(x, period, h->step * in_row), pitch};
    const struct lines dst = c->acc >= 0 ? (struct lines){c->acc, z, pitch} : (struct lines){c->result, to, pitch};
    if (!h->keeps) {
        const struct lines mixed = w->keeps ? dst : (struct lines){c->row, z, pitch};
        sum(c, &mixed, &rows, width, in_row, h, phase);
        rows = mixed;
    }
    for (int64_t q = 0; (!w->keeps || h->keeps) && q < w->phases; q++) {
        const struct lines from = {rows.buf, rows.off, w->step * pitch},
                           into = {dst.buf, expr_add(x, dst.off, num(c, q * pitch)), w->phases * pitch};
        sum(c, &into, &from, c->at.n[W], pitch, w, q);
    }
    if (c->acc >= 0)
        TILE(&c->b, CAST, v->type, DT_F32, expr_mul_const(x, c->at.n[W], w->phases), c->at.nc, c->result, to,
             num(c, pitch), c->acc, z, num(c, pitch), 1, 1);
}

static void store(struct code *c)
{
    struct expr_pool *x = c->x;
    const struct resize *v = c->v;
    const expr z = num(c, 0), one = num(c, 1);
    expr first[AXES], n[AXES];
    for (int i = H; i < AXES; i++) {
        const struct side *s = &v->side[i];
        first[i] = expr_mul_const(x, c->at.first[i], s->phases);
        n[i] = expr_min(x, expr_mul_const(x, c->at.n[i], s->phases), expr_sub(x, num(c, s->of.out), first[i]));
    }
    expr to = expr_add(x, expr_mul_const(x, c->at.stripe, v->side[H].of.out), first[H]);
    to = expr_add(x, expr_mul_const(x, to, v->side[W].of.out), first[W]);
    to = expr_add(x, expr_mul_const(x, to, v->line), c->at.c0);
    tile_note(&c->b, "store");
    TILE(&c->b, STORE, c->ty, to, c->result, z, v->type, one, n[H], n[W], c->at.nc, z,
         num(c, c->t.periods[W] * v->side[W].phases * c->t.pitch), num(c, c->t.pitch), one, z,
         num(c, v->line * v->side[W].of.out), num(c, v->line), one);
}

static void code(struct code *c)
{
    tile_section_begin(&c->b, TCORE_VECTOR);
    buffers(c);
    const struct line_map map = map_of(c->v);
    const struct kband all = kband_all(c->x, c->batch, num(c, map.count[H]));
    c->at = line_tiles_open(c->e->m, &c->b, &map,
                            &(struct line_tile){c->t.channels, {c->t.periods[H], c->t.periods[W]}}, &all);
    load_map(c);
    tile_note(&c->b, "rows, then columns");
    const expr period = tile_loop(&c->b, "row", c->at.n[H]);
    for (int64_t phase = 0; phase < c->v->side[H].phases; phase++)
        one_row(c, period, phase);
    tile_end(&c->b);
    store(c);
    tile_end(&c->b);
}

enum npuc_status gen_resize_emit(struct emit *e, struct node *n)
{
    struct resize v;
    const char *why = NULL;
    char name[64];
    if (!match(e->m, e->cx, n, &v, &why))
        return node_error(e->cx, n, D_VERIFY, "a Resize was placed that the vector unit cannot do");
    struct code c = {.e = e, .v = &v, .t = choose(e->m, e->cx, &v, e->tiling)};
    if (c.t.channels == 0)
        c.t = choose(e->m, e->cx, &v, NULL);
    snprintf(name, sizeof name, "resize_%s_%lldx%lldx%lld", dtype_table[v.type].name,
             (long long)(c.t.periods[H] * v.side[H].phases), (long long)(c.t.periods[W] * v.side[W].phases),
             (long long)c.t.channels);
    struct kparams params;
    c.k = emit_kernel(e, name, &c.b, &params);
    c.x = &c.k->exprs;
    c.batch = kparam(&params, "batch", v.batch);
    tile_params_done(c.k);
    c.tx = tile_tensor(c.k, e->arena, "x", v.type, true, false);
    c.ty = tile_tensor(c.k, e->arena, "y", v.type, false, true);
    code(&c);
    return emit_launch(e, c.k, (const int32_t[]){emit_tensor(e, v.x), emit_tensor(e, v.y)}, params.bound, EXPR_INVALID,
                       "Resize");
}
